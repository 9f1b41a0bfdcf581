"""The loopback server, driven through the real `openai` client: what it promises to other tests."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import batch_server
import openai
import pytest
from batch_server import (
    KINDS,
    BatchServer,
    Faults,
    Reply,
    body_hash,
    default_answer,
    make_fault,
    pick,
    unit_vector,
)

Json = dict[str, Any]
pytestmark = pytest.mark.any_pandas
CHAT = "/v1/chat/completions"
LABELS = ["Kitchen", "Garden", "Office", "Toys", "Sports"]


@pytest.fixture
def server() -> Iterator[BatchServer]:
    """A server with the default options."""
    with BatchServer() as running:
        yield running


@pytest.fixture
def client(server: BatchServer) -> Iterator[openai.OpenAI]:
    """The real client, without retries."""
    with connect(server) as connected:
        yield connected


def connect(server: BatchServer, key: str = "test", retries: int = 0) -> openai.OpenAI:
    """Return a client of a server; a context manager."""
    return openai.OpenAI(
        base_url=server.base_url,
        api_key=key,
        max_retries=retries,
        timeout=10,
        http_client=openai.DefaultHttpx2Client(verify=False),  # loading certificates takes 40 ms
    )


def chat_body(text: str, **params: Any) -> Json:
    """Return the body of a chat request."""
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **params}


def request_line(custom_id: str, body: Json, url: str = CHAT) -> Json:
    """Return one line of a batch file."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def chat_lines(count: int) -> list[Json]:
    """Return requests `row-0`, `row-1`, … that say "text 0", "text 1" and on."""
    return [request_line(f"row-{n}", chat_body(f"text {n}")) for n in range(count)]


def jsonl(lines: list[Json]) -> bytes:
    """Return the lines of a file."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def submit(
    client: openai.OpenAI, lines: list[Json] | bytes, endpoint: Any = CHAT, **extra: Any
) -> openai.types.Batch:
    """Upload lines and make a batch of them."""
    data = lines if isinstance(lines, bytes) else jsonl(lines)
    file = client.files.create(file=("shard-00000.requests.jsonl", data), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **extra
    )


def run(
    client: openai.OpenAI, lines: list[Json] | bytes, endpoint: Any = CHAT, polls: int = 6
) -> openai.types.Batch:
    """Submit, and poll to the end."""
    batch = submit(client, lines, endpoint)
    for _ in range(polls):
        batch = client.batches.retrieve(batch.id)
    return batch


def raw_lines(client: openai.OpenAI, file_id: str | None) -> list[bytes]:
    """Return the lines of a result file, as they are."""
    assert file_id
    return client.files.content(file_id).content.split(b"\n")[:-1]


def parsed(client: openai.OpenAI, file_id: str | None) -> list[Json]:
    """Return the lines of a result file as JSON."""
    return [json.loads(line) for line in raw_lines(client, file_id)]


def contents(lines: list[Json]) -> dict[str, str]:
    """Return the chat answers by custom_id."""
    return {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"]
        for line in lines
    }


# --- the life of a batch -------------------------------------------------------------------------


def test_a_batch_goes_one_step_a_poll(client: openai.OpenAI) -> None:
    """Status, counts and times move on with each retrieve, and only then."""
    batch = submit(client, chat_lines(3), metadata={"job": "a"})
    seen = [batch]
    for _ in range(4):
        client.batches.list()
        seen.append(client.batches.retrieve(batch.id))

    statuses = [each.status for each in seen]
    totals = [each.request_counts.total for each in seen if each.request_counts]
    assert statuses == ["validating", "in_progress", "finalizing", "completed", "completed"]
    assert totals == [0, 3, 3, 3, 3]
    last = seen[-1]
    assert last.request_counts
    assert last.request_counts.completed == 3
    assert last.completed_at
    assert last.expires_at == last.created_at + 86400
    assert (last.model, last.metadata, last.error_file_id) == ("gpt-4o-mini", {"job": "a"}, None)
    assert last.usage
    assert last.usage.total_tokens > 0
    assert seen[2].output_file_id is None


def test_every_row_gets_its_own_answer_out_of_order(
    server: BatchServer, client: openai.OpenAI
) -> None:
    """Answers echo the row, are shuffled by default, and each line is executed once."""
    batch = run(client, chat_lines(50))
    lines = parsed(client, batch.output_file_id)

    assert contents(lines) == {f"row-{n}": f"echo: text {n}" for n in range(50)}
    assert [line["custom_id"] for line in lines] != [f"row-{n}" for n in range(50)]
    assert server.executed == Counter({f"row-{n}": 1 for n in range(50)})
    assert server.executed_bodies[body_hash(chat_body("text 7"))] == 1


def test_instant_advance_hold_and_release() -> None:
    """The pace is the test's to set."""
    with BatchServer(instant=True) as server, connect(server) as client:
        batch = submit(client, chat_lines(2))
        assert (batch.status, server.batches[batch.id]["status"]) == ("validating", "completed")
    with BatchServer(steps_per_poll=0) as server, connect(server) as client:
        batch = submit(client, chat_lines(2))
        assert client.batches.retrieve(batch.id).status == "validating"
        server.hold("in_progress")
        server.finish()
        assert client.batches.retrieve(batch.id).status == "in_progress"
        server.release()
        server.advance(batch.id, steps=2)
        assert client.batches.retrieve(batch.id).status == "completed"


