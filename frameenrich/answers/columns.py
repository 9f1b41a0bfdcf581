"""Results to columns: one slot a request, filled in any order, taken in the frame's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from frameenrich.answers.arrow_column import Positions
from frameenrich.answers.column_names import (
    JobColumns,
    asks_confidence,
    column_name,
    has_confidence,
)
from frameenrich.answers.fields import Field, flattened
from frameenrich.answers.result_table import STATUSES, USAGE, ResultTable
from frameenrich.model import JobSpec, RowStatus

_DTYPES = {
    "string": "string",
    "integer": "Int64",
    "number": "Float64",
    "boolean": "boolean",
    "json": "string",
}


def details_needed(spec: JobSpec, *, usage: bool) -> list[str]:
    """Return the details that a result table has to keep for these columns."""
    sure = ["confidence"] if asks_confidence(spec) else []
    several = spec.output.samples > 1
    sure += ["agreement"] if several else []
    votes = ["votes"] if several else []
    return [*USAGE, "repaired", "reasoning", *votes, "raw", *sure] if usage else sure


LONG_DETAILS = frozenset({"raw", "reasoning", "votes", "model", "finish_reason"})
"""Details that are looked at one row at a time; nothing is counted or drawn of them."""


def result_columns(
    result_table: ResultTable,
    slots: Positions,
    seen: npt.NDArray[np.bool_],
    spec: JobSpec,
    *,
    usage: bool = False,
    custom_ids: pa.Array | None = None,
    flatten: bool = False,
) -> dict[str, pd.Series]:
    """Return the output columns of a frame's rows.

    Parameters
    ----------
    result_table : ResultTable
        What is known of each request.
    slots : int64 array
        Each row's slot; -1 for a row without a request.
    seen : bool array
        Whether the job has ever seen the row; others get ``<NA>`` everywhere. A row seen that has
        no slot was skipped.
    usage : bool
        Whether the columns of ``usage=True`` are wanted.
    custom_ids : Array, optional
        Each slot's custom_id, where its column is wanted among those.
    flatten : bool
        Whether nested objects become columns of their own.

    Returns
    -------
    dict of str to Series
        In the order in which they go into the frame, with a plain ``RangeIndex``.
    """
    pairs = _value_columns(result_table, slots, spec, flatten)
    JobColumns(spec.name).check_made([name for name, _ in pairs])
    columns = dict(pairs)
    if has_confidence(spec, result_table.fields):
        columns[f"{spec.name}_confidence"] = _series(
            result_table.column("confidence", slots), "Float64"
        )
    if spec.output.samples > 1:
        columns[f"{spec.name}_agreement"] = _series(
            result_table.column("agreement", slots), "Float64"
        )
    columns[f"{spec.name}_status"] = statuses_of(result_table, slots, seen)
    columns[f"{spec.name}_error"] = _series(result_table.column("error", slots), "string")
    if usage:
        columns |= _usage_columns(result_table, slots, custom_ids, spec.name)
        if spec.output.samples > 1 and "votes" in result_table.details:
            columns[f"{spec.name}_votes"] = _series(result_table.column("votes", slots), "string")
    return columns


def _series(cells: pa.Array, dtype: str) -> pd.Series:
    """Return an Arrow column as one of pandas' own nullable types."""
    # pandas' protocol for Arrow data: the values never become Python objects.
    kind: Any = pd.api.types.pandas_dtype(dtype)
    return pd.Series(kind.__from_arrow__(cells))


def to_text(cells: pa.Array | pa.ChunkedArray) -> pd.Series:
    """Return texts of Arrow's as pandas' own, none of them twice in memory."""
    return _series(cells, "string")


