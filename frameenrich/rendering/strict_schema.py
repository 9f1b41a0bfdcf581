"""Rewrite a JSON Schema as strict structured output takes it, or say why it cannot be strict.

A schema that is sent as strict and is not costs every row: the batch runs for hours and each of
its lines comes back refused. So keywords that strict output refuses and that hardly change the
question (a format, a bound) are left out and checked here when the answer comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from frameenrich.model import SCHEMA_FORM, Json
from frameenrich.rendering.large_choices import (
    LONG_ENUM,
    MOST_CHARACTERS,
    MOST_CHOICES,
    MOST_IN_LONG_ENUM,
)


def strict_schema(
    schema: Mapping[str, Json], form: int = SCHEMA_FORM
) -> tuple[dict[str, Json], bool]:
    """Rewrite a JSON Schema for strict structured output.

    Every property is required and none may be added. A schema that cannot be strict is returned
    unchanged; `why_not_strict` says why. `form` selects how an earlier version wrote schemas
    (`frameenrich.model.SCHEMA_FORM`).

    Returns
    -------
    (dict, bool)
        The schema to send, and whether it is strict.

    Examples
    --------
    >>> strict_schema({"type": "object", "properties": {"n": {"type": "integer", "default": 1}}})
    ({'type': 'object', 'properties': {'n': {'type': 'integer'}}, \
'required': ['n'], 'additionalProperties': False}, True)
    """
    if _free_form(schema) or (form > 1 and _over_size(schema) is not None):
        return dict(schema), False
    rewritten: dict[str, Json] = _strict(schema, form)
    return rewritten, True


def why_not_strict(schema: Mapping[str, Json]) -> str | None:
    """Return the part of a schema that strict output refuses; None where it takes all.

    Examples
    --------
    >>> why_not_strict({"type": "object", "properties": {"tags": {"type": "object"}}})
    'a free-form object, a tuple, allOf or the like'
    """
    return _FREE if _free_form(schema) else _over_size(schema)


_FREE = "a free-form object, a tuple, allOf or the like"


# --- what is left open ----------------------------------------------------------------------------

# Keywords that strict structured output refuses, and without which a schema means something else.
_NOT_STRICT = frozenset(
    {
        "allOf", "not", "if", "then", "else", "contains", "dependentRequired", "dependentSchemas",
        "patternProperties", "prefixItems", "propertyNames",
    }
)  # fmt: skip


_TYPED = frozenset({"type", "anyOf", "oneOf", "enum", "const", "$ref"})


def _free_form(node: Json) -> bool:
    """Tell whether some node of a schema leaves more open than strict output allows."""
    if not isinstance(node, Mapping) or not _TYPED & set(node) or _NOT_STRICT & set(node):
        return True
    kinds = node["type"] if isinstance(node.get("type"), list) else [node.get("type")]
    if "object" in kinds and not isinstance(node.get("properties"), Mapping):
        return True
    if node.get("additionalProperties") not in (None, False):
        return True
    if "array" in kinds and "items" not in node:
        return True
    return any(_free_form(child) for child in _subschemas(node))


def _subschemas(node: Mapping[str, Json]) -> Iterator[Json]:
    for name in ("properties", "$defs", "definitions"):
        yield from node.get(name, {}).values()
    for name in ("anyOf", "oneOf"):
        yield from node.get(name, ())
    if "items" in node:
        yield node["items"]


# --- what is too large ----------------------------------------------------------------------------

# OpenAI's limits, beside those of choices in `large_choices` (guide to structured outputs,
# "supported schemas"); a schema over one is refused with every request that carries it.
_MOST_PROPERTIES = 5_000
_MOST_LEVELS = 10


def _over_size(schema: Mapping[str, Json]) -> str | None:
    """Return the limit of the API that a schema exceeds; None where it exceeds none."""
    names: list[str] = []
    choices: list[Json] = []
    waiting: list[Json] = [schema]
    while waiting:
        node = waiting.pop()
        waiting += _subschemas(node)
        for group in ("properties", "$defs", "definitions"):
            names += node.get(group, ())
        own = node.get("enum", [node["const"]] if "const" in node else [])
        choices += own
        texts = [each for each in own if isinstance(each, str)]
        if len(own) > LONG_ENUM and sum(map(len, texts)) > MOST_IN_LONG_ENUM:
            return f"a choice of {len(own):,} values with over {MOST_IN_LONG_ENUM:,} characters"
    # Names of definitions count as characters but are no properties.
    properties = len(names) - len(schema.get("$defs", ())) - len(schema.get("definitions", ()))
    if properties > _MOST_PROPERTIES:
        return f"{properties:,} properties, over {_MOST_PROPERTIES:,}"
    if len(choices) > MOST_CHOICES:
        return f"{len(choices):,} values to choose from, over {MOST_CHOICES:,}"
    characters = sum(map(len, names)) + sum(len(c) for c in choices if isinstance(c, str))
    if characters > MOST_CHARACTERS:
        return f"{characters:,} characters of names and choices, over {MOST_CHARACTERS:,}"
    levels = _levels(schema, schema, {}, ())
    return None if levels <= _MOST_LEVELS else f"objects nested {levels} deep, over {_MOST_LEVELS}"


def _levels(
    node: Mapping[str, Json],
    root: Mapping[str, Json],
    known: dict[str, int],
    above: tuple[str, ...],
) -> int:
    """Count how deep objects are nested; a recursive reference counts once."""
    # `known` keeps each definition's depth: without it shared references double the work a level.
    reference = node.get("$ref")
    if isinstance(reference, str):
        if reference in above:
            return 0
        if reference not in known:
            known[reference] = _levels(_target(reference, root), root, known, (*above, reference))
        return known[reference]
    inner = [*node.get("properties", {}).values(), *node.get("anyOf", ()), *node.get("oneOf", ())]
    inner += [node["items"]] if "items" in node else []
    deepest = max((_levels(each, root, known, above) for each in inner), default=0)
    return deepest + ("properties" in node)


def _target(reference: str, root: Mapping[str, Json]) -> Mapping[str, Json]:
    node: Json = root
    for key in filter(None, reference.removeprefix("#").split("/")):
        # JSON Pointer (RFC 6901): "~1" first, or "~01" would become a slash.
        name = unquote(key).replace("~1", "/").replace("~0", "~")
        node = node.get(name, {}) if isinstance(node, Mapping) else {}
    return node if isinstance(node, Mapping) else {}


# --- what is rewritten ----------------------------------------------------------------------------

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
"""The formats that strict output takes; we validate answers against the others."""


_KEYWORDS = frozenset(
    {
        "type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const",
        "$ref", "$defs", "definitions", "title", "description", "pattern", "format", "multipleOf",
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
        "minLength", "maxLength",
    }
)  # fmt: skip
"""The keywords that strict output takes; any other is "not permitted", in each row of a batch."""


_ALWAYS_DROPPED = frozenset({"default", "discriminator", "oneOf"})


# Keywords that strict output refuses, but that hardly change what a schema asks for.
_DROPPED = _ALWAYS_DROPPED | frozenset(
    {
        "uniqueItems", "minContains", "maxContains", "minProperties", "maxProperties",
        "unevaluatedProperties", "unevaluatedItems", "contentEncoding", "contentMediaType",
        "contentSchema",
    }
)  # fmt: skip


_LOOKAROUND = re.compile(r"\(\?<?[=!]|\\[1-9]|\(\?P=")
"""Patterns that constrained decoding cannot follow: look-arounds and back-references."""


_DESCRIBED = 3
"""The first form that keeps the description beside a reference, and no keyword that is unknown."""


def _strict(node: Json, form: int) -> Json:
    """Require every property; write pydantic's tagged ``oneOf`` as the ``anyOf`` it is."""
    if "$ref" in node:
        return _reference(node, form)
    rewritten = {k: v for k, v in node.items() if k not in _ALWAYS_DROPPED}
    # Jobs keep the form they were submitted with, or their later rounds would ask otherwise.
    if form > 1:
        rewritten = _acceptable(rewritten)
    if form >= _DESCRIBED:
        rewritten = _known_keywords(rewritten)
    for name in ("$defs", "definitions", "properties"):
        if name in node:
            rewritten[name] = {key: _strict(value, form) for key, value in node[name].items()}
    # Strict output refuses "oneOf"; pydantic's tags make its branches exclusive under "anyOf", too.
    choices = node.get("anyOf", node.get("oneOf"))
    if choices is not None:
        rewritten["anyOf"] = [_strict(choice, form) for choice in choices]
    if "items" in node:
        rewritten["items"] = _strict(node["items"], form)
    if "properties" in node:
        rewritten["required"] = list(node["properties"])
        rewritten["additionalProperties"] = False
    return rewritten


