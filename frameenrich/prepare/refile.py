"""File the requests of written parts as one job's, without those that need not be sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frameenrich.errors import DamagedFileError
from frameenrich.identity.dedupe import ShortHashes, is_in, short_hash_column
from frameenrich.identity.hash_table import HashTable, KnownRequests, Positions
from frameenrich.jsonl import request_ids
from frameenrich.prepare.job_files import requests_file
from frameenrich.prepare.writer import Part, ShardFiles
from frameenrich.store.folder import JobFolder
from frameenrich.store.sidecar import SKIPPED, row_groups

# A provider limits how many batches run at once, and each is waited for. But whoever collects a
# part reads all of the files that it shares, so a part that is large enough has its own.
_SHARING = 4
"""Parts share a file where so many of them fit into one."""


@dataclass
class Reused:
    """The requests that have answers: where each stands among those known, and its custom_id."""

    _positions: list[Positions] = field(default_factory=list)
    _names: list[pa.Array] = field(default_factory=list)

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(map(len, self._positions))

    def add(self, positions: Positions, names: pa.Array) -> None:
        """Add some."""
        self._positions.append(positions)
        self._names.append(names)

    def whole(self) -> tuple[Positions, pa.Array]:
        """Return the positions and custom_ids of them all."""
        # The pieces make room for the whole: both would be in memory while answers are copied.
        self._positions = [np.concatenate([np.empty(0, np.int64), *self._positions])]
        self._names = [pa.chunked_array(self._names, pa.string()).combine_chunks()]
        return self._positions[0], self._names[0]


@dataclass
class _Requests:
    """The requests of one shard of a part, in the order of its file, with arrays over them.

    ``rows`` are the part's rows that need them, ``of_row`` the request of each.
    """

    rows: Positions
    of_row: npt.NDArray[np.int32]
    names: pa.Array
    hashes: pa.ChunkedArray
    answered: Positions
    """Where each stands among those that have answers; -1 for none."""
    waiting: Positions
    """Where each stands among those that are running; -1 for none."""
    repeated: npt.NDArray[np.bool_]
    """Whether an earlier row has asked the same already."""
    number: npt.NDArray[np.int32]
    """The job's shard of each."""

    @property
    def stays(self) -> bool:
        """Tell whether all of them are to be sent."""
        kept = (self.answered < 0) & (self.waiting < 0) & ~self.repeated
        return bool(kept.all())


