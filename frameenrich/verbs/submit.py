"""Submit a frame, a frame in parts, or ready requests."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Unpack

import pandas as pd

from frameenrich.answers.column_names import JobColumns
from frameenrich.answers.output import Output, Parser
from frameenrich.errors import ParameterError, StoreError
from frameenrich.identity.hash_table import KnownRequests
from frameenrich.lifecycle.approve import approve_job, approve_probe
from frameenrich.lifecycle.reuse import (
    StoredAnswers,
    answers_of,
    find_running,
    find_stored_answers,
)
from frameenrich.model import CONFIRM_SECONDS, JobSpec, Limits
from frameenrich.prepare.batch_options import check_batch_options
from frameenrich.prepare.caching import seeded, with_caching
from frameenrich.prepare.check_frame import warn_of_left_out, warn_of_sizes
from frameenrich.prepare.examples import with_rows
from frameenrich.prepare.job_draft import JobDraft
from frameenrich.prepare.job_files import slug_of
from frameenrich.prepare.model_families import check_family
from frameenrich.prepare.options import Plan, check_request, make_plan, pace_of, plan_ready
from frameenrich.prepare.parts import PartsFolder, draft_of_parts, open_parts_folder
from frameenrich.prepare.ready import Requests, open_requests
from frameenrich.prepare.ready_job import KEY, draft_of_requests, ready_job_id
from frameenrich.prepare.submit_options import Options, SubmitOptions
from frameenrich.prepare.whole_frame import draft_of_frame
from frameenrich.prepare.writer import Part
from frameenrich.pricing.money import Budget
from frameenrich.pricing.prices import PricesLike
from frameenrich.providers.protocol import Provider
from frameenrich.providers.registry import connect, live_version
from frameenrich.rendering.column_cells import may_print_otherwise
from frameenrich.rendering.template_source import Template
from frameenrich.store.folder import JobFolder, JobPath
from frameenrich.store.store import Store, StoreLike, open_store
from frameenrich.verbs.find_older import find_older, find_same, older_plans
from frameenrich.verbs.job import Job
from frameenrich.verbs.probe import FROM_REQUESTS, Probe, is_answered, unknown_lines
from frameenrich.verbs.signatures import takes_options_of


def submit(
    frame: pd.DataFrame, template: Template, model: str, **options: Unpack[SubmitOptions]
) -> Job:
    """Render a frame to a job on disk and send it; see ``df.llmbatch.submit``."""
    own = with_rows(Options(**options), frame)
    return submit_frame(frame, prepare(template, model, own))


def submit_frame(frame: pd.DataFrame, sending: Submission) -> Job:
    """Render a frame to a job on disk and send it, when all options are checked."""
    with draft_of_frame(frame, sending.plan, sending.store, sending.limits) as draft:
        warn_of_left_out(draft.parts, sending.plan.spec.name)
        # The draft comes before the search: a job is known by the hashes of its rendered rows.
        folder = sending.find_made(draft) or sending.find_older(
            draft_of_frame(frame, plan, sending.store, sending.limits)
            for plan in sending.older_plans(
                draft,
                floats=may_print_otherwise(
                    frame, sending.plan.prompt.columns_used(list(frame.columns))
                ),
            )
        )
        folder = folder or sending.make_job(draft)
    return sending.send(folder)


def submit_parts(
    write: Callable[[PartsFolder], Iterable[Part]],
    columns: Sequence[str],
    template: Template,
    model: str,
    **options: Unpack[SubmitOptions],
) -> Job:
    """Submit a frame that comes in parts; the job is the same as the whole frame's.

    Parameters
    ----------
    write : callable
        Writes all parts, here or elsewhere, by `prepare.parts.write_part`, and gives what that
        gave for each. It is called again where an earlier version may have made the job.
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
    sending = prepare(template, model, Options(**options))
    plan = sending.plan
    plan.prompt.columns_used(list(columns))

    @contextlib.contextmanager
    def written_by(plan: Plan) -> Iterator[JobDraft]:
        with (
            open_parts_folder(sending.store, plan.spec, sending.limits) as stage,
            draft_of_parts(stage, write(stage), columns) as draft,
        ):
            yield draft

    with written_by(plan) as draft:
        warn_of_left_out(draft.parts, plan.spec.name)
        folder = sending.find_made(draft) or sending.find_older(
            map(written_by, sending.older_plans(draft, floats=True))
        )
        folder = folder or sending.make_job(draft)
    return sending.send(folder)


