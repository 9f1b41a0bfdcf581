"""Take filled-in sheets, and pass their judgements to the statistics."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from frameenrich.errors import InputError
from frameenrich.evaluation.draw import first_review
from frameenrich.evaluation.job_answers import JobAnswers, own_message
from frameenrich.evaluation.make_review import field_of, strata_of
from frameenrich.evaluation.open_review import open_review, reviews, with_top_ups
from frameenrich.evaluation.review import Review
from frameenrich.evaluation.review_files import SheetRecord, kept_sheets
from frameenrich.evaluation.reviewed import Design, Drawn, Reviewed
from frameenrich.evaluation.sheet import Judgement, parse_sheet
from frameenrich.identity.keys import show_key


def add_sheet(job: JobAnswers, path: str | os.PathLike[str], reviewer: str = "") -> Review:
    """Check a filled-in sheet and keep it as it came.

    Raises
    ------
    InputError
        It cannot be read, is of another job or review, or some row of it does not fit.
    """
    name = os.path.basename(os.fspath(path))
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"The sheet {path} cannot be read: {error.strerror}.", "Give another file."
        ) from None
    table = parse_sheet(data, name)
    review = open_review(job, _review_of(job, table, name))
    judgements = review._reader(name).read(table, reviewer)  # noqa: SLF001 - of this folder
    if not judgements:
        raise InputError(
            f"The sheet {name} has no verdicts in it.",
            "Fill in 'correct' or 'verdict' of some rows; empty rows are not yet reviewed.",
        )
    with job.folder.lock():
        # Under the lock: two sheets added at once must not get the same number.
        kept = kept_sheets(job.folder, review.id)
        # A notebook cell that is run twice adds its sheet once.
        if not any((data, reviewer) == (old, said.reviewer) for _, old, said in kept):
            _refuse_changed(review, judgements, name)
            stem = f"{review.path}/verdicts-{len(kept) + 1:04}"
            said = SheetRecord(reviewer, time.time())
            with job.folder.store.write_whole(f"{stem}.json") as file:
                file.write(json.dumps(asdict(said)).encode())
            with job.folder.store.write_whole(f"{stem}.csv") as file:
                file.write(data)  # last: sheets are found by their .csv, which needs its .json
    return Review(job, review.record, review.draw)


def _review_of(job: JobAnswers, table: pd.DataFrame, name: str) -> str:
    """Return the id of the review that a sheet's first row names."""
    said = table["review"].tolist() if "review" in table.columns else []
    first: str | None = next((each.strip() for each in said if each.strip()), None)
    known = [review.id for review in reviews(job)]
    if first is None:
        raise InputError(
            f"The sheet {name} does not say which review it is of: its column 'review' is "
            "missing or empty.",
            "Fill in the sheet that Review.to_csv or the page's Save wrote.",
        )
    if first not in known:
        raise InputError(
            f"{name}, row {table.index[0]}, column 'review': the job {job.folder.id} has no review "
            f"{first!r}; the sheet is of another job.",
            f"The reviews of this job are: {', '.join(known) or 'none'}.",
            row=int(table.index[0]),
            column="review",
        )
    return first


def _refuse_changed(review: Review, judgements: list[Judgement], name: str) -> None:
    """Refuse a verdict that contradicts the same reviewer's earlier sheet."""
    # Two people may disagree, which is measured; one person's sheets may not, or the last would
    # win.
    before = {(j.row, j.field, j.reviewer): j for j in review.judgements}
    for new in judgements:
        old = before.get((new.row, new.field, new.reviewer))
        if old is not None and (old.verdict, old.correct) != (new.verdict, new.correct):
            who = new.reviewer or "The same reviewer"
            raise InputError(
                f"{name}, row {new.sheet_row}, column 'verdict': {who} judged the row "
                f"{show_key(review.keys, new.row)} differently in an earlier sheet.",
                "Added verdicts never change: give this sheet another reviewer's name "
                "(reviewer='second look').",
                row=new.sheet_row,
                column="verdict",
            )


