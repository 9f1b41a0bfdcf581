"""Reviews: recorded draws, sheets that come back as spreadsheets leave them, and refusals."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reviews import LABELS, answered, goods, response
from typer.testing import CliRunner

from frameenrich.cli.main import app
from frameenrich.errors import InputError, ParameterError
from frameenrich.evaluation.draw import allocate, draw_rows, pooled
from frameenrich.evaluation.open_review import open_review
from frameenrich.evaluation.review import Review
from frameenrich.evaluation.reviewed import Drawn
from frameenrich.evaluation.verdicts import reviewed_fields
from frameenrich.report.rightness import rights
from frameenrich.verbs.job import Job

COUNTS = {"Kitchen": 300, "Garden": 60, "Toys": 7}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Return a job of 367 rows with labels, which the tests of this file share."""
    frame, labels = goods(COUNTS)
    return answered(frame, labels, tmp_path_factory.mktemp("store"), labels=LABELS)


def sheet(path: Path) -> list[dict[str, str]]:
    """Read a sheet as it was written."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    """Write rows as a spreadsheet would."""
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(sink.getvalue(), encoding="utf-8-sig")
    return path


# --- draws --------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.sampled_from("abcdefghij"), st.integers(1, 400), min_size=1),
    st.integers(1, 500),
)
def test_allocation_takes_n_rows_and_ten_of_each_label(rows: dict[str, int], n: int) -> None:
    """As many as were asked for where there are, none beyond a stratum, the floor everywhere."""
    sizes = allocate(rows, n)
    floor = min(10, n // (2 * len(rows)))

    assert sum(sizes.values()) == min(n, sum(rows.values()))
    assert all(min(floor, rows[name]) <= sizes[name] <= rows[name] for name in rows)


def test_every_row_is_drawn_equally_often() -> None:
    """The draw is a random sample: over 2,000 seeds each of 40 rows comes as often as it should."""
    keys = pa.table({"key_0": list(range(40))})
    counts = np.zeros(40)
    for seed in range(2000):
        sample = draw_rows(keys, ["a"] * 30 + ["b"] * 10, 12, seed=seed, job_id="j")
        counts[sample.positions] += 1

    expected = np.repeat([sample.sizes["a"] / 30, sample.sizes["b"] / 10], [30, 10]) * 2000
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 80  # 38 degrees of freedom: beyond it once in 10,000


def test_a_topped_up_draw_is_the_large_one(job: Job) -> None:
    """`extend=` keeps the design: 60 rows and 40 more are the 100 drawn at once."""
    first = job.review(n=60, seed=3)
    more = job.review(extend=first, n=40)
    whole = job.review(n=100, seed=3)

    union = {*first.positions.tolist(), *more.positions.tolist()}
    assert union == set(whole.positions.tolist())
    assert len(union) == 100
    assert more.draw["inclusion_probability"].to_pylist() == pytest.approx([100 / 367] * 40)


def test_other_seeds_are_independent_and_the_same_call_finds_the_same_draw(job: Job) -> None:
    """A cell that runs twice draws once; seeds overlap as chance has it; order changes nothing."""
    one, again, other = job.review(n=100), job.review(n=100), job.review(n=100, seed=1)
    frame = job.collect().set_index("sku").assign(title=None)

    assert (one.id, one.draw.equals(again.draw)) == (again.id, True)
    overlap = len(set(one.positions.tolist()) & set(other.positions.tolist()))
    assert 12 < overlap < 45  # 27 expected
    assert len(frame) == 367


def test_the_record_says_how_each_row_was_drawn(job: Job) -> None:
    """`draw.parquet` holds key, stratum, probability, seed, order, when, and of which answers."""
    review = job.review(n=60, by="answer", seed=7)

    table = pq.read_table(f"{review.path}/draw.parquet")
    drawn = table.to_pandas()

    assert list(drawn.columns) == [
        "key_0", "order", "stratum", "inclusion_probability", "seed", "drawn_at", "answer_hash",
    ]  # fmt: skip
    assert drawn["stratum"].value_counts().to_dict() == {"Kitchen": 43, "Garden": 10, "Toys": 7}
    assert drawn.groupby("stratum")["inclusion_probability"].first().to_dict() == pytest.approx(
        {"Garden": 10 / 60, "Kitchen": 43 / 300, "Toys": 1.0}
    )
    answers = job.collect().set_index("sku")["llmbatch"].astype(str)
    assert answers[drawn["key_0"]].tolist() == drawn["stratum"].tolist()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda own: pickle.loads(pickle.dumps(own))])
def test_a_review_can_be_kept_and_copied(job: Job, again: Callable[[Review], Review]) -> None:
    """It holds no open file, so that joblib and a notebook's checkpoint take it."""
    review = job.review(n=1)

    copied = again(review)

    assert copied.id == review.id
    assert copied.verdicts.equals(review.verdicts)
    first = np.array([0])
    assert copied.job.prompts(first) == review.job.prompts(first)


