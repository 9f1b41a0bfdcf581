"""Name the output columns of an answer: from a JSON Schema's properties to typed fields."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from frameenrich.answers.schema import (
    leads_to_cycle,
    references,
    resolved,
    takes_more,
    without_null,
)
from frameenrich.model import Json
from frameenrich.text import can

FieldKind = Literal[
    "string", "integer", "number", "boolean", "date", "datetime", "category", "object", "vector",
    "json", "any",
]  # fmt: skip
"""What a column holds. ``object``: closed objects and lists of one kind of value, as they are;
``json``: what Parquet has no one type for, as compact JSON text; ``any``: what a parser made."""


@dataclass(frozen=True, slots=True)
class Field:
    """One output column: the property it comes from and the type it has.

    ``suffix`` ends the column's name, where a single-valued output has a second column. ``inner``
    are the fields of a nested object, for ``flatten=True``. ``mixed`` says that its values, or
    parts of them, may be of different types, so that no list of them has one type.
    """

    name: str
    kind: FieldKind
    categories: tuple[str, ...] = ()
    suffix: str = ""
    inner: tuple[Field, ...] = dataclasses.field(default=(), compare=False)
    mixed: bool = dataclasses.field(default=False, compare=False)


def is_of_kind(value: Any, field: Field) -> bool:
    """Tell whether a column takes a value; users' validators and serializers make anything.

    Texts take every value, as JSON, and objects are not looked into.
    """
    if field.kind == "boolean":
        return isinstance(value, bool)
    if field.kind == "category":
        return isinstance(value, str) and value in field.categories
    if field.kind == "integer":
        whole = value.is_integer() if isinstance(value, float) else isinstance(value, int)
        return whole and not isinstance(value, bool)
    if field.kind == "number":
        return not isinstance(value, bool) and can(float, value)
    if field.kind in {"date", "datetime"}:
        return can(datetime.fromisoformat, value)
    return True


def as_cell(value: Any, field: Field) -> Any:
    """Return a value of an answer as its column holds it.

    A Decimal comes as text and is made a number; what is one of several plain types is text, and
    what may be anything is JSON text.

    Examples
    --------
    >>> as_cell("12.30", Field("price", "number")), as_cell(3, Field("size", "string"))
    (12.3, '3')
    >>> as_cell({"b": [1, None], "a": "é"}, Field("specs", "json"))
    '{"b":[1,null],"a":"é"}'
    """
    if field.kind == "json":
        return None if value is None else compact_json(value)
    if field.kind == "number" and isinstance(value, str):
        return float(value)
    if field.kind == "string" and value is not None and not isinstance(value, str):
        return json.dumps(value)
    return value


def compact_json(value: Any) -> str:
    """Return a value as a ``json`` column's text: JSON, its keys as they came, without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """Return a value that a frame's cell has instead of JSON's: Parquet makes arrays of lists."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def flattened(field: Field, values: Sequence[Any]) -> Iterator[tuple[Field, Sequence[Any]]]:
    """Yield a field's columns with nested objects as columns of their own, ``field.sub``.

    Examples
    --------
    >>> size = Field("size", "object", inner=(Field("w", "integer"), Field("h", "integer")))
    >>> [(f.name, cells) for f, cells in flattened(size, [{"w": 1, "h": 2}, None])]
    [('size.w', [1, None]), ('size.h', [2, None])]
    """
    if not field.inner:
        yield field, values
    # A null object makes nulls of all its members, so that the columns keep the frame's length.
    for inner in field.inner:
        cells = [v.get(inner.name) if isinstance(v, Mapping) else None for v in values]
        named = dataclasses.replace(inner, name=f"{field.name}.{inner.name}")
        yield from flattened(named, cells)


# --- from a JSON Schema to columns and types ----------------------------------------------------

_KINDS: Mapping[str, FieldKind] = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}


_FORMATS: Mapping[str, FieldKind] = {"date": "date", "date-time": "datetime"}


def make_fields(schema: Mapping[str, Json]) -> tuple[Field, ...]:
    """Return the columns of an answer's schema, a property each."""
    # Definitions are no part of the answer: with them no inner object would equal the whole.
    top = {name: value for name, value in schema.items() if name != "$defs"}
    made: dict[str, Field] = {}
    return tuple(
        _field(name, each, schema, (top,), made) for name, each in schema["properties"].items()
    )


