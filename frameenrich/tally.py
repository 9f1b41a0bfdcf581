"""What is known of each request: the best result so far, kept column by column.

A job has a slot for every line of its sidecar; rows that share a request share its first row's
slot. Results come in blocks of some hundred; what they hold goes into Arrow arrays at once, so that
a row costs the bytes of its answer and hardly more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frameenrich.model import FLAGGED, Result, RowStatus, Usage
from frameenrich.output import Field

Positions = npt.NDArray[np.int64]

STATUSES = list(RowStatus)
_CODES = {status: code for code, status in enumerate(STATUSES)}
_OK, _PENDING = _CODES[RowStatus.OK], _CODES[RowStatus.PENDING]
_FLAGGED = np.array([status in FLAGGED for status in STATUSES])

# Terminal escapes and the characters that turn text around; newlines and tabs are fine.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_ARROW = {
    "string": pa.large_string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}
"""Fields that are kept in Arrow; the others hold Python objects."""

DETAILS: dict[str, Any] = {
    "error": pa.large_string(),
    "status_code": pa.int32(),
    "confidence": pa.float64(),
    "repaired": pa.bool_(),
    "model": pa.large_string(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "finish_reason": pa.large_string(),
    "answer_id": pa.large_string(),
    "raw": pa.large_string(),
}
"""What is told of a result beside its values; ``answer_id`` is the custom_id it came under."""

USAGE = ("model", "prompt_tokens", "completion_tokens", "finish_reason")


class Tally:
    """What is known of each request.

    Parameters
    ----------
    slots : int
        How many there are: the lines of the sidecar.
    fields : sequence of Field
        The output columns.
    details : collection of str
        Which of `DETAILS` to keep. The raw text of good answers is kept with ``"raw"`` only, that
        of others with ``"bad_raw"``, too.
    """

    def __init__(self, slots: int, fields: Sequence[Field], details: Iterable[str]) -> None:
        self.fields = tuple(fields)
        self._details = frozenset(details)
        names = [name for name in DETAILS if name in {*self._details, "error"}]
        if "bad_raw" in self._details and "raw" not in names:
            names.append("raw")
        self._columns = [Column(_kind(field)) for field in fields]
        self._told = {name: Column(DETAILS[name]) for name in names}
        self.codes = np.full(slots, _PENDING, dtype=np.uint8)
        self.attempts = np.ones(slots, dtype=np.int32)
        self._rounds = np.zeros(slots, dtype=np.int32)
        self._records = np.full(slots, -1, dtype=np.int64)
        self._reasons: list[str | None] = [None]
        self._reason = np.zeros(slots, dtype=np.int32)
        self._count = 0

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self.codes)

    def ask_again(self, slots: Positions) -> None:
        """Count a later round's requests, before its results; good answers keep their count."""
        self.attempts[slots[self.codes[slots] != _OK]] += 1

    def put(self, slots: Positions, results: Sequence[Result], round_: int) -> None:
        """Take results; a good answer is never overwritten, a later round beats an earlier one."""
        if not len(slots):
            return
        codes = np.array([_CODES[result.status] for result in results], dtype=np.uint8)
        self._keep(results)
        records = np.arange(self._count - len(slots), self._count)
        if len(np.unique(slots)) == len(slots):
            self._place(slots, codes, records, round_)
            return
        for i in range(len(slots)):  # the same line twice
            self._place(slots[i : i + 1], codes[i : i + 1], records[i : i + 1], round_)

    def _place(
        self, slots: Positions, codes: npt.NDArray[np.uint8], records: Positions, round_: int
    ) -> None:
        heard_now = (self._records[slots] >= 0) & (self._rounds[slots] == round_)
        # The same line twice: the first stands, unless the second is an answer.
        better = (self.codes[slots] != _OK) & ~(heard_now & (codes != _OK))
        slots = slots[better]
        self.codes[slots], self._records[slots] = codes[better], records[better]
        self._rounds[slots], self._reason[slots] = round_, 0

    def _keep(self, results: Sequence[Result]) -> None:
        self._count += len(results)
        blank = (None,) * len(self.fields)
        values = [r.values if r.values is not None else blank for r in results]
        for column, cells in zip(self._columns, zip(*values, strict=True), strict=True):
            column.append(cells)
        for name, column in self._told.items():
            column.append(self._detail(name, results))

    def _detail(self, name: str, results: Sequence[Result]) -> list[Any]:
        if name == "error":
            return [None if r.error is None else _printable(r.error) for r in results]
        if name in USAGE:
            return [getattr(r.usage, name) for r in results]
        if name == "answer_id":
            return [r.custom_id for r in results]
        if name == "raw" and "raw" not in self._details:
            return [None if r.status is RowStatus.OK else r.raw for r in results]
        return [getattr(r, name) for r in results]

    def settle(self, slots: Positions, status: RowStatus, reason: str | None, round_: int) -> None:
        """Give requests for which no line came the status that their batch leaves them."""
        slots = slots[self.codes[slots] != _OK]
        if reason not in self._reasons:
            self._reasons.append(reason)
        self.codes[slots], self._rounds[slots] = _CODES[status], round_
        self._records[slots], self._reason[slots] = -1, self._reasons.index(reason)

    # --- reading it ---------------------------------------------------------------------------

    def status(self, slot: int) -> RowStatus:
        """The status of one request."""
        status: RowStatus = STATUSES[self.codes[slot]]
        return status

    def flagged(self) -> npt.NDArray[np.bool_]:
        """Which slots' statuses are terminal and not ``ok``."""
        return _FLAGGED[self.codes]

    def counts(self, slots: Positions) -> dict[RowStatus, int]:
        """How many of some slots have each status; only those that occur."""
        found = np.bincount(self.codes[slots], minlength=len(STATUSES))
        return {status: int(n) for status, n in zip(STATUSES, found, strict=True) if n}

    def result(self, slot: int) -> Result:
        """What is known of one request, without its values and as far as details are kept."""
        told = {name: column.at(self._records[slot]) for name, column in self._told.items()}
        reason = self._reasons[self._reason[slot]]
        usage = Usage(**{name: told[name] for name in USAGE if name in told})
        return Result(
            told.get("answer_id") or "",
            self.status(slot),
            None,
            told["error"] if reason is None else reason,
            told.get("raw"),
            usage,
            bool(told.get("repaired")),
            told.get("status_code"),
            told.get("confidence"),
        )

    def hand_over(self, index: int, slots: Positions) -> Any:
        """One field's values at some slots, -1 for none: Arrow, or a list of objects.

        The tally forgets them, so that they are not in memory twice; a field can be had once.
        """
        column, self._columns[index] = self._columns[index], Column(pa.null())
        return column.take(self._records_at(slots))

    def details(self, name: str, slots: Positions) -> Any:
        """One of the details kept, at some slots; -1 for none."""
        told = self._told[name].take(self._records_at(slots))
        if name != "error":
            return told
        reasons = pa.array(self._reasons, pa.large_string())
        settled = reasons.take(pa.array(np.where(slots >= 0, self._reason[slots], 0)))
        return pa.compute.coalesce(told, settled)

    def _records_at(self, slots: Positions) -> Positions:
        records: Positions = np.where(slots >= 0, self._records[slots], -1)
        return records


