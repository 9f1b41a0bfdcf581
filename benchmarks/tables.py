"""Measurements as Markdown, and into the pages that show them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import workload
from quiet import MOST_SPREAD, Use

from frameenrich.pricing.prices import find_rates

PRICED = ("gpt-5.4-mini", "gpt-5.4-nano")
"""The models that a million rows are priced with."""


BEFORE = "frameenrich before"
"""How the title of an older version begins, which the README does not show."""


_OURS = ("_frameenrich", "_alone", "_before", "_hand")


_HEADS = {"render": "rows → request files", "parse": "responses → columns of the frame"}


def race(
    name: str,
    titles: Mapping[str, str],
    results: Mapping[str, Mapping[str, float] | str],
    note: str,
) -> str:
    """Rates, and how many times the CPU and wall time of ours (the first) each one takes."""
    base: Any = next(iter(results.values()))
    rows = [
        f"| {_HEADS[name]} | rows per CPU second | CPU time ÷ ours | wall time ÷ ours | spread |",
        "|---|--:|--:|--:|--:|",
    ]
    for own, title in titles.items():
        found = results[own]
        if isinstance(found, str) or isinstance(base, str):
            rows.append(f"| {title} | {found} | | | |")
            continue
        cpu, wall = (_each(found, figure) / _each(base, figure) for figure in ("cpu", "wall"))
        rows.append(
            f"| {title} | {_rate(found)} | {_ratio(cpu)} | {_ratio(wall)} | {found['spread']:.0%} |"
        )
    most = _round(max(_rows(each) for each in results.values()))
    return "\n".join([*rows, f"\n{most} rows (fewer for the slowest). {note}"])


def shapes(
    titles: Mapping[str, str],
    results: Mapping[str, Mapping[str, Mapping[str, float] | str]],
    taking: Mapping[str, Sequence[str]],
    note: str,
) -> str:
    """What ours (the first of each verb) does with each shape, and how many times others take."""
    there = next(iter(results.values()))
    verbs = {verb: [name for name in names if name in there] for verb, names in taking.items()}
    head = ["the work"]
    for verb, (_, *others) in verbs.items():
        head += [f"`{verb}`: rows per CPU second (spread)"]
        head += [f"{_SHORT[name.rpartition('_')[2]]} ÷ ours (spread)" for name in others]
    rows = [f"| {' | '.join(head)} |", f"|---{'|--:' * (len(head) - 1)}|"]
    for shape, title in titles.items():
        cells = [title]
        for ours, *others in verbs.values():
            own = results[shape][ours]
            cells.append(own if isinstance(own, str) else _with_spread(_rate(own), own))
            cells += [_against(results[shape][name], own) for name in others]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, f"\n{note}"])


_SHORT = {"hand": "by hand", "before": "before"}


def _rate(found: Mapping[str, float]) -> str:
    return _round(1 / _each(found, "cpu"))


def _with_spread(figure: str, found: Mapping[str, float]) -> str:
    return f"{figure} ({found['spread']:.0%})"


def _against(other: Mapping[str, float] | str, own: Mapping[str, float] | str) -> str:
    if isinstance(other, str) or isinstance(own, str):
        return str(other) if isinstance(other, str) else ""
    return _with_spread(_ratio(_each(other, "cpu") / _each(own, "cpu")), other)


def million(name: str, results: Mapping[str, Mapping[str, float] | str]) -> str:
    """Say what a million rows take by the first of the results."""
    own = next(iter(results.values()))
    if isinstance(own, str):
        return own
    verb = {"render": "`submit` renders and writes", "parse": "`collect(frame)` reads"}[name]
    cpu, wall = (1e6 * _each(own, figure) for figure in ("cpu", "wall"))
    return f"{verb} a million rows in {cpu:.0f} seconds of one core ({wall:.0f} by the clock)."


def dollars(day: date) -> str:
    """Say what a million rows cost by the prices that the price library has on this day."""
    tokens = workload.PROMPT_TOKENS, workload.ANSWER_TOKENS
    said = []
    for model in PRICED:
        rates = find_rates(model, {}, "openai")
        assert rates is not None, model
        batch, live = (1e6 * rates.at(rate).usd(*tokens) for rate in ("batch", "live"))
        said.append(
            f"with {model} ${batch:,.2f} as batches ({tokens[0]} million tokens at "
            f"${rates.batch.input:.4g} a million, {tokens[1]} million at "
            f"${rates.batch.output:.4g}), ${live:,.2f} live"
        )
    source = f"genai-prices {version('genai-prices')}, read on {day:%-d %B %Y}"
    return f"{'; '.join(said)} (prices of {source})."


def notes(runs: int, use: Use, wrong: Iterable[str]) -> str:
    """Say how figures were taken, and first whether they are not to be quoted."""
    said = "; ".join(dict.fromkeys(wrong))
    marked = f"**Not to be quoted: {said}.** " if said else ""
    return (
        f"{marked}Medians of {runs} runs in turn on {os.cpu_count()} cores; others took "
        f"{use.others:.2f} cores, {use.steal:.1%} of the time was stolen. Spread: how far apart "
        "the CPU times lie, as a share of the median, without the least and the greatest."
    )


def scattered(results: Mapping[str, Mapping[str, float] | str]) -> list[str]:
    """Name those of ours and of the loops by hand whose runs lie too far apart.

    A peer's own spread stands beside its figure: it is no reason to throw the others' away.
    """
    return [
        f"the runs of {name} lie {found['spread']:.0%} apart"
        for name, found in results.items()
        if not isinstance(found, str) and found["spread"] > MOST_SPREAD and name.endswith(_OURS)
    ]


def _rows(found: Mapping[str, float] | str) -> float:
    return 0 if isinstance(found, str) else found["rows"]


def _each(found: Mapping[str, float], figure: str) -> float:
    return found[figure] / found["rows"]


def _round(number: float) -> str:
    """Three figures say all there is."""
    return f"{float(f'{number:.3g}'):,.0f}"


def _ratio(number: float) -> str:
    if number >= 20:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def memory(found: Iterable[tuple[str, int, Mapping[str, float] | str]]) -> str:
    """Peaks above what was there with the frame built."""
    rows = ["| peak memory above the frame | rows | MB | of which result |", "|---|--:|--:|--:|"]
    for title, count, figures in found:
        if isinstance(figures, str):
            rows.append(f"| {title} | {count:,} | {figures} | |")
        else:
            result = f"{figures['result_mb']:,.0f}" if figures["result_mb"] else ""
            rows.append(f"| {title} | {count:,} | {figures['peak_mb']:,.0f} | {result} |")
    return "\n".join(rows)


def short(page: Path) -> str:
    """What the README shows: the races of the big page without their notes."""
    shown = [_between(page.read_text(), name) for name in ("render", "parse")]
    return "\n\n".join(
        "\n".join(
            line
            for line in table.splitlines()
            if line.startswith("|") and not line.startswith(f"| {BEFORE}")
        )
        for table in shown
        if table
    )


def fill(page: Path, found: Mapping[str, str]) -> None:
    """Put each table between its markers, ``<!-- name -->`` and ``<!-- /name -->``."""
    text = page.read_text()
    for name, table in found.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin in text and end in text:
            text = f"{text.partition(begin)[0]}{begin}\n{table}\n{end}{text.partition(end)[2]}"
    page.write_text(text)


def _between(text: str, name: str) -> str:
    found = re.search(f"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
    return found[1] if found else ""
