"""Azure, Groq and Together: the same promises through servers that speak otherwise."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from audit import ASK, check_rows, finish, said, shelf, unrun
from batch_server import BatchServer

from frameenrich.errors import CredentialsError, ParameterError, ProviderError
from frameenrich.model import Limits
from frameenrich.providers.dialects import AZURE, GROQ, TOGETHER, Dialect
from frameenrich.providers.once import each_once
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.providers.protocol import retry_for
from frameenrich.providers.retries import DoubtfulReplyError

pytestmark = pytest.mark.any_pandas
KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
VARIABLES = {
    "azure": ["AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"],
    "groq": ["GROQ_API_KEY"],
    "together": ["TOGETHER_API_KEY"],
}
DIALECTS = {"azure": AZURE, "groq": GROQ, "together": TOGETHER}
FAULTS = {
    "create made, answered 500": {"name": "accepted_then_500"},
    "create made, connection closed": {"name": "accepted_then_closed"},
    "upload made, answered 500": {"name": "accepted_then_500", "where": "POST /v1/files*"},
    "503 anywhere": {"name": "http_503", "times": 2},
    "429 at create": {"name": "rate_limited", "where": "POST /v1/batches", "retry_after": 0},
    "502 page while polling": {"name": "html_502", "times": 2},
    "download cut short": {"name": "truncated_download"},
    "queue full": {"name": "token_limit_exceeded"},
}


@pytest.fixture(params=DIALECTS)
def name(request: pytest.FixtureRequest) -> str:
    """Each provider in turn."""
    return str(request.param)


@pytest.fixture
def service(name: str) -> Iterator[BatchServer]:
    """The server of that name, with another batch on its first page."""
    dialect: Any = "openai" if name == "azure" else name
    with BatchServer(azure=name == "azure", dialect=dialect) as running:
        yield running


@pytest.fixture
def environment(name: str, service: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment as people have it for that provider."""
    for variable in VARIABLES[name]:
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", service.origin)
    monkeypatch.setenv("GROQ_BASE_URL", service.origin)
    monkeypatch.setenv("TOGETHER_BASE_URL", service.base_url)


def client_for(dialect: Dialect, service: BatchServer) -> openai.OpenAI:
    """A client as the dialect's users have one."""
    if dialect is AZURE:
        return openai.AzureOpenAI(
            api_key=KEY, azure_endpoint=service.origin, api_version="2024-10-21"
        )
    return openai.OpenAI(api_key=KEY, base_url=service.base_url)


@pytest.fixture
def provider(name: str, service: BatchServer) -> Iterator[OpenAIBatch]:
    """The provider with short waits and small files."""
    with client_for(DIALECTS[name], service) as client:
        made = OpenAIBatch(client, attempts=4, wait_seconds=0.01, dialect=DIALECTS[name])
        made.limits = Limits(max_requests=4, queue_wait_seconds=0.02)
        yield made


def paid(service: BatchServer) -> tuple[int, int, int]:
    """The most often that a row ran, how many batches ended well, how many files came."""
    ran = [batch for batch in service.batches.values() if batch["true_status"] != "failed"]
    inputs = [file for file in service.files.values() if file["purpose"] != "batch_output"]
    return max(service.executed.values()), len(ran), len(inputs)


@pytest.mark.usefixtures("environment")
def test_from_the_environment_to_answers_and_back_again(
    name: str, service: BatchServer, store: Path
) -> None:
    """Submit, wait, collect, flagged, regenerate; nothing but the provider's name is needed."""
    frame = shelf(6)
    service.faults.add("empty", where=["row-T-02"])
    service.faults.add("http_error", where=["row-T-04"], status=500)

    job = frame.llmbatch.submit(
        ASK, "my-deployment", provider=name, store=store, confirm_seconds=0.02
    )
    out = finish(frame, job)
    bad = frame.llmbatch.flagged(store=store)
    again = finish(frame, job.regenerate())

    check_rows(out, frame, {"T-02": "empty", "T-04": "failed"})
    assert bad.index.tolist() == ["T-02", "T-04"]
    check_rows(again, frame)
    assert paid(service) == (1, 2, 2)
    assert {b["completion_window"] for b in service.batches.values()} == {"24h"}


