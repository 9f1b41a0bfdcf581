"""Read tables that are not pandas' through Arrow: small ones whole, larger ones in parts."""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.errors import InputError
from frameenrich.rendering.column_cells import arrow_cells

STREAM_BYTES = 256_000_000
"""A table of more bytes is read in parts."""

_PART_ROWS = 50_000
_PART_BYTES = 32_000_000
_MEASURED_ROWS = 1_000
_EXACT = 2**53
"""Whole numbers up to here survive as floats, which pandas makes of a column with nulls."""


def to_frame(table: Any) -> pd.DataFrame:
    """Return a table's rows as ``pd.read_csv`` would give them."""
    arrow = _to_table(table)
    # Pandas metadata could restore an index or extension dtypes, so cells would print otherwise.
    frame: pd.DataFrame = arrow.to_pandas(ignore_metadata=True)
    for name, column in zip(arrow.column_names, arrow.columns, strict=True):
        if pa.types.is_integer(column.type) and column.null_count and _is_long(column):
            # As floats, long ids beside a null would lose digits.
            frame[name] = column.to_pandas(types_mapper=_nullable)
        elif pa.types.is_interval(column.type):  # pandas' DateOffset prints as Python code
            frame[name] = pd.Series([_span(v) for v in column.to_pylist()], dtype=object)
        elif pa.types.is_nested(column.type):
            # As Arrow has them: NumPy's arrays would lose the digits of long numbers beside nulls.
            frame[name] = pd.Series(arrow_cells(column), dtype=object)
    return frame


def is_table(table: Any) -> bool:
    """Tell whether `read_table` can read a table."""
    polars = polars_of(table)
    return polars is not None or hasattr(table, "__arrow_c_stream__")


def polars_of(table: Any) -> Any:
    """Return the module ``polars`` where the table is one of its own, without importing it."""
    # Whoever has a Polars table has imported Polars already.
    polars = sys.modules.get("polars")
    ours = polars is not None and isinstance(table, (polars.DataFrame, polars.LazyFrame))
    return polars if ours else None


def is_lazy(table: Any) -> bool:
    """Tell whether a table is a LazyFrame of Polars."""
    polars = polars_of(table)
    return polars is not None and isinstance(table, polars.LazyFrame)


def _span(value: pa.MonthDayNano | None) -> pd.Timedelta | str | None:
    """Return an interval as pandas' own kind; one with months, which have no length, as ISO 8601.

    Examples
    --------
    >>> _span(pa.MonthDayNano([0, 1, 500])), _span(pa.MonthDayNano([14, 1, 0]))
    (Timedelta('1 days 00:00:00.000000500'), 'P14M1D')
    """
    if value is None:
        return None
    rest = pd.Timedelta(days=value.days) + pd.Timedelta(value.nanoseconds, unit="ns")
    if not value.months:
        return rest
    clock = f"T{value.nanoseconds / 1e9:g}S" if value.nanoseconds else ""
    return f"P{value.months}M{value.days}D{clock}"


def _to_table(part: Any) -> pa.Table:
    if isinstance(part, pa.Table):
        return part
    polars = polars_of(part)
    if polars is None:
        return pa.table(part)
    for name, kind in part.schema.items():
        # Of objects Polars gives Arrow their addresses in memory, of 128 bits nothing it can read.
        if kind in {polars.Object, *(getattr(polars, n, None) for n in ("Int128", "UInt128"))}:
            raise InputError(
                f"The column {name!r} is of Polars' type {kind}, which no other library reads.",
                f"Cast it to text: table.with_columns(pl.col({str(name)!r}).cast(pl.String)); "
                "objects by .map_elements(str, return_dtype=pl.String).",
                columns=[name],
            )
    return part.to_arrow()


def _is_long(column: pa.ChunkedArray) -> bool:
    ends = pc.min_max(column).as_py()
    return ends["min"] is not None and max(-ends["min"], ends["max"]) > _EXACT


def _nullable(kind: pa.DataType) -> Any:
    return pd.UInt64Dtype() if pa.types.is_unsigned_integer(kind) else pd.Int64Dtype()


# --- larger than memory -------------------------------------------------------------------------


