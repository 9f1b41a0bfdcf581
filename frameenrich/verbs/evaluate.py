"""Measure how often a job's answers are right, and where two jobs agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pandas as pd

from frameenrich.errors import InputError, ParameterError
from frameenrich.evaluation.compare import Comparison, compare_answers
from frameenrich.evaluation.evaluate import Evaluation, evaluate_fields
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.review import Review
from frameenrich.evaluation.reviewed import Reviewed
from frameenrich.evaluation.truth import truth_fields
from frameenrich.evaluation.verdicts import reviewed_fields
from frameenrich.lifecycle.collect import UNJUDGED, Collector
from frameenrich.lifecycle.match import match_frame, require_match
from frameenrich.lifecycle.refetch import with_whole_files
from frameenrich.lifecycle.usage import job_usage, prices_of
from frameenrich.verbs.collect import Waiting, bring_home
from frameenrich.verbs.session import Session

T = TypeVar("T")


def judge(session: Session, work: Callable[[JobAnswers], T]) -> T:
    """Collect all rows of a job, and do some work on them while its sidecar is open.

    The work is done again where a damaged file had to be fetched again.
    """

    def read() -> T:
        with session.opened() as found:
            how = session.reading(session.budget(), usage=True)
            job = bring_home(session, found, how.output, Waiting())
            frame = Collector(job, how, without=UNJUDGED).whole(None)
            return work(JobAnswers(job, how.output, frame))

    return with_whole_files(session.folder, session.routes, read)


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
    if truth is None:
        # Options that would silently do nothing are refused.
        if tolerance is not None or match is not None or drawn is not None:
            raise ParameterError(
                "tolerance=, match= and drawn= are of truth columns, and there is none.",
                "Pass truth=, or leave them out: a review has verdicts of its own.",
            )
        judged = judge(session, lambda answers: reviewed_fields(answers, review))
        return evaluate_fields(session.folder.id, judged, level)
    # One figure out of both would mix two samples, and no interval could be promised for it.
    if review is not None:
        raise ParameterError(
            "Both review= and truth= are given.", "Evaluate by one of them at a time."
        )
    # A truth lies in the user's columns, which no store keeps.
    if frame is None:
        raise InputError(
            "There is no frame with the truth columns.",
            "Pass it: job.evaluate(frame, truth='department').",
        )

    def compared(answers: JobAnswers) -> dict[str, Reviewed]:
        job = answers.folder
        found = require_match(match_frame(frame, job, job.sidecar()), frame, job)
        return truth_fields(
            answers, frame, found.positions, truth, tolerance=tolerance, match=match, drawn=drawn
        )

    return evaluate_fields(session.folder.id, judge(session, compared), level)


def compare(first: Session, second: Session) -> Comparison:
    """Compare two jobs over the same rows; see `Job.compare`."""

    def compared(one: JobAnswers, other: JobAnswers) -> Comparison:
        usd = [
            job_usage(own.folder, prices_of(own.folder, session.budget())).usd
            for own, session in ((one, first), (other, second))
        ]
        return compare_answers(one, other, (usd[0], usd[1]))

    return judge(first, lambda one: judge(second, lambda other: compared(one, other)))
