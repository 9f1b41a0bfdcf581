"""Fetch a job's answers, wait or ask again as wanted, and return them as columns."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.answers.output import Output
from frameenrich.errors import ParameterError
from frameenrich.lifecycle.collect import Collector, Reading, RequestColumns, flagged_rows
from frameenrich.lifecycle.match import (
    find_sidecar_rows,
    match_frame,
    require_match,
    require_unchanged,
)
from frameenrich.lifecycle.refetch import with_whole_files
from frameenrich.lifecycle.wait import Deadline
from frameenrich.pricing.money import Budget
from frameenrich.pricing.prices import PricesLike
from frameenrich.store.folder import JobState
from frameenrich.verbs.regenerate import bring_up_to_date, mend
from frameenrich.verbs.session import Session


@dataclass(frozen=True)
class Waiting:
    """Options for how long to wait, and how often to ask again, before answers are read."""

    wait: bool = False
    deadline: Deadline = field(default_factory=Deadline)
    poll_seconds: float | None = None
    max_rounds: int = 0
    budget: Budget = field(default_factory=Budget)


def waiting_of(
    session: Session,
    wait: bool = False,
    timeout: float | None = None,
    poll_seconds: float | None = None,
    max_rounds: int = 0,
    max_cost: float | None = None,
    prices: PricesLike | None = None,
) -> Waiting:
    """Check the options of `Job.collect` on waiting, rounds and cost."""
    budget = session.budget(max_cost, prices)
    if max_rounds and not wait:
        raise ParameterError(
            f"max_rounds={max_rounds} without wait=True.",
            "Add wait=True: a round can only follow when the one before it has ended.",
        )
    if max_cost is not None and not max_rounds:
        raise ParameterError(
            f"max_cost={max_cost} limits nothing here: without max_rounds=, collect sends nothing.",
            "Add wait=True and max_rounds=, or give max_cost= to submit or regenerate.",
        )
    return Waiting(wait, Deadline.after(timeout), poll_seconds, max_rounds, budget)


def collect(
    session: Session, frame: pd.DataFrame | None, waiting: Waiting, **options: Any
) -> pd.DataFrame:
    """Fetch a job's answers and return them beside a frame, or beside the job's own keys."""
    return with_whole_files(
        session.folder, session.routes, lambda: _collect(session, frame, waiting, **options)
    )


def _collect(
    session: Session,
    frame: pd.DataFrame | None,
    waiting: Waiting,
    *,
    accept: float | None = None,
    **reading: Any,
) -> pd.DataFrame:
    with session.opened() as found:
        how = session.reading(waiting.budget, **reading)
        if frame is not None and waiting.max_rounds:  # refused before anything is paid for it
            require_match(match_frame(frame, found, found.sidecar()), frame, found)
        job = bring_home(session, found, how.output, waiting)
        # Results are never stored: the raw lines are read anew, so a better parser costs nothing.
        return Collector(job, how, added=_accepted(job, how, accept)).whole(frame)


def _accepted(job: JobState, how: Reading, accept: float | None) -> RequestColumns | None:
    """Compute each row's score, and whether the row is accepted."""
    if accept is None:
        return None
    from frameenrich.evaluation.job_answers import JobAnswers  # noqa: PLC0415 - for this option only
    from frameenrich.verbs.accept import accept_rows  # noqa: PLC0415

    # All rows of the job, whatever is collected: the threshold is one of the whole job.
    own = Collector(job, replace(how, usage=True, flatten=False)).whole(None)
    return accept_rows(JobAnswers(job, how.output, own), accept)


def bring_home(session: Session, job: JobState, output: Output, waiting: Waiting) -> JobState:
    """Poll a job, or wait for it and send failed rows again; return its state afterwards."""
    timing = (waiting.deadline, waiting.poll_seconds)
    job = bring_up_to_date(session, job, *timing, waiting=waiting.wait)
    if not waiting.max_rounds:
        return job
    return mend(session, job, output, waiting.max_rounds, *timing, waiting.budget)


_WAITING = frozenset(inspect.signature(waiting_of).parameters) - {"session"}


def collector(session: Session, *, accept: float | None = None, **options: Any) -> Collector:
    """Fetch a job's answers and return a collector of its parts for any process."""
    waiting = waiting_of(session, **{name: options.pop(name) for name in _WAITING & options.keys()})
    # What is left says how answers become columns.
    how = session.reading(waiting.budget, **options)
    job = bring_home(session, session.job().read(), how.output, waiting)
    return replace(_collector(session, how), added=_accepted(job, how, accept))


def collect_part(
    session: Session,
    frame: pd.DataFrame,
    part: int | None,
    *,
    prices: PricesLike | None = None,
    **reading: Any,
) -> pd.DataFrame:
    """Return rows of a frame larger than memory with their answers; see `Job.collect_part`."""
    how = session.reading(session.budget(None, prices), **reading)
    return _collector(session, how)(frame, part)


def _collector(session: Session, reading: Reading) -> Collector:
    output = reading.output
    # A collector is sent to other processes: what this output has cached stays here.
    plain = Output(output.spec, output.model, output.parser, called=output.called)
    return Collector(session.job(), replace(reading, output=plain))


def count_seen(session: Session, frame: pd.DataFrame, part: int | None) -> int:
    """Count the rows of a frame that the job was made for; see `Job.count_seen`."""
    folder = session.job()
    match = match_frame(frame, folder, find_sidecar_rows(folder, frame, part))
    return int(require_unchanged(match, frame, folder).seen.sum())


def flagged(session: Session, frame: pd.DataFrame | None, **reading: Any) -> pd.DataFrame:
    """Return the rows whose status is terminal and not ``ok``; see `Job.flagged`."""
    return with_whole_files(
        session.folder, session.routes, lambda: _flagged(session, frame, **reading)
    )


def _flagged(session: Session, frame: pd.DataFrame | None, **reading: Any) -> pd.DataFrame:
    with session.opened() as job:
        output = session.output(**reading)
        if frame is None:
            return flagged_rows(job, output, np.arange(job.row_count))
        match = require_match(match_frame(frame, job, job.sidecar()), frame, job)
        return flagged_rows(job, output, match.positions, frame.index)