def test_rare_labels_share_a_stratum_where_there_are_too_many() -> None:
    """With 400 labels and 100 rows each stratum still has room for two."""
    labels = [f"l{i}" for i in range(400) for _ in range(400 - i)]
    strata = pooled(labels, 100)

    assert len(set(strata.values())) == 25
    assert strata["l0"] == "l0"
    assert strata["l399"] == "(others)"


# --- sheets -------------------------------------------------------------------------------------


def test_a_sheet_comes_back_from_a_spreadsheet(job: Job, tmp_path: Path) -> None:
    """Sorted, filtered, with semicolons, other case and another order of columns: joined by key."""
    review = job.review(n=50, by="answer", seed=11)
    rows = sheet(review.to_csv(tmp_path / "r.csv"))
    assert "answer" not in rows[0]  # blind
    own = review.draw.to_pydict()
    truth = dict(zip(own["key_0"], own["stratum"], strict=True))
    for row in rows:
        row["correct"] = f" {truth[row['sku']].upper()}"
    rows[0]["correct"] = "Toys" if truth[rows[0]["sku"]] != "Toys" else "Garden"
    rows[1] |= {"correct": "", "verdict": "Unsure"}
    kept = sorted(rows[:-5], key=lambda row: row["sku"], reverse=True)
    kept = [dict(reversed(row.items())) for row in kept]

    back = job.add_review(write(tmp_path / "back.csv", kept, ";"), reviewer="ada")
    again = job.add_review(tmp_path / "back.csv", reviewer="ada")

    assert (len(back), back.reviewed, again.reviewed) == (50, 45, 45)
    found = reviewed_fields(job.answers_to_judge(), back)["llmbatch"]
    assert pd.Series(found.verdicts).value_counts().to_dict() == {
        "right": 43, "wrong": 1, "unsure": 1,
    }  # fmt: skip
    assert found.reviewer is not None
    assert set(found.reviewer) == {"ada"}
    assert (found.design.drawn, found.design.usable) == (Drawn.STRATIFIED, 367)
    assert dict(found.design.strata) == COUNTS
    assert found.design.notes == ("5 of the drawn rows are not reviewed yet",)
    assert (
        Path(review.path, "verdicts-0001.csv").read_bytes() == (tmp_path / "back.csv").read_bytes()
    )


@pytest.mark.parametrize(
    ("change", "row", "column", "said"),
    [
        ({"sku": "T-9999"}, 3, "sku", "is not a key of this review"),
        ({"correct": "Kichen"}, 3, "correct", "Did you mean 'Kitchen'"),
        ({"verdict": "perhaps"}, 3, "verdict", "right, wrong or unsure"),
        ({"field": "colour", "correct": "Toys"}, 3, "field", "is not a field of this job"),
        ({"review": "0123456789ab"}, 3, "review", "is another review"),
        ({"correct": "Toys", "verdict": "right"}, 3, "verdict", "Clear one of the two"),
    ],
)
def test_what_does_not_fit_is_refused_by_row_and_column(
    job: Job, tmp_path: Path, change: dict[str, str], row: int, column: str, said: str
) -> None:
    """Nothing of such a sheet is taken; the message names what the spreadsheet shows."""
    review = job.review(n=40, seed=21)
    rows = [{**each, "field": ""} for each in sheet(review.to_csv(tmp_path / "r.csv"))]
    answers = job.collect().set_index("sku")["llmbatch"]
    rows = [each for each in rows if answers[each["sku"]] != "Toys"][:5]
    rows[0]["correct"] = "Garden"
    rows[1] |= change

    with pytest.raises(InputError, match=said) as caught:
        job.add_review(write(tmp_path / "bad.csv", rows))

    assert (vars(caught.value)["row"], vars(caught.value)["column"]) == (row, column)
    assert not list(Path(review.path).glob("verdicts*"))


