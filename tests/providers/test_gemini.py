"""Gemini's own words: what is translated there and back, and what is refused."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from audit import ASK, shelf
from batch_server import BatchServer
from google import genai
from google.genai import types

from frameenrich.errors import ParameterError
from frameenrich.model import Batch
from frameenrich.providers.gemini.batch import GeminiBatch, _heard
from frameenrich.providers.gemini.translate import generate_request, response_line

pytestmark = pytest.mark.any_pandas
MODEL = "gemini-2.5-flash"
USER = {"role": "user", "content": "Red mug"}


def client(origin: str, **options: Any) -> genai.Client:
    """The SDK's client, pointed at a server."""
    made = types.HttpOptions(base_url=origin, timeout=10_000, **options)
    return genai.Client(vertexai=False, api_key="k", http_options=made)


def test_a_request_is_asked_as_the_api_wants_it() -> None:
    """snake_case throughout; system text, turns, cap, stop words and schema in Gemini's words."""
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}}
    body = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Classify."},
            {"role": "system", "content": ""},
            USER,
            {"role": "assistant", "content": "?"},
            {"role": "user", "content": [
                {"type": "text", "text": "And this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                {"type": "image_url", "image_url": {"url": "https://x.example/a.png?v=1"}},
            ]},
        ],
        "max_completion_tokens": 64,
        "stop": "END",
        "temperature": 0.1,
        "response_format": {
            "type": "json_schema", "json_schema": {"name": "answer", "schema": schema}
        },
        "safety_settings": [],
    }  # fmt: skip

    assert generate_request(body) == {
        "contents": [
            {"role": "user", "parts": [{"text": "Red mug"}]},
            {"role": "model", "parts": [{"text": "?"}]},
            {"role": "user", "parts": [
                {"text": "And this?"},
                {"inline_data": {"mime_type": "image/png", "data": "aGk="}},
                {"file_data": {"file_uri": "https://x.example/a.png?v=1",
                               "mime_type": "image/png"}},
            ]},
        ],
        "system_instruction": {"parts": [{"text": "Classify."}]},
        "generation_config": {
            "max_output_tokens": 64,
            "stop_sequences": ["END"],
            "temperature": 0.1,
            "response_mime_type": "application/json",
            "response_json_schema": schema,
        },
        "safety_settings": [],
    }  # fmt: skip


@pytest.mark.parametrize(("most", "kept"), [(480, True), (481, False)])
def test_bounds_of_lists_beyond_geminis_budget_are_checked_here_alone(
    most: int, kept: bool
) -> None:
    """Over a sum of 960 each row would be refused; a property of that name stays."""
    items = {"type": "array", "items": {"type": "string"}, "maxItems": most}
    schema = {"properties": {"a": items, "maxItems": items}}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    tool = {"type": "function", "function": {"name": "answer", "parameters": schema}}
    body = {"messages": [{"role": "user", "content": "?"}]}

    asked = generate_request({**body, "response_format": form})
    called = generate_request({**body, "tools": [tool]})

    sent = asked["generation_config"]["response_json_schema"]
    assert sent == called["tools"][0]["function_declarations"][0]["parameters_json_schema"]
    assert list(sent["properties"]) == ["a", "maxItems"]
    assert ("maxItems" in sent["properties"]["a"]) == kept


def test_a_large_enum_goes_in_words() -> None:
    """Gemini refuses schemas with more than about a hundred values: the prompt has them then."""
    schema = {"properties": {"a": {"enum": [f"label {n}" for n in range(101)]}}}
    asked = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}

    made = generate_request({"messages": [USER], "response_format": asked})

    assert made["generation_config"] == {"response_mime_type": "application/json"}
    assert "label 100" in made["system_instruction"]["parts"][0]["text"]


@pytest.mark.parametrize(
    ("name", "value"), [("logit_bias", {"1": 1}), ("logprobs", True), ("user", "me")]
)
def test_what_the_api_has_no_word_for_is_refused(name: str, value: object, store: Path) -> None:
    """Before anything is written or sent."""
    provider = GeminiBatch(client("http://127.0.0.1:9"))

    with pytest.raises(ParameterError, match=f"'{name}'.*Gemini"):
        shelf(1).llmbatch.submit(ASK, MODEL, provider=provider, store=store, params={name: value})

    assert not store.exists()


