"""Read and judge every response line of a job again.

Only reads the store. Which rows are done is decided by the lines, never by a batch's counts.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.answers.arrow_column import Positions
from frameenrich.answers.column_names import JobColumns
from frameenrich.answers.output import Output
from frameenrich.answers.reader import ResponseReader
from frameenrich.answers.result_table import Kept, ResultTable
from frameenrich.jsonl import whole_lines
from frameenrich.lifecycle.read_cache import ReadCache
from frameenrich.model import Batch, BatchStatus, Result, RowStatus
from frameenrich.store.folder import JobFolder
from frameenrich.store.local import missing
from frameenrich.store.shard import ShardFolder
from frameenrich.store.sidecar import SKIPPED

SIDECAR_ID_COLUMNS = ("custom_id", "shard")
"""The columns of a sidecar's line that say which request it is."""


_SETTLED = {
    BatchStatus.COMPLETED: (RowStatus.MISSING, "the batch ended and no line came for this request"),
    BatchStatus.EXPIRED: (RowStatus.EXPIRED, "the batch expired before this request was run"),
    BatchStatus.CANCELLED: (RowStatus.CANCELLED, "the batch was cancelled before this request ran"),
    BatchStatus.LOST: (
        RowStatus.MISSING,
        "the batch is lost at the provider, and nobody knows what it answered",
    ),
    BatchStatus.FAILED: (RowStatus.FAILED, "the provider refused the whole batch"),
}


_REFUSED_BY_VALIDATION = 400
"""The status with which an endpoint itself would refuse such a request."""


@dataclass(frozen=True)
class JobResults:
    """A job's results, and the lines that belong to none of its requests.

    ``custom_ids`` and ``shards`` are the sidecar's columns, ``slots`` each of its lines' slot in
    the table, -1 for a line without a request.
    """

    table: ResultTable
    custom_ids: pa.Array
    shards: npt.NDArray[np.int32]
    slots: Positions
    unmatched_lines: int
    broken_lines: int

    @property
    def requests(self) -> Positions:
        """The slots that are in use, each once."""
        return np.flatnonzero(self.slots == np.arange(len(self.slots)))

    def custom_id(self, slot: int) -> str:
        """Return a request's custom_id in round 0."""
        own: str = self.custom_ids[slot].as_py()
        return own

    def find(self, custom_ids: pa.Array | pa.ChunkedArray) -> Positions:
        """Return the slots of some custom_ids of round 0; -1 for one that is none."""
        found = pc.index_in(custom_ids, value_set=self.custom_ids).fill_null(-1)
        positions: Positions = found.to_numpy(zero_copy_only=False).astype(np.int64)
        return self.at(positions)

    def at(self, positions: Positions) -> Positions:
        """Return the slots of some lines; -1 for position -1, and for a line without a request."""
        if not len(self.slots):
            return np.full(len(positions), -1)
        return np.where(positions >= 0, self.slots[positions], -1)

    def retried(self, folder: JobFolder, round_: int) -> tuple[pa.Table, Positions]:
        """Return a later round's sidecar lines that repeat these requests, and their slots."""
        table = folder.sidecar(round_, ["answers", *SIDECAR_ID_COLUMNS])
        slots = self.find(table["answers"])
        own = slots >= 0
        return (table, slots) if own.all() else (table.filter(pa.array(own)), slots[own])


