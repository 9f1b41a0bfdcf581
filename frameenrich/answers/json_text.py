"""Find the one JSON answer in a model's text, without completing what the text left open.

Models put JSON into Markdown fences, after chatter, in single quotes or with a comma too many. All
of that is mended here. What is never mended is an end: a string, number, list or object that the
text does not close was cut, and any value made of it would be one that nobody said.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from frameenrich.answers.mending import end_of_string, mend
from frameenrich.model import Json
from frameenrich.text import shortened

_OPENERS = {"{": "}", "[": "]"}
# Not every bracket begins JSON: prose has [sic] and {placeholders}. One at the very end does, as an
# answer may be cut right there.
_JSON_BEGINS = re.compile(
    # Possessive, as blanks that are given back one by one take the square of their number.
    r"""\{(?:[^\S\n]*+\n\s*+#|\s*+(?:["'}“]|/[/*]|[A-Za-z_]\w*+\s*+["']?+\s*+:|$))"""
    r"""|\[\s*+(?:[\[{"'\d\]-]|$)"""
)
_SHOWN = 40
_FENCE = re.compile(r"`{3,}\w*\s+(\".*\")\s*`{3,}", re.DOTALL)
"""A fence around a JSON text; what else is in a fence is found by its brackets."""
_FENCED = re.compile(r"(`{3,}|~{3,})\w*\s+(.*?)\s*\1", re.DOTALL)
_ENCODED = frozenset({"{", "[", '"'})
_MOST_ENCODINGS = 3


class NotJsonError(ValueError):
    """A text that holds no JSON answer, or more than one; says why."""


class CutOffError(NotJsonError):
    """A text that ends before its JSON does."""


@dataclass(frozen=True, slots=True)
class Found:
    """The JSON value of a text; ``mended`` where the text itself is not that JSON."""

    value: Json
    mended: bool


def find_json(text: str) -> Found:
    r"""Read the one JSON object (or list, or plain value) of a text.

    Raises
    ------
    CutOffError
        The text ends inside of a JSON value.
    NotJsonError
        It has no JSON, or several values that differ, or one whose faults cannot be mended without
        guessing.

    Examples
    --------
    >>> find_json('Sure! Here is:\n```json\n{"a": 1,}\n```')
    Found(value={'a': 1}, mended=True)
    >>> find_json('{"a": {"b": 12')
    Traceback (most recent call last):
    ...
    frameenrich.answers.json_text.CutOffError: Not JSON: it stops after '{"a": {"b": 12'
    """
    try:
        return Found(loads_exactly(text), mended=False)
    except NotJsonError:  # a number or key that JSON allows and we do not
        raise
    except (ValueError, RecursionError):
        pass
    spans = list(_spans(text))
    if not spans:
        raise NotJsonError(f"Not JSON: {shortened(text.strip(), _SHOWN)!r} has no object in it")
    # What is JSON as it stands comes first; only where nothing is, something is mended.
    values = _exact_values(spans) or [_mended(span) for span in spans]
    # Models repeat themselves: the same value twice is one answer, two values are none.
    answers = _objects(values)
    if not answers:
        raise NotJsonError(f"Not JSON: {shortened(text.strip(), _SHOWN)!r} has no object in it")
    return Found(only_one(answers), mended=True)


def find_answer(text: str) -> Found:
    r"""Find the JSON value of a text, also where a model encoded it several times.

    Raises
    ------
    NotJsonError
        As `find_json`.

    Examples
    --------
    >>> find_answer('"{\\"a\\": 1}"')
    Found(value={'a': 1}, mended=True)
    """
    packed = _FENCE.fullmatch(text.strip())
    found = find_json(packed[1] if packed else text)
    for _ in range(_MOST_ENCODINGS):
        if not (isinstance(found.value, str) and found.value.lstrip()[:1] in _ENCODED):
            break
        found = Found(find_json(found.value).value, mended=True)
    return Found(found.value, found.mended or packed is not None)


def loads_exactly(text: str) -> Json:
    """Read strict JSON: no NaN, no Infinity, no number beyond a float, no key with two values.

    Raises
    ------
    ValueError
        It is no JSON; `NotJsonError` where it is, but says something that no answer may.
    RecursionError
        It is nested too deeply.
    """
    return _exact.decode(text)


def only_one(values: list[Json]) -> Json:
    """Return the value that all are, and refuse values that differ.

    Raises
    ------
    NotJsonError
        They differ; two are named.
    """
    first = values[0]
    for other in values[1:]:
        if _canonical(other) != _canonical(first):
            raise NotJsonError(f"two answers that differ: {_shown(first)} and {_shown(other)}")
    return first


def _canonical(value: Json) -> str:
    # As text, since Python takes 1, 1.0 and True for one value.
    return json.dumps(value, sort_keys=True)


def _shown(value: Json) -> str:
    return shortened(json.dumps(value, ensure_ascii=False), _SHOWN)


def _refuse_constant(name: str) -> Any:
    raise NotJsonError(f"{name} is not a number that JSON has")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotJsonError(f"{shortened(text, _SHOWN)} is too large for a number")
    return number


def _one_value_each(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    # A key that stands twice with one value is a repetition and contradicts nothing.
    if len(made) != len(pairs):
        for name, value in pairs:
            if _canonical(made[name]) != _canonical(value):
                raise NotJsonError(
                    f"two answers that differ: {name!r} is {_shown(value)} and {_shown(made[name])}"
                )
    return made


# One decoder for all: json.loads with an option makes a new one at each call.
_exact = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_one_value_each
)


def _objects(values: list[Json]) -> list[Json]:
    """Collect the objects among some values; a list of nothing but objects stands for these."""
    found: list[Json] = []
    for value in values:
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            found += value
        elif isinstance(value, dict):
            found.append(value)
    return found


def _exact_values(spans: list[str]) -> list[Json]:
    """Return the values of those spans that are JSON as they stand."""
    values = []
    for span in spans:
        try:
            values.append(loads_exactly(span))
        except NotJsonError:
            raise
        except (ValueError, RecursionError):
            continue
    return values if _objects(values) else []


def _spans(text: str) -> Iterator[str]:
    """Cut out what looks like a JSON object or list, whole; prose between is passed over.

    Raises
    ------
    CutOffError
        The last one is not closed.
    """
    start = 0
    while (match := _JSON_BEGINS.search(text, start)) is not None:
        end = _end_of(text, match.start())
        if end is None:
            # Not repaired: no repair could know the rest, and the reason would be the same one.
            # A repair takes some 50 µs, as long as eight ordinary rows.
            ended = text.rstrip()
            shown = ended if len(ended) <= _SHOWN else f"...{ended[-_SHOWN:]}"
            raise CutOffError(f"Not JSON: it stops after {shown!r}")
        yield text[match.start() : end]
        start = end


def is_one_json(text: str) -> bool:
    r"""Tell whether a text is one whole JSON object or list, bare or in a fence.

    Examples
    --------
    >>> is_one_json('```json\n{"a": 1}\n```'), is_one_json('Sure: {"a": 1}')
    (True, False)
    """
    text = text.strip()
    fenced = _FENCED.fullmatch(text)
    text = fenced[2] if fenced else text
    return _JSON_BEGINS.match(text) is not None and _end_of(text, 0) == len(text)


def end_of_json_around(text: str, position: int, start: int = 0) -> int | None:
    """Return where the JSON value ends that holds a position; None where none does.

    The value is looked for from `start`, which is in none.

    Examples
    --------
    >>> end_of_json_around('Sure: {"a": "<b>"}.', 13), end_of_json_around("Sure <b>", 5)
    (18, None)
    """
    # What is behind the position does not count; a search through all of it for each tag would.
    while (match := _JSON_BEGINS.search(text, start, position + 1)) and match.start() < position:
        end = _end_of(text, match.start())
        if end is None or end > position:
            return len(text) if end is None else end
        start = end
    return None


def _end_of(text: str, start: int) -> int | None:
    """Return where the value that opens at `start` ends; None where it is left open."""
    closers: list[str] = []
    i, before = start, ""  # the last character that is no blank
    while i < len(text):
        char = text[i]
        if char in _OPENERS:
            closers.append(_OPENERS[char])
        elif char in "}]":
            # A bracket that closes another one is not guessed at: the value counts as open.
            if char != closers.pop():
                return None
            if not closers:
                return i + 1
        # A ' elsewhere than after these is an apostrophe within a bare word.
        elif char in '"“' or (char == "'" and before in {"{", "[", ",", ":"}):
            closing = "”" if char == "“" else char
            end = end_of_string(text, i + 1, closing)
            if end is None:
                return None
            i = end
        if not char.isspace():
            before = char
        i += 1
    return None


def _mended(span: str) -> Json:
    value = mend(span)
    if value is None:
        raise NotJsonError(f"Not JSON, and not to be mended: {shortened(span, _SHOWN)!r}")
    return value
