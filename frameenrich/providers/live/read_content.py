"""Read the content of live replies, of which so many are in flight, within a bounded memory."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp

from frameenrich.providers.guard import MOST_BYTES

FREE_BYTES = 1 << 20
"""A longer reply waits for its turn once so much of it is here; most answers are a thousandth."""


LARGE_AT_ONCE = 4
"""So many longer replies are read at once: 64 calls in flight would hold 4 GB of them else."""


class TooLongError(Exception):
    """A reply that would fill the memory."""


async def read_content(response: aiohttp.ClientResponse, large: asyncio.Semaphore) -> bytes:
    """Return a reply's content, as it is when it is decompressed, if it can be held.

    Up to `FREE_BYTES` every reply is read as it comes, and what is longer under `large`. The server
    is kept waiting meanwhile, as aiohttp holds little that was not read.

    Raises
    ------
    TooLongError
        It is longer than `MOST_BYTES`.
    """
    content = bytearray()
    async with contextlib.AsyncExitStack() as turn:
        async for piece in response.content.iter_any():
            if len(content) <= FREE_BYTES < len(content) + len(piece):
                await turn.enter_async_context(large)
            content += piece
            if len(content) > MOST_BYTES:
                raise TooLongError
        return bytes(content)
