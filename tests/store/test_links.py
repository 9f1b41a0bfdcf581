"""A store that somebody else wrote cannot lead out of its own folder (promises 6 and 7)."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pandas as pd
import pytest
from batch_server import BatchServer

import frameenrich
from frameenrich.errors import FrameEnrichError, StoreError
from frameenrich.store.store import Store

ASK = "Sort {{ title }}"

pytestmark = pytest.mark.filterwarnings("ignore::frameenrich.FrameEnrichWarning")  # names them


LEADS_OUT = r"is a symlink to|is a pipe"

INSIDE = {
    "the job's folder": "",
    "a round's folder": "round-0",
    "a sidecar": "sidecar.parquet",
    "requests": "round-0/shard-00000.requests.jsonl",
    "a batch": "round-0/shard-00000.batch.json",
    "responses": "round-0/shard-00000.responses.jsonl",
    "the lock": ".lock",
    "the reviews": "reviews",
    "a later round": "round-1",
    "what was read": "round-0/shard-00000.read",
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return every file below a folder with its bytes, and every folder."""
    found = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


def verbs(
    job_id: str, store: Path, mugs: pd.DataFrame, client: openai.OpenAI, page: Path
) -> Iterator[Callable[[], object]]:
    """Yield all that a user may do with a job that is there."""

    def job() -> frameenrich.Job:
        return frameenrich.open_job(job_id, store, client=client)

    yield lambda: job().collect(mugs)
    yield lambda: job().flagged()
    yield lambda: job().status()
    yield lambda: job().usage()
    yield lambda: job().requests
    yield lambda: job().wait(poll_seconds=0.01, timeout=0)
    yield lambda: job().regenerate()
    yield lambda: job().refetch()
    yield lambda: job().cancel()
    yield lambda: job().cleanup()
    yield lambda: job().finish(provider="file")
    yield lambda: job().review(n=1)
    yield lambda: job().report(page)
    yield lambda: mugs.llmbatch.collect(job_id, store=store, client=client)
    yield lambda: mugs.llmbatch.submit(ASK, "m", store=store, client=client)


@pytest.mark.parametrize("what", INSIDE)
def test_a_link_leads_nowhere(
    what: str,
    store: Path,
    mugs: pd.DataFrame,
    server: BatchServer,
    client: openai.OpenAI,
    tmp_path: Path,
) -> None:
    """Nothing beyond it is read, sent, written or deleted, whatever is called; it is named."""
    job = mugs.llmbatch.submit(ASK, "m", store=store, client=client)
    if what not in {"a batch", "requests"}:
        job.wait(poll_seconds=0.01)
    own, away = Path(job.path, INSIDE[what]), tmp_path / "away" / "own"
    away.parent.mkdir()
    if own.exists():
        own.rename(away)
    elif INSIDE[what].startswith("r") and "." not in INSIDE[what]:
        away.mkdir()
    else:
        away.write_bytes(b"")
    own.symlink_to(away)
    before, sent = contents(away.parent), server.count("POST", "/v1/batches")

    for do in verbs(job.id, store, mugs, client, tmp_path / "page.html"):
        with pytest.raises(StoreError, match=LEADS_OUT):
            do()
    frameenrich.jobs(store=store)
    gone = frameenrich.clean("0m", store=store, force=True)

    assert contents(away.parent) == before
    assert server.count("POST", "/v1/batches") == sent
    # Only a job that is itself a link, or has no lock of its own, cannot be deleted here.
    assert own.is_symlink() == (what in {"the job's folder", "the lock"})
    assert gone["deleted"].all() != own.is_symlink()


def test_a_link_to_the_whole_disk_hides_no_other_job(store: Path, mugs: pd.DataFrame) -> None:
    """It is no job; a link to nothing and one to itself are none either."""
    job = mugs.llmbatch.submit(ASK, "m", store=store, provider="file")
    for name, leads_to in {"root": "/", "nothing": "nowhere", "loop": "loop"}.items():
        (store / name).symlink_to(leads_to)

    assert frameenrich.jobs(store=store)["job"].tolist() == [job.id]
    assert mugs.llmbatch.submit(ASK, "m", store=store, provider="file").id == job.id


def test_a_linked_job_is_listed_as_damaged(store: Path, mugs: pd.DataFrame, tmp_path: Path) -> None:
    """The list names it, and why; the others are listed as they are."""
    moved = mugs.llmbatch.submit(ASK, "m", store=store, provider="file", name="moved")
    kept = mugs.llmbatch.submit(ASK, "m", store=store, provider="file", name="kept")
    Path(moved.path).rename(tmp_path / "moved")
    Path(moved.path).symlink_to(tmp_path / "moved")

    found = frameenrich.jobs(store=store).set_index("job")

    assert set(found.index) == {moved.id, kept.id}
    with pytest.raises(StoreError, match=re.escape(f"is a symlink to {tmp_path / 'moved'}")):
        frameenrich.open_job(moved.id, store).collect()


def test_the_stores_own_lock_may_be_no_link(
    store: Path, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """A lock file is opened to be written, which empties what a link leads to."""
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work")
    store.mkdir()
    (store / ".lock").symlink_to(precious)

    with pytest.raises(StoreError, match="is a symlink to"):
        mugs.llmbatch.submit(ASK, "m", store=store, provider="file")

    assert precious.read_text() == "years of work"


def test_nothing_is_swept_through_a_link(store: Path, mugs: pd.DataFrame, tmp_path: Path) -> None:
    """What looks like a leftover beyond a link is somebody else's file."""
    mugs.llmbatch.submit(ASK, "m", store=store, provider="file")
    away = tmp_path / "away"
    (away / "round-0").mkdir(parents=True)
    kept = [away / ".thesis.tmp", away / "round-0" / ".chapter.tmp"]
    for path in kept:
        path.write_text("mine")
        os.utime(path, (0, 0))
    (store / "linked").symlink_to(away)
    (store / ".frameenrich-draft-1-old").symlink_to(away)
    os.utime(store / ".frameenrich-draft-1-old", (0, 0), follow_symlinks=False)

    frameenrich.clean("0m", store=store, force=True)
    mugs.llmbatch.submit(ASK, "m", store=store, provider="file", fresh=True)

    assert [path.read_text() for path in kept] == ["mine", "mine"]


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_pipe_in_place_of_answers_is_not_waited_for(
    kind: str, store: Path, mugs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening one to read waits for a writer, for ever; nothing asks for it."""
    job = mugs.llmbatch.submit(ASK, "m", store=store, provider="file")
    path = Path(job.path, "round-0", "shard-00000.responses.jsonl")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        monkeypatch.chdir(path.parent)  # a socket's path may have a hundred characters
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)

    with pytest.raises(FrameEnrichError, match="a pipe, a socket or a device"):
        job.collect(mugs)


def test_the_store_itself_may_be_a_link(
    store: Path, mugs: pd.DataFrame, client: openai.OpenAI, tmp_path: Path
) -> None:
    """The user chose it: on a larger disk, for one; so may be a folder above it."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "store").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "jobs").symlink_to(tmp_path / "linked" / "store")

    job = mugs.llmbatch.submit(ASK, "m", store=tmp_path / "jobs", client=client)
    out = job.wait(poll_seconds=0.01).collect(mugs)

    assert out["llmbatch_status"].eq("ok").all()
    assert Store(tmp_path / "disk" / "store").job_ids() == [job.id]
    assert frameenrich.clean("0m", store=tmp_path / "jobs")["deleted"].all()
