"""Write rows' requests to the files of a draft: cut into shards, with their sidecar."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa

from frameenrich.errors import RequestTooLargeError
from frameenrich.identity.dedupe import Deduplicator, JobHash, ShortHashes
from frameenrich.identity.keys import BLOCK_ROWS, custom_ids, show_key
from frameenrich.model import JobSpec, Limits
from frameenrich.prepare.job_files import requests_file
from frameenrich.rendering.body import LineWriter, RequestBodies
from frameenrich.rendering.encode_rows import EncodedRows
from frameenrich.store.draft import Draft
from frameenrich.store.sidecar import SidecarRows, SidecarWriter


def _none() -> ShortHashes:
    return np.empty(0, np.uint64)


@dataclass(frozen=True)
class Part:
    """Written rows in short, for the process that pays; a whole frame is one part.

    Parameters
    ----------
    number : int
        Its number; the parts' order is the rows'.
    rows : int
        The number of rows; a part without any is written nowhere.
    hashes : array of uint64
        The short hashes of its requests, sorted.
    requests : tuple of int
        The number of requests in each of its shards.
    models : tuple of str
        The model of each of its shards.
    job_hash : JobHash
        The hash of its rows.
    keys : array of uint64
        The digests of its rows' keys, where it is one of several.
    left_out : int
        How many of its rows have an image that cannot be used.
    example : str
        The first of them, and what is wrong with it.
    sized : int
        How many images were made smaller to what the model looks at.
    """

    number: int
    rows: int
    hashes: ShortHashes = field(default_factory=_none)
    requests: tuple[int, ...] = ()
    models: tuple[str, ...] = ()
    job_hash: JobHash = field(default_factory=JobHash)
    keys: ShortHashes = field(default_factory=_none)
    left_out: int = 0
    example: str = ""
    sized: int = 0

    @property
    def mark(self) -> bytes:
        """The bytes that tell whether two parts have the same rows and requests."""
        known = {"rows": self.rows, "requests": self.requests, "hash": self.job_hash.mark}
        return json.dumps(known).encode()


def custom_id_bytes(keys: pa.Table, tag: str) -> list[bytes]:
    """Return the custom_ids of some rows, as a line has them."""
    ids: list[bytes] = custom_ids(keys, tag).cast(pa.binary()).to_pylist()
    return ids


def write_requests(
    draft: Draft,
    rows: Iterable[tuple[str, EncodedRows]],
    keys: pa.Table,
    spec: JobSpec,
    limits: Limits,
    metadata: Mapping[str, str],
    *,
    watched: ShortHashes | None = None,
    name_rows: Callable[[pa.Table, str], list[bytes]] = custom_id_bytes,
) -> Part:
    """Write requests in order, each distinct one once, and their sidecar.

    Parameters
    ----------
    draft : Draft
        The draft that holds the files.
    rows : iterable of (str, EncodedRows)
        The model that each requests, and the rows themselves. A shard is for one model.
    keys : pyarrow.Table
        Each row's key.
    spec, limits
        The job's spec, and what one batch file may hold.
    metadata : mapping
        The sidecar's metadata (`frameenrich.store.sidecar.sidecar_metadata`).
    watched : array of uint64, optional
        Short hashes of requests that are known to repeat, sorted.
    name_rows : callable
        Makes custom_ids of keys and the job's tag.
    """
    first = Deduplicator(len(keys), watched)
    writer = _Writer(
        draft,
        _CustomIds(keys, lambda some: name_rows(some, spec.tag)),
        LineWriter(spec.url),
        limits,
        first,
    )
    job_hash, count, left_out, example, sized = JobHash(), 0, 0, "", 0
    # A row and its answer meet only through the sidecar. Its input hash is of the rendered text, so
    # a CSV read again with other dtypes agrees, and a `reset_index` after a sort does not.
    sidecar = SidecarWriter(
        draft, keys, metadata, job_hash, with_reasons=spec.on_bad_image == "skip"
    )
    try:
        for model, found in rows:
            lines = writer.add(model, found) if found.positions else SidecarRows.empty(found.rows)
            if 0 < len(found.positions) < found.rows:
                lines = lines.spread(found.rows, [position - count for position in found.positions])
            if found.left_out:
                first_row = min(found.left_out)
                example = example or f"row {show_key(keys, first_row)}: {found.left_out[first_row]}"
                left_out += len(found.left_out)
                lines.reasons = [found.left_out.get(count + i) for i in range(found.rows)]
            sidecar.add(lines)
            count += found.rows
            sized += found.sized
    finally:
        sidecar.close()
    hashes = first.unique_hashes()
    return Part(
        0,
        count,
        hashes,
        tuple(writer.counts),
        tuple(writer.models),
        job_hash,
        left_out=left_out,
        example=example,
        sized=sized,
    )


@dataclass
class _CustomIds:
    """Make the custom_ids of rows, a block at a time."""

    keys: pa.Table
    of: Callable[[pa.Table], list[bytes]]
    start: int = -1

    def at(self, positions: Sequence[int]) -> list[bytes]:
        """Return the custom_ids of rows of one block."""
        start = positions[0] - positions[0] % BLOCK_ROWS
        if start != self.start:
            self.start, self.ids = start, self.of(self.keys.slice(start, BLOCK_ROWS))
        if isinstance(positions, range):
            return self.ids[positions.start - start : positions.stop - start]
        return [self.ids[position - start] for position in positions]


class ShardCutter:
    """Decide which shard a line goes to, in order, within the limits of one batch file."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._most = limits.first_requests or limits.max_requests
        self._shard = 0
        self._requests = 0
        self._bytes = 0

    def cut(self) -> None:
        """Make the next line begin another shard, unless this one is empty."""
        if self._requests:
            self._shard, self._requests, self._bytes = self._shard + 1, 0, 0
            self._most = self._limits.max_requests  # `first_requests` is of the first alone

    def assign(self, line_bytes: int, position: int) -> int:
        """Return the shard number for a line of this many bytes.

        Raises
        ------
        RequestTooLargeError
            The line alone is larger than a file may be.
        """
        # No cut helps such a line. Here, not at the provider, which would refuse the whole file.
        if line_bytes > self._limits.max_bytes:
            raise RequestTooLargeError(
                f"The request of the row at position {position} has {line_bytes:,} bytes; a batch "
                f"file may have {self._limits.max_bytes:,}.",
                "Shorten that row's text, or leave the row out.",
                position=position,
            )
        full = self._requests == self._most
        if full or self._bytes + line_bytes > self._limits.max_bytes:
            self.cut()
        self._requests += 1
        self._bytes += line_bytes
        return self._shard

    def assign_together(self, lines: int, all_bytes: int) -> int | None:
        """Return the shard number for several lines; None where the shard has no room for all."""
        # No state changes unless all fit, so the caller can go on line by line.
        if self._requests + lines > self._most:
            return None
        if self._bytes + all_bytes > self._limits.max_bytes:
            return None
        self._requests += lines
        self._bytes += all_bytes
        return self._shard


