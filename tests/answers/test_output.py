"""What an answer has to be: wishes, columns, and answers as models really write them."""

from __future__ import annotations

import datetime as dt
import enum
import json
import time
from collections import OrderedDict
from decimal import Decimal
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pytest
from annotated_types import Ge, Le
from draws import examples
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    PlainSerializer,
    RootModel,
    SecretBytes,
    SecretStr,
    create_model,
    model_serializer,
)
from pydantic import Field as PydanticField
from pydantic_core import PydanticUndefined

from frameenrich.answers.fields import Field
from frameenrich.answers.json_text import find_json
from frameenrich.answers.output import MalformedError, Output, json_path
from frameenrich.errors import OutputError
from frameenrich.model import JobSpec, Message, OutputSpec
from frameenrich.prepare.output_options import labels_spec, output_from_options

FEW = examples(40)


class Colour(enum.Enum):
    """A field that is one of a few texts."""

    RED = "red"
    DARK_BLUE = "dark blue"


class Size(enum.IntEnum):
    """A field that is one of a few numbers."""

    SMALL = 1
    LARGE = 2


class Dimension(BaseModel):
    """A part of a product."""

    name: str
    width: float = PydanticField(gt=0)


class Product(BaseModel):
    """Every kind of field that an answer has in practice."""

    title: str = PydanticField(min_length=2)
    department: Literal["Kitchen", "Garden"]
    colour: Colour | None = None
    size: Size = Size.SMALL
    price: Annotated[float, Ge(0), Le(1000)]
    count: int = 1
    fragile: bool = False
    tags: list[str] = []
    specs: list[Dimension] = PydanticField(default=[], max_length=2)
    released: dt.date | None = None
    maker: Dimension | None = None
    barcode: str | None = PydanticField(default=None, pattern="^[0-9]{4}$")


class Node(BaseModel):
    """A schema that leads back to itself."""

    name: str
    children: list[Node] = []


LABELS = output_from_options(labels=["Kitchen", "Garden & Patio", "Öl", "2"])
SIMPLE = {"title": str, "count": int, "colour": Literal["red", "dark blue"]}


def reopened(output: Output) -> Output:
    """Return an output as another session reads it from the sidecar."""
    spec = JobSpec("n", "m", (Message("user", "x"),), output=output.spec)
    return Output(JobSpec.from_json(spec.to_json()).output)


def read(output: Output, text: str) -> tuple[Any, ...] | str:
    """Return an answer's values, or why it is malformed."""
    try:
        return output.read(text)[0]
    except MalformedError as error:
        return f"malformed: {error}"


def object_schema(**properties: Any) -> dict[str, Any]:
    """Return the JSON Schema of an object that needs all of its properties."""
    return {"type": "object", "properties": properties, "required": list(properties)}


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Kitchen", "Kitchen"),
        ("kitchen", "Kitchen"),
        ("  KITCHEN.\n", "Kitchen"),
        ('"Kitchen"', "Kitchen"),
        ("'Kitchen'", "Kitchen"),
        ("garden  &\tPATIO", "Garden & Patio"),
        ("ÖL", "Öl"),
        ("2", "2"),
        ('{"label": "Kitchen"}', "Kitchen"),
        ('{"label": "kitchen "}', "Kitchen"),
        ('{"label": 2}', "2"),
        ('{"label": "Kitchen", "why": "pots"}', "Kitchen"),
        ('```json\n{"label": "Kitchen"}\n```', "Kitchen"),
        ('Sure! Here is the label: {"label": "Kitchen"} Hope it helps.', "Kitchen"),
        ("{'label': 'Kitchen',}", "Kitchen"),
        ('<think>pots?</think>{"label": "Kitchen"}', "Kitchen"),
    ],
)
def test_a_label_is_found_however_it_is_written(text: str, label: str) -> None:
    """Case, blanks, quotes, fences and chatter do not cost a label."""
    assert (label,) == read(LABELS, text) == read(reopened(LABELS), text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Kitchenware", "'Kitchenware'"),
        ("Kitchen or Garden & Patio", "'Kitchen or Garden & Patio'"),
        ('{"label": "Sports"}', "'Sports'"),
        ('{"label": null}', "'null'"),
        ('{"label": true}', "'true'"),
        ('{"label": ["Kitchen"]}', "'[\"Kitchen\"]'"),
        ("[]", "'[]'"),
        ("3", "'3'"),
        ("x" * 100, "'" + "x" * 57 + "...'"),
    ],
)
def test_a_label_nobody_asked_for_is_malformed(text: str, shown: str) -> None:
    """It is flagged, shown shortened, with the labels that would do, and never guessed at."""
    labels = "'Kitchen', 'Garden & Patio', 'Öl', '2'"

    expected = f"malformed: $.label: {shown} is not one of the 4 labels: {labels}"
    assert expected == read(LABELS, text)


