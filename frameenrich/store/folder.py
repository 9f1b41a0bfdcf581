"""Read and write the folder of one job."""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from frameenrich.errors import StoreError
from frameenrich.model import Batch, JobSpec
from frameenrich.store.local import SIDECAR, missing, unreadable
from frameenrich.store.shard import DAMAGE, KnownBatch, ShardFolder, ShardPath
from frameenrich.store.store import Store

_SHARD = re.compile(r"/round-(\d+)/shard-(\d+)\.(requests\.jsonl|batch\.json)$")


# An id comes from users and becomes part of a path: no dots, no slashes.
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,120}")


def is_job_id(text: object) -> bool:
    """Tell whether a text could be the id of a job, and so cannot name a path outside the store."""
    # `fullmatch`: "$" would let a newline through.
    return isinstance(text, str) and _JOB_ID.fullmatch(text) is not None


OWNER = "frameenrich.round"
"""The key of a later round's sidecar that has its job and number; earlier versions wrote none."""


PARTS = "frameenrich.parts"
"""The key of the sidecar's metadata that has the row count of each part of a job of parts."""


@dataclass(frozen=True)
class JobPath:
    """Where a job lies in its store; nothing of it is read yet (see `open`)."""

    store: Store
    id: str

    @property
    def path(self) -> str:
        """The path of the job's folder."""
        return f"{self.store.root}/{self.id}"

    def round_path(self, round_: int) -> str:
        """Return the folder of a round."""
        return f"{self.path}/round-{round_}"

    def open(self) -> JobFolder:
        """Read what the sidecar's footer says of the job.

        Raises
        ------
        StoreError
            There is no sidecar, or it is damaged.
        """
        with self._open_sidecar() as (folder, _):
            return folder

    def read(self) -> JobState:
        """Read the job's footer, and its state by one listing and each batch.json once.

        Raises
        ------
        StoreError
            A file is missing or damaged.
        """
        return self.open().read()

    @contextlib.contextmanager
    def opened(self) -> Iterator[JobState]:
        """Read the job's state, and keep its sidecar open while a verb reads it.

        Raises
        ------
        StoreError
            A file is missing or damaged.
        """
        with self._open_sidecar() as (folder, file):
            yield replace(folder.read(), file=file)

    @contextlib.contextmanager
    def _open_sidecar(self) -> Iterator[tuple[JobFolder, pq.ParquetFile]]:
        """Open the sidecar and read its footer."""
        path = self._sidecar_path(0)
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self._open_parquet(path))
                folder = self._described_by(file)
            # Only for the footer: what a verb raises while the file is open is not damage.
            except DAMAGE as error:
                raise unreadable(path, error) from error
            yield folder, file

    def _described_by(self, file: pq.ParquetFile) -> JobFolder:
        """Return the folder with what its sidecar's footer says."""
        return JobFolder(self.store, self.id, facts_of(file))

    @contextlib.contextmanager
    def _open_parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """Open a Parquet file of the store, with its page checksums verified."""
        with contextlib.ExitStack() as stack:
            # Not `pq.read_table`: given a Python file, it may hang at exit (apache/arrow#50482).
            local = self.store.local
            self.store.check_own(path)
            source = path if local else stack.enter_context(self.store.fs.open(path, "rb"))
            yield stack.enter_context(pq.ParquetFile(source, page_checksum_verification=True))

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

    def sidecar(self, round_: int = 0, columns: list[str] | None = None) -> pa.Table:
        """Read the sidecar of a round: all rows for round 0, else those sent again."""
        with self.reading_sidecar(round_) as file:
            return file.read(columns)

    def sidecar_rows(
        self, positions: npt.NDArray[np.int64], columns: list[str] | None = None
    ) -> pa.Table:
        """Read some rows of the job's sidecar, by their rising positions.

        The sidecar of millions of rows is as large as their answers, so that no more than a row
        group is in memory.
        """
        with self.reading_sidecar() as file:
            names, start = columns or file.schema_arrow.names, 0
            found = [file.schema_arrow.empty_table().select(names)]
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                first, last = np.searchsorted(positions, [start, end])
                if first < last:
                    rows = file.read_row_group(group, names)
                    found.append(rows.take(pa.array(positions[first:last] - start)))
                start = end
        return pa.concat_tables(found)

    def shard_paths(self) -> list[ShardPath]:
        """Return where the shards of round 0 lie, in order; the sidecar may be damaged."""
        found = self.store.find(self.round_path(0))
        return [ShardPath(self, *each) for each in _shards(self, found, range(1))]

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


