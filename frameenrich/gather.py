"""From a job's folder to results: every response line of every round, judged anew each time.

Only reads the store. Which rows are done is decided by the lines, never by a batch's counts.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.errors import FrameMismatchError, ImageError, TemplateError
from frameenrich.images import image_cells
from frameenrich.keys import find_keys, key_columns, key_names, read_keys, show_key
from frameenrich.model import Batch, BatchStatus, JobSpec, Rejection, Result, RowStatus
from frameenrich.output import Output
from frameenrich.parse import read_results, split_chunks
from frameenrich.quick import quick_reader
from frameenrich.rows import input_hashes
from frameenrich.shard import HASH_BYTES
from frameenrich.store import JobFolder, ShardFolder
from frameenrich.tally import Positions, Tally

_SETTLED = {
    BatchStatus.COMPLETED: (RowStatus.MISSING, "the batch ended and no line came for this request"),
    BatchStatus.EXPIRED: (RowStatus.EXPIRED, "the batch expired before this request was run"),
    BatchStatus.CANCELLED: (RowStatus.CANCELLED, "the batch was cancelled before this request ran"),
    BatchStatus.FAILED: (RowStatus.FAILED, "the provider refused the whole batch"),
}
_REFUSED_BY_VALIDATION = 400
"""What the endpoint itself would answer to a request that a batch's validation refuses."""


@dataclass(frozen=True)
class Gathered:
    """A job's results, and the lines that belong to none of its requests.

    ``custom_ids`` and ``shards`` are the sidecar's columns, ``slots`` each of its lines' slot in
    the tally, -1 for a line without a request.
    """

    tally: Tally
    custom_ids: pa.Array
    shards: npt.NDArray[np.int32]
    slots: Positions
    strangers: int
    unreadable: int

    @property
    def requests(self) -> Positions:
        """The slots that are in use, each once."""
        return np.flatnonzero(self.slots == np.arange(len(self.slots)))

    def custom_id(self, slot: int) -> str:
        """What a request is called in round 0."""
        own: str = self.custom_ids[slot].as_py()
        return own

    def find(self, custom_ids: pa.Array | pa.ChunkedArray) -> Positions:
        """The slots of some custom_ids of round 0; -1 for one that is none."""
        found = pc.index_in(custom_ids, value_set=self.custom_ids).fill_null(-1)
        positions: Positions = found.to_numpy(zero_copy_only=False).astype(np.int64)
        return self.at(positions)

    def at(self, positions: Positions) -> Positions:
        """The slots of some lines; -1 for position -1, and for a line without a request."""
        if not len(self.slots):
            return np.full(len(positions), -1)
        return np.where(positions >= 0, self.slots[positions], -1)

    def asked_again(self, folder: JobFolder, round_: int) -> tuple[pa.Table, Positions]:
        """The lines of a later round's sidecar that are about these requests, and their slots."""
        table = folder.sidecar(round_)
        slots = self.find(table["answers"])
        own = slots >= 0
        return (table, slots) if own.all() else (table.filter(pa.array(own)), slots[own])


def gather(
    folder: JobFolder,
    output: Output,
    only_round: int | None = None,
    *,
    details: Iterable[str] = (),
    lines: pa.Table | None = None,
) -> Gathered:
    """Read every response of a job, or of one of its rounds, into a tally of its requests.

    Parameters
    ----------
    folder, output : JobFolder, Output
        The job, and how its answers are read.
    only_round : int, optional
        Which round's.
    details : collection of str
        What to keep beside values, statuses and errors (`frameenrich.tally.DETAILS`).
    lines : Table, optional
        Some lines of the sidecar, whose requests alone are looked for, in the shards that they
        name. Responses to others then count as strangers.

    Notes
    -----
    Never raises for what a response holds: a broken line loses only itself.
    """
    sidecar = folder.sidecar(columns=["custom_id", "shard"]) if lines is None else lines
    tally = Tally(max(len(sidecar), 1), output.fields, details)
    found = _Gathering(output, tally, partly=lines is not None)
    custom_ids, shards = _whole(sidecar["custom_id"]), sidecar["shard"].to_numpy()
    slots = np.full(len(sidecar), -1, dtype=np.int64)
    rounds = range(folder.rounds())
    for shard, places in _by_shard(folder, 0, shards):
        own = _first_places(custom_ids.take(pa.array(places)).to_pylist(), places)
        slots[places] = own.slots
        if only_round in {None, 0}:
            found.read(shard, own.by_id)
    whole = Gathered(found.tally, custom_ids, shards, slots, 0, 0)
    for round_ in rounds[1:] if only_round is None else rounds[max(only_round, 1) : only_round + 1]:
        table, answers = whole.asked_again(folder, round_)
        found.tally.ask_again(answers)
        for shard, places in _by_shard(folder, round_, table["shard"].to_numpy()):
            ids = table["custom_id"].take(pa.array(places)).to_pylist()
            found.read(shard, dict(zip(ids, answers[places].tolist(), strict=True)))
    return replace(whole, strangers=found.strangers, unreadable=found.unreadable)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _by_shard(
    folder: JobFolder, round_: int, numbers: npt.NDArray[np.int32]
) -> Iterator[tuple[ShardFolder, Positions]]:
    """Each shard of a round with the lines of a sidecar whose requests are in it, if any are."""
    order = None if (numbers[1:] >= numbers[:-1]).all() else np.argsort(numbers, kind="stable")
    ordered = numbers if order is None else numbers[order]
    for shard in folder.shards(round_):
        first, end = np.searchsorted(ordered, [shard.number, shard.number + 1])
        if first < end:
            yield shard, np.arange(first, end) if order is None else order[first:end]


