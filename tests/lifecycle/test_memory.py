"""Promise 8: beyond the frame, a job holds one chunk at a time, however large its files are."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pyarrow as pa
import pytest
from conftest import DEPARTMENTS, answer_lines
from crash import server_process

from frameenrich.model import Limits
from frameenrich.providers.file import FileProvider
from frameenrich.providers.openai.batch import OpenAIBatch

PADDING = "x" * 4_000


def peak_bytes(work: Callable[[], Any]) -> int:
    """How much memory Python took at most for this, beyond what was there before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def peak_above_result(call: Callable[[], Any]) -> int:
    """How much memory Python took at most beside what it holds in the end, with the result."""
    tracemalloc.start()
    try:
        result = call()
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result is not None
    return peak - held


@pytest.mark.slow
def test_a_file_ten_times_as_large_takes_no_more_memory(tmp_path: Path) -> None:
    """Rendering, writing and uploading 32 MB of requests takes hardly more than 4 MB do."""
    peaks: list[int] = []
    sizes: list[int] = []
    with (
        server_process() as base_url,
        openai.OpenAI(api_key="sk-test", base_url=base_url) as client,
    ):
        for rows in (20, 1_000, 8_000):  # the first warms up
            frame = pd.DataFrame({"n": range(rows)})
            provider, store = OpenAIBatch(client), tmp_path / str(rows)

            def send(frame: pd.DataFrame = frame, **where: Any) -> None:
                job = frame.llmbatch.submit(
                    f"{{{{ n }}}} {PADDING}", "m", labels=DEPARTMENTS, **where
                )
                job.wait(poll_seconds=0.05)
                sizes.append(sum(Path(path).stat().st_size for path in job.requests))

            peaks.append(peak_bytes(lambda: send(provider=provider, store=store)))  # noqa: B023

    assert sizes[2] > 32_000_000
    assert peaks[2] < peaks[1] + sizes[2] / 10, (peaks, sizes)


ROWS = (1_000, 3_000)


def things(rows: int) -> pd.DataFrame:
    """Make a frame of so many short texts."""
    return pd.DataFrame({"title": [f"Thing {n}" for n in range(rows)]})


def asked(frame: pd.DataFrame, store: Path) -> Any:
    """Submit a frame; rows that the store has answers to are not sent."""
    return frame.llmbatch.submit(
        "{{ title }}?", "m", response_model={"text": str, "n": int}, provider="file", store=store
    )


def answered(rows: int, folder: Path, *, flagged_every: int) -> Any:
    """Return a job whose rows have answers of a kilobyte, of which one in so many is cut off."""
    job = asked(things(rows), folder / f"store-{rows}")
    text = json.dumps({"text": "long " * 200, "n": 7})
    with (folder / "came.jsonl").open("wb") as file:
        for n in range(rows):
            file.write(answer_lines(job, text[:-9] if n % flagged_every == 0 else text, [str(n)]))
    job.import_responses(folder / "came.jsonl")
    return job


def arrow_peak(call: Callable[[], Any]) -> int:
    """How much memory Arrow took at most."""
    arrow = pa.default_memory_pool()
    counted = pa.proxy_memory_pool(arrow)
    pa.set_memory_pool(counted)
    try:
        call()
    finally:
        pa.set_memory_pool(arrow)
    peak: int = counted.max_memory()
    return peak


@pytest.mark.slow
def test_a_submit_that_reuses_holds_a_sidecar_row_group_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole columns of sidecars, and copies of them, took 170 bytes a row (promise 8)."""
    for module in ("store.sidecar", "prepare.job_draft"):
        monkeypatch.setattr(f"frameenrich.{module}.ROWS_PER_GROUP", 256)
    monkeypatch.setattr(FileProvider, "limits", Limits(max_requests=256))
    peaks = []
    for rows in ROWS:
        answered(rows, tmp_path, flagged_every=500)
        again = partial(asked, things(rows + 1), tmp_path / f"store-{rows}")
        peaks.append(arrow_peak(again))
        assert again().reused == rows - rows // 500
    assert (peaks[1] - peaks[0]) / (ROWS[1] - ROWS[0]) < 135, peaks


@pytest.mark.slow
def test_who_draws_rows_to_judge_holds_no_raw_text(tmp_path: Path) -> None:
    """A review reads the values of all rows, of a kilobyte here, and not the responses beside."""
    jobs = [answered(rows, tmp_path, flagged_every=500) for rows in ROWS]
    peaks = [arrow_peak(partial(job.review, n=10)) for job in jobs]
    assert (peaks[1] - peaks[0]) / (ROWS[1] - ROWS[0]) < 2_600, peaks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "flagged_every", "most_bytes"),
    [("flagged", 1, 200), ("report", 500, 200), ("reuse", 500, 300), ("compare", 500, 300)],
)
def test_a_row_more_takes_a_few_bytes_and_no_objects(
    verb: str,
    flagged_every: int,
    most_bytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What Python holds for each row beside what the verb gives does not add up (promise 8)."""
    monkeypatch.setattr("frameenrich.verbs.report.ALL_ROWS", 0)  # read as a large job's
    monkeypatch.setattr("frameenrich.evaluation.compare._ROWS_AT_ONCE", 128)
    peaks = []
    for rows in (10, *ROWS):  # the first warms up
        job = answered(rows, tmp_path, flagged_every=flagged_every)
        calls: dict[str, Callable[[], Any]] = {
            "flagged": job.flagged,
            "report": partial(job.report, tmp_path / "page.html", rows=50),
            "compare": partial(job.compare, job),
            "reuse": partial(asked, things(rows + 1), tmp_path / f"store-{rows}"),
        }
        call = calls[verb]
        peaks.append(peak_above_result(call))
    assert (peaks[2] - peaks[1]) / (ROWS[1] - ROWS[0]) < most_bytes, peaks
