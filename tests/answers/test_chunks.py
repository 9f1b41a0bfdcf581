"""Chunks of lines to columns: the same as if each line were read alone, whatever stands in it."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from blocks import results_of
from draws import examples
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from frameenrich.answers import reader
from frameenrich.answers.arrow_column import ArrowColumn
from frameenrich.answers.columns import result_columns
from frameenrich.answers.judge import read_result
from frameenrich.answers.reader import ResponseReader, _filled
from frameenrich.answers.result_table import DETAILS, ParsedLines, ResultTable
from frameenrich.jsonl import split_lines, whole_lines
from frameenrich.model import JobSpec, Message, Result
from frameenrich.prepare.output_options import output_from_options

MANY = examples(30)
FEW = examples(30)


class Size(BaseModel):
    """What an answer has to be."""

    size: Literal["S", "M"]
    width: int
    note: str | None = None


OUTPUTS = {
    "text": output_from_options(),
    "labels": output_from_options(labels=["Kitchen", "Garden"]),
    "a class": output_from_options(response_model=Size),
    "a schema": output_from_options(response_model={"size": Literal["S", "M"], "width": int}),
    "a parser": output_from_options(parser=json.loads),
}
CONTENTS = [
    '{"size": "S", "width": 3}',
    '{"size": "M", "width": 4, "note": "wide"}',
    '{"size": "s", "width": "4"}',
    '{"size": "S", "wid',
    '```json\n{"size": "S", "width": 5}\n```',
    '{"label": "Garden"}',
    "kitchen.",
    "no JSON }\n{ at all",
    " ",
    "",
    None,
    5,
    [{"type": "text", "text": "Kitchen"}],
]


OTHER = '{"size": "M", "width": 9, "label": "Kitchen"}'
ODD: list[Any] = [
    *(None, False, True, 0, "", " ", "x", [], {}, [{}], {"code": None}, {"code": "x"}),
    {"arguments": OTHER},
    [{"type": "function", "function": {"name": "answer", "arguments": OTHER}}],
    [{"type": "message", "content": [{"type": "output_text", "text": OTHER}]}],
]
"""What may stand where an ordinary line has nothing, also another answer."""


@st.composite
def lines(draw: Any) -> bytes:
    """A line of a responses file: most often ordinary, now and then odd in some member."""
    odd: Any = st.sampled_from(ODD)

    def mostly(usual: Any) -> Any:
        return draw(odd) if draw(st.integers(0, 24)) == 0 else usual

    message = {
        "content": draw(st.sampled_from(CONTENTS)),
        **{name: mostly(None) for name in ("refusal", "tool_calls", "function_call", "reasoning")},
    }
    choice = {
        "message": mostly(message),
        "finish_reason": mostly("stop"),
        "logprobs": mostly(None),
        "error": mostly(None),
    }
    tokens = {"prompt_tokens": mostly(7), "completion_tokens": mostly(2)}
    body = {"model": mostly("m"), "choices": mostly([choice]), "usage": mostly(tokens)}
    body["output"] = mostly(None)
    inner = {"status_code": mostly(200), "body": mostly({**body, "error": mostly(None)})}
    own = mostly(f"row-{draw(st.integers(0, 5))}")
    whole = {"custom_id": own, "response": mostly(inner), "error": mostly(None)}
    text = json.dumps(whole, ensure_ascii=draw(st.booleans())).encode()
    found: bytes = draw(
        st.sampled_from([text] * 12 + [text[:-1], text + b"\r", b" " + text, b"", b"{}"])
    )
    return found


WHOLE = b'{"custom_id": "row-1", "response": {"status_code": 200, "body": {}}}'


@MANY
@given(st.lists(lines(), max_size=8), st.sampled_from(list(OUTPUTS)), st.booleans())
@example([WHOLE + WHOLE, WHOLE[:24], WHOLE[24:]], "text", True)  # as many objects as lines
@example([WHOLE, b"\xff", WHOLE], "text", True)
@example([WHOLE.replace(b"row-1", b"\\ud83d"), WHOLE], "text", False)
def test_lines_read_together_are_read_as_each_alone(
    each: list[bytes], asked: str, telling: bool
) -> None:
    """Status, values, error and every detail are those of the line by itself."""
    output, chunk = OUTPUTS[asked], b"".join(line + b"\n" for line in each)
    expected = [read_result(line, output) for line in split_lines([chunk])]
    block = ResponseReader(output, DETAILS if telling else ()).read(chunk)

    if telling:
        assert expected == results_of(block)
    assert [r and (r.custom_id, r.status, r.values, r.error) for r in expected] == [
        r and (r.custom_id, r.status, r.values, r.error) for r in results_of(block)
    ]


def line_with(member: str, value: Any, content: Any = "Garden") -> bytes:
    """Return an ordinary line with one more member, or another value of one."""
    message = {"content": content}
    choice = {"message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    body = {"choices": [choice], "model": "m", "usage": usage}
    response = {"status_code": 200, "body": body}
    line = {"custom_id": "row-1", "response": response}
    objects: dict[str, Any] = {
        "message": message,
        "choice": choice,
        "body": body,
        "usage": usage,
        "response": response,
        "line": line,
    }
    inside, _, name = member.partition(".")
    objects[inside][name] = value
    return json.dumps(line).encode() + b"\n"


MEMBERS = [
    *("message.refusal", "message.tool_calls", "message.function_call", "message.reasoning"),
    *("message.reasoning_content", "message.audio", "choice.error", "choice.logprobs"),
    *("choice.text", "choice.finish_reason", "body.error", "body.errors", "body.output"),
    *("body.status", "body.data", "body.model", "body.usage", "usage.prompt_tokens"),
    *("response.error", "response.status_code", "line.error", "line.custom_id"),
]


@pytest.mark.parametrize("asked", OUTPUTS)
def test_an_odd_member_is_read_the_same_in_a_chunk_and_alone(asked: str) -> None:
    """What a chunk's quick reading takes, the full one takes too, and says the same of it."""
    output = OUTPUTS[asked]
    contents = {"labels": ["Garden"], "text": ["Garden", ""]}.get(asked, CONTENTS[:1])
    quick, telling = ResponseReader(output), ResponseReader(output, DETAILS)
    for member, value, content in itertools.product(MEMBERS, ODD, contents):
        line = line_with(member, value, content)
        expected = read_result(line, output)
        assert results_of(telling.read(line)) == [expected], (member, value)
        (found,) = results_of(quick.read(line))
        plain = expected and (expected.status, expected.values, expected.error)
        assert (found and (found.status, found.values, found.error)) == plain, (member, value)


