"""The log for those who run from cron: each paid call, change of state and file; no secrets."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import warm
from batch_server import BatchServer
from typer.testing import CliRunner

from frameenrich.cli.log import _LogFile
from frameenrich.cli.main import app
from frameenrich.errors import FrameEnrichWarning

KEY = "sk-test-key-that-nobody-may-see"


@pytest.fixture(autouse=True)
def environment(server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server and a key, as a user has them in the environment; a table lies in the folder."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    Path("mugs.csv").write_text("sku,title\n007,Red mug\n008,Blue hose\n")


def run(*more: str) -> str:
    """Run the whole job in this process; gives what was shown."""
    words = "run mugs.csv out.csv -m gpt-4o-mini -t Colour? --system {{title}} --poll-seconds 0.01"
    done = CliRunner().invoke(app, [*words.split(), *more])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_log_file_has_a_line_for_each_call_change_and_file() -> None:
    """Promise 9: what happened at night can be read in the morning; promise 7: and no key."""
    run("--log-file", "night.log")

    log = Path("night.log").read_text()
    messages = [line.split(" INFO ")[1] for line in log.splitlines()]
    assert sum("send 2 requests for gpt-4o-mini" in m for m in messages) == 1
    states = [m.split(": ")[1].split(",")[0] for m in messages if m.startswith("job ")]
    stages = ["uploading", "uploaded", "creating", "running", "ended", "fetched"]
    assert list(dict.fromkeys(s for s in states if "send" not in s)) == stages
    assert sum(m.startswith("wrote ") and m.endswith(".responses.jsonl") for m in messages) == 1
    assert messages[-1] == f"wrote {Path('out.csv').resolve()}"
    assert KEY not in log
    assert stat.S_IMODE(Path("night.log").stat().st_mode) == 0o600


def test_a_second_run_appends_and_pays_nothing() -> None:
    """Promise 3, as the log tells it: no line says that something was sent."""
    run("--log-file", "night.log")
    first = Path("night.log").read_text()
    run("--log-file", "night.log")

    both = Path("night.log").read_text()
    assert both.startswith(first)
    assert "send" not in both[len(first) :]


def test_verbose_shows_the_same_on_standard_error_and_silence_is_the_default() -> None:
    """Without the option nothing is logged anywhere, also after a run that had it."""
    assert "send 2 requests" in run("-v")
    assert "send 2 requests" not in run("--fresh")
    assert [type(h) for h in logging.getLogger("frameenrich").handlers] == [logging.NullHandler]


def test_a_log_file_that_cannot_be_written_is_told_before_anything_is_sent(
    server: BatchServer,
) -> None:
    """Promise 9: the flag is named, and what to do."""
    done = CliRunner().invoke(app, ["run", "mugs.csv", "o.csv", "--log-file", "nowhere/x.log"])

    assert done.exit_code == 2
    assert not server.batches


def test_a_log_file_on_a_full_disk_is_one_warning_and_no_lost_answer() -> None:
    """Promise 9: the command goes on without its log, in words and not in tracebacks."""
    gone = "^--log-file /dev/full cannot be written any more: No space left on device"
    with pytest.warns(FrameEnrichWarning, match=gone) as warned:
        said = run("--log-file", "/dev/full")

    assert len(warned) == 1
    assert len(pd.read_csv("out.csv")) == 2
    assert "Traceback" not in said


def logs_two_lines(then: Callable[[], object], called: str = "night.log") -> None:
    """Log a line, do something with the file, and log another."""
    handler = _LogFile(called)
    try:
        handler.handle(logging.makeLogRecord({"msg": "first"}))
        then()
        handler.handle(logging.makeLogRecord({"msg": "second"}))
    finally:
        handler.close()


def test_a_log_that_is_moved_away_goes_on_in_a_new_file() -> None:
    """As logrotate does it; the new one is as private as the first."""
    logs_two_lines(lambda: Path("night.log").rename("night.log.1"))

    assert Path("night.log.1").read_text() == "first\n"
    assert Path("night.log").read_text() == "second\n"
    assert stat.S_IMODE(Path("night.log").stat().st_mode) == 0o600


def test_a_log_that_is_copied_and_cut_goes_on_from_its_start() -> None:
    """As logrotate's `copytruncate` does it: no hole of zeros before the next line."""
    logs_two_lines(lambda: os.truncate("night.log", 0))

    assert Path("night.log").read_text() == "second\n"


def test_a_log_whose_folder_is_gone_is_one_warning() -> None:
    """Promise 9: the command goes on, in words."""
    Path("logs").mkdir()
    with pytest.warns(FrameEnrichWarning, match="cannot be written any more") as warned:
        logs_two_lines(lambda: shutil.rmtree("logs"), "logs/night.log")

    assert len(warned) == 1


LINES = 200
WRITER = """
import logging, sys
from frameenrich.cli.log import _LogFile
handler = _LogFile("night.log")
for n in range(int(sys.argv[2])):
    handler.handle(logging.makeLogRecord({"msg": sys.argv[1] * 20_000}))
"""


def test_two_processes_write_whole_lines_into_one_log() -> None:
    """However long they are: each is one write at the file's end."""
    writers = [warm.Popen([sys.executable, "-c", WRITER, word, str(LINES)]) for word in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]

    lines = Path("night.log").read_text().splitlines()
    assert sorted(lines) == ["a" * 20_000] * LINES + ["b" * 20_000] * LINES


def test_python_users_have_the_same_lines(
    server: BatchServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Live calls are paid one by one, so each has its line."""
    frame = pd.DataFrame({"title": ["Red mug", "Blue hose"]})
    with caplog.at_level(logging.INFO, "frameenrich"):
        frame.llmbatch.submit("Colour of {{ title }}?", "gpt-4o-mini", provider="live").wait()

    calls = [r.getMessage() for r in caplog.records if r.getMessage().startswith("live call")]
    assert len(calls) == 2
    assert all(call.endswith(": 200") for call in calls)
    assert KEY not in caplog.text
