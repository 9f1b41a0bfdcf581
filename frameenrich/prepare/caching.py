"""Decide how a job's prompts are cached: by ``cache=``, the provider and the model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import xxhash

from frameenrich.errors import ParameterError
from frameenrich.model import JobSpec, Limits
from frameenrich.pricing.prices import has_breakpoints
from frameenrich.providers.protocol import Provider
from frameenrich.rendering.caching import marked_message
from frameenrich.text import kind_of

_ENDPOINTS = ("/v1/chat/completions", "/v1/responses")


_KEY_SERVERS = frozenset({"api.openai.com"})
"""Servers with OpenAI's API that are known to take a ``prompt_cache_key``."""


def check_cache(cache: Any) -> bool | str | None:
    """Check ``cache=``; False counts as None.

    Raises
    ------
    ParameterError
        It is neither a boolean nor ``"seed"``.
    """
    if cache is None or cache is False:
        return None
    if cache is True or (isinstance(cache, str) and cache == "seed"):
        return cache
    raise ParameterError(
        f"cache={kind_of(cache)} is not known.", "Use True, or 'seed', or leave it out."
    )


def with_caching(spec: JobSpec, provider: Provider) -> JobSpec:
    """Return the spec with the marks that make its provider cache.

    Raises
    ------
    ParameterError
        ``cache=`` is given, but the provider has no caching or the job no system message.
    """
    way = getattr(provider, "prompt_caching", None)
    if spec.cache is not None:
        _check(spec, provider.name, way)
    if way is None or spec.endpoint not in _ENDPOINTS or not spec.messages:
        return spec
    # A key of the user's own, in either part of params=, is never replaced.
    given = {**spec.params, **(spec.params.get("extra_body") or {})}
    if spec.cache is None:
        # A key costs nothing, so add it by default where the server is known to take it.
        known = way == "key" or getattr(provider, "server", "") in _KEY_SERVERS
        return _with_key(spec) if known and "prompt_cache_key" not in given else spec
    if way == "cache_control":
        return replace(spec, cached_by="cache_control")
    if way == "implicit":
        return spec
    own = _with_key(spec) if "prompt_cache_key" not in given else spec
    explicit = way == "breakpoint" and has_breakpoints(spec.model)
    return replace(own, cached_by="breakpoint") if explicit else own


def _with_key(spec: JobSpec) -> JobSpec:
    """Add the key of the shared start of the prompt: jobs with the same start share a cache."""
    slot = marked_message(spec)
    start = [message.content for message in spec.messages[: (slot or 0) + 1]]
    # Servers put the schema before the messages, so another schema is another prefix.
    start_text = json.dumps([spec.model, start, spec.output.schema])
    name = xxhash.xxh3_64_hexdigest(start_text.encode("utf-8", "surrogatepass"))
    return replace(spec, cache_key=f"frameenrich-{name}")


def _check(spec: JobSpec, provider: str, way: str | None) -> None:
    if spec.endpoint not in _ENDPOINTS:
        raise ParameterError(
            f"cache= is for chat completions and responses, and this is {spec.endpoint}.",
            "Leave it out.",
        )
    if way is None:
        raise ParameterError(
            f"The provider {provider!r} takes no cache=.",
            "Leave it out; 'openai', 'azure', 'live', 'anthropic', 'mistral' and 'gemini' have it.",
        )
    if marked_message(spec) is None:
        raise ParameterError(
            "cache= needs a part that is the same in every row, and there is no system message.",
            "Put what every row shares, such as the codebook, into system=.",
        )


def seeded(limits: Limits, spec: JobSpec) -> Limits:
    """Return the limits of a job's files; with ``cache="seed"`` the first holds one request."""
    # One row ahead fills the cache; requests sent together would all miss it.
    return replace(limits, first_requests=1) if spec.cache == "seed" else limits
