"""Ask another model about the rows of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frameenrich.errors import InputError, ParameterError
from frameenrich.evaluation.draw import WHOLE, draw_rows
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.model import HASHES
from frameenrich.prepare.codebook import with_system_text
from frameenrich.prepare.json_modes import choose_asking, words_of
from frameenrich.prepare.options import Plan, check_model, check_name, check_request, new_tag
from frameenrich.prepare.params import check_params
from frameenrich.prepare.same_rows import draft_of_same_rows
from frameenrich.pricing.money import check_max_cost
from frameenrich.pricing.prices import PricesLike, check_prices
from frameenrich.providers.protocol import Provider
from frameenrich.providers.registry import connect
from frameenrich.verbs.evaluate import judge
from frameenrich.verbs.job import Job
from frameenrich.verbs.session import Session
from frameenrich.verbs.submit import Submission


def second_opinion(
    session: Session,
    model: str,
    *,
    provider: str | Provider | None,
    n: int | None,
    seed: int,
    name: str | None,
    params: Mapping[str, Any] | None,
    client: Any,
    max_cost: float | None,
    prices: PricesLike | None,
) -> Job:
    """Send a job's rows to another model as a job of its own; see `Job.second_opinion`."""
    check_model(model)
    if name is not None:
        check_name(name)
    first = session.job()
    own = first.spec
    if provider is None:
        # A client belongs to its provider, so it is passed on only where the provider stays.
        provider, client = own.provider, client or session.client
    route = connect(provider, client, model)
    changed = check_params(params, own.endpoint, own.output)
    spec = replace(
        own,
        name=f"{own.name}_second" if name is None else name,
        model=model,
        params=dict(sorted({**own.params, **changed}.items())),
        provider=route.name,
        url=route.url(own.endpoint),
        # `evaluate` finds the newest second opinion by this, and scores rows by agreement.
        second_of=first.id,
        max_cost=check_max_cost(max_cost),
        prices=check_prices(prices),
        pace=None,
        pilot=False,
        metadata={},
        completion_window=None,
        cache=None,
        cached_by="",
        cache_key=None,
        # A new job: its hashes and tag are this version's, whatever the first job has.
        version=HASHES,
        tag=new_tag(),
    )
    if (spec.model, spec.params, spec.provider) == (own.model, own.params, own.provider):
        raise ParameterError(
            f"model={model!r} with the same parameters gave the first opinion already.",
            "Name another model, or other params=; submit(samples=5) asks one model several times.",
            model=model,
        )
    # The other model's server may take another form of schema than the first one's.
    asking = choose_asking(spec, getattr(route, "server", ""))
    spec = replace(spec, **vars(asking))
    in_words = {"object", "prompt"}  # the first job's prompt says it already
    words = "" if {own.asked_by, spec.asked_by} <= in_words else words_of(spec)
    if words:
        spec = replace(spec, messages=with_system_text(spec.messages, words))
    plan = Plan(spec, session.output())
    plan.columns.check(key=first.key_names)
    check_request(route, spec)
    sending = Submission(plan, route, first.store)
    positions = _positions(session, n, seed)
    limits = sending.limits
    with draft_of_same_rows(first, positions, spec, first.store, limits, words) as draft:
        if not draft.rows:
            raise InputError(f"The job {first.id} has sent nothing.", "Submit rows first.")
        folder = sending.make_job(draft)
    return sending.send(folder)


def _positions(session: Session, n: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Return all rows, or as many of the usable ones as are wanted, drawn at random."""
    if n is None:
        return np.arange(session.job().row_count)
    if type(n) is not int or n < 1:
        raise ParameterError(f"n={n!r} rows cannot be drawn.", "Give a whole number above 0.", n=n)
    return judge(session, lambda job: _drawn(job, n, seed))


def _drawn(job: JobAnswers, n: int, seed: int) -> npt.NDArray[np.int64]:
    if not len(job.usable):
        raise InputError(
            f"The job {job.folder.id} has no usable row to ask about.",
            "Wait for its answers: job.wait().",
        )
    keys = job.keys.take(pa.array(job.usable))
    drawn = draw_rows(keys, [WHOLE] * len(keys), n, seed=seed, job_id=job.folder.id)
    return np.sort(job.usable[drawn.positions])
