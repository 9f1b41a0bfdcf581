"""Jobs from table files, and back: small tables in memory, others a chunk at a time.

Both classes have the same verbs, make the same job and write the same file. A streamed table is
read once to be submitted, each chunk a part of the job, and once to be written; memory holds one
chunk and its answers.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import pandas as pd

from frameenrich.answers.output import Output
from frameenrich.answers.parser_columns import ParserColumns
from frameenrich.cli.tables.chunks import CHUNK_ROWS
from frameenrich.cli.tables.files import TableFile
from frameenrich.cli.tables.read import NoRowsError, Source, Table, read_whole
from frameenrich.cli.tables.write import ChunkWithAnswers, write_chunks, write_table
from frameenrich.errors import FrameEnrichError, FrameMismatchError
from frameenrich.identity.keys import read_keys
from frameenrich.lifecycle.collect import Collector, Reading, columns_of_no_rows
from frameenrich.lifecycle.edits import warn_of_edits
from frameenrich.lifecycle.row_facts import RowFacts, counting_rows
from frameenrich.prepare.options import Plan, make_plan
from frameenrich.prepare.parts import PartsFolder, write_part
from frameenrich.prepare.submit_options import Options
from frameenrich.prepare.writer import Part
from frameenrich.providers.registry import check_provider
from frameenrich.rendering.readable import Preview
from frameenrich.store.store import StoreLike
from frameenrich.verbs.before_paying import (
    estimate,
    estimate_parts,
    pilot,
    pilot_parts,
)
from frameenrich.verbs.estimate import Estimate, count_frame
from frameenrich.verbs.find import find_job, find_named_job, open_job
from frameenrich.verbs.job import Job
from frameenrich.verbs.preview import preview, preview_parts
from frameenrich.verbs.submit import submit, submit_parts

STREAM_BYTES = 256_000_000
"""Larger tables are streamed, unless ``--no-stream`` is given."""


_NEVER = "never asked"


@dataclass
class StatusCounts:
    """Outcome of rows: the count of each status, and one example reason for each flagged one.

    ``facts`` count repaired answers, and the calls that would ask flagged rows again.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    facts: RowFacts = field(default_factory=RowFacts)

    @property
    def rows(self) -> int:
        """Return how many rows were counted."""
        return self.counts.total()

    @property
    def seen(self) -> int:
        """Return how many of the rows are in the job."""
        return self.rows - self.counts[_NEVER]

    def add(
        self, answered: Mapping[str, pd.Series] | pd.DataFrame, name: str, facts: RowFacts
    ) -> Self:
        """Count some rows of the job called `name`, with the facts known about them."""
        self.facts.repaired += facts.repaired
        self.facts.remedies.update(facts.remedies)
        statuses = answered[f"{name}_status"].fillna(_NEVER)
        reasons = answered[f"{name}_error"].groupby(statuses).first().dropna()
        self.counts.update({str(k): int(n) for k, n in statuses.value_counts().items()})
        # Earlier examples win, so that a streamed table shows the same ones as one in memory.
        self.examples = {str(k): str(reason) for k, reason in reasons.items()} | self.examples
        return self


def open_table(
    files: Sequence[TableFile], *, limit: int | None = None, stream: bool | None = None
) -> InMemoryTable | StreamedTable:
    """Open a table; it has to be closed like a file.

    Parameters
    ----------
    files : sequence of TableFile
        Its files (`frameenrich.cli.tables.files.table_files`).
    limit : int, optional
        How many rows are read at most.
    stream : bool, optional
        Whether it is read a chunk at a time; by default only a large table is.

    Raises
    ------
    NoRowsError
        It holds no rows.
    InputError
        It cannot be read.
    """
    source = Source(files, limit=limit)
    try:
        if stream is None:
            # So few rows are one chunk: streamed, they would only be read more often.
            few = limit is not None and limit <= CHUNK_ROWS
            stream = not few and source.is_larger_than(STREAM_BYTES)
        if not stream:
            return InMemoryTable(read_whole(source))
        # A table without rows is told here, as one in memory is: what follows may need a key.
        next(source.chunks())
        return StreamedTable(source)
    except BaseException:
        source.__exit__()
        raise


