"""Find values of another type than a schema wants, which pydantic would quietly make fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from frameenrich.answers.schema import resolved, without_null
from frameenrich.model import Json

Found = tuple[tuple[str | int, ...], Json]
"""Where a value stands, and the value."""

# JSON has one type for both; that a whole number is whole is checked where values are validated.
_KINDS = {"integer": "number"}


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
    if isinstance(value, dict):
        node = without_null(wanted, root)
        members, others = node.get("properties", {}), node.get("additionalProperties")
        for name, each in value.items():
            yield from odd_values(each, members.get(name, others), root, (*path, name))
    elif isinstance(value, list):
        node = without_null(wanted, root)
        first = node.get("prefixItems", ())
        for i, each in enumerate(value):
            own = first[i] if i < len(first) else node.get("items")
            yield from odd_values(each, own, root, (*path, i))
    elif value is not None:
        kinds = _kinds(wanted, root)
        if kinds & {"number", "boolean"} and _kind(value) not in kinds:
            yield path, value


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
    return {_KINDS.get(kind, kind) for kind in ([named] if isinstance(named, str) else named)}
