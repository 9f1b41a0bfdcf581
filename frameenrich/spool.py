"""Requests to the files of a draft: which are sent, in which shard, and the sidecar beside them."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import pyarrow as pa

from frameenrich.draft import Draft
from frameenrich.keys import BLOCK_ROWS, custom_ids, key_digests
from frameenrich.model import JobSpec, Limits
from frameenrich.repeats import FirstAsked, Halves, JobHash
from frameenrich.rows import RowRequests, hash_column
from frameenrich.shard import HASH_BYTES, LineWriter, ShardCutter
from frameenrich.store import shard_name

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

    def digests(self, start: int, rows: int) -> Halves:
        """The digests of the keys of rows that are in one block."""
        self._turn_to(start)
        return self._digests[start - self.start : start - self.start + rows]

    def _turn_to(self, position: int) -> None:
        start = position - position % BLOCK_ROWS
        if start != self.start:
            block = self.keys.slice(start, BLOCK_ROWS)
            self.start, self.ids = start, id_bytes(block)
            self._digests = key_digests(block)


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
        self._sidecar = _Sidecar(draft, keys, spec, key_names)
        self._rows = 0
        self.job_hash = JobHash()
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
        digests = self._names.digests(start, found.rows)
        lines = self._placed(found) if found.positions else _Rows.empty(found.rows)
        if 0 < len(found.positions) < found.rows:
            lines = lines.spread(found, start)
        self.job_hash.add(digests, lines.request_hashes)
        self._sidecar.add(lines)

    def _placed(self, found: RowRequests) -> _Rows:
        """Write what is new of some requests; gives a line for each."""
        own = self._names.at(found.positions)
        askers = self.first.askers(found.request_hashes, found.positions)
        if askers == list(found.positions) and self._answers is None:
            shards = self._send(found.positions, own, found.bodies)
        else:
            own, shards = self._send_new(found, own, askers)
        return _Rows([*own], found.request_hashes, found.input_hashes, shards)

    def _send(
        self, positions: Sequence[int], ids: Sequence[bytes], bodies: Sequence[bytes]
    ) -> list[int]:
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
        rows = list(zip(found.positions, askers, found.request_hashes, strict=True))
        new = [i for i, (p, asker, h) in enumerate(rows) if p == asker and h not in known]
        ids, bodies = [own[i] for i in new], [found.bodies[i] for i in new]
        sent = iter(self._send([found.positions[i] for i in new], ids, bodies))
        shards = []
        for i, (position, asker, request_hash) in enumerate(rows):
            if request_hash in known:
                shards.append(0)
                if position == asker:
                    self._reuse(request_hash, own[i], found.bodies[i])
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

    def _reuse(self, request_hash: bytes, custom_id: bytes, body: bytes) -> None:
        self.reused[request_hash] = custom_id.decode()
        line = self._lines.together([custom_id], [body])
        self._draft.file(requests_name(0)).write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sidecar.close()


@dataclass
class _Rows:
    """Lines of the sidecar, but for their keys."""

    ids: MutableSequence[bytes | None]
    request_hashes: MutableSequence[bytes]
    input_hashes: MutableSequence[bytes]
    shards: MutableSequence[int]

    def spread(self, found: RowRequests, start: int) -> _Rows:
        """With a line for each row that has no request."""
        whole = _Rows.empty(found.rows)
        for i, position in enumerate(found.positions):
            row = position - start
            whole.ids[row], whole.shards[row] = self.ids[i], self.shards[i]
            whole.request_hashes[row] = self.request_hashes[i]
            whole.input_hashes[row] = self.input_hashes[i]
        return whole

    @classmethod
    def empty(cls, rows: int) -> _Rows:
        """Lines of rows that have no request."""
        return cls([None] * rows, [_NO_HASH] * rows, [_NO_HASH] * rows, [SKIPPED] * rows)


class _Sidecar:
    """The sidecar as it grows, some rows in memory at a time."""

    def __init__(
        self, draft: Draft, keys: pa.Table, spec: JobSpec, key_names: Sequence[str]
    ) -> None:
        self._keys = keys
        schema = keys.schema
        for name, kind in _COLUMNS.items():
            schema = schema.append(pa.field(name, kind))
        self._schema = schema.with_metadata(sidecar_metadata(spec, key_names))
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
        self._request_hashes += b"".join(rows.request_hashes)
        self._input_hashes += b"".join(rows.input_hashes)
        self._shards += rows.shards
        if len(self._ids) >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        keys = self._keys.slice(self._written, len(self._ids))
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


def sidecar_metadata(spec: JobSpec, key_names: Sequence[str]) -> dict[str, str]:
    """What the sidecar says of the job, beside its rows."""
    return {
        "frameenrich.spec": spec.to_json(),
        "frameenrich.created_at": repr(time.time()),
        "frameenrich.key_names": "\x1f".join(key_names),
        "frameenrich.version": str(spec.version),
    }
