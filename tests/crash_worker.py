"""Does one job's steps, each in a process of its own that may be told to kill itself.

Reads a JSON command a line from standard input, ``{"op": "poll", "kill_at": 17}``, forks, and
answers with a JSON line: how the child ended and what it found.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx2
import openai
import pandas as pd
from crash import KillPoint, forked, watch

from frameenrich.errors import FrameEnrichError
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.find import find_job
from frameenrich.verbs.job import Job


def frame_of(name: str, rows: int) -> pd.DataFrame:
    """Rows whose answers name them."""
    keys = [f"{name}r{i}" for i in range(rows)]
    return pd.DataFrame({"text": [f"item {key}" for key in keys]}, index=keys)


class Steps:
    """The verbs of one job, as a user has them in a fresh session."""

    def __init__(self, command: dict[str, Any]) -> None:
        plain = httpx2.Client(verify=False)
        client = openai.OpenAI(
            api_key="sk-test", base_url=command["base_url"], http_client=plain, max_retries=0
        )
        self.provider = OpenAIBatch(client, attempts=8, wait_seconds=0.002)
        self.provider.limits = Limits(max_requests=2, queue_wait_seconds=0.01)
        self.store = command["store"]
        self.frame = frame_of(command["name"], command["rows"])

    def submit(self) -> None:
        """Also what goes on after a crash."""
        self._submit()

    def _submit(self) -> Job:
        job: Job = self.frame.llmbatch.submit(
            "{{ text }}", "m", response_model={"text": str}, prefix="out_",
            provider=self.provider, store=self.store, confirm_seconds=0.02,
        )  # fmt: skip
        return job

    def _found(self) -> Job:
        return find_job(self.frame, self.store, provider=self.provider)

    def poll(self) -> None:
        """Collect without waiting: every row has exactly one status."""
        out = self._found().collect(self.frame)
        assert out["llmbatch_status"].notna().all()

    def regenerate(self) -> None:
        """Send what is flagged now."""
        self._found().regenerate(feedback=False)

    def finish(self) -> dict[Any, Any]:
        """Go on until every row is ok."""
        job = self._submit()
        for _ in range(8):
            job.wait(poll_seconds=0.001, timeout=30)
            if job.flagged().empty:
                break
            job.regenerate(feedback=False)
        out = job.collect(self.frame.sample(frac=1, random_state=1))
        found = out[["text", "out_text", "llmbatch_status"]].astype(object)
        answers: dict[Any, Any] = found.to_dict("index")
        return answers


def do(command: dict[str, Any], report: Path) -> None:
    """Carry out one command in this process."""
    watch(KillPoint(command.get("kill_at", 0)))
    try:
        result = getattr(Steps(command), command["op"])()
        report.write_text(json.dumps({"ended": "done", "result": result}))
    except FrameEnrichError as error:
        report.write_text(json.dumps({"ended": type(error).__name__, "says": str(error)}))


def main() -> None:
    """Serve commands until standard input closes."""
    for line in sys.stdin:
        command = json.loads(line)
        report = Path(command["store"]).parent / "report.json"
        report.unlink(missing_ok=True)
        status = forked(lambda c=command, r=report: do(c, r))  # type: ignore[misc]
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        crashed = {"ended": "killed" if killed else f"exit status {status}"}
        answer = json.loads(report.read_text()) if status == 0 else crashed
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
