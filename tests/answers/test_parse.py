"""Raw lines to results: what a line may look like, and answers that are none."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from blocks import read_lines
from draws import examples
from hypothesis import example, given
from hypothesis import strategies as st

from frameenrich.answers.judge import read_response, read_result, result_of
from frameenrich.jsonl import split_lines
from frameenrich.model import Batch, Response, Result, RowStatus, Usage
from frameenrich.prepare.output_options import output_from_options

FEW = examples(75)

TEXT = output_from_options()
LABELS = output_from_options(labels=["Kitchen", "Garden"])
USAGE = {"prompt_tokens": 11, "completion_tokens": 7}
USED = Usage("gpt-4o-mini", 11, 7, "stop")


def chat(content: Any = "Kitchen", finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """Return the body of a chat answer."""
    return {
        "model": "gpt-4o-mini",
        "choices": [{"message": {"content": content, **message}, "finish_reason": finish}],
        "usage": USAGE,
    }


def responses(*parts: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    """Return the body of a Responses answer."""
    return {
        "model": "gpt-4o-mini",
        "status": status,
        "output": [{"type": "reasoning"}, {"type": "message", "content": list(parts)}],
        "usage": {"input_tokens": 11, "output_tokens": 7},
        **more,
    }


def line(body: Any = None, code: Any = 200, error: Any = None, custom_id: Any = "row-1") -> bytes:
    """Return one line of an output file."""
    inner = {"status_code": code, "request_id": "r", "body": chat() if body is None else body}
    return json.dumps(
        {"id": "x", "custom_id": custom_id, "response": inner, "error": error}
    ).encode()


def result(raw: bytes, output: Any = TEXT) -> Result | None:
    """What a line comes to; the short way for ordinary answers gives the same as the long one."""
    response = read_response(raw)
    done = None if response is None else result_of(response, output)

    assert read_result(raw, output) == done
    assert read_lines([raw], output) == ([done] if raw.strip() else [])
    return done


def brief(raw: bytes, output: Any = TEXT) -> tuple[str, str | None] | None:
    """Return a line's status and error."""
    done = result(raw, output)
    return None if done is None else (str(done.status), done.error)


# --- lines ----------------------------------------------------------------------------------------


@FEW
@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"\r\n", b"{}\n"]), max_size=8))
@example(["\u2028\x85\u2029\n\x0b\x0c".encode()])
def test_lines_are_cut_at_newlines_only(chunks: list[bytes]) -> None:
    """However the bytes arrive, the lines are those between newlines, blank ones left out."""
    expected = [piece.strip() for piece in b"".join(chunks).split(b"\n") if piece.strip()]

    assert expected == list(split_lines(chunks))


@FEW
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_the_way_bytes_are_cut_does_not_matter(data: bytes, cuts: list[int]) -> None:
    """A chunk may end anywhere, within a character or a line end."""
    places = [0, *sorted(cuts), len(data)]
    chunks = [data[a:b] for a, b in pairwise(places)]

    assert list(split_lines([data])) == list(split_lines(chunks))


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_line_separators_inside_a_string_do_not_cut(separator: str) -> None:
    """Fact 9: ``str.splitlines`` would make two broken lines of this one."""
    whole = json.dumps(
        {"custom_id": "a", "response": {"status_code": 200, "body": chat(f"x{separator}y")}},
        ensure_ascii=False,
    ).encode()

    found = [result(each) for each in split_lines([whole + b"\n" + line()])]

    assert [each and each.values for each in found] == [(f"x{separator}y",), ("Kitchen",)]


def test_a_good_line_is_a_result() -> None:
    """Values, raw text and usage, nothing else."""
    expected = Result("row-1", RowStatus.OK, ("Kitchen",), None, "Kitchen", USED)

    assert expected == result(line())


