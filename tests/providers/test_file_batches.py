"""Mistral's and Gemini's batches: the promises that every provider of uploaded files has to keep.

One table of faults and ends for all of them; what each translates stands in its own test file.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from audit import ASK, check_rows, finish, said, shelf
from batch_server import BatchServer
from PIL import Image
from sdk_clients import KEY, PLAIN, gemini_client, mistral_client

import frameenrich
from frameenrich.errors import CredentialsError, ParameterError, ProviderError
from frameenrich.model import Batch, Limits
from frameenrich.providers import registry
from frameenrich.providers.gemini.batch import GeminiBatch
from frameenrich.providers.gemini.batch import _heard as gemini_heard
from frameenrich.providers.mistral.batch import MistralBatch
from frameenrich.providers.mistral.batch import _heard as mistral_heard
from frameenrich.providers.retries import _lost_file
from frameenrich.verbs.job import Job

pytestmark = pytest.mark.any_pandas


@dataclass(frozen=True)
class Kind:
    """A provider, and the server that speaks its API."""

    model: str
    serve: Callable[[], BatchServer]
    connect: Callable[[BatchServer], Any]
    client: Callable[[str, str], Any]
    variable: str


KINDS = {
    "gemini": Kind(
        "gemini-2.5-flash",
        lambda: BatchServer(dialect="gemini"),
        lambda s: GeminiBatch(gemini_client(KEY, s.origin), attempts=4, wait_seconds=0.01),
        gemini_client,
        "GOOGLE_API_KEY",
    ),
    "mistral": Kind(
        "mistral-small-latest",
        lambda: BatchServer(dialect="mistral"),
        lambda s: MistralBatch(mistral_client(KEY, s.origin), attempts=4, wait_seconds=0.01),
        mistral_client,
        "MISTRAL_API_KEY",
    ),
}


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
    made = kind.connect(server)
    made.limits = Limits(max_requests=4, queue_wait_seconds=0.02)
    return made


@pytest.fixture
def submit(kind: Kind, provider: Any, store: Path) -> Callable[..., Job]:
    """Submit with the usual template."""

    def with_options(frame: pd.DataFrame, **options: Any) -> Job:
        job: Job = frame.llmbatch.submit(
            **{
                "template": ASK,
                "model": kind.model,
                "provider": provider,
                "store": store,
                "confirm_seconds": 0.02,
                **options,
            }
        )
        return job

    return with_options


def check_paid(server: BatchServer, *, batches: int) -> None:
    """No request was executed twice; so many batches ran, each of a file of its own."""
    assert max(server.executed.values(), default=0) <= 1
    assert len(server.batches) == batches, list(server.batches.values())
    assert len({batch["input_file_id"] for batch in server.batches.values()}) == batches


# --- end to end ----------------------------------------------------------------------------------


def test_a_thousand_rows_a_third_of_them_failing(
    server: BatchServer, provider: Any, submit: Callable[..., Job]
) -> None:
    """The whole path: lost creates, an expired batch, two rounds of regenerate, nothing twice."""
    provider.limits = Limits(max_requests=300, queue_wait_seconds=0.02)
    frame = shelf(1000)
    server.faults.add("http_error", fraction=1 / 3, seed=1, times="always")
    server.faults.add("accepted_then_closed")
    server.faults.add("accepted_then_500", where="POST /v1/files")
    server.faults.add("expired_silently", ran=0.5)
    job = submit(frame, probe=False)  # one that fails is tried again, which is counted here

    rounds = [finish(frame, job)["llmbatch_status"].value_counts().to_dict()]
    for _ in range(2):
        job = job.regenerate(feedback=False)
        out = finish(frame, job)
        rounds.append(out["llmbatch_status"].value_counts().to_dict())

    left = [sum(count for status, count in found.items() if status != "ok") for found in rounds]
    assert [sum(found.values()) for found in rounds] == [1000] * 3
    assert rounds[0]["expired"] == 150
    assert 350 < left[0] < 550
    assert left[0] / 5 < left[1] < left[0] / 2
    assert left[1] / 8 < left[2] < left[1] / 2
    good = out["llmbatch_status"] == "ok"
    assert out["llmbatch"][good].tolist() == [said(title) for title in frame["title"][good]]
    assert max(server.executed.values()) == 1
    assert sum(server.executed.values()) == 1000 - 150 + left[0] + left[1]
    assert len(server.batches) == 4 + -(-left[0] // 300) + -(-left[1] // 300)


def test_statuses_usage_and_costs(
    kind: Kind, server: BatchServer, submit: Callable[..., Job]
) -> None:
    """Each way an answer can fail has its status; tokens and dollars are there."""
    frame = shelf(8)
    faults = {"T-01": "malformed", "T-02": "truncated", "T-03": "empty", "T-05": "content_filter"}
    for key, fault in faults.items():
        server.faults.add(fault, where=[f"row-{key}"])
    server.faults.add("http_error", where=["row-T-04"], status=503)
    server.faults.add("missing", where=["row-T-06"], times=1)

    job = submit(frame, labels=["Kitchen", "Garden"]).wait(poll_seconds=0.01)
    out = job.collect(frame, usage=True)
    again = job.regenerate().wait(poll_seconds=0.01)

    assert out["llmbatch_status"].tolist() == [
        "ok", "malformed", "truncated", "empty", "failed", "refused", "missing", "ok",
    ]  # fmt: skip
    assert out["llmbatch"].cat.categories.tolist() == ["Kitchen", "Garden"]
    assert out["llmbatch_model"].iloc[0] == kind.model
    assert (out["llmbatch_prompt_tokens"].dropna() > 0).all()
    assert (out["llmbatch_cost_usd"] > 0).tolist() == [
        row not in {"T-04", "T-06"} for row in frame.index
    ]
    assert out["llmbatch_error"]["T-04"].startswith("HTTP 503")
    assert again.flagged()["sku"].tolist() == ["T-05"]
    check_paid(server, batches=4)


def test_images_reach_the_model(server: BatchServer, submit: Callable[..., Job]) -> None:
    """Pixels as base64 with their type; each row sees its own."""
    pixels = BytesIO()
    Image.new("RGB", (3, 2), "red").save(pixels, "PNG")
    frame = shelf(1).assign(photo=[pixels.getvalue()])

    job = submit(frame, image="photo").wait(poll_seconds=0.01)

    uploaded = next(file for file in server.files.values() if file["purpose"] == "batch")
    assert base64.b64encode(pixels.getvalue()) in server.content(uploaded["id"])
    assert job.collect(frame)["llmbatch_status"].tolist() == ["ok"]


def test_any_text_gets_there_and_back(server: BatchServer, submit: Callable[..., Job]) -> None:
    """Quotes, line separators, emoji, a lone surrogate: each row has its own answer."""
    titles = ['"quoted"\\', "line\u2028sep\u2029arator\x85", "\U0001f9e6 sock", "half \ud83d pair"]
    frame = shelf(4).assign(title=pd.Series(titles, shelf(4).index, dtype=object))

    out = finish(frame, submit(frame))

    assert out["llmbatch"].tolist() == [said(t.replace("\ud83d", "\ufffd")) for t in titles]


# --- faults and ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"name": "accepted_then_500"},
        {"name": "accepted_then_closed"},
        {"name": "accepted_then_closed", "where": "POST /v1/files"},
        {"name": "not_json", "where": "POST /v1/batches"},
        {"name": "not_json", "where": "POST /v1/batches", "content_type": "text/html"},
        {"name": "not_json", "where": "POST /v1/files"},
        {"name": "http_503", "where": "POST /v1/batches"},
        {"name": "closed_before", "where": "POST /v1/batches"},
        {"name": "rate_limited", "where": "POST /v1/batches", "retry_after": 0, "times": 2},
        {"name": "rate_limited", "where": "POST /v1/batches", "retry_after": 0, "times": 6},
        {"name": "http_503", "times": 3},
        {"name": "html_502", "times": 2},
        {"name": "not_json", "times": 2},
        {"name": "closed_before", "where": "GET /v1/batches/*"},
        {"name": "unknown_status"},
        {"name": "null_request_counts"},
        {"name": "short_download"},
        {"name": "truncated_download"},
        {"name": "download_without_length"},
        {"name": "half_written", "less": 40, "times": 2},
        {"name": "null_custom_id_line"},
        {"name": "stranger_line"},
        {"name": "duplicate_line"},
        {"name": "raw_separators"},
    ],
    ids=lambda fault: " ".join(map(str, fault.values())),
)
def test_a_fault_loses_nothing_and_pays_nothing_twice(
    fault: dict[str, Any], server: BatchServer, submit: Callable[..., Job]
) -> None:
    """Three shards, one fault: each row its own answer, executed once."""
    frame = shelf(12)
    server.faults.add(**fault)
    job = submit(frame)

    out = finish(frame, job)

    if fault["name"] == "raw_separators":
        assert out["llmbatch_status"].eq("ok").all()
    else:
        check_rows(out, frame)
    assert server.faults.fired.total() >= 1
    check_paid(server, batches=3)


ODD = {
    "upload": ("POST /v1/files", b'{"file": []}'),
    "list": (
        "GET /v1/batches",
        b'{"operations": [{"name": "x", "metadata": 7}], "data": [{"id": "x", "metadata": 7}]}',
    ),
    "size": ("GET /v1/files/*", b'{"bytes": "x", "sizeBytes": "x"}'),
}


@pytest.mark.parametrize("odd", ODD)
def test_members_of_other_types_are_doubt(
    odd: str, server: BatchServer, submit: Callable[..., Job]
) -> None:
    """Promise 3: no raw error, and nothing is made twice."""
    where, body = ODD[odd]
    if odd == "list":  # which is asked for where an answer was lost
        server.faults.add("accepted_then_500", where="POST /v1/batches")
    server.faults.add("odd_body", where=where, body=body)
    frame = shelf(4)

    check_rows(finish(frame, submit(frame, confirm_seconds=900)), frame)
    assert server.faults.fired["odd_body"] == 1
    assert len(server.batches) == 1


@pytest.mark.parametrize("body", [b"[]", b"null", b'"later"'], ids=["list", "null", "text"])
def test_a_list_that_is_no_object_is_told(
    body: bytes, server: BatchServer, submit: Callable[..., Job]
) -> None:
    """Promises 3 and 9: a create in doubt is not made again, and what stood in its way is said."""
    server.faults.add("accepted_then_500", where="POST /v1/batches")
    server.faults.add("odd_body", where="GET /v1/batches", body=body, times="always")
    frame = shelf(4)

    with pytest.raises(ProviderError, match="did not create the batch"):
        submit(frame)
    server.faults.clear()

    check_rows(finish(frame, submit(frame)), frame)
    check_paid(server, batches=1)


def test_a_store_restored_from_before_the_create(
    server: BatchServer, submit: Callable[..., Job], store: Path
) -> None:
    """Promise 3: a resumed job is looked for by its tag before its first create."""
    server.faults.add("unauthorized")
    with pytest.raises(ProviderError):
        submit(shelf(4))
    backup = store.with_name("backup")
    shutil.copytree(store, backup)
    submit(shelf(4))
    shutil.rmtree(store)
    shutil.copytree(backup, store)

    check_rows(finish(shelf(4), submit(shelf(4))), shelf(4))
    check_paid(server, batches=1)


def test_an_upload_that_went_away_is_made_again(
    server: BatchServer, provider: Any, submit: Callable[..., Job]
) -> None:
    """Behind a full queue for longer than files are kept: the shard is uploaded anew, paid once."""
    fault = server.faults.add(
        "rate_limited", where="POST /v1/batches", retry_after=0, times="always"
    )
    frame = shelf(2)
    job = submit(frame)
    provider.delete_files(job._session.job().all_shards()[0].batch)
    server.faults.clear(fault.name)

    with pytest.raises(ProviderError, match="call again"):
        finish(frame, job)
    check_rows(finish(frame, job), frame)
    assert max(server.executed.values()) == 1
    assert len(server.batches) == 1


@pytest.mark.parametrize(
    "says",
    [
        "You do not have permission to access the File abc or it may not exist.",
        "File 0f1e not found",
        "Cannot find file file-1, or organization has no access to it.",
        "No such File object: file-1",
        "The files were deleted: input file file-9 was deleted",
    ],
)
def test_each_services_words_for_a_lost_file(says: str) -> None:
    """As they were seen, or stand in the makers' docs; other refusals are none."""
    for status in (400, 403, 404, 422):
        assert _lost_file(ServiceError(status, says))
    assert not _lost_file(ServiceError(400, "The file has an invalid line 3."))
    assert not _lost_file(ServiceError(500, says))