def test_counts_go_up_while_in_progress() -> None:
    """With `in_progress_steps` a batch runs a part of its rows at each step."""
    with BatchServer(in_progress_steps=2) as server, connect(server) as client:
        batch = submit(client, chat_lines(4))
        polled = [client.batches.retrieve(batch.id) for _ in range(3)]

    counts = [each.request_counts.completed for each in polled if each.request_counts]
    assert counts == [0, 2, 4]


def test_cancelling_keeps_what_ran(server: BatchServer, client: openai.OpenAI) -> None:
    """A running batch that is cancelled has partial output and no lines for the rest."""
    batch = submit(client, chat_lines(10))
    client.batches.retrieve(batch.id)
    cancelling = client.batches.cancel(batch.id)
    batch = client.batches.retrieve(batch.id)

    assert (cancelling.status, batch.status) == ("cancelling", "cancelled")
    assert batch.request_counts
    assert batch.request_counts.to_dict() == {
        "total": 10,
        "completed": 5,
        "failed": 0,
    }
    assert batch.error_file_id is None
    assert len(raw_lines(client, batch.output_file_id)) == 5 == server.executed.total()
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_cancelling_before_validation_runs_nothing(
    server: BatchServer, client: openai.OpenAI
) -> None:
    """No file, no count, no execution."""
    batch = submit(client, chat_lines(2))
    client.batches.cancel(batch.id)
    batch = client.batches.retrieve(batch.id)

    assert (batch.status, batch.output_file_id, server.executed) == ("cancelled", None, Counter())


# --- files and lists -----------------------------------------------------------------------------


