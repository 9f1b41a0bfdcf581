"""Tables written back with the columns that were added to them, whole or not at all.

CSV and JSON Lines keep the bytes of each record, to which the new cells are appended; Parquet keeps
its Arrow columns. Only a table that changes its format is written anew. Output is written in the
chunks in which the table is read, whether its answers are all in memory or come with each chunk, so
that ``--stream`` and ``--no-stream`` give the same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import IO, Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from frameenrich.atomic import named_file
from frameenrich.cells import cell_values
from frameenrich.cli.tables.arrow_types import ArrowTypes
from frameenrich.cli.tables.chunks import Chunk
from frameenrich.cli.tables.files import DELIMITERS, TableFile
from frameenrich.cli.tables.json_array import lines_as_array
from frameenrich.cli.tables.packing import packed_into
from frameenrich.cli.tables.read import Table
from frameenrich.cli.tables.records import (
    Record,
    cell_text,
    quoted,
    to_json,
    with_cells,
    with_members,
    without_formula,
)
from frameenrich.cli.tables.workbook import check_workbook, write_workbook
from frameenrich.errors import FrameEnrichError, InputError, OutputError
from frameenrich.text import without_surrogates


@dataclass(frozen=True)
class ChunkWithAnswers:
    """Some rows of a table, and the columns that a job gives them.

    Parameters
    ----------
    chunk : Chunk
        The rows.
    answers : DataFrame
        The columns, in order; a column that the table has already is replaced in its place.
    """

    chunk: Chunk
    answers: pd.DataFrame

    @cached_property
    def replaced(self) -> dict[int, str]:
        """The table's own columns that answers replace, by their positions."""
        given = set(self.answers.columns)
        return {i: name for i, name in enumerate(self.chunk.columns) if name in given}

    @cached_property
    def added(self) -> list[str]:
        """The columns that come after the table's own."""
        own = set(self.chunk.columns)
        return [name for name in self.answers.columns if name not in own]

    @property
    def names(self) -> list[str]:
        """All columns of the result."""
        return [*self.chunk.columns, *self.added]

    def heads(self, *, safe: bool) -> list[str]:
        """Return the header cells of the columns after the table's own."""
        return [without_formula(name) for name in self.added] if safe else self.added

    def answered(self, *, safe: bool) -> Iterator[dict[str, Any]]:
        """Yield the answers' cells of each row, every null as None."""
        names = list(self.answers.columns)
        cells = [cell_values(self.answers.iloc[:, i]) for i in range(len(names))]
        if safe:
            cells = [[without_formula(value) for value in column] for column in cells]
        rows = zip(*cells, strict=True) if cells else repeat((), len(self.answers))
        for values in rows:
            yield dict(zip(names, values, strict=True))

    def rows(self, *, safe: bool) -> Iterator[list[Any]]:
        """Yield all cells of each row of the result, every null as None."""
        frame = self.chunk.frame
        own = [cell_values(frame.iloc[:, i]) for i in range(frame.shape[1])]
        for i, values in enumerate(self.answered(safe=safe)):
            before = [
                values[self.replaced[at]] if at in self.replaced else column[i]
                for at, column in enumerate(own)
            ]
            yield [*before, *(values[name] for name in self.added)]


Fill = Callable[[], Iterable[ChunkWithAnswers]]
"""Reads a table from its start, chunk by chunk with its answers; may be called again."""


def check_writable(target: TableFile) -> None:
    """Refuse an output file that could not be written, before anything is sent.

    Raises
    ------
    InputError
        Its folder is missing or closed, or it is a folder itself.
    """
    if target.is_stream:
        return
    if target.container == "workbook":
        check_workbook(target)
    folder = os.path.dirname(os.path.realpath(target.path))
    reason = None
    if os.path.isdir(target.path):
        reason = "it is a folder"
    elif not os.path.isdir(folder):
        reason = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK):
        reason = f"the folder {folder} may not be written"
    if reason:
        raise InputError(
            f"{target.path} cannot be written: {reason}.", "Choose another file.", path=target.path
        )


def write_table(
    table: Table, answered: pd.DataFrame, target: TableFile, *, safe: bool = False
) -> None:
    """Write a table with the columns that were added to its frame, whole or not at all.

    Parameters
    ----------
    table : Table
        What was read.
    answered : DataFrame
        ``table.frame`` with more columns after its own; those of its own that are not as they
        were (an earlier collect's) are replaced.
    target : TableFile
        The file to write.
    safe : bool
        Whether a text of those columns that a spreadsheet would take for a formula gets a ``'``
        in front, in CSV and TSV.

    Raises
    ------
    FrameEnrichError
        The source changed since it was read, or the file cannot be written.
    """
    own = table.frame.shape[1]
    given = [i for i in range(answered.shape[1]) if i >= own or not _same(table.frame, answered, i)]
    answers = answered.iloc[:, given]
    # A table may have a column twice, and answers replace both by name.
    answers = answers.loc[:, ~answers.columns.duplicated()]

    def fill() -> Iterator[ChunkWithAnswers]:
        for chunk in table.source.chunks():
            rows = slice(chunk.start, chunk.start + chunk.rows)
            yield ChunkWithAnswers(chunk, answers.iloc[rows])

    write_chunks(fill, target, safe=safe)


