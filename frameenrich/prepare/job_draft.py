"""Join written parts to one job, without the requests that have answers. Sends nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frameenrich.identity import older
from frameenrich.identity.dedupe import (
    JobHash,
    ShortHashes,
    duplicates,
    is_in,
    short_hash_column,
    short_hashes,
)
from frameenrich.identity.keys import cast_keys, common_schema, key_digests, sidecar_keys
from frameenrich.jsonl import body_of, request_ids
from frameenrich.model import Batch, BatchStatus, JobSpec, Limits, Stage
from frameenrich.prepare.job_files import (
    Answers,
    batch_tag,
    job_id,
    older_job_id,
    requests_file,
    write_intents,
)
from frameenrich.prepare.writer import Part, ShardFiles
from frameenrich.rendering.caching import unmarked
from frameenrich.store.draft import Draft
from frameenrich.store.folder import PARTS, JobFolder, JobPath
from frameenrich.store.shard import shard_name
from frameenrich.store.sidecar import ROWS_PER_GROUP, SKIPPED
from frameenrich.store.store import Store

_SKIPPED_ROW = bytes(older.HASH_BYTES)


@dataclass
class JobDraft:
    """Hold a job whose files are written, until it is committed.

    Parameters
    ----------
    draft : Draft
        Its files; without a `stage` they are those of its only part.
    store, spec, limits
        Where it goes, what it sends, and what one batch file may hold.
    parts : sequence of Part
        The written parts, in the order of the rows.
    columns : sequence of str
        The frame's columns: an answer must not go to one of them.
    stage : callable, optional
        Finds the folder of one of several parts.
    """

    draft: Draft
    store: Store
    spec: JobSpec
    limits: Limits
    parts: Sequence[Part]
    columns: Sequence[str] = ()
    stage: Callable[[int], JobPath] | None = None

    def __post_init__(self) -> None:
        self._shards: Sequence[int] = range(len(self.parts[0].requests))
        self._id = ""

    @cached_property
    def hashes(self) -> ShortHashes:
        """The short hashes of all requests, sorted."""
        if len(self.parts) == 1:
            return self.parts[0].hashes  # sorted when it was written
        return np.sort(np.concatenate([part.hashes for part in self.parts]))

    @property
    def rows(self) -> int:
        """Return how many rows the frame has."""
        return sum(part.rows for part in self.parts)

    def id(self, nonce: str = "") -> str:
        """Return the id that the job will have."""
        # The same as the whole frame's: however rows are cut into parts, the job is the same.
        job_hash = JobHash()
        for part in self.parts:
            job_hash.merge(part.job_hash)
        return job_id(self.spec, job_hash, nonce)

    def older_id(self) -> str:
        """Return the id that an earlier version gave this job; reads all written requests."""
        # Only to find a job of a version 2 store; for reuse its requests are read and hashed anew.
        job_hash = older.OlderJobHash()
        for part in self.parts:
            rows = self._folder_of(part).sidecar()
            hashes = self._older_hashes(part)
            # Rows without a request counted in the older hash, too, as zeros.
            own = (
                hashes.get(custom_id, _SKIPPED_ROW) for custom_id in rows["custom_id"].to_pylist()
            )
            job_hash.add(key_digests(sidecar_keys(rows)), b"".join(own))
        return older_job_id(replace(self.spec, version=2), job_hash)

    def _older_hashes(self, part: Part) -> dict[str, bytes]:
        folder, found = self._folder_of(part), dict[str, bytes]()
        for number in range(len(part.requests)):
            with folder.store.open(f"{folder.path}/{requests_file(number)}") as lines:
                for custom_id, line in request_ids(lines):
                    body = unmarked(self.spec, body_of(line))
                    found[custom_id] = older.request_hash(self.spec.url, body)
        return found

    def _folder_of(self, part: Part) -> JobPath:
        if self.stage is not None:
            return self.stage(part.number)
        path = Path(self.draft.finish())
        return JobPath(Store(path.parent), path.name)

    def written_lines(self) -> Iterator[bytes]:
        """Read the requests of all parts, before the draft is complete."""
        for part in self.parts:
            folder = self._folder_of(part)
            for number in range(len(part.requests)):
                with folder.store.open(f"{folder.path}/{requests_file(number)}") as lines:
                    yield from lines

    def complete(
        self,
        own_id: str,
        answers: Answers | None = None,
        running: Mapping[bytes, str] | None = None,
    ) -> None:
        """Write the intents and the reused answers, which completes the draft.

        `running` maps the hashes of requests that another job has sent and that have no answer yet
        to that job's id: they wait in shards of their own.
        """
        counts = dict(enumerate(self.parts[0].requests))
        repeats = duplicates(self.hashes)
        waits: Mapping[int, Collection[str]] = {}
        # Repeats, and requests that are answered or running elsewhere, are taken out of the written
        # files: only once all is written are they known, and rendering twice would cost more.
        if self.stage is not None or answers is not None or len(repeats) or running:
            counts, waits = self._refile(own_id, answers, repeats, running or {})
        self._id, self._shards = own_id, sorted(counts.keys() - waits.keys())
        write_intents(self.draft, own_id, 0, counts, "round-0/", waits=waits)

    def request_lines(self) -> Iterator[bytes]:
        """Read the requests to be sent, once the draft is complete."""
        return self.draft.lines(map(requests_file, self._shards))

    def commit(self) -> JobFolder:
        """Make the draft the job, or return the same job if another process made it meanwhile."""
        made = self.draft.commit(self._id)
        return replace(JobPath(self.store, self._id).open(), resumed=not made)

    def _refile(
        self,
        own_id: str,
        answers: Answers | None,
        repeats: ShortHashes,
        running: Mapping[bytes, str],
    ) -> tuple[dict[int, int], Mapping[int, Collection[str]]]:
        """Join the parts; return the requests of each shard, and the jobs that some wait for."""
        known = frozenset(answers.origins) if answers is not None else frozenset[bytes]()
        # Shard 0 is that of reused answers, if there are any; it is never sent.
        files = ShardFiles(self.draft, self.limits, first=0 if answers is None else 1)
        # Eight bytes a request suffice to pick out the few whose whole hash has to be compared.
        elsewhere = short_hashes(b"".join([*known, *running]))
        watched = np.union1d(repeats, elsewhere)
        joined = _Joined(files, known, running, watched, share=self.stage is not None)
        if self.stage is not None:
            rows = {part.number: part.rows for part in self.parts}
            # A part without rows is written nowhere and still has a number.
            numbers = json.dumps([rows.get(number, 0) for number in range(max(rows) + 1)])
            self._join(joined, self.stage, {PARTS.encode(): numbers.encode()})
        else:
            # New files get the names of old ones, which are read while those are written.
            with self.draft.set_aside("aside") as folder:
                aside = JobPath(Store(Path(folder).parent), "aside")
                self._join(joined, lambda _: aside, {})
        if answers is not None:
            self._write_reused(own_id, answers, joined.reused)
        return dict(enumerate(files.counts, files.first)), files.waits

    def _join(
        self, joined: _Joined, find: Callable[[int], JobPath], more: dict[bytes, bytes]
    ) -> None:
        """File each part, and write its rows of the sidecar."""
        folders = [find(part.number).open() for part in self.parts]
        schemas = [folder.facts.schema for folder in folders]
        schema = common_schema(schemas)
        metadata = {**schemas[0].metadata, **more}
        with self.draft.sidecar_writer(schema.with_metadata(metadata)) as writer:
            for part, folder in zip(self.parts, folders, strict=True):
                rows = cast_keys(joined.take(part, folder), schema)
                writer.write_table(rows.cast(schema), row_group_size=ROWS_PER_GROUP)

    def _write_reused(self, own_id: str, answers: Answers, reused: dict[bytes, str]) -> None:
        """Write the shard of requests that have answers: complete, and never sent."""
        stem, total = f"round-0/{shard_name(0)}", len(reused)
        for line in answers.lines(reused):
            self.draft.file(f"{stem}.responses.jsonl").write(line + b"\n")
        proof = self.draft.prove(f"{stem}.responses.jsonl") if total else None
        batch = Batch(
            batch_tag(own_id, 0, 0),
            status=BatchStatus.COMPLETED,
            total=total,
            completed=total,
            stage=Stage.FETCHED,
            reused_from=answers.jobs,
            requests=total,
            responses=proof,
        )
        self.draft.write(f"{stem}.batch.json", batch.to_json().encode())


# A provider limits how many batches run at once, and each is waited for. But whoever collects a
# part reads all of the files that it shares, so a part that is large enough has its own.
_SHARING = 4
"""Parts share a file where so many of them fit into one."""


@dataclass
class _Joined:
    """File the requests of parts as one job's; a request stays with the first row that needs it.

    ``known`` are the hashes of answered requests, ``running`` those that another job has sent;
    ``watched`` are the short hashes of both, and of requests that occur more than once.
    """

    files: ShardFiles
    known: frozenset[bytes]
    running: Mapping[bytes, str]
    watched: ShortHashes
    share: bool = False
    """Whether small shards of several parts go into one file."""
    reused: dict[bytes, str] = field(default_factory=dict)
    _first: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    """The custom_id and the shard of each watched request so far."""

    def take(self, part: Part, folder: JobFolder) -> pa.Table:
        """File a part's requests; return its sidecar with the job's custom_ids and shards."""
        rows = folder.sidecar()
        ids = rows["custom_id"].combine_chunks().dictionary_encode()
        # The dictionary numbers requests by their first rows, which is their order in the files.
        request = ids.indices.fill_null(SKIPPED).to_numpy()
        first_rows = np.unique(request, return_index=True)[1]
        # A skipped row is -1, which sorts first: drop it, if there is one.
        first_rows = first_rows[len(first_rows) - len(ids.dictionary) :]
        names = ids.dictionary.to_pylist()
        home = rows["shard"].to_numpy()[first_rows]
        hashes = rows["request_hash"].take(pa.array(first_rows))
        seen = np.flatnonzero(is_in(self.watched, short_hash_column(hashes)))
        own = dict(zip(seen.tolist(), hashes.take(pa.array(seen)).to_pylist(), strict=True))
        answered, repeated = self._taken_out(names, own)
        waiting = {
            i: self.running[own_hash]
            for i, own_hash in own.items()
            if own_hash in self.running and i not in answered and i not in repeated
        }
        number = self._file(part, folder, home, answered, repeated, waiting)
        for i, own_hash in own.items():
            names[i], number[i] = self._first.setdefault(own_hash, (names[i], int(number[i])))
        if own:
            ids = pa.DictionaryArray.from_arrays(ids.indices, pa.array(names, pa.string()))
        # Index -1, a skipped row, takes the last element.
        shards = np.append(number, SKIPPED).astype(np.int32)[request]
        index = rows.column_names.index
        rows = rows.set_column(index("custom_id"), "custom_id", ids.cast(pa.string()))
        return rows.set_column(index("shard"), "shard", pa.array(shards))

    def _taken_out(self, names: Sequence[str], own: dict[int, bytes]) -> tuple[set[int], set[int]]:
        """Return which requests of a part are answered, and which an earlier row already has."""
        answered, repeated, here = set[int](), set[int](), set[bytes]()
        for i, own_hash in own.items():
            if own_hash in self._first or own_hash in here:
                repeated.add(i)
            elif own_hash in self.known:
                answered.add(i)
                self.reused[own_hash] = names[i]
            here.add(own_hash)
        return answered, repeated

    def _file(
        self,
        part: Part,
        folder: JobFolder,
        home: npt.NDArray[np.int32],
        answered: set[int],
        repeated: set[int],
        waiting: Mapping[int, str],
    ) -> npt.NDArray[np.int64]:
        """File what is left of a part's shards; return the job's shard of each request.

        A shard that loses no request is moved unread, unless it is so small that it shares a file
        with other parts'. After the first that does, the model's later shards are cut again, or
        every batch could be sent part-filled.
        """
        number = np.zeros(len(home), np.int64)
        touched = set(home[[*answered, *repeated, *waiting]].tolist())
        files, cut = self.files, set[str]()
        for shard, model in enumerate(part.models):
            path = f"{folder.path}/{requests_file(shard)}"
            members = np.flatnonzero(home == shard)
            kind: Literal["own", "shared"] = "own"
            if self.share and self._is_small(folder, path, len(members)):
                kind = "shared"
            elif shard not in touched and model not in cut:
                number[members] = files.new(model, len(members))
                files.draft.take_over(requests_file(int(number[members[0]])), path)
                continue
            else:
                cut.add(model)
            own = files.of(model, kind)
            with folder.store.open(path) as lines:
                for i, (_, line) in zip(members.tolist(), request_ids(lines), strict=True):
                    if i in answered:
                        files.draft.file(requests_file(0)).write(line)
                    elif i in waiting:
                        number[i] = files.write_waiting(model, i, line, waiting[i])
                    elif i not in repeated:
                        index = own.cutter.assign(len(line), i)
                        number[i] = files.write(model, index, i, line, own=own)
        files.end_part()
        return number

    def _is_small(self, folder: JobFolder, path: str, requests: int) -> bool:
        """Tell whether a part's shard goes into a file with others'."""
        limits = self.files.limits
        # The batch of one that goes ahead of a job stays alone, or nothing would go ahead.
        if limits.first_requests is not None and not self.files.counts:
            return False
        # The count first: the size of a file may be a request to a bucket.
        return (
            requests * _SHARING <= limits.max_requests
            and folder.store.fs.size(path) * _SHARING <= limits.max_bytes
        )
