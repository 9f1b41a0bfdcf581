"""Join written parts to one job, without the requests that have answers. Sends nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from frameenrich.identity import older
from frameenrich.identity.dedupe import (
    JobHash,
    ShortHashes,
    duplicates,
)
from frameenrich.identity.hash_table import KnownRequests
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
from frameenrich.prepare.refile import Refiling, Reused
from frameenrich.prepare.writer import Part, ShardFiles
from frameenrich.rendering.caching import unmarked
from frameenrich.store.draft import Draft
from frameenrich.store.folder import PARTS, JobFolder, JobPath
from frameenrich.store.shard import shard_name
from frameenrich.store.sidecar import ROWS_PER_GROUP
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
        running: KnownRequests | None = None,
    ) -> None:
        """Write the intents and the reused answers, which completes the draft.

        `running` are requests that another job has sent and that have no answer yet: they wait in
        shards of their own.
        """
        counts = dict(enumerate(self.parts[0].requests))
        repeats = duplicates(self.hashes)
        waits: Mapping[int, Collection[str]] = {}
        # Repeats, and requests that are answered or running elsewhere, are taken out of the written
        # files: only once all is written are they known, and rendering twice would cost more.
        running = running or KnownRequests.of([])
        if self.stage is not None or answers is not None or len(repeats) or len(running.hashes):
            counts, waits = self._refile(own_id, answers, repeats, running)
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
        running: KnownRequests,
    ) -> tuple[dict[int, int], Mapping[int, Collection[str]]]:
        """Join the parts; return the requests of each shard, and the jobs that some wait for."""
        known = (answers.requests if answers is not None else KnownRequests.of([])).hashes
        # Shard 0 is that of reused answers, if there are any; it is never sent.
        files = ShardFiles(self.draft, self.limits, first=0 if answers is None else 1)
        joined = Refiling(files, known, running, repeats, share=self.stage is not None)
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
        # Half a hash found the answers, the whole one chose among them: perhaps none.
        if answers is not None and len(joined.reused):
            self._write_reused(own_id, answers, joined.reused)
        return dict(enumerate(files.counts, files.first)), files.waits

    def _join(
        self, joined: Refiling, find: Callable[[int], JobPath], more: dict[bytes, bytes]
    ) -> None:
        """File each part, and write its rows of the sidecar."""
        folders = [find(part.number).open() for part in self.parts]
        schemas = [folder.facts.schema for folder in folders]
        schema = common_schema(schemas)
        metadata = {**schemas[0].metadata, **more}
        with self.draft.sidecar_writer(schema.with_metadata(metadata)) as writer:
            for part, folder in zip(self.parts, folders, strict=True):
                for rows in joined.take(part, folder):
                    own = cast_keys(rows, schema).cast(schema)
                    writer.write_table(own, row_group_size=ROWS_PER_GROUP)

    def _write_reused(self, own_id: str, answers: Answers, reused: Reused) -> None:
        """Write the shard of requests that have answers: complete, and never sent."""
        stem, total = f"round-0/{shard_name(0)}", len(reused)
        for line in answers.lines(*reused.whole()):
            self.draft.file(f"{stem}.responses.jsonl").write(line + b"\n")
        proof = self.draft.prove(f"{stem}.responses.jsonl")
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
