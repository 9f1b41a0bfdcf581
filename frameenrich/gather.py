"""From a job's folder to results: every response line of every round, judged anew each time.

Only reads the store. Which rows are done is decided by the lines, never by a batch's counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.errors import FrameMismatchError, ImageError, TemplateError
from frameenrich.images import image_cells
from frameenrich.keys import find_keys, key_names, read_keys, show_key
from frameenrich.merge import Positions, Tally
from frameenrich.model import Batch, BatchStatus, JobSpec, Rejection, Result, RowStatus
from frameenrich.output import Output
from frameenrich.parse import read_result, split_lines
from frameenrich.rows import input_hashes
from frameenrich.store import JobFolder, ShardFolder

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
    """A job's results, and the lines that belong to none of its requests."""

    tally: Tally
    strangers: int
    unreadable: int


def gather(folder: JobFolder, output: Output, only_round: int | None = None) -> Gathered:
    """Read every response of a job, or of one of its rounds, into a tally of its requests.

    Notes
    -----
    Never raises for what a response holds: a broken line loses only itself.
    """
    sidecar = folder.sidecar()
    tally = Tally(request_ids(sidecar), output.fields)
    strangers = unreadable = 0
    for round_ in range(folder.rounds()) if only_round is None else (only_round,):
        slots = _round_slots(folder, round_, tally, sidecar)
        if round_:
            tally.ask_again(slot for own in slots.values() for slot in own.values())
        for shard in folder.shards(round_):
            own = slots.get(shard.number, {})
            strange, broken = _gather_shard(shard, own, tally, output)
            strangers, unreadable = strangers + strange, unreadable + broken
    return Gathered(tally, strangers, unreadable)


def request_ids(sidecar: pa.Table) -> list[str]:
    """The custom_ids of round 0, each once, in order."""
    ids: list[str] = pc.unique(sidecar["custom_id"].drop_null()).to_pylist()
    return ids


def _round_slots(
    folder: JobFolder, round_: int, tally: Tally, sidecar: pa.Table
) -> dict[int, dict[str, int]]:
    """For each shard of a round, which slot each of its custom_ids answers."""
    table = sidecar if round_ == 0 else folder.sidecar(round_)
    answered = table["custom_id" if round_ == 0 else "answers"].to_pylist()
    slots: dict[int, dict[str, int]] = {}
    for number, custom_id, of in zip(
        table["shard"].to_pylist(), table["custom_id"].to_pylist(), answered, strict=True
    ):
        if custom_id is not None:
            slots.setdefault(number, {})[custom_id] = tally.slots[of]
    return slots


def _gather_shard(
    shard: ShardFolder, own: dict[str, int], tally: Tally, output: Output
) -> tuple[int, int]:
    """Put a shard's lines into the tally; counts (strangers, unreadable lines)."""
    waiting = dict(own)
    strangers = unreadable = 0
    for line in split_lines(shard.read_responses()):
        result = read_result(line, output)
        if result is None:
            unreadable += 1
            continue
        slot = own.get(result.custom_id)
        if slot is None:
            strangers += 1
            continue
        waiting.pop(result.custom_id, None)
        tally.put(slot, result, shard.round)
    if waiting:
        _settle_rest(shard, waiting, tally, unreadable)
    return strangers, unreadable


def _settle_rest(
    shard: ShardFolder, waiting: dict[str, int], tally: Tally, unreadable: int
) -> None:
    """Rows without a line: pending while the batch runs, else what its end says."""
    batch = shard.batch
    for rejection in batch.rejected:
        slot = waiting.pop(rejection.custom_id, None)
        if slot is not None:
            tally.put(slot, _rejected(rejection), shard.round)
    if not batch.settled:
        tally.settle(waiting.values(), RowStatus.PENDING, None, shard.round)
        return
    status, reason = _SETTLED[BatchStatus(batch.status)]
    tally.settle(waiting.values(), status, reason + _more(batch, unreadable), shard.round)


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
    keys = _frame_keys(frame, spec, sidecar)
    if keys is None:
        return None
    positions = find_keys(keys, sidecar.select(keys.column_names))
    seen = np.flatnonzero(positions >= 0)
    now = _hashes(frame.iloc[seen], spec)
    if now is None:
        return None
    then = sidecar["input_hash"].take(pa.array(positions[seen]))
    shard = sidecar["shard"].take(pa.array(positions[seen]))
    then = pc.if_else(pc.less(shard, 0), pa.scalar(None, then.type), then)
    same = pc.fill_null(pc.equal(now, then), False)
    both_skipped = pc.and_(pc.is_null(now), pc.is_null(then))
    changed = ~np.asarray(pc.or_(same, both_skipped))
    return Match(positions, seen[changed], keys)


def _frame_keys(frame: pd.DataFrame, spec: JobSpec, sidecar: pa.Table) -> pa.Table | None:
    if spec.key is not None and any(name not in frame.columns for name in spec.key):
        return None
    keys = read_keys(frame, spec.key)
    own = [name for name in sidecar.column_names if name.startswith("key_")]
    return keys if keys.column_names == own else None


def _hashes(frame: pd.DataFrame, spec: JobSpec) -> pa.Array | None:
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
    names = ", ".join(map(repr, key_names(frame, folder.spec.key)))
    if match is None:
        raise FrameMismatchError(
            f"The frame lacks the key {names} or a template column of the job {folder.id}, so its "
            "rows cannot be told to be the same.",
            "Collect on the frame that was submitted, or use job.collect() without a frame.",
            job_id=folder.id,
        )
    if not match.seen.any():
        raise FrameMismatchError(
            f"None of the frame's {len(frame)} keys ({names}) is in the job {folder.id}.",
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


def row_slots(sidecar: pa.Table, tally: Tally, positions: Iterable[int]) -> Positions:
    """Each row's slot in the tally; -1 for a row without a request."""
    ids = sidecar["custom_id"].to_pylist()
    slots = [tally.slots.get(ids[p], -1) if p >= 0 and ids[p] else -1 for p in positions]
    return np.asarray(slots, dtype=np.int64)
