"""Translate our request lines to Anthropic's, and its results to Batch lines.

Sources: the types of the `anthropic` package 2.13 (`MessageCreateParams`, `MessageBatchResult`),
its structured-output guide (`output_config.format`) and its batch guide (2026).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping

from frameenrich.errors import ParameterError
from frameenrich.jsonl import encode, loads
from frameenrich.model import Json
from frameenrich.providers.uploaded import translating_for

DEFAULT_MAX_TOKENS = 4096
"""Anthropic wants a cap; what is not used of it costs nothing."""


_DATA_URL = re.compile(r"data:(image/(?:jpeg|png|gif|webp));base64,(.*)", re.DOTALL)


_AS_THEY_ARE = frozenset(
    {"model", "temperature", "top_p", "top_k", "thinking", "stop_sequences", "service_tier",
     "cache_control", "inference_geo", "container"}
)  # fmt: skip


_CAPS = ("max_completion_tokens", "max_tokens")


_EFFORTS = ("low", "medium", "high", "xhigh", "max")


_CODES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status that the Messages API gives each type of error; others are 500."""


_FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "tool_use": "tool_calls",
}


# --- there ---------------------------------------------------------------------------------------


def request_line(line: bytes, wire_id: Callable[[str], str]) -> bytes:
    """Return a line of ours as an element of a Message Batch's ``requests``.

    Raises
    ------
    ParameterError
        The request has a parameter or message that the Messages API does not take.
    """
    request = loads(line)
    own = wire_id(request["custom_id"])
    return encode({"custom_id": own, "params": message_params(request["body"])})


def message_params(body: Mapping[str, Json]) -> dict[str, Json]:
    """Return the body of a chat completion as parameters of the Messages API.

    Raises
    ------
    ParameterError
        It has a parameter or message that the API does not take.

    Examples
    --------
    >>> message_params({
    ...     "model": "claude-haiku-4-5",
    ...     "messages": [{"role": "system", "content": "Be brief."},
    ...                  {"role": "user", "content": "What is a mug?"}],
    ...     "max_tokens": 50, "stop": "."})
    {'model': 'claude-haiku-4-5', 'max_tokens': 50, \
'messages': [{'role': 'user', 'content': 'What is a mug?'}], 'system': 'Be brief.', \
'stop_sequences': ['.']}
    """
    with translating_for("Anthropic"):
        return _message_params(body)


def _message_params(body: Mapping[str, Json]) -> dict[str, Json]:
    system, messages = _conversation(body["messages"])
    # The Messages API requires a cap, which a chat completion may leave out.
    cap = next((body[name] for name in _CAPS if body.get(name)), DEFAULT_MAX_TOKENS)
    params: dict[str, Json] = {"model": body["model"], "max_tokens": cap, "messages": messages}
    for name, value in body.items():
        if name == "messages" or name in _CAPS or value is None:
            continue
        for word, said in _parameter(name, value).items():
            if word == "system":
                system = _after(system, said)
            # Two of our parameters, the format and the effort, are members of this one object.
            elif word == "output_config":
                params[word] = {**params.get(word, {}), **said}
            else:
                params[word] = said
    if system:
        params["system"] = system
    first = ("model", "max_tokens", "messages", "system")
    return {**{name: params[name] for name in first if name in params}, **params}


def _after(system: Json, said: str) -> Json:
    """Append words to the system prompt; blocks that are marked for the cache stay as they are."""
    if isinstance(system, list):
        return [*system, {"type": "text", "text": said}]
    return f"{system}\n\n{said}" if system else said


def _parameter(name: str, value: Json) -> dict[str, Json]:
    """Translate one parameter into Anthropic's."""
    # OpenAI's goes to 2. Scaling it down would silently change what the user asked for.
    if name == "temperature" and value > 1:
        raise ParameterError(
            f"params= sets temperature to {value}, and Anthropic's ends at 1.",
            "Give 0 to 1.",
            name=name,
        )
    if name in _AS_THEY_ARE:
        return {name: value}
    if name == "stop":
        return {"stop_sequences": [value] if isinstance(value, str) else list(value)}
    # Anthropic's metadata has one member, the end user's id, which OpenAI calls `user`.
    if name == "user" or (name == "metadata" and set(value) == {"user_id"}):
        return {"metadata": {"user_id": value} if name == "user" else value}
    if name == "reasoning_effort" and value in _EFFORTS:
        return {"output_config": {"effort": value}}
    if name == "output_config":
        return {name: value}
    if name == "response_format":
        return _answer_format(value)
    if name in {"tools", "tool_choice"}:
        return _about_tools(name, value)
    # Said or not, Anthropic does so anyway: no reason to refuse the request.
    if (name, value) in (("n", 1), ("stream", False), ("store", False)):
        return {}
    raise ParameterError(
        f"params= sets {name!r} to {value!r}, which Anthropic's Messages API does not know.",
        "Leave it out; what is that API's own goes into params={'extra_body': {...}}.",
        name=name,
    )


