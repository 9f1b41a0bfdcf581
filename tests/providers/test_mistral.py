"""Mistral's own words: what is translated there and back, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from audit import ASK, shelf
from batch_server import BatchServer
from mistralai.client import Mistral
from mistralai.client.utils import BackoffStrategy, RetryConfig

from frameenrich.errors import ParameterError, ProviderError
from frameenrich.providers.mistral.batch import MistralBatch
from frameenrich.providers.mistral.translate import chat_body, response_line

pytestmark = pytest.mark.any_pandas
MODEL = "mistral-small-latest"
PATIENT = RetryConfig("backoff", BackoffStrategy(1, 10, 1.1, 5000), retry_connection_errors=True)


def test_a_request_is_asked_as_the_api_wants_it(store: Path) -> None:
    """No method, url or model in a line; the schema, the cap and the seed in Mistral's words."""
    with BatchServer(dialect="mistral") as server:
        provider = MistralBatch(Mistral(api_key="k", server_url=server.origin))
        job = shelf(2).llmbatch.submit(
            [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": ASK}],
            MODEL,
            labels=["Kitchen", "Garden"],
            params={"seed": 7, "max_completion_tokens": 50},
            provider=provider,
            store=store,
        )
        out = job.wait(poll_seconds=0.01).collect(shelf(2))

        (uploaded, *_) = server.files
        line = json.loads(server.content(uploaded).splitlines()[0])
        (batch,) = server.batches.values()

    assert out["llmbatch_status"].tolist() == ["ok", "ok"]
    assert line.keys() == {"custom_id", "body"}
    assert line["body"]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (line["body"]["random_seed"], line["body"]["max_tokens"]) == (7, 50)
    assert line["body"]["response_format"]["json_schema"]["strict"] is True
    assert batch["metadata"]["frameenrich_tag"].startswith("llmbatch-")
    assert batch["model"] == MODEL


@pytest.mark.parametrize(
    ("name", "value"), [("logit_bias", {"1": 1}), ("user", "me"), ("modalities", ["text"])]
)
def test_what_the_api_has_no_word_for_is_refused(name: str, value: object, store: Path) -> None:
    """Before anything is written or sent."""
    provider = MistralBatch(Mistral(api_key="k", server_url="http://127.0.0.1:9"))

    with pytest.raises(ParameterError, match=f"'{name}'.*Mistral"):
        shelf(1).llmbatch.submit(ASK, MODEL, provider=provider, store=store, params={name: value})
    with pytest.raises(ParameterError, match="/v1/embeddings"):
        shelf(1).llmbatch.submit(
            ASK, MODEL, provider=provider, store=store, endpoint="/v1/embeddings"
        )

    assert not store.exists()


def test_the_sdks_own_retries_are_off(store: Path) -> None:
    """A client that was made with retries would make a batch twice: a lost create is looked for."""
    with BatchServer(dialect="mistral") as server:
        client = Mistral(api_key="k", server_url=server.origin, retry_config=PATIENT)
        server.faults.add("accepted_then_500")
        provider = MistralBatch(client, wait_seconds=0.01)
        job = shelf(2).llmbatch.submit(ASK, MODEL, provider=provider, store=store)
        job.wait(poll_seconds=0.01)

        assert server.count("POST", "/v1/batches") == 1
        assert len(server.batches) == 1


def test_a_job_of_another_form_than_the_sdk_knows(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members that are null or absent cost no answer: the JSON counts, not the SDK's types."""
    from batch_server import app, dialects

    usual = dialects.spoken

    def newer(*arguments: Any, **options: Any) -> Any:
        job = usual(*arguments, **options)
        return {k: v for k, v in job.items() if k not in {"total_requests", "failed_requests"}} | {
            "errors": None
        }

    monkeypatch.setattr(app, "spoken", newer)
    with BatchServer(dialect="mistral") as server:
        provider = MistralBatch(Mistral(api_key="k", server_url=server.origin))
        job = shelf(2).llmbatch.submit(ASK, MODEL, provider=provider, store=store)
        out = job.wait(poll_seconds=0.01).collect(shelf(2))

    assert out["llmbatch_status"].tolist() == ["ok", "ok"]


def test_a_refusal_in_mistrals_words_is_told(store: Path) -> None:
    """A batch that failed as a whole: its sentence stands at every row."""
    with BatchServer(dialect="mistral", known_models=["other"]) as server:
        provider = MistralBatch(Mistral(api_key="k", server_url=server.origin))
        job = shelf(2).llmbatch.submit(ASK, MODEL, provider=provider, store=store)
        out = job.wait(poll_seconds=0.01).collect(shelf(2))

    assert out["llmbatch_status"].tolist() == ["failed", "failed"]
    assert out["llmbatch_error"].str.contains("does not exist").all()


def test_what_a_refused_call_says(store: Path) -> None:
    """A 422 in the form of Mistral's framework names the parameter."""
    from mistralai.client import errors

    provider = MistralBatch(Mistral(api_key="k", server_url="http://127.0.0.1:9"))
    import httpx2

    detail = {"detail": [{"loc": ["body", "timeout_hours"], "msg": "too long", "type": "x"}]}
    response = httpx2.Response(422, json=detail)

    def refused() -> None:
        raise errors.SDKError("API error occurred", response, response.text)

    with pytest.raises(ProviderError, match=r"HTTP 422, body\.timeout_hours: too long\."):
        provider._calls.patiently(refused, "create the batch x")


@pytest.mark.parametrize(
    ("reason", "status"),
    [("stop", "stop"), ("length", "length"), ("model_length", "length"), ("tool_calls",) * 2],
)
def test_stop_reasons(reason: str, status: str) -> None:
    """Where the words are OpenAI's the line stays as it came; others are renamed."""
    choice = {"finish_reason": reason, "message": {"content": "x"}}
    response = {"status_code": 200, "body": {"choices": [choice]}}
    line = json.dumps({"custom_id": "a", "response": response, "error": None}).encode()

    made = response_line(line)

    assert json.loads(made)["response"]["body"]["choices"][0]["finish_reason"] == status
    assert (made == line) == (reason == status)
    assert reason == status or json.loads(made)["mistral"] == response


def test_an_answer_that_an_error_stopped_failed() -> None:
    """It is no whole answer, though some text came; the original stands beside the reason."""
    choice = {"finish_reason": "error", "message": {"content": "Kitch"}}
    response = {"status_code": 200, "body": {"choices": [choice]}}

    made = json.loads(response_line(json.dumps({"custom_id": "a", "response": response}).encode()))

    assert made["error"]["code"] == "model_error"
    assert made["response"] is None
    assert made["mistral"] == response


@pytest.mark.parametrize(
    "line",
    [
        b'{"finish_reason": "error"',
        b'{"x": {"finish_reason": "error"}}',
        b'{"custom_id": "a", "response": {"body": {"choices": [{"finish_reason": "error"}, 3]}}',
        b'[{"finish_reason": "model_length"}]',
    ],
)
def test_a_line_of_an_odd_form_stays(line: bytes) -> None:
    """What cannot be read is judged like every other broken line."""
    assert response_line(line) == line


def test_parameters_that_mean_nothing_are_left_out() -> None:
    """What says nothing is not refused."""
    assert chat_body({"model": "m", "stream": False, "store": False, "stop": None}) == {
        "model": "m"
    }


def test_without_the_extra_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK is an extra: its absence names the pip command."""
    monkeypatch.setitem(sys.modules, "mistralai.client", None)

    with pytest.raises(ParameterError, match=r"pip install 'frameenrich\[mistral\]'"):
        shelf(1).llmbatch.submit(ASK, MODEL, provider="mistral")
