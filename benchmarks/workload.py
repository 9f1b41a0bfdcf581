"""The workload of every benchmark: a product catalogue, its prompt, and what a server answers.

An 800-character system prompt; a user template of four fields with one ``{% if %}`` and one filter
(about 580 bytes rendered); structured answers of six fields in response lines of about 1.2 KB,
0.5 % malformed and 1 % HTTP errors, in any order. `use` changes how many fields an answer has, and
how long the texts are, since ratios depend on them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, create_model

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
    "Say its category, a summary of one sentence for the listing, its color and size, a score from "
    "0 to 100 for how complete the text is, and whether it makes a gift."
)
PROMPT_TOKENS, ANSWER_TOKENS = 310, 45
CATEGORIES = ("Kitchen", "Garden", "Clothing", "Electronics", "Toys")
_ADJECTIVES = ("sturdy", "folding", "cordless", "enamelled", "linen", "café-style", "waterproof")
_THINGS = ("skillet", "rake", "shirt", "headphones", "abacus", "kettle", "trowel", "scarf")
_COLORS = ("black", "brick red", "sky blue", "natural oak")
_TEXT = pa.large_string()
_SIZES = ("S", "26 cm across, 5 cm deep", "one size", "unknown")


@dataclass(frozen=True)
class Shape:
    """How many fields an answer has, and how often the sentences of its texts are said."""

    title: str
    fields: int = 6
    described: int = 4
    summarised: int = 1


SHAPES: Mapping[str, Shape] = {
    "usual": Shape("6 fields"),
    "two": Shape("2 fields", fields=2),
    "twenty": Shape("20 fields", fields=20),
    "short": Shape("6 fields, short texts", described=0, summarised=0),
    "long": Shape("6 fields, long texts", described=40, summarised=5),
}
shape = SHAPES["usual"]


class Product(BaseModel):
    """What an answer has to be."""

    category: Literal["Kitchen", "Garden", "Clothing", "Electronics", "Toys"]
    summary: str
    color: str
    size: str
    score: int
    gift: bool


Answer: type[BaseModel] = Product
"""What an answer has to be in the shape that is in use."""

_MORE: tuple[Any, ...] = (str, int, bool, float, Literal["low", "high"])


def use(name: str) -> None:
    """Measure with another shape of answers from now on."""
    global shape, Answer  # noqa: PLW0603 - a process measures one shape
    shape = SHAPES[name]
    known = {each: (info.annotation, ...) for each, info in Product.model_fields.items()}
    more = {f"detail_{i}": (_MORE[i % len(_MORE)], ...) for i in range(shape.fields)}
    members: dict[str, Any] = dict(list((known | more).items())[: shape.fields])
    Answer = Product if members.keys() == known.keys() else create_model("Product", **members)


def frame(rows: int, seed: int = 7) -> pd.DataFrame:
    """A catalogue of so many rows; the index says 0, 1, 2, ... and a third has no brand."""
    rng = np.random.default_rng(seed)
    words = [f"{a} {t}" for a in _ADJECTIVES for t in _THINGS]
    sentence = "A product that is made to last, easy to clean and a pleasure to use every day. "
    texts = _texts(
        [f"{sentence * shape.described}{w.capitalize()} for all seasons." for w in words]
    )
    picked = rng.integers(0, len(words), rows)
    named = [_texts(words).take(pa.array(picked)), pa.array(np.arange(rows)).cast(_TEXT)]
    columns = {
        "title": pc.binary_join_element_wise(*named, pa.scalar(" no. ", _TEXT)),
        "brand": _texts(["Ridgeway"]).take(pa.array(np.zeros(rows, int), mask=picked % 3 == 0)),
        "description": texts.take(pa.array(picked * 7 % len(words))),
    }
    cells = {name: _as_series(column) for name, column in columns.items()}
    return pd.DataFrame({**cells, "price": rng.integers(100, 20_000, rows) / 100})


def _as_series(column: pa.Array) -> pd.Series:
    kind: Any = pd.api.types.pandas_dtype("str")
    own = hasattr(kind, "__from_arrow__")  # pandas 3's texts hold Arrow
    return pd.Series(kind.__from_arrow__(column) if own else column.to_pandas())


def _texts(texts: list[str]) -> pa.Array:
    return pa.array(texts, _TEXT)


def response_line(custom_id: str, chance: random.Random) -> bytes:
    """What the Batch API writes for one request; now and then malformed or an HTTP error."""
    dice = chance.random()
    if dice < 0.01:
        error = {"message": "The server had an error.", "type": "server_error", "code": None}
        response: dict[str, Any] = {
            "status_code": 500,
            "request_id": _hex(chance),
            "body": {"error": error},
        }
    else:
        content = _answer(chance)
        text = content[:40] if dice < 0.015 else content
        response = {"status_code": 200, "request_id": _hex(chance), "body": _body(text, chance)}
    line = {
        "id": f"batch_req_{_hex(chance)}",
        "custom_id": custom_id,
        "response": response,
        "error": None,
    }
    return json.dumps(line).encode() + b"\n"


def _hex(chance: random.Random) -> str:
    return f"{chance.getrandbits(128):032x}"


def _answer(chance: random.Random) -> str:
    thing, color = chance.choice(_THINGS), chance.choice(_COLORS)
    said = (
        "that is made to last, cleans in a minute and looks as good on the shelf as it works in "
        "the hand; it comes with a warranty of two years, a leaflet on its care and a card for "
        "whom it is meant for. "
    )
    product = {
        "category": chance.choice(CATEGORIES),
        "summary": f"{chance.choice(_ADJECTIVES).capitalize()} {thing} in {color} "
        + (said * shape.summarised).strip(),
        "color": color,
        "size": chance.choice(_SIZES),
        "score": chance.randint(0, 100),
        "gift": chance.random() < 0.5,
    }
    product = dict(list(product.items())[: shape.fields])
    product |= dict(_details(chance, shape.fields - len(product)))
    return json.dumps(product)


def _details(chance: random.Random, count: int) -> Iterator[tuple[str, Any]]:
    for i in range(count):
        number = chance.randint(0, 1_000)
        values = (chance.choice(_COLORS), number, number > 500, number / 8, "low")
        yield f"detail_{i}", values[i % len(values)]


def _body(text: str, chance: random.Random) -> dict[str, Any]:
    details = {"cached_tokens": 0, "audio_tokens": 0}
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text,
        "refusal": None,
        "annotations": [],
    }
    return {
        "id": f"chatcmpl-{chance.getrandbits(112):028x}",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": f"{MODEL}-2024-07-18",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": ANSWER_TOKENS,
            "total_tokens": PROMPT_TOKENS + ANSWER_TOKENS,
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
