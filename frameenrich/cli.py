"""The command line: one command per verb of a `Job`, no logic.

Data goes to standard output, all that is said about it to standard error. Exit codes: 0 done, 1
with ``--strict`` a row has no good answer, 2 the input, the store or the command has to change, 3
the provider refused, broke or took longer than ``--timeout``, 130 interrupted, 141 nobody reads
standard output any more.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from frameenrich.errors import (
    FrameEnrichError,
    ParameterError,
    ProviderError,
    WaitTimeoutError,
)
from frameenrich.options import (
    Answering,
    AsJson,
    Asking,
    Embedding,
    Reading,
    Sending,
    Spending,
    Store,
    Streaming,
    Writing,
    read_params,
    spread,
)
from frameenrich.terminal import age_text, as_line, print_rows, printable, say, size_text

if TYPE_CHECKING:
    import pandas as pd

    from frameenrich.drive import JobStatus
    from frameenrich.job import Job
    from frameenrich.places import Place
    from frameenrich.streaming import Fates, Streamed, Whole
    from frameenrich.tables import Table

_GO_ON = "frameenrich.go_on"
_INTERRUPTED = 130
_NO_READER = 141  # what a shell makes of SIGPIPE
_FLAGGED_LEFT = 1


_PANELS = (_WHOLE, _LOOK, _STEPS, _STORE) = (
    "A job in one go",
    "Before paying",
    "A job step by step",
    "The store",
)

_EXAMPLES = """\
Try it without a key: frameenrich demo. With one:

  frameenrich run goods.csv out.csv -m gpt-4o-mini -t "Colour of {{ title }}?"
"""
_RUN_EXAMPLES = """\
Examples:

  frameenrich run goods.csv out.csv --model gpt-4o-mini --key sku \\
      --template "Which department sells {{ title }}?" --labels Kitchen,Toys
  frameenrich run a.parquet b.parquet -m gpt-4o-mini -t @ask.j2 --schema s.json
  frameenrich run - - --format jsonl -m gpt-4o-mini -t @ask.j2 < a.jsonl | head
"""
_EMBED_EXAMPLES = """\
Examples:

  frameenrich embed a.csv b.parquet -t "{{ title }}" -m text-embedding-3-small
  frameenrich embed a.csv b.csv -t @text.j2 -m wordllama-256 --provider local
"""
_COLLECT_EXAMPLES = """\
Examples:

  frameenrich collect goods.csv out.csv --wait      # the newest for goods.csv
  frameenrich collect kind-1f0e goods.csv out.csv   # what came so far of kind
"""
_CLEAN_EXAMPLES = """\
Examples:

  frameenrich clean --older-than 30d --dry-run
  frameenrich clean --older-than 30d --remote --yes
"""


class _Verbs(TyperGroup):
    """The commands, with our errors told in one line each, and how to go on."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order in which help shows them."""
        return sorted(super().list_commands(ctx), key=self._panel_of)

    def _panel_of(self, name: str) -> int:
        panel = getattr(self.commands[name], "rich_help_panel", None)
        return _PANELS.index(panel) if panel in _PANELS else -1

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an error of ours becomes its message and an exit code."""
        try:
            return super().invoke(ctx)
        except FrameEnrichError as error:
            say(f"error: {error}")
            if exit_code(error) == 3 and _GO_ON in ctx.meta:  # noqa: PLR2004 - as documented above
                say(f"To go on: {ctx.meta[_GO_ON]}")
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            say("Interrupted; a store keeps every answer that came.")
            if _GO_ON in ctx.meta:
                say(f"To go on: {ctx.meta[_GO_ON]}")
            raise typer.Exit(_INTERRUPTED) from None
        except BrokenPipeError:  # who reads standard output has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(_NO_READER) from None


def exit_code(error: FrameEnrichError) -> int:
    """3 where the provider is at fault or late, 2 where the caller has something to change.

    Examples
    --------
    >>> exit_code(ProviderError("It broke.", "Try again.")), exit_code(FrameEnrichError("No.", ""))
    (3, 2)
    """
    return 3 if isinstance(error, ProviderError | WaitTimeoutError) else 2


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from frameenrich import __version__  # noqa: PLC0415 - for this option only

        typer.echo(f"frameenrich {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """DataFrame rows become LLM batch requests; answers become columns."""


def _job_ids(ctx: typer.Context, incomplete: str) -> list[str]:
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
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", autocompletion=_job_ids)]


# --- the verbs ----------------------------------------------------------------------------------


@app.command(rich_help_panel=_WHOLE, epilog=_RUN_EXAMPLES)
@spread
def run(
    ctx: typer.Context,
    source: Source,
    target: Target,
    asking: Asking,
    sending: Sending,
    reading: Streaming,
    writing: Writing,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Ask for every row of IN, wait, and write IN with the answers' columns to OUT.

    The same command again goes on where it stopped, and pays for nothing twice.
    """
    _run(ctx, asking, sending, reading, writing, source, target, store, as_json=as_json)


