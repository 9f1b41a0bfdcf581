"""Charts of a column's values: bars of values, or a histogram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

_MAX_BARS = 10


_MAX_BINS = 28


_FEW = 12
"""Up to so many different numbers get a bar each; more make a histogram."""


_TAIL = 0.995
"""Values above this quantile share the last bin, so that outliers do not flatten the rest."""


# A tail shorter than this is drawn in full: cutting it would gain little and hide the maximum.
_TAIL_FACTOR = 1.5


_MIXED_SHARE = 0.5
"""Above this share of different values a column is free text, which bars cannot show."""


@dataclass(frozen=True)
class Bar:
    """One value, or one bin from `low` to below `high`, and how many rows have it."""

    label: str
    count: int
    value: Any = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """Bars over the values of a field.

    ``field`` names what a row is filtered by when a bar is picked; ``kind`` is ``bars`` or
    ``histogram``; ``summary`` sums it up in words.
    """

    title: str
    field: str
    kind: str
    bars: tuple[Bar, ...]
    summary: str = ""

    @property
    def highest(self) -> int:
        """The count of the longest bar of one value or bin; at least 1."""
        own = [b.count for b in self.bars if b.value is not None or b.low is not None]
        return max(own, default=1) or 1

    @property
    def total(self) -> int:
        """Return how many rows the bars count."""
        return sum(bar.count for bar in self.bars) or 1


def chart_of(title: str, field: str, values: pd.Series) -> Chart | None:
    """Choose the chart for a column; None where it has no values, or none that can be counted.

    Parameters
    ----------
    title, field : str
        See `Chart`.
    values : Series
        Nulls are left out.

    Examples
    --------
    >>> chart = chart_of("n", "n", pd.Series([1, 1, 3], dtype="Int64"))
    >>> [(bar.label, bar.count) for bar in chart.bars]
    [('1', 2), ('3', 1)]
    """
    present = values.dropna()
    if present.empty:
        return None
    if isinstance(present.dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(present.dtype):
        return _value_bars(title, field, present)
    if pd.api.types.is_numeric_dtype(present.dtype):
        return number_chart(title, field, present)
    if present.map(lambda value: isinstance(value, str)).all():
        return _text_chart(title, field, present)
    return None


def number_chart(title: str, field: str, values: pd.Series) -> Chart | None:
    """Chart few different numbers as ordered bars, many as a histogram."""
    numbers = values.dropna().to_numpy(dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return None
    distinct = np.unique(numbers)
    if len(distinct) <= _FEW:
        counts = [(number, int((numbers == number).sum())) for number in distinct]
        bars = tuple(Bar(short(n), count, value=_plain(n)) for n, count in counts)
        return Chart(title, field, "bars", bars, _spread(numbers))
    return Chart(title, field, "histogram", _bins(numbers), _spread(numbers))


def _plain(number: float) -> float:
    return int(number) if float(number).is_integer() else float(number)


def short(number: float) -> str:
    """Return a number as a person writes it on an axis.

    Examples
    --------
    >>> short(1250000), short(12.0), short(0.000123), short(-0.0), short(2.5e9)
    ('1.25M', '12', '0.000123', '0', '2.5e+09')
    """
    number += 0.0  # -0 is 0
    if abs(number) >= 999_500_000:  # noqa: PLR2004 - as millions it would have four digits
        return f"{number:.3g}"
    for unit, size in (("M", 1_000_000), ("k", 10_000)):
        if abs(number) >= size:
            return f"{number / (1_000 if unit == 'k' else size):.3g}{unit}"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:.3g}"


def _spread(numbers: np.ndarray[Any, Any]) -> str:
    low, middle, high = np.quantile(numbers, [0, 0.5, 1])
    return f"{short(low)} to {short(high)}, median {short(middle)}"


def _bins(numbers: np.ndarray[Any, Any]) -> tuple[Bar, ...]:
    low, high = float(numbers.min()), float(numbers.max())
    tail = float(np.quantile(numbers, _TAIL))
    end = tail if high - low > _TAIL_FACTOR * (tail - low) > 0 else high
    step = _step((end - low) / _MAX_BINS, whole=bool(np.all(numbers == np.round(numbers))))
    first = math.floor(low / step)
    last = max(math.ceil((end - first * step) / step), 1)
    if first * step + last * step <= end:  # the largest value opens a bin of its own
        last += 1
    # 12 digits drop the noise of binary fractions, or a label would read 0.30000000000000004.
    edges = [float(f"{(first + i) * step:.12g}") for i in range(last + 1)]
    bins = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, last - 1)
    counts = np.bincount(bins, minlength=last)
    bars = [
        Bar(f"{short(a)} to {short(b)}", int(n), low=a, high=b)
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    if high > edges[-1]:  # `clip` put the tail into the last bin: it has no upper end
        over = bars[-1]
        bars[-1] = Bar(f"{short(edges[-2])} and more", over.count, low=over.low, high=None)
    return tuple(bars)


def _step(width: float, *, whole: bool) -> float:
    """Round a width up to 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    # The tolerance: a width of 0.2 that floats make 0.20000000000000004 is still 0.2.
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= width * (1 - 1e-9))
    return max(step, 1.0) if whole else step


def _value_bars(title: str, field: str, values: pd.Series) -> Chart:
    counts = values.value_counts(sort=False)
    pairs: list[tuple[Any, int]] = [(v, int(n)) for v, n in counts.items()]
    if isinstance(values.dtype, pd.CategoricalDtype):
        pairs = [(str(v), n) for v, n in pairs]
        known = [str(category) for category in values.cat.categories]
        # Labels that no row has are news: the model may ignore part of the schema.
        never = sum(not n for _, n in pairs)
        pairs.sort(key=lambda pair: (-pair[1], known.index(pair[0])))
    else:
        never = 0
        pairs.sort(key=lambda pair: -pair[1])
    summary = f"{never} of {len(pairs)} labels never came" if never else ""
    return Chart(title, field, "bars", _top(pairs), summary)


def _top(pairs: Sequence[tuple[Any, int]]) -> tuple[Bar, ...]:
    shown, rest = pairs[:_MAX_BARS], pairs[_MAX_BARS:]
    bars = [Bar(_label(value), count, value=_cell(value)) for value, count in shown]
    if rest:
        noun = "value" if len(rest) == 1 else "values"
        bars.append(Bar(f"{len(rest):,} more {noun}", sum(n for _, n in rest)))
    return tuple(bars)


def _label(value: Any) -> str:
    """Format a value as the page's script does: JSON writes truth values in lower case."""
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def _cell(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _text_chart(title: str, field: str, values: pd.Series) -> Chart | None:
    counts = values.value_counts()
    if len(counts) > _FEW and len(counts) > _MIXED_SHARE * len(values):
        return None
    summary = f"{len(counts):,} different texts" if len(counts) > 1 else ""
    return Chart(title, field, "bars", _top([(v, int(n)) for v, n in counts.items()]), summary)
