"""Commands to use before paying: ``preview``, ``estimate`` and ``pilot``."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

import typer

from frameenrich.cli.commands.shared import Source, files_of, opened
from frameenrich.cli.option_groups import flatten_options
from frameenrich.cli.options import (
    AsJson,
    ProviderOptions,
    Store,
    StreamInputOptions,
)
from frameenrich.cli.phrases import in_flags
from frameenrich.cli.request_options import RequestOptions
from frameenrich.cli.terminal import as_line, print_rows, print_text, say


@flatten_options
def preview(
    source: Source,
    asking: RequestOptions,
    reading: StreamInputOptions,
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show the first requests as they would be sent; sends and writes nothing."""
    with opened(files_of(source, reading), reading) as table:
        shown = table.preview(n=n, **asking.kwargs())
    if as_json:
        bodies = [{"key": key, "body": body} for key, body in shown.requests]
        typer.echo(as_line({"requests": bodies, "columns": shown.columns}))
    else:
        nulls_in_flags = None if shown.nulls is None else in_flags(shown.nulls)
        print_text(str(replace(shown, nulls=nulls_in_flags)))


@flatten_options
def estimate(
    source: Source,
    asking: RequestOptions,
    sending: ProviderOptions,
    reading: StreamInputOptions,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Count requests and tokens, and show what they cost; sends and writes nothing."""
    with opened(files_of(source, reading), reading) as table:
        found = table.estimate(**asking.kwargs(), **sending.kwargs(), store=store)
    if as_json:
        typer.echo(as_line(found.as_dict()))
        return
    print_rows(["estimate", ""], found.cells(), file=sys.stdout)
    for note in found.notes:
        say(f"note: {in_flags(note)}")


@flatten_options
def pilot(
    source: Source,
    asking: RequestOptions,
    sending: ProviderOptions,
    reading: StreamInputOptions,
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Another number picks other rows.")] = 0,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Have a few rows of IN answered now, and show them; run and submit reuse the answers."""
    with opened(files_of(source, reading), reading) as table:
        options = {**asking.kwargs(), **sending.kwargs()}
        answers = table.pilot(n=n, seed=seed, store=store, **options)
    answers = answers.reset_index(names="row", drop=asking.prompt.key is not None)
    if as_json:
        typer.echo(answers.to_json(orient="records", force_ascii=False))
        return
    shown = answers.dropna(axis="columns", how="all").astype("string").fillna("")
    print_rows(list(shown.columns), shown.itertuples(index=False), file=sys.stdout)
