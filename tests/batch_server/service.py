"""The Batches API and the live calls, without the HTTP."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from . import gemini
from .answers import REQUIRED, response_body, token_counts
from .books import ApiError, Books, StoredFile
from .dialects import complaint as dialect_complaint
from .dialects import row_complaint, whole_lines
from .faults import Fault, make_fault
from .life import RUNNING, Batch, Rules, batch_error, check, parse_line, show
from .reply import Json, body_hash, user_text
from .rows import BATCH_ONLY, ask, expired_line, result_line, row_name, stranger_line, written


class Service(Books):
    """What the API does with batches and live calls; its parameters are those of :class:`Books`."""

    # --- control ---------------------------------------------------------------------------------

    def hold(self, status: str = "in_progress", batch_id: str | None = None) -> None:
        """Keep every batch (or one) in a status once it is there, until :meth:`release`."""
        self._held[batch_id] = status

    def release(self, batch_id: str | None = None) -> None:
        """Let go of what was held: one batch, or all of them and every `stuck` one."""
        if batch_id is None:
            self._held.clear()
        self._held.pop(batch_id, None)
        for batch in self._chosen(batch_id):
            batch.faults = [fault for fault in batch.faults if fault.name != "stuck"]

    def advance(self, batch_id: str | None = None, *, steps: int = 1) -> None:
        """Let every batch (or one) take steps now."""
        for batch in self._chosen(batch_id):
            self._take_steps(batch, steps)

    def finish(self, batch_id: str | None = None) -> None:
        """Let every batch (or one) go on to its end, or until it is held."""
        self.advance(batch_id, steps=self.in_progress_steps + 20)

    def _chosen(self, batch_id: str | None) -> list[Batch]:
        with self._lock:
            return list(self._batches.values()) if batch_id is None else [self._batches[batch_id]]

    def _is_held(self, batch: Batch) -> bool:
        stuck = batch.fault("stuck")
        held = {self._held.get(None), self._held.get(batch.id), stuck and stuck["status"]}
        return batch.status in held

    # --- batches ---------------------------------------------------------------------------------

    def create_batch(self, asked: Json, project: str) -> Json:
        """Make a batch of a file."""
        self._check_create(asked)
        file = self._input_file(str(asked["input_file_id"]), project)
        with self._lock:
            ordinal = next(self._numbers)
            batch = Batch(
                id=f"batch_{ordinal:06d}",
                ordinal=ordinal,
                endpoint=asked["endpoint"],
                input_file_id=file.id,
                filename=file.filename,
                source=whole_lines(self.dialect, file.content, asked),
                project=project,
                created_at=int(time.time()),
                metadata=asked.get("metadata"),
                window=asked["completion_window"],
                output_expires_after=asked.get("output_expires_after"),
            )
            self._batches[batch.id] = batch
        self._meet_faults(batch)
        shown = show(batch)
        if self.instant:
            self._take_steps(batch, self.in_progress_steps + 20)
        return shown

    def _check_create(self, asked: Json) -> None:
        for key in ("input_file_id", "endpoint", "completion_window"):
            if not asked.get(key):
                message = f"Missing required parameter: '{key}'."
                raise ApiError(400, message, code="missing_required_parameter", param=key)
        if asked["endpoint"] not in self._endpoints():
            message = f"Invalid endpoint {asked['endpoint']!r}: one of {self._endpoints()}."
            raise ApiError(400, message, code="invalid_value", param="endpoint")
        if found := dialect_complaint(self.dialect, asked):
            raise ApiError(400, found[0], code="invalid_value", param=found[1])
        if complaint := _metadata_complaint(asked.get("metadata")):
            raise ApiError(400, complaint, code="invalid_value", param="metadata")

    def _endpoints(self) -> list[str]:
        return [f"/v1{name}" for name in REQUIRED] + (list(REQUIRED) if self.azure else [])

    def _input_file(self, file_id: str, project: str) -> StoredFile:
        try:
            file = self.file(file_id, project)
        except ApiError:
            message = f"Cannot find file {file_id}, or organization has no access to it."
            raise ApiError(400, message, param="input_file_id") from None
        if file.purpose == "batch_output":
            raise ApiError(400, f"File {file_id} has not the purpose 'batch'.")
        if self.unready_looks and not self.is_ready(file_id):
            raise ApiError(400, f"File {file_id} is not in the state 'processed'.")
        return file

    def batch(self, batch_id: str, project: str) -> Batch:
        """Return a batch that this project may see."""
        with self._lock:
            batch = self._batches.get(batch_id)
        gone = batch_id in self._gone
        if batch is None or gone or not self.may_see(batch.project, project):
            raise ApiError(404, f"No batch found with id '{batch_id}'.")
        return batch

    def poll_batch(self, batch_id: str, project: str) -> Json:
        """Let a batch take its steps, then show it."""
        batch = self.batch(batch_id, project)
        with batch.lock:
            self._take_steps(batch, self.steps_per_poll)
            shown = show(batch)
            late = batch.fault("late_files")
            if late is not None and batch.finished and batch.looks < late["looks"]:
                batch.looks += 1
                shown |= {"output_file_id": None, "error_file_id": None}
            return shown

    def list_batches(self, query: Mapping[str, str], project: str) -> Json:
        """Return a page of the batches, newest first; no batch takes a step."""
        with self._lock:
            batches = [
                batch
                for batch in self._batches.values()
                if self.may_see(batch.project, project) and batch.id not in self._gone
            ]
        return self.page([show(b) for b in reversed(batches)], query, default=20, most=100)

    def cancel_batch(self, batch_id: str, project: str) -> Json:
        """Begin to cancel a batch: what a running one has run by now stays."""
        batch = self.batch(batch_id, project)
        with batch.lock:
            if batch.finished:
                raise ApiError(409, f"Cannot cancel a batch with status '{batch.status}'.")
            if batch.status == "in_progress":
                self._run_rows(batch, int(batch.total * self.cancel_ran))
            if batch.status != "cancelling":
                batch.move("cancelling")
            return show(batch)

    def delete_batch(self, batch_id: str, project: str) -> Json:
        """Delete a batch; it stays in the ledger."""
        self.batch(batch_id, project)
        with self._lock:
            self._gone.add(batch_id)
        return {"id": batch_id, "object": "batch", "deleted": True}

    # --- the life of a batch ---------------------------------------------------------------------

    def _meet_faults(self, batch: Batch) -> None:
        with batch.lock:
            struck = self.faults.take(
                "batch", batch.names, (show(batch),), attempt=batch.steps, without=batch.groups()
            )
            batch.faults.extend(struck)

    def _take_steps(self, batch: Batch, steps: int) -> None:
        with batch.lock:
            for _ in range(steps):
                if batch.finished:
                    return
                self._meet_faults(batch)
                if self._is_held(batch):
                    return
                batch.steps += 1
                self._steps()[batch.status](batch)

    def _steps(self) -> Mapping[str, Callable[[Batch], None]]:
        return {
            "validating": self._validate,
            "in_progress": self._progress,
            "finalizing": lambda batch: self._end(batch, "completed"),
            "cancelling": lambda batch: self._end(batch, "cancelled"),
        }

    def _validate(self, batch: Batch) -> None:
        late = batch.fault("fails_after_validating")
        if late is not None:
            if batch.steps >= late["steps"]:
                self._fail(batch, [batch_error(late["code"], late["message"])])
            return
        rules = Rules(
            max_requests=self.max_requests,
            max_embedding_inputs=self.max_embedding_inputs,
            known_models=self.known_models,
            bad_body_keys=self.bad_body_keys,
        )
        checked = check(batch.source, batch.endpoint, rules)
        batch.source = b""
        batch.model = checked.model
        if checked.errors:
            self._fail(batch, checked.errors if self.list_all_errors else checked.errors[:1])
        elif error := self._queue(batch, checked.tokens):
            self._fail(batch, [error])
        else:
            batch.lines = checked.lines
            batch.total = len(checked.lines)
            if self.shuffle:
                random.Random(f"{self.seed} run {batch.ordinal}").shuffle(batch.lines)

    def _fail(self, batch: Batch, errors: list[Json]) -> None:
        batch.errors = errors
        batch.move("failed")

    def _queue(self, batch: Batch, tokens: int) -> Json | None:
        """Enter the queue of the model, and so `in_progress`; else say why not."""
        limit = self._queue_limit(batch.model or "")
        with self._lock:
            waiting = sum(
                other.queued_tokens
                for other in self._batches.values()
                if other.status in RUNNING and other.model == batch.model
            )
            if waiting + tokens <= limit and not batch.fault("token_limit_exceeded"):
                batch.queued_tokens = tokens
                batch.move("in_progress")
                return None
        message = (
            f"Enqueued token limit reached for {batch.model}. Limit: {limit} enqueued tokens. "
            "Please try again once some in_progress batches have been completed."
        )
        return batch_error("token_limit_exceeded", message)

    def _queue_limit(self, model: str) -> float:
        limits = self.max_enqueued_tokens
        if isinstance(limits, Mapping):
            return limits.get(model, math.inf)
        return math.inf if limits is None else limits

    def _progress(self, batch: Batch) -> None:
        end = batch.fault("expired", "expired_silently", "cancelled")
        if end is not None:
            self._run_rows(batch, int(batch.total * end["ran"]))
            self._end(batch, "cancelled" if end.name == "cancelled" else "expired", end)
            return
        share = math.ceil(batch.total / self.in_progress_steps)
        self._run_rows(batch, min(batch.total, batch.ran + share))
        if batch.ran >= batch.total:
            batch.move("finalizing")

    def _run_rows(self, batch: Batch, until: int) -> None:
        while batch.ran < until:
            self._run_row(batch, batch.lines[batch.ran])
            batch.ran += 1

    def _run_row(self, batch: Batch, line: bytes) -> None:
        request = parse_line(line)
        custom_id, body = request["custom_id"], request["body"]
        endpoint = batch.endpoint.removeprefix("/v1")
        name = row_name(custom_id)
        faults = self._row_faults(name, body)
        if failing := batch.fault("all_lines_failed"):
            status = failing["status"]
            faults = (make_fault("http_error", status=status, code="invalid_value"), *faults)
        if strange := row_complaint(self.dialect, body):
            refusal = make_fault("http_error", status=422, code="invalid_value", message=strange)
            faults = (refusal, *faults)
        number = next(self._numbers)
        if any(fault.name == "expired_line" for fault in faults):
            self._write(batch, written(expired_line(number, custom_id), ()))
            return
        reply = ask(endpoint, body, name, self.answer, faults)
        self.note_run(name, body)
        prompt, completion = (0, 0) if reply.failed else token_counts(body, reply)
        batch.input_tokens += prompt
        batch.output_tokens += completion
        batch.failed += reply.failed
        batch.completed += not reply.failed
        result = result_line(number, custom_id, endpoint, body, reply, faults)
        self._write(batch, written(result, faults))

    def _row_faults(
        self, custom_id: str, body: Json, without: Collection[str] = ()
    ) -> tuple[Fault, ...]:
        return self.faults.take(
            "row",
            lambda: (custom_id, user_text(body)),
            (custom_id, body),
            attempt=self.executed[custom_id],
            without=without,
        )

    def _write(self, batch: Batch, pairs: Iterable[tuple[bytes, bool]]) -> None:
        for data, to_output in pairs:
            (batch.output if to_output else batch.failures).append(data)

    def _end(self, batch: Batch, status: str, end: Fault | None = None) -> None:
        """Write the result files of a batch, and let it rest."""
        if end is not None and end["lines"]:
            self._write_unrun(batch, status)
        if batch.fault("null_custom_id_line"):
            batch.output.append(stranger_line(next(self._numbers), None))
        if batch.fault("stranger_line"):
            batch.output.append(stranger_line(next(self._numbers), "nobody-asked-for-this"))
        self._write_files(batch)
        batch.lines, batch.output, batch.failures = [], [], []
        batch.queued_tokens = 0
        batch.move(status)

    def _write_unrun(self, batch: Batch, status: str) -> None:
        for line in batch.lines[batch.ran :]:
            custom_id = parse_line(line)["custom_id"]
            unrun = expired_line(next(self._numbers), custom_id)
            if status == "cancelled":
                error = {"code": "batch_cancelled", "message": "The batch was cancelled."}
                unrun = replace(unrun, document={**unrun.document, "error": error})
            self._write(batch, written(unrun, ()))

    def _write_files(self, batch: Batch) -> None:
        if self.dialect == "gemini":  # one file for all
            batch.output = [gemini.result(line) for line in (*batch.output, *batch.failures)]
            batch.failures = []
        if batch.fault("empty_output_file"):
            batch.output_file_id = self._result_file(batch, "output", [])
        elif batch.output:
            batch.output_file_id = self._result_file(batch, "output", batch.output)
        if batch.failures or self.azure or batch.fault("empty_error_file"):
            batch.error_file_id = self._result_file(batch, "error", batch.failures)
        elif batch.fault("error_file_id_empty_string"):
            batch.error_file_id = ""

    def _result_file(self, batch: Batch, what: str, lines: list[bytes]) -> str:
        if self.shuffle:
            random.Random(f"{self.seed} {what} {batch.ordinal}").shuffle(lines)
        content = b"".join(part for line in lines for part in (line, b"\n"))
        name = f"{batch.id}_{what}.jsonl"
        expires_after = batch.output_expires_after
        made_id = f"file-{next(self._numbers):06d}-{what}"
        return self.store(name, content, "batch_output", batch.project, expires_after, made_id).id

    # --- live calls ------------------------------------------------------------------------------

    def call_live(self, endpoint: str, body: Json, custom_id: str | None) -> tuple[int, Json]:
        """Answer a direct call; it is booked under `custom_id`, else under its body's hash."""
        model = body.get("model")
        if not model and endpoint != "/moderations":
            raise ApiError(400, "you must provide a model parameter", param="model")
        if self.known_models is not None and model not in self.known_models:
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise ApiError(404, message, code="model_not_found", param="model")
        for key in self.bad_body_keys:
            if key in body:
                message = f"Unknown parameter: '{key}'."
                raise ApiError(400, message, code="unknown_parameter", param=key)
        booked = row_name(custom_id or "") or f"live:{body_hash(body)[:16]}"
        faults = self._row_faults(booked, body, BATCH_ONLY)
        reply = ask(endpoint, body, booked, self.answer, faults)
        self.note_run(booked, body)
        if reply.error is not None and reply.status_code < 400:
            reply = replace(reply, status_code=500)
        return reply.status_code, response_body(endpoint, body, reply)


def _metadata_complaint(metadata: Any) -> str | None:
    """Say what is wrong with a batch's metadata: 16 pairs, keys of 64 and values of 512."""
    if metadata is None:
        return None
    if not isinstance(metadata, dict) or len(metadata) > 16:
        return "Invalid 'metadata': an object of at most 16 pairs is expected."
    for key, value in metadata.items():
        if not isinstance(value, str):
            return f"Invalid type for 'metadata.{key}': expected a string."
        if len(key) > 64 or len(value) > 512:
            return f"Invalid 'metadata.{key[:64]}': keys have up to 64 characters, values 512."
    return None
