"""A frame with its answers: of a whole job, or of a part, in any process that sees the store.

Only reads the store; asks no provider, and needs no `Job`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import pyarrow as pa

from frameenrich.budget import row_costs
from frameenrich.cost import with_costs
from frameenrich.errors import ColumnCollisionError
from frameenrich.gather import gather, match_frame, refuse_changed
from frameenrich.lines import count_shares, find_lines
from frameenrich.merge import answer_columns, details_wanted, with_columns
from frameenrich.output import Output
from frameenrich.prices import Prices
from frameenrich.store import JobFolder
from frameenrich.tally import Positions


def collect_part(
    folder: JobFolder,
    output: Output,
    frame: pd.DataFrame,
    part: int | None = None,
    *,
    prices: Prices,
    usage: bool = False,
    flatten: bool = False,
) -> pd.DataFrame:
    """Some of a job's rows with their answers, as far as these are on disk.

    In memory are the rows, their lines of the sidecar, and one chunk of responses.

    Parameters
    ----------
    folder, output : JobFolder, Output
        The job, and how its answers are read.
    frame : DataFrame
        Any rows. Those that the job never saw have ``<NA>`` in the new columns.
    part : int, optional
        The number of the part that they most likely are; else all of the sidecar is searched.
    prices : mapping
        What the job goes by (`frameenrich.budget.prices_of`).
    usage, flatten : bool
        As `Job.collect` takes them.

    Raises
    ------
    FrameMismatchError
        The rows changed under their keys, or lack the key or a column of the template.
    """
    lines = find_lines(folder, frame, part)
    match = refuse_changed(match_frame(frame, folder, lines), frame, folder)
    return with_answers(
        frame, match.positions, folder, output, prices, usage=usage, flatten=flatten, lines=lines
    )


def with_answers(
    frame: pd.DataFrame,
    positions: Positions,
    folder: JobFolder,
    output: Output,
    prices: Prices,
    *,
    usage: bool,
    flatten: bool,
    lines: pa.Table | None = None,
) -> pd.DataFrame:
    """A frame with the output columns of its rows.

    Parameters
    ----------
    frame : DataFrame
        The rows.
    positions : int64 array
        Where they are in the job's sidecar, or in `lines`; -1 for rows that the job never saw.
    folder, output, prices, usage, flatten
        As `collect_part` takes them.
    lines : Table, optional
        The lines of the sidecar that are wanted, where those are not all.
    """
    details = details_wanted(folder.spec, usage=usage)
    found = gather(folder, output, details=details, lines=lines)
    columns = answer_columns(
        found.tally,
        found.at(positions),
        positions >= 0,
        folder.spec,
        custom_ids=found.custom_ids if usage else None,
        flatten=flatten,
    )
    if usage:
        shares = None if lines is None else count_shares(folder, lines)
        costs = row_costs(folder, prices, found, positions, shares)
        columns = with_costs(columns, costs, folder.spec.name)
    refuse_collisions(frame, columns, folder.spec.name)
    return with_columns(frame, columns)


def refuse_collisions(frame: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Columns of an earlier collect are replaced; a frame without its status has none.

    Raises
    ------
    ColumnCollisionError
        The frame has got a column of its own where an answer would go.
    """
    taken = [column for column in columns if column in frame.columns]
    if taken and f"{name}_status" not in taken:
        raise ColumnCollisionError(
            f"The frame has a column {taken[0]!r}, which the answers would go to.",
            "Rename or drop that column; the answers are safe in the job.",
            columns=taken,
        )
