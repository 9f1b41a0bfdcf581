"""Replies of live calls that are long: what all in flight hold together is bounded."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from aiohttp import web

from frameenrich.providers.live.read_content import read_content

pytestmark = pytest.mark.any_pandas
CALLS, MEGABYTES, PIECE = 10, 12, 1 << 16


def test_long_replies_are_not_all_held_at_once() -> None:
    """Promise 8: one is read after the other, and the server is kept waiting meanwhile."""
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
        url, large = f"http://127.0.0.1:{listening.getsockname()[1]}", asyncio.Semaphore(1)

        async def ask(http: aiohttp.ClientSession) -> int:
            async with http.get(url) as response:
                return len(await read_content(response, large))

        async with aiohttp.ClientSession() as http:
            lengths = await asyncio.gather(*(ask(http) for _ in range(CALLS)))
        await runner.cleanup()
        return lengths

    assert asyncio.run(ask_all()) == [MEGABYTES << 20] * CALLS
    # One whole, and of the others what is free and as much again on its way; not all ten.
    assert most[0] < (MEGABYTES + (CALLS - 1) * 4) << 20
