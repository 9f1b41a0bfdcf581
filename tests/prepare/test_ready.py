"""Requests that came ready: the same promises as a frame's, by custom_id."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from conftest import tagged
from crash import KillPoint, control, forked, ledger, server_process, watch

import frameenrich
from frameenrich import errors
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch

CHAT = "/v1/chat/completions"
EVERY = 40
"""The kill test kills at each 40th step."""


def ask(
    custom_id: str, text: str = "", model: str = "m", url: str = CHAT, **more: Any
) -> dict[str, Any]:
    """A chat request, which the server answers with an echo of its text."""
    said = [{"role": "user", "content": text or f"item {custom_id}"}]
    body = {"model": model, "messages": said, **more}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def written(path: Path, requests: list[dict[str, Any]]) -> Path:
    """The requests as JSONL, as `json.dumps` has it by default."""
    path.write_text("".join(json.dumps(each) + "\n" for each in requests))
    return path


def answers(job: frameenrich.Job) -> dict[str, Any]:
    """Each custom_id's answer, once all are ok."""
    out = job.collect(wait=True, poll_seconds=0.01, timeout=30)
    assert list(out.columns) == ["custom_id", "answer", "answer_status", "answer_error"]
    assert set(out["answer_status"]) == {"ok"}
    return dict(zip(out["custom_id"], out["answer"], strict=True))


def test_a_file_of_requests_becomes_a_frame_by_custom_id(
    server: BatchServer, provider: OpenAIBatch, store: Path, tmp_path: Path
) -> None:
    """Each custom_id has its own answer, in the file's order; the requests went as they were."""
    asked = [ask(f"q-{n}", temperature=0.5) for n in range(20)]
    path = written(tmp_path / "asked.jsonl", asked)

    job = frameenrich.submit_requests(path, provider=provider, store=store)
    found = answers(job)

    assert list(found) == [f"q-{n}" for n in range(20)]
    assert found == {name: f"echo: item {name}" for name in found}
    (sent,) = job.requests
    assert [json.loads(line) for line in Path(sent).read_bytes().splitlines()] == asked
    assert set(server.executed.values()) == {1}


def test_dicts_texts_bytes_and_a_zipped_file_are_the_same_job(
    server: BatchServer, provider: OpenAIBatch, store: Path, tmp_path: Path
) -> None:
    """What is asked names a job: not its form, its spaces or its order; it is sent once."""
    asked = [ask("a", "Café \U0001f600"), ask("b", max_tokens=2**70)]
    lines = [json.dumps(each, indent=2, ensure_ascii=False) for each in asked]
    packed = tmp_path / "asked.jsonl.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + b"\n\n".join(
        json.dumps(each).encode() for each in reversed(asked)
    )))  # fmt: skip

    jobs = [
        frameenrich.submit_requests(form, provider=provider, store=store)
        for form in (asked, lines, iter([line.encode() for line in lines]), packed, str(packed))
    ]

    assert len({job.id for job in jobs}) == 1
    assert len(server.batches) == 1
    assert answers(jobs[0])["a"] == "echo: Café \U0001f600"
    again = frameenrich.submit_requests(asked, provider=provider, store=store, fresh=True)
    assert again.id != jobs[0].id
    assert len(server.batches) == 2


@pytest.mark.parametrize("called", ["a::b.jsonl", "a::b.jsonl.gz", "s3::b.jsonl"])
def test_a_file_may_have_colons_in_its_name(called: str, store: Path, tmp_path: Path) -> None:
    """Without ``://`` a path is a local file, relative or whole."""
    text = json.dumps(ask("a")).encode()
    (tmp_path / called).write_bytes(gzip.compress(text) if called.endswith(".gz") else text)
    url = written(tmp_path / "plain.jsonl", [ask("a")]).as_uri()

    jobs = [
        frameenrich.submit_requests(path, provider="file", store=store)
        for path in (called, Path(called), str(tmp_path / called), url)
    ]

    assert len({job.id for job in jobs}) == 1


