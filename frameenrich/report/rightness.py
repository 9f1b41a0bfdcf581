"""Figures on how many answers are right, with bounds, or the call that gets them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from frameenrich.evaluation.draw import first_review
from frameenrich.evaluation.evaluate import evaluate_fields
from frameenrich.evaluation.field_figures import Field
from frameenrich.evaluation.intervals import Interval, MissingExtraError
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.open_review import reviews
from frameenrich.evaluation.verdicts import reviewed_fields


@dataclass(frozen=True)
class Right:
    """One field's figure; ``share`` and ``about`` are texts for people."""

    field: str
    share: str
    about: str


def rights(job: JobAnswers) -> Iterator[Right]:
    """Yield a figure for each field that was reviewed; none where nobody judged a row."""
    if not job.fields or not reviews(job):
        return
    judged = reviewed_fields(job)
    if not judged:
        return
    for name, field in evaluate_fields(job.folder.id, judged).each.items():
        interval = _accuracy(field)
        if interval.n:
            bounds = "" if interval.bounded else f"; no bounds: {interval.method}"
            notes = "".join(f"; {note}" for note in judged[name].design.notes)
            yield Right(name, str(interval), f"{interval.n:,} reviewed{bounds}{notes}")


def _accuracy(field: Field) -> Interval:
    """Return the accuracy as `Evaluation` has it; without SciPy the estimate alone."""
    try:
        return field.accuracy
    except MissingExtraError as error:
        judged, sure = field.judged, field.judged.sure
        stratum = judged.reviewed.stratum
        drawn = pd.Series([""] * len(sure) if stratum is None else stratum[judged.first])[sure]
        # A reviewed row speaks for its part of its stratum's rows.
        sizes = drawn.map(judged.reviewed.design.strata) / drawn.map(drawn.value_counts())
        share = float(np.average(judged.right[sure], weights=sizes))
        return Interval(share, math.nan, math.nan, int(sure.sum()), field.level, error.fix)


def review_call(job: JobAnswers) -> str | None:
    """Return the call that draws rows to review; None where there are none."""
    if not job.fields or not len(job.fresh):
        return None
    return f"df.llmbatch.review({job.folder.id!r}, n={first_review(len(job.fresh))})"
