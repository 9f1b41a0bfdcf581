"""`Comparison`: the agreements and differences of two jobs over the same rows."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.answers.column_names import key_beside
from frameenrich.errors import InputError
from frameenrich.evaluation.agreement import confusion
from frameenrich.evaluation.intervals import Interval, wilson
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.identity.keys import find_keys
from frameenrich.pricing.money import show_usd
from frameenrich.text import NO_MATH

Pair = tuple[Any, Any]
"""Both jobs' answers to a row."""


_ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Comparison:
    """Differences between two jobs' answers, over the rows that are usable in both.

    Parameters
    ----------
    jobs : tuple of str
        The two jobs' ids.
    fields : dict
        For each field that both have, how many rows agree; bounds as for rows like these.
    churn : dict
        For each field with the same labels, rows by the first job's answer and the second's.
    changed : DataFrame
        The rows that differ: key, ``field``, ``one``, ``other``.
    usd : tuple of float
        What each job cost; None where a model's price is unknown.
    """

    jobs: tuple[str, str]
    fields: dict[str, Interval]
    churn: dict[str, pd.DataFrame]
    changed: pd.DataFrame
    usd: tuple[float | None, float | None]

    @property
    def agreement(self) -> Interval:
        """The first field's agreement."""
        return next(iter(self.fields.values()))

    def __str__(self) -> str:
        parts = [f"{name} {made} of {made.n:,} rows" for name, made in self.fields.items()]
        return f"agree: {', '.join(parts)}; cost {' and '.join(map(show_usd, self.usd))}"

    def __repr__(self) -> str:
        return f"<Comparison of {self.jobs[0]} and {self.jobs[1]}: {self}>"

    def to_dict(self) -> dict[str, Any]:
        """Return every figure in JSON's types."""
        return {
            "jobs": list(self.jobs),
            "fields": {name: made.to_dict() for name, made in self.fields.items()},
            "changed": len(self.changed),
            "usd": list(self.usd),
        }

    def _repr_html_(self) -> str:
        # An empty table would be a row of headings over nothing.
        changed = [self.changed.head(20)] if len(self.changed) else []
        tables = "".join(table.to_html(border=0) for table in [*self.churn.values(), *changed])
        return (
            f"<div class='{NO_MATH}' style='overflow-x:auto;color:inherit'>"
            f"<b>{html.escape(repr(self)[1:-1])}</b>{tables}</div>"
        )


def compare_answers(
    one: JobAnswers, other: JobAnswers, usd: tuple[float | None, float | None], level: float = 0.95
) -> Comparison:
    """Compare two jobs' answers, row by row of the same key.

    Raises
    ------
    InputError
        They have no field, or no usable row, in common.
    """
    names = (one.folder.id, other.folder.id)
    fields = _pairs(one, other)
    if not fields:
        raise InputError(
            f"The jobs {names[0]} and {names[1]} have no field in common.",
            "Compare jobs that asked for the same labels or response_model.",
        )
    # Keys of other columns may have equal values and still name other rows: then nothing is
    # matched.
    there = one.keys.column_names == other.keys.column_names
    at = find_keys(one.keys, other.keys) if there else np.full(one.keys.num_rows, -1)
    rows = np.flatnonzero(np.isin(at, other.usable) & np.isin(np.arange(len(at)), one.usable))
    if not len(rows):
        raise InputError(
            f"No row is usable in both {names[0]} and {names[1]}.",
            "Compare jobs over the same rows, named by the same key, once both have answers.",
        )
    keys = one.frame.iloc[rows, : len(one.folder.key_names)].reset_index(drop=True)
    keys = keys.set_axis(key_beside(one.folder.key_names, ("field", "one", "other")), axis=1)
    agreement, churn, changed = {}, {}, []
    for name, second in fields.items():
        own, theirs = one.fields[name], other.fields[second]
        # A table of both answers needs the same labels on both sides; free text has no such table.
        labels = own.labels if own.labels and {*own.labels} == {*(theirs.labels or ())} else None
        same, labelled, kept = np.empty(len(rows), bool), list[Pair](), list[Pair]()
        # Some at a time: all texts of both jobs as Python's objects would be as large as both.
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            pairs = list(zip(one.values(name, some), other.values(second, at[some]), strict=True))
            # As texts: two jobs may have asked for one value as a label and as a number.
            equal = [own.spelled(x) == theirs.spelled(y) for x, y in pairs]
            same[start : start + len(some)] = equal
            labelled += [] if labels is None else pairs
            kept += [pair for pair, alike in zip(pairs, equal, strict=True) if not alike]
        agreement[name] = wilson(int(same.sum()), len(same), level)
        if labels is not None:
            cells = [np.array(values, object) for values in zip(*labelled, strict=True)]
            churn[name] = confusion(cells[0], cells[1], labels, names)
        table = keys[~same].reset_index(drop=True)
        table["field"] = name
        for i, column in enumerate(("one", "other")):
            table[column] = pd.Series([pair[i] for pair in kept], dtype=object)
        changed.append(table)
    return Comparison(names, agreement, churn, pd.concat(changed, ignore_index=True), usd)


def _pairs(one: JobAnswers, other: JobAnswers) -> dict[str, str]:
    """Pair the fields by name; single values are named after their jobs, so pair those as well."""
    if len(one.fields) == 1 and len(other.fields) == 1:
        return {next(iter(one.fields)): next(iter(other.fields))}
    return {name: name for name in one.fields if name in other.fields}
