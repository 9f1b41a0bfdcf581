"""Find out whether rows changed in nothing but how a file was read again: ``007`` as the number 7.

The frame that was submitted is gone; what it printed is on disk, in the requests. In a changed row
each cell is replaced by what an equal cell of another dtype would print, as the old request has it.
Where the row then has its old hash again, only dtypes differ.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.cells import is_null
from frameenrich.errors import ImageError, TemplateError
from frameenrich.lifecycle.prompts import prompts_of
from frameenrich.model import JobSpec
from frameenrich.rendering.column_cells import cell_reader
from frameenrich.rendering.encode_rows import input_hashes
from frameenrich.rendering.prompt import prompt_of
from frameenrich.store.folder import JobFolder

_MOST_WAYS = 500
"""At most so many ways of writing a row's cells are tried; more columns may be left unexplained."""


_NULL_WORDS = ("", "NA", "N/A", "n/a", "NULL", "null", "None", "NaN", "nan", "<NA>", "#N/A")
"""Texts that pandas reads from a file as nulls."""


@dataclass(frozen=True)
class Drift:
    """A column whose cells are equal and print otherwise; ``fix`` is how to get the old ones."""

    column: Any
    then: str
    now: str
    fix: str


def find_drift(
    frame: pd.DataFrame, positions: Sequence[int], then: pa.Table, folder: JobFolder
) -> Drift | None:
    """Return the column that explains why some rows changed; None where the rows truly did.

    Parameters
    ----------
    frame : DataFrame
        The frame as it is now.
    positions : sequence of int
        Some changed rows of it.
    then : pyarrow.Table
        Their rows of the job's sidecar.
    folder : JobFolder
        The job.
    """
    spec, found = folder.spec, list[Drift]()
    if not spec.messages:  # in somebody else's store: nothing says what the rows printed
        return None
    # What the rows printed is in their requests alone: a job keeps no frame.
    ids = then["custom_id"].to_pylist()
    printed = prompts_of(folder, set(ids), set(then["shard"].to_pylist()))
    for position, own_id, own_hash in zip(
        positions, ids, then["input_hash"].to_pylist(), strict=True
    ):
        drift = _row_drift(frame.iloc[[position]], printed.get(own_id, ""), own_hash, spec)
        # One row that truly changed is reason enough to refuse them all.
        if drift is None:
            return None
        found.append(drift)
    return found[0] if found else None


def _row_drift(row: pd.DataFrame, printed: str, own_hash: bytes, spec: JobSpec) -> Drift | None:
    columns = prompt_of(spec).columns_used(list(row.columns))
    cells = [cell_reader(row[column], spec.rendering)(0, 1)[0] for column in columns]
    forms = [[cell, *_equal_cells(cell, printed)] for cell in cells]
    # A few of a row's columns may have drifted at once, so all combinations are tried, up to a
    # limit.
    ways = list(itertools.islice(itertools.product(*forms), _MOST_WAYS))
    tried = pd.concat([row] * len(ways), ignore_index=True)
    for i, column in enumerate(columns):
        tried[column] = pd.Series([way[i] for way in ways], dtype=object)
    try:
        hashes = input_hashes(tried, spec).to_pylist()
    except (TemplateError, ImageError):
        return None
    # Only the job's own hash proves a guess: no fix is named that would not work.
    if own_hash not in hashes:
        return None
    way = ways[hashes.index(own_hash)]
    for column, cell, old in zip(columns, cells, way, strict=True):
        if old is not cell:
            return Drift(
                column, str(old), "" if cell is None else str(cell), _fix(column, cell, old)
            )
    return None


def _fix(column: Any, cell: Any, old: Any) -> str:
    """Say how the column gets the cells again that the job's frame had."""
    if cell is None:
        return "Read the file with keep_default_na=False"
    made = _made_again(f"frame[{column!r}]", cell, old)
    if made is not None:
        return f"Set frame[{column!r}] = {made}"
    if isinstance(old, datetime):
        return f"Read the file with parse_dates=[{column!r}]"
    if isinstance(cell, float) and float(old) != cell:
        # Which of the two it was, the frame does not say: a workbook holds 15 to 17 digits.
        return (
            "Read a CSV with float_precision='round_trip', keep the frame as Parquet instead of a "
            "workbook"
        )
    if isinstance(cell, str):  # the file itself has lost the old text
        return "Keep the frame as Parquet, which saves dtypes"
    return f"Read the file with dtype={{{column!r}: str}}"


