"""Advance a job by one step: send what is not sent, poll what runs, fetch what has ended.

Each step leaves on disk where it stands, before and after each call that could be paid for; a
process that dies anywhere is continued by the next one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from frameenrich.errors import BudgetError, FrameEnrichError, ProviderError
from frameenrich.lifecycle.approve import approve_round
from frameenrich.lifecycle.check_requests import check_requests
from frameenrich.lifecycle.fetch import fetch_responses
from frameenrich.lifecycle.outgoing import (
    NothingKept,
    Progress,
    StoreShardWriter,
    requests_left_out,
    shard_for_provider,
)
from frameenrich.lifecycle.take_over import take_over
from frameenrich.model import BYTES_PER_TOKEN, Batch, BatchStatus, Rejection, Stage, begun_at
from frameenrich.prepare.job_files import batch_tag
from frameenrich.pricing.money import Budget
from frameenrich.providers.protocol import NeverMadeError, Provider
from frameenrich.store.folder import JobFolder, JobPath, JobState
from frameenrich.store.shard import ShardFolder, ids_of

_log = logging.getLogger(__name__)


_QUEUE_FULL = "token_limit_exceeded"


_LONGEST_QUEUE_WAIT = 16
"""In multiples of the provider's `queue_wait_seconds`."""


_MOST_REJECTIONS = 20
"""How often a shard is sent again without what validation refused; nothing of it was billed."""


def step_job(
    folder: JobPath,
    provider: Provider,
    *,
    max_enqueued_tokens: int | None = None,
    progress: Progress | None = None,
    lock_seconds: float = 60.0,
) -> JobState:
    """Advance a job as far as possible now and return its new state.

    Parameters
    ----------
    folder : JobPath
        The job.
    provider : Provider
        Where its requests go.
    max_enqueued_tokens : int, optional
        How many prompt tokens of this job may wait at the provider at once.
    progress : callable, optional
        Called after each answered request of a provider that answers in this process.
    lock_seconds : float
        How long to wait for another process that is at work on the job.

    Raises
    ------
    ProviderError
        A call failed for good; every other shard was still advanced.
    BudgetError
        What is left to send could bring the job over its cap.
    """
    with folder.lock(lock_seconds):
        round_trip = _Step(provider, max_enqueued_tokens, progress)
        state = folder.read()
        shards = state.all_shards()
        for shard in shards:
            round_trip.visit(shard)
        for shard in shards:
            round_trip.take_over(state, shard)
        # Sent last: ended batches have made room, and answers taken over need not be sent.
        if round_trip.may_spend(state):
            round_trip.send_waiting(shards)
        if round_trip.failure is not None:
            raise round_trip.failure
        return state


