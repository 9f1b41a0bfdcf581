"""A reply, and what is read out of a request body to make one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model "says" to one request.

    Parameters
    ----------
    content
        The answer's text; None is an empty answer (``content: null``).
    body
        The whole response body, in place of the one made from `content`.
    finish_reason
        ``stop``, ``length``, ``content_filter``, …
    refusal
        The refusal's text; `content` is then sent as null.
    status_code
        HTTP status of the row; 400 and above make it an error.
    error
        With a status below 400: the line's own ``error`` (and ``response: null``).
        Else the ``error`` object inside the response body.
    others
        Where the request asks for `n` answers, the texts of those after the first; by default the
        first again.
    usage
        ``{"prompt_tokens": int, "completion_tokens": int}``; counted from the text when absent.
    """

    content: str | None = None
    body: Json | None = None
    finish_reason: str = "stop"
    refusal: str | None = None
    status_code: int = 200
    error: Json | None = None
    others: tuple[str, ...] = ()
    usage: Mapping[str, int] | None = None

    @property
    def failed(self) -> bool:
        """Whether the row is an error rather than an answer."""
        return self.status_code >= 400 or self.error is not None


Answerer: TypeAlias = Callable[[Json, str], Reply]


def stable_hash(text: str) -> int:
    """Return a 64-bit number that depends on the text alone, the same in every process."""
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def pick(options: Sequence[Any], text: str) -> Any:
    """Return the option that the default answers choose for this user message."""
    return options[stable_hash(text) % len(options)]


def body_hash(body: Json) -> str:
    """Return a SHA-256 of a request body that does not depend on the order of its keys."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def user_text(body: Json) -> str:
    """Return the last user message (or the input, or the prompt) of a body, as plain text."""
    if isinstance(body.get("messages"), list):
        return _last_user_text(body["messages"])
    asked = body.get("input", body.get("prompt", ""))
    if isinstance(asked, list) and asked and isinstance(asked[-1], dict) and "role" in asked[-1]:
        return _last_user_text(asked)
    return content_text(asked)


def _last_user_text(messages: list[Any]) -> str:
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return content_text(message.get("content"))
    return ""


def content_text(content: Any) -> str:
    """Return the text of a message's content, or of its parts."""
    if isinstance(content, list):
        return "\n".join(_part_text(part) for part in content)
    return content if isinstance(content, str) else ""


def _part_text(part: Any) -> str:
    """Text parts as they are; an image as a short hash of its URL, so that a mix-up shows."""
    if not isinstance(part, dict):
        return str(part)
    if isinstance(part.get("text"), str):
        return str(part["text"])
    image = part.get("image_url")
    url = image.get("url", "") if isinstance(image, dict) else str(image)
    return f"[image {stable_hash(url):016x}]"


def response_format(body: Json) -> Json:
    """Return the format asked for, in the chat form or in that of the Responses API."""
    asked = body.get("response_format")
    if asked is None and isinstance(body.get("text"), dict):
        asked = body["text"].get("format")
    return asked if isinstance(asked, dict) else {}


def schema_of(asked: Json) -> Json | None:
    """Return the JSON Schema inside a response format, where there is one."""
    inside = asked.get("json_schema", asked)
    schema = inside.get("schema") if isinstance(inside, dict) else None
    return schema if isinstance(schema, dict) else None
