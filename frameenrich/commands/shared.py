"""What commands share: their arguments, how to go on, a table in, answers out and told."""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frameenrich.errors import ParameterError
from frameenrich.options import (
    Answering,
    Asking,
    Embedding,
    Reading,
    Sending,
    Streaming,
    Writing,
)
from frameenrich.spread import words_of
from frameenrich.terminal import as_line, print_rows, printable, say

if TYPE_CHECKING:
    import pandas as pd

    from frameenrich.drive import JobStatus
    from frameenrich.job import Job
    from frameenrich.places import Place
    from frameenrich.streaming import Fates, Streamed, Whole
    from frameenrich.tables import Table


GO_ON = "frameenrich.go_on"
"""Where a command notes how to go on, for whoever tells it."""
_FLAGGED_LEFT = 1


def job_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """For shell completion."""
    from frameenrich.store import open_store  # noqa: PLC0415 - heavy

    return [i for i in open_store(ctx.params.get("store")).job_ids() if i.startswith(incomplete)]


Source = Annotated[
    str,
    typer.Argument(
        metavar="IN",
        help="The table: .csv, .tsv, .jsonl (each also .gz), .parquet, or -. Several files, as "
        "'data/*.parquet' or a folder, are one table.",
    ),
]
Target = Annotated[
    str, typer.Argument(metavar="OUT", help="Where the table with the answers goes, likewise.")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", autocompletion=job_ids)]


def places_of(
    source: str, target: str, reading: Reading, writing: Writing
) -> tuple[tuple[Place, ...], Place]:
    """Where the table is and goes, checked before anything is sent."""
    from frameenrich.places import check_apart, locate_all  # noqa: PLC0415 - heavy

    here = locate_all(source, reading.format)
    there = target_of(target, reading, writing, like=here[0])
    check_apart(source, here, there)
    return here, there


def target_of(target: str, reading: Reading, writing: Writing, like: Place | None = None) -> Place:
    """Where the table goes, checked before anything is sent."""
    from frameenrich.places import locate  # noqa: PLC0415 - heavy
    from frameenrich.writeback import check_writable  # noqa: PLC0415

    there = locate(target, reading.format, like=like)
    check_writable(there)
    if writing.safe_csv and there.format not in ("csv", "tsv"):
        raise ParameterError(
            f"--safe-csv is for CSV and TSV, and {target} is neither.", "Leave it out."
        )
    return there


def opened(here: tuple[Place, ...], reading: Streaming) -> Whole | Streamed:
    """The table, or its first rows; a chunk at a time where it is large."""
    from frameenrich.streaming import open_input  # noqa: PLC0415 - heavy

    return open_input(here, limit=reading.limit, stream=reading.stream)


def read(source: str, reading: Reading) -> Table:
    """The table, or its first rows, all of it in memory."""
    from frameenrich.places import locate_all  # noqa: PLC0415 - heavy
    from frameenrich.tables import Source, read_whole  # noqa: PLC0415

    return read_whole(Source(locate_all(source, reading.format), limit=reading.limit))


def newest_id(store: str | None) -> str:
    """The newest job of a store."""
    from frameenrich.housekeeping import newest_job  # noqa: PLC0415 - heavy

    return newest_job(store).id


def send(
    table: Whole | Streamed, wishes: Asking | Embedding, sending: Sending, store: str | None
) -> Job:
    """Submit, and tell which job it is and how many rows it has."""
    job, rows = table.submit(**wishes.wishes(), **sending.wishes(), store=store)
    reused = f"; {job.reused:,} answers were in the store" if job.reused else ""
    say(f"Job {job.id}: {rows:,} rows{reused}.")
    return job


def can_go_on(ctx: typer.Context, *, again: bool = True) -> None:
    """Note how to go on after an interrupt, a time-out or a failure of the provider."""
    own = _command(sys.argv[1:])
    ctx.meta[GO_ON] = own if again else "frameenrich jobs lists what was sent; then collect it."


def _command(words: list[str]) -> str:
    """What to type, with what else it takes."""
    typed = shlex.join(["frameenrich", *words])
    return f"{typed}  # with the same standard input" if "-" in words else typed


def collect_command(
    job_id: str,
    places: tuple[str, str],
    wishes: Asking | Embedding,
    sending: Sending,
    reading: Streaming,
    writing: Writing,
    store: str | None,
    *,
    as_json: bool,
) -> str:
    """What goes on with a job that another ``run --fresh`` would pay for again."""
    answering = wishes.answering if isinstance(wishes, Asking) else Answering()
    spending = sending.spending
    if not writing.max_rounds:  # collect takes a cap for further rounds only
        spending = replace(spending, max_cost=None)
    options = ["--wait", *(["--store", store] if store else []), *(["--json"] if as_json else [])]
    for group in (reading, writing, answering, spending):
        options += words_of(group)
    return _command(["collect", *options, job_id, *places])


@contextlib.contextmanager
def in_time(writing: Writing) -> Iterator[None]:
    """Have ``--timeout`` hold for all of a command: sending, too, may be what takes the time."""
    from frameenrich.providers.base import patience  # noqa: PLC0415 - heavy

    with patience(math.inf if writing.timeout is None else writing.timeout):
        yield


def collect_wishes(writing: Writing) -> dict[str, Any]:
    """The keyword arguments of ``collect``, with the time that `in_time` has left."""
    from frameenrich.providers.base import patience_left  # noqa: PLC0415 - heavy

    wishes = writing.wishes()
    if writing.timeout is not None:
        wishes["timeout"] = max(0.0, round(patience_left(), 2))
    return wishes


def finish(
    job: Job,
    table: Whole | Streamed,
    there: Place,
    writing: Writing,
    asked: Mapping[str, Any] | None = None,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    """Collect, write, and tell what became of the rows."""
    wishes = {**collect_wishes(writing), **(asked or {}), "wait": wait}
    fates = table.write_answers(job, there, safe=writing.safe_csv, **wishes)
    tell_all(job, fates, there, writing, as_json=as_json)


def tell_all(job: Job, fates: Fates, there: Place, writing: Writing, *, as_json: bool) -> None:
    """Tell what became of the rows; with ``--strict``, end with 1 where one has no good answer."""
    counts, examples = dict(fates.counts.most_common()), fates.examples
    if as_json:
        summary = {"job": job.id, "rows": fates.rows, "statuses": counts, "output": there.path}
        typer.echo(as_line(summary), err=there.is_stream)
    else:
        rows = [(status, f"{n:,}", examples.get(status, "")) for status, n in counts.items()]
        heads = ["status", "rows", *(["for example"] if examples else [])]
        print_rows(heads, [row[: len(heads)] for row in rows], file=sys.stderr)
        if examples:
            say(f"To ask again for the rows without a good answer: frameenrich regenerate {job.id}")
    if writing.strict and set(counts) - {"ok", "skipped"}:
        raise typer.Exit(_FLAGGED_LEFT)


def as_records(table: pd.DataFrame) -> str:
    """A table as JSON for other programs, an object a row."""
    told: str = table.to_json(orient="records", date_format="iso", force_ascii=False)
    return told


def show_status(found: JobStatus, *, as_json: bool) -> None:
    """Print how far a job is."""
    told = {"requests": found.requests, "completed": found.completed, "failed": found.failed}
    if as_json:
        shards = [{"status": name, "age_seconds": age} for name, age in found.shards]
        typer.echo(as_line({"job": found.id, "ended": found.ended, **told, "batches": shards}))
    elif sys.stdout.isatty():
        batches = ", ".join(
            f"{n} {name}" for name, n in Counter(s for s, _ in found.shards).items()
        )
        row = [found.id, batches, *(f"{n:,}" for n in told.values())]
        print_rows(["job", "batches", *told], [row], file=sys.stdout)
    else:
        typer.echo(printable(str(found)))
