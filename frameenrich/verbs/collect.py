"""Bring a job home as far as was asked, and its answers as columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.answers.column_names import JobColumns
from frameenrich.answers.columns import with_columns
from frameenrich.answers.output import Output
from frameenrich.errors import InputError, ParameterError
from frameenrich.identity.keys import sidecar_keys
from frameenrich.lifecycle.collect import Collector, flagged_rows, key_frame, with_answers
from frameenrich.lifecycle.match import (
    find_sidecar_rows,
    match_frame,
    require_match,
    require_unchanged,
)
from frameenrich.lifecycle.usage import prices_of
from frameenrich.lifecycle.wait import Deadline
from frameenrich.pricing.money import Budget
from frameenrich.pricing.prices import PricesLike
from frameenrich.store.folder import JobState
from frameenrich.verbs.regenerate import bring_up_to_date, mend
from frameenrich.verbs.session import Session


@dataclass(frozen=True)
class Waiting:
    """How far a job is brought before its answers are read."""

    wait: bool = False
    deadline: Deadline = field(default_factory=Deadline)
    poll_seconds: float | None = None
    max_rounds: int = 0
    budget: Budget = field(default_factory=Budget)


def waiting_of(
    session: Session,
    wait: bool,
    timeout: float | None,
    poll_seconds: float | None,
    max_rounds: int,
    max_cost: float | None,
    prices: PricesLike | None,
) -> Waiting:
    """Check the options of `Job.collect` that say how far to bring the job."""
    budget = session.budget(max_cost, prices)
    if max_rounds and not wait:
        raise ParameterError(
            f"max_rounds={max_rounds} without wait=True.",
            "Add wait=True: a round can only follow when the one before it has ended.",
        )
    if max_cost is not None and not max_rounds:
        raise ParameterError(
            f"max_cost={max_cost} without max_rounds=, and so nothing to pay for.",
            "Add wait=True and max_rounds=, or give max_cost= to submit or regenerate.",
        )
    return Waiting(wait, Deadline.after(timeout), poll_seconds, max_rounds, budget)


def collect(
    session: Session,
    frame: pd.DataFrame | None,
    waiting: Waiting,
    *,
    usage: bool,
    flatten: bool,
    overwrite: bool,
    accept: float | None = None,
    **reading: Any,
) -> pd.DataFrame:
    """Bring a job home and return a frame, or the job's own keys, with its answers."""
    if frame is not None and not isinstance(frame, pd.DataFrame):
        raise InputError(
            f"What is to be collected on is a {type(frame).__name__}.",
            "Give the DataFrame that was submitted, or none for key and answers alone.",
        )
    with session.folder.opened() as found:
        output = session.output(**reading)
        if frame is not None and waiting.max_rounds:  # refused before anything is paid for it
            require_match(match_frame(frame, found, found.sidecar()), frame, found)
        job = bring_home(session, found, output, waiting)
        made = answers(
            job, output, frame, waiting.budget, usage=usage, flatten=flatten, overwrite=overwrite
        )
        return made if accept is None else _with_accept(made, frame, job, output, accept)


def _with_accept(
    made: pd.DataFrame, frame: pd.DataFrame | None, job: JobState, output: Output, accept: float
) -> pd.DataFrame:
    """Return collected answers with each row's score, and whether it can be taken as it is."""
    from frameenrich.evaluation.job_answers import JobAnswers  # noqa: PLC0415 - for this option only
    from frameenrich.verbs.accept import accept_rows  # noqa: PLC0415

    own = answers(job, output, usage=True)
    found = accept_rows(JobAnswers(job, output, own), accept)
    positions = np.arange(len(own), dtype=np.int64)
    if frame is not None:
        positions = require_match(match_frame(frame, job, job.sidecar()), frame, job).positions
    columns = found.columns(job.spec.name, positions)
    names = [*columns, f"{job.spec.name}_status"]  # with which an earlier collect's are known
    JobColumns(job.spec.name).check_frame(names, [] if frame is None else frame.columns)
    return with_columns(made, columns)


def collect_own(session: Session, **reading: Any) -> pd.DataFrame:
    """Return all rows of a job under its own keys, with what each answer took."""
    waiting = Waiting(budget=session.budget())
    return collect(session, None, waiting, usage=True, flatten=False, overwrite=False, **reading)


def bring_home(session: Session, job: JobState, output: Output, waiting: Waiting) -> JobState:
    """Look at a job, or wait for it and mend what can be mended; return how far it is then."""
    timing = (waiting.deadline, waiting.poll_seconds)
    job = bring_up_to_date(session, job, *timing, waiting=waiting.wait)
    if not waiting.max_rounds:
        return job
    mend(session, output, waiting.max_rounds, *timing, waiting.budget)
    return job.read()


def answers(
    job: JobState,
    output: Output,
    frame: pd.DataFrame | None = None,
    budget: Budget | None = None,
    *,
    usage: bool = False,
    flatten: bool = False,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Return what is on disk, as columns; asks no provider."""
    needed = [] if frame is None else ["input_hash", "shard"]
    sidecar = job.sidecar(columns=[*job.key_columns, *needed])
    if frame is None:
        frame = key_frame(job, sidecar_keys(sidecar))
        positions = np.arange(len(frame), dtype=np.int64)
    else:
        positions = require_match(match_frame(frame, job, sidecar), frame, job).positions
    del sidecar  # before columns are made: it may be as large as they
    prices = prices_of(job, budget or Budget())
    return with_answers(
        frame,
        positions,
        job,
        output,
        prices,
        usage=usage,
        flatten=flatten,
        overwrite=overwrite,
    )


def collector_of(
    session: Session, output: Output, budget: Budget, *, usage: bool, flatten: bool
) -> Collector:
    """Return what collects parts of a job in any process, from what is on disk."""
    reading = Output(output.spec, output.model, output.parser)  # without what it keeps
    prices = prices_of(session.folder, budget)
    folder = session.folder
    return Collector(folder.store.url, folder.id, reading, prices, usage, flatten)


def collect_part(
    session: Session, frame: pd.DataFrame, part: int | None, **options: Any
) -> pd.DataFrame:
    """Return rows of a frame larger than memory with their answers; see `Job.collect_part`."""
    budget = session.budget(None, options.pop("prices", None))
    usage, flatten = options.pop("usage", False), options.pop("flatten", False)
    output = session.output(**options)
    return collector_of(session, output, budget, usage=usage, flatten=flatten)(frame, part)


def count_seen(session: Session, frame: pd.DataFrame, part: int | None) -> int:
    """Return how many of some rows the job was made for; see `Job.count_seen`."""
    folder = session.folder
    match = match_frame(frame, folder, find_sidecar_rows(folder, frame, part))
    return int(require_unchanged(match, frame, folder).seen.sum())


def flagged(session: Session, frame: pd.DataFrame | None, **reading: Any) -> pd.DataFrame:
    """Return the rows whose status is terminal and not ``ok``; see `Job.flagged`."""
    with session.folder.opened() as job:
        output = session.output(**reading)
        if frame is None:
            return flagged_rows(job, output, np.arange(job.row_count))
        match = require_match(match_frame(frame, job, job.sidecar()), frame, job)
        return flagged_rows(job, output, match.positions, frame.index)
