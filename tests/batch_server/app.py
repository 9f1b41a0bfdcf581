"""The server: routes, keys, and the faults that happen to whole requests."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Thread
from types import TracebackType
from typing import Any, Self

from .answers import REQUIRED
from .books import ApiError, Books, Call
from .dialects import (
    file_as,
    listed,
    query_of,
    row_complaint,
    spoken,
    spoken_live,
    understood,
    understood_live,
)
from .faults import Fault
from .reply import Json
from .service import Service
from .wire import Answer, HttpServer, Request, json_answer, parse_multipart

HTML_502 = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
SECRET_HEADERS = frozenset({"authorization", "api-key"})


class BatchServer(Service):
    """The service on a loopback port: ``with BatchServer() as server: server.base_url``.

    It takes the parameters of :class:`~batch_server.books.Books`, all by keyword. It may be
    stopped and started again: it keeps its port and its books.
    """

    port = 0
    _http: HttpServer | None = None

    def start(self) -> Self:
        """Listen on `port` (0: a free one), from a thread of its own."""
        self.stopping.clear()
        self._http = HttpServer(("127.0.0.1", self.port), partial(serve, self), self.crashes)
        self.port = self._http.server_address[1]
        Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Close the port and every connection."""
        if self._http is not None:
            self.stopping.set()
            self._http.shutdown()
            self._http.server_close()
            self._http.close_connections()
            self._http = None

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; and raise what went wrong inside the server, unless something is raised already."""
        self.stop()
        if self.crashes and error is None:
            raise self.crashes[0]

    def route(self, request: Request) -> Answer:
        """Answer a request as the API does."""
        return route(self, request)

    @property
    def origin(self) -> str:
        """``http://127.0.0.1:PORT``, which is Azure's ``azure_endpoint``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:PORT/v1``."""
        return f"{self.origin}/v1"


# --- one request ---------------------------------------------------------------------------------


def serve(server: BatchServer, request: Request) -> Answer:
    """Answer a request, faults included, and write it in the log."""
    if request.path.startswith("/_"):
        return _respond(_control, server, request)
    began = time.monotonic()
    faults = server.faults.take(
        "http",
        lambda: (f"{request.method} {request.path}",),
        (request,),
        attempt=len(server.requests),
    )
    answer = _answer_faulty(server, request, faults)
    call = Call(
        method=request.method,
        path=request.path,
        raw_path=request.raw_path,
        query=request.query,
        headers={k: "***" if k in SECRET_HEADERS else v for k, v in request.headers.items()},
        status=0 if answer.closed else answer.status,
        at=time.monotonic(),
        seconds=time.monotonic() - began,
        faults=tuple(fault.name for fault in faults),
    )
    server.note(call)
    return answer


def _answer_faulty(server: BatchServer, request: Request, faults: tuple[Fault, ...]) -> Answer:
    for fault in faults:
        if fault.name == "slow":
            server.stopping.wait(fault["seconds"])
    early = next((_EARLY[f.name](request, f) for f in faults if f.name in _EARLY), None)
    answer = early or _respond(type(server).route, server, request)
    for fault in faults:
        if fault.name == "cut_upload" and answer.status < 400:
            server.cut_file(json.loads(answer.body)["id"], fault["keep"])
            answer = _error(500, "The connection broke.")
        if fault.name in _LATE and answer.status < 400:
            answer = _LATE[fault.name](answer, fault)
        if fault.name == "slow_answer":
            server.stopping.wait(fault["seconds"])
    return answer


def _respond(
    act: Callable[[BatchServer, Request], Answer], server: BatchServer, request: Request
) -> Answer:
    try:
        return act(server, request)
    except ApiError as error:
        return replace(json_answer(error.body, error.status), headers=error.headers)
    except Exception as error:  # noqa: BLE001 - kept, and raised again when the server stops
        server.crashes.append(error)
        return _error(500, f"The test server itself broke: {error!r}")


def route(server: BatchServer, request: Request) -> Answer:
    """Answer a request as the API does."""
    _check_key(server, request)
    _check_azure(server, request)
    for method, pattern, act in _ROUTES:
        if method == request.method and (found := re.fullmatch(pattern, request.path)):
            return act(server, request, *found.groups())
    raise ApiError(404, f"Invalid URL ({request.method} {request.raw_path})")


def _check_key(server: BatchServer, request: Request) -> None:
    wanted = server.require_key
    keys = {wanted} if isinstance(wanted, str) else set(wanted or ())
    if wanted is not None and request.key not in keys:
        raise _unauthorized()


def _unauthorized() -> ApiError:
    return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")


def _check_azure(server: BatchServer, request: Request) -> None:
    classic = re.match(r"/openai/(?!v1/)", request.raw_path)
    if classic and "api-version" not in request.query:
        raise ApiError(404, "Resource not found: the api-version is missing.", code="404")
    if classic and not server.azure:
        raise ApiError(404, f"Invalid URL ({request.method} {request.raw_path})")


