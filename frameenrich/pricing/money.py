"""Costs of a job, to come and so far: values and sums, in USD and tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from frameenrich.errors import ParameterError
from frameenrich.pricing.prices import Prices


@dataclass(frozen=True)
class Budget:
    """The cap and prices of this call; where it gives none, those in the job's folder count."""

    max_cost: float | None = None
    prices: Prices = field(default_factory=dict)


def check_max_cost(max_cost: float | None) -> float | None:
    """Check a cap in USD and return it as a number.

    Raises
    ------
    ParameterError
        It is no amount.
    """
    if max_cost is None:
        return None
    # True is an int for Python; here it is a mistake.
    usable = isinstance(max_cost, int | float) and not isinstance(max_cost, bool)
    if not usable or not math.isfinite(max_cost) or max_cost < 0:
        raise ParameterError(
            f"max_cost={max_cost!r} is not an amount.", "Give USD for the whole job, such as 5.0."
        )
    return float(max_cost)


def show_usd(usd: float | None) -> str:
    """Write an amount as a person reads it: cents, or its first two digits.

    Examples
    --------
    >>> show_usd(1234.5), show_usd(0.001234), show_usd(0.0), show_usd(None)
    ('$1,234.50', '$0.0012', '$0.00', 'unknown')
    >>> show_usd(0.0001), show_usd(0.5)
    ('$0.0001', '$0.50')
    """
    if usd is None or math.isnan(usd):
        return "unknown"
    if usd >= 1 or usd <= 0:
        return f"${usd:,.2f}"
    # Less than a dollar keeps two significant digits: $0.0012 must not read as $0.00.
    whole, _, cents = f"{usd:.{max(2, 1 - math.floor(math.log10(usd)))}f}".partition(".")
    return f"${whole}.{cents.rstrip('0'):0<2}"
