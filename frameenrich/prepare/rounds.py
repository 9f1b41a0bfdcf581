"""Write the requests of a later round into a job's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from frameenrich.identity.hashes import HASH_BYTES
from frameenrich.model import Limits
from frameenrich.prepare.job_files import write_intents
from frameenrich.prepare.writer import Approve, ShardCutter
from frameenrich.store.folder import JobFolder, shard_name


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """One request of a later round: whose it is, its line, and why and how it was changed.

    ``answers`` is the row's custom_id in round 0, ``status`` what the row was flagged with.
    """

    answers: str
    custom_id: str
    line: bytes
    request_hash: bytes
    model: str
    status: str
    change: str


_ROUND = pa.schema(
    {
        "answers": pa.string(),
        "custom_id": pa.string(),
        "request_hash": pa.binary(HASH_BYTES),
        "shard": pa.int32(),
        "status": pa.string(),
        "change": pa.string(),
    }
)


def write_retry_round(
    folder: JobFolder,
    round_: int,
    requests: Iterable[RetryRequest],
    limits: Limits,
    approve: Approve | None = None,
) -> bool:
    """Write a later round, a request at a time; a file holds requests to one model."""
    cutter, model = ShardCutter(limits), None
    rows: list[dict[str, Any]] = []
    with folder.store.draft() as draft:
        for position, own in enumerate(requests):
            if model is not None and own.model != model:
                cutter.cut()
            model, number = own.model, cutter.place(len(own.line), position)
            if number:
                draft.close_file(f"{shard_name(number - 1)}.requests.jsonl")
            draft.file(f"{shard_name(number)}.requests.jsonl").write(own.line)
            rows.append({name: getattr(own, name, number) for name in _ROUND.names})
        write_intents(draft, folder.id, round_, Counter(row["shard"] for row in rows), "")
        if approve is not None:
            names = (shard_name(number) for number in range(rows[-1]["shard"] + 1))
            approve(draft.lines(f"{name}.requests.jsonl" for name in names))
        draft.write_sidecar(pa.Table.from_pylist(rows, _ROUND))
        return draft.commit(f"{folder.id}/round-{round_}")
