"""Promises 3 and 4: a stuck job is finished elsewhere; nothing is lost or asked twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import openai
import pandas as pd
import pytest
from audit import ASK, check_rows, shelf
from batch_server import BatchServer
from mistralai.client import Mistral
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app
from frameenrich.errors import BudgetError, ParameterError, WaitTimeoutError
from frameenrich.model import Limits
from frameenrich.providers.live.provider import LiveProvider
from frameenrich.providers.mistral.batch import MistralBatch
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.job import Job

pytestmark = pytest.mark.any_pandas
USD = {"input": 2.0, "output": 10.0}


def stuck(server: BatchServer, provider: OpenAIBatch, store: Path, rows: int = 6) -> Job:
    """Submit rows in batches of three that stay in progress for ever."""
    provider.limits = Limits(max_requests=3, queue_wait_seconds=0.01)
    server.faults.add("stuck", times="always", where="*-r0-*")
    job: Job = shelf(rows).llmbatch.submit(
        ASK, "gpt-4o-mini", provider=provider, store=store, params={"max_tokens": 50}, prices=USD
    )
    job.status()  # the server runs a batch where it is looked at
    return job


def ways(server: BatchServer) -> Counter[str]:
    """Count what was executed, by round and so by provider."""
    return Counter("again" if name.startswith("r1-") else "first" for name in server.executed)


def test_a_stuck_batch_is_finished_live(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Half came and is kept; the rest is asked live once, and each is paid at its own price."""
    job = stuck(server, provider, store)

    job.finish(poll_seconds=0.01)
    out = job.collect(shelf(6), usage=True)

    kept = out["llmbatch_attempt"] == 1
    assert out["llmbatch_status"].eq("ok").all()
    assert max(server.executed.values()) == 1
    assert ways(server) == {"first": kept.sum(), "again": (~kept).sum()}
    assert 0 < kept.sum() < 6
    # A batch takes half of 2 and 10 USD a million tokens, a live call all of it.
    tokens = 2.0 * out["llmbatch_prompt_tokens"] + 10.0 * out["llmbatch_completion_tokens"]
    share = kept.map({True: 0.5, False: 1.0})
    assert out["llmbatch_cost_usd"].tolist() == pytest.approx((tokens * share / 1e6).tolist())
    assert job.usage().usd == pytest.approx((tokens * share).sum() / 1e6)
    assert job.rounds()["change"].tolist() == ["provider openai -> live"]


