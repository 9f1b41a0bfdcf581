"""Somebody else's store, server and file: nothing is fetched, filled or told that should not be."""

from __future__ import annotations

import base64
import gzip
import html
import http.server
import json
import os
import stat
import struct
import threading
import traceback
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx2
import openai
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import answer_lines, rewrite_batch
from every_provider import KEY, KINDS, provider_at, send

import frameenrich
from frameenrich.cli.tables.records import without_formula
from frameenrich.errors import FrameEnrichError, OutputError, ProviderError, StoreError
from frameenrich.providers import guard
from frameenrich.providers.credentials import secrets_of
from frameenrich.providers.live import read_content
from frameenrich.providers.live.provider import LiveProvider
from frameenrich.rendering.thumbnails import thumbnail

ASK = "Sort {{ title }}"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@contextmanager
def answering(
    body: bytes, headers: dict[str, str], status: int = 200
) -> Iterator[tuple[str, list[str]]]:
    """Serve one answer to everything; gives the URL, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            # Read whole, or closing would reset the connection under the answer.
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # whoever had enough of it hangs up
                self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - http.server's naming

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def rewrite_spec(job: frameenrich.Job, **changes: Any) -> None:
    """Change what a job's sidecar says of it, as somebody who sends a store might."""
    path = Path(job.path, "sidecar.parquet")
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    spec = json.loads(metadata[b"frameenrich.spec"])
    metadata[b"frameenrich.spec"] = json.dumps({**spec, **changes}).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path)


def looks(store: Path, job_id: str) -> Iterator[Any]:
    """Yield every way to look at a job."""
    yield lambda: frameenrich.jobs(store=store)
    yield lambda: repr(frameenrich.open_job(job_id, store))
    yield lambda: frameenrich.open_job(job_id, store)._repr_html_()
    yield lambda: frameenrich.open_job(job_id, store).collect()
    yield lambda: frameenrich.open_job(job_id, store).flagged()
    yield lambda: frameenrich.open_job(job_id, store).usage()


# --- a store --------------------------------------------------------------------------------------


NO_LABELS: list[Any] = [
    None,
    {},
    {"type": "object", "properties": {}},
    {"type": "object", "properties": {"label": {"type": "string"}}},
    {"type": "object", "properties": {"label": {"enum": [1, 2]}}},
    {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}},
    {"type": "object", "properties": {"label": {"enum": ["a"]}, "more": {"enum": ["b"]}}},
]


