"""Any order of submit, poll, fault, kill, resume, regenerate and collect ends with every row."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest
import warm
from crash import control, ledger, server_process
from draws import examples
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

pytestmark = pytest.mark.any_pandas
ROWS = 5
FAULTS: list[dict[str, Any]] = [
    {"name": "accepted_then_500"},
    {"name": "accepted_then_closed"},
    {"name": "accepted_then_closed", "where": "POST /v1/files"},
    {"name": "http_503", "times": 2},
    {"name": "rate_limited", "where": "POST /v1/batches", "retry_after": 0},
    {"name": "html_502"},
    {"name": "not_json"},
    {"name": "truncated_download"},
    {"name": "short_download"},
    {"name": "cannot_find_file"},
    {"name": "token_limit_exceeded"},
    {"name": "fails_after_validating"},
    {"name": "unknown_status"},
    {"name": "null_counts"},
    {"name": "null_errors"},
    {"name": "all_lines_failed"},
    {"name": "error_file_id_empty_string"},
    {"name": "expired", "ran": 0.5},
    {"name": "expired_silently", "ran": 0.5},
    {"name": "cancelled", "ran": 0.5},
    {"name": "stranger_line"},
    {"name": "null_custom_id", "times": 1},
    {"name": "duplicate_line", "times": 1},
    {"name": "unparseable_line", "times": 1},
    {"name": "malformed", "times": 1},
    {"name": "http_error", "times": 1},
    {"name": "missing", "times": 1},
    {"name": "status_zero", "times": 1},
    {"name": "truncated", "times": 1},
]
# No kill, or one at some step; a submit has about 120 steps, a poll about 60.
KILLS = st.one_of(st.just(0), st.integers(1, 150))


class JobMachine(RuleBasedStateMachine):
    """One job at one server; steps run in processes that may be killed."""

    stack: ClassVar[ExitStack]
    base_url: ClassVar[str]
    worker: ClassVar[subprocess.Popen[str]]
    numbers: ClassVar[itertools.count[int]] = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        self.name = f"m{next(self.numbers)}"
        self.folder = tempfile.TemporaryDirectory()
        self.submitted = False
        control(self.base_url, "clear")

    def do(self, op: str, kill_at: int = 0) -> dict[str, Any]:
        """One step in a process of its own; how it ended."""
        command = {
            "op": op,
            "kill_at": kill_at,
            "name": self.name,
            "rows": ROWS,
            "base_url": self.base_url,
            "store": str(Path(self.folder.name) / "store"),
        }
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        self.worker.stdin.write(json.dumps(command) + "\n")
        self.worker.stdin.flush()
        answer: dict[str, Any] = json.loads(self.worker.stdout.readline())
        return answer

    @rule(kill_at=KILLS)
    def submit(self, kill_at: int) -> None:
        """Submit, or the same submit again."""
        ended = self.do("submit", kill_at)["ended"]
        assert ended in {"done", "killed", "ProviderError"}
        self.submitted |= ended == "done"

    @precondition(lambda self: self.submitted)
    @rule(kill_at=KILLS)
    def poll(self, kill_at: int) -> None:
        """Collect without waiting, in a new session."""
        assert self.do("poll", kill_at)["ended"] in {"done", "killed", "ProviderError"}

    @precondition(lambda self: self.submitted)
    @rule(kill_at=KILLS)
    def regenerate(self, kill_at: int) -> None:
        """Send again what is flagged by now."""
        assert self.do("regenerate", kill_at)["ended"] in {"done", "killed", "ProviderError"}

    @rule(fault=st.sampled_from(FAULTS))
    def fault(self, fault: dict[str, Any]) -> None:
        """Something will go wrong at the server."""
        control(self.base_url, "add", **fault)

    def teardown(self) -> None:
        """Without further faults, a clean run ends with every row's own answer, paid once."""
        control(self.base_url, "clear")
        answer = self.do("finish")
        assert answer["ended"] == "done", answer
        rows = answer["result"]
        assert len(rows) == ROWS
        for row in rows.values():
            assert row["llmbatch_status"] == "ok", rows
            assert row["text"] in row["out_text"]
        executed = ledger(self.base_url)["executed"]
        mine = {k: n for k, n in executed.items() if f"row-{self.name}r" in k}
        assert max(mine.values()) == 1, mine
        self.folder.cleanup()


def test_every_history_of_a_job_ends_well() -> None:
    """Promises 1 to 4 under histories that nobody thought of."""
    script = str(Path(__file__).parent.parent / "crash_worker.py")
    with ExitStack() as stack:
        JobMachine.base_url = stack.enter_context(server_process())
        JobMachine.worker = stack.enter_context(
            warm.Popen(
                [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(JobMachine.worker.kill)
        machine = JobMachine.TestCase
        machine.settings = examples(
            5, stateful_step_count=12, suppress_health_check=list(HealthCheck)
        )
        machine().runTest()
