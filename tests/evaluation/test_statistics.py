"""Shares, recall, thresholds, calibration and agreement against oracles and simulated reviews."""

from __future__ import annotations

import math

import coverage_simulation as simulation
import numpy as np
import pytest

from frameenrich.evaluation.agreement import cohen_kappa, krippendorff_alpha
from frameenrich.evaluation.calibration import auroc, calibrate, calibration
from frameenrich.evaluation.recall import label_figures
from frameenrich.evaluation.shares import corrected_shares
from frameenrich.evaluation.threshold import find_threshold

# The oracles take long to import: where they are used, and in one process.
pytestmark = pytest.mark.xdist_group("oracles")
TABLE = np.array([[40, 3, 1], [5, 30, 2], [0, 4, 15]])


@pytest.fixture
def random() -> np.random.Generator:
    """The same draws for a test, whatever ran before it."""
    return np.random.default_rng(18)


@pytest.mark.parametrize("model", ["good", "biased"])
@pytest.mark.parametrize("design", simulation.DESIGNS)
@pytest.mark.parametrize("n", [50, 200])
def test_coverage(model: str, design: str, n: int) -> None:
    """Accuracy and shares hold the truth as often as tests/COVERAGE.md says, on other draws.

    93 % less two and a half standard errors of 400 draws, over the worst of five labels.
    """
    found = simulation.cover(model, design, n, draws=400, seed=7)

    assert min(found["accuracy"], found["shares"]) >= 0.93 - 2.5 * math.sqrt(0.07 * 0.93 / 400)


def test_thresholds_keep_their_promise() -> None:
    """At most 10 % of reviews end in a broken promise; by the naive rule a quarter and more."""
    found = simulation.break_promises(200, runs=100, seed=3)

    assert found["broken"] <= 0.1
    assert found["naive broken"] > 0.25


def test_every_row_reviewed_is_the_truth() -> None:
    """Reviewing every row gives shares, precision, recall and f1 exactly, without width."""
    rows = TABLE.sum(1)
    shares = corrected_shares(TABLE, rows)
    figures = label_figures(TABLE, rows)

    truth = TABLE.sum(0) / TABLE.sum()
    assert [shares.low, shares.estimate, shares.high] == pytest.approx(np.array([truth] * 3))
    recall = np.diag(TABLE) / TABLE.sum(0)
    assert [figures["recall"].low, figures["recall"].high] == pytest.approx(np.array([recall] * 2))
    assert figures["f1"].low == pytest.approx(figures["f1"].high)


def test_label_figures_are_scikit_learns() -> None:
    """With answers reviewed in their proportions the figures are scikit-learn's."""
    from sklearn.metrics import precision_recall_fscore_support

    answers, truths = np.repeat(np.indices((3, 3)).reshape(2, -1), TABLE.ravel(), axis=1)
    theirs = precision_recall_fscore_support(truths, answers)
    figures = label_figures(TABLE, TABLE.sum(1) * 100)

    for name, expected in zip(("precision", "recall", "f1"), theirs, strict=False):
        assert figures[name].estimate == pytest.approx(expected)


def test_relabelling_permutes() -> None:
    """Another order of labels permutes every figure, and changes none."""
    order = [2, 0, 1]
    rows = np.array([900, 700, 400])
    shares = corrected_shares(TABLE, rows)
    moved = corrected_shares(TABLE[np.ix_(order, order)], rows[order])
    for one, other in zip(shares, moved, strict=True):
        assert one[order] == pytest.approx(other)
    for name, made in label_figures(TABLE, rows).items():
        moved = label_figures(TABLE[np.ix_(order, order)], rows[order])[name]
        for one, other in zip(made, moved, strict=True):
            assert one[order] == pytest.approx(other)


def test_few_rows_give_no_interval() -> None:
    """Three reviewed rows and 400 labels give figures without bounds, and no warning."""
    counts = np.zeros((400, 400))
    counts[0, 0], counts[1, 2] = 2, 1
    rows = np.full(400, 50)
    figures = label_figures(counts, rows)
    shares = corrected_shares(counts, rows)

    assert np.isnan(figures["recall"].low).all()
    assert figures["recall"].few.all()
    assert ((shares.low >= 0) & (shares.low <= shares.high) & (shares.high <= 1)).all()


