"""Write the errors about a ``response_model=`` that is none, with what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from frameenrich.errors import OutputError
from frameenrich.text import shortened


def not_a_type(given: Any) -> OutputError | None:
    """Make the error about a dict of fields whose values are no types; None where they are."""
    if not isinstance(given, Mapping):
        return None
    for name, value in given.items():
        if isinstance(value, str):
            return OutputError(
                f"response_model= says {value!r} of {name!r}, where a type belongs.",
                f"Write response_model={{{name!r}: str}}, or Literal['a', 'b'] for a choice; what "
                "it means goes into the template.",
            )
        if isinstance(value, list | tuple | set) and all(isinstance(each, str) for each in value):
            choice = f"Literal[{', '.join(map(repr, value))}]"
            return OutputError(
                f"response_model= gives {name!r} a list of texts, where a type belongs.",
                f"Write response_model={{{name!r}: {choice}}} (from typing import Literal).",
            )
        if isinstance(value, bool | int | float):  # an example of an answer, where a type belongs
            return OutputError(
                f"response_model= gives {name!r} the value {value!r}, where a type belongs.",
                f"Write response_model={{{name!r}: {type(value).__name__}}}.",
            )
    return None


def not_a_model(given: Any) -> OutputError:
    """Make the error about a value that is no model, with what to write instead."""
    return OutputError(*_no_model(given))


def _no_model(given: Any) -> tuple[str, str]:
    shown = shortened(repr(given))
    if isinstance(given, type) and given.__module__ == "builtins":  # the type of one value
        return (
            f"response_model= is {given.__name__}, which names no field.",
            f"Write response_model={{'answer': {given.__name__}}}.",
        )
    if isinstance(given, type):
        fields = [*getattr(given, "__annotations__", {})] or ["field"]
        members = "; ".join(f"{name}: str" for name in fields[:3])
        return (
            f"response_model= is {given.__name__}, which is not a pydantic model.",
            (
                f"Write class {given.__name__}(BaseModel): {members}, or "
                f"response_model={_fields(fields)}."
            ),
        )
    if hasattr(type(given), "model_json_schema"):
        name = type(given).__name__
        return (
            f"response_model= is an instance, {shown}.",
            f"Give its class: response_model={name}.",
        )
    if isinstance(given, str):
        return (
            f"response_model= is a text, {shown}.",
            (
                "Give a pydantic class, json.loads(...) of a JSON Schema, or "
                f"response_model={_fields([given if given.isidentifier() else 'field'])}."
            ),
        )
    words = given if isinstance(given, list | tuple | set) else ()
    if words and all(isinstance(each, str) for each in words):
        return (
            f"response_model= is a list, {shown}.",
            (
                f"Write response_model={_fields(list(words))} for fields, or "
                f"labels={list(words)!r} for a choice."
            ),
        )
    return (
        f"response_model= is {shown}.",
        (
            "Give a pydantic model class, a JSON Schema, or a dict of field names and types, such "
            "as response_model={'genre': str}."
        ),
    )


def _fields(names: list[str]) -> str:
    return "{" + ", ".join(f"{name!r}: str" for name in names[:3]) + "}"