def _kind(field: Field) -> Any:
    if field.kind == "category":
        return field.categories
    return _ARROW.get(field.kind)


@dataclass
class Column:
    """Cells in the order in which they came: in Arrow where `kind` is a type of Arrow's.

    Where it is a tuple of texts, the cells are some of those, kept as their numbers.
    """

    kind: Any

    def __post_init__(self) -> None:
        self._pieces: list[Any] = []
        self._objects: list[Any] = []
        self._numbers: dict[str, int] = {}
        if isinstance(self.kind, tuple):
            self._numbers = {text: i for i, text in enumerate(self.kind)}

    @property
    def _type(self) -> Any:
        return pa.int32() if isinstance(self.kind, tuple) else self.kind

    def append(self, cells: Sequence[Any]) -> None:
        """More cells."""
        if self.kind is None:
            self._objects += cells
        elif isinstance(self.kind, tuple):
            self._pieces.append(pa.array(map(self._numbers.get, cells), pa.int32()))
        else:
            self._pieces.append(_arrow(cells, self.kind))

    def at(self, record: int) -> Any:
        """One cell; None for record -1."""
        if record < 0:
            return None
        if self.kind is None:
            return self._objects[record]
        return self._whole()[record].as_py()

    def take(self, records: Positions) -> Any:
        """Some cells, by their number; -1 is null."""
        if self.kind is None:
            return [self._objects[record] if record >= 0 else None for record in records]
        places = pa.array(records, mask=records < 0)
        taken = self._whole().take(places)
        return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken

    def _whole(self) -> Any:
        if len(self._pieces) != 1:  # once: what comes later is joined later
            pieces = self._pieces or [pa.array([], self._type)]
            self._pieces = [pa.concat_arrays(pieces)]
            del pieces
            pa.default_memory_pool().release_unused()  # else both stay while the cells are taken
        return self._pieces[0]


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


def _printable(reason: str) -> str:
    """A reason that can be printed: models and servers speak in it."""
    if not _CONTROL.search(reason):
        return reason
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], reason)