def test_files_are_kept_listed_and_deleted(server: BatchServer, client: openai.OpenAI) -> None:
    """The Files API: expiry, content, pages, purpose, deletion."""
    first = client.files.create(
        file=("a.jsonl", b"{}\n" * 9),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    second = client.files.create(file=("b.txt", b"x"), purpose="user_data")

    assert (first.bytes, first.expires_at) == (27, first.created_at + 3600)
    assert client.files.retrieve(first.id).filename == "a.jsonl"
    assert client.files.content(first.id).content == b"{}\n" * 9
    assert [f.id for f in client.files.list(limit=1)] == [second.id, first.id]
    assert [f.id for f in client.files.list(order="asc")] == [first.id, second.id]
    assert [f.id for f in client.files.list(purpose="batch")] == [first.id]
    assert client.files.delete(first.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(first.id)
    assert server.files[first.id]["deleted"]
    assert server.files[first.id]["expires_after"] == {"anchor": "created_at", "seconds": 3600}


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [("a.json", b"{}", 400), ("a.jsonl", b"\xef\xbb\xbf{}", 400), ("a.jsonl", b"x" * 99, 413)],
)
def test_bad_uploads_are_refused(name: str, data: bytes, status: int) -> None:
    """File ending, byte order mark, size."""
    with BatchServer(max_file_bytes=50) as server, connect(server) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            client.files.create(file=(name, data), purpose="batch")

        assert caught.value.status_code == status
        assert server.files == {}


def test_a_file_quota_frees_up_on_deletion() -> None:
    """`max_files` counts the files that are alive."""
    with BatchServer(max_files=1) as server, connect(server) as client:
        file = client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
        with pytest.raises(openai.BadRequestError, match="quota"):
            client.files.create(file=("b.jsonl", b"{}"), purpose="batch")
        client.files.delete(file.id)
        client.files.create(file=("b.jsonl", b"{}"), purpose="batch")


def test_batches_are_listed_newest_first_in_pages(client: openai.OpenAI) -> None:
    """Pages of 20 unless told otherwise, at most 100; `has_more` leads on."""
    made = [submit(client, chat_lines(1)).id for _ in range(25)]

    page = client.batches.list()
    assert (len(page.data), page.has_more) == (20, True)
    assert [batch.id for batch in client.batches.list(limit=10)] == made[::-1]
    with pytest.raises(openai.BadRequestError):
        client.batches.list(limit=101)


def test_create_checks_its_arguments(client: openai.OpenAI) -> None:
    """Endpoint, window, file and metadata."""
    file = client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    good: Json = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    bad: list[Json] = [
        {"endpoint": "/chat/completions"},
        {"completion_window": "1h"},
        {"input_file_id": "file-none"},
        {"metadata": {f"k{n}": "v" for n in range(17)}},
        {"metadata": {"k": "v" * 513}},
    ]

    for change in bad:
        with pytest.raises(openai.BadRequestError):
            client.batches.create(**{**good, **change})
    assert client.batches.list().data == []


# --- validation ----------------------------------------------------------------------------------


def test_one_bad_line_fails_the_whole_batch_with_every_line_named() -> None:
    """Nothing runs; all bad lines are listed with code and number."""
    lines = [json.dumps(line).encode() for line in chat_lines(8)]
    lines[0] = jsonl([request_line("row-0", {**chat_body("x"), "made_up": 1})]).strip()
    lines[2] = b"{not json"
    lines[3] = lines[1]
    lines[4] = lines[4].replace(b"/v1/chat/completions", b"/v1/embeddings")
    lines[5] = lines[5].replace(b"gpt-4o-mini", b"gpt-4o")
    lines[6] = lines[6].replace(b'"custom_id"', b'"id"')
    lines[7] = lines[7].replace(b'"text 7"', b'NaN, "caf\xe9": 1')
    with BatchServer(bad_body_keys=["made_up"]) as server, connect(server) as client:
        batch = run(client, b"\n".join(lines))

        assert batch.status == "failed"
        assert batch.failed_at
        assert batch.errors
        assert batch.errors.data
        assert [(e.line, e.code, e.param) for e in batch.errors.data] == [
            (1, "invalid_request", "body.made_up"),
            (3, "invalid_json_line", None),
            (4, "duplicate_custom_id", "custom_id"),
            (5, "url_mismatch", "url"),
            (6, "model_mismatch", "body.model"),
            (7, "missing_required_parameter", "custom_id"),
            (8, "invalid_json_line", None),
        ]
        assert batch.request_counts
        assert batch.request_counts.total == 0
        assert (server.executed, batch.usage) == (Counter(), None)


@pytest.mark.parametrize(
    ("options", "data", "code"),
    [
        ({}, b"", "empty_file"),
        ({"max_requests": 2}, jsonl(chat_lines(3)), "too_many_tasks"),
        ({"known_models": {"gpt-5"}}, jsonl(chat_lines(3)), "model_not_found"),
        ({"max_enqueued_tokens": 10}, jsonl(chat_lines(3)), "token_limit_exceeded"),
    ],
)
def test_limits_fail_the_batch(options: Json, data: bytes, code: str) -> None:
    """Limits show up as a failed batch, after its create was accepted."""
    with BatchServer(list_all_errors=False, **options) as server, connect(server) as client:
        batch = run(client, data)

        assert batch.status == "failed"
        assert batch.errors
        assert [e.code for e in batch.errors.data or ()] == [code]


def test_the_queue_is_free_again_when_a_batch_ends() -> None:
    """`token_limit_exceeded` is about the other batches of the model at that moment."""
    lines = chat_lines(4)
    limit = len(jsonl(lines)) // 3
    with BatchServer(max_enqueued_tokens=limit) as server, connect(server) as client:
        first = submit(client, lines)
        client.batches.retrieve(first.id)
        second = run(client, lines)
        server.finish(first.id)
        third = run(client, lines)

    assert (second.status, third.status) == ("failed", "completed")


def test_embedding_inputs_are_counted() -> None:
    """The limit of an embeddings batch is on its inputs."""
    body = {"model": "text-embedding-3-small", "input": ["a", "b", "c"]}
    with BatchServer(max_embedding_inputs=2) as server, connect(server) as client:
        batch = run(client, [request_line("r", body, "/v1/embeddings")], "/v1/embeddings")

    assert batch.errors
    assert [e.code for e in batch.errors.data or ()] == ["too_many_tasks"]


# --- answers -------------------------------------------------------------------------------------

SCHEMA: Json = {
    "type": "object",
    "additionalProperties": False,
    "required": ["label", "title", "score", "price", "ok", "tags", "maker", "note", "next"],
    "properties": {
        "label": {"enum": LABELS},
        "title": {"type": "string", "maxLength": 5},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "price": {"type": "number", "exclusiveMinimum": 0},
        "ok": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
        "maker": {"$ref": "#/$defs/Maker"},
        "note": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "$defs": {
        "Maker": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "since"],
            "properties": {
                "name": {"type": ["string", "null"]},
                "since": {"type": "string", "format": "date"},
            },
        }
    },
}


def schema_format(schema: Json) -> Json:
    """Return a strict response_format."""
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


ODD_SCHEMA: Json = {
    "allOf": [{"$ref": "#/$defs/Base"}, {"properties": {"kind": {"const": "odd"}}}],
    "required": ["kind", "pair", "half", "even", "below", "any", "map", "when", "mail", "json"],
    "$defs": {
        "Base": {
            "type": "object",
            "properties": {
                "pair": {
                    "type": "array",
                    "prefixItems": [{"type": "string"}, {"type": "integer"}],
                    "items": False,
                },
                "half": {"type": "number", "minimum": 0.2, "maximum": 0.3},
                "even": {"type": "integer", "multipleOf": 2, "exclusiveMinimum": 4, "maximum": 6},
                "below": {"type": "integer", "exclusiveMaximum": 0},
                "any": {},
                "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                "when": {"type": "string", "format": "date-time"},
                "mail": {"type": "string", "format": "email"},
                "json": {"type": "string", "minLength": 9},
            },
        }
    },
}


@pytest.mark.parametrize("text", ["a blue vase", "", "ünïcode \u2028 text", "x" * 400])
def test_default_answers_are_valid_instances_of_the_schema(text: str) -> None:
    """Whatever the row says, the answer validates, and the enum is `pick`'s."""
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    reply = default_answer(chat_body(text, response_format=schema_format(SCHEMA)), "row-1")
    answer = json.loads(reply.content or "")

    jsonschema_rs.validator_for(SCHEMA).validate(answer)
    assert (answer["label"], answer["title"]) == (pick(LABELS, text), text[:5])

    odd = default_answer(chat_body(text, response_format=schema_format(ODD_SCHEMA)), "row-1")
    jsonschema_rs.validator_for(ODD_SCHEMA).validate(json.loads(odd.content or ""))


