"""A job's rows as one HTML page that needs nothing but itself.

Pure: what is to be shown goes in, the page's text comes out. The page is Jinja2 with everything
escaped; rows are JSON that its script turns into text nodes. Its content security policy lets no
other script run and nothing be fetched.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from frameenrich.evaluation.page import asset, page_template, script_hash
from frameenrich.model import FLAGGED, STATUS_ORDER
from frameenrich.rendering.readable import Prompt
from frameenrich.report.charts import Chart, short
from frameenrich.report.checked import COVERAGE, Check, Drawn
from frameenrich.report.locate_error import locate_error
from frameenrich.report.rightness import Right
from frameenrich.text import script_json, shortened

_MAX_CHARACTERS = 40_000_000
"""Browsers open a page of this size without delay; texts are cut to stay below it."""


# Lengths to try for each text, longest first: short texts stay whole while long ones are cut.
_CAPS = (200_000, 50_000, 10_000, 2_000, 500)


_MAX_REASONS = 8


_MIN_SHARED = 12


_EXACT = 2**53
"""JavaScript has floats only, which cannot hold every whole number beyond this."""


@dataclass(frozen=True)
class Column:
    """An output column; ``kind`` is ``number``, ``bool``, ``text`` or ``json``."""

    name: str
    kind: str


@dataclass(frozen=True)
class Row:
    """One row of the page; its texts are not escaped yet.

    ``values`` has one for each `Column` (JSON text for the kind ``json``), or is None for a row
    without an answer. ``images`` are pairs of ``src`` (a ``data:`` URL), ``url`` or ``note`` and
    its text. ``history`` has the earlier attempts, as `Job.flagged` gives them.
    """

    key: str
    status: str
    values: tuple[Any, ...] | None = None
    error: str | None = None
    raw: str | None = None
    prompt: Prompt | None = None
    images: tuple[tuple[str, str], ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    attempt: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    score: float | None = None
    verdicts: tuple[str, ...] = ()
    model: str | None = None
    finish_reason: str | None = None
    custom_id: str | None = None
    repaired: bool = False


@dataclass(frozen=True)
class Reason:
    """A reason for a flag that many rows share, with the error text of one of them."""

    status: str
    text: str
    count: int


@dataclass(frozen=True)
class Report:
    """The contents of the page.

    ``counts``, ``charts`` and ``reasons`` are of all rows of the job; ``rows`` may be a part,
    which ``notes`` say. ``groups`` gives each row the number of its reason, or None. ``own_turn``
    is the index of the message that the row was rendered into. ``rights`` has a figure for each
    field that people reviewed; without them ``review_call`` says how to get one. ``checks`` are
    further figures from the reviewed rows, ``drawn`` the reviews.
    """

    job: str
    name: str
    facts: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    counts: Mapping[str, int]
    columns: tuple[Column, ...]
    rows: Sequence[Row]
    charts: tuple[Chart, ...] = ()
    reasons: tuple[Reason, ...] = ()
    groups: Sequence[int | None] = ()
    notes: tuple[str, ...] = ()
    own_turn: int = 0
    rights: tuple[Right, ...] = ()
    review_call: str | None = None
    checks: tuple[Check, ...] = ()
    drawn: tuple[Drawn, ...] = ()

    @property
    def total(self) -> int:
        """Return the number of rows in the job."""
        return sum(self.counts.values())

    @property
    def ok(self) -> int:
        """Return the number of usable rows."""
        return self.counts.get("ok", 0)

    @property
    def flagged(self) -> int:
        """Return the number of flagged rows."""
        return sum(n for status, n in self.counts.items() if status in FLAGGED)

    @property
    def share(self) -> str:
        """The share of usable rows, rounded down: 100% only where all of them are usable.

        Examples
        --------
        >>> Report("j", "n", (), (), {"ok": 9_999, "failed": 1}, (), ()).share
        '99.9%'
        """
        if self.ok == self.total:
            return "100%" if self.total else "-"
        return f"{int(1_000 * self.ok / self.total) / 10:g}%"


def page(report: Report, *, version: str, made_at: str) -> str:
    """Return the report as HTML.

    Parameters
    ----------
    report : Report
        What to show.
    version, made_at : str
        For the last line: the version of frameenrich, and when the page was made.
    """
    script = asset("report", "report.js")
    # The page shows text that a model wrote. Its policy (CSP) allows this one script by its hash,
    # and the script makes text nodes only: nothing else can run, and nothing can be fetched.
    counts = {str(s): report.counts[s] for s in reversed(STATUS_ORDER) if report.counts.get(s)}
    return page_template("report", "page.html.j2").render(
        report=replace(report, counts=counts),
        css=Markup(asset("report", "report.css")),  # noqa: S704 - a file of this package
        js=Markup(script),  # noqa: S704 - likewise
        data=Markup(script_json(_payload(report))),  # noqa: S704 - see script_json
        script_hash=script_hash(script),
        short=short,
        coverage=COVERAGE,
        version=version,
        made_at=made_at,
    )


def grouped(
    statuses: Iterable[str], errors: Iterable[str | None]
) -> tuple[tuple[Reason, ...], npt.NDArray[np.int32]]:
    """Group the flagged rows by reason; reasons that differ in quotes or numbers are one.

    Returns
    -------
    (tuple of Reason, array of int32)
        The most frequent reasons, and which of them each row has; -1 for none of them.

    Examples
    --------
    >>> reasons, groups = grouped(["malformed", "ok"], ["$.n: 'x' is no number", None])
    >>> reasons[0].text, groups.tolist()
    ("$.n: 'x' is no number", [0, -1])
    """
    # A number a row, since a text a row would be as large as the answers.
    numbers, examples, kinds = dict[tuple[str, str], int](), list[tuple[str, str]](), array("i")
    for status, error in zip(statuses, errors, strict=True):
        if status not in FLAGGED:
            kinds.append(-1)
            continue
        number = numbers.setdefault((status, _kind(error or "")), len(numbers))
        if number == len(examples):
            examples.append((status, error or status))
        kinds.append(number)
    each = np.asarray(kinds, np.int32)
    counts = np.bincount(each[each >= 0], minlength=len(examples))
    # Stable: of two that are as frequent, the one that came first.
    most = np.argsort(-counts, kind="stable")[:_MAX_REASONS].tolist()
    reasons = tuple(
        Reason(examples[k][0], _first_words(examples[k][1]), int(counts[k])) for k in most
    )
    rank = np.full(len(examples) + 1, -1, np.int32)  # its last is that of -1
    rank[most] = np.arange(len(most))
    return reasons, rank[each]


_PARTICULARS = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\d+")


def _kind(error: str) -> str:
    # Quotes and numbers differ from row to row; without them, equal reasons are equal texts.
    return _PARTICULARS.sub("*", error[:400])


def _first_words(text: str) -> str:
    return shortened(" ".join(text.split()), 240)


# --- the rows as JSON ---------------------------------------------------------------------------


@dataclass
class _TextTable:
    """Texts, each held once; rows refer to them by number."""

    indexes: dict[str, int] = field(default_factory=dict)

    def index_of(self, text: str | None) -> int | None:
        """Return the number of a text, or None for None."""
        return None if text is None else self.indexes.setdefault(text, len(self.indexes))

    @cached_property
    def cap(self) -> int:
        """Return the longest length of a text at which all of them fit on a page."""
        lengths = [len(text) for text in self.indexes]
        fitting = (c for c in _CAPS if sum(min(n, c) for n in lengths) <= _MAX_CHARACTERS)
        return next(fitting, _CAPS[-1])

    def cut(self) -> tuple[list[str], dict[int, int]]:
        """Return the texts of the page, and the full length of those that were cut."""
        clipped = {i: len(text) for text, i in self.indexes.items() if len(text) > self.cap}
        return [text[: self.cap] for text in self.indexes], clipped


def _payload(report: Report) -> dict[str, Any]:
    texts, images = _TextTable(), dict[tuple[str, str], int]()
    rows = [_row(row, report.columns, texts, images) for row in report.rows]
    for row, group in zip(rows, report.groups, strict=False):
        row["g"] = group
    # After all rows: how long a text may be is known when every text was seen.
    for row, found in zip(rows, [_error_span(row, texts.cap) for row in report.rows], strict=True):
        row["x"] = found
    cut, clipped = texts.cut()
    same, shared = _in_common(rows, cut, report.own_turn)
    return {
        "job": report.job,
        "columns": [asdict(column) for column in report.columns],
        "statuses": [str(status) for status in STATUS_ORDER],
        "flagged": [str(status) for status in STATUS_ORDER if status.flagged],
        "reasons": [reason.text for reason in report.reasons],
        "charts": [_chart(chart) for chart in report.charts],
        "rows": rows,
        "texts": cut,
        "clipped": clipped,
        "images": list(images),
        "own": report.own_turn,
        "same": same,
        "shared": shared,
    }


def _chart(chart: Chart) -> dict[str, Any]:
    bars = [
        {"label": bar.label, "value": _plain(bar.value)}
        if bar.low is None
        else {"label": bar.label, "low": bar.low, "high": bar.high}
        for bar in chart.bars
    ]
    return {"title": chart.title, "field": chart.field, "bars": bars}


def _row(
    row: Row, columns: Sequence[Column], texts: _TextTable, images: dict[tuple[str, str], int]
) -> dict[str, Any]:
    """Return a row for the page's script, without its empty members."""
    # One-letter names and no nulls, since every row of the page repeats them.
    may_lack = {
        "e": texts.index_of(row.error),
        "v": None if row.values is None else _cells(row.values, columns, texts),
        "r": texts.index_of(row.raw),
        "n": None if row.raw is None else len(row.raw),
        "p": row.prompt and [[role, texts.index_of(text)] for role, text in row.prompt.messages],
        "i": [images.setdefault(image, len(images)) for image in row.images] or None,
        "h": list(row.history) or None,
        "a": row.attempt,
        "c": row.score,
        "w": list(row.verdicts) or None,
        "o": row.model,
        "f": row.finish_reason,
        "id": row.custom_id,
        "m": row.repaired or None,
    }
    used = [row.prompt_tokens, row.completion_tokens, row.cost_usd]
    own = {"k": row.key, "s": row.status, "u": used}
    return own | {name: value for name, value in may_lack.items() if value is not None}


