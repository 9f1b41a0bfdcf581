"""Match the rows of a frame with the rows of a job's sidecar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from frameenrich.answers.arrow_column import Positions
from frameenrich.errors import FrameMismatchError, ImageError, TemplateError
from frameenrich.identity.fingerprint import fingerprint
from frameenrich.identity.keys import find_keys, key_names, read_keys, show_key, sidecar_keys
from frameenrich.lifecycle.dtype_drift import find_drift
from frameenrich.model import HASHES, JobSpec
from frameenrich.rendering.encode_rows import input_hashes
from frameenrich.rendering.images import image_cells
from frameenrich.rendering.prompt import prompt_of
from frameenrich.store.folder import JobFolder
from frameenrich.store.sidecar import FINGERPRINT

_EXAMPLES = 5
"""Number of changed rows that are compared with what they printed, cell by cell."""


_READ = (2, HASHES)
"""Versions of hashes that a frame can be compared with."""


@dataclass(frozen=True)
class Match:
    """The positions of a frame's rows in a job's sidecar, -1 for rows that it never saw."""

    positions: Positions
    changed: Positions
    keys: pa.Table

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """A mask of the rows that the job has seen."""
        return self.positions >= 0


def match_frame(frame: pd.DataFrame, folder: JobFolder, sidecar: pa.Table) -> Match | None:
    """Find a frame's rows in a job and compare their texts and images with those submitted.

    Returns
    -------
    Match or None
        None where the frame lacks the job's key, template or image columns, or the job's hashes
        were made in another way.
    """
    spec = folder.spec
    keys = frame_keys(frame, spec, sidecar_keys(sidecar).column_names)
    # Other versions' hashes cannot be made here: nothing could prove that rows are the same.
    if keys is None or spec.version not in _READ:
        return None
    positions = find_keys(keys, sidecar.select(keys.column_names))
    # The unchanged frame needs no rendering: the sidecar has a fingerprint of the columns in use,
    # where these are text, numbers or booleans. Any difference, be it a dtype, is rendered.
    if _as_submitted(frame, spec, sidecar, positions):
        return Match(positions, positions[:0], keys)
    # Rows that the job never saw are no mismatch; their answers stay null.
    seen = np.flatnonzero(positions >= 0)
    then = sidecar["input_hash"].take(pa.array(positions[seen]))
    now = _hashes(frame if len(seen) == len(frame) else frame.iloc[seen], spec, then.type)
    if now is None:
        return None
    shard = sidecar["shard"].take(pa.array(positions[seen]))
    # A skipped row's hash means nothing; null is what a row that is skipped now has.
    then = pc.if_else(pc.less(shard, 0), pa.scalar(None, then.type), then)
    same = pc.fill_null(pc.equal(now, then), False)
    both_skipped = pc.and_(pc.is_null(now), pc.is_null(then))
    changed = ~np.asarray(pc.or_(same, both_skipped))
    return Match(positions, seen[changed], keys)


def frame_keys(frame: pd.DataFrame, spec: JobSpec, own: Sequence[str]) -> pa.Table | None:
    """Read a frame's keys; None where they are not the job's `own` key columns."""
    if spec.key is not None and any(name not in frame.columns for name in spec.key):
        return None
    keys = read_keys(frame, spec.key)
    return keys if keys.column_names == list(own) else None


def _as_submitted(
    frame: pd.DataFrame, spec: JobSpec, sidecar: pa.Table, positions: Positions
) -> bool:
    """Tell without rendering whether this is the submitted frame, row for row."""
    then = (sidecar.schema.metadata or {}).get(FINGERPRINT.encode())
    # The fingerprint is of all rows in order, so a sorted or filtered frame is rendered.
    if then is None or not np.array_equal(positions, np.arange(len(sidecar))):
        return False
    try:
        columns = prompt_of(spec).columns_used(list(frame.columns))
    except TemplateError:
        return False
    return fingerprint(frame, columns, spec.version) == str(then, "ascii", "replace")


def _hashes(frame: pd.DataFrame, spec: JobSpec, kind: pa.DataType) -> pa.Array | None:
    if not spec.messages:  # the requests came ready: their custom_ids are all that names them
        return pa.nulls(len(frame), kind)
    try:
        return input_hashes(frame, spec)
    except (TemplateError, ImageError):
        return None


def require_match(match: Match | None, frame: pd.DataFrame, folder: JobFolder) -> Match:
    """Return the match if it is safe to merge.

    Raises
    ------
    FrameMismatchError
        The frame lacks columns, none of its rows is in the job, or rows changed under their keys.
    """
    match = require_unchanged(match, frame, folder)
    if len(frame) and not match.seen.any():
        names = ", ".join(map(repr, key_names(frame, folder.spec.key)))
        raise FrameMismatchError(
            f"None of the frame's {len(frame)} keys ({names}) is in the job {folder.id}.",
            "Collect on the frame that was submitted, or use job.collect() without a frame.",
            job_id=folder.id,
        )
    return match


def require_unchanged(match: Match | None, frame: pd.DataFrame, folder: JobFolder) -> Match:
    """Return the match if each row is unchanged, or unknown to the job.

    Raises
    ------
    FrameMismatchError
        The frame lacks columns, rows changed under their keys, or the job is of an earlier version.
    """
    if match is None and folder.spec.version not in _READ:
        raise FrameMismatchError(
            f"The job {folder.id} was written by another version of frameenrich, whose hashes "
            "cannot be compared with this frame's rows.",
            "Use job.collect() without a frame, and join what it gives by its key.",
            job_id=folder.id,
        )
    if match is None:
        names = ", ".join(map(repr, key_names(frame, folder.spec.key)))
        raise FrameMismatchError(
            f"The frame lacks the key {names} or a template column of the job {folder.id}, so "
            "nothing shows that its rows are the same.",
            "Collect on the frame that was submitted, or use job.collect() without a frame.",
            job_id=folder.id,
        )
    if len(match.changed):
        _raise_of_dtypes(match, frame, folder)
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


def _raise_of_dtypes(match: Match, frame: pd.DataFrame, folder: JobFolder) -> None:
    """Raise an error that says so where the changed rows differ in a column's dtype alone."""
    # A few rows show it: a dtype drifts in a whole column.
    rows = match.changed[:_EXAMPLES]
    # Read anew, as a match is made with few of the sidecar's columns.
    lines = find_sidecar_rows(folder, frame.iloc[rows])
    own = find_keys(match.keys.take(pa.array(rows)), sidecar_keys(lines))
    drift = find_drift(frame, rows.tolist(), lines.take(pa.array(own)), folder)
    if drift is None:
        return
    example = show_key(match.keys, int(rows[0]))
    raise FrameMismatchError(
        f"{len(match.changed)} of the frame's rows differ from those of the job {folder.id} in "
        f"dtype only, such as row {example}: column {drift.column!r} printed {drift.then!r}, and "
        f"now prints {drift.now!r}.",
        f"{drift.fix}, or submit the frame as it is now.",
        job_id=folder.id,
        count=len(match.changed),
        example=example,
        columns=[drift.column],
    )


