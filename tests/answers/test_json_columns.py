"""Promise 13: every column that `collect` makes goes through `to_parquet` and back."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pytest
from blocks import read_texts, taken_alone
from pydantic import BaseModel, ConfigDict, Field, create_model

from frameenrich.answers.columns import result_columns
from frameenrich.answers.output import MalformedError, Output
from frameenrich.answers.result_table import ResultTable
from frameenrich.answers.votes import by_majority
from frameenrich.errors import FrameEnrichWarning
from frameenrich.model import JobSpec, Message, Result, RowStatus
from frameenrich.prepare.output_options import output_from_options


class Size(BaseModel):
    """A closed object."""

    w: int
    unit: str | None = None


class Open(BaseModel):
    """An object with members that nobody named."""

    model_config = ConfigDict(extra="allow")
    w: int


class Item(BaseModel):
    """A closed object with parts of no one type."""

    size: Size
    more: dict[str, Any]
    code: int | str


class Tree(BaseModel):
    """An object whose depth is each value's own."""

    name: str
    children: list[Tree] = []


class Empty(BaseModel):
    """An object without members."""


FREE = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {}}
DICTS = [{"w": 1, "unit": "cm"}, {"w": 2, "unit": None}]
# the type of a field, two answers to it, the dtype of its column, and its cells
KINDS: dict[str, tuple[Any, list[Any], str, list[Any]]] = {
    "free": (dict[str, Any], [{"b": 1, "a": "é"}, {}], "string", ['{"b":1,"a":"é"}', "{}"]),
    "numbers by name": (dict[str, float], [{"x": 1.5}, {"y": 2.0}], "string",
                        ['{"x":1.5}', '{"y":2.0}']),
    "anything": (Any, ["a", [1, {"k": None}]], "string", ['"a"', '[1,{"k":null}]']),
    "number or list": (int | list[int], [1, [2]], "string", ["1", "[2]"]),
    "one of two lists": (list[int] | list[str], [[1], ["a"]], "string", ["[1]", '["a"]']),
    "one of two objects": (Size | Empty, DICTS, "string",
                           ['{"w":1,"unit":"cm"}', '{"w":2,"unit":null}']),
    "open": (Open, [{"w": 1, "x": 2}, {"w": 1}], "string", ['{"w":1,"x":2}', '{"w":1}']),
    "empty": (Empty, [{}, {}], "string", ["{}", "{}"]),
    "list of free": (list[dict[str, Any]], [[{"a": 1}], []], "string", ['[{"a":1}]', "[]"]),
    "list of mixed": (list[int | str], [[1, "a"], [2]], "string", ['[1,"a"]', "[2]"]),
    "list of choices": (list[Literal[1, "a"]], [[1, "a"], [1]], "string", ['[1,"a"]', "[1]"]),
    "pair": (tuple[int, str], [[1, "a"], [2, "b"]], "string", ['[1,"a"]', '[2,"b"]']),
    "any list": (list, [[1, "a"], []], "string", ['[1,"a"]', "[]"]),
    "list of items": (list[Item], [[{"size": DICTS[0], "more": {}, "code": 1}], []], "string",
                      ['[{"size":{"w":1,"unit":"cm"},"more":{},"code":1}]', "[]"]),
    "leads to itself": (Tree, [{"name": "a", "children": [{"name": "b", "children": []}]},
                               {"name": "c", "children": []}], "object",
                        [{"name": "a", "children": '[{"name":"b","children":[]}]'},
                         {"name": "c", "children": "[]"}]),
    "closed": (Size, DICTS, "object", DICTS),
    "closed with free parts": (
        Item, [{"size": DICTS[0], "more": {"a": 1}, "code": 1},
               {"size": DICTS[1], "more": {"b": []}, "code": "x"}], "object",
        [{"size": DICTS[0], "more": '{"a":1}', "code": "1"},
         {"size": DICTS[1], "more": '{"b":[]}', "code": "x"}]),
    "list of texts": (list[str], [["a"], []], "object", [["a"], []]),
    "list of numbers": (list[int | float], [[1, 2.5], [3]], "object", [[1, 2.5], [3]]),
    "list of closed": (list[Size], [DICTS, []], "object", [DICTS, []]),
    "lists of lists": (list[list[str | None]], [[["a", None]], []], "object",
                       [[["a", None]], []]),
    "two of one type": (tuple[float, float], [[1.0, 2.0], [3.0, 4.0]], "object",
                        [[1.0, 2.0], [3.0, 4.0]]),
    "bounded list": (Annotated[list[int], Field(max_length=3)], [[1, 2], [3]], "object",
                     [[1, 2], [3]]),
}  # fmt: skip