@pytest.mark.parametrize(
    ("member", "value", "status"),
    [
        ("message.refusal", False, "ok"),
        ("message.function_call", None, "ok"),
        ("message.function_call", {"arguments": '{"label": "Kitchen"}'}, "malformed"),
        ("choice.error", {}, "ok"),
        ("body.error", {}, "ok"),
        ("body.output", None, "ok"),
        ("body.output", [], "ok"),
    ],
)
def test_nothing_in_an_odd_form_is_nothing(member: str, value: Any, status: str) -> None:
    """An empty error beside an answer is no error; a call with another answer is seen."""
    line = line_with(member, value)
    (found,) = results_of(ResponseReader(OUTPUTS["labels"]).read(line))
    assert found is not None
    assert found.status == status


def test_a_chunk_of_blank_answers_is_cut_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose answers are blank takes time by its lines, not by their square."""
    cut = []

    def counted(data: bytes) -> list[bytes]:
        cut.append(len(data))
        return _filled(data)

    monkeypatch.setattr(reader, "_filled", counted)
    chunk = b"".join(line_with("line.custom_id", f"row-{n}", "") for n in range(40))

    for wanted in (None, {f"row-{n}" for n in range(30)}):
        cut.clear()
        block = ResponseReader(OUTPUTS["text"]).read(chunk, wanted)
        assert block.detail("error") == ["the answer holds no text"] * (30 if wanted else 40)
        assert len(cut) == 1


def test_empty_reasoning_is_none() -> None:
    """A server may name a member for thinking of which there was none."""
    result = read_result(line_with("message.reasoning", ""), OUTPUTS["text"])
    assert result is not None
    assert result.reasoning is None


@FEW
@given(st.lists(st.binary(max_size=9) | st.just(b"\n"), max_size=8), st.integers(1, 40))
def test_chunks_are_the_files_cut_behind_lines(files: list[bytes], size: int) -> None:
    """Nothing is lost between files or buffers, and each chunk ends with a line."""
    chunks = list(map(bytes, whole_lines(map(io.BytesIO, files), size)))
    whole = b"".join(files)

    assert b"".join(chunks) == (whole if whole.endswith(b"\n") or not whole else whole + b"\n")
    assert all(chunk.endswith(b"\n") for chunk in chunks)


# --- a shard's blocks to its slots ----------------------------------------------------------------


def one_by_one(results: list[Result], slots: list[int], rounds: list[int]) -> ResultTable:
    """Return a result table that took results as they came, each as if it were alone."""
    result_table = ResultTable(6, OUTPUTS["a class"].fields, DETAILS)
    for result, slot, round_ in zip(results, slots, rounds, strict=True):
        if slot >= 0:
            result_table.add_results(np.array([slot]), [result], round_)
    return result_table


def columns(result_table: ResultTable, slots: list[int]) -> dict[str, list[Any]]:
    """Return all columns of a frame whose rows have these slots."""
    spec = JobSpec("ask", "m", (Message("user", "x"),))
    places, ids = np.array(slots, dtype=np.int64), pa.array(list("abcdef"))
    seen = np.ones(len(slots), dtype=np.bool_)
    cells = result_columns(result_table, places, seen, spec, usage=True, custom_ids=ids)
    return {name: _plain(column) for name, column in cells.items()}


def _plain(column: pd.Series[Any]) -> list[Any]:
    """Return a column's values with a dash for nulls, which are not equal to each other."""
    return ["-" if null else value for value, null in zip(column, column.isna(), strict=True)]


