"""The live provider against a real server: faults, limits, kills, and a pace that adapts."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
import warm
from audit import ASK, check_rows, reach, said, shelf
from batch_server import BatchServer, Reply, default_answer, row_name
from batch_server.books import ApiError
from conftest import DEPARTMENTS, status_counts
from crash import control, ledger, server_process

import frameenrich
from frameenrich.errors import (
    CredentialsError,
    FrameEnrichError,
    FrameEnrichWarning,
    ParameterError,
    ProviderError,
    StoreError,
    WaitTimeoutError,
)
from frameenrich.lifecycle.approve import measure_answers
from frameenrich.model import Pace
from frameenrich.providers.live.client import MAX_SHARED_FAILURES
from frameenrich.providers.live.provider import LiveProvider
from frameenrich.providers.live.rate_limit import RateLimiter
from frameenrich.store.store import open_store
from frameenrich.verbs.job import Job

pytestmark = pytest.mark.any_pandas
TESTS = Path(__file__).parent.parent
PRICES = {"input": 1.0, "output": 2.0}
CHAT = "POST /v1/chat/completions"
Submit = Callable[..., Job]


@pytest.fixture
def live(client: openai.OpenAI) -> LiveProvider:
    """The provider with waits short enough for tests."""
    return LiveProvider(client, max_in_flight=4, attempts=3, wait_seconds=0.01)


@pytest.fixture
def submit(live: LiveProvider, store: Path) -> Submit:
    """Submit a frame with the usual template; anything may be wished otherwise."""

    def send(frame: pd.DataFrame, **wishes: Any) -> Job:
        made: Job = frame.llmbatch.submit(
            ASK, "gpt-4o-mini", **{"provider": live, "store": store, **wishes}
        )
        return made

    return send


def asked(server: BatchServer) -> int:
    """How many requests the server executed."""
    return sum(server.executed.values())


def response_lines(store: Path) -> list[bytes]:
    """The lines of a store's responses files."""
    files = store.rglob("*.responses.jsonl")
    return [line for path in files for line in path.read_bytes().splitlines()]


# --- answers -------------------------------------------------------------------------------------


def test_every_row_is_answered_when_submit_returns(submit: Submit, server: BatchServer) -> None:
    """One call a row, no file, no batch; the answers are there without waiting."""
    frame = shelf(30)

    job = submit(frame)

    check_rows(frame.llmbatch.collect(job), frame)
    assert (asked(server), server.files, server.batches) == (30, {}, {})
    assert job.status().completed == 30
    assert submit(frame).id == job.id
    assert asked(server) == 30


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/completions"])
def test_other_endpoints_answer_too(endpoint: str, submit: Submit) -> None:
    """What goes to another endpoint of the Batch API goes there live."""
    frame = shelf(3)

    check_rows(submit(frame, endpoint=endpoint).collect(frame), frame)


def test_embeddings_and_moderations_answer_too(live: LiveProvider, store: Path) -> None:
    """Vectors and verdicts come live."""
    frame = shelf(3)

    vectors = frame.llmbatch.embed("{{ title }}", "e", provider=live, store=store).collect()
    verdicts = frame.llmbatch.submit(
        "{{ title }}", "m", endpoint="/v1/moderations", provider=live, store=store
    ).collect()

    assert [len(vector) > 0 for vector in vectors["embedding"]] == [True] * 3
    assert status_counts(verdicts) == {"ok": 3}


def test_answers_are_kept_as_they_came(submit: Submit, server: BatchServer, store: Path) -> None:
    """Pretty-printed bodies, raw U+2028, escaped lone surrogates: one line each, nothing lost."""

    class PrettyServer(BatchServer):
        def call_live(
            self, endpoint: str, body: dict[str, Any], custom_id: str | None
        ) -> tuple[int, dict[str, Any]]:
            code, answer = super().call_live(endpoint, body, custom_id)
            answer["choices"][0]["message"]["content"] = "a\u2028b\n\ud83d"
            return code, answer

    with PrettyServer() as odd, openai.OpenAI(api_key="k", base_url=odd.base_url) as client:
        out = submit(shelf(2), provider=LiveProvider(client)).collect()

    assert out["llmbatch"].tolist() == ["a\u2028b\n\ufffd"] * 2
    assert len(response_lines(store)) == 2


