"""Read out of the responses what jobs, rounds and rows cost.

What was spent is always what the responses say, of every round and every line: flagged answers
are paid for, too. What runs counts as much as it can still cost. Only reads the store.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.answers.arrow_column import Positions
from frameenrich.answers.judge import read_response
from frameenrich.jsonl import DECODE_ERRORS, ResponseLine, request_ids, split_lines
from frameenrich.lifecycle.results import JobResults
from frameenrich.model import TAKEN_OVER, Json
from frameenrich.pricing.money import Budget, show_usd
from frameenrich.pricing.prices import (
    FREE,
    Price,
    Prices,
    price_list_of,
    rate_of,
    rates_of_answer,
)
from frameenrich.store.folder import JobFolder
from frameenrich.store.shard import ShardFolder, model_of
from frameenrich.text import NO_MATH


def prices_of(folder: JobFolder, budget: Budget) -> Prices:
    """Return a job's prices: this call's win over the spec's."""
    return {**folder.spec.prices, **budget.prices}


# --- after ----------------------------------------------------------------------------------------


_STANDARD = ("default", "standard", "auto", "scale", None)
"""The service tiers at the standard price, as answers name them."""


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None


# Chat completions count `prompt_tokens`, the Responses API `input_tokens`: the same thing.
class _Tokens(msgspec.Struct):
    prompt_tokens: int | None = None
    input_tokens: int | None = None
    completion_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None
    input_tokens_details: _Cached | None = None


class _Body(msgspec.Struct):
    usage: _Tokens | None = None
    model: str | None = None
    service_tier: str | None = None


_decode_line = msgspec.json.Decoder(ResponseLine[_Body | None, msgspec.Raw]).decode


# A server may say anything; a larger number would spoil every sum it is in.
_MOST_TOKENS = 10**12


@dataclass(frozen=True, slots=True)
class _Billed:
    """A response line with its token counts."""

    custom_id: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    written_tokens: int
    written_1h_tokens: int
    completion_tokens: int
    tier: str = ""


def billed_lines(shard: ShardFolder) -> Iterator[_Billed]:
    """Yield a shard's lines that were paid for in this job, each request once."""
    # Copied answers were paid for by the job that they come from.
    if shard.batch.reused_from:
        return
    seen = _taken_over(shard)
    for line in split_lines(shard.read_responses()):
        found = _read(line)
        # A line may come twice, from an import and a fetch; the request was paid once.
        if found is not None and found.custom_id not in seen:
            seen.add(found.custom_id)
            yield found


def _taken_over(shard: ShardFolder) -> set[str]:
    """Return the custom_ids whose answers another job paid for."""
    if not any(own.id == TAKEN_OVER for own in shard.batch.imports):
        return set()
    files = shard.job.store.open_pieces(shard.import_path(TAKEN_OVER))
    lines = (line for file in files for line in file)
    return {found.custom_id for found in map(_read, lines) if found is not None}


def unanswered_requests(shard: ShardFolder) -> Iterator[tuple[str, bytes]]:
    """Yield a shard's requests that can still cost something, each line with its custom_id."""
    if shard.batch.settled:
        return
    # An answer that came is in the usage; counted here as well, it would be paid twice.
    answered = {line.custom_id for line in billed_lines(shard)}
    with shard.open_requests() as lines:
        for custom_id, line in request_ids(lines):
            if custom_id not in answered:
                yield custom_id, line


def _read(line: bytes) -> _Billed | None:
    try:
        read = _decode_line(line)
        body = None if read.response is None else read.response.body
        custom_id = read.custom_id
    except DECODE_ERRORS:
        custom_id = None
    if not isinstance(custom_id, str):  # of another form, or broken: slowly, with all that is met
        response = read_response(line)
        if response is None:
            return None
        # Some servers write counts as text, which the quick reader refuses.
        body, custom_id = _loosely(response.body), response.custom_id
    if body is None or body.usage is None:
        return None
    used = body.usage
    details = used.prompt_tokens_details or used.input_tokens_details or _Cached()
    return _Billed(
        custom_id,
        body.model or "",
        _likely(used.prompt_tokens or used.input_tokens),
        _likely(details.cached_tokens),
        _likely(details.cache_write_tokens),
        _likely(details.cache_write_1h_tokens),
        _likely(used.completion_tokens or used.output_tokens),
        "" if body.service_tier in _STANDARD else body.service_tier or "",
    )


