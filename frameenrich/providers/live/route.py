"""Say how live calls are made: address, headers, time-outs, and the server's own words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from frameenrich.errors import ProviderError
from frameenrich.providers.credentials import secrets_in, secrets_of
from frameenrich.text import scrub

_NOT_OURS = ("host", "connection", "content-length", "accept-encoding", "x-stainless-")
"""Headers that the HTTP client sets itself, and the SDK's notes on itself."""


@dataclass(frozen=True)
class Route:
    """The URL, headers and time-outs of requests to one model.

    ``secrets`` are the values that must be neither shown nor stored; times are seconds.
    ``translate`` gives a request's body in the server's words, ``heard`` an answer's in ours.
    """

    url: str
    headers: dict[str, str]
    connect_seconds: float | None
    answer_seconds: float | None
    secrets: tuple[str | None, ...] = ()
    translate: Callable[[bytes], bytes] = bytes
    heard: Callable[[bytes], bytes] = bytes

    def __repr__(self) -> str:
        return f"Route({self.url!r})"


def sdk_route(client: Any, path: str, model: str, errors: type[Exception]) -> Route:
    """Return the URL and headers that an SDK's client would use; nothing leaves the process.

    Parameters
    ----------
    client : openai.OpenAI or anthropic.Anthropic
        The client.
    path : str
        Where it would post to, after its base URL.
    model : str
        The model, which Azure has in the URL.
    errors : type
        What the SDK raises of its own.

    Raises
    ------
    ProviderError
        The client cannot make a request.
    """
    import httpx2  # noqa: PLC0415 - comes with the SDK

    # The SDK takes longer than a fast server's answer. So it makes one request for each file,
    # against a transport that sends nothing, and its URL and headers serve for all calls.
    seen: list[httpx2.Request] = []

    def pretend(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={})

    try:
        with httpx2.Client(transport=httpx2.MockTransport(pretend)) as http:
            client.with_options(http_client=http, max_retries=0).post(
                path, cast_to=object, body={"model": model}
            )
    except (errors, httpx2.HTTPError) as error:
        raise ProviderError(
            f"The client cannot make a request: {scrub(str(error)).rstrip('.')}.",
            "Check its key and its base_url; nothing was sent.",
        ) from None
    request = seen[-1]
    headers = {k: v for k, v in request.headers.items() if not k.startswith(_NOT_OURS)}
    limits = request.extensions.get("timeout", {})
    return Route(
        url=str(request.url.copy_with(userinfo=b"")),  # it is in the headers
        headers=headers,
        connect_seconds=limits.get("connect"),
        answer_seconds=limits.get("read"),
        secrets=(*secrets_of(client), *secrets_in(headers)),
    )
