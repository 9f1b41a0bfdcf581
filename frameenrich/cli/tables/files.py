"""Table files: formats by their endings, many files as one table, standard streams."""

from __future__ import annotations

import codecs
import contextlib
import fnmatch
import glob
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, Literal, cast, get_args
from urllib.parse import urlsplit

from frameenrich.cli.tables.packing import only_member, packing_of, unpacked
from frameenrich.errors import FrameEnrichError, InputError

Format = Literal["csv", "tsv", "jsonl", "parquet"]


STANDARD_STREAM = "-"


_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".json": "jsonl",
    ".xlsx": "csv",
    ".xlsm": "csv",
    ".xlsb": "csv",
    ".xls": "csv",
    ".ods": "csv",
}


Container = Literal["", "array", "workbook"]


_CONTAINERS: dict[str, Container] = {
    ".json": "array",
    ".xlsx": "workbook",
    ".xlsm": "workbook",
    ".xlsb": "workbook",
    ".xls": "workbook",
    ".ods": "workbook",
}


_FORMATS = (*get_args(Format), "json")


DELIMITERS = {"csv": ",", "tsv": "\t"}


NOT_TEXT = re.compile("[\udc80-\udcff]")
"""The characters that "surrogateescape" puts in place of bytes outside the encoding."""


_WILD = "*?["


_HIDDEN = (".", "_")  # such as _SUCCESS, and what lies beside the files of a Spark job


@dataclass(frozen=True)
class TableFile:
    """A file that a table is read from or written to; ``-`` is the standard stream.

    A sheet of a workbook is read as the CSV, a JSON array as the lines of JSON that it would be:
    ``container`` says which of them the file is.
    """

    path: str
    format: Format
    packing: str = ""
    delimiter: str | None = None
    encoding: str | None = None
    container: Container = ""
    sheet: str | None = None

    @property
    def separator(self) -> str:
        """Return the delimiter of a text table."""
        return self.delimiter or DELIMITERS[self.format]

    @property
    def is_stream(self) -> bool:
        """Tell whether it is standard input or output."""
        return self.path == STANDARD_STREAM

    @property
    def called(self) -> str:
        """Return the name of the source in messages."""
        return "Standard input" if self.is_stream else self.path


def table_file(path: str, wanted: str | None = None, *, like: TableFile | None = None) -> TableFile:
    """Choose a table's format by the file's ending.

    Parameters
    ----------
    path : str
        A file, or ``-``.
    wanted : str, optional
        The format where the ending names none.
    like : TableFile, optional
        Gives its format to a standard stream, where nothing else does.

    Raises
    ------
    InputError
        The format is unknown, or there is no such format.

    Examples
    --------
    >>> found = table_file("goods.csv.gz")
    >>> found.format, found.packing, table_file("-", like=table_file("goods.jsonl")).format
    ('csv', '.gz', 'jsonl')
    """
    # Before anything looks at its ending: a link to a .csv is still no file.
    _refuse_address(path)
    if wanted is not None and wanted not in _FORMATS:
        raise InputError(
            f"--format {wanted} is not known.", "Use csv, tsv, jsonl, json or parquet.", path=path
        )
    packing = packing_of(path)
    ending = os.path.splitext(path.lower().removesuffix(packing))[1]
    # A .zip is often named without its table's ending: goods.zip holds goods.csv.
    if packing == ".zip" and ending not in _ENDINGS:
        ending = os.path.splitext(only_member(path).lower())[1]
    if ending not in _ENDINGS and wanted is not None:
        ending = f".{wanted}"
    choice, container = _ENDINGS.get(ending), _CONTAINERS.get(ending, "")
    if path == STANDARD_STREAM and choice is None and like is not None:
        choice, container = like.format, like.container
    whole_files = choice == "parquet" or container == "workbook"
    if choice is None or (whole_files and (path == STANDARD_STREAM or packing)):
        what = (
            "standard input or output"
            if path == STANDARD_STREAM
            else path
            if path.strip(".")
            else repr(path)
        )
        raise InputError(
            f"The format of {what} is not known.",
            "Use a file that ends in .csv, .tsv, .jsonl or .json (each also with .gz, .zst or "
            ".zip), .parquet or .xlsx, or say --format csv, tsv, jsonl or json.",
            path=path,
        )
    return TableFile(path, choice, packing, container=container)


