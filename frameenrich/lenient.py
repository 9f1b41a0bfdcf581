"""Answers that are almost as asked: JSON with small faults, choices in other case or spacing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from frameenrich.model import Json
from frameenrich.schema import resolved, without_null


def loads_leniently(text: str) -> Json | None:
    r"""JSON, also inside Markdown fences, after chatter or with small faults; None where none is.

    Examples
    --------
    >>> loads_leniently('Sure! Here is:\n```json\n{"a": 1,}\n```')
    {'a': 1}
    >>> loads_leniently("no JSON at all") is None
    True
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    start = text.find("{")
    if start < 0:
        return None
    from json_repair import repair_json  # noqa: PLC0415 - needed for faulty answers only

    end = text.rfind("}") + 1
    candidate = text[start : end if end > start else len(text)]
    try:
        value = repair_json(candidate, return_objects=True, skip_json_loads=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value else None


def is_not_json(text: str) -> bool:
    """Whether a text has to be mended before it can be read."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return True
    return False


def folded(text: str) -> str:
    """What counts of a label: neither case nor spacing."""
    return " ".join(text.casefold().split())


def with_exact_choices(value: Json, wanted: Json, root: Mapping[str, Json]) -> Json:
    """An answer whose choices, however deep, are written as they were asked for."""
    node = without_null(wanted, root)
    if not node:
        return value
    if isinstance(value, str):
        choices = {folded(c): c for c in _choices(node, root) if isinstance(c, str)}
        return choices.get(folded(value), value)
    if isinstance(value, list):
        return [with_exact_choices(item, node.get("items"), root) for item in value]
    if isinstance(value, dict):
        inner = node.get("properties", {})
        return {name: with_exact_choices(v, inner.get(name), root) for name, v in value.items()}
    return value


def _choices(node: Mapping[str, Json], root: Mapping[str, Json]) -> Iterator[Json]:
    yield from node.get("enum", [node["const"]] if "const" in node else ())
    for alternative in node.get("anyOf", node.get("oneOf", ())):
        yield from _choices(resolved(alternative, root), root)
