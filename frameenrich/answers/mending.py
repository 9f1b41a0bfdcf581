"""Mend small faults of JSON, and never into another value than the text says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from frameenrich.model import Json
from frameenrich.text import without_surrogates

_AFTER_STRING = frozenset(",:}]/")  # a comment may follow, too
_STOPS = {quote: re.compile(rf"[\\{quote}]") for quote in "\"'”`"}
_CLOSING = {'"': '"', "“": "”", "'": "'", "`": "`"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_BROKEN_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u(?![0-9a-fA-F]{4})")
_COMMENT = re.compile(r"(?m)^[^\S\n]*(?://|#)[^\n]*|(?<=[,{\[\s])//[^\n\"']*|/\*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORD = re.compile(r"[^{}\[\],\"“`\n]+")
_KEY = re.compile(r"[^{}\[\],\"“`\n:]+")
# What separates words or begins a remark outside of JSON may do so within a word without quotes.
_UNCLEAR = re.compile(r"[;|]|\s(#|//)")
_QUOTES = re.compile(r'["“”]')
_ENDS = re.compile(r"[^\s(\[{=/-]$")
_ONE_WORD = re.compile(r"(?!(?:or|and|und|oder|ou|et)$)\w+", re.IGNORECASE)
_BLANKS = {"n": "\n", "t": "\t", "r": "\r", "b": "", "f": ""}
_WORDS = {"none": "null", "undefined": "null"}
_LITERALS = frozenset({"true", "false", "null"})


def mend(span: str) -> Json | None:
    """Mend commas, quotes and the like; None where that would add, drop, join or split a word."""
    from json_repair import repair_json  # noqa: PLC0415 - needed for faulty answers only

    # A repair library fills what is missing with empty texts, drops what it does not understand,
    # and cuts or joins texts where quotes are missing: values that nobody said. It also takes the
    # square of a hostile text's length, so what is unclear anyway does not get there.
    said = _said(_without_comments(span))
    if said is None:
        return None
    # The strict reader has refused the span already. json_repair fails on some texts itself.
    try:
        value = repair_json(span, return_objects=True, skip_json_loads=True)
    except (ValueError, RecursionError, IndexError):
        return None
    if not isinstance(value, dict | list) or not value:
        return None
    return value if said == list(_tokens(value)) else None


def _without_comments(text: str) -> str:
    """Write a blank for each comment; what begins like one and does not end so stays."""
    last_end = text.rfind("*/")
    made, i = [], 0
    while (match := _COMMENT.search(text, i)) is not None:
        begin, end = match.span()
        if match[0] != "/*":
            is_comment = text[end : end + 1] in {"", "\n"}  # a quote may be a string's
        elif is_comment := end <= last_end:
            end = text.index("*/", end) + 2
        made += [text[i:begin], " " if is_comment else text[begin:end]]
        i = end
    return "".join([*made, text[i:]])


def end_of_string(text: str, start: int, quote: str, *, commas: bool = True) -> int | None:
    """Return where a string's closing quote is; quotes that stand within the string are no end.

    In valid JSON a closing quote is always followed by one of ``,:}]``, so this gives what a strict
    reader gives, and for `"5" pipe"` what a person would. Without `commas` the next string may also
    follow at once, after a blank.
    """
    # By leaps from quote to quote: an answer that was cut off may be a long text.
    stops, i = _STOPS[quote], start
    while (found := stops.search(text, i)) is not None:
        i = found.start()
        if text[i] == "\\":
            i += 2
            continue
        after = i + 1
        while after < len(text) and text[after].isspace():
            after += 1
        if after == len(text) or text[after] in _AFTER_STRING:
            return i
        if not commas and after > i + 1 and (text[after] in _CLOSING or "\n" in text[i:after]):
            return i
        i += 1
    return None


def _said(text: str) -> list[str] | None:
    """Return the brackets and words of a text in order; None where it is unclear what is one."""
    said: list[str] = []
    opened: list[str] = []
    before, i = ",", 0  # the last bracket or separator, or `"` after a string, `w` after a word
    while i < len(text):
        char = text[i]
        if char in "{}[],:":
            if (char == ":" and before not in '"w') or (char in "}]" and not opened):
                return None
            if char in "{[":
                opened.append(char)
            elif char in "}]":
                opened.pop()
            said += [] if char in ",:" else [f"\x00{char}"]
            before, i = '"' if char in "}]" else char, i + 1
        elif char.isspace():
            # A line's end stands for a comma where one was forgotten.
            before, i = "," if char == "\n" and before in '"w' else before, i + 1
        elif char in _CLOSING:
            end = end_of_string(text, i + 1, _CLOSING[char], commas=False)
            if end is None or before == "w" or _is_unclear(inner := text[i + 1 : end]):
                return None
            said.append(_plain(inner))
            before, i = '"', end + 1
        else:
            is_key = before in "{," and opened[-1:] == ["{"]
            match = (_KEY if is_key else _WORD).match(text, i)
            word = "" if match is None else match[0].strip()
            if not word or before in '"w' or _UNCLEAR.search(word):
                return None
            said.append(_plain(word))
            # Only after what is no text anyway it is clear that a text begins.
            ended = said[-1] in _LITERALS or _NUMBER.fullmatch(word)
            before, i = '"' if ended else "w", i + len(match[0]) if match else i
    return said


def _is_unclear(text: str) -> bool:
    r"""Tell whether a string may be two, as in ``"a" or "b"``, or has half of an escape.

    A word alone between two quotes, as in ``"type"A"unit"``, has them as its own.
    """
    first, *others = _QUOTES.split(text.replace('\\"', ""))
    # The first quote within closes something, and the last one opens something.
    two = len(others) > 1 and _ENDS.search(first) is not None and others[-1][:1].isalnum()
    two = two and not all(map(_ONE_WORD.fullmatch, others[:-1]))
    return two or _BROKEN_ESCAPE.search(text) is not None


def _plain(text: str) -> str:
    """Return a word without what a repair may change: its case, blanks, and the form of numbers."""
    word = "".join(_unescaped(text).casefold().split()).replace("\\", "")
    number = _NUMBER.fullmatch(word)
    return repr(float(word)) if number else _WORDS.get(word, word)


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        escape = match[1]
        if len(escape) > 1:
            return chr(int(escape[1:], 16))
        return _BLANKS.get(escape, escape)

    return without_surrogates(_ESCAPE.sub(one, text))


def _tokens(value: Json) -> Iterator[str]:
    """Yield a value's brackets and words, as `_said` has those of a text."""
    if isinstance(value, dict):
        yield "\x00{"
        for key, item in value.items():
            yield _plain_value(key)
            yield from _tokens(item)
        yield "\x00}"
    elif isinstance(value, list):
        yield "\x00["
        for item in value:
            yield from _tokens(item)
        yield "\x00]"
    else:
        yield _plain_value(value if isinstance(value, str) else json.dumps(value))


def _plain_value(text: str) -> str:
    # A value's backslash stands for itself, and is no escape to be read.
    return _plain(text.replace("\\", ""))
