"""Find the rows whose score is high enough to accept them unread."""

from __future__ import annotations

import numpy as np
import pandas as pd

from frameenrich.errors import InputError, ParameterError, warn_user
from frameenrich.evaluation.evaluate import evaluate_fields
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.verdicts import reviewed_fields
from frameenrich.lifecycle.collect import RequestColumns

CONFIDENCE = 0.9
"""The probability that the promised precision holds."""


def accept_rows(job: JobAnswers, precision: float) -> RequestColumns:
    """Score the rows of a job, and find those that are right often enough, by its newest review.

    Parameters
    ----------
    job : JobAnswers
        The job's answers.
    precision : float
        How often accepted rows have to be right; kept in nine promises of ten.

    Raises
    ------
    InputError
        Nothing was reviewed, or answers have no score.

    Warns
    -----
    FrameEnrichWarning
        No score can be promised: no row is accepted.
    """
    number = isinstance(precision, int | float) and not isinstance(precision, bool)
    if not number or not 0 < precision < 1:
        raise ParameterError(
            f"accept={precision!r} is not a share.", "Give a number between 0 and 1, such as 0.95."
        )
    evaluation = evaluate_fields(job.folder.id, reviewed_fields(job))
    rows = np.arange(len(job.frame))
    found = {name: job.scores(name, rows) for name in evaluation.each}
    columns = [column for column in found.values() if column is not None]
    # A row's score is that of its weakest field, so every field needs one.
    if len(columns) < len(found):
        blank = next(name for name, column in found.items() if column is None)
        raise InputError(
            f"Nothing says how sure the answers to {blank!r} of the job {job.folder.id} are.",
            "Submit with logprobs=True (for labels) or samples=5, or ask another model: "
            "job.second_opinion(model). Or install 'frameenrich[embed]': from 50 reviewed rows on, "
            "10 of them right and 10 wrong, a classifier is learned.",
        )
    # A row is right where all its fields are, so its weakest score counts.
    scores = np.min(np.stack(columns), axis=0)
    threshold = evaluation.row_threshold(precision, CONFIDENCE)
    if not threshold:
        warn_user(f"No row is accepted. {threshold}")
    usable = np.isin(rows, job.usable)
    # NaN is above nothing: without a score, or a threshold, no row is accepted.
    accept = usable & (scores >= threshold.score)
    ids = pd.Index(job.folder.sidecar(columns=["custom_id"])["custom_id"].to_pylist(), dtype=object)
    # Rows of one request have one answer, and so one score.
    own = np.flatnonzero(ids.notna() & ~ids.duplicated())
    name, none = job.folder.spec.name, np.isnan(scores[own])
    return RequestColumns(
        ids[own],
        {
            f"{name}_score": pd.arrays.FloatingArray(np.nan_to_num(scores[own]), none),
            f"{name}_accept": pd.arrays.BooleanArray(accept[own], np.zeros(len(own), bool)),
        },
    )