@dataclass(frozen=True)
class _Places:
    """The requests of a shard by custom_id, and which of them each line of the sidecar shares."""

    by_id: dict[str, int]
    slots: Positions


def _first_places(ids: list[str], places: Positions) -> _Places:
    by_id = dict(zip(reversed(ids), places[::-1].tolist(), strict=True))  # the first wins
    if len(by_id) == len(ids):
        return _Places(by_id, places)
    return _Places(by_id, np.array([by_id[own] for own in ids], dtype=np.int64))


class _Gathering:
    """Reads shards into a tally; `partly`, where not every request is one of the tally's."""

    def __init__(self, output: Output, tally: Tally, *, partly: bool) -> None:
        self._output = output
        self._partly = partly
        self._quick = quick_reader(output)
        self.tally = tally
        self.strangers = self.unreadable = 0

    def read(self, shard: ShardFolder, own: dict[str, int]) -> None:
        """Take a shard's lines, and what its end means for requests without one."""
        heard = np.zeros(self.tally.slots, dtype=np.bool_)
        unreadable = self.unreadable
        others = self._partly and shard.request_count > len(own)
        for lines in split_chunks(shard.read_responses()):
            if others:
                lines = [line for line in lines if _may_answer(line, own)]  # noqa: PLW2901 - fewer
            with _collector_paused():
                slots = self._take(lines, own, shard.round)
            heard[slots] = True
        unheard = {i: slot for i, slot in own.items() if not heard[slot]}
        if unheard:
            _settle_rest(shard, unheard, self.tally, self.unreadable - unreadable)

    def _take(self, lines: list[bytes], own: dict[str, int], round_: int) -> Positions:
        read = read_results(lines, self._output, self._quick)
        results = [result for result in read if result is not None]
        self.unreadable += len(read) - len(results)
        slots = [own.get(result.custom_id, -1) for result in results]
        if -1 in slots:
            results = [result for result, slot in zip(results, slots, strict=True) if slot >= 0]
            self.strangers += len(slots) - len(results)
            slots = [slot for slot in slots if slot >= 0]
        places = np.array(slots, dtype=np.int64)
        self.tally.put(places, results, round_)
        return places


class _Named(msgspec.Struct):
    custom_id: str


def _may_answer(line: bytes, own: Container[str]) -> bool:
    """Whether a line answers one of some requests, or is too broken to tell."""
    try:
        return msgspec.json.decode(line, type=_Named).custom_id in own
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Have Python's cycle collector leave some hundred short-lived objects alone (SPEED.md)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _settle_rest(
    shard: ShardFolder, waiting: dict[str, int], tally: Tally, unreadable: int
) -> None:
    """Rows without a line: pending while the batch runs, else what its end says."""
    batch = shard.batch
    refused = [r for r in batch.rejected if r.custom_id in waiting]
    if refused:
        slots = [waiting.pop(rejection.custom_id) for rejection in refused]
        tally.put(np.array(slots), list(map(_rejected, refused)), shard.round)
    rest = np.fromiter(waiting.values(), dtype=np.int64)
    if not batch.settled:
        tally.settle(rest, RowStatus.PENDING, None, shard.round)
        return
    status, reason = _SETTLED[BatchStatus(batch.status)]
    tally.settle(rest, status, reason + _more(batch, unreadable), shard.round)


def _rejected(rejection: Rejection) -> Result:
    code = _REFUSED_BY_VALIDATION
    return Result(rejection.custom_id, RowStatus.FAILED, None, rejection.message, status_code=code)


