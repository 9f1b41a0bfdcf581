"""A job's folder: files are whole or absent, private, and locked; names cannot leave the store."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pytest
import warm
from draws import examples
from hypothesis import example, given
from hypothesis import strategies as st
from stores import CrashError, a_job, write_half, write_round

import frameenrich
from frameenrich.errors import JobBusyError, JobNotFoundError, StoreError
from frameenrich.model import Batch, BatchError, Limits
from frameenrich.prepare.rounds import RetryRequest
from frameenrich.store.folder import JobFolder, JobPath, job_folders
from frameenrich.store.listing import find_folder
from frameenrich.store.store import Store, open_store

FEW = examples(40)


def tree(folder: str | Path) -> dict[str, int]:
    """Return every path below a folder with its permissions."""
    root = Path(folder)
    return {str(p.relative_to(root)): stat.S_IMODE(p.stat().st_mode) for p in root.rglob("*")}


def names(folder: str | Path) -> set[str]:
    """Return every path below a folder."""
    return set(tree(folder))


JOB_FILES = {
    "sidecar.parquet",
    "round-0",
    "round-0/shard-00000.requests.jsonl",
    "round-0/shard-00000.batch.json",
    "round-0/shard-00001.requests.jsonl",
    "round-0/shard-00001.batch.json",
}


# --- where the store is ---------------------------------------------------------------------------


def test_the_store_is_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """First ``store=``, then ``$FRAMEENRICH_STORE``, then ``.frameenrich`` here."""
    here = open_store().root
    monkeypatch.setenv("FRAMEENRICH_STORE", str(tmp_path / "env"))
    given_store = Store(tmp_path / "own")

    assert [here, open_store().root, open_store("~/own").root, open_store(given_store)] == [
        str(tmp_path / ".frameenrich"),
        str(tmp_path / "env"),
        os.path.expanduser("~/own"),
        given_store,
    ]


def test_a_store_stays_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A later change of the working folder does not move it."""
    store = open_store("jobs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    job = a_job(store)

    assert str(tmp_path / "jobs" / job.id) == job.path


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """Looking for jobs makes no folder."""
    store = Store(tmp_path / "none")

    assert (store.job_ids(), job_folders(store)) == ([], [])
    assert names(tmp_path) == set()


def test_a_store_that_is_a_file_is_no_empty_store(tmp_path: Path) -> None:
    """A wrong ``--store`` is told, rather than that it holds no job."""
    (tmp_path / "goods.csv").write_text("a\n1\n")

    with pytest.raises(StoreError, match=r"goods\.csv is not a folder\. Say which folder holds"):
        job_folders(Store(tmp_path / "goods.csv"))


def test_a_new_store_is_private_and_keeps_out_of_git(tmp_path: Path) -> None:
    """Row data and answers are for the user's eyes."""
    store = Store(tmp_path / "store")
    job = a_job(store)
    folders = {path: mode for path, mode in tree(tmp_path).items() if (tmp_path / path).is_dir()}

    assert folders == {
        "store": 0o700,
        f"store/{job.id}": 0o700,
        f"store/{job.id}/round-0": 0o700,
    }
    assert (tmp_path / "store" / ".gitignore").read_text() == "*\n"


def test_a_folder_that_was_there_keeps_its_permissions(tmp_path: Path) -> None:
    """Only what this package makes is its to close; the job's folder is private all the same."""
    tmp_path.chmod(0o755)

    job = a_job(Store(tmp_path))

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert stat.S_IMODE(Path(job.path).stat().st_mode) == 0o700
    assert not (tmp_path / ".gitignore").exists()


@pytest.mark.parametrize("below", ["", "/deep/down"])
def test_a_store_that_cannot_be_written_says_so(below: str, tmp_path: Path) -> None:
    """A path below a regular file is found out before anything is rendered or sent."""
    (tmp_path / "file").write_text("x")
    store = Store(f"{tmp_path}/file{below}")

    with pytest.raises(StoreError, match=r"cannot be written at .*file.*Pass store= a folder"):
        store.check_writable()
    with pytest.raises(StoreError, match="cannot be written"):
        a_job(store)
    assert names(tmp_path) == {"file"}


# --- whole or absent ------------------------------------------------------------------------------


def test_a_job_appears_whole(tmp_path: Path) -> None:
    """Until the draft is committed no other process sees any of it."""
    store = Store(tmp_path)
    with store.draft() as draft:
        draft.write("round-0/shard-00000.requests.jsonl", b"{}\n")
        with draft.sidecar_writer(pa.schema({"shard": pa.int64()})) as sidecar:
            sidecar.write_table(pa.table({"shard": [0]}))
        before = store.job_ids()
        draft.commit("job-1")

    assert (before, store.job_ids()) == ([], ["job-1"])
    assert names(tmp_path) == {
        "job-1",
        "job-1/sidecar.parquet",
        "job-1/round-0",
        "job-1/round-0/shard-00000.requests.jsonl",
    }


@pytest.mark.parametrize("error", [CrashError, KeyboardInterrupt, SystemExit])
def test_a_draft_that_fails_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    """Whatever goes wrong in the middle, neither a job nor a draft is left."""
    with pytest.raises(error), Store(tmp_path).draft() as draft:
        write_half(draft.file("round-0/shard-00000.requests.jsonl"), error)

    assert names(tmp_path) == set()


def test_a_full_disk_is_a_store_error(tmp_path: Path) -> None:
    """An OSError while writing names the store and leaves nothing."""
    with pytest.raises(StoreError, match="No space left on device"), Store(tmp_path).draft():
        raise OSError(28, "No space left on device")

    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "Free some room there, then call again"),
        (errno.EDQUOT, "Free some room there, then call again"),
        (errno.EACCES, "Let this user write there"),
        (errno.EROFS, "Let this user write there"),
        (errno.EIO, "Correct that, then call again"),
    ],
)
def test_what_to_do_depends_on_why_it_cannot_be_written(
    number: int, fix: str, tmp_path: Path
) -> None:
    """Promise 9: nobody is sent to another store, where all is paid again, for want of room."""
    with pytest.raises(StoreError, match=fix) as caught, Store(tmp_path).draft():
        raise OSError(number, os.strerror(number))

    assert os.strerror(number) in str(caught.value)
    assert ("store=" in str(caught.value)) is (number in {errno.EACCES, errno.EROFS})


