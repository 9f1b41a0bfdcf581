"""One row: from its request to the reply, and from the reply to the lines of the result files."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .answers import REQUIRED, response_body
from .faults import KINDS, Fault
from .reply import Answerer, Json, Reply
from .schemas import strict_fault

SEPARATORS = "\u2028 \u2029 \u0085"
"""What `str.splitlines` takes for line ends and JSON does not."""

BATCH_ONLY = frozenset(
    name
    for name, kind in KINDS.items()
    if kind.scope == "row" and (kind.group != "reply" or name == "http_error_in_output")
)
"""Row faults that are about lines of a file, so that a live call cannot meet them."""


_TAGGED = re.compile(r"((?:r\d+-)*(?:row|key)-.+)-[0-9a-f]{6}")


def row_name(custom_id: str) -> str:
    """Return a custom_id of ours without the tag of its job, which is random.

    Examples
    --------
    >>> row_name("r1-row-42-3f9a1c"), row_name("row-42"), row_name("mine-3f9a1c")
    ('r1-row-42', 'row-42', 'mine-3f9a1c')
    """
    tagged = _TAGGED.fullmatch(custom_id)
    return tagged[1] if tagged else custom_id


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is about to be written, to the output file or to the error file."""

    document: Json
    to_output: bool


def dump_json(document: Any) -> bytes:
    """Return compact JSON in raw UTF-8 (escaped where a lone surrogate cannot be encoded)."""
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(document, separators=(",", ":")).encode()


def ask(
    endpoint: str, body: Json, custom_id: str, answer: Answerer, faults: Iterable[Fault]
) -> Reply:
    """Return the reply to a request: a 400 where it is not well-formed, else the answerer's.

    The faults that struck the row then edit it.
    """
    if (missing := REQUIRED[endpoint]) not in body:
        return _bad_request(f"Missing required parameter: '{missing}'.", missing)
    if complaint := strict_fault(body):
        return _bad_request(f"Invalid schema for response_format: {complaint}", "response_format")
    reply = answer(body, custom_id)
    for fault in faults:
        if fault.name in _REPLY_EDITS:
            reply = _REPLY_EDITS[fault.name](reply, fault)
    return reply


def _bad_request(message: str, param: str) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return Reply(status_code=400, error=error)


# --- faults of the reply, which live calls meet as well ------------------------------------------


def _http_error(_: Reply, fault: Fault) -> Reply:
    kind = "invalid_request_error" if fault["status"] < 500 else "server_error"
    error = {"message": fault["message"], "type": kind, "param": None, "code": fault["code"]}
    return Reply(status_code=fault["status"], error=error)