@dataclass
class _Step:
    """One pass over all shards of a job; remembers what later shards depend on."""

    provider: Provider
    max_enqueued_tokens: int | None
    progress: Progress | None
    failure: FrameEnrichError | None = None
    ended: bool = False

    def visit(self, shard: ShardFolder) -> None:
        """Poll a running batch; fetch one that has ended."""
        batch = shard.batch
        if batch.settled or batch.unsent or batch.waiting:
            return
        try:
            if not batch.ended:
                batch = poll(shard, self.provider)
            if batch.ended:
                self.ended |= batch.status != BatchStatus.FAILED  # that one had no room to leave
                fetch_or_retry(shard, batch, self.provider)
        except ProviderError as error:
            self.fail(error)

    def take_over(self, job: JobState, shard: ShardFolder) -> None:
        """Take over other jobs' answers to the same requests; the rest may be sent now."""
        if not shard.batch.waiting:
            return
        try:
            take_over(job, shard, self._go_on)
        except (ProviderError, BudgetError) as error:
            self.fail(error)

    def _go_on(self, other: JobPath) -> None:
        """Advance a job that this one waits for, as no other process may be doing so."""
        state = other.read()
        if state.settled or any(batch.provider for batch in state.batches):
            return  # a job that was moved elsewhere needs the session that moved it
        try:
            step_job(
                state,
                self.provider,
                max_enqueued_tokens=state.spec.max_enqueued_tokens,
                # No waiting: whoever holds the lock takes the step, and two jobs cannot wait for
                # each other.
                lock_seconds=0,
            )
        except ProviderError as error:
            if not is_lost(error):  # else: given up in time, see `find_running`
                self.fail(error)
        except BudgetError as error:
            error.problem = f"The job {other.id}, for whose answers this one waits: {error.problem}"
            error.fix = f"{error.fix} Or cancel that job: this one then asks what it waits for."
            self.fail(error)

    def may_spend(self, job: JobState) -> bool:
        """Tell whether the unsent requests keep within the job's cap, as far as it is known.

        A job that this process has just made was approved then.
        """
        # A later round was approved when it was made, perhaps under a greater cap of that call.
        if job.spec.max_cost is None or not any(shard.batch.unsent for shard in job.shards(0)):
            return True
        if not job.resumed:
            return True
        try:
            # Without new lines: what is not settled counts in full already.
            approve_round(job, Budget(), ())
        except BudgetError as error:
            self.fail(error)
            return False
        return True

    def fail(self, error: FrameEnrichError) -> None:
        """Keep an error to raise at the end; one about a single lost batch yields to any other."""
        before = self.failure
        if before is None or (is_lost(before) and not is_lost(error)):
            self.failure = error

    def end(self, shard: ShardFolder, ended_tags: set[str]) -> None:
        """Cancel a batch, once: a server refuses to cancel what it is cancelling."""
        try:
            if shard.batch.status != BatchStatus.CANCELLING:
                _cancel(shard, self.provider)
            ended_tags.add(shard.batch.tag)
            self.visit(shard)
        except ProviderError as error:
            if not error.try_later:  # else: nobody knows yet whether it was made
                self.fail(error)

    def send_waiting(self, shards: Iterable[ShardFolder]) -> None:
        """Send what is not sent, as far as the provider's queue has room."""
        shards = list(shards)
        for shard in shards:
            batch = shard.batch
            if not batch.unsent or not self._may_send(shard, batch, shards):
                continue
            try:
                self._send(shard, batch)
            except ProviderError as error:
                if error.try_later:
                    if not shard.batch.creating:  # one in doubt is looked for at every step
                        shard.save(_waiting(shard.batch, self.provider))
                    continue
                self.fail(error)
                if not error.one_shard:
                    return  # what refuses one shard refuses the next

    def _may_send(self, shard: ShardFolder, batch: Batch, shards: Iterable[ShardFolder]) -> bool:
        if _waits_for_seed(shard, shards):
            return False
        longest = self.provider.limits.queue_wait_seconds * _LONGEST_QUEUE_WAIT
        # A clock that was set back must not make an hour a day.
        later = 0.0 if batch.retry_at is None else batch.retry_at - time.time()
        if 0 < later <= longest and not self.ended:
            return False
        if batch.retry_at is not None:
            self.ended = False  # the room that an ended batch left is for one shard
        if self.max_enqueued_tokens is None:
            return True
        running = sum(s.request_bytes for s in shards if s.batch.running)
        waiting = (running + shard.request_bytes) // BYTES_PER_TOKEN
        # A shard larger than the cap goes alone; else it would never go.
        return running == 0 or waiting <= self.max_enqueued_tokens

    def _send(self, shard: ShardFolder, batch: Batch) -> None:
        if not batch.creating:  # what may be there already is not sent anew
            check_requests(shard)
        outgoing = shard_for_provider(shard, batch)
        _log.info("%s: send %d requests for %s", shard, outgoing.requests, outgoing.model)
        with StoreShardWriter(shard, self.progress) as writer:
            batch = self.provider.send(outgoing, batch, writer)
        if batch.ended and not batch.settled:
            fetch_or_retry(shard, batch, self.provider)


def _waits_for_seed(shard: ShardFolder, shards: Iterable[ShardFolder]) -> bool:
    """Tell whether a shard waits until the first shard's batch has filled the prompt cache."""
    if shard.job.spec.cache != "seed" or shard.round:
        return False
    sent = (
        each
        for each in shards
        if each.round == 0 and not each.batch.reused_from and not each.batch.waiting
    )
    seed = next(sent, shard)
    return seed.number != shard.number and seed.request_count == 1 and not seed.batch.ended


