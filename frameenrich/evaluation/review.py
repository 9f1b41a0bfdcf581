"""Reviews: the recorded draw of a job's rows, the sheets to judge them on, the verdicts given.

A review is a folder of the job, ``reviews/<id>/``: ``draw.parquet`` says which rows were drawn, and
how; ``verdicts-0001.csv`` and its followers are the sheets as they came, with who gave them in a
``.json`` beside. None of them ever changes.
"""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from frameenrich.atomic import whole_file
from frameenrich.errors import InputError, ParameterError
from frameenrich.evaluation.draw import WHOLE, draw_rows, pooled
from frameenrich.evaluation.job_answers import JobAnswers, as_text, own_message
from frameenrich.evaluation.reviewed import Design, Drawn, Reviewed
from frameenrich.evaluation.sheet import (
    COLUMNS,
    Judgement,
    SheetReader,
    harmless,
    key_columns,
    parse_sheet,
)
from frameenrich.identity.keys import find_keys, show_key
from frameenrich.model import RowStatus
from frameenrich.store.folder import JobFolder
from frameenrich.store.local import unreadable

_METADATA = b"frameenrich.review"
_FOLDER = re.compile(r"/reviews/([0-9a-f]{12})/draw\.parquet$")
_ANSWER = "answer"


@dataclass(frozen=True)
class DrawRecord:
    """What ``draw.parquet`` says of the whole draw.

    ``by`` is the field whose answers are the strata, ``pools`` each answer's stratum; ``extends``
    is the review that it tops up; ``strata`` counts the rows that could be drawn, and ``answers``
    is a hash of the drawn rows' answers.
    """

    id: str
    job: str
    n: int
    seed: int
    by: str | None
    extends: str | None
    drawn_at: float
    strata: Mapping[str, int]
    pools: Mapping[str, str]
    answers: str


