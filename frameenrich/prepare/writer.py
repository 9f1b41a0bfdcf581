"""Requests to the files of a draft: which are sent, in which shard, and the sidecar beside them."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import pandas as pd
import pyarrow as pa

from frameenrich.answers.column_names import check_collisions
from frameenrich.errors import InputError, RequestTooLargeError
from frameenrich.identity.dedupe import Deduplicator, JobHash, ShortHashes, duplicates, split_hashes
from frameenrich.identity.fingerprint import fingerprint
from frameenrich.identity.keys import BLOCK_ROWS, custom_ids, key_names, show_key
from frameenrich.model import JobSpec, Limits
from frameenrich.prepare.check_frame import check_frame, errors_by_row_key
from frameenrich.prepare.job_files import Answers, job_name_slug, requests_file, write_batch_files
from frameenrich.prepare.options import Plan
from frameenrich.rendering.body import LineWriter, RequestBodies
from frameenrich.rendering.encode_rows import EncodedRows, row_requests
from frameenrich.store.draft import Draft
from frameenrich.store.folder import JobFolder, job_folder
from frameenrich.store.sidecar import SidecarRows, SidecarWriter, sidecar_metadata
from frameenrich.store.store import Store


@dataclass
class _CustomIds:
    """The names of one block of rows."""

    keys: pa.Table
    start: int = -1

    def at(self, positions: Sequence[int]) -> list[bytes]:
        """The custom_ids of rows that are in one block."""
        self._turn_to(positions[0])
        start = self.start
        if isinstance(positions, range):
            return self.ids[positions.start - start : positions.stop - start]
        return [self.ids[position - start] for position in positions]

    def _turn_to(self, position: int) -> None:
        start = position - position % BLOCK_ROWS
        if start != self.start:
            self.start, self.ids = start, custom_id_bytes(self.keys.slice(start, BLOCK_ROWS))


def custom_id_bytes(keys: pa.Table) -> list[bytes]:
    """The custom_ids of some rows, as they stand in a line."""
    ids: list[bytes] = custom_ids(keys).cast(pa.binary()).to_pylist()
    return ids


class JobWriter:
    """Takes the requests of a frame in order; afterwards a draft holds their files.

    Parameters
    ----------
    draft : Draft
        Where the files go.
    keys : pyarrow.Table
        Each row's key.
    spec : JobSpec
        The job's.
    key_names : sequence of str
        What a person calls the parts of the key.
    limits : Limits
        Of one batch file.
    first : FirstAsked
        Knows which requests were asked by an earlier row.
    answers : Answers, optional
        Requests in it go to shard 0, which is never sent.
    fingerprint : str, optional
        Of the frame (`frameenrich.identity.fingerprint`).
    """

    def __init__(
        self,
        draft: Draft,
        keys: pa.Table,
        spec: JobSpec,
        key_names: Sequence[str],
        limits: Limits,
        first: Deduplicator,
        answers: Answers | None = None,
        fingerprint: str | None = None,
    ) -> None:
        self._draft = draft
        self._names = _CustomIds(keys)
        self._lines = LineWriter(spec.url)
        self.first_shard = 0 if answers is None else 1
        self._cutter = ShardCutter(limits, self.first_shard)
        self._starts: list[int] = []
        self._counts: list[int] = []
        self._answers = answers
        self.first = first
        self.job_hash = JobHash()
        metadata = sidecar_metadata(spec, key_names, fingerprint)
        self._sidecar = SidecarWriter(draft, keys, metadata, self.job_hash)
        self._rows = 0
        self.reused: dict[bytes, str] = {}
        """The custom_id of each request that has an answer already, by its hash."""

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return self.first_shard + len(self._starts)

    def requests(self, number: int) -> int:
        """How many requests a shard that is to be sent has."""
        return self._counts[number - self.first_shard]

    def add(self, found: EncodedRows) -> None:
        """Take the next rows."""
        start, self._rows = self._rows, self._rows + found.rows
        lines = self._placed(found) if found.positions else SidecarRows.empty(found.rows)
        if 0 < len(found.positions) < found.rows:
            lines = lines.spread(found.rows, [position - start for position in found.positions])
        self._sidecar.add(lines)

    def _placed(self, found: EncodedRows) -> SidecarRows:
        """Write what is new of some requests; gives a line for each."""
        own = self._names.at(found.positions)
        askers = self.first.askers(found.request_hashes, found.positions)
        if askers is found.positions and self._answers is None:
            shards = self._send(found.positions, own, found.bodies)
        else:
            own, shards = self._send_new(found, own, askers)
        return SidecarRows(own, found.request_hashes, found.input_hashes, shards)

    def _send(
        self, positions: Sequence[int], ids: Sequence[bytes], bodies: RequestBodies
    ) -> list[int]:
        """Write some requests; gives the shard of each."""
        if not ids:
            return []
        together = self._lines.together(ids, bodies)
        number = self._cutter.place_together(len(ids), len(together))
        if number is not None:
            self._write(number, positions[0], together, len(ids))
            return [number] * len(ids)
        shards = []
        lines = self._lines.lines(ids, bodies)
        for position, line in zip(positions, lines, strict=True):
            shards.append(self._cutter.place(len(line), position))
            self._write(shards[-1], position, line, 1)
        return shards

    def _write(self, number: int, position: int, data: bytes, requests: int) -> None:
        if number == self.shards:
            if self._starts:  # one shard's file at a time is open, however many there are
                self._draft.close_file(requests_file(number - 1))
            self._starts.append(position)
            self._counts.append(0)
        self._counts[-1] += requests
        self._draft.file(requests_file(number)).write(data)

    def _send_new(
        self, found: EncodedRows, own: list[bytes], askers: Sequence[int]
    ) -> tuple[list[bytes], list[int]]:
        """Write the requests that no earlier row asked; gives each row's custom_id and shard."""
        known = self._answers.origins if self._answers is not None else {}
        hashes = split_hashes(found.request_hashes)
        rows = list(zip(found.positions, askers, hashes, strict=True))
        new = [i for i, (p, asker, h) in enumerate(rows) if p == asker and h not in known]
        ids, positions = [own[i] for i in new], [found.positions[i] for i in new]
        sent = iter(self._send(positions, ids, found.bodies.take(new)))
        shards = []
        for i, (position, asker, request_hash) in enumerate(rows):
            if request_hash in known:
                shards.append(0)
                if position == asker:
                    self._reuse(request_hash, own[i], found.bodies.take([i]))
            else:
                shards.append(next(sent) if position == asker else self._shard_of(asker))
        return self._named_after(askers, found.positions, own), shards

    def _shard_of(self, position: int) -> int:
        return self.first_shard + bisect_right(self._starts, position) - 1

    def _named_after(
        self, askers: Sequence[int], positions: Sequence[int], own: list[bytes]
    ) -> list[bytes]:
        """The custom_ids of the rows that asked first."""
        others = [i for i, asker in enumerate(askers) if asker != positions[i]]
        if others:
            first = self._names.keys.take(pa.array([askers[i] for i in others]))
            for i, custom_id in zip(others, custom_id_bytes(first), strict=True):
                own[i] = custom_id
        return own

    def _reuse(self, request_hash: bytes, custom_id: bytes, body: RequestBodies) -> None:
        self.reused[request_hash] = custom_id.decode()
        line = self._lines.together([custom_id], body)
        self._draft.file(requests_file(0)).write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sidecar.close()