def test_one_reviewer_has_one_verdict_a_row(job: Job, tmp_path: Path) -> None:
    """Two in a sheet, or another one in a later sheet, are refused; a second reviewer's is not."""
    review = job.review(n=40, seed=22)
    rows = [{**each, "correct": "Toys"} for each in sheet(review.to_csv(tmp_path / "r.csv"))[:3]]
    changed = [{**rows[0], "correct": "Garden"}]

    with pytest.raises(InputError, match=r"row 5, column 'verdict'.*in row 2 already"):
        job.add_review(write(tmp_path / "twice.csv", [*rows, *changed]))
    job.add_review(write(tmp_path / "one.csv", rows), reviewer="ada")
    with pytest.raises(InputError, match=r"judged the row 'T-.*' differently"):
        job.add_review(write(tmp_path / "changed.csv", changed), reviewer="ada")
    both = job.add_review(tmp_path / "changed.csv", reviewer="bob")

    assert both.verdicts["reviewer"].value_counts().to_dict() == {"ada": 3, "bob": 1}


def test_a_sheet_of_another_job_and_an_empty_one_are_refused(job: Job, tmp_path: Path) -> None:
    """The keys may well be the same; the review's id is not."""
    frame, labels = goods(COUNTS)
    other = answered(frame, labels, tmp_path, "Sort {{ title }}", labels=LABELS)
    path = other.review(n=10).to_csv(tmp_path / "r.csv")

    with pytest.raises(InputError, match="the sheet is of another job"):
        job.add_review(path)
    with pytest.raises(InputError, match="has no verdicts in it"):
        other.add_review(path)
    with pytest.raises(InputError, match="cannot be read"):
        job.add_review(tmp_path / "absent.csv")
    with pytest.raises(InputError, match="has been reviewed"):
        reviewed_fields(answered(frame, labels, tmp_path / "new", labels=LABELS).answers_to_judge())


def test_several_fields_have_a_row_each(tmp_path: Path) -> None:
    """Numbers that a spreadsheet retyped are read, texts are judged by verdict, all by key."""
    frame = pd.DataFrame({"title": ["mug", "=1+1", "hose"], "note": [7, 8, 9]})
    answers = [{"size": i, "new": i > 1, "words": f"word {i}"} for i in range(3)]
    schema = {"size": int, "new": bool, "words": str}
    job = answered(frame, answers, tmp_path, "{{ title }}", response_model=schema, key="note")
    review = job.review(n=3)
    rows = sheet(review.to_csv(tmp_path / "r.csv"))
    assert [row["field"] for row in rows[:3]] == ["size", "new", "words"]
    assert {row["prompt"] for row in rows} == {"mug", "'=1+1", "hose"}
    assert all((row["answer"] == "") == (row["field"] == "new") for row in rows)
    for row in rows:
        row["key note"] += ".0"
        correct = {"size": "1.0", "new": "TRUE", "words": ""}[row["field"]]
        row |= {"correct": correct, "verdict": "" if correct else "wrong"}

    found = reviewed_fields(job.add_review(write(tmp_path / "b.csv", rows)).job)

    verdicts = {name: sorted(map(str, each.verdicts)) for name, each in found.items()}
    assert verdicts == {
        "size": ["right", "wrong", "wrong"],
        "new": ["right", "wrong", "wrong"],
        "words": ["wrong", "wrong", "wrong"],
    }


# --- answers that change ------------------------------------------------------------------------


def test_rows_with_a_newer_answer_leave_the_review_and_are_drawn_anew(tmp_path: Path) -> None:
    """A review of answers that a later round replaced says so; a top-up takes their like."""
    frame, labels = goods({"Kitchen": 60, "Garden": 30})
    job = answered(frame, labels, tmp_path, labels=LABELS)
    review = job.review(n=40, by="answer")
    changed = review.positions[:4].tolist()
    ids = job.collect(usage=True)["llmbatch_custom_id"]

    newer = ["Garden" if labels[i] == "Kitchen" else "Kitchen" for i in changed]
    path = tmp_path / "newer.jsonl"
    lines = (tmp_path / "responses.jsonl").read_text().splitlines()
    own = {ids[i]: response(ids[i], label) for i, label in zip(changed, newer, strict=True)}
    path.write_text(
        "\n".join(own.get(json.loads(line)["custom_id"], line) for line in lines) + "\n"
    )
    job.withdraw_import()
    job.import_responses(path)

    now = job.review(n=5, extend=review)
    stale = job.answers_to_judge()

    old = open_review(stale, review.id)

    assert int(old.replaced.sum()) == 4
    assert "4 of its rows have another answer since" in repr(old)
    assert not set(now.positions.tolist()) & set(old.positions[~old.replaced].tolist())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 0}, "n=0 rows"),
        ({"n": True}, "n= is True, which is not a whole number"),
        ({"n": 5, "by": "colour"}, "is not a field with labels"),
        ({"n": 5, "extend": "ffffffffffff"}, "has no review"),
        ({"n": 5, "extend": "../../etc"}, "has no review"),
    ],
)
def test_a_draw_that_cannot_be_made_is_refused(
    job: Job, options: dict[str, Any], said: str
) -> None:
    """Before anything is written."""
    with pytest.raises((InputError, ParameterError), match=said):
        job.review(**options)