class ServiceError(Exception):
    """An error with an HTTP status, as each SDK has one of its own."""

    def __init__(self, status: int, says: str) -> None:
        super().__init__(says)
        self.status_code = status


@pytest.mark.parametrize("end", ["expired_silently", "cancelled"])
def test_what_an_ended_batch_left_is_kept(
    end: str, server: BatchServer, submit: Callable[..., Job]
) -> None:
    """Promise 4: the answered rows stay, only the rest is asked again."""
    frame = shelf(4)
    server.faults.add(end, ran=0.5)
    job = submit(frame)
    word = end.removesuffix("_silently")

    out = finish(frame, job)
    again = finish(frame, job.regenerate())

    unrun = {key: word for key in frame.index if server.executed[f"row-{key}"] == 0}
    assert len(unrun) == 2
    check_rows(out, frame, unrun)
    check_rows(again, frame)
    assert [status for status, _ in job.status().shards] == [word, "completed"]
    check_paid(server, batches=2)


def test_cancel_keeps_what_was_answered(server: BatchServer, submit: Callable[..., Job]) -> None:
    """Cancelled by us: half had run."""
    frame = shelf(4)
    server.hold("in_progress")
    job = submit(frame)
    job.status()
    job.cancel()
    server.release()

    out = finish(frame, job)

    assert sorted(out["llmbatch_status"]) == ["cancelled"] * 2 + ["ok"] * 2
    check_paid(server, batches=1)


