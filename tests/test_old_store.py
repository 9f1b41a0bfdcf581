"""Promise 14: an upgrade pays nothing again; an earlier version's store opens, resumes, collects.

The store was written by the code of commit f4e4615 (`old_store/write.py`), before the package had
folders; nothing in it is ever written anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from old_store.jobs import FRAMES, SUBMITS

import frameenrich

OLD = Path(__file__).parent / "old_store"
KNOWN: dict[str, Any] = json.loads((OLD / "known.json").read_text(encoding="utf-8"))
ENDED = [name for name in FRAMES if name != "running"]


@pytest.fixture
def old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the old store; the working folder is the one it was written in."""
    monkeypatch.chdir(OLD)
    return Path(shutil.copytree(OLD / "store", tmp_path / "old"))


@pytest.fixture
def knowing(server: BatchServer, client: openai.OpenAI) -> BatchServer:
    """Run a server that has the batch which the old job waits for, under its id."""
    server.hold("in_progress")
    file = client.files.create(file=(KNOWN["file"], KNOWN["requests"].encode()), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata=KNOWN["batch"]["metadata"],
    )
    batch = server._batches.pop(made.id)
    batch.id = KNOWN["batch"]["id"]
    server._batches[batch.id] = batch
    server.requests.clear()
    return server


def paid_calls(server: BatchServer) -> int:
    """Count the uploads and creates that a server met."""
    return server.count("POST", "/v1/files") + server.count("POST", "/v1/batches")


def check_answers(name: str, answers: pd.DataFrame) -> None:
    """Compare a collected frame with what the old code made of the same job, reasons apart."""
    told: dict[str, dict[str, Any]] = KNOWN["jobs"][name]["answers"]
    expected = {column: list(cells.values()) for column, cells in told.items()}
    actual = {
        column: [None if pd.isna(cell) else cell for cell in answers[column]] for column in expected
    }
    expected.pop(f"{name}_error")
    reasons = actual.pop(f"{name}_error")

    assert actual == expected
    assert [reason is None for reason in reasons] == [
        status in {"ok", "pending"} for status in actual[f"{name}_status"]
    ]


@pytest.mark.parametrize("name", ENDED)
def test_an_old_job_is_found_by_the_same_submit_and_collected_for_nothing(
    name: str, old_store: Path, server: BatchServer, client: openai.OpenAI
) -> None:
    """The id is made by the same formula, no request goes out, and the answers are the old ones."""
    frame = FRAMES[name]

    job = frame.llmbatch.submit(client=client, store=old_store, **SUBMITS[name])

    assert job.id == KNOWN["jobs"][name]["id"]
    check_answers(name, frame.llmbatch.collect(job))
    check_answers(name, frame.llmbatch.collect(store=old_store, job=job.id))
    assert paid_calls(server) == 0


def test_an_old_running_job_is_resumed(
    old_store: Path, knowing: BatchServer, client: openai.OpenAI
) -> None:
    """The batch that runs is waited for and never sent again."""
    frame = FRAMES["running"]
    job = frame.llmbatch.submit(client=client, store=old_store, **SUBMITS["running"])
    check_answers("running", frame.llmbatch.collect(job))

    knowing.release()
    answers = job.wait(timeout=30, poll_seconds=0.01).collect(frame)

    assert job.id == KNOWN["jobs"]["running"]["id"]
    assert answers["running_status"].tolist() == ["ok"] * 4
    assert answers["running"].tolist() == [f"echo: Who buys {t}?" for t in frame["title"]]
    assert paid_calls(knowing) == 0


def test_an_old_store_is_listed(old_store: Path) -> None:
    """Every job opens by its id, and the table has them all."""
    ids = {job["id"] for job in KNOWN["jobs"].values()}

    assert set(frameenrich.jobs(store=old_store)["job"]) == ids
    assert {frameenrich.open_job(each, store=old_store).id for each in ids} == ids


def test_what_is_missing_of_an_old_job_is_asked_again_once(
    old_store: Path, server: BatchServer, client: openai.OpenAI
) -> None:
    """Two rows of the old batch expired; a round asks these two and nobody else."""
    frame = FRAMES["expired"]
    job = frame.llmbatch.submit(client=client, store=old_store, **SUBMITS["expired"])

    job.regenerate().wait(timeout=30, poll_seconds=0.01)

    assert job.collect(frame)["expired_status"].tolist() == ["ok"] * 4
    assert sum(server.executed.values()) == 2
