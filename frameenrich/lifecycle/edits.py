"""Keep the cells that a person corrected (promise 12)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from frameenrich.answers.columns import result_columns
from frameenrich.answers.output import Output
from frameenrich.answers.result_table import Positions
from frameenrich.answers.same_value import same_value
from frameenrich.cells import is_null
from frameenrich.errors import FrameEnrichError, warn_user
from frameenrich.identity.keys import find_keys, sidecar_keys
from frameenrich.lifecycle.match import frame_keys
from frameenrich.lifecycle.results import read_results
from frameenrich.store.folder import JobFolder

Columns = Mapping[str, pd.Series]


def keep_edits(
    frame: pd.DataFrame, columns: Columns, folder: JobFolder, output: Output
) -> dict[str, pd.Series]:
    """Return the columns with a person's corrections in them, and warn how many there are.

    A correction is a cell that holds something, of a row that is ``ok``, and that differs from
    every answer that any job of this name gave that row, in whatever round.
    """
    kept = dict(columns)
    name = folder.spec.name
    if f"{name}_status" not in frame.columns or folder.spec.output.kind == "embedding":
        return kept  # nobody corrects a vector by hand, and a million of them take long
    ok = (columns[f"{name}_status"] == "ok").fillna(False).to_numpy(dtype=bool)
    edits = {
        column: rows
        for column in _answer_columns(columns, name)
        if column in frame.columns
        if len(rows := _differing(frame[column], columns[column], np.flatnonzero(ok)))
    }
    if not edits:
        return kept
    for earlier in _earlier_answers(frame, folder, output):
        for column, rows in edits.items():
            if column in earlier:
                edits[column] = _differing(frame[column], earlier[column], rows)
    edits = {column: rows for column, rows in edits.items() if len(rows)}
    for column, rows in edits.items():
        kept[column] = _with_cells(columns[column], frame[column], rows)
    count = sum(map(len, edits.values()))
    if count:
        shown = ", ".join(map(repr, edits))
        warn_user(
            f"{count:,} cell{'s' * (count > 1)} of {shown} hold{'s' * (count == 1)} what no answer "
            "said: kept as somebody's correction. Pass overwrite=True to replace them."
        )
    return kept


def _answer_columns(columns: Columns, name: str) -> list[str]:
    names = list(columns)
    sure = {f"{name}_confidence", f"{name}_agreement"}  # figures, which nobody corrects
    return [n for n in names[: names.index(f"{name}_status")] if n not in sure]


def _differing(cells: pd.Series, answers: pd.Series, rows: Positions) -> Positions:
    """Which of some rows have a cell that is neither null nor the answer."""
    pairs = zip(rows.tolist(), cells.iloc[rows].tolist(), answers.iloc[rows].tolist(), strict=True)
    found = [row for row, cell, answer in pairs if not _null_or_same(cell, answer)]
    return np.asarray(found, dtype=np.int64)


def _null_or_same(cell: Any, answer: Any) -> bool:
    if cell is answer or (type(cell) is str and type(answer) is str and cell == answer):
        return True  # nearly always, and this runs for every cell
    return is_null(cell) or same_value(cell, answer)


def _earlier_answers(frame: pd.DataFrame, folder: JobFolder, output: Output) -> Iterator[Columns]:
    """Yield what each round of every job of this name answered for the frame's rows."""
    slug = folder.id.rpartition("-")[0]
    for job_id in folder.store.job_ids():
        if job_id.rpartition("-")[0] != slug:
            continue
        other = JobFolder(folder.store, job_id)
        with contextlib.suppress(FrameEnrichError):  # a damaged job says nothing of this one
            spec = other.spec
            if (spec.name, spec.prefix) != (folder.spec.name, folder.spec.prefix):
                continue
            sidecar = sidecar_keys(other.sidecar())
            keys = frame_keys(frame, spec, sidecar.column_names)
            if keys is None:
                continue
            positions = find_keys(keys, sidecar)
            readings = [output] if job_id == folder.id else []
            for reading in [*readings, Output(spec.output)]:
                for round_ in range(other.rounds()):
                    found = read_results(other, reading, only_round=round_)
                    seen: npt.NDArray[np.bool_] = positions >= 0
                    yield result_columns(found.tally, found.at(positions), seen, spec)


def _with_cells(answers: pd.Series, cells: pd.Series, rows: Positions) -> pd.Series:
    """The answers with a frame's cells in some rows; wider where a correction needs it."""
    values = cells.iloc[rows].tolist()
    whole = answers.copy()
    if isinstance(whole.dtype, pd.CategoricalDtype):
        new = [v for v in dict.fromkeys(values) if v not in whole.cat.categories]
        whole = whole.cat.add_categories(new)
    try:
        if whole.dtype != np.dtype("O"):
            whole.iloc[rows] = values
            return whole
    except (TypeError, ValueError):  # a text where numbers are
        pass
    whole = answers.astype(object)
    for row, value in zip(rows.tolist(), values, strict=True):  # a list is one cell
        whole.iat[row] = value  # noqa: PD009 - iloc would spread a list over rows
    return whole
