"""Stores in buckets, on S3 servers in processes of their own: whole objects and one writer.

What hangs on the server's rules is tried on moto's; the rest, which only takes many requests, on
`thin_s3.py`, which costs a tenth of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import openai
import pandas as pd
import pytest
import s3fs
import warm
from audit import said, shelf
from batch_server import BatchServer
from conftest import answer_lines, tagged
from object_server import BUCKET, CARELESS, HALF, lose_answer
from stores import CrashError, a_job, committed, write_half, write_job, write_round

import frameenrich
import frameenrich.store.bucket
from frameenrich.atomic import sync
from frameenrich.errors import FrameEnrichWarning, JobBusyError, StoreError
from frameenrich.lifecycle import read_cache
from frameenrich.lifecycle.outgoing import StoreShardWriter
from frameenrich.model import Batch, JobSpec, Limits, Message, Stage
from frameenrich.prepare.options import make_plan
from frameenrich.prepare.parts import draft_of_parts, open_parts_folder, write_part
from frameenrich.prepare.rounds import RetryRequest
from frameenrich.prepare.submit_options import Options
from frameenrich.store.bucket import Bucket
from frameenrich.store.folder import JobFolder, JobPath
from frameenrich.store.lease import Lease, PlainObjects, S3Objects, hold
from frameenrich.store.local import Guarded
from frameenrich.store.store import Store

pytestmark = pytest.mark.any_pandas
TESTS = Path(__file__).parent.parent


def with_moto(test: Callable[..., None]) -> Callable[..., None]:
    """Have a test's `bucket` on moto's server; one process of the tests starts it."""
    for mark in (pytest.mark.usefixtures("moto"), pytest.mark.xdist_group("moto")):
        test = mark(test)
    return test


@pytest.fixture
def bucket(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[], Store]]:
    """Open the test's own store anew, as another session would."""
    kind = "moto" if "moto" in request.fixturenames else "s3"
    for name, value in request.getfixturevalue(kind).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "machine").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "machine"))
    s3fs.S3FileSystem.clear_instance_cache()
    yield lambda: Store(f"s3://{BUCKET}/{tmp_path.name}")
    s3fs.S3FileSystem.clear_instance_cache()


def keys(store: Store) -> set[str]:
    """Every object of a store, but for the leases."""
    found = {str(path).removeprefix(f"{store.root}/") for path in store.find(store.root)}
    return {key for key in found if not key.endswith(".lease.json")}


def objects_of(job: JobFolder, *more: str) -> set[str]:
    """The objects that a job of two shards is."""
    stems = [f"{job.id}/round-0/shard-0000{n}" for n in (0, 1)]
    files = [f"{stem}.{end}" for stem in stems for end in ("requests.jsonl", "batch.json")]
    return {f"{job.id}/sidecar.parquet", *files, *(f"{job.id}/{path}" for path in more)}


# --- the same job ---------------------------------------------------------------------------------


@with_moto
def test_a_job_in_a_bucket_is_the_job_on_disk(bucket: Callable[[], Store], tmp_path: Path) -> None:
    """The same id, rows, requests and intents; found by another session."""
    local, made = a_job(Store(tmp_path / "disk")), a_job(bucket())
    remote = JobPath(bucket(), local.id).open()

    assert (made.id, local.spec, local.key_names) == (remote.id, remote.spec, remote.key_names)
    assert local.sidecar().equals(remote.sidecar())
    assert keys(remote.store) == objects_of(remote)
    for here, there in zip(local.all_shards(), remote.all_shards(), strict=True):
        with there.open_requests() as file:
            assert Path(here.requests_path).read_bytes() == file.read()
        assert (here.batch, here.request_bytes) == (there.batch, there.request_bytes)


