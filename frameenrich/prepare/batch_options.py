"""Check the options of a provider's batch: metadata, completion window, service tier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from frameenrich.errors import ParameterError
from frameenrich.model import JobSpec
from frameenrich.pricing.prices import rate_of, tier_of
from frameenrich.providers.protocol import Provider

OUR_KEYS = "frameenrich_"
"""The prefix of our own keys: one holds the tag that finds a batch again after a lost reply."""


MAX_PAIRS = 15
"""OpenAI's batches take 16 pairs; one is our tag."""


_MAX_KEY, _MAX_VALUE = 64, 512  # OpenAI's limits, in characters


def check_metadata(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Return a user's metadata as a batch may carry it.

    Raises
    ------
    ParameterError
        There are too many pairs, or a batch cannot carry one of them.

    Examples
    --------
    >>> check_metadata({"team": "catalogue"})
    {'team': 'catalogue'}
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ParameterError(
            f"metadata= is a {type(metadata).__name__}.",
            "Give a dict whose keys and values are texts.",
        )
    if len(metadata) > MAX_PAIRS:
        raise ParameterError(
            f"metadata= has {len(metadata)} pairs; a batch carries {MAX_PAIRS} beside our tag.",
            "Leave some out.",
        )
    for key, value in metadata.items():
        _check_text(f"The metadata key {str(key)[:_MAX_KEY]!r}", key, _MAX_KEY)
        _check_text(f"The metadata value of {key!r}", value, _MAX_VALUE)
        if not key or key.startswith(OUR_KEYS):
            raise ParameterError(
                f"The metadata key {key!r} {'is kept for our own' if key else 'is empty'}.",
                f"Use another, which does not begin with {OUR_KEYS!r}.",
            )
    # A copy: the spec keeps it, and a user may change the mapping after `submit`.
    return dict(metadata)


def _check_text(what: str, text: Any, most: int) -> None:
    if not isinstance(text, str):
        raise ParameterError(f"{what} is a {type(text).__name__}.", "Give a text: str(...) of it.")
    if len(text) > most:
        raise ParameterError(
            f"{what} has {len(text):,} characters; a batch carries {most}.", "Shorten it."
        )
    # A lone surrogate passes every check of length and fails only at the provider.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ParameterError(f"{what} is not valid Unicode.", "Give other text.") from None


_TIERED = ("openai", "azure")
"""Providers with service tiers for live calls; others may use the parameter otherwise."""


def check_confirm_seconds(seconds: Any) -> float:
    """Check for how many seconds a create with a lost reply is searched for.

    Raises
    ------
    ParameterError
        It is no number of seconds.
    """
    usable = isinstance(seconds, int | float) and 0 <= seconds < math.inf
    if not usable or isinstance(seconds, bool):  # True is an int to Python
        raise ParameterError(
            f"confirm_seconds={seconds!r} is not a number of seconds.",
            "Give 0 or more, such as 60.",
        )
    return float(seconds)


def check_tier(spec: JobSpec, provider: str) -> None:
    """Refuse a service tier for requests that are sent in batches.

    Raises
    ------
    ParameterError
        The requests ask for one, and the provider makes batches.
    """
    tier = tier_of(spec)
    if tier and rate_of(spec, provider) == "batch" and provider in _TIERED:
        raise ParameterError(
            f"service_tier={tier!r} is for live calls; a batch has a price of its own.",
            "Leave it out, or use provider='live'.",
            name="service_tier",
        )


def check_batch_options(provider: Provider, spec: JobSpec) -> None:
    """Refuse what a provider's batches cannot have, before anything is sent.

    Raises
    ------
    ParameterError
        Its batches carry no metadata, or take no such window or tier.
    """
    check_tier(spec, provider.name)
    # By attribute: a provider of somebody else's is not asked to know every option.
    if spec.metadata and not getattr(provider, "takes_metadata", False):
        raise ParameterError(
            f"The provider {provider.name!r} takes no metadata=.",
            "Leave it out; batches of 'openai', 'azure', 'groq' and 'mistral' carry it.",
        )
    if spec.completion_window is None:
        return
    check_window = getattr(provider, "check_window", None)
    if check_window is None:
        raise ParameterError(
            f"The provider {provider.name!r} takes no completion_window=.",
            "Leave it out; batches of 'groq' and 'mistral' may be given longer, up to '7d'.",
        )
    check_window(spec.completion_window)
