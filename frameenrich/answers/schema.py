"""Read a JSON Schema: follow its references, and make types for pydantic of it."""

from __future__ import annotations

import datetime as dt
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import unquote

from frameenrich.answers.json_text import loads_exactly
from frameenrich.model import Json


def resolved(node: Json, root: Mapping[str, Json]) -> dict[str, Json]:
    """Follow a node's leading ``$ref``; ``true``, the schema of anything, becomes ``{}``."""
    # References may lead back to themselves.
    seen: set[str] = set()
    while isinstance(node, Mapping) and "$ref" in node and node["$ref"] not in seen:
        seen.add(node["$ref"])
        target: Any = root
        for part in node["$ref"].lstrip("#/").split("/"):
            # JSON Pointer (RFC 6901): "~1" first, or "~01" would become a slash.
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            target = target.get(name, {}) if isinstance(target, Mapping) else {}
        node = target
    return dict(node) if isinstance(node, Mapping) else {}


def without_null(wanted: Json, root: Mapping[str, Json]) -> dict[str, Json]:
    """Return the node for a value's other type where it may also be null."""
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


def python_type(schema: Mapping[str, Json]) -> Any:
    """Return a type for pydantic that coerces as a schema says; constraints are not in it."""
    return _Types(schema).build()


class _Types:
    """Builds the types of one schema: each definition once, however often it is referred to."""

    def __init__(self, root: Mapping[str, Json]) -> None:
        self._root = root
        self._models: dict[str, Any] = {}
        self._begun: dict[str, str] = {}

    def build(self) -> Any:
        whole = self._of(self._root)
        named = {name: self._models[ref] for ref, name in self._begun.items()}
        for model in [*self._models.values(), whole]:
            if hasattr(model, "model_rebuild"):  # those that lead back to themselves wait for it
                model.model_rebuild(_types_namespace=named)
        return whole

    def _of(self, node: Json) -> Any:
        if isinstance(node, Mapping) and isinstance(node.get("$ref"), str):
            return self._referred_to(node["$ref"], resolved(node, self._root))
        node = resolved(node, self._root)
        choices = node.get("anyOf", node.get("oneOf"))
        if isinstance(choices, list):
            return typing.Union[tuple(map(self._of, choices))]  # noqa: UP007
        kind = node.get("type")
        if isinstance(kind, list):
            return typing.Union[tuple(self._of({**node, "type": k}) for k in kind)]  # noqa: UP007
        if "enum" in node or "const" in node:
            allowed = node.get("enum", [node.get("const")])
            # Literal has no floats, lists or objects; jsonschema-rs checks such choices.
            scalars = all(isinstance(value, (str, int, bool, type(None))) for value in allowed)
            return Literal[tuple(allowed)] if allowed and scalars else Any
        if kind == "string" and node.get("format") in _TIMES:
            return _TIMES[node["format"]]
        simple = {"string": str, "integer": int, "number": float, "boolean": bool}
        if kind in simple:
            return simple[kind]
        if kind == "null":
            return None
        if kind == "array":
            return list[self._of(node["items"])] if "items" in node else list[Any]  # type: ignore[misc]
        return self._object(node) if kind == "object" else Any

    def _referred_to(self, reference: str, target: dict[str, Json]) -> Any:
        if reference in self._models:
            return self._models[reference]
        is_object = target.get("type") == "object" and "properties" in target
        if reference in self._begun:  # it leads back to itself
            return typing.ForwardRef(self._begun[reference]) if is_object else Any
        self._begun[reference] = f"Answer{len(self._begun)}"
        built = self._of(target)
        if is_object:
            self._models[reference] = built
        else:
            # Only objects are classes that others can refer to by name; the rest is built anew.
            del self._begun[reference]
        return built

    def _object(self, node: Mapping[str, Json]) -> Any:
        if "properties" in node:
            return self._class(node)
        values = node.get("additionalProperties")
        if not isinstance(values, Mapping) or "patternProperties" in node:
            return Any
        return dict[str, self._of(values)]  # type: ignore[misc]

    def _class(self, node: Mapping[str, Json]) -> Any:
        from pydantic import Field as PydanticField  # noqa: PLC0415 - heavy, not needed at import
        from pydantic import create_model  # noqa: PLC0415

        required = node.get("required", ())
        # Aliases, as a property's name may be no Python identifier.
        members: dict[str, Any] = {}
        for i, (name, value) in enumerate(node["properties"].items()):
            kind = self._of(value)
            if name in required:
                members[f"field_{i}"] = (kind, PydanticField(alias=name))
            else:
                default = value.get("default") if isinstance(value, Mapping) else None
                # Not None | kind: a null where the schema has none is no answer, absent or not.
                members[f"field_{i}"] = (kind, PydanticField(default, alias=name))
        # An open object keeps the members that no property names, as a class with extra="allow"
        # does. Not the answer itself: only its named members become columns.
        named_alone = node == self._root or not takes_more(node)
        config = None if named_alone else _OPEN
        if node.get("additionalProperties") is False and "patternProperties" not in node:
            config = _CLOSED  # as a class with extra="forbid" has it
        return create_model("Answer", __config__=config, **members)


_OPEN: Any = {"extra": "allow"}
_CLOSED: Any = {"extra": "forbid"}


def takes_more(node: Mapping[str, Json]) -> bool:
    """Tell whether an object may have members that its schema does not name."""
    return node.get("additionalProperties", False) is not False or "patternProperties" in node


