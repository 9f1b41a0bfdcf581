"""What every fault test asks of its outcome: each row, its own answer or reason, and paid once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from batch_server import BatchServer

from frameenrich.model import RowStatus
from frameenrich.verbs.job import Job

ASK = "Which department sells {{ title }}?"


def shelf(count: int = 12, first: int = 0) -> pd.DataFrame:
    """Rows of different titles, named ``T-00``, ``T-01``, ..."""
    numbers = range(first, first + count)
    keys = pd.Index([f"T-{n:02d}" for n in numbers], name="sku")
    return pd.DataFrame({"title": [f"thing {n}" for n in numbers]}, index=keys)


def said(title: str) -> str:
    """What the server answers to `ASK`."""
    return f"echo: Which department sells {title}?"


def submit(frame: pd.DataFrame, provider: Any, store: Path, **options: Any) -> Job:
    """Ask `ASK` of a frame."""
    job: Job = frame.llmbatch.submit(ASK, "gpt-4o-mini", provider=provider, store=store, **options)
    return job


def finish(frame: pd.DataFrame, job: Job) -> pd.DataFrame:
    """Wait for a job through the frame's own face, impatiently."""
    out: pd.DataFrame = frame.llmbatch.collect(job, wait=True, poll_seconds=0.01, timeout=30)
    return out


def reach(status: str, job: Job) -> None:
    """Collect until a batch has a status, as the next wait may be too short for a busy machine."""
    while all(shard.batch.status != status for shard in job._session.job().all_shards()):
        job.collect()


def an_hour_passes(job: Job) -> None:
    """Make a doubt an hour older, as if the user came back later: no test waits by the clock."""
    for shard in job._session.job().all_shards():
        if (since := shard.batch.unfound_since) is not None:
            shard.save(shard.batch.replace(unfound_since=since - 3600))


def unrun(frame: pd.DataFrame, server: BatchServer, status: str) -> dict[str, str]:
    """The rows that the server never ran, each with a status."""
    return {key: status for key in frame.index if f"row-{key}" not in server.executed}


def check_rows(
    out: pd.DataFrame, frame: pd.DataFrame, flagged: Mapping[str, str] | None = None
) -> None:
    """Same rows, same order; `flagged` rows have that status and a reason, the rest its answer."""
    wanted = [(flagged or {}).get(key, "ok") for key in frame.index]

    assert out.index.equals(frame.index)
    assert list(out.columns) == [*frame, "llmbatch", "llmbatch_status", "llmbatch_error"]
    assert out["llmbatch_status"].tolist() == wanted, out["llmbatch_status"].tolist()
    assert set(wanted) <= set(RowStatus)
    for status, title, answer, reason in zip(
        wanted, frame["title"], out["llmbatch"], out["llmbatch_error"], strict=True
    ):
        assert (answer == said(title)) if status == "ok" else pd.isna(answer), (title, answer)
        assert pd.isna(reason) if status in {"ok", "pending"} else reason, (status, reason)


def check_paid(server: BatchServer, *, batches: int, inputs: int | None = None) -> None:
    """No row was executed twice; so many batches were made, of so many uploaded files."""
    assert max(server.executed.values(), default=0) <= 1
    assert len(server.batches) == batches, list(server.batches.values())
    uploads = [file for file in server.files.values() if file["purpose"] == "batch"]
    assert len(uploads) == (batches if inputs is None else inputs)
