"""Answers that are data and no text: embedding vectors and moderation verdicts."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from frameenrich.model import Json, OutputKind, OutputSpec
from frameenrich.output import MalformedError

Vector = npt.NDArray[np.float32]
Reading = tuple[tuple[Any, ...], str | None]
"""One value an output column, and the answer's text where keeping it is worth it."""


def read_embedding(body: Mapping[str, Json], spec: OutputSpec) -> Reading | None:
    """The one vector of an embeddings body; None where there is none.

    Raises
    ------
    MalformedError
        It is no list of finite numbers, or has another length than was asked for.

    Examples
    --------
    >>> (vector,), _ = read_embedding({"data": [{"embedding": [0.5, -1]}]}, OutputSpec("embedding"))
    >>> vector
    array([ 0.5, -1. ], dtype=float32)
    """
    entry = _first(body.get("data"))
    if entry is None:
        return None
    given = entry.get("embedding") if isinstance(entry, Mapping) else None
    vector = _unpacked(given) if isinstance(given, str) else _listed(given)
    wanted = spec.dimensions
    if not len(vector) or (wanted is not None and len(vector) != wanted):
        asked = f", not the {wanted} asked for" if wanted is not None else ""
        raise MalformedError(f"$.data[0].embedding: {len(vector)} numbers{asked}")
    if not np.isfinite(vector).all():
        raise MalformedError("$.data[0].embedding: not all numbers are finite")
    return (vector,), None


def _listed(given: Json) -> Vector:
    if not isinstance(given, list) or not {type(number) for number in given} <= {int, float}:
        raise MalformedError("$.data[0].embedding: not a list of numbers")
    try:
        with np.errstate(over="ignore"):  # becomes infinite, which is told by its own message
            return np.asarray(given, dtype=np.float64).astype(np.float32)
    except OverflowError:
        raise MalformedError("$.data[0].embedding: not all numbers are finite") from None


def _unpacked(given: str) -> Vector:
    """``encoding_format="base64"``: little-endian float32."""
    try:
        return np.frombuffer(base64.b64decode(given, validate=True), "<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        raise MalformedError("$.data[0].embedding: not base64 of 32-bit numbers") from None


def read_moderation(body: Mapping[str, Json], spec: OutputSpec) -> Reading | None:
    """Whether a text was flagged, and for which categories; None where there is no result.

    Raises
    ------
    MalformedError
        The result has another shape.

    Examples
    --------
    >>> result = {"flagged": True, "categories": {"hate": False, "violence": True}}
    >>> read_moderation({"results": [result]}, OutputSpec("moderation"))[0]
    (True, ['violence'])
    """
    del spec
    result = _first(body.get("results"))
    if result is None:
        return None
    if not isinstance(result, Mapping) or not isinstance(result.get("flagged"), bool):
        raise MalformedError("$.results[0].flagged: not true or false")
    categories = result.get("categories")
    if not isinstance(categories, Mapping):
        raise MalformedError("$.results[0].categories: not an object")
    names = [name for name, flagged in categories.items() if flagged is True]
    return (result["flagged"], names), json.dumps(result, ensure_ascii=False)


def _first(items: Json) -> Json:
    return items[0] if isinstance(items, list) and items else None


READERS: Mapping[OutputKind, Callable[[Mapping[str, Json], OutputSpec], Reading | None]] = {
    "embedding": read_embedding,
    "moderation": read_moderation,
}
"""How the answers of these kinds of output are read."""