def test_a_review_that_is_named_must_be_there_in_a_job_without_reviews_too(tmp_path: Path) -> None:
    """A top-up of nothing would be a new draw under the name of an old one."""
    frame, labels = goods({"Kitchen": 30, "Toys": 10})
    job = answered(frame, labels, tmp_path, labels=LABELS)

    with pytest.raises(InputError, match=r"has no review 'ffffffffffff'\. .*none"):
        job.review(n=5, extend="ffffffffffff")
    with pytest.raises(InputError, match=r"has no review 'ffffffffffff'"):
        job.evaluate(review="ffffffffffff")
    assert not list(tmp_path.rglob("draw.parquet"))


def test_a_job_that_runs_or_has_no_usable_row_cannot_be_reviewed(tmp_path: Path) -> None:
    """Rows that come later could not be drawn, so the draw would be no sample of them."""
    frame, _ = goods({"Kitchen": 3})
    running = frame.llmbatch.submit("{{ title }}", "m", provider="file", store=tmp_path)

    with pytest.raises(InputError, match=r"3 rows of the job .* are still pending"):
        frame.llmbatch.review(running, n=2)
    broken = answered(frame, ["x", "y", "z"], tmp_path / "b", labels=LABELS)
    with pytest.raises(InputError, match="no usable row"):
        broken.review(n=2)
    few = answered(frame, ["Toys"] * 3, tmp_path / "c", labels=LABELS)
    assert len(few.review(n=100)) == 3
    with pytest.raises(InputError, match="are drawn already"):
        few.review(n=1, extend=few.review(n=100))


# --- the command line ---------------------------------------------------------------------------


def test_the_command_line_draws_and_takes_back(job: Job, tmp_path: Path) -> None:
    """A page or a sheet by the file's ending; what does not fit is one line and exit code 2."""
    store = ["--store", str(Path(job.path).parent)]
    run = CliRunner().invoke
    out = tmp_path / "cli.csv"

    page = run(app, ["review", job.id, str(tmp_path / "r.html"), "--n", "20", *store])
    drawn = run(app, ["review", job.id, str(out), "--n", "20", "--seed", "5", "--json", *store])
    empty = run(app, ["add-review", job.id, str(out), *store])
    rows = [{**row, "correct": "Toys"} for row in sheet(out)]
    added = run(app, ["add-review", job.id, str(write(out, rows)), "--json", *store])
    wrong = run(app, ["review", job.id, str(tmp_path / "r.pdf"), *store])

    assert (page.exit_code, (tmp_path / "r.html").exists()) == (0, True)
    assert f"frameenrich add-review {job.id}" in page.stderr
    assert json.loads(drawn.stdout)["rows"] == 20
    assert json.loads(added.stdout)["reviewed"] == 20
    assert (empty.exit_code, wrong.exit_code) == (2, 2)
    assert "no verdicts in it" in empty.stderr
    assert "review.html" in wrong.stderr


@pytest.mark.parametrize("by", [None, "answer"])
def test_the_report_says_what_evaluate_says(
    by: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two reviewers' rows count by majority in both; without SciPy the same share has no bounds."""
    frame, labels = goods({"Kitchen": 60, "Garden": 40})
    job = answered(frame, labels, tmp_path, labels=LABELS)
    rows = sheet(job.review(n=30, by=by).to_csv(tmp_path / "sheet.csv", blind=False))
    for i, row in enumerate(rows):
        row["verdict"] = "wrong" if i % 3 == 0 else "right"
    job.add_review(write(tmp_path / "one.csv", rows), reviewer="Ann")
    for row in rows[:4]:
        row["verdict"] = "wrong"
    job.add_review(write(tmp_path / "two.csv", rows[:4]), reviewer="Bob")
    wanted = job.evaluate().accuracy

    (shown,) = rights(job.answers_to_judge())
    assert (shown.share, shown.about[:11]) == (str(wanted), f"{wanted.n} reviewed")
    monkeypatch.setattr("frameenrich.evaluation.intervals.importlib.import_module", no_scipy)
    (bare,) = rights(job.answers_to_judge())
    assert bare.share == str(replace(wanted, low=math.nan, high=math.nan))
    assert "no bounds: pip install" in bare.about


def no_scipy(name: str) -> object:
    """Fail as an import of what is not installed does."""
    raise ImportError(name)
