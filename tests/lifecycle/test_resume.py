"""Never paid twice, nothing paid thrown away: what goes on, what is reused, what is sent again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
import warm
from audit import ASK, check_paid, check_rows, finish, said, shelf, unrun
from batch_server import BatchServer
from batch_server.books import ApiError
from conftest import DEPARTMENTS, tagged

import frameenrich
from frameenrich.errors import JobBusyError, ProviderError, WaitTimeoutError
from frameenrich.model import BYTES_PER_TOKEN, Limits
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.store.folder import JobPath
from frameenrich.store.store import open_store
from frameenrich.verbs.job import Job

TESTS = Path(__file__).parent.parent
Submit = Callable[..., Job]


@pytest.fixture
def submit(provider: OpenAIBatch, store: Path) -> Submit:
    """Submit a frame with the usual template; anything may be wished otherwise."""

    def send(
        frame: pd.DataFrame, template: str = ASK, model: str = "gpt-4o-mini", **wishes: Any
    ) -> Job:
        made: Job = frame.llmbatch.submit(
            template, model, **{"provider": provider, "store": store, **wishes}
        )
        return made

    return send


def sent_lines(server: BatchServer) -> list[int]:
    """How many requests each uploaded file holds, oldest first."""
    uploads = [f["id"] for f in server.files.values() if f["purpose"] == "batch"]
    return [server.content(file_id).count(b"\n") for file_id in uploads]


# --- tomorrow's frame ----------------------------------------------------------------------------


def test_tomorrows_frame_sends_the_new_rows_only(submit: Submit, server: BatchServer) -> None:
    """Of 100 rows yesterday and 130 today, 30 are sent; the job and its face say so."""
    yesterday, today = shelf(100), shelf(130).iloc[::-1]
    finish(yesterday, submit(yesterday))

    job = submit(today)
    out = finish(today, job)

    check_rows(out, today)
    check_paid(server, batches=2)
    assert sent_lines(server) == [100, 30]
    assert job.reused == 100
    assert "100 answers reused" in repr(job)
    assert "100 answers that this store had already" in job._repr_html_()


def test_nothing_new_sends_and_polls_nothing(submit: Submit, server: BatchServer) -> None:
    """All answers at hand: no call at all, under another name and for a part of the rows too."""
    frame = shelf()
    finish(frame, submit(frame))
    calls = len(server.requests)

    part = frame.iloc[3:8]
    job = submit(part, name="again")
    out = finish(part, job)

    assert out["again"].tolist() == [said(title) for title in part["title"]]
    assert (job.reused, job.status().ended) == (5, True)
    assert len(server.requests) == calls


def test_a_row_made_good_in_a_later_round_is_reused(submit: Submit, server: BatchServer) -> None:
    """What an older job's regenerate got counts; what stayed flagged there is asked again."""
    frame = shelf(6)
    server.faults.add("http_error", where=["row-T-01", "row-T-02"])
    server.faults.add("http_error", where=["r1-row-T-02"])
    job = submit(frame)
    finish(frame, job)
    again = finish(frame, job.regenerate(feedback=False))
    check_rows(again, frame, {"T-02": "failed"})
    server.faults.clear()

    more = shelf(7)
    newer = submit(more)
    out = finish(more, newer)

    check_rows(out, more)
    assert newer.reused == 5
    assert sent_lines(server) == [6, 2, 2]
    assert server.executed["row-T-01"] == 1


def test_a_flagged_row_is_asked_again(submit: Submit, server: BatchServer) -> None:
    """Malformed, refused and empty answers are no answers to reuse."""
    frame = shelf(4)
    server.faults.add("malformed", where=["row-T-00"], content="no label", times=1)
    server.faults.add("refused", where=["row-T-01"], times=1)
    server.faults.add("empty", where=["row-T-02"], times=1)
    finish_labels = submit(frame, labels=DEPARTMENTS).wait(poll_seconds=0.01)
    assert len(finish_labels.flagged()) == 3

    newer = submit(shelf(5), labels=DEPARTMENTS)
    newer.wait(poll_seconds=0.01)

    assert newer.reused == 1
    assert newer.flagged().empty
    assert sent_lines(server) == [4, 4]


