"""The whole way at servers with habits of their own: rows lost 0, requests executed twice 0.

Stores have habits, too: `store/test_bucket.py` has a server that knows half of the conditions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import openai
import pytest
from audit import ASK, check_rows, finish, shelf
from batch_server import BatchServer
from batch_server.habits import HABITS, give

from frameenrich.errors import ProviderError
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.job import Job

T = TypeVar("T")


def patiently(verb: Callable[[], T]) -> T:
    """Call as somebody does who reads "call again later"."""
    for _ in range(30):
        with contextlib.suppress(ProviderError):
            return verb()
    return verb()


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.filterwarnings("ignore:.*is shown as far as it is here")
def test_the_whole_way(habit: str, store: Path, client: openai.OpenAI, server: BatchServer) -> None:
    """Promises 1 to 4: submit, wait, collect, regenerate, and a frame with one row more."""
    provider = OpenAIBatch(client, attempts=3, wait_seconds=0.01)
    provider.limits = Limits(max_requests=6, queue_wait_seconds=0.01)
    frame, more = shelf(12), shelf(13)
    server.faults.add("empty", where=["row-T-03"], times=1)
    give(server, habit)

    def submit(rows: int) -> Job:
        # However slow the machine is, what is in doubt is looked for and not made again.
        options = {"provider": provider, "store": store, "confirm_seconds": 900}
        made: Job = shelf(rows).llmbatch.submit(ASK, "gpt-4o-mini", **options)
        return made

    job = patiently(lambda: submit(12))
    patiently(lambda: job.wait(poll_seconds=0.01, timeout=60))
    check_rows(patiently(lambda: finish(frame, job)), frame, {"T-03": "empty"})
    patiently(lambda: job.regenerate(feedback=False))
    check_rows(patiently(lambda: finish(frame, job)), frame)
    longer = patiently(lambda: submit(13))
    check_rows(patiently(lambda: finish(more, longer)), more)

    assert server.faults.fired.total() >= len(HABITS[habit])
    assert set(server.executed.values()) == {1}
    assert len(server.executed) == 12 + 1 + 1  # the row that was asked again has another name
