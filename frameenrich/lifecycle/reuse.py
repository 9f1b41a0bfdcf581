"""Find answers that this store already paid for, by request hash, and copy them into a new job.

A copied answer stands in a shard of its own that is never sent, so the new job has all its state
in its own folder and `collect` has one path.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.answers.output import Output
from frameenrich.answers.reader import ResponseReader
from frameenrich.answers.result_table import OK_CODE, STATUSES
from frameenrich.errors import StoreError
from frameenrich.identity.dedupe import ShortHashes, is_in, short_hash_column
from frameenrich.identity.hashes import hash_column, request_hash
from frameenrich.jsonl import body_of, request_ids, split_lines, under_id
from frameenrich.lifecycle.other_jobs import check_unneeded, needing, other_jobs
from frameenrich.lifecycle.results import read_results
from frameenrich.model import HASHES, JobSpec, RowStatus
from frameenrich.store.folder import JobFolder, job_folders
from frameenrich.store.shard import ShardFolder
from frameenrich.store.store import Store

# Live calls and a provider's batches send the same url and body, so a pilot's live answers serve
# the job after it.
_LIVE_TOO = frozenset({"live", "openai", "azure", "groq", "together"})
"""Providers that take the same requests live; their models tell the servers apart."""


_LINES_AT_ONCE = 256
"""How many response lines are judged together."""


@dataclass(frozen=True)
class StoredAnswers:
    """Requests that have a stored answer, and where it is.

    ``origins`` maps a request hash to a job's folder and the custom_id of the answer there.
    """

    origins: Mapping[bytes, tuple[JobFolder, str]]
    output: Output

    @property
    def jobs(self) -> tuple[str, ...]:
        """The ids of the jobs that were paid for these answers."""
        return tuple(sorted({folder.id for folder, _ in self.origins.values()}))

    def lines(self, ids: Mapping[bytes, str]) -> Iterator[bytes]:
        """Yield the response lines for some request hashes, each under its new custom_id."""
        # Sorted by job, so that each job's responses are read once.
        wanted = sorted((self.origins[h][0].id, self.origins[h][1], own) for h, own in ids.items())
        folders = {folder.id: folder for folder, _ in self.origins.values()}
        for job_id, group in groupby(wanted, key=lambda item: item[0]):
            yield from self._lines_of(folders[job_id], {old: own for _, old, own in group})

    def _lines_of(self, folder: JobFolder, renamed: dict[str, str]) -> Iterator[bytes]:
        # By the reader that `collect` has: judged one by one, lines took ten times as long.
        reader = ResponseReader(self.output)
        for shard in folder.all_shards():
            lines = split_lines(shard.read_responses())
            while some := list(islice(lines, _LINES_AT_ONCE)):
                block = reader.read(b"\n".join([*some, b""]))
                codes = block.codes.tolist()
                for line, custom_id, code in zip(some, block.ids, codes, strict=True):
                    # Taken once: a second line for the same request would be a duplicate.
                    if code == OK_CODE and custom_id in renamed:
                        yield under_id(line, renamed.pop(custom_id))
        # Withdrawn since they were found: without a word their rows would be missing for good.
        if renamed:
            raise StoreError(
                f"{len(renamed):,} answers of the job {folder.id} that were to be reused are not "
                "there any more: another process changed it.",
                "Call again; nothing was sent.",
            )


def find_stored_answers(
    store: Store, spec: JobSpec, output: Output, sent: ShortHashes, own_id: str = ""
) -> StoredAnswers | None:
    """Find the requests that the store's other jobs answered ``ok``.

    Parameters
    ----------
    store : Store
        Where to look.
    spec, output : JobSpec, Output
        The new job: the same provider has to have answered, or one that gives its answers, and
        the answer has to be ``ok`` by the new job's reading.
    sent : array of uint64
        The halves of the new job's request hashes, in order.
    own_id : str
        A job that does not count.
    """
    origins: dict[bytes, tuple[JobFolder, str]] = {}
    for folder in other_jobs(store, sent, own_id, warn=True):
        if same_route(folder.spec, spec):
            # Jobs come newest first, and what is already found stays: the newest answer wins.
            origins = {**_answered(folder, output, sent), **origins}
    return StoredAnswers(origins, output) if origins else None


def answers_in(folder: JobFolder, output: Output, sent: ShortHashes) -> StoredAnswers | None:
    """Find the requests that one job answered ``ok``; see `find_stored_answers`."""
    origins = _answered(folder, output, sent)
    return StoredAnswers(origins, output) if origins else None


def find_running(
    store: Store, spec: JobSpec, sent: ShortHashes, own_id: str = ""
) -> dict[bytes, str]:
    """Find the requests that a running job of the store has sent and may still answer.

    Parameters
    ----------
    store, spec, sent
        As `find_stored_answers` takes them; here the same provider has to have been asked.
    own_id : str
        A job that does not count.

    Returns
    -------
    dict
        The job's id, by request hash. Neither what answers in this process counts, nor files that
        somebody else runs, nor a batch that the provider has had no more for `confirm_seconds`.
    """
    found: dict[bytes, str] = {}
    if spec.provider in _NOT_AT_A_PROVIDER:
        return found
    for folder in other_jobs(store, sent, own_id):
        other = folder.spec
        if other.provider != spec.provider or not same_route(other, spec):
            continue
        if other.pilot:  # live, whatever its provider
            continue
        shared = _shared(folder, sent)
        if len(shared):
            with needing(folder, len(shared)):
                at_work = _at_work(folder, shared)
            found.update(dict.fromkeys(at_work.to_pylist(), folder.id))
    return found


# Their answers come only while a process or a person works on them: nobody can wait for that.
_NOT_AT_A_PROVIDER = frozenset({"file", "live", "local"})


def _at_work(folder: JobFolder, requests: pa.Table) -> pa.ChunkedArray:
    """Return the hashes of those requests that some round of the job may yet answer."""
    running = pa.array([False] * len(requests))
    for round_ in range(folder.rounds()):
        rows = requests if round_ == 0 else folder.sidecar(round_, ["answers", "shard"])
        numbers = [n for n in pc.unique(rows["shard"]).to_pylist() if _goes_on(folder, round_, n)]
        rows = rows.filter(pc.is_in(rows["shard"], pa.array(numbers, rows["shard"].type)))
        # A later round's answer is the answer to the request of round 0, see `_answered`.
        ids = rows["custom_id" if round_ == 0 else "answers"].combine_chunks()
        running = pc.or_(running, pc.is_in(requests["custom_id"].combine_chunks(), ids))
    return requests.filter(running)["request_hash"]


def _goes_on(folder: JobFolder, round_: int, number: int) -> bool:
    """Tell whether a shard is at the job's own provider, or soon will be."""
    batch = ShardFolder(folder, round_, number).batch
    if batch.settled or batch.waiting or batch.provider not in {None, folder.spec.provider}:
        return False
    gone = batch.running and batch.unfound_since is not None
    return not gone or time.time() - (batch.unfound_since or 0.0) < folder.spec.confirm_seconds


