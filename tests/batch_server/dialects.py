"""The same service as Groq and Together speak it: another shape of what goes in and out."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from .reply import Json

DialectName: TypeAlias = Literal["openai", "groq", "together"]

PURPOSES = {"openai": "batch", "groq": "batch", "together": "batch-api"}
WINDOWS = {
    "openai": r"24h",
    "groq": r"(2[4-9]|[3-9]\d|1[0-5]\d|16[0-8])h|[1-7]d",
    "together": "24h",
}


def complaint(dialect: DialectName, asked: Json) -> tuple[str, str] | None:
    """What a server says of a create that another one would take: a message and a parameter."""
    strangers = {"groq": {"output_expires_after"}, "together": {"output_expires_after", "metadata"}}
    for name in strangers.get(dialect, set()) & asked.keys():
        return f"Unknown parameter: '{name}'.", name
    if not re.fullmatch(WINDOWS[dialect], str(asked.get("completion_window"))):
        return "Invalid completion_window.", "completion_window"
    return None


def spoken(dialect: DialectName, batch: Json, *, created: bool = False) -> Json:
    """A batch as the dialect shows it."""
    if dialect != "together":
        return batch
    failed = batch["errors"] and "; ".join(str(e["message"]) for e in batch["errors"]["data"])
    job = {
        "id": batch["id"],
        "user_id": "user_1",
        "input_file_id": batch["input_file_id"],
        "status": batch["status"].upper(),
        "job_deadline": _iso(batch["expires_at"]),
        "created_at": _iso(batch["created_at"]),
        "endpoint": batch["endpoint"],
        "progress": 50.0,
        "model_id": batch["model"],
        "output_file_id": batch["output_file_id"],
        "error_file_id": batch["error_file_id"],
        "error": failed or None,
        "completed_at": _iso(batch["completed_at"]),
    }
    return {"job": job, "warning": None} if created else job


def listed(dialect: DialectName, page: Json, *, batches: bool) -> Any:
    """A list of batches or files: Groq's ends without saying so, Together's is bare for batches."""
    if dialect == "together" and batches:
        return [spoken(dialect, batch) for batch in page["data"]]
    if dialect == "groq":
        return {"object": "list", "data": page["data"]}
    return page


def query_of(dialect: DialectName, query: dict[str, str]) -> dict[str, str]:
    """What the dialect understands of a query: Groq pages in circles, whatever `after` says."""
    return {k: v for k, v in query.items() if dialect == "openai" or k != "after"}


def _iso(moment: int | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()
