"""Bad input gets a clear error before anything is sent, and leaves no job behind."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer

import frameenrich
from frameenrich import errors
from frameenrich.prepare.parts import write_part
from frameenrich.verbs.submit import submit_parts

ASK = "Which department sells {{ title }}?"

CASES: dict[str, tuple[dict[str, Any], type[errors.FrameEnrichError], str]] = {
    "missing column": (
        {"template": "{{ titel }}"},
        errors.TemplateError,
        "uses 'titel', which is not a column of the frame. Did you mean 'title'?",
    ),
    "missing column, written as an item": (
        {"template": "{{ row['Product name'] }}"},
        errors.TemplateError,
        "uses 'Product name', which is not a column",
    ),
    "syntax error": (
        {"template": "Sort\n{{ title"},
        errors.TemplateError,
        "user template does not compile, line 2: '{{ title'",
    ),
    "syntax error in system": (
        {"system": "{% if %}"},
        errors.TemplateError,
        "system template does not compile, line 1",
    ),
    "unknown filter": ({"template": "{{ title|loud }}"}, errors.TemplateError, "No filter named"),
    "empty template": ({"template": "  "}, errors.TemplateError, "The template is empty"),
    "name of a file for a template": (
        {"template": "ask.j2"},
        errors.TemplateError,
        "'ask.j2' is the name of a file. Pass pathlib.Path('ask.j2') to read it.",
    ),
    "absent file": ({"template": Path("no.j2")}, errors.TemplateError, "no.j2 cannot be read"),
    "message without content": (
        {"template": [{"role": "user"}]},
        errors.TemplateError,
        "A message of the template is",
    ),
    "unknown role": (
        {"template": [{"role": "human", "content": "{{ title }}"}]},
        errors.TemplateError,
        "the roles are system, developer, user, assistant",
    ),
    "a field called as the status column": (
        {"response_model": {"llmbatch_status": str}},
        errors.ColumnCollisionError,
        "Two of the columns that the answers go to would be called 'llmbatch_status'.",
    ),
    "a field called as a usage column": (
        {"response_model": {"cost_usd": float}, "prefix": "llmbatch_"},
        errors.ColumnCollisionError,
        "would be called 'llmbatch_cost_usd'",
    ),
    "parameters in a list": ({"params": [1]}, errors.ParameterError, "params= is a list."),
    "a number for a key": ({"key": 5}, errors.ParameterError, "key=5 names no column."),
    "a number for an image": ({"image": 5}, errors.ParameterError, "image=5 names no column."),
    "a client of no kind": ({"client": 5}, errors.ParameterError, "client= is a int, and 'openai'"),
    "an async client": (
        {"client": openai.AsyncOpenAI(api_key="sk-any")},
        errors.ParameterError,
        "client= is a AsyncOpenAI, and 'openai' wants its own kind.",
    ),
    "a store that is no place": (
        {"store": 5},
        errors.ParameterError,
        "store= is 5, which is not a folder or a URL.",
    ),
    "a row that fails": (
        {"template": "{{ 1 // (n - 2) }}"},
        errors.TemplateError,
        "fails on row 'A2': ZeroDivisionError",
    ),
    "row data is no code": (
        {"template": "{{ title.__class__ }}"},
        errors.TemplateError,
        "SecurityError",
    ),
    "printed null": (
        {"template": "{{ brand }}"},
        errors.NullValueError,
        "Row 'A3' would print a null: column 'brand' is empty there",
    ),
    "null through a filter": (
        {"template": "{{ brand|upper }}"},
        errors.NullValueError,
        "Row 'A3' would print a null",
    ),
    "all skipped": (
        {"template": "{{ nothing }}", "on_null": "skip"},
        errors.InputError,
        "All 4 rows would be skipped",
    ),
    "unknown null policy": ({"on_null": "drop"}, errors.ParameterError, "on_null='drop'"),
    "key column absent": ({"key": "ean"}, errors.RowKeyError, "key column 'ean' is not in"),
    "duplicate keys": (
        {"key": "shelf"},
        errors.RowKeyError,
        "The key 'shelf' repeats: 1 value(s) name more than one row, such as 7",
    ),
    "null keys": ({"key": "brand"}, errors.RowKeyError, "null in 1 row(s), first at position 2"),
    "output column exists": (
        {"name": "title"},
        errors.ColumnCollisionError,
        "has a column 'title' already",
    ),
    "output field exists": (
        {"response_model": {"brand": str}},
        errors.ColumnCollisionError,
        "has a column 'brand' already",
    ),
    "a field called as the key": (
        {"response_model": {"sku": str}},
        errors.ColumnCollisionError,
        "a column 'sku', which is the name of the key. Rename the field, or pass prefix=",
    ),
    "a job called as the key": (
        {"name": "sku"},
        errors.ColumnCollisionError,
        "a column 'sku', which is the name of the key",
    ),
    "empty name": ({"name": " "}, errors.ParameterError, "cannot name a column"),
    "control characters in the name": (
        {"name": "a\nb"},
        errors.ParameterError,
        "control characters",
    ),
    "empty model": ({"model": ""}, errors.ParameterError, "model= is empty"),
    "unknown endpoint": ({"endpoint": "/v1/chat"}, errors.ParameterError, "endpoint='/v1/chat'"),
    "unknown provider": (
        {"provider": "opnai"},
        errors.ParameterError,
        "no provider 'opnai'. Use 'openai' or another of: anthropic, azure",
    ),
    "an object that is no provider": ({"provider": 3}, errors.ParameterError, "lacks verbs"),
    "unknown parameter": (
        {"params": {"temprature": 1}},
        errors.ParameterError,
        "holds 'temprature', which /v1/chat/completions does not know. Did you mean 'temperature'?",
    ),
    "our own parameter": ({"params": {"messages": []}}, errors.ParameterError, "sets 'messages'"),
    "streaming": ({"params": {"stream": True}}, errors.ParameterError, "asks for a stream"),
    "several answers": ({"params": {"n": 2}}, errors.ParameterError, "several answers a row"),
    "two formats": (
        {"params": {"response_format": {"type": "text"}}, "labels": ["a", "b"]},
        errors.ParameterError,
        "sets 'response_format' beside",
    ),
    "labels and a model": (
        {"labels": ["a", "b"], "response_model": {"a": str}},
        errors.OutputError,
        "Both labels= and response_model=",
    ),
    "one label": ({"labels": ["a"]}, errors.OutputError, "holds one label"),
    "no list of labels": ({"labels": "a,b"}, errors.OutputError, "labels= is 'a,b'"),
    "labels that differ in case": ({"labels": ["a", "A "]}, errors.OutputError, "stands twice"),
    "an empty label": ({"labels": ["a", ""]}, errors.OutputError, "an empty label"),
    "a schema that is no object": (
        {"response_model": {"type": "array"}},
        errors.OutputError,
        "not an object with properties",
    ),
    "a schema that is none": (
        {"response_model": {"type": "object", "properties": {"a": {"type": "txt"}}}},
        errors.OutputError,
        "not a valid JSON Schema",
    ),
    "fields without types": (
        {"response_model": {"a": "some text"}},
        errors.OutputError,
        "response_model=",
    ),
    "a parser that is none": ({"parser": "split"}, errors.OutputError, "not callable"),
    "labels with plain completions": (
        {"endpoint": "/v1/completions", "labels": ["a", "b"]},
        errors.ParameterError,
        "takes one text",
    ),
}


@pytest.fixture
def frame() -> pd.DataFrame:
    """Four rows with a null brand, a repeated shelf and an empty column."""
    return pd.DataFrame(
        {
            "title": ["Red mug", "Blue hose", "Green sock", "Grey phone"],
            "brand": ["Acme", "Blub", None, "Drei"],
            "shelf": [7, 7, 8, 9],
            "n": [1, 2, 3, 4],
            "nothing": [None] * 4,
        },
        index=pd.Index(["A1", "A2", "A3", "A4"], name="sku"),
    )


@pytest.mark.parametrize(("wish", "kind", "says"), CASES.values(), ids=CASES)
def test_bad_input_is_refused_before_anything_is_sent(
    wish: dict[str, Any],
    kind: type[errors.FrameEnrichError],
    says: str,
    frame: pd.DataFrame,
    client: openai.OpenAI,
    store: Path,
    server: BatchServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One sentence names what is wrong, one says what to do; no call, no job."""
    monkeypatch.chdir(tmp_path)
    Path("ask.j2").write_text(ASK)
    usual = {"template": ASK, "model": "gpt-4o-mini", "client": client, "store": store}

    with pytest.raises(kind) as caught:
        frame.llmbatch.submit(**(usual | wish))

    assert type(caught.value) is kind
    assert says in str(caught.value)
    assert caught.value.fix
    assert server.requests == []
    assert frameenrich.jobs(store).empty


