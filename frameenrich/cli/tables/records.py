"""Records of text tables: their ends, their cells, and their exact bytes.

A record keeps the way it was written, so that cells can be appended to its own bytes. Only Python's
`csv` decides where a CSV record ends.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import IO, Any

import numpy as np
import orjson

from frameenrich.cli.tables.files import NOT_TEXT
from frameenrich.errors import InputError
from frameenrich.text import quoted_formula, shortened, without_surrogates

LONGEST_RECORD = 64 << 20
"""In characters; with what is made of it a record takes several times as much memory."""


MOST_LINES = 1_000_000
"""Of one record; a quote that is never closed makes one of all that follow."""


DEEPEST = 200
"""How deep a value may be nested: every later step, such as printing it, can follow as far."""


_NESTED = (list, dict, np.ndarray)


_LINE_END = re.compile(r"(?:\r?\n|\r)\Z")


_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


_BLANK = b"\xef\xbb\xbf \t\r\n"


@dataclass(frozen=True, slots=True)
class Record:
    """One CSV record: the number of its first line, its text with the line end, its cells."""

    line: int
    raw: str
    cells: list[str]


def csv_records(file: IO[bytes], delimiter: str, name: str = "The file") -> Generator[Record]:
    r"""Read CSV record by record, each with the text it was parsed from.

    Encoding each ``raw`` gives the file's bytes. A blank line is a record without cells; a byte
    order mark is in ``raw`` only.

    Raises
    ------
    InputError
        A line is not UTF-8 or not CSV; the message has its number.

    Examples
    --------
    >>> file = io.BytesIO(b'a,"b\nc"\r\n\r\n01,')
    >>> [record.cells for record in csv_records(file, ",")]
    [['a', 'b\nc'], [], ['01', '']]
    """
    csv.field_size_limit(2**31 - 1)  # its default refuses cells of 128 KiB; a text may be longer
    # Escaped, so that an error can name the line: a strict decoder fails for a whole buffer.
    # newline="" keeps each line end as it is, also within quotes.
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    taken: list[str] = []
    # Strict, since the lenient parser accepts stray quotes and changes what cells say.
    reader = csv.reader(_taken_lines(text, taken, name), delimiter=delimiter, strict=True)
    first = 1
    try:
        while (cells := next(reader, None)) is not None:
            yield Record(first, "".join(taken), cells)
            taken.clear()
            first = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{name}, line {first}: this is not CSV ({error}).",
            "Put a cell that holds a quote, a delimiter or a line end in quotes, and double each "
            "quote inside it.",
            line=first,
        ) from None
    finally:
        text.detach()  # or the wrapper would close the file, which its owner reads again


def _taken_lines(text: io.TextIOWrapper, taken: list[str], name: str) -> Iterator[str]:
    """Yield the lines to the reader, and collect those it takes in `taken`."""
    size = 0
    for number, line in enumerate(iter(partial(text.readline, LONGEST_RECORD + 1), ""), 1):
        if not line.isascii() and NOT_TEXT.search(line):
            raise not_utf8(name, number)
        # Emptied by the reader's caller after each record, which may be of many lines: an open
        # quote makes one of the whole file.
        size = size + len(line) if taken else len(line)
        if size > LONGEST_RECORD or len(taken) >= MOST_LINES:
            raise _too_long(name, number - len(taken))
        taken.append(line)
        yield line.removeprefix("\ufeff") if number == 1 else line


def _too_long(name: str, line: int) -> InputError:
    return InputError(
        f"{name}, line {line}: the record that begins there has more than {LONGEST_RECORD:,} "
        f"characters or {MOST_LINES:,} lines, too many for a request.",
        "Look for a quote that is not closed, or for line ends that are missing.",
        line=line,
    )


def not_utf8(name: str, line: int) -> InputError:
    """Return the error for bytes that are not UTF-8."""
    return InputError(
        f"{name}, line {line}: this is not UTF-8.",
        "Say how it was saved: --encoding cp1252 (Windows, Western Europe), utf-16 (what Excel "
        "calls Unicode text) or another.",
        line=line,
    )


def with_cells(
    record: Record, replaced: Mapping[int, str], added: Sequence[str], delimiter: str
) -> bytes:
    r"""Return a record's bytes with some cells replaced and others added before its line end.

    Parameters
    ----------
    record : Record
        As it was read.
    replaced : mapping of int to str
        Cells by position.
    added : sequence of str
        Cells that come after its own.
    delimiter : str
        The sign between cells.

    Examples
    --------
    >>> record = Record(1, '007,"a, b"\r\n', ["007", "a, b"])
    >>> with_cells(record, {}, ["x", "y, z"], ","), with_cells(record, {1: "c"}, [], ",")
    (b'007,"a, b",x,"y, z"\r\n', b'007,c\r\n')
    """
    end = _LINE_END.search(record.raw)
    body, line_end = (record.raw[: end.start()], end.group()) if end else (record.raw, "")
    if replaced:
        cells = raw_cells(body, delimiter)
        for position, text in replaced.items():
            cells[position] = quoted(text, delimiter)
        body = delimiter.join(cells)
    whole = delimiter.join([body, *(quoted(text, delimiter) for text in added)]) + line_end
    return without_surrogates(whole).encode()


def raw_cells(body: str, delimiter: str) -> list[str]:
    r"""Return the cells of a CSV record as they are written, quotes and all.

    Examples
    --------
    >>> raw_cells('01,"a ""b"", c",', ",")
    ['01', '"a ""b"", c"', '']
    """
    cells, position, ended = [], 0, False
    while not ended:
        found = _cell(delimiter).match(body, position)
        assert found is not None  # noqa: S101 - the csv module has read this record
        cells.append(found.group(1))
        position, ended = found.end(), not found.group(2)
    return cells


_COMMON_DELIMITERS = ",;\t|"


def likely_delimiter(header: Record, record: Record | None, delimiter: str) -> str | None:
    r"""Guess the right delimiter where the assumed one seems wrong.

    It is what the header is cut by and, where there is one, the record alike: so "Price; EUR" in
    the header of a table of several columns is no reason to guess.

    Examples
    --------
    >>> header = Record(1, "sku;title\n", ["sku;title"])
    >>> likely_delimiter(header, None, ",")
    ';'
    >>> likely_delimiter(header, Record(2, "1;a, b\n", ["1;a", " b"]), ",")
    ';'
    """
    for other in _COMMON_DELIMITERS.replace(delimiter, ""):
        cells = len(raw_cells(header.raw.rstrip("\r\n"), other))
        if cells == 1 or (record is None and len(header.cells) > 1):
            continue
        if record is None or len(raw_cells(record.raw.rstrip("\r\n"), other)) == cells:
            return other
    return None


@cache
def _cell(delimiter: str) -> re.Pattern[str]:
    own = re.escape(delimiter)
    return re.compile(rf'("[^"]*(?:""[^"]*)*"|[^{own}]*)({own}|\Z)')


def quoted(text: str, delimiter: str) -> str:
    """Format a text as a CSV cell, in quotes where it needs them.

    Examples
    --------
    >>> quoted("plain", ","), quoted('say "hi", twice', ",")
    ('plain', '"say ""hi"", twice"')
    """
    if any(sign in text for sign in (delimiter, '"', "\n", "\r")):
        return '"' + text.replace('"', '""') + '"'
    return text


def cell_text(value: Any) -> str:
    """Format a value as the text of a CSV cell; a list or an object as JSON.

    Examples
    --------
    >>> [cell_text(value) for value in (None, 1.5, True, ["a", {"b": None}])]
    ['', '1.5', 'True', '["a",{"b":null}]']
    """
    if value is None:
        return ""
    return to_json(value).decode() if isinstance(value, _NESTED) else str(value)


def without_formula(value: Any) -> Any:
    """Quote a text that a spreadsheet would run as a formula; numbers stay.

    Examples
    --------
    >>> without_formula("=1+1"), without_formula(-1), without_formula("a=b")
    ("'=1+1", -1, 'a=b')
    """
    return quoted_formula(value) if isinstance(value, str) else value


def to_json(value: Any) -> bytes:
    """Encode any value as JSON; unknown types become text, infinity becomes null."""
    try:
        return orjson.dumps(value, default=str, option=_JSON_OPTIONS)
    except TypeError:  # an integer of over 64 bits, half of a surrogate pair
        return json.dumps(value, default=str).encode()


def json_lines(file: IO[bytes], name: str) -> Iterator[tuple[int, bytes, bool]]:
    """Yield each line with its number, and whether it is not blank.

    Raises
    ------
    InputError
        One is longer than any request.
    """
    for number, line in enumerate(iter(partial(file.readline, LONGEST_RECORD + 1), b""), 1):
        if len(line) > LONGEST_RECORD:
            raise _too_long(name, number)
        yield number, line, bool(line.strip(_BLANK))


def json_object(line: bytes, number: int, name: str) -> dict[str, Any]:
    """Parse a line of JSON Lines.

    Raises
    ------
    InputError
        It is no JSON object; the message has its number.
    """
    try:
        # Only a file's first line can begin with a byte order mark.
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        value = json.loads(text)
    except UnicodeDecodeError:
        raise not_utf8(name, number) from None
    except (ValueError, RecursionError) as error:
        reason = f"this is not JSON ({error})"
    else:
        if isinstance(value, dict):
            # Only a line of many brackets can be deep: counting them costs next to nothing.
            if line.count(b"{") + line.count(b"[") > DEEPEST and _is_deep(value):
                raise InputError(
                    f"{name}, line {number}: its values are nested more than {DEEPEST} deep.",
                    "Move what the prompt needs of them to the top level of the object.",
                    line=number,
                )
            # Each key has its colon: most lines have no other, and are not parsed again.
            if text.count(":") != len(value) and (twice := _named_twice(text)) is not None:
                raise InputError(
                    f"{name}, line {number}: the key {shortened(twice)!r} stands in it twice.",
                    "Keep the one that is meant, or rename the other.",
                    line=number,
                )
            return value
        reason = f"this is a JSON {'array' if isinstance(value, list) else 'value'}, not an object"
    raise InputError(
        f"{name}, line {number}: {reason}.",
        "Write one JSON object a line; of a JSON array `jq -c '.[]'` makes that.",
        line=number,
    )


def _named_twice(text: str) -> str | None:
    """Return a key that an object has twice; the objects in it are the row's own business."""
    names: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        names[:] = [name for name, _ in pairs]

    json.loads(text, object_pairs_hook=note)  # the outermost object comes last
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        nested = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for items in nested for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def with_members(line: bytes, members: Mapping[str, Any]) -> bytes:
    r"""Return a line's bytes with members added at the end of its object.

    Examples
    --------
    >>> with_members(b'{"price": 12.50}\n', {"label": "a"}), with_members(b"{}", {"n": None})
    (b'{"price": 12.50, "label": "a"}\n', b'{"n": null}')
    """
    # Cut at the closing brace, so that the values before it keep their form (12.50 stays 12.50).
    body = line.rstrip()
    inner, line_end = body[:-1], line[len(body) :]
    members_json = b", ".join(
        to_json(name) + b": " + to_json(value) for name, value in members.items()
    )
    comma = b"" if not members_json or inner.strip(_BLANK) == b"{" else b", "
    return inner + comma + members_json + b"}" + line_end
