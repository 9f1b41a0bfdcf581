"""Jobs with known answers, for tests of reviews: nothing is sent, nothing is waited for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from frameenrich.verbs.job import Job

LABELS = ["Kitchen", "Garden", "Toys"]


def response(custom_id: str, content: str) -> str:
    """Return a line of a responses file."""
    choice = {"message": {"content": content}, "finish_reason": "stop"}
    body = {"choices": [choice], "model": "m"}
    envelope = {"custom_id": custom_id, "response": {"status_code": 200, "body": body}}
    return json.dumps({**envelope, "error": None})


def answered(
    frame: pd.DataFrame,
    contents: Sequence[str | Mapping[str, Any]],
    store: Path,
    template: str = "Where is {{ title }}?",
    **options: Any,
) -> Job:
    """Return a job with an answer for each row of a frame."""
    job: Job = frame.llmbatch.submit(template, "m", provider="file", store=store, **options)
    texts = [c if isinstance(c, str) else json.dumps(c) for c in contents]
    ids = job.collect(usage=True)[f"{job.spec.name}_custom_id"]
    path = Path(store) / "responses.jsonl"
    path.write_text("\n".join(map(response, ids, texts)) + "\n")
    job.import_responses(path)
    return job


def goods(counts: Mapping[str, int]) -> tuple[pd.DataFrame, list[str]]:
    """Return a frame of goods, and so many answers of each label, mixed."""
    labels = [label for label, n in counts.items() for _ in range(n)]
    labels = [labels[i * 7919 % len(labels)] for i in range(len(labels))]
    titles = [f"thing {i}" for i in range(len(labels))]
    index = pd.Index([f"T-{i:04}" for i in range(len(labels))], name="sku")
    return pd.DataFrame({"title": titles}, index=index), labels
