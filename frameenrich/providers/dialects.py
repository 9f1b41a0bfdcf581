"""Configure the servers whose Batch APIs differ from OpenAI's, and how each is reached.

Sources: OpenAI's API reference and batch guide; Azure's "batch" how-to (Foundry, 2026); the Groq
SDK's types; Together's OpenAPI description 2.0 and its batch guide (2026).
"""

from __future__ import annotations

import ipaddress
import os
import re
import weakref
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from frameenrich.errors import CredentialsError, ParameterError
from frameenrich.model import Limits

_CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Dialect:
    """Differences of one server's Batch API from OpenAI's.

    ``endpoints`` are the ones it serves in batches, None for all; ``urls`` says which are written
    otherwise in request lines. ``upload_path`` is where files go where that is not ``/files``, with
    ``file_name`` and ``file_type`` beside the file. A server that
    ``supports_expiry`` lets files be given a date to expire; without ``supports_metadata`` a batch
    carries none of ours, and is known by its input file. ``windows`` are the completion windows it
    takes, as a pattern and in words. ``supports_samples`` is about an ``n`` above 1.
    """

    name: str = "openai"
    limits: Limits = field(default_factory=Limits)
    endpoints: tuple[str, ...] | None = None
    urls: tuple[tuple[str, str], ...] = ()
    purpose: str = "batch"
    upload_path: str | None = None
    supports_expiry: bool = True
    supports_metadata: bool = True
    must_wait_for_file: bool = False
    windows: tuple[str, str] = ("24h", "'24h'")
    supports_samples: bool = True
    supports_cache_key: bool = True

    def url(self, endpoint: str) -> str:
        """Return the ``url`` that this server wants in request lines.

        Raises
        ------
        ParameterError
            The server's batches do not serve the endpoint.

        Examples
        --------
        >>> AZURE.url("/v1/chat/completions"), OPENAI.url("/v1/chat/completions")
        ('/chat/completions', '/v1/chat/completions')
        """
        if self.endpoints is not None and endpoint not in self.endpoints:
            raise ParameterError(
                f"The provider {self.name!r} does not answer {endpoint} in batches.",
                f"Use one of: {', '.join(self.endpoints)}.",
            )
        return dict(self.urls).get(endpoint, endpoint)

    def check_window(self, window: str) -> None:
        """Refuse a completion window that the server does not take.

        Raises
        ------
        ParameterError
            The server does not take it.

        Examples
        --------
        >>> GROQ.check_window("7d")
        """
        pattern, words = self.windows
        if not isinstance(window, str) or not re.fullmatch(pattern, window):
            raise ParameterError(
                f"completion_window={window!r} is not one that {self.name!r} takes.",
                f"Use {words}.",
            )


OPENAI = Dialect()


AZURE = Dialect(
    name="azure",
    limits=Limits(max_requests=100_000),
    # Only the Responses API is called by its full name in Azure's request lines.
    urls=tuple((f"/v1/{e}", f"/{e}") for e in ("chat/completions", "completions", "embeddings")),
    endpoints=(_CHAT, "/v1/responses", "/v1/completions", "/v1/embeddings"),
    # A file is refused until Azure has processed it (openai-dotnet#312).
    must_wait_for_file=True,
)


GROQ = Dialect(
    name="groq",
    endpoints=(_CHAT,),
    supports_expiry=False,
    supports_samples=False,
    supports_cache_key=False,
    windows=(r"(2[4-9]|[3-9]\d|1[0-5]\d|16[0-8])h|[1-7]d", "'24h' to '168h', or '1d' to '7d'"),
)


TOGETHER = Dialect(
    name="together",
    limits=Limits(max_bytes=100_000_000),
    endpoints=(_CHAT,),
    purpose="batch-api",
    upload_path="/files/upload",
    supports_expiry=False,
    # Together's batches have no metadata: a batch is recognised by its input file.
    supports_metadata=False,
    supports_cache_key=False,
)


_SERVERS = {
    "groq": ("GROQ_API_KEY", "GROQ_BASE_URL", "https://api.groq.com", "/openai/v1"),
    "together": ("TOGETHER_API_KEY", "TOGETHER_BASE_URL", "https://api.together.ai/v1", ""),
}
"""Each one's key, the variable that names another server, its own server, and the path there."""


# Live calls use OpenAI's urls, so that `live` and `openai` share answers to equal requests.
_DIALECTS = {d.name: d for d in (OPENAI, AZURE, GROQ, TOGETHER)} | {"live": OPENAI}


def address_of(provider: str, endpoint: str) -> tuple[str, str] | None:
    """Return the url of a provider's requests and its host, without a client or a key.

    None for a provider that is not listed here. The environment's variables count, as for a client.

    Raises
    ------
    ParameterError
        The server does not serve the endpoint.

    Examples
    --------
    >>> address_of("groq", "/v1/chat/completions")
    ('/v1/chat/completions', 'api.groq.com')
    """
    if provider not in _DIALECTS:
        return None
    _, variable, server, _ = _SERVERS.get(provider, _OPENAI)
    # Azure has no server of its own name: every resource has its own host.
    if provider == "azure":
        variable, server = _AZURE_VARIABLES[0], ""
    host = urlsplit(os.environ.get(variable) or server).hostname or ""
    return _DIALECTS[provider].url(endpoint), host


