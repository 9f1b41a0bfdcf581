"""Read and write the folder of one job."""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from frameenrich.errors import StoreError
from frameenrich.model import Batch, JobSpec
from frameenrich.store.local import SIDECAR, missing, unreadable
from frameenrich.store.shard import DAMAGE, KnownBatch, ShardFolder
from frameenrich.store.store import Store, T

_SHARD = re.compile(r"/round-(\d+)/shard-(\d+)\.(requests\.jsonl|batch\.json)$")


# An id comes from users and becomes part of a path: no dots, no slashes.
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,120}")


def is_job_id(text: object) -> bool:
    """Tell whether a text could be the id of a job, and so cannot name a path outside the store."""
    # `fullmatch`: "$" would let a newline through.
    return isinstance(text, str) and _JOB_ID.fullmatch(text) is not None


_META = b"frameenrich."


OWNER = "frameenrich.round"
"""The key of a later round's sidecar that has its job and number; earlier versions wrote none."""


PARTS = "frameenrich.parts"
"""The key of the sidecar's metadata that has the row count of each part of a job of parts."""


@dataclass(frozen=True)
class JobFolder:
    """One job's folder."""

    store: Store
    id: str

    @property
    def path(self) -> str:
        """The path of the job's folder."""
        return f"{self.store.root}/{self.id}"

    @cached_property
    def _footer(self) -> _Footer:
        """Read the sidecar's footer; it never changes, so it is read once."""
        with self.reading_sidecar() as file:
            return _Footer(file.schema_arrow, int(file.metadata.num_rows))

    @property
    def schema(self) -> pa.Schema:
        """The sidecar's columns, and the job's metadata with them."""
        return self._footer.schema

    def _metadata(self, name: str, read: Callable[[bytes], T]) -> T:
        try:
            return read((self.schema.metadata or {})[_META + name.encode()])
        except DAMAGE as error:
            raise unreadable(self._sidecar_path(0), error) from error

    def _sidecar_path(self, round_: int) -> str:
        return f"{self.path}/{SIDECAR}" if round_ == 0 else f"{self.round_path(round_)}/{SIDECAR}"

    @contextlib.contextmanager
    def reading_sidecar(self, round_: int = 0) -> Iterator[pq.ParquetFile]:
        """Open the sidecar of a round, to be read some row groups at a time.

        Raises
        ------
        StoreError
            It is damaged; also for what the caller does with it.
        """
        path = self._sidecar_path(round_)
        try:
            with self._open_parquet(path) as file:
                owner = (file.schema_arrow.metadata or {}).get(OWNER.encode())
                # Whole, and another job's: its rows would be asked again.
                if owner not in {None, f"{self.id}/round-{round_}".encode()}:
                    raise ValueError("it is of another round")
                yield file
        except DAMAGE as error:
            raise unreadable(path, error) from error

    def read(self) -> JobState:
        """Read the job's state by one listing, and each batch.json once.

        Raises
        ------
        StoreError
            A file is missing or damaged.
        """
        return self._read({})

    def _read(self, known: Mapping[str, KnownBatch]) -> JobState:
        """Read the job's state, but no batch.json that is known and did not change."""
        found = self.store.find(self.path)
        rounds = next(n for n in count(1) if self._sidecar_path(n) not in found)
        # A round without its sidecar was never published, so its shards do not count.
        shards = tuple(_shards(self, found, range(rounds)))
        for shard in shards:
            shard.read_batch(found.get(shard.batch_path), known.get(shard.batch_path))
        # From the same listing, so that no caller lists the folder a second time.
        reviewed = any("/reviews/" in path and path.endswith(".csv") for path in found)
        state = JobState(self.store, self.id, shards, rounds, reviewed)
        # A sidecar never changes, so the state need not read it again.
        kept = ("spec", "resumed", "created_at", "part_rows", "_footer", "_sidecar_file")
        # Through `__dict__`, as the dataclass is frozen.
        state.__dict__.update({name: vars(self)[name] for name in kept if name in vars(self)})
        return state

    @contextlib.contextmanager
    def opened(self) -> Iterator[JobState]:
        """Read the job's state, and keep its sidecar open while a verb reads it.

        Raises
        ------
        StoreError
            A file is missing or damaged.
        """
        with self._holding_sidecar() as file:
            # Parsed now, so that `read` hands it on to the state.
            _ = self.spec
            state = self.read()
            vars(state)["_sidecar_file"] = file
            yield state

    @contextlib.contextmanager
    def _holding_sidecar(self) -> Iterator[pq.ParquetFile]:
        """Open the sidecar, and keep what its footer says."""
        path = self._sidecar_path(0)
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self._open_parquet(path))
                footer = _Footer(file.schema_arrow, int(file.metadata.num_rows))
            except DAMAGE as error:
                raise unreadable(path, error) from error
            # Handed on, so that the spec and the schema open no file.
            vars(self).setdefault("_footer", footer)
            yield file

    @contextlib.contextmanager
    def _open_parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """Open a Parquet file of the store, with its page checksums verified."""
        with contextlib.ExitStack() as stack:
            # Not `pq.read_table`: given a Python file, it may hang at exit (apache/arrow#50482).
            local = self.store.local
            self.store.check_own(path)
            source = path if local else stack.enter_context(self.store.fs.open(path, "rb"))
            yield stack.enter_context(pq.ParquetFile(source, page_checksum_verification=True))

    @cached_property
    def spec(self) -> JobSpec:
        """Read the job's spec: what it sends and how its answers are read."""
        return self._metadata("spec", JobSpec.from_json)

    @cached_property
    def resumed(self) -> bool:
        """Assume that an earlier process left its files: true of all but those just written here.

        They may be a copy, or restored, and know less than the provider.
        """
        return True

    @cached_property
    def created_at(self) -> float:
        """The time of submission; Unix seconds."""
        return self._metadata("created_at", _moment)

    @property
    def key_names(self) -> list[str]:
        """Return the user's names for the parts of the key."""
        return self._metadata("key_names", self._key_names)

    def _key_names(self, names: bytes) -> list[str]:
        found = names.decode().split("\x1f")
        # Somebody else's sidecar may name more parts than it has, or fewer.
        columns = sum(name.startswith("key_") for name in self.schema.names)
        if len(found) != columns:
            raise ValueError(f"{len(found)} names for {columns} columns of the key")
        return found

    @property
    def key_columns(self) -> list[str]:
        """Return the sidecar's column names for the parts of the key."""
        return [f"key_{i}" for i in range(len(self.key_names))]

    @property
    def row_count(self) -> int:
        """Return how many rows the job has; reads no row."""
        return self._footer.rows

    @cached_property
    def part_rows(self) -> list[int]:
        """Return how many rows each part has, where the job was written in parts; else empty."""
        # Only a job of parts says so; its folder is like any other, so nothing else knows of parts.
        if PARTS.encode() not in (self.schema.metadata or {}):
            return []
        return self._metadata("parts", lambda written: [int(rows) for rows in json.loads(written)])

    def sidecar(self, round_: int = 0, columns: list[str] | None = None) -> pa.Table:
        """Read the sidecar of a round: all rows for round 0, else those sent again."""
        with self.reading_sidecar(round_) as file:
            return file.read(columns)

    def round_path(self, round_: int) -> str:
        """Return the folder of a round."""
        return f"{self.path}/round-{round_}"

    def rounds(self) -> int:
        """Return how many rounds there are; at least 1."""
        # A round counts once its sidecar is there, which is published with it as one.
        paths = map(self._sidecar_path, count(1))
        return next(n for n, path in enumerate(paths, 1) if not self.store.exists(path))

    def shards(self, round_: int) -> list[ShardFolder]:
        """Return the shards of a round, in order."""
        return _shards(self, self.store.find(self.round_path(round_)), range(round_, round_ + 1))

    def all_shards(self) -> list[ShardFolder]:
        """Return the shards of every round, in order, by one listing of the folder."""
        found = self.store.find(self.path)
        rounds = next(n for n in count(1) if self._sidecar_path(n) not in found)
        return _shards(self, found, range(rounds))

    @contextlib.contextmanager
    def lock(self, timeout_seconds: float = 60.0) -> Iterator[None]:
        """Be the only process at work on this job.

        Raises
        ------
        JobBusyError
            Another process still held the lock after `timeout_seconds`.
        """
        with self.store.lock(self.path, timeout_seconds):
            yield


