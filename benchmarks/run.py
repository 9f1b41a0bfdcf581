"""Every benchmark, by one command, against peers from PyPI.

    uv run python benchmarks/run.py [--rows 200000] [--runs 5] [--only render,parse,memory,live]

Each measurement is one process, the contenders take turns, and medians are compared. The machine
may be shared: the ratios of CPU time are the ones to trust. Results go to the tables between the
markers of benchmarks/README.md and of the README (Linux only: memory is read from /proc).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tables
from peers import INSTRUCTOR, INSTRUCTOR_1_9, LANGBATCH, OPENAI_BATCH, Peer, PeerError, python_of

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Contestant:
    """Who takes part: its name in the table, and in which environment; `rows` at most."""

    title: str
    peer: Peer | None = None
    rows: int = sys.maxsize


RENDER = {
    "render_frameenrich": Contestant("**frameenrich `submit`**, all of it"),
    "render_hand": Contestant("`template.render(**row)` + `json.dumps`, by hand"),
    "render_cookbook": Contestant("cookbook loop (`iterrows` + `json.dumps`)"),
    "render_langbatch": Contestant("LangBatch 0.1.2 `create`", LANGBATCH),
    "render_instructor_batchjob": Contestant(
        "instructor 1.9.2 `create_from_messages`", INSTRUCTOR_1_9
    ),
    "render_instructor": Contestant("instructor 1.17.0 `BatchProcessor`", INSTRUCTOR, 2_000),
    "render_openai_batch": Contestant("openai-batch 0.3.4 `add_to_batch`", OPENAI_BATCH),
    "render_bytes": Contestant("writing as many bytes, nothing else"),
}
PARSE = {
    "parse_frameenrich": Contestant("**frameenrich `collect(frame)`**, rows checked"),
    "parse_frameenrich_alone": Contestant("frameenrich `job.collect()`, no frame"),
    "parse_hand": Contestant("`json.loads` + pydantic + join, by hand"),
    "parse_cookbook": Contestant("cookbook, `df.loc[...] =` a row, not validated", None, 2_000),
    "parse_instructor": Contestant("instructor 1.17.0 `parse_results` + join", INSTRUCTOR),
    "parse_langbatch": Contestant("LangBatch 0.1.2 `get_results` + pydantic + join", LANGBATCH),
}
MEMORY_ROWS = {
    "render_frameenrich": (200_000, 1_000_000, 5_000_000),
    "parse_frameenrich": (200_000, 1_000_000),
    "parse_frameenrich_alone": (200_000, 1_000_000),
}

Found = Mapping[str, float]
"""Of one contender: rows, and medians of what `contenders.measured` gives."""


def measure(name: str, peer: Peer | None, rows: int, folder: Path) -> dict[str, float] | str:
    """One contender once, in a process of its own; a text where it fails."""
    try:
        python = python_of(peer)
    except PeerError as error:
        return f"not installable: {error}"
    command = [str(python), str(HERE / "contenders.py"), name]
    options = ["--rows", str(rows), "--folder", str(folder)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1] if done.stdout else "{}")
    return found


def compete(
    contestants: Mapping[str, Contestant], rows: int, runs: int, folder: Path
) -> dict[str, Found | str]:
    """All in turn, so many times; the median of each figure."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    failed: dict[str, str] = {}
    for run in range(runs):
        for name, contestant in contestants.items():
            if name in failed:
                continue
            own = min(rows, contestant.rows)
            prepare(name, own, folder)
            once = measure(name, contestant.peer, own, folder)
            said = once if isinstance(once, str) else json.dumps(once)
            print(f"run {run + 1} of {runs}: {name} {said}", file=sys.stderr, flush=True)
            if isinstance(once, str):
                failed[name] = once
            else:
                found[name].append({"rows": own, **once})
    return {name: failed.get(name) or _medians(found[name]) for name in contestants}


def _medians(found: Sequence[Mapping[str, float]]) -> Found:
    return {figure: median(each[figure] for each in found) for figure in found[0]}


def prepare(name: str, rows: int, folder: Path) -> None:
    """Make the responses that a parsing contender reads, where they are not there yet."""
    if name.startswith("parse_") and not (folder / f"parse-{rows}" / "job_id").exists():
        command = [sys.executable, str(HERE / "contenders.py"), "stored"]
        options = ["--rows", str(rows), "--folder", str(folder)]
        subprocess.run([*command, *options], check=True, stdout=sys.stderr)


def memory(most: int, folder: Path) -> list[tuple[str, int, Found | str]]:
    """The peak of each contender, once: it hardly varies."""
    found: list[tuple[str, int, Found | str]] = []
    for name, contestant in [*RENDER.items(), *PARSE.items()]:
        for rows in MEMORY_ROWS.get(name, (min(200_000, contestant.rows),)):
            if rows > most or name == "render_bytes":
                continue
            prepare(name, rows, folder)
            print(f"memory: {name}, {rows:,} rows", file=sys.stderr, flush=True)
            found.append((contestant.title, rows, measure(name, contestant.peer, rows, folder)))
    return found


def live(runs: int, folder: Path) -> str | None:
    """The table that `live.py` prints, where it is there."""
    if not (HERE / "live.py").exists():
        return None
    command = [sys.executable, str(HERE / "live.py"), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.strip()


def made(wanted: Iterable[str], rows: int, runs: int, most: int, folder: Path) -> dict[str, str]:
    """The tables wanted, by name."""
    found: dict[str, str] = {}
    for name, contestants in (("render", RENDER), ("parse", PARSE)):
        if name in wanted:
            results = compete(contestants, rows, runs, folder)
            titles = {own: contestant.title for own, contestant in contestants.items()}
            found[name] = tables.race(name, titles, results, runs)
    if "memory" in wanted:
        found["memory"] = tables.memory(memory(most, folder))
    lively = live(runs, folder) if "live" in wanted else None
    return found if lively is None else {**found, "live": lively}


def main() -> None:
    """Run what is wanted, print the tables, and put them where they are read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="render,parse,memory,live")
    parser.add_argument("--memory-rows", type=int, default=5_000_000, help="at most")
    parser.add_argument("--folder", type=Path, help="scratch space; deleted unless given")
    wishes = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (wishes.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        wanted = wishes.only.split(",")
        found = made(wanted, wishes.rows, wishes.runs, wishes.memory_rows, folder)
    for table in found.values():
        print(table, end="\n\n")
    tables.fill(HERE / "README.md", found)
    tables.fill(HERE.parent / "README.md", {"benchmarks": tables.short(HERE / "README.md")})


if __name__ == "__main__":
    main()