def test_a_strict_schema_must_close_its_objects(client: openai.OpenAI) -> None:
    """As the API does: a 400 for the row, not for the batch."""
    changes: list[Json] = [{"additionalProperties": True}, {"required": []}]
    for change in changes:
        body = chat_body("x", response_format=schema_format({**SCHEMA, **change}))
        with pytest.raises(openai.BadRequestError, match="Invalid schema"):
            client.chat.completions.create(**body)
        batch = run(client, [request_line("row", body)])
        [line] = parsed(client, batch.error_file_id)
        assert (line["response"]["status_code"], line["error"]) == (400, None)


def test_live_calls_have_the_shapes_of_their_endpoints(
    server: BatchServer, client: openai.OpenAI
) -> None:
    """All five endpoints, through the client's own types; booked in the same ledger."""
    chat = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        extra_headers={"X-Client-Request-Id": "row-9"},
    )
    response = client.responses.create(model="m", input="hi")
    completion = client.completions.create(model="m", prompt="hi")
    vectors = client.embeddings.create(model="m", input=["a", "b"], dimensions=3)
    moderation = client.moderations.create(input="hi")

    assert chat.choices[0].message.content == "echo: hi" == response.output_text
    assert completion.choices[0].text == "echo: hi"
    assert [each.embedding for each in vectors.data] == [
        pytest.approx(unit_vector("a", 3), abs=1e-6),
        pytest.approx(unit_vector("b", 3), abs=1e-6),
    ]
    assert 0 <= moderation.results[0].category_scores.hate < 1
    assert chat.usage
    assert chat.usage.prompt_tokens > 0
    assert response.usage
    assert response.usage.total_tokens > 0
    assert (server.executed["row-9"], server.executed.total()) == (1, 5)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/responses", {"model": "m", "input": [{"role": "user", "content": "hi"}]}),
        ("/v1/embeddings", {"model": "m", "input": "hi"}),
        ("/v1/completions", {"model": "m", "prompt": "hi"}),
        ("/v1/moderations", {"model": "m", "input": "hi"}),
    ],
)
def test_batches_of_the_other_endpoints(
    endpoint: str, body: Json, server: BatchServer, client: openai.OpenAI
) -> None:
    """Batch rows are answered as live calls are."""
    batch = run(client, [request_line("row", body, endpoint)], endpoint)
    [line] = parsed(client, batch.output_file_id)

    request = urllib.request.Request(
        f"{server.origin}{endpoint}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as live:
        assert line["response"]["body"] == json.load(live)


def test_an_answerer_of_ones_own() -> None:
    """It sees body and custom_id; refusals, errors and usage come out where they should."""
    replies = {
        "refusal": Reply(refusal="no"),
        "failure": Reply(status_code=429, error={"message": "slow down"}),
        "line error": Reply(error={"code": "server_error", "message": "oops"}),
        "usage": Reply(content="x", usage={"prompt_tokens": 7, "completion_tokens": 5}),
        "body": Reply(body={"any": "thing"}),
    }
    lines = [request_line(name, chat_body("x")) for name in replies]
    server = BatchServer(answer=lambda _, custom_id: replies[custom_id])
    with server, connect(server) as client:
        batch = run(client, lines)
        good = {line["custom_id"]: line for line in parsed(client, batch.output_file_id)}
        bad = {line["custom_id"]: line for line in parsed(client, batch.error_file_id)}

    assert good["refusal"]["response"]["body"]["choices"][0]["message"]["refusal"] == "no"
    assert good["usage"]["response"]["body"]["usage"]["total_tokens"] == 12
    assert good["body"]["response"]["body"] == {"any": "thing"}
    assert bad["failure"]["response"]["body"]["error"]["message"] == "slow down"
    assert (bad["line error"]["response"], bad["line error"]["error"]["code"]) == (
        None,
        "server_error",
    )
    assert batch.request_counts
    assert batch.request_counts.failed == 2


def test_images_and_plain_json_show_in_the_answer(client: openai.OpenAI) -> None:
    """Two rows that differ in their image alone get different answers."""
    said = []
    for name in ("a", "b"):
        image = {"type": "image_url", "image_url": {"url": f"https://example.com/{name}.png"}}
        content = [{"type": "text", "text": "what is it?"}, image]
        body = chat_body("", messages=[{"role": "user", "content": content}])
        chat = client.chat.completions.create(**body, response_format={"type": "json_object"})
        said.append(json.loads(chat.choices[0].message.content or "")["echo"])

    assert said[0] != said[1]
    assert [text.startswith("what is it?\n[image ") for text in said] == [True, True]


def test_a_broken_answerer_is_raised_by_the_server() -> None:
    """A mistake in a test does not hide inside a thread."""

    def broken(_: Json, custom_id: str) -> Reply:
        raise LookupError(custom_id)

    with (
        pytest.raises(LookupError, match="live:"),
        BatchServer(answer=broken) as server,
        connect(server) as client,
        contextlib.suppress(openai.InternalServerError),
    ):
        client.chat.completions.create(**chat_body("x"))


def test_a_broken_where_is_raised_by_the_server() -> None:
    """Nor does a mistake in a fault."""
    faults = Faults(make_fault("http_500", where=lambda _: bool(1 / 0)))
    with (
        pytest.raises(ZeroDivisionError),
        BatchServer(faults=faults) as server,
        connect(server) as client,
        contextlib.suppress(openai.APIConnectionError),
    ):
        client.batches.list()


def test_keys_are_checked_and_blanked_out_in_the_log() -> None:
    """401 in OpenAI's shape; no key in the ledger."""
    with BatchServer(require_key="sk-right") as server:
        with connect(server, "sk-wrong") as client, pytest.raises(openai.AuthenticationError) as no:
            client.batches.list()
        with connect(server, "sk-right") as client:
            client.batches.list()

        assert no.value.code == "invalid_api_key"
        assert [call.status for call in server.requests] == [401, 200]
        assert "sk-" not in str(server.requests)


def test_projects_do_not_see_each_other() -> None:
    """With `per_key_projects`, a batch of another key is a 404."""
    server = BatchServer(per_key_projects=True)
    with server, connect(server, "sk-a") as one, connect(server, "sk-b") as other:
        batch = submit(one, chat_lines(1))
        with pytest.raises(openai.NotFoundError):
            other.batches.retrieve(batch.id)
        assert (other.batches.list().data, other.files.list().data) == ([], [])
        assert one.batches.retrieve(batch.id).id == batch.id


def test_azure_classic() -> None:
    """Routes without /v1, deployments, and a zero-byte error file on a clean batch."""
    lines = [request_line("row", chat_body("hi"), "/chat/completions")]
    with (
        BatchServer(azure=True) as server,
        openai.AzureOpenAI(
            azure_endpoint=server.origin, api_key="test", api_version="2024-10-21", max_retries=0
        ) as client,
    ):
        batch = run(client, lines, "/chat/completions")
        chat = client.chat.completions.create(**chat_body("hi"))

        assert (batch.status, raw_lines(client, batch.error_file_id)) == ("completed", [])
        assert contents(parsed(client, batch.output_file_id)) == {"row": "echo: hi"}
        assert chat.choices[0].message.content == "echo: hi"
        assert server.count("POST", "/v1/batches") == 1


# --- faults: lines and files ---------------------------------------------------------------------


def test_the_table_of_the_docstring_is_complete() -> None:
    """Every fault is documented, with its scope, and nothing else is."""
    table = re.findall(
        r"^``(\w+)``.*?\s(http|batch|row) ", batch_server.__doc__ or "", re.MULTILINE
    )

    assert dict(table) == {name: kind.scope for name, kind in KINDS.items()}


def test_unknown_faults_and_options_are_refused() -> None:
    """A misspelt fault is an error, not a test that passes."""
    with pytest.raises(KeyError):
        make_fault("no_such_fault")
    with pytest.raises(TypeError, match="no option"):
        make_fault("expired", fraktion=0.5)


def test_all_lines_failed(server: BatchServer, client: openai.OpenAI) -> None:
    """[1] Completed, with no output file."""
    server.faults.add("all_lines_failed")
    batch = run(client, chat_lines(3))

    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert len(raw_lines(client, batch.error_file_id)) == 3
    assert batch.request_counts
    assert batch.request_counts.failed == 3


def test_odd_result_files(server: BatchServer, client: openai.OpenAI) -> None:
    """[2] An id that is "", and ids of empty files."""
    server.faults.add("error_file_id_empty_string")
    assert run(client, chat_lines(1)).error_file_id == ""
    server.faults.add("empty_error_file")
    assert raw_lines(client, run(client, chat_lines(1)).error_file_id) == []
    server.faults.add("empty_output_file")
    assert raw_lines(client, run(client, chat_lines(1)).output_file_id) == []


ROW_CHECKS: dict[str, Callable[[Json], bool]] = {
    "http_error_in_output": lambda d: (d["error"], d["response"]["status_code"]) == (None, 400),
    "status_zero": lambda d: (d["response"]["status_code"], d["response"]["body"]) == (0, {}),
    "string_body": lambda d: isinstance(d["response"]["body"], str),
    "no_response_key": lambda d: "response" not in d,
    "no_error_key": lambda d: "error" not in d,
    "null_custom_id": lambda d: d["custom_id"] is None,
    "malformed": lambda d: "JSON" in contents([d])[d["custom_id"]],
    "fenced": lambda d: contents([d])[d["custom_id"]] == "```json\necho: text 1\n```",
    "chatty": lambda d: contents([d])[d["custom_id"]].startswith("Sure!"),
    "empty": lambda d: contents([d])[d["custom_id"]] == "",
    "refused": lambda d: bool(d["response"]["body"]["choices"][0]["message"]["refusal"]),
    "truncated": lambda d: d["response"]["body"]["choices"][0]["finish_reason"] == "length",
    "content_filter": lambda d: (
        d["response"]["body"]["choices"][0]["finish_reason"] == "content_filter"
    ),
}


@pytest.mark.parametrize("name", ROW_CHECKS)
def test_row_faults_strike_the_row_they_are_meant_for(
    name: str, server: BatchServer, client: openai.OpenAI
) -> None:
    """[3][4][5] and the answers that are no answers; the other rows are whole."""
    server.faults.add(name, where="row-1")
    batch = run(client, chat_lines(3))
    lines = parsed(client, batch.output_file_id)

    struck = [line for line in lines if line["custom_id"] not in ("row-0", "row-2")]
    assert [ROW_CHECKS[name](line) for line in struck] == [True]
    assert contents([line for line in lines if line not in struck]) == {
        "row-0": "echo: text 0",
        "row-2": "echo: text 2",
    }
    assert (server.executed["row-1"], server.faults.fired[name]) == (1, 1)


def test_lost_and_unrun_rows(server: BatchServer, client: openai.OpenAI) -> None:
    """A `missing` row has run, an `expired_line` has not."""
    server.faults.add("missing", where="row-0")
    server.faults.add("expired_line", where="text 1")
    server.faults.add("http_error", where=lambda custom_id, _: custom_id == "row-2")
    batch = run(client, chat_lines(4))

    errors = {line["custom_id"]: line for line in parsed(client, batch.error_file_id)}
    assert [line["custom_id"] for line in parsed(client, batch.output_file_id)] == ["row-3"]
    assert errors["row-1"]["error"]["code"] == "batch_expired"
    assert errors["row-2"]["response"]["status_code"] == 500
    assert server.executed == Counter({"row-0": 1, "row-2": 1, "row-3": 1})


def test_surplus_lines(server: BatchServer, client: openai.OpenAI) -> None:
    """[8] No custom_id, a stranger, the same line twice, two lines that differ."""
    server.faults.add("null_custom_id_line")
    server.faults.add("stranger_line")
    server.faults.add("duplicate_line", where="row-0")
    server.faults.add("conflicting_line", where="row-1")
    server.faults.add("conflicting_line", where="row-2", as_error=True)
    batch = run(client, chat_lines(4))
    lines = parsed(client, batch.output_file_id)

    ids = Counter(line["custom_id"] for line in lines)
    stranger = "nobody-asked-for-this"
    assert ids == {None: 1, stranger: 1, "row-0": 2, "row-1": 2, "row-2": 1, "row-3": 1}
    assert len({json.dumps(line) for line in lines if line["custom_id"] == "row-0"}) == 1
    assert len({json.dumps(line) for line in lines if line["custom_id"] == "row-1"}) == 2
    assert [line["custom_id"] for line in parsed(client, batch.error_file_id)] == ["row-2"]
    assert set(server.executed.values()) == {1}


def test_lines_that_are_hard_to_read(server: BatchServer, client: openai.OpenAI) -> None:
    """[9][10] Raw separators, a cut line, a byte that is not UTF-8."""
    server.faults.add("raw_separators", where="row-0")
    server.faults.add("unparseable_line", where="row-1")
    server.faults.add("not_utf8_line", where="row-2")
    batch = run(client, chat_lines(4))
    lines = raw_lines(client, batch.output_file_id)

    [separated] = [line for line in lines if b'"row-0"' in line]
    [cut] = [line for line in lines if b'"row-1"' in line]
    [latin] = [line for line in lines if b'"row-2"' in line]
    assert len(lines) == 4
    assert len(separated.decode().splitlines()) > 1
    assert json.loads(separated)
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut)
    with pytest.raises(UnicodeDecodeError):
        latin.decode()


