"""Reports of jobs whose long texts are not in memory: they show what those of small jobs do."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from batch_server import BatchServer
from conftest import answer_lines
from reviews import answered

from frameenrich.verbs import report as verbs_report
from frameenrich.verbs.job import Job


@pytest.fixture
def as_if_large(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Bounds of a job that is large, to be undone; its page's rows are read a few at a time."""
    monkeypatch.setattr(verbs_report, "ALL_ROWS", 0)
    monkeypatch.setattr(verbs_report, "_PART_BYTES", 1)
    monkeypatch.setattr(verbs_report, "_LEAST_ROWS", 4)
    return monkeypatch


def page_of(job: Job, path: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    """Write a report; return its page, and the data in it."""
    page = job.report(path, **options).read_text(encoding="utf-8")
    found = re.search(r"<script[^>]*application/json[^>]*>(.*?)</script>", page, re.DOTALL)
    assert found is not None
    return page, json.loads(found[1])


def test_the_page_of_a_large_job_is_made_of_the_rows_it_shows(
    store: Path, tmp_path: Path, as_if_large: pytest.MonkeyPatch
) -> None:
    """Long texts of other rows are not even in memory; the page shows the same rows (promise 8)."""
    frame = pd.DataFrame({"title": [f"Thing {n}" for n in range(60)]})
    job: Any = frame.llmbatch.submit(
        "{{ title }}?", "m", response_model={"text": str, "n": int}, provider="file", store=store
    )
    answers = [json.dumps({"text": f"{n} {'long ' * 50}", "n": n % 3}) for n in range(60)]
    answers[7] = answers[7][:-9]
    lines = b"".join(answer_lines(job, text, [str(n)]) for n, text in enumerate(answers))
    (tmp_path / "came.jsonl").write_bytes(lines)
    job.import_responses(tmp_path / "came.jsonl")

    small, some_read = page_of(job, tmp_path / "small.html", rows=9)
    as_if_large.undo()
    whole, all_read = page_of(job, tmp_path / "whole.html", rows=9)

    assert len(some_read["rows"]) == 10
    assert {**some_read, "charts": None} == {**all_read, "charts": None}
    assert "Long texts and the lengths" in small
    assert "Long texts and the lengths" not in whole
    assert [chart["title"] for chart in some_read["charts"]] == [
        chart["title"] for chart in all_read["charts"] if "length" not in chart["title"]
    ]


def page_data(job: Any, path: Path, **options: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Write a report; return its columns, the shown cells, and the rows' verdicts."""
    _, data = page_of(job, path, **options)
    cells = [[data["texts"][v] if isinstance(v, int) else v for v in r["v"]] for r in data["rows"]]
    return data["columns"], cells, [row.get("w") for row in data["rows"]]


ODD_FIRST_ROWS = [{"b": "B0", "a": "A0"}, {"x": "X0", "b": "B0", "a": "A0"}, {"a": "A0"}, "word"]


@pytest.mark.parametrize("first", ODD_FIRST_ROWS)
def test_a_large_jobs_parser_values_stand_under_their_own_headings(
    store: Path, tmp_path: Path, as_if_large: pytest.MonkeyPatch, first: Any
) -> None:
    """The rows of the page may lack keys that others have, or have them in another order."""
    frame = pd.DataFrame({"title": [f"Thing {n}" for n in range(12)]})
    job: Any = frame.llmbatch.submit("{{ title }}?", "m", provider="file", store=store)
    answers = [json.dumps(first), *(json.dumps({"a": f"A{n}", "b": [n]}) for n in range(1, 12))]
    lines = b"".join(answer_lines(job, text, [str(n)]) for n, text in enumerate(answers))
    (tmp_path / "came.jsonl").write_bytes(lines)
    job.import_responses(tmp_path / "came.jsonl")

    large = page_data(job, tmp_path / "large.html", rows=3, parser=json.loads)
    as_if_large.undo()
    assert large == page_data(job, tmp_path / "whole.html", rows=3, parser=json.loads)


def test_a_large_jobs_reviewed_rows_may_lack_a_parsers_key(
    store: Path, tmp_path: Path, as_if_large: pytest.MonkeyPatch
) -> None:
    """Reviewed rows are read whole, though another row alone shows one of the columns."""
    frame = pd.DataFrame({"title": [f"Thing {n}" for n in range(40)]})
    job: Any = frame.llmbatch.submit(
        "{{ title }}?", "m", parser=json.loads, provider="file", store=store
    )
    answers = [json.dumps({"b": "B0", "a": "A0"}), *(f'{{"a": "A{n}"}}' for n in range(1, 40))]
    lines = b"".join(answer_lines(job, text, [str(n)]) for n, text in enumerate(answers))
    (tmp_path / "came.jsonl").write_bytes(lines)
    job.import_responses(tmp_path / "came.jsonl")
    for seed in range(2):
        job.review(n=2, seed=seed)

    large = page_data(job, tmp_path / "large.html", rows=40)
    as_if_large.undo()
    assert large == page_data(job, tmp_path / "whole.html", rows=40)


@pytest.mark.usefixtures("as_if_large")
def test_a_large_jobs_lists_are_shown_as_json(store: Path, tmp_path: Path) -> None:
    """What kind a column is does not depend on the job's size."""
    frame = pd.DataFrame({"title": [f"Thing {n}" for n in range(6)]})
    job: Any = frame.llmbatch.submit(
        "{{ title }}?", "m", response_model={"tags": list[str]}, provider="file", store=store
    )
    lines = b"".join(answer_lines(job, f'{{"tags": ["é{n}"]}}', [str(n)]) for n in range(6))
    (tmp_path / "came.jsonl").write_bytes(lines)
    job.import_responses(tmp_path / "came.jsonl")

    columns, cells, _ = page_data(job, tmp_path / "large.html", rows=3)
    assert columns[0]["kind"] == "json"
    assert all(json.loads(cell)[0].startswith("é") for (cell,) in cells)


def test_a_chart_of_texts_is_of_all_rows_or_not_there(
    store: Path, tmp_path: Path, as_if_large: pytest.MonkeyPatch
) -> None:
    """One long text among many short ones, in a row that the page does not show, is no null."""
    frame = pd.DataFrame({"title": [f"Thing {n}" for n in range(30)]})
    fields = {"kind": str, "note": str}
    said = [{"kind": f"shelf {n % 3}, Küche", "note": "new"} for n in range(30)]
    said[11]["note"] = "long " * 50
    job = answered(frame, said, store, response_model=fields)

    _, large = page_of(job, tmp_path / "large.html", rows=1)
    as_if_large.undo()
    _, whole = page_of(job, tmp_path / "whole.html", rows=1)
    assert [chart["title"] for chart in large["charts"]][:1] == ["kind"]
    assert large["charts"][0] == whole["charts"][0]
    assert "note" not in [chart["title"] for chart in large["charts"]]


def test_a_large_jobs_reviewed_dates_count(
    store: Path, tmp_path: Path, as_if_large: pytest.MonkeyPatch
) -> None:
    """Promise 11: a date is read whole for its review, or it would pass for another answer."""
    frame = pd.DataFrame({"title": [f"Thing {n}" for n in range(12)]})
    fields = {
        "type": "object",
        "properties": {"sold": {"type": "string", "format": "date"}, "note": {"type": "string"}},
        "required": ["sold", "note"],
        "additionalProperties": False,
    }
    said = [{"sold": f"2024-05-{n + 1:02}", "note": "long " * 40} for n in range(12)]
    job = answered(frame, said, store, response_model=fields)
    sheet = job.review(n=6).to_csv(tmp_path / "r.csv")
    rows = list(csv.DictReader(sheet.read_text(encoding="utf-8-sig").splitlines()))
    for row in rows:
        for name in row:
            if name.startswith("verdict"):
                row[name] = "right"
    with sheet.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    job.add_review(sheet)

    large, read = page_of(job, tmp_path / "large.html", rows=2)
    as_if_large.undo()
    whole, all_read = page_of(job, tmp_path / "whole.html", rows=2)
    assert re.findall(r'<p class="headline right">.*', large) == re.findall(
        r'<p class="headline right">.*', whole
    )
    assert large.count('class="headline right"') == 2
    assert read["rows"] == all_read["rows"]


def test_a_large_jobs_rounds_are_those_of_a_small_one(
    server: BatchServer, client: Any, store: Path, tmp_path: Path, as_if_large: pytest.MonkeyPatch
) -> None:
    """Rows that were asked again, some of them with one request, keep what became of each try."""
    server.faults.add("truncated", where=[f"row-{n}" for n in (1, 6, 8)])
    server.faults.add("truncated", where=[f"r1-row-{n}" for n in (6, 8)])
    titles = [f"Thing {n % 9}" for n in range(12)]
    frame = pd.DataFrame({"title": titles})
    job = frame.llmbatch.submit("{{ title }}?", "m", client=client, store=store)
    again = job.wait(poll_seconds=0.01).regenerate().wait(poll_seconds=0.01)

    text, large = page_of(again, tmp_path / "large.html")
    as_if_large.undo()
    _, whole = page_of(again, tmp_path / "whole.html")
    assert "Long texts and the lengths" in text  # also where no row is left out
    assert large["rows"] == whole["rows"]
    assert [len(row.get("h", [])) for row in large["rows"]] == [int(n in {6, 8}) for n in range(12)]
