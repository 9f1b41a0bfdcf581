"""A job at a glance: what its card shows, read in a moment however large the job is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd

from frameenrich import regenerate as again
from frameenrich.card import Card
from frameenrich.cost import JobUsage, show_usd
from frameenrich.errors import OutputError
from frameenrich.model import FLAGGED, STATUS_ORDER, Batch
from frameenrich.store import JobFolder, ShardFolder

MAX_RESPONSE_BYTES = 8_000_000
"""So much is parsed in a fraction of a second; of larger jobs the batches' own counts are shown."""

_Shards = Sequence[tuple[ShardFolder, Batch]]


def glance(
    folder: JobFolder,
    answers: Callable[[], pd.DataFrame],
    used: Callable[[], JobUsage],
    reused: int,
) -> Card:
    """What the card of a job shows.

    Parameters
    ----------
    folder : JobFolder
        The job.
    answers : callable
        Gives the answers on disk as `Job.collect` does; called only where they are few.
    used : callable
        Gives what they took, as `Job.usage` does; likewise.
    reused : int
        How many answers the store had already.
    """
    shards = [(shard, shard.batch) for shard in folder.all_shards()]
    frame = _judged(folder, answers, shards)
    counts, unit = (
        (_counted(folder, shards), "requests") if frame is None else (_rows(folder, frame), "rows")
    )
    return Card(
        id=folder.id,
        title=f"{folder.spec.model} through {folder.spec.provider}",
        counts=counts,
        unit=unit,
        shards=[(shard.round, shard.number, batch) for shard, batch in shards],
        facts=dict(_facts(folder, None if frame is None else used(), reused)),
        next_calls=_next_calls(folder, counts, shards),
        now=time.time(),
    )


def _judged(
    folder: JobFolder, answers: Callable[[], pd.DataFrame], shards: _Shards
) -> pd.DataFrame | None:
    """The answers, where reading them takes no time; a parser may be another session's."""
    if sum(shard.response_bytes for shard, _ in shards) > MAX_RESPONSE_BYTES:
        return None
    if folder.row_count * _BYTES_PER_ROW > MAX_RESPONSE_BYTES:
        return None
    try:
        return answers()
    except OutputError:
        return None


_BYTES_PER_ROW = 100
"""What a row's own places in the answers' columns weigh beside a response's parsing."""


def _rows(folder: JobFolder, frame: pd.DataFrame) -> dict[str, int]:
    found = frame[f"{folder.spec.name}_status"].value_counts()
    return {str(s): int(found[str(s)]) for s in reversed(STATUS_ORDER) if str(s) in found}


def _counted(folder: JobFolder, shards: _Shards) -> dict[str, int]:
    """What the batches of round 0 say of themselves; a count that is not known is pending."""
    batches = [batch for shard, batch in shards if shard.round == 0]
    done = sum(batch.completed or 0 for batch in batches)
    failed = sum(batch.failed or 0 for batch in batches)
    known = all(batch.total for batch in batches)
    total = sum(batch.total or 0 for batch in batches) if known else folder.row_count
    counts = {"answered": done, "failed": failed, "pending": max(total - done - failed, 0)}
    return {name: n for name, n in counts.items() if n}


def _facts(folder: JobFolder, used: JobUsage | None, reused: int) -> Iterator[tuple[str, str]]:
    if used is not None and used.requests:
        yield "tokens", _told(used)
    if reused:
        yield "reused", f"{reused:,} answers that this store had already"
    rounds = folder.rounds()
    if rounds > 1:
        yield "rounds", str(rounds)
    if told := again.told(folder):
        yield "asked again", "; ".join(told)
    yield "folder", _short(folder.path) if folder.store.local else folder.path


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def _told(used: JobUsage) -> str:
    """Tokens of every round, and US dollars where they are known."""
    tokens = f"{used.prompt_tokens:,} in, {used.completion_tokens:,} out"
    return tokens if used.usd is None else f"{tokens}, {show_usd(used.usd)}"


def _next_calls(folder: JobFolder, counts: Mapping[str, int], shards: _Shards) -> list[str]:
    if all(batch.settled for _, batch in shards):
        flagged = any(status in FLAGGED for status in counts)
        more = ["job.show_flagged()", "job.regenerate()"] if flagged else []
        return ["df.llmbatch.collect()", *more, 'job.report("report.html")']
    if folder.spec.provider == "file":
        return ["job.requests", "job.import_responses(path)"]
    return ["df.llmbatch.collect(wait=True)", "job.status()", "job.cancel()"]