def column_of(output: Output, answers: list[Any]) -> pd.Series[Any]:
    """Return the column of a field ``x``; a flagged row comes after the answers."""
    table = ResultTable(len(answers) + 1, output.fields, ())
    results = [
        Result(f"row-{i}", RowStatus.OK, output.read(json.dumps({"x": answer}))[0])
        for i, answer in enumerate(answers)
    ]
    results.append(Result("bad", RowStatus.MALFORMED, None, "why"))
    slots = np.arange(len(results))
    table.add_results(slots, results, 0)
    spec = JobSpec("ask", "m", (Message("user", "x"),), output=output.spec)
    return result_columns(table, slots, np.ones(len(slots), dtype=bool), spec)["x"]


def plain(cell: Any) -> Any:
    """Return what Parquet gives back with its arrays as lists."""
    if isinstance(cell, np.ndarray | list):
        return [plain(item) for item in cell]
    return {k: plain(v) for k, v in cell.items()} if isinstance(cell, dict) else cell


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_every_kind_goes_through_parquet(kind: str, tmp_path: Path) -> None:
    """Promise 13: JSON text or as it is, by the schema alone; also where nothing was answered."""
    wanted, answers, dtype, cells = KINDS[kind]
    output = output_from_options(response_model={"x": wanted})

    column = column_of(output, answers)
    column.to_frame("x").to_parquet(tmp_path / "x.parquet")
    back = pd.read_parquet(tmp_path / "x.parquet")["x"]

    assert str(column.dtype) == str(back.dtype) == dtype
    assert column.tolist()[:2] == cells
    assert [plain(cell) for cell in back[:2]] == cells
    assert column.isna().tolist() == back.isna().tolist() == [False, False, True]
    assert str(column_of(output, []).dtype) == dtype


@pytest.mark.parametrize("kind", KINDS)
def test_both_readers_agree_on_every_kind(kind: str) -> None:
    """Promise 13: what the quick reader takes is what the full one gives, JSON texts included."""
    wanted, answers, _, cells = KINDS[kind]
    given = output_from_options(response_model={"x": wanted})
    for output in (given, Output(given.spec)):
        for answer, cell in zip(answers, cells, strict=True):
            text = json.dumps({"x": answer})
            values = taken_alone(output, text)
            assert values in (None, output.read(text)[0])
            if kind != "open" or output is given:  # a later session reads the members it knows
                assert output.read(text)[0] == (cell,)


def test_a_schemas_additional_properties_make_json_text() -> None:
    """Promise 13: any `additionalProperties`, also the empty schema, but not a false one."""
    for more, kind in (
        ({}, "json"),
        (True, "json"),
        ({"type": "string"}, "json"),
        (False, "object"),
    ):
        schema = {"type": "object", "properties": {"x": {**FREE, "additionalProperties": more}}}
        (field,) = output_from_options(response_model=schema).fields
        assert field.kind == kind, more


def test_the_order_of_keys_is_no_vote() -> None:
    """Several answers agree where their values do, however each was written."""
    output = output_from_options(response_model={"x": dict[str, int]})
    texts = ('{"x": {"a": 1, "b": 2}}', '{"x": {"b": 2, "a": 1}}', '{"x": {"c": 3}}')
    results = [Result("row-0", RowStatus.OK, output.read(text)[0]) for text in texts]

    result = by_majority(results, output.fields, 3)

    assert result.values == ('{"a":1,"b":2}',)
    assert result.agreement == pytest.approx(2 / 3)


def import_answers(job: Any, answers: list[Any], path: Path) -> None:
    """Answer a job's requests, in their order, as another program would."""
    requests = "".join(Path(each).read_text() for each in job.requests).splitlines()
    with path.open("w") as file:
        for request, answer in zip(requests, answers, strict=True):
            message = {"role": "assistant", "content": json.dumps(answer)}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            response = {"status_code": 200, "body": {"model": "m", "choices": [choice]}}
            own = json.loads(request)["custom_id"]
            file.write(json.dumps({"custom_id": own, "response": response, "error": None}) + "\n")
    job.import_responses(path)


