"""A frame with its answers: of a whole job, or of a part, in any process that sees the store.

Only reads the store; asks no provider, and needs no `Job`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.answers.column_names import JobColumns
from frameenrich.answers.columns import details_needed, result_columns, with_columns
from frameenrich.answers.output import Output
from frameenrich.answers.result_table import OK_CODE, Positions, ResultTable
from frameenrich.errors import OutputError
from frameenrich.identity.keys import sidecar_keys
from frameenrich.lifecycle.edits import keep_edits
from frameenrich.lifecycle.match import (
    find_sidecar_rows,
    match_frame,
    require_unchanged,
    rows_per_request,
)
from frameenrich.lifecycle.regenerate import history
from frameenrich.lifecycle.repaired import counting_repaired, tell_repaired
from frameenrich.lifecycle.results import read_results
from frameenrich.lifecycle.usage import row_costs, with_costs
from frameenrich.pricing.prices import Prices
from frameenrich.store.folder import JobFolder
from frameenrich.store.store import Store

_LOOKED_AT = 1000
"""So many rows' answers are parsed to see which columns a parser makes."""


@dataclass(frozen=True)
class Collector:
    """Collects parts of a job in any process that sees its store; holds no secret.

    Parameters
    ----------
    url : str
        The store, as every process reaches it.
    job_id : str
        The job.
    output : Output
        How its answers are read.
    prices : mapping
        What it goes by (`frameenrich.lifecycle.usage.prices_of`).
    usage, flatten : bool
        As `Job.collect` takes them.
    parsed : mapping, optional
        The columns that a parser makes and their dtypes, which every part's are brought to.
    """

    url: str
    job_id: str
    output: Output
    prices: Prices
    usage: bool = False
    flatten: bool = False
    parsed: Mapping[str, Any] | None = None

    @property
    def folder(self) -> JobFolder:
        """The job's folder."""
        return JobFolder(Store(self.url), self.job_id)

    def __call__(self, frame: pd.DataFrame, part: int | None = None) -> pd.DataFrame:
        """Return some rows with their answers; see `collect_part`."""
        if not len(frame):
            return self.like(frame)
        with counting_repaired():  # a warning in a worker is read by nobody
            out = collect_part(
                self.folder,
                self.output,
                frame,
                part,
                prices=self.prices,
                usage=self.usage,
                flatten=self.flatten,
            )
        return out if self.parsed is None else self._conformed(out, frame)

    def answers(self, frame: pd.DataFrame, part: int | None = None) -> dict[str, pd.Series]:
        """The columns alone that `collect_part` would give some rows, as their answers have it."""
        return part_answers(
            self.folder,
            self.output,
            frame,
            part,
            prices=self.prices,
            usage=self.usage,
            flatten=self.flatten,
        )

    def flagged(self, frame: pd.DataFrame, part: int | None = None) -> pd.DataFrame:
        """Return some rows' flagged ones; see `Job.flagged`."""
        folder, lines = self.folder, find_sidecar_rows(self.folder, frame, part)
        match = require_unchanged(match_frame(frame, folder, lines), frame, folder)
        return flagged_rows(folder, self.output, match.positions, frame.index, lines)

    def like(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return what is collected of no rows: every column, with its dtype."""
        spec = self.folder.spec
        tally = ResultTable(1, self.output.fields, details_needed(spec, usage=self.usage))
        none = np.empty(0, np.int64)
        ids = pa.array([], pa.string()) if self.usage else None
        columns = result_columns(tally, none, none >= 0, spec, custom_ids=ids, flatten=self.flatten)
        if self.parsed is not None:
            made = {name: pd.Series(dtype=dtype) for name, dtype in self.parsed.items()}
            own = f"{spec.prefix}{spec.name}"
            columns = made | {name: each for name, each in columns.items() if name != own}
        if self.usage:
            columns = with_costs(columns, none.astype(np.float64), spec.name)
        JobColumns(spec.name).check_frame(columns, frame.columns)
        return with_columns(frame.iloc[:0], columns)

    def with_parsed(self, dtypes: Mapping[str, Any] | None = None) -> Collector:
        """With the columns that a parser makes: as they are given, or as the first rows show them.

        Every part then has these columns with these dtypes, whatever its own answers are.
        """
        if not any(field.kind == "any" for field in self.output.fields):
            return self
        return replace(self, parsed=dict(dtypes or self._looked_at()))

    def all_answers(self, rows: int | None = None) -> Iterator[dict[str, pd.Series]]:
        """Yield the output columns of the job's own rows, a row group of the sidecar at a time.

        Parameters
        ----------
        rows : int, optional
            How many of each row group; all by default.
        """
        folder = self.folder
        with folder.reading_sidecar() as file:
            for group in range(file.num_row_groups):
                lines = file.read_row_group(group).slice(0, rows)
                found = read_results(folder, self.output, lines=lines)
                positions = np.arange(len(lines))
                yield result_columns(
                    found.tally,
                    found.at(positions),
                    positions >= 0,
                    folder.spec,
                    flatten=self.flatten,
                )

    def _looked_at(self) -> dict[str, Any]:
        columns = next(replace(self, flatten=False).all_answers(_LOOKED_AT))
        name = self.folder.spec.name
        ours = {f"{name}_status", f"{name}_error"}
        return {name: each.dtype for name, each in columns.items() if name not in ours}

    def _conformed(self, out: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
        """A part's columns as those of all parts are, where a parser made them."""
        like = self.like(frame)
        new = [name for name in out.columns if name not in like.columns and out[name].notna().any()]
        if new:
            raise OutputError(
                f"The parser made a column {new[0]!r}, which the first rows' answers did not have.",
                "Name all columns and their dtypes: collect(parser=..., meta={'size': 'Int64'}).",
                columns=new,
            )
        conformed = out.reindex(columns=like.columns)
        for name in self.parsed or ():
            try:
                conformed[name] = _cast(conformed[name], like[name].dtype)
            except (TypeError, ValueError) as error:
                raise OutputError(
                    f"The parser made values for the column {name!r} that are no "
                    f"{like[name].dtype}, which the first rows' answers were: {error}.",
                    f"Say what it is: collect(parser=..., meta={{{name!r}: 'object'}}).",
                    columns=[name],
                ) from None
        return conformed


def _cast(column: pd.Series, dtype: Any) -> pd.Series:
    """A column in another dtype, with the same values."""
    cast = column.astype(dtype)
    known = column.notna()
    if (
        dtype != column.dtype
        and not cast[known].astype(object).eq(column[known].astype(object)).all()
    ):
        raise ValueError("some would change")
    return cast


def collect_part(
    folder: JobFolder,
    output: Output,
    frame: pd.DataFrame,
    part: int | None = None,
    *,
    prices: Prices,
    usage: bool = False,
    flatten: bool = False,
) -> pd.DataFrame:
    """Return some of a job's rows with their answers, as far as these are on disk.

    In memory are the rows, their lines of the sidecar, and one chunk of responses.

    Parameters
    ----------
    folder, output : JobFolder, Output
        The job, and how its answers are read.
    frame : DataFrame
        Any rows. Those that the job never saw have ``<NA>`` in the new columns.
    part : int, optional
        The number of the part that they most likely are; else all of the sidecar is searched.
    prices : mapping
        What the job goes by (`frameenrich.lifecycle.usage.prices_of`).
    usage, flatten : bool
        As `Job.collect` takes them.

    Raises
    ------
    FrameMismatchError
        The rows changed under their keys, or lack the key or a column of the template.
    """
    columns = part_answers(folder, output, frame, part, prices=prices, usage=usage, flatten=flatten)
    return with_columns(frame, columns)


def part_answers(
    folder: JobFolder,
    output: Output,
    frame: pd.DataFrame,
    part: int | None = None,
    *,
    prices: Prices,
    usage: bool = False,
    flatten: bool = False,
) -> dict[str, pd.Series]:
    """The columns that `collect_part` gives some rows, in the rows' order, without the frame."""
    lines = find_sidecar_rows(folder, frame, part)
    match = require_unchanged(match_frame(frame, folder, lines), frame, folder)
    return _columns(
        frame, match.positions, folder, output, prices, usage=usage, flatten=flatten, lines=lines
    )


def with_answers(
    frame: pd.DataFrame,
    positions: Positions,
    folder: JobFolder,
    output: Output,
    prices: Prices,
    *,
    usage: bool,
    flatten: bool,
    overwrite: bool = False,
    lines: pa.Table | None = None,
) -> pd.DataFrame:
    """A frame with the output columns of its rows.

    Parameters
    ----------
    frame : DataFrame
        The rows.
    positions : int64 array
        Where they are in the job's sidecar, or in `lines`; -1 for rows that the job never saw.
    folder, output, prices, usage, flatten
        As `collect_part` takes them.
    overwrite : bool
        Whether a person's corrections are replaced (`frameenrich.lifecycle.edits`).
    lines : Table, optional
        The lines of the sidecar that are wanted, where those are not all.
    """
    columns = _columns(
        frame, positions, folder, output, prices, usage=usage, flatten=flatten, lines=lines
    )
    if not overwrite and lines is None:
        columns = keep_edits(frame, columns, folder, output)
    return with_columns(frame, columns)


def _columns(
    frame: pd.DataFrame,
    positions: Positions,
    folder: JobFolder,
    output: Output,
    prices: Prices,
    *,
    usage: bool,
    flatten: bool,
    lines: pa.Table | None,
) -> dict[str, pd.Series]:
    details = details_needed(folder.spec, usage=usage)
    found = read_results(folder, output, details=details, lines=lines)
    slots = found.at(positions)
    columns = result_columns(
        found.tally,
        slots,
        positions >= 0,
        folder.spec,
        custom_ids=found.custom_ids if usage else None,
        flatten=flatten,
    )
    if usage:
        shares = None if lines is None else rows_per_request(folder, lines)
        costs = row_costs(folder, prices, found, positions, shares)
        columns = with_costs(columns, costs, folder.spec.name)
    JobColumns(folder.spec.name).check_frame(columns, frame.columns)
    own = slots[slots >= 0]
    ok = int((found.tally.codes[own] == OK_CODE).sum())
    repaired = int(found.tally.repaired[own].sum())
    tell_repaired(folder.id, folder.spec.name, repaired=repaired, ok=ok, shown=usage)
    return columns


def flagged_rows(
    folder: JobFolder,
    output: Output,
    positions: Positions,
    index: pd.Index | None = None,
    lines: pa.Table | None = None,
) -> pd.DataFrame:
    """The rows whose status is terminal and not ``ok``; see `Job.flagged`.

    Parameters
    ----------
    folder, output : JobFolder, Output
        The job, and how its answers are read.
    positions : int64 array
        Where the rows are in the job's sidecar, or in `lines`; -1 for rows that it never saw.
    index : Index, optional
        The rows'; by default they are numbered.
    lines : Table, optional
        The lines of the sidecar that are wanted, where those are not all.
    """
    found = read_results(folder, output, details=["bad_raw"], lines=lines)
    tally, slots = found.tally, found.at(positions)
    rows = np.flatnonzero((slots >= 0) & tally.flagged()[slots])
    own = slots[rows]
    keys = sidecar_keys(folder.sidecar() if lines is None else lines)
    table = key_frame(folder, keys.take(pa.array(positions[rows])))
    table["status"] = pd.Series([str(tally.status(slot)) for slot in own], dtype="string")
    table["error"] = pd.Series(tally.details("error", own).to_pylist(), dtype="string")
    table["raw"] = pd.Series(tally.details("raw", own).to_pylist(), dtype="string")
    table["attempt"] = pd.Series(tally.attempts[own], dtype="Int64")
    earlier = history(folder, output, own.tolist(), lines)
    table["history"] = pd.Series(earlier, dtype=object)
    return table if index is None else table.set_axis(index[rows])


def key_frame(folder: JobFolder, keys: pa.Table) -> pd.DataFrame:
    """Return some rows' keys under the names that a person knows."""
    frame: pd.DataFrame = keys.to_pandas()
    return frame.set_axis(folder.key_names, axis=1)
