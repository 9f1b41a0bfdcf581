"""Store jobs in a bucket: objects are put whole, under a lease; nothing is renamed or locked.

A file is staged on local disk and put as one object. A job's objects are put with its sidecar
last, which makes it a job: a process that dies before leaves objects that are no job, and that
the next one clears away.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import IO, Any, cast

from frameenrich.atomic import temporary_file
from frameenrich.errors import FrameEnrichError, JobBusyError, StoreError, warn_user
from frameenrich.model import Batch, Stage
from frameenrich.store.growing import PartsFile, part_path
from frameenrich.store.lease import ConflictError, Lease, Objects, PlainObjects, S3Objects, hold
from frameenrich.store.local import (
    DRAFT,
    READ_BYTES,
    SIDECAR,
    Guarded,
    draft_folder,
    file_lock,
    not_whole,
    private_folder,
    unwritable,
)

_LEASE = ".lease.json"


# All that can be there before a sidecar is. Any other file is somebody's, and is never deleted.
_LEFT_BEHIND = re.compile(
    r"\.lease\.json(\.proof)?|(round-\d+/)?shard-\d+\.(requests\.jsonl|batch\.json|responses\.jsonl)"
)


_IN_A_JOB = re.compile(r"\.lease\.json(\.proof)?|round-\d+")


# S3 takes no part of a multipart upload below 5 MiB (AWS user guide, "multipart upload limits").
_BLOCK_BYTES = 8 << 20


_SMALL_BYTES = 1 << 20


# Long enough that what is this old was left by a dead process, not by a slow one.
_STALE_SECONDS = 24 * 3600


_PUBLISH_SECONDS = 60.0


_INEXACT = (
    "{} has no conditional writes that frameenrich knows of: of two computers that begin to work "
    "on one job, or submit the same rows, in the same moment, both may go on. Work in this store "
    "from one computer at a time."
)


_proven: dict[str, bool] = {}
"""Whether a bucket was seen to refuse the writes that it should refuse."""


class Bucket:
    """The operations of a store on any fsspec file system that is not a local disk.

    Parameters
    ----------
    fs : fsspec.AbstractFileSystem
        Opened with the environment's credentials, which are kept nowhere.
    url : str
        For messages.
    """

    def __init__(self, fs: Any, url: str) -> None:
        self._fs = fs
        self._url = url
        names = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self._s3 = "s3" in names
        self._private = "memory" in names  # of this process: nobody to be locked out
        self._objects: Objects = S3Objects(fs) if self._s3 else PlainObjects(fs)
        self._own = threading.local()

    @property
    def _held(self) -> dict[str, Lease]:
        """The leases of this thread; every thread writes under its own, for the same `Job` too."""
        held: dict[str, Lease] = vars(self._own).setdefault("leases", {})
        return held

    def check_readable(self, root: str) -> None:
        """Do nothing: a bucket has no folders, so any prefix can hold jobs."""

    def folders(self, root: str) -> list[str]:
        """List the names of the folders in it; none where there is nothing."""
        try:
            found = self._fs.ls(root, detail=True)
        except FileNotFoundError:
            return []
        return [e["name"].rstrip("/").rpartition("/")[2] for e in found if e["type"] == "directory"]

    @contextlib.contextmanager
    def reaching(self, path: str) -> Iterator[None]:
        """Raise a failed request to the store as a `StoreError`.

        A file that is not there is left to the caller.
        """
        try:
            yield
        except (FrameEnrichError, FileNotFoundError):
            raise
        except _faults() as error:
            raise StoreError(
                f"The store cannot be reached at {self._url}: {type(error).__name__}: {error}.",
                "Check its name, your credentials and the network; nothing is lost.",
                path=path,
            ) from None

    def check_writable(self, root: str) -> None:
        """Check that the bucket is reachable; write access shows at the first write."""
        with self.reaching(root):
            self._fs.exists(root)

    def drafting(self, root: str) -> contextlib.AbstractContextManager[str]:
        """Return a local folder to fill, from which objects are put."""
        with self.reaching(root):
            self._sweep(root)
        return draft_folder(private_folder())

    def exists(self, path: str) -> bool:
        """Tell whether an object is there."""
        with self.reaching(path):
            return self._objects.exists(path)

    def open(self, path: str) -> IO[bytes]:
        """Open an object that is read in blocks."""
        with self.reaching(path):
            file = self._fs.open(path, "rb", block_size=_BLOCK_BYTES)
        return io.BufferedReader(file, READ_BYTES)

    def read(self, path: str) -> bytes:
        """Read a small object, all of it."""
        with self.reaching(path):
            lease = self._lease(path)
            if lease is not None:
                return lease.read(path)
            seen = self._objects.read(path)
            if seen is None:
                raise FileNotFoundError(path)
            return seen.data

    def version(self, about: Mapping[str, Any]) -> str | None:
        """Return the version of a listed object, where writes can be made conditional on it."""
        # Without conditional writes a version is a hash of the content, which no listing shows.
        return about.get("ETag") if self._objects.exact else None

    def expect(self, path: str, version: str) -> None:
        """Make `replace` refuse an object of another version than this one."""
        lease = self._lease(path)
        if lease is not None:
            lease.expect(path, version)

    def checking(self, path: str) -> Callable[[], None]:
        """Return a check of this thread's lease that any thread can make."""
        # Answers of live calls are written in a thread of their own, which holds no lease.
        lease = self._lease(path)
        return lease.check if lease is not None else lambda: None

    def replace(self, path: str, data: bytes) -> None:
        """Write a small object; refuse where another process wrote it since it was read."""
        with self.reaching(path):
            self._check_decision()
            lease = self._lease(path)
            if lease is None:
                self._fs.pipe_file(path, data)
            else:
                lease.replace(path, data)

    # --- a job's folder ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def staging(self, root: str) -> Iterator[str]:
        """Yield a prefix of the store that other processes write to; it is emptied at the end."""
        path = f"{root}/{DRAFT}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            yield path
        finally:
            with self.reaching(path):
                self._empty(path)

    def publish(self, draft: str, destination: str, adopted: Mapping[str, str]) -> bool:
        """Put a filled folder's files as objects, the sidecar last, which makes it a job.

        `adopted` files are copied within the store, without a download.
        """
        # Looked at before the lock too, as a lease takes several requests.
        if self.exists(f"{destination}/{SIDECAR}"):
            return False
        with self.reaching(destination), self.lock(destination, _PUBLISH_SECONDS):
            if self._objects.exists(f"{destination}/{SIDECAR}"):  # another process was faster
                return False
            if not self._never_sent(destination):
                raise not_whole(destination)
            self._clear(destination)
            files = {
                str(path): f"{destination}/{path.relative_to(draft).as_posix()}"
                for path in sorted(Path(draft).rglob("*"))
                if path.is_file()
            }
            # The sidecar is put last: a process that dies before that leaves no job.
            sidecar = f"{draft}/{SIDECAR}"
            self._put_all({here: there for here, there in files.items() if here != sidecar})
            for relative, path in adopted.items():
                self._check(f"{destination}/{relative}")
                self._fs.cp_file(path, f"{destination}/{relative}")
            # Created, never overwritten: a sidecar that appeared meanwhile is another process's
            # job.
            return sidecar not in files or self._put(sidecar, files[sidecar], mode="create")

    def _put_all(self, files: dict[str, str]) -> None:
        """Put the large files one by one, the small ones together."""
        small = {
            here: there for here, there in files.items() if os.stat(here).st_size < _SMALL_BYTES
        }
        for here, there in files.items():
            if here not in small:
                self._put(here, there)
        if small:
            self._check(next(iter(small.values())))
            self._fs.put(list(small), list(small.values()))

    def _put(self, here: str, there: str, mode: str = "overwrite") -> bool:
        """Put a file as one object; False where it had to be new and is there already."""
        pace = {"chunksize": _BLOCK_BYTES, "max_concurrency": 4} if self._s3 else {}
        self._check(there)
        try:
            self._fs.put_file(here, there, mode=mode, **pace)
        except FileExistsError:
            return False
        return True

    def _empty(self, folder: str) -> None:
        """Remove everything in a folder that was never to be a job, leases of the dead too."""
        for path in self._fs.find(folder):
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(path)

    def _clear(self, folder: str) -> None:
        """Remove what a process that died before its sidecar left in a folder that is no job's."""
        # The lease stays: this process deletes under it, and releases it afterwards.
        left = [path for path in self._fs.find(folder) if not path.endswith(f"/{_LEASE}")]
        for path in left:
            self._check(path)
            self._fs.rm_file(path)

    def _sweep(self, root: str) -> None:
        """Clear away the folders that never became jobs and that nobody has touched for a day."""
        for name in self.folders(root):
            folder, staging = f"{root}/{name}", name.startswith(DRAFT)
            if not staging and (
                self._objects.exists(f"{folder}/{SIDECAR}") or self._is_other(folder)
            ):
                continue
            if self._age_seconds(folder, leases=staging) <= _STALE_SECONDS:
                continue
            # No lock: a staging folder's random name belongs to one process, which is dead by now.
            if staging:
                self._empty(folder)
            elif self._never_sent(folder):
                # A folder that somebody holds was not left behind.
                with contextlib.suppress(JobBusyError), self.lock(folder, 0.0):
                    # Looked at again under the lock: it may have become a job meanwhile.
                    if not self._objects.exists(f"{folder}/{SIDECAR}"):
                        self._clear(folder)
                        # The lease too, while it is held: nobody else can think that they have it.
                        self._check(f"{folder}/{_LEASE}")
                        self._fs.rm_file(f"{folder}/{_LEASE}")

    def _is_other(self, folder: str) -> bool:
        """Tell by one listing whether a folder holds something that no job has."""
        try:
            found = self._fs.ls(folder, detail=False)
        except FileNotFoundError:  # somebody else swept it
            return True
        names = [str(path).rstrip("/").rpartition("/")[2] for path in found]
        return not all(map(_IN_A_JOB.fullmatch, names))

    def _never_sent(self, folder: str) -> bool:
        """Tell whether a folder holds only what a process leaves that dies before its sidecar.

        Everything else is somebody's: other files under the same prefix, or a job that lost its
        sidecar and has answers that were paid for.
        """
        found = [str(path) for path in self._fs.find(folder)]
        if not all(_LEFT_BEHIND.fullmatch(path.removeprefix(f"{folder}/")) for path in found):
            return False
        return all(self._is_intent(path) for path in found if path.endswith(".batch.json"))

    def _is_intent(self, path: str) -> bool:
        """Tell whether a shard's batch is only planned, or filled with answers of other jobs."""
        seen = self._objects.read(path)
        try:
            batch = Batch.from_json(seen.data) if seen is not None else None
        # Unreadable: it may be of a batch that was paid for, so the folder is left alone.
        except ValueError:
            return False
        if batch is None or batch.reused_from:
            return True
        return batch.stage in {Stage.INTENT, Stage.WAITING}

    def _age_seconds(self, folder: str, *, leases: bool = False) -> float:
        every = self._fs.find(folder)
        # A lease that is alone there was left by an earlier sweep.
        found = [p for p in every if leases or not p.endswith(f"/{_LEASE}")] or every
        try:
            moments = [self._fs.modified(path).timestamp() for path in found]
        except FileNotFoundError:  # somebody is at work in it
            return 0.0
        return time.time() - max(moments) if moments else 0.0

    # --- files that grow --------------------------------------------------------------------------

    @contextlib.contextmanager
    def write_whole(self, path: str) -> Iterator[IO[bytes]]:
        """Write a binary file that becomes the object `path` when it is complete."""
        name = path.rpartition("/")[2]
        try:
            with draft_folder(private_folder()) as folder, temporary_file(folder, name) as file:
                yield file
                file.flush()
                with self.reaching(path):
                    self._put(file.name, path)
                    # Dropped after the whole is there: a crash in between leaves lines twice, never
                    # not at all.
                    # The last part goes first: `pieces` stops at the first gap, so that deleting
                    # from the front would hide the parts after it.
                    for part in reversed([piece for piece in self.pieces(path) if piece != path]):
                        self._fs.rm_file(part)
        except OSError as error:
            raise unwritable(path, error) from error

    def pieces(self, path: str) -> Iterator[str]:
        """Yield the objects that a growing file is in, as far as there are any."""
        if self._objects.exists(path):
            yield path
        for number in count(1):
            part = part_path(path, number)
            if not self._objects.exists(part):
                return
            yield part

    def open_appending(self, path: str) -> IO[bytes]:
        """Write to objects beside `path`, each put whole whenever it is flushed."""
        return cast("IO[bytes]", PartsFile(self, path))

    def put_part(self, path: str, number: int, data: bytes) -> None:
        """Write one part of a growing file: a new one, or one that became longer."""
        with self.reaching(path):
            self._check(path)
            self._fs.pipe_file(part_path(path, number), data)

    # --- one writer -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, path: str, timeout_seconds: float) -> Iterator[None]:
        """Be the only process at work on the job."""
        guarded = Guarded(path.rpartition("/")[2])
        with self._leased(path, guarded, timeout_seconds) as lease:
            if lease is not None:
                self._held[path] = lease
            try:
                yield
            finally:  # forgotten before it is released
                self._held.pop(path, None)

    @contextlib.contextmanager
    def deciding(self, root: str, timeout_seconds: float) -> Iterator[None]:
        """Be the only process, of all computers, that makes a job of the store."""
        with self._leased(root, Guarded(store=self._url), timeout_seconds) as lease:
            # Not among the held ones: other jobs are read meanwhile, whose writers go on writing.
            self._own.deciding = lease
            try:
                yield
            finally:
                self._own.deciding = None

    @contextlib.contextmanager
    def _leased(
        self, path: str, guarded: Guarded, timeout_seconds: float
    ) -> Iterator[Lease | None]:
        """Hold a folder: on this computer by a file lock, then a lease; None where no one else is.

        Raises
        ------
        JobBusyError
            Another process still held it after `timeout_seconds`.
        """
        give_up_at = time.monotonic() + timeout_seconds
        digest = hashlib.sha256(f"{self._url}\n{path}".encode()).hexdigest()[:24]
        lock_path = f"{private_folder()}/{digest}"
        # The file lock comes first: whoever has it knows that the leases noted on this computer are
        # of dead processes, and takes them over at once. So a restarted notebook does not wait.
        with file_lock(f"{lock_path}.lock", guarded, timeout_seconds):
            if self._private:
                yield None
                return
            with self.reaching(path):
                self._prove(f"{path}/{_LEASE}.proof")
            lease = Lease(self._objects, f"{path}/{_LEASE}", guarded, f"{lock_path}.held")
            with contextlib.ExitStack() as stack:
                with self.reaching(path):  # both waits share one timeout
                    stack.enter_context(hold(lease, give_up_at - time.monotonic()))
                yield lease

    def _prove(self, path: str) -> None:
        """Test once for each bucket whether it refuses the writes that it should; some do not."""
        # Servers that ignore conditions would accept every write, and two computers would both go
        # on. Asked once for each endpoint and bucket: "s3://" can be any server.
        bucket = self._url.partition("://")[2].partition("/")[0]
        lock_path = f"{getattr(self._fs, 'endpoint_url', None)} {self._fs.protocol} {bucket}"
        if lock_path not in _proven:
            # Another process that proves it at the same time may take our object away: thus again.
            _proven[lock_path] = self._objects.exact and any(self._keeps(path) for _ in range(3))
            if not _proven[lock_path]:
                warn_user(_INEXACT.format(self._url))
        if not _proven[lock_path]:
            self._objects = PlainObjects(self._fs)

    def _keeps(self, path: str) -> bool:
        """Test both conditions: that there is no object, and that it has the known version.

        A server may know the one and not the other; who slept through a lease would then write
        over whoever took it over.
        """
        try:
            first = self._objects.write(path, b"1", None)
            self._objects.write(path, b"2", first)
            return self._refuses(path, None) and self._refuses(path, first)
        except ConflictError:
            return False
        except OSError as error:
            if error.errno != errno.ENOSYS:  # HTTP 501
                raise
            return False
        finally:
            self._fs.rm_file(path)

    def _refuses(self, path: str, expected: str | None) -> bool:
        try:
            self._objects.write(path, b"3", expected)
        except ConflictError:
            return True
        return False

    def _lease(self, path: str) -> Lease | None:
        """Return the lease that an object is written under, where this process has one."""
        found = [each for each in self._held if path.startswith(f"{each}/")]
        return self._held[max(found, key=len)] if found else None

    def _check(self, path: str) -> None:
        self._check_decision()
        for folder, lease in list(self._held.items()):
            if path.startswith(f"{folder}/"):
                lease.check()

    def _check_decision(self) -> None:
        """Make sure that a decision is still this process's: it may have slept over it."""
        deciding: Lease | None = getattr(self._own, "deciding", None)
        if deciding is not None:
            deciding.check()


def _faults() -> tuple[type[Exception], ...]:
    """Return the errors of a failed request; s3fs lets some of botocore's through."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - an extra
    except ImportError:
        return (OSError,)
    return OSError, BotoCoreError, ClientError
