"""Hold a column of results in Arrow, a part for each shard."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.answers.arrow_types import arrow_array

Positions = npt.NDArray[np.int64]


SHORT_BYTES = 100
"""Texts up to this length are kept where only short values are wanted."""


TAKEN_ROWS = 65_536
"""How many rows are taken at once."""


_MOST_SMALL = 127


# A part for each shard, put in the order of slots when the shard ends: so only one shard is in
# memory twice, and a frame in the job's order gets the parts themselves. Any other order is taken a
# block at a time, and a part is dropped after its last row.
class ArrowColumn:
    """Cells, kept in Arrow where `kind` is a type of Arrow's, else as the objects they are.

    Where `kind` is a tuple of texts, the cells are some of those, kept as their numbers. With
    `short`, objects and texts longer than `SHORT_BYTES` are null; ``shortened`` says whether texts
    were.
    """

    def __init__(self, kind: Any, *, short: bool = False) -> None:
        self._short, self.shortened = short, False
        self._numbers: dict[str, int] | None = None
        self.type = kind
        if isinstance(kind, tuple):
            self._numbers = {text: i for i, text in enumerate(kind)}
            self.type = pa.int8() if len(kind) <= _MOST_SMALL else pa.int32()
        self._pieces: list[Any] = []
        self._parts: list[Any] = []
        self._starts = [0]

    def __len__(self) -> int:
        """Return how many cells are in whole parts."""
        return self._starts[-1]

    def add(self, cells: Sequence[Any]) -> None:
        """Add cells to the part that is coming."""
        if self.type is None:
            self._pieces.append([None] * len(cells) if self._short else cells)
        elif self._numbers is not None:
            # As numbers: mostly a byte a row, and a pandas categorical takes them as they are.
            self._pieces.append(pa.array(map(self._numbers.get, cells), self.type))
        else:
            piece = arrow_array(cells, self.type)
            # Here, and not when the part ends: of a shard's long texts no more is in memory than
            # those of a block.
            self._pieces.append(self._without_long(piece) if self._short else piece)

    def _without_long(self, cells: pa.Array) -> pa.Array:
        """Return cells without texts longer than `SHORT_BYTES`, which are null."""
        if not pa.types.is_large_string(cells.type):
            return cells
        long = pc.greater(pc.binary_length(cells), SHORT_BYTES).fill_null(False).to_numpy(False)
        if not long.any():
            return cells
        self.shortened = True
        # By `take`: `if_else` only marks the nulls, and their texts would stay in memory.
        return cells.take(pa.array(np.arange(len(cells)), mask=long))

    def add_array(self, cells: pa.Array) -> None:
        """Add cells that are of the column's type already."""
        self._pieces.append(cells)

    def sort_coming(self, order: Positions) -> None:
        """Put the cells that were added and are in no part yet into an order."""
        pieces, self._pieces = self._pieces, []
        if self.type is None:
            cells = [cell for piece in pieces for cell in piece]
            self._pieces = [[cells[position] for position in order.tolist()]]
            return
        whole = pa.concat_arrays(pieces)
        del pieces  # freed before take() makes a second copy of the part
        self._pieces = [whole.take(pa.array(order))]

    def coming(self) -> pa.ChunkedArray:
        """Return the cells that were added and are in no part yet."""
        return pa.chunked_array(self._pieces, self.type)

    def close(self, order: pa.Array | None = None) -> None:
        """End a part: of the cells that came for it those at `order`, in that order.

        Without one they are all there and in order.
        """
        pieces, self._pieces = self._pieces, []
        if self.type is None:
            part: Any = [cell for piece in pieces for cell in piece]
            if order is not None:
                part = [part[position] for position in order.to_pylist()]
        else:
            part = pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
            # Freed before take() makes a second copy of the part.
            del pieces
            if order is not None:
                part = part.take(order)
        self._parts.append(part)
        self._starts.append(self._starts[-1] + len(part))

    def at(self, position: int) -> Any:
        """Return one cell; None for position -1."""
        if position < 0:
            return None
        part = bisect_right(self._starts, position) - 1
        cell = self._parts[part][position - self._starts[part]]
        return cell if self.type is None else cell.as_py()

    def take(self, positions: Positions, *, release: bool = False) -> Any:
        """Return cells by position, -1 for null: Arrow's, in chunks, or a list of objects.

        With `release`, a part is dropped as soon as no later cell is in it; take only once then.
        """
        if self.type is None:
            cells = [cell for part in self._parts for cell in part]
            return [cells[position] if position >= 0 else None for position in positions.tolist()]
        if len(positions) and np.array_equal(positions, np.arange(len(self))):
            return pa.chunked_array(self._parts, self.type)
        parts = np.searchsorted(self._starts, positions, side="right") - 1
        blocks = np.arange(len(positions)) // TAKEN_ROWS
        last = np.full(len(self._parts), -1)
        last[parts[positions >= 0]] = blocks[positions >= 0]  # of each part's, the last one stays
        chunks = []
        for block, start in enumerate(range(0, len(positions), TAKEN_ROWS)):
            rows = slice(start, start + TAKEN_ROWS)
            chunks.append(self._take_rows(positions[rows], parts[rows]))
            for part in np.flatnonzero(last <= block) if release else ():
                self._parts[part] = None
        return pa.chunked_array(chunks or [pa.array([], self.type)], self.type)

    def _take_rows(self, positions: Positions, parts: Positions) -> Any:
        """Take cells from several parts: each part's own, joined and put in order."""
        pieces, order, count = [pa.array([], self.type)], np.full(len(positions), -1), 0
        for part in np.unique(parts[positions >= 0]):
            own = np.flatnonzero((parts == part) & (positions >= 0))
            pieces.append(self._parts[part].take(pa.array(positions[own] - self._starts[part])))
            order[own] = np.arange(count, count + len(own))
            count += len(own)
        joined = pa.concat_arrays(pieces)
        sorted_already = count == len(positions) and (order[1:] > order[:-1]).all()
        return joined if sorted_already else joined.take(pa.array(order, mask=order < 0))
