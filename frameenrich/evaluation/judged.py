"""One verdict for each reviewed row, in whatever order its reviewers judged."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from frameenrich.evaluation.reviewed import Floats, Reviewed, Verdict


@dataclass(frozen=True)
class Judged:
    """One field's reviewed rows, with one verdict each."""

    reviewed: Reviewed
    first: np.ndarray[Any, np.dtype[np.int64]]  # each row's first entry in `reviewed`
    right: Floats  # 1, 0, or NaN where unsure
    truths: tuple[Any, ...]
    split: int  # rows on which the reviewers were evenly divided
    own_scores: Floats | None = None  # where they are not the field's own

    @cached_property
    def sure(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Marks of the rows with a verdict."""
        return ~np.isnan(self.right)

    @cached_property
    def weights(self) -> Floats:
        """The number of rows of the job that each stands for."""
        drawn = self.reviewed.inclusion_probability
        return np.ones(len(self.first)) if drawn is None else 1 / drawn[self.first]

    @cached_property
    def scores(self) -> Floats:
        """Each row's score; NaN where unknown."""
        if self.own_scores is not None:
            return self.own_scores
        score = self.reviewed.score
        return np.full(len(self.first), np.nan) if score is None else score[self.first]


def judge(reviewed: Reviewed) -> Judged:
    """Give each row the verdict of most of its reviewers, or unsure where they are divided."""
    entries: dict[int, list[int]] = {}
    for entry, row in enumerate(reviewed.rows.tolist()):
        entries.setdefault(row, []).append(entry)
    at, right, truths, split = [], [], [], 0
    for row in sorted(entries):
        votes = Counter(reviewed.verdicts[entry] for entry in entries[row])
        margin = votes[Verdict.RIGHT] - votes[Verdict.WRONG]
        split += margin == 0 and votes[Verdict.RIGHT] > 0
        first = entries[row][0]
        at.append(first)
        right.append(math.nan if margin == 0 else float(margin > 0))
        named = Counter(
            reviewed.truths[entry]
            for entry in entries[row]
            if reviewed.verdicts[entry] == Verdict.WRONG and is_label(reviewed.truths[entry])
        ).most_common(2)
        # A tie between two corrections names no truth, or the order of the sheets would decide.
        clear = len(named) == 1 or (len(named) == 2 and named[0][1] > named[1][1])  # noqa: PLR2004
        wrong = named[0][0] if clear else None
        truths.append(reviewed.answers[first] if margin > 0 else wrong)
    return Judged(reviewed, np.array(at, np.int64), np.array(right), tuple(truths), split)


def is_label(value: Any) -> bool:
    """Tell whether a truth can be counted as a label: lists and dicts cannot be hashed."""
    return value is not None and value.__hash__ is not None
