"""Results to columns: one slot a request, filled in any order, taken in the frame's order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from frameenrich.model import JobSpec, Result, RowStatus
from frameenrich.output import Field, Output

Positions = npt.NDArray[np.int64]

_STATUSES = list(RowStatus)
_CODES = {status: code for code, status in enumerate(_STATUSES)}
_OK = _CODES[RowStatus.OK]
_DTYPES = {"string": "string", "integer": "Int64", "number": "Float64", "boolean": "boolean"}


def output_columns(spec: JobSpec, output: Output) -> list[str]:
    """The columns that `collect` adds, but for those of ``usage=True``."""
    fields = [column_name(spec, field) for field in output.fields]
    return [*fields, f"{spec.name}_status", f"{spec.name}_error"]


def column_name(spec: JobSpec, field: Field) -> str:
    """The column of an output field; a single-valued output is called after the job."""
    return f"{spec.prefix}{field.name or spec.name}"


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
        self.results: list[Result | None] = [None] * count

    def put(self, slot: int, result: Result, round_: int) -> None:
        """Take a result; a good answer is never overwritten, a later round beats an earlier one."""
        if self.codes[slot] == _OK:
            return
        heard_now = self.results[slot] is not None and self.rounds[slot] == round_
        if heard_now and result.status is not RowStatus.OK:
            return  # the same line twice: the first stands, unless the second is an answer
        self.codes[slot] = _CODES[result.status]
        self.rounds[slot] = round_
        self.results[slot] = result

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
    tally: Tally, slots: Positions, seen: npt.NDArray[np.bool_], spec: JobSpec, *, usage: bool
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

    Returns
    -------
    dict of str to Series
        In the order in which they go into the frame, with a plain ``RangeIndex``.
    """
    results = [tally.results[slot] if slot >= 0 else None for slot in slots]
    ok = [r if r is not None and r.status is RowStatus.OK else None for r in results]
    columns = _value_columns(ok, tally.fields, spec)
    statuses = [
        str(tally.status(slot)) if slot >= 0 else (str(RowStatus.SKIPPED) if known else None)
        for slot, known in zip(slots, seen, strict=True)
    ]
    columns[f"{spec.name}_status"] = pd.Series(statuses, dtype="string")
    columns[f"{spec.name}_error"] = pd.Series([r and r.error for r in results], dtype="string")
    if usage:
        attempts = [int(tally.rounds[slot]) + 1 if slot >= 0 else None for slot in slots]
        ids = [tally.custom_ids[slot] if slot >= 0 else None for slot in slots]
        columns |= _usage_columns(results, attempts, ids, spec.name)
    return columns


def _value_columns(
    results: Sequence[Result | None], fields: Sequence[Field], spec: JobSpec
) -> dict[str, pd.Series]:
    columns: dict[str, pd.Series] = {}
    for i, field in enumerate(fields):
        values = [r.values[i] if r is not None and r.values is not None else None for r in results]
        if field.kind == "any":
            columns |= _parsed_columns(values, spec)
        else:
            columns[column_name(spec, field)] = typed(values, field)
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
    cells = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # one by one: numpy would unpack lists of equal length
        cells[i] = value
    return pd.Series(cells, dtype=object)


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