NESTED = {
    "type": "object",
    "properties": {"maker": {"type": "object", "properties": {"name": {"type": "string"}}}},
}


@pytest.mark.filterwarnings("ignore:.*strict output")
@pytest.mark.parametrize(
    ("names", "model", "column"),
    [
        ([None], {"index": str}, "index"),
        ([None, "shop"], {"level_0": str}, "level_0"),
        (["maker.name"], NESTED, "maker.name"),
        (["llmbatch_model"], {"color": str}, "llmbatch_model"),
    ],
    ids=["unnamed", "level", "flattened", "usage"],
)
def test_what_collect_would_give_beside_a_key_of_that_name(
    names: list[str | None],
    model: Any,
    column: str,
    client: openai.OpenAI,
    store: Path,
    server: BatchServer,
) -> None:
    """Whole or in parts, the key's names are not those of answers; other names are."""
    index = pd.MultiIndex.from_arrays([["A"]] * len(names), names=names)
    bad = pd.DataFrame({"title": ["Mug"]}, index=index if len(names) > 1 else index.levels[0])
    says = f"'{column}', which is the name of the key"

    with pytest.raises(errors.ColumnCollisionError, match=says):
        bad.llmbatch.submit(ASK, "m", response_model=model, client=client, store=store)
    with pytest.raises(errors.ColumnCollisionError, match=says):
        submit_parts(
            lambda stage: [write_part(stage, 0, bad)],
            ["title"], ASK, "m", response_model=model, client=client, store=store,
        )  # fmt: skip
    assert server.requests == []
    assert frameenrich.jobs(store).empty

    good = bad.set_axis([f"k{i}" for i in range(len(bad))]).rename_axis("sku")
    job = submit_parts(
        lambda stage: [write_part(stage, 0, good)],
        ["title"], ASK, "m", response_model=model, client=client, store=store,
    )  # fmt: skip
    assert job.collect().columns[0] == "sku"


