"""Real crashes for tests: a process that kills itself at a step, and a server that survives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
from tqdm import tqdm

# Before the first bar, and so for every kind of bar: a lock of tqdm's own is shared by forks, and
# one that is killed while it holds it stops all others for good.
tqdm.set_lock(threading.RLock())


class KillPoint:
    """Counts steps; at the chosen one the process kills itself, as hard as it gets."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def pass_by(self) -> None:
        """One step more."""
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with a step before it and one after."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.pass_by()
            result = function(*args, **kwargs)
            self.pass_by()
            return result

        return watched

    def around_async(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The coroutine function with a step before it and one after."""

        async def watched(*args: Any, **kwargs: Any) -> Any:
            self.pass_by()
            result = await function(*args, **kwargs)
            self.pass_by()
            return result

        return watched


def watch(point: KillPoint) -> None:
    """Put the point around every write and every call of this process."""
    for name in ("replace", "rename", "fsync", "unlink", "mkdir"):
        setattr(os, name, point.around(getattr(os, name)))
    read = aiohttp.ClientResponse.read

    async def watched_read(response: aiohttp.ClientResponse) -> bytes:
        point.pass_by()
        content = await read(response)
        point.pass_by()
        return content

    aiohttp.ClientResponse.read = watched_read  # type: ignore[assignment, method-assign]
    transport = httpx2.HTTPTransport
    transport.handle_request = point.around(transport.handle_request)  # type: ignore[method-assign]
    if "aiobotocore.client" in sys.modules:  # a store in a bucket: each call to S3 is a step too
        bucket = sys.modules["aiobotocore.client"].AioBaseClient
        bucket._make_api_call = point.around_async(bucket._make_api_call)


def forked(work: Callable[[], None]) -> int:
    """Do the work in a child process; its wait status, once it has ended."""
    child = start(work)
    return os.waitpid(child, 0)[1]


def start(work: Callable[[], None]) -> int:
    """The process id of a child that does the work."""
    child = os.fork()
    if child == 0:
        code = 1
        tqdm.set_lock(threading.RLock())  # another thread may have held it at the fork
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


@contextmanager
def server_process(server: str = "batch_server", **options: Any) -> Iterator[str]:
    """A loopback server, in a process that no kill here reaches."""
    command = [sys.executable, str(Path(__file__).parent / server)]
    if options:
        command += ["--options", json.dumps(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def control(base_url: str, action: str, **arguments: Any) -> None:
    """Tell the server something, such as a fault to have."""
    body = json.dumps({"action": action, **arguments}).encode()
    url = base_url.removesuffix("/v1") + "/_control"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).close()


def ledger(base_url: str) -> dict[str, Any]:
    """The server's books."""
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/_ledger") as reply:
        books: dict[str, Any] = json.load(reply)
    return books