def test_kappa_and_alpha(random: np.random.Generator) -> None:
    """Kappa with its interval is statsmodels' and scikit-learn's, alpha is krippendorff's."""
    import krippendorff
    from sklearn.metrics import cohen_kappa_score
    from statsmodels.stats.inter_rater import cohens_kappa

    rows, columns = np.repeat(np.indices((3, 3)).reshape(2, -1), TABLE.ravel(), axis=1)
    made, theirs = cohen_kappa(TABLE), cohens_kappa(TABLE)

    assert made.estimate == pytest.approx(cohen_kappa_score(rows, columns))
    assert (made.low, made.high) == pytest.approx((theirs.kappa_low, theirs.kappa_upp))
    ratings = random.integers(0, 4, (60, 3)).astype(float)
    ratings[random.random(ratings.shape) < 0.3] = np.nan
    ours = krippendorff_alpha([[v for v in row if not np.isnan(v)] for row in ratings])
    assert ours == pytest.approx(krippendorff.alpha(ratings.T, level_of_measurement="nominal"))
    assert math.isnan(krippendorff_alpha([["a"], ["b"]]))
    assert math.isnan(cohen_kappa(np.array([[9]])).estimate)


def test_auroc_with_ties_and_weights(random: np.random.Generator) -> None:
    """AUROC is scikit-learn's, with ties and weights; nothing where all rows are right."""
    from sklearn.metrics import roc_auc_score

    score, right = random.integers(0, 10, 200) / 10, random.integers(0, 2, 200).astype(float)
    weights = random.uniform(1, 5, 200)

    assert auroc(score, right, weights) == pytest.approx(
        roc_auc_score(right, score, sample_weight=weights)
    )
    assert math.isnan(auroc(score, np.ones(200)))


def test_venn_abers_is_two_isotonic_fits(random: np.random.Generator) -> None:
    """Above 200 rows each probability is that of two isotonic fits with the row added."""
    from sklearn.isotonic import IsotonicRegression

    score = np.round(random.random(220), 2)
    right = (random.random(220) < score**2).astype(float)
    made = calibrate(score, right)
    fresh = np.array([0.0, 0.105, score[3], 0.77, 0.985, 1.0])

    expected = []
    for value in fresh:
        low, high = (
            IsotonicRegression().fit([*score, value], [*right, hit]).predict([value])[0]
            for hit in (0.0, 1.0)
        )
        expected.append(high / (1 - low + high))
    assert made.method == "Venn-Abers"
    assert made(fresh) == pytest.approx(np.array(expected))


def test_temperature_mends_overconfidence() -> None:
    """Below 200 rows one temperature brings overconfident scores down to what is right."""
    truth = np.full(150, 0.7)
    right = (np.arange(150) % 10 < 7).astype(float)
    made = calibrate(np.full(150, 0.99), right)

    assert made.method == "temperature"
    assert made(np.array([0.99])) == pytest.approx(truth[:1], abs=1e-3)
    told = calibration(np.full(150, 0.99), right)
    assert told is not None
    assert told.reliability["n"].sum() == 150
    assert told.risk_coverage["risk"].iloc[-1] == pytest.approx(0.3)


def test_threshold_is_the_exact_binomial_test() -> None:
    """Each step is the exact binomial test: 22 rows without an error pass at 90 %, 21 do not."""
    from scipy.stats import binom

    score = np.linspace(1, 0.5, 22)
    made = find_threshold(score, np.ones(22), precision=0.9, confidence=0.9)
    none = find_threshold(score[:21], np.ones(21), precision=0.9, confidence=0.9)

    assert (made.n, made.kept) == (22, 1.0)
    assert not none
    assert "about 1 more would do" in str(none)
    right = np.array([1.0] * 37 + [0.0])
    for precision in (0.88, 0.9, 0.92):
        passes = bool(binom.cdf(1, 38, 1 - precision) <= 0.1)
        made = find_threshold(np.full(38, 0.9), right, precision=precision, confidence=0.9)
        assert bool(made) == passes


def test_order_of_rows_changes_no_threshold(random: np.random.Generator) -> None:
    """A shuffled review gives the same threshold, calibration and curve."""
    score = np.round(random.beta(4, 1, 300), 2)
    right = (random.random(300) < 0.7 + 0.3 * score).astype(float)
    weights = random.choice([1.0, 3.0], 300)
    order = random.permutation(300)
    one = find_threshold(score, right, precision=0.9, weights=weights)
    other = find_threshold(score[order], right[order], precision=0.9, weights=weights[order])

    assert one.score == pytest.approx(other.score, nan_ok=True)
    assert (one.n, str(one)) == (other.n, str(other))
