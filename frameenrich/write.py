"""From a frame and a plan to a job folder: render, hash, cut, write. Nothing is sent."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa

from frameenrich.draft import Draft
from frameenrich.errors import ColumnCollisionError, FrameEnrichError, InputError
from frameenrich.fingerprint import fingerprint
from frameenrich.hashes import HASH_BYTES
from frameenrich.images import image_cells
from frameenrich.keys import check_keys, key_names, read_keys, show_key
from frameenrich.merge import flat_columns, output_columns, usage_columns
from frameenrich.model import Batch, BatchStatus, JobSpec, Limits
from frameenrich.output import Output
from frameenrich.plan import Plan
from frameenrich.repeats import FirstAsked, Halves, repeated
from frameenrich.rows import row_requests
from frameenrich.shard import ShardCutter
from frameenrich.spool import Answers, Spool, requests_name
from frameenrich.store import JobFolder, Store, shard_name


def check_frame(frame: pd.DataFrame, plan: Plan) -> pa.Table:
    """Check a frame against a plan and read its keys.

    Raises
    ------
    InputError
        It is empty, its keys repeat or are null, the template needs a column it lacks, or an
        answer would go to a column that is called as the key.
    """
    if len(frame) == 0:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    plan.prompt.columns_used(list(frame.columns))
    image_cells(frame, plan.spec)
    keys = read_keys(frame, plan.spec.key)
    names = key_names(frame, plan.spec.key)
    check_keys(keys, names)
    check_key_names(names, plan.spec, plan.output)
    return keys


def check_key_names(names: Sequence[str], spec: JobSpec, output: Output) -> None:
    """Refuse output columns that are called as the key, which `collect` gives beside them.

    Those of ``usage=True`` count: the report shows them.

    Raises
    ------
    ColumnCollisionError
        Names them.
    """
    own = [*output_columns(spec, output), *flat_columns(spec, output), *usage_columns(spec.name)]
    taken = [name for name in own if name in names]
    if taken:
        raise ColumnCollisionError(
            f"The answers would go to a column {taken[0]!r}, which is the name of the key.",
            "Rename the field, or pass prefix= for the fields or another name=.",
            columns=taken,
        )


def check_collisions(frame: pd.DataFrame, plan: Plan) -> None:
    """Refuse output columns that the frame has already.

    Raises
    ------
    ColumnCollisionError
        Names them.
    """
    names = [*output_columns(plan.spec, plan.output), *flat_columns(plan.spec, plan.output)]
    taken = [name for name in names if name in frame.columns]
    if taken:
        raise ColumnCollisionError(
            f"The frame has a column {taken[0]!r} already, which the answers would go to.",
            "Pass another name=, or prefix= for the fields, or drop that column.",
            columns=taken,
        )


FindAnswers = Callable[[Halves], Answers | None]
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
    with store.draft() as draft, rows_named(keys):
        page = _Page(frame, plan, keys, draft, limits)
        spool = page.spooled(FirstAsked(len(frame)))
        if spool.shards == 0:
            raise InputError(
                f"All {len(frame)} rows would be skipped: each would print a null.",
                "Check the columns that the template uses, or pass on_null='empty'.",
            )
        job_id = f"{slug(plan.spec.name)}-{spool.job_hash.hexdigest(plan.spec, nonce)[:16]}"
        if not store.has(job_id):
            check_collisions(frame, plan)
            asked = spool.first.sent()
            answers, missed = find_answers(asked) if find_answers else None, repeated(asked)
            if answers is not None or len(missed):
                draft.clear()
                spool = page.spooled(FirstAsked(len(frame), missed), answers)
            finish(draft, job_id, spool, answers)
            if approve is not None:
                sent = range(spool.first_shard, spool.shards)
                approve(draft.lines(map(requests_name, sent)))
            draft.commit(job_id)
    return store.job(job_id)


@dataclass(frozen=True)
class _Page:
    """What is written, and where."""

    frame: pd.DataFrame
    plan: Plan
    keys: pa.Table
    draft: Draft
    limits: Limits

    def spooled(self, first: FirstAsked, answers: Answers | None = None) -> Spool:
        """Render every row into the draft."""
        spec = self.plan.spec
        names, own = key_names(self.frame, spec.key), self._fingerprint
        with Spool(self.draft, self.keys, spec, names, self.limits, first, answers, own) as spool:
            for found in row_requests(self.frame, self.plan):
                spool.add(found)
        return spool

    @cached_property
    def _fingerprint(self) -> str | None:
        if self.plan.spec.image:  # a path says nothing of the picture
            return None
        return fingerprint(self.frame, self.plan.prompt.columns_used(list(self.frame.columns)))


class Filed(Protocol):
    """Requests that are in a draft's files."""

    @property
    def first_shard(self) -> int:
        """The first shard that is to be sent: 1 where shard 0 is answered already, else 0."""

    @property
    def shards(self) -> int:
        """How many shards there are."""

    @property
    def reused(self) -> Mapping[bytes, str]:
        """The custom_id of each request that has an answer already, by its hash."""

    def requests(self, number: int) -> int:
        """How many requests a shard that is to be sent has."""