def test_a_template_with_a_lone_surrogate_is_asked(submit: Submit) -> None:
    """A request that only the standard library's JSON can read goes out as it stands."""
    out = submit(pd.DataFrame({"title": ["half \ud83d emoji"]}, dtype=object)).collect()

    assert status_counts(out) == {"ok": 1}


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("http_500", {}),
        ("http_503", {}),
        ("rate_limited", {"retry_after": 0.05}),
        ("closed_before", {}),
        ("accepted_then_closed", {}),
        ("accepted_then_500", {}),
        ("html_502", {}),
        ("not_json", {}),
        ("not_json", {"content_type": "text/html"}),
        ("truncated_download", {}),
        ("short_download", {}),
        ("download_without_length", {}),
        ("ration_spent", {"reset": "50ms"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_passes_by_is_asked_again(
    fault: str, options: dict[str, Any], submit: Submit, server: BatchServer
) -> None:
    """A fault that strikes two calls costs no row; neither does a cut or a broken answer."""
    server.faults.add(fault, where=CHAT, times=2, **options)
    frame = shelf(8)

    out = submit(frame).collect(frame)

    check_rows(out, frame)
    assert server.faults.fired[fault] == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("http_500", "The server had an error"),
        ("closed_before", "connection_error: Server disconnected"),
        ("html_502", "text/html, 74 bytes that are no JSON object: a web page: 502 Bad Gateway"),
        ("short_download", "no JSON object"),
        ("truncated_download", "connection_error: "),
    ],
)
def test_what_stays_broken_is_a_failed_row_with_its_reason(
    fault: str, reason: str, submit: Submit, server: BatchServer
) -> None:
    """One request that fails each time is one failed row, after so many attempts."""
    struck = {"row-T-03"}

    def is_struck(request: Any) -> bool:
        return row_name(request.headers["x-client-request-id"]) in struck

    server.faults.add(fault, where=is_struck, times="always")
    frame = shelf(8)

    job = submit(frame)
    out = job.collect(frame)

    check_rows(out, frame, {"T-03": "failed"})
    assert reason in out["llmbatch_error"]["T-03"]
    assert server.faults.fired[fault] == 3

    struck.clear()
    check_rows(job.regenerate().collect(frame), frame)


