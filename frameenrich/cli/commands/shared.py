"""Code that commands share: arguments, resume hints, reading tables, writing answers."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frameenrich.cli.option_groups import to_argv
from frameenrich.cli.options import (
    AsJson,
    CollectOptions,
    InputOptions,
    ProviderOptions,
    ServerOptions,
    Store,
    StreamInputOptions,
    TableInputOptions,
)
from frameenrich.cli.request_options import AnswerOptions, Embedding, RequestOptions
from frameenrich.cli.terminal import as_line, counted, print_rows, print_text, say
from frameenrich.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd

    from frameenrich.cli.table_jobs import InMemoryTable, StatusCounts, StreamedTable
    from frameenrich.cli.tables.files import TableFile
    from frameenrich.cli.tables.read import NoRowsError, Table
    from frameenrich.lifecycle.wait import JobStatus
    from frameenrich.verbs.job import Job


RESUME = "frameenrich.go_on"
"""The key of the context under which a command notes how to go on."""


# Scripts decide by these numbers, so they keep their meaning; `cli/main.py` lists all of them.
_TOO_FEW_OK = 1


_NO_SERVER = ServerOptions()


STILL_RUNS = 4


def job_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete a job's id or name in the shell."""
    from frameenrich.store.listing import list_jobs  # noqa: PLC0415 - heavy
    from frameenrich.store.store import open_store  # noqa: PLC0415

    folders, _ = list_jobs(open_store(ctx.params.get("store")))
    words = dict.fromkeys(each for folder in folders for each in (folder.spec.name, folder.id))
    return [word for word in words if word.startswith(incomplete)]


Source = Annotated[
    str,
    typer.Argument(
        metavar="IN",
        help="The table: .csv, .tsv, .jsonl, .json (each also .gz, .zst, .zip), .parquet, "
        ".xlsx, or -. Several files, as 'data/*.parquet' or a folder, are one table.",
    ),
]


Target = Annotated[
    str, typer.Argument(metavar="OUT", help="Where the table with the answers goes, likewise.")
]


JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's id or name.", autocompletion=job_ids)
]


JobOrNewest = Annotated[
    str | None,
    typer.Argument(
        metavar="[JOB]",
        help="The job's id or name; by default the newest.",
        autocompletion=job_ids,
        show_default=False,
    ),
]


@dataclass(frozen=True)
class JobOptions:
    """A job of the store, and what every command on one takes."""

    job: JobOrNewest = None
    server: ServerOptions = _NO_SERVER
    store: Store = None
    as_json: AsJson = False

    def open(self) -> Job:
        """Find the job by its id or name; without either, the newest."""
        return job_of(self.job, self.store, self.server)

    def show_status(self, job: Job) -> None:
        """Print how far the job is."""
        show_status(job.status(), as_json=self.as_json)


def files_of(source: str, reading: TableInputOptions) -> tuple[TableFile, ...]:
    """Find the files of a table, with their sheet, delimiter and encoding."""
    from frameenrich.cli.tables.files import on_sheet, table_files, written_as  # noqa: PLC0415 - heavy

    files = table_files(source, reading.format)
    files = tuple(on_sheet(file, reading.sheet) for file in files)
    return tuple(written_as(file, reading.delimiter, reading.encoding) for file in files)


def table_files_of(
    source: str, target: str, reading: TableInputOptions, writing: CollectOptions
) -> tuple[tuple[TableFile, ...], TableFile]:
    """Find the input and output files, checked before anything is sent."""
    from frameenrich.cli.tables.files import check_output_outside_input  # noqa: PLC0415 - heavy

    # A mistake in OUT has to show now: after the batch the answers would be paid for and not
    # written.
    here = files_of(source, reading)
    there = target_of(target, reading, writing, like=here[0])
    check_output_outside_input(source, here, there)
    return here, there


def target_of(
    target: str, reading: InputOptions, writing: CollectOptions, like: TableFile | None = None
) -> TableFile:
    """Find the output file, checked before anything is sent."""
    from frameenrich.cli.tables.files import table_file  # noqa: PLC0415 - heavy
    from frameenrich.cli.tables.write import check_writable  # noqa: PLC0415

    there = table_file(target, reading.format, like=like)
    if like is not None and like.format == there.format:
        there = replace(
            there, delimiter=like.delimiter
        )  # records keep their bytes, so the cells added have to fit
    check_writable(there)
    if writing.safe_csv and there.format not in ("csv", "tsv"):
        raise ParameterError(
            f"--safe-csv is for CSV and TSV, and {target} is neither.", "Leave it out."
        )
    return there


