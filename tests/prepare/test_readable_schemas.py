"""What `submit` accepts can be read: nothing is paid for that `collect` would break on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from blocks import taken_alone
from pydantic import BaseModel, create_model

from frameenrich.answers.judge import read_result
from frameenrich.answers.output import MalformedError, Output
from frameenrich.errors import OutputError
from frameenrich.prepare.output_options import output_from_options

TEXT = {"type": "string"}


def schema(*required: str, **properties: Any) -> dict[str, Any]:
    """Return the JSON Schema of an object."""
    return {"type": "object", "properties": properties, "required": list(required)}


class Node(BaseModel):
    """A part that leads back to itself."""

    size: int
    below: Node | None = None
    beside: list[Node] = []


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        (schema(**{'size 15"': TEXT}), {'size 15"': "a"}),
        (schema(**{"a\\b": TEXT, "c\nd": TEXT}), {"a\\b": "x", "c\nd": "y"}),
        (schema(**{"\x00": TEXT, "": TEXT, "größe": TEXT}), {"\x00": "x", "": "y", "größe": "z"}),
        (schema(n={"type": "null"}, a=TEXT), {"a": "x", "n": None}),
        (schema("n", n={"type": "null"}), {"n": None}),
        (schema(n={"enum": ["a", 1, None]}), {"n": "a"}),
        (schema(**{"$ref": TEXT, "self": TEXT}), {"$ref": "a", "self": "b"}),
        (schema(n={"$ref": "#"}, v=TEXT), {"v": "a", "n": {"v": "b", "n": {"v": "c"}}}),
        (Node, {"size": 1, "below": {"size": 2, "beside": [{"size": 3}]}}),
    ],
)
def test_odd_names_and_types_are_read(wanted: Any, answer: Any) -> None:
    """By this session's reader and by that of the stored schema."""
    output = output_from_options(response_model=wanted)
    body = {"choices": [{"message": {"content": json.dumps(answer)}, "finish_reason": "stop"}]}
    line = json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": body}})
    results = [read_result(line.encode(), each) for each in (output, Output(output.spec))]

    for result in results:
        assert result is not None
        assert (str(result.status), result.error) == ("ok", None)
        given = dict(zip([f.name for f in output.fields], result.values or (), strict=True))
        assert {name: given[name] for name in answer if name not in {"n", "below"}} == {
            name: value for name, value in answer.items() if name not in {"n", "below"}
        }


def test_a_part_within_itself_is_read_by_its_types_at_every_depth() -> None:
    """Without the class, too: a number that came as text is a number, as the class has it."""
    output = output_from_options(response_model=Node)
    text = '{"size": "1", "below": {"size": "2", "beside": [{"size": "3"}]}}'

    whole, stored = output.read(text)[0], Output(output.spec).read(text)[0]

    assert whole == stored
    assert json.loads(stored[1])["beside"][0]["size"] == 3  # promise 13: no struct is so deep


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (schema("b", a=TEXT), "requires 'b', which is none of its properties"),
        (schema(a=schema("c", b=TEXT)), "a requires 'c'"),
    ],
)
def test_what_no_answer_can_meet_is_refused(
    wanted: Any, words: str, mugs: pd.DataFrame, store: Path
) -> None:
    """At submit, by name."""
    with pytest.raises(OutputError, match=words):
        mugs.llmbatch.submit(
            "{{ title }}?", "m", response_model=wanted, provider="file", store=store
        )


def test_parts_that_refer_to_others_twice_at_each_level_take_no_longer_than_they_are() -> None:
    """Thirty levels have a billion leaves, at which no test would end; they are 30 classes."""
    model: Any = create_model("L0", v=(int, ...))
    for level in range(1, 31):
        model = create_model(f"L{level}", left=(model, ...), right=(model, ...))
    stored = Output(output_from_options(response_model=model).spec)
    answer: Any = {"left": {}, "right": {}}

    assert [field.kind for field in stored.fields] == ["object", "object"]
    with pytest.raises(ValueError, match=r"\$.left"):
        stored.read(json.dumps(answer))


def test_parts_that_may_be_null_are_entered_once_each() -> None:
    """Pydantic puts such parts into one another by value: by each path, there are 3**24."""
    models: list[Any] = []
    for level in range(24):
        parts: Any = {f"part_{i}": (part | None, None) for i, part in enumerate(models[-3:])}
        models.append(create_model(f"Node{level}", value=(int, ...), **parts))
    output = output_from_options(response_model=models[-1])
    given = '{"value": 1, "part_2": {"value": 2}}'

    assert output.spec.class_rules == ()
    for reader in (output, Output(output.spec)):
        assert reader.read(given)[0][0] == 1
        assert taken_alone(reader, given) in (None, reader.read(given)[0])


@pytest.mark.parametrize("kind", ["number", "string", "integer", "boolean"])
def test_a_null_for_an_optional_property_that_has_none_is_malformed_both_ways(kind: str) -> None:
    """By the gate and by the full reading; absent it is null, and fine."""
    stored = Output(output_from_options(response_model=schema("b", a={"type": kind}, b=TEXT)).spec)

    assert taken_alone(stored, '{"a": null, "b": "x"}') is None
    assert taken_alone(stored, '{"b": "x"}') == (None, "x")
    with pytest.raises(MalformedError, match=r"\$\.a"):
        stored.read('{"a": null, "b": "x"}')
    assert stored.read('{"b": "x"}')[0] == (None, "x")