def finish(draft: Draft, job_id: str, spool: Filed, answers: Answers | None) -> None:
    """Complete a draft: intents, and what is reused."""
    if answers is not None:
        _write_reused(draft, job_id, spool, answers)
    sent = {number: spool.requests(number) for number in range(spool.first_shard, spool.shards)}
    _write_intents(draft, job_id, 0, sent, "round-0/")


def _write_reused(draft: Draft, job_id: str, spool: Filed, answers: Answers) -> None:
    """The shard of requests that are answered already: complete, and never sent."""
    stem, total = f"round-0/{shard_name(0)}", len(spool.reused)
    for line in answers.lines(spool.reused):
        draft.file(f"{stem}.responses.jsonl").write(line + b"\n")
    batch = Batch(
        tag(job_id, 0, 0),
        status=BatchStatus.COMPLETED,
        total=total,
        completed=total,
        fetched=True,
        reused_from=answers.jobs,
        requests=total,
    )
    draft.write(f"{stem}.batch.json", batch.to_json().encode())


def slug(name: str) -> str:
    """How a job's id begins."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "job"


@contextlib.contextmanager
def rows_named(keys: pa.Table) -> Iterator[None]:
    """Have errors that know a row's position call the row by its key."""
    try:
        yield
    except FrameEnrichError as error:
        position = getattr(error, "position", None)
        if position is not None:
            shown = show_key(keys, position)
            error.problem = error.problem.replace(
                f"the row at position {position}", f"row {shown}"
            ).replace(f"The row at position {position}", f"Row {shown}")
            error.args = (error.problem, error.fix)
        raise


def tag(job_id: str, round_: int, number: int, attempt: int = 0) -> str:
    """What a batch is called at the provider.

    Examples
    --------
    >>> tag("labels-9a41", 1, 3)
    'labels-9a41-r1-s00003-a0'
    """
    return f"{job_id}-r{round_}-s{number:05d}-a{attempt}"


def _write_intents(
    draft: Draft, job_id: str, round_: int, requests: Mapping[int, int], folder: str
) -> None:
    for number, count in requests.items():
        intent = Batch(tag(job_id, round_, number), requests=count)
        draft.write(f"{folder}{shard_name(number)}.batch.json", intent.to_json().encode())


@dataclass(frozen=True, slots=True)
class Again:
    """One request of a later round: whose it is, its line, and why and how it was changed.

    ``answers`` is the row's custom_id in round 0, ``status`` what the row was flagged with.
    """

    answers: str
    custom_id: str
    line: bytes
    request_hash: bytes
    model: str
    status: str
    change: str


_ROUND = pa.schema(
    {
        "answers": pa.string(),
        "custom_id": pa.string(),
        "request_hash": pa.binary(HASH_BYTES),
        "shard": pa.int32(),
        "status": pa.string(),
        "change": pa.string(),
    }
)


def write_round(
    folder: JobFolder,
    round_: int,
    requests: Iterable[Again],
    limits: Limits,
    approve: Approve | None = None,
) -> bool:
    """Write a later round, a request at a time; a file holds requests to one model."""
    cutter, model = ShardCutter(limits), None
    rows: list[dict[str, Any]] = []
    with folder.store.draft() as draft:
        for position, own in enumerate(requests):
            if model is not None and own.model != model:
                cutter.cut()
            model, number = own.model, cutter.place(len(own.line), position)
            if number:
                draft.close_file(f"{shard_name(number - 1)}.requests.jsonl")
            draft.file(f"{shard_name(number)}.requests.jsonl").write(own.line)
            rows.append({name: getattr(own, name, number) for name in _ROUND.names})
        _write_intents(draft, folder.id, round_, Counter(row["shard"] for row in rows), "")
        if approve is not None:
            names = (shard_name(number) for number in range(rows[-1]["shard"] + 1))
            approve(draft.lines(f"{name}.requests.jsonl" for name in names))
        draft.write_sidecar(pa.Table.from_pylist(rows, _ROUND))
        return draft.commit(f"{folder.id}/round-{round_}")


def preview_bodies(frame: pd.DataFrame, plan: Plan, n: int) -> list[tuple[str, dict[str, Any]]]:
    """The first `n` requests as (key, body), with nothing written or sent."""
    keys = check_frame(frame, plan)
    shown = []
    with rows_named(keys):
        for found in row_requests(frame.iloc[:n], plan):
            for position, body in zip(found.positions, found.bodies, strict=True):
                shown.append((show_key(keys, position), json.loads(body)))
    return shown
