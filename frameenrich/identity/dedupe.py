"""Find rows that make the same request, and name a job by what it sends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from frameenrich.identity.hashes import HASH_BYTES
from frameenrich.model import JobSpec

REMEMBERED = 1 << 16
"""How many requests are remembered whole, some 140 bytes each; of others only 8 bytes are kept."""


ShortHashes = npt.NDArray[np.uint64]
"""The first 8 bytes of request hashes."""


def short_hashes(hashes: bytes | bytearray) -> ShortHashes:
    r"""The first half of each 16-byte hash.

    Examples
    --------
    >>> short_hashes(bytes(16) + b"\x02" + bytes(15))
    array([0, 2], dtype=uint64)
    """
    return np.frombuffer(hashes, "<u8")[::2]


def short_hash_column(hashes: pa.ChunkedArray) -> ShortHashes:
    """Return the first half of each 16-byte hash of an Arrow column without nulls."""
    pieces = [
        np.frombuffer(piece.buffers()[1], "<u8")[2 * piece.offset :][: 2 * len(piece) : 2]
        for piece in hashes.chunks
        if len(piece)
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint64)


def is_in(ordered: ShortHashes, some: ShortHashes) -> npt.NDArray[np.bool_]:
    """Which of `some` are among the `ordered` ones.

    Examples
    --------
    >>> is_in(np.array([2, 5], "u8"), np.array([5, 9], "u8"))
    array([ True, False])
    """
    if not len(ordered):
        return np.zeros(len(some), dtype=np.bool_)
    at = np.searchsorted(ordered, some)
    found: npt.NDArray[np.bool_] = ordered[np.minimum(at, len(ordered) - 1)] == some
    return found


def split_hashes(hashes: bytes) -> list[bytes]:
    """Each 16-byte hash by itself."""
    each: list[bytes] = np.frombuffer(hashes, f"V{HASH_BYTES}").tolist()
    return each


class Deduplicator:
    """Finds the first row that makes each request.

    The first `REMEMBERED` requests are remembered whole. A frame that has more of them may repeat
    one of the others unseen: `duplicates` of
    its `unique_hashes` are those.

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
        """Return the first row that made each row's request; its own position where it is that."""
        each, own, known = split_hashes(hashes), short_hashes(hashes), len(self._first)
        if known + len(each) <= REMEMBERED:
            found: Sequence[int] = list(map(self._first.setdefault, each, positions))
            new = len(self._first) == known + len(each)
        else:
            watched = is_in(self._watched, own)
            new = not watched.any() and self._first.keys().isdisjoint(each)
            found = positions if new else self._looked_up(each, positions, watched)
        self._note(own if new else own[np.equal(found, positions)])
        return positions if new else found

    def _looked_up(
        self, hashes: Iterable[bytes], positions: Sequence[int], watched: npt.NDArray[np.bool_]
    ) -> list[int]:
        return [
            self._first.setdefault(h, p) if watch else self._first.get(h, p)
            for h, p, watch in zip(hashes, positions, watched.tolist(), strict=True)
        ]

    def _note(self, own: ShortHashes) -> None:
        self._hashes[self._count : self._count + len(own)] = own
        self._count += len(own)

    def unique_hashes(self) -> ShortHashes:
        """Return the short hashes of all distinct requests, in order."""
        self._hashes = self._hashes[: self._count]
        self._hashes.sort()
        return self._hashes


def duplicates(ordered: ShortHashes) -> ShortHashes:
    """Return those that stand more than once among the ordered ones.

    Examples
    --------
    >>> duplicates(np.array([1, 2, 2, 2, 7], "u8"))
    array([2], dtype=uint64)
    """
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


class JobHash:
    """Names a job by what it sends; the order of the rows does not count."""

    def __init__(self) -> None:
        self._sums = np.zeros(2, np.uint64)

    def add(self, keys: ShortHashes, hashes: bytes | bytearray) -> None:
        """Count some rows in: the digests of their keys, and their request hashes."""
        pairs = np.frombuffer(hashes, "<u8").reshape(-1, 2)
        own = np.stack([_mixed(keys ^ pairs[:, 0]), _mixed(_mixed(keys) + pairs[:, 1])])
        self._sums += own.sum(axis=1, dtype=np.uint64)

    def merge(self, other: JobHash) -> None:
        """Count in all rows that another one counted."""
        self._sums += other._sums

    @property
    def mark(self) -> str:
        """Return what tells these rows from others, whatever their job."""
        return self._sums.astype("<u8").tobytes().hex()

    def hexdigest(self, spec: JobSpec, nonce: str) -> str:
        """32 hexadecimal digits."""
        start = f"{spec.identity_json()}\n{nonce}".encode("utf-8", "surrogatepass")
        return xxhash.xxh3_128_hexdigest(start + self._sums.astype("<u8").tobytes())


def _mixed(values: ShortHashes) -> ShortHashes:
    """Splitmix64's finaliser (Steele, Lea and Flood 2014): every bit depends on every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
