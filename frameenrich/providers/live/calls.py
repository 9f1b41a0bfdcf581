"""The verbs of a provider that sends each request as a call of its own, whatever its API."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from frameenrich.errors import warn_user
from frameenrich.jsonl import encode, loads, request_ids
from frameenrich.model import Batch, BatchStatus, Json, Limits, Pace, Stage
from frameenrich.providers.blocking import Blocking
from frameenrich.providers.live.route import Route
from frameenrich.providers.protocol import Provider, Shard, ShardWriter


class LiveCalls(Blocking):
    """Sends each request of a shard on its own, many at once; a subclass says how one is made."""

    name = "live"
    limits = Limits()
    _pace = Pace()
    _attempts = 8
    _wait_seconds = 0.5
    _timeout_seconds: float | None = None

    def _route(self, shard: Shard) -> Route:
        """Return where a shard's calls go, with a key that is still good."""
        raise NotImplementedError

    def at_pace(self, pace: Pace) -> Self:
        """Return the same provider at another pace."""
        # A copy: two jobs of one process may share a provider, each at its own pace.
        other = copy.copy(self)
        other._pace = pace  # noqa: SLF001 - our own
        other._timeout_seconds = pace.request_timeout_seconds or self._timeout_seconds  # noqa: SLF001
        return other

    def send(self, shard: Shard, batch: Batch, writer: ShardWriter) -> Batch:
        """Send what has no answer yet; after an interruption the next call goes on from there."""
        from frameenrich.providers.live.client import LiveClient  # noqa: PLC0415 - aiohttp

        def route() -> Route:
            found = self._route(shard)
            return replace(found, answer_seconds=self._timeout_seconds or found.answer_seconds)

        # What the disk says and no list in memory: after a kill the paid answers are there and
        # nowhere else.
        done = writer.answered()
        batch = writer.record(batch.replace(status=BatchStatus.IN_PROGRESS, total=shard.requests))
        with shard.open() as lines:
            talk = LiveClient(
                route,
                (pair for pair in request_ids(lines) if pair[0] not in done),
                writer.append,
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
        return writer.record(
            batch.replace(
                id=f"live-{shard.tag}",
                status=BatchStatus.COMPLETED,
                completed=shard.requests - talk.failed,
                failed=talk.failed,
                # Nothing is to be downloaded: the answers were written as they came.
                stage=Stage.FETCHED,
            )
        )


def _about_time_outs(count: int) -> str:
    what = "request was" if count == 1 else "requests were"
    return (
        f"{count:,} {what} not answered in time. The server may have run them all the same, and "
        "charge for them, so they are not asked again by themselves. Pass a greater "
        "request_timeout_seconds= to submit, then job.regenerate(statuses=['failed'])."
    )


class TranslatedCalls(LiveCalls):
    """Live calls to the server of a provider whose API is not OpenAI's.

    Parameters
    ----------
    owner : Provider
        The provider of its batches, whose name, endpoint and options these calls share.
    route : callable
        Where a shard's calls go.
    request, answer : callable
        Translate the body of a request, and that of an answer.
    """

    def __init__(
        self,
        owner: Provider,
        route: Callable[[Shard], Route],
        request: Callable[[dict[str, Json]], Json],
        answer: Callable[[Any], Json],
    ) -> None:
        self._owner = owner
        self._find_route = route
        self._request = request
        self._answer = answer
        # Its prices and answers are those of the provider, so a pilot's job has that name, too.
        self.name = owner.name
        self.takes_samples = getattr(owner, "takes_samples", True)
        self.prompt_caching = getattr(owner, "prompt_caching", None)

    def __repr__(self) -> str:
        return f"{self._owner!r}.live()"

    def url(self, endpoint: str) -> str:
        """Return the provider's endpoint, so that a live request has the hash of a batched one."""
        return self._owner.url(endpoint)

    def check(self, body: Json) -> None:
        """Refuse a request that cannot be translated.

        Raises
        ------
        ParameterError
            It has a parameter or message that the API does not take.
        """
        self._request(body)

    def _route(self, shard: Shard) -> Route:
        return replace(
            self._find_route(shard),
            translate=lambda body: encode(self._request(loads(body))),
            heard=self._heard,
        )

    def _heard(self, body: bytes) -> bytes:
        """Return an answer as a chat completion; what is none stays as it came."""
        try:
            return encode(self._answer(loads(body)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return body
