"""Find providers by name or entry point and connect to them."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from frameenrich.errors import ParameterError
from frameenrich.model import Pace
from frameenrich.providers.protocol import Provider
from frameenrich.text import shortened

_GROUP = "frameenrich.providers"


def provider_names() -> list[str]:
    """Return the names that ``provider=`` takes here.

    Examples
    --------
    >>> "openai" in provider_names()
    True
    """
    # A set: a package whose metadata lies on the path twice is listed twice.
    return sorted({point.name for point in entry_points(group=_GROUP)})


def connect(
    provider: str | Provider, client: Any = None, model: str | None = None, pace: Pace | None = None
) -> Provider:
    """Connect to the provider of that name; an object with the protocol is returned as it is.

    Raises
    ------
    ParameterError
        There is none of that name, or it keeps no such pace.
    CredentialsError
        It needs an API key and there is none.
    """
    if not isinstance(provider, str):
        return _at_pace(_checked(provider), pace)
    # Loaded only when it is asked for, as each provider imports an SDK.
    made = _found(provider).load()(client=client, model=model)
    return _at_pace(cast("Provider", made), pace)


def check_provider(provider: str | Provider) -> None:
    """Check that there is a provider of that name, without connecting to it.

    Raises
    ------
    ParameterError
        There is none.
    """
    if isinstance(provider, str):
        _found(provider)
    else:
        _checked(provider)


def _found(name: str) -> EntryPoint:
    try:
        # The path is part of the cache's key: a notebook may install a provider and extend it.
        return _point(name, tuple(sys.path))
    except LookupError:
        raise _no_provider(name) from None


@functools.lru_cache(maxsize=64)
def _point(name: str, _path: tuple[str, ...]) -> EntryPoint:
    """Find a provider's entry point; the search reads all installed packages, so it is cached.

    Raises
    ------
    LookupError
        There is none; an exception is not cached, so one that is installed later is found.
    """
    for point in entry_points(group=_GROUP, name=name):
        return point
    raise LookupError(name)


def _no_provider(provider: str) -> ParameterError:
    names = provider_names()
    close = difflib.get_close_matches(provider, names, n=1)
    return ParameterError(
        f"There is no provider {shortened(provider)!r}.",
        f"Use {f'{close[0]!r} or another' if close else 'one'} of: {', '.join(names)}."
        if names
        else "Install frameenrich with pip: providers are found by its entry points.",
        provider=provider,
    )


def _checked(provider: Any) -> Provider:
    # By its verbs and not by a base class: who implements them need not import this package.
    if isinstance(provider, Provider):
        return provider
    raise ParameterError(
        f"provider= is a {type(provider).__name__}, which lacks verbs of the Provider protocol.",
        "Give a name, or an object with send, poll, fetch, cancel and delete_files.",
    )


def _at_pace(provider: Provider, pace: Pace | None) -> Provider:
    if pace is None:
        return provider
    # Refused: a pace that nobody keeps would look as if it were kept.
    if not hasattr(provider, "at_pace"):
        raise ParameterError(
            f"The provider {provider.name!r} takes no max_in_flight=, requests_per_minute=, "
            "tokens_per_minute= or request_timeout_seconds=.",
            "They are for provider='live'; a batch has max_enqueued_tokens=.",
        )
    return cast("Provider", provider.at_pace(pace))


_NO_SERVER = frozenset({"file", "local"})
"""Providers that have no server of their own, so that a live call may go to any."""


def connect_other(name: str, own_name: str, own: Callable[[], Provider]) -> Provider:
    """Return the provider that some rounds of a job go to, where that is not the job's own.

    ``"live"`` is the server that the job's own provider speaks to, one call at a time: another one
    would not know the model, and would get to see the rows.

    Raises
    ------
    ParameterError
        There is none of that name, or the job's own server has no live calls here.
    """
    # file and local have no server: their live calls go to OPENAI_BASE_URL.
    if name != "live" or own_name in _NO_SERVER:
        return connect(name)
    provider = own()
    # Refused here and not by `live_version`, whose advice is about pilots.
    if not provider.blocking and not hasattr(provider, "live"):
        raise ParameterError(
            f"The provider {own_name!r} has no live calls here.",
            "Pass provider=LiveProvider(client) with the openai client of a server that knows the "
            "model, or the name of another provider with model=.",
        )
    return live_version(provider)


def live_version(provider: Provider) -> Provider:
    """Return a provider for the same requests that has answered when `send` returns.

    Raises
    ------
    ParameterError
        There is none.
    """
    if provider.blocking:
        return provider
    if hasattr(provider, "live"):
        return cast("Provider", provider.live())
    raise ParameterError(
        f"The provider {provider.name!r} cannot answer a pilot.",
        "Use provider='live' or 'local' for it; nothing was sent.",
    )
