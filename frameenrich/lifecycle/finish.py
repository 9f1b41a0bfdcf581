"""End a job that is stuck: cancel what runs, and fetch what that leaves.

What is then without an answer goes out as a later round (`lifecycle.regenerate`), to another
provider. Each step is on disk before the next, so a second call goes on where the first one died:
batches of the new provider are not cancelled but finished.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from frameenrich.lifecycle.regenerate import RetryOptions, changed_line
from frameenrich.lifecycle.step import withdraw
from frameenrich.lifecycle.usage import unanswered_requests
from frameenrich.lifecycle.wait import Deadline, pauses, timed_out
from frameenrich.providers.protocol import Provider, retry_for
from frameenrich.store.folder import JobFolder
from frameenrich.store.shard import ShardFolder


def withdraw_all(
    folder: JobFolder,
    provider: Provider,
    keep: str | None,
    deadline: Deadline,
    poll_seconds: float | None,
) -> None:
    """Cancel all batches of other providers than `keep`, and wait until their answers are on disk.

    Raises
    ------
    WaitTimeoutError
        The time was up; the batches go on to their end.
    """
    # Kept over all polls: a server refuses to cancel a batch that it is cancelling.
    ended_tags = set[str]()
    for pause in pauses(poll_seconds):
        with retry_for(deadline.left):
            left = withdraw(folder, provider, keep, ended_tags)
        if not left:
            return
        if deadline.left <= 0:
            raise timed_out(folder, provider, deadline.seconds)
        time.sleep(min(pause, max(deadline.left, 0)))


def withdrawn_shards(folder: JobFolder, keep: str | None) -> list[ShardFolder]:
    """Return the shards that `withdraw_all` would cancel."""
    return [s for s in folder.all_shards() if not s.batch.settled and s.batch.provider != keep]


def lines_to_move(shards: list[ShardFolder], options: RetryOptions) -> Iterator[bytes]:
    """Yield the requests of some shards that may still be unanswered, as they would go elsewhere.

    Raises
    ------
    ParameterError
        The other provider cannot carry one of them.
    """
    for shard in shards:
        for custom_id, line in unanswered_requests(shard):
            # Worked out before anything is cancelled: what the other provider refuses is refused
            # here.
            yield changed_line(custom_id, line, options, shard.job.spec)
