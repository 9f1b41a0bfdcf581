"""Promise 3: a kill -9 at any step loses nothing and pays for nothing twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kill_matrix import FAULTS

EVERY = 20
"""Here each 20th step; `python tests/kill_matrix.py` kills at every one (tests/README.md)."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_killed_anywhere_is_finished_by_the_next_run(fault: str) -> None:
    """Rows lost 0, requests executed twice 0, one batch a shard, under each service fault."""
    randoms = "10" if fault == "none" else "0"
    script = str(Path(__file__).parent / "kill_matrix.py")

    done = subprocess.run(
        [sys.executable, script, "--faults", fault, "--every", str(EVERY), "--random", randoms],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    steps, kills, rows, *bad = map(int, done.stdout.splitlines()[-1].split()[1:])
    assert steps >= 250
    assert kills >= steps // EVERY
    assert rows >= 6 * kills
    assert bad == [0, 0, 0, 0]
