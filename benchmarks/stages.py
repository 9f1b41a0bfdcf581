"""Where the CPU time of a submit and of a collect goes, by sampling each millisecond of it.

    uv run python benchmarks/stages.py [--rows 100000] [--only render,parse]

A sample counts for the innermost line of frameenrich that was being run, with what it calls.
"""

from __future__ import annotations

import argparse
import linecache
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import contenders

SHOWN = 14


@contextmanager
def sampled(lines: Counter[tuple[str, str]]) -> Iterator[None]:
    """Count where the time goes."""

    def take(_: int, frame: FrameType | None) -> None:
        while frame is not None and not _ours(frame):
            frame = frame.f_back
        if frame is not None:
            code = frame.f_code
            number = frame.f_lineno or code.co_firstlineno  # None between lines
            source = linecache.getline(code.co_filename, number).strip()
            lines[f"{Path(code.co_filename).stem}.{code.co_qualname}", source] += 1

    before = signal.signal(signal.SIGPROF, take)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _ours(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return "/frameenrich/" in name or name.endswith(" template")  # Jinja's code of a template


def profile(name: str, rows: int, folder: Path) -> str:
    """The most expensive lines of one piece of work, as Markdown."""
    lines: Counter[tuple[str, str]] = Counter()
    contenders.CONTENDERS[name](contenders.WARM_ROWS, folder / "warm")()
    work = contenders.CONTENDERS[name](rows, folder)
    began = time.process_time()
    with sampled(lines):
        work()
    seconds, total = time.process_time() - began, sum(lines.values())
    table = ["| where | line | % of CPU time |", "|---|---|--:|"]
    for (where, source), count in lines.most_common(SHOWN):
        table.append(
            f"| `{where}` | `{source.replace('|', chr(92) + '|')}` | {count / total:.0%} |"
        )
    return "\n".join([*table, f"\n{rows:,} rows, {seconds / rows * 1e6:.1f} µs of CPU time a row."])


def main() -> None:
    """Print both profiles."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", default="render,parse")
    wishes = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for what in wishes.only.split(","):
            if what == "parse":
                contenders.stored(contenders.WARM_ROWS, folder / "warm")
                contenders.stored(wishes.rows, folder)
            print(profile(f"{what}_frameenrich", wishes.rows, folder), end="\n\n")


if __name__ == "__main__":
    main()
