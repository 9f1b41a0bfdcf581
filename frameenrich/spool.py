"""Requests to the files of a draft: which are sent, in which shard, and the sidecar beside them."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa

from frameenrich.draft import Draft
from frameenrich.hashes import HASH_BYTES
from frameenrich.keys import BLOCK_ROWS, custom_ids, key_digests
from frameenrich.model import JobSpec, Limits
from frameenrich.repeats import FirstAsked, JobHash, split_hashes
from frameenrich.rows import RowRequests, hash_column
from frameenrich.shard import Bodies, LineWriter, ShardCutter
from frameenrich.store import shard_name

FINGERPRINT = "frameenrich.fingerprint"
"""Where the sidecar's metadata has the frame's, if it has one."""

SKIPPED = -1
"""Shard number of a row that was left out by the null policy."""

ROWS_PER_GROUP = 1 << 15
"""At most so many rows of a sidecar are read together."""

_NO_HASH = bytes(HASH_BYTES)


class Answers(Protocol):
    """Requests that need not be sent: their answers are at hand (see `frameenrich.reuse`)."""

    @property
    def origins(self) -> Mapping[bytes, object]:
        """The request hashes."""

    @property
    def jobs(self) -> tuple[str, ...]:
        """Which jobs they come from."""

    def lines(self, ids: Mapping[bytes, str]) -> Iterator[bytes]:
        """Response lines for some request hashes, each under the custom_id given."""


def requests_name(number: int) -> str:
    """Where the requests of a shard of round 0 are in a draft."""
    return f"round-0/{shard_name(number)}.requests.jsonl"


@dataclass
class _Names:
    """The names of one block of rows."""

    keys: pa.Table
    start: int = -1

    def at(self, positions: Sequence[int]) -> list[bytes]:
        """The custom_ids of rows that are in one block."""
        self._turn_to(positions[0])
        start = self.start
        if isinstance(positions, range):
            return self.ids[positions.start - start : positions.stop - start]
        return [self.ids[position - start] for position in positions]

    def _turn_to(self, position: int) -> None:
        start = position - position % BLOCK_ROWS
        if start != self.start:
            self.start, self.ids = start, id_bytes(self.keys.slice(start, BLOCK_ROWS))


def id_bytes(keys: pa.Table) -> list[bytes]:
    """The custom_ids of some rows, as they stand in a line."""
    ids: list[bytes] = custom_ids(keys).cast(pa.binary()).to_pylist()
    return ids


class Spool:
    """Takes the requests of a frame in order; afterwards a draft holds their files.

    Parameters
    ----------
    draft : Draft
        Where the files go.
    keys : pyarrow.Table
        Each row's key.
    spec : JobSpec
        The job's.
    key_names : sequence of str
        What a person calls the parts of the key.
    limits : Limits
        Of one batch file.
    first : FirstAsked
        Knows which requests were asked by an earlier row.
    answers : Answers, optional
        Requests in it go to shard 0, which is never sent.
    fingerprint : str, optional
        Of the frame (`frameenrich.fingerprint`).
    """

    def __init__(
        self,
        draft: Draft,
        keys: pa.Table,
        spec: JobSpec,
        key_names: Sequence[str],
        limits: Limits,
        first: FirstAsked,
        answers: Answers | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self._draft = draft
        self._names = _Names(keys)
        self._lines = LineWriter(spec.url)
        self.first_shard = 0 if answers is None else 1
        self._cutter = ShardCutter(limits, self.first_shard)
        self._starts: list[int] = []
        self._counts: list[int] = []
        self._answers = answers
        self.first = first
        self.job_hash = JobHash()
        metadata = sidecar_metadata(spec, key_names, fingerprint)
        self._sidecar = _Sidecar(draft, keys, metadata, self.job_hash)
        self._rows = 0
        self.reused: dict[bytes, str] = {}
        """The custom_id of each request that has an answer already, by its hash."""

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return self.first_shard + len(self._starts)

    def requests(self, number: int) -> int:
        """How many requests a shard that is to be sent has."""
        return self._counts[number - self.first_shard]

    def add(self, found: RowRequests) -> None:
        """Take the next rows."""
        start, self._rows = self._rows, self._rows + found.rows
        lines = self._placed(found) if found.positions else _Rows.empty(found.rows)
        if 0 < len(found.positions) < found.rows:
            lines = lines.spread(found.rows, [position - start for position in found.positions])
        self._sidecar.add(lines)

    def _placed(self, found: RowRequests) -> _Rows:
        """Write what is new of some requests; gives a line for each."""
        own = self._names.at(found.positions)
        askers = self.first.askers(found.request_hashes, found.positions)
        if askers is found.positions and self._answers is None:
            shards = self._send(found.positions, own, found.bodies)
        else:
            own, shards = self._send_new(found, own, askers)
        return _Rows(own, found.request_hashes, found.input_hashes, shards)

    def _send(self, positions: Sequence[int], ids: Sequence[bytes], bodies: Bodies) -> list[int]:
        """Write some requests; gives the shard of each."""
        if not ids:
            return []
        together = self._lines.together(ids, bodies)
        number = self._cutter.place_together(len(ids), len(together))
        if number is not None:
            self._write(number, positions[0], together, len(ids))
            return [number] * len(ids)
        shards = []
        lines = self._lines.lines(ids, bodies)
        for position, line in zip(positions, lines, strict=True):
            shards.append(self._cutter.place(len(line), position))
            self._write(shards[-1], position, line, 1)
        return shards

    def _write(self, number: int, position: int, data: bytes, requests: int) -> None:
        if number == self.shards:
            if self._starts:  # one shard's file at a time is open, however many there are
                self._draft.close_file(requests_name(number - 1))
            self._starts.append(position)
            self._counts.append(0)
        self._counts[-1] += requests
        self._draft.file(requests_name(number)).write(data)

    def _send_new(
        self, found: RowRequests, own: list[bytes], askers: Sequence[int]
    ) -> tuple[list[bytes], list[int]]:
        """Write the requests that no earlier row asked; gives each row's custom_id and shard."""
        known = self._answers.origins if self._answers is not None else {}
        hashes = split_hashes(found.request_hashes)
        rows = list(zip(found.positions, askers, hashes, strict=True))
        new = [i for i, (p, asker, h) in enumerate(rows) if p == asker and h not in known]
        ids, positions = [own[i] for i in new], [found.positions[i] for i in new]
        sent = iter(self._send(positions, ids, found.bodies.take(new)))
        shards = []
        for i, (position, asker, request_hash) in enumerate(rows):
            if request_hash in known:
                shards.append(0)
                if position == asker:
                    self._reuse(request_hash, own[i], found.bodies.take([i]))
            else:
                shards.append(next(sent) if position == asker else self._shard_of(asker))
        return self._named_after(askers, found.positions, own), shards

    def _shard_of(self, position: int) -> int:
        return self.first_shard + bisect_right(self._starts, position) - 1

    def _named_after(
        self, askers: Sequence[int], positions: Sequence[int], own: list[bytes]
    ) -> list[bytes]:
        """The custom_ids of the rows that asked first."""
        others = [i for i, asker in enumerate(askers) if asker != positions[i]]
        if others:
            first = self._names.keys.take(pa.array([askers[i] for i in others]))
            for i, custom_id in zip(others, id_bytes(first), strict=True):
                own[i] = custom_id
        return own

    def _reuse(self, request_hash: bytes, custom_id: bytes, body: Bodies) -> None:
        self.reused[request_hash] = custom_id.decode()
        line = self._lines.together([custom_id], body)
        self._draft.file(requests_name(0)).write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sidecar.close()