@dataclass
class TableStream:
    """A table in parts of some rows, each a Polars frame or an Arrow table.

    Parameters
    ----------
    table : as `submit` takes it
        The whole table.
    columns : list of str
        Its columns.
    head : deque
        The batches that were read to measure the table.
    rest : iterator
        The batches after these.
    schema : Schema
        The columns' types.
    """

    table: Any
    columns: list[str]
    head: deque[Any]
    rest: Iterator[Any]
    schema: pa.Schema
    _used: bool = field(default=False, init=False)

    @cached_property
    def first(self) -> pd.DataFrame:
        """The first part, as a pandas frame."""
        return to_frame(next(_cut(iter(self.head))))

    def parts(self) -> Iterator[Any]:
        """Yield all rows in order, cut into the same parts every time.

        Raises
        ------
        InputError
            The table is a reader that was read before.
        """
        self.first  # noqa: B018 - cache it now: reading the parts empties the head
        if not self._used:
            self._used = True
            return _cut(itertools.chain(_drained(self.head), self.rest))
        if isinstance(self.table, pa.RecordBatchReader):
            raise InputError(
                "The RecordBatchReader was read to its end, and can be read once only.",
                "Open a new one.",
            )
        return _cut(_batches(self.table)[1])


def read_table(table: Any) -> Any:
    """Read a small table whole, and of a larger one no more than `STREAM_BYTES`."""
    # Measured by reading: a stream or a lazy frame does not know its size beforehand.
    columns, batches = _batches(table)
    head: deque[Any] = deque()
    size = 0
    for batch in batches:
        head.append(batch)
        size += _bytes_of(batch)
        if size > STREAM_BYTES:
            schema = _to_table(head[0].slice(0, 0)).schema
            return TableStream(table, columns, head, batches, schema)
    return _joined(list(head))


def _batches(table: Any) -> tuple[list[str], Iterator[Any]]:
    """Return a table's columns and its batches; at least one, which has the types."""
    polars = polars_of(table)
    if is_lazy(table):
        schema = table.collect_schema()
        if not hasattr(table, "collect_batches"):  # Polars before 1.34
            return schema.names(), iter([table.collect()])
        empty = polars.DataFrame(schema=schema)
        # Rows are named by their position in the job, so a second read has to give the same order.
        rows = table.collect_batches(chunk_size=_PART_ROWS, maintain_order=True)
        return schema.names(), itertools.chain([empty], rows)
    if polars is not None or isinstance(table, pa.Table):
        return list(table.schema.names() if polars else table.column_names), iter([table])
    reader = table if isinstance(table, pa.RecordBatchReader) else _reader_of(table)
    empty = reader.schema.empty_table()
    tables = (pa.Table.from_batches([batch], reader.schema) for batch in reader)
    return list(reader.schema.names), itertools.chain([empty], tables)


def _reader_of(table: Any) -> pa.RecordBatchReader:
    try:
        return pa.RecordBatchReader.from_stream(table)
    except pa.ArrowInvalid:
        raise InputError(
            f"A {type(table).__name__} is not a table: it has no columns with names.",
            "Give a pandas, Polars, DuckDB or pyarrow table.",
        ) from None


def _cut(batches: Iterator[Any]) -> Iterator[Any]:
    """Cut batches into parts of the same number of rows, whatever sizes they come in.

    A part's number says where its rows are in the job, so the cuts must not depend on how a library
    cuts its batches. How wide rows are shows in the first of them.
    """
    held: list[Any] = []
    have = rows = 0
    for batch in batches:
        if not len(batch):
            continue
        if not rows:
            # Bounded in bytes, too: a part of wide rows is rendered in memory as a whole.
            sample = batch.slice(0, _MEASURED_ROWS)
            width = max(1, _bytes_of(sample) // len(sample))
            rows = max(1, min(_PART_ROWS, _PART_BYTES // width))
        held.append(batch)
        have += len(batch)
        while have >= rows:
            whole = _joined(held)
            yield whole.slice(0, rows)
            held, have = [whole.slice(rows)], have - rows
    if have:
        yield _joined(held)


def _joined(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    polars = polars_of(parts[0])
    return pa.concat_tables(parts) if polars is None else polars.concat(parts, rechunk=False)


def _bytes_of(part: Any) -> int:
    return int(part.nbytes if isinstance(part, pa.Table) else part.estimated_size())


def _drained(held: deque[Any]) -> Iterator[Any]:
    """Yield the batches and drop each, so that memory holds one at a time."""
    while held:
        yield held.popleft()
