"""Find the outputs whose fields are plain, and the msgspec types that take no more than pydantic.

Read from pydantic-core's own schema, which holds all that a class does: what is not known here is
not plain. Text, numbers, booleans, choices, their bounds, lists and models of these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from frameenrich.answers.fields import FieldKind
from frameenrich.answers.output import LABEL, Output
from frameenrich.model import Json

Core = Mapping[str, Any]
"""A node of pydantic-core's schema."""


class Plain(NamedTuple):
    """A type that msgspec decodes, and the kind of the column that its values fit as they are."""

    type: Any
    kind: FieldKind
    has_keys: bool = False
    """Whether a value may hold objects, and so keys of its own."""


class Member(NamedTuple):
    """A property of the answer: its name, its type, and whether it may be absent, which is null."""

    name: str
    plain: Plain
    optional: bool


# What pandas' Int64 holds; the full reading refuses a larger integer, and says why.
_LEAST, _MOST = -(2**63), 2**63 - 1


def plain_members(output: Output) -> list[Member] | None:
    """Return an answer's members where all of them are plain; None otherwise.

    Examples
    --------
    >>> from frameenrich.prepare.output_options import output_from_options
    >>> [member.name for member in plain_members(output_from_options(labels=["x", "y"]))]
    ['label']
    >>> import datetime
    >>> plain_members(output_from_options(response_model={"day": datetime.date})) is None
    True
    """
    if output.spec.kind == "labels":
        choices: Any = output.fields[0].categories
        return [Member(LABEL, Plain(Literal[choices], "category"), optional=False)]
    if output.spec.kind != "schema" or output.parser is not None:
        return None
    # Without a class, `jsonschema-rs` checks the constraints, of which pydantic's schema has none.
    if output.model is None and not _only_types(output.spec.schema or {}):
        return None
    members = _Reading(output.adapter.core_schema).members()
    fields = [(field.name, field.kind) for field in output.fields]
    same = members is not None and [(each.name, each.plain.kind) for each in members] == fields
    return members if same else None


class _Reading:
    """Reads one core schema, whose parts may stand among its definitions."""

    def __init__(self, core: Core) -> None:
        parts = core["definitions"] if core["type"] == "definitions" else ()
        self._parts: Mapping[str, Core] = {part["ref"]: part for part in parts}
        self._top: Core = core["schema"] if core["type"] == "definitions" else core
        self._made: dict[int, Plain | None] = {}

    def members(self) -> list[Member] | None:
        """Return the members of the model that the schema is."""
        return self._members(self._resolved(self._top))

    def _resolved(self, node: Core) -> Core:
        if node["type"] != "definition-ref" or set(node) - {"type", "schema_ref", "metadata"}:
            return node
        return self._parts[node["schema_ref"]]

    def _members(self, core: Core) -> list[Member] | None:
        """Return a model's members; None where it does more than to hold plain ones."""
        fields = core.get("schema", {})
        if core["type"] != "model" or core.get("custom_init") or core.get("root_model"):
            return None
        unknown = set(core) - _MODEL_KEYS or set(fields) - _FIELDS_KEYS
        if unknown or fields.get("computed_fields") or not _is_harmless(core.get("config", {})):
            return None
        found = [self._member(name, field) for name, field in fields["fields"].items()]
        members = [member for member in found if member is not None]
        return members if len(members) == len(found) else None

    def _member(self, attribute: str, field: Core) -> Member | None:
        name = field.get("validation_alias", attribute)
        # Columns have the name of the dump: where that is another one, the full reading maps them.
        if set(field) - _FIELD_KEYS or field.get("serialization_alias", name) != name:
            return None
        if not isinstance(name, str) or not name.isprintable() or set(name) & set('"\\'):
            return None  # msgspec takes only names that JSON writes as they are
        node = self._resolved(field["schema"])
        optional = False
        if node["type"] == "default" and set(node) == {"type", "schema", "default"}:
            # An answer that leaves out what has another default is read in full.
            optional, node = node["default"] is None, node["schema"]
        plain = self._plain(node)
        return None if plain is None else Member(name, plain, optional)

    def _plain(self, node: Core) -> Plain | None:
        """Return the type that takes nothing that a core schema refuses; None if none is known."""
        node = self._resolved(node)
        own = id(node)  # a core schema shares its nodes, by reference or without
        if own in self._made:
            return self._made[own]
        self._made[own] = None  # to what leads back to itself
        read = getattr(self, f"_{node['type']}") if node["type"] in _KNOWN else None
        self._made[own] = read(node) if read else None
        return self._made[own]

    def _str(self, node: Core) -> Plain | None:
        bounds = {key: node[key] for key in ("min_length", "max_length") if key in node}
        known = set(node) <= {"type", *bounds}
        return Plain(_bounded(str, bounds), "string") if known else None

    def _int(self, node: Core) -> Plain | None:
        bounds = _bounds(node, int)
        if bounds is None:
            return None
        least = max(bounds.get("ge", _LEAST), bounds.get("gt", _LEAST - 1) + 1, _LEAST)
        most = min(bounds.get("le", _MOST), bounds.get("lt", _MOST + 1) - 1, _MOST)
        return Plain(_bounded(int, {"ge": least, "le": most}), "integer") if least <= most else None

    def _float(self, node: Core) -> Plain | None:
        bounds = _bounds(node, float)
        if bounds is None or {"ge", "gt"} <= set(bounds) or {"le", "lt"} <= set(bounds):
            return None  # msgspec takes one bound on each side
        return Plain(_bounded(float, bounds), "number")

    def _bool(self, node: Core) -> Plain | None:
        return Plain(bool, "boolean") if set(node) == {"type"} else None

    def _literal(self, node: Core) -> Plain | None:
        return _choices(node["expected"]) if set(node) == {"type", "expected"} else None

    def _enum(self, node: Core) -> Plain | None:
        known = set(node) <= {"type", "cls", "members", "metadata", "ref", "sub_type"}
        return _choices([member.value for member in node["members"]]) if known else None

    def _nullable(self, node: Core) -> Plain | None:
        plain = self._plain(node["schema"]) if set(node) == {"type", "schema"} else None
        return None if plain is None else plain._replace(type=plain.type | None)

    def _list(self, node: Core) -> Plain | None:
        bounds = {key: node[key] for key in ("min_length", "max_length") if key in node}
        item = self._plain(node.get("items_schema", _ANY))
        if item is None or set(node) - {"type", "items_schema", *bounds}:
            return None
        items: Any = list[item.type]  # type: ignore[name-defined]
        return Plain(_bounded(items, bounds), "object", item.has_keys)

    def _model(self, node: Core) -> Plain | None:
        members = self._members(node)
        if members is None:
            return None
        # An absent member would be absent from the dict, too: here all of them have to be there.
        needed = [member._replace(optional=False) for member in members]
        return Plain(make_struct(needed), "object", has_keys=True)


