"""What type checkers say of a user's own file: misspelt options are errors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

USER = """\
import pandas as pd
import polars as pl

import frameenrich

df = pd.DataFrame({"title": ["Red mug"]})
door = frameenrich.llmbatch(df)
job: frameenrich.Job = door.submit("{{ title }}?", "m", labels=["a"], max_cost=1.0)
job = door.submit("{{ title }}?", "m", lables=["a"])  # error
door.preview("{{ title }}?", "m", n=2, on_null="skip")
door.preview("{{ title }}?", "m", on_nul="skip")  # error
print(door.estimate("{{ title }}?", "m", params={"max_tokens": 5}).usd)
door.estimate("{{ title }}?", "m", parms={})  # error
shown: pd.DataFrame = door.pilot("{{ title }}?", "m", n=3, seed=1)
door.pilot("{{ title }}?", "m", rows=3)  # error
door.embed("{{ title }}", "m", dimensions=256, key="title")
door.embed("{{ title }}", "m", dimension=256)  # error
out: pd.DataFrame = door.collect(wait=True, labels=["a"])
door.collect(wiat=True)  # error
door.flagged(parser=int, store="s")
door.flagged(parse=int)  # error
table = pl.DataFrame({"sku": ["a"]})
frameenrich.submit(table, "{{ sku }}", "m", key="sku", provider="file")
frameenrich.submit(table, "{{ sku }}", "m", provider="file")  # error
frameenrich.submit(table, "{{ sku }}", "m", key="sku", provder="file")  # error
frameenrich.collect(table, usage=True)
frameenrich.collect(table, usge=True)  # error
frameenrich.llmbatch(table).submit("{{ sku }}", "m", key="sku")
frameenrich.llmbatch(table).submit("{{ sku }}", "m", keys="sku")  # error
sample: pd.DataFrame = frameenrich.sample_data()
again: frameenrich.Job = door.regenerate(job, statuses=["failed"], feedback=False)
door.regenerate(job, status=["failed"])  # error
bad: pd.DataFrame = door.flagged(job)
door.review(job, n=20, by="answer", seed=1)
door.review(job, n=20, sed=1)  # error
door.evaluate(job, truth="department")
door.evaluate(job, thruth="department")  # error
door.status(job).ended
door.cancel(job)
listed: pd.DataFrame = door.jobs()
door.jobs(stor="s")  # error
found: frameenrich.Job = door.job("name", store="s")
door.show_flagged(job, rows=5)
door.show_flagged(job, row=5)  # error
job.wait(timeout=5, poll_seconds=1).collect(df, usage=True, accept=0.9)
job.wait(time_out=5)  # error
job.collect(df, usge=True)  # error
job.finish(provider="live")
job.finish(providr="live")  # error
job.regenerate(model="m2")
job.regenerate(modle="m2")  # error
job.second_opinion("m2", name="two")
job.second_opinion("m2", lables=["a"])  # error
job.compare("other")
job.add_review("review.csv")
job.report("report.html", rows=10)
job.report("report.html", row=10)  # error
job.review(n=5)
job.evaluate(truth="department")
job.evaluate(truht="department")  # error
job.cancel()
made: frameenrich.Job = frameenrich.submit_requests("r.jsonl", labels=["a"], store="s")
frameenrich.submit_requests("r.jsonl", lables=["a"])  # error
frameenrich.jobs("s").sort_values("usd")
frameenrich.jobs(stor="s")  # error
frameenrich.open_job("name", store="s")
frameenrich.open_job("name", stor="s")  # error
frameenrich.clean("30d", dry_run=True)
frameenrich.clean("30d", dryrun=True)  # error
lazy = frameenrich.llmbatch(table.lazy())
lazy.submit("{{ sku }}", "m", key="sku", provider="file")
lazy.collect(wait=True)
lazy.collect(wat=True)  # error
lazy.estimate("{{ sku }}", "m", kee="sku")  # error
lazy.evaluate(truht="x")  # error
lazy.flagged(parse=int)  # error
lazy.pilot("{{ sku }}", "m", key="sku", rows=1)  # error
frameenrich.lables  # error
"""
WRONG = {n for n, line in enumerate(USER.splitlines(), 1) if line.endswith("# error")}


def mypy_lines(path: Path) -> set[int]:
    """Return the lines of which mypy says something, in its strict mode."""
    words = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=path.parent, check=False)
    return {int(n) for n in re.findall(r"^user\.py:(\d+): error", done.stdout, re.MULTILINE)}


def pyright_lines(path: Path) -> set[int]:
    """Return the lines of which pyright says something, by its own default rules."""
    rules = {"typeCheckingMode": "standard", "include": ["user.py"]}
    (path.parent / "pyrightconfig.json").write_text(json.dumps(rules))
    words = [sys.executable, "-m", "basedpyright", "--outputjson", "-p", str(path.parent)]
    words += ["--pythonpath", sys.executable]
    done = subprocess.run(words, capture_output=True, text=True, cwd=path.parent, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"}


@pytest.mark.any_pandas
@pytest.mark.parametrize(
    # mypy, which reads pandas' and polars' types anew, takes eleven seconds: with what is slow.
    "checked",
    [pytest.param(mypy_lines, marks=pytest.mark.slow), pyright_lines],
)
def test_misspelt_options_are_errors_in_a_users_file(checked: object, tmp_path: Path) -> None:
    """Editors know every option of every verb: what is right passes, what is misspelt does not."""
    path = tmp_path / "user.py"
    path.write_text(USER, encoding="utf-8")
    assert callable(checked)
    assert checked(path) == WRONG
