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
    "absent file": ({"template": Path("no.j2")}, errors.TemplateError, "no.j2 cannot be read"),
    "message without content": (
        {"template": [{"role": "user"}]},
        errors.TemplateError,
        "A message of the template is",
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
        "no provider 'opnai'. Use 'openai'",
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
        "Both labels and response_model",
    ),
    "one label": ({"labels": ["a"]}, errors.OutputError, "holds 1 label"),
    "no list of labels": ({"labels": "a,b"}, errors.OutputError, "labels= is a str"),
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
) -> None:
    """One sentence names what is wrong, one says what to do; no call, no job."""
    wishes = {"template": ASK, "model": "gpt-4o-mini", **wish}

    with pytest.raises(kind) as caught:
        frame.llmbatch.submit(**wishes, client=client, store=store)

    assert type(caught.value) is kind
    assert says in str(caught.value)
    assert caught.value.fix
    assert server.requests == []
    assert frameenrich.jobs(store).empty


def test_an_empty_frame_is_refused(
    frame: pd.DataFrame, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """No rows, no job."""
    with pytest.raises(errors.InputError, match="The frame is empty"):
        frame.iloc[:0].llmbatch.submit(ASK, "m", client=client, store=store)

    assert server.requests == []


def test_no_api_key(frame: pd.DataFrame, store: Path) -> None:
    """Without a key or client the error names both ways out, and the way without a key."""
    with pytest.raises(errors.CredentialsError, match="Set OPENAI_API_KEY or pass client="):
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


def test_a_request_that_no_file_can_hold(
    frame: pd.DataFrame, client: openai.OpenAI, store: Path, server: BatchServer
) -> None:
    """An oversize line names its row."""
    from frameenrich.model import Limits
    from frameenrich.providers.openai_batch import OpenAIBatch

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
