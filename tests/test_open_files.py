"""What would fail on Windows: renaming or deleting a file that is open, or a folder around one.

No test runs on Windows itself; the rule can be watched here, as Linux names each open file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app

pytestmark = [
    pytest.mark.any_pandas,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files cannot be listed"),
]


def open_below(path: str) -> list[str]:
    """Return the open files that are a path or lie under it."""
    whole, found = os.path.realpath(path), []
    for name in os.listdir("/proc/self/fd"):
        try:
            held = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the listing's own
            continue
        if held == whole or held.startswith(f"{whole}{os.sep}"):
            found.append(held)
    return found


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each call that Windows would refuse."""
    calls: list[str] = []

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*paths: Any, **options: Any) -> Any:
            for path in [p for p in paths if isinstance(p, str | os.PathLike)]:
                # A folder that is replaced holds nothing; a target that is a folder is entered.
                calls.extend(f"{name}: {held}" for held in open_below(os.fspath(path)))
            return call(*paths, **options)

        return checked

    for name in ("replace", "rename", "unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    monkeypatch.setattr("frameenrich.verbs.clean.RENAMES_OPEN_FILES", False)
    monkeypatch.setattr(shutil, "rmtree", watched("rmtree", shutil.rmtree))
    return calls


def test_no_open_file_is_renamed_or_deleted(
    server: BatchServer, client: openai.OpenAI, store: Path, broken: list[str]
) -> None:
    """A job's whole life, from its draft to its deletion, in Python and on the command line."""
    frame = pd.DataFrame({"sku": [f"K{i}" for i in range(6)], "title": ["mug", "hose", "pan"] * 2})
    how: Any = {"client": client, "store": store, "key": "sku"}
    server.faults.add("all_lines_failed", times=1)
    job = frame.llmbatch.submit("{{ title }}? {{ sku }}", "gpt-4o-mini", **how)
    job.wait(poll_seconds=0.01)
    again = job.regenerate(statuses=["failed"]).wait(poll_seconds=0.01)
    out = again.collect(frame)
    frame.llmbatch.submit("{{ title }}, {{ sku }}", "gpt-4o-mini", provider="live", **how)
    job.review(n=2).page("review.html")
    job.report("report.html")
    frame.to_csv("in.csv", index=False)
    words = ["collect", job.id, "in.csv", "out.xlsx", "--store", str(store)]
    said = CliRunner().invoke(app, words)
    frameenrich.clean("0d", store=store)

    assert said.exit_code == 0, said.output
    assert out["llmbatch_status"].eq("ok").all()
    assert frameenrich.jobs(store).empty
    assert broken == [], "\n".join(broken)
