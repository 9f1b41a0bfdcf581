"""What the doors call: from a frame and wishes to a `Job`, and from a store to its jobs."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from frameenrich.budget import (
    Asked,
    Counts,
    approve_job,
    check_price,
    estimate_counts,
    estimate_frame,
    measure,
)
from frameenrich.cost import Budget, Estimate
from frameenrich.errors import (
    CredentialsError,
    FrameMismatchError,
    InputError,
    JobNotFoundError,
    ParameterError,
    StoreError,
)
from frameenrich.forms import choose_output
from frameenrich.gather import match_frame, refuse_mismatch
from frameenrich.housekeeping import pass_over, readable_jobs
from frameenrich.job import Job, StoreLike
from frameenrich.joining import join_parts
from frameenrich.lines import find_lines
from frameenrich.merge import output_columns
from frameenrich.model import JobSpec, Limits
from frameenrich.output import Parser
from frameenrich.parts import Part, Stage, staged
from frameenrich.plan import Plan, Template, make_plan, ready_plan
from frameenrich.preview import Preview
from frameenrich.prices import PricesLike
from frameenrich.providers.base import Provider, check_request, connect
from frameenrich.ready import Requests, open_requests
from frameenrich.repeats import Halves
from frameenrich.reuse import find_answers
from frameenrich.store import JobFolder, Store, open_store
from frameenrich.write import check_frame, preview_bodies, write_job
from frameenrich.write_ready import write_ready


def submit(
    frame: pd.DataFrame,
    template: Template,
    model: str,
    *,
    fresh: bool = False,
    **options: Any,
) -> Job:
    """Render a frame to a job on disk and send it; see ``df.llmbatch.submit``."""
    sending = _prepare(template, model, **options)
    folder = write_job(
        frame, sending.plan, sending.store, sending.limits, **sending.options(fresh=fresh)
    )
    return sending.job(folder)


def submit_parts(
    write: Callable[[Stage], Iterable[Part]],
    columns: Sequence[str],
    template: Template,
    model: str,
    *,
    fresh: bool = False,
    **options: Any,
) -> Job:
    """As `submit`, for a frame that comes in parts; its job is the one of the whole frame.

    Parameters
    ----------
    write : callable
        Writes all parts, here or elsewhere, by `frameenrich.parts.write_part`, and gives what that
        gave for each. It is called once.
    columns : sequence of str
        The frame's columns, checked before anything is read of it.
    template, model, **options
        As ``df.llmbatch.submit`` takes them.

    Raises
    ------
    InputError
        Something cannot be used; nothing was sent, and there is no job.
    ProviderError
        The provider refused or broke; submit again to go on where it stopped.
    """
    sending = _prepare(template, model, **options)
    plan = sending.plan
    plan.prompt.columns_used(list(columns))
    with staged(sending.store, plan.spec, sending.limits) as stage:
        parts = write(stage)
        folder = join_parts(stage, plan, parts, columns=columns, **sending.options(fresh=fresh))
    return sending.job(folder)


@dataclass(frozen=True)
class RootedFolder(JobFolder):
    """A job's folder, read where the job's images lie in another folder than they once did.

    Where images lie is no part of what is asked: a submit from another working folder, or with
    another ``image_root``, finds the job that is there, whose spec has the first one.

    Parameters
    ----------
    store, id
        As `JobFolder` takes them.
    image_root : str
        The folder that its images lie in now, as this process sees it.
    """

    image_root: str = "."

    @cached_property
    def spec(self) -> JobSpec:
        """What the job sends, with the images' place of now."""
        return replace(JobFolder(self.store, self.id).spec, image_root=self.image_root)


@dataclass(frozen=True)
class _Sending:
    """What is decided of a submit before a row is looked at."""

    plan: Plan
    route: Provider
    store: Store

    @property
    def limits(self) -> Limits:
        return self.route.limits.within_tokens(self.plan.spec.max_enqueued_tokens)

    def options(self, *, fresh: bool) -> dict[str, Any]:
        """What of it decides whether there is a new job, and what is sent of it."""
        spec, output = self.plan.spec, self.plan.output
        return {
            "nonce": secrets.token_hex(8) if fresh else "",
            "find_answers": None
            if fresh
            else lambda hashes: find_answers(self.store, spec, output, hashes),
            "approve": approve_job(spec, self.store),
        }

    def job(self, folder: JobFolder) -> Job:
        """The job that was written, or was there already, sent."""
        spec = self.plan.spec
        budget = Budget(spec.max_cost, spec.prices)
        if spec.image:
            folder = RootedFolder(folder.store, folder.id, spec.image_root)
        return Job(folder, output=self.plan.output, provider=self.route, budget=budget).send()


