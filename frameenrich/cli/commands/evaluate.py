"""Commands on accuracy: ``evaluate``, ``second-opinion`` and ``compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from frameenrich.cli.commands.shared import JobId, JobOrNewest, job_of, read
from frameenrich.cli.option_groups import flatten_options
from frameenrich.cli.options import AsJson, BudgetOptions, Store, TableInputOptions
from frameenrich.cli.terminal import print_result
from frameenrich.cli.values import read_params


@flatten_options
def evaluate(
    job: JobOrNewest = None,
    *,
    reading: TableInputOptions,
    truth: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[FIELD=]COLUMN",
            help="The column of --in with the truth; may be given again, for each field.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="How far a number may be from its truth.")
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

    # A truth column is of a table: without the file there is nothing to compare with, and a file
    # without a column would be read for nothing.
    if (not truth) != (source is None):
        raise ParameterError(
            "--truth and --in go together.", "Give both: --truth COLUMN --in FILE, or neither."
        )
    found = job_of(job, store)
    if source is None:
        made = found.evaluate(review=review)
    else:
        with read(source, reading) as table:
            made = found.evaluate(
                table.frame, truth=_truth_of(truth or []), tolerance=tolerance, review=review
            )
    print_result(made.to_dict(), "\n".join([str(made), *made.notes]), as_json=as_json)


def _truth_of(columns: list[str]) -> str | dict[str, str]:
    """Return the argument ``truth=``: a column, or the column of each field."""
    # `--truth department` is what most people need; FIELD=COLUMN only where a job has several
    # fields.
    pairs = [column.partition("=") for column in columns]
    if len(pairs) == 1 and not pairs[0][1]:
        return columns[0]
    return {field: column or field for field, _, column in pairs}


def compare(job: JobId, other: JobId, store: Store = None, as_json: AsJson = False) -> None:
    """Say where two jobs over the same rows agree, and what each cost."""
    from frameenrich.verbs.find import open_job  # noqa: PLC0415 - heavy

    made = open_job(job, store).compare(open_job(other, store))
    print_result(made.to_dict(), str(made), as_json=as_json)


@flatten_options
def second_opinion(
    job: JobId,
    spending: BudgetOptions,
    *,
    model: Annotated[str, typer.Option("--model", "-m", help="The other model's name.")],
    provider: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where it is; by default where the job went."),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(min=1, help="How many usable rows, drawn at random; by default all rows."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another number draws other rows.")] = 0,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A request parameter to change."),
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Ask another model about a job's rows, and print the new job's id; then `compare` the two."""
    from frameenrich.verbs.find import open_job  # noqa: PLC0415 - heavy

    made = open_job(job, store).second_opinion(
        model, provider, n, seed=seed, params=read_params(param), **spending.kwargs()
    )
    print_result({"job": made.id, "requests": made.requests}, made.id, as_json=as_json)
