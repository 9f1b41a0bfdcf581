"""Scores that a classifier learns from reviewed rows, where nothing else tells how sure one is."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reviews import answered

from frameenrich.errors import FrameEnrichWarning, InputError
from frameenrich.evaluation.learned_scores import FOLDS, cross_fit
from frameenrich.verbs.job import Job

pytest.importorskip("wordllama")
WORDS = ["sofa", "table", "lamp", "chair", "shelf", "mirror"]


def job_of(store: Path, count: int = 240) -> tuple[pd.DataFrame, Job]:
    """Return rows about furniture, of which every third is second-hand, and their answers."""
    titles = [
        f"{'Vintage second-hand' if i % 3 == 0 else 'Brand new'} {WORDS[i % 6]} {i}"
        for i in range(count)
    ]
    index = pd.Index([f"T-{i:03}" for i in range(count)], name="sku")
    frame = pd.DataFrame({"title": titles}, index=index)
    return frame, answered(frame, ["shop"] * count, store, "Who sells {{ title }}?")


def judge(job: Job, folder: Path, right: Callable[[int], bool], n: int) -> None:
    """Review rows; whether the answer is right depends on the row's number."""
    path = job.review(n=n).to_csv(folder / "sheet.csv")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            said = "right" if right(int(row["sku"][2:])) else "wrong"
            writer.writerow(row | {"verdict": said})
    job.add_review(path)


def test_a_classifier_scores_rows_that_nothing_else_does(tmp_path: Path) -> None:
    """Promise 11: answers to second-hand things are wrong; the sure rows are the new ones."""
    frame, job = job_of(tmp_path)
    judge(job, tmp_path, lambda i: i % 3 > 0 or i % 5 == 0, n=150)

    check = job.evaluate()
    out = job.collect(frame, accept=0.9)

    source = job.answers_to_judge().score_sources["llmbatch"]
    assert source == "a classifier, learned from 150 reviewed rows"
    assert check.calibration is not None
    assert check.calibration.auroc > 0.85
    kept = out["llmbatch_accept"].to_numpy(dtype=bool).nonzero()[0]
    assert len(kept) > 140
    assert sum(i % 3 > 0 for i in kept) / len(kept) > 0.9
    assert out["llmbatch_score"].between(0, 1).all()


def _new_but(odd: int) -> Callable[[int], bool]:
    """Return a judge to whom new things are right, but for one of the rows."""
    return lambda i: (i % 3 > 0) != (i == odd)


def test_no_row_teaches_its_own_verdict(tmp_path: Path) -> None:
    """Promise 11: the other verdict on a row, and on rows of its text, leaves its score alone."""
    scores = []
    for name, odd in (("one", -1), ("other", 7)):
        (tmp_path / name).mkdir()
        _, job = job_of(tmp_path / name, 120)
        judge(job, tmp_path / name, _new_but(odd), n=120)
        found = job.answers_to_judge()
        column = found.scores("llmbatch", found.usable)
        assert column is not None
        scores.append(column)

    assert scores[0][7] == scores[1][7]
    assert (scores[0] != scores[1]).sum() > 60


@pytest.mark.parametrize(
    ("n", "right"),
    [(40, lambda i: i % 3 > 0), (120, lambda i: i > 3), (120, lambda _: True)],
    ids=["few rows", "few wrong ones", "none wrong"],
)
def test_too_few_rows_teach_nothing(tmp_path: Path, n: int, right: Callable[[int], bool]) -> None:
    """No number where there is none: from too few rows no score is made, and it is said."""
    frame, job = job_of(tmp_path, 150)
    judge(job, tmp_path, right, n=n)

    assert job.answers_to_judge().score_sources == {}
    with pytest.raises(InputError, match="from 50 reviewed rows on"):
        job.collect(frame, accept=0.9)


def test_without_the_extra_there_is_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain installation evaluates as before: the classifier is for those who have it."""
    frame, job = job_of(tmp_path, 120)
    judge(job, tmp_path, lambda i: i % 3 > 0, n=100)
    monkeypatch.setitem(sys.modules, "wordllama", None)

    assert job.evaluate().calibration is None
    with pytest.raises(InputError, match=r"frameenrich\[embed\]"):
        job.collect(frame, accept=0.9)


def test_the_classifier_is_a_logistic_regression_with_a_ridge() -> None:
    """The oracle is scikit-learn's, on rows that stand for unequal numbers of others."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    features = random.normal(size=(80, 5))
    right = (random.random(80) < 1 / (1 + np.exp(-features[:, 0] - 1))).astype(float)
    weights, folds = random.uniform(0.5, 2, 80), np.arange(80) % FOLDS
    made = cross_fit(features, right, weights, folds)

    assert made is not None
    for fold, own in enumerate(made):
        others = folds != fold
        oracle = linear_model.LogisticRegression(C=1.0, tol=1e-10, max_iter=1000)
        own_weights = weights[others] / weights[others].mean()
        oracle.fit(features[others], right[others], sample_weight=own_weights)
        assert own == pytest.approx([*oracle.coef_[0], *oracle.intercept_], abs=1e-4)


def test_scores_that_tell_nothing_accept_no_row(tmp_path: Path) -> None:
    """A score that promises nothing accepts no row, and says so."""
    frame, job = job_of(tmp_path, 120)
    judge(job, tmp_path, lambda i: bool(i * 2654435761 >> 9 & 1), n=100)  # which no text tells

    with pytest.warns(FrameEnrichWarning, match="No row is accepted"):
        assert not job.collect(frame, accept=0.95)["llmbatch_accept"].any()
