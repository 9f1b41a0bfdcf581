"""Send flagged rows again in another round: choose them, and change their requests.

=========================================  =====================================================
what became of a row                       how it is asked again
=========================================  =====================================================
``malformed``                              with its answer and what was wrong with it as feedback
``truncated``                              with twice the cap on the answer's tokens
``empty``, ``missing``, ``expired``,       as before
``cancelled``
``failed``: 5xx, 408, 409, 429, no status  as before
``failed``: any other 4xx                  as before, and only where ``statuses=`` names it
``refused``                                as before, and only where ``statuses=`` names it
=========================================  =====================================================

"As before" is the request as it was last sent: what an earlier round changed stays changed, so a
cap doubles again and a stronger model stays. Feedback is the exception: a conversation holds the
newest bad answer only.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash

from frameenrich.answers.output import Output
from frameenrich.errors import ParameterError
from frameenrich.lifecycle.last_requests import FEEDBACK, LastRequests, last_requests
from frameenrich.lifecycle.results import JobResults, read_results
from frameenrich.model import FLAGGED, JobSpec, Json, Limits, Remedy, Result, RowStatus
from frameenrich.prepare.rounds import RetryRequest, RoundDraft, draft_of_round
from frameenrich.pricing.tokens import whole_cap
from frameenrich.rendering.body import retry_line
from frameenrich.rendering.caching import without_marks
from frameenrich.store.folder import JobFolder
from frameenrich.store.shard import ShardFolder
from frameenrich.text import kind_of

UNCHANGED = "unchanged"


# OpenAI deprecates `max_tokens` for chat completions (API reference), but many servers know only
# that name, so a request keeps the one that it has.
_CAPS = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
    "/v1/responses": ("max_output_tokens",),
    "/v1/completions": ("max_tokens",),
}
"""The names of the cap on an answer's tokens; the first where a request sets none."""


_FIRST_CAP_TOKENS = 512
"""The cap to double where the request has none and the answer does not say what it took."""


_TURNS = {"/v1/chat/completions": "messages", "/v1/responses": "input"}
"""The member of a request that holds its conversation; plain completions have none."""


@dataclass(frozen=True)
class Elsewhere:
    """The provider of a round that does not go to the job's own.

    ``url`` is what that provider calls the job's endpoint, ``check`` its check of a request's body,
    which raises `ParameterError` for one that it cannot carry.
    """

    provider: str
    url: str
    check: Callable[[Json], None] = lambda _: None


@dataclass(frozen=True)
class RetryOptions:
    """The user's options for a round.

    ``statuses`` is None for every row that can be mended; ``params`` holds request parameters to
    change, and wins over what a row's class would change. ``elsewhere`` is None where the round
    goes to the job's own provider. ``unanswered`` leaves out rows that had an answer, however bad;
    ``left_alone`` are the custom_ids of rows that a person has corrected.
    """

    statuses: frozenset[RowStatus] | None = None
    model: str | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    feedback: bool = True
    elsewhere: Elsewhere | None = None
    unanswered: bool = False
    left_alone: frozenset[str] = frozenset()

    def wants(self, result: Result) -> bool:
        """Tell whether a row with this result is sent again."""
        if self.unanswered and result.status not in _NO_ANSWER:
            return False
        if self.statuses is not None:
            return result.status in self.statuses
        # Rows whose model is not there fail again, unless something else is asked.
        elsewhere = self.model is not None or self.elsewhere is not None
        return result.repairable or (elsewhere and result.remedy in _FOR_ANOTHER_MODEL)


_FOR_ANOTHER_MODEL = frozenset({Remedy.MODEL, Remedy.FORM})

_NO_ANSWER = frozenset(
    {RowStatus.CANCELLED, RowStatus.EXPIRED, RowStatus.MISSING, RowStatus.FAILED}
)


def check_statuses(statuses: Iterable[str] | None) -> frozenset[RowStatus] | None:
    """Check the names of statuses and return them.

    Raises
    ------
    ParameterError
        One is not a flagged status.
    """
    if statuses is None:
        return None
    several = isinstance(statuses, Iterable) and not isinstance(statuses, str)
    names: list[Any] = list(statuses) if several else [statuses]
    known = [str(status) for status in FLAGGED]
    # What is no text first: some things cannot be compared with one.
    unknown = [name for name in names if not isinstance(name, str) or name not in known]
    if unknown:
        raise ParameterError(
            f"statuses= holds {kind_of(unknown[0])}, which is not a flagged status.",
            f"Use some of: {', '.join(sorted(FLAGGED))}.",
        )
    return frozenset(RowStatus(name) for name in names)


