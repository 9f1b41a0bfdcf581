"""Check a job or a round against `max_cost` before anything is sent."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice

from frameenrich.errors import BudgetError, ParameterError, StoreError
from frameenrich.lifecycle.usage import billed_lines, job_usage, prices_of, unanswered_requests
from frameenrich.model import JobSpec, Json
from frameenrich.pricing.money import Budget, show_usd
from frameenrich.pricing.prices import (
    Price,
    Prices,
    Rate,
    find_rates,
    has_breakpoints,
    price_list_of,
    rate_of,
    tier_of,
    unknown_price,
)
from frameenrich.pricing.tokens import Counted, TokenCounter, count_line
from frameenrich.store.folder import JobFolder, job_folders
from frameenrich.store.shard import ShardFolder
from frameenrich.store.store import Store

_MEASURED_ANSWERS = 5_000
"""The number of a job's answers that are read to measure their length."""


def measure_answers(store: Store, spec: JobSpec) -> AnswerLengths | None:
    """Measure this store's earlier answers to the same templates, model and parameters."""
    lengths: list[int] = []
    for folder in job_folders(store):
        # Answers to another template or model say nothing of how long these will be.
        if _asks_the_same(folder.spec, spec):
            with contextlib.suppress(StoreError):  # a damaged job tells nothing
                lengths += _lengths(folder)
    return _measured(lengths)


def _measured(lengths: list[int]) -> AnswerLengths | None:
    if not lengths:
        return None
    return AnswerLengths(len(lengths), sum(lengths) / len(lengths), max(lengths))


def _asks_the_same(other: JobSpec, spec: JobSpec) -> bool:
    if not spec.messages:  # the requests came ready: nothing says that they are alike
        return False
    # All that decides how long answers get; rows differ, and are what is sampled.
    ours = (spec.model, spec.messages, spec.endpoint, spec.params, spec.output.schema)
    theirs = (other.model, other.messages, other.endpoint, other.params, other.output.schema)
    return ours == theirs


def _lengths(folder: JobFolder) -> list[int]:
    lines = (line for shard in folder.all_shards() for line in billed_lines(shard))
    return [line.completion_tokens for line in islice(lines, _MEASURED_ANSWERS)]


def approve_job(spec: JobSpec, store: Store, lines: Iterable[bytes]) -> None:
    """Refuse a job's requests where they could cost more than its cap; reads none without one."""
    # Only under a cap: counting tokens reads every request of the job.
    if spec.max_cost is not None:
        measured = measure_answers(store, spec)
        cost = _max_cost(spec, lines, spec.prices, measured)
        refuse_over_budget(cost, spec.max_cost)


def approve_probe(spec: JobSpec, store: Store, lines: Iterable[bytes]) -> None:
    """Refuse a job where it and one live call of its first request could exceed its cap.

    The live call costs twice what the same request costs in the batch, which it then is not in:
    so all of them and the first one once more are what may be spent.
    """
    if spec.max_cost is not None:
        own = iter(lines)
        first = list(islice(own, 1))
        approve_job(spec, store, chain(first, first, own))


def approve_round(
    folder: JobFolder,
    budget: Budget,
    lines: Iterable[bytes],
    provider: str | None = None,
    ending: Collection[ShardFolder] = (),
    params: Mapping[str, Json] | None = None,
) -> None:
    """Refuse a round's requests where they could bring the job over its cap.

    `provider` is where the round goes, where that is not the job's own provider. `ending` are the
    shards that the round is to take over, whose requests are therefore among `lines`. `params` are
    the round's own, as a service tier has its own price.
    """
    spec = folder.spec
    # A later call's cap wins: to go beyond a cap is to name a greater one.
    cap = budget.max_cost if budget.max_cost is not None else spec.max_cost
    if cap is None:
        return
    prices, measured = prices_of(folder, budget), _measured(_lengths(folder))
    changed = replace(spec, params={**spec.params, **(params or {})})
    to_come = _max_cost(changed, lines, prices, measured, provider)
    # What runs counts in full: nobody knows yet what it will cost.
    running = sum(
        _max_cost(
            spec,
            (line for _, line in unanswered_requests(shard)),
            prices,
            measured,
            shard.batch.provider,
        )
        for shard in folder.all_shards()
        # Requests of shards that this round takes over are in `lines`, and would be counted twice.
        if not shard.batch.settled and shard not in ending
    )
    refuse_over_budget(to_come, cap, _spent_usd(folder, prices), running)


def _max_cost(
    spec: JobSpec,
    lines: Iterable[bytes],
    prices: Prices,
    measured: AnswerLengths | None,
    provider: str | None = None,
) -> float:
    rate, whose = rate_of(spec, provider), price_list_of(spec, provider)
    counter = TokenCounter(spec.endpoint)
    demands = sum_demand(count_line(line, counter) for line in lines)
    return most_usd(demands, prices, whose, rate, measured, tier_of(spec))


def _spent_usd(folder: JobFolder, prices: Prices) -> float:
    used = job_usage(folder, prices)
    if used.usd is None:
        # A sum without the unknown price would be too low, and a cap no longer one.
        unknown = used.table["model"][used.table["cost_usd"].isna()]
        raise unknown_price(str(unknown.iloc[0]))
    return used.usd


