"""Send each request as a call of its own, many at once: for servers without a Batch API.

The answers are written as Batch lines, so that nothing else has to know the difference. The only
async code, which makes the calls, is in `frameenrich.providers.live.client`.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from frameenrich.errors import ProviderError, warn_user
from frameenrich.jsonl import request_ids
from frameenrich.model import Batch, BatchStatus, Limits, Pace, Stage
from frameenrich.providers.credentials import secrets_in, secrets_of
from frameenrich.providers.dialects import AZURE, OPENAI, Dialect, check_client, client_of
from frameenrich.providers.protocol import Shard, ShardWriter
from frameenrich.text import scrub

if TYPE_CHECKING:
    import httpx2
    import openai

    from frameenrich.providers.live.client import Route


_NOT_OURS = ("host", "connection", "content-length", "accept-encoding", "x-stainless-")
"""Headers that the HTTP client sets itself, and the SDK's notes on itself."""


class LiveProvider:
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

    name = "live"
    blocking = True
    prompt_caching = "breakpoint"
    limits = Limits()

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

    def at_pace(self, pace: Pace) -> LiveProvider:
        """Return the same provider at another pace."""
        return LiveProvider(
            self._client,
            max_in_flight=pace.max_in_flight,
            requests_per_minute=pace.requests_per_minute,
            tokens_per_minute=pace.tokens_per_minute,
            attempts=self._attempts,
            wait_seconds=self._wait_seconds,
            timeout_seconds=pace.request_timeout_seconds or self._timeout_seconds,
            dialect=self._dialect,
        )

    def url(self, endpoint: str) -> str:
        """Return the Batch API's url, so that a live request has the same hash as a batched one."""
        return self._dialect.url(endpoint)

    @property
    def takes_samples(self) -> bool:
        """Whether one request may ask for several answers."""
        return self._dialect.samples

    def send(self, shard: Shard, batch: Batch, desk: ShardWriter) -> Batch:
        """Send what has no answer yet; after an interruption the next call goes on from there."""
        from frameenrich.providers.live.client import LiveClient  # noqa: PLC0415 - aiohttp

        done = desk.answered()
        batch = desk.record(batch.replace(status=BatchStatus.IN_PROGRESS, total=shard.requests))
        with shard.open() as lines:
            talk = LiveClient(
                lambda: self._route(shard),
                (pair for pair in request_ids(lines) if pair[0] not in done),
                desk.append,
                pace=self._pace,
                attempts=self._attempts,
                wait_seconds=self._wait_seconds,
                # Answers of an earlier call show that server and key are right.
                trusted=bool(done),
            )
            try:
                talk.run()
            finally:
                if talk.timed_out:
                    warn_user(_about_time_outs(talk.timed_out))
        return desk.record(
            batch.replace(
                id=f"live-{shard.tag}",
                status=BatchStatus.COMPLETED,
                completed=shard.requests - talk.failed,
                failed=talk.failed,
                # Nothing is to be downloaded: the answers were written as they came.
                stage=Stage.FETCHED,
            )
        )

    def _route(self, shard: Shard) -> Route:
        """Return the URL and headers that the SDK would use; nothing leaves the process."""
        import httpx2  # noqa: PLC0415 - comes with the SDK
        import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

        # The SDK takes longer than a fast server's answer. So it makes one request for each file,
        # against a transport that sends nothing, and its URL and headers serve for all calls.
        seen: list[httpx2.Request] = []

        def pretend(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return httpx2.Response(200, json={})

        try:
            with httpx2.Client(transport=httpx2.MockTransport(pretend)) as http:
                self._client.with_options(http_client=http, max_retries=0).post(
                    shard.endpoint.removeprefix("/v1"), cast_to=object, body={"model": shard.model}
                )
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise ProviderError(
                f"The client cannot make a request: {scrub(str(error)).rstrip('.')}.",
                "Check its key and its base_url; nothing was sent.",
            ) from None
        return self._as_route(seen[-1])

    def _as_route(self, request: httpx2.Request) -> Route:
        from frameenrich.providers.live.client import Route  # noqa: PLC0415 - aiohttp

        headers = {k: v for k, v in request.headers.items() if not k.startswith(_NOT_OURS)}
        limits = request.extensions.get("timeout", {})
        return Route(
            url=str(request.url.copy_with(userinfo=b"")),  # it is in the headers
            headers=headers,
            connect_seconds=limits.get("connect"),
            answer_seconds=self._timeout_seconds or limits.get("read"),
            secrets=(*secrets_of(self._client), *secrets_in(headers)),
        )

    def poll(self, batch: Batch) -> Batch:
        """Return the batch as it is: it only moves while `send` runs."""
        return batch

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Fetch nothing: `send` has written the lines."""

    def cancel(self, batch: Batch) -> Batch:
        """Stop; what was not answered will not be."""
        return batch.replace(status=BatchStatus.CANCELLED, stage=Stage.FETCHED)

    def delete_files(self, batch: Batch) -> None:
        """Delete nothing: the server keeps no files of ours."""


def connect(client: Any = None, model: str | None = None) -> LiveProvider:
    """Return the provider with the given client, or one built from the environment as the SDK does.

    Raises
    ------
    CredentialsError
        Neither a client nor ``OPENAI_API_KEY``.
    """
    del model
    return LiveProvider(client or client_of(OPENAI, "live"))


def _about_time_outs(count: int) -> str:
    what = "request was" if count == 1 else "requests were"
    return (
        f"{count:,} {what} not answered in time. The server may have run them all the same, and "
        "charge for them, so they are not asked again by themselves. Pass a greater "
        "request_timeout_seconds= to submit, then job.regenerate(statuses=['failed'])."
    )
