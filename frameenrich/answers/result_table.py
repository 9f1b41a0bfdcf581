"""Keep what is known of each request: the best result so far, column by column.

A job has a slot for every line of its sidecar; rows that share a request share its first row's
slot. A shard's results come in blocks of some hundred, and go into Arrow arrays at once. When all
are there, the best of each slot is kept, in the order of slots: a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frameenrich.answers.arrow_column import ArrowColumn, Positions
from frameenrich.answers.fields import Field
from frameenrich.model import FLAGGED, Remedy, Result, RowStatus, Usage

STATUSES = list(RowStatus)


CODES = {status: code for code, status in enumerate(STATUSES)}


_PENDING = CODES[RowStatus.PENDING]


_FLAGGED = np.array([status in FLAGGED for status in STATUSES])


_REMEDIES = tuple(Remedy)


_ARROW = {
    "string": pa.large_string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "json": pa.large_string(),
}
"""Fields that are kept in Arrow; the others hold Python objects."""


DETAILS: dict[str, Any] = {
    "error": pa.large_string(),
    "status_code": pa.int32(),
    "confidence": pa.float64(),
    "agreement": pa.float64(),
    "repaired": pa.bool_(),
    "model": pa.large_string(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "finish_reason": pa.large_string(),
    "reasoning": pa.large_string(),
    "votes": pa.large_string(),
    "answer_id": pa.large_string(),
    "raw": pa.large_string(),
}
"""Details of a result beside its values; ``answer_id`` is the custom_id it came under."""


Kept = Literal["all", "short", "none"]
"""Which values a result table keeps: all, those that are no object and no long text, or none."""


class ResultTable:
    """The best result so far of each request.

    Parameters
    ----------
    slots : int
        How many there are: the lines of the sidecar.
    fields : sequence of Field
        The output columns.
    details : collection of str
        Which of `DETAILS` to keep. The raw text of usable answers is kept with ``"raw"`` only, that
        of others with ``"bad_raw"``, too.
    values : str
        Which values to keep: ``"all"``; ``"short"``, where objects and texts longer than
        `SHORT_BYTES` are null; or ``"none"``, where only statuses and details are wanted.
    """

    def __init__(
        self,
        slots: int,
        fields: Sequence[Field],
        details: Iterable[str],
        values: Kept = "all",
    ) -> None:
        self.fields = () if values == "none" else tuple(fields)
        wanted = {*details, "error"}
        self._raw = "raw" if "raw" in wanted else "bad_raw"
        # In the order of DETAILS, whatever order the caller has.
        names = [n for n in DETAILS if n in wanted or (n == "raw" and "bad_raw" in wanted)]
        self._columns = [
            # What a parser makes is kept: only its values say which columns there are.
            ArrowColumn(_kind(field), short=values == "short" and field.kind != "any")
            for field in self.fields
        ]
        self._detail_columns = {name: ArrowColumn(DETAILS[name]) for name in names}
        self.codes = np.full(slots, _PENDING, dtype=np.uint8)
        self.attempts = np.ones(slots, dtype=np.int32)
        self._marks = np.zeros(slots, dtype=np.uint8)
        self.rounds = np.zeros(slots, dtype=np.int16)
        self._records = np.full(slots, -1, dtype=np.int32)
        # A batch's reason is that of all its requests without a line: its text is kept once.
        self._reasons: list[str | None] = [None]
        self._reason = np.zeros(slots, dtype=np.int32)
        self._coming: list[npt.NDArray[np.uint8]] = []
        self._coming_marks: list[npt.NDArray[np.uint8]] = []

    @property
    def details(self) -> tuple[str, ...]:
        """The details that are kept."""
        return tuple(self._detail_columns)

    @property
    def slots(self) -> int:
        """The number of slots."""
        return len(self.codes)

    def count_retry(self, slots: Positions) -> None:
        """Count a later round's requests, before its results; usable answers keep their count."""
        # `attempt` says how often a row was sent, which may be less than the round's number.
        self.attempts[slots[self.codes[slots] != OK_CODE]] += 1

    def add(self, block: ParsedLines) -> None:
        """Add more of the results that the next `assign` puts into their slots."""
        if not block.ids:
            return
        # Kept as they come until `assign` knows the slots of the whole shard.
        self._coming.append(block.codes)
        self._coming_marks.append(block.marks)
        # None of them where values are not wanted.
        for column, cells in zip(self._columns, block.columns, strict=bool(self._columns)):
            column.add(cells)
        for name, detail_cells in self._detail_columns.items():
            detail_cells.add(block.detail(self._raw if name == "raw" else name))

    @property
    def schema(self) -> pa.Schema | None:
        """The columns of `coming`; None where some are Python objects."""
        columns = [*self._columns, *self._detail_columns.values()]
        if any(column.type is None for column in columns):
            return None
        kinds = [("id", pa.string()), ("code", pa.uint8()), ("mark", pa.uint8())]
        return pa.schema([*kinds, *((str(i), column.type) for i, column in enumerate(columns))])

    def sort_coming(self, order: Positions) -> None:
        """Put the results that were added and have no slots yet into an order."""
        self._coming = [np.concatenate(self._coming)[order]]
        self._coming_marks = [np.concatenate(self._coming_marks)[order]]
        for column in (*self._columns, *self._detail_columns.values()):
            column.sort_coming(order)

    def coming(self, ids: pa.Array) -> pa.Table:
        """Return the results that were added and have no slots yet, with their custom_ids."""
        columns = [column.coming() for column in (*self._columns, *self._detail_columns.values())]
        codes = [np.concatenate(each) for each in (self._coming, self._coming_marks)]
        return pa.table([ids, *map(pa.array, codes), *columns], schema=self.schema)

    def add_table(self, table: pa.Table) -> pa.Array:
        """Add results as `coming` gave them; return their custom_ids."""
        (batch,) = table.to_batches()
        ids, codes, marks, *columns = batch.columns
        self._coming.append(codes.to_numpy())
        self._coming_marks.append(marks.to_numpy())
        own = (*self._columns, *self._detail_columns.values())
        for column, cells in zip(own, columns, strict=True):
            column.add_array(cells)
        return ids

    def assign(self, slots: Positions, round_: int) -> None:
        """Assign the added results to request slots; -1 drops one.

        A good answer is never overwritten, and a later round beats an earlier one. Of a round's
        results for a slot the first stands, unless a later one is a usable answer.
        """
        if not self._coming:
            return
        codes, self._coming = np.concatenate(self._coming), []
        marks, self._coming_marks = np.concatenate(self._coming_marks), []
        chosen = _best(slots, codes == OK_CODE)
        own = slots[chosen]
        # A record from this very round: a status without a line has none, and any line replaces it.
        heard_now = (self._records[own] >= 0) & (self.rounds[own] == round_)
        good = codes[chosen] == OK_CODE
        # Paid answers that are usable are never given up for a later one.
        better = (self.codes[own] != OK_CODE) & ~(heard_now & ~good)
        chosen, own = chosen[better], own[better]
        self.codes[own], self.rounds[own], self._reason[own] = codes[chosen], round_, 0
        self._marks[own] = marks[chosen]
        self._records[own] = np.arange(self._count, self._count + len(own))
        # Mostly all lines count and are in order: then nothing has to be copied.
        ready = len(chosen) == len(codes) and (chosen[1:] > chosen[:-1]).all()
        order = None if ready else pa.array(chosen)
        for column in (*self._columns, *self._detail_columns.values()):
            column.close(order)

    @property
    def _count(self) -> int:
        """Return how many records there are."""
        # Errors are kept in every table, so their column has all records.
        return len(self._detail_columns["error"])

    def add_results(self, slots: Positions, results: Sequence[Result], round_: int) -> None:
        """Take results that were judged in full, whose slots are known."""
        self.add(ParsedLines.of(results, len(self.fields)))
        self.assign(slots, round_)

    def set_status(
        self, slots: Positions, status: RowStatus, reason: str | None, round_: int
    ) -> None:
        """Give requests for which no line came the status that their batch leaves them."""
        # A usable answer stays, whatever becomes of a later batch.
        slots = slots[self.codes[slots] != OK_CODE]
        if reason not in self._reasons:
            self._reasons.append(reason)
        self.codes[slots], self.rounds[slots], self._marks[slots] = CODES[status], round_, 0
        self._records[slots], self._reason[slots] = -1, self._reasons.index(reason)

    @property
    def shortened(self) -> list[Field]:
        """The fields of which long texts were dropped."""
        pairs = zip(self.fields, self._columns, strict=bool(self._columns))
        return [field for field, column in pairs if column.shortened]

    # --- reading it ---------------------------------------------------------------------------

    def status(self, slot: int) -> RowStatus:
        """Return the status of one request."""
        status: RowStatus = STATUSES[self.codes[slot]]
        return status

    def flagged(self) -> npt.NDArray[np.bool_]:
        """Tell which slots' statuses are terminal and not ``ok``."""
        return _FLAGGED[self.codes]

    def counts(self, slots: Positions) -> dict[RowStatus, int]:
        """Count the slots of each status that occurs."""
        found = np.bincount(self.codes[slots], minlength=len(STATUSES))
        return {status: int(n) for status, n in zip(STATUSES, found, strict=True) if n}

    def count_repaired(self, slots: Positions) -> int:
        """Count the usable answers of some slots that had to be mended before they were read."""
        return int(((self.codes[slots] == OK_CODE) & (self._marks[slots] > 0)).sum())

    def count_remedies(self, slots: Positions) -> Counter[Remedy]:
        """Count some slots' flagged requests by the condition for asking them again."""
        marks = self._marks[slots[_FLAGGED[self.codes[slots]]]]
        found = np.bincount(marks, minlength=len(_REMEDIES)).tolist()
        return Counter({remedy: n for remedy, n in zip(_REMEDIES, found, strict=True) if n})

    def result(self, slot: int) -> Result:
        """Return a request's result without its values, with the details that are kept."""
        detail_cells = {
            name: column.at(self._records[slot]) for name, column in self._detail_columns.items()
        }
        reason = self._reasons[self._reason[slot]]
        usage = Usage(**{name: detail_cells[name] for name in USAGE if name in detail_cells})
        return Result(
            detail_cells.get("answer_id") or "",
            self.status(slot),
            None,
            detail_cells["error"] if reason is None else reason,
            detail_cells.get("raw"),
            usage,
            bool(detail_cells.get("repaired")),
            detail_cells.get("status_code"),
            detail_cells.get("confidence"),
            detail_cells.get("reasoning"),
            detail_cells.get("agreement"),
            detail_cells.get("votes"),
        )

    def take_values(self, index: int, slots: Positions) -> Any:
        """Return one field's values at some slots, -1 for none: Arrow, or a list of objects.

        The table forgets them, so that they are not in memory twice; a field can be had once.
        """
        column, self._columns[index] = self._columns[index], ArrowColumn(None)
        return column.take(self._records_at(slots), release=True)

    def column(self, name: str, slots: Positions) -> Any:
        """Return one of the details kept, at some slots; -1 for none."""
        detail_cells = self._detail_columns[name].take(self._records_at(slots))
        # Reasons that came without a line are not among the records.
        if name != "error" or len(self._reasons) == 1:
            return detail_cells
        reasons = pa.array(self._reasons, pa.large_string())
        settled = reasons.take(pa.array(np.where(slots >= 0, self._reason[slots], 0)))
        return pa.compute.coalesce(detail_cells, settled)

    def _records_at(self, slots: Positions) -> Positions:
        records: Positions = np.where(slots >= 0, self._records[slots], -1)
        return records


