"""How often each interval holds the truth in simulated reviews; writes ``tests/COVERAGE.md``.

Run as ``uv run python tests/evaluation/coverage_simulation.py``; `test_coverage` runs a part of it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from frameenrich.evaluation.intervals import clopper_pearson, stratified
from frameenrich.evaluation.learned_scores import FOLDS, cross_fit, score_rows
from frameenrich.evaluation.recall import label_figures
from frameenrich.evaluation.shares import corrected_shares
from frameenrich.evaluation.threshold import find_threshold

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
COMMAND = "tests/evaluation/coverage_simulation.py"
ROWS = 20_000
TRUE_SHARES = np.array([0.40, 0.27, 0.18, 0.12, 0.03])
SIZES = (50, 100, 200, 400)
DESIGNS = ("simple", "by answer")
FLOOR = 10


def naive_threshold(score: Floats, right: Floats, precision: float) -> float:
    """Return the lowest score whose empirical precision reaches a target: what not to do."""
    order = np.argsort(-score, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(score) + 1)
    enough = np.flatnonzero(share >= precision)
    return float(score[order][enough[-1]]) if len(enough) else math.nan


def population(model: str) -> Counts:
    """Count rows by answer and truth, of a good model or one that favours the first label."""
    classes = len(TRUE_SHARES)
    right = {"good": 0.9, "biased": 0.65}[model]
    answer_given_truth = np.full((classes, classes), (1 - right) / (classes - 1))
    if model == "biased":
        answer_given_truth[:] = 0.05 / (classes - 2)
        answer_given_truth[:, 0] = 0.3
        answer_given_truth[0] = 0.02
        right = 0.65
    np.fill_diagonal(answer_given_truth, right)
    if model == "biased":
        answer_given_truth[0, 0] = 0.92
    joint = answer_given_truth * TRUE_SHARES[:, None]
    counts: Counts = np.rint(joint.T / joint.sum() * ROWS).astype(np.int64)
    counts[0, 0] += ROWS - counts.sum()
    return counts


def allocate(rows: Counts, n: int) -> Counts:
    """Share n reviewed rows out among strata in proportion, with a floor for each."""
    floor = np.minimum(rows, min(FLOOR, n // (2 * len(rows))))
    rest = n - floor.sum()
    exact = np.maximum(rows / rows.sum() * n - floor, 0)
    exact = exact / exact.sum() * rest
    size = floor + np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - np.floor(exact)))
    size[order[: n - size.sum()]] += 1
    taken: Counts = np.minimum(size, rows)
    return taken


def draw(cells: Counts, design: str, n: int, draws: int, seed: int) -> Counts:
    """Draw reviews: arrays (draws, answer, truth) of counts."""
    random = np.random.default_rng(seed)
    if design == "simple":
        drawn = random.multivariate_hypergeometric(cells.ravel(), n, draws, method="marginals")
        return drawn.reshape(draws, *cells.shape)
    sizes = allocate(cells.sum(1), n)
    return np.stack(
        [
            random.multivariate_hypergeometric(row, size, draws, method="marginals")
            for row, size in zip(cells, sizes, strict=True)
        ],
        axis=1,
    )


def cover(model: str, design: str, n: int, draws: int, seed: int = 0) -> dict[str, float]:
    """Return the share of draws in which each kind of interval holds the truth.

    Shares, precision, recall and f1 are the worst label's; of the last three only draws count in
    which the label has an interval, and labels that have one in a tenth of the draws at least.
    """
    cells = population(model)
    rows = cells.sum(1)
    counts = draw(cells, design, n, draws, seed)
    simple = design == "simple"

    accuracy = np.trace(cells) / ROWS
    held = 0
    for one in counts:
        right, reviewed = np.diag(one), one.sum(1)
        made = (
            clopper_pearson(int(right.sum()), n, population=ROWS)
            if simple
            else stratified(right.tolist(), reviewed.tolist(), rows.tolist())
        )
        held += made.low <= accuracy <= made.high

    bounds = corrected_shares(counts.astype(float), rows.astype(float), simple=simple)
    truth = cells.sum(0) / ROWS
    shares = ((bounds.low <= truth) & (truth <= bounds.high)).mean(0)
    found = {"accuracy": held / draws, "shares": float(shares.min())}

    right = np.diag(cells)
    truths = {
        "precision": right / rows,
        "recall": right / cells.sum(0),
        "f1": 2 * right / (rows + cells.sum(0)),
    }
    for name, each in label_figures(counts.astype(float), rows.astype(float)).items():
        bounded = ~each.few
        inside = (each.low <= truths[name]) & (truths[name] <= each.high) & bounded
        often = bounded.sum(0) >= max(draws / 10, 1)
        by_label = inside.sum(0)[often] / bounded.sum(0)[often]
        found[name] = float(by_label.min()) if len(by_label) else math.nan
    return found


THRESHOLD_MODELS = {"overconfident": (0.995, 0.45), "good": (0.999, 0.15), "learned": (1.0, 0.0)}
"""How often the surest answers of a model are right, and how slowly that falls with the score.

