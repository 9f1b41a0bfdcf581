"""`regenerate` says what it sent, what it did not and why; what is suggested would act."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app
from frameenrich.cli.phrases import in_flags
from frameenrich.errors import FrameEnrichWarning
from frameenrich.lifecycle.row_facts import describe_round, retry_commands
from frameenrich.model import Remedy

NO_MODEL = {
    "status": 404,
    "code": "model_not_found",
    "message": "The model `gpt-9` does not exist or you do not have access to it.",
}
NO_SCHEMA = {
    "status": 400,
    "code": "invalid_request_error",
    "message": "This response_format type is unavailable now.",
}
BAD = {"status": 400, "code": "bad_request", "message": "Bad picture."}


def job_of(
    mugs: pd.DataFrame, client: openai.OpenAI, store: Path, model: str = "gpt-4o-mini"
) -> frameenrich.Job:
    """Submit four rows and wait for their answers."""
    job: frameenrich.Job = mugs.llmbatch.submit(
        "What is {{ title }}?", model, client=client, store=store, response_model={"a": str}
    )
    return job.wait(poll_seconds=0.01)


def calls(job: frameenrich.Job) -> list[str]:
    """Return the ways to ask again that the job's card suggests."""
    card = job._repr_html_().replace("&#39;", "'")
    return re.findall(r"job\.regenerate\([^)]*\)|df\.llmbatch\.submit\([^)]*\)", card)


@pytest.mark.parametrize(
    ("fault", "options", "call", "reason"),
    [
        ("refused", {}, "job.regenerate(statuses=['refused'])", r"statuses=\['refused'\] \(4\)"),
        ("http_error", NO_MODEL, "job.regenerate(model='...')", r"another one: model= \(4\)"),
        (
            "http_error",
            BAD,
            "job.regenerate(statuses=['failed'], params={...})",
            r"statuses=\['failed'\] \(4\)",
        ),
        (
            "http_error",
            NO_SCHEMA,
            "df.llmbatch.submit(..., json_mode='object')",
            r"json_mode='object', or 'prompt' \(4\)",
        ),
    ],
)
def test_what_is_left_is_counted_and_the_card_suggests_what_would_act(
    fault: str,
    options: Any,
    call: str,
    reason: str,
    mugs: pd.DataFrame,
    server: BatchServer,
    client: openai.OpenAI,
    store: Path,
) -> None:
    """Nothing goes, and the words say why; the suggested call does send."""
    server.faults.add(fault, where="row-*", **options)
    job = job_of(mugs, client, store, "gpt-9")

    with pytest.warns(FrameEnrichWarning, match=rf"^0 of 4 flagged rows sent: .*{reason}"):
        job.regenerate()
    assert job.rounds().empty
    assert calls(job) == [call]
    elsewhere = "model=" in call or "json_mode=" in call
    given = {"model": "gpt-4o-mini"} if elsewhere else {"statuses": ["refused", "failed"]}
    job.regenerate(**given).wait(poll_seconds=0.01)
    assert job.collect(mugs)["llmbatch_status"].tolist() == ["ok"] * 4
    assert calls(job) == []


def test_what_goes_and_what_stays_are_told_together(
    mugs: pd.DataFrame, server: BatchServer, client: openai.OpenAI, store: Path
) -> None:
    """Of three flagged rows the one that can be mended goes; where all go, nothing is said."""
    server.faults.add("refused", where="row-A[12]*")
    server.faults.add("malformed", where="row-A3*", content="no idea")
    job = job_of(mugs, client, store)

    assert calls(job) == ["job.regenerate()", "job.regenerate(statuses=['refused'])"]
    job.regenerate()
    for said in (job.last_round, repr(job), job._repr_html_()):
        assert re.search(r"1 of 3 flagged rows sent: refused rows go only with .* \(2\)", said)
    job.wait(poll_seconds=0.01).regenerate(statuses=["refused"]).wait(poll_seconds=0.01)
    assert job.last_round == "2 of 2 flagged rows sent."
    assert job.regenerate().last_round == "No row is flagged, so nothing was sent."


def test_the_command_line_says_it_in_flags(
    mugs: pd.DataFrame,
    server: BatchServer,
    client: openai.OpenAI,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`run` names the command that would act, and `regenerate` how many rows went."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    server.faults.add("refused", where="row-[01]")
    mugs.to_csv("mugs.csv")
    ask = ["-t", "What is {{ title }}?", "-m", "gpt-4o-mini", "--store", str(store)]

    run = CliRunner().invoke(app, ["run", "mugs.csv", "out.csv", *ask, "--poll-seconds", "0.02"])
    (job,) = re.findall(r"Job (\S+):", run.stderr)
    command = f"frameenrich regenerate {job} --status refused"
    again = CliRunner().invoke(app, [*command.split()[1:], "--store", str(store)])

    assert command in run.stderr
    assert "2 of 2 flagged rows sent." in again.stderr


@pytest.mark.parametrize("remedy", Remedy)
def test_each_reason_to_leave_rows_out_can_be_typed(remedy: Remedy) -> None:
    """On the command line no word of it is Python's, and the command that would act is one."""
    left = Counter({remedy: 14})
    said = in_flags(describe_round(0, left))
    (command,) = retry_commands("job-1", left)

    assert said.startswith("0 of 14 flagged rows sent: ")
    assert said.endswith(" (14).")
    assert not re.search(r"[a-z]=|[\[\]{}]|df\.|job\.", said + command)
    for flag in re.findall(r"--[\w-]+", command):
        assert flag in said or flag == "--param"
