"""The cells of one column, which come in any order and are kept in parts, in Arrow.

A part is a shard's: its cells come in pieces, and are put in order when all are there. So no more
than a part is in memory twice, and where the frame has the job's order nothing is copied at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Positions = npt.NDArray[np.int64]

_TAKEN_ROWS = 65_536
_MOST_SMALL = 127


class Column:
    """Cells, kept in Arrow where `kind` is a type of Arrow's, else as the objects they are.

    Where `kind` is a tuple of texts, the cells are some of those, kept as their numbers.
    """

    def __init__(self, kind: Any) -> None:
        self._numbers: dict[str, int] | None = None
        self.type = kind
        if isinstance(kind, tuple):
            self._numbers = {text: i for i, text in enumerate(kind)}
            self.type = pa.int8() if len(kind) <= _MOST_SMALL else pa.int32()
        self._pieces: list[Any] = []
        self._parts: list[Any] = []
        self._starts = [0]

    def __len__(self) -> int:
        """How many cells are in whole parts."""
        return self._starts[-1]

    def add(self, cells: Sequence[Any]) -> None:
        """More cells of the part that is coming."""
        if self.type is None:
            self._pieces.append(cells)
        elif self._numbers is not None:
            self._pieces.append(pa.array(map(self._numbers.get, cells), self.type))
        else:
            self._pieces.append(_arrow(cells, self.type))

    def close(self, order: pa.Array | None = None) -> None:
        """End a part: of the cells that came for it those at `order`, in that order.

        Without one they are all there and in order.
        """
        pieces, self._pieces = self._pieces, []
        if self.type is None:
            part: Any = [cell for piece in pieces for cell in piece]
            if order is not None:
                part = [part[place] for place in order.to_pylist()]
        else:
            part = pa.concat_arrays(pieces)
            del pieces
            if order is not None:
                part = part.take(order)
        self._parts.append(part)
        self._starts.append(self._starts[-1] + len(part))

    def at(self, place: int) -> Any:
        """One cell; None for place -1."""
        if place < 0:
            return None
        part = int(np.searchsorted(self._starts, place, side="right")) - 1
        cell = self._parts[part][place - self._starts[part]]
        return cell if self.type is None else cell.as_py()

    def take(self, places: Positions, *, forget: bool = False) -> Any:
        """Cells by their place, -1 for null: Arrow's, in chunks, or a list of objects.

        With `forget`, a part is dropped as soon as no later cell is in it; take only once then.
        """
        if self.type is None:
            cells = [cell for part in self._parts for cell in part]
            return [cells[place] if place >= 0 else None for place in places.tolist()]
        if len(places) and np.array_equal(places, np.arange(len(self))):
            return pa.chunked_array(self._parts, self.type)
        parts = np.searchsorted(self._starts, places, side="right") - 1
        blocks = np.arange(len(places)) // _TAKEN_ROWS
        last = np.full(len(self._parts), -1)
        last[parts[places >= 0]] = blocks[places >= 0]  # of each part's, the last one stays
        taken = []
        for block, start in enumerate(range(0, len(places), _TAKEN_ROWS)):
            rows = slice(start, start + _TAKEN_ROWS)
            taken.append(self._taken(places[rows], parts[rows]))
            for part in np.flatnonzero(last <= block) if forget else ():
                self._parts[part] = None
        return pa.chunked_array(taken or [pa.array([], self.type)], self.type)

    def _taken(self, places: Positions, parts: Positions) -> Any:
        """Cells that are in several parts: each part's, joined, and these put in order."""
        pieces, order, count = [pa.array([], self.type)], np.full(len(places), -1), 0
        for part in np.unique(parts[places >= 0]):
            own = np.flatnonzero((parts == part) & (places >= 0))
            pieces.append(self._parts[part].take(pa.array(places[own] - self._starts[part])))
            order[own] = np.arange(count, count + len(own))
            count += len(own)
        joined = pa.concat_arrays(pieces)
        sorted_already = count == len(places) and (order[1:] > order[:-1]).all()
        return joined if sorted_already else joined.take(pa.array(order, mask=order < 0))


def _arrow(cells: Sequence[Any], kind: Any) -> Any:
    try:
        return pa.array(cells, kind, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return pa.array([_fitting(cell, kind) for cell in cells], kind, from_pandas=True)


def _fitting(cell: Any, kind: Any) -> Any:
    """A cell that Arrow's own rules would not let into its column."""
    if isinstance(cell, str):  # a half of a surrogate pair
        return cell.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if cell is not None and pa.types.is_floating(kind):
        return float(cell)
    return cell