@pytest.mark.parametrize("schema", NO_LABELS, ids=json.dumps)
def test_stored_labels_that_are_none_are_told(
    schema: Any, store: Path, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """Promise 9: one sentence, and the labels given again read the answers that were paid for."""
    job = mugs.llmbatch.submit(ASK, "m", labels=["a", "b"], provider="file", store=store)
    (tmp_path / "a.jsonl").write_bytes(answer_lines(job, "a", ["A1"]))
    job.import_responses(tmp_path / "a.jsonl")
    rewrite_spec(job, output={"kind": "labels", "schema": schema})

    for look in looks(store, job.id):
        with suppress(FrameEnrichError):
            look()
    opened = frameenrich.open_job(job.id, store)
    with pytest.raises(OutputError, match=r"cannot be used: .*\. Collect with labels="):
        opened.collect()
    assert opened.collect(labels=["a", "b"])["llmbatch"].iloc[0] == "a"


@pytest.mark.parametrize("kind", ["http", "file", "$dynamicRef"])
def test_a_stored_schema_has_nothing_fetched(
    kind: str, store: Path, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """A reference in somebody's store would be a request from your machine (promise 7)."""
    job = mugs.llmbatch.submit(ASK, "m", response_model=SCHEMA, provider="file", store=store)
    (tmp_path / "a.jsonl").write_bytes(answer_lines(job, '{"n": 1}', ["A1"]))
    job.import_responses(tmp_path / "a.jsonl")
    (tmp_path / "local.json").write_text('{"type": "integer"}')
    with answering(b'{"type": "integer"}', {}) as (url, asked):
        where = (tmp_path / "local.json").as_uri() if kind == "file" else f"{url}/schema.json"
        name = kind if kind.startswith("$") else "$ref"
        odd = {**SCHEMA, "properties": {"n": {name: where}}}
        rewrite_spec(job, output={**json.loads(json.dumps({"kind": "schema", "schema": odd}))})

        for look in looks(store, job.id):
            try:
                look()
            except FrameEnrichError as error:
                assert "refers to" in str(error) or "cannot be" in str(error)  # noqa: PT017

    assert asked == []


def test_a_schema_that_refers_elsewhere_is_refused_at_submit(
    store: Path, mugs: pd.DataFrame
) -> None:
    """Nothing is fetched for it there either."""
    with answering(b"{}", {}) as (url, asked):
        odd = {**SCHEMA, "properties": {"n": {"$ref": f"{url}/x.json"}}}
        with pytest.raises(OutputError):
            mugs.llmbatch.submit(ASK, "m", response_model=odd, provider="file", store=store)

    assert asked == []


def test_a_schema_that_is_too_deep_is_refused_at_submit(store: Path, mugs: pd.DataFrame) -> None:
    """No `RecursionError`, whatever the schema came from."""
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(3000):
        deep = {"type": "array", "items": deep}
    odd = {**SCHEMA, "properties": {"n": deep}}

    with pytest.raises(OutputError, match="too deep"):
        mugs.llmbatch.submit(ASK, "m", response_model=odd, provider="file", store=store)


JUNK: dict[str, Any] = {
    "messages": 7, "output": {"kind": "nonsense"}, "params": [1], "key": 3, "url": None,
    "name": {"a": 1}, "prices": "free", "pace": {"max_in_flight": -1}, "model": ["m"],
    "image": 5, "version": "three", "provider": 9, "max_cost": "much",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::frameenrich.FrameEnrichWarning")  # which names it
@pytest.mark.parametrize("field", JUNK)
def test_junk_in_a_stored_spec_is_a_clear_error(
    field: str, store: Path, mugs: pd.DataFrame
) -> None:
    """No `KeyError`, no `TypeError`: an error that names the file, and the other jobs are shown."""
    job = mugs.llmbatch.submit(ASK, "m", provider="file", store=store)
    mugs.llmbatch.submit("Price {{ title }}", "m", name="other", provider="file", store=store)
    rewrite_spec(job, **{field: JUNK[field]})

    for look in looks(store, job.id):
        try:
            look()
        except FrameEnrichError as error:
            assert job.id in str(error)  # noqa: PT017

    assert frameenrich.jobs(store=store)["name"].dropna().tolist().count("other") == 1


ODD_METADATA = {
    "created_at": (b"nan", b"inf", b"-1e400", b"9" * 20, b"soon"),
    "key_names": (b"a\x1fb\x1fc", b"\xff"),
    "fingerprint": (b"\xff\xfe",),
    "version": (b"[" * 20_000,),
}


@pytest.mark.filterwarnings("ignore::frameenrich.FrameEnrichWarning")  # which names it
def test_junk_beside_a_stored_spec_is_a_clear_error(store: Path, mugs: pd.DataFrame) -> None:
    """What a sidecar says of its time and its keys; half a character in what is shown."""
    job = mugs.llmbatch.submit(ASK, "m", provider="file", store=store)
    path = Path(job.path, "sidecar.parquet")
    table = pq.read_table(path)
    whole = dict(table.schema.metadata)
    junk = [
        {f"frameenrich.{name}".encode(): text}
        for name, texts in ODD_METADATA.items()
        for text in texts
    ]
    spec = json.loads(whole[b"frameenrich.spec"])
    junk += [
        {b"frameenrich.spec": json.dumps({**spec, name: "\ud83d"}).encode()}
        for name in ("name", "model", "provider")
    ]
    for change in junk:
        pq.write_table(table.replace_schema_metadata({**whole, **change}), path)
        for look in (*looks(store, job.id), lambda: job.report(store / "report.html")):
            with suppress(FrameEnrichError):
                look()


@pytest.mark.parametrize("junk", [{"status": "\ud83d"}, {"before_import": {"a": 1}}], ids=str)
def test_junk_in_a_batch_file_is_a_clear_error(
    junk: dict[str, Any], store: Path, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """What a provider said, and what an import stands before."""
    job = mugs.llmbatch.submit(ASK, "m", provider="file", store=store)
    (tmp_path / "a.jsonl").write_bytes(answer_lines(job, "good", list(mugs.index)))
    job.import_responses(tmp_path / "a.jsonl")
    path = Path(job.path, "round-0", "shard-00000.batch.json")
    rewrite_batch(path, **junk)

    assert len(frameenrich.jobs(store=store)) == 1
    if "before_import" in junk:
        with pytest.raises(StoreError, match="What the batch"):
            job.withdraw_import()


@pytest.mark.filterwarnings("ignore::frameenrich.FrameEnrichWarning")  # which names it
def test_a_deep_batch_file_hides_no_other_job(store: Path, mugs: pd.DataFrame) -> None:
    """20,000 brackets are damage of one job, and no `RecursionError` of all."""
    job = mugs.llmbatch.submit(ASK, "m", provider="file", store=store)
    mugs.llmbatch.submit("Price {{ title }}", "m", name="other", provider="file", store=store)
    Path(job.path, "round-0", "shard-00000.batch.json").write_text("[" * 20_000 + "]" * 20_000)

    assert set(frameenrich.jobs(store=store)["job"]) >= {job.id}
    assert len(frameenrich.jobs(store=store)) == 2


# --- a server -------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_that_bursts_is_not_held(
    kind: str, coding: str, store: Path, mugs: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that would fill the memory, packed or as it is, is given up before it does."""
    most = 4 << 20
    monkeypatch.setattr(guard, "MOST_BYTES", most)
    monkeypatch.setattr(read_content, "MOST_BYTES", most)
    plain = b'{"id": "' + b"x" * (4 * most) + b'"}'
    bombs = {"gzip": gzip.compress(plain, 9), "deflate": zlib.compress(plain, 9)}
    bomb = bombs.get(coding, plain)
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    with answering(bomb, headers) as (url, asked):
        tracemalloc.start()
        with suppress(ProviderError):  # or a job whose create is in doubt
            send(mugs.head(1), provider_at(kind, url), store)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert asked
    assert peak < 3 * most


HIDDEN = {
    "parameter": "query-key-1234",
    "header": "header-key-5678",
    "password": "pass word 90",
    "proxy's password": "proxy-pass-1234",
    "login's password": "login-pass-1234",
    "cookie": "cookie-key-1234",
}


def told_by(error: BaseException) -> str:
    """Return all that an error says and holds, with whatever is chained to it."""
    found, seen = [], set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found += [repr(error), str(error), repr(vars(error))]
        request = getattr(error, "request", None)
        found.append(repr(getattr(request, "headers", "")) + repr(getattr(request, "url", "")))
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return "\n".join(found)


@contextmanager
def gossiping(most: int = 390) -> Iterator[str]:
    """Serve refusals that repeat all that each request said of who asks, the key first."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # What a debugging gateway echoes, and what somebody writes who knows the login.
            login = self.headers.get("Authorization", "").removeprefix("Basic ")
            clear = (
                base64.b64decode(login).decode() if ":" not in login and "-" not in login else ""
            )
            heard = (
                f"Incorrect API key provided: {self.headers.get('Authorization')}. "
                f"{self.path} {dict(self.headers)} {clear} {' '.join(HIDDEN.values())}"
            )
            body = json.dumps({"error": {"message": heard[:most], "type": "x", "code": heard}})
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815 - http.server's naming

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("kind", KINDS)
def test_no_credential_is_told(kind: str, store: Path, mugs: pd.DataFrame) -> None:
    """Whatever a client shows who asks by, and a server echoes, is in no error and no file."""
    with gossiping() as origin:
        base = origin.replace("http://", "http://user:pass%20word%2090@")
        with httpx2.Client(
            params={"key": HIDDEN["parameter"]},
            headers={"X-Token": HIDDEN["header"]},
            cookies={"session": HIDDEN["cookie"]},
            auth=("somebody", HIDDEN["login's password"]),
            mounts={"https://": httpx2.HTTPTransport(proxy="http://u:proxy-pass-1234@localhost:9")},
        ) as client:
            provider = provider_at(kind, base, client)
            with pytest.raises(ProviderError) as caught:
                send(mugs, provider, store)

    files = "".join(p.read_text(errors="replace") for p in store.rglob("*") if p.is_file())
    shown = "".join(traceback.format_exception(caught.value)) + told_by(caught.value) + files
    assert "403" in shown
    for secret in (*HIDDEN.values(), "pass%20word%2090", KEY):
        assert secret not in shown + repr(provider), shown


ODD_KEYS = ['a/b"c+d%e', "it's<a>&key", r"back\slash/key==", "correcthorse", "open sesame 42"]


@pytest.mark.filterwarnings("ignore::frameenrich.FrameEnrichWarning")  # of a batch in doubt
@pytest.mark.parametrize("key", ODD_KEYS)
@pytest.mark.parametrize("kind", ["openai", "live", "anthropic"])
def test_a_key_is_hidden_in_every_form_that_it_is_written_in(
    kind: str, key: str, store: Path, mugs: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    """A server writes it as JSON, in a URL or in HTML; the report shows what it said."""
    caplog.set_level("DEBUG")
    forms = [key, quote(key, safe=""), quote_plus(key), quote(key, safe="").lower()]
    forms += [json.dumps(key)[1:-1], json.dumps(key)[1:-1].replace("/", r"\/"), html.escape(key)]
    reply = json.dumps({"error": {"message": f"No: {key}", "code": " ".join(forms)}})
    for status in (403, 200):  # what is refused, and a page where JSON was to come
        body = reply if status == 403 else f"<p>{' '.join(forms)}</p>"
        with answering(body.encode(), {"Content-Type": "application/json"}, status) as (url, _):
            try:
                job = send(mugs, provider_at(kind, url, key=key), store / f"{status}")
                said = repr(job) + job._repr_html_() + job.flagged().to_csv()
                job.report("page.html")
                said += Path("page.html").read_text()
            except FrameEnrichError as error:
                said = "".join(traceback.format_exception(error)) + told_by(error)
        said += "".join(p.read_text(errors="replace") for p in store.rglob("*") if p.is_file())
        said += caplog.text
        for form in forms:
            assert form not in said, (form, said)


@pytest.mark.parametrize("kind", ["callable", "Azure's token"])
def test_a_key_that_is_made_for_each_request_is_told_by_no_error(
    kind: str, store: Path, mugs: pd.DataFrame
) -> None:
    """No client keeps it: it is in the refused request alone."""
    made: list[str] = []

    def next_key() -> str:
        made.append(f"made-for-request-{len(made)}")
        return made[-1]

    with gossiping() as origin:
        if kind == "callable":
            client: Any = openai.OpenAI(api_key=next_key, base_url=f"{origin}/v1", max_retries=0)
        else:
            client = openai.AzureOpenAI(
                azure_ad_token_provider=next_key, azure_endpoint=origin, api_version="2024-10-21"
            )
        with pytest.raises(ProviderError) as caught:
            mugs.llmbatch.submit(ASK, "m", client=client, store=store)

    assert made
    assert "made-for-request" not in told_by(caught.value) + repr(client.base_url)


def test_the_sdks_own_options_are_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client is given by its SDK's own words, and a proxy's login in the environment."""
    monkeypatch.setenv("HTTPS_PROXY", "http://pu:env-proxy-pass@localhost:9")
    client = openai.OpenAI(
        api_key=KEY,
        base_url="http://localhost:9/v1?api-key=in-the-url-1234",
        organization="org-1234567",
        project="proj-1234567",
        default_query={"key": "sdk-query-1234"},
        default_headers={"X-Token": "sdk-header-1234"},
    )
    found = set(secrets_of(client))

    assert found >= {KEY, "env-proxy-pass", "in-the-url-1234", "org-1234567", "proj-1234567"}
    assert found >= {"sdk-query-1234", "sdk-header-1234"}


def test_a_short_key_mangles_no_word(store: Path, mugs: pd.DataFrame) -> None:
    """``x`` is the key of many local servers, and a letter of many reasons."""
    reason = json.dumps({"error": {"message": "The text exceeds the context.", "code": "x"}})
    with answering(reason.encode(), {"Content-Type": "application/json"}) as (url, _):
        client = openai.OpenAI(api_key="x", base_url=f"{url}/v1")
        try:
            provider = LiveProvider(client, attempts=2, wait_seconds=0.01)
            job = mugs.llmbatch.submit(ASK, "m", provider=provider, store=store)
            said = "".join(job.collect(mugs)["llmbatch_error"])
        except ProviderError as error:
            said = str(error)

    assert "exceeds the context" in said


# --- files ----------------------------------------------------------------------------------------


def test_pages_with_rows_are_for_their_owner_alone(
    store: Path, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """The report and the review's files hold what the store holds, which is 0700.

    So they do where an older file lay there that everybody could read.
    """
    names = ("report.html", "review.html", "review.csv", "old-report.html", "old-review.csv")
    before = os.umask(0)
    try:
        for name in names[3:]:
            (tmp_path / name).write_text("of an earlier day")
        job = mugs.llmbatch.submit(ASK, "m", provider="file", store=store)
        (tmp_path / "a.jsonl").write_bytes(answer_lines(job, "good", list(mugs.index)))
        job.import_responses(tmp_path / "a.jsonl")
        review = mugs.llmbatch.review(job, n=2)
        for name in names:
            if "report" in name:
                job.report(tmp_path / name)
            elif name.endswith(".csv"):
                review.to_csv(tmp_path / name)
            else:
                review.page(tmp_path / name)
    finally:
        os.umask(before)

    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names}
    assert modes == dict.fromkeys(names, 0o600)


BEFORE = [
    *(
        "",
        " ",
        "\u00a0",
        "\ufeff",
        "  \u200b",
        "\u3000",
        "\u00ad",
        "\u061c",
        "\u180e",
        "\u2028",
        "\u3164",
    ),
    *("\u2800", "\u200e\u202e", "\u2066"),
]


@pytest.mark.parametrize(
    "sign", ["=", "+", "-", "@", "\uff1d", "\uff0b", "\ufe66", "\t", "\v=", "\0=", "\x85="]
)
@pytest.mark.parametrize("before", BEFORE)
def test_no_mark_before_a_formula_lets_it_run(before: str, sign: str) -> None:
    """Spreadsheets pass over blanks and marks that nobody sees."""
    assert without_formula(f"{before}{sign}1+1") == f"'{before}{sign}1+1"
    assert without_formula(f"{before}plain") == f"{before}plain"


def test_a_picture_of_a_gigabyte_is_not_decoded() -> None:
    """140 kB of PNG may be 30,000 pixels square; its size is known before they are made."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    side = 12_000  # below what Pillow itself refuses
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0" * (side + 1) * side, 9))
    png = b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")

    assert thumbnail(f"data:image/png;base64,{base64.b64encode(png).decode()}") is None