@dataclass(frozen=True)
class Submission:
    """A submit whose options are checked, before a row is read."""

    plan: Plan
    route: Provider
    store: Store
    nonce: str = ""
    """Random with ``fresh=True``: makes the job a new one, which reuses no answers."""
    probe: bool | None = False

    @property
    def limits(self) -> Limits:
        """The provider's limits, within the queue of tokens that the user named."""
        limits = self.route.limits.within_tokens(self.plan.spec.max_enqueued_tokens)
        return seeded(limits, self.plan.spec)

    def find_made(self, draft: JobDraft) -> JobFolder | None:
        """Find the job of the same submit, made by this version or an earlier one."""
        if not self.nonce:
            return find_same(draft, self.store)
        job_id = draft.id(self.nonce)
        return JobPath(self.store, job_id).open() if self.store.has(job_id) else None

    def older_plans(self, draft: JobDraft, *, floats: bool) -> Iterator[Plan]:
        """Yield the plans by which an earlier version would have made the job; none if fresh."""
        if not self.nonce:
            yield from older_plans(self.plan, self.store, draft.id(), floats=floats)

    def find_older(self, drafts: Iterable[AbstractContextManager[JobDraft]]) -> JobFolder | None:
        """Find the job whose requests an earlier version wrote differently, by its drafts."""
        return find_older(drafts, self.plan.spec, self.store)

    def make_job(self, draft: JobDraft) -> JobFolder:
        """Reuse answers, check the cost, and commit a draft as a new job.

        Raises
        ------
        ColumnCollisionError
            The frame has a column where answers would go.
        BudgetError
            What is left to send could cost more than `max_cost`.
        """
        job_id = draft.id(self.nonce)
        spec = self.plan.spec
        if draft.columns:  # not sooner: an old job is found
            self.plan.check_uses_rows(draft.columns, draft.rows)
        # Checks of a new job only: one that was made before these checks is still found.
        check_family(spec, getattr(self.route, "server", ""))
        warn_of_sizes(sum(part.sized for part in draft.parts), spec)
        own = self._earlier_columns(draft)
        self.plan.columns.check(frame=[name for name in draft.columns if name not in own])
        # One lock of the store decides who waits for a running request and who sends it, or two
        # jobs that waited for a third would both send; and submits at once would ask the same first
        # row live. For each submit that asks one, the others wait little more than a minute at
        # most, whatever the server does: `Probe` hangs up on one that is slow.
        with self.store.deciding():
            if self.store.has(job_id):  # another process has made it meanwhile
                return JobPath(self.store, job_id).open()
            running, answers = self._known(draft)
            if self._probes(draft, answers) and (asked := self._probed(draft, answers, running)):
                # Again, with the live answers: `regenerate` takes no lock of the store, and may
                # have sent requests that nobody had running before the minute of the probe.
                del running, answers
                running, answers = self._known(draft, asked)
            draft.complete(job_id, answers, running)
            approve_job(spec, self.store, draft.request_lines())
            return draft.commit()

    def _known(
        self, draft: JobDraft, asked: Sequence[JobFolder] = ()
    ) -> tuple[KnownRequests, StoredAnswers | None]:
        """Find the draft's requests that run elsewhere, and those with a stored answer.

        Answers of `asked`, the jobs of this submit's probe, count also where it is fresh.
        """
        spec, output = self.plan.spec, self.plan.output
        if self.nonce:
            return KnownRequests.of([]), answers_of(asked, output, draft.hashes)
        # What another job has at its provider is not sent twice: this job waits for it, nor is such
        # a row asked live.
        # In this order, since a fetch takes no lock of the store: a batch that ends between the two
        # searches is seen by both, and its answer wins. The other way round neither saw it, and its
        # rows were paid twice.
        running = find_running(self.store, spec, draft.hashes)
        return running, find_stored_answers(self.store, spec, output, draft.hashes, asked=asked)

    def _probes(self, draft: JobDraft, answers: StoredAnswers | None) -> bool:
        """Tell whether a row is sent first: as ``probe=`` says, or for large jobs."""
        if self.probe is not None:
            return self.probe
        if self.route.blocking or answers is not None or len(draft.hashes) < FROM_REQUESTS:
            return False
        # The hashes are sorted. `np.unique` would sort or hash them again, a twentieth of a submit.
        distinct = 1 + int((draft.hashes[1:] != draft.hashes[:-1]).sum())
        return distinct >= FROM_REQUESTS and not is_answered(self.store, self.plan.spec)

    def _probed(
        self, draft: JobDraft, answers: StoredAnswers | None, running: KnownRequests
    ) -> list[JobFolder]:
        """Send a row live, if the provider can, after the cost of all is approved.

        Returns the jobs by which it was sent, none where nothing was.
        """
        try:
            live = live_version(self.route)
        except ParameterError:  # it has no live calls: nobody can be asked
            return []
        spec = self.plan.spec
        known = [running.hashes, *([answers.requests.hashes] if answers else [])]
        approve_probe(spec, self.store, unknown_lines(draft, spec.url, known))
        return Probe(spec, self.plan.output, self.store, live).ask(draft, known)

    def _earlier_columns(self, draft: JobDraft) -> set[str]:
        """Name the frame's columns that an earlier job of this name made; they may be replaced."""
        name = self.plan.spec.name
        # Every collect adds this column, so without it the frame has no earlier answers.
        if f"{name}_status" not in draft.columns:
            return set()
        slug, found = slug_of(self.plan.spec), set[str]()
        for job_id in self.store.job_ids():
            if job_id.rpartition("-")[0] == slug:
                with contextlib.suppress(StoreError):
                    spec = JobPath(self.store, job_id).open().spec
                    if spec.name == name:
                        made = JobColumns.of(spec, Output(spec.output))
                        found.update(made.added, made.nested)
        return found

    def send(self, folder: JobFolder) -> Job:
        """Send the job that was made, or was there already."""
        spec = self.plan.spec
        budget = Budget(spec.max_cost, spec.prices)
        folder = folder.with_spec(_as_said(folder.spec, spec))
        return Job(folder, output=self.plan.output, provider=self.route, budget=budget).send()