@pytest.mark.parametrize(
    ("reason", "finish", "refused"),
    [
        ("STOP", "stop", False),
        ("MAX_TOKENS", "length", False),
        ("CONTINUATION", "length", False),
        ("SAFETY", "content_filter", True),
        ("IMAGE_SAFETY", "content_filter", True),
        ("PROHIBITED_CONTENT", "content_filter", True),
        ("MALFORMED_RESPONSE", "malformed_response", False),
    ],
)
def test_stop_reasons_thoughts_and_tokens(reason: str, finish: str, refused: bool) -> None:
    """Thoughts are paid as output and are no part of the answer; the original stands beside."""
    parts = [{"thought": True, "text": "Hm."}, {"text": "Kitchen"}]
    response = {
        "candidates": [{"content": {"parts": parts}, "finishReason": reason}],
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3,
                          "thoughtsTokenCount": 5, "cachedContentTokenCount": 4},
        "modelVersion": MODEL,
    }  # fmt: skip

    made = json.loads(response_line(json.dumps({"key": "a", "response": response}).encode()))

    body = made["response"]["body"]
    choice = body["choices"][0]
    assert (made["custom_id"], choice["finish_reason"]) == ("a", finish)
    assert choice["message"]["content"] == "Kitchen"
    assert (choice["message"]["refusal"] is not None) == refused
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (9, 8)
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    assert made["gemini"]["response"] == response


def test_a_blocked_prompt_is_refused() -> None:
    """No candidate comes, and the reason is told."""
    line = b'{"key": "a", "response": {"promptFeedback": {"blockReason": "SAFETY"}}}'

    (choice,) = json.loads(response_line(line))["response"]["body"]["choices"]

    assert choice["message"]["refusal"] == "Gemini blocked the prompt: SAFETY"


@pytest.mark.parametrize(
    "result",
    [
        {"response": 7},
        {"response": {"candidates": [3]}},
        {"response": {"candidates": [{"content": {"parts": [{"text": 3}]}}]}},
        {"response": {"usageMetadata": {"promptTokenCount": "x"}}},
        {"error": "boom"},
        {},
    ],
    ids=str,
)
def test_a_result_of_an_odd_form_is_a_reason(result: Any) -> None:
    """Each is told under its custom_id, and a line that is none stays as it came."""
    made = json.loads(response_line(json.dumps({"key": "a", **result}).encode()))

    assert made["custom_id"] == "a"
    assert made["response"] is None
    assert made["error"]["message"]
    assert response_line(b'{"response": {}}') == b'{"response": {}}'
    assert response_line(b'{"key"') == b'{"key"'


@pytest.mark.parametrize(
    ("metadata", "status"),
    [
        ({"state": "BATCH_STATE_RUNNING"}, "in_progress"),
        ({"state": "JOB_STATE_PENDING"}, "validating"),
        ({"state": "BATCH_STATE_SUCCEEDED"}, "finalizing"),
        ({"state": "BATCH_STATE_SUCCEEDED", "output": {"responsesFile": "files/r"}}, "completed"),
        ({"state": "BATCH_STATE_EXPIRED"}, "expired"),
        ({"state": "BATCH_STATE_PONDERING"}, "pondering"),
        ({}, "planned"),
    ],
    ids=str,
)
def test_states(metadata: dict[str, Any], status: str) -> None:
    """Succeeded without its file is not finished, and nor is a state that nobody knows."""
    batch = _heard(Batch("tag"), {"name": "batches/1", "metadata": metadata}, ())

    assert batch.status == status


def test_the_sdks_own_retries_are_off(store: Path) -> None:
    """A client that was made with retries would make a batch twice: a lost create is looked for."""
    with BatchServer(dialect="gemini") as server:
        patient = types.HttpRetryOptions(attempts=3, initial_delay=0.01)
        provider = GeminiBatch(client(server.origin, retry_options=patient), wait_seconds=0.01)
        server.faults.add("accepted_then_500")
        job = shelf(2).llmbatch.submit(ASK, MODEL, provider=provider, store=store)
        out = job.wait(poll_seconds=0.01).collect(shelf(2))

        assert out["llmbatch_status"].tolist() == ["ok", "ok"]
        assert len(server.batches) == 1


def test_without_the_extra_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK is an extra: its absence names the pip command."""
    monkeypatch.setitem(sys.modules, "google.genai", None)
    monkeypatch.delattr("google.genai")

    with pytest.raises(ParameterError, match=r"pip install 'frameenrich\[gemini\]'"):
        shelf(1).llmbatch.submit(ASK, MODEL, provider="gemini")


def test_a_batch_that_succeeded_without_a_file_ends_some_day() -> None:
    """The file comes a little later, or never: after an hour its rows are missing, not pending."""
    told = {"name": "batches/1", "metadata": {"state": "BATCH_STATE_SUCCEEDED"}}

    first = _heard(Batch("t"), told, ())
    an_hour_later = _heard(first.replace(ended_at=time.time() - 3601), told, ())
    ended = {**told["metadata"], "endTime": "2026-01-01T00:00:00Z"}  # type: ignore[dict-item]

    assert (first.status, first.ended) == ("finalizing", False)
    assert (an_hour_later.status, an_hour_later.ended) == ("completed", True)
    assert _heard(Batch("t"), {**told, "metadata": ended}, ()).status == "completed"
