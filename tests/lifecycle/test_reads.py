"""What a verb reads of a job: each small file once, and nothing is written that did not change."""

from __future__ import annotations

import gc
import re
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from audit import ASK, check_rows, finish, shelf, submit
from batch_server import BatchServer
from conftest import answer_lines
from object_server import BUCKET, take_requests

from frameenrich.answers.output import Output
from frameenrich.errors import JobBusyError, StoreError
from frameenrich.identity.dedupe import short_hash_column
from frameenrich.lifecycle.reuse import StoredAnswers, answers_of, requests_of
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.store.folder import JobFolder, JobPath, job_folders
from frameenrich.store.store import open_store
from frameenrich.verbs.find import open_job
from frameenrich.verbs.job import Job

SHARDS = 20
RECORDED: list[Counter[str]] = []
"""The counts that file events go to now; an audit hook cannot be taken off again."""


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if not RECORDED or event not in {"open", "os.scandir", "os.listdir"}:
        return
    path = str(arguments[0])
    if event != "open":
        RECORDED[-1][f"list {Path(path).name}"] += 1
    elif ".batch.json" in path:
        written = "w" in str(arguments[1]) or bool((arguments[2] or 0) & 1)
        name = re.findall(r"shard-\d+\.batch\.json", path)[0]
        RECORDED[-1][f"{'write' if written else 'read'} {name}"] += 1


@cache
def _listen() -> None:
    """Begin to hear of files, once: a hook makes a process slower to its end."""
    sys.addaudithook(_record)


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count reads, writes and listings of a job's files while the block runs."""
    counts: Counter[str] = Counter()

    class Counted(pq.ParquetFile):  # type: ignore[misc] # pyarrow has no types
        def __init__(self, source: Any, *args: Any, **options: Any) -> None:
            # Recorded draws are Parquet files, too, each read from memory.
            counts["open sidecar"] += str(source).endswith("/sidecar.parquet")
            super().__init__(source, *args, **options)

    _listen()
    RECORDED.append(counts)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(pq, "ParquetFile", Counted)
            yield counts
    finally:
        RECORDED.pop()


def batches(counts: Counter[str], what: str) -> list[int]:
    """How often each batch.json was read or written."""
    return [n for name, n in counts.items() if name.startswith(f"{what} shard-")]


@pytest.fixture
def sharded(client: openai.OpenAI) -> OpenAIBatch:
    """A provider that puts two requests in a batch."""
    made = OpenAIBatch(client, attempts=4, wait_seconds=0.01)
    made.limits = Limits(max_requests=2)
    return made


Verb = Callable[[Job, pd.DataFrame], Any]

VERBS: dict[str, tuple[Verb, int]] = {
    "repr": (lambda job, _: repr(job), 1),
    "card": (lambda job, _: job._repr_html_(), 1),
    "collect": (lambda job, frame: job.collect(frame), 1),
    "collect alone": (lambda job, _: job.collect(), 1),
    "collect with usage": (lambda job, frame: job.collect(frame, usage=True), 1),
    "flagged": (lambda job, _: job.flagged(), 1),
    "usage": (lambda job, _: job.usage(), 1),
    # The handle's first verb reads what the job is, whatever of it the verb needs.
    "status": (lambda job, _: job.status(), 1),
}
"""Each verb, and how often it opens the sidecar of a settled job."""


def report(job: Job, _: pd.DataFrame) -> None:
    """Write the page beside the store."""
    job.report(f"{job.path}/../../../report.html")


LOCAL_VERBS: dict[str, tuple[Verb, int, int]] = {
    "report": (report, 1, 1),
    "review": (lambda job, _: job.review(n=5), 1, 1),
    "the same review": (lambda job, _: job.review(n=5), 1, 1),
    "evaluate": (lambda job, frame: job.evaluate(frame, truth="title", match=str.__eq__), 1, 1),
    "card of a reviewed job": (lambda job, _: job._repr_html_(), 1, 1),
    # Listed again under the lock: another process may have sent the same round meanwhile.
    "regenerate": (lambda job, _: job.regenerate(), 1, 2),
    "regenerate for a frame": (lambda job, frame: job.regenerate(frame), 1, 2),
    "rounds": (lambda job, frame: job.collect(frame, wait=True, max_rounds=2), 1, 1),
    "cancel": (lambda job, _: job.cancel(), 1, 1),
}
"""Others that find nothing to send: how often they open the sidecar, and list the job."""


