"""Show what a submit would do before it costs anything: preview, estimate and pilot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.answers.arrow_column import Positions
from frameenrich.errors import (
    CredentialsError,
    InputError,
    ParameterError,
)
from frameenrich.identity.dedupe import ShortHashes
from frameenrich.lifecycle.approve import measure_answers
from frameenrich.lifecycle.match import match_frame, require_match
from frameenrich.lifecycle.prompts import prompts_of
from frameenrich.lifecycle.reuse import find_stored_answers
from frameenrich.model import JobSpec
from frameenrich.prepare.check_frame import PartKeys, at_positions, in_whole_frame
from frameenrich.prepare.examples import with_rows
from frameenrich.prepare.options import Plan, key_parts, make_plan
from frameenrich.prepare.submit_options import Options, SubmitOptions
from frameenrich.providers.dialects import address_of
from frameenrich.providers.protocol import Provider
from frameenrich.providers.registry import connect, live_version
from frameenrich.rendering.template_source import Template
from frameenrich.store.folder import JobFolder, JobPath
from frameenrich.store.store import Store, open_store
from frameenrich.verbs.estimate import (
    Counts,
    Estimate,
    FindAnswered,
    check_price,
    estimate_counts,
    estimate_frame,
)
from frameenrich.verbs.job import Job
from frameenrich.verbs.submit import prepare, submit_frame


def pilot(
    frame: pd.DataFrame,
    template: Template,
    model: str,
    *,
    n: int = 5,
    seed: int = 0,
    usage: bool = False,
    **options: Unpack[SubmitOptions],
) -> pd.DataFrame:
    """Answer a few rows now; see ``df.llmbatch.pilot``."""
    # Examples first: those of a review are rows of this frame, and part of every request.
    own = with_rows(Options(**options), frame) if len(frame) else Options(**options)
    return _pilot(lambda: [frame], template, model, own, n=n, seed=seed, usage=usage)


def pilot_parts(
    frames: Callable[[], Iterable[pd.DataFrame]],
    template: Template,
    model: str,
    *,
    n: int = 5,
    seed: int = 0,
    usage: bool = False,
    **options: Unpack[SubmitOptions],
) -> pd.DataFrame:
    """Answer a few rows of a frame that comes in parts, the same as of the whole frame.

    Parameters
    ----------
    frames : callable
        Yields the parts, from the first on; no more than one is held, and the rows that are picked.
    template, model, n, seed, usage, **options
        As ``df.llmbatch.pilot`` takes them.
    """
    own = Options(**options)
    return _pilot(frames, template, model, own, n=n, seed=seed, usage=usage)


def _pilot(
    frames: Callable[[], Iterable[pd.DataFrame]],
    template: Template,
    model: str,
    own: Options,
    *,
    n: int,
    seed: int,
    usage: bool,
) -> pd.DataFrame:
    if n < 1:
        raise ParameterError(f"n={n} asks for no row.", "Give 1 or more.")
    live = live_version(connect(own.provider, own.client, model))
    # The whole frame's keys, not the sample's: the submit after the pilot must not fail on them.
    keys, rows = PartKeys(key_parts(own.key)), 0
    for frame in frames():
        if len(frame):
            with in_whole_frame(rows):
                keys.add(keys.read(frame))
        rows += len(frame)
    if not rows:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    keys.check(frames)
    picked = spread_rows(rows, n, seed)
    sample = _rows_at(frames(), picked)
    # What goes along with a batch is not for live calls, and no part of what they ask.
    own = replace(
        own, provider=live, client=None, metadata=None, completion_window=None, cache=None
    )
    sending = prepare(template, model, own, pilot=True)
    # A pilot is a job of its own rows, marked in its spec: killed, it goes on; and the submit after
    # it takes its answers over.
    with at_positions(picked):
        job = submit_frame(sample, sending)
    return _shown(job, sample, JobPath(sending.store, job.id).open(), usage=usage)


def _rows_at(frames: Iterable[pd.DataFrame], positions: Positions) -> pd.DataFrame:
    """Return the rows at some positions, in order, of a frame that comes in parts."""
    found, start = [], 0
    for frame in frames:
        own = positions[(positions >= start) & (positions < start + len(frame))]
        if len(own):
            found.append(frame.iloc[own - start])
        start += len(frame)
    return found[0] if len(found) == 1 else pd.concat(found)


def spread_rows(rows: int, n: int, seed: int = 0) -> Positions:
    """Pick `n` rows, one out of each n-th of the frame; the same ones for the same seed.

    Examples
    --------
    >>> spread_rows(100, 4).tolist()
    [21, 40, 62, 81]
    >>> spread_rows(3, 5).tolist()
    [0, 1, 2]
    """
    n = min(n, rows)
    # Frames are often sorted: one row out of each slice shows all kinds of them.
    edges = np.linspace(0, rows, n + 1).astype(np.int64)
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def _shown(job: Job, sample: pd.DataFrame, folder: JobFolder, *, usage: bool) -> pd.DataFrame:
    """Return the key, the prompts, and the answers' columns."""
    out = job.collect(sample, usage=usage)
    answers = [name for name in out.columns if name not in sample.columns]
    questions = prompts_of(folder)
    prompts = pd.Series(
        [questions.get(own or "") for own in _ids(sample, folder)], index=out.index, dtype="string"
    )
    table = out[list(job.spec.key or ())].assign(**{f"{job.spec.name}_prompt": prompts})
    return pd.concat([table, out[answers]], axis=1)


