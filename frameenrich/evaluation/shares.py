"""Shares of each label among all rows, corrected by what reviewed rows show of the model's errors.

Every function takes arrays with any leading axes, so that a simulation judges a thousand draws in
one call.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from frameenrich.evaluation.intervals import scipy
from frameenrich.evaluation.reviewed import Floats

FEW_REVIEWED = 10
"""With fewer reviewed rows of a class its share is estimated from those rows alone."""


class Bounds(NamedTuple):
    """Estimates with their bounds, and which come from the reviewed rows alone."""

    estimate: Floats
    low: Floats
    high: Floats
    few: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


class Moments(NamedTuple):
    """Mean and variance of how many rows of a stratum are of a class, given the reviewed ones."""

    mean: Floats
    variance: Floats


def predict_totals(hits: Floats, reviewed: Floats, rows: Floats, labels: int) -> Moments:
    """Predict how many of a stratum's rows are of a class, reviewed and unreviewed.

    Parameters
    ----------
    hits, reviewed : array
        How many of how many reviewed rows are of the class.
    rows : array
        The rows of the stratum.
    labels : int
        How many classes there are.

    Notes
    -----
    The rest is beta-binomial: Gelman et al., "Bayesian Data Analysis", 3rd edition, chapter 8
    (finite populations). With every row reviewed the variance is 0 and the mean the count. The
    variance is that of Jeffreys' prior, Beta(1/2, 1/2). The mean takes Perks' (Journal of the
    Institute of Actuaries 73, 1947), one row shared out among the labels: Jeffreys' half a row for
    each label in each stratum adds up over strata, and lifted small shares so far that their
    intervals missed the truth in 10 % of simulated reviews, nearly all of them above it.
    """
    rest = np.maximum(rows - reviewed, 0.0)
    share = (hits + 0.5) / (reviewed + 1)
    variance = rest * share * (1 - share) * (reviewed + 1 + rest) / (reviewed + 2)
    return Moments(hits + rest * (hits + 1 / labels) / (reviewed + 1), variance)


def corrected_shares(
    counts: Floats, rows: Floats, level: float = 0.95, *, simple: bool = True
) -> Bounds:
    """Return each label's share among all rows: the sum over h of W_h P(true = c | answer = h).

    Parameters
    ----------
    counts : array (..., H, C)
        Reviewed rows by answer and truth.
    rows : array (..., H)
        All rows by answer.
    level : float
        How often an interval has to hold the truth.
    simple : bool
        Whether the reviewed rows are a simple draw; else they were drawn for each answer.

    Returns
    -------
    Bounds
        Arrays (..., C). A label with fewer than ten reviewed rows gets the Wilson interval of the
        reviewed rows alone.

    Notes
    -----
    Post-stratification: Holt and Smith, JRSS A 142 (1979). The interval is of a beta with the
    moments of the sum of independent beta-binomials (`predict_totals`).
    """
    counts, rows = np.asarray(counts, float), np.asarray(rows, float)
    reviewed = counts.sum(-1)
    everything = counts.sum(-2)
    total = rows.sum(-1)[..., None]
    # An answer without reviewed rows is taken to be like all the others.
    unseen = (reviewed <= 0)[..., None]
    hits = np.where(unseen, 0.0, counts)
    size = np.where(unseen, 0.0, reviewed[..., None])
    # 1e-300 stands for zero here and below: 0 / 1e-300 is 0, without a warning.
    overall = everything / np.maximum(everything.sum(-1, keepdims=True), 1e-300)
    within = np.where(unseen, overall[..., None, :], counts / np.maximum(size, 1e-300))
    weights = (rows / np.maximum(rows.sum(-1, keepdims=True), 1e-300))[..., None]
    estimate = (weights * within).sum(-2)

    labels = counts.shape[-1]
    seen = predict_totals(hits, size, rows[..., None], labels)
    rest = predict_totals(
        everything[..., None, :], everything.sum(-1)[..., None, None], rows[..., None], labels
    )
    share = np.where(unseen, rest.mean / np.maximum(rest.mean.sum(-1, keepdims=True), 1e-300), 0)
    mean = np.where(unseen, share * rows[..., None], seen.mean).sum(-2) / total
    variance = np.where(unseen, rest.variance, seen.variance).sum(-2) / total**2
    # Of the means with a prior: below they are widened to hold the plain estimate.
    low, high = _beta_bounds(mean, variance, level)

    alone, effective = _reviewed_alone(counts, rows, estimate, simple=simple)
    wilson_low, wilson_high = wilson_bounds(alone, effective, level)
    exact = variance <= 0
    # With every row reviewed the shares are exact, however few rows a label has.
    few = (everything < FEW_REVIEWED) & ~exact
    return Bounds(
        np.where(few, alone, estimate),
        np.where(few, wilson_low, np.where(exact, estimate, np.minimum(low, estimate))),
        np.where(few, wilson_high, np.where(exact, estimate, np.maximum(high, estimate))),
        few,
    )


def _beta_bounds(mean: Floats, variance: Floats, level: float) -> tuple[Floats, Floats]:
    inside = np.clip(mean, 1e-12, 1 - 1e-12)
    # The beta distribution with this mean and variance, by the method of moments.
    strength = np.maximum(inside * (1 - inside) / np.maximum(variance, 1e-300) - 1, 1e-6)
    tail, quantile = (1 - level) / 2, scipy("special").betaincinv
    a, b = inside * strength, (1 - inside) * strength
    return quantile(a, b, tail), quantile(a, b, 1 - tail)


def _reviewed_alone(
    counts: Floats, rows: Floats, estimate: Floats, *, simple: bool
) -> tuple[Floats, Floats]:
    """Estimate each share without the model's answers, and the size of the sample for Wilson."""
    reviewed = counts.sum(-1)
    if simple:
        size = reviewed.sum(-1)[..., None]
        return counts.sum(-2) / np.maximum(size, 1e-300), np.broadcast_to(size, estimate.shape)
    weights = (rows / np.maximum(rows.sum(-1, keepdims=True), 1e-300))[..., None]
    smooth = (counts + 0.5) / (reviewed[..., None] + 1)
    variance = weights**2 * smooth * (1 - smooth) / np.maximum(reviewed[..., None], 1.0)
    middle = (weights * smooth).sum(-2)
    return estimate, middle * (1 - middle) / variance.sum(-2)


def wilson_bounds(share: Floats, size: Floats, level: float) -> tuple[Floats, Floats]:
    """Return Wilson's bounds of many shares at once, as `intervals.wilson` does of one."""
    z = float(scipy("special").ndtri((1 + level) / 2))
    size = np.maximum(size, 1e-9)
    middle = (share + z * z / (2 * size)) / (1 + z * z / size)
    half = z * np.sqrt(np.maximum(share * (1 - share), 0) / size + (z / (2 * size)) ** 2)
    half /= 1 + z * z / size
    # At 0 and 1 the formula gives the bound only up to rounding.
    low = np.where(share <= 0, 0.0, np.maximum(middle - half, 0.0))
    return low, np.where(share >= 1, 1.0, np.minimum(middle + half, 1.0))
