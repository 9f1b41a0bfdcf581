"""Keep the cells that a person corrected (promise 12)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from frameenrich.answers.arrow_column import Positions
from frameenrich.answers.column_names import column_name
from frameenrich.answers.columns import result_columns
from frameenrich.answers.fields import compact_json
from frameenrich.answers.output import Output
from frameenrich.answers.same_value import same_value
from frameenrich.cells import is_null
from frameenrich.errors import FrameEnrichError, warn_user
from frameenrich.identity.keys import find_keys, sidecar_keys
from frameenrich.lifecycle.match import find_sidecar_rows, frame_keys
from frameenrich.lifecycle.results import read_results
from frameenrich.model import JobSpec
from frameenrich.store.folder import JobFolder, JobPath

Columns = Mapping[str, pd.Series]


def keep_edits(
    frame: pd.DataFrame,
    columns: Columns,
    folder: JobFolder,
    output: Output,
    counts: Counter[str] | None = None,
) -> dict[str, pd.Series]:
    """Return the columns with a person's corrections in them, and warn how many there are.

    A correction is a cell that holds something, of a row that the job has seen, and that differs
    from every answer that any job of this name gave that row, in whatever round. Where `counts` is
    given they are added to it, by column, and nobody is warned.
    """
    kept = dict(columns)
    name = folder.spec.name
    if f"{name}_status" not in frame.columns or folder.spec.output.kind == "embedding":
        return kept  # nobody corrects a vector by hand, and a million of them take long
    # A flagged row's cell that somebody filled in is as much theirs as one that they changed.
    seen = columns[f"{name}_status"].notna().to_numpy(dtype=bool)
    edits = _edits(frame, columns, folder, output, np.flatnonzero(seen))
    for column, rows in edits.items():
        kept[column] = _with_cells(columns[column], frame[column], rows)
    found = Counter({column: len(rows) for column, rows in edits.items()})
    if counts is None:
        warn_of_edits(found)
    else:
        counts.update(found)
    return kept


def warn_of_edits(counts: Counter[str]) -> None:
    """Warn how many cells were kept as a person's correction, if any were."""
    count = counts.total()
    if count:
        shown = ", ".join(map(repr, counts))
        warn_user(
            f"{count:,} cell{'s' * (count > 1)} of {shown} hold{'s' * (count == 1)} what no answer "
            "said: kept as somebody's correction. Pass overwrite=True to replace them."
        )


def corrected_rows(
    frame: pd.DataFrame, columns: Columns, folder: JobFolder, output: Output
) -> Positions:
    """Return the rows of a frame that hold a person's correction in some answer's cell."""
    if f"{folder.spec.name}_status" not in frame.columns or folder.spec.output.kind == "embedding":
        return np.empty(0, np.int64)
    edits = _edits(frame, columns, folder, output, np.arange(len(frame)))
    # The empty array is there because `concatenate` refuses an empty list.
    return np.unique(np.concatenate([np.empty(0, np.int64), *edits.values()]))


def _edits(
    frame: pd.DataFrame, columns: Columns, folder: JobFolder, output: Output, rows: Positions
) -> dict[str, Positions]:
    """Return which of some rows hold a correction, for each column that has any."""
    texts = _json_columns(output, folder.spec)
    edits = {
        column: own
        for column in _answer_columns(columns, folder.spec.name)
        if column in frame.columns
        if len(own := _differing(frame[column], columns[column], rows, as_json=column in texts))
    }
    # Mostly there are none, and then no earlier round has to be read.
    if not edits:
        return {}
    for earlier, texts in _earlier_answers(frame, folder, output):
        for column, own in edits.items():
            if column in earlier:
                as_json = column in texts
                edits[column] = _differing(frame[column], earlier[column], own, as_json=as_json)
    return {column: own for column, own in edits.items() if len(own)}


def _answer_columns(columns: Columns, name: str) -> list[str]:
    names = list(columns)
    sure = {f"{name}_confidence", f"{name}_agreement"}  # figures, which nobody corrects
    return [n for n in names[: names.index(f"{name}_status")] if n not in sure]


def _json_columns(output: Output, spec: JobSpec) -> set[str]:
    """Return the columns of JSON texts."""
    return {column_name(spec, field) for field in output.fields if field.kind == "json"}


def _differing(
    cells: pd.Series, answers: pd.Series, rows: Positions, *, as_json: bool
) -> Positions:
    """Return which of some rows have a cell that is neither null nor the answer."""
    pairs = zip(rows.tolist(), cells.iloc[rows].tolist(), answers.iloc[rows].tolist(), strict=True)
    found = [row for row, cell, answer in pairs if not _null_or_same(cell, answer, as_json)]
    return np.asarray(found, dtype=np.int64)


def _null_or_same(cell: Any, answer: Any, as_json: bool) -> bool:
    if cell is answer or (type(cell) is str and type(answer) is str and cell == answer):
        return True  # nearly always, and this runs for every cell
    return is_null(cell) or same_value(cell, answer, as_json=as_json)


def _earlier_answers(
    frame: pd.DataFrame, folder: JobFolder, output: Output
) -> Iterator[tuple[Columns, set[str]]]:
    """Yield what each round of every job of this name answered for the frame's rows.

    With it comes which of the columns are JSON texts.
    """
    # A job's id is its name's slug and a hash: most other jobs are passed over unread.
    slug = folder.id.rpartition("-")[0]
    for job_id in folder.store.job_ids():
        if job_id.rpartition("-")[0] != slug:
            continue
        with contextlib.suppress(FrameEnrichError):  # a damaged job says nothing of this one
            other = JobPath(folder.store, job_id).open()
            spec = other.spec
            if (spec.name, spec.prefix) != (folder.spec.name, folder.spec.prefix):
                continue
            own = find_sidecar_rows(other, frame)  # of a part of a frame: in memory is no more
            sidecar = sidecar_keys(own)
            keys = frame_keys(frame, spec, sidecar.column_names)
            if keys is None:
                continue
            positions = find_keys(keys, sidecar)
            # A cell of this job may come from this call's parser or from the spec's plain reading.
            readings = [output] if job_id == folder.id else []
            for reading in [*readings, Output(spec.output)]:
                for round_ in range(other.rounds()):
                    found = read_results(other, reading, only_round=round_, sidecar=own)
                    seen: npt.NDArray[np.bool_] = positions >= 0
                    columns = result_columns(found.table, found.at(positions), seen, spec)
                    yield columns, _json_columns(reading, spec)


_NESTED = (list, tuple, dict, np.ndarray)


def _with_cells(answers: pd.Series, cells: pd.Series, rows: Positions) -> pd.Series:
    """Return the answers with a frame's cells in some rows; wider where a correction needs it."""
    values = cells.iloc[rows].tolist()
    whole = answers.copy()
    if isinstance(whole.dtype, pd.StringDtype):  # an object among texts would go into no Parquet
        values = [compact_json(v) if isinstance(v, _NESTED) else v for v in values]
    if isinstance(whole.dtype, pd.CategoricalDtype):
        new = [v for v in dict.fromkeys(values) if v not in whole.cat.categories]
        # A categorical refuses a value that is none of its categories; the person's word counts.
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
