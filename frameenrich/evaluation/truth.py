"""Truth columns: a frame's own values, which a job's answers are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.errors import InputError, ParameterError
from frameenrich.evaluation.answer_field import AnswerField
from frameenrich.evaluation.draw import first_review
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.reviewed import Design, Drawn, Integers, Objects, Reviewed, Verdict
from frameenrich.model import RowStatus

Match = Callable[[Any, Any], Any]


def truth_fields(
    job: JobAnswers,
    frame: pd.DataFrame,
    positions: Integers,
    truth: str | Mapping[str, str],
    *,
    tolerance: float | None = None,
    match: Match | None = None,
    drawn: str | None = None,
) -> dict[str, Reviewed]:
    """Compare a job's answers with truth columns.

    Parameters
    ----------
    job : JobAnswers
        The job's answers.
    frame : DataFrame
        Has the truth; a null is no truth.
    positions : array of int64
        The position in the job of each of the frame's rows; -1 where it has none.
    truth : str or mapping
        The column, or the column of each field.
    tolerance : float, optional
        How far numbers may be apart.
    match : callable, optional
        ``(answer, truth) -> bool`` for text, lists and objects.
    drawn : {"random"}, optional
        Vouches that a truth column of a part is of rows drawn at random.

    Raises
    ------
    InputError
        A column or field that is not there or cannot be compared, or rows pending still.
    """
    if drawn not in {None, "random"}:
        raise ParameterError(
            f"drawn={drawn!r} is unknown.", "Pass drawn='random', or leave it out."
        )
    pending = int(job.have(RowStatus.PENDING).sum())
    if pending:
        raise InputError(
            f"{pending:,} rows of the job {job.folder.id} are still pending.",
            "Wait for them: job.wait(), then evaluate.",
        )
    columns = _columns(job, truth)
    usable, fresh = np.isin(positions, job.usable), np.isin(positions, job.fresh)
    found = {}
    for name, column in columns.items():
        if column not in frame.columns:
            raise InputError(
                f"The frame has no column {column!r} for the truth of {name!r}.",
                f"It has {', '.join(map(str, frame.columns[:12]))}.",
            )
        known = usable & frame[column].notna().to_numpy()
        if not known.any():
            raise InputError(
                f"The column {column!r} has no value for a usable row of {job.folder.id}.",
                "Give the frame that was submitted, with its truth.",
            )
        # After the check above, which has another remedy than rows that are all spent.
        known &= fresh
        if not known.any():
            raise InputError(
                f"Every row with a truth in {column!r} is spent: {'; '.join(job.spent_notes)}.",
                "Evaluate on rows that did not help to write the prompt.",
            )
        found[name] = _compare(
            job, job.fields[name], positions[known], frame[column][known].tolist(),
            tolerance, match, drawn,
        )  # fmt: skip
    return found


def _columns(job: JobAnswers, truth: str | Mapping[str, str]) -> dict[str, str]:
    fields = list(job.fields)
    if isinstance(truth, str):
        if len(fields) != 1:
            raise ParameterError(
                f"truth={truth!r} does not say which field it is for: {', '.join(fields)}.",
                f"Pass truth={{{fields[0] if fields else 'field'!r}: {truth!r}}}.",
            )
        return {fields[0]: truth}
    for name in truth:
        if name not in fields:
            raise ParameterError(
                f"The job {job.folder.id} has no field {name!r}.", f"It has {', '.join(fields)}."
            )
    return dict(truth)


def _compare(
    job: JobAnswers,
    field: AnswerField,
    positions: Integers,
    values: list[Any],
    tolerance: float | None,
    match: Match | None,
    drawn: str | None,
) -> Reviewed:
    answers = job.values(field.name, positions)
    pairs = [
        _pair(field, answer, value, tolerance, match, len(job.usable))
        for answer, value in zip(answers, values, strict=True)
    ]
    # A truth for some rows only was chosen somehow: without a vouching it allows no interval.
    whole = len(np.unique(positions)) == len(job.fresh)
    part = Drawn.RANDOM if drawn else Drawn.PICKED
    scores = job.scores(field.name, job.usable)
    design = Design(
        drawn=Drawn.TRUTH if whole else part,
        usable=len(job.usable),
        flagged=job.flagged,
        spent=len(job.usable) - len(job.fresh),
        strata={"": len(job.fresh)},
        notes=tuple(job.spent_notes),
        answer_counts={
            field.name: pd.Series(job.values(field.name, job.usable), dtype=object)
            .value_counts()
            .to_dict()
        }
        if field.labels
        else {},
        scores={} if scores is None else {field.name: scores},
    )
    return Reviewed(
        field=field.name,
        design=design,
        rows=positions,
        answers=_objects(answers),
        truths=_objects([truth for truth, _ in pairs]),
        verdicts=_objects([Verdict.RIGHT if same else Verdict.WRONG for _, same in pairs]),
        labels=field.labels,
        score=job.scores(field.name, positions),
        keys=job.frame.iloc[positions, : len(job.folder.key_names)].reset_index(drop=True),
    )


def _pair(
    field: AnswerField,
    answer: Any,
    value: Any,
    tolerance: float | None,
    match: Match | None,
    rows: int,
) -> tuple[Any, bool]:
    """Return the truth in the field's own type, and whether the answer equals it."""
    numeric = field.kind == "integer" or (field.kind == "number" and tolerance is not None)
    if match is not None and field.labels is None and not numeric:
        return value, bool(match(answer, value))
    if field.kind in {"category", "boolean", "integer"} and tolerance is None:
        try:
            truth = field.parse(str(value))
        except ValueError:  # a label that nobody gave the job
            return str(value), False
        return truth, answer == truth
    if field.kind in {"integer", "number"}:
        if tolerance is None:
            raise ParameterError(
                f"The field {field.name!r} is a number, and no tolerance= says how near is right.",
                "Pass tolerance=0.01, say, or tolerance=0.",
            )
        try:
            truth = float(value)
        except (TypeError, ValueError):
            return value, False
        if answer is None:
            return value, False
        gap = abs(answer - truth)
        # 1.01 - 1 is a little more than 0.01 in doubles, and within 0.01 to people.
        return value, gap <= tolerance or math.isclose(gap, tolerance, rel_tol=1e-9)
    if field.kind in {"category", "boolean"}:
        return _pair(field, answer, value, None, match, rows)
    raise ParameterError(
        f"The field {field.name!r} is free text, and a right answer may be worded otherwise than "
        "the truth.",
        "Pass match=, such as lambda answer, truth: answer.casefold() == truth.casefold(), or "
        f"have people judge it: df.llmbatch.review(job, n={first_review(rows)}).",
    )


def _objects(values: list[Any]) -> Objects:
    # np.array() would make a 2-D array of lists of one length.
    cells = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        cells[position] = value
    return cells
