"""Measure how sure a model was of a label, by the log probabilities of its tokens.

The answer is ``{"label": "Kitchen"}``. Of its tokens those count that hold a character of the
label's text, without the quotes around it, and

    confidence = exp(sum of their logprobs)

which is the product of their probabilities: what the model gave this very text there. It is
between 0 and 1. It is not shared out among the labels, so that the other labels' need not add up to
the rest, and whether 0.9 means right nine times in ten is to be measured, not assumed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from frameenrich.answers.column_names import INCLUDED
from frameenrich.model import Json
from frameenrich.text import without_surrogates

_LEAST_LOGPROB = -1e5
"""OpenAI writes -9999.0 for "very unlikely"; what is below this is no logprob at all."""


_LABEL = re.compile(rb'["\']label["\']\s*:\s*(?:"((?:[^"\\]|\\.)*)"|\'([^\']*)\'|(\d+))')


def confidence_params(endpoint: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Add the parameter with which an endpoint returns log probabilities."""
    if endpoint == "/v1/responses":
        return {**params, "include": [*(params.get("include") or []), INCLUDED]}
    return {**params, "logprobs": True}


def label_confidence(body: Mapping[str, Json], text: str) -> float | None:
    """Return the probability of a label's text; None where the response has none.

    Parameters
    ----------
    body : mapping
        The body of a chat or Responses answer.
    text : str
        The answer's text.

    Examples
    --------
    >>> tokens = [('{"label":"', -0.1), ("Kit", -0.25), ("chen", -0.25), ('"}', -0.1)]
    >>> content = [{"token": token, "logprob": value} for token, value in tokens]
    >>> body = {"choices": [{"logprobs": {"content": content}}]}
    >>> round(label_confidence(body, '{"label":"Kitchen"}'), 4)
    0.6065
    """
    tokens = [token for token in _tokens(body) if _is_token(token)]
    pieces = [_bytes_of(token) for token in tokens]
    whole, written = b"".join(pieces), without_surrogates(text).encode()
    start = whole.find(written) if written else -1  # llama.cpp counts a fence that it leaves out
    if start < 0:
        return None
    first, last = (start + position for position in _label_span(written))
    total, end = 0.0, 0
    for token, piece in zip(tokens, pieces, strict=True):
        begin, end = end, end + len(piece)
        # A token may hold the label's first character and the quote before it: it counts whole.
        if begin < last and end > first:
            total += token["logprob"]
    return min(1.0, math.exp(min(total, 0.0)))


def _tokens(body: Mapping[str, Json]) -> Iterator[Json]:
    """Yield the tokens of a chat answer, or of the text parts of a Responses answer."""
    # A server's body may have any shape, and log probabilities must not cost the row its answer.
    choices, output = body.get("choices"), body.get("output")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        logprobs = choices[0].get("logprobs")
        yield from _list(logprobs.get("content") if isinstance(logprobs, dict) else None)
    for item in _list(output):
        for part in _list(item.get("content") if isinstance(item, dict) else None):
            if isinstance(part, dict) and part.get("type") == "output_text":
                yield from _list(part.get("logprobs"))


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _is_token(token: Json) -> bool:
    return (
        isinstance(token, dict)
        and isinstance(token.get("token"), str)
        and isinstance(token.get("logprob"), float | int)
        and token["logprob"] > _LEAST_LOGPROB
    )


def _bytes_of(token: dict[str, Json]) -> bytes:
    """Return a token's bytes, since a character may be split between two tokens."""
    numbers = token.get("bytes")
    try:
        return bytes(numbers) if isinstance(numbers, list) else token["token"].encode()
    except (TypeError, ValueError):
        return without_surrogates(str(token["token"])).encode()


def _label_span(written: bytes) -> tuple[int, int]:
    """Find the label's text in the answer; the whole answer where it holds nothing else."""
    found = _LABEL.search(written)
    if found is not None:
        return found.span(found.lastindex or 0)
    text = written.strip().strip(b"\"'.")
    start = written.find(text)
    return start, start + len(text)