def reviewed_fields(job: JobAnswers, review: Review | str | None = None) -> dict[str, Reviewed]:
    """Return the judged rows of each field, from one review with its top-ups.

    Parameters
    ----------
    job : JobAnswers
        The job's answers as they are now.
    review : Review or str, optional
        The newest one by default.

    Raises
    ------
    InputError
        The job has no review.
    """
    chain = with_top_ups(job, review)
    if not chain:
        n = first_review(len(job.fresh))
        raise InputError(
            f"No row of the job {job.folder.id} has been reviewed.",
            f"Draw some, judge them and add the sheet: df.llmbatch.review(job, n={n}), "
            "job.add_review('review.csv').",
        )
    design = _design(job, chain)
    found = {}
    for name in job.fields:
        rows = [
            (each, judged)
            for each in chain
            for judged in each.judgements
            if judged.field == name
            and not each.replaced[judged.row]
            and not job.spent[each.positions[judged.row]]
        ]
        # A field that nobody judged has no figure, and must not look like one that is never right.
        if rows:
            found[name] = _reviewed(job, name, design, rows)
    return found


def _design(job: JobAnswers, chain: list[Review]) -> Design:
    by = field_of(job, chain[0].record.by)
    strata, _ = strata_of(job, by, chain[0].record.n, chain)
    # Strata as they are now, not at the draw: weights have to add up to the rows that can count
    # today.
    names, counts = np.unique(np.array(strata, object), return_counts=True)
    labelled = [name for name, field in job.fields.items() if field.labels]
    scores = {name: job.scores(name, job.usable) for name in job.fields}
    judged = sum(each.reviewed for each in chain)
    left = sum(map(len, chain)) - judged
    gone = sum(int(each.replaced.sum()) for each in chain)
    spent = sum(int(job.spent[each.positions].sum()) for each in chain)
    notes = [
        *([f"{left:,} of the drawn rows are not reviewed yet"] if left else []),
        *([f"{gone:,} drawn rows are left out: their answers were replaced since"] if gone else []),
        *([f"{spent:,} drawn rows are left out: they are spent"] if spent else []),
        *job.spent_notes,
    ]
    return Design(
        drawn=Drawn.SIMPLE if by is None else Drawn.STRATIFIED,
        usable=len(job.usable),
        spent=len(job.usable) - len(job.fresh),
        flagged=job.flagged,
        strata={str(n): int(count) for n, count in zip(names, counts, strict=True)},
        answer_counts={
            name: pd.Series(job.values(name, job.usable), dtype=object).value_counts().to_dict()
            for name in labelled
        },
        scores={name: own for name, own in scores.items() if own is not None},
        notes=tuple(notes),
    )


def _reviewed(
    job: JobAnswers, name: str, design: Design, rows: list[tuple[Review, Judgement]]
) -> Reviewed:
    positions = np.array([review.positions[j.row] for review, j in rows], np.int64)
    strata = [review.draw["stratum"][j.row].as_py() for review, j in rows]
    # Replaced and spent rows left the draw, so the others stand for the whole stratum.
    drawn = pd.Series(
        [stratum for review in {r.id: r for r, _ in rows}.values() for stratum in
         review.draw["stratum"].filter(pa.array(review.counts)).to_pylist()]
    ).value_counts()  # fmt: skip
    probability = [min(1.0, drawn[s] / design.strata.get(s, drawn[s])) for s in strata]
    prompts = {p: own_message(q) for p, q in zip(positions, job.prompts(positions), strict=True)}
    return Reviewed(
        field=name,
        design=design,
        rows=positions,
        answers=_objects(job.values(name, positions)),
        truths=_objects([j.correct for _, j in rows]),
        verdicts=_objects([j.verdict for _, j in rows]),
        labels=job.fields[name].labels,
        stratum=_objects(strata),
        inclusion_probability=np.array(probability, float),
        reviewer=_objects([j.reviewer for _, j in rows]),
        score=job.scores(name, positions),
        keys=job.frame.iloc[positions, : len(job.folder.key_names)].reset_index(drop=True),
        prompts=_objects([prompts[p] for p in positions]),
    )


def _objects(values: list[Any]) -> npt.NDArray[np.object_]:
    """Return an array of any values; NumPy would unpack lists of one length."""
    cells = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        cells[i] = value
    return cells
