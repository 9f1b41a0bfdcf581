"""The only reader and writer of a job's folder (DESIGN.md §4).

Files are whole or absent: written under a temporary name, fsynced, renamed. A job exists when its
``sidecar.parquet`` does; the whole folder appears at once. Object stores have no rename: there a
file is staged on local disk and put as one object, the sidecar last.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from frameenrich.errors import JobBusyError, JobNotFoundError, StoreError
from frameenrich.model import Batch, JobSpec

if TYPE_CHECKING:
    from filelock import BaseFileLock

T = TypeVar("T")

DEFAULT_FOLDER = ".frameenrich"
READ_BYTES = 512 * 1024
_SIDECAR = "sidecar.parquet"
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,120}")
_STALE_DRAFT_SECONDS = 24 * 3600
_META = b"frameenrich."
_DRAFT = ".frameenrich-draft-"
# What reading a damaged file can raise, from Arrow, JSON or what is made of them.
_DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException)


def open_store(store: Store | str | os.PathLike[str] | None = None) -> Store:
    """The store that was asked for, else ``$FRAMEENRICH_STORE``, else ``.frameenrich`` here.

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
        import fsspec  # noqa: PLC0415 - tens of milliseconds that `import frameenrich` saves

        text = os.fspath(url)
        if "://" not in text:
            text = os.path.abspath(os.path.expanduser(text))
        fs, root = fsspec.core.url_to_fs(text)
        self.fs: Any = fs
        self.root: str = str(root).rstrip("/")
        self.local = "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))

    def __repr__(self) -> str:
        return f"Store({self.root!r})"

    def job_ids(self) -> list[str]:
        """The ids of all jobs here, in no particular order."""
        if not self.fs.isdir(self.root):
            return []
        self.fs.invalidate_cache(self.root)
        found = self.fs.glob(f"{self.root}/*/{_SIDECAR}")
        return [path.split("/")[-2] for path in found if not path.split("/")[-2].startswith(".")]

    def jobs(self) -> list[JobFolder]:
        """All jobs, the newest first."""
        folders = [JobFolder(self, job_id) for job_id in self.job_ids()]
        return sorted(folders, key=lambda folder: folder.created_at, reverse=True)

    def has(self, job_id: str) -> bool:
        """Whether the job exists."""
        return bool(self.fs.exists(f"{self.root}/{job_id}/{_SIDECAR}"))

    def job(self, job_id: str) -> JobFolder:
        """The folder of one job.

        Raises
        ------
        JobNotFoundError
            There is none of that id, or it is no id at all.
        """
        if not _JOB_ID.fullmatch(job_id) or not self.has(job_id):
            some = ", ".join(sorted(self.job_ids())[:5]) or "none"
            raise JobNotFoundError(
                f"The store {self.root} holds no job {job_id!r}.",
                f"Its jobs are: {some}; frameenrich.jobs(store=...) lists them all.",
                job_id=job_id,
            )
        return JobFolder(self, job_id)

    def check_writable(self) -> None:
        """Make the store's folder, private to the user, or say why not.

        Raises
        ------
        StoreError
            The folder cannot be made or written.
        """
        if not self.local:
            return
        try:
            if not os.path.isdir(self.root):
                os.makedirs(self.root, mode=0o700)
                Path(self.root, ".gitignore").write_text("*\n", encoding="utf-8")
            with tempfile.NamedTemporaryFile(dir=self.root, prefix=".probe-"):
                pass
        except OSError as error:
            raise _unwritable(self.root, error) from None

    @contextlib.contextmanager
    def draft(self) -> Iterator[Draft]:
        """A folder being filled; it vanishes unless it is committed."""
        self.check_writable()
        parent = self.root if self.local else tempfile.gettempdir()
        _sweep(parent)
        path = f"{parent}/{_DRAFT}{os.getpid()}-{secrets.token_hex(4)}"
        os.mkdir(path, mode=0o700)
        draft = Draft(self, path)
        try:
            yield draft
        except OSError as error:
            raise _unwritable(self.root, error) from error
        finally:
            draft.close()
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def write_whole(self, path: str) -> Iterator[IO[bytes]]:
        """A binary file that appears under `path` whole, or not at all."""
        folder = os.path.dirname(path) if self.local else tempfile.gettempdir()
        temporary = f"{folder}/.{os.path.basename(path)}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        try:
            with open(temporary, "w+b") as file:
                yield file
                sync(file)
            self._put(temporary, path)
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def _put(self, temporary: str, path: str) -> None:
        if self.local:
            os.replace(temporary, path)
            _sync_folder(os.path.dirname(path))
        else:
            self.fs.put_file(temporary, path)


