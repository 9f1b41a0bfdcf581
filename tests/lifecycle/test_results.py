"""Which line of a shard's responses is whose, as `lifecycle.results` finds it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

import frameenrich  # noqa: F401 - registers df.llmbatch
from frameenrich.lifecycle.results import order_of


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
