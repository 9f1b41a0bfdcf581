"""Answers as models and providers really write them, and what each becomes: one table.

The same table stands in ANSWER_SHAPES.md for people; as a script this file writes it anew::

    uv run python tests/answers/test_answer_shapes.py
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from blocks import read_lines
from pydantic import BaseModel, Field

from frameenrich.answers.judge import read_result, result_of
from frameenrich.answers.output import Output
from frameenrich.model import Response
from frameenrich.prepare.output_options import output_from_options

NO_LABEL = " is not one of the 2 labels: 'Kitchen', 'Garden & Patio'"
PAGE = Path(__file__).parent / "ANSWER_SHAPES.md"


class Size(BaseModel):
    """A nested object."""

    width: float = Field(gt=0)
    unit: Literal["cm", "in"] = "cm"


class Mug(BaseModel):
    """What the tables asks of a model, where it asks for an object."""

    colour: Literal["red", "dark blue"]
    price: Decimal
    sold: int = 0
    since: dt.date | None = None
    sizes: list[Size] = []


def two_parts(text: str) -> dict[str, str]:
    """Split ``A | B``."""
    left, bar, right = text.partition("|")
    if not bar:
        raise ValueError("no bar between the two")
    return {"en": left.strip(), "de": right.strip()}


OUTPUTS: dict[str, Output] = {
    "text": output_from_options(),
    "labels": output_from_options(labels=["Kitchen", "Garden & Patio"]),
    "model": output_from_options(response_model=Mug),
    "parser": output_from_options(parser=two_parts),
}
GOOD = '{"colour": "red", "price": "9.90"}'
MUG: tuple[Any, ...] = ("red", 9.9, 0, None, [])


# --- bodies ---------------------------------------------------------------------------------------


def chat(content: Any, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """Return the body of a chat answer."""
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": finish}]}


def responses(*texts: str, reason: str | None = None, refusal: str | None = None) -> dict[str, Any]:
    """Return the body of a Responses answer, a part a text."""
    parts: list[dict[str, Any]] = [{"type": "output_text", "text": text} for text in texts]
    parts += [{"type": "refusal", "refusal": refusal}] if refusal else []
    output = [{"type": "reasoning", "summary": []}, {"type": "message", "content": parts}]
    return {
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
    }


def completion(text: Any, finish: str = "stop") -> dict[str, Any]:
    """Return the body of a plain completion."""
    return {"choices": [{"text": text, "finish_reason": finish}]}


def told(message: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of an HTTP error."""
    return {"error": {"message": message, "type": "some_error", "code": code}}


@dataclass(frozen=True)
class Shape:
    """One row: what was asked for, what came, and what it becomes.

    `error` is the whole reason, or its beginning where it ends in an ellipsis.
    """

    name: str
    endpoint: str
    asked: str
    came: Any
    status: str = "ok"
    values: tuple[Any, ...] | None = None
    error: str | None = None
    repaired: bool = False
    code: int | None = 200
    line_error: str | None = None


def ok(name: str, endpoint: str, asked: str, came: Any, *values: Any, **more: Any) -> Shape:
    """Return a shape that has values."""
    return Shape(name, endpoint, asked, came, "ok", values, **more)


def bad(
    name: str, endpoint: str, asked: str, came: Any, status: str, error: str, **more: Any
) -> Shape:
    """Return a shape that is flagged."""
    return Shape(name, endpoint, asked, came, status, None, error, **more)