"learned" has no scores of its own: a classifier is learned from the rows that are reviewed.
"""


def break_promises(
    n: int, runs: int, seed: int = 0, model: str = "overconfident"
) -> dict[str, float]:
    """Count broken promises of 95 % right among simulated reviews.

    The confidence is of all reviews: where a model has no score that is good enough, the few
    promises that are given at all are broken, so they are counted both ways. Half of the runs'
    draws are simple, half from strata of unequal inclusion.
    """
    random = np.random.default_rng(seed)
    best, power = THRESHOLD_MODELS[model]
    broken, naive_broken, found, naive_found = 0, 0, 0, 0
    for run in range(runs):
        second = random.random(ROWS) < 0.1  # a rare stratum, in which the model is worse
        score = random.beta(3, 0.8, ROWS)
        right = random.random(ROWS) < np.where(second, 0.8, best) * score**power
        if model == "learned":
            features = random.normal(size=(ROWS, 6))
            right = random.random(ROWS) < 1 / (1 + np.exp(-3 - 2 * features[:, 0]))
        if run % 2:
            picked, weights = random.permutation(ROWS)[:n], np.ones(n)
        else:
            parts = [np.flatnonzero(~second), np.flatnonzero(second)]
            sizes = [n - n // 4, n // 4]
            picked = np.concatenate(
                [random.permutation(part)[:size] for part, size in zip(parts, sizes, strict=True)]
            )
            by_part = [np.full(s, len(p) / s) for p, s in zip(parts, sizes, strict=True)]
            weights = np.concatenate(by_part)
        hits = right[picked].astype(float)
        if model == "learned":
            folds = random.integers(FOLDS, size=ROWS)
            made_of = cross_fit(features[picked], hits, weights, folds[picked])
            score = (
                np.full(ROWS, np.nan) if made_of is None else score_rows(made_of, features, folds)
            )
        made = find_threshold(score[picked], hits, weights=weights, population=score)
        if made:
            found += 1
            broken += right[score >= made.score].mean() < 0.95
        naive = naive_threshold(score[picked], hits, 0.95)
        if not math.isnan(naive):
            naive_found += 1
            naive_broken += right[score >= naive].mean() < 0.95
    return {
        "given": found / runs,
        "broken": broken / runs,
        "broken of given": broken / found if found else math.nan,
        "naive given": naive_found / runs,
        "naive broken": naive_broken / runs,
    }


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def table(draws: int) -> str:
    """Return the whole table as Markdown."""
    lines = [
        "# Measured coverage",
        "",
        f"Written by `uv run python {COMMAND}`: {draws:,} simulated reviews a",
        f"cell of {ROWS:,} rows with five labels (the smallest 3 %), at a nominal level of 95 %.",
        "In percent, of the worst label but for accuracy. Accuracy and shares have to reach 93;",
        'the others stand with what they are, over the draws in which they are no "too few".',
        "",
        "| model | draw | reviewed | accuracy | shares | precision | recall | f1 |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for model in ("good", "biased"):
        for design in DESIGNS:
            for n in SIZES:
                found = cover(model, design, n, draws)
                cells = " | ".join(_percent(share) for share in found.values())
                lines.append(f"| {model} | {design} | {n} | {cells} |")
    lines += [
        "",
        "## Thresholds",
        "",
        f"{draws:,} simulated reviews each; the overconfident model has hardly a score that",
        "is good enough; the third one's scores are learned from the reviewed rows. 95 % right is",
        "promised with 90 % confidence: at most 10 % of all reviews may end in a broken promise.",
        "Beside it the naive rule: the lowest score whose",
        "empirical precision reaches 95 %. In percent of the reviews; in the fifth column of the",
        "promises given, for which nothing is promised.",
        "",
        "| model | reviewed | given | broken | of those given | naive given | naive broken |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for model in THRESHOLD_MODELS:
        for n in SIZES:
            cells = " | ".join(map(_percent, break_promises(n, draws, model=model).values()))
            lines.append(f"| {model} | {n} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    made = table(1_000)
    (Path(__file__).parents[1] / "COVERAGE.md").write_text(made, encoding="utf-8")
    print(made)