def _answer_format(wanted: Mapping[str, Json]) -> dict[str, Json]:
    if wanted["type"] == "text":
        return {}
    described = wanted.get("json_schema")
    if described is None:
        raise ParameterError(
            f"The response_format {wanted['type']!r} is one that Anthropic does not have.",
            "Use response_model= or labels=, with json_mode='schema', 'tools' or 'prompt'.",
            name="response_format",
        )
    if described.get("strict"):
        schema = _anthropic_schema(json.dumps(described["schema"]))
        return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    # Anthropic holds every object to its named properties: a free-form one would come back empty.
    text = json.dumps(described["schema"], ensure_ascii=False)
    return {"system": f"Answer with JSON alone, without a fence, that fits this schema: {text}"}


def _about_tools(name: str, value: Json) -> dict[str, Json]:
    if name == "tools":
        return {name: [_tool(each["function"]) for each in value]}
    return {name: {"type": "tool", "name": value["function"]["name"]}}


def _tool(function: Mapping[str, Json]) -> dict[str, Json]:
    """Return a tool in Anthropic's words; a strict one with the schema that it can be held to."""
    schema = function.get("parameters") or {"type": "object"}
    strict = bool(function.get("strict"))
    tool = {"name": function["name"], "description": function.get("description") or ""}
    if strict:
        return {**tool, "input_schema": _anthropic_schema(json.dumps(schema)), "strict": True}
    return {**tool, "input_schema": schema}


# Cached, as all lines of a batch mostly have one schema.
@functools.lru_cache(maxsize=64)
def _anthropic_schema(schema: str) -> dict[str, Json]:
    """Rewrite a schema for constrained output; bounds that it does not take become descriptions."""
    from anthropic import transform_schema  # noqa: PLC0415 - an extra

    made: dict[str, Json] = transform_schema(_one_type_each(json.loads(schema)))
    return made


