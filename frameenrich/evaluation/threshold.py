"""Find a score from which on rows are right as often as promised."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass

import numpy as np

from frameenrich.evaluation.intervals import rows_without_error, scipy
from frameenrich.evaluation.reviewed import Floats
from frameenrich.text import NO_MATH


@dataclass(frozen=True)
class Threshold:
    """A score with a promise, or the reason why there is none; ``bool()`` says which.

    Parameters
    ----------
    precision, confidence : float
        Rows with at least `score` are right with at least `precision`; the promise is kept with
        probability `confidence`.
    score : float
        The threshold; NaN where none can be promised.
    kept : float
        The share of usable rows at or above it.
    n : int
        Reviewed rows at or above it.
    reason : str
        Why there is none, and what would help.
    """

    precision: float
    confidence: float
    score: float = math.nan
    kept: float = 0.0
    n: int = 0
    reason: str = ""

    def __bool__(self) -> bool:
        return not math.isnan(self.score)

    def _repr_html_(self) -> str:
        return f"<div class='{NO_MATH}' style='color:inherit'>{html.escape(str(self))}</div>"

    def __str__(self) -> str:
        if not self:
            return self.reason
        return (
            f"With score ≥ {self.score:.2f} {100 * self.kept:.0f} % of the rows can be kept at "
            f"{100 * self.precision:.0f} % right, promised with {100 * self.confidence:.0f} % "
            f"confidence ({self.n} reviewed rows)."
        )


def find_threshold(
    score: Floats,
    right: Floats,
    *,
    precision: float = 0.95,
    confidence: float = 0.9,
    weights: Floats | None = None,
    population: Floats | None = None,
    steps: int = 20,
) -> Threshold:
    """Find the loosest score that can be promised.

    Parameters
    ----------
    score, right : array
        Of each reviewed row: its score, and 1 where it is right, else 0.
    precision, confidence : float
        What to promise, and how surely.
    weights : array, optional
        The inverse of each row's inclusion probability.
    population : array, optional
        The scores of all usable rows, for the share that is kept.
    steps : int
        How many thresholds are tried at most.

    Notes
    -----
    Fixed-sequence testing: Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test", Annals
    of Applied Statistics 19 (2025); each test is the exact binomial one. The sequence goes from
    strict to loose, is made of scores alone, and stops at the first failure, so that no correction
    for trying many is needed. With weights the error rate is weighted and n is Kish's effective
    size ("Survey Sampling", 1965).
    """
    # A row without a score can neither be kept nor left out by one.
    known = ~np.isnan(score)
    score, right = score[known], np.asarray(right, float)[known]
    weights = np.ones(len(score)) if weights is None else np.asarray(weights, float)[known]
    needed = rows_without_error(precision, confidence)
    if not len(score):
        reason = "No threshold: no reviewed row has a score."
        return Threshold(precision, confidence, reason=reason)
    order = np.lexsort((right, -score))
    score, right, weights = score[order], right[order], weights[order]
    last = np.append(score[1:] != score[:-1], True)  # ties stand or fall together
    total = np.cumsum(weights)
    effective = total**2 / np.cumsum(weights**2)
    wrong = effective * np.cumsum(weights * (1 - right)) / total
    # With fewer rows even an errorless test fails, and the sequence would stop at its start.
    ends = np.flatnonzero(last & (effective >= needed - 1e-9))
    if len(ends) > steps:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, steps).round().astype(int))]
    upper = scipy("special").betaincinv(
        wrong[ends] + 1, np.maximum(effective[ends] - wrong[ends], 1e-9), confidence
    )
    passed = upper <= 1 - precision + 1e-9
    # Up to the first failure only: a later one that passes proves nothing.
    held = len(ends) if passed.all() else int(np.argmin(passed))
    if not held:
        return Threshold(
            precision, confidence, reason=_why_none(len(score), right, precision, needed)
        )
    at = ends[held - 1]
    kept = score if population is None or not len(population) else population
    return Threshold(
        precision,
        confidence,
        float(score[at]),
        float(np.mean(kept >= score[at])),
        int(at) + 1,
    )


def _why_none(n: int, right: Floats, precision: float, needed: int) -> str:
    """Explain why nothing can be promised, and estimate how many rows would be enough."""
    start = f"No threshold can be promised with {n:,} reviewed rows"
    if n < needed:
        return f"{start}; about {needed - n:,} more would do if none of them is wrong."
    top = float(np.mean(right[: max(needed, n // 4)]))
    if top <= precision:
        return (
            f"{start}: the surest quarter of them is right in {100 * top:.0f} %, and "
            f"{100 * precision:.0f} % is wanted. Ask for less, or improve the answers."
        )
    gap = top - precision
    more = math.ceil(1.7**2 * precision * (1 - precision) / gap**2) * 4
    return f"{start}; about {max(more - n, needed):,} more would do."
