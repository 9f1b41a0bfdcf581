"""Live calls a second, against a loopback server that answers at once.

    uv run python benchmarks/live.py [--requests 4000] [--in-flight 256] [--runs 5] [--json FILE]

Each peer asks the same requests, as many at once; all take turns in each run, and the medians are
compared: only ratios of one run count. The server is a process of its own on the same
machine and takes a core of it for itself. ``frameenrich`` is the whole submit: rows
rendered and written, and each answer on disk before it counts; the others throw the answers away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
import pandas as pd
from aiohttp import web

import frameenrich  # noqa: F401 - registers df.llmbatch
from frameenrich.providers.live.provider import LiveProvider

MODEL = "m"
SYSTEM = "You sort products into departments. " * 20
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Kitchen " * 60, "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 300, "completion_tokens": 60, "total_tokens": 360},
    }
).encode()


def serve(told: Connection) -> None:
    """Answer every POST with the same completion."""

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=ANSWER, content_type="application/json")

    async def main() -> None:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        told.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def server_process() -> Iterator[str]:
    """The base URL of a server in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,))
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.kill()
        process.join()


def bodies(count: int) -> Iterator[dict[str, Any]]:
    """The requests, as the peers that take plain JSON have them."""
    for i in range(count):
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"Product {i}: " + "red enamel mug, 350 ml, " * 15},
        ]
        yield {"model": MODEL, "messages": messages}


async def crowd(
    count: int, in_flight: int, ask: Callable[[dict[str, Any]], Awaitable[Any]]
) -> None:
    """Ask everything, so many at once, with no more ado than that takes."""
    requests = bodies(count)

    async def work() -> None:
        for body in requests:
            await ask(body)

    await asyncio.gather(*(work() for _ in range(in_flight)))


def run_openai(base_url: str, count: int, in_flight: int) -> None:
    """``AsyncOpenAI().chat.completions.create``."""

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="sk-test", base_url=base_url) as client:
            await crowd(count, in_flight, lambda body: client.chat.completions.create(**body))

    asyncio.run(main())


def run_openai_raw(base_url: str, count: int, in_flight: int) -> None:
    """``AsyncOpenAI().post``, which builds no typed answer."""

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="sk-test", base_url=base_url) as client:
            await crowd(
                count,
                in_flight,
                lambda body: client.post("/chat/completions", cast_to=object, body=body),
            )

    asyncio.run(main())


def run_aiohttp(base_url: str, count: int, in_flight: int) -> None:
    """Bare aiohttp: the request serialised, the answer read, nothing else."""
    url = f"{base_url}/chat/completions"
    headers = {"Authorization": "Bearer sk-test", "Content-Type": "application/json"}

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def ask(body: dict[str, Any]) -> bytes:
                async with session.post(url, data=orjson.dumps(body)) as response:
                    return await response.read()

            await crowd(count, in_flight, ask)

    asyncio.run(main())


def run_frameenrich(base_url: str, count: int, in_flight: int) -> None:
    """``df.llmbatch.submit``: rendered, written, asked, and each answer on disk."""
    frame = pd.DataFrame({"text": [body["messages"][1]["content"] for body in bodies(count)]})
    with (
        tempfile.TemporaryDirectory() as store,
        openai.OpenAI(api_key="sk-test", base_url=base_url) as client,
    ):
        provider = LiveProvider(client, max_in_flight=in_flight)
        job = frame.llmbatch.submit(
            "{{ text }}", MODEL, system=SYSTEM, provider=provider, store=store
        )
        (answers,) = Path(job.path).rglob("*.responses.jsonl")
        assert answers.read_bytes().count(b"\n") == count


def measure(count: int, in_flight: int, runs: int) -> dict[str, float]:
    """Requests a second of each peer: the median of the runs."""
    peers: dict[str, Callable[[str, int, int], None]] = {
        "AsyncOpenAI": run_openai,
        "AsyncOpenAI, raw post": run_openai_raw,
        "aiohttp alone": run_aiohttp,
        "frameenrich live": run_frameenrich,
    }
    rates: dict[str, list[float]] = {name: [] for name in peers}
    with server_process() as base_url:
        for run in range(runs + 1):
            for name, peer in peers.items():
                began = time.perf_counter()
                peer(base_url, count, in_flight)
                if run:  # the first warms up
                    rates[name].append(count / (time.perf_counter() - began))
    return {name: statistics.median(found) for name, found in rates.items()}


def table(rates: dict[str, float]) -> str:
    """The rates, and what they are to AsyncOpenAI's and to bare aiohttp's, as Markdown."""
    lines = ["| live calls | requests/s | × AsyncOpenAI | × aiohttp |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {rate:,.0f} | {rate / rates['AsyncOpenAI']:.1f} "
        f"| {rate / rates['aiohttp alone']:.2f} |"
        for name, rate in rates.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the rates here, too")
    wishes = parser.parse_args()
    rates = measure(wishes.requests, wishes.in_flight, wishes.runs)
    print(table(rates))
    if wishes.json:
        wishes.json.write_text(json.dumps({"in_flight": wishes.in_flight, "rates": rates}))


if __name__ == "__main__":
    main()
