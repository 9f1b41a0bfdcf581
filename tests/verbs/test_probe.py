"""``probe=``: one row is asked live, so that a refusal is told before all rows go out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer

import frameenrich
from frameenrich.errors import BudgetError, FrameEnrichWarning, ParameterError
from frameenrich.providers.live import client as live_client
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.providers.protocol import RetryDeadline
from frameenrich.verbs import probe

LIVE = "/v1/chat/completions"
REFUSED: dict[str, Any] = {
    "status": 400,
    "code": "unsupported_parameter",
    "message": "Unsupported parameter: 'temperature' is not supported with this model.",
}


def frame_of(rows: int) -> pd.DataFrame:
    """Distinct rows."""
    return pd.DataFrame({"title": [f"thing {n}" for n in range(rows)]})


@pytest.fixture
def ask(client: openai.OpenAI, store: Path) -> dict[str, Any]:
    """What each submit here says."""
    return {
        "template": "Sort {{ title }}",
        "model": "gpt-4o-mini",
        "params": {"temperature": 0.5, "max_tokens": 20},
        "client": client,
        "store": store,
    }


def live_calls(server: BatchServer) -> int:
    """How many rows were asked one by one."""
    return server.count("POST", LIVE)


def test_what_every_row_is_refused_for_is_told_and_no_batch_goes(
    server: BatchServer, ask: dict[str, Any]
) -> None:
    """Three rows are asked, not one more; once it works, the same submit asks and goes."""
    fault = server.faults.add("http_error", times="always", **REFUSED)

    with pytest.raises(ParameterError, match="'temperature' is not supported") as error:
        frame_of(5).llmbatch.submit(**ask, probe=True)
    assert "no batch was sent" in str(error.value)
    assert (live_calls(server), len(server.batches)) == (3, 0)

    server.faults.clear(fault.name)
    job = frame_of(5).llmbatch.submit(**ask, probe=True)
    assert (live_calls(server), len(server.batches), job.reused) == (4, 1, 1)
    out = frame_of(5).llmbatch.collect(job, wait=True, poll_seconds=0.01)
    assert out["llmbatch"].tolist() == [f"echo: Sort thing {n}" for n in range(5)]
    assert frame_of(5).llmbatch.submit(**ask, probe=True).id == job.id
    assert live_calls(server) == 4


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (REFUSED, 1),
        ({"status": 500, "code": "server_error", "message": "The model 'x' broke."}, "always"),
        ({"status": 404, "code": "model_not_found", "message": "No such model."}, "always"),
        ({"status": 400, "code": "invalid_value", "message": "Your text is too long."}, "always"),
        ({"status": 400, "code": "content_policy", "message": "It is no good."}, "always"),
    ],
    ids=["one row only", "a broken server", "no live calls", "a long row", "a bad row"],
)
def test_everything_else_proves_nothing_and_the_batch_goes(
    fault: dict[str, Any],
    times: Any,
    server: BatchServer,
    ask: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A row of its own may be to blame, or the server that has no such call."""
    monkeypatch.setattr(probe, "_TRY_AGAIN_SECONDS", 0.3)
    server.faults.add("http_error", times=times, **fault)

    frame_of(4).llmbatch.submit(**ask, probe=True)

    assert len(server.batches) == 1