class ShardCutter:
    """Decides which shard a line goes to, in order, within the limits of one batch file."""

    def __init__(self, limits: Limits, first: int = 0) -> None:
        self._limits = limits
        self._shard = first
        self._requests = 0
        self._bytes = 0

    def cut(self) -> None:
        """Have the next line begin another shard, unless this one is empty."""
        if self._requests:
            self._shard, self._requests, self._bytes = self._shard + 1, 0, 0

    def place(self, line_bytes: int, position: int) -> int:
        """The shard number for a line of so many bytes.

        Raises
        ------
        RequestTooLargeError
            The line alone is larger than a file may be.
        """
        if line_bytes > self._limits.max_bytes:
            raise RequestTooLargeError(
                f"The request of the row at position {position} has {line_bytes:,} bytes; a batch "
                f"file may have {self._limits.max_bytes:,}.",
                "Shorten that row's text, or leave the row out.",
                position=position,
            )
        full = self._requests == self._limits.max_requests
        if full or self._bytes + line_bytes > self._limits.max_bytes:
            self.cut()
        self._requests += 1
        self._bytes += line_bytes
        return self._shard

    def place_together(self, lines: int, all_bytes: int) -> int | None:
        """The shard number for some lines at once; None where they do not all fit in it."""
        if self._requests + lines > self._limits.max_requests:
            return None
        if self._bytes + all_bytes > self._limits.max_bytes:
            return None
        self._requests += lines
        self._bytes += all_bytes
        return self._shard