@dataclass(frozen=True)
class Review:
    """Rows of a job to be judged by people: a draw that is kept in the store.

    Returned by ``df.llmbatch.review`` and ``job.add_review``. ``id`` names it, ``len()`` is how
    many rows it has, `verdicts` are the judgements so far.
    """

    job: JobAnswers
    record: DrawRecord
    draw: pa.Table

    @property
    def id(self) -> str:
        """What the review is called: the name of its folder, and in its sheets."""
        return self.record.id

    @property
    def path(self) -> str:
        """The review's folder."""
        return _path(self.job.folder, self.id)

    def __len__(self) -> int:
        return int(self.draw.num_rows)

    @cached_property
    def positions(self) -> npt.NDArray[np.int64]:
        """The drawn rows' positions in the job."""
        return find_keys(self.keys, self.job.keys)

    @property
    def keys(self) -> pa.Table:
        """The drawn rows' keys."""
        return self.draw.select([n for n in self.draw.column_names if n.startswith("key_")])

    @cached_property
    def replaced(self) -> npt.NDArray[np.bool_]:
        """Which of the drawn rows have got another answer, or none, since they were drawn."""
        then = self.draw["answer_hash"].to_pylist()
        now = self.job.hashes(self.positions)
        return np.array([a != b for a, b in zip(then, now, strict=True)], bool)

    @cached_property
    def judgements(self) -> list[Judgement]:
        """Every reviewer's judgements, of each sheet that was added."""
        found = []
        for name, data, reviewer in _sheets(self.job.folder, self.id):
            found += self._reader(name).read(parse_sheet(data, name), reviewer)
        return list({(j.row, j.field, j.reviewer): j for j in found}.values())

    @property
    def verdicts(self) -> pd.DataFrame:
        """The judgements: key, ``field``, ``answer``, ``correct``, ``verdict``, and by whom."""
        judged = self.judgements
        names = key_columns(self.job.folder.key_names)
        keys = self.keys.to_pandas().set_axis(names, axis=1)
        table: pd.DataFrame = keys.iloc[[j.row for j in judged]].reset_index(drop=True)
        answers = self._answers
        table["field"] = pd.Series([j.field for j in judged], dtype="string")
        table["answer"] = pd.Series([answers[j.field][j.row] for j in judged], dtype=object)
        table["correct"] = pd.Series([j.correct for j in judged], dtype=object)
        for name in ("verdict", "reviewer", "note"):
            values = [str(getattr(j, name)) for j in judged]
            table[name] = pd.Series(values, dtype="string")
        return table

    @property
    def reviewed(self) -> int:
        """How many of the rows somebody judged."""
        return len({j.row for j in self.judgements})

    @cached_property
    def _answers(self) -> dict[str, list[Any]]:
        return {name: self.job.values(name, self.positions) for name in self.job.fields}

    def _reader(self, name: str) -> SheetReader:
        key_names = self.job.folder.key_names
        return SheetReader(name, self.id, self.keys, key_names, self.job.fields, self._answers)

    def to_csv(self, path: str | os.PathLike[str], *, blind: bool = True) -> Path:
        """Write a sheet to fill in: a row for each drawn row and field.

        Fill in ``correct`` (the right label or value), or ``verdict`` (right, wrong, unsure).

        Parameters
        ----------
        path : str or PathLike
            The CSV file.
        blind : bool
            Leave out the model's answer to fields with labels: who sees it agrees with it.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        names = key_columns(self.job.folder.key_names)
        fields, several = self.job.fields, len(self.job.fields) > 1
        shown = [f for f in fields.values() if not (blind and f.labels)]
        left_out = {"field": not several, _ANSWER: not shown}
        header = [name for name in COLUMNS if not left_out.get(name)]
        header[1:1] = names
        sink = io.StringIO(newline="")
        writer = csv.DictWriter(sink, header, restval="", extrasaction="ignore")
        writer.writeheader()
        rows = zip(self.keys.to_pylist(), self.job.prompts(self.positions), strict=True)
        for i, (key, prompt) in enumerate(rows):
            for field in fields.values():
                answer = as_text(self._answers[field.name][i]) if field in shown else ""
                cells = {"review": self.id, "field": field.name, _ANSWER: harmless(answer)}
                cells |= dict(zip(names, map(as_text, key.values()), strict=True))
                writer.writerow(cells | {"prompt": harmless(own_message(prompt))})
        write_private(path, sink.getvalue().encode("utf-8-sig"))
        return Path(path)

    def page(self, path: str | os.PathLike[str] = "review.html") -> Path:
        """Write a page to judge the rows on: one file that works offline.

        Fields with labels are judged blind, with the keys 1 to 9; others right, wrong or unsure.
        Its Save gives a CSV file for `Job.add_review`.

        Parameters
        ----------
        path : str or PathLike
            The HTML file; only its owner can read it.

        Raises
        ------
        InputError
            The file cannot be written.
        """
        from frameenrich.evaluation.page import review_page  # noqa: PLC0415 - Jinja2 is heavy

        write_private(path, review_page(self).encode())
        return Path(path)

    def __repr__(self) -> str:
        notes = "".join(f"; {note}" for note in self.notes)
        return f"<Review {self.id} of {self.record.job}: {self.progress}{notes}>"

    @property
    def progress(self) -> str:
        """How many of the drawn rows are judged."""
        return f"{self.reviewed:,} of {len(self):,} rows reviewed"

    @property
    def notes(self) -> list[str]:
        """What whoever uses the verdicts has to know."""
        gone = int(self.replaced.sum())
        if not gone:
            return []
        rows = "row has" if gone == 1 else "rows have"
        note = f"{gone:,} of its {rows} another answer since, or none"
        return [f"{note}: review(extend=...) draws their like anew"]

    def _repr_html_(self) -> str:
        by = f", by {html.escape(self.record.by)}" if self.record.by else ""
        notes = "".join(f"<p>{html.escape(note)}.</p>" for note in self.notes)
        return (
            f"<div><p><b>Review {self.id}</b> of {html.escape(self.record.job)}: "
            f"{self.progress}{by}, seed {self.record.seed}.</p>{notes}"
            "<p>Next: <code>review.page('review.html')</code>, judge, Save, then "
            "<code>job.add_review('review.csv')</code>.</p></div>"
        )


# --- drawing ------------------------------------------------------------------------------------


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
        Rows are pending still, or none is usable.
    ParameterError
        `n`, `by` or `extend` cannot be used.
    """
    if type(n) is not int or n < 1:
        raise ParameterError(f"n={n!r} rows cannot be drawn.", "Give a whole number above 0.", n=n)
    _require_ended(job)
    chain = [] if extend is None else _chain(job, extend)
    if chain:
        by, seed = chain[0].record.by, chain[0].record.seed
    strata, pools = _strata(job, _field_of(job, by), n, chain)
    keys = job.keys.take(pa.array(job.usable))
    sample = draw_rows(keys, strata, n, seed=seed, job_id=job.folder.id, earlier=_had(job, chain))
    if not len(sample.positions):
        raise InputError(
            f"All {len(job.usable):,} usable rows of the job {job.folder.id} are drawn already.",
            "Judge those: nothing is left to draw.",
        )
    positions = job.usable[sample.positions]
    hashes = job.hashes(positions)
    drawn = keys.take(pa.array(sample.positions))
    extends = chain[-1].id if chain else None
    named = [job.folder.id, n, seed, by, extends, drawn.to_pylist(), hashes]
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
    pending = int((job.statuses == str(RowStatus.PENDING)).sum())
    if pending:
        raise InputError(
            f"{pending:,} rows of the job {job.folder.id} are pending still, and could not be "
            "drawn.",
            "Review when the job has ended: job.wait().",
        )
    if not len(job.usable):
        raise InputError(
            f"The job {job.folder.id} has no usable row to review.",
            "job.flagged() says why; job.regenerate() asks again.",
        )


