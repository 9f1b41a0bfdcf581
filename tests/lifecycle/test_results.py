"""Which line of a shard's responses is whose, as `lifecycle.results` finds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from batch_server import BatchServer
from hypothesis import given
from hypothesis import strategies as st

import frameenrich
from frameenrich import Job
from frameenrich.lifecycle.results import order_of
from frameenrich.model import Limits
from frameenrich.prepare.parts import write_part
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.verbs.submit import submit_parts


@given(st.integers(1, 6), st.data())
def test_lines_get_the_order_of_their_requests(count: int, data: st.DataObject) -> None:
    """Lines of nobody come first, and of several lines for a request the first stays the first."""
    drawn = data.draw(st.lists(st.integers(-1, count - 1), min_size=1, max_size=9))
    positions = np.array(data.draw(st.sampled_from([drawn, list(dict.fromkeys(drawn))])))

    assert order_of(positions, count).tolist() == np.argsort(positions, kind="stable").tolist()


def test_a_part_with_as_many_rows_as_its_shard_has_requests(tmp_path: Path) -> None:
    """Rows that share a request have its answer, however many rows of the shard are asked for."""
    frame = pd.DataFrame({"title": list("aabbccddee")})
    job = frame.llmbatch.submit("{{ title }}", "m", provider="file", store=tmp_path)
    (requests,) = job.requests
    lines = []
    for line in Path(requests).read_text().splitlines():
        request = json.loads(line)
        message = {"content": request["body"]["messages"][-1]["content"].upper()}
        body = {"choices": [{"message": message, "finish_reason": "stop"}]}
        response = {"status_code": 200, "body": body}
        lines.append(json.dumps({"custom_id": request["custom_id"], "response": response}) + "\n")
    assert len(lines) == 5
    (tmp_path / "came.jsonl").write_text("".join(lines))
    job.import_responses(tmp_path / "came.jsonl")

    for found in (job.collect_part(frame[:5], 0), job.collect(frame)[:5]):
        assert found["llmbatch"].tolist() == list("AABBC")


# --- how many requests a shard has ----------------------------------------------------------------

FAST: dict[str, Any] = {"poll_seconds": 0.01, "timeout": 30}
SHARDS = {
    "plain": 1,
    "repeats": 1,
    "repeats over shards": 3,
    "reused": 2,
    "waiting": 2,
    "in parts": 1,
    "retried": 1,
    "ready requests": 1,
}
"""The ways in which shards come about, and how many there are below."""


def made(way: str, server: BatchServer, provider: OpenAIBatch, store: Path) -> Job:
    """A job of rows with repeats, made in one of the ways in which shards come about."""
    titles = list("abcdef" if way == "plain" else "aabbcadbee")
    frame = pd.DataFrame({"title": titles})
    options: dict[str, Any] = {"provider": provider, "store": store}
    if way == "ready requests":
        bodies = [{"model": "m", "messages": [{"role": "user", "content": t}]} for t in titles]
        asked = [
            {"custom_id": f"q-{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            for n, body in enumerate(bodies)
        ]
        return frameenrich.submit_requests(asked, **options)
    if way == "in parts":
        parts = [frame[:3], frame[3:5], frame[5:]]
        return submit_parts(
            lambda stage: (write_part(stage, n, part) for n, part in enumerate(parts)),
            *(["title"], "{{ title }}", "m"),
            **options,
        )
    if way == "waiting":
        server.hold("in_progress")
    if way in {"reused", "waiting"}:
        first = frame[:4].llmbatch.submit("{{ title }}", "m", **options)
        if way == "reused":
            first.wait(**FAST)
    if way == "repeats over shards":
        provider.limits = Limits(max_requests=2)
    if way == "retried":
        server.faults.add("malformed", times="always", content="neither")
        options["labels"] = ["yes", "no"]
    job: Job = frame.llmbatch.submit("{{ title }}", "m", **options)
    return job.wait(**FAST).regenerate() if way == "retried" else job


@pytest.mark.parametrize("way", SHARDS)
def test_each_shard_counts_the_different_custom_ids_of_its_rows(
    way: str, server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """What `Batch.requests` promises, on which reading leaves out to search for repeats."""
    job = made(way, server, provider, store)._session.job()
    assert job.rounds() == (2 if way == "retried" else 1)
    assert len(job.shards(0)) == SHARDS[way]
    for round_ in range(job.rounds()):
        sidecar = job.sidecar(round_, ["custom_id", "shard"]).to_pandas()
        counts = sidecar.groupby("shard")["custom_id"].nunique().to_dict()
        assert {shard.number: shard.batch.requests for shard in job.shards(round_)} == counts


@pytest.mark.parametrize("wrong", [0, 3, 10, 11])
@pytest.mark.parametrize("way", ["repeats", "retried"])
def test_no_row_is_decided_by_a_wrong_count(
    wrong: int, way: str, server: BatchServer, provider: OpenAIBatch, store: Path
) -> None:
    """Promise 1: a damaged batch.json makes no answered row `missing`."""
    job = made(way, server, provider, store).wait(**FAST)
    expected = job.collect()
    assert expected["llmbatch_status"].ne("missing").all()
    for shard in job._session.job().all_shards():
        shard.save(shard.batch.replace(requests=wrong))

    pd.testing.assert_frame_equal(job.collect(), expected)