def statuses_of(
    result_table: ResultTable, slots: Positions, seen: npt.NDArray[np.bool_] | None = None
) -> pd.Series:
    """Return rows' statuses: <NA> for rows that were never `seen`; all were by default."""
    names = pa.array([str(status) for status in STATUSES], pa.large_string())
    # -1 reads the last slot's code, which `where` replaces.
    codes = np.where(slots >= 0, result_table.codes[slots], STATUSES.index(RowStatus.SKIPPED))
    return _series(
        names.take(pa.array(codes.astype(np.int32), mask=None if seen is None else ~seen)), "string"
    )


def _value_columns(
    result_table: ResultTable, slots: Positions, spec: JobSpec, flatten: bool
) -> list[tuple[str, pd.Series]]:
    columns: list[tuple[str, pd.Series]] = []
    for i, field in enumerate(result_table.fields):
        cells = result_table.take_values(i, slots)
        if field.kind == "any":
            columns += _parser_columns(cells, spec).items()
        elif flatten and field.inner:
            for leaf, inner in flattened(field, cells):
                columns.append((column_name(spec, leaf), to_series(inner, leaf)))
        else:
            columns.append((column_name(spec, field), _column(cells, field)))
    return columns


def _column(cells: Any, field: Field) -> pd.Series:
    if field.kind == "category":
        categories = pd.Index(field.categories)  # as Parquet gives them back: str from pandas 3 on
        codes = cells.fill_null(-1).to_numpy()
        return pd.Series(pd.Categorical.from_codes(codes, categories=categories))
    dtype = _DTYPES.get(field.kind)
    return to_series(cells, field) if dtype is None else _series(cells, dtype)


def to_series(values: Sequence[Any], field: Field) -> pd.Series:
    """Make a column of the field's pandas type, which is the same for any values.

    Examples
    --------
    >>> to_series([None, None], Field("n", "integer")).dtype
    Int64Dtype()
    >>> list(to_series(["a", None], Field("c", "category", ("a", "b"))).cat.categories)
    ['a', 'b']
    """
    if field.kind == "category":
        categories = pd.Index(field.categories)
        return pd.Series(pd.Categorical(values, categories=categories))
    dtype = _DTYPES.get(field.kind)
    if dtype is not None:
        return pd.Series(values, dtype=dtype)
    if field.kind in {"date", "datetime"}:
        return _times(values, field.kind)
    # Vectors are arrays in an object column, too: to_parquet writes Arrow's list dtypes, which are
    # then refused by pd.read_parquet (pandas 2.2 to 3.1: their name cannot be parsed back).
    cells = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # one by one: numpy would unpack lists of equal length
        cells[i] = value
    return pd.Series(cells, dtype=object)


def _times(values: Sequence[str | None], kind: str) -> pd.Series:
    """Make a column of dates, or of moments in UTC, in microseconds, which every year fits into.

    A moment without an offset is taken for UTC, as JSON Schema's ``date-time`` leaves no other.
    """
    # Parquet gives microseconds back as they were, in pandas 2.2 and 3.
    times = np.full(len(values), "NaT", dtype="datetime64[us]")
    for i, text in enumerate(values):
        if text is not None:
            moment = datetime.fromisoformat(text)
            offset = np.timedelta64(moment.utcoffset() or timedelta(0), "us")
            times[i] = np.datetime64(moment.replace(tzinfo=None), "us") - offset
    column = pd.Series(times)
    return column if kind == "date" else column.dt.tz_localize("UTC")


def _parser_columns(values: Sequence[Any], spec: JobSpec) -> dict[str, pd.Series]:
    """Make the columns of a user's parser: one for each key of its dicts, or one in all.

    Where it returns dicts for some rows only, the others' values are in the one called after the
    job, too.
    """
    own = f"{spec.prefix}{spec.name}"
    keys = list(dict.fromkeys(k for v in values if isinstance(v, Mapping) for k in v))
    names = [f"{spec.prefix}{key}" for key in keys]
    JobColumns(spec.name).check_made(names)  # 1 and "1" are two keys
    columns = {
        name: [v.get(key) if isinstance(v, Mapping) else None for v in values]
        for name, key in zip(names, keys, strict=True)
    }
    others = [None if isinstance(v, Mapping) else v for v in values]
    if to_series(others, _ANYTHING).notna().any() or not any(
        isinstance(v, Mapping) for v in values
    ):
        cells = columns.get(own, others)
        columns[own] = [o if c is None else c for c, o in zip(cells, others, strict=True)]
    return {name: _inferred(cells) for name, cells in columns.items()}