class _Footer(NamedTuple):
    """A sidecar's schema, whose metadata holds the job's, and how many rows it has."""

    schema: pa.Schema
    rows: int


@dataclass(frozen=True)
class JobState(JobFolder):
    """The state of a job, which a verb reads once and passes on (see `JobFolder.read`).

    It answers for the shards, their batches and the rounds without the disk. A step that changes
    a batch keeps it on the shard too, so that the state after a step is not read again.
    """

    found: tuple[ShardFolder, ...]
    round_count: int
    reviewed: bool = False

    def read(self) -> JobState:
        """Read the job's state now; a batch.json that did not change is not read again."""
        return self._read({s.batch_path: s.known for s in self.found if s.known is not None})

    @contextlib.contextmanager
    def opened(self) -> Iterator[JobState]:
        """Keep the sidecar open while a verb reads this state of the job."""
        # Not closed by the inner of two: the outer verb still reads it.
        if (held := vars(self).get("_sidecar_file")) is not None and not held.closed:
            yield self
            return
        with self._holding_sidecar() as file:
            vars(self)["_sidecar_file"] = file
            yield self

    @property
    def batches(self) -> list[Batch]:
        """The batches of all shards, in order."""
        return [shard.batch for shard in self.found]

    @property
    def settled(self) -> bool:
        """Tell whether nothing more will come."""
        return all(batch.settled for batch in self.batches)

    @property
    def reused(self) -> int:
        """Return how many requests were not sent, since the store had a usable answer to them."""
        batches = [shard.batch for shard in self.found if shard.round == 0]
        return sum(batch.total or 0 for batch in batches if batch.reused_from)

    @property
    def waits_for(self) -> dict[str, int]:
        """Return how many requests wait for answers of other jobs, by the jobs' ids."""
        waiting = [shard for shard in self.found if shard.batch.waiting]
        return {
            ", ".join(shard.batch.waits_for): sum(
                other.request_count
                for other in waiting
                if other.batch.waits_for == shard.batch.waits_for
            )
            for shard in waiting
        }

    def rounds(self) -> int:
        """Return how many rounds there were; at least 1."""
        return self.round_count

    def shards(self, round_: int) -> list[ShardFolder]:
        """Return the shards of a round, in order."""
        return [shard for shard in self.found if shard.round == round_]

    def all_shards(self) -> list[ShardFolder]:
        """Return the shards of every round, in order."""
        return list(self.found)

    @contextlib.contextmanager
    def reading_sidecar(self, round_: int = 0) -> Iterator[pq.ParquetFile]:
        """Open the sidecar of a round, or yield the open one; see `JobFolder.reading_sidecar`."""
        file = vars(self).get("_sidecar_file") if round_ == 0 else None
        # `opened` may have ended; the state is good for longer than its file.
        if file is None or file.closed:
            with super().reading_sidecar(round_) as file:
                yield file
            return
        try:
            yield file
        except DAMAGE as error:
            raise unreadable(self._sidecar_path(0), error) from error


