"""Reviews that say little or nothing: each has a clear sentence, or figures that are finite."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from reviews import LABELS, answered, goods

import frameenrich.dask
from frameenrich.errors import FrameMismatchError, InputError, ParameterError
from frameenrich.verbs.job import Job


def judge(job: Job, folder: Path, correct: Callable[[int, str], str], **drawing: Any) -> None:
    """Review rows of a job; `correct` says the right label of each, given its answer."""
    path = job.review(**drawing).to_csv(folder / "sheet.csv", blind=False)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for i, row in enumerate(rows):
            writer.writerow(row | {"correct": correct(i, row["answer"])})
    job.add_review(path)


@pytest.fixture
def job(store: Path) -> Job:
    """Return a job of 80 rows with three labels."""
    frame, labels = goods({"Kitchen": 40, "Garden": 30, "Toys": 10})
    return answered(frame, labels, store, labels=LABELS)


def figures(job: Job) -> dict[str, Any]:
    """Return an evaluation's figures, which all have to be shown without an error."""
    check = job.evaluate()
    assert str(check)
    assert repr(check)
    assert check._repr_html_()
    assert str(check.threshold())
    assert check.threshold()._repr_html_()
    assert check.accuracy._repr_html_()
    return check.to_dict()


def test_no_reviewed_rows(job: Job) -> None:
    """Without a draw, and with one that nobody judged, the next call is named."""
    with pytest.raises(InputError, match=r"has been reviewed.*df.llmbatch.review\(job, n=80\)"):
        job.evaluate()
    job.review(n=20)
    with pytest.raises(InputError, match=r"has been reviewed.*job.add_review\('review.csv'\)"):
        job.evaluate()


@pytest.mark.parametrize("right", [True, False])
def test_all_reviewed_rows_are_right_or_all_wrong(job: Job, tmp_path: Path, right: bool) -> None:
    """The bounds never close on 100 or 0 % of rows that were not all looked at."""
    other = {"Kitchen": "Garden", "Garden": "Toys", "Toys": "Kitchen"}
    judge(job, tmp_path, lambda _, own: own if right else other[own], n=30)
    made = figures(job)["accuracy"]

    assert made["estimate"] == float(right)
    assert made["low"] < 1
    assert made["high"] > 0
    assert (made["high"] == 1) if right else (made["low"] == 0)
    assert job.evaluate().shares is not None


def test_one_label_only(store: Path, tmp_path: Path) -> None:
    """A model that always says the same, and a truth that agrees: no division by nothing."""
    frame, labels = goods({"Kitchen": 50})
    job = answered(frame, labels, store, labels=LABELS)
    judge(job, tmp_path, lambda _, own: own, n=25, by="answer")
    made = figures(job)

    assert made["accuracy"]["estimate"] == 1
    shares = job.evaluate().shares
    assert shares is not None
    assert shares.loc["Kitchen", "counted"] == 1
    assert np.isfinite(shares[["corrected"]].to_numpy()).all()


def test_three_reviewed_rows(job: Job, tmp_path: Path) -> None:
    """So few rows give wide bounds and no threshold, and both say so."""
    judge(job, tmp_path, lambda _, own: own, n=3)
    made = figures(job)["accuracy"]

    assert made["n"] == 3
    assert made["low"] < 0.5
    threshold = job.evaluate().threshold()
    assert not threshold
    assert "no reviewed row has a score" in str(threshold)


@pytest.mark.slow
def test_four_hundred_labels(store: Path, tmp_path: Path) -> None:
    """Many labels are pooled for the draw, and each still has its line."""
    names = [f"label {i:03}" for i in range(400)]
    frame, labels = goods(dict.fromkeys(names, 3))
    job = answered(frame, labels, store, labels=names)
    judge(job, tmp_path, lambda i, own: names[(names.index(own) + (i % 9 == 0)) % 400], n=100,
          by="answer")  # fmt: skip
    made = figures(job)["accuracy"]
    check = job.evaluate()

    assert 0.75 < made["estimate"] < 0.97
    assert check.labels is not None
    assert len(check.labels) == 400
    assert (check.labels["note"] == "too few").any()
    assert check.shares is not None
    assert math.isclose(check.shares["counted"].sum(), 1)
    assert job.report(tmp_path / "report.html").exists()


def test_a_running_job(store: Path) -> None:
    """Pending rows could not be drawn, and could be the hard ones: nothing is said of the rest."""
    frame, _ = goods({"Kitchen": 5})
    running = frame.llmbatch.submit(
        "Where is {{ title }}?", "m", labels=LABELS, provider="file", store=store
    )
    with pytest.raises(InputError, match=r"5 rows of the job .* are still pending"):
        running.review(n=3)
    with pytest.raises(InputError, match=r"5 rows of the job .* are still pending"):
        running.evaluate(frame.assign(truth="Toys"), truth="truth")


