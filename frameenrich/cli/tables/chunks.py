"""Chunks: consecutive rows of a table, as text records or Parquet row groups.

CSV cells are texts, JSON values are Python's, Parquet columns have their Arrow types.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import IO, Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from frameenrich.cli.tables.arrow_types import plain_type
from frameenrich.cli.tables.files import Format, TableFile
from frameenrich.cli.tables.records import (
    Record,
    csv_records,
    json_lines,
    json_object,
    likely_delimiter,
)
from frameenrich.errors import InputError
from frameenrich.jsonl import most_unpacked_bytes, unpacks_to_too_much

CHUNK_ROWS = 50_000


CHUNK_BYTES = 32_000_000
"""A chunk has at most `CHUNK_ROWS` rows, and ends with the row that makes it larger than this."""


_ARROW_ROWS = 4096


_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A record of a text table as it was written, and its values where it is a row."""

    origin: TableFile
    number: int
    record: Record | bytes
    row: Any = None


@dataclass(eq=False)
class Chunk:
    """Consecutive rows of a table, with the records they are written back from.

    It is good until its `Source` is asked for the next one.

    Parameters
    ----------
    number : int
        Which one, from 0.
    start : int
        The position of its first row in the whole table.
    columns : sequence of str
        The table's.
    format : str, optional
        The table's; none where it is in no file.
    lines : list of Line
        Of a text table: the rows, and beside them the header and blank lines.
    arrow : Table, optional
        Of a Parquet table.
    own : DataFrame, optional
        Of a table that is in no file.
    called : str
        Where it begins, in messages.
    path, before : str, int
        The file that it is of, in messages, and how many of that file's rows come before it.
    """

    number: int
    start: int
    columns: Sequence[str]
    format: Format | None
    lines: list[Line] = field(default_factory=list)
    arrow: pa.Table | None = None
    own: pd.DataFrame | None = None
    called: str = ""
    path: str = ""
    before: int = 0

    def location(self, position: int) -> str:
        """Return the line of a row in its file, or its row number where a file has no lines."""
        if self.arrow is not None:
            return f"row {self.before + position + 1:,} of {self.path}"
        line = [line for line in self.lines if line.row is not None][position]
        word = "row" if line.origin.container == "workbook" else "line"
        return f"{word} {line.number:,} of {line.origin.called}"

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows as templates see them, named by their positions in the whole table."""
        if self.own is not None:
            return self.own
        if self.format == "jsonl":
            # As objects: a column of JSON may hold numbers, texts and lists side by side.
            cells = {
                name: pd.Series([row.get(name) for row in self._rows], dtype=object)
                for name in self.columns
            }
            frame = pd.DataFrame(cells, index=pd.RangeIndex(len(self._rows)))
            return frame.set_axis(pd.RangeIndex(self.start, self.start + len(self._rows)))
        if self.format == "parquet":
            return _arrow_frame(self.arrow, self.columns, self.start, pd.ArrowDtype)
        rows = self._rows
        parts = (rows[at : at + _ARROW_ROWS] for at in range(0, len(rows), _ARROW_ROWS))
        table = pa.concat_tables(map(_text_columns, parts))
        return _arrow_frame(table, self.columns, self.start, _as_text)

    def release(self) -> None:
        """Let the rows go, also where a loop that reads on still has a name for them."""
        self.lines.clear()
        self.arrow = None
        self.__dict__.pop("frame", None)

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self._rows) if self.arrow is None else len(self.arrow)

    @property
    def _rows(self) -> list[Any]:
        return [line.row for line in self.lines if line.row is not None]


def _text_columns(rows: list[list[str]]) -> pa.Table:
    cells = zip(*rows, strict=True)
    # An empty CSV cell is null; nothing else is, neither "NA" nor "null".
    columns = [pa.array([cell or None for cell in column], pa.string()) for column in cells]
    return pa.table(columns, names=[str(i) for i in range(len(columns))])


def _as_text(_: pa.DataType) -> Any:
    return pd.StringDtype("pyarrow")


def _arrow_frame(table: pa.Table, columns: Sequence[str], start: int, kinds: Any) -> pd.DataFrame:
    """Convert a table to pandas; an index that pandas wrote is a column like the others."""
    # By number, since two columns of a file may have the same name.
    numbered = table.rename_columns([str(i) for i in range(table.num_columns)])
    plain = _without_views(numbered, columns)
    frame: pd.DataFrame = plain.to_pandas(types_mapper=kinds, ignore_metadata=True)
    frame.index = pd.RangeIndex(start, start + len(frame))
    return frame.set_axis(list(columns), axis=1)


def _without_views(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Cast texts of Arrow's newer layout, which Polars writes and Arrow cannot pick rows of."""
    cast = []
    for name, column in zip(columns, table.columns, strict=True):
        kind = plain_type(column.type)
        try:
            plain = column if kind == column.type else column.cast(kind)
            plain.validate()  # of list views Arrow makes broken lists
            cast.append(plain)
        except pa.ArrowException as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise InputError(
                f"The column {name!r} ({column.type}) cannot be read: {reason}.",
                "Write it with a plainer type, such as texts, or leave it out of the file.",
                columns=[name],
            ) from None
    return pa.table(cast, names=table.column_names)


