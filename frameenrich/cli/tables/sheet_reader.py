"""Read one sheet of a workbook as CSV, in a process of its own.

A workbook is XML in a zip: a small one may unpack to any size, and one cell in its last corner has
python-calamine ask for 500 GB, which ends the process that asks. So this runs by its path in a
child with a bound on its memory. It imports nothing of ours, which would take the child a second.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from datetime import datetime, time
from typing import Any, NoReturn

REFUSED, NO_WORKBOOK = 3, 4
"""Exit codes: problem and fix, or the reason of python-calamine, stand on standard error as JSON.

After a sheet that was read its name stands there.
"""


_EXACT = 2**53  # a workbook's numbers are floats, which are exact up to here


def main() -> None:
    """Read a workbook from standard input, write the sheet to standard output."""
    called, sheet_name, memory_bytes = json.loads(sys.argv[1])
    _bound(memory_bytes)
    import python_calamine  # noqa: PLC0415 - after the bound

    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(sys.stdin.buffer.read()))
        name = _chosen(book, called, sheet_name)
        _write(book.get_sheet_by_name(name), called)
        json.dump(name, sys.stderr)
    except python_calamine.CalamineError as error:
        json.dump(str(error).rstrip("."), sys.stderr)
        sys.exit(NO_WORKBOOK)
    except OSError as error:
        _refuse(
            f"The rows of {called} cannot be written to a temporary file: {error.strerror}.",
            "Free some room there, or set TMPDIR to another folder.",
        )


def _bound(memory_bytes: int) -> None:
    try:
        import resource  # noqa: PLC0415 - not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    except (ImportError, ValueError, OSError):  # macOS may refuse; then the system's bound holds
        return


def _chosen(book: Any, called: str, sheet_name: str | None) -> str:
    names = list(book.sheet_names)
    if sheet_name is not None:
        if sheet_name in names:
            return sheet_name
        _refuse(f"{called} has no sheet {sheet_name!r}.", f"It has {', '.join(map(repr, names))}.")
    filled = [name for name in names if book.get_sheet_by_name(name).total_height]
    # Not guessed: the rows of the wrong sheet would be paid for.
    if len(filled) > 1:
        _refuse(
            f"{called} has {len(filled)} sheets: {', '.join(map(repr, filled))}.",
            f"Say which: --sheet {filled[0]!r}.",
        )
    return str(filled[0] if filled else names[0])


def _write(sheet: Any, called: str) -> None:
    # Not line by line: a sheet may have a million rows.
    text = io.TextIOWrapper(sys.stdout.buffer, "utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    # Rows come from the first that is filled on, or answers would be written into other rows; their
    # cells from the first column that is, so that the empty ones before are put back.
    before = [""] * (sheet.start[1] if sheet.start else 0)
    width = 0
    for number, cells in enumerate(sheet.iter_rows(), 1):
        row = [*before, *cells]
        # Up to the last cell that is filled: a sheet may format cells far beyond its table.
        used = max((i for i, cell in enumerate(row, 1) if cell not in ("", None)), default=0)
        width = width or used  # the header is the first row that is not empty
        if used > width:
            text.flush()
            _refuse(
                f"{called}, row {number}: a cell stands outside the table, whose header "
                f"has {width} columns.",
                "The first row that is not empty is the header: remove a title above it, give "
                "that column a header, or move the cell.",
            )
        if used:
            writer.writerow([sheet_text(cell) for cell in [*row, *[""] * width][:width]])
        else:
            text.write("\n")
    text.flush()


def sheet_text(cell: Any) -> str:
    """Format a cell as the sheet's CSV export would.

    Examples
    --------
    >>> from datetime import date
    >>> [sheet_text(cell) for cell in (3.0, 0.5, True, date(2026, 11, 30), "01")]
    ['3', '0.5', 'TRUE', '2026-11-30', '01']
    """
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    # A workbook has floats only: the 3 of an id or a count would come as 3.0.
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < _EXACT:
        return str(int(cell))
    if isinstance(cell, datetime):
        # Dates are moments at midnight in a workbook.
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat(" ")
    return "" if cell is None else str(cell)


def _refuse(problem: str, fix: str) -> NoReturn:
    json.dump([problem, fix], sys.stderr)
    sys.exit(REFUSED)


if __name__ == "__main__":
    main()
