"""What a job will cost and what it has cost: values and sums, in USD and tokens."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from frameenrich.errors import BudgetError, ParameterError
from frameenrich.prices import Prices, Rate, Rates, find_rates, unknown_price
from frameenrich.tokens import Counted, vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

_ROUNDING_USD = 1e-9


@dataclass(frozen=True)
class Budget:
    """What this call says of money; where it says nothing, what the job's folder says counts."""

    max_cost: float | None = None
    prices: Prices = field(default_factory=dict)


def check_max_cost(max_cost: float | None) -> float | None:
    """A cap in USD, as a number.

    Raises
    ------
    ParameterError
        It is none.
    """
    if max_cost is None:
        return None
    usable = isinstance(max_cost, int | float) and not isinstance(max_cost, bool)
    if not usable or not math.isfinite(max_cost) or max_cost < 0:
        raise ParameterError(
            f"max_cost={max_cost!r} is no amount.", "Give USD for the whole job, such as 5.0."
        )
    return float(max_cost)


@dataclass(frozen=True)
class Measured:
    """How many tokens earlier answers to the same template and model had."""

    answers: int
    mean_tokens: float
    most_tokens: int


@dataclass
class Demand:
    """What some requests to one model ask for, in tokens.

    ``capped_tokens`` is the most that those answers can have whose requests say it; ``uncapped``
    counts the other requests, ``uncounted`` the images without a known number of tokens.
    """

    requests: int = 0
    prompt_tokens: int = 0
    capped_tokens: int = 0
    uncapped: int = 0
    uncounted: int = 0

    def add(self, found: Counted) -> None:
        """Take one request more."""
        self.requests += 1
        self.prompt_tokens += found.prompt_tokens
        self.capped_tokens += found.cap or 0
        self.uncapped += found.cap is None
        self.uncounted += found.uncounted


def sum_demand(counted: Iterable[Counted]) -> dict[str, Demand]:
    """What requests ask for, by model."""
    demands: dict[str, Demand] = {}
    for found in counted:
        demands.setdefault(found.model, Demand()).add(found)
    return demands


def most_usd(
    demands: Mapping[str, Demand],
    prices: Prices,
    provider: str,
    rate: Rate,
    measured: Measured | None,
) -> float:
    """What requests can cost at most.

    An answer without a cap counts as the longest one that was measured.

    Raises
    ------
    ParameterError
        A price, the length of answers, or what an image takes is not known.
    """
    total = 0.0
    for model, demand in demands.items():
        if rate == "free":
            continue
        rates = find_rates(model, prices, provider)
        if rates is None:
            raise unknown_price(model)
        if demand.uncapped and measured is None:
            raise ParameterError(
                f"max_cost= cannot be held: nothing bounds how long {demand.uncapped:,} answers "
                "may get.",
                'Set params={"max_tokens": ...} (max_completion_tokens, max_output_tokens), or '
                "have a few rows answered first: pilot().",
            )
        if demand.uncounted:
            raise ParameterError(
                f"max_cost= cannot be held: what an image costs with {model!r} is not known.",
                "Leave out max_cost=, or use a model whose image tokens are documented.",
            )
        longest = demand.capped_tokens + demand.uncapped * (measured.most_tokens if measured else 0)
        total += rates.at(rate).usd(demand.prompt_tokens, longest)
    return total


def refuse_over_budget(
    next_usd: float, max_usd: float, spent_usd: float = 0.0, running_usd: float = 0.0
) -> None:
    """Refuse what could cost more than there is left.

    Raises
    ------
    BudgetError
        Names the estimate, what is spent and the cap.
    """
    total = spent_usd + running_usd + next_usd
    if total <= max_usd + _ROUNDING_USD:
        return
    before = ""
    if spent_usd or running_usd:
        running = f" and {show_usd(running_usd)} is on its way" if running_usd else ""
        before = f", where {show_usd(spent_usd)} is spent{running}"
    raise BudgetError(
        f"Sending this could cost {show_usd(next_usd)}{before}; max_cost is {show_usd(max_usd)}.",
        f"Nothing of it was sent: pass max_cost={_up_to_cents(total)}, send fewer rows, a smaller "
        "max_tokens or another model.",
        estimate_usd=next_usd,
        spent_usd=spent_usd + running_usd,
        max_usd=max_usd,
    )


