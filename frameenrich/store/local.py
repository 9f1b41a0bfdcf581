"""Files on a local disk, whole or absent: written under a temporary name, fsynced, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from frameenrich.atomic import sync_folder, whole_file
from frameenrich.errors import JobBusyError, StoreError

READ_BYTES = 512 * 1024


SIDECAR = "sidecar.parquet"


DRAFT = ".frameenrich-draft-"


# A draft is deleted unasked, so only when no living process can still be filling it.
_STALE_DRAFT_SECONDS = 24 * 3600


class Disk:
    """A store's verbs for a folder of this computer."""

    def check_writable(self, root: str) -> None:
        """Make the store's folder, private to the user, or say why not.

        Raises
        ------
        StoreError
            The folder cannot be made or written.
        """
        try:
            if not os.path.isdir(root):
                os.makedirs(root, mode=0o700, exist_ok=True)  # several may begin at once
                # A store is often made within a repository; prompts and answers must not be
                # committed.
                Path(root, ".gitignore").write_text("*\n", encoding="utf-8")
            # Tried with a file: a folder's mode does not show every reason that a write fails.
            with tempfile.NamedTemporaryFile(dir=root, prefix=".probe-"):
                pass
        except OSError as error:
            raise unwritable(root, error) from None

    def check_readable(self, root: str) -> None:
        """Refuse a root that is a file; a missing one holds no jobs yet.

        Raises
        ------
        StoreError
            It is a file.
        """
        if os.path.exists(root) and not os.path.isdir(root):
            raise StoreError(
                f"The store {root} is not a folder.", "Say which folder holds the jobs.", path=root
            )

    def folders(self, root: str) -> list[str]:
        """Return the names of the folders in it; none where it is not there."""
        try:
            with os.scandir(root) as entries:  # no pattern: a folder may be called "a[1]"
                # By path: unlike an entry, that takes a link to itself for no folder.
                return [entry.name for entry in entries if os.path.isdir(entry.path)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    @contextlib.contextmanager
    def reaching(self, path: str) -> Iterator[None]:
        """Raise an unreadable file as a `StoreError`; a missing one is left to the caller."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unreadable(path, error) from error

    def drafting(self, root: str) -> contextlib.AbstractContextManager[str]:
        """Return a folder to fill, from which one rename makes a job."""
        return draft_folder(root)

    def staging(self, root: str) -> contextlib.AbstractContextManager[str]:
        """Return a folder of the store that other processes write to; it is removed at the end."""
        return draft_folder(root)

    def publish(self, draft: str, destination: str, adopted: Mapping[str, str]) -> bool:
        """Make a filled folder the destination; False where that is there already, and whole.

        Parameters
        ----------
        draft, destination : str
            The folder, and what it becomes.
        adopted : mapping
            Files of the store that are moved into it first, by their path in it.

        Raises
        ------
        StoreError
            It is there and not whole.
        """
        if os.path.isdir(destination):
            return _complete(destination)
        for relative, path in adopted.items():
            os.makedirs(os.path.dirname(f"{draft}/{relative}"), mode=0o700, exist_ok=True)
            os.rename(path, f"{draft}/{relative}")
        for folder, _, _ in os.walk(draft):  # its entries are on disk before it has its name
            sync_folder(folder)
        try:
            # A rename onto a folder with files in it fails, so of two processes one wins.
            os.rename(draft, destination)
        except OSError:
            if os.path.isdir(destination):  # another process was faster
                return _complete(destination)
            raise
        # The new name is an entry of the parent, and on disk when that is.
        sync_folder(os.path.dirname(destination))
        return True

    @contextlib.contextmanager
    def write_whole(self, path: str) -> Iterator[IO[bytes]]:
        """Write a binary file that appears under `path` whole, or not at all."""
        try:
            with whole_file(path) as file:
                yield file
        except OSError as error:
            raise unwritable(path, error) from error

    def exists(self, path: str) -> bool:
        """Tell whether a file is there."""
        return os.path.exists(path)

    def open(self, path: str) -> IO[bytes]:
        """Open a file to read from."""
        return open(path, "rb")

    def read(self, path: str) -> bytes:
        """Read a small file, all of it."""
        with open(path, "rb") as file:
            return file.read()

    def version(self, about: Mapping[str, Any]) -> str | None:
        """Name the version of a file that was listed: a new one is a file of its own."""
        return f"{about['ino']} {about['mtime']} {about['size']}" if about.get("ino") else None

    def expect(self, path: str, version: str) -> None:
        """Do nothing: while a process holds the lock, nobody else writes."""

    def checking(self, path: str) -> Callable[[], None]:
        """Return what checks nothing: a file lock is not lost."""
        del path
        return _nothing

    def replace(self, path: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""
        with self.write_whole(path) as file:
            file.write(data)

    def pieces(self, path: str) -> Iterator[str]:
        """Yield the files that a growing file is in: itself, where it is there."""
        if os.path.exists(path):
            yield path

    def lock(self, path: str, timeout_seconds: float) -> contextlib.AbstractContextManager[None]:
        """Be the only process at work on the job in the folder `path`."""
        return file_lock(f"{path}/.lock", Guarded(os.path.basename(path)), timeout_seconds)

    def deciding(
        self, root: str, timeout_seconds: float
    ) -> contextlib.AbstractContextManager[None]:
        """Be the only process that makes a job of the store."""
        return file_lock(f"{root}/.lock", Guarded(store=root), timeout_seconds)

    def open_appending(self, path: str) -> IO[bytes]:
        """Open a file at its end; a line torn by a crash is cut off first."""
        try:
            file = open(path, "a+b")  # noqa: SIM115 - the caller closes it
        except OSError as error:
            raise unwritable(path, error) from error
        _cut_torn_line(file)
        return file


def _nothing() -> None:
    pass


@contextlib.contextmanager
def draft_folder(parent: str) -> Iterator[str]:
    """Yield a new folder below `parent`; it is removed at the end unless it was renamed."""
    _sweep(parent)
    path = f"{parent}/{DRAFT}{os.getpid()}-{secrets.token_hex(4)}"
    os.mkdir(path, mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _sweep(parent: str) -> None:
    """Remove drafts that a killed process left behind long ago."""
    for entry in Path(parent).glob(f"{DRAFT}*"):
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > _STALE_DRAFT_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)


@dataclass(frozen=True)
class Guarded:
    """What a lock guards, as its errors name it: a job, or who may submit to a store."""

    job_id: str | None = None
    store: str = ""

    def busy(self) -> JobBusyError:
        """Return the error for what another process holds."""
        if self.job_id is None:
            return JobBusyError(
                f"Another process is submitting to the store {self.store}.",
                "Wait for it to end, then call again; nothing is lost.",
            )
        return JobBusyError(
            f"Another process is at work on the job {self.job_id}.",
            "Wait for it to end, then call again; nothing is lost.",
            job_id=self.job_id,
        )

    def lost(self) -> JobBusyError:
        """Return the error for what another process took over meanwhile."""
        if self.job_id is None:
            return JobBusyError(
                f"Another process took over submitting to the store {self.store}, as this one "
                "gave no sign of life.",
                "Call again; nothing is lost.",
            )
        return JobBusyError(
            f"Another process took over the job {self.job_id}, as this one gave no sign of life.",
            "Let that one go on, or call again later; nothing is lost.",
            job_id=self.job_id,
        )


@contextlib.contextmanager
def file_lock(path: str, guarded: Guarded, timeout_seconds: float) -> Iterator[None]:
    """Hold a lock that the operating system lets go of when this process ends.

    Raises
    ------
    JobBusyError
        Another process still held it after `timeout_seconds`.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - not needed at import

    lock = FileLock(path, mode=0o600)
    try:
        lock.acquire(timeout=timeout_seconds)
    except Timeout:
        raise guarded.busy() from None
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def unreadable(path: str, error: Exception) -> StoreError:
    """Return the error for a file of the store that is damaged, or cannot be read."""
    fix = "Restore it from a backup, or move its job's folder out of the store."
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, FileNotFoundError):
        reason = "it is not there"  # Arrow's own words are four lines long, and name it again
        if "://" not in path and not os.path.isdir(os.path.dirname(path)):
            fix = (
                "Nor is the folder that it is in: if its disk or share is not mounted, mount it, "
                "and call again. Else restore it from a backup."
            )
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    return StoreError(
        f"The store's file {path} cannot be read: {reason.rstrip('.')}.", fix, path=path
    )


