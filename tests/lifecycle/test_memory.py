"""Promise 8: beyond the frame, a job holds one chunk at a time, however large its files are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pandas as pd
from conftest import DEPARTMENTS
from crash import server_process

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