def write_frame(frame: pd.DataFrame, target: TableFile, *, safe: bool = False) -> None:
    """Write a frame that was read from no file, whole or not at all.

    Parameters
    ----------
    frame : DataFrame
        Its first column is the user's own; the others come from the job.
    target, safe
        As `write_table` takes them.
    """
    chunk = Chunk(0, 0, list(frame.columns[:1]), None, own=frame.iloc[:, :1])
    write_chunks(lambda: [ChunkWithAnswers(chunk, frame.iloc[:, 1:])], target, safe=safe)


def write_chunks(fill: Fill, target: TableFile, *, safe: bool = False) -> None:
    """Write a table whose answers come chunk by chunk, whole or not at all.

    Parameters
    ----------
    fill : callable
        Gives the chunks. Where their values show too late what a Parquet column has to be, it is
        called once more.
    target, safe
        As `write_table` takes them.

    Raises
    ------
    OutputError
        The answers of one chunk have other columns than those before it.
    FrameEnrichError
        The source changed since it was read, or the file cannot be written.
    """
    safe = safe and target.format in DELIMITERS
    try:
        if target.format == "parquet":
            _write_parquet(lambda: _same_columns(fill()), target)
            return
        if target.container == "workbook":
            write_workbook(_same_columns(fill()), target)
            return
        with _staged_table(target) as file:
            chunks = _same_columns(fill())
            pieces = (piece for each in chunks for piece in _pieces(each, target, safe=safe))
            for piece in lines_as_array(pieces) if target.container == "array" else pieces:
                file.write(piece)
    except BrokenPipeError:  # the reader of standard output has ended: no fault of the file
        raise
    except OSError as error:
        raise FrameEnrichError(
            f"{target.path} cannot be written: {error.strerror or error}.",
            "Make room, or choose another file; the answers are kept in the store.",
            path=target.path,
        ) from error


def _same_columns(chunks: Iterable[ChunkWithAnswers]) -> Iterator[ChunkWithAnswers]:
    """Yield the chunks while all have the same columns: a table has one header, one schema."""
    first: list[str] | None = None
    for filled in chunks:
        names = list(filled.answers.columns)
        first = names if first is None else first
        if names != first:
            pairs = zip([*names, None], [*first, None], strict=False)
            name = next(has or wanted for has, wanted in pairs if has != wanted)
            raise OutputError(
                f"The answers' column {name!r} is missing or moved in some of the rows.",
                "Collect with a parser whose keys differ from the job's columns; no answer is "
                "lost.",
                column=name,
            )
        yield filled


@contextlib.contextmanager
def _staged_table(target: TableFile) -> Iterator[IO[bytes]]:
    """Yield a file that appears under its name only when it is complete, or standard output."""
    if target.is_stream:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    member = os.path.basename(target.path)[: -len(target.packing) or None]
    with named_file(target.path) as file, packed_into(file, target.packing, member) as content:
        yield content


def _same(before: pd.DataFrame, after: pd.DataFrame, column: int) -> bool:
    was, now = before.iloc[:, column], after.iloc[:, column]
    if was.dtype != now.dtype:
        return False
    # `equals` finds no NaN equal to itself; data that both share has not changed.
    shared = isinstance(was.dtype, pd.ArrowDtype) and _memory_of(was) == _memory_of(now)
    return shared or bool(was.equals(now))


def _memory_of(column: pd.Series) -> list[tuple[int, ...]]:
    """Return the memory addresses of each piece of an Arrow column."""
    pieces = pa.chunked_array(pa.array(column.array)).chunks
    return [
        (piece.offset, len(piece), *(each.address if each else 0 for each in piece.buffers()))
        for piece in pieces
    ]


# --- texts --------------------------------------------------------------------------------------


def _pieces(filled: ChunkWithAnswers, target: TableFile, *, safe: bool) -> Iterator[bytes]:
    """Yield the bytes of a chunk of a text table, a record at a time."""
    if filled.chunk.format == target.format:
        append = _append_json_members if target.format == "jsonl" else _append_csv_cells
        return append(filled, target, safe=safe)
    return (_write_json if target.format == "jsonl" else _write_csv)(filled, target, safe=safe)


def _append_csv_cells(filled: ChunkWithAnswers, _: TableFile, *, safe: bool) -> Iterator[bytes]:
    answers = filled.answered(safe=safe)
    for line in filled.chunk.lines:
        record, delimiter = cast("Record", line.record), line.origin.separator
        if line.row is not None:
            values = {name: cell_text(value) for name, value in next(answers).items()}
            new = {i: values[name] for i, name in filled.replaced.items()}
            # A cell that an earlier collect wrote, and that says the same, keeps its bytes.
            changed = {i: text for i, text in new.items() if text != record.cells[i]}
            yield with_cells(record, changed, [values[name] for name in filled.added], delimiter)
        elif record.cells:
            yield with_cells(record, {}, filled.heads(safe=safe), delimiter)
        else:
            yield record.raw.encode()


