"""Spent rows: what the prompt was made of counts in no draw and no evaluation of its job."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pandas as pd
import pytest
from reviews import LABELS, answered, goods

from frameenrich.errors import InputError
from frameenrich.evaluation.review import Review
from frameenrich.verbs.job import Job

TRUE = "Kitchen"


def judged(job: Job, review: Review, folder: Path, correct: str = TRUE) -> None:
    """Fill in a review's sheet with one label, and add it."""
    path = review.to_csv(folder / "sheet.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([row | {"correct": correct} for row in rows])
    job.add_review(path)


def first_job(store: Path) -> tuple[pd.DataFrame, list[str], Job]:
    """Return 60 rows, their answers, and their job."""
    frame, labels = goods({"Kitchen": 40, "Garden": 20})
    return frame, labels, answered(frame, labels, store, labels=LABELS)


def test_rows_shown_as_examples_are_neither_drawn_nor_counted(store: Path) -> None:
    """`examples=` of a frame: those rows leave draws, truth columns and the population."""
    frame, labels = goods({"Kitchen": 40, "Garden": 20})
    shown = frame.head(12).assign(answer=labels[:12])
    job = answered(frame, labels, store, labels=LABELS, examples=shown)

    drawn = job.review(n=60)
    check = job.evaluate(frame.assign(truth=labels), truth="truth")

    assert len(drawn) == 48
    assert set(drawn.positions.tolist()) == set(range(12, 60))
    assert (check.accuracy.n, check.accuracy.bounded) == (48, True)
    assert "12 rows are spent: the prompt shows them as examples." in check.notes


def test_a_review_gives_examples_and_is_spent_for_a_new_prompt(store: Path, tmp_path: Path) -> None:
    """`examples=review`: 12 judged rows are shown, and the new job's draw knows 48 fresh ones."""
    frame, labels, job = first_job(store)
    review = job.review(n=12)
    judged(job, review, tmp_path)
    reviewed = job.add_review(tmp_path / "sheet.csv")

    better = answered(
        frame, labels, store, "The department of {{ title }}", labels=LABELS, examples=reviewed
    )

    assert len(better.spec.examples) == 12
    assert [m.role for m in better.spec.messages].count("assistant") == 12
    assert not set(better.review(n=60).positions.tolist()) & set(review.positions.tolist())


def test_rows_reviewed_before_the_prompt_was_written_are_spent(store: Path, tmp_path: Path) -> None:
    """A prompt mended after a review is not tested by its rows; the same prompt elsewhere is."""
    frame, labels, job = first_job(store)
    review = job.review(n=20)
    judged(job, review, tmp_path)

    mended = answered(frame, labels, store, "Sort {{ title }} well", labels=LABELS)
    draw = mended.review(n=60)
    other_model = frame.llmbatch.submit(
        "Where is {{ title }}?", "other", labels=LABELS, provider="file", store=store
    )

    assert len(draw) == 40
    assert not set(draw.positions.tolist()) & set(review.positions.tolist())
    judged(mended, draw, tmp_path)
    check = mended.evaluate()
    assert check.accuracy.n == 40
    assert any("20 rows are spent: they were reviewed before this prompt" in n for n in check.notes)
    assert not other_model.answers_to_judge().spent.any()
    assert not job.answers_to_judge().spent.any()


def test_verdicts_given_after_the_prompt_was_written_do_not_spend(
    store: Path, tmp_path: Path
) -> None:
    """A review of the old job that is filled in later tells nothing to the new prompt."""
    frame, labels, job = first_job(store)
    review = job.review(n=20)
    mended = answered(frame, labels, store, "Sort {{ title }} well", labels=LABELS)
    judged(job, review, tmp_path)

    assert len(mended.review(n=60)) == 60


def test_words_for_the_answers_form_change_no_spent_row(store: Path) -> None:
    """Where the schema stands in the prompt, rows that are shown as examples are known, too."""
    frame, labels = goods({"Kitchen": 10, "Garden": 10})
    shown = frame.head(4).assign(answer=labels[:4])
    job = answered(frame, labels, store, labels=LABELS, examples=shown, json_mode="object")

    assert job.answers_to_judge().spent.tolist() == [True] * 4 + [False] * 16


def test_when_all_rows_are_spent_it_is_said(store: Path, tmp_path: Path) -> None:
    """No number where there is none: the sentence says why, and what to do."""
    frame, labels, job = first_job(store)
    judged(job, job.review(n=60), tmp_path)
    mended = answered(frame, labels, store, "Sort {{ title }} well", labels=LABELS)

    with pytest.raises(InputError, match=r"All 60 usable rows .* are spent: 60 rows"):
        mended.review(n=10)
    with pytest.raises(InputError, match="Every row with a truth in 'truth' is spent"):
        mended.evaluate(frame.assign(truth=labels), truth="truth")


def test_a_review_without_answers_gives_no_examples(store: Path, tmp_path: Path) -> None:
    """Promise 9: nothing judged, and rows that the frame lacks, are named."""
    frame, _, job = first_job(store)
    review = job.review(n=12)
    options = {"labels": LABELS, "provider": "file", "store": store}

    with pytest.raises(InputError, match="has no row whose right answer is known"):
        frame.llmbatch.submit("Sort {{ title }}", "m", examples=review, **options)
    judged(job, review, tmp_path)
    reviewed = job.add_review(os.fspath(tmp_path / "sheet.csv"))
    with pytest.raises(InputError, match=r"rows that were judged .* are not in this"):
        frame.head(3).llmbatch.submit("Sort {{ title }}", "m", examples=reviewed, **options)
