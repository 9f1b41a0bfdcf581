"""Find answers that this store already paid for, by request hash, and copy them into a new job.

A copied answer stands in a shard of its own that is never sent, so the new job has all its state
in its own folder and `collect` has one path.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
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
from frameenrich.identity.hashes import HASH_BYTES, hash_column, request_hash
from frameenrich.jsonl import body_of, request_ids, split_lines, under_id
from frameenrich.lifecycle.other_jobs import check_unneeded, needing, other_jobs
from frameenrich.lifecycle.results import SIDECAR_ID_COLUMNS, read_results
from frameenrich.model import HASHES, JobSpec
from frameenrich.store.folder import JobFolder, job_folders
from frameenrich.store.shard import ShardFolder
from frameenrich.store.sidecar import row_groups
from frameenrich.store.store import Store

# Live calls and a provider's batches send the same url and body, so a pilot's live answers serve
# the job after it.
_LIVE_TOO = frozenset({"live", "openai", "azure", "groq", "together"})
"""Providers that take the same requests live; their models tell the servers apart."""


_LINES_AT_ONCE = 256
"""How many response lines are judged together."""


@dataclass(frozen=True)
class AnsweredRequests:
    """The requests that one job answered ``ok``.

    Parameters
    ----------
    folder : JobFolder
        The job.
    hashes : pyarrow.Array or pyarrow.ChunkedArray
        The requests' hashes.
    homes : pyarrow.Table
        Their custom_ids and shards in round 0, and the round of each answer.
    """

    folder: JobFolder
    hashes: pa.Array | pa.ChunkedArray
    homes: pa.Table


@dataclass(frozen=True)
class StoredAnswers:
    """Requests that have a stored answer, and where it is.

    Parameters
    ----------
    requests : KnownRequests
        The requests, by the job that was paid for the answer.
    folders : sequence of JobFolder
        Those jobs.
    homes : sequence of pyarrow.Table
        As `AnsweredRequests` has them, of each job.
    output : Output
        How answers are read.
    """

    requests: KnownRequests
    folders: Sequence[JobFolder]
    homes: Sequence[pa.Table]
    output: Output

    @property
    def jobs(self) -> tuple[str, ...]:
        """The ids of the jobs that were paid for these answers."""
        return self.requests.used_jobs

    def lines(self, positions: Positions, names: pa.Array) -> Iterator[bytes]:
        """Yield the response lines of some requests, each under its new custom_id."""
        # Numbers of four bytes: of a million requests these are the largest things held here.
        jobs = self.requests.job_numbers(positions).astype(np.int32)
        # Sorted once by job, so that each job's responses are read once, and none of a thousand
        # jobs goes through the requests of all.
        order = np.argsort(jobs, kind="stable").astype(np.int32)
        numbers, starts = np.unique(jobs[order], return_index=True)
        del jobs
        of_job = dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))
        for job in sorted(of_job, key=lambda number: self.folders[number].id):
            own, folder, homes = of_job[job], self.folders[job], self.homes[job]
            at = (positions[own] - self.requests.start_of(job)).astype(np.int32)
            rounds, left = homes["round"].to_numpy()[at], len(own)
            for round_ in np.unique(rounds).tolist():
                chosen, in_round = own[rounds == round_], at[rounds == round_]
                ids, shards, in_ids = _sent_in(folder, round_, homes, in_round)
                # A shard at a time: the names of no more than one are Python's objects.
                for shard in folder.shards(round_):
                    here = np.flatnonzero(shards == shard.number)
                    old = ids.take(pa.array(in_ids[here])).to_pylist()
                    new = names.take(pa.array(chosen[here])).to_pylist()
                    renamed = dict(zip(old, new, strict=True))
                    for line in _lines_in(shard, renamed, self.output):
                        left -= 1
                        yield line
            # Withdrawn since they were found: without a word their rows would be missing for good.
            if left:
                raise StoreError(
                    f"{left:,} answers of the job {folder.id} that were to be reused are not "
                    "there any more: another process changed it.",
                    "Call again; no batch was sent.",
                )


_Numbers = npt.NDArray[np.int32]


def _sent_in(
    folder: JobFolder, round_: int, homes: pa.Table, at: _Numbers
) -> tuple[pa.Array, _Numbers, _Numbers]:
    """Return by which requests a round asked what some of round 0, those `at`, had asked.

    Returns
    -------
    tuple
        Custom_ids of the round, then for each of `at` its shard and where its custom_id stands.
    """
    ids = homes["custom_id"].chunk(0)  # the only one: `combine_chunks` would copy it
    if round_ == 0:
        return ids, homes["shard"].to_numpy()[at], at
    # A later round's request has another custom_id, and says which of round 0 it repeats.
    sent = folder.sidecar(round_, ["answers", *SIDECAR_ID_COLUMNS])
    own = pc.index_in(ids.take(pa.array(at)), value_set=sent["answers"].combine_chunks())
    in_ids = own.fill_null(-1).to_numpy()
    # Of what the round did not ask, -1: no shard has that number, and `lines` misses the answer.
    shards = np.append(sent["shard"].to_numpy(), np.int32(-1))[in_ids]
    return sent["custom_id"].combine_chunks(), shards, in_ids


def _lines_in(shard: ShardFolder, renamed: dict[str, str], output: Output) -> Iterator[bytes]:
    """Yield a shard's usable answers to some requests, each under its new custom_id."""
    if not renamed:
        return
    # By the reader that `collect` has: judged one by one, lines took ten times as long.
    reader = ResponseReader(output)
    lines = split_lines(shard.read_responses())
    while some := list(islice(lines, _LINES_AT_ONCE)):
        block = reader.read(b"\n".join([*some, b""]))
        codes = block.codes.tolist()
        for line, custom_id, code in zip(some, block.ids, codes, strict=True):
            # Taken once: a second line for the same request would be a duplicate.
            if code == OK_CODE and custom_id in renamed:
                yield under_id(line, renamed.pop(custom_id))


