"""Tables in workbooks: a sheet is read as CSV, and written back beside the other sheets.

python-calamine reads (fast, and .xls and .ods, too), in a child (`sheet_reader`); openpyxl writes
into the workbook that was read: other sheets, formats, formulas and widths stay. Both come with the
extra ``frameenrich[excel]``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from typing import IO, TYPE_CHECKING, Any

from frameenrich.atomic import named_file
from frameenrich.cli.tables import sheet_reader
from frameenrich.cli.tables.files import TableFile
from frameenrich.cli.tables.records import cell_text
from frameenrich.cli.tables.sheet_notes import sheet_notes
from frameenrich.errors import InputError, warn_user
from frameenrich.text import size_text, without_surrogates

if TYPE_CHECKING:
    from frameenrich.cli.tables.write import ChunkWithAnswers

_LONGEST_CELL = 32_767  # Excel's own limit
# A million rows of ten columns take half of it; a workbook's texts are a few times its own size.
_MEMORY_BYTES, _MEMORY_TIMES = 2 << 30, 50
_EXACT = 2**53  # Excel holds numbers as floats, which are exact up to here
# Parts of a workbook that openpyxl cannot read, or not whole, and so does not write back.
_LOST = {"xl/charts/": "charts", "xl/drawings/": "drawings and pictures"}
_LOST |= {"xl/pivotTables/": "pivot tables", "xl/vbaProject.bin": "macros"}


@contextlib.contextmanager
def sheet_as_csv(file: IO[bytes], origin: TableFile) -> Iterator[IO[bytes]]:
    """Read a sheet as CSV: a record a row, numbers and dates as texts, a blank row as a blank line.

    Raises
    ------
    InputError
        There is no such sheet, several to choose from, or a cell outside the header's columns; or
        reading it takes more memory than a table of its size does.
    """
    if importlib.util.find_spec("python_calamine") is None:
        raise _not_installed(origin)
    packed = file.read()
    memory_bytes = _MEMORY_BYTES + _MEMORY_TIMES * len(packed)
    with tempfile.TemporaryFile() as copy:
        arguments = json.dumps([origin.called, origin.sheet, memory_bytes])
        read = subprocess.run(  # noqa: S603 - our own module, by its path
            [sys.executable, "-P", sheet_reader.__file__, arguments],
            input=packed,
            stdout=copy,
            stderr=subprocess.PIPE,
            # What is installed for this process is for that one, too.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
        if read.returncode == sheet_reader.REFUSED:
            problem, fix = json.loads(read.stderr)
            raise InputError(problem, fix, path=origin.path)
        if read.returncode == sheet_reader.NO_WORKBOOK:
            raise _no_workbook(file, origin, json.loads(read.stderr))
        if read.returncode:
            raise InputError(
                f"{origin.called} cannot be read as a workbook: it takes more than "
                f"{memory_bytes / 1e9:.1f} GB of memory, for a file of {size_text(len(packed))}.",
                "Often one cell stands far outside the table (Ctrl+End finds it): delete the rows "
                "and columns there, or save the sheet as .csv.",
                path=origin.path,
            )
        name = json.loads(read.stderr)
        for note in sheet_notes(file, name):
            warn_user(f"{origin.called}, sheet {name!r}: {note}")
        # The child has moved the position in the file, of which this process does not know.
        os.lseek(copy.fileno(), 0, os.SEEK_SET)
        copy.seek(0)
        yield copy


_OLE = bytes.fromhex("d0cf11e0a1b11ae1")
"""How old workbooks begin, and new ones under a password."""


def _no_workbook(file: IO[bytes], origin: TableFile, reason: str) -> InputError:
    """Say what a file is that ends like a workbook and is none."""
    file.seek(0)
    start = file.read(512)
    what, fix = f"cannot be read as a workbook: {reason}", "Open it in a spreadsheet program and "
    fix += "save it as .xlsx, without a password."
    if start.startswith(_OLE) and origin.path.lower().endswith((".xlsx", ".xlsm", ".xlsb")):
        what = "is protected by a password, or damaged"
    elif start.lstrip().startswith(b"<"):  # what many web pages call an export to Excel
        what = "is a web page or XML, not a workbook"
    elif start and not start.startswith((_OLE, b"PK")) and b"\0" not in start:
        what, fix = "is a text, not a workbook", "Rename it to .csv, or to .tsv if tabs divide it."
    return InputError(f"{origin.called} {what}.", fix, path=origin.path)


def write_workbook(chunks: Iterable[ChunkWithAnswers], target: TableFile) -> None:
    """Write a table into a workbook: its own with more columns, or a new one, whole or not at all.

    Raises
    ------
    InputError
        The extra is not installed, or the format is one that is only read.
    """
    check_workbook(target)
    import openpyxl  # noqa: PLC0415 - an extra

    parts = iter(chunks)
    first = next(parts)
    # Only what openpyxl itself can load is written into; a table from CSV or .xls is new.
    source = first.chunk.lines[0].origin if first.chunk.lines else None
    both = itertools.chain([first], parts)
    if source is None or not source.path.lower().endswith((".xlsx", ".xlsm")):
        # Write-only: openpyxl then keeps no cells in memory.
        book: Any = openpyxl.Workbook(write_only=True)
        _write_new(both, book)
    else:
        macros = target.path.lower().endswith(".xlsm")
        book = openpyxl.load_workbook(source.path, keep_vba=macros)
        _warn_of_losses(source, target, keeps_macros=macros)
        _write_into_sheet(both, book[source.sheet] if source.sheet else _only_sheet(book))
    with named_file(target.path) as file:
        book.save(file)


def check_workbook(target: TableFile) -> None:
    """Refuse a workbook that cannot be written, before anything is sent."""
    if not target.path.lower().endswith((".xlsx", ".xlsm")):
        raise InputError(
            f"{target.path} cannot be written: .xlsx is the only workbook format that can.",
            "Name it .xlsx, or .csv.",
            path=target.path,
        )
    try:
        import openpyxl  # noqa: F401, PLC0415 - an extra
    except ImportError:
        raise _not_installed(target) from None


def _not_installed(file: TableFile) -> InputError:
    return InputError(
        f"Workbooks such as {file.path} need two more packages.",
        "Run: pip install 'frameenrich[excel]'.",
        path=file.path,
    )


def _only_sheet(book: Any) -> Any:
    """Return the sheet that was read where no name was given: the only filled one."""
    # By values: openpyxl counts rows of cells that are only formatted, which nothing is read of.
    sheets = book.worksheets
    values = ((sheet, itertools.chain.from_iterable(sheet.values)) for sheet in sheets)
    return next((own for own, cells in values if any(c is not None for c in cells)), sheets[0])


def _write_new(chunks: Iterable[ChunkWithAnswers], book: Any) -> None:
    from openpyxl.cell import WriteOnlyCell  # noqa: PLC0415 - an extra

    sheet, cut = book.create_sheet(), _Cut()
    for filled in chunks:
        if filled.chunk.number == 0:
            sheet.append(filled.names)
        for row in filled.rows(safe=False):
            cells = []
            for value in row:
                cells.append(WriteOnlyCell(sheet))
                cut.put(cells[-1], value)
            sheet.append(cells)
    cut.warn()


def _write_into_sheet(chunks: Iterable[ChunkWithAnswers], sheet: Any) -> None:
    """Put the answers' cells into the sheet's rows; each row is one line that was read."""
    cut, row, column = _Cut(), 0, 0
    for filled in chunks:
        answers = filled.answered(safe=False)
        own = {name: at + 1 for at, name in filled.replaced.items()}
        column = column or len(filled.chunk.columns)
        columns = own | {name: column + i for i, name in enumerate(filled.added, 1)}
        _unmerge(sheet, columns.values())
        for line in filled.chunk.lines:
            row += 1
            if line.row is not None:
                for name, value in next(answers).items():
                    cut.put(sheet.cell(row, columns[name]), value)
            elif getattr(line.record, "cells", None):
                for name in filled.added:
                    cell, neighbour = sheet.cell(row, columns[name]), sheet.cell(row, column)
                    cut.put(cell, name)
                    if neighbour.has_style:
                        cell._style = neighbour._style  # noqa: SLF001 - openpyxl's own way
    if sheet.max_row > row:  # --limit read fewer rows than the sheet has
        sheet.delete_rows(row + 1, sheet.max_row - row)
    cut.warn()


def _unmerge(sheet: Any, columns: Collection[int]) -> None:
    """Split merged cells in columns that answers go into: of those only the first takes a value."""
    for cells in list(sheet.merged_cells.ranges):
        if any(cells.min_col <= column <= cells.max_col for column in columns):
            sheet.unmerge_cells(str(cells))


class _Cut:
    """Puts values into cells, and counts texts that are too long for Excel."""

    def __init__(self) -> None:
        self._texts = 0

    def put(self, cell: Any, value: Any) -> None:
        """Put a value into a cell; a text is never taken for a formula."""
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE  # noqa: PLC0415 - an extra

        value = _plain(value)
        if isinstance(value, str):
            # A workbook is XML, which has neither control characters nor halves of surrogate pairs.
            value = ILLEGAL_CHARACTERS_RE.sub("", without_surrogates(value))
            self._texts += len(value) > _LONGEST_CELL
            cell.value = value[:_LONGEST_CELL]
            cell.data_type = "s"  # openpyxl takes a text that begins with "=" for a formula
        else:
            cell.value = value

    def warn(self) -> None:
        """Warn of texts that were cut."""
        if self._texts:
            warn_user(
                f"{self._texts:,} answers were cut at {_LONGEST_CELL:,} characters, the most that "
                "a cell of a workbook holds; .csv and .parquet have them whole."
            )


def _plain(value: Any) -> Any:
    """Convert a value to one that a workbook holds without loss."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < _EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()  # Excel's moments have no time zone
    if isinstance(value, (date, time, timedelta)):
        return value
    return cell_text(value)


def _warn_of_losses(source: TableFile, target: TableFile, *, keeps_macros: bool) -> None:
    with zipfile.ZipFile(source.path) as packed:
        names = packed.namelist()
    lost = [what for start, what in _LOST.items() if any(n.startswith(start) for n in names)]
    lost = [what for what in lost if what != "macros" or not keeps_macros]
    if lost:
        warn_user(
            f"{source.path} has {' and '.join(lost)}, of which some are not in {target.path}; keep "
            "the original."
        )
