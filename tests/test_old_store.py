"""An upgrade pays nothing again: a store that an earlier version wrote (`old_store`) goes on.

Only the public face is used here, so that these tests stay as they are while what is inside moves.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from conftest import status_counts
from old_store import HERE, Entry, Table, entries, restore

import frameenrich
from frameenrich import FrameEnrichWarning

KINDS = [entry.kind for entry in entries()]
LEFT_RUNNING = {"running", "intent"}


@pytest.fixture
def home(tmp_path: Path, server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the old store, and give the server the books of then; its batches stand still."""
    copy = tmp_path / "home"
    shutil.copytree(HERE, copy, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.chdir(copy)
    restore(server, copy)
    server.hold("in_progress")
    return copy


@pytest.fixture
def entry(home: Path, request: pytest.FixtureRequest) -> Entry:
    """Give what the manifest says of the job of this kind."""
    return entry_of(home, request.param)


def entry_of(home: Path, kind: str) -> Entry:
    """Find the job of a kind."""
    return next(entry for entry in entries(home) if entry.kind == kind)


every_kind = pytest.mark.parametrize("entry", KINDS, indirect=True)


def check(entry: Entry, found: Table, recorded: Table) -> None:
    """Find every recorded column with the same cells; later versions may add columns."""
    assert {name: found.get(name) for name in recorded} == recorded


def sent(server: BatchServer) -> int:
    """Count uploads, creates and live calls, answered or not."""
    return server.count("POST", "*")


def job_folders(entry: Entry) -> set[str]:
    """Name the folders of the store, which are its jobs."""
    return {path.name for path in entry.store.iterdir() if not path.name.startswith(".")}


def test_every_job_is_listed(home: Path) -> None:
    """List all of them, none as damaged, and say what is settled (promise 14)."""
    table = frameenrich.jobs(store=home / "store").set_index("job")

    known = entries(home)
    assert sorted(table.index) == sorted(entry.job for entry in known)
    assert not table["batches"].str.contains("damaged").any()
    for entry in known:
        assert table["name"][entry.job] == entry.name
        assert table["rounds"][entry.job] == (2 if entry.kind == "two_rounds" else 1)
        assert table["settled"][entry.job] == (entry.kind not in LEFT_RUNNING)


@every_kind
def test_it_opens_and_reads(
    entry: Entry, client: openai.OpenAI, server: BatchServer, tmp_path: Path
) -> None:
    """Open a job by its id: it is shown, collected and reported as it was (promise 14)."""
    job = entry.open(client)

    assert job.id == entry.job
    assert entry.job in repr(job)
    assert entry.job in job._repr_html_()
    check(entry, entry.collect(job), entry.before)
    assert job.report(tmp_path / "report.html", **entry.reading()).exists()
    assert sent(server) == 0


def named_where_numbers_print_anew(entry: Entry) -> contextlib.AbstractContextManager[Any]:
    """Expect the warning that names the older job, where promise 15 changed what is rendered."""
    if entry.name != "whole_numbers":
        return contextlib.nullcontext()
    return pytest.warns(FrameEnrichWarning, match=f"The job {entry.job} of an earlier version")


@every_kind
def test_the_same_submit_sends_nothing(
    entry: Entry, client: openai.OpenAI, server: BatchServer
) -> None:
    """Submit the same: the same job, no upload, no batch, no live call (promises 3 and 14)."""
    folders = job_folders(entry)
    batches = set(server.batches)

    with named_where_numbers_print_anew(entry):
        made = entry.call(client)

    assert sent(server) == 0
    assert job_folders(entry) == folders
    if entry.verb == "pilot":
        rows = made[f"{entry.name}"].tolist()
        assert rows == [answer for answer in entry.before[entry.name] if answer is not None]
        return
    assert made.id == entry.job
    check(entry, entry.collect(made), entry.before)
    assert set(server.batches) == batches
    assert sent(server) == 0


@every_kind
def test_it_goes_on_to_its_end(entry: Entry, client: openai.OpenAI, server: BatchServer) -> None:
    """Wait for a job: what ran is brought home and nothing is sent (promises 4 and 14)."""
    server.release()

    check(entry, entry.finish(client), entry.after)

    assert sent(server) == 0
    if entry.kind in LEFT_RUNNING:
        assert max(server.executed.values()) == 1
        assert sum(server.executed.values()) == len(entry.after[f"{entry.name}_status"])
    else:
        assert not server.executed
    check(entry, entry.collect(entry.open(None)), entry.after)  # all is on disk now


@pytest.mark.parametrize(
    "entry",
    [kind for kind in KINDS if kind not in {"pilot", "ready", "file"}],
    indirect=True,
)
def test_a_frame_finds_its_job(entry: Entry, client: openai.OpenAI, server: BatchServer) -> None:
    """Collect on a frame read anew and turned round: its own answers (promises 2 and 14)."""
    server.release()
    frame = entry.frame()
    assert frame is not None

    turned = frame.iloc[::-1].llmbatch.collect(
        wait=True, poll_seconds=0.01, client=client, store=entry.store, **entry.reading()
    )

    found = entry.answers(turned.iloc[::-1])
    check(entry, found, {name: entry.after[name] for name in found})
    assert sent(server) == 0


def test_images_may_lie_elsewhere(
    home: Path,
    client: openai.OpenAI,
    server: BatchServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Submit from another folder, with an absolute image_root: the same job (promise 14)."""
    entry = entry_of(home, "image")
    frame = entry.frame()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.move(home / "images", tmp_path / "photos")

    job = entry.call(client, image_root=tmp_path / "photos")

    assert job.id == entry.job
    check(entry, entry.answers(job.collect(frame, usage=True)), entry.before)
    assert sent(server) == 0


@pytest.mark.parametrize(
    ("kind", "again"),
    [("expired", 2), ("cancelled", 2), ("flagged", 5), ("two_rounds", 1)],
)
def test_only_flagged_rows_are_asked_again(
    home: Path, kind: str, again: int, client: openai.OpenAI, server: BatchServer
) -> None:
    """Regenerate: what can be mended is sent, the rest is kept (promises 4 and 14).

    Of the flagged job a refused row is left as it is.
    """
    server.release()
    entry = entry_of(home, kind)
    good = [status == "ok" for status in entry.before[f"{entry.name}_status"]]

    job = entry.open(client).regenerate()
    out: Any = job.wait(poll_seconds=0.01).collect(entry.frame())

    assert sum(server.executed.values()) == again
    assert status_counts(out, entry.name).get("ok") == sum(good) + again
    now = entry.answers(out)
    for name in now.keys() & entry.before.keys():
        pairs = zip(now[name], entry.before[name], good, strict=True)
        assert all(new == old for new, old, ok in pairs if ok), name


def test_old_answers_are_not_paid_for_again(
    home: Path, client: openai.OpenAI, server: BatchServer
) -> None:
    """Submit a frame with a row more: only that row is sent (promises 3 and 14)."""
    server.release()
    entry = entry_of(home, "reused")
    frame = entry.frame()
    assert frame is not None
    more = pd.concat([frame, pd.DataFrame({"title": ["Apron"]}, index=pd.Index(["new"]))])

    arguments = {"store": entry.store, "client": client, **entry.arguments}
    job = more.llmbatch.submit(**arguments)
    out = job.collect(more, wait=True, poll_seconds=0.01)

    assert job.id != entry.job
    assert dict(server.executed) == {"row-new": 1}
    assert out[entry.name].tolist()[:-1] == entry.before[entry.name]
    assert status_counts(out, entry.name) == {"ok": len(more)}


@pytest.mark.parametrize("entry", ["file", "ready", "labels", "types", "two_rounds"], indirect=True)
def test_an_import_can_be_withdrawn(
    entry: Entry, client: openai.OpenAI, server: BatchServer, tmp_path: Path
) -> None:
    """Withdraw an import into a job that was never sent: it is unsent again (promise 14)."""
    folder = entry.store / entry.job / "round-0"
    answers = tmp_path / "answers.jsonl"
    responses = sorted(folder.glob("*.responses.jsonl"))
    answers.write_bytes(b"".join(path.read_bytes() for path in responses))
    for path in responses:
        path.unlink()
    for path in folder.glob("*.batch.json"):
        path.write_text(json.dumps({"tag": json.loads(path.read_text())["tag"]}))
    job = entry.open(client)

    job.import_responses(answers)
    job.withdraw_import()

    table = frameenrich.jobs(store=entry.store).set_index("job")
    # Another job of this store was paid for the same requests, so nothing is left to be sent.
    assert table["settled"][entry.job] == (entry.kind == "labels")
    job.import_responses(answers)
    check(entry, entry.collect(job), entry.before)
    assert sent(server) == 0
