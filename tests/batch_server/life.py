"""A batch: its record, what validation says of its lines, and how it is shown as JSON."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from .answers import embedding_inputs
from .faults import KINDS, Fault
from .reply import Json

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
RUNNING = frozenset({"in_progress", "finalizing", "cancelling"})
DAY_SECONDS = 24 * 60 * 60


@dataclass(slots=True, eq=False, kw_only=True)
class Batch:
    """The server's own record of a batch; `lock` is held while it takes a step."""

    id: str
    ordinal: int
    endpoint: str
    input_file_id: str
    filename: str
    source: bytes
    project: str
    created_at: int
    metadata: dict[str, str] | None
    output_expires_after: Json | None
    status: str = "validating"
    stamps: dict[str, int] = field(default_factory=dict)
    model: str | None = None
    queued_tokens: int = 0
    lines: list[bytes] = field(default_factory=list)
    ran: int = 0
    completed: int = 0
    failed: int = 0
    total: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    errors: list[Json] = field(default_factory=list)
    output_file_id: str | None = None
    error_file_id: str | None = None
    output: list[bytes] = field(default_factory=list)
    failures: list[bytes] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    steps: int = 0
    looks: int = 0
    window: str = "24h"
    lock: threading.RLock = field(default_factory=threading.RLock)

    def fault(self, *names: str) -> Fault | None:
        """Return the fault of one of these names that sticks to the batch, if any."""
        return next((fault for fault in self.faults if fault.name in names), None)

    def groups(self) -> set[str]:
        """Return the names of all faults that would be a second one of their group."""
        taken = {KINDS[fault.name].group for fault in self.faults}
        return {name for name, kind in KINDS.items() if kind.group in taken}

    def names(self) -> tuple[str, ...]:
        """Return what a fault's `where` may call the batch by."""
        return (self.id, self.input_file_id, self.filename, *(self.metadata or {}).values())

    def move(self, status: str) -> None:
        """Enter a status, and stamp the time."""
        self.status = status
        self.stamps[f"{status}_at"] = int(time.time())

    @property
    def finished(self) -> bool:
        """Whether nothing will happen to the batch any more."""
        return self.status in TERMINAL


def show(batch: Batch) -> Json:
    """Return the batch as the API shows it."""
    ended = batch.finished and batch.ran > 0
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model if batch.finished else None,
        "errors": _shown_errors(batch),
        "input_file_id": batch.input_file_id,
        "completion_window": batch.window,
        "status": _shown_status(batch),
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at,
        "in_progress_at": batch.stamps.get("in_progress_at"),
        "expires_at": batch.created_at + DAY_SECONDS,
        "finalizing_at": batch.stamps.get("finalizing_at"),
        "completed_at": batch.stamps.get("completed_at"),
        "failed_at": batch.stamps.get("failed_at"),
        "expired_at": batch.stamps.get("expired_at"),
        "cancelling_at": batch.stamps.get("cancelling_at"),
        "cancelled_at": batch.stamps.get("cancelled_at"),
        "request_counts": _shown_counts(batch),
        "usage": _usage(batch) if ended else None,
        "metadata": batch.metadata,
    }


def _shown_status(batch: Batch) -> str:
    fault = batch.fault("unknown_status")
    if fault is not None and fault["status"] == batch.status:
        return str(fault["word"])
    return batch.status


def _shown_errors(batch: Batch) -> Json | None:
    if batch.fault("null_errors"):
        blank = {"code": None, "line": None, "message": None, "param": None}
        return {"object": None, "data": [blank for _ in batch.errors] or None}
    return {"object": "list", "data": batch.errors} if batch.errors else None


def _shown_counts(batch: Batch) -> Json | None:
    if batch.fault("null_request_counts"):
        return None
    if batch.fault("null_counts"):
        return {"total": None, "completed": None, "failed": None}
    return {"total": batch.total, "completed": batch.completed, "failed": batch.failed}


def _usage(batch: Batch) -> Json:
    return {
        "input_tokens": batch.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": batch.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": batch.input_tokens + batch.output_tokens,
    }


# --- validation ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What validation holds a batch file to."""

    max_requests: int
    max_embedding_inputs: int
    known_models: Collection[str] | None
    bad_body_keys: Collection[str]


