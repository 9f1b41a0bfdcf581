"""Hashes: a request is the same in a frame, a later round and a file of requests, or it is not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from draws import examples
from hypothesis import example, given
from hypothesis import strategies as st
from specs import ANY_TEXT, CHAT, COMPLETIONS, RESPONSES, a_line, make_spec

from frameenrich.identity import dedupe
from frameenrich.identity.hashes import (
    body_texts,
    request_hash,
    request_hashes,
    rest_hash,
    texts_hash,
    texts_hashes,
)
from frameenrich.jsonl import encode, encode_all
from frameenrich.rendering.body import BodyTemplate

FEW = examples(60)
# Names that are looked for, as names and as what texts hold.
TEXT = ANY_TEXT | st.sampled_from(
    ['"content":"', '","content":"x', 'a"content', '\\"input":"', "content", "\\", '"', '\\\\"']
)
VALUES = st.recursive(
    TEXT | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["content", "input", "prompt"]) | TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)
BODIES = st.dictionaries(st.sampled_from(["content", "input", "model"]) | TEXT, VALUES, max_size=4)


@FEW
@given(BODIES, BODIES)
@example({"content": "a", "input": "b"}, {"content": "b", "input": "a"})
@example({"content": "a"}, {"input": "a"})
@example({"content": ["a"]}, {"content": "a"})
@example({"content": ""}, {"content": None})
@example({'a"content': "x"}, {'a"content': "y"})
def test_two_bodies_have_one_hash_only_where_they_are_one(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Whatever stands in a body, and wherever it says that a text is in it."""
    first, second = encode(one), encode(other)

    assert (first == second) == (request_hash(CHAT, first) == request_hash(CHAT, second))
    assert request_hash(CHAT, first) != request_hash(RESPONSES, first)


@FEW
@given(BODIES)
def test_a_hash_is_put_together_of_its_texts_and_the_rest(body: dict[str, Any]) -> None:
    """So a row's texts need one digest, and what is alike in all rows is digested once."""
    whole = {"messages": [{"role": "user", "content": "x"}], "other": body}
    changed = {**whole, "messages": [{"role": "user", "content": "y"}]}
    other = body_texts(encode({"other": body}))

    rest = rest_hash(CHAT, encode(whole))
    assert rest == rest_hash(CHAT, encode(changed))
    assert request_hashes(rest, texts_hash([b'"y"', *other])) == request_hash(CHAT, encode(changed))


@pytest.mark.parametrize(
    ("endpoint", "messages"),
    [(CHAT, 1), (CHAT, 3), (RESPONSES, 2), (COMPLETIONS, 1), ("/v1/embeddings", 1)],
)
@FEW
@given(data=st.data(), params=st.dictionaries(st.sampled_from(["metadata", "stop"]), BODIES))
def test_a_rows_hash_is_that_of_its_body(
    endpoint: str, messages: int, data: st.DataObject, params: dict[str, Any]
) -> None:
    """What a frame's rows ask is known again in a file of ready requests, and the other way."""
    spec = make_spec(endpoint, messages, params)
    texts = data.draw(st.lists(TEXT, min_size=messages, max_size=messages))
    constant = data.draw(st.sets(st.integers(0, messages - 1)))
    writer = BodyTemplate(spec, {i: encode(texts[i]) for i in constant})
    own = [encode_all([text]) for i, text in enumerate(texts) if i not in constant]

    (body,) = writer.bodies(own, 1)

    inputs = texts_hashes(writer.same_texts, own, 1)
    assert request_hash(endpoint, body) == request_hashes(writer.rest, inputs)
    assert json.loads(a_line(spec, "row-1", texts))["body"] == json.loads(body)


def test_texts_are_the_same_json_together_and_alone() -> None:
    """Another byte would be another hash: a store would not know its own requests any more."""
    texts = ["".join(map(chr, range(start, start + 64))) for start in range(0, 0x110000, 64)]
    whole = [text for text in texts if not "\ud800" <= text[0] <= "\udfff"]

    # Halves of surrogate pairs alone take another way, and all texts beside them.
    assert encode_all(whole) == list(map(encode, whole))
    assert encode_all(texts) == list(map(encode, texts))
    # What `json.loads` of a user's own class made, or a StrEnum's member.
    own = [type("Title", (str,), {})("Caf\u00e9"), "plain"]
    assert encode_all(own) == list(map(encode, own))


@pytest.mark.parametrize("remembered", [0, 3, 100])
@pytest.mark.parametrize("watched", [[], [2, 7]])
def test_repeats_are_found_in_blocks_of_any_size(
    remembered: int, watched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Identical requests are sent once: remembered, watched for, or named as duplicates."""
    monkeypatch.setattr(dedupe, "REMEMBERED", remembered)
    numbers = [1, 2, 2, 3, 1, 7, 4, 7, 2, 9, 9, 7]
    blocks = [numbers[:5], numbers[5:8], numbers[8:]]
    found = dedupe.Deduplicator(len(numbers), np.array(watched, "u8"))
    first, start = [], 0
    for block in blocks:
        hashes = b"".join(number.to_bytes(8, "little") + bytes(24) for number in block)
        first += list(found.first_rows(hashes, range(start, start + len(block))))
        start += len(block)

    unseen = set(dedupe.duplicates(found.unique_hashes()).tolist())
    assert set(found.unique_hashes().tolist()) == set(numbers)
    for position, number in enumerate(numbers):
        earliest = numbers.index(number)
        assert first[position] in {earliest, position}
        # What goes by unseen is named, so that it is compared whole afterwards.
        assert first[position] == earliest or number in unseen
        assert number not in watched or number not in unseen


@pytest.mark.parametrize("byte", range(32))
def test_every_byte_of_a_request_names_its_job(byte: int) -> None:
    """A job's id is of all 256 bits of each request, whatever the rows' order."""
    one, other = bytearray(range(32)), bytearray(range(32))
    other[byte] ^= 1

    def mark(*hashes: bytearray) -> str:
        made = dedupe.JobHash()
        made.add(np.arange(1, len(hashes) + 1, dtype="u8"), b"".join(hashes))
        return made.mark

    assert mark(one, one) != mark(one, other) != mark(other, one)
