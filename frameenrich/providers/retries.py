"""Call a service, retry passing faults, and turn what remains into one sentence.

One policy of retries and one translation serve every SDK: each names its exception classes, and
the HTTP status decides the rest.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

import tenacity

from frameenrich.answers.error_text import body_error
from frameenrich.errors import ProviderError
from frameenrich.providers.credentials import secrets_in
from frameenrich.providers.protocol import seconds_to_retry
from frameenrich.text import one_line, scrub

T = TypeVar("T")


_MAX_RETRY_AFTER_SECONDS = 300.0


_LONGEST_SENTENCE = 400


_ATTEMPTS_AT_NOBODY = 2
"""Attempts where the connection is refused: the user is waiting, so the error comes soon."""


@dataclass(frozen=True)
class SdkErrors:
    """The exception classes of one SDK, by name: a wider one would take a bug of ours for a fault.

    ``all`` is everything it raises of its own; those ``broken`` that carry no HTTP status mean a
    call that broke on its way, and may succeed a little later.
    """

    all: tuple[type[BaseException], ...]
    broken: tuple[type[BaseException], ...]


class Calls:
    """Retries and error messages for the calls of one client.

    Parameters
    ----------
    errors : SdkErrors
        What the SDK raises.
    secrets : callable
        Values that no message may contain, such as the API key.
    attempts : int
        How often a call that failed for a passing reason is made in all.
    wait_seconds : float
        The first wait between attempts; it doubles, with jitter, up to a minute.
    """

    def __init__(
        self,
        errors: SdkErrors,
        secrets: Callable[[], Iterable[str | None]],
        *,
        attempts: int,
        wait_seconds: float,
    ) -> None:
        self._errors = errors
        self._secrets = secrets
        self._attempts = attempts
        self._wait_seconds = wait_seconds
        self._met = False

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
        given_up = _GivenUp(self._attempts, self._is_not_there)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: self.passing(e) and again(e)),
            wait=self._wait,
            stop=given_up,
            reraise=True,
        )
        try:
            with self._translated(doing, again):
                answer = retrying(call)
            self._met = True
            return answer
        except ProviderError as error:
            error.impatient = given_up.out_of_time
            error.__context__ = None  # `from None` hides the SDK's error, whose request has the key
            raise

    def _is_not_there(self, state: tenacity.RetryCallState) -> bool:
        """Give up early on a server that never answered and where nobody listens.

        Its address may be mistyped, or it is not started: somebody sits there and waits.
        """
        error = state.outcome.exception() if state.outcome else None
        # Any other error came from a server that exists, and is worth the full wait.
        self._met = self._met or not _refused(error)
        return not self._met and state.attempt_number >= _ATTEMPTS_AT_NOBODY

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        seconds = _retry_after(error)
        # What the server asks for goes before our own backoff.
        if seconds is not None:
            return min(seconds, _MAX_RETRY_AFTER_SECONDS)
        first = self._wait_seconds
        # Jitter, so that many processes do not come back at the same moment.
        backoff = tenacity.wait_exponential(first, max=60) + tenacity.wait_random(0, first)
        return backoff(state)

    @contextlib.contextmanager
    def _translated(self, doing: str, again: Callable[[BaseException], bool]) -> Iterator[None]:
        import httpx2  # noqa: PLC0415 - what the SDK lets through while a body is read

        ours: tuple[type[BaseException], ...] = (
            *self._errors.all,
            httpx2.HTTPError,
            httpx2.StreamError,  # Mistral's SDK reads the body of an error that it has not opened
            ValueError,
            RecursionError,  # a body of brackets within brackets
            NotYetError,
        )
        try:
            yield
        except ours as error:
            says = scrub(_says(error), (*self._secrets(), *_sent_with(error)))
            status = status_of(error)
            # Without its cause, whose request holds the key in its headers.
            raise ProviderError(
                f"The provider did not {doing}: {says}.",
                _advice(status, doing),
                status_code=status,
                unmade=again(error),
                lost_file=_lost_file(error),
                passing=self.passing(error),
                cut=isinstance(error, ShortDownloadError),
                unlisted=isinstance(error, UnconfirmedError),
                try_later=type(error) in {NotYetError, UnconfirmedError}
                or (status == 429 and self.passing(error)),  # noqa: PLR2004 - HTTP's own
            ) from None

    def passing(self, error: BaseException) -> bool:
        """Tell whether the same call may well succeed a little later."""
        import httpx2  # noqa: PLC0415 - what the SDK lets through while a body is read

        status = status_of(error)
        if status == 429:  # noqa: PLR2004 - HTTP's own number
            # No waiting makes money or room for files.
            return "quota" not in str(getattr(error, "code", None))
        if status is not None and status not in range(200, 300):
            # A file that was just uploaded may not be visible yet, so its 404 is passing.
            return status >= 500 or status in {408, 409} or _lost_file(error)  # noqa: PLR2004
        # Not a status: a broken connection, a time-out, a 200 whose body is not JSON, a short file.
        passing = (
            *self._errors.broken,
            httpx2.TransportError,
            httpx2.StreamError,
            httpx2.DecodingError,
            json.JSONDecodeError,
            UnicodeDecodeError,
            RecursionError,
            NotYetError,
        )
        return isinstance(error, passing)


def stainless_errors(sdk: ModuleType) -> SdkErrors:
    """Name the exceptions of OpenAI's or Anthropic's SDK; one generator made both."""
    own = {"openai": "OpenAIError", "anthropic": "AnthropicError"}[sdk.__name__]
    return SdkErrors(all=(vars(sdk)[own],), broken=(vars(sdk)["APIError"],))


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an SDK's error carries, if it carries one."""
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(error, "code", None)  # google-genai's; elsewhere that is a word
    return status if isinstance(status, int) else None