_DETAILS = ("bad_raw", "status_code", "completion_tokens")


class Repairable(NamedTuple):
    """The rows that a round could mend: how many, and a hash of what became of them.

    It is the same hash as long as the same rows failed in the same way.
    """

    rows: int
    hash: int


def repairable(folder: JobFolder, output: Output) -> Repairable:
    """Find the rows that a round could mend."""
    rows = total = 0
    for _, chosen in _chosen(folder, output, RetryOptions(), RoundCounts()):
        for custom_id, own in chosen.items():
            result = own()
            outcome = repr((custom_id, str(result.status), result.error, result.raw))
            # A sum, as the rows come in another order when some were sent again.
            total += xxhash.xxh3_128_intdigest(outcome.encode("utf-8", "surrogatepass"))
            rows += 1
    return Repairable(rows, total)


@dataclass
class RoundCounts:
    """Counts of the flagged rows that a round sends, and of those it leaves, by remedy."""

    sent: int = 0
    left: Counter[Remedy] = field(default_factory=Counter)


_Chosen = Mapping[str, Callable[[], Result]]
"""Rows to send again, by custom_id in round 0; each result is made when it is called for."""


def _chosen(
    folder: JobFolder, output: Output, options: RetryOptions, counts: RoundCounts
) -> Iterator[tuple[LastRequests, _Chosen]]:
    """Yield the flagged rows to send again, by the shard that their newest request is in."""
    for last in last_requests(folder):
        found = read_results(
            last.job, output, details=_DETAILS, sidecar=last.sidecar(), values="none"
        )
        chosen: dict[str, Callable[[], Result]] = {}
        for custom_id, slot in _flagged(found):
            # Somebody corrected these rows by hand: a new answer would cost, and not be used.
            if custom_id in options.left_alone:
                continue
            result = found.table.result(slot)
            if options.wants(result):
                # The result itself may be large: it is made again when its request is read.
                chosen[custom_id] = partial(found.table.result, slot)
            else:
                counts.left[result.remedy] += 1
        counts.sent += len(chosen)
        if chosen:
            yield last, chosen
        # The next shard is read before these names are bound anew: two would be in memory.
        chosen.clear()
        del found


def _flagged(found: JobResults) -> Iterator[tuple[str, int]]:
    requests = found.requests
    slots = requests[found.table.flagged()[requests]]
    ids = found.custom_ids.take(pa.array(slots)).to_pylist()
    yield from zip(ids, slots.tolist(), strict=True)


@contextlib.contextmanager
def draft_of_retries(
    folder: JobFolder,
    output: Output,
    options: RetryOptions,
    limits: Limits,
    counts: RoundCounts | None = None,
) -> Iterator[RoundDraft | None]:
    """Write the requests of another round into a draft; None where no row is sent again.

    The caller holds the job's lock, and commits. `counts` is filled in.
    """
    lines = _lines(folder, output, options, counts or RoundCounts())
    # Looked at before a draft is begun: a round without requests would count as one.
    first = next(lines, None)
    if first is None:
        yield None
        return
    provider = options.elsewhere.provider if options.elsewhere else None
    lines = chain([first], lines)
    with draft_of_round(folder, folder.rounds(), lines, limits, provider) as draft:
        yield draft


def _lines(
    folder: JobFolder, output: Output, options: RetryOptions, counts: RoundCounts
) -> Iterator[RetryRequest]:
    """Yield each chosen row's last request with its changes, one shard's answers in memory."""
    round_ = folder.rounds()
    for last, chosen in _chosen(folder, output, options, counts):
        rows_with_feedback, moved = (
            last.with_feedback(),
            _moved(folder, last.shard, options.elsewhere),
        )
        for custom_id, line in last.lines(chosen):
            result, own = chosen[custom_id](), f"r{round_}-{custom_id}"
            rework = _RetryBody(
                result, options, folder.spec, had_feedback=custom_id in rows_with_feedback
            )
            url = options.elsewhere.url if options.elsewhere else folder.spec.url
            reworked, request_hash = retry_line(line, own, rework, url, folder.spec)
            rework.words += moved
            change = ", ".join(rework.words) or UNCHANGED
            yield RetryRequest(
                custom_id, own, reworked, request_hash, rework.model, result.status, change
            )


