"""Translate our request lines to Gemini's, and its results to Batch lines.

Names go out in snake_case: the file parser was seen to refuse camelCase, and empty system texts.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Mapping

from frameenrich.errors import ParameterError
from frameenrich.jsonl import encode, loads
from frameenrich.model import Json
from frameenrich.providers.uploaded import translating_for

_MOST_ITEMS = 960
"""The sum of all maxItems from which on Gemini refuses a schema (python-genai#2170)."""
_MOST_ENUM_VALUES = 100
"""Larger enums were refused as too complex: then the schema goes in words, and is checked here."""


_CONFIG = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "thinking_config": "thinking_config",
}
"""Parameters by their names in ``generation_config``."""


_AS_THEY_ARE = frozenset({"safety_settings", "cached_content"})


_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)


_REFUSED = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
     "ESCALATION"}
)  # fmt: skip


# gRPC's codes, by which the HTTP status decides whether a row may be asked again.
_HTTP_STATUSES = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 13: 500, 14: 503, 16: 401}


_FINISHES = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}


# --- there ---------------------------------------------------------------------------------------


def request_line(line: bytes) -> bytes:
    r"""Return a line of ours as a line of Gemini's batch file; the batch names the model.

    Raises
    ------
    ParameterError
        The request has a parameter or message that Gemini does not take.
    """
    request = loads(line)
    own = {"key": request["custom_id"], "request": generate_request(request["body"])}
    return encode(own) + b"\n"


def generate_request(body: Mapping[str, Json]) -> dict[str, Json]:
    """Return the body of a chat completion as a request of ``generateContent``.

    Raises
    ------
    ParameterError
        It has a parameter or message that the API does not take.

    Examples
    --------
    >>> generate_request({"model": "m", "max_tokens": 64,
    ...                   "messages": [{"role": "user", "content": "Red mug"}]})
    {'contents': [{'role': 'user', 'parts': [{'text': 'Red mug'}]}], \
'generation_config': {'max_output_tokens': 64}}
    """
    with translating_for("Gemini"):
        return _generate_request(body)


def _generate_request(body: Mapping[str, Json]) -> dict[str, Json]:
    system, contents = _conversation(body["messages"])
    config: dict[str, Json] = {}
    others: dict[str, Json] = {}
    for name, value in body.items():
        # The batch names the model, not the line.
        if name in {"messages", "model"} or value is None:
            continue
        # Said or not, Gemini does so anyway: no reason to refuse the request.
        if (name, value) in (("n", 1), ("stream", False), ("store", False)):
            continue
        if name in _CONFIG:
            config[_CONFIG[name]] = value
        elif name == "stop":
            # OpenAI takes one text as well as a list of them.
            config["stop_sequences"] = [value] if isinstance(value, str) else list(value)
        elif name == "response_format":
            wanted, words = _answer_format(value)
            config.update(wanted)
            # Checked when the answer is read, so a schema in words costs no correctness.
            system += words
        elif (other := _other_member(name, value)) is not None:
            others.update(other)
        else:
            raise ParameterError(
                f"params= sets {name!r} to {value!r}, which Gemini's API does not know.",
                "Leave it out; what is that API's own goes into params={'extra_body': {...}}.",
                name=name,
            )
    made: dict[str, Json] = {"contents": contents}
    if parts := [{"text": text} for text in system if text]:
        made["system_instruction"] = {"parts": parts}
    if config:
        made["generation_config"] = config
    return {**made, **others}


def _answer_format(wanted: Mapping[str, Json]) -> tuple[dict[str, Json], list[str]]:
    """Return config members that ask for structure, and words for the system prompt."""
    if wanted["type"] == "text":
        return {}, []
    config = {"response_mime_type": "application/json"}
    if wanted["type"] == "json_object":
        return config, []
    schema = _within_item_budget(wanted["json_schema"]["schema"])
    if _enum_values(schema) <= _MOST_ENUM_VALUES:
        return {**config, "response_json_schema": schema}, []
    text = json.dumps(schema, ensure_ascii=False)
    return config, [f"Answer with JSON alone that fits this schema: {text}"]


