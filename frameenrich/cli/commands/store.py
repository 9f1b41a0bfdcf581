"""Commands on the store: ``jobs`` and ``clean``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frameenrich.cli.commands.shared import as_records
from frameenrich.cli.options import AsJson, Store
from frameenrich.cli.terminal import print_rows, say
from frameenrich.errors import ParameterError
from frameenrich.pricing.money import show_usd
from frameenrich.text import age_text, size_text

if TYPE_CHECKING:
    import pandas as pd


def jobs(store: Store = None, as_json: AsJson = False) -> None:
    """List the jobs of the store, the newest first: rows, cost, age, size, first words asked."""
    from frameenrich.verbs.list_jobs import jobs as list_jobs  # noqa: PLC0415 - heavy

    table = list_jobs(store)
    if as_json:
        typer.echo(as_records(table))
        return
    heads = ["job", "prompt", "model", "provider", "rows", "ok", "flagged", "cost", "age", "size"]
    rows = [
        _cells(job) for job in table.astype(object).where(table.notna(), None).to_dict("records")
    ]
    print_rows([*heads, "batches"], rows, file=sys.stdout)


def _cells(job: Mapping[Any, Any]) -> list[str]:
    """Format a job as cells; unknown values are empty."""
    counts = ["" if job[name] is None else f"{job[name]:,}" for name in ("rows", "ok", "flagged")]
    cost = "" if job["usd"] is None else show_usd(job["usd"])
    batches = _batch_words(job["batches"], job["rounds"])
    batches_in_words = f"pilot, {batches}" if job["pilot"] else batches
    words = [job[name] for name in ("job", "prompt", "model", "provider")]
    return [
        word or "" for word in [*words, *counts, cost, job["age"], job["size"], batches_in_words]
    ]


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
    from frameenrich.verbs.clean import clean as delete  # noqa: PLC0415 - heavy

    options: dict[str, Any] = {"store": store, "remote": remote, "force": force}
    # Always dry first: the question has to name what goes.
    found = delete(older_than, **options, dry_run=True)
    going = int(found["reason"].isna().sum())
    asks = going > 0 and not dry_run and not yes
    if asks:
        _show_cleaned(found, file=sys.stderr)
        _confirm(f"Delete {going:,} of these?")
    if not dry_run:
        found = delete(older_than, **options)
    gone = found["deleted"]
    if as_json:
        typer.echo(as_records(found))
    elif len(found) and not (asks and gone.sum() == going):
        _show_cleaned(found, file=sys.stdout)
    say(f"{gone.sum():,} deleted, {size_text(found.loc[gone, 'bytes'].sum())}.")


def _batch_words(statuses: str, rounds: Any) -> str:
    """Sum up statuses, such as "completed" or "3 completed, 1 in_progress in 2 rounds"."""
    # A job of a million rows has dozens of batches: their statuses are counted, not listed.
    counts = Counter(statuses.split(", "))
    batches_in_words = ", ".join(f"{n} {status}" for status, n in counts.items())
    if len(counts) == counts.total() == 1:
        return statuses
    return batches_in_words if rounds == 1 else f"{batches_in_words} in {rounds} rounds"


def _values(column: pd.Series) -> list[Any]:
    return column.astype(object).where(column.notna(), None).tolist()


def _show_cleaned(found: pd.DataFrame, *, file: Any) -> None:
    actions = [
        reason or ("deleted" if gone else "would be deleted")
        for reason, gone in zip(_values(found["reason"]), found["deleted"], strict=True)
    ]
    sizes, names = found["bytes"].map(size_text), found["name"].map(os.path.basename)
    now = datetime.now(tz=UTC)
    moments = _values(found["changed"])
    ages = ["" if m is None else age_text((now - m).total_seconds()) for m in moments]
    rows = zip(names, found["what"], ages, sizes, actions, strict=True)
    print_rows(["name", "what", "changed", "size", "fate"], rows, file=file)


def _confirm(question: str) -> None:
    """Ask for confirmation on a terminal; refuse where there is none."""
    if not sys.stdin.isatty():
        raise ParameterError(
            "Deleting needs a confirmation, and there is no terminal to ask in.",
            "Add --yes, or --dry-run to see what would be deleted.",
        )
    if not typer.confirm(question, err=True):
        raise typer.Exit
