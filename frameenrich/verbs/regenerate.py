"""Send a job's flagged rows again, once or until nothing is left to repair."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.answers.columns import result_columns
from frameenrich.answers.output import Output
from frameenrich.errors import BudgetError, CredentialsError, ProviderError, warn_user
from frameenrich.lifecycle.approve import approve_round
from frameenrich.lifecycle.edits import corrected_rows
from frameenrich.lifecycle.fetch import fetch_short_again
from frameenrich.lifecycle.match import match_frame
from frameenrich.lifecycle.refetch import with_whole_files
from frameenrich.lifecycle.regenerate import (
    RetryOptions,
    RoundCounts,
    check_statuses,
    draft_of_retries,
    repairable,
)
from frameenrich.lifecycle.results import read_results
from frameenrich.lifecycle.row_facts import describe_round
from frameenrich.lifecycle.step import is_lost
from frameenrich.lifecycle.wait import Deadline, step, wait
from frameenrich.prepare.batch_options import check_tier
from frameenrich.prepare.model_families import check_family
from frameenrich.prepare.options import check_model, check_request
from frameenrich.prepare.params import check_params
from frameenrich.pricing.money import Budget
from frameenrich.providers.protocol import Provider
from frameenrich.store.folder import JobState
from frameenrich.verbs.session import Session


def bring_up_to_date(
    session: Session,
    job: JobState,
    deadline: Deadline,
    poll_seconds: float | None,
    *,
    waiting: bool,
) -> JobState:
    """Poll a job once, or wait until it has ended; return its state afterwards."""
    if job.settled:
        return job
    try:
        if waiting:
            wait(job, session.routes(job), deadline, poll_seconds)
            return job.read()
        provider = session.routes(job)
        # Such a provider's step answers every row here and now, which a mere poll must not do.
        return job if provider.blocking else step(job, provider)
    except (ProviderError, CredentialsError, BudgetError) as error:
        # What is home can be read whatever the provider says; who waits wants to know, though.
        job = job.read()
        lost = isinstance(error, ProviderError) and is_lost(error)
        if waiting and not (lost and any(batch.settled for batch in job.batches)):
            raise
        warn_user(f"The job {job.id} is shown as far as it is here. {error}")
        return job


def regenerate(
    session: Session,
    frame: pd.DataFrame | None = None,
    *,
    statuses: Iterable[str] | None,
    model: str | None,
    provider: str | Provider | None,
    params: Mapping[str, Any] | None,
    feedback: bool,
    budget: Budget,
    **reading: Any,
) -> None:
    """Send flagged rows again, as a new round; see `Job.regenerate`."""
    if model is not None:
        check_model(model)
    with session.opened() as found:
        spec = found.spec
        # A row whose answer has come meanwhile is not to be paid again.
        job = bring_up_to_date(session, found, Deadline(), None, waiting=False)
        output = session.output(**reading)
        changed = check_params(params, spec.endpoint, spec.output)
        elsewhere = session.elsewhere(provider)
        options = RetryOptions(check_statuses(statuses), model, changed, feedback, elsewhere)
        if frame is not None:
            options = replace(options, left_alone=corrected_requests(job, frame, output))
        check_round(session, options)
        counts = send_round(session, job, options, output, budget)
    session.last_round = describe_round(counts.sent, counts.left)
    if counts.left and not counts.sent:  # else the job itself, and its card, say it
        warn_user(session.last_round)


def corrected_requests(job: JobState, frame: pd.DataFrame, output: Output) -> frozenset[str]:
    """Return the requests whose rows in a frame all hold a person's correction.

    A frame that was never collected holds none, whatever its rows have become since.
    """
    if f"{job.spec.name}_status" not in frame.columns:
        return frozenset()
    sidecar = job.sidecar()
    match = match_frame(frame, job, sidecar)
    if match is None:
        return frozenset()
    found = read_results(job, output)
    seen = match.seen
    columns = result_columns(found.table, found.at(match.positions), seen, job.spec)
    corrected = np.zeros(len(frame), dtype=np.bool_)
    corrected[corrected_rows(frame, columns, job, output)] = True
    ids = np.array(sidecar["custom_id"].to_pylist(), dtype=object)[match.positions]
    # Rows share a request: it is left alone only where all its rows are corrected.
    own = frozenset(ids[seen & corrected]) - frozenset(ids[seen & ~corrected])
    slots = found.find(pa.array(sorted(own), pa.string()))
    flagged = int(found.table.flagged()[slots].sum()) if own else 0
    if flagged:
        warn_user(f"Rows that were corrected by hand are not asked again: {flagged:,}.")
    return own


def check_round(session: Session, options: RetryOptions) -> None:
    """Refuse a model or parameter that the round's provider lacks, before anything is sent."""
    spec, other = session.job().spec, options.elsewhere
    changed = replace(spec, params={**spec.params, **options.params})
    check_tier(changed, other.provider if other else spec.provider)
    if options.params or options.model is not None or other is not None:
        to = other.provider if other else spec.provider
        check_family(replace(changed, model=options.model or spec.model, provider=to), "")
    if options.model is not None:
        session.check_has(options.model, options.elsewhere)


def send_round(
    session: Session,
    job: JobState,
    options: RetryOptions,
    output: Output,
    budget: Budget,
    *,
    max_rounds: float = math.inf,
) -> RoundCounts:
    """Write a round of a job's flagged rows, check its cost, and send it.

    Nothing is written where the job has had `max_rounds` after its first.
    """
    other = options.elsewhere.provider if options.elsewhere else None
    provider = session.provider_of(other)
    if options.params and other is None:
        check_request(provider, job.spec, options.params)
    limits = provider.limits.within_tokens(job.spec.max_enqueued_tokens)

    def write() -> tuple[RoundCounts, JobState]:
        counts = RoundCounts()
        with job.lock():
            # Counted under the lock: another process may have sent the last one meanwhile.
            now = job.read()
            if now.rounds() > max_rounds:
                return counts, now
            fetch_short_again(now, session.routes)
            with draft_of_retries(now, output, options, limits, counts) as draft:
                if draft is not None:
                    lines = draft.request_lines()
                    approve_round(now, budget, lines, other, params=options.params)
                    draft.commit()
        return counts, now if draft is None else now.read()

    # Else what is lost here would be paid for again.
    counts, now = with_whole_files(job, session.routes, write)
    session.send(now)
    return counts


def mend(
    session: Session,
    job: JobState,
    output: Output,
    max_rounds: int,
    deadline: Deadline,
    poll_seconds: float | None,
    budget: Budget,
) -> JobState:
    """Send rounds and wait, until nothing can be repaired or paid, or nothing changed."""
    left = repairable(job, output)
    # The job's rounds count, not this call's: a cell that is run twice pays once.
    while left.rows and job.rounds() <= max_rounds:
        before = left
        try:
            send_round(session, job, RetryOptions(), output, budget, max_rounds=max_rounds)
        except BudgetError as error:
            # A warning and no error: the answers that are there were paid for, and are returned.
            warn_user(f"No further round of the job {job.id}: {error}")
            break
        job = bring_up_to_date(session, job.read(), deadline, poll_seconds, waiting=True)
        left = repairable(job, output)
        # The same rows failed in the same way: another round would only cost.
        if left == before:
            break
    return job
