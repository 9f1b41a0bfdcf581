"""Locate in a raw answer the value that an error names, such as ``$.specs[2].width``."""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined]

# Errors are "path: message", such as "$.specs[1].width: not a number".
_PATH = re.compile(r"\$((?:\.[^.\[\]:\s]+|\[\d+\])*)(?=:)")


_PART = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


_SPACE = re.compile(r"[ \t\r\n]*")


_decoder = json.JSONDecoder()


def locate_error(raw: str, error: str) -> tuple[int, int] | None:
    """Return start and end of the value that an error is about, as character positions.

    Returns
    -------
    (int, int) or None
        None where the error names no path, or the path leads nowhere: the answer is not JSON
        there, or lacks the member.

    Examples
    --------
    >>> raw = '{"item": "mug", "specs": [{"width": 3}, {"width": "wide"}]}'
    >>> start, end = locate_error(raw, "$.specs[1].width: not a number")
    >>> raw[start:end]
    '"wide"'
    """
    named = _PATH.match(error)
    if named is None or not named[1]:
        return None
    parts = [int(i) if i else name for name, i in _PART.findall(named[1])]
    # A model may write a sentence before its JSON, so every opening bracket is tried in turn.
    for opening in re.finditer(r"[{\[]", raw):
        at = opening.start()
        try:
            for part in parts:
                at = _member(raw, at, part) if isinstance(part, str) else _item(raw, at, part)
            return at, _end(raw, at)
        except (ValueError, IndexError, RecursionError):
            if opening.start() > 1_000:  # noqa: PLR2004 - chatter before the JSON is short
                break
    return None


def _member(raw: str, at: int, name: str) -> int:
    """Return where the value of an object's member begins."""
    at = _after(raw, at, "{")
    while True:
        # `json` gives values but no positions; its scanner gives both. Not strict: raw answers may
        # hold control characters.
        found, at = scanstring(raw, _after(raw, at, '"'), False)
        at = _skip(raw, _after(raw, _skip(raw, at), ":"))
        if found == name:
            return at
        at = _skip(raw, _after(raw, _skip(raw, _end(raw, at)), ","))


def _item(raw: str, at: int, index: int) -> int:
    """Return where an array's item begins."""
    at = _skip(raw, _after(raw, at, "["))
    for _ in range(index):
        at = _skip(raw, _after(raw, _skip(raw, _end(raw, at)), ","))
    return at


def _after(raw: str, at: int, mark: str) -> int:
    at = _skip(raw, at)
    if raw[at] != mark:
        raise ValueError(mark)
    # Blanks after an opening quote are part of the text.
    return _skip(raw, at + 1) if mark != '"' else at + 1


def _skip(raw: str, at: int) -> int:
    found = _SPACE.match(raw, at)
    return found.end() if found else at


def _end(raw: str, at: int) -> int:
    return int(_decoder.raw_decode(raw, at)[1])