def _other_member(name: str, value: Json) -> dict[str, Json] | None:
    """Return a parameter that goes beside the config; None for an unknown one."""
    if name == "tools":
        return {"tools": [{"function_declarations": [_tool(each) for each in value]}]}
    if name == "tool_choice":
        names = [value["function"]["name"]]
        calling = {"mode": "ANY", "allowed_function_names": names}
        return {"tool_config": {"function_calling_config": calling}}
    return {name: value} if name in _AS_THEY_ARE else None


def _tool(tool: Mapping[str, Json]) -> dict[str, Json]:
    function = tool["function"]
    made = {"name": function["name"], "description": function.get("description") or ""}
    schema = _within_item_budget(function.get("parameters") or {"type": "object"})
    return {**made, "parameters_json_schema": schema}


def _within_item_budget(schema: Json) -> Json:
    """Drop the bounds of lists where all together are more than Gemini takes.

    Each row would come back as an invalid argument that names nothing; answers are checked here.
    """
    return _without_most_items(schema) if _sum_of_most_items(schema) > _MOST_ITEMS else schema


def _sum_of_most_items(node: Json) -> int:
    if isinstance(node, list):
        return sum(map(_sum_of_most_items, node))
    if not isinstance(node, dict):
        return 0
    own = node["maxItems"] if isinstance(node.get("maxItems"), int) else 0
    return own + sum(map(_sum_of_most_items, node.values()))


def _without_most_items(node: Json) -> Json:
    if isinstance(node, list):
        return [_without_most_items(each) for each in node]
    if not isinstance(node, dict):
        return node
    # A property may be called so, too: then what it holds is a schema.
    return {
        name: _without_most_items(each)
        for name, each in node.items()
        if name != "maxItems" or not isinstance(each, int)
    }


def _enum_values(node: Json) -> int:
    if isinstance(node, list):
        return sum(map(_enum_values, node))
    if not isinstance(node, dict):
        return 0
    own = len(node["enum"]) if isinstance(node.get("enum"), list) else 0
    return own + sum(map(_enum_values, node.values()))


def _conversation(messages: list[dict[str, Json]]) -> tuple[list[str], list[dict[str, Json]]]:
    """Return the system texts, and the turns after them."""
    systems: list[str] = []
    turns: list[dict[str, Json]] = []
    for message in messages:
        role, content = message["role"], message["content"]
        if role in {"system", "developer"} and not turns and isinstance(content, str):
            systems.append(content)
        elif role in {"user", "assistant"}:
            turn = {"role": "model" if role == "assistant" else "user", "parts": _parts(content)}
            turns.append(turn)
        else:
            raise ParameterError(
                f"A message of the role {role!r} stands where Gemini takes none.",
                "Put system messages first; the others are 'user' and 'assistant'.",
            )
    if not turns:
        raise ParameterError(
            "The template has no message of the role 'user', and Gemini needs one.",
            "Write what a row asks as the user's message.",
        )
    return systems, turns


def _parts(content: Json) -> list[dict[str, Json]]:
    if isinstance(content, str):
        return [{"text": content}]
    return [_part(part) for part in content if part.get("text") != ""]


def _part(part: Mapping[str, Json]) -> dict[str, Json]:
    if part["type"] == "text":
        return {"text": part["text"]}
    url = part["image_url"]["url"]
    if found := _DATA_URL.fullmatch(url):
        return {"inline_data": {"mime_type": found[1], "data": found[2]}}
    # By the address alone: to ask the server would be a request for each row.
    kind = mimetypes.guess_type(url.partition("?")[0])[0] or "image/jpeg"
    return {"file_data": {"file_uri": url, "mime_type": kind}}


# --- and back ------------------------------------------------------------------------------------


