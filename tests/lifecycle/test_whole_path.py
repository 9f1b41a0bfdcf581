"""The whole path on a thousand rows, for each provider, with all that goes wrong on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest
from crash import control, ledger, server_process, start
from kill_matrix import SERVICES, Service

import frameenrich
from frameenrich.model import Limits
from frameenrich.verbs.job import Job

pytestmark = pytest.mark.any_pandas
ROWS, A_SHARD = 1000, 300
PROVIDERS = ["openai", "anthropic", "mistral", "gemini"]


@pytest.fixture(params=PROVIDERS)
def service(request: pytest.FixtureRequest) -> Service:
    """Each provider in turn."""
    return SERVICES[request.param]


@pytest.fixture
def base_url(service: Service) -> Iterator[str]:
    """Its server, in a process of its own that survives a kill."""
    with server_process(service.server, **service.options) as url:
        yield url


@pytest.fixture(autouse=True)
def connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the clients that the services make, and leave open for a fork."""
    made: list[httpx2.Client] = []

    class Kept(httpx2.Client):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(httpx2, "Client", Kept)
    yield
    for client in made:
        client.close()


def frame() -> pd.DataFrame:
    """Rows whose answers name them."""
    keys = [f"k{i:04d}" for i in range(ROWS)]
    return pd.DataFrame({"text": [f"item {key}" for key in keys]}, index=keys)


def submit(service: Service, base_url: str, store: Path) -> Job:
    """Submit in shards of 300; the same call goes on after a kill."""
    provider = service.connect(base_url)
    provider.limits = Limits(max_requests=A_SHARD, queue_wait_seconds=0.01)
    job: Job = frame().llmbatch.submit(
        "{{ text }}", "m", provider=provider, store=store, params={"max_tokens": 50},
        confirm_seconds=2,  # the killed process may have left a create on its way
        probe=False,  # what runs is counted exactly, and one in three calls fails
    )  # fmt: skip
    return job


def killed_when_two_batches_are_made(service: Service, base_url: str, store: Path) -> None:
    """Submit and wait in another process, and kill it -9 on the way."""

    def work() -> None:
        submit(service, base_url, store).wait(poll_seconds=0.01)

    child = start(work)
    deadline = time.monotonic() + 60
    while len(ledger(base_url)["batches"]) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def counts(out: pd.DataFrame) -> dict[str, int]:
    """How many rows have each status."""
    found = out["llmbatch_status"].value_counts().to_dict()
    return {str(status): int(n) for status, n in found.items() if n}


@pytest.mark.timeout(180)
def test_a_thousand_rows(service: Service, base_url: str, store: Path) -> None:
    """Promises 1 to 4: a third fails, creates are lost, a batch expires, one is cancelled, kill -9.

    Two rounds of regenerate; at the end each row has its own answer or its reason, no request ran
    twice, and what was asked is what was missing.
    """
    failing: dict[str, Any] = {"fraction": 1 / 3, "seed": 1, "times": "always"}
    control(base_url, "add", name="http_error", status=500, **failing)
    control(base_url, "add", name="accepted_then_closed", where=service.create)
    control(base_url, "add", name="accepted_then_500", where=service.create)
    control(base_url, "add", name="expired_silently" if "anth" not in service.server else "expired",
            ran=0.5)  # fmt: skip
    control(base_url, "add", name="cancelled", ran=0.5)

    killed_when_two_batches_are_made(service, base_url, store)
    job = submit(service, base_url, store).wait(poll_seconds=0.01, timeout=60)
    rounds = [job.collect(frame())]
    for _ in range(2):
        job.regenerate(feedback=False).wait(poll_seconds=0.01, timeout=60)
        rounds.append(frameenrich.open_job(job.id, store).collect(frame()))

    first, second, third = map(counts, rounds)
    flagged = [ROWS - found.get("ok", 0) for found in (first, second, third)]
    assert first["expired"] == first["cancelled"] == A_SHARD // 2
    assert first["ok"] + first["failed"] == ROWS - A_SHARD
    assert set(second) == set(third) == {"ok", "failed"}
    assert flagged[0] > 3 * flagged[2] > 0
    out = rounds[-1]
    good = out["llmbatch_status"] == "ok"
    assert out["llmbatch"][good].tolist() == [f"echo: {text}" for text in out["text"][good]]
    executed = ledger(base_url)["executed"]
    assert max(executed.values()) == 1
    assert sum(executed.values()) == ROWS - A_SHARD + flagged[0] + flagged[1]