def _lost_image(frame: pd.DataFrame, position: int, spec: JobSpec) -> str:
    """Describe what is wrong with a row's image now, to end a sentence; empty if nothing is."""
    # A picture that was moved changes its row as an edited text does, and is harder to see.
    cells = image_cells(frame.iloc[[position]], spec)
    problem = cells.problem(0) if cells is not None else None
    if problem is None:
        return ""
    reason = problem.removeprefix("The row at position 0 ").rstrip(".")
    return f", which {reason}"


def find_sidecar_rows(folder: JobFolder, frame: pd.DataFrame, part: int | None = None) -> pa.Table:
    """Return the sidecar's lines for a frame's rows, in the sidecar's order.

    Parameters
    ----------
    folder : JobFolder
        The job.
    frame : DataFrame
        Some rows; those that the job never saw have no line.
    part : int, optional
        Where the rows most likely are: the lines of this part are searched first, the others only
        for keys that are not there.
    """
    found = [folder.facts.schema.empty_table()]
    keys = frame_keys(frame, folder.spec, sidecar_keys(found[0]).column_names)
    if keys is None:
        return found[0]
    left = np.arange(len(keys))
    with folder.reading_sidecar() as file:
        span = _span(keys)
        # The part's own row groups come first: mostly they have all its rows, and the rest stays
        # unread.
        for groups in _order(file, folder.facts.part_rows, part):
            if not len(left):
                break
            if not _may_contain(file, groups, span):
                continue
            rows, left = _rows_in(file, groups, keys, left)
            found.append(rows)
    return pa.concat_tables(found)


