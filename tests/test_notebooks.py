"""The notebooks run, for real and as they are, with the embedded model and against the server.

As a script this file runs them too, and keeps what they put out::

    uv run python tests/test_notebooks.py
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from batch_server import BatchServer, Reply, pick
from conftest import DEPARTMENTS, ROOT
from nbclient import NotebookClient

from frameenrich.model import RowStatus

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CLASSIFY = FOLDER / "01_classify_products.ipynb"
CAPTION = FOLDER / "02_caption_images.ipynb"
QUESTIONS = FOLDER / "03_question_answers.ipynb"
PAIRS = FOLDER / "04_translation_pairs.ipynb"
SLOWEST_CELL_SECONDS = 180
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./:])/(?:app|builds|data|etc|home|mnt|opt|private|root|srv|tmp|Users|usr|var|work)/"
    r"|\b[A-Z]:\\+\w|\bfile:/"
)


@pytest.fixture(autouse=True)
def kernel_environment(
    clean_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A kernel of this interpreter that knows nothing of the user and leaves its files here."""
    for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def read(path: Path) -> Any:
    """A notebook."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call] # it has no types


def run(path: Path) -> Any:
    """The notebook as a new kernel leaves it; the file stays as it is."""
    notebook = read(path)
    client = NotebookClient(
        notebook,
        kernel_name="python3",  # jupyter_client's name for the interpreter that runs
        timeout=SLOWEST_CELL_SECONDS,
        allow_errors=True,  # so that all of them are in the failure's message
        coalesce_streams=True,  # the last state of a progress bar, not each
        record_timing=False,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    asyncio.run(client.async_execute())
    return notebook


def outputs(notebook: Any) -> Iterator[Any]:
    """All outputs of a notebook."""
    for cell in notebook.cells:
        yield from cell.get("outputs", ())


def text_of(output: Any) -> str:
    """Everything readable of an output: streams, each representation, tracebacks."""
    parts = [output.get("text", ""), *output.get("traceback", ())]
    parts += [text for kind, text in output.get("data", {}).items() if "image" not in kind]
    return "\n".join(map(str, parts))


def faults(notebook: Any) -> list[str]:
    """The texts of errors and warnings among the outputs of a notebook."""
    texts = [(output.output_type, text_of(output)) for output in outputs(notebook)]
    return [text for kind, text in texts if kind == "error" or "Warning" in text]


def written_csv(folder: Path) -> pd.DataFrame:
    """The one CSV that a notebook wrote into a temporary folder."""
    (path,) = (folder / "TMPDIR").rglob("*.csv")
    return pd.read_csv(path, dtype={"sku": str})


def check_whole(out: pd.DataFrame, catalogue: pd.DataFrame) -> None:
    """Rows in = rows out, the supplier's cells untouched, one status of the enum each."""
    pd.testing.assert_frame_equal(
        out[catalogue.columns].sort_values("sku", ignore_index=True),
        catalogue.sort_values("sku", ignore_index=True),
    )
    for name in ("dept_status", "facts_status"):
        assert set(out[name]) <= set(RowStatus)


def check_classified_locally(folder: Path, catalogue: pd.DataFrame) -> None:
    """Twelve rows; a label wherever the status says so, and answers of the embedded model."""
    out = written_csv(folder)

    assert len(out) == 12
    check_whole(out, catalogue.head(12))
    assert out["dept"].notna().tolist() == (out["dept_status"] == "ok").tolist()
    assert set(out["dept"].dropna()) <= set(DEPARTMENTS)
    assert out["facts_model"].str.contains("smollm2-135m", case=False).all()


def check_captions_asked(folder: Path, catalogue: pd.DataFrame) -> None:
    """24 rows, each with its own picture in a request file, but for two without one."""
    out = written_csv(folder)

    pd.testing.assert_frame_equal(out[catalogue.columns], catalogue.head(24))
    assert out["caption_status"].value_counts().to_dict() == {"pending": 22, "skipped": 2}
    (requests,) = (folder / "TMPDIR").rglob("*.requests.jsonl")
    asked = [json.loads(line)["body"] for line in requests.read_bytes().splitlines()]
    assert len({body["messages"][1]["content"][1]["image_url"]["url"] for body in asked}) == 22


def check_questions(folder: Path, _: pd.DataFrame) -> None:
    """A row a question, each with an answer, of texts that were asked about."""
    out = written_csv(folder)

    assert list(out.columns) == ["place", "question", "answer"]
    assert set(out["place"]) <= {"lighthouse", "bakery", "observatory", "ferry"}
    assert len(out) > 0
    assert out.notna().all().all()


def check_pairs(folder: Path, _: pd.DataFrame) -> None:
    """Seven words; two parts that differ wherever the status says so, and a reason elsewhere."""
    out = written_csv(folder)

    ok = out["pair_status"] == "ok"
    assert len(out) == 7
    assert set(out["pair_status"]) <= set(RowStatus)
    assert out["english"].notna().tolist() == out["french"].notna().tolist() == ok.tolist()
    assert out["pair_error"].isna().tolist() == ok.tolist()
    assert (out["english"][ok].str.casefold() != out["french"][ok].str.casefold()).all()