@pytest.mark.parametrize("text", ['{"category": "Kitchen"}', "[" * 900])
def test_a_label_under_another_key_or_none_at_all_is_malformed(text: str) -> None:
    """The reason speaks of what was said, and of no null that nobody said."""
    reason = read(LABELS, text)

    assert isinstance(reason, str)
    assert "'Kitchen', 'Garden & Patio'" in reason
    assert "null" not in reason


def test_labels_are_one_categorical_column_called_after_the_job() -> None:
    """The categories are the labels in their order, whatever was answered."""
    expected = (Field("", "category", ("Kitchen", "Garden & Patio", "Öl", "2")),)

    assert expected == LABELS.fields == reopened(LABELS).fields


def test_labels_may_be_an_enum() -> None:
    """The members' values are the labels."""
    assert labels_spec(["red", "dark blue"]) == labels_spec(Colour)
    assert labels_spec(["1", "2"]) == labels_spec(Size)
    assert labels_spec(["red", "2"]) == labels_spec([Colour.RED, np.int64(2)])
    assert labels_spec(["red", "2"]) == labels_spec({Colour.RED: "as blood", 2: "a pair"})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "holds no label"),
        (["one"], "at least two"),
        ("ab", "labels= is 'ab'. Give a list of texts, or an Enum class"),
        (7, "labels= is 7."),
        ({"a", "b"}, "labels= is a set"),
        (iter("ab"), "Give a list of texts"),
        (["a", "b", "A "], "'A ' stands twice"),
        (["a", " "], "an empty label"),
        (["a", None], "holds a null, or something that is not text"),
        (["a", np.nan], "holds a null, or something that is not text"),
        (["a", pd.NA], "holds a null, or something that is not text"),
        ({}, "holds no label"),
        ({"a": "first"}, "at least two"),
        ({"a": "first", "b": " "}, "The label 'b' of labels= has no definition. Say in words"),
        ({"a": None, "b": "second"}, "The label 'a' of labels= has no definition"),
        ({"a": "first", "b": ["second"]}, "The label 'b' of labels= has no definition"),
        ({"a": "first", "b": "\ud800"}, "definition of the label 'b' cannot be written"),
        ({"a": "first", "A ": "second"}, "'A ' stands twice"),
        ({"a": "first", None: "second"}, "holds a null, or something that is not text"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(labels: Any, message: str) -> None:
    """The error says what is wrong with them before anything is sent."""
    with pytest.raises(OutputError, match=message) as caught:
        output_from_options(labels=labels)

    assert caught.value.fix.endswith(".")


# --- objects --------------------------------------------------------------------------------------

GOOD = {"title": "mug", "department": "Kitchen", "price": 9.5}
DEFAULTS: tuple[Any, ...] = (None, 1, 9.5, 1, False, [], [], None, None, None)


def product(**changes: Any) -> str:
    """Return an answer for `Product`."""
    return json.dumps({**GOOD, **changes})


def values(**changes: Any) -> tuple[Any, ...]:
    """Return the values of a good answer."""
    names = list(Product.model_fields)
    whole = {**dict(zip(names, ["mug", "Kitchen", *DEFAULTS], strict=True)), **changes}
    return tuple(whole[name] for name in names)


ANSWERS: dict[str, tuple[str, tuple[Any, ...] | str]] = {
    "as asked": (product(), values()),
    "whitespace": (f"\n  {product()}\n\n", values()),
    "fence": (f"```json\n{product()}\n```", values()),
    "fence without a word": (f"```\n{product()}\n```", values()),
    "chatter": (f"Sure! Here is your JSON:\n{product()}\nAnything else?", values()),
    "trailing comma": (product()[:-1] + ",}", values()),
    "single quotes": (product().replace('"', "'"), values()),
    "comments": (product()[:-1] + ", // that is all\n}", values()),
    "unquoted names": (product().replace('"title"', "title"), values()),
    "cut off": (product(tags=["a", "b"])[:-2], "malformed: $: Not JSON: it stops after"),
    "python words": (product()[:-1] + ', "fragile": True}', values(fragile=True)),
    "numbers as text": (product(price="9.5", count="3"), values(count=3)),
    "whole float": (product(count=3.0), values(count=3)),
    "number for a float": (product(price=9), values(price=9.0)),
    "bool as text": (product(fragile="yes"), values(fragile=True)),
    "label case": (product(department="  kitchen"), values()),
    "enum case": (product(colour="Dark  Blue"), values(colour="dark blue")),
    "enum": (product(colour="red", size=2), values(colour="red", size=2)),
    "null where allowed": (product(colour=None, released=None, maker=None), values()),
    "list": (product(tags=["a", "b"]), values(tags=["a", "b"])),
    "nested": (
        product(specs=[{"name": "rim", "width": 2}], maker={"name": "b", "width": 1}),
        values(specs=[{"name": "rim", "width": 2.0}], maker={"name": "b", "width": 1.0}),
    ),
    "date": (product(released="2024-05-01"), values(released="2024-05-01")),
    "unicode": (product(title="Müsli \u2028 日本 😀"), values(title="Müsli \u2028 日本 😀")),
    "other names beside": (product(comment="hi"), values()),
    "name twice": ('{"title": "xx", ' + product()[1:], "malformed: $: two answers that differ"),
    "no JSON": ("I cannot tell.", "malformed: $: Not JSON: 'I cannot tell.'"),
    "empty object": ("{}", "malformed: $"),
    "a list of one": (f"[{product()}]", values()),
    "a list": ("[1]", "malformed: $"),
    "a number": ("7", "malformed: $: the answer is not a JSON object"),
    "null": ("null", "malformed: $"),
    "missing": ('{"title": "mug"}', "malformed: $.department: Field required (and 1 more)"),
    "null where not": (product(title=None), "malformed: $.title: Input should be a valid string"),
    "wrong type": (product(count="many"), "malformed: $.count: Input should be a valid integer"),
    "fraction": (product(count=1.5), "malformed: $.count: Input should be a valid integer"),
    "label unknown": (product(department="Toys"), "malformed: $.department: Input should be"),
    "enum unknown": (product(size=9), "malformed: $.size"),
    "too short": (product(title="m"), "malformed: $.title: "),
    "too small": (product(price=-1), "malformed: $.price: "),
    "too large": (product(price=1e6), "malformed: $.price: "),
    "too many": (product(specs=[{"name": "a", "width": 1}] * 3), "malformed: $.specs: "),
    "pattern": (product(barcode="12"), "malformed: $.barcode: "),
    "deep inside": (
        product(specs=[{"name": "a", "width": 1}, {"name": "b", "width": "wide"}]),
        "malformed: $.specs[1].width: Input should be a valid number",
    ),
    "deep constraint": (
        product(specs=[{"name": "a", "width": 1}, {"name": "b", "width": 0}]),
        "malformed: $.specs[1].width: ",
    ),
    "beyond Int64": (product(count=10**30), "malformed: $.count: the integer does not fit"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_is_read_or_flagged(case: str) -> None:
    """Small faults are mended, real ones are flagged with the place and the reason."""
    text, expected = ANSWERS[case]
    actual = read(output_from_options(response_model=Product), text)

    if isinstance(expected, str):
        assert isinstance(actual, str)
        assert actual.startswith(expected)
    else:
        assert expected == actual


class Counted(BaseModel):
    """A class whose number pydantic reads laxly, as it does by default."""

    n: int


class StrictlyCounted(Counted, strict=True):
    """The same, where somebody said that a number is a number."""


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Counted, (1,)),
        (StrictlyCounted, "malformed: $.n: Input should be a valid integer"),
        ({"n": int}, "malformed: $.n: true is a boolean where a number is wanted"),
        (object_schema(n={"type": "integer"}), "malformed: $.n: true is a boolean"),
    ],
    ids=["class", "strict class", "types", "schema"],
)
def test_a_boolean_for_a_number_is_what_pydantic_makes_of_it_in_a_class(
    wish: Any, expected: Any
) -> None:
    """A class has pydantic's semantics, as `submit` says; other forms take no boolean."""
    actual = read(output_from_options(response_model=wish), '{"n": true}')

    assert actual == expected or str(actual).startswith(str(expected))


