"""The quick way of reading an answer: what it takes, it takes as the full way does."""

from __future__ import annotations

import enum
import json
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)

from frameenrich.answers.fast_path import fast_parser
from frameenrich.answers.output import MalformedError, Output
from frameenrich.prepare.output_options import output_from_options


class Plain(BaseModel):
    s: str
    i: int
    f: float
    b: bool
    c: Literal["x", "y"]
    o: str | None
    items: list[str]
    n: int = 3


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    f: float
    i: int


class Trimmed(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    s: str


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    s: str


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    s: str


class Bounded(BaseModel):
    s: Annotated[str, Field(max_length=2)]
    i: int = Field(ge=0, le=10)
    items: list[int] = Field(max_length=1)


class Aliased(BaseModel):
    s: str = Field(alias="the s")
    i: int = Field(alias="in")


class Checked(BaseModel):
    s: str
    i: int

    @field_validator("s")
    @classmethod
    def shout(cls, value: str) -> str:
        return value.upper()

    @model_validator(mode="after")
    def small(self) -> Checked:
        if self.i > 5:
            raise ValueError("too large")
        return self


class Odd(BaseModel):
    """A validator that gives another type than it says."""

    s: str

    @field_validator("s")
    @classmethod
    def odd(cls, value: str) -> Any:
        return len(value)


class Dumped(BaseModel):
    s: str

    @field_serializer("s")
    def twice(self, value: str) -> str:
        return value * 2


class Computed(BaseModel):
    s: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        return len(self.s)


class Late(BaseModel):
    s: str

    def model_post_init(self, _: Any) -> None:
        self.s = self.s[::-1]


class Colour(enum.Enum):
    RED = "red"


class Rich(BaseModel):
    d: date
    m: Decimal
    e: Colour
    inner: Bounded


class Tree(BaseModel):
    s: str
    children: list[Tree] = []


MODELS = [
    Plain, Strict, Trimmed, Closed, Open, Bounded, Aliased, Checked, Odd, Dumped, Computed, Late,
    Rich, Tree, {"s": str, "i": int, "o": str | None}, {"s": Literal["x", "y"], "items": list[int]},
]  # fmt: skip
SCHEMAS = [
    {"type": "object", "properties": {"s": {"type": "string", "maxLength": 2}}, "required": ["s"]},
    {"type": "object", "properties": {"i": {"type": "integer", "minimum": 3}}, "required": []},
    {"type": "object", "properties": {"s": {"type": "string"}, "i": {"type": ["integer", "null"]}}},
]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(0, 12)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["x", "y", " x ", "1", "true", "2024-01-31", "red", "\ud83d"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("s"), inner, max_size=1),
    max_leaves=3,
)
NAMES = ["s", "i", "f", "b", "c", "o", "items", "n", "the s", "in", "d", "m", "e", "more"]
FITTING = {
    "s": "x", "i": 1, "f": 1.5, "b": True, "c": "x", "o": None, "items": ["a"], "the s": "t",
    "in": 2, "d": "2024-01-31", "m": "1.5", "e": "red", "inner": {"s": "a", "i": 1, "items": []},
}  # fmt: skip


def in_full(output: Output, text: str) -> tuple[Any, ...] | None:
    """Return what the full way makes of an answer; None where it is flagged or repaired."""
    try:
        values, repaired = output.read(text)
    except MalformedError:
        return None
    return None if repaired else values


@pytest.mark.parametrize(
    "wanted", [*MODELS, *SCHEMAS], ids=lambda w: getattr(w, "__name__", "dict")
)
@settings(max_examples=120, deadline=None)
@given(
    changes=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    absent=st.sets(st.sampled_from(NAMES), max_size=1),
    stored=st.booleans(),
)
def test_what_is_taken_quickly_is_what_the_full_way_gives(
    wanted: Any, changes: dict[str, Any], absent: set[str], stored: bool
) -> None:
    """Whatever the class does, and whether it is at hand or only the schema that was stored."""
    output = output_from_options(response_model=wanted)
    output = Output(output.spec) if stored else output
    quick = fast_parser(output)
    fields = {field.name for field in output.fields} | {"the s", "in"}
    answer = {k: v for k, v in FITTING.items() if k in fields and k not in absent} | changes
    for text in (json.dumps(answer), json.dumps(answer, ensure_ascii=False)):
        values = quick(text) if quick is not None else None
        if values is not None:
            expected = in_full(output, text)
            assert expected is not None
            assert [(type(v), v) for v in values] == [(type(v), v) for v in expected]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["x", "y", " X", "z", "\u2028", "1"]) | st.text(max_size=3), st.booleans())