@dataclass(frozen=True, slots=True)
class Checked:
    """What validation found: either errors, or the batch's lines, model and prompt tokens."""

    errors: list[Json]
    lines: list[bytes]
    model: str | None
    tokens: int


def batch_error(code: str, message: str, line: int | None = None, param: str | None = None) -> Json:
    """Return one entry of a batch's ``errors.data``; `line` counts from 1."""
    return {"code": code, "line": line, "message": message, "param": param}


def split_lines(source: bytes) -> list[bytes]:
    """Return the lines of a JSONL file, split at newline bytes only."""
    lines = source.split(b"\n")
    return lines[:-1] if not lines[-1].strip() else lines


def check(source: bytes, endpoint: str, rules: Rules) -> Checked:
    """Validate a batch file as the API does: one bad line fails all."""
    lines = split_lines(source)
    if not lines:
        error = batch_error("empty_file", "The input file is empty.")
        return Checked([error], [], None, 0)
    if len(lines) > rules.max_requests:
        message = f"The batch has {len(lines)} requests; the limit is {rules.max_requests}."
        return Checked([batch_error("too_many_tasks", message)], [], None, 0)
    inspection = _Inspection(endpoint, rules)
    errors = [error for number, line in enumerate(lines, 1) for error in inspection(number, line)]
    if inspection.inputs > rules.max_embedding_inputs:
        message = (
            f"The batch has {inspection.inputs} inputs; {rules.max_embedding_inputs} are allowed."
        )
        errors.append(batch_error("too_many_tasks", message))
    return Checked(errors, lines, inspection.model, sum(len(line) // 4 for line in lines))


def parse_line(line: bytes) -> Any:
    """Parse strict JSON in UTF-8: no byte order mark, no NaN."""
    return _STRICT.decode(line.decode("utf-8"))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant)


@dataclass(slots=True)
class _Inspection:
    """Goes through the lines in turn, and remembers what they must agree on."""

    endpoint: str
    rules: Rules
    model: str | None = None
    inputs: int = 0
    seen: set[str] = field(default_factory=set)

    def __call__(self, number: int, line: bytes) -> Iterator[Json]:
        """Yield the first error of a line, if it has one."""
        try:
            request = parse_line(line)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            yield batch_error("invalid_json_line", "This line is not a JSON object.", number)
            return
        for code, message, param in self._complaints(request):
            yield batch_error(code, message, number, param)
            return

    def _complaints(self, request: Json) -> Iterator[tuple[str, str, str | None]]:
        for key in ("custom_id", "method", "url", "body"):
            if not request.get(key):
                yield "missing_required_parameter", f"Missing required parameter: '{key}'.", key
        custom_id, body = request.get("custom_id"), request.get("body")
        if not isinstance(custom_id, str):
            yield "invalid_request", "custom_id must be a string.", "custom_id"
        elif custom_id in self.seen:
            yield "duplicate_custom_id", f"The custom_id '{custom_id}' is used twice.", "custom_id"
        else:
            self.seen.add(custom_id)
        if request.get("method") != "POST":
            yield "invalid_request", "The method must be POST.", "method"
        if request.get("url") != self.endpoint:
            message = f"The url {request.get('url')!r} is not the batch's, {self.endpoint!r}."
            yield "url_mismatch", message, "url"
        if not isinstance(body, dict):
            yield "invalid_request", "The body must be an object.", "body"
            return
        yield from self._body_complaints(body)

    def _body_complaints(self, body: Json) -> Iterator[tuple[str, str, str | None]]:
        model = body.get("model")
        self.model = self.model or model
        if not model:
            yield "missing_required_parameter", "Missing required parameter: 'model'.", "body.model"
        elif model != self.model:
            yield (
                "model_mismatch",
                f"{model!r} is not {self.model!r}: one model a file.",
                "body.model",
            )
        elif self.rules.known_models is not None and model not in self.rules.known_models:
            yield "model_not_found", f"The model '{model}' does not exist.", "body.model"
        for key in self.rules.bad_body_keys:
            if key in body:
                yield "invalid_request", f"Unknown parameter: '{key}'.", f"body.{key}"
        if body.get("stream"):
            yield "invalid_request", "Streaming is not served in batches.", "body.stream"
        if self.endpoint.endswith("/embeddings"):
            self.inputs += len(embedding_inputs(body))