def test_of_two_drafts_of_one_job_the_first_stands(tmp_path: Path) -> None:
    """Two processes that submit the same at once end up with one job."""
    store = Store(tmp_path)
    with store.draft() as one, store.draft() as other:
        one.write("sidecar.parquet", b"one")
        other.write("sidecar.parquet", b"other")
        made = (one.commit("job-1"), other.commit("job-1"))

    assert made == (True, False)
    assert (tmp_path / "job-1" / "sidecar.parquet").read_bytes() == b"one"
    assert names(tmp_path) == {"job-1", "job-1/sidecar.parquet"}


def test_a_draft_can_be_arranged_anew(tmp_path: Path) -> None:
    """Of what was set aside, only what is taken over is in the job."""
    with Store(tmp_path).draft() as draft:
        draft.file("round-0/x").write(b"1")
        draft.write("y", b"2")
        with draft.set_aside("aside") as folder:
            assert names(folder) == {"round-0", "round-0/x", "y"}
            draft.take_over("round-0/z", f"{folder}/round-0/x")
        draft.write("round-0/b", b"3")
        draft.commit("job-1")

    assert names(tmp_path / "job-1") == {"round-0", "round-0/b", "round-0/z"}
    assert (tmp_path / "job-1" / "round-0" / "z").read_bytes() == b"1"


def test_drafts_of_killed_processes_are_swept_after_a_day(tmp_path: Path) -> None:
    """An old one goes with the next draft; one that may be in use stays."""
    for name, hours in (("old", 25), ("new", 1)):
        path = tmp_path / f".frameenrich-draft-{name}"
        path.mkdir()
        (path / "x").write_text("x")
        then = time.time() - hours * 3600
        os.utime(path, (then, then))

    with Store(tmp_path).draft():
        pass

    assert names(tmp_path) == {".frameenrich-draft-new", ".frameenrich-draft-new/x"}


