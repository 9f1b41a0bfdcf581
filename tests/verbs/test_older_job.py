"""Promise 14: a job that an earlier version made is found, named, and not paid for again."""

from __future__ import annotations

import enum
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pandas as pd
import pytest
from batch_server import BatchServer
from pydantic import AnyUrl, BaseModel, Field

from frameenrich.cli.table_jobs import open_table
from frameenrich.cli.tables.files import table_files
from frameenrich.errors import ColumnCollisionError, FrameEnrichWarning, FrameMismatchError
from frameenrich.model import JobSpec
from frameenrich.prepare.json_modes import Asking
from frameenrich.prepare.submit_options import Options
from frameenrich.verbs.submit import prepare, submit_frame

ASK = "{{ title }} for {{ price }}?"


def test_a_job_that_printed_whole_floats_otherwise_is_found_by_the_same_submit(
    server: BatchServer, client: openai.OpenAI, store: Path
) -> None:
    """The older job is named before anything is sent, nothing is sent, and it is collected."""
    frame = pd.DataFrame({"title": ["mug", "cup", "pan"], "price": [3.0, None, 4.5]}).fillna(5)
    now = prepare(ASK, "gpt-4o-mini", Options(client=client, store=store))
    plan = replace(now.plan, spec=replace(now.plan.spec, rendering=1))
    older = submit_frame(frame, replace(now, plan=plan))
    older.wait(poll_seconds=0.02, timeout=20)
    asked = older.collect(frame)

    with pytest.warns(FrameEnrichWarning, match=f"The job {older.id} of an earlier version"):
        again = frame.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store)

    assert again.id == older.id
    assert "mug for 3.0?" in "".join(Path(path).read_text() for path in older.requests)
    pd.testing.assert_frame_equal(frame.llmbatch.collect(client=client, store=store), asked)
    assert len(server.batches) == 1
    fresh = frame.llmbatch.submit(ASK, "gpt-4o-mini", client=client, store=store, fresh=True)
    assert "mug for 3?" in "".join(Path(path).read_text() for path in fresh.requests)


def test_a_job_that_printed_lists_without_commas_is_found_by_the_same_submit(store: Path) -> None:
    """So is one of the rendering before: its arrays of NumPy printed as ``[1 2]``."""
    frame = pd.DataFrame({"title": ["mug"], "price": [np.array([1, 2])]})
    now = prepare(ASK, "gpt-4o-mini", Options(provider="file", store=store))
    plan = replace(now.plan, spec=replace(now.plan.spec, rendering=2))
    older = submit_frame(frame, replace(now, plan=plan))

    with pytest.warns(FrameEnrichWarning, match=r"lists printed as \[1 2\]"):
        again = frame.llmbatch.submit(ASK, "gpt-4o-mini", provider="file", store=store)

    assert again.id == older.id
    assert "mug for [1 2]?" in Path(older.requests[0]).read_text()


def test_where_nothing_prints_otherwise_the_id_is_as_it_was(store: Path) -> None:
    """How cells are printed is stored beside the job, and is no part of what names it."""
    spec = prepare(ASK, "gpt-4o-mini", Options(provider="file", store=store)).plan.spec
    older = replace(spec, rendering=1)

    assert older.identity_json() == spec.identity_json()
    assert JobSpec.from_json(older.to_json().replace(', "rendering": 1', "")) == older
    assert JobSpec.from_json(spec.to_json()) == spec


def test_an_older_job_is_taken_only_where_it_fits_whole_and_asked_as_much(store: Path) -> None:
    """January's file after February's is said; never an older question on edited data."""
    january = pd.DataFrame({"title": ["mug", "cup"], "price": [1.5, 2.5]})
    february = january.assign(price=[1.75, 2.75])
    how: dict[str, Any] = {"provider": "file", "store": store}
    first = january.llmbatch.submit(ASK, "gpt-4o-mini", **how)
    second = february.llmbatch.submit(ASK, "gpt-4o-mini", **how)

    with pytest.warns(FrameEnrichWarning, match=f"newest job {second.id}.*older job {first.id}"):
        january.llmbatch.collect(store=store)
    february.llmbatch.collect(store=store)  # the newest fits: nothing is said

    third = january.llmbatch.submit("Sell {{ title }}?", "gpt-4o-mini", **how)
    january.llmbatch.submit(ASK + " Why?", "gpt-4o-mini", **how)
    edited = january.assign(price=[9.5, 2.5])
    with pytest.raises(FrameMismatchError, match="1 of the frame's rows changed"):
        edited.llmbatch.collect(store=store)
    assert edited.llmbatch.collect(third.id, store=store)["llmbatch_status"].tolist() == [
        "pending",
        "pending",
    ]
    more = pd.concat([january, pd.DataFrame({"title": ["pan"], "price": [3.5]}, index=[2])])
    more.loc[0, "price"] = 1.75
    with pytest.raises(FrameMismatchError, match="rows changed"):  # no job has all of it
        more.llmbatch.collect(store=store)


