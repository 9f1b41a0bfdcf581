"""Errors at the edge: each says what is wrong and what to do, and none is a raw exception."""

from __future__ import annotations

import http.server
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
import pandas as pd
import pytest
import warm
from anthropic_server import AnthropicServer
from batch_server import BatchServer
from every_provider import provider_at, send

import frameenrich
from frameenrich.errors import FrameEnrichWarning, ParameterError, StoreError, WaitTimeoutError
from frameenrich.model import Batch
from frameenrich.pricing.tokens import LARGEST_CAP
from frameenrich.providers import guard
from frameenrich.providers.retries import _retry_after

ASK = "Sort {{ title }}"


def answered(job: frameenrich.Job, usage: Any, folder: Path) -> frameenrich.Job:
    """Import an answer to each row that says so of its tokens."""
    lines = []
    for path in job.requests:
        for line in Path(path).read_text().splitlines():
            choice = {"message": {"content": "x"}, "finish_reason": "stop"}
            body = {"model": "gpt-4o-mini", "usage": usage, "choices": [choice]}
            response = {"status_code": 200, "body": body}
            lines.append({"custom_id": json.loads(line)["custom_id"], "response": response})
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return job.import_responses(folder / "a.jsonl")


FULL = """
import resource, sys
import pandas as pd, frameenrich
frame = pd.DataFrame({"title": [f"a title of some length, {n}" * 20 for n in range(4000)]})
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    frame.llmbatch.submit("Sort {{ title }}", "m", provider="file", store=sys.argv[1])
except frameenrich.errors.StoreError as error:
    print(error)
"""


