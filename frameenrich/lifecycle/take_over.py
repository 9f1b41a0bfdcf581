"""Take over answers to requests that other jobs have sent; send what they did not bring.

A request is paid once: a job whose requests a running batch of the store has asked keeps them in
shards that wait. Each step of it goes on with those jobs, as nobody else may be looking at them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.answers.output import Output
from frameenrich.errors import JobBusyError
from frameenrich.identity.dedupe import ShortHashes, short_hash_column
from frameenrich.jsonl import request_ids
from frameenrich.lifecycle.approve import approve_round
from frameenrich.lifecycle.outgoing import answered_here, requests_left_out
from frameenrich.lifecycle.reuse import find_running, find_stored_answers, requests_of
from frameenrich.model import TAKEN_OVER, Batch, BatchStatus, Import, OutputSpec, Stage
from frameenrich.pricing.money import Budget
from frameenrich.store.folder import JobPath, JobState
from frameenrich.store.shard import ShardFolder


def take_over(job: JobState, shard: ShardFolder, go_on: Callable[[JobPath], object]) -> None:
    """Advance a waiting shard as far as the jobs that it waits for allow.

    Parameters
    ----------
    job, shard : JobState, ShardFolder
        It waits; its job's lock is held.
    go_on : callable
        Takes a step with one of those jobs; `JobBusyError` where another process does.

    Raises
    ------
    BudgetError
        What is missing could bring the job over its cap; it goes on waiting.
    """
    batch = shard.batch
    # A running request counts as sent. Each step of the waiting job takes one with the other, as
    # nobody else may be looking at it.
    for job_id in batch.waits_for:
        if job.store.has(job_id):
            try:
                go_on(JobPath(job.store, job_id))
            except JobBusyError:
                continue
    requests, hashes = _requests_of(job, shard)
    with contextlib.ExitStack() as stack:
        # Under the store's lock, or two jobs that waited for a third would both send. A submit may
        # hold it for as long as it asks its first row: then the shard waits for the next step.
        try:
            stack.enter_context(job.store.deciding(timeout_seconds=0))
        except JobBusyError:
            return
        running = find_running(job.store, job.spec, hashes, job.id)
        if len(running.hashes):
            shard.save(batch.replace(waits_for=running.used_jobs))
            return
        shard.save(_without_waiting(job, shard, requests, hashes))


def _requests_of(job: JobState, shard: ShardFolder) -> tuple[pa.Table, ShortHashes]:
    """Return a shard's requests, each once, and the halves of their hashes, in order."""
    own = pa.concat_tables(requests_of(job, shard.number))
    ids = own["custom_id"].combine_chunks()
    # By custom_id, as that is what an answer goes by: rows that share a request share it.
    own = own.take(pa.array(np.unique(pc.index_in(ids, value_set=ids).to_numpy())))
    hashes = short_hash_column(own["request_hash"])
    hashes.sort()
    return own, hashes


def _without_waiting(
    job: JobState, shard: ShardFolder, requests: pa.Table, hashes: ShortHashes
) -> Batch:
    """Write the answers found; return the batch with the rest still to send."""
    batch = shard.batch
    output = job.spec.output
    # A parser's code is not stored: whole answers are taken, and judged when they are read.
    reading = Output(OutputSpec() if output.kind == "parser" else output)
    found = find_stored_answers(job.store, job.spec, reading, hashes, job.id)
    # An answer that was imported while the shard waited stays; an error line stands in the way of
    # none, but its request is not sent.
    own_answers = answered_here(shard)
    ids = requests["custom_id"].combine_chunks()
    positions = np.full(len(ids), -1)
    if found is not None:
        positions = found.requests.hashes.find(requests["request_hash"])
    kept = pc.is_in(ids, value_set=pa.array(own_answers, ids.type)).to_numpy(zero_copy_only=False)
    answered = np.flatnonzero((positions >= 0) & ~kept)
    names = ids.take(pa.array(answered))
    missing = {*ids.to_pylist()}.difference(names.to_pylist(), requests_left_out(shard, batch))
    if missing and job.spec.max_cost is not None:
        with shard.open_requests() as lines:
            to_come = [line for custom_id, line in request_ids(lines) if custom_id in missing]
        # Before anything is written: a shard that is over the cap goes on waiting.
        approve_round(job, Budget(), to_come, batch.provider, [shard])
    if found is not None and len(answered):
        # As an import, so that `collect` has one way to read answers from elsewhere.
        proof = shard.write_import(TAKEN_OVER, found.lines(positions[answered], names))
        name = ", ".join(found.jobs)
        own = Import(TAKEN_OVER, name, time.time(), len(answered), proof)
        batch = batch.replace(imports=(*batch.imports, own))
    if missing:
        return batch.replace(stage=Stage.INTENT, status=BatchStatus.PLANNED, waits_for=())
    return batch.replace(
        stage=Stage.FETCHED,
        status=BatchStatus.COMPLETED,
        waits_for=(),
        total=len(ids),
        completed=len(own_answers.intersection(ids.to_pylist())) + len(answered),
        reused_from=found.jobs if found is not None else (),
    )
