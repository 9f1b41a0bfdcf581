"""Scores of answers from the best source a job has; `threshold` and `accept` use them.

The sources, best first: the label's own probability where the endpoint returns it, the share of
several answers that agree, agreement with a second opinion.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from frameenrich.identity.keys import find_keys, sidecar_keys
from frameenrich.lifecycle.collect import UNJUDGED, Collector, Reading
from frameenrich.store.folder import JobFolder, job_folders

if TYPE_CHECKING:
    from frameenrich.evaluation.job_answers import JobAnswers

Floats = npt.NDArray[np.float64]

LOGPROB = "the probability of the label"
VOTES = "the share of {} answers that agree"
SECOND = "agreement with {}"


def field_scores(job: JobAnswers) -> dict[str, tuple[str, Floats]]:
    """Return the source and every row's score for each field that has scores.

    A row without a usable answer, or that the source does not know, has NaN.
    """
    spec, found = job.folder.spec, dict[str, tuple[str, Floats]]()
    confidence, votes = f"{spec.name}_confidence", f"{spec.name}_votes"
    if confidence in job.frame.columns and job.frame[confidence].notna().any():
        (name,) = job.fields  # only a single label has one
        cells = job.frame[confidence].to_numpy(dtype=float, na_value=np.nan)
        return {name: (LOGPROB, cells)}
    if votes in job.frame.columns:
        source = VOTES.format(spec.output.samples)
        shares = _vote_shares(job, votes)
        return {name: (source, column) for name, column in shares.items()}
    second = newest_second(job.folder)
    if second is not None:
        source = SECOND.format(second.spec.model)
        found = {name: (source, column) for name, column in _agreement(job, second).items()}
    return found


def _vote_shares(job: JobAnswers, column: str) -> dict[str, Floats]:
    samples = job.folder.spec.output.samples
    texts = job.frame[column].astype(object).tolist()
    votes = [json.loads(text) if isinstance(text, str) else {} for text in texts]
    shares = {}
    for name in job.fields:
        # The votes on a single value have the empty name.
        own = "" if name == job.folder.spec.name and all("" in v for v in votes if v) else name
        counts = [each.get(own, {}) for each in votes]
        # Of those asked, not of those usable: an answer that failed agrees with none.
        shares[name] = np.array([max(c.values()) / samples if c else np.nan for c in counts])
    return shares


def newest_second(folder: JobFolder) -> JobFolder | None:
    """Return the newest second opinion on a job whose answers are all here."""
    for other in job_folders(folder.store, folder.id):  # the newest first
        # An unfinished one would make scores that change with every call.
        if other.spec.second_of == folder.id and other.read().settled:
            return other
    return None


def _agreement(job: JobAnswers, second: JobFolder) -> dict[str, Floats]:
    """Compare each answer with the second opinion's: 1, 0, or the share of its own answers."""
    keys = sidecar_keys(second.sidecar(columns=second.key_columns))
    with second.opened() as state:
        reading = Reading(job.output, {}, usage=True)
        frame = Collector(state, reading, without=UNJUDGED).whole(None)
    other = type(job)(second, job.output, frame)
    at = find_keys(job.keys, keys)
    known = np.isin(at, other.usable) & np.isin(np.arange(len(at)), job.usable)
    rows = np.flatnonzero(known)
    found = {}
    # By order: a single value is named after its job, so the two jobs' names differ.
    for (name, field), theirs in zip(job.fields.items(), other.fields, strict=False):
        if field.kind not in {"category", "boolean", "integer", "number"}:
            continue  # two free texts with one meaning are hardly ever equal
        scores = np.full(len(at), np.nan)
        pairs = zip(job.values(name, rows), _shares(other, theirs, at[rows]), strict=True)
        scores[rows] = [shares.get(field.spelled(answer), 0.0) for answer, shares in pairs]
        found[name] = scores
    return found


def _shares(
    job: JobAnswers, name: str, rows: npt.NDArray[np.int64]
) -> Iterator[dict[str | None, float]]:
    """Yield for each row the share of each answered value, by its text."""
    column, field = f"{job.folder.spec.name}_votes", job.fields[name]
    if column not in job.frame.columns:
        yield from ({field.spelled(value): 1.0} for value in job.values(name, rows))
        return
    samples = job.folder.spec.output.samples
    for text in job.frame[column].iloc[rows]:
        votes = json.loads(text)
        counts = votes.get("", votes.get(name, {}))
        spelled = field.spelled if field.kind == "category" else str
        yield {spelled(value): count / samples for value, count in counts.items()}