def changed_line(custom_id: str, line: bytes, options: RetryOptions, spec: JobSpec) -> bytes:
    """Return an unanswered request as a round with these options would send it.

    Raises
    ------
    ParameterError
        The round's provider cannot carry it.
    """
    rework = _RetryBody(Result(custom_id, RowStatus.CANCELLED), options, spec)
    return retry_line(
        line, custom_id, rework, options.elsewhere.url if options.elsewhere else None
    )[0]


def _moved(folder: JobFolder, shard: ShardFolder, elsewhere: Elsewhere | None) -> list[str]:
    """Return the words for a change of provider, if there is one."""
    own = folder.spec.provider
    before, after = shard.batch.provider or own, elsewhere.provider if elsewhere else own
    return [f"provider {before} -> {after}"] if before != after else []


@dataclass
class _RetryBody:
    """Changes the body of one row's request, and records the changes in words."""

    result: Result
    options: RetryOptions
    spec: JobSpec
    had_feedback: bool = False
    model: str = ""
    words: list[str] = field(default_factory=list)

    def __call__(self, body: dict[str, Json]) -> dict[str, Json]:
        """Return the body to send this time."""
        if self.options.feedback and (
            turns := _with_feedback(body, self.result, self.spec, had_feedback=self.had_feedback)
        ):
            body = {**body, **turns}
            self.words.append(FEEDBACK)
        changes = self._changes(body)
        self.model = str(changes.get("model", body["model"]))
        self.words += _in_words(body, changes, self._caps)
        if any(cap in changes for cap in self._caps):  # two names for one thing are refused
            body = {name: value for name, value in body.items() if name not in self._caps}
        body = {**body, **changes}
        if self.options.elsewhere is not None:
            if self.options.elsewhere.provider != "live":  # which is the same server
                body = without_marks(body)
            # Checked as it will be sent, after all changes.
            self.options.elsewhere.check(body)
        return body

    @property
    def _caps(self) -> tuple[str, ...]:
        return _CAPS.get(self.spec.endpoint, ())

    def _changes(self, body: Mapping[str, Json]) -> dict[str, Json]:
        changes = {"model": self.options.model} if self.options.model else {}
        changes |= self.options.params
        # A cap that the user gave wins over a doubled one.
        if self.result.status is RowStatus.TRUNCATED and not any(c in changes for c in self._caps):
            changes |= _doubled_cap(body, self.result, self._caps)
        return changes


def _doubled_cap(
    body: Mapping[str, Json], result: Result, caps: tuple[str, ...]
) -> dict[str, Json]:
    # The cap as last sent is doubled, so a second truncation doubles it again.
    for cap in caps:
        if (tokens := whole_cap(body.get(cap))) is not None:
            return {cap: 2 * tokens}
    return dict.fromkeys(caps[:1], 2 * (result.usage.completion_tokens or _FIRST_CAP_TOKENS))


def _in_words(
    body: Mapping[str, Json], changes: Mapping[str, Json], caps: tuple[str, ...]
) -> Iterator[str]:
    for name, value in changes.items():
        others = caps if name in caps else (name,)
        # A cap may have stood under its other name.
        before = next((body[other] for other in others if other in body), "unset")
        if name not in body or before != value:
            yield f"{name} {before} -> {value}"


def _with_feedback(
    body: Mapping[str, Json], result: Result, spec: JobSpec, *, had_feedback: bool
) -> dict[str, Json]:
    """Add the newest bad answer, and what was wrong with it, to the conversation."""
    turns_key = _TURNS.get(spec.endpoint)
    if (
        turns_key is None
        or turns_key not in body
        or result.status is not RowStatus.MALFORMED
        or not result.raw
    ):
        return {}
    # The reason alone: what is wanted stands in the request that the model sees again.
    said = (
        f"That answer could not be used: {result.error}. Answer again, in the form asked for and "
        "nothing else."
    )
    turns = [{"role": "assistant", "content": result.raw}, {"role": "user", "content": said}]
    earlier = body[turns_key]
    if isinstance(earlier, str):  # the Responses API takes a text alone, too
        earlier = [{"role": "user", "content": earlier}]
    return {turns_key: [*(earlier[: -len(turns)] if had_feedback else earlier), *turns]}


