"""Promise 3 in ``probe=``: a kill -9 anywhere pays for no answer that is on disk again."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from crash import KillPoint, control, forked, ledger, server_process, watch

EVERY = 20
"""Each so many steps; that every step is met over time is the kill matrix's business."""


def submit(store: Path, base_url: str, at: int) -> None:
    """Submit four rows with a probe, in a process that dies at a step; 0 is no step."""
    point = KillPoint(at)
    watch(point)
    client = openai.OpenAI(base_url=base_url, api_key="sk-test", max_retries=0)
    frame = pd.DataFrame({"title": [f"{store.name} {n}" for n in range(4)]})
    options: dict[str, Any] = {"client": client, "store": store, "probe": True}
    frame.llmbatch.submit("Sort {{ title }}", "gpt-4o-mini", **options)
    if at == 0:
        (store.parent / "steps").write_text(str(point.count))


def answers_on_disk(store: Path) -> int:
    """How many answers a killed process has written down."""
    return sum(len(path.read_bytes().splitlines()) for path in store.rglob("*.responses.jsonl"))


@pytest.mark.slow
@pytest.mark.any_pandas
def test_a_probe_killed_anywhere_is_paid_once(tmp_path: Path) -> None:
    """Only a kill inside the call itself may cost its row twice, as any live call."""
    with server_process() as base_url:
        control(base_url, "hold")
        assert forked(partial(submit, tmp_path / "whole", base_url, 0)) == 0
        steps, twice = int((tmp_path / "steps").read_text()), 0
        assert (paid_again(base_url), steps > 60) == (0, True)
        for at in range(1, steps, EVERY):
            store, before = tmp_path / f"at-{at}", paid_again(base_url)
            killed = forked(partial(submit, store, base_url, at))
            assert os.WTERMSIG(killed) == signal.SIGKILL
            kept = answers_on_disk(store)
            assert forked(partial(submit, store, base_url, 0)) == 0
            again = paid_again(base_url) - before
            assert again <= (0 if kept else 1), at
            twice += again
    assert twice <= 1


def paid_again(base_url: str) -> int:
    """How often a request was executed that had been executed before; no batch runs here."""
    return sum(times - 1 for times in ledger(base_url)["executed_bodies"].values())
