"""Promises 3 and 4: two processes on one store, one of which acts between two steps of the other.

Each test lets the other one act at the moment that matters, so none depends on time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from audit import ASK, check_rows, finish, shelf
from batch_server import BatchServer
from conftest import answer_lines, status_counts

import frameenrich
from frameenrich.errors import ProviderError, StoreError
from frameenrich.lifecycle import collect as lifecycle_collect
from frameenrich.verbs import regenerate as verbs_regenerate
from frameenrich.verbs import submit as verbs_submit
from frameenrich.verbs.job import Job
from frameenrich.verbs.probe import Probe

FAST: dict[str, Any] = {"poll_seconds": 0.01}


def submit(frame: pd.DataFrame, client: openai.OpenAI, store: Path, **options: Any) -> Job:
    """Submit with the usual template."""
    job: Job = frame.llmbatch.submit(
        ASK, "gpt-4o-mini", client=client, store=store, **{"confirm_seconds": 0.2, **options}
    )
    return job


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Callable[[], object]], None]:
    """Let something happen after a module's function has run for the first time."""

    def arrange(module: Any, name: str, act: Callable[[], object]) -> None:
        function, acts = getattr(module, name), [act]

        def and_then(*args: Any, **options: Any) -> Any:
            found = function(*args, **options)
            if acts:
                acts.pop()()
            return found

        monkeypatch.setattr(module, name, and_then)

    return arrange


def test_answers_that_a_submit_is_about_to_reuse_are_not_cleaned_away(
    client: openai.OpenAI, store: Path, server: BatchServer, after: Any
) -> None:
    """`clean` finds a job that a submit reads from at work, and leaves it."""
    first = submit(shelf(4), client, store).wait(**FAST)
    cleaned: list[pd.DataFrame] = []
    after(
        verbs_submit,
        "find_stored_answers",
        lambda: cleaned.append(frameenrich.clean("0h", store=store)),
    )

    job = submit(shelf(5), client, store)

    assert "submits a job" in cleaned[0].set_index("name")["reason"][first.id]
    check_rows(finish(shelf(5), job), shelf(5))
    assert set(server.executed_bodies.values()) == {1}


def test_a_job_that_a_submit_is_about_to_wait_for_is_not_cleaned_away(
    client: openai.OpenAI, store: Path, server: BatchServer, after: Any
) -> None:
    """It ends between the submit's look and its job: deleted then, its rows were paid twice."""
    server.hold("in_progress")
    first = submit(shelf(4), client, store)

    def ends_and_is_cleaned() -> None:
        server.release()
        first.wait(**FAST)
        frameenrich.clean("0h", store=store)

    after(verbs_submit, "find_stored_answers", ends_and_is_cleaned)
    job = submit(shelf(5), client, store)

    check_rows(finish(shelf(5), job), shelf(5))
    assert set(server.executed_bodies.values()) == {1}


def test_answers_withdrawn_while_they_are_reused_are_no_missing_rows(
    client: openai.OpenAI, store: Path, server: BatchServer, tmp_path: Path, after: Any
) -> None:
    """A submit that cannot copy what it found sends nothing and says so; the next one sends."""
    server.hold("in_progress")
    first = submit(shelf(4), client, store)
    (tmp_path / "a.jsonl").write_bytes(answer_lines(first, "by hand", list(shelf(4).index)))
    first.import_responses(tmp_path / "a.jsonl")
    after(verbs_submit, "find_stored_answers", first.withdraw_import)

    with pytest.raises(StoreError, match=r"4 answers of the job .* are not there any more"):
        submit(shelf(5), client, store)

    assert len(server.batches) == 1
    job = submit(shelf(5), client, store)
    server.release()
    check_rows(finish(shelf(5), job), shelf(5))
    assert set(server.executed_bodies.values()) == {1}


def test_an_import_withdrawn_while_it_is_read_is_no_damage(
    client: openai.OpenAI, store: Path, server: BatchServer, tmp_path: Path, after: Any
) -> None:
    """`collect` reads the job again, as it is now."""
    server.hold("in_progress")
    job = submit(shelf(4), client, store)
    (tmp_path / "a.jsonl").write_bytes(answer_lines(job, "by hand", ["T-01"]))
    job.import_responses(tmp_path / "a.jsonl")
    after(lifecycle_collect, "match_frame", job.withdraw_import)

    assert status_counts(job.collect(shelf(4))) == {"pending": 4}