@dataclass
class _ModelShards:
    """The shards of one model: their numbers in the job, and the first row of each."""

    cutter: ShardCutter
    numbers: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def number_at(self, position: int) -> int:
        """Return the number of the shard that holds a row's request."""
        return self.numbers[bisect_right(self.starts, position) - 1]


_Kind = Literal["own", "shared", "waiting"]
"""Who fills a shard: one part, several small ones, or the requests that wait for other jobs."""


@dataclass
class ShardFiles:
    """Fill the requests files of a draft; one of a model and a kind is open at a time."""

    draft: Draft
    limits: Limits
    first: int = 0
    """The number of the first shard to be sent."""
    counts: list[int] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    waits: dict[int, set[str]] = field(default_factory=dict)
    """The shards that wait for the answers of other jobs, and these jobs."""
    _of: dict[tuple[str, _Kind], _ModelShards] = field(default_factory=dict)

    def of(self, model: str, kind: _Kind = "own") -> _ModelShards:
        """Return the shards of a model: a part's own, those of small parts, or those that wait."""
        if (model, kind) not in self._of:
            # Only a job's very first shard may be the small one that goes ahead (`Limits`).
            first = kind != "own" or bool(self.counts)
            limits = replace(self.limits, first_requests=None) if first else self.limits
            self._of[model, kind] = _ModelShards(ShardCutter(limits))
        return self._of[model, kind]

    def write_waiting(self, model: str, position: int, line: bytes, job_id: str) -> int:
        """Write a request that another job has sent, too; return its shard's number."""
        # In a shard that waits: answers are taken over from there, and only those missing are sent.
        own = self.of(model, "waiting")
        number = self.write(model, own.cutter.assign(len(line), position), position, line, own=own)
        self.waits.setdefault(number, set()).add(job_id)
        return number

    def new(self, model: str, requests: int = 0) -> int:
        """Add a shard; return its number."""
        self.counts.append(requests)
        self.models.append(model)
        return self.first + len(self.counts) - 1

    def end_part(self) -> None:
        """Close the shards, so that the next part begins new ones; small parts go on sharing."""
        # A part is collected from the shards that its rows name: shared ones are read once a part.
        for name in [name for name in self._of if name[1] != "shared"]:
            if (own := self._of.pop(name)).numbers:
                self.draft.close_file(requests_file(own.numbers[-1]))

    def write(
        self,
        model: str,
        index: int,
        position: int,
        data: bytes,
        requests: int = 1,
        own: _ModelShards | None = None,
    ) -> int:
        """Write lines to the shard that the cutter numbers `index`; return its number in a job."""
        own = own or self.of(model)
        if index == len(own.numbers):
            if own.numbers:
                self.draft.close_file(requests_file(own.numbers[-1]))
            own.numbers.append(self.new(model))
            own.starts.append(position)
        number = own.numbers[index]
        self.counts[number - self.first] += requests
        self.draft.append(requests_file(number), data)
        return number


