"""Give a frame its answers: of a whole job, or of a part, in any process that sees the store.

Only reads the store; asks no provider, and needs no `Job`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from frameenrich.answers.arrow_column import Positions
from frameenrich.answers.column_names import JobColumns, beside, column_name, key_beside
from frameenrich.answers.columns import (
    LONG_DETAILS,
    details_needed,
    result_columns,
    statuses_of,
    to_text,
    with_columns,
)
from frameenrich.answers.output import Output
from frameenrich.answers.parser_columns import ParserColumns
from frameenrich.answers.result_table import ResultTable
from frameenrich.identity.keys import sidecar_keys
from frameenrich.lifecycle.edits import keep_edits
from frameenrich.lifecycle.match import (
    Match,
    find_sidecar_rows,
    match_frame,
    require_match,
    require_unchanged,
    rows_per_request,
)
from frameenrich.lifecycle.prompts import prompt_column
from frameenrich.lifecycle.regenerate import history
from frameenrich.lifecycle.results import read_results
from frameenrich.lifecycle.row_facts import counting_rows, note_rows
from frameenrich.lifecycle.usage import row_costs, with_costs
from frameenrich.model import JobSpec
from frameenrich.pricing.prices import Prices
from frameenrich.store.folder import JobFolder
from frameenrich.store.sidecar import SKIP_REASON

UNJUDGED = LONG_DETAILS - {"votes"}
"""Details by which no answer is judged; the raw texts among them are as large as the responses."""


_FIRST_ROWS = 1000
"""The number of rows whose answers are parsed to learn a parser's columns."""


@dataclass(frozen=True)
class Reading:
    """Options by which stored answers become columns.

    Parameters
    ----------
    output : Output
        How an answer is read.
    prices : mapping
        What the job goes by (`frameenrich.lifecycle.usage.prices_of`).
    usage, flatten, overwrite : bool
        As `Job.collect` takes them.
    """

    output: Output
    prices: Prices
    usage: bool = False
    flatten: bool = False
    overwrite: bool = False


def columns_of_no_rows(spec: JobSpec, reading: Reading) -> dict[str, pd.Series]:
    """Return every column that answers fill, with its dtype; it takes no job."""
    details = details_needed(spec, usage=reading.usage)
    table = ResultTable(1, reading.output.fields, details)
    none = np.empty(0, np.int64)
    ids = pa.array([], pa.string()) if reading.usage else None
    columns = result_columns(
        table,
        none,
        none >= 0,
        spec,
        usage=reading.usage,
        custom_ids=ids,
        flatten=reading.flatten,
    )
    return with_costs(columns, none.astype(np.float64), spec.name) if reading.usage else columns


@dataclass(frozen=True)
class RequestColumns:
    """Columns that follow from all answers of a job at once, such as whether a row is accepted.

    Parameters
    ----------
    ids : Index
        The job's custom_ids, each once.
    columns : mapping
        The cells, in that order.
    """

    ids: pd.Index
    columns: Mapping[str, pd.api.extensions.ExtensionArray]

    def of(self, ids: pa.ChunkedArray) -> dict[str, pd.Series]:
        """Return the columns of some rows by their custom_ids; a row without one has ``<NA>``."""
        # As Python's strings, which equal the index's in every version of pandas.
        at = self.ids.get_indexer(pd.Index(ids.to_pylist(), dtype=object))
        return {
            name: pd.Series(cells.take(at, allow_fill=True)) for name, cells in self.columns.items()
        }