_EXPORTS = {
    "docs.google.com": "In the sheet choose File > Download > Comma-separated values (.csv)",
    "drive.google.com": "Open it there and choose Download",
    "1drv.ms": "In Excel choose File > Create a Copy > Download a Copy",
    "onedrive.live.com": "In Excel choose File > Create a Copy > Download a Copy",
    "sharepoint.com": "In Excel choose File > Create a Copy > Download a Copy",
    "dropbox.com": "Open it there and choose Download",
    "github.com": "Open it there and choose Download raw file",
    "airtable.com": "In the view's menu choose Download CSV",
    "notion.so": "In the table's menu choose Export > Markdown & CSV",
}
"""How to get a table out of a service, by its host: what curl gets there is a page."""


def _refuse_address(path: str) -> None:
    """Refuse a URL, and say how to get the table behind it."""
    if "://" not in path:
        return
    try:
        parts = urlsplit(path)
    except ValueError:  # such as half of an IPv6 address
        parts = urlsplit("https:")
    host = parts.hostname or ""
    own = next((say for end, say in _EXPORTS.items() if f".{host}".endswith(f".{end}")), None)
    if own is not None:
        fix = f"{own}; give that file."
    elif parts.path.lower().endswith((".html", ".htm")):
        fix = f"A table in a web page: pandas.read_html({path!r})[0].to_csv('table.csv', "
        fix += "index=False); give that file."
    elif parts.scheme.lower() in {"http", "https"}:
        name = os.path.basename(parts.path)
        known = os.path.splitext(name.lower().removesuffix(packing_of(name)))[1] in _ENDINGS
        # A link to "/export?format=csv" names no file that curl could use.
        kept = shlex.quote(name if known else "table.csv")
        fix = f"Download it first: curl -L -o {kept} {shlex.quote(path)}; give that file."
    else:
        fix = "Copy it to this computer first, or use frameenrich.submit in Python, which takes "
        fix += "whatever pandas, Polars or DuckDB read."
    raise InputError(f"{path} is an address, not a file.", fix, path=path)


def table_files(path: str, wanted: str | None = None) -> tuple[TableFile, ...]:
    """List the files of a table: one, or those of a folder or a pattern, sorted by name.

    Parameters
    ----------
    path : str
        A file, ``-``, a folder whose files are all of one format, or a pattern as shells have it
        (``data/*.parquet``, ``data/**/*.csv``). Files are taken in the order of their names.
    wanted : str, optional
        The format where the endings do not say.

    Raises
    ------
    InputError
        There is no file, their formats differ, or a folder holds folders.
    """
    _refuse_address(path)  # before the patterns, since a link's "?" is one
    # An existing file wins over a pattern: names such as data[1].csv are common.
    if path == STANDARD_STREAM or (os.path.exists(path) and not os.path.isdir(path)):
        return (table_file(path, wanted),)
    if os.path.isdir(path):
        names = _files_in(path)
    elif any(sign in path for sign in _WILD):
        names = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
    else:
        return (table_file(path, wanted),)
    if not names:
        raise InputError(
            f"There is no file in {path}.",
            "Check the folder, or the pattern and its quotes.",
            path=path,
        )
    found = tuple(table_file(name, wanted) for name in names)
    # By formats, not by endings: a folder may hold .csv and .csv.gz of one table.
    for file in found[1:]:
        if file.format != found[0].format:
            raise InputError(
                f"{path} holds files of several formats: {found[0].path} is {found[0].format}, "
                f"{file.path} is {file.format}.",
                "Say which with a pattern in quotes, such as 'data/*.parquet'.",
                path=path,
            )
    return found


def on_sheet(file: TableFile, sheet: str | None) -> TableFile:
    """Name the sheet of a workbook.

    Raises
    ------
    InputError
        It is no workbook.
    """
    if sheet is not None and file.container != "workbook":
        raise InputError(f"--sheet is for workbooks, and {file.path} is not one.", "Leave it out.")
    return replace(file, sheet=sheet)


