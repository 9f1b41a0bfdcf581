"""A job as a card in a notebook: its progress, batches and cost, and the next calls.

Inline styles only, since notebooks strip the others, and colours that read on light and on dark.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from frameenrich.errors import FrameEnrichError, OutputError
from frameenrich.evaluation.draw import first_review
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.lifecycle.regenerate import describe_changes
from frameenrich.lifecycle.row_facts import counting_rows, retry_calls
from frameenrich.lifecycle.usage import JobUsage
from frameenrich.model import FLAGGED, STATUS_ORDER, TERMINAL, Batch, BatchStatus, Remedy
from frameenrich.pricing.money import show_usd
from frameenrich.report.rightness import rights
from frameenrich.store.folder import JobState
from frameenrich.text import NO_MATH

COLORS = {
    "ok": "#2e9a6a",
    "pending": "#7f8fa6",
    "malformed": "#d4700f",
    "truncated": "#b08400",
    "refused": "#8a4cc0",
    "empty": "#7d828a",
    "failed": "#d23f3f",
    "expired": "#9b5c37",
    "cancelled": "#5c6878",
    "missing": "#bd4a8c",
    "skipped": "#aaadb2",
    "answered": "#2e9a6a",
}
"""Colours of row statuses, and of ``answered``: done by the provider's count, not yet parsed."""


_MAX_BATCHES = 8


# Half-transparent grey, since a notebook may be light or dark and does not say which.
_FAINT = "rgba(128,128,128,.35)"


@dataclass(frozen=True)
class Card:
    """The contents of a card.

    ``counts`` are rows (or, where ``unit`` says so, requests) by status; ``shards`` the round,
    number and batch of each shard; ``facts`` further lines, ``next_calls`` the calls to make next.
    """

    id: str
    title: str
    counts: Mapping[str, int]
    unit: str
    shards: Sequence[tuple[int, int, Batch]]
    facts: Mapping[str, str]
    next_calls: Sequence[str]
    now: float


def card_html(card: Card) -> str:
    """Return the card as HTML.

    Examples
    --------
    >>> card = Card("job-1", "a <b> model", {"ok": 1}, "rows", (), {}, ["job.collect()"], 0.0)
    >>> "a &lt;b&gt; model" in card_html(card)
    True
    """
    parts = [
        _head(card),
        _bar(card.counts),
        _legend(card.counts, card.unit),
        _lines(card.facts),
        _batches(card),
        _next(card.next_calls),
    ]
    box = f"border:1px solid {_FAINT};border-radius:8px;padding:12px 16px;max-width:760px"
    style = f"{box};font-size:13px;line-height:1.5;overflow-wrap:anywhere"
    return str(
        Markup('<div class="{}" style="{}">{}</div>').format(NO_MATH, style, Markup().join(parts))
    )


def _tag(name: str, content: str, style: str = "") -> Markup:
    """Build an element; its content is escaped unless it is markup already."""
    # Markup escapes its arguments: ids, models and reasons may hold any text.
    return Markup('<{0} style="{1}">{2}</{0}>').format(name, style, content)


def _head(card: Card) -> Markup:
    name = _tag("b", card.id, "font-size:14px")
    return _tag("div", name + _tag("span", f"  {card.title}", "opacity:.7;margin-left:8px"))


def _bar(counts: Mapping[str, int]) -> Markup:
    pieces = [
        # The minimum width keeps one failed row of a million visible.
        _tag("div", "", f"flex:{n} 1 0;min-width:3px;background:{COLORS.get(s, '#888')}")
        for s, n in counts.items()
    ]
    style = (
        f"display:flex;gap:1px;height:8px;border-radius:4px;background:{_FAINT};margin:10px 0 6px"
    )
    return _tag("div", Markup().join(pieces), f"{style};overflow:hidden")


def _legend(counts: Mapping[str, int], unit: str) -> Markup:
    total = sum(counts.values())
    words = []
    for status, n in counts.items():
        color = COLORS.get(status, "#888")
        circle = "display:inline-block;width:8px;height:8px;border-radius:4px;margin-right:5px"
        dot = _tag("span", "", f"{circle};background:{color}")
        words.append(_tag("span", dot + f"{status} {n:,}", "margin-right:16px;white-space:nowrap"))
    return _tag("div", Markup().join(words) + _tag("span", f"of {total:,} {unit}", "opacity:.7"))


def _lines(facts: Mapping[str, str]) -> Markup:
    named = [
        _tag(
            "div",
            _tag("span", name, "opacity:.7;flex:0 0 92px") + _tag("span", value),
            "display:flex",
        )
        for name, value in facts.items()
    ]
    return _tag("div", Markup().join(named), "margin-top:8px")


