"""The main job end to end: frames go to a real server and come back whole."""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any, Literal

import openai
import pandas as pd
import pytest
import warm
from audit import reach
from batch_server import BatchServer, Reply, pick, user_text
from conftest import DEPARTMENTS, ROOT, status_counts, tagged
from pydantic import BaseModel, Field
from reviews import answered

import frameenrich
from frameenrich.errors import (
    ColumnCollisionError,
    FrameEnrichWarning,
    FrameMismatchError,
    JobNotFoundError,
    OutputError,
    ParameterError,
    ResponsesError,
    StoreError,
    WaitTimeoutError,
)
from frameenrich.model import Limits
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.store.listing import newest_job

IMDB = ROOT.parent / "shared" / "data" / "imdb_top_1000.csv"
ASK = "Which department sells {{ title }}?"


def echo(title: str) -> str:
    """What the server answers to `ASK` where nothing goes wrong."""
    return f"echo: Which department sells {title}?"


def test_every_row_of_a_thousand_gets_its_own_answer_or_its_own_reason(
    client: openai.OpenAI, store: Path, tmp_path: Path, server: BatchServer
) -> None:
    """Promises 1 and 2: shuffled, partly failed, partly malformed; re-read, sorted, filtered."""
    numbers = range(1000)
    frame = pd.DataFrame({"title": [f"thing {n}" for n in numbers], "n": numbers})
    frame.index = pd.Index([f"T-{n:04d}" for n in numbers], name="sku")
    server.faults.add("malformed", fraction=0.1, seed=1, content="no label of ours")
    server.faults.add("http_error", fraction=0.1, seed=2)
    server.faults.add("missing", fraction=0.05, seed=3)
    frame.llmbatch.submit(
        ASK, "gpt-4o-mini", labels=DEPARTMENTS, client=client, store=store, confirm_seconds=0.02
    )
    frame.to_csv(tmp_path / "again.csv")

    again = pd.read_csv(tmp_path / "again.csv", index_col="sku")
    shown = again.sort_values("title", ascending=False).query("n % 3 != 0")
    out = shown.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert list(out.index) == list(shown.index)
    assert list(out.columns) == ["title", "n", "llmbatch", "llmbatch_status", "llmbatch_error"]
    wanted = [pick(DEPARTMENTS, f"Which department sells {title}?") for title in out["title"]]
    ok = out["llmbatch_status"] == "ok"
    assert out["llmbatch"][ok].tolist() == [w for w, fine in zip(wanted, ok, strict=True) if fine]
    assert out["llmbatch"][~ok].isna().all()
    assert out["llmbatch_error"][~ok].notna().all()
    assert out["llmbatch_error"][ok].isna().all()
    assert set(status_counts(out)) == {"ok", "malformed", "failed", "missing"}
    assert 450 < ok.sum() < 600