def test_dask_frames_review_and_evaluate(job: Job, store: Path) -> None:
    """The draw is the pandas job's; a truth column of all partitions gives the same figure."""
    frame, labels = goods({"Kitchen": 40, "Garden": 30, "Toys": 10})
    whole = frame.assign(truth=[*labels[:70], *["Toys"] * 10], other=1)
    with dask.config.set(scheduler="synchronous", **{"dataframe.convert-string": False}):
        ddf = dd.from_pandas(whole.reset_index(), npartitions=3)
        drawn = ddf.set_index("sku").llmbatch.review(job, n=20)
        check = ddf.set_index("sku").llmbatch.evaluate(job, truth="truth", store=store)
        with pytest.raises(InputError, match="has no column 'nowhere'"):
            ddf.set_index("sku").llmbatch.evaluate(job, truth="nowhere")
        changed = ddf.assign(title="changed").set_index("sku")
        with pytest.raises(FrameMismatchError):
            changed.llmbatch.evaluate(job, truth="truth")

    assert drawn.id == job.review(n=20).id
    assert check.to_dict() == job.evaluate(whole, truth="truth").to_dict()
    assert check.accuracy.bounded


def test_tables_evaluate_their_truth(store: Path) -> None:
    """`frameenrich.llmbatch(table)` evaluates a column of an Arrow table as of a frame."""
    frame, labels = goods({"Kitchen": 8, "Garden": 4})
    rows = frame.reset_index()
    job = answered(rows, labels, store, labels=LABELS, key="sku")
    table = pa.Table.from_pandas(rows.assign(truth=labels), preserve_index=False)

    check = frameenrich.llmbatch(table).evaluate(job, truth="truth")
    assert (check.accuracy.estimate, check.accuracy.n) == (1.0, 12)
    assert isinstance(pd.DataFrame(check.shares), pd.DataFrame)


WRONG_SHEETS: list[tuple[Any, str]] = [
    (lambda _: b"PK\x03\x04 and so on", "is a workbook, not a CSV file. In the spreadsheet"),
    (lambda _: b"\xd0\xcf\x11\xe0 and so on", "is a workbook, not a CSV file"),
    (lambda s: s.drop(columns="sku"), "has no column 'sku'"),
    (lambda s: s.drop(columns="review"), "does not say which review it is of"),
    (lambda s: s.head(0), "does not say which review it is of"),
    (lambda s: s.assign(correct=""), "has no verdicts in it"),
    (lambda s: s.assign(verdict="yes"), "'yes' is not a verdict. Write right, wrong or unsure"),
    (lambda s: s.assign(correct="Kitchn"), "Did you mean 'Kitchen'"),
    (lambda s: pd.concat([s, s.head(1)]), "the same reviewer judged this row in row 2 already"),
    (lambda s: s.assign(sku="X"), "'X' is not a key of this review"),
]


@pytest.mark.parametrize(("change", "says"), WRONG_SHEETS)
def test_sheets_that_are_none(job: Job, tmp_path: Path, change: Any, says: str) -> None:
    """Promise 9: each sheet that cannot be used is refused in a sentence; none of it is kept."""
    path = job.review(n=10).to_csv(tmp_path / "sheet.csv")
    sheet = change(pd.read_csv(path, dtype=str).assign(correct="Kitchen"))
    data = sheet if isinstance(sheet, bytes) else sheet.to_csv(index=False).encode()
    path.write_bytes(data)

    with pytest.raises(InputError) as refused:
        job.add_review(path)
    assert says in str(refused.value)
    with pytest.raises(InputError, match=r"No row of the job .* has been reviewed"):
        job.evaluate()
    with pytest.raises(InputError, match=r"frame.to_csv\('review.csv', index=False\)"):
        job.add_review(pd.DataFrame())  # type: ignore[arg-type]  # what a notebook's user may try


@pytest.mark.parametrize(
    "write",
    [
        lambda s: s.to_csv(index=False, sep=";").encode("cp1252"),
        lambda s: s.to_csv(index=False, sep="\t").encode("utf-16"),
        lambda s: s.rename(columns={"correct": "Correct ", "verdict": "VERDICT"}).to_csv().encode(),
        lambda s: s.sample(frac=1, random_state=0).assign(mine="x").to_csv(index=False).encode(),
    ],
    ids=["semicolons", "Unicode text", "other capitals", "sorted, with a column more"],
)
def test_sheets_as_spreadsheets_write_them(job: Job, tmp_path: Path, write: Any) -> None:
    """What a spreadsheet does to a sheet changes no verdict; a newer draw hides none."""
    path = job.review(n=10).to_csv(tmp_path / "sheet.csv")
    path.write_bytes(write(pd.read_csv(path, dtype=str).assign(correct="Kitchen")))
    job.add_review(path)
    before = job.evaluate()
    job.review(n=5, seed=1)  # which nobody has judged yet

    assert before.accuracy.n == 10
    assert job.evaluate().to_dict() == before.to_dict()


@pytest.mark.parametrize("seed", ["a", 1.5, True, 2**63])
def test_seeds_that_are_none(job: Job, seed: Any) -> None:
    """Promise 9: a seed is a whole number, said before anything is drawn."""
    with pytest.raises(ParameterError, match="is not a whole number"):
        job.review(n=5, seed=seed)