def _prepare(
    template: Template,
    model: str,
    *,
    provider: str | Provider = "openai",
    client: Any = None,
    store: StoreLike = None,
    labels: Any = None,
    response_model: Any = None,
    parser: Parser | None = None,
    endpoint: str = "/v1/chat/completions",
    **wishes: Any,
) -> _Sending:
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
    route = connect(route, pace=plan.spec.pace)
    check_request(route, plan.spec)
    return _Sending(plan, route, open_store(store))


def estimate(
    frame: pd.DataFrame,
    template: Template,
    model: str,
    *,
    fresh: bool = False,
    **options: Any,
) -> Estimate:
    """What a submit would send and cost; see ``df.llmbatch.estimate``."""
    plan, where = _plan_to_estimate(template, model, **options)
    found = measure(where, plan.spec)
    return estimate_frame(frame, plan, found, _answered(plan, where, fresh=fresh))


def estimate_parts(
    count: Callable[[JobSpec], Iterable[Counts]],
    columns: Sequence[str],
    template: Template,
    model: str,
    *,
    fresh: bool = False,
    **options: Any,
) -> Estimate:
    """As `estimate`, for a frame that comes in parts.

    Parameters
    ----------
    count : callable
        Counts all parts that have rows, here or elsewhere, by `frameenrich.budget.count_frame`.
    columns : sequence of str
        The frame's columns, checked before anything is read of it.
    template, model, **options
        As ``df.llmbatch.submit`` takes them.

    Raises
    ------
    InputError
        Something cannot be used, or there is no row.
    """
    plan, where = _plan_to_estimate(template, model, **options)
    check_price(plan.spec)
    plan.prompt.columns_used(list(columns))
    counts = list(count(plan.spec))
    if not counts:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    found = measure(where, plan.spec)
    return estimate_counts(counts, plan, found, _answered(plan, where, fresh=fresh))


def _plan_to_estimate(
    template: Template,
    model: str,
    *,
    provider: str | Provider = "openai",
    client: Any = None,
    store: StoreLike = None,
    labels: Any = None,
    response_model: Any = None,
    parser: Parser | None = None,
    endpoint: str = "/v1/chat/completions",
    **wishes: Any,
) -> tuple[Plan, Store]:
    output = choose_output(labels, response_model, parser)
    name, url = _route(provider, client, model, endpoint)
    plan = make_plan(template, model, output, url=url, provider=name, endpoint=endpoint, **wishes)
    return plan, open_store(store)


def _answered(plan: Plan, where: Store, *, fresh: bool) -> Asked:
    """What of some requests the store has good answers to."""

    def answered(sent: Halves) -> Iterable[bytes]:
        found = None if fresh else find_answers(where, plan.spec, plan.output, sent)
        return () if found is None else found.origins

    return answered


def _route(provider: str | Provider, client: Any, model: str, endpoint: str) -> tuple[str, str]:
    """What a provider is called and what its requests call; asks for no key."""
    try:
        route = connect(provider, client, model)
    except CredentialsError:
        return str(provider), endpoint
    return route.name, route.url(endpoint)


