"""A `Job`: a thin handle on a folder, with a verb for each thing to do; all state is on disk."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from frameenrich.answers.class_rules import keep_class, stored_output
from frameenrich.answers.judge import READERS
from frameenrich.answers.output import Output, Parser
from frameenrich.errors import (
    BudgetError,
    CredentialsError,
    FrameEnrichWarning,
    InputError,
    OutputError,
    ParameterError,
    ProviderError,
)
from frameenrich.identity.keys import sidecar_keys
from frameenrich.lifecycle.collect import Collector, flagged_rows, key_frame, with_answers
from frameenrich.lifecycle.import_responses import find_requests, import_responses
from frameenrich.lifecycle.match import (
    find_sidecar_rows,
    match_frame,
    require_match,
    require_unchanged,
)
from frameenrich.lifecycle.regenerate import (
    RetryOptions,
    changes,
    check_statuses,
    describe_changes,
    draft_of_retries,
    repairable,
)
from frameenrich.lifecycle.step import cancel, cleanup
from frameenrich.lifecycle.usage import JobUsage, job_usage, prices_of
from frameenrich.lifecycle.wait import Deadline, JobStatus, send, status, step, wait, wait_async
from frameenrich.model import JobSpec
from frameenrich.prepare.options import check_model, check_request
from frameenrich.prepare.output_options import output_from_options
from frameenrich.prepare.params import check_params
from frameenrich.pricing.money import Budget, check_max_cost
from frameenrich.pricing.prices import PricesLike, check_prices
from frameenrich.providers.protocol import Provider
from frameenrich.providers.registry import connect, provider_names
from frameenrich.report.card import card_html, card_of
from frameenrich.store.folder import JobFolder, JobState
from frameenrich.verbs.approve import approve_round

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from frameenrich.evaluation.compare import Comparison
    from frameenrich.evaluation.evaluate import Evaluation
    from frameenrich.evaluation.job_answers import JobAnswers
    from frameenrich.evaluation.review import Review


class Job:
    """A handle on one job's folder.

    Parameters
    ----------
    folder : JobFolder
        Where everything is.
    output : Output, optional
        How answers are read; by default as the folder says.
    provider : Provider, optional
        Where requests go; by default connected from the folder's spec when it is needed.
    client : openai.OpenAI, optional
        For connecting the provider.
    budget : Budget, optional
        What this session says of money; by default as the folder says.
    """

    def __init__(
        self,
        folder: JobFolder,
        *,
        output: Output | None = None,
        provider: Provider | None = None,
        client: Any = None,
        budget: Budget | None = None,
    ) -> None:
        self._budget = budget or Budget()
        self._folder = folder
        self._output = output
        if output is not None:
            keep_class(folder.path, output)
        self._provider = provider
        self._client = client

    @property
    def id(self) -> str:
        """The job's name in its store."""
        return self._folder.id

    @property
    def path(self) -> str:
        """The job's folder."""
        return self._folder.path

    @property
    def spec(self) -> JobSpec:
        """Return what was asked for."""
        return self._folder.spec

    @property
    def requests(self) -> list[str]:
        """The paths of the job's request files (JSONL), in order."""
        return [shard.requests_path for shard in self._folder.all_shards()]

    def requests_by_custom_id(self, custom_ids: str | Iterable[str]) -> dict[str, Any]:
        """Find requests as they were sent, without reading the job's files whole.

        Parameters
        ----------
        custom_ids : str or iterable of str
            As the provider's page shows them, or ``collect(usage=True)``, or `rounds`' files
            (``r1-row-42``); for `frameenrich.submit_requests`, as they were submitted.

        Returns
        -------
        dict
            For each custom_id, in the order asked, its request: ``custom_id``, ``method``,
            ``url``, ``body``. Identical requests were sent once, so several may name one.

        Raises
        ------
        ParameterError
            The job has no request of some custom_id.

        Examples
        --------
        >>> import tempfile
        >>> frame = pd.DataFrame({"title": ["Red mug", "Blue hose"]})
        >>> job = frame.llmbatch.submit(
        ...     "Sort {{ title }}", "gpt-4o-mini", provider="file", store=tempfile.mkdtemp()
        ... )
        >>> job.requests_by_custom_id("row-1")["row-1"]["body"]["messages"]
        [{'role': 'user', 'content': 'Sort Blue hose'}]
        """
        return find_requests(self._folder, custom_ids)

    def rounds(self) -> pd.DataFrame:
        """Return what was asked again, why, and what was changed for it.

        Returns
        -------
        DataFrame
            A row for each round, status and change: ``round``, ``status`` (what the rows were
            flagged with), ``change`` (``unchanged``, ``feedback``, ``max_tokens 28 -> 56``, ...)
            and ``requests``. Empty before the first `regenerate`.
        """
        table = pd.DataFrame(
            changes(self._folder), columns=["round", "status", "change", "requests"]
        )
        return table.astype(
            {"round": "Int64", "status": "string", "change": "string", "requests": "Int64"}
        )

    def __repr__(self) -> str:
        job = self._folder.read()
        statuses = ", ".join(sorted({batch.status for batch in job.batches}))
        reused = f", {job.reused:,} answers reused" if job.reused else ""
        return (
            f"<Job {self.id}: {self.spec.model} through {self.spec.provider}, {statuses}{reused}"
            f"{''.join(f'; {line}' for line in describe_changes(job))}>"
        )

    def _repr_html_(self) -> str:
        with self._folder.opened() as job:
            return card_html(
                card_of(
                    job,
                    lambda: self._answers(job, self._reading(), usage=False, flatten=False),
                    lambda: job_usage(job, prices_of(job, self._budget)),
                )
            )

    def _connected(self) -> Provider:
        if self._provider is None:
            self._provider = connect(
                self.spec.provider, self._client, self.spec.models[0], self.spec.pace
            )
        return self._provider

    def _reading(self, **wishes: Any) -> Output:
        """Return how to read answers: as this call, this session or the folder says."""
        if any(wish is not None for wish in wishes.values()):
            if self.spec.output.kind in READERS:
                raise OutputError(
                    f"The answers of the job {self.id} are data of {self.spec.endpoint}, no text.",
                    "Collect without labels=, response_model= and parser=.",
                )
            return output_from_options(**wishes)
        if self._output is not None:
            return self._output
        if self.spec.output.kind == "parser":
            raise OutputError(
                f"The job {self.id} reads its answers with a parser that this session lacks.",
                "Pass it again: collect(parser=...); nothing is sent for that.",
            )
        return stored_output(self.path, self.id, Output(self.spec.output))

    # --- going on ---------------------------------------------------------------------------

    def status(self) -> JobStatus:
        """Look at the job's batches; sends and downloads nothing.

        Raises
        ------
        ProviderError
            The provider cannot be asked.
        """
        return status(self._folder.read(), self._connected)

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
        job = self._folder.read()
        if not job.settled:
            wait(job, self._connected(), Deadline.after(timeout), poll_seconds)
        return self

    async def wait_async(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as `wait` has it
        poll_seconds: float | None = None,
    ) -> Job:
        """As `wait`, for ``await`` in a notebook or a server: the event loop goes on meanwhile.

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
        job = self._folder.read()
        if not job.settled:
            deadline = Deadline.after(timeout)
            await wait_async(job, self._connected(), deadline, poll_seconds)
        return self

    def send(self) -> Job:
        """Send what is not sent yet; a provider that answers in this process answers all."""
        if self._provider is None and self._folder.read().settled:
            return self  # without a key, too
        try:
            send(self._folder, self._connected())
        except (ProviderError, KeyboardInterrupt) as error:
            vars(error)["job_id"] = self.id  # who called submit has no job to ask
            raise
        return self

    @property
    def reused(self) -> int:
        """Return how many requests were not sent, since the store had a usable answer to them."""
        return self._folder.read().reused

    def usage(self, *, prices: PricesLike | None = None) -> JobUsage:
        """The tokens and USD that the job has taken so far, by the responses that are here.

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
        with self._folder.opened() as job:
            return job_usage(job, prices_of(job, self._wished(None, prices)))

    def _wished(self, max_cost: float | None, prices: PricesLike | None) -> Budget:
        """Return what this call says of money, else this session."""
        cap = check_max_cost(max_cost)
        return Budget(
            self._budget.max_cost if cap is None else cap,
            {**self._budget.prices, **check_prices(prices)},
        )

    def cleanup(self) -> int:
        """Delete the provider's copies of input, output and error files.

        Only of batches whose answers are on disk here; nothing of the job is lost by it.

        Returns
        -------
        int
            How many batches were cleaned up.
        """
        return cleanup(self._folder, self._connected())

    def cancel(self) -> Job:
        """Ask the provider to stop; what it has answered by then is kept and merged."""
        if not self._folder.read().settled:
            cancel(self._folder, self._connected())
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
        labels: Any = None,
        response_model: Any = None,
        parser: Parser | None = None,
    ) -> pd.DataFrame:
        """Answers as columns.

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
        if frame is not None and not isinstance(frame, pd.DataFrame):
            raise InputError(
                f"What is to be collected on is a {type(frame).__name__}.",
                "Give the DataFrame that was submitted, or none for key and answers alone.",
            )
        budget = self._wished(max_cost, prices)
        deadline = Deadline.after(timeout)
        with self._folder.opened() as found:
            output = self._reading(labels=labels, response_model=response_model, parser=parser)
            _check_rounds(max_rounds, max_cost, wait=wait)
            if frame is not None and max_rounds:  # refused before anything is paid for it
                require_match(match_frame(frame, found, found.sidecar()), frame, found)
            job = self._bring_home(found, output, budget, wait, deadline, poll_seconds, max_rounds)
            return self._answers(
                job, output, frame, budget, usage=usage, flatten=flatten, overwrite=overwrite
            )

    def _bring_home(
        self,
        job: JobState,
        output: Output,
        budget: Budget,
        wait: bool,
        deadline: Deadline,
        poll_seconds: float | None,
        max_rounds: int,
    ) -> JobState:
        job = self._bring_up_to_date(job, wait, deadline, poll_seconds)
        if not max_rounds:
            return job
        self._mend(output, max_rounds, deadline, poll_seconds, budget)
        return job.read()

    def _answers(
        self,
        job: JobState,
        output: Output,
        frame: pd.DataFrame | None = None,
        budget: Budget | None = None,
        *,
        usage: bool,
        flatten: bool,
        overwrite: bool = False,
    ) -> pd.DataFrame:
        """Return what is on disk, as columns; asks nobody."""
        needed = [] if frame is None else ["input_hash", "shard"]
        sidecar = job.sidecar(columns=[*job.key_columns, *needed])
        if frame is None:
            frame = key_frame(job, sidecar_keys(sidecar))
            positions = np.arange(len(frame), dtype=np.int64)
        else:
            match = require_match(match_frame(frame, job, sidecar), frame, job)
            positions = match.positions
            del match
        del sidecar
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

    def collect_part(
        self, frame: pd.DataFrame, part: int | None = None, **reading: Any
    ) -> pd.DataFrame:
        """Return rows of a frame larger than memory, with the answers that are on disk.

        Asks no provider: `wait` first. Takes the memory of these rows, whatever the job has. For
        many parts, `collector` once and then that.

        Parameters
        ----------
        frame : DataFrame
            Any of the rows, as `collect` takes them; those that the job never saw have ``<NA>``.
        part : int, optional
            The number of the part that they are of, where they were submitted in parts: it is
            looked at first, and the whole sidecar is searched for what is not there.
        **reading
            ``usage``, ``flatten``, ``prices``, ``labels``, ``response_model``, ``parser``, as
            `collect` takes them.

        Raises
        ------
        FrameMismatchError
            The rows are not those the answers were made for.
        """
        budget = self._wished(None, reading.pop("prices", None))
        usage, flatten = reading.pop("usage", False), reading.pop("flatten", False)
        output = self._reading(**reading)
        return self._collector(output, budget, usage=usage, flatten=flatten)(frame, part)

    def count_seen(self, frame: pd.DataFrame, part: int | None = None) -> int:
        """Return how many of some rows this job was made for, as `collect_part` takes them.

        Raises
        ------
        FrameMismatchError
            Rows changed under their keys, or lack the key or a column of the template.
        """
        match = match_frame(frame, self._folder, find_sidecar_rows(self._folder, frame, part))
        return int(require_unchanged(match, frame, self._folder).seen.sum())

    def collector(
        self,
        *,
        wait: bool = False,
        timeout: float | None = None,
        poll_seconds: float | None = None,
        max_rounds: int = 0,
        max_cost: float | None = None,
        prices: PricesLike | None = None,
        usage: bool = False,
        flatten: bool = False,
        labels: Any = None,
        response_model: Any = None,
        parser: Parser | None = None,
    ) -> Collector:
        """Return what collects parts of this job, in any process; takes what `collect` takes.

        What `collect` does before it reads (look, wait, mend) is done here, once. The collector
        asks no provider; called with a part's rows and number, it gives them with their answers.
        """
        budget = self._wished(max_cost, prices)
        output = self._reading(labels=labels, response_model=response_model, parser=parser)
        _check_rounds(max_rounds, max_cost, wait=wait)
        job, deadline = self._folder.read(), Deadline.after(timeout)
        self._bring_home(job, output, budget, wait, deadline, poll_seconds, max_rounds)
        return self._collector(output, budget, usage=usage, flatten=flatten)

    def _collector(
        self, output: Output, budget: Budget, *, usage: bool, flatten: bool
    ) -> Collector:
        reading = Output(output.spec, output.model, output.parser)  # without what it keeps
        prices = prices_of(self._folder, budget)
        return Collector(self._folder.store.url, self.id, reading, prices, usage, flatten)

    def _bring_up_to_date(
        self, job: JobState, waiting: bool, deadline: Deadline, poll_seconds: float | None
    ) -> JobState:
        if job.settled:
            return job
        if waiting:
            wait(job, self._connected(), deadline, poll_seconds)
            return job.read()
        return job if self._connected().blocking else step(job, self._connected())

    def _mend(
        self,
        output: Output,
        max_rounds: int,
        deadline: Deadline,
        poll_seconds: float | None,
        budget: Budget,
    ) -> None:
        """Regenerate and wait, until nothing is left to mend or to spend, or nothing changed."""
        left = repairable(self._folder, output)
        while left and self._folder.rounds() <= max_rounds:
            before = left
            try:
                self._regenerate(RetryOptions(), output, budget)
            except BudgetError as error:
                told = f"No further round of the job {self.id}: {error}"
                warnings.warn(told, FrameEnrichWarning, stacklevel=5)
                break
            self._bring_up_to_date(self._folder.read(), True, deadline, poll_seconds)
            left = repairable(self._folder, output)
            if left == before:
                break

    def flagged(self, frame: pd.DataFrame | None = None, **reading: Any) -> pd.DataFrame:
        """The rows whose status is terminal and not ``ok``.

        Parameters
        ----------
        frame : DataFrame, optional
            Whose rows; by default all of the job.
        **reading
            ``labels``, ``response_model`` or ``parser``, as `collect` takes them.

        Returns
        -------
        DataFrame
            The key, ``status``, ``error``, ``raw``, ``attempt`` (how often the row was asked) and
            ``history``: a list with a dict for each earlier attempt (``attempt``, ``status``,
            ``error``, and ``then``, which is what was changed for the next one).
        """
        with self._folder.opened() as job:
            output = self._reading(**reading)
            if frame is None:
                return flagged_rows(job, output, np.arange(job.row_count))
            match = require_match(match_frame(frame, job, job.sidecar()), frame, job)
            return flagged_rows(job, output, match.positions, frame.index)

    def show_flagged(
        self, frame: pd.DataFrame | None = None, *, rows: int = 50, **reading: Any
    ) -> Styler:
        """The flagged rows for a notebook: `flagged`, made to be read by a person.

        Parameters
        ----------
        frame : DataFrame, optional
            Whose rows; by default all of the job.
        rows : int
            How many are shown; `flagged` gives all of them as data.
        **reading
            ``labels``, ``response_model`` or ``parser``, as `collect` takes them.

        Returns
        -------
        pandas.io.formats.style.Styler
            With the place that an error is about marked in the raw answer.
        """
        from frameenrich.report.flagged_table import styled  # noqa: PLC0415 - for this verb only

        return styled(self.flagged(frame, **reading), rows, self.spec.name)

    def answers_to_judge(self) -> JobAnswers:
        """Return all rows, with what is on disk or can come: for reviews and evaluations."""
        from frameenrich.evaluation.job_answers import JobAnswers  # noqa: PLC0415 - for this verb only

        return JobAnswers(self._folder, self._reading(), self.collect(usage=True))

    def review(
        self,
        *,
        n: int,
        by: str | None = None,
        seed: int = 0,
        extend: Review | str | None = None,
    ) -> Review:
        """Draw rows for people to judge, and record the draw in the job's folder.

        The same call finds the same draw again, however the frame is sorted.

        Parameters
        ----------
        n : int
            How many rows; all usable ones where there are fewer.
        by : str, optional
            Draw so many for each answer to this field, in proportion and at least ten of each
            label (``"answer"``: the only field). By default a simple draw.
        seed : int
            Another number makes a new, independent draw.
        extend : Review or str, optional
            Draw `n` more rows for this review, in the way it was drawn.

        Returns
        -------
        Review
            Its `Review.page` and `Review.to_csv` are to be filled in; `add_review` takes them back.

        Raises
        ------
        InputError
            Rows are pending still, or none is usable.
        """
        from frameenrich.evaluation.make_review import make_review  # noqa: PLC0415 - for this verb only

        return make_review(self.answers_to_judge(), n, by=by, seed=seed, extend=extend)

    def add_review(self, path: str | os.PathLike[str], reviewer: str = "") -> Review:
        """Take a filled-in sheet of a review; it is kept in the job's folder as it came.

        Rows are joined by key, so the sheet may be sorted, filtered or saved by a spreadsheet.

        Parameters
        ----------
        path : str or PathLike
            The CSV file that the page's Save, or a spreadsheet, wrote.
        reviewer : str
            Who judged, where the sheet's column ``reviewer`` does not say.

        Raises
        ------
        InputError
            A row does not fit the review (it names row and column), or the sheet is of another job.
        """
        from frameenrich.evaluation.verdicts import add_sheet  # noqa: PLC0415 - for this verb only

        return add_sheet(self.answers_to_judge(), path, reviewer)

    def evaluate(
        self,
        frame: pd.DataFrame | None = None,
        *,
        review: Review | str | None = None,
        truth: str | Mapping[str, str] | None = None,
        tolerance: float | None = None,
        match: Callable[[Any, Any], Any] | None = None,
        drawn: str | None = None,
        level: float = 0.95,
    ) -> Evaluation:
        """Say how right the answers are, within which bounds.

        By what people judged of a recorded draw (`review`, `add_review`), or by a column that has
        the truth. Needs SciPy: ``pip install 'frameenrich[evaluate]'``.

        Parameters
        ----------
        frame : DataFrame, optional
            Has the truth columns, under the keys that were submitted.
        review : Review or str, optional
            Which review, with its top-ups; the newest by default.
        truth : str or mapping, optional
            The column with the right answers, or one for each field. Where it covers a part of the
            usable rows, the result is agreement with that part, without an interval.
        tolerance : float, optional
            How far a number may be from its truth.
        match : callable, optional
            ``(answer, truth) -> bool``, for text.
        drawn : {"random"}, optional
            You vouch that the rows with a truth were drawn at random.
        level : float
            How often each interval has to hold the truth.

        Returns
        -------
        Evaluation
            ``accuracy``, ``labels``, ``shares``, ``threshold(...)`` and more.

        Raises
        ------
        InputError
            Nothing was reviewed, or a truth column cannot be compared.
        FrameMismatchError
            The frame's rows are not those the answers were made for.
        """
        from frameenrich.evaluation.evaluate import evaluate_fields  # noqa: PLC0415 - for this verb only
        from frameenrich.evaluation.truth import truth_fields  # noqa: PLC0415
        from frameenrich.evaluation.verdicts import reviewed_fields  # noqa: PLC0415

        if truth is None:
            if tolerance is not None or match is not None or drawn is not None:
                raise ParameterError(
                    "tolerance=, match= and drawn= are of truth columns, and there is none.",
                    "Pass truth=, or leave them out: a review has verdicts of its own.",
                )
            judged = reviewed_fields(self.answers_to_judge(), review)
            return evaluate_fields(self.id, judged, level)
        if review is not None:
            raise ParameterError(
                "Both review= and truth= are given.", "Evaluate by one of them at a time."
            )
        if frame is None:
            raise InputError(
                "There is no frame with the truth columns.",
                "Pass it: job.evaluate(frame, truth='department').",
            )
        sidecar = self._folder.sidecar()
        positions = require_match(
            match_frame(frame, self._folder, sidecar), frame, self._folder
        ).positions
        judged = truth_fields(
            self.answers_to_judge(),
            frame,
            positions,
            truth,
            tolerance=tolerance,
            match=match,
            drawn=drawn,
        )
        return evaluate_fields(self.id, judged, level)

    def compare(self, other: Job) -> Comparison:
        """Say where two jobs over the same rows agree, which rows differ, and what each cost.

        Parameters
        ----------
        other : Job
            A job whose rows have the same keys.

        Raises
        ------
        InputError
            They have no field, or no usable row, in common.
        """
        from frameenrich.evaluation.compare import compare_answers  # noqa: PLC0415 - for this verb only

        usd = (self.usage().usd, other.usage().usd)
        return compare_answers(self.answers_to_judge(), other.answers_to_judge(), usd)

    def report(
        self, path: str | os.PathLike[str] = "report.html", *, rows: int = 10_000, **reading: Any
    ) -> Path:
        """Write a page for a person who decides whether to trust the answers.

        One HTML file that opens without a network: counts by status, what was answered, what it
        took, and the rows with prompt, answer, reason and images, the flagged ones first.

        Parameters
        ----------
        path : str or PathLike
            The file, replaced where it is there.
        rows : int
            How many rows that are not flagged it may hold; of more, a random sample, as the page
            tells. Flagged rows are always in, up to 50,000 of them.
        **reading
            ``labels``, ``response_model`` or ``parser``, as `collect` takes them.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        InputError
            The file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> frame = pd.DataFrame({"title": ["Red mug", "Blue hose"]})
        >>> job = frame.llmbatch.submit("{{ title }}?", "m", provider="file", store=folder)
        >>> job.report(f"{folder}/report.html").name
        'report.html'
        """
        from frameenrich.report.build import Answers, write_report  # noqa: PLC0415 - for this verb only

        answered = self.collect(usage=True, **reading)
        flagged, output = self.flagged(**reading), self._reading(**reading)
        answers = Answers(self._folder, answered, flagged, self.usage(), output)
        secret = getattr(self._client, "api_key", None)
        return write_report(path, answers, rows=rows, secret=secret)

    def regenerate(
        self,
        *,
        statuses: Iterable[str] | None = None,
        model: str | None = None,
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
        statuses : iterable of str, optional
            Which rows. By default all that are flagged but those that were refused: ``refused``
            rows, and rows that ``failed`` with a 4xx other than 408, 409 and 429.
        model : str, optional
            Another model for them, in this round and those after it.
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
            A status or request parameter that is unknown.
        OutputError
            The job's parser is of another session: pass it again.
        BudgetError
            The round could bring the job over `max_cost`; nothing was sent.
        """
        budget = self._wished(max_cost, prices)
        self._bring_up_to_date(self._folder.read(), False, Deadline(), None)
        output = self._reading(labels=labels, response_model=response_model, parser=parser)
        wish = RetryOptions(
            check_statuses(statuses),
            model,
            check_params(params or {}, self.spec.endpoint, self.spec.output),
            feedback,
        )
        if model is not None:
            check_model(model)
            self._check_has(model)
        return self._regenerate(wish, output, budget)

    def _check_has(self, model: str) -> None:
        """Make a provider that runs models itself refuse what it does not have, before a round."""
        if self._connected().blocking and self.spec.provider in provider_names():
            with contextlib.suppress(CredentialsError):  # a key is not the question
                connect(self.spec.provider, self._client, model)

    def _regenerate(self, wish: RetryOptions, output: Output, budget: Budget) -> Job:
        if wish.params:
            check_request(self._connected(), self.spec, wish.params)
        limits = self._connected().limits.within_tokens(self.spec.max_enqueued_tokens)
        with (
            self._folder.lock(),
            draft_of_retries(self._folder, output, wish, limits) as draft,
        ):
            if draft is not None:
                approve_round(self._folder, budget, draft.request_lines())
                draft.commit()
        return self.send()

    def import_responses(self, path: str | os.PathLike[str]) -> Job:
        """Take response lines that came by other means (a web page, ``vllm run-batch``).

        Parameters
        ----------
        path : str or PathLike
            A JSONL file in the Batch API's output format, or an error file; gzipped or not.
            Importing again adds, and where a batch still runs, what it brings is added, too.

        Raises
        ------
        ResponsesError
            The file cannot be read, or no line of it answers a request of this job.
        """
        import_responses(self._folder, path)
        return self


def _check_rounds(max_rounds: int, max_cost: float | None, *, wait: bool) -> None:
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
