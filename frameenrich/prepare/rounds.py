"""Write the requests of a later round into a job's folder."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from frameenrich.identity.hashes import HASH_BYTES
from frameenrich.model import Limits
from frameenrich.prepare.job_files import write_intents
from frameenrich.prepare.writer import ShardCutter
from frameenrich.store.draft import Draft
from frameenrich.store.folder import OWNER, JobFolder
from frameenrich.store.shard import shard_name
from frameenrich.store.sidecar import ROWS_PER_GROUP


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """A request of a later round: the row it is for, its line, and its change and the reason.

    ``answers`` is the row's custom_id in round 0, ``status`` the flag of its last answer.
    """

    answers: str
    custom_id: str
    line: bytes
    request_hash: bytes
    model: str
    status: str
    change: str


# The sidecar records the change to each request: the next round starts from the request as last
# sent, and `job.rounds()` and the card show it.
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


_ROWS_AT_ONCE = 1 << 11


@dataclass(frozen=True)
class RoundDraft:
    """Hold a later round whose files are written, until it is committed."""

    draft: Draft
    target: str
    shards: int

    def request_lines(self) -> Iterator[bytes]:
        """Read the requests to be sent."""
        names = (shard_name(number) for number in range(self.shards))
        return self.draft.lines(f"{name}.requests.jsonl" for name in names)

    def commit(self) -> bool:
        """Make the draft the round; return False if another process made it meanwhile."""
        return self.draft.commit(self.target)


@contextlib.contextmanager
def draft_of_round(
    folder: JobFolder,
    round_: int,
    requests: Iterable[RetryRequest],
    limits: Limits,
    provider: str | None = None,
) -> Iterator[RoundDraft]:
    """Write a later round, a request at a time, into a draft that vanishes unless committed.

    A file holds requests to one model. `provider` is the round's, where that is not the job's own.
    """
    cutter, model, counts = ShardCutter(limits), None, Counter[int]()
    rows: list[dict[str, Any]] = []
    tables: list[pa.Table] = []  # a row is less than a tenth of its size there
    schema = _ROUND.with_metadata({OWNER: f"{folder.id}/round-{round_}"})
    with folder.store.draft() as draft, draft.sidecar_writer(schema) as sidecar:
        for position, own in enumerate(requests):
            if model is not None and own.model != model:
                cutter.cut()
            model, number = own.model, cutter.assign(len(own.line), position)
            if number:
                # Shards fill in order, so at most one file is open.
                draft.close_file(f"{shard_name(number - 1)}.requests.jsonl")
            draft.file(f"{shard_name(number)}.requests.jsonl").write(own.line)
            # "shard" is the one column that a request has no attribute for.
            rows.append({name: getattr(own, name, number) for name in _ROUND.names})
            counts[number] += 1
            if len(rows) == _ROWS_AT_ONCE:
                tables.append(pa.Table.from_pylist(rows, _ROUND))
                rows.clear()
            if len(tables) * _ROWS_AT_ONCE == ROWS_PER_GROUP:
                sidecar.write_table(pa.concat_tables(tables))
                tables.clear()
        sidecar.write_table(pa.concat_tables([*tables, pa.Table.from_pylist(rows, _ROUND)]))
        sidecar.close()
        # The intents last, as they name the number of requests and the hash of each file.
        write_intents(draft, folder.id, round_, counts, "", provider)
        yield RoundDraft(draft, f"{folder.id}/round-{round_}", len(counts))
