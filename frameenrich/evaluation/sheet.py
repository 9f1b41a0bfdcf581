"""Sheets of a review: written for people to fill in, read back from their spreadsheets.

Sheets come back sorted, filtered, with other delimiters and retyped numbers. Rows are joined by
key; errors name the row number that the spreadsheet shows.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from frameenrich.answers.column_names import key_beside
from frameenrich.errors import InputError
from frameenrich.evaluation.answer_field import AnswerField
from frameenrich.evaluation.reviewed import Verdict
from frameenrich.identity.keys import find_keys

COLUMNS = ("review", "field", "prompt", "answer", "correct", "verdict", "reviewer", "note")
"""The columns of a sheet beside the key's."""


def key_columns(names: Sequence[str]) -> list[str]:
    """Name the key's columns in a sheet, apart from its other columns.

    Examples
    --------
    >>> key_columns(["sku", "note"])
    ['sku', 'key note']
    """
    return key_beside(names, COLUMNS)


@dataclass(frozen=True)
class Judgement:
    """One reviewer's judgement on one field of one drawn row; ``row`` counts in the draw."""

    row: int
    field: str
    verdict: Verdict
    correct: Any
    reviewer: str
    note: str
    sheet_row: int


@dataclass(frozen=True)
class SheetReader:
    """Reads sheets of one review.

    Parameters
    ----------
    name : str
        The file, for messages.
    review_id : str
        The review that all of its rows have to be of.
    keys : Table
        The keys of the drawn rows.
    key_names : sequence of str
        What a person calls them.
    fields : mapping
        The fields that can be judged.
    answers : mapping
        The answers of the drawn rows, by field.
    """

    name: str
    review_id: str
    keys: pa.Table
    key_names: Sequence[str]
    fields: dict[str, AnswerField]
    answers: dict[str, list[Any]]

    def read(self, table: pd.DataFrame, reviewer: str = "") -> list[Judgement]:
        """Read the rows that are filled in.

        Raises
        ------
        InputError
            A row, a column or the whole sheet does not fit this review.
        """
        self._check_columns(table)
        positions = self._positions(table)
        found: dict[tuple[int, str, str], Judgement] = {}
        rows = zip(table.index, table.to_dict("records"), positions, strict=True)
        for number, row, position in rows:
            own = self._judgement(number, row, int(position), reviewer)
            if own is None:
                continue
            # Two verdicts of one reviewer would count twice, or cancel each other.
            first = found.setdefault((own.row, own.field, own.reviewer), own)
            if first is not own:
                raise self._refusal(
                    number,
                    "verdict",
                    f"{own.reviewer or 'the same reviewer'} judged this row in row "
                    f"{first.sheet_row} already",
                    "Delete one of the two, or name another reviewer in the column 'reviewer'.",
                )
        return list(found.values())

    def judged(self, table: pd.DataFrame) -> npt.NDArray[np.int64]:
        """Return the drawn rows that a sheet has filled in, whatever its cells say."""
        said = [table[name].str.strip() != "" for name in ("correct", "verdict") if name in table]
        positions = (
            self._positions(table)[np.logical_or.reduce(said)] if said else np.empty(0, np.int64)
        )
        found: npt.NDArray[np.int64] = np.unique(positions[positions >= 0])
        return found

    def _check_columns(self, table: pd.DataFrame) -> None:
        needed = ["review", *key_columns(self.key_names)]
        if len(self.fields) > 1:
            needed.append("field")
        missing = [name for name in needed if name not in table.columns]
        if missing:
            raise InputError(
                f"The sheet {self.name} has no column {missing[0]!r}.",
                "Keep the columns of the sheet as it was written; rows may be sorted or left out.",
                columns=missing,
            )
        if not {"correct", "verdict"} & set(table.columns):
            raise InputError(
                f"The sheet {self.name} has neither a column 'correct' nor 'verdict'.",
                "Fill in the sheet that Review.to_csv or the page's Save wrote.",
                columns=["correct", "verdict"],
            )

    def _positions(self, table: pd.DataFrame) -> Any:
        columns = {}
        for i, name in enumerate(key_columns(self.key_names)):
            texts = table[name].astype(str)
            if pa.types.is_integer(self.keys.column(i).type):
                # Spreadsheets may write the key 7 as 7.0.
                texts = texts.str.replace(r"\.0+$", "", regex=True)
            columns[f"key_{i}"] = pa.array(texts, pa.string())
        if not len(table):
            return np.empty(0, np.int64)
        return find_keys(pa.table(columns), self.keys)

    def _judgement(
        self, number: int, row: Mapping[Any, Any], position: int, reviewer: str
    ) -> Judgement | None:
        said = {name: str(row.get(name, "")).strip() for name in COLUMNS}
        if said["review"] != self.review_id:
            raise self._refusal(
                number,
                "review",
                f"{said['review']!r} is another review; this sheet is of {self.review_id}",
                "Give the sheets of each review in files of their own.",
            )
        if position < 0:
            shown = ", ".join(str(row[name]) for name in key_columns(self.key_names))
            raise self._refusal(
                number,
                key_columns(self.key_names)[0],
                f"{shown!r} is not a key of this review",
                "Spreadsheets retype keys (007, dates): set those columns to Text.",
            )
        # With one field the column may be missing: `_check_columns` asks for it with several.
        name = said["field"] or next(iter(self.fields))
        if name not in self.fields:
            known = ", ".join(self.fields)
            raise self._refusal(
                number, "field", f"{name!r} is not a field of this job", f"Its fields are {known}."
            )
        if not said["correct"] and not said["verdict"]:
            return None
        verdict, correct = self._read(number, said, self.fields[name], self.answers[name][position])
        who = said["reviewer"] or reviewer
        return Judgement(position, name, verdict, correct, who, said["note"], number)

    def _read(
        self, number: int, said: dict[str, str], field: AnswerField, answer: Any
    ) -> tuple[Verdict, Any]:
        given = said["verdict"].casefold()
        if given and given not in set(Verdict):
            raise self._refusal(
                number,
                "verdict",
                f"{said['verdict']!r} is not a verdict",
                "Write right, wrong or unsure.",
            )
        # A value in 'correct' decides; a verdict beside it may agree with it, or be unsure.
        verdict = Verdict(given) if given else None
        if not said["correct"]:
            return verdict or Verdict.UNSURE, answer if verdict is Verdict.RIGHT else None
        try:
            correct = field.parse(said["correct"])
        except ValueError as error:
            near = difflib.get_close_matches(said["correct"], map(str, field.labels or ()), 1)
            raise self._refusal(
                number,
                "correct",
                f"{said['correct']!r} is not a value of {field.name}",
                f"Did you mean {near[0]!r}? Give {error}." if near else f"Give {error}.",
            ) from None
        if verdict is Verdict.UNSURE:
            return verdict, None
        found = Verdict.RIGHT if correct == answer else Verdict.WRONG
        if verdict not in (None, found):
            raise self._refusal(
                number,
                "verdict",
                f"it says {verdict}, but with the value in 'correct' the answer is {found}",
                "Clear one of the two cells.",
            )
        return found, correct

    def _refusal(self, row: int, column: str, problem: str, fix: str) -> InputError:
        return InputError(
            f"{self.name}, row {row}, column {column!r}: {problem}.", fix, row=row, column=column
        )