def jobs_waiting_for(store: Store, job_id: str) -> list[str]:
    """Return the ids of the jobs that wait for a job's answers."""
    found = []
    for folder in job_folders(store, job_id):
        # A job that cannot be read cannot take anything over.
        with contextlib.suppress(StoreError):
            if any(job_id in shard.batch.waits_for for shard in folder.shards(0)):
                found.append(folder.id)
    return found


def same_route(other: JobSpec, spec: JobSpec) -> bool:
    """Tell whether a job's requests go to the same server and model as another's."""
    providers = {other.provider, spec.provider}
    # Live calls answer as the same server's batches do.
    alike = len(providers) == 1 or ("live" in providers and providers <= _LIVE_TOO)
    return alike and other.url == spec.url and not set(other.models).isdisjoint(spec.models)


def _requests(folder: JobFolder) -> pa.Table:
    """Return a job's requests of round 0: their custom_ids, hashes and shards.

    Those of an earlier version's job are hashed anew: who can choose texts could make two agree.
    """
    if folder.spec.version == HASHES:
        sidecar = folder.sidecar(columns=["custom_id", "request_hash", "shard"])
        return sidecar.filter(pc.is_valid(sidecar["custom_id"]))
    ids, hashes, shards = list[str](), bytearray(), list[int]()
    for shard in folder.shards(0):
        with shard.open_requests() as lines:
            for custom_id, line in request_ids(lines):
                ids.append(custom_id)
                hashes += request_hash(folder.spec.url, body_of(line))
                shards.append(shard.number)
    return pa.table(
        {
            "custom_id": pa.array(ids, pa.string()),
            "request_hash": pa.chunked_array([hash_column(hashes)]),
            "shard": pa.array(shards, pa.int32()),
        }
    )


def _shared(folder: JobFolder, sent: ShortHashes) -> pa.Table:
    """Return those of a job's requests of round 0 that are among others."""
    try:
        requests = _requests(folder)
    except StoreError as error:
        check_unneeded(folder, error, sent)
        return pa.table({name: pa.array([], kind) for name, kind in _REQUEST_COLUMNS.items()})
    return requests.filter(pa.array(is_in(sent, short_hash_column(requests["request_hash"]))))


_REQUEST_COLUMNS = {"custom_id": pa.string(), "request_hash": pa.binary(), "shard": pa.int32()}


def _answered(
    folder: JobFolder, output: Output, sent: ShortHashes
) -> dict[bytes, tuple[JobFolder, str]]:
    shared = _shared(folder, sent)
    if len(shared) == 0:
        return {}
    # Half a hash only preselects; the caller looks origins up by the whole hash.
    with needing(folder, len(shared)):
        found = read_results(folder, output, details=["answer_id"], values="none")
    slots = found.find(shared["custom_id"])
    good = found.table.codes[slots] == STATUSES.index(RowStatus.OK)
    # The custom_id, of whichever round, under which the good answer came.
    ids = found.table.column("answer_id", np.where(good, slots, -1)).to_pylist()
    hashes = shared["request_hash"].to_pylist()
    return {h: (folder, own) for h, own in zip(hashes, ids, strict=True) if own}
