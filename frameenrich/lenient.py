"""Answers that are almost as asked: JSON with small faults, choices in other case or spacing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping

from frameenrich.model import Json
from frameenrich.schema import resolved, without_null


def loads_leniently(text: str) -> tuple[Json | None, bool]:
    r"""JSON, also inside Markdown fences, after chatter or with small faults.

    Returns
    -------
    (Json or None, bool)
        The value, None where there is none; and whether the text is no JSON as it stands.

    Examples
    --------
    >>> loads_leniently('Sure! Here is:\n```json\n{"a": 1,}\n```')
    ({'a': 1}, True)
    >>> loads_leniently("no JSON at all")
    (None, True)
    """
    try:
        return json.loads(text), False
    except (ValueError, RecursionError):
        pass
    start = text.find("{")
    if start < 0:
        return None, True
    end = text.rfind("}") + 1
    try:
        value = _repaired(text[start : end if end > start else len(text)], whole=text)
    except (ValueError, RecursionError):
        return None, True
    return value if isinstance(value, dict) and value else None, True


def _repaired(candidate: str, whole: str) -> Json:
    from json_repair import repair_json  # noqa: PLC0415 - needed for faulty answers only

    if candidate != whole:  # else it is known to be no JSON
        with contextlib.suppress(ValueError):
            return json.loads(candidate)
    return repair_json(candidate, return_objects=True, skip_json_loads=True)


def folded(text: str) -> str:
    """What counts of a label: neither case nor spacing."""
    return " ".join(text.casefold().split())


def with_exact_choices(value: Json, wanted: Json, root: Mapping[str, Json]) -> Json:
    """An answer whose choices, however deep, are written as they were asked for."""
    node = without_null(wanted, root)
    if not node:
        return value
    if isinstance(value, str):
        texts = [choice for choice in _choices(node, root) if isinstance(choice, str)]
        if value in texts or not texts:
            return value
        return {folded(text): text for text in texts}.get(folded(value), value)
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