def opened(
    here: tuple[TableFile, ...], reading: StreamInputOptions
) -> InMemoryTable | StreamedTable:
    """Open the table, or its first rows; a chunk at a time where it is large."""
    from frameenrich.cli.table_jobs import open_table  # noqa: PLC0415 - heavy

    return open_table(here, limit=reading.limit, stream=reading.stream)


def read(source: str, reading: TableInputOptions) -> Table:
    """Read the table, or its first rows, all of it in memory."""
    from frameenrich.cli.tables.read import read_tables  # noqa: PLC0415 - heavy

    return read_tables(files_of(source, reading), limit=reading.limit)


def job_of(job: str | None, store: str | None, server: ServerOptions = _NO_SERVER) -> Job:
    """Find a job by id or name, else take the newest of the store and print which it is."""
    from frameenrich.store.listing import newest_job  # noqa: PLC0415 - heavy
    from frameenrich.verbs.find import open_job  # noqa: PLC0415

    client = server.client()
    if job is not None:
        return open_job(job, store, client=client)
    newest = newest_job(store).id
    # Said before anything happens to it: the user may have meant another.
    say(f"The newest job: {newest}.")
    return open_job(newest, store, client=client)


def job_and_files(
    ctx: typer.Context, words: list[str], store: str | None
) -> tuple[Job, list[Path]]:
    """Split ``[JOB] FILE...``: the first word is a job unless such a file exists."""
    # A job may be called like a file that is there: the file wins, as its path is what was typed.
    first, *rest = words
    if rest and not os.path.exists(first):
        return job_of(first, store), [Path(each) for each in rest]
    if not os.path.exists(first):
        raise typer.BadParameter(f"{first} is not a file: give [JOB] FILE...", ctx=ctx)
    return job_of(None, store), [Path(each) for each in words]


def send(
    table: InMemoryTable | StreamedTable,
    asking: RequestOptions | Embedding,
    sending: ProviderOptions,
    store: str | None,
) -> Job:
    """Submit, and print the job's id and number of rows."""
    job, rows = table.submit(**asking.kwargs(), **sending.kwargs(), store=store)
    reused = f"; {counted(job.reused, 'answer')} came from the store" if job.reused else ""
    say(f"Job {job.id}: {counted(rows, 'row')}{reused}.")
    return job


def note_resume_command(ctx: typer.Context, *, again: bool = True) -> None:
    """Note how to go on after an interrupt, a time-out or a failure of the provider."""
    own = _command(sys.argv[1:], ctx.params.get("source"))
    # The same command with --fresh would pay again, so it is not suggested.
    ctx.meta[RESUME] = own if again else "frameenrich jobs lists what was sent; then collect it."


def _command(words: list[str], source: str | None = None) -> str:
    """Quote a command for the shell, with a reminder of its standard input."""
    typed = shlex.join(["frameenrich", *words])
    # Where the source is not known a "-" may be the target, which is no input.
    from_stdin = source == "-" if source is not None else "-" in words
    return f"{typed}  # with the same standard input" if from_stdin else typed


def collect_command(
    job_id: str,
    names: tuple[str, str],
    asking: RequestOptions | Embedding,
    sending: ProviderOptions,
    reading: StreamInputOptions,
    writing: CollectOptions,
    store: str | None,
    *,
    as_json: bool,
) -> str:
    """Build the command that resumes a job which another ``run --fresh`` would pay for again."""
    answering = asking.answering if isinstance(asking, RequestOptions) else AnswerOptions()
    # A --max-cost on `run` caps the job; `collect` refuses one where no round can follow.
    spending = sending.spending
    if not writing.max_rounds:  # collect takes a cap for further rounds only
        spending = replace(spending, max_cost=None)
    options = ["--wait", *(["--store", store] if store else []), *(["--json"] if as_json else [])]
    for group in (reading, writing, answering, spending, sending.server):
        options += to_argv(group)
    return _command(["collect", *options, job_id, *names], names[0])


@contextlib.contextmanager
def with_timeout(writing: CollectOptions) -> Iterator[None]:
    """Apply ``--timeout`` to a whole command: sending may take long, too."""
    from frameenrich.providers.protocol import retry_for  # noqa: PLC0415 - heavy

    # Also around the sending: a time limit that began after an hour of retries would be none.
    with retry_for(math.inf if writing.waiting.timeout is None else writing.waiting.timeout):
        yield


