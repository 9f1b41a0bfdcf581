"""Anthropic's Message Batches: the same statuses and promises through another API."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import anthropic
import openai
import pandas as pd
import pytest
import warm
from anthropic_server import AnthropicServer
from audit import ASK, check_rows, finish, said, shelf
from PIL import Image

import frameenrich
from frameenrich.errors import (
    CredentialsError,
    FrameEnrichWarning,
    InputError,
    ParameterError,
    ProviderError,
    WaitTimeoutError,
)
from frameenrich.model import Limits
from frameenrich.providers.anthropic.batch import AnthropicBatch
from frameenrich.providers.anthropic.translate import message_params, response_line
from frameenrich.verbs.job import Job

pytestmark = pytest.mark.any_pandas
KEY = "sk-ant-0f1e2d3c4b5a69788796a5b4c3d2e1f0"
MODEL = "claude-haiku-4-5"
CAP = {"max_tokens": 200}
CREATE = "POST /v1/messages/batches"
POLL = "GET /v1/messages/batches/*"
RESULTS = "GET /v1/messages/batches/*/results"
TOKENS = (
    "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens",
)  # fmt: skip


@pytest.fixture
def server() -> Iterator[AnthropicServer]:
    """A server without faults; tests add theirs."""
    with AnthropicServer() as running:
        yield running


@pytest.fixture
def client(server: AnthropicServer) -> Iterator[anthropic.Anthropic]:
    """The SDK's client, pointed at the server."""
    with anthropic.Anthropic(api_key=KEY, base_url=server.origin) as made:
        yield made


@pytest.fixture
def provider(client: anthropic.Anthropic) -> AnthropicBatch:
    """The provider with short waits and small batches."""
    made = AnthropicBatch(client, attempts=4, wait_seconds=0.01)
    made.limits = Limits(max_requests=4, queue_wait_seconds=0.02)
    return made


def submit(frame: pd.DataFrame, provider: Any, store: Path, **wishes: Any) -> Job:
    """Submit with the usual template."""
    job: Job = frame.llmbatch.submit(
        model=MODEL,
        **{
            "template": ASK,
            "params": CAP,
            "provider": provider,
            "store": store,
            "confirm_seconds": 0.02,
            **wishes,
        },
    )
    return job


def check_paid(server: AnthropicServer, *, batches: int) -> None:
    """No row was executed twice; so many batches were made, no two for the same requests."""
    assert max(server.executed.values(), default=0) <= 1
    assert len(server.batches) == batches
    assert len({tuple(b["custom_ids"]) for b in server.batches.values()}) == batches


def sent(server: AnthropicServer) -> list[dict[str, Any]]:
    """The parameters of every request, as the server got them."""
    return [params for batch in server.batches.values() for params in batch["params"]]


# --- end to end ----------------------------------------------------------------------------------


