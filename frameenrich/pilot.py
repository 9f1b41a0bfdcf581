"""A few rows answered at once, to be looked at before all are paid for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.column import Positions
from frameenrich.errors import InputError, ParameterError
from frameenrich.gather import match_frame, refuse_mismatch
from frameenrich.job import Job, StoreLike
from frameenrich.keys import check_keys, key_names, read_keys
from frameenrich.plan import Template, key_parts
from frameenrich.preview import turns
from frameenrich.providers.base import Provider, connect, one_by_one, request_ids
from frameenrich.store import JobFolder, open_store
from frameenrich.verbs import submit


def pilot(
    frame: pd.DataFrame,
    template: Template,
    model: str,
    *,
    n: int = 5,
    seed: int = 0,
    usage: bool = False,
    provider: str | Provider = "openai",
    client: Any = None,
    store: StoreLike = None,
    key: Any = None,
    **wishes: Any,
) -> pd.DataFrame:
    """Ask for a few rows now; see ``df.llmbatch.pilot``."""
    if n < 1:
        raise ParameterError(f"n={n} asks for no row.", "Give 1 or more.")
    if len(frame) == 0:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    route = one_by_one(connect(provider, client, model))
    check_keys(read_keys(frame, key_parts(key)), key_names(frame, key_parts(key)))
    sample = frame.iloc[spread_rows(len(frame), n, seed)]
    job = submit(
        sample, template, model, provider=route, store=store, key=key, pilot=True, **wishes
    )
    return _shown(job, sample, open_store(store).job(job.id), usage=usage)


def spread_rows(rows: int, n: int, seed: int = 0) -> Positions:
    """Positions of `n` rows, one out of each n-th of the frame; the same for the same seed.

    Examples
    --------
    >>> spread_rows(100, 4).tolist()
    [21, 40, 62, 81]
    >>> spread_rows(3, 5).tolist()
    [0, 1, 2]
    """
    n = min(n, rows)
    edges = np.linspace(0, rows, n + 1).astype(np.int64)
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def _shown(job: Job, sample: pd.DataFrame, folder: JobFolder, *, usage: bool) -> pd.DataFrame:
    """The key, what was asked, and the answers' columns."""
    out = job.collect(sample, usage=usage)
    answers = [name for name in out.columns if name not in sample.columns]
    asked = _questions(folder)
    prompts = pd.Series(
        [asked.get(own or "") for own in _ids(sample, folder)], index=out.index, dtype="string"
    )
    table = out[list(job.spec.key or ())].assign(**{f"{job.spec.name}_prompt": prompts})
    return pd.concat([table, out[answers]], axis=1)


def _ids(sample: pd.DataFrame, folder: JobFolder) -> list[str | None]:
    """The custom_id of each row's request; None for a row that was skipped."""
    sidecar = folder.sidecar()
    found = refuse_mismatch(match_frame(sample, folder, sidecar), sample, folder)
    ids: list[str | None] = sidecar["custom_id"].take(pa.array(found.positions)).to_pylist()
    return ids


def _questions(folder: JobFolder) -> dict[str, str]:
    """What each request of a job's first round asks, as a person reads it."""
    texts: dict[str, str] = {}
    for shard in folder.shards(0):
        with shard.open_requests() as lines:
            for custom_id, line in request_ids(lines):
                asked = turns(json.loads(line)["body"])
                texts[custom_id] = next(
                    (text for role, text in reversed(asked) if role == "user"), asked[-1][1]
                )
    return texts
