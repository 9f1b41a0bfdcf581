"""`Evaluation`: how right a job's answers are, from what was judged, within which bounds."""

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
from frameenrich.evaluation.agreement import cohen_kappa, confusion, krippendorff_alpha
from frameenrich.evaluation.calibration import Calibration, calibration
from frameenrich.evaluation.intervals import (
    Interval,
    clopper_pearson,
    stratified,
    what_rows_buy,
    wilson,
    without_bounds,
)
from frameenrich.evaluation.judged import Judged, is_label, judge
from frameenrich.evaluation.recall import label_figures
from frameenrich.evaluation.reviewed import Design, Drawn, Floats, Reviewed, Verdict
from frameenrich.evaluation.shares import corrected_shares
from frameenrich.evaluation.threshold import Threshold, find_threshold

PICKED = (
    "These rows were picked, so this is agreement with them and no estimate for the others: review "
    "a random draw (df.llmbatch.review(job, n=100)), or pass drawn='random' where you vouch for it."
)
_TRUTH_ROWS = 1e9  # a full truth column is a sample of rows like these: no finite population


def _accuracy(judged: Judged, level: float) -> Interval:
    sure, design = judged.sure, judged.reviewed.design
    hits, n = float(judged.right[sure].sum()), int(sure.sum())
    if not n:
        return without_bounds(0, 0, level, "no reviewed rows")
    if design.drawn is Drawn.PICKED:
        return without_bounds(hits, n, level, "picked rows: agreement only")
    if design.drawn is Drawn.STRATIFIED and judged.reviewed.stratum is not None:
        strata = judged.reviewed.stratum[judged.first][sure]
        table = pd.DataFrame({"stratum": strata, "right": judged.right[sure]})
        each = table.groupby("stratum")["right"].agg(["sum", "size"]).sort_index()
        rows = [design.strata[str(name)] for name in each.index]
        return stratified(each["sum"].tolist(), each["size"].tolist(), rows, level)
    if design.drawn is Drawn.SIMPLE:
        return clopper_pearson(hits, n, level, population=design.usable - design.spent)
    return wilson(hits, n, level)


