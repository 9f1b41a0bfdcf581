"""Jobs are listed, found and deleted one by one: what is wrong with one is no other's trouble."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import warm
from batch_server import BatchServer
from conftest import status_counts

import frameenrich
from frameenrich.errors import FrameEnrichWarning, JobNotFoundError, ParameterError, StoreError
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.store.folder import JobPath
from frameenrich.store.listing import newest_job
from frameenrich.store.store import open_store
from frameenrich.verbs.job import Job

DAY = 86400.0


def ask(frame: pd.DataFrame, store: Any, provider: Any, **options: Any) -> Job:
    """Submit; the same frame under another name is another job."""
    job: Job = frame.llmbatch.submit("{{ title }}", "m", provider=provider, store=store, **options)
    return job


def done(frame: pd.DataFrame, store: Any, provider: OpenAIBatch, **options: Any) -> Job:
    """A job whose answers are all here."""
    return ask(frame, store, provider, **options).wait(poll_seconds=0.01)


def make_old(path: str | Path, days: float = 40) -> None:
    """Everything below it was last changed so many days ago."""
    moment = time.time() - days * DAY
    for base, folders, files in os.walk(path):
        for name in [*folders, *files, "."]:
            os.utime(Path(base, name), (moment, moment))
    os.utime(path, (moment, moment))


def damage(job: Job, name: str = "sidecar.parquet") -> None:
    """The file is there, and holds nothing of use."""
    Path(job.path, name).write_bytes(b"rot")


def fates(cleaned: pd.DataFrame) -> dict[str, Any]:
    """What became of each; True where it was deleted, else why it stays."""
    kept = cleaned["reason"].fillna("")
    return {
        os.path.basename(name): gone or reason
        for name, gone, reason in zip(cleaned["name"], cleaned["deleted"], kept, strict=True)
    }


# --- listing and finding ------------------------------------------------------------------------


def test_jobs_tells_sizes_and_times(mugs: pd.DataFrame, store: Path, provider: OpenAIBatch) -> None:
    """Bytes as the folder's files have them, when it was made and when it last changed."""
    old, new = done(mugs, store, provider, name="old"), done(mugs, store, provider, name="new")
    make_old(old.path, days=3)

    table: Any = frameenrich.jobs(store).set_index("job")

    files = [p for p in Path(old.path).rglob("*") if p.is_file() and p.name != ".lock"]
    assert list(table.index) == [new.id, old.id]
    assert table.loc[old.id, "bytes"] == sum(p.stat().st_size for p in files)
    days = (pd.Timestamp.now(tz="UTC") - table["changed"]) / pd.Timedelta(days=1)
    assert days.round(2).tolist() == [0, 3]
    assert (table["created"] > pd.Timestamp.now(tz="UTC") - pd.Timedelta(minutes=5)).all()


def test_an_empty_store_has_a_table_too(store: Path) -> None:
    """With the same columns and types."""
    table = frameenrich.jobs(store)

    assert len(table) == 0
    assert {"job", "created", "changed", "bytes", "settled"} <= set(table.columns)
    assert isinstance(table["created"].dtype, pd.DatetimeTZDtype)


@pytest.mark.parametrize("name", ["sidecar.parquet", "round-0/shard-00000.batch.json"])
def test_a_damaged_job_is_listed_as_damaged(name: str, mugs: pd.DataFrame, store: Path) -> None:
    """With its name and a warning that names the file; the others are listed as ever."""
    bad = ask(mugs, store, "file", name="bad")
    good = ask(mugs, store, "file", name="good")
    damage(bad, name)

    with pytest.warns(FrameEnrichWarning, match=f"{bad.path}/{name} cannot be read"):
        table: Any = frameenrich.jobs(store).set_index("job")

    assert set(table.index) == {bad.id, good.id}
    assert table["batches"].to_dict() == {bad.id: "damaged", good.id: "in_progress"}
    assert pd.isna(table.loc[bad.id, "settled"])
    assert table.loc[bad.id, "bytes"] > 0


