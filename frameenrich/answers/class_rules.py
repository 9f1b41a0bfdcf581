"""Keep how a class reads answers: the class while the process lives, later that it had rules.

A JSON Schema holds a class's fields, not its code. Read without the class, an answer that a
validator refuses would be ``ok``, so the class is kept for as long as it can be, and where it is
gone the user is warned, never left to guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from frameenrich.answers.output import Output
from frameenrich.errors import warn_user
from frameenrich.model import OutputSpec

_kept: dict[str, Output] = {}
"""By the job's path, how this process reads the jobs that it submitted with a class."""


_warned: set[str] = set()
"""The paths of the jobs whose missing class was warned of: once a process is enough."""


def keep_class(job_path: str, output: Output) -> None:
    """Remember the class that a job was submitted with, however the job is opened next."""
    if output.model is not None:
        _kept[job_path] = output


def stored_output(job_path: str, job_id: str, stored: Output) -> Output:
    """Return how a stored job is read: by its class where this process knows it.

    Warns
    -----
    FrameEnrichWarning
        The class is not known here, and had rules that the stored schema lacks.
    """
    kept = _kept.get(job_path)
    # An older version stored no rules; the class is the one that made the same schema all the same.
    if kept is not None and _same_form(kept.spec, stored.spec):
        return kept
    rules = stored.spec.class_rules
    if rules and job_path not in _warned:
        _warned.add(job_path)
        warn_user(
            f"The job {job_id} was submitted with the class {rules[0]}, whose "
            f"{', '.join(rules[1:])} are not in the stored schema: answers are checked without "
            f"them. Pass the class to check them too: collect(response_model={rules[0]})."
        )
    return stored


def _same_form(one: OutputSpec, other: OutputSpec) -> bool:
    """Tell whether two specs ask for the same, whatever is known of how it is read."""
    return replace(one, class_rules=(), exact=False) == replace(other, class_rules=(), exact=False)


def class_rules(name: str, adapter: Any) -> tuple[str, ...]:
    """Return a class's name and the kinds of its rules that JSON Schema does not hold, or nothing.

    Examples
    --------
    >>> from pydantic import AfterValidator, TypeAdapter
    >>> from typing import Annotated
    >>> class_rules("Name", TypeAdapter(Annotated[str, AfterValidator(str.upper)]))
    ('Name', 'validators')
    >>> class_rules("Name", TypeAdapter(str))
    ()
    """
    kinds = sorted(set(_code_in(adapter.core_schema, set())))
    return (name, *kinds) if kinds else ()


# A list of what is known to be the same: a type that a later pydantic adds counts as a rule.
_AS_THE_SCHEMA = frozenset(
    {
        "any", "bool", "computed-field", "date", "datetime", "decimal", "default",
        "definition-ref", "definitions", "dict", "enum", "float", "int", "list", "literal", "model",
        "model-field", "model-fields", "none", "nullable", "str", "tagged-union", "union",
    }
)  # fmt: skip
"""Types that are read alike from the stored schema and from the class."""


_WORDS = {
    "serialization": "serializers",
    "default_factory": "default factories",
    "custom_init": "own __init__",
    "post_init": "model_post_init",
    "strict": "strict types",
    "populate_by_name": "other names of fields",
    "validate_by_name": "other names of fields",
    "serialization_exclude": "fields left out",
    "serialization_exclude_if": "fields left out",
    "max_digits": "decimal digits",
    "decimal_places": "decimal digits",
    "now_op": "dates before or after now",
    "tz_constraint": "time zones",
    "strip_whitespace": "changes of texts",
    "to_lower": "changes of texts",
    "to_upper": "changes of texts",
    "str_strip_whitespace": "changes of texts",
    "str_to_lower": "changes of texts",
    "str_to_upper": "changes of texts",
    "coerce_numbers_to_str": "texts made of numbers",
}


def _code_in(node: Any, seen: set[int]) -> Iterator[str]:
    """Yield the kind of each rule in a core schema that JSON Schema cannot say, however deep."""
    if isinstance(node, list | tuple):
        for each in node:
            yield from _code_in(each, seen)
    # Models that refer to others share their nodes: by each path, there are millions of them.
    elif isinstance(node, Mapping) and id(node) not in seen:
        seen.add(id(node))
        yield from _code_of_type(node)
        for key, value in node.items():
            if key in {"fields", "choices"} and isinstance(value, Mapping):
                yield from _code_in(list(value.values()), seen)  # names of the user's, no keywords
            elif key == "validation_alias" and not isinstance(value, str):  # paths and choices
                yield "other names of fields"
            elif key in _WORDS and value:
                yield _WORDS[key]
            elif key not in {"metadata", "default", "expected", "members", "function", "cls"}:
                yield from _code_in(value, seen)


def _code_of_type(node: Mapping[str, Any]) -> Iterator[str]:
    kind = node.get("type")
    if isinstance(kind, str) and kind not in _AS_THE_SCHEMA:
        yield "validators" if kind.startswith("function-") else "own types"
    # JSON Schema says nothing of the names that pydantic reads as numbers, dates or choices.
    if kind == "dict" and node.get("keys_schema", {}).get("type", "str") not in {"str", "any"}:
        yield "keys of dicts"
    if kind == "enum" and node.get("sub_type") in {"int", "float"}:
        yield "numbers read from texts"  # IntEnum takes "1", and its schema is that of any Enum
