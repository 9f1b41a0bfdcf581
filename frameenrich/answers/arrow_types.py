"""Find the one Arrow type that a column has in all parts of a table."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


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
    >>> common_type([pa.list_(pa.null()), pa.list_(pa.struct({"a": pa.int64()}))])
    ListType(list<item: struct<a: int64>>)
    """
    known = [kind for kind in kinds if not pa.types.is_null(kind)]
    if len(known) < 2:  # noqa: PLR2004 - nothing to be reconciled
        return known[0] if known else pa.null()
    return pa.infer_type([_sample_value(kind) for kind in known])


def _sample_value(kind: pa.DataType) -> Any:
    """Return a value from which Arrow infers the type."""
    if pa.types.is_struct(kind):
        return {member.name: _sample_value(member.type) for member in kind}
    if pa.types.is_list(kind):
        return [_sample_value(kind.value_type)]
    for is_so, value in _WITNESSES:
        if is_so(kind):
            return value
    raise pa.ArrowNotImplementedError(f"{kind} among other types")


_WITNESSES: tuple[tuple[Any, Any], ...] = (
    (pa.types.is_null, None),
    (pa.types.is_boolean, True),
    (pa.types.is_uint64, 2**63),
    (pa.types.is_integer, 1),
    (pa.types.is_floating, 0.5),
    (pa.types.is_string, ""),
)
