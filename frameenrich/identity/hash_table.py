"""Find whole request hashes among millions, in some 44 bytes each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frameenrich.identity.dedupe import ShortHashes
from frameenrich.identity.hashes import HASH_BYTES

Positions = npt.NDArray[np.int64]

_Words = npt.NDArray[np.uint64]
"""Hashes as rows of four numbers."""


_AT_ONCE = 1 << 16
"""How many hashes are searched for together."""


def _words(columns: Iterable[pa.Array | pa.ChunkedArray]) -> _Words:
    """Return the hashes of columns without nulls, one after the other."""
    pieces = [np.empty((0, HASH_BYTES // 8), np.uint64)]
    for column in columns:
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            # Read as rows of 32, an older store's shorter hashes would be found in silence or not
            # at all.
            if len(chunk) and chunk.type != pa.binary(HASH_BYTES):
                raise ValueError(f"hashes of another length than {HASH_BYTES} bytes: {chunk.type}")
            if len(chunk):
                words = np.frombuffer(chunk.buffers()[1], "<u8").reshape(-1, HASH_BYTES // 8)
                pieces.append(words[chunk.offset : chunk.offset + len(chunk)])
    return np.concatenate(pieces)


class HashTable:
    """Tells where whole hashes stand in a column; of equal ones the first.

    Examples
    --------
    >>> column = pa.array([b"a" * 32, b"b" * 32], pa.binary(32))
    >>> HashTable([column]).find(pa.array([b"b" * 32, b"c" * 32], pa.binary(32)))
    array([ 1, -1])
    """

    # No dict: an object a hash would take three times as much for its entry alone. Sorted are the
    # first eight bytes, which numpy finds fast; whoever makes two requests agree in those, which
    # can be done, is found out by the other 24.
    def __init__(self, columns: Iterable[pa.Array | pa.ChunkedArray]) -> None:
        self._hashes = _words(columns)
        self._order = np.argsort(self._hashes[:, 0], kind="stable").astype(np.uint32)
        self.short: ShortHashes = self._hashes[self._order, 0]
        """The first eight bytes of each, in order."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._hashes)

    def has(self, own: bytes) -> bool:
        """Tell whether a hash is among them."""
        return bool(self._find(np.frombuffer(own, "<u8").reshape(1, -1))[0] >= 0)

    def find(self, hashes: pa.Array | pa.ChunkedArray) -> Positions:
        """Return the position of each hash in the column; -1 for one that is not there."""
        return self._find(_words([hashes]))

    @cached_property
    def is_first(self) -> npt.NDArray[np.bool_]:
        """Tell which hashes do not stand before in the column."""
        first = np.empty(len(self), np.bool_)
        # Some at a time, as each step of a search copies the hashes that it compares.
        for start in range(0, len(self), _AT_ONCE):
            some = self._hashes[start : start + _AT_ONCE]
            first[start : start + len(some)] = self._find(some) == start + np.arange(len(some))
        return first

    def _find(self, wanted: _Words) -> Positions:
        found = np.full(len(wanted), -1, np.int64)
        at = np.searchsorted(self.short, wanted[:, 0])
        left = np.arange(len(wanted))
        while len(left):
            left = left[at[left] < len(self)]
            left = left[self.short[at[left]] == wanted[left, 0]]
            positions = self._order[at[left]]
            same = (self._hashes[positions] == wanted[left]).all(axis=1)
            found[left[same]] = positions[same]
            left = left[~same]
            at[left] += 1  # the next one with the same first bytes
        return found


@dataclass(frozen=True)
class KnownRequests:
    """Requests that other jobs have, found by their hashes, and the job of each.

    Parameters
    ----------
    hashes : HashTable
        Those of one job after the other.
    jobs : sequence of str
        The jobs' ids.
    ends : sequence of int
        Where each job's hashes end.
    """

    hashes: HashTable
    jobs: Sequence[str] = ()
    ends: Sequence[int] = ()

    @classmethod
    def of(cls, pieces: Sequence[tuple[str, pa.Array | pa.ChunkedArray]]) -> KnownRequests:
        """Put jobs' requests together; of equal ones the first job's counts."""
        table = HashTable(hashes for _, hashes in pieces)
        ends = tuple(accumulate(len(hashes) for _, hashes in pieces))
        return cls(table, tuple(job_id for job_id, _ in pieces), ends)

    def job_numbers(self, positions: Positions) -> Positions:
        """Return the number among `jobs` of each request's job, by its position."""
        return np.searchsorted(np.array(self.ends, np.int64), positions, side="right")

    def start_of(self, job: int) -> int:
        """Return the position of a job's first request, by the job's number among `jobs`."""
        return self.ends[job - 1] if job else 0

    @property
    def used_jobs(self) -> tuple[str, ...]:
        """The ids of the jobs whose requests count, in order."""
        numbers = self.job_numbers(np.flatnonzero(self.hashes.is_first))
        return tuple(sorted({self.jobs[number] for number in np.unique(numbers).tolist()}))