# Sums of floats may pass a cap by rounding alone; a cap of exactly the cost has to do.
_ROUNDING_USD = 1e-9


@dataclass(frozen=True)
class AnswerLengths:
    """Token counts of earlier answers to the same template and model."""

    answers: int
    mean_tokens: float
    most_tokens: int


@dataclass
class TokenDemand:
    """Token counts of some requests to one model.

    ``capped_tokens`` is the most that those answers can have whose requests say it; ``uncapped``
    counts the other requests, ``uncounted`` the images without a known number of tokens.
    ``prefix_tokens`` are those of the system messages; of all tokens, ``written_tokens`` may be
    billed as put into a cache, in every request at worst, ``written_1h_tokens`` for an hour.
    """

    requests: int = 0
    prompt_tokens: int = 0
    capped_tokens: int = 0
    uncapped: int = 0
    uncounted: int = 0
    prefix_tokens: int = 0
    written_tokens: int = 0
    written_1h_tokens: int = 0

    def add(self, found: Counted) -> None:
        """Add one request."""
        self.requests += 1
        self.prompt_tokens += found.prompt_tokens
        self.capped_tokens += found.cap or 0
        self.uncapped += found.cap is None
        self.uncounted += found.uncounted
        self.prefix_tokens += found.prefix_tokens
        self.written_tokens += written_tokens(found)
        self.written_1h_tokens += found.prefix_tokens if found.mark == "cache_control" else 0

    def most(self, price: Price, completion_tokens: float) -> float:
        """Price the requests as if none found anything in a cache."""
        written = (self.written_tokens, self.written_1h_tokens)
        return price.usd(self.prompt_tokens, completion_tokens, 0, *written)

    def least(self, price: Price, completion_tokens: float) -> float:
        """Price the requests as if all but the first found their system messages cached."""
        hits = self.prefix_tokens * max(self.requests - 1, 0) / max(self.requests, 1)
        share = 1 / max(self.requests, 1)
        written = (self.written_tokens * share, self.written_1h_tokens * share)
        return price.usd(self.prompt_tokens, completion_tokens, hits, *written)


SHORTEST_PREFIX_TOKENS = 1024
"""The shortest prefix that OpenAI caches; Anthropic's is 512 to 4,096, by model."""


def written_tokens(found: Counted) -> int:
    """Return how many tokens of a request may be billed as put into a cache.

    Examples
    --------
    >>> written_tokens(Counted("claude-haiku-4-5", 2100, 9, 0, 2000, "cache_control"))
    2000
    >>> written_tokens(Counted("gpt-5.6-luna", 2100, 9, 0, 2000))
    2100
    """
    if found.mark:
        return found.prefix_tokens
    # Without a mark of ours, such a model marks the prompt where it likes.
    at_will = has_breakpoints(found.model) and found.prompt_tokens >= SHORTEST_PREFIX_TOKENS
    return found.prompt_tokens if at_will else 0


def sum_demand(counted: Iterable[Counted]) -> dict[str, TokenDemand]:
    """Add up the tokens that requests ask for, by model."""
    demands: dict[str, TokenDemand] = {}
    for found in counted:
        demands.setdefault(found.model, TokenDemand()).add(found)
    return demands


def most_usd(
    demands: Mapping[str, TokenDemand],
    prices: Prices,
    provider: str,
    rate: Rate,
    measured: AnswerLengths | None,
    tier: str = "",
) -> float:
    """Return the most that requests can cost.

    An answer without a cap counts as the longest one that was measured.

    Raises
    ------
    ParameterError
        A price, the length of answers, or what an image takes is not known.
    """
    # The most that can be paid, never a guess at the average: prompt tokens (exact where the
    # model's vocabulary is known), and the cap on the answer. Where there is no cap, the longest
    # answer that this store saw to the same template, model and parameters; without one it refuses.
    total = 0.0
    for model, demand in demands.items():
        if rate == "free":
            continue
        rates = find_rates(model, prices, provider, tier)
        if rates is None:
            raise unknown_price(model)
        if demand.uncapped and measured is None:
            raise ParameterError(
                f"max_cost= cannot be kept: nothing limits the length of {demand.uncapped:,} "
                "answers.",
                'Set params={"max_tokens": ...} (max_completion_tokens, max_output_tokens), or '
                "have a few rows answered first: pilot().",
            )
        if demand.uncounted:
            raise ParameterError(
                f"max_cost= cannot be kept: it is not known what an image costs with {model!r}.",
                "Leave out max_cost=, or use a model whose image tokens are documented.",
            )
        longest = demand.capped_tokens + demand.uncapped * (measured.most_tokens if measured else 0)
        total += demand.most(rates.at(rate), longest)
    return total


def refuse_over_budget(
    next_usd: float, max_usd: float, spent_usd: float = 0.0, running_usd: float = 0.0
) -> None:
    """Refuse to send what could cost more than is left of the cap.

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
    """Round a cap up to cents, or to two significant digits where it is small."""
    # Rounded up, so that the cap which the message suggests is accepted.
    digits = max(2, 1 - math.floor(math.log10(usd))) if usd > 0 else 2
    return f"{math.ceil(usd * 10**digits) / 10**digits:.{digits}f}"