def _upload(server: BatchServer, request: Request) -> Answer:
    if server.dialect == "gemini":
        return _finish_upload(server, request)
    if request.path.endswith("/upload") != (server.dialect == "together"):
        raise ApiError(404, f"Invalid URL (POST {request.raw_path})")
    fields, files = parse_multipart(request.headers.get("content-type", ""), request.body)
    if "file" not in files:
        raise ApiError(400, "'file' is a required property", param="file")
    if "purpose" not in fields:
        raise ApiError(400, "'purpose' is a required property", param="purpose")
    filename, content = files["file"]
    expires_after: Json | None = None
    if "expires_after[seconds]" in fields:
        expires_after = {
            "anchor": fields.get("expires_after[anchor]"),
            "seconds": int(fields["expires_after[seconds]"]),
        }
    made = server.create_file(filename, content, fields["purpose"], request.key, expires_after)
    return json_answer(file_as(server.dialect, made))


def _begin_upload(server: BatchServer, request: Request) -> Answer:
    """Gemini's first call of two: where the file's bytes have to go."""
    name = request.parse_json()["file"]["name"].removeprefix("files/")
    where = f"{server.origin}/v1/files?name={name}"
    headers = {"x-goog-upload-url": where, "x-goog-upload-status": "active"}
    return replace(json_answer({}), headers=headers)


def _finish_upload(server: BatchServer, request: Request) -> Answer:
    name = request.query["name"]
    made = server.store(f"{name}.jsonl", request.body, "batch", request.key, None, name)
    answer = json_answer({"file": file_as("gemini", made.as_json())})
    return replace(answer, headers={"x-goog-upload-status": "final"})


def _list_files(server: BatchServer, request: Request) -> Answer:
    page = server.list_files(query_of(server.dialect, dict(request.query)), request.key)
    return json_answer(listed(server.dialect, page, batches=False))


def _show_file(server: BatchServer, request: Request, file_id: str) -> Answer:
    return json_answer(file_as(server.dialect, server.show_file(file_id, request.key)))


def _download(server: BatchServer, request: Request, file_id: str) -> Answer:
    content = server.file(file_id, request.key).content
    return Answer(body=content, content_type="application/octet-stream")


def _delete_file(server: BatchServer, request: Request, file_id: str) -> Answer:
    return json_answer(server.delete_file(file_id, request.key))


def _create_batch(server: BatchServer, request: Request) -> Answer:
    asked = understood(server.dialect, request.parse_json(), request.raw_path)
    made = server.create_batch(asked, request.key)
    return json_answer(spoken(server.dialect, made, created=True))


def _list_batches(server: BatchServer, request: Request) -> Answer:
    page = server.list_batches(query_of(server.dialect, dict(request.query)), request.key)
    return json_answer(listed(server.dialect, page, batches=True))


def _show_batch(server: BatchServer, request: Request, batch_id: str) -> Answer:
    shown = spoken(server.dialect, server.poll_batch(batch_id, request.key))
    if server.output_blobs and shown["output_file_id"]:
        blob = "https://mine.blob.core.windows.net/out/results.jsonl?sig=SECRETSIGNATURE"
        shown |= {"output_file_id": None, "error_file_id": None, "output_blob": blob}
    return json_answer(shown)


def _cancel_batch(server: BatchServer, request: Request, batch_id: str) -> Answer:
    return json_answer(spoken(server.dialect, server.cancel_batch(batch_id, request.key)))


def _delete_batch(server: BatchServer, request: Request, batch_id: str) -> Answer:
    if server.dialect not in {"mistral", "gemini"}:
        raise ApiError(404, f"Invalid URL (DELETE {request.raw_path})")
    return json_answer(server.delete_batch(batch_id, request.key))


def _live(server: BatchServer, request: Request, endpoint: str) -> Answer:
    body = request.parse_json()
    if deployment := re.match(r"/openai/deployments/([^/]+)/", request.raw_path):
        body = {"model": deployment[1], **body}
    body = understood_live(server.dialect, body, request.raw_path)
    if reason := row_complaint(server.dialect, body):
        raise ApiError(422, reason)
    headers = request.headers
    custom_id = headers.get("x-custom-id") or headers.get("x-client-request-id")
    status, document = server.call_live(endpoint, body, custom_id)
    return json_answer(spoken_live(server.dialect, document), status)


_LIVE_PATHS = "|".join(REQUIRED)
_ROUTES: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
    ("POST", "/upload/v1/files", _begin_upload),
    ("POST", "/v1/files(?:/upload)?", _upload),
    ("GET", "/v1/files", _list_files),
    ("GET", "/v1/files/([^/]+)", _show_file),
    ("GET", "/v1/files/([^/]+)/content", _download),
    ("DELETE", "/v1/files/([^/]+)", _delete_file),
    ("POST", "/v1/batches", _create_batch),
    ("GET", "/v1/batches", _list_batches),
    ("GET", "/v1/batches/([^/]+)", _show_batch),
    ("POST", "/v1/batches/([^/]+)/cancel", _cancel_batch),
    ("DELETE", "/v1/batches/([^/]+)", _delete_batch),
    ("POST", f"/v1({_LIVE_PATHS})", _live),
)


