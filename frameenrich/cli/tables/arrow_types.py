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
