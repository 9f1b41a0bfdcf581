"""A lease for the one writer of a job in a bucket: an object, renewed while its holder lives.

A lease that is not renewed for its time is taken over. Whoever lost it finds out before its next
write: a renewal is written on the condition that nobody else has written since, and so is every
`batch.json`, which the holder must find as it left it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from frameenrich.errors import JobBusyError
from frameenrich.store.local import Guarded
from frameenrich.text import one_line, shortened

LEASE_SECONDS = 30.0
"""Shorter than the default wait for a job, so that one call can continue after a dead process."""


_LONGEST_SECONDS = 10 * LEASE_SECONDS
"""Of a lease that another version wrote; one that says more is damaged."""


_SKEW_SECONDS = 900.0
"""The clocks of a store's servers differ by less: S3 itself allows its clients no more."""


_PATIENCE = 1.25
"""In multiples of a lease's time; for clocks that do not run alike."""


_RETRY_SECONDS = (0.1, 0.5)


# The note must not grow with every lock; only its newest holders can still be in a lease.
_NOTED = 8


# S3 has no locks but refuses a write whose condition fails. A lease alone does not stop a process
# that slept through its end, so every batch.json (the intent before a paid call, too) is written on
# the condition that it is as the holder last knew it.
class Lease:
    """The right to write a job's objects, from `acquire` to `release`.

    Parameters
    ----------
    objects : Objects
        Where it is written.
    path : str
        The lease's own object.
    guarded : Guarded
        What it is the right to, for messages.
    note : str
        A local file that lists the leases that processes of this computer held. It is read and
        written under a file lock, so whoever reads it knows that those processes are gone.
    """

    def __init__(self, objects: Objects, path: str, guarded: Guarded, note: str) -> None:
        self._objects = objects
        self._path = path
        self._guarded = guarded
        self._holder = secrets.token_hex(16)
        self._left_here = _read_note(note)
        # Noted before the lease is written, so that a process killed in between is known, too.
        Path(note).write_text("\n".join([*self._left_here, self._holder][-_NOTED:]))
        self._version: str | None = None
        self._renewals = 0
        self._known: dict[str, str] = {}
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="frameenrich-lease", daemon=True)

    def acquire(self, timeout_seconds: float) -> None:
        """Wait until no living process holds the lease.

        Raises
        ------
        JobBusyError
            Another process still had it after `timeout_seconds`.
        """
        give_up_at = time.monotonic() + timeout_seconds
        watched, since = "", time.monotonic()
        while True:
            seen = self._objects.read(self._path)
            # A lease is over when it did not change for its time on this clock: two clocks may
            # differ.
            if seen is not None and seen.version != watched:
                watched, since = seen.version, time.monotonic()
            if self._expired(seen, time.monotonic() - since) and self._acquire_once(seen):
                break
            if time.monotonic() >= give_up_at:
                raise _held(self._guarded, seen)
            time.sleep(random.uniform(*_RETRY_SECONDS))  # noqa: S311 - so that no two keep step
        self._thread.start()

    def _expired(self, seen: ObjectVersion | None, unchanged_seconds: float) -> bool:
        record = _record(seen)
        if seen is None or record is None or record.holder in {None, *self._left_here}:
            return True
        # An old lease need not be watched for its time, where no difference of the server's clocks
        # makes it look so.
        seconds = record.seconds * _PATIENCE
        return unchanged_seconds > seconds or seen.age_seconds > seconds + _SKEW_SECONDS

    def _acquire_once(self, seen: ObjectVersion | None) -> bool:
        try:
            self._write(self._holder, None if seen is None else seen.version)
        except ConflictError:
            return False
        return True

    def _write(self, holder: str | None, expected: str | None) -> None:
        # Counted from before the request: the server may write at once and answer late.
        started = _Moment()
        self._renewals += 1
        who = f"process {os.getpid()} on {socket.gethostname()}"
        record = _Record(holder, who, LEASE_SECONDS, self._renewals)
        self._version = self._objects.write(self._path, msgspec.json.encode(record), expected)
        self._proven = started

    def _keep(self) -> None:
        """Renew the lease until its end; retry what fails for a passing reason."""
        # At a third of its time, so that one failed renewal does not lose the lease.
        while not self._ended.wait(LEASE_SECONDS / 3):
            try:
                with self._mutex:
                    if not self._ended.is_set():
                        self._write(self._holder, self._version)
            except ConflictError:
                return
            except Exception:  # noqa: BLE001, S112 - the network's; `check` asks again
                continue

    def check(self) -> None:
        """Make sure that the job is still this process's to write.

        Raises
        ------
        JobBusyError
            Another process took it over: this one had not renewed its lease in time.
        """
        with self._mutex:
            # At half its time, so that the write after this check ends before anybody may take
            # over.
            if self._proven.seconds_ago > LEASE_SECONDS / 2:
                try:
                    self._write(self._holder, self._version)
                except ConflictError:
                    raise self._guarded.lost() from None

    def read(self, path: str) -> bytes:
        """Read an object that only the holder writes; refuse it if somebody else wrote it.

        Raises
        ------
        FileNotFoundError
            There is none.
        JobBusyError
            Somebody else wrote it: the lease is lost.
        """
        seen = self._objects.read(path)
        if seen is None:
            raise FileNotFoundError(path)
        # The version that was seen first counts: only the holder writes, so another one is a
        # conflict.
        if self._known.setdefault(path, seen.version) != seen.version:
            raise self._guarded.lost()
        return seen.data

    def expect(self, path: str, version: str) -> None:
        """Expect this version of an object, as if it had been read."""
        self._known.setdefault(path, version)

    def replace(self, path: str, data: bytes) -> None:
        """Write an object, provided that it is as the holder knows it.

        Raises
        ------
        JobBusyError
            Somebody else wrote it: the lease is lost.
        """
        self.check()
        if path not in self._known:
            with contextlib.suppress(FileNotFoundError):
                self.read(path)
        try:
            self._known[path] = self._objects.write(path, data, self._known.get(path))
        except ConflictError:
            raise self._guarded.lost() from None

    def release(self) -> None:
        """Release the lease, so that the next process need not wait."""
        self._ended.set()
        with self._mutex, contextlib.suppress(Exception):  # then it ends by itself
            # Written, not deleted: on the condition that nobody has taken it over.
            self._write(None, self._version)


