"""Tables in files, read as they stand: nothing is guessed about what a cell may mean.

CSV cells are texts, JSON values are Python's, Parquet columns have their Arrow types. How such a
table is written back with more columns is `frameenrich.writeback`.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, Literal, Self, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from frameenrich.errors import InputError
from frameenrich.records import (
    Record,
    csv_records,
    json_lines,
    json_object,
)

Format = Literal["csv", "tsv", "jsonl", "parquet"]

STANDARD_STREAM = "-"
_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
DELIMITERS = {"csv": ",", "tsv": "\t"}
CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Place:
    """Where a table is, or goes, and in which format; ``-`` is the standard stream."""

    path: str
    format: Format
    compressed: bool = False

    @property
    def is_stream(self) -> bool:
        """Whether it is standard input or output."""
        return self.path == STANDARD_STREAM

    @property
    def called(self) -> str:
        """What messages call it, as the source that it is."""
        return "Standard input" if self.is_stream else self.path


@dataclass(frozen=True)
class Table:
    """A table as it was read: the frame that templates see, and what it is written back from.

    ``frame`` has a plain ``RangeIndex``: a row is named by its position. ``file`` is kept open, so
    that the records written back are those that were read; ``stamp`` tells whether they changed.
    ``arrow`` is what a Parquet file holds. To be closed, as a file is.
    """

    frame: pd.DataFrame
    place: Place
    file: IO[bytes]
    stamp: tuple[int, int]
    arrow: pa.Table | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def locate(path: str, wanted: str | None = None, *, like: Place | None = None) -> Place:
    """Tell a table's format by the file's ending.

    Parameters
    ----------
    path : str
        A file, or ``-``.
    wanted : str, optional
        The format where the ending does not say.
    like : Place, optional
        Whose format a standard stream has, where nothing else says.

    Raises
    ------
    InputError
        Nothing says.

    Examples
    --------
    >>> locate("goods.csv.gz"), locate("-", like=locate("goods.jsonl")).format
    (Place(path='goods.csv.gz', format='csv', compressed=True), 'jsonl')
    """
    name = os.path.basename(path).lower()
    stem = name.removesuffix(".gz")
    told = _ENDINGS.get(os.path.splitext(stem)[1])
    if path == STANDARD_STREAM:
        told = cast("Format | None", wanted) or (like.format if like else None)
    choice = told or cast("Format | None", wanted)
    if choice is None or (choice == "parquet" and (path == STANDARD_STREAM or stem != name)):
        what = "standard input or output" if path == STANDARD_STREAM else path
        raise InputError(
            f"The format of {what} is not known.",
            "Use a file that ends in .csv, .tsv, .jsonl (each also with .gz) or .parquet, or say "
            "--format csv, tsv or jsonl.",
            path=path,
        )
    return Place(path, choice, stem != name)


# --- reading ------------------------------------------------------------------------------------


def read_table(place: Place, *, limit: int | None = None) -> Table:
    """Read a table, every cell as it stands.

    Parameters
    ----------
    place : Place
        Where it is.
    limit : int, optional
        How many rows are read at most.

    Returns
    -------
    Table
        CSV cells are texts, and an empty one is null; nothing else is. JSON values are Python's;
        Parquet columns have their Arrow types.

    Raises
    ------
    InputError
        The file is missing, empty, not of its format, or a record of it is not like the others;
        the message has its line.
    """
    file = _open_source(place)
    try:
        return _read(file, place, limit)
    except BaseException:
        file.close()
        raise


def _read(file: IO[bytes], place: Place, limit: int | None) -> Table:
    stamp = stamp_of(file)
    if place.format == "parquet":
        arrow = _read_parquet(file, place, limit)
        table = Table(_arrow_frame(arrow), place, file, stamp, arrow)
    else:
        read = _read_json_lines if place.format == "jsonl" else _read_csv
        table = Table(read(file, place, limit), place, file, stamp)
    if not len(table.frame):
        raise InputError(f"{place.called} holds no rows.", "Give a table with at least one row.")
    return table


def _open_source(place: Place) -> IO[bytes]:
    """The file, or a copy of what comes down a pipe: something that can be read twice."""
    try:
        if place.is_stream:
            return _spooled(sys.stdin.buffer)
        file = open(place.path, "rb")  # noqa: SIM115 - kept open with the table
        if file.seekable():
            return file
        with file:
            return _spooled(file)
    except OSError as error:
        raise InputError(
            f"{place.called} cannot be read: {error.strerror}.", "Check the path.", path=place.path
        ) from None


def _spooled(stream: IO[bytes]) -> IO[bytes]:
    copy: Any = tempfile.TemporaryFile()  # noqa: SIM115 - kept open with the table
    shutil.copyfileobj(stream, copy)
    copy.flush()
    return cast("IO[bytes]", copy)


def stamp_of(file: IO[bytes]) -> tuple[int, int]:
    """What changes when somebody writes into the file: its size, and the time (ns)."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def content_of(file: IO[bytes], place: Place) -> Iterator[IO[bytes]]:
    """The file from its start, decompressed; it stays open."""
    file.seek(0)
    try:
        whole: Any = gzip.GzipFile(fileobj=file, mode="rb") if place.compressed else file
        yield whole
    except (gzip.BadGzipFile, EOFError) as error:
        raise InputError(
            f"{place.called} is not a whole gzip file: {error}.", "Check it.", path=place.path
        ) from None