@contextlib.contextmanager
def with_line_numbers(location: Callable[[int], str]) -> Iterator[None]:
    """Add the line in the file to errors about the row at a position."""
    try:
        yield
    except FrameEnrichError as error:
        if (position := error.position) is not None:
            named = re.escape(f"{position if error.row is None else error.row}")
            # Not followed by a word's sign, so that row 1 is not found in "row 12".
            own = re.compile(rf"\b([Rr]ow (?:at position )?{named}|at position {position})(?!\w)")
            where = location(position)
            error.problem = own.sub(lambda found: f"{found.group()} ({where})", error.problem, 1)
            error.args = (error.problem, error.fix)
        raise


@dataclass(frozen=True)
class InMemoryTable:
    """A table in memory."""

    table: Table

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.table.__exit__()

    def submit(self, **options: Any) -> tuple[Job, int]:
        """Submit every row; return the job and the number of rows."""
        with with_line_numbers(self.table.location):
            return submit(self.table.frame, **options), len(self.table.frame)

    def estimate(self, **options: Any) -> Estimate:
        """Estimate what a `submit` would send and cost."""
        with with_line_numbers(self.table.location):
            return estimate(self.table.frame, **options)

    def preview(self, **options: Any) -> Preview:
        """Return the first requests as they would be sent."""
        with with_line_numbers(self.table.location):
            return preview(self.table.frame, **options)

    def pilot(self, **options: Any) -> pd.DataFrame:
        """Have a few rows answered now."""
        with with_line_numbers(self.table.location):
            return pilot(self.table.frame, **options)

    def find_job(self, store: StoreLike, job: str | None = None, client: Any = None) -> Job:
        """Find the job of that id or name, else the newest that was made for this table."""
        if job is not None:
            return find_named_job(self.table.frame, job, store, client=client)
        return find_job(self.table.frame, store, client=client)

    def write_answers(
        self, job: Job, target: TableFile, *, safe: bool = False, **options: Any
    ) -> StatusCounts:
        """Collect, and write the table with the columns of answers; see `Job.collect`."""
        with counting_rows() as facts:
            answered = job.collect(self.table.frame, **options)
        write_table(self.table, answered, target, safe=safe)
        return StatusCounts().add(answered, job.spec.name, facts)


