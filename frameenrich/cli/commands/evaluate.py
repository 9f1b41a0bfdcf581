"""How right a job is, and how two differ: ``evaluate`` and ``compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from frameenrich.cli.commands.shared import JobId, JobOrNewest, job_of
from frameenrich.cli.options import AsJson, Store
from frameenrich.cli.terminal import as_line


def evaluate(
    job: JobOrNewest = None,
    truth: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of --in with the truth.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--in", metavar="FILE", help="The table that has the truth.")
    ] = None,
    review: Annotated[
        str | None, typer.Option(metavar="REVIEW", help="Which review; by default the newest.")
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Say how right a job's answers are, by a review or by a column with the truth."""
    from frameenrich.errors import ParameterError  # noqa: PLC0415 - heavy

    if (truth is None) != (source is None):
        raise ParameterError(
            "--truth and --in go together.", "Give both: --truth COLUMN --in FILE, or neither."
        )
    found = job_of(job, store)
    if source is None:
        made = found.evaluate(review=review)
    else:
        from frameenrich.cli.values import read_rows  # noqa: PLC0415

        made = found.evaluate(read_rows(source), truth=truth, review=review)
    typer.echo(as_line(made.to_dict()) if as_json else "\n".join([str(made), *made.notes]))


def compare(job: JobId, other: JobId, store: Store = None, as_json: AsJson = False) -> None:
    """Say where two jobs over the same rows agree, and what each cost."""
    from frameenrich.verbs.find import open_job  # noqa: PLC0415 - heavy

    made = open_job(job, store).compare(open_job(other, store))
    typer.echo(as_line(made.to_dict()) if as_json else str(made))
