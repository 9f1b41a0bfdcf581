"""The gate before the full reading: what it takes, it takes as the full reading does."""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from blocks import taken_alone
from draws import examples
from hypothesis import HealthCheck, given, settings
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

from frameenrich.answers.gate import Taken, make_gate
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
@examples(20)
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
    fields = {field.name for field in output.fields} | {"the s", "in"}
    answer = {k: v for k, v in FITTING.items() if k in fields and k not in absent} | changes
    for text in (json.dumps(answer), json.dumps(answer, ensure_ascii=False)):
        values = taken_alone(output, text)
        if values is not None:
            assert repr(values) == repr(in_full(output, text))


@examples(50)
@given(st.sampled_from(["x", "y", " X", "z", "\u2028", "1"]) | st.text(max_size=3), st.booleans())
def test_labels_are_taken_as_the_full_way_takes_them(label: str, extra: bool) -> None:
    """Exact labels at once; another case, spacing or member the long way."""
    output = output_from_options(labels=["x", "y", "1"])
    assert make_gate(output) is not None
    for text in (json.dumps({"label": label} | ({"why": "so"} if extra else {})), label):
        values = taken_alone(output, text)
        assert values is None or values == in_full(output, text)


@pytest.mark.parametrize("wanted", [Plain, Bounded, Checked, {"s": str}, Closed])
def test_ordinary_classes_are_read_quickly(wanted: Any) -> None:
    """The quick way is there where it matters: a fitting answer is taken by it."""
    output = output_from_options(response_model=wanted)
    fields = {field.name for field in output.fields}
    answer = {"n": 3} | FITTING | ({"items": [1]} if wanted is Bounded else {})
    text = json.dumps({k: v for k, v in answer.items() if k in fields})
    assert taken_alone(output, text) is not None


class Looked(BaseModel):
    s: str

    @field_validator("s")
    @classmethod
    def look(cls, value: str) -> str:
        return {"Paris": "FR"}[value]


def test_a_validator_that_fails_leaves_the_answer_to_the_full_way() -> None:
    """Which flags the row, whatever was raised."""
    output = output_from_options(response_model=Looked)

    assert taken_alone(output, '{"s": "Paris"}') == ("FR",)
    assert taken_alone(output, '{"s": "Rome"}') is None


@pytest.mark.parametrize("wanted", [Dumped, Computed, Open, Rich, Tree])
def test_classes_that_answer_otherwise_than_they_read_take_the_long_way(wanted: Any) -> None:
    """What a dump changes, and what is nested, is left to pydantic as a whole."""
    assert make_gate(output_from_options(response_model=wanted)) is None


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
    output = output_from_options(response_model=model)

    assert make_gate(output) is not None
    assert (taken_alone(output, text) is not None) == taken


@pytest.mark.parametrize(
    "text",
    [
        '{"color": "red", "score": 1, "score": 2}',
        '{"color" : "red", "color" : "blue", "score": 1}',
        # As many colons behind a quote as keys, one of them in a value.
        '{"color" : "red\\":", "color" : "blue", "score": 1}',
        '{"color" \t: "red\\":", "color"  : "blue", "score": 1}',
    ],
)
def test_a_key_given_twice_is_never_taken_quickly(text: str) -> None:
    """Of two values a decoder keeps the last; the full reading calls such an answer malformed."""
    output = output_from_options(response_model={"color": str, "score": int})

    assert taken_alone(output, text) is None
    assert taken_alone(output, '{"color": "red: a", "score": 1}') == ("red: a", 1)


# --- hostile JSON: whatever stands in a text, and whoever stands beside it ------------------------


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Part(BaseModel):
    name: str = Field(min_length=1)
    width: float | None
    colour: Colour


class Whole(BaseModel):
    """Every type that the gate knows."""

    s: Annotated[str, Field(max_length=3)]
    i: int
    f: float
    b: bool
    c: Literal["x", "y"]
    e: Colour
    size: Size
    n: int | None
    o: str | None = None
    few: int = Field(ge=-1, lt=3)
    share: float = Field(gt=-0.5, le=1)
    items: list[float] = Field(max_length=2)
    names: list[str | None]
    part: Part
    parts: list[Part]
    maybe: Part | None = None


class Small(BaseModel):
    model_config = ConfigDict(extra="forbid")
    s: str
    i: int
    b: bool | None = None


