"""Write the report page of a job."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.answers.arrow_column import Positions
from frameenrich.answers.output import Output
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.open_review import reviews
from frameenrich.lifecycle.collect import Collector, Reading
from frameenrich.lifecycle.refetch import with_whole_files
from frameenrich.lifecycle.results import read_results
from frameenrich.lifecycle.usage import job_usage, prices_of
from frameenrich.providers.credentials import secrets_of
from frameenrich.report.build import ALL_ROWS, Answers, make_report, rows_shown, write_report
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
        shown = _rows_shown(job, how.output, rows)
        whole = job.row_count <= ALL_ROWS
        collector = Collector(job, how, short=not whole)
        frame = collector.whole(None)
        page = frame.iloc[shown] if whole else _whole_rows(frame, collector, shown)
        if not whole:
            # Reviewed rows are judged by their values, on the page or not.
            frame = _with_whole_rows(frame, collector, _reviewed(job, how))
        used = job_usage(job, prices_of(job, session.budget()))
        made = make_report(Answers(job, frame, page, shown, used, how.output, whole=whole))
        del frame, page  # before the page's text is made, which may be as large
        # A page is passed on to others: an echoed key must not be in an answer or an error on it.
        return write_report(path, made, secrets=secrets_of(session.client))


def _rows_shown(job: JobState, output: Output, rows: int) -> Positions:
    """Choose the rows of the page."""
    found = read_results(job, output, values="none")
    slots = found.slots
    return rows_shown((slots >= 0) & found.table.flagged()[slots], rows)


def _reviewed(job: JobState, how: Reading) -> Positions:
    """Return the positions of the rows that were drawn for a review."""
    drawn = [review.positions for review in reviews(JobAnswers(job, how.output, pd.DataFrame()))]
    return np.unique(np.concatenate([*drawn, np.empty(0)])).astype(np.int64)


def _whole_rows(frame: pd.DataFrame, collector: Collector, positions: Positions) -> pd.DataFrame:
    """Return some rows of a frame with their long values."""
    rows = replace(collector, short=False).rows(positions)
    if not collector.has_parser:
        return rows
    # Some rows alone do not show all columns of a parser, whose values the frame has whole.
    status = f"{collector.folder.spec.name}_status"
    made = frame.iloc[positions, : frame.columns.get_loc(status)].reset_index(drop=True)
    return pd.concat([made, rows.iloc[:, rows.columns.get_loc(status) :]], axis=1)


def _with_whole_rows(
    frame: pd.DataFrame, collector: Collector, positions: Positions
) -> pd.DataFrame:
    """Return a frame whose rows at some positions have their long values, too."""
    if not len(positions):
        return frame
    whole = _whole_rows(frame, collector, positions)
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.StringDtype) or frame[name].dtype == object:
            column = frame[name].copy()
            column.iloc[positions] = whole[name].to_numpy()
            frame[name] = column
    return frame
