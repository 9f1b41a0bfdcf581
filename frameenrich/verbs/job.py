"""`Job`, a thin handle on a folder, with one method for each step; all state is on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import pandas as pd

from frameenrich.answers.output import Output, Parser
from frameenrich.errors import warn_user
from frameenrich.lifecycle.collect import Collector
from frameenrich.lifecycle.give_up import give_up
from frameenrich.lifecycle.regenerate import changes, describe_changes
from frameenrich.lifecycle.reuse import jobs_waiting_for
from frameenrich.lifecycle.step import cancel
from frameenrich.lifecycle.usage import JobUsage, job_usage, prices_of
from frameenrich.lifecycle.wait import Deadline, JobStatus, status, wait, wait_async
from frameenrich.model import JobSpec
from frameenrich.prepare.reading_options import JobCollectOptions
from frameenrich.pricing.money import Budget
from frameenrich.pricing.prices import PricesLike
from frameenrich.providers.protocol import Provider
from frameenrich.report.card import card_html, card_of
from frameenrich.store.folder import JobPath
from frameenrich.verbs.collect import collect, collector, waiting_of
from frameenrich.verbs.finish import finish
from frameenrich.verbs.job_files import JobFiles
from frameenrich.verbs.job_parts import JobParts
from frameenrich.verbs.job_quality import JobQuality
from frameenrich.verbs.regenerate import regenerate
from frameenrich.verbs.session import Session
from frameenrich.verbs.signatures import NamesNearest, checks_calls, takes_options_of


@checks_calls
class Job(JobFiles, JobParts, JobQuality, NamesNearest):
    """A handle on one job's folder.

    Parameters
    ----------
    folder : JobPath
        Where everything is; read when a verb needs it.
    output : Output, optional
        How answers are read; by default as the folder says.
    provider : Provider, optional
        Where requests go; by default connected from the folder's spec when it is needed.
    client : openai.OpenAI, optional
        For connecting the provider.
    budget : Budget, optional
        What this session says of money; by default as the folder says.
    """

    _called = "A job"

    def __init__(
        self,
        folder: JobPath,
        *,
        output: Output | None = None,
        provider: Provider | None = None,
        client: Any = None,
        budget: Budget | None = None,
    ) -> None:
        self._session = Session(folder, output, provider, client, budget)

    @property
    def id(self) -> str:
        """The job's name in its store."""
        return self._session.folder.id

    @property
    def path(self) -> str:
        """The job's folder."""
        return self._session.folder.path

    @property
    def spec(self) -> JobSpec:
        """The job's spec: prompts, model, parameters, provider and output."""
        return self._session.job().spec

    def rounds(self) -> pd.DataFrame:
        """List what was sent again, why, and with which changes.

        Returns
        -------
        DataFrame
            A row for each round, status and change: ``round``, ``status`` (what the rows were
            flagged with), ``change`` (``unchanged``, ``feedback``, ``max_tokens 28 -> 56``, ...)
            and ``requests``. Empty before the first `regenerate`.
        """
        table = pd.DataFrame(
            changes(self._session.job()), columns=["round", "status", "change", "requests"]
        )
        return table.astype(
            {"round": "Int64", "status": "string", "change": "string", "requests": "Int64"}
        )

    def __repr__(self) -> str:
        job = self._session.job().read()
        # From disk, without a call: a repr must not need a network or a key.
        statuses = ", ".join(sorted({batch.status for batch in job.batches}))
        reused = f", {job.reused:,} answers reused" if job.reused else ""
        reused += "".join(
            f", {requests:,} requests wait for {jobs}" for jobs, requests in job.waits_for.items()
        )
        return (
            f"<Job {self.id}: {self.spec.model} through {self.spec.provider}, {statuses}{reused}"
            f"{''.join(f'; {line}' for line in describe_changes(job))}"
            f"{f'; {self.last_round}'.removesuffix('.') if self.last_round else ''}>"
        )

    @property
    def last_round(self) -> str:
        """What the newest `regenerate` of this session sent, what it left out, and why."""
        return self._session.last_round

    def _repr_html_(self) -> str:
        session, budget = self._session, self._session.budget()
        # One state for the whole card, so that its numbers agree while the job goes on.
        with self._session.opened() as job:
            return card_html(
                card_of(
                    job,
                    lambda: Collector(job, session.reading(budget)).whole(None),
                    lambda: job_usage(job, prices_of(job, budget)),
                    self.answers_to_judge,
                    self.last_round,
                )
            )

    # --- going on ---------------------------------------------------------------------------

    def status(self) -> JobStatus:
        """Look at the job's batches; sends and downloads nothing.

        Raises
        ------
        ProviderError
            The provider cannot be asked.
        """
        job = self._session.job().read()
        return status(job, lambda: self._session.routes(job))

    def wait(self, timeout: float | None = None, poll_seconds: float | None = None) -> Job:
        """Go on until every batch has ended and its answers are on disk.

        Parameters
        ----------
        timeout : float, optional
            Seconds after which to give up; for ever by default.
        poll_seconds : float, optional
            Seconds between looks; by default half a second at first, growing to a minute.

        Raises
        ------
        WaitTimeoutError
            The time was up; the job goes on at the provider.
        """
        job = self._session.job().read()
        # A settled job needs no provider, and so no key.
        if not job.settled:
            wait(job, self._session.routes(job), Deadline.after(timeout), poll_seconds)
        return self

    async def wait_async(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as `wait` has it
        poll_seconds: float | None = None,
    ) -> Job:
        """Wait as `wait` does, for ``await`` in a notebook or server: the event loop goes on.

        Parameters
        ----------
        timeout, poll_seconds : float, optional
            As `wait` takes them.

        Raises
        ------
        WaitTimeoutError
            The time was up; the job goes on at the provider.

        Examples
        --------
        In a notebook: ``job = await job.wait_async()``. Cancelling the task that awaits stops the
        polling, not the provider: a later `wait` or `collect` goes on.
        """
        job = self._session.job().read()
        if not job.settled:
            deadline = Deadline.after(timeout)
            await wait_async(job, self._session.routes(job), deadline, poll_seconds)
        return self

    def send(self) -> Job:
        """Send what is not sent yet; a provider that answers in this process answers all."""
        self._session.send()
        return self

    @property
    def reused(self) -> int:
        """How many requests were not sent, since the store had a usable answer to them."""
        return self._session.job().read().reused

    def usage(self, *, prices: PricesLike | None = None) -> JobUsage:
        """Return the tokens and USD that the job has taken so far, by the responses that are here.

        Of every round, flagged answers included; asks no provider. Batches are reckoned at the
        batch price, the embedded model costs nothing, and so does what was reused.

        Parameters
        ----------
        prices : mapping, optional
            As ``submit`` takes them, in place of what it was given.

        Returns
        -------
        JobUsage
            ``usd``, ``requests``, ``prompt_tokens``, ``cached_tokens``, ``completion_tokens``, and
            a ``table`` of them by round and model.
        """
        with self._session.opened() as job:
            return job_usage(job, prices_of(job, self._session.budget(None, prices)))

    def cancel(self) -> Job:
        """Ask the provider to stop; what it has answered by then is kept and merged."""
        job = self._session.job().read()
        if not job.settled:
            cancel(job, self._session.routes(job))
        # Another job may count on these requests, since running ones are not sent twice.
        if waiting := jobs_waiting_for(self._session.folder.store, self.id):
            warn_user(
                f"{', '.join(waiting)} wait for answers of {self.id}: what it does not bring they "
                "send themselves, at their next step."
            )
        return self

    def give_up(self, *, force: bool = False) -> Job:
        """Wait no longer for batches that are lost at the provider; the others stay as they are.

        Lost are those of which the provider says now that there is no such batch, and those whose
        creation got no answer and that no list shows (``unconfirmed``). Their rows become
        ``missing``, and `regenerate` asks them again. If such a batch runs all the same, as where
        the key is another project's, its rows are paid twice: hence this is for you to say.

        Parameters
        ----------
        force : bool
            Give up also batches of which nothing can be found out, whatever the reason, and ended
            ones whose files the provider does not hand out; what is here of their answers stays.

        Raises
        ------
        ProviderError
            The provider cannot be asked, as with a wrong key; those batches are not given up.
        """
        job = self._session.job().read()
        if not job.settled:
            give_up(job, self._session.routes(job), force=force)
        return self

    # --- answers ----------------------------------------------------------------------------

    def collect(
        self,
        frame: pd.DataFrame | None = None,
        *,
        wait: bool = False,
        timeout: float | None = None,
        poll_seconds: float | None = None,
        max_rounds: int = 0,
        max_cost: float | None = None,
        prices: PricesLike | None = None,
        usage: bool = False,
        flatten: bool = False,
        overwrite: bool = False,
        accept: float | None = None,
        labels: Any = None,
        response_model: Any = None,
        parser: Parser | None = None,
    ) -> pd.DataFrame:
        """Return the answers as columns.

        Parameters
        ----------
        frame : DataFrame, optional
            The frame that was submitted, or a part, a re-ordering or a re-read of it. Without it
            the result has the key and the output columns.
        wait : bool
            Whether to wait until all batches have ended.
        timeout, poll_seconds : float, optional
            As `wait` takes them; the timeout is for all rounds together.
        max_rounds : int
            With ``wait=True``, how often to `regenerate` what can be mended, unattended: until
            nothing is left, a round changed nothing, or the job has had this many rounds after
            its first. Rounds of earlier calls count, so that a cell run twice pays once.
        max_cost : float, optional
            With `max_rounds`, USD for the whole job: before a round, what was spent and what the
            round could cost have to stay within, or it is not sent and a `FrameEnrichWarning` says
            so. By default what ``submit`` was given.
        prices : mapping, optional
            As ``submit`` takes them, in place of what it was given.
        usage : bool
            Whether to add model, attempt, tokens, cost, finish reason, custom_id and raw answer.
            A row's cost is that of all its requests in this job; rows that share one share its
            cost, so that the column adds up to what the job cost.
        flatten : bool
            Whether nested objects become columns, ``field.sub``; lists stay lists.
        overwrite : bool
            Whether cells that a person corrected are replaced: those of ``ok`` rows that differ
            from every answer a job of this name gave the row. By default they are kept, and a
            `FrameEnrichWarning` counts them.
        accept : float, optional
            Add ``<name>_score`` (how sure each row is) and ``<name>_accept``: whether the rows with
            at least its score are right this often, such as 0.95, by the newest review. Nine such
            promises of ten are kept; where none can be made, a warning says why and no row is
            accepted. Needs the extra ``evaluate``.
        labels, response_model, parser
            Read the stored answers anew, in another way; costs nothing.

        Returns
        -------
        DataFrame
            A new frame: same rows, order and index, and the output columns.

        Raises
        ------
        FrameMismatchError
            The frame's rows are not those the answers were made for.
        ColumnCollisionError
            The frame has got a column of its own where an answer would go.
        ParameterError
            ``max_rounds`` without ``wait=True``, or ``max_cost`` without ``max_rounds``.
        """
        waiting = waiting_of(
            self._session, wait, timeout, poll_seconds, max_rounds, max_cost, prices
        )
        return collect(
            self._session,
            frame,
            waiting,
            usage=usage,
            flatten=flatten,
            overwrite=overwrite,
            accept=accept,
            labels=labels,
            response_model=response_model,
            parser=parser,
        )

    @takes_options_of(collect)
    def collector(self, **options: Unpack[JobCollectOptions]) -> Collector:
        """Return a collector of this job's parts for any process; takes what `collect` takes.

        What `collect` does before it reads (poll, wait, repair) is done here, once. The collector
        asks no provider; called with a part's rows and number, it gives them with their answers.

        With ``accept=`` the job's own answers are in memory once, here: a threshold is of all rows.
        """
        return collector(self._session, **options)

    def regenerate(
        self,
        frame: pd.DataFrame | None = None,
        *,
        statuses: Iterable[str] | None = None,
        model: str | None = None,
        provider: str | Provider | None = None,
        params: Mapping[str, Any] | None = None,
        feedback: bool = True,
        max_cost: float | None = None,
        prices: PricesLike | None = None,
        labels: Any = None,
        response_model: Any = None,
        parser: Parser | None = None,
    ) -> Job:
        """Send flagged rows again, as a new round of this job; usable answers stay as they are.

        Each row goes as it was last sent, but for what its status asks for: ``malformed`` rows
        are shown their answer and what was wrong with it, ``truncated`` ones get twice the cap on
        the answer's tokens. `rounds` and the job's card tell what was changed.

        Parameters
        ----------
        frame : DataFrame, optional
            What was collected, and perhaps corrected by hand since: rows with such a correction
            are left alone.
        statuses : iterable of str, optional
            Which rows. By default all that are flagged but those that were refused: ``refused``
            rows, and rows that ``failed`` with a 4xx other than 408, 409 and 429 (where the model
            is not there, `model` sends them, too). `last_round` and the job's card say how many
            went and what sends the others; so does a warning where none went.
        model : str, optional
            Another model for them, in this round and those after it.
        provider : str or Provider, optional
            Another provider for this round, ``"live"`` for one call a request at the job's own
            server; later rounds go to the job's own again. What it cannot carry is refused before
            anything is sent; its price is the one that counts.
        params : mapping, optional
            Request parameters to change for them, likewise; they win over a doubled cap.
        feedback : bool
            Whether a malformed row is shown its answer and what was wrong with it.
        max_cost : float, optional
            USD for the whole job, what is spent and on its way included; by default what
            ``submit`` was given.
        prices : mapping, optional
            As ``submit`` takes them, in place of what it was given.
        labels, response_model, parser
            Another reading, as `collect` takes it: the rows that it flags are sent.

        Returns
        -------
        Job
            This job; with nothing to send it is left as it is.

        Raises
        ------
        ParameterError
            A status, provider or request parameter that is unknown, or a request that the other
            provider cannot carry.
        OutputError
            The job's parser is of another session: pass it again.
        BudgetError
            The round could bring the job over `max_cost`; nothing was sent.
        """
        regenerate(
            self._session,
            frame,
            statuses=statuses,
            model=model,
            provider=provider,
            params=params,
            feedback=feedback,
            budget=self._session.budget(max_cost, prices),
            labels=labels,
            response_model=response_model,
            parser=parser,
        )
        return self

    def finish(
        self,
        provider: str | Provider = "live",
        *,
        model: str | None = None,
        params: Mapping[str, Any] | None = None,
        max_cost: float | None = None,
        prices: PricesLike | None = None,
        timeout: float | None = None,
        poll_seconds: float | None = None,
    ) -> Job:
        """Finish a job whose batches are stuck: keep what came, ask the rest elsewhere.

        Cancels what runs, waits for what that leaves, takes what came, and asks what has no answer
        (cancelled, expired, missing, failed for a passing reason) through another provider, as a
        new round. Answers that are flagged for what they say are left to `regenerate`. Stopped or
        killed, the same call goes on where it was; nothing is asked twice.

        Parameters
        ----------
        provider : str or Provider
            Where the rest goes: ``"live"`` is one call a request at the job's own server, at the
            live price; or the name of another provider, with `model`.
        model : str, optional
            Another model for the rest.
        params : mapping, optional
            Request parameters to change for the rest.
        max_cost, prices
            As `regenerate` takes them. What could cost too much is refused before anything is
            cancelled.
        timeout, poll_seconds : float, optional
            As `wait` takes them, for what the cancelled batches leave.

        Returns
        -------
        Job
            This job. A provider that answers in this process has answered all; for another,
            `wait` and `collect` as ever.

        Raises
        ------
        ParameterError
            The job is there already, or the other provider cannot carry its requests; nothing was
            cancelled.
        BudgetError
            The rest could bring the job over `max_cost`.
        WaitTimeoutError
            The cancelled batches had not ended in time; call again to go on.
        """
        finish(
            self._session,
            provider,
            model=model,
            params=params,
            budget=self._session.budget(max_cost, prices),
            deadline=Deadline.after(timeout),
            poll_seconds=poll_seconds,
        )
        return self