@pytest.mark.parametrize("body", [b"[]", b"null"])
@pytest.mark.parametrize("doubt", [False, True], ids=["it runs", "its create is in doubt"])
def test_a_reply_that_says_nothing_gives_no_batch_up(
    doubt: bool,
    body: bytes,
    server: BatchServer,
    provider: Any,
    submit: Callable[..., Job],
    store: Path,
) -> None:
    """Promise 3: a gateway's 200 is no word about a batch that runs, nor about one in doubt."""
    frame = shelf(4)
    server.hold("in_progress")
    odd: dict[str, Any] = {"where": "GET /v1/batches*", "times": "always", "body": body}
    if doubt:
        server.faults.add("accepted_then_500")
        server.faults.add("odd_body", **odd)
    with contextlib.suppress(ProviderError):
        submit(frame, confirm_seconds=900)
    server.faults.add("odd_body", **odd)
    job = Job(frame.llmbatch.job(store=store)._session.job(), provider=provider)

    with pytest.raises(ProviderError, match=r"give_up\(force=True\)"):
        job.give_up()

    server.faults.clear("odd_body")
    server.release()
    check_rows(finish(frame, job), frame)
    check_paid(server, batches=1)


def test_cleanup_deletes_files_and_batch(server: BatchServer, submit: Callable[..., Job]) -> None:
    """What the provider still keeps goes; the answers stay here; twice is fine."""
    frame = shelf(2)
    job = submit(frame)
    finish(frame, job)

    job.cleanup()
    job.cleanup()

    assert all(file["deleted"] for file in server.files.values())
    assert [batch["deleted"] for batch in server.batches.values()] == [True]
    check_rows(finish(frame, job), frame)


