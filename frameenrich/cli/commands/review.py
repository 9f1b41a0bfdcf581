"""Commands for reviews by people: ``review`` and ``add-review``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frameenrich.cli.commands.shared import job_and_files, job_of
from frameenrich.cli.options import AsJson, Store
from frameenrich.cli.terminal import print_result, say

if TYPE_CHECKING:
    from frameenrich.evaluation.review import Review


def review(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[JOB] OUT",
            help="The job's id or name, by default the newest; the page (.html), or a sheet to "
            "fill in (.csv).",
            show_default=False,
        ),
    ],
    n: Annotated[int, typer.Option("--n", min=1, help="How many rows.")] = 100,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD",
            help="Draw at least ten of each answer to this field; 'answer' is the only field.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another number is another, independent draw.")] = 0,
    extend: Annotated[
        str | None,
        typer.Option(metavar="REVIEW", help="Draw N more rows for this review."),
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Draw rows of a job for people to judge, and write the page to judge them on."""
    from frameenrich.errors import ParameterError  # noqa: PLC0415 - heavy

    if len(words) > 2:  # noqa: PLR2004 - a job and a file
        raise typer.BadParameter("give [JOB] OUT", ctx=ctx)
    *named, last = words
    out = Path(last)
    ending = out.suffix.lower()
    if ending not in (".html", ".htm", ".csv"):
        raise ParameterError(
            f"{out} ends neither in .html nor in .csv.",
            "Name the page review.html, or the sheet review.csv.",
        )
    job = job_of(named[0] if named else None, store)
    drawn = job.review(n=n, by=by, seed=seed, extend=extend)
    path = drawn.to_csv(out) if ending == ".csv" else drawn.page(out)
    print_result({**_facts(drawn), "path": str(path)}, str(path), as_json=as_json)
    if as_json:
        return
    way = "Fill it in" if ending == ".csv" else "Open it, judge, Save"
    say(
        f"Review {drawn.id}: {len(drawn):,} rows. {way}, then: frameenrich add-review {job.id} FILE"
    )


def add_review(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[JOB] FILE...",
            help="The job's id or name, by default the newest; sheets of its reviews, as CSV.",
            show_default=False,
        ),
    ],
    reviewer: Annotated[str, typer.Option(help="Who judged, where the sheet does not say.")] = "",
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Take filled-in sheets of a job's reviews; rows are found by their key."""
    found, sheets = job_and_files(ctx, words, store)
    for path in sheets:
        drawn = found.add_review(os.fspath(path), reviewer)
        print_result(_facts(drawn), f"{path}: {drawn.progress}", as_json=as_json)
        for note in [] if as_json else drawn.notes:
            say(f"{note}.")


def _facts(review: Review) -> dict[str, object]:
    return {
        "job": review.record.job,
        "review": review.id,
        "rows": len(review),
        "reviewed": review.reviewed,
        "notes": review.notes,
    }
