"""Tables in files, read a chunk at a time; no cell's type is guessed.

A table may lie in several files, which are read as if they were one. `cli.tables.chunks` reads each
of them; `cli.tables.write` writes a table back with more columns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import IO, Any, Self, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from frameenrich.cli.tables.chunks import (
    Chunk,
    Line,
    batch_rows,
    check_schema,
    csv_rows,
    cut_lines,
    ended,
    header_cells,
    json_rows,
    parquet_bytes,
    parquet_errors,
)
from frameenrich.cli.tables.files import (
    TableFile,
    check_unchanged,
    decompressed,
    file_version,
    open_file,
)
from frameenrich.cli.tables.packing import unpacks_to_more
from frameenrich.cli.tables.records import Record
from frameenrich.errors import InputError

# Without a buffer Arrow reads each column chunk of a row group whole.
_READ_BYTES = 1 << 20


_PACKED = 4
"""The assumed compression ratio of a workbook."""


class NoRowsError(InputError):
    """A table holds no rows; ``chunk`` is what can be written back of it."""

    def __init__(self, called: str, chunk: Chunk) -> None:
        super().__init__(f"{called} holds no rows.", "Give a table with at least one row.")
        self.chunk = chunk


class Source:
    """An open table in one file or several, which can be read repeatedly, chunk by chunk.

    A single file is kept open, so that what is written back is what was read; standard input and
    pipes are copied first. To be closed, as a file is.

    Parameters
    ----------
    files : sequence of TableFile
        Its files, all of one format.
    limit : int, optional
        How many rows are read at most.

    Raises
    ------
    InputError
        A file cannot be read.
    """

    def __init__(self, files: Sequence[TableFile], *, limit: int | None = None) -> None:
        self.files = tuple(files)
        self.format = self.files[0].format
        self.limit = limit
        # Kept open where it is one: standard input is copied once and read several times.
        self._file = open_file(self.files[0]) if len(self.files) == 1 else None
        # Read several times, a file has to be the same each time.
        self._stamps = [file_version(self._file or origin.path) for origin in self.files]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def called(self) -> str:
        """Return the name of the source in messages."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0].called}{more}"

    def is_larger_than(self, most: int) -> bool:
        """Tell whether it has more bytes than that, unpacked; of a workbook roughly."""
        if self.format == "parquet":
            return sum(parquet_bytes(file, origin) for file, origin in self._opened()) > most
        # A workbook is a zip of XML; to measure it, it would have to be unpacked, which this
        # spares.
        times = [_PACKED if origin.container == "workbook" else 1 for origin in self.files]
        sizes = (size * by for (size, _), by in zip(self._stamps, times, strict=True))
        return sum(sizes) > most or any(
            unpacks_to_more(file, origin.packing, most // len(self.files), origin.called)
            for file, origin in self._opened()
            if origin.packing
        )

    @cached_property
    def columns(self) -> list[str]:
        """Its columns; of JSON Lines those of all rows, in the order in which they appear."""
        if self.format == "jsonl":
            # All rows are read for it: a member may appear in the last one only.
            rows = islice((line.row for line in self._lines() if line.row is not None), self.limit)
            return list(dict.fromkeys(name for row in rows for name in row))
        if self.format == "parquet":
            return list(next(self._parquet_files())[1].schema_arrow.names)
        return next(header_cells(line) for line in self._lines() if header_cells(line))

    def chunks(self) -> Iterator[Chunk]:
        """Yield all rows, in order.

        Raises
        ------
        NoRowsError
            There are none.
        InputError
            A file is empty, not of its format, or not like the first one, or a record of it is not
            like the others; the message has file and line.
        FrameEnrichError
            A file changed since it was opened.
        """
        start, columns = 0, self.columns
        number = 0
        found = self._parquet_chunks() if self.format == "parquet" else self._text_chunks()
        # No `enumerate`, which keeps what it gave last: a chunk takes several times its bytes, and
        # two of them would be in memory while the next one is read.
        for rows, content in found:
            chunk = Chunk(number, start, columns, self.format, **content)
            del content
            yield chunk
            chunk.release()
            number, start = number + 1, start + rows
        if not start:
            raise NoRowsError(self.called, self._without_rows())

    def _without_rows(self) -> Chunk:
        """Return what a table without rows has all the same: its header, or its schema."""
        if self.format != "parquet":
            own = pd.DataFrame([], columns=self.columns, dtype=pd.StringDtype("pyarrow"))
            return Chunk(0, 0, self.columns, self.format, lines=list(self._lines()), own=own)
        schema = next(self._parquet_files())[1].schema_arrow
        return Chunk(0, 0, self.columns, self.format, arrow=schema.empty_table())

    def location(self, position: int) -> str:
        """Return the line of a row in its file, for messages."""
        own = next(each for each in self.chunks() if position < each.start + each.rows)
        return own.location(position - own.start)

    def _opened(self) -> Iterator[tuple[IO[bytes], TableFile]]:
        """Yield each file, unchanged since the source was opened."""
        for origin, stamp in zip(self.files, self._stamps, strict=True):
            with contextlib.ExitStack() as stack:
                file = self._file or stack.enter_context(open_file(origin))
                check_unchanged(file, origin, stamp)
                yield file, origin
                # Again: it may have changed while it was read.
                check_unchanged(file, origin, stamp)

    def _text_chunks(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for lines in cut_lines(self._lines(), self.limit):
            rows = sum(line.row is not None for line in lines)
            first = next(line for line in lines if line.row is not None)
            called = f"{first.origin.called}, from line {first.number} on"
            yield rows, {"lines": lines, "called": called}

    def _lines(self) -> Iterator[Line]:
        """Yield the records of all files, as if they stood in one."""
        header: Record | None = None
        for i, (file, origin) in enumerate(self._opened()):
            with (
                decompressed(file, origin) as content,
                contextlib.closing(self._records(content, origin, header)) as lines,
            ):
                for line in ended(lines) if i < len(self.files) - 1 else lines:
                    if header is None and header_cells(line):
                        header = cast("Record", line.record)
                    yield line

    def _records(
        self, content: IO[bytes], origin: TableFile, header: Record | None
    ) -> Generator[Line]:
        first = self.files[0]
        if self.format == "jsonl":
            return json_rows(content, origin, first=origin == first)
        return csv_rows(content, origin, header, first)

    def _parquet_files(self) -> Iterator[tuple[TableFile, pq.ParquetFile]]:
        first: pa.Schema | None = None
        for file, origin in self._opened():
            parquet_bytes(file, origin)
            with parquet_errors(origin):
                opened = pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False)
            first = first or opened.schema_arrow
            check_schema(opened.schema_arrow, first, origin, self.files[0])
            yield origin, opened

    def _parquet_chunks(self) -> Iterator[tuple[int, dict[str, Any]]]:
        # Unlike text chunks, these end with their file: a row group cannot cross files.
        left = self.limit
        for origin, file in self._parquet_files():
            read = 0
            with parquet_errors(origin):
                for batch in file.iter_batches(batch_rows(file)):
                    rows = batch.slice(0, left)
                    called = f"{origin.called}, from its row {read:,} on"
                    table = pa.Table.from_batches([rows])
                    where = {"called": called, "path": origin.called, "before": read}
                    read += len(rows)
                    left = None if left is None else left - len(rows)
                    count = len(rows)
                    del batch, rows  # before the next one is read
                    yield count, {"arrow": table, **where}
                    del table
                    if left == 0:
                        return
            # Arrow takes the data for what it is where the footer says otherwise.
            if read != file.metadata.num_rows:
                raise InputError(
                    f"{origin.called} has only {read:,} of the {file.metadata.num_rows:,} rows "
                    "that its footer counts.",
                    "Copy or download it again: it may be damaged.",
                    path=origin.path,
                )


@dataclass(frozen=True)
class Table:
    """A table that was read whole, its rows named by position. To be closed like a file."""

    frame: pd.DataFrame
    source: Source

    def location(self, position: int) -> str:
        """Return the line of a row in its file, for messages."""
        return self.source.location(position)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.__exit__()


def read_table(origin: TableFile, *, limit: int | None = None) -> Table:
    """Read a table from one file, every cell as it is.

    Parameters
    ----------
    origin : TableFile
        The file.
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
    return read_tables([origin], limit=limit)


def read_tables(files: Sequence[TableFile], *, limit: int | None = None) -> Table:
    """Read a table from several files; see `read_table`."""
    source = Source(files, limit=limit)
    try:
        return read_whole(source)
    except BaseException:
        source.__exit__()
        raise


def read_whole(source: Source) -> Table:
    """Read all of a source at once; see `read_table`."""
    frames = [chunk.frame for chunk in source.chunks()]
    whole = frames[0] if len(frames) == 1 else pd.concat(frames)
    return Table(whole, source)