def _field_of(job: JobAnswers, by: str | None) -> str | None:
    """The field whose answers are the strata."""
    if by is None:
        return None
    labelled = [name for name, field in job.fields.items() if field.labels]
    if by == _ANSWER and by not in job.fields and len(job.fields) == 1:
        by = next(iter(job.fields))
    if by not in labelled:
        known = ", ".join(map(repr, labelled))
        fix = f"Give one of {known}" if labelled else "Leave it out: no field has labels"
        raise ParameterError(f"by={by!r} is no field with labels of this job.", f"{fix}.", by=by)
    return by


def _strata(
    job: JobAnswers, by: str | None, n: int, chain: list[Review]
) -> tuple[list[str], Mapping[str, str]]:
    """Each usable row's stratum, and which answers are in which."""
    if by is None:
        return [WHOLE] * len(job.usable), {}
    texts = [as_text(value) for value in job.values(by, job.usable)]
    known = chain[0].record.pools if chain else {}
    pools = dict(known) or pooled(texts, n)
    # A label that nobody had answered when the review began stands for itself.
    pools |= {text: text for text in dict.fromkeys(texts) if text not in pools}
    return [pools[text] for text in texts], pools


def _had(job: JobAnswers, chain: list[Review]) -> npt.NDArray[np.int64]:
    """Where the rows that were drawn before, and have the same answers, are among the usable."""
    rows = [review.positions[~review.replaced] for review in chain]
    found = np.concatenate(rows) if rows else np.empty(0, np.int64)
    return np.searchsorted(job.usable, found)


def _recorded(job: JobAnswers, record: DrawRecord, draw: pa.Table) -> Review:
    """Write the draw, whole or not at all; one that is there already stays as it is."""
    folder = job.folder
    path = f"{_path(folder, record.id)}/draw.parquet"
    with folder.lock():
        if folder.store.exists(path):
            return open_review(job, record.id)
        folder.store.make_folder(_path(folder, record.id))
        metadata = {_METADATA: json.dumps(asdict(record)).encode()}
        table = draw.replace_schema_metadata(metadata)
        with folder.store.write_whole(path) as file:
            pq.write_table(table, file)
    return Review(job, record, table)


# --- reading ------------------------------------------------------------------------------------


def _path(folder: JobFolder, review_id: str) -> str:
    return f"{folder.path}/reviews/{review_id}"


def reviews(job: JobAnswers) -> list[Review]:
    """Return all reviews of a job, the oldest first."""
    paths = job.folder.store.find(f"{job.folder.path}/reviews")
    found = [open_review(job, m[1]) for m in map(_FOLDER.search, paths) if m]
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
    path = f"{_path(job.folder, review_id)}/draw.parquet"
    known = re.fullmatch("[0-9a-f]{12}", review_id) and job.folder.store.exists(path)
    if not known:
        ids = ", ".join(review.id for review in reviews(job)) or "none"
        raise InputError(
            f"The job {job.folder.id} has no review {review_id!r}.", f"Its reviews are: {ids}."
        )
    try:
        with job.folder.store.open(path) as file:
            table = pq.ParquetFile(io.BytesIO(file.read())).read()
        record = DrawRecord(**json.loads(table.schema.metadata[_METADATA]))
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    return Review(job, record, table)