def test_a_draft_is_no_job(tmp_path: Path) -> None:
    """A killed process leaves nothing that looks like a job."""
    draft = tmp_path / ".frameenrich-draft-1-ab"
    draft.mkdir()
    (draft / "sidecar.parquet").write_bytes(b"half")

    assert Store(tmp_path).job_ids() == []


@pytest.mark.parametrize("before", [None, b"as it was"])
@pytest.mark.parametrize("error", [CrashError, OSError, KeyboardInterrupt])
def test_a_file_is_written_whole_or_not_at_all(
    before: bytes | None, error: type[BaseException], tmp_path: Path
) -> None:
    """A failure in the middle leaves what was there, and no temporary file."""
    path = tmp_path / "batch.json"
    if before is not None:
        path.write_bytes(before)
    expected = StoreError if error is OSError else error

    with pytest.raises(expected), Store(tmp_path).write_whole(str(path)) as file:
        write_half(file, error)

    assert before == (path.read_bytes() if path.exists() else None)
    assert names(tmp_path) == (set() if before is None else {"batch.json"})


def test_a_file_that_is_being_written_is_not_seen(tmp_path: Path) -> None:
    """A reader has the old text until the new one is complete."""
    path = tmp_path / "batch.json"
    path.write_bytes(b"old")
    with Store(tmp_path).write_whole(str(path)) as file:
        file.write(b"new")
        meanwhile = path.read_bytes()

    assert (meanwhile, path.read_bytes()) == (b"old", b"new")


# --- a job's files --------------------------------------------------------------------------------


def test_a_jobs_files_are_those_of_the_design(tmp_path: Path) -> None:
    """One sidecar, and for each shard its requests and its intent."""
    job = a_job(Store(tmp_path))

    assert names(job.path) == JOB_FILES
    assert [(s.round, s.number, s.batch.tag) for s in job.all_shards()] == [
        (0, 0, f"{job.id}-r0-s00000-a0"),
        (0, 1, f"{job.id}-r0-s00001-a0"),
    ]


def test_a_batch_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    """``batch.json`` is the one file that changes; nothing else does."""
    shard = a_job(Store(tmp_path)).shards(0)[1]
    batch = shard.batch.replace(id="batch_1", errors=(BatchError("x", "mé \ud83d", 3),))

    shard.save(batch)

    assert batch == shard.batch
    assert names(shard.job.path) == JOB_FILES


@FEW
@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=5))
def test_responses_are_kept_as_they_came(lines: list[bytes]) -> None:
    """Lines are read as they were written, byte for byte."""
    with tempfile.TemporaryDirectory() as folder:
        shard = a_job(Store(folder)).shards(0)[0]
        nothing = list(shard.read_responses())
        with shard.write_responses() as file:
            file.writelines([b"first\n", *(line + b"\n" for line in lines)])

        expected = b"".join(line + b"\n" for line in [b"first", *lines])
        assert ([], expected) == (nothing, b"".join(shard.read_responses()))


@FEW
@given(st.binary(max_size=30))
@example(b"")
@example(b"one\ntwo\ntor")
@example(b"one\n" + b"x" * 1_200_000)
@example(b"x" * 1_200_000)
@example(b"x" * 600_000 + b"\n" + b"x" * 600_000)
def test_a_line_torn_by_a_crash_is_cut_off(written: bytes) -> None:
    """Appending goes on after the last whole line, wherever the file ends."""
    with tempfile.TemporaryDirectory() as folder:
        shard = a_job(Store(folder)).shards(0)[0]
        Path(shard.responses_path).write_bytes(written)

        with shard.open_appending() as file:
            file.write(b"next\n")

        whole = written[: written.rfind(b"\n") + 1]
        assert whole + b"next\n" == Path(shard.responses_path).read_bytes()


