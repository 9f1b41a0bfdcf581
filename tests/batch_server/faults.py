"""The faults: their names, when each of them strikes, and which are waiting to.

A fault belongs to one of three scopes:

- ``http``: strikes one HTTP request; `where` is matched against ``"POST /v1/batches"``;
- ``batch``: sticks to the first matching batch that is created or takes a step; `where` is matched
  against its id, input file id, file name and metadata values;
- ``row``: strikes one row, in a batch (and live, if it can); `where` is matched against its
  custom_id and its user message.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from .reply import stable_hash

Where: TypeAlias = str | Collection[str] | Callable[..., bool] | None
Times: TypeAlias = int | Literal["always"]
Scope: TypeAlias = Literal["http", "batch", "row"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One name of the table: what strikes, where by default, and the options it understands.

    Of the faults of one `group`, only the first that matches strikes a request, batch or row.
    """

    name: str
    scope: Scope
    group: str
    where: str = "*"
    times: Times = 1
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault that waits to strike; made by :func:`make_fault`, which knows the defaults."""

    name: str
    times: Times
    where: Where
    fraction: float = 1.0
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, option: str) -> Any:
        """Return an option's value."""
        return self.options[option]


_CREATE = "POST /v1/batches"
_UPLOAD = "POST /v1/files"
_POLL = "GET /v1/batches/*"
_DOWNLOAD = "GET /v1/files/*/content"


def _http(name: str, where: str = "*", group: str = "http", **options: Any) -> Kind:
    return Kind(name, "http", group, where, 1, MappingProxyType(options))


def _batch(name: str, group: str = "", **options: Any) -> Kind:
    return Kind(name, "batch", group or name, "*", 1, MappingProxyType(options))


def _reply(name: str, **options: Any) -> Kind:
    return Kind(name, "row", "reply", "*", "always", MappingProxyType(options))


def _line(name: str, times: Times = 1, **options: Any) -> Kind:
    return Kind(name, "row", name, "*", times, MappingProxyType(options))


_ALL = (
    _http("http_500", code=None),
    _http("http_503", code=None),
    _http("rate_limited", retry_after=1, code="rate_limit_exceeded"),
    _http("unauthorized"),
    _http("closed_before"),
    _http("accepted_then_500", _CREATE),
    _http("accepted_then_closed", _CREATE),
    _http("cannot_find_file", _CREATE),
    _http("batch_not_found", _POLL),
    _http("html_502", _POLL),
    _http("html_429", _CREATE),
    _http("not_json", _POLL, content_type="application/json"),
    _http("odd_body", _POLL, body=b"{}"),
    _http("unlisted", "GET /v1/batches", newest=1),
    _http("no_route", "GET /v1/files", status=404),
    _http("cut_upload", _UPLOAD, keep=0.5),
    _http("file_quota_exceeded", _UPLOAD, status=400),
    _http("truncated_download", _DOWNLOAD, keep=0.5),
    _http("short_download", _DOWNLOAD, keep=0.5),
    _http("download_without_length", _DOWNLOAD),
    _http("half_written", "GET /v1/files/*", less=0),
    _http("ration_spent", reset="1s"),
    _http("slow", group="slow", seconds=1.0),
    _http("slow_answer", group="slow", seconds=1.0),
    _batch("all_lines_failed", status=400),
    _batch("error_file_id_empty_string", group="error file"),
    _batch("empty_error_file", group="error file"),
    _batch("empty_output_file"),
    _batch("late_files", looks=3),
    _batch("expired", group="end", ran=0.5, lines=True),
    _batch("expired_silently", group="end", ran=0.5, lines=False),
    _batch("cancelled", group="end", ran=0.5, lines=False),
    _batch("stuck", status="in_progress"),
    _batch(
        "fails_after_validating",
        group="end",
        steps=3,
        code="invalid_request",
        message="The batch could not be processed.",
    ),
    _batch("token_limit_exceeded", group="end"),
    _batch("unknown_status", word="scheduling", status="validating"),
    _batch("null_counts", group="counts"),
    _batch("null_request_counts", group="counts"),
    _batch("null_errors"),
    _batch("null_custom_id_line"),
    _batch("stranger_line"),
    _reply("http_error", status=500, code="server_error", message="The server had an error."),
    _reply("http_error_in_output", status=400, code="invalid_value", message="Invalid value."),
    _reply("malformed", content='Sorry, {"not quite": JSON'),
    _reply("fenced"),
    _reply("chatty"),
    _reply("refused", message="I'm sorry, I can't help with that."),
    _reply("truncated"),
    _reply("empty", content=""),
    _reply("content_filter"),
    _line("missing", "always"),
    _line("expired_line", "always"),
    _line("status_zero", "always"),
    _line("string_body", "always"),
    _line("no_response_key", "always"),
    _line("no_error_key", "always"),
    _line("raw_separators", "always"),
    _line("null_custom_id"),
    _line("duplicate_line"),
    _line("conflicting_line", as_error=False),
    _line("unparseable_line"),
    _line("not_utf8_line"),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _ALL})
