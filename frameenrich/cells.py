"""Read the cells of pandas columns as plain Python values."""

from __future__ import annotations

from typing import Any

import pandas as pd


def cell_values(column: pd.Series) -> list[Any]:
    """Return a column's cells as plain Python values, every null as ``None``.

    Examples
    --------
    >>> cell_values(pd.Series([1.5, float("nan")])), cell_values(pd.Series([1, 2]))
    ([1.5, None], [1, 2])
    """
    values: list[Any] = column.tolist()
    if column.hasnans:
        return [None if null else v for v, null in zip(values, column.isna(), strict=True)]
    if isinstance(column.dtype, pd.ArrowDtype):  # for pandas, NaN is no null there
        return [None if is_null(value) else value for value in values]
    return values


def is_null(value: object) -> bool:
    """Tell whether a cell holds no value: ``None``, ``NaN``, ``NA`` or ``NaT``.

    Examples
    --------
    >>> [is_null(value) for value in (None, float("nan"), pd.NA, pd.NaT, "", 0, [None])]
    [True, True, True, True, False, False, False]
    """
    # By identity, as NA == NA is NA, which has no truth value.
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, float) and value != value  # noqa: PLR0124 - the test for NaN
