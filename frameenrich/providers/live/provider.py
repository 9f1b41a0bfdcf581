"""Send each request as a call of its own, many at once: for servers without a Batch API.

The answers are written as Batch lines, so that nothing else has to know the difference. The only
async code, which makes the calls, is in `frameenrich.providers.live.client`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frameenrich.model import Pace
from frameenrich.providers.dialects import AZURE, OPENAI, Dialect, check_client, client_of
from frameenrich.providers.live.calls import LiveCalls
from frameenrich.providers.live.route import Route, sdk_route
from frameenrich.providers.protocol import Shard

if TYPE_CHECKING:
    import openai


class LiveProvider(LiveCalls):
    """Sends each request on its own, over HTTP, many at once; writes each answer as it comes.

    Parameters
    ----------
    client : openai.OpenAI or openai.AzureOpenAI
        Decides the server, the key, the headers and the time-outs. Its transport (``http_client``)
        is not used; proxies are taken from the environment, as the SDK does by default.
    max_in_flight : int
        How many requests may wait for their answers at once; fewer are, where the server says
        that it is too many. It is also the most that a kill can cost: what was asked and not
        answered yet is asked again.
    requests_per_minute, tokens_per_minute : int, optional
        The server's rate limits, to keep within. Tokens are reckoned from the request's length
        and from what earlier answers took.
    attempts : int
        How often a request that failed for a passing reason is made in all. Waiting because of a
        rate limit (429) does not count.
    wait_seconds : float
        The first wait between attempts; it doubles, with jitter, up to a minute.
    timeout_seconds : float, optional
        How long an answer may take; by default as the client says. A request that takes longer
        may have run, so it fails with that reason and is not made again by itself.
    dialect : Dialect, optional
        What the server's batches call an endpoint; by default OpenAI's, or Azure's for an
        `AzureOpenAI` client.

    Examples
    --------
    >>> import openai
    >>> client = openai.OpenAI(base_url="http://localhost:11434/v1", api_key="ollama")
    >>> LiveProvider(client, max_in_flight=4)
    LiveProvider('localhost', max_in_flight=4)
    """

    prompt_caching = "breakpoint"

    def __init__(
        self,
        client: openai.OpenAI,
        *,
        max_in_flight: int = 64,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        attempts: int = 8,
        wait_seconds: float = 0.5,
        timeout_seconds: float | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

        # The client decides: an Azure client needs Azure's urls, also where the provider is `live`.
        classic = isinstance(client, openai.AzureOpenAI)
        self._dialect = dialect or (AZURE if classic else OPENAI)
        check_client(client, self.name)
        self._client = client
        self._pace = Pace(max_in_flight, requests_per_minute, tokens_per_minute)
        self._attempts = attempts
        self._wait_seconds = wait_seconds
        self._timeout_seconds = timeout_seconds

    @property
    def server(self) -> str:
        """The host that requests go to; it decides which parameters are allowed."""
        return str(self._client.base_url.host)

    def __repr__(self) -> str:
        host = self._client.base_url.host
        return f"LiveProvider({host!r}, max_in_flight={self._pace.max_in_flight})"

    def url(self, endpoint: str) -> str:
        """Return the Batch API's url, so that a live request has the same hash as a batched one."""
        return self._dialect.url(endpoint)

    @property
    def takes_samples(self) -> bool:
        """Whether one request may ask for several answers."""
        return self._dialect.supports_samples

    def _route(self, shard: Shard) -> Route:
        import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

        # The client's base URL ends in /v1 already.
        path = shard.endpoint.removeprefix("/v1")
        return sdk_route(self._client, path, shard.model, openai.OpenAIError)


def connect(client: Any = None, model: str | None = None) -> LiveProvider:
    """Return the provider with the given client, or one built from the environment as the SDK does.

    Raises
    ------
    CredentialsError
        Neither a client nor ``OPENAI_API_KEY``.
    """
    del model
    return LiveProvider(client or client_of(OPENAI, "live"))
