"""Fetch responses again that are damaged here and whole at the provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from frameenrich.errors import DamagedFileError, FrameEnrichError, warn_user
from frameenrich.lifecycle.fetch import fetch
from frameenrich.model import Stage
from frameenrich.providers.protocol import Provider
from frameenrich.store.folder import JobPath
from frameenrich.store.shard import ShardFolder

T = TypeVar("T")


def refetch(folder: JobPath, connect: Callable[[], Provider]) -> int:
    """Fetch damaged responses again and return the number of shards; see `Job.refetch`.

    Parameters
    ----------
    folder : JobPath
        The job.
    connect : callable
        Gives the provider; called only where something is damaged.
    """
    mended = 0
    with folder.lock():
        for shard in folder.read().all_shards():
            try:
                shard.check_responses()
                shard.check_fetched()
            except DamagedFileError as error:
                _refetch(shard, connect, error)
                mended += 1
    return mended


def _refetch(shard: ShardFolder, connect: Callable[[], Provider], error: DamagedFileError) -> None:
    batch = shard.batch
    # Not once it is cleaned: the provider's copy is deleted then. An import never had one.
    there = batch.stage is Stage.FETCHED and (batch.output_file_id or batch.error_file_id)
    if not there or error.path != shard.responses_path:
        raise error
    shard.save(batch.replace(responses=fetch(shard, batch, connect())))


def with_whole_files(folder: JobPath, connect: Callable[[], Provider], read: Callable[[], T]) -> T:
    """Read from a job's files; fetch damaged ones again where the provider still has them.

    Raises
    ------
    DamagedFileError
        A file is damaged, and the provider cannot be reached or has it no more.
    """
    try:
        return read()
    except DamagedFileError as error:
        try:
            mended = refetch(folder, connect)
        except FrameEnrichError:  # no key, no network: what is wrong is the file
            raise error from None
        # Nothing is damaged now: another process changed the files while they were read, as
        # `withdraw_import` does. What is damaged otherwise raises its error again.
        if not mended:
            return read()
        warn_user(f"{error.problem} It was fetched from the provider again.")
        return read()
