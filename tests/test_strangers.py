"""Somebody else's store, server and file: nothing is fetched, filled or told that should not be."""

from __future__ import annotations

import base64
import gzip
import http.server
import json
import os
import stat
import struct
import threading
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pyarrow.parquet as pq
import pytest
from batch_server import BatchServer
from conftest import answer_lines

import frameenrich
from frameenrich.cli.tables.records import without_formula
from frameenrich.errors import FrameEnrichError, OutputError, ProviderError
from frameenrich.providers.credentials import secrets_of
from frameenrich.providers.guard import MOST_BYTES
from frameenrich.providers.live.provider import LiveProvider
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.rendering.thumbnails import thumbnail

ASK = "Sort {{ title }}"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@contextmanager
def answering(body: bytes, headers: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Serve one answer to everything; gives the URL, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
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


@pytest.mark.filterwarnings("ignore::frameenrich.FrameEnrichWarning")  # which names it
def test_a_deep_batch_file_hides_no_other_job(store: Path, mugs: pd.DataFrame) -> None:
    """20,000 brackets are damage of one job, and no `RecursionError` of all."""
    job = mugs.llmbatch.submit(ASK, "m", provider="file", store=store)
    mugs.llmbatch.submit("Price {{ title }}", "m", name="other", provider="file", store=store)
    Path(job.path, "round-0", "shard-00000.batch.json").write_text("[" * 20_000 + "]" * 20_000)

    assert set(frameenrich.jobs(store=store)["job"]) >= {job.id}
    assert len(frameenrich.jobs(store=store)) == 2


# --- a server -------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["openai", "live"])
def test_a_reply_that_bursts_is_not_held(provider: str, store: Path, mugs: pd.DataFrame) -> None:
    """A small reply that would fill the memory ends as a broken one."""
    bomb = gzip.compress(b'{"id": "' + b"x" * (3 * MOST_BYTES) + b'"}', 9)
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    with (
        answering(bomb, headers) as (url, _),
        openai.OpenAI(api_key="sk-test", base_url=f"{url}/v1") as client,
    ):
        kind: Any = OpenAIBatch if provider == "openai" else LiveProvider
        with pytest.raises(ProviderError, match=r"Connection error|longer than"):
            mugs.llmbatch.submit(ASK, "m", provider=kind(client, attempts=1), store=store)


KEYS = {"default_query": "query-key-1234", "header": "header-key-5678", "password": "pass word 90"}


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


@pytest.mark.parametrize("provider", ["openai", "live"])
def test_no_credential_is_told(
    provider: str, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Whatever a client shows who asks by, and a server echoes, is in no error and no file."""
    base = server.base_url.replace("http://", "http://user:pass%20word%2090@")
    client = openai.OpenAI(
        api_key="sk-secret-key",
        base_url=base,
        default_query={"key": KEYS["default_query"]},
        default_headers={"X-Token": KEYS["header"]},
    )
    server.faults.add("http_503", times="always")

    assert {*KEYS.values(), "sk-secret-key"} <= set(secrets_of(client))
    kind: Any = OpenAIBatch if provider == "openai" else LiveProvider
    with pytest.raises(ProviderError) as caught:
        mugs.llmbatch.submit(ASK, "m", provider=kind(client, attempts=1), store=store)

    files = "".join(p.read_text(errors="replace") for p in store.rglob("*") if p.is_file())
    shown = "".join(traceback.format_exception(caught.value)) + told_by(caught.value) + files
    for secret in (*KEYS.values(), "pass%20word%2090", "sk-secret-key"):
        assert secret not in shown


def test_a_short_key_mangles_no_word(store: Path, mugs: pd.DataFrame) -> None:
    """``x`` is the key of many local servers, and a letter of many reasons."""
    reason = json.dumps({"error": {"message": "The text exceeds the context.", "code": "x"}})
    with answering(reason.encode(), {"Content-Type": "application/json"}) as (url, _):
        client = openai.OpenAI(api_key="x", base_url=f"{url}/v1")
        try:
            job = mugs.llmbatch.submit(ASK, "m", provider="live", client=client, store=store)
            said = "".join(job.collect(mugs)["llmbatch_error"])
        except ProviderError as error:
            said = str(error)

    assert "exceeds the context" in said


# --- files ----------------------------------------------------------------------------------------


def test_pages_with_rows_are_for_their_owner_alone(
    store: Path, mugs: pd.DataFrame, tmp_path: Path
) -> None:
    """The report and the review page hold what the store holds, which is 0700."""
    before = os.umask(0)
    try:
        job = mugs.llmbatch.submit(ASK, "m", provider="file", store=store)
        (tmp_path / "a.jsonl").write_bytes(answer_lines(job, "good", list(mugs.index)))
        job.import_responses(tmp_path / "a.jsonl")
        pages = [job.report(tmp_path / "report.html")]
        pages.append(mugs.llmbatch.review(job, n=2).page(tmp_path / "review.html"))
    finally:
        os.umask(before)

    assert [stat.S_IMODE(path.stat().st_mode) for path in pages] == [0o600, 0o600]


@pytest.mark.parametrize("before", ["", " ", "\u00a0", "\ufeff", "  \u200b", "\u3000"])
def test_no_mark_before_a_formula_lets_it_run(before: str) -> None:
    """Spreadsheets pass over blanks and marks that nobody sees."""
    assert without_formula(f"{before}=1+1") == f"'{before}=1+1"
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
