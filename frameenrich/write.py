"""From a frame and a plan to a job folder: render, hash, cut, write. Nothing is sent."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import xxhash

from frameenrich.errors import (
    ColumnCollisionError,
    FrameEnrichError,
    ImageError,
    InputError,
    NullValueError,
)
from frameenrich.images import NO_IMAGES, ImageCells, RowImages, image_cells
from frameenrich.keys import check_keys, custom_ids, key_names, key_texts, read_keys, show_key
from frameenrich.merge import flat_columns, output_columns
from frameenrich.model import Batch, BatchStatus, JobSpec, Limits
from frameenrich.plan import Plan, prompt_of
from frameenrich.render import Rendered
from frameenrich.shard import HASH_BYTES, RequestWriter, ShardCutter, input_hash, request_body
from frameenrich.store import Draft, JobFolder, Store, shard_name

SKIPPED = -1
"""Shard number of a row that was left out by the null policy."""

_REUSED = -2
_HASH_MASK = (1 << 128) - 1


def check_frame(frame: pd.DataFrame, plan: Plan) -> pa.Table:
    """Check a frame against a plan and read its keys.

    Raises
    ------
    InputError
        It is empty, its keys repeat or are null, or the template needs a column it lacks.
    """
    if len(frame) == 0:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    plan.prompt.columns_used(list(frame.columns))
    image_cells(frame, plan.spec)
    keys = read_keys(frame, plan.spec.key)
    check_keys(keys, key_names(frame, plan.spec.key))
    return keys


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


class _JobHash:
    """Names a job by what it sends; the order of the rows does not count."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, key: str, hashes: bytes) -> None:
        row = xxhash.xxh3_128_intdigest(key.encode("utf-8", "surrogatepass") + b"\0" + hashes)
        self._sum = (self._sum + row) & _HASH_MASK

    def hexdigest(self, spec: JobSpec, nonce: str) -> str:
        what = replace(spec, max_enqueued_tokens=None).to_json()  # pace is not identity
        start = f"{what}\n{nonce}".encode("utf-8", "surrogatepass")
        return xxhash.xxh3_128_hexdigest(start + self._sum.to_bytes(16, "big"))


class Answers(Protocol):
    """Requests that need not be sent: their answers are at hand (see `frameenrich.reuse`)."""

    @property
    def origins(self) -> Mapping[bytes, object]:
        """The request hashes."""

    @property
    def jobs(self) -> tuple[str, ...]:
        """Which jobs they come from."""

    def lines(self, ids: Mapping[bytes, str]) -> Iterator[bytes]:
        """Response lines for some request hashes, each under the custom_id given."""


FindAnswers = Callable[[pa.Array], Answers | None]


@dataclass
class _Written:
    """What the rows became, gathered while they are written."""

    ids: list[str | None] = field(default_factory=list)
    request_hashes: bytearray = field(default_factory=bytearray)
    input_hashes: bytearray = field(default_factory=bytearray)
    shards: list[int] = field(default_factory=list)
    reused: dict[bytes, str] = field(default_factory=dict)

    def add(self, custom_id: str | None, request_hash: bytes, shown: bytes, shard: int) -> None:
        self.ids.append(custom_id)
        self.request_hashes += request_hash
        self.input_hashes += shown
        self.shards.append(shard)


