"""Promise 12: what a person wrote into an answer's cell stays, and files change nothing."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import Any

import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from draws import examples
from hypothesis import given
from hypothesis import strategies as st

from frameenrich.answers.same_value import same_value
from frameenrich.errors import FrameEnrichWarning

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)
ANSWERS = st.one_of(
    TEXT,
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(TEXT, max_size=3),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(-9, 9) | TEXT, min_size=1),
)
FRAME = pd.DataFrame({"sku": ["x1", "x2", "x3"], "title": ["mug", "cup", "pan"]})
FIELDS = {"colour": str, "width": int, "tags": list[str]}


@given(answers=st.lists(ANSWERS, min_size=1, max_size=5))
@examples(40)
def test_a_round_trip_through_a_file_is_no_edit(answers: list[Any]) -> None:
    """Whatever dtype CSV or Parquet gives a column: nobody edited a cell of it."""
    cells = pd.DataFrame({"row": range(len(answers)), "a": pd.Series(answers, dtype=object)})
    back = pd.read_csv(io.StringIO(cells.to_csv(index=False)))
    for cell, answer in zip(back["a"], answers, strict=True):
        assert pd.isna(cell) or same_value(cell, answer), (cell, answer)
    for answer in answers:
        file = io.BytesIO()
        pd.DataFrame({"a": pd.Series([answer], dtype=object)}).to_parquet(file)
        assert same_value(pd.read_parquet(file)["a"].iloc[0], answer)


@given(answer=TEXT, cell=TEXT)
@examples(40)
def test_another_text_is_an_edit(answer: str, cell: str) -> None:
    """The rule that forgives files forgives no person's word."""
    assert same_value(cell, answer) == (cell in {answer, f"'{answer}"})


def answer_file(job: Any, answers: list[Any], path: Path) -> Path:
    """Write responses to a job's requests, in their order, as another program would."""
    lines = "".join(Path(each).read_text() for each in job.requests).splitlines()
    with path.open("w") as file:
        for line, answer in zip(lines, answers, strict=True):
            content = answer if isinstance(answer, str) else json.dumps(answer)
            choice = {"index": 0, "finish_reason": "stop"}
            message = {"role": "assistant", "content": content}
            body = {"model": "m", "choices": [{**choice, "message": message}]}
            response = {"status_code": 200, "body": body}
            own = json.loads(line)["custom_id"]
            file.write(json.dumps({"custom_id": own, "response": response, "error": None}) + "\n")
    return path


@pytest.mark.parametrize("form", ["memory", "csv", "parquet"])
def test_corrections_are_kept_counted_and_replaced_on_request(
    form: str, store: Path, tmp_path: Path
) -> None:
    """By hand, also after a file: two cells are kept, the rest is as answered."""
    how: dict[str, Any] = {"provider": "file", "store": store, "key": "sku"}
    job = FRAME.llmbatch.submit("{{ title }}?", "m", response_model=FIELDS, **how)
    given_answers = [{"colour": c, "width": 3, "tags": ["a", "b"]} for c in ("red", "blue", "tan")]
    job.import_responses(answer_file(job, given_answers, tmp_path / "r.jsonl"))
    answered = FRAME.llmbatch.collect(job)
    assert answered["llmbatch_status"].tolist() == ["ok"] * 3
    edited = answered.copy()
    if form == "csv":
        edited = pd.read_csv(io.StringIO(answered.to_csv(index=False)))
    elif form == "parquet":
        answered.to_parquet(tmp_path / "a.parquet")
        edited = pd.read_parquet(tmp_path / "a.parquet")
    with warnings.catch_warnings(action="error"):  # nothing was edited yet
        edited.llmbatch.collect(store=store)
    edited.loc[1, "colour"], edited.loc[2, "width"] = "navy", 7

    with pytest.warns(FrameEnrichWarning, match="2 cells of 'colour', 'width' hold"):
        kept = edited.llmbatch.collect(store=store)

    assert kept["colour"].tolist() == ["red", "navy", "tan"]
    assert kept["width"].tolist() == [3, 3, 7]
    assert [list(tags) for tags in kept["tags"]] == [["a", "b"]] * 3
    with warnings.catch_warnings(action="error"):
        replaced = edited.llmbatch.collect(store=store, overwrite=True)
    assert replaced["colour"].tolist() == ["red", "blue", "tan"]
    assert replaced["width"].tolist() == [3, 3, 3]


def test_an_earlier_jobs_answer_is_no_correction(store: Path, tmp_path: Path) -> None:
    """The notebook loop: a new prompt's answers take the place of the old one's, edits stay."""
    how: dict[str, Any] = {"provider": "file", "store": store, "labels": ["Kitchen", "Toys"]}
    first = FRAME.llmbatch.submit("{{ title }}?", "m", **how)
    label = [{"label": "Toys"}] * 3
    first.import_responses(answer_file(first, label, tmp_path / "1.jsonl"))
    frame = FRAME.llmbatch.collect(first)
    frame["llmbatch"] = frame["llmbatch"].astype(object)
    frame.loc[2, "llmbatch"] = "Garden"
    second = frame.llmbatch.submit("Who sells {{ title }}?", "m", **how)
    label = [{"label": "Kitchen"}] * 3
    second.import_responses(answer_file(second, label, tmp_path / "2.jsonl"))

    with pytest.warns(FrameEnrichWarning, match="1 cell of 'llmbatch' holds"):
        out = frame.llmbatch.collect(second)

    assert out["llmbatch"].tolist() == ["Kitchen", "Kitchen", "Garden"]


def test_regenerate_leaves_alone_what_somebody_filled_in(
    server: BatchServer, client: openai.OpenAI, store: Path
) -> None:
    """A flagged row that a person answered is not asked again, and keeps their answer."""
    server.faults.add("truncated", times=2)
    ask: dict[str, Any] = {"client": client, "store": store}
    job = FRAME.llmbatch.submit("Sort {{ title }}", "gpt-4o-mini", name="kind", **ask)
    out = FRAME.llmbatch.collect(wait=True, poll_seconds=0.01, **ask)
    flagged = out.index[out["kind_status"] == "truncated"]
    out.loc[flagged[0], "kind"] = "Kitchen"
    server.faults.clear()

    with pytest.warns(FrameEnrichWarning, match="corrected by hand are not asked again: 1"):
        out.llmbatch.regenerate(**ask)
    job.wait(poll_seconds=0.01)

    assert job.rounds()["requests"].tolist() == [1]
    with pytest.warns(FrameEnrichWarning, match="kept as somebody's correction"):
        again = out.llmbatch.collect(**ask)
    assert again.loc[flagged[0], "kind"] == "Kitchen"
    assert again.loc[flagged[1], "kind"].startswith("echo: Sort")
    assert again["kind_status"].tolist().count("ok") == 2
