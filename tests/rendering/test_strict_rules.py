"""What goes out as strict obeys the API's published rules, checked by a reader of its own."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import ipaddress
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Required

import annotated_types as at
import pytest
from pydantic import AnyUrl, BaseModel, Field, RootModel, create_model
from typing_extensions import TypedDict

from frameenrich.answers.output import Output
from frameenrich.errors import OutputError
from frameenrich.prepare.output_options import output_from_options
from frameenrich.rendering.strict_schema import strict_schema, why_not_strict

# --- the rules, as OpenAI's guide to structured outputs states them -------------------------------

SUPPORTED = {
    "type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const",
    "$ref", "$defs", "definitions", "title", "description", "pattern", "format", "multipleOf",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
    "minLength", "maxLength",
}  # fmt: skip
FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}


def broken_rules(  # noqa: C901 - a list of rules
    root: dict[str, Any],
) -> list[str]:
    """Return the rules that a schema breaks, by none of the code that wrote it."""
    found = [] if root.get("type") == "object" else ["the root is no object"]
    found += ["anyOf at the root"] if "anyOf" in root else []
    properties, choices, characters = 0, 0, 0
    for node, depth in every_node(root, root, 1, ()):
        found += [f"{name} is not supported" for name in set(node) - SUPPORTED]
        if "$ref" in node and len(node) > 1:
            found.append("something beside a $ref")
        if node.get("format", "date") not in FORMATS:
            found.append(f"format {node['format']}")
        kind: Any = node.get("type")
        kinds = kind if isinstance(kind, list) else [kind]
        if "object" in kinds or "properties" in node:
            names = list(node.get("properties", ()))
            if node.get("required") != names or node.get("additionalProperties") is not False:
                found.append("an object that leaves something open")
        if "array" in kinds and not isinstance(node.get("items"), dict):
            found.append("an array of anything")
        if not {"type", "anyOf", "enum", "const", "$ref"} & set(node):
            found.append("a node of anything")
        if depth > 10:
            found.append("more than ten levels")
        properties += len(node.get("properties", ()))
        own = node.get("enum", [node["const"]] if "const" in node else [])
        choices += len(own)
        texts = sum(len(each) for each in own if isinstance(each, str))
        names = [*node.get("properties", ()), *node.get("$defs", ()), *node.get("definitions", ())]
        characters += texts + sum(map(len, names))
        if len(own) > 250 and texts > 15_000:
            found.append("a long enum of too many characters")
    if properties > 5_000 or choices > 1_000 or characters > 120_000:
        found.append("too large")
    return found


def every_node(
    node: Any, root: dict[str, Any], depth: int, above: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each schema once where it stands, and the depth of objects by references, too."""
    yield node, depth
    below = depth + ("properties" in node)
    for child in node.get("properties", {}).values():
        yield from every_node(child, root, below, above)
    for child in [*node.get("anyOf", ()), *([node["items"]] if "items" in node else ())]:
        yield from every_node(child, root, depth, above)
    for group in ("$defs", "definitions"):
        for child in node.get(group, {}).values():
            yield from every_node(child, root, 1, above)


# --- several hundred schemas ----------------------------------------------------------------------


class Tone(enum.Enum):
    """Choices of text."""

    LOW = "low"
    HIGH = "high"


class Size(BaseModel):
    """A part with a bound and words of its own."""

    width: float = Field(gt=0, description="in cm")
    unit: Literal["cm"] = "cm"


class Tree(BaseModel):
    """A part that leads back to itself."""

    name: str
    below: list[Tree] = []


class Cat(BaseModel):
    """One side of a tagged union."""

    kind: Literal["cat"]
    lives: int = Field(le=9)


class Dog(BaseModel):
    """The other side."""

    kind: Literal["dog"]
    size: Size | None = Field(None, description="how large it is")


class Loose(BaseModel, extra="allow"):
    """Takes any member."""

    a: int


class Names(RootModel[list[str]]):
    """A list with a name."""


class Pair(NamedTuple):
    """A tuple with names."""

    a: int
    b: str


