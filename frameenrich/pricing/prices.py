"""Prices of a million tokens in USD: from the caller, or from the tables of `genai-prices`.

Nothing is fetched: the tables are those in the installed package's wheel. Prices are the standard
ones, without the surcharge that some models have for very long prompts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from frameenrich.errors import ParameterError
from frameenrich.model import JobSpec

BATCH_SHARE = 0.5
"""The share of the live price that a batch costs, where nothing more exact is known."""


Rate = Literal["batch", "live", "free"]


PricesLike = Mapping[str, Any]


Prices = Mapping[str, Mapping[str, float]]
"""By model; the key ``""`` is for every model."""


_KINDS = ("input", "output", "cached_input", "cache_write")


_SHIPPED = {name: name for name in ("azure", "anthropic", "groq", "mistral", "together")} | {
    "gemini": "google"
}
"""Whose price list a provider of ours goes by; the others' is OpenAI's."""


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens.

    ``cache_write`` is for tokens that are put into a cache, ``cache_write_1h`` for those that
    Anthropic is to keep for an hour; where nothing is charged for that, both are as ``input``.
    """

    input: float
    output: float
    cached_input: float
    cache_write: float | None = None
    cache_write_1h: float | None = None

    def usd(
        self,
        prompt_tokens: float,
        completion_tokens: float,
        cached_tokens: float = 0,
        written_tokens: float = 0,
        written_1h_tokens: float = 0,
    ) -> float:
        """Return the cost of so many tokens in USD.

        ``cached_tokens`` and ``written_tokens`` are among the ``prompt_tokens``, and
        ``written_1h_tokens`` among those that were written.

        Examples
        --------
        >>> round(Price(0.15, 0.60, 0.075).usd(1_000_000, 500_000, 200_000), 6)
        0.435
        >>> round(Price(1, 5, 0.1, 1.25, 2).usd(1_000_000, 0, 0, 500_000, 500_000), 6)
        1.5
        """
        write = self.input if self.cache_write is None else self.cache_write
        write_1h = write if self.cache_write_1h is None else self.cache_write_1h
        fresh = prompt_tokens - cached_tokens - written_tokens
        total = fresh * self.input + cached_tokens * self.cached_input
        total += (written_tokens - written_1h_tokens) * write + written_1h_tokens * write_1h
        return (total + completion_tokens * self.output) / 1e6

    def times(self, share: float) -> Price:
        """Return a share of the price."""
        write, write_1h = (
            None if price is None else price * share
            for price in (self.cache_write, self.cache_write_1h)
        )
        return Price(
            self.input * share, self.output * share, self.cached_input * share, write, write_1h
        )