def write_job(
    frame: pd.DataFrame,
    plan: Plan,
    store: Store,
    limits: Limits,
    *,
    nonce: str = "",
    find_answers: FindAnswers | None = None,
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
    """
    keys = check_frame(frame, plan)
    with store.draft() as draft, _rows_named(keys):
        written, job_hash = _write_requests(frame, keys, plan, draft, limits)
        if all(number == SKIPPED for number in written.shards):
            raise InputError(
                f"All {len(frame)} rows would be skipped: each would print a null.",
                "Check the columns that the template uses, or pass on_null='empty'.",
            )
        job_id = f"{_slug(plan.spec.name)}-{job_hash.hexdigest(plan.spec, nonce)[:16]}"
        if not store.has(job_id):
            check_collisions(frame, plan)
            answers = find_answers(hash_column(written.request_hashes)) if find_answers else None
            if answers is not None:
                draft.clear()
                written, _ = _write_requests(frame, keys, plan, draft, limits, answers)
            _finish(
                draft, job_id, keys, written, plan.spec, key_names(frame, plan.spec.key), answers
            )
            draft.commit(job_id)
    return store.job(job_id)


def _write_requests(
    frame: pd.DataFrame,
    keys: pa.Table,
    plan: Plan,
    draft: Draft,
    limits: Limits,
    answers: Answers | None = None,
) -> tuple[_Written, _JobHash]:
    writer, cutter = RequestWriter(plan.spec), ShardCutter(limits)
    names: list[str] = custom_ids(keys).to_pylist()
    texts: list[str] = key_texts(keys).to_pylist()
    written, job_hash = _Written(), _JobHash()
    sent: dict[bytes, tuple[str, int]] = {}
    for position, (rendered, images) in enumerate(_rendered(frame, plan)):
        if rendered is None or images is None:
            written.add(None, bytes(HASH_BYTES), bytes(HASH_BYTES), SKIPPED)
            job_hash.add(texts[position], b"")
            continue
        body = writer.body(rendered, images.urls)
        shown = input_hash((*rendered, *images.digests))
        request_hash = writer.request_hash(body)
        if request_hash not in sent:
            line, number = writer.line(names[position], body), _REUSED
            if answers is not None and request_hash in answers.origins:
                written.reused[request_hash] = names[position]
            else:
                number = cutter.place(len(line), position)
            if number > 0:  # one shard's file at a time is open, however many there are
                draft.close_file(_requests_name(number - 1))
            draft.file(_requests_name(number)).write(line)
            sent[request_hash] = (names[position], number)
        written.add(sent[request_hash][0], request_hash, shown, sent[request_hash][1])
        job_hash.add(texts[position], request_hash + shown)
    return written, job_hash


def _requests_name(number: int) -> str:
    stem = "reused" if number == _REUSED else shard_name(number)
    return f"round-0/{stem}.requests.jsonl"


def _finish(
    draft: Draft,
    job_id: str,
    keys: pa.Table,
    written: _Written,
    spec: JobSpec,
    names: Sequence[str],
    answers: Answers | None,
) -> None:
    """Complete a draft: intents, what is reused, the sidecar."""
    count = max(written.shards) + 1 if max(written.shards) > SKIPPED else 0
    _write_intents(draft, job_id, 0, count, "round-0/")
    if answers is not None and written.reused:
        _write_reused(draft, job_id, count, written, answers)
    draft.write_sidecar(_sidecar(keys, written, spec, names))


def _write_reused(
    draft: Draft, job_id: str, number: int, written: _Written, answers: Answers
) -> None:
    """The shard of requests that are answered already: complete, and never sent."""
    written.shards = [number if shard == _REUSED else shard for shard in written.shards]
    stem, total = f"round-0/{shard_name(number)}", len(written.reused)
    draft.rename(_requests_name(_REUSED), f"{stem}.requests.jsonl")
    for line in answers.lines(written.reused):
        draft.file(f"{stem}.responses.jsonl").write(line + b"\n")
    batch = Batch(
        tag(job_id, 0, number),
        status=BatchStatus.COMPLETED,
        total=total,
        completed=total,
        fetched=True,
        reused_from=answers.jobs,
    )
    draft.write(f"{stem}.batch.json", batch.to_json().encode())


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "job"


def _rendered(
    frame: pd.DataFrame, plan: Plan
) -> Iterator[tuple[Rendered | None, RowImages | None]]:
    """Each row's texts and images; None for what the null policy leaves out."""
    cells = image_cells(frame, plan.spec)
    rows = itertools.chain.from_iterable(plan.prompt.render(frame))
    if cells is None:
        yield from zip(rows, itertools.repeat(NO_IMAGES))
        return
    for position, rendered in enumerate(rows):
        yield rendered, None if rendered is None else cells.images(position)


@contextlib.contextmanager
def _rows_named(keys: pa.Table) -> Iterator[None]:
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


def hash_column(hashes: bytes | bytearray) -> pa.Array:
    """Concatenated 16-byte hashes as an Arrow column."""
    count = len(hashes) // HASH_BYTES
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(HASH_BYTES), count, [None, pa.py_buffer(bytes(hashes))]
    )


def _sidecar(keys: pa.Table, written: _Written, spec: JobSpec, names: Sequence[str]) -> pa.Table:
    table = keys
    for name, column in (
        ("custom_id", pa.array(written.ids, pa.string())),
        ("request_hash", hash_column(written.request_hashes)),
        ("input_hash", hash_column(written.input_hashes)),
        ("shard", pa.array(np.asarray(written.shards, dtype="int32"))),
    ):
        table = table.append_column(name, column)
    return table.replace_schema_metadata(
        {
            "frameenrich.spec": spec.to_json(),
            "frameenrich.created_at": repr(time.time()),
            "frameenrich.key_names": "\x1f".join(names),
            "frameenrich.version": str(spec.version),
        }
    )


def tag(job_id: str, round_: int, number: int, attempt: int = 0) -> str:
    """What a batch is called at the provider.

    Examples
    --------
    >>> tag("labels-9a41", 1, 3)
    'labels-9a41-r1-s00003-a0'
    """
    return f"{job_id}-r{round_}-s{number:05d}-a{attempt}"


def _write_intents(draft: Draft, job_id: str, round_: int, shards: int, folder: str) -> None:
    for number in range(shards):
        intent = Batch(tag(job_id, round_, number))
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


def write_round(folder: JobFolder, round_: int, requests: Iterable[Again], limits: Limits) -> bool:
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
        _write_intents(draft, folder.id, round_, rows[-1]["shard"] + 1, "")
        draft.write_sidecar(pa.Table.from_pylist(rows, _ROUND))
        return draft.commit(f"{folder.id}/round-{round_}")


def input_hashes(frame: pd.DataFrame, spec: JobSpec) -> pa.Array:
    """The input hash of each row of a frame under a job's templates; null where none."""
    cells = image_cells(frame, spec)
    hashes: list[bytes | None] = []
    for chunk in prompt_of(spec).render(frame, lenient=True):
        if cells is None:
            hashes += [None if rendered is None else input_hash(rendered) for rendered in chunk]
            continue
        for rendered in chunk:
            hashes.append(_hash_with_images(rendered, cells, len(hashes)))
    return pa.array(hashes, pa.binary(HASH_BYTES))


def _hash_with_images(rendered: Rendered | None, cells: ImageCells, position: int) -> bytes | None:
    """A row's input hash; None where its text or its images cannot be had any more."""
    try:
        digests = None if rendered is None else cells.digests(position)
    except (ImageError, NullValueError):
        return None
    if rendered is None or digests is None:
        return None
    return input_hash((*rendered, *digests))


def preview_bodies(frame: pd.DataFrame, plan: Plan, n: int) -> list[tuple[str, dict[str, Any]]]:
    """The first `n` requests as (key, body), with nothing written or sent."""
    keys = check_frame(frame, plan)
    shown = []
    with _rows_named(keys):
        for position, (rendered, images) in enumerate(_rendered(frame.iloc[:n], plan)):
            if rendered is not None and images is not None:
                body = request_body(plan.spec, rendered, images.urls)
                shown.append((show_key(keys, position), body))
    return shown
