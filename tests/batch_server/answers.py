"""What the server answers: the default replies, and the body each endpoint wraps a reply in.

The default answers are pure functions of the user's message, so that a test can work out what any
row has to get, and sees at once when a row got the answer of another.
"""

from __future__ import annotations

import base64
import json
import math
import random
from array import array
from collections.abc import Callable

from .reply import Json, Reply, content_text, response_format, schema_of, stable_hash, user_text
from .schemas import instance_of

MODERATION_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


def default_answer(body: Json, custom_id: str) -> Reply:
    """Return an instance of the JSON Schema that was asked for, else ``echo: <user message>``."""
    text = user_text(body)
    asked = response_format(body)
    if asked.get("type") == "json_object":
        return Reply(content=json.dumps({"echo": text}, ensure_ascii=False))
    schema = schema_of(asked)
    if schema is None:
        return Reply(content=f"echo: {text}")
    return Reply(content=json.dumps(instance_of(schema, text), ensure_ascii=False))


# --- the bodies around a reply --------------------------------------------------------------------

REQUIRED = {
    "/chat/completions": "messages",
    "/responses": "input",
    "/embeddings": "input",
    "/completions": "prompt",
    "/moderations": "input",
}
"""The endpoints that are served, and the body key each of them cannot do without."""


def error_body(message: str, kind: str, param: str | None, code: str | None) -> Json:
    """Return OpenAI's error shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def response_body(endpoint: str, body: Json, reply: Reply) -> Json:
    """Return the response body of one endpoint (``/chat/completions``, …) around a reply."""
    if reply.body is not None:
        return reply.body
    if reply.status_code >= 400:
        kind = "invalid_request_error" if reply.status_code < 500 else "server_error"
        plain = error_body(f"The server answers {reply.status_code} here.", kind, None, None)
        return {"error": {**plain["error"], **(reply.error or {})}}
    return _SHAPES[endpoint](body, reply)


def token_counts(body: Json, reply: Reply) -> tuple[int, int]:
    """Return prompt and completion tokens: the reply's own, else four characters a token."""
    if reply.usage is not None:
        return reply.usage.get("prompt_tokens", 0), reply.usage.get("completion_tokens", 0)
    asked = body.get("messages", body.get("input", body.get("prompt", "")))
    prompt = asked if isinstance(asked, str) else json.dumps(asked)
    said = reply.content or reply.refusal or ""
    return len(prompt) // 4 + 1, (len(said) // 4 + 1 if said else 0)


def _chat_usage(body: Json, reply: Reply) -> Json:
    prompt, completion = token_counts(body, reply)
    if reply.usage is None:  # as the APIs count: the prompt once, every answer
        completion += sum(len(text or "") // 4 + 1 for text in _contents(body, reply)[1:])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _made_id(prefix: str, body: Json) -> str:
    return f"{prefix}{stable_hash(user_text(body)):016x}"


def _contents(body: Json, reply: Reply) -> list[str | None]:
    """The text of each answer that a chat request asks for."""
    return [reply.content, *(reply.others or [reply.content] * ((body.get("n") or 1) - 1))]


def _chat(body: Json, reply: Reply) -> Json:
    choices: list[Json] = [
        {
            "index": n,
            "message": {
                "role": "assistant",
                "content": None if reply.refusal else text,
                "refusal": reply.refusal,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": reply.finish_reason,
        }
        for n, text in enumerate(_contents(body, reply))
    ]
    return {
        "id": _made_id("chatcmpl-", body),
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": body.get("model"),
        "choices": choices,
        "usage": _chat_usage(body, reply),
        "service_tier": body.get("service_tier", "default"),
        "system_fingerprint": None,
    }


def _responses(body: Json, reply: Reply) -> Json:
    reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
    reason = reasons.get(reply.finish_reason)
    status = "incomplete" if reason else "completed"
    parts: list[Json] = []
    if reply.refusal:
        parts = [{"type": "refusal", "refusal": reply.refusal}]
    elif reply.content is not None:
        parts = [{"type": "output_text", "text": reply.content, "annotations": []}]
    message = {"type": "message", "role": "assistant", "status": status, "content": parts}
    prompt, completion = token_counts(body, reply)
    return {
        "id": _made_id("resp_", body),
        "object": "response",
        "created_at": 1_790_000_000,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata") or {},
        "model": body.get("model"),
        "output": [{"id": _made_id("msg_", body), **message}] if parts else [],
        "parallel_tool_calls": True,
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text", {"format": {"type": "text"}}),
        "tool_choice": "auto",
        "tools": [],
        "top_p": body.get("top_p", 1.0),
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + completion,
        },
    }


def _completions(body: Json, reply: Reply) -> Json:
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    choices = [
        {
            "index": number,
            "text": reply.content if len(prompts) == 1 else f"echo: {prompt}",
            "logprobs": None,
            "finish_reason": reply.finish_reason,
        }
        for number, prompt in enumerate(prompts)
    ]
    return {
        "id": _made_id("cmpl-", body),
        "object": "text_completion",
        "created": 1_790_000_000,
        "model": body.get("model"),
        "choices": choices,
        "usage": _chat_usage(body, reply),
    }


def embedding_inputs(body: Json) -> list[str]:
    """Return the inputs of an embeddings body; a list of token ids is one input."""
    asked = body.get("input")
    if isinstance(asked, list) and not all(isinstance(item, int) for item in asked):
        return [item if isinstance(item, str) else json.dumps(item) for item in asked]
    return [asked if isinstance(asked, str) else json.dumps(asked)]


def unit_vector(text: str, dimensions: int) -> list[float]:
    """Return the embedding of a text: a vector of length 1 that depends on the text alone."""
    throw = random.Random(stable_hash(text)).random
    numbers = [throw() - 0.5 for _ in range(dimensions)]
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [number / length for number in numbers]


def _embeddings(body: Json, reply: Reply) -> Json:
    inputs = embedding_inputs(body)
    vectors = [unit_vector(text, body.get("dimensions") or 8) for text in inputs]
    packed = body.get("encoding_format") == "base64"
    tokens = reply.usage or {"prompt_tokens": sum(len(text) // 4 + 1 for text in inputs)}
    count = tokens.get("prompt_tokens", 0)
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": n, "embedding": _packed(v) if packed else v}
            for n, v in enumerate(vectors)
        ],
        "model": body.get("model"),
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def _packed(vector: list[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()


def _moderations(body: Json, reply: Reply) -> Json:
    return {
        "id": _made_id("modr-", body),
        "model": body.get("model", "omni-moderation-latest"),
        "results": [_moderation(text) for text in _moderated_texts(body)],
    }


def _moderated_texts(body: Json) -> list[str]:
    asked = body["input"]
    if isinstance(asked, list) and all(isinstance(item, str) for item in asked):
        return asked
    return [content_text(asked)]


def _moderation(text: str) -> Json:
    """Scores come from a hash of the text; a category is flagged above 0.9."""
    scores = {name: stable_hash(f"{name} {text}") % 1000 / 1000 for name in MODERATION_CATEGORIES}
    categories = {name: score > 0.9 for name, score in scores.items()}
    return {
        "flagged": any(categories.values()),
        "categories": categories,
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in MODERATION_CATEGORIES},
    }


_SHAPES: dict[str, Callable[[Json, Reply], Json]] = {
    "/chat/completions": _chat,
    "/responses": _responses,
    "/completions": _completions,
    "/embeddings": _embeddings,
    "/moderations": _moderations,
}
