"""Every benchmark, by one command, against peers from PyPI.

    uv run python benchmarks/run.py [--rows 200000] [--runs 7] [--only render,parse,shapes]
        [--before ../older-checkout]

Each measurement is one process, the contenders take turns, and medians are compared, with their
spread beside them. On a busy machine nothing is measured, unless with ``--busy``: then the tables
say so, and the README's is left as it was. Results go to the tables between the markers of
benchmarks/README.md, of docs/speed.md and of the README (Linux only: figures are read from /proc).

``--before`` takes a checkout of an older commit, made by ``git worktree add``: its code does the
same work in turn with today's, in an environment and on jobs of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import tables
import workload
from peers import (
    INSTRUCTOR,
    INSTRUCTOR_1_9,
    LANGBATCH,
    OPENAI_BATCH,
    Peer,
    PeerError,
    checkout,
    python_of,
)
from quiet import Use, Watch, spread

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Contestant:
    """Who takes part: its name in the table, and in which environment; `rows` at most.

    ``work`` is what it does, of `contenders.py`, where that is not its key.
    """

    title: str
    peer: Peer | None = None
    rows: int = sys.maxsize
    work: str = ""

    def folder(self, folder: Path) -> Path:
        """Return its scratch space: an older version cannot read the jobs of today's."""
        return folder / "before" if self.peer and self.peer.is_checkout else folder


Contestants = Mapping[str, Contestant]


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
    "parse_frameenrich_again": Contestant("the same a second time, nothing new"),
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

SHAPED: Mapping[str, Sequence[str]] = {
    "submit": ("render_frameenrich", "render_before", "render_hand"),
    "collect(frame)": ("parse_frameenrich", "parse_before", "parse_hand"),
}
"""Who does each shape of the workload, by what our verb is: ours, and who is compared with it."""


Found = Mapping[str, float]
"""Of one contender: rows, medians of what `contenders.measured` gives, and the CPU's spread."""


def with_before(contestants: Contestants, older: Path | None) -> Contestants:
    """Let an older checkout of ours take part, after today's."""
    if older is None:
        return contestants
    (ours, today), *others = contestants.items()
    commit = ["git", "-C", str(older), "rev-parse", "--short", "HEAD"]
    named = subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip()
    title = f"{tables.BEFORE}, commit {named}"
    before = Contestant(title, checkout(older), work=ours)
    return {ours: today, f"{ours.partition('_')[0]}_before": before, **dict(others)}


def measure(
    name: str, contestant: Contestant, rows: int, folder: Path, shape: str = "usual"
) -> dict[str, float] | str:
    """One contender once, in a process of its own; a text where it fails."""
    try:
        python = python_of(contestant.peer)
    except PeerError as error:
        return f"not installable: {error}"
    command = [str(python), str(HERE / "contenders.py"), contestant.work or name]
    options = _options(rows, contestant.folder(folder), shape)
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1] if done.stdout else "{}")
    return found


def _options(rows: int, folder: Path, shape: str) -> list[str]:
    return ["--rows", str(rows), "--folder", str(folder), "--shape", shape]


