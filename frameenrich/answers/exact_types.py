"""Find values of another type than a schema wants, which pydantic would quietly make fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from frameenrich.answers.schema import resolved, subschemas, without_null
from frameenrich.model import Json

Found = tuple[tuple[str | int, ...], Json]
"""Where a value stands, and the value."""

# JSON has one type for both; that a whole number is whole is checked where values are validated.
_KINDS = {"integer": "number"}
# Not "duration": a number of seconds is one.
_MOMENTS = frozenset({"date", "date-time", "time"})
_DIGITS = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)


def odd_values(
    value: Json, wanted: Json, root: Mapping[str, Json], path: tuple[str | int, ...] = ()
) -> Iterator[Found]:
    """Yield each boolean, number or text that stands where a schema has a number or a boolean.

    Choices are compared elsewhere (`look_alike`), and so is nothing that may be of any type.

    Examples
    --------
    >>> schema = {"properties": {"size": {"type": "integer"}, "new": {"type": "boolean"}}}
    >>> list(odd_values({"size": True, "new": True}, schema, schema))
    [(('size',), True)]
    >>> list(odd_values({"size": "12", "new": 1}, schema, schema))
    [(('size',), '12'), (('new',), 1)]
    """
    for where, each, own in _leaves(value, wanted, root, path):
        kinds = _kinds(own, root)
        if kinds & {"number", "boolean"} and not _fits(each, kinds):
            yield where, each


def numbers_for_dates(
    value: Json, wanted: Json, root: Mapping[str, Json], path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Json, str]]:
    """Yield each number, as a text or not, that stands where a schema has a date or a time.

    Pydantic counts seconds from 1970, so that the year 2024 and 20240209 are moments of that year;
    for a time of day, from midnight. The last of the three is what the schema has.

    Examples
    --------
    >>> schema = {"properties": {"since": {"type": "string", "format": "date-time"}}}
    >>> list(numbers_for_dates({"since": "20240209"}, schema, schema))
    [(('since',), '20240209', 'a date or a time')]
    >>> list(numbers_for_dates({"since": "2024-02-09"}, schema, schema))
    []
    """
    for where, each, own in _leaves(value, wanted, root, path):
        kinds = _kinds(own, root) - {"null"} if _is_number(each) else set()
        if kinds and kinds <= _MOMENTS:
            yield where, each, "a time" if kinds == {"time"} else "a date or a time"


def has_dates(node: Json) -> bool:
    """Tell whether a schema has a date or a time.

    Examples
    --------
    >>> has_dates({"format": "date"}), has_dates({"enum": ["date"]})
    (True, False)
    """
    formats = (each.get("format") for each in subschemas(node))
    return any(isinstance(each, str) and each in _MOMENTS for each in formats)


def _leaves(
    value: Json, wanted: Json, root: Mapping[str, Json], path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Json, Json]]:
    """Yield each value that is no object, list or null: where it stands, and its schema."""
    if isinstance(value, dict):
        node = without_null(wanted, root)
        members, others = node.get("properties", {}), node.get("additionalProperties")
        for name, each in value.items():
            yield from _leaves(each, members.get(name, others), root, (*path, name))
    elif isinstance(value, list):
        node = without_null(wanted, root)
        first = node.get("prefixItems", ())
        for i, each in enumerate(value):
            own = first[i] if i < len(first) else node.get("items")
            yield from _leaves(each, own, root, (*path, i))
    elif value is not None:
        yield path, value, wanted


def _fits(value: Json, kinds: set[str]) -> bool:
    kind = _kind(value)
    return kind in kinds or (kind == "string" and not kinds.isdisjoint(_MOMENTS))


def _is_number(value: Json) -> bool:
    if isinstance(value, str):
        return _DIGITS.fullmatch(value) is not None
    return _kind(value) == "number"


def _kind(value: Json) -> str:
    if isinstance(value, bool):  # before numbers, as True is an int
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _kinds(wanted: Json, root: Mapping[str, Json]) -> set[str]:
    """Return the types that a value may have; none where it may have any."""
    node: Mapping[str, Any] = resolved(wanted, root)
    alternatives = node.get("anyOf", node.get("oneOf"))
    if isinstance(alternatives, list):
        each = [_kinds(own, root) for own in alternatives]
        return set().union(*each) if all(each) else set()
    if "enum" in node or "const" in node:
        return set()
    named = node.get("type", [])
    kinds = {_KINDS.get(kind, kind) for kind in ([named] if isinstance(named, str) else named)}
    if "string" in kinds and node.get("format") in _MOMENTS:
        kinds = kinds - {"string"} | {node["format"]}
    return kinds
