"""What the pages say is run: their Python and their shell, in order, against the server."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import polars as pl
import pytest
from batch_server import BatchServer
from conftest import DEPARTMENTS, ROOT
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app

DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
COMMANDS = {
    "frameenrich": [sys.executable, "-c", "from frameenrich.cli.main import main; main()"],
    "vllm": [sys.executable, str(Path(__file__).parent / "stand_in_vllm.py")],
}


@pytest.fixture(autouse=True)
def workplace(server: BatchServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with a table and requests, a key, and the commands that the pages call."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    (tmp_path / "bin").mkdir()
    for name, words in COMMANDS.items():
        command = tmp_path / "bin" / name
        quoted = " ".join(f"'{word}'" for word in words)
        command.write_text(f'#!/bin/sh\nexec {quoted} "$@"\n')
        command.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    table = pd.read_csv(ROOT / "sample_data" / "products.csv", dtype={"sku": str})
    rows = table.drop_duplicates("title").head(10)
    rows[["sku", "title"]].to_csv("products.csv", index=False)
    Path("requests.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in requests()))


def requests() -> Iterator[dict[str, Any]]:
    """Five requests in the batch format."""
    for n in range(5):
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"Say {n}."}]}
        yield {"custom_id": f"q {n}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def blocks(page: str, section: str) -> Iterator[tuple[str, str]]:
    """The language and the text of each block of a section that is to be run."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = dict(part.partition("\n")[::2] for part in re.split(r"(?m)^## ", text)[1:])
    yield from BLOCK.findall(found[section])


def run(
    page: str, section: str, names: dict[str, Any] | None = None, until: str | None = None
) -> dict[str, Any]:
    """Run a section's blocks in order, up to one that holds a word; gives what Python left."""
    names = {} if names is None else names
    for language, text in blocks(page, section):
        if until is not None and until in text:
            break
        if language == "python":
            exec(compile(text, f"{page}: {section}", "exec", dont_inherit=True), names)
        else:
            shell(text)
    return names


