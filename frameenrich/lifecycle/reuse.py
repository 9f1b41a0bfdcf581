"""Find answers that this store already paid for, by request hash, and copy them into a new job.

A copied answer stands in a shard of its own that is never sent, so the new job has all its state
in its own folder and `collect` has one path.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.answers.arrow_column import Positions
from frameenrich.answers.output import Output
from frameenrich.answers.reader import ResponseReader
from frameenrich.answers.result_table import OK_CODE
from frameenrich.errors import StoreError
from frameenrich.identity.dedupe import ShortHashes, is_in, short_hash_column
from frameenrich.identity.hash_table import KnownRequests
from frameenrich.identity.hashes import hash_column, request_hash
from frameenrich.jsonl import body_of, request_ids, split_lines, under_id
from frameenrich.lifecycle.other_jobs import check_unneeded, needing, other_jobs
from frameenrich.lifecycle.results import read_results
from frameenrich.model import HASHES, JobSpec
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

    Parameters
    ----------
    requests : KnownRequests
        The requests, by the job that was paid for the answer.
    folders : sequence of JobFolder
        Those jobs.
    ids : pyarrow.Array
        The custom_id that each answer has in its job.
    shards : array of int32
        The number of the shard of round 0 that holds it; -1 for one of a later round.
    output : Output
        How answers are read.
    """

    requests: KnownRequests
    folders: Sequence[JobFolder]
    ids: pa.Array
    shards: npt.NDArray[np.int32]
    output: Output

    @classmethod
    def of(cls, found: Sequence[StoredAnswers]) -> StoredAnswers | None:
        """Put some together; of several answers to a request the first counts. None for none."""
        if len(found) < 2:  # noqa: PLR2004 - nothing to put together
            return found[0] if found else None
        pieces = [
            (folder.id, hashes)
            for one in found
            for folder, hashes in zip(one.folders, one.requests.columns(), strict=True)
        ]
        return cls(
            KnownRequests.of(pieces),
            [folder for one in found for folder in one.folders],
            pa.concat_arrays([one.ids for one in found]),
            np.concatenate([one.shards for one in found]),
            found[0].output,
        )

    @property
    def jobs(self) -> tuple[str, ...]:
        """The ids of the jobs that were paid for these answers."""
        return self.requests.used_jobs

    def lines(self, positions: Positions, names: pa.Array) -> Iterator[bytes]:
        """Yield the response lines of some requests, each under its new custom_id."""
        numbers = self.requests.job_numbers(positions)
        # Sorted by job, so that each job's responses are read once.
        for number in sorted(np.unique(numbers).tolist(), key=lambda n: self.folders[n].id):
            own = np.flatnonzero(numbers == number)
            yield from self._lines_of(
                self.folders[number], positions[own], names.take(pa.array(own))
            )

    def _lines_of(
        self, folder: JobFolder, positions: Positions, names: pa.Array
    ) -> Iterator[bytes]:
        lost = 0
        ids, shards = self.ids.take(pa.array(positions)), self.shards[positions]
        # A shard at a time: the names of no more than one are Python's objects.
        for shard in folder.shards(0):
            own = np.flatnonzero(shards == shard.number)
            lost += yield from self._lines_in(shard, ids, names, own)
        later = np.flatnonzero(shards < 0)
        for round_ in range(1, folder.rounds()) if len(later) else ():
            sent = folder.sidecar(round_, ["custom_id", "shard"])
            at = pc.index_in(ids.take(pa.array(later)), value_set=sent["custom_id"])
            home = sent["shard"].take(at).fill_null(-1).to_numpy()
            for shard in folder.shards(round_):
                own = later[home == shard.number]
                lost += yield from self._lines_in(shard, ids, names, own)
        # Withdrawn since they were found: without a word their rows would be missing for good.
        if lost:
            raise StoreError(
                f"{lost:,} answers of the job {folder.id} that were to be reused are not "
                "there any more: another process changed it.",
                "Call again; nothing was sent.",
            )

    def _lines_in(
        self, shard: ShardFolder, ids: pa.Array, names: pa.Array, own: Positions
    ) -> Generator[bytes, None, int]:
        """Yield the lines of some answers of one shard; return how many are not there."""
        if not len(own):
            return 0
        old, new = (cells.take(pa.array(own)).to_pylist() for cells in (ids, names))
        renamed = dict(zip(old, new, strict=True))
        # By the reader that `collect` has: judged one by one, lines took ten times as long.
        reader = ResponseReader(self.output)
        lines = split_lines(shard.read_responses())
        while some := list(islice(lines, _LINES_AT_ONCE)):
            block = reader.read(b"\n".join([*some, b""]))
            codes = block.codes.tolist()
            for line, custom_id, code in zip(some, block.ids, codes, strict=True):
                # Taken once: a second line for the same request would be a duplicate.
                if code == OK_CODE and custom_id in renamed:
                    yield under_id(line, renamed.pop(custom_id))
        return len(renamed)


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
    # Jobs come newest first, and the newest answer wins.
    return StoredAnswers.of(
        [
            found
            for folder in other_jobs(store, sent, own_id, warn=True)
            if same_route(folder.spec, spec)
            and (found := answers_in(folder, output, sent)) is not None
        ]
    )


