"""Estimate the tokens and the price of a frame's requests."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from frameenrich.identity.dedupe import ShortHashes, is_in, short_hashes
from frameenrich.lifecycle.approve import (
    SHORTEST_PREFIX_TOKENS,
    AnswerLengths,
    TokenDemand,
    written_tokens,
)
from frameenrich.model import JobSpec
from frameenrich.prepare.check_frame import check_frame
from frameenrich.prepare.options import Plan
from frameenrich.pricing.money import show_usd
from frameenrich.pricing.prices import (
    FREE,
    Rate,
    Rates,
    find_rates,
    rate_of,
    tier_of,
    unknown_price,
)
from frameenrich.pricing.tokens import Counted, TokenCounter, counts_bytes, vocabulary
from frameenrich.rendering.encode_rows import row_requests
from frameenrich.text import NO_MATH

_EMPTY = Counted("", 0, 0)


FindAnswered = Callable[[ShortHashes], ShortHashes]
"""Returns the hashes of the requests with usable answers in the store, given halves of all."""


# --- before ---------------------------------------------------------------------------------------


def estimate_frame(
    frame: pd.DataFrame, plan: Plan, measured: AnswerLengths | None, answered: FindAnswered
) -> Estimate:
    """Estimate what submitting a frame would send and cost; sends and writes nothing.

    Rendered rows are counted as they come: 24 bytes a row are kept.

    Raises
    ------
    ParameterError
        The model's price is not known.
    """
    check_price(plan.spec)
    plan.check_uses_rows(list(frame.columns), len(frame))
    return estimate_counts([count_frame(frame, plan)], plan, measured, answered)


def check_price(spec: JobSpec) -> Rates:
    """Return the prices that a job is reckoned at.

    Raises
    ------
    ParameterError
        The model's price is not known.
    """
    # An own model costs nothing whatever it is called, so no price list is asked about it.
    rates = (
        Rates(FREE, FREE)
        if rate_of(spec) == "free"
        else find_rates(spec.model, spec.prices, spec.provider, tier_of(spec))
    )
    if rates is None:
        raise unknown_price(spec.model)
    return rates


def estimate_counts(
    parts: Sequence[Counts], plan: Plan, measured: AnswerLengths | None, answered: FindAnswered
) -> Estimate:
    """Estimate what submitting a frame would send and cost, from the counts of its parts."""
    # Requests with an answer in the store cost nothing, so they are taken out before anything is
    # summed.
    spec, counts = plan.spec, _together(parts)
    free = is_in(answered(counts.hashes), counts.hashes)
    paid = ~free
    cap = counts.last.cap
    demand = TokenDemand(
        requests=int(paid.sum()),
        prompt_tokens=int(counts.tokens[paid].sum()),
        capped_tokens=(cap or 0) * int(paid.sum()),
        uncapped=int(paid.sum()) if cap is None else 0,
        uncounted=int(counts.images[paid].sum()),
        prefix_tokens=counts.last.prefix_tokens * int(paid.sum()),
        written_tokens=_written(counts, paid),
    )
    # Anthropic bills its one-hour marks at another price than the short ones (docs/providers.md).
    if counts.last.mark == "cache_control":
        demand.written_1h_tokens = demand.written_tokens
    return make_estimate(
        spec.model,
        demand,
        check_price(spec),
        rate_of(spec),
        rows=counts.rows,
        skipped=counts.rows - counts.requested,
        reused=int(free.sum()),
        measured=measured,
        cached=spec.cache is not None,
    )


def _written(counts: Counts, paid: npt.NDArray[np.bool_]) -> int:
    """Count the tokens that may be billed as cache writes; all rows are marked alike."""
    if counts.last.mark:
        return counts.last.prefix_tokens * int(paid.sum())
    tokens = counts.tokens[paid]
    longest = counts.last._replace(prompt_tokens=int(tokens.max(initial=0)))
    return int(tokens[tokens >= SHORTEST_PREFIX_TOKENS].sum()) if written_tokens(longest) else 0


@dataclass(frozen=True)
class Counts:
    """The distinct requests of a frame: halves of their hashes in order, and their tokens.

    ``rows`` is how many rows there are, ``requested`` how many of them have a request, ``last``
    what was counted of one of them.
    """

    rows: int
    hashes: ShortHashes
    tokens: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    requested: int
    last: Counted


def count_frame(frame: pd.DataFrame, plan: Plan) -> Counts:
    """Render a frame and count the tokens of its requests.

    Raises
    ------
    InputError
        A row cannot be rendered, or the keys do not name the rows.
    """
    check_frame(frame, plan)
    counter, last, requested = TokenCounter(plan.spec.endpoint), _EMPTY, 0
    # Half a hash and two counts a row, so a frame of millions of rows needs no list of requests.
    hashes, tokens = np.empty(len(frame), np.uint64), np.empty(len(frame), np.int64)
    images = np.zeros(len(frame), np.int64)
    for found in row_requests(frame, plan.spec, plan.prompt):
        own = slice(requested, requested + len(found.bodies))
        hashes[own] = short_hashes(found.request_hashes)
        for i, body in enumerate(found.bodies, requested):
            last = counter.count(body)
            tokens[i], images[i] = last.prompt_tokens, last.uncounted
        requested += len(found.bodies)
    # Equal requests are sent and paid once.
    distinct, first = np.unique(hashes[:requested], return_index=True)
    return Counts(len(frame), distinct, tokens[first], images[first], requested, last)


def _together(parts: Sequence[Counts]) -> Counts:
    """Merge the counts of a frame's parts; equal requests count once."""
    distinct, first = np.unique(np.concatenate([p.hashes for p in parts]), return_index=True)
    return Counts(
        sum(p.rows for p in parts),
        distinct,
        np.concatenate([p.tokens for p in parts])[first],
        np.concatenate([p.images for p in parts])[first],
        sum(p.requested for p in parts),
        # All requests share cap and prefix, so any part's last one stands for all.
        next((p.last for p in parts if p.requested), _EMPTY),
    )