def _batches(card: Card) -> Markup:
    """Build the table of batches, running ones first; beyond the first few, counts only."""
    ordered = sorted(card.shards, key=lambda shard: shard[2].settled)
    shown, rest = ordered[:_MAX_BATCHES], ordered[_MAX_BATCHES:]
    heads = ("round", "shard", "status", "done", "age", "batch")
    rows = [_row(heads, "th")] + [_row(_cells(*shard, card.now), "td") for shard in shown]
    table = _tag(
        "table", Markup().join(rows), "margin:8px 0 0;border-collapse:collapse;font-size:inherit"
    )
    table = _tag("div", table, "overflow-x:auto")
    return table + (_tag("div", f"and {_other_shards(rest)}", "opacity:.7") if rest else "")


def _row(cells: Iterable[str], tag: str) -> Markup:
    style = "text-align:left;padding:1px 18px 1px 0;font-weight:normal;background:none"
    style += ";white-space:nowrap"
    style += ";opacity:.7" if tag == "th" else ""
    return _tag("tr", Markup().join(_tag(tag, cell, style) for cell in cells), "background:none")


def _cells(round_: int, number: int, batch: Batch, now: float) -> tuple[str, ...]:
    done = (batch.completed or 0) + (batch.failed or 0)
    counts = f"{done:,} of {batch.total:,}" if batch.total else ""
    where = str(round_), str(number)
    if batch.reused_from:
        return *where, "reused", counts, "", ", ".join(batch.reused_from)
    return *where, batch.status, counts, _age(batch, now), batch.id or "-"