def read_results(
    folder: JobFolder,
    output: Output,
    only_round: int | None = None,
    *,
    details: Collection[str] = (),
    sidecar: pa.Table | None = None,
    keep: bool = False,
    values: Kept = "all",
) -> JobResults:
    """Read every response of a job, or of one of its rounds, into a table of its requests.

    Parameters
    ----------
    folder, output : JobFolder, Output
        The job, and how its answers are read.
    only_round : int, optional
        Which round's.
    details : collection of str
        What to keep beside values, statuses and errors (`answers.result_table.DETAILS`).
    sidecar : Table, optional
        The rows of the sidecar that matter, with `SIDECAR_ID_COLUMNS`'s columns at least; by
        default all. Only
        the shards that they name are read, slots are counted among them, and responses to others
        are passed over.
    values : str
        Which values to keep, as `ResultTable` takes it.

    Notes
    -----
    Never raises for what a response holds: a broken line loses only itself.
    """
    # Results are never stored: the raw lines are judged again, so a better parser costs nothing.
    part = sidecar is not None
    keep = keep and not part
    sidecar = folder.sidecar(columns=list(SIDECAR_ID_COLUMNS)) if sidecar is None else sidecar
    # A parser's key must not take the name of a status column: only the answers show its keys.
    output = output.reserving(JobColumns(folder.spec.name).reserved, folder.spec.prefix)
    custom_ids, shards = _whole(sidecar["custom_id"]), sidecar["shard"].to_numpy()
    del sidecar  # the ids were copied: 20 bytes a row less while columns grow
    count = len(custom_ids)
    found = _ResultReader(
        output,
        ResultTable(max(count, 1), output.fields, details, values),
        details,
        ReadCache(folder.spec, output, details) if keep else None,
        only_own=part,
    )
    slots = np.full(count, -1, dtype=np.int64)
    rounds = range(folder.rounds())
    for shard, shard_positions in _by_shard(folder, 0, shards):
        ids = _at(custom_ids, shard_positions)
        # A part may have as many lines as its shard has requests, and some request twice.
        requests = shard.batch.requests if not part and only_round in {None, 0} else None
        slots[shard_positions] = _first_positions(ids, shard_positions, requests)
        if only_round in {None, 0}:
            slots[shard_positions] = found.read(shard, ids, slots[shard_positions])
    whole = JobResults(found.table, custom_ids, shards, slots, 0, 0)
    # In the order of rounds: a row's newest answer replaces the earlier ones.
    for round_ in rounds[1:] if only_round is None else rounds[max(only_round, 1) : only_round + 1]:
        sent, answers = whole.retried(folder, round_)
        found.table.count_retry(answers)
        for shard, shard_positions in _by_shard(folder, round_, sent["shard"].to_numpy()):
            found.read(
                shard, _at(_whole(sent["custom_id"]), shard_positions), answers[shard_positions]
            )
    return replace(whole, unmatched_lines=found.unmatched_lines, broken_lines=found.broken_lines)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    # `concat_arrays` refuses an empty list.
    return pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _at(cells: pa.Array, shard_positions: Positions) -> pa.Array:
    """Return some cells; a slice, which copies nothing, where they lie together."""
    start, end = (int(shard_positions[0]), int(shard_positions[-1]) + 1)
    return (
        cells[start:end]
        if end - start == len(shard_positions)
        else cells.take(pa.array(shard_positions))
    )


def refuse_lost(
    folder: JobFolder,
    round_: int,
    numbers: npt.NDArray[np.int32],
    shards: Iterable[ShardFolder],
) -> None:
    """Refuse a job without a shard that its sidecar names: its rows would pass for unanswered.

    Raises
    ------
    StoreError
        No file of a shard is there.
    """
    lost = np.setdiff1d(numbers, [SKIPPED, *(shard.number for shard in shards)])
    if len(lost):
        raise missing(ShardFolder(folder, round_, int(lost[0])).requests_path)


def _by_shard(
    folder: JobFolder, round_: int, numbers: npt.NDArray[np.int32]
) -> Iterator[tuple[ShardFolder, Positions]]:
    """Yield each shard that some lines of a round's sidecar name, with those lines in order."""
    # A stable sort keeps the sidecar's order within a shard, by which a shared request's first row
    # is found.
    order = None if (numbers[1:] >= numbers[:-1]).all() else np.argsort(numbers, kind="stable")
    ordered = numbers if order is None else numbers[order]
    shards = folder.shards(round_)
    refuse_lost(folder, round_, ordered, shards)
    for shard in shards:
        first, end = np.searchsorted(ordered, [shard.number, shard.number + 1])
        if first < end:
            yield shard, np.arange(first, end) if order is None else order[first:end]


def _first_positions(ids: pa.Array, shard_positions: Positions, requests: int | None) -> Positions:
    """Return each line's slot: the first line of the same custom_id.

    `requests` is how many the shard has, where that is known and these are all of its lines. It
    saves a search where no custom_id repeats; `_ResultReader.read` searches where it was wrong.
    """
    if len(ids) == (len(pc.unique(ids)) if requests is None else requests):
        return shard_positions
    slots: Positions = shard_positions[pc.index_in(ids, value_set=ids).to_numpy()]
    return slots


def order_of(positions: Positions, count: int) -> Positions:
    """Return the order that sorts positions below `count`, -1 among them; equal ones stay."""
    # Mostly each request has one line at most: to note where that is takes a tenth of sorting.
    line_of = np.full(count, -1)
    line_of[positions] = np.arange(len(positions))
    order = line_of[line_of >= 0]
    if len(order) == len(positions) and positions.min() >= 0:
        return order
    return np.argsort(positions, kind="stable")


