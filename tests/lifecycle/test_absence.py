"""Not to find a batch proves nothing by itself: lists are late, odd, cut short, or not there.

The test server does the work and loses the answer; its lists then have the habits of real ones.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import audit
import openai
import pandas as pd
import pytest
from audit import an_hour_passes, check_paid, check_rows, finish, shelf
from batch_server import BatchServer

from frameenrich.errors import ProviderError, WaitTimeoutError
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch

LIST = "GET /v1/batches"


@pytest.fixture
def frame() -> pd.DataFrame:
    """Twelve rows."""
    return shelf()


@pytest.fixture
def provider(client: openai.OpenAI) -> OpenAIBatch:
    """The provider with short waits, and few of them: looks go on in later steps."""
    made = OpenAIBatch(client, attempts=2, wait_seconds=0.01)
    made.limits = Limits(queue_wait_seconds=0.05)
    return made


# A doubt stays one, however slow the machine is.
submit = partial(audit.submit, confirm_seconds=900)


@pytest.mark.parametrize("loss", ["accepted_then_500", "accepted_then_closed"])
def test_a_list_that_shows_the_batch_late(
    loss: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: a lost create is not made again because the list does not have it yet."""
    server.faults.add(loss)
    server.faults.add("unlisted", times=4)

    job = submit(frame, provider, store)

    assert "unconfirmed" in str(job.status())
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("body", [b"{}", b'{"object": "list", "data": null}', b"[]", b"null"])
def test_a_list_of_another_shape_is_never_read_as_empty(
    body: bytes, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: whatever time passes, such an answer counts as none, and is told."""
    server.faults.add("accepted_then_500")
    server.faults.add("odd_body", where=LIST, times="always", body=body)

    for _ in range(3):
        with pytest.raises(ProviderError, match="no list of batches"):
            submit(frame, provider, store, confirm_seconds=0)

    server.faults.clear("odd_body")
    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_pages_that_overlap_are_read_to_their_end(
    overlap: int, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: an item that comes twice is no end of the list; ours is on a later page."""
    server.faults.add("accepted_then_500", where="POST /v1/batches")
    server.faults.add("http_500", where=LIST, times=2)
    with pytest.raises(ProviderError):
        submit(frame, provider, store)
    for n in range(6):  # of others, made since
        submit(shelf(1, first=20 + n), provider, store)
    server.page_items, server.page_overlap = 3, overlap

    check_rows(finish(frame, submit(frame, provider, store, confirm_seconds=0)), frame)
    check_paid(server, batches=7)


def test_a_later_page_that_fails_proves_nothing(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: half a list is none."""
    server.faults.add("accepted_then_500")
    server.faults.add("http_500", where=LIST, times=2)
    with pytest.raises(ProviderError):
        submit(frame, provider, store)
    for n in range(3):
        submit(shelf(1, first=20 + n), provider, store)
    server.page_items = 2
    later: Callable[..., bool] = lambda r: r.path == "/v1/batches" and "after" in r.query  # noqa: E731
    server.faults.add("http_500", where=later, times=2)

    with pytest.raises(ProviderError, match="HTTP 500"):
        submit(frame, provider, store, confirm_seconds=0)

    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=4)


def test_a_create_that_was_never_made_is_made_after_the_looks(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Doubt ends: what no list shows for so long is sent, once more."""
    server.faults.add("closed_before", where="POST /v1/batches")

    job = submit(frame, provider, store)

    assert not server.batches
    an_hour_passes(job)
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


def test_sends_of_one_shard_are_bounded(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: where every answer is lost and no list shows a batch, that ends, and is told."""
    provider.limits = Limits(max_requests=6)
    mine = "POST /v1/batches"
    server.faults.add("odd_body", where=mine, times="always", body=b"{}")
    server.faults.add("unlisted", times="always", newest=100)

    for _ in range(4):
        with contextlib.suppress(ProviderError):
            submit(frame, provider, store, confirm_seconds=0)
    with pytest.raises(ProviderError, match=r"was sent 3 times.*job\.give_up"):
        submit(frame, provider, store, confirm_seconds=0)

    assert len(server.batches) == 6  # of two shards


def test_a_store_restored_from_before_the_create(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: a resumed job is looked for by its tag before its first create."""
    server.faults.add("unauthorized", where="POST /v1/files")
    with pytest.raises(ProviderError):
        submit(frame, provider, store)
    backup = store.with_name("backup")
    shutil.copytree(store, backup)
    submit(frame, provider, store)
    shutil.rmtree(store)
    shutil.copytree(backup, store)

    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_a_server_without_a_list_still_gets_a_resumed_job(
    status: int, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """The look before a first create is a courtesy: a server that has no list is sent to."""
    server.faults.add("no_route", where=LIST, times="always", status=status)
    server.faults.add("unauthorized", where="POST /v1/files")
    with pytest.raises(ProviderError):
        submit(frame, provider, store)

    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=1)


def test_a_server_without_a_list_and_a_lost_create(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Nobody can find out, so nothing is sent again, and the message says what the user can do."""
    server.faults.add("no_route", where=LIST, times="always")
    server.faults.add("accepted_then_500")

    for _ in range(3):
        with pytest.raises(ProviderError, match=r"no list of batches.*job\.give_up"):
            submit(frame, provider, store, confirm_seconds=0)

    assert len(server.batches) == 1


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_a_list_of_files(
    status: int, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """An upload costs nothing: where it cannot be looked for, it is made again."""
    server.faults.add("no_route", where="GET /v1/files", times="always", status=status)
    server.faults.add("http_503", where="POST /v1/files")

    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=1)


def test_an_upload_that_was_cut_is_not_taken_for_the_file(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 1: a file found by its name is ours only at its full length."""
    server.faults.add("cut_upload")

    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=1, inputs=2)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"id": 7}'])
def test_an_upload_that_answers_no_file(
    body: bytes, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """It is found by its name; a reply of another shape is no raw error."""
    server.faults.add("odd_body", where="POST /v1/files", body=body)

    check_rows(finish(frame, submit(frame, provider, store)), frame)
    check_paid(server, batches=1)


def test_cancel_makes_no_batch_to_cancel(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A batch in doubt that proves never made is cancelled here, and not made for it."""
    server.faults.add("closed_before", where="POST /v1/batches")
    job = submit(frame, provider, store)
    with pytest.raises(ProviderError, match="not known yet"):
        job.cancel()
    an_hour_passes(job)

    job.cancel()

    assert set(job.collect(frame)["llmbatch_status"]) == {"cancelled"}
    assert not server.batches


def test_a_time_out_in_doubt_says_so(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 9: a create whose answer is lost may have been made; "nothing yet" would be wrong."""
    server.faults.add("accepted_then_500")
    server.faults.add("unlisted", times="always", newest=100)
    job = submit(frame, provider, store)

    with pytest.raises(WaitTimeoutError, match="is not known yet: call again later"):
        job.wait(timeout=0)

    server.faults.clear("unlisted")
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)
