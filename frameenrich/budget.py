"""What jobs cost: estimated before anything is sent, held to a cap, and read out of responses.

What was spent is always what the responses say, of every round and every line: flagged answers
are paid for, too. What runs counts as much as it can still cost. Only reads the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.advance import model_of
from frameenrich.column import Positions
from frameenrich.cost import (
    Budget,
    Demand,
    Estimate,
    JobUsage,
    Measured,
    make_estimate,
    most_usd,
    refuse_over_budget,
    sum_demand,
)
from frameenrich.gather import Gathered
from frameenrich.model import JobSpec, Json
from frameenrich.parse import read_response, split_lines
from frameenrich.plan import Plan
from frameenrich.prices import (
    FREE,
    Price,
    Prices,
    Rates,
    find_rates,
    rate_of,
    rates_of_answer,
    unknown_price,
)
from frameenrich.providers.base import request_ids
from frameenrich.repeats import Halves, halves
from frameenrich.rows import row_requests
from frameenrich.store import JobFolder, ShardFolder, Store
from frameenrich.tokens import Counted, TokenCounter, count_line
from frameenrich.write import Approve, check_frame

_MEASURED_ANSWERS = 5_000
"""How many answers of a job are read to measure their length."""
_EMPTY = Counted("", 0, 0)

Asked = Callable[[Halves], Iterable[bytes]]
"""The hashes of the requests that the store has good answers to, given the halves of all."""


# --- before ---------------------------------------------------------------------------------------


def estimate_frame(
    frame: pd.DataFrame, plan: Plan, measured: Measured | None, answered: Asked
) -> Estimate:
    """What submitting a frame would send and cost; sends and writes nothing.

    Rendered rows are counted as they come: 20 bytes a row are kept.

    Raises
    ------
    ParameterError
        The model's price is not known.
    """
    check_price(plan.spec)
    return estimate_counts([count_frame(frame, plan)], plan, measured, answered)


def check_price(spec: JobSpec) -> Rates:
    """What a job goes by.

    Raises
    ------
    ParameterError
        The model's price is not known.
    """
    rates = (
        Rates(FREE, FREE)
        if rate_of(spec) == "free"
        else find_rates(spec.model, spec.prices, spec.provider)
    )
    if rates is None:
        raise unknown_price(spec.model)
    return rates


def estimate_counts(
    parts: Sequence[Counts], plan: Plan, measured: Measured | None, answered: Asked
) -> Estimate:
    """What submitting a frame would send and cost, given what was counted of its parts."""
    spec, counts = plan.spec, _together(parts)
    reused = halves(b"".join(answered(counts.hashes)))
    free = np.isin(counts.hashes, reused)
    paid = ~free
    cap = counts.last.cap
    demand = Demand(
        requests=int(paid.sum()),
        prompt_tokens=int(counts.tokens[paid].sum()),
        capped_tokens=(cap or 0) * int(paid.sum()),
        uncapped=int(paid.sum()) if cap is None else 0,
        uncounted=int(counts.images[paid].sum()),
    )
    return make_estimate(
        spec.model,
        demand,
        check_price(spec),
        rate_of(spec),
        rows=counts.rows,
        skipped=counts.rows - counts.asked,
        reused=int(free.sum()),
        measured=measured,
    )


@dataclass(frozen=True)
class Counts:
    """The distinct requests of a frame: halves of their hashes in order, and their tokens.

    ``rows`` is how many rows there are, ``asked`` how many of them have a request, ``last`` what
    was counted of one of them.
    """

    rows: int
    hashes: Halves
    tokens: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    asked: int
    last: Counted


def count_frame(frame: pd.DataFrame, plan: Plan) -> Counts:
    """Render a frame and count the tokens of its requests.

    Raises
    ------
    InputError
        A row cannot be asked, or the keys do not name the rows.
    """
    check_frame(frame, plan)
    counter, last, asked = TokenCounter(plan.spec.endpoint), _EMPTY, 0
    hashes, tokens = np.empty(len(frame), np.uint64), np.empty(len(frame), np.int64)
    images = np.zeros(len(frame), np.int64)
    for found in row_requests(frame, plan):
        own = slice(asked, asked + len(found.bodies))
        hashes[own] = halves(found.request_hashes)
        for i, body in enumerate(found.bodies, asked):
            last = counter.count(body)
            tokens[i], images[i] = last.prompt_tokens, last.uncounted
        asked += len(found.bodies)
    distinct, first = np.unique(hashes[:asked], return_index=True)
    return Counts(len(frame), distinct, tokens[first], images[first], asked, last)


def _together(parts: Sequence[Counts]) -> Counts:
    """Parts of one frame as one."""
    distinct, first = np.unique(np.concatenate([p.hashes for p in parts]), return_index=True)
    return Counts(
        sum(p.rows for p in parts),
        distinct,
        np.concatenate([p.tokens for p in parts])[first],
        np.concatenate([p.images for p in parts])[first],
        sum(p.asked for p in parts),
        next((p.last for p in parts if p.asked), _EMPTY),
    )


def measure(store: Store, spec: JobSpec) -> Measured | None:
    """How long earlier answers of this store were, to the same templates, model and parameters."""
    lengths: list[int] = []
    for folder in store.jobs():
        if _asks_the_same(folder.spec, spec):
            lengths += _lengths(folder)
    return _measured(lengths)


def _measured(lengths: list[int]) -> Measured | None:
    if not lengths:
        return None
    return Measured(len(lengths), sum(lengths) / len(lengths), max(lengths))


def _asks_the_same(other: JobSpec, spec: JobSpec) -> bool:
    if not spec.messages:  # the requests came ready: nothing says that they are alike
        return False
    ours = (spec.model, spec.messages, spec.endpoint, spec.params, spec.output.schema)
    theirs = (other.model, other.messages, other.endpoint, other.params, other.output.schema)
    return ours == theirs


def _lengths(folder: JobFolder) -> list[int]:
    lines = (line for shard in folder.all_shards() for line in _billed(shard))
    return [line.completion_tokens for line in islice(lines, _MEASURED_ANSWERS)]


def approve_job(spec: JobSpec, store: Store) -> Approve | None:
    """What refuses a job that could cost more than its cap; None where it has none."""
    cap = spec.max_cost
    if cap is None:
        return None

    def approve(lines: Iterable[bytes]) -> None:
        demands = _demands(spec, lines)
        refuse_over_budget(_most_usd(spec, demands, spec.prices, measure(store, spec)), cap)

    return approve


def approve_round(folder: JobFolder, budget: Budget) -> Approve | None:
    """What refuses a round that could bring the job over its cap; None where it has none."""
    cap = budget.max_cost if budget.max_cost is not None else folder.spec.max_cost
    if cap is None:
        return None

    def approve(lines: Iterable[bytes]) -> None:
        spec, prices = folder.spec, prices_of(folder, budget)
        measured = _measured(_lengths(folder))
        to_come = _most_usd(spec, _demands(spec, lines), prices, measured)
        running = _most_usd(spec, _demands(spec, _unanswered(folder)), prices, measured)
        refuse_over_budget(to_come, cap, _spent_usd(folder, prices), running)

    return approve


def _most_usd(
    spec: JobSpec, demands: Mapping[str, Demand], prices: Prices, measured: Measured | None
) -> float:
    return most_usd(demands, prices, spec.provider, rate_of(spec), measured)


def _demands(spec: JobSpec, lines: Iterable[bytes]) -> dict[str, Demand]:
    counter = TokenCounter(spec.endpoint)
    return sum_demand(count_line(line, counter) for line in lines)


def _unanswered(folder: JobFolder) -> Iterator[bytes]:
    """The requests that are at the provider, or will be, and can still cost something."""
    for shard in folder.all_shards():
        if shard.batch.settled:
            continue
        answered = {line.custom_id for line in _billed(shard)}
        with shard.open_requests() as lines:
            for custom_id, line in request_ids(lines):
                if custom_id not in answered:
                    yield line


def _spent_usd(folder: JobFolder, prices: Prices) -> float:
    used = job_usage(folder, prices)
    if used.usd is None:
        unknown = used.table["model"][used.table["cost_usd"].isna()]
        raise unknown_price(str(unknown.iloc[0]))
    return used.usd


def prices_of(folder: JobFolder, budget: Budget) -> Prices:
    """The prices that a job goes by: this call's before the folder's."""
    return {**folder.spec.prices, **budget.prices}


# --- after ----------------------------------------------------------------------------------------


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


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


class _Reply(msgspec.Struct):
    body: _Body | None = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Reply | None = None


_UNUSUAL = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class _Billed:
    """A response line that says what it took."""

    custom_id: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


def _billed(shard: ShardFolder) -> Iterator[_Billed]:
    """A shard's lines that were paid for in this job, each request once."""
    if shard.batch.reused_from:
        return
    seen: set[str] = set()
    for line in split_lines(shard.read_responses()):
        found = _read(line)
        if found is not None and found.custom_id not in seen:
            seen.add(found.custom_id)
            yield found


