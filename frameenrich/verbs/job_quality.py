"""Methods of `Job` about its answers: which are flagged, and how often the others are right."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd

from frameenrich.verbs.session import Session
from frameenrich.verbs.signatures import checks_calls, reading, takes_options_of

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from frameenrich.evaluation.compare import Comparison
    from frameenrich.evaluation.evaluate import Evaluation
    from frameenrich.evaluation.job_answers import JobAnswers
    from frameenrich.evaluation.review import Review
    from frameenrich.prepare.reading_options import ReadingOptions
    from frameenrich.pricing.prices import PricesLike
    from frameenrich.providers.protocol import Provider
    from frameenrich.verbs.job import Job


@checks_calls
class JobQuality:
    """Methods of `Job` for people who judge answers; each imports what it needs."""

    _session: Session

    @takes_options_of(reading)
    def flagged(
        self, frame: pd.DataFrame | None = None, **reading: Unpack[ReadingOptions]
    ) -> pd.DataFrame:
        """Return the rows whose status is terminal and not ``ok``.

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
            ``error``, and ``then``, which is what was changed for the next one). A key that is
            called as one of these stands under ``key <name>``.
        """
        # The verbs of this class import what they need when called: SciPy, pandas' Styler and the
        # report are heavy, and most sessions use none of them.
        from frameenrich.verbs.collect import flagged  # noqa: PLC0415 - when it is used

        return flagged(self._session, frame, **reading)

    @takes_options_of(reading)
    def show_flagged(
        self,
        frame: pd.DataFrame | None = None,
        *,
        rows: int = 50,
        **reading: Unpack[ReadingOptions],
    ) -> Styler:
        """Show the flagged rows in a notebook: `flagged`, formatted for a person.

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

        return styled(self.flagged(frame, **reading), rows, self._session.job().spec.name)

    @takes_options_of(reading)
    def report(
        self,
        path: str | os.PathLike[str] = "report.html",
        *,
        rows: int = 10_000,
        **reading: Unpack[ReadingOptions],
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
        from frameenrich.verbs.report import report  # noqa: PLC0415 - for this verb only

        return report(self._session, path, rows=rows, **reading)

    def answers_to_judge(self) -> JobAnswers:
        """Collect all rows of the job, for reviews and evaluations."""
        from frameenrich.verbs.evaluate import judge  # noqa: PLC0415 - for this verb only

        return judge(self._session, lambda answers: answers)

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
            Rows are still pending, or none is usable.
        """
        from frameenrich.evaluation.make_review import make_review  # noqa: PLC0415 - for this verb only
        from frameenrich.verbs.evaluate import judge  # noqa: PLC0415 - for this verb only

        return judge(
            self._session,
            lambda answers: make_review(answers, n, by=by, seed=seed, extend=extend),
        )

    def add_review(self, path: str | os.PathLike[str], reviewer: str = "") -> Review:
        """Add a filled-in sheet of a review; it is kept in the job's folder as it came.

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
        from frameenrich.verbs.evaluate import judge  # noqa: PLC0415 - for this verb only

        return judge(self._session, lambda answers: add_sheet(answers, path, reviewer))

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
        """Measure how often the answers are right, with bounds.

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
        from frameenrich.verbs.evaluate import evaluate  # noqa: PLC0415 - for this verb only

        return evaluate(
            self._session,
            frame,
            review=review,
            truth=truth,
            tolerance=tolerance,
            match=match,
            drawn=drawn,
            level=level,
        )

    def second_opinion(
        self,
        model: str,
        provider: str | Provider | None = None,
        n: int | None = None,
        *,
        seed: int = 0,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        client: Any = None,
        max_cost: float | None = None,
        prices: PricesLike | None = None,
    ) -> Job:
        """Ask another model about the same rows, with the same words, as a job of its own.

        Where this job has neither `logprobs` nor `samples`, agreement with the newest second
        opinion is each row's score: for `evaluate`'s thresholds and ``collect(accept=...)``.

        Parameters
        ----------
        model : str
            The other model.
        provider : str or Provider, optional
            Where it is; by default where this job went.
        n : int, optional
            How many rows, drawn at random of the usable ones; by default all.
        seed : int
            Another number draws others.
        name : str, optional
            What its columns begin with; by default this job's name and ``_second``.
        params : mapping, optional
            Request parameters to change, such as those that the other model refuses.
        client, max_cost, prices
            As ``df.llmbatch.submit`` takes them.

        Returns
        -------
        Job
            The same call again finds the same job. `compare` says where the two agree.

        Raises
        ------
        InputError
            Something cannot be used; nothing was sent.
        """
        from frameenrich.verbs.second_opinion import second_opinion  # noqa: PLC0415 - for this verb only

        return second_opinion(
            self._session,
            model,
            provider=provider,
            n=n,
            seed=seed,
            name=name,
            params=params,
            client=client,
            max_cost=max_cost,
            prices=prices,
        )

    def compare(self, other: Job | str) -> Comparison:
        """Compare two jobs over the same rows: agreement, rows that differ, and cost.

        Parameters
        ----------
        other : Job or str
            A job whose rows have the same keys; by its id or name, one of the same store.

        Raises
        ------
        InputError
            They have no field, or no usable row, in common.
        """
        from frameenrich.verbs.evaluate import compare  # noqa: PLC0415 - for this verb only
        from frameenrich.verbs.find import open_job  # noqa: PLC0415 - which imports `Job`

        # A job has a session, and whatever is none is looked for, and not found, by its name.
        if not hasattr(other, "_session"):
            other = open_job(other, self._session.folder.store)
        return compare(self._session, other._session)  # noqa: SLF001 - a job as this one