@pytest.mark.parametrize(
    ("name", "status", "rest"),
    [("expired", "expired", 6), ("expired_silently", "expired", 0), ("cancelled", "cancelled", 0)],
)
def test_partial_batches(
    name: str, status: str, rest: int, server: BatchServer, client: openai.OpenAI
) -> None:
    """[6][7] What ran is in the output and in the ledger; the rest is not counted as failed."""
    server.faults.add(name, ran=0.4)
    batch = run(client, chat_lines(10))
    answered = {line["custom_id"] for line in parsed(client, batch.output_file_id)}
    errors = parsed(client, batch.error_file_id) if rest else []

    assert (batch.status, len(answered), len(errors)) == (status, 4, rest)
    assert set(server.executed) == answered
    assert {line["error"]["code"] for line in errors} == ({"batch_expired"} if rest else set())
    assert batch.request_counts
    assert batch.request_counts.to_dict() == {
        "total": 10,
        "completed": 4,
        "failed": 0,
    }


def test_downloads_cut_short(server: BatchServer, client: openai.OpenAI) -> None:
    """[11] Less than the Content-Length, less than the file's `bytes`, and no length at all."""
    batch = run(client, chat_lines(20))
    assert batch.output_file_id
    whole = server.content(batch.output_file_id)

    server.faults.add("truncated_download")
    with pytest.raises(openai.APIConnectionError):
        client.files.content(batch.output_file_id)
    server.faults.add("short_download", keep=0.25)
    short = client.files.content(batch.output_file_id).content
    server.faults.add("download_without_length")
    chunked = client.files.content(batch.output_file_id)

    assert (short, len(short)) == (whole[: len(short)], len(whole) // 4)
    assert client.files.retrieve(batch.output_file_id).bytes == len(whole)
    assert "content-length" not in chunked.response.headers
    assert chunked.content == whole == client.files.content(batch.output_file_id).content


# --- faults: the service -------------------------------------------------------------------------


def test_polling_meets_html_and_no_json(server: BatchServer, client: openai.OpenAI) -> None:
    """[12] Neither lets the batch take a step."""
    batch = submit(client, chat_lines(1))
    server.faults.add("html_502")
    with pytest.raises(openai.InternalServerError):
        client.batches.retrieve(batch.id)
    server.faults.add("not_json")
    with pytest.raises(json.JSONDecodeError):
        client.batches.retrieve(batch.id)

    assert client.batches.retrieve(batch.id).status == "in_progress"


def test_stuck_batches_and_strange_words(server: BatchServer, client: openai.OpenAI) -> None:
    """[13] For ever in progress; `scheduling`; nulls in counts and errors."""
    server.faults.add("stuck", where="a")
    server.faults.add("null_counts", where="a")
    server.faults.add("unknown_status", where="b")
    server.faults.add("null_request_counts", where="b")
    server.faults.add("null_errors", where="b")
    stuck = submit(client, chat_lines(1), metadata={"name": "a"})
    strange = submit(client, b"[]\n", metadata={"name": "b"})
    server.advance(stuck.id, steps=50)
    polled = client.batches.retrieve(stuck.id)

    assert polled.status == "in_progress"
    assert polled.request_counts
    assert set(polled.request_counts.to_dict().values()) == {None}
    assert (str(strange.status), strange.request_counts) == ("scheduling", None)
    failed = client.batches.retrieve(strange.id)
    assert failed.status == "failed"
    assert failed.errors
    assert failed.errors.object is None
    assert [error.code for error in failed.errors.data or ()] == [None]
    server.release(stuck.id)
    server.finish()
    assert client.batches.retrieve(stuck.id).status == "completed"


def test_failing_later(server: BatchServer, client: openai.OpenAI) -> None:
    """A batch may fail long after its create, also for a queue that is full."""
    server.faults.add("fails_after_validating", steps=2, code="mismatched_model")
    first = submit(client, chat_lines(1))
    statuses = [client.batches.retrieve(first.id).status for _ in range(2)]
    server.faults.add("token_limit_exceeded")
    second = run(client, chat_lines(1))

    assert statuses == ["validating", "failed"]
    assert second.errors
    assert [e.code for e in second.errors.data or ()] == ["token_limit_exceeded"]
    assert server.executed == Counter()


def test_accepted_but_the_answer_is_lost(server: BatchServer, client: openai.OpenAI) -> None:
    """The batch (or the file) is there, though the client saw an error."""
    server.faults.add("accepted_then_500")
    with pytest.raises(openai.InternalServerError):
        submit(client, chat_lines(1))
    server.faults.add("accepted_then_closed")
    with pytest.raises(openai.APIConnectionError):
        submit(client, chat_lines(1))
    server.faults.add("accepted_then_closed", where="POST /v1/files")
    with pytest.raises(openai.APIConnectionError):
        submit(client, chat_lines(1))

    assert (len(server.batches), len(server.files)) == (2, 3)
    assert [call.status for call in server.requests if call.path == "/v1/batches"] == [500, 0]


def test_the_defaults_of_the_client_make_three_batches(server: BatchServer) -> None:
    """The trap that the toolkit has to keep out of: one create, retried by the SDK."""
    server.faults.add("accepted_then_500", times=2)
    with connect(server, retries=2) as client:
        submit(client, chat_lines(1))

    assert len(server.batches) == 3


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("http_500", openai.InternalServerError),
        ("http_503", openai.InternalServerError),
        ("rate_limited", openai.RateLimitError),
        ("unauthorized", openai.AuthenticationError),
        ("closed_before", openai.APIConnectionError),
        ("cannot_find_file", openai.BadRequestError),
    ],
)
def test_refusals_before_anything_is_accepted(
    name: str, error: type[Exception], server: BatchServer, client: openai.OpenAI
) -> None:
    """Nothing is made; the next try goes through."""
    server.faults.add(name, where="POST /v1/batches")
    with pytest.raises(error):
        submit(client, chat_lines(1))

    assert server.batches == {}
    assert run(client, chat_lines(1)).status == "completed"