def _chain(job: JobAnswers, review: Review | str | None) -> list[Review]:
    """A review's first draw and all its top-ups, in order; of the newest review by default."""
    found = {each.id: each for each in reviews(job)}
    if not found:
        return []
    if review is None:
        first = list(found.values())[-1]
    elif isinstance(review, Review):
        first = found.get(review.id) or open_review(job, review.id)
    else:
        first = open_review(job, review)
    while first.record.extends in found:
        first = found[first.record.extends]
    chain = [first]
    for each in found.values():
        if each.record.extends in {one.id for one in chain}:
            chain.append(each)
    return chain


# --- verdicts -----------------------------------------------------------------------------------


def _sheets(folder: JobFolder, review_id: str) -> list[tuple[str, bytes, str]]:
    """The sheets that were added to a review: name, bytes and who gave it, in order."""
    root = _path(folder, review_id)
    names = sorted(
        path.rpartition("/")[2] for path in folder.store.find(root) if path.endswith(".csv")
    )
    found = []
    for name in names:
        with folder.store.open(f"{root}/{name}") as file:
            data = file.read()
        with folder.store.open(f"{root}/{name.removesuffix('.csv')}.json") as file:
            said = json.loads(file.read())
        found.append((name, data, str(said["reviewer"])))
    return found


def add_sheet(job: JobAnswers, path: str | os.PathLike[str], reviewer: str = "") -> Review:
    """Check a filled-in sheet and keep it as it came.

    Raises
    ------
    InputError
        It cannot be read, is of another job or review, or some row of it does not fit.
    """
    name = os.path.basename(os.fspath(path))
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"The sheet {path} cannot be read: {error.strerror}.", "Give another file."
        ) from None
    table = parse_sheet(data, name)
    review = open_review(job, _review_of(job, table, name))
    judgements = review._reader(name).read(table, reviewer)  # noqa: SLF001 - of this module
    if not judgements:
        raise InputError(
            f"The sheet {name} has no verdicts in it.",
            "Fill in 'correct' or 'verdict' of some rows; empty rows are not yet reviewed.",
        )
    with job.folder.lock():
        kept = _sheets(job.folder, review.id)
        if not any((data, reviewer) == (old, who) for _, old, who in kept):
            _refuse_changed(review, judgements, name)
            stem = f"{review.path}/verdicts-{len(kept) + 1:04}"
            said = {"reviewer": reviewer, "added_at": time.time()}
            with job.folder.store.write_whole(f"{stem}.json") as file:
                file.write(json.dumps(said).encode())
            with job.folder.store.write_whole(f"{stem}.csv") as file:
                file.write(data)  # last: without it the other means nothing
    return Review(job, review.record, review.draw)


def _review_of(job: JobAnswers, table: pd.DataFrame, name: str) -> str:
    """The review that a sheet's first row is of."""
    said = table["review"].tolist() if "review" in table.columns else []
    first: str | None = next((each.strip() for each in said if each.strip()), None)
    known = [review.id for review in reviews(job)]
    if first is None:
        raise InputError(
            f"The sheet {name} does not say which review it is of: its column 'review' is "
            "missing or empty.",
            "Fill in the sheet that Review.to_csv or the page's Save wrote.",
        )
    if first not in known:
        raise InputError(
            f"{name}, row {table.index[0]}, column 'review': the job {job.folder.id} has no review "
            f"{first!r}; the sheet is of another job.",
            f"The reviews of this job are: {', '.join(known) or 'none'}.",
            row=int(table.index[0]),
            column="review",
        )
    return first


def _refuse_changed(review: Review, judgements: list[Judgement], name: str) -> None:
    """Refuse another verdict of a reviewer on what he judged in an earlier sheet."""
    before = {(j.row, j.field, j.reviewer): j for j in review.judgements}
    for new in judgements:
        old = before.get((new.row, new.field, new.reviewer))
        if old is not None and (old.verdict, old.correct) != (new.verdict, new.correct):
            who = new.reviewer or "The same reviewer"
            raise InputError(
                f"{name}, row {new.sheet_row}, column 'verdict': {who} judged the row "
                f"{show_key(review.keys, new.row)} otherwise in an earlier sheet.",
                "Added verdicts never change: give this sheet another reviewer's name "
                "(reviewer='second look').",
                row=new.sheet_row,
                column="verdict",
            )