@dataclass
class Refiling:
    """File the requests of parts as one job's; a request stays with the first row that needs it.

    ``known`` are the hashes of answered requests, ``running`` those that another job has sent;
    ``repeats`` are the short hashes of requests that occur more than once.
    """

    files: ShardFiles
    known: HashTable
    running: KnownRequests
    repeats: ShortHashes
    share: bool = False
    """Whether small shards of several parts go into one file."""
    reused: Reused = field(default_factory=Reused)
    _first: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    """The custom_id and the shard of each request so far that occurs more than once."""

    def take(self, part: Part, folder: JobFolder) -> Iterator[pa.Table]:
        """File a part's requests; yield its sidecar with the job's custom_ids and shards.

        A shard that loses no request is moved unread, unless it is so small that it shares a file
        with other parts'. After the first that does, the model's later shards are cut again, or
        every batch could be sent part-filled.
        """
        number, renamed = np.full(folder.row_count, SKIPPED, np.int32), dict[int, str]()
        cut = set[str]()
        # A shard at a time: of a part of a million rows the requests of one are in memory.
        for shard, model in enumerate(part.models):
            own = self._requests(folder, shard)
            repeats = self._mark_repeats(own)
            path = f"{folder.path}/{requests_file(shard)}"
            small = self.share and self._is_small(folder, path, len(own.names))
            if not small and own.stays and model not in cut:
                own.number[:] = self.files.new(model, len(own.names))
                self.files.draft.take_over(requests_file(int(own.number[0])), path)
            else:
                if not small:
                    cut.add(model)
                self._write(own, folder, path, model, "shared" if small else "own")
            renamed.update(self._name_repeats(own, repeats))
            number[own.rows] = own.number[own.of_row]
            answered = np.flatnonzero((own.answered >= 0) & ~own.repeated)
            self.reused.add(own.answered[answered], own.names.take(pa.array(answered)))
        self.files.end_part()
        yield from _with_homes(folder, number, renamed)

    def _requests(self, folder: JobFolder, shard: int) -> _Requests:
        """Return the requests of one shard of a part."""
        names = ["custom_id", "request_hash", "shard"]
        tables, positions = zip(*row_groups(folder, names, shard=shard), strict=True)
        rows, at = pa.concat_tables(tables), np.concatenate(positions)
        # The dictionary numbers requests by their first rows, which is their order in the file.
        ids = rows["custom_id"].combine_chunks().dictionary_encode()
        of_row = ids.indices.to_numpy()
        first = np.unique(of_row, return_index=True)[1]
        hashes = rows["request_hash"].take(pa.array(first))
        answered = self.known.find(hashes)
        waiting = np.where(answered >= 0, -1, self.running.hashes.find(hashes))
        none = np.zeros(len(first), np.int32)
        return _Requests(
            at, of_row, ids.dictionary, hashes, answered, waiting, none.astype(np.bool_), none
        )

    def _mark_repeats(self, own: _Requests) -> dict[int, bytes]:
        """Mark the requests that an earlier row has; return the hashes of all that repeat."""
        seen = np.flatnonzero(is_in(self.repeats, short_hash_column(own.hashes)))
        hashes = own.hashes.take(pa.array(seen)).to_pylist()
        here = set[bytes]()
        for i, own_hash in zip(seen.tolist(), hashes, strict=True):
            own.repeated[i] = own_hash in self._first or own_hash in here
            here.add(own_hash)
        return dict(zip(seen.tolist(), hashes, strict=True))

    def _name_repeats(self, own: _Requests, repeats: dict[int, bytes]) -> Iterator[tuple[int, str]]:
        """Give repeated requests the shard of the first; yield their rows and its custom_id."""
        for i, own_hash in repeats.items():
            name = own.names[i].as_py()
            first, own.number[i] = self._first.setdefault(own_hash, (name, int(own.number[i])))
            if first != name:
                yield from ((row, first) for row in own.rows[own.of_row == i].tolist())

    def _write(
        self,
        own: _Requests,
        folder: JobFolder,
        path: str,
        model: str,
        kind: Literal["own", "shared"],
    ) -> None:
        """Write the requests of a shard to where each goes, and number them.

        Raises
        ------
        DamagedFileError
            The file does not have one line for each of them, in their order.
        """
        files, shards = self.files, self.files.of(model, kind)
        answered, repeated = (own.answered >= 0).tolist(), own.repeated.tolist()
        jobs = self.running.job_numbers(own.waiting).tolist()
        waiting = (own.waiting >= 0).tolist()
        names, read = own.names.to_pylist(), 0
        with folder.store.open(path) as lines:
            for i, (custom_id, line) in enumerate(request_ids(lines)):
                # Else rows would be counted to a shard that does not have their requests.
                if i == len(names) or custom_id != names[i]:
                    raise _damaged(path, f"its line {i + 1:,} is of {custom_id!r}")
                read += 1
                if repeated[i]:
                    continue
                if answered[i]:
                    files.draft.file(requests_file(0)).write(line)
                elif waiting[i]:
                    job_id = self.running.jobs[jobs[i]]
                    own.number[i] = files.write_waiting(model, i, line, job_id)
                else:
                    index = shards.cutter.assign(len(line), i)
                    own.number[i] = files.write(model, index, i, line, own=shards)
        if read < len(names):
            raise _damaged(path, f"it has {read:,} of {len(names):,} requests")

    def _is_small(self, folder: JobFolder, path: str, requests: int) -> bool:
        """Tell whether a part's shard goes into a file with others'."""
        limits = self.files.limits
        # The batch of one that goes ahead of a job stays alone, or nothing would go ahead.
        if limits.first_requests is not None and not self.files.counts:
            return False
        # The count first: the size of a file may be a request to a bucket.
        return (
            requests * _SHARING <= limits.max_requests
            and folder.store.fs.size(path) * _SHARING <= limits.max_bytes
        )


def _damaged(path: str, how: str) -> DamagedFileError:
    return DamagedFileError(
        f"The file {path} is not as it was written: {how}.",
        "Nothing was sent. Write the parts anew: submit again.",
        path=path,
    )


def _with_homes(
    folder: JobFolder, number: npt.NDArray[np.int32], renamed: dict[int, str]
) -> Iterator[pa.Table]:
    """Yield a part's sidecar, a row group at a time, with other shards and custom_ids."""
    for rows, positions in row_groups(folder, folder.facts.schema.names):
        names, at = rows["custom_id"], positions.tolist()
        if not renamed.keys().isdisjoint(at):
            own = zip(at, names.to_pylist(), strict=True)
            names = pa.array([renamed.get(row, name) for row, name in own], pa.string())
        index = rows.column_names.index
        renumbered = rows.set_column(index("shard"), "shard", pa.array(number[positions]))
        yield renumbered.set_column(index("custom_id"), "custom_id", names)
