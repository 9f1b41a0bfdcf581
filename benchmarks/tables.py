"""Measurements as Markdown, and into the pages that show them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_HEADS = {"render": "rows → request files", "parse": "responses → columns of the frame"}


def race(
    name: str,
    titles: Mapping[str, str],
    results: Mapping[str, Mapping[str, float] | str],
    runs: int,
) -> str:
    """Rates, and how many times the CPU and wall time of ours (the first) each one takes."""
    base: Any = next(iter(results.values()))
    rows = [
        f"| {_HEADS[name]} | rows per CPU second | CPU time ÷ ours | wall time ÷ ours |",
        "|---|--:|--:|--:|",
    ]
    for own, title in titles.items():
        found = results[own]
        if isinstance(found, str) or isinstance(base, str):
            rows.append(f"| {title} | {found} | | |")
            continue
        cpu, wall = (_each(found, figure) / _each(base, figure) for figure in ("cpu", "wall"))
        rows.append(
            f"| {title} | {_round(1 / _each(found, 'cpu'))} | {_ratio(cpu)} | {_ratio(wall)} |"
        )
    load = os.getloadavg()[1]
    rows.append(
        f"\nMedians of {runs} runs, {_round(max(_rows(r) for r in results.values()))} rows "
        f"(fewer for the slowest), {os.cpu_count()} cores, load {load:.0f}."
    )
    return "\n".join(rows)


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
        "\n".join(line for line in table.splitlines() if line.startswith("|"))
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
