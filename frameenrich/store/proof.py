"""Prove that a file is as it was written: by its length and hashes, kept in ``batch.json``.

Every reader of a responses file checks length and XXH3 as it goes, which costs next to nothing and
sees all damage; SHA-256 is computed where something is about to be lost: the provider's copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import IO, Any

import xxhash

from frameenrich.errors import DamagedFileError
from frameenrich.model import Proof
from frameenrich.store.local import READ_BYTES


def prove(files: Iterable[IO[bytes]]) -> Proof:
    """Return the proof of a file that is in these pieces, read from their beginning.

    Examples
    --------
    >>> import io
    >>> prove([io.BytesIO(b"ab"), io.BytesIO(b"c")]).bytes
    3
    """
    # Both hashes in one pass: XXH3 for every later read, SHA-256 before a copy is deleted.
    size, strong, quick = 0, hashlib.sha256(), xxhash.xxh3_128()
    for file in files:
        while data := file.read(READ_BYTES):
            size += len(data)
            strong.update(data)
            quick.update(data)
    return Proof(size, strong.hexdigest(), quick.hexdigest())


def quick_hash(file: IO[bytes]) -> str:
    """Return a file's XXH3, which sees all damage at the speed of reading it.

    Examples
    --------
    >>> import io
    >>> quick_hash(io.BytesIO(b"ab")) == quick_hash(io.BytesIO(b"aB"))
    False
    """
    quick = xxhash.xxh3_128()
    while data := file.read(READ_BYTES):
        quick.update(data)
    return quick.hexdigest()


class Checked:
    """Checks a file against its proof while it is read from beginning to end.

    Parameters
    ----------
    path : str
        For the message.
    proof : Proof
        Of what was written.
    """

    def __init__(self, path: str, proof: Proof) -> None:
        self._path = path
        self._proof = proof
        self._bytes = 0
        self._quick = xxhash.xxh3_128()

    def piece(self, file: IO[bytes]) -> IO[bytes]:
        """Wrap the next piece, so that what is read of it is hashed."""
        piece: Any = _Piece(file, self)
        return piece  # type: ignore[no-any-return]

    def note(self, data: bytes | memoryview) -> None:
        """Add what was read to the length and the hash."""
        self._bytes += len(data)
        self._quick.update(data)

    def check(self) -> None:
        """Compare what was read with what was written.

        Raises
        ------
        DamagedFileError
            They differ.
        """
        # The length first: its message says how much is lost.
        if self._bytes != self._proof.bytes:
            how = f"it has {self._bytes:,} bytes of the {self._proof.bytes:,} that were written"
            raise damaged(self._path, how)
        if self._quick.hexdigest() != self._proof.xxh3:
            raise damaged(self._path, "its bytes are not those that were written")


class _Piece:
    """A file whose reads are hashed; it has the methods that `frameenrich.jsonl` calls."""

    def __init__(self, file: IO[bytes], whole: Checked) -> None:
        self._file: Any = file
        self._whole = whole
        self.name = getattr(file, "name", "")

    def read(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        self._whole.note(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        count: int = self._file.readinto(buffer)
        self._whole.note(buffer[:count])
        return count


def damaged(path: str, how: str) -> DamagedFileError:
    """Return the error for a file that is not as it was written."""
    return DamagedFileError(
        f"The store's file {path} is damaged: {how}.",
        "job.refetch() brings it back where the provider still has it; else restore it from a "
        "backup. Nothing was sent.",
        path=path,
    )
