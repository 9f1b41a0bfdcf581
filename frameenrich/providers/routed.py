"""Route each shard of a job to its own provider, where rounds went to several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import IO

from frameenrich.model import Batch, Limits
from frameenrich.providers.protocol import Provider, Shard, ShardWriter


class Routed:
    """A `Provider` that passes each batch on to the one that the batch names.

    Parameters
    ----------
    name : str
        The job's own provider.
    connected : callable
        Gives the provider of a name, None being the job's own; called only for what is used, so
        that no key is needed for batches that have ended.
    left : iterable of str or None
        The providers of the batches that have something to come: whether one of them answers in
        this process, and how long a full queue is left alone, goes by these.
    """

    def __init__(
        self,
        name: str,
        connected: Callable[[str | None], Provider],
        left: Iterable[str | None],
    ) -> None:
        self.name = name
        self._connected = connected
        at_work = [connected(other) for other in set(left)]
        # One provider that answers in this process is enough to have `send` block.
        self.blocking = any(provider.blocking for provider in at_work)
        every = [provider.limits for provider in at_work]
        # The slowest queue counts, or a full one would be tried again too soon.
        self.limits = max(every, key=lambda own: own.queue_wait_seconds, default=Limits())

    def url(self, endpoint: str) -> str:
        """Return what the job's own provider calls the endpoint."""
        return self._connected(None).url(endpoint)

    def send(self, shard: Shard, batch: Batch, writer: ShardWriter) -> Batch:
        """Send a shard through its provider, with that provider's name for the endpoint."""
        provider = self._connected(batch.provider)
        if batch.provider is not None:
            # The shard has the url of the job's own provider; a dialect may call it otherwise.
            shard = replace(shard, url=provider.url(shard.endpoint))
        return provider.send(shard, batch, writer)

    def poll(self, batch: Batch) -> Batch:
        """Return the batch as its provider has it now."""
        return self._connected(batch.provider).poll(batch)

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Write all lines of an ended batch, from its provider."""
        self._connected(batch.provider).fetch(batch, sink)

    def cancel(self, batch: Batch) -> Batch:
        """Cancel the batch at its provider."""
        return self._connected(batch.provider).cancel(batch)

    def delete_files(self, batch: Batch) -> None:
        """Delete what the batch's provider still keeps."""
        self._connected(batch.provider).delete_files(batch)
