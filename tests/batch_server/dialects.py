"""The service as Groq, Together and Mistral speak it: other shapes of what goes in and out."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from . import gemini
from .reply import Json

DialectName: TypeAlias = Literal["openai", "groq", "together", "mistral", "gemini"]

PURPOSES = {
    "openai": "batch",
    "groq": "batch",
    "together": "batch-api",
    "mistral": "batch",
    "gemini": "batch",
}
WINDOWS = {
    "openai": r"24h",
    "groq": r"(2[4-9]|[3-9]\d|1[0-5]\d|16[0-8])h|[1-7]d",
    "together": "24h",
    "gemini": "24h",
    "mistral": r"([1-9]|[1-9]\d|1[0-5]\d|16[0-8])h",
}
MISTRALS = {
    "validating": "QUEUED",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "completed": "SUCCESS",
    "failed": "FAILED",
    "expired": "TIMEOUT_EXCEEDED",
    "cancelling": "CANCELLATION_REQUESTED",
    "cancelled": "CANCELLED",
}
MISTRAL_BODY = frozenset(
    {"messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed", "metadata",
     "response_format", "tools", "tool_choice", "presence_penalty", "frequency_penalty", "n",
     "prediction", "parallel_tool_calls", "reasoning_effort", "prompt_mode", "prompt_cache_key",
     "safe_prompt", "logprobs", "top_logprobs", "top_k", "min_tokens", "guardrails"}
)  # fmt: skip
"""What one of its requests may hold; the job names the model."""


def understood(dialect: DialectName, asked: Json, raw_path: str) -> Json:
    """A create in OpenAI's words."""
    if dialect == "gemini":
        return gemini.understood(asked, raw_path)
    if dialect != "mistral":
        return asked
    return {
        "endpoint": asked.get("endpoint"),
        "input_file_id": (asked.get("input_files") or [None])[0],
        "completion_window": f"{asked.get('timeout_hours', 24)}h",
        "metadata": asked.get("metadata"),
        "model": asked.get("model"),
    }


def whole_lines(dialect: DialectName, content: bytes, asked: Json) -> bytes:
    """A batch file with the members that OpenAI's has: Mistral's create says them once for all."""
    if dialect == "gemini":
        return b"\n".join(gemini.whole_line(line, asked["model"]) for line in content.splitlines())
    if dialect != "mistral":
        return content
    lines = []
    for line in content.split(b"\n"):
        try:
            request = json.loads(line)
            strange = request.keys() ^ {"custom_id", "body"}
        except (ValueError, AttributeError):
            lines.append(line)
            continue
        assert not strange, strange
        body = {"model": asked["model"], **request["body"]}
        whole = {**request, "method": "POST", "url": asked["endpoint"], "body": body}
        lines.append(json.dumps(whole).encode())
    return b"\n".join(lines)


def row_complaint(dialect: DialectName, body: Json) -> str | None:
    """What a server says of one request that another one would take."""
    if dialect == "gemini" and "strange" in body:
        return f"Unknown name {body['strange']}"
    if dialect != "mistral":
        return None
    for name in sorted(body.keys() - MISTRAL_BODY - {"model"}):
        return f"body.{name}: Extra inputs are not permitted"
    roles = {message["role"] for message in body["messages"]} - {"system", "user", "assistant"}
    return f"body.messages: no role {min(roles)!r}" if roles else None


def understood_live(dialect: DialectName, body: Json, raw_path: str) -> Json:
    """A direct call in OpenAI's words."""
    if dialect == "gemini":
        model = re.search(r"/models/([^/]+):generateContent", raw_path)
        body = {"model": model and model[1], **gemini.chat_body(body)}
    return body


def spoken_live(dialect: DialectName, document: Json) -> Json:
    """The answer to a direct call as the dialect says it."""
    if dialect != "gemini":
        return document
    if error := document.get("error"):
        return {"error": {"code": 500, "message": error["message"], "status": "INTERNAL"}}
    return gemini.answer(document)


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
    if dialect == "gemini":
        return gemini.operation(batch)
    if dialect == "mistral":
        return _mistral_job(batch)
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


def _mistral_job(batch: Json) -> Json:
    counts = batch["request_counts"] or {"total": 0, "completed": 0, "failed": 0}
    errors = batch["errors"]["data"] or () if batch["errors"] else ()
    return {
        "id": batch["id"],
        "object": "batch",
        "input_files": [batch["input_file_id"]],
        "endpoint": batch["endpoint"],
        "model": batch["model"],
        "agent_id": None,
        "metadata": batch["metadata"],
        "errors": [{"message": str(error["message"]), "count": 1} for error in errors],
        "status": MISTRALS.get(batch["status"], batch["status"].upper()),
        "created_at": batch["created_at"],
        "started_at": batch["in_progress_at"],
        "completed_at": batch["completed_at"] or batch["expired_at"] or batch["cancelled_at"],
        "total_requests": counts["total"],
        "completed_requests": counts["completed"] and counts["completed"] + counts["failed"],
        "succeeded_requests": counts["completed"],
        "failed_requests": counts["failed"],
        "output_file": batch["output_file_id"],
        "error_file": batch["error_file_id"],
        "outputs": None,
    }


def listed(dialect: DialectName, page: Json, *, batches: bool) -> Any:
    """A list of batches or files: Groq's ends without saying so, Together's is bare for batches."""
    if dialect == "together" and batches:
        return [spoken(dialect, batch) for batch in page["data"]]
    if dialect == "gemini":
        more = {"nextPageToken": page["last_id"]} if page["has_more"] else {}
        return {"operations": [spoken(dialect, each) for each in page["data"]], **more}
    if dialect == "mistral":
        data = [
            spoken(dialect, each) if batches else file_as(dialect, each) for each in page["data"]
        ]
        return {"object": "list", "data": data, "total": len(data)}
    if dialect == "groq":
        return {"object": "list", "data": page["data"]}
    return page


def file_as(dialect: DialectName, file: Json) -> Json:
    """A file as the dialect shows it."""
    if dialect == "gemini":
        return gemini.file_as(file)
    if dialect != "mistral":
        return file
    return {**file, "sample_type": "batch_request", "source": "upload", "mimetype": None}


def query_of(dialect: DialectName, query: dict[str, str]) -> dict[str, str]:
    """What the dialect understands of a query: Groq pages in circles, whatever `after` says."""
    if dialect == "gemini":
        names = {"pageSize": "limit", "pageToken": "after"}
        return {names[name]: value for name, value in query.items()}
    if dialect == "mistral":
        return {k: v for k, v in query.items() if k in {"purpose", "page", "page_size"}}
    return {k: v for k, v in query.items() if dialect == "openai" or k != "after"}


def _iso(moment: int | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()
