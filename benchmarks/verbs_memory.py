"""Peak memory of each verb above its frame, by the number of rows.

    uv run python benchmarks/verbs_memory.py [--rows 100000,300000,1000000] [--only report,reuse]

Answers have a kilobyte of text each. Every figure is one process, run alone: it builds the frame,
gives back what is free, begins its peak anew (``VmHWM``; Linux only) and runs one verb. The stores
that the verbs read are made before, once for each number of rows; a verb gets a copy by links.
It prints the whole table of benchmarks/README.md, "Memory of every verb", as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from contenders import WARM_ROWS, measured

import frameenrich

PARAMS = {"max_tokens": 400}
SCHEMA = {"summary": str, "score": int}
WORDS = "It is made to last, easy to clean and a pleasure to use on every day of the year. " * 12
FLAGGED_EVERY = 100
"""In the store of answers, one in so many is flagged."""


def frame(rows: int) -> pd.DataFrame:
    """Return a frame of one column of texts."""
    return pd.DataFrame({"title": [f"Thing no. {n}" for n in range(rows)]})


def submit(own: pd.DataFrame, store: Path, **options: Any) -> Any:
    """Write the job of a frame; nothing is sent."""
    return own.llmbatch.submit(
        "Describe {{ title }} in one paragraph.",
        "gpt-4o-mini",
        response_model=SCHEMA,
        params=PARAMS,
        provider="file",
        store=store,
        **options,
    )


def response(custom_id: str, number: int, whole: bool) -> str:
    """Return a response line with an answer of a kilobyte; one that is not whole is no JSON."""
    answer = json.dumps({"summary": f"{number} {WORDS}", "score": number % 100})
    content = answer if whole else answer[:-12]
    usage = {"prompt_tokens": 20, "completion_tokens": 210, "total_tokens": 230}
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": f"c-{number}", "model": "gpt-4o-mini", "choices": [choice], "usage": usage}
    line = {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}
    return json.dumps(line) + "\n"


def write_responses(job: Any, path: Path, *, bad: bool) -> None:
    """Write the file that would come back for a job's requests."""
    number = 0
    with path.open("w") as file:
        for requests in job.requests:
            with Path(requests).open() as lines:
                for line in lines:
                    whole = not bad and number % FLAGGED_EVERY != 0
                    file.write(response(line[14 : line.index('"', 14)], number, whole))
                    number += 1


def make(kind: str, rows: int, folder: Path) -> None:
    """Make a store with a job: unanswered, with answers, or with malformed ones only."""
    home = folder / f"{kind}-{rows}"
    if (home / "done").exists():
        return
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    job = submit(frame(rows), home / "store")
    write_responses(job, home / "came.jsonl", bad=kind == "bad")
    if kind != "sent":
        job.import_responses(home / "came.jsonl")
        (home / "came.jsonl").unlink()
    (home / "done").write_text(job.id)


def opened(kind: str, rows: int, folder: Path) -> Any:
    """Return a job of a copy of the store of that kind."""
    home, own = folder / f"{kind}-{rows}", folder / "copy"
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(home / "store", own, copy_function=os.link)
    return frameenrich.open_job((home / "done").read_text(), store=own)


def regenerate(rows: int, folder: Path) -> Callable[[], Any]:
    """Write a round of all rows, each with its answer and what was wrong with it."""
    job = opened("bad", rows, folder)
    return job.regenerate  # type: ignore[no-any-return]


def flagged(rows: int, folder: Path) -> Callable[[], Any]:
    """List all rows with their prompts and answers: the frame itself is the most of it."""
    job = opened("bad", rows, folder)
    return job.flagged  # type: ignore[no-any-return]


def report(rows: int, folder: Path) -> Callable[[], Any]:
    """Write the page of a job with answers, of which one in a hundred is flagged."""
    job = opened("good", rows, folder)
    return lambda: job.report(folder / "report.html")