FREE = Price(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Rates:
    """A model's price in a batch, and one call at a time."""

    batch: Price
    live: Price

    def at(self, rate: Rate) -> Price:
        """Return the price at one of the rates.

        Examples
        --------
        >>> Rates(Price(1, 2, 1), Price(2, 4, 2)).at("live").output
        4
        """
        return FREE if rate == "free" else self.live if rate == "live" else self.batch


def rate_of(spec: JobSpec, provider: str | None = None) -> Rate:
    """Return the rate of a job's requests, or of a round that went to another provider.

    The embedded model is free, and so are moderations
    (https://platform.openai.com/docs/guides/moderation).
    """
    name = provider or spec.provider
    if name == "local" or spec.endpoint == "/v1/moderations":
        return "free"
    # A pilot is answered by `live`, whatever the provider of its job.
    if name == "live" or getattr(spec, "pilot", False):
        return "live"
    return "batch"


def tier_of(spec: JobSpec) -> str:
    """Return the service tier that a job's live calls ask for; empty for the standard one."""
    # extra_body goes out with the request, and replaces parameters of the same name.
    params = {**spec.params, **(spec.params.get("extra_body") or {})}
    tier = params.get("service_tier")
    return tier if isinstance(tier, str) and tier not in ("auto", "default") else ""


def price_list_of(spec: JobSpec, provider: str | None = None) -> str:
    """Return the provider whose prices count: a job's own server answers its live rounds too."""
    return spec.provider if provider in {None, "live"} else str(provider)


_VERSION = re.compile(r"gpt-(\d+)(?:\.(\d+))?")


_FIRST_WITH_BREAKPOINTS = (5, 6)


def has_breakpoints(model: str) -> bool:
    """Tell whether a model of OpenAI's takes cache breakpoints, and bills what it writes.

    A name that is not known is taken to be older.

    Examples
    --------
    >>> has_breakpoints("gpt-5.6-luna"), has_breakpoints("gpt-6-sol"), has_breakpoints("gpt-5.4")
    (True, True, False)
    """
    found = _VERSION.match(model.removeprefix("ft:"))
    return found is not None and (int(found[1]), int(found[2] or 0)) >= _FIRST_WITH_BREAKPOINTS


def check_prices(prices: PricesLike | None) -> dict[str, dict[str, float]]:
    """Check the prices of one model or of several, and return them by model.

    Raises
    ------
    ParameterError
        They lack ``input`` or ``output``, or are no amounts.

    Examples
    --------
    >>> check_prices({"input": 0.15, "output": 0.6})
    {'': {'input': 0.15, 'output': 0.6}}
    """
    if prices is None:
        return {}
    if not isinstance(prices, Mapping) or not prices:
        raise _unusable(prices)
    models = prices if all(isinstance(own, Mapping) for own in prices.values()) else {"": prices}
    return {str(model): _checked(own) for model, own in models.items()}


def _checked(own: Mapping[str, Any]) -> dict[str, float]:
    amounts = {
        name: float(value)
        for name, value in own.items()
        if name in _KINDS and isinstance(value, int | float) and not isinstance(value, bool)
    }
    wrong = [value for value in amounts.values() if value < 0 or not math.isfinite(value)]
    # A misspelt name must not leave its tokens unpriced, so an unknown one is refused.
    if len(amounts) < len(own) or not {"input", "output"} <= set(amounts) or wrong:
        raise _unusable(own)
    return amounts


def _unusable(prices: Any) -> ParameterError:
    return ParameterError(
        f"prices={prices!r} cannot be used.",
        'Write {"input": 0.15, "output": 0.60}, in live USD per million tokens ("cached_input" and '
        '"cache_write" may be added), or such a dict for each model\'s name; embeddings have an '
        "output of 0.",
    )


def find_rates(model: str, prices: Prices, provider: str, tier: str = "") -> Rates | None:
    """Return a model's prices: the caller's, else the shipped ones; None where both lack it."""
    return rates_of_answer(model, model, prices, provider, tier)


def rates_of_answer(
    sent_model: str, answered: str, prices: Prices, provider: str, tier: str = ""
) -> Rates | None:
    """Return the prices of an answer, which may name its model otherwise than the request did.

    The caller's own prices are found by either name; of the shipped ones the answer's name is the
    better: an Azure deployment can be called anything. `tier` is the service tier of live calls
    (``"flex"``, ``"priority"``); the caller's own prices are taken to be those of the tier.
    """
    return (
        _own_rates(sent_model, prices)
        or _own_rates(answered, prices)
        or _shipped_rates(answered, _SHIPPED.get(provider, "openai"), tier)
        or _shipped_rates(sent_model, _SHIPPED.get(provider, "openai"), tier)
    )


def _own_rates(model: str, prices: Prices) -> Rates | None:
    """Return the caller's prices; a model's dated name goes by the name it begins with."""
    named = [name for name in prices if model == name or (name and model.startswith(f"{name}-"))]
    # gpt-4o-mini-2024-07-18 begins with gpt-4o as well: the longest name is the model's.
    own = prices[max(named, key=len)] if named else prices.get("")
    if own is None:
        return None
    cached = own.get("cached_input", own["input"])
    live = Price(own["input"], own["output"], cached, own.get("cache_write"))
    return Rates(live.times(BATCH_SHARE), live)


@lru_cache(maxsize=256)
def _shipped_rates(model: str, list_of: str, tier: str = "") -> Rates | None:
    import genai_prices  # noqa: PLC0415 - half a second, for those who ask

    context = {"processing": "batch"}
    try:
        # Usage() has no tokens, as only the rates are wanted and no sum.
        live = genai_prices.calc_price(genai_prices.Usage(), model, provider_id=list_of)
        batch = genai_prices.calc_price(
            genai_prices.Usage(), model, provider_id=list_of, price_context=context
        )
        of_tier = genai_prices.calc_price(
            genai_prices.Usage(), model, provider_id=list_of, price_context={"service_tier": tier}
        )
    except LookupError:
        return None
    # Where no batch price is listed, calc_price returns the live one: half of that is assumed.
    listed = any(variant.when == context for variant in live.model.price_variants or ())
    price = _price(live.model_price)
    half = _price(batch.model_price) if listed else price.times(BATCH_SHARE)
    return Rates(half, _price(of_tier.model_price) if tier else price)


def _price(listed: Any) -> Price:
    input_, output, cached, write, write_1h = (
        # Where the price depends on the prompt's length, the base is the one without surcharge.
        float(getattr(amount, "base", amount) or 0)
        for amount in (
            getattr(listed, name, None)
            for name in (
                "input_mtok",
                "output_mtok",
                "cache_read_mtok",
                "cache_write_mtok",
                "cache_write_1h_mtok",
            )
        )
    )
    # A list without a price for cached tokens charges them as any other.
    return Price(input_, output, cached or input_, write or None, write_1h or None)


def unknown_price(model: str) -> ParameterError:
    """Return the error for a model whose price is not known."""
    return ParameterError(
        f"The price of the model {model!r} is not known.",
        'Pass prices={"input": ..., "output": ...}, in live USD per million tokens; 0 is fine for '
        "your own server.",
        model=model,
    )