@pytest.mark.parametrize("case", ANSWERS)
def test_a_later_session_reads_answers_alike(case: str) -> None:
    """Without the class, from the stored schema: the same values, the same rows flagged."""
    text, _ = ANSWERS[case]
    output = output_from_options(response_model=Product)
    now, later = read(output, text), read(reopened(output), text)

    assert (now == later) or (isinstance(now, str) and isinstance(later, str))
    assert output.fields == reopened(output).fields
    if isinstance(now, str):
        assert now.split(": ")[1].split(".")[0] == str(later).split(": ")[1].split(".")[0]


def test_repaired_answers_say_so() -> None:
    """A person can look at the rows whose JSON was mended; a label's case is no repair."""
    output = output_from_options(response_model=Product)
    answers = [product(), f"```json\n{product()}\n```", product(department="KITCHEN")]

    assert [output.read(text)[1] for text in answers] == [False, True, False]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (
            Product,
            (
                Field("title", "string"),
                Field("department", "category", ("Kitchen", "Garden")),
                Field("colour", "category", ("red", "dark blue")),
                Field("size", "integer"),
                Field("price", "number"),
                Field("count", "integer"),
                Field("fragile", "boolean"),
                Field("tags", "object"),
                Field("specs", "object"),
                Field("released", "date"),
                Field("maker", "object"),
                Field("barcode", "string"),
            ),
        ),
        (
            SIMPLE,
            (
                Field("title", "string"),
                Field("count", "integer"),
                Field("colour", "category", ("red", "dark blue")),
            ),
        ),
        (
            {"a": str | None, "b": list[int], "c": Literal["x"], "d": int | str, "e": Any},
            (
                Field("a", "string"),
                Field("b", "object"),
                Field("c", "category", ("x",)),
                Field("d", "string"),
                Field("e", "json"),
            ),
        ),
        (Node, (Field("name", "string"), Field("children", "json"))),
        (
            object_schema(
                a={"type": ["integer", "null"]},
                b={"enum": ["x", None]},
                c={"anyOf": [{"type": "boolean"}, {"type": "null"}]},
                d={"oneOf": [{"const": "x"}, {"type": "null"}]},
                e={"type": ["integer", "string"]},
                f={},
                g={"allOf": [{"type": "string"}]},
                h={"enum": [1, 2]},
            ),
            (
                Field("a", "integer"),
                Field("b", "category", ("x",)),
                Field("c", "boolean"),
                Field("d", "category", ("x",)),
                Field("e", "string"),
                Field("f", "json"),
                Field("g", "json"),
                Field("h", "integer"),
            ),
        ),
    ],
)
def test_each_property_is_a_column_of_its_type(wish: Any, expected: tuple[Field, ...]) -> None:
    """The columns are known before any answer comes, and the same in a later session."""
    output = output_from_options(response_model=wish)

    assert expected == output.fields == reopened(output).fields


