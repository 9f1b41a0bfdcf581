"""Tables in .json files: an array of objects, read and written as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

from frameenrich.cli.tables.records import not_utf8
from frameenrich.errors import InputError

_BREAK = re.compile(r"\s*\n\s*")
_MOST_BYTES = 512 << 20  # it takes several times as much memory
_SPACE = re.compile(r"\s*")


@contextlib.contextmanager
def array_as_lines(
    content: IO[bytes], called: str, *, bounded: bool = False
) -> Iterator[IO[bytes]]:
    """Read an array of objects as one object a line, each value as it was written.

    A file that holds lines of JSON already, as some .json files do, is read as it stands.

    Raises
    ------
    InputError
        It is not JSON, or no array of objects; or it is `bounded`, as what a packed file unpacks
        to is, and larger than what is read whole.
    """
    data = content.read(_MOST_BYTES + 1) if bounded else content.read()
    if bounded and len(data) > _MOST_BYTES:
        raise InputError(
            f"{called} is not read: it unpacks to more than {_MOST_BYTES:,} bytes, and a JSON "
            "array is read whole.",
            "Write one object a line (.jsonl), such as with: jq -c '.[]'; or unpack it first.",
            path=called,
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(called, error.object[: error.start].count(b"\n") + 1) from None
    with tempfile.TemporaryFile() as lines:
        if text.lstrip().startswith("{"):
            _check_lines(text, called)
            lines.write(text.encode())
        else:
            for element in _elements(text, called):
                # A line break stands between values only: within a text JSON writes \n.
                lines.write(_BREAK.sub(" ", element).encode() + b"\n")
        lines.seek(0)
        yield lines


def _check_lines(text: str, called: str) -> None:
    # A text that begins with an object is JSON Lines, or an object around the array.
    with contextlib.suppress(ValueError, RecursionError):
        _check_object(json.loads(text), called)
    first = text.strip().splitlines()[0]
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(first)
        return
    raise InputError(
        f"{called} holds an object, where an array of objects is wanted.",
        "Give the array in it, such as: jq '.rows' OLD.json > NEW.json.",
        path=called,
    )


def _check_object(whole: dict[str, Any], called: str) -> None:
    """Refuse an object that is a whole table, and would be read as a table's only row."""
    values = list(whole.values())
    rows = [
        name
        for name, value in whole.items()
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value)
    ]
    dicts = [value for value in values if isinstance(value, dict)]
    lists = [value for value in values if isinstance(value, list)]
    keys = {tuple(value) for value in dicts}
    # A row may have one object in it; a table of one column numbers that one's rows.
    alike = len(keys) == 1 and (len(dicts) > 1 or all(key.isdecimal() for key in min(keys)))
    if rows:
        name = json.dumps(rows[0], ensure_ascii=False)
        raise InputError(
            f"{called} holds an object, whose rows are in {name}.",
            f"Give the array in it: jq '.[{name}]' OLD.json > NEW.json.",
            path=called,
        )
    # As pandas' to_json writes a table by default (columns), or with orient="list" or "split".
    if (len(dicts) == len(values) and alike) or (len(lists) == len(values) > 1):
        raise InputError(
            f"{called} holds the table column by column; an array of rows is needed.",
            "Write it as rows: df.to_json('rows.json', orient='records').",
            path=called,
        )


def _elements(text: str, called: str) -> Iterator[str]:
    decoder, at = json.JSONDecoder(), len(text) - len(text.lstrip())
    # One element at a time: each keeps its own text, so that numbers are written back as they came.
    if not text.startswith("[", at):
        raise _no_array(called, "it begins with something else")
    at += 1
    number = 0
    while True:
        at = _end(_SPACE, text, at)
        if text.startswith("]", at):
            if text[at + 1 :].strip():  # a second array, say: its rows must not vanish in silence
                raise _no_array(called, "something follows the array's end")
            return
        if number:
            if not text.startswith(",", at):
                raise _no_array(called, f"no comma follows element {number}")
            at = _end(_SPACE, text, at + 1)
        number += 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise _no_array(called, f"element {number} is not JSON ({error})") from None
        if not isinstance(value, dict):
            raise _no_array(called, f"element {number} is not an object")
        yield text[at:end]
        at = end


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _no_array(called: str, reason: str) -> InputError:
    return InputError(
        f"{called} is not a JSON array of objects: {reason}.",
        'Give an array such as [{"sku": "A1"}], or one object a line in a .jsonl file.',
        path=called,
    )


def lines_as_array(lines: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield lines of JSON as an array.

    Examples
    --------
    >>> b"".join(lines_as_array([b'{"a": 1}\n', b"\n", b'{"a": 2}\n']))
    b'[\n{"a": 1},\n{"a": 2}\n]\n'
    """
    before = b"[\n"
    for line in lines:
        if body := line.strip():
            yield before + body
            before = b",\n"
    yield b"\n]\n" if before == b",\n" else b"[]\n"
