"""Intervals for a proportion, and the number of reviewed rows that each needs."""

from __future__ import annotations

import html
import importlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frameenrich.errors import InputError
from frameenrich.text import NO_MATH


class MissingExtraError(InputError, ImportError):
    """A figure needs a package that is not installed."""


def scipy(module: str) -> Any:
    """Import a module of SciPy, which only evaluations need.

    Raises
    ------
    MissingExtraError
        SciPy is not installed.
    """
    try:
        return importlib.import_module(f"scipy.{module}")
    except ImportError as error:
        raise MissingExtraError(
            "Intervals need SciPy, which is not installed.", "pip install 'frameenrich[evaluate]'."
        ) from error


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds that its method promises.

    Parameters
    ----------
    estimate : float
        The figure; NaN where there is none.
    low, high : float
        The bounds; NaN where no interval can be promised.
    n : int
        Reviewed rows behind it.
    level : float
        How often such an interval holds the truth, 0.95 by default.
    method : str
        How it was made, such as ``"Clopper-Pearson"``; or why there are no bounds.
    """

    estimate: float
    low: float
    high: float
    n: int
    level: float = 0.95
    method: str = ""

    @property
    def bounded(self) -> bool:
        """Tell whether it has bounds."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def __str__(self) -> str:
        if math.isnan(self.estimate):
            return "none"
        bounds = f" [{_points(self.low)}–{_points(self.high)}]" if self.bounded else ""  # noqa: RUF001 - a range
        return f"{_points(self.estimate)} %{bounds}"

    def _repr_html_(self) -> str:
        about = html.escape(f"of {self.n:,} reviewed rows; {self.method}")
        return f"<div class='{NO_MATH}' style='color:inherit'><b>{self}</b> {about}</div>"

    def to_dict(self) -> dict[str, Any]:
        """Return its members as a dict, None for NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


def _points(share: float) -> str:
    """Percent without digits, but never 0 or 100 for what is not."""
    # 99.6 % rounded to "100 %" would claim that nothing is wrong.
    percent = 100 * share
    whole = round(percent)
    if whole in {0, 100} and not math.isclose(percent, whole, abs_tol=1e-9):
        return f"{min(max(percent, 0.1), 99.9):.1f}"
    return str(whole)


def without_bounds(right: float, n: int, level: float, why: str) -> Interval:
    """Return a share that no interval can be promised for, and why."""
    return Interval(right / n if n else math.nan, math.nan, math.nan, n, level, why)


def clopper_pearson(
    right: float, n: float, level: float = 0.95, *, population: int | None = None
) -> Interval:
    """Return the exact interval of a share.

    Parameters
    ----------
    right, n : float
        How many of how many.
    level : float
        How often it has to hold the truth.
    population : int, optional
        Of how many rows the n were drawn without replacement: n grows to its effective size
        n (N - 1) / (N - n), so that reviewing every row leaves no doubt.

    Notes
    -----
    Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 26 (1934). The
    finite population: Korn and Graubard, "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data", Survey Methodology 24 (1998).
    """
    if not n:
        return without_bounds(0, 0, level, "no reviewed rows")
    name = "Clopper-Pearson"
    if population is not None and n >= population:  # nothing was sampled, nothing is in doubt
        return Interval(right / n, right / n, right / n, int(n), level, "every row")
    size = n if population is None else n * (population - 1) / (population - n)
    hits, tail = right / n * size, (1 - level) / 2
    quantile = scipy("stats").beta.ppf
    low = 0.0 if right <= 0 else float(quantile(tail, hits, size - hits + 1))
    high = 1.0 if right >= n else float(quantile(1 - tail, hits + 1, size - hits))
    return Interval(right / n, low, high, round(n), level, name)


def wilson(right: float, n: float, level: float = 0.95) -> Interval:
    """Return the score interval of a share.

    Notes
    -----
    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    if not n:
        return without_bounds(0, 0, level, "no reviewed rows")
    low, high = _wilson_bounds(right / n, n, level)
    return Interval(right / n, low, high, round(n), level, "Wilson")


def _wilson_bounds(share: float, n: float, level: float) -> tuple[float, float]:
    z = float(scipy("stats").norm.ppf((1 + level) / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if share <= 0 else max(0.0, middle - half)
    high = 1.0 if share >= 1 else min(1.0, middle + half)
    return low, high


def stratified(
    right: Sequence[float], n: Sequence[float], population: Sequence[int], level: float = 0.95
) -> Interval:
    """Return the share over strata that were drawn from separately: the sum of W_h p_h.

    Parameters
    ----------
    right, n : sequence of float
        How many of how many reviewed rows are right, for each stratum.
    population : sequence of int
        The rows of each stratum.
    level : float
        How often it has to hold the truth.

    Notes
    -----
    Cochran, "Sampling Techniques", 3rd edition, chapter 5 (estimate and variance with the finite
    population correction); the Wilson interval at the effective size p (1 - p) / variance as
    Dean and Pagano, "Evaluating confidence interval methods for binomial proportions in clustered
    surveys", Journal of Survey Statistics and Methodology 3 (2015). The variance takes each
    stratum's share as (x + 1/2) / (n + 1): ten right rows of ten prove no share of 1.
    """
    strata = [part for part in zip(right, n, population, strict=True) if part[1] > 0]
    reviewed = sum(size for _, size, _ in strata)
    if not strata:
        return without_bounds(0, 0, level, "no reviewed rows")
    total = sum(rows for _, _, rows in strata)  # a stratum without reviewed rows tells nothing
    share = sum(rows / total * hits / size for hits, size, rows in strata)
    share = min(max(share, 0.0), 1.0)
    variance, smooth = 0.0, 0.0
    for hits, size, rows in strata:
        p, weight = (hits + 0.5) / (size + 1), rows / total
        smooth += weight * p
        variance += weight**2 * max(0.0, 1 - size / rows) * p * (1 - p) / size
    # Every row was reviewed: nothing was sampled, so nothing is uncertain.
    if variance <= 0:
        return Interval(share, share, share, round(reviewed), level, "every row")
    # The size of a simple draw that would know as much: so one formula serves both kinds of draw.
    effective = smooth * (1 - smooth) / variance
    low, high = _wilson_bounds(share, effective, level)
    return Interval(share, low, high, round(reviewed), level, "stratified Wilson")


# --- what n buys ----------------------------------------------------------------------------


def rows_without_error(share: float, confidence: float = 0.95) -> int:
    """Return the number of reviewed rows that, all right, prove at least a share.

    >>> rows_without_error(0.95), rows_without_error(0.90, confidence=0.9)
    (59, 22)
    """
    # The tolerance: an exact whole number may come out a little above itself.
    return math.ceil(math.log(1 - confidence) / math.log(share) - 1e-9)


def what_rows_buy(n: int) -> str:
    """Explain in two sentences what reviewing n rows proves.

    >>> what_rows_buy(100)
    '100 reviewed rows give ±6 points at 90 % right. Without an error they prove at least 97 %.'
    """
    z = float(scipy("stats").norm.ppf(0.975))
    # 0.09 = 0.9 * 0.1, the variance of one row at 90 % right.
    margin = 100 * z * math.sqrt(0.09 / n)
    proved = 100 * 0.05 ** (1 / n)
    return (
        f"{n:,} reviewed rows give ±{margin:.0f} points at 90 % right. "
        f"Without an error they prove at least {math.floor(proved)} %."
    )
