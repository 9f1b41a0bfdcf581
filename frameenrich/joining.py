"""From the parts in a stage to one job's folder: keys and repeats across parts, shards, sidecar.

Runs once, in the process that pays. A part's files become the job's as they are, unread, but for
shards that hold a request which an earlier part asks, too, or which the store has an answer to.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from frameenrich.draft import Draft
from frameenrich.errors import InputError, RowKeyError
from frameenrich.keys import cast_keys, common_schema, key_texts, show_key, sidecar_keys
from frameenrich.parts import Part, Stage
from frameenrich.plan import Plan
from frameenrich.providers.base import request_ids
from frameenrich.repeats import Halves, JobHash, column_halves, contains, halves, repeated
from frameenrich.spool import ROWS_PER_GROUP, SKIPPED, Answers, requests_name, sidecar_metadata
from frameenrich.store import PARTS, JobFolder, Store
from frameenrich.write import Approve, FindAnswers, check_collisions, finish, slug

_LOOKED_AT = 4096
"""So many digests at once are looked at for keys that repeat."""


def join_parts(
    stage: Stage,
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
        As `frameenrich.write.write_job` takes them.

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
    job_id = f"{slug(plan.spec.name)}-{job_hash.hexdigest(plan.spec, nonce)[:16]}"
    store = Store(stage.url)
    if not store.has(job_id):
        check_collisions(pd.DataFrame(columns=list(columns)), plan)
        asked = np.concatenate([part.asked for part in written])
        asked.sort()
        answers = find_answers(asked) if find_answers else None
        with store.draft() as draft:
            joined = _Joined(stage, draft, answers, repeated(asked))
            _join(joined, written)
            finish(draft, job_id, joined, answers)
            if approve is not None:
                sent = range(joined.first_shard, joined.shards)
                approve(draft.lines(map(requests_name, sent)))
            draft.commit(job_id)
    return store.job(job_id)


def _check_any(written: Sequence[Part]) -> None:
    if not written:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    if not any(part.requests for part in written):
        raise InputError(
            f"All {sum(part.rows for part in written)} rows would be skipped: each would print a "
            "null.",
            "Check the columns that the template uses, or pass on_null='empty'.",
        )


def _check_keys(stage: Stage, written: Sequence[Part]) -> None:
    """Refuse a key that names rows of two parts; within a part that was done."""
    ordered = np.concatenate([part.keys for part in written])
    ordered.sort()
    suspect = repeated(ordered)
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
    stage: Stage, written: Sequence[Part], suspect: Halves
) -> tuple[str, int, int] | None:
    """A key that stands in two parts, and in which; digests alone may agree by chance."""
    seen: dict[str, int] = {}
    for part in written:
        rows = np.flatnonzero(contains(suspect, part.keys))
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

    stage: Stage
    draft: Draft
    answers: Answers | None
    repeats: Halves
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
        rows = np.flatnonzero(contains(self._watched, column_halves(lines["request_hash"])) & asks)
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
                self.draft.adopt(requests_name(number), path)
                continue
            with Store(self.stage.url).open(path) as lines:
                for custom_id, line in request_ids(lines):
                    if custom_id not in out.homes:
                        self.draft.file(requests_name(number)).write(line)
                    elif custom_id in out.answered:
                        self.draft.file(requests_name(0)).write(line)
            self.draft.close_file(requests_name(number))


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
