"""End the wait for batches that are lost at the provider, or whose files cannot be had."""

from __future__ import annotations

from frameenrich.errors import ProviderError
from frameenrich.lifecycle.outgoing import StoreShardWriter, shard_for_provider
from frameenrich.lifecycle.step import fetch_or_retry, is_lost, poll
from frameenrich.model import BatchStatus, Stage
from frameenrich.providers.protocol import NeverMadeError, Provider
from frameenrich.store.folder import JobFolder
from frameenrich.store.shard import ShardFolder


def give_up(folder: JobFolder, provider: Provider, *, force: bool = False) -> list[str]:
    """Settle batches as lost that the provider does not have, cannot confirm or does not hand out.

    Parameters
    ----------
    folder : JobFolder
        The job.
    provider : Provider
        Where its batches are; asked once more about each.
    force : bool
        Settle a batch also where the provider cannot be asked, whatever the reason.

    Returns
    -------
    list of str
        The tags of the batches that were given up; one that the provider still has is none.

    Raises
    ------
    ProviderError
        About some batch nothing can be found out, and `force` is False; the others are settled.
    """
    lost, failure = [], None
    with folder.lock():
        for shard in folder.read().all_shards():
            batch = shard.batch
            if batch.settled or not (batch.ended or batch.running or batch.creating):
                continue
            try:
                given_up = _ask_once_more(shard, provider)
            except ProviderError as error:
                # A wrong key or no network says nothing of the batch: rows that were settled by it
                # would be paid twice. So the user hears of it first.
                if not force:
                    failure = failure or _with_advice(error)
                    continue
                _settle(shard, error.problem)
                given_up = True
            if given_up:
                lost.append(shard.batch.tag)
    if failure is not None:
        raise failure
    return lost


def _ask_once_more(shard: ShardFolder, provider: Provider) -> bool:
    """Settle a batch that the provider says it does not have; return whether it was.

    Raises
    ------
    ProviderError
        The provider says nothing of it.
    """
    if not (shard.batch.ended or shard.batch.running):
        return _look_once_more(shard, provider)
    try:
        if shard.batch.ended:
            fetch_or_retry(shard, shard.batch, provider)
        else:
            poll(shard, provider)
    except ProviderError as error:
        if not is_lost(error):
            raise
        _settle(shard, error.problem)
        return True
    return False


def _look_once_more(shard: ShardFolder, provider: Provider) -> bool:
    """Look for a batch whose creation got no answer; keep it where the provider has it."""
    outgoing = shard_for_provider(shard, shard.batch, may_create=False)
    try:
        with StoreShardWriter(shard) as writer:
            provider.send(outgoing, shard.batch, writer)
    except NeverMadeError:
        why = "it was never made"
    except ProviderError as error:
        # Not any passing failure: a reply that cannot be read, or a batch that may be ours, says
        # nothing against it.
        if not error.unlisted:
            raise
        why = error.problem
    else:
        return False
    _settle(shard, why)
    return True


def _settle(shard: ShardFolder, why: str) -> None:
    """Count a batch as lost; of an ended one, keep what is here of its answers."""
    batch = shard.batch
    if not batch.ended:
        shard.save(batch.replace(status=BatchStatus.LOST, stage=Stage.FETCHED))
        return
    if not shard.job.store.exists(shard.responses_path):
        with shard.write_responses():  # empty, as a fetched batch without it is a damaged one
            pass
    # With the reason: a later round looks at the files once more (`fetch_short_again`).
    proof = shard.prove_responses()
    shard.save(batch.replace(stage=Stage.FETCHED, short=why.rstrip("."), responses=proof))


def _with_advice(error: ProviderError) -> ProviderError:
    """Add to an error what the user's word would be."""
    error.fix = (
        f"{error.fix} Nothing was given up by it. If that is for good, job.give_up(force=True) "
        "counts the rows whose answers are not here as missing."
    )
    return error