# Cut JSON of a server that never answered may be a page's: it is asked once more, not twice.
@pytest.mark.parametrize(("fault", "asked"), [("short_download", 2), ("truncated_download", 3)])
def test_an_answer_that_breaks_off_each_time_is_not_paid_eight_times(
    fault: str, asked: int, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """The request runs whenever its answer begins: three times are enough."""
    server.faults.add(fault, where=CHAT, times="always")
    provider = LiveProvider(client, attempts=8, wait_seconds=0.01)

    with pytest.raises(ProviderError, match=r"JSON|Not enough data"):
        shelf(1).llmbatch.submit(ASK, "gpt-4o-mini", provider=provider, store=store)

    assert server.faults.fired[fault] == asked


@pytest.mark.parametrize(
    ("fault", "options", "reason"),
    [
        ("slow_answer", {"seconds": 60.0}, "no answer came within 2.0 seconds"),
        ("no_route", {"status": 504}, "HTTP 504, "),
        ("no_route", {"status": 524}, "HTTP 524, "),
        ("accepted_then_closed", {}, "connection_error, "),
        ("accepted_then_500", {}, "HTTP 500, "),
    ],
    ids=["time-out", "504", "524", "closed late", "500 late"],
)
def test_a_row_that_may_have_run_is_asked_again_only_on_a_word(
    fault: str,
    options: dict[str, Any],
    reason: str,
    submit: Submit,
    server: BatchServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise 3: slower than a time-out, ours or a proxy's, a row runs once, and that is told.

    Neither the call itself, nor the same submit again, nor a round makes it run once more.
    """
    if fault.startswith("accepted"):  # which a proxy does after a minute, say
        monkeypatch.setattr("frameenrich.providers.live.reply.LATE_SECONDS", 0.0)
    struck = {"row-T-03"}

    def is_struck(request: Any) -> bool:
        return row_name(request.headers["x-client-request-id"]) in struck

    server.faults.add(fault, where=is_struck, times="always", **options)
    frame = shelf(8)

    with pytest.warns(FrameEnrichWarning, match=r"1 request was not answered in time.*may have"):
        job = submit(frame, request_timeout_seconds=2.0)
    out = submit(frame).collect(frame, wait=True, max_rounds=2)

    check_rows(out, frame, {"T-03": "failed"})
    assert reason in out["llmbatch_error"]["T-03"]
    with pytest.warns(FrameEnrichWarning, match=r"may have run, and be charged.*failed"):
        job.regenerate()
    assert server.faults.fired[fault] == 1
    struck.clear()
    check_rows(job.regenerate(statuses=["failed"]).collect(frame), frame)


def test_a_server_that_swallows_everything_stops_the_job(
    submit: Submit, server: BatchServer
) -> None:
    """Promise 3: what may have run is on disk when the job stops, and is not asked again."""
    server.faults.add("no_route", where=CHAT, times="always", status=504)
    frame = shelf(60)

    with pytest.warns(FrameEnrichWarning, match="not answered in time"):
        error = refused(submit, frame)

    assert "may have run" in str(error)
    first = {c.headers["x-client-request-id"] for c in server.requests}
    assert MAX_SHARED_FAILURES <= len(first) == len(server.requests) < 60
    server.faults.clear()
    out = submit(frame).collect(frame)
    assert status_counts(out) == {"ok": 60 - len(first), "failed": len(first)}


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "60", True])
def test_a_time_out_that_lets_no_answer_come(seconds: Any, submit: Submit) -> None:
    """Refused before anything is sent."""
    with pytest.raises(ParameterError, match="request_timeout_seconds="):
        submit(shelf(1), request_timeout_seconds=seconds)


def test_a_refused_request_is_a_failed_row_at_once(submit: Submit, server: BatchServer) -> None:
    """A 400 is its row's own: asked once, told in the server's words, as an error file would."""
    server.faults.add("http_error", where="row-T-01", status=400, code="invalid", message="Bad.")
    frame = shelf(5)

    job = submit(frame)
    out = job.collect(frame)

    check_rows(out, frame, {"T-01": "failed"})
    assert out["llmbatch_error"]["T-01"] == "HTTP 400: invalid: Bad."
    assert server.executed["row-T-01"] == 1
    assert (job.status().completed, job.status().failed) == (4, 1)


def test_an_error_inside_a_200_is_what_it_says(store: Path) -> None:
    """A gateway's 200 with an error inside: a 502 in there is asked again, a 400 is not."""

    class Gateway(BatchServer):
        codes: tuple[int, ...] = (502, 502, 400)

        def call_live(
            self, endpoint: str, body: dict[str, Any], custom_id: str | None
        ) -> tuple[int, dict[str, Any]]:
            status, answer = super().call_live(endpoint, body, custom_id)
            if row_name(custom_id or "") == "row-T-01" and self.codes:
                code, *rest = self.codes
                self.codes = tuple(rest)
                return 200, {"error": {"code": code, "message": "Upstream says no."}}
            return status, answer

    frame = shelf(4)
    with Gateway() as server, openai.OpenAI(api_key="k", base_url=server.base_url) as client:
        provider = LiveProvider(client, max_in_flight=1, wait_seconds=0.01)
        out = frame.llmbatch.submit(ASK, "m", provider=provider, store=store).collect(frame)

    check_rows(out, frame, {"T-01": "failed"})
    assert out["llmbatch_error"]["T-01"] == "HTTP 400: Upstream says no."
    assert server.executed["row-T-01"] == 3


# --- what is everybody's fault -------------------------------------------------------------------


def refused(submit: Submit, frame: pd.DataFrame, **wishes: Any) -> ProviderError:
    """The error of a submit that cannot go on."""
    with pytest.raises(ProviderError) as caught:
        submit(frame, **wishes)
    return caught.value


def test_a_wrong_key_stops_at_once(submit: Submit, server: BatchServer, store: Path) -> None:
    """401: no row fails, hardly anything is sent; with the right key the job goes on."""
    server.require_key = "sk-right"
    frame = shelf(200)

    error = refused(submit, frame)

    assert "HTTP 401, Incorrect API key provided" in str(error)
    assert "Check the API key" in str(error)
    assert vars(error)["status_code"] == 401
    assert len(server.requests) <= 4
    assert response_lines(store) == []

    server.require_key = None
    check_rows(submit(frame).collect(frame), frame)


def test_a_key_that_ran_out_is_renewed(server: BatchServer, store: Path) -> None:
    """A client that makes its keys makes another at a 401, and the row is asked again."""
    keys = iter(["old", "new", "newer"])
    server.require_key = ["old"]
    frame = shelf(6)

    def expire(body: dict[str, Any], custom_id: str) -> Reply:
        if asked(server) == 2:
            server.require_key = ["new"]
        return default_answer(body, custom_id)

    server.answer = expire
    with openai.OpenAI(api_key=lambda: next(keys), base_url=server.base_url) as client:
        provider = LiveProvider(client, max_in_flight=2)
        out = frame.llmbatch.submit(ASK, "m", provider=provider, store=store).collect(frame)

    check_rows(out, frame)
    assert 1 <= server.count("POST", "/v1/chat/completions", status=401) <= 2


@pytest.mark.parametrize("path", ["", "/v2"])
def test_a_wrong_address_stops_soon(
    path: str, submit: Submit, server: BatchServer, store: Path
) -> None:
    """404 for everything: an error that tells of base_url, and not 500 failed rows."""
    with openai.OpenAI(api_key="k", base_url=server.origin + path) as client:
        error = refused(submit, shelf(500), provider=LiveProvider(client, max_in_flight=4))

    assert "HTTP 404" in str(error)
    assert "Check base_url" in str(error)
    assert len(server.requests) < MAX_SHARED_FAILURES + 4
    assert response_lines(store) == []


def test_an_unknown_model_stops_soon_also_for_few_rows(submit: Submit, server: BatchServer) -> None:
    """Three rows that all get a 404 are no three failed rows: nothing was ever answered."""
    server.known_models = ["another"]

    error = refused(submit, shelf(3))

    assert "The model `gpt-4o-mini` does not exist" in str(error)


def test_one_404_among_answers_is_that_rows(submit: Submit, server: BatchServer) -> None:
    """What the server refuses to one and not to others is the one's own."""
    server.faults.add("http_error", where="row-T-02", status=404, code="gone", message="Gone.")
    frame = shelf(6)

    check_rows(submit(frame).collect(frame), frame, {"T-02": "failed"})


def test_nobody_listens(submit: Submit, server: BatchServer, store: Path) -> None:
    """A server that cannot be reached is an error that passes: started again, the job goes on."""
    server.stop()

    error = refused(submit, shelf(50))

    assert "unreachable" in str(error)
    assert response_lines(store) == []
    assert vars(error)["passing"]

    server.start()
    check_rows(submit(shelf(50)).collect(shelf(50)), shelf(50))


def test_a_server_that_breaks_down_fails_no_rows(
    submit: Submit, server: BatchServer, store: Path
) -> None:
    """500 for everything from some row on: the job stops and, later, asks only the rest."""
    frame = shelf(100)
    server.faults.add("http_500", where=lambda _: asked(server) >= 10, times="always")

    error = refused(submit, frame)

    assert "call again later" in str(error)
    kept = response_lines(store)
    assert len(kept) == asked(server) >= 10
    assert all(b'"status_code":200' in line for line in kept)

    server.faults.clear()
    check_rows(submit(frame).collect(frame), frame)
    assert max(server.executed.values()) == 1


def test_no_quota_left_stops_at_once(submit: Submit, server: BatchServer) -> None:
    """A 429 that no waiting mends is not waited for."""
    server.faults.add("rate_limited", where=CHAT, times="always", code="insufficient_quota")

    error = refused(submit, shelf(100))

    assert "quota" in str(error)
    assert len(server.requests) <= 4


def test_without_a_key_nothing_is_written(mugs: pd.DataFrame, store: Path) -> None:
    """No client and no key in the environment: said before anything happens."""
    with pytest.raises(CredentialsError, match=r"provider 'live'\. Set OPENAI_API_KEY"):
        mugs.llmbatch.submit(ASK, "m", provider="live", store=store)

    assert not store.exists()


def test_the_environment_is_enough(
    server: BatchServer, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``provider="live"`` alone takes key and server from the environment, as the SDK does."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    frame = shelf(3)

    job = frame.llmbatch.submit(ASK, "m", provider="live", store=store)

    check_rows(frame.llmbatch.collect(store=store), frame)
    assert job.spec.provider == "live"


def test_the_key_is_nowhere(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A server that tells the key it did not like: neither store nor exception repeats it."""
    key = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"

    class Leaky(BatchServer):
        status = 400

        def call_live(
            self, endpoint: str, body: dict[str, Any], custom_id: str | None
        ) -> tuple[int, dict[str, Any]]:
            if row_name(custom_id or "") == "row-T-01" or self.status == 403:
                raise ApiError(self.status, f"Not with {key}! Bearer {key}")
            return super().call_live(endpoint, body, custom_id)

    with Leaky() as server, openai.OpenAI(api_key=key, base_url=server.base_url) as client:
        provider = LiveProvider(client)
        job = shelf(3).llmbatch.submit(ASK, "m", provider=provider, store=store)
        server.status = 403
        with pytest.raises(ProviderError) as caught:
            shelf(3).llmbatch.submit(ASK, "other", provider=provider, store=store)

    seen = [str(caught.value), repr(caught.value.__dict__), repr(provider), job.flagged().to_json()]
    seen += [path.read_bytes().decode("latin-1") for path in store.rglob("*") if path.is_file()]
    assert "Not with ***" in job.flagged()["error"][0]
    assert not [text for text in [*seen, *capfd.readouterr()] if key in text]


# --- limits --------------------------------------------------------------------------------------


class Crowded(BatchServer):
    """Takes so many requests at once, refuses more with 429, and counts how many there were."""

    room = 1000
    inside = 0
    most = 0
    together = threading.Lock()

    def call_live(
        self, endpoint: str, body: dict[str, Any], custom_id: str | None
    ) -> tuple[int, dict[str, Any]]:
        """Count who is inside."""
        with self.together:
            self.inside += 1
            self.most = max(self.most, self.inside)
            refused = self.inside > self.room
        try:
            time.sleep(0.01)
            if refused:
                raise ApiError(429, "Too many.", code="rate_limit_exceeded")
            return super().call_live(endpoint, body, custom_id)
        finally:
            with self.together:
                self.inside -= 1


@pytest.fixture
def crowded() -> Iterator[tuple[Crowded, openai.OpenAI]]:
    """A server that notices crowds, and its client."""
    with Crowded() as server, openai.OpenAI(api_key="k", base_url=server.base_url) as client:
        yield server, client


def test_never_more_in_flight_than_was_allowed(
    crowded: tuple[Crowded, openai.OpenAI], store: Path
) -> None:
    """``max_in_flight=`` of submit is the most, and is reached."""
    server, client = crowded
    frame = shelf(40)

    job = frame.llmbatch.submit(
        ASK, "m", provider="live", client=client, store=store, max_in_flight=7
    )

    check_rows(job.collect(frame), frame)
    assert server.most == 7


def test_a_server_that_takes_four_is_asked_by_four(
    crowded: tuple[Crowded, openai.OpenAI], store: Path
) -> None:
    """429 without a Retry-After: fewer at once, no row lost, and no attempt used up by it."""
    server, client = crowded
    server.room = 4
    frame = shelf(60)
    provider = LiveProvider(client, max_in_flight=32, attempts=1, wait_seconds=0.01)

    job = frame.llmbatch.submit(ASK, "m", provider=provider, store=store)

    check_rows(job.collect(frame), frame)
    assert server.count("POST", "/v1/chat/completions", status=429) > 0
    assert max(server.executed.values()) == 1


def test_retry_after_holds_everybody_back(submit: Submit, server: BatchServer) -> None:
    """Nothing leaves while the server wants to be left alone, whichever row it was said to."""
    server.faults.add("rate_limited", where=CHAT, retry_after=1)
    frame = shelf(12)

    check_rows(submit(frame, max_in_flight=1).collect(frame), frame)
    refusal, following = server.requests[0], server.requests[1]

    assert refusal.status == 429
    assert following.at - following.seconds - refusal.at >= 0.9


def test_requests_a_minute(submit: Submit) -> None:
    """40 rows at 1,200 a minute: a second's worth at once, the rest in no less than a second."""
    began = time.monotonic()

    job = submit(shelf(40), requests_per_minute=1200)

    assert time.monotonic() - began >= 0.9
    assert status_counts(job.collect()) == {"ok": 40}


def test_tokens_a_minute_are_learnt_from_answers() -> None:
    """A request is reckoned at its own length and at what answers took beyond it so far."""
    now = [0.0]
    flow = RateLimiter(Pace(tokens_per_minute=6000), clock=lambda: now[0])

    first = flow.reserve(100)
    flow.answered(100, 2100)
    second = flow.reserve(100)

    assert first == 0.0
    assert second == pytest.approx(20.0)  # 2,100 tokens at 100 a second, less one second's worth
    now[0] = 60.0
    flow.reserve(100)
    assert flow.reserve(0) == pytest.approx(1.0 - 1.0 + (100 + 100) / 100 - 1.0)


def test_the_limit_halves_once_a_round_and_grows_again() -> None:
    """Ten refusals of requests that were under way together are one; answers win it back."""
    now = [0.0]
    flow = RateLimiter(Pace(max_in_flight=64), clock=lambda: now[0])

    now[0] = 1.0
    for _ in range(10):
        flow.slow_down(0.5, None)
    assert flow.limit == 32
    now[0] = 2.0
    flow.slow_down(1.5, 3.0)
    assert (flow.limit, flow.pause_left()) == (16, 3.0)

    for _ in range(16):
        flow.answered(1, 1)
    assert 16.9 < flow.limit < 17
    for _ in range(5000):
        flow.answered(1, 1)
    assert flow.limit == 64


@pytest.mark.parametrize("name", ["max_in_flight", "requests_per_minute", "tokens_per_minute"])
def test_a_limit_that_lets_nothing_through_is_refused(
    name: str, submit: Submit, server: BatchServer, store: Path
) -> None:
    """0 is no pace; nothing is written or sent for it."""
    with pytest.raises(ParameterError, match=f"{name}=0 lets nothing through"):
        submit(shelf(2), **{name: 0})

    assert not store.exists()
    assert not server.requests


def test_a_batch_has_no_pace(store: Path) -> None:
    """A pace for a provider without one is refused, with what there is instead."""
    with pytest.raises(ParameterError, match=r"'file' takes no max_in_flight=.*max_enqueued"):
        shelf(2).llmbatch.submit(ASK, "m", provider="file", store=store, max_in_flight=2)


def test_the_pace_is_kept_for_the_next_session(
    crowded: tuple[Crowded, openai.OpenAI], store: Path
) -> None:
    """A later round in another session keeps to the limits; they make no other job of it."""
    server, client = crowded
    frame = shelf(12)
    server.faults.add("empty", times=12)
    wishes: dict[str, Any] = {"provider": "live", "client": client, "store": store}
    job = frame.llmbatch.submit(ASK, "m", max_in_flight=3, **wishes)
    server.most = 0

    frameenrich.open_job(job.id, store, client=client).regenerate()

    assert server.most == 3
    assert frame.llmbatch.submit(ASK, "m", max_in_flight=5, **wishes).id == job.id


# --- interrupted ---------------------------------------------------------------------------------

WORKER = """
import sys
import openai
from audit import ASK, shelf
from frameenrich.providers.live.provider import LiveProvider
frame = shelf(int(sys.argv[2]))
provider = LiveProvider(openai.OpenAI(), max_in_flight=4, wait_seconds=0.01)
print("ready", flush=True)
frame.llmbatch.submit(ASK, "m", provider=provider, store=sys.argv[1])
"""


def books(base_url: str) -> dict[str, int]:
    """How often each row was executed by a server that survived."""
    executed: dict[str, int] = ledger(base_url)["executed"]
    return executed


def start_worker(store: Path, base_url: str, rows: int) -> subprocess.Popen[bytes]:
    """A process that asks for the shelf."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(TESTS),
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": base_url,
    }
    return warm.Popen(
        [sys.executable, "-c", WORKER, str(store), str(rows)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def stop_after(child: subprocess.Popen[bytes], store: Path, answers: int, how: int) -> bytes:
    """Send a signal as soon as so many answers are on disk; what the process wrote on stderr."""
    deadline = time.monotonic() + 60
    while len(response_lines(store)) < answers:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(how)
    return child.communicate(timeout=30)[1]


def test_killed_it_asks_only_for_the_rest(store: Path) -> None:
    """SIGKILL: what is on disk is never asked again, and no more than was in flight is."""
    with server_process() as base_url:
        control(base_url, "add", name="slow", where=CHAT, times="always", seconds=0.02)
        child = start_worker(store, base_url, 80)
        stop_after(child, store, 10, signal.SIGKILL)
        kept = {json.loads(line)["custom_id"] for line in response_lines(store)[:-1]}
        before = books(base_url)
        assert 10 <= len(before) < 80

        with openai.OpenAI(api_key="k", base_url=base_url) as client:
            provider = LiveProvider(client, max_in_flight=4)
            out = shelf(80).llmbatch.submit(ASK, "m", provider=provider, store=store)
        executed = books(base_url)

    check_rows(out.collect(shelf(80)), shelf(80))
    twice = {custom_id for custom_id, count in executed.items() if count > 1}
    assert len(executed) == 80
    assert not twice & kept
    assert len(twice) <= 4
    assert max(executed.values()) <= 2


def test_ctrl_c_keeps_what_arrives(store: Path) -> None:
    """SIGINT: what is in flight may still come, so that nothing at all is asked twice."""
    with server_process() as base_url:
        control(base_url, "add", name="slow", where=CHAT, times="always", seconds=0.05)
        child = start_worker(store, base_url, 60)
        told = stop_after(child, store, 8, signal.SIGINT)
        assert b"KeyboardInterrupt" in told
        assert child.returncode != 0
        kept = len(response_lines(store))
        assert 8 <= kept < 60

        with openai.OpenAI(api_key="k", base_url=base_url) as client:
            job = shelf(60).llmbatch.submit(ASK, "m", provider="live", client=client, store=store)
        executed = books(base_url)

    check_rows(job.collect(shelf(60)), shelf(60))
    assert set(executed.values()) == {1}
    assert len(executed) == 60


def unasked(
    submit: Submit,
    server: BatchServer,
    frame: pd.DataFrame,
    store: Path,
    live: LiveProvider,
    **options: Any,
) -> Job:
    """A job whose rows nobody could be asked for yet; the server is up again."""
    server.stop()
    with pytest.raises(ProviderError):
        submit(frame, **options)
    server.start()
    (job_id,) = open_store(store).job_ids()
    return frameenrich.open_job(job_id, store, provider=live)


def test_the_time_is_up(
    submit: Submit, live: LiveProvider, server: BatchServer, store: Path
) -> None:
    """`wait(timeout=)` stops asking; what came is kept, and the next call asks the rest."""
    frame = shelf(100)
    job = unasked(submit, server, frame, store, live, max_in_flight=1)
    server.faults.add("slow", where=CHAT, times="always", seconds=0.1)

    # All rows take ten seconds at least; a busy machine may need a second for the first of them.
    for seconds in (0.5, 1, 2, 4, 8):
        with pytest.raises(WaitTimeoutError, match="was answered is on disk: call again") as caught:
            job.wait(timeout=seconds)
        if asked(server):
            break

    assert vars(caught.value)["job_id"] == job.id
    assert 0 < asked(server) < 100
    assert status_counts(job.collect()) == {"ok": asked(server), "pending": 100 - asked(server)}
    server.faults.clear()
    check_rows(job.wait().collect(frame), frame)
    assert max(server.executed.values()) == 1


def test_a_full_disk_stops_the_job(
    submit: Submit, live: LiveProvider, server: BatchServer, store: Path
) -> None:
    """An answer that cannot be kept ends it with the file's name; with room, it goes on."""
    job = unasked(submit, server, shelf(40), store, live)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"File too large\. Free some room there"):
            job.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert asked(server) < 40
    check_rows(job.wait().collect(shelf(40)), shelf(40))


# --- await ---------------------------------------------------------------------------------------


def test_wait_async_lets_the_loop_go_on(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """A batch is waited for in a running loop, in which other tasks have their turns meanwhile."""
    frame = shelf(5)
    server.hold("in_progress")
    job = frame.llmbatch.submit(ASK, "m", client=client, store=store)

    async def main() -> Job:
        async def other() -> None:
            while server.count("GET", "/v1/batches/*") < 3:  # noqa: ASYNC110 - a server in a thread
                await asyncio.sleep(0.01)
            server.release()  # so the batch ends only if this task had its turns

        task = asyncio.create_task(other())
        done: Job = await job.wait_async(poll_seconds=0.02)
        await task
        return done

    check_rows(asyncio.run(main()).collect(frame), frame)


def test_wait_async_refuses_as_wait_does(client: openai.OpenAI, store: Path) -> None:
    """Promise 9: a misspelt option is one sentence, also where the call is awaited."""
    job = shelf(1).llmbatch.submit(ASK, "m", client=client, store=store)

    for options, says in (({"timout": 5}, "Did you mean 'timeout'"), ({"timeout": "5"}, "seconds")):
        with pytest.raises(FrameEnrichError, match=says):
            asyncio.run(job.wait_async(**options))
    assert inspect.iscoroutinefunction(job.wait_async)


def test_wait_async_gives_up(client: openai.OpenAI, server: BatchServer, store: Path) -> None:
    """Its timeout is that of `wait`."""
    server.faults.add("stuck")
    job = shelf(2).llmbatch.submit(ASK, "m", client=client, store=store)
    reach("in_progress", job)

    with pytest.raises(WaitTimeoutError, match=r"still in_progress after 0\.2 seconds"):
        asyncio.run(job.wait_async(timeout=0.2, poll_seconds=0.05))


def test_wait_async_cancelled_polls_no_more(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """Cancelling the task that awaits ends the polling; the batch goes on and can be collected."""
    frame = shelf(2)
    server.faults.add("stuck")
    job = frame.llmbatch.submit(ASK, "m", client=client, store=store)

    async def main() -> int:
        task = asyncio.create_task(job.wait_async(poll_seconds=0.02))
        while server.count("GET", "/v1/batches/*") < 3:  # noqa: ASYNC110 - a server in a thread
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.get_running_loop().shutdown_default_executor()  # a step under way ends
        polled = server.count("GET", "/v1/batches/*")
        await asyncio.sleep(0.1)  # five polls' time
        return server.count("GET", "/v1/batches/*") - polled

    assert asyncio.run(main()) == 0

    server.faults.clear()
    for batch_id in server.batches:
        server.finish(batch_id)


def test_wait_async_cancelled_asks_no_more(
    submit: Submit, live: LiveProvider, server: BatchServer, store: Path
) -> None:
    """Live, cancelling stops the asking; what is in flight is kept, and nothing is asked twice."""
    frame = shelf(60)
    job = unasked(submit, server, frame, store, live)
    server.faults.add("slow", where=CHAT, times="always", seconds=0.05)

    async def main() -> None:
        task = asyncio.create_task(job.wait_async())
        while asked(server) < 8:  # noqa: ASYNC110 - a server in a thread sets no asyncio event
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())  # which waits for the thread
    stopped_at = asked(server)
    assert 8 <= stopped_at < 60
    assert status_counts(job.collect())["ok"] == stopped_at

    server.faults.clear()
    check_rows(job.wait().collect(frame), frame)
    assert max(server.executed.values()) == 1


# --- pilots --------------------------------------------------------------------------------------


def test_a_pilots_answers_are_not_paid_again(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """Five rows live, then the Batch API for the others; the same pilot again asks nothing."""
    frame = shelf(50)
    wishes: dict[str, Any] = {"client": client, "store": store, "labels": DEPARTMENTS}

    shown = frame.llmbatch.pilot(ASK, "m", **wishes)
    again = frame.llmbatch.pilot(ASK, "m", **wishes)

    assert shown.columns.tolist() == [
        "llmbatch_prompt",
        "llmbatch",
        "llmbatch_status",
        "llmbatch_error",
    ]
    assert len(shown) == asked(server) == 5
    assert shown["llmbatch_prompt"].tolist() == [
        f"Which department sells {title}?" for title in frame.loc[shown.index, "title"]
    ]
    pd.testing.assert_frame_equal(shown, again)
    assert frame.llmbatch.estimate(ASK, "gpt-4o-mini", **wishes).requests == 50
    assert frame.llmbatch.estimate(ASK, "m", prices=PRICES, **wishes).requests == 45

    job = frame.llmbatch.submit(ASK, "m", **wishes)
    out = frame.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert job.reused == 5
    assert status_counts(out) == {"ok": 50}
    assert out.loc[shown.index, "llmbatch"].tolist() == shown["llmbatch"].tolist()
    assert asked(server) == 50
    measured = measure_answers(open_store(store), job.spec)
    assert measured is not None
    assert measured.answers >= 5
    assert max(server.executed_bodies.values()) == 1


def test_a_pilot_after_the_job_is_not_what_collect_finds(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """A pilot is found by its frame only where there is no job."""
    frame = shelf(9)
    wishes: dict[str, Any] = {"client": client, "store": store}
    frame.llmbatch.pilot(ASK, "m", **wishes)
    assert status_counts(frame.llmbatch.collect(**wishes)) == {"ok": 5}
    job = frame.llmbatch.submit(ASK, "m", **wishes)
    job.wait(poll_seconds=0.01)

    frame.llmbatch.pilot(ASK, "other", **wishes)

    assert len(frame.llmbatch.collect(**wishes)["llmbatch"].dropna()) == 9


def test_another_question_takes_no_pilot(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """Other parameters are another question: nothing is reused, and nothing was measured for it."""
    frame = shelf(6)
    frame.llmbatch.pilot(ASK, "m", client=client, store=store)

    job = frame.llmbatch.submit(ASK, "m", client=client, store=store, params={"temperature": 0})

    assert job.reused == 0
    assert measure_answers(open_store(store), job.spec) is None


def test_azures_pilot_is_reused(server: BatchServer, store: Path) -> None:
    """A deployment is asked under its own path, and the batch has the same requests."""
    server.azure = True
    frame = shelf(8)
    client = openai.AzureOpenAI(api_key="k", azure_endpoint=server.origin, api_version="2024-10-21")
    wishes: dict[str, Any] = {"client": client, "store": store}
    with client:
        shown = frame.llmbatch.pilot(ASK, "my-deployment", n=3, **wishes)
        job = frame.llmbatch.submit(ASK, "my-deployment", **wishes)

    assert shown["llmbatch"].tolist() == [said(t) for t in frame.loc[shown.index, "title"]]
    (path,) = {call.raw_path for call in server.requests if "chat" in call.raw_path}
    assert path == "/openai/deployments/my-deployment/chat/completions"
    assert job.reused == 3


def test_a_pilot_shows_keys_nulls_and_flags(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """Key columns come along; a skipped row has no prompt; a bad answer has its reason."""
    frame = shelf(4).reset_index().assign(title=pd.Series(["a", None, "c", "d"], dtype=object))
    server.faults.add("malformed", where="row-T-02")

    shown = frame.llmbatch.pilot(
        ASK, "m", n=9, key="sku", labels=DEPARTMENTS, name="dept", on_null="skip",
        client=client, store=store,
    )  # fmt: skip

    assert shown["sku"].tolist() == frame["sku"].tolist()
    assert shown["dept_status"].tolist() == ["ok", "skipped", "malformed", "ok"]
    assert pd.isna(shown["dept_prompt"][1])
    assert "Not JSON: it stops after" in shown["dept_error"][2]


def test_prompts_stay_with_their_rows(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """The same pilot of the frame in another order shows each row its own prompt."""
    frame = shelf(4)
    wishes: dict[str, Any] = {"n": 4, "client": client, "store": store}
    frame.llmbatch.pilot(ASK, "m", **wishes)

    shown = frame[::-1].llmbatch.pilot(ASK, "m", **wishes)

    assert asked(server) == 4
    assert [p.split(" sells ")[1] for p in shown["llmbatch_prompt"]] == [
        f"{title}?" for title in frame["title"][::-1]
    ]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"n": 0}, "n=0 asks for no row"),
        ({"provider": "file"}, "'file' cannot answer a pilot"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_a_pilot_that_cannot_be_asks_nothing(
    wrong: dict[str, Any], problem: str, client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """Bad wishes are refused before anything is sent."""
    with pytest.raises((ParameterError, TypeError), match=problem):
        shelf(3).llmbatch.pilot(ASK, "m", **{"client": client, "store": store, **wrong})

    assert not server.requests


def test_a_pilot_refuses_keys_that_repeat_anywhere_in_the_frame(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """Also where none of the picked rows is one of them: submit would refuse the frame."""
    frame = pd.concat([shelf(30), shelf(1)])

    with pytest.raises(frameenrich.errors.RowKeyError):
        frame.llmbatch.pilot(ASK, "m", n=2, client=client, store=store)

    assert not server.requests


MAIN = "from frameenrich.cli.main import main; main()"


def test_the_command_line_pilots_and_runs_live(server: BatchServer, tmp_path: Path) -> None:
    """``frameenrich pilot`` shows answers; ``run --provider live`` pays for the others only."""
    (tmp_path / "in.csv").write_text("sku,title\n" + "".join(f"{i},thing {i}\n" for i in range(9)))
    environment = {
        **os.environ,
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": server.base_url,
        "FRAMEENRICH_STORE": str(tmp_path / "store"),
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", MAIN, *arguments, "--key", "sku"]
        command += ["--model", "m", "--template", ASK]
        done = warm.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    table = run("pilot", "in.csv", "-n", "2")
    told = json.loads(run("pilot", "in.csv", "-n", "2", "--json"))
    run(
        "run", "in.csv", "out.csv", "--provider", "live",
        "--max-in-flight", "3", "--rpm", "60000", "--tpm", "9000000",
    )  # fmt: skip

    assert table.splitlines()[0].split("\t")[:3] == ["sku", "llmbatch_prompt", "llmbatch"]
    assert [said(f"thing {row['sku']}") for row in told] == [row["llmbatch"] for row in told]
    assert pd.read_csv("out.csv")["llmbatch_status"].tolist() == ["ok"] * 9
    assert asked(server) == 9


# --- notebooks -----------------------------------------------------------------------------------

CELLS = """
import pandas as pd, frameenrich, openai
from audit import ASK, shelf
frame = shelf(12)
client = openai.OpenAI(api_key="k", base_url={base_url!r})
shown = frame.llmbatch.pilot(ASK, "m", n=2, client=client, store={store!r})
job = frame.llmbatch.submit(ASK, "m", provider="live", client=client, store={store!r})
batch = await frame.llmbatch.submit(ASK, "n", client=client, store={store!r}).wait_async()
print(len(shown), job.reused, *frame.llmbatch.collect(job)["llmbatch_status"].unique(),
      *batch.collect(frame)["llmbatch_status"].unique())
"""


@pytest.mark.slow
def test_live_calls_and_await_work_in_a_notebook(
    server: BatchServer, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A kernel's loop runs already: live calls have their own, and `wait_async` can be awaited."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    cell = nbformat.v4.new_code_cell(CELLS.format(base_url=server.base_url, store=str(store)))
    notebook = nbformat.v4.new_notebook(cells=[cell])

    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()

    texts = [out["text"] for out in notebook.cells[0].outputs if out.get("name") == "stdout"]
    assert "".join(texts) == "2 2 ok ok\n"