def test_a_model_that_thinks_for_long_is_waited_for(
    server: BatchServer, ask: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is hung up on would be paid again in the batch: only trying again has an end."""
    monkeypatch.setattr(probe, "_TRY_AGAIN_SECONDS", 0.05)
    server.faults.add("slow", where=f"POST {LIVE}", times="always", seconds=0.5)

    job = frame_of(4).llmbatch.submit(**ask, probe=True)

    assert (job.reused, len(server.batches)) == (1, 1)
    assert set(server.executed.values()) == {1}


def test_a_server_that_hangs_holds_no_other_submit_up(
    server: BatchServer, ask: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other submits wait while a row is asked, so a call has an end, which is told."""
    monkeypatch.setattr(probe, "_TRY_AGAIN_SECONDS", 0.2)
    monkeypatch.setattr(probe, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(live_client, "GRACE_SECONDS", 0.1)
    server.faults.add("slow", where=f"POST {LIVE}", times="always", seconds=60.0)

    with pytest.warns(FrameEnrichWarning, match="may be paid twice; probe=False"):
        frame_of(4).llmbatch.submit(**ask, probe=True)

    assert len(server.batches) == 1
    assert not server.executed  # the slow answer would have been waited for


def test_a_row_and_its_witnesses_have_one_end(
    server: BatchServer, ask: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other submits wait for both: where the row took 40 seconds, witnesses have what is left."""
    now, waited = [0.0], []

    class Recorded(RetryDeadline):
        def __init__(self, **options: float) -> None:
            super().__init__(**options)
            waited.append(self.answer_seconds)
            now[0] += 40.0

    monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(probe, "RetryDeadline", Recorded)
    server.faults.add("http_error", times="always", **REFUSED)

    with pytest.raises(ParameterError, match="as 3 asked live show"):
        frame_of(5).llmbatch.submit(**ask, probe=True)

    assert waited == [60.0, 20.0]


def test_by_default_it_is_asked_where_much_is_at_stake_and_nothing_is_known(
    server: BatchServer, ask: dict[str, Any]
) -> None:
    """From 1,000 requests on, once for a provider, model, parameters and schema."""
    frame_of(999).llmbatch.submit(**ask)
    assert live_calls(server) == 0

    job = frame_of(1_200).llmbatch.submit(**{**ask, "template": "Name {{ title }}"})
    assert (live_calls(server), job.reused) == (1, 1)
    frame_of(1_200).llmbatch.submit(**{**ask, "template": "Say {{ title }}"})
    assert live_calls(server) == 1
    other = {**ask, "template": "See {{ title }}", "params": {"temperature": 0, "max_tokens": 20}}
    frame_of(1_200).llmbatch.submit(**other, probe=False)
    assert live_calls(server) == 1
    fresh = frame_of(1_200).llmbatch.submit(**other, fresh=True)
    assert (live_calls(server), fresh.reused) == (2, 1)


def test_it_is_held_to_the_cap_before_it_is_asked(server: BatchServer, ask: dict[str, Any]) -> None:
    """The row asked live counts, too."""
    with pytest.raises(BudgetError):
        frame_of(5).llmbatch.submit(**ask, probe=True, max_cost=1e-6)
    assert live_calls(server) == 0
    job = frame_of(5).llmbatch.submit(**ask, probe=True, max_cost=0.01)
    assert (live_calls(server), job.reused) == (1, 1)


def test_the_answer_counts_whatever_the_live_provider_is_called(
    server: BatchServer, ask: dict[str, Any], client: openai.OpenAI
) -> None:
    """A user's own provider may have live calls of another name: no row is paid twice there."""
    provider = OpenAIBatch(client)
    provider.name = "house"

    job = frame_of(5).llmbatch.submit(**{**ask, "client": None, "provider": provider}, probe=True)

    assert (live_calls(server), job.reused) == (1, 1)


def test_a_provider_without_live_calls_is_passed_over(store: Path) -> None:
    """In silence, also where somebody asks for it."""
    job = frame_of(3).llmbatch.submit("{{ title }}", "m", provider="file", store=store, probe=True)
    assert job.reused == 0
    assert frameenrich.jobs(store)["pilot"].tolist() == [False]


def test_a_probe_is_a_pilot_that_no_verb_takes_for_the_job(
    server: BatchServer, ask: dict[str, Any]
) -> None:
    """It is listed as one; `collect` and names find the job."""
    job = frame_of(3).llmbatch.submit(**ask, probe=True)
    store = ask["store"]

    assert sorted(frameenrich.jobs(store)["pilot"].tolist()) == [False, True]
    assert frame_of(3).llmbatch.job(store=store).id == job.id
    assert frameenrich.open_job("llmbatch", store).id == job.id
