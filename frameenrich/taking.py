"""Response lines that came by other means than the provider: a web page, ``vllm run-batch``."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from frameenrich.advance import ids_of
from frameenrich.errors import ResponsesError
from frameenrich.model import BatchStatus
from frameenrich.parse import read_response, split_lines
from frameenrich.store import JobFolder, ShardFolder

_FILE = "file"
_OK = 200
_GZIP = b"\x1f\x8b"


def take_responses(folder: JobFolder, path: str | os.PathLike[str]) -> None:
    """Add a file's lines to the shards whose requests they answer; see `Job.import_responses`.

    A shard whose batch still runs stays as it is, until all of its requests have a good answer:
    what the batch brings home later is added, not lost.

    Raises
    ------
    ResponsesError
        The file cannot be read, or no line of it answers a request of this job.
    """
    ids = {shard: ids_of(shard) for shard in folder.all_shards()}
    owners = {custom_id: shard for shard, own in ids.items() for custom_id in own}
    found: dict[ShardFolder, list[bytes]] = {}
    for line in _lines_of(path):
        response = read_response(line)
        if response is not None and response.custom_id in owners:
            found.setdefault(owners[response.custom_id], []).append(line)
    if not found:
        raise ResponsesError(
            f"No line of {os.fspath(path)} answers a request of the job {folder.id}.",
            "Give the output file of the requests in job.requests.",
            path=os.fspath(path),
        )
    with folder.lock():
        for shard, lines in found.items():
            _take(shard, lines, ids[shard])


def _take(shard: ShardFolder, lines: Sequence[bytes], ids: Sequence[str]) -> None:
    known = set(split_lines(shard.read_responses()))
    shard.add_responses(line for line in lines if line not in known)
    heard = [response for line in {*known, *lines} if (response := read_response(line))]
    good = {each.custom_id for each in heard if each.error is None and each.status_code == _OK}
    batch = shard.batch
    at_work = (batch.id is not None or batch.creating) and not batch.ended
    elsewhere = shard.job.spec.provider == _FILE  # nothing will come but what is imported
    if at_work and not elsewhere and not good.issuperset(ids):
        shard.save(batch.but(imported=True))
        return
    counts = {"total": len(ids), "completed": len(good.intersection(ids))}
    shard.save(batch.but(status=BatchStatus.COMPLETED, fetched=True, imported=True, **counts))


def _lines_of(path: str | os.PathLike[str]) -> Iterable[bytes]:
    try:
        data = Path(path).read_bytes()
        return split_lines([gzip.decompress(data) if data.startswith(_GZIP) else data])
    except (OSError, EOFError, zlib.error) as error:
        raise ResponsesError(
            f"The responses file {os.fspath(path)} cannot be read: "
            f"{getattr(error, 'strerror', None) or error}.",
            "Check the path.",
            path=os.fspath(path),
        ) from None
