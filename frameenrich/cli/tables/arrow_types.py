"""Columns in Arrow's form, for Parquet: one type for all chunks, whatever each of them holds."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from frameenrich.answers.arrow_types import common_type
from frameenrich.cells import cell_values
from frameenrich.cli.tables.records import cell_text
from frameenrich.text import encodable


class ArrowTypes:
    """The type of each column of a table, as known from the chunks so far.

    A chunk's values alone do not say it: they may all be null, or whole numbers, or objects that
    lack a member. So a file is written with the types that are known, and where a later chunk
    makes one grow, it is written once more. Columns whose values have no type in common are JSON
    texts.
    """

    def __init__(self) -> None:
        self._kinds: dict[int, list[pa.DataType]] = {}
        self._texts: set[int] = set()

    def array(self, position: int, column: pd.Series) -> pa.Array | pa.ChunkedArray:
        """Convert a chunk of the column at a position to the type that is known so far."""
        try:
            return self._array(position, column)
        except UnicodeEncodeError:
            # Half a surrogate pair, which a model's JSON may hold and UTF-8 cannot.
            return self._array(position, pd.Series(map(encodable, column), dtype=object))

    def _array(self, position: int, column: pd.Series) -> pa.Array | pa.ChunkedArray:
        if position not in self._texts:
            try:
                return self._typed(position, column)
            except (pa.ArrowException, OverflowError):
                # For good: a column has one type in all chunks.
                self._texts.add(position)
        return _json_texts(column)

    def _typed(self, position: int, column: pd.Series) -> pa.Array | pa.ChunkedArray:
        array = pa.array(column, from_pandas=True)
        kinds = self._kinds.setdefault(position, [])
        if array.type not in kinds:
            kinds.append(array.type)
        common = common_type(kinds)
        if _is_unwritable(common):
            return _json_texts(column)
        if common == array.type:
            return array
        return pa.array(column, type=common, from_pandas=True)


def _json_texts(column: pd.Series) -> pa.Array:
    texts = [None if value is None else cell_text(value) for value in cell_values(column)]
    return pa.array(texts, pa.string())


def _is_unwritable(kind: pa.DataType) -> bool:
    """Tell whether Parquet has no form for the type: an object without members, at any depth."""
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_is_unwritable(field.type) for field in kind)
    return pa.types.is_list(kind) and _is_unwritable(kind.value_type)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type without Arrow's views of texts and bytes, at any depth.

    Examples
    --------
    >>> plain_type(pa.list_(pa.string_view()))
    ListType(list<item: large_string>)
    """
    if not any(name in str(kind) for name in ("string_view", "binary_view")):
        return kind
    if kind in _PLAIN:
        return _PLAIN[kind]
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(plain_type(each.type)) for each in kind])
    if pa.types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type), kind.keys_sorted)
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, plain_type(kind.value_type), kind.ordered)
    items = getattr(kind, "value_field", None)
    if items is None:  # only a name that says so
        return kind
    item = items.with_type(plain_type(items.type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(item, kind.list_size)
    large = pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind)
    return pa.large_list(item) if large else pa.list_(item)


_PLAIN = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