CHECKS: dict[str, Callable[[Path, pd.DataFrame], None]] = {
    CLASSIFY.stem: check_classified_locally,
    CAPTION.stem: check_captions_asked,
    QUESTIONS.stem: check_questions,
    PAIRS.stem: check_pairs,
}
"""What has to be true of the files that a notebook wrote, by its name."""


# Of each kind the shortest runs with the suite, the others in `.ci/run`, after it.
@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * (p != CAPTION)) for p in NOTEBOOKS],
    ids=lambda path: path.stem,
)
@pytest.mark.usefixtures("one_core")
def test_a_notebook_runs_with_the_embedded_model(
    path: Path, tmp_path: Path, products: pd.DataFrame
) -> None:
    """No key, no network: every cell runs, silently, and what it wrote is true."""
    notebook = run(path)

    assert faults(notebook) == []
    if path.stem in CHECKS:
        CHECKS[path.stem](tmp_path, products)


@pytest.mark.slow
def test_classify_products_through_the_batch_api(
    server: BatchServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, products: pd.DataFrame
) -> None:
    """With a key it sends all 200 rows to the Batch API: each gets its own answer, paid once."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)

    notebook = run(CLASSIFY)

    assert faults(notebook) == []
    out = written_csv(tmp_path)
    check_whole(out, products)
    assert set(out["dept_status"]) == {"ok"}
    assert set(out["facts_status"]) == {"ok"}
    asked = [
        f"Which department of our shop sells this product?\n{title}"
        + ("" if pd.isna(description) else f"\n{description}")
        for title, description in zip(products["title"], products["description"], strict=True)
    ]
    answers = out.set_index("sku").loc[products["sku"]]
    assert answers["dept"].tolist() == [pick(DEPARTMENTS, text) for text in asked]
    assert answers["ai_slogan"].tolist() == products["title"].tolist()
    assert server.count("POST", "/v1/batches") == 2
    assert set(server.executed_bodies.values()) == {1}


@pytest.mark.slow
def test_caption_images_through_the_batch_api(
    server: BatchServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, products: pd.DataFrame
) -> None:
    """With a key each picture is shown once, beside its own title, and answered on its own row."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)

    notebook = run(CAPTION)

    assert faults(notebook) == []
    out = written_csv(tmp_path)
    assert out["caption_status"].value_counts().to_dict() == {"ok": 22, "skipped": 2}
    shown = out[out["caption_status"] == "ok"]
    assert shown["caption"].nunique() == 22
    for title, caption in zip(shown["title"], shown["caption"], strict=True):
        assert caption.startswith(f"echo: The title of this product is: {title}\n")
        assert "\n[image " in caption
    assert set(server.executed_bodies.values()) == {1}


@pytest.mark.slow
def test_translation_pairs_are_mended_through_the_batch_api(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a key: three of seven answers have no bar; told so, the model writes one."""

    def answer(body: dict[str, Any], custom_id: str) -> Reply:
        word = body["messages"][5]["content"]
        barless = len(body["messages"]) == 6 and word in {"water", "bread", "train"}
        return Reply(content=word if barless else f"A {word}. | Un {word}.")

    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with BatchServer(answer=answer) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        notebook = run(PAIRS)

    assert faults(notebook) == []
    out = written_csv(tmp_path)
    assert set(out["pair_status"]) == {"ok"}
    assert out["english"].tolist() == [f"A {word}." for word in out["word"]]
    assert server.count("POST", "/v1/batches") == 2
    assert len(server.executed) == 10


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_executed_and_clean(path: Path) -> None:
    """It was run from top to bottom; no error, no warning, no path of somebody's machine."""
    notebook = read(path)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert faults(notebook) == []
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    texts = [cell.source for cell in notebook.cells] + list(map(text_of, outputs(notebook)))
    assert [text for text in texts if ABSOLUTE_PATH.search(text)] == []


def test_absolute_paths_are_told_from_others() -> None:
    """The search above finds paths of a machine, and leaves API paths and relative ones."""
    paths = ["/home/me/x", "'/tmp/a/b'", r"C:\Users\me", "at /work/main/a.py", "file:///root/a"]
    others = ["../sample_data/products.csv", "/v1/batches", "https://x.org/home/a", "33/45 rpm"]

    assert [text for text in paths + others if ABSOLUTE_PATH.search(text)] == paths


def write_outputs() -> None:
    """Run all notebooks with the embedded model and write them with their outputs."""
    os.environ.pop("OPENAI_API_KEY", None)
    for path in NOTEBOOKS:
        notebook = run(path)
        if found := faults(notebook):
            raise SystemExit("\n".join([f"{path.name} is left as it was:", *found]))
        notebook.metadata["language_info"] = {"name": "python"}  # no version, which would differ
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call] # it has no types


if __name__ == "__main__":
    write_outputs()