CUT = "cut at the token limit; regenerate asks with twice the limit"
FILTER = "stopped by the provider's content filter"
NO_TEXT = "the answer holds no text"
FENCE = f"```json\n{GOOD}\n```"
SHAPES = [
    # plain text
    ok("plain text", "chat", "text", chat("A red mug."), "A red mug."),
    ok("text with U+2028 in it", "chat", "text", chat("a\u2028b"), "a\u2028b"),
    ok("content parts", "chat", "text", chat([{"type": "text", "text": "A mug."}]), "A mug."),
    ok("two output_text parts", "responses", "text", responses("A red ", "mug."), "A red mug."),
    ok("plain completion", "completions", "text", completion(" A mug."), " A mug."),
    # labels
    ok("label as asked", "chat", "labels", chat('{"label": "Kitchen"}'), "Kitchen"),
    ok("label in other case", "chat", "labels", chat('{"label": "KITCHEN"}'), "Kitchen"),
    ok(
        "label with other spacing",
        "responses",
        "labels",
        responses('{"label": " garden  &\\tpatio "}'),
        "Garden & Patio",
    ),
    ok("label alone, quoted", "chat", "labels", chat('"Kitchen"'), "Kitchen"),
    ok("label alone, as a sentence", "chat", "labels", chat("Kitchen.\n"), "Kitchen"),
    ok(
        "label in a fence",
        "chat",
        "labels",
        chat('```json\n{"label": "Kitchen"}\n```'),
        "Kitchen",
        repaired=True,
    ),
    ok(
        "label beside its reason",
        "chat",
        "labels",
        chat('{"why": "It is a mug.", "label": "Kitchen"}'),
        "Kitchen",
    ),
    bad(
        "label nobody asked for",
        "chat",
        "labels",
        chat('{"label": "Kitchenware"}'),
        "malformed",
        f"$.label: 'Kitchenware'{NO_LABEL}",
    ),
    bad(
        "two labels in a sentence",
        "chat",
        "labels",
        chat("Kitchen or Garden & Patio"),
        "malformed",
        f"$.label: 'Kitchen or Garden & Patio'{NO_LABEL}",
    ),
    bad(
        "label with other punctuation",
        "chat",
        "labels",
        chat('{"label": "Garden and Patio"}'),
        "malformed",
        f"$.label: 'Garden and Patio'{NO_LABEL}",
    ),
    # objects
    ok("object as asked", "chat", "model", chat(GOOD), *MUG),
    ok("object in the Responses API", "responses", "model", responses(GOOD), *MUG),
    ok("object in a fence", "chat", "model", chat(FENCE), *MUG, repaired=True),
    ok(
        "object after chatter",
        "chat",
        "model",
        chat(f"Sure! Here is your JSON:\n\n{GOOD}\n\nAnything else?"),
        *MUG,
        repaired=True,
    ),
    ok("trailing comma", "chat", "model", chat(GOOD[:-1] + ",}"), *MUG, repaired=True),
    ok("single quotes", "chat", "model", chat(GOOD.replace('"', "'")), *MUG, repaired=True),
    ok(
        "after a chain of thought",
        "chat",
        "model",
        chat(f"<think>red?</think>{GOOD}"),
        *MUG,
    ),
    ok(
        "choice in other case",
        "chat",
        "model",
        chat('{"colour": "Dark  Blue", "price": 1}'),
        "dark blue", 1.0, 0, None, [],
    ),
    ok(
        "choice in other case, nested",
        "chat",
        "model",
        chat('{"colour": "red", "price": 1, "sizes": [{"width": 8, "unit": "CM"}]}'),
        "red", 1.0, 0, None, [{"width": 8.0, "unit": "cm"}],
    ),
    ok(
        "numbers as text",
        "chat",
        "model",
        chat('{"colour": "red", "price": "1e1", "sold": "3"}'),
        "red", 10.0, 3, None, [],
    ),
    ok(
        "a date",
        "chat",
        "model",
        chat('{"colour": "red", "price": 1, "since": "1512-02-29"}'),
        "red", 1.0, 0, "1512-02-29", [],
    ),
    ok(
        "null where one may be",
        "chat",
        "model",
        chat('{"colour": "red", "price": 1, "since": null}'),
        "red", 1.0, 0, None, [],
    ),
    bad(
        "choice nobody asked for",
        "chat",
        "model",
        chat('{"colour": "reddish", "price": 1}'),
        "malformed",
        "$.colour: Input should be 'red' or 'dark blue'",
    ),
    bad(
        "no such day",
        "chat",
        "model",
        chat('{"colour": "red", "price": 1, "since": "1513-02-29"}'),
        "malformed",
        "$.since: Input should be a valid date…",
    ),
    bad(
        "wrong deep inside",
        "chat",
        "model",
        chat('{"colour": "red", "price": 1, "sizes": [{"width": 1}, {"width": 0}]}'),
        "malformed",
        "$.sizes[1].width: Input should be greater than 0",
    ),
    bad(
        "property missing",
        "chat",
        "model",
        chat('{"price": 1}'),
        "malformed",
        "$.colour: Field required",
    ),
    bad(
        "too large an integer",
        "chat",
        "model",
        chat(f'{{"colour": "red", "price": 1, "sold": {2**63}}}'),
        "malformed",
        "$.sold: the integer does not fit in 64 bits",
    ),
    bad(
        "no JSON",
        "chat",
        "model",
        chat("I cannot tell."),
        "malformed",
        "$: Not JSON: 'I cannot tell.' has no object in it",
    ),
    ok("a list of the one object", "chat", "model", chat(f"[{GOOD}]"), *MUG, repaired=True),
    bad("a list", "chat", "model", chat("[1]"), "malformed", "$: the answer is not a JSON object"),
    bad(
        "a bare number",
        "chat",
        "model",
        chat("7"),
        "malformed",
        "$: the answer is not a JSON object",
    ),
    # a parser
    ok("two parts", "chat", "parser", chat("mug | Becher"), {"en": "mug", "de": "Becher"}),
    bad(
        "what the parser refuses",
        "completions",
        "parser",
        completion("mug, Becher"),
        "malformed",
        "no bar between the two",
    ),
    # answers that are none
    bad("cut at the cap", "chat", "model", chat(GOOD[:9], "length"), "truncated", CUT),
    bad("whole, though cut at the cap", "chat", "text", chat("A mug", "length"), "truncated", CUT),
    bad(
        "cut at the cap",
        "responses",
        "model",
        responses(GOOD[:9], reason="max_output_tokens"),
        "truncated",
        CUT,
    ),
    bad("cut at the cap", "completions", "text", completion("A mu", "length"), "truncated", CUT),
    bad("a refusal", "chat", "text", chat(None, refusal="I can't."), "refused", "I can't."),
    bad("a refusal", "responses", "model", responses(refusal="No."), "refused", "No."),
    bad("filtered", "chat", "text", chat(None, "content_filter"), "refused", FILTER),
    bad(
        "filtered", "responses", "text", responses("A", reason="content_filter"), "refused", FILTER
    ),
    bad("content null", "chat", "text", chat(None), "empty", NO_TEXT),
    bad("content blank", "chat", "labels", chat(" \n"), "empty", NO_TEXT),
    bad("no output but reasoning", "responses", "text", responses(), "empty", NO_TEXT),
    bad("text null", "completions", "text", completion(None), "empty", NO_TEXT),
    bad("no choices", "chat", "text", {"choices": []}, "empty", NO_TEXT),
    # failures
    bad(
        "refused request",
        "chat",
        "text",
        told("Too long.", "context_length_exceeded"),
        "failed",
        "HTTP 400: context_length_exceeded: Too long.",
        code=400,
    ),
    bad(
        "server error",
        "responses",
        "text",
        told("Try again."),
        "failed",
        "HTTP 500: some_error: Try again.",
        code=500,
    ),
    bad("status 0, no body", "chat", "text", {}, "failed", "HTTP 0 without a reason", code=0),
    bad("an error in a 200", "chat", "text", told("Too busy."), "failed", "some_error: Too busy."),
    bad(
        "a page of HTML",
        "chat",
        "text",
        "<html>502</html>",
        "failed",
        "HTTP 502: a web page: 502",
        code=502,
    ),
    *[
        bad(f"an error {name}", "chat", "text", came, "failed", f"HTTP 422: {said}", code=422)
        for name, came, said in [
            ("as a list", {"error": ["Too long.", {"message": "No."}]}, "Too long.; No."),
            ("as a text", {"error": "Too long."}, "Too long."),
            ("in an error", {"error": {"error": {"error": "Too long."}}}, "Too long."),
            (
                "of FastAPI",
                {"detail": [{"loc": ["body", "n"], "msg": "Too large.", "type": "int"}]},
                "body.n: Too large.",
            ),
            ("in detail", {"detail": {"error": "Too long."}}, "Too long."),
            ("of OAuth", {"error": "no", "error_description": "Too long."}, "no: Too long."),
            (
                "of JSON in a message",
                {"error": {"code": 422, "message": json.dumps({"error": {"message": "No."}})}},
                "No.",
            ),
            (
                "in a proxy's page",
                "<!DOCTYPE html><head><title>Bad  Gateway &amp; co</title></head><p>x</p>",
                "a web page: Bad Gateway & co",
            ),
            ("in a page without words", "<html><hr></html>", "a web page without words"),
            ("as plain text", "upstream connect error", "upstream connect error"),
            ("without words", {"oops": 1}, '{"oops": 1}'),
        ]
    ],
    bad(
        "expired line",
        "chat",
        "text",
        None,
        "expired",
        "batch_expired: Not in time.",
        code=None,
        line_error="batch_expired: Not in time.",
    ),
    bad(
        "cancelled line",
        "chat",
        "text",
        None,
        "cancelled",
        "batch_cancelled: On request.",
        code=None,
        line_error="batch_cancelled: On request.",
    ),
    bad(
        "neither response nor error",
        "chat",
        "text",
        None,
        "failed",
        "the provider sent no response for this request",
        code=None,
    ),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.endpoint}, {shape.name}")