def _shards(job: JobFolder, paths: Iterable[str], rounds: range) -> list[ShardFolder]:
    """Return the shards of some rounds, found by either of the two files that each is made with."""
    found = {(int(m[1]), int(m[2]), m[3]) for m in filter(None, map(_SHARD.search, paths))}
    shards = [
        ShardFolder(job, *each)
        for each in sorted({(round_, number) for round_, number, _ in found if round_ in rounds})
    ]
    for shard in shards:
        # Both files are published with the job, so a batch.json alone is damage.
        if (shard.round, shard.number, "requests.jsonl") not in found:
            raise missing(shard.requests_path)
    return shards


def job_folders(store: Store) -> list[JobFolder]:
    """List the folders of all jobs of a store that can be read, the newest first."""
    return split_jobs(store)[0]


def split_jobs(store: Store) -> tuple[list[JobFolder], list[tuple[JobFolder, StoreError]]]:
    """List a store's readable jobs, the newest first, and the damaged ones with their errors."""
    readable: list[JobFolder] = []
    damaged = []
    for job_id in sorted(store.job_ids()):
        folder = JobFolder(store, job_id)
        try:
            _ = folder.created_at, folder.spec
            readable.append(folder)
        except StoreError as error:
            damaged.append((folder, error))
    return sorted(readable, key=lambda folder: folder.created_at, reverse=True), damaged


def _moment(text: bytes) -> float:
    """Read a time that a calendar has."""
    seconds = float(text)
    if not 0 <= seconds < _LAST_MOMENT:  # nor is NaN
        raise ValueError(f"{seconds} is no time")
    return seconds


_LAST_MOMENT = 4_102_444_800.0
"""The year 2100: pandas' dates end, and no clock is wrong by as much."""


def moment_of_new_job(store: Store, slug: str) -> float:
    """Return the time, or a moment after the newest job where the clock was set back since.

    Jobs are told apart by when they were made: without this, "the newest" would be the older one
    until the clock has caught up.
    """
    now = time.time()
    # A folder from the future gives it away on a disk; a bucket has no folders with a time, and
    # only jobs of the same name are read there, as each is a download.
    if store.changed_at() > now:
        doubtful = store.job_ids()
    else:
        doubtful = [] if store.local else [i for i in store.job_ids() if i.startswith(f"{slug}-")]
    for job_id in doubtful:
        with contextlib.suppress(StoreError):  # a damaged job is nobody's newest
            now = max(now, math.nextafter(JobFolder(store, job_id).created_at, math.inf))
    return now
