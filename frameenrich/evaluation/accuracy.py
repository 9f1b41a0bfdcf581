"""The share of right answers among usable rows, by the design that drew the judged ones."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from frameenrich.evaluation.intervals import (
    Interval,
    MissingExtraError,
    clopper_pearson,
    stratified,
    without_bounds,
)
from frameenrich.evaluation.reviewed import Drawn, Reviewed, Verdict


def right_share(reviewed: Reviewed, level: float = 0.95) -> Interval:
    """Return how many usable rows are right, by a recorded draw; unsure ones count neither way.

    A row that several people judged counts once: by the share of them who call it right. Without
    SciPy there are no bounds, and ``method`` says so.
    """
    known = np.array([verdict != Verdict.UNSURE for verdict in reviewed.verdicts], bool)
    strata = reviewed.stratum if reviewed.stratum is not None else [""] * len(known)
    table = pd.DataFrame(
        {
            "row": reviewed.rows,
            "stratum": strata,
            "right": [float(verdict == Verdict.RIGHT) for verdict in reviewed.verdicts],
        }
    )[known]
    if table.empty:
        return without_bounds(0, 0, level, "no reviewed rows")
    rows = table.groupby("row").agg(stratum=("stratum", "first"), right=("right", "mean"))
    design = reviewed.design
    by_stratum = rows.groupby("stratum")["right"].agg(["sum", "count"])
    sizes = [design.strata.get(str(name), 0) for name in by_stratum.index]
    try:
        if design.drawn is Drawn.STRATIFIED:
            hits, counts = by_stratum["sum"].tolist(), by_stratum["count"].tolist()
            return stratified(hits, counts, sizes, level)
        return clopper_pearson(
            float(rows["right"].sum()), len(rows), level, population=design.usable
        )
    except MissingExtraError as error:
        weights = by_stratum["count"] if design.drawn is not Drawn.STRATIFIED else pd.Series(sizes)
        shares = by_stratum["sum"] / by_stratum["count"]
        share = float(np.average(shares, weights=weights.to_numpy()))
        return Interval(share, math.nan, math.nan, len(rows), level, error.fix)
