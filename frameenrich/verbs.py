"""What the doors call: from a frame and wishes to a `Job`, and from a store to its jobs."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

import pandas as pd

from frameenrich.budget import approve_job, estimate_frame, measure
from frameenrich.cost import Budget, Estimate
from frameenrich.errors import CredentialsError, FrameMismatchError, JobNotFoundError, StoreError
from frameenrich.gather import match_frame, refuse_mismatch
from frameenrich.housekeeping import pass_over, readable_jobs
from frameenrich.job import Job, StoreLike
from frameenrich.merge import output_columns
from frameenrich.output import Parser, choose_output
from frameenrich.plan import Template, make_plan
from frameenrich.preview import Preview
from frameenrich.providers.base import Provider, check_request, connect
from frameenrich.repeats import Halves
from frameenrich.reuse import find_answers
from frameenrich.store import open_store
from frameenrich.write import check_frame, preview_bodies, write_job


def submit(
    frame: pd.DataFrame,
    template: Template,
    model: str,
    *,
    provider: str | Provider = "openai",
    client: Any = None,
    store: StoreLike = None,
    labels: Any = None,
    response_model: Any = None,
    parser: Parser | None = None,
    fresh: bool = False,
    endpoint: str = "/v1/chat/completions",
    **wishes: Any,
) -> Job:
    """Render a frame to a job on disk and send it; see ``df.llmbatch.submit``."""
    output = choose_output(labels, response_model, parser)
    route = connect(provider, client, model)
    plan = make_plan(
        template,
        model,
        output,
        url=route.url(endpoint),
        provider=route.name,
        endpoint=endpoint,
        **wishes,
    )
    check_request(route, plan.spec)
    nonce = secrets.token_hex(8) if fresh else ""
    where = open_store(store)
    folder = write_job(
        frame,
        plan,
        where,
        route.limits.within_tokens(plan.spec.max_enqueued_tokens),
        nonce=nonce,
        find_answers=None
        if fresh
        else lambda hashes: find_answers(where, plan.spec, plan.output, hashes),
        approve=approve_job(plan.spec, where),
    )
    budget = Budget(plan.spec.max_cost, plan.spec.prices)
    return Job(folder, output=plan.output, provider=route, budget=budget).send()


def estimate(
    frame: pd.DataFrame,
    template: Template,
    model: str,
    *,
    provider: str | Provider = "openai",
    client: Any = None,
    store: StoreLike = None,
    labels: Any = None,
    response_model: Any = None,
    parser: Parser | None = None,
    fresh: bool = False,
    endpoint: str = "/v1/chat/completions",
    **wishes: Any,
) -> Estimate:
    """What a submit would send and cost; see ``df.llmbatch.estimate``."""
    output = choose_output(labels, response_model, parser)
    name, url = _route(provider, client, model, endpoint)
    plan = make_plan(template, model, output, url=url, provider=name, endpoint=endpoint, **wishes)
    where = open_store(store)

    def answered(sent: Halves) -> Iterable[bytes]:
        found = None if fresh else find_answers(where, plan.spec, plan.output, sent)
        return () if found is None else found.origins

    return estimate_frame(frame, plan, measure(where, plan.spec), answered)


def _route(provider: str | Provider, client: Any, model: str, endpoint: str) -> tuple[str, str]:
    """What a provider is called and what its requests call; asks for no key."""
    try:
        route = connect(provider, client, model)
    except CredentialsError:
        return str(provider), endpoint
    return route.name, route.url(endpoint)


def preview(
    frame: pd.DataFrame,
    template: Template,
    model: str,
    *,
    n: int = 3,
    labels: Any = None,
    response_model: Any = None,
    parser: Parser | None = None,
    endpoint: str = "/v1/chat/completions",
    **wishes: Any,
) -> Preview:
    """The first requests as they would be sent; see ``df.llmbatch.preview``."""
    output = choose_output(labels, response_model, parser)
    plan = make_plan(
        template, model, output, url=endpoint, provider="", endpoint=endpoint, **wishes
    )
    check_frame(frame, plan)
    columns = output_columns(plan.spec, plan.output)
    return Preview(tuple(preview_bodies(frame, plan, n)), tuple(columns))


def open_job(
    id: str,  # noqa: A002 - the public face's own name
    store: StoreLike = None,
    *,
    client: Any = None,
    provider: Provider | None = None,
) -> Job:
    """A handle on a job that was submitted earlier.

    Parameters
    ----------
    id : str
        As ``job.id`` gave it, or `frameenrich.jobs` lists it.
    store : str, PathLike or Store, optional
        Where to look; ``$FRAMEENRICH_STORE`` or ``.frameenrich`` by default.
    client, provider : optional
        How to reach the provider, where the environment does not say.

    Raises
    ------
    JobNotFoundError
        The store holds no such job.
    """
    return Job(open_store(store).job(id), provider=provider, client=client)


def find_job(frame: pd.DataFrame, store: StoreLike = None, **handles: Any) -> Job:
    """The newest job that was made for this frame.

    Raises
    ------
    JobNotFoundError
        No job of the store has any of this frame's keys.
    FrameMismatchError
        Jobs have its keys, but its rows changed under them since.
    StoreError
        There is none, but a job whose sidecar is damaged; where there is one, that is a warning.
    """
    where = open_store(store)
    mismatch: FrameMismatchError | None = None
    folders, damages = readable_jobs(where)
    for folder in folders:
        try:
            match = match_frame(frame, folder, folder.sidecar())
            if match is None or not match.seen.any():
                continue
            refuse_mismatch(match, frame, folder)
        except StoreError as error:
            damages.append(error)
        except FrameMismatchError as error:
            mismatch = mismatch or error
        else:
            pass_over(damages)
            return Job(folder, **handles)
    if mismatch is not None or damages:
        raise mismatch or damages[0]
    raise JobNotFoundError(
        f"The store {where.root} holds no job for this frame.",
        "Submit it first, or say which: collect(job=...); frameenrich.jobs() lists them.",
    )