FAULTS: dict[str, tuple[bytes, tuple[str, str | None] | None]] = {
    "1 a line of the error file": (
        line({"error": {"message": "bad model", "code": "model_not_found"}}, 404),
        ("failed", "HTTP 404: model_not_found: bad model"),
    ),
    "2 an empty file": (b"", None),
    "3 error null beside a 400": (
        line({"error": {"message": "too long", "type": "invalid_request_error"}}, 400),
        ("failed", "HTTP 400: invalid_request_error: too long"),
    ),
    "3 a 500 without a word": (line({}, 500), ("failed", "HTTP 500 without a reason")),
    "4 status 0 and no body": (line({}, 0), ("failed", "HTTP 0 without a reason")),
    "4 a 200 and no body": (line({}, 200), ("empty", "the answer holds no text")),
    "4 a 200 that is an error": (
        line({"error": {"message": "overloaded"}}, 200),
        ("failed", "overloaded"),
    ),
    "4 a 200 with a list": (line([1], 200), ("failed", "HTTP 200 with a body that is no answer")),
    "5 body is a JSON string": (line(json.dumps(chat())), ("ok", None)),
    "5 response is a JSON string": (
        json.dumps(
            {"custom_id": "a", "response": json.dumps({"status_code": 200, "body": chat()})}
        ).encode(),
        ("ok", None),
    ),
    "5 no error key": (
        json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": chat()}}).encode(),
        ("ok", None),
    ),
    "5 no response key": (
        b'{"custom_id": "a", "error": {"code": "x", "message": "y"}}',
        ("failed", "x: y"),
    ),
    "5 neither": (
        b'{"custom_id": "a"}',
        ("failed", "the provider sent no response for this request"),
    ),
    "5 no status code": (
        json.dumps({"custom_id": "a", "response": {"body": chat()}}).encode(),
        ("ok", None),
    ),
    "5 status code as text": (line(code="200"), ("ok", None)),
    "5 status code as float": (line(code=200.0), ("ok", None)),
    "5 body is HTML": (line("<html>502</html>", 502), ("failed", "HTTP 502: a web page: 502")),
    "6 expired": (
        b'{"custom_id": "a", "response": null, "error": {"code": "batch_expired", "message": "m"}}',
        ("expired", "batch_expired: m"),
    ),
    "7 cancelled": (
        b'{"custom_id": "a", "response": null, "error": {"code": "batch_cancelled"}}',
        ("cancelled", "batch_cancelled"),
    ),
    "8 custom_id null": (line(custom_id=None), None),
    "8 custom_id empty": (line(custom_id=""), None),
    "8 custom_id a number": (line(custom_id=7), None),
    "8 no custom_id": (b'{"response": {}}', None),
    "10 not JSON": (b"oops", None),
    "10 not UTF-8": (b'{"custom_id": "a\xff"}', None),
    "10 not UTF-8 inside": (
        line().replace(b"Kitchen", b"Kitch\xe9n"),
        ("failed", "HTTP 200 with a body that is no answer"),
    ),
    "10 no object": (b"[1, 2]", None),
    "10 a number": (b"7", None),
    "10 endless nesting": (b"[" * 100_000, None),
    "11 cut short": (line()[:-9], None),
    "12 an HTML page": (b"<html><body>502 Bad Gateway</body></html>", None),
    "error is a text": (b'{"custom_id": "a", "error": "quota"}', ("failed", "quota")),
    "error is empty": (line(error={}), ("ok", None)),
    "error is a list": (line(error=["x"]), ("failed", "x")),
    "error of another form": (line(error={"detail": 1}), ("failed", '{"detail": 1}')),
    "error beside an answer": (line(error={"code": "late"}), ("failed", "late")),
    "half an emoji": (line(chat("a\ud83d")), ("ok", None)),
    "a body of no answer": (line({"object": "x"}), ("empty", "the answer holds no text")),
}


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_of_a_line_is_met(case: str) -> None:
    """What really comes back is a status with a reason; a hopeless line loses only itself."""
    raw, expected = FAULTS[case]

    assert expected == brief(raw)


def test_an_unknown_status_word_is_not_the_end() -> None:
    """Fact 13: a batch that a server left ``in_progress``, or calls otherwise, has not ended."""
    assert [Batch("t", status=s).ended for s in ("in_progress", "scheduling")] == [False, False]


