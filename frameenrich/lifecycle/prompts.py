"""Read the prompts of a job's requests as text."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frameenrich.answers.arrow_column import ArrowColumn
from frameenrich.jsonl import request_ids
from frameenrich.rendering.readable import turns
from frameenrich.store.folder import JobFolder
from frameenrich.store.shard import ShardFolder


def prompts_of(
    folder: JobFolder, wanted: Collection[str] | None = None, shards: Collection[int] | None = None
) -> dict[str, str]:
    """Return the last user message of requests of the first round, by custom_id.

    Parameters
    ----------
    folder : JobFolder
        The job.
    wanted : collection of str, optional
        Which custom_ids; all by default.
    shards : collection of int, optional
        The numbers of the shards that they are in, where that is known.
    """
    texts: dict[str, str] = {}
    # Round 0 only: a later round's last message may be feedback, not the prompt.
    for shard in folder.shards(0):
        if shards is not None and shard.number not in shards:
            continue
        texts.update(_prompts_in(shard, wanted))
    return texts


def prompt_column(
    folder: JobFolder, custom_ids: pa.ChunkedArray, numbers: npt.NDArray[np.int32]
) -> pa.ChunkedArray:
    """Return the last user message of each of some requests of the first round.

    Parameters
    ----------
    folder : JobFolder
        The job.
    custom_ids, numbers
        The requests, and the number of the shard that each is in.
    """
    # One shard after the other: the prompts of no more than one are Python's objects at a time.
    column, filled = ArrowColumn(pa.large_string()), np.full(len(custom_ids), -1)
    for shard in folder.shards(0) if len(custom_ids) else ():
        rows = np.flatnonzero(numbers == shard.number)
        if len(rows):
            own = custom_ids.take(pa.array(rows)).to_pylist()
            texts = dict(_prompts_in(shard, frozenset(own)))
            filled[rows] = np.arange(len(column), len(column) + len(rows))
            column.add([texts.get(custom_id) for custom_id in own])
            column.close()
    return column.take(filled, release=True)


def _prompts_in(shard: ShardFolder, wanted: Collection[str] | None) -> Iterator[tuple[str, str]]:
    """Yield the custom_id and the last user message of a shard's requests."""
    with shard.open_requests() as lines:
        for custom_id, line in request_ids(lines):
            if wanted is None or custom_id in wanted:
                said = turns(json.loads(line)["body"])
                user = (text for role, text in reversed(said) if role == "user")
                yield custom_id, next(user, said[-1][1] if said else "")
