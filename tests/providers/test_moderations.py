"""``/v1/moderations``: whether a text was flagged, and for what."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import openai
import orjson
import pandas as pd
import pytest
from batch_server import BatchServer, Reply
from batch_server.answers import MODERATION_CATEGORIES
from batch_server.reply import stable_hash
from conftest import status_counts
from hypothesis import given
from hypothesis import strategies as st

from frameenrich.answers.judge import read_moderation
from frameenrich.answers.output import MalformedError
from frameenrich.errors import OutputError, ParameterError
from frameenrich.model import OutputSpec

MODEL = "omni-moderation-latest"


def moderate(frame: pd.DataFrame, client: openai.OpenAI, store: Path, **options: Any) -> Any:
    """A frame with what the moderation endpoint says of its texts."""
    frame.llmbatch.submit(
        "{{ text }}",
        MODEL,
        endpoint="/v1/moderations",
        client=client,
        store=store,
        **{"name": "unsafe", **options},
    )
    return frame.llmbatch.collect(wait=True, poll_seconds=0.01, client=client, store=store)


def categories_of(text: str) -> list[str]:
    """What the server flags a text for."""
    return [c for c in MODERATION_CATEGORIES if stable_hash(f"{c} {text}") % 1000 / 1000 > 0.9]


def test_every_text_has_its_own_verdict(client: openai.OpenAI, store: Path) -> None:
    """A boolean column, and a list of the flagged categories; both survive Parquet."""
    frame = pd.DataFrame({"text": [f"comment {n}" for n in range(40)]})

    out = moderate(frame, client, store)

    wanted = [categories_of(text) for text in frame["text"]]
    assert list(out.columns) == [
        "text",
        "unsafe",
        "unsafe_categories",
        "unsafe_status",
        "unsafe_error",
    ]
    assert out["unsafe"].dtype == "boolean"
    assert out["unsafe"].tolist() == [bool(names) for names in wanted]
    assert out["unsafe_categories"].tolist() == wanted
    assert 5 < out["unsafe"].sum() < 40
    assert status_counts(out, "unsafe") == {"ok": 40}
    out.to_parquet(store.parent / "out.parquet")
    again = pd.read_parquet(store.parent / "out.parquet")
    assert again["unsafe"].dtype == "boolean"
    assert [list(names) for names in again["unsafe_categories"]] == wanted


def test_the_scores_are_in_the_raw_answer(client: openai.OpenAI, store: Path) -> None:
    """usage=True shows the whole result, scores included."""
    frame = pd.DataFrame({"text": ["a comment"]})
    moderate(frame, client, store, prefix="ai_")

    out = frame.llmbatch.collect(client=client, store=store, usage=True)

    scores = orjson.loads(out["unsafe_raw"][0])["category_scores"]
    assert set(scores) == set(MODERATION_CATEGORIES)
    assert list(out.columns)[1:3] == ["ai_unsafe", "ai_unsafe_categories"]


BAD_RESULTS: dict[str, tuple[Any, str, str]] = {
    "no result": ({"results": []}, "empty", "the answer holds no result"),
    "no results": ({"id": "modr-1"}, "empty", "the answer holds no result"),
    "a text": ({"results": ["yes"]}, "malformed", "$.results[0].flagged: not true or false"),
    "a word": (
        {"results": [{"flagged": "true", "categories": {}}]},
        "malformed",
        "$.results[0].flagged: not true or false",
    ),
    "no categories": (
        {"results": [{"flagged": True}]},
        "malformed",
        "$.results[0].categories: not an object",
    ),
}


def test_what_is_no_verdict_is_flagged(
    client: openai.OpenAI, server: BatchServer, store: Path
) -> None:
    """Each odd body has a status and a reason; the column keeps its type without any answer."""
    server.answer = lambda body, _: Reply(body=BAD_RESULTS[body["input"]][0])
    frame = pd.DataFrame({"text": list(BAD_RESULTS)})

    out = moderate(frame, client, store)

    assert out["unsafe_status"].tolist() == [status for _, status, _ in BAD_RESULTS.values()]
    assert out["unsafe_error"].tolist() == [error for *_, error in BAD_RESULTS.values()]
    assert (out["unsafe"].dtype, out["unsafe"].isna().all()) == ("boolean", True)
    assert out["unsafe_categories"].tolist() == [None] * len(BAD_RESULTS)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["flagged", "categories"]), inner)
        ),
    )
)
def test_any_json_is_a_verdict_or_malformed(value: Any) -> None:
    """Nothing that a server sends can raise anything else."""
    for results in (value, [value]):
        with contextlib.suppress(MalformedError):
            reading = read_moderation({"results": results}, OutputSpec("moderation"))
            assert reading is None or isinstance(reading[0][0], bool)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["a", "b"]}, OutputError, "answers with a verdict"),
        ({"response_model": {"a": int}}, OutputError, "answers with a verdict"),
        ({"parser": str.upper}, OutputError, "answers with a verdict"),
        ({"system": "Be kind."}, ParameterError, "takes one text"),
        ({"params": {"temperature": 0}}, ParameterError, "'temperature'"),
        ({"image": "text"}, ParameterError, "takes no images"),
    ],
)
def test_what_a_moderation_cannot_have_is_refused(
    options: dict[str, Any], error: type[Exception], message: str, store: Path
) -> None:
    """Its answers have one form; nothing is written or sent."""
    with pytest.raises(error, match=message):
        pd.DataFrame({"text": ["a"]}).llmbatch.submit(
            "{{ text }}",
            MODEL,
            endpoint="/v1/moderations",
            provider="file",
            store=store,
            **options,
        )
    assert not list(store.glob("*"))
