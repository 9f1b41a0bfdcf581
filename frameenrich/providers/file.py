"""Nowhere: the JSONL lies in the job's folder and somebody else runs it."""

from __future__ import annotations

from typing import IO, Any

from frameenrich.model import Batch, BatchStatus, Limits
from frameenrich.providers.protocol import Shard, ShardWriter


class FileProvider:
    """Writes request files; answers come through ``job.import_responses(path)``."""

    name = "file"
    blocking = False
    limits = Limits()

    def url(self, endpoint: str) -> str:
        """Return the endpoint as it is, which ``vllm run-batch`` and web pages take."""
        return endpoint

    def send(self, shard: Shard, batch: Batch, desk: ShardWriter) -> Batch:
        """Return the file is there; from now on somebody else is at work."""
        return desk.record(
            batch.replace(
                id=f"file-{shard.tag}", status=BatchStatus.IN_PROGRESS, total=shard.requests
            )
        )

    def poll(self, batch: Batch) -> Batch:
        """Nobody to ask: the answers come when they are imported."""
        return batch

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Nothing to fetch."""

    def cancel(self, batch: Batch) -> Batch:
        """No answers are awaited any more."""
        return batch.replace(status=BatchStatus.CANCELLED)

    def delete_files(self, batch: Batch) -> None:
        """Nothing is kept anywhere else."""


def connect(client: Any = None, model: str | None = None) -> FileProvider:
    """Return the provider; it needs no client."""
    del client, model
    return FileProvider()
