"""Promise 3: a kill -9 at any step loses nothing and pays for nothing twice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import warm
from kill_matrix import FAULTS, IN_FLIGHT

pytestmark = pytest.mark.any_pandas
EVERY = 90
"""Here each 90th step, in `.ci/run` each 20th, in `.ci/long` every one (tests/README.md)."""


OTHERS = [
    ("azure", "create made; connection closed"),
    ("together", "create made; answered 500"),
    ("mistral", "create made; answered 500"),
    ("gemini", "create made; connection closed"),
    ("finish_azure", "create made; connection closed"),
    ("anthropic", "none"),
    ("anthropic", "create made; connection closed"),
]
"""What the other providers' own ways of finding a lost batch are tried with here."""


def matrix(*arguments: str) -> list[int]:
    """Run a row of the matrix; its numbers, from steps to orphan files."""
    script = str(Path(__file__).parent.parent / "kill_matrix.py")
    done = warm.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [int(number) for number in done.stdout.splitlines()[-1].split()[1:]]


@pytest.mark.parametrize(
    "fault", ["none", pytest.param("create made; answered 500", marks=pytest.mark.slow)]
)
def test_a_job_killed_anywhere_is_finished_by_the_next_run(fault: str) -> None:
    """Rows lost 0, requests executed twice 0, one batch a shard.

    `.ci/run` does the same under each service fault, at four times as many steps.
    """
    assert fault in FAULTS
    randoms = "3" if fault == "none" else "0"

    steps, kills, rows, *bad = matrix("--faults", fault, "--every", str(EVERY), "--random", randoms)

    assert steps >= 250
    assert kills >= steps // EVERY
    assert rows >= 6 * kills
    assert bad == [0, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("service", "fault"), OTHERS)
def test_so_it_is_with_other_providers(service: str, fault: str) -> None:
    """The same through Azure's and Together's dialects, and where batches carry no name of ours."""
    wishes = ["--service", service, "--faults", fault, "--every", "90", "--random", "2"]
    steps, kills, rows, *bad = matrix(*wishes)

    assert steps >= 180
    assert kills >= steps // 90
    assert rows >= 6 * kills
    assert bad == [0, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service", "fault", "every"), [("live", "503 anywhere", 40), ("finish", "none", 90)]
)
def test_live_calls_killed_anywhere_cost_what_was_in_flight(
    service: str, fault: str, every: int
) -> None:
    """Rows lost 0; executed once more at most the calls that a kill found under way.

    So it is with a job of its own, and where `finish` asks live what stuck batches left.
    """
    wishes = ["--service", service, "--faults", fault, "--every", str(every), "--random", "0"]
    steps, kills, rows, lost, twice, *bad = matrix(*wishes)

    assert steps >= 100
    assert kills >= steps // every
    assert rows >= 6 * kills
    assert lost == 0
    assert twice <= kills * IN_FLIGHT
    assert bad == [0, 0]
