"""Read the content of live replies, of which so many are in flight, within a bounded memory."""

from __future__ import annotations

import asyncio

import aiohttp

from frameenrich.providers.guard import MOST_BYTES

TOGETHER_BYTES = 256 << 20
"""What all replies that are being read may hold: 64 calls in flight would hold 4 GB else."""


class TooLongError(Exception):
    """A reply that would fill the memory."""


class Room:
    """The memory that replies share while they are read.

    Parameters
    ----------
    most : int
        Where they hold more bytes together, one is read on at a time, and the others wait.
    """

    def __init__(self, most: int = TOGETHER_BYTES) -> None:
        self._most = most
        self._held = 0
        self._going: object = None
        self._freed = asyncio.Event()

    async def take(self, count: int, reader: object) -> None:
        """Count some more bytes that a reader holds; return when it may read on."""
        self._held += count
        while self._held > self._most and self._going not in {None, reader}:
            await self._freed.wait()
        # Else all would wait for each other.
        if self._held > self._most:
            self._going = reader

    def give_back(self, count: int, reader: object) -> None:
        """Count what a reader held no more: it is done."""
        self._held -= count
        if self._going is reader:
            self._going = None
        # Wakes up whoever waits now; the next to come waits for the next one that is done.
        self._freed.set()
        self._freed.clear()


async def read_content(response: aiohttp.ClientResponse, room: Room) -> bytes:
    """Return a reply's content, as it is when it is decompressed, if it can be held.

    Where there is no room the server is kept waiting, as aiohttp holds little that was not read.
    As long as there is, no reply waits for another one: its own time runs on, and a proxy hangs up
    on who does not read.

    Raises
    ------
    TooLongError
        It is longer than `MOST_BYTES`.
    """
    content, reader = bytearray(), object()
    try:
        async for piece in response.content.iter_any():
            content += piece
            await room.take(len(piece), reader)
            if len(content) > MOST_BYTES:
                raise TooLongError
        return bytes(content)
    finally:
        room.give_back(len(content), reader)
