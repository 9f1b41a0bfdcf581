"""A job step by step, from ``submit`` to ``import``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from frameenrich.cli.commands.shared import (
    JobOptions,
    JobOrNewest,
    Source,
    files_of,
    job_and_files,
    job_of,
    note_resume_command,
    opened,
    print_summary,
    send,
    show_status,
    table_files_of,
    target_of,
    with_timeout,
    write_answers,
)
from frameenrich.cli.option_groups import flatten_options
from frameenrich.cli.options import (
    AsJson,
    BudgetOptions,
    CollectOptions,
    InputOptions,
    ProviderOptions,
    RetryOptions,
    ServerOptions,
    Store,
    StreamInputOptions,
    WaitOptions,
)
from frameenrich.cli.phrases import in_flags
from frameenrich.cli.request_options import AnswerOptions, RequestOptions
from frameenrich.cli.terminal import print_result, say
from frameenrich.errors import ParameterError


@flatten_options
def submit(
    ctx: typer.Context,
    source: Source,
    asking: RequestOptions,
    sending: ProviderOptions,
    reading: StreamInputOptions,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Ask for every row of IN, and print the job's id; collect it whenever you like."""
    note_resume_command(ctx, again=not sending.fresh)
    with opened(files_of(source, reading), reading) as table:
        job = send(table, asking, sending, store)
    print_result({"job": job.id, "requests": job.requests}, job.id, as_json=as_json)


@flatten_options
def requests(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="IN", help="Requests in the batch format: .jsonl, .gz, or -.")
    ],
    answering: AnswerOptions,
    sending: ProviderOptions,
    reading: InputOptions,
    writing: CollectOptions,
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
    from frameenrich.cli.table_jobs import StatusCounts  # noqa: PLC0415
    from frameenrich.cli.tables.files import check_other  # noqa: PLC0415 - heavy
    from frameenrich.cli.tables.write import write_frame  # noqa: PLC0415
    from frameenrich.lifecycle.row_facts import counting_rows  # noqa: PLC0415
    from frameenrich.verbs.submit import submit_requests  # noqa: PLC0415

    if sending.cache is not None:
        raise ParameterError(
            "--cache is for rows, and these requests are sent as they are.",
            "Leave it out; marks for a cache can stand in the requests.",
        )
    there = None if target is None else target_of(target, reading, writing)
    # A pipe on both sides is fine; one file as both would be gone before it is read.
    if there is not None:
        check_other(source, there)
    note_resume_command(ctx, again=not sending.fresh)
    # As bytes: a request goes out as it was written, so nothing may decode it on the way.
    lines = sys.stdin.buffer if source == "-" else source
    options = {"name": name, **answering.kwargs(), **sending.kwargs(), "store": store}
    with with_timeout(writing):
        job = submit_requests(_first(lines, reading.limit), **options)
        if there is None:
            print_result({"job": job.id, "requests": job.requests}, job.id, as_json=as_json)
            return
        with counting_rows() as facts:
            answered = job.collect(wait=True, **writing.kwargs())
    write_frame(answered, there, safe=writing.safe_csv)
    totals = StatusCounts().add(answered, job.spec.name, facts)
    print_summary(job, totals, there, writing, as_json=as_json)


def _first(requests: Any, limit: int | None) -> Any:
    """Limit a file or stream of requests to its first ones; without a limit return it as it is."""
    return requests if limit is None else _first_lines(requests, limit)


def _first_lines(requests: Any, limit: int) -> Iterator[bytes]:
    from frameenrich.prepare.ready import open_requests  # noqa: PLC0415 - heavy

    with open_requests(requests) as ready:
        for request in islice(ready, limit):
            # The body is spliced in as bytes: it is encoded and checked already.
            about = {"custom_id": request.custom_id, "method": "POST", "url": request.endpoint}
            yield json.dumps(about).encode()[:-1] + b', "body": ' + request.body + b"}"