def find_stored_answers(
    store: Store,
    spec: JobSpec,
    output: Output,
    sent: ShortHashes,
    own_id: str = "",
    asked: Sequence[JobFolder] = (),
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
    asked : sequence of JobFolder
        Jobs that count first, whatever their provider is called: a submit has just asked them.
    """
    # Jobs come newest first, and the newest answer wins.
    first = {folder.id for folder in asked}
    others = (
        folder
        # Before a probe it was said which jobs are damaged.
        for folder in other_jobs(store, sent, own_id, warn=not asked)
        if folder.id not in first and same_route(folder.spec, spec)
    )
    return answers_of([*asked, *others], output, sent)


def answers_of(
    folders: Iterable[JobFolder], output: Output, sent: ShortHashes
) -> StoredAnswers | None:
    """Find the requests that some jobs answered ``ok``; of several answers the first job's counts.

    Returns
    -------
    StoredAnswers or None
        None where no job answered any.
    """
    each = (_answered_by(folder, output, sent) for folder in folders)
    found = [answered for answered in each if answered is not None]
    if not found:
        return None
    return StoredAnswers(
        KnownRequests.of([(one.folder.id, one.hashes) for one in found]),
        [one.folder for one in found],
        [one.homes for one in found],
        output,
    )


def _answered_by(folder: JobFolder, output: Output, sent: ShortHashes) -> AnsweredRequests | None:
    """Find the requests that one job answered ``ok``; see `find_stored_answers`."""
    shared = _shared(folder, sent)
    if len(shared) == 0:
        return None
    # Half a hash only preselects; the caller looks requests up by the whole hash.
    with needing(folder, len(shared)):
        found = read_results(folder, output, sidecar=shared, values="none")
    codes, rounds = found.table.codes[found.slots], found.table.rounds[found.slots]
    del found
    good = codes == OK_CODE
    if not good.any():
        return None
    hashes = shared["request_hash"].filter(pa.array(good))
    shared = shared.drop_columns("request_hash")  # which would be in memory twice
    homes = shared.append_column("round", pa.array(rounds)).filter(pa.array(good))
    del shared
    # The pool keeps what this took, beside what the next job and the table of hashes will take.
    pa.default_memory_pool().release_unused()
    # In one piece: each `take` from chunks would copy them all.
    return AnsweredRequests(folder, hashes, homes.combine_chunks())


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
        # A later round's answer is the answer to the request of round 0, see `_sent_in`.
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


def requests_of(folder: JobFolder, shard: int | None = None) -> Iterator[pa.Table]:
    """Yield a job's requests of round 0, some at a time: their custom_ids, hashes and shards.

    Only those of one shard, if it is named. Those of an earlier version's job are hashed anew: who
    can choose texts could make two agree.
    """
    if folder.spec.version == HASHES:
        for rows, _ in row_groups(folder, _REQUEST_COLUMNS.names, shard=shard):
            yield rows.filter(pc.is_valid(rows["custom_id"]))
        return
    shards = folder.shards(0)
    for own in shards if shard is None else [each for each in shards if each.number == shard]:
        ids, hashes = list[str](), bytearray()
        with own.open_requests() as lines:
            for custom_id, line in request_ids(lines):
                ids.append(custom_id)
                hashes += request_hash(folder.spec.url, body_of(line))
        numbers = pa.array(np.full(len(ids), own.number, np.int32))
        columns = [pa.array(ids, pa.string()), hash_column(hashes), numbers]
        yield pa.table(columns, schema=_REQUEST_COLUMNS)


def _shared(folder: JobFolder, sent: ShortHashes) -> pa.Table:
    """Return those of a job's requests of round 0 that are among others."""
    found = [_REQUEST_COLUMNS.empty_table()]
    try:
        for rows in requests_of(folder):
            own = rows.filter(pa.array(is_in(sent, short_hash_column(rows["request_hash"]))))
            if len(own):
                found.append(own.replace_schema_metadata())
    except StoreError as error:
        check_unneeded(folder, error, sent)
        return found[0]
    return pa.concat_tables(found)


_REQUEST_COLUMNS = pa.schema(
    {"custom_id": pa.string(), "request_hash": pa.binary(HASH_BYTES), "shard": pa.int32()}
)
