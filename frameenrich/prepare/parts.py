"""Jobs of frames larger than one process: written a part at a time, by as many processes as wish.

A *part* is some consecutive rows of a larger frame: a partition of Dask's, a chunk of a file. The
job that its parts make is as any other: one sidecar, shards, the same id as the whole frame's
`submit` would give it, so everything that reads jobs reads it, too. What a door does::

    with staged(store, plan.spec, limits) as stage:                   # a folder of the store
        parts = [write_part(stage, n, frame) for n, frame in enumerate(frames)]
        folder = join_parts(stage, plan, parts, find_answers=..., approve=...)

`write_part` may run in any process that sees the store, any number of times, at once too: a
`PartsFolder`
can be pickled and holds no secret. A part's requests and sidecar stand in the stage under names
that its number decides, whole or not at all. `join_parts` (`prepare.parts`) runs once, in the
process that pays. It holds 16 bytes a row, and one part's sidecar at a time. Callers that have
wishes rather than a plan use `frameenrich.verbs.submit.submit_parts`.

To collect a part: `Job.collect_part(frame, number)`, or without a `Job`, as on a worker,
`lifecycle.collect.collect_part`. It reads the lines of the sidecar that are the part's, and the
shards that those name.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from frameenrich.answers.column_names import check_collisions
from frameenrich.answers.output import Output
from frameenrich.errors import FrameEnrichError, InputError, RowKeyError, StoreError
from frameenrich.identity.dedupe import (
    Deduplicator,
    JobHash,
    ShortHashes,
    column_halves,
    duplicates,
    halves,
    is_in,
)
from frameenrich.identity.keys import (
    cast_keys,
    common_schema,
    key_digests,
    key_names,
    key_texts,
    show_key,
    sidecar_keys,
)
from frameenrich.jsonl import request_ids
from frameenrich.model import JobSpec, Limits
from frameenrich.prepare.check_frame import check_frame, errors_by_row_key
from frameenrich.prepare.job_files import Answers, job_name_slug, requests_file, write_batch_files
from frameenrich.prepare.options import Plan
from frameenrich.prepare.writer import Approve, FindAnswers, JobWriter
from frameenrich.rendering.encode_rows import row_requests
from frameenrich.store.draft import Draft
from frameenrich.store.folder import PARTS, JobFolder, job_folder
from frameenrich.store.sidecar import ROWS_PER_GROUP, SKIPPED, sidecar_metadata
from frameenrich.store.store import Store

_NUMBERS = "part.json"


@dataclass(frozen=True)
class PartsFolder:
    """Where parts are written before they are a job, and how.

    Parameters
    ----------
    url : str
        The store, as every process that writes parts reaches it.
    folder : str
        The stage's folder in it.
    spec : JobSpec
        The job's.
    limits : Limits
        Of one batch file.
    """

    url: str
    folder: str
    spec: JobSpec
    limits: Limits

    def part(self, number: int) -> str:
        """The folder of a part, in the store."""
        return f"{self.folder}/part-{number:06d}"

    def folder_of(self, number: int) -> JobFolder:
        """A part's folder, which is laid out as a job's."""
        return JobFolder(Store(self.url), self.part(number))

    def requests_path(self, number: int, shard: int) -> str:
        """The requests of one of a part's shards."""
        return f"{Store(self.url).root}/{self.part(number)}/{requests_file(shard)}"


@dataclass(frozen=True)
class Part:
    """What the paying process has to know of a part that is written.

    Parameters
    ----------
    number : int
        Which one; the parts' order is the rows'.
    rows : int
        How many it has; a part without rows is written nowhere.
    keys : array of uint64
        The digests of its rows' keys.
    asked : array of uint64
        The halves of its requests' hashes, in order.
    requests : tuple of int
        How many requests are in each of its shards.
    job_hash : JobHash
        Of its rows.
    """

    number: int
    rows: int
    keys: ShortHashes
    asked: ShortHashes
    requests: tuple[int, ...]
    job_hash: JobHash

    @property
    def mark(self) -> bytes:
        """The same for the same part, written again."""
        told = {"rows": self.rows, "requests": self.requests, "hash": self.job_hash.mark}
        return json.dumps(told).encode()