@MANY
@given(
    st.lists(st.lists(st.lists(lines(), max_size=4), max_size=3), min_size=1, max_size=3),
    st.lists(st.integers(-1, 5), max_size=9) | st.just(list(range(6))),
    st.integers(0, 6),
)
def test_shards_of_blocks_come_to_the_same_as_results_one_by_one(
    rounds: list[list[list[bytes]]], rows: list[int], slots_known: int
) -> None:
    """Two lines of one request, other requests' lines, later rounds, any frame: the same cells."""
    output = OUTPUTS["a class"]
    reader, result_table = ResponseReader(output, DETAILS), ResultTable(6, output.fields, DETAILS)
    came: list[tuple[Result, int, int]] = []
    for round_, chunks in enumerate(rounds):
        blocks = [reader.read(b"".join(line + b"\n" for line in chunk)) for chunk in chunks]
        own: list[int] = []
        for block in blocks:
            result_table.add(block)
            for result in results_of(block):
                known = result is not None and result.custom_id.startswith("row-")
                number = int(result.custom_id[4:]) if result and known else slots_known
                own.append(number if number < slots_known else -1)
                if result:
                    came.append((result, own[-1], round_))
        result_table.assign(np.array(own, dtype=np.int64), round_)
    expected = one_by_one(*(map(list, zip(*came, strict=True)) if came else ([], [], [])))

    assert columns(expected, rows) == columns(result_table, rows)


# --- columns --------------------------------------------------------------------------------------