def test_a_full_disk_at_submit_is_told(tmp_path: Path) -> None:
    """No raw `OSError`, and nothing that looks like a job; a limit on file sizes fills the disk."""
    done = warm.run(
        [sys.executable, "-c", FULL, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.startswith("The store cannot be written at"), done.stderr
    assert frameenrich.jobs(store=tmp_path / "s").empty


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_is_read_only_is_told(store: Path, mugs: pd.DataFrame) -> None:
    """The sentence names the folder, and what to pass instead."""
    store.mkdir(mode=0o500)

    with pytest.raises(StoreError, match="cannot be written"):
        mugs.llmbatch.submit(ASK, "m", provider="file", store=store)


class Watched(httpx2.HTTPTransport):
    """Notes how long each call would wait for the server."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Make the call."""
        self.waits.append(max(request.extensions["timeout"].values()))
        return super().handle_request(request)


@pytest.mark.parametrize("kind", ["openai", "azure", "mistral", "gemini", "anthropic"])
def test_a_hanging_server_holds_nobody_longer_than_timeout(
    kind: str, store: Path, mugs: pd.DataFrame
) -> None:
    """``timeout=`` is what a read waits for, too; the lock is free then."""
    with silent_after(kind) as (server, quiet), httpx2.Client(transport=Watched()) as http:
        job = send(mugs, provider_at(kind, server.origin), store)
        hanging = provider_at(kind, quiet, http, attempts=6)

        with pytest.raises(WaitTimeoutError):
            frameenrich.open_job(job.id, store, provider=hanging).wait(timeout=0.3)

        assert job.wait(poll_seconds=0.01).status().ended
    transport: Any = http._transport
    assert transport.waits
    assert max(transport.waits) <= 0.3


@pytest.mark.parametrize("kind", ["openai", "mistral", "gemini", "anthropic"])
def test_a_reply_in_drops_holds_nobody_longer_than_timeout(
    kind: str, store: Path, mugs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each drop begins a read's time-out anew, and so the reply's whole time is limited."""
    monkeypatch.setattr(guard, "_GRACE_SECONDS", 0.1)
    with silent_after(kind) as (server, _), dripping() as (url, came_to_its_end):
        job = send(mugs, provider_at(kind, server.origin), store)
        slow = provider_at(kind, url, attempts=6)

        with pytest.raises(WaitTimeoutError):
            frameenrich.open_job(job.id, store, provider=slow).wait(timeout=0.2)

    assert not came_to_its_end


@pytest.mark.parametrize(("came", "length", "whole"), [(9, "9", True), (9, "10", False)])
def test_a_late_reply_that_is_there_is_taken(
    came: int, length: str, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What took long is thrown away only while bytes of it are to come."""
    clock = [0.0]
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Slow(httpx2.SyncByteStream):
        """A byte in two seconds."""

        def __iter__(self) -> Iterator[bytes]:
            for _ in range(came):
                clock[0] += 2
                yield b"x"

    def reply(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-length": length}, stream=Slow())

    with httpx2.Client(transport=httpx2.MockTransport(reply), timeout=17) as http:
        guard.guard(SimpleNamespace(_client=http))
        if whole:
            assert http.get("http://x.test/").content == b"x" * came
        else:
            with pytest.raises(httpx2.ReadTimeout):
                http.get("http://x.test/")


@contextmanager
def dripping() -> Iterator[tuple[str, list[str]]]:
    """Serve a reply of a minute, in drops; gives the paths of those that were heard to the end."""
    heard: list[str] = []
    closing = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            with suppress(OSError):
                for _ in range(3_000):
                    self.wfile.write(b" ")
                    if closing.wait(0.02):
                        return
                heard.append(self.path)

        do_POST = do_GET  # noqa: N815 - http.server's naming

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", heard
        closing.set()
        server.shutdown()


@contextmanager
def silent_after(kind: str) -> Iterator[tuple[Any, str]]:
    """Give a server that speaks a provider's words, and the address of one that says nothing."""
    dialect: dict[str, Any] = {"dialect": kind} if kind in {"mistral", "gemini"} else {}
    serving = (
        AnthropicServer() if kind == "anthropic" else BatchServer(azure=kind == "azure", **dialect)
    )
    with serving as server, socket.create_server(("127.0.0.1", 0)) as silent:
        yield server, f"http://127.0.0.1:{silent.getsockname()[1]}"


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 10**30, "completion_tokens": 5},
        {"prompt_tokens": "12", "completion_tokens": "many"},
        {"prompt_tokens": -5, "completion_tokens": 1e300},
    ],
)
def test_absurd_counts_break_no_verb(
    usage: Any, store: Path, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """What a server says of tokens is not believed where nothing could take as many."""
    job = mugs.llmbatch.submit(ASK, "gpt-4o-mini", provider="file", store=store)
    answered(job, usage, tmp_path)

    assert job.usage().prompt_tokens == 0
    assert "ok" in job._repr_html_()
    assert job.report(tmp_path / "report.html").exists()
    assert set(job.collect(mugs, usage=True)["llmbatch_status"]) == {"ok"}


@pytest.mark.parametrize("key", ["title", "sku", "index"])
def test_a_parsers_column_of_the_frames_goes_beside(
    key: str, store: Path, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """Only the answers show what a parser makes: a warning and another name, not an error."""
    frame = mugs.reset_index()
    job = frame.llmbatch.submit(ASK, "m", provider="file", store=store)
    answered(job, {}, tmp_path)
    with (
        pytest.warns(FrameEnrichWarning, match=f"'llmbatch_{key}'")
        if key != "index"
        else (pytest.warns(FrameEnrichWarning, match="llmbatch_index"))
    ):
        given = frame if key != "index" else None
        out = job.collect(given, parser=lambda _: {key: 5})

    assert out[f"llmbatch_{key}"].tolist() == [5] * 4
    if given is not None:
        again = out.llmbatch.collect(job, parser=lambda _: {key: 6}, overwrite=True)
        assert again[key].tolist() == frame[key].tolist()
        assert again[f"llmbatch_{key}"].tolist() == [6] * 4


def test_a_whole_cap_may_be_written_as_a_float(store: Path, mugs: pd.DataFrame) -> None:
    """``max_tokens=1000.0`` bounds an answer as 1000 does, and is sent as it is written."""
    how: dict[str, Any] = {"provider": "file", "store": store, "max_cost": 1.0}
    ask = {"template": ASK, "model": "gpt-4o-mini", "params": {"max_tokens": 1000.0}}

    job = mugs.llmbatch.submit(**ask, **how)

    assert b'"max_tokens":1000.0' in Path(job.requests[0]).read_bytes()
    assert mugs.llmbatch.estimate(**ask, provider="file").max_completion_tokens == 4_000


@pytest.mark.parametrize("value", [1, 1.0, LARGEST_CAP])
def test_the_least_and_the_largest_cap_are_taken(value: Any, mugs: pd.DataFrame) -> None:
    """One token is enough for a label's first one, whose probability is asked for."""
    ask = {"template": ASK, "model": "gpt-4o-mini", "params": {"max_tokens": value}}

    found = mugs.llmbatch.estimate(**ask, provider="file").max_completion_tokens

    assert found == len(mugs) * value


@pytest.mark.parametrize("endpoint", ["chat/completions", "responses", "completions"])
@pytest.mark.parametrize(
    "value", ["1000", "many", "", True, False, 1000.5, 0, -1, 10**30, float("inf"), [9], {"a": 1}]
)
def test_a_cap_that_is_no_number_of_tokens_is_refused(
    value: Any, endpoint: str, store: Path, mugs: pd.DataFrame
) -> None:
    """Each row of the batch would come back as an error; no cap on the cost is the reason."""
    names = {"chat/completions": ["max_tokens", "max_completion_tokens"]}
    names |= {"responses": ["max_output_tokens"], "completions": ["max_tokens"]}
    ask: dict[str, Any] = {"template": ASK, "model": "gpt-4o-mini", "endpoint": f"/v1/{endpoint}"}
    for name in names[endpoint]:
        ask["params"] = {name: value}
        how: dict[str, Any] = {"provider": "file", "store": store}
        for verb, more in (
            (mugs.llmbatch.submit, how),
            (mugs.llmbatch.submit, {**how, "max_cost": 1.0}),
            (mugs.llmbatch.estimate, {"provider": "file"}),
            (mugs.llmbatch.preview, {}),
        ):
            with pytest.raises(ParameterError, match=rf"params= sets '{name}' to .*"):
                verb(**ask, **more)
    assert not store.exists()


def test_what_only_a_server_understands_is_no_cap(store: Path, mugs: pd.DataFrame) -> None:
    """``-1`` is llama.cpp's word for no end: it is sent as it is, and bounds no cost."""
    how: dict[str, Any] = {"provider": "file", "store": store}
    for value in (-1, True, "1000", 10**30):
        params = {"extra_body": {"max_tokens": value}}
        assert mugs.llmbatch.submit(ASK, "gpt-4o-mini", params=params, **how)
        with pytest.raises(ParameterError, match="nothing limits the length"):
            mugs.llmbatch.submit(
                ASK, "gpt-4o-mini", params=params, name="capped", max_cost=1.0, **how
            )


@pytest.mark.parametrize(("asked", "wait"), [("-1", None), ("nan", None), ("inf", None), ("2", 2)])
def test_a_senseless_retry_after_is_passed_over(asked: str, wait: float | None) -> None:
    """Neither a sleep that never ends nor a `ValueError` of one below nothing."""
    error = Exception()
    vars(error)["headers"] = {"retry-after": asked}

    assert _retry_after(error) == wait


def test_a_job_that_was_never_sent_does_not_go_on(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """`WaitTimeoutError` says what is so: the provider has nothing of it."""
    server.faults.add("file_quota_exceeded")
    with pytest.raises(frameenrich.FrameEnrichError):
        mugs.llmbatch.submit(ASK, "m", client=client, store=store)
    name = frameenrich.jobs(store=store)["job"][0]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        nobody = openai.OpenAI(api_key="sk-test", base_url=there)

        with pytest.raises(WaitTimeoutError, match="has nothing of it yet"):
            frameenrich.open_job(name, store, client=nobody).wait(timeout=0.3)


def test_a_clock_that_was_set_back_makes_nobody_wait(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """A queued shard waits as long as it would have, not until the old time comes again."""
    server.faults.add("file_quota_exceeded")
    with pytest.raises(frameenrich.FrameEnrichError):
        mugs.llmbatch.submit(ASK, "m", client=client, store=store)
    job = frameenrich.open_job(frameenrich.jobs(store=store)["job"][0], store, client=client)
    shard = job._session.job().shards(0)[0]
    batch: Batch = shard.batch.replace(retry_at=time.time() + 86_400)
    with job._session.job().lock():
        shard.save(batch)

    out = job.collect(mugs, wait=True, poll_seconds=0.01, timeout=20)

    assert set(out["llmbatch_status"]) == {"ok"}


@pytest.mark.parametrize("depth", [900, 20_000, None])
def test_a_value_that_is_too_deep_to_print_is_named(depth: int | None, mugs: pd.DataFrame) -> None:
    """By row and column; so is a list that holds itself."""
    value: list[Any] = []
    if depth is None:
        value.append(value)
    for _ in range(depth or 0):
        value = [value]
    frame = mugs.assign(deep=pd.Series([[1], [2], value, [3]], index=mugs.index, dtype=object))

    with pytest.raises(
        frameenrich.FrameEnrichError, match="Row 'A3', column 'deep': the value is nested"
    ):
        frame.llmbatch.preview("{{ deep }}", "m")
