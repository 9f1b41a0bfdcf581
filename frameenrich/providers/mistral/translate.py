"""Translate our request lines to Mistral's, and its results where they differ from a Batch API's.

Source: the types of the `mistralai` package 3.7 (`ChatCompletionRequest`, `BatchJob`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from frameenrich.errors import ParameterError
from frameenrich.jsonl import encode, loads
from frameenrich.model import Json

_OTHER_NAMES = {"max_completion_tokens": "max_tokens", "seed": "random_seed"}
"""Parameters that the two APIs name differently."""


_FINISHES = {"model_length": "length"}


# A search of the bytes: nearly all lines need no change, and then none is parsed.
_TO_CHANGE = re.compile(rb'"finish_reason"\s*:\s*"(?:model_length|error)"')


_STOPPED_BY_ERROR: dict[str, Json] = {
    "code": "model_error",
    "message": "Mistral stopped this answer because of an error.",
}


# --- there ---------------------------------------------------------------------------------------


def request_line(line: bytes) -> bytes:
    r"""Return a line of ours as a batch file of Mistral's has it: the job names the model.

    Raises
    ------
    ParameterError
        The request has a parameter that Mistral's chat completions do not take.

    Examples
    --------
    >>> request_line(b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions",'
    ...              b'"body":{"model":"mistral-small-latest","messages":[],"seed":1}}\n')
    b'{"custom_id":"a","body":{"messages":[],"random_seed":1}}\n'
    """
    request = loads(line)
    body = chat_body(request["body"])
    body.pop("model", None)
    return encode({"custom_id": request["custom_id"], "body": body}) + b"\n"


def chat_body(body: Mapping[str, Json]) -> dict[str, Json]:
    """Return the body of a chat completion in Mistral's words.

    Raises
    ------
    ParameterError
        It has a parameter that the API does not take.

    Examples
    --------
    >>> chat_body({"model": "m", "messages": [{"role": "developer", "content": "Be brief."}],
    ...            "max_completion_tokens": 9, "temperature": None})
    {'model': 'm', 'messages': [{'role': 'system', 'content': 'Be brief.'}], 'max_tokens': 9}
    """
    made: dict[str, Json] = {}
    for name, value in body.items():
        # Defaults of OpenAI's that mean nothing here are dropped; anything else is refused by name.
        if value is None or (name, value) in (("stream", False), ("store", False)):
            continue
        word = _OTHER_NAMES.get(name, name)
        if word not in _known_words():
            raise ParameterError(
                f"params= sets {name!r} to {value!r}, which Mistral's chat completions do not "
                "know.",
                "Leave it out.",
                name=name,
            )
        made[word] = [_message(each) for each in value] if word == "messages" else value
    return made


def _message(message: Json) -> Json:
    if isinstance(message, dict) and message.get("role") == "developer":
        return {**message, "role": "system"}
    return message


@functools.cache
def _known_words() -> frozenset[str]:
    """List the parameters that the installed SDK knows; an upgrade brings new ones."""
    from mistralai.client.models import ChatCompletionRequest  # noqa: PLC0415 - an extra

    return frozenset(ChatCompletionRequest.model_fields)


# --- and back ------------------------------------------------------------------------------------


def response_line(line: bytes) -> bytes:
    """Return a line of results as the Batch API would have written it.

    Most already are, and stay as they came, byte for byte. A line that had to be changed keeps
    Mistral's own response inside; one that cannot be read is given back.

    Examples
    --------
    >>> import json
    >>> choice = {"finish_reason": "model_length", "message": {"content": "Kit"}}
    >>> response = {"status_code": 200, "body": {"choices": [choice]}}
    >>> made = response_line(json.dumps({"custom_id": "a", "response": response}).encode())
    >>> json.loads(made)["response"]["body"]["choices"][0]["finish_reason"]
    'length'
    """
    if not _TO_CHANGE.search(line):
        return line
    try:
        result = loads(line)
        response = result["response"]
        choice, *others = response["body"]["choices"]
        reason = choice["finish_reason"]
        # Text before an error is no whole answer, so the row fails and may be sent again.
        if reason == "error":
            changed = {"response": None, "error": _STOPPED_BY_ERROR}
        elif reason in _FINISHES:
            choice = {**choice, "finish_reason": _FINISHES[reason]}
            body = {**response["body"], "choices": [choice, *others]}
            changed = {"response": {**response, "body": body}}
        else:
            return line
        return encode({**result, **changed, "mistral": response})
    except (ValueError, KeyError, TypeError, RecursionError):
        return line