def test_two_processes_that_mend_send_no_more_rounds_than_one(
    client: openai.OpenAI, store: Path, server: BatchServer, after: Any
) -> None:
    """``max_rounds`` counts the job's rounds, also one that another process has just sent."""
    for name in ("row-T-00", "r1-row-T-00"):
        server.faults.add("malformed", where=[name], content=f"bad {name}")
    job = submit(shelf(3), client, store, labels=["a", "b"]).wait(**FAST)
    sent: list[int] = []

    def another_process() -> None:
        job.regenerate().wait(**FAST)
        sent.append(server.count("POST", "/v1/batches"))

    after(verbs_regenerate, "RetryOptions", another_process)
    job.collect(shelf(3), wait=True, max_rounds=1, **FAST)

    assert sent == [2] == [server.count("POST", "/v1/batches")]


def test_a_request_of_a_later_round_that_runs_is_waited_for(
    client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """What expired and was asked again is running: nobody else asks it meanwhile."""
    server.faults.add("expired", ran=0.0)
    first = submit(shelf(4), client, store).wait(**FAST)
    server.hold("in_progress")
    first.regenerate()

    job = submit(shelf(5), client, store)

    assert f"4 requests wait for {first.id}" in repr(job)
    server.release()
    check_rows(finish(shelf(5), job), shelf(5))
    check_rows(finish(shelf(4), first), shelf(4))
    assert sorted(server.executed_bodies.values()) == [1] * 5


def test_what_is_to_be_sent_again_looks_who_has_sent_it_meanwhile(
    client: openai.OpenAI, store: Path, server: BatchServer, tmp_path: Path
) -> None:
    """An import answered it, so another job sent the rest; withdrawn, it waits for that job."""
    server.faults.add("unauthorized", where="POST /v1/files", times=1)
    with pytest.raises(ProviderError):
        submit(shelf(4), client, store)
    first: Job = shelf(4).llmbatch.job(store=store, client=client)
    (tmp_path / "a.jsonl").write_bytes(answer_lines(first, "by hand", ["T-01"]))
    first.import_responses(tmp_path / "a.jsonl")
    job = submit(shelf(5), client, store)

    first.withdraw_import()

    assert status_counts(finish(shelf(4), first)) == {"ok": 4}
    assert status_counts(finish(shelf(5), job)) == {"ok": 5}
    assert max(server.executed_bodies.values()) == 1


def test_a_probe_asks_no_row_that_another_job_has_running(
    client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """Promise 3: the row that is asked live first is one that no running batch has asked."""
    server.hold("in_progress")
    first = submit(shelf(4), client, store)

    job = submit(shelf(6), client, store, probe=True)

    server.release()
    check_rows(finish(shelf(6), job), shelf(6))
    check_rows(finish(shelf(4), first), shelf(4))
    assert sorted(server.executed_bodies.values()) == [1] * 6


def test_submits_at_once_probe_one_row_once(
    client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """Four threads, each of which asks a row live first: the others find its answer."""
    frames = [shelf(6 + n) for n in range(4)]

    with ThreadPoolExecutor(4) as threads:
        jobs = list(threads.map(lambda each: submit(each, client, store, probe=True), frames))
        outs = list(threads.map(finish, frames, jobs))

    for out, frame in zip(outs, frames, strict=True):
        check_rows(out, frame)
    assert sorted(server.executed_bodies.values()) == [1] * 9


def test_what_is_sent_again_while_a_probe_asks_is_not_sent_a_third_time(
    client: openai.OpenAI, store: Path, server: BatchServer, after: Any
) -> None:
    """Promise 3: `regenerate` takes no lock of the store, so a submit searches after its probe."""
    fault = server.faults.add("malformed", where=["row-T-00", "row-T-01"], content="bad")
    first = submit(shelf(4), client, store, labels=["Garden", "Kitchen"]).wait(**FAST)
    server.faults.clear(fault.name)
    server.hold("in_progress")
    after(Probe, "ask", lambda: first.regenerate(feedback=False))

    job = submit(shelf(5), client, store, labels=["Garden", "Kitchen"], probe=True, name="other")

    assert f"1 requests wait for {first.id}" in repr(job)
    server.release()
    first.wait(**FAST)
    job.wait(**FAST)
    # T-00 was bad, asked live, and asked by `regenerate`, which does not look what others have.
    assert sorted(server.executed_bodies.values()) == [1, 1, 1, 2, 3]