def test_a_settled_job_is_read_once(
    sharded: OpenAIBatch, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20 shards each verb reads every batch.json at most once, after one listing; no writes."""
    frame = shelf(2 * SHARDS)
    made = frame.llmbatch.submit(ASK, "gpt-4o-mini", provider=sharded, store=store)
    made.wait(poll_seconds=0.01)
    found = {}
    verbs = {name: (verb, opens, 1) for name, (verb, opens) in VERBS.items()} | LOCAL_VERBS
    for name, (verb, _, _) in verbs.items():
        with counting(monkeypatch) as counts:
            verb(open_job(made.id, store, provider=sharded), frame)
        found[name] = (
            sorted(batches(counts, "read")),
            batches(counts, "write"),
            counts[f"list {made.id}"],
            counts["open sidecar"],
        )

    assert found == {
        name: ([1] * SHARDS, [], lists, opens) for name, (_, opens, lists) in verbs.items()
    }

    with counting(monkeypatch) as counts:
        frame.llmbatch.submit(ASK, "gpt-4o-mini", provider=sharded, store=store)

    assert (batches(counts, "read"), batches(counts, "write")) == ([1] * SHARDS, [])
    # The new rendering's own sidecar is written, not read.
    assert counts["open sidecar"] == 1


def test_the_same_submit_of_a_running_job_reads_once_and_writes_nothing(
    sharded: OpenAIBatch, server: BatchServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a poll brings that is known already is not written again."""
    frame = shelf(2 * SHARDS)

    server.hold("validating")
    with counting(monkeypatch) as first:
        submit(frame, sharded, store)
    with counting(monkeypatch) as again:
        submit(frame, sharded, store)

    assert (len(batches(first, "write")), min(batches(first, "write"))) == (SHARDS, 5)
    assert (batches(again, "read"), batches(again, "write")) == ([1] * SHARDS, [])


def test_a_submit_that_may_ask_a_row_first_searches_the_other_jobs_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found before the probe is handed on, and none of it is lost where nobody can ask."""
    opened = []
    for probe in (False, True):
        own = store / str(probe)
        first = submit(shelf(4), "file", own)
        (tmp_path / "a.jsonl").write_bytes(answer_lines(first, "Garden", list(shelf(4).index)))
        first.import_responses(tmp_path / "a.jsonl")
        with counting(monkeypatch) as counts:
            job = submit(shelf(5), "file", own, probe=probe)
        opened.append(counts["open sidecar"])
        assert job.reused == 4

    assert opened[0] == opened[1] > 0


def test_a_later_round_whose_answers_are_reused_is_read_once(
    sharded: OpenAIBatch, server: BatchServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sidecar is opened once for all of its batches, and each row has its own answer."""
    fault = server.faults.add("expired", ran=0.0, times="always")
    first = submit(shelf(6), sharded, store).wait(poll_seconds=0.01)
    server.faults.clear(fault.name)
    first.regenerate().wait(poll_seconds=0.01)
    opened = []
    lines = StoredAnswers.lines

    def counted(*args: Any) -> Iterator[bytes]:
        with counting(monkeypatch) as counts:
            found = list(lines(*args))
        opened.append(counts["open sidecar"])
        return iter(found)

    monkeypatch.setattr(StoredAnswers, "lines", counted)
    job = submit(shelf(7), sharded, store)

    assert (opened, job.reused) == ([1], 6)
    check_rows(finish(shelf(7), job), shelf(7))


def test_an_answer_that_its_round_did_not_ask_for_is_missed(
    sharded: OpenAIBatch, server: BatchServer, store: Path
) -> None:
    """Promise 1: a job that was changed after it was searched ends a submit in words."""
    fault = server.faults.add("expired", ran=0.0, times="always")
    first = submit(shelf(6), sharded, store).wait(poll_seconds=0.01)
    server.faults.clear(fault.name)
    first.regenerate().wait(poll_seconds=0.01)
    (folder,) = job_folders(open_store(store))
    hashes = short_hash_column(pa.concat_tables(requests_of(folder))["request_hash"])
    hashes.sort()
    found = answers_of([folder], Output(folder.spec.output), hashes)
    assert found is not None
    ids = found.homes[0]["custom_id"].to_pylist()
    names = pa.array([f"new-{n}" for n in range(6)])
    changed = found.homes[0].set_column(
        found.homes[0].column_names.index("custom_id"), "custom_id", pa.array(["gone", *ids[1:]])
    )

    with pytest.raises(StoreError, match=r"1 answers of the job .* not there any more"):
        list(replace(found, homes=[changed]).lines(np.arange(6), names))


def test_a_collect_of_a_running_job_reads_each_batch_once(
    sharded: OpenAIBatch, server: BatchServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it read before it took the lock is not read again where no other process wrote."""
    frame = shelf(2 * SHARDS)
    server.hold("validating")
    made = frame.llmbatch.submit(ASK, "gpt-4o-mini", provider=sharded, store=store)

    with counting(monkeypatch) as counts:
        open_job(made.id, store, provider=sharded).collect(frame)

    assert (batches(counts, "read"), batches(counts, "write")) == ([1] * SHARDS, [])


def test_what_another_process_wrote_meanwhile_is_read(
    sharded: OpenAIBatch, server: BatchServer, store: Path
) -> None:
    """A batch that was cancelled between a verb's first look and its lock is not polled again."""
    frame = shelf(4)
    server.hold("validating")
    made = frame.llmbatch.submit(ASK, "gpt-4o-mini", provider=sharded, store=store)
    state = made._session.job().read()
    first, second = made._session.job().all_shards()
    first.save(first.batch.replace(status="cancelled", stage="fetched"))

    again = state.read()

    assert [shard.batch.settled for shard in again.all_shards()] == [True, False]
    assert again.all_shards()[1].batch is state.all_shards()[1].batch
    assert second.batch == again.all_shards()[1].batch


def test_states_that_were_read_before_are_let_go(
    sharded: OpenAIBatch, server: BatchServer, store: Path
) -> None:
    """A wait of days keeps one state in memory, not one of each poll."""
    server.hold("validating")
    state = shelf(4).llmbatch.submit(ASK, "m", provider=sharded, store=store)._session.job().read()
    before = weakref.ref(state)

    state = state.read()
    gc.collect()

    assert before() is None
    assert len(state.all_shards()) == 2


# --- in a bucket ----------------------------------------------------------------------------------


@pytest.fixture
def bucket(
    s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[str, str]]:
    """A store of the test's own on an S3 server, and the server's address."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield f"s3://{BUCKET}/{tmp_path.name}", s3["AWS_ENDPOINT_URL"]
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_a_settled_job_in_a_bucket_is_read_once(
    sharded: OpenAIBatch, bucket: tuple[str, str], tmp_path: Path
) -> None:
    """Each batch.json is one GET, the job's objects are listed once, and nothing is put."""
    frame, (store, url) = shelf(2 * SHARDS), bucket
    made = frame.llmbatch.submit(ASK, "gpt-4o-mini", provider=sharded, store=store)
    made.wait(poll_seconds=0.01)
    folder: JobFolder = made._session.job()
    found = {}
    verbs: dict[str, Verb] = {name: verb for name, (verb, _) in VERBS.items()}
    verbs["report"] = lambda job, _: job.report(tmp_path / "report.html")
    for name, verb in verbs.items():
        take_requests(url)
        verb(Job(JobPath(folder.store, made.id), provider=sharded), frame)
        requests = take_requests(url)
        gets = Counter(p for method, p in requests if method == "GET" and ".batch.json" in p)
        lists = [path for method, path in requests if method == "GET" and "list-type" in path]
        # The report lists the store, too, for a second opinion and for reviews of the same name.
        lists = [path for path in lists if made.id in path]
        puts = [path for method, path in requests if method in {"PUT", "POST", "DELETE"}]
        found[name] = (sorted(gets.values()), len(lists), puts)

    assert {name: ([1] * SHARDS, 1, []) for name in verbs} == found

    Job(JobPath(folder.store, made.id), provider=sharded).regenerate()

    requests = [each for each in take_requests(url) if ".batch.json" in each[1]]
    assert sorted(Counter(requests).values()) == [1] * SHARDS, "a GET each, and no PUT"

    frame.llmbatch.submit(ASK, "gpt-4o-mini", provider=sharded, store=folder.store)

    requests = [each for each in take_requests(url) if ".batch.json" in each[1]]
    assert sorted(Counter(requests).values()) == [1] * SHARDS, "the same submit likewise"


def test_a_running_job_in_a_bucket_is_read_once(
    sharded: OpenAIBatch, server: BatchServer, bucket: tuple[str, str]
) -> None:
    """A collect gets each batch.json once and puts none; the lease alone is written."""
    frame, (store, url) = shelf(2 * SHARDS), bucket
    server.hold("validating")
    made = frame.llmbatch.submit(ASK, "gpt-4o-mini", provider=sharded, store=store)
    take_requests(url)

    Job(JobPath(made._session.job().store, made.id), provider=sharded).collect(frame)

    requests = take_requests(url)
    gets = Counter(path for method, path in requests if method == "GET" and ".batch.json" in path)
    puts = [path for method, path in requests if method == "PUT" and ".batch.json" in path]
    assert (sorted(gets.values()), puts) == ([1] * SHARDS, [])


def test_a_batch_in_a_bucket_that_changed_unseen_is_not_written_over(
    sharded: OpenAIBatch, server: BatchServer, bucket: tuple[str, str]
) -> None:
    """A batch that is known from before the lease is written only over that same version."""
    server.hold("validating")
    made = shelf(2).llmbatch.submit(ASK, "gpt-4o-mini", provider=sharded, store=bucket[0])
    state, store = made._session.job().read(), made._session.job().store
    (shard,) = state.all_shards()
    with made._session.job().lock():
        (known,) = state.read().all_shards()
        store.fs.pipe_file(shard.batch_path, b"{}")  # by one who lost the lease and did not see it
        cancelled = known.batch.replace(status="cancelled")
        with pytest.raises(JobBusyError):
            known.save(cancelled)