def _refused(error: BaseException | None) -> bool:
    """Tell whether a call failed because the connection was refused."""
    # The SDKs wrap the socket's error in errors of their own.
    while error is not None:
        if isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False


def surely_unmade(error: BaseException) -> bool:
    """Tell whether a call that failed cannot have been carried out."""
    import httpx2  # noqa: PLC0415 - what the SDKs' errors come from

    status = status_of(error)
    if status is not None:
        # A time-out (408) or a conflict (409) may come after the batch was made, as may any 5xx.
        # Nor is a page in HTML the API's refusal: a gateway may have passed the call on.
        body = getattr(error, "body", None)
        page = isinstance(body, str) and body.lstrip().startswith("<")
        doubt = status in {408, 409} or (status == 429 and page)  # noqa: PLR2004 - HTTP's own
        return status in range(300, 500) and not doubt
    # No connection, so no request: the only fault without a status that proves it.
    never_there = (httpx2.ConnectError, httpx2.ConnectTimeout)
    own = error if isinstance(error, never_there) else error.__cause__
    # Unless a redirect led there, which makes a GET of a POST: whoever redirected has heard it.
    request = vars(own).get("_request") if isinstance(own, never_there) else None
    return isinstance(own, never_there) and getattr(request, "method", "POST") == "POST"


_FILE_STATUSES = frozenset({400, 403, 404, 422})


_NO_FILE = re.compile(
    r"find file|no such file|\bfiles?\b[^.]*\b(not found|not exist|no longer|was deleted)"
)
"""Messages of a missing file: OpenAI's, Mistral's, and Gemini's 403, "it may not exist"."""


def _lost_file(error: BaseException) -> bool:
    """Tell whether the provider cannot find, or not yet use, a file that was just uploaded."""
    return status_of(error) in _FILE_STATUSES and bool(_NO_FILE.search(str(error).lower()))


class NotYetError(Exception):
    """A state that may change a little later."""


class DoubtfulReplyError(NotYetError):
    """A success whose body cannot be the answer: it proves nothing."""