@pytest.mark.parametrize("name", ["sidecar.parquet", "round-0/shard-00000.batch.json"])
def test_submit_goes_on_where_a_damaged_job_asked_nothing_of_it(
    name: str, mugs: pd.DataFrame, store: Path, provider: OpenAIBatch, server: BatchServer
) -> None:
    """The damaged job's requests prove it; the warning names the damage."""
    bad = done(mugs, store, provider, name="bad")
    damage(bad, name)
    other = mugs.assign(title="Other " + mugs["title"])

    if name == "sidecar.parquet":  # else all that matters of it can be read
        with pytest.warns(FrameEnrichWarning, match="passed over: .*bad-.*sidecar.parquet"):
            out = done(other, store, provider, name="good").collect(other)
    else:
        out = done(other, store, provider, name="good").collect(other)

    assert status_counts(out, "good") == {"ok": 4}
    assert len(server.batches) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["sidecar.parquet"],
        ["round-0/shard-00000.batch.json"],
        ["sidecar.parquet", "round-0/shard-00000.requests.jsonl"],
        ["sidecar.parquet", "round-0/shard-00000.batch.json"],
    ],
    ids=lambda names: " ".join(name.rpartition("/")[2] for name in names),
)
def test_submit_stops_where_a_damaged_job_may_have_asked_the_same(
    names: list[str],
    mugs: pd.DataFrame,
    store: Path,
    provider: OpenAIBatch,
    server: BatchServer,
) -> None:
    """Promise 3: what may be paid already is not asked again; the error says what one can do."""
    bad = done(mugs, store, provider, name="bad")
    for name in names:
        damage(bad, name)

    with pytest.raises(
        StoreError, match=r"bad-.* has asked .* of the same requests\. .*fresh=True"
    ):
        ask(mugs, store, provider, name="good")

    assert len(server.batches) == 1
    out = done(mugs, store, provider, name="good", fresh=True).collect(mugs)
    assert status_counts(out, "good") == {"ok": 4}


def test_collect_without_a_job_passes_over_a_damaged_one(
    mugs: pd.DataFrame, store: Path, provider: OpenAIBatch
) -> None:
    """A job that was made for the frame is found, and the damaged one is told."""
    done(mugs, store, provider, name="good")
    other = mugs.assign(title="Other " + mugs["title"])
    damage(ask(other, store, "file", name="bad"))

    with pytest.warns(FrameEnrichWarning, match="passed over: .*bad-.*sidecar.parquet cannot be"):
        out = mugs.llmbatch.collect(store=store)

    assert status_counts(out, "good") == {"ok": 4}


def test_with_nothing_but_damage_the_damage_is_the_error(mugs: pd.DataFrame, store: Path) -> None:
    """It may well have been the job that is looked for."""
    damage(ask(mugs, store, "file"))

    with pytest.raises(StoreError, match=r"sidecar\.parquet cannot be read"):
        mugs.llmbatch.collect(store=store)
    with pytest.raises(StoreError, match=r"sidecar\.parquet cannot be read"):
        newest_job(store)


def test_the_newest_job_is_the_newest_that_can_be_read(mugs: pd.DataFrame, store: Path) -> None:
    """``frameenrich status`` without a job looks at it."""
    with pytest.raises(JobNotFoundError, match="holds no job"):
        newest_job(store)
    good = ask(mugs, store, "file", name="good")
    damage(ask(mugs, store, "file", name="bad"))

    with pytest.warns(FrameEnrichWarning, match="passed over"):
        assert newest_job(store).id == good.id


# --- deleting -----------------------------------------------------------------------------------


def test_clean_deletes_what_is_finished_and_old(
    mugs: pd.DataFrame, store: Path, provider: OpenAIBatch, server: BatchServer
) -> None:
    """Not what is young, not what waits for answers; and nothing at all in a dry run."""
    old = done(mugs, store, provider, name="old")
    young = done(mugs, store, provider, name="young")
    waits = ask(mugs, store, "file", name="waits")
    for job in (old, waits):
        make_old(job.path)
    said = {waits.id: "not finished: in_progress"}

    looked = frameenrich.clean("30d", store=store, dry_run=True)
    assert fates(looked) == {old.id: "", **said}
    assert Path(old.path).is_dir()
    cleaned: Any = frameenrich.clean(timedelta(days=30), store=store)

    assert fates(cleaned) == {old.id: True, **said}
    assert cleaned.set_index("name").loc[old.id, "bytes"] > 0
    assert {entry.name for entry in store.iterdir()} == {
        young.id,
        waits.id,
        ".gitignore",
        ".lock",
    }
    assert all(not file["deleted"] for file in server.files.values())
    assert set(frameenrich.jobs(store)["job"]) == {young.id, waits.id}


def test_a_later_round_makes_a_job_young_again(
    mugs: pd.DataFrame, store: Path, provider: OpenAIBatch, server: BatchServer
) -> None:
    """What counts is when something was last done to it."""
    server.faults.add("http_error", where="*", times="always")
    job = done(mugs, store, provider)
    make_old(job.path)
    job.regenerate(statuses=["failed"]).wait(poll_seconds=0.01)

    assert frameenrich.clean("30d", store=store).empty
    assert Path(job.path).is_dir()


def test_force_deletes_what_is_unfinished_or_damaged(mugs: pd.DataFrame, store: Path) -> None:
    """Without it both stay, with the reason."""
    waits, bad = (ask(mugs, store, "file", name=name) for name in ("waits", "bad"))
    damage(bad)
    for job in (waits, bad):
        make_old(job.path)

    kept = fates(frameenrich.clean("30d", store=store))
    assert kept[waits.id] == "not finished: in_progress"
    assert kept[bad.id].startswith("damaged: The store's file")
    gone = fates(frameenrich.clean("30d", store=store, force=True))

    assert gone == {waits.id: True, bad.id: True}
    assert open_store(store).job_ids() == []


