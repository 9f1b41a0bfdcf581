"""`Review`: a recorded draw of a job's rows, sheets to judge them on, and the verdicts.

A review is a folder of the job, ``reviews/<id>/``: ``draw.parquet`` says which rows were drawn, and
how; ``verdicts-0001.csv`` and its followers are the sheets as they came, with who gave them in a
``.json`` beside. None of them ever changes.
"""

from __future__ import annotations

import csv
import html
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from frameenrich.atomic import named_file
from frameenrich.errors import InputError
from frameenrich.evaluation.job_answers import JobAnswers, as_text, own_message
from frameenrich.evaluation.review_files import kept_sheets, review_path
from frameenrich.evaluation.reviewed import Verdict
from frameenrich.evaluation.sheet import (
    COLUMNS,
    Judgement,
    SheetReader,
    key_columns,
    parse_sheet,
)
from frameenrich.identity.keys import find_keys, read_keys, show_key
from frameenrich.text import NO_MATH, quoted_formula

DRAW_METADATA = b"frameenrich.review"
ANSWER = "answer"


@dataclass(frozen=True)
class DrawRecord:
    """Metadata of the whole draw, kept in ``draw.parquet``.

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
    """Rows of a job that were drawn for people to judge; the draw is kept in the store.

    Returned by ``df.llmbatch.review`` and ``job.add_review``. ``id`` names it, ``len()`` is how
    many rows it has, `verdicts` are the judgements so far.
    """

    job: JobAnswers
    record: DrawRecord
    draw: pa.Table

    @property
    def id(self) -> str:
        """Return the review's id, which names its folder and stands in its sheets."""
        return self.record.id

    @property
    def path(self) -> str:
        """The review's folder."""
        return review_path(self.job.folder, self.id)

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
        """Marks of the drawn rows that got another answer, or none, since the draw."""
        # A verdict is about the answer that was shown; after a regenerate the row may have another
        # one.
        then = self.draw["answer_hash"].to_pylist()
        now = self.job.hashes(self.positions)
        return np.array([a != b for a, b in zip(then, now, strict=True)], bool)

    @property
    def counts(self) -> npt.NDArray[np.bool_]:
        """Marks of the drawn rows that still count: neither replaced nor spent."""
        kept: npt.NDArray[np.bool_] = ~(self.replaced | self.job.spent[self.positions])
        return kept

    @cached_property
    def judgements(self) -> list[Judgement]:
        """Every reviewer's judgements, of each sheet that was added."""
        found = []
        # Sheets are kept as they came, so that a better reader needs no new review.
        for name, data, said in kept_sheets(self.job.folder, self.id):
            found += self._reader(name).read(parse_sheet(data, name), said.reviewer)
        # Sheets overlap when somebody adds one again with more rows filled in.
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
        """Return how many of the rows have a judgement."""
        return len({j.row for j in self.judgements})

    @cached_property
    def _answers(self) -> dict[str, list[Any]]:
        return {name: self.job.values(name, self.positions) for name in self.job.fields}

    def _reader(self, name: str) -> SheetReader:
        key_names = self.job.folder.key_names
        return SheetReader(name, self.id, self.keys, key_names, self.job.fields, self._answers)

    def examples_in(self, frame: pd.DataFrame, key: tuple[str, ...] | None = None) -> pd.DataFrame:
        """Return the judged rows of a frame with the right answers: for ``submit(examples=)``.

        Rows that nobody is sure of, and those whose right answer nobody gave, are left out.

        Parameters
        ----------
        frame : DataFrame
            Has the rows, under the keys that were reviewed.
        key : tuple of str, optional
            The columns that name a row; by default as the reviewed job was submitted.

        Raises
        ------
        InputError
            Nothing was judged, or a judged row is not in the frame.
        """
        fields = list(self.job.fields)
        known: dict[int, dict[str, Any]] = {}
        for judged in self.judgements:
            answer = self._answers[judged.field][judged.row]
            right = answer if judged.verdict is Verdict.RIGHT else judged.correct
            if judged.verdict is not Verdict.UNSURE and right is not None:
                known.setdefault(judged.row, {})[judged.field] = right
        # An example has to show the model a whole answer.
        whole = {row: values for row, values in known.items() if len(values) == len(fields)}
        if not whole:
            raise InputError(
                f"The review {self.id} has no row whose right answer is known.",
                "Judge its rows, with 'correct' where an answer is wrong, and add the sheet: "
                "job.add_review('review.csv').",
            )
        key = self.job.folder.spec.key if key is None else key
        rows = find_keys(self.keys.take(pa.array(list(whole))), read_keys(frame, key))
        lost = np.flatnonzero(rows < 0)
        if len(lost):
            shown = show_key(self.keys, list(whole)[lost[0]])
            raise InputError(
                f"{len(lost):,} of the {len(whole):,} rows that were judged in the review "
                f"{self.id} are not in this frame, such as {shown}.",
                "Submit the frame that was reviewed, or give examples= as a frame of its own.",
            )
        found = frame.iloc[rows].copy()
        for name in fields:
            column = self.job.fields[name].column
            values = [values[name] for values in whole.values()]
            found[column] = pd.Series(values, dtype=object, index=found.index)
        return found

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
        # A column that says the same in every row would only take room on the reviewer's screen.
        left_out = {"field": not several, ANSWER: not shown}
        header = [name for name in COLUMNS if not left_out.get(name)]
        header[1:1] = names
        sink = io.StringIO(newline="")
        writer = csv.DictWriter(sink, header, restval="", extrasaction="ignore")
        writer.writeheader()
        # The prompt stands beside the answer: a label is right or wrong for what the model was
        # shown.
        rows = zip(self.keys.to_pylist(), self.job.prompts(self.positions), strict=True)
        for i, (key, prompt) in enumerate(rows):
            for field in fields.values():
                answer = as_text(self._answers[field.name][i]) if field in shown else ""
                cells = {"review": self.id, "field": field.name, ANSWER: quoted_formula(answer)}
                # Keys are never quoted against formulas: rows are found by them later.
                cells |= dict(zip(names, map(as_text, key.values()), strict=True))
                writer.writerow(cells | {"prompt": quoted_formula(own_message(prompt))})
        # With the mark: without it Excel reads a CSV in the local encoding.
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
        """Return how many of the drawn rows are judged."""
        return f"{self.reviewed:,} of {len(self):,} rows reviewed"

    @property
    def notes(self) -> list[str]:
        """Return notes for whoever uses the verdicts."""
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
            f"<div class='{NO_MATH}'><p><b>Review {self.id}</b> of {html.escape(self.record.job)}: "
            f"{self.progress}{by}, seed {self.record.seed}.</p>{notes}"
            "<p>Next: <code>review.page('review.html')</code>, judge, Save, then "
            "<code>job.add_review('review.csv')</code>.</p></div>"
        )


def write_private(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that only its owner reads: it holds rows of somebody's data.

    Raises
    ------
    InputError
        It cannot be written.
    """
    try:
        with named_file(path, private=True) as file:
            file.write(data)
    except OSError as error:
        raise InputError(
            f"The file {path} cannot be written: {error.strerror}.", "Choose another file."
        ) from None