class Typed(TypedDict, total=False):
    """A dict with names."""

    a: Required[int]
    b: str


@dataclasses.dataclass
class Plain:
    """A class that is no model."""

    a: int
    b: list[str] = dataclasses.field(default_factory=list)


LEAVES: list[Any] = [
    str, int, float, bool, dt.date, dt.datetime, dt.time, dt.timedelta, uuid.UUID, AnyUrl, Path,
    bytes, Decimal, Any, None, Tone, Size, Tree, Cat, Dog, Loose, Names, Pair, Typed, Plain, dict,
    list, ipaddress.IPv4Address, ipaddress.IPv6Network, Literal["a", "b"], Literal[1, 2],
    Literal["a", 1] | None, Literal[True],
    Annotated[str, Field(pattern="^a+$")], Annotated[str, Field(pattern="^(?:a)$", max_length=3)],
    Annotated[int, Field(multiple_of=3, ge=0)], Annotated[list[int], at.Len(1, 3)],
    Annotated[Cat | Dog, Field(discriminator="kind")], Annotated[str, Field(examples=["x"])],
    Annotated[str, Field(json_schema_extra={"format": "phone", "x-order": 1})],
    Literal[tuple(f"choice {i}" for i in range(300))],
    Literal[tuple(f"{i:070}" for i in range(251))],
]  # fmt: skip
A_LIST: Any = list
A_SET: Any = set
A_TUPLE: Any = tuple
A_DICT: Any = dict
"""As values, since types that are known only here are none to a type checker."""

AROUND: list[Callable[[Any], Any]] = [
    lambda kind: kind if kind is None else kind | None,
    lambda kind: A_LIST[kind],
    lambda kind: A_SET[kind],
    lambda kind: A_TUPLE[kind, ...],
    lambda kind: A_TUPLE[kind, int],
    lambda kind: A_DICT[str, kind],
    lambda kind: int if kind is None else kind | int,
    lambda kind: kind,
    lambda kind: kind,
]


def a_class(chance: random.Random, levels: int = 0) -> type[BaseModel]:
    """Return a class of fields by chance, with parts of such classes."""
    members: dict[str, Any] = {}
    for i in range(chance.randint(1, 4)):
        kind: Any = chance.choice(LEAVES)
        if levels < 3 and chance.random() < 0.3:
            kind = a_class(chance, levels + 1)
        try:
            kind = chance.choice(AROUND)(kind)
        except TypeError:
            continue
        words = chance.choice([None, "what it is"])
        default = chance.choice([..., ..., None])
        members[f"field_{i}"] = (kind, Field(default, description=words))
    members = members or {"only": (str, ...)}
    made: type[BaseModel] = create_model(f"M{chance.randint(0, 10**9)}", **members)
    return made


def test_whatever_goes_out_as_strict_obeys_the_rules() -> None:
    """A schema that is strict by name alone is refused in each row of a batch, after hours."""
    chance, seen = random.Random(12), Counter[str]()
    for _ in range(400):
        model = a_class(chance)
        try:
            spec = output_from_options(response_model=model).spec
        except OutputError:
            seen["refused"] += 1  # before anything is sent
            continue
        schema, strict = strict_schema(spec.schema or {})
        seen["strict" if strict else "loose"] += 1
        if strict:
            assert broken_rules(schema) == [], schema
        else:
            assert why_not_strict(spec.schema or {})
            assert schema == spec.schema

    # Each kind is there, or the generator would have stopped to say anything.
    assert min(seen["strict"], seen["loose"]) > 50, seen


@pytest.mark.parametrize(
    "kind", [t for t in LEAVES if t not in (Any, None, dict, list, Loose, Pair)], ids=str
)
def test_what_can_be_rewritten_is_strict(kind: Any) -> None:
    """A format, a bound, a tag or a long enum costs no strictness that it need not."""
    spec = output_from_options(response_model={"field": kind}).spec
    schema, strict = strict_schema(spec.schema or {})

    assert strict or "251 values" in str(why_not_strict(spec.schema or {}))
    if strict:
        assert broken_rules(schema) == []
    assert Output(spec).fields[0].name == "field"
