"""Results to columns: one slot a request, filled in any order, taken in the frame's order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from frameenrich.confidence import asks_confidence
from frameenrich.model import JobSpec, Result, RowStatus
from frameenrich.output import Field, Output, flattened

Positions = npt.NDArray[np.int64]

_STATUSES = list(RowStatus)
_CODES = {status: code for code, status in enumerate(_STATUSES)}
_OK = _CODES[RowStatus.OK]
_DTYPES = {"string": "string", "integer": "Int64", "number": "Float64", "boolean": "boolean"}


# Terminal escapes and the characters that turn text around; newlines and tabs are fine.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def output_columns(spec: JobSpec, output: Output) -> list[str]:
    """The columns that `collect` adds, but for those of ``usage=True``."""
    fields = [column_name(spec, field) for field in output.fields]
    if _has_confidence(spec, output.fields):
        fields.append(f"{spec.name}_confidence")
    return [*fields, f"{spec.name}_status", f"{spec.name}_error"]


def flat_columns(spec: JobSpec, output: Output) -> list[str]:
    """The columns that ``flatten=True`` makes of nested fields."""
    nested = [field for field in output.fields if field.inner]
    return [column_name(spec, leaf) for field in nested for leaf, _ in flattened(field, ())]


def _has_confidence(spec: JobSpec, fields: Sequence[Field]) -> bool:
    labels = [field for field in fields if not field.name and field.kind == "category"]
    return bool(labels) and asks_confidence(spec)


def column_name(spec: JobSpec, field: Field) -> str:
    """The column of an output field; a single-valued output is called after the job."""
    return f"{spec.prefix}{field.name or spec.name}{field.suffix}"


def _shown(result: Result) -> Result:
    """The result with a reason that can be printed: models and servers speak in it."""
    if result.error is None or not _CONTROL.search(result.error):
        return result
    plain = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], result.error)
    return msgspec.structs.replace(result, error=plain)


class Tally:
    """What is known of each request: the best result so far.

    Parameters
    ----------
    custom_ids : sequence of str
        One a request, those of round 0; a slot each.
    fields : sequence of Field
        The output columns.
    """

    def __init__(self, custom_ids: Sequence[str], fields: Sequence[Field]) -> None:
        count = len(custom_ids)
        self.slots = {custom_id: slot for slot, custom_id in enumerate(custom_ids)}
        self.custom_ids = list(custom_ids)
        self.fields = tuple(fields)
        self.codes = np.full(count, _CODES[RowStatus.PENDING], dtype=np.uint8)
        self.rounds = np.zeros(count, dtype=np.int32)
        self.attempts = np.ones(count, dtype=np.int32)
        self.results: list[Result | None] = [None] * count

    def ask_again(self, slots: Iterable[int]) -> None:
        """Count a later round's requests, before its results; good answers keep their count."""
        asked = np.fromiter(slots, dtype=np.int64)
        self.attempts[asked[self.codes[asked] != _OK]] += 1

    def put(self, slot: int, result: Result, round_: int) -> None:
        """Take a result; a good answer is never overwritten, a later round beats an earlier one."""
        if self.codes[slot] == _OK:
            return
        heard_now = self.results[slot] is not None and self.rounds[slot] == round_
        if heard_now and result.status is not RowStatus.OK:
            return  # the same line twice: the first stands, unless the second is an answer
        self.codes[slot] = _CODES[result.status]
        self.rounds[slot] = round_
        self.results[slot] = _shown(result)

    def settle(
        self, slots: Iterable[int], status: RowStatus, reason: str | None, round_: int
    ) -> None:
        """Give requests for which no line came the status that their batch leaves them."""
        for slot in slots:
            if self.codes[slot] != _OK:
                self.codes[slot] = _CODES[status]
                self.rounds[slot] = round_
                self.results[slot] = Result(self.custom_ids[slot], status, None, reason)

    def status(self, slot: int) -> RowStatus:
        """The status of one request."""
        status: RowStatus = _STATUSES[self.codes[slot]]
        return status

    def counts(self) -> dict[RowStatus, int]:
        """How many requests have each status; only those that occur."""
        found = np.bincount(self.codes, minlength=len(_STATUSES))
        return {status: int(n) for status, n in zip(_STATUSES, found, strict=True) if n}


def answer_columns(
    tally: Tally,
    slots: Positions,
    seen: npt.NDArray[np.bool_],
    spec: JobSpec,
    *,
    usage: bool,
    flatten: bool = False,
) -> dict[str, pd.Series]:
    """The output columns of a frame's rows.

    Parameters
    ----------
    tally : Tally
        What is known of each request.
    slots : int64 array
        Each row's slot; -1 for a row without a request.
    seen : bool array
        Whether the job has ever seen the row; others get ``<NA>`` everywhere. A row seen that has
        no slot was skipped.
    usage : bool
        Whether to add the columns of ``usage=True``.
    flatten : bool
        Whether nested objects become columns of their own.

    Returns
    -------
    dict of str to Series
        In the order in which they go into the frame, with a plain ``RangeIndex``.
    """
    results = [tally.results[slot] if slot >= 0 else None for slot in slots]
    ok = [r if r is not None and r.status is RowStatus.OK else None for r in results]
    columns = _value_columns(ok, tally.fields, spec, flatten)
    if _has_confidence(spec, tally.fields):
        sure = [r and r.confidence for r in ok]
        columns[f"{spec.name}_confidence"] = pd.Series(sure, dtype="Float64")
    statuses = [
        str(tally.status(slot)) if slot >= 0 else (str(RowStatus.SKIPPED) if known else None)
        for slot, known in zip(slots, seen, strict=True)
    ]
    columns[f"{spec.name}_status"] = pd.Series(statuses, dtype="string")
    columns[f"{spec.name}_error"] = pd.Series([r and r.error for r in results], dtype="string")
    if usage:
        attempts = [int(tally.attempts[slot]) if slot >= 0 else None for slot in slots]
        ids = [tally.custom_ids[slot] if slot >= 0 else None for slot in slots]
        columns |= _usage_columns(results, attempts, ids, spec.name)
    return columns