def test_other_service_faults(server: BatchServer, client: openai.OpenAI) -> None:
    """Retry-After, a 404 of a batch, the file quota."""
    server.faults.add("rate_limited", retry_after=7)
    with pytest.raises(openai.RateLimitError) as limited:
        client.batches.list()
    server.faults.add("file_quota_exceeded")
    with pytest.raises(openai.BadRequestError, match="quota"):
        submit(client, chat_lines(1))
    batch = submit(client, chat_lines(1))
    server.faults.add("batch_not_found")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve(batch.id)

    assert limited.value.response.headers["retry-after"] == "7"
    assert client.batches.retrieve(batch.id).status == "in_progress"


@pytest.mark.parametrize(("name", "batches"), [("slow", 0), ("slow_answer", 1)])
def test_slow_answers(name: str, batches: int, server: BatchServer, client: openai.OpenAI) -> None:
    """A client that gives up may leave a batch behind."""
    server.faults.add(name, where="POST /v1/batches", seconds=30)
    with pytest.raises(openai.APITimeoutError):
        submit(client.with_options(timeout=0.15), chat_lines(1))

    assert len(server.batches) == batches


def test_live_calls_meet_row_faults(server: BatchServer, client: openai.OpenAI) -> None:
    """Those that are about answers; faults of lines wait for a batch."""
    server.faults.add("duplicate_line", where="*")
    server.faults.add("refused", where="hi", times=1)
    server.faults.add("http_error", where="ho", status=503)
    first = client.chat.completions.create(**chat_body("hi"))
    second = client.chat.completions.create(**chat_body("hi"))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**chat_body("ho"))

    assert first.choices[0].message.refusal
    assert second.choices[0].message.content == "echo: hi"
    assert [fault.name for fault in server.faults.waiting] == ["duplicate_line", "http_error"]


