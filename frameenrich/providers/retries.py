"""Calls to a service: made again after passing faults, told in one sentence when they fail.

The official clients of OpenAI and Anthropic come from one generator (Stainless): the same names
of errors, the same transport. So one policy of retries and one translation serve both.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, TypeVar

import tenacity

from frameenrich.errors import ProviderError
from frameenrich.providers.protocol import patience_left
from frameenrich.text import scrub

T = TypeVar("T")


_MAX_RETRY_AFTER_SECONDS = 300.0


_LONGEST_SENTENCE = 400


class Calls:
    """How the calls of one client are made.

    Parameters
    ----------
    sdk : module
        ``openai`` or ``anthropic``; its exceptions say what went wrong.
    secrets : callable
        What must not stand in a message, such as the API key.
    attempts : int
        How often a call that failed for a passing reason is made in all.
    wait_seconds : float
        The first wait between attempts; it doubles, with jitter, up to a minute.
    """

    def __init__(
        self,
        sdk: ModuleType,
        secrets: Callable[[], Iterable[str | None]],
        *,
        attempts: int,
        wait_seconds: float,
    ) -> None:
        self._sdk: Any = sdk
        self._secrets = secrets
        self._attempts = attempts
        self._wait_seconds = wait_seconds

    def patiently(
        self,
        call: Callable[[], T],
        doing: str,
        *,
        again: Callable[[BaseException], bool] = lambda _: True,
    ) -> T:
        """Make a call, again after passing faults; what remains becomes a `ProviderError`.

        `again` says of a passing fault whether the call may be repeated blindly. The error's
        ``unmade`` tells what it said of the last one.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: self.passing(e) and again(e)),
            wait=self._wait,
            stop=_GivenUp(self._attempts),
            reraise=True,
        )
        try:
            with self._translated(doing, again):
                return retrying(call)
        except ProviderError as error:
            error.impatient = retrying.statistics["attempt_number"] < self._attempts
            raise

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = _retry_after(error)
        if asked is not None:
            return min(asked, _MAX_RETRY_AFTER_SECONDS)
        first = self._wait_seconds
        backoff = tenacity.wait_exponential(first, max=60) + tenacity.wait_random(0, first)
        return backoff(state)

    @contextlib.contextmanager
    def _translated(self, doing: str, again: Callable[[BaseException], bool]) -> Iterator[None]:
        import httpx2  # noqa: PLC0415 - what the SDK lets through while a body is read

        ours = (self._sdk_error, httpx2.HTTPError, ValueError, NotYetError)
        try:
            yield
        except ours as error:
            says = scrub(_says(error), self._secrets())
            status = getattr(error, "status_code", None)
            # Without its cause, whose request holds the key in its headers.
            raise ProviderError(
                f"The provider did not {doing}: {says}.",
                _advice(status),
                status_code=status,
                unmade=again(error),
                lost_file=self._lost_file(error),
                passing=self.passing(error),
                try_later=type(error) is NotYetError or (status == 429 and self.passing(error)),  # noqa: PLR2004 - HTTP's own
            ) from None

    @property
    def _sdk_error(self) -> type[Exception]:
        error: type[Exception] = self._sdk.APIError.__base__
        return error

    def passing(self, error: BaseException) -> bool:
        """Whether the same call may well succeed a little later."""
        import httpx2  # noqa: PLC0415 - what the SDK lets through while a body is read

        if isinstance(error, self._sdk.APIStatusError):
            if isinstance(error, self._sdk.RateLimitError):
                # No waiting makes money or room for files.
                return "quota" not in str(getattr(error, "code", None))
            status = error.status_code
            return status >= 500 or status in {408, 409} or self._lost_file(error)  # noqa: PLR2004
        # Not a status: a broken connection, a time-out, a 200 whose body is not JSON, a short file.
        passing = (
            self._sdk.APIError,
            httpx2.TransportError,
            httpx2.DecodingError,
            json.JSONDecodeError,
            UnicodeDecodeError,
            NotYetError,
        )
        return isinstance(error, passing)

    def _lost_file(self, error: BaseException) -> bool:
        """Whether the provider cannot find, or not yet use, a file that was just uploaded."""
        said = str(error).lower()
        return isinstance(error, self._sdk.BadRequestError) and "find file" in said


class NotYetError(Exception):
    """Something that may well be otherwise a little later."""


class ShortDownloadError(NotYetError):
    """Fewer bytes came than the server said there are."""

    def __init__(self, what: str, received: int, expected: int, unit: str = "bytes") -> None:
        super().__init__(f"{what} was cut short, {received:,} of {expected:,} {unit}")


class _GivenUp(tenacity.stop_after_attempt):
    """Enough attempts, or the caller's time would be up before the next."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        return super().__call__(retry_state) or retry_state.upcoming_sleep > patience_left()


def _retry_after(error: BaseException | None) -> float | None:
    response = getattr(error, "response", None)
    try:
        return float(response.headers["retry-after"]) if response is not None else None
    except (KeyError, ValueError):
        return None


def _says(error: BaseException) -> str:
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    code = getattr(error, "status_code", None)
    text = str(message or getattr(error, "message", None) or error).strip()
    if code is not None and (text.startswith("<") or len(text) > _LONGEST_SENTENCE):
        text = f"it answered with {len(text)} characters that are no error message"
    text = text.rstrip(".")
    said_by = f"HTTP {code}" if code is not None else type(error).__name__
    return f"{said_by}, {text}{_at(error) if code is None else ''}"


def _at(error: BaseException) -> str:
    """Which server was called, where no answer tells: a wrong base URL shows at once."""
    request = vars(error).get("request")
    if request is None:
        return ""
    port = f":{request.url.port}" if request.url.port else ""
    return f" at {request.url.scheme}://{request.url.host}{port}"


def _advice(status: int | None) -> str:
    if status in {401, 403}:
        return "Check the API key and what it may do; nothing more was sent."
    if status == 404:  # noqa: PLR2004 - HTTP's own number
        return (
            "If it belongs to another project, pass client= with that project's key; "
            "nothing is sent again by itself."
        )
    if status is None or status >= 500 or status == 429:  # noqa: PLR2004 - HTTP's own numbers
        return "Nothing is lost: call again later and the job goes on from here."
    return "Nothing is lost: mend what the provider names, then call again."
