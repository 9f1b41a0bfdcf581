"""Write jobs of frames larger than memory: a part at a time, by any number of processes.

A *part* is some consecutive rows of a larger frame: a partition of Dask's, a chunk of a file. Its
parts make a job like any other, with one sidecar, shards, and the id that a `submit` of the whole
frame would give it, so everything that reads jobs reads it, too. A front end does this::

    with open_parts_folder(store, plan.spec, limits) as stage:        # a folder of the store
        parts = [write_part(stage, n, frame) for n, frame in enumerate(frames)]
        with draft_of_parts(stage, parts) as draft:
            ...  # as a whole frame's, see frameenrich.verbs.submit

`write_part` may run in any process that sees the store, any number of times, also at once: a
`PartsFolder` can be pickled and holds no secret. A part's requests and sidecar are in the stage
under names made of its number, whole or not at all. `draft_of_parts` runs once, in the process
that pays. It holds 16 bytes a row, and one part's sidecar at a time. Callers that have options
rather than a plan use `frameenrich.verbs.submit.submit_parts`.

To collect a part: `Job.collect_part(frame, number)`, or on a worker the `Job.collector` that it was
sent. It reads the part's rows of the sidecar, and the shards that those name, so it takes the
memory of a part.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.answers.output import Output
from frameenrich.errors import FrameEnrichError, InputError, RowKeyError, StoreError
from frameenrich.identity.dedupe import ShortHashes, duplicates, is_in
from frameenrich.identity.keys import key_digests, key_texts, show_key, sidecar_keys
from frameenrich.model import JobSpec, Limits
from frameenrich.prepare.check_frame import check_any_request, check_frame
from frameenrich.prepare.job_draft import JobDraft
from frameenrich.prepare.options import Plan
from frameenrich.prepare.whole_frame import render_part
from frameenrich.prepare.writer import Part
from frameenrich.store.folder import JobPath
from frameenrich.store.store import Store

_NUMBERS = "part.json"


@dataclass(frozen=True)
class PartsFolder:
    """The stage of a job's parts: its folder in the store, and the job's spec and limits.

    Parameters
    ----------
    url : str
        The store, as every process that writes parts reaches it.
    folder : str
        The stage's folder in it.
    spec : JobSpec
        The job's spec.
    limits : Limits
        The limits of one batch file.
    """

    url: str
    folder: str
    spec: JobSpec
    limits: Limits

    def part(self, number: int) -> str:
        """Return the folder of a part, in the store."""
        return f"{self.folder}/part-{number:06d}"

    def folder_of(self, number: int) -> JobPath:
        """Return a part's folder, which is laid out as a job's."""
        return JobPath(Store(self.url), self.part(number))


@contextlib.contextmanager
def open_parts_folder(store: Store, spec: JobSpec, limits: Limits) -> Iterator[PartsFolder]:
    """Open a stage for the parts of one job; at the end it is deleted."""
    with store.staging() as folder:
        yield PartsFolder(store.url, folder, spec, limits)


def write_part(
    stage: PartsFolder, number: int, frame: pd.DataFrame, *, called: str | None = None
) -> Part:
    """Render a part into the stage; the same part again changes nothing.

    Parameters
    ----------
    stage : Stage
        The folder that it is written to.
    number : int
        The part's number.
    frame : DataFrame
        The part's rows.
    called : str, optional
        Its name in errors; its number by default.

    Raises
    ------
    InputError
        A row cannot be asked, or the keys do not name the part's rows; the message says which.
    StoreError
        This process does not see the store that the stage is in.
    """
    store = Store(stage.url)
    # A worker on another computer would write to its own disk, and the job lack these rows.
    if store.local and not store.exists(f"{store.root}/{stage.folder}"):
        raise StoreError(
            f"The store {store.root} is not the same folder here as where the job is submitted.",
            "Pass store= a folder that every worker mounts at the same place, or a bucket.",
            path=store.root,
        )
    if len(frame) == 0:
        return Part(number, 0)  # Dask filters leave empty partitions: no error of the part
    with _named(called or f"Part {number}"):
        return _write(store, stage, number, frame)


def _write(store: Store, stage: PartsFolder, number: int, frame: pd.DataFrame) -> Part:
    plan = Plan(stage.spec, Output(stage.spec.output))
    keys = check_frame(frame, plan)
    with store.draft() as draft:
        first = stage.limits.first_requests if number == 0 else None  # one seed a job
        limits = replace(stage.limits, first_requests=first)
        part = render_part(frame, keys, plan, draft, limits)
        part = replace(part, number=number, keys=key_digests(keys))
        draft.write(_NUMBERS, part.mark)
        # The first to publish a part wins; other rows under its number are refused, never mixed in.
        if not draft.commit(stage.part(number)):
            _check_same(store, stage, part)
    return part


def _check_same(store: Store, stage: PartsFolder, part: Part) -> None:
    """Refuse a part that differs from the one written under this number before."""
    if store.read(f"{store.root}/{stage.part(part.number)}/{_NUMBERS}") != part.mark:
        raise InputError(
            "Its rows were computed twice, and had other values or another order the second time.",
            "Have the frame computed once: persist it, or write it to Parquet and submit that.",
        )


@contextlib.contextmanager
def _named(called: str) -> Iterator[None]:
    """Name the part in errors raised inside."""
    try:
        yield
    except FrameEnrichError as error:
        error.problem = f"{called}: {error.problem}"
        error.args = (error.problem, error.fix)
        raise


_KEYS_AT_ONCE = 4096
"""How many repeated digests are compared by their keys at a time, which bounds memory."""


@contextlib.contextmanager
def draft_of_parts(
    stage: PartsFolder, parts: Iterable[Part], columns: Sequence[str] = ()
) -> Iterator[JobDraft]:
    """Open the draft of the job that the parts make, which vanishes unless it is committed.

    Parameters
    ----------
    stage : PartsFolder
        The folder that holds the parts.
    parts : iterable of Part
        All of them, each once, in any order.
    columns : sequence of str
        The frame's columns: an answer must not go to one of them.

    Raises
    ------
    InputError
        There is no row, all would be skipped, or a key names rows of two parts.
    """
    # Rows are in the order of the parts, whichever process finished first.
    written = sorted((part for part in parts if part.rows), key=lambda part: part.number)
    if not written:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    check_any_request(written)
    _check_keys(stage, written)
    store = Store(stage.url)
    with store.draft() as draft:
        yield JobDraft(draft, store, stage.spec, stage.limits, written, columns, stage.folder_of)


def _check_keys(stage: PartsFolder, written: Sequence[Part]) -> None:
    """Refuse a key that names rows of two parts; `check_frame` did so within each part."""
    # Eight bytes a key stay in memory; the few digests that repeat are compared by whole keys.
    ordered = np.concatenate([part.keys for part in written])
    ordered.sort()
    suspect = duplicates(ordered)
    for start in range(0, len(suspect), _KEYS_AT_ONCE):
        found = _common_key(stage, written, suspect[start : start + _KEYS_AT_ONCE])
        if found is None:
            continue
        shown, first, second = found
        names = stage.folder_of(first).open().key_names
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
    """Return a key that two parts have, and their numbers; equal digests may be chance."""
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