def _control(server: BatchServer, request: Request) -> Answer:
    """Serve ``GET /_ledger`` and ``POST /_control``; neither is in the log."""
    if request.path == "/_ledger":
        return json_answer(server.ledger())
    asked = request.parse_json()
    action = asked.pop("action", None)
    if request.path != "/_control" or action not in _ACTIONS:
        raise ApiError(404, f"{request.path} {action!r}: one of {sorted(_ACTIONS)}")
    try:
        _ACTIONS[action](server, **asked)
    except (KeyError, TypeError) as error:
        raise ApiError(400, f"{action}: {error!r}") from None
    return json_answer({"ok": True})


def _set_option(server: BatchServer, **options: Any) -> None:
    for name, value in options.items():
        if name not in Books.__dataclass_fields__:
            raise KeyError(name)
        setattr(server, name, value)


_ACTIONS: dict[str, Callable[..., object]] = {
    "add": lambda server, **fault: server.faults.add(**fault),
    "clear": lambda server, **chosen: server.faults.clear(**chosen),
    "advance": BatchServer.advance,
    "finish": BatchServer.finish,
    "hold": BatchServer.hold,
    "release": BatchServer.release,
    "set": _set_option,
}


# --- faults on the wire --------------------------------------------------------------------------


def _error(status: int, message: str, code: str | None = None) -> Answer:
    return json_answer(ApiError(status, message, code=code).body, status)


def _rate_limited(_: Request, fault: Fault) -> Answer:
    answer = _error(429, "Rate limit reached.", fault["code"])
    return replace(answer, headers={"Retry-After": str(fault["retry_after"])})


def _no_batch(request: Request, _: Fault) -> Answer:
    return _error(404, f"No batch found with id '{request.path.rsplit('/', 1)[-1]}'.")


_EARLY: dict[str, Callable[[Request, Fault], Answer]] = {
    "http_500": lambda _, f: _error(500, "The server had an error.", f["code"]),
    "http_503": lambda _, f: _error(503, "The engine is currently overloaded.", f["code"]),
    "rate_limited": _rate_limited,
    "unauthorized": lambda _, __: _error(401, "Incorrect API key provided.", "invalid_api_key"),
    "closed_before": lambda _, __: Answer(closed=True),
    "cannot_find_file": lambda _, __: _error(400, "Cannot find file."),
    "batch_not_found": _no_batch,
    "html_502": lambda _, __: Answer(status=502, body=HTML_502, content_type="text/html"),
    "not_json": lambda _, f: Answer(body=b"upstream hiccup", content_type=f["content_type"]),
    "no_route": lambda r, f: _error(f["status"], f"Invalid URL ({r.method} {r.path})"),
    "file_quota_exceeded": lambda _, f: _error(
        f["status"], "You have exceeded your file storage quota.", "file_quota_exceeded"
    ),
}
"""Faults that answer in the place of the service."""


def _cut(answer: Answer, keep: float) -> bytes:
    return answer.body[: int(len(answer.body) * keep)]


def _half_written(answer: Answer, fault: Fault) -> Answer:
    """A file that is still being written: half of its lines, and no size to compare them with.

    Or all but its last bytes, in a reply without a length that ends as a whole one does.
    """
    if answer.content_type == "application/json":
        known = json.loads(answer.body)
        nothing = {name: None for name in ("bytes", "sizeBytes") if name in known}
        return replace(answer, body=json.dumps({**known, **nothing}).encode())
    if fault["less"]:
        return replace(answer, body=answer.body[: -fault["less"]], chunked=True)
    lines = answer.body.splitlines(keepends=True)
    return replace(answer, body=b"".join(lines[: len(lines) // 2]))


def _without_newest(answer: Answer, fault: Fault) -> Answer:
    """A list that is late: what was made last is not in it yet."""
    page = json.loads(answer.body)
    items = page if isinstance(page, list) else page.get("data", page.get("operations"))
    del items[: fault["newest"]]
    return replace(answer, body=json.dumps(page).encode())


_LATE: dict[str, Callable[[Answer, Fault], Answer]] = {
    "accepted_then_500": lambda _, __: _error(500, "The server had an error."),
    "accepted_then_closed": lambda _, __: Answer(closed=True),
    "truncated_download": lambda answer, fault: replace(
        answer, body=_cut(answer, fault["keep"]), declared_bytes=len(answer.body)
    ),
    "odd_body": lambda answer, fault: replace(answer, body=fault["body"]),
    "html_429": lambda _, __: Answer(status=429, body=HTML_502, content_type="text/html"),
    "unlisted": _without_newest,
    "half_written": _half_written,
    "short_download": lambda answer, fault: replace(answer, body=_cut(answer, fault["keep"])),
    "download_without_length": lambda answer, _: replace(answer, chunked=True),
    "ration_spent": lambda answer, fault: replace(
        answer,
        headers={
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": fault["reset"],
        },
    ),
}
"""Faults that spoil the answer after the service has done its work."""