_SCHEMAS_BY_NAME = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
)
_VALUES = frozenset({"enum", "const", "default", "examples"})


def subschemas(node: Json) -> Iterator[Mapping[str, Json]]:
    """Yield a schema and each one in it, without following references.

    Examples
    --------
    >>> list(subschemas({"properties": {"format": {"const": {"format": "date"}}}}))[1:]
    [{'const': {'format': 'date'}}]
    """
    # No recursion: a schema may be nested more deeply than Python's stack.
    waiting: list[Json] = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, Mapping):
            yield item
            for name, value in item.items():
                # A property may be called "format" or "enum": its name is no keyword.
                if name in _SCHEMAS_BY_NAME and isinstance(value, Mapping):
                    waiting += value.values()
                elif name not in _VALUES:
                    waiting.append(value)


def references(node: Json) -> Iterator[str]:
    """Yield every reference in a schema, without following any."""
    return (each["$ref"] for each in subschemas(node) if isinstance(each.get("$ref"), str))


def leads_to_cycle(reference: str, root: Mapping[str, Json]) -> bool:
    """Tell whether following a reference can go on for ever."""
    # Each definition once: those that refer to others twice at each level have millions of paths.
    done: set[str] = set()

    def loops(own: str, above: frozenset[str]) -> bool:
        if own in above:
            return True
        if own in done:
            return False
        below = above | {own}
        found = any(loops(each, below) for each in references(resolved({"$ref": own}, root)))
        done.add(own)
        return found

    return loops(reference, frozenset())


def check_stored_schema(schema: Mapping[str, Json]) -> None:
    """Refuse what cannot have been stored as an answer's schema: somebody may have changed it.

    Raises
    ------
    ValueError
        It is no JSON Schema, or none of an object.
    """
    import jsonschema_rs  # noqa: PLC0415 - needed only without the class

    jsonschema_rs.meta.validate(dict(schema))
    if "properties" not in schema:
        raise ValueError("it has no properties")


def no_retrieval(uri: str) -> Json:
    """Refuse to fetch what a schema refers to: it may be somebody else's, and lead anywhere."""
    raise ValueError(f"it refers to {uri}, which is not in it")


def normalize_label(text: str) -> str:
    """Reduce a label to what counts: neither case nor spacing does."""
    return " ".join(text.casefold().split())


def with_exact_choices(value: Json, wanted: Json, root: Mapping[str, Json]) -> Json:
    """Return an answer with its choices, however deep, spelled as in the schema."""
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


def look_alike(
    value: Json, wanted: Json, root: Mapping[str, Json], path: tuple[str | int, ...] = ()
) -> tuple[tuple[str | int, ...], Json] | None:
    """Find a boolean that is taken for the number of a choice, or a number for its boolean.

    JSON Schema keeps them apart, and 1.0 is 1; Python, and so pydantic, takes all three for one.

    Returns
    -------
    (tuple, value) or None
        Where it stands, and what stands there.

    Examples
    --------
    >>> schema = {"properties": {"stars": {"enum": [1, 2]}}}
    >>> look_alike({"stars": True}, schema, schema), look_alike({"stars": 1.0}, schema, schema)
    ((('stars',), True), None)
    """
    node = resolved(wanted, root)
    alternatives = node.get("anyOf", node.get("oneOf"))
    if isinstance(alternatives, list):
        # An alternative that takes no look-alike takes the value as it is, or pydantic refuses it.
        fitting = [each for each in alternatives if resolved(each, root).get("type") != "null"]
        found = [look_alike(value, each, root, path) for each in fitting]
        return found[0] if found and None not in found else None
    choices = list(_choices(node, root))
    if choices:
        same_type = [c for c in choices if isinstance(c, bool) == isinstance(value, bool)]
        return (path, value) if value in choices and value not in same_type else None
    inner: list[tuple[str | int, Json, Json]] = []
    if isinstance(value, dict):
        members = node.get("properties", {})
        inner = [(k, v, members.get(k, node.get("additionalProperties"))) for k, v in value.items()]
    elif isinstance(value, list):
        first = node.get("prefixItems", [])
        inner = [
            (i, v, first[i] if i < len(first) else node.get("items")) for i, v in enumerate(value)
        ]
    each_found = (look_alike(v, own, root, (*path, k)) for k, v, own in inner if own is not None)
    return next((found for found in each_found if found is not None), None)


def has_look_alikes(node: Json) -> bool:
    """Tell whether a schema has a choice that Python takes for another: 0, 1, true or false.

    Examples
    --------
    >>> has_look_alikes({"enum": [1, 2]}), has_look_alikes({"enum": ["1", "2"]})
    (True, False)
    """
    choices = (choice for each in subschemas(node) for choice in _own_choices(each))
    return any(isinstance(each, int | float) and each in (0, 1) for each in choices)


def _own_choices(node: Mapping[str, Json]) -> Iterator[Json]:
    yield node.get("const")
    if isinstance(node.get("enum"), list):
        yield from node["enum"]


def _choices(node: Mapping[str, Json], root: Mapping[str, Json]) -> Iterator[Json]:
    yield from node.get("enum", [node["const"]] if "const" in node else ())
    for alternative in node.get("anyOf", node.get("oneOf", ())):
        yield from _choices(resolved(alternative, root), root)
