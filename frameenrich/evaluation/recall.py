"""Precision, recall and f1 of each label, for the whole population, from reviewed rows."""

from __future__ import annotations

import numpy as np

from frameenrich.evaluation.intervals import scipy
from frameenrich.evaluation.reviewed import Floats
from frameenrich.evaluation.shares import FEW_REVIEWED, Bounds, predict_totals, wilson_bounds


def label_figures(counts: Floats, rows: Floats, level: float = 0.95) -> dict[str, Bounds]:
    """Return precision, recall and f1 of each label, each with bounds.

    Parameters
    ----------
    counts : array (..., C, C)
        Reviewed rows by answer and truth, both in one order of labels.
    rows : array (..., C)
        All rows by answer.
    level : float
        How often an interval has to hold the truth.

    Returns
    -------
    dict
        Arrays (..., C); bounds are NaN, and `few` is set, where fewer than ten reviewed rows have
        that answer (precision), that truth (recall), or either (f1).

    Notes
    -----
    Recall is A / (A + B): A rows answered c that are c, B rows answered otherwise that are. Both
    are predicted stratum by stratum (`shares.predict_totals`: the Dirichlet's margins). They are
    independent, and each is close to a gamma with its moments, so that A / B follows a scaled F.
    f1 takes the delta method on its log odds, 2 A / (N - A + B).
    """
    counts, rows = np.asarray(counts, float), np.asarray(rows, float)
    reviewed, truths = counts.sum(-1), counts.sum(-2)
    diagonal = np.diagonal(counts, axis1=-2, axis2=-1)
    expanded = rows[..., None] * counts / np.maximum(reviewed[..., None], 1e-300)
    right = np.diagonal(expanded, axis1=-2, axis2=-1)
    missed = expanded.sum(-2) - right

    totals = predict_totals(counts, reviewed[..., None], rows[..., None], counts.shape[-1])
    a, var_a = (np.diagonal(value, axis1=-2, axis2=-1) for value in totals)
    b, var_b = (value.sum(-2) - own for value, own in zip(totals, (a, var_a), strict=True))

    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(reviewed > 0, diagonal / reviewed, np.nan)
        recall = np.where(right + missed > 0, right / (right + missed), np.nan)
        f1 = np.where(rows + right + missed > 0, 2 * right / (rows + right + missed), np.nan)
    return {
        "precision": _bounds(precision, _precision(precision, reviewed, rows, level), reviewed),
        "recall": _bounds(recall, _ratio(a, var_a, b, var_b, level), truths),
        "f1": _bounds(f1, _f1(a, var_a, b, var_b, rows, level), np.minimum(reviewed, truths)),
    }


def _bounds(estimate: Floats, bounds: tuple[Floats, Floats], reviewed: Floats) -> Bounds:
    few = reviewed < FEW_REVIEWED
    low, high = (np.where(few, np.nan, bound) for bound in bounds)
    # Bounds of recall and f1 are of means with a prior: the plain estimate may lie outside.
    return Bounds(estimate, np.minimum(low, estimate), np.maximum(high, estimate), few)


def _precision(
    share: Floats, reviewed: Floats, rows: Floats, level: float
) -> tuple[Floats, Floats]:
    # With every row reviewed the share is known, not estimated: both bounds are the share.
    whole = reviewed >= rows
    # Finite population: reviewing most of a label's rows is worth more than its count.
    size = reviewed * np.maximum(rows - 1, 1) / np.where(whole, 1.0, rows - reviewed)
    low, high = wilson_bounds(np.nan_to_num(share), size, level)
    return np.where(whole, share, low), np.where(whole, share, high)


def _ratio(
    a: Floats, var_a: Floats, b: Floats, var_b: Floats, level: float
) -> tuple[Floats, Floats]:
    """Bound a / (a + b) by the F distribution of two independent gammas' ratio."""
    quantile = scipy("special").fdtri
    exact = (var_a <= 0) & (var_b <= 0)
    shape_a, shape_b = (
        np.clip(mean**2 / np.maximum(variance, 1e-12), 1e-3, 1e9)
        for mean, variance in ((a, var_a), (b, var_b))
    )
    odds = a / np.maximum(b, 1e-300)
    point = a / np.maximum(a + b, 1e-300)

    def bound(tail: float) -> Floats:
        scaled = odds * quantile(2 * shape_a, 2 * shape_b, tail)
        return np.where(exact, point, np.where(np.isinf(scaled), 1.0, scaled / (1 + scaled)))

    with np.errstate(invalid="ignore", over="ignore"):
        return bound((1 - level) / 2), bound((1 + level) / 2)


def _f1(
    a: Floats, var_a: Floats, b: Floats, var_b: Floats, rows: Floats, level: float
) -> tuple[Floats, Floats]:
    z = float(scipy("special").ndtri((1 + level) / 2))
    top, bottom = np.maximum(a, 1e-9), np.maximum(rows - a + b, 1e-9)
    # The right rows are in the bottom with a minus, which adds to the variance of the log odds.
    spread = var_a * (1 / top + 1 / bottom) ** 2 + var_b / bottom**2
    odds = np.log(2 * top / bottom)
    half = z * np.sqrt(spread)
    return 1 / (1 + np.exp(-(odds - half))), 1 / (1 + np.exp(-(odds + half)))