def test_rounds_are_counted_while_they_have_a_sidecar(tmp_path: Path) -> None:
    """A round exists as a whole or not at all; a second draft of it does nothing."""
    job = a_job(Store(tmp_path))
    line = b'{"custom_id":"r1-row-a"}\n'
    lines = [RetryRequest("row-a", "r1-row-a", line, b"h" * 32, "m", "empty", "unchanged")]

    made = [write_round(job, 1, lines, Limits()), write_round(job, 1, lines, Limits())]

    assert (made, job.rounds()) == ([True, False], 2)
    assert job.sidecar(1).to_pylist() == [
        {
            "answers": "row-a",
            "custom_id": "r1-row-a",
            "request_hash": b"h" * 32,
            "shard": 0,
            "status": "empty",
            "change": "unchanged",
        }
    ]
    assert [s.round for s in job.all_shards()] == [0, 0, 1]
    assert names(tmp_path / job.id / "round-1") == {
        "sidecar.parquet",
        "shard-00000.requests.jsonl",
        "shard-00000.batch.json",
    }


def test_a_job_of_many_shards_keeps_one_file_open(tmp_path: Path) -> None:
    """However small the files, a process may have only so many open."""
    frame = pd.DataFrame({"title": [str(n) for n in range(60)]})
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40));"
        "import pandas as pd; from stores import *;"
        "print(len(write_job(pd.DataFrame({'title': [str(n) for n in range(60)]}), a_plan(),"
        "Store(sys.argv[1]), Limits(max_requests=1)).all_shards()))"
    )

    done = warm.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (str(len(frame)), "") == (done.stdout.strip(), done.stderr)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("sidecar.parquet", b"no parquet"),
        ("sidecar.parquet", b""),
        ("round-0/shard-00000.batch.json", b"{"),
        ("round-0/shard-00000.batch.json", b"[]"),
        ("round-0/shard-00000.batch.json", b"\xff"),
        ("round-0/shard-00000.batch.json", None),
        ("round-0/shard-00000.requests.jsonl", None),
    ],
)
def test_a_broken_file_is_named(name: str, broken: bytes | None, tmp_path: Path) -> None:
    """What somebody else damaged is a StoreError with the file and a way on."""
    folder = a_job(Store(tmp_path))
    path = Path(folder.path, name)
    path.unlink() if broken is None else path.write_bytes(broken)

    with pytest.raises(StoreError, match=f"{path} cannot be read.*Restore it"):
        JobPath(folder.store, folder.id).read().sidecar()


def test_responses_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """What the file system refuses is a StoreError too, not a bare OSError."""
    job = a_job(Store(tmp_path))
    path = Path(job.shards(0)[0].responses_path)
    path.mkdir()

    with pytest.raises(StoreError, match=f"{path} cannot be read: Is a directory.*Restore it"):
        list(job.shards(0)[0].read_responses())


def test_a_foreign_parquet_file_is_no_sidecar(tmp_path: Path) -> None:
    """A sidecar has its spec in its metadata."""
    job = a_job(Store(tmp_path))
    pd.DataFrame({"a": [1]}).to_parquet(f"{job.path}/sidecar.parquet")

    with pytest.raises(StoreError, match="cannot be read"):
        _ = JobPath(job.store, job.id).open().spec


# --- finding jobs ---------------------------------------------------------------------------------


def test_jobs_are_listed_the_newest_first(tmp_path: Path) -> None:
    """Other folders and files in the store are no jobs."""
    store = Store(tmp_path)
    made = [a_job(store, name).id for name in ("one", "two", "three")]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.txt").write_text("x")
    (tmp_path / "file").write_text("x")

    assert made[::-1] == [job.id for job in job_folders(store)]