@MANY
@given(
    st.sampled_from([pa.large_string(), pa.int64(), ("a", "b", "c"), None]),
    st.lists(st.lists(st.integers(0, 2) | st.none(), max_size=6), max_size=5),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_a_column_gives_back_its_cells_in_any_order(
    kind: Any, parts: list[list[int | None]], random: Any, release: bool
) -> None:
    """Whatever its type, however its parts were put in order, and -1 is a null."""
    column, cells = ArrowColumn(kind), []
    show = {pa.large_string(): str, pa.int64(): int, None: str}.get(kind, "abc".__getitem__)
    for part in parts:
        shown = [None if cell is None else show(cell) for cell in part]
        order = random.sample(range(len(part)), random.randint(0, len(part)))
        column.add(tuple(shown))
        whole = order == list(range(len(part))) and random.random() < 0.5
        column.close(None if whole else pa.array(order, pa.int64()))
        cells += [shown[i] for i in order]
    places = [random.randint(-1, len(cells) - 1) for _ in range(random.randint(0, 12))]
    wanted = random.choice([places, list(range(len(cells)))])

    taken = column.take(np.array(wanted, dtype=np.int64), release=release)
    found = taken if kind is None else taken.to_pylist()
    if isinstance(kind, tuple):
        found = [None if cell is None else kind[cell] for cell in found]

    assert found == [None if place < 0 else cells[place] for place in wanted]


@pytest.mark.parametrize("slots", [[0, 1], [1, 0], [0, -1]])
def test_a_column_in_the_jobs_order_is_not_copied(slots: list[int]) -> None:
    """Promise 8: where the frame stands in the job's order, the parts are the column."""
    result_table = ResultTable(3, OUTPUTS["text"].fields, ())
    for part, own in ((["a", "b"], slots), (["c"], [2])):
        result_table.add(ParsedLines([f"row-{i}" for i in own], [part], {}))
        result_table.assign(np.array(own), 0)
    parts = [part.buffers()[2].address for part in result_table._columns[0]._parts]

    taken = result_table.take_values(0, np.arange(3))

    told = dict(zip(slots, "ab", strict=True))
    assert taken.to_pylist() == [told.get(0), told.get(1), "c"]
    own_parts = [chunk.buffers()[2].address for chunk in taken.chunks] == parts
    assert own_parts == (-1 not in slots)


@pytest.mark.parametrize("release", [True, False])
def test_a_column_over_many_blocks_keeps_what_is_needed_later(release: bool) -> None:
    """A part is dropped when the last cell of it was taken, not before."""
    column, many = ArrowColumn(pa.int64()), 70_000
    for start in (0, many, 2 * many):
        column.add(range(start, start + many))
        column.close()
    places = np.concatenate([[3 * many - 1], np.arange(3 * many)[::-1], [0, -1]])

    taken = column.take(places, release=release)

    assert taken.to_pylist() == [None if place < 0 else place for place in places.tolist()]


def test_a_block_of_nothing_changes_nothing() -> None:
    """A file that is empty, or not there."""
    result_table = ResultTable(2, OUTPUTS["text"].fields, ())
    result_table.add(ParsedLines([], [[]], {}))
    result_table.assign(np.array([], dtype=np.int64), 0)

    assert result_table.counts(np.arange(2)) == {"pending": 2}


@pytest.mark.parametrize("order", [None, list(range(49, -1, -1))])
def test_long_texts_that_nobody_wants_take_no_memory(order: list[int] | None) -> None:
    """A null keeps none of its text: a report of a million rows holds those of its page (8)."""
    column = ArrowColumn(pa.large_string(), short=True)
    texts = [f"{n} " + "long " * 400 for n in range(50)]
    texts[3] = "short"
    column.add([*texts[:20], None, *texts[21:]])
    assert column.coming().nbytes < 2_100  # before the shard's other answers have come
    column.close(None if order is None else pa.array(order))

    found = column.take(np.arange(50)).to_pylist()
    expected = ["short" if n == 3 else None for n in range(50)]
    assert found == (expected if order is None else expected[::-1])
