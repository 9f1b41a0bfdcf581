"""The seam between what to send and how it travels: five verbs."""

from __future__ import annotations

import contextlib
import difflib
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import IO, Any, Protocol, cast, runtime_checkable

from frameenrich.errors import ParameterError, StoreError
from frameenrich.model import Batch, JobSpec, Json, Limits, Pace
from frameenrich.shard import request_body

_GROUP = "frameenrich.providers"


@dataclass(frozen=True)
class Shard:
    """What a provider gets to see of a shard.

    ``open`` gives the request lines as a binary file, rejected requests left out; ``metadata``
    names the job for whoever looks at the provider's page.
    """

    tag: str
    endpoint: str
    url: str
    model: str
    requests: int
    open: Callable[[], IO[bytes]]
    metadata: Mapping[str, str]


class Desk(Protocol):
    """Where a provider leaves what must not be lost: each call returns when it is on disk."""

    def record(self, batch: Batch) -> Batch:
        """Keep the batch as it is now; gives it back."""

    def answered(self) -> set[str]:
        """The custom_ids that have a response line already."""

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
    once (see `one_by_one`).
    """

    name: str
    blocking: bool
    limits: Limits

    def url(self, endpoint: str) -> str:
        """What a request line's ``url`` has to be for an endpoint such as ``/v1/responses``."""

    def send(self, shard: Shard, batch: Batch, desk: Desk) -> Batch:
        """Bring the shard to the provider, or find it there; `batch` is what is known so far."""

    def poll(self, batch: Batch) -> Batch:
        """The batch as it is now."""

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Write all output and error lines of an ended batch; all or an exception."""

    def cancel(self, batch: Batch) -> Batch:
        """Ask for an end; what has been answered stays."""

    def delete_files(self, batch: Batch) -> None:
        """Delete what the provider still keeps of an ended batch; what is gone already is fine."""


@dataclass
class Patience:
    """When a caller has waited enough; ``time.monotonic()``, and it may be changed meanwhile."""

    until: float = math.inf

    def end(self) -> None:
        """Wait no longer, from any thread."""
        self.until = -math.inf


_patience: ContextVar[Patience] = ContextVar("patience", default=Patience())  # noqa: B039 - never changed


@contextlib.contextmanager
def patience(seconds: float, given: Patience | None = None) -> Iterator[None]:
    """For how long the caller wants providers to try again, whatever a server asks for."""
    given = given or Patience()
    given.until = min(given.until, time.monotonic() + seconds)
    token = _patience.set(given)
    try:
        yield
    finally:
        _patience.reset(token)


def patience_left() -> float:
    """Seconds that a provider may still spend on trying again; infinite where nobody said.

    Examples
    --------
    >>> patience_left()
    inf
    """
    return _patience.get().until - time.monotonic()


def provider_names() -> list[str]:
    """The names that ``provider=`` takes here.

    Examples
    --------
    >>> "openai" in provider_names()
    True
    """
    return sorted({point.name for point in entry_points(group=_GROUP)})


def connect(
    provider: str | Provider, client: Any = None, model: str | None = None, pace: Pace | None = None
) -> Provider:
    """The provider of that name, ready to use; an object with the protocol is given back.

    Raises
    ------
    ParameterError
        There is none of that name, or it keeps no such pace.
    CredentialsError
        It needs an API key and there is none.
    """
    if not isinstance(provider, str):
        return _at_pace(_checked(provider), pace)
    try:
        point = _point(provider, tuple(sys.path))
    except LookupError:
        raise _no_provider(provider) from None
    return _at_pace(cast("Provider", point.load()(client=client, model=model)), pace)


@functools.lru_cache(maxsize=64)
def _point(name: str, _path: tuple[str, ...]) -> EntryPoint:
    """Where a provider's code is: found by a look through all that is installed, so once.

    Raises
    ------
    LookupError
        Nowhere; that is not remembered, as it may be installed yet.
    """
    for point in entry_points(group=_GROUP, name=name):
        return point
    raise LookupError(name)


def _no_provider(provider: str) -> ParameterError:
    names = provider_names()
    close = difflib.get_close_matches(provider, names, n=1)
    return ParameterError(
        f"There is no provider {provider!r}.",
        f"Use {f'{close[0]!r} or another' if close else 'one'} of: {', '.join(names)}."
        if names
        else "Install frameenrich with pip: providers are found by its entry points.",
        provider=provider,
    )


def check_request(
    provider: Provider, spec: JobSpec, params: Mapping[str, Json] | None = None
) -> None:
    """Have a provider refuse what its API cannot carry, before anything is written or sent.

    Raises
    ------
    ParameterError
        The job's requests, with `params` in place of their own, are none for it.
    """
    check = getattr(provider, "check", None)
    if check is not None:
        image = ("data:image/png;base64,",) if spec.image else ()
        if spec.messages:
            body = request_body(spec, [""] * len(spec.messages), image)
        else:  # the requests came ready, and were checked as they are
            body = {"model": spec.models[0], "messages": [{"role": "user", "content": ""}]}
        check({**body, **(params or {})})


def _checked(provider: Any) -> Provider:
    if isinstance(provider, Provider):
        return provider
    raise ParameterError(
        f"provider= is a {type(provider).__name__}, which lacks verbs of the Provider protocol.",
        "Give a name, or an object with send, poll, fetch, cancel and delete_files.",
    )


def _at_pace(provider: Provider, pace: Pace | None) -> Provider:
    if pace is None:
        return provider
    if not hasattr(provider, "at_pace"):
        raise ParameterError(
            f"The provider {provider.name!r} takes no max_in_flight=, requests_per_minute= or "
            "tokens_per_minute=.",
            "They are for provider='live'; a batch has max_enqueued_tokens=.",
        )
    return cast("Provider", provider.at_pace(pace))


def one_by_one(provider: Provider) -> Provider:
    """A provider of the same answers that are there when `send` returns, for a pilot.

    Raises
    ------
    ParameterError
        There is none.
    """
    if provider.blocking:
        return provider
    if hasattr(provider, "live"):
        return cast("Provider", provider.live())
    raise ParameterError(
        f"The provider {provider.name!r} cannot answer a pilot.",
        "Use provider='live' or 'local' for it; nothing was sent.",
    )


def request_ids(lines: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Each request line with its custom_id, which our own lines begin with.

    Raises
    ------
    StoreError
        The file is damaged.
    """
    for line in lines:
        end = line.find(b'"', 14)
        if not line.startswith(b'{"custom_id":"') or end < 0:
            raise StoreError(
                f"The store's file {getattr(lines, 'name', '')} is damaged: {line[:40]!r}.",
                "Restore it from a backup, or move its job's folder out of the store.",
            )
        yield line[14:end].decode("ascii", "replace"), line
