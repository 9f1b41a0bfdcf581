"""Check a frame before anything is rendered or sent."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from frameenrich.errors import FrameEnrichError, ImageError, InputError, warn_user
from frameenrich.identity.dedupe import ShortHashes, duplicates, is_in
from frameenrich.identity.keys import (
    cast_keys,
    check_keys,
    common_schema,
    key_digests,
    key_names,
    read_keys,
    show_key,
)
from frameenrich.model import JobSpec
from frameenrich.prepare.options import Plan
from frameenrich.prepare.writer import Part
from frameenrich.rendering.images import image_cells


def check_frame(frame: pd.DataFrame, plan: Plan) -> pa.Table:
    """Check a frame against a plan and read its keys.

    Raises
    ------
    InputError
        It is empty, its keys repeat or are null, it lacks a column of the template, or an answer
        would go to a column of the key.
    """
    if len(frame) == 0:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    # Both raise on a missing column, before the keys of a large frame are read.
    plan.prompt.columns_used(list(frame.columns))
    image_cells(frame, plan.spec)
    keys = read_keys(frame, plan.spec.key)
    names = key_names(frame, plan.spec.key)
    check_keys(keys, names)
    plan.columns.check(key=names)
    return keys


def check_any_request(parts: Sequence[Part]) -> None:
    """Refuse rows that would all be skipped.

    Raises
    ------
    InputError
        None of the parts has a request.
    """
    if any(part.requests for part in parts):
        return
    rows = sum(part.rows for part in parts)
    example = next((part.example for part in parts if part.example), None)
    if example is None:
        raise InputError(
            f"All {rows} rows would be skipped: each would print a null.",
            "Check the columns that the template uses, or pass on_null='empty'.",
        )
    raise InputError(
        f"All {rows} rows would be skipped, such as {example}.",
        "Check the column that image= names, and image_root=.",
    )


def warn_of_left_out(parts: Sequence[Part], name: str) -> None:
    """Warn of rows that are not sent since their images cannot be used; names the first."""
    left_out = sum(part.left_out for part in parts)
    if left_out:
        example = next(part.example for part in parts if part.example)
        rows, them = ("1 row is", "it") if left_out == 1 else (f"{left_out:,} rows are", "them")
        warn_user(
            f"{rows} not sent (on_bad_image='skip'), {'' if left_out == 1 else 'such as '}"
            f"{example}. collect gives {them} the status 'skipped', and the reason in "
            f"'{name}_error'."
        )


def warn_of_sizes(sized: int, spec: JobSpec) -> None:
    """Warn of images that were made smaller to what the model looks at, if there are any."""
    if sized:
        what = "1 image was" if sized == 1 else f"{sized:,} images were"
        warn_user(
            f"{what} made smaller, to a longest side of {spec.image_side:,} pixels, which is what "
            f"{spec.model} looks at. Pass image_max_pixels=None to send images as they are."
        )


class PartKeys:
    """Check that keys name the rows of a whole frame, of which no more than a part is held.

    Eight bytes a key stay; whole keys are compared only where those agree.
    """

    def __init__(self, key: Sequence[Any] | None) -> None:
        self._key = key
        self._digests: list[ShortHashes] = []

    def read(self, frame: pd.DataFrame) -> pa.Table:
        """Return the keys of a part's rows, none of which may be null or repeat."""
        keys, names = read_keys(frame, self._key), key_names(frame, self._key)
        check_keys(keys, names)
        return keys

    def add(self, keys: pa.Table) -> None:
        """Note the keys of a part."""
        self._digests.append(key_digests(keys))

    def check(self, frames: Callable[[], Iterable[pd.DataFrame]]) -> None:
        """Refuse a key that two parts have; `frames` yields them anew.

        Raises
        ------
        RowKeyError
            There is one.
        """
        if len(self._digests) < 2:  # noqa: PLR2004 - no second part
            return
        digests = np.concatenate(self._digests)
        digests.sort()
        suspect = duplicates(digests)
        if not len(suspect):
            return
        found, names = [], list[str]()
        for frame in frames():
            keys, names = read_keys(frame, self._key), key_names(frame, self._key)
            found.append(keys.filter(pa.array(is_in(suspect, key_digests(keys)))))
        # A part may have other types than the next, as JSON lines of which some name a row "1".
        schema = common_schema([keys.schema for keys in found])
        check_keys(pa.concat_tables([cast_keys(keys, schema) for keys in found]), names)


@contextlib.contextmanager
def in_whole_frame(start: int) -> Iterator[None]:
    """Make errors about a part's rows speak of their positions in the whole frame."""
    with _moved(lambda position: start + position):
        yield


@contextlib.contextmanager
def at_positions(positions: Sequence[int] | npt.NDArray[np.int64]) -> Iterator[None]:
    """Make errors about picked rows speak of their positions in the whole frame."""
    with _moved(lambda position: int(positions[position])):
        yield


@contextlib.contextmanager
def _moved(whole: Callable[[int], int]) -> Iterator[None]:
    try:
        yield
    except FrameEnrichError as error:
        if (position := error.position) is not None:
            error.position = whole(position)
            own = re.compile(rf"at position {position}\b")
            error.problem = own.sub(f"at position {error.position}", error.problem)
            error.args = (error.problem, error.fix)
        raise


_NAMED = 20
"""The most further rows that a message names."""


@contextlib.contextmanager
def errors_by_row_key(keys: pa.Table) -> Iterator[None]:
    """Name rows by their key, not by their position, in errors raised inside."""
    try:
        yield
    except FrameEnrichError as error:
        if (position := error.position) is not None:
            shown = show_key(keys, position)
            error.row = shown
            error.problem = error.problem.replace(
                f"the row at position {position}", f"row {shown}"
            ).replace(f"The row at position {position}", f"Row {shown}")
            also = error.also if isinstance(error, ImageError) else ()
            if also:
                some = ", ".join(show_key(keys, row) for row in also[:_NAMED])
                more = ", ..." if len(also) > _NAMED else ""
                rows = "So has 1 more row" if len(also) == 1 else f"So have {len(also):,} more rows"
                error.problem += f" {rows}: {some}{more}."
            # `args` still hold the old words.
            error.args = (error.problem, error.fix)
        raise