def _likely(tokens: int | None) -> int:
    """Return a count of tokens; 0 where it is missing, negative or impossibly large."""
    return tokens if tokens is not None and 0 <= tokens < _MOST_TOKENS else 0


def _loosely(body: Json) -> _Body | None:
    try:
        return msgspec.convert(body, _Body, strict=False)
    except DECODE_ERRORS:
        return None


@dataclass
class _CostTable:
    """Prices a job's response lines, each at its own model's price."""

    folder: JobFolder
    prices: Prices

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, str, str, str | None], Price | None] = {}

    def price(
        self, sent_model: str, answered: str, tier: str = "", provider: str | None = None
    ) -> Price | None:
        """Return an answer's price; None where it is not known."""
        key = sent_model, answered, tier, provider
        # Kept by what decides it: a job has many lines and few models.
        if key not in self._known:
            rate = rate_of(self.folder.spec, provider)
            whose = price_list_of(self.folder.spec, provider)
            rates = rates_of_answer(sent_model, answered, self.prices, whose, tier)
            price = FREE if rate == "free" else None if rates is None else rates.at(rate)
            self._known[key] = price
        return self._known[key]

    def usd(self, sent_model: str, line: _Billed, provider: str | None) -> float:
        """Return what a line cost at a provider; NaN where its price is not known."""
        # Some servers answer without the model's name; then it is the one that was asked for.
        price = self.price(sent_model, line.model or sent_model, line.tier, provider)
        if price is None:
            return math.nan
        return price.usd(
            line.prompt_tokens,
            line.completion_tokens,
            line.cached_tokens,
            line.written_tokens,
            line.written_1h_tokens,
        )


def job_usage(folder: JobFolder, prices: Prices) -> JobUsage:
    """Add up tokens and cost of a job's responses, by round and model."""
    costs, reused = _CostTable(folder, prices), 0
    sums: dict[tuple[int, str], list[float]] = {}
    for shard in folder.all_shards():
        reused += (shard.batch.total or 0) if shard.batch.reused_from else 0
        sent_model = model_of(shard)
        for line in billed_lines(shard):
            own = sums.setdefault((shard.round, line.model or sent_model), [0, 0, 0, 0, 0, 0.0])
            prompt = (line.prompt_tokens, line.cached_tokens, line.written_tokens)
            tokens = (*prompt, line.completion_tokens)
            usd = costs.usd(sent_model, line, shard.batch.provider)
            for i, amount in enumerate((1, *tokens, usd)):
                own[i] += amount
    # By model and not by shard: prices differ by model, and people ask what each cost.
    table = pd.DataFrame(
        [[*key, *own] for key, own in sorted(sums.items())], columns=list(_USAGE_TYPES)
    )
    return JobUsage(table.astype(_USAGE_TYPES), reused)


_USAGE_TYPES = {
    "round": "Int64",
    "model": "string",
    "requests": "Int64",
    "prompt_tokens": "Int64",
    "cached_tokens": "Int64",
    "cache_write_tokens": "Int64",
    "completion_tokens": "Int64",
    "cost_usd": "Float64",
}


def row_costs(
    folder: JobFolder,
    prices: Prices,
    found: JobResults,
    positions: Positions,
    shares: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float64]:
    """Return each row's cost, USD; NaN where a price is not known or there is no request.

    A row's cost is that of all its requests in this job, of every round; rows that share a
    request share its cost in equal parts. So the costs of all the job's rows add up to
    `JobUsage.usd`. An answer that was reused cost nothing.

    Parameters
    ----------
    folder, prices, found : JobFolder, Prices, JobResults
        The job, its prices, and what was gathered of it.
    positions : int64 array
        Where the frame's rows are in what was gathered; -1 for rows that the job never saw.
    shares : int64 array, optional
        How many rows of the job share each line's request, where not all lines were gathered.
    """
    cost = _cost_by_slot(folder, prices, found)
    if shares is None:
        shares = np.bincount(found.slots[found.slots >= 0], minlength=len(cost))
    # In equal parts, so that the column adds up to `job.usage().usd`.
    cost[: len(shares)] /= np.maximum(shares, 1)
    slots = found.at(positions)
    return np.where(slots >= 0, cost[slots], math.nan)