@pytest.mark.parametrize(
    "other",
    [
        {"model": "gpt-4.1"},
        {"template": "Where is {{ title }} sold?"},
        {"system": "Be brief."},
        {"params": {"temperature": 0}},
        {"labels": DEPARTMENTS},
        {"endpoint": "/v1/responses"},
        {"fresh": True},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_question_is_another_answer(
    other: dict[str, Any], submit: Submit, server: BatchServer
) -> None:
    """Another model, template, parameter or endpoint reuses nothing; nor does ``fresh=True``."""
    frame = shelf(3)
    finish(frame, submit(frame))

    job = submit(frame, **other)
    job.wait(poll_seconds=0.01)

    assert job.reused == 0
    assert "reused" not in repr(job)
    assert sent_lines(server) == [3, 3]


def test_another_provider_reuses_nothing(submit: Submit, server: BatchServer) -> None:
    """The same request through another provider is another answer."""
    frame = shelf(3)
    finish(frame, submit(frame))

    assert submit(frame, provider="file").reused == 0


# --- interrupted ---------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["/v1/files", "/v1/batches"])
def test_ctrl_c_in_the_middle_of_a_call(
    route: str, submit: Submit, provider: OpenAIBatch, store: Path, server: BatchServer
) -> None:
    """KeyboardInterrupt while the server is at work: `collect` goes on, and pays nothing twice."""
    frame = shelf()

    def interrupt(request: Any) -> bool:
        if (request.method, request.path) != ("POST", route):
            return False
        os.kill(os.getpid(), signal.SIGINT)
        return True

    server.faults.add("slow_answer", where=interrupt, seconds=0.2)
    with pytest.raises(KeyboardInterrupt):
        submit(frame)
    while not (server.files if route == "/v1/files" else server.batches):
        time.sleep(0.01)

    job = frameenrich.open_job(frameenrich.jobs(store)["job"].iloc[0], store, provider=provider)
    out = finish(frame, job)

    check_rows(out, frame)
    check_paid(server, batches=1)


WORKER = """
import sys
import openai
from audit import ASK, shelf
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch
provider = OpenAIBatch(openai.OpenAI(), wait_seconds=0.01)
provider.limits = Limits(max_requests=5)
frame = shelf()
print("ready", flush=True)
sys.stdin.readline()
job = frame.llmbatch.submit(ASK, "m", provider=provider, store=sys.argv[1])
out = frame.llmbatch.collect(job, wait=True, poll_seconds=0.01)
print(out.to_json(), flush=True)
"""


def test_two_processes_on_one_job(store: Path, server: BatchServer) -> None:
    """Submit and wait in two processes at once: one batch a shard, each row once, both complete."""
    server.faults.add("slow", where="POST *", times="always", seconds=0.05)
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": server.base_url,
    }
    workers = [
        warm.Popen(
            [sys.executable, "-c", WORKER, str(store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    results = [worker.communicate(timeout=60)[0] for worker in workers]

    for text in results:
        answers = json.loads(text)
        assert set(answers["llmbatch_status"].values()) == {"ok"}
        assert list(answers["llmbatch"].values()) == [said(t) for t in shelf()["title"]]
    check_paid(server, batches=3)
    assert sum(server.executed.values()) == 12
    assert len(frameenrich.jobs(store)) == 1


@contextmanager
def locked_elsewhere(store: Path, job_id: str) -> Iterator[None]:
    """Another process is at work on the job."""
    script = (
        "import sys; from frameenrich.store.folder import JobPath\n"
        "from frameenrich.store.store import open_store\n"
        "with JobPath(open_store(sys.argv[1]), sys.argv[2]).lock():\n"
        "    print('held', flush=True); sys.stdin.readline()\n"
    )
    with warm.Popen(
        [sys.executable, "-c", script, str(store), job_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate("done\n")


def test_a_job_that_another_process_is_at_work_on(submit: Submit, store: Path) -> None:
    """The lock gives up with a sentence that names the job and says that nothing is lost."""
    job = submit(shelf(2))

    with (
        locked_elsewhere(store, job.id),
        pytest.raises(JobBusyError, match=f"the job {job.id}. Wait for it to end") as caught,
        JobPath(open_store(store), job.id).lock(timeout_seconds=0.05),
    ):
        pass

    assert vars(caught.value)["job_id"] == job.id
    check_rows(finish(shelf(2), job), shelf(2))


# --- the rest, and only the rest -----------------------------------------------------------------


@pytest.mark.parametrize("fault", ["expired", "expired_silently", "cancelled"])
def test_regenerate_sends_only_what_is_missing(
    fault: str, submit: Submit, server: BatchServer
) -> None:
    """Partial output of an expired or cancelled batch is kept; the next round is the rest."""
    frame = shelf()
    server.faults.add(fault, ran=0.25)
    job = submit(frame)
    first = finish(frame, job)
    rest = unrun(frame, server, fault.removesuffix("_silently"))
    check_rows(first, frame, rest)

    out = finish(frame, job.regenerate())

    check_rows(out, frame)
    check_paid(server, batches=2)
    assert sent_lines(server) == [12, 9]
    assert {name for name in server.executed if name.startswith("r1-")} == {
        f"r1-row-{key}" for key in rest
    }


def test_cancel_and_send_again(submit: Submit, server: BatchServer) -> None:
    """A stuck batch is cancelled, and its rows sent again, at the user's word and not before."""
    frame = shelf()
    server.faults.add("stuck")
    job = submit(frame)
    job.status()
    job.cancel()
    server.release()
    out = finish(frame, job)
    rest = unrun(frame, server, "cancelled")
    check_rows(out, frame, rest)
    check_paid(server, batches=1)

    again = finish(frame, job.regenerate(statuses=["cancelled"]))

    check_rows(again, frame)
    check_paid(server, batches=2)
    assert sent_lines(server) == [12, len(rest)]


def test_cancel_before_anything_was_sent(
    submit: Submit, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """What never left this machine is cancelled here; its rows can be sent at the user's word."""
    frame = shelf()
    server.faults.add("unauthorized")
    with pytest.raises(ProviderError, match="HTTP 401"):
        submit(frame)

    job = frame.llmbatch.cancel(store=store, client=client)

    assert server.count("POST", "/v1/batches") == 0
    check_rows(finish(frame, job), frame, dict.fromkeys(frame.index, "cancelled"))
    check_paid(server, batches=0)
    check_rows(finish(frame, job.regenerate(statuses=["cancelled"])), frame)
    check_paid(server, batches=1)


def test_status_tells_the_age_of_a_stuck_batch(submit: Submit, server: BatchServer) -> None:
    """Fact 13: a batch that stays in a status for hours shows for how long."""
    server.faults.add("stuck")
    job = submit(shelf())
    for batch in server._batches.values():
        batch.created_at -= 3 * 3600 + 61

    status = job.status()

    assert str(status) == f"{job.id}: in_progress for 3 h 01 min; 0 of 12 requests done"
    assert not status.ended


# --- pace ----------------------------------------------------------------------------------------


def test_max_enqueued_tokens_paces(submit: Submit, server: BatchServer) -> None:
    """Never more tokens wait at the provider than allowed, and every file alone fits."""
    limit = 450
    server.max_enqueued_tokens = limit  # the server refuses more, and would say so
    frame = shelf(24)

    job = submit(frame, max_enqueued_tokens=limit)
    waiting = [enqueued(server)]
    while not job.status().ended:
        out = job.collect(frame)
        waiting.append(enqueued(server))
    out = finish(frame, job)

    check_rows(out, frame)
    check_paid(server, batches=len(job.requests))
    assert len(job.requests) == 3
    assert 0 < max(waiting) <= limit
    assert all(Path(path).stat().st_size <= limit * BYTES_PER_TOKEN for path in job.requests)
    assert {batch["true_status"] for batch in server.batches.values()} == {"completed"}


def enqueued(server: BatchServer) -> int:
    """How many tokens wait at the server, counted by its files."""
    live = [b for b in server.batches.values() if b["true_status"] not in {"completed", "failed"}]
    return sum(len(server.content(b["input_file_id"])) // BYTES_PER_TOKEN for b in live)


def test_pace_is_not_identity(submit: Submit, server: BatchServer) -> None:
    """The same submit at another pace is the same job, and sends nothing."""
    frame = shelf()
    job = submit(frame)

    again = submit(frame, max_enqueued_tokens=100_000)

    assert again.id == job.id
    check_rows(finish(frame, again), frame)
    check_paid(server, batches=1)


# --- what the provider keeps ---------------------------------------------------------------------


def test_cleanup_deletes_the_providers_files(submit: Submit, server: BatchServer) -> None:
    """Input, output and error files are gone at the provider, spent ones too; answers are here."""
    frame = shelf()
    server.faults.add("http_error", where=["row-T-03"])
    job = submit(frame)
    before = finish(frame, job)

    assert job.cleanup() == 1
    assert job.cleanup() == 0

    assert {file["deleted"] for file in server.files.values()} == {True}
    assert len(server.files) == 3
    pd.testing.assert_frame_equal(job.collect(frame), before)
    check_rows(before, frame, {"T-03": "failed"})


def test_cleanup_leaves_what_still_runs(submit: Submit, server: BatchServer) -> None:
    """A batch whose answers are not here yet keeps its files."""
    server.hold("in_progress")
    job = submit(shelf())

    assert job.cleanup() == 0

    assert {file["deleted"] for file in server.files.values()} == {False}


def test_files_that_are_gone_already_are_fine(
    submit: Submit, client: openai.OpenAI, server: BatchServer
) -> None:
    """Somebody deleted them on the provider's page: cleanup counts them as done."""
    job = submit(shelf()).wait(poll_seconds=0.01)
    for file_id in server.files:
        client.files.delete(file_id)

    assert job.cleanup() == 1


def test_files_are_asked_to_expire(submit: Submit, server: BatchServer) -> None:
    """Input and output are kept 30 days at the provider, not for ever."""
    finish(shelf(), submit(shelf()))

    (upload,) = [f for f in server.files.values() if f["purpose"] == "batch"]
    (batch,) = server.batches.values()
    month = {"anchor": "created_at", "seconds": 30 * 86_400}
    assert (upload["expires_after"], batch["output_expires_after"]) == (month, month)


class OldServer(BatchServer):
    """Speaks the API as it was before files could be asked to expire."""

    def create_file(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Refuse the option, as an unknown argument."""
        if any(isinstance(each, dict) for each in args):
            raise ApiError(400, "Unrecognized request argument supplied: expires_after")
        return super().create_file(*args, **options)

    def create_batch(self, asked: dict[str, Any], project: str) -> dict[str, Any]:
        """Refuse the option, as an unknown argument."""
        if "output_expires_after" in asked:
            raise ApiError(400, "Unrecognized request argument supplied: output_expires_after")
        return super().create_batch(asked, project)


def test_a_server_that_cannot_let_files_expire(store: Path) -> None:
    """A server that does not know ``expires_after`` is served without it: two shards, two calls."""
    frame = shelf()
    with (
        OldServer() as server,
        openai.OpenAI(api_key="sk-test", base_url=server.base_url) as client,
    ):
        provider = OpenAIBatch(client, attempts=2, wait_seconds=0.01)
        provider.limits = Limits(max_requests=6)
        job = frame.llmbatch.submit(ASK, "m", provider=provider, store=store)
        out = finish(frame, job)

        check_rows(out, frame)
        check_paid(server, batches=2)
        assert server.count("POST", "/v1/files", status=400) == 1
        assert server.count("POST", "/v1/batches", status=400) <= 1
        assert {file["expires_after"] and 1 for file in server.files.values()} == {None}


def test_a_timeout_counts_whatever_the_server_asks_for(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Promise: `timeout` bounds the tries too; Retry-After of an hour does not hold the user."""
    job = mugs.llmbatch.submit("{{ title }}", "m", client=client, store=store)
    server.faults.add("rate_limited", where="GET *", retry_after=3600, times="always")

    with pytest.raises(WaitTimeoutError, match=r"still validating after 0\.3 seconds"):
        job.wait(timeout=0.3, poll_seconds=0.01)


def test_an_answer_with_half_an_emoji_is_reused(store: Path, tmp_path: Path) -> None:
    """What JSON lets through and Unicode does not stops no later submit, nor is it paid again."""
    frame = pd.DataFrame({"word": ["cedar"]})
    body = {"choices": [{"message": {"content": "half \ud83d"}, "finish_reason": "stop"}]}
    first = frame.llmbatch.submit("{{ word }}", "m", provider="file", store=store)
    line = {"custom_id": tagged(first, "row-0"), "response": {"status_code": 200, "body": body}}
    (tmp_path / "answers.jsonl").write_text(json.dumps(line) + "\n")
    first.import_responses(tmp_path / "answers.jsonl")

    job = frame.llmbatch.submit("{{ word }}", "m", name="again", provider="file", store=store)

    assert job.reused == 1
    assert job.collect(frame)["again"].tolist() == ["half \ufffd"]
