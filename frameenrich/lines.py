"""Which lines of a job's sidecar some rows have, found without having all of it in memory."""

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

from frameenrich.column import Positions
from frameenrich.gather import frame_keys
from frameenrich.keys import find_keys, sidecar_keys
from frameenrich.store import JobFolder


def find_lines(folder: JobFolder, frame: pd.DataFrame, part: int | None = None) -> pa.Table:
    """The lines of a job's sidecar that are about a frame's rows, in the sidecar's order.

    Parameters
    ----------
    folder : JobFolder
        The job.
    frame : DataFrame
        Some rows; those that the job never saw have no line.
    part : int, optional
        Where the rows most likely are: the lines of this part are looked at first, the others only
        for keys that are not there.
    """
    found = [folder.schema.empty_table()]
    keys = frame_keys(frame, folder.spec, sidecar_keys(found[0]).column_names)
    if keys is None:
        return found[0]
    left = np.arange(len(keys))
    with folder.reading_sidecar() as file:
        span = _span(keys)
        for groups in _order(file, folder.part_rows, part):
            if not len(left):
                break
            if not _may_hold(file, groups, span):
                continue
            lines, left = _lines_in(file, groups, keys, left)
            found.append(lines)
    return pa.concat_tables(found)


def _order(file: pq.ParquetFile, part_rows: Sequence[int], part: int | None) -> Iterator[list[int]]:
    """The row groups of a part together, then the others one by one."""
    rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    first = _groups_of(rows, part_rows, part) if part is not None and part < len(part_rows) else []
    if first:
        yield first
    yield from ([i] for i in range(len(rows)) if i not in first)


def _groups_of(rows: Sequence[int], part_rows: Sequence[int], part: int) -> list[int]:
    """The row groups, of so many rows each, that the lines of a part are in."""
    starts, start = np.cumsum([0, *rows]), sum(part_rows[:part])
    end = start + part_rows[part]
    return [i for i in range(len(rows)) if starts[i] < end and starts[i + 1] > start]


def pieces(folder: JobFolder) -> Iterator[pa.Table | None]:
    """The lines of a job's sidecar, a part's at a time; None, for all, where it has no parts."""
    if not folder.part_rows:
        yield None
        return
    with folder.reading_sidecar() as file:
        rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    for part in range(len(folder.part_rows)):
        with folder.reading_sidecar() as file:
            yield file.read_row_groups(
                _groups_of(rows, folder.part_rows, part), ["custom_id", "shard"]
            )


@dataclass(frozen=True)
class _Span:
    """The least and the greatest of what keys begin with; None where that has no plain order."""

    kind: pa.DataType
    least: Any
    greatest: Any


def _span(keys: pa.Table) -> _Span | None:
    first = keys.column(0)
    if not (pa.types.is_integer(first.type) or pa.types.is_string(first.type)):
        return None
    found = pc.min_max(first).as_py()
    return _Span(first.type, found["min"], found["max"]) if found["min"] is not None else None


def _may_hold(file: pq.ParquetFile, groups: Sequence[int], span: _Span | None) -> bool:
    """Whether the statistics of some row groups leave it open that they have some of the keys."""
    if span is None or file.schema_arrow.types[0] != span.kind:
        return True
    for group in groups:
        told = file.metadata.row_group(group).column(0).statistics
        if told is None or not told.has_min_max:
            return True
        if told.min <= span.greatest and told.max >= span.least:
            return True
    return False


def _lines_in(
    file: pq.ParquetFile, groups: list[int], keys: pa.Table, left: Positions
) -> tuple[pa.Table, Positions]:
    """The lines of some row groups that have some of the keys, and which keys are left."""
    known = file.read_row_groups(groups, keys.column_names)
    wanted = keys if len(left) == len(keys) else keys.take(pa.array(left))
    places = find_keys(wanted, known)
    used = np.unique(places[places >= 0])
    if not len(used):
        return file.schema_arrow.empty_table(), left
    lines = file.read_row_groups(groups)
    if len(used) < len(lines):
        lines = lines.take(pa.array(used))
    return lines, left[places < 0]


def count_shares(folder: JobFolder, lines: pa.Table) -> npt.NDArray[np.int64]:
    """How many rows of the whole job share the request of each of some lines; at least 1."""
    ids = pc.unique(lines["custom_id"]).drop_null()
    counts = np.zeros(len(ids) + 1, np.int64)
    with folder.reading_sidecar() as file:
        for group in _with_shards(file, lines["shard"].to_numpy()):
            column = file.read_row_group(group, ["custom_id"])["custom_id"]
            counts += _counted(column, ids)
    own = pc.index_in(lines["custom_id"], value_set=ids).fill_null(len(ids))
    shares: npt.NDArray[np.int64] = np.maximum(counts[own.to_numpy()], 1)
    return shares


def _counted(column: pa.ChunkedArray, ids: pa.Array) -> npt.NDArray[np.int64]:
    places = pc.index_in(column, value_set=ids).fill_null(len(ids))
    counts: npt.NDArray[np.int64] = np.bincount(places.to_numpy(), minlength=len(ids) + 1)
    return counts


def _with_shards(file: pq.ParquetFile, shards: npt.NDArray[np.int32]) -> Iterator[int]:
    """The row groups in which there may be one of some shards."""
    place = file.schema_arrow.get_field_index("shard")
    for group in range(file.num_row_groups):
        told = file.metadata.row_group(group).column(place).statistics
        known = told is not None and told.has_min_max
        if not known or bool(((shards >= told.min) & (shards <= told.max)).any()):
            yield group