def make_struct(members: list[Member]) -> Any:
    """Make a msgspec struct of an answer's members, which takes no others."""
    # Names of our own, as a property's name may be no Python identifier.
    own = {f"field_{i}": member.name for i, member in enumerate(members)}
    kinds: Any = [
        (name, member.plain.type | msgspec.UnsetType, msgspec.UNSET)
        if member.optional
        else (name, member.plain.type)
        for name, member in zip(own, members, strict=True)
    ]
    return msgspec.defstruct(
        "Answer", kinds, rename=own, gc=False, forbid_unknown_fields=True, kw_only=True
    )


_KNOWN = frozenset({"str", "int", "float", "bool", "literal", "enum", "nullable", "list", "model"})


_MODEL_KEYS = frozenset(
    {"type", "cls", "schema", "config", "custom_init", "root_model", "metadata", "ref"}
)


_FIELDS_KEYS = frozenset({"type", "fields", "model_name", "computed_fields"})


_ANY: Core = {"type": "any"}


_FIELD_KEYS = frozenset({"type", "schema", "metadata", "validation_alias", "serialization_alias"})


def _is_harmless(config: Mapping[str, Any]) -> bool:
    """Tell whether a model's settings change nothing of what it takes or writes."""
    # A struct takes no unknown key, so what the model does with one does not matter.
    more = config.get("extra_fields_behavior", "ignore")
    return set(config) <= {"title", "extra_fields_behavior"} and more in {"ignore", "forbid"}


def _bounds(node: Core, kind: type[float]) -> dict[str, Any] | None:
    """Return a number's bounds; None where it has other conditions, or odd bounds."""
    bounds: dict[str, Any] = {key: node[key] for key in ("ge", "gt", "le", "lt") if key in node}
    if set(node) - {"type", *bounds}:
        return None
    plain = all(value.__class__ in {int, kind} and isfinite(value) for value in bounds.values())
    return {key: kind(value) for key, value in bounds.items()} if plain else None


def _bounded(kind: Any, bounds: Mapping[str, Any]) -> Any:
    return Annotated[kind, msgspec.Meta(**bounds)] if bounds else kind


def _choices(values: list[Any]) -> Plain | None:
    """Return the type of choices that are all texts, or all integers."""
    types = {type(value) for value in values}
    if types == {str}:
        return Plain(Literal[tuple(values)], "category")
    if types == {int} and all(_LEAST <= value <= _MOST for value in values):
        return Plain(Literal[tuple(values)], "integer")
    return None


_KEYWORDS = frozenset(
    {
        "type", "title", "description", "properties", "required", "additionalProperties", "$defs",
        "enum", "const", "items", "default", "examples", "anyOf",
    }
)  # fmt: skip


def _only_types(node: Json) -> bool:
    """Tell whether a schema says nothing that the types made from it do not check already."""
    if not isinstance(node, Mapping):
        return True
    if set(node) - _KEYWORDS or set(node.get("required", ())) - set(node.get("properties", ())):
        return False
    inner = [*node.get("properties", {}).values(), node.get("items"), *node.get("anyOf", ())]
    return _says_one_thing(node) and all(map(_only_types, inner))


def _says_one_thing(node: Mapping[str, Json]) -> bool:
    """Tell whether no keyword of a node narrows what another allows."""
    if "anyOf" in node or ("enum" in node and "const" in node):
        return not {"type", "enum", "const"} & (set(node) - {"anyOf", "const"})
    choices = node.get("enum", [node["const"]] if "const" in node else [])
    kind = {"string": str, "integer": int}.get(str(node.get("type")))
    return "type" not in node or all(type(choice) is kind for choice in choices)