_ANYTHING = Field("", "object")


def _inferred(values: Sequence[Any]) -> pd.Series:
    """Make a column of a parser's values, in pandas' own type for them.

    Floats stay floats where all happen to be whole, and no integer is too large to be kept.
    """
    column = to_series(values, _ANYTHING)
    known = column.notna()
    types = set(map(type, column[known]))
    # bool is a subclass of int, and no number here.
    if types and all(issubclass(each, _NUMBERS) and each is not bool for each in types):
        numbers = [v if there else None for v, there in zip(values, known, strict=True)]
        return _numbers(numbers, whole=all(issubclass(each, _WHOLE) for each in types))
    try:
        return column.convert_dtypes()
    except (OverflowError, TypeError, ValueError):
        return column


_WHOLE = (int, np.integer)


_NUMBERS = (*_WHOLE, float, np.floating)


def _numbers(values: Sequence[Any], *, whole: bool) -> pd.Series:
    """Make Float64, Int64 or UInt64 of numbers and None, or text where none of them holds all."""
    kinds = (("Int64", pa.int64()), ("UInt64", pa.uint64())) if whole else ()
    for dtype, kind in kinds or (("Float64", pa.float64()),):
        number = int if whole else float
        try:
            cells = pa.array([None if v is None else number(v) for v in values], kind)
        except (OverflowError, pa.ArrowInvalid):
            continue
        return _series(cells, dtype)
    return pd.Series([None if v is None else str(v) for v in values], dtype="string")


def _usage_columns(
    result_table: ResultTable, slots: Positions, custom_ids: pa.Array | None, name: str
) -> dict[str, pd.Series]:
    none = slots < 0
    attempts = pa.array(result_table.attempts[slots].astype(np.int64), mask=none)
    found = {"attempt": _series(attempts, "Int64")}
    if custom_ids is not None:
        found["custom_id"] = _series(custom_ids.take(pa.array(slots, mask=none)), "string")
    # A report of many rows keeps only those that it draws.
    found |= {
        detail: _series(result_table.column(detail, slots), dtype)
        for detail, dtype in _DETAIL_DTYPES.items()
        if detail in result_table.details
    }
    return {f"{name}_{detail}": found[detail] for detail in _USAGE_ORDER if detail in found}


_DETAIL_DTYPES = {
    "model": "string",
    "prompt_tokens": "Int64",
    "completion_tokens": "Int64",
    "finish_reason": "string",
    "repaired": "boolean",
    "reasoning": "string",
    "raw": "string",
}


_USAGE_ORDER = (
    "model",
    "attempt",
    "prompt_tokens",
    "completion_tokens",
    "finish_reason",
    "custom_id",
    "repaired",
    "reasoning",
    "raw",
)


def with_columns(frame: pd.DataFrame, columns: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return a new frame with the columns at its end, or in place of an earlier collect's."""
    added = {name: column.set_axis(frame.index) for name, column in columns.items()}
    kept = [name not in added for name in frame.columns]
    own = frame if all(kept) else frame.loc[:, kept]  # which copies
    whole = pd.concat([own, pd.DataFrame(added, index=frame.index)], axis=1)
    if own is frame:
        return whole
    before = list(frame.columns)
    order = before + [name for name in added if name not in before]
    positions = {name: i for i, name in enumerate(added, own.shape[1])}
    others = iter(range(own.shape[1]))
    # By position, since names of the frame's own columns may repeat.
    return whole.iloc[:, [positions[name] if name in positions else next(others) for name in order]]