# --- texts --------------------------------------------------------------------------------------


def cut_lines(lines: Iterable[Line], limit: int | None) -> Iterator[list[Line]]:
    """Cut lines into chunks; blank lines and headers stay with the row before them."""
    held: list[Line] = []
    rows, size, taken = 0, 0, 0
    for line in lines:
        # Lines of several files come as one stream, so small files share a chunk, not a batch each.
        if line.row is not None and (rows == CHUNK_ROWS or size >= CHUNK_BYTES):
            yield held
            held, rows, size = [], 0, 0
        held.append(line)
        if line.row is not None:
            rows, taken = rows + 1, taken + 1
        size += len(line.record.raw if isinstance(line.record, Record) else line.record)
        if taken == limit:
            break
    if rows:
        yield held


def csv_rows(
    content: IO[bytes], origin: TableFile, header: Record | None, first: TableFile
) -> Generator[Line]:
    """Yield the records of a CSV file, without its header if another file came before it."""
    own: Record | None = None
    origin, hint = _hinted(content, origin)
    with contextlib.closing(csv_records(content, origin.separator, origin.called)) as records:
        for number, record in enumerate(records, 1):
            # A sheet has rows, and a cell with line breaks makes several lines of its CSV.
            line = number if origin.container else record.line
            if hint and number == 1:
                # As a blank line: the hint is written back, and is no header.
                yield Line(origin, line, replace(record, cells=[]))
            elif not record.cells:
                yield Line(origin, line, record)
            elif own is not None:
                yield Line(origin, line, record, _as_wide(record, own, origin))
            else:
                own = record
                _check_delimiter(own, origin)
                _check_width(own, origin)
                if header is None:
                    yield Line(origin, line, record)
                else:
                    _check_header(own, header, origin, first)
    if own is None:
        raise InputError(f"{origin.called} is empty.", "Give a table with a header line.")


_HINT = re.compile(rb"(?:\xef\xbb\xbf)?sep=([^\r\n])\r?\n")


def _hinted(content: IO[bytes], origin: TableFile) -> tuple[TableFile, bool]:
    """Take the delimiter from a first line ``sep=;``, as Excel writes and reads it."""
    found = _HINT.match(content.read(16))
    content.seek(0)
    if found is None:
        return origin, False
    # --delimiter wins over the file's own hint.
    return replace(origin, delimiter=origin.delimiter or found[1].decode("latin-1")), True


def header_cells(line: Line) -> list[str]:
    """Return the cells of a CSV record; none of a blank line, or of another format's."""
    return line.record.cells if isinstance(line.record, Record) else []


def _as_wide(record: Record, header: Record, origin: TableFile) -> list[str]:
    if len(record.cells) == len(header.cells):
        return record.cells
    cells = "1 cell" if len(record.cells) == 1 else f"{len(record.cells)} cells"
    guess = likely_delimiter(header, record, origin.separator) if origin.delimiter is None else None
    if guess is not None:
        raise InputError(
            f"{origin.called}, line {record.line}: {cells}, where the header has "
            f"{len(header.cells)}. The file looks like it uses {_shown_sign(guess)}.",
            f"Pass --delimiter {_typed_sign(guess)}.",
            line=record.line,
        )
    raise InputError(
        f"{origin.called}, line {record.line}: {cells}, where the header has {len(header.cells)}.",
        "Correct that line: a cell that holds the delimiter has to be in quotes.",
        line=record.line,
    )


def _check_delimiter(header: Record, origin: TableFile) -> None:
    """Refuse a header of one cell that another delimiter would cut, unless one was given."""
    guess = None
    if origin.delimiter is None and len(header.cells) == 1:
        guess = likely_delimiter(header, None, origin.separator)
    if guess is not None:
        raise InputError(
            f"{origin.called}, line {header.line}: the header is one cell, and the file looks like "
            f"it uses {_shown_sign(guess)}.",
            f"Pass --delimiter {_typed_sign(guess)}; where it is one column, "
            f"--delimiter {_typed_sign(origin.separator)}.",
            line=header.line,
        )


_MOST_COLUMNS = 100_000


def _check_width(header: Record, origin: TableFile) -> None:
    """Refuse a header of more columns than any table has: each would be a column of a frame."""
    if len(header.cells) > _MOST_COLUMNS:
        raise InputError(
            f"{origin.called}, line {header.line}: the header has {len(header.cells):,} columns; a "
            f"table may have {_MOST_COLUMNS:,}.",
            "Check the delimiter and the line ends.",
            line=header.line,
        )


def _shown_sign(delimiter: str) -> str:
    return "tabs" if delimiter == "\t" else repr(delimiter)


