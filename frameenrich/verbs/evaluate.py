"""Measure how often a job's answers are right, and where two jobs agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from frameenrich.errors import InputError, ParameterError
from frameenrich.evaluation.compare import Comparison, compare_answers
from frameenrich.evaluation.evaluate import Evaluation, evaluate_fields
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.review import Review
from frameenrich.evaluation.truth import truth_fields
from frameenrich.evaluation.verdicts import reviewed_fields
from frameenrich.lifecycle.match import match_frame, require_match
from frameenrich.lifecycle.usage import job_usage, prices_of
from frameenrich.verbs.collect import collect_own
from frameenrich.verbs.session import Session


def answers_to_judge(session: Session) -> JobAnswers:
    """Collect all rows of a job as answers that can be judged."""
    return JobAnswers(session.folder, session.output(), collect_own(session))


def evaluate(
    session: Session,
    frame: pd.DataFrame | None,
    *,
    review: Review | str | None,
    truth: str | Mapping[str, str] | None,
    tolerance: float | None,
    match: Callable[[Any, Any], Any] | None,
    drawn: str | None,
    level: float,
) -> Evaluation:
    """Measure how often answers are right, by a review or truth columns; see `Job.evaluate`."""
    job_id = session.folder.id
    if truth is None:
        # Options that would silently do nothing are refused.
        if tolerance is not None or match is not None or drawn is not None:
            raise ParameterError(
                "tolerance=, match= and drawn= are of truth columns, and there is none.",
                "Pass truth=, or leave them out: a review has verdicts of its own.",
            )
        return evaluate_fields(job_id, reviewed_fields(answers_to_judge(session), review), level)
    if review is not None:
        raise ParameterError(
            "Both review= and truth= are given.", "Evaluate by one of them at a time."
        )
    if frame is None:
        raise InputError(
            "There is no frame with the truth columns.",
            "Pass it: job.evaluate(frame, truth='department').",
        )
    folder = session.folder
    found = require_match(match_frame(frame, folder, folder.sidecar()), frame, folder)
    judged = truth_fields(
        answers_to_judge(session),
        frame,
        found.positions,
        truth,
        tolerance=tolerance,
        match=match,
        drawn=drawn,
    )
    return evaluate_fields(job_id, judged, level)


def compare(first: Session, second: Session) -> Comparison:
    """Compare two jobs over the same rows; see `Job.compare`."""
    return compare_answers(
        answers_to_judge(first), answers_to_judge(second), (_usd(first), _usd(second))
    )


def _usd(session: Session) -> float | None:
    with session.folder.opened() as job:
        return job_usage(job, prices_of(job, session.budget())).usd
