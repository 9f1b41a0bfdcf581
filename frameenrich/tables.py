"""``frameenrich.submit`` and ``collect``, for tables that are not pandas', through Arrow.

A table becomes the frame that ``pd.read_csv`` would have made of it, so that one job of one table
has one id whatever holds it; there is no second way to render or to collect. A table that is larger
than `STREAM_BYTES` goes through in parts, as a file of the command line does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Unpack, overload

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.accessor import LLMBatch
from frameenrich.answers.arrow_types import common_type
from frameenrich.answers.output import Output
from frameenrich.errors import InputError, ParameterError
from frameenrich.lifecycle.collect import Collector
from frameenrich.lifecycle.edits import warn_of_edits
from frameenrich.prepare.any_table import (
    TableStream,
    is_lazy,
    is_table,
    polars_of,
    read_table,
    to_frame,
)
from frameenrich.prepare.options import Plan
from frameenrich.prepare.parts import PartsFolder, write_part
from frameenrich.prepare.reading_options import CollectOptions, ReadingOptions
from frameenrich.prepare.submit_options import KeylessOptions, SubmitOptions
from frameenrich.prepare.writer import Part
from frameenrich.rendering.template_source import Template
from frameenrich.store.store import StoreLike
from frameenrich.verbs.before_paying import estimate_parts
from frameenrich.verbs.estimate import Estimate, count_frame
from frameenrich.verbs.find import find_job
from frameenrich.verbs.job import Job
from frameenrich.verbs.list_jobs import jobs
from frameenrich.verbs.signatures import checks_calls, takes_options_of
from frameenrich.verbs.submit import submit_parts


@overload
def llmbatch(table: pd.DataFrame) -> LLMBatch: ...
@overload
def llmbatch(table: Any) -> TableBatch: ...
def llmbatch(table: Any) -> LLMBatch | TableBatch:
    """Return ``table.llmbatch`` with its type, which editors and type checkers cannot see there.

    Parameters
    ----------
    table : DataFrame, or another table as `submit` takes it
        The table whose rows are asked about.

    Examples
    --------
    >>> print(llmbatch(pd.DataFrame({"title": ["Red mug"]})).preview("{{ title }}?", "gpt-4o-mini"))
    row 0
    [user] Red mug?
    <BLANKLINE>
    -> columns: llmbatch, llmbatch_status, llmbatch_error
    """
    return LLMBatch(table) if isinstance(table, pd.DataFrame) else TableBatch(table)


@takes_options_of(LLMBatch.submit)
def submit(
    table: Any,
    template: Template,
    model: str,
    *,
    key: str | Sequence[str],
    **options: Unpack[KeylessOptions],
) -> Job:
    """Render each row of a table to a request and send them as a batch job.

    Parameters
    ----------
    table : Polars DataFrame or LazyFrame, DuckDB relation, pyarrow Table or RecordBatchReader
        Or whatever else has ``__arrow_c_stream__``. One that is larger than 256 MB is read once, a
        part at a time; parts are in memory one by one.
    key : str or list of str
        The column(s) that name a row: such tables have no index.
    template, model, **options
        As ``df.llmbatch.submit`` takes them.

    Returns
    -------
    Job
        The one that ``df.llmbatch.submit`` makes of the same rows in pandas.

    Examples
    --------
    >>> import tempfile
    >>> table = pa.table({"sku": ["A1", "A2"], "title": ["Red mug", "Blue hose"]})
    >>> store = tempfile.mkdtemp()
    >>> job = submit(
    ...     table, "Colour of {{ title }}?", "m", key="sku", provider="file", store=store
    ... )
    >>> collect(table, job)["llmbatch_status"].to_pylist()
    ['pending', 'pending']
    """
    job: Job = llmbatch(table).submit(template, model, key=key, **options)
    return job


@takes_options_of(LLMBatch.collect)
def collect(table: Any, job: Job | str | None = None, **options: Unpack[CollectOptions]) -> Any:
    """Return the table with the answers as new columns.

    Parameters
    ----------
    table : as `submit` takes it
        A DuckDB relation runs again; of a reader, open a new one.
    job, **options
        As ``df.llmbatch.collect`` takes them.

    Returns
    -------
    table
        Of the same kind, its other columns as they were; a pyarrow table for a DuckDB relation. A
        LazyFrame or a reader that is larger than 256 MB comes back as one that reads and collects
        its rows when they are asked for, a part at a time.
    """
    return llmbatch(table).collect(job, **options)


@checks_calls
class TableBatch(LLMBatch):
    """Methods of ``df.llmbatch`` for a table that is not pandas'.

    Parameters
    ----------
    table : as `submit` takes it
        Nothing of it is read before a verb needs it.
    """

    def __init__(self, table: Any) -> None:
        if isinstance(table, (str, bytes)) or not is_table(table):
            raise InputError(
                f"A {type(table).__name__} is not a table: it has no __arrow_c_stream__.",
                "Give a pandas, Polars, DuckDB or pyarrow table.",
            )
        self._table = table

    @cached_property
    def _rows(self) -> Any:
        """The rows: a Polars frame, an Arrow table, or a `TableStream` of those."""
        return read_table(self._table)

    @cached_property
    def _frame(self) -> pd.DataFrame:
        """The rows in pandas; of a larger table the first part, for verbs that show some rows."""
        rows = self._rows
        return rows.first if isinstance(rows, TableStream) else to_frame(rows)

    @takes_options_of(LLMBatch.submit)
    def submit(self, template: Template, model: str, **options: Unpack[SubmitOptions]) -> Job:
        """Render each row to a request and send them as a batch job; see `frameenrich.submit`."""
        if not options.get("key"):
            raise ParameterError(
                "Nothing names the rows: only pandas' tables have an index.",
                "Pass key= with the column or columns that do: key='sku'.",
                name="key",
            )
        rows = self._rows
        if not isinstance(rows, TableStream):
            # A table in memory goes the way of pandas: one job of one table, whatever holds it.
            return LLMBatch(self._frame).submit(template, model, **options)

        def write(stage: PartsFolder) -> Iterator[Part]:
            for number, part in enumerate(rows.parts()):
                yield write_part(stage, number, to_frame(part))

        return submit_parts(write, rows.columns, template, model, **options)

    @takes_options_of(LLMBatch.submit)
    def estimate(
        self, template: Template, model: str, **options: Unpack[SubmitOptions]
    ) -> Estimate:
        """Return what a `submit` would send and cost; sends and writes nothing."""
        rows = self._rows
        if not isinstance(rows, TableStream):
            return LLMBatch(self._frame).estimate(template, model, **options)
        return estimate_parts(
            lambda spec: (
                count_frame(to_frame(part), Plan(spec, Output(spec.output)))
                for part in rows.parts()
            ),
            rows.columns,
            template,
            model,
            **options,
        )

    @takes_options_of(LLMBatch.submit)
    def pilot(
        self,
        template: Template,
        model: str,
        *,
        n: int = 5,
        seed: int = 0,
        usage: bool = False,
        **options: Unpack[SubmitOptions],
    ) -> Any:
        """Answer `n` rows now, at live price; of a table in parts, rows of its first part."""
        found = super().pilot(template, model, n=n, seed=seed, usage=usage, **options)
        return self._of_kind(found)

    @takes_options_of(LLMBatch.collect)
    def collect(self, job: Job | str | None = None, **options: Unpack[CollectOptions]) -> Any:
        """Return the table with the answers as new columns; see `frameenrich.collect`."""
        store, client = options.pop("store", None), options.pop("client", None)
        found, rows = self.job(job, store=store, client=client), self._rows
        if isinstance(rows, TableStream):
            own: Any = dict(options)  # store and client, which a type checker still sees, are out
            return _Answers(rows, found.collector(**own)).beside(self._table)
        frame = self._frame
        answers = LLMBatch(frame).collect(found, **options)
        # Only new or changed columns go back, so all others keep their Arrow or Polars types.
        new = [c for c in answers if c not in frame or not answers[c].equals(frame[c])]
        whole = _with_columns(rows, pa.table({str(c): to_arrow(answers[c]) for c in new}))
        if isinstance(self._table, pa.RecordBatchReader):
            return whole.to_reader()
        return whole.lazy() if is_lazy(self._table) else whole

    def _rows_to_evaluate(
        self,
        job: Job,  # noqa: ARG002 - a Dask frame needs its template
        truth: str | Mapping[str, str] | None,
    ) -> pd.DataFrame | None:
        rows = self._rows
        if isinstance(rows, TableStream) and truth is not None:
            # One estimate is of all rows, so that the parts are brought together for it.
            return pd.concat((to_frame(part) for part in rows.parts()), ignore_index=True)
        return self._frame

    def flagged(
        self,
        job: Job | str | None = None,
        *,
        store: StoreLike = None,
        client: Any = None,
        **reading: Unpack[ReadingOptions],
    ) -> Any:
        """Return the table's flagged rows; see `Job.flagged`."""
        found, rows = self.job(job, store=store, client=client), self._rows
        if not isinstance(rows, TableStream):
            return self._of_kind(found.flagged(self._frame, **reading))
        collector = found.collector(**reading)
        parts = (collector.flagged(to_frame(part), i) for i, part in enumerate(rows.parts()))
        return self._of_kind(pd.concat(parts, ignore_index=True))

    def jobs(self, *, store: StoreLike = None) -> Any:
        """List the jobs of the store, the newest first."""
        return self._of_kind(jobs(store))

    def _find(self, job: str | None, store: StoreLike, client: Any) -> Job:
        rows = self._rows
        if job is None and isinstance(rows, TableStream):
            return find_job(rows.first, store, part=0, client=client)
        return super()._find(job, store, client)

    def _of_kind(self, frame: pd.DataFrame) -> Any:
        """Convert a frame of results to the kind of table that the caller works with."""
        arrow = pa.table({str(name): to_arrow(frame[name]) for name in frame})
        polars = polars_of(self._table)
        return arrow if polars is None else polars.from_arrow(arrow)


