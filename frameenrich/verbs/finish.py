"""Finish a job whose batches are stuck: keep what came, ask the rest elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from frameenrich.answers.judge import READERS
from frameenrich.answers.output import Output
from frameenrich.errors import ParameterError
from frameenrich.lifecycle.approve import approve_round
from frameenrich.lifecycle.finish import lines_to_move, withdraw_all, withdrawn_shards
from frameenrich.lifecycle.regenerate import RetryOptions
from frameenrich.lifecycle.wait import Deadline
from frameenrich.model import OutputSpec
from frameenrich.prepare.params import check_params
from frameenrich.pricing.money import Budget
from frameenrich.providers.protocol import Provider
from frameenrich.verbs.regenerate import check_round, send_round
from frameenrich.verbs.session import Session


def finish(
    session: Session,
    provider: str | Provider,
    *,
    model: str | None,
    params: Mapping[str, Any] | None,
    budget: Budget,
    deadline: Deadline,
    poll_seconds: float | None,
) -> None:
    """Cancel what runs, take what came, and ask what has no answer elsewhere; see `Job.finish`.

    Everything that can be refused is refused before the first batch is cancelled. A call that
    follows one that was killed finds batches of `provider`, which it goes on with.
    """
    spec = session.job().spec
    changed = check_params(params, spec.endpoint, spec.output)
    elsewhere = session.elsewhere(provider)
    if elsewhere is None and not session.provider().blocking:
        raise ParameterError(
            f"The job {session.folder.id} goes to {spec.provider!r} already.",
            "Name another provider, such as 'live'; or cancel() it, then regenerate().",
        )
    options = RetryOptions(None, model, changed, elsewhere=elsewhere, unanswered=True)
    check_round(session, options)
    keep = elsewhere.provider if elsewhere else None
    job = session.job().read()
    # Batches of the new provider stay: an earlier call of `finish` made them.
    ending = withdrawn_shards(job, keep)
    for _ in lines_to_move(ending, options):
        pass  # each is checked, as nothing can be taken back once a batch is cancelled
    # The cost is approved before the cancel: a rest that is too dear must not end its batches.
    approve_round(job, budget, lines_to_move(ending, options), keep, ending, options.params)
    if ending:
        withdraw_all(job, session.routes(job), keep, deadline, poll_seconds)
        job = job.read()
    session.send(job)  # what an earlier call began to ask there
    # Without the job's parser: a missing answer is missing for any.
    own = session.job().spec.output
    reading = Output(own if own.kind in READERS else OutputSpec())
    send_round(session, job, options, reading, budget)