@dataclass(frozen=True)
class Field:
    """What is known of one output field; `Evaluation` shows the only or the first one's."""

    name: str
    judged: Judged
    level: float = 0.95

    @cached_property
    def accuracy(self) -> Interval:
        """The share of usable rows whose answer is right."""
        return _accuracy(self.judged, self.level)

    @cached_property
    def _truth_known(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        known = np.array([truth is not None for truth in self.judged.truths], np.bool_)
        both: np.ndarray[Any, np.dtype[np.bool_]] = np.logical_and(self.judged.sure, known)
        return both

    @cached_property
    def names(self) -> tuple[Any, ...]:
        """The labels, and after them what the truth has besides; none where there are no labels."""
        labels = self.judged.reviewed.labels
        if labels is None:
            return ()
        known = self._truth_known
        found = {t for t, ok in zip(self.judged.truths, known, strict=True) if ok}
        return (*labels, *sorted(found - set(labels), key=str))

    @property
    def unknown_labels(self) -> tuple[Any, ...]:
        """Labels of the truth that the job was not given; rows with them are wrong."""
        return self.names[len(self.judged.reviewed.labels or ()) :]

    @cached_property
    def confusion(self) -> pd.DataFrame | None:
        """Reviewed rows by answer (rows) and truth (columns); None without labels."""
        if not self.names:
            return None
        answers, truths = self._pairs
        return confusion(answers, truths, self.names, ("answer", "truth"))

    @property
    def _pairs(self) -> tuple[Any, Any]:
        known = self._truth_known
        truths = np.empty(len(known), object)
        truths[:] = self.judged.truths
        return self.judged.reviewed.answers[self.judged.first][known], truths[known]

    @cached_property
    def _counts(self) -> tuple[Floats, Floats]:
        """Reviewed rows by answer and truth at their effective size, and all rows by answer."""
        at = {label: place for place, label in enumerate(self.names)}
        size, weights = len(self.names), self.judged.weights[self._truth_known]
        sums, squares = np.zeros((size, size)), np.zeros(size)
        for answer, truth, weight in zip(*self._pairs, weights, strict=True):
            sums[at[answer], at[truth]] += weight
            squares[at[answer]] += weight**2
        total = sums.sum(1)
        counts = sums * np.where(total > 0, total / np.maximum(squares, 1e-300), 0)[:, None]
        design = self.judged.reviewed.design
        if design.drawn in {Drawn.TRUTH, Drawn.PICKED}:
            return counts, counts.sum(1) * _TRUTH_ROWS
        known = design.answer_counts.get(self.name, {})
        return counts, np.array([float(known.get(label, 0)) for label in self.names])

    @cached_property
    def labels(self) -> pd.DataFrame | None:
        """For each label: ``n``, and precision, recall and f1, each with low and high.

        Bounds are NaN where `note` says "too few", or rows were picked.
        """
        if not self.names:
            return None
        counts, rows = self._counts
        table = pd.DataFrame(index=pd.Index(list(self.names), name=self.name))
        whole = self.confusion
        table["n"] = [] if whole is None else whole.sum(axis=0).to_numpy()
        few = np.zeros(len(self.names), bool)
        for name, made in label_figures(counts, rows, self.level).items():
            table[name] = made.estimate
            table[f"{name}_low"] = made.low if self._bounded else np.nan
            table[f"{name}_high"] = made.high if self._bounded else np.nan
            few |= made.few
        table["note"] = np.where(few, "too few", "")
        return table

    @property
    def _bounded(self) -> bool:
        return self.judged.reviewed.design.drawn is not Drawn.PICKED

    @cached_property
    def shares(self) -> pd.DataFrame | None:
        """For each label: the share ``counted`` in the answers, and the ``corrected`` one."""
        counts, rows = self._counts if self.names else (np.zeros((0, 0)), np.zeros(0))
        if not counts.sum() or not rows.sum():
            return None
        simple = self.judged.reviewed.design.drawn is not Drawn.STRATIFIED
        made = corrected_shares(counts, rows, self.level, simple=simple)
        low, high = (made.low, made.high) if self._bounded else (np.nan, np.nan)
        columns = {"counted": rows / rows.sum(), "corrected": made.estimate}
        table = pd.DataFrame(columns, index=pd.Index(list(self.names), name=self.name))
        table["low"], table["high"] = low, high
        table["note"] = np.where(made.few, "reviewed rows alone", "")
        return table

    @cached_property
    def kappa(self) -> Interval | None:
        """Agreement of answers and truth beyond chance; None without labels."""
        if not self.names or not self._truth_known.any():
            return None
        made = cohen_kappa(np.asarray(self.confusion, float), self.level)
        simple = self.judged.reviewed.design.drawn in {Drawn.SIMPLE, Drawn.TRUTH, Drawn.RANDOM}
        return made if simple else replace(made, low=math.nan, high=math.nan, method="no interval")

    @cached_property
    def alpha(self) -> float | None:
        """Krippendorff's alpha of the reviewers; None where no row has two of them."""
        reviewed = self.judged.reviewed
        ratings: dict[int, list[Any]] = {}
        for row, answer, truth, verdict in zip(
            reviewed.rows.tolist(),
            reviewed.answers,
            reviewed.truths,
            reviewed.verdicts,
            strict=True,
        ):
            if verdict != Verdict.UNSURE:
                own = answer if verdict == Verdict.RIGHT else truth
                value = own if reviewed.labels is not None and is_label(own) else str(verdict)
                ratings.setdefault(row, []).append(value)
        if not any(len(values) > 1 for values in ratings.values()):
            return None
        return krippendorff_alpha(list(ratings.values()))

    @cached_property
    def calibration(self) -> Calibration | None:
        """Return what the scores are worth; None where no reviewed row has one."""
        sure, judged = self.judged.sure, self.judged
        return calibration(
            judged.scores[sure], judged.right[sure], judged.weights[sure], level=self.level
        )

    @cached_property
    def disagreements(self) -> pd.DataFrame:
        """The wrong rows: key, ``field``, ``answer``, ``truth`` and ``score``."""
        wrong = np.flatnonzero(self.judged.right == 0)
        reviewed, at = self.judged.reviewed, self.judged.first[wrong]
        keys = reviewed.keys
        table = (
            pd.DataFrame({"row": reviewed.rows[at]}) if keys is None else keys.iloc[at].copy()
        ).reset_index(drop=True)
        table["field"] = self.name
        table["answer"] = pd.Series(list(reviewed.answers[at]), dtype=object)
        table["truth"] = pd.Series([self.judged.truths[i] for i in wrong], dtype=object)
        table["score"] = self.judged.scores[wrong]
        return table


@dataclass(frozen=True)
class Evaluation:
    """How right a job's answers are; ``df.llmbatch.evaluate`` and ``job.evaluate`` make it.

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
                f"No reviewed row has the field {name!r}.", f"There are {', '.join(self.each)}."
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
        if len(self.each) == 1:
            return self._first.accuracy
        by_row: dict[int, list[float]] = {}
        for field in self.each.values():
            for row, right in zip(_rows(field.judged), field.judged.right, strict=True):
                by_row.setdefault(row, []).append(right)
        first = self._first.judged
        judged = replace(first, reviewed=replace(first.reviewed, design=self.design))
        rows = _rows(first)
        whole = [by_row[row] if len(by_row[row]) == len(self.each) else [math.nan] for row in rows]
        # min() passes NaN by or not, depending on its place; NumPy's always keeps it.
        return _accuracy(replace(judged, right=np.array([np.min(v) for v in whole])), self.level)

    @cached_property
    def accuracy_all(self) -> Interval:
        """The share of all rows that are right; flagged rows count as wrong."""
        usable, flagged = self.design.usable, self.design.flagged
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
        """Return what the first field's scores are worth."""
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
        for name, value in (("precision", precision), ("confidence", confidence)):
            if not 0 < value < 1:
                raise ParameterError(
                    f"{name}={value!r} is no share.", "Give a number between 0 and 1, such as 0.95."
                )
        judged = (self._first if field is None else self[field]).judged
        if self.design.drawn is Drawn.PICKED:
            return Threshold(precision, confidence, reason=f"No threshold: {PICKED}")
        sure = judged.sure
        return find_threshold(
            judged.scores[sure],
            judged.right[sure],
            precision=precision,
            confidence=confidence,
            weights=judged.weights[sure],
            population=self.design.scores.get(judged.reviewed.field),
        )

    @cached_property
    def disagreements(self) -> pd.DataFrame:
        """The wrong rows of every field, truth beside answer."""
        return pd.concat([f.disagreements for f in self.each.values()], ignore_index=True)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Sentences to read with the figures."""
        found = [PICKED] if self.design.drawn is Drawn.PICKED else []
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
        if n and self.accuracy.bounded and self.design.drawn is not Drawn.TRUTH:
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
        """Return every figure as JSON has it: None for what there is not."""
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
            f"<div class='fe-evaluation'>{_STYLE}<b>{html.escape(str(self))}</b>"
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
    """Return a table of labels as JSON records."""
    if table is None:
        return None
    named = table.rename_axis("label").reset_index().astype({"label": str})
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
        raise ParameterError(f"level={level!r} is no share.", "Give 0.95, say.")
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
