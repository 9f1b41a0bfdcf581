"""Speed, as ratios of CPU time to the loops one would write by hand; never seconds.

The floors are generous: the benchmarks say how fast it is, this says that nobody broke it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contenders
import pytest

ROWS = 8_000


def cpu_seconds(work: Callable[[], Any]) -> float:
    """What a piece of work takes of the processor, whoever else is on the machine."""
    began = time.process_time()
    work()
    return time.process_time() - began


def times_as_fast(ours: Callable[[int], Callable[[], Any]], by_hand: Callable[[], Any]) -> float:
    """How often ours could run while the other runs once: best of three, taking turns."""
    runs = [(cpu_seconds(ours(turn)), cpu_seconds(by_hand)) for turn in range(4)]
    mine, theirs = zip(*runs[1:], strict=True)  # the first warms up
    return float(min(theirs) / min(mine))


@pytest.mark.timeout(120)
def test_submit_beats_a_loop_of_render_and_dumps(tmp_path: Path) -> None:
    """Checked, hashed, cut and synced, yet over twice as fast as a loop for the lines alone."""

    def ours(turn: int) -> Callable[[], Any]:
        return contenders.render_frameenrich(ROWS, tmp_path / str(turn))

    faster = times_as_fast(ours, contenders.render_hand(ROWS, tmp_path))

    assert faster > 2.5, faster


@pytest.mark.timeout(120)
def test_collect_beats_a_loop_of_loads_and_pydantic(tmp_path: Path) -> None:
    """Every line judged and every row accounted for, faster than a loop that drops bad lines."""
    contenders.stored(ROWS, tmp_path)
    ours = contenders.parse_frameenrich_alone(ROWS, tmp_path)

    faster = times_as_fast(lambda _: ours, contenders.parse_hand(ROWS, tmp_path))

    assert faster > 1.3, faster
