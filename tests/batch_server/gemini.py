"""The service as Gemini's Developer API speaks it: operations, and lines of another form."""

from __future__ import annotations

import json
import re
from typing import Any

from .reply import Json
from .rows import dump_json

_STATES = {
    "validating": "PENDING",
    "in_progress": "RUNNING",
    "finalizing": "RUNNING",
    "cancelling": "RUNNING",
    "completed": "SUCCEEDED",
}
_STOPS = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_REQUEST = {"contents", "system_instruction", "generation_config", "safety_settings"}
_CONFIG = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_output_tokens": "max_tokens",
    "seed": "seed",
    "stop_sequences": "stop",
    "response_mime_type": None,
    "response_json_schema": None,
}


def understood(asked: Json, raw_path: str) -> Json:
    """A create in OpenAI's words."""
    batch = asked.get("batch") or {}
    found = re.search(r"/models/([^/]+):batchGenerateContent", raw_path)
    return {
        "endpoint": "/v1/chat/completions",
        "input_file_id": batch.get("inputConfig", {}).get("fileName", "").removeprefix("files/"),
        "completion_window": "24h",
        "metadata": {"frameenrich_tag": batch.get("displayName")},
        "model": found[1] if found else None,
    }


def whole_line(line: bytes, model: str) -> bytes:
    """A line of its batch file as a line of OpenAI's."""
    request = json.loads(line)
    assert request.keys() == {"key", "request"}, request.keys()
    body = {"model": model, **chat_body(request["request"])}
    whole = {"custom_id": request["key"], "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps({**whole, "body": body}).encode()


def chat_body(request: Json) -> Json:
    """A request in the form whose answers this server knows; what is strange shows as such."""
    config = request.get("generation_config", {})
    strange = (request.keys() - _REQUEST) | (config.keys() - _CONFIG.keys())
    messages = [
        {"role": "system", "content": part["text"]}
        for part in request.get("system_instruction", {}).get("parts", ())
    ]
    for turn in request["contents"]:
        role = {"model": "assistant", "user": "user"}[turn["role"]]
        messages.append({"role": role, "content": [_part(part) for part in turn["parts"]]})
    body: Json = {"messages": messages}
    body |= {word: config[name] for name, word in _CONFIG.items() if word and name in config}
    if "response_json_schema" in config:
        described = {"name": "answer", "schema": config["response_json_schema"]}
        body["response_format"] = {"type": "json_schema", "json_schema": described}
    return body | ({"strange": sorted(strange)} if strange else {})


def _part(part: Json) -> Json:
    if "text" in part:
        return {"type": "text", "text": part["text"]}
    image = part.get("inline_data")
    url = f"data:{image['mime_type']};base64,{image['data']}" if image else part["file_data"]
    return {"type": "image_url", "image_url": {"url": url}}


def operation(batch: Json) -> Json:
    """A batch as the API shows it: numbers are texts, and zeros are left out."""
    counts = batch["request_counts"] or {}
    counted = {
        "requestCount": counts.get("total"),
        "successfulRequestCount": counts.get("completed"),
        "failedRequestCount": counts.get("failed"),
    }
    state = _STATES.get(batch["status"], batch["status"].upper())
    failed = (batch["errors"] or {}).get("data") or ()
    output = batch["output_file_id"]
    told = {
        "state": f"BATCH_STATE_{state}",
        "displayName": (batch["metadata"] or {}).get("frameenrich_tag"),
        "model": f"models/{batch['model']}",
        "batchStats": {name: str(count) for name, count in counted.items() if count},
        **({"output": {"responsesFile": f"files/{output}"}} if output else {}),
    }
    error = {"error": {"code": 3, "message": failed[0]["message"]}} if failed else {}
    return {
        "name": f"batches/{batch['id']}",
        "metadata": told,
        "done": bool(output or failed),
        **error,
    }


def file_as(file: Json) -> Json:
    """A file as the API shows it."""
    return {"name": f"files/{file['id']}", "sizeBytes": str(file["bytes"]), "state": "ACTIVE"}


def result(line: bytes) -> bytes:
    """A line of results as it writes them."""
    try:
        told: Json = json.loads(line)
    except ValueError:
        return line
    key, response, error = told.get("custom_id"), told.get("response") or {}, told.get("error")
    body = response.get("body") or {}
    if error or body.get("error"):
        code = 4 if error else response["status_code"]
        message = (error or body["error"])["message"]
        return json.dumps({"key": key, "error": {"code": code, "message": message}}).encode()
    return dump_json({"key": key, "response": answer(body)})


def answer(body: Json) -> Json:
    """An answer of the chat API in its own form."""
    choice = body["choices"][0]
    text, usage = choice["message"].get("content"), body["usage"]
    candidate: dict[str, Any] = {"finishReason": _STOPS[choice["finish_reason"]], "index": 0}
    if text is not None:
        thought = {"thought": True, "text": "Hm."}
        candidate["content"] = {"role": "model", "parts": [thought, {"text": text}]}
    counted = {
        "promptTokenCount": usage["prompt_tokens"],
        "candidatesTokenCount": usage["completion_tokens"],
    }
    return {"candidates": [candidate], "usageMetadata": counted, "modelVersion": body["model"]}
