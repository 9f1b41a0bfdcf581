"""Mark the part of a request that is the same in every row, so that servers bill it once.

Request hashes and job ids leave the marks out: they change what an answer costs, not what it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from frameenrich.jsonl import encode
from frameenrich.model import JobSpec, Json

_MARKS: Mapping[str, dict[str, Json]] = {
    "cache_control": {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
    "breakpoint": {"prompt_cache_breakpoint": {"mode": "explicit"}},
}
"""The member beside the marked text: Anthropic's, and OpenAI's from gpt-5.6 on."""


_TURNS = {"/v1/chat/completions": ("messages", "text"), "/v1/responses": ("input", "input_text")}


_ADDED = ("prompt_cache_key", "prompt_cache_options")


_SYSTEM = frozenset({"system", "developer"})


def marked_message(spec: JobSpec) -> int | None:
    """Return the message to mark: the last of the system messages at the start.

    Examples
    --------
    >>> from frameenrich.model import Message
    >>> marked_message(JobSpec("a", "m", (Message("system", "Sort."), Message("user", "{{ t }}"))))
    0
    """
    # Servers cache a prefix of the prompt, so a system message after a user's cannot count.
    leading = 0
    while leading < len(spec.messages) and spec.messages[leading].role in _SYSTEM:
        leading += 1
    return leading - 1 if leading else None


def with_marks(spec: JobSpec, body: dict[str, Json]) -> dict[str, Json]:
    """Return a request's body with the job's cache marks; the user's own parameters win."""
    added: dict[str, Json] = {}
    if spec.cache_key:
        added["prompt_cache_key"] = spec.cache_key
    if spec.cached_by == "breakpoint":
        added["prompt_cache_options"] = {"mode": "explicit"}
    slot = marked_message(spec)
    if spec.cached_by in _MARKS and slot is not None:
        turns, kind = _TURNS[spec.endpoint]
        messages = list(body[turns])
        part = {"type": kind, "text": messages[slot]["content"], **_MARKS[spec.cached_by]}
        messages[slot] = {**messages[slot], "content": [part]}
        body = {**body, turns: messages}
    # The body last: a `prompt_cache_key` from params= stays the user's.
    return {**added, **body}


def unmarked(spec: JobSpec, body: bytes) -> bytes:
    """Undo `with_marks` on a body of the job: hashes are of the body without marks.

    Examples
    --------
    >>> unmarked(JobSpec("a", "m", (), cache_key="k"), b'{"prompt_cache_key":"k","model":"m"}')
    b'{"model":"m"}'
    """
    if not spec.cache_key and not spec.cached_by:
        return body  # no mark, so no need to parse
    loaded = json.loads(body)
    # Another key than the job's is the user's own parameter, and a part of the hash.
    changed = loaded.get("prompt_cache_key") == spec.cache_key and "prompt_cache_key" in loaded
    if changed:
        del loaded["prompt_cache_key"]
    slot = marked_message(spec)
    if spec.cached_by in _MARKS and slot is not None:
        message = loaded[_TURNS[spec.endpoint][0]][slot]
        plain = _plain_message(message)
        if plain is not message:  # a round that went elsewhere has none
            loaded.pop("prompt_cache_options", None)
            message["content"], changed = plain["content"], True
    return encode(loaded) if changed else body


def without_marks(body: Mapping[str, Json]) -> dict[str, Json]:
    """Remove the marks of all servers from a body, for a server that may not know them.

    Examples
    --------
    >>> part = {"type": "text", "text": "Sort.", "cache_control": {"type": "ephemeral"}}
    >>> without_marks({"messages": [{"role": "system", "content": [part]}]})
    {'messages': [{'role': 'system', 'content': 'Sort.'}]}
    """
    plain = {name: value for name, value in body.items() if name not in _ADDED}
    for turns, _ in _TURNS.values():
        if isinstance(plain.get(turns), list):
            plain[turns] = [_plain_message(message) for message in plain[turns]]
    return plain


def _plain_message(message: Any) -> Any:
    # Only a single text part that has a mark was a plain text before; images make several parts.
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list) or len(content) != 1 or not isinstance(content[0], dict):
        return message
    (part,) = content
    marks = {name for mark in _MARKS.values() for name in mark}
    return {**message, "content": part["text"]} if marks & part.keys() else message
