"""The wire: HTTP requests in, answers out, over connections that can be cut."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Lock
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from .books import ApiError
from .reply import Json
from .rows import dump_json

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request; `path` is in the ``/v1/...`` form whichever form it came in."""

    method: str
    path: str
    raw_path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str:
        """The API key, from either of the headers that carry one."""
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ").strip()
        return bearer or self.headers.get("api-key") or self.headers.get("x-goog-api-key", "")

    def parse_json(self) -> Json:
        """Return the body, which has to be a JSON object."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise ApiError(400, "We could not parse the JSON body of your request.")
        return parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer.

    With `closed` there is none: the connection just ends. With `declared_bytes` that is the
    Content-Length, whatever is sent, and the connection ends after it. `chunked` sends none.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    closed: bool = False
    declared_bytes: int | None = None
    chunked: bool = False


def json_answer(document: Any, status: int = 200) -> Answer:
    """Return an answer of JSON."""
    return Answer(status=status, body=dump_json(document))


def parse_multipart(
    content_type: str, body: bytes
) -> tuple[dict[str, str], dict[str, tuple[str, bytes]]]:
    """Return the fields, and the files as (filename, content), of a multipart/form-data body."""
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    if found is None:
        raise ApiError(400, "Expected multipart/form-data with a boundary.")
    mark = b"--" + found[1].encode()
    fields: dict[str, str] = {}
    files: dict[str, tuple[str, bytes]] = {}
    start = body.find(mark)
    while start >= 0 and body[start + len(mark) : start + len(mark) + 2] == b"\r\n":
        head_end = body.index(b"\r\n\r\n", start)
        head = body[start + len(mark) + 2 : head_end].decode("utf-8", "replace")
        start = body.index(b"\r\n" + mark, head_end + 4)
        content = body[head_end + 4 : start]
        start += 2
        words = dict(re.findall(r'[;\s](name|filename)="([^"]*)"', head))
        if "filename" in words:
            files[words.get("name", "")] = (words["filename"], content)
        else:
            fields[words.get("name", "")] = content.decode("utf-8", "replace")
    return fields, files


def v1_path(raw_path: str) -> str:
    """Return a path in OpenAI's ``/v1/...`` form, whoever's form it comes in."""
    path = re.sub(r"^/openai/deployments/[^/]+/", "/openai/", raw_path)
    path = re.sub(r"^/openai/v1/", "/v1/", path)
    path = re.sub(r"^/v1/batch/jobs", "/v1/batches", path)  # Mistral's; what follows is Gemini's
    path = re.sub(r"^/v1/models/[^/]+:batchGenerateContent$", "/v1/batches", path)
    path = re.sub(r"^/v1/models/[^/]+:generateContent$", "/v1/chat/completions", path)
    path = re.sub(r"^(/v1/batches/[^/]+):cancel$", r"\1/cancel", path)
    path = re.sub(r"^(/v1/files/[^/]+):download$", r"\1/content", path)
    return re.sub(r"^/openai/", "/v1/", path)


class HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        address: tuple[str, int],
        serve: Callable[[Request], Answer],
        crashes: list[BaseException],
    ) -> None:
        self.serve = serve
        self.crashes = crashes
        self._open: set[socket.socket] = set()
        self._open_lock = Lock()
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._open_lock:
            self._open.discard(request)

    def close_connections(self, wait_seconds: float = 2.0) -> None:
        """Wake every thread that waits for a client, and let it close its socket."""
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            _hang_up(connection)
        deadline = time.monotonic() + wait_seconds
        while self._open and time.monotonic() < deadline:
            time.sleep(0.002)

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that go away; keep what went wrong in here."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            self.crashes.append(error)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # the client was faster
        connection.shutdown(socket.SHUT_RDWR)


class _Connection(BaseHTTPRequestHandler):
    """Reads requests from one connection, and writes their answers."""

    protocol_version = "HTTP/1.1"
    server_version = "batch_server"
    disable_nagle_algorithm = True
    wbufsize: ClassVar[int] = 64 * 1024
    server: HttpServer

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=v1_path(parts.path),
            raw_path=parts.path,
            query=dict(parse_qsl(parts.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self._read_body(),
        )
        self._send(self.server.serve(request))

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - the names that http.server calls

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(iter(self._read_chunk, b""))
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if len(body) < length:
            raise ConnectionResetError("the client went away in the middle of its request")
        return body

    def _read_chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0] or b"0", 16)
        chunk = self.rfile.read(size)
        if len(chunk) < size or self.rfile.readline() != b"\r\n":
            raise ConnectionResetError("the client went away in the middle of a chunk")
        return chunk

    def _send(self, answer: Answer) -> None:
        if answer.closed:
            self.close_connection = True
            _hang_up(self.connection)
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            length = len(answer.body) if answer.declared_bytes is None else answer.declared_bytes
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self._send_body(answer)

    def _send_body(self, answer: Answer) -> None:
        view = memoryview(answer.body)
        for start in range(0, len(view), CHUNK_BYTES):
            piece = view[start : start + CHUNK_BYTES]
            if answer.chunked:
                self.wfile.write(b"%x\r\n" % len(piece))
            self.wfile.write(piece)
            if answer.chunked:
                self.wfile.write(b"\r\n")
        if answer.chunked:
            self.wfile.write(b"0\r\n\r\n")
        if answer.declared_bytes is not None:
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Keep quiet: the log is `BatchServer.requests`."""
