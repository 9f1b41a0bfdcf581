"""Read a column's cells as templates see them: a null is None, a whole number prints as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd
import pyarrow as pa

from frameenrich.cells import cell_values, is_null
from frameenrich.errors import InputError


def cell_reader(column: pd.Series, rendering: int) -> Callable[[int, int], list[Any]]:
    """Return a function that reads a slice of a column's cells as Python values."""
    column = _readable(column, nested=rendering > _ARRAYS)
    if isinstance(column.dtype, pd.StringDtype) and column.dtype.storage == "pyarrow":
        texts = pa.chunked_array(pa.array(column.array))
        return lambda start, stop: texts.slice(start, stop - start).to_numpy().tolist()
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "ib":
        numbers = column.to_numpy()
        return lambda start, stop: numbers[start:stop].tolist()
    # Rendering 1 prints a float 3 as "3.0"; its jobs go on so, or every row would look changed.
    if rendering == 1:
        if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
            floats = column.to_numpy()
            return lambda start, stop: _float_cells(floats[start:stop])
        return lambda start, stop: cell_values(column.iloc[start:stop])
    if pd.api.types.is_float_dtype(column.dtype):
        numbers = _as_written(column.to_numpy(dtype=_numpy_float(column.dtype), na_value=np.nan))
        return lambda start, stop: _whole_cells(numbers[start:stop])
    if _may_hold_floats(column):
        plain = whole_number if rendering == _ARRAYS else plain_cell
        return lambda start, stop: _plain_cells(plain, column.iloc[start:stop])
    if column.dtype == np.dtype("O"):
        objects = column.to_numpy()
        return lambda start, stop: _text_cells(objects[start:stop])
    return lambda start, stop: cell_values(column.iloc[start:stop])


_ARRAYS = 2
"""The rendering in which lists that are NumPy arrays printed as ``[1 2]``, without commas."""


def _readable(column: pd.Series, *, nested: bool) -> pd.Series:
    """Return Arrow columns that pandas does not know, or not as Python values, as objects."""
    if isinstance(column.dtype, pd.SparseDtype):
        return pd.Series(np.asarray(column), index=column.index, name=column.name)
    if not isinstance(column.dtype, pd.ArrowDtype):
        return column
    kind = column.dtype.pyarrow_dtype
    try:
        column.dtype.type  # noqa: B018 - pandas asks for it, and has none for views and such
    except NotImplementedError:
        pass
    else:
        if not (nested and pa.types.is_nested(kind)):
            return column
    cells = pa.chunked_array(pa.array(column.array))
    return pd.Series(arrow_cells(cells), index=column.index, dtype=object)


def arrow_cells(column: pa.ChunkedArray) -> list[Any]:
    """Return an Arrow column's cells as Python values, for `plain_cell`."""
    # Arrow itself makes of a float32 3.3 in a list the double 3.299999952316284; an array of NumPy
    # still knows that it is a narrow one.
    narrow = pa.types.is_nested(column.type) and "float" in str(column.type)
    cells: list[Any] = column.to_pandas().tolist() if narrow else column.to_pylist()
    return cells


def plain_cell(cell: Any) -> Any:
    """Return a cell as it prints whatever held it: lists with commas, whole numbers without ".0".

    Parquet gives pandas arrays of NumPy for lists, which print as ``[1 2]`` and beyond a thousand
    values with most left out; and floats where a null stands beside whole numbers.

    Examples
    --------
    >>> plain_cell(np.array([1.0, np.nan])), plain_cell({"x": [2.0, 2.5]}), plain_cell("3.0")
    ([1, None], {'x': [2, 2.5]}, '3.0')
    """
    if isinstance(cell, np.ndarray):
        if cell.dtype.kind in "mM":  # of nanoseconds NumPy makes whole numbers
            cell = cell.astype(f"{cell.dtype.kind}8[us]")
        return plain_cell((_as_written(cell) if cell.dtype.kind == "f" else cell).tolist())
    # By type: a subclass, such as a named tuple, prints in its own way.
    if type(cell) in {list, tuple}:
        return type(cell)(None if is_null(each) else plain_cell(each) for each in cell)
    if type(cell) is dict:
        return {name: None if is_null(each) else plain_cell(each) for name, each in cell.items()}
    return whole_number(cell)