@dataclass(frozen=True)
class Collector:
    """Gives frames their answers, as far as these are on disk; holds no secret.

    With a `JobFolder` it can be pickled, and collects parts in any process that sees the store.

    Parameters
    ----------
    folder : JobFolder
        The job; a `JobState` where one process reads all of it.
    reading : Reading
        How its answers become columns.
    parser_columns : ParserColumns, optional
        What the columns of every part are brought to, where a parser makes them.
    """

    folder: JobFolder
    reading: Reading
    parser_columns: ParserColumns | None = None
    kept_edits: Counter[str] | None = None
    """Counts the corrections that parts hold, instead of a warning for each part."""
    added: RequestColumns | None = None
    """Further columns of each row."""

    without: frozenset[str] = frozenset()
    """Details of ``usage=True`` that are left out."""
    shortened: set[str] | None = None
    """Where it is given, objects and long texts are null, and what is looked at one row at a time
    is left out; it is told the columns of which texts were."""

    def whole(self, frame: pd.DataFrame | None) -> pd.DataFrame:
        """Return a frame of the job's rows, or the job's own keys, with their answers.

        Everything is in memory at once; cells that a person corrected stay.
        """
        # Only what is used: the sidecar of millions of rows is as large as the answers.
        folder, needed = self.folder, [] if frame is None else ["input_hash", "shard"]
        sidecar = folder.sidecar(columns=[*folder.key_columns, *needed])
        if frame is None:
            frame = key_frame(folder, sidecar_keys(sidecar), arrow=self._short)
            positions: Positions = np.arange(len(frame), dtype=np.int64)
        else:
            positions = require_match(match_frame(frame, folder, sidecar), frame, folder).positions
        del sidecar  # before columns are made: it may be as large as they
        columns = self._columns(frame, positions)
        if not self.reading.overwrite:
            columns = keep_edits(frame, columns, folder, self.reading.output)
        return with_columns(frame, columns)

    @property
    def _short(self) -> bool:
        return self.shortened is not None

    def rows(
        self, positions: Positions, costs: npt.NDArray[np.float64] | None = None
    ) -> pd.DataFrame:
        """Return some of the job's own rows, by their rising positions, as `whole` does.

        `costs` are those rows', where they are known: they follow from all rounds' responses.
        """
        sidecar = self.folder.sidecar_rows(positions)
        frame = key_frame(self.folder, sidecar_keys(sidecar))
        columns = self._columns(frame, np.arange(len(frame)), sidecar, costs)
        return with_columns(frame, columns)

    def __call__(self, frame: pd.DataFrame, part: int | None = None) -> pd.DataFrame:
        """Return some rows with their answers; see `Job.collect_part`.

        In memory are the rows, their rows of the sidecar, and one chunk of responses.
        """
        # Nothing to match, but the dtypes have to be those of every other part.
        if not len(frame):
            return self.empty_result(frame)
        with counting_rows():  # a warning in a worker is read by nobody
            columns = self.columns(frame, part)
        return with_columns(frame, columns)

    def columns(self, frame: pd.DataFrame, part: int | None = None) -> dict[str, pd.Series]:
        """Return only the new columns, in the rows' order."""
        match, sidecar = self._match(frame, part)
        columns = self._columns(frame, match.positions, sidecar)
        if self.parser_columns is not None:
            columns = self.parser_columns.conform(columns)
        if self.reading.overwrite:
            return columns
        return keep_edits(frame, columns, self.folder, self.reading.output, self.kept_edits)

    def flagged(self, frame: pd.DataFrame, part: int | None = None) -> pd.DataFrame:
        """Return the flagged ones of some rows; see `Job.flagged`."""
        match, sidecar = self._match(frame, part)
        return flagged_rows(self.folder, self.reading.output, match.positions, frame.index, sidecar)

    def _match(self, frame: pd.DataFrame, part: int | None) -> tuple[Match, pa.Table]:
        # Only the shards that these lines name are read, so memory is the part's. A part may lie
        # outside the job (its rows are <NA>); only a whole frame without any known key is an error.
        sidecar = find_sidecar_rows(self.folder, frame, part)
        match = match_frame(frame, self.folder, sidecar)
        return require_unchanged(match, frame, self.folder), sidecar

    def _columns(
        self,
        frame: pd.DataFrame,
        positions: Positions,
        sidecar: pa.Table | None = None,
        costs: npt.NDArray[np.float64] | None = None,
    ) -> dict[str, pd.Series]:
        """Return a frame's new columns.

        `positions` are its rows' in the job's sidecar, or in those rows of it that are given; -1
        for rows that the job never saw.
        """
        folder, reading, name = self.folder, self.reading, self.folder.spec.name
        details = details_needed(folder.spec, usage=reading.usage)
        left_out = LONG_DETAILS if self._short else self.without
        details = [name for name in details if name not in left_out]
        # What ``usage=True`` adds is as large as the responses, so that is not kept.
        found = read_results(
            folder,
            reading.output,
            details=details,
            sidecar=sidecar,
            keep=not reading.usage,
            values="short" if self._short else "all",
        )
        if self.shortened is not None:
            self.shortened.update(column_name(folder.spec, own) for own in found.table.shortened)
        slots = found.at(positions)
        columns = result_columns(
            found.table,
            slots,
            positions >= 0,
            folder.spec,
            usage=reading.usage,
            custom_ids=None if self._short else found.custom_ids,
            flatten=reading.flatten,
        )
        columns = self._with_skip_reasons(columns, positions, sidecar)
        if reading.usage:
            # A part has only some of the rows that share a request, and of its cost.
            if costs is None:
                shares = None if sidecar is None else rows_per_request(folder, sidecar)
                costs = row_costs(folder, reading.prices, found, positions, shares)
            columns = with_costs(columns, costs, name)
        columns = self._beside(columns, frame)
        if self.added is not None:
            lines = folder.sidecar(columns=["custom_id"]) if sidecar is None else sidecar
            own = lines["custom_id"].take(pa.array(positions, mask=positions < 0))
            columns = {**columns, **self.added.of(own)}
        JobColumns(name).check_frame(columns, frame.columns)
        note_rows(folder.id, name, found.table, slots, shown=reading.usage)
        return columns

    def _with_skip_reasons(
        self, columns: dict[str, pd.Series], positions: Positions, sidecar: pa.Table | None
    ) -> dict[str, pd.Series]:
        """Say in the error's column why rows were left out, where the sidecar knows."""
        folder = self.folder
        if SKIP_REASON not in folder.facts.schema.names:
            return columns
        lines = folder.sidecar(columns=[SKIP_REASON]) if sidecar is None else sidecar
        reasons = lines[SKIP_REASON].take(pa.array(positions, mask=positions < 0))
        name = f"{folder.spec.name}_error"
        # Nulls are filled only: an error that the row has of itself says more.
        known = pd.Series(reasons.to_pylist(), dtype="string")
        return {**columns, name: columns[name].fillna(known)}

    def empty_result(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the result for no rows: every column, with its dtype."""
        spec, reading = self.folder.spec, self.reading
        columns = columns_of_no_rows(spec, reading)
        if self.parser_columns is not None:
            columns = self.parser_columns.conform(columns)
        columns = self._beside(columns, frame)
        if self.added is not None:
            columns = {**columns, **self.added.of(pa.chunked_array([], pa.string()))}
        JobColumns(spec.name).check_frame(columns, frame.columns)
        return with_columns(frame.iloc[:0], columns)

    def _beside(self, columns: dict[str, pd.Series], frame: pd.DataFrame) -> dict[str, pd.Series]:
        """Prefix a parser's columns with the job's name where the frame has columns of that name.

        Only the answers show what a parser makes, so nobody could refuse that at `submit`.
        """
        return beside(columns, self.folder.spec.name, frame.columns) if self.has_parser else columns

    @property
    def has_parser(self) -> bool:
        """Tell whether only the answers show which columns there are."""
        return any(field.kind == "any" for field in self.reading.output.fields)

    def with_parser_columns(self, dtypes: Mapping[str, Any] | None = None) -> Collector:
        """Fix the columns that a parser makes: those given, or those of the first rows' answers.

        Every part then has these columns with these dtypes, whatever its own answers are.
        """
        if not self.has_parser:
            return self
        spec = self.folder.spec
        if dtypes is not None:
            return replace(self, parser_columns=ParserColumns(spec.name, dict(dtypes)))
        # A lazy frame names its columns before it has answers, so they are learned from the first
        # rows. A part that makes another column is then an error, never a lost column.
        nested = replace(self, reading=replace(self.reading, flatten=False))
        first = [next(nested.all_answers(_FIRST_ROWS))]
        return replace(self, parser_columns=ParserColumns.learn(spec, first, final=False))

    def all_answers(self, rows: int | None = None) -> Iterator[dict[str, pd.Series]]:
        """Yield the output columns of the job's own rows, a row group of the sidecar at a time.

        Parameters
        ----------
        rows : int, optional
            How many of each row group; all by default.
        """
        folder, reading = self.folder, self.reading
        with folder.reading_sidecar() as file:
            # By row group, so that a job larger than memory can be learned from.
            for group in range(file.num_row_groups):
                sidecar = file.read_row_group(group).slice(0, rows)
                found = read_results(folder, reading.output, sidecar=sidecar)
                positions = np.arange(len(sidecar))
                yield result_columns(
                    found.table,
                    found.at(positions),
                    positions >= 0,
                    folder.spec,
                    flatten=reading.flatten,
                )


def flagged_rows(
    folder: JobFolder,
    output: Output,
    positions: Positions,
    index: pd.Index | None = None,
    sidecar: pa.Table | None = None,
) -> pd.DataFrame:
    """Return the rows whose status is terminal and not ``ok``; see `Job.flagged`.

    Parameters
    ----------
    folder, output : JobFolder, Output
        The job, and how its answers are read.
    positions : int64 array
        Where the rows are in the job's sidecar, or in `sidecar`; -1 for rows that it never saw.
    index : Index, optional
        The rows'; by default they are numbered.
    sidecar : Table, optional
        Its rows that are wanted, where those are not all.
    """
    # Only flagged rows are shown, so no value is wanted; raw texts are, of them all.
    found = read_results(folder, output, details=["bad_raw"], sidecar=sidecar, values="none")
    result_table, slots = found.table, found.at(positions)
    rows = np.flatnonzero((slots >= 0) & result_table.flagged()[slots])
    own = slots[rows]
    columns = {
        "status": statuses_of(result_table, own),
        "error": to_text(result_table.column("error", own)),
        "raw": to_text(result_table.column("raw", own)),
        "attempt": pd.Series(result_table.attempts[own], dtype="Int64"),
    }
    # What else is as long as the job is let go before more columns are read beside these.
    del found, result_table, slots
    names = [*folder.key_columns, "custom_id", "shard"]
    whole = folder.sidecar(columns=names) if sidecar is None else sidecar.select(names)
    taken = whole.take(pa.array(positions[rows]))
    del whole
    columns["prompt"] = to_text(
        prompt_column(folder, taken["custom_id"], taken["shard"].to_numpy())
    )
    table = key_frame(folder, sidecar_keys(taken))
    del taken
    columns["history"] = pd.Series(history(folder, output, own.tolist(), sidecar), dtype=object)
    table = table.set_axis(key_beside(folder.key_names, columns), axis=1)
    # All at once: each column that is added to a frame by itself costs a block of its own.
    table = pd.concat([table, pd.DataFrame(columns, copy=False)], axis=1)
    return table if index is None else table.set_axis(index[rows])


def key_frame(folder: JobFolder, keys: pa.Table, *, arrow: bool = False) -> pd.DataFrame:
    """Return some rows' keys under the names that the user gave them.

    As Arrow's own texts, a million take 20 MB and not 60; they are no user's dtypes.
    """
    frame: pd.DataFrame = keys.to_pandas(types_mapper=pd.ArrowDtype if arrow else None)
    return frame.set_axis(folder.key_names, axis=1)