@pytest.mark.parametrize(
    ("wish", "text", "expected"),
    [
        (SIMPLE, '{"title": "a", "count": 2, "colour": "RED"}', ("a", 2, "red")),
        ({"a b": str, "class": int, "_x": bool, "schema": str, "copy": str, "é": str},
         '{"a b": "1", "class": 2, "_x": true, "schema": "s", "copy": "c", "é": "e"}',
         ("1", 2, True, "s", "c", "e")),
        ({"properties": str, "type": int, "items": str, "enum": str, "default": str},
         '{"properties": "p", "type": 1, "items": "i", "enum": "e", "default": "d"}',
         ("p", 1, "i", "e", "d")),
        (Node, '{"name": "a", "children": [{"name": "b", "children": []}]}',
         ("a", '[{"name":"b","children":[]}]')),
        (Node, '{"name": "a", "children": [{"name": "b", "children": [{}]}]}',
         "malformed: $.children[0].children[0]"),
        (object_schema(a={"type": "integer", "minimum": 3}), '{"a": 3}', (3,)),
        (object_schema(a={"type": "integer", "minimum": 3}), '{"a": "2"}', "malformed: $.a: 2 is"),
        (object_schema(a={"type": "integer"}), '{"a": 1, "b": 2}', (1,)),
        (object_schema(a={"type": "string", "format": "date"}), '{"a": "2024-01-01"}',
         ("2024-01-01",)),
        (object_schema(a={}, b={}, c={"type": "array", "items": True}),
         '{"a": [1], "b": {"x": null}, "c": [1, "x"]}', ("[1]", '{"x":null}', '[1,"x"]')),
        (object_schema(a={"enum": [["x"], {"y": 1}]}), '{"a": {"y": 1}}', ('{"y":1}',)),
        (object_schema(a={"enum": [["x"], {"y": 1}]}), '{"a": {"y": 2}}', "malformed: $.a"),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, "{ }", (None,)),
        ({"type": "object", "properties": {"a": {"type": "integer", "default": 4}}}, "{ }", (4,)),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1}', (1,)),
        (object_schema(d={"type": "object", "properties": {"w": {"type": "number"}}}),
         '{"d": {}}', ({"w": None},)),
        ({"$ref": "#/$defs/A", "$defs": {"A": object_schema(n={"$ref": "#/$defs/B"}),
                                         "B": {"type": "integer", "maximum": 9}}},
         '{"n": 9}', (9,)),
        ({"$ref": "#/$defs/A", "$defs": {"A": object_schema(n={"$ref": "#/$defs/B"}),
                                         "B": {"type": "integer", "maximum": 9}}},
         '{"n": 10}', "malformed: $.n"),
        (object_schema(a={"type": "string"}) | {"$schema": "http://json-schema.org/draft-07/schema#"},
         '{"a": "x"}', ("x",)),
    ],
)  # fmt: skip
def test_types_and_schemas_read_like_classes(
    wish: Any, text: str, expected: tuple[Any, ...] | str
) -> None:
    """A dict of types and a JSON Schema give values of the right type, now and later."""
    output = output_from_options(response_model=wish)
    for actual in (read(output, text), read(reopened(output), text)):
        if isinstance(expected, str):
            assert str(actual).startswith(expected)
        else:
            assert expected == actual