@flatten_options
def collect(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[JOB] IN OUT",
            help="The job, by id or name, by default the newest that was made for IN; the table "
            "that was submitted; where it goes with the answers' columns.",
            show_default=False,
        ),
    ],
    reading: StreamInputOptions,
    writing: CollectOptions,
    answering: AnswerOptions,
    spending: BudgetOptions,
    server: ServerOptions,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until every row has its answer or its reason.")
    ] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Write IN with the answers that came so far to OUT."""
    # One list of words: Typer cannot make the first of three arguments the optional one.
    if len(names) not in (2, 3):
        raise typer.BadParameter("give [JOB] IN OUT", ctx=ctx)
    *ids, source, target = names
    here, there = table_files_of(source, target, reading, writing)
    note_resume_command(ctx)
    with opened(here, reading) as table, with_timeout(writing):
        job = table.find_job(store, ids[0] if ids else None, server.client())
        # Whoever gives --timeout wants to wait.
        wait = wait or writing.waiting.timeout is not None
        reading_options = {**answering.kwargs(), **spending.kwargs()}
        write_answers(job, table, there, writing, reading_options, wait=wait, as_json=as_json)


@flatten_options
def status(own: JobOptions) -> None:
    """Show how far a job is; sends and downloads nothing."""
    own.show_status(own.open())


@flatten_options
def report(
    job: JobOrNewest = None,
    *,
    answering: AnswerOptions,
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
    # `report page.html` is what people try first, as other programs name their output so.
    if job is not None and job.lower().endswith((".html", ".htm")):
        raise ParameterError(
            f"{job} is the name of a file, not of a job.",
            f"To write the report there: --out {job}.",
        )
    found = job_of(job, store)
    path = found.report(out, rows=rows, **answering.kwargs())
    print_result({"job": found.id, "report": str(path)}, str(path), as_json=as_json)


@flatten_options
def regenerate(
    ctx: typer.Context,
    own: JobOptions,
    answering: AnswerOptions,
    spending: BudgetOptions,
    changes: RetryOptions,
    *,
    statuses: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only rows of this status, such as malformed; may be given again.",
        ),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Another provider for these rows; live is one call a request at the job's own "
            "server.",
            show_default="the job's own",
        ),
    ] = None,
    feedback: Annotated[
        bool,
        typer.Option(help="Whether the model is shown its malformed answer and what is wrong."),
    ] = True,
) -> None:
    """Ask again for the rows without a usable answer, as a new round of the same job."""
    note_resume_command(ctx)
    # Read again by the same labels or schema that `collect` had, or rows would be flagged for
    # another reason than the one that the user saw.
    again = own.open().regenerate(
        statuses=statuses or None,
        provider=provider,
        feedback=feedback,
        **changes.kwargs(),
        **answering.kwargs(),
        **spending.kwargs(),
    )
    if not again.last_round.startswith("0 "):  # a round of none was a warning already
        say(in_flags(again.last_round))
    own.show_status(again)


@flatten_options
def finish(
    ctx: typer.Context,
    own: JobOptions,
    spending: BudgetOptions,
    changes: RetryOptions,
    waiting: WaitOptions,
    *,
    provider: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where the rest goes: live is one call a request at the job's own server; or "
            "another provider, with --model.",
        ),
    ] = "live",
) -> None:
    """Finish a stuck job: cancel what runs, keep what came, and ask the rest elsewhere.

    The same command again goes on where it stopped, and asks nothing twice.
    """
    note_resume_command(ctx)
    options = {**changes.kwargs(), **vars(waiting), **spending.kwargs()}
    own.show_status(own.open().finish(provider, **options))


@flatten_options
def cancel(own: JobOptions) -> None:
    """Stop a job; the answers that came by then are kept and can be collected."""
    own.show_status(own.open().cancel())


@flatten_options
def give_up(
    own: JobOptions,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also batches of which nothing can be found out, and ended ones whose files "
            "cannot be had.",
        ),
    ] = False,
) -> None:
    """Wait no longer for batches that the provider has lost; regenerate asks their rows again.

    Lost are those of which the provider says that there are none, and those whose creation got no
    answer and that no list shows. Should one run all the same, its rows are paid twice.
    """
    own.show_status(own.open().give_up(force=force))


def import_responses(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[JOB] FILE...",
            help="The job's id or name, by default the newest; JSONL in the Batch API's output "
            "form.",
            show_default=False,
        ),
    ],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Take answers that came by other means: a web page, `vllm run-batch`."""
    found, responses = job_and_files(ctx, words, store)
    for path in responses:
        found.import_responses(path)
    show_status(found.status(), as_json=as_json)


def withdraw_import(
    job: JobOrNewest = None,
    *,
    file: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The file that was imported; by default the newest."),
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Take back answers that were imported, as if they had never come."""
    found = job_of(job, store).withdraw_import(file)
    show_status(found.status(), as_json=as_json)


@flatten_options
def refetch(own: JobOptions) -> None:
    """Bring answers back that were damaged or lost on disk, from the provider's files."""
    found = own.open()
    say(f"{found.refetch()} file(s) were damaged and are whole again.")
    own.show_status(found)
