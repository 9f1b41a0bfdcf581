"""``frameenrich.submit`` and ``collect``: jobs of tables that are not pandas', through Arrow.

A table becomes the frame that ``pd.read_csv`` would have made of it, so that one job of one table
has one id whatever holds it; there is no second way to render or to collect.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.accessor import LLMBatch
from frameenrich.errors import InputError
from frameenrich.rendering.template_source import Template
from frameenrich.verbs.job import Job
from frameenrich.verbs.signatures import takes_options_of

_EXACT = 2**53
"""Whole numbers up to here are the same as floats, which pandas makes of them beside nulls."""


@takes_options_of(LLMBatch.submit)
def submit(
    table: Any, template: Template, model: str, *, key: str | Sequence[str], **options: Any
) -> Job:
    """Render each row of a table to a request and send them as a batch job.

    Parameters
    ----------
    table : Polars DataFrame or LazyFrame, DuckDB relation, pyarrow Table or RecordBatchReader
        Or whatever else has ``__arrow_c_stream__``. It is read into memory whole.
    key : str or list of str
        The column(s) that name a row: such tables have no index.
    template, model, **options
        As ``df.llmbatch.submit`` takes them.

    Returns
    -------
    Job
        The one that ``df.llmbatch.submit`` makes of the same rows in pandas.

    Examples
    --------
    >>> import tempfile
    >>> table = pa.table({"sku": ["A1", "A2"], "title": ["Red mug", "Blue hose"]})
    >>> store = tempfile.mkdtemp()
    >>> job = submit(
    ...     table, "Colour of {{ title }}?", "m", key="sku", provider="file", store=store
    ... )
    >>> collect(table, job)["llmbatch_status"].to_pylist()
    ['pending', 'pending']
    """
    return LLMBatch(to_frame(table)).submit(template, model, **{**options, "key": key})


@takes_options_of(LLMBatch.collect)
def collect(table: Any, job: Job | str | None = None, **options: Any) -> Any:
    """Return the table with the answers as new columns.

    Parameters
    ----------
    table : as `submit` takes it
        A DuckDB relation runs again; of a reader, open a new one.
    job, **options
        As ``df.llmbatch.collect`` takes them.

    Returns
    -------
    table
        Of the same kind, its other columns as they were; a pyarrow table for a DuckDB relation.
    """
    if isinstance(table, pd.DataFrame):
        return LLMBatch(table).collect(job, **options)
    held = _held(table)
    frame = to_frame(held)
    answers = LLMBatch(frame).collect(job, **options)
    new = [c for c in answers if c not in frame or not answers[c].equals(frame[c])]
    return _with_columns(table, held, pa.table({str(c): to_arrow(answers[c]) for c in new}))


def to_frame(table: Any) -> pd.DataFrame:
    """Return a table's rows as ``pd.read_csv`` would have given them.

    Raises
    ------
    InputError
        It is no table.
    """
    if isinstance(table, pd.DataFrame):
        return table
    arrow = pa.table(_held(table))
    frame: pd.DataFrame = arrow.to_pandas(ignore_metadata=True)
    for name, column in zip(arrow.column_names, arrow.columns, strict=True):
        if pa.types.is_integer(column.type) and column.null_count and _is_long(column):
            frame[name] = column.to_pandas(types_mapper=_nullable)
    return frame


def to_arrow(column: pd.Series) -> pa.Array:
    """Return a column's cells; as JSON text where they are of kinds that no Arrow column holds."""
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        empty = [
            cell is None or (pd.api.types.is_scalar(cell) and pd.isna(cell)) for cell in column
        ]
        texts = zip(column, empty, strict=True)
        return pa.array([None if no else json.dumps(cell, default=str) for cell, no in texts])


def _held(table: Any) -> Any:
    """A table whose rows can be read more than once; a LazyFrame is collected."""
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(table, polars.LazyFrame):
        return table.collect()
    if isinstance(table, pa.Table) or (polars and isinstance(table, polars.DataFrame)):
        return table
    if not hasattr(table, "__arrow_c_stream__"):
        raise InputError(
            f"A {type(table).__name__} is no table: it has no __arrow_c_stream__.",
            "Give a pandas, Polars, DuckDB or pyarrow table.",
        )
    return pa.table(table)


def _with_columns(table: Any, held: Any, new: pa.Table) -> Any:
    """The table with these columns, of the kind that it was."""
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(held, polars.DataFrame):
        both = held.with_columns(polars.from_arrow(new).get_columns())
        return both.lazy() if isinstance(table, polars.LazyFrame) else both
    for name, column in zip(new.column_names, new.columns, strict=True):
        place = held.schema.get_field_index(name)
        added = place < 0
        held = held.append_column(name, column) if added else held.set_column(place, name, column)
    return held.to_reader() if isinstance(table, pa.RecordBatchReader) else held


def _is_long(column: pa.ChunkedArray) -> bool:
    ends = pc.min_max(column).as_py()
    return ends["min"] is not None and max(-ends["min"], ends["max"]) > _EXACT


def _nullable(kind: pa.DataType) -> Any:
    return pd.UInt64Dtype() if pa.types.is_unsigned_integer(kind) else pd.Int64Dtype()
