"""Move enums that are too large for a server from a schema into the prompt.

A server refuses every request with an enum over its limits. In words it costs tokens, and the
answers are checked here all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frameenrich.model import Json

# OpenAI's limits for one schema (guide to structured outputs, "supported schemas"): all its enum
# values, and all their characters together.
MOST_CHOICES = 1_000
MOST_CHARACTERS = 120_000
LONG_ENUM, MOST_IN_LONG_ENUM = 250, 15_000
"""An enum of more values than the first may have no more characters than the second."""


_GROUPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf")

_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True, slots=True)
class Choice:
    """An enum of a schema: where it is, what it is called, and its values."""

    path: tuple[str | int, ...]
    name: str
    values: tuple[Any, ...]

    @property
    def characters(self) -> int:
        """Return how many characters its texts have together."""
        return sum(len(value) for value in self.values if isinstance(value, str))

    @property
    def type(self) -> str | None:
        """Return the one JSON type of its values; None where they have several."""
        kinds = {type(value) for value in self.values}
        return _TYPES.get(kinds.pop()) if len(kinds) == 1 else None


def without_large_choices(
    schema: Mapping[str, Json],
) -> tuple[dict[str, Json], tuple[Choice, ...]]:
    """Return a schema within OpenAI's limits of choices, and the choices that it lost.

    Examples
    --------
    >>> many = {"properties": {"code": {"enum": [f"c{i}" for i in range(2_000)]}}}
    >>> schema, (lost,) = without_large_choices(many)
    >>> schema, lost.name
    ({'properties': {'code': {'type': 'string'}}}, 'code')
    """
    # The largest first: fewest enums are lost, and small ones keep being enforced.
    found = sorted(_choices(schema, (), "the answer"), key=lambda each: -len(each.values))
    total = sum(len(each.values) for each in found)
    characters = sum(each.characters for each in found)
    lost = []
    for each in found:
        long = len(each.values) > LONG_ENUM and each.characters > MOST_IN_LONG_ENUM
        too_many = total > MOST_CHOICES or characters > MOST_CHARACTERS
        # Without one JSON type there would be nothing left to enforce instead of the enum.
        if each.type is not None and (long or too_many):
            total, characters = total - len(each.values), characters - each.characters
            lost.append(each)
    kinds = {each.path: each.type for each in lost}
    return _without(schema, (), kinds), tuple(lost)


def choices_text(choices: Sequence[Choice]) -> str:
    r"""Put choices into words for a prompt.

    Examples
    --------
    >>> choices_text([Choice((), "code", ("a", "b"))])
    'The value of "code" is one of these, written exactly so:\n["a", "b"]'
    """
    # As JSON, so that values with quotes or line ends are unmistakable.
    return "\n\n".join(
        f"The value of {json.dumps(each.name, ensure_ascii=False)} is one of these, written "
        f"exactly so:\n{json.dumps(each.values, ensure_ascii=False)}"
        for each in choices
    )


def _choices(node: Json, path: tuple[str | int, ...], name: str) -> Iterator[Choice]:
    if not isinstance(node, Mapping):
        return
    if isinstance(node.get("enum"), list):
        yield Choice(path, name, tuple(node["enum"]))
    for key, own, child in _children(node, name):
        yield from _choices(child, (*path, *key), own)


def _children(
    node: Mapping[str, Json], name: str
) -> Iterator[tuple[tuple[str | int, ...], str, Json]]:
    """Yield each schema in a schema: where it is, and the property or definition that it is of."""
    for group in _GROUPS:
        for own, child in node.get(group, {}).items():
            yield (group, own), own, child
    for group in _LISTS:
        for i, child in enumerate(node.get(group, ())):
            yield (group, i), name, child
    if "items" in node:
        yield ("items",), name, node["items"]


def _without(
    node: Json, path: tuple[str | int, ...], kinds: Mapping[tuple[str | int, ...], str | None]
) -> Json:
    """Copy a schema; the enums at these paths become their values' type."""
    if not kinds or not isinstance(node, Mapping):
        return node
    # A copy at every level: the spec's own schema still validates answers by its enums.
    copy = {name: value for name, value in node.items() if name != "enum" or path not in kinds}
    if path in kinds:
        copy.setdefault("type", kinds[path])
    for group in _GROUPS:
        if group in node:
            inner = node[group].items()
            copy[group] = {n: _without(v, (*path, group, n), kinds) for n, v in inner}
    for group in _LISTS:
        if group in node:
            each = enumerate(node[group])
            copy[group] = [_without(v, (*path, group, i), kinds) for i, v in each]
    if "items" in node:
        copy["items"] = _without(node["items"], (*path, "items"), kinds)
    return copy
