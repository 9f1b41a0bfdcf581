"""Embed texts in this process with WordLlama; no key, no network.

Average-pooled token vectors of 256 dimensions: good for finding what is alike, some ten thousand
texts a second. Unlike the chat model it answers many requests at a time.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from frameenrich.errors import ParameterError
from frameenrich.model import Json
from frameenrich.text import without_surrogates

EMBEDDED_EMBEDDER = "wordllama-256"


_DIMENSIONS = 256


_AT_A_TIME = 256


_TOGETHER_CHARACTERS = 32_000
"""Texts of one call are padded to the longest of them: this many take some 30 MB."""


class Embedder:
    """Answers ``/v1/embeddings`` with unit vectors, as OpenAI's models do.

    Raises
    ------
    ParameterError
        The extra is not installed.
    """

    endpoint = "/v1/embeddings"

    def __init__(self) -> None:
        try:
            wordllama = _import_quietly()
            # Its own default looks elsewhere and then goes to the network.
            folder = Path(wordllama.__file__).parent
            self._model: Any = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        except ImportError:
            raise ParameterError(
                f"The weights of {EMBEDDED_EMBEDDER!r} are not installed.",
                "Run: pip install 'frameenrich[embed]'.",
            ) from None

    def __repr__(self) -> str:
        return EMBEDDED_EMBEDDER

    def unit_vectors(self, texts: Sequence[str], dimensions: int = _DIMENSIONS) -> Any:
        """Return an array with a vector of length 1 for each text; of an empty one it is 0."""
        import numpy as np  # noqa: PLC0415 - WordLlama's own, and heavy where only answers are wanted

        vectors = np.zeros((len(texts), dimensions), np.float32)
        filled = [i for i, text in enumerate(texts) if text.strip()]
        clean = [without_surrogates(texts[i]) for i in filled]
        for i, (vector, _) in zip(filled, self._vectors(clean), strict=True):
            start = vector[:dimensions]  # it was trained so that a start of it is a vector, too
            length = float((start * start).sum()) ** 0.5
            vectors[i] = start / length if length else 0.0
        return vectors

    def answers(self, requests: Iterable[tuple[str, bytes]]) -> Generator[list[bytes]]:
        """Yield response lines, in groups that were made at once."""
        waiting = iter(requests)
        while some := list(islice(waiting, _AT_A_TIME)):
            yield self._answer_lines(some)

    def _answer_lines(self, requests: Sequence[tuple[str, bytes]]) -> list[bytes]:
        # json and not orjson, which refuses a lone surrogate; the tokenizer refuses one, too.
        bodies = [json.loads(line)["body"] for _, line in requests]
        made = self._vectors([without_surrogates(body["input"]) for body in bodies])
        return [
            _line(custom_id, *_reply(body, vector, tokens))
            for (custom_id, _), body, (vector, tokens) in zip(requests, bodies, made, strict=True)
        ]

    def _vectors(self, texts: list[str]) -> Iterator[tuple[Any, int]]:
        """Yield each text's vector and number of tokens."""
        count = max(1, _TOGETHER_CHARACTERS // max(1, *map(len, texts)))
        for start in range(0, len(texts), count):
            some = texts[start : start + count]
            encoded = self._model.tokenize(some)
            yield from zip(
                self._model.embed(some), (sum(e.attention_mask) for e in encoded), strict=True
            )


def _import_quietly() -> Any:
    """Import WordLlama and undo the logging that it sets up for the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        import wordllama  # noqa: PLC0415 - an extra

        return wordllama
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _reply(body: Mapping[str, Json], vector: Any, tokens: int) -> tuple[int, Json]:
    dimensions = body.get("dimensions") or _DIMENSIONS
    if dimensions > _DIMENSIONS:
        return 400, _refusal(f"{EMBEDDED_EMBEDDER} has {_DIMENSIONS} dimensions, no {dimensions}")
    vector = vector[:dimensions]  # it was trained so that a start of it is a vector, too
    length = float((vector * vector).sum()) ** 0.5
    if not tokens or not length:
        return 400, _refusal("the text is empty")
    # OpenAI's vectors have length 1, so that a dot product is the cosine; float32, little-endian.
    unit = (vector / length).astype("<f4")
    packed = body.get("encoding_format") == "base64"
    shown = base64.b64encode(unit.tobytes()).decode() if packed else unit
    return 200, {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": shown}],
        "model": body["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _refusal(message: str) -> Json:
    return {"error": {"message": message, "type": "invalid_request_error"}}


def _line(custom_id: str, code: int, body: Json) -> bytes:
    response = {"status_code": code, "request_id": custom_id, "body": body}
    return orjson.dumps(
        {"id": f"local-{custom_id}", "custom_id": custom_id, "response": response, "error": None},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