def test_the_same_line_twice_is_the_same_result() -> None:
    """Fact 8: reading is free of memory; what to do with repeats is merge's business."""
    assert result(line()) == result(line())


def test_a_failed_line_keeps_its_body_as_raw() -> None:
    """What the provider said can be looked at."""
    done = result(line({"error": {"message": "bäd"}}, 400))

    assert done is not None
    assert (done.raw, done.values) == ('{"error": {"message": "bäd"}}', None)


def test_no_text_leaves_with_half_an_emoji() -> None:
    """Neither a column nor a file could hold it."""
    body = {"error": {"message": "m\udc00"}}
    for raw in (
        line(chat("a\ud83d")),
        line(json.dumps(chat("a\ud83d"))),
        line(body, 400),
        line(code="400", body=body),
        b'{"custom_id": "a", "error": "e\\ud83d"}',
    ):
        done = result(raw)
        assert done is not None
        "".join([done.custom_id, done.raw or "", done.error or "", *(done.values or ())]).encode()


# --- answers that are not answers -----------------------------------------------------------------

TEXT_PART = {"type": "output_text", "text": "Kitchen"}
REFUSAL = {"type": "refusal", "refusal": "I will not."}
CUT: dict[str, Any] = {
    "incomplete_details": {"reason": "max_output_tokens"},
    "status": "incomplete",
}
FILTERED: dict[str, Any] = {
    "incomplete_details": {"reason": "content_filter"},
    "status": "incomplete",
}
TRUNCATED = "cut at the token limit; regenerate asks with twice the limit"
FILTER = "stopped by the provider's content filter"

ANSWERS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "chat": (chat(), "ok", None),
    "chat, content parts": (chat([{"type": "text", "text": "Kit"}, {"text": "chen"}]), "ok", None),
    "chat, truncated": (chat("Kit", "length"), "truncated", TRUNCATED),
    "chat, truncated before a word": (chat(None, "length"), "truncated", TRUNCATED),
    "chat, truncated JSON": (chat('{"label": "Kit', "length"), "truncated", TRUNCATED),
    "chat, refused": (chat(None, refusal="I will not."), "refused", "I will not."),
    "chat, filtered": (chat("Kit", "content_filter"), "refused", FILTER),
    "chat, null": (chat(None), "empty", "the answer holds no text"),
    "chat, blank": (chat(" \n"), "empty", "the answer holds no text"),
    "chat, tool call": (chat(None, "tool_calls"), "empty", "the answer holds no text"),
    "chat, no choice": ({"choices": []}, "empty", "the answer holds no text"),
    "chat, choices null": ({"choices": None}, "empty", "the answer holds no text"),
    "chat, refusal null": (chat(refusal=None), "ok", None),
    "chat, another label": (
        chat("Toys"),
        "malformed",
        "$.label: 'Toys' is not one of the 2 labels: 'Kitchen', 'Garden'",
    ),
    "responses": (responses(TEXT_PART), "ok", None),
    "responses, in two parts": (
        responses({"type": "output_text", "text": "Kit"}, {"type": "output_text", "text": "chen"}),
        "ok",
        None,
    ),
    "responses, truncated": (responses(TEXT_PART, **CUT), "truncated", TRUNCATED),
    "responses, only thoughts": (responses(**CUT), "truncated", TRUNCATED),
    "responses, refused": (responses(REFUSAL), "refused", "I will not."),
    "responses, filtered": (responses(TEXT_PART, **FILTERED), "refused", FILTER),
    "responses, empty": (responses(), "empty", "the answer holds no text"),
    "responses, no output": ({"output": []}, "empty", "the answer holds no text"),
    "responses, error": (
        {"error": {"code": "server_error", "message": "m"}, "output": []},
        "failed",
        "server_error: m",
    ),
    "responses, error null": (responses(TEXT_PART, error=None), "ok", None),
    "completions": ({"choices": [{"text": "Kitchen", "finish_reason": "stop"}]}, "ok", None),
    "completions, truncated": (
        {"choices": [{"text": "Kit", "finish_reason": "length"}]},
        "truncated",
        TRUNCATED,
    ),
    "completions, filtered": (
        {"choices": [{"text": "", "finish_reason": "content_filter"}]},
        "refused",
        FILTER,
    ),
    "completions, empty": (
        {"choices": [{"text": "", "finish_reason": "stop"}]},
        "empty",
        "the answer holds no text",
    ),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_is_none_has_its_own_status(case: str) -> None:
    """A cut, refused or empty answer is never called bad JSON, nor good."""
    body, status, error = ANSWERS[case]

    assert (status, error) == brief(line(body), LABELS)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (chat(), USED),
        (responses(TEXT_PART), Usage("gpt-4o-mini", 11, 7, "completed")),
        (responses(TEXT_PART, **CUT), Usage("gpt-4o-mini", 11, 7, "length")),
        ({"choices": [{"text": "x"}]}, Usage()),
        ({**chat(), "usage": None, "model": None}, Usage(None, None, None, "stop")),
        ({**chat(), "usage": "much"}, Usage("gpt-4o-mini", None, None, "stop")),
        (
            {**chat(), "usage": {"prompt_tokens": 10**30, "completion_tokens": "7"}},
            Usage("gpt-4o-mini", None, 7, "stop"),
        ),
        ({**chat(), "usage": {"prompt_tokens": 1e999}}, Usage("gpt-4o-mini", None, None, "stop")),
    ],
)
def test_usage_is_what_the_provider_says(body: dict[str, Any], expected: Usage) -> None:
    """Tokens of both dialects; what no column can hold is left out, the answer is not."""
    done = result(line(body))

    assert done is not None
    assert expected == done.usage