def _read(line: bytes) -> _Billed | None:
    try:
        read = msgspec.json.decode(line, type=_Line)
        body = None if read.response is None else read.response.body
        custom_id = read.custom_id
    except _UNUSUAL:  # of another form, or broken: slowly, with all that can be met
        response = read_response(line)
        if response is None:
            return None
        body, custom_id = _loosely(response.body), response.custom_id
    if body is None or body.usage is None:
        return None
    used = body.usage
    details = used.prompt_tokens_details or used.input_tokens_details or _Cached()
    return _Billed(
        custom_id,
        body.model or "",
        used.prompt_tokens or used.input_tokens or 0,
        details.cached_tokens or 0,
        used.completion_tokens or used.output_tokens or 0,
    )


def _loosely(body: Json) -> _Body | None:
    try:
        return msgspec.convert(body, _Body, strict=False)
    except _UNUSUAL:
        return None


@dataclass
class _Till:
    """What a job's lines cost, each at its own model's price."""

    folder: JobFolder
    prices: Prices

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, str], Price | None] = {}

    def price(self, asked: str, answered: str) -> Price | None:
        """What an answer is paid by; None where that is not known."""
        if (asked, answered) not in self._known:
            spec, rate = self.folder.spec, rate_of(self.folder.spec)
            rates = rates_of_answer(asked, answered, self.prices, spec.provider)
            price = FREE if rate == "free" else None if rates is None else rates.at(rate)
            self._known[asked, answered] = price
        return self._known[asked, answered]

    def usd(self, asked: str, line: _Billed) -> float:
        """What a line cost; NaN where its price is not known."""
        price = self.price(asked, line.model or asked)
        if price is None:
            return math.nan
        return price.usd(line.prompt_tokens, line.completion_tokens, line.cached_tokens)


