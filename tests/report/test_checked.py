"""What a report and a card show of reviewed rows: both figures, shares, confusion, scores."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

from browser import Chromium
from reviews import LABELS, answered, goods

from frameenrich.report.checked import COVERAGE, checks, verdicts
from frameenrich.verbs.job import Job

EVIL = "<img src=x onerror=alert(1)>"


def line(custom_id: str, labels: list[str]) -> str:
    """Return a response line with several answers."""
    choices = [
        {"message": {"content": json.dumps({"label": each})}, "finish_reason": "stop"}
        for each in labels
    ]
    response = {"status_code": 200, "body": {"choices": choices, "model": "m"}}
    return json.dumps({"custom_id": custom_id, "response": response, "error": None})


def reviewed(store: Path, labels: list[str] = LABELS, reviewer: str = EVIL) -> Job:
    """Return a job of 90 rows, some unsure, of which 60 were judged."""
    frame, answers = goods(dict(zip(labels, (50, 30, 10), strict=True)))
    job: Job = frame.llmbatch.submit(
        "Where is {{ title }}?", "m", labels=labels, samples=4, provider="file", store=store
    )
    ids = job.collect(usage=True)["llmbatch_custom_id"]
    said = [
        [answer] * 4 if i % 3 else [answer, answer, labels[0], labels[1]]
        for i, answer in enumerate(answers)
    ]
    path = store / "responses.jsonl"
    path.write_text("\n".join(line(own, each) for own, each in zip(ids, said, strict=True)) + "\n")
    job.import_responses(path)
    sheet = job.review(n=60, by="answer").to_csv(store / "sheet.csv", blind=False)
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for i, row in enumerate(rows):
            correct = labels[2] if i % 7 == 0 else row["answer"]
            writer.writerow(row | {"correct": correct, "note": EVIL if i == 0 else ""})
    job.add_review(sheet, reviewer=reviewer)
    return job


def test_the_report_draws_what_evaluate_says(store: Path, browser: Chromium) -> None:
    """Both figures first; shares, confusion and curves under them; the least sure rows first."""
    job = reviewed(store)
    check = job.evaluate()
    path = job.report(store / "report.html")
    browser.show(path)
    text = browser.ask("document.body.innerText")

    assert "100%" in browser.ask("document.querySelector('.headline strong').textContent")
    assert browser.ask("document.querySelector('.right strong').textContent") == str(check.accuracy)
    shares = check.shares
    assert shares is not None
    shown = browser.ask("[...document.querySelectorAll('.corrected .name')].map(n => n.innerText)")
    assert shown == shares.sort_values("counted", ascending=False).index.tolist()
    cells = browser.ask("[...document.querySelectorAll('.confusion td.hit')].map(n => n.innerText)")
    assert check.confusion is not None
    assert [int(n or 0) for n in cells] == [
        check.confusion.loc[n, n] for n in check.confusion.index
    ]
    assert browser.ask("document.querySelectorAll('.curve').length") == 2
    assert "the share of 4 answers that agree" in text
    # The answers that disagree come first, and what was said of a row stands with it.
    first = job.answers_to_judge().scores("llmbatch", job.answers_to_judge().usable)
    assert first is not None
    browser.press("j")
    browser.press("k")
    assert "score\n0.500" in browser.ask("document.querySelector('.detail').innerText")
    assert first.min() == 0.5
    browser.ask("const s=document.querySelector('#sort'); s.value='said'; "
                 "s.dispatchEvent(new Event('change'))")  # fmt: skip
    assert "Reviewed" in browser.ask("document.querySelector('.detail').innerText")
    # What reviewers wrote is text.
    assert browser.ask("document.querySelectorAll('main img').length") == 0
    assert browser.messages == []
    assert f"{EVIL} judged 60" in browser.ask("document.querySelector('.appendix').textContent")


def test_many_labels_and_narrow_screens_fit(store: Path, browser: Chromium) -> None:
    """Long labels are cut, and nothing is wider than a phone."""
    job = reviewed(store, [f"{'a very long label ' * 6}{i}" for i in range(3)])
    path = job.report(store / "report.html")
    browser.resize(390, 800)
    browser.show(path)

    assert browser.ask("document.documentElement.scrollWidth") <= 390


def test_the_card_has_both_figures(store: Path, tmp_path: Path) -> None:
    """Promise 11: usable and right are two figures; without a review the call stands there."""
    frame, labels = goods({"Kitchen": 20, "Garden": 5})
    bare = answered(frame, labels, tmp_path / "other", labels=LABELS)._repr_html_()
    job = reviewed(store)
    card = job._repr_html_()

    assert "100 %, 25 of 25 rows" in bare
    assert "not checked: job.review(n=25)" in bare
    assert "100 %, 90 of 90 rows" in card
    assert f"{job.evaluate().accuracy}, 60 reviewed" in card
    assert "not checked" not in card


def test_a_damaged_review_hides_nothing_else_of_the_card(store: Path) -> None:
    """The card says what cannot be read, and shows the rest."""
    job = reviewed(store)
    (draw,) = Path(job.path).glob("reviews/*/draw.parquet")
    draw.write_bytes(b"not Parquet")

    card = job._repr_html_()
    assert "100 %, 90 of 90 rows" in card
    assert "not known: The store" in card


def test_a_report_without_reviews_draws_none(store: Path) -> None:
    """No number where there is none: no section, no verdicts, no bounds."""
    frame, labels = goods({"Kitchen": 20, "Garden": 5})
    job = answered(frame, labels, store, labels=LABELS)
    answers = job.answers_to_judge()
    page = job.report(store / "report.html").read_text()

    assert (list(checks(answers)), verdicts(answers)) == ([], {})
    assert "How right it is" not in page
    assert "Not checked" in page


def test_the_appendix_says_what_was_measured() -> None:
    """The page's table is tests/COVERAGE.md's: the lowest and the highest cell of each figure."""
    text = (Path(__file__).parents[1] / "COVERAGE.md").read_text()
    table = text.partition("| model |")[2].partition("## Thresholds")[0]
    cells: Any = [re.split(r"\s*\|\s*", row)[4:9] for row in table.splitlines() if "| 50 |" in row
                  or "| 100 |" in row or "| 200 |" in row or "| 400 |" in row]  # fmt: skip
    columns = list(zip(*[[float(cell) for cell in row] for row in cells], strict=True))

    assert len(cells) == 16
    assert [(low, high) for _, low, high in COVERAGE] == [(min(c), max(c)) for c in columns]
