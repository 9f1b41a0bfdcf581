"""The workload of every benchmark: a product catalogue, its prompt, and what a server answers.

SPEED.md's: an 800-character system prompt; a user template of four fields with one ``{% if %}`` and
one filter (about 580 bytes rendered); structured answers of six fields in response lines of about
1.2 KB, 0.5 % malformed and 1 % HTTP errors, in any order.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel

MODEL = "gpt-4o-mini"
SYSTEM = (
    "You are a meticulous catalogue editor for a large online department store. "
    "Read the product's title, brand, price and description and say what a shopper would want to "
    "know. Stay with what the text says; where it says nothing, say unknown. "
) * 3 + "Answer with one JSON object and nothing else: no prose, no Markdown, no apologies."
USER = (
    "Product: {{ title }}\n"
    "Brand: {% if brand %}{{ brand | upper }}{% else %}unknown{% endif %}\n"
    "Price: {{ price }} USD\n"
    "Description: {{ description }}\n"
    "Say its category, material, color, size, a score from 0 to 100 and whether it is a gift."
)
CATEGORIES = ("Kitchen", "Garden", "Clothing", "Electronics", "Toys")
_ADJECTIVES = ("sturdy", "folding", "cordless", "enamelled", "linen", "café-style", "waterproof")
_THINGS = ("skillet", "rake", "shirt", "headphones", "abacus", "kettle", "trowel", "scarf")
_MATERIALS = ("cast iron", "oak", "cotton", "steel", "plastic", "ceramic")


class Product(BaseModel):
    """What an answer has to be."""

    category: Literal["Kitchen", "Garden", "Clothing", "Electronics", "Toys"]
    material: str
    color: str
    size: str
    score: int
    gift: bool


def frame(rows: int, seed: int = 7) -> pd.DataFrame:
    """A catalogue of so many rows; the index says 0, 1, 2, ..."""
    rng = np.random.default_rng(seed)
    words = np.array([f"{a} {t}" for a in _ADJECTIVES for t in _THINGS])
    sentence = "A product that is made to last, easy to clean and a pleasure to use every day. "
    texts = np.array([f"{sentence * 4}{w.capitalize()} for all seasons." for w in words])
    picked = rng.integers(0, len(words), rows)
    serial = np.arange(rows).astype(str)
    return pd.DataFrame(
        {
            "title": pd.Series(np.char.add(words[picked], np.char.add(" no. ", serial)), dtype=str),
            "brand": pd.Series(
                np.where(picked % 3 == 0, None, "Ridgeway"), dtype=object if rows == 0 else None
            ),
            "price": (rng.integers(100, 20_000, rows) / 100),
            "description": pd.Series(texts[(picked * 7) % len(texts)], dtype=str),
        }
    )


def response_line(custom_id: str, chance: random.Random) -> bytes:
    """What the Batch API writes for one request; now and then malformed or an HTTP error."""
    dice = chance.random()
    if dice < 0.01:
        error = {"message": "The server had an error.", "type": "server_error", "code": None}
        response: dict[str, Any] = {"status_code": 500, "request_id": "x", "body": {"error": error}}
    else:
        content = _answer(chance)
        text = content[:40] if dice < 0.015 else content
        response = {"status_code": 200, "request_id": "req_8f1c", "body": _body(text, chance)}
    line = {
        "id": f"batch_req_{chance.getrandbits(96):024x}",
        "custom_id": custom_id,
        "response": response,
        "error": None,
    }
    return json.dumps(line).encode() + b"\n"


def _answer(chance: random.Random) -> str:
    product = {
        "category": chance.choice(CATEGORIES),
        "material": chance.choice(_MATERIALS),
        "color": chance.choice(("black", "red", "blue", "natural oak")),
        "size": chance.choice(("S", "M", "L", "unknown")),
        "score": chance.randint(0, 100),
        "gift": chance.random() < 0.5,
    }
    return json.dumps(product)


def _body(text: str, chance: random.Random) -> dict[str, Any]:
    details = {"cached_tokens": 0, "audio_tokens": 0}
    message = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    return {
        "id": f"chatcmpl-{chance.getrandbits(112):028x}",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": f"{MODEL}-2024-07-18",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 310,
            "completion_tokens": 45,
            "total_tokens": 355,
            "prompt_tokens_details": details,
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": "fp_0aa8d3e20b",
    }


def write_responses(path: Path, custom_ids: list[str], seed: int = 11) -> int:
    """A batch's output file, shuffled; gives its size in bytes."""
    chance = random.Random(seed)
    ids = list(custom_ids)
    chance.shuffle(ids)
    with path.open("wb") as file:
        for custom_id in ids:
            file.write(response_line(custom_id, chance))
        return file.tell()
