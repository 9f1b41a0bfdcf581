"""Read ordinary answers quickly; whatever does not fit is left to the full reading.

Each reader here only ever *accepts*: an answer it takes has the values that `Output.read` would
give, and None only means that the full reading decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec

from frameenrich.answers.fields import Field
from frameenrich.answers.output import LABEL, Output
from frameenrich.model import Json

Row = tuple[Any, ...]
"""One value a field."""


QuickReader = Callable[[str], Row | None]


_BAD = (msgspec.DecodeError, UnicodeError, RecursionError)


def fast_parser(output: Output) -> QuickReader | None:
    """Return the fastest reader for an output; None where every answer is judged in full.

    Examples
    --------
    >>> from frameenrich.prepare.output_options import output_from_options
    >>> read = fast_parser(output_from_options(response_model={"color": str, "score": int}))
    >>> read('{"color": "red", "score": 7}'), read('{"color": "red", "score": "7"}')
    (('red', 7), None)
    """
    if output.spec.kind == "text":
        return _text_reader
    if output.spec.kind == "labels":
        return _label_reader(output.fields[0])
    if output.spec.kind != "schema" or not all(_PLAIN.fullmatch(f.name) for f in output.fields):
        return None
    if any(field.kind == "json" for field in output.fields):
        return None  # made text of by the full reading
    model = _plain_model(output)
    # Without a class, `jsonschema-rs` checks the constraints, and no reader here calls it.
    if model is None or not (output.model is not None or _only_types(output.spec.schema or {})):
        return None
    members = _struct_members(model)
    if members is not None and [name for name, *_ in members] == [f.name for f in output.fields]:
        return _struct_reader(members)
    names = _attributes(model, output.fields)
    return None if names is None else _model_reader(output, names)


def _text_reader(text: str) -> Row | None:
    """Take any text in which no thinking can stand."""
    return (text,) if text and not text.isspace() and "<" not in text else None


_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
"""Names that JSON writes as they are; msgspec takes no others."""


_SPACED_KEY = re.compile(r'"\s+:')


def _no_more_keys(text: str, count: int) -> bool:
    """Tell from its colons whether an object has no more than so many keys.

    Decoders keep the last of two values of one key. Who has found each of `count` names in it, and
    knows this, knows that none stands twice.
    """
    if text.count(":") == count:
        return True
    # A text may hold colons. Then those after a quote are counted: the keys' and perhaps more, but
    # never fewer, as long as no key has a blank before its colon.
    return text.count('":') == count and _SPACED_KEY.search(text) is None


def _label_reader(field: Field) -> QuickReader:
    decode = msgspec.json.Decoder(_struct([(LABEL, str)])).decode
    # Exact labels only: another spelling gives None, and is read in full.
    known = {label: (label,) for label in field.categories}

    def read(text: str) -> Row | None:
        try:
            return known.get(decode(text).field_0) if _no_more_keys(text, 1) else None
        except _BAD:
            return None

    return read


def _struct_reader(members: Sequence[tuple[Any, ...]]) -> QuickReader:
    decode, values = msgspec.json.Decoder(_struct(members)).decode, msgspec.structs.astuple
    count = len(members)

    def read(text: str) -> Row | None:
        try:
            return values(decode(text)) if _no_more_keys(text, count) else None
        except _BAD:
            return None

    return read


def _struct(members: Sequence[tuple[Any, ...]]) -> Any:
    """Make a struct of members (name, type[, default]) that takes no others and lacks none.

    An answer that leaves out what has a default is read in full.
    """
    # Names of our own, as a property's name may be no Python identifier.
    own = {f"field_{i}": member[0] for i, member in enumerate(members)}
    kinds: Any = [(name, member[1]) for name, member in zip(own, members, strict=True)]
    return msgspec.defstruct(
        "Answer", kinds, rename=own, gc=False, forbid_unknown_fields=True, kw_only=True
    )


def _model_reader(output: Output, names: Sequence[str]) -> QuickReader:
    """Validate as pydantic does, without its dump where that would change nothing."""
    validate, get = output.adapter.validate_json, attrgetter(*names)
    single, classes = len(names) == 1, [_CLASSES[field.kind] for field in output.fields]
    # A default fills in for a name that is absent, so that each has to be found in the text.
    keys = [f'"{field.name}":' for field in output.fields]
    count = len(keys)

    def read(text: str) -> Row | None:
        if not (_no_more_keys(text, count) and all(map(text.__contains__, keys))):
            return None
        try:
            row: Row = (get(validate(text)),) if single else get(validate(text))
        except Exception:  # noqa: BLE001 - a user's validator may raise anything
            return None
        return row if all(map(_stays_as_it_is, row, classes)) else None

    return read


def _stays_as_it_is(value: Any, wanted: Any) -> bool:
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


# --- which answers are simple enough --------------------------------------------------------------
# Read from pydantic-core's own schema, which holds all that a class does: what is not known here
# is not simple.

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


# What pandas' Int64 holds; the full reading refuses a larger integer, and says why.
_LEAST, _MOST = -(2**63), 2**63 - 1


_TYPES: Mapping[str, Any] = {
    "str": str,
    "int": Annotated[int, msgspec.Meta(ge=_LEAST, le=_MOST)],
    "float": float,
    "bool": bool,
}


_MODEL_KEYS = frozenset(
    {"type", "cls", "schema", "config", "custom_init", "root_model", "metadata", "ref"}
)


_FIELDS_KEYS = frozenset({"type", "fields", "model_name", "computed_fields"})


_FIELD_KEYS = frozenset({"type", "schema", "metadata", "validation_alias", "serialization_alias"})


# Any other setting may change what a model takes or writes.
_HARMLESS_CONFIG = frozenset({"title"})


_WRAPPERS = frozenset({"function-before", "function-after", "function-wrap", "default", "nullable"})


def _plain_model(output: Output) -> Mapping[str, Any] | None:
    """Return the core schema of an output that is a plain model; validators around it are fine."""
    core: Any = output.adapter.core_schema
    while core.get("type") in _WRAPPERS:
        core = core["schema"]
    fields = core.get("schema", {})
    if core.get("type") != "model" or fields.get("type") != "model-fields":
        return None
    odd = core.get("root_model") or fields.get("computed_fields") or "extras_schema" in fields
    extra = core.get("config", {}).get("extra_fields_behavior") == "allow"
    dumps = {key for key in _keys(core) if key.startswith("serialization")}
    plain = not (odd or extra or dumps - {"serialization_alias"})
    return output.adapter.core_schema if plain else None


def _keys(node: Any) -> Iterator[str]:
    """Yield every key of a core schema, however deep."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield str(key)
            if key != "metadata":
                yield from _keys(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _keys(value)


def _struct_members(core: Mapping[str, Any]) -> list[tuple[Any, ...]] | None:
    """Return the members of a struct that takes no more than the model; None if there is none."""
    fields = core.get("schema", {})
    unknown = set(core) - _MODEL_KEYS or set(fields) - _FIELDS_KEYS
    if unknown or core["type"] != "model" or core.get("custom_init"):
        return None
    if set(core.get("config", {})) - _HARMLESS_CONFIG:
        return None
    members = [_member(name, field) for name, field in fields["fields"].items()]
    return members if None not in members else None  # type: ignore[return-value]


def _member(name: str, field: Mapping[str, Any]) -> tuple[Any, ...] | None:
    alias = field.get("validation_alias", name)
    # Columns have the name of the dump: where that is another one, the full reading maps them.
    if set(field) - _FIELD_KEYS or field.get("serialization_alias", name) != alias:
        return None
    node: Mapping[str, Any] = field["schema"]
    default: tuple[Any, ...] = ()
    if node["type"] == "default" and set(node) == {"type", "schema", "default"}:
        node, default = node["schema"], (node["default"],)
    kind = _kind(node)
    if kind is None or not isinstance(alias, str):
        return None
    return None if default and default[0].__class__ not in _EXACT else (alias, kind, *default)


def _kind(node: Mapping[str, Any]) -> Any:
    """Return the type that takes the same as a core schema without conditions; None for others."""
    if node["type"] == "nullable" and set(node) == {"type", "schema"}:
        inner = _kind(node["schema"])
        return None if inner is None else inner | None
    if node["type"] == "list" and set(node) <= {"type", "items_schema"}:
        item: Any = _kind(node.get("items_schema", {"type": "any"}))
        return None if item is None else list[item]
    if node["type"] == "literal" and set(node) == {"type", "expected"}:
        expected = node["expected"]
        return Literal[tuple(expected)] if {type(each) for each in expected} == {str} else None
    return _TYPES.get(node["type"]) if set(node) == {"type"} else None


def _attributes(core: Mapping[str, Any], fields: Sequence[Field]) -> list[str] | None:
    """Return the attributes that hold the values; None where a dump would change some of them."""
    while core["type"] in _WRAPPERS:
        core = core["schema"]
    members = core["schema"]["fields"]
    names = {field.get("serialization_alias", name): name for name, field in members.items()}
    for field in fields:
        if field.name not in names or field.kind not in _CLASSES:
            return None
        if not _is_lossless(members[names[field.name]]["schema"]):
            return None
    return [names[field.name] for field in fields]


def _is_lossless(node: Mapping[str, Any]) -> bool:
    """Tell whether valid values usually are texts, numbers, booleans or lists of these."""
    while node["type"] in _WRAPPERS:
        node = node["schema"]
    if node["type"] == "list":
        return _is_lossless(node.get("items_schema", {"type": "any"}))
    if node["type"] == "literal":
        return {type(each) for each in node["expected"]} <= {str}
    return node["type"] in _TYPES


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
    inner = [*node.get("properties", {}).values(), node.get("items"), *node.get("anyOf", ())]
    return not set(node) - _KEYWORDS and all(map(_only_types, inner))
