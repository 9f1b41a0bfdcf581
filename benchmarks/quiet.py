"""Tell whether a machine is quiet enough for figures that hold (Linux: read from /proc)."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

MOST_OTHERS = 0.1
"""Cores that other processes may take on average."""


MOST_STEAL = 0.02
"""The share of all time that the hypervisor may give to other machines."""


MOST_SPREAD = 0.1
"""How far the runs of one contender may lie apart, as a share of their median."""


@dataclass(frozen=True)
class Use:
    """What went on beside the benchmark: cores that others took, and the share of time stolen."""

    others: float
    steal: float

    @property
    def complaints(self) -> list[str]:
        """Why figures taken meanwhile are not to be quoted; empty on a quiet machine."""
        found = []
        if self.others > MOST_OTHERS:
            found.append(f"other processes took {self.others:.2f} cores")
        if self.steal > MOST_STEAL:
            found.append(f"{self.steal:.0%} of the time was stolen by other machines")
        return found


class Watch:
    """Begins to watch the machine when it is made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._ticks, self._own = _machine(), _own_seconds()

    def use(self) -> Use:
        """Return what went on since then."""
        seconds = time.monotonic() - self._began
        busy, stolen = (now - then for now, then in zip(_machine(), self._ticks, strict=True))
        own = _own_seconds() - self._own
        cores = os.cpu_count() or 1
        return Use(max(busy - own, 0) / seconds, stolen / (seconds * cores))


def _machine() -> tuple[float, float]:
    """Return the seconds that all cores were busy, and those that were stolen, since the start."""
    first = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _, _, irq, softirq, steal, *_ = (int(ticks) for ticks in first)
    per_second = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / per_second, steal / per_second


def _own_seconds() -> float:
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def spread(figures: list[float]) -> float:
    """Return how far figures lie apart, without the least and the greatest of five or more.

    Examples
    --------
    >>> spread([1.0, 1.01, 1.02, 1.03, 9.0])
    0.0196...
    """
    ordered = sorted(figures)
    inner = ordered[1:-1] if len(ordered) >= 5 else ordered
    return (inner[-1] - inner[0]) / ordered[len(ordered) // 2]