def _cost_by_slot(folder: JobFolder, prices: Prices, found: JobResults) -> npt.NDArray[np.float64]:
    """Add up the cost of each request of round 0, with its later rounds."""
    costs, cost = _CostTable(folder, prices), np.zeros(found.table.slots)
    for round_ in range(folder.rounds()):
        for shard, ids, slots in _requests_by_shard(folder, found, round_):
            sent_model = model_of(shard)
            lines = [
                (line.custom_id, costs.usd(sent_model, line, shard.batch.provider))
                for line in billed_lines(shard)
            ]
            billed = pa.array([custom_id for custom_id, _ in lines], pa.string())
            found_at = np.asarray(pc.index_in(billed, value_set=ids).fill_null(-1))
            own = found_at >= 0
            # Not `+=`, which counts a slot once however often it occurs.
            np.add.at(cost, slots[found_at[own]], np.array([usd for _, usd in lines])[own])
    return cost


def _requests_by_shard(
    folder: JobFolder, found: JobResults, round_: int
) -> Iterator[tuple[ShardFolder, pa.Array, Positions]]:
    """Yield each shard of a round with its custom_ids and the slots that they answer."""
    # Round 0's ids are in memory with the results; those of a later round are in its sidecar.
    ids, numbers, slots = found.custom_ids, found.shards, found.slots
    if round_:
        table, slots = found.retried(folder, round_)
        ids, numbers = table["custom_id"], table["shard"].to_numpy()
    for shard in folder.shards(round_):
        found_at = np.flatnonzero(numbers == shard.number)
        if len(found_at):
            yield shard, ids.take(pa.array(found_at)), slots[found_at]


@dataclass(frozen=True, eq=False)
class JobUsage:
    """Tokens and cost of a job so far, by the responses that came; see `Job.usage`.

    Parameters
    ----------
    table : DataFrame
        A row for each round and model: ``round``, ``model``, ``requests`` (those with an answer
        that tells its tokens), ``prompt_tokens``, ``cached_tokens`` and ``cache_write_tokens`` (of
        the prompt tokens), ``completion_tokens`` and ``cost_usd`` (``<NA>`` where the model's price
        is not known).
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
    def cache_write_tokens(self) -> int:
        """Of the prompt tokens, those that were put into a cache, which may be dearer."""
        return self._total("cache_write_tokens")

    @property
    def completion_tokens(self) -> int:
        """Tokens written."""
        return self._total("completion_tokens")

    @property
    def usd(self) -> float | None:
        """Return what all of it cost; None where the price of one of the models is not known."""
        # A sum that leaves out an unknown price would pass for the whole.
        costs = self.table["cost_usd"]
        return None if costs.isna().any() else float(costs.sum())

    def __str__(self) -> str:
        reused = f"; {self.reused:,} answers reused for nothing" if self.reused else ""
        written = f", {self.cache_write_tokens:,} written" if self.cache_write_tokens else ""
        return (
            f"{self.requests:,} requests, {self.prompt_tokens:,} prompt tokens "
            f"({self.cached_tokens:,} cached{written}), "
            f"{self.completion_tokens:,} completion tokens, {show_usd(self.usd)}{reused}"
        )

    def __repr__(self) -> str:
        return f"{self.table.to_string(index=False)}\ntotal: {self}"

    def _repr_html_(self) -> str:
        total = f"<div>total: {html.escape(str(self))}</div>"
        return f"<div class='{NO_MATH}'>{self.table.to_html(index=False)}{total}</div>"


def with_costs(
    columns: dict[str, pd.Series], costs: npt.NDArray[np.float64], name: str
) -> dict[str, pd.Series]:
    """Return the columns of ``usage=True`` with ``<name>_cost_usd`` behind the tokens."""
    import pandas as pd  # noqa: PLC0415 - this module is imported where no frame is

    found: dict[str, pd.Series] = {}
    for column, series in columns.items():
        found[column] = series
        if column == f"{name}_completion_tokens":
            found[f"{name}_cost_usd"] = pd.Series(costs).astype("Float64")
    return found