def _truncated(reply: Reply, _: Fault) -> Reply:
    said = reply.content or ""
    return replace(reply, content=said[: len(said) // 2], finish_reason="length")


def _refused(reply: Reply, fault: Fault) -> Reply:
    return replace(reply, content=None, refusal=fault["message"])


def _fenced(reply: Reply, _: Fault) -> Reply:
    return replace(reply, content=f"```json\n{reply.content}\n```")


def _chatty(reply: Reply, _: Fault) -> Reply:
    return replace(reply, content=f"Sure! Here is your answer:\n\n{reply.content}")


def _says(reply: Reply, fault: Fault) -> Reply:
    return replace(reply, content=fault["content"])


def _content_filter(reply: Reply, _: Fault) -> Reply:
    return replace(reply, content=None, finish_reason="content_filter")


_REPLY_EDITS: Mapping[str, Callable[[Reply, Fault], Reply]] = {
    "http_error": _http_error,
    "http_error_in_output": _http_error,
    "malformed": _says,
    "fenced": _fenced,
    "chatty": _chatty,
    "refused": _refused,
    "truncated": _truncated,
    "empty": _says,
    "content_filter": _content_filter,
}


# --- the line ------------------------------------------------------------------------------------


def result_line(
    number: int, custom_id: str, endpoint: str, body: Json, reply: Reply, faults: Iterable[Fault]
) -> Line:
    """Return the line of a row that ran."""
    line_error = reply.error if reply.status_code < 400 else None
    response = {
        "status_code": reply.status_code,
        "request_id": f"req_{number:012x}",
        "body": response_body(endpoint, body, reply) if line_error is None else None,
    }
    document = {
        "id": f"batch_req_{number:012x}",
        "custom_id": custom_id,
        "response": response if line_error is None else None,
        "error": line_error,
    }
    in_output = any(fault.name == "http_error_in_output" for fault in faults)
    return Line(document, to_output=in_output or not reply.failed)


def error_line(number: int, custom_id: str, code: str, message: str) -> Line:
    """Return the line of a row that never ran."""
    document = {
        "id": f"batch_req_{number:012x}",
        "custom_id": custom_id,
        "response": None,
        "error": {"code": code, "message": message},
    }
    return Line(document, to_output=False)


def expired_line(number: int, custom_id: str) -> Line:
    """Return the ``batch_expired`` line of a row that did not run in time."""
    message = "This request could not be executed before the completion window expired."
    return error_line(number, custom_id, "batch_expired", message)


def written(line: Line, faults: tuple[Fault, ...]) -> list[tuple[bytes, bool]]:
    """Return what is written for a line, after its faults: pairs of bytes and "to the output"."""
    lines = [line]
    for fault in faults:
        if edit := _LINE_EDITS.get(fault.name):
            lines = [edited for each in lines for edited in edit(each, fault)]
    pairs = [(dump_json(each.document), each.to_output) for each in lines]
    for fault in faults:
        if spoil := _BYTE_EDITS.get(fault.name):
            pairs = [(spoil(data), to_output) for data, to_output in pairs]
    return pairs


def stranger_line(number: int, custom_id: str | None) -> bytes:
    """Return a good-looking line that answers no request of the batch."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a stranger"}]}
    reply = Reply(content="echo: a stranger")
    line = result_line(number, custom_id or "", "/chat/completions", body, reply, ())
    return dump_json({**line.document, "custom_id": custom_id})


def _missing(_: Line, __: Fault) -> list[Line]:
    return []


def _status_zero(line: Line, _: Fault) -> list[Line]:
    response = {"status_code": 0, "request_id": "", "body": {}}
    return [Line({**line.document, "response": response, "error": None}, to_output=True)]


def _string_body(line: Line, _: Fault) -> list[Line]:
    response = line.document["response"]
    if response is None:
        return [line]
    as_text = {**response, "body": json.dumps(response["body"], ensure_ascii=False)}
    return [replace(line, document={**line.document, "response": as_text})]


def _without(key: str) -> Callable[[Line, Fault], list[Line]]:
    def edit(line: Line, _: Fault) -> list[Line]:
        left = {name: value for name, value in line.document.items() if name != key}
        return [replace(line, document=left)]

    return edit


def _null_custom_id(line: Line, _: Fault) -> list[Line]:
    return [replace(line, document={**line.document, "custom_id": None})]


def _duplicate(line: Line, _: Fault) -> list[Line]:
    return [line, line]


def _conflicting(line: Line, fault: Fault) -> list[Line]:
    custom_id = line.document["custom_id"]
    if fault["as_error"]:
        return [line, error_line(0, custom_id, "server_error", "The server had an error.")]
    other = copy.deepcopy(line.document)
    body = (other["response"] or {}).get("body") or {}
    for message in _messages(body):
        message["content"] = "another answer under the same custom_id"
    body["id"] = "another-answer"
    return [line, replace(line, document=other)]


def _raw_separators(line: Line, _: Fault) -> list[Line]:
    """Put them in the fingerprint of every body, and in texts that are not JSON."""
    document = copy.deepcopy(line.document)
    body = (document.get("response") or {}).get("body") or {}
    body["system_fingerprint"] = f"fp {SEPARATORS}"
    for message in _messages(body):
        if isinstance(message["content"], str) and not _is_json(message["content"]):
            message["content"] += SEPARATORS
    return [replace(line, document=document)]


def _messages(body: Json) -> list[Json]:
    return [c["message"] for c in body.get("choices", ()) if "message" in c]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


_LINE_EDITS: Mapping[str, Callable[[Line, Fault], list[Line]]] = {
    "missing": _missing,
    "status_zero": _status_zero,
    "string_body": _string_body,
    "no_response_key": _without("response"),
    "no_error_key": _without("error"),
    "null_custom_id": _null_custom_id,
    "duplicate_line": _duplicate,
    "conflicting_line": _conflicting,
    "raw_separators": _raw_separators,
}

_BYTE_EDITS: Mapping[str, Callable[[bytes], bytes]] = {
    "unparseable_line": lambda data: data[: len(data) * 2 // 3],
    "not_utf8_line": lambda data: data.replace(b'"response"', b'"x":"caf\xe9","response"', 1),
}
