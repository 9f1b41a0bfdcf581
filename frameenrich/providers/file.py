"""Write request files and send nothing: the user runs them elsewhere."""

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

    def send(self, shard: Shard, batch: Batch, writer: ShardWriter) -> Batch:
        """Record the shard as running: its file is written, and the user takes it from there."""
        return writer.record(
            batch.replace(
                id=f"file-{shard.tag}", status=BatchStatus.IN_PROGRESS, total=shard.requests
            )
        )

    def poll(self, batch: Batch) -> Batch:
        """Return the batch as it is: only an import of answers changes it."""
        return batch

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Fetch nothing: answers come by import."""

    def cancel(self, batch: Batch) -> Batch:
        """Mark the batch as cancelled; no answers are awaited any more."""
        return batch.replace(status=BatchStatus.CANCELLED)

    def delete_files(self, batch: Batch) -> None:
        """Delete nothing: all files are in the job's folder."""


def connect(client: Any = None, model: str | None = None) -> FileProvider:
    """Return the provider; it needs no client."""
    del client, model
    return FileProvider()
