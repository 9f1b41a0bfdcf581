"""Hold what is the same in every provider that has answered all when `send` ends."""

from __future__ import annotations

from typing import IO

from frameenrich.model import Batch, BatchStatus, Stage


class Blocking:
    """The verbs of a provider that writes each answer as it comes; a subclass sends."""

    blocking = True

    def poll(self, batch: Batch) -> Batch:
        """Return the batch as it is: it only moves while `send` runs."""
        return batch

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Fetch nothing: `send` has written the lines."""

    def cancel(self, batch: Batch) -> Batch:
        """Stop; what was not answered will not be."""
        return batch.replace(status=BatchStatus.CANCELLED, stage=Stage.FETCHED)

    def delete_files(self, batch: Batch) -> None:
        """Delete nothing: no server keeps files of ours."""