def _typed_sign(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else repr(delimiter)


def _check_header(own: Record, first: Record, origin: TableFile, before: TableFile) -> None:
    """Refuse files whose columns differ, or their order."""
    if own.cells == first.cells:
        return
    pairs = zip([*own.cells, None], [*first.cells, None], strict=False)
    at, (has, wanted) = next((i, p) for i, p in enumerate(pairs, 1) if p[0] != p[1])
    raise InputError(
        f"{origin.called}, line {own.line}: column {at} is {_shown(has)}, where "
        f"{before.called} has {_shown(wanted)}.",
        "Give files with the same header; run those with another one separately.",
        path=origin.path,
    )


def _shown(name: str | None) -> str:
    return "none" if name is None else repr(name)


def json_rows(content: IO[bytes], origin: TableFile, *, first: bool) -> Generator[Line]:
    """Yield the lines of a JSON Lines file; only the first file keeps its byte order mark."""
    for number, line, full in json_lines(content, origin.called):
        value = json_object(line, number, origin.called) if full else None
        yield Line(origin, number, line if first else line.removeprefix(_MARK), value)


def ended(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield lines of a file that others follow, with a line end on the last one, too."""
    last: Line | None = None
    for line in lines:
        if last is not None:
            yield last
        last = line
    if last is not None:
        yield last._replace(record=_with_end(last.record))


def _with_end(record: Record | bytes) -> Record | bytes:
    if isinstance(record, bytes):
        return record if record.endswith(b"\n") else record + b"\n"
    return record if record.raw.endswith(("\n", "\r")) else replace(record, raw=record.raw + "\n")


# --- Parquet ------------------------------------------------------------------------------------


@contextlib.contextmanager
def parquet_errors(origin: TableFile) -> Iterator[None]:
    """Make Arrow's errors name the file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{origin.called} cannot be read as Parquet: {reason}.",
            "Copy or download it again, or check how it was written.",
            path=origin.path,
        ) from None


def parquet_bytes(file: IO[bytes], origin: TableFile) -> int:
    """Return the uncompressed size of a Parquet file's values.

    Raises
    ------
    InputError
        They are more than any table of its size has.
    """
    packed = os.fstat(file.fileno()).st_size
    with parquet_errors(origin):
        parquet = pq.ParquetFile(file)
        size, most = _unpacked_bytes(parquet.metadata), most_unpacked_bytes(packed)
        # The footer counts a text once that stands in a million rows, and each row gets its own.
        if repeated := _repeated_texts(parquet):
            apart = pq.ParquetFile(file, read_dictionary=repeated)
            for batch in apart.iter_batches(columns=repeated):
                size += sum(map(_length_of_texts, batch.columns))
                if size > most:
                    break
    if size > most:
        raise InputError(
            f"{origin.called} is not read: {unpacks_to_too_much(packed)}.",
            "If it is your own, split it, or store a short code instead of the long text.",
            path=origin.path,
        )
    return size


def _repeated_texts(file: pq.ParquetFile) -> list[str]:
    """Return the columns of texts that take fewer bytes than the length of each would."""
    names = []
    for at, column in enumerate(file.schema_arrow):
        plain = len(file.schema) == len(file.schema_arrow)  # no nested columns before it
        if not plain or not (pa.types.is_string(column.type) or pa.types.is_binary(column.type)):
            continue
        groups = [file.metadata.row_group(i).column(at) for i in range(file.num_row_groups)]
        if any(each.total_uncompressed_size < 4 * each.num_values for each in groups):
            names.append(column.name)
    return names


def _length_of_texts(column: pa.Array) -> int:
    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    return int(pc.sum(lengths.cast(pa.int64())).as_py() or 0)


def _unpacked_bytes(footer: Any) -> int:
    return sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))


def batch_rows(file: pq.ParquetFile) -> int:
    """Return the number of rows in a chunk of this file."""
    footer = file.metadata
    # By the mean size of a row, as Parquet's footer knows sizes of row groups only.
    fitting = CHUNK_BYTES * footer.num_rows // max(_unpacked_bytes(footer), 1)
    return int(max(1, min(CHUNK_ROWS, fitting)))


def check_schema(own: pa.Schema, first: pa.Schema, origin: TableFile, before: TableFile) -> None:
    """Refuse files whose columns differ, their order, or their types."""
    if own.equals(first):
        return
    pairs = zip([*own, None], [*first, None], strict=False)
    has, wanted = next(p for p in pairs if p[0] is None or p[1] is None or not p[0].equals(p[1]))
    raise InputError(
        f"{origin.called} has the column {_name_and_type(has)}, where {before.called} "
        f"has {_name_and_type(wanted)}.",
        "Give files with the same columns and types; run the others separately.",
        path=origin.path,
    )


def _name_and_type(column: pa.Field | None) -> str:
    return "none" if column is None else f"{column.name!r} ({column.type})"