class _ResultReader:
    """Reads shards into a table."""

    def __init__(
        self,
        output: Output,
        result_table: ResultTable,
        details: Collection[str],
        cache: ReadCache | None = None,
        *,
        only_own: bool = False,
    ) -> None:
        self._only_own = only_own
        self._reader = ResponseReader(output, details)
        self._cache = cache
        self.table = result_table
        self.unmatched_lines = self.broken_lines = 0

    def read(self, shard: ShardFolder, ids: pa.Array, slots: Positions) -> Positions:
        """Read a shard's lines, settle its requests that have none, and return their slots.

        `ids` are its requests' custom_ids and `slots` their slots; where requests are shared, some
        of them more than once.
        """
        kept = None if self._cache is None else self._cache.find(shard, self.table.schema)
        came = self._lines(shard, ids) if kept is None else self.table.add_table(kept)
        # No line at all: perhaps the file is gone, which must not look like rows without an answer.
        if not len(came):
            shard.check_fetched()
        if came.equals(ids):  # as they are kept
            shard_positions = np.arange(len(ids))
        else:
            shard_positions = pc.index_in(came, value_set=ids).fill_null(-1).to_numpy()
        if not (shard_positions[1:] >= shard_positions[:-1]).all():
            # In the order of requests, once for the columns and for what is kept of them; of
            # several lines for one request the first stays the first.
            order = order_of(shard_positions, len(ids))
            self.table.sort_coming(order)
            shard_positions = shard_positions[order]
            whole = np.array_equal(shard_positions, np.arange(len(ids)))
            came = ids if whole else came.take(pa.array(order))
        if self._cache is not None and kept is None and len(came):
            self._cache.keep(shard, lambda: self.table.coming(came))
        own = np.where(shard_positions >= 0, slots[shard_positions], -1)
        self.table.assign(own, shard.round)
        # The pool keeps what a shard took twice, and would keep as much again of each shard.
        pa.default_memory_pool().release_unused()
        self.broken_lines += came.null_count
        self.unmatched_lines += int((own < 0).sum()) - came.null_count
        heard = np.zeros(self.table.slots, dtype=np.bool_)
        heard[own[own >= 0]] = True
        if shard.round == 0 and not heard[slots].all():
            # No row is decided by a batch's count: where a wrong one gave a shared request's rows
            # slots of their own, the answer is in the first one's.
            slots = slots[pc.index_in(ids, value_set=ids).to_numpy()]
        if not heard[slots].all():
            _settle_rest(shard, ids, slots, heard, self.table, came.null_count)
        return slots

    def _lines(self, shard: ShardFolder, own_ids: pa.Array) -> pa.Array:
        """Add a shard's lines to the table and return the custom_id of each."""
        ids = [pa.array([], own_ids.type)]
        # Small parts of a frame share a shard: the answers to the other parts' rows are passed
        # over before they are judged.
        wanted = frozenset(own_ids.to_pylist()) if self._only_own else None
        for chunk in whole_lines(shard.open_responses()):
            with _collector_paused():
                block = self._reader.read(chunk, wanted)
                self.table.add(block)
                ids.append(pa.array(block.ids, own_ids.type))
        return pa.concat_arrays(ids)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's cycle collector, which would walk short-lived objects in vain."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _settle_rest(
    shard: ShardFolder,
    ids: pa.Array,
    slots: Positions,
    heard: npt.NDArray[np.bool_],
    result_table: ResultTable,
    broken_lines: int,
) -> None:
    """Set the status of rows without a line: pending while the batch runs, else by its end."""
    batch = shard.batch
    # A request that validation refused has a reason of its own, so it comes before the batch's.
    shard_positions = pc.index_in(
        pa.array([r.custom_id for r in batch.rejected], ids.type), value_set=ids
    )
    code = _REFUSED_BY_VALIDATION
    refused = [
        (slots[position], Result(r.custom_id, RowStatus.FAILED, None, r.message, status_code=code))
        for position, r in zip(shard_positions.to_pylist(), batch.rejected, strict=True)
        if position is not None and not heard[slots[position]]
    ]
    if refused:
        own, results = zip(*refused, strict=True)
        result_table.add_results(np.array(own), results, shard.round)
        heard[list(own)] = True
    # Rows that share a request share its slot, which is set once.
    rest = np.unique(slots[~heard[slots]])
    if not batch.settled:
        result_table.set_status(rest, RowStatus.PENDING, None, shard.round)
        return
    status, reason = _SETTLED[BatchStatus(batch.status)]
    result_table.set_status(rest, status, reason + _more(batch, broken_lines), shard.round)


def _more(batch: Batch, broken_lines: int) -> str:
    # Two are enough for a cell: a failed batch may list an error for each of its lines.
    said = [f"{e.code or 'error'}: {e.message or 'no message'}" for e in batch.errors[:2]]
    broken = [f"{broken_lines} line(s) of its responses could not be read"] if broken_lines else []
    short = [] if batch.short is None else [batch.short]
    return "".join(f"; {text}" for text in [*short, *said, *broken])