def _made_again(own: str, cell: Any, old: Any) -> str | None:
    """Return the expression that makes the old cells of a column; None where the file has them."""
    if isinstance(old, list):
        return f"{own}.map(list)"
    if isinstance(old, timedelta):
        if isinstance(cell, str):
            return f"pandas.to_timedelta({own})"
        return f"pandas.to_timedelta({own}, unit='D').dt.round('s')"
    if isinstance(old, date) and not isinstance(old, datetime):
        return f"{own}.dt.date"
    if isinstance(old, bool):
        return f"{own}.astype(bool)"
    if isinstance(cell, float) and float(old) != cell and _is_float32(old, cell):
        return f"{own}.astype('float32')"
    wide = isinstance(cell, int) and str(float(cell)) == old
    return f"{own}.astype(float)" if wide or isinstance(old, int | float) else None


def _is_float32(old: Any, cell: float) -> bool:
    """Tell whether the old text is what the number prints as float32.

    Two numbers that float32 makes one may also be one float64, which a CSV reader cut.
    """
    with np.errstate(over="ignore"):
        return float(str(np.float32(cell))) == float(old)


# --- cells that are equal but for their dtype ----------------------------------------------------


_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?:Z| ?[-+]\d\d:?\d\d)?"
)


def _equal_cells(cell: Any, printed: str) -> Iterator[Any]:
    """Yield what another dtype would have in a cell's stead, of what the old request prints."""
    if cell is None:
        yield from (word for word in _NULL_WORDS if word in printed)
    elif isinstance(cell, np.ndarray):
        yield cell.tolist()
    elif isinstance(cell, bool | np.bool_):
        yield from (w for w in _words(_WORD, printed) if w.lower() == str(cell).lower())
        yield int(cell)
    elif isinstance(cell, int | float | Decimal):
        yield from _equal_to_number(cell, printed)
    elif isinstance(cell, datetime | date):
        yield pd.Timestamp(cell).date()
        yield from _same_moments(pd.Timestamp(cell), printed)
    elif isinstance(cell, str):
        yield from _equal_to_text(cell, printed)


def _equal_to_number(cell: Any, printed: str) -> Iterator[Any]:
    number = float(cell)
    yield from (w for w in _words(_NUMBER, printed) if _same_number(_number(w), number))
    if cell in (0, 1):
        yield bool(cell)
    if "day" in printed and abs(number) < _MOST_DAYS:  # a workbook has spans as days
        yield pd.Timedelta(days=number).round("s")


def _equal_to_text(cell: str, printed: str) -> Iterator[Any]:
    moment, number, span = _moment(cell), _number(cell), _span(cell)
    if span is not None:
        yield span
    if moment is not None:
        yield from (moment, moment.date())
    if number is not None:
        yield from (number, int(number)) if number.is_integer() else (number,)
        yield from (w for w in _words(_NUMBER, printed) if _same_number(_number(w), number))


_MOST_DAYS = 100_000
"""Longer spans do not fit into nanoseconds, and numbers so large are no days."""


_WORD = re.compile(r"[A-Za-z]+")


def _words(pattern: re.Pattern[str], printed: str) -> list[str]:
    """Return the distinct words of a kind that the old request prints."""
    return list(dict.fromkeys(pattern.findall(printed)))


def _same_number(one: float | None, other: float) -> bool:
    """Tell whether two numbers are equal, for a float32 or for pandas' quick reader of a CSV."""
    if one is None:
        return False
    with np.errstate(over="ignore"):
        narrow = np.float32(one) == np.float32(other) != np.inf
    return one == other or bool(narrow) or math.isclose(one, other, rel_tol=_ULPS)


_ULPS = 1e-14
"""By so much pandas may read a float from a CSV otherwise than it was written."""


def _same_moments(cell: pd.Timestamp, printed: str) -> Iterator[str]:
    """Yield how the old request writes a moment."""
    for word in _words(_MOMENT, printed):
        with contextlib.suppress(TypeError):  # a moment with and one without time zone
            if _moment(word) == cell:
                yield word


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _span(text: str) -> pd.Timedelta | None:
    if "day" not in text:  # any number is a span to pandas
        return None
    try:
        return pd.Timedelta(text)
    except ValueError:
        return None


def _moment(text: str) -> pd.Timestamp | None:
    if _MOMENT.fullmatch(text) is None:
        return None
    try:
        found = pd.Timestamp(text)
    except ValueError:
        return None
    return None if is_null(found) else found
