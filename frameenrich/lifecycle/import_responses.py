"""Response lines that came by other means than the provider: a web page, ``vllm run-batch``."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.answers.judge import read_response
from frameenrich.errors import ParameterError, ResponsesError
from frameenrich.jsonl import request_ids, split_lines
from frameenrich.model import BatchStatus, Json, Stage
from frameenrich.store.folder import JobFolder, ShardFolder, ids_of

_FILE = "file"


_OK = 200


_GZIP = b"\x1f\x8b"


def import_responses(folder: JobFolder, path: str | os.PathLike[str]) -> None:
    """Add a file's lines to the shards whose requests they answer; see `Job.import_responses`.

    A shard whose batch still runs stays as it is, until all of its requests have a usable answer:
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
    at_work = batch.running or batch.creating
    # Where nothing will come but what is imported.
    elsewhere = (shard.batch.provider or shard.job.spec.provider) == _FILE
    if at_work and not elsewhere and not good.issuperset(ids):
        shard.save(batch.replace(imported=True))
        return
    counts = {"total": len(ids), "completed": len(good.intersection(ids))}
    done = batch.replace(status=BatchStatus.COMPLETED, stage=Stage.FETCHED, imported=True, **counts)
    shard.save(done)


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


def find_requests(folder: JobFolder, custom_ids: str | Iterable[str]) -> dict[str, Json]:
    """The requests of a job, of whichever round, that go by some custom_ids.

    Raises
    ------
    ParameterError
        The job has no request of some custom_id.
    """
    wanted = [custom_ids] if isinstance(custom_ids, str) else list(custom_ids)
    names = _wire_ids(folder, wanted)
    found = _lines(folder, set(names.values()))
    unknown = [custom_id for custom_id in wanted if names[custom_id] not in found]
    if unknown:
        example = folder.sidecar()["custom_id"].drop_null()[0].as_py()
        raise ParameterError(
            f"The job {folder.id} has no request with the custom_id {unknown[0]!r}.",
            f"A custom_id of it is {example!r}; collect(usage=True) has those of all rows.",
            custom_ids=unknown,
        )
    return {custom_id: json.loads(found[names[custom_id]]) for custom_id in wanted}


def _wire_ids(folder: JobFolder, wanted: list[str]) -> dict[str, str]:
    """Return what each is called at the provider: its tag may be left out, or it had a name."""
    if folder.spec.messages:
        end = f"-{folder.spec.tag}" if folder.spec.tag else ""
        return {custom_id: custom_id.removesuffix(end) + end for custom_id in wanted}
    names = {custom_id: custom_id for custom_id in wanted}
    sidecar = folder.sidecar().select(["key_0", "custom_id"])
    own = sidecar.filter(pc.is_in(sidecar["key_0"], value_set=pa.array(wanted, pa.string())))
    return names | dict(zip(own["key_0"].to_pylist(), own["custom_id"].to_pylist(), strict=True))


def _lines(folder: JobFolder, names: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for shard in folder.all_shards():
        if len(found) == len(names):
            break
        with shard.open_requests() as lines:
            found |= {name: line for name, line in request_ids(lines) if name in names}
    return found