def write_answers(
    job: Job,
    table: InMemoryTable | StreamedTable,
    there: TableFile,
    writing: CollectOptions,
    reading_options: Mapping[str, Any] | None = None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Collect, write the table, and print a summary."""
    options = {**writing.kwargs(), **(reading_options or {}), "wait": wait}
    totals = table.write_answers(job, there, safe=writing.safe_csv, **options)
    print_summary(job, totals, there, writing, as_json=as_json)


def write_nothing(
    nothing: NoRowsError,
    asking: RequestOptions | Embedding,
    sending: ProviderOptions,
    there: TableFile,
    writing: CollectOptions,
    *,
    as_json: bool,
) -> None:
    """Write the output of a table without rows, and say so: an empty file is no failure."""
    from frameenrich.cli.table_jobs import write_no_rows  # noqa: PLC0415 - heavy

    options = {**asking.kwargs(), **sending.kwargs()}
    shown = {"usage": writing.usage, "flatten": writing.flatten}
    write_no_rows(nothing, options, there, safe=writing.safe_csv, **shown)
    if as_json:
        summary: dict[str, Any] = {
            "job": None,
            "rows": 0,
            "statuses": {},
            "repaired": 0,
            "output": there.path,
        }
        typer.echo(as_line(summary), err=there.is_stream)
    else:
        out = "the output" if there.is_stream else there.path
        say(f"{nothing.problem} Nothing was sent; {out} has no rows either.")


def print_summary(
    job: Job, totals: StatusCounts, there: TableFile, writing: CollectOptions, *, as_json: bool
) -> None:
    """Print the outcome of the rows and the output file; exit with a matching code.

    1 where no row is ok, or fewer than ``--min-ok`` or ``--strict`` ask for; 4 where some run.
    """
    from frameenrich.lifecycle.row_facts import retry_commands  # noqa: PLC0415 - heavy

    counts, examples = dict(totals.counts.most_common()), totals.examples
    if as_json:
        summary = {
            "job": job.id,
            "rows": totals.rows,
            "statuses": counts,
            "repaired": totals.facts.repaired,
            "output": there.path,
        }
        # Standard output holds the table then, which nothing may be mixed into.
        typer.echo(as_line(summary), err=there.is_stream)
    else:
        rows = [(status, f"{n:,}", examples.get(status, "")) for status, n in counts.items()]
        heads = ["status", "rows", *(["for example"] if examples else [])]
        # Standard output may hold the table itself.
        print_rows(heads, [row[: len(heads)] for row in rows], file=sys.stderr)
        if totals.facts.repaired:
            say(
                f"{totals.facts.repaired:,} ok answers were mended before they were read (fences, "
                "words around them, commas or quotes); --usage shows which."
            )
        if examples:
            for command in retry_commands(job.id, totals.facts.remedies):
                say(f"To ask the flagged rows again: {command}")
        if not there.is_stream:
            say(f"Wrote {counted(totals.rows, 'row')} to {there.path}.")
    # Before the share of ok rows: as long as rows run, too few being ok says nothing yet.
    if counts.get("pending"):
        say(f"{counts['pending']:,} rows still run; to go on: {_command(sys.argv[1:])}")
        raise typer.Exit(STILL_RUNS)
    if not _enough_ok(counts, writing):
        raise typer.Exit(_TOO_FEW_OK)


def _enough_ok(counts: Mapping[str, int], writing: CollectOptions) -> bool:
    """Tell whether enough rows are usable for the options; skipped rows do not count."""
    ok = counts.get("ok", 0)
    sent = sum(counts.values()) - counts.get("skipped", 0)
    if not sent:  # all rows were skipped as requested: nothing failed
        return True
    if writing.strict:
        return ok == sent
    return ok > 0 and ok >= sent * (writing.min_ok or 0.0)


def as_records(table: pd.DataFrame) -> str:
    """Encode a table as JSON for other programs, one object a row."""
    figures: str = table.to_json(orient="records", date_format="iso", force_ascii=False)
    return figures


def show_status(found: JobStatus, *, as_json: bool) -> None:
    """Print the progress of a job."""
    figures = {"requests": found.requests, "completed": found.completed, "failed": found.failed}
    if as_json:
        shards = [{"status": name, "age_seconds": age} for name, age in found.shards]
        typer.echo(as_line({"job": found.id, "ended": found.ended, **figures, "batches": shards}))
    elif sys.stdout.isatty():
        batches = ", ".join(
            f"{n} {name}" for name, n in Counter(s for s, _ in found.shards).items()
        )
        row = [found.id, batches, *(f"{n:,}" for n in figures.values())]
        print_rows(["job", "batches", *figures], [row], file=sys.stdout)
    else:
        print_text(str(found))
