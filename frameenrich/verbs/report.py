"""Write the report page of a job."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.answers.arrow_column import Positions
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.open_review import reviews
from frameenrich.lifecycle.collect import Collector, Reading
from frameenrich.lifecycle.refetch import with_whole_files
from frameenrich.lifecycle.usage import JobUsage, job_usage, prices_of
from frameenrich.model import FLAGGED
from frameenrich.providers.credentials import secrets_of
from frameenrich.report.build import Answers, make_report, rows_shown, write_report
from frameenrich.store.folder import JobState
from frameenrich.verbs.collect import Waiting, bring_home
from frameenrich.verbs.session import Session

ALL_ROWS, ALL_BYTES = 50_000, 150_000_000
"""Of a job with more rows, or more bytes of responses, long texts are read of the rows on the page
only."""


_PART_BYTES = 16_000_000
"""About how many bytes of responses the rows have that are read whole at a time."""


_LEAST_ROWS = 500
"""Each part reads its shards again, so that it should not be of fewer rows."""


def report(session: Session, path: str | os.PathLike[str], *, rows: int, **reading: Any) -> Path:
    """Write a page for a person who decides whether to trust the answers; see `Job.report`."""
    return with_whole_files(
        session.folder, session.routes, lambda: _report(session, path, rows=rows, **reading)
    )


def _report(session: Session, path: str | os.PathLike[str], *, rows: int, **reading: Any) -> Path:
    with session.opened() as found:
        how = session.reading(session.budget(), usage=True, **reading)
        job = bring_home(session, found, how.output, Waiting(budget=session.budget()))
        answers = _answers(job, how, rows, job_usage(job, prices_of(job, session.budget())))
        # A page is passed on to others: an echoed key must not be in an answer or an error on it.
        return write_report(path, make_report(answers), secrets=secrets_of(session.client))


def _answers(job: JobState, how: Reading, rows: int, used: JobUsage) -> Answers:
    """Read a job's answers for a page with so many rows that are not flagged."""
    size = sum(shard.response_bytes for shard in job.all_shards())
    whole = job.row_count <= ALL_ROWS and size <= ALL_BYTES
    shortened: set[str] = set()
    collector = Collector(job, how, shortened=None if whole else shortened)
    frame = collector.whole(None)
    statuses = frame[f"{job.spec.name}_status"]
    is_flagged = statuses.isin([str(status) for status in FLAGGED]).to_numpy(dtype=np.bool_)
    if not whole:
        # Reviewed rows are judged by their values, on the page or not.
        frame = _with_whole_rows(frame, collector, _reviewed(job, how))
        # What the columns were made of is as large as they; the page can have it.
        pa.default_memory_pool().release_unused()
    return Answers(
        job,
        frame,
        rows_shown(is_flagged, rows),
        frame.iloc.__getitem__ if whole else partial(_whole_rows, frame, collector),
        used,
        how.output,
        whole=whole,
        at_once=max(_PART_BYTES * job.row_count // max(size, 1), _LEAST_ROWS),
        shortened=shortened,
    )


def _reviewed(job: JobState, how: Reading) -> Positions:
    """Return the positions of the rows that were drawn for a review."""
    drawn = [review.positions for review in reviews(JobAnswers(job, how.output, pd.DataFrame()))]
    return np.unique(np.concatenate([*drawn, np.empty(0)])).astype(np.int64)


def _whole_rows(frame: pd.DataFrame, collector: Collector, positions: Positions) -> pd.DataFrame:
    """Return some rows of a frame with their keys and long values."""
    name = collector.folder.spec.name
    costs = frame[f"{name}_cost_usd"].iloc[positions].to_numpy(np.float64, na_value=np.nan)
    rows = replace(collector, shortened=None).rows(positions, costs)
    if not collector.has_parser:
        return rows
    # Some rows alone do not show all columns of a parser, whose values the frame has whole.
    keys, names = len(collector.folder.key_names), list(frame.columns)
    made = frame.iloc[positions, keys : names.index(f"{name}_status")].reset_index(drop=True)
    rest = rows.iloc[:, rows.columns.get_loc(f"{name}_status") :]
    return pd.concat([rows.iloc[:, :keys], made, rest], axis=1)


def _with_whole_rows(
    frame: pd.DataFrame, collector: Collector, positions: Positions
) -> pd.DataFrame:
    """Return a frame whose rows at some positions have their long values, too."""
    if not len(positions):
        return frame
    whole = _whole_rows(frame, collector, positions)
    keys, names = len(collector.folder.key_names), list(frame.columns)
    for name in names[keys : names.index(f"{collector.folder.spec.name}_status")]:
        kind = frame[name].dtype
        # Numbers and labels are whole in any frame.
        if not (pd.api.types.is_numeric_dtype(kind) or isinstance(kind, pd.CategoricalDtype)):
            column = frame[name].copy()
            column.iloc[positions] = whole[name].to_numpy()
            frame[name] = column
    return frame
