"""Make Arrow columns of cells, and find the one type that a column has in all parts of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from frameenrich.text import without_surrogates


def common_type(kinds: list[pa.DataType]) -> pa.DataType:
    """Return the type that Arrow would have found had it seen the values of all chunks at once.

    Raises
    ------
    ArrowException
        They have none in common.

    Examples
    --------
    >>> common_type([pa.null(), pa.int64(), pa.float64()])
    DataType(double)
    >>> common_type([pa.uint64(), pa.null(), pa.uint64()])
    DataType(uint64)
    >>> common_type([pa.list_(pa.null()), pa.list_(pa.struct({"a": pa.int64()}))])
    ListType(list<item: struct<a: int64>>)
    """
    known = list(dict.fromkeys(kind for kind in kinds if not pa.types.is_null(kind)))
    if len(known) < 2:  # noqa: PLR2004 - nothing to be reconciled
        return known[0] if known else pa.null()
    if all(map(pa.types.is_list, known)):
        return pa.list_(common_type([kind.value_type for kind in known]))
    if all(map(pa.types.is_struct, known)):
        members = [member for kind in known for member in kind]
        names = sorted({member.name for member in members})  # as Arrow orders what it infers
        return pa.struct(
            [(n, common_type([m.type for m in members if m.name == n])) for n in names]
        )
    # Arrow infers no uint64, and a number below zero among the others would not fit into it.
    if pa.uint64() in known and not any(map(pa.types.is_floating, known)):
        raise pa.ArrowInvalid("numbers beyond 64 bits")
    # Nor does it take truth values for another kind than numbers, as JSON does.
    if pa.bool_() in known:
        raise pa.ArrowInvalid("truth values beside other values")
    return pa.infer_type([_sample_value(kind) for kind in known])


def _sample_value(kind: pa.DataType) -> Any:
    """Return a value from which Arrow infers the type."""
    for is_so, value in _SAMPLES:
        if is_so(kind):
            return value
    raise pa.ArrowNotImplementedError(f"{kind} among other types")


_SAMPLES: tuple[tuple[Any, Any], ...] = (
    (pa.types.is_integer, 1),
    (pa.types.is_floating, 0.5),
    (pa.types.is_string, ""),
)


def arrow_array(cells: Sequence[Any], kind: Any) -> Any:
    """Return cells as an Arrow array of a type, also those that Arrow's own rules refuse.

    Examples
    --------
    >>> arrow_array([1, None], pa.float64()).to_pylist()
    [1.0, None]
    """
    try:
        # Nearly all cells fit: only where one does not, each is looked at.
        return pa.array(cells, kind, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return pa.array([_fitting(cell, kind) for cell in cells], kind, from_pandas=True)


def _fitting(cell: Any, kind: Any) -> Any:
    """Return a cell that Arrow's own rules would not let into its column."""
    if isinstance(cell, str):  # a half of a surrogate pair
        return without_surrogates(cell)
    if cell is not None and pa.types.is_floating(kind):
        return float(cell)
    return cell
