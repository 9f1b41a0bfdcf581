"""Give a provider a shard to send, and write its answers to the shard's files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, Self

from frameenrich.answers.judge import read_response
from frameenrich.atomic import sync
from frameenrich.errors import StoreError
from frameenrich.jsonl import request_ids, split_lines
from frameenrich.model import Batch, JobSpec
from frameenrich.prepare.batch_options import MAX_PAIRS
from frameenrich.providers.protocol import Shard
from frameenrich.store.folder import job_folders
from frameenrich.store.local import unwritable
from frameenrich.store.shard import ShardFolder, model_of

Progress = Callable[[], None]


def shard_for_provider(shard: ShardFolder, batch: Batch, *, may_create: bool = True) -> Shard:
    """Return the shard in the form that a provider takes."""
    spec = shard.job.spec
    left_out = requests_left_out(shard, batch)
    return Shard(
        tag=batch.tag,
        endpoint=spec.endpoint,
        url=spec.url,
        model=model_of(shard),
        requests=shard.request_count - len(left_out),
        open=lambda: _open_without(shard, left_out),
        metadata=_metadata(shard, spec),
        # Another provider was never asked whether it takes the job's window, so it has its own.
        completion_window=None if batch.provider else spec.completion_window,
        confirm_seconds=spec.confirm_seconds,
        resumed=shard.job.resumed,
        may_create=may_create,
        since=shard.job.created_at,
        others=lambda: _batches_of_others(shard),
    )


def _batches_of_others(shard: ShardFolder) -> set[str]:
    """Return the ids of the batches that other shards of the store have."""
    found = set[str]()
    for folder in job_folders(shard.job.store):
        # A job that cannot be read names no batch; one that it has then counts as nobody's.
        with contextlib.suppress(StoreError):
            found.update(
                other.batch.id
                for other in folder.all_shards()
                if other.batch.id and other.batch.tag != shard.batch.tag
            )
    return found


def requests_left_out(shard: ShardFolder, batch: Batch) -> set[str]:
    """Return the custom_ids that are not sent: refused, or answered by an import."""
    refused = {rejection.custom_id for rejection in batch.rejected}
    if not batch.imports:
        return refused
    lines = map(read_response, split_lines(shard.read_responses()))
    return refused | {response.custom_id for response in lines if response is not None}


def answered_here(shard: ShardFolder) -> set[str]:
    """Return the custom_ids of a shard that a line here answers, and not with an error."""
    heard = filter(None, map(read_response, split_lines(shard.read_responses())))
    return {each.custom_id for each in heard if each.error is None and each.status_code == _OK}


_OK = 200


def _metadata(shard: ShardFolder, spec: JobSpec) -> dict[str, str]:
    """Return the batch's metadata: the user's pairs, and ours as far as there is room."""
    ours = {
        "frameenrich_job": shard.job.id,
        "frameenrich_name": spec.name[:200],
        "frameenrich_shard": f"round {shard.round}, shard {shard.number}",
    }
    # The user's pairs win: OpenAI's batches take 16, one of which is the tag.
    room = MAX_PAIRS - len(spec.metadata)
    return {**dict(list(ours.items())[:room]), **spec.metadata}


def _open_without(shard: ShardFolder, left_out: set[str]) -> IO[bytes]:
    """Open the requests file, or a temporary one without the requests that were refused."""
    if not left_out:
        return shard.job.store.open(shard.requests_path)  # the caller closes it
    kept: Any = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with shard.open_requests() as lines:
        kept.writelines(line for custom_id, line in request_ids(lines) if custom_id not in left_out)
    kept.seek(0)
    return kept  # type: ignore[no-any-return]


@dataclass
class StoreShardWriter:
    """Writes what a provider reports to the shard's files."""

    shard: ShardFolder
    progress: Progress | None = None
    _file: IO[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # Here, in the thread that holds the job: another one may append.
        self._check = self.shard.job.store.checking(self.shard.responses_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what was appended is on disk, or was an error
                self._file.close()

    def record(self, batch: Batch) -> Batch:
        """Write the batch to disk, before the provider goes on."""
        if batch.settled and batch.output_file_id is None:  # nothing more will be appended
            batch = batch.replace(responses=self.shard.prove_responses())
        self.shard.save(batch)
        return batch

    def answered(self) -> set[str]:
        """Return the custom_ids that have a response line already."""
        lines = map(read_response, split_lines(self.shard.read_responses()))
        return {response.custom_id for response in lines if response is not None}

    def append(self, *lines: bytes) -> None:
        """Add response lines, which are on disk when this returns.

        Raises
        ------
        JobBusyError
            Another computer took the job over, so that this one has to ask no more.
        """
        self._check()
        if self._file is None:
            self._file = self.shard.open_appending()
        try:
            self._file.writelines(line.rstrip(b"\n") + b"\n" for line in lines)
            # On disk before the slot is free: a kill then costs only what was in flight.
            sync(self._file)
        except OSError as error:
            raise unwritable(self.shard.responses_path, error) from None
        if self.progress is not None:
            for _ in lines:
                self.progress()


class NothingKept:
    """A `ShardWriter` for a search that changes nothing on disk."""

    def record(self, batch: Batch) -> Batch:
        """Return the batch."""
        return batch

    def answered(self) -> set[str]:
        """Return no custom_id."""
        return set()

    def append(self, *lines: bytes) -> None:
        """Refuse lines: a search brings none."""
        raise NotImplementedError
