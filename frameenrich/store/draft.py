"""Fill a local folder that becomes a job, or a later round, when it is committed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from frameenrich.atomic import sync
from frameenrich.model import Proof
from frameenrich.store.local import SIDECAR
from frameenrich.store.proof import prove, quick_hash

if TYPE_CHECKING:
    from frameenrich.store.store import Store


class Draft:
    """A job, or a later round, before it exists.

    Parameters
    ----------
    path : str
        The folder to fill.
    target : Store
        Where it goes.
    """

    def __init__(self, path: str, target: Store) -> None:
        self._path = path
        self.target = target
        self._files: dict[str, IO[bytes]] = {}
        self._adopted: dict[str, str] = {}
        self._hashes: dict[str, xxhash.xxh3_128] = {}

    def take_over(self, relative: str, path: str) -> None:
        """Make a file of the store, or one that was set aside, become the draft's, unread."""
        # A file that was set aside is within the draft; one of the store is moved at `publish`
        # only.
        if path.startswith(f"{self._path}/"):
            os.makedirs(os.path.dirname(f"{self._path}/{relative}"), mode=0o700, exist_ok=True)
            os.rename(path, f"{self._path}/{relative}")
        else:
            self._adopted[relative] = path

    def file(self, relative: str) -> IO[bytes]:
        """Return a file of the draft, opened for writing once and kept open until it is closed."""
        if relative not in self._files:
            path = f"{self._path}/{relative}"
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            # Lines come some hundred at a time, which is more than the buffer: not copied again.
            self._files[relative] = open(path, "wb", buffering=1 << 16)  # noqa: SIM115 - see close
        return self._files[relative]

    def append(self, relative: str, data: bytes) -> None:
        """Write to a file that is only ever appended to, and hash it while it is at hand."""
        if relative not in self._files:
            self._hashes[relative] = xxhash.xxh3_128()
        self.file(relative).write(data)
        self._hashes[relative].update(data)

    def close_file(self, relative: str) -> None:
        """Close one file after its content is synced to disk."""
        if relative in self._files:
            sync(self._files[relative])  # where that fails, `close` closes it
            self._files.pop(relative).close()

    def lines(self, names: Iterable[str]) -> Iterator[bytes]:
        """Finish some of the draft's files and yield their lines."""
        for relative in names:
            self.close_file(relative)
            with self._opened(relative) as file:
                yield from file

    def _opened(self, relative: str) -> IO[bytes]:
        if relative in self._adopted:
            return self.target.open(self._adopted[relative])
        return open(f"{self._path}/{relative}", "rb")

    def prove(self, relative: str) -> Proof:
        """Finish a file and return its proof."""
        self.close_file(relative)
        with self._opened(relative) as file:
            return prove([file])

    def quick_hash(self, relative: str) -> str | None:
        """Finish a file and return its hash; None where that would need a download."""
        self.close_file(relative)
        if (known := self._hashes.get(relative)) is not None:
            return known.hexdigest()  # of what was written: reading it again would tell no more
        path = self._adopted.get(relative, f"{self._path}/{relative}")
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            return quick_hash(file)

    def write(self, relative: str, data: bytes) -> None:
        """Write a small file at once."""
        self.file(relative).write(data)
        self.close_file(relative)

    def sidecar_writer(self, schema: pa.Schema) -> pq.ParquetWriter:
        """Open the sidecar to be written some rows at a time; the caller closes the writer.

        It says which row became which request.
        """
        # Checksums are checked at every read: a rotten page is an error then, not other rows.
        return pq.ParquetWriter(
            self.file(SIDECAR),
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["shard"],  # every other column names its row
            write_page_checksum=True,
        )

    def finish(self) -> str:
        """Finish all open files and return the local folder that holds them."""
        for relative in list(self._files):
            self.close_file(relative)
        return self._path

    @contextlib.contextmanager
    def set_aside(self, name: str) -> Iterator[str]:
        """Move all files into a folder of that name, to be read from; it is gone at the end.

        Yields its path on this computer.
        """
        self.finish()
        # Listed before the folder is made, or it would be moved into itself.
        entries, folder = list(Path(self._path).iterdir()), Path(self._path, name)
        folder.mkdir(mode=0o700)
        self._hashes.clear()  # their names are for other files from now on
        for entry in entries:
            entry.rename(folder / entry.name)
        yield str(folder)
        shutil.rmtree(folder)

    def close(self) -> None:
        """Close files that were not finished."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk was an error when it was written to
                file.close()
        self._files.clear()

    def commit(self, target: str) -> bool:
        """Make the draft the folder `target` of the store; False where that is there already."""
        return self.target.publish(self.finish(), target, self._adopted)
