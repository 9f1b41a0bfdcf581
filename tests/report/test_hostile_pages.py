"""Reports of answers, keys and settings that would spoil a careless page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import Chromium
from reviews import answered

from frameenrich.report.page import Reason, Report, page
from frameenrich.verbs import report as verbs_report
from frameenrich.verbs.job import Job

NAMES = ["__proto__", "constructor", "toString", "hasOwnProperty", "<b>", "plain"]

WRONG_BARS = """(() => {
  const wrong = [];
  const shown = () => Number(document.getElementById('shown').textContent.split(' ')[0]);
  const click = (node) => node.dispatchEvent(new MouseEvent('click', { bubbles: true }));
  for (const node of document.querySelectorAll('[data-chart]')) {
    const title = node.querySelector('title'), count = node.querySelector('.n');
    const said = Number(title ? title.textContent.split(': ').pop() : count.textContent);
    click(node);
    if (shown() !== said) wrong.push([node.textContent, said, shown()]);
    click(node);
  }
  return wrong;
})()"""


def test_rows_called_as_javascripts_properties_are_not_judged(
    browser: Chromium, store: Path, tmp_path: Path
) -> None:
    """Only what a person judged counts as judged, and it is still there after a reload."""
    frame = pd.DataFrame({"title": NAMES}, index=pd.Index(NAMES, name="__proto__"))
    job = answered(frame, [{"constructor": name} for name in NAMES], store, response_model=_named())
    path = job.report(tmp_path / "report.html")
    browser.show(path)
    before = browser.ask("document.getElementById('checked').hidden")
    browser.press("y")  # the first row: __proto__
    browser.wait_for("document.getElementById('checked').textContent.includes('1 usable row')")
    browser.show(path)

    assert before is True
    assert "You judged 1 usable row: 1 right" in browser.ask(
        "document.getElementById('checked').textContent"
    )
    assert browser.ask(WRONG_BARS) == []
    assert browser.messages == []


def _named() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"constructor": {"type": "string", "enum": NAMES}},
        "required": ["constructor"],
        "additionalProperties": False,
    }


def test_every_bar_finds_the_rows_that_it_counts(
    browser: Chromium, store: Path, tmp_path: Path
) -> None:
    """Also numbers that JavaScript rounds, truth values, -0, and labels that look like numbers."""
    said = [
        {
            "big": 10**18 + n % 2,
            "huge": [1e300, -0.0, 2.0**60][n % 3],
            "flag": n % 2 == 0,
            "word": ["1", "1.0", "true"][n % 3],
            "some": [n % 4, None][n % 2],
        }
        for n in range(24)
    ]
    kinds = {"big": "integer", "huge": "number", "flag": "boolean", "word": "string"}
    properties: dict[str, Any] = {name: {"type": kind} for name, kind in kinds.items()}
    properties["some"] = {"type": ["integer", "null"]}
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    frame = pd.DataFrame({"title": [f"Thing {n}" for n in range(24)]})
    job = answered(frame, said, store, response_model={**schema, "additionalProperties": False})
    browser.show(job.report(tmp_path / "report.html"))

    assert browser.ask("document.querySelectorAll('[data-chart]').length") >= 10
    assert browser.ask(WRONG_BARS) == []
    charts = browser.ask("document.querySelector('.charts').innerText")
    assert "12 null" in charts  # whose rows no bar counts
    assert "1e+18" in charts
    assert "Cost" not in charts  # of answers that do not tell their tokens


def test_a_key_that_is_a_word_of_our_script_leaves_it_alone(
    browser: Chromium, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of one's own may be content with any word, which is hidden in answers only."""
    words = ["document", "statuses", "completed", "application", "texts", "system", "status"]
    for word in words:
        monkeypatch.setenv(f"{word.upper()}_API_KEY", word)
    job = answered(pd.DataFrame({"title": ["mug"]}), ["the document is lost"], store)
    browser.show(job.report(tmp_path / "report.html"))

    assert "the *** is lost" in browser.ask("document.getElementById('detail').textContent")
    assert browser.messages == []


def test_a_page_says_what_it_leaves_out(store: Path, tmp_path: Path) -> None:
    """Promise 9: charts of the first columns only, and rarer reasons, are told."""
    names = {f"f{n}": str for n in range(14)}
    said = [dict.fromkeys(names, f"{n % 2}") for n in range(4)]
    job = answered(pd.DataFrame({"title": ["a", "b", "c", "d"]}), said, store, response_model=names)
    text = job.report(tmp_path / "report.html").read_text(encoding="utf-8")
    reasons = (Reason("failed", "one", 3), Reason("failed", "two", 1))
    report = Report("j", "n", (), (), {"ok": 1, "failed": 6}, (), (), reasons=reasons)

    assert "Charts are of the first 12 of the 14 columns." in text
    assert "2 more flagged rows have other reasons." in "".join(
        page(report, version="1", made_at="now")
    )


def test_a_large_job_of_several_answers_has_its_scores(
    store: Path, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its votes are not in memory; its rows can be sorted and picked by how sure they are."""
    frame = pd.DataFrame({"title": [f"Thing {n}" for n in range(5)]})
    job: Job = frame.llmbatch.submit(
        "{{ title }}?",
        "m",
        labels=["Kitchen", "Garden"],
        samples=3,
        params={"temperature": 1},
        client=client,
        store=store,
    ).wait(poll_seconds=0.01)

    def scores(name: str) -> list[Any]:
        text = job.report(tmp_path / name).read_text(encoding="utf-8")
        data = text.split('id="data">')[1].split("</script>")[0]
        return [row.get("c") for row in json.loads(data)["rows"]]

    whole = scores("whole.html")
    monkeypatch.setattr(verbs_report, "ALL_ROWS", 0)
    assert scores("large.html") == whole
    assert None not in whole