def _value_columns(
    results: Sequence[Result | None], fields: Sequence[Field], spec: JobSpec, flatten: bool
) -> dict[str, pd.Series]:
    columns: dict[str, pd.Series] = {}
    for i, field in enumerate(fields):
        values = [r.values[i] if r is not None and r.values is not None else None for r in results]
        if field.kind == "any":
            columns |= _parsed_columns(values, spec)
        else:
            for leaf, cells in flattened(field, values) if flatten else ((field, values),):
                columns[column_name(spec, leaf)] = typed(cells, leaf)
    return columns


def typed(values: Sequence[Any], field: Field) -> pd.Series:
    """A column of the field's pandas type, the same whatever the values (DESIGN.md §2).

    Examples
    --------
    >>> typed([None, None], Field("n", "integer")).dtype
    Int64Dtype()
    >>> list(typed(["a", None], Field("c", "category", ("a", "b"))).cat.categories)
    ['a', 'b']
    """
    if field.kind == "category":
        categories = pd.Index(field.categories, dtype=object)
        return pd.Series(pd.Categorical(values, categories=categories))
    dtype = _DTYPES.get(field.kind)
    if dtype is not None:
        return pd.Series(values, dtype=dtype)
    if field.kind in {"date", "datetime"}:
        return _times(values, field.kind)
    cells = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # one by one: numpy would unpack lists of equal length
        cells[i] = value
    return pd.Series(cells, dtype=object)


def _times(values: Sequence[str | None], kind: str) -> pd.Series:
    """Dates, or moments in UTC, in microseconds: what every year of the calendar fits into.

    A moment without an offset is taken for UTC, as JSON Schema's ``date-time`` leaves no other.
    """
    times = np.full(len(values), "NaT", dtype="datetime64[us]")
    for i, text in enumerate(values):
        if text is not None:
            moment = datetime.fromisoformat(text)
            offset = np.timedelta64(moment.utcoffset() or timedelta(0), "us")
            times[i] = np.datetime64(moment.replace(tzinfo=None), "us") - offset
    column = pd.Series(times)
    return column if kind == "date" else column.dt.tz_localize("UTC")


def _parsed_columns(values: Sequence[Any], spec: JobSpec) -> dict[str, pd.Series]:
    """What a user's parser returned: a column a key where it returns dicts, else one column."""
    if not any(isinstance(value, Mapping) for value in values):
        return {f"{spec.prefix}{spec.name}": _inferred(values)}
    names = list(dict.fromkeys(k for v in values if isinstance(v, Mapping) for k in v))
    return {
        f"{spec.prefix}{name}": _inferred(
            [v.get(name) if isinstance(v, Mapping) else None for v in values]
        )
        for name in names
    }


def _inferred(values: Sequence[Any]) -> pd.Series:
    return typed(values, Field("", "object")).convert_dtypes()


def _usage_columns(
    results: Sequence[Result | None],
    attempts: Sequence[int | None],
    ids: Sequence[str | None],
    name: str,
) -> dict[str, pd.Series]:
    def column(values: Iterable[Any], dtype: str) -> pd.Series:
        return pd.Series(list(values), dtype=dtype)

    used = [None if r is None else r.usage for r in results]
    return {
        f"{name}_model": column((u and u.model for u in used), "string"),
        f"{name}_attempt": column(attempts, "Int64"),
        f"{name}_prompt_tokens": column((u and u.prompt_tokens for u in used), "Int64"),
        f"{name}_completion_tokens": column((u and u.completion_tokens for u in used), "Int64"),
        f"{name}_finish_reason": column((u and u.finish_reason for u in used), "string"),
        f"{name}_custom_id": column(ids, "string"),
        f"{name}_repaired": column((None if r is None else r.repaired for r in results), "boolean"),
        f"{name}_raw": column((r and r.raw for r in results), "string"),
    }


def with_columns(frame: pd.DataFrame, columns: Mapping[str, pd.Series]) -> pd.DataFrame:
    """A new frame with the columns after the others, or in place of an earlier collect's."""
    added = {name: column.set_axis(frame.index) for name, column in columns.items()}
    own = frame.loc[:, [name not in added for name in frame.columns]]
    whole = pd.concat([own, pd.DataFrame(added, index=frame.index)], axis=1)
    if own.shape[1] == frame.shape[1]:
        return whole
    before = list(frame.columns)
    order = before + [name for name in added if name not in before]
    places = {name: i for i, name in enumerate(added, own.shape[1])}
    others = iter(range(own.shape[1]))
    return whole.iloc[:, [places[name] if name in places else next(others) for name in order]]
