"""Figures from a field's reviewed rows, as a report draws them: shares, confusion, scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from frameenrich.evaluation.calibration import Calibration
from frameenrich.evaluation.evaluate import evaluate_fields
from frameenrich.evaluation.field_figures import Field
from frameenrich.evaluation.intervals import MissingExtraError
from frameenrich.evaluation.job_answers import JobAnswers
from frameenrich.evaluation.open_review import reviews
from frameenrich.evaluation.review import Review
from frameenrich.evaluation.verdicts import reviewed_fields

_MOST_LABELS = 12
"""A larger confusion matrix cannot be read; the labels with the most rows are shown."""

_WIDE, _HIGH = 320.0, 200.0
"""The sides of a curve's picture, as the page draws its axes."""


@dataclass(frozen=True)
class Share:
    """A label's share of the answers and of the truth; ``low`` is None without bounds."""

    label: str
    counted: float
    corrected: float
    low: float | None
    high: float | None
    note: str


@dataclass(frozen=True)
class Dot:
    """One bin of the reliability curve, in the picture's coordinates."""

    x: float
    y: float
    low: float
    high: float
    summary: str


@dataclass(frozen=True)
class Scores:
    """The quality of a field's scores, as two curves.

    ``dots`` are the reliability curve, ``risk`` the points of the risk-coverage curve; ``worst`` is
    the share at its top.
    """

    summary: str
    dots: tuple[Dot, ...]
    risk: str
    worst: float


@dataclass(frozen=True)
class Check:
    """Everything drawn from one field's reviewed rows.

    ``confusion`` has a row for each of ``labels``: how many reviewed rows with that answer have
    each truth.
    """

    field: str
    shares: tuple[Share, ...] = ()
    labels: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    left_out: int = 0
    scores: Scores | None = None

    @property
    def largest(self) -> float:
        """The end of the bars' scale."""
        ends = [max(s.counted, s.corrected, s.high or 0) for s in self.shares]
        return max(ends, default=1.0) or 1.0


def checks(job: JobAnswers) -> Iterator[Check]:
    """Yield a check for each reviewed field; none without reviews, or without SciPy."""
    # Judging reads all prompts of the job, which a report without reviews need not wait for.
    if not job.fields or not reviews(job):
        return
    judged = reviewed_fields(job)
    if not judged:
        return
    sources = job.score_sources
    for name, field in evaluate_fields(job.folder.id, judged).each.items():
        try:
            labels, confusion, left_out = _confusion(field)
            scores = _scores(field.calibration, sources.get(name, "the score"))
            yield Check(name, tuple(_shares(field)), labels, confusion, left_out, scores)
        except MissingExtraError:  # the headline says what to install
            return


def _shares(field: Field) -> Iterator[Share]:
    table = field.shares
    if table is None:
        return
    for label, row in table.sort_values("counted", ascending=False, kind="stable").iterrows():
        bounded = not math.isnan(row["low"])
        yield Share(
            str(label).lower() if isinstance(label, bool) else str(label),
            float(row["counted"]),
            float(row["corrected"]),
            float(row["low"]) if bounded else None,
            float(row["high"]) if bounded else None,
            str(row["note"]),
        )


def _confusion(field: Field) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...], int]:
    table = field.confusion
    if table is None:
        return (), (), 0
    # By rows and columns together: a label that is often true and never answered belongs in the
    # picture.
    sizes = table.sum(axis=0) + table.sum(axis=1)
    kept = sizes.sort_values(ascending=False, kind="stable").index[:_MOST_LABELS]
    # In the labels' own order, which the other tables have, too.
    shown = table.loc[[n for n in table.index if n in kept], [n for n in table.index if n in kept]]
    cells = tuple(tuple(int(n) for n in row) for row in shown.to_numpy())
    return tuple(map(str, shown.index)), cells, len(table) - len(shown)


def _scores(made: Calibration | None, source: str) -> Scores | None:
    if made is None:
        return None
    # SVG's y axis points down, so that the curves are drawn upside down: 1 - y.
    dots = tuple(
        Dot(
            _WIDE * row["score"],
            _HIGH * (1 - row["right"]),
            _HIGH * (1 - row["low"]),
            _HIGH * (1 - row["high"]),
            f"score {row['score']:.2f}: {100 * row['right']:.0f}% right, {int(row['n'])} reviewed",
        )
        for _, row in made.reliability.iterrows()
    )
    curve = made.risk_coverage
    # At least 5 %, or a field without an error would divide by 0 and noise would fill the picture.
    worst = max(float(curve["risk"].max()), 0.05)
    points = zip(curve["coverage"], curve["risk"], strict=True)
    risk = " ".join(f"{_WIDE * x:.1f},{_HIGH * (1 - y / worst):.1f}" for x, y in points)
    sorts = (
        "" if math.isnan(made.auroc) else f"; a right row has the higher one in {made.auroc:.0%}"
    )
    return Scores(f"{source}{sorts}", dots, risk, worst)


@dataclass(frozen=True)
class Drawn:
    """A review, as the list of reviews shows it."""

    id: str
    summary: str


def drawn(job: JobAnswers) -> Iterator[Drawn]:
    """Yield each review, with who judged how many of its rows."""
    for review in reviews(job):
        by = f", by {review.record.by}" if review.record.by else ""
        yield Drawn(
            review.id, f"{len(review):,} rows drawn{by}, seed {review.record.seed}; {_who(review)}"
        )


def _who(review: Review) -> str:
    rows: dict[str, set[int]] = {}
    for judgement in review.judgements:
        # Rows and not judgements: a row with three fields was looked at once.
        rows.setdefault(judgement.reviewer or "somebody", set()).add(judgement.row)
    if not rows:
        return "nobody has judged any"
    return ", ".join(f"{who} judged {len(own):,}" for who, own in sorted(rows.items()))


def verdicts(job: JobAnswers) -> dict[int, tuple[str, ...]]:
    """Return the verdicts on each reviewed row, by its position in the job."""
    found: dict[int, list[str]] = {}
    for review in reviews(job):
        for each in review.judgements:
            position = int(review.positions[each.row])
            about = f" {each.field}" if len(job.fields) > 1 else ""
            value = "" if each.correct is None or each.verdict == "right" else f", {each.correct}"
            note = f" ({each.note})" if each.note else ""
            who = each.reviewer or "a reviewer"
            found.setdefault(position, []).append(f"{each.verdict}:{who}{about}{value}{note}")
    return {position: tuple(said) for position, said in found.items()}


COVERAGE: Sequence[tuple[str, float, float]] = (
    ("accuracy", 93.4, 97.4),
    ("corrected shares", 93.0, 99.1),
    ("precision", 93.0, 95.7),
    ("recall", 80.3, 96.6),
    ("f1", 88.2, 94.8),
)
"""How often the intervals held the truth in simulated reviews of 50 to 400 rows: the lowest and the
highest of 16 cells of 1,000 draws, with a good and a biased model; in percent."""