def test_the_same_call_again_asks_nothing(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """A cell that is run twice pays once, in another session too."""
    job = stuck(server, provider, store).finish(poll_seconds=0.01)
    before = dict(server.executed)

    job.finish(poll_seconds=0.01)
    again = frameenrich.open_job(job.id, store, provider=provider).finish(poll_seconds=0.01)

    assert dict(server.executed) == before
    assert again.collect(shelf(6))["llmbatch_status"].eq("ok").all()


def test_what_costs_too_much_is_refused_before_anything_is_cancelled(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """The cap counts what came and what the rest could cost live; the batches run on."""
    job = stuck(server, provider, store)

    with pytest.raises(BudgetError, match="max_cost"):
        job.finish(max_cost=0.001)

    assert [status for status, _ in job.status().shards] == ["in_progress"] * 2
    assert not any("cancel" in call.path for call in server.requests)
    # 6 requests, each of at most 50 tokens at 10 USD and some 20 at 2 USD a million.
    assert (job.finish(max_cost=0.0035, poll_seconds=0.01).usage().usd or 1) < 0.0035


def test_through_another_provider_with_its_own_words(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """The rest becomes a batch of Mistral's; a later session, with both keys, brings it home."""
    job = stuck(server, provider, store)
    with BatchServer(dialect="mistral") as other:
        mistral = MistralBatch(Mistral(api_key="k", server_url=other.origin), wait_seconds=0.01)
        with pytest.raises(ParameterError, match="logit_bias"):
            job.finish(mistral, model="mistral-small-latest", params={"logit_bias": {"1": 2}})
        assert not any("cancel" in call.path for call in server.requests)

        job.finish(mistral, model="mistral-small-latest", poll_seconds=0.01)
        out = job.collect(shelf(6), wait=True, poll_seconds=0.01, usage=True)

        again = out["llmbatch_attempt"] == 2
        assert out["llmbatch_status"].eq("ok").all()
        assert out["llmbatch_model"][again].eq("mistral-small-latest").all()
        assert sum(other.executed.values()) == again.sum() == 6 - sum(server.executed.values())
        assert [batch["metadata"]["frameenrich_job"] for batch in other.batches.values()] == [
            job.id
        ]
        assert job.cleanup() == 3
        assert all(batch["deleted"] for batch in other.batches.values())


def test_a_job_that_is_there_already(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Nothing is cancelled in order to be asked at the same provider."""
    job = stuck(server, provider, store)

    with pytest.raises(ParameterError, match="goes to 'openai' already"):
        job.finish("openai")
    with pytest.raises(ParameterError, match="There is no provider 'nowhere'"):
        job.finish("nowhere")

    assert not any("cancel" in call.path for call in server.requests)


def test_a_live_job_is_just_gone_on_with(
    server: BatchServer, client: openai.OpenAI, store: Path
) -> None:
    """There is nothing to cancel: what failed for a passing reason is asked once more."""
    server.faults.add("http_error", status=503, where=["row-T-01"], times=2)
    live = LiveProvider(client, wait_seconds=0.01, attempts=2)
    job = shelf(3).llmbatch.submit(ASK, "m", provider=live, store=store)
    assert job.collect()["llmbatch_status"].tolist() == ["ok", "failed", "ok"]

    assert job.finish().collect()["llmbatch_status"].tolist() == ["ok", "ok", "ok"]


def test_a_batch_that_ends_before_it_can_be_cancelled(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """A server refuses to cancel what has ended; what it answered is taken."""
    provider.limits = Limits(max_requests=3)
    job = shelf(3).llmbatch.submit(ASK, "gpt-4o-mini", provider=provider, store=store)
    server.hold("finalizing")
    job.status()
    cancel = provider.cancel

    def too_late(batch: frameenrich.model.Batch) -> frameenrich.model.Batch:
        server.release()
        while not provider.poll(batch).ended:
            pass
        return cancel(batch)

    provider.cancel = too_late  # type: ignore[method-assign]
    job.finish(poll_seconds=0.01)

    check_rows(job.collect(shelf(3)), shelf(3))
    assert sum(server.executed.values()) == 3
    assert job.rounds().empty


def test_shards_that_wait_are_never_sent(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Behind a full queue: they are cancelled here, and go out live."""
    provider.limits = Limits(max_requests=3, queue_wait_seconds=600)
    server.faults.add("rate_limited", where="POST /v1/batches", retry_after=0, times="always")
    job = shelf(6).llmbatch.submit(ASK, "gpt-4o-mini", provider=provider, store=store)

    job.finish(poll_seconds=0.01)

    check_rows(job.collect(shelf(6)), shelf(6))
    assert not server.batches
    assert max(server.executed.values()) == 1


def test_what_does_not_end_in_time(server: BatchServer, provider: OpenAIBatch, store: Path) -> None:
    """The time is up while a batch is still being cancelled; the next call goes on from there."""
    job = stuck(server, provider, store, rows=3)
    server.hold("cancelling")

    with pytest.raises(WaitTimeoutError, match="cancelling"):
        job.finish(timeout=0.5, poll_seconds=0.01)
    server.release()
    job.finish(poll_seconds=0.01)

    check_rows(job.collect(shelf(3)), shelf(3))
    assert sum("cancel" in call.path for call in server.requests) == 1


def test_flagged_answers_are_left_to_regenerate(
    server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """What came and is no use is an answer; regenerate(provider='live') asks it live."""
    server.faults.add("empty", where=["row-T-00"])
    job = shelf(3).llmbatch.submit(ASK, "gpt-4o-mini", provider=provider, store=store)
    job.wait(poll_seconds=0.01)

    assert job.finish().flagged()["status"].tolist() == ["empty"]
    again = shelf(3).llmbatch.regenerate(job, provider="live")

    check_rows(again.collect(shelf(3)), shelf(3))
    assert again.rounds()["change"].tolist() == ["provider openai -> live"]
    assert len(server.batches) == 1
    assert "r1-row-T-00" in server.executed


def test_from_the_command_line(
    server: BatchServer, provider: OpenAIBatch, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flags of `frameenrich finish` arrive; --json tells how far it is."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    job = stuck(server, provider, store, rows=3)

    words = ["finish", job.id, "--store", str(store), "--poll-seconds", "0.01", "--json"]
    refused = CliRunner().invoke(app, [*words, "--max-cost", "0.0001"])
    done = CliRunner().invoke(app, words)

    assert refused.exit_code == 2
    assert "could cost" in refused.stderr
    assert done.exit_code == 0, done.output
    assert '"ended": true' in done.output
    check_rows(job.collect(shelf(3)), shelf(3))


def test_a_notebook_loop_may_run(server: BatchServer, provider: OpenAIBatch, store: Path) -> None:
    """Live calls have a loop of their own, so that finish works where one runs already."""
    job = stuck(server, provider, store, rows=3)

    async def cell() -> pd.DataFrame:
        return job.finish(poll_seconds=0.01).collect(shelf(3))

    check_rows(asyncio.run(cell()), shelf(3))
