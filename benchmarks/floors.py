"""Check that nobody broke the speed: two ratios of CPU time, each with its floor.

    uv run python benchmarks/floors.py

It ends with an exit code of 1 where a ratio is below its floor. The floors are generous; `run.py`
says how fast it really is. `.ci/long` runs it, on a machine left alone: a neighbour who fills the
caches moves a ratio by a tenth, so no test of every change may hang on it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contenders

ROWS = 8_000
FLOORS = {"submit, against a loop of render and dumps": 2.5, "collect, of loads and pydantic": 1.3}


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Return what a piece of work takes of the processor, whoever else is on the machine."""
    began = time.process_time()
    work()
    return time.process_time() - began


def times_as_fast(ours: Callable[[int], Callable[[], Any]], by_hand: Callable[[], Any]) -> float:
    """Return how often ours could run while the other runs once: best of three, taking turns."""
    runs = [(cpu_seconds(ours(turn)), cpu_seconds(by_hand)) for turn in range(4)]
    mine, theirs = zip(*runs[1:], strict=True)  # the first warms up
    return float(min(theirs) / min(mine))


def submit_ratio(folder: Path) -> float:
    """Checked, hashed, cut and synced, against a loop for the lines alone."""
    by_hand = contenders.render_hand(ROWS, folder)
    return times_as_fast(
        lambda turn: contenders.render_frameenrich(ROWS, folder / f"{turn}"), by_hand
    )


def collect_ratio(folder: Path) -> float:
    """Every line judged and every row accounted for, against a loop that drops bad lines."""
    contenders.stored(ROWS, folder)
    ours = contenders.parse_frameenrich_alone(ROWS, folder)
    return times_as_fast(lambda _: ours, contenders.parse_hand(ROWS, folder))


def main() -> None:
    """Print each ratio beside its floor; fail where one is below."""
    slow = False
    for (title, floor), ratio in zip(FLOORS.items(), (submit_ratio, collect_ratio), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            found = ratio(Path(folder))
        slow |= found <= floor
        print(f"{title}: {found:.2f} times as fast (at least {floor})")
    sys.exit(int(slow))


if __name__ == "__main__":
    main()
