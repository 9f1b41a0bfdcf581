"""Before paying: ``preview``, ``estimate`` and ``pilot``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from frameenrich.commands.shared import Source, opened, read
from frameenrich.options import AsJson, Asking, Reading, Sending, Store, Streaming
from frameenrich.spread import spread
from frameenrich.terminal import as_line, print_rows, printable, say


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

    with read(source, reading) as table:
        shown = show(table.frame, n=n, **asking.wishes())
    if as_json:
        bodies = [{"key": key, "body": body} for key, body in shown.requests]
        typer.echo(as_line({"requests": bodies, "columns": shown.columns}))
    else:
        typer.echo(printable(str(shown)))


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

    with opened(locate_all(source, reading.format), reading) as table:
        found = table.estimate(**asking.wishes(), **sending.wishes(), store=store)
    if as_json:
        typer.echo(as_line(found.as_dict()))
        return
    print_rows(["estimate", ""], found.cells(), file=sys.stdout)
    for note in found.notes:
        say(f"note: {note}")


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

    with read(source, reading) as table:
        wishes = {**asking.wishes(), **sending.wishes()}
        answers = ask(table.frame, n=n, seed=seed, store=store, **wishes)
    answers = answers.reset_index(names="row", drop=asking.subject.key is not None)
    if as_json:
        typer.echo(answers.to_json(orient="records", force_ascii=False))
        return
    shown = answers.dropna(axis="columns", how="all").astype("string").fillna("")
    print_rows(list(shown.columns), shown.itertuples(index=False), file=sys.stdout)