def test_a_new_process_with_the_re_read_csv_collects(
    client: openai.OpenAI, store: Path, products: pd.DataFrame, server: BatchServer
) -> None:
    """Closing Python between submit and collect is normal."""
    products.llmbatch.submit(
        ASK, "gpt-4o-mini", key="sku", name="dept", labels=DEPARTMENTS, client=client, store=store
    )
    script = (
        "import sys, pandas as pd, frameenrich\n"
        "df = pd.read_csv(sys.argv[1]).sample(frac=1, random_state=7)\n"
        "out = df.llmbatch.collect(wait=True, poll_seconds=0.01, store=sys.argv[2])\n"
        "out.to_parquet(sys.argv[3])\n"
    )
    result = store.parent / "out.parquet"

    csv = str(ROOT / "sample_data" / "products.csv")
    done = warm.run(
        [sys.executable, "-c", script, csv, str(store), str(result)],
        env={"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": server.base_url, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    out = pd.read_parquet(result)
    assert out["dept_status"].tolist() == ["ok"] * 200
    wanted = [pick(DEPARTMENTS, f"Which department sells {title}?") for title in out["title"]]
    assert out["dept"].tolist() == wanted


@pytest.mark.skipif(not IMDB.exists(), reason="shared/ is not beside this checkout")
def test_imdb_goes_through_submit_and_collect(client: openai.OpenAI, store: Path) -> None:
    """Real data with nulls, commas and accents: 1,000 rows, each with its own plot's answer."""
    frame = pd.read_csv(IMDB)
    template = (
        "{{ Series_Title }} ({{ Released_Year }}, {{ Meta_score or 'unrated' }}): {{ Overview }}"
    )

    frame.llmbatch.submit(template, "gpt-4o-mini", name="plot", client=client, store=store)
    out = frame.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert status_counts(out, "plot") == {"ok": 1000}
    for row in out.itertuples():
        assert row.plot.startswith(f"echo: {row.Series_Title} ({row.Released_Year}, ")
        assert row.plot.endswith(row.Overview)


@pytest.mark.parametrize(
    "index",
    [
        pd.Index([7, -1, 3, 0]),
        pd.date_range("2024-02-27", periods=4),
        pd.MultiIndex.from_tuples([(1, "a"), (1, "b"), (2, "a"), (-2, "z/9")]),
        pd.Index(["b", "a b", "ü", "z" * 80]),
        pd.Index([1.5, 2.0, -0.5, 3.25]),
    ],
    ids=["unsorted ints", "dates", "tuples", "texts", "floats"],
)
def test_any_unique_index_names_rows(
    index: pd.Index, client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """Promise 2: the index may be strings, dates, tuples, negative or unsorted."""
    frame = mugs.set_axis(index)
    frame.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)

    turned = frame.iloc[::-1]
    out = turned.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    pd.testing.assert_index_equal(out.index, turned.index)
    assert out["llmbatch"].tolist() == [echo(title) for title in turned["title"]]


def test_rows_that_the_job_never_saw_are_na(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """Promise 2: a frame with more rows than the job keeps them, with ``<NA>``."""
    mugs.iloc[:2].llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)

    out = mugs.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert out["llmbatch_status"].tolist() == ["ok", "ok", pd.NA, pd.NA]
    assert out["llmbatch"].isna().tolist() == [False, False, True, True]


def test_a_frame_that_changed_under_its_keys_is_refused(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """Promise 2: `reset_index` after a sort raises instead of merging, with count and example."""
    frame = mugs.reset_index(drop=True)
    job = frame.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)
    moved = frame.sort_values("title").reset_index(drop=True)

    with pytest.raises(FrameMismatchError, match="4 of the frame's rows changed") as caught:
        moved.llmbatch.collect(client=client, store=store)
    with pytest.raises(FrameMismatchError, match="4 of the frame's rows changed"):
        moved.llmbatch.collect(job)

    assert vars(caught.value) | {"job_id": job.id, "count": 4} == vars(caught.value)


def test_a_frame_of_other_keys_finds_no_job(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """`collect` never guesses: no job has these keys, or the named job has none of them."""
    job = mugs.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)
    other = mugs.set_axis(["Z1", "Z2", "Z3", "Z4"])

    with pytest.raises(JobNotFoundError, match="no job for this frame"):
        other.llmbatch.collect(store=store)
    with pytest.raises(FrameMismatchError, match="None of the frame's 4 keys"):
        other.llmbatch.collect(job)
    with pytest.raises(FrameMismatchError, match="lacks the key"):
        mugs[[]].assign(x=1).llmbatch.collect(job)


def test_a_key_column_that_went_into_the_index_is_named(store: Path) -> None:
    """After `set_index` the job is there, and its key: the error says how to make one of both."""
    frame = pd.DataFrame({"sku": ["A1", "A2"], "title": ["mug", "jug"]})
    job = frame.llmbatch.submit("{{ title }}", "m", provider="file", key="sku", store=store)

    with pytest.raises(JobNotFoundError) as caught:
        frame.set_index("sku").llmbatch.collect(store=store)

    assert caught.value.fix == (
        f"The job {job.id} goes by the column 'sku', which is in the frame's index: "
        "collect on frame.reset_index('sku')."
    )


def test_the_newest_job_of_the_frame_is_collected(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """With ``job=None`` the newest job that was made for the frame counts, others are passed."""
    mugs.llmbatch.submit(ASK, "gpt-4o-mini", name="old", client=client, store=store)
    mugs.llmbatch.submit(ASK, "gpt-4o-mini", name="new", client=client, store=store)
    other = mugs.assign(title="x")
    other.llmbatch.submit(ASK, "gpt-4o-mini", name="other", client=client, store=store)

    with pytest.warns(FrameEnrichWarning, match="newest job other-.*older job new-"):
        out = mugs.llmbatch.collect(client=client, store=store)

    assert "new" in out.columns
    assert "new" in frameenrich.jobs(store)["name"].tolist()
    assert len(frameenrich.jobs(store)) == 3


def test_the_same_submit_again_is_the_same_job(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Promise 3: nothing is sent twice, whatever the order of the rows; ``fresh=True`` is new."""
    job = mugs.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)
    again = mugs.iloc[::-1].llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)
    fresh = mugs.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store, fresh=True)

    assert again.id == job.id
    assert fresh.id != job.id
    assert server.count("POST", "/v1/batches") == 2


def test_equal_rows_are_asked_once_and_answered_all(
    client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """Promise 3: identical requests inside a job are sent once and fanned out."""
    frame = pd.DataFrame({"title": ["mug", "hose", "mug", "mug"]})
    frame.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)

    out = frame.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert out["llmbatch"].tolist() == [echo(title) for title in frame["title"]]
    assert sum(server.executed.values()) == 2


class Spec(BaseModel):
    """A nested part."""

    width: int = Field(ge=0)


class Answer(BaseModel):
    """One of each column type."""

    material: str
    size: Literal["S", "M", "L"]
    count: int
    price: float
    new: bool
    tags: list[str]
    spec: Spec
    note: str | None = None


WANTED_DTYPES = {
    "material": "string",
    "size": "category",
    "count": "Int64",
    "price": "Float64",
    "new": "boolean",
    "tags": "object",
    "spec": "object",
    "note": "string",
}


@pytest.mark.parametrize("broken", [False, True], ids=["answered", "all flagged"])
def test_a_response_model_becomes_typed_columns(
    broken: bool, client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Types are pandas' own, the same when every row is flagged, and survive Parquet."""
    if broken:
        server.faults.add("malformed", content="{")
    mugs.llmbatch.submit(
        ASK, "gpt-4o-mini", response_model=Answer, prefix="p_", client=client, store=store
    )

    out = mugs.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)
    out.to_parquet(store.parent / "out.parquet")
    again = pd.read_parquet(store.parent / "out.parquet")

    dtypes = {name: str(out[f"p_{name}"].dtype) for name in WANTED_DTYPES}
    assert dtypes == WANTED_DTYPES
    assert {name: str(again[f"p_{name}"].dtype) for name in WANTED_DTYPES} == WANTED_DTYPES
    assert list(out["p_size"].cat.categories) == ["S", "M", "L"]
    assert status_counts(out) == ({"malformed": 4} if broken else {"ok": 4})
    if not broken:
        assert isinstance(out["p_spec"].iloc[0], dict)
        assert isinstance(out["p_tags"].iloc[0], list)


def test_stored_answers_are_read_anew_for_nothing(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Promise 5: a parser given at collect reads the raw answers again; no request is made."""
    job = mugs.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)
    job.wait(poll_seconds=0.01)
    calls = len(server.requests)

    def last_words(text: str) -> dict[str, Any]:
        if "phone" in text:
            raise ValueError("phones have no words")
        return {"thing": text.rstrip("?").split()[-1], "length": len(text)}

    out = mugs.llmbatch.collect(job, parser=last_words)

    assert out["thing"].tolist() == ["mug", "hose", "sock", pd.NA]
    assert out["llmbatch_error"].tolist() == [pd.NA, pd.NA, pd.NA, "phones have no words"]
    assert len(server.requests) == calls


def test_a_parser_of_another_session_is_asked_for(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """A parser is code, and code is not stored: collect says to pass it again."""
    job = mugs.llmbatch.submit(ASK, "gpt-4o-mini", parser=len, client=client, store=store)
    job.wait(poll_seconds=0.01)
    reopened = frameenrich.open_job(job.id, store, client=client)

    assert job.collect(mugs)["llmbatch"].tolist() == [len(echo(t)) for t in mugs["title"]]
    with pytest.raises(OutputError, match="Pass it again"):
        reopened.collect(mugs)
    assert reopened.collect(mugs, parser=str.upper)["llmbatch"].iloc[0] == echo("Red mug").upper()


def test_collect_before_the_end_is_pending_and_again_replaces(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """`df = df.llmbatch.collect()` while it runs, and again later, is the normal notebook."""
    server.hold("in_progress")
    mugs.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)

    early = mugs.llmbatch.collect(client=client, store=store)
    server.release()
    late = early.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)
    same = late.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)

    assert status_counts(early) == {"pending": 4}
    assert list(late.columns) == list(early.columns)
    assert status_counts(late) == {"ok": 4}
    assert server.count("POST", "/v1/batches") == 1
    assert same.collect(mugs).equals(late)


def test_usage_columns(client: openai.OpenAI, store: Path, mugs: pd.DataFrame) -> None:
    """``usage=True`` says what each answer took and what exactly came."""
    mugs.llmbatch.submit(ASK, "gpt-4o-mini", name="a", client=client, store=store)

    out = mugs.llmbatch.collect(
        wait=True, poll_seconds=0.01, usage=True, client=client, store=store
    )

    first = out.iloc[0]
    assert first["a_model"] == "gpt-4o-mini"
    assert first["a_attempt"] == 1
    assert first["a_prompt_tokens"] > 0
    assert first["a_completion_tokens"] > 0
    assert first["a_finish_reason"] == "stop"
    assert re.fullmatch(r"row-A1-[0-9a-f]{6}", first["a_custom_id"])
    assert first["a_raw"] == first["a"]


def test_flagged_rows_and_regenerate(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Flagged rows are shown with reason and raw answer, sent again with feedback, and add up."""
    server.faults.add("malformed", where=["row-A2"], content="no idea")
    server.faults.add("http_error", where=["row-A3"])
    job = mugs.llmbatch.submit(ASK, "m", labels=DEPARTMENTS, client=client, store=store)
    out = job.wait(poll_seconds=0.01).collect(mugs)

    bad = mugs.llmbatch.flagged(store=store)
    again = mugs.llmbatch.regenerate(store=store, client=client).wait(poll_seconds=0.01)
    better = mugs.llmbatch.collect(store=store, usage=True)

    assert bad[["status", "raw", "attempt"]].to_dict("index") == {
        "A2": {"status": "malformed", "raw": "no idea", "attempt": 1},
        "A3": {"status": "failed", "raw": bad["raw"].iloc[1], "attempt": 1},
    }
    assert again.id == job.id
    assert status_counts(out) == {"ok": 2, "malformed": 1, "failed": 1}
    assert status_counts(better) == {"ok": 4}
    assert better["llmbatch_attempt"].tolist() == [1, 2, 2, 1]
    assert better["llmbatch"].iloc[[0, 3]].equals(out["llmbatch"].iloc[[0, 3]])
    assert server.executed == {
        "row-A1": 1, "row-A2": 1, "row-A3": 1, "row-A4": 1, "r1-row-A2": 1, "r1-row-A3": 1,
    }  # fmt: skip
    sent = server.content(list(server.files.values())[-2]["id"]).decode()
    assert "no idea" in sent
    assert "is not one of the 5 labels" in sent


@pytest.mark.parametrize("key", ["status", "error", "raw", "attempt", "prompt", "history"])
def test_a_key_called_like_a_column_of_flagged_makes_room(key: str, store: Path) -> None:
    """No two columns have one name: ours keep theirs, the key's says that it is the key."""
    frame = pd.DataFrame({"title": ["a", "b"], key: ["k1", "k2"]})
    job = answered(frame, ["Toys", "?"], store, labels=["Toys", "Food"], key=key)

    bad = frame.llmbatch.flagged(job)

    ours = ["status", "error", "raw", "attempt", "prompt", "history"]
    assert list(bad.columns) == [f"key {key}", *ours]
    assert bad[f"key {key}"].tolist() == ["k2"]
    assert bad["status"].tolist() == ["malformed"]
    assert "k2" in job.show_flagged().to_html()


def test_regenerate_with_nothing_flagged_sends_nothing(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """No flagged row, no round; a status that is none is refused."""
    job = mugs.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)
    job.wait(poll_seconds=0.01).regenerate()

    assert server.count("POST", "/v1/batches") == 1
    with pytest.raises(ParameterError, match="'broken', which is not a flagged status"):
        job.regenerate(statuses=["broken"])


def test_preview_shows_requests_and_sends_nothing(
    mugs: pd.DataFrame, store: Path, server: BatchServer
) -> None:
    """`preview` needs no key, writes no store, and shows what would be sent."""
    shown = mugs.llmbatch.preview(
        ASK, "gpt-4o-mini", n=2, system="Be brief.", labels=DEPARTMENTS, params={"temperature": 0}
    )

    key, body = shown.requests[0]
    assert (key, len(shown.requests)) == ("'A1'", 2)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Which department sells Red mug?"},
    ]
    assert body["temperature"] == 0
    assert body["response_format"]["json_schema"]["strict"] is True
    assert shown.columns == ("llmbatch", "llmbatch_status", "llmbatch_error")
    assert "Which department sells Blue hose?" in str(shown)
    assert server.requests == []


def test_a_model_cannot_stop_the_other_rows_by_what_it_calls_its_keys(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """A parser's keys are often the model's words; one that is ours flags its own row."""

    def answer(body: dict[str, Any], custom_id: str) -> Reply:
        del body
        return Reply(content='{"llmbatch_status": "ok"}' if custom_id == "row-A2" else '{"n": 1}')

    server.answer = answer
    job = mugs.llmbatch.submit(ASK, "m", parser=json.loads, client=client, store=store)

    out = mugs.llmbatch.collect(job, wait=True, poll_seconds=0.01)

    assert out["llmbatch_status"].tolist() == ["ok", "malformed", "ok", "ok"]
    assert "'llmbatch_status' is reserved for the row's" in out["llmbatch_error"].iloc[1]
    assert out["n"].tolist() == [1, pd.NA, 1, 1]


def test_a_preview_says_what_renders_row_by_row(mugs: pd.DataFrame) -> None:
    """Why, in what is printed and shown; of a template that renders together nothing is said."""
    shown = mugs.llmbatch.preview("{% block ask %}{{ title }}?{% endblock %}", "m")
    quick = mugs.llmbatch.preview(ASK, "m")

    assert shown.slow == "inheritance"
    assert "renders row by row, some five times slower: inheritance" in str(shown)
    assert quick.slow is None
    assert "row by row" not in str(quick)


def test_messages_file_templates_and_parameters_reach_the_request(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer, tmp_path: Path
) -> None:
    """A .j2 file with an include, a list of messages, `params` and `extra_body` are all sent."""
    (tmp_path / "ask.j2").write_text("{% include 'head.txt' %} {{ title }}")
    (tmp_path / "head.txt").write_text("Sort:")
    turns = [
        {"role": "developer", "content": "Sort {{ title }}"},
        {"role": "user", "content": "Go"},
    ]

    mugs.llmbatch.submit(tmp_path / "ask.j2", "m", client=client, store=store, name="file")
    job = mugs.llmbatch.submit(
        turns,
        "m",
        client=client,
        store=store,
        params={"temperature": 0.5, "extra_body": {"top_k": 3}},
    )

    lines = Path(job.requests[0]).read_text().splitlines()
    assert pd.read_json(job.requests[0], lines=True)["custom_id"].tolist()[0] == tagged(
        job, "row-A1"
    )
    assert '"messages":[{"role":"developer","content":"Sort Red mug"}' in lines[0]
    assert '"temperature":0.5,"top_k":3' in lines[0]
    out = mugs.llmbatch.collect(job, wait=True, poll_seconds=0.01)
    assert out["llmbatch"].iloc[0] == "echo: Go"
    jobs = frameenrich.jobs(store)
    file_job = frameenrich.open_job(
        jobs["job"][jobs["name"] == "file"].iloc[0], store, client=client
    )
    assert (
        file_job.collect(mugs, wait=True, poll_seconds=0.01)["file"].iloc[1]
        == "echo: Sort: Blue hose"
    )


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/completions"])
def test_other_text_endpoints(
    endpoint: str, client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """The Responses API and plain completions go the same way."""
    mugs.llmbatch.submit(ASK, "m", endpoint=endpoint, client=client, store=store)

    out = mugs.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert out["llmbatch"].tolist() == [echo(title) for title in mugs["title"]]
    assert {batch["endpoint"] for batch in server.batches.values()} == {endpoint}


def test_azure_clients_speak_the_classic_dialect(store: Path, mugs: pd.DataFrame) -> None:
    """A ready AzureOpenAI client works: other URLs, zero-byte error files."""
    with (
        BatchServer(azure=True) as server,
        openai.AzureOpenAI(
            api_key="k", azure_endpoint=server.origin, api_version="2024-10-21"
        ) as client,
    ):
        mugs.llmbatch.submit(ASK, "my-deployment", client=client, store=store)
        out = mugs.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

        assert {batch["endpoint"] for batch in server.batches.values()} == {"/chat/completions"}
    assert out["llmbatch"].tolist() == [echo(title) for title in mugs["title"]]


def test_the_file_provider_round_trip(store: Path, mugs: pd.DataFrame, tmp_path: Path) -> None:
    """The JSONL is written, somebody else answers a part, and the rest is missing, not lost."""
    job = mugs.llmbatch.submit(ASK, "any", provider="file", store=store)
    waiting = mugs.llmbatch.collect(store=store)
    answers = tmp_path / "answers.jsonl"
    answers.write_text(
        f'{{"custom_id":"{tagged(job, "row-A3")}","response":{{"status_code":200,"body":'
        '{"choices":[{"message":{"content":"Clothing"}}]}},"error":null}\n'
        f'{{"custom_id":"{tagged(job, "row-ZZ")}","response":null}}\n'
    )

    out = job.import_responses(answers).import_responses(answers).collect(mugs)

    assert Path(job.requests[0]).read_bytes().count(b"\n") == 4
    assert status_counts(waiting) == {"pending": 4}
    assert out["llmbatch"].tolist() == [pd.NA, pd.NA, "Clothing", pd.NA]
    assert out["llmbatch_status"].tolist() == ["missing", "missing", "ok", "missing"]
    strange = tmp_path / "strange.jsonl"
    strange.write_text('{"custom_id":"nobody","response":null}\n')
    with pytest.raises(ResponsesError, match="No line of"):
        job.import_responses(strange)
    with pytest.raises(ResponsesError, match="cannot be read"):
        job.import_responses(tmp_path / "absent.jsonl")


def imported_line(custom_id: str, text: str) -> bytes:
    """A line of an output file."""
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    body = {"choices": [choice]}
    response = {"status_code": 200, "body": body}
    return (
        json.dumps({"custom_id": custom_id, "response": response, "error": None}).encode() + b"\n"
    )


def test_an_import_while_the_batch_runs_loses_nothing(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer, tmp_path: Path
) -> None:
    """Promise 4: what was imported stays, and what the batch brings home is added to it."""
    server.hold("in_progress")
    provider = OpenAIBatch(client, wait_seconds=0.01)
    job = mugs.llmbatch.submit(ASK, "m", provider=provider, store=store)
    answers = tmp_path / "answers.jsonl.gz"
    answers.write_bytes(gzip.compress(imported_line(tagged(job, "row-A3"), "Imported")))

    early = job.import_responses(answers).collect(mugs)
    server.release()
    out = job.collect(mugs, wait=True, poll_seconds=0.01)

    assert status_counts(early) == {"ok": 1, "pending": 3}
    assert early["llmbatch"].tolist()[2] == "Imported"
    assert status_counts(out) == {"ok": 4}
    assert out["llmbatch"].tolist()[2] == "Imported"
    assert set(server.executed.values()) == {1}
    assert b"Imported" in b"".join(job._session.job().shards(0)[0].read_responses())


def test_an_import_of_all_answers_ends_a_batch(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer, tmp_path: Path
) -> None:
    """However many files they come in; the counts are those of the lines."""
    server.hold("in_progress")
    job = mugs.llmbatch.submit(ASK, "m", client=client, store=store)
    for part in (mugs.index[:1], mugs.index[1:]):
        path = tmp_path / "answers.jsonl"
        path.write_bytes(
            b"".join(imported_line(tagged(job, f"row-{key}"), f"of {key}") for key in part)
        )
        job.import_responses(path)

    status = job.status()
    out = job.collect(mugs)

    assert status.ended
    assert "4 of 4" in str(status)
    assert out["llmbatch"].tolist() == [f"of {key}" for key in mugs.index]


def test_an_import_of_errors_does_not_end_a_running_batch(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer, tmp_path: Path
) -> None:
    """Promise 4: what it brings home is paid for, and better than what was imported."""
    server.hold("in_progress")
    provider = OpenAIBatch(client, wait_seconds=0.01)
    job = mugs.llmbatch.submit(ASK, "m", provider=provider, store=store)
    error = {"response": {"status_code": 500, "body": {}}, "error": None}
    lines = [json.dumps({"custom_id": tagged(job, f"row-{key}"), **error}) for key in mugs.index]
    (tmp_path / "errors.jsonl").write_text("\n".join(lines))

    early = job.import_responses(tmp_path / "errors.jsonl").status()
    server.release()
    out = job.collect(mugs, wait=True, poll_seconds=0.01)

    assert not early.ended
    assert status_counts(out) == {"ok": 4}
    assert set(server.executed.values()) == {1}


@pytest.mark.parametrize("name", ["requests.jsonl", "*"])
def test_files_that_a_job_lost_are_told_not_taken_for_rows_status(
    name: str, client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Else rows that were paid for would be `missing`, or `skipped`, and asked again."""
    provider = OpenAIBatch(client, wait_seconds=0.01)
    provider.limits = Limits(max_requests=2)
    job = mugs.llmbatch.submit(ASK, "m", provider=provider, store=store)
    job.wait(poll_seconds=0.01)
    for path in Path(job.path, "round-0").glob(f"shard-00001.{name}"):
        path.unlink()

    with pytest.raises(StoreError, match=r"shard-00001.*it is not there"):
        job.collect(mugs)
    with pytest.raises(StoreError, match=r"shard-00001.*it is not there"):
        job.regenerate()

    assert set(server.executed.values()) == {1}


def test_no_rows_are_collected_as_no_rows(store: Path, mugs: pd.DataFrame) -> None:
    """A filter may leave nothing; the columns are there, with their types."""
    job = mugs.llmbatch.submit(ASK, "m", labels=DEPARTMENTS, provider="file", store=store)

    out = mugs.iloc[:0].llmbatch.collect(job)

    assert len(out) == 0
    assert out.dtypes.to_dict() == mugs.llmbatch.collect(job).dtypes.to_dict()


def test_a_round_is_not_sent_to_what_is_no_model(store: Path, mugs: pd.DataFrame) -> None:
    """As `submit` refuses it."""
    job = mugs.llmbatch.submit(ASK, "m", provider="file", store=store)

    for model, says in (("", "model= is empty"), (5, "model= is 5, which names no model")):
        with pytest.raises(ParameterError, match=says):
            job.regenerate(model=model)


def test_cancel_keeps_what_was_answered(
    client: openai.OpenAI, store: Path, products: pd.DataFrame, server: BatchServer
) -> None:
    """Promise 4: partial output of a cancelled batch is merged, the rest is ``cancelled``."""
    server.hold("in_progress")
    job = products.llmbatch.submit(ASK, "m", key="sku", client=client, store=store)
    job.status()
    job.cancel()
    server.release()

    out = products.llmbatch.collect(job, wait=True, poll_seconds=0.01)

    counts = status_counts(out)
    assert set(counts) == {"ok", "cancelled"}
    assert sum(counts.values()) == 200


def test_a_batch_that_never_ends_times_out_with_a_handle(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """Fact 13: the user gets a deadline, the job's id, and loses nothing."""
    server.hold("in_progress")
    job = mugs.llmbatch.submit(ASK, "m", client=client, store=store)
    reach("in_progress", job)

    with pytest.raises(WaitTimeoutError, match=f"{job.id} was still in_progress") as caught:
        mugs.llmbatch.collect(
            wait=True, timeout=0.05, poll_seconds=0.01, client=client, store=store
        )

    assert vars(caught.value)["job_id"] == job.id
    server.release()
    assert status_counts(job.wait(poll_seconds=0.01).collect(mugs)) == {"ok": 4}


def test_status_and_handles(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame, server: BatchServer
) -> None:
    """`status` looks and touches nothing; handles and previews show themselves, escaped."""
    job = mugs.llmbatch.submit(ASK, "<b>m</b>", client=client, store=store)

    first = mugs.llmbatch.status(store=store, client=client)
    job.wait(poll_seconds=0.01)
    last = job.status()

    assert (first.id, first.ended, first.requests) == (job.id, False, 4)
    assert (last.ended, last.completed, last.failed) == (True, 4, 0)
    assert str(last) == f"{job.id}: completed; 4 of 4 requests done"
    assert repr(job) == f"<Job {job.id}: <b>m</b> through openai, completed>"
    assert "<b>m</b>" not in job._repr_html_()
    assert mugs.llmbatch.jobs(store=store)["settled"].tolist() == [True]


def test_a_job_without_a_frame_has_its_keys(
    client: openai.OpenAI, store: Path, products: pd.DataFrame
) -> None:
    """`job.collect()` gives key and output columns, typed as the key was."""
    job = products.llmbatch.submit(ASK, "m", key="sku", client=client, store=store)

    out = job.wait(poll_seconds=0.01).collect()

    assert list(out.columns) == ["sku", "llmbatch", "llmbatch_status", "llmbatch_error"]
    assert out["sku"].tolist() == products["sku"].tolist()


def test_skipped_rows_are_not_sent(
    client: openai.OpenAI, store: Path, products: pd.DataFrame, server: BatchServer
) -> None:
    """``on_null="skip"`` leaves rows out that would print a null; they say so."""
    ask = "{{ title }} by {{ brand }}"
    products.llmbatch.submit(ask, "m", key="sku", on_null="skip", client=client, store=store)

    out = products.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert out["llmbatch_status"].eq("skipped").tolist() == products["brand"].isna().tolist()
    assert status_counts(out) == {"ok": 169, "skipped": 31}


def test_a_column_that_came_later_is_not_overwritten(
    client: openai.OpenAI, store: Path, mugs: pd.DataFrame
) -> None:
    """A user's own column is safe at collect too, whatever name an answer has."""
    job = mugs.llmbatch.submit(ASK, "m", client=client, store=store).wait(poll_seconds=0.01)
    later = mugs.assign(llmbatch="mine")

    with pytest.raises(ColumnCollisionError, match="has a column 'llmbatch'"):
        later.llmbatch.collect(job)
    with pytest.warns(FrameEnrichWarning, match="theirs is 'llmbatch_title'"):
        out = mugs.llmbatch.collect(job, parser=lambda text: {"title": text})
    assert out["title"].tolist() == mugs["title"].tolist()
    assert out["llmbatch_title"].notna().all()


def test_a_schema_that_cannot_be_strict_is_told_at_once(mugs: pd.DataFrame) -> None:
    """What the provider cannot be kept to is said where it is asked for, and asked all the same."""
    with pytest.warns(FrameEnrichWarning, match="not held to it"):
        shown = mugs.llmbatch.preview(ASK, "m", response_model={"specs": dict[str, int]})

    assert shown.requests[0][1]["response_format"]["json_schema"]["strict"] is False


def test_shards_are_cut_at_the_limit(
    client: openai.OpenAI, store: Path, products: pd.DataFrame, server: BatchServer
) -> None:
    """A frame over the limits becomes several batches, and comes back as one frame."""
    provider = OpenAIBatch(client, wait_seconds=0.01)
    provider.limits = Limits(max_requests=60)
    products.llmbatch.submit(ASK, "m", key="sku", provider=provider, store=store)

    out = products.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert server.count("POST", "/v1/batches") == 4
    assert out["llmbatch"].tolist() == [echo(title) for title in products["title"]]


def test_answers_come_from_the_row_they_were_asked_for(
    client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """Promise 2, the other way round: an answer that names its row sits in that row."""
    frame = pd.DataFrame({"n": range(300)})
    with BatchServer(answer=lambda body, _: Reply(content=user_text(body)), seed=5) as mirror:
        own = openai.OpenAI(api_key="k", base_url=mirror.base_url)
        with own:
            frame.llmbatch.submit("{{ n }}", "m", client=own, store=store, name="said")
            out = frame.llmbatch.collect(wait=True, poll_seconds=0.01, client=own, store=store)

    assert out["said"].astype(int).tolist() == list(range(300))


def test_a_job_is_found_by_its_name_too(
    mugs: pd.DataFrame, client: openai.OpenAI, store: Path
) -> None:
    """The newest of that name that was made for the frame; every verb has it on the accessor."""
    frame, how = mugs.iloc[:2], {"client": client, "store": store}
    ask: dict[str, Any] = {"model": "gpt-4o-mini", "name": "kind", **how}
    mine = frame.llmbatch.submit("Sort {{ title }}", **ask)
    theirs = mugs.iloc[2:].llmbatch.submit("Sort {{ title }}", **ask)

    assert frame.llmbatch.job("kind", **how).id == mine.id
    assert frameenrich.open_job("kind", store).id == theirs.id
    assert frame.llmbatch.job(theirs.id, **how).id == theirs.id
    assert frame.llmbatch.job(**how).id == mine.id
    assert frame.llmbatch.wait("kind", poll_seconds=0.01, **how).id == mine.id
    assert frame.llmbatch.usage("kind", **how).requests == 2
    assert frame.llmbatch.rounds("kind", **how).empty
    assert frame.llmbatch.cancel("kind", **how).id == mine.id
    assert frame.llmbatch.report(store / "page.html", "kind", **how).exists()
    assert frame.llmbatch.collect("kind", **how)["kind_status"].tolist() == ["ok", "ok"]
    with pytest.raises(JobNotFoundError, match="Did you mean 'kind'"):
        frame.llmbatch.status("kidn", **how)


def test_jobs_says_what_a_person_wants_to_know(
    mugs: pd.DataFrame, server: BatchServer, client: openai.OpenAI, store: Path
) -> None:
    """Rows, ok, flagged, what was asked, USD, age and size; a pilot is marked, and named last."""
    server.faults.add("truncated", where="row-A2*")
    ask: dict[str, Any] = {"model": "gpt-4o-mini", "client": client, "store": store}
    long = "Which department of a large shop sells the following thing: {{ title }}?"
    done = mugs.llmbatch.submit(long, **ask)
    done.wait(poll_seconds=0.01)
    mugs.llmbatch.pilot("Sort {{ title }}", n=1, **ask)

    table: Any = frameenrich.jobs(store)

    assert table["pilot"].tolist() == [True, False]
    assert table["rows"].tolist() == [1, 4]
    assert table["ok"].tolist() == [1, 3]
    assert table["flagged"].tolist() == [0, 1]
    assert table["prompt"].tolist() == [
        "Sort {{ title }}",
        "Which department of a large shop sells the …",
    ]
    assert table.loc[1, "usd"] == done.usage().usd > 0
    assert table["age"].str.fullmatch(r"\d+ (s|min)").all()
    assert table["size"].str.fullmatch(r"[\d.]+ kB").all()
    assert newest_job(store).id == done.id