class _Moment:
    """A moment by two clocks, as the monotonic one may stop while a laptop sleeps."""

    def __init__(self) -> None:
        self._monotonic, self._wall = time.monotonic(), time.time()

    @property
    def seconds_ago(self) -> float:
        return max(time.monotonic() - self._monotonic, time.time() - self._wall)


@dataclass(frozen=True)
class _Record:
    """What a lease's object says."""

    holder: str | None = None
    who: str = ""
    seconds: float = LEASE_SECONDS
    # A renewal has to differ from the one before, as versions may be hashes of the content.
    renewals: int = 0


def _record(seen: ObjectVersion | None) -> _Record | None:
    try:
        record = msgspec.json.decode(b"" if seen is None else seen.data, type=_Record)
    except (ValueError, RecursionError):
        return None
    # Junk in somebody else's store holds a job no longer than a lease of ours would.
    return record if 0 < record.seconds <= _LONGEST_SECONDS else None


def _held(guarded: Guarded, seen: ObjectVersion | None) -> JobBusyError:
    error, record = guarded.busy(), _record(seen)
    if record is not None and record.who:
        error.problem = f"{error.problem.rstrip('.')} ({one_line(shortened(record.who, 100))})."
    return error


def _read_note(note: str) -> list[str]:
    try:
        return Path(note).read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return []


@contextlib.contextmanager
def hold(lease: Lease, timeout_seconds: float) -> Iterator[Lease]:
    """Hold a lease for a while."""
    lease.acquire(timeout_seconds)
    try:
        yield lease
    finally:
        lease.release()


_REFUSED = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "404", "409", "412"}
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html"""


class ConflictError(Exception):
    """The object is no longer what the writer thought it was."""


@dataclass(frozen=True)
class ObjectVersion:
    """An object as it was read; `age_seconds` by the store's clock, 0 where unknown."""

    data: bytes
    version: str
    age_seconds: float = 0.0


class Objects(Protocol):
    """Reads and writes whole small objects.

    ``exact`` says that of two writers who expect the same version one is refused, always.
    """

    exact: bool

    def read(self, path: str) -> ObjectVersion | None:
        """Read the object, or None where there is none."""

    def exists(self, path: str) -> bool:
        """Tell whether the object is there; a folder of that name is none."""

    def write(self, path: str, data: bytes, expected: str | None) -> str:
        """Write where the version is as expected (None: no object); return the new version.

        Raises
        ------
        ConflictError
            It is another version.
        """


