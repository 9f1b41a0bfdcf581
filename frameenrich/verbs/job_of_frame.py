"""Methods of ``df.llmbatch`` on a job that exists already; imports nothing but pandas."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd

from frameenrich.verbs.signatures import NamesNearest, checks_calls, reading, takes_options_of

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from frameenrich.evaluation.evaluate import Evaluation
    from frameenrich.evaluation.review import Review
    from frameenrich.lifecycle.usage import JobUsage
    from frameenrich.lifecycle.wait import JobStatus
    from frameenrich.prepare.reading_options import ReadingOptions
    from frameenrich.providers.protocol import Provider
    from frameenrich.store.store import StoreLike
    from frameenrich.verbs.job import Job


@checks_calls
class JobVerbs(NamesNearest):
    """Methods on the job of a frame of any kind: the one that is named, or the newest made for it.

    A kind of frame says how its job is found, and which of its rows a verb needs in memory.
    """

    _called = "df.llmbatch"
    _else_meant = " A column of that name is written df['llmbatch']."

    def _find(self, job: str | None, store: StoreLike, client: Any) -> Job:
        """Find the named job, or the newest that was made for this frame."""
        raise NotImplementedError

    def _rows_to_evaluate(
        self, job: Job, truth: str | Mapping[str, str] | None
    ) -> pd.DataFrame | None:
        """Return the rows that have the truth columns."""
        raise NotImplementedError

    def _corrected_rows(self) -> pd.DataFrame | None:
        """Return the rows in which a person may have corrected answers; None: not looked for."""
        return None

    def job(
        self, job: Job | str | None = None, *, store: StoreLike = None, client: Any = None
    ) -> Job:
        """Return the handle on a job; the other methods find their `job` in the same way.

        Parameters
        ----------
        job : Job or str, optional
            An id, or a name that ``submit`` was given: the newest job of that name that was made
            for this frame. By default the newest that was made for this frame, in any session.
        store, client : optional
            As `submit` takes them.

        Raises
        ------
        JobNotFoundError
            The store holds no such job.

        Examples
        --------
        >>> import tempfile
        >>> frame, folder = pd.DataFrame({"title": ["Red mug"]}), tempfile.mkdtemp()
        >>> job = frame.llmbatch.submit(
        ...     "Sort {{ title }}", "gpt-4o-mini", name="kind", provider="file", store=folder
        ... )
        >>> frame.llmbatch.job("kind", store=folder).id == job.id
        True
        """
        from frameenrich.verbs.job import Job  # noqa: PLC0415 - nothing but pandas at import

        # A handle knows its store and client already; `store=` beside it would be a second answer.
        return job if isinstance(job, Job) else self._find(job, store, client)

    def review(
        self,
        job: Job | str | None = None,
        *,
        n: int,
        by: str | None = None,
        seed: int = 0,
        extend: Review | str | None = None,
        store: StoreLike = None,
        client: Any = None,
    ) -> Review:
        """Draw rows of the job for people to judge, and record the draw; see `Job.review`."""
        return self.job(job, store=store, client=client).review(
            n=n, by=by, seed=seed, extend=extend
        )

    def evaluate(
        self,
        job: Job | str | None = None,
        *,
        review: Review | str | None = None,
        truth: str | Mapping[str, str] | None = None,
        tolerance: float | None = None,
        match: Callable[[Any, Any], Any] | None = None,
        drawn: str | None = None,
        level: float = 0.95,
        store: StoreLike = None,
        client: Any = None,
    ) -> Evaluation:
        """Measure how often answers are right, by a review or a truth; see `Job.evaluate`."""
        found = self.job(job, store=store, client=client)
        return found.evaluate(
            self._rows_to_evaluate(found, truth),
            review=review,
            truth=truth,
            tolerance=tolerance,
            match=match,
            drawn=drawn,
            level=level,
        )

    @takes_options_of(reading)
    def regenerate(
        self,
        job: Job | str | None = None,
        *,
        statuses: Iterable[str] | None = None,
        model: str | None = None,
        provider: str | Provider | None = None,
        params: Mapping[str, Any] | None = None,
        feedback: bool = True,
        max_cost: float | None = None,
        prices: Mapping[str, Any] | None = None,
        store: StoreLike = None,
        client: Any = None,
        **reading: Unpack[ReadingOptions],
    ) -> Job:
        """Send the flagged rows again, as a new round of the same job; see `Job.regenerate`.

        Rows of a pandas frame that hold somebody's correction are left alone.
        """
        return self.job(job, store=store, client=client).regenerate(
            self._corrected_rows(),
            statuses=statuses,
            model=model,
            provider=provider,
            params=params,
            feedback=feedback,
            max_cost=max_cost,
            prices=prices,
            **reading,
        )

    def finish(
        self,
        job: Job | str | None = None,
        *,
        provider: str | Provider = "live",
        model: str | None = None,
        params: Mapping[str, Any] | None = None,
        max_cost: float | None = None,
        prices: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        poll_seconds: float | None = None,
        store: StoreLike = None,
        client: Any = None,
    ) -> Job:
        """Cancel what is stuck, keep what came, and ask the rest elsewhere; see `Job.finish`."""
        return self.job(job, store=store, client=client).finish(
            provider,
            model=model,
            params=params,
            max_cost=max_cost,
            prices=prices,
            timeout=timeout,
            poll_seconds=poll_seconds,
        )

    def status(
        self, job: Job | str | None = None, *, store: StoreLike = None, client: Any = None
    ) -> JobStatus:
        """Return the status of the job's batches; sends and downloads nothing."""
        return self.job(job, store=store, client=client).status()

    def cancel(
        self, job: Job | str | None = None, *, store: StoreLike = None, client: Any = None
    ) -> Job:
        """Stop the job; what was answered by then is kept."""
        return self.job(job, store=store, client=client).cancel()

    def give_up(
        self,
        job: Job | str | None = None,
        *,
        force: bool = False,
        store: StoreLike = None,
        client: Any = None,
    ) -> Job:
        """Wait no longer for batches that are lost at the provider; see `Job.give_up`."""
        return self.job(job, store=store, client=client).give_up(force=force)

    def wait(
        self,
        job: Job | str | None = None,
        *,
        timeout: float | None = None,
        poll_seconds: float | None = None,
        store: StoreLike = None,
        client: Any = None,
    ) -> Job:
        """Go on until every batch has ended and its answers are on disk; see `Job.wait`."""
        return self.job(job, store=store, client=client).wait(timeout, poll_seconds)

    def usage(
        self,
        job: Job | str | None = None,
        *,
        prices: Mapping[str, Any] | None = None,
        store: StoreLike = None,
        client: Any = None,
    ) -> JobUsage:
        """Return the tokens and USD that the job has taken so far; see `Job.usage`."""
        return self.job(job, store=store, client=client).usage(prices=prices)

    def rounds(
        self, job: Job | str | None = None, *, store: StoreLike = None, client: Any = None
    ) -> pd.DataFrame:
        """List what was sent again, why, and with which changes; see `Job.rounds`."""
        return self.job(job, store=store, client=client).rounds()

    @takes_options_of(reading)
    def report(
        self,
        path: str | os.PathLike[str] = "report.html",
        job: Job | str | None = None,
        *,
        rows: int = 10_000,
        store: StoreLike = None,
        client: Any = None,
        **reading: Unpack[ReadingOptions],
    ) -> Path:
        """Write a page for a person who decides whether to trust the answers; see `Job.report`."""
        return self.job(job, store=store, client=client).report(path, rows=rows, **reading)

    def jobs(self, *, store: StoreLike = None) -> pd.DataFrame:
        """List the jobs of the store, the newest first; see `frameenrich.jobs`."""
        from frameenrich.verbs.list_jobs import jobs  # noqa: PLC0415 - nothing but pandas at import

        return jobs(store)


