"""Commands for a whole job in one go: ``run``, ``embed`` and ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from frameenrich.cli.commands.shared import (
    RESUME,
    Source,
    Target,
    collect_command,
    note_resume_command,
    opened,
    send,
    table_files_of,
    with_timeout,
    write_answers,
    write_nothing,
)
from frameenrich.cli.option_groups import flatten_options
from frameenrich.cli.options import (
    AsJson,
    CollectOptions,
    ProviderOptions,
    Store,
    StreamInputOptions,
)
from frameenrich.cli.request_options import Embedding, RequestOptions
from frameenrich.errors import ParameterError


@flatten_options
def run(
    ctx: typer.Context,
    source: Source,
    target: Target,
    asking: RequestOptions,
    sending: ProviderOptions,
    reading: StreamInputOptions,
    writing: CollectOptions,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Ask for every row of IN, wait, and write IN with the answers' columns to OUT.

    The same command again goes on where it stopped, and pays for nothing twice.
    """
    _run(ctx, asking, sending, reading, writing, source, target, store, as_json=as_json)


@flatten_options
def embed(
    ctx: typer.Context,
    source: Source,
    target: Target,
    embedding: Embedding,
    sending: ProviderOptions,
    reading: StreamInputOptions,
    writing: CollectOptions,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Ask for an embedding of every row of IN, wait, and write IN with the vectors to OUT.

    Parquet gets lists of float32, JSON Lines arrays, CSV their JSON text.
    """
    _run(ctx, embedding, sending, reading, writing, source, target, store, as_json=as_json)


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
    from frameenrich.cli.demo import run  # noqa: PLC0415 - heavy

    run(rows, store)


def _run(
    ctx: typer.Context,
    asking: RequestOptions | Embedding,
    sending: ProviderOptions,
    reading: StreamInputOptions,
    writing: CollectOptions,
    source: str,
    target: str,
    store: str | None,
    *,
    as_json: bool,
) -> None:
    """Submit, wait, collect, write."""
    if sending.provider == "file":
        raise ParameterError(
            "The command run waits for answers, and --provider file sends nothing.",
            "Use submit, then import, then collect.",
        )
    here, there = table_files_of(source, target, reading, writing)
    note_resume_command(ctx, again=not sending.fresh)

    def can_collect(job_id: str | None) -> None:
        # Another run --fresh would pay again, so from here on the way to go on is collect.
        if sending.fresh and job_id is not None:
            ctx.meta[RESUME] = collect_command(
                job_id, (source, target), asking, sending, reading, writing, store, as_json=as_json
            )

    from frameenrich.cli.tables.read import NoRowsError  # noqa: PLC0415 - heavy

    try:
        table = opened(here, reading)
    except NoRowsError as nothing:
        write_nothing(nothing, asking, sending, there, writing, as_json=as_json)
        return
    with table, with_timeout(writing):
        try:
            job = send(table, asking, sending, store)
        except BaseException as error:  # Ctrl-C, too: what was sent runs on and is paid
            can_collect(getattr(error, "job_id", None))
            raise
        can_collect(job.id)
        write_answers(job, table, there, writing, wait=True, as_json=as_json)
