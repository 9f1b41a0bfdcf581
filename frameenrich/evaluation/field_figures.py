"""`Field`: the figures of one output field, from its judged rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.evaluation.agreement import cohen_kappa, confusion, krippendorff_alpha
from frameenrich.evaluation.calibration import Calibration, calibration
from frameenrich.evaluation.draw import first_review
from frameenrich.evaluation.intervals import (
    Interval,
    clopper_pearson,
    stratified,
    wilson,
    without_bounds,
)
from frameenrich.evaluation.judged import Judged, is_label
from frameenrich.evaluation.recall import label_figures
from frameenrich.evaluation.reviewed import Design, Drawn, Floats, Verdict
from frameenrich.evaluation.shares import corrected_shares

_TRUTH_ROWS = 1e9  # a full truth column is a sample of rows like these: no finite population


def picked_note(design: Design) -> str:
    """Explain why picked rows give no interval, and how to get one."""
    call = f"df.llmbatch.review(job, n={first_review(design.usable)})"
    return (
        "These rows were picked, so this is agreement with them and no estimate for the others: "
        f"review a random draw ({call}), or pass drawn='random' where you vouch for it."
    )


def accuracy_of(judged: Judged, level: float) -> Interval:
    """Estimate the share of right rows, with the bounds that their design allows."""
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
        # Both are in the order of `each.index`, by which the strata's rows are weighted.
        rows = [design.strata[str(name)] for name in each.index]
        return stratified(each["sum"].tolist(), each["size"].tolist(), rows, level)
    if design.drawn is Drawn.SIMPLE:
        # Spent rows could not be drawn, so the draw says nothing of them.
        return clopper_pearson(hits, n, level, population=design.usable - design.spent)
    return wilson(hits, n, level)


@dataclass(frozen=True)
class Field:
    """The figures of one output field; `Evaluation` shows those of the first."""

    name: str
    judged: Judged
    level: float = 0.95

    @cached_property
    def accuracy(self) -> Interval:
        """The share of usable rows whose answer is right."""
        return accuracy_of(self.judged, self.level)

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
        # Sorted, since a set has no order of its own and figures must not change between runs.
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
        # Filled by slice: np.array() would make a 2-D array of truths that are lists.
        truths = np.empty(len(known), object)
        truths[:] = self.judged.truths
        return self.judged.reviewed.answers[self.judged.first][known], truths[known]

    @cached_property
    def _counts(self) -> tuple[Floats, Floats]:
        """Reviewed rows by answer and truth at their effective size, and all rows by answer."""
        at = {label: position for position, label in enumerate(self.names)}
        size, weights = len(self.names), self.judged.weights[self._truth_known]
        sums, squares = np.zeros((size, size)), np.zeros(size)
        for answer, truth, weight in zip(*self._pairs, weights, strict=True):
            sums[at[answer], at[truth]] += weight
            squares[at[answer]] += weight**2
        total = sums.sum(1)
        # Kish's effective size by answer: unequal weights count for fewer rows.
        counts = sums * np.where(total > 0, total / np.maximum(squares, 1e-300), 0)[:, None]
        design = self.judged.reviewed.design
        # No draw from the job's rows: the reviewed rows' own counts weight the answers.
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
        # The variance's formula is for a simple sample; strata would need another.
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
                # Without a label, reviewers agree where their verdicts do.
                own = answer if verdict == Verdict.RIGHT else truth
                value = own if reviewed.labels is not None and is_label(own) else str(verdict)
                ratings.setdefault(row, []).append(value)
        # With one reviewer a row there is nobody to agree with.
        if not any(len(values) > 1 for values in ratings.values()):
            return None
        return krippendorff_alpha(list(ratings.values()))

    @cached_property
    def calibration(self) -> Calibration | None:
        """Measure how good the scores are; None where no reviewed row has one."""
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
