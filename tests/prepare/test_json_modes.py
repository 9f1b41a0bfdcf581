"""`json_mode=`: structure asked for as a server takes it, and answers validated the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import openai
import pandas as pd
import pytest
from batch_server import BatchServer, Reply
from pydantic import BaseModel, Field

from frameenrich.errors import FrameEnrichWarning, OutputError, ParameterError
from frameenrich.model import JobSpec, Message
from frameenrich.prepare.json_modes import Asking, best_mode, choose_asking
from frameenrich.prepare.output_options import labels_spec
from frameenrich.prepare.submit_options import Options
from frameenrich.providers.anthropic import translate as anthropic
from frameenrich.providers.gemini import translate as gemini
from frameenrich.providers.mistral import translate as mistral
from frameenrich.verbs.submit import prepare, submit_frame

FIELDS = {"colour": str, "price": float}
ASK = "What is {{ title }}?"
MODES = ["schema", "object", "tools", "prompt"]


def body_of(frame: pd.DataFrame, store: Path, **options: Any) -> dict[str, Any]:
    """Return the body of the first request that a submit would send."""
    job = frame.llmbatch.submit(
        ASK, options.pop("model", "gpt-4o-mini"), provider="file", store=store, **options
    )
    body: dict[str, Any] = json.loads(Path(job.requests[0]).read_text().splitlines()[0])["body"]
    return body


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("mode", MODES)
def test_each_mode_asks_in_its_way(
    mode: str, endpoint: str, mugs: pd.DataFrame, store: Path
) -> None:
    """By a schema, an object with the schema in words, a forced tool call, or words alone."""
    body = body_of(
        mugs, store, response_model=FIELDS, json_mode=mode, endpoint=endpoint, system="Be {brief}."
    )
    chat = endpoint == "/v1/chat/completions"
    turns = body["messages" if chat else "input"]
    asked = body.get("response_format") if chat else body.get("text", {}).get("format")
    in_words = '"colour"' in turns[0]["content"]

    assert turns[0]["role"] == "system"
    assert turns[0]["content"].startswith("Be {brief}.")
    assert in_words == (mode in {"object", "prompt"})
    assert (asked or {}).get("type") == {"schema": "json_schema", "object": "json_object"}.get(mode)
    if mode == "tools":
        (tool,), choice = body["tools"], body["tool_choice"]
        tool, choice = (tool["function"], choice["function"]) if chat else (tool, choice)
        assert tool["name"] == choice["name"] == "answer"
        assert set(tool["parameters"]["properties"]) == {"colour", "price"}
        assert tool["strict"]
    else:
        assert "tools" not in body


@pytest.mark.parametrize("mode", MODES)
def test_answers_are_validated_the_same(
    mode: str, mugs: pd.DataFrame, server: BatchServer, client: openai.OpenAI, store: Path
) -> None:
    """A wrong type is malformed however it was asked for; a right one is the same columns."""
    said = ['{"colour": "red", "price": 9.5}', '{"colour": "red", "price": "much"}']

    def answer(body: Any, _: str) -> Reply:
        text = said["hose" in body["messages"][-1]["content"]]
        if mode != "tools":
            return Reply(content=text)
        call = {"id": "c", "type": "function", "function": {"name": "answer", "arguments": text}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Reply(body={"model": "m", "choices": [choice]})

    server.answer = answer
    frame = mugs.iloc[:2]
    frame.llmbatch.submit(
        ASK, "gpt-4o-mini", response_model=FIELDS, json_mode=mode, client=client, store=store
    )
    out = frame.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert out["llmbatch_status"].tolist() == ["ok", "malformed"]
    assert out["price"].iloc[0] == 9.5


def test_the_same_submit_in_another_mode_is_another_job(mugs: pd.DataFrame, store: Path) -> None:
    """And one that says what auto decides is the same."""
    ids = {
        mode: mugs.llmbatch.submit(
            ASK, "m", response_model=FIELDS, json_mode=mode, provider="file", store=store
        ).id
        for mode in ["auto", *MODES]
    }

    assert ids["auto"] == ids["schema"]
    assert len(set(ids.values())) == len(MODES)


@pytest.mark.parametrize(
    ("provider", "server", "model", "mode"),
    [
        ("openai", "api.openai.com", "gpt-4o-mini", "schema"),
        ("openai", "api.openai.com", "gpt-3.5-turbo", "object"),
        ("openai", "api.openai.com", "ft:gpt-3.5-turbo:us::1", "object"),
        ("openai", "api.openai.com", "gpt-4", "tools"),
        ("azure", "x.openai.azure.com", "gpt-4", "schema"),
        ("file", "", "gpt-3.5-turbo-0125", "object"),
        ("groq", "api.groq.com", "llama-3.3-70b-versatile", "object"),
        ("groq", "api.groq.com", "openai/gpt-oss-120b", "schema"),
        ("live", "api.groq.com", "llama-3.1-8b-instant", "object"),
        ("live", "api.deepseek.com", "deepseek-chat", "object"),
        ("file", "", "deepseek-chat", "object"),
        ("together", "api.together.ai", "deepseek-ai/DeepSeek-V3", "schema"),
        ("live", "localhost", "qwen3", "schema"),
        ("mistral", "", "mistral-small-latest", "schema"),
        ("anthropic", "", "claude-haiku-4-5", "schema"),
        ("gemini", "", "gemini-2.5-flash", "schema"),
        ("local", "", "smollm2-135m", "schema"),
    ],
)
def test_auto_takes_the_best_that_is_known(
    provider: str, server: str, model: str, mode: str
) -> None:
    """A schema wherever nothing speaks against it."""
    assert best_mode(provider, server, model) == mode


def test_auto_in_words_reaches_preview_and_submit(mugs: pd.DataFrame, store: Path) -> None:
    """What preview shows is what submit sends, also where a server takes no schema."""
    options: dict[str, Any] = {"response_model": FIELDS, "provider": "file"}
    shown = mugs.llmbatch.preview(ASK, "deepseek-chat", n=1, **options)
    body = body_of(mugs, store, response_model=FIELDS, model="deepseek-chat")

    assert body["response_format"] == {"type": "json_object"}
    assert "json" in body["messages"][0]["content"]
    assert shown.requests[0][1] == body


def test_what_auto_decides_otherwise_now_finds_the_older_job(
    mugs: pd.DataFrame, store: Path
) -> None:
    """A newer table must not make a job be paid again: the one with the schema is found."""
    options = Options(response_model=FIELDS, provider="file", store=store)
    now = prepare(ASK, "deepseek-chat", options)
    assert now.plan.spec.asked_by == "object"
    plan = now.plan.asking(Asking("schema"))
    older = submit_frame(mugs, replace(now, plan=plan))

    with pytest.warns(FrameEnrichWarning, match=f"The job {older.id} of an earlier version"):
        again = mugs.llmbatch.submit(
            ASK, "deepseek-chat", response_model=FIELDS, provider="file", store=store
        )

    assert again.id == older.id
    assert JobSpec.from_json(plan.spec.to_json()) == plan.spec


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"json_mode": "xml", "response_model": FIELDS}, ParameterError, "'xml' is not known"),
        ({"json_mode": "object"}, OutputError, "no structure is"),
        (
            {"json_mode": "tools", "response_model": FIELDS, "params": {"tools": []}},
            ParameterError,
            "'tools' beside",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(
    options: Any, error: type[Exception], words: str, mugs: pd.DataFrame, store: Path
) -> None:
    """With the option and the way out in the message, before anything is sent."""
    with pytest.raises(error, match=words):
        mugs.llmbatch.submit(ASK, "m", provider="file", store=store, **options)


# --- providers with a format of their own ---------------------------------------------------------


def test_tools_and_words_are_translated_for_other_apis(mugs: pd.DataFrame, store: Path) -> None:
    """A forced tool call in each API's own words; Anthropic has no mere object, and says so."""
    tools = body_of(mugs, store, response_model=FIELDS, json_mode="tools")
    words = body_of(mugs, store, response_model=FIELDS, json_mode="prompt")
    loose = body_of(mugs, store, response_model=FIELDS, json_mode="object")

    made = anthropic.message_params(tools)
    assert made["tool_choice"] == {"type": "tool", "name": "answer"}
    assert set(made["tools"][0]["input_schema"]["properties"]) == {"colour", "price"}
    assert "JSON Schema" in anthropic.message_params(words)["system"]
    with pytest.raises(ParameterError, match="json_mode='schema', 'tools' or 'prompt'"):
        anthropic.message_params(loose)
    asked = gemini.generate_request(tools)
    calling = asked["tool_config"]["function_calling_config"]
    assert calling == {"mode": "ANY", "allowed_function_names": ["answer"]}
    assert asked["tools"][0]["function_declarations"][0]["parameters_json_schema"]["properties"]
    part = {"functionCall": {"name": "answer", "args": {"colour": "red", "price": 9.5}}}
    line = {"key": "a", "response": {"candidates": [{"content": {"parts": [part]}}]}}
    message = json.loads(gemini.response_line(json.dumps(line).encode()))["response"]["body"]
    called = message["choices"][0]["message"]["tool_calls"][0]["function"]
    assert called == {"name": "answer", "arguments": {"colour": "red", "price": 9.5}}
    assert mistral.chat_body(tools)["tool_choice"]["function"] == {"name": "answer"}


