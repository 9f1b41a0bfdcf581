"""Promise 14: a job that an earlier version made is found, named, and not paid for again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import openai
import pandas as pd
import pytest
from batch_server import BatchServer

from frameenrich.errors import FrameEnrichWarning
from frameenrich.model import JobSpec
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


def test_where_nothing_prints_otherwise_the_id_is_as_it_was(store: Path) -> None:
    """How cells are printed is stored beside the job, and is no part of what names it."""
    spec = prepare(ASK, "gpt-4o-mini", Options(provider="file", store=store)).plan.spec
    older = replace(spec, rendering=1)

    assert older.identity_json() == spec.identity_json()
    assert JobSpec.from_json(older.to_json().replace(', "rendering": 1', "")) == older
    assert JobSpec.from_json(spec.to_json()) == spec
