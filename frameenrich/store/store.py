"""Read and write jobs' folders; nothing else does.

A job exists when its ``sidecar.parquet`` does. How a file becomes whole or absent is the business
of what the store is on: `frameenrich.store.local` or `frameenrich.store.bucket`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, TypeVar

from frameenrich.errors import ParameterError, StoreError
from frameenrich.store.bucket import Bucket
from frameenrich.store.draft import Draft
from frameenrich.store.links import check_listed, check_own
from frameenrich.store.local import SIDECAR, Disk, unwritable

T = TypeVar("T")


_log = logging.getLogger(__name__)


DEFAULT_FOLDER = ".frameenrich"


_DECIDING_SECONDS = 600.0
"""How long another process may take to file the requests of a large frame."""


def open_store(store: Store | str | os.PathLike[str] | None = None) -> Store:
    """Open the given store, else ``$FRAMEENRICH_STORE``, else ``.frameenrich`` in this folder.

    Examples
    --------
    >>> open_store("somewhere/jobs").root.endswith("somewhere/jobs")
    True
    """
    if isinstance(store, Store):
        return store
    return Store(store or os.environ.get("FRAMEENRICH_STORE") or DEFAULT_FOLDER)


class Store:
    """A folder, or an fsspec URL, that holds jobs.

    Parameters
    ----------
    url : str or PathLike
        A local path, or any URL that fsspec opens (``s3://bucket/prefix``).
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        try:
            text = os.fspath(url)
        except TypeError:
            raise ParameterError(
                f"store= is a {type(url).__name__}.", "Give a folder, or a URL that fsspec opens."
            ) from None
        if "://" not in text:
            # Absolute, so that a later `chdir` does not move the store.
            text = os.path.abspath(os.path.expanduser(text))
        self.url = text
        self.fs, self.root = _opened(text)
        # fsspec gives one name, or a tuple of aliases such as ("file", "local").
        names = self.fs.protocol
        self.local = "file" in (names if isinstance(names, tuple) else (names,))
        self._medium: Disk | Bucket = Disk() if self.local else Bucket(self.fs, text)

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        """Open it anew in another process, with the credentials that are there."""
        return Store, (self.url,)

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs here, in no particular order."""
        self._medium.check_readable(self.root)
        with self._medium.reaching(self.root):
            names = self._medium.folders(self.root)
        # Drafts and probes begin with a dot, and a folder is a job when its sidecar is there.
        return [name for name in names if not name.startswith(".") and self.has(name)]

    def changed_at(self) -> float:
        """Return when a job's folder was changed last, by the clock of the time; 0 in a bucket."""
        if not self.local or not os.path.isdir(self.root):
            return 0.0
        # Hidden entries are drafts and probes, which come and go while no job changes.
        with os.scandir(self.root) as entries:
            return max(
                (
                    e.stat(follow_symlinks=False).st_mtime
                    for e in entries
                    if not e.name.startswith(".")
                ),
                default=0,
            )

    def has(self, job_id: str) -> bool:
        """Tell whether the job exists."""
        return self.exists(f"{self.root}/{job_id}/{SIDECAR}")

    def exists(self, path: str) -> bool:
        """Tell whether a file is there."""
        return self._medium.exists(path)

    def check_own(self, path: str) -> None:
        """Refuse a path of a store on a disk that a symlink leads out of it.

        Raises
        ------
        StoreError
            It goes through something that is no folder, or is no file.
        """
        if self.local:
            check_own(self.root, path)

    def check_writable(self) -> None:
        """Make the store's folder, private to the user, or say why not.

        Raises
        ------
        StoreError
            The folder cannot be made or written.
        """
        self._medium.check_writable(self.root)

    @contextlib.contextmanager
    def draft(self) -> Iterator[Draft]:
        """Yield a folder being filled; it vanishes unless it is committed."""
        self.check_writable()
        # A draft is on the same file system as the jobs on a disk, so that one rename publishes it.
        with self._medium.drafting(self.root) as path:
            draft = Draft(path, self)
            try:
                yield draft
            except OSError as error:
                raise unwritable(self.root, error) from error
            finally:
                draft.close()

    @contextlib.contextmanager
    def staging(self) -> Iterator[str]:
        """Yield a folder of the store that several processes write to; it vanishes at the end.

        Its name is relative to the store, so that a draft can be committed into it.
        """
        self.check_writable()
        with self._medium.staging(self.root) as path:
            yield path.rpartition("/")[2]

    def publish(self, path: str, target: str, adopted: Mapping[str, str]) -> bool:
        """Make a filled folder the folder `target`; False where that is there already.

        `adopted` are files of the store that become the folder's, by their path in it.
        """
        self.check_own(f"{self.root}/{target}")
        made = self._medium.publish(path, f"{self.root}/{target}", adopted)
        if made:
            _log.info("wrote %s/%s", self.root, target)
        return made

    @contextlib.contextmanager
    def write_whole(self, path: str) -> Iterator[IO[bytes]]:
        """Open a binary file that appears under `path` whole, or not at all."""
        self.check_own(path)
        with self._medium.write_whole(path) as file:
            yield file
        # After the block: a file that failed half-way was not written.
        _log.info("wrote %s", path)

    def make_folder(self, path: str) -> None:
        """Make a folder within a job's, private to the user; an object store has none to make.

        Raises
        ------
        StoreError
            It cannot be made.
        """
        if self.local:
            self.check_own(path)
            try:
                os.makedirs(path, mode=0o700, exist_ok=True)
            except OSError as error:
                raise unwritable(path, error) from error

    def lock(self, path: str, timeout_seconds: float) -> contextlib.AbstractContextManager[None]:
        """Be the only process at work on the job in the folder `path`."""
        self.check_own(f"{path}/.lock")
        return self._medium.lock(path, timeout_seconds)

    def deciding(
        self, timeout_seconds: float = _DECIDING_SECONDS
    ) -> contextlib.AbstractContextManager[None]:
        """Lock the decision which requests this store has sent already.

        Two overlapping submits at once would each find nothing, and both would pay. Computers
        that share a bucket agree as they do on who works on a job: by a lease, where the bucket
        has conditional writes.
        """
        self.check_writable()
        self.check_own(f"{self.root}/.lock")
        return self._medium.deciding(self.root, timeout_seconds)

    def find(self, folder: str) -> dict[str, str | None]:
        """Find every file below a folder, each with its version; none where there is no folder.

        A version is another one whenever the file is; None where the file system has none.
        """
        self.check_own(folder)
        with self._medium.reaching(folder):
            # One listing with all versions: in a bucket every further question is a request.
            found = self.fs.find(folder, detail=True)
        if self.local:
            check_listed(found.values())
        return {path: self._medium.version(about) for path, about in found.items()}

    def version(self, path: str) -> str | None:
        """Return the version of a file as it is now; None where there is none, or none is known."""
        with contextlib.suppress(OSError), self._medium.reaching(path):
            about = self.fs.info(path)
            version = self._medium.version(about)
            # On a disk the time of the last change shows an edit in place, whatever its mtime says.
            return None if version is None else f"{version} {about.get('created')}"
        return None

    def expect(self, path: str, version: str) -> None:
        """Expect of a small file the version that was read before the job was locked.

        In a bucket `replace` is refused where it is another one.
        """
        self._medium.expect(path, version)

    def open(self, path: str) -> IO[bytes]:
        """Open a file to read from."""
        self.check_own(path)
        return self._medium.open(path)

    def read(self, path: str) -> bytes:
        """Read a small file that changes, all of it."""
        self.check_own(path)
        return self._medium.read(path)

    def replace(self, path: str, data: bytes) -> None:
        """Replace the content of a small file that changes."""
        self.check_own(path)
        self._medium.replace(path, data)

    def remove(self, path: str) -> None:
        """Delete a file; one that is gone already is fine."""
        self.check_own(path)
        with self._medium.reaching(path), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(path)

    def checking(self, path: str) -> Callable[[], None]:
        """Return a check, for any thread, that a file is still this process's to write.

        It raises `JobBusyError` where another computer took the job over meanwhile.
        """
        return self._medium.checking(path)

    def open_appending(self, path: str) -> IO[bytes]:
        """Open a file after its last whole line; what is flushed and synced is kept."""
        self.check_own(path)
        return self._medium.open_appending(path)

    def size_of_pieces(self, path: str) -> int:
        """Return the size in bytes of a file that may have grown; 0 where there is none."""
        self.check_own(path)
        with self._medium.reaching(path):
            return sum(int(self.fs.size(piece)) for piece in self._medium.pieces(path))

    def open_pieces(self, path: str) -> Iterator[IO[bytes]]:
        """Yield the files that hold a growing file, each open while it is read."""
        with self._medium.reaching(path):
            for piece in self._medium.pieces(path):
                with self.open(piece) as file:
                    yield file


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system and path of a URL; changes by others are visible at once."""
    import fsspec  # noqa: PLC0415 - tens of milliseconds that `import frameenrich` saves

    if "://" not in url:  # as it is: fsspec would take "a::b" for one file system in another
        return fsspec.filesystem("file"), url.rstrip("/")
    if "::" in url:
        raise StoreError(
            f"The store {url} names two file systems at once, joined by '::'.",
            "Give one URL, such as s3://bucket/prefix, or a folder.",
            path=url,
        )
    try:
        # Without the cache of listings, which would hide what other processes have changed.
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError, OSError, TypeError) as error:  # some connect at once
        raise StoreError(
            f"The store {url} cannot be opened: {error}.",
            "Install what it needs (for s3://: pip install 'frameenrich[s3]'), or use a folder.",
            path=url,
        ) from None
    return fs, str(root).rstrip("/")


StoreLike = Store | str | os.PathLike[str] | None