def _kind(field: Field) -> Any:
    if field.kind == "category":
        return field.categories
    return _ARROW.get(field.kind)


def _best(slots: Positions, good: npt.NDArray[np.bool_]) -> Positions:
    """Choose the line that stands for each slot, in order: the first good one, else the first.

    Lines of nobody's slot, -1, are left out.
    """
    lines = np.arange(len(slots))
    record_of = np.full(slots.max(initial=-1) + 1, -1)
    # The good ones are assigned after the others, and so replace them.
    for chosen in (lines[~good & (slots >= 0)], lines[good & (slots >= 0)]):
        record_of[slots[chosen[::-1]]] = chosen[::-1]  # what is assigned last stays: the first line
    return record_of[record_of >= 0]


OK_CODE = CODES[RowStatus.OK]


USAGE = ("model", "prompt_tokens", "completion_tokens", "finish_reason")


@dataclass(frozen=True)
class ParsedLines:
    """The contents of some lines, in their order.

    Parameters
    ----------
    ids : sequence of str or None
        The custom_id of each; None where the line names no row.
    columns : sequence of sequence
        One for each field, with the value of each line; None where it is no usable answer.
    odd : mapping of int to Result
        The lines that were judged in full, by position. Every other one is a usable answer
        without details.
    detail_cells : mapping of str to sequence
        The details of those others, by name, as far as they are wanted.
    """

    ids: Sequence[str | None]
    columns: Sequence[Sequence[Any]]
    odd: Mapping[int, Result]
    detail_cells: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Sequence[Result], fields: int) -> ParsedLines:
        """Make a block of results that were judged in full."""
        blank = (None,) * fields
        values = [blank if result.values is None else result.values for result in results]
        columns = list(zip(*values, strict=True)) or [()] * fields
        return cls([r.custom_id for r in results], columns, dict(enumerate(results)))

    @property
    def codes(self) -> npt.NDArray[np.uint8]:
        """Each line's status, as its number in `STATUSES`."""
        codes = np.full(len(self.ids), OK_CODE, dtype=np.uint8)
        for position, result in self.odd.items():
            codes[position] = CODES[result.status]
        return codes

    @property
    def marks(self) -> npt.NDArray[np.uint8]:
        """Mark each line: a usable answer by whether it was mended, a flagged one by its remedy."""
        marks = np.zeros(len(self.ids), dtype=np.uint8)
        for position, result in self.odd.items():
            ok = result.status is RowStatus.OK
            marks[position] = result.repaired if ok else _REMEDIES.index(result.remedy)
        return marks

    def detail(self, name: str) -> Sequence[Any]:
        """Return one detail of each line: one of `DETAILS`, or ``bad_raw``."""
        if name == "answer_id":
            return self.ids
        cells = list(self.detail_cells.get(name, (None,) * len(self.ids)))
        for position, result in self.odd.items():
            cells[position] = _of_result(name, result)
        return cells


def _of_result(name: str, result: Result) -> Any:
    if name == "bad_raw":
        return None if result.status is RowStatus.OK else result.raw
    if name == "error":
        return result.error
    return getattr(result.usage if name in USAGE else result, name)
