"""Fetch what an ended batch left, and compare it with the provider's counts.

A provider may show the end of a batch before its files: no file yet, a file that still grows, a
gateway's error in place of the content. Rows without a line would be asked, and paid, again. So
lines are counted; where the batch counts more answers, it is looked at again for a bounded time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import IO

from frameenrich.answers.judge import read_response
from frameenrich.errors import ProviderError
from frameenrich.jsonl import names_request, split_lines
from frameenrich.lifecycle.outgoing import requests_left_out
from frameenrich.model import Batch, BatchStatus, Proof, Stage, begun_at
from frameenrich.providers.protocol import IncompleteDownloadError, Provider
from frameenrich.store.folder import JobFolder
from frameenrich.store.local import READ_BYTES
from frameenrich.store.proof import prove
from frameenrich.store.shard import ShardFolder


def fetch(shard: ShardFolder, batch: Batch, provider: Provider) -> Proof:
    """Fetch what an ended batch left at the provider and return the file's proof."""
    with shard.write_responses() as sink:
        if batch.imported:  # by an earlier version, into this very file
            sink.writelines(shard.read_responses())
        provider.fetch(batch, sink)
        sink.seek(0)
        return prove([sink])


def fetch_short_again(folder: JobFolder, connect: Callable[[], Provider]) -> None:
    """Read once more what batches left that fell short, before their rows are asked anew.

    What came late, or behind a gateway that had its bad hour, was paid for. The caller holds the
    job's lock; `connect` gives the provider, and is called only where there is such a batch.

    Raises
    ------
    ProviderError
        A file cannot be had now; the batch counts as not fetched yet.
    """
    for shard in folder.all_shards():
        batch = shard.batch
        if batch.short is None or batch.stage is not Stage.FETCHED or batch.id is None:
            continue
        # Not fetched again before it is: a process that is killed here goes on as after its end.
        shard.save(batch.replace(stage=Stage.ENDED, responses=None))
        fetch_responses(shard, shard.batch, connect(), last=True)


def fetch_responses(
    shard: ShardFolder, batch: Batch, provider: Provider, *, last: bool = False
) -> None:
    """Write what an ended batch left to disk; settle it where no more will come.

    The `last` fetch settles it whatever came.

    Raises
    ------
    ProviderError
        A file cannot be had now; what came before is kept.
    """
    if batch.short is not None:
        with contextlib.suppress(ProviderError):  # what it said before will do
            batch = provider.poll(batch)
            if not batch.ended:  # it had not ended, whatever was said; its real end begins anew
                batch = batch.replace(short=None, short_since=None)
            shard.save(batch)
        if not batch.ended:
            return
    why, lines = None, 0
    if batch.output_file_id or batch.error_file_id:
        with shard.write_responses() as sink:
            if batch.imported:  # by an earlier version, into this very file
                sink.writelines(shard.read_responses())
            start = sink.tell()
            try:
                provider.fetch(batch, sink)
            # Kept and looked at again: the lines that came are answers that were paid for.
            except IncompleteDownloadError as error:
                why = error.problem.rstrip(".")
            spec = shard.job.spec
            # Requests that came ready keep their own names, which end in no tag.
            lines = _count_lines(sink, start, spec.tag if spec.messages else "")
            if batch.short is not None and not batch.imported:
                _keep_earlier(shard, sink)
            sink.seek(0)
            batch = batch.replace(responses=prove([sink]))
    # Counts decide no row: too few lines are a reason to fetch again for `confirm_seconds`, never
    # one to call a row done or missing at once.
    why = _shortfall(shard, batch, lines) or why
    since = begun_at(batch.short_since)
    if why is not None and not last and time.time() - since < shard.job.spec.confirm_seconds:
        # Without a proof, as the next fetch writes the file anew and may be killed at that.
        shard.save(batch.replace(short=why, short_since=since, responses=None))
    else:
        shard.save(batch.replace(short=why, short_since=None, stage=Stage.FETCHED))


def _count_lines(sink: IO[bytes], start: int, tag: str) -> int:
    """Count the lines that name a request; those of another job are no answers to this one's."""
    sink.seek(start)
    pieces: Iterable[bytes] = iter(lambda: sink.read(READ_BYTES), b"")
    lines = sum(1 for line in split_lines(pieces) if names_request(line, tag))
    sink.seek(0, 2)
    return lines


def _keep_earlier(shard: ShardFolder, sink: IO[bytes]) -> None:
    """Add the lines of an earlier fetch that this one lacks, so that no answer is lost."""
    sink.seek(0)
    pieces: Iterable[bytes] = iter(lambda: sink.read(READ_BYTES), b"")
    found = {r.custom_id for r in map(read_response, split_lines(pieces)) if r is not None}
    sink.seek(0, 2)
    earlier = shard.job.store.open_pieces(shard.responses_path)
    for line in split_lines(piece for file in earlier for piece in iter(file.readline, b"")):
        response = read_response(line)
        if response is not None and response.custom_id not in found:
            sink.write(line + b"\n")


def _tells_nothing(batch: Batch) -> bool:
    """Tell whether a batch that may have run in part says nothing of what it did."""
    # One that failed did not run; one that names its files or counts says how far it came.
    stopped = batch.status in {BatchStatus.EXPIRED, BatchStatus.CANCELLED}
    silent = batch.completed is None and batch.failed is None
    return stopped and silent and not (batch.output_file_id or batch.error_file_id)


def _shortfall(shard: ShardFolder, batch: Batch, lines: int) -> str | None:
    """Describe the shortfall, where fewer lines came than the batch counts answers."""
    sent = shard.request_count - len(requests_left_out(shard, batch))
    if not lines and _tells_nothing(batch):
        return f"the batch is {batch.status}, and tells neither files nor counts"
    counted = min((batch.completed or 0) + (batch.failed or 0), sent)
    # A completed batch has a line for every request, whatever it counts.
    if lines >= (sent if batch.status == BatchStatus.COMPLETED else counted):
        return None
    if lines >= counted:
        return f"the batch is completed, and its files have {lines:,} lines for {sent:,} requests"
    return f"the batch counts {counted:,} answers, and its files have {lines:,} lines"
