"""What people see in a notebook: the card, the status, flagged rows, progress, a link."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import openai
import pandas as pd
import pytest
from batch_server import BatchServer, Reply
from browser import Chromium, find_chromium
from nbclient import NotebookClient

import frameenrich  # noqa: F401 - registers df.llmbatch
from frameenrich.report.linked_path import LinkedPath
from frameenrich.verbs.job import Job

FAST: dict[str, Any] = {"poll_seconds": 0.01}


@pytest.fixture
def cut_job(server: BatchServer, client: openai.OpenAI, store: Path) -> Job:
    """A job whose rows were all cut at their own lengths, and asked again with twice those."""
    server.answer = lambda body, _: Reply(
        content="word " * (5 + len(str(body["messages"][-1]["content"]))), finish_reason="length"
    )
    frame = pd.DataFrame({"title": ["m" * n for n in range(1, 41)]})
    job = frame.llmbatch.submit("{{ title }}?", "gpt-4o-mini", client=client, store=store)
    again: Job = job.wait(**FAST).regenerate().wait(**FAST)
    return again


def test_the_card_groups_what_repeats(cut_job: Job) -> None:
    """Forty rows asked again with forty different caps are one entry, with the range of them."""
    card = cut_job._repr_html_()

    assert card.count("truncated rows") == 1
    assert re.search(r"\d+ to \d+ for 40 truncated rows", card)


def test_flagged_rows_show_their_prompt(cut_job: Job) -> None:
    """`flagged` has what was asked, `show_flagged` shows it, escaped."""
    flagged = cut_job.flagged()

    assert flagged["prompt"].tolist()[:2] == ["m?", "mm?"]
    assert ">mm?</span>" in cut_job.show_flagged().to_html()


def test_status_words_take_the_notebooks_own_colour(cut_job: Job) -> None:
    """No text has a colour of its own, which could not be read on both a light and a dark page."""
    for page in (cut_job.show_flagged().to_html(), cut_job._repr_html_()):
        assert not re.findall(r"(?<![-\w])color:\s*#", page)


def test_status_has_a_card(cut_job: Job) -> None:
    """`status()` in a notebook is a bar with counts, not a Python object's fields."""
    card = cut_job.status()._repr_html_()

    assert "80 of 80 requests done" in card
    assert cut_job.id in card


def test_the_report_is_a_link(cut_job: Job, tmp_path: Path) -> None:
    """What `report` returns is a path in code, and in a notebook a link that opens the page."""
    path = cut_job.report("my report.html")

    assert isinstance(path, Path)
    assert isinstance(path, LinkedPath)
    assert path._repr_html_() == ('<a href="my%20report.html" target="_blank">my report.html</a>')
    assert LinkedPath(tmp_path.parent / "x.html")._repr_html_().startswith('<a href="file:///')


@pytest.mark.any_pandas
def test_progress_without_widgets_is_text(tmp_path: Path) -> None:
    """In a real kernel without ipywidgets progress is text, and says once how to get the bar."""
    code = """
    import sys
    sys.modules["ipywidgets"] = None
    from frameenrich.lifecycle.wait import progress_bar
    for _ in range(2):
        with progress_bar(4, 0, "answers") as bar:
            bar.update(4)
    """
    form: Any = nbformat.v4
    cell = form.new_code_cell("\n".join(line[4:] for line in code.splitlines()))
    notebook = form.new_notebook(cells=[cell])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    said = "".join(each.get("text", "") for each in notebook.cells[0]["outputs"])

    assert said.count("pip install ipywidgets") == 1
    assert "100%" in said
    assert "TqdmWarning" not in said


@pytest.mark.any_pandas
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium")
@pytest.mark.parametrize("width", [360, 900])
def test_nothing_sticks_out_of_a_narrow_notebook(width: int, cut_job: Job, tmp_path: Path) -> None:
    """The cards fit into a narrow pane; what is wider scrolls inside its own box."""
    page = tmp_path / "page.html"
    cards = cut_job._repr_html_() + cut_job.status()._repr_html_()
    page.write_text(f"<!doctype html><meta name=viewport content='width=device-width'>{cards}")
    with Chromium(width=width, height=800) as browser:
        browser.open(page.as_uri())
        assert browser.ask("document.documentElement.scrollWidth") <= width
