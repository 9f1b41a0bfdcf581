"""Promise 10 for answers that the store has already: taken over only where they are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, field_validator

import frameenrich
from frameenrich.answers.output import Output
from frameenrich.identity.dedupe import short_hash_column
from frameenrich.lifecycle.reuse import answers_of, requests_of
from frameenrich.store.folder import job_folders
from frameenrich.store.store import open_store

FRAME = pd.DataFrame({"title": ["whole", "cut", "unknown end", "two", "NaN", "fenced"]})
GOOD = '{"price": 9.5}'
ANSWERS: dict[str, tuple[str, Any]] = {
    "whole": (GOOD, "stop"),
    "cut": ('{"price": 9', "stop"),
    "unknown end": (GOOD, "network_error"),
    "two": (GOOD + '{"price": 8}', "stop"),
    "NaN": ('{"price": NaN}', "stop"),
    "fenced": (f"```json\n{GOOD}\n```", "stop"),
}


class Price(BaseModel):
    """A price that its class refuses above five."""

    price: float

    @field_validator("price")
    @classmethod
    def low(cls, value: float) -> float:
        """Refuse a high price."""
        if value > 5:
            raise ValueError("too much")
        return value


def submitted(store: Path, name: str, **options: Any) -> frameenrich.Job:
    """Submit for somebody else to run."""
    job: frameenrich.Job = FRAME.llmbatch.submit(
        "Price of {{ title }}", "m", name=name, provider="file", store=store, **options
    )
    return job


def answer(job: frameenrich.Job, folder: Path) -> None:
    """Import an answer of each kind."""
    lines = [json.loads(x) for path in job.requests for x in Path(path).read_text().splitlines()]
    with (folder / "answers.jsonl").open("w") as file:
        for line in lines:
            title = line["body"]["messages"][-1]["content"].removeprefix("Price of ")
            text, finish = ANSWERS[title]
            choice = {"message": {"content": text}, "finish_reason": finish}
            response = {"status_code": 200, "body": {"choices": [choice]}}
            file.write(json.dumps({"custom_id": line["custom_id"], "response": response}) + "\n")
    job.import_responses(folder / "answers.jsonl")


def label(job: frameenrich.Job, folder: Path) -> None:
    """Import one label for each row."""
    choice = {"message": {"content": '{"label":"a"}'}, "finish_reason": "stop"}
    response = {"status_code": 200, "body": {"choices": [choice]}}
    ids = [json.loads(x)["custom_id"] for x in Path(job.requests[0]).read_text().splitlines()]
    lines = [json.dumps({"custom_id": own, "response": response}) + "\n" for own in ids]
    (folder / "labels.jsonl").write_text("".join(lines))
    job.import_responses(folder / "labels.jsonl")


def test_only_whole_answers_are_taken_over(store: Path, tmp_path: Path) -> None:
    """Each ending, cut and doubling that `collect` flags is asked again; a mended one is marked."""
    answer(submitted(store, "first", response_model={"price": float}), tmp_path)

    again = submitted(store, "second", response_model={"price": float})
    out = again.collect(FRAME, usage=True)

    assert again.reused == 2
    assert out["second_status"].tolist() == ["ok", *["pending"] * 4, "ok"]
    assert out["second_repaired"].fillna(False).tolist() == [*[False] * 5, True]


def test_a_classs_validators_decide_what_is_taken_over(store: Path, tmp_path: Path) -> None:
    """What the new job's class refuses is asked again, though the request is the same."""
    plain = Price.model_json_schema()
    answer(submitted(store, "first", response_model=plain), tmp_path)

    assert submitted(store, "second", response_model=plain).reused == 2
    assert submitted(store, "third", response_model=Price).reused == 0


def test_an_answer_to_another_request_of_half_its_hash_is_left_alone(
    store: Path, tmp_path: Path
) -> None:
    """Whoever makes two requests agree in 64 bits spoils no job: it is whole, and reuses none."""
    first = submitted(store, "first", labels=["a", "b"])
    label(first, tmp_path)
    path = Path(first.path, "sidecar.parquet")
    sidecar = pq.read_table(path)
    halves = [own[:8] + bytes(24) for own in sidecar["request_hash"].to_pylist()]
    column = pa.array(halves, pa.binary(32))
    index = sidecar.column_names.index("request_hash")
    pq.write_table(sidecar.set_column(index, "request_hash", column), path)

    second = submitted(store, "second", labels=["a", "b"])

    assert second.reused == 0
    assert len(second.requests) == 1
    label(second, tmp_path)
    assert second.collect(FRAME)["second_status"].tolist() == ["ok"] * len(FRAME)


@pytest.mark.skipif(
    not hasattr(pa.default_memory_pool(), "total_bytes_allocated"), reason="pyarrow is too old"
)
def test_each_of_several_jobs_is_read_without_the_others(store: Path, tmp_path: Path) -> None:
    """What is copied for a job's answers grows with that job, and not with the number of jobs."""
    frames = [pd.DataFrame({"title": [f"{n} of {job}" for n in range(300)]}) for job in range(6)]
    for frame in frames:
        job = frame.llmbatch.submit(
            "Sort {{ title }}", "m", labels=["a", "b"], provider="file", store=store
        )
        label(job, tmp_path)
    pool, copied, every = pa.default_memory_pool(), [], job_folders(open_store(store))
    for folders in (every[:1], every):
        requests = pa.concat_tables([each for own in folders for each in requests_of(own)])
        hashes = short_hash_column(requests["request_hash"])
        hashes.sort()
        found = answers_of(folders, Output(folders[0].spec.output), hashes)
        names = requests["custom_id"].combine_chunks()
        assert found is not None
        before = pool.total_bytes_allocated()
        lines = list(found.lines(np.arange(len(names)), names))
        copied.append(pool.total_bytes_allocated() - before)
        assert len(lines) == len(names)

    # Six jobs have six times the answers of one; it was 36 times as much.
    assert copied[1] < 9 * copied[0]
