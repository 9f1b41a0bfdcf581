"""Replies of live calls that are long: what all in flight hold together is bounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from frameenrich.providers.live.read_content import Room, read_content

pytestmark = pytest.mark.any_pandas
CALLS, MEGABYTES, PIECE = 10, 12, 1 << 16


def test_long_replies_are_not_all_held_at_once() -> None:
    """Promise 8: without room one is read after the other, and the server is kept waiting."""
    sent, most = dict[int, int](), [0]

    async def answer(request: web.Request) -> web.StreamResponse:
        """Send a long reply and note what has gone out of all that are not finished."""
        reply, own = web.StreamResponse(), len(sent)
        sent[own] = 0
        await reply.prepare(request)
        for number in range(MEGABYTES << 20 >> 16):
            sent[own] = number * PIECE
            most[0] = max(most[0], sum(sent.values()))
            await reply.write(bytes(PIECE))
        sent[own] = 0
        return reply

    async def ask_all() -> list[int]:
        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        # Each connection inherits it: else the kernel holds megabytes on nobody's account.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        await web.SockSite(runner, listening).start()
        url, room = f"http://127.0.0.1:{listening.getsockname()[1]}", Room(CALLS << 20)

        async def ask(http: aiohttp.ClientSession) -> int:
            async with http.get(url) as response:
                return len(await read_content(response, room))

        async with aiohttp.ClientSession() as http:
            lengths = await asyncio.gather(*(ask(http) for _ in range(CALLS)))
        await runner.cleanup()
        return lengths

    assert asyncio.run(ask_all()) == [MEGABYTES << 20] * CALLS
    # One whole, and of the others what there is room for, and what is on its way; not all ten.
    assert most[0] < (MEGABYTES + (CALLS - 1) * 4) << 20


def test_a_long_reply_waits_for_no_other_while_there_is_room() -> None:
    """A paid answer is not lost because its server, not read from, hangs up meanwhile."""
    large = bytes(2 << 20)

    async def read_all() -> list[bytes]:
        all_begun = asyncio.Barrier(CALLS)

        class Content:
            """A body whose second half comes when of each body the first half was read."""

            async def iter_any(self) -> AsyncIterator[bytes]:
                yield large
                await all_begun.wait()
                yield large

        response: Any = SimpleNamespace(content=Content())
        room = Room(2 * CALLS * len(large))
        reading = asyncio.gather(*(read_content(response, room) for _ in range(CALLS)))
        return await asyncio.wait_for(reading, 10)

    assert asyncio.run(read_all()) == [large * 2] * CALLS


def test_a_reply_that_broke_off_leaves_its_room_to_others() -> None:
    """Else some failures later one call at a time would be read."""
    room = Room(10)

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(11)
        raise aiohttp.ClientPayloadError

    async def whole() -> AsyncIterator[bytes]:
        yield bytes(11)

    async def read(content: AsyncIterator[bytes]) -> bytes:
        response: Any = SimpleNamespace(content=SimpleNamespace(iter_any=lambda: content))
        return await read_content(response, room)

    async def read_all() -> list[bytes | BaseException]:
        reading = asyncio.gather(*map(read, (broken(), whole(), whole())), return_exceptions=True)
        return await asyncio.wait_for(reading, 10)

    failed, *came = asyncio.run(read_all())
    assert isinstance(failed, aiohttp.ClientPayloadError)
    assert came == [bytes(11)] * 2