class Other(BaseModel):
    """Read under one name, written under another."""

    title: str = PydanticField(validation_alias="product_title")


class Aliased(BaseModel):
    """Called otherwise in JSON than in Python."""

    title: str = PydanticField(alias="product title")


class Callback(BaseModel):
    """No JSON can carry it."""

    model_config = {"arbitrary_types_allowed": True}
    frame: pd.DataFrame


def test_an_alias_is_the_columns_name() -> None:
    """The name that the model answers under is the one that the user sees."""
    output = output_from_options(response_model=Aliased)

    assert (output.fields, read(output, '{"product title": "mug"}')) == (
        (Field("product title", "string"),),
        ("mug",),
    )


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (7, "response_model= is 7. Give a pydantic model class"),
        ({}, "response_model= is {}"),
        (str, "Write response_model={'answer': str}"),
        (BaseModel, "response_model= is"),
        (Product(**GOOD), "Give its class: response_model=Product"),  # type: ignore[arg-type]
        ({"a": 5}, "Write response_model={'a': int}"),
        ({"a": "no such type"}, "Write response_model={'a': str}"),
        ({"a": pd.DataFrame}, "cannot be made a JSON Schema"),
        (Callback, "cannot be made a JSON Schema"),
        (RootModel[list[int]], "not an object with properties"),
        (type("Nothing", (BaseModel,), {}), "not an object with properties"),
        ({"type": "array", "items": {}}, "not an object with properties"),
        ({"type": "object", "properties": {}}, "not an object with properties"),
        ({"$ref": "#/$defs/A"}, "not an object with properties"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, "not an object"),
        (object_schema(a={"type": "strange"}), "not a valid JSON Schema"),
        (object_schema(a={"$ref": "#/$defs/No"}), "not a valid JSON Schema"),
        (object_schema(a={"pattern": "("}), "not a valid JSON Schema"),
        (object_schema(a=True), "a is True and not an object"),
        (Other, "reads 'product_title' under one name and writes it under another"),
    ],
)
def test_a_response_model_that_cannot_be_used_is_refused(wish: Any, message: str) -> None:
    """The error says what is wrong with it before anything is sent."""
    with pytest.raises(OutputError) as caught:
        output_from_options(response_model=wish)

    assert message in str(caught.value)
    assert caught.value.fix.endswith(".")