def poll(shard: ShardFolder, provider: Provider) -> Batch:
    """Poll a batch; keep since when the provider says that it does not exist."""
    batch = shard.batch
    try:
        batch = provider.poll(batch).replace(unfound_since=None)
    except ProviderError as error:
        if error.status_code in {404, 410}:
            # Looked for once: the create may have been answered with another batch's id.
            found = None if batch.unfound_since else _found_by_tag(shard, provider)
            if found is not None:
                shard.save(found)
                return found
            error.lost = True
            error.fix = (
                "If it belongs to another project, pass client= with that project's key. If it is "
                "gone, job.give_up() waits for it no longer; nothing is sent again by itself."
            )
            shard.save(batch.replace(unfound_since=begun_at(batch.unfound_since)))
        raise
    shard.save(batch)
    return batch


def _found_by_tag(shard: ShardFolder, provider: Provider) -> Batch | None:
    """Return the batch that carries a shard's tag, if the provider's list shows one."""
    doubted = shard.batch.replace(id=None, stage=Stage.CREATING, status=BatchStatus.PLANNED)
    outgoing = shard_for_provider(shard, doubted, may_create=False)
    try:
        found = provider.send(outgoing, doubted, NothingKept())
    except (ProviderError, NeverMadeError):
        return None
    return found if found.id not in {None, shard.batch.id} else None


def is_lost(error: FrameEnrichError) -> bool:
    """Tell whether an error says only that the provider no longer has a batch."""
    return isinstance(error, ProviderError) and error.lost


def fetch_or_retry(shard: ShardFolder, batch: Batch, provider: Provider) -> None:
    """Fetch an ended batch's lines, or plan its requests again where nothing ran."""
    if batch.status != BatchStatus.FAILED or batch.output_file_id or batch.error_file_id:
        fetch_responses(shard, batch, provider)
        return
    # It failed validation (OpenAI's batch guide, "status"): nothing ran or was billed, so the
    # shard may go again.
    again = _retry_when_queue_frees(shard, batch, provider) or _retry_without_rejected(shard, batch)
    shard.save(batch.replace(stage=Stage.FETCHED) if again is None else again)


def _retry_when_queue_frees(shard: ShardFolder, batch: Batch, provider: Provider) -> Batch | None:
    """Plan the same shard again where the provider's queue was full."""
    if not any(error.code == _QUEUE_FULL for error in batch.errors):
        return None
    return _waiting(_next_attempt(shard, batch), provider)


def _waiting(batch: Batch, provider: Provider) -> Batch:
    doubled = min(2 ** max(batch.attempt - 1, 0), _LONGEST_QUEUE_WAIT)
    return batch.replace(retry_at=time.time() + provider.limits.queue_wait_seconds * doubled)


def _retry_without_rejected(shard: ShardFolder, batch: Batch) -> Batch | None:
    """Plan the shard again without the requests that validation named."""
    if len(batch.spent_file_ids) >= _MOST_REJECTIONS:
        return None
    before = requests_left_out(shard, batch)
    ids = [custom_id for custom_id in ids_of(shard) if custom_id not in before]
    named = {
        ids[e.line - 1]: f"{e.code or 'rejected'}: {e.message or 'no message'}"
        # Reversed, so that the first of several errors of one line is the one that is kept.
        for e in reversed(batch.errors)
        if e.line and 0 < e.line <= len(ids)
    }
    if not named:
        return None
    rejected = (*batch.rejected, *(Rejection(*each) for each in named.items()))
    # Nothing is left to send, and an empty batch would be refused.
    if len(named) == len(ids):
        return batch.replace(rejected=rejected, stage=Stage.FETCHED)
    # The rejected upload is kept by id, so that `cleanup` can delete it, too.
    spent = (*batch.spent_file_ids, batch.input_file_id or "")
    return _next_attempt(shard, batch).replace(
        rejected=rejected,
        stage=Stage.INTENT,
        input_file_id=None,
        spent_file_ids=tuple(filter(None, spent)),
    )