@dataclass
class _Rows:
    """Lines of the sidecar, but for their keys."""

    ids: list[Any]
    request_hashes: bytes
    input_hashes: bytes
    shards: list[int]

    def spread(self, rows: int, places: Sequence[int]) -> _Rows:
        """Lines of so many rows, of which those at `places` have these."""
        whole = _Rows.empty(rows)
        for i, row in enumerate(places):
            whole.ids[row], whole.shards[row] = self.ids[i], self.shards[i]
        asked, read = (
            _spread(own, rows, places) for own in (self.request_hashes, self.input_hashes)
        )
        return _Rows(whole.ids, asked, read, whole.shards)

    @classmethod
    def empty(cls, rows: int) -> _Rows:
        """Lines of rows that have no request."""
        return cls([None] * rows, _NO_HASH * rows, _NO_HASH * rows, [SKIPPED] * rows)


def _spread(hashes: bytes, rows: int, places: Sequence[int]) -> bytes:
    whole = np.zeros((rows, HASH_BYTES), np.uint8)
    whole[places] = np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES)
    return whole.tobytes()


class _Sidecar:
    """The sidecar as it grows, some rows in memory at a time."""

    def __init__(
        self, draft: Draft, keys: pa.Table, metadata: Mapping[str, str], job_hash: JobHash
    ) -> None:
        self._keys = keys
        self._job_hash = job_hash
        schema = keys.schema
        for name, kind in _COLUMNS.items():
            schema = schema.append(pa.field(name, kind))
        self._schema = schema.with_metadata(metadata)
        self._writer = draft.sidecar_writer(self._schema)
        self._written = 0
        self._clear()

    def _clear(self) -> None:
        self._ids: list[bytes | None] = []
        self._request_hashes = bytearray()
        self._input_hashes = bytearray()
        self._shards: list[int] = []

    def add(self, rows: _Rows) -> None:
        """The next rows."""
        self._ids += rows.ids
        self._request_hashes += rows.request_hashes
        self._input_hashes += rows.input_hashes
        self._shards += rows.shards
        if len(self._ids) >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        keys = self._keys.slice(self._written, len(self._ids))
        self._job_hash.add(key_digests(keys), self._request_hashes)
        columns = [
            pa.array(self._ids, pa.string()),
            hash_column(self._request_hashes),
            hash_column(self._input_hashes),
            pa.array(self._shards, pa.int32()),
        ]
        self._writer.write_table(pa.table([*keys.columns, *columns], schema=self._schema))
        self._written += len(self._ids)
        self._clear()

    def close(self) -> None:
        """Write the rest; also where it will be thrown away, as Arrow wants it closed."""
        if self._ids:
            self._flush()
        self._writer.close()


_COLUMNS = {
    "custom_id": pa.string(),
    "request_hash": pa.binary(HASH_BYTES),
    "input_hash": pa.binary(HASH_BYTES),
    "shard": pa.int32(),
}


def sidecar_metadata(
    spec: JobSpec, key_names: Sequence[str], fingerprint: str | None = None
) -> dict[str, str]:
    """What the sidecar says of the job, beside its rows."""
    known = {} if fingerprint is None else {FINGERPRINT: fingerprint}
    return {
        **known,
        "frameenrich.spec": spec.to_json(),
        "frameenrich.created_at": repr(time.time()),
        "frameenrich.key_names": "\x1f".join(key_names),
        "frameenrich.version": str(spec.version),
    }
