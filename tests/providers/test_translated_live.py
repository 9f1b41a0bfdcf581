"""Live calls to providers whose API is not OpenAI's: a stuck batch, a pilot, a round."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from anthropic_server import AnthropicServer
from audit import ASK, check_rows, shelf
from batch_server import BatchServer
from sdk_clients import KEY, claude_client, gemini_client, mistral_client

import frameenrich
from frameenrich.errors import ParameterError, ProviderError
from frameenrich.model import Limits
from frameenrich.providers.anthropic.batch import AnthropicBatch
from frameenrich.providers.gemini.batch import GeminiBatch
from frameenrich.providers.mistral.batch import MistralBatch
from frameenrich.verbs.job import Job

pytestmark = pytest.mark.any_pandas


@dataclass(frozen=True)
class Kind:
    """A provider, and the server that speaks its API."""

    model: str
    serve: Callable[[], BatchServer]
    client: Callable[[str, str], Any]
    connect: Callable[..., Any]
    calls: str
    original: str | None


KINDS = {
    "anthropic": Kind(
        "claude-haiku-4-5", AnthropicServer, claude_client, AnthropicBatch,
        "/v1/messages", "anthropic",
    ),
    "mistral": Kind(
        "mistral-small-latest", lambda: BatchServer(dialect="mistral"), mistral_client,
        MistralBatch, "/v1/chat/completions", None,
    ),
    "gemini": Kind(
        "gemini-2.5-flash", lambda: BatchServer(dialect="gemini"), gemini_client, GeminiBatch,
        "/v1/models/gemini-2.5-flash:generateContent", "gemini",
    ),
}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each provider in turn."""
    return KINDS[request.param]


@pytest.fixture
def server(kind: Kind) -> Iterator[BatchServer]:
    """A server without faults; tests add theirs."""
    with kind.serve() as running:
        yield running


@pytest.fixture
def provider(kind: Kind, server: BatchServer) -> Any:
    """The provider with short waits and small batches."""
    made = kind.connect(kind.client(KEY, server.origin), attempts=4, wait_seconds=0.01)
    made.limits = Limits(max_requests=3, queue_wait_seconds=0.02)
    return made


def submitted(kind: Kind, provider: Any, store: Path, rows: int = 6, **options: Any) -> Job:
    """Submit the usual shelf."""
    given = {"params": {"max_tokens": 50}, "confirm_seconds": 0.02, **options}
    job: Job = shelf(rows).llmbatch.submit(ASK, kind.model, provider=provider, store=store, **given)
    return job


def live_calls(server: BatchServer, kind: Kind) -> int:
    """How many live calls the server was asked for."""
    return sum(call.raw_path == kind.calls for call in server.requests)


def test_a_stuck_batch_is_finished_live_at_its_own_server(
    kind: Kind, server: BatchServer, provider: Any, store: Path
) -> None:
    """What came is kept, the rest is asked once, in the API's own words and at the live price."""
    server.faults.add("stuck", times="always", where=lambda *_: True)
    prices = {"input": 2.0, "output": 10.0}
    job = submitted(kind, provider, store, labels=["Kitchen", "Garden"], prices=prices)
    job.status()
    ran = sum(server.executed.values())

    job.finish(poll_seconds=0.01)
    out = job.collect(shelf(6), usage=True)

    assert out["llmbatch_status"].eq("ok").all()
    assert max(server.executed.values()) == 1
    assert live_calls(server, kind) == 6 - sum(out["llmbatch_attempt"] == 1)
    assert sum(out["llmbatch_attempt"] == 1) >= ran
    assert job.rounds()["change"].tolist() == [f"provider {job.spec.provider} -> live"]
    assert out["llmbatch_model"].eq(kind.model).all()
    # A batch takes half of 2 and 10 USD a million tokens, a live call all of it.
    tokens = 2.0 * out["llmbatch_prompt_tokens"] + 10.0 * out["llmbatch_completion_tokens"]
    share = out["llmbatch_attempt"].map({1: 0.5, 2: 1.0})
    assert out["llmbatch_cost_usd"].tolist() == pytest.approx((tokens * share / 1e6).tolist())
    assert job.usage().usd == pytest.approx(out["llmbatch_cost_usd"].sum())


def test_a_pilot_is_answered_live_and_not_paid_again(
    kind: Kind, server: BatchServer, provider: Any, store: Path
) -> None:
    """Its rows are answered now, with their costs, and the submit after it takes them over."""
    ask: dict[str, Any] = {"labels": ["Kitchen", "Garden"], "params": {"max_tokens": 50}}

    table = shelf(6).llmbatch.pilot(
        ASK, kind.model, n=3, provider=provider, usage=True, store=store, **ask
    )
    job = submitted(kind, provider, store, **ask).wait(poll_seconds=0.01)

    assert table["llmbatch_status"].eq("ok").all()
    assert (table["llmbatch_cost_usd"] > 0).all()
    assert live_calls(server, kind) == 3
    assert job.reused == 3
    assert job.collect(shelf(6))["llmbatch_status"].eq("ok").all()
    assert max(server.executed.values()) == 1