def _plain_cells(plain: Callable[[Any], Any], column: pd.Series) -> list[Any]:
    cells: list[Any] = []
    try:
        cells.extend(map(plain, cell_values(column)))
    except RecursionError:  # a list that holds itself, too
        raise InputError(
            f"Row {column.index[len(cells)]!r}, column {column.name!r}: the value is nested deeper "
            "than can be printed.",
            "Put what the prompt needs of it into a column of its own.",
            columns=[column.name],
        ) from None
    return cells


def _text_cells(cells: npt.NDArray[np.object_]) -> list[Any]:
    """Read cells as `cell_values` does, without a Series for some hundred of them."""
    values: list[Any] = cells.tolist()
    nulls = pd.isna(cells)
    if nulls.any():
        return [None if null else value for value, null in zip(values, nulls, strict=True)]
    return values


def _may_hold_floats(column: pd.Series) -> bool:
    """Tell whether a column of objects may have a float cell that prints as a whole number."""
    # pandas looks at all cells in C; texts, the usual case before pandas 3, need no second pass.
    return pd.api.types.infer_dtype(column, skipna=True) not in {"string", "empty"}


def may_print_otherwise(frame: pd.DataFrame, used: Iterable[Any]) -> bool:
    """Tell whether an earlier rendering may print some cell otherwise: a float, a list."""
    for name in used:
        column = _readable(frame[name], nested=True)
        if pd.api.types.is_float_dtype(column.dtype):
            numbers = column.to_numpy(dtype=_numpy_float(column.dtype), na_value=np.nan)
            if numbers.dtype.itemsize < _DOUBLE_BYTES or (numbers == np.trunc(numbers)).any():
                return True
        elif (
            column.dtype == np.dtype("O")
            and _may_hold_floats(column)
            and any(isinstance(cell, _MAY_DIFFER) for cell in column)
        ):
            return True
    return False


_DOUBLE_BYTES = 8


_MAY_DIFFER = (float, np.ndarray, list, tuple, dict)


_EXACT = 2**53
"""Up to here doubles hold every whole number; above, an int would claim digits it lacks."""


def whole_number(cell: Any) -> Any:
    """Return a float that is a whole number as `int`, anything else as it is.

    A null elsewhere in a column makes floats of its whole numbers; a prompt must not show it.

    Examples
    --------
    >>> [whole_number(cell) for cell in (3.0, 3.5, 3, "3.0", 1e300)]
    [3, 3.5, 3, '3.0', 1e+300]
    """
    if not isinstance(cell, float) or not -_EXACT < cell < _EXACT or cell != int(cell):
        return cell
    return int(cell)


_NUMBERS = frozenset({int, float})


def number_texts(cells: list[Any]) -> list[Any]:
    """Return plain numbers as the texts that `str` gives, all at once; other cells as they are.

    Examples
    --------
    >>> number_texts([3, 0.25]), number_texts([3, None])
    (['3', '0.25'], [3, None])
    """
    if not _NUMBERS.issuperset(map(type, cells)):
        return cells
    try:
        texts = orjson.dumps(cells)[1:-1].decode()
    except TypeError:  # an integer of more than 64 bits
        return cells
    # JSON and Python write the same shortest digits, but other exponents, and `null` for infinity:
    # whoever has one is printed by Python. Where it says 1e-05 JSON may say 0.00001.
    if "e" in texts or "n" in texts or "0.0000" in texts:
        return cells
    return texts.split(",") if cells else []


def _numpy_float(dtype: Any) -> Any:
    """Return NumPy's float type of a column's width; pandas' and Arrow's dtypes name theirs."""
    return getattr(dtype, "numpy_dtype", dtype)


def _as_written(floats: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return doubles that print as the floats do: float32 3.3 as 3.3, not 3.299999952316284."""
    if floats.dtype.itemsize >= _DOUBLE_BYTES:
        return floats
    return floats.astype(str).astype(np.float64)


def _whole_cells(floats: npt.NDArray[Any]) -> list[Any]:
    cells = _float_cells(floats)
    whole = np.flatnonzero((floats == np.trunc(floats)) & (np.abs(floats) < _EXACT))
    for i in whole.tolist():
        cells[i] = int(cells[i])
    return cells


def _float_cells(floats: npt.NDArray[Any]) -> list[Any]:
    """Read cells as `cell_values` does, ten times faster for some hundred numbers."""
    cells: list[Any] = floats.tolist()
    if np.isnan(floats).any():
        return [None if cell != cell else cell for cell in cells]  # noqa: PLR0124 - the test for NaN
    return cells