def parse_sheet(data: bytes, name: str) -> pd.DataFrame:
    """Read a sheet's bytes as texts, whatever delimiter and encoding a spreadsheet gave it.

    The index has the numbers that the spreadsheet shows beside the rows.

    Raises
    ------
    InputError
        It is no table.
    """
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):  # .xlsx and .ods; .xls
        raise InputError(
            f"The sheet {name} is a workbook, not a CSV file.",
            "In the spreadsheet program choose Save As > CSV UTF-8; add that file.",
        )
    text = _decoded(data)
    header = text.partition("\n")[0]
    # Excel writes semicolons where the decimal sign is a comma.
    delimiter = max(",;\t", key=header.count)
    numbered = enumerate(_rows(text, delimiter, name), 1)
    rows = {number: row for number, row in numbered if any(cell.strip() for cell in row)}
    if not rows:
        raise InputError(f"The sheet {name} is empty.", "Give the sheet that you filled in.")
    # Blank rows keep their numbers, so that errors name the rows as the spreadsheet does.
    given = [cell.strip() for cell in rows.pop(min(rows))]
    # "Correct" is ours, too, unless a key's column is called so beside it.
    ours = set(COLUMNS).difference(given)
    names = [cell.casefold() if cell.casefold() in ours else cell for cell in given]
    twice = [each for each in names if each and names.count(each) > 1]
    if twice:
        raise InputError(
            f"The sheet {name} has two columns {twice[0]!r}.", "Delete one.", columns=twice
        )
    long = next((number for number, row in rows.items() if any(row[len(names) :])), None)
    if long is not None:
        raise InputError(
            f"{name}, row {long} has {len(rows[long])} cells, the header {len(names)}.",
            "Put cells that hold the delimiter in quotes.",
            row=long,
        )
    # Spreadsheets leave out empty cells at the end of a row.
    cells = [(row + [""] * len(names))[: len(names)] for row in rows.values()]
    return pd.DataFrame(cells, index=list(rows), columns=names, dtype=object)


def _rows(text: str, delimiter: str, name: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except csv.Error as error:
        raise InputError(f"The sheet {name} cannot be read: {error}.", "Save it as CSV.") from None


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # what Excel calls Unicode text
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:  # a spreadsheet's "CSV" on Windows
        return data.decode("cp1252", "replace")
