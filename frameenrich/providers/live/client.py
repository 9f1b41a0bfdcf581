"""Send requests and write answers to disk, from one asyncio loop in a thread, over plain HTTP.

In a thread, so that it works in a notebook, whose own loop runs already. Bare HTTP, since the
SDK works for longer on a call than a fast server does (`benchmarks/live.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
import tenacity

from frameenrich.errors import ProviderError
from frameenrich.jsonl import body_of
from frameenrich.model import BYTES_PER_TOKEN, TIMED_OUT, Pace
from frameenrich.providers.dialects import is_loopback
from frameenrich.providers.guard import MOST_BYTES
from frameenrich.providers.live.rate_limit import LONGEST_PAUSE_SECONDS, RateLimiter, spent_for
from frameenrich.providers.live.read_content import Room, TooLongError, read_content
from frameenrich.providers.live.reply import UNAUTHORIZED, Reply, no_reply, read_reply
from frameenrich.providers.live.route import Route
from frameenrich.providers.live.semaphore import Semaphore
from frameenrich.providers.protocol import seconds_to_answer, seconds_to_retry
from frameenrich.text import scrub, seconds_text

_log = logging.getLogger(__name__)


GRACE_SECONDS = 2.0
"""How long to wait for answers in flight when the client has to stop."""


# Without a limit a server that is down would write a failed line for each of 50,000 rows.
MAX_SHARED_FAILURES = 20
"""The client stops after so many failures in a row that may hit every request."""


_ATTEMPTS_UNANSWERED = 2
"""For a server that never answered, and cannot be reached or says what is no answer: its address
may be wrong, or it is not started. The user is waiting, so the error comes in two seconds."""


# Each such call was run, and paid for: one that breaks off every time is not worth eight.
_MOST_LOST = 3
"""How often a request is made whose answer begins and breaks off."""


# Rate limits do not count as attempts, so something else has to end an endless 429.
_STARVED_SECONDS = 600.0


# A key that is refused so soon after it was fetched is wrong, not expired.
_RENEWAL_SECONDS = 30.0


# How often the waiting thread looks for Ctrl-C and the caller's deadline.
_CHECK_SECONDS = 0.2


_LONGEST_WAIT_SECONDS = 60.0


class _StoppedError(Exception):
    """The client is stopping: no request is sent any more."""


@dataclass
class _WriteBatch:
    """Lines that are written together; ``kept`` is done when they are on disk."""

    kept: asyncio.Future[None]
    lines: list[bytes] = field(default_factory=list)


class LiveClient:
    """Sends requests to one server; each worker's answer is on disk before it reads the next.

    Parameters
    ----------
    route : callable
        Where to, and with what headers; asked again when the key has run out.
    requests : iterator of (custom_id, request line)
        What to ask, read as there is room.
    keep : callable
        Puts response lines on disk.
    pace : Pace
        How fast.
    attempts : int
        How often a request that fails for a passing reason is made.
    wait_seconds : float
        The first wait between attempts.
    trusted : bool
        Whether this server has answered some of these requests before.
    """

    def __init__(
        self,
        route: Callable[[], Route],
        requests: Iterator[tuple[str, bytes]],
        keep: Callable[..., None],
        *,
        pace: Pace,
        attempts: int,
        wait_seconds: float,
        trusted: bool,
    ) -> None:
        self._find_route = route
        self._route = route()
        self._renewed_at = -math.inf
        self._requests = requests
        self._keep = keep
        self._flow = RateLimiter(pace)
        self._attempts = attempts
        self._wait_seconds = wait_seconds
        self._trusted = trusted
        self._held_back: list[tuple[bytes, Reply]] = []
        self._failure: ProviderError | None = None
        self._must_stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failed = 0
        """Number of lines of failed requests."""
        self.timed_out = 0
        """Number of those that may have run all the same."""
        self._silent = 0
        self._calls_out = 0

    # --- the caller's thread --------------------------------------------------------------------

    def run(self) -> None:
        """Send every request; return when every answer is on disk.

        Raises
        ------
        ProviderError
            The server cannot be reached or refuses everything, or the caller's time was up.
        """
        with ThreadPoolExecutor(1, "frameenrich-live") as pool:
            running = pool.submit(self._run_loop)
            try:
                while not wait_for([running], _CHECK_SECONDS).done:
                    # A call that is out has been paid for, mostly: hang up later than on a pause.
                    left = seconds_to_answer() if self._calls_out else seconds_to_retry()
                    if left <= 0:
                        self._stop(_out_of_time())
                running.result()
            finally:  # Ctrl-C too: what is on its way may still come, for a moment
                self._stop()

    def _stop(self, failure: ProviderError | None = None) -> None:
        """Stop sending; callable from any thread."""
        if self._must_stop.is_set():
            return
        self._failure = failure
        self._must_stop.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                # An asyncio event may be set only in its own loop's thread.
                self._loop.call_soon_threadsafe(self._stopping.set)

    def _give_up(self, reply: Reply) -> None:
        """Stop everything: what this reply says would refuse every other request, too."""
        self._stop(_failure(reply, self._route))
        raise _StoppedError

    # --- the loop's thread ----------------------------------------------------------------------

    def _run_loop(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(self._converse())
        if self._failure is not None:
            raise self._failure

    async def _converse(self) -> None:
        # The events first: another thread that finds the loop sets `_stopping` at once.
        self._stopping, self._more = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # Stopped before the loop was there: `_stop` had nothing to wake up.
        if self._must_stop.is_set():
            return
        self._group = _WriteBatch(self._loop.create_future())
        self._gate, self._renewing = Semaphore(self._flow), asyncio.Lock()
        self._room = Room()
        self._all_taken = False
        async with _session(self._route) as self._http:
            await self._ask_and_write()

    async def _ask_and_write(self) -> None:
        """Send all requests, or as many as there is time for; write whatever came."""
        workers = [asyncio.create_task(self._work()) for _ in range(self._flow.most)]
        asking, writing = asyncio.gather(*workers), asyncio.create_task(self._write())
        stopping = asyncio.create_task(self._stopping.wait())
        ends: set[asyncio.Future[Any]] = {asking, writing}
        try:
            await asyncio.wait({*ends, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await asyncio.wait(ends, timeout=GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                asking.result()
                self._settle_held_back()
        finally:
            # Workers first, then the writer: what they handed in last still goes to disk.
            for task in (*workers, stopping):
                task.cancel()
            await asyncio.gather(*workers, asking, stopping, return_exceptions=True)
            self._all_taken = True
            self._more.set()
            await writing

    async def _work(self) -> None:
        """Send one request after the other, until there are no more."""
        with contextlib.suppress(_StoppedError):
            for custom_id, line in self._requests:
                reply = await self._ask(custom_id, self._route.translate(body_of(line)))
                await self._take(reply, reply.line(custom_id, self._route.secrets))
                if self._stopping.is_set():
                    return

    # --- what becomes of a reply ----------------------------------------------------------------

    async def _take(self, reply: Reply, line: bytes) -> None:
        """Write the line, but hold it back while its fault may be the server's."""
        # Unreachable, 403, 404 or 5xx may hit every row. Such lines wait for an answer, after which
        # they are their rows' own; else the job stops, and no row fails as a server restarts.
        if reply.maybe_server_fault:
            self._held_back.append((line, reply))
            if reply.unreachable or len(self._held_back) >= MAX_SHARED_FAILURES:
                self._give_up(reply)
            return
        if reply.fault is None:
            self._trusted, self._silent = True, 0
            self._write_held_back()
        elif reply.timed_out:
            # Its line is written whatever follows: a call that may have run is not made again.
            self.timed_out += 1
            self._silent += 1
            if self._silent >= MAX_SHARED_FAILURES:
                self._stop(_failure(reply, self._route))
        self.failed += reply.fault is not None
        # A slot is free when its answer is on disk, so a kill costs only what was in flight. The
        # future is the whole group's: shielded, as one cancelled worker must not cancel it.
        await asyncio.shield(self._hand_in(line))

    def _write_held_back(self) -> None:
        """Write the held-back lines: the server answers others, so the faults were their own."""
        self.failed += len(self._held_back)
        for line, _ in self._held_back:
            self._hand_in(line)
        self._held_back.clear()

    def _settle_held_back(self) -> None:
        if self._held_back and not self._must_stop.is_set():
            if not self._trusted:
                self._stop(_failure(self._held_back[-1][1], self._route))
                return
            self._write_held_back()

    def _hand_in(self, line: bytes) -> asyncio.Future[None]:
        self._group.lines.append(line)
        self._more.set()
        return self._group.kept

    async def _write(self) -> None:
        """Write what has come in one go, while more comes."""
        loop = asyncio.get_running_loop()
        while True:
            await self._more.wait()
            self._more.clear()
            # What comes while this group is synced is the next one: one fsync serves many answers.
            group, self._group = self._group, _WriteBatch(loop.create_future())
            if group.lines:
                # A disk sync would stop the loop, and with it every call in flight.
                await loop.run_in_executor(None, self._keep, *group.lines)
            group.kept.set_result(None)
            if self._all_taken and not self._group.lines:
                return

    # --- one request ----------------------------------------------------------------------------

    async def _ask(self, custom_id: str, body: bytes) -> Reply:
        """Send a request until it is answered, or its fault is final."""
        reply = await self._call(custom_id, body)
        if not reply.passing:
            return reply
        # Only now, since tenacity's books cost as much as a call.
        first, faults, lost = [reply], 0, 0

        async def again() -> Reply:
            nonlocal faults, lost
            reply = first.pop() if first else await self._call(custom_id, body)
            # A 429 is the pace's fault, not the request's: it does not use up attempts.
            faults += not reply.limited
            lost += reply.begun
            return reply

        def given_up(state: tenacity.RetryCallState) -> bool:
            reply = _outcome(state)
            unanswered = (reply.unreachable or reply.no_answer) and not self._trusted
            most = min(self._attempts, _ATTEMPTS_UNANSWERED if unanswered else self._attempts)
            many = faults >= most or lost >= _MOST_LOST
            return many or self._flow.seconds_since_answer > _STARVED_SECONDS

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda reply: reply.passing),
            stop=given_up,
            wait=self._wait,
            sleep=self._pause,
            retry_error_callback=_outcome,
        )
        last: Reply = await retrying(again)
        return last

    def _wait(self, state: tenacity.RetryCallState) -> float:
        # Else all that were refused together come back together.
        jitter = tenacity.wait_random(0, self._wait_seconds)
        wanted_seconds = _outcome(state).wait
        if wanted_seconds is not None:
            return min(wanted_seconds, LONGEST_PAUSE_SECONDS) + jitter(state)
        first = tenacity.wait_exponential(self._wait_seconds, max=_LONGEST_WAIT_SECONDS)
        return (first + jitter)(state)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but wake up and raise when the client stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        if self._stopping.is_set():
            raise _StoppedError

    async def _call(self, custom_id: str, body: bytes) -> Reply:
        """Make one call, within the rate limits."""
        tokens = len(body) // BYTES_PER_TOKEN
        if (wait := self._flow.reserve(tokens)) > 0:
            await self._pause(wait)
        async with self._gate:
            # A loop: the server may have asked for another pause meanwhile.
            while (left := self._flow.pause_left()) > 0:
                await self._pause(left)
            if self._stopping.is_set():
                raise _StoppedError
            left_at, route = time.monotonic(), self._route
            self._calls_out += 1
            try:
                reply = await self._post(route, custom_id, body)
            finally:
                self._calls_out -= 1
        _log.info("live call for %s: %s", custom_id, reply.status or "no answer")
        if reply.fault is None:
            self._flow.answered(tokens, reply.used_tokens)
        elif reply.overloaded:
            self._flow.slow_down(left_at, reply.wait)
        if reply.out_of_quota:
            self._give_up(reply)
        if reply.status == UNAUTHORIZED:
            await self._renew(route, reply)
            return await self._call(custom_id, body)
        return reply

    async def _post(self, route: Route, custom_id: str, body: bytes) -> Reply:
        headers = {**route.headers, "X-Client-Request-Id": custom_id}
        asked_at, begun = time.monotonic(), False
        try:
            async with self._http.post(
                route.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                begun = response.ok
                content = route.heard(await read_content(response, self._room))
                # A good answer may say that the ration is spent: the next call would be refused.
                if (spent := spent_for(response.headers)) is not None:
                    self._flow.pause(spent)
                reply = read_reply(response.status, response.headers, content)
        except TooLongError:
            return no_reply("too_long", f"its answer is longer than {MOST_BYTES:,} bytes")
        except aiohttp.ConnectionTimeoutError:
            text = f"no connection within {route.connect_seconds} seconds"
            return no_reply("connection_timeout", text)
        except TimeoutError:
            return _too_late(f"no answer came within {route.answer_seconds} seconds")
        except aiohttp.ClientConnectorError as error:
            return no_reply("unreachable", _reason(error, route), unreachable=True)
        except (aiohttp.ClientError, OSError) as error:
            reply = no_reply("connection_error", _reason(error, route), begun=begun)
        seconds = time.monotonic() - asked_at
        if reply.may_have_run(seconds):
            return _too_late(f"{reply.message}, after {seconds_text(round(seconds))}")
        return reply

    async def _renew(self, used: Route, reply: Reply) -> None:
        """Get another key from the client; the same one again means that it is wrong."""
        async with self._renewing:
            long_ago = time.monotonic() - self._renewed_at > _RENEWAL_SECONDS
            # Many calls meet the 401 of an expired key at once; the first one renews it for all.
            if self._route is used and long_ago:
                self._route = await asyncio.to_thread(self._find_route)
                self._renewed_at = time.monotonic()
        if self._route.headers == used.headers:
            self._give_up(reply)


def _session(route: Route) -> aiohttp.ClientSession:
    # With the certificates that the SDK trusts; making that context takes 50 ms.
    trusted = httpx2.create_ssl_context() if route.url.startswith("https:") else True
    return aiohttp.ClientSession(
        # The semaphore limits the calls, and aiohttp's own default of 100 would be a second limit.
        connector=aiohttp.TCPConnector(limit=0, ssl=trusted),
        timeout=aiohttp.ClientTimeout(
            total=route.answer_seconds, sock_connect=route.connect_seconds
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=_proxy(route.url),
    )


def _proxy(url: str) -> str | None:
    """Return the environment's proxy, as the SDK uses it; aiohttp would look it up each call."""
    parts = urlsplit(url)
    # No proxy elsewhere reaches a server on this machine.
    if is_loopback(url) or proxy_bypass(parts.netloc):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _outcome(state: tenacity.RetryCallState) -> Reply:
    return cast("asyncio.Future[Reply]", state.outcome).result()


def _reason(error: Exception, route: Route) -> str:
    return scrub(str(error) or type(error).__name__, route.secrets)


def _failure(reply: Reply, route: Route) -> ProviderError:
    return ProviderError(
        f"The server at {scrub(route.url.partition('?')[0])} does not answer: "
        f"{scrub(reply.message, route.secrets)}.",
        _advice(reply),
        status_code=reply.status or None,
        passing=reply.passing,
    )


def _advice(reply: Reply) -> str:
    if reply.status in {UNAUTHORIZED, 403}:
        return "Check the API key and what it may do; nothing more was sent."
    if reply.out_of_quota:
        return "Raise the account's quota, then call again: the job goes on from here."
    if "WRONG_VERSION_NUMBER" in reply.message:
        return "The server speaks HTTP without encryption: write http://, not https://."
    if reply.unreachable or reply.no_answer or not reply.passing:
        return (
            "Check base_url (it usually ends in /v1) and the model's name; nothing is lost, the "
            "same call goes on from here."
        )
    return "Nothing is lost: call again later and the job goes on from here."


def _too_late(why: str) -> Reply:
    return no_reply(TIMED_OUT, f"{why}; the server may have run it all the same")


def _out_of_time() -> ProviderError:
    return ProviderError(
        "The time was up before everything was answered.",
        "Nothing is lost: call again and the job goes on from here.",
        passing=True,
        impatient=True,
    )
