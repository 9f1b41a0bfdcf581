"""Score rows by a classifier on embeddings, learned from the rows that people reviewed.

It predicts whether an answer is right from what was asked and answered. Rows are dealt to folds by
their prompt, and each is scored by the classifier that was learned from the other folds: a row that
had taught its own verdict would look surer than rows like it are, and a threshold would break its
promise (``tests/COVERAGE.md`` has how often it does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xxhash

from frameenrich.errors import ParameterError
from frameenrich.evaluation.intervals import scipy
from frameenrich.evaluation.job_answers import JobAnswers, as_text, own_message
from frameenrich.evaluation.judged import Judged, judge
from frameenrich.evaluation.open_review import reviews
from frameenrich.evaluation.reviewed import Floats, Integers
from frameenrich.evaluation.verdicts import reviewed_fields
from frameenrich.providers.local.embeddings import Embedder

SOURCE = "a classifier, learned from {} reviewed rows"
FOLDS = 5

FEWEST_ROWS = 50
FEWEST_OF_A_KIND = 10
"""Reviewed rows, and right and wrong ones among them, below which nothing is learned."""

_DIMENSIONS = 64  # of each text: more than a few hundred reviewed rows can teach about

_ROWS_AT_A_TIME = 20_000
_NEWTON_STEPS = 25
_RIDGE = 1.0  # of unit vectors: the usual choice, which fifty rows do not overfit


def learned_scores(job: JobAnswers, names: Sequence[str]) -> dict[str, tuple[str, Floats]]:
    """Return the source and every row's score for those of some fields that can be learned.

    Empty where too few rows were reviewed, or the extra ``embed`` is not installed.
    """
    if not reviews(job):
        return {}
    # Without its scores: they are what is being made.
    found = reviewed_fields(replace(job, scored=False))
    judged = {}
    for name in (name for name in names if name in found):
        each = judge(found[name])
        right = each.right[each.sure]
        # A classifier needs examples of both: a field that is always right teaches it nothing.
        rarer = min(int(right.sum()), int((1 - right).sum()))
        if len(right) >= FEWEST_ROWS and rarer >= FEWEST_OF_A_KIND:
            judged[name] = each
    if not judged:
        return {}
    try:
        embedder = Embedder()
    except ParameterError:
        return {}
    texts = [own_message(prompt) for prompt in job.prompts(job.usable)]
    # By prompt, so that rows with the same text are never on both sides.
    folds = np.array([xxhash.xxh3_64_intdigest(text.encode()) % FOLDS for text in texts])
    scores = {}
    for name, each in judged.items():
        answers = [as_text(value) for value in job.values(name, job.usable)]
        learned = _field_scores(job.usable, each, texts, answers, folds, embedder)
        if learned is not None:
            column = np.full(len(job.frame), np.nan)
            column[job.usable] = learned
            scores[name] = (SOURCE.format(int(each.sure.sum())), column)
    return scores


def _field_scores(
    usable: Integers,
    judged: Judged,
    texts: Sequence[str],
    answers: Sequence[str],
    folds: Integers,
    embedder: Embedder,
) -> Floats | None:
    def features(positions: Integers) -> Floats:
        prompts = embedder.unit_vectors([texts[i] for i in positions], _DIMENSIONS)
        given = embedder.unit_vectors([answers[i] for i in positions], _DIMENSIONS)
        return np.hstack([prompts, given]).astype(float)

    rows = judged.reviewed.rows[judged.first][judged.sure]
    known = np.searchsorted(usable, rows)  # judged rows are usable, and both are sorted
    classifiers = cross_fit(
        features(known), judged.right[judged.sure], judged.weights[judged.sure], folds[known]
    )
    if classifiers is None:
        return None
    # Some rows at a time: the vectors of a million rows are two gigabytes.
    chunks = [
        np.arange(start, min(start + _ROWS_AT_A_TIME, len(usable)))
        for start in range(0, len(usable), _ROWS_AT_A_TIME)
    ]
    return np.concatenate([score_rows(classifiers, features(c), folds[c]) for c in chunks])


def cross_fit(features: Floats, right: Floats, weights: Floats, folds: Integers) -> Floats | None:
    """Learn a classifier for each fold from all others; None where one has nothing to tell apart.

    Parameters
    ----------
    features : array (n, d)
        Vectors of the reviewed rows.
    right, weights, folds : array (n,)
        Whether each is right, how many rows it stands for, and its fold.

    Returns
    -------
    array (FOLDS, d + 1)
        Coefficients, the intercept last.

    Notes
    -----
    Logistic regression with a ridge; cross-fitting as in Chernozhukov et al., "Double/debiased
    machine learning", The Econometrics Journal 21 (2018).
    """
    found = []
    for fold in range(FOLDS):
        others = folds != fold
        if len(np.unique(right[others])) < 2:  # noqa: PLR2004 - right and wrong
            return None
        found.append(_logistic(features[others], right[others], weights[others]))
    return np.stack(found)


def score_rows(classifiers: Floats, features: Floats, folds: Integers) -> Floats:
    """Return the probability that each row is right, by the classifier of its fold."""
    own = classifiers[folds]
    linear = (features * own[:, :-1]).sum(1) + own[:, -1]
    scores: Floats = scipy("special").expit(linear)
    return scores


def _logistic(features: Floats, right: Floats, weights: Floats) -> Floats:
    """Fit a logistic regression with a ridge by Newton's method; the intercept comes last."""
    weights = weights / weights.mean()
    design = np.hstack([features, np.ones((len(features), 1))])
    ridge = np.full(design.shape[1], _RIDGE)
    ridge[-1] = 1e-6  # the intercept is left free
    fitted: Floats = np.zeros(design.shape[1])
    # The ridge makes the loss strictly convex: a few steps are enough.
    for _ in range(_NEWTON_STEPS):
        chance = scipy("special").expit(design @ fitted)
        slope = design.T @ (weights * (chance - right)) + ridge * fitted
        curve = (design * (weights * chance * (1 - chance))[:, None]).T @ design
        step = np.linalg.solve(curve + np.diag(ridge), slope)
        fitted = fitted - step
        if np.abs(step).max() < 1e-6:  # noqa: PLR2004 - far below what a score shows
            break
    return fitted