def _read_csv(file: IO[bytes], place: Place, limit: int | None) -> pd.DataFrame:
    with (
        content_of(file, place) as content,
        contextlib.closing(csv_records(content, DELIMITERS[place.format], place.called)) as records,
    ):
        filled = (record for record in records if record.cells)
        header = next(filled, None)
        if header is None:
            raise InputError(f"{place.called} is empty.", "Give a table with a header line.")
        rows = islice((_as_wide(record, header, place) for record in filled), limit)
        chunks = []
        while chunk := list(islice(rows, CHUNK_ROWS)):
            chunks.append(_text_columns(chunk))
    return _text_frame(chunks, header.cells)


def _as_wide(record: Record, header: Record, place: Place) -> list[str]:
    if len(record.cells) == len(header.cells):
        return record.cells
    raise InputError(
        f"{place.called}, line {record.line}: {len(record.cells)} cells, where the header has "
        f"{len(header.cells)}.",
        "Mend that line: a cell that holds the delimiter has to be in quotes.",
        line=record.line,
    )


def _text_columns(rows: list[list[str]]) -> pa.Table:
    cells = zip(*rows, strict=True)
    columns = [pa.array([cell or None for cell in column], pa.string()) for column in cells]
    return pa.table(columns, names=[str(i) for i in range(len(columns))])


def _text_frame(chunks: list[pa.Table], header: Sequence[str]) -> pd.DataFrame:
    if not chunks:
        return pd.DataFrame(columns=list(header))
    text = pd.StringDtype("pyarrow")
    frame: pd.DataFrame = pa.concat_tables(chunks).to_pandas(types_mapper=lambda _: text)
    return frame.set_axis(list(header), axis=1)


def _read_json_lines(file: IO[bytes], place: Place, limit: int | None) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {}
    count = 0
    with content_of(file, place) as content:
        filled = ((number, line) for number, line, full in json_lines(content) if full)
        for number, line in islice(filled, limit):
            for name, value in json_object(line, number, place.called).items():
                cells = columns.setdefault(name, [])
                cells.extend([None] * (count - len(cells)))
                cells.append(value)
            count += 1
    for cells in columns.values():
        cells.extend([None] * (count - len(cells)))
    frame = {name: pd.Series(cells, dtype=object) for name, cells in columns.items()}
    return pd.DataFrame(frame, index=pd.RangeIndex(count))


def _read_parquet(file: IO[bytes], place: Place, limit: int | None) -> pa.Table:
    try:
        return pq.ParquetFile(file).read().slice(0, limit)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{place.called} cannot be read as Parquet: {reason}.", "Check it.", path=place.path
        ) from None


def _arrow_frame(table: pa.Table) -> pd.DataFrame:
    """The same data in pandas; what pandas wrote as an index is a column like the others."""
    plain = table.rename_columns([str(i) for i in range(table.num_columns)])
    frame: pd.DataFrame = plain.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return frame.set_axis(table.column_names, axis=1)