def test_fractions_are_repeatable_and_thrown_anew_for_each_try() -> None:
    """The same seed fails the same rows; a second try of a row may go well."""

    def failures(seed: int) -> list[int]:
        with BatchServer(http_error_fraction=0.3, seed=seed, instant=True) as server:
            with connect(server) as client:
                for _ in range(2):
                    submit(client, chat_lines(100))
            counts = [batch["request_counts"] for batch in server.batches.values()]
        return [count["failed"] for count in counts]

    first = failures(1)
    assert failures(1) == first != failures(2)
    assert all(15 <= count <= 45 for count in first)
    assert first[0] != first[1]


def test_faults_are_thread_safe() -> None:
    """A fault strikes as often as it was told to, whoever asks."""
    faults = Faults(make_fault("rate_limited", times=50))
    struck: list[int] = []

    def ask() -> None:
        struck.extend(len(faults.take("http", lambda: ("GET /x",), ())) for _ in range(50))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (sum(struck), faults.waiting) == (50, ())


# --- the server itself ---------------------------------------------------------------------------


def test_the_log_counts_requests(server: BatchServer, client: openai.OpenAI) -> None:
    """Method, path, status, the faults that struck."""
    batch = run(client, chat_lines(1), polls=2)
    server.faults.add("http_500")
    with pytest.raises(openai.InternalServerError):
        client.batches.retrieve(batch.id)

    assert server.count("POST", "/v1/batches") == server.count("POST", "/v1/files") == 1
    assert server.count("GET", f"/v1/batches/{batch.id}") == 3
    assert server.count("GET", "/v1/batches/*", status=200) == 2
    assert server.requests[-1].faults == ("http_500",)