# --- what was done ------------------------------------------------------------------------------


def changes(folder: JobFolder) -> list[tuple[int, str, str, int]]:
    """List what later rounds sent again: (round, status, change, requests), the most first.

    Changes that differ in their numbers alone are one: ``max_tokens 20 to 45 -> 40 to 90``.
    """
    found = []
    for round_ in range(1, folder.rounds()):
        alike: dict[tuple[str, str], Counter[str]] = {}
        for status, change in _reasons(folder.sidecar(round_)):
            alike.setdefault((status, _NUMBER.sub("#", change)), Counter())[change] += 1
        grouped = [
            (round_, status, _as_range(list(counts)), counts.total())
            for (status, _), counts in alike.items()
        ]
        found += sorted(grouped, key=lambda each: -each[3])
    return found


# Not the digits within a name: "gpt-4.1" is no quantity.
_NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)?(?![\w.-])")


def _as_range(changes: Sequence[str]) -> str:
    """Write changes that differ in their numbers as one.

    Examples
    --------
    >>> _as_range(["max_tokens 20 -> 40", "max_tokens 45 -> 90"])
    'max_tokens 20 to 45 -> 40 to 90'
    """
    columns = zip(*(_NUMBER.findall(change) for change in changes), strict=True)
    ends = ((min(own, key=float), max(own, key=float)) for own in columns)
    spans = iter([low if low == high else f"{low} to {high}" for low, high in ends])
    return _NUMBER.sub(lambda _: next(spans), changes[0])


def _reasons(sidecar: pa.Table) -> Iterator[tuple[str, str]]:
    # Rounds of earlier versions have no such column.
    if "change" in sidecar.column_names:
        yield from zip(sidecar["status"].to_pylist(), sidecar["change"].to_pylist(), strict=True)


def describe_changes(folder: JobFolder) -> list[str]:
    """Describe what rounds changed in requests, a line each; empty where nothing changed.

    Examples
    --------
    A line reads ``round 1: max_tokens 28 -> 56 for 12 truncated rows``.
    """
    return [
        f"round {round_}: {change} for {count:,} {status} row{'s' if count > 1 else ''}"
        for round_, status, change, count in changes(folder)
        if change != UNCHANGED
    ]


def history(
    folder: JobFolder, output: Output, slots: Iterable[int], sidecar: pa.Table | None = None
) -> list[list[dict[str, Any]]]:
    """Return the earlier attempts of some requests: each round but their last.

    Parameters
    ----------
    folder, output : JobFolder, Output
        The job, and how its answers are read.
    slots : iterable of int
        Which requests, by their slot in the job's result_table.
    sidecar : Table, optional
        Its rows that slots are of, where those are not all.

    Returns
    -------
    list of list of dict
        For each slot its earlier attempts in order: ``attempt`` (from 1), ``status``, ``error``
        and ``then``, what the next attempt changed.
    """
    wanted = list(slots)
    if not wanted or folder.rounds() == 1:
        return [[] for _ in wanted]
    attempts: dict[int, list[dict[str, Any]]] = {slot: [] for slot in wanted}
    for round_ in range(folder.rounds()):
        found = read_results(folder, output, only_round=round_, sidecar=sidecar, values="none")
        earlier = (
            attempts if round_ == 0 else _attempts_with_changes(folder, round_, found, attempts)
        )
        for slot in earlier:
            result, own = found.table.result(slot), attempts[slot]
            own.append(
                {
                    # How often the row was sent, which in a later round is less than the round's
                    # number.
                    "attempt": len(own) + 1,
                    "status": str(result.status),
                    "error": result.error,
                    "then": None,
                }
            )
    # The last attempt is the row's own status and error, so no history.
    return [attempts[slot][:-1] for slot in wanted]


def _attempts_with_changes(
    folder: JobFolder, round_: int, found: JobResults, attempts: Mapping[int, list[dict[str, Any]]]
) -> list[int]:
    """Note a round's changes with the attempts before it; return the slots that it sent."""
    sidecar = folder.sidecar(round_)
    changes = sidecar["change"].to_pylist() if "change" in sidecar.column_names else None
    earlier = []
    for i, slot in enumerate(found.find(sidecar["answers"]).tolist()):
        if slot in attempts:
            earlier.append(slot)
            if changes is not None and attempts[slot]:
                attempts[slot][-1]["then"] = changes[i]
    return earlier
