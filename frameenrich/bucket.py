"""Objects of an object store: staged on local disk, put whole; there is no rename to rely on."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from frameenrich.disk import SIDECAR, draft_folder, file_lock, staged
from frameenrich.errors import StoreError


class Bucket:
    """A store's verbs for any file system that fsspec opens and that is no local disk."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def check_writable(self, root: str) -> None:
        """Nothing: a bucket says so when it is written."""

    def drafting(self, root: str) -> contextlib.AbstractContextManager[str]:  # noqa: ARG002 - as on disk
        """A local folder to fill, from which objects are put."""
        return draft_folder(tempfile.gettempdir())

    def publish(self, draft: str, destination: str) -> bool:
        """Put a filled folder's files as objects, the sidecar last, which makes it a job."""
        if self._fs.exists(f"{destination}/{SIDECAR}"):
            return False
        paths = sorted(p for p in Path(draft).rglob("*") if p.is_file())
        for path in sorted(paths, key=lambda p: p.name == SIDECAR):
            self._fs.put_file(str(path), f"{destination}/{path.relative_to(draft).as_posix()}")
        return True

    @contextlib.contextmanager
    def write_whole(self, path: str) -> Iterator[IO[bytes]]:
        """A binary file that becomes the object `path` when it is complete."""
        with staged(tempfile.gettempdir(), path) as file:
            yield file
            file.flush()
            self._fs.put_file(file.name, path)

    def lock(self, path: str, timeout_seconds: float) -> contextlib.AbstractContextManager[None]:
        """Be the only process of this computer at work on the job."""
        digest = hashlib.sha256(path.encode()).hexdigest()[:24]
        place = f"{tempfile.gettempdir()}/frameenrich-{digest}.lock"
        return file_lock(place, path.rpartition("/")[2], timeout_seconds)

    def open_appending(self, path: str) -> IO[bytes]:
        """An object cannot be added to.

        Raises
        ------
        StoreError
            Always.
        """
        raise StoreError(
            f"The store cannot append to its file {path}.",
            "Use a local folder as store= for the live and local providers.",
        )