@dataclass(frozen=True)
class JobFacts:
    """What the footer of a job's sidecar says: it never changes, so it is read once.

    Parameters
    ----------
    spec : JobSpec
        What the job sends and how its answers are read.
    created_at : float
        The time of submission; Unix seconds.
    key_names : tuple of str
        The user's names for the parts of the key.
    part_rows : tuple of int
        How many rows each part has, where the job was written in parts; else empty.
    row_count : int
        How many rows the job has.
    schema : pyarrow.Schema
        The sidecar's columns, and the job's metadata with them.
    """

    spec: JobSpec
    created_at: float
    key_names: tuple[str, ...]
    part_rows: tuple[int, ...]
    row_count: int
    schema: pa.Schema


def facts_of(file: pq.ParquetFile) -> JobFacts:
    """Read a sidecar's footer; what it raises is damage."""
    schema = file.schema_arrow
    found: dict[bytes, bytes] = schema.metadata or {}
    names = found[b"frameenrich.key_names"].decode().split("\x1f")
    # Somebody else's sidecar may name more parts than it has, or fewer.
    columns = sum(name.startswith("key_") for name in schema.names)
    if len(names) != columns:
        raise ValueError(f"{len(names)} names for {columns} columns of the key")
    return JobFacts(
        JobSpec.from_json(found[b"frameenrich.spec"]),
        _moment(found[b"frameenrich.created_at"]),
        tuple(names),
        # Only a job of parts says so; its folder is like any other, so nothing else knows of parts.
        tuple(int(rows) for rows in json.loads(found.get(PARTS.encode(), b"[]"))),
        int(file.metadata.num_rows),
        schema,
    )


@dataclass(frozen=True)
class JobFolder(JobPath):
    """One job's folder, with what its sidecar's footer says; see `JobPath.open`.

    Parameters
    ----------
    store, id
        As `JobPath` takes them.
    facts : JobFacts
        What the footer says.
    resumed : bool
        Whether an earlier process left the files: true of all but those just written here. They
        may be a copy, or restored, and know less than the provider.
    """

    # A job is known by its store and id, whatever of it this call says otherwise.
    facts: JobFacts = field(compare=False, repr=False)
    resumed: bool = field(default=True, compare=False)

    @property
    def spec(self) -> JobSpec:
        """The job's spec: what it sends and how its answers are read."""
        return self.facts.spec

    @property
    def created_at(self) -> float:
        """The time of submission; Unix seconds."""
        return self.facts.created_at

    @property
    def key_names(self) -> list[str]:
        """The user's names for the parts of the key."""
        return list(self.facts.key_names)

    @property
    def key_columns(self) -> list[str]:
        """The sidecar's column names for the parts of the key."""
        return [f"key_{i}" for i in range(len(self.facts.key_names))]

    @property
    def row_count(self) -> int:
        """The number of rows of the job."""
        return self.facts.row_count

    def open(self) -> JobFolder:
        """Return this folder, which is open."""
        return self

    def with_spec(self, spec: JobSpec) -> JobFolder:
        """Return the folder with another spec, where this call says what the first did not."""
        return replace(self, facts=replace(self.facts, spec=spec))

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
        # Of a plain folder: with the state before as their job, every poll of a wait would keep all
        # states before it in memory.
        plain = JobFolder(self.store, self.id, self.facts, self.resumed)
        shards = tuple(plain._shards(found, range(rounds)))
        for shard in shards:
            shard.read_batch(found.get(shard.batch_path), known.get(shard.batch_path))
        # From the same listing, so that no caller lists the folder a second time.
        reviews = tuple(path for path in found if path.startswith(f"{self.path}/reviews/"))
        return JobState(self.store, self.id, self.facts, self.resumed, shards, rounds, reviews)

    def _described_by(self, file: pq.ParquetFile) -> JobFolder:  # noqa: ARG002 - it is read
        return self

    def rounds(self) -> int:
        """Return how many rounds there are; at least 1."""
        # A round counts once its sidecar is there, which is published with it as one.
        paths = map(self._sidecar_path, count(1))
        return next(n for n, path in enumerate(paths, 1) if not self.store.exists(path))

    def shards(self, round_: int) -> list[ShardFolder]:
        """Return the shards of a round, in order."""
        return self._shards(self.store.find(self.round_path(round_)), range(round_, round_ + 1))

    def all_shards(self) -> list[ShardFolder]:
        """Return the shards of every round, in order, by one listing of the folder."""
        found = self.store.find(self.path)
        rounds = next(n for n in count(1) if self._sidecar_path(n) not in found)
        return self._shards(found, range(rounds))

    def review_files(self) -> Iterable[str]:
        """Return the paths of the files of all reviews."""
        return self.store.find(f"{self.path}/reviews")

    def _shards(self, paths: Iterable[str], rounds: range) -> list[ShardFolder]:
        return [ShardFolder(self, *each) for each in _shards(self, paths, rounds)]


