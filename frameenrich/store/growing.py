"""Write a file that only grows into a bucket, where objects are put whole."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frameenrich.store.bucket import Bucket

# A flush puts the whole open part again, so the part's size bounds what is written twice.
_PART_BYTES = 1 << 19


class PartsFile(io.RawIOBase):
    """A file that only grows, as objects of half a megabyte; what is flushed is kept."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        self._bucket = bucket
        self._path = path
        # A new writer begins a new part, and never rewrites what another process has put.
        self._number = sum(piece != path for piece in bucket.pieces(path)) + 1
        self._kept = bytearray()
        self._dirty = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Keep some bytes for the next flush."""
        self._kept += data
        self._dirty = True
        return len(data)

    def flush(self) -> None:
        """Put what came since the last flush."""
        if self._dirty:
            self._bucket.put_part(self._path, self._number, bytes(self._kept))
            self._dirty = False
            if len(self._kept) >= _PART_BYTES:
                self._number, self._kept = self._number + 1, bytearray()


def part_path(path: str, number: int) -> str:
    """Return where a part of a growing file lies.

    Examples
    --------
    >>> part_path("job/shard-00000.responses.jsonl", 2)
    'job/shard-00000.responses-00002.jsonl'
    """
    stem, _, ending = path.rpartition(".")
    return f"{stem}-{number:05d}.{ending}"