def shell(text: str) -> None:
    """Run a block of shell."""
    done = subprocess.run(
        ["sh", "-e", "-c", text], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_runs_as_it_stands(server: BatchServer) -> None:
    """Whoever copies the README's blocks, one after the other, gets what they say."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for language, block in BLOCK.findall(text):
        if language == "python":
            exec(compile(block, "README.md", "exec", dont_inherit=True), names)
        elif not block.startswith("pip install"):
            shell(block.replace("python -c", f"'{sys.executable}' -c"))

    assert set(names["out"].columns) > {"material", "size", "features", "llmbatch_status"}
    assert names["job"].status().ended
    written = pd.read_csv("out.csv")
    assert len(written) == 200
    assert written["dept_status"].eq("ok").all()
    assert Path("report.html").stat().st_size > 1000
    assert "review" in Path("review.html").read_text(encoding="utf-8")


def test_the_page_for_assistants_runs_as_it_stands(server: BatchServer) -> None:
    """An assistant that copies the block of AGENTS.md runs it without a change; it is one page."""
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for _, block in BLOCK.findall(text):
        exec(compile(block, "AGENTS.md", "exec", dont_inherit=True), names)

    assert names["out"]["dept_status"].eq("ok").all()
    assert len(text.splitlines()) <= 70


def test_the_page_on_tables_runs(server: BatchServer) -> None:
    """The block on Polars reads, asks, waits and writes, lazily."""
    rows = pl.read_csv("products.csv")
    rows.write_parquet("rows.parquet")
    text = (DOCS / "tables.md").read_text(encoding="utf-8")
    ((_, block),) = BLOCK.findall(text)
    exec(compile(block, "tables.md", "exec", dont_inherit=True), {})

    assert pl.read_parquet("colours.parquet")["llmbatch_status"].to_list() == ["ok"] * 10


def test_the_readmes_first_screen() -> None:
    """Install line and result table stand on the first screen; the two commands are as promised."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    screen = text.splitlines()[:36]
    assert "pip install frameenrich" in screen
    assert any(line.startswith("| KT-00417") for line in screen)
    for command in ("uv run frameenrich demo", "uv run pytest"):
        assert f"\npip install -q uv && {command}\n" in text


def test_a_batch_that_is_stuck(server: BatchServer) -> None:
    """The first line finishes a stuck job live; `test_finish.py` has the second, with Mistral."""
    server.faults.add("stuck", times="always", where="*-r0-*")
    ((_, text),) = blocks("providers.md", "A batch that is stuck")
    frame = pd.read_csv("products.csv", index_col="sku")
    job = frame.llmbatch.submit("{{ title }}?", "gpt-4o-mini", params={"max_tokens": 20})
    job.status()  # the server runs a batch where it is looked at
    first, second = text.splitlines()
    exec(first, {"job": job})

    assert job.collect()["llmbatch_status"].eq("ok").all()
    assert second.startswith('job.finish("mistral", model="mistral-small-latest").wait()')


def test_tables_larger_than_memory_from_the_command_line(server: BatchServer) -> None:
    """A large file, and a pattern of files with a template in one: both lines of the page run."""
    rows = pd.read_csv("products.csv")
    rows.to_csv("big.csv", index=False)
    Path("data").mkdir()
    for part in (0, 1):
        rows[part::2].to_parquet(f"data/{part}.parquet", index=False)
    Path("ask.j2").write_text("Colour of {{ title }}?")
    ((_, text),) = blocks("scale.md", "From the command line")
    for line in text.splitlines():
        done = CliRunner().invoke(app, [*shlex.split(line)[1:], "--poll-seconds", "0.01"])
        assert done.exit_code == 0, done.output
        assert pd.read_parquet("out.parquet")["llmbatch_status"].eq("ok").all()


def test_servers_of_your_own(server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks for Ollama, vLLM and others run against a server at another port."""
    monkeypatch.delenv("OPENAI_API_KEY")  # one on this machine needs none
    df = pd.read_csv("products.csv", dtype={"sku": str}, index_col="sku")
    texts = dict(blocks("providers.md", "Servers of your own"))
    here = {
        name: re.sub(r"http://localhost:\d+/v1", server.base_url, t) for name, t in texts.items()
    }
    names: dict[str, Any] = {"df": df}
    exec(compile(here["python"], "providers.md", "exec", dont_inherit=True), names)
    shell(here["sh"])

    assert pd.read_csv("out.csv")["llmbatch_status"].eq("ok").all()
    assert sum(server.executed.values()) >= 10


def test_requests_that_one_has_already(server: BatchServer) -> None:
    """The section's frame, its regenerated job and its command give each request its answer."""
    names = run("recipes.md", "Requests that you have already")

    assert list(names["answers"]["custom_id"]) == [f"q {n}" for n in range(5)]
    said = [f"echo: Say {n}." for n in range(5)]
    assert names["answers"]["answer"].tolist() == names["beside"]["answer"].tolist() == said
    assert pd.read_csv("answers.csv")["answer"].tolist() == said
    assert len(server.batches) == 1


def test_the_round_trip_through_vllm(server: BatchServer) -> None:
    """The exact commands, with a stand-in that writes vLLM's form; failures go again."""
    before = run("recipes.md", "vLLM, without a server", until="regenerate")["out"]
    assert before["department_status"].tolist() == ["failed", "failed", *["ok"] * 8]
    assert before["department_error"][0] == "500: too long"
    assert before["department_error"][1] == "No such role"
    out = run("recipes.md", "vLLM, without a server")["out"]
    assert set(out["department_status"]) == {"ok"}
    assert out["department"].tolist() == [
        f"echo: Which department sells {title}?" for title in out["title"]
    ]
    assert len(list(Path().glob("again-*.jsonl"))) == 1
    assert not server.batches


@pytest.mark.parametrize(
    ("section", "columns"),
    [
        ("The cookbook's loop", ["department"]),
        ("instructor", ["facts"]),
        ("LangBatch", ["answer"]),
        ("openaivec", ["material", "embedding"]),
    ],
)
def test_our_side_of_the_migration_page(
    section: str, columns: list[str], server: BatchServer
) -> None:
    """Each library's block runs as it stands, after the page's first, and every row is ok."""
    names = run("migration.md", "The cookbook's loop")
    out = run("migration.md", section, names)["out"]

    for column in columns:
        assert set(out[f"{column}_status"]) == {"ok"}
    if section == "instructor":
        assert {"material", "size"} <= set(out.columns)
        assert names["bad"].empty
    if section == "LangBatch":
        assert len(names["good"]) == len(names["sent"]) == 5
    if section == "openaivec":
        assert len(set(out["embedding"].map(len))) == 1


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of Dask's, in pandas 3.1
def test_a_frame_of_many_partitions(server: BatchServer) -> None:
    """The Dask block runs as it stands; what it wrote has every row's own answer."""
    run("scale.md", "Dask")

    out = pd.read_parquet("answered")
    assert out["llmbatch"].tolist() == [
        f"echo: Which department sells {title}?" for title in pd.read_csv("products.csv")["title"]
    ]
    assert len(server.batches) == 1


def recipe(name: str) -> ModuleType:
    """A recipe's module, with its scheduler absent."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", DOCS / "recipes" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tasks_of_airflow(server: BatchServer) -> None:
    """Submit, look, look again, collect; a task that is run twice pays once."""
    dag = recipe("airflow")

    job_id = dag.submit("products.csv")
    assert dag.submit("products.csv") == job_id
    server.hold("in_progress")
    assert [dag.ended(job_id), dag.ended(job_id)] == [False, False]
    server.release()
    looks = [dag.ended(job_id) for _ in range(6)]
    out = pd.read_parquet(dag.collect("products.csv", job_id, "out.parquet"))

    assert looks[-1]
    assert set(out["department"]) <= set(DEPARTMENTS)
    assert set(out["department_status"]) == {"ok"}
    assert len(server.batches) == 1


def test_the_tasks_of_flyte(server: BatchServer) -> None:
    """The same with a file of requests, and a sensor that is asked from a loop."""
    flow = recipe("flyte")

    job_id = flow.submit("requests.jsonl")
    looks = [asyncio.run(flow.BatchEnded().poke(job_id)) for _ in range(6)]
    out = flow.collect(job_id)

    assert looks[-1]
    assert out["answer"].tolist() == [f"echo: Say {n}." for n in range(5)]
    assert flow.submit("requests.jsonl") == job_id
    assert len(server.batches) == 1


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page is a file of this checkout."""
    links = LINK.findall(page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_index_names_every_page_and_notebook() -> None:
    """Nobody has to guess that a page exists."""
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = [path.name for path in DOCS.glob("*.md") if path.name != "README.md"]
    notebooks = [path.name for path in (ROOT / "notebooks").glob("*.ipynb")]

    assert [name for name in pages + notebooks if name not in index] == []


def between(page: Path, name: str) -> str:
    """What a page has between two markers, which `benchmarks/run.py` fills."""
    text = page.read_text(encoding="utf-8")
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]


def test_every_figure_of_speed_is_the_benchmarks() -> None:
    """What the README and the page for users say is in the benchmark's own tables."""
    measured = ROOT / "benchmarks" / "README.md"
    shown = [row for row in between(ROOT / "README.md", "benchmarks").splitlines() if row]

    assert len(shown) > 10
    assert [row for row in shown if row not in measured.read_text(encoding="utf-8")] == []
    for table in ("render", "parse"):
        ours = between(measured, table).splitlines()[2].split("|")
        said = between(DOCS / "speed.md", f"million-{table}")
        seconds = re.search(r"a million rows in (\d+) seconds of one core", said)
        assert seconds
        assert abs(int(seconds[1]) - 1e6 / int(ours[2].replace(",", ""))) < 0.6


def test_the_worked_trips_name_what_is_there() -> None:
    """CONTRIBUTING's two trips through the code lead a newcomer to functions that exist."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    trips = page.split("## A row goes out")[1].split("## How to add")[0]
    names = set(re.findall(r"`((?:\w+\.)+\w+)`", trips))

    missing = set()
    for name in names:
        found: Any = frameenrich
        for part in name.split("."):
            if not hasattr(found, part):
                with contextlib.suppress(ImportError):
                    importlib.import_module(f"{found.__name__}.{part}")
            found = getattr(found, part, None)
            if found is None:
                break
        if found is None:
            missing.add(name)

    assert len(names) > 12
    assert missing == set()


def test_what_is_said_on_adding_leads_to_files_that_exist() -> None:
    """CONTRIBUTING's ways to add an option, a form, a provider or a command start at real files."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    how = page.split("## How to add")[1].split("\n## ")[0]
    paths = set(re.findall(r"`([\w./]+/[\w./]*)`", how))

    missing = {p for p in paths if not any((ROOT / at / p).exists() for at in (".", "frameenrich"))}

    assert len(paths) > 12
    assert missing == set()
