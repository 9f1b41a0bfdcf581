"""A job's rows as one HTML page that needs nothing but itself.

Pure: what is to be shown goes in, the page's text comes out, piece by piece. The page is Jinja2
with everything escaped; rows are JSON that its script turns into text nodes. Its content security
policy lets no other script run and nothing be fetched.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from frameenrich.evaluation.page import asset, page_template, script_hash
from frameenrich.model import FLAGGED, STATUS_ORDER
from frameenrich.report.charts import Chart, short
from frameenrich.report.checked import COVERAGE, Check, Drawn
from frameenrich.report.page_rows import Column, PageRows, Row, plain
from frameenrich.report.rightness import Right
from frameenrich.text import shortened

_MAX_REASONS = 8


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
    which ``notes`` say. Both are read once, the rows first: so they need not be in memory, and
    notes may tell what was left out of the rows. ``own_turn`` is the index of the message that the
    row was rendered into. ``rights`` has a figure for each field that people reviewed; without them
    ``review_call`` says how to get one. ``checks`` are further figures from the reviewed rows,
    ``drawn`` the reviews.
    """

    job: str
    name: str
    facts: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    counts: Mapping[str, int]
    columns: tuple[Column, ...]
    rows: Iterable[Row]
    charts: tuple[Chart, ...] = ()
    reasons: tuple[Reason, ...] = ()
    notes: Iterable[str] = ()
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
    def unlisted(self) -> int:
        """Return the number of flagged rows whose reason is none of those listed."""
        return self.flagged - sum(reason.count for reason in self.reasons)

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


def page(report: Report, *, version: str, made_at: str) -> Iterator[str]:
    """Read the report's rows, and return its HTML in pieces.

    Parameters
    ----------
    report : Report
        What to show.
    version, made_at : str
        For the last line: the version of frameenrich, and when the page was made.
    """
    # First: the notes at the top tell what was left out of the rows.
    rows = PageRows(report.columns, report.own_turn, report.rows)
    notes = tuple(report.notes)
    script = asset("report", "report.js")
    # The page shows text that a model wrote. Its policy (CSP) allows this one script by its hash,
    # and the script makes text nodes only: nothing else can run, and nothing can be fetched.
    counts = {str(s): report.counts[s] for s in reversed(STATUS_ORDER) if report.counts.get(s)}
    return page_template("report", "page.html.j2").generate(
        report=replace(report, counts=counts, rows=(), notes=notes),
        css=Markup(asset("report", "report.css")),  # noqa: S704 - a file of this package
        js=Markup(script),  # noqa: S704 - likewise
        data=map(Markup, rows.pieces(_before_rows(report))),  # see script_json
        script_hash=script_hash(script),
        short=short,
        coverage=COVERAGE,
        version=version,
        made_at=made_at,
    )


def _before_rows(report: Report) -> dict[str, Any]:
    """Return the page's data but for what comes with the rows."""
    return {
        "job": report.job,
        "columns": [asdict(column) for column in report.columns],
        "statuses": [str(status) for status in STATUS_ORDER],
        "flagged": [str(status) for status in STATUS_ORDER if status.flagged],
        "reasons": [reason.text for reason in report.reasons],
        "charts": [_chart(chart) for chart in report.charts],
    }


def _chart(chart: Chart) -> dict[str, Any]:
    bars = [
        {"label": bar.label, "value": plain(bar.value)}
        if bar.low is None
        else {"label": bar.label, "low": bar.low, "high": bar.high}
        for bar in chart.bars
    ]
    # Truth values are no numbers here, as they are none in JavaScript.
    kinds = {type(bar.value) for bar in chart.bars}
    number = bool(kinds) and kinds <= {int, float}
    return {"title": chart.title, "field": chart.field, "number": number, "bars": bars}


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