class S3Objects:
    """Conditional writes as S3 has them: ``If-None-Match: *`` and ``If-Match``.

    Parameters
    ----------
    fs : s3fs.S3FileSystem
        Decides the server and the credentials.
    """

    exact = True

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def read(self, path: str) -> ObjectVersion | None:
        """Read body and ETag in one request, so that they belong together."""
        from fsspec.asyn import sync  # noqa: PLC0415 - tens of milliseconds

        try:
            data, answer = sync(self._fs.loop, self._get, path)
        except FileNotFoundError:
            return None
        return ObjectVersion(data, answer["ETag"], _age_seconds(answer))

    async def _get(self, path: str) -> tuple[bytes, dict[str, Any]]:
        answer = await self._fs._call_s3("get_object", **self._named(path))  # noqa: SLF001 - s3fs's own way to call within its loop
        async with answer["Body"] as body:
            return await body.read(), answer

    def exists(self, path: str) -> bool:
        """Check with one request; the method of s3fs would search for a folder, too."""
        try:
            self._fs.call_s3("head_object", **self._named(path))
        except FileNotFoundError:
            return False
        return True

    def _named(self, path: str) -> dict[str, str]:
        bucket, key, _ = self._fs.split_path(path)
        return {"Bucket": bucket, "Key": key}

    def write(self, path: str, data: bytes, expected: str | None) -> str:
        """Send one PUT; its mark tells a refusal from an answer that was lost on the way."""
        mark = secrets.token_hex(8)
        # botocore repeats a PUT whose answer was lost; the repeat is refused because of the first
        # one.
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        try:
            answer = self._fs.call_s3(
                "put_object", **self._named(path), Body=data, Metadata={"write": mark}, **condition
            )
            return str(answer["ETag"])
        except OSError as error:
            if not _refused(error):
                raise
            return self._written_after_all(path, mark)

    def _written_after_all(self, path: str, mark: str) -> str:
        """Return the ETag of a refused PUT that had been made before, and was tried again."""
        try:
            answer = self._fs.call_s3("head_object", **self._named(path))
        except FileNotFoundError:
            raise ConflictError(path) from None
        if answer.get("Metadata", {}).get("write") != mark:
            raise ConflictError(path)
        return str(answer["ETag"])


def _age_seconds(answer: dict[str, Any]) -> float:
    """Return how old an object is by the server's clock; 0 where it does not tell the time."""
    # Not by this computer's: set forward, it would take over the lease of a process that lives.
    now = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        age: float = (parsedate_to_datetime(now) - answer["LastModified"]).total_seconds()
    except (TypeError, ValueError):
        return 0.0
    return age


def _refused(error: OSError) -> bool:
    response = getattr(error.__cause__, "response", None) or {}
    code = response.get("Error", {}).get("Code")
    return isinstance(error, FileExistsError | FileNotFoundError) or code in _REFUSED


class PlainObjects:
    """Conditional writes by comparing before and after: two at the same moment may both succeed.

    Parameters
    ----------
    fs : fsspec.AbstractFileSystem
        Whose ``mode="create"`` is exact on Google's and Microsoft's stores, says its documentation.
    """

    exact = False

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def read(self, path: str) -> ObjectVersion | None:
        """Read the object; its version is a hash of its content."""
        try:
            data = self._fs.cat_file(path)
        except FileNotFoundError:
            return None
        return ObjectVersion(data, hashlib.sha256(data).hexdigest())

    def exists(self, path: str) -> bool:
        """Tell whether the object is there, by fsspec."""
        return bool(self._fs.exists(path))

    def write(self, path: str, data: bytes, expected: str | None) -> str:
        """Compare the version, write, then compare again."""
        if expected is not None and self._version(path) != expected:
            raise ConflictError(path)
        try:
            self._fs.pipe_file(path, data, mode="overwrite" if expected else "create")
        except FileExistsError:
            raise ConflictError(path) from None
        # Another writer may have passed the first check too; whoever wrote last finds its own
        # bytes.
        version = hashlib.sha256(data).hexdigest()
        if self._version(path) != version:
            raise ConflictError(path)
        return version

    def _version(self, path: str) -> str | None:
        seen = self.read(path)
        return None if seen is None else seen.version
