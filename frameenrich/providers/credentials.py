"""Collect the secrets of a client, wherever it keeps them, so that no message shows one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from urllib.request import getproxies

from frameenrich.providers.http_client import http_client_of
from frameenrich.text import secret_forms

# Headers and query parameters that say nothing secret; every other one may be somebody's key.
_PLAIN = frozenset(
    {
        "accept", "accept-encoding", "accept-language", "api-version", "anthropic-version",
        "anthropic-beta", "connection", "content-length", "content-type", "host", "user-agent",
        "x-goog-api-client",
    }
)  # fmt: skip


# Headers that the OpenAI and Anthropic SDKs set themselves; they hold versions, no keys.
_OUR_OWN = ("x-stainless-", "openai-beta")


# Private names too: Azure's token is kept under no public one.
_NAMES = (
    *("api_key", "auth_token", "admin_api_key", "organization", "project", "webhook_secret"),
    *("webhook_key", "_azure_ad_token"),
)


_SCHEMES = ("Bearer ", "Basic ", "Token ", "ApiKey ")


def secrets_of(client: Any) -> tuple[str, ...]:
    """Return all credentials of a client, in each form that a server may echo.

    That is its keys and tokens, the headers, cookies and query parameters that were given to it,
    and the user and password of its base URL, of its proxy and of the environment's proxies.

    Examples
    --------
    >>> import openai
    >>> made = openai.OpenAI(api_key="sk-abc", default_query={"key": "in the query"})
    >>> sorted(secrets_of(made))[:3]
    ['in the query', 'in%20the%20query', 'in+the+query']
    """
    found = set[str]()
    for value in filter(None, _values(client)):
        for own in (value, _bare(value), *_decoded(value)):
            found |= secret_forms(own)
    return tuple(sorted(found, key=len, reverse=True))  # the longest first: it may hold another


def secrets_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of a request's own headers that may be keys."""
    own = filter(None, map(_bare, _named(headers)))
    return tuple(form for value in own for form in secret_forms(value))


def _values(client: Any) -> Iterator[str]:
    http = http_client_of(client)
    google = getattr(client, "_api_client", None)
    mistral = getattr(client, "sdk_configuration", None)
    security = getattr(mistral, "security", None)
    security = security() if callable(security) else security
    for holder in (client, google, security):
        for name in _NAMES:
            value = getattr(holder, name, None)
            if isinstance(value, str):
                yield value
    for holder in (client, http, getattr(google, "_http_options", None)):
        for name in ("_custom_headers", "_custom_query", "headers", "params", "cookies"):
            yield from _named(getattr(holder, name, None))
        yield from _of_url(getattr(holder, "base_url", None))
    yield from _of_url(getattr(mistral, "server_url", None))
    yield from _of_connections(http)
    for url in getproxies().values():
        yield from _of_url(url)


def _of_connections(http: Any) -> Iterator[str]:
    """Yield how an httpx client logs in, at a server and at its proxies."""
    login = getattr(http, "_auth", None)
    yield getattr(login, "_auth_header", "")
    digest = getattr(login, "_password", b"")
    yield digest.decode("latin-1") if isinstance(digest, bytes) else str(digest)
    for transport in getattr(http, "_mounts", None) or ():
        pool = getattr(http._mounts[transport], "_pool", None)  # noqa: SLF001 - no public name
        for name, value in getattr(pool, "_proxy_headers", None) or ():
            if name.lower() == b"proxy-authorization":
                yield value.decode("latin-1")


def _bare(value: str) -> str:
    """Return a header's value without the word that says what it is."""
    for scheme in _SCHEMES:
        value = value.removeprefix(scheme)
    return value.strip()


def _decoded(value: str) -> Iterator[str]:
    """Yield the user and password of a basic login, which an error may show in clear."""
    if value.startswith("Basic "):
        try:
            login = base64.b64decode(_bare(value), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield from (login, login.partition(":")[2])


def _named(pairs: Any) -> Iterator[str]:
    """Yield the values of headers or query parameters that may be keys."""
    for name, value in getattr(pairs, "items", dict[str, str]().items)():
        plain = str(name).lower() in _PLAIN or str(name).lower().startswith(_OUR_OWN)
        if isinstance(value, str) and not plain:
            yield value


def _of_url(url: Any) -> Iterator[str]:
    """Yield the user and password of a URL, and whatever its query says."""
    parts = urlsplit(str(url or ""))
    info = parts.netloc.rpartition("@")[0]
    if info:
        user, _, password = info.partition(":")
        yield from (info, password, unquote(password))
        # httpx sends a URL's user and password in this form, which a server may echo.
        yield base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
        if not password:  # a token alone
            yield from (user, unquote(user))
    for name, value in parse_qsl(parts.query):
        if name.lower() not in _PLAIN:
            yield value