# --- what users' classes do -----------------------------------------------------------------------


class SpeechlessError(ValueError):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no words")


def failing(error: BaseException) -> Any:
    """Return a class whose validator raises this."""

    def check(_: str) -> str:
        raise error

    return create_model("Failing", x=Annotated[str, AfterValidator(check)])


def written(kind: Any, write: Any, writes: Any = PydanticUndefined) -> Any:
    """Return a class whose serializer writes the field `x` like this, and says it writes that."""
    how = PlainSerializer(write, return_type=writes)
    return create_model("Written", x=Annotated[kind, how])


class AsText(BaseModel):
    """A class that is written as a text."""

    x: str

    @model_serializer
    def write(self) -> str:
        """Return the text."""
        return self.x


class Secretly(BaseModel):
    """The same, and its types do not say so."""

    x: str

    @model_serializer
    def write(self) -> Any:
        """Return the text."""
        return self.x


class Nullable(enum.Enum):
    """A choice of null."""

    A = "a"
    NONE = None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyError("Rome"), "malformed: $: the validator failed: KeyError: 'Rome'"),
        (ZeroDivisionError(), "malformed: $: the validator failed: ZeroDivisionError"),
        (SpeechlessError(), "malformed: $: "),
    ],
)
def test_a_validator_that_fails_loses_only_its_row(error: Exception, expected: str) -> None:
    """Whatever it raises, collect goes on; the row says what it was."""
    output = output_from_options(response_model=failing(error))

    actual = read(output, '{"x": "y"}')

    assert str(actual).startswith(expected)


def test_an_interrupt_in_a_validator_is_one() -> None:
    """Ctrl+C is never a row's fault."""
    with pytest.raises(KeyboardInterrupt):
        output_from_options(response_model=failing(KeyboardInterrupt())).read('{"x": "y"}')


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (written(int, str, str), "reads 'x' as integer and its serializer writes string"),
        (written(bool, str, str), "reads 'x' as boolean and its serializer writes string"),
        (written(str, lambda _: None, None), "its serializer writes null"),
        ({"n": written(int, str, str)}, "reads 'n.x' as integer"),
        ({"n": AsText}, "reads 'n' as object and its serializer writes string"),
        (AsText, "is written as string, not as an object"),
        ({"x": SecretStr}, "holds a secret"),
        ({"x": list[SecretBytes]}, "holds a secret"),
    ],
)
def test_a_class_that_is_written_as_no_column_holds_it_is_refused(wish: Any, message: str) -> None:
    """Before anything is sent: its answers could not be collected, or would be lost."""
    with pytest.raises(OutputError) as caught:
        output_from_options(response_model=wish)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("model", "said", "expected"),
    [
        (
            written(int, lambda v: f"{v}!"),
            5,
            'malformed: $.x: the model made "5!" of it, no integer',
        ),
        (written(float, lambda _: "abc"), 5, 'malformed: $.x: the model made "abc" of it, no numb'),
        (written(float, lambda _: 10**400), 5, "malformed: $.x: the model made 1000"),
        (written(bool, lambda _: "yes"), True, 'malformed: $.x: the model made "yes" of it, no'),
        (written(dt.date, str, str), "2024-01-31", ("2024-01-31",)),
        (
            written(dt.date, lambda _: "31.1.24", str),
            "2024-01-31",
            "malformed: $.x: the model made",
        ),
        (written(Decimal, lambda v: f"{v:.2f}", str), 1.5, (1.5,)),
        (written(Nullable, lambda v: v.name, str), "a", 'malformed: $.x: the model made "A" of it'),
        (written(Nullable, lambda v: v.value), None, (None,)),
        (written(dt.timedelta, lambda v: v.total_seconds(), float), "PT1M", ("60.0",)),
        (written(list[int], lambda v: v[:1]), [1, 2], ([1],)),
        (written(str, lambda _: None), "a", "malformed: $.x: the serializer left it out"),
        (written(str, lambda _: 1 / 0), "a", "malformed: $: the serializer failed: "),
        (Secretly, "a", "malformed: $: the model's serializer makes no object of the answer"),
    ],
)
def test_what_a_serializer_writes_is_a_value_or_a_reason(
    model: Any, said: Any, expected: tuple[Any, ...] | str
) -> None:
    """A serializer's wrong type is the row's status, and no value is lost silently."""
    actual = read(output_from_options(response_model=model), json.dumps({"x": said}))

    assert str(actual).startswith(str(expected))