def test_a_pilot_of_another_session_goes_on_live(
    kind: Kind, server: BatchServer, provider: Any, store: Path
) -> None:
    """Its job has the provider's name, yet no batch is made of it, and no submit waits for it."""
    server.faults.add("http_503", times="always", where=f"POST {_short(kind)}")
    with pytest.raises(ProviderError):
        shelf(2).llmbatch.pilot(ASK, kind.model, n=2, provider=_quick(kind, server), store=store)
    server.faults.clear()

    (job_id,) = frameenrich.jobs(store)["job"]
    again = frameenrich.open_job(job_id, store, client=kind.client(KEY, server.origin)).wait()

    assert again.collect()["llmbatch_status"].eq("ok").all()
    assert not server.batches


def _short(kind: Kind) -> str:
    """The live route as the server's faults name it."""
    return "/v1/messages" if "messages" in kind.calls else "/v1/chat/completions"


def _quick(kind: Kind, server: BatchServer) -> Any:
    """The provider, whose live calls give up at once."""
    made = kind.connect(kind.client(KEY, server.origin), attempts=1, wait_seconds=0.01)
    live = made.live()
    live._attempts, live._wait_seconds = 1, 0.01
    return live


def test_flagged_rows_go_live(kind: Kind, server: BatchServer, provider: Any, store: Path) -> None:
    """regenerate(provider='live') at the same server, in a later session by name and client."""
    server.faults.add("empty", where=["row-T-00"])
    server.faults.add("truncated", where=["row-T-01"])
    job = submitted(kind, provider, store, rows=3).wait(poll_seconds=0.01)

    later = frameenrich.open_job(job.id, store, client=kind.client(KEY, server.origin))
    again = later.regenerate(provider="live")

    check_rows(again.collect(shelf(3)), shelf(3))
    assert live_calls(server, kind) == 2
    assert len(server.batches) == 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"name": "malformed", "times": 1}, "malformed"),
        ({"name": "truncated", "times": 1}, "truncated"),
        ({"name": "content_filter", "times": 1}, "refused"),
        ({"name": "empty", "times": 1}, "empty"),
        ({"name": "http_error", "status": 529, "times": 1}, "ok"),
        ({"name": "http_error", "status": 400, "times": 1}, "failed"),
    ],
    ids=lambda fault: fault if isinstance(fault, str) else fault["name"],
)
def test_every_end_of_an_answer_has_its_status(
    fault: dict[str, Any], status: str, kind: Kind, server: BatchServer, provider: Any, store: Path
) -> None:
    """As after a batch; what passes by is asked again, and the server's own answer is kept."""
    server.faults.add(where=["row-T-00"], **fault)
    live = provider.live()
    live._wait_seconds = 0.01
    job = shelf(2).llmbatch.submit(
        ASK, kind.model, provider=live, labels=["Kitchen", "Garden"], store=store
    )

    if kind.original == "gemini" and fault.get("status") == 400:
        return  # that server has one code for all errors
    assert job.collect(shelf(2))["llmbatch_status"].tolist() == [status, "ok"]
    if kind.original is not None and status != "failed":
        lines = Path(job.path).rglob("*.responses.jsonl")
        kept = [json.loads(line) for path in lines for line in path.read_text().splitlines()]
        assert all(kind.original in line["response"]["body"] for line in kept)


def test_a_wrong_key_stops_at_once_and_is_not_shown(
    kind: Kind, server: BatchServer, provider: Any, store: Path
) -> None:
    """No row fails for it, and neither the message nor the store has it."""
    server.require_key = "another"

    with pytest.raises(ProviderError, match="API key") as caught:
        shelf(2).llmbatch.pilot(ASK, kind.model, provider=provider, store=store)

    assert KEY not in str(caught.value)
    kept = [path for path in store.rglob("*") if path.is_file()]
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]


def test_what_the_api_does_not_take_is_refused_before_a_batch_is_cancelled(
    kind: Kind, server: BatchServer, provider: Any, store: Path
) -> None:
    """Promise 9: the parameter is named, and the batch runs on."""
    server.faults.add("stuck", times="always", where=lambda *_: True)
    job = submitted(kind, provider, store, rows=2)

    with pytest.raises(ParameterError, match="logit_bias"):
        job.finish(params={"logit_bias": {"1": 2}})

    assert not any("cancel" in call.path for call in server.requests)


def test_a_frame_of_this_session_finishes_live(
    kind: Kind, server: BatchServer, provider: Any, store: Path
) -> None:
    """The accessor's verb does the same, and a second call asks nothing."""
    server.faults.add("stuck", times="always", where=lambda *_: True)
    frame: pd.DataFrame = shelf(3)
    job = submitted(kind, provider, store, rows=3)

    frame.llmbatch.finish(job, poll_seconds=0.01)
    before = dict(server.executed)
    frame.llmbatch.finish(job, poll_seconds=0.01)

    check_rows(frame.llmbatch.collect(job), frame)
    assert dict(server.executed) == before
