"""What a user gives along with a batch: metadata and a window, and that neither is the job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from audit import ASK, check_rows, finish, shelf
from batch_server import BatchServer
from mistralai.client import Mistral

import frameenrich
from frameenrich.errors import ParameterError
from frameenrich.model import JobSpec, Limits
from frameenrich.providers.dialects import GROQ, TOGETHER
from frameenrich.providers.mistral.batch import MistralBatch
from frameenrich.providers.openai.batch import OpenAIBatch

pytestmark = pytest.mark.any_pandas
NOWHERE = "http://127.0.0.1:9"
OURS = {"frameenrich_job", "frameenrich_name", "frameenrich_shard", "frameenrich_tag"}
MANY = {f"{n:02d}".ljust(64, "k"): "v" * 512 for n in range(15)}


def openai_client(server: BatchServer) -> openai.OpenAI:
    """A client of the server."""
    return openai.OpenAI(api_key="k", base_url=server.base_url)


def test_metadata_goes_with_every_batch_and_is_no_part_of_the_job(store: Path) -> None:
    """Beside our tag, in later rounds too, from a new session; the same submit sends nothing."""
    frame, mine = shelf(6), {"team": "catalogue", "cost centre": "4711"}
    with BatchServer(instant=True) as server, openai_client(server) as client:
        provider = OpenAIBatch(client)
        provider.limits = Limits(max_requests=4)
        server.faults.add("empty", where=["row-T-02"])
        asking: dict[str, Any] = {"provider": provider, "store": store}
        job = frame.llmbatch.submit(ASK, "m", metadata=mine, completion_window="24h", **asking)
        finish(frame, job)
        for other in ({}, {"metadata": {"team": "other"}}):
            assert frame.llmbatch.submit(ASK, "m", **asking, **other).id == job.id
        again = frameenrich.open_job(job.id, store=store, client=client).regenerate()
        check_rows(finish(frame, again), frame)
        batches = list(server.batches.values())

    assert len(batches) == 3
    for batch in batches:
        assert batch["metadata"].keys() == OURS | mine.keys()
        assert mine.items() <= batch["metadata"].items()


def test_what_is_full_keeps_our_tag(store: Path) -> None:
    """Fifteen pairs of the longest kind leave room for the tag, and a lost create is found."""
    with BatchServer(instant=True) as server, openai_client(server) as client:
        server.faults.add("accepted_then_closed")
        provider = OpenAIBatch(client, wait_seconds=0.01)
        job = shelf(2).llmbatch.submit(ASK, "m", metadata=MANY, provider=provider, store=store)
        check_rows(finish(shelf(2), job), shelf(2))
        (batch,) = server.batches.values()

    assert batch["metadata"].keys() == MANY.keys() | {"frameenrich_tag"}


def test_mistral_gets_both(store: Path) -> None:
    """The window as hours."""
    with BatchServer(dialect="mistral", instant=True) as server:
        provider = MistralBatch(Mistral(api_key="k", server_url=server.origin))
        job = shelf(2).llmbatch.submit(
            ASK,
            "m",
            metadata={"team": "catalogue"},
            completion_window="3d",
            provider=provider,
            store=store,
        )
        check_rows(finish(shelf(2), job), shelf(2))
        (batch,) = server.batches.values()

    assert batch["completion_window"] == "72h"
    assert batch["metadata"]["team"] == "catalogue"
    assert batch["metadata"].keys() >= {"frameenrich_tag"}


def test_groq_gets_the_window(store: Path) -> None:
    """As it was written."""
    with BatchServer(dialect="groq", instant=True) as server, openai_client(server) as client:
        provider = OpenAIBatch(client, dialect=GROQ)
        job = shelf(2).llmbatch.submit(
            ASK, "m", completion_window="7d", provider=provider, store=store
        )
        check_rows(finish(shelf(2), job), shelf(2))
        (batch,) = server.batches.values()

    assert batch["completion_window"] == "7d"


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({str(n): "v" for n in range(16)}, "16 pairs"),
        ({"k" * 65: "v"}, "key 'kk.* has 65 characters"),
        ({"k": "v" * 513}, "value of 'k' has 513 characters"),
        ({"k": 7}, "value of 'k' is a int"),
        ({7: "v"}, "key '7' is a int"),
        ({"": "v"}, "is empty"),
        ({"k": "\ud83d"}, "not valid Unicode"),
        ({"frameenrich_tag": "mine"}, "'frameenrich_tag' is kept for our own"),
        (["team"], "is a list"),
    ],
)
def test_metadata_that_no_batch_carries_is_refused(metadata: Any, says: str, store: Path) -> None:
    """Named, before anything is sent or written."""
    client = openai.OpenAI(api_key="k", base_url=NOWHERE)
    with pytest.raises(ParameterError, match=says):
        shelf(1).llmbatch.submit(
            ASK, "m", metadata=metadata, provider=OpenAIBatch(client), store=store
        )

    assert not store.exists() or not list(store.iterdir())


def _mistral() -> MistralBatch:
    return MistralBatch(Mistral(api_key="k", server_url=NOWHERE))


def _together() -> OpenAIBatch:
    return OpenAIBatch(openai.OpenAI(api_key="k", base_url=NOWHERE), dialect=TOGETHER)


@pytest.mark.parametrize(
    ("provider", "option", "says"),
    [
        ("file", {"metadata": {"a": "b"}}, "'file' takes no metadata="),
        ("live", {"metadata": {"a": "b"}}, "'live' takes no metadata="),
        ("anthropic", {"metadata": {"a": "b"}}, "'anthropic' takes no metadata="),
        ("gemini", {"completion_window": "24h"}, "'gemini' takes no completion_window="),
        ("live", {"completion_window": "24h"}, "'live' takes no completion_window="),
        (_together, {"metadata": {"a": "b"}}, "'together' takes no metadata="),
        (_together, {"completion_window": "48h"}, "'48h' is not one that 'together' takes"),
        ("openai", {"completion_window": "7d"}, "'7d' is not one that 'openai' takes. Use '24h'"),
        ("openai", {"completion_window": 24}, "completion_window= is 24, which is not a text"),
        (_mistral, {"completion_window": "8d"}, "'8d' is not one that 'mistral' takes"),
        (_mistral, {"completion_window": "0h"}, "'0h' is not one that 'mistral' takes"),
    ],
)
def test_a_provider_without_them_says_so(
    provider: Any, option: dict[str, Any], says: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option is named, before anything is sent or written."""
    for name in ("OPENAI", "ANTHROPIC", "GEMINI"):
        monkeypatch.setenv(f"{name}_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", NOWHERE)
    route = provider() if callable(provider) else provider

    with pytest.raises(ParameterError, match=says):
        shelf(1).llmbatch.submit(
            ASK, "m", params={"max_tokens": 9}, provider=route, store=store, **option
        )

    assert not store.exists() or not list(store.iterdir())


def test_a_pilot_leaves_them_out_and_its_answers_are_taken(store: Path) -> None:
    """One set of options serves both: the pilot asks live, the submit pays for the rest."""
    frame = shelf(4)
    with BatchServer(instant=True) as server, openai_client(server) as client:
        options: dict[str, Any] = {
            "metadata": {"team": "catalogue"},
            "completion_window": "24h",
            "client": client,
            "store": store,
        }
        frame.llmbatch.pilot(ASK, "m", n=2, **options)
        check_rows(finish(frame, frame.llmbatch.submit(ASK, "m", **options)), frame)
        (batch,) = server.batches.values()

    assert batch["request_counts"]["total"] == 2
    assert batch["metadata"]["team"] == "catalogue"


def test_ids_know_neither() -> None:
    """And the spec that is kept has both."""
    plain = JobSpec("n", "m", ())
    given = replace(plain, metadata={"team": "catalogue"}, completion_window="7d")

    assert given.identity_json() == plain.identity_json()
    assert "metadata" not in plain.identity_json()
    assert JobSpec.from_json(given.to_json()) == given
