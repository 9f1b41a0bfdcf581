"""Take a chunk's ordinary answers at once, straight to columns; leave the others to be read alone.

A gate only ever *accepts*: the cells of an answer that it takes are those that `Output.read` would
give, and what it refuses is read in full, so that the semantics are always pydantic's.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from operator import attrgetter
from typing import Any, cast

import msgspec
import numpy as np

from frameenrich.answers.fields import Field
from frameenrich.answers.output import Output
from frameenrich.answers.plain_types import Core, Member, make_struct, plain_members

Text = str | None
"""An ordinary answer's text; None where a line holds no ordinary answer."""


@dataclass(frozen=True)
class Taken:
    """Holds what a gate took of some texts.

    Parameters
    ----------
    columns : list of list
        One for each field, with a cell for each text: None where it was refused.
    refused : list of int
        The positions of the refused texts, in order.
    """

    columns: list[list[Any]]
    refused: list[int]


Gate = Callable[[Sequence[Text]], Taken]


def make_gate(output: Output) -> Gate | None:
    """Return the gate for an output; None where every answer is read in full.

    Examples
    --------
    >>> from frameenrich.prepare.output_options import output_from_options
    >>> gate = make_gate(output_from_options(response_model={"color": str, "score": int}))
    >>> gate(['{"color": "red", "score": 7}', '{"color": "red", "score": "7"}'])
    Taken(columns=[['red', None], [7, None]], refused=[1])
    """
    if output.spec.kind == "text":
        return _take_texts
    if any(field.kind == "json" for field in output.fields):
        return None  # made text of by the full reading
    members = plain_members(output)
    if members is not None:
        return _StructGate(members)
    names = _attributes(output) if output.model is not None else None
    return None if names is None else _ModelGate(output, names)


def _take_texts(texts: Sequence[Text]) -> Taken:
    """Take all texts in which no thinking can stand."""
    # Each mark by name: a loop over them takes as long as the rest together.
    cells = [
        text
        if text
        and "<" not in text
        and "THINK]" not in text
        and "\u25c1" not in text
        and not text.isspace()
        else None
        for text in texts
    ]
    return Taken([cells], [position for position, cell in enumerate(cells) if cell is None])


def _spread(columns: Iterable[Iterable[Any]], refused: list[int]) -> Taken:
    """Put None between the cells that were taken, where a text was refused."""
    whole = [list(column) for column in columns]
    for column in whole:
        for position in refused:
            column.insert(position, None)
    return Taken(whole, refused)


# --- plain answers: msgspec decides ---------------------------------------------------------------


class _StructGate:
    """Takes answers whose members are all plain: msgspec decodes them, all in C."""

    def __init__(self, members: list[Member]) -> None:
        self._decode: Callable[[Any], Any] = msgspec.json.Decoder(make_struct(members)).decode
        self._count = len(members)
        self._optional = [i for i, member in enumerate(members) if member.optional]
        self._objects = [i for i, member in enumerate(members) if member.plain.has_keys]

    def __call__(self, texts: Sequence[Text]) -> Taken:
        rows = self._decoded(texts)
        taken, whole = self._columns(texts, rows)
        if whole:
            return taken
        # Some text has a key twice, or what looks like it: each is judged alone.
        for position, row in enumerate(rows):
            if row is not None:
                count = _count_keys(msgspec.to_builtins(row))
                rows[position] = row if _has_keys(str(texts[position]), count) else None
        return self._columns(texts, rows)[0]

    def _decoded(self, texts: Sequence[Text]) -> list[Any]:
        """Return the struct of each text; None where it is none."""
        rows: list[Any] = []
        waiting = iter(texts)
        while len(rows) < len(texts):
            try:
                rows.extend(map(self._decode, waiting))  # what came before an error is kept
            except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError):
                rows.append(None)
        return rows

    def _columns(self, texts: Sequence[Text], rows: list[Any]) -> tuple[Taken, bool]:
        """Return the columns of rows, and whether their texts surely have no key twice."""
        refused = [position for position, row in enumerate(rows) if row is None]
        good, own = rows, cast("Sequence[str]", texts)
        if refused:
            good = [row for row in rows if row is not None]
            own = [text for text, row in zip(own, rows, strict=True) if row is not None]
        columns = list(map(list, zip(*map(msgspec.structs.astuple, good), strict=True)))
        columns = columns or [[] for _ in range(self._count)]
        count = self._count * len(good)
        for i in self._optional:
            if absent := columns[i].count(msgspec.UNSET):
                count -= absent
                columns[i] = [None if cell is msgspec.UNSET else cell for cell in columns[i]]
        for i in self._objects:
            columns[i] = msgspec.to_builtins(columns[i])
            count += sum(map(_count_keys, columns[i]))
        return _spread(columns, refused), _have_keys(own, count)


