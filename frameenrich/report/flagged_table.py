"""Flagged rows as a styled table: the raw answer, with the faulty part marked."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup, escape

from frameenrich.model import STATUS_ORDER
from frameenrich.report.card import COLORS
from frameenrich.report.locate_error import locate_error
from frameenrich.text import NO_MATH

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler


_MAX_CHARACTERS = 1_200


_AROUND = 300


_MARK = "background:rgba(210,63,63,.28);color:inherit;outline:1px solid #d23f3f"


_CELL = {"text-align": "left", "vertical-align": "top"}


_HEAD: Any = [{"selector": "th, caption", "props": [("text-align", "left")]}]


_ANSWER = (
    "white-space:pre-wrap;overflow-wrap:anywhere;max-width:60ch;min-width:18ch;display:inline-block"
)


def styled(flagged: pd.DataFrame, rows: int, name: str) -> Styler:
    """Style the frame of `Job.flagged` for reading.

    Parameters
    ----------
    flagged : DataFrame
        As `Job.flagged` gives it.
    rows : int
        How many are shown.
    name : str
        The job's name, for the caption.
    """
    # Before the sort, which turns a RangeIndex into plain numbers.
    nameless = isinstance(flagged.index, pd.RangeIndex)
    shown = flagged.sort_values("status", key=_order, kind="stable").iloc[:rows]
    shown = shown.astype({"raw": object, "prompt": object})
    names = list(shown.columns)
    first = [*names[: names.index("status") + 1], "prompt"]  # as one reads
    shown = shown[[*first, *(name for name in names if name not in first)]]
    if not shown.index.is_unique:  # a Styler needs names of its own; the frame's own may repeat
        shown = shown.reset_index(drop=True)
    shown = shown.rename(columns=_plain).rename_axis(index=_plain)  # a Styler escapes no names
    pairs = zip(shown["raw"], shown["error"], strict=True)
    shown["raw"] = [_answer(raw, error) for raw, error in pairs]
    shown["prompt"] = [_prompt(text) for text in shown["prompt"]]
    shown["history"] = [_history(attempts) for attempts in shown["history"]]
    if not shown["history"].any():  # an empty column would only take width
        shown = shown.drop(columns="history")
    ours: list[Hashable] = [name for name in ("raw", "prompt", "history") if name in shown]
    style = shown.style.format(escape="html", na_rep="")
    style = style.format(str, subset=ours)  # ours, escaped already
    style = style.format_index(escape="html")
    style = style.map(_colored, subset=["status"])
    style = style.set_properties(subset=None, **_CELL).set_table_styles(_HEAD)
    style = style.set_properties(subset=["error"], **{"min-width": "22ch"})
    style = style.set_table_attributes(f'class="{NO_MATH}"')
    caption = f"{name}: {len(flagged):,} flagged row{'' if len(flagged) == 1 else 's'}"
    if len(flagged) > rows:
        caption = f"{name}: the first {rows:,} of {len(flagged):,} flagged rows"
    style = style.set_caption(str(escape(caption)))
    return style.hide() if nameless else style


def _order(statuses: pd.Series) -> pd.Series:
    """Order statuses as a report does: rows with an answer to read come first."""
    return statuses.map({str(status): position for position, status in enumerate(STATUS_ORDER)})


def _plain(name: Any) -> str | None:
    return None if name is None else str(escape(name))


def _colored(status: Any) -> str:
    # A mark beside the word, whose own colour is the notebook's: no one colour has enough contrast
    # on both a white and a dark page.
    return f"box-shadow:inset 4px 0 {COLORS.get(status, '#888')};padding-left:10px;font-weight:600"


def _answer(raw: Any, error: Any) -> Markup:
    """Format the raw answer as markup; a long one is cut to the text around the error."""
    if pd.isna(raw):
        return Markup()
    found = None if pd.isna(error) else locate_error(raw, error)
    start, end = found or (0, 0)
    first = max(start - _AROUND, 0) if len(raw) > _MAX_CHARACTERS else 0
    last = first + _MAX_CHARACTERS
    marked = Markup('<mark style="{}">{}</mark>').format(_MARK, raw[start:end][:_MAX_CHARACTERS])
    return Markup('<span style="{}" dir="auto">{}{}{}{}{}</span>').format(
        _ANSWER,
        "..." if first else "",
        raw[first:start],
        marked if found else "",
        raw[end:last],
        "..." if len(raw) > last else "",
    )


def _prompt(text: Any) -> Markup:
    """Format the prompt as markup, a long one without its end."""
    if pd.isna(text):
        return Markup()
    more = "..." if len(text) > _AROUND else ""
    return Markup('<span style="{}" dir="auto">{}{}</span>').format(_ANSWER, text[:_AROUND], more)


def _history(attempts: Sequence[Mapping[str, Any]]) -> Markup:
    lines = [
        f"{a['attempt']}: {a['status']}" + (f", then {a['then']}" if a["then"] else "")
        for a in attempts
    ]
    return Markup("<br>").join(map(escape, lines))