@pytest.mark.parametrize("form", ["memory", "csv", "parquet"])
@pytest.mark.filterwarnings("ignore:response_model= has a part that strict output")
def test_objects_of_an_earlier_version_are_no_corrections(
    form: str, store: Path, tmp_path: Path
) -> None:
    """Promises 12 and 13: dicts in a frame, as they were, are the answers; an edit is kept."""
    frame = pd.DataFrame({"sku": ["x1", "x2", "x3"]})
    how: dict[str, Any] = {"provider": "file", "store": store, "key": "sku"}
    wanted = {"specs": dict[str, Any], "what": int | list[str]}
    job = frame.llmbatch.submit("{{ sku }}?", "m", response_model=wanted, **how)
    specs = [{"b": 1, "a": "x"}, {"c": [1, 2]}, {}]
    what = [3, ["a"], ["b"]]
    answers = [{"specs": s, "what": w} for s, w in zip(specs, what, strict=True)]
    import_answers(job, answers, tmp_path / "r.jsonl")
    answered = frame.llmbatch.collect(job)
    assert answered["specs"].tolist() == ['{"b":1,"a":"x"}', '{"c":[1,2]}', "{}"]

    before = answered.assign(
        specs=pd.Series(specs, dtype=object), what=pd.Series(what, dtype=object)
    )
    if form == "csv":
        before.to_csv(tmp_path / "a.csv", index=False)
        before = pd.read_csv(tmp_path / "a.csv")
    elif form == "parquet":  # gives every dict the keys of all; a mixed column never got there
        before.assign(what=answered["what"]).to_parquet(tmp_path / "a.parquet")
        before = pd.read_parquet(tmp_path / "a.parquet")
    with warnings.catch_warnings(action="error"):
        again = before.llmbatch.collect(job)
    pd.testing.assert_frame_equal(again[answered.columns], answered, check_dtype=form == "memory")

    cells = before["specs"].astype(object).tolist()
    cells[1] = {"c": [1, 3]}
    edited = before.assign(specs=pd.Series(cells, dtype=object))
    with pytest.warns(FrameEnrichWarning, match="1 cell of 'specs' holds"):
        kept = edited.llmbatch.collect(job)
    assert kept["specs"].tolist() == ['{"b":1,"a":"x"}', '{"c":[1,3]}', "{}"]
    kept.to_parquet(tmp_path / "kept.parquet")


@pytest.mark.filterwarnings("ignore:response_model= has a part that strict output")
def test_a_collected_frame_gives_examples(store: Path, tmp_path: Path) -> None:
    """JSON text of an earlier collect is shown to the model as the value that it is."""
    frame = pd.DataFrame({"sku": ["x1", "x2"]})
    how: dict[str, Any] = {
        "provider": "file",
        "store": store,
        "response_model": {"s": dict[str, int]},
    }
    job = frame.llmbatch.submit("{{ sku }}?", "m", **how)
    import_answers(job, [{"s": {"a": 1}}, {"s": {"b": 2}}], tmp_path / "r.jsonl")
    examples = frame.llmbatch.collect(job).iloc[:1]

    second = frame.llmbatch.submit("And {{ sku }}?", "m", name="more", examples=examples, **how)

    request = json.loads(Path(second.requests[0]).read_text().splitlines()[0])
    said = [m["content"] for m in request["body"]["messages"] if m["role"] == "assistant"]
    assert [json.loads(text) for text in said] == [{"s": {"a": 1}}]


def test_an_open_object_keeps_its_members_without_the_class() -> None:
    """A later session has the stored schema alone, and reads the same cell from the same answer."""

    class Answer(BaseModel):
        loose: Open
        many: list[Open]
        closed: Size

    asked = output_from_options(None, Answer, None)
    text = '{"loose":{"w":1,"x":"y"},"many":[{"w":2,"z":[1]}],"closed":{"w":3,"unit":null}}'

    with_class, _ = asked.read(text)
    stored, _ = Output(asked.spec).read(text)

    assert stored == with_class
    assert json.loads(stored[0]) == {"w": 1, "x": "y"}
    with pytest.raises(MalformedError):  # what has a type keeps it
        Output(asked.spec).read(text.replace('"w":1', '"w":"one"'))


class Shelf(BaseModel):
    """A part that holds others by name, and has defaults."""

    rows: int = 3
    shelves: dict[str, Shelf] = {}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"counts": {"x": "1", "y": 2.0}}, '{"x":1,"y":2}'),
        ({"counts": {"x": 1.5}}, None),
        ({"counts": {"x": None}}, None),
        ({"counts": {}, "shelves": {"a": {"shelves": {"b": {}}}}}, "{}"),
        ({"counts": {}, "sizes": {"a": ["1", 2]}}, "{}"),
        ({"counts": {}, "sizes": {"a": ["wide"]}}, None),
    ],
)
def test_the_values_of_a_dict_are_read_alike_with_the_class_and_without(
    said: Any, kept: str | None
) -> None:
    """What a class makes of a dict's values, the stored schema makes of them, too."""
    given = create_model(
        "Store",
        counts=(dict[str, int], ...),
        shelves=(dict[str, Shelf] | None, None),
        sizes=(dict[str, list[float]] | None, None),
    )
    output = output_from_options(response_model=given)

    own, stored = (
        read_texts([json.dumps(said)], reader)[0] for reader in (output, Output(output.spec))
    )

    assert (own.status, own.values) == (stored.status, stored.values)
    assert (own.values[0] if own.values else None) == kept