def _up_to_cents(usd: float) -> str:
    """A cap that is enough, with two digits that count where it is small."""
    digits = max(2, 1 - math.floor(math.log10(usd))) if usd > 0 else 2
    return f"{math.ceil(usd * 10**digits) / 10**digits:.{digits}f}"


def show_usd(usd: float | None) -> str:
    """An amount as a person reads it: cents, or the first digits that count.

    Examples
    --------
    >>> show_usd(1234.5), show_usd(0.001234), show_usd(0.0), show_usd(None)
    ('$1,234.50', '$0.0012', '$0.00', 'unknown')
    """
    if usd is None or math.isnan(usd):
        return "unknown"
    if usd >= 1 or usd <= 0:
        return f"${usd:,.2f}"
    return f"${usd:.{max(2, 1 - math.floor(math.log10(usd)))}f}"


@dataclass(frozen=True)
class Estimate:
    """What a submit would send, and what that would cost; see ``df.llmbatch.estimate``.

    Parameters
    ----------
    model : str
        The model.
    rows : int
        Rows of the frame.
    skipped : int
        Rows that the null policy leaves out.
    reused : int
        Requests that the store has a good answer to: free.
    requests : int
        What would be sent and paid for: without the skipped rows, each repeated request once,
        without the reused.
    prompt_tokens : int
        Of those requests.
    max_completion_tokens : int or None
        The most that their answers can have; None where the requests set no cap.
    expected_completion_tokens : int or None
        About what their answers will have, as earlier answers to the same template and model have
        it; None where the store holds none.
    batch_usd, live_usd : float
        In a batch, and one call at a time: at most, where there is a cap; else about, where there
        are earlier answers; else of the prompts alone. `bound` says which.
    rate : {"batch", "live", "free"}
        Which of the two the provider takes.
    notes : tuple of str
        How it was counted.
    """

    model: str
    rows: int
    skipped: int
    reused: int
    requests: int
    prompt_tokens: int
    max_completion_tokens: int | None
    expected_completion_tokens: int | None
    batch_usd: float
    live_usd: float
    rate: Rate
    notes: tuple[str, ...] = ()

    @property
    def usd(self) -> float:
        """What it costs with the provider that was asked about."""
        return {"batch": self.batch_usd, "live": self.live_usd, "free": 0.0}[self.rate]

    @property
    def bound(self) -> str:
        """What the amounts are: ``at most``, ``about`` or ``at least``."""
        if self.max_completion_tokens is not None:
            return "at most"
        return "about" if self.expected_completion_tokens is not None else "at least"

    def cells(self) -> list[tuple[str, str]]:
        """What a person wants to know of it: names and texts."""
        rows = f"{self.rows:,}"
        if self.skipped:
            rows += f", {self.skipped:,} of them skipped"
        requests = f"{self.requests:,}"
        if self.reused:
            requests += f"; {self.reused:,} answers are in the store"
        answers = "unknown: no cap such as max_tokens"
        if self.max_completion_tokens is not None:
            answers = f"at most {self.max_completion_tokens:,}"
        if self.expected_completion_tokens is not None:
            about = f"about {self.expected_completion_tokens:,}, as earlier answers have"
            answers = about if self.max_completion_tokens is None else f"{answers}; {about}"
        cells = [
            ("model", self.model),
            ("rows", rows),
            ("requests", requests),
            ("prompt tokens", f"{self.prompt_tokens:,}"),
            ("completion tokens", answers),
        ]
        if self.rate == "free":
            return [*cells, ("cost", "nothing")]
        said = {"at least": "at least ", "about": "about ", "at most": "at most "}[self.bound]
        amounts = (("batch", self.batch_usd), ("live", self.live_usd))
        return [*cells, *((f"cost, {how}", f"{said}{show_usd(usd)}") for how, usd in amounts)]

    def as_dict(self) -> dict[str, Any]:
        """What a program wants to know of it."""
        return {**asdict(self), "usd": self.usd, "bound": self.bound}

    def __str__(self) -> str:
        cells = self.cells()
        width = max(len(name) for name, _ in cells)
        lines = [f"{name:<{width}}  {text}" for name, text in cells]
        return "\n".join([*lines, *(f"({note})" for note in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = "style='text-align:left'"
        rows = "".join(
            f"<tr><th {left}>{html.escape(name)}</th><td {left}>{html.escape(text)}</td></tr>"
            for name, text in self.cells()
        )
        notes = "".join(f"<div><small>{html.escape(note)}</small></div>" for note in self.notes)
        return f"<table>{rows}</table>{notes}"


def make_estimate(
    model: str,
    demand: Demand,
    rates: Rates,
    rate: Rate,
    *,
    rows: int,
    skipped: int,
    reused: int,
    measured: Measured | None,
) -> Estimate:
    """An `Estimate` of what was counted."""
    most = None if demand.uncapped else demand.capped_tokens
    about = None if measured is None else round(demand.requests * measured.mean_tokens)
    longest = most if most is not None else about or 0
    return Estimate(
        model=model,
        rows=rows,
        skipped=skipped,
        reused=reused,
        requests=demand.requests,
        prompt_tokens=demand.prompt_tokens,
        max_completion_tokens=most,
        expected_completion_tokens=about,
        batch_usd=rates.batch.usd(demand.prompt_tokens, longest),
        live_usd=rates.live.usd(demand.prompt_tokens, longest),
        rate=rate,
        notes=tuple(_notes(model, demand)),
    )


def _notes(model: str, demand: Demand) -> list[str]:
    name, own = vocabulary(model)
    notes = [] if own else [f"tokens estimated with {name}: the model's own are not known"]
    if demand.uncounted:
        notes.append(
            f"{demand.uncounted:,} images are not counted: what they take with this model is not "
            "known"
        )
    return notes


@dataclass(frozen=True, eq=False)
class JobUsage:
    """What a job has taken so far, by the responses that came; see `Job.usage`.

    Parameters
    ----------
    table : DataFrame
        A row for each round and model: ``round``, ``model``, ``requests`` (those with an answer
        that tells its tokens), ``prompt_tokens``, ``cached_tokens`` (of the prompt tokens),
        ``completion_tokens`` and ``cost_usd`` (``<NA>`` where the model's price is not known).
    reused : int
        Requests whose answers the store had already; they cost nothing here and are not in the
        table.
    """

    table: pd.DataFrame
    reused: int = 0

    def _total(self, name: str) -> int:
        return int(self.table[name].sum())

    @property
    def requests(self) -> int:
        """Requests that were answered and paid for."""
        return self._total("requests")

    @property
    def prompt_tokens(self) -> int:
        """Tokens read, cached ones too."""
        return self._total("prompt_tokens")

    @property
    def cached_tokens(self) -> int:
        """Of the prompt tokens, those that were cheaper."""
        return self._total("cached_tokens")

    @property
    def completion_tokens(self) -> int:
        """Tokens written."""
        return self._total("completion_tokens")

    @property
    def usd(self) -> float | None:
        """What all of it cost; None where the price of one of the models is not known."""
        costs = self.table["cost_usd"]
        return None if costs.isna().any() else float(costs.sum())

    def __str__(self) -> str:
        reused = f"; {self.reused:,} answers reused for nothing" if self.reused else ""
        return (
            f"{self.requests:,} requests, {self.prompt_tokens:,} prompt tokens "
            f"({self.cached_tokens:,} cached), {self.completion_tokens:,} completion tokens, "
            f"{show_usd(self.usd)}{reused}"
        )

    def __repr__(self) -> str:
        return f"{self.table.to_string(index=False)}\ntotal: {self}"

    def _repr_html_(self) -> str:
        return f"{self.table.to_html(index=False)}<div>total: {html.escape(str(self))}</div>"


def with_costs(
    columns: dict[str, pd.Series], costs: npt.NDArray[np.float64], name: str
) -> dict[str, pd.Series]:
    """The columns of ``usage=True`` with ``<name>_cost_usd`` behind the tokens."""
    import pandas as pd  # noqa: PLC0415 - this module is imported where no frame is

    found: dict[str, pd.Series] = {}
    for column, series in columns.items():
        found[column] = series
        if column == f"{name}_completion_tokens":
            found[f"{name}_cost_usd"] = pd.Series(costs).astype("Float64")
    return found
