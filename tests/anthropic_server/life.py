"""A message batch: its record and results; a request in the words of `batch_server`."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from batch_server.books import ApiError
from batch_server.faults import Fault
from batch_server.reply import Json, Reply
from batch_server.rows import Line, written

ALLOWED = frozenset(
    {"model", "max_tokens", "messages", "system", "temperature", "top_p", "top_k", "stop_sequences",
     "thinking", "metadata", "output_config", "service_tier", "cache_control"}
)  # fmt: skip
MEDIA = {"image/jpeg", "image/png", "image/gif", "image/webp"}
STOPS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


@dataclass(slots=True, eq=False, kw_only=True)
class MessageBatch:
    """The server's own record of a batch."""

    id: str
    project: str
    requests: list[Json]
    created_at: datetime
    status: str = "in_progress"
    canceled: bool = False
    ended_at: datetime | None = None
    results: list[tuple[str, Json]] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    steps: int = 0
    deleted: bool = False

    def fault(self, *names: str) -> Fault | None:
        """Return the fault of one of these names that sticks to the batch, if any."""
        return next((fault for fault in self.faults if fault.name in names), None)


def show(batch: MessageBatch, origin: str) -> Json:
    """Return the batch as the API shows it; counts come only at the end."""
    ended = batch.status == "ended"
    counts = dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0)
    for _, result in batch.results if ended else ():
        counts[result["type"]] += 1
    cancelled_at = batch.created_at.isoformat() if batch.canceled else None
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": batch.status,
        "request_counts": {"processing": 0 if ended else len(batch.requests), **counts},
        "created_at": batch.created_at.isoformat(),
        "expires_at": batch.created_at.isoformat(),
        "ended_at": batch.ended_at.isoformat() if batch.ended_at else None,
        "cancel_initiated_at": cancelled_at,
        "archived_at": None,
        "results_url": f"{origin}/v1/messages/batches/{batch.id}/results" if ended else None,
    }


def check_create(asked: Json, max_requests: int) -> list[Json]:
    """Return the requests of a create; what is wrong with the list itself refuses all of it."""
    requests = asked.get("requests")
    if set(asked) != {"requests"} or not isinstance(requests, list) or not requests:
        raise ApiError(400, "requests: Field required")
    if len(requests) > max_requests:
        raise ApiError(413, "Request exceeds the maximum size")
    seen: set[str] = set()
    for place, request in enumerate(requests):
        own = request.get("custom_id")
        if set(request) != {"custom_id", "params"}:
            raise ApiError(400, f"requests.{place}: Extra inputs are not permitted")
        if not isinstance(own, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", own):
            raise ApiError(400, f"requests.{place}.custom_id: String should match pattern")
        if own in seen:
            raise ApiError(400, f"requests.{place}.custom_id: not unique")
        seen.add(own)
    return requests


def complaint(params: Json) -> str | None:
    """Say what is wrong with one request, as its result will."""
    if unknown := params.keys() - ALLOWED:
        return f"{min(unknown)}: Extra inputs are not permitted"
    if not isinstance(params.get("max_tokens"), int) or params["max_tokens"] < 1:
        return "max_tokens: Field required"
    if params.get("temperature", 0) > 1:
        return "temperature: range: 0..1"
    messages = params.get("messages")
    if not messages:
        return "messages: at least one message is required"
    if any(message["role"] not in {"user", "assistant"} for message in messages):
        return "messages: Unexpected role"
    blocks = [b for m in messages if isinstance(m["content"], list) for b in m["content"]]
    for block in blocks:
        source = block.get("source", {})
        if source.get("type") == "base64" and source["media_type"] not in MEDIA:
            return "messages: media_type: Input should be one of ..."
        if block["type"] == "text" and not block["text"]:
            return "messages: text content blocks must be non-empty"
    return None


def chat_body(params: Json) -> Json:
    """Return the request in the form whose answers `batch_server` knows."""
    system = [{"role": "system", "content": params["system"]}] if "system" in params else []
    turns = [{**m, "content": _content(m["content"])} for m in params["messages"]]
    body: Json = {"model": params["model"], "messages": [*system, *turns]}
    asked = params.get("output_config", {}).get("format")
    if asked is not None:
        described = {"name": "answer", "schema": asked["schema"]}
        body["response_format"] = {"type": "json_schema", "json_schema": described}
    return body


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [b if b["type"] == "text" else _image(b["source"]) for b in content]


def _image(source: Json) -> Json:
    url = source.get("url") or f"data:{source['media_type']};base64,{source['data']}"
    return {"type": "image_url", "image_url": {"url": url}}


def result_of(params: Json, reply: Reply, number: int) -> Json:
    """Return the result of a request that ran."""
    if reply.failed:
        kind = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}
        message = (reply.error or {}).get("message")
        return errored(kind.get(reply.status_code, "api_error"), str(message))
    text = reply.content
    refused = reply.refusal is not None or reply.finish_reason == "content_filter"
    thought = [{"type": "thinking", "thinking": "Hm.", "signature": "s"}]
    message = {
        "id": f"msg_{number:06d}",
        "type": "message",
        "role": "assistant",
        "model": params["model"],
        "content": [
            *(thought if "thinking" in params else ()),
            *([{"type": "text", "text": text}] if text else ()),
        ],
        "stop_reason": "refusal" if refused else STOPS.get(reply.finish_reason, "end_turn"),
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": None, "explanation": reply.refusal}
        if refused
        else None,
        "usage": {
            "input_tokens": len(json.dumps(params["messages"])) // 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": len(text or "") // 4 + 1,
            "service_tier": "batch",
        },
    }
    return {"type": "succeeded", "message": message}


def errored(kind: str, message: str) -> Json:
    """Return the result of a request that failed; its error comes in an envelope."""
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return {"type": "errored", "error": error}


def result_lines(custom_id: str, result: Json, faults: tuple[Fault, ...]) -> Iterator[bytes]:
    """Yield what is written for a result, after its row's faults."""
    whole = Line({"custom_id": custom_id, "result": result}, to_output=True)
    spoil = tuple(replace(f) for f in faults if f.name != "string_body")
    for data, _ in written(whole, spoil):
        yield data.replace(b'"result"', b'"x":"caf\xe9","result"', 1) if _not_utf8(faults) else data


def _not_utf8(faults: tuple[Fault, ...]) -> bool:
    return any(fault.name == "not_utf8_line" for fault in faults)


def shuffled(lines: list[bytes], seed: str) -> list[bytes]:
    """Return the lines in another order, the same each time."""
    lines = list(lines)
    random.Random(seed).shuffle(lines)
    return lines


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