def _field(
    name: str,
    wanted: Json,
    root: Mapping[str, Json],
    above: tuple[Json, ...],
    made: dict[str, Field],
) -> Field:
    """Return the column of a property; `above` are the objects it is in, which may hold it again.

    What a reference leads to is `made` once, so that schemas whose parts refer to others over and
    over take no longer than they are.
    """
    reference = _reference(wanted, root)
    if reference in made:
        return dataclasses.replace(made[reference], name=name)
    node = without_null(wanted, root)
    choices = node.get("enum", [node["const"]] if "const" in node else [])
    texts = [choice for choice in choices if choice is not None]
    if texts and all(isinstance(choice, str) for choice in texts):
        return Field(name, "category", tuple(dict.fromkeys(texts)))
    by_choices = texts and "type" not in node
    kind = _kind_of_all(texts) if by_choices else _kind(node, root)
    if kind != "object":
        several = by_choices or not _is_text(node, root)
        return Field(name, kind, mixed=kind == "json" or (kind == "string" and several))
    if node in above:  # how deep it goes is up to each value
        return Field(name, "json", mixed=True)
    if node["type"] == "array":
        whole = _is_of_one_type(node, root, above, made)
        return Field(name, "object" if whole else "json", mixed=not whole)
    members = node["properties"].items()
    inner = tuple(_field(sub, value, root, (*above, node), made) for sub, value in members)
    field = Field(name, kind, inner=inner, mixed=any(each.mixed for each in inner))
    if reference and not leads_to_cycle(reference, root):
        made[reference] = field
    return field


def _is_of_one_type(
    node: Mapping[str, Json],
    root: Mapping[str, Json],
    above: tuple[Json, ...],
    made: dict[str, Field],
) -> bool:
    """Tell whether all items of an array have one type, in whatever answer and however deep."""
    # A tuple's schema lists its first items, and then what all others are.
    items = [*node.get("prefixItems", ())]
    if "items" in node and node["items"] is not False:
        items.append(node["items"])
    # What leads back to itself has a part of no one type; not entered, since it may branch.
    if not items or any(leads_to_cycle(each, root) for item in items for each in references(item)):
        return False
    first, *others = (_field("", item, root, (*above, node), made) for item in items)
    same = all(other.kind == first.kind != "object" for other in others)
    return same and not first.mixed


def _reference(wanted: Json, root: Mapping[str, Json]) -> str:
    """Return the reference that a property is, may it be null or not; empty where it is none."""
    if not isinstance(wanted, Mapping):
        return ""
    choices = wanted.get("anyOf", wanted.get("oneOf", ()))
    others = [each for each in choices if resolved(each, root).get("type") != "null"]
    node = others[0] if len(others) == 1 else wanted
    reference = node.get("$ref") if isinstance(node, Mapping) else None
    return reference if isinstance(reference, str) else ""


def _kind(node: Mapping[str, Json], root: Mapping[str, Json]) -> FieldKind:
    alternatives = node.get("anyOf", node.get("oneOf"))
    if isinstance(node.get("type"), list):
        alternatives = [{**node, "type": each} for each in node["type"]]
    if alternatives is not None:
        nodes = [resolved(each, root) for each in alternatives]
        return _common_kind([each for each in nodes if each.get("type") != "null"], root)
    if node.get("type") == "string" and node.get("format") in _FORMATS:
        return _FORMATS[node["format"]]
    return _KINDS.get(str(node.get("type")), "object" if _is_closed(node) else "json")


def _is_closed(node: Mapping[str, Json]) -> bool:
    """Tell whether a node is an array, or an object all of whose members are named."""
    if node.get("type") == "array":
        return True
    named = node.get("type") == "object" and bool(node.get("properties"))
    return named and not takes_more(node)


def _is_text(node: Mapping[str, Json], root: Mapping[str, Json]) -> bool:
    """Tell whether a node's values are texts and nothing else."""
    alternatives = node.get("anyOf", node.get("oneOf"))
    if alternatives is None:
        return node.get("type") == "string"
    nodes = [resolved(each, root) for each in alternatives]
    return all(_is_text(each, root) for each in nodes if each.get("type") != "null")


def _kind_of_all(values: Sequence[Json]) -> FieldKind:
    """Return the type of choices that are not all texts."""
    types = {type(value) for value in values}
    # bool is not in it: JSON keeps true and 1 apart, though Python has them equal.
    if types <= {int, float}:
        return "integer" if types == {int} else "number"
    if types == {bool}:
        return "boolean"
    return "string" if types <= {str, int, float, bool} else "json"


def _common_kind(nodes: Sequence[Mapping[str, Json]], root: Mapping[str, Json]) -> FieldKind:
    """One type for values of several: numbers stay numbers, other plain values are text."""
    kinds = {_kind(node, root) for node in nodes}
    if not kinds or kinds & {"object", "json"}:
        return "json"
    return "number" if kinds <= {"integer", "number"} else "string"