def compete(
    contestants: Contestants, rows: int, runs: int, folder: Path, shape: str = "usual"
) -> dict[str, Found | str]:
    """All in turn, so many times; the median of each figure."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    failed: dict[str, str] = {}
    for run in range(runs):
        for name, contestant in contestants.items():
            if name in failed:
                continue
            own = min(rows, contestant.rows)
            prepare(name, contestant, own, folder, shape)
            once = measure(name, contestant, own, folder, shape)
            said = once if isinstance(once, str) else json.dumps(once)
            print(f"run {run + 1} of {runs}: {name} {said}", file=sys.stderr, flush=True)
            if isinstance(once, str):
                failed[name] = once
            else:
                found[name].append({"rows": own, **once})
    return {name: failed.get(name) or _medians(found[name]) for name in contestants}


def _medians(found: Sequence[Mapping[str, float]]) -> Found:
    medians = {figure: median(each[figure] for each in found) for figure in found[0]}
    return {**medians, "spread": spread([each["cpu"] for each in found])}


def prepare(
    name: str, contestant: Contestant, rows: int, folder: Path, shape: str = "usual"
) -> None:
    """Make the responses that a parsing contender reads, where they are not there yet."""
    own = contestant.folder(folder)
    done = own / shape / f"parse-{rows}" / "job_id"
    if name.startswith("parse_") and not done.exists():
        # Peers read the file that our job was answered by; a job is read by who wrote it.
        python = sys.executable if own == folder else python_of(contestant.peer)
        command = [str(python), str(HERE / "contenders.py"), "stored"]
        subprocess.run([*command, *_options(rows, own, shape)], check=True, stdout=sys.stderr)


def memory(
    every: Iterable[Contestants], most: int, folder: Path
) -> list[tuple[str, int, Found | str]]:
    """The peak of each contender, once: it hardly varies."""
    found: list[tuple[str, int, Found | str]] = []
    for name, contestant in [each for contestants in every for each in contestants.items()]:
        work = contestant.work or name
        for rows in MEMORY_ROWS.get(work, (min(200_000, contestant.rows),)):
            if rows > most or name == "render_bytes":
                continue
            prepare(name, contestant, rows, folder)
            print(f"memory: {name}, {rows:,} rows", file=sys.stderr, flush=True)
            found.append((contestant.title, rows, measure(name, contestant, rows, folder)))
    return found


def live(runs: int, folder: Path) -> str | None:
    """The table that `live.py` prints, where it is there."""
    if not (HERE / "live.py").exists():
        return None
    command = [sys.executable, str(HERE / "live.py"), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.strip()


def shapes(
    every: Contestants, rows: int, runs: int, folder: Path
) -> dict[str, dict[str, Found | str]]:
    """Ours and by hand with few and many fields, and with short and long texts."""
    shaped = [name for names in SHAPED.values() for name in names]
    taking = {name: contestant for name, contestant in every.items() if name in shaped}
    return {shape: compete(taking, rows, runs, folder, shape) for shape in workload.SHAPES}


def made(wishes: argparse.Namespace, folder: Path) -> tuple[dict[str, str], list[str]]:
    """The tables wanted, by name, and why their figures are not to be quoted, if so."""
    wanted, rows, runs = wishes.only.split(","), wishes.rows, wishes.runs
    races = {"render": RENDER, "parse": PARSE}
    taking = {name: with_before(each, wishes.before) for name, each in races.items()}
    found: dict[str, str] = {}
    complaints: list[str] = []
    for name, contestants in taking.items():
        if name in wanted:
            watch = Watch()
            results = compete(contestants, rows, runs, folder)
            own = watch.use()
            wrong = own.complaints + tables.scattered(results)
            titles = {each: contestant.title for each, contestant in contestants.items()}
            found[name] = tables.race(name, titles, results, tables.notes(runs, own, wrong))
            found[f"million-{name}"] = tables.million(name, results)
            complaints += wrong
    if "shapes" in wanted:
        watch = Watch()
        every = shapes({**taking["render"], **taking["parse"]}, wishes.shape_rows, runs, folder)
        own = watch.use()
        wrong = own.complaints + [each for one in every.values() for each in tables.scattered(one)]
        titles = {name: workload.SHAPES[name].title for name in every}
        note = f"{wishes.shape_rows:,} rows. {tables.notes(runs, own, wrong)}"
        found["shapes"] = tables.shapes(titles, every, SHAPED, note)
        complaints += wrong
    if "memory" in wanted:
        found["memory"] = tables.memory(memory(taking.values(), wishes.memory_rows, folder))
    lively = live(runs, folder) if "live" in wanted else None
    return (found if lively is None else {**found, "live": lively}), complaints


def main() -> None:
    """Run what is wanted, print the tables, and put them where they are read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--shape-rows", type=int, default=40_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", default="render,parse,shapes,memory,live")
    parser.add_argument("--memory-rows", type=int, default=5_000_000, help="at most")
    parser.add_argument("--folder", type=Path, help="scratch space; deleted unless given")
    parser.add_argument("--before", type=Path, help="an older checkout, measured in turn")
    parser.add_argument("--busy", action="store_true", help="measure and mark on a busy machine")
    wishes = parser.parse_args()
    before = at_rest().complaints
    if before and not wishes.busy:
        sys.exit(f"The machine is busy: {'; '.join(before)}. Wait, or pass --busy to mark figures.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (wishes.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        found, complaints = made(wishes, folder)
    for table in found.values():
        print(table, end="\n\n")
    if complaints and not wishes.busy:
        sys.exit(f"Not to be quoted, so no page was written: {'; '.join(complaints)}.")
    tables.fill(HERE / "README.md", found)
    if not complaints and not before:
        priced = {"million-dollars": tables.dollars(datetime.now(UTC).date())}
        tables.fill(HERE.parent / "docs" / "speed.md", found | priced)
        readme = {"benchmarks": tables.short(HERE / "README.md")}
        tables.fill(HERE.parent / "README.md", readme)


def at_rest() -> Use:
    """Watch the machine for some seconds in which nothing of ours runs."""
    watch = Watch()
    time.sleep(5)
    return watch.use()


if __name__ == "__main__":
    main()
