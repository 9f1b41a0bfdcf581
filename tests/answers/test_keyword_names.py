"""Fields that are called like a keyword of JSON Schema: their names say nothing about types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer, Reply
from blocks import read_texts
from pydantic import Field, create_model

from frameenrich.answers.output import Output
from frameenrich.prepare.output_options import output_from_options

WORDS = (
    *("format", "type", "enum", "const", "items", "anyOf", "oneOf", "allOf", "not", "required"),
    *("properties", "patternProperties", "additionalProperties", "prefixItems", "maxItems"),
    *("default", "title", "description", "examples", "definitions"),
)
KEYWORDS = (*WORDS, "$ref", "$defs", "$schema")


def forms_with(name: str) -> Iterator[Any]:
    """Yield each form of an output that has a field of this name, also in objects within it."""
    own = (str, Field(alias=name))  # a class can have "$ref" as an alias only
    inner: Any = create_model("Inner", own=own, on=(date, ...))
    whole: Any = create_model("Whole", own=own, inner=(inner, ...), all=(list[inner], ...))
    yield whole
    yield whole.model_json_schema()
    if name in WORDS:  # a dict with a "$ref" is a JSON Schema
        yield {name: str, "inner": inner, "all": list[inner]}


@pytest.mark.parametrize("name", KEYWORDS)
def test_a_field_may_be_called_like_a_keyword(name: str) -> None:
    """A field `format` was a TypeError, by the quick way, in full, and from the stored schema."""
    inner = {name: "b", "on": "2024-02-09"}
    said = {name: "date", "inner": inner, "all": [inner]}
    odd = {**said, "all": [{name: "b", "on": 20240209}]}
    texts = [json.dumps(said), f"```json\n{json.dumps(said)}\n```", json.dumps(odd)]
    for form in forms_with(name):
        output = output_from_options(response_model=form)
        for each in (output, Output(output.spec)):
            good, fenced, bad = read_texts(texts, each)

            assert good.values is not None, good.error
            assert good.values == fenced.values
            assert good.values[0] == "date"
            assert str(bad.error).startswith("$.all[0].on: 20240209 is a number")


def test_fields_called_like_keywords_are_submitted_and_collected(store: Path) -> None:
    """What was paid comes into its columns."""
    said = {name: f"a {name}" for name in WORDS}
    frame = pd.DataFrame({"n": [1]})
    with (
        BatchServer(answer=lambda _body, _id: Reply(content=json.dumps(said))) as server,
        openai.OpenAI(api_key="k", base_url=server.base_url) as client,
    ):
        own = {"response_model": dict.fromkeys(WORDS, str), "client": client, "store": store}
        job = frame.llmbatch.submit("{{ n }}", "m", **own)
        out = job.wait(poll_seconds=0.01).collect()

    assert out[list(WORDS)].to_dict("records") == [said]