def written_as(file: TableFile, delimiter: str | None, encoding: str | None) -> TableFile:
    """Add the delimiter and encoding that the user gave for a text table.

    Raises
    ------
    InputError
        It is no delimiter or no encoding, or the table is no text.
    """
    if delimiter is not None:
        delimiter = _DELIMITER_NAMES.get(delimiter, delimiter)
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise InputError(
                f"--delimiter {delimiter!r} is not one character.",
                "Give one that stands between cells, such as --delimiter ';', or --delimiter tab.",
            )
        if file.format not in DELIMITERS or file.container:
            raise InputError(
                f"--delimiter is for CSV and TSV, and {file.path} is {file.format}.",
                "Leave it out.",
            )
    if encoding is not None:
        encoding = _encoding_name(encoding)
        if file.format == "parquet":
            raise InputError(
                f"--encoding is for text files, and {file.path} is parquet.", "Leave it out."
            )
    return replace(file, delimiter=delimiter, encoding=encoding)


_DELIMITER_NAMES = {"\\t": "\t", "tab": "\t"}


def _encoding_name(encoding: str) -> str | None:
    """Return Python's name of an encoding; None for UTF-8, which needs no recoding."""
    try:
        name = codecs.lookup(encoding).name
        b"".decode(name)  # some codecs, such as base64, do not decode to text
    except LookupError:
        raise InputError(
            f"--encoding {encoding} is not known.",
            "Use one such as cp1252 (Windows, Western Europe) or utf-16 (Excel's Unicode text).",
        ) from None
    return None if name in {"utf-8", "utf-8-sig", "ascii"} else name


def _files_in(folder: str) -> list[str]:
    """List the files of a folder, without hidden ones."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    shown = [entry for entry in entries if not entry.name.startswith(_HIDDEN)]
    inner = next((entry.path for entry in shown if entry.is_dir()), None)
    if inner is not None:
        raise InputError(
            f"{folder} holds a folder, {inner}.",
            "Say which files with a pattern in quotes, such as 'data/**/*.parquet'.",
            path=folder,
        )
    return [entry.path for entry in shown]


def check_other(source: str, target: TableFile) -> None:
    """Refuse an output file that would replace its own input.

    Raises
    ------
    InputError
        Both are the same file.
    """
    if not target.is_stream and os.path.realpath(source) == os.path.realpath(target.path):
        raise InputError(
            f"{target.path} is the input as well as the output.",
            "Write the answers to another file.",
            path=target.path,
        )


def check_output_outside_input(source: str, files: Sequence[TableFile], target: TableFile) -> None:
    """Refuse an output file that the next run would read as an input.

    Raises
    ------
    InputError
        It would lie in the folder that is read, or be matched by the pattern.
    """
    if target.is_stream or (len(files) == 1 and files[0].path == source):
        return
    # Else the same command, given again, would read the answers as a table.
    pattern = os.path.join(source, "*") if os.path.isdir(source) else source
    own = os.path.realpath(target.path)
    known = {os.path.realpath(file.path) for file in files}
    if own in known or fnmatch.fnmatch(own, os.path.realpath(pattern)):
        raise InputError(
            f"{target.path} would be one of the input files of {source}.",
            "Write the result to another folder.",
            path=target.path,
        )


def open_file(origin: TableFile) -> IO[bytes]:
    """Open the file so that it can be read twice; a pipe is copied first."""
    try:
        if origin.is_stream:
            return _copied(sys.stdin.buffer)
        file = open(origin.path, "rb")  # noqa: SIM115 - kept open with the source
        if file.seekable():
            return file
        with file:
            return _copied(file)
    except OSError as error:
        raise _unreadable(origin.path, origin.called, error) from None


def _unreadable(path: str, called: str, error: OSError) -> InputError:
    return InputError(f"{called} cannot be read: {error.strerror}.", "Check the path.", path=path)


def _copied(stream: IO[bytes]) -> IO[bytes]:
    # On disk, not in memory: what comes down a pipe may be larger.
    copy: Any = tempfile.TemporaryFile()  # noqa: SIM115 - kept open with the source
    shutil.copyfileobj(stream, copy)
    copy.flush()
    return cast("IO[bytes]", copy)


def file_version(file: IO[bytes] | str) -> tuple[int, int]:
    """Return the file's size and modification time (ns), which change when it is written to."""
    try:
        found = os.stat(file) if isinstance(file, str) else os.fstat(file.fileno())
    except OSError as error:
        raise _unreadable(str(file), str(file), error) from None
    return found.st_size, found.st_mtime_ns