def reuse(rows: int, folder: Path) -> Callable[[], Any]:
    """Submit the same rows and one more: all but that one are answered already."""
    opened("good", rows, folder)
    own = frame(rows + 1)
    return lambda: submit(own, folder / "copy")


def imported(rows: int, folder: Path) -> Callable[[], Any]:
    """Import the file that came back."""
    job = opened("sent", rows, folder)
    return lambda: job.import_responses(folder / f"sent-{rows}" / "came.jsonl")


def collect(rows: int, folder: Path) -> Callable[[], Any]:
    """Collect all answers on the frame."""
    job, own = opened("good", rows, folder), frame(rows)
    return lambda: job.collect(own)


def collect_again(rows: int, folder: Path) -> Callable[[], Any]:
    """Collect them a second time, from what the first has kept."""
    job, own = opened("good", rows, folder), frame(rows)
    job.collect(own)
    return lambda: job.collect(own)


VERBS: dict[str, tuple[str, str, Callable[[int, Path], Callable[[], Any]]]] = {
    "regenerate": ("`regenerate`, every row malformed", "bad", regenerate),
    "report": ("`report`", "good", report),
    "reuse": ("`submit` again with one new row", "good", reuse),
    "flagged": ("`flagged`, every row malformed", "bad", flagged),
    "import": ("`import_responses`", "sent", imported),
    "collect": ("`collect`", "good", collect),
    "again": ("`collect` a second time", "good", collect_again),
}


def run(name: str, rows: int, folder: Path) -> dict[str, float] | str:
    """Run this script for one figure, in a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--rows", str(rows)]
    command += ["--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: dict[tuple[str, int], dict[str, float] | str]) -> Iterator[str]:
    """Yield the table's lines: a line for each verb, columns for each number of rows."""
    counts = list(dict.fromkeys(rows for _, rows in found))
    heads = [f"{rows:,} rows: MB | of which given, MB | CPU, s" for rows in counts]
    yield f"| verb, peak above the frame | {' | '.join(heads)} |"
    yield "|---" + "|--:" * 3 * len(counts) + "|"
    for name in dict.fromkeys(name for name, _ in found):
        cells = [cell for rows in counts for cell in cells_of(found.get((name, rows), "not run"))]
        yield f"| {VERBS[name][0]} | {' | '.join(cells)} |"


def cells_of(figures: dict[str, float] | str) -> list[str]:
    """Return the cells of one measurement."""
    if isinstance(figures, str):
        return [figures, "", ""]
    given = f"{figures['result_mb']:,.0f}" if figures["result_mb"] else ""
    return [f"{figures['peak_mb']:,.0f}", given, f"{figures['cpu']:,.1f}"]


def main() -> None:
    """Measure one verb, or all in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="100000,300000,1000000")
    parser.add_argument("--only", default=",".join(VERBS))
    parser.add_argument("--folder", type=Path, help="scratch space; deleted unless given")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--make", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make, int(options.rows), options.folder)
        return
    if options.one:
        for rows in (WARM_ROWS, int(options.rows)):  # what is imported late is no verb's own
            found_once = measured(VERBS[options.one][2](rows, options.folder))
        print(json.dumps(found_once))
        return
    found: dict[tuple[str, int], dict[str, float] | str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        for rows in map(int, options.rows.split(",")):
            for name in options.only.split(","):
                for count in (WARM_ROWS, rows):
                    command = [sys.executable, __file__, "--make", VERBS[name][1]]
                    command += ["--rows", str(count), "--folder", str(folder)]
                    subprocess.run(command, check=True)
                found[name, rows] = run(name, rows, folder)
                print(f"{name}, {rows:,} rows: {found[name, rows]}", file=sys.stderr, flush=True)
            if options.folder is None:
                for each in folder.iterdir():
                    shutil.rmtree(each) if each.is_dir() else each.unlink()
    lines = "\n".join(table(found))
    others = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"{lines}\n\nOne run each; load averages at the end: {others}.")


if __name__ == "__main__":
    main()
