"""Replies of the wrong shape are doubt, not facts: nothing is sent twice, no answer is another's.

The test server does the work and then answers 200 with another body, as gateways and caches do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import openai
import pandas as pd
import pytest
from audit import check_paid, check_rows, finish, shelf, submit
from batch_server import BatchServer
from batch_server.wire import Answer

from frameenrich.errors import ProviderError
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.providers.retries import surely_unmade

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


@pytest.mark.parametrize("body", NO_BATCH)
def test_a_poll_that_tells_of_no_batch(
    body: bytes, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 2: looked past once or twice, told when it stays, and never a reason to resend."""
    job = submit(frame, provider, store)
    server.faults.add("odd_body", times=3, body=body)

    with pytest.raises(ProviderError, match=r"something that is no (batch|answer)") as caught:
        finish(frame, job)

    assert "Nothing is lost" in str(caught.value)
    server.faults.add("odd_body", times=2, body=body)
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


class RefusingServer(BatchServer):
    """Takes no file, and says so in words that stand anywhere."""

    words = b""

    def route(self, request: Any) -> Answer:
        """Refuse every upload."""
        if request.method == "POST":
            return Answer(status=422, body=self.words)
        return super().route(request)


def test_a_refusals_words_are_said_wherever_they_stand(frame: pd.DataFrame, store: Path) -> None:
    """Promise 9: a text, a list, an error in an error, a page: not the status's number alone."""
    said = {
        b'{"error": "no room"}': "no room",
        b'{"error": ["no", "room"]}': "no; room",
        b'{"error": {"error": {"error": "no room"}}}': "no room",
        b'{"detail": {"error": "no room"}}': "no room",
        b'{"errors": ["no room"]}': "no room",
        b"no room": "no room",
        b"<html><title>No room</title></html>": "a web page: No room",
    }
    with (
        RefusingServer() as server,
        openai.OpenAI(api_key="k", base_url=server.base_url) as client,
    ):
        for server.words, words in said.items():
            with pytest.raises(ProviderError, match=rf": HTTP 422, {words}\. Nothing is lost"):
                submit(frame, OpenAIBatch(client, attempts=1), store)


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


ALIENS = [
    b'{"id": "batch_x", "status": "completed"}',
    b'{"id": "a/../b"}',
    b'{"id": 7, "status": "validating"}',
    b'{"id": "batch_x", "status": "validating", "metadata": {"frameenrich_tag": "another"}}',
]


@pytest.mark.parametrize("body", ALIENS)
def test_a_create_that_answers_a_batch_which_is_not_there(
    body: bytes, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: a reply without our tag is believed where the server knows the batch, too."""
    server.faults.add("odd_body", where="POST /v1/batches", body=body)

    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=1)


def test_a_gateways_page_after_a_create_is_no_refusal(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: its 429 in HTML may come after the call was passed on."""
    server.faults.add("html_429", where="POST /v1/batches")

    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=1)


class HastyServer(BatchServer):
    """Calls a batch completed in the reply to its create, before anything ran."""

    def create_batch(self, asked: dict[str, Any], project: str) -> dict[str, Any]:
        """Answer with an end that is none."""
        return {**super().create_batch(asked, project), "status": "completed"}


def test_an_end_without_any_count_is_looked_at_again(frame: pd.DataFrame, store: Path) -> None:
    """Promise 4: such rows are not missing; the batch has not even begun."""
    with (
        HastyServer() as server,
        openai.OpenAI(api_key="k", base_url=server.base_url) as client,
    ):
        provider = OpenAIBatch(client, wait_seconds=0.01)
        check_rows(finish(frame, submit(frame, provider, store)), frame)
        check_paid(server, batches=1)


@pytest.mark.parametrize(
    "said", [{"output_file_id": ["a"]}, {"total": "twelve"}, {"created_at": "now"}]
)
def test_words_of_another_type_never_make_a_job_unreadable(
    said: dict[str, Any], frame: pd.DataFrame, provider: OpenAIBatch, store: Path
) -> None:
    """Promise 6: what cannot be read back is not written, and the state stays as it was."""
    (shard,) = submit(frame, provider, store)._session.job().all_shards()
    before = shard.batch

    with pytest.raises(ProviderError, match="cannot be kept"):
        shard.save(before.replace(**said))

    (again,) = submit(frame, provider, store)._session.job().all_shards()
    assert again.batch.id == before.id


class MistakenServer(BatchServer):
    """Answers a create with an id that is nobody's."""

    def create_batch(self, asked: dict[str, Any], project: str) -> dict[str, Any]:
        """Answer with our tag, and with another id."""
        return {**super().create_batch(asked, project), "id": "batch_of_nobody"}


def test_a_create_that_answers_another_id_is_found_by_its_tag(
    frame: pd.DataFrame, store: Path
) -> None:
    """Promise 3: the first look gets a 404, and the list has the batch with our tag."""
    with (
        MistakenServer() as server,
        openai.OpenAI(api_key="k", base_url=server.base_url) as client,
    ):
        provider = OpenAIBatch(client, wait_seconds=0.01)
        check_rows(finish(frame, submit(frame, provider, store)), frame)
        check_paid(server, batches=1)


def test_an_upload_that_answers_another_shards_file(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: a cache's reply would make a batch of another job's requests, asked again."""
    other = submit(shelf(12, first=50), provider, store)
    finish(shelf(12, first=50), other)
    theirs = provider._client.files.list().data[-1].to_dict()
    assert str(theirs["filename"]).startswith(other.id)
    server.faults.add("odd_body", where="POST /v1/files", body=json.dumps(theirs).encode())

    check_rows(finish(frame, submit(frame, provider, store)), frame)

    check_paid(server, batches=2)


def test_a_redirect_to_nowhere_proves_nothing() -> None:
    """Promise 3: whoever redirects a create may have made the batch before."""
    elsewhere = httpx2.Request("GET", "http://127.0.0.1:9/done")
    own = httpx2.Request("POST", "http://127.0.0.1:9/v1/batches")

    assert not surely_unmade(httpx2.ConnectError("refused", request=elsewhere))
    assert surely_unmade(httpx2.ConnectError("refused", request=own))