def _cells(values: Iterable[Any], columns: Iterable[Column], texts: _TextTable) -> list[Any]:
    return [
        texts.index_of(value) if column.kind in {"text", "json"} else _plain(value)
        for column, value in zip(columns, values, strict=True)
    ]


def _plain(value: Any) -> Any:
    """Return a value as it is, or as text where JSON or JavaScript cannot hold the number."""
    if isinstance(value, float) and value != value + 0 * value:  # NaN and the infinities
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return str(value)
    return value


def _error_span(row: Row, cap: int) -> tuple[int, int] | None:
    """Locate the error in the raw answer, counted in UTF-16 units as JavaScript does."""
    if row.raw is None or not row.error or len(row.raw) > cap:
        return None
    found = locate_error(row.raw, row.error)
    return found and (_utf16(row.raw[: found[0]]), _utf16(row.raw[: found[1]]))


def _utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _in_common(
    rows: Sequence[Mapping[str, Any]], texts: Sequence[str], own_turn: int
) -> tuple[list[int | None], int]:
    """Find the turns that all rows share, and the length of their own turns' common start."""
    prompted = [row["p"] for row in rows if row.get("p")]
    if not prompted:
        return [], 0
    turns = min([own_turn, *map(len, prompted)])
    same = [
        prompted[0][i][1] if len({prompt[i][1] for prompt in prompted}) == 1 else None
        for i in range(turns)
    ]
    own = [texts[p[own_turn][1]] for p in prompted if len(p) > own_turn]
    # What the least and the greatest text have in common at the start, all between have too.
    one, other = (min(own), max(own)) if len(set(own)) > 1 else ("", "")
    pairs = enumerate(zip(one, other, strict=False))
    length = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    # Whole words only, or a row would begin in the middle of one.
    start = one[: max(one.rfind(mark, 0, length) for mark in " \n") + 1]
    return same, _utf16(start) if len(start) >= _MIN_SHARED else 0
