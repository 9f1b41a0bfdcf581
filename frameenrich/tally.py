"""What is known of each request: the best result so far, kept column by column.

A job has a slot for every line of its sidecar; rows that share a request share its first row's
slot. A shard's results come in blocks of some hundred, and go into Arrow arrays at once. When all
are there, the best of each slot is kept, in the order of slots: a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frameenrich.block import CODES, OK_CODE, STATUSES, USAGE, Block
from frameenrich.column import Column, Positions
from frameenrich.model import FLAGGED, Result, RowStatus, Usage
from frameenrich.output import Field

_PENDING = CODES[RowStatus.PENDING]
_FLAGGED = np.array([status in FLAGGED for status in STATUSES])

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
        wanted = {*details, "error"}
        self._raw = "raw" if "raw" in wanted else "bad_raw"
        names = [n for n in DETAILS if n in wanted or (n == "raw" and "bad_raw" in wanted)]
        self._columns = [Column(_kind(field)) for field in fields]
        self._told = {name: Column(DETAILS[name]) for name in names}
        self.codes = np.full(slots, _PENDING, dtype=np.uint8)
        self.attempts = np.ones(slots, dtype=np.int32)
        self._rounds = np.zeros(slots, dtype=np.int32)
        self._records = np.full(slots, -1, dtype=np.int64)
        self._reasons: list[str | None] = [None]
        self._reason = np.zeros(slots, dtype=np.int32)
        self._coming: list[npt.NDArray[np.uint8]] = []

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self.codes)

    def ask_again(self, slots: Positions) -> None:
        """Count a later round's requests, before its results; good answers keep their count."""
        self.attempts[slots[self.codes[slots] != OK_CODE]] += 1

    def add(self, block: Block) -> None:
        """More of the results that the next `place` puts where they belong."""
        if not block.ids:
            return
        self._coming.append(block.codes)
        for column, cells in zip(self._columns, zip(*block.values, strict=True), strict=True):
            column.add(cells)
        for name, told in self._told.items():
            told.add(block.detail(self._raw if name == "raw" else name))

    def place(self, slots: Positions, round_: int) -> None:
        """Say whose the results are that were added: each one's slot, -1 for nobody's.

        A good answer is never overwritten, and a later round beats an earlier one. Of a round's
        results for a slot the first stands, unless a later one is a good answer.
        """
        if not self._coming:
            return
        codes, self._coming = np.concatenate(self._coming), []
        chosen = _best(slots, codes == OK_CODE)
        own = slots[chosen]
        heard_now = (self._records[own] >= 0) & (self._rounds[own] == round_)
        good = codes[chosen] == OK_CODE
        better = (self.codes[own] != OK_CODE) & ~(heard_now & ~good)
        chosen, own = chosen[better], own[better]
        self.codes[own], self._rounds[own], self._reason[own] = codes[chosen], round_, 0
        self._records[own] = np.arange(self._count, self._count + len(own))
        ready = len(chosen) == len(codes) and (chosen[1:] > chosen[:-1]).all()
        order = None if ready else pa.array(chosen)
        for column in (*self._columns, *self._told.values()):
            column.close(order)

    @property
    def _count(self) -> int:
        """How many records there are."""
        return len(self._told["error"])

    def put(self, slots: Positions, results: Sequence[Result], round_: int) -> None:
        """Take results that were judged in full, whose slots are known."""
        self.add(Block.of(results, len(self.fields)))
        self.place(slots, round_)

    def settle(self, slots: Positions, status: RowStatus, reason: str | None, round_: int) -> None:
        """Give requests for which no line came the status that their batch leaves them."""
        slots = slots[self.codes[slots] != OK_CODE]
        if reason not in self._reasons:
            self._reasons.append(reason)
        self.codes[slots], self._rounds[slots] = CODES[status], round_
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
        column, self._columns[index] = self._columns[index], Column(None)
        return column.take(self._records_at(slots), forget=True)

    def details(self, name: str, slots: Positions) -> Any:
        """One of the details kept, at some slots; -1 for none."""
        told = self._told[name].take(self._records_at(slots))
        if name != "error" or len(self._reasons) == 1:
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


def _best(slots: Positions, good: npt.NDArray[np.bool_]) -> Positions:
    """The line that stands for each slot, in the slots' order: the first good one, else the first.

    Lines of nobody's slot, -1, are left out.
    """
    lines = np.arange(len(slots))
    line_of = np.full(slots.max(initial=-1) + 1, -1)
    for chosen in (lines[~good & (slots >= 0)], lines[good & (slots >= 0)]):
        line_of[slots[chosen[::-1]]] = chosen[::-1]  # what is assigned last stays: the first line
    return line_of[line_of >= 0]