def _reference(node: Mapping[str, Json], form: int) -> dict[str, Json]:
    """Return a reference alone: strict output takes no keyword beside it.

    A description goes into a node around it. Inlining the target would let the schema grow.
    """
    alone = {"$ref": node["$ref"]}
    if form < _DESCRIBED or not node.get("description"):
        return alone
    return {"description": node["description"], "anyOf": [alone]}


def _acceptable(node: Mapping[str, Json]) -> dict[str, Json]:
    """Leave out the keywords of a node that strict output refuses; answers are checked for them."""
    kept = {name: value for name, value in node.items() if name not in _DROPPED}
    if "format" in kept and kept["format"] not in _FORMATS:
        del kept["format"]
    if isinstance(kept.get("pattern"), str) and _LOOKAROUND.search(kept["pattern"]):
        del kept["pattern"]
    return kept


def _known_keywords(node: Mapping[str, Json]) -> dict[str, Json]:
    """Keep the keywords that strict output knows; examples go into the description."""
    kept = {name: value for name, value in node.items() if name in _KEYWORDS}
    examples = node.get("examples")
    if isinstance(examples, list) and examples:
        shown = ", ".join(json.dumps(each, ensure_ascii=False) for each in examples)
        kept["description"] = f"{node.get('description') or ''} Examples: {shown}".strip()
    return kept
