"""Read the prompts of a job's requests as text."""

from __future__ import annotations

import json
from collections.abc import Collection

from frameenrich.jsonl import request_ids
from frameenrich.rendering.readable import turns
from frameenrich.store.folder import JobFolder


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
        with shard.open_requests() as lines:
            for custom_id, line in request_ids(lines):
                if wanted is None or custom_id in wanted:
                    said = turns(json.loads(line)["body"])
                    user = (text for role, text in reversed(said) if role == "user")
                    texts[custom_id] = next(user, said[-1][1] if said else "")
    return texts
