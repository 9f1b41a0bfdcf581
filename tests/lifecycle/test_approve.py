"""What a cap lets through is exact: sums, the suggestion of a message, the cap itself."""

from __future__ import annotations

import re
from typing import Any

import pytest

from frameenrich.errors import BudgetError, ParameterError
from frameenrich.lifecycle.approve import (
    AnswerLengths,
    TokenDemand,
    most_usd,
    refuse_over_budget,
    sum_demand,
)
from frameenrich.pricing.tokens import Counted

# One dollar a token, so that a token too many or too few shows in any sum.
PRICES = {name: {"input": 1e6, "output": 1e6} for name in ("m", "n")}


def test_each_request_is_counted_once() -> None:
    """A cap holds only if no token is left out of the sum, nor put into it twice (promise 3)."""
    counted = [
        Counted("m", 1_500, 9, 1, 100, "cache_control"),
        Counted("m", 20, 7),
        Counted("m", 300, None),
        Counted("n", 5, 1),
    ]

    assert sum_demand(counted) == {
        "m": TokenDemand(3, 1_820, 16, 1, 1, 100, 100, 100),
        "n": TokenDemand(1, 5, 1),
    }


@pytest.mark.parametrize(
    ("counted", "tokens"),
    [
        ([Counted("m", 10, 5), Counted("n", 20, 7)], 42),
        ([Counted("m", 10, 5), Counted("m", 10, None), Counted("m", 10, None)], 235),
        ([Counted("m", 10, 0)], 10),
        ([], 0),
    ],
    ids=["two models", "two without a cap", "a cap of nothing", "no request"],
)
def test_the_most_that_requests_can_cost(counted: list[Counted], tokens: int) -> None:
    """Prompts and caps of all models; an answer without a cap counts as the longest measured."""
    measured = AnswerLengths(answers=3, mean_tokens=40.0, most_tokens=100)

    assert most_usd(sum_demand(counted), PRICES, "openai", "live", measured) == tokens


def test_what_is_free_needs_no_price() -> None:
    """A model on this computer costs nothing, and has no price to be found."""
    assert most_usd(sum_demand([Counted("unheard-of", 10, None)]), {}, "local", "free", None) == 0


@pytest.mark.parametrize("counted", [Counted("m", 10, None), Counted("m", 10, 5, uncounted=1)])
def test_what_nobody_can_count_is_refused(counted: Counted) -> None:
    """Answers without an end and images of unknown size are no reason to guess (promise 3)."""
    with pytest.raises(ParameterError, match="max_cost="):
        most_usd(sum_demand([counted]), PRICES, "openai", "live", None)


@pytest.mark.parametrize("usd", [1.234e-7, 0.00999, 0.0123, 0.129, 0.99, 1.001, 12.341, 4_567.891])
def test_the_cap_that_is_suggested_is_taken(usd: float) -> None:
    """Passing what the message says is enough, and not much more than what is needed."""
    with pytest.raises(BudgetError) as refused:
        refuse_over_budget(usd, usd / 2)

    suggested = re.search(r"max_cost=([\d.]+)", refused.value.fix)
    assert suggested is not None
    refuse_over_budget(usd, float(suggested[1]))
    assert usd <= float(suggested[1]) <= max(usd * 1.1, usd + 0.01 * (usd >= 0.1))
    assert len(suggested[1].partition(".")[2]) >= 2  # as money is written


def test_a_cap_of_exactly_the_cost_is_enough() -> None:
    """Sums of floats are off by their last digit; a hundredth of a cent is not."""
    refuse_over_budget(0.1, 0.3, spent_usd=0.1, running_usd=0.1)
    with pytest.raises(BudgetError) as refused:
        refuse_over_budget(0.1, 0.3, spent_usd=0.1, running_usd=0.1001)

    error: Any = refused.value
    assert (error.estimate_usd, error.max_usd) == (0.1, 0.3)
    assert error.spent_usd == pytest.approx(0.2001)