# A decoder keeps the last of two values of one key, which nobody notices otherwise. So the keys
# that were found are compared with the colons of the text. A value may hold colons, too: then those
# after a quote are counted, the keys' and perhaps more, but never fewer, as long as no key has a
# blank before its colon.

_COLON, _QUOTE, _LAST_BLANK = b':" '


def _have_keys(texts: Iterable[str], count: int) -> bool:
    """Tell whether objects in which so many keys were found surely have no key twice."""
    # As bytes all at once: searching a text for each kind of blank took longer than decoding it.
    whole = "".join(texts).encode()
    data = np.frombuffer(whole, np.uint8)
    is_colon = data == _COLON
    # Counted first: where they are costs twice as much, and mostly nobody has to know.
    if np.count_nonzero(is_colon) == count:
        return True
    colons = np.flatnonzero(is_colon)
    # Of a colon that is among the first two bytes, the last ones: it is no key's.
    before, earlier = data[colons - 1], data[colons - 2]
    # French has a blank before a colon: only one that follows a quote may be a key's.
    spaced = (before <= _LAST_BLANK) & ((earlier == _QUOTE) | (earlier <= _LAST_BLANK))
    return not spaced.any() and np.count_nonzero(before == _QUOTE) == count


_SPACED_KEY = re.compile(r'"\s+:')


def _has_keys(text: str, count: int) -> bool:
    """Tell it of one text, as `_have_keys` does, and of one with blanks before colons, too."""
    if text.count(":") == count:
        return True
    spaced = any(f"{blank}:" in text for blank in " \t\n\r") and _SPACED_KEY.search(text)
    return not spaced and text.count('":') == count


def _count_keys(value: Any) -> int:
    """Count the keys of all objects in a value."""
    if value.__class__ is dict:
        return len(value) + sum(map(_count_keys, value.values()))
    return sum(map(_count_keys, value)) if value.__class__ is list else 0


# --- a class with rules of its own: pydantic decides, and nothing is dumped -----------------------


class _ModelGate:
    """Validates one by one as pydantic does, without its dump where that would change nothing."""

    def __init__(self, output: Output, names: Sequence[str]) -> None:
        # Strictly where types are exact: what only fits when it is made to is read in full.
        self._validate = partial(output.adapter.validate_json, strict=output.exact or None)
        get = attrgetter(*names)
        self._values = get if len(names) > 1 else lambda answer: (get(answer),)
        self._classes = [_CLASSES[field.kind] for field in output.fields]
        # A default fills in for a name that is absent, so that each has to be found in the text.
        self._keys = [f'"{field.name}":' for field in output.fields]

    def __call__(self, texts: Sequence[Text]) -> Taken:
        rows = [None if text is None else self._row(text) for text in texts]
        good = [row for row in rows if row is not None]
        columns = list(zip(*good, strict=True)) or [() for _ in self._classes]
        if not all(map(_all_stay, columns, self._classes)):
            rows = [row if row and all(map(_stays, row, self._classes)) else None for row in rows]
            good = [row for row in rows if row is not None]
            columns = list(zip(*good, strict=True)) or [() for _ in self._classes]
        return _spread(columns, [position for position, row in enumerate(rows) if row is None])

    def _row(self, text: str) -> tuple[Any, ...] | None:
        if not (_has_keys(text, len(self._keys)) and all(map(text.__contains__, self._keys))):
            return None
        with contextlib.suppress(Exception):  # a user's validator may raise anything
            row: tuple[Any, ...] = self._values(self._validate(text))
            return row
        return None