def test_from_the_environment_to_answers_and_back_again(
    server: AnthropicServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Submit, wait, collect, flagged, regenerate, in sessions that know the store only."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.origin)
    frame = shelf(8)
    for key, fault in {"T-01": "malformed", "T-02": "truncated", "T-03": "empty"}.items():
        server.faults.add(fault, where=[f"row-{key}"])
    server.faults.add("http_error", where=["row-T-04"], status=529)
    server.faults.add("refused", where=["row-T-05"], message="Not this one.")
    server.faults.add("expired_line", where=["row-T-06"], times=1)

    job = submit(frame, "anthropic", store, labels=["Kitchen", "Garden"])
    job.wait(poll_seconds=0.01)
    out = frame.llmbatch.collect(store=store, usage=True)
    bad = frame.llmbatch.flagged(store=store)
    again = frameenrich.open_job(job.id, store).regenerate().wait(poll_seconds=0.01).collect(frame)

    assert out["llmbatch_status"].tolist() == [
        "ok", "malformed", "truncated", "empty", "failed", "refused", "expired", "ok",
    ]  # fmt: skip
    assert out["llmbatch"].cat.categories.tolist() == ["Kitchen", "Garden"]
    assert out["llmbatch_model"].iloc[0] == MODEL
    assert out["llmbatch_finish_reason"].dropna().unique().tolist() == [
        "stop", "length", "content_filter",
    ]  # fmt: skip
    assert (out["llmbatch_prompt_tokens"].dropna() > 0).all()
    assert bad["error"]["T-05"] == "Not this one."
    assert bad["error"]["T-04"].startswith("HTTP 529: overloaded_error: ")
    assert again["llmbatch_status"].tolist() == ["ok"] * 5 + ["refused"] + ["ok"] * 2
    feedback, cap = sent(server)[8], sent(server)[9]
    assert [m["role"] for m in feedback["messages"]] == ["user", "assistant", "user"]
    assert cap["max_tokens"] == 400
    check_paid(server, batches=2)


def test_images_reach_the_model_as_its_own_blocks(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Pixels as base64 with their type, an address as a url; each row sees its own."""
    pixels = BytesIO()
    Image.new("RGB", (3, 2), "red").save(pixels, "PNG")
    url = "https://example.com/mug.jpg"
    frame = shelf(2).assign(photo=[pixels.getvalue(), url])

    out = finish(frame, submit(frame, provider, store, image="photo"))

    first, second = (params["messages"][0]["content"] for params in sent(server))
    assert [block["type"] for block in first] == ["text", "image"]
    assert first[1]["source"]["media_type"] == "image/png"
    assert first[1]["source"]["data"].startswith("iVBOR")
    assert second[1]["source"] == {"type": "url", "url": url}
    assert out["llmbatch_status"].tolist() == ["ok", "ok"]
    assert out["llmbatch"].nunique() == 2


def test_a_typed_answer_is_asked_for_as_the_api_wants_it(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Bounds that constrained output does not take become descriptions; ours still check them."""
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1},
            "note": {"type": ["string", "null"]},
            "kind": {"enum": ["a", "b"]},
        },
        "required": ["n", "note", "kind"],
    }
    frame = shelf(3)

    job = submit(frame, provider, store, response_model=schema).wait(poll_seconds=0.01)

    asked = sent(server)[0]["output_config"]["format"]["schema"]
    assert asked["properties"]["n"] == {"type": "integer", "description": "{minimum: 1}"}
    assert asked["properties"]["note"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert asked["additionalProperties"] is False
    assert job.collect(frame)["kind"].isin(["a", "b"]).all()


def test_a_schema_that_cannot_be_strict_is_asked_for_in_words(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """A free-form object would be forced to be empty: the schema goes into the system prompt."""
    server.faults.add("malformed", content='{"facts": {"colour": "red"}}')
    schema = {"type": "object", "properties": {"facts": {"type": "object"}}}
    frame = shelf(1)

    with pytest.warns(FrameEnrichWarning, match="strict output"):
        job = submit(frame, provider, store, response_model=schema, system="Be brief.")

    assert finish(frame, job)["facts"].tolist() == ['{"colour":"red"}']
    assert "output_config" not in sent(server)[0]
    assert sent(server)[0]["system"].startswith("Be brief.\n\nAnswer with JSON alone")


def test_the_original_is_kept(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Promise 5: thinking blocks and the rest of the result stand in the responses file."""
    frame = shelf(1)
    params = {**CAP, "extra_body": {"thinking": {"type": "adaptive"}, "top_k": 5}}

    out = finish(frame, submit(frame, provider, store, params=params))

    (path,) = store.rglob("*.responses.jsonl")
    kept = json.loads(path.read_bytes())["anthropic"]["message"]
    assert [block["type"] for block in kept["content"]] == ["thinking", "text"]
    assert out["llmbatch"].tolist() == [said("thing 0")]
    assert (sent(server)[0]["top_k"], sent(server)[0]["thinking"]) == (5, {"type": "adaptive"})


def test_any_text_gets_there_and_back(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Quotes, line separators, emoji, a lone surrogate: each row has its own answer."""
    titles = ['"quoted"\\', "line\u2028sep\u2029arator\x85", "\U0001f9e6 sock", "half \ud83d pair"]
    frame = shelf(4).assign(title=pd.Series(titles, shelf(4).index, dtype=object))

    out = finish(frame, submit(frame, provider, store))

    assert out["llmbatch"].tolist() == [said(t.replace("\ud83d", "\ufffd")) for t in titles]


# --- what cannot be sent -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"params": {**CAP, "seed": 1}}, "'seed' to 1"),
        ({"params": {**CAP, "logit_bias": {"1": 1}}}, "'logit_bias'"),
        ({"params": {**CAP, "frequency_penalty": 1}}, "'frequency_penalty'"),
        ({"params": {**CAP, "temperature": 1.5}}, "temperature to 1.5"),
        ({"params": {**CAP, "reasoning_effort": "minimal"}}, "'reasoning_effort'"),
        ({"params": {**CAP, "response_format": {"type": "json_object"}}}, "json_object"),
        ({"params": CAP, "labels": ["a", "b"], "logprobs": True}, "'logprobs'"),
        ({"endpoint": "/v1/embeddings"}, "/v1/embeddings"),
        ({"template": [{"role": "system", "content": "only this"}]}, "'user'"),
        (
            {
                "template": [
                    {"role": "user", "content": "a"},
                    {"role": "system", "content": "b"},
                ]
            },
            "role 'system'",
        ),
        ({"image": "title", "image_detail": "low"}, "image_detail='low'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_api_has_no_word_for_is_refused(
    wishes: dict[str, Any],
    message: str,
    server: AnthropicServer,
    provider: AnthropicBatch,
    store: Path,
) -> None:
    """Before anything is written or sent."""
    wishes = {"template": ASK, "params": CAP, **wishes}

    with pytest.raises(ParameterError, match=message):
        shelf(1).llmbatch.submit(model=MODEL, provider=provider, store=store, **wishes)

    assert not store.exists()
    assert not server.requests


def test_parameters_in_its_own_words() -> None:
    """What both APIs know under two names."""
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "max_completion_tokens": 7,
        "stop": ["a", "b"],
        "user": "u1",
        "reasoning_effort": "low",
        "temperature": 0.5,
        "n": 1,
    }

    assert message_params(body) == {
        "model": "m",
        "max_tokens": 7,
        "messages": [{"role": "user", "content": "x"}],
        "stop_sequences": ["a", "b"],
        "metadata": {"user_id": "u1"},
        "output_config": {"effort": "low"},
        "temperature": 0.5,
    }


def test_a_later_rounds_parameters_are_checked_too(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Regenerate with what the API lacks is refused, and no round is written."""
    frame = shelf(2)
    server.faults.add("empty")
    job = submit(frame, provider, store).wait(poll_seconds=0.01)

    with pytest.raises(ParameterError, match="'seed'"):
        job.regenerate(params={"seed": 1, **CAP})

    assert len(job.requests) == 1


def test_the_cap_that_is_set_for_you_is_told(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Anthropic wants max_tokens: without one 4,096 is sent, and said."""
    with pytest.warns(FrameEnrichWarning, match="4,096 is sent") as caught:
        submit(shelf(1), provider, store, params=None)

    assert caught[0].filename == __file__
    assert sent(server)[0]["max_tokens"] == 4096


def test_without_the_extra_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK is an extra: its absence names the pip command."""
    monkeypatch.setitem(sys.modules, "anthropic", None)

    with pytest.raises(ParameterError, match=r"pip install 'frameenrich\[anthropic\]'"):
        shelf(1).llmbatch.submit(ASK, MODEL, provider="anthropic")


def test_without_a_key_the_variable_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, and another provider's client."""
    for variable in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE"):
        monkeypatch.delenv(variable, raising=False)

    with pytest.raises(CredentialsError, match="ANTHROPIC_API_KEY"):
        shelf(1).llmbatch.submit(ASK, MODEL, provider="anthropic")
    with pytest.raises(ParameterError, match="client= is a OpenAI"):
        shelf(1).llmbatch.submit(
            ASK, MODEL, provider="anthropic", client=openai.OpenAI(api_key="k")
        )


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"name": "accepted_then_500", "where": CREATE},
        {"name": "accepted_then_closed", "where": CREATE},
        {"name": "not_json", "where": CREATE},
        {"name": "not_json", "where": CREATE, "content_type": "text/html"},
        {"name": "http_503", "where": CREATE},
        {"name": "closed_before", "where": CREATE},
        {"name": "rate_limited", "where": CREATE, "retry_after": 0, "times": 2},
        {"name": "rate_limited", "where": CREATE, "retry_after": 0, "times": 6},
        {"name": "http_503", "times": 2},
        {"name": "html_502", "where": POLL, "times": 2},
        {"name": "not_json", "where": POLL, "times": 2},
        {"name": "closed_before", "where": POLL},
        {"name": "short_download", "where": RESULTS},
        {"name": "truncated_download", "where": RESULTS},
        {"name": "half_written", "where": RESULTS, "less": 40},
    ],
    ids=lambda fault: " ".join(map(str, fault.values())),
)
def test_a_fault_loses_nothing_and_pays_nothing_twice(
    fault: dict[str, Any], server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Three shards of one size, one fault: each row its own answer, executed once."""
    frame = shelf(12)
    server.faults.add(**fault)
    job = submit(frame, provider, store)

    out = finish(frame, job)

    check_rows(out, frame)
    assert server.faults.fired.total() >= 1
    check_paid(server, batches=3)


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_an_ended_batch_left_is_kept(
    end: str, server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Promise 4: the answered rows stay, only the rest is asked again, in our words."""
    frame = shelf(4)
    server.faults.add(end, ran=0.5)
    job = submit(frame, provider, store)

    out = finish(frame, job)
    again = finish(frame, job.regenerate())

    check_rows(out, frame, {"T-02": end, "T-03": end})
    check_rows(again, frame)
    assert [word for word, _ in job.status().shards] == [end, "completed"]
    check_paid(server, batches=2)


WRONG: dict[str, dict[str, Any]] = {
    "counts are text": {"request_counts": "4"},
    "a count is null": {"request_counts": {"processing": None, "succeeded": "4"}},
    "no counts": {"request_counts": {}},
    "created in words": {"created_at": "now"},
    "created never": {"created_at": None},
    "ended in words": {"ended_at": "soon"},
    "an address that is a list": {"results_url": []},
    "an id that is a number": {"id": 7},
}


class OddServer(AnthropicServer):
    """Answers with members of other types than the API's, once at each place."""

    wrong: dict[str, Any]
    odd_at: str

    def route(self, request: Any) -> Any:
        """Change what a batch's object holds."""
        answer = super().route(request)
        if self.odd_at and f"{request.method} {request.path}".startswith(self.odd_at):
            self.odd_at = ""
            found = json.loads(answer.body)
            for batch in found.get("data", [found]):
                batch.update(self.wrong)
            return replace(answer, body=json.dumps(found).encode())
        return answer


@pytest.mark.parametrize("place", [CREATE, "GET /v1/messages/batches/msg", "GET /v1/messages"])
@pytest.mark.parametrize("wrong", WRONG)
def test_members_of_other_types_are_doubt(wrong: str, place: str, store: Path) -> None:
    """Promise 3: at create, at a look and in a list: no raw error, nothing of it is kept."""
    frame = shelf(4)
    with (
        OddServer() as server,
        anthropic.Anthropic(api_key="k", base_url=server.origin) as client,
    ):
        server.wrong, server.odd_at = WRONG[wrong], place
        if place == "GET /v1/messages":  # a list is asked for where an answer was lost
            server.faults.add("accepted_then_500", where=CREATE)
        provider = AnthropicBatch(client, attempts=3, wait_seconds=0.01)

        out = finish(frame, submit(frame, provider, store, confirm_seconds=900))

        check_rows(out, frame)
        check_paid(server, batches=1)
        assert not server.odd_at


@pytest.mark.parametrize("gone", [["row-T-02"], "*"], ids=["one line", "every line"])
def test_an_ended_batch_with_fewer_lines_than_its_count(
    gone: Any, server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Promise 4: no dead end. What came is kept, the rest is missing for that reason, and goes."""
    frame = shelf(4)
    server.faults.add("missing", where=gone)
    lost = ["T-02"] if gone != "*" else list(frame.index)
    job = submit(frame, provider, store)

    out = finish(frame, job)

    check_rows(out, frame, dict.fromkeys(lost, "missing"))
    assert out["llmbatch_error"].dropna().str.contains("the batch counts 4 answers").all()
    server.faults.clear()
    check_rows(finish(frame, job.regenerate()), frame)
    assert [len(batch["custom_ids"]) for batch in server.batches.values()] == [4, len(lost)]


def test_cancel_keeps_what_was_answered(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Cancelled by us: half had run."""
    frame = shelf(4)
    server.hold("in_progress")
    job = submit(frame, provider, store)
    job.cancel()
    assert {word for word, _ in job.status().shards} == {"cancelling"} or job.status().ended
    server.release()

    check_rows(finish(frame, job), frame, {"T-02": "cancelled", "T-03": "cancelled"})


def test_lines_that_are_damaged_lose_only_themselves(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """A line cut in the middle, one that is not UTF-8, one twice."""
    frame = shelf(4)
    server.faults.add("unparseable_line", where=["row-T-00"])
    server.faults.add("not_utf8_line", where=["row-T-01"])
    server.faults.add("duplicate_line", where=["row-T-02"])

    out = finish(frame, submit(frame, provider, store))

    assert out["llmbatch_status"].tolist()[0] == "missing"
    assert out["llmbatch_status"].tolist()[2:] == ["ok", "ok"]
    assert out["llmbatch_status"].tolist()[1] in {"ok", "missing"}


def test_results_of_other_kinds_are_reasons() -> None:
    """What is no result stays as it is; an unknown kind and strange members are told."""
    other = response_line(b'{"custom_id":"a","result":{"type":"paused"}}', lambda i: i)
    bare = response_line(b'{"custom_id":"a","result":{"type":"succeeded","message":{}}}', str)

    assert response_line(b'{"custom_id": 3}', str) == b'{"custom_id": 3}'
    assert json.loads(other)["error"]["message"] == "a result of the kind 'paused'"
    assert json.loads(bare)["response"]["body"]["choices"][0]["message"]["content"] is None


@pytest.mark.parametrize(
    "result",
    [
        None,
        "expired",
        {},
        {"type": ["succeeded"]},
        {"type": "errored", "error": "boom"},
        {"type": "errored", "error": {"error": "boom"}},
        {"type": "succeeded"},
        {"type": "succeeded", "message": {"content": 7}},
        {"type": "succeeded", "message": {"content": [{"type": "text"}]}},
        {"type": "succeeded", "message": {"content": [{"type": "text", "text": None}]}},
        {"type": "succeeded", "message": {"usage": [7]}},
        {"type": "succeeded", "message": {"usage": {"input_tokens": "7"}}},
        {"type": "succeeded", "message": {"usage": dict.fromkeys(TOKENS, "7")}},
        {"type": "succeeded", "message": {"stop_reason": "refusal", "stop_details": "no"}},
    ],
    ids=str,
)
def test_a_result_of_an_odd_form_is_a_reason(result: Any) -> None:
    """Each is told under its custom_id, with the original beside it."""
    line = json.dumps({"custom_id": "a", "result": result}).encode()

    made = json.loads(response_line(line, lambda i: i))

    assert (made["custom_id"], made["response"], made["anthropic"]) == ("a", None, result)
    assert made["error"]["code"] == "unreadable_result"
    assert "cannot be read" in made["error"]["message"]


def test_odd_results_lose_only_themselves(
    server: AnthropicServer,
    provider: AnthropicBatch,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others of the batch are there, and the odd ones can be asked again."""
    frame = shelf(4)
    odd = {"row-T-00": {"type": "errored", "error": "boom"}, "row-T-02": {"type": "succeeded"}}
    usual = server._answer
    monkeypatch.setattr(server, "_answer", lambda own, *more: odd.get(own) or usual(own, *more))
    job = submit(frame, provider, store)

    out = finish(frame, job)
    again = finish(frame, job.regenerate())

    check_rows(out, frame, {"T-00": "failed", "T-02": "failed"})
    assert out["llmbatch_error"]["T-00"].startswith("unreadable_result: Anthropic's result")
    check_rows(again, frame)
    check_paid(server, batches=2)


def test_a_wrong_key_and_another_workspaces_key(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """401 and 404 say what to do; the key, which the server repeats, is nowhere."""
    server.require_key = "another"
    with pytest.raises(ProviderError, match="Check the API key") as caught:
        submit(shelf(1), provider, store)
    assert KEY not in str(caught.value)
    server.require_key = None

    job = submit(shelf(1), provider, store)
    server.per_key_projects = True
    stranger = anthropic.Anthropic(api_key="sk-ant-other-workspace", base_url=server.origin)
    with stranger, pytest.raises(ProviderError, match="pass client="):
        frameenrich.open_job(job.id, store, client=stranger).wait()
    assert finish(shelf(1), job)["llmbatch"].tolist() == [said("thing 0")]
    kept = [path for path in store.rglob("*") if path.is_file()]
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]


def test_cleanup_deletes_the_batch(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """What the provider still keeps goes; the answers stay here."""
    frame = shelf(2)
    job = submit(frame, provider, store)
    finish(frame, job)

    job.cleanup()

    assert [batch["deleted"] for batch in server.batches.values()] == [True]
    check_rows(finish(frame, job), frame)


def test_the_longest_names_fit(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """Mark, round and the longest custom_id we make stay within 64 characters."""
    keys = ["k" * 47, "long " * 30, "ü" * 80]
    frame = pd.DataFrame({"title": keys}, index=pd.Index(keys, name="sku"))
    server.faults.add("empty", times=3)
    job = submit(frame, provider, store).wait(poll_seconds=0.01)

    out = finish(frame, job.regenerate())

    assert out["llmbatch_status"].tolist() == ["ok"] * 3
    lengths = [len(i) for batch in server.batches.values() for i in batch["custom_ids"]]
    assert len(lengths) == 6
    assert 61 <= max(lengths) <= 64


# --- a create whose answer was lost --------------------------------------------------------------


@pytest.fixture
def other(client: anthropic.Anthropic) -> AnthropicBatch:
    """Somebody else's session with the same key."""
    made = AnthropicBatch(client, attempts=4, wait_seconds=0.01)
    made.limits = Limits(queue_wait_seconds=0.02)
    return made


Loss = Literal["accepted_then_closed", "http_503"]


@pytest.mark.parametrize("loss", ["accepted_then_closed", "http_503"])
def test_a_lost_batch_is_not_mixed_up_with_another_of_its_size(
    loss: Loss,
    server: AnthropicServer,
    provider: AnthropicBatch,
    other: AnthropicBatch,
    store: Path,
    tmp_path: Path,
) -> None:
    """Same rows, same custom_ids, same size, same minute, another question: each its own batch."""
    frame = shelf(4)
    server.hold("in_progress")
    server.faults.add(loss, where=CREATE)
    job = submit(frame, provider, store, confirm_seconds=900)
    theirs = submit(frame, other, tmp_path / "theirs", template="Who sells {{ title }}?")
    made = len(server.batches)

    with pytest.raises(WaitTimeoutError, match="unconfirmed"):
        job.wait(poll_seconds=0.01, timeout=0.2)
    assert len(server.batches) == made  # nothing is sent while one that could be it runs

    server.release()
    check_rows(finish(frame, submit(frame, provider, store)), frame)
    their_rows = finish(frame, theirs)
    assert their_rows["llmbatch"].tolist() == [f"echo: Who sells {t}?" for t in frame["title"]]
    assert len(server.batches) == 2
    assert set(server.executed.values()) == {2}  # once for each of the two questions


def test_a_batch_in_doubt_cannot_be_cancelled(
    server: AnthropicServer,
    provider: AnthropicBatch,
    other: AnthropicBatch,
    store: Path,
    tmp_path: Path,
) -> None:
    """It might be somebody else's: the error says to wait, and nobody's batch is touched."""
    frame = shelf(4)
    server.hold("in_progress")
    server.faults.add("accepted_then_500", where=CREATE)
    job = submit(frame, provider, store)
    submit(frame, other, tmp_path / "theirs", system="Be brief.")

    with pytest.raises(ProviderError, match="not known yet"):
        job.cancel()

    assert {b["processing_status"] for b in server.batches.values()} == {"in_progress"}
    server.release()
    check_rows(finish(frame, job), frame)


def test_a_batch_that_may_be_ours_is_not_given_up(
    server: AnthropicServer,
    provider: AnthropicBatch,
    other: AnthropicBatch,
    store: Path,
    tmp_path: Path,
) -> None:
    """Promise 3: what runs and may be it is paid for; nothing is settled as lost over it."""
    frame = shelf(4)
    server.hold("in_progress")
    server.faults.add("accepted_then_500", where=CREATE)
    job = submit(frame, provider, store, confirm_seconds=900)
    submit(frame, other, tmp_path / "theirs", system="Be brief.")

    with pytest.raises(ProviderError, match=r"may be it.*give_up\(force=True\)"):
        job.give_up()

    server.release()
    check_rows(finish(frame, job), frame)
    assert len(server.batches) == 2


def test_a_batch_that_no_list_shows_is_given_up(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """A create in doubt that the list does not have is lost at the user's word."""
    frame = shelf(4)
    server.faults.add("http_503", where=CREATE)
    job = submit(frame, provider, store, confirm_seconds=900)

    job.give_up()

    check_rows(finish(frame, job), frame, dict.fromkeys(frame.index, "missing"))


def test_shards_of_one_size_do_not_wait_for_each_other(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """The job's own batches are known: while they run, a shard that was refused is sent."""
    frame = shelf(12)
    server.hold("in_progress")
    server.faults.add("http_503", where=lambda r: r.method == "POST" and len(server.batches) == 2)
    job = submit(frame, provider, store)
    assert len(server.batches) == 2

    while len(server.batches) < 3:  # each collect is one step
        job.collect(frame)

    server.release()
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=3)


@pytest.fixture
def planned(server: AnthropicServer, provider: AnthropicBatch, store: Path) -> pd.DataFrame:
    """Four rows whose job was written and not sent, as the key was refused."""
    frame = shelf(4)
    server.faults.add("unauthorized", where=CREATE)
    with pytest.raises(ProviderError, match="HTTP 401"):
        submit(frame, provider, store)
    return frame


@pytest.mark.parametrize("running", [True, False])
def test_a_store_restored_from_before_the_create(
    running: bool,
    planned: pd.DataFrame,
    server: AnthropicServer,
    provider: AnthropicBatch,
    other: AnthropicBatch,
    store: Path,
) -> None:
    """Promise 3: a resumed job is looked for by its mark before its first create.

    A batch of its size that still runs may be it, and is waited for.
    """
    backup = store.with_name("backup")
    shutil.copytree(store, backup)
    if running:
        server.hold("in_progress")
        submit(planned, provider, store)
    else:
        submit(planned, provider, store).wait(poll_seconds=0.01)
    shutil.rmtree(store)
    shutil.copytree(backup, store)

    job = submit(planned, other, store)

    assert len(server.batches) == 1
    assert running == ("unconfirmed" in str(job.status()))
    server.release()
    check_rows(finish(planned, job), planned)
    check_paid(server, batches=1)


def test_a_resumed_job_does_not_wait_for_its_store_mates(
    planned: pd.DataFrame,
    server: AnthropicServer,
    provider: AnthropicBatch,
    other: AnthropicBatch,
    store: Path,
) -> None:
    """Running batches of other jobs are known from the store, though a new session asks."""
    server.hold("in_progress")
    submit(planned, provider, store, template="Who sells {{ title }}?")

    submit(planned, other, store)

    assert len(server.batches) == 2


def test_a_resumed_job_where_there_is_no_list(
    planned: pd.DataFrame, server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """The look before a first create is a courtesy."""
    server.faults.add("no_route", where="GET /v1/messages/batches", times="always")

    check_rows(finish(planned, submit(planned, provider, store)), planned)
    check_paid(server, batches=1)


WORKER = """
import os, signal, sys
import anthropic, httpx2, pandas
from crash import forked
import frameenrich.verbs.submit
from audit import ASK, shelf
from frameenrich.model import Limits
from frameenrich.providers.anthropic.batch import AnthropicBatch

def run(when, store):
    send = httpx2.HTTPTransport.handle_request
    def watched(self, request):
        if request.method == "POST" and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        response = send(self, request)
        os.kill(os.getpid(), signal.SIGKILL)
        return response
    httpx2.HTTPTransport.handle_request = watched
    plain = httpx2.Client(verify=False)
    client = anthropic.Anthropic(api_key="k-0123456789", base_url=sys.argv[1], http_client=plain)
    provider = AnthropicBatch(client)
    shelf(4).llmbatch.submit(
        ASK, "claude-haiku-4-5", params={"max_tokens": 200 + len(when)}, provider=provider,
        store=store, name=when,  # another cap: what a batch asks already would be waited for
    )

for when in ("before", "after"):
    assert forked(lambda: run(when, sys.argv[2])) == signal.SIGKILL
"""


def test_a_kill_between_the_call_and_its_record(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """SIGKILL just before or just after the server made it: the next run finds out which."""
    script = [sys.executable, "-c", WORKER, server.origin, str(store)]
    server.hold("in_progress")
    warm.run(script, cwd=Path(__file__).parent.parent, check=True)
    assert len(server.batches) == 1
    frame = shelf(4)

    jobs = [
        submit(frame, provider, store, name=when, params={"max_tokens": 200 + len(when)})
        for when in ("before", "after")
    ]
    words = [[word for word, _ in job.status().shards] for job in jobs]
    server.release()
    answers = [job.wait(poll_seconds=0.01).collect(frame)[job.spec.name] for job in jobs]

    assert words == [["unconfirmed"], ["unconfirmed"]]
    assert [a.tolist() for a in answers] == [[said(t) for t in frame["title"]]] * 2
    assert set(server.executed.values()) == {2}  # once for each of the two jobs
    assert len(server.batches) == 2


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "t"}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]},
        {"role": "user", "content": [3]},
        {"role": "user"},
    ],
    ids=["tool call", "audio", "number", "nothing"],
)
def test_ready_requests_that_cannot_be_translated(
    message: dict[str, Any], server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """`submit_requests` takes any body; what has no translation is named, and nothing is sent."""
    body = {"model": MODEL, "messages": [message], **CAP}
    request = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}

    with pytest.raises(InputError, match="Anthropic"):
        frameenrich.submit_requests([request], provider=provider, store=store)

    assert not server.requests


def test_ready_requests_are_translated(
    server: AnthropicServer, provider: AnthropicBatch, store: Path
) -> None:
    """The same promises for requests that somebody else wrote, however long their names."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], **CAP}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}

    job = frameenrich.submit_requests(
        [{"custom_id": "n" * 70, **line}], provider=provider, store=store
    )

    assert job.wait(poll_seconds=0.01).collect()["answer"].tolist() == ["echo: hello"]
    check_paid(server, batches=1)