@dataclass(frozen=True)
class StreamedTable:
    """A table that is read one chunk at a time."""

    source: Source

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.__exit__()

    def submit(self, **options: Any) -> tuple[Job, int]:
        """Submit every row; return the job and the number of rows."""
        rows = 0

        def write(stage: PartsFolder) -> Iterator[Part]:
            nonlocal rows
            rows = 0  # called again where a job of an earlier version is searched for
            for chunk in self.source.chunks():
                rows += chunk.rows
                with with_line_numbers(chunk.location):
                    # A part has its chunk's number: `collect` looks there first.
                    part = write_part(stage, chunk.number, chunk.frame, called=chunk.called)
                yield part

        return submit_parts(write, self.source.columns, **options), rows

    def estimate(self, **options: Any) -> Estimate:
        """Estimate what a `submit` would send and cost."""
        return estimate_parts(
            lambda spec: (
                count_frame(chunk.frame, Plan(spec, Output(spec.output)))
                for chunk in self.source.chunks()
            ),
            self.source.columns,
            **options,
        )

    def preview(self, **options: Any) -> Preview:
        """Return the first requests as they would be sent."""
        with with_line_numbers(self.source.location):
            return preview_parts(self._frames, self.source.columns, **options)

    def pilot(self, **options: Any) -> pd.DataFrame:
        """Have a few rows answered now, the same as of a table in memory."""
        with with_line_numbers(self.source.location):
            return pilot_parts(self._frames, **options)

    def _frames(self) -> Iterator[pd.DataFrame]:
        return (chunk.frame for chunk in self.source.chunks())

    def find_job(self, store: StoreLike, job: str | None = None, client: Any = None) -> Job:
        """Find the job of that id or name, else the newest for this table, by its first rows."""
        if job is not None:
            return open_job(job, store, client=client)
        # Jobs are found by their first part, so that no whole table is read for it.
        first = next(self.source.chunks())
        return find_job(first.frame, store, part=first.number, client=client)

    def write_answers(
        self,
        job: Job,
        target: TableFile,
        *,
        safe: bool = False,
        **options: Any,
    ) -> StatusCounts:
        """Collect, and write the table with the answers' columns; see `Job.collect`.

        Raises
        ------
        FrameMismatchError
            The rows are not those the answers were made for. Nothing is paid for such rows, and
            nothing of them goes to standard output.
        """
        # Checked first: neither standard output nor paid rounds can be taken back.
        if target.is_stream or options.get("max_rounds"):
            self._check(job)
        collector = self._knowing_columns(job.collector(**options))
        counts, edits = StatusCounts(), Counter[str]()
        # Collected over all chunks, for one warning at the end instead of one a chunk.
        collector = replace(collector, kept_edits=edits)

        def fill() -> Iterator[ChunkWithAnswers]:
            nonlocal counts
            # From zero: Parquet calls this again where a later chunk changed a column's type.
            counts = StatusCounts()
            edits.clear()
            for chunk in self.source.chunks():
                with counting_rows() as facts:
                    answers = pd.DataFrame(collector.columns(chunk.frame, chunk.number))
                counts.add(answers, job.spec.name, facts)
                yield ChunkWithAnswers(chunk, answers)
            # Known after the last chunk only; an error here drops the unfinished file.
            _refuse_other_rows(job, counts.rows, counts.seen)

        write_chunks(fill, target, safe=safe)
        warn_of_edits(edits)
        return counts

    def _check(self, job: Job) -> None:
        rows = seen = 0
        for chunk in self.source.chunks():
            rows += chunk.rows
            seen += job.count_seen(chunk.frame, chunk.number)
        _refuse_other_rows(job, rows, seen)

    def _knowing_columns(self, collector: Collector) -> Collector:
        """Learn a parser's columns from all answers, before the first chunk is written."""
        if not collector.has_parser:
            return collector
        # A file has one header, so all columns have to be known before its first row is written.
        parts = (collector.columns(chunk.frame, chunk.number) for chunk in self.source.chunks())
        with counting_rows():  # discarded: rows are counted when they are written
            made = ParserColumns.learn(collector.folder.spec, parts, final=True)
        return replace(collector, parser_columns=made)


def write_no_rows(
    nothing: NoRowsError,
    options: Mapping[str, Any],
    target: TableFile,
    *,
    safe: bool = False,
    usage: bool = False,
    flatten: bool = False,
) -> None:
    """Write a table without rows, with the columns that answers would fill; ask nobody.

    Parameters
    ----------
    nothing : NoRowsError
        What reading the table raised.
    options : mapping
        As `submit` takes them; they are checked as for any other table, as far as that takes no
        key of a provider's.
    target, safe
        As `write_table` takes them.
    usage, flatten : bool
        As `Job.collect` takes them.
    """
    given = dict(options)
    template, model, checked = given.pop("template"), given.pop("model"), Options(**given)
    plan = make_plan(template, model, checked)
    check_provider(checked.provider)
    chunk = nothing.chunk
    if chunk.format != "jsonl":  # without rows, JSON Lines name no column
        plan.prompt.columns_used(list(chunk.columns))
        read_keys(chunk.frame, plan.spec.key)
    reading = Reading(plan.output, {}, usage=usage, flatten=flatten)
    answers = pd.DataFrame(columns_of_no_rows(plan.spec, reading))
    write_chunks(lambda: [ChunkWithAnswers(chunk, answers)], target, safe=safe)


def _refuse_other_rows(job: Job, rows: int, seen: int) -> None:
    if not seen:
        raise FrameMismatchError(
            f"None of the table's {rows:,} rows is in the job {job.id}.",
            "Give the table that was submitted, and the job that was made for it.",
            job_id=job.id,
        )