@checks_calls
class JobOfFrame(JobVerbs):
    """Methods on the job of a pandas frame, and those that give its own rows back."""

    def __init__(self, frame: pd.DataFrame) -> None:
        # `tables.TableBatch` keeps another kind of table here and makes the frame on first use.
        self._table: Any = frame

    @property
    def _frame(self) -> pd.DataFrame:
        frame: pd.DataFrame = self._table
        return frame

    def _find(self, job: str | None, store: StoreLike, client: Any) -> Job:
        from frameenrich.verbs.find import find_job, find_named_job  # noqa: PLC0415 - nothing but pandas at import

        if job is not None:
            return find_named_job(self._frame, job, store, client=client)
        return find_job(self._frame, store, client=client)

    def _rows_to_evaluate(
        self,
        job: Job,  # noqa: ARG002 - a frame in memory has all rows and columns
        truth: str | Mapping[str, str] | None,  # noqa: ARG002
    ) -> pd.DataFrame | None:
        return self._frame

    def _corrected_rows(self) -> pd.DataFrame | None:
        return self._frame

    @takes_options_of(reading)
    def collect(
        self,
        job: Job | str | None = None,
        *,
        wait: bool = False,
        timeout: float | None = None,
        poll_seconds: float | None = None,
        max_rounds: int = 0,
        max_cost: float | None = None,
        prices: Mapping[str, Any] | None = None,
        usage: bool = False,
        flatten: bool = False,
        overwrite: bool = False,
        accept: float | None = None,
        client: Any = None,
        store: StoreLike = None,
        **reading: Unpack[ReadingOptions],
    ) -> pd.DataFrame:
        """Return the frame with the answers as new columns.

        Parameters
        ----------
        job : Job or str, optional
            An id or a name; by default the newest job that was made for this frame, in any session.
        wait : bool
            Whether to wait until every row has its answer or its reason.
        timeout, poll_seconds : float, optional
            How long to wait, and between looks; seconds.
        max_rounds : int
            With ``wait=True``, how often to `regenerate` by itself what can be mended: until
            nothing is left, a round changed nothing, or the job has had this many rounds after
            its first.
        max_cost : float, optional
            With `max_rounds`, USD for the whole job in place of what `submit` was given: a round
            that could cost more is not sent, with a warning.
        prices : mapping, optional
            As `submit` takes them, for this call.
        usage : bool
            Whether to add the columns on model, attempt, tokens, cost, custom_id and raw answer.
        flatten : bool
            Whether nested objects become columns, ``field.sub``; lists stay lists.
        overwrite : bool
            Whether cells that you corrected are replaced: those of ``ok`` rows that differ from
            every answer a job of this name gave the row. By default they are kept and counted.
        accept : float, optional
            Add ``<name>_score`` and ``<name>_accept``: whether rows as sure as this one are right
            this often, such as 0.95, by the newest review; see `Job.collect`.
        client, store : optional
            As `submit` takes them.
        **reading
            ``response_model``, ``labels`` or ``parser``, to read stored answers in another way.

        Returns
        -------
        DataFrame
            New: same rows, order and index; the output columns, ``<name>_status`` and
            ``<name>_error``. Rows that the job never saw have ``<NA>`` there.

        Raises
        ------
        FrameMismatchError
            Rows changed under their keys since they were submitted.
        WaitTimeoutError
            Still running when `timeout` ran out.
        """
        found = self.job(job, store=store, client=client)
        return found.collect(
            self._frame,
            wait=wait,
            timeout=timeout,
            poll_seconds=poll_seconds,
            max_rounds=max_rounds,
            max_cost=max_cost,
            prices=prices,
            usage=usage,
            flatten=flatten,
            overwrite=overwrite,
            accept=accept,
            **reading,
        )

    @takes_options_of(reading)
    def flagged(
        self,
        job: Job | str | None = None,
        *,
        store: StoreLike = None,
        client: Any = None,
        **reading: Unpack[ReadingOptions],
    ) -> pd.DataFrame:
        """Return the frame's flagged rows under its index; see `Job.flagged`.

        Key, status, error, raw answer, attempt, and the history of earlier attempts.
        """
        return self.job(job, store=store, client=client).flagged(self._frame, **reading)

    @takes_options_of(reading)
    def show_flagged(
        self,
        job: Job | str | None = None,
        *,
        rows: int = 50,
        store: StoreLike = None,
        client: Any = None,
        **reading: Unpack[ReadingOptions],
    ) -> Styler:
        """Show the frame's flagged rows in a notebook; see `Job.show_flagged`."""
        return self.job(job, store=store, client=client).show_flagged(
            self._frame, rows=rows, **reading
        )