@dataclass(frozen=True)
class Estimate:
    """Requests, tokens and cost of a submit; see ``df.llmbatch.estimate``.

    Parameters
    ----------
    model : str
        The model.
    rows : int
        Rows of the frame.
    skipped : int
        Rows that the null policy leaves out.
    reused : int
        Requests that the store has a usable answer to: free.
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
    counted_bytes : bool
        Whether no tokenizer was there, so that bytes bound the prompts' tokens.
    cached_usd : float or None
        With ``cache=``: what it comes to where every request but the first finds the system
        message cached; the other amounts are those where none does.
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
    counted_bytes: bool = False
    cached_usd: float | None = None

    @property
    def usd(self) -> float:
        """The cost with the provider that was named."""
        return {"batch": self.batch_usd, "live": self.live_usd, "free": 0.0}[self.rate]

    @property
    def bound(self) -> str:
        """How to read the amounts: ``at most``, ``about`` or ``at least``.

        Or ``prompts at most``, where nothing is known of the answers and bytes bound the prompts.
        """
        if self.max_completion_tokens is not None:
            return "at most"
        if self.expected_completion_tokens is not None:
            return "about"
        return "prompts at most" if self.counted_bytes else "at least"

    def cells(self) -> list[tuple[str, str]]:
        """Return the estimate for a person, as names and texts."""
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
            ("prompt tokens", f"{'at most ' if self.counted_bytes else ''}{self.prompt_tokens:,}"),
            ("completion tokens", answers),
        ]
        if self.rate == "free":
            return [*cells, ("cost", "nothing")]
        # Both, whatever the provider: whether half the price is worth a day's wait is the user's to
        # decide.
        amounts = (("batch", self.batch_usd), ("live", self.live_usd))
        return [
            *cells,
            *((f"cost, {how}", f"{self.bound} {show_usd(usd)}") for how, usd in amounts),
            *self._cached_cells(),
        ]

    def _cached_cells(self) -> list[tuple[str, str]]:
        if self.cached_usd is None:
            return []
        words = "if all but the first find the system message cached"
        return [("cost, cached", f"{show_usd(self.cached_usd)} {words}")]

    def as_dict(self) -> dict[str, Any]:
        """Return the estimate for a program."""
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
        return f"<div class='{NO_MATH}'><table>{rows}</table>{notes}</div>"


def make_estimate(
    model: str,
    demand: TokenDemand,
    rates: Rates,
    rate: Rate,
    *,
    rows: int,
    skipped: int,
    reused: int,
    measured: AnswerLengths | None,
    cached: bool = False,
) -> Estimate:
    """Make an `Estimate` from counts, prices and earlier answers' lengths."""
    most = None if demand.uncapped else demand.capped_tokens
    about = None if measured is None else round(demand.requests * measured.mean_tokens)
    # Without a cap the most is unknown: earlier answers' mean stands in, and `bound` says so.
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
        batch_usd=demand.most(rates.batch, longest),
        live_usd=demand.most(rates.live, longest),
        cached_usd=demand.least(rates.at(rate), longest) if cached else None,
        rate=rate,
        notes=(*_notes(model, demand), *(_cache_notes(demand) if cached else ())),
        counted_bytes=counts_bytes() and rate != "free",
    )


def _cache_notes(demand: TokenDemand) -> list[str]:
    prefix = demand.prefix_tokens // max(demand.requests, 1)
    if prefix < SHORTEST_PREFIX_TOKENS:
        least = f"{SHORTEST_PREFIX_TOKENS:,}"
        words = f"providers cache from {least} on (Anthropic from 512 to 4,096, by model)"
        return [f"the system message has {prefix:,} tokens: {words}"]
    return []


def _notes(model: str, demand: TokenDemand) -> list[str]:
    name, own = vocabulary(model)
    notes = [] if own else [f"tokens estimated with {name}: the model's own are not known"]
    if counts_bytes():
        bound = (
            "the prompts' tokens are at most their bytes, about four times what English text has; "
            "pip install 'frameenrich[cost]' counts them exactly"
        )
        # The bound replaces the note on the vocabulary: bytes are the same for every model.
        notes = [bound]
    if demand.uncounted:
        notes.append(
            f"{demand.uncounted:,} images are not counted: what they take with this model is not "
            "known"
        )
    return notes