def _one_type_each(node: Json) -> Json:
    """Expand ``"type": ["string", "null"]`` into the ``anyOf`` that it is short for."""
    if isinstance(node, list):
        return [_one_type_each(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {name: _one_type_each(value) for name, value in node.items()}
    kinds = made.get("type")
    if not isinstance(kinds, list):
        return made
    rest = {name: value for name, value in made.items() if name != "type"}
    # An enum names its own types, null included, so it needs no "type" beside it.
    if "enum" in rest:
        return rest
    said = {name: rest.pop(name) for name in ("title", "description") if name in rest}
    nothing = [{"type": "null"}] if "null" in kinds else []
    return {**said, "anyOf": [{"type": k, **rest} for k in kinds if k != "null"] + nothing}


def _conversation(messages: list[dict[str, Json]]) -> tuple[Json, list[dict[str, Json]]]:
    """Return the system prompt, in blocks where one of them is marked, and the turns after it."""
    systems: list[Json] = []
    turns: list[dict[str, Json]] = []
    for message in messages:
        role, content = message["role"], message["content"]
        # A dropped member, such as a tool call, would silently change the conversation.
        if message.keys() - {"role", "content"}:
            raise ParameterError(
                f"A message holds {min(message.keys() - {'role', 'content'})!r}, which is not "
                "translated for Anthropic.",
                "Give messages of a role and a content.",
            )
        if role in {"system", "developer"} and not turns:
            systems.append(content)
        elif role in {"user", "assistant"}:
            turns.append({"role": role, "content": _content(content)})
        else:
            raise ParameterError(
                f"A message of the role {role!r} stands where Anthropic takes none.",
                "Put system messages first; the others are 'user' and 'assistant'.",
            )
    if not turns:
        raise ParameterError(
            "The template has no message of the role 'user', and Anthropic needs one.",
            "Write what a row asks as the user's message.",
        )
    # One string where it can be one; blocks only where one of them carries a cache mark.
    if all(isinstance(system, str) for system in systems):
        return "\n\n".join(systems), turns
    blocks = ([{"type": "text", "text": s}] if isinstance(s, str) else s for s in systems)
    return [block for each in blocks for block in each], turns


def _content(content: Json) -> Json:
    if isinstance(content, str):
        return content
    # The API refuses empty text blocks, such as an empty cell makes.
    return [_part(part) for part in content if part.get("text") != ""]


def _part(part: Mapping[str, Json]) -> dict[str, Json]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    image = part["image_url"]
    # "auto" asks for nothing in particular, so it can be left out.
    if image.get("detail", "auto") != "auto":
        raise ParameterError(
            f"image_detail={image['detail']!r} is not known to Anthropic.",
            "Leave it out; image_max_pixels= makes images smaller.",
        )
    return {"type": "image", "source": _source(image["url"])}


def _source(url: str) -> dict[str, Json]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    found = _DATA_URL.match(url)
    if found is None:
        raise ParameterError(
            f"An image is {url[:30]}..., and Anthropic takes JPEG, PNG, GIF and WebP.",
            "Convert it first.",
        )
    return {"type": "base64", "media_type": found[1], "data": found[2]}


# --- and back ------------------------------------------------------------------------------------


def response_line(line: bytes, own_id: Callable[[str], str | None]) -> bytes:
    """Return a line of results as the Batch API would have written it, with the original inside.

    A line that is no result is given back as it came; a result that cannot be read becomes an
    error of its row, so that a broken line loses only itself.

    Examples
    --------
    >>> made = response_line(b'{"custom_id": "a", "result": {"type": "expired"}}', lambda i: i)
    >>> json.loads(made)["error"]["code"]
    'batch_expired'
    """
    try:
        result = loads(line)
        wire_id, outcome = result["custom_id"], result["result"]
        name = own_id(wire_id)
        # The original stays beside its translation: a later version may read more out of it.
        return encode(
            {"id": wire_id, "custom_id": name, **_outcome_of(outcome), "anthropic": outcome}
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return line


def _outcome_of(outcome: Mapping[str, Json]) -> dict[str, Json]:
    """Return a result as the ``response`` and ``error`` of a Batch line."""
    try:
        if read := _OUTCOMES.get(outcome["type"]):
            return read(outcome)
        # A new kind of result fails its row by name, and no other row.
        said = f"a result of the kind {outcome['type']!r}"
        return {"response": None, "error": {"code": "unknown_result", "message": said}}
    except (KeyError, TypeError, AttributeError, ValueError):
        return _UNREADABLE


def _succeeded(outcome: Mapping[str, Json]) -> dict[str, Json]:
    message = outcome["message"]
    body = _chat_completion(message) if isinstance(message, dict) else {}
    response = {"status_code": 200, "request_id": body.get("id"), "body": body}
    return {"response": response, "error": None}


def live_answer(message: Mapping[str, Json]) -> dict[str, Json]:
    """Return the answer to a live call as a chat completion, with the original inside.

    Raises
    ------
    ValueError
        It is no message.
    """
    if message["type"] != "message":
        raise ValueError(message["type"])
    return {**_chat_completion(message), "anthropic": message}


def _chat_completion(message: Mapping[str, Json]) -> dict[str, Json]:
    texts = [
        block["text"]
        for block in message.get("content") or ()
        if isinstance(block, dict) and block.get("type") == "text"
    ]
    thoughts = [
        block["thinking"]
        for block in message.get("content") or ()
        if isinstance(block, dict) and block.get("type") == "thinking"
    ]
    calls = [
        {"type": "function", "function": {"name": block["name"], "arguments": block["input"]}}
        for block in message.get("content") or ()
        if isinstance(block, dict) and block.get("type") == "tool_use"
    ]
    reason = message.get("stop_reason")
    choice = {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "".join(texts) if texts else None,
            "refusal": _refusal(message) if reason == "refusal" else None,
            **({"reasoning_content": "".join(thoughts)} if thoughts else {}),
            **({"tool_calls": calls} if calls else {}),
        },
        "finish_reason": _FINISHES.get(str(reason), reason),
    }
    return {
        "id": message.get("id"),
        "object": "chat.completion",
        "model": message.get("model"),
        "choices": [choice],
        "usage": _usage(message.get("usage") or {}),
    }


def _refusal(message: Mapping[str, Json]) -> str:
    details = message.get("stop_details") or {}
    return str(details.get("explanation") or details.get("category") or "the model refused")


def _usage(usage: Mapping[str, Json]) -> dict[str, Json]:
    """Translate token counts; OpenAI's prompt tokens include those of the cache."""
    made, read = (usage.get(f"cache_{which}_input_tokens") or 0 for which in ("creation", "read"))
    prompt = sum((usage.get("input_tokens") or 0, made, read))  # a TypeError where one is a text
    completion = usage.get("output_tokens") or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": read, **_written(usage, made)},
    }


def _written(usage: Mapping[str, Json], made: int) -> dict[str, int]:
    """Return the tokens written to the cache; those kept for an hour have another price."""
    kept = usage.get("cache_creation") or {}
    longer = kept.get("ephemeral_1h_input_tokens") or 0
    said = {"cache_write_tokens": made, "cache_write_1h_tokens": longer}
    return {name: tokens for name, tokens in said.items() if tokens}


def _errored(outcome: Mapping[str, Json]) -> dict[str, Json]:
    error = outcome.get("error") or {}
    error = error.get("error") or error  # it comes inside of an envelope of its own
    kind = str(error.get("type"))
    body = {"error": {"message": error.get("message"), "type": kind, "code": kind}}
    code = _CODES.get(kind, 500)
    return {"response": {"status_code": code, "request_id": None, "body": body}, "error": None}


def _unrun(code: str, message: str) -> Callable[[Mapping[str, Json]], dict[str, Json]]:
    failure = {"response": None, "error": {"code": code, "message": message}}
    return lambda _: failure


_OUTCOMES: Mapping[str, Callable[[Mapping[str, Json]], dict[str, Json]]] = {
    "succeeded": _succeeded,
    "errored": _errored,
    "expired": _unrun("batch_expired", "This request did not run before the batch expired."),
    "canceled": _unrun("batch_cancelled", "The batch was cancelled before this request ran."),
}


_UNREADABLE: dict[str, Json] = {
    "response": None,
    "error": {
        "code": "unreadable_result",
        "message": "Anthropic's result for this request has a form that cannot be read.",
    },
}
