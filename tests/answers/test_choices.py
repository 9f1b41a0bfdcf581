"""Choices that are numbers or booleans: JSON Schema keeps true and 1 apart, and 1.0 is 1."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal

import pytest
from blocks import read_texts
from pydantic import BaseModel, BeforeValidator, Field, create_model

from frameenrich.answers.output import Output
from frameenrich.prepare.output_options import output_from_options


class Stars(IntEnum):
    """Choices that are integers by their class, too."""

    ONE = 1
    TWO = 2


class Sold(Enum):
    """A choice of one boolean."""

    YES = True


def as_class(kind: Any) -> Output:
    """Return the output of a pydantic class with the field `v`."""
    return output_from_options(response_model=create_model("M", v=(kind, ...)))


def as_types(kind: Any) -> Output:
    """Return the output of a dict of types."""
    return output_from_options(response_model={"v": kind})


def as_schema(kind: Any) -> Output:
    """Return the output of the JSON Schema alone."""
    schema = as_class(kind).spec.schema
    assert schema is not None
    return output_from_options(response_model=schema)


@pytest.mark.parametrize("made", [as_class, as_types, as_schema])
@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Literal[1], ["1", "1.0", "1e0"], ["true", "2", "null", "false"]),
        (Literal[0, 1], ["0", "-0", "1.0"], ["true", "false"]),
        (Literal[True], ["true"], ["1", "1.0", "false"]),
        (Literal[False], ["false"], ["0", "0.0", "null"]),
        (Literal[0, True], ["0", "true"], ["1", "false"]),
        (Literal[1] | None, ["1", "null"], ["true"]),
        (Literal[1] | bool, ["1", "true"], []),
        (list[Literal[1]], ["[1, 1.0]", "[]"], ["[true]", "[1, true]"]),
        (dict[str, Literal[1]], ['{"a": 1}'], ['{"a": true}']),
        (tuple[str, Literal[1]], ['["a", 1]'], ['["a", true]']),
        (Stars, ["1", "2.0"], ["true", "3"]),
        (Sold, ["true"], ["1", "1.0"]),
        (Literal["1", "true"], ['"1"', '"true"'], ["1", "true"]),
    ],
    ids=str,
)
def test_true_is_not_one(
    made: Callable[[Any], Output], kind: Any, good: list[str], bad: list[str]
) -> None:
    """Promise 10: however a schema is given, the same answers are taken for its choices."""
    output = made(kind)

    def statuses(values: list[str]) -> list[str]:
        texts = [f'{{"v": {value}}}' for value in values]
        return [str(result.status) for result in read_texts(texts, output)]

    assert statuses(good) == ["ok"] * len(good)
    assert statuses(bad) == ["malformed"] * len(bad)


def test_what_the_classes_own_validator_makes_of_a_boolean_counts() -> None:
    """A validator may well read true as 1: the class decides."""
    output = as_class(Annotated[Literal[0, 1], BeforeValidator(int)])

    assert output.read('{"v": true}') == ((1,), False)


class Closed(BaseModel, extra="forbid"):
    """Takes no other member, nor do its parts."""

    n: int
    inner: Closed | None = None


@pytest.mark.parametrize("stored", [False, True])
def test_a_member_that_is_forbidden_is_refused_with_the_class_and_without(stored: bool) -> None:
    """The stored schema says it: ``additionalProperties: false``."""
    output = output_from_options(response_model=Closed)
    reader = Output(output.spec) if stored else output

    texts = ['{"n": 1}', '{"n": 1, "more": 2}', '{"n": 1, "inner": {"n": 2, "more": 3}}']
    assert [str(result.status) for result in read_texts(texts, reader)] == [
        "ok",
        *["malformed"] * 2,
    ]


@pytest.mark.parametrize("word", ['"Infinity"', '"-inf"', '"NaN"', '"sNaN"', "NaN"])
def test_a_decimal_that_may_be_endless_is_none_all_the_same(word: str) -> None:
    """NaN and Infinity are no numbers, and no null either, whatever a class allows."""
    kind = Annotated[Decimal, Field(allow_inf_nan=True)]
    output = as_class(kind)

    for reader in (output, Output(output.spec)):
        (result,) = read_texts([f'{{"v": {word}}}'], reader)
        assert str(result.status) == "malformed"


@pytest.mark.parametrize("without_class", [False, True])
@pytest.mark.parametrize("made", [as_types, as_schema])
@pytest.mark.parametrize(
    ("kind", "good", "mended", "wrong"),
    [
        (int, ["7", "7.0", "-1"], ['"12"'], ["true", "false", "[true]"]),
        (float, ["7", "1e3"], ['"1.5"'], ["true", "false"]),
        (bool, ["true", "false"], ['"true"'], ["1", "0", "1.0", "0.0", "2"]),
        (int | None, ["7", "null"], ['"12"'], ["true"]),
        (bool | None, ["true", "null"], ['"false"'], ["1", "0"]),
        (int | bool, ["7", "true"], [], []),
        (int | str, ["7", '"12"'], [], ["true"]),
        (Annotated[int, Field(ge=0)], ["7"], ['"12"'], ["true", "-1"]),
        (Annotated[float, Field(ge=0, gt=-1)], ["7"], ['"12"'], ["true"]),
        (list[int], ["[7, 8]", "[]"], ['[7, "8"]'], ["[7, true]"]),
        (list[bool], ["[true]"], ['["true"]'], ["[1]"]),
        (dict[str, int], ['{"a": 1}'], ['{"a": "1"}'], ['{"a": true}']),
        (tuple[str, int], ['["a", 1]'], [], ['["a", true]']),
    ],
    ids=str,
)
def test_true_is_no_number(
    made: Callable[[Any], Output],
    kind: Any,
    good: list[str],
    mended: list[str],
    wrong: list[str],
    without_class: bool,
) -> None:
    """Promise 10: `true` is no number, 1 no boolean: at the gate, in full, and after a restart."""
    output = made(kind)
    output = Output(output.spec) if without_class else output

    def read(values: list[str]) -> list[tuple[str, bool]]:
        texts = [f'{{"v": {value}}}' for value in values]
        return [(str(each.status), each.repaired) for each in read_texts(texts, output)]

    assert read(good) == [("ok", False)] * len(good)
    assert read(mended) == [("ok", True)] * len(mended)
    assert [status for status, _ in read(wrong)] == ["malformed"] * len(wrong)


def test_a_class_takes_what_pydantic_takes() -> None:
    """A class reads by its own rules: pydantic makes 1 of true unless it is told not to."""
    output = as_class(int)

    assert [each.values for each in read_texts(['{"v": true}', '{"v": "12"}'], output)] == [
        (1,),
        (12,),
    ]


def test_a_type_that_is_wrong_is_named() -> None:
    """Promise 9: the reason goes to the model as feedback, so it says what was wrong where."""
    output = output_from_options(response_model={"size": list[int], "new": bool})

    reasons = [
        each.error
        for each in read_texts(
            ['{"size": [1, true], "new": true}', '{"size": [], "new": 1}'], output
        )
    ]

    assert reasons == [
        "$.size[1]: true is a boolean where a number is wanted",
        "$.new: 1 is a number where a boolean is wanted",
    ]
