"""Strict schemas: what goes out as strict is what the API takes, and the rest is not called so."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from draws import examples
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, Field, FilePath

from frameenrich.errors import FrameEnrichWarning
from frameenrich.prepare.json_modes import warn_unless_strict
from frameenrich.prepare.output_options import labels_spec, output_from_options
from frameenrich.rendering.strict_schema import strict_schema, why_not_strict

FEW = examples(100)

NAMES = st.sampled_from(["title", "type", "default", "properties", "required", "$ref", "a b", "é"])
LEAVES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "minimum": 0, "default": 1},
        {"type": ["number", "null"], "default": None},
        {"enum": ["a", "default"]},
        {"const": "properties"},
        {"$ref": "#/$defs/Part", "description": "a part"},
    ]
)


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Return JSON Schemas of objects."""
    properties = st.dictionaries(NAMES, inner, min_size=1, max_size=3)
    return properties.map(lambda p: {"type": "object", "properties": p, "required": list(p)[:1]})


PART = {"type": "object", "properties": {"n": {"type": "string"}}}
SCHEMAS = objects(
    st.recursive(
        LEAVES,
        lambda inner: (
            objects(inner)
            | inner.map(lambda item: {"type": "array", "items": item, "default": []})
            | st.lists(inner, min_size=1, max_size=2).map(lambda each: {"anyOf": each})
        ),
        max_leaves=6,
    )
).map(
    lambda schema: {
        **schema,
        "$defs": {"Part": {"type": "object", "properties": {"n": {"type": "string"}}}},
    }
)


def loose_objects(node: Any, path: str = "$") -> list[str]:
    """Return where a schema has objects that strict structured output would refuse."""
    if isinstance(node, list):
        return [p for i, item in enumerate(node) for p in loose_objects(item, f"{path}[{i}]")]
    if not isinstance(node, dict):
        return []
    properties = node.get("properties", {})
    strict = node.get("required", []) == list(properties) and "default" not in node
    bad = [] if strict and (not properties or node["additionalProperties"] is False) else [path]
    inner = [*properties.items(), *node.get("$defs", {}).items()]
    inner += [(k, node[k]) for k in ("items", "anyOf") if k in node]
    return bad + [p for name, value in inner for p in loose_objects(value, f"{path}.{name}")]


@FEW
@given(SCHEMAS)
def test_a_strict_schema_is_valid_strict_and_final(schema: dict[str, Any]) -> None:
    """Rewriting gives a valid schema that is strict all the way down, and does so once."""
    rewritten, strict = strict_schema(schema)
    jsonschema_rs.meta.validate(rewritten)

    assert (loose_objects(rewritten), strict) == ([], True)
    assert (rewritten, True) == strict_schema(rewritten)
    assert list(schema["properties"]) == list(rewritten["properties"])


@pytest.mark.parametrize(
    "free",
    [
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
        {"type": ["object", "null"]},
        {"allOf": [{"type": "string"}]},
        {"type": "array"},
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {},
    ],
)
def test_a_free_form_object_cannot_be_strict(free: dict[str, Any]) -> None:
    """Such a schema is sent as it is, and not called strict."""
    schema = {"type": "object", "properties": {"specs": {"type": "array", "items": free}}}

    assert (schema, False) == strict_schema(schema)


def test_a_tagged_union_is_asked_for_as_a_plain_one() -> None:
    """Pydantic writes ``oneOf`` with a discriminator, which strict output does not take."""
    union = {"oneOf": [{"type": "string"}, {"type": "integer"}], "discriminator": {}}
    schema = {"type": "object", "properties": {"either": union}}

    rewritten, strict = strict_schema(schema)

    assert strict
    assert rewritten["properties"] == {
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]}
    }


# --- what the API refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"type": "string", "format": "uri"}, {"type": "string"}),
        ({"type": "string", "format": "binary"}, {"type": "string"}),
        ({"type": "string", "format": "password"}, {"type": "string"}),
        ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}),
        ({"type": "string", "format": "uuid"}, {"type": "string", "format": "uuid"}),
        ({"type": "string", "pattern": "^(?!a)"}, {"type": "string"}),
        (
            {"type": "string", "description": "a colour", "examples": ["red", "sky blue"]},
            {"type": "string", "description": 'a colour Examples: "red", "sky blue"'},
        ),
        ({"type": "integer", "examples": [1]}, {"type": "integer", "description": "Examples: 1"}),
        (
            {"type": "string", "deprecated": True, "readOnly": True, "x-order": 3, "$comment": "c"},
            {"type": "string"},
        ),
        ({"type": "string", "pattern": r"(a)\1"}, {"type": "string"}),
        ({"type": "string", "pattern": "^(?:a|b)$"}, {"type": "string", "pattern": "^(?:a|b)$"}),
        (
            {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 1},
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
        ),
        (
            {"type": "object", "properties": {"a": {"type": "null"}}, "minProperties": 1},
            {
                "type": "object",
                "properties": {"a": {"type": "null"}},
                "required": ["a"],
                "additionalProperties": False,
            },
        ),
    ],
)
def test_what_strict_output_refuses_is_left_out(asked: dict[str, Any], sent: Any) -> None:
    """A batch never comes back refused, row by row, for a format or a bound; its answers do count.

    A property may be called as a keyword is: those stay.
    """
    schema = {"type": "object", "properties": {"format": asked, "uniqueItems": {"type": "string"}}}

    rewritten, strict = strict_schema(schema)

    assert strict
    assert rewritten["properties"] == {"format": sent, "uniqueItems": {"type": "string"}}