def test_a_job_that_somebody_works_on_stays(
    mugs: pd.DataFrame, store: Path, provider: OpenAIBatch
) -> None:
    """Its lock is held by another process, so to say."""
    job = done(mugs, store, provider)
    make_old(job.path)

    with JobPath(open_store(store), job.id).lock():
        cleaned = frameenrich.clean("30d", store=store)

    assert fates(cleaned) == {job.id: "another process is at work on it"}
    assert fates(frameenrich.clean("30d", store=store)) == {job.id: True}


def test_remote_deletes_the_providers_files_first(
    mugs: pd.DataFrame,
    store: Path,
    provider: OpenAIBatch,
    client: Any,
    server: BatchServer,
) -> None:
    """Where the provider refuses, the job stays; it is what knows the files' names."""
    job = done(mugs, store, provider)
    make_old(job.path)
    server.faults.add("unauthorized", where="DELETE *", times="always")

    refused = fates(frameenrich.clean("30d", store=store, remote=True, client=client))
    assert "401" in refused[job.id]
    assert Path(job.path).is_dir()
    assert [file["deleted"] for file in server.files.values()] == [False, False]
    server.faults.clear()
    make_old(job.path)
    gone = fates(frameenrich.clean("30d", store=store, remote=True, client=client))

    assert gone == {job.id: True}
    assert [file["deleted"] for file in server.files.values()] == [True, True]


KILLED = """
import os, signal, sys
import pandas as pd
import frameenrich
from frameenrich.store import cleanup
cleanup.shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
frameenrich.clean("30d", store=sys.argv[1])
"""


def test_a_job_whose_deletion_was_killed_is_gone_and_its_rest_goes_later(
    mugs: pd.DataFrame, store: Path, provider: OpenAIBatch
) -> None:
    """Renamed first: no half of a job is ever taken for one."""
    job = done(mugs, store, provider)
    make_old(job.path)
    killed = warm.run([sys.executable, "-c", KILLED, str(store)], check=False)

    assert killed.returncode == -signal.SIGKILL
    assert frameenrich.jobs(store).empty
    (rest,) = store.glob(".frameenrich-draft-*")
    assert fates(frameenrich.clean("30d", store=store)) == {rest.name: True}
    assert {entry.name for entry in store.iterdir()} <= {".gitignore", ".lock"}


DRAFTING = """
import os, signal, sys
import pandas as pd
import frameenrich
from frameenrich.store.draft import Draft
Draft.commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
frame = pd.DataFrame({"title": ["a"]})
frame.llmbatch.submit("{{ title }}", "m", provider="file", store=sys.argv[1])
"""


def test_drafts_and_torn_files_of_dead_processes_are_leftovers(
    mugs: pd.DataFrame, store: Path, provider: OpenAIBatch
) -> None:
    """A submit that was killed, and a file that was never renamed; the young stay."""
    job = done(mugs, store, provider)
    warm.run([sys.executable, "-c", DRAFTING, str(store)], check=False)
    (draft,) = store.glob(".frameenrich-draft-*")
    torn = Path(job.path, "round-0", ".shard-00000.batch.json.77-aa.tmp")
    torn.write_text("{")

    assert frameenrich.clean("30d", store=store).empty
    for path in (draft, torn):
        make_old(path, days=1)
    assert fates(frameenrich.clean("30d", store=store, dry_run=True)) == {
        draft.name: "",
        torn.name: "",
    }
    assert fates(frameenrich.clean("30d", store=store)) == {draft.name: True, torn.name: True}
    assert (draft.exists(), torn.exists(), Path(job.path).is_dir()) == (False, False, True)
    assert status_counts(mugs.llmbatch.collect(store=store)) == {"ok": 4}


def test_jobs_in_a_bucket_are_deleted_likewise(mugs: pd.DataFrame, provider: OpenAIBatch) -> None:
    """No rename there: the sidecar goes first."""
    where = f"memory://housekeeping-{os.getpid()}"
    old = done(mugs, where, provider, name="old")

    assert frameenrich.clean("1d", store=where).empty
    assert fates(frameenrich.clean("0d", store=where)) == {old.id: True}
    assert open_store(where).fs.find(open_store(where).root) == []


@pytest.mark.parametrize("age", ["30", "d", "-3d", "30 days", "", 30, timedelta(days=-1)])
def test_an_age_that_is_none_is_refused(age: Any, store: Path) -> None:
    """Above all a bare number, which could be thirty of anything."""
    with pytest.raises(ParameterError, match="such as '30d'"):
        frameenrich.clean(age, store=store)
