"""Find the HTTP client inside an SDK's client: what is asked of all SDKs is asked of that."""

from __future__ import annotations

from typing import Any

_PATHS = (
    ("_client",),  # OpenAI, Anthropic
    ("sdk_configuration", "client"),  # Mistral
    ("_api_client", "_httpx_client"),  # Google
    ("_httpx_client",),
    ("client",),
)
"""Where the SDKs keep it; they have no public name for it."""


def http_client_of(client: Any) -> Any | None:
    """Return the httpx client that an SDK's client makes its calls with; None where none is found.

    Examples
    --------
    >>> import openai
    >>> str(http_client_of(openai.OpenAI(api_key="x", base_url="http://localhost/v1")).base_url)
    'http://localhost/v1/'
    """
    for path in _PATHS:
        found = client
        for name in path:
            found = getattr(found, name, None)
        # Known by what is used of it: httpx and its fork have different classes.
        if isinstance(getattr(found, "event_hooks", None), dict):
            return found
    return None