def test_the_rules_of_a_class_that_are_not_sent_are_checked_here() -> None:
    """Leaving a format out of what is sent leaves it out of no check."""

    class Page(BaseModel):
        """A page whose address and tags have rules."""

        url: AnyUrl
        tags: set[str] = Field(max_length=2)

    output = output_from_options(response_model=Page)
    rewritten, strict = strict_schema(output.spec.schema or {})

    assert strict
    assert "format" not in str(rewritten)
    assert "uniqueItems" not in str(rewritten)
    with pytest.raises(ValueError, match=r"\$\.url"):
        output.read('{"url": "no address", "tags": []}')


def test_a_path_of_a_class_is_asked_for_as_text() -> None:
    """``format: file-path`` is none of the API's formats."""
    output = output_from_options(response_model={"path": FilePath})

    assert strict_schema(output.spec.schema or {})[0]["properties"]["path"]["type"] == "string"
    assert "format" not in strict_schema(output.spec.schema or {})[0]["properties"]["path"]


def nested(levels: int) -> dict[str, Any]:
    """Return a schema of this many objects in each other."""
    node: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        node = {"type": "object", "properties": {"a": node}}
    return node


def referring(levels: int) -> dict[str, Any]:
    """Return a schema whose objects refer twice to the next, by reference."""
    reference = {"$ref": "#/$defs/L1"}
    both = {"type": "object", "properties": {"a": reference, "b": reference}}
    defs = {
        f"L{i}": {
            "type": "object",
            "properties": {k: {"$ref": f"#/$defs/L{i + 1}"} for k in "ab"},
        }
        for i in range(1, levels - 1)
    }
    last = {"type": "object", "properties": {"a": {"type": "string"}}}
    return {**both, "$defs": {**defs, f"L{levels - 1}": last}}


WITHIN = [
    {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5000)}},
    nested(10),
    referring(10),
    {"type": "object", "properties": {"a": {"enum": [f"{i}" for i in range(1000)]}}},
    {"type": "object", "properties": {"a": {"enum": [f"{i:060}" for i in range(250)]}}},
    {"type": "object", "properties": {"a": {"enum": [f"{i:059}" for i in range(251)]}}},
    {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/T"}},
        "$defs": {
            "T": {
                "type": "object",
                "properties": {"below": {"type": "array", "items": {"$ref": "#/$defs/T"}}},
            }
        },
    },
]
OVER = [
    ({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(5001)}}, "5,001"),
    (nested(11), "nested 11 deep"),
    (referring(60), "nested 60 deep"),
    ({"type": "object", "properties": {"a": {"enum": [f"{i}" for i in range(1001)]}}}, "1,001"),
    (
        {"type": "object", "properties": {"a": {"enum": [f"{i:060}" for i in range(251)]}}},
        "251 values with over 15,000 characters",
    ),
    (
        {"type": "object", "properties": {f"{i:03}" * 10: {"type": "null"} for i in range(4001)}},
        "characters of names",
    ),
]


@pytest.mark.parametrize("schema", WITHIN)
def test_the_largest_schemas_the_api_takes_are_strict(schema: dict[str, Any]) -> None:
    """Properties, levels, choices and characters up to the API's limits go out as strict."""
    assert why_not_strict(schema) is None
    assert strict_schema(schema)[1]


@pytest.mark.parametrize(("schema", "why"), OVER)
def test_a_schema_over_a_limit_is_not_called_strict(schema: dict[str, Any], why: str) -> None:
    """A schema over a limit of the API would be refused in each row after hours: it goes out loose.

    References are followed once each, so deep models that refer twice a level take no time.
    """
    assert why in str(why_not_strict(schema))
    assert strict_schema(schema) == (schema, False)


def test_too_many_labels_are_told() -> None:
    """Labels over the API's limits are asked for without being enforced, and the user hears it."""
    spec = labels_spec([f"label {i}" for i in range(1001)])

    with pytest.warns(FrameEnrichWarning, match="labels= .*1,001 values to choose from"):
        warn_unless_strict(spec)