@app.command(rich_help_panel=_WHOLE, epilog=_EMBED_EXAMPLES)
@spread
def embed(
    ctx: typer.Context,
    source: Source,
    target: Target,
    embedding: Embedding,
    sending: Sending,
    reading: Streaming,
    writing: Writing,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Ask for an embedding of every row of IN, wait, and write IN with the vectors to OUT.

    Parquet gets lists of float32, JSON Lines arrays, CSV their JSON text.
    """
    _run(ctx, embedding, sending, reading, writing, source, target, store, as_json=as_json)


@app.command(rich_help_panel=_STEPS)
@spread
def submit(
    ctx: typer.Context,
    source: Source,
    asking: Asking,
    sending: Sending,
    reading: Streaming,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Ask for every row of IN, and print the job's id; collect it whenever you like."""
    _can_go_on(ctx, again=not sending.fresh)
    from frameenrich.places import locate_all  # noqa: PLC0415 - heavy

    with _opened(locate_all(source, reading.format), reading) as table:
        job = _submit(table, asking, sending, store)
    typer.echo(as_line({"job": job.id, "requests": job.requests}) if as_json else job.id)


@app.command(rich_help_panel=_STEPS, epilog=_COLLECT_EXAMPLES)
@spread
def requests(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="IN", help="Requests in the batch format: .jsonl, .gz, or -.")
    ],
    answering: Answering,
    sending: Sending,
    reading: Reading,
    writing: Writing,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[OUT]",
            help="Where the answers go, by custom_id; without it the job's id is printed, and "
            "nothing is waited for.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Names the answers' column.")] = "answer",
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Send requests that are written already; with OUT wait, and write the answers.

    The same command again goes on where it stopped, and pays for nothing twice.
    """
    from frameenrich.verbs import submit_requests  # noqa: PLC0415 - heavy

    there = None if target is None else _target(target, reading, writing)
    _can_go_on(ctx, again=not sending.fresh)
    lines = sys.stdin.buffer if source == "-" else source
    job = submit_requests(lines, name=name, **answering.wishes(), **sending.wishes(), store=store)
    if there is None:
        typer.echo(as_line({"job": job.id, "requests": job.requests}) if as_json else job.id)
        return
    from frameenrich.streaming import Fates  # noqa: PLC0415 - heavy
    from frameenrich.writeback import write_frame  # noqa: PLC0415

    answered = job.collect(wait=True, **writing.wishes())
    write_frame(answered, there, safe=writing.safe_csv)
    fates = Fates().add(answered, job.spec.name)
    _tell_all(job, fates, there, writing, as_json=as_json)


@app.command()
@spread
def collect(
    ctx: typer.Context,
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="[JOB] IN OUT",
            help="The job, by default the newest one that was made for IN; the table that was "
            "submitted; where it goes with the answers' columns.",
            show_default=False,
        ),
    ],
    reading: Streaming,
    writing: Writing,
    answering: Answering,
    spending: Spending,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until every row has its answer or its reason.")
    ] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Write IN with the answers that came so far to OUT."""
    if len(places) not in (2, 3):
        raise typer.BadParameter("give [JOB] IN OUT", ctx=ctx)
    from frameenrich.verbs import open_job  # noqa: PLC0415 - heavy

    *ids, source, target = places
    here, there = _places(source, target, reading, writing)
    _can_go_on(ctx)
    with _opened(here, reading) as table:
        job = open_job(ids[0], store) if ids else table.find_job(store)
        wait = wait or writing.timeout is not None
        asked = {**answering.wishes(), **spending.wishes()}
        _finish(job, table, there, writing, asked, wait=wait, as_json=as_json)