# --- anything at all ------------------------------------------------------------------------------

NAMES = st.sampled_from(["code", "message", "error", "text", "content", "type"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner),
    max_leaves=5,
)


@st.composite
def bodies(draw: st.DrawFn) -> Any:
    """Draw bodies that are an answer, but for something."""
    body: Any = draw(st.sampled_from([chat(), responses(TEXT_PART), {"choices": [{"text": "x"}]}]))
    body = json.loads(json.dumps(body))
    for _ in range(draw(st.integers(0, 3))):
        node, key = body, None
        while isinstance(node, (dict, list)) and node and (key is None or draw(st.booleans())):
            holder = node
            key = draw(
                st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node)))
            )
            node = holder[key]
        if key is not None:
            holder[key] = draw(JSON)
    return draw(st.sampled_from([body, json.dumps(body)]) | JSON)


@FEW
@given(bodies(), JSON, JSON, JSON | st.just("row-1"))
@example({"output": [{"type": []}]}, 200, None, "row-1")
@example({"output": [{"type": "message", "status": {}}]}, 200, None, "row-1")
def test_no_json_can_raise(body: Any, code: Any, error: Any, custom_id: Any) -> None:
    """Whatever a server puts where, a line is a result with a reason or belongs to no row."""
    for each in (200, code):
        done = result(line(body, each, error, custom_id), LABELS)

        if done is not None:
            assert (
                (done.status is RowStatus.OK) == (done.values is not None) == (done.error is None)
            )


@FEW
@given(st.binary())
def test_no_bytes_can_raise(raw: bytes) -> None:
    """A line of noise belongs to no row."""
    assert read_response(raw) is None or isinstance(read_response(raw), Response)


@pytest.mark.parametrize("depth", [*range(150, 210, 10), *range(880, 1010, 7), 5000])
def test_no_nesting_can_raise(depth: int) -> None:
    """Deep bodies and errors lose at most themselves."""
    deep = b"[" * depth + b"]" * depth
    for raw in (
        b'{"custom_id":"a","response":{"status_code":500,"body":' + deep + b"}}",
        b'{"custom_id":"a","response":{"status_code":"500","body":' + deep + b"}}",
        b'{"custom_id":"a","error":{"x":' + deep + b"}}",
    ):
        done = read_result(raw, TEXT)

        assert done is None or done.status is RowStatus.FAILED