@pytest.mark.parametrize(
    "job_id",
    [
        "",
        ".",
        "..",
        "../x",
        "x/../../y",
        "/etc",
        "a/b",
        "a\\b",
        "none-1",
        "*",
        "?",
        "x\n",
        "x\0",
        "é",
    ],
)
def test_names_cannot_leave_the_store(job_id: str, tmp_path: Path) -> None:
    """An id that is none, or of no job here, is refused with what there is."""
    a_job(Store(tmp_path), "x")
    inner = Store(tmp_path / "inner")
    a_job(inner)

    with pytest.raises(JobNotFoundError, match="holds no job"):
        find_folder(inner, job_id)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("../../etc", "etc"),
        ("a/b\\c", "a-b-c"),
        ("Ünïcode név", "n-code-n-v"),
        ("...", "job"),
        ("日本", "job"),
        ("x" * 80, "x" * 40),
    ],
)
def test_a_jobs_name_becomes_a_safe_folder(name: str, stem: str, tmp_path: Path) -> None:
    """Whatever the enrichment is called, its folder is a plain name inside the store."""
    job = a_job(Store(tmp_path), name)

    assert (stem, 16) == (job.id.rpartition("-")[0], len(job.id.rpartition("-")[2]))
    assert (name, str(tmp_path)) == (job.spec.name, os.path.dirname(job.path))


# --- locks ----------------------------------------------------------------------------------------

HOLD = """
import sys
from frameenrich.store.folder import JobFolder, JobPath
from frameenrich.store.store import Store
with JobPath(Store(sys.argv[1]), sys.argv[2]).lock():
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[JobFolder, subprocess.Popen[str]]]:
    """A job, and another process that holds its lock until it reads a line."""
    job = a_job(Store(tmp_path))
    command = [sys.executable, "-c", HOLD, str(tmp_path), job.id]
    with warm.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield job, process
        process.kill()


def test_two_processes_do_not_work_on_one_job(
    holder: tuple[JobFolder, subprocess.Popen[str]],
) -> None:
    """The second is told so; after the first has ended it may."""
    job, process = holder
    with pytest.raises(JobBusyError, match=job.id), job.lock(timeout_seconds=0.1):
        pass
    process.communicate("\n", timeout=30)

    with job.lock(timeout_seconds=0.1):
        pass


def test_a_killed_process_holds_no_lock(
    holder: tuple[JobFolder, subprocess.Popen[str]],
) -> None:
    """The operating system lets go of it: no stale lock to remove by hand."""
    job, process = holder
    process.kill()
    process.wait(timeout=30)

    with job.lock(timeout_seconds=5):
        pass


def test_a_lock_is_released_after_an_error(tmp_path: Path) -> None:
    """A failing step does not keep the job."""
    job = a_job(Store(tmp_path))
    with pytest.raises(CrashError), job.lock():
        raise CrashError

    with job.lock(timeout_seconds=0.1):
        pass


def test_other_jobs_are_not_locked(holder: tuple[JobFolder, subprocess.Popen[str]]) -> None:
    """A lock is one job's."""
    with a_job(holder[0].store, "other").lock(timeout_seconds=0.1):
        pass


# --- object stores --------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> Iterator[Store]:
    """A store with no disk below it."""
    yield Store("memory://bucket/jobs")
    memory: Any = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs.clear()


def test_a_job_in_an_object_store_is_the_same(bucket: Store, tmp_path: Path) -> None:
    """The same id, files, rows and requests as on disk; found again by another handle."""
    local, remote = a_job(Store(tmp_path)), a_job(bucket)
    again = JobPath(Store("memory://bucket/jobs"), remote.id).open()

    assert (local.id, local.spec) == (again.id, again.spec)
    assert local.sidecar().equals(again.sidecar())
    assert JOB_FILES - {"round-0"} == {
        path.partition(f"{remote.id}/")[2] for path in bucket.fs.find(remote.path)
    }
    for here, there in zip(local.all_shards(), again.all_shards(), strict=True):
        with there.open_requests() as file:
            assert Path(here.requests_path).read_bytes() == file.read()
        assert (here.batch, here.request_bytes) == (there.batch, there.request_bytes)