def _order(file: pq.ParquetFile, part_rows: Sequence[int], part: int | None) -> Iterator[list[int]]:
    """Yield the row groups of a part together, then the others one by one."""
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    first = _groups_of(rows, part_rows, part) if part is not None and part < len(part_rows) else []
    if first:
        yield first
    yield from ([i] for i in range(len(rows)) if i not in first)


def _groups_of(rows: Sequence[int], part_rows: Sequence[int], part: int) -> list[int]:
    """Return the row groups, of so many rows each, that the lines of a part are in."""
    starts, start = np.cumsum([0, *rows]), sum(part_rows[:part])
    end = start + part_rows[part]
    return [i for i in range(len(rows)) if starts[i] < end and starts[i + 1] > start]


@dataclass(frozen=True)
class _Span:
    """The least and the greatest value of the first key column."""

    kind: pa.DataType
    least: Any
    greatest: Any


def _span(keys: pa.Table) -> _Span | None:
    first = keys.column(0)
    # Of these Parquet and Python order values alike; floats have NaN, and times units and zones.
    if not (pa.types.is_integer(first.type) or pa.types.is_string(first.type)):
        return None
    found = pc.min_max(first).as_py()
    return _Span(first.type, found["min"], found["max"]) if found["min"] is not None else None


def _may_contain(file: pq.ParquetFile, groups: Sequence[int], span: _Span | None) -> bool:
    """Tell whether some row groups may have some of the keys, by their statistics."""
    # Values of two types have no common order, so the statistics say nothing.
    if span is None or file.schema_arrow.types[0] != span.kind:
        return True
    for group in groups:
        group_statistics = file.metadata.row_group(group).column(0).statistics
        # Statistics are optional in Parquet: without them the group has to be read.
        if group_statistics is None or not group_statistics.has_min_max:
            return True
        if group_statistics.min <= span.greatest and group_statistics.max >= span.least:
            return True
    return False


def _rows_in(
    file: pq.ParquetFile, groups: list[int], keys: pa.Table, left: Positions
) -> tuple[pa.Table, Positions]:
    """Return the rows of some row groups that have some of the keys, and which keys are left."""
    known = file.read_row_groups(groups, keys.column_names)
    wanted = keys if len(left) == len(keys) else keys.take(pa.array(left))
    found_at = find_keys(wanted, known)
    used = np.unique(found_at[found_at >= 0])
    if not len(used):
        return file.schema_arrow.empty_table(), left
    # The keys were read alone first: most row groups have none, and their other columns stay
    # unread.
    rows = file.read_row_groups(groups)
    if len(used) < len(rows):
        rows = rows.take(pa.array(used))
    return rows, left[found_at < 0]


def rows_per_request(folder: JobFolder, sidecar: pa.Table) -> npt.NDArray[np.int64]:
    """Count the rows of the whole job that share each row's request; at least 1."""
    # Counted over the whole job: rows of other parts may share these requests, and their cost.
    ids = pc.unique(sidecar["custom_id"]).drop_null()
    counts = np.zeros(len(ids) + 1, np.int64)
    with folder.reading_sidecar() as file:
        for group in _with_shards(file, sidecar["shard"].to_numpy()):
            column = file.read_row_group(group, ["custom_id"])["custom_id"]
            counts += _counted(column, ids)
    own = pc.index_in(sidecar["custom_id"], value_set=ids).fill_null(len(ids))
    # At least 1: costs are divided by it, and a skipped row has no request.
    shares: npt.NDArray[np.int64] = np.maximum(counts[own.to_numpy()], 1)
    return shares


def _counted(column: pa.ChunkedArray, ids: pa.Array) -> npt.NDArray[np.int64]:
    found_at = pc.index_in(column, value_set=ids).fill_null(len(ids))
    counts: npt.NDArray[np.int64] = np.bincount(found_at.to_numpy(), minlength=len(ids) + 1)
    return counts


def _with_shards(file: pq.ParquetFile, shards: npt.NDArray[np.int32]) -> Iterator[int]:
    """Yield the row groups in which there may be one of some shards."""
    column_index = file.schema_arrow.get_field_index("shard")
    for group in range(file.num_row_groups):
        group_statistics = file.metadata.row_group(group).column(column_index).statistics
        known = group_statistics is not None and group_statistics.has_min_max
        if not known or bool(
            ((shards >= group_statistics.min) & (shards <= group_statistics.max)).any()
        ):
            yield group
