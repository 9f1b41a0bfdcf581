"""Clocks that are set back or ahead by a day: nobody waits for it, and nothing is paid twice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from audit import ASK, check_paid, check_rows, finish, shelf
from batch_server import BatchServer

from frameenrich.model import Batch, Limits
from frameenrich.providers.gemini.batch import _heard
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.job import Job

DAY = 86_400.0
# Each with how long a doubt lasts: no test waits for the longer one.
AT: dict[str, tuple[dict[str, Any], float]] = {
    "queue": ({"name": "token_limit_exceeded"}, 900),
    "create in doubt": ({"name": "closed_before", "where": "POST /v1/batches"}, 0.05),
    "create whose answer is lost": ({"name": "accepted_then_500"}, 900),
    "files that fall short": ({"name": "late_files", "looks": 3}, 900),
    "run": ({"name": "http_503", "where": "GET /v1/batches/*"}, 900),
}


@pytest.fixture
def frame() -> pd.DataFrame:
    """Twelve rows."""
    return shelf()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the wall clock is ahead by; the monotonic one goes on, as it does."""
    ahead, own = [0.0], time.time
    monkeypatch.setattr(time, "time", lambda: own() + ahead[0])
    return ahead


@pytest.mark.parametrize("jump", [-DAY, DAY], ids=["back", "ahead"])
@pytest.mark.parametrize("moment", AT)
def test_a_jump_of_the_clock_costs_neither_time_nor_money(
    moment: str,
    jump: float,
    frame: pd.DataFrame,
    client: openai.OpenAI,
    store: Path,
    server: BatchServer,
    clock: list[float],
) -> None:
    """Promise 3, at each wait that is written down; `finish` gives a day's wait no time."""
    fault, confirm_seconds = AT[moment]
    server.faults.add(**fault)
    provider = OpenAIBatch(client, attempts=2, wait_seconds=0.01)
    provider.limits = Limits(queue_wait_seconds=0.05)
    job: Job = frame.llmbatch.submit(
        ASK, "gpt-4o-mini", provider=provider, store=store, confirm_seconds=confirm_seconds
    )
    frame.llmbatch.collect(job)

    clock[0] = jump
    out = finish(frame, job)

    # A clock that is set ahead ends a doubt: what is missing then is looked for before it is asked.
    if "missing" in set(out["llmbatch_status"]):
        assert (moment, jump) == ("files that fall short", DAY)
        out = finish(frame, job.regenerate())
    check_rows(out, frame)
    assert set(server.executed.values()) == {1}


@pytest.mark.parametrize("jump", [-DAY, DAY], ids=["back", "ahead"])
def test_the_newest_job_is_the_one_that_was_made_last(
    jump: float,
    frame: pd.DataFrame,
    provider: OpenAIBatch,
    store: Path,
    server: BatchServer,
    clock: list[float],
) -> None:
    """`collect` without a job takes it, whatever the clock said when each was made."""
    first = frame.llmbatch.submit(ASK, "gpt-4o-mini", provider=provider, store=store)
    clock[0] = jump
    second = frame.llmbatch.submit(ASK, "gpt-4o", provider=provider, store=store)

    assert frame.llmbatch.job(store=store).id == second.id != first.id
    check_paid(server, batches=2)


def test_a_file_that_came_before_the_clock_was_set_back_is_not_waited_for_a_day() -> None:
    """Gemini's word of the end comes before its file, for which there are some minutes."""
    ended_tomorrow = Batch("tag", id="batches/1", ended_at=time.time() + DAY)
    reply = {"name": "batches/1", "metadata": {"state": "BATCH_STATE_SUCCEEDED"}}

    heard = _heard(ended_tomorrow, reply, ())

    assert heard.ended_at is not None
    assert heard.ended_at <= time.time()
