"""Junk of every type at every key of somebody's store: each verb works or says which job it is.

What is tried is written over one file of a fresh copy; the other job of the store stays readable.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import answer_lines
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app
from frameenrich.errors import FrameEnrichError
from frameenrich.verbs.job import Job

DEEP = 10_000
JUNK = {
    "null": "null",
    "true": "true",
    "-1": "-1",
    "1e308": "1e308",
    "an empty text": '""',
    "a long text": '"' + "x" * 100_000 + '"',
    "[]": "[]",
    "{}": "{}",
    "deep lists": "[" * DEEP + "]" * DEEP,
    "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "NaN": "NaN",
    "half a character": '"\\ud83d"',
    "a huge number": "1" + "0" * 400,
    "a text": '"nonsense"',
}
"""As JSON has it, since Python's own writer nests no 10,000 deep."""

ASK = "Sort {{ title }}"
FRAME = pd.DataFrame(
    {"title": ["Red mug", "Blue hose", "Green sock", "Grey phone"]},
    index=pd.Index(["A1", "A2", "A3", "A4"], name="sku"),
)
SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 0},
        "kind": {"enum": ["a", "b"]},
        "o": {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]},
    },
    "required": ["n"],
}
OPTIONS: dict[str, Any] = {
    "name": "spoiled",
    "provider": "file",
    "system": "You sort.",
    "response_model": SCHEMA,
    "params": {"temperature": 0.1, "max_tokens": 50, "stop": ["a"]},
    "max_cost": 5.0,
    "prices": {"input": 1.0, "output": 2.0},
    "on_null": "empty",
}
Path_ = tuple[str | int, ...]
Write = Callable[[Path, str], object]


@dataclass
class Stores:
    """A whole store of two jobs, and the copy that is spoiled."""

    whole: Path
    used: Path
    job: str
    other: str

    def fresh(self) -> None:
        """Make the copy whole again."""
        shutil.rmtree(self.used)
        shutil.copytree(self.whole, self.used)

    def open(self) -> Job:
        """Open the job that is spoiled."""
        return frameenrich.open_job(self.job, self.used)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Make a job with imports, a review and a second round, and one that nobody touches."""
    used, answers = tmp_path / "store", tmp_path / "answers.jsonl"
    job = FRAME.llmbatch.submit(ASK, "m", store=used, **OPTIONS)
    good = answer_lines(job, '{"n": 1, "kind": "a", "o": {"x": "y"}}', ["A1", "A2"])
    answers.write_bytes(good + answer_lines(job, "no json", ["A3", "A4"]))
    sheet = tmp_path / "sheet.csv"
    job.import_responses(answers).review(n=1).to_csv(sheet)
    pd.read_csv(sheet, dtype=str).assign(verdict="right").to_csv(sheet, index=False)
    job.add_review(sheet)
    job.regenerate()
    other = FRAME.llmbatch.submit(
        "Price {{ title }}", "m", name="other", provider="file", store=used
    )
    shutil.copytree(used, tmp_path / "whole")
    return Stores(tmp_path / "whole", used, job.id, other.id)


def paths_in(tree: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Yield where each member of a JSON document is, the whole one first."""
    yield at
    members: Any = tree.items() if isinstance(tree, dict) else ()
    for name, value in enumerate(tree[:2]) if isinstance(tree, list) else members:
        yield from paths_in(value, (*at, name))


def with_junk(tree: Any, at: Path_, junk: str) -> str:
    """Return a document's text with some junk at one place."""
    if not at:
        return junk
    whole = node = json.loads(json.dumps(tree))
    for name in at[:-1]:
        node = node[name]
    node[at[-1]] = "@junk@"
    return json.dumps(whole).replace('"@junk@"', junk)


def footer(key: str) -> Write:
    """Return what writes a member of a Parquet file's metadata."""

    def write(path: Path, text: str) -> None:
        table = pq.read_table(path)
        metadata = {**table.schema.metadata, key.encode(): text.encode()}
        pq.write_table(table.replace_schema_metadata(metadata), path)

    return write


def targets(job: Path) -> Iterator[tuple[str, Path, Write, Any]]:
    """Yield each JSON document of a job: its name, its file, how to write it, what it says."""
    for path in sorted(job.rglob("*.parquet")):
        for key, text in pq.read_schema(path).metadata.items():
            try:
                tree = json.loads(text)
            except ValueError:
                tree = text.decode()
            yield f"{path.name}: {key.decode()}", path, footer(key.decode()), tree
    for path in sorted(job.rglob("*.json")):
        tree = json.loads(path.read_bytes())
        tree.pop("xxh3", None)  # an older version's has no hash that shows the damage
        yield path.name, path, Path.write_text, tree


def list_jobs(stores: Stores) -> None:
    """Both jobs are listed, whatever the one says; the other one can be read."""
    assert {stores.job, stores.other} <= set(frameenrich.jobs(store=stores.used)["job"])
    assert len(frameenrich.open_job(stores.other, stores.used).collect(FRAME)) == len(FRAME)


