"""Promise 10: answers that were mended before they were read are counted where people look."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app
from frameenrich.errors import FrameEnrichWarning

FIELDS = {"colour": str, "price": float}


def fenced_job(mugs: pd.DataFrame, server: BatchServer, **options: Any) -> frameenrich.Job:
    """Answer two of four rows within fences, and wait for all."""
    server.faults.add("fenced", where="row-A[24]*")
    job: frameenrich.Job = mugs.llmbatch.submit(
        "What is {{ title }}?", "gpt-4o-mini", response_model=FIELDS, **options
    )
    return job.wait(poll_seconds=0.01)


def test_collect_the_card_and_the_report_count_them(
    mugs: pd.DataFrame, server: BatchServer, client: openai.OpenAI, store: Path
) -> None:
    """A warning, a fact on the card, a figure in the report; the column as it was."""
    job = fenced_job(mugs, server, client=client, store=store)

    with pytest.warns(FrameEnrichWarning, match=r"2 of the 4 usable answers .* were mended"):
        job.collect(mugs)
    out = job.collect(mugs, usage=True)
    page = job.report(store.parent / "report.html").read_text()

    assert out["llmbatch_repaired"].tolist() == [False, True, False, True]
    assert "2 ok answers, mended" in job._repr_html_()
    assert re.search(r"Mended before reading.{0,80}\b2\b", page, re.DOTALL)


@pytest.mark.parametrize("way", ["--stream", "--no-stream"])
def test_the_command_line_counts_them(
    way: str, mugs: pd.DataFrame, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the summary for people and in the one for programs, also of a table read in chunks."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    mugs.to_csv("mugs.csv")
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}}
    Path("schema.json").write_text(json.dumps(schema))
    server.faults.add("fenced", where="row-0*")
    ask = ["-t", "What is {{ title }}?", "-m", "gpt-4o-mini", "--schema", "schema.json"]
    run = ["run", "mugs.csv", "out.csv", *ask, "--poll-seconds", "0.02", way]

    people = CliRunner().invoke(app, run)
    programs = CliRunner().invoke(app, [*run, "--json"])

    assert "1 ok answers were mended" in people.stderr, people.stderr
    assert json.loads(programs.stdout)["repaired"] == 1