def test_what_was_read_is_kept_in_a_bucket(
    bucket: Callable[[], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second collect uses it; other responses, which have another ETag, are read anew."""
    monkeypatch.setattr(read_cache, "_LEAST_BYTES", 1)
    frame = pd.DataFrame({"title": ["mug", "rake"]})
    job: Any = frame.llmbatch.submit("{{ title }}?", "m", provider="file", store=bucket())

    found = []
    for number, words in enumerate(["good", "better"]):
        (tmp_path / "came.jsonl").write_bytes(answer_lines(job, words, [str(number)]))
        job.import_responses(tmp_path / "came.jsonl")
        first = job.collect(frame)
        (path,) = [path for path in bucket().find(bucket().root) if path.endswith(".read")]
        found.append(bucket().version(path))
        pd.testing.assert_frame_equal(job.collect(frame), first)
        assert bucket().version(path) == found[-1]

    assert first["llmbatch"].tolist() == ["good", "better"]
    assert found[0] != found[1]


@with_moto
def test_parts_in_a_bucket_are_copied_within_it(
    bucket: Callable[[], Store], tmp_path: Path
) -> None:
    """The job is that of the disk, byte by byte; nothing is left of the place where parts were."""
    frame = pd.DataFrame({"title": ["a", "b", "a", "c"]}, index=["k0", "k1", "k2", "k3"])
    asked = (Message("user", "Say {{ title }}."),)
    spec = JobSpec("parts", "m", asked, provider="file", tag="3f9a1c")

    def joined(store: Store) -> JobFolder:
        with open_parts_folder(store, spec, Limits(max_requests=2)) as stage:
            parts = [write_part(stage, n, frame.iloc[[2 * n, 2 * n + 1]]) for n in (1, 0)]
            assert write_part(stage, 1, frame.iloc[2:]).mark == parts[0].mark
            with draft_of_parts(stage, parts, ["title"]) as draft:
                return committed(draft)

    local, remote = joined(Store(tmp_path / "disk")), joined(bucket())

    assert keys(remote.store) == objects_of(remote)
    left = remote.store.find(f"{remote.store.root}/")
    del left[f"{remote.store.root}/.lease.json"]  # the store's own: who decides what is sent
    assert left == remote.store.find(remote.path)
    assert local.sidecar().equals(remote.sidecar())
    assert remote.sidecar()["custom_id"].to_pylist() == [
        f"row-{key}-3f9a1c" for key in ("k0", "k1", "k0", "k3")
    ]
    for here, there in zip(local.all_shards(), remote.all_shards(), strict=True):
        with there.open_requests() as file:
            assert Path(here.requests_path).read_bytes() == file.read()


def test_reused_answers_are_taken_out_in_a_bucket_as_on_disk(
    bucket: Callable[[], Store], tmp_path: Path
) -> None:
    """A shard before the first reused answer is taken over unread; nothing else is left over."""
    frame = pd.DataFrame({"title": list("abcdef")}, index=[f"k{n}" for n in range(6)])
    choice = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    line = {"response": {"status_code": 200, "body": {"choices": [choice]}}, "error": None}

    def reusing(store: Store) -> JobFolder:
        options: dict[str, Any] = {"provider": "file", "store": store}
        first = frame.iloc[[3]].llmbatch.submit("{{ title }}", "m", name="first", **options)
        own = {"custom_id": tagged(first, "row-k3"), **line}
        (tmp_path / "d.jsonl").write_text(json.dumps(own))
        first.import_responses(tmp_path / "d.jsonl")
        plan = make_plan("{{ title }}", "m", Options()).sent_to("file", "/v1/chat/completions")
        plan = replace(plan, spec=replace(plan.spec, tag="3f9a1c"))
        return write_job(frame, plan, store, Limits(max_requests=2))

    local, remote = reusing(Store(tmp_path / "disk")), reusing(bucket())

    assert local.sidecar().equals(remote.sidecar())
    assert remote.sidecar()["shard"].to_pylist() == [1, 1, 2, 0, 2, 3]
    shards = remote.all_shards()
    assert [shard.request_count for shard in shards] == [1, 2, 2, 1]
    for here, there in zip(local.all_shards(), shards, strict=True):
        with there.open_requests() as file:
            assert Path(here.requests_path).read_bytes() == file.read()
    assert not [path for path in remote.store.find(remote.path) if "aside" in path]


def test_what_another_process_changed_shows_at_once(bucket: Callable[[], Store]) -> None:
    """No listing and no object is remembered."""
    job, other = a_job(bucket()), bucket()
    seen = (
        other.job_ids(),
        JobPath(other, job.id).open().rounds(),
        JobPath(other, job.id).open().shards(0)[0].batch.id,
    )
    with job.lock():
        job.shards(0)[0].save(job.shards(0)[0].batch.replace(id="batch_1"))
        again = RetryRequest("row-a", "r1-row-a", b"{}\n", b"h" * 32, "m", "empty", "unchanged")
        write_round(job, 1, [again], Limits())
    a_job(bucket(), "more")

    assert seen == ([job.id], 1, None)
    assert JobPath(other, job.id).open().shards(0)[0].batch.id == "batch_1"
    assert (len(other.job_ids()), JobPath(other, job.id).open().rounds()) == (2, 2)
    assert len(JobPath(other, job.id).open().all_shards()) == 3


@with_moto
def test_an_object_of_many_parts_is_whole(bucket: Callable[[], Store]) -> None:
    """More than one upload part there, and more than one block back."""
    shard = a_job(bucket()).shards(0)[0]
    line = b"x" * 99_999 + b"\n"
    with shard.write_responses() as file:
        file.writelines(line for _ in range(200))

    assert b"".join(shard.read_responses()) == line * 200


def test_an_object_that_fails_in_the_middle_is_not_there(
    bucket: Callable[[], Store], tmp_path: Path
) -> None:
    """Neither in the bucket nor in the temporary folder."""
    shard = a_job(bucket()).shards(0)[0]
    with pytest.raises(CrashError), shard.write_responses() as file:
        write_half(file, CrashError)

    assert list(shard.read_responses()) == []
    assert [p for p in (tmp_path / "machine").rglob("*") if "draft" in p.name] == []


# --- answers that come one by one -----------------------------------------------------------------


@with_moto
def test_answers_are_added_to_a_bucket(bucket: Callable[[], Store]) -> None:
    """In parts, each whole; another session goes on after them, and they become one file."""
    job = a_job(bucket())
    shard = job.shards(0)[0]
    answer = json.dumps({"custom_id": "row-a", "response": {"status_code": 200, "body": {}}})
    with job.lock(), StoreShardWriter(shard) as writer:
        writer.append(answer.encode())
        writer.append(b"x" * 600_000)
        writer.append(b"next part")
    later = JobPath(bucket(), job.id).open().shards(0)[0]
    with later.job.lock(), StoreShardWriter(later) as writer:
        known = writer.answered()
        writer.append(b"later")
    grown = b"".join(later.read_responses())
    in_parts = keys(job.store) - objects_of(job)
    with later.write_responses() as file:
        file.write(grown + b"last\n")

    assert known == {"row-a"}
    assert [len(line) for line in grown.split(b"\n")] == [len(answer), 600_000, 9, 5, 0]
    assert in_parts == {f"{job.id}/round-0/shard-00000.responses-0000{n}.jsonl" for n in (1, 2, 3)}
    assert b"".join(shard.read_responses()) == grown + b"last\n"
    assert keys(job.store) == objects_of(job, "round-0/shard-00000.responses.jsonl")


def test_answers_to_a_job_that_was_taken_over_are_not_asked_for_any_more(
    bucket: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: live calls of a laptop that slept end with the first answer, in their thread."""
    job = a_job(bucket())
    shard = job.shards(0)[0]
    with job.lock(), StoreShardWriter(shard) as writer, ThreadPoolExecutor(1) as thread:
        thread.submit(writer.append, b"in time").result()
        job.store.fs.pipe_file(f"{job.path}/.lease.json", b'{"holder": "another"}')
        # From now on a lease is asked for at each write, as after so long a sleep.
        monkeypatch.setattr(frameenrich.store.lease, "LEASE_SECONDS", 0.0)
        with pytest.raises(JobBusyError, match="took over"):
            thread.submit(writer.append, b"late").result()

    assert b"".join(shard.read_responses()) == b"in time\n"


APPEND = """
import os, signal, sys
from frameenrich.atomic import sync
from frameenrich.store.folder import JobFolder, JobPath
from frameenrich.store.store import Store
job = JobPath(Store(sys.argv[1]), sys.argv[2]).open()
with job.lock():
    file = job.shards(0)[0].open_appending()
    for n in range(3):
        file.write(b"kept %d\\n" % n)
        sync(file)
    file.write(b"on its way")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_answer_that_was_kept_outlives_its_process(bucket: Callable[[], Store]) -> None:
    """Killed in the middle of the next one: that one is absent, not torn."""
    job = a_job(bucket())
    url = f"s3://{job.store.root}"

    done = warm.run([sys.executable, "-c", APPEND, url, job.id], check=False)

    assert done.returncode == -signal.SIGKILL
    assert b"".join(job.shards(0)[0].read_responses()) == b"kept 0\nkept 1\nkept 2\n"


# --- killed before it was a job -------------------------------------------------------------------


def test_what_never_became_a_job_is_not_sent(bucket: Callable[[], Store]) -> None:
    """Objects that a killed process left are no job, and no part of the one that is made."""
    store = bucket()
    job = a_job(store)
    store.fs.rm_file(f"{job.path}/sidecar.parquet")
    store.fs.pipe_file(f"{job.path}/round-0/shard-00002.requests.jsonl", b"{}\n")
    before = store.job_ids()

    again = a_job(bucket())

    assert (before, again.id) == ([], job.id)
    assert keys(store) == objects_of(job)
    assert [shard.number for shard in again.all_shards()] == [0, 1]


@with_moto
def test_what_never_became_a_job_is_swept_after_a_day(
    bucket: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next job that is made; what may be on its way stays, as do jobs."""
    store = bucket()
    kept = a_job(store)
    store.fs.pipe_file(f"{store.root}/killed-1/round-0/shard-00000.requests.jsonl", b"{}\n")
    another = a_job(bucket(), "another")
    after_one = keys(store)
    monkeypatch.setattr(frameenrich.store.bucket, "_STALE_SECONDS", -60.0)
    third = a_job(bucket(), "third")

    assert after_one - objects_of(kept) - objects_of(another) == {
        "killed-1/round-0/shard-00000.requests.jsonl"
    }
    assert keys(store) == objects_of(kept) | objects_of(another) | objects_of(third)
    assert not store.fs.exists(f"{store.root}/killed-1")  # its lease is gone, too


@pytest.mark.parametrize(
    "name",
    ["data/2024/sales.csv", "models/m.bin", "killed-1/shard-00000.requests.jsonl.gz", "notes.txt"],
)
def test_what_others_keep_under_the_prefix_is_left_alone(
    name: str, bucket: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store's prefix may hold other things, as old as they like; only drafts are swept."""
    store = bucket()
    store.fs.pipe_file(f"{store.root}/{name}", b"mine")
    monkeypatch.setattr(frameenrich.store.bucket, "_STALE_SECONDS", -60.0)

    job = a_job(bucket())

    assert keys(store) == objects_of(job) | {name}


@pytest.mark.parametrize(
    "change", [{"id": "batch_1"}, {"stage": Stage.CREATING}, {"status": "completed"}]
)
def test_answers_of_a_job_without_its_sidecar_are_left_alone(
    change: dict[str, Any], bucket: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 4: what was sent, or may have been, is neither swept nor written over."""
    store = bucket()
    job = a_job(store)
    (first, _) = job.all_shards()
    first.save(first.batch.replace(**change))
    store.fs.pipe_file(f"{job.path}/round-0/shard-00000.responses.jsonl", b"{}\n")
    store.fs.rm_file(f"{job.path}/sidecar.parquet")
    left = keys(store)
    monkeypatch.setattr(frameenrich.store.bucket, "_STALE_SECONDS", -60.0)

    another = a_job(bucket(), "another")
    with pytest.raises(StoreError, match="its sidecar is not"):
        a_job(bucket())

    assert keys(store) == left | objects_of(another)


@with_moto
def test_the_second_of_two_that_submit_the_same_finds_the_first(
    bucket: Callable[[], Store],
) -> None:
    """A job is made once, whoever began first."""
    one, other = bucket(), bucket()
    with one.draft() as first, other.draft() as second:
        first.write("sidecar.parquet", b"first")
        second.write("sidecar.parquet", b"second")
        made = (second.commit("job-1"), first.commit("job-1"))

    assert made == (True, False)
    assert one.fs.cat_file(f"{one.root}/job-1/sidecar.parquet") == b"second"


# --- one writer -----------------------------------------------------------------------------------

WORK = """
import sys
import frameenrich.store.lease
from frameenrich.errors import FrameEnrichError
from frameenrich.store.folder import JobFolder, JobPath
from frameenrich.store.store import Store
frameenrich.store.lease.LEASE_SECONDS = float(sys.argv[3])
shard = JobPath(Store(sys.argv[1]), sys.argv[2]).open().shards(0)[0]
with shard.job.lock():
    batch = shard.batch
    print("held", flush=True)
    sys.stdin.readline()
    try:
        shard.save(batch.replace(id="late"))
        print("saved", flush=True)
    except FrameEnrichError as error:
        print(type(error).__name__, error, flush=True)
"""


@contextmanager
def at_work(
    job: JobFolder, machine: Path, lease_seconds: float = 30.0
) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the job, on a computer of its own where `machine` is one."""
    machine.mkdir(exist_ok=True)
    with warm.Popen(
        [sys.executable, "-c", WORK, f"s3://{job.store.root}", job.id, str(lease_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(machine)},
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def let_it_save(process: subprocess.Popen[str]) -> str:
    """What comes of the other process's write."""
    return process.communicate("\n", timeout=60)[0]


def test_a_job_at_work_on_another_computer_is_refused(
    bucket: Callable[[], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as it renews its lease, which is longer than the lease; then it is free."""
    job = a_job(bucket())

    def by_its_renewals() -> float:
        """Count time in what the other does, so that no busy machine keeps it from its turns."""
        return 0.2 * float(json.loads(job.store.read(f"{job.path}/.lease.json"))["renewals"])

    clock = SimpleNamespace(monotonic=by_its_renewals, time=time.time, sleep=time.sleep)
    with at_work(job, tmp_path / "other", lease_seconds=0.6) as process:
        who = rf"{job.id} \(process {process.pid} on .*Wait"
        with monkeypatch.context() as patch:
            patch.setattr("frameenrich.store.lease.time", clock)
            with pytest.raises(JobBusyError, match=who), job.lock(timeout_seconds=1.2):
                pass
        said_there = let_it_save(process)
    with job.lock(timeout_seconds=1.0):
        batch = job.shards(0)[0].batch

    assert (said_there, batch.id) == ("saved\n", "late")


@pytest.mark.parametrize("jump", [-86_400.0, 3_600.0, 86_400.0], ids=["back", "hour", "day"])
def test_a_clock_that_jumps_takes_no_living_lease(
    jump: float, bucket: Callable[[], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: how old a lease is says the server's clock, or two would make the same calls."""
    job, own = a_job(bucket()), time.time
    with at_work(job, tmp_path / "other") as process:
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: own() + jump)
            with pytest.raises(JobBusyError, match=rf"process {process.pid}"), job.lock(0.0):
                pass
        said_there = let_it_save(process)

    assert said_there == "saved\n"


def test_a_killed_process_holds_no_lease_on_its_computer(
    bucket: Callable[[], Store], tmp_path: Path
) -> None:
    """Its file lock went with it, which proves that it is gone: no waiting."""
    job = a_job(bucket())
    with at_work(job, tmp_path / "machine") as process:
        process.kill()
        process.wait(timeout=30)
    lease = json.loads(job.store.read(f"{job.path}/.lease.json"))

    with job.lock(timeout_seconds=5.0):
        pass
    assert lease["holder"] is not None


@pytest.mark.slow
@with_moto
def test_a_killed_computer_holds_no_lease_for_long(
    bucket: Callable[[], Store], tmp_path: Path
) -> None:
    """What is not renewed for its time is taken over."""
    job = a_job(bucket())
    with at_work(job, tmp_path / "other", lease_seconds=0.4) as process:
        process.kill()
        process.wait(timeout=30)

    with job.lock(timeout_seconds=30.0):
        pass


def test_a_process_that_slept_cannot_write_over_the_next(
    bucket: Callable[[], Store], tmp_path: Path
) -> None:
    """It is stopped, the job is taken over, it wakes: its write is refused, and told why."""
    job = a_job(bucket())
    shard = job.shards(0)[0]
    with at_work(job, tmp_path / "other", lease_seconds=0.4) as process:
        process.send_signal(signal.SIGSTOP)
        with job.lock(timeout_seconds=30.0):
            shard.save(shard.batch.replace(id="in time"))
            process.send_signal(signal.SIGCONT)
            told = let_it_save(process)

    assert told.startswith(f"JobBusyError Another process took over the job {job.id}")
    assert shard.batch.id == "in time"


@with_moto
def test_a_batch_that_somebody_else_wrote_is_not_written_over(
    bucket: Callable[[], Store],
) -> None:
    """Lease or no lease: what is decided by one state is not written over another."""
    shard = a_job(bucket()).shards(0)[0]
    path = f"{shard.job.round_path(0)}/shard-00000.batch.json"
    with shard.job.lock():
        batch = shard.batch
        shard.job.store.fs.pipe_file(path, batch.replace(id="theirs").to_json().encode())
        with pytest.raises(JobBusyError, match="took over"):
            shard.save(batch.replace(id="ours"))
        with pytest.raises(JobBusyError, match="took over"):
            _ = shard.batch

    assert shard.batch.id == "theirs"


@with_moto
@pytest.mark.parametrize("end", [".lease.json", "shard-00000.batch.json"])
def test_a_write_whose_answer_is_lost_counts(
    bucket: Callable[[], Store], moto: dict[str, str], end: str
) -> None:
    """The client tries again and is refused, by its own write: that is no other writer."""
    shard = a_job(bucket()).shards(0)[0]
    lose_answer(moto["AWS_ENDPOINT_URL"], end)
    with shard.job.lock(timeout_seconds=5.0):
        shard.save(shard.batch.replace(id="batch_1"))
        shard.save(shard.batch.replace(id="batch_2"))

    assert shard.batch.id == "batch_2"


@with_moto
@pytest.mark.parametrize("name", [CARELESS, HALF])
def test_a_server_without_conditions_is_found_out(
    name: str, bucket: Callable[[], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that keeps none of the conditions, or half of them, is told once; jobs go on."""
    monkeypatch.setattr(frameenrich.store.bucket, "_proven", {})
    url = f"s3://{name}/{tmp_path.name}"
    with pytest.warns(FrameEnrichWarning, match=f"{url} has no conditional writes") as told:
        job = a_job(Store(url))
    with job.lock():
        job.shards(0)[0].save(Batch("t", id="batch_1"))

    assert len(told) == 1
    assert keys(job.store) == objects_of(job)
    assert JobPath(Store(url), job.id).open().shards(0)[0].batch == Batch("t", id="batch_1")


@with_moto
def test_a_proof_that_another_process_removes_is_no_proof_against_the_bucket(
    bucket: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that begin at once prove with the same object; neither gives up conditional writes."""
    monkeypatch.setattr(frameenrich.store.bucket, "_proven", {})

    class Disturbed(S3Objects):
        removed = False

        def write(self, path: str, data: bytes, expected: str | None) -> str:
            version = super().write(path, data, expected)
            if path.endswith(".proof") and not self.removed:
                self.removed = True
                self._fs.rm_file(path)
            return version

    medium = bucket()._medium
    assert isinstance(medium, Bucket)
    medium._objects = objects = Disturbed(medium._fs)

    with medium.lock(f"{BUCKET}/disturbed/job", 30.0):
        assert (medium._objects, objects.removed) == (objects, True)


WORKER = """
import sys
import openai
from audit import ASK, shelf
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch
provider = OpenAIBatch(openai.OpenAI(), wait_seconds=0.01)
provider.limits = Limits(max_requests=6)
frame = shelf(first=int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
job = frame.llmbatch.submit(ASK, "m", provider=provider, store=sys.argv[1])
out = frame.llmbatch.collect(job, wait=True, poll_seconds=0.5)
print(out.to_json(), flush=True)
"""


@pytest.mark.parametrize(("first", "jobs"), [(0, 1), (5, 2)], ids=["the same", "overlapping"])
def test_two_computers_at_once(
    first: int, jobs: int, bucket: Callable[[], Store], server: BatchServer, tmp_path: Path
) -> None:
    """Promise 3: both submit and wait at once: each row is asked once, both are complete.

    One frame is one job, with one batch a shard; where two overlap, one job waits for the other.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": server.base_url,
    }
    workers = []
    for name, start in (("one", 0), ("other", first)):
        (tmp_path / name).mkdir()
        workers.append(
            warm.Popen(
                [sys.executable, "-c", WORKER, f"s3://{bucket().root}", str(start)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**environment, "TMPDIR": str(tmp_path / name)},
                text=True,
            )
        )
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    results = [worker.communicate(timeout=120)[0] for worker in workers]

    for text, start in zip(results, (0, first), strict=True):
        answers = json.loads(text)
        titles = shelf(first=start)["title"]
        assert list(answers["llmbatch"].values()) == [said(title) for title in titles]
    assert [count for count in server.executed_bodies.values() if count != 1] == []
    assert len(server.executed_bodies) == 12 + first
    assert len(bucket().job_ids()) == jobs
    assert len(server.batches) == 2 if jobs == 1 else 3


@with_moto
def test_one_decision_at_a_time_on_all_computers(
    bucket: Callable[[], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: who waits and who sends is decided under one lease of the store."""
    one, other = bucket(), bucket()
    medium = other._medium
    assert isinstance(medium, Bucket)

    with one.deciding():
        (tmp_path / "other").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "other"))
        with (
            pytest.raises(JobBusyError, match=r"submitting to the store s3://.* \(process"),
            medium.deciding(other.root, 0.2),
        ):
            pass
    with medium.deciding(other.root, 5.0):
        pass


def test_a_decision_that_was_slept_over_makes_no_job(
    bucket: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: whoever lost the lease meanwhile, as a closed laptop does, decides anew."""
    store = bucket()

    def sleep_over() -> None:
        with store.draft() as draft, store.deciding():
            store.fs.pipe_file(f"{store.root}/.lease.json", b'{"holder": "another"}')
            # From now on a lease is asked for at each write, as after so long a sleep.
            monkeypatch.setattr(frameenrich.store.lease, "LEASE_SECONDS", 0.0)
            draft.write("sidecar.parquet", b"late")
            draft.commit("job-1")

    with pytest.raises(JobBusyError, match="took over submitting to the store"):
        sleep_over()
    assert bucket().job_ids() == []


# --- kill -9 --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_job_in_a_bucket_killed_anywhere_is_finished_by_the_next_run() -> None:
    """Rows lost 0, requests executed twice 0 (the full matrix: tests/README.md)."""
    script = str(TESTS / "kill_matrix.py")
    wishes = ["--store", "s3", "--faults", "none", "--every", "240", "--random", "1"]

    done = warm.run([sys.executable, script, *wishes], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    steps, kills, rows, *bad = map(int, done.stdout.splitlines()[-1].split()[1:])
    assert steps >= 500
    assert kills >= steps // 240
    assert rows >= 6 * kills
    assert bad == [0, 0, 0, 0]


# --- bad input ------------------------------------------------------------------------------------


@with_moto
def test_a_store_that_cannot_be_reached_says_so(
    bucket: Callable[[], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such bucket, no credentials, no such kind of store: before anything is rendered."""
    with pytest.raises(StoreError, match=r"cannot be written at nowhere/x.*bucket does not exist"):
        a_job(Store("s3://nowhere/x"))
    with pytest.raises(StoreError, match=r"store nonsense://x cannot be opened.*frameenrich\[s3\]"):
        Store("nonsense://x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    s3fs.S3FileSystem.clear_instance_cache()
    for reach in (lambda: bucket().job_ids(), lambda: a_job(bucket())):
        with pytest.raises(StoreError, match=r"cannot be reached at s3://.*your credentials"):
            reach()


def test_the_stores_own_key_is_nowhere_in_it(
    bucket: Callable[[], Store], s3: dict[str, str]
) -> None:
    """Credentials are the environment's: in no object, no repr."""
    job = a_job(bucket())
    with job.lock():
        shown = repr((job.store, job, job.shards(0)))
    kept = b"".join(job.store.fs.cat_file(path) for path in job.store.fs.find(job.store.root))

    for secret in (s3["AWS_SECRET_ACCESS_KEY"], s3["AWS_ACCESS_KEY_ID"]):
        assert secret not in shown
        assert secret.encode() not in kept


def test_nothing_appended_makes_no_object(bucket: Callable[[], Store]) -> None:
    """Opened and closed again."""
    job = a_job(bucket())
    with job.lock(), job.shards(0)[0].open_appending() as file:
        sync(file)

    assert keys(job.store) == objects_of(job)


def test_threads_that_share_a_job_are_one_process(
    bucket: Callable[[], Store], client: openai.OpenAI, mugs: pd.DataFrame
) -> None:
    """A `Job` in several threads, as in a web service: no thread takes another for a stranger."""
    frame = frameenrich.llmbatch(mugs)
    job = frame.submit("Sort {{ title }}", "m", store=bucket(), client=client)
    verbs: list[Callable[[], Any]] = [
        lambda: job.collect(mugs, wait=True, poll_seconds=0.01, timeout=60),
        lambda: [job.status() for _ in range(4)],
        lambda: job.wait(poll_seconds=0.01, timeout=60),
        lambda: [repr(job), job.usage(), job.flagged()],
    ]

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(verb) for verb in verbs * 2]
    failures = [each.exception() for each in done if each.exception()]

    assert failures == []
    assert done[0].result()["llmbatch_status"].eq("ok").all()


JUNK = [
    b"", b"null", b"[]", b'"x"', b"{}", b"[" * 20_000, b'{"holder": ' * 20_000, b"\xff",
    b'{"holder": []}', b'{"holder": {}}', b'{"holder": "a", "seconds": 1e308}',
    b'{"holder": "a", "seconds": NaN}', b'{"holder": "a", "seconds": -1}',
    b'{"holder": "a", "seconds": "soon"}', b'{"holder": "a", "who": [1]}',
]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK, ids=map(str, range(len(JUNK))))
def test_a_lease_that_is_junk_is_nobodys(junk: bytes, tmp_path: Path) -> None:
    """Promise 9: neither a raw exception nor a job that is held for ever."""
    fs = fsspec.filesystem("memory")
    path = f"{tmp_path}/.lease.json"
    fs.pipe_file(path, junk)

    lease = Lease(PlainObjects(fs), path, Guarded("job-1"), str(tmp_path / "note"))
    with hold(lease, 0.0):
        assert json.loads(fs.cat_file(path))["holder"]


def test_who_holds_a_lease_is_told_in_few_words(tmp_path: Path) -> None:
    """Promise 9: somebody else's words, of any length, are one short line."""
    fs = fsspec.filesystem("memory")
    path = f"{tmp_path}/.lease.json"
    fs.pipe_file(path, json.dumps({"holder": "a", "who": "x\n" * 50_000}).encode())

    with pytest.raises(JobBusyError) as held:
        Lease(PlainObjects(fs), path, Guarded("job-1"), str(tmp_path / "note")).acquire(0.0)
    assert len(str(held.value)) < 500
    assert "\n" not in str(held.value)
