"""`Evaluation`: the accuracy of a job's answers, with bounds, from judged rows."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.errors import InputError, ParameterError
from frameenrich.evaluation.calibration import Calibration
from frameenrich.evaluation.field_figures import Field, accuracy_of, picked_note
from frameenrich.evaluation.intervals import Interval, what_rows_buy
from frameenrich.evaluation.judged import Judged, judge
from frameenrich.evaluation.reviewed import Design, Drawn, Floats, Reviewed
from frameenrich.evaluation.threshold import Threshold, find_threshold
from frameenrich.text import NO_MATH


@dataclass(frozen=True)
class Evaluation:
    """The accuracy of a job's answers, from ``df.llmbatch.evaluate`` or ``job.evaluate``.

    ``labels``, ``confusion``, ``kappa``, ``alpha``, ``shares``, ``calibration`` and ``threshold``
    are the first field's; ``[name]`` gives another's.
    """

    job: str
    design: Design
    each: Mapping[str, Field]
    level: float = 0.95

    def __getitem__(self, name: str) -> Field:
        if name not in self.each:
            raise ParameterError(
                f"No reviewed row has the field {name!r}.", f"Use one of: {', '.join(self.each)}."
            )
        return self.each[name]

    @property
    def _first(self) -> Field:
        return next(iter(self.each.values()))

    @property
    def fields(self) -> dict[str, Interval]:
        """The accuracy of each field."""
        return {name: field.accuracy for name, field in self.each.items()}

    @cached_property
    def accuracy(self) -> Interval:
        """The share of usable rows that are right: with several fields, right in all of them."""
        return self._first.accuracy if len(self.each) == 1 else accuracy_of(self.whole, self.level)

    @cached_property
    def whole(self) -> Judged:
        """Judgements on whole rows: right where every field is, scored by the least sure field."""
        if len(self.each) == 1:
            return self._first.judged
        by_row: dict[int, list[float]] = {}
        for field in self.each.values():
            for row, right in zip(_rows(field.judged), field.judged.right, strict=True):
                by_row.setdefault(row, []).append(right)
        first = self._first.judged
        judged = replace(first, reviewed=replace(first.reviewed, design=self.design))
        rows = _rows(first)
        # A row whose other fields nobody judged may still be wrong there: it counts neither way.
        whole = [by_row[row] if len(by_row[row]) == len(self.each) else [math.nan] for row in rows]
        least = pd.DataFrame({name: self._scores(field) for name, field in self.each.items()})
        scores: Floats = least.reindex(rows).min(axis=1, skipna=False).to_numpy(float)
        judged = replace(judged, reviewed=replace(judged.reviewed, score=None), own_scores=scores)
        # min() passes NaN by or not, depending on its position; NumPy's always keeps it.
        return replace(judged, right=np.array([np.min(v) for v in whole]))

    @staticmethod
    def _scores(field: Field) -> pd.Series:
        return pd.Series(field.judged.scores, index=_rows(field.judged))

    @cached_property
    def accuracy_all(self) -> Interval:
        """The share of all rows that are right; flagged rows count as wrong."""
        usable, flagged = self.design.usable, self.design.flagged
        # Flagged rows are wrong for certain: they scale the figures and add no doubt.
        part = usable / (usable + flagged) if usable + flagged else math.nan
        made = self.accuracy
        return replace(
            made, estimate=made.estimate * part, low=made.low * part, high=made.high * part
        )

    @property
    def labels(self) -> pd.DataFrame | None:
        """For each label of the first field: n, precision, recall, f1, each with low and high."""
        return self._first.labels

    @property
    def confusion(self) -> pd.DataFrame | None:
        """Reviewed rows of the first field by answer and truth."""
        return self._first.confusion

    @property
    def kappa(self) -> Interval | None:
        """Agreement of answers and truth beyond chance, of the first field."""
        return self._first.kappa

    @property
    def alpha(self) -> float | None:
        """Krippendorff's alpha of the reviewers, of the first field."""
        return self._first.alpha

    @property
    def shares(self) -> pd.DataFrame | None:
        """For each label of the first field: the share counted, corrected, low, high."""
        return self._first.shares

    @property
    def calibration(self) -> Calibration | None:
        """The quality of the first field's scores."""
        return self._first.calibration

    def threshold(
        self, precision: float = 0.95, confidence: float = 0.9, field: str | None = None
    ) -> Threshold:
        """Find a score from which on rows are right as often as promised.

        Parameters
        ----------
        precision : float
            How often the kept rows have to be right.
        confidence : float
            How surely; at most ``1 - confidence`` of such promises break.
        field : str, optional
            Whose scores; by default the first field's.
        """
        judged = (self._first if field is None else self[field]).judged
        return self._threshold(
            judged, self.design.scores.get(judged.reviewed.field), precision, confidence
        )

    def row_threshold(self, precision: float = 0.95, confidence: float = 0.9) -> Threshold:
        """Find a score from which on whole rows are right: with several fields, all of them."""
        known = [
            scores for name in self.each if (scores := self.design.scores.get(name)) is not None
        ]
        # A row is as sure as its least sure field, so one field without scores leaves it unknown.
        population = np.min(np.stack(known), axis=0) if len(known) == len(self.each) else None
        return self._threshold(self.whole, population, precision, confidence)

    def _threshold(
        self, judged: Judged, population: Floats | None, precision: float, confidence: float
    ) -> Threshold:
        for name, value in (("precision", precision), ("confidence", confidence)):
            if not 0 < value < 1:
                raise ParameterError(
                    f"{name}={value!r} is not a share.",
                    "Give a number between 0 and 1, such as 0.95.",
                )
        if self.design.drawn is Drawn.PICKED:
            # A threshold is a promise about unjudged rows, which picked rows say nothing about.
            return Threshold(
                precision, confidence, reason=f"No threshold: {picked_note(self.design)}"
            )
        sure = judged.sure
        return find_threshold(
            judged.scores[sure],
            judged.right[sure],
            precision=precision,
            confidence=confidence,
            weights=judged.weights[sure],
            population=population,
        )

    @cached_property
    def disagreements(self) -> pd.DataFrame:
        """The wrong rows of every field, truth beside answer."""
        return pd.concat([f.disagreements for f in self.each.values()], ignore_index=True)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Sentences to read with the figures."""
        found = [picked_note(self.design)] if self.design.drawn is Drawn.PICKED else []
        found += [f"{note}." for note in self.design.notes]
        for name, field in self.each.items():
            unsure = int((~field.judged.sure).sum()) - field.judged.split
            if unsure:
                found.append(f"{name}: {unsure:,} unsure rows count neither way.")
            if field.judged.split:
                found.append(
                    f"{name}: reviewers are divided on {field.judged.split:,} rows, which count "
                    "neither way."
                )
            if field.unknown_labels:
                listed = ", ".join(map(str, field.unknown_labels[:10]))
                found.append(f"{name}: the truth has labels that nobody gave the job: {listed}.")
        n = self.accuracy.n
        every = n >= self.design.usable - self.design.spent  # then there is nothing to guess
        if n and not every and self.accuracy.bounded and self.design.drawn is not Drawn.TRUTH:
            found.append(what_rows_buy(n))
        return tuple(found)

    def __str__(self) -> str:
        made = self.accuracy
        word = "agrees" if self.design.drawn is Drawn.PICKED else "right"
        usable, every = self.design.usable, self.design.usable + self.design.flagged
        share = f"usable {100 * usable / every:.0f} %, " if every else ""
        return f"{share}{word} {made}, {made.n:,} reviewed"

    def __repr__(self) -> str:
        return "\n".join([f"<Evaluation of {self.job}: {self}>", *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Return every figure in JSON's types; None for missing ones."""
        return {
            "job": self.job,
            "drawn": str(self.design.drawn),
            "usable": self.design.usable,
            "flagged": self.design.flagged,
            "accuracy": self.accuracy.to_dict(),
            "accuracy_all": self.accuracy_all.to_dict(),
            "fields": {name: _field_dict(field) for name, field in self.each.items()},
            "notes": list(self.notes),
        }

    def _repr_html_(self) -> str:
        rows = [("usable rows", self.accuracy), ("all rows, flagged ones wrong", self.accuracy_all)]
        rows += [(name, made) for name, made in self.fields.items() if len(self.each) > 1]
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(made))}</td>"
            f"<td>{made.n:,} reviewed</td><td>{html.escape(made.method)}</td></tr>"
            for name, made in rows
        )
        tables = "".join(
            f"<div class='fe-scroll'>{table.round(3).to_html(border=0, na_rep='')}</div>"
            for table in (self.shares, self.labels)
            if table is not None
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return (
            f"<div class='fe-evaluation {NO_MATH}'>{_STYLE}<b>{html.escape(str(self))}</b>"
            f"<div class='fe-scroll'><table>{cells}</table></div>{tables}{notes}</div>"
        )


# Colours are the notebook's own, so that light and dark both read; wide tables scroll.
_STYLE = (
    "<style>.fe-evaluation{color:inherit;max-width:60rem;font:inherit}"
    ".fe-evaluation .fe-scroll{overflow-x:auto;max-width:100%}"
    ".fe-evaluation td,.fe-evaluation th{padding:.15rem .6rem;text-align:left;background:none;"
    "color:inherit}</style>"
)


def _rows(judged: Judged) -> list[int]:
    rows: list[int] = judged.reviewed.rows[judged.first].tolist()
    return rows


def _field_dict(field: Field) -> dict[str, Any]:
    made = field.calibration
    return {
        "accuracy": field.accuracy.to_dict(),
        "labels": _records(field.labels),
        "shares": _records(field.shares),
        "kappa": None if field.kappa is None else field.kappa.to_dict(),
        "alpha": None if field.alpha is None or math.isnan(field.alpha) else field.alpha,
        "calibration": None
        if made is None
        else {
            "auroc": None if math.isnan(made.auroc) else made.auroc,
            "ece": made.ece,
            "method": made.calibrator.method,
        },
    }


def _records(table: pd.DataFrame | None) -> Any:
    """Convert a table of labels to JSON records."""
    if table is None:
        return None
    named = table.rename_axis("label").reset_index().astype({"label": str})
    # 15 digits are the most that pandas writes; its default is 10.
    return json.loads(named.to_json(orient="records", double_precision=15))


def evaluate_fields(job: str, reviewed: Mapping[str, Reviewed], level: float = 0.95) -> Evaluation:
    """Make an `Evaluation` of what was judged.

    Parameters
    ----------
    job : str
        The job's id, for people.
    reviewed : mapping
        What was judged of each field; all of one design.
    level : float
        How often each interval has to hold the truth.

    Raises
    ------
    InputError
        Nothing was judged.
    """
    if not 0 < level < 1:
        raise ParameterError(
            f"level={level!r} is not a share.", "Give a number between 0 and 1, such as 0.95."
        )
    judged = {name: made for name, made in reviewed.items() if len(made.rows)}
    if not judged:
        raise InputError(
            f"No row of the job {job} has been reviewed.",
            "Judge the rows of the page or the sheet, and add it: job.add_review('review.csv').",
        )
    each = {name: Field(name, judge(made), level) for name, made in judged.items()}
    # Where one field's rows were picked, so were those that have every field.
    weakest = [Drawn.TRUTH, Drawn.SIMPLE, Drawn.STRATIFIED, Drawn.RANDOM, Drawn.PICKED].index
    design = max((made.design for made in judged.values()), key=lambda own: weakest(own.drawn))
    return Evaluation(job, design, each, level)