def _more(batch: Batch, unreadable: int) -> str:
    said = [f"{e.code or 'error'}: {e.message or 'no message'}" for e in batch.errors[:2]]
    broken = [f"{unreadable} line(s) of its responses could not be read"] if unreadable else []
    return "".join(f"; {text}" for text in [*said, *broken])


@dataclass(frozen=True)
class Match:
    """Where a frame's rows are in a job: positions in its sidecar, -1 for rows never seen."""

    positions: Positions
    changed: Positions
    keys: pa.Table

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Which rows the job has seen."""
        return self.positions >= 0


def match_frame(frame: pd.DataFrame, folder: JobFolder, sidecar: pa.Table) -> Match | None:
    """Find a frame's rows in a job and compare what they render to, and show, now.

    Returns
    -------
    Match or None
        None where the frame lacks the job's key, template or image columns.
    """
    spec = folder.spec
    keys = frame_keys(frame, spec, key_columns(sidecar).column_names)
    if keys is None:
        return None
    positions = find_keys(keys, sidecar.select(keys.column_names))
    seen = np.flatnonzero(positions >= 0)
    now = _hashes(frame if len(seen) == len(frame) else frame.iloc[seen], spec)
    if now is None:
        return None
    then = sidecar["input_hash"].take(pa.array(positions[seen]))
    shard = sidecar["shard"].take(pa.array(positions[seen]))
    then = pc.if_else(pc.less(shard, 0), pa.scalar(None, then.type), then)
    same = pc.fill_null(pc.equal(now, then), False)
    both_skipped = pc.and_(pc.is_null(now), pc.is_null(then))
    changed = ~np.asarray(pc.or_(same, both_skipped))
    return Match(positions, seen[changed], keys)


def frame_keys(frame: pd.DataFrame, spec: JobSpec, own: Sequence[str]) -> pa.Table | None:
    """A frame's keys; None where it lacks some, or has others than the job's `own` columns."""
    if spec.key is not None and any(name not in frame.columns for name in spec.key):
        return None
    keys = read_keys(frame, spec.key)
    return keys if keys.column_names == list(own) else None


def _hashes(frame: pd.DataFrame, spec: JobSpec) -> pa.Array | None:
    if not spec.messages:  # the requests came ready: their custom_ids are all that names them
        return pa.nulls(len(frame), pa.binary(HASH_BYTES))
    try:
        return input_hashes(frame, spec)
    except (TemplateError, ImageError):
        return None


def refuse_mismatch(match: Match | None, frame: pd.DataFrame, folder: JobFolder) -> Match:
    """Give back a match that is safe to merge.

    Raises
    ------
    FrameMismatchError
        The frame lacks columns, none of its rows is in the job, or rows changed under their keys.
    """
    match = refuse_changed(match, frame, folder)
    if not match.seen.any():
        names = ", ".join(map(repr, key_names(frame, folder.spec.key)))
        raise FrameMismatchError(
            f"None of the frame's {len(frame)} keys ({names}) is in the job {folder.id}.",
            "Collect on the frame that was submitted, or use job.collect() without a frame.",
            job_id=folder.id,
        )
    return match


def refuse_changed(match: Match | None, frame: pd.DataFrame, folder: JobFolder) -> Match:
    """Give back a match of rows that the job has seen as they are, or never.

    Raises
    ------
    FrameMismatchError
        The frame lacks columns, or rows changed under their keys.
    """
    if match is None:
        names = ", ".join(map(repr, key_names(frame, folder.spec.key)))
        raise FrameMismatchError(
            f"The frame lacks the key {names} or a template column of the job {folder.id}, so its "
            "rows cannot be told to be the same.",
            "Collect on the frame that was submitted, or use job.collect() without a frame.",
            job_id=folder.id,
        )
    if len(match.changed):
        example = show_key(match.keys, int(match.changed[0]))
        lost = _lost_image(frame, int(match.changed[0]), folder.spec)
        raise FrameMismatchError(
            f"{len(match.changed)} of the frame's rows changed under their keys since the job "
            f"{folder.id} was submitted, such as row {example}{lost}.",
            f"Restore the old index or inputs{' (the images too)' if lost else ''}, or submit the "
            "frame as it is now.",
            job_id=folder.id,
            count=len(match.changed),
            example=example,
        )
    return match


def _lost_image(frame: pd.DataFrame, position: int, spec: JobSpec) -> str:
    """What is wrong with a row's image now, as the end of a sentence; empty where nothing is."""
    cells = image_cells(frame.iloc[[position]], spec)
    problem = cells.problem(0) if cells is not None else None
    if problem is None:
        return ""
    reason = problem.removeprefix("The row at position 0 ").rstrip(".")
    return f", which {reason}"