class UnconfirmedError(NotYetError):
    """Nobody can say yet whether a batch was made."""


class ShortDownloadError(NotYetError):
    """Fewer bytes came than the server said there are."""

    def __init__(self, what: str, received: int, expected: int, unit: str = "bytes") -> None:
        super().__init__(f"{what} was cut short, {received:,} of {expected:,} {unit}")


class TornDownloadError(ShortDownloadError):
    """What came ends within a line, whatever the server said of its size."""

    def __init__(self, what: str) -> None:
        NotYetError.__init__(self, f"{what} was cut short, within its last line")


class _GivenUp(tenacity.stop_after_attempt):
    """Stops after enough attempts, at a server nobody runs, or when the caller's time is up."""

    def __init__(self, most: int, is_hopeless: Callable[[tenacity.RetryCallState], bool]) -> None:
        super().__init__(most)
        self._is_hopeless = is_hopeless
        self.out_of_time = False
        """Whether the last call ended since the caller's time was up, and for no other reason."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        if super().__call__(retry_state) or self._is_hopeless(retry_state):
            return True
        self.out_of_time = retry_state.upcoming_sleep > seconds_to_retry()
        return self.out_of_time


def _retry_after(error: BaseException | None) -> float | None:
    headers = getattr(getattr(error, "response", error), "headers", None)
    try:
        seconds = float(headers["retry-after"]) if headers is not None else math.nan
    except (KeyError, ValueError):
        return None
    return seconds if 0 <= seconds < math.inf else None  # nan and -1 say nothing


def _sent_with(error: BaseException) -> tuple[str, ...]:
    """Return what the refused request asked by: a token made for it alone is kept nowhere else."""
    # httpx raises where an error has no request.
    with contextlib.suppress(AttributeError, RuntimeError):
        return secrets_in(error.request.headers)  # type: ignore[attr-defined]
    return ()


def _says(error: BaseException) -> str:
    code = status_of(error)
    message = _message_in(getattr(error, "body", None))
    text = str(message or getattr(error, "message", None) or error).strip()
    # What is no message, as a proxy's page without words, or a long one: its length says enough.
    # Measured as it will be printed: control characters are spelt out.
    if code is not None and (text.startswith("<") or len(one_line(text)) > _LONGEST_SENTENCE):
        text = f"it answered with {len(text)} characters that are no error message"
    if isinstance(error, RecursionError):
        text = "it answered with something that is no answer, brackets within brackets"
    text = text.rstrip(".")
    said_by = f"HTTP {code}" if code is not None else type(error).__name__
    return f"{said_by}, {text}{_at(error) if code is None else ''}"


def _message_in(body: Any) -> str | None:
    """Find the sentence in an error's body (JSON or text), which each service nests otherwise."""
    if isinstance(body, str):
        with contextlib.suppress(ValueError):
            body = json.loads(body)
    if not isinstance(body, dict):
        return body_error(body)
    inner = body.get("error", body)
    said = (inner.get("message") or inner.get("detail")) if isinstance(inner, dict) else inner
    if isinstance(said, list) and said and isinstance(said[0], dict):  # FastAPI's, one a parameter
        where = ".".join(map(str, said[0].get("loc", ())))
        return f"{where}: {said[0].get('msg')}"
    return said if isinstance(said, str) else body_error(body)


def _at(error: BaseException) -> str:
    """Name the server that gave no answer, so that a wrong base URL shows at once."""
    request = vars(error).get("request") or vars(error).get("_request")
    if request is None:
        return ""
    port = f":{request.url.port}" if request.url.port else ""
    return f" at {request.url.scheme}://{request.url.host}{port}"


def _advice(status: int | None, doing: str) -> str:
    if status in {404, 405, 501} and doing.startswith("upload"):
        return (
            "It seems to have no Batch API: use provider='live' (--provider live), which asks one "
            "request at a time; else check base_url."
        )
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
