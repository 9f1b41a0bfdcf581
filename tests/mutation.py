"""Test the tests: change the code that guards answers and money, and see whether one fails.

    uv run --group mutation python tests/mutation.py [--sample 200] [--minutes 300]

Cosmic Ray changes one thing in one module at a time (an operator, a number, a condition), in a copy
of this checkout, and runs the tests of that module's folder. A mutant that no test notices has
survived: it is printed, and is a test to write or a change that changes nothing. A random sample is
taken of each folder, so that the score is an estimate of all.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "store": "tests/store/test_store.py tests/store/test_syncs.py tests/lifecycle/test_damage.py",
    "lifecycle": "tests/lifecycle tests/verbs/test_job.py",
    "identity": "tests/identity tests/prepare/test_plan.py",
    "answers": "tests/answers",
}
"""The folders that are mutated, and the tests that have to notice."""


CONFIG = """
[cosmic-ray]
module-path = "frameenrich/{folder}"
timeout = 300.0
excluded-modules = []
test-command = "{python} -m pytest -q -x -n 0 -p no:cacheprovider --timeout=120 {tests}"

[cosmic-ray.distributor]
name = "local"
"""


EXTRA_PATH = tuple(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))


def main() -> int:
    """Print each folder's score and its survivors; 1 where nothing was run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=200, help="mutants in all")
    parser.add_argument("--minutes", type=float, default=300, help="then no more are begun")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(FOLDERS), help="folders, with commas")
    asked = parser.parse_args()
    until = time.monotonic() + asked.minutes * 60
    with tempfile.TemporaryDirectory(prefix="frameenrich-mutants-") as temporary:
        copy = Path(temporary, "checkout")
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, copy, ignore=ignored)
        killed = run = 0
        folders = asked.only.split(",")
        for place, folder in enumerate(folders):
            left = (until - time.monotonic()) / (len(folders) - place)
            own, of = score(copy, folder, asked.sample // len(folders), asked.seed, left)
            killed, run = killed + own, run + of
    print(f"all: {killed} of {run} mutants were noticed")
    return 0 if run else 1


def score(copy: Path, folder: str, sample: int, seed: int, seconds: float) -> tuple[int, int]:
    """Run a sample of a folder's mutants; gives how many were noticed, and of how many."""
    config, session = copy / f"{folder}.toml", copy / f"{folder}.sqlite"
    config.write_text(CONFIG.format(folder=folder, python=sys.executable, tests=FOLDERS[folder]))
    _cosmic_ray(copy, "init", config, session)
    with sqlite3.connect(session) as books:
        order = "ORDER BY module_path, operator_name, operator_args, occurrence"  # ids are random
        every = [row[0] for row in books.execute(f"SELECT job_id FROM mutation_specs {order}")]
        chosen = random.Random(seed).sample(every, min(sample, len(every)))
        kept = ",".join(f"'{job_id}'" for job_id in chosen)
        for table in ("mutation_specs", "work_items"):
            books.execute(f"DELETE FROM {table} WHERE job_id NOT IN ({kept})")
    try:
        _cosmic_ray(copy, "exec", config, session, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        print(f"{folder}: the time was up")
    shutil.copytree(ROOT / "frameenrich", copy / "frameenrich", dirs_exist_ok=True)  # as it was
    with sqlite3.connect(session) as books:
        outcomes = dict(
            books.execute("SELECT test_outcome, count(*) FROM work_results GROUP BY test_outcome")
        )
        survivors = books.execute(
            "SELECT s.module_path, s.start_pos_row, s.operator_name FROM work_results r "
            "JOIN mutation_specs s ON s.job_id = r.job_id WHERE r.test_outcome = 'SURVIVED'"
        ).fetchall()
    run = sum(outcomes.values())
    print(f"{folder}: {run - len(survivors)} of {run} mutants were noticed, {len(every)} there are")
    for module, row, operator in sorted(survivors):
        print(f"  survived: {module}:{row} {operator}")
    return run - len(survivors), run


def _cosmic_ray(copy: Path, *words: object, timeout: float | None = None) -> None:
    """Run the tool in the copy, whose package is the one that its tests import."""
    running = subprocess.Popen(
        [sys.executable, "-m", "cosmic_ray.cli", *map(str, words)],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(copy), *EXTRA_PATH])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that the tests that it runs end with it
    )
    try:
        running.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        raise


if __name__ == "__main__":
    sys.exit(main())