def sync(file: IO[bytes]) -> None:
    """Have what was written on disk before going on."""
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: str) -> None:
    """Make a rename durable; not every platform lets a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(parent: str) -> None:
    """Remove drafts that a killed process left behind long ago."""
    for entry in Path(parent).glob(f"{_DRAFT}*"):
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > _STALE_DRAFT_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)


def _unwritable(path: str, error: OSError) -> StoreError:
    return StoreError(
        f"The store cannot be written at {path}: {error.strerror or error}.",
        "Pass store= a folder that you may write, or set FRAMEENRICH_STORE.",
        path=path,
    )


def _unreadable(path: str, error: Exception) -> StoreError:
    return StoreError(
        f"The store's file {path} cannot be read: {type(error).__name__}: {error}.",
        "Restore it from a backup, or move its job's folder out of the store.",
        path=path,
    )


def shard_name(number: int) -> str:
    """The stem of a shard's files."""
    return f"shard-{number:05d}"


class Draft:
    """A job, or a later round, before it exists."""

    def __init__(self, store: Store, path: str) -> None:
        self._store = store
        self._path = path
        self._files: dict[str, IO[bytes]] = {}

    def file(self, relative: str) -> IO[bytes]:
        """A file of the draft, opened for writing once and kept open until it is closed."""
        if relative not in self._files:
            path = f"{self._path}/{relative}"
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            self._files[relative] = open(path, "wb", buffering=1 << 20)  # noqa: SIM115 - see close
        return self._files[relative]

    def close_file(self, relative: str) -> None:
        """Finish one file: what is in it is on disk."""
        file = self._files.pop(relative, None)
        if file is not None:
            sync(file)
            file.close()

    def lines(self, names: Iterable[str]) -> Iterator[bytes]:
        """The lines of some of the draft's files, which are finished by that."""
        for relative in names:
            self.close_file(relative)
            with open(f"{self._path}/{relative}", "rb") as file:
                yield from file

    def write(self, relative: str, data: bytes) -> None:
        """A small file at once."""
        self.file(relative).write(data)
        self.close_file(relative)

    def write_sidecar(self, table: pa.Table, relative: str = _SIDECAR) -> None:
        """The Parquet file that says which row became which request."""
        with self.file(relative) as file:
            pq.write_table(
                table, file, compression="zstd", compression_level=1, write_page_checksum=True
            )
            sync(file)
        del self._files[relative]

    def sidecar_writer(self, schema: pa.Schema) -> pq.ParquetWriter:
        """The sidecar, to be written some rows at a time; the caller closes the writer."""
        return pq.ParquetWriter(
            self.file(_SIDECAR),
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["shard"],  # every other column names its row
            write_page_checksum=True,
        )

    def clear(self) -> None:
        """Empty the draft, to begin again."""
        self.close()
        for entry in Path(self._path).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def close(self) -> None:
        """Let go of files that were not finished."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def commit(self, target: str) -> bool:
        """Make the draft the folder `target` of the store; False where that is there already."""
        for relative in list(self._files):
            self.close_file(relative)
        if not self._store.local:
            return self._put_objects(target)
        destination = f"{self._store.root}/{target}"
        if os.path.isdir(destination):
            return _complete(destination)
        try:
            os.rename(self._path, destination)
        except OSError:
            if os.path.isdir(destination):  # another process was faster
                return _complete(destination)
            raise
        _sync_folder(os.path.dirname(destination))
        return True

    def _put_objects(self, target: str) -> bool:
        base, fs = f"{self._store.root}/{target}", self._store.fs
        if fs.exists(f"{base}/{_SIDECAR}"):
            return False
        paths = sorted(p for p in Path(self._path).rglob("*") if p.is_file())
        for path in sorted(paths, key=lambda p: p.name == _SIDECAR):
            fs.put_file(str(path), f"{base}/{path.relative_to(self._path).as_posix()}")
        return True


def _complete(path: str) -> bool:
    """False, that is not committed, where the folder is whole; an error where it is not."""
    if os.path.exists(f"{path}/{_SIDECAR}"):
        return False
    raise StoreError(
        f"The job's folder {path} is there already, but its sidecar is not.",
        "Move that folder away, then submit again.",
        path=path,
    )


@dataclass(frozen=True)
class JobFolder:
    """One job's folder."""

    store: Store
    id: str

    @property
    def path(self) -> str:
        """Where the job is."""
        return f"{self.store.root}/{self.id}"

    def _metadata(self, name: str, read: Callable[[bytes], T]) -> T:
        path = f"{self.path}/{_SIDECAR}"
        try:
            with self.store.fs.open(path, "rb") as file:
                metadata = pq.read_schema(file).metadata or {}
            return read(metadata[_META + name.encode()])
        except _DAMAGE as error:
            raise _unreadable(path, error) from error

    @cached_property
    def spec(self) -> JobSpec:
        """What the job sends and how its answers are read."""
        return self._metadata("spec", JobSpec.from_json)

    @cached_property
    def created_at(self) -> float:
        """When it was submitted; Unix seconds."""
        return self._metadata("created_at", float)

    @property
    def key_names(self) -> list[str]:
        """What a person calls the parts of the key."""
        return self._metadata("key_names", lambda names: names.decode().split("\x1f"))

    @property
    def row_count(self) -> int:
        """How many rows the job has; reads no row."""
        path = f"{self.path}/{_SIDECAR}"
        try:
            with self.store.fs.open(path, "rb") as file:
                return int(pq.read_metadata(file).num_rows)
        except _DAMAGE as error:
            raise _unreadable(path, error) from error

    def sidecar(self, round_: int = 0, columns: list[str] | None = None) -> pa.Table:
        """The sidecar of a round, or some of it: all rows for round 0, else those sent again."""
        path = f"{self.path}/{_SIDECAR}" if round_ == 0 else f"{self.round_path(round_)}/{_SIDECAR}"
        try:
            with self.store.fs.open(path, "rb") as file:
                # Not read_table, which leaves threads behind (apache/arrow issues 34314, 50482).
                return pq.ParquetFile(file, page_checksum_verification=True).read(columns)
        except _DAMAGE as error:
            raise _unreadable(path, error) from error

    def round_path(self, round_: int) -> str:
        """The folder of a round."""
        return f"{self.path}/round-{round_}"

    def rounds(self) -> int:
        """How many rounds there are; at least 1."""
        count = 1
        while self.store.fs.exists(f"{self.round_path(count)}/{_SIDECAR}"):
            count += 1
        return count

    def shards(self, round_: int) -> list[ShardFolder]:
        """The shards of a round, in order."""
        found = self.store.fs.glob(f"{self.round_path(round_)}/shard-*.requests.jsonl")
        numbers = sorted(int(path.rsplit("/shard-", 1)[1][:5]) for path in found)
        return [ShardFolder(self, round_, number) for number in numbers]

    def all_shards(self) -> list[ShardFolder]:
        """The shards of every round, in order."""
        return [shard for round_ in range(self.rounds()) for shard in self.shards(round_)]

    @contextlib.contextmanager
    def lock(self, timeout_seconds: float = 60.0) -> Iterator[None]:
        """Be the only process at work on this job.

        Raises
        ------
        JobBusyError
            Another process still held the lock after `timeout_seconds`.
        """
        from filelock import Timeout  # noqa: PLC0415 - not needed at import

        lock = self._file_lock()
        try:
            lock.acquire(timeout=timeout_seconds)
        except Timeout:
            raise JobBusyError(
                f"Another process is at work on the job {self.id}.",
                "Wait for it to end, then call again; nothing is lost.",
                job_id=self.id,
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _file_lock(self) -> BaseFileLock:
        from filelock import FileLock  # noqa: PLC0415 - not needed at import

        if self.store.local:
            return FileLock(f"{self.path}/.lock", mode=0o600)
        digest = hashlib.sha256(self.path.encode()).hexdigest()[:24]
        return FileLock(f"{tempfile.gettempdir()}/frameenrich-{digest}.lock", mode=0o600)


@dataclass(frozen=True)
class ShardFolder:
    """One shard's three files."""

    job: JobFolder
    round: int
    number: int

    def _path(self, what: str) -> str:
        return f"{self.job.round_path(self.round)}/{shard_name(self.number)}.{what}"

    @property
    def requests_path(self) -> str:
        """Exactly what was, or will be, uploaded."""
        return self._path("requests.jsonl")

    @property
    def responses_path(self) -> str:
        """Output and error lines as they came."""
        return self._path("responses.jsonl")

    @property
    def batch(self) -> Batch:
        """The provider's last word, or the intent where there is none yet."""
        path = self._path("batch.json")
        try:
            with self.job.store.fs.open(path, "rb") as file:
                return Batch.from_json(file.read())
        except _DAMAGE as error:
            raise _unreadable(path, error) from error

    def save(self, batch: Batch) -> None:
        """Write ``batch.json``, the only file of a job that changes."""
        with self.job.store.write_whole(self._path("batch.json")) as file:
            file.write(batch.to_json().encode())

    def open_requests(self) -> IO[bytes]:
        """The request lines, as a binary file."""
        file: IO[bytes] = self.job.store.fs.open(self.requests_path, "rb")
        return file

    @property
    def request_count(self) -> int:
        """How many requests the shard has."""
        if (known := self.batch.requests) is not None:
            return known
        with self.open_requests() as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(READ_BYTES), b""))

    @property
    def request_bytes(self) -> int:
        """Size of the requests file."""
        return int(self.job.store.fs.size(self.requests_path))

    @property
    def response_bytes(self) -> int:
        """Size of the responses file; 0 where none has come."""
        fs = self.job.store.fs
        return int(fs.size(self.responses_path)) if fs.exists(self.responses_path) else 0

    def read_responses(self) -> Iterator[bytes]:
        """The responses file in pieces; nothing where none has come."""
        if not self.job.store.fs.exists(self.responses_path):
            return
        with self.job.store.fs.open(self.responses_path, "rb") as file:
            while piece := file.read(READ_BYTES):
                yield piece

    @contextlib.contextmanager
    def write_responses(self) -> Iterator[IO[bytes]]:
        """A new responses file, there when it is complete."""
        with self.job.store.write_whole(self.responses_path) as file:
            yield file

    def add_responses(self, lines: Iterable[bytes]) -> None:
        """Write the responses file again with more lines at its end."""
        with self.write_responses() as file:
            for piece in self.read_responses():
                file.write(piece)
            for line in lines:
                file.write(line.rstrip(b"\n") + b"\n")

    def open_appending(self) -> IO[bytes]:
        """The responses file, open at its end; a line torn by a crash is cut off first.

        Only on a local disk: providers that answer line by line need a store that can append.
        """
        if not self.job.store.local:
            raise StoreError(
                f"The store {self.job.store.root} cannot append to a file.",
                "Use a local folder as store= for the live and local providers.",
            )
        file = open(self.responses_path, "a+b")  # noqa: SIM115 - the caller closes it
        _cut_torn_line(file)
        return file


def _cut_torn_line(file: IO[bytes]) -> None:
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
