"""Servers with habits: what one service, gateway or proxy does, as faults that come together.

``give(server, "gateway")`` adds them; each is one that users met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .app import BatchServer

_UPLOAD, _CREATE, _LIST = "POST /v1/files", "POST /v1/batches", "GET /v1/batches"
_POLL, _FILES, _CONTENT = "GET /v1/batches/*", "GET /v1/files", "GET /v1/files/*/content"
_ERROR = b'{"error": {"message": "busy"}}'

HABITS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    # Eventually consistent: lists, files and their ends are shown some looks late.
    "late": (
        {"name": "accepted_then_closed", "where": _CREATE},
        {"name": "unlisted", "newest": 2, "times": 4},
        {"name": "late_files", "looks": 3, "times": 2},
        {"name": "half_written", "times": 2},
    ),
    # Answers 200 to everything, whatever is in the body.
    "odd": (
        {"name": "odd_body", "where": _UPLOAD, "body": b"null"},
        {"name": "odd_body", "where": _CREATE, "body": b"{}"},
        {"name": "odd_body", "where": _LIST, "body": b'{"object": "list", "data": null}'},
        {"name": "odd_body", "where": _POLL, "body": b"[]", "times": 2},
        {"name": "odd_body", "where": _CONTENT, "body": _ERROR},
        {"name": "null_request_counts", "times": "always"},
        {"name": "null_errors", "times": "always"},
    ),
    # Has what its makers needed: no list of files, none of a file's facts, no lengths.
    "bare": (
        {"name": "http_503", "where": _UPLOAD},
        {"name": "no_route", "where": _FILES, "status": 405, "times": "always"},
        {"name": "no_route", "where": "GET /v1/files/file-*-output", "times": "always"},
        {"name": "download_without_length", "times": "always"},
        {"name": "error_file_id_empty_string", "times": "always"},
        {"name": "null_counts", "times": "always"},
    ),
    # Passes everything on, and loses its patience with the answer.
    "gateway": (
        {"name": "accepted_then_500", "where": _UPLOAD},
        {"name": "accepted_then_500", "where": _CREATE, "times": 2},
        {"name": "html_502", "where": _LIST},
        {"name": "html_502", "where": _POLL, "times": 3},
        {"name": "no_route", "where": _CONTENT, "status": 504},
        {"name": "rate_limited", "retry_after": 0},
    ),
    # Half of everything: uploads, downloads, files.
    "half": (
        {"name": "cut_upload"},
        {"name": "truncated_download"},
        {"name": "short_download"},
        {"name": "half_written"},
        {"name": "accepted_then_closed", "where": _CREATE},
    ),
}


def give(server: BatchServer, name: str) -> None:
    """Give a server the habits of that name."""
    for fault in HABITS[name]:
        server.faults.add(**fault)
