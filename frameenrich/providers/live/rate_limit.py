"""Decide how fast to send: by the user's limits, the server's headers and its refusals.

Only arithmetic over a clock: nothing here waits (`frameenrich.providers.live.client` does).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

from frameenrich.model import Pace

LONGEST_PAUSE_SECONDS = 300.0
"""A server that asks for more is asked again after this; a quota of a day is another matter."""


_BURST_SECONDS = 1.0


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


Clock = Callable[[], float]


class TokenBucket:
    """An amount a minute, spread evenly: at most a second's worth is saved up.

    Parameters
    ----------
    per_minute : float
        Requests, or tokens.
    clock : callable
        Seconds, such as ``time.monotonic``.

    Examples
    --------
    >>> ration = TokenBucket(60, clock=lambda: 0.0)
    >>> [ration.take(1) for _ in range(4)]
    [0.0, 0.0, 1.0, 2.0]
    """

    def __init__(self, per_minute: float, clock: Clock = time.monotonic) -> None:
        self._seconds_each = 60 / per_minute
        self._clock = clock
        # A burst's worth may leave at once: a small job should not wait between its calls.
        self._free_at = clock() - _BURST_SECONDS

    def take(self, amount: float) -> float:
        """Reserve an amount; return the seconds to wait before using it."""
        now = self._clock()
        self._free_at = max(self._free_at, now - _BURST_SECONDS)
        # Reserved before the wait is over, so that whoever asks meanwhile queues up behind it.
        wait = max(self._free_at - now, 0.0)
        self._free_at += amount * self._seconds_each
        return wait

    def correct(self, amount: float) -> None:
        """Correct a reservation: more was used than reserved, or (negative) less."""
        self._free_at += amount * self._seconds_each


class RateLimiter:
    """Limits on how many requests are in flight, and on when the next may leave.

    The number in flight follows a server as TCP does: a 429 or a 503 halves it, once for all the
    requests that were under way then, and each answer lets it grow by a fraction again.

    Parameters
    ----------
    pace : Pace
        The user's limits.
    clock : callable
        Seconds.
    """

    def __init__(self, pace: Pace, clock: Clock = time.monotonic) -> None:
        self.most = pace.max_in_flight
        self.limit = float(self.most)
        self._clock = clock
        self._halved_at = self._open_at = self._heard_at = clock()
        self._requests = _bucket(pace.requests_per_minute, clock)
        self._tokens = _bucket(pace.tokens_per_minute, clock)
        self._surplus = 0.0

    def reserve(self, prompt_tokens: int) -> float:
        """Reserve one request; return the seconds to wait before it may leave."""
        wait = self._requests.take(1) if self._requests else 0.0
        if self._tokens:
            wait = max(wait, self._tokens.take(prompt_tokens + self._surplus))
        return wait

    def pause_left(self) -> float:
        """Return the seconds for which the server asked that nothing is sent."""
        return self._open_at - self._clock()

    def pause(self, seconds: float) -> None:
        """Let nothing leave for so long."""
        # Never earlier than before: of several refusals the one that asks for most counts.
        self._open_at = max(self._open_at, self._clock() + min(seconds, LONGEST_PAUSE_SECONDS))

    def answered(self, prompt_tokens: int, used_tokens: int | None) -> None:
        """Count an answer: the limit grows by one for each full round of them."""
        self._heard_at = self._clock()
        # By a fraction, as TCP grows: one more in flight after a full round of answers.
        self.limit = min(self.limit + 1 / self.limit, self.most)
        if self._tokens and used_tokens is not None:
            surplus = used_tokens - prompt_tokens
            self._tokens.correct(surplus - self._surplus)
            # An answer's length is known afterwards: a running mean over some 20 stands in for it.
            self._surplus += (surplus - self._surplus) / 20

    def slow_down(self, left_at: float, wait: float | None) -> None:
        """Halve the limit for a request that left at `left_at`, unless it was halved since."""
        # Refusals of one round come together; each halving again would stop everything.
        if left_at >= self._halved_at:
            # Never below one: without a request nothing would show that the server can take more.
            self.limit = max(self.limit / 2, 1.0)
            self._halved_at = self._clock()
        if wait is not None:
            self.pause(wait)

    @property
    def seconds_since_answer(self) -> float:
        """Seconds since the last answer."""
        return self._clock() - self._heard_at


def _bucket(per_minute: int | None, clock: Clock) -> TokenBucket | None:
    return TokenBucket(per_minute, clock) if per_minute else None


# --- what a server says -------------------------------------------------------------------------


def wanted_pause(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a refusal asks to wait; None where it does not say.

    Parameters
    ----------
    headers : mapping
        ``retry-after-ms``, ``Retry-After`` (seconds or a date) or ``x-ratelimit-reset-*``.
    now : float
        Unix seconds.

    Examples
    --------
    >>> wanted_pause({"Retry-After": "2"}, 0), wanted_pause({"retry-after-ms": "250"}, 0)
    (2.0, 0.25)
    >>> wanted_pause({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, 30)
    30.0
    """
    # The finer header first, where a server sends both: Retry-After has whole seconds.
    exact = _number(headers.get("retry-after-ms"))
    if exact is not None:
        return exact / 1000
    text = headers.get("Retry-After")
    seconds = _number(text)
    # HTTP allows a date as well as a number of seconds (RFC 9110, 10.2.3).
    if text and seconds is None:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except ValueError:
            return spent_for(headers)
    return spent_for(headers) if seconds is None else max(seconds, 0.0)


def spent_for(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a spent limit is reset, by the headers; None where none is spent.

    Examples
    --------
    >>> spent_for({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0.5s"})
    60.5
    >>> spent_for({"x-ratelimit-remaining-tokens": "17", "x-ratelimit-reset-tokens": "12ms"})
    """
    # The reset of a limit that is not spent says nothing about this refusal.
    waits = [
        seconds(headers.get(f"x-ratelimit-reset-{what}"))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}") == "0"
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def seconds(duration: str | None) -> float | None:
    """Return a duration as servers write it (``6m0s``, ``1.5s``, ``20ms``, ``12``), in seconds.

    Examples
    --------
    >>> [seconds(text) for text in ("6m0s", "1.5s", "20ms", "12", "1h2m3s", "soon", None)]
    [360.0, 1.5, 0.02, 12.0, 3723.0, None, None]
    """
    plain = _number(duration)
    found = _DURATION.fullmatch(duration) if duration else None
    if plain is not None or found is None:
        return plain
    hours, minutes, rest, thousandths = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest + thousandths / 1000


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    # float() also reads "inf", "nan" and negative numbers, none of which is a time to wait.
    return number if 0 <= number < float("inf") else None