def missing(path: str) -> StoreError:
    """Return the error for a missing file that every job has."""
    return unreadable(path, FileNotFoundError("it is not there"))


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


_NO_FOLDER = {errno.EEXIST, errno.ENOTDIR, errno.ENOENT}


_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


def unwritable(path: str, error: OSError) -> StoreError:
    """Return the error for a path that cannot be written, with a fix that fits the reason."""
    if error.errno in _NO_ROOM:
        # Never to use another store: that one knows no answer, and all would be paid again.
        fix = "Free some room there, then call again: the job goes on from here, and pays once."
    elif error.errno in _NO_FOLDER:
        fix = "Pass store= a folder that you may write, or set FRAMEENRICH_STORE."
    elif error.errno in _NOT_ALLOWED:
        fix = (
            "Let this user write there, then call again; where no job is there yet, pass store= "
            "another folder."
        )
    else:
        fix = "Correct that, then call again: the job goes on from here, and pays once."
    reason = error.strerror or error
    if isinstance(error, FileExistsError | NotADirectoryError):
        reason = "it, or a folder that it is in, is a file"
    return StoreError(f"The store cannot be written at {path}: {reason}.", fix, path=path)


def _complete(path: str) -> bool:
    """Return False (nothing was committed) where the folder is whole; raise where it is not."""
    if os.path.exists(f"{path}/{SIDECAR}"):
        return False
    raise not_whole(path)


def not_whole(path: str) -> StoreError:
    """Return the error for a job's folder that has files but no sidecar."""
    return StoreError(
        f"The job's folder {path} is there already, but its sidecar is not.",
        "Move that folder away, then submit again.",
        path=path,
    )


def _cut_torn_line(file: IO[bytes]) -> None:
    # Read from the end: the file may be large, and a torn line is near its end.
    end = file.seek(0, os.SEEK_END)
    position = end
    while position:
        start = max(0, position - READ_BYTES)
        file.seek(start)
        found = file.read(position - start).rfind(b"\n")
        if found >= 0:
            position = start + found + 1
            break
        position = start
    if position < end:
        file.truncate(position)
    file.seek(0, os.SEEK_END)


def private_folder() -> str:
    """Return a local folder for files in transit that only this user can read."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    path = f"{tempfile.gettempdir()}/frameenrich-{user}"
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        # Not `stat`: in a shared /tmp somebody else may have put a symlink under this name.
        found = os.lstat(path)
    except OSError as error:
        raise unwritable(path, error) from None
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise StoreError(
            f"{path} belongs to another user.", "Set TMPDIR to a folder of your own.", path=path
        )
    return path