@dataclass(frozen=True)
class JobState(JobFolder):
    """The state of a job, which a verb reads once and passes on (see `JobFolder.read`).

    It answers for the shards, their batches and the rounds without the disk. A step that changes
    a batch keeps it on the shard too, so that the state after a step is not read again.
    """

    found: tuple[ShardFolder, ...] = ()
    round_count: int = 1
    reviews: tuple[str, ...] = ()
    file: pq.ParquetFile | None = field(default=None, compare=False, repr=False)

    def __getstate__(self) -> dict[str, object]:
        """Leave the open file out of what is pickled or copied; it is opened anew when needed."""
        return {**vars(self), "file": None}

    def read(self) -> JobState:
        """Read the job's state now; a batch.json that did not change is not read again."""
        known = {s.batch_path: s.known for s in self.found if s.known is not None}
        # The open file goes along, as the sidecar is the same one.
        return replace(self._read(known), file=self.file)

    @contextlib.contextmanager
    def opened(self) -> Iterator[JobState]:
        """Keep the sidecar open while a verb reads this state of the job."""
        # Not closed by the inner of two: the outer verb still reads it.
        if self.file is not None and not self.file.closed:
            yield self
            return
        with self._open_sidecar() as (_, file):
            yield replace(self, file=file)

    @property
    def batches(self) -> list[Batch]:
        """The batches of all shards, in order."""
        return [shard.batch for shard in self.found]

    def review_files(self) -> Iterable[str]:
        """Return the paths of the files of all reviews."""
        return self.reviews

    @property
    def reviewed(self) -> bool:
        """Tell whether a person's sheet was added to a review."""
        return any(path.endswith(".csv") for path in self.reviews)

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
        file = self.file if round_ == 0 else None
        # `opened` may have ended; the state is good for longer than its file.
        if file is None or file.closed:
            with super().reading_sidecar(round_) as file:
                yield file
            return
        try:
            yield file
        except DAMAGE as error:
            raise unreadable(self._sidecar_path(0), error) from error


def _shards(job: JobPath, paths: Iterable[str], rounds: range) -> list[tuple[int, int]]:
    """Return round and number of the shards found, by either of the files each is made with."""
    found = {(int(m[1]), int(m[2]), m[3]) for m in filter(None, map(_SHARD.search, paths))}
    shards = sorted({(round_, number) for round_, number, _ in found if round_ in rounds})
    for each in shards:
        # Both files are published with the job, so a batch.json alone is damage.
        if (*each, "requests.jsonl") not in found:
            raise missing(ShardPath(job, *each).requests_path)
    return shards


def job_folders(store: Store, own_id: str = "") -> list[JobFolder]:
    """List the jobs of a store that can be read, the newest first, except one's own."""
    return split_jobs(store, own_id)[0]


def split_jobs(
    store: Store, own_id: str = ""
) -> tuple[list[JobFolder], list[tuple[JobPath, StoreError]]]:
    """List a store's readable jobs, the newest first, and the damaged ones with their errors.

    The job `own_id` is left out.
    """
    readable, damaged = list[JobFolder](), list[tuple[JobPath, StoreError]]()
    for job_id in sorted(set(store.job_ids()) - {own_id}):
        path = JobPath(store, job_id)
        try:
            readable.append(path.open())
        except StoreError as error:
            damaged.append((path, error))
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

    Jobs are ordered by when they were made: without this, "the newest" would be the older one
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
            now = max(now, math.nextafter(JobPath(store, job_id).open().created_at, math.inf))
    return now
