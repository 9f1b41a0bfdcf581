"""JSON Schemas: what a strict one lacks, and an instance that is a pure function of a text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .reply import Json, pick, response_format, schema_of, stable_hash

DEEPEST_SCHEMA = 12
"""Levels of a recursive schema after which optional parts are left empty."""


def strict_fault(body: Json) -> str | None:
    """Say what a ``strict`` JSON Schema lacks (as the API does), or None where it is in order."""
    asked = response_format(body)
    inside = asked.get("json_schema", asked)
    schema = schema_of(asked)
    if schema is None or not (isinstance(inside, dict) and inside.get("strict")):
        return None
    return next(_strict_faults(schema), None)


def _strict_faults(schema: Any, path: str = "()") -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _strict_faults(item, path)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" or "properties" in schema:
        if schema.get("additionalProperties") is not False:
            yield f"In context={path}, 'additionalProperties' is required to be supplied and false."
        missing = set(schema.get("properties", {})) - set(schema.get("required", []))
        if missing:
            yield f"In context={path}, 'required' must include every property: {sorted(missing)}."
    for word in ("properties", "$defs", "definitions"):
        for name, inner in schema.get(word, {}).items():
            yield from _strict_faults(inner, f"('{word}', '{name}')")
    for word in ("items", "anyOf", "prefixItems"):
        yield from _strict_faults(schema.get(word), f"('{word}',)")


def instance_of(schema: Json, text: str) -> Any:
    """Return a valid instance of a JSON Schema that is a pure function of `text`.

    Enumerations take ``pick(enum, text)``, strings the text itself, within their lengths. The
    keyword ``pattern`` is not served.
    """
    return _Instance(root=schema).build(schema, text)


@dataclass(frozen=True, slots=True)
class _Instance:
    root: Json

    def build(self, schema: Any, text: str, depth: int = 0) -> Any:
        if not isinstance(schema, dict):
            return text
        if "$ref" in schema:
            return self.build(self._resolve(schema["$ref"]), text, depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return pick(schema["enum"], text)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self.build(self._choose(schema[word], depth), text, depth)
        if "allOf" in schema:
            return self.build(self._merge(schema["allOf"]), text, depth)
        return self._typed(schema, text, depth)

    def _resolve(self, ref: str) -> Any:
        found: Any = self.root
        for word in ref.removeprefix("#").strip("/").split("/"):
            found = found[word.replace("~1", "/").replace("~0", "~")] if word else found
        return found

    def _choose(self, options: list[Any], depth: int) -> Any:
        """Prefer an option that says something; null only where a schema goes on for ever."""
        null = {"type": "null"}
        if depth > DEEPEST_SCHEMA and null in options:
            return null
        return next((option for option in options if option != null), options[0])

    def _merge(self, schemas: list[Any]) -> Json:
        merged: Json = {}
        for schema in schemas:
            whole = self._resolve(schema["$ref"]) if "$ref" in schema else schema
            properties = {**merged.get("properties", {}), **whole.get("properties", {})}
            merged = {**merged, **whole, **({"properties": properties} if properties else {})}
        return merged

    def _typed(self, schema: Json, text: str, depth: int) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((word for word in kind if word != "null"), "null")
        if kind == "object":
            return self._object(schema, text, depth)
        if kind == "array":
            return self._array(schema, text, depth)
        if kind in ("integer", "number"):
            return _number(schema, text, whole=kind == "integer")
        if kind == "boolean":
            return bool(stable_hash(text) & 1)
        return None if kind == "null" else _string(schema, text)

    def _object(self, schema: Json, text: str, depth: int) -> Json:
        properties = schema.get("properties", {})
        if depth > DEEPEST_SCHEMA:
            properties = {k: v for k, v in properties.items() if k in schema.get("required", ())}
        made = {name: self.build(inner, text, depth + 1) for name, inner in properties.items()}
        extra = schema.get("additionalProperties")
        return {"key": self.build(extra, text, depth + 1)} if isinstance(extra, dict) else made

    def _array(self, schema: Json, text: str, depth: int) -> list[Any]:
        if "prefixItems" in schema:
            return [self.build(item, text, depth + 1) for item in schema["prefixItems"]]
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        wanted = least if depth > DEEPEST_SCHEMA else int(min(max(least, 2), most))
        inner = schema.get("items", {})
        made: list[Any] = []
        for number in range(wanted * 8):
            item = self.build(inner, text if number == 0 else f"{text} [{number}]", depth + 1)
            if len(made) < wanted and not (schema.get("uniqueItems") and item in made):
                made.append(item)
        return made


def _number(schema: Json, text: str, *, whole: bool) -> int | float:
    step = schema.get("multipleOf", 1 if whole else 0.5)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = 0 if high is None else high - 99 * step
    if high is None:
        high = low + 99 * step
    first = math.ceil(low / step) + ("exclusiveMinimum" in schema and low % step == 0)
    last = math.floor(high / step) - ("exclusiveMaximum" in schema and high % step == 0)
    if last < first:
        return float(low + high) / 2
    number = (first + stable_hash(text) % (last - first + 1)) * step
    return int(number) if whole else float(number)


def _string(schema: Json, text: str) -> str:
    number = stable_hash(text)
    formats = {
        "date": f"20{number % 50:02d}-{number % 12 + 1:02d}-{number % 28 + 1:02d}",
        "time": f"{number % 24:02d}:{number % 60:02d}:00Z",
        "date-time": f"20{number % 50:02d}-{number % 12 + 1:02d}-{number % 28 + 1:02d}T12:00:00Z",
        "duration": f"P{number % 99 + 1}D",
        "email": f"user{number % 10**6}@example.com",
        "hostname": f"host{number % 10**6}.example.com",
        "uri": f"https://example.com/{number:x}",
        "ipv4": f"10.0.{number % 256}.{number // 256 % 256}",
        "ipv6": f"2001:db8::{number % 0xFFFF:x}",
        "uuid": f"{number:016x}"[:8] + f"-0000-4000-8000-{number % 16**12:012x}",
    }
    if schema.get("format") in formats:
        return formats[schema["format"]]
    longest = schema.get("maxLength", len(text))
    return text[:longest].ljust(schema.get("minLength", 0), ".")