def test_labels_are_taken_as_the_full_way_takes_them(label: str, extra: bool) -> None:
    """Exact labels at once; another case, spacing or member the long way."""
    output = output_from_options(labels=["x", "y", "1"])
    quick = fast_parser(output)
    assert quick is not None
    for text in (json.dumps({"label": label} | ({"why": "so"} if extra else {})), label):
        values = quick(text)
        assert values is None or values == in_full(output, text)


@pytest.mark.parametrize("wanted", [Plain, Bounded, Checked, {"s": str}, Closed])
def test_ordinary_classes_are_read_quickly(wanted: Any) -> None:
    """The quick way is there where it matters: a fitting answer is taken by it."""
    output = output_from_options(response_model=wanted)
    quick = fast_parser(output)
    assert quick is not None
    fields = {field.name for field in output.fields}
    answer = {"n": 3} | FITTING | ({"items": [1]} if wanted is Bounded else {})
    assert quick(json.dumps({k: v for k, v in answer.items() if k in fields})) is not None


class Looked(BaseModel):
    s: str

    @field_validator("s")
    @classmethod
    def look(cls, value: str) -> str:
        return {"Paris": "FR"}[value]


def test_a_validator_that_fails_leaves_the_answer_to_the_full_way() -> None:
    """Which flags the row, whatever was raised."""
    quick = fast_parser(output_from_options(response_model=Looked))

    assert quick is not None
    assert quick('{"s": "Paris"}') == ("FR",)
    assert quick('{"s": "Rome"}') is None


@pytest.mark.parametrize("wanted", [Dumped, Computed, Open, Rich, Tree])
def test_classes_that_answer_otherwise_than_they_read_take_the_long_way(wanted: Any) -> None:
    """What a dump changes, and what is nested, is left to pydantic as a whole."""
    assert fast_parser(output_from_options(response_model=wanted)) is None


class Filled(BaseModel):
    """An optional field that the class fills in itself."""

    a: str
    b: str = "none"

    @model_validator(mode="after")
    def fill(self) -> Filled:
        """Set what may be absent, as an answer that had it would have."""
        self.b = self.b or "set"
        return self


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ('{"a": "x", "b": "y"}', True),
        ('{"a":"x","b":"see: y"}', True),
        ('{"a": "b", "a": "x"}', False),
        ('{"a": "b:", "a": "x"}', False),
        ('{"a" : "b", "a" : "x"}', False),
        ('{"a": "\\"b\\":", "a": "x"}', False),
        ('{"a": "x"}', False),
    ],
)
@pytest.mark.parametrize("model", [Filled, {"a": str, "b": str}])
def test_two_values_of_one_key_are_never_taken_quickly(model: Any, text: str, taken: bool) -> None:
    """Not where another may be absent either, nor where its name is somebody's value."""
    read = fast_parser(output_from_options(response_model=model))

    assert read is not None
    assert (read(text) is not None) == taken


@pytest.mark.parametrize(
    "text",
    ['{"color": "red", "score": 1, "score": 2}', '{"color" : "red", "color" : "blue", "score": 1}'],
)
def test_a_key_given_twice_is_never_taken_quickly(text: str) -> None:
    """Of two values a decoder keeps the last; the full reading calls such an answer malformed."""
    read = fast_parser(output_from_options(response_model={"color": str, "score": int}))

    assert read is not None
    assert read(text) is None
    assert read('{"color": "red: a", "score": 1}') == ("red: a", 1)