def _as_said(first: JobSpec, said: JobSpec) -> JobSpec:
    """Return a stored job's spec, with the image folder, caps and prices of this submit.

    Where images lie, how long a lost batch is looked for, and what a job may cost are no part of
    its identity: a submit with others finds the job that is there, whose spec has the first ones.
    """
    return replace(
        first,
        image_root=said.image_root,
        confirm_seconds=said.confirm_seconds,
        # A later call's cap and prices win: to go beyond a cap is to name a greater one.
        max_cost=first.max_cost if said.max_cost is None else said.max_cost,
        prices={**first.prices, **said.prices},
    )


def prepare(template: Template, model: str, options: Options, *, pilot: bool = False) -> Submission:
    """Check all options and connect to the provider, before a row is read."""
    plan = make_plan(template, model, options, pilot=pilot)
    route = connect(options.provider, options.client, model, plan.spec.pace)
    server = getattr(route, "server", "")
    plan = plan.sent_to(route.name, route.url(plan.spec.endpoint), server)
    plan = replace(plan, spec=with_caching(plan.spec, route))
    check_request(route, plan.spec)
    check_batch_options(route, plan.spec)
    return Submission(plan, route, open_store(options.store), _nonce(options.fresh), options.probe)


def _nonce(fresh: bool) -> str:
    return secrets.token_hex(8) if fresh else ""


@takes_options_of()
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
    max_in_flight: int | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    request_timeout_seconds: float | None = None,
    metadata: Mapping[str, str] | None = None,
    completion_window: str | None = None,
    confirm_seconds: float = CONFIRM_SECONDS,
    fresh: bool = False,
) -> Job:
    """Send requests that are in the batch format already, with the promises of a frame's job.

    All are checked before the first is sent. The same requests again, in whatever order and form,
    are the same job; those that this store has usable answers to are not sent, and identical ones
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
    prefix, provider, client, store, max_enqueued_tokens, max_cost, prices, max_in_flight, \
requests_per_minute, tokens_per_minute, request_timeout_seconds, metadata, completion_window, \
confirm_seconds, fresh
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
    options = Options(
        name=name,
        labels=labels,
        response_model=response_model,
        parser=parser,
        prefix=prefix,
        max_enqueued_tokens=max_enqueued_tokens,
        max_cost=max_cost,
        prices=prices,
        max_in_flight=max_in_flight,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        request_timeout_seconds=request_timeout_seconds,
        metadata=metadata,
        completion_window=completion_window,
        confirm_seconds=confirm_seconds,
    )
    where = open_store(store)
    with open_requests(requests) as ready:
        first = ready.first()
        route = connect(provider, client, first.model, pace_of(options))
        url = route.url(first.endpoint)
        limits = route.limits.within_tokens(max_enqueued_tokens)
        # Read twice, to check all and to write: nothing is written of a file with a bad line.
        survey = ready.survey(url, limits, getattr(route, "check", None))
        for model in survey.models if route.blocking and isinstance(provider, str) else ():
            connect(provider, client, model)  # one that it does not have is refused here
        plan = plan_ready(survey.models, first.endpoint, options).sent_to(route.name, url)
        plan.columns.check(key=[KEY])
        check_batch_options(route, plan.spec)
        sending = Submission(plan, route, where, _nonce(fresh))
        # Ready requests are rows whose key is their custom_id; the spec has no messages.
        job_id = ready_job_id(survey, plan.spec, sending.nonce)
        if where.has(job_id):
            return sending.send(JobPath(where, job_id).open())
        with draft_of_requests(ready, survey, plan.spec, where, limits) as draft:
            folder = sending.find_made(draft) or sending.make_job(draft)
    return sending.send(folder)