@app.command(rich_help_panel=_STEPS)
def status(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="The job's id; by default the newest.",
            autocompletion=_job_ids,
            show_default=False,
        ),
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a job is; sends and downloads nothing."""
    from frameenrich.verbs import open_job  # noqa: PLC0415 - heavy

    _show_status(open_job(job or _newest(store), store).status(), as_json=as_json)


@app.command(rich_help_panel=_STEPS)
@spread
def report(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="The job's id; by default the newest.",
            autocompletion=_job_ids,
            show_default=False,
        ),
    ] = None,
    *,
    answering: Answering,
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="The HTML file.")] = Path(
        "report.html"
    ),
    rows: Annotated[
        int, typer.Option(min=0, help="How many rows that are not flagged it holds at most.")
    ] = 10_000,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Write a page on a job's answers, for a person who decides whether to trust them."""
    from frameenrich.verbs import open_job  # noqa: PLC0415 - heavy

    found = open_job(job or _newest(store), store)
    path = found.report(out, rows=rows, **answering.wishes())
    typer.echo(as_line({"job": found.id, "report": str(path)}) if as_json else str(path))


@app.command(rich_help_panel=_STEPS)
@spread
def regenerate(
    ctx: typer.Context,
    job: JobId,
    answering: Answering,
    spending: Spending,
    statuses: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only rows of this status, such as malformed; may be given again.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Another model for these rows.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A request parameter to change for these rows."),
    ] = None,
    feedback: Annotated[
        bool,
        typer.Option(help="Whether the model is shown its malformed answer and what is wrong."),
    ] = True,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Ask again for the rows without a good answer, as a new round of the same job."""
    from frameenrich.verbs import open_job  # noqa: PLC0415 - heavy

    _can_go_on(ctx)
    again = open_job(job, store).regenerate(
        statuses=statuses or None,
        model=model,
        params=read_params(param),
        feedback=feedback,
        **answering.wishes(),
        **spending.wishes(),
    )
    _show_status(again.status(), as_json=as_json)


@app.command(rich_help_panel=_STEPS)
def cancel(job: JobId, store: Store = None, as_json: AsJson = False) -> None:
    """Stop a job; the answers that came by then are kept and can be collected."""
    from frameenrich.verbs import open_job  # noqa: PLC0415 - heavy

    _show_status(open_job(job, store).cancel().status(), as_json=as_json)


@app.command(name="import", rich_help_panel=_STEPS)
def import_responses(
    job: JobId,
    responses: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="JSONL in the Batch API's output form.")
    ],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Take answers that came by other means: a web page, `vllm run-batch`."""
    from frameenrich.verbs import open_job  # noqa: PLC0415 - heavy

    found = open_job(job, store)
    for path in responses:
        found.import_responses(path)
    _show_status(found.status(), as_json=as_json)


@app.command(rich_help_panel=_STORE)
def jobs(store: Store = None, as_json: AsJson = False) -> None:
    """List the jobs of the store, the newest first, with their age and size."""
    from frameenrich.housekeeping import jobs as list_jobs  # noqa: PLC0415 - heavy

    table = list_jobs(store)
    if as_json:
        typer.echo(_as_records(table))
        return
    shown = table[["job", "model", "provider"]].assign(
        age=_ages(table["created"]),
        size=table["bytes"].map(size_text),
        batches=[*map(_batches_told, table["batches"], table["rounds"])],
    )
    print_rows(list(shown.columns), shown.fillna("").itertuples(index=False), file=sys.stdout)


