"""Replies of the wrong shape are doubt, not facts: nothing is sent twice, no answer is another's.

The test server does the work and then answers 200 with another body, as gateways and caches do.
"""

from __future__ import annotations

import json
from pathlib import Path

import openai
import pandas as pd
import pytest
from audit import ASK, check_paid, check_rows, finish, shelf
from batch_server import BatchServer

from frameenrich.errors import ProviderError
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.job import Job

NO_BATCH = [
    pytest.param(b"[" * 3000, id="brackets"),
    b"{}",
    b"[]",
    b"null",
    b'{"error": {"message": "busy"}}',
    b'"moved"',
]


@pytest.fixture
def frame() -> pd.DataFrame:
    """Twelve rows."""
    return shelf()


@pytest.fixture
def provider(client: openai.OpenAI) -> OpenAIBatch:
    """The provider with short waits."""
    made = OpenAIBatch(client, attempts=3, wait_seconds=0.01)
    made.limits = Limits(queue_wait_seconds=0.05)
    return made


def submit(frame: pd.DataFrame, provider: OpenAIBatch, store: Path) -> Job:
    """Submit with the usual template."""
    job: Job = frame.llmbatch.submit(ASK, "gpt-4o-mini", provider=provider, store=store)
    return job


@pytest.mark.parametrize("body", NO_BATCH)
def test_a_poll_that_tells_of_no_batch(
    body: bytes, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 2: looked past once or twice, told when it stays, and never a reason to resend."""
    job = submit(frame, provider, store)
    server.faults.add("odd_body", times=3, body=body)

    with pytest.raises(ProviderError, match="something that is no batch") as caught:
        finish(frame, job)

    assert "Nothing is lost" in str(caught.value)
    server.faults.add("odd_body", times=2, body=body)
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("trait", ["id", "tag"])
def test_a_poll_that_tells_of_another_batch(
    trait: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: a cache that mixes batches up gives no row the answers of another job."""
    other = submit(frame.assign(title=frame["title"] + " of theirs"), provider, store)
    finish(frame.assign(title=frame["title"] + " of theirs"), other)
    theirs = provider._client.batches.list().data[0].to_dict()
    job = submit(frame, provider, store)
    mine = provider._client.batches.list().data[0].id
    body = json.dumps(theirs if trait == "id" else {**theirs, "id": mine}).encode()
    server.faults.add("odd_body", times=3, body=body)

    with pytest.raises(ProviderError, match=r"another batch|does not carry this job's tag"):
        finish(frame, job)

    check_rows(finish(frame, job), frame)
    assert len(provider._client.batches.list().data) == 2
    assert list(server.executed_bodies.values()) == [1] * 2 * len(frame)


def test_a_cancel_whose_reply_tells_nothing(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """The batch is looked at instead: it is being cancelled, and is not made again."""
    server.hold("in_progress")
    job = submit(frame, provider, store)
    server.faults.add("odd_body", where="POST /v1/batches/*/cancel")

    job.cancel()

    server.release()
    out = finish(frame, job)
    assert set(out["llmbatch_status"]) <= {"ok", "cancelled"}
    assert len(provider._client.batches.list().data) == 1


@pytest.mark.parametrize("body", NO_BATCH)
def test_a_create_that_answers_no_batch(
    body: bytes, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 2: it was accepted all the same, is found by its tag, and is not made again."""
    server.faults.add("odd_body", where="POST /v1/batches", times="always", body=body)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("body", [b"{}", b'{"object": "list", "data": null}'])
def test_a_list_that_is_none_proves_nothing(
    body: bytes, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 2: a lost create is not made again because a gateway answered with no list."""
    server.faults.add("accepted_then_500")
    server.faults.add("odd_body", where="GET /v1/batches", times=1, body=body)

    out = finish(frame, submit(frame, provider, store))

    check_rows(out, frame)
    check_paid(server, batches=1)
