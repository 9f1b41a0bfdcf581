"""Promise 10: ``ok`` means whole. No cut, guessed, doubled or unfinished answer is a good one."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import date, datetime, time, timedelta
from typing import Any, Literal
from urllib.parse import quote

import pytest
from blocks import read_lines
from draws import examples
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from frameenrich.answers.json_text import NotJsonError, find_json
from frameenrich.answers.judge import read_result
from frameenrich.answers.output import Output
from frameenrich.answers.thinking import UnclosedThinkingError, split_thinking
from frameenrich.model import Result
from frameenrich.prepare.output_options import output_from_options
from frameenrich.providers.anthropic.translate import live_answer

TEXT = output_from_options()
LABELS = output_from_options(labels=["Kitchen", "Garden", "Garden furniture"])
FIELDS = output_from_options(response_model={"colour": str, "price": float})
TAGS = output_from_options(response_model={"tags": list[str]})
GOOD = '{"colour": "red", "price": 9.9}'
RED = ("red", 9.9)
BLUE = GOOD.replace("red", "blue")


def chat(content: Any = GOOD, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    """Return the body of a chat answer; `more` are members of its message."""
    choice = {"message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    return {
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5},
    }


def responses(text: str | None = GOOD, status: Any = "completed", **more: Any) -> dict[str, Any]:
    """Return the body of a Responses answer."""
    parts = [] if text is None else [{"type": "output_text", "text": text}]
    output = [{"type": "message", "content": parts}, *more.pop("items", [])]
    return {"model": "m", "status": status, "output": output, **more}


def read(body: Any, output: Output, code: int = 200, error: Any = None) -> Result:
    """Read a body both ways, the quick one and the full one, which have to agree."""
    inner = {"status_code": code, "body": body}
    line = json.dumps({"custom_id": "row-1", "response": inner, "error": error}).encode()
    result = read_result(line, output)
    assert result is not None
    assert read_lines([line], output) == [result]
    return result


LABEL_MARKS = [
    ("_", "_"),
    ("\u2018", "\u2019"),
    ("<label>", "</label>"),
    ("<answer>", "</answer>"),
    ("\\boxed{", "}"),
    ("$\\boxed{\\text{", "}}$"),
    *[("", end) for end in ("</s>", "<|im_end|>", "<|eot_id|>", "\u200b", "\u00a0", ".\n")],
    ("\ufeff", ""),
    ("The answer is **", "**."),
    ("Answer: `", "`"),
    ("**Answer**: *", "*"),
]
BEFORE_LABELS = (
    *("The label is", "The answer is:", "The correct label is", "Classification:", "RESULT:"),
    *("*", "->", "\u2192", "Final Answer:", "**Output:**"),
)


# --- how answers end ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "status"),
    [
        *[(word, "ok") for word in ("stop", "eos", "end_turn", "stop_sequence", "tool_calls")],
        *[(word, "ok") for word in ("function_call", "completed", "STOP", None)],
        # Of text-generation-inference, Bedrock's gateways and Cohere.
        *[(word, "ok") for word in ("eos_token", "tool_use", "COMPLETE", "TOOL_CALL")],
        *[(word, "truncated") for word in ("length", "max_tokens", "MAX_TOKENS", "model_length")],
        ("max_output_tokens", "truncated"),
        *[(word, "truncated") for word in ("model_context_window_exceeded", "max_new_tokens")],
        *[(word, "refused") for word in ("ContentFilter", "content-filter")],
        *[(word, "failed") for word in ("FINISH_REASON_STOP", "end", "pause_turn", "<eos>")],
        *[(word, "failed") for word in ("TIMEOUT", "ERROR", "compaction", "complete_with_error")],
        *[(word, "refused") for word in ("content_filter", "sensitive", "SAFETY", "RECITATION")],
        *[(word, "refused") for word in ("PROHIBITED_CONTENT", "IMAGE_SAFETY", "SPII")],
        *[(word, "malformed") for word in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL")],
        *[(word, "failed") for word in ("error", "network_error", "abort", "stopped?", "OTHER")],
        ({"type": "stop"}, "failed"),
        (7, "failed"),
    ],
)
@pytest.mark.parametrize("output", [TEXT, FIELDS], ids=["text", "fields"])
def test_only_known_words_end_a_whole_answer(finish: Any, status: str, output: Output) -> None:
    """A word nobody knows flags the row and is named; a whole text proves nothing."""
    result = read(chat(finish=finish), output)

    assert str(result.status) == status
    if status == "failed":
        word = finish if isinstance(finish, str) else json.dumps(finish)
        assert repr(word) in (result.error or "")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (responses(), "ok", ""),
        (responses(status=None), "ok", ""),
        (responses(status="incomplete"), "truncated", "cut"),
        (responses(status="incomplete", incomplete_details=None), "truncated", "cut"),
        (
            responses(status="incomplete", incomplete_details={"reason": "content_filter"}),
            "refused",
            "filter",
        ),
        (responses(status="in_progress"), "failed", "in_progress"),
        (
            responses(
                None, items=[{"type": "function_call", "arguments": GOOD, "status": "in_progress"}]
            ),
            "truncated",
            "cut",
        ),
        (responses(status="cancelled"), "failed", "cancelled"),
        (
            {"choices": [{**chat()["choices"][0], "error": {"code": 502, "message": "Upstream"}}]},
            "failed",
            "Upstream",
        ),
        ({"choices": [chat()["choices"][0], chat("{}")["choices"][0]]}, "malformed", "differ"),
        ({"choices": [chat()["choices"][0]] * 2}, "ok", ""),
        (
            chat(tool_calls=[{"function": {"arguments": '{"colour": "blue"}'}}]),
            "malformed",
            "differ",
        ),
        (chat([{"type": "refusal", "refusal": "I cannot."}]), "refused", "cannot"),
        (
            responses(
                None, items=[{"type": "function_call", "arguments": GOOD, "status": "incomplete"}]
            ),
            "truncated",
            "cut",
        ),
        (
            {
                "choices": [],
                "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}],
            },
            "refused",
            "filter",
        ),
    ],
)
def test_an_answer_that_the_provider_did_not_end_is_flagged(
    body: dict[str, Any], status: str, reason: str
) -> None:
    """An incomplete response, an error within a choice, two choices that differ."""
    result = read(body, FIELDS)

    assert (str(result.status), reason in (result.error or "")) == (status, True)


# --- cuts -----------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(['a "quoted" {x}', "[1, 2]", "it's", "}", "]", "```", "\\", '"', "\n", ", "])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(min_size=1, max_size=6), VALUES, min_size=1, max_size=5)
AROUND = st.sampled_from(
    ["", "Sure! Here it is:\n", "```json\n", "```\n", "Here's my answer: ", "\n \t", "Well [1], "]
)


@examples(50)
@given(OBJECTS | st.lists(OBJECTS, min_size=1, max_size=3), AROUND, st.data())
def test_no_cut_is_taken_for_the_answer(value: Any, before: str, data: Any) -> None:
    """Whatever an answer holds and wherever it is cut, nothing is made of the rest."""
    style = data.draw(st.sampled_from([{}, {"indent": 2}, {"separators": (",", ":")}]))
    whole = json.dumps(value, ensure_ascii=data.draw(st.booleans()), **style)
    cut = data.draw(st.integers(0, len(whole) - 1))

    with pytest.raises(NotJsonError):
        find_json(before + whole[:cut])


@pytest.mark.parametrize(
    "output",
    [
        FIELDS,
        output_from_options(response_model={"colour": str, "price": float | None}),
        output_from_options(response_model={"colour": str, "price": str}),
        output_from_options(response_model={"price": float}),
    ],
)
@pytest.mark.parametrize("before", ["", "```json\n", "Sure: ", "["])
def test_every_cut_of_an_answer_is_flagged(output: Output, before: str) -> None:
    """Ten of 92 cuts of one answer came out ``ok`` with another value than the whole one."""
    whole = '{"colour": "dark red, or \\"wine\\"", "price": 1234.5e1}'

    statuses = {str(read(chat(before + whole[:cut]), output).status) for cut in range(len(whole))}

    assert statuses <= {"malformed", "empty"}


class Item(BaseModel):
    """A part of an answer."""

    name: str
    n: int | None = None
    tags: list[str] = []


GOODS = ["Kitchen", "Kitchenware", "Kitchen & Bath", "1", "10", "a", "a,b"]
WORDS = st.sampled_from(["red", 'a "q" {x}', "it's", "}", "<think>", "Kitchen", "10", "//", ""])
ITEM = st.fixed_dictionaries(
    {"name": WORDS, "n": st.sampled_from([None, 1, 12, 123]), "tags": st.lists(WORDS, max_size=3)}
)
ANSWERS: dict[str, tuple[Output, st.SearchStrategy[Any]]] = {
    "types": (
        output_from_options(
            response_model={"a": str, "n": int, "f": float, "k": Literal["Kitchen", "Kitchenware"]}
        ),
        st.fixed_dictionaries(
            {
                "a": WORDS,
                "n": st.sampled_from([1, 12, 123]),
                "f": st.sampled_from([0, 1.5, 12, 1e3, 1e22, -3]),
                "k": st.sampled_from(["Kitchen", "Kitchenware"]),
            }
        ),
    ),
    "list": (
        output_from_options(response_model={"items": list[Item]}),
        st.fixed_dictionaries({"items": st.lists(ITEM, max_size=3)}),
    ),
    "class": (output_from_options(response_model=Item), ITEM),
    "absent": (
        output_from_options(response_model={"a": str | None, "n": int | None}),
        st.fixed_dictionaries({"a": WORDS | st.none(), "n": st.sampled_from([None, 1, 12])}),
    ),
    "labels": (output_from_options(labels=GOODS), st.sampled_from(GOODS)),
}
LABELLED = ["**%s**", "`%s`", '"%s"', "<label>%s</label>", "\\boxed{%s}", "```\n%s\n```", "(%s)"]


def _as_call(text: str, finish: Any) -> dict[str, Any]:
    return chat("Calling.", finish, tool_calls=[{"function": {"arguments": text}}])


def _as_anthropic(text: str, finish: Any) -> dict[str, Any]:
    del finish
    return live_answer(
        {"type": "message", "content": [{"type": "text", "text": text}], "stop_reason": "end_turn"}
    )


SHAPES = [
    chat,
    _as_call,
    _as_anthropic,
    lambda text, finish: chat(None, finish, function_call={"arguments": text}),
    lambda text, finish: chat("", finish, reasoning_content=text),
    lambda text, finish: chat([{"type": "text", "text": text}], finish),
    lambda text, _: responses(text),
    lambda text, _: responses(None, items=[{"type": "function_call", "arguments": text}]),
    lambda text, finish: {"choices": [{"text": text, "finish_reason": finish}]},
]


@examples(100)
@given(st.sampled_from(sorted(ANSWERS)), st.sampled_from(SHAPES), st.data())
def test_a_cut_is_never_another_value(kind: str, shape: Any, data: Any) -> None:
    """Wherever an answer stands, however it is packed, and whatever good word it ends with."""
    output, values = ANSWERS[kind]
    value = data.draw(values)
    text = json.dumps({"label": value} if kind == "labels" else value)
    if kind == "labels" and data.draw(st.booleans()):
        text = data.draw(st.sampled_from(LABELLED)) % value
    else:
        text = data.draw(st.sampled_from(["%s", "[%s]", "%s\n%s"])).replace("%s", text)
        text = json.dumps(text) if data.draw(st.booleans()) else text
    text = data.draw(AROUND) + text
    finish = data.draw(st.sampled_from(["stop", "eos", "end_turn", "tool_calls", None]))
    cut = data.draw(st.integers(0, len(text) - 1))

    whole, part = (read(shape(each, finish), output) for each in (text, text[:cut]))

    said = tuple(value.get(f.name) for f in output.fields) if kind != "labels" else (value,)
    assert whole.values in (None, said)
    assert part.values in (None, said)


@pytest.mark.parametrize(
    "text", ['{"label": "Kit', '{"label": "Kitchen"', '"Kitchen', "**Kitchen", "`Garden", "Kitch"]
)
def test_a_label_that_is_left_open_is_none(text: str) -> None:
    """Also where the rest would be a label: ``Garden`` may have been ``Garden furniture``."""
    assert str(read(chat(text), LABELS).status) == "malformed"


# --- one answer, of which nothing is guessed ------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"colour": "red", "price": 1}{"colour": "blue", "price": 1}',
        'First {"colour": "red", "price": 1}, or rather {"colour": "red", "price": 2}',
        f"[{GOOD}, {GOOD.replace('red', 'blue')}]",
        '{"colour": "red", "colour": "blue", "price": 1}',
        '{"colour": "red", "price": 1, "price": 2}',
        '{"colour" : "red", "colour": "blue", "price": 1.5}',
        '{"colour": "red", "colour"\n: "blue", "price": 1.5}',
        '{"colour": "red", "price": }',
        '{"colour": , "price": 9.9}',
        '{"colour": "red" and more, "price": NaN}',
        GOOD + '\n{"colour": "bl',
    ],
)
def test_what_is_said_twice_or_not_at_all_is_malformed(text: str) -> None:
    """Two values that differ are no answer, and what is missing is not filled in."""
    assert str(read(chat(text), FIELDS).status) == "malformed"


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (GOOD, False),
        (f"{GOOD}\n{GOOD}", True),
        (f"[{GOOD}]", True),
        (json.dumps(GOOD), True),
        (f"```json\n{GOOD}\n```", True),
        (f"```json\n{json.dumps(GOOD)}\n```", True),
        (json.dumps(json.dumps(GOOD)), True),
        (f"{{\n// it's red\n{GOOD[1:]}", True),
        (f"{{\n  # red\n{GOOD[1:]}", True),
        (f"> {GOOD}", True),
        (f"<answer>{GOOD}</answer>", True),
        (f"\ufeff{GOOD}", True),
        (f"{GOOD}<|im_end|>", True),
        (f"<think>a</think>{GOOD}\n<think>that was right</think>", False),
        (f'<think type="x">{GOOD.replace("red", "blue")}</think>{GOOD}', False),
        (f"[THINK]{GOOD.replace('red', 'blue')}[/THINK]{GOOD}", False),
        (f"◁think▷{{}}◁/think▷{GOOD}", False),
        (f"<seed:think>{GOOD.replace('9', '8')}</seed:think>\n{GOOD}", False),
        (f"Sure [1]!\n{GOOD}\nIt's done.", True),
        *[(f"{GOOD}{end}", True) for end in ("</think>", "\n[/THINK]", "</think><|im_end|>")],
        *[(f"{fence}json\n{GOOD}\n{fence}\n</think>", True) for fence in ("```", "~~~")],
        (f"<think>a</think>{GOOD}</think>", True),
        (f"Hm.</think>{GOOD}</think></s>", True),
        *[(f"{BLUE} no\n{end}{GOOD}", False) for end in ("</think>", "[/THINK]\n", "◁/think▷")],
        (f"Hm {BLUE}</think> {GOOD}", False),
        (f"Hm, {{'colour': or\n</think>\n{GOOD}", False),
        ("{'colour': 'red', 'price': 9.9,}", True),
        ("{colour: red, price: 9.90}", True),
        ('{"colour": "red" /* sure */, "price": 9.9}', True),
        ('{"colour": "red" "price": 9.9}', True),
        ("{\u201ccolour\u201d: \u201cred\u201d, \u201cprice\u201d: 9.9}", True),
        ('{"colour": "red", "colour": "red", "price": 9.9}', False),
        (f"<think>maybe {{}}</think>\n{GOOD}", False),
        (f"Hm.</think>\n{GOOD}", False),
        (f"<thought>{{}}</thought>\n{GOOD}", False),
        (f"**{GOOD}**", True),
        (f"~~~json\n{GOOD}\n~~~", True),
        (f"{GOOD} where {{x}} is", True),
        ('{"price": 9.90, "colour": "red"}\n' + GOOD, True),
        (f"<Thinking>a</Thinking><reasoning>b</reasoning>{GOOD}", False),
    ],
)
def test_small_faults_are_mended_and_counted(text: str, repaired: bool) -> None:
    """Fences, chatter, commas, quotes and an answer within an answer: validation follows."""
    result = read(chat(text), FIELDS)

    assert (str(result.status), result.values, result.repaired) == ("ok", RED, repaired)


ONE_OR_TWO = [
    *[f'["a"{between}"b"]' for between in (";", " | ", "/", " or ", " + ", "-", " -> ", " & ", "")],
    *['["a", "b" or "c"]', '["a", and "b"]', '["a" , and "b"]', '["a"., "b"]', '["a"? "b"]'],
    *['["a", "b, "c"]', '["a, "b"]', "['it's', 'b']", '["5" pipe", "b"]', '["5", pipe", "b"]'],
    *["[`a`, `b`]", '[\u201ca", "b\u201d]', "[a; b]", "[a | b]", "[a\nb]", '[not "a"]'],
    *['["a"or"b"]', '["12" wide, 4"high"]', '["she said: "hi", then left"]'],
    *['["\\u00e"]', '["a"\\n"b"]', '["a": "b"]', "[1 2]", '["a" "b]', '["a", : "b"]'],
]


@pytest.mark.parametrize("tags", ONE_OR_TWO)
def test_no_text_is_cut_or_joined_to_mend_it(tags: str) -> None:
    """`["a";"b"]` was mended into one text, `["5" pipe"]` into two: values that nobody said."""
    result = read(chat(f'{{"tags": {tags}}}'), TAGS)

    assert (str(result.status), result.values) == ("malformed", None)


@pytest.mark.parametrize(
    "colour",
    [
        *['"red" or "blue"', '"red"/"blue"', '"red" + "mug"', '"red": "mug"', '"red"; "blue"'],
        *['"red', 'red"', "\"red'", '"red...', '"\\u12"', ': "red"', "red # or blue", "`red`"],
    ],
)
def test_no_text_is_closed_to_mend_it(colour: str) -> None:
    """A quote that is missing in the middle is as much of a guess as one at the end."""
    result = read(chat(f'{{"colour": {colour}, "price": 9.9}}'), FIELDS)

    assert (str(result.status), result.values) == ("malformed", None)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ('["a" "b"]', ["a", "b"]),
        ('["a"\n"b",\n]', ["a", "b"]),
        ("['a', 'it\\'s']", ["a", "it's"]),
        ('["the "red" one", "b"]', ['the "red" one', "b"]),
        ('["12" x 8" pipe"]', ['12" x 8" pipe']),
        ('["type"A"unit", "foo"bar"baz"]', ['type"A"unit', 'foo"bar"baz']),
        ("[red mug, https://x.y/z]", ["red mug", "https://x.y/z"]),
        ('["a", // one\n"b"]', ["a", "b"]),
        ('["\\d+\\.", "C:\\Users"]', ["\\d+\\.", "C:\\Users"]),
        ('["a\tb\nc"]', ["a\tb\nc"]),
    ],
)
def test_a_text_is_mended_as_it_stands(tags: str, said: list[str]) -> None:
    """Where one reading is left, small faults cost no row."""
    result = read(chat(f'{{"tags": {tags}}}'), TAGS)

    assert (str(result.status), result.values, result.repaired) == ("ok", (said,), True)


STRAY_ENDS = [
    *[
        "</think>",
        "</think>\n",
        "</reasoning> ",
        "</think><|im_end|>",
        "</think></s>\n",
        "[/THINK]",
    ],
    *["\n[/THINK]", "◁/think▷", "</seed:think>", "\n</think>\n<|eot_id|>"],
    "</think><\uff5cend\u2581of\u2581sentence\uff5c>",
]


@pytest.mark.parametrize("end", STRAY_ENDS)
def test_a_draft_in_thinking_is_no_answer(end: str) -> None:
    """Where the prompt opened the tag and nothing follows its end, however the tag is spelled."""
    for draft in (f'Perhaps {GOOD}, or {{"label": "Kitchen"}}?', f"{GOOD} no wait", "Kitchen"):
        for output in (FIELDS, LABELS, TEXT):
            result = read(chat(draft + end), output)
            assert (str(result.status), result.values) == ("empty", None)


def test_a_stray_tag_makes_no_answer_of_a_draft() -> None:
    """What follows it counts alone; a plain text may name the tag within a line."""
    assert str(read(chat(f"Hm {GOOD}</think> Done."), FIELDS).status) == "malformed"
    assert str(read(chat('Here: {"colour": "x</think>{}'), FIELDS).status) == "malformed"
    assert read(chat("Garden?</think> Kitchen"), LABELS).values == ("Kitchen",)
    named = ["The tag </think> ends it.", "[1] It's </think>, see", "<think>a</think>It's </think>"]
    for text in named:
        assert read(chat(text), TEXT).values == (text.removeprefix("<think>a</think>"),)
    result = read(chat(f"{GOOD}\n</think>"), TEXT)
    assert (result.values, result.repaired) == ((GOOD,), True)


PIECES = st.sampled_from(
    [
        *["<think>", "</think>", "[THINK]", "[/THINK]", "</s>", "```json\n", "\n```", "\n", " "],
        *["{", "}", "[", "]", '"', "'", ",", ":", '"a"', "red", "12", "or", GOOD, BLUE],
    ]
)


@examples(200)
@given(st.lists(PIECES, max_size=10).map("".join), st.booleans())
def test_no_word_is_made_of_tags_and_quotes(text: str, anywhere: bool) -> None:
    """Whatever a text is made of, an answer has its words alone, and thinking is cut out of it."""
    try:
        answer, thinking, _ = split_thinking(text, anywhere=anywhere)
    except UnclosedThinkingError:
        return
    said = re.findall(r"\w+", text)
    for part in (answer, thinking or ""):
        assert set(re.findall(r"\w+", part)) <= set(said)
    assert len(answer) + len(thinking or "") <= len(text) + 2
    with contextlib.suppress(NotJsonError):
        found = json.dumps(find_json(answer).value)
        assert set(re.findall(r"\w+", found)) - {"n", "null"} <= {*said, "12", "0"}


@pytest.mark.parametrize(
    "before", ["", "Sure: ", "```json\n", "<think>a</think>", "<think>{}</think>"]
)
@pytest.mark.parametrize("word", ["<think>x</think>", "a <think> b", "x</think>\n{}", "[THINK]"])
def test_thinking_tags_within_an_answer_are_its_words(before: str, word: str) -> None:
    """Also after chatter: what stands in a string of the JSON was said, and is not thinking."""
    result = read(chat(before + json.dumps({"colour": word, "price": 1})), FIELDS)

    assert (str(result.status), result.values) == ("ok", (word, 1.0))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        *[(f"{m}Kitchen{m}", "Kitchen") for m in ("", "**", "`", '"', "'", "*", "__", " ")],
        *[(t, "Kitchen") for t in ("Kitchen.", "Label: Kitchen", "**Label:** Kitchen", "KITCHEN")],
        *[(f"{a}Kitchen{z}", "Kitchen") for a, z in LABEL_MARKS],
        *[(f"{before} Kitchen", "Kitchen") for before in BEFORE_LABELS],
        *[(f"The answer is {not_it}Kitchen", None) for not_it in ("not ", "non-", "no ", "!")],
        *[(f"Kitchen{after}", None) for after in (": no", ": 0.2", "?", " -", " / ", " and")],
        ("Label: Garden\n\nIt is not Kitchen", None),
        ("Answer: Kitchen\nAnswer: Garden", None),
        ("The answer is", None),
        ("<label>Kitchen", None),
        ("\\boxed{Kitchen", None),
        ('{"label": "not Kitchen"}', None),
        ('{"label": "Kitchen or Garden"}', None),
        ('{"Kitchen": true}', None),
        ("Kitchen\nKitchen", "Kitchen"),
        ("```\nKitchen\n```", "Kitchen"),
        *[(t, "Kitchen") for t in ("Kitchen!", "«Kitchen»", "„Kitchen“", "(Kitchen)", "[Kitchen]")],
        *[
            (t, "Kitchen")
            for t in ("- Kitchen", "• Kitchen", "## Kitchen", "Final answer: Kitchen")
        ],
        *[
            (t, None)
            for t in (
                "Garden...",
                "**Garden..**",
                "(Kitchen",
                "Kitchen,",
                "Kitchen;",
                "- Kitchen\n- Garden",
                "[Kitchen",
            )
        ],
        *[(t, None) for t in ("Kitchen, Garden", "Kitchens", "Not Kitchen", "Kitchen (Garden)")],
        ('{"label": "**Kitchen**"}', "Kitchen"),
        ('{"label": "Garden"}\n{"label": "Garden"}', "Garden"),
        ('[{"label": "Garden furniture"}]', "Garden furniture"),
        ('["Garden"]', "Garden"),
        ('["Garden", "Kitchen"]', None),
        ("<think>Garden?</think>Kitchen", "Kitchen"),
        ('The label is {"label": "Garden"}.', "Garden"),
        ('{"label": "Kitchen"}\n{"label": "Garden"}', None),
        ('{"label": "Kitchen", "label": "Garden"}', None),
        ('{"label" : "Kitchen", "label": "Garden"}', None),
        ('Not {"label": "Garden"}, but Kitchen', None),
        ("Kitchen\nGarden", None),
        ("Kitchen or Garden", None),
        ('{"category": "Shed"}', None),
        ('{"label": null}', None),
        ('{"label": ["Kitchen"]}', None),
        ("Shed", None),
    ],
)
def test_a_label_is_unwrapped_or_refused_by_name(text: str, label: str | None) -> None:
    """A reason names the labels, since it goes to the model, and no null that nobody said."""
    result = read(chat(text), LABELS)

    if label is not None:
        assert (str(result.status), result.values) == ("ok", (label,))
    else:
        assert (str(result.status), result.values) == ("malformed", None)
        assert "Kitchen" in (result.error or "")
        assert ("null" in (result.error or "")) == ("null" in text)


@pytest.mark.parametrize(
    ("body", "output", "values", "repaired"),
    [
        (
            chat(None, "tool_calls", tool_calls=[{"function": {"arguments": GOOD}}]),
            FIELDS,
            RED,
            False,
        ),
        (chat("", tool_calls=[{"function": {"arguments": json.loads(GOOD)}}]), FIELDS, RED, False),
        (chat("I call it.", tool_calls=[{"function": {"arguments": GOOD}}]), FIELDS, RED, False),
        (
            chat("I call it.", tool_calls=[{"function": {"arguments": GOOD}}]),
            TEXT,
            ("I call it.",),
            False,
        ),
        (chat(GOOD, tool_calls=[{"function": {"arguments": GOOD}}]), FIELDS, RED, False),
        (chat(None, "tool_calls", tool_calls=[{"arguments": GOOD}]), FIELDS, RED, False),
        (chat(None, "tool_calls", tool_calls=[{"custom": {"input": GOOD}}]), FIELDS, RED, False),
        (chat([{"type": "tool_use", "input": json.loads(GOOD)}]), FIELDS, RED, False),
        (chat(json.loads(GOOD)), FIELDS, RED, False),
        (chat(None, "function_call", function_call={"arguments": GOOD}), FIELDS, RED, False),
        (
            chat(f'<tool_call>\n{{"name": "f", "arguments": {GOOD}}}\n</tool_call>'),
            FIELDS,
            RED,
            True,
        ),
        (chat(f'<|python_tag|>{{"name": "f", "parameters": {GOOD}}}'), FIELDS, RED, True),
        (
            chat('{"name": "f", "arguments": {"label": "Garden"}}'),
            LABELS,
            ("Garden",),
            True,
        ),
        (
            responses(None, items=[{"type": "custom_tool_call", "input": GOOD}]),
            FIELDS,
            RED,
            False,
        ),
        (chat("", tool_calls=[{"function": {"arguments": json.dumps(GOOD)}}]), FIELDS, RED, True),
        (
            chat(
                None,
                tool_calls=[
                    {"function": {"arguments": text}} for text in (GOOD, GOOD.replace(" ", ""))
                ],
            ),
            FIELDS,
            RED,
            False,
        ),
        (chat(None, reasoning_content=GOOD), FIELDS, RED, True),
        (chat(None, reasoning=GOOD), FIELDS, RED, True),
        (chat('{"tags": "[\\"a\\", \\"b\\"]"}'), TAGS, (["a", "b"],), True),
        (responses(None, items=[{"type": "function_call", "arguments": GOOD}]), FIELDS, RED, False),
        (chat("<think>hm</think>\nA red mug."), TEXT, ("A red mug.",), False),
        (chat("[THINK]hm[/THINK]A red mug."), TEXT, ("A red mug.",), False),
        (chat("A [THINK] red mug."), TEXT, ("A [THINK] red mug.",), False),
        (chat("Use the <b> tag."), TEXT, ("Use the <b> tag.",), False),
        (chat('{"tags": ["</think>"]}'), TAGS, (["</think>"],), False),
    ],
)
def test_an_answer_is_found_where_servers_put_it(
    body: dict[str, Any], output: Output, values: Any, repaired: bool
) -> None:
    """Tool calls, function calls and whole JSON in the reasoning are paid for, so they are read."""
    result = read(body, output)

    assert (str(result.status), result.values, result.repaired) == ("ok", values, repaired)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (chat("<think>hm, let me see"), "truncated"),
        (chat('<think type="x">hm'), "truncated"),
        (chat("[THINK]hm, {"), "truncated"),
        (chat("<think>hm</think>"), "empty"),
        (chat("<reasoning>a</reasoning> <think>b"), "truncated"),
        (chat(None, reasoning_content="I think"), "empty"),
        (chat(None, reasoning_content=GOOD[:-1]), "empty"),
        (chat(None, tool_calls=[{"function": {"arguments": GOOD[:-3]}}]), "malformed"),
        (
            chat(None, tool_calls=[{"function": {"arguments": text}} for text in (GOOD, "{}")]),
            "malformed",
        ),
    ],
)
def test_thinking_and_half_a_call_are_no_answer(body: dict[str, Any], status: str) -> None:
    """Thinking that never ends was cut; a call whose arguments are cut is as any cut answer."""
    assert str(read(body, FIELDS).status) == status


CALLED = [{"function": {"arguments": '{"label": "Garden"}'}}]


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("Kitchen", None),
        ("**Kitchen**", None),
        ("Label: kitchen.", None),
        ('"Kitchen"', None),
        ("Garden", "Garden"),
        ("GARDEN.", "Garden"),
        ("I file it under Kitchen.", "Garden"),
        ("<think>Kitchen?</think>", "Garden"),
        ("<think>Is it {Kitchen}?</think>", "Garden"),
        ("<think>Kitchen? No,", "Garden"),
        ("<think>hm</think>Kitchen", None),
        (" \n", "Garden"),
    ],
)
def test_a_label_beside_a_call_with_another_one(said: str, label: str | None) -> None:
    """Two labels that differ are no answer and both are named; words and thoughts are none."""
    result = read(chat(said, "tool_calls", tool_calls=CALLED), LABELS)

    if label is not None:
        assert (str(result.status), result.values) == ("ok", (label,))
    else:
        assert str(result.status) == "malformed"
        assert re.search("kitchen.*Garden", result.error or "", re.IGNORECASE)


@pytest.mark.parametrize(("text", "label"), [("- 5", None), ("-5", "-5"), ("5.", "5"), ("5", "5")])
def test_a_dash_before_a_number_is_no_bullet(text: str, label: str | None) -> None:
    """Minus five must not become five."""
    result = read(chat(text), output_from_options(labels=["5", "-5"]))

    assert (result.values or (None,))[0] == label


# --- numbers --------------------------------------------------------------------------------------


class Priced(BaseModel):
    """The fields as a class."""

    colour: str
    price: float


class Measured(BaseModel):
    """Floats deeper down."""

    sizes: list[float]


AS_SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string"}, "price": {"type": "number"}},
    "required": ["colour", "price"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("wanted", [Priced, {"colour": str, "price": float}, AS_SCHEMA])
@pytest.mark.parametrize(
    ("price", "status"),
    [
        *[(number, "ok") for number in ("1", "1.5", "-0", "1e300", '"2.5"', "0.1e-7")],
        *[(number, "malformed") for number in ("NaN", "Infinity", "-Infinity", "1e999", "null")],
        *[(f'"{text}"', "malformed") for text in ("nan", "NaN", "inf", "-Infinity", "x", "")],
        *[(f'"{text}"', "malformed") for text in ("1e999", "-1E+400")],
        ("1" + "0" * 400, "malformed"),
    ],
)
def test_no_validator_takes_nan_for_a_number(wanted: Any, price: str, status: str) -> None:
    """A class, a dict of types and a JSON Schema agree on what a number is."""
    output = output_from_options(response_model=wanted)

    assert str(read(chat(f'{{"colour": "red", "price": {price}}}'), output).status) == status


@pytest.mark.parametrize("wanted", [Measured, {"sizes": list[float]}])
def test_nan_is_found_within_lists(wanted: Any) -> None:
    """Also where pydantic would turn a text into infinity."""
    output = output_from_options(response_model=wanted)
    bodies = [chat(f'{{"sizes": [1.0, {item}]}}') for item in ("2.5", '"inf"', '"nan"', "1e400")]

    assert [str(read(body, output).status) for body in bodies] == ["ok", *["malformed"] * 3]


def test_infinity_is_named_where_the_class_is_not_at_hand() -> None:
    """JSON has null for it, of which nobody spoke; the reason goes to the model as feedback."""
    stored = Output(output_from_options(response_model=Priced).spec)

    made = read(chat('{"colour": "red", "price": "1e999"}'), stored)
    assert made.error is not None
    assert "inf is not a number" in made.error


@pytest.mark.parametrize("name", ["a/b", "a~b", "a b", "é"])
def test_a_reference_may_escape_its_names(name: str) -> None:
    """JSON Pointer writes a slash as ~1 and a URI a blank as %20: the type behind is not lost."""
    pointer = quote(name.replace("~", "~0").replace("/", "~1"), safe="~")
    output = output_from_options(
        response_model={
            "type": "object",
            "properties": {"n": {"$ref": f"#/$defs/{pointer}"}},
            "required": ["n"],
            "$defs": {name: {"type": "integer"}},
        }
    )

    assert [field.kind for field in output.fields] == ["integer"]
    assert str(read(chat('{"n": "x"}'), output).status) == "malformed"
    assert str(read(chat('{"n": 3}'), output).status) == "ok"


# --- reasons --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "status", "reason"),
    [
        ({"object": "error", "message": "too long", "code": 400}, 400, "failed", "too long"),
        ({"detail": "Not Found"}, 404, "failed", "HTTP 404: Not Found"),
        (
            {"success": False, "errors": [{"code": 7003, "message": "No route"}]},
            404,
            "failed",
            "HTTP 404: 7003: No route",
        ),
        (
            {"error": {"code": "400", "inner_error": {"code": "ResponsibleAIPolicyViolation"}}},
            400,
            "refused",
            "HTTP 400",
        ),
        ({"detail": [{"loc": ["body", "n"], "msg": "none"}]}, 422, "failed", "body.n: none"),
        ([{"error": {"code": 400, "message": "Unknown name x"}}], 400, "failed", "Unknown name x"),
        ({"object": "error", "message": {"detail": [{"msg": "bad"}]}}, 422, "failed", "bad"),
        ("Bad gateway", 502, "failed", "HTTP 502: Bad gateway"),
        ({"object": "error", "message": "busy"}, 200, "failed", "busy"),
        ({"error": {"code": "content_filter", "message": "no"}}, 400, "refused", "content_filter"),
        (
            {"error": {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            400,
            "refused",
            "",
        ),
    ],
)  # fmt: skip
def test_servers_say_what_failed_in_many_shapes(
    body: Any, code: int, status: str, reason: str
) -> None:
    """The user reads what the server said, whichever server it is."""
    result = read(body, TEXT, code)

    assert (str(result.status), reason in (result.error or "")) == (status, True)


def test_an_error_of_nulls_beside_an_answer_is_none() -> None:
    """Some servers fill in every member of a line."""
    body = {**chat("A mug."), "error": {"code": None, "message": None}}

    result = read(body, TEXT, error={"code": None, "message": None})

    assert (str(result.status), result.values) == ("ok", ("A mug.",))


def test_thinking_is_kept_beside_the_answer() -> None:
    """It goes into ``<name>_reasoning``, and no part of it into the value."""
    seen = [
        read(body, TEXT).reasoning
        for body in (
            chat("<think>\nhm </think>\nA mug."),
            chat("A mug.", reasoning_content="hm"),
            chat("A mug."),
        )
    ]

    assert seen == ["hm", "hm", None]


class Counted(BaseModel):
    """A field that may be absent."""

    pieces: int
    spare: int | None = None


@pytest.mark.parametrize("text", ['{"pieces": 1, "pieces": 2}', '{"pieces" : 1, "pieces": 2}'])
def test_a_key_twice_is_no_answer_where_another_may_be_absent(text: str) -> None:
    """The quick reader must not take the second key for the absent one."""
    assert str(read(chat(text), output_from_options(response_model=Counted)).status) == "malformed"


Choice = Literal["red", "dark blue"]


def test_a_choice_in_another_case_is_the_choice() -> None:
    """Nothing is guessed: one choice is meant, and the answer is not called repaired."""
    output = output_from_options(response_model={"colour": Choice})

    result = read(chat('{"colour": "Dark  Blue"}'), output)

    assert (result.values, result.repaired) == (("dark blue",), False)


class Sale(BaseModel):
    """Dates of each kind, one of them within a list."""

    day: date
    at: list[datetime | None]
    took: timedelta | None = None
    opens: time | None = None


@pytest.mark.parametrize("form", ["class", "stored", "types"])
@pytest.mark.parametrize(
    ("field", "said"),
    [
        *[("at", [each]) for each in (2024, "2024", 20240209, "20240209", 1.5, "1e9", " 5 ", 0)],
        *[("day", each) for each in (0, 1707436800, "1707436800")],
        *[("opens", each) for each in (0, 90, "5")],
    ],
)
def test_a_number_is_no_date(form: str, field: str, said: Any) -> None:
    """`"20240209"` was read as 20,240,209 seconds: a morning in August 1970, and `ok`."""
    outputs = {
        "class": output_from_options(response_model=Sale),
        "types": output_from_options(
            response_model={
                "day": date,
                "at": list[datetime | None],
                "took": timedelta | None,
                "opens": time | None,
            }
        ),
    }
    output = outputs.get(form) or Output(outputs["class"].spec)
    whole = {"day": "2024-02-09", "at": ["2024-02-09T10:00:00Z", None], "took": "PT5M"}
    whole["opens"] = "09:30"
    wanted = "a time" if field == "opens" else "a date or a time"

    assert str(read(chat(json.dumps(whole)), output).status) == "ok"
    result = read(chat(json.dumps({**whole, field: said})), output)
    assert str(result.status) == "malformed"
    assert f"is a number where {wanted} is wanted" in str(result.error)


@pytest.mark.parametrize("said", ["nan", "infinity", "1_000", True, "١٩٧٠"])
@pytest.mark.parametrize("field", ["day", "at"])
def test_what_is_no_number_is_not_called_one(field: str, said: Any) -> None:
    """Python's `float` takes these, JSON and pydantic do not: the reason is pydantic's."""
    whole = {"day": "2024-02-09", "at": ["2024-02-09T10:00:00Z"]}
    odd = {**whole, field: [said] if field == "at" else said}

    result = read(chat(json.dumps(odd)), output_from_options(response_model=Sale))

    assert str(result.status) == "malformed"
    assert "is a number" not in str(result.error)


def test_a_number_of_seconds_is_a_duration() -> None:
    """Of a duration nothing is counted from 1970."""
    output = output_from_options(response_model={"took": timedelta})

    for said in (90, "PT1M30S"):
        assert str(read(chat(json.dumps({"took": said})), output).status) == "ok"


def test_a_class_may_make_dates_of_numbers_itself() -> None:
    """A validator of the user's own decides, and so does a form that takes both."""

    class Year(BaseModel):
        since: date

        @field_validator("since", mode="before")
        @classmethod
        def _of_year(cls, said: Any) -> Any:
            return f"{said}-01-01" if isinstance(said, int) else said

    either = output_from_options(response_model={"since": int | date})
    for output, value in ((output_from_options(response_model=Year), "2024-01-01"), (either, 2024)):
        result = read(chat('{"since": 2024}'), output)
        assert (str(result.status), str((result.values or ("",))[0])) == ("ok", str(value))