def answers_in(folder: JobFolder, output: Output, sent: ShortHashes) -> StoredAnswers | None:
    """Find the requests that one job answered ``ok``; see `find_stored_answers`."""
    shared = _shared(folder, sent)
    if len(shared) == 0:
        return None
    # Half a hash only preselects; the caller looks requests up by the whole hash.
    with needing(folder, len(shared)):
        found = read_results(folder, output, details=["answer_id"], sidecar=shared, values="none")
    good = np.flatnonzero(found.table.codes[found.slots] == OK_CODE)
    if not len(good):
        return None
    # The custom_id, of whichever round, under which the good answer came.
    ids = found.table.column("answer_id", found.slots[good]).cast(pa.string()).combine_chunks()
    del found
    taken = shared.take(pa.array(good))
    first = pc.equal(taken["custom_id"].combine_chunks(), ids).to_numpy(zero_copy_only=False)
    shards = np.where(first, taken["shard"].to_numpy(), -1).astype(np.int32)
    requests = KnownRequests.of([(folder.id, taken["request_hash"])])
    return StoredAnswers(requests, [folder], ids, shards, output)


def find_running(store: Store, spec: JobSpec, sent: ShortHashes, own_id: str = "") -> KnownRequests:
    """Find the requests that a running job of the store has sent and may still answer.

    Parameters
    ----------
    store, spec, sent
        As `find_stored_answers` takes them; here the same provider has to have been asked.
    own_id : str
        A job that does not count.

    Returns
    -------
    KnownRequests
        Neither what answers in this process counts, nor files that somebody else runs, nor a batch
        that the provider has had no more for `confirm_seconds`.
    """
    found: list[tuple[str, pa.ChunkedArray]] = []
    if spec.provider in _NOT_AT_A_PROVIDER:
        return KnownRequests.of(found)
    for folder in other_jobs(store, sent, own_id):
        other = folder.spec
        if other.provider != spec.provider or not same_route(other, spec):
            continue
        if other.pilot:  # live, whatever its provider
            continue
        shared = _shared(folder, sent)
        if len(shared):
            with needing(folder, len(shared)):
                found.append((folder.id, _at_work(folder, shared)))
    return KnownRequests.of(found)


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


def requests_of(folder: JobFolder) -> pa.Table:
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
        requests = requests_of(folder)
    except StoreError as error:
        check_unneeded(folder, error, sent)
        return pa.table({name: pa.array([], kind) for name, kind in _REQUEST_COLUMNS.items()})
    return requests.filter(pa.array(is_in(sent, short_hash_column(requests["request_hash"]))))


_REQUEST_COLUMNS = {"custom_id": pa.string(), "request_hash": pa.binary(), "shard": pa.int32()}
