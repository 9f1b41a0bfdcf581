"""Evaluations of jobs: by a truth column, by several reviewers, and of what cannot be evaluated."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reviews import LABELS, answered, goods

from frameenrich.errors import InputError, ParameterError
from frameenrich.evaluation.evaluate import Evaluation, evaluate_fields
from frameenrich.evaluation.reviewed import Design, Drawn, Reviewed, Verdict
from frameenrich.verbs.job import Job

COUNTS = {"Kitchen": 60, "Garden": 30, "Toys": 10}


@pytest.fixture
def goods_job(store: Path) -> tuple[pd.DataFrame, Job]:
    """Return a frame whose truth differs from each fifth answer, and its job."""
    frame, labels = goods(COUNTS)
    store.mkdir()
    job = answered(frame, labels, store, labels=LABELS)
    truths = ["Garden" if i % 5 == 0 else label for i, label in enumerate(labels)]
    return frame.assign(truth=truths), job


def judged(right: int, wrong: int, **changes: Any) -> dict[str, Reviewed]:
    """Return a simple review of two labels, so many answers right and so many wrong."""
    n = right + wrong
    answers = np.array(["a", "b"] * n, object)[:n]
    truths = answers.copy()
    truths[right:] = np.where(answers[right:] == "a", "b", "a")
    verdicts = np.array([Verdict.RIGHT] * right + [Verdict.WRONG] * wrong, object)
    counts = {"field": {"a": 500, "b": 500}}
    design = Design(Drawn.SIMPLE, 1000, 50, {"": 1000}, counts)
    made = Reviewed(
        "field", design, np.arange(n), answers, truths, verdicts, ("a", "b"),
        score=np.linspace(1, 0.3, n),
    )  # fmt: skip
    return {"field": replace(made, **changes)}


def test_whole_truth_column(goods_job: tuple[pd.DataFrame, Job]) -> None:
    """A truth column of every row gives accuracy with bounds, confusion and exact shares."""
    frame, job = goods_job
    shuffled = frame.sample(frac=1, random_state=3)
    truth, answers = frame["truth"], job.collect(frame)["llmbatch"].astype(str)
    made = shuffled.llmbatch.evaluate(job, truth="truth")

    assert made.accuracy.estimate == pytest.approx((truth == answers).mean())
    assert made.accuracy.low < made.accuracy.estimate < made.accuracy.high
    assert made.accuracy.method == "Wilson"
    assert made.shares is not None
    assert made.shares["corrected"].to_dict() == pytest.approx(
        {label: (truth == label).mean() for label in LABELS}
    )
    assert made.confusion is not None
    assert made.confusion.to_numpy().sum() == len(frame)
    assert len(made.disagreements) == (truth != answers).sum()
    assert "right" in str(made)
    assert job.evaluate(frame, truth="truth").to_dict() == made.to_dict()
    json.dumps(made.to_dict(), allow_nan=False)


def test_part_of_a_truth_column_is_agreement(goods_job: tuple[pd.DataFrame, Job]) -> None:
    """Rows that somebody picked give no bounds, and the sentence that says how to get some."""
    frame, job = goods_job
    part = frame.assign(truth=frame["truth"].where(np.arange(len(frame)) < 40))
    picked = part.llmbatch.evaluate(job, truth="truth")
    vouched = part.llmbatch.evaluate(job, truth="truth", drawn="random")

    assert not picked.accuracy.bounded
    assert "agreement" in picked.notes[0]
    assert not picked.threshold()
    assert picked.shares is not None
    assert picked.shares["low"].isna().all()
    assert vouched.accuracy.bounded
    assert picked.accuracy.estimate == vouched.accuracy.estimate


def test_labels_nobody_gave_are_listed_and_wrong(goods_job: tuple[pd.DataFrame, Job]) -> None:
    """A truth with other labels is compared: they are listed, and count as wrong."""
    frame, job = goods_job
    other = frame.assign(truth=["Attic", *frame["truth"].str.upper()[1:]])
    made = other.llmbatch.evaluate(job, truth="truth")

    assert made["llmbatch"].unknown_labels == ("Attic",)
    assert any("Attic" in note for note in made.notes)
    assert made.accuracy.estimate == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "No row of the job"),
        ({"truth": "nothing"}, "no column 'nothing'"),
        ({"truth": {"colour": "truth"}}, "no field 'colour'"),
        ({"truth": "empty"}, "has no value"),
        ({"truth": "truth", "drawn": "maybe"}, "drawn='maybe'"),
        ({"truth": "truth", "review": "abc"}, "Both review= and truth="),
        ({"tolerance": 1}, "truth columns"),
    ],
)
def test_bad_input(goods_job: tuple[pd.DataFrame, Job], options: Any, words: str) -> None:
    """What cannot be evaluated is said in a sentence that names the column, field or option."""
    frame, job = goods_job
    with pytest.raises(InputError, match=words):
        frame.assign(empty=None).llmbatch.evaluate(job, **options)


def test_running_job_is_refused(tmp_path: Path) -> None:
    """A job still running is told to wait for, not judged by what has come."""
    frame, labels = goods({"Kitchen": 3})
    job = frame.llmbatch.submit("{{ title }}?", "m", provider="file", store=tmp_path, labels=LABELS)
    with pytest.raises(InputError, match="pending"):
        frame.assign(truth=labels).llmbatch.evaluate(job, truth="truth")


def test_fields_numbers_and_text(tmp_path: Path) -> None:
    """Integers match exactly, numbers by tolerance, text by a callable; rows by all fields."""
    frame = pd.DataFrame({"title": list("abcd")})
    contents = [{"n": i, "kg": float(i), "tone": f"Word{i}"} for i in (1, 2, 3, 4)]
    fields = {"n": int, "kg": float, "tone": str}
    job = answered(frame, contents, tmp_path, response_model=fields)
    frame["n_true"], frame["kg_true"] = [1, 2, 3, 9], [1.0, 2.01, 3.5, 4.0]
    frame["tone_true"] = ["word1", "word2", "x", "word4"]
    made = frame.llmbatch.evaluate(
        job,
        truth={"n": "n_true", "kg": "kg_true", "tone": "tone_true"},
        tolerance=0.05,
        match=lambda answer, truth: str(answer).casefold() == str(truth).casefold(),
    )

    assert {name: each.estimate for name, each in made.fields.items()} == {
        "n": 0.75,
        "kg": 0.75,
        "tone": 0.75,
    }
    assert made.accuracy.estimate == 0.5
    edge = frame.assign(kg_true=[1.01, 1.99, 3.0, 4.0]).llmbatch.evaluate(
        job, truth={"kg": "kg_true"}, tolerance=0.01
    )
    assert edge["kg"].accuracy.estimate == 1.0  # both ends count, as people write them
    part = frame.assign(n_part=pd.array([1, None, None, 9], dtype="Int64"))
    mixed = part.llmbatch.evaluate(job, truth={"kg": "kg_true", "n": "n_part"}, tolerance=0)
    assert mixed["kg"].accuracy.bounded
    assert not mixed.accuracy.bounded  # rows that have both truths were picked
    with pytest.raises(ParameterError, match="match="):
        frame.llmbatch.evaluate(job, truth={"tone": "tone_true"})
    with pytest.raises(ParameterError, match="tolerance="):
        frame.llmbatch.evaluate(job, truth={"kg": "kg_true"})


@pytest.mark.parametrize(("right", "wrong"), [(100, 0), (0, 100), (2, 1), (87, 13)])
def test_every_figure_of_extreme_reviews(right: int, wrong: int) -> None:
    """All right, all wrong, three rows: every figure is there or says why not; it shows in HTML."""
    made = evaluate_fields("job-1", judged(right, wrong))

    assert made.accuracy.estimate == right / (right + wrong)
    assert made.accuracy.low <= made.accuracy.estimate <= made.accuracy.high
    assert made.accuracy_all.estimate == pytest.approx(made.accuracy.estimate * 1000 / 1050)
    json.dumps(made.to_dict(), allow_nan=False)
    assert str(made) in made._repr_html_()
    assert bool(made.threshold(precision=0.9)) == (right >= 87)


def test_reviewers_majority_and_order() -> None:
    """The majority of a row's reviewers counts, a tie does not; who comes first changes nothing."""
    rows = np.array([0, 0, 0, 1, 1, 2])
    verdicts = np.array(["right", "right", "wrong", "right", "wrong", "unsure"], object)
    answers, truths = np.array(["a"] * 6, object), np.array([None, None, "b", None, "b", None])
    base = judged(3, 3)["field"]

    def made(order: np.ndarray[Any, Any]) -> Evaluation:
        one = replace(
            base, rows=rows[order], verdicts=verdicts[order], answers=answers,
            truths=truths[order], reviewer=np.array(list("xyzxyx"), object)[order], score=None,
        )  # fmt: skip
        return evaluate_fields("job-1", {"field": one})

    one, other = made(np.arange(6)), made(np.array([5, 4, 3, 2, 1, 0]))
    assert one.accuracy.n == 1
    assert any("divided on 1 rows" in note for note in one.notes)
    assert any("1 unsure" in note for note in one.notes)
    assert one.alpha is not None
    assert not math.isnan(one.alpha)
    assert one.to_dict() == other.to_dict()


def test_review_by_answer_end_to_end(goods_job: tuple[pd.DataFrame, Job], tmp_path: Path) -> None:
    """A recorded stratified draw, its sheet filled in from the truth, gives its bounds."""
    frame, job = goods_job
    review = job.review(n=60, by="answer")
    sheet = pd.read_csv(review.to_csv(tmp_path / "review.csv"), dtype=str)
    key = sheet.columns[sheet.columns.str.contains("sku")][0]
    sheet["correct"] = sheet[key].map(frame["truth"])
    sheet.to_csv(tmp_path / "review.csv", index=False)
    job.add_review(tmp_path / "review.csv")
    made = frame.llmbatch.evaluate(job)

    answers = job.collect(frame)["llmbatch"].astype(str)
    assert made.accuracy.method == "stratified Wilson"
    assert made.accuracy.n == 60
    assert made.accuracy.low <= (frame["truth"] == answers).mean() <= made.accuracy.high


def test_text_in_answers_is_escaped() -> None:
    """A note or a label with markup is text in the notebook."""
    found = judged(30, 5)
    design = replace(found["field"].design, notes=("<script>x</script>",))
    made = evaluate_fields("job", {"field": replace(found["field"], design=design)})

    assert "<script>" not in made._repr_html_()