@dataclass
class _Writer:
    """Write the requests of rows in order, each distinct one once."""

    draft: Draft
    names: _CustomIds
    lines: LineWriter
    limits: Limits
    first: Deduplicator

    def __post_init__(self) -> None:
        self._files = ShardFiles(self.draft, self.limits)
        self.counts, self.models = self._files.counts, self._files.models

    def add(self, model: str, found: EncodedRows) -> SidecarRows:
        """Write the requests that are new; return the sidecar's row for each request."""
        positions, ids = found.positions, self.names.at(found.positions)
        first_rows = self.first.first_rows(found.request_hashes, positions)
        if first_rows is positions:  # the usual case: no row repeats, so nothing is compared
            shards = self._send(model, positions, ids, found.bodies)
            return SidecarRows(ids, found.request_hashes, found.input_hashes, shards)
        pairs = list(zip(positions, first_rows, strict=True))
        new = [i for i, (position, earliest) in enumerate(pairs) if position == earliest]
        bodies, rows = found.bodies.take(new), [positions[i] for i in new]
        sent = iter(self._send(model, rows, [ids[i] for i in new], bodies))
        # Kept as starts of shards, not a number a row: memory stays small for any job.
        number_at = self._files.of(model).number_at
        shards = [next(sent) if own == earliest else number_at(earliest) for own, earliest in pairs]
        others = [i for i, (position, earliest) in enumerate(pairs) if position != earliest]
        # A repeated request goes by the custom_id of its first row, which may be blocks before.
        first_keys = self.names.keys.take(pa.array([first_rows[i] for i in others]))
        for i, custom_id in zip(others, self.names.of(first_keys), strict=True):
            ids[i] = custom_id
        return SidecarRows(ids, found.request_hashes, found.input_hashes, shards)

    def _send(
        self, model: str, positions: Sequence[int], ids: Sequence[bytes], bodies: RequestBodies
    ) -> list[int]:
        """Write requests; return the shard of each."""
        if not ids:
            return []
        cutter, write = self._files.of(model).cutter, self._files.write
        # A chunk nearly always fits the open shard: one join and one write instead of hundreds.
        together = self.lines.together(ids, bodies)
        index = cutter.assign_together(len(ids), len(together))
        if index is not None:
            return [write(model, index, positions[0], together, len(ids))] * len(ids)
        lines = zip(positions, self.lines.lines(ids, bodies), strict=True)
        return [write(model, cutter.assign(len(line), p), p, line) for p, line in lines]