@pytest.mark.usefixtures("environment")
def test_no_key_is_in_the_store(name: str, service: BatchServer, store: Path) -> None:
    """Promise 7: also where the server says the key aloud."""
    frame = shelf(2)
    service.faults.add("http_error", where=["row-T-01"], status=500)
    service.faults.add(
        "fails_after_validating", steps=1, code="invalid_request", message=f"Not with {KEY}."
    )

    job = frame.llmbatch.submit(ASK, "m", provider=name, store=store, confirm_seconds=0.02)
    finish(frame, job)

    kept = [path for path in store.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]
    assert KEY not in repr(job) + job._repr_html_()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_loses_nothing_and_pays_nothing_twice(
    fault: str, name: str, service: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Three shards, one fault: every row its own answer, each executed once, no batch too many."""
    if (name, fault) == ("together", "queue full"):
        pytest.skip("its failed batches tell no code, only a sentence")
    frame = shelf(12)
    service.faults.add(**FAULTS[fault])  # type: ignore[arg-type]
    job = frame.llmbatch.submit(ASK, "m", provider=provider, store=store, confirm_seconds=0.02)

    out = finish(frame, job)

    check_rows(out, frame)
    assert service.faults.fired.total() >= 1
    assert paid(service) == (1, 3, 3)


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_an_ended_batch_left_is_kept(
    end: str, service: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Promise 4, in their words: the answered rows stay, only the rest is asked again."""
    frame = shelf(4)
    service.faults.add(end, ran=0.5)
    job = frame.llmbatch.submit(ASK, "m", provider=provider, store=store, confirm_seconds=0.02)

    out = finish(frame, job)
    check_rows(out, frame, unrun(frame, service, end))
    again = finish(frame, job.regenerate())

    check_rows(again, frame)
    assert paid(service) == (1, 2, 2)


def test_the_provider_goes_with_the_job(
    name: str, service: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """The job remembers the provider's name, and its batches tell ages and words that we know."""
    service.hold("in_progress")
    job = shelf(2).llmbatch.submit(ASK, "m", provider=provider, store=store, confirm_seconds=0.02)

    status = job.status()

    assert job.spec.provider == name
    assert [word for word, _ in status.shards] == ["in_progress"]
    assert all(age is not None and age < 60 for _, age in status.shards)
    job.cancel()
    service.release()
    assert job.wait(poll_seconds=0.01).status().ended


@pytest.mark.parametrize("provider_name", VARIABLES)
def test_a_missing_variable_is_named(provider_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key: which variables to set, and nothing is sent."""
    for variable in [v for each in VARIABLES.values() for v in each]:
        monkeypatch.delenv(variable, raising=False)

    with pytest.raises(CredentialsError) as caught:
        shelf(1).llmbatch.submit(ASK, "m", provider=provider_name)

    assert all(variable in caught.value.fix for variable in VARIABLES[provider_name])


@pytest.mark.usefixtures("environment")
def test_an_endpoint_that_is_not_served_is_refused(
    name: str, service: BatchServer, store: Path
) -> None:
    """Before anything is written or sent."""
    with pytest.raises(ParameterError, match=f"'{name}' does not answer /v1/moderations"):
        shelf(1).llmbatch.submit(ASK, "m", provider=name, endpoint="/v1/moderations", store=store)

    assert not store.exists()
    assert not service.requests


# --- Azure alone ---------------------------------------------------------------------------------


@pytest.fixture
def azure() -> Iterator[tuple[BatchServer, OpenAIBatch]]:
    """Azure's server and a provider for it."""
    with (
        BatchServer(azure=True) as service,
        client_for(AZURE, service) as client,
    ):
        made = OpenAIBatch(client, attempts=2, wait_seconds=0.01)
        made.limits = Limits(queue_wait_seconds=0.02)
        yield service, made


Azure = tuple[BatchServer, OpenAIBatch]


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [("/v1/chat/completions", "/chat/completions"), ("/v1/responses", "/v1/responses")],
)
def test_azure_request_lines(endpoint: str, url: str, azure: Azure, store: Path) -> None:
    """A line's url is Azure's; its model is a deployment."""
    service, provider = azure
    job = shelf(1).llmbatch.submit(
        ASK, "my-deployment", endpoint=endpoint, provider=provider, store=store
    )

    line = json.loads(Path(job.requests[0]).read_bytes())
    out = finish(shelf(1), job)

    assert (line["url"], line["body"]["model"]) == (url, "my-deployment")
    assert out["llmbatch"].tolist() == [said("thing 0")]
    assert [batch["endpoint"] for batch in service.batches.values()] == [url]


@pytest.mark.parametrize("looks", [1, 5])
def test_azure_wants_a_file_processed_first(looks: int, azure: Azure, store: Path) -> None:
    """A batch is made when the file is ready; where that takes long, the shard waits its turn."""
    service, provider = azure
    service.unready_looks = looks
    frame = shelf(3)

    out = finish(
        frame, frame.llmbatch.submit(ASK, "m", provider=provider, store=store, confirm_seconds=0.02)
    )

    check_rows(out, frame)
    assert service.count("POST", "/v1/batches") == 1


@pytest.mark.parametrize("status", [404, 405, 500, 501])
def test_azures_files_behind_a_gateway_that_shows_none(
    status: int, azure: Azure, store: Path
) -> None:
    """No wedge: a look at the file is useful, and the create goes on where nobody can take it."""
    service, provider = azure
    service.faults.add("no_route", where="GET /v1/files/file-??????", times="always", status=status)
    frame = shelf(3)

    out = finish(frame, frame.llmbatch.submit(ASK, "m", provider=provider, store=store))

    check_rows(out, frame)
    assert max(service.executed.values()) == 1


@pytest.mark.parametrize("body", [b"null", b"[]", b"7", b'{"status": []}'])
def test_azures_word_on_a_file_that_is_none(body: bytes, azure: Azure, store: Path) -> None:
    """Promise 9: no raw `AttributeError`; the create tells whether the file is ready."""
    service, provider = azure
    service.faults.add("odd_body", where="GET /v1/files/*", times=2, body=body)
    frame = shelf(3)

    out = finish(frame, frame.llmbatch.submit(ASK, "m", provider=provider, store=store))

    check_rows(out, frame)
    assert service.faults.fired["odd_body"]


def test_azure_answers_in_your_own_storage(azure: Azure, store: Path, tmp_path: Path) -> None:
    """They cannot be fetched with the API's key: the error says where they are, without secrets."""
    service, provider = azure
    service.output_blobs = True
    frame = shelf(2)
    job = frame.llmbatch.submit(ASK, "m", provider=provider, store=store, confirm_seconds=0.02)

    with pytest.raises(ProviderError, match=r"mine.blob.core.windows.net/out/results.jsonl\.") as e:
        job.wait(poll_seconds=0.01)
    assert "SECRET" not in str(e.value)
    assert not [p for p in store.rglob("*.json") if b"SECRET" in p.read_bytes()]

    outputs = [f["id"] for f in service.files.values() if f["purpose"] == "batch_output"]
    blob = tmp_path / "results.jsonl"
    blob.write_bytes(b"".join(map(service.content, outputs)))
    check_rows(finish(frame, job.import_responses(blob)), frame)


def test_an_azure_client_alone_is_enough(azure: Azure, store: Path) -> None:
    """``client=AzureOpenAI(...)`` without a provider's name speaks Azure's dialect."""
    service, _ = azure
    with client_for(AZURE, service) as client:
        job = shelf(1).llmbatch.submit(ASK, "m", client=client, store=store)

    assert job.spec.provider == "azure"
    assert job.spec.url == "/chat/completions"


def test_groq_takes_a_longer_window(store: Path) -> None:
    """``window="7d"`` reaches the server; another server refuses it and says so."""
    with (
        BatchServer(dialect="groq", instant=True) as service,
        client_for(GROQ, service) as client,
    ):
        provider = OpenAIBatch(client, dialect=GROQ, window="7d", attempts=1)
        job = shelf(1).llmbatch.submit(
            ASK, "m", provider=provider, store=store, confirm_seconds=0.02
        )
        refused = OpenAIBatch(client, dialect=GROQ, window="9d", attempts=1)
        with pytest.raises(ProviderError, match="completion_window"):
            shelf(2).llmbatch.submit(ASK, "m", provider=refused, store=store)

        check_rows(finish(shelf(1), job), shelf(1))


def test_a_search_in_a_list_without_an_end(store: Path) -> None:
    """Groq's lists have no last page: looking for a lost batch among others ends all the same."""
    with (
        BatchServer(dialect="groq", instant=True) as service,
        client_for(GROQ, service) as client,
    ):
        provider = OpenAIBatch(client, dialect=GROQ, wait_seconds=0.01)
        for n in range(3):
            shelf(n + 1).llmbatch.submit(ASK, f"m{n}", provider=provider, store=store)
        service.faults.add("http_503", where="POST /v1/batches")  # in doubt, and nothing to find
        frame = shelf(5)
        job = frame.llmbatch.submit(ASK, "m", provider=provider, store=store, confirm_seconds=0.02)

        check_rows(finish(frame, job), frame)
    assert len(service.batches) == 4


@pytest.mark.parametrize(("seconds", "pages"), [(60, "10,000"), (-60, "0")])
def test_a_list_with_a_new_page_for_ever_is_given_up(seconds: float, pages: str) -> None:
    """A server that makes items up holds nobody for ever, and nobody beyond ``timeout=``."""
    endless = ([n] for n in itertools.count())

    with retry_for(seconds), pytest.raises(DoubtfulReplyError, match=f"after {pages} pages"):
        list(each_once(endless, str))
