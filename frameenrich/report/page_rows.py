"""The rows of a report as JSON for the page's script.

Rows come one after another and are JSON at once. Their texts are held once each, and no longer than
a page of its size can show: however long the answers are, no more than one page is in memory.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from frameenrich.rendering.readable import Prompt
from frameenrich.report.locate_error import locate_error
from frameenrich.text import script_json

_MAX_CHARACTERS = 40_000_000
"""Browsers open a page of this size without delay; texts are cut to stay below it."""


# Lengths to try for each text, longest first: short texts stay whole while long ones are cut.
_CAPS = (200_000, 50_000, 10_000, 2_000, 500)


_MIN_SHARED = 12


_EXACT = 2**53
"""JavaScript has floats only, which cannot hold every whole number beyond this."""


@dataclass(frozen=True)
class Column:
    """An output column; ``kind`` is ``number``, ``bool``, ``text`` or ``json``."""

    name: str
    kind: str


@dataclass(frozen=True)
class Row:
    """One row of the page; its texts are not escaped yet.

    ``values`` has one for each `Column` (JSON text for the kind ``json``), or is None for a row
    without an answer. ``group`` is the number of its reason, or None. ``images`` are pairs of
    ``src`` (a ``data:`` URL), ``url`` or ``note`` and its text. ``history`` has the earlier
    attempts, as `Job.flagged` gives them.
    """

    key: str
    status: str
    values: tuple[Any, ...] | None = None
    error: str | None = None
    group: int | None = None
    raw: str | None = None
    prompt: Prompt | None = None
    images: tuple[tuple[str, str], ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()
    attempt: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    score: float | None = None
    verdicts: tuple[str, ...] = ()
    model: str | None = None
    finish_reason: str | None = None
    custom_id: str | None = None
    repaired: bool = False


class PageRows:
    """The rows of a page as JSON, and the texts and images that they refer to by number.

    Parameters
    ----------
    columns : sequence of Column
        The output columns.
    own_turn : int
        The index of the message that each row was rendered into.
    rows : iterable of Row
        Read once.
    """

    def __init__(self, columns: Sequence[Column], own_turn: int, rows: Iterable[Row]) -> None:
        self._columns, self._texts, self._prompts = columns, _TextTable(), _Prompts(own_turn)
        self._images: dict[tuple[str, str], int] = {}
        # As bytes: Python's objects of a row take five times as much.
        self._rows: list[bytes] = []
        self._spans: dict[int, tuple[int, tuple[int, int]]] = {}
        for row in rows:
            self._add(row)

    def _add(self, row: Row) -> None:
        members, texts = self._members(row), self._texts
        found = _error_span(row, texts.cap)
        if found is not None and row.raw is not None:
            self._spans[len(self._rows)] = (len(row.raw), found)
        if row.prompt:
            self._prompts.add([number for _, number in members["p"]], row.prompt)
        # Open at its end, since it is not known yet whether the text with the error will be cut.
        self._rows.append(script_json(members)[:-1].encode())

    def _members(self, row: Row) -> dict[str, Any]:
        """Return a row for the page's script, without most of its empty members."""
        # One-letter names and no nulls, since every row of the page repeats them.
        number = self._texts.number
        may_lack = {
            "e": number(row.error),
            "v": None if row.values is None else self._cells(row.values),
            "r": number(row.raw),
            "n": None if row.raw is None else len(row.raw),
            "p": row.prompt and [[role, number(text)] for role, text in row.prompt.messages],
            "i": [self._images.setdefault(image, len(self._images)) for image in row.images]
            or None,
            "h": list(row.history) or None,
            "a": row.attempt,
            "c": row.score,
            "w": list(row.verdicts) or None,
            "o": row.model,
            "f": row.finish_reason,
            "id": row.custom_id,
            "m": row.repaired or None,
        }
        used = [row.prompt_tokens, row.completion_tokens, row.cost_usd]
        own = {"k": row.key, "s": row.status, "u": used}
        known = {name: value for name, value in may_lack.items() if value is not None}
        return {**own, **known, "g": row.group}

    def _cells(self, values: Iterable[Any]) -> list[Any]:
        return [
            self._texts.number(value) if column.kind in {"text", "json"} else plain(value)
            for column, value in zip(self._columns, values, strict=True)
        ]

    def pieces(self, before: Mapping[str, Any]) -> Iterator[str]:
        """Yield the JSON of the page's data: what comes `before` the rows, and the rows."""
        same, shared = self._prompts.in_common(self._texts)
        after = {
            "clipped": self._texts.clipped(),
            "images": list(self._images),
            "own": self._prompts.own_turn,
            "same": same,
            "shared": shared,
        }
        # Each object without the brace where the next part of the same object goes on.
        yield script_json(before)[:-1]
        yield from chain([',"rows":['], _joined(self._closed_rows()))
        yield from chain(['],"texts":['], _joined(map(script_json, self._texts.texts)))
        yield "]," + script_json(after)[1:]

    def _closed_rows(self) -> Iterator[str]:
        """Yield each row with the span of its error, unless the text with it is cut."""
        for i, row in enumerate(self._rows):
            length, span = self._spans.get(i, (0, None))
            shown = span if length <= self._texts.cap else None
            yield f'{row.decode()},"x":{script_json(shown)}}}'