def test_a_choice_written_twice_is_one_category() -> None:
    """JSON Schema lets it pass, pandas does not."""
    output = output_from_options(response_model=object_schema(x={"enum": ["x", "y", "x"]}))

    assert output.fields == (Field("x", "category", ("x", "y")),)


@pytest.mark.parametrize(
    "wishes",
    [
        {"labels": ["a", "\ud800"]},
        {"response_model": object_schema(x={"enum": ["a", "\ud800"]})},
        {"response_model": object_schema(x={"type": "array", "items": {"const": "\ud800"}})},
        {"response_model": {"x": Literal["a", "\ud800"]}},
    ],
)
def test_choices_that_are_no_unicode_are_refused(wishes: Any) -> None:
    """Before anything is sent: no request file holds them."""
    with pytest.raises(OutputError):
        output_from_options(**wishes)


# --- text and parsers -----------------------------------------------------------------------------


@FEW
@given(st.text())
def test_plain_text_is_kept_as_it_is(text: str) -> None:
    """No trimming, no fences taken off: the answer is the value."""
    assert ((text,), False) == output_from_options().read(text)


def refuse(text: str) -> Any:
    """Refuse what has no number."""
    if not text.isdigit():
        raise ValueError("no number in it")
    return {"n": 10 // int(text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", ({"n": 2},)),
        ("five", "malformed: no number in it"),
        (
            "0",
            "malformed: the parser failed: ZeroDivisionError: integer division or modulo by zero",
        ),
    ],
)
def test_a_parser_gives_a_value_or_a_reason(text: str, expected: tuple[Any, ...] | str) -> None:
    """A ValueError flags the row with its message; any other failure loses only that row."""
    assert expected == read(output_from_options(parser=refuse), text)


def refuse_silently(_: str) -> Any:
    """Refuse without a word."""
    raise ValueError


def test_a_parser_without_words_is_explained() -> None:
    """An empty ValueError still says what happened."""
    output = output_from_options(parser=refuse_silently)

    assert read(output, "x") == "malformed: the parser refused the answer"


@pytest.mark.parametrize(
    ("base", "expected"),
    [(ValueError, "malformed: Mute"), (Exception, "malformed: the parser failed: Mute")],
)
def test_a_parsers_error_that_cannot_be_said_is_named(base: Any, expected: str) -> None:
    """Its type is all there is to tell."""
    mute = type("Mute", (base,), {"__str__": SpeechlessError.__str__})

    def fail(_: str) -> Any:
        raise mute

    assert read(output_from_options(parser=fail), "x") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"cut \\ud83d"', "cut \ufffd"),
        ('{"\\ud83d": ["a", {"b": "\\ud83d"}]}', {"\ufffd": ["a", {"b": "\ufffd"}]}),
    ],
)
def test_half_a_character_from_a_parser_is_replaced(text: str, expected: Any) -> None:
    """However deep, and in keys: neither pandas nor a file can hold it."""
    assert read(output_from_options(parser=json.loads), text) == (expected,)


