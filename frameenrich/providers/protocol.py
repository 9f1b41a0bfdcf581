"""Define what a provider has to do: five verbs between a shard's requests and its answers."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import IO, Protocol, runtime_checkable

from frameenrich.errors import ProviderError
from frameenrich.model import CONFIRM_SECONDS, Batch, Limits


@dataclass(frozen=True)
class Shard:
    """One file of requests, as a provider sees it.

    ``open`` gives the request lines as a binary file, rejected requests left out; ``metadata``
    names the job on the provider's page, and holds the user's own pairs;
    ``completion_window`` is how long the user lets a batch take, None as the provider has it.
    A create whose answer was lost is made again only after ``confirm_seconds`` of searches that
    found nothing. ``resumed`` says that another process may have sent the shard, whatever is known
    of it here; without ``may_create`` a batch may be found, and none be made (`NeverMadeError`).
    ``since`` is when its job was made (Unix seconds), ``others`` gives the batches that other
    shards of the store have: no batch of this shard is older than the one or among the others.
    """

    tag: str
    endpoint: str
    url: str
    model: str
    requests: int
    open: Callable[[], IO[bytes]]
    metadata: Mapping[str, str]
    completion_window: str | None = None
    confirm_seconds: float = CONFIRM_SECONDS
    resumed: bool = False
    may_create: bool = True
    since: float = 0.0
    others: Callable[[], Collection[str]] = frozenset


class NeverMadeError(Exception):
    """A shard's batch was never created, and must not be created now."""


class IncompleteDownloadError(ProviderError):
    """An ended batch was written as far as it could be had; some of it is missing."""


class ShardWriter(Protocol):
    """Storage for what a provider must not lose: each call returns when it is on disk."""

    def record(self, batch: Batch) -> Batch:
        """Write the batch as it is now, and return it."""

    def answered(self) -> set[str]:
        """Return the custom_ids that have a response line already."""

    def append(self, *lines: bytes) -> None:
        """Add response lines, in the Batch format."""


@runtime_checkable
class Provider(Protocol):
    """Where requests go.

    A provider may have a sixth verb, ``check(body)``: it gets a request's body without a row's
    text and raises `ParameterError` where its API cannot carry it, before anything is written.

    ``blocking`` says that `send` answers the requests itself, in this process, and returns when
    all are answered; otherwise it returns as soon as the provider has the batch.

    Two verbs more are used where a provider has them: ``at_pace(pace)`` gives the same provider
    with other limits on how fast it asks, and ``live()`` one that answers the same requests at
    once, each request by a call of its own.

    ``prompt_caching`` says how the server is asked to keep what requests begin with: ``"key"``
    (``prompt_cache_key``), ``"breakpoint"`` (that, and OpenAI's marks), ``"cache_control"``
    (Anthropic's), ``"implicit"`` (nothing to say). Without it a user's ``cache=`` is refused.

    A user's ``metadata=`` is refused unless ``takes_metadata`` is True, and ``completion_window=``
    unless there is ``check_window(window)``, which raises `ParameterError` for one it cannot pass
    on. ``samples=`` is refused where ``takes_samples`` is False: its server has no ``n``.
    """

    name: str
    blocking: bool
    limits: Limits

    def url(self, endpoint: str) -> str:
        """Return the ``url`` of a request line for an endpoint such as ``/v1/responses``."""

    def send(self, shard: Shard, batch: Batch, writer: ShardWriter) -> Batch:
        """Bring the shard to the provider, or find it there; `batch` is what is known so far."""

    def poll(self, batch: Batch) -> Batch:
        """Return the batch as it is now."""

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Write all output and error lines of an ended batch; all or an exception.

        `IncompleteDownloadError` says that what there is was written, and more should come.
        """

    def cancel(self, batch: Batch) -> Batch:
        """Ask for an end; what has been answered stays."""

    def delete_files(self, batch: Batch) -> None:
        """Delete what the provider still keeps of an ended batch; what is gone already is fine."""


@dataclass
class RetryDeadline:
    """The ``time.monotonic()`` until which a caller waits; another thread may change it."""

    until: float = math.inf
    answer_seconds: float = 0.0
    """Seconds after ``until`` in which a live call that was made before may still be answered."""

    def end(self) -> None:
        """Wait no longer, from any thread."""
        self.until = -math.inf


# A context variable and no parameter: SDK hooks and retry loops deep below have to see it.
_deadline: ContextVar[RetryDeadline] = ContextVar("retry_deadline", default=RetryDeadline())  # noqa: B039 - never changed


@contextlib.contextmanager
def retry_for(seconds: float, given: RetryDeadline | None = None) -> Iterator[None]:
    """Limit for how long providers try again, whatever a server asks for."""
    given = given or RetryDeadline(answer_seconds=_deadline.get().answer_seconds)
    given.until = min(given.until, time.monotonic() + seconds)
    token = _deadline.set(given)
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_to_retry() -> float:
    """Return the seconds that providers may still spend on retries; infinite without a limit.

    Examples
    --------
    >>> seconds_to_retry()
    inf
    """
    return _deadline.get().until - time.monotonic()


def seconds_to_answer() -> float:
    """Return the seconds for which a live call that is out may still be waited for.

    Examples
    --------
    >>> with retry_for(5.0, RetryDeadline(answer_seconds=60.0)):
    ...     round(seconds_to_retry()), round(seconds_to_answer())
    (5, 65)
    """
    return seconds_to_retry() + _deadline.get().answer_seconds