"""Every fault by name; what each of them means is in the table of the package's docstring."""


def make_fault(
    name: str,
    *,
    times: Times | None = None,
    where: Where = None,
    fraction: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> Fault:
    """Return a fault by name.

    Parameters
    ----------
    name
        One of :data:`KINDS`.
    times
        How often it strikes, or ``"always"``. Default: once; row faults: mostly always.
    where
        A glob, a collection of exact names, or a callable: of the request (http), of the batch
        as JSON (batch), or of ``custom_id, body`` (row).
    fraction
        Chance of striking where it could, thrown anew, but repeatably, for each try.
    seed
        Of those throws.
    **options
        The fault's own options, see the table.

    Raises
    ------
    KeyError
        There is no such fault.
    TypeError
        The fault has no such option.
    """
    kind = KINDS[name]
    if unknown := options.keys() - kind.options.keys():
        raise TypeError(f"{name} has no option {sorted(unknown)}; it has {sorted(kind.options)}")
    return Fault(
        name=name,
        times=kind.times if times is None else times,
        where=_settled(kind.where if where is None else where),
        fraction=fraction,
        seed=seed,
        options={**kind.options, **options},
    )


def _settled(where: Where) -> Where:
    return where if isinstance(where, str) or callable(where) else frozenset(where or ())


class Faults:
    """The faults of one server: those that wait, and a count of those that struck. Thread-safe.

    Examples
    --------
    >>> faults = Faults("stuck", make_fault("http_error", fraction=0.1))
    >>> faults.add("rate_limited", times=2, where="POST /v1/files", retry_after=0.01).name
    'rate_limited'
    """

    def __init__(self, *faults: str | Fault) -> None:
        self._lock = threading.RLock()  # a `where` may look at the server again
        self._waiting = [make_fault(f) if isinstance(f, str) else f for f in faults]
        self.fired: Counter[str] = Counter()

    def add(
        self,
        name: str,
        *,
        times: Times | None = None,
        where: Where = None,
        fraction: float = 1.0,
        seed: int = 0,
        **options: Any,
    ) -> Fault:
        """Add a fault; see :func:`make_fault`."""
        fault = make_fault(name, times=times, where=where, fraction=fraction, seed=seed, **options)
        with self._lock:
            self._waiting.append(fault)
        return fault

    def clear(self, name: str | None = None) -> None:
        """Take back every fault that waits, or those of one name."""
        with self._lock:
            self._waiting = [f for f in self._waiting if name is not None and f.name != name]

    @property
    def waiting(self) -> tuple[Fault, ...]:
        """The faults that may still strike."""
        with self._lock:
            return tuple(self._waiting)

    def take(
        self,
        scope: Scope,
        names: Callable[[], Collection[str]],
        subject: tuple[Any, ...],
        *,
        attempt: int = 0,
        without: Collection[str] = (),
    ) -> tuple[Fault, ...]:
        """Return the faults that strike this subject, and use up one time of each."""
        if not self._waiting:
            return ()
        with self._lock:
            return self._take(scope, tuple(names()), subject, attempt, without)

    def _take(
        self,
        scope: Scope,
        names: tuple[str, ...],
        subject: tuple[Any, ...],
        attempt: int,
        without: Collection[str],
    ) -> tuple[Fault, ...]:
        struck: dict[str, Fault] = {}
        left: list[Fault] = []
        for fault in self._waiting:
            kind = KINDS[fault.name]
            fits = (
                kind.scope == scope
                and fault.name not in without
                and kind.group not in struck
                and _matches(fault.where, names, subject)
                and _thrown(fault, names, attempt)
            )
            if fits:
                struck[kind.group] = fault
            left.extend(_after(fault) if fits else (fault,))
        if struck:
            self._waiting = left
            self.fired.update(fault.name for fault in struck.values())
        return tuple(struck.values())


def _after(fault: Fault) -> tuple[Fault, ...]:
    if fault.times == "always":
        return (fault,)
    return (replace(fault, times=fault.times - 1),) if fault.times > 1 else ()


def _matches(where: Where, names: tuple[str, ...], subject: tuple[Any, ...]) -> bool:
    if where is None or where == "*":
        return True
    if callable(where):
        return bool(where(*subject))
    if isinstance(where, str):
        return any(name == where or fnmatchcase(name, where) for name in names)
    return any(name in where for name in names)


def _thrown(fault: Fault, names: tuple[str, ...], attempt: int) -> bool:
    if fault.fraction >= 1.0:
        return True
    text = "\0".join((fault.name, str(fault.seed), str(attempt), *names))
    return stable_hash(text) / 2**64 < fault.fraction