def test_an_answer_becomes_what_the_table_says(shape: Shape) -> None:
    """Status, values, reason and whether it was repaired; for every endpoint of text."""
    result = result_of(
        Response("r", shape.code, shape.came, shape.line_error), OUTPUTS[shape.asked]
    )

    found = (str(result.status), result.values, result.repaired)
    assert (shape.status, shape.values, shape.repaired) == found
    if shape.error is not None and shape.error.endswith("…"):
        assert str(result.error).startswith(shape.error[:-1])
    else:
        assert shape.error == result.error


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.endpoint}, {shape.name}")
def test_a_line_of_a_file_becomes_the_same(shape: Shape) -> None:
    """The short way that ordinary chat lines take gives what the long way gives."""
    response = None if shape.came is None else {"status_code": shape.code, "body": shape.came}
    code, _, message = (shape.line_error or "").partition(": ")
    error = {"code": code, "message": message} if code else None
    line = json.dumps({"custom_id": "r", "response": response, "error": error}).encode()
    output = OUTPUTS[shape.asked]

    result = result_of(Response("r", shape.code, shape.came, shape.line_error), output)

    assert result == read_result(line, output)
    assert [result] == read_lines([line], output)


def test_the_table_is_long_and_wide_enough() -> None:
    """At least 40 shapes, each endpoint and each status that an answer can have among them."""
    assert len(SHAPES) >= 40
    assert {shape.endpoint for shape in SHAPES} == {"chat", "responses", "completions"}
    assert {shape.status for shape in SHAPES} == {
        "ok", "malformed", "truncated", "refused", "empty", "failed", "expired", "cancelled",
    }  # fmt: skip