_OPENAI = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com/v1", "")


_AZURE_VARIABLES = ("AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION")


_AZURE_KEYS = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN")


def check_client(client: Any, provider: str) -> None:
    """Refuse a client that is not a synchronous one of the `openai` package.

    Raises
    ------
    ParameterError
        It is of another kind, such as `openai.AsyncOpenAI`.
    """
    import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

    if not isinstance(client, openai.OpenAI):
        raise ParameterError(
            f"client= is a {type(client).__name__}, and {provider!r} wants its own kind.",
            "Pass an openai.OpenAI or openai.AzureOpenAI client.",
        )


def client_of(dialect: Dialect, provider: str | None = None) -> Any:
    """Make an `openai` client for a server from the environment; `provider` is named in errors.

    Raises
    ------
    CredentialsError
        A variable is missing; the message names it.
    """
    import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

    if dialect.name == "openai":
        # Servers on this machine seldom want a key, but the SDK makes no client without one.
        url = os.environ.get("OPENAI_BASE_URL")
        key = os.environ.get("OPENAI_API_KEY") or (_NO_KEY if is_loopback(url) else None)
        try:
            return _client(key, url)
        except openai.OpenAIError:
            raise _no_credentials(provider or dialect.name, "OPENAI_API_KEY") from None
    if dialect.name == "azure":
        missing = [name for name in _AZURE_VARIABLES if not os.environ.get(name)]
        # Either of the two keys will do; the message names the usual one.
        if not any(os.environ.get(name) for name in _AZURE_KEYS):
            missing.insert(0, _AZURE_KEYS[0])
        if missing:
            raise _no_credentials(dialect.name, " and ".join(missing))
        return openai.AzureOpenAI()
    key, variable, server, path = _SERVERS[dialect.name]
    if not os.environ.get(key):
        raise _no_credentials(dialect.name, key)
    base_url = (os.environ.get(variable) or server).rstrip("/") + path
    return openai.OpenAI(api_key=os.environ[key], base_url=base_url)


def client_at(base_url: str | None, key_variable: str | None = None) -> Any:
    """Return an `openai` client for a server, its key read from the environment.

    Parameters
    ----------
    base_url : str, optional
        The server; by default ``OPENAI_BASE_URL``, else OpenAI's own.
    key_variable : str, optional
        The variable that holds the key; by default ``OPENAI_API_KEY``, and where that is not set, a
        server on this machine is asked without one.

    Raises
    ------
    ParameterError
        It is no URL, or the variable's name cannot be one.
    CredentialsError
        The variable is not set.
    """
    # Not quoted: it may well be the key itself.
    if key_variable is not None and not key_variable.isidentifier():
        raise ParameterError(
            "--api-key-env is not the name of an environment variable.",
            "Put the key into a variable, such as OPENAI_API_KEY, and give the variable's name.",
        )
    url = base_url or os.environ.get("OPENAI_BASE_URL") or None
    if url is not None and not url.startswith(("http://", "https://")):
        raise ParameterError(
            f"The base URL {url!r} does not begin with http:// or https://.",
            "Write it in full, such as http://localhost:11434/v1.",
        )
    key = os.environ.get(key_variable or "OPENAI_API_KEY")
    # A variable that the user named must be set, even for a server on this machine.
    if not key and key_variable is None and is_loopback(url):
        key = _NO_KEY
    if not key:
        raise _no_credentials("openai", key_variable or "OPENAI_API_KEY")
    return _client(key, url)


def _client(key: str | None, url: str | None) -> Any:
    """Make a client; one for a server on this machine uses no proxy."""
    import httpx2  # noqa: PLC0415 - comes with openai
    import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

    if not is_loopback(url):
        return openai.OpenAI(api_key=key, base_url=url)
    # The environment's proxies are meant for other machines, and NO_PROXY is often forgotten; with
    # a transport of its own the SDK's client asks for none of them.
    transport = httpx2.HTTPTransport(limits=openai.DEFAULT_CONNECTION_LIMITS)
    http = openai.DefaultHttpxClient(transport=transport)
    weakref.finalize(http, transport.close)  # as the SDK does with its own, when nobody uses it
    return openai.OpenAI(api_key=key, base_url=url, http_client=http)


_NO_KEY = "none"
"""Placeholder for a key where the server wants none: the SDK makes no client without one."""


def is_loopback(url: str | None) -> bool:
    """Tell whether a URL names this machine, whose own servers seldom want a key.

    Examples
    --------
    >>> is_loopback("http://localhost:11434/v1"), is_loopback("http://[::1]:8000/v1")
    (True, True)
    >>> is_loopback("https://api.openai.com/v1"), is_loopback(None)
    (False, False)
    """
    host = urlsplit(url or "").hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _no_credentials(provider: str, missing: str) -> CredentialsError:
    of_server = "ENDPOINT" in missing or "VERSION" in missing
    what = "server" if of_server and "KEY" not in missing else "API key"
    own = " (any text, if the server checks none)" if missing == _OPENAI[0] else ""
    return CredentialsError(
        f"There is no {what} for the provider {provider!r}.",
        f"Set {missing}{own} or pass client=; provider='local' and servers on this machine need "
        "none.",
    )