def _joined(items: Iterable[str]) -> Iterator[str]:
    for i, item in enumerate(items):
        yield f",{item}" if i else item


class _TextTable:
    """Texts, each held once; rows refer to them by number.

    ``cap`` is the longest length of a text at which all so far fit on a page; the texts are cut to
    it, and cut again when more texts make it smaller.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.cap = _CAPS[0]
        self._numbers: dict[str | bytes, int] = {}
        self._lengths = array("q")
        self._held = 0

    def number(self, text: str | None) -> int | None:
        """Return the number of a text, or None for None."""
        if text is None:
            return None
        number = self._numbers.setdefault(_name(text), len(self.texts))
        if number == len(self.texts):
            self.texts.append(text[: self.cap])
            self._lengths.append(len(text))
            self._held += min(len(text), self.cap)
            while self._held > _MAX_CHARACTERS and self.cap > _CAPS[-1]:
                self._cut(_CAPS[_CAPS.index(self.cap) + 1])
        return number

    def _cut(self, cap: int) -> None:
        self.cap, self.texts = cap, [text[:cap] for text in self.texts]
        self._held = sum(map(len, self.texts))

    def clipped(self) -> dict[int, int]:
        """Return the full length of each text that was cut, by its number."""
        return {i: length for i, length in enumerate(self._lengths) if length > self.cap}


_SHORT = 64


def _name(text: str) -> str | bytes:
    """Return what stands for a text among others: itself, or its hash where that is smaller."""
    # A hash that nobody can forge, or a model could put one row's text in another's place.
    if len(text) <= _SHORT:
        return text
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class _Prompts:
    """What the prompts of all rows have in common."""

    def __init__(self, own_turn: int) -> None:
        self.own_turn = own_turn
        self._same: list[int | None] | None = None
        self._ends: tuple[str, str] | None = None

    def add(self, numbers: Sequence[int | None], prompt: Prompt) -> None:
        """Add a row's prompt, with the numbers of its texts."""
        if not numbers:
            return
        before = numbers[: self.own_turn] if self._same is None else self._same
        pairs = zip(before, numbers, strict=False)
        self._same = [one if one == other else None for one, other in pairs]
        if len(numbers) > self.own_turn:
            _, text = prompt.messages[self.own_turn]
            least, greatest = self._ends or (text, text)
            self._ends = min(least, text), max(greatest, text)

    def in_common(self, texts: _TextTable) -> tuple[list[int | None], int]:
        """Return the turns that all rows share, and how much of their own turns' start."""
        # What the least and the greatest text have in common at the start, all between have too.
        one, other = (text[: texts.cap] for text in self._ends or ("", ""))
        if one == other:
            return self._same or [], 0
        pairs = enumerate(zip(one, other, strict=False))
        length = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
        # Whole words only, or a row would begin in the middle of one.
        start = one[: max(one.rfind(mark, 0, length) for mark in " \n") + 1]
        return self._same or [], utf16_length(start) if len(start) >= _MIN_SHARED else 0


def plain(value: Any) -> Any:
    """Return a value as it is, or as text where JSON or JavaScript cannot hold the number."""
    if isinstance(value, float) and value != value + 0 * value:  # NaN and the infinities
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return str(value)
    return value


def _error_span(row: Row, cap: int) -> tuple[int, int] | None:
    """Locate the error in the raw answer, counted in UTF-16 units as JavaScript does."""
    if row.raw is None or not row.error or len(row.raw) > cap:
        return None
    found = locate_error(row.raw, row.error)
    return found and (utf16_length(row.raw[: found[0]]), utf16_length(row.raw[: found[1]]))


def utf16_length(text: str) -> int:
    """Return the length of a text as JavaScript counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
