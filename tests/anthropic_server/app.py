"""The server: routes, and what a batch does at each step."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from batch_server import BatchServer
from batch_server.books import ApiError
from batch_server.faults import Fault
from batch_server.reply import Json, user_text
from batch_server.rows import ask, row_name
from batch_server.wire import Answer, Request, json_answer

from .life import (
    MessageBatch,
    chat_body,
    check_create,
    complaint,
    errored,
    now,
    result_lines,
    result_of,
    show,
    shuffled,
)

_PATH = "/v1/messages/batches"
_UNMARKED = slice(9, None)


@dataclass(kw_only=True, eq=False)
class AnthropicServer(BatchServer):
    """The service on a loopback port, with the parameters of `batch_server.BatchServer`.

    A batch takes `steps_per_poll` steps whenever it is looked at or listed.
    """

    max_requests: int = 100_000

    def __post_init__(self) -> None:
        """Start with empty books."""
        super().__post_init__()
        self._made: dict[str, MessageBatch] = {}

    @property
    def batches(self) -> dict[str, Json]:
        """Every batch ever made, oldest first, and what the API does not tell of it."""
        return {
            batch.id: {
                **show(batch, self.origin),
                "custom_ids": [request["custom_id"] for request in batch.requests],
                "params": [request["params"] for request in batch.requests],
                "deleted": batch.deleted,
            }
            for batch in self._made.values()
        }

    def route(self, request: Request) -> Answer:
        """Answer a request as the API does."""
        keys = {self.require_key} if isinstance(self.require_key, str) else self.require_key
        if keys is not None and _key(request) not in keys:
            raise ApiError(401, f"invalid x-api-key {_key(request)}")
        if "anthropic-version" not in request.headers:
            raise ApiError(400, "anthropic-version: header is required")
        for method, pattern, act in _ROUTES:
            if method == request.method and (found := re.fullmatch(pattern, request.path)):
                with self._lock:
                    return act(self, request, *found.groups())
        raise ApiError(404, f"Not found ({request.method} {request.raw_path})")

    def create(self, request: Request) -> Answer:
        """Make a batch."""
        requests = check_create(request.parse_json(), self.max_requests)
        batch = MessageBatch(
            id=f"msgbatch_{next(self._numbers):06d}",
            project=_key(request),
            requests=requests,
            created_at=now(),
        )
        self._made[batch.id] = batch
        return json_answer(show(batch, self.origin))

    def message(self, request: Request) -> Answer:
        """Answer one request at once."""
        params = request.parse_json()
        own = row_name(request.headers.get("x-client-request-id", ""))
        if reason := complaint(params):
            return json_answer(errored("invalid_request_error", reason)["error"], 400)
        result = self._answer(own, params, self._faults_of(own, chat_body(params)))
        if result["type"] == "succeeded":
            return json_answer(result["message"])
        error = result["error"]
        return json_answer(error, _CODES.get(error["error"]["type"], 500))

    def list_page(self, request: Request) -> Answer:
        """Show a page of the batches, the newest first."""
        alive = [batch for batch in reversed(self._made.values()) if not batch.deleted]
        for batch in alive:
            self._step(batch)
        ids = [batch.id for batch in alive]
        first = ids.index(request.query["after_id"]) + 1 if "after_id" in request.query else 0
        limit = int(request.query.get("limit", 20))
        page = [show(batch, self.origin) for batch in alive[first : first + limit]]
        return json_answer(
            {
                "data": page,
                "has_more": first + limit < len(alive),
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
            }
        )

    def found(self, batch_id: str, request: Request) -> MessageBatch:
        """Return a batch that this key may see."""
        batch = self._made.get(batch_id)
        strange = batch is not None and self.per_key_projects and batch.project != _key(request)
        if batch is None or batch.deleted or strange:
            raise ApiError(404, f"Not found: {batch_id}")
        return batch

    def look(self, request: Request, batch_id: str) -> Answer:
        """Let a batch take its steps, then show it."""
        batch = self.found(batch_id, request)
        self._step(batch)
        return json_answer(show(batch, self.origin))

    def stop_batch(self, request: Request, batch_id: str) -> Answer:
        """Begin to cancel a batch: what has run by now stays."""
        batch = self.found(batch_id, request)
        if batch.status == "in_progress":
            batch.canceled = True
            self._run(batch, int(len(batch.requests) * self.cancel_ran))
            batch.status = "canceling"
        return json_answer(show(batch, self.origin))

    def delete(self, request: Request, batch_id: str) -> Answer:
        """Delete an ended batch."""
        batch = self.found(batch_id, request)
        if batch.status != "ended":
            raise ApiError(400, "Only ended batches can be deleted.")
        batch.deleted = True
        return json_answer({"id": batch_id, "type": "message_batch_deleted"})

    def results(self, request: Request, batch_id: str) -> Answer:
        """Stream the results, in no order."""
        batch = self.found(batch_id, request)
        if batch.status != "ended":
            raise ApiError(400, "The batch has no results yet.")
        lines = shuffled(batch.lines, f"{self.seed} {batch.id}") if self.shuffle else batch.lines
        body = b"".join(line + b"\n" for line in lines)
        return Answer(body=body, content_type="application/binary", chunked=True)

    # --- the life of a batch ---------------------------------------------------------------------

    def _step(self, batch: MessageBatch) -> None:
        for _ in range(self.steps_per_poll):
            batch.faults.extend(
                self.faults.take("batch", lambda: (batch.id,), ({},), attempt=batch.steps)
                if not batch.faults
                else ()
            )
            held = {self._held.get(None), self._held.get(batch.id)}
            if batch.status == "ended" or batch.status in held:
                return
            if batch.fault("stuck") and batch.status != "canceling":
                return
            batch.steps += 1
            if batch.status == "in_progress" and batch.steps > self.in_progress_steps:
                end = batch.fault("expired", "cancelled")
                self._run(batch, int(len(batch.requests) * (end["ran"] if end else 1)))
                self._finish(batch, "expired" if end and end.name == "expired" else "canceled")
            elif batch.status == "canceling":
                self._finish(batch, "canceled")

    def _run(self, batch: MessageBatch, until: int) -> None:
        while len(batch.results) < until:
            request = batch.requests[len(batch.results)]
            own, params = request["custom_id"], request["params"]
            name, faults = row_name(own[_UNMARKED]), tuple[Fault, ...]()
            if reason := complaint(params):
                result = errored("invalid_request_error", reason)
            else:
                faults = self._faults_of(name, chat_body(params))
                result = self._answer(name, params, faults)
            batch.results.append((own, result))
            batch.lines.extend(result_lines(own, result, faults))

    def _faults_of(self, own: str, body: Json) -> tuple[Fault, ...]:
        return self.faults.take(
            "row", lambda: (own, user_text(body)), (own, body), attempt=self.executed[own]
        )

    def _answer(self, own: str, params: Json, faults: tuple[Fault, ...]) -> Json:
        if any(fault.name == "expired_line" for fault in faults):
            return {"type": "expired"}
        body = chat_body(params)
        reply = ask("/chat/completions", body, own, self.answer, faults)
        self.note_run(own, params)
        return result_of(params, reply, next(self._numbers))

    def _finish(self, batch: MessageBatch, rest: str) -> None:
        for request in batch.requests[len(batch.results) :]:
            result = {"type": rest}
            batch.results.append((request["custom_id"], result))
            batch.lines.extend(result_lines(request["custom_id"], result, ()))
        batch.status = "ended"
        batch.ended_at = now()


def _key(request: Request) -> str:
    """The key, as older and newer versions of the SDK send it."""
    return request.headers.get("x-api-key") or request.key


_CODES = {"invalid_request_error": 400, "rate_limit_error": 429, "overloaded_error": 529}
_ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("POST", "/v1/messages", AnthropicServer.message),
    ("POST", _PATH, AnthropicServer.create),
    ("GET", _PATH, AnthropicServer.list_page),
    ("GET", f"{_PATH}/([^/]+)", AnthropicServer.look),
    ("GET", f"{_PATH}/([^/]+)/results", AnthropicServer.results),
    ("POST", f"{_PATH}/([^/]+)/cancel", AnthropicServer.stop_batch),
    ("DELETE", f"{_PATH}/([^/]+)", AnthropicServer.delete),
)