def _next_attempt(shard: ShardFolder, batch: Batch) -> Batch:
    attempt = batch.attempt + 1
    return Batch(
        batch_tag(shard.job.id, shard.round, shard.number, attempt),
        attempt,
        input_file_id=batch.input_file_id,
        rejected=batch.rejected,
        spent_file_ids=batch.spent_file_ids,
        requests=batch.requests,
        provider=batch.provider,
        requests_xxh3=batch.requests_xxh3,
        imports=batch.imports,
    )


def cancel(folder: JobFolder, provider: Provider) -> None:
    """Cancel what runs; what was never sent is cancelled here at once.

    Raises
    ------
    ProviderError
        A batch cannot be cancelled; all others were.
    """
    failure = None
    with folder.lock():
        for shard in folder.read().all_shards():
            if not shard.batch.ended:
                try:
                    _cancel(shard, provider)
                except ProviderError as error:
                    # One batch that cannot be cancelled must not keep the others running, and paid.
                    failure = failure or error
    if failure is not None:
        raise failure


def _cancel(shard: ShardFolder, provider: Provider) -> None:
    batch = shard.batch
    # Never sent, so the provider has nothing to cancel.
    if batch.id is None and not batch.creating:
        shard.save(batch.replace(status=BatchStatus.CANCELLED, stage=Stage.FETCHED))
        return
    if batch.id is None:  # perhaps it was made: find out before it can be cancelled
        outgoing = shard_for_provider(shard, batch, may_create=False)
        try:
            with StoreShardWriter(shard) as writer:
                batch = provider.send(outgoing, batch, writer)
        except NeverMadeError:
            shard.save(batch.replace(status=BatchStatus.CANCELLED, stage=Stage.FETCHED))
            return
    try:
        batch = provider.cancel(batch)
    except ProviderError:
        batch = provider.poll(batch)  # it may have ended meanwhile, which nobody can cancel
        if not batch.ended and batch.status != BatchStatus.CANCELLING:
            raise
    shard.save(batch)


def withdraw(
    folder: JobFolder, provider: Provider, keep: str | None, ended_tags: set[str]
) -> list[ShardFolder]:
    """End every batch that does not go to `keep`, as far as possible now.

    Cancels what runs and fetches what that left. `ended_tags` are those of batches that were
    cancelled before; those of this call are added.

    Returns
    -------
    list of ShardFolder
        The shards whose end, or whose last answers, are still to come.

    Raises
    ------
    ProviderError
        A call failed for good; every other shard was still advanced.
    """
    with folder.lock():
        round_trip = _Step(provider, None, None)
        others = [s for s in folder.read().all_shards() if s.batch.provider != keep]
        for shard in others:
            round_trip.visit(shard)
            if not shard.batch.ended and shard.batch.tag not in ended_tags:
                round_trip.end(shard, ended_tags)
        if round_trip.failure is not None:
            raise round_trip.failure
        return [shard for shard in others if not shard.batch.settled]


def refresh(folder: JobFolder, provider: Provider) -> JobState:
    """Poll what runs, change nothing else, and return the job's state.

    Raises
    ------
    ProviderError
        The provider cannot be asked, or has none of the job's batches.
    """
    with folder.lock():
        state = folder.read()
        lost = None
        for shard in state.all_shards():
            if shard.batch.running:
                try:
                    poll(shard, provider)
                except ProviderError as error:
                    if not is_lost(error):
                        raise
                    lost = error  # of one batch among others, its status tells
    if lost is not None and all(batch.unfound_since is not None for batch in state.batches):
        raise lost
    return state


def cleanup(folder: JobFolder, provider: Provider) -> int:
    """Delete the provider's files of settled batches and return the number of batches."""
    done = 0
    with folder.lock():
        for shard in folder.read().all_shards():
            batch = shard.batch
            if (batch.id or batch.input_file_id) and batch.stage is Stage.FETCHED:
                shard.check_responses()  # the provider's copy would have been the last
                provider.delete_files(batch)
                shard.save(batch.replace(stage=Stage.CLEANED))
                done += 1
    return done