def test_a_parsers_value_is_kept_and_not_copied() -> None:
    """Whatever class it is of, where there is nothing to replace."""
    made = {"a": [1, ("b", OrderedDict(c="é"))]}

    assert output_from_options(parser=lambda _: made).read("x")[0][0] is made


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"labels": ["a", "b"], "parser": str}, "Both labels= and parser= were given"),
        ({"labels": ["a", "b"], "response_model": SIMPLE}, "Both labels= and response_model="),
        ({"parser": "json"}, "The parser is not callable"),
    ],
)
def test_an_answer_has_one_form(wishes: dict[str, Any], message: str) -> None:
    """Two wishes at once are refused."""
    with pytest.raises(OutputError, match=message):
        output_from_options(**wishes)


def test_the_field_of_text_and_parsers_is_called_after_the_job() -> None:
    """Single-valued outputs have no name of their own."""
    assert output_from_options().fields == (Field("", "string"),)
    assert output_from_options(parser=str).fields == (Field("", "any"),)
    assert output_from_options().spec == OutputSpec("text")


# --- anything at all ------------------------------------------------------------------------------

PIECES = [
    *'{}[],:"\\\'a \n\x00',
    '{"label":', '"Kitchen"', "NaN", "1e999", "\\ud83d", "null", "```json\n",
    "//", "9" * 30,
]  # fmt: skip
NEARLY_JSON = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)

READERS = {
    "labels": LABELS,
    "class": output_from_options(response_model=Product),
    "later": reopened(output_from_options(response_model=Product)),
    "recursive": reopened(output_from_options(response_model=Node)),
    "loose": output_from_options(response_model=object_schema(label={}, b={"type": "number"})),
}


@pytest.mark.parametrize("reader", READERS)
@FEW
@given(st.text() | NEARLY_JSON)
def test_no_answer_can_raise(reader: str, text: str) -> None:
    """Whatever a model writes is values or a reason, never an exception."""
    actual = read(READERS[reader], text)

    assert isinstance(actual, (tuple, str))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"label":' + "[" * 900 + "]" * 900 + "}",
        '{"name": "a", "children": ' + "[" * 150 + "]" * 150 + "}",
        '{"title": "' + "x" * 100_000,
        '{"count": ' + "9" * 5000 + "}",
        "{ " + "a, " * 5000,
    ],
)
def test_a_model_in_a_loop_cannot_raise(reader: str, text: str) -> None:
    """Endless nesting, text or digits are flagged, soon."""
    start = time.process_time()  # other programs' time does not count
    actual = read(READERS[reader], text)

    assert isinstance(actual, (tuple, str))
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("parts", "expected"),
    [([], "$"), (["a", 0, "b"], "$.a[0].b"), ([2], "$[2]")],
)
def test_places_are_written_as_people_do(parts: list[str | int], expected: str) -> None:
    """Errors say where in the answer."""
    assert expected == json_path(parts)


def test_a_parser_that_would_end_the_program_ends_its_row() -> None:
    """``sys.exit`` in a parser is one row's failure, and says so."""

    def parser(text: str) -> str:
        raise SystemExit(5)

    with pytest.raises(MalformedError, match="the parser failed: SystemExit: 5"):
        output_from_options(parser=parser).read("x")


def test_an_optional_property_of_type_null_is_read() -> None:
    """What `submit` accepts, `collect` reads: such a property stopped it after paying."""
    schema = {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "string"}}}

    output = output_from_options(response_model=schema)

    assert output.read('{"a": null, "b": "x"}') == ((None, "x"), False)
    assert output.read('{"b": "x"}') == ((None, "x"), False)


@pytest.mark.parametrize("number", [-(2**63), -1000, 0, 1000, 2**63 - 1])
def test_every_integer_of_64_bits_is_a_cell(number: int) -> None:
    """Only what Int64 cannot hold is refused."""
    output = output_from_options(response_model={"n": int})

    assert output.read(json.dumps({"n": number})) == ((number,), False)
    for beyond in (2**63, -(2**63) - 1):
        with pytest.raises(MalformedError, match="64 bits"):
            output.read(json.dumps({"n": beyond}))


def test_a_mended_object_keeps_its_escapes() -> None:
    """Escapes are read before the words of a mended text are compared with it."""
    found = find_json("{'a': 'caf\\u00e9 \\n x', 'b': ''}")

    assert (found.value, found.mended) == ({"a": "caf\u00e9 \n x", "b": ""}, True)
