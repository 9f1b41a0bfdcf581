"""One step of a job: send what is not sent, look at what runs, bring home what has ended.

Each step leaves on disk where it stands, before and after each call that could be paid for; a
process that dies anywhere is continued by the next one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, Self

from frameenrich.model import Batch, BatchStatus, JobSpec
from frameenrich.parse import read_response, split_lines
from frameenrich.providers.base import Provider, Shard, request_ids
from frameenrich.store import JobFolder, ShardFolder, sync

Progress = Callable[[], None]


def advance(
    folder: JobFolder, provider: Provider, *, send: bool = True, progress: Progress | None = None
) -> bool:
    """Do what can be done for a job now; True when all its batches are settled.

    Parameters
    ----------
    folder : JobFolder
        The job.
    provider : Provider
        Where its requests go.
    send : bool
        Whether shards that the provider does not have yet may be sent.
    progress : callable, optional
        Called after each answered request of a provider that answers in this process.
    """
    with folder.lock():
        for shard in folder.all_shards():
            _step(shard, shard.batch, provider, send=send, progress=progress)
        return settled(folder)


def settled(folder: JobFolder) -> bool:
    """Whether nothing more will come."""
    return all(shard.batch.settled for shard in folder.all_shards())


def _step(
    shard: ShardFolder,
    batch: Batch,
    provider: Provider,
    *,
    send: bool,
    progress: Progress | None,
) -> None:
    if batch.settled:
        return
    if batch.id is None and not batch.ended:
        if not send:
            return
        with _StoreDesk(shard, progress) as desk:
            batch = provider.send(_sight(shard, batch), batch, desk)
    elif not batch.ended:
        batch = provider.poll(batch)
        shard.save(batch)
    if batch.ended and not batch.fetched:
        _bring_home(shard, batch, provider)


def _bring_home(shard: ShardFolder, batch: Batch, provider: Provider) -> None:
    """Download what an ended batch has, whole, then note that it is here."""
    if batch.output_file_id or batch.error_file_id:
        with shard.write_responses() as sink:
            provider.fetch(batch, sink)
    shard.save(batch.but(fetched=True))


def cancel(folder: JobFolder, provider: Provider) -> None:
    """Ask for an end of what runs; what was never sent is cancelled here and now."""
    with folder.lock():
        for shard in folder.all_shards():
            batch = shard.batch
            if batch.ended:
                continue
            if batch.id is None and not (batch.creating or batch.uploading):
                shard.save(batch.but(status=BatchStatus.CANCELLED, fetched=True))
            elif batch.id is not None:
                shard.save(provider.cancel(batch))


def refresh(folder: JobFolder, provider: Provider) -> None:
    """Look at what runs, and change nothing else."""
    with folder.lock():
        for shard in folder.all_shards():
            batch = shard.batch
            if batch.id is not None and not batch.ended:
                shard.save(provider.poll(batch))


def _sight(shard: ShardFolder, batch: Batch) -> Shard:
    """The shard as a provider sees it."""
    spec = shard.job.spec
    left_out = {rejection.custom_id for rejection in batch.rejected}
    return Shard(
        tag=batch.tag,
        endpoint=spec.endpoint,
        url=spec.url,
        model=spec.model,
        requests=_count_lines(shard) - len(left_out),
        open=lambda: _open_without(shard, left_out),
        metadata=_metadata(shard, spec),
    )


def _metadata(shard: ShardFolder, spec: JobSpec) -> dict[str, str]:
    return {
        "frameenrich_job": shard.job.id,
        "frameenrich_name": spec.name[:200],
        "frameenrich_shard": f"round {shard.round}, shard {shard.number}",
    }


def _count_lines(shard: ShardFolder) -> int:
    with shard.open_requests() as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))


def _open_without(shard: ShardFolder, left_out: set[str]) -> IO[bytes]:
    """The requests file, or a temporary one without the requests that were refused."""
    if not left_out:
        return shard.open_requests()
    kept: Any = tempfile.SpooledTemporaryFile(max_size=1 << 24)  # noqa: SIM115 - the caller closes it
    with shard.open_requests() as lines:
        kept.writelines(line for custom_id, line in request_ids(lines) if custom_id not in left_out)
    kept.seek(0)
    return kept  # type: ignore[no-any-return]


@dataclass
class _StoreDesk:
    """A provider's desk, which is the shard's files."""

    shard: ShardFolder
    progress: Progress | None = None
    _file: IO[bytes] | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def record(self, batch: Batch) -> Batch:
        self.shard.save(batch)
        return batch

    def answered(self) -> set[str]:
        lines = map(read_response, split_lines(self.shard.read_responses()))
        return {response.custom_id for response in lines if response is not None}

    def append(self, line: bytes) -> None:
        if self._file is None:
            self._file = self.shard.open_appending()
        self._file.write(line.rstrip(b"\n") + b"\n")
        sync(self._file)
        if self.progress is not None:
            self.progress()