@contextlib.contextmanager
def open_parts_folder(store: Store, spec: JobSpec, limits: Limits) -> Iterator[PartsFolder]:
    """A stage for the parts of one job; what is left of it at the end vanishes."""
    with store.staging() as folder:
        yield PartsFolder(store.url, folder, spec, limits)


def write_part(
    stage: PartsFolder, number: int, frame: pd.DataFrame, *, called: str | None = None
) -> Part:
    """Render a part into the stage; the same part again changes nothing.

    Parameters
    ----------
    stage : Stage
        Where it goes.
    number : int
        Which part it is.
    frame : DataFrame
        Its rows.
    called : str, optional
        What errors call it; its number by default.

    Raises
    ------
    InputError
        A row cannot be asked, or the keys do not name the part's rows; the message says which.
    StoreError
        This process does not see the store that the stage is in.
    """
    store = Store(stage.url)
    if store.local and not store.exists(f"{store.root}/{stage.folder}"):
        raise StoreError(
            f"The store {store.root} is not the same folder here as where the job is submitted.",
            "Pass store= a folder that every worker mounts at the same place, or a bucket.",
            path=store.root,
        )
    if len(frame) == 0:
        none = np.empty(0, np.uint64)
        return Part(number, 0, none, none, (), JobHash())
    with _named(called or f"Part {number}"):
        return _write(store, stage, number, frame)


def _write(store: Store, stage: PartsFolder, number: int, frame: pd.DataFrame) -> Part:
    plan = Plan(stage.spec, Output(stage.spec.output))
    keys = check_frame(frame, plan)
    with store.draft() as draft, errors_by_row_key(keys):
        names = key_names(frame, stage.spec.key)
        first = Deduplicator(len(frame))
        with JobWriter(draft, keys, stage.spec, names, stage.limits, first) as spool:
            for found in row_requests(frame, plan.spec, plan.prompt):
                spool.add(found)
        requests = tuple(map(spool.requests, range(spool.shards)))
        digests, asked = key_digests(keys), spool.first.sent()
        part = Part(number, len(frame), digests, asked, requests, spool.job_hash)
        draft.write(_NUMBERS, part.mark)
        if not draft.commit(stage.part(number)):
            _check_same(store, stage, part)
    return part


def _check_same(store: Store, stage: PartsFolder, part: Part) -> None:
    """Refuse a part that is another than the one that was written before."""
    if store.read(f"{store.root}/{stage.part(part.number)}/{_NUMBERS}") != part.mark:
        raise InputError(
            "It was computed twice, and had other rows or another order the second time.",
            "Have the frame computed once: persist it, or write it to Parquet and submit that.",
        )


@contextlib.contextmanager
def _named(called: str) -> Iterator[None]:
    """Have errors say which part they are about."""
    try:
        yield
    except FrameEnrichError as error:
        error.problem = f"{called}: {error.problem}"
        error.args = (error.problem, error.fix)
        raise


_LOOKED_AT = 4096
"""So many digests at once are looked at for keys that repeat."""


def join_parts(
    stage: PartsFolder,
    plan: Plan,
    parts: Iterable[Part],
    *,
    columns: Sequence[str] = (),
    nonce: str = "",
    find_answers: FindAnswers | None = None,
    approve: Approve | None = None,
) -> JobFolder:
    """Make the parts a job, or find the one that is there already. Nothing is sent.

    Parameters
    ----------
    stage : Stage
        Where the parts are.
    plan : Plan
        The one whose spec the stage has.
    parts : iterable of Part
        All of them, each once, in any order.
    columns : sequence of str
        The frame's: an answer must not go to one of them.
    nonce, find_answers, approve
        As `frameenrich.prepare.writer.write_job` takes them.

    Raises
    ------
    InputError
        There is no row, all would be skipped, or a key names rows of two parts.
    """
    written = sorted((part for part in parts if part.rows), key=lambda part: part.number)
    _check_any(written)
    _check_keys(stage, written)
    job_hash = JobHash()
    for part in written:
        job_hash.merge(part.job_hash)
    job_id = f"{job_name_slug(plan.spec.name)}-{job_hash.hexdigest(plan.spec, nonce)[:16]}"
    store = Store(stage.url)
    if not store.has(job_id):
        check_collisions(pd.DataFrame(columns=list(columns)), plan.spec, plan.output)
        asked = np.concatenate([part.asked for part in written])
        asked.sort()
        answers = find_answers(asked) if find_answers else None
        with store.draft() as draft:
            joined = _Joined(stage, draft, answers, duplicates(asked))
            _join(joined, written)
            write_batch_files(draft, job_id, joined, answers)
            if approve is not None:
                sent = range(joined.first_shard, joined.shards)
                approve(draft.lines(map(requests_file, sent)))
            draft.commit(job_id)
    return job_folder(store, job_id)


