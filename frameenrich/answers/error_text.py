"""Find the words in an error, in the shapes that servers and what stands before them send.

OpenAI's, vLLM's, FastAPI's and Gemini's objects, lists and texts of errors, JSON inside of a
message, and a proxy's page of HTML.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping

from frameenrich.model import Json
from frameenrich.text import shortened, without_surrogates

# json.dumps with an option would make such an object at each call; what does the work in C is made
# anew either way. orjson and msgspec leave out the spaces, so that the text would be another one.
_dumps = json.JSONEncoder(ensure_ascii=False).encode


_WORDS = (
    *("message", "msg", "detail", "details", "error_message", "error_msg", "error_description"),
    *("error", "errors", "reason", "title"),
)
"""Members that an error's words stand in; the first that says something is taken."""


_PAGE_CHARACTERS = 4_000
"""So much of a page is searched for its title, which stands at its top."""


# Each runs to the end where it is not closed: the part that is searched may end within it.
_NO_WORDS = re.compile(
    r"<(style|script)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)|<[^>]*(?:>|\Z)",
    re.DOTALL | re.IGNORECASE,
)


def error_text(error: Json) -> str | None:
    """Write an error as text; None where it says nothing, as an object of nulls does.

    Examples
    --------
    >>> error_text({"code": "too_long", "message": "Too long."}), error_text({"code": None})
    ('too_long: Too long.', None)
    >>> error_text({"error": {"error": "No such model."}})
    'No such model.'
    >>> error_text("<html><title>502 Bad Gateway</title></html>")
    'a web page: 502 Bad Gateway'
    """
    try:
        text = _error_text(error)
    except RecursionError:
        return "(nested too deeply to show)"
    return None if text is None else without_surrogates(text)


def _error_text(error: Json) -> str | None:
    if not error or (
        isinstance(error, dict) and all(v is None or v in ("", {}, []) for v in error.values())
    ):
        return None
    if isinstance(error, list):
        return "; ".join(text for item in error if (text := _error_text(item))) or None
    if isinstance(error, str):
        return _text_of_text(error)
    if not isinstance(error, dict):
        return str(error)
    # An error's whole body, as `vllm run-batch` has it.
    if isinstance(error.get("error"), dict) and (inner := _error_text(error["error"])):
        return inner
    found, message = _words(error)
    code = error.get("code") or error.get("type")
    if found == "msg" and isinstance(error.get("loc"), list):  # one of FastAPI's
        code = ".".join(map(str, error["loc"]))
    elif not code and found != "error":
        # Beside a message, an `error` that is a text is its short name, as OAuth has it.
        code = error.get("error")
    if not isinstance(code, str | int) or isinstance(code, bool):
        code = None
    if code and message and code != message:
        return f"{code}: {message}"
    return str(message or code or error_as_json(error))


def _words(error: Mapping[str, Json]) -> tuple[str | None, str | None]:
    """Return the first member that says something, and what; a flag or a number says nothing."""
    for name in _WORDS:
        value = error.get(name)
        if isinstance(value, str | list | dict) and (text := _error_text(value)) is not None:
            return name, text
    return None, None


def _text_of_text(text: str) -> str | None:
    """Return an error's text; of JSON or a page of HTML, the words in it."""
    start = text.lstrip()[:_PAGE_CHARACTERS]
    if start.startswith(("{", "[")):
        try:
            return _error_text(json.loads(text)) or text
        except ValueError:
            return text
    if start.startswith("<") and re.match(r"<(!doctype|html|head|body)\b", start, re.IGNORECASE):
        title = re.search(r"<(title|h1)\b[^>]*>(.*?)</\1", start, re.IGNORECASE | re.DOTALL)
        words = title[2] if title else _NO_WORDS.sub(" ", start)
        said = " ".join(html.unescape(words).split())
        return f"a web page: {shortened(said, 200)}" if said else "a web page without words"
    return text if text.strip() else None


def body_error(body: Json) -> str | None:
    """Find the error in a body: in OpenAI's, vLLM's, FastAPI's or Gemini's shape, or bare text."""
    if isinstance(body, list):
        said = [item for item in body if isinstance(item, dict | str)]
        return error_text([i.get("error", i) if isinstance(i, dict) else i for i in said])
    if not isinstance(body, dict):
        return error_text(body) if isinstance(body, str) else None
    inner = error_text(body.get("error"))
    if has_answer(body):
        return inner
    if isinstance(body.get("error"), dict) and inner is not None:
        return inner
    flat = {name: body[name] for name in ("code", "type", *_WORDS) if name in body}
    if flat.get("code") == body.get("status") or isinstance(flat.get("code"), int):
        flat.pop("code", None)  # the HTTP status once more
    # A mere flag, code or type is no error of a body that may be an answer in another form.
    says = any(isinstance(flat.get(name), str | list | dict) for name in _WORDS)
    return error_text(flat) if says else inner


_FILTER_CODES = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "moderation_blocked",
        "ResponsibleAIPolicyViolation",
    }
)


def is_filtered(body: Json) -> bool:
    """Tell whether a failed request was stopped by a content filter, which no retry passes."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return False
    # Azure puts ResponsibleAIPolicyViolation into an error inside the error.
    inner = error.get("innererror") or error.get("inner_error")
    codes = [error.get("code"), inner.get("code") if isinstance(inner, dict) else None]
    return any(isinstance(code, str) and code in _FILTER_CODES for code in codes)


def has_answer(body: Mapping[str, Json]) -> bool:
    """Tell whether a body has the member that answers stand in."""
    # Of chat and completions, Responses, embeddings and moderations.
    return any(name in body for name in ("choices", "output", "data", "results"))


def error_as_json(value: Json) -> str:
    """Write a value as JSON, to be shown."""
    try:
        return _dumps(value)
    except RecursionError:
        return "(nested too deeply to show)"
