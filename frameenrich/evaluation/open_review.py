"""Find the reviews of a job, and read the records of their draws."""

from __future__ import annotations

import json
import re

import msgspec
import pyarrow as pa

from frameenrich.errors import InputError
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.review import DRAW_METADATA, DrawRecord, Review
from frameenrich.evaluation.review_files import draw_path, kept_sheets, read_draw, review_ids
from frameenrich.identity.keys import find_keys
from frameenrich.store.local import unreadable
from frameenrich.store.shard import DAMAGE
from frameenrich.text import shortened


def reviews(job: JobAnswers) -> list[Review]:
    """Return all reviews of a job, oldest first."""
    found = [open_review(job, review_id) for review_id in review_ids(job.folder)]
    return sorted(found, key=lambda review: review.record.drawn_at)


def open_review(job: JobAnswers, review_id: str) -> Review:
    """Return a review by its id.

    Raises
    ------
    InputError
        The job has none of that id.
    StoreError
        The record of its draw is damaged.
    """
    path = draw_path(job.folder, review_id)
    # The id becomes a part of a path, so its form is checked first; a user may have given anything.
    well_formed = re.fullmatch("[0-9a-f]{12}", str(review_id))
    if not (well_formed and job.folder.store.exists(path)):
        ids = ", ".join(review.id for review in reviews(job)) or "none"
        raise InputError(
            f"The job {job.folder.id} has no review {review_id!r}.", f"Its reviews are: {ids}."
        )
    table = read_draw(job.folder, review_id)
    try:
        record = msgspec.convert(json.loads(table.schema.metadata[DRAW_METADATA]), DrawRecord)
        if (record.id, record.job) != (review_id, job.folder.id):
            raise ValueError("it is of another review")
        _check_rows(table, record, job)
    except DAMAGE as error:
        raise unreadable(path, error) from error
    return Review(job, record, table)


def _check_rows(table: pa.Table, record: DrawRecord, job: JobAnswers) -> None:
    """Refuse rows that no draw of the job has: somebody else may have written them."""
    for name in ("stratum", "answer_hash"):
        if not pa.types.is_string(table.schema.field(name).type):
            raise TypeError(f"its column {name} holds no text")
    if strange := set(table["stratum"].to_pylist()) - record.strata.keys():
        raise ValueError(f"it knows no stratum {shortened(str(strange.pop()))}")
    keys = table.select([name for name in table.column_names if name.startswith("key_")])
    if (find_keys(keys, job.keys) < 0).any():
        raise ValueError("it has rows that the job does not have")


def with_top_ups(job: JobAnswers, review: Review | str | None) -> list[Review]:
    """Return a review's first draw and its top-ups, in order.

    By default of the newest review that somebody judged, or of the newest where nobody did.
    """
    found = {each.id: each for each in reviews(job)}
    if review is None:
        if not found:
            return []
        # A draw that waits for its reviewer must not hide the figures of the one before.
        judged = [each for each in found.values() if kept_sheets(job.folder, each.id)]
        first = (judged or list(found.values()))[-1]
    elif isinstance(review, Review):
        first = found.get(review.id) or open_review(job, review.id)
    else:
        first = open_review(job, review)
    # Any review of a chain names the whole chain: back to its first draw, then forward. Each is
    # passed once: in a store that somebody else wrote, a chain may bite its tail.
    left = dict(found)
    while first.record.extends in left:
        first = left.pop(first.record.extends)
    chain = [first]
    for each in found.values():
        if each.record.extends in {one.id for one in chain}:
            chain.append(each)
    return chain