def test_the_notebook_loop_asks_again_under_the_same_name(
    server: BatchServer, client: openai.OpenAI, store: Path
) -> None:
    """Ask, look, edit the prompt, run again: a job's own earlier columns stand in no way."""
    how: dict[str, Any] = {
        "client": client,
        "store": store,
        "labels": ["Kitchen", "Toys"],
        "name": "kind",
    }
    wait: dict[str, Any] = {"client": client, "store": store, "wait": True, "poll_seconds": 0.02}
    frame = pd.DataFrame({"title": ["mug", "cup"], "brand": ["a", "b"]})
    for ask in ("Which department sells {{ title }}?", "Who sells {{ title }}?"):
        frame.llmbatch.submit(ask, "gpt-4o-mini", **how)
        frame = frame.llmbatch.collect(**wait)

    assert list(frame.columns) == ["title", "brand", "kind", "kind_status", "kind_error"]
    with pytest.raises(ColumnCollisionError, match="'brand'"):  # the user's own is not taken
        frame.llmbatch.submit(
            "{{ title }}?", "gpt-4o-mini", **{**how, "labels": None}, response_model={"brand": str}
        )


class Colour(enum.Enum):
    """A choice that a schema refers to."""

    RED = "red"
    BLUE = "blue"


class Page(BaseModel):
    """Fields whose schema each version wrote otherwise."""

    url: AnyUrl
    colour: Colour = Field(description="the main colour")


@pytest.mark.parametrize("form", [1, 2])
def test_a_job_whose_schema_was_written_otherwise_is_found_by_the_same_submit(
    form: int, store: Path
) -> None:
    """With the formats that strict output refuses, and without descriptions beside references."""
    frame = pd.DataFrame({"title": ["mug", "cup"]})
    now = prepare("{{ title }}?", "m", Options(response_model=Page, provider="file", store=store))
    older = submit_frame(frame, replace(now, plan=now.plan.asking(Asking(schema_form=form))))
    loaded = json.loads(now.plan.spec.to_json())
    for younger in ("schema_form", "asked_by", "json_mode", "choices_in_words"):
        del loaded[younger]

    with pytest.warns(FrameEnrichWarning, match=f"The job {older.id} .* written otherwise"):
        again = frame.llmbatch.submit(
            "{{ title }}?", "m", response_model=Page, provider="file", store=store
        )
    fresh = frame.llmbatch.submit(
        "{{ title }}?", "m", response_model=Page, provider="file", store=store, fresh=True
    )
    sent = [Path(job.requests[0]).read_text() for job in (older, fresh)]

    assert again.id == older.id
    assert [('"format":"uri"' in text, "the main colour" in text) for text in sent] == [
        (form == 1, False),
        (False, True),
    ]
    assert JobSpec.from_json(json.dumps(loaded)).schema_form == 1  # which stands for 1 and 2


def test_a_streamed_table_finds_the_older_job_too(
    server: BatchServer, client: openai.OpenAI, store: Path, tmp_path: Path
) -> None:
    """A table larger than memory is rendered once more for that, and not paid for again."""
    frame = pd.DataFrame({"title": ["mug", "cup", "pan"], "price": [3.0, 4.5, 5.0]})
    frame.to_parquet(tmp_path / "goods.parquet", index=False)
    now = prepare(ASK, "gpt-4o-mini", Options(client=client, store=store))
    plan = replace(now.plan, spec=replace(now.plan.spec, rendering=1))
    older = submit_frame(frame, replace(now, plan=plan))

    with (
        open_table(table_files(str(tmp_path / "goods.parquet")), stream=True) as table,
        pytest.warns(FrameEnrichWarning, match=f"The job {older.id} of an earlier version"),
    ):
        again, rows = table.submit(template=ASK, model="gpt-4o-mini", client=client, store=store)

    assert (again.id, rows) == (older.id, 3)
    assert len(server.batches) == 1