@pytest.mark.parametrize(
    "wishes",
    [
        {"name": "custom_id"},
        {"response_model": {"custom_id": str}},
        {"response_model": {"id": str}, "prefix": "custom_"},
    ],
    ids=["name", "field", "prefix"],
)
def test_an_answer_called_custom_id_is_refused(
    wishes: dict[str, Any], server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """The frame of answers has such a column already: its key."""
    with pytest.raises(errors.ColumnCollisionError, match="'custom_id', which is the name of the"):
        frameenrich.submit_requests([ask("a")], provider=provider, store=store, **wishes)

    assert not server.files
    assert frameenrich.jobs(store).empty


def test_identical_requests_are_sent_once_and_answered_under_each_custom_id(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Another custom_id alone makes no other request; another seed does."""
    asked = [ask("a", "same"), ask("b", "same"), ask("c", "same", seed=1)]

    job = frameenrich.submit_requests(asked, provider=provider, store=store)

    assert answers(job) == dict.fromkeys("abc", "echo: same")
    assert set(server.executed) == {"a", "c"}
    assert job.requests_by_custom_id("b")["b"]["body"] == asked[0]["body"]


def test_custom_ids_that_no_provider_takes_come_back_as_they_were(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Spaces, other scripts, great length, and what we call requests ourselves."""
    odd = ["two words", "Größe/7", "x" * 300, "r1-mine", "key-mine-0", "a" * 52, "mine"]

    job = frameenrich.submit_requests([ask(i) for i in odd], provider=provider, store=store)

    assert answers(job) == {i: f"echo: item {i}" for i in odd}
    assert all(len(name) <= 51 and not name.startswith("r1-") for name in server.executed)
    assert "mine" in server.executed
    assert [r["body"] for r in job.requests_by_custom_id(odd).values()] == [
        ask(i)["body"] for i in odd
    ]


def test_a_batch_holds_one_model_and_keeps_the_limits(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Models that alternate in the file are kept apart in batches of at most so many requests."""
    provider.limits = Limits(max_requests=3)
    asked = [ask(f"q{n}", model=f"m{n % 2}") for n in range(10)]

    job = frameenrich.submit_requests(asked, provider=provider, store=store)
    found = answers(job)

    assert found == {f"q{n}": f"echo: item q{n}" for n in range(10)}
    files = [Path(path).read_bytes().splitlines() for path in job.requests]
    models = [{json.loads(line)["body"]["model"] for line in lines} for lines in files]
    assert sorted(len(lines) for lines in files) == [2, 2, 3, 3]
    assert all(len(each) == 1 for each in models)
    assert job.spec.models == ("m0", "m1")


BAD: dict[str, tuple[list[Any], type[errors.FrameEnrichError], str]] = {
    "no JSON": ([b'{"custom_id": '], errors.InputError, "this is not JSON"),
    "no UTF-8": ([b'{"custom_id": "\xff"}'], errors.InputError, "this is not JSON"),
    "not a number": ([json.dumps(ask("a", t=float("nan")))], errors.InputError, "not JSON"),
    "no number": ([b'{"a": 1e999}'], errors.InputError, "this is not JSON"),
    "nested without end": ([b"[" * 100_000], errors.InputError, "this is not JSON"),
    "an array": ([b"[1]"], errors.InputError, "this is JSON, but no object"),
    "an empty text": ([b""], errors.InputError, "this is JSON, but no object"),
    "no custom_id": ([{**ask("a"), "id": 1}], errors.InputError, "the request holds 'id'"),
    "a member less": ([{"custom_id": "a"}], errors.InputError, "the request lacks 'body'"),
    "a number for an id": ([{**ask("a"), "custom_id": 7}], errors.InputError, "custom_id is 7"),
    "an empty id": ([ask(" ")], errors.InputError, "custom_id is ' '"),
    "half a character": ([ask("\ud800")], errors.InputError, "custom_id is '\\ud800'"),
    "another method": ([{**ask("a"), "method": "GET"}], errors.InputError, "method is 'GET'"),
    "a whole address": ([ask("a", url="https://x.y/v1")], errors.InputError, "url is 'https"),
    "no such endpoint": ([ask("a", url="/v1/videos")], errors.InputError, "url is '/v1/videos'"),
    "no body": ([{**ask("a"), "body": []}], errors.InputError, "body is no JSON object"),
    "no model": ([ask("a", model="")], errors.InputError, "body.model is ''"),
    "no messages": ([ask("a", messages=[])], errors.InputError, "body.messages is not there"),
    "a stream": ([ask("a", stream=True)], errors.InputError, "body.stream is on"),
    "two answers": ([ask("a", n=2)], errors.InputError, "body.n asks for 2 answers"),
    "two inputs": (
        [ask("a", url="/v1/embeddings", input=["one", "two"])],
        errors.InputError,
        "body.input holds 2 inputs",
    ),
    "two endpoints": (
        [ask("a", url="/v1/completions", prompt="x")],
        errors.InputError,
        "url is '/v1/completions', where",
    ),
    "twice": ([ask("fine", "else")], errors.RowKeyError, "the custom_id 'fine' stands there"),
    "too large": ([ask("a", "x" * 3000)], errors.RequestTooLargeError, "the request has 3,1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_named_by_file_and_line_before_anything_is_sent(
    case: str, server: BatchServer, provider: OpenAIBatch, store: Path, tmp_path: Path
) -> None:
    """One bad line among good ones: nothing is sent, nothing is left behind."""
    provider.limits = Limits(max_bytes=3000)
    bad, kind, said = BAD[case]
    items = [ask("fine"), *bad]
    lines = [each if isinstance(each, str | bytes) else json.dumps(each) for each in items]
    path = tmp_path / "asked.jsonl"
    path.write_bytes(b"\n".join(x.encode() if isinstance(x, str) else x for x in lines))

    with pytest.raises(kind) as in_memory:
        frameenrich.submit_requests(items, provider=provider, store=store)
    assert in_memory.value.problem.startswith("The request at position 1: ")
    assert said in in_memory.value.problem
    if bad != [b""]:  # which is a blank line in a file
        with pytest.raises(kind) as in_file:
            frameenrich.submit_requests(path, provider=provider, store=store)
        assert in_file.value.problem.startswith(f"{path}, line 2: ")
        assert said in in_file.value.problem

    assert not server.files
    assert frameenrich.jobs(store).empty


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ("absent.jsonl", "absent.jsonl cannot be read: No such file"),
        (b"{}", "The requests are a bytes"),
        (ask("a"), "The requests are a dict"),
        (7, "The requests are a int"),
        ([7], "The request at position 0 is a int"),
        ([{"custom_id": {1, 2}}], "The request at position 0 cannot be written as JSON"),
        ([], "The list of requests holds no requests"),
    ],
)
def test_what_is_no_list_of_requests_is_refused(
    requests: Any, said: str, provider: OpenAIBatch, store: Path
) -> None:
    """The message says what was given."""
    with pytest.raises(errors.InputError, match=said):
        frameenrich.submit_requests(requests, provider=provider, store=store)


def test_answers_that_the_store_has_are_not_paid_for_again(
    server: BatchServer, provider: OpenAIBatch, store: Path, mugs: pd.DataFrame
) -> None:
    """Whether a frame asked first or other requests did; only what is new is sent."""
    asked = mugs.llmbatch.submit("Sort {{ title }}", "m", provider=provider, store=store)
    asked.wait(poll_seconds=0.01)
    (path,) = asked.requests
    before = [json.loads(line) for line in Path(path).read_bytes().splitlines()]

    first = frameenrich.submit_requests(path, provider=provider, store=store)
    assert (first.reused, len(server.batches)) == (4, 1)
    assert answers(first)[tagged(asked, "row-A1")] == "echo: Sort Red mug"

    more = [*before, ask("new", model="other"), ask("newer")]
    second = frameenrich.submit_requests(more, provider=provider, store=store)
    assert len(answers(second)) == 6
    assert second.reused == 4
    assert max(server.executed.values()) == 1


def conversation(job: frameenrich.Job, custom_id: str) -> list[str]:
    """The roles of a request's conversation."""
    body = job.requests_by_custom_id(custom_id)[custom_id]["body"]
    return [turn["role"] for turn in body.get("messages", body.get("input"))]


def polite(text: str) -> str:
    """Refuses what the server says when it is told to be malformed."""
    if not text.startswith("echo: "):
        raise ValueError("say echo first")
    return text


@pytest.mark.parametrize("url", [CHAT, "/v1/responses"])
def test_malformed_answers_are_asked_again_with_feedback(
    url: str, server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """A round's conversation is what was asked and the newest bad answer, not all of them."""
    asked = [ask("a"), ask("b")]
    if url == "/v1/responses":
        for each in asked:
            each["url"], said = url, each["body"].pop("messages")
            each["body"]["input"] = said[0]["content"]
    server.faults.add("malformed", where="*a", times=3)
    job = frameenrich.submit_requests(asked, provider=provider, store=store, parser=polite)

    job.wait(poll_seconds=0.01)
    for _ in range(2):
        job.regenerate().wait(poll_seconds=0.01)

    assert conversation(job, "r1-a") == ["user", "assistant", "user"]
    assert conversation(job, "r2-a") == ["user", "assistant", "user"]
    assert set(job.rounds()["change"]) == {"feedback"}
    assert list(job.flagged()["custom_id"]) == ["a"]
    again = frameenrich.open_job(job.id, store, provider=provider).collect(
        wait=True, max_rounds=3, poll_seconds=0.01, parser=polite
    )
    assert again["answer_status"].tolist() == ["ok", "ok"]


def test_a_frame_with_the_custom_ids_can_be_collected_on(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """In its own order, with its own columns; rows that were never asked have nothing."""
    job = frameenrich.submit_requests([ask("a"), ask("b")], provider=provider, store=store)
    job.wait(poll_seconds=0.01)
    frame = pd.DataFrame({"custom_id": ["b", "z", "a"], "n": [1, 2, 3]})

    out = frame.llmbatch.collect(store=store)

    assert out["answer"].fillna("-").tolist() == ["echo: item b", "-", "echo: item a"]
    assert out["n"].tolist() == [1, 2, 3]
    with pytest.raises(errors.FrameMismatchError, match="lacks the key 'custom_id'"):
        job.collect(frame[["n"]])


def test_requests_are_found_by_custom_id(
    provider: OpenAIBatch, store: Path, mugs: pd.DataFrame
) -> None:
    """In the order asked, of a frame's job too, with its tag or without; an unknown is named."""
    job = mugs.llmbatch.submit("Sort {{ title }}", "m", provider=provider, store=store)

    found = job.requests_by_custom_id([tagged(job, "row-A3"), "row-A1"])

    assert [r["body"]["messages"][0]["content"] for r in found.values()] == [
        "Sort Green sock",
        "Sort Red mug",
    ]
    with pytest.raises(errors.ParameterError, match=r"no request with the custom_id 'row-A9'.*A1"):
        job.requests_by_custom_id(["row-A1", "row-A9"])


def test_a_provider_refuses_a_request_that_its_api_cannot_carry(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """A provider that checks requests (Anthropic's) checks each, and the bad one is named."""

    def check(body: dict[str, Any]) -> None:
        if "seed" in body:
            raise errors.ParameterError("There is no word for 'seed'.", "Leave it out.")

    provider.check = check  # type: ignore[attr-defined]

    with pytest.raises(errors.InputError, match="position 1: There is no word"):
        frameenrich.submit_requests([ask("a"), ask("b", seed=1)], provider=provider, store=store)
    assert not server.files


def test_a_cap_on_the_cost_holds_for_ready_requests(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Each request counts at its own model's price; over the cap nothing is sent or left."""
    asked = [ask("a", model="gpt-4o-mini", max_tokens=9), ask("b", model="gpt-4o", max_tokens=9)]

    with pytest.raises(errors.BudgetError):
        frameenrich.submit_requests(asked, provider=provider, store=store, max_cost=0.00001)
    assert frameenrich.jobs(store).empty
    assert not server.files

    job = frameenrich.submit_requests(asked, provider=provider, store=store, max_cost=1.0)
    assert len(answers(job)) == 2


def test_the_report_and_the_card_show_ready_requests(
    server: BatchServer, provider: OpenAIBatch, store: Path, tmp_path: Path
) -> None:
    """What was asked and answered, though there is no template."""
    job = frameenrich.submit_requests([ask("a"), ask("b")], provider=provider, store=store)
    job.wait(poll_seconds=0.01)

    job.report(tmp_path / "report.html")

    page = (tmp_path / "report.html").read_text()
    assert "item a" in page
    assert "echo: item b" in page
    assert job.id in job._repr_html_()


@pytest.mark.xdist_group("model")
@pytest.mark.usefixtures("one_core")
def test_the_embedded_model_answers_ready_requests(store: Path) -> None:
    """A model that the local provider lacks is refused before anything is written."""
    asked = [ask("a", "Say yes.", "smollm2-135m", max_tokens=4), ask("b", model="no/such.gguf")]

    with pytest.raises(errors.ParameterError, match=r"no model .no/such\.gguf"):
        frameenrich.submit_requests(asked, provider="local", store=store)
    assert frameenrich.jobs(store).empty

    job = frameenrich.submit_requests(asked[:1], provider="local", store=store)
    assert job.collect()["answer_status"].item() in {"ok", "truncated", "empty"}


def _run(base_url: str, folder: Path) -> None:
    """One job of requests, from the beginning to the end."""
    plain = httpx2.Client(verify=False)
    asked = [ask(f"{folder.name}-{n}", model=f"m{n % 2}") for n in range(6)]
    with openai.OpenAI(api_key="sk-test", base_url=base_url, http_client=plain) as client:
        provider = OpenAIBatch(client, attempts=8, wait_seconds=0.002)
        provider.limits = Limits(max_requests=2, queue_wait_seconds=0.01)
        job = frameenrich.submit_requests(asked, provider=provider, store=folder / "store")
        out = job.collect(wait=True, poll_seconds=0.001)
    (folder / "result.json").write_text(out.to_json(orient="records"))


@pytest.mark.slow
def test_a_job_of_ready_requests_killed_anywhere_is_finished_by_the_next_run(
    tmp_path: Path,
) -> None:
    """SIGKILL at every so many steps: no answer lost, none paid twice, one batch a shard."""
    with server_process() as base_url:
        control(base_url, "clear")
        (tmp_path / "c0").mkdir()
        _run(base_url, tmp_path / "c0")  # what is imported late is there in every fork
        kills = 0
        for step in range(1, 400, EVERY):
            folder = tmp_path / f"c{step}"
            folder.mkdir()

            def work(at: int = step, where: Path = folder) -> None:
                watch(KillPoint(at))
                _run(base_url, where)

            status = forked(work)
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            assert killed or status == 0
            kills += killed
            assert forked(lambda where=folder: _run(base_url, where)) == 0  # type: ignore[misc]
            rows = json.loads((folder / "result.json").read_text())
            assert [row["answer"] for row in rows] == [
                f"echo: item {folder.name}-{n}" for n in range(6)
            ]
            if not killed:
                break
        books = ledger(base_url)

    assert kills >= 5
    assert set(books["executed"].values()) == {1}
    tags = Counter(b["metadata"]["frameenrich_tag"] for b in books["batches"].values())
    assert set(tags.values()) == {1}


def test_what_goes_along_with_a_batch(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """metadata= and completion_window= as submit has them, and no part of the job either."""
    url, ask = "/v1/chat/completions", {"role": "user", "content": "Red or blue?"}
    ready = [
        {"custom_id": "a", "method": "POST", "url": url, "body": {"model": "m", "messages": [ask]}}
    ]
    options: dict[str, Any] = {"provider": provider, "store": store}

    job = frameenrich.submit_requests(
        ready, metadata={"team": "catalogue"}, completion_window="24h", **options
    )

    assert [batch["metadata"]["team"] for batch in server.batches.values()] == ["catalogue"]
    assert frameenrich.submit_requests(ready, **options).id == job.id
    with pytest.raises(errors.ParameterError, match="completion_window='7d'"):
        frameenrich.submit_requests(ready, completion_window="7d", fresh=True, **options)
    with pytest.raises(errors.ParameterError, match="takes no metadata="):
        frameenrich.submit_requests(ready, metadata={"a": "b"}, provider="file", store=store)
    with pytest.raises(errors.ParameterError, match="max_in_flight="):
        frameenrich.submit_requests(ready, max_in_flight=3, **options)