@app.command(rich_help_panel=_STORE, epilog=_CLEAN_EXAMPLES)
def clean(
    older_than: Annotated[
        str,
        typer.Option(
            metavar="AGE",
            help="How long ago a job last changed: 30d, 12h, 8w.",
            show_default=False,
        ),
    ],
    remote: Annotated[
        bool, typer.Option("--remote", help="Delete the provider's copies of its files first.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also jobs that are not finished, or damaged; their answers are lost."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted, and stop.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Delete finished jobs that are old, and what killed processes left in the store.

    Answers that go are gone: the same submit later pays for them again.
    A job that runs, or whose answers are not all here, stays.
    """
    from frameenrich.housekeeping import clean as delete  # noqa: PLC0415 - heavy

    wishes: dict[str, Any] = {"store": store, "remote": remote, "force": force}
    found = delete(older_than, **wishes, dry_run=True)
    going = int(found["reason"].isna().sum())
    asks = going > 0 and not dry_run and not yes
    if asks:
        _show_cleaned(found, file=sys.stderr)
        _confirm(f"Delete {going:,} of these?")
    if not dry_run:
        found = delete(older_than, **wishes)
    gone = found["deleted"]
    if as_json:
        typer.echo(_as_records(found))
    elif len(found) and not (asks and gone.sum() == going):
        _show_cleaned(found, file=sys.stdout)
    say(f"{gone.sum():,} deleted, {size_text(found.loc[gone, 'bytes'].sum())}.")


@app.command(rich_help_panel=_LOOK)
@spread
def preview(
    source: Source,
    asking: Asking,
    reading: Reading,
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show the first requests as they would be sent; sends and writes nothing."""
    from frameenrich.verbs import preview as show  # noqa: PLC0415 - heavy

    with _read(source, reading) as table:
        shown = show(table.frame, n=n, **asking.wishes())
    if as_json:
        bodies = [{"key": key, "body": body} for key, body in shown.requests]
        typer.echo(as_line({"requests": bodies, "columns": shown.columns}))
    else:
        typer.echo(printable(str(shown)))


@app.command(rich_help_panel=_LOOK)
@spread
def estimate(
    source: Source,
    asking: Asking,
    sending: Sending,
    reading: Streaming,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Count requests and tokens, and show what they cost; sends and writes nothing."""
    from frameenrich.places import locate_all  # noqa: PLC0415 - heavy

    with _opened(locate_all(source, reading.format), reading) as table:
        found = table.estimate(**asking.wishes(), **sending.wishes(), store=store)
    if as_json:
        typer.echo(as_line(found.as_dict()))
        return
    print_rows(["estimate", ""], found.cells(), file=sys.stdout)
    for note in found.notes:
        say(f"note: {note}")


@app.command(rich_help_panel=_LOOK)
@spread
def pilot(
    source: Source,
    asking: Asking,
    sending: Sending,
    reading: Reading,
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Another number picks other rows.")] = 0,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Have a few rows of IN answered now, and show them; run and submit reuse the answers."""
    from frameenrich.pilot import pilot as ask  # noqa: PLC0415 - heavy

    with _read(source, reading) as table:
        wishes = {**asking.wishes(), **sending.wishes()}
        answers = ask(table.frame, n=n, seed=seed, store=store, **wishes)
    answers = answers.reset_index(names="row", drop=asking.subject.key is not None)
    if as_json:
        typer.echo(answers.to_json(orient="records", force_ascii=False))
        return
    shown = answers.dropna(axis="columns", how="all").astype("string").fillna("")
    print_rows(list(shown.columns), shown.itertuples(index=False), file=sys.stdout)


@app.command(rich_help_panel=_WHOLE)
def demo(
    rows: Annotated[
        int, typer.Option(min=1, max=200, help="How many rows of the sample catalogue.")
    ] = 60,
    store: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Keep the job here; by default it goes at the end."),
    ] = None,
) -> None:
    """Run a whole job on sample data with the embedded model: no key, no network."""
    from frameenrich import demo as show  # noqa: PLC0415 - heavy

    show.run(rows, store)


# --- what they share ----------------------------------------------------------------------------


def _run(
    ctx: typer.Context,
    wishes: Asking | Embedding,
    sending: Sending,
    reading: Streaming,
    writing: Writing,
    source: str,
    target: str,
    store: str | None,
    *,
    as_json: bool,
) -> None:
    """Submit, wait, collect, write."""
    if sending.provider == "file":
        raise ParameterError(
            "--provider file waits for nobody.", "Use submit, then import, then collect."
        )
    here, there = _places(source, target, reading, writing)
    _can_go_on(ctx, again=not sending.fresh)
    with _opened(here, reading) as table:
        job = _submit(table, wishes, sending, store)
        if sending.fresh:
            ctx.meta[_GO_ON] = _collect_command(job, source, target, store)
        _finish(job, table, there, writing, wait=True, as_json=as_json)


def _places(
    source: str, target: str, reading: Reading, writing: Writing
) -> tuple[tuple[Place, ...], Place]:
    """Where the table is and goes, checked before anything is sent."""
    from frameenrich.places import check_apart, locate_all  # noqa: PLC0415 - heavy

    here = locate_all(source, reading.format)
    there = _target(target, reading, writing, like=here[0])
    check_apart(source, here, there)
    return here, there


def _target(target: str, reading: Reading, writing: Writing, like: Place | None = None) -> Place:
    from frameenrich.places import locate  # noqa: PLC0415 - heavy
    from frameenrich.writeback import check_writable  # noqa: PLC0415

    there = locate(target, reading.format, like=like)
    check_writable(there)
    if writing.safe_csv and there.format not in ("csv", "tsv"):
        raise ParameterError(
            f"--safe-csv is for CSV and TSV, and {target} is neither.", "Leave it out."
        )
    return there


def _opened(here: tuple[Place, ...], reading: Streaming) -> Whole | Streamed:
    from frameenrich.streaming import open_input  # noqa: PLC0415 - heavy

    return open_input(here, limit=reading.limit, stream=reading.stream)


def _read(source: str, reading: Reading) -> Table:
    from frameenrich.places import locate_all  # noqa: PLC0415 - heavy
    from frameenrich.tables import Source, read_whole  # noqa: PLC0415

    return read_whole(Source(locate_all(source, reading.format), limit=reading.limit))


def _newest(store: str | None) -> str:
    from frameenrich.housekeeping import newest_job  # noqa: PLC0415 - heavy

    return newest_job(store).id


def _submit(
    table: Whole | Streamed, wishes: Asking | Embedding, sending: Sending, store: str | None
) -> Job:
    job, rows = table.submit(**wishes.wishes(), **sending.wishes(), store=store)
    reused = f"; {job.reused:,} answers were in the store" if job.reused else ""
    say(f"Job {job.id}: {rows:,} rows{reused}.")
    return job


def _can_go_on(ctx: typer.Context, *, again: bool = True) -> None:
    """Note how to go on after an interrupt, a time-out or a failure of the provider."""
    own = shlex.join(["frameenrich", *sys.argv[1:]])
    if "-" in sys.argv[1:]:
        own += "  # with the same standard input"
    ctx.meta[_GO_ON] = own if again else "frameenrich jobs lists what was sent; then collect it."


def _collect_command(job: Job, source: str, target: str, store: str | None) -> str:
    where = ["--store", store] if store else []
    return shlex.join(["frameenrich", "collect", "--wait", *where, job.id, source, target])


def _finish(
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
    wishes = {**writing.wishes(), **(asked or {}), "wait": wait}
    fates = table.write_answers(job, there, safe=writing.safe_csv, **wishes)
    _tell_all(job, fates, there, writing, as_json=as_json)


def _tell_all(job: Job, fates: Fates, there: Place, writing: Writing, *, as_json: bool) -> None:
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


def _batches_told(statuses: str, rounds: Any) -> str:
    """Such as "completed", or "3 completed, 1 in_progress in 2 rounds"."""
    counts = Counter(statuses.split(", "))
    told = ", ".join(f"{n} {status}" for status, n in counts.items())
    if len(counts) == counts.total() == 1:
        return statuses
    return told if rounds == 1 else f"{told} in {rounds} rounds"


def _ages(moments: pd.Series) -> list[str]:
    """How long ago each was; empty where nobody knows."""
    now = datetime.now(tz=UTC)
    return ["" if m is None else age_text((now - m).total_seconds()) for m in _values(moments)]


def _values(column: pd.Series) -> list[Any]:
    return column.astype(object).where(column.notna(), None).tolist()


def _as_records(table: pd.DataFrame) -> str:
    told: str = table.to_json(orient="records", date_format="iso", force_ascii=False)
    return told


def _show_cleaned(found: pd.DataFrame, *, file: Any) -> None:
    fates = [
        reason or ("deleted" if gone else "would be deleted")
        for reason, gone in zip(_values(found["reason"]), found["deleted"], strict=True)
    ]
    sizes, names = found["bytes"].map(size_text), found["name"].map(os.path.basename)
    rows = zip(names, found["what"], _ages(found["changed"]), sizes, fates, strict=True)
    print_rows(["name", "what", "changed", "size", "fate"], rows, file=file)


def _confirm(question: str) -> None:
    """Ask who sits there; with nobody there, refuse."""
    if not sys.stdin.isatty():
        raise ParameterError("Nobody is here to be asked.", "Add --yes, or --dry-run to look.")
    if not typer.confirm(question, err=True):
        raise typer.Exit


def _show_status(found: JobStatus, *, as_json: bool) -> None:
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


def main() -> None:
    """What the ``frameenrich`` script calls; ends the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # titles in twelve languages, any terminal
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    try:
        app()
    except SystemExit as end:
        _end(end.code if isinstance(end.code, int) else int(end.code is not None))
    _end(0)


def _end(code: int) -> None:
    """Leave at once: Arrow's threads now and then abort an interpreter that is shutting down.

    Every file is closed by now, and 134 is no answer to a script (apache/arrow issue 34314).
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
