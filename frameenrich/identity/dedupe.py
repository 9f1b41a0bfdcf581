"""Find rows that make the same request, and name a job by what it sends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frameenrich.identity.hashes import HASH_BYTES, split_hashes
from frameenrich.identity.older import mixed
from frameenrich.model import JobSpec

# A frame that repeats itself mostly does so early, so memory stays small. Later repeats are found
# at the end by the first 8 bytes of their hashes.
REMEMBERED = 1 << 16
"""How many requests are remembered whole, some 160 bytes each; of others only 8 bytes are kept."""


ShortHashes = npt.NDArray[np.uint64]
"""The first 8 bytes of request hashes."""


def short_hashes(hashes: bytes | bytearray) -> ShortHashes:
    r"""Return the first 8 bytes of each hash.

    Examples
    --------
    >>> short_hashes(bytes(32) + b"\x02" + bytes(31))
    array([0, 2], dtype=uint64)
    """
    return np.frombuffer(hashes, "<u8")[:: HASH_BYTES // 8]


def short_hash_column(hashes: pa.ChunkedArray) -> ShortHashes:
    """Return the first 8 bytes of each hash of an Arrow column without nulls."""
    words = hashes.type.byte_width // 8
    pieces = [
        np.frombuffer(piece.buffers()[1], "<u8")[words * piece.offset :][
            : words * len(piece) : words
        ]
        for piece in hashes.chunks
        if len(piece)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint64)


def is_in(ordered: ShortHashes, some: ShortHashes) -> npt.NDArray[np.bool_]:
    """Tell which of `some` are among the `ordered` ones.

    Examples
    --------
    >>> is_in(np.array([2, 5], "u8"), np.array([5, 9], "u8"))
    array([ True, False])
    """
    if not len(ordered):
        return np.zeros(len(some), dtype=np.bool_)
    # What is greater than all gets len(ordered), which is no index: hence the minimum below.
    at = np.searchsorted(ordered, some)
    found: npt.NDArray[np.bool_] = ordered[np.minimum(at, len(ordered) - 1)] == some
    return found


class Deduplicator:
    """Find the first row that makes each request.

    The first `REMEMBERED` requests are remembered whole. A frame that has more may repeat one of
    the others unseen: those are the `duplicates` of its `unique_hashes`.

    Parameters
    ----------
    rows : int
        The most requests there can be.
    watched : array of uint64, optional
        In order: short hashes to remember, however many there are.
    """

    def __init__(self, rows: int, watched: ShortHashes | None = None) -> None:
        self._first: dict[bytes, int] = {}
        self._watched = np.empty(0, np.uint64) if watched is None else watched
        self._hashes = np.empty(rows, np.uint64)
        self._count = 0

    def first_rows(self, hashes: bytes, positions: Sequence[int]) -> Sequence[int]:
        """Return the first row that made each row's request, or its own position."""
        each, own, known = split_hashes(hashes), short_hashes(hashes), len(self._first)
        if known + len(each) <= REMEMBERED:
            found: Sequence[int] = list(map(self._first.setdefault, each, positions))
            new = len(self._first) == known + len(each)
        else:
            watched = is_in(self._watched, own)
            new = not watched.any() and self._first.keys().isdisjoint(each)
            found = positions if new else self._looked_up(each, positions, watched)
        # Repeats that were found are not noted, or `duplicates` would report them once more.
        kept = own if new else own[np.equal(found, positions)]
        self._hashes[self._count : self._count + len(kept)] = kept
        self._count += len(kept)
        return positions if new else found

    def _looked_up(
        self, hashes: Iterable[bytes], positions: Sequence[int], watched: npt.NDArray[np.bool_]
    ) -> list[int]:
        return [
            self._first.setdefault(h, p) if watch else self._first.get(h, p)
            for h, p, watch in zip(hashes, positions, watched.tolist(), strict=True)
        ]

    def unique_hashes(self) -> ShortHashes:
        """Return the short hashes of all distinct requests, in order."""
        self._hashes = self._hashes[: self._count]
        self._hashes.sort()
        return self._hashes


def duplicates(ordered: ShortHashes) -> ShortHashes:
    """Return those that occur more than once among the ordered ones.

    Examples
    --------
    >>> duplicates(np.array([1, 2, 2, 2, 7], "u8"))
    array([2], dtype=uint64)
    """
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


class JobHash:
    """Name a job by what it sends; the order of the rows does not count."""

    def __init__(self) -> None:
        self._sums = np.zeros(2, np.uint64)

    def add(self, keys: ShortHashes, hashes: bytes | bytearray) -> None:
        """Count some rows in: the digests of their keys, and their request hashes."""
        words = np.frombuffer(hashes, "<u8").reshape(-1, HASH_BYTES // 8)
        first = mixed(mixed(keys ^ words[:, 0]) + words[:, 1])
        second = mixed(mixed(mixed(keys) + words[:, 2]) ^ words[:, 3])
        # A sum is the same in every order of the rows; wrapping at 64 bits is fine.
        self._sums += np.stack([first, second]).sum(axis=1, dtype=np.uint64)

    def merge(self, other: JobHash) -> None:
        """Count in all rows that another one counted."""
        self._sums += other._sums

    @property
    def mark(self) -> str:
        """Return a text that is the same for the same rows, whatever their job."""
        return self._sums.astype("<u8").tobytes().hex()

    def hexdigest(self, spec: JobSpec, nonce: str) -> str:
        """Return the job's id: 32 hexadecimal digits."""
        start = f"{spec.identity_json()}\n{nonce}".encode("utf-8", "surrogatepass")
        # As long as the ids of earlier versions, which were XXH3 of 128 bits.
        return sha256(start + self._sums.astype("<u8").tobytes()).hexdigest()[:32]