def _age(batch: Batch, now: float) -> str:
    """Format how long a batch has been at the provider, or took there.

    Examples
    --------
    >>> _age(Batch("t", status="in_progress", created_at=0), 3_700)
    '1 h 01 min'
    >>> _age(Batch("t"), 0), _age(Batch("t", status="completed"), 0)
    ('not sent', '')
    """
    if batch.created_at is None:  # as of calls made one by one, which are no batch there
        return "not sent" if batch.status == BatchStatus.PLANNED else ""
    # Ended at an unknown time: counting on to now would make the age grow for ever.
    if batch.status in TERMINAL and batch.ended_at is None:
        return ""
    seconds = int((batch.ended_at or now) - batch.created_at)
    hours, minutes = divmod(seconds // 60, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min" if minutes else f"{max(seconds, 0)} s"


def _other_shards(shards: Iterable[tuple[int, int, Batch]]) -> str:
    counts: dict[str, int] = {}
    for _, _, batch in shards:
        counts[batch.status] = counts.get(batch.status, 0) + 1
    return ", ".join(f"{n:,} more {status}" for status, n in counts.items())


def _next(calls: Iterable[str]) -> Markup:
    # A call stays in one piece, unless it is wider than the card.
    style = "display:inline-block;max-width:100%;overflow-wrap:anywhere;white-space:normal"
    codes = Markup("&ensp;<wbr>").join(_tag("code", call, style) for call in calls)
    return _tag(
        "div", _tag("span", "next", "opacity:.7;margin-right:10px") + codes, "margin-top:8px"
    )


MAX_RESPONSE_BYTES = 8_000_000
"""Larger jobs show the batches' own counts: up to here, parsing takes a fraction of a second."""


def card_of(
    job: JobState,
    answers: Callable[[], pd.DataFrame],
    used: Callable[[], JobUsage],
    judged: Callable[[], JobAnswers],
    last_round: str = "",
) -> Card:
    """Collect what the card of a job shows.

    Parameters
    ----------
    job : JobState
        The job as it is now.
    answers : callable
        Gives the answers on disk as `Job.collect` does; called only where they are few.
    used : callable
        Gives what they took, as `Job.usage` does; likewise.
    judged : callable
        Gives the answers with their reviews; called only where a row was reviewed.
    last_round : str
        What the newest `Job.regenerate` of this session sent and left.
    """
    with counting_rows() as known:
        frame = _judged(job, answers)
    counts, unit = (_counted(job), "requests") if frame is None else (_rows(job, frame), "rows")
    return Card(
        id=job.id,
        title=f"{job.spec.model} through {job.spec.provider}",
        counts=counts,
        unit=unit,
        shards=[(shard.round, shard.number, shard.batch) for shard in job.all_shards()],
        facts={
            **({} if frame is None else dict(_figures(job, counts, judged))),
            **dict(_facts(job, None if frame is None else used(), known.repaired)),
            **({"last round": last_round} if last_round else {}),
        },
        next_calls=_next_calls(job, counts, known.remedies),
        now=time.time(),
    )


def _judged(job: JobState, answers: Callable[[], pd.DataFrame]) -> pd.DataFrame | None:
    """Return the answers, or None where reading them is slow or impossible."""
    if sum(shard.response_bytes for shard in job.all_shards()) > MAX_RESPONSE_BYTES:
        return None
    if job.row_count * _BYTES_PER_ROW > MAX_RESPONSE_BYTES:
        return None
    try:
        return answers()
    except OutputError:  # the columns may need a parser that only another session has
        return None


_BYTES_PER_ROW = 100
"""The cost of one row of the answers' columns, in response bytes that take as long to parse."""


def _rows(job: JobState, frame: pd.DataFrame) -> dict[str, int]:
    found = frame[f"{job.spec.name}_status"].value_counts()
    # Reversed: the bar begins with what is usable, while flagged tables begin with what is odd.
    return {str(s): int(found[str(s)]) for s in reversed(STATUS_ORDER) if str(s) in found}


def _counted(job: JobState) -> dict[str, int]:
    """Count requests by the totals of round 0's batches; an unknown count is pending."""
    batches = [shard.batch for shard in job.shards(0)]
    done = sum(batch.completed or 0 for batch in batches)
    failed = sum(batch.failed or 0 for batch in batches)
    # A batch that is not created has no total: the sum of the others would miss its rows.
    known = all(batch.total for batch in batches)
    total = sum(batch.total or 0 for batch in batches) if known else job.row_count
    counts = {"answered": done, "failed": failed, "pending": max(total - done - failed, 0)}
    return {name: n for name, n in counts.items() if n}


def _figures(
    job: JobState, counts: Mapping[str, int], judged: Callable[[], JobAnswers]
) -> Iterator[tuple[str, str]]:
    """Yield how much is usable and how much is right, which are never merged into one figure."""
    usable, total = counts.get("ok", 0), sum(counts.values())
    if not job.settled or not usable:
        return
    # Rounded down: all of them are usable only where none is flagged.
    yield "usable", f"{100 * usable // total} %, {usable:,} of {total:,} rows"
    try:
        found = list(rights(judged())) if job.reviewed else []
    except FrameEnrichError as error:  # a damaged review hides nothing else of the card
        yield "right", f"not known: {error.problem}"
        return
    several = len(found) > 1
    texts = [f"{f'{each.field} ' if several else ''}{each.share}, {each.about}" for each in found]
    call = f"not checked: job.review(n={first_review(usable)})"
    yield "right", "; ".join(texts) or call


def _facts(job: JobState, used: JobUsage | None, repaired: int) -> Iterator[tuple[str, str]]:
    if used is not None and used.requests:
        tokens = f"{used.prompt_tokens:,} in, {used.completion_tokens:,} out"
        yield "tokens", tokens if used.usd is None else f"{tokens}, {show_usd(used.usd)}"
    if repaired:
        yield "repaired", f"{repaired:,} ok answers, mended before they were read"
    if job.reused:
        yield "reused", f"{job.reused:,} answers that this store had already"
    if job.rounds() > 1:
        yield "rounds", str(job.rounds())
    if changed := describe_changes(job):
        yield "asked again", "; ".join(changed)
    # A bucket's address is no path of this computer, so it is never made relative.
    near = os.path.relpath(job.path) if job.store.local else job.path
    yield "folder", job.path if near.startswith(os.pardir) else near


def _next_calls(job: JobState, counts: Mapping[str, int], remedies: Counter[Remedy]) -> list[str]:
    if job.settled:
        flagged = any(status in FLAGGED for status in counts)
        # Vectors have no right answer that a person could name.
        vectors = job.spec.output.kind == "embedding"
        # A large job's answers are not read for a card, so its batches' own counts stand for them.
        usable = 0 if vectors else counts.get("ok", counts.get("answered", 0))
        review = [f"job.review(n={first_review(usable)})"] if usable else []
        # Of a job too large to be read for a card, nothing is known of what its rows take.
        retries = retry_calls(remedies) or ["job.regenerate()"]
        more = ["job.show_flagged()", *retries] if flagged else []
        return ["df.llmbatch.collect()", *more, *review, 'job.report("report.html")']
    if job.spec.provider == "file":
        return ["job.requests", "job.import_responses(path)"]
    return ["df.llmbatch.collect(wait=True)", "job.status()", "job.cancel()"]
