"""What people see in a notebook: the card, the status, flagged rows, progress, a link."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import openai
import pandas as pd
import pytest
from batch_server import BatchServer, Reply
from browser import Chromium
from nbclient import NotebookClient
from reviews import LABELS, answered, goods

import frameenrich
from frameenrich.evaluation.calibration import calibration
from frameenrich.report.card import Card, card_html
from frameenrich.report.linked_path import LinkedPath
from frameenrich.text import NO_MATH
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
@pytest.mark.parametrize("width", [360, 900])
def test_nothing_sticks_out_of_a_narrow_notebook(
    width: int, cut_job: Job, browser: Chromium, tmp_path: Path
) -> None:
    """The cards fit into a narrow pane; what is wider scrolls inside its own box."""
    page = tmp_path / "page.html"
    call = "job.regenerate(statuses=['refused', 'malformed'], model='a-larger-model')"
    long = Card("job-1", "m", {"ok": 1}, "rows", (), {}, [call, "job.report()"], 0.0)
    cards = cut_job._repr_html_() + cut_job.status()._repr_html_() + card_html(long)
    page.write_text(f"<!doctype html><meta name=viewport content='width=device-width'>{cards}")
    browser.resize(width, 800)
    browser.open(page.as_uri())

    assert browser.ask("document.documentElement.scrollWidth") <= width


THEMES = {
    "JupyterLab, light": ("#ffffff", "#f5f5f5", "rgba(0,0,0,.87)"),
    "JupyterLab, dark": ("#111111", "#212121", "#ffffff"),
    "VS Code, light": ("#ffffff", "#f8f8f8", "#3b3b3b"),
    "VS Code, dark": ("#1e1e1e", "#252526", "#cccccc"),
}
"""Notebooks' own colours: the page, every second row of a table, and text."""

WORST_CONTRAST = """(() => {
  const rgba = (text) => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] + under[i] * (1 - top[3]));
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (color) => [0.2126, 0.7152, 0.0722]
    .reduce((sum, weight, i) => sum + weight * linear(color[i] / 255), 0);
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].filter((n) => n.nodeType === 3 && n.data.trim());
    if (!own.length || ["STYLE", "SCRIPT"].includes(node.tagName)) continue;
    const chain = [];
    for (let each = node; each; each = each.parentElement) chain.unshift(getComputedStyle(each));
    let ground = [255, 255, 255], opacity = 1;
    for (const style of chain) {
      ground = over(rgba(style.backgroundColor), ground);
      opacity *= style.opacity;
    }
    const [r, g, b, a] = rgba(chain[chain.length - 1].color);
    const pair = [light(over([r, g, b, a * opacity], ground)), light(ground)];
    pair.sort((x, y) => y - x);
    found.push([(pair[0] + 0.05) / (pair[1] + 0.05), own[0].data.trim().slice(0, 60)]);
  }
  return { texts: found.length, worst: found.sort((x, y) => x[0] - y[0])[0] };
})()"""


def test_text_has_contrast_in_every_notebook(
    browser: Chromium, client: openai.OpenAI, tmp_path: Path
) -> None:
    """What a notebook shows of a job can be read: 4.5:1 for every text, on light and on dark."""
    pytest.importorskip("scipy")
    frame, labels = goods({"Kitchen": 30, "Garden": 20})
    said = ["a car", *labels[1:]]
    job = answered(frame, said, tmp_path, labels=LABELS)
    other = answered(frame, labels[::-1], tmp_path, "And {{ title }}?", labels=LABELS, name="two")
    review = job.review(n=40, by="answer")
    sheet = pd.read_csv(review.to_csv(tmp_path / "sheet.csv"), dtype=str)
    sheet["correct"] = ["Kitchen", "Garden"] * 20
    sheet.to_csv(tmp_path / "sheet.csv", index=False)
    job.add_review(tmp_path / "sheet.csv")
    check = job.evaluate()
    pilot = frame.llmbatch.pilot("{{ title }}?", "m", n=3, client=client, store=tmp_path)
    guess = frame.llmbatch.estimate("Where is {{ title }}?", "gpt-4o-mini", store=tmp_path)
    scores = calibration(np.linspace(0, 1, 60), np.arange(60) % 2 == 0)
    shown: list[Any] = [
        job,
        job.status(),
        job.usage(),
        review,
        check,
        check.accuracy,
        check.threshold(),
    ]
    shown += [scores, job.compare(other), guess]
    pages = [each._repr_html_() for each in shown]
    pages += [job.show_flagged().to_html()]
    # JupyterLab would take what stands between two prices for a formula.
    assert all(NO_MATH in page for page in pages)
    frames = [
        check.disagreements,
        frameenrich.jobs(tmp_path),
        frame.llmbatch.jobs(store=tmp_path),
        job.flagged(),
        pilot,
    ]
    pages += [each._repr_html_() for each in frames]
    path = tmp_path / "page.html"

    for name, (ground, second, text) in THEMES.items():
        style = f"body{{background:{ground};color:{text}}} tr:nth-child(odd){{background:{second}}}"
        path.write_text(f"<!doctype html><style>{style}</style>{''.join(pages)}", encoding="utf-8")
        browser.open("about:blank")
        browser.open(path.as_uri())
        found = browser.ask(WORST_CONTRAST)
        assert found["texts"] > 100
        assert found["worst"][0] >= 4.5, (name, found["worst"])
