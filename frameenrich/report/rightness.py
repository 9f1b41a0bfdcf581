"""What a report says of how right the answers are: a figure with bounds, or how to get one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from frameenrich.evaluation.accuracy import right_share
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.open_review import reviews
from frameenrich.evaluation.verdicts import reviewed_fields

_FIRST_REVIEW = 100


@dataclass(frozen=True)
class Right:
    """One field's figure; ``share`` and ``about`` are texts for people."""

    field: str
    share: str
    about: str


def rights(job: JobAnswers) -> Iterator[Right]:
    """Yield a figure for each field that was reviewed; none where nobody judged a row."""
    if not job.fields or not reviews(job):
        return
    for name, reviewed in reviewed_fields(job).items():
        interval = right_share(reviewed)
        if interval.n:
            bounds = "" if interval.bounded else f"; no bounds: {interval.method}"
            notes = "".join(f"; {note}" for note in reviewed.design.notes)
            yield Right(name, str(interval), f"{interval.n:,} reviewed{bounds}{notes}")


def review_call(job: JobAnswers) -> str | None:
    """Return the call that draws rows to review; None where there are none."""
    if not job.fields or not len(job.usable):
        return None
    return f"df.llmbatch.review({job.folder.id!r}, n={min(_FIRST_REVIEW, len(job.usable))})"
