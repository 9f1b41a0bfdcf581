"""Check a frame before anything is rendered or sent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa

from frameenrich.errors import FrameEnrichError, InputError
from frameenrich.identity.keys import check_keys, key_names, read_keys, show_key
from frameenrich.prepare.options import Plan
from frameenrich.rendering.images import image_cells


def check_frame(frame: pd.DataFrame, plan: Plan) -> pa.Table:
    """Check a frame against a plan and read its keys.

    Raises
    ------
    InputError
        It is empty, its keys repeat or are null, the template needs a column it lacks, or an
        answer would go to a column that is called as the key.
    """
    if len(frame) == 0:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    plan.prompt.columns_used(list(frame.columns))
    image_cells(frame, plan.spec)
    keys = read_keys(frame, plan.spec.key)
    names = key_names(frame, plan.spec.key)
    check_keys(keys, names)
    plan.columns.check(key=names)
    return keys


_NAMED = 20
"""How many further rows a message names."""


@contextlib.contextmanager
def errors_by_row_key(keys: pa.Table) -> Iterator[None]:
    """Make errors that know a row's position call the row by its key."""
    try:
        yield
    except FrameEnrichError as error:
        position = getattr(error, "position", None)
        if position is not None:
            shown = show_key(keys, position)
            vars(error)["row"] = shown
            error.problem = error.problem.replace(
                f"the row at position {position}", f"row {shown}"
            ).replace(f"The row at position {position}", f"Row {shown}")
            also = getattr(error, "also", ())
            if also:
                some = ", ".join(show_key(keys, row) for row in also[:_NAMED])
                more = ", ..." if len(also) > _NAMED else ""
                error.problem += f" So have {len(also):,} more rows: {some}{more}."
            error.args = (error.problem, error.fix)
        raise
