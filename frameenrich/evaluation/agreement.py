"""Agreement of two or more judges: kappa, alpha, and a confusion table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.evaluation.intervals import Interval, scipy, without_bounds
from frameenrich.evaluation.reviewed import Floats, Objects


def cohen_kappa(counts: Floats, level: float = 0.95) -> Interval:
    """Return Cohen's kappa of a square table of counts, with its large-sample interval.

    Notes
    -----
    Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological
    Measurement 20 (1960); the variance is that of Fleiss, Cohen and Everitt, Psychological
    Bulletin 72 (1969).
    """
    counts = np.asarray(counts, float)
    n = counts.sum()
    if not n:
        return without_bounds(0, 0, level, "no reviewed rows")
    p = counts / n
    row, column = p.sum(1), p.sum(0)
    seen, chance = float(np.trace(p)), float(row @ column)
    if math.isclose(chance, 1.0):  # one label on both sides: agreement says nothing
        return Interval(math.nan, math.nan, math.nan, int(n), level, "one label only")
    kappa = (seen - chance) / (1 - chance)
    diagonal = np.diag(p) * (1 - (row + column) * (1 - kappa)) ** 2
    crossed = p * (column[:, None] + row[None, :]) ** 2
    off = (1 - kappa) ** 2 * (crossed.sum() - np.trace(crossed))
    variance = (diagonal.sum() + off - (kappa - chance * (1 - kappa)) ** 2) / (1 - chance) ** 2 / n
    # Rounding can make the variance of perfect agreement a little negative.
    half = float(scipy("special").ndtri((1 + level) / 2)) * math.sqrt(max(variance, 0.0))
    # The normal interval may go past kappa's own range.
    return Interval(
        kappa, max(kappa - half, -1.0), min(kappa + half, 1.0), round(n), level, "Fleiss"
    )


def krippendorff_alpha(ratings: Sequence[Sequence[Any]]) -> float:
    """Return Krippendorff's alpha for nominal values; NaN where there is nothing to compare.

    Parameters
    ----------
    ratings : sequence of sequence
        For each row, the values that it got from however many reviewers.

    Notes
    -----
    Krippendorff, "Content Analysis", 4th edition, chapter 12.
    """
    pairable = [values for values in ratings if len(values) > 1]
    labels = {value: at for at, value in enumerate({v for row in pairable for v in row})}
    if not pairable:
        return math.nan
    coincidences = np.zeros((len(labels), len(labels)))
    for values in pairable:
        count = np.bincount([labels[value] for value in values], minlength=len(labels))
        # Without the diagonal's counts: no value is paired with itself.
        pairs = np.outer(count, count) - np.diag(count)
        coincidences += pairs / (len(values) - 1)
    margin = coincidences.sum(0)
    n = margin.sum()
    expected = n * n - (margin**2).sum()
    if expected <= 0:  # one value only: no disagreement is possible, by chance or not
        return math.nan
    return float(1 - (n - 1) * (n - np.trace(coincidences)) / expected)


def confusion(
    rows: Objects, columns: Objects, labels: Sequence[Any], names: tuple[str, str]
) -> pd.DataFrame:
    """Count pairs of labels; every label has a row and a column, in the order given."""
    at = {label: position for position, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)), np.int64)
    for row, column in zip(rows, columns, strict=True):
        table[at[row], at[column]] += 1
    return pd.DataFrame(
        table,
        index=pd.Index(list(labels), name=names[0]),
        columns=pd.Index(list(labels), name=names[1]),
    )
