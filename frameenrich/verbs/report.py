"""Write the report page of a job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.answers.arrow_column import Positions
from frameenrich.answers.output import Output
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.open_review import reviews
from frameenrich.lifecycle.collect import Collector
from frameenrich.lifecycle.refetch import with_whole_files
from frameenrich.lifecycle.results import NO_TEXTS, read_results
from frameenrich.lifecycle.usage import job_usage, prices_of
from frameenrich.providers.credentials import secrets_of
from frameenrich.report.build import ALL_ROWS, Answers, rows_shown, write_report
from frameenrich.store.folder import JobState
from frameenrich.verbs.collect import Waiting, bring_home
from frameenrich.verbs.session import Session


def report(session: Session, path: str | os.PathLike[str], *, rows: int, **reading: Any) -> Path:
    """Write a page for a person who decides whether to trust the answers; see `Job.report`."""
    return with_whole_files(
        session.folder, session.routes, lambda: _report(session, path, rows=rows, **reading)
    )


def _report(session: Session, path: str | os.PathLike[str], *, rows: int, **reading: Any) -> Path:
    with session.opened() as found:
        how = session.reading(session.budget(), usage=True, **reading)
        job = bring_home(session, found, how.output, Waiting(budget=session.budget()))
        shown, texts_of = _rows_shown(job, how.output, rows)
        answers = Answers(
            job,
            Collector(job, how, texts_of=texts_of).whole(None),
            shown,
            job_usage(job, prices_of(job, session.budget())),
            how.output,
            whole=texts_of is None,
        )
        # A page is passed on to others: an echoed key must not be in an answer or an error on it.
        return write_report(path, answers, secrets=secrets_of(session.client))


def _rows_shown(job: JobState, output: Output, rows: int) -> tuple[Positions, Positions | None]:
    """Choose the rows of the page, and the slots whose texts are read; None for all of them."""
    found = read_results(job, output, texts_of=NO_TEXTS)
    positions = np.arange(len(found.slots))
    slots = found.at(positions)
    flagged = (slots >= 0) & found.table.flagged()[slots]
    shown = rows_shown(flagged, rows)
    if len(slots) <= ALL_ROWS:
        return shown, None
    # Reviewed rows are judged by their values, on the page or not.
    reviewed = [review.positions for review in reviews(JobAnswers(job, output, pd.DataFrame()))]
    return shown, found.at(np.concatenate([shown, *reviewed]).astype(np.int64))