def to_arrow(column: pd.Series, kind: pa.DataType | None = None) -> pa.Array:
    """Convert a column to Arrow; cells of kinds that no Arrow column holds become JSON text."""
    try:
        return pa.array(column, kind, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        empty = [
            cell is None or (pd.api.types.is_scalar(cell) and pd.isna(cell)) for cell in column
        ]
        cells = [
            # A text stays itself: with quotes around it, the next collect would add others.
            None if no else cell if isinstance(cell, str) else json.dumps(cell, default=_plain)
            for cell, no in zip(column, empty, strict=True)
        ]
        texts = pa.array(cells, pa.string())
        return texts if kind is None else texts.cast(kind)


def _plain(cell: Any) -> Any:
    return cell.item() if isinstance(cell, np.generic) else str(cell)


# --- answers beside the table's own columns -----------------------------------------------------


@dataclass
class _Answers:
    """Answers to a table that comes in parts."""

    stream: TableStream
    collector: Collector

    def __post_init__(self) -> None:
        # A stream states its columns before its first row, so a parser's have to be known now.
        self.collector = self.collector.with_parser_columns()

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        """Arrow types of the answers' columns, the same in all parts."""
        empty = self.collector.empty_result(pd.DataFrame())
        types = {str(name): to_arrow(column).type for name, column in empty.items()}
        nested = [str(name) for name, column in empty.items() if column.dtype == object]
        if nested:
            # Only the values say what is inside, and a stream cannot change its types half-way.
            seen: dict[str, list[pa.DataType]] = {name: [] for name in nested}
            for columns in self.collector.all_answers():
                for name in set(columns).intersection(nested):
                    kind = to_arrow(columns[name]).type
                    if kind not in seen[name]:
                        seen[name].append(kind)
            types |= {name: _common_or_text(kinds) for name, kinds in seen.items()}
        if self.collector.reading.overwrite:
            return types
        held = self.stream.schema
        # Corrections show in a later part only, when the stream has said its types.
        return {
            name: _with_edits(kind, held.field(name).type) if name in held.names else kind
            for name, kind in types.items()
        }

    def answers(self) -> Iterator[tuple[Any, pa.Table]]:
        """Yield each part and the answers to its rows, in their order."""
        edits = Counter[str]()
        # For one warning at the end instead of one for each part.
        collector = replace(self.collector, kept_edits=edits)
        for number, part in enumerate(self.stream.parts()):
            out = collector(to_frame(part), number)
            kinds = self.types.items()
            yield part, pa.table({name: to_arrow(out[name], kind) for name, kind in kinds})
        warn_of_edits(edits)

    def parts(self) -> Iterator[Any]:
        """Yield the parts with their answers."""
        for part, found in self.answers():
            yield _with_columns(part, found)

    def beside(self, table: Any) -> Any:
        """Return the table with the answers; lazy where the table is."""
        none = pa.table({name: pa.array([], kind) for name, kind in self.types.items()})
        polars = polars_of(table)
        if is_lazy(table):
            empty = polars.DataFrame(schema=table.collect_schema())
            return _lazy(self.parts, _with_columns(empty, none).schema)
        if isinstance(table, pa.RecordBatchReader):
            schema = _with_columns(table.schema.empty_table(), none).schema
            batches = (batch for part in self.parts() for batch in part.to_batches())
            return pa.RecordBatchReader.from_batches(schema, batches)
        if isinstance(table, pa.Table) or polars is not None:
            return _with_columns(table, pa.concat_tables(found for _, found in self.answers()))
        return pa.concat_tables(self.parts())


def _with_edits(answers: pa.DataType, held: pa.DataType) -> pa.DataType:
    """Return the type that holds the answers, and what a person put in their place.

    A column of texts, where the answers are none, may hold a correction that is no answer's type.
    """
    if answers == held or pa.types.is_null(held) or _is_text(answers):
        return answers
    number = (pa.types.is_integer, pa.types.is_floating)
    if all(any(is_so(kind) for is_so in number) for kind in (answers, held)):
        return pa.float64() if pa.types.is_floating(held) else answers
    if pa.types.is_nested(answers) and pa.types.is_nested(held):
        return answers
    return pa.large_string() if _is_text(held) else answers


def _is_text(kind: pa.DataType) -> bool:
    # Labels are dictionaries of texts.
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return any(is_so(kind) for is_so in kinds)


def _common_or_text(kinds: list[pa.DataType]) -> pa.DataType:
    try:
        return common_type(kinds)
    except (pa.ArrowException, OverflowError):
        return pa.string()


def _lazy(parts: Callable[[], Iterable[Any]], schema: Any) -> Any:
    """Return a LazyFrame over parts, read whenever it is computed."""
    from polars.io.plugins import register_io_source  # noqa: PLC0415 - Polars' users have it

    def source(
        columns: list[str] | None, predicate: Any, rows: int | None, _batch_rows: int | None
    ) -> Iterator[Any]:
        # Polars may ask for a few rows: reading stops there, and later parts are not collected.
        left = rows
        for part in parts():
            found = part if columns is None else part.select(columns)
            found = found if predicate is None else found.filter(predicate)
            found = found if left is None else found.head(left)
            left = None if left is None else left - len(found)
            yield found
            if left == 0:
                return

    return register_io_source(source, schema=schema)


def _with_columns(held: Any, new: pa.Table) -> Any:
    """Add columns to a Polars frame or an Arrow table, replacing those of the same name."""
    polars = polars_of(held)
    if polars is not None:
        return held.with_columns(polars.from_arrow(new).get_columns())
    for name, column in zip(new.column_names, new.columns, strict=True):
        at = held.schema.get_field_index(name)
        held = held.append_column(name, column) if at < 0 else held.set_column(at, name, column)
    return held