def _ids(sample: pd.DataFrame, folder: JobFolder) -> list[str | None]:
    """Return the custom_id of each row's request; None for a row that was skipped."""
    sidecar = folder.sidecar()
    found = require_match(match_frame(sample, folder, sidecar), sample, folder)
    ids: list[str | None] = sidecar["custom_id"].take(pa.array(found.positions)).to_pylist()
    return ids


def estimate(
    frame: pd.DataFrame,
    template: Template,
    model: str,
    **options: Unpack[SubmitOptions],
) -> Estimate:
    """Return what a submit would send and cost; see ``df.llmbatch.estimate``."""
    own = with_rows(Options(**options), frame)
    plan, where = _plan_to_estimate(template, model, own)
    found = measure_answers(where, plan.spec)
    return estimate_frame(frame, plan, found, _answered(plan, where, fresh=own.fresh))


def estimate_parts(
    count: Callable[[JobSpec], Iterable[Counts]],
    columns: Sequence[str],
    template: Template,
    model: str,
    **options: Unpack[SubmitOptions],
) -> Estimate:
    """Estimate as `estimate` does, for a frame that comes in parts.

    Parameters
    ----------
    count : callable
        Counts all parts that have rows, here or elsewhere, by `verbs.estimate.count_frame`.
    columns : sequence of str
        The frame's columns, checked before anything is read of it.
    template, model, **options
        As ``df.llmbatch.submit`` takes them.

    Raises
    ------
    InputError
        Something cannot be used, or there is no row.
    """
    own = Options(**options)
    plan, where = _plan_to_estimate(template, model, own)
    check_price(plan.spec)
    plan.prompt.columns_used(list(columns))
    counts = list(count(plan.spec))
    if not counts:
        raise InputError("The frame is empty.", "Give a frame with at least one row.")
    found = measure_answers(where, plan.spec)
    return estimate_counts(counts, plan, found, _answered(plan, where, fresh=own.fresh))


def _plan_to_estimate(template: Template, model: str, options: Options) -> tuple[Plan, Store]:
    plan = make_plan(template, model, options)
    where = provider_url(options.provider, options.client, model, options.endpoint)
    return plan.sent_to(*where), open_store(options.store)


def _answered(plan: Plan, where: Store, *, fresh: bool) -> FindAnswered:
    """Return a function that finds the requests which the store has usable answers to."""

    def answered(sent: ShortHashes) -> ShortHashes:
        found = None if fresh else find_stored_answers(where, plan.spec, plan.output, sent)
        return np.empty(0, np.uint64) if found is None else found.requests.hashes.short

    return answered


def provider_url(
    provider: str | Provider, client: Any, model: str, endpoint: str
) -> tuple[str, str, str]:
    """Return a provider's name, its url for requests, and its host; needs no key.

    The SDK of a provider that is only named is not imported: that takes longer than pandas.
    """
    known = address_of(provider, endpoint) if isinstance(provider, str) and client is None else None
    if known is not None:
        return str(provider), *known
    try:
        route = connect(provider, client, model)
    # An estimate costs nothing and sends nothing, so it is not to fail for want of a key.
    except CredentialsError:
        return str(provider), endpoint, ""
    return route.name, route.url(endpoint), getattr(route, "server", "")