def test_an_object_store_takes_batches_responses_and_rounds(bucket: Store) -> None:
    """Everything works without a disk."""
    job = a_job(bucket)
    shard = job.shards(0)[0]
    shard.save(Batch("t", id="batch_1"))
    with shard.write_responses() as file:
        file.write(b"one\ntwo\n")
    again = RetryRequest("row-a", "r1-row-a", b"{}\n", b"h" * 32, "m", "empty", "unchanged")
    write_round(job, 1, [again], Limits())

    assert (Batch("t", id="batch_1"), b"one\ntwo\n") == (
        shard.batch,
        b"".join(shard.read_responses()),
    )
    assert (2, [job.id], True) == (job.rounds(), bucket.job_ids(), bucket.has(job.id))
    with shard.open_appending() as file:
        file.write(b"three\n")
    assert b"".join(shard.read_responses()) == b"one\ntwo\nthree\n"
    with job.lock(timeout_seconds=1):
        pass


def test_an_object_that_fails_in_the_middle_is_not_there(bucket: Store) -> None:
    """Staged on disk first: an object is put whole or not at all."""
    shard = a_job(bucket).shards(0)[0]
    with pytest.raises(CrashError), shard.write_responses() as file:
        write_half(file, CrashError)

    assert list(shard.read_responses()) == []


@pytest.mark.parametrize("name", ["od[d]", "a*b", "what?", "a::b", "[1]", "{x}", "sp ace#1%41"])
def test_a_store_may_be_called_anything(name: str, tmp_path: Path) -> None:
    """Its jobs are found, its neighbours' are not, and nothing is written beside it."""
    neighbour = a_job(Store(tmp_path / "odd"), "neighbour")

    job = a_job(Store(tmp_path / name))

    assert Store(tmp_path / name).job_ids() == [job.id]
    assert [found.id for found in job_folders(Store(str(tmp_path / name)))] == [job.id]
    assert Store(tmp_path / "odd").job_ids() == [neighbour.id]
    assert {path.name for path in tmp_path.iterdir()} == {"odd", name}


@pytest.mark.parametrize("name", ["a b[1]", "x*"])
def test_a_bucket_s_prefix_may_be_called_anything(name: str, bucket: Store) -> None:
    """As a folder may."""
    url = f"{bucket.url}/{name}"
    job = a_job(Store(url))

    assert Store(url).job_ids() == [job.id]


def test_a_store_below_a_file_holds_no_jobs(tmp_path: Path) -> None:
    """Reading it finds nothing; that nothing can be written there is told by who writes."""
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file" / "store")

    assert store.job_ids() == []
    with pytest.raises(StoreError, match="cannot be written"):
        store.check_writable()


def test_a_store_in_two_file_systems_is_refused() -> None:
    """What fsspec would take for a chain is neither silently another place nor a bare error."""
    with pytest.raises(StoreError, match="two file systems at once"):
        Store("s3://bucket/x::y")


def test_a_store_that_cannot_be_connected_to_says_so() -> None:
    """Some file systems connect as soon as they are named."""
    with pytest.raises(StoreError, match=r"cannot be opened: .*refused"):
        Store("ftp://127.0.0.1:9/x")


def test_a_job_made_after_the_clock_was_set_back_is_the_newest(
    store: Path, mugs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`collect` takes the newest job of a frame, not the one that was made on a later date."""
    how: dict[str, Any] = {"provider": "file", "store": store}
    ahead = time.time() + 86_400
    with monkeypatch.context() as tomorrow:
        tomorrow.setattr(time, "time", lambda: ahead)
        first = mugs.llmbatch.submit("Sort {{ title }}", "m", **how)
    os.utime(first.path, (ahead, ahead))  # as the file system of that day would have it

    second = mugs.llmbatch.submit("Sell {{ title }}", "m", **how)
    assert mugs.llmbatch.job(store=store).id == second.id
    third = mugs.llmbatch.submit("Burn {{ title }}", "m", **how)

    assert mugs.llmbatch.job(store=store).id == third.id
    assert list(frameenrich.jobs(store=store)["job"]) == [third.id, second.id, first.id]