def _check_any(written: Sequence[Part]) -> None:
    if not written:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    if not any(part.requests for part in written):
        raise InputError(
            f"All {sum(part.rows for part in written)} rows would be skipped: each would print a "
            "null.",
            "Check the columns that the template uses, or pass on_null='empty'.",
        )


def _check_keys(stage: PartsFolder, written: Sequence[Part]) -> None:
    """Refuse a key that names rows of two parts; within a part that was done."""
    ordered = np.concatenate([part.keys for part in written])
    ordered.sort()
    suspect = duplicates(ordered)
    for start in range(0, len(suspect), _LOOKED_AT):
        found = _common_key(stage, written, suspect[start : start + _LOOKED_AT])
        if found is None:
            continue
        shown, first, second = found
        names = stage.folder_of(first).key_names
        what = f"key {tuple(names)}" if len(names) > 1 else f"key {names[0]!r}"
        raise RowKeyError(
            f"The {what} repeats across parts of the frame (partitions, or chunks of a file): "
            f"{len(suspect)} value(s) name rows of more than one, such as {shown} in part {first} "
            f"and in part {second}.",
            "Pass key= with the column(s) that name a row in the whole frame. An index that begins "
            "anew in each part, as Dask's reset_index() and read_csv() make it, does not.",
            count=len(suspect),
            example=shown,
            parts=(first, second),
        )


def _common_key(
    stage: PartsFolder, written: Sequence[Part], suspect: ShortHashes
) -> tuple[str, int, int] | None:
    """A key that stands in two parts, and in which; digests alone may agree by chance."""
    seen: dict[str, int] = {}
    for part in written:
        rows = np.flatnonzero(is_in(suspect, part.keys))
        if not len(rows):
            continue
        keys = sidecar_keys(stage.folder_of(part.number).sidecar()).take(pa.array(rows))
        for i, text in enumerate(key_texts(keys).to_pylist()):
            if text in seen:
                return show_key(keys, i), seen[text], part.number
            seen[text] = part.number
    return None


@dataclass
class _TakenOut:
    """Requests that are not sent with their part: the shards they were in, by custom_id.

    Of those, the ``answered`` are in the store; the others are asked by an earlier row.
    """

    homes: dict[str, int] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)


