"""List the jobs of a store for a person: how many rows are ok, and what each job cost."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.answers.class_rules import stored_output
from frameenrich.answers.output import Output
from frameenrich.errors import OutputError, StoreError, warn_user
from frameenrich.lifecycle.results import read_results
from frameenrich.lifecycle.usage import job_usage, prices_of
from frameenrich.model import FLAGGED, JobSpec, RowStatus
from frameenrich.pricing.money import Budget
from frameenrich.store.cleanup import folder_size
from frameenrich.store.folder import JobPath, JobState
from frameenrich.store.listing import MOMENT, job_paths, to_frame
from frameenrich.store.store import StoreLike, open_store
from frameenrich.text import age_text, size_text
from frameenrich.verbs.signatures import takes_options_of

_COLUMNS = {
    "job": "string",
    "name": "string",
    "pilot": "boolean",
    "model": "string",
    "provider": "string",
    "prompt": "string",
    "rows": "Int64",
    "ok": "Int64",
    "flagged": "Int64",
    "usd": "Float64",
    "age": "string",
    "size": "string",
    "created": MOMENT,
    "changed": MOMENT,
    "rounds": "Int64",
    "batches": "string",
    "settled": "boolean",
    "bytes": "Int64",
}


_MAX_RESPONSE_BYTES = 100_000_000
"""This much is read in two or three seconds; a slower list would not be used."""


_PROMPT_LETTERS = 48


@takes_options_of()
def jobs(store: StoreLike = None) -> pd.DataFrame:
    """List the jobs of a store, the newest first, one a row; asks no provider.

    Returns
    -------
    DataFrame
        Columns ``job``, ``name``, ``pilot``, ``model``, ``provider``, ``prompt`` (the first words
        of its template), ``rows``, ``ok`` and ``flagged`` (rows whose answers are here), ``usd``
        (so far; ``<NA>`` where a price is not known), ``age``, ``size``, ``created`` and
        ``changed`` (UTC), ``rounds``, ``batches`` (their statuses, or ``damaged``), ``settled``
        (whether every answer is here) and ``bytes`` (of its folder).
        ``ok``, ``flagged`` and ``usd`` are counted in the newest jobs, up to 100 MB of responses
        together, and ``<NA>`` in those beyond, as in jobs whose parser is another session's:
        `Job.collect` and `Job.usage` tell them of any job.

    Warns
    -----
    FrameEnrichWarning
        A job's files are damaged; the message names one of them.
    """
    listed = [_listed(path) for path in job_paths(open_store(store))]
    # A damaged job has no time and goes last: it is listed all the same, or nobody would find it.
    listed.sort(key=lambda pair: pair[0].get("created", 0.0), reverse=True)
    left = _MAX_RESPONSE_BYTES
    for row, state in listed:
        if state is not None:
            # Newest first, and never a part of a job: half a count would look like a whole one.
            left -= sum(shard.response_bytes for shard in state.all_shards())
            row.update(_counted(state) if left >= 0 else {})
    return to_frame([row for row, _ in listed], _COLUMNS)


def _listed(path: JobPath) -> tuple[dict[str, Any], JobState | None]:
    size = folder_size(path)
    known: dict[str, Any] = {
        "job": path.id,
        "bytes": size.size_bytes,
        "size": size_text(size.size_bytes),
        "changed": size.changed_at,
    }
    try:
        state = path.read()
        return known | {
            "name": state.spec.name,
            "pilot": state.spec.pilot,
            "model": state.spec.model,
            "provider": state.spec.provider,
            "prompt": _first_words(state.spec),
            "rows": state.row_count,
            "age": age_text(time.time() - state.created_at),
            "created": state.created_at,
            "rounds": state.rounds(),
            "batches": ", ".join(batch.status for batch in state.batches),
            "settled": state.settled,
        }, state
    except StoreError as error:
        warn_user(str(error))
        return known | {"batches": "damaged"}, None


def _first_words(spec: JobSpec) -> str | None:
    """Return the start of the last message; those before it are often alike in all jobs."""
    # Ready requests have no template; each carries a prompt of its own.
    if not spec.messages:
        return None
    text = " ".join(spec.messages[-1].content.split())
    if len(text) <= _PROMPT_LETTERS:
        return text
    return text[:_PROMPT_LETTERS].rpartition(" ")[0].rstrip() + " …"


def _counted(state: JobState) -> dict[str, Any]:
    """Count rows by what their answers are, and what was paid for them."""
    try:
        # First, as the cost is known even where the answers cannot be judged.
        used = job_usage(state, prices_of(state, Budget()))
        # A parser is a function of another session, so rows cannot be judged without it.
        if state.spec.output.kind == "parser":
            return {"usd": used.usd}
        output = stored_output(state.path, state.id, Output(state.spec.output))
        found = read_results(state, output, values="none")
        # Judged as `collect` does it, never by the provider's counts: `ok` means one thing
        # everywhere.
    except OutputError:  # its class is not to be found here
        return {"usd": used.usd}
    except StoreError as error:
        warn_user(str(error))
        return {}
    counts = found.table.counts(found.slots[np.flatnonzero(found.slots >= 0)])
    flagged = sum(n for status, n in counts.items() if status in FLAGGED)
    return {"ok": counts.get(RowStatus.OK, 0), "flagged": flagged, "usd": used.usd}
