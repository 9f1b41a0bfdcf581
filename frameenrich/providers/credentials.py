"""Collect the secrets of a client, wherever it keeps them, so that no message shows one."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

# Headers and query parameters that say nothing secret; every other one may be somebody's key.
_PLAIN = frozenset(
    {
        "accept", "accept-encoding", "accept-language", "api-version", "anthropic-version",
        "anthropic-beta", "connection", "content-length", "content-type", "host", "user-agent",
    }
)  # fmt: skip


# Headers that the OpenAI and Anthropic SDKs set themselves; they hold versions, no keys.
_OUR_OWN = ("x-stainless-", "openai-beta")


def secrets_of(client: Any) -> tuple[str, ...]:
    """Return all credentials of a client, in each form that a server may echo.

    That is its key and token, the headers and query parameters that were given to it, and the user
    and password of its base URL.

    Examples
    --------
    >>> import openai
    >>> made = openai.OpenAI(api_key="sk-abc", default_query={"key": "in the query"})
    >>> sorted(secrets_of(made))[:2]
    ['in the query', 'in%20the%20query']
    """
    found = set[str]()
    for value in filter(None, _values(client)):
        bare = value.removeprefix("Bearer ").removeprefix("Basic ").strip()
        found |= {value, bare, quote(bare, safe="")}
    return tuple(sorted(found, key=len, reverse=True))  # the longest first: it may hold another


def secrets_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of a request's own headers that may be keys."""
    found = (value.removeprefix("Bearer ") for value in _named(headers))
    return tuple(filter(None, found))


def _values(client: Any) -> Iterator[str]:
    # Private names too: Azure's token is kept under no public one.
    for name in ("api_key", "auth_token", "organization", "_azure_ad_token"):
        value = getattr(client, name, None)
        if isinstance(value, str):
            yield value
    # An SDK's client wraps an httpx client, which may have headers and a URL of its own.
    below = getattr(client, "_client", None)
    for holder in (client, below):
        for name in ("_custom_headers", "_custom_query", "headers", "params"):
            yield from _named(getattr(holder, name, None))
        yield from _of_url(getattr(holder, "base_url", None))


def _named(pairs: Any) -> Iterator[str]:
    """Yield the values of headers or query parameters that may be keys."""
    for name, value in getattr(pairs, "items", dict[str, str]().items)():
        plain = str(name).lower() in _PLAIN or str(name).lower().startswith(_OUR_OWN)
        if isinstance(value, str) and not plain:
            yield value


def _of_url(url: Any) -> Iterator[str]:
    info = getattr(url, "userinfo", b"")
    if not info:
        return
    text = info.decode("ascii", "replace") if isinstance(info, bytes) else str(info)
    user, _, password = text.partition(":")
    yield from (text, password, unquote(password))
    # httpx sends a URL's user and password in this form, which a server may echo.
    yield base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
