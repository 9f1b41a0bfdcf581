"""Request lines and shards: the exact bytes of batch files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from draws import examples
from hypothesis import example, given
from hypothesis import strategies as st
from specs import ANY_TEXT, CHAT, COMPLETIONS, RESPONSES, a_line, make_spec

from frameenrich.errors import RequestTooLargeError
from frameenrich.identity.hashes import request_hashes
from frameenrich.jsonl import encode_all, split_lines
from frameenrich.model import JobSpec, Limits, OutputSpec
from frameenrich.prepare.output_options import labels_spec
from frameenrich.prepare.writer import ShardCutter
from frameenrich.rendering.body import (
    BodyTemplate,
    _unused_marks,
    input_hash,
    request_body,
    retry_line,
)

FEW = examples(100)

# Whatever a cell may hold: quotes, control characters, line separators, halves of emoji.
OWN_ID = st.text("abzAZ019_-", min_size=1, max_size=59)


def as_json_reads(value: Any) -> Any:
    """Return a value as JSON gives it back: two halves of an emoji become one character."""
    return json.loads(json.dumps(value))


@st.composite
def specs_and_texts(draw: st.DrawFn) -> tuple[JobSpec, list[str]]:
    """Draw a spec and one rendered row; texts may look like the spec's own parts."""
    endpoint = draw(st.sampled_from([CHAT, RESPONSES, COMPLETIONS]))
    count = 1 if endpoint == COMPLETIONS else draw(st.integers(1, 4))
    params = draw(st.dictionaries(ANY_TEXT.map("p{}".format), ANY_TEXT | st.integers(), max_size=2))
    labelled = endpoint != COMPLETIONS and draw(st.booleans())
    output = labels_spec(["text", "text-", "<text:0>"]) if labelled else OutputSpec()
    spec = make_spec(endpoint, count, params, output, model=draw(ANY_TEXT))
    special = st.sampled_from([*_unused_marks(spec), "text", "<text:0>", '"<text:1>"'])
    return spec, draw(st.lists(ANY_TEXT | special, min_size=count, max_size=count))


@FEW
@given(specs_and_texts(), OWN_ID, st.sets(st.integers(0, 3)))
def test_a_line_is_read_back_to_its_request(
    drawn: tuple[JobSpec, list[str]], own: str, constant: set[int]
) -> None:
    """Whatever the text, a line is one line of JSON and holds exactly the request's body."""
    spec, texts = drawn
    expected = {
        "custom_id": own,
        "method": "POST",
        "url": spec.url,
        "body": request_body(spec, texts),
    }

    line = a_line(spec, own, texts, tuple(i for i in constant if i < len(texts)))

    assert as_json_reads(expected) == json.loads(line)
    assert [line[:-1]] == list(split_lines([line]))


@FEW
@given(specs_and_texts(), ANY_TEXT)
def test_a_reworked_line_changes_what_was_asked_for_only(
    drawn: tuple[JobSpec, list[str]], own: str
) -> None:
    """A later round's line has its own id, the changed keys, and the rest as it was."""
    spec, texts = drawn
    before = a_line(spec, "row-1", texts)
    expected = json.loads(before)
    expected |= {"custom_id": own, "body": {**expected["body"], "model": "gpt-5"}}

    line, _ = retry_line(before, own, lambda body: {**body, "model": "gpt-5"})

    assert as_json_reads(expected) == json.loads(line)
    assert [line[:-1]] == list(split_lines([line]))


@FEW
@given(ANY_TEXT.map(as_json_reads))
def test_the_same_request_has_the_same_hash_in_every_round(text: str) -> None:
    """A request is known again by its hash, so that it is not paid twice."""
    spec = make_spec(params={"temperature": 0.1, "max_tokens": 300})
    writer = BodyTemplate(spec)
    bodies = writer.bodies([encode_all([text])], 1)

    line, request_hash = retry_line(a_line(spec, "row-1", [text]), "r1-row-1", dict)

    assert a_line(spec, "r1-row-1", [text]) == line
    assert request_hashes(writer.rest, input_hash([text])) == request_hash
    assert [json.loads(line)["body"]] == [json.loads(body) for body in bodies]


@FEW
@given(st.lists(ANY_TEXT, max_size=4), st.lists(ANY_TEXT, max_size=4))
@example(["ab", "c"], ["a", "bc"])
@example(["1:a"], ["1", "a"])
def test_input_hashes_tell_rows_apart(one: list[str], other: list[str]) -> None:
    """Rows have the same input hash only where they rendered to the same messages."""
    assert (one == other) == (input_hash(one) == input_hash(other))


@pytest.mark.parametrize(
    ("endpoint", "messages", "expected"),
    [
        (
            CHAT,
            2,
            {
                "model": "gpt-4o-mini",
                "messages": [
                    {"role": "system", "content": "a"},
                    {"role": "user", "content": "b"},
                ],
                "max_tokens": 5,
            },
        ),
        (
            RESPONSES,
            1,
            {"model": "gpt-4o-mini", "input": [{"role": "user", "content": "a"}], "max_tokens": 5},
        ),
        (COMPLETIONS, 1, {"model": "gpt-4o-mini", "prompt": "a", "max_tokens": 5}),
    ],
)
def test_each_endpoint_has_its_own_body(
    endpoint: str, messages: int, expected: dict[str, Any]
) -> None:
    """Messages go where the endpoint wants them, parameters beside them."""
    spec = make_spec(endpoint, messages, {"max_tokens": 5})

    actual = request_body(spec, ["a", "b"][:messages])

    assert expected == actual


def test_labels_become_a_strict_schema() -> None:
    """Chat and Responses ask for structured output, each in its own words."""
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": ["a", "b"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    described = {"name": "answer", "schema": schema, "strict": True}
    wanted = labels_spec(["a", "b"])

    chat = request_body(make_spec(CHAT, output=wanted), ["x"])
    responses = request_body(make_spec(RESPONSES, output=wanted), ["x"])

    assert {"type": "json_schema", "json_schema": described} == chat["response_format"]
    assert {"format": {"type": "json_schema", **described}} == responses["text"]


# --- cutting --------------------------------------------------------------------------------------


@FEW
@given(
    st.lists(st.integers(1, 50), max_size=60),
    st.builds(Limits, st.integers(1, 10), st.integers(50, 200)),
)
def test_shards_keep_every_line_order_and_limit(sizes: list[int], limits: Limits) -> None:
    """Read one after the other, the shards are the lines; each is within both limits, and full."""
    cutter = ShardCutter(limits)
    numbers = [cutter.assign(size, i) for i, size in enumerate(sizes)]
    shards: dict[int, list[int]] = {}
    for number, size in zip(numbers, sizes, strict=True):
        shards.setdefault(number, []).append(size)

    assert sizes == [size for number in sorted(shards) for size in shards[number]]
    assert list(range(len(shards))) == list(shards)
    for number, shard in shards.items():
        assert len(shard) <= limits.max_requests
        assert sum(shard) <= limits.max_bytes
        if number + 1 in shards:
            full = len(shard) == limits.max_requests
            assert full or sum(shard) + shards[number + 1][0] > limits.max_bytes


def test_a_line_larger_than_a_file_is_refused() -> None:
    """No file could hold it, so nothing is sent; the error knows the row and the sizes."""
    cutter = ShardCutter(Limits(max_bytes=100))
    cutter.assign(100, 0)

    with pytest.raises(RequestTooLargeError, match=r"position 7 has 101 bytes.* 100") as caught:
        cutter.assign(101, 7)

    assert vars(caught.value)["position"] == 7
