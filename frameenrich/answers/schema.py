"""A JSON Schema read: references followed, and the types that pydantic can validate with."""

from __future__ import annotations

import datetime as dt
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from frameenrich.answers.json_text import loads_exactly
from frameenrich.model import Json


def resolved(node: Json, root: Mapping[str, Json]) -> dict[str, Json]:
    """The node with a leading ``$ref`` followed; ``true``, the schema of anything, is ``{}``."""
    seen: set[str] = set()
    while isinstance(node, Mapping) and "$ref" in node and node["$ref"] not in seen:
        seen.add(node["$ref"])
        target: Any = root
        for part in re.split("/", node["$ref"].lstrip("#/")):
            target = target.get(part, {}) if isinstance(target, Mapping) else {}
        node = target
    return dict(node) if isinstance(node, Mapping) else {}


def without_null(wanted: Json, root: Mapping[str, Json]) -> dict[str, Json]:
    """The node that is meant where a value may also be null."""
    node = resolved(wanted, root)
    alternatives: Json = node.get("anyOf", node.get("oneOf", ()))
    choices = [c for c in alternatives if isinstance(c, Mapping) and c.get("type") != "null"]
    if len(choices) == 1:
        return without_null(choices[0], root)
    if isinstance(node.get("type"), list):
        types = [each for each in node["type"] if each != "null"]
        return {**node, "type": types[0]} if len(types) == 1 else node
    return node


_TIMES = {"date": dt.date, "date-time": dt.datetime}


def python_type(node: Json, root: Mapping[str, Json]) -> Any:
    """A type for pydantic that coerces as the schema's types say; constraints are not in it."""
    node = resolved(node, root)
    choices = node.get("anyOf", node.get("oneOf"))
    if isinstance(choices, list):
        return typing.Union[tuple(python_type(choice, root) for choice in choices)]  # noqa: UP007
    kind = node.get("type")
    if isinstance(kind, list):
        return typing.Union[tuple(python_type({**node, "type": k}, root) for k in kind)]  # noqa: UP007
    if "enum" in node or "const" in node:
        allowed = node.get("enum", [node.get("const")])
        scalars = all(isinstance(value, (str, int, bool, type(None))) for value in allowed)
        return Literal[tuple(allowed)] if allowed and scalars else Any
    if kind == "string" and node.get("format") in _TIMES:
        return _TIMES[node["format"]]
    simple = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}
    if kind in simple:
        return simple[kind]
    if kind == "array":
        return list[python_type(node["items"], root)] if "items" in node else list[Any]  # type: ignore[misc]
    return _object_type(node, root) if kind == "object" and "properties" in node else Any


def _object_type(node: Mapping[str, Json], root: Mapping[str, Json]) -> Any:
    from pydantic import Field as PydanticField  # noqa: PLC0415 - heavy, and not needed at import
    from pydantic import create_model  # noqa: PLC0415

    required = node.get("required", ())
    members: dict[str, Any] = {}
    for i, (name, value) in enumerate(node["properties"].items()):
        kind = Any if _refers_back(value, node, root) else python_type(value, root)
        if name in required:
            members[f"field_{i}"] = (kind, PydanticField(alias=name))
        else:
            default = value.get("default") if isinstance(value, Mapping) else None
            members[f"field_{i}"] = (kind | None, PydanticField(default, alias=name))
    return create_model("Answer", **members)


def _refers_back(value: Json, node: Mapping[str, Json], root: Mapping[str, Json]) -> bool:
    """Tell whether a property leads back to its own object: only the schema checks such a one."""
    seen: set[str] = set()
    waiting: list[Json] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, Mapping):
            if "$ref" in item:
                if item["$ref"] in seen:
                    return True
                seen.add(item["$ref"])
                target = resolved(item, root)
                if target == node:
                    return True
                waiting.append(target)
            else:
                waiting += item.values()
    return False


def normalize_label(text: str) -> str:
    """Return what counts of a label: neither case nor spacing."""
    return " ".join(text.casefold().split())


def with_exact_choices(value: Json, wanted: Json, root: Mapping[str, Json]) -> Json:
    """An answer whose choices, however deep, are written as they were asked for."""
    node = without_null(wanted, root)
    if not node:
        return value
    if isinstance(value, str):
        texts = [choice for choice in _choices(node, root) if isinstance(choice, str)]
        if value in texts or not texts:
            return value
        return {normalize_label(text): text for text in texts}.get(normalize_label(value), value)
    if isinstance(value, list):
        return [with_exact_choices(item, node.get("items"), root) for item in value]
    if isinstance(value, dict):
        inner = node.get("properties", {})
        return {name: with_exact_choices(v, inner.get(name), root) for name, v in value.items()}
    return value


def with_decoded_fields(value: Json, wanted: Json, root: Mapping[str, Json]) -> Json:
    """Return an answer in which lists and objects that came as JSON text are what they hold.

    Only where the schema wants a list or an object, so that no text is ever taken apart.

    Examples
    --------
    >>> schema = {"properties": {"tags": {"type": "array"}, "note": {"type": "string"}}}
    >>> with_decoded_fields({"tags": '["a"]', "note": '["b"]'}, schema, schema)
    {'tags': ['a'], 'note': '["b"]'}
    """
    node = without_null(wanted, root)
    kind = {"array": list, "object": dict}.get(str(node.get("type")))
    if isinstance(value, str) and kind is not None:
        try:
            decoded = loads_exactly(value)
        except (ValueError, RecursionError):
            return value
        return with_decoded_fields(decoded, node, root) if isinstance(decoded, kind) else value
    if isinstance(value, list):
        return [with_decoded_fields(item, node.get("items"), root) for item in value]
    if isinstance(value, dict):
        inner = node.get("properties", {})
        return {name: with_decoded_fields(v, inner.get(name), root) for name, v in value.items()}
    return value


def _choices(node: Mapping[str, Json], root: Mapping[str, Json]) -> Iterator[Json]:
    yield from node.get("enum", [node["const"]] if "const" in node else ())
    for alternative in node.get("anyOf", node.get("oneOf", ())):
        yield from _choices(resolved(alternative, root), root)
