"""Tables written back with the columns that were added to them, whole or not at all.

Nothing that was there is written anew: CSV and JSON Lines keep the bytes of each record, to which
the new cells are appended; Parquet keeps its Arrow columns. Only a table that goes to another
format has to be put into it.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import IO, Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from frameenrich.errors import FrameEnrichError, InputError
from frameenrich.records import (
    cell_text,
    csv_records,
    json_lines,
    json_object,
    quoted,
    to_json,
    with_cells,
    with_members,
    without_formula,
)
from frameenrich.render import cell_values
from frameenrich.tables import CHUNK_ROWS, DELIMITERS, Place, Table, content_of, stamp_of


def check_writable(place: Place) -> None:
    """Refuse a file that could not be written, before anything is sent.

    Raises
    ------
    InputError
        Its folder is missing or closed, or it is a folder itself.
    """
    if place.is_stream:
        return
    folder = os.path.dirname(os.path.realpath(place.path))
    reason = None
    if os.path.isdir(place.path):
        reason = "it is a folder"
    elif not os.path.isdir(folder):
        reason = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK):
        reason = f"the folder {folder} may not be written"
    if reason:
        raise InputError(
            f"{place.path} cannot be written: {reason}.", "Choose another file.", path=place.path
        )


def write_table(table: Table, answered: pd.DataFrame, place: Place, *, safe: bool = False) -> None:
    """Write a table with the columns that were added to its frame, whole or not at all.

    Parameters
    ----------
    table : Table
        What was read.
    answered : DataFrame
        ``table.frame`` with more columns after its own; those of its own that are not as they
        were (an earlier collect's) are replaced.
    place : Place
        Where it goes.
    safe : bool
        Whether a text of those columns that a spreadsheet would take for a formula gets a ``'``
        in front, in CSV and TSV.

    Raises
    ------
    FrameEnrichError
        The source changed since it was read, or the file cannot be written.
    """
    changes = _Changes(table, answered, safe=safe and place.format in DELIMITERS)
    try:
        with _whole_table(place) as file:
            if place.format == "parquet":
                pq.write_table(_arrow_table(table, changes), file)
            else:
                for piece in _pieces(table, changes, place):
                    file.write(piece)
    except BrokenPipeError:  # who reads standard output has had enough
        raise
    except OSError as error:
        raise FrameEnrichError(
            f"{place.path} cannot be written: {error.strerror or error}.",
            "Make room, or choose another file; the answers are kept in the store.",
            path=place.path,
        ) from error


def write_frame(frame: pd.DataFrame, place: Place, *, safe: bool = False) -> None:
    """Write a frame that was read from no file, whole or not at all.

    Parameters
    ----------
    frame : DataFrame
        Its first column is the user's own; the others come from the job.
    place, safe
        As `write_table` takes them.
    """
    nowhere = Place("the job", "parquet")
    table = Table(frame.iloc[:, :1], nowhere, io.BytesIO(), (0, 0))
    write_table(table, frame, place, safe=safe)


@contextlib.contextmanager
def _whole_table(place: Place) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name when it is complete, or standard output."""
    if place.is_stream:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with whole_file(place.path) as file:
        yield from _compressing(file, place)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name, or where that leads, when it is complete.

    What is there and no file (a device, a pipe) is written to, never replaced.
    """
    path = os.path.realpath(path)
    temporary = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    is_device = os.path.exists(path) and not os.path.isfile(path)
    try:
        with open(path if is_device else temporary, "wb") as file:
            yield file
            if not is_device:
                file.flush()
                os.fsync(file.fileno())
        if not is_device:
            if os.path.exists(path):
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _compressing(file: IO[bytes], place: Place) -> Iterator[IO[bytes]]:
    if not place.compressed:
        yield file
        return
    with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        yield cast("IO[bytes]", packed)


class _Changes:
    """What is new in a table: which columns, and their cells row by row."""

    def __init__(self, table: Table, answered: pd.DataFrame, *, safe: bool) -> None:
        own = table.frame.shape[1]
        self.frame = answered
        self.names = [str(name) for name in answered.columns]
        self.replaced = [i for i in range(own) if not _same(table.frame, answered, i)]
        self.added = list(range(own, answered.shape[1]))
        self._safe = safe

    @cached_property
    def columns(self) -> list[int]:
        """The columns that come from the job."""
        return [*self.replaced, *self.added]

    def rows(self, columns: Sequence[int]) -> Iterator[dict[int, Any]]:
        """Some columns' cells of each row, every null as None."""
        ours = set(self.columns) if self._safe else set()
        for start in range(0, len(self.frame), CHUNK_ROWS):
            chunk = self.frame.iloc[start : start + CHUNK_ROWS]
            cells = [cell_values(chunk.iloc[:, i]) for i in columns]
            for i, column in enumerate(columns):
                if column in ours:
                    cells[i] = [without_formula(value) for value in cells[i]]
            for values in zip(*cells, strict=True):
                yield dict(zip(columns, values, strict=True))


def _same(before: pd.DataFrame, after: pd.DataFrame, column: int) -> bool:
    was, now = before.iloc[:, column], after.iloc[:, column]
    return bool(was.dtype == now.dtype and was.equals(now))


def _pieces(table: Table, changes: _Changes, place: Place) -> Iterator[bytes]:
    """The bytes of a text table, a record at a time."""
    if table.place.format != place.format:
        yield from (_json_anew(changes) if place.format == "jsonl" else _csv_anew(changes, place))
        return
    beside = _json_beside if place.format == "jsonl" else _csv_beside
    with content_of(table.file, table.place) as content:
        _check_unchanged(table)
        yield from beside(content, table.place, changes)
        _check_unchanged(table)


def _check_unchanged(table: Table) -> None:
    if stamp_of(table.file) != table.stamp:
        raise FrameEnrichError(
            f"{table.place.called} changed since it was read.",
            "Give the same command again; what stayed the same is not asked again.",
            path=table.place.path,
        )


def _csv_beside(content: IO[bytes], place: Place, changes: _Changes) -> Iterator[bytes]:
    delimiter = DELIMITERS[place.format]
    rows = changes.rows(changes.columns)
    names = [changes.names[i] for i in changes.added]
    has_header = False
    with contextlib.closing(csv_records(content, delimiter, place.called)) as records:
        for record in records:
            if not record.cells:
                yield record.raw.encode()
            elif not has_header:
                has_header = True
                yield with_cells(record, {}, names, delimiter)
            else:
                row = next(rows, None)
                if row is None:  # the rest lies beyond --limit
                    return
                texts = {i: cell_text(value) for i, value in row.items()}
                added = [texts.pop(i) for i in changes.added]
                yield with_cells(record, texts, added, delimiter)


def _json_beside(content: IO[bytes], place: Place, changes: _Changes) -> Iterator[bytes]:
    rows = changes.rows(changes.columns)
    for number, line, full in json_lines(content):
        if not full:
            yield line
            continue
        row = next(rows, None)
        if row is None:  # the rest lies beyond --limit
            return
        members = {changes.names[i]: value for i, value in row.items()}
        if changes.replaced:
            known = json_object(line, number, place.called)
            yield json.dumps({**known, **members}, ensure_ascii=False, default=str).encode() + b"\n"
        else:
            yield with_members(line, members)


def _csv_anew(changes: _Changes, place: Place) -> Iterator[bytes]:
    delimiter = DELIMITERS[place.format]

    def line(texts: list[str]) -> bytes:
        cells = delimiter.join(quoted(text, delimiter) for text in texts)
        return cells.encode("utf-8", "replace") + b"\n"

    yield line(changes.names)
    for row in changes.rows(range(len(changes.names))):
        yield line([cell_text(value) for value in row.values()])


def _json_anew(changes: _Changes) -> Iterator[bytes]:
    for row in changes.rows(range(len(changes.names))):
        yield to_json({changes.names[i]: value for i, value in row.items()}) + b"\n"


# --- Parquet ------------------------------------------------------------------------------------


def _arrow_table(table: Table, changes: _Changes) -> pa.Table:
    """The table's own Arrow columns, and the new ones with the types that pandas gave them."""
    own = table.frame.shape[1]
    whole = table.arrow
    if whole is None:
        columns = [_arrow_column(table.frame.iloc[:, i]) for i in range(own)]
        whole = pa.table(columns, names=changes.names[:own])
    for i in changes.columns:
        field, column = changes.names[i], _arrow_column(changes.frame.iloc[:, i])
        whole = (
            whole.set_column(i, field, column) if i < own else whole.append_column(field, column)
        )
    return whole.replace_schema_metadata(_pandas_types(whole, changes))


def _arrow_column(column: pd.Series) -> pa.Array | pa.ChunkedArray:
    """A column's Arrow form; as JSON texts where its values have no type in common."""
    try:
        array = pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        array = None
    if array is None or _is_unwritable(array.type):
        texts = [None if v is None else cell_text(v) for v in cell_values(column)]
        return pa.array(texts, pa.string())
    return array


def _is_unwritable(kind: pa.DataType) -> bool:
    """Whether Parquet has no form for the type: an object without members, at any depth."""
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_is_unwritable(field.type) for field in kind)
    return pa.types.is_list(kind) and _is_unwritable(kind.value_type)


def _pandas_types(whole: pa.Table, changes: _Changes) -> Mapping[bytes, bytes]:
    """The schema's metadata, with what pandas wants to know of the new columns."""
    kept = dict(whole.schema.metadata or {})
    new = pa.Schema.from_pandas(changes.frame.iloc[:0, changes.columns], preserve_index=False)
    told = json.loads(new.metadata[b"pandas"])
    before = json.loads(kept.get(b"pandas", b"{}"))
    names = {changes.names[i] for i in changes.columns}
    others = [column for column in before.get("columns", []) if column["name"] not in names]
    merged = {**told, **before, "columns": [*others, *told["columns"]]}
    return {**kept, b"pandas": json.dumps(merged).encode()}