@dataclass
class _Joined:
    """Requests of several parts that become one job's; a request stays with who asked it first.

    ``watched`` are the halves of the hashes of requests that stand more than once.
    """

    stage: PartsFolder
    draft: Draft
    answers: Answers | None
    repeats: ShortHashes
    reused: dict[bytes, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.first_shard = 0 if self.answers is None else 1
        self._known = self.answers.origins if self.answers is not None else {}
        self._watched = np.union1d(self.repeats, halves(b"".join(self._known)))
        self._counts: list[int] = []
        self._first: dict[bytes, tuple[str, int]] = {}
        """Who asked a watched request first: its custom_id, and its shard."""

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return self.first_shard + len(self._counts)

    def requests(self, number: int) -> int:
        """How many requests a shard that is to be sent has."""
        return self._counts[number - self.first_shard]

    def take(self, part: Part, lines: pa.Table) -> pa.Table:
        """File a part's requests; gives its lines of the sidecar with the job's shards."""
        local = lines["shard"].to_numpy()
        asks = local != SKIPPED
        rows = np.flatnonzero(is_in(self._watched, column_halves(lines["request_hash"])) & asks)
        hashes = lines["request_hash"].take(pa.array(rows)).to_pylist()
        ids = lines["custom_id"].take(pa.array(rows)).to_pylist()
        homes = local[rows].tolist()
        out = self._taken_out(hashes, ids, homes)
        numbers = self._numbered(part, out)
        self._file(part, out, numbers)
        for own_hash, custom_id, home in zip(hashes, ids, homes, strict=True):
            number = 0 if own_hash in self.reused else numbers[home]
            self._first.setdefault(own_hash, (custom_id, number))
        shards = np.append(numbers, SKIPPED).astype(np.int32)[local]
        return _with_askers(lines, rows, [self._first[h] for h in hashes], shards)

    def _taken_out(
        self, hashes: Sequence[bytes], ids: Sequence[str], homes: Sequence[int]
    ) -> _TakenOut:
        """Which requests of a part are not sent with it."""
        out = _TakenOut()
        here: dict[bytes, str] = {}
        for own_hash, custom_id, home in zip(hashes, ids, homes, strict=True):
            known = self._first.get(own_hash)
            asker = known[0] if known else here.setdefault(own_hash, custom_id)
            if asker != custom_id:
                out.homes[custom_id] = home
            elif own_hash in self._known and known is None:
                self.reused[own_hash] = custom_id
                out.homes[custom_id] = home
                out.answered.add(custom_id)
        return out

    def _numbered(self, part: Part, out: _TakenOut) -> list[int]:
        """The job's number for each shard of a part; -1 for one of which nothing is left."""
        missing = Counter(out.homes.values())
        numbers = []
        for home, requests in enumerate(part.requests):
            left = requests - missing[home]
            numbers.append(self.shards if left else SKIPPED)
            if left:
                self._counts.append(left)
        return numbers

    def _file(self, part: Part, out: _TakenOut, numbers: Sequence[int]) -> None:
        changed = set(out.homes.values())
        for home, number in enumerate(numbers):
            path = self.stage.requests_path(part.number, home)
            if home not in changed:
                self.draft.adopt(requests_file(number), path)
                continue
            with Store(self.stage.url).open(path) as lines:
                for custom_id, line in request_ids(lines):
                    if custom_id not in out.homes:
                        self.draft.file(requests_file(number)).write(line)
                    elif custom_id in out.answered:
                        self.draft.file(requests_file(0)).write(line)
            self.draft.close_file(requests_file(number))


def _with_askers(
    lines: pa.Table,
    rows: npt.NDArray[np.int64],
    askers: Sequence[tuple[str, int]],
    shards: npt.NDArray[np.int32],
) -> pa.Table:
    """Lines of the sidecar with their shards; some rows under the custom_id of who asked first."""
    ids = lines["custom_id"]
    if len(rows):
        shards[rows] = [shard for _, shard in askers]
        changed = ids.to_pylist()
        for row, (custom_id, _) in zip(rows.tolist(), askers, strict=True):
            changed[row] = custom_id
        ids = pa.array(changed, pa.string())
    place = lines.column_names.index
    lines = lines.set_column(place("custom_id"), "custom_id", ids)
    return lines.set_column(place("shard"), "shard", pa.array(shards))


def _join(joined: _Joined, written: Sequence[Part]) -> None:
    """File all parts, and write the sidecar a part at a time."""
    stage = joined.stage
    folders = [stage.folder_of(part.number) for part in written]
    schema = common_schema([folder.schema for folder in folders])
    told = sidecar_metadata(stage.spec, folders[0].key_names)
    rows = {part.number: part.rows for part in written}
    told[PARTS] = json.dumps([rows.get(number, 0) for number in range(max(rows) + 1)])
    with joined.draft.sidecar_writer(schema.with_metadata(told)) as writer:
        for part, folder in zip(written, folders, strict=True):
            lines = cast_keys(joined.take(part, folder.sidecar()), schema)
            writer.write_table(lines.cast(schema), row_group_size=ROWS_PER_GROUP)