PART = '{"name": "a:", "width": 1, "colour": "red"}'
ORDINARY = {
    "s": '"x"', "i": "1", "f": "1.5", "b": "true", "c": '"x"', "e": '"red"', "size": "2",
    "n": "null", "o": '"o"', "few": "2", "share": "0.5", "items": "[1, 2.5]",
    "names": '["a", null]', "part": PART, "parts": f"[{PART}, {PART}]", "maybe": PART,
    "label": '"x"',
}  # fmt: skip
ODD = [
    "1", "1.0", "-0", "-0.0", "1e2", "1E+2", "1e999", "-1e999", "1e-999",
    "123456789012345678901234567890", "9223372036854775807", "9223372036854775808",
    "-9223372036854775808", "-9223372036854775809", "9007199254740993", "0.1", "NaN", "Infinity",
    "-Infinity", "nan", "01", "+1", ".5", "5.", "0x10", "1_0", "true", "false", "null", "True",
    "None", "3", "-1", "-2", "2.9999999999999999999", '"x"', '"y"', '"z"', '"X"', '" x "', '"1"',
    '"true"', '"red"', '"RED"', '"nan"', '"\\u0078"', '"\\ud83d"', '"\\ude00"',
    '"\\ud83d\\ude00"', '"\\ud83d\\u0041"', '"\\u0000"', '"\\q"', '"\\/"', '"a\nb"', '"a\\nb"',
    '"a\tb"', '"\x7f"', '"\u2028"', '"é"', '"e\u0301"', '"😀😀😀"', '"😀😀😀😀"', '"a:b"', '"\\":"',
    '"\\u003a"', '"}\n{"', '"', "[]", "[1]", "[1.0, NaN]", "[1, 2, 3]", "[null]", '["a", "a"]',
    '["\\ud83d"]', "[[1]]", "[1,]", "{}", '{"name": "a"}',
    '{"name": "", "width": 1, "colour": "red"}',
    '{"name": "a", "name": "b", "width": 1, "colour": "red"}',
    '{"name": "a", "width": 1, "colour": "red", "more": 1}',
    '{"width": null, "colour": "red", "name": "a"}',
    '{"name": "a", "width": "1", "colour": "red"}', "[" * 300 + "]" * 300, "[" * 5000, "",
    "/**/1", "1 1",
]  # fmt: skip
ODD_KEYS = ['"more"', '"\\u0073"', '"S"', '"s "', '"s', "s", "'s'", "1", '"\\ud83d"', '""']
BLANKS = ["", " ", "\n", "\r\n", "\t", "\x0b", "\u00a0", "\ufeff", "\x00"]
FRAMES = [
    "{}", "{}\n", " {}", "\ufeff{}", "{}\x00", "{},", "[{}]", "{}{}", "{}\n{}", "```json\n{}\n```",
    '{{"a": {}}}', "{} {{", "}}\n{{{}", "// {}", "{}#", '"{}"',
]  # fmt: skip


