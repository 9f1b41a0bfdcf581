"""Promise 3: what a running batch of the store has asked is waited for, and never asked twice."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import audit
import openai
import pandas as pd
import pytest
from audit import check_rows, finish, said, shelf
from batch_server import BatchServer, Reply
from crash import ledger, server_process, start

import frameenrich
from frameenrich.errors import BudgetError, FrameEnrichWarning, WaitTimeoutError
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs import submit as verbs_submit
from frameenrich.verbs.job import Job


@pytest.fixture
def provider(client: openai.OpenAI) -> OpenAIBatch:
    """The provider with short waits."""
    return OpenAIBatch(client, attempts=3, wait_seconds=0.01)


submit = partial(audit.submit, confirm_seconds=0.2)


def times(server: BatchServer) -> list[int]:
    """How often each request ran."""
    return sorted(server.executed_bodies.values())


def test_a_row_is_added_while_the_batch_runs(
    provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """The cell is run again with one row more: 101 requests run for 101 rows, not 201."""
    server.hold("in_progress")
    first = submit(shelf(100), provider, store)

    job = submit(shelf(101), provider, store)

    assert f"100 requests wait for {first.id}" in repr(job)
    assert "waiting" in str(job.status())
    server.release()
    check_rows(finish(shelf(101), job), shelf(101))
    check_rows(finish(shelf(100), first), shelf(100))
    assert times(server) == [1] * 101
    assert job.usage().requests == 1


def test_overlapping_submits_at_once(
    provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Four threads submit 54 different rows in frames that overlap: each is asked once."""
    frames = [shelf(51, first=n) for n in range(4)]

    with ThreadPoolExecutor(4) as threads:
        jobs = list(threads.map(lambda frame: submit(frame, provider, store), frames))
        outs = list(threads.map(finish, frames, jobs))

    for out, frame in zip(outs, frames, strict=True):
        check_rows(out, frame)
    assert times(server) == [1] * 54


