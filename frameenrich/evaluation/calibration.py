"""Calibration of scores, and how well they separate right rows from wrong ones."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from frameenrich.evaluation.intervals import scipy, wilson
from frameenrich.evaluation.reviewed import Floats
from frameenrich.text import NO_MATH

MANY_REVIEWED = 200
"""Reviewed rows that Venn-Abers needs; with fewer, one temperature is fitted."""


@dataclass(frozen=True)
class Calibrator:
    """A map from scores to probabilities of being right, learned from reviewed rows."""

    method: str
    temperature: float = 1.0
    steps: Floats = field(default_factory=lambda: np.empty(0))
    values: Floats = field(default_factory=lambda: np.empty(0))

    def __call__(self, score: Floats) -> Floats:
        """Return the probability that each row is right; NaN where the score is."""
        if self.method == "temperature":
            probability: Floats = scipy("special").expit(_logit(score) / self.temperature)
            return probability
        # 2 m + 1 cells: between known scores, and at each of them.
        below = np.searchsorted(self.steps, score, side="left")
        here = np.searchsorted(self.steps, score, side="right")
        return np.where(np.isnan(score), np.nan, self.values[below + here])


def _logit(score: Floats) -> Floats:
    # A share of votes is often exactly 0 or 1, whose logit is infinite.
    inside = np.clip(score, 1e-6, 1 - 1e-6)
    return np.log(inside) - np.log1p(-inside)


def calibrate(score: Floats, right: Floats, weights: Floats | None = None) -> Calibrator:
    """Learn a `Calibrator`: one temperature below 200 reviewed rows, Venn-Abers from there on.

    Notes
    -----
    Temperature: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML
    2017. Venn-Abers: Vovk, Petej and Fedorova, "Large-scale probabilistic predictors with and
    without guarantees of validity", NeurIPS 2015; the two probabilities p0 and p1 become one,
    p1 / (1 - p0 + p1), which minimises the regret of the log loss.
    """
    weights = np.ones(len(score)) if weights is None else weights
    if len(score) < MANY_REVIEWED:
        return Calibrator("temperature", _temperature(score, right, weights))
    steps = np.unique(score)
    at = np.searchsorted(steps, score)
    mass = np.bincount(at, weights, len(steps)).astype(float)
    hits = np.bincount(at, weights * right, len(steps)).astype(float)
    # The row whose probability is sought is added with the mean weight, once wrong, once right.
    one = float(weights.mean())
    values = np.empty(2 * len(steps) + 1)
    for cell in range(len(values)):
        position, known = cell // 2, cell % 2 == 1
        low, high = (
            _isotonic_with(mass, hits, position, known=known, mass_here=one, hit=hit)
            for hit in (0.0, one)
        )
        values[cell] = high / (1 - low + high)
    return Calibrator("Venn-Abers", steps=steps, values=values)


def _temperature(score: Floats, right: Floats, weights: Floats) -> float:
    logits = _logit(score)

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return float(weights @ (np.logaddexp(0.0, scaled) - right * scaled))

    # The logarithm is bounded, since all-right rows would draw the temperature to zero.
    found = scipy("optimize").minimize_scalar(loss, bounds=(-3.0, 5.0), method="bounded")
    return math.exp(float(found.x))


def _isotonic_with(
    mass: Floats, hits: Floats, position: int, *, known: bool, mass_here: float, hit: float
) -> float:
    """Fit an isotonic regression with one more row, and return its value there."""
    if known:
        mass, hits = mass.copy(), hits.copy()
        mass[position] += mass_here
        hits[position] += hit
    else:
        mass, hits = np.insert(mass, position, mass_here), np.insert(hits, position, hit)
    fitted = scipy("optimize").isotonic_regression(hits / mass, weights=mass)
    return float(fitted.x[position])


@dataclass(frozen=True)
class Calibration:
    """The quality of a field's scores.

    Parameters
    ----------
    auroc : float
        How often a right row has a higher score than a wrong one; 0.5 is chance.
    ece : float
        The mean distance of score and share of right rows over equally filled bins.
    reliability : DataFrame
        For each bin: ``score``, ``right``, ``low``, ``high``, ``n``.
    risk_coverage : DataFrame
        ``score``, ``coverage`` and ``risk``: the share of rows at or above, and of those wrong.
    calibrator : Calibrator
        From scores to probabilities.
    """

    auroc: float
    ece: float
    reliability: pd.DataFrame
    risk_coverage: pd.DataFrame
    calibrator: Calibrator

    def __str__(self) -> str:
        known = not math.isnan(self.auroc)
        sorts = f"a right row has the higher one in {self.auroc:.0%}; " if known else ""
        return f"scores: {sorts}on average {self.ece:.2f} away from the share of right rows"

    def _repr_html_(self) -> str:
        table = self.reliability.round(2).to_html(index=False, border=0)
        return (
            f"<div class='{NO_MATH}' style='color:inherit;overflow-x:auto'>"
            f"{html.escape(str(self))}{table}</div>"
        )


def calibration(
    score: Floats, right: Floats, weights: Floats | None = None, *, level: float = 0.95
) -> Calibration | None:
    """Measure how good the scores are; None where no reviewed row has one.

    Notes
    -----
    Equally filled bins: Nguyen and O'Connor, EMNLP 2015. Risk and coverage: Geifman and El-Yaniv,
    NeurIPS 2017. AUROC is the Mann-Whitney statistic with ties counted half.
    """
    known = ~np.isnan(score)
    score, right = score[known], np.asarray(right, float)[known]
    weights = np.ones(len(score)) if weights is None else np.asarray(weights, float)[known]
    if not len(score):
        return None
    # Ties are sorted by outcome, so that the bins depend on no order of rows.
    order = np.lexsort((right, score))
    score, right, weights = score[order], right[order], weights[order]
    # At least ten rows a bin: a share of fewer says little.
    bins = np.array_split(np.arange(len(score)), max(1, min(10, len(score) // 10)))
    reliability = pd.DataFrame([_bin(score[b], right[b], weights[b], level) for b in bins])
    gaps = (reliability["score"] - reliability["right"]).abs()
    ece = float(np.average(gaps, weights=reliability["n"]))
    return Calibration(
        auroc(score, right, weights),
        ece,
        reliability,
        _risk_coverage(score, right, weights),
        calibrate(score, right, weights),
    )


def _bin(score: Floats, right: Floats, weights: Floats, level: float) -> dict[str, float]:
    share = float(np.average(right, weights=weights))
    # Kish's effective size: unequal weights make rows count for less in the interval.
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    made = wilson(share * effective, effective, level)
    return {
        "score": float(np.average(score, weights=weights)),
        "right": share,
        "low": made.low,
        "high": made.high,
        "n": len(score),
    }


def _risk_coverage(score: Floats, right: Floats, weights: Floats) -> pd.DataFrame:
    down = slice(None, None, -1)
    total = np.cumsum(weights[down])
    risk = np.cumsum((weights * (1 - right))[down]) / total
    # One point for each score: no threshold can part rows of the same score.
    last = np.append(score[down][1:] != score[down][:-1], True)
    table = {"score": score[down], "coverage": total / total[-1], "risk": risk}
    return pd.DataFrame({name: column[last] for name, column in table.items()})


def auroc(score: Floats, right: Floats, weights: Floats | None = None) -> float:
    """Return the share of pairs where the right row scores above the wrong one, or NaN."""
    weights = np.ones(len(score)) if weights is None else weights
    levels, at = np.unique(score, return_inverse=True)
    good = np.bincount(at, weights * right, len(levels))
    bad = np.bincount(at, weights * (1 - right), len(levels))
    if not good.sum() or not bad.sum():
        return math.nan
    below = np.cumsum(bad) - bad
    return float((good * (below + bad / 2)).sum() / (good.sum() * bad.sum()))
