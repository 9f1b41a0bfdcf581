"""Examples in the prompt: what is sent, what is refused, and that jobs without them stay."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

from frameenrich.errors import FrameEnrichError
from frameenrich.model import JobSpec

FRAME = pd.DataFrame({"title": ["Red mug", "Blue hose"]}, index=["A1", "A2"])
LABELS = ["Kitchen", "Garden"]
SHOWN = [{"title": "Pan", "answer": "kitchen"}, {"title": "Rake {{ }}\n", "answer": "Garden"}]


def messages(store: Path, template: Any = "Where is {{ title }}?", **options: Any) -> Any:
    """Return the messages of the first row's request."""
    job = FRAME.llmbatch.submit(template, "m", provider="file", store=store, **options)
    line = Path(job.requests[0]).read_text().splitlines()[0]
    return json.loads(line)["body"]["messages"]


def test_examples_are_turns_before_the_row(store: Path) -> None:
    """An example reads as its row would, its answer as the model has to write it; labels exact."""
    said = messages(store, system="Sort.", labels=LABELS, examples=SHOWN)

    assert [(m["role"], m["content"]) for m in said] == [
        ("system", "Sort."),
        ("user", "Where is Pan?"),
        ("assistant", '{"label": "Kitchen"}'),
        ("user", "Where is Rake {{ }}\n?"),
        ("assistant", '{"label": "Garden"}'),
        ("user", "Where is Red mug?"),
    ]


def test_a_frame_of_fields_makes_one_object_an_example(store: Path) -> None:
    """A response_model's examples come from a column a field, numbers as numbers."""
    rows = pd.DataFrame({"title": ["Pan"], "color": ["red"], "size": pd.array([3], "Int64")})
    said = messages(store, response_model={"color": str, "size": int}, examples=rows)

    assert json.loads(said[1]["content"]) == {"color": "red", "size": 3}
    whole = [{"title": "Pan", "answer": {"color": "red", "size": 3}}]
    again = messages(store, response_model={"color": str, "size": int}, examples=whole)
    assert again == said


def test_list_templates_and_text_take_examples(store: Path) -> None:
    """Every message of the row is shown for an example, too; text answers stay as they are."""
    template = [
        {"role": "system", "content": "Short."},
        {"role": "user", "content": "Title: {{ title }}"},
        {"role": "user", "content": "Its colour?"},
    ]
    said = messages(store, template, examples=[{"title": "Pan", "answer": "black {%"}])

    assert [m["role"] for m in said] == ["system", "user", "user", "assistant", "user", "user"]
    assert said[3]["content"] == "black {%"


def test_dates_and_lists_of_a_frame_are_written_as_json_has_them(store: Path) -> None:
    """A date that pandas holds as a moment, and a list that Parquet gave as an array."""

    class Event(BaseModel):
        """A date, a moment and a list."""

        day: date
        at: datetime
        tags: list[str]

    moment = pd.Timestamp("2024-03-09 10:30")
    rows = pd.DataFrame({"title": ["Pan"], "day": pd.to_datetime(["2024-03-09"]), "at": [moment]})
    rows["tags"] = pd.Series([np.array(["a", "b"], object)])
    said = messages(store, response_model=Event, examples=rows)

    shown = {"day": "2024-03-09", "at": "2024-03-09T10:30:00", "tags": ["a", "b"]}
    assert json.loads(said[1]["content"]) == shown


def test_no_examples_change_no_id(store: Path) -> None:
    """Promise 14: a job without examples has the id it had before there were any."""
    spec = FRAME.llmbatch.submit("{{ title }}?", "m", provider="file", store=store).spec

    assert "examples" not in json.loads(spec.identity_json())
    assert JobSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([], "holds no row"),
        ("Pan", "is a str"),
        ([1], "holds a int"),
        ([{"answer": "Kitchen"}], "examples=: The template uses 'title'"),
        ([{"title": "Pan"}], "neither 'llmbatch' nor 'answer'"),
        ([{"title": "Pan", "answer": "Cellar"}], "Row 0 of examples= has an answer"),
        ([{"title": "Pan", "answer": None}], "Row 0 of examples= has no answer"),
        ([{"title": None, "answer": "Garden"}], "examples=: The row at position 0 would print"),
    ],
)
def test_bad_examples_are_refused(store: Path, examples: Any, said: str) -> None:
    """Promise 9: the sentence says which example, and what about it."""
    with pytest.raises(FrameEnrichError, match="examples=") as caught:
        messages(store, labels=LABELS, examples=examples)

    assert said in str(caught.value)
    assert not list(store.glob("llmbatch-*"))


def test_endpoints_and_images_without_examples(store: Path) -> None:
    """What takes one text, or shows images, takes no examples."""
    with pytest.raises(FrameEnrichError, match="takes one text, and no examples="):
        messages(store, endpoint="/v1/completions", examples=SHOWN)
    with pytest.raises(FrameEnrichError, match="examples= and image= do not go together"):
        messages(store, labels=LABELS, image="title", examples=SHOWN)