def test_it_may_be_stopped_and_started_again(server: BatchServer, client: openai.OpenAI) -> None:
    """The port and the books stay."""
    batch = submit(client, chat_lines(1))
    server.stop()
    with pytest.raises(openai.APIConnectionError):
        client.batches.retrieve(batch.id)
    server.start()

    assert client.batches.retrieve(batch.id).id == batch.id


def test_a_batch_of_many_rows_and_many_live_calls_at_once(client: openai.OpenAI) -> None:
    """5,000 rows and 8 clients at a time: nothing is lost or mixed up."""
    batch = run(client, chat_lines(5000))
    answers = contents(parsed(client, batch.output_file_id))
    assert answers == {f"row-{n}": f"echo: text {n}" for n in range(5000)}

    said: dict[int, str | None] = {}

    def call(number: int) -> None:
        chat = client.chat.completions.create(**chat_body(f"live {number}"))
        said[number] = chat.choices[0].message.content

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {number: f"echo: live {number}" for number in range(8)}


def test_an_upload_in_chunks(server: BatchServer) -> None:
    """A client may stream its upload, with no Content-Length."""
    parts = [
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n',
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n',
        b"Content-Type: application/octet-stream\r\n\r\n--b is no boundary here\n",
        b"\r\n--b--\r\n",
    ]
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/files", iter(parts), headers=headers, encode_chunked=True)
        file = json.load(connection.getresponse())

    assert server.content(file["id"]) == b"--b is no boundary here\n"


def test_as_a_process_of_its_own() -> None:
    """It prints its base URL, and is driven over HTTP."""

    def post(origin: str, **control: Any) -> None:
        data = json.dumps(control).encode()
        with urllib.request.urlopen(f"{origin}/_control", data=data) as answer:
            assert json.load(answer) == {"ok": True}

    command = [sys.executable, str(Path(__file__).parent.parent / "batch_server"), "--port", "0"]
    options = ["--options", '{"steps_per_poll": 0}', "--fault", '{"name": "expired", "ran": 0.5}']
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            base_url = process.stdout.readline().strip()
            origin = base_url.removesuffix("/v1")
            with openai.OpenAI(base_url=base_url, api_key="test", max_retries=0) as client:
                batch = submit(client, chat_lines(2))
                post(origin, action="finish")
                assert client.batches.retrieve(batch.id).status == "expired"
                post(origin, action="add", name="http_500", where="GET /v1/files")
                with pytest.raises(openai.InternalServerError):
                    client.files.list()
            with urllib.request.urlopen(f"{origin}/_ledger") as answer:
                ledger = json.load(answer)
        finally:
            process.kill()

    assert sum(ledger["executed"].values()) == 1
    assert ledger["faults"]["fired"] == {"expired": 1, "http_500": 1}
    assert ledger["requests"][-1] == ["GET", "/v1/files", 500, ["http_500"]]