def list_on_the_command_line(stores: Stores) -> None:
    """The other job is listed."""
    done = CliRunner().invoke(app, ["jobs", "--store", str(stores.used)])
    assert (done.exit_code, "other" in done.output) == (0, True), done.output


QUICK: dict[str, Callable[[Stores], object]] = {
    "jobs": list_jobs,
    "card": lambda s: s.open()._repr_html_(),
    "collect": lambda s: s.open().collect(FRAME, usage=True),
    "regenerate": lambda s: s.open().regenerate(),
}
VERBS: dict[str, Callable[[Stores], object]] = {
    **QUICK,
    "command line": list_on_the_command_line,
    "by name": lambda s: frameenrich.open_job("other", s.used),
    "repr": lambda s: repr(s.open()),
    "status": lambda s: str(s.open().status()),
    "collect by key": lambda s: s.open().collect(),
    "flagged": lambda s: s.open().flagged(),
    "usage": lambda s: s.open().usage(),
    "report": lambda s: s.open().report(s.used.parent / "page.html"),
    "requests": lambda s: s.open().requests,
    "wait": lambda s: s.open().wait(timeout=0),
    "review": lambda s: s.open().review(n=2),
    "evaluate": lambda s: s.open().evaluate(),
    "refetch": lambda s: s.open().refetch(),
    "estimate": lambda s: FRAME.llmbatch.estimate(ASK, "m", store=s.used, **OPTIONS),
    "submit": lambda s: FRAME.llmbatch.submit(ASK, "m", store=s.used, **OPTIONS),
    "find": lambda s: FRAME.llmbatch.collect(store=s.used),
    "import": lambda s: s.open().import_responses(s.used.parent / "answers.jsonl"),
    "withdraw": lambda s: s.open().withdraw_import(),
    "cancel": lambda s: s.open().cancel(),
    "give up": lambda s: s.open().give_up(),
    "cleanup": lambda s: s.open().cleanup(),
    "clean": lambda s: frameenrich.clean(store=s.used, older_than="0d", dry_run=True),
}


def spoil(
    stores: Stores,
    verbs: dict[str, Callable[[Stores], object]],
    trials: Iterator[tuple[str, Path, Write, str]],
) -> list[str]:
    """Write each text into a fresh copy, try every verb, and return what went wrong."""
    wrong = []
    for called, path, write, text in trials:
        stores.fresh()
        with suppress(UnicodeEncodeError):
            write(stores.used / path.relative_to(stores.whole), text)
        for verb, do in verbs.items():
            try:
                do(stores)
            except FrameEnrichError as error:
                if len(str(error)) > 2_000 or verb in {"jobs", "command line", "by name"}:
                    wrong.append(f"{called}: {verb}: {str(error)[:300]}")
            except Exception as error:  # noqa: BLE001 - all of them are told
                wrong.append(f"{called}: {verb}: {error!r:.300}")
    return wrong


named = pytest.mark.filterwarnings("ignore::frameenrich.FrameEnrichWarning")  # which name the job


@named
def test_some_junk_at_the_keys_of_a_store(stores: Stores) -> None:
    """Promise 9: no `KeyError`, no `TypeError`; each sixth key with one kind of junk, in turn."""
    kinds = itertools.cycle(JUNK)
    trials = (
        (f"{name} {at} {kind}", path, write, with_junk(tree, at, JUNK[kind]))
        for name, path, write, tree in targets(stores.whole / stores.job)
        for at, kind in zip(itertools.islice(paths_in(tree), 0, None, 6), kinds, strict=False)
    )
    wrong = spoil(stores, QUICK, trials)

    assert not wrong, "\n".join(wrong)


@named
@pytest.mark.parametrize(
    ("at", "kind"),
    [
        (("messages",), "[]"),
        (("output", "schema", "properties"), "a text"),
        (("output", "schema", "properties", "kind", "enum"), "-1"),
        (("output", "schema", "properties", "o", "type"), "[]"),
        (("output", "schema", "properties", "o", "required"), "NaN"),
        (("output", "schema", "required"), "a huge number"),
    ],
)
def test_a_schema_that_is_none_hides_no_other_job(at: Path_, kind: str, stores: Stores) -> None:
    """Promise 9: what a friend's store says of its answers is named; `jobs` lists the others."""
    name, path, write, tree = next(
        each for each in targets(stores.whole / stores.job) if each[0].endswith("frameenrich.spec")
    )
    text = with_junk(tree, at, JUNK[kind])
    wrong = spoil(stores, QUICK, iter([(name, path, write, text)]))

    assert not wrong, "\n".join(wrong)


@pytest.mark.long  # every key, every junk, every verb: some minutes of CPU
@pytest.mark.timeout(7200)
@named
@pytest.mark.parametrize("kind", JUNK)
def test_junk_at_every_key_of_a_store(kind: str, stores: Stores) -> None:
    """As above, without leaving out a key, a verb or a kind of junk."""
    trials = (
        (f"{name} {at} {kind}", path, write, with_junk(tree, at, JUNK[kind]))
        for name, path, write, tree in targets(stores.whole / stores.job)
        for at in paths_in(tree)
    )
    wrong = spoil(stores, VERBS, trials)

    assert not wrong, "\n".join(wrong)