def submit_requests(
    requests: Requests,
    *,
    name: str = "answer",
    labels: Any = None,
    response_model: Any = None,
    parser: Parser | None = None,
    prefix: str = "",
    provider: str | Provider = "openai",
    client: Any = None,
    store: StoreLike = None,
    max_enqueued_tokens: int | None = None,
    max_cost: float | None = None,
    prices: PricesLike | None = None,
    fresh: bool = False,
) -> Job:
    """Send requests that are in the batch format already, with the promises of a frame's job.

    All are checked before the first is sent. The same requests again, in whatever order and form,
    are the same job; those that this store has good answers to are not sent, and identical ones
    are sent once (a ``seed`` of its own makes a request another one). They are cut into batches by
    model and by the provider's limits. A ``custom_id`` that not every provider takes (over 51
    characters, or others than ``A-Z a-z 0-9 _ -``) goes under another name and comes back as it
    was. ``job.collect()`` gives a frame by custom_id: ``custom_id``, ``answer``,
    ``answer_status``, ``answer_error``; a frame that has a column ``custom_id`` can be collected
    on, too.

    Parameters
    ----------
    requests : str, PathLike or iterable
        A JSONL file (``.gz`` too, or any URL that fsspec opens), or the requests: dicts, or lines
        of JSON. Each is ``{"custom_id", "method": "POST", "url", "body"}``; all go to one
        endpoint.
    name : str
        Names the column of the answers.
    labels, response_model, parser
        How answers are read, as ``df.llmbatch.submit`` takes them; nothing of it is put into the
        requests. By default they are text.
    prefix, provider, client, store, max_enqueued_tokens, max_cost, prices, fresh
        As ``df.llmbatch.submit`` takes them.

    Raises
    ------
    InputError
        Something cannot be used, named by file and line; nothing was sent.
    ProviderError
        The provider refused or broke; submit again to go on where it stopped.

    Examples
    --------
    >>> import tempfile
    >>> ask = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Red or blue?"}]}
    >>> url = "/v1/chat/completions"
    >>> job = submit_requests(
    ...     [{"custom_id": "colour", "method": "POST", "url": url, "body": ask}],
    ...     provider="file",
    ...     store=tempfile.mkdtemp(),
    ... )
    >>> job.collect()[["custom_id", "answer_status"]].values.tolist()
    [['colour', 'pending']]
    """
    output = choose_output(labels, response_model, parser)
    where = open_store(store)
    with open_requests(requests) as ready:
        first = ready.first()
        route = connect(provider, client, first.model)
        url = route.url(first.endpoint)
        limits = route.limits.within_tokens(max_enqueued_tokens)
        survey = ready.survey(url, limits, getattr(route, "check", None))
        for model in survey.models if route.blocking and isinstance(provider, str) else ():
            connect(provider, client, model)  # one that it does not have is refused here
        plan = ready_plan(
            output,
            models=survey.models,
            url=url,
            provider=route.name,
            endpoint=first.endpoint,
            name=name,
            prefix=prefix,
            max_enqueued_tokens=max_enqueued_tokens,
            max_cost=max_cost,
            prices=prices,
        )
        folder = write_ready(
            ready,
            survey,
            plan.spec,
            where,
            limits,
            nonce=secrets.token_hex(8) if fresh else "",
            find_answers=None
            if fresh
            else lambda hashes: find_answers(where, plan.spec, plan.output, hashes),
            approve=approve_job(plan.spec, where),
        )
    budget = Budget(plan.spec.max_cost, plan.spec.prices)
    return Job(folder, output=plan.output, provider=route, budget=budget).send()


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
    if n < 1:
        raise ParameterError(f"n={n} asks for no row.", "Give 1 or more.")
    output = choose_output(labels, response_model, parser)
    plan = make_plan(
        template, model, output, url=endpoint, provider="", endpoint=endpoint, **wishes
    )
    check_frame(frame, plan)
    columns = output_columns(plan.spec, plan.output)
    slow = plan.prompt.why_slow(list(frame.columns))
    return Preview(tuple(preview_bodies(frame, plan, n)), tuple(columns), slow)


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


def find_job(
    frame: pd.DataFrame, store: StoreLike = None, *, part: int | None = None, **handles: Any
) -> Job:
    """The newest job that was made for this frame; a pilot only where there is no other.

    Parameters
    ----------
    frame : DataFrame
        The frame, or some rows of it.
    store : str, PathLike or Store, optional
        Where to look.
    part : int, optional
        Which part these rows are of, where the frame is larger than memory.
    **handles
        As `Job` takes them.

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
    for folder in sorted(folders, key=lambda folder: folder.spec.pilot):
        try:
            lines = folder.sidecar() if part is None else find_lines(folder, frame, part)
            match = match_frame(frame, folder, lines)
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