def test_the_other_batch_ends_between_the_two_looks(
    provider: OpenAIBatch, store: Path, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: a batch fetched while a submit looks for it is answered or waited for."""
    server.hold("in_progress")
    first = submit(shelf(10), provider, store)
    looked = list[str]()

    def then_fetched(name: str) -> None:
        look = getattr(verbs_submit, name)

        def looks(*args: Any, **options: Any) -> Any:
            found = look(*args, **options)
            looked.append(name)
            if len(looked) == 1:  # after one look, before the other: what a process may do
                server.release()
                first.wait(poll_seconds=0.01)
            return found

        monkeypatch.setattr(verbs_submit, name, looks)

    then_fetched("find_running")
    then_fetched("find_stored_answers")
    job = submit(shelf(11), provider, store)

    assert len(looked) == 2
    check_rows(finish(shelf(11), job), shelf(11))
    assert times(server) == [1] * 11


def test_overlapping_submits_of_processes(store: Path) -> None:
    """As for threads: processes agree through the store."""
    frames = [shelf(21, first=n) for n in range(3)]

    def work(base_url: str, frame: pd.DataFrame) -> None:
        with openai.OpenAI(api_key="sk-test", base_url=base_url) as client:
            provider = OpenAIBatch(client, attempts=3, wait_seconds=0.01)
            check_rows(finish(frame, submit(frame, provider, store)), frame)

    with server_process() as base_url:
        import os

        children = [start(lambda f=frame: work(base_url, f)) for frame in frames]  # type: ignore[misc]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        assert sorted(ledger(base_url)["executed_bodies"].values()) == [1] * 23


@pytest.mark.parametrize("end", ["cancelled", "expired", "failed rows", "deleted"])
def test_what_the_other_batch_does_not_bring_is_sent(
    end: str, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Its answers are taken, and the rest is sent by whoever waits, once for all of them."""
    server.hold("in_progress")
    first = submit(shelf(10), provider, store)
    jobs = [submit(shelf(11 + n), provider, store) for n in range(2)]
    if end == "cancelled":
        with pytest.warns(
            FrameEnrichWarning, match=f"{jobs[0].id}.*wait for answers of {first.id}"
        ):
            first.cancel()
    elif end == "expired":
        server.faults.add("expired", where=min(server.batches))
    elif end == "failed rows":
        server.faults.add("http_error", where="row-T-0[0-4]*", times=5)
    else:
        server.faults.add("batch_not_found", where="GET /v1/batches/*1", times="always")
    server.release()

    for n, job in enumerate(jobs):
        check_rows(finish(shelf(11 + n), job), shelf(11 + n))

    if end in {"cancelled", "expired"}:
        assert times(server) == [1] * 12


def test_the_rest_is_sent_under_the_waiting_jobs_own_cap(
    provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """What was not paid at submit is looked at when it is to be: nothing of it is sent."""
    server.hold("in_progress")
    options = {"params": {"max_tokens": 1_000}, "prices": {"input": 1.0, "output": 10.0}}
    first = submit(shelf(10), provider, store, **options)
    job = submit(shelf(11), provider, store, max_cost=0.006, **options)
    with pytest.warns(FrameEnrichWarning, match="wait for answers"):
        first.cancel()
    server.release()
    first.wait(poll_seconds=0.01)

    with pytest.raises(BudgetError, match=r"max_cost is \$0\.006"):
        job.wait(poll_seconds=0.01, timeout=30)

    assert len(server.batches) == 2
    again = submit(shelf(11), provider, store, max_cost=1.0, **options)
    assert again.id == job.id
    check_rows(finish(shelf(11), again), shelf(11))
    assert times(server) == [1] * 11


def test_the_job_whose_cap_ends_the_wait_is_named(
    provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """Promise 9: the other job's answers were longer than they should be, and its rest waits."""
    provider.limits = Limits(max_requests=5)
    server.hold("in_progress")
    server.answer = lambda *_: Reply(content="word " * 20_000)
    options = {"params": {"max_tokens": 1_000}, "prices": {"input": 1.0, "output": 10.0}}
    first = submit(shelf(10), provider, store, max_cost=0.06, max_enqueued_tokens=300, **options)
    job = submit(shelf(11), provider, store, **options)
    server.release()

    with pytest.raises(BudgetError, match=rf"The job {first.id}, for whose .*Or cancel that job"):
        job.wait(poll_seconds=0.01, timeout=30)

    with pytest.warns(FrameEnrichWarning, match="wait for answers"):
        first.cancel()
    assert job.wait(poll_seconds=0.01, timeout=30).status().ended
    assert times(server) == [1] * 11


def test_a_cap_holds_for_a_job_that_exists(
    provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """`max_cost` is looked at when a job is gone on with, too: by the newest word."""
    provider.limits = Limits(max_requests=5)
    server.max_enqueued_tokens = 700
    options = {"params": {"max_tokens": 1_000}, "prices": {"input": 1.0, "output": 10.0}}
    server.faults.add("unauthorized", where="POST /v1/files", times="always")
    with pytest.raises(frameenrich.errors.ProviderError):
        submit(shelf(10), provider, store, **options)
    server.faults.clear()

    with pytest.raises(BudgetError, match=r"max_cost is \$0\.02"):
        submit(shelf(10), provider, store, max_cost=0.02, **options)

    assert not server.batches
    server.max_enqueued_tokens = None
    check_rows(
        finish(shelf(10), submit(shelf(10), provider, store, max_cost=1, **options)), shelf(10)
    )


def test_clean_names_who_waits(provider: OpenAIBatch, store: Path, server: BatchServer) -> None:
    """Answers that another job waits for are not deleted."""
    first = submit(shelf(5), provider, store)
    job = submit(shelf(6), provider, store)
    server.hold("in_progress", max(server.batches))
    finish(shelf(5), first)

    kept = frameenrich.clean("0h", store=store).set_index("name")["reason"]

    assert kept[first.id] == f"its answers are waited for by {job.id}"


def test_fresh_asks_anew(provider: OpenAIBatch, store: Path, server: BatchServer) -> None:
    """Whoever wants new answers pays for them."""
    server.hold("in_progress")
    submit(shelf(4), provider, store)
    job = submit(shelf(4), provider, store, fresh=True)
    server.release()

    check_rows(finish(shelf(4), job), shelf(4))
    assert len(server.batches) == 2


def imports(job: Job, title: str, folder: Path, *, status_code: int) -> None:
    """Import a line about one title: an answer, or an error."""
    lines = [line for path in job.requests for line in Path(path).read_text().splitlines()]
    (asked,) = (json.loads(line) for line in lines if f"{title}?" in line)
    choice = {"message": {"content": said(title)}, "finish_reason": "stop"}
    response = {"status_code": status_code, "body": {"choices": [choice]}}
    line = {"custom_id": asked["custom_id"], "response": response, "error": None}
    (folder / "one.jsonl").write_text(json.dumps(line) + "\n")
    job.import_responses(folder / "one.jsonl")


@pytest.mark.parametrize("cancelled", [False, True])
def test_an_import_of_some_rows_does_not_end_the_wait_for_the_others(
    cancelled: bool, provider: OpenAIBatch, store: Path, server: BatchServer, tmp_path: Path
) -> None:
    """Promise 3: what the other batch brings is not asked again, nor is what was imported."""
    server.hold("in_progress")
    first = submit(shelf(10), provider, store)
    job = submit(shelf(11), provider, store)
    imports(job, "thing 3", tmp_path, status_code=200)

    assert "waiting" in str(job.status())
    if cancelled:
        server.faults.add("cancelled", where=min(server.batches), ran=0.0)
        with pytest.warns(FrameEnrichWarning, match="wait for answers"):
            first.cancel()
    server.release()

    check_rows(finish(shelf(11), job), shelf(11))
    assert set(times(server)) == {1}


def test_an_imported_error_stands_in_no_answers_way(
    provider: OpenAIBatch, store: Path, server: BatchServer, tmp_path: Path
) -> None:
    """Promise 3: the row has the answer that the other batch was paid for."""
    server.hold("in_progress")
    submit(shelf(10), provider, store)
    job = submit(shelf(11), provider, store)

    imports(job, "thing 3", tmp_path, status_code=500)
    server.release()

    check_rows(finish(shelf(11), job), shelf(11))
    assert times(server) == [1] * 11


def test_it_waits_for_whoever_asks_it_now(
    provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """The other batch brings nothing, and a third job has asked it since: that one is polled."""
    server.hold("in_progress")
    first = submit(shelf(4), provider, store)
    job = submit(shelf(5), provider, store)
    server.faults.add("expired", ran=0.0)
    server.release()
    first.wait(poll_seconds=0.01)
    server.hold("in_progress")
    third = submit(shelf(6), provider, store)

    job.status()

    assert f"4 requests wait for {third.id}" in repr(job)
    server.release()
    check_rows(finish(shelf(5), job), shelf(5))
    check_rows(finish(shelf(6), third), shelf(6))
    assert times(server) == [1] * 6


@pytest.mark.timeout(30)
def test_it_waits_no_longer_than_its_caller_while_another_submit_decides(
    provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """A submit that asks its first row live holds the store for a minute; `wait` ends in time."""
    server.hold("in_progress")
    first = submit(shelf(3), provider, store)
    job = submit(shelf(4), provider, store)
    server.release()
    first.wait(poll_seconds=0.01)

    with job._session.job().store.deciding(), pytest.raises(WaitTimeoutError):
        job.wait(timeout=0.05, poll_seconds=0.01)

    assert f"3 requests wait for {first.id}" in repr(job)
    check_rows(finish(shelf(4), job), shelf(4))
    assert times(server) == [1] * 4
