"""Answers that came by other means: whose they are, and that they can be taken back."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from conftest import answer_lines, status_counts
from typer.testing import CliRunner

import frameenrich
from frameenrich import jsonl
from frameenrich.cli.main import app
from frameenrich.errors import ResponsesError

ASK = "Sort {{ title }}"


@pytest.fixture
def job(store: Path, mugs: pd.DataFrame) -> frameenrich.Job:
    """Return a job that nobody sends."""
    made: Any = mugs.llmbatch.submit(ASK, "m", provider="file", store=store)
    return made  # type: ignore[no-any-return]


def test_the_answers_of_another_job_are_refused_and_named(
    job: frameenrich.Job, store: Path, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """Every default index has a ``row-0``: the tag says whose it is (promise 2)."""
    other = mugs.llmbatch.submit("Price of {{ title }}?", "m", provider="file", store=store)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(answer_lines(other, "9 euros", list(mugs.index)))

    said = f"answers of another job, {other.id}: .*{other.spec.tag}"
    with pytest.raises(ResponsesError, match=said):
        job.import_responses(path)

    assert status_counts(job.collect(mugs)) == {"pending": 4}


@pytest.mark.parametrize("which", [None, "wrong.jsonl"])
def test_an_import_is_withdrawn(
    which: str | None, job: frameenrich.Job, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """What was imported by mistake is as if it had never come; what came before it stays."""
    for name, said, keys in (("right.jsonl", "good", ["A1"]), ("wrong.jsonl", "bad", ["A2", "A3"])):
        (tmp_path / name).write_bytes(answer_lines(job, said, keys))
        job.import_responses(tmp_path / name)
    both = job.collect(mugs)

    job.withdraw_import(which)

    out = job.collect(mugs)
    assert both["llmbatch"].tolist() == ["good", "bad", "bad", pd.NA]
    assert out["llmbatch"].tolist() == ["good", pd.NA, pd.NA, pd.NA]
    assert len(list(Path(job.path, "round-0").glob("*.import-*"))) == 1
    job.withdraw_import()
    assert status_counts(job.collect(mugs)) == {"pending": 4}
    with pytest.raises(ResponsesError, match="no import to withdraw"):
        job.withdraw_import()


def test_a_batch_that_an_import_ended_goes_on_when_it_is_withdrawn(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer, tmp_path: Path
) -> None:
    """The batch runs at the provider still, and its answers are what was paid for (promise 4)."""
    server.hold("in_progress")
    job = mugs.llmbatch.submit(ASK, "m", client=client, store=store)
    (tmp_path / "a.jsonl").write_bytes(answer_lines(job, "another", list(mugs.index)))
    job.import_responses(tmp_path / "a.jsonl")
    assert job.status().ended

    job.withdraw_import("a.jsonl")
    server.release()
    out = job.collect(mugs, wait=True, poll_seconds=0.01)

    assert out["llmbatch"].tolist() == [f"echo: Sort {title}" for title in mugs["title"]]
    assert set(server.executed.values()) == {1}


def test_the_same_file_twice_is_one_import(
    job: frameenrich.Job, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """A cell that is run again adds nothing, and one withdrawal takes it back."""
    (tmp_path / "a.jsonl").write_bytes(answer_lines(job, "good", ["A1"]))

    job.import_responses(tmp_path / "a.jsonl").import_responses(tmp_path / "a.jsonl")

    assert len(job.withdraw_import().collect(mugs).query("llmbatch_status == 'pending'")) == 4


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("requests", "holds requests, not what")],
)
def test_a_file_that_is_no_answers_is_named_for_what_it_is(
    encoding: str, said: str, job: frameenrich.Job, tmp_path: Path
) -> None:
    """PowerShell's UTF-16, and the requests themselves; nothing is taken of either."""
    path = tmp_path / "file.jsonl"
    if encoding == "requests":
        path.write_bytes(Path(job.requests[0]).read_bytes())
    else:
        path.write_bytes(answer_lines(job, "good", ["A1"]).decode().encode(encoding))

    with pytest.raises(ResponsesError, match=said):
        job.import_responses(path)


def test_a_byte_order_mark_costs_no_line(
    job: frameenrich.Job, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """A file in UTF-8 with its mark is read, the first line too."""
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + answer_lines(job, "good", ["A1", "A2"]))

    assert status_counts(job.import_responses(tmp_path / "a.jsonl").collect(mugs))["ok"] == 2


def test_the_command_line_withdraws_an_import(
    job: frameenrich.Job, store: Path, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """`frameenrich withdraw-import JOB` undoes `frameenrich import JOB FILE`."""
    (tmp_path / "a.jsonl").write_bytes(answer_lines(job, "good", ["A1"]))
    run = CliRunner()

    taken = run.invoke(app, ["import", job.id, str(tmp_path / "a.jsonl"), "--store", str(store)])
    given = run.invoke(app, ["withdraw-import", job.id, "--store", str(store)])

    assert (taken.exit_code, given.exit_code) == (0, 0), taken.output + given.output
    assert status_counts(job.collect(mugs)) == {"pending": 4}


@pytest.mark.slow
def test_a_packed_file_is_read_line_by_line(
    job: frameenrich.Job, mugs: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much a file unpacks to, one line is held; a line without end is given up."""
    monkeypatch.setattr(jsonl, "LONGEST_LINE_BYTES", 1 << 20)
    strangers = b'{"custom_id": "nobody", "response": null}\n' * 250_000  # 10 MB
    ours = answer_lines(job, "fine", list(mugs.index))
    endless = ours + b'{"custom_id": "' + b"x" * (12 << 20) + b'"}\n'
    (tmp_path / "large.jsonl.gz").write_bytes(gzip.compress(strangers + ours + strangers[:41], 1))
    (tmp_path / "endless.jsonl.gz").write_bytes(gzip.compress(endless, 1))

    tracemalloc.start()
    with pytest.raises(ResponsesError, match="its line 5 is longer than"):
        job.import_responses(tmp_path / "endless.jsonl.gz")
    job.import_responses(tmp_path / "large.jsonl.gz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 8 << 20
    assert job.collect(mugs)["llmbatch"].tolist() == ["fine"] * 4


@pytest.mark.parametrize(
    ("start", "kind"),
    [(b"PK\x03\x04", "zip"), (b"\x28\xb5\x2f\xfd", "Zstandard"), (b"BZh9", "bzip2")],
)
def test_other_packings_are_named(
    start: bytes, kind: str, job: frameenrich.Job, tmp_path: Path
) -> None:
    """A zip archive is no UTF-16."""
    (tmp_path / "answers").write_bytes(start + bytes(90))

    with pytest.raises(ResponsesError, match=f"is a {kind} file. Unpack it"):
        job.import_responses(tmp_path / "answers")