def test_a_wrong_key_and_another_projects_key(
    kind: Kind, server: BatchServer, submit: Callable[..., Job], store: Path
) -> None:
    """401 and 404 say what to do, and the key is nowhere in the store."""
    server.require_key = "another"
    with pytest.raises(ProviderError, match="Check the API key") as caught:
        submit(shelf(1))
    assert KEY not in str(caught.value)
    server.require_key = None

    job = submit(shelf(1))
    server.per_key_projects = True
    stranger = kind.client("another-project-key", server.origin)
    with pytest.raises(ProviderError, match="pass client="):
        frameenrich.open_job(job.id, store, client=stranger).wait()
    assert finish(shelf(1), job)["llmbatch"].tolist() == [said("thing 0")]
    kept = [path for path in store.rglob("*") if path.is_file()]
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]


def test_a_bug_of_ours_is_no_fault_of_the_network(
    provider: Any, submit: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that is none of the SDK's own comes out as it is, at once, not tried again."""
    tries = []

    def broken(*_: Any) -> Any:
        tries.append(1)
        raise AttributeError("a slip of the pen")

    monkeypatch.setattr(type(provider), "_create", broken)

    with pytest.raises(AttributeError, match="slip of the pen"):
        submit(shelf(1))

    assert len(tries) == 1


def test_nobody_listens_names_the_server(kind: Kind, server: BatchServer, store: Path) -> None:
    """A wrong base URL shows at once: the message has the address that was called."""
    provider = kind.connect(server)
    provider._calls._attempts = 1
    server.stop()

    with pytest.raises(ProviderError, match=f"ConnectError.*127.0.0.1:{server.port}"):
        shelf(1).llmbatch.submit(ASK, kind.model, provider=provider, store=store)


def test_limits_split_before_the_upload(
    kind: Kind, server: BatchServer, submit: Callable[..., Job], provider: Any
) -> None:
    """No file is uploaded that the provider would refuse for its size."""
    provider.limits = replace(type(provider).limits, max_bytes=1500)
    server.max_file_bytes = 1500

    out = finish(shelf(12), submit(shelf(12)))

    assert out["llmbatch_status"].eq("ok").all()
    assert len(server.batches) > 1


# --- what is missing -----------------------------------------------------------------------------


def test_without_a_key_the_variable_is_told(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, and another provider's client."""
    name = next(name for name, each in KINDS.items() if each is kind)
    for variable in (kind.variable, "GEMINI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)

    with pytest.raises(CredentialsError, match=kind.variable):
        shelf(1).llmbatch.submit(ASK, kind.model, provider=name)
    with pytest.raises(ParameterError, match="client= is a Client"):
        shelf(1).llmbatch.submit(ASK, kind.model, provider=name, client=PLAIN)


def test_from_the_environment(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's own variable is enough, and no secret is in the repr."""
    name = next(name for name, each in KINDS.items() if each is kind)
    monkeypatch.setenv(kind.variable, KEY)

    made: Any = registry.connect(name)

    assert made.name == name
    assert KEY in made._secrets
    assert KEY not in repr(made)


@pytest.mark.parametrize("odd", ["text", 7, [1], True])
def test_members_of_other_types_are_no_errors(odd: Any) -> None:
    """A server's metadata, errors or counts may be of any type: the batch is kept as it was."""
    batch = Batch("tag")
    names = ("metadata", "error", "errors", "response", "output")
    made = {"name": "batches/1", "id": "job-1", **dict.fromkeys(names, odd)}

    assert gemini_heard(batch, made, ()).id == "batches/1"
    assert gemini_heard(batch, {**made, "metadata": {"output": odd, "batchStats": odd}}, ()).id
    assert mistral_heard(batch, made, ()).id == "job-1"