FindAnswers = Callable[[ShortHashes], Answers | None]


Approve = Callable[[Iterable[bytes]], None]
"""Looks through the request lines that are to be sent, and raises where they may not be."""


def write_job(
    frame: pd.DataFrame,
    plan: Plan,
    store: Store,
    limits: Limits,
    *,
    nonce: str = "",
    find_answers: FindAnswers | None = None,
    approve: Approve | None = None,
) -> JobFolder:
    """Render a frame into a new job folder, or find the one that is there already.

    Nothing is sent. Every row renders before the job exists: an error in the last row leaves
    nothing behind.

    Parameters
    ----------
    frame, plan : DataFrame, Plan
        What to render, and how.
    store : Store
        Where the folder goes.
    limits : Limits
        Of one batch file.
    nonce : str
        Makes the job another one than the same submit without it.
    find_answers : callable, optional
        Looks for requests that are answered already, given the hashes of all.
    approve : callable, optional
        Has the last word on what is to be sent, before the job exists.
    """
    keys = check_frame(frame, plan)
    with store.draft() as draft, errors_by_row_key(keys):
        page = _Page(frame, plan, keys, draft, limits)
        spool = page.spooled(Deduplicator(len(frame)))
        if spool.shards == 0:
            raise InputError(
                f"All {len(frame)} rows would be skipped: each would print a null.",
                "Check the columns that the template uses, or pass on_null='empty'.",
            )
        job_id = (
            f"{job_name_slug(plan.spec.name)}-{spool.job_hash.hexdigest(plan.spec, nonce)[:16]}"
        )
        if not store.has(job_id):
            check_collisions(frame, plan.spec, plan.output)
            asked = spool.first.sent()
            answers, missed = find_answers(asked) if find_answers else None, duplicates(asked)
            if answers is not None or len(missed):
                draft.clear()
                spool = page.spooled(Deduplicator(len(frame), missed), answers)
            write_batch_files(draft, job_id, spool, answers)
            if approve is not None:
                sent = range(spool.first_shard, spool.shards)
                approve(draft.lines(map(requests_file, sent)))
            draft.commit(job_id)
    return job_folder(store, job_id)


@dataclass(frozen=True)
class _Page:
    """What is written, and where."""

    frame: pd.DataFrame
    plan: Plan
    keys: pa.Table
    draft: Draft
    limits: Limits

    def spooled(self, first: Deduplicator, answers: Answers | None = None) -> JobWriter:
        """Render every row into the draft."""
        spec = self.plan.spec
        names, own = key_names(self.frame, spec.key), self._fingerprint
        with JobWriter(
            self.draft, self.keys, spec, names, self.limits, first, answers, own
        ) as spool:
            for found in row_requests(self.frame, self.plan.spec, self.plan.prompt):
                spool.add(found)
        return spool

    @cached_property
    def _fingerprint(self) -> str | None:
        if self.plan.spec.image:  # a path says nothing of the picture
            return None
        return fingerprint(self.frame, self.plan.prompt.columns_used(list(self.frame.columns)))


def preview_bodies(frame: pd.DataFrame, plan: Plan, n: int) -> list[tuple[str, dict[str, Any]]]:
    """The first `n` requests as (key, body), with nothing written or sent."""
    keys = check_frame(frame, plan)
    shown = []
    with errors_by_row_key(keys):
        for found in row_requests(frame.iloc[:n], plan.spec, plan.prompt):
            for position, body in zip(found.positions, found.bodies, strict=True):
                shown.append((show_key(keys, position), json.loads(body)))
    return shown