def job_usage(folder: JobFolder, prices: Prices) -> JobUsage:
    """What a job's responses took, by round and model."""
    till, reused = _Till(folder, prices), 0
    sums: dict[tuple[int, str], list[float]] = {}
    for shard in folder.all_shards():
        reused += (shard.batch.total or 0) if shard.batch.reused_from else 0
        asked = model_of(shard)
        for line in _billed(shard):
            own = sums.setdefault((shard.round, line.model or asked), [0, 0, 0, 0, 0.0])
            tokens = (line.prompt_tokens, line.cached_tokens, line.completion_tokens)
            for i, amount in enumerate((1, *tokens, till.usd(asked, line))):
                own[i] += amount
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
    "completion_tokens": "Int64",
    "cost_usd": "Float64",
}


def row_costs(
    folder: JobFolder,
    prices: Prices,
    found: Gathered,
    positions: Positions,
    shares: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float64]:
    """What each row of a frame cost, USD; NaN where a price is not known or there is no request.

    A row's cost is that of all its requests in this job, of every round; rows that share a
    request share its cost in equal parts. So the costs of all the job's rows add up to
    `JobUsage.usd`. An answer that was reused cost nothing.

    Parameters
    ----------
    folder, prices, found : JobFolder, Prices, Gathered
        The job, its prices, and what was gathered of it.
    positions : int64 array
        Where the frame's rows are in what was gathered; -1 for rows that the job never saw.
    shares : int64 array, optional
        How many rows of the job share each line's request, where not all lines were gathered.
    """
    cost = _cost_by_slot(folder, prices, found)
    if shares is None:
        shares = np.bincount(found.slots[found.slots >= 0], minlength=len(cost))
    cost[: len(shares)] /= np.maximum(shares, 1)
    slots = found.at(positions)
    return np.where(slots >= 0, cost[slots], math.nan)


def _cost_by_slot(folder: JobFolder, prices: Prices, found: Gathered) -> npt.NDArray[np.float64]:
    """What each request of round 0 cost, with its later rounds."""
    till, cost = _Till(folder, prices), np.zeros(found.tally.slots)
    for round_ in range(folder.rounds()):
        for shard, ids, slots in _requests_by_shard(folder, found, round_):
            asked = model_of(shard)
            lines = [(line.custom_id, till.usd(asked, line)) for line in _billed(shard)]
            billed = pa.array([custom_id for custom_id, _ in lines], pa.string())
            places = np.asarray(pc.index_in(billed, value_set=ids).fill_null(-1))
            own = places >= 0
            np.add.at(cost, slots[places[own]], np.array([usd for _, usd in lines])[own])
    return cost


def _requests_by_shard(
    folder: JobFolder, found: Gathered, round_: int
) -> Iterator[tuple[ShardFolder, pa.Array, Positions]]:
    """Each shard of a round with its custom_ids and the slots that they answer."""
    ids, numbers, slots = found.custom_ids, found.shards, found.slots
    if round_:
        table, slots = found.asked_again(folder, round_)
        ids, numbers = table["custom_id"], table["shard"].to_numpy()
    for shard in folder.shards(round_):
        places = np.flatnonzero(numbers == shard.number)
        if len(places):
            yield shard, ids.take(pa.array(places)), slots[places]