def test_an_empty_frame_is_refused(
    frame: pd.DataFrame, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """No rows, no job."""
    with pytest.raises(errors.InputError, match="The frame is empty"):
        frame.iloc[:0].llmbatch.submit(ASK, "m", client=client, store=store)

    assert server.requests == []


def test_no_api_key(frame: pd.DataFrame, store: Path) -> None:
    """Without a key or client the error names both ways out, and the way without a key."""
    with pytest.raises(
        errors.CredentialsError, match=r"Set OPENAI_API_KEY \(any text, .*\) or pass client="
    ):
        frame.llmbatch.submit(ASK, "m", store=store)

    assert not store.exists()


def test_a_store_that_cannot_be_written(
    frame: pd.DataFrame, client: openai.OpenAI, tmp_path: Path, server: BatchServer
) -> None:
    """Found out before sending; the message names the path."""
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(errors.StoreError, match=r"cannot be written at .*taken/store"):
        frame.llmbatch.submit(ASK, "m", client=client, store=tmp_path / "taken" / "store")

    assert server.requests == []


@pytest.mark.parametrize("job_id", ["../secret", "a/b", "", ".hidden", "nope"])
def test_a_job_id_cannot_leave_the_store(job_id: str, store: Path) -> None:
    """Promise 7: names are names, not paths."""
    (store / "x").mkdir(parents=True)

    with pytest.raises(errors.JobNotFoundError, match="holds no job"):
        frameenrich.open_job(job_id, store)


def test_what_is_no_job_id(frame: pd.DataFrame, store: Path) -> None:
    """A frame or a number where a job's id goes is told as an id that is not there."""
    with pytest.raises(errors.JobNotFoundError, match="holds no job 5"):
        frame.llmbatch.collect(5, store=store)
    with pytest.raises(errors.JobNotFoundError, match="holds no job DataFrame"):
        frame.llmbatch.collect(frame, store=store)


def test_a_preview_of_no_row(frame: pd.DataFrame) -> None:
    """As a pilot of none, it is refused rather than shown empty."""
    with pytest.raises(errors.ParameterError, match=r"n=0 asks for no row\. Give 1 or more\."):
        frame.llmbatch.preview(ASK, "m", n=0)


def test_collect_on_what_is_no_frame(
    frame: pd.DataFrame, client: openai.OpenAI, store: Path
) -> None:
    """A column, or a list, has no keys to find answers by."""
    job = frame.llmbatch.submit(ASK, "m", client=client, store=store)

    with pytest.raises(errors.ParameterError, match="frame= is a Series, which is not a Data"):
        job.collect(frame["title"])


def test_a_request_that_no_file_can_hold(
    frame: pd.DataFrame, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """An oversize line names its row."""
    from frameenrich.model import Limits
    from frameenrich.providers.openai.batch import OpenAIBatch

    provider = OpenAIBatch(client)
    provider.limits = Limits(max_bytes=250)
    frame.loc["A3", "title"] = "x" * 300

    with pytest.raises(errors.RequestTooLargeError, match="of row 'A3' has"):
        frame.llmbatch.submit(ASK, "m", provider=provider, store=store)

    assert server.requests == []


def test_labels_of_an_enum(
    frame: pd.DataFrame, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """An Enum class is as good as a list."""

    class Department(enum.Enum):
        KITCHEN = "Kitchen"
        GARDEN = "Garden"

    frame.llmbatch.submit(ASK, "m", labels=Department, client=client, store=store)
    out = frame.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)

    assert list(out["llmbatch"].cat.categories) == ["Kitchen", "Garden"]
    assert out["llmbatch"].notna().all()