def _append_json_members(filled: ChunkWithAnswers, _: TableFile, *, safe: bool) -> Iterator[bytes]:
    answers = filled.answered(safe=safe)
    for line in filled.chunk.lines:
        raw = cast("bytes", line.record)
        if line.row is None:
            yield raw
        elif filled.replaced:
            # A member to replace may be anywhere in the line, so here the line is written anew.
            whole = {**line.row, **next(answers)}
            yield json.dumps(whole, ensure_ascii=False, default=str).encode() + b"\n"
        else:
            yield with_members(raw, next(answers))


def _write_csv(filled: ChunkWithAnswers, target: TableFile, *, safe: bool) -> Iterator[bytes]:
    delimiter = target.separator

    def line(texts: Iterable[str]) -> bytes:
        cells = delimiter.join(quoted(text, delimiter) for text in texts)
        return without_surrogates(cells).encode() + b"\n"

    if filled.chunk.number == 0:
        yield line([*filled.chunk.columns, *filled.heads(safe=safe)])
    for row in filled.rows(safe=safe):
        yield line(map(cell_text, row))


def _write_json(filled: ChunkWithAnswers, _: TableFile, *, safe: bool) -> Iterator[bytes]:
    names = filled.names
    for row in filled.rows(safe=safe):
        yield to_json(dict(zip(names, row, strict=True))) + b"\n"


# --- Parquet ------------------------------------------------------------------------------------


class _OutgrownError(Exception):
    """A chunk needs a wider type than the chunks written before it."""


def _write_parquet(fill: Fill, target: TableFile) -> None:
    forms = ArrowTypes()
    # Types are learned, not guessed: a chunk of nulls has none, and a nested member may come late.
    # So where a type grew, the whole file is written once more. Ordinary tables are written once.
    while True:
        with contextlib.suppress(_OutgrownError), _staged_table(target) as file:
            _write_once(fill, file, forms)
            return


def _write_once(fill: Fill, file: IO[bytes], forms: ArrowTypes) -> None:
    """Write all chunks in the known types; where a type grows, only learn from there on."""
    with contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        grown = False
        for filled in fill():
            table = _arrow_table(filled, forms)
            if writer is None:
                schema = table.schema.with_metadata(_pandas_types(table.schema, filled.answers))
                writer = stack.enter_context(pq.ParquetWriter(file, schema))
            grown = grown or not table.schema.equals(schema)
            if not grown:
                writer.write_table(table.replace_schema_metadata(schema.metadata))
    if grown:  # raised inside `_staged_table`, so that the unfinished file is dropped
        raise _OutgrownError


def _arrow_table(filled: ChunkWithAnswers, forms: ArrowTypes) -> pa.Table:
    """Combine the chunk's own Arrow columns with the new ones, in pandas' types."""
    chunk, answers = filled.chunk, filled.answers
    columns = []
    for i in range(len(chunk.columns)):
        if i in filled.replaced:
            columns.append(forms.array(i, answers[filled.replaced[i]]))
        elif chunk.arrow is not None:
            columns.append(chunk.arrow.column(i))
        else:
            columns.append(forms.array(i, chunk.frame.iloc[:, i]))
    for i, name in enumerate(filled.added, len(columns)):
        columns.append(forms.array(i, answers[name]))
    return pa.Table.from_arrays(columns, schema=_schema(filled, columns))


def _schema(filled: ChunkWithAnswers, columns: Sequence[Any]) -> pa.Schema:
    """Build the result's schema, with the source's metadata on its columns and the whole."""
    arrow = filled.chunk.arrow
    fields = [
        pa.field(name, column.type) for name, column in zip(filled.names, columns, strict=True)
    ]
    if arrow is None:
        return pa.schema(fields)
    for i in set(range(arrow.num_columns)) - set(filled.replaced):
        fields[i] = arrow.schema.field(i)
    return pa.schema(fields, arrow.schema.metadata)


def _pandas_types(schema: pa.Schema, answers: pd.DataFrame) -> Mapping[bytes, bytes]:
    """Return the schema's metadata, with pandas' dtypes of the new columns."""
    kept = dict(schema.metadata or {})
    new = pa.Schema.from_pandas(answers.iloc[:0], preserve_index=False)
    values = json.loads(new.metadata[b"pandas"])
    before = json.loads(kept.get(b"pandas", b"{}"))
    names = set(map(str, answers.columns))
    others = [column for column in before.get("columns", []) if column["name"] not in names]
    merged = {**values, **before, "columns": [*others, *values["columns"]]}
    return {**kept, b"pandas": json.dumps(merged).encode()}
