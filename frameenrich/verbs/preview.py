"""Show the first requests of a frame, or of one that comes in parts, and who would print a null."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, Unpack

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.errors import FrameEnrichError, NullValueError, ParameterError
from frameenrich.identity.keys import show_key
from frameenrich.prepare.check_frame import PartKeys, check_frame, in_whole_frame, warn_of_sizes
from frameenrich.prepare.examples import with_rows
from frameenrich.prepare.options import Plan, make_plan
from frameenrich.prepare.submit_options import Options, SubmitOptions
from frameenrich.prepare.whole_frame import preview_bodies
from frameenrich.rendering.prompt import prompt_of
from frameenrich.rendering.readable import Preview
from frameenrich.rendering.template_source import Template
from frameenrich.verbs.before_paying import provider_url


def preview(
    frame: pd.DataFrame,
    template: Template,
    model: str,
    *,
    n: int = 3,
    **options: Unpack[SubmitOptions],
) -> Preview:
    """Return the first requests as they would be sent; see ``df.llmbatch.preview``."""
    own = with_rows(Options(**options), frame)
    return _preview(lambda: [frame], list(frame.columns), template, model, n, own)


def preview_parts(
    frames: Callable[[], Iterable[pd.DataFrame]],
    columns: Sequence[Any],
    template: Template,
    model: str,
    *,
    n: int = 3,
    **options: Unpack[SubmitOptions],
) -> Preview:
    """Preview as `preview` does, for a frame that comes in parts.

    Parameters
    ----------
    frames : callable
        Yields the parts, from the first on; no more than one is held.
    columns : sequence
        The frame's columns.
    template, model, n, **options
        As ``df.llmbatch.preview`` takes them.
    """
    return _preview(frames, columns, template, model, n, Options(**options))


def _preview(
    frames: Callable[[], Iterable[pd.DataFrame]],
    columns: Sequence[Any],
    template: Template,
    model: str,
    n: int,
    options: Options,
) -> Preview:
    if n < 1:
        raise ParameterError(f"n={n} asks for no row.", "Give 1 or more.")
    plan = _plan(template, model, options)
    slow = plan.prompt.why_slow(list(columns))
    made = _Made(plan, list(columns), n)
    for frame in frames():
        with in_whole_frame(made.rows):
            made.add(frame)
    made.keys.check(frames)
    plan.check_uses_rows(list(columns), made.rows)
    nulls = made.nulls.text()
    if made.refused is not None:
        error = made.refused
        # A null that is in no column, such as one inside of an object, is counted nowhere.
        in_all = "" if nulls is None else f" In all, {nulls}."
        raise NullValueError(error.problem + in_all, error.fix) from None
    warn_of_sizes(made.sized, plan.spec)
    found = None if nulls is None else f"{nulls}, which {_FATE_OF_NULLS[plan.spec.on_null]}"
    return Preview(tuple(made.bodies), tuple(plan.columns.added), slow, found)


def _plan(template: Template, model: str, options: Options) -> Plan:
    plan = make_plan(template, model, options)
    if plan.output.spec.schema is None:
        return plan
    # How an answer's form is asked for is the server's to say.
    try:
        where = provider_url(options.provider, options.client, model, options.endpoint)
    except FrameEnrichError:  # a preview needs no provider that works
        return plan.sent_to(str(options.provider), options.endpoint)
    return plan.sent_to(*where)


_FATE_OF_NULLS = {
    "raise": "submit refuses: pass on_null='empty' or 'skip', or write {{ column or 'unknown' }}",
    "skip": "are not sent (on_null='skip')",
    "empty": "are sent with nothing there (on_null='empty')",
}


_SHOWN_ROWS = 5


@dataclass
class _Nulls:
    """The rows that would print a null: how many, the first of them, and in which columns."""

    rows: int = 0
    shown: list[str] = field(default_factory=list)
    columns: dict[Any, int] = field(default_factory=dict)

    def add(self, frame: pd.DataFrame, plan: Plan, keys: pa.Table) -> Self:
        """Count those of some rows."""
        # With "skip" a row that would print a null renders to None and can be counted.
        prompt = prompt_of(replace(plan.spec, on_null="skip"))
        texts = prompt.render(frame, lenient=True)
        rows = np.flatnonzero([text is None for chunk in texts for text in chunk])
        more = rows[: 1 + _SHOWN_ROWS - len(self.shown)].tolist()
        self.shown += [show_key(keys, row) for row in more]
        self.rows += len(rows)
        for name in prompt.columns_used(list(frame.columns)):
            count = int(frame[name].iloc[rows].isna().sum())
            self.columns[name] = self.columns.get(name, 0) + count
        return self

    def text(self) -> str | None:
        """Name the rows and the columns; None where there are none."""
        where = ", ".join(f"{name!r} is empty in {n:,}" for name, n in self.columns.items() if n)
        if not self.rows or not where:
            return None
        shown = ", ".join(self.shown[:_SHOWN_ROWS])
        more = ", ..." if self.rows > _SHOWN_ROWS else ""
        what = "row would print a null" if self.rows == 1 else "rows would print a null"
        return f"{self.rows:,} {what}: {shown}{more} ({where})"


@dataclass
class _Made:
    """What was made of the parts so far."""

    plan: Plan
    columns: list[Any]
    n: int
    rows: int = 0
    sized: int = 0
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    nulls: _Nulls = field(default_factory=_Nulls)
    refused: NullValueError | None = None

    def __post_init__(self) -> None:
        self.keys = PartKeys(self.plan.spec.key)

    def add(self, frame: pd.DataFrame) -> None:
        """Check a part, render its share of the first rows, and count its nulls."""
        keys = check_frame(frame, self.plan)
        self.keys.add(keys)
        left = max(self.n - self.rows, 0)
        if left and self.refused is None:
            self.plan.check_uses_rows(self.columns, self.rows + len(frame))
            try:
                bodies, sized = preview_bodies(frame.iloc[:left], keys, self.plan)
            except NullValueError as error:  # said with the nulls of all rows
                self.refused = error
            else:
                self.bodies += bodies
                self.sized += sized
        self.nulls.add(frame, self.plan, keys)
        self.rows += len(frame)