def test_the_page_shows_the_table() -> None:
    """ANSWER_SHAPES.md is written by this file and nobody else."""
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python tests/answers/test_answer_shapes.py"
    )


# --- the page -------------------------------------------------------------------------------------


def page() -> str:
    """Return the table as Markdown."""
    head = (
        "# Answer shapes\n\n"
        f"{len(SHAPES)} shapes of answers and what becomes of them. Made and checked by "
        "`tests/answers/test_answer_shapes.py`; do not edit.\n\n"
        "Asked for: *text*; *labels* (Kitchen, Garden & Patio); *model* (`colour: red or dark "
        "blue`, `price: Decimal`, `sold: int = 0`,\n`since: date or null = null`, "
        "`sizes: list of {width > 0, unit: cm or in = cm} = []`); "
        "*parser* (`en | de`).\n\n"
        "| # | endpoint | asked for | what came | | status | value, or reason |\n"
        "|--:|---|---|---|---|---|---|\n"
    )
    return head + "".join(f"{_row(number, shape)}\n" for number, shape in enumerate(SHAPES, 1))


def _row(number: int, shape: Shape) -> str:
    status = f"{shape.status}, repaired" if shape.repaired else shape.status
    reason = (shape.error or "").replace("<", "&lt;")
    value = reason if shape.values is None else _shown_values(shape)
    came = _code(_came(shape))
    cells = [shape.endpoint, shape.asked, shape.name, came, status, value]
    return f"| {number} | " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _shown_values(shape: Shape) -> str:
    assert shape.values is not None
    values: Any = shape.values[0]
    if shape.asked == "model":
        values = dict(zip(Mug.model_fields, shape.values, strict=True))
    return _code(json.dumps(values, ensure_ascii=False).replace("\u2028", r"\u2028"))


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _came(shape: Shape) -> str:
    """Return what is special of an answer, on one line."""
    if shape.line_error is not None:
        return shape.line_error
    if not isinstance(shape.came, dict):
        return f"HTTP {shape.code}: {shape.came}" if shape.code else "no response"
    if shape.code != 200 or "error" in shape.came:
        return f"HTTP {shape.code}: {json.dumps(shape.came)}"
    said, refusal, finish = _said(shape.came)
    shown = said.encode("unicode_escape").decode() if isinstance(said, str) else json.dumps(said)
    shown += f" + refusal: {refusal}" if refusal else ""
    return shown + (f" + finished by: {finish}" if finish not in {None, "stop"} else "")


def _said(body: dict[str, Any]) -> tuple[Any, str | None, str | None]:
    """Return what an answer says, refuses and was finished by."""
    if "output" in body:
        parts = body["output"][-1]["content"]
        texts = [part["text"] for part in parts if "text" in part]
        refusals = [part["refusal"] for part in parts if "refusal" in part]
        reason = (body["incomplete_details"] or {}).get("reason")
        return " + ".join(texts) or None, "".join(refusals), reason
    if not body["choices"]:
        return [], None, None
    choice = body["choices"][0]
    message = choice.get("message", {"content": choice.get("text")})
    return message["content"], message.get("refusal"), choice["finish_reason"]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