def reviewed_fields(job: JobAnswers, review: Review | str | None = None) -> dict[str, Reviewed]:
    """Return what was judged of each field, for the statistics: of one review with its top-ups.

    Parameters
    ----------
    job : JobAnswers
        The job's answers as they are now.
    review : Review or str, optional
        The newest one by default.

    Raises
    ------
    InputError
        The job has no review.
    """
    chain = _chain(job, review)
    if not chain:
        raise InputError(
            f"No row of the job {job.folder.id} has been reviewed.",
            "Draw some, judge them and add the sheet: df.llmbatch.review(job, n=100), "
            "job.add_review('review.csv').",
        )
    design = _design(job, chain)
    found = {}
    for name in job.fields:
        rows = [
            (each, judged)
            for each in chain
            for judged in each.judgements
            if judged.field == name and not each.replaced[judged.row]
        ]
        if rows:
            found[name] = _reviewed(job, name, design, rows)
    return found


def _design(job: JobAnswers, chain: list[Review]) -> Design:
    by = _field_of(job, chain[0].record.by)
    strata, _ = _strata(job, by, chain[0].record.n, chain)
    names, counts = np.unique(np.array(strata, object), return_counts=True)
    labelled = [name for name, field in job.fields.items() if field.labels]
    scores = job.scores(job.usable)
    judged = sum(each.reviewed for each in chain)
    left = sum(map(len, chain)) - judged
    gone = sum(int(each.replaced.sum()) for each in chain)
    notes = [
        *([f"{left:,} of the drawn rows are not reviewed yet"] if left else []),
        *([f"{gone:,} drawn rows are left out: their answers were replaced since"] if gone else []),
    ]
    return Design(
        drawn=Drawn.SIMPLE if by is None else Drawn.STRATIFIED,
        usable=len(job.usable),
        flagged=job.flagged,
        strata={str(n): int(count) for n, count in zip(names, counts, strict=True)},
        answer_counts={
            name: pd.Series(job.values(name, job.usable), dtype=object).value_counts().to_dict()
            for name in labelled
        },
        scores={} if scores is None else dict.fromkeys(labelled, scores),
        notes=tuple(notes),
    )


def _reviewed(
    job: JobAnswers, name: str, design: Design, rows: list[tuple[Review, Judgement]]
) -> Reviewed:
    positions = np.array([review.positions[j.row] for review, j in rows], np.int64)
    strata = [review.draw["stratum"][j.row].as_py() for review, j in rows]
    drawn = pd.Series(
        [stratum for review in {r.id: r for r, _ in rows}.values() for stratum in
         review.draw["stratum"].filter(pa.array(~review.replaced)).to_pylist()]
    ).value_counts()  # fmt: skip
    probability = [min(1.0, drawn[s] / design.strata.get(s, drawn[s])) for s in strata]
    prompts = {p: own_message(q) for p, q in zip(positions, job.prompts(positions), strict=True)}
    return Reviewed(
        field=name,
        design=design,
        rows=positions,
        answers=_objects(job.values(name, positions)),
        truths=_objects([j.correct for _, j in rows]),
        verdicts=_objects([j.verdict for _, j in rows]),
        labels=job.fields[name].labels,
        stratum=_objects(strata),
        inclusion_probability=np.array(probability, float),
        reviewer=_objects([j.reviewer for _, j in rows]),
        score=job.scores(positions),
        keys=job.frame.iloc[positions, : len(job.folder.key_names)].reset_index(drop=True),
        prompts=_objects([prompts[p] for p in positions]),
    )


def _objects(values: list[Any]) -> npt.NDArray[np.object_]:
    """An array of any values; NumPy would unpack lists of one length."""
    cells = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        cells[i] = value
    return cells


def write_private(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that only its owner reads: it holds rows of somebody's data.

    Raises
    ------
    InputError
        It cannot be written.
    """
    try:
        with whole_file(path) as file:
            if not os.path.exists(path):
                os.fchmod(file.fileno(), 0o600)
            file.write(data)
    except OSError as error:
        raise InputError(
            f"The file {path} cannot be written: {error.strerror}.", "Choose another file."
        ) from None