def check_unchanged(file: IO[bytes], origin: TableFile, stamp: tuple[int, int]) -> None:
    """Refuse a file that was written to since its stamp was taken."""
    if file_version(file) != stamp:
        raise FrameEnrichError(
            f"{origin.called} changed since it was read.",
            "Run the same command again; rows that stayed the same are not sent again.",
            path=origin.path,
        )


@contextlib.contextmanager
def decompressed(file: IO[bytes], origin: TableFile) -> Iterator[IO[bytes]]:
    """Yield the file from its start, decompressed and as UTF-8; it stays open."""
    from frameenrich.cli.tables.json_array import array_as_lines  # noqa: PLC0415 - it knows this
    from frameenrich.cli.tables.workbook import sheet_as_csv  # noqa: PLC0415 - module

    with contextlib.ExitStack() as stack:
        content = stack.enter_context(unpacked(file, origin.packing, origin.called))
        if origin.container == "workbook":
            content = stack.enter_context(sheet_as_csv(content, origin))
        elif origin.encoding is not None:
            # Our own output has the mark: --encoding given again for it must not recode it.
            marked = content.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
            content.seek(0)
            if not marked:
                content = stack.enter_context(_recoded(content, origin, origin.encoding))
        else:
            _refuse_wide(content, origin)
        if origin.container == "array":
            packed = bool(origin.packing)
            content = stack.enter_context(array_as_lines(content, origin.called, bounded=packed))
        yield content


def _refuse_wide(content: IO[bytes], origin: TableFile) -> None:
    """Refuse what has two or four bytes a character, which would be read as cells full of NULs."""
    start = content.read(4)
    content.seek(0)
    wide = next((name for marks, name in _WIDE if start.startswith(marks)), None)
    # Without a mark: a table begins with ASCII characters.
    if wide is None:
        zeros = "".join("0" if byte == 0 else "x" for byte in start)
        wide = _WIDE_ZEROS.get(zeros)
    if wide is not None:
        raise InputError(f"{origin.called} is not UTF-8 but {wide}.", f"Pass --encoding {wide}.")


# The longer mark first: UTF-32's begins with UTF-16's.
_WIDE = (
    ((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"),
    ((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"),
)


_WIDE_ZEROS = {
    "x0x0": "utf-16-le",
    "0x0x": "utf-16-be",
    # Of UTF-32 the first character may be any of the first 65,536.
    "x000": "utf-32-le",
    "xx00": "utf-32-le",
    "000x": "utf-32-be",
    "00xx": "utf-32-be",
}
"""Which of the first four bytes are zero in a text of two or four bytes a character."""


@contextlib.contextmanager
def _recoded(content: IO[bytes], origin: TableFile, encoding: str) -> Iterator[IO[bytes]]:
    """Copy a text as UTF-8; a CSV gets the mark by which spreadsheets recognise UTF-8."""
    text = io.TextIOWrapper(content, encoding, errors="surrogateescape", newline="")
    with tempfile.TemporaryFile() as copy:
        if origin.format in DELIMITERS:
            copy.write(codecs.BOM_UTF8)
        try:
            for number, line in enumerate(text, 1):
                # With errors="strict" the error would come for a buffer, without a line number.
                if NOT_TEXT.search(line):
                    raise _not_of_encoding(f"{origin.called}, line {number}: this", encoding)
                # Encodings without a byte order of their own leave a file's mark in its text.
                copy.write((line.removeprefix("\ufeff") if number == 1 else line).encode())
        except UnicodeError:
            raise _not_of_encoding(origin.called, encoding) from None
        finally:
            text.detach()  # or the wrapper would close the file, which its owner reads again
        copy.seek(0)
        yield copy


def _not_of_encoding(what: str, encoding: str) -> InputError:
    return InputError(
        f"{what} is not {encoding}.", "Give the --encoding that the file was saved in."
    )