@st.composite
def hostile(draw: st.DrawFn, fields: list[str]) -> str:
    """Return an answer that fits but for a few things that one would not expect."""
    pairs = [(f'"{name}"', ORDINARY[name]) for name in fields]
    blank = ""
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(pairs)))
        own = pairs[min(place, len(pairs) - 1)]
        change = draw(st.sampled_from(["value", "value", "value", "gone", "twice", "key", "blank"]))
        if change == "value":
            pairs[min(place, len(pairs) - 1)] = (own[0], draw(st.sampled_from(ODD)))
        elif change == "gone" and len(pairs) > 1:
            pairs.remove(own)
        elif change == "twice":
            pairs.insert(place, (own[0], draw(st.sampled_from([own[1], *ODD]))))
        elif change == "key":
            pairs.insert(place, (draw(st.sampled_from(ODD_KEYS)), draw(st.sampled_from(ODD))))
        elif change == "blank":
            blank = draw(st.sampled_from(BLANKS))
    text = (
        "{" + f"{blank},".join(f"{blank}{key}{blank}:{blank}{value}" for key, value in pairs) + "}"
    )
    if draw(st.integers(0, 5)) == 0:
        text = draw(st.sampled_from(FRAMES)).format(text, text)
    if draw(st.integers(0, 9)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return text


OUTPUTS = {
    "every type": output_from_options(response_model=Whole),
    "a small class": output_from_options(response_model=Small),
    "its stored schema": Output(output_from_options(response_model=Small).spec),
    "bounds in a schema": output_from_options(response_model=SCHEMAS[1]),
    "a validator": output_from_options(response_model=Checked),
    "labels": output_from_options(labels=["x", "y", "1", "true"]),
}
DEEP = os.environ.get("FRAMEENRICH_HYPOTHESIS") == "explore"  # in `.ci/long`
EXAMPLES = 100_000 // len(OUTPUTS) if DEEP else 200


@pytest.mark.parametrize("asked", OUTPUTS)
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_gate_takes_only_what_pydantic_takes(asked: str, data: st.DataObject) -> None:
    """Promise 10: with the same values to the bit, whatever the answers beside it hold."""
    output = OUTPUTS[asked]
    fields = ["label"] if asked == "labels" else [field.name for field in output.fields]
    check_gate(
        output, fields, data.draw(st.lists(st.none() | hostile(fields), min_size=1, max_size=4))
    )


def check_gate(output: Output, fields: list[str], texts: Sequence[str | None]) -> None:
    """Check that what passes the gate is what it is when it is read alone."""
    gate = make_gate(output)
    taken = gate(texts) if gate is not None else Taken([[None] * len(texts)], [*range(len(texts))])

    assert all(len(column) == len(texts) for column in taken.columns)
    for place, text in enumerate(texts):
        values = tuple(column[place] for column in taken.columns)
        if place in taken.refused:
            assert not any(value is not None for value in values)
            continue
        assert text is not None
        assert repr(values) == repr(in_full(output, text))
        if output.model is not None:
            dumped = output.model.model_validate_json(text).model_dump(mode="json")
            assert repr(values) == repr(tuple(dumped[name] for name in fields))


class EachBound(BaseModel):
    """Numbers with each bound, and with two."""

    above: int = Field(gt=1)
    least: int = Field(ge=1)
    below: int = Field(lt=1)
    most: int = Field(le=1)
    between: int = Field(gt=-1, lt=2)
    within: int = Field(ge=0, le=1)
    more: float = Field(gt=1)
    less: float = Field(lt=1)
    share: float = Field(ge=0, le=1)


@pytest.mark.parametrize("asked", [*OUTPUTS, "bounds"])
def test_each_odd_value_in_each_field(asked: str) -> None:
    """Promise 10, also at the very bound of a number or of a length."""
    output = OUTPUTS.get(asked) or output_from_options(response_model=EachBound)
    fields = ["label"] if asked == "labels" else [field.name for field in output.fields]
    plain = {name: ORDINARY.get(name, "1") for name in fields}
    if asked == "bounds":
        plain = {**plain, "above": "2", "below": "0", "more": "2", "less": "0.5", "share": "1.0"}
    values = [*ODD, "-1", "0", "1", "2", "-0.5", "0.5", "1.5", "0.9999999999999999", "-1e-300"]
    for changed in fields:
        answers = ({**plain, changed: value} for value in values)
        check_gate(output, fields, [*map(_written, answers)])


def _written(members: dict[str, str]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in members.items()) + "}"


@pytest.mark.parametrize("asked", OUTPUTS)
def test_ordinary_answers_pass_the_gate(asked: str) -> None:
    """Also beside others that do not, in a chunk as long as those of files."""
    output = OUTPUTS[asked]
    if make_gate(output) is None:
        assert asked == "bounds in a schema"  # jsonschema-rs checks these
        return
    fields = ["label"] if asked == "labels" else [field.name for field in output.fields]
    text = "{" + ", ".join(f'"{name}": {ORDINARY[name]}' for name in fields) + "}"
    for odd in ({}, {7: None, 200: "{}", 201: text[:-9], 399: text + text}):
        texts = [odd.get(place, text) for place in range(400)]
        gate = make_gate(output)
        assert gate is not None
        assert gate(texts).refused == list(odd)


@pytest.mark.parametrize("value", ["note: red", "à savoir : rouge", "12:30"])
def test_colons_in_values_cost_no_answer_its_quick_way(value: str) -> None:
    """Nor does a key given twice, or one with a blank before its colon, hide beside them."""
    gate = make_gate(output_from_options(response_model={"color": str, "score": int}))
    good, spaced = (f'{{"color"{blank}: "{value}", "score": 1}}' for blank in ("", " "))
    twice = [text[:-1] + ', "score": 2}' for text in (good, spaced)]

    assert gate is not None
    assert gate([good] * 50 + twice + [good] * 50).refused == [50, 51]
