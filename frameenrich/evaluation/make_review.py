"""Draw rows of a job to be judged, and record the draw."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from frameenrich.errors import InputError, ParameterError
from frameenrich.evaluation.draw import WHOLE, draw_rows, pooled
from frameenrich.evaluation.job_answers import JobAnswers, as_text
from frameenrich.evaluation.open_review import open_review, with_top_ups
from frameenrich.evaluation.review import ANSWER, DRAW_METADATA, DrawRecord, Review
from frameenrich.evaluation.review_files import draw_path, review_path
from frameenrich.model import RowStatus
from frameenrich.text import kind_of


def make_review(
    job: JobAnswers,
    n: int,
    *,
    by: str | None = None,
    seed: int = 0,
    extend: Review | str | None = None,
) -> Review:
    """Draw rows of a job that has ended and record the draw; the same call finds the same review.

    Parameters
    ----------
    job : JobAnswers
        The job's answers as they are now.
    n : int
        How many rows; all usable ones where there are fewer.
    by : str, optional
        Stratify by the answers to this field (``"answer"``: to the only one).
    seed : int
        Another number is a new, independent draw.
    extend : Review or str, optional
        Top up this review: `by` and `seed` are its own.

    Raises
    ------
    InputError
        Rows are still pending, or none is usable.
    ParameterError
        `n`, `by` or `extend` cannot be used.
    """
    # `type`, since isinstance would take True for 1.
    if type(n) is not int or n < 1:
        raise ParameterError(f"n={n!r} rows cannot be drawn.", "Give a whole number above 0.", n=n)
    if type(seed) is not int or not -(2**63) <= seed < 2**63:
        raise ParameterError(
            f"seed={seed!r} is not a whole number.", "Give a whole number.", seed=seed
        )
    _require_ended(job)
    chain = [] if extend is None else with_top_ups(job, extend)
    if chain:
        by, seed = chain[0].record.by, chain[0].record.seed
    strata, pools = strata_of(job, field_of(job, by), n, chain)
    keys = job.keys.take(pa.array(job.fresh))
    sample = draw_rows(keys, strata, n, seed=seed, job_id=job.folder.id, earlier=_had(job, chain))
    if not len(sample.positions):
        raise InputError(
            f"All {len(job.fresh):,} usable rows of the job {job.folder.id} are drawn already"
            f"{', or are spent' if len(job.fresh) < len(job.usable) else ''}.",
            "Judge those: nothing is left to draw.",
        )
    # From here on positions are the job's; the draw's are among the fresh rows only.
    positions = job.fresh[sample.positions]
    hashes = job.hashes(positions)
    drawn = keys.take(pa.array(sample.positions))
    extends = chain[-1].id if chain else None
    named = [job.folder.id, n, seed, by, extends, drawn.to_pylist(), hashes]
    # The id follows from the draw and its answers, so the same call finds the same review.
    digest = xxhash.xxh3_128_hexdigest(json.dumps(named, default=str).encode())
    record = DrawRecord(
        id=digest[:12],
        job=job.folder.id,
        n=n,
        seed=seed,
        by=by,
        extends=extends,
        drawn_at=time.time(),
        strata=sample.strata,
        pools=pools,
        answers=xxhash.xxh3_128_hexdigest("".join(hashes).encode()),
    )
    size = len(positions)
    columns = {
        "order": pa.array(np.arange(size, dtype=np.int32)),
        "stratum": pa.array(sample.stratum, pa.string()),
        "inclusion_probability": pa.array(sample.inclusion_probability),
        "seed": pa.array([seed] * size, pa.int64()),
        "drawn_at": pa.array([record.drawn_at] * size, pa.float64()),
        "answer_hash": pa.array(hashes, pa.string()),
    }
    for name, column in columns.items():
        drawn = drawn.append_column(name, column)
    return _recorded(job, record, drawn)


def _require_ended(job: JobAnswers) -> None:
    pending = int(job.have(RowStatus.PENDING).sum())
    if pending:
        raise InputError(
            f"{pending:,} rows of the job {job.folder.id} are still pending, and could not be "
            "drawn.",
            "Review when the job has ended: job.wait().",
        )
    if not len(job.usable):
        raise InputError(
            f"The job {job.folder.id} has no usable row to review.",
            "job.flagged() says why; job.regenerate() asks again.",
        )
    if not len(job.fresh):
        raise InputError(
            f"All {len(job.usable):,} usable rows of the job {job.folder.id} are spent: "
            f"{'; '.join(job.spent_notes)}.",
            "Submit more rows under the same name, and review the new ones.",
        )


def field_of(job: JobAnswers, by: str | None) -> str | None:
    """Resolve `by` to the field whose answers are the strata."""
    if by is None:
        return None
    labelled = [name for name, field in job.fields.items() if field.labels]
    if not isinstance(by, str):
        raise ParameterError(f"by= is {kind_of(by)}, which is not a text.", "Name a field.")
    if by == ANSWER and by not in job.fields and len(job.fields) == 1:
        by = next(iter(job.fields))
    if by not in labelled:
        known = ", ".join(map(repr, labelled))
        fix = f"Give one of {known}" if labelled else "Leave it out: no field has labels"
        raise ParameterError(f"by={by!r} is not a field with labels of this job.", f"{fix}.", by=by)
    return by


def strata_of(
    job: JobAnswers, by: str | None, n: int, chain: list[Review]
) -> tuple[list[str], Mapping[str, str]]:
    """Return the stratum of each row that can be drawn, and the stratum of each answer."""
    if by is None:
        return [WHOLE] * len(job.fresh), {}
    texts = [as_text(value) for value in job.values(by, job.fresh)]
    # A top-up keeps the first draw's strata: pooled anew, its rows could move to others.
    known = chain[0].record.pools if chain else {}
    pools = dict(known) or pooled(texts, n)
    # A label that nobody had answered when the review began stands for itself.
    pools |= {text: text for text in dict.fromkeys(texts) if text not in pools}
    return [pools[text] for text in texts], pools


def _had(job: JobAnswers, chain: list[Review]) -> npt.NDArray[np.int64]:
    """Return the positions, among the fresh rows, of earlier drawn rows that still count."""
    rows = [review.positions[review.counts] for review in chain]
    found = np.concatenate(rows) if rows else np.empty(0, np.int64)
    # Safe, as rows that count are not spent and usable: all of them are in `fresh`, sorted.
    return np.searchsorted(job.fresh, found)


def _recorded(job: JobAnswers, record: DrawRecord, draw: pa.Table) -> Review:
    """Write the draw whole or not at all; an existing one is never changed."""
    folder = job.folder
    path = draw_path(folder, record.id)
    with folder.lock():
        # Under the lock: of two equal calls at once the second finds the first one's draw.
        if folder.store.exists(path):
            return open_review(job, record.id)
        folder.store.make_folder(review_path(folder, record.id))
        metadata = {DRAW_METADATA: json.dumps(asdict(record)).encode()}
        table = draw.replace_schema_metadata(metadata)
        with folder.store.write_whole(path) as file:
            pq.write_table(table, file)
    return Review(job, record, table)
