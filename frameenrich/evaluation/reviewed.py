"""`Reviewed`: the rows a person or a truth column judged, and the `Design` that drew them.

These types separate the sources of judged rows (draws, sheets, truth columns) from the statistics,
which take only these values and know no job, store or frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Objects = npt.NDArray[np.object_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Verdict(StrEnum):
    """A judgement on one answer; ``UNSURE`` is reported and counts neither way."""

    RIGHT = "right"
    WRONG = "wrong"
    UNSURE = "unsure"


class Drawn(StrEnum):
    """The way in which the judged rows were chosen; only `PICKED` allows no interval."""

    SIMPLE = "simple"  # a recorded simple random draw
    STRATIFIED = "stratified"  # a recorded draw, so many of each stratum
    TRUTH = "truth"  # a truth column of every usable row: a sample of rows like these
    RANDOM = "random"  # a truth column of a part, for whose randomness the user vouches
    PICKED = "picked"  # a truth column of a part, chosen in an unknown way


@dataclass(frozen=True)
class Design:
    """The population that a review speaks for, and how its rows were drawn.

    Parameters
    ----------
    drawn : Drawn
        How the rows were drawn.
    usable : int
        Rows of the job with the status ``ok``: the population of the draw.
    flagged : int
        Rows of the job with another terminal status; ``accuracy_all`` counts them wrong.
    strata : mapping
        Rows of each stratum that could be drawn; ``{"": usable - spent}`` where there is one.
    answer_counts : mapping
        For each field with labels, how many usable rows have each answer.
    scores : mapping
        For each field that has them, the scores of all usable rows, in any order.
    notes : tuple of str
        Sentences that belong to every figure: spent rows, replaced answers, rows not yet judged.
    spent : int
        Usable rows that could not be drawn, since the prompt was made of them.
    """

    drawn: Drawn
    usable: int
    flagged: int = 0
    strata: Mapping[str, int] = field(default_factory=dict)
    answer_counts: Mapping[str, Mapping[Any, int]] = field(default_factory=dict)
    scores: Mapping[str, Floats] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    spent: int = 0


@dataclass(frozen=True)
class Reviewed:
    """Judgements on one field, one entry for each row and reviewer; arrays of one length.

    Whoever makes this leaves out rows without a judgement, spent rows and rows whose answer was
    replaced.

    Parameters
    ----------
    field : str
        The output field, or the job's name where the output is a single value.
    design : Design
        How the rows were drawn, of what.
    rows : array of int64
        The row's position in the job; what several reviewers' entries for a row share.
    answers : array of object
        What the model answered.
    truths : array of object
        The right value; None where only a verdict was given.
    verdicts : array of object
        A `Verdict` each.
    labels : tuple, optional
        The labels in their order; None where the field has none.
    stratum : array of object, optional
        A key of ``design.strata`` each; by default ``""``.
    inclusion_probability : array of float64, optional
        With which probability the row was drawn, 0 < p <= 1; by default equal for all.
    reviewer : array of object, optional
        Who judged; by default ``""``.
    score : array of float64, optional
        How sure the answer is, 0 to 1; NaN where unknown.
    keys : DataFrame, optional
        The row's key columns, for people; by default the positions.
    prompts : array of object, optional
        What the row asked, for people.
    """

    field: str
    design: Design
    rows: Integers
    answers: Objects
    truths: Objects
    verdicts: Objects
    labels: tuple[Any, ...] | None = None
    stratum: Objects | None = None
    inclusion_probability: Floats | None = None
    reviewer: Objects | None = None
    score: Floats | None = None
    keys: pd.DataFrame | None = None
    prompts: Objects | None = None

    def __post_init__(self) -> None:
        size = len(self.rows)
        for name in (
            *("answers", "truths", "verdicts", "stratum", "inclusion_probability"),
            *("reviewer", "score", "keys", "prompts"),
        ):
            column = getattr(self, name)
            if column is not None and len(column) != size:
                raise ValueError(f"{name} has {len(column)} entries, rows has {size}")