def _all_stay(cells: Sequence[Any], wanted: type) -> bool:
    """Tell whether every cell of a column surely stays; False where `_stays` has to check each."""
    # Passes in C: most columns hold one class, and their extremes tell of all numbers.
    classes = set(map(type, cells)) - {type(None)}
    if not classes:
        return True
    if classes != {wanted} or wanted is list:
        return False
    if wanted is float:
        return all(isfinite(cell) for cell in cells if cell is not None)
    known = [cell for cell in cells if cell is not None] if wanted is int else []
    return not known or (min(known) >= _LEAST and max(known) <= _MOST)


def _stays(value: Any, wanted: type) -> bool:
    """Tell whether a dump would give the value back, and its column take it."""
    if value is None:
        return True
    if value.__class__ is list and wanted is list:
        return all(
            item.__class__ in _EXACT and (item.__class__ is not float or isfinite(item))
            for item in value
        )
    if wanted is float:
        return value.__class__ is float and isfinite(value)
    if wanted is int:
        return value.__class__ is int and _LEAST <= value <= _MOST
    return bool(value.__class__ is wanted)


_CLASSES: Mapping[str, type] = {
    "string": str,
    "category": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "object": list,
}


# By class, not isinstance(): a subclass may be dumped as something else, as an enum is.
_EXACT = frozenset({str, int, float, bool, type(None)})


_LEAST, _MOST = -(2**63), 2**63 - 1


_WRAPPERS = frozenset({"function-before", "function-after", "function-wrap", "default", "nullable"})


def _attributes(output: Output) -> list[str] | None:
    """Return the attributes that hold the values; None where a dump would change some of them."""
    core = _plain_model(output)
    if core is None:
        return None
    members = core["schema"]["fields"]
    names = {field.get("serialization_alias", name): name for name, field in members.items()}
    found = []
    for field in output.fields:
        if field.name not in names or not _is_lossless(members[names[field.name]]["schema"], field):
            return None
        found.append(names[field.name])
    return found


def _plain_model(output: Output) -> Core | None:
    """Return the core schema of an output that is a plain model; validators around it are fine."""
    whole = core = output.adapter.core_schema
    while core.get("type") in _WRAPPERS:
        core = core["schema"]
    fields = core.get("schema", {})
    if core.get("type") != "model" or fields.get("type") != "model-fields":
        return None
    odd = core.get("root_model") or fields.get("computed_fields") or "extras_schema" in fields
    extra = core.get("config", {}).get("extra_fields_behavior") == "allow"
    dumps = {key for key in _keys(whole, set()) if key.startswith("serialization")}
    return None if odd or extra or dumps - {"serialization_alias"} else core


def _keys(node: Any, seen: set[int]) -> Iterator[str]:
    """Yield every key of a core schema, however deep; a node that is shared is entered once."""
    if isinstance(node, Mapping) and id(node) not in seen:
        seen.add(id(node))
        for key, value in node.items():
            yield str(key)
            if key != "metadata":
                yield from _keys(value, seen)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _keys(value, seen)


def _is_lossless(node: Core, field: Field) -> bool:
    """Tell whether valid values usually are texts, numbers, booleans or lists of these."""
    while node["type"] in _WRAPPERS:
        node = node["schema"]
    if field.kind not in _CLASSES:
        return False
    if node["type"] == "list":
        return _is_lossless(node.get("items_schema", {"type": "any"}), field)
    if node["type"] == "literal":
        return {type(each) for each in node["expected"]} <= {str}
    return node["type"] in {"str", "int", "float", "bool"}
