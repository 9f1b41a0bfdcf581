"""Intervals agree with statsmodels, and know when there is nothing to know."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frameenrich.evaluation.intervals import (
    Interval,
    MissingExtraError,
    clopper_pearson,
    rows_without_error,
    stratified,
    wilson,
)

# The oracle takes long to import: where it is used, and in one process.
pytestmark = pytest.mark.xdist_group("oracles")


@pytest.mark.parametrize(("ours", "theirs"), [(clopper_pearson, "beta"), (wilson, "wilson")])
@pytest.mark.parametrize(("right", "n"), [(0, 1), (0, 30), (1, 3), (87, 100), (30, 30), (399, 400)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_oracle(ours: Any, theirs: str, right: int, n: int, level: float) -> None:
    """Clopper-Pearson and Wilson are statsmodels' to nine digits."""
    from statsmodels.stats.proportion import proportion_confint

    made = ours(right, n, level)
    low, high = proportion_confint(right, n, 1 - level, method=theirs)

    assert (made.estimate, made.n, made.level) == (right / n, n, level)
    assert (made.low, made.high) == pytest.approx((low, high), abs=1e-9)


@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.integers(0, 200)).flatmap(
            lambda pair: st.tuples(st.integers(0, pair[0]), st.just(pair[0]), st.just(sum(pair)))
        ),
        min_size=1,
        max_size=6,
    ),
    st.randoms(),
)
def test_stratified_is_an_interval(strata: list[tuple[int, int, int]], random: Any) -> None:
    """A stratified interval holds its estimate, lies in 0..1, and knows no order of strata."""
    shuffled = random.sample(strata, len(strata))
    made, again = (
        stratified([x for x, _, _ in some], [n for _, n, _ in some], [rows for _, _, rows in some])
        for some in (strata, shuffled)
    )

    assert -1e-12 <= made.low <= made.estimate + 1e-9
    assert made.estimate <= made.high + 1e-9 <= 1 + 2e-9
    assert (made.low, made.high) == pytest.approx((again.low, again.high))


def test_every_row_leaves_no_doubt() -> None:
    """Reviewing every row gives the truth exactly, simple or stratified."""
    simple = clopper_pearson(870, 1000, population=1000)
    strata = stratified([300, 570], [400, 600], [400, 600])

    assert (simple.low, simple.estimate, simple.high) == (0.87, 0.87, 0.87)
    assert (strata.low, strata.estimate, strata.high) == pytest.approx((0.87, 0.87, 0.87))


def test_finite_population_narrows() -> None:
    """Most of a small population reviewed says more than the same rows of a large one."""
    from statsmodels.stats.proportion import proportion_confint

    widths = [
        (made.high - made.low)
        for made in (clopper_pearson(45, 50, population=size) for size in (60, 200, 10**6))
    ]

    assert widths == sorted(widths)
    assert widths[2] == pytest.approx(np.diff(proportion_confint(45, 50, method="beta"))[0], 1e-3)


def test_nothing_reviewed_gives_no_figure() -> None:
    """Without reviewed rows there is no estimate and no bound, and no division by zero."""
    for made in (clopper_pearson(0, 0), wilson(0, 0), stratified([], [], [])):
        assert math.isnan(made.estimate)
        assert not made.bounded
        assert str(made) == "none"
        assert made.to_dict()["low"] is None


def test_percent_never_rounds_to_certainty() -> None:
    """99.7 % is shown as 99.7, not 100: a bound of 100 % is only said where it is one."""
    assert str(Interval(0.997, 0.961, 1.0, 100)) == "99.7 % [96–100]"  # noqa: RUF001


def test_sample_sizes() -> None:
    """What n buys: the figures beside the review's button."""
    assert rows_without_error(0.95) == 59
    assert clopper_pearson(59, 59, 0.90).low >= 0.95  # two-sided 90 % is one-sided 95 %
    assert clopper_pearson(58, 58, 0.90).low < 0.95


def test_missing_scipy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SciPy the error is ours and says which extra to install."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'frameenrich\[evaluate\]'"):
        wilson(1, 2)
    assert issubclass(MissingExtraError, ImportError)