def response_line(line: bytes) -> bytes:
    """Return a line of results as the Batch API would have written it, with the original inside.

    A line that is no result is given back as it came; a result that cannot be read becomes an
    error of its row, so that a broken line loses only itself.

    Examples
    --------
    >>> made = response_line(b'{"key": "a", "error": {"code": 4, "message": "Too slow."}}')
    >>> json.loads(made)["response"]["status_code"]
    504
    """
    try:
        result = loads(line)
        key = result["key"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return line
    # Kept beside the translation: a later version may read more out of it.
    original = {name: result.get(name) for name in ("response", "error", "status")}
    try:
        outcome = _outcome_of(result)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message = "Gemini's result for this request has a form that cannot be read."
        outcome = {"response": None, "error": {"code": "unreadable_result", "message": message}}
    try:
        return encode({"custom_id": key, **outcome, "gemini": original})
    except (ValueError, RecursionError):
        return line


def _outcome_of(result: Mapping[str, Json]) -> dict[str, Json]:
    """Return a result as the ``response`` and ``error`` of a Batch line."""
    response = result.get("response")
    if not response:
        return _errored(result.get("error") or result.get("status") or {})
    body = _chat_completion(response)
    return {"response": {"status_code": 200, "request_id": None, "body": body}, "error": None}


def live_answer(response: Mapping[str, Json]) -> dict[str, Json]:
    """Return the answer to a live call as a chat completion, with the original inside.

    Raises
    ------
    ValueError
        It is none of the API's.
    """
    if response.keys().isdisjoint({"candidates", "promptFeedback"}):
        raise ValueError("neither candidates nor the reason why there are none")
    return {**_chat_completion(response), "gemini": response}


def _chat_completion(response: Mapping[str, Json]) -> dict[str, Json]:
    candidates = response.get("candidates") or []
    usage = _usage(response.get("usageMetadata") or {})
    blocked = (response.get("promptFeedback") or {}).get("blockReason")
    if not candidates:
        reason = f"Gemini blocked the prompt: {blocked or 'no candidate came'}"
        choices = [_choice(None, "content_filter", reason)] if blocked else []
    else:
        choices = [_candidate(candidates[0])]
    return {
        "id": response.get("responseId"),
        "object": "chat.completion",
        "model": response.get("modelVersion"),
        "choices": choices,
        "usage": usage,
    }


def _errored(error: Mapping[str, Json]) -> dict[str, Json]:
    """Translate a failed request; gRPC's codes become the HTTP statuses they stand for."""
    code, message = error.get("code"), error.get("message") or "no response came"
    status = _HTTP_STATUSES.get(code, code) if isinstance(code, int) else None
    # Neither a code of gRPC's nor an HTTP status: the word itself is the row's error.
    if status not in range(400, 600):
        return {"response": None, "error": {"code": str(code), "message": message}}
    body = {"error": {"message": message, "code": error.get("status")}}
    return {"response": {"status_code": status, "request_id": None, "body": body}, "error": None}


def _candidate(candidate: Mapping[str, Json]) -> dict[str, Json]:
    parts = (candidate.get("content") or {}).get("parts") or []
    # Thoughts are parts like the answer's; in its text they would break the JSON.
    texts = [part["text"] for part in parts if "text" in part and not part.get("thought")]
    text = "".join(texts) if texts else None
    wanted = [part["functionCall"] for part in parts if isinstance(part.get("functionCall"), dict)]
    calls = [
        {"type": "function", "function": {"name": c.get("name"), "arguments": c.get("args") or {}}}
        for c in wanted
    ]
    reason = str(candidate.get("finishReason"))
    if reason in _REFUSED or reason.startswith("IMAGE_"):
        said = candidate.get("finishMessage") or reason
        return _choice(text, "content_filter", f"Gemini stopped the answer: {said}")
    return _choice(text, _FINISHES.get(reason, reason.lower()), calls=calls)


def _choice(
    text: str | None,
    finish_reason: str,
    refusal: str | None = None,
    calls: list[dict[str, Json]] | None = None,
) -> dict[str, Json]:
    called = {"tool_calls": calls} if calls else {}
    message = {"role": "assistant", "content": text, "refusal": refusal, **called}
    return {"index": 0, "message": message, "finish_reason": finish_reason}


def _usage(usage: Mapping[str, Json]) -> dict[str, Json]:
    """Translate token counts; thoughts are paid as output."""
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    prompt, answer, thoughts = (int(usage.get(name) or 0) for name in names)
    cached = int(usage.get("cachedContentTokenCount") or 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer + thoughts,
        "total_tokens": prompt + answer + thoughts,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }
