"""What an ended batch left is counted: a look that came too early settles no row."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import audit
import openai
import pandas as pd
import pytest
from audit import check_paid, check_rows, finish, shelf
from batch_server import BatchServer

from frameenrich.errors import FrameEnrichWarning, ProviderError, WaitTimeoutError
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.find import find_job
from frameenrich.verbs.job import Job

CONTENT = "GET /v1/files/*/content"


@pytest.fixture
def frame() -> pd.DataFrame:
    """Twelve rows."""
    return shelf()


@pytest.fixture
def provider(client: openai.OpenAI) -> OpenAIBatch:
    """The provider with short waits."""
    return OpenAIBatch(client, attempts=2, wait_seconds=0.01)


submit = partial(audit.submit, confirm_seconds=900)


EARLY = [
    {"name": "late_files", "looks": 3},
    {"name": "half_written", "times": 4},
    {"name": "odd_body", "where": CONTENT, "times": 2, "body": b'{"error": {"message": "busy"}}'},
    {"name": "short_download", "times": 5},
    {"name": "no_route", "where": CONTENT, "times": 2, "status": 404},
]


@pytest.mark.parametrize("fault", EARLY, ids=lambda f: str(f["name"]))
def test_a_look_that_comes_too_early_is_looked_at_again(
    fault: dict[str, Any],
    frame: pd.DataFrame,
    provider: OpenAIBatch,
    store: Path,
    server: BatchServer,
) -> None:
    """Promise 4: no row is settled, and so paid again, by half of what comes."""
    server.faults.add(**fault)
    job = submit(frame, provider, store)
    out = frame.llmbatch.collect(job)
    while not job._session.job().read().settled:
        out = frame.llmbatch.collect(job)
        assert set(out["llmbatch_status"]) <= {"ok", "pending"}

    check_rows(out, frame)
    job.regenerate()
    check_paid(server, batches=1)


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_a_batch_that_says_nothing_of_what_it_did_is_looked_at_again(
    end: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 4: without counts, files named late are no sign that nothing was answered."""
    server.faults.add(end, ran=0.5)
    server.faults.add("late_files", looks=3)
    server.faults.add("null_request_counts")
    job = submit(frame, provider, store)
    out = frame.llmbatch.collect(job)
    while not job._session.job().read().settled:
        out = frame.llmbatch.collect(job)

    assert out["llmbatch_status"].value_counts().to_dict() == {"ok": 6, end: 6}
    assert sorted(server.executed.values()) == [1] * 6