def test_the_local_model_refuses_tools_before_anything_is_written(
    mugs: pd.DataFrame, store: Path
) -> None:
    """It is held to the schema itself."""
    with pytest.raises(ParameterError, match="cannot call tools"):
        mugs.llmbatch.submit(
            ASK,
            "smollm2-135m",
            response_model=FIELDS,
            json_mode="tools",
            provider="local",
            store=store,
        )


# --- choices that are too large for a schema ------------------------------------------------------


MANY = [f"category number {i}" for i in range(1_200)]


class Goods(BaseModel):
    """A field with more choices than a schema may have, and one with few."""

    kind: Literal[tuple(MANY)]  # type: ignore[valid-type]
    size: Literal["s", "l"] = Field(description="how large")


@pytest.mark.parametrize("way", [{"labels": MANY}, {"response_model": Goods}])
def test_large_choices_go_in_words_and_the_user_is_told_what_they_cost(
    way: Any, mugs: pd.DataFrame, server: BatchServer, client: openai.OpenAI, store: Path
) -> None:
    """No enum that the API refuses; answers are checked against the whole choice here."""
    server.answer = lambda body, _: Reply(
        content=json.dumps(
            {"label": MANY[-1], "kind": MANY[-1], "size": "s"}
            if "mug" in body["messages"][-1]["content"]
            else {"label": "other", "kind": "other", "size": "s"}
        )
        if way.get("response_model")
        else json.dumps(
            {"label": MANY[-1] if "mug" in body["messages"][-1]["content"] else "other"}
        )
    )
    with pytest.warns(FrameEnrichWarning, match=r"1,200 values .* about \d,\d{3} tokens more"):
        job = mugs.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store, **way)
    body = json.loads(Path(job.requests[0]).read_text().splitlines()[0])["body"]
    described = body["response_format"]["json_schema"]
    out = job.wait(poll_seconds=0.01).collect(mugs)

    assert described["strict"] is True
    assert MANY[-1] not in json.dumps(described)
    assert MANY[-1] in body["messages"][0]["content"]
    assert out["llmbatch_status"].tolist() == ["ok", *["malformed"] * 3]


@pytest.mark.parametrize(
    ("provider", "model", "in_words"),
    [("file", "gpt-4o-mini", True), ("live", "o4-mini", True), ("live", "qwen3", False)],
)
def test_large_choices_are_a_schemas_where_the_server_may_take_them(
    provider: str, model: str, in_words: bool
) -> None:
    """OpenAI has its models by their names, wherever they are asked; other servers may take all."""
    spec = JobSpec("x", model, (Message("user", "?"),), provider=provider, output=labels_spec(MANY))

    assert choose_asking(spec, "localhost").choices_in_words == in_words


def test_a_codebook_is_not_said_twice(mugs: pd.DataFrame, client: openai.OpenAI) -> None:
    """Its definitions list the labels already."""
    codebook = {label: f"what {label} means" for label in MANY}
    with pytest.warns(FrameEnrichWarning, match="as the codebook has them"):
        shown = mugs.llmbatch.preview(ASK, "gpt-4o-mini", n=1, labels=codebook, client=client)

    assert shown.requests[0][1]["messages"][0]["content"].count(f"- {MANY[7]}: ") == 1
    assert "written exactly so" not in shown.requests[0][1]["messages"][0]["content"]
