"""Jobs of frames larger than one process: written a part at a time, by as many processes as wish.

A *part* is some consecutive rows of a larger frame: a partition of Dask's, a chunk of a file. The
job that its parts make is as any other: one sidecar, shards, the same id as the whole frame's
`submit` would give it, so everything that reads jobs reads it, too. What a door does::

    with staged(store, plan.spec, limits) as stage:                   # a folder of the store
        parts = [write_part(stage, n, frame) for n, frame in enumerate(frames)]
        folder = join_parts(stage, plan, parts, find_answers=..., approve=...)

`write_part` may run in any process that sees the store, any number of times, at once too: a `Stage`
can be pickled and holds no secret. A part's requests and sidecar stand in the stage under names
that its number decides, whole or not at all. `join_parts` (`frameenrich.joining`) runs once, in the
process that pays. It holds 16 bytes a row, and one part's sidecar at a time. Callers that have
wishes rather than a plan use `frameenrich.verbs.submit_parts`.

To collect a part: `Job.collect_part(frame, number)`, or without a `Job`, as on a worker,
`frameenrich.collect.collect_part`. It reads the lines of the sidecar that are the part's, and the
shards that those name.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from frameenrich.errors import FrameEnrichError, InputError, StoreError
from frameenrich.keys import key_digests, key_names
from frameenrich.model import JobSpec, Limits
from frameenrich.output import Output
from frameenrich.plan import Plan
from frameenrich.repeats import FirstAsked, Halves, JobHash
from frameenrich.rows import row_requests
from frameenrich.spool import Spool, requests_name
from frameenrich.store import JobFolder, Store
from frameenrich.write import check_frame, rows_named

_NUMBERS = "part.json"


@dataclass(frozen=True)
class Stage:
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
        return f"{Store(self.url).root}/{self.part(number)}/{requests_name(shard)}"


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
    keys: Halves
    asked: Halves
    requests: tuple[int, ...]
    job_hash: JobHash

    @property
    def mark(self) -> bytes:
        """The same for the same part, written again."""
        told = {"rows": self.rows, "requests": self.requests, "hash": self.job_hash.mark}
        return json.dumps(told).encode()


@contextlib.contextmanager
def staged(store: Store, spec: JobSpec, limits: Limits) -> Iterator[Stage]:
    """A stage for the parts of one job; what is left of it at the end vanishes."""
    with store.staging() as folder:
        yield Stage(store.url, folder, spec, limits)


def write_part(
    stage: Stage, number: int, frame: pd.DataFrame, *, called: str | None = None
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


def _write(store: Store, stage: Stage, number: int, frame: pd.DataFrame) -> Part:
    plan = Plan(stage.spec, Output(stage.spec.output))
    keys = check_frame(frame, plan)
    with store.draft() as draft, rows_named(keys):
        names = key_names(frame, stage.spec.key)
        first = FirstAsked(len(frame))
        with Spool(draft, keys, stage.spec, names, stage.limits, first) as spool:
            for found in row_requests(frame, plan):
                spool.add(found)
        requests = tuple(map(spool.requests, range(spool.shards)))
        digests, asked = key_digests(keys), spool.first.sent()
        part = Part(number, len(frame), digests, asked, requests, spool.job_hash)
        draft.write(_NUMBERS, part.mark)
        if not draft.commit(stage.part(number)):
            _check_same(store, stage, part)
    return part


def _check_same(store: Store, stage: Stage, part: Part) -> None:
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