def test_what_does_not_add_up_is_told(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 9: while it is looked at again, the status says why."""
    server.faults.add("late_files", looks=50)
    server.finish()
    job = submit(frame, provider, store)
    for _ in range(4):
        frame.llmbatch.collect(job)

    why = "counts 12 answers, and its files have 0 lines"
    assert why in str(job.status())
    with pytest.raises(WaitTimeoutError, match=why):
        job.wait(timeout=0)
    assert not job._session.job().read().settled


@pytest.mark.parametrize("fault", [{"name": "late_files", "looks": 99}, {"name": "missing"}])
def test_what_never_adds_up_is_missing_for_that_reason(
    fault: dict[str, Any],
    frame: pd.DataFrame,
    provider: OpenAIBatch,
    store: Path,
    server: BatchServer,
) -> None:
    """Promise 1: the wait is bounded, and each row says what did not add up."""
    server.faults.add(**fault)
    job = submit(frame, provider, store, confirm_seconds=0.05)

    out = finish(frame, job)

    check_rows(out, frame, dict.fromkeys(frame.index, "missing"))
    assert out["llmbatch_error"].str.contains("the batch counts 12 answers").all()


def test_answers_that_a_second_look_lacks_stay(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 4: a worse look takes nothing away from a better one."""
    server.faults.add("half_written", times=2)
    server.faults.add("odd_body", where=CONTENT, times="always", body=b"{}")
    job = submit(frame, provider, store)
    for _ in range(6):
        out = frame.llmbatch.collect(job)

    assert out["llmbatch_status"].value_counts().to_dict() == {"ok": 6, "pending": 6}
    server.faults.clear("odd_body")
    check_rows(finish(frame, job), frame)


def test_a_size_that_cannot_be_had_costs_no_answer(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 4: `files.retrieve` is a courtesy; the content alone is needed."""
    server.faults.add("http_500", where="GET /v1/files/file-*-output", times="always")

    check_rows(finish(frame, submit(frame, provider, store)), frame)


def test_an_error_file_that_is_gone_costs_no_good_answer(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 4: what the other file has is home."""
    server.faults.add("http_error", where="row-T-0[15]*")
    server.faults.add("no_route", where="GET /v1/files/*-error/content", times="always")

    out = finish(frame, submit(frame, provider, store, confirm_seconds=0.05))

    check_rows(out, frame, dict.fromkeys(["T-01", "T-05"], "missing"))


@pytest.mark.parametrize("when", ["before it ended", "after it ended"])
def test_one_of_two_batches_is_gone(
    when: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 4: the other's answers are home for every verb; the user says when to give up."""
    provider.limits = Limits(max_requests=6)
    job = submit(frame, provider, store)
    gone = min(server.batches)
    if when == "after it ended":
        server.finish()
    server.faults.add("no_route", where=f"*/v1/batches/{gone}*", times="always")
    home = dict.fromkeys(frame.index[6:], "ok")
    pending = dict.fromkeys(frame.index[:6], "pending")

    with pytest.warns(FrameEnrichWarning, match=r"as far as it is here.*404"):
        out = finish(frame, job)
    check_rows(out, frame, {**pending, **home})
    assert "not found at the provider" in str(job.status())
    with pytest.warns(FrameEnrichWarning, match="404"):
        job.regenerate()
    with pytest.warns(FrameEnrichWarning, match="404"):
        job.report(store / "report.html")
    with pytest.raises(ProviderError, match="404"):
        job.cancel()
    assert len(server.batches) == 2

    job.give_up()

    out = finish(frame, job)
    check_rows(out, frame, {**dict.fromkeys(pending, "missing"), **home})
    assert out["llmbatch_error"].iloc[0].startswith("the batch is lost at the provider")
    check_rows(finish(frame, job.regenerate()), frame)


def test_a_batch_that_is_there_is_not_given_up(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: the user's word alone loses nothing that the provider has."""
    server.hold("in_progress")
    job = submit(frame, provider, store).give_up()
    server.release()

    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


def test_what_is_home_is_read_offline_and_without_a_key(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 4: one shard that runs holds nothing up that is on disk."""
    provider.limits = Limits(max_requests=6)
    job = submit(frame, provider, store)
    server.hold("in_progress", max(server.batches))
    for _ in range(4):
        frame.llmbatch.collect(job)
    server.stop()
    statuses = {**dict.fromkeys(frame.index[:6], "ok"), **dict.fromkeys(frame.index[6:], "pending")}

    with pytest.warns(FrameEnrichWarning, match="as far as it is here"):
        check_rows(frame.llmbatch.collect(job), frame, statuses)
    keyless = find_job(frame, store)
    with pytest.warns(FrameEnrichWarning, match="API key"):
        check_rows(frame.llmbatch.collect(keyless), frame, statuses)
    with pytest.warns(FrameEnrichWarning, match="API key"):
        keyless.report(store / "report.html")


def test_cancel_goes_through_all(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A batch that has completed, or that fails to be cancelled, keeps no other one running."""
    provider.limits = Limits(max_requests=4)
    job = submit(frame, provider, store)
    first, second, third = sorted(server.batches)
    server.hold("in_progress", third)
    server.finish(first)
    server.faults.add("no_route", where=f"*/v1/batches/{second}*", times="always")

    with pytest.raises(ProviderError, match="404"):
        job.cancel()

    assert server.batches[third]["status"] == "cancelling"


def test_what_came_too_late_is_read_before_it_is_paid_again(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 4: a gateway's bad hour made rows missing; their answers are there all the time."""
    server.faults.add("odd_body", where=CONTENT, times="always", body=b"<html>busy</html>")
    job = submit(frame, provider, store, confirm_seconds=0.05)
    check_rows(finish(frame, job), frame, dict.fromkeys(frame.index, "missing"))
    server.faults.clear("odd_body")

    job.regenerate()

    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


def test_the_answers_of_another_job_are_no_answers(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 4: a cache that gives another file's lines settles no row as missing."""
    other = submit(shelf(12, first=50), provider, store)
    finish(shelf(12, first=50), other)
    theirs = b"".join(other._session.job().all_shards()[0].read_responses())
    server.faults.add("odd_body", where=CONTENT, times=2, body=theirs)

    job = submit(frame, provider, store)
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=2)


FAULTS = ["unauthorized", "http_503", "closed_before"]


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_cannot_be_had_end_at_the_users_word_alone(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promises 3 and 4: a wrong key gives no answer up; `force` does, and they may still come."""
    server.faults.add(fault, where=CONTENT, times="always")
    job = submit(frame, provider, store)
    with pytest.raises(ProviderError, match="did not download"):
        finish(frame, job)

    with pytest.raises(ProviderError, match=r"did not download.*give_up\(force=True\)"):
        job.give_up()

    assert not job._session.job().read().settled
    job.give_up(force=True)
    out = finish(frame, job)
    check_rows(out, frame, dict.fromkeys(frame.index, "missing"))
    assert out["llmbatch_error"].str.contains("did not download the file").all()
    server.faults.clear(fault)
    check_rows(finish(frame, job.regenerate()), frame)
    check_paid(server, batches=1)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_batch_that_cannot_be_looked_for_is_not_given_up(
    fault: str, frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 3: a create in doubt is looked for first; what a wrong key does not show may be."""
    server.faults.add("accepted_then_500")
    server.faults.add(fault, where="GET /v1/batches*", times="always")
    with contextlib.suppress(ProviderError):
        submit(frame, provider, store)
    job = Job(frame.llmbatch.job(store=store)._session.job(), provider=provider)

    with pytest.raises(ProviderError, match=r"did not create.*give_up\(force=True\)"):
        job.give_up()

    server.faults.clear(fault)
    job.give_up()
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


def test_what_no_list_shows_is_given_up(
    frame: pd.DataFrame, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A create in doubt that the provider's list does not have is lost at the user's word."""
    server.faults.add("closed_before", where="POST /v1/batches")
    job = submit(frame, provider, store)

    job.give_up()

    check_rows(finish(frame, job), frame, dict.fromkeys(frame.index, "missing"))
    check_rows(finish(frame, job.regenerate()), frame)
    check_paid(server, batches=1, inputs=2)
