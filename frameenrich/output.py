"""What an answer has to be: the user's wish made a JSON Schema, columns and a validator.

The schema is stored with the job, so a later session without the pydantic class still knows the
columns and the constraints. Validation is pydantic's: of the class where it is at hand, else of
one built from the stored schema, whose constraints `jsonschema-rs` then checks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from numbers import Number
from typing import Any, Literal

from frameenrich.errors import OutputError
from frameenrich.model import Json, OutputSpec

FieldKind = Literal[
    "string", "integer", "number", "boolean", "date", "datetime", "category", "object", "vector",
    "any",
]  # fmt: skip
Parser = Callable[[str], Any]

LABEL = "label"
"""The one property of the object that a labels answer is."""


class MalformedError(ValueError):
    """An answer that does not parse or validate; becomes a row status, never reaches the user."""


class _InvalidError(MalformedError):
    """An answer that pydantic does not take; where and why is put in words when it is asked for."""

    def __str__(self) -> str:
        return _where_and_why(self.args[0])


@dataclass(frozen=True, slots=True)
class Field:
    """One output column: the property it comes from and the type it has.

    ``suffix`` ends the column's name, where a single-valued output has a second column. ``inner``
    are the fields of a nested object, for ``flatten=True``.
    """

    name: str
    kind: FieldKind
    categories: tuple[str, ...] = ()
    suffix: str = ""
    inner: tuple[Field, ...] = dataclasses.field(default=(), compare=False)


@dataclass(frozen=True)
class Output:
    """How answers are read: the stored wish, and what this session has at hand of it.

    Parameters
    ----------
    spec : OutputSpec
        What is stored with the job.
    model : type or None
        The pydantic class, where the user gave one in this session.
    parser : callable or None
        ``str -> dict | value``; a `ValueError` from it flags the row ``malformed``.
    """

    spec: OutputSpec
    model: Any = None
    parser: Parser | None = None

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The output columns; a text or parser answer has one, called after the job."""
        if self.spec.kind == "text":
            return (Field("", "string"),)
        if self.spec.kind == "embedding":
            return (Field("", "vector"),)
        if self.spec.kind == "moderation":
            return (Field("", "boolean"), Field("", "object", suffix="_categories"))
        if self.spec.schema is None:
            return (Field("", "any"),)
        schema = self.spec.schema
        top = {name: value for name, value in schema.items() if name != "$defs"}
        fields = tuple(_field(name, p, schema, top) for name, p in schema["properties"].items())
        return (Field("", "category", fields[0].categories),) if self._labels else fields

    @property
    def _labels(self) -> bool:
        return self.spec.kind == "labels"

    def read(self, text: str) -> tuple[tuple[Any, ...], bool]:
        """Parse and validate one answer.

        Returns
        -------
        (tuple, bool)
            One value a field, and whether the JSON had to be repaired first.

        Raises
        ------
        MalformedError
            It does not parse or validate; the text says where (``$.specs[2].width: ...``).
        """
        if self.spec.kind == "text":
            return (text,), False
        if self.parser is not None:
            return (_parsed(self.parser, text),), False
        return self._read_label(text) if self._labels else self._read_object(text)

    def _read_object(self, text: str) -> tuple[tuple[Any, ...], bool]:
        try:
            return self._validated(text), False
        except MalformedError as error:
            self._refuse_cut_off(text)
            value, repaired = _loads(text)
            if value is None:
                raise
            if not isinstance(value, dict):
                raise MalformedError("$: the answer is not a JSON object") from error
        return self._validated(self._with_exact_choices(value)), repaired

    def _refuse_cut_off(self, text: str) -> None:
        """Refuse an answer that ends before required properties are even named.

        No repair can know them, and trying takes twice as long; the reason is the same.
        """
        from pydantic_core import from_json  # noqa: PLC0415 - comes with pydantic

        try:
            begun = from_json(text, allow_partial="trailing-strings")
        except ValueError:
            return
        if begun and isinstance(begun, dict):
            missing = [name for name in self._required if name not in begun]
            if missing and not any(name in text for name in missing):
                self._validated(self._with_exact_choices(begun))

    @cached_property
    def _required(self) -> Sequence[str]:
        return list((self.spec.schema or {}).get("required", ()))

    def _with_exact_choices(self, value: Json) -> str:
        schema = self.spec.schema or {}
        try:
            return json.dumps(_with_exact_choices(value, schema, schema))
        except RecursionError:
            raise MalformedError("$: the answer is nested too deeply") from None

    def _validated(self, text: str) -> tuple[Any, ...]:
        from pydantic import ValidationError  # noqa: PLC0415 - heavy, and not needed at import

        try:
            answer = self.adapter.validate_json(text)
        except ValidationError as error:
            raise _InvalidError(error) from None
        values = self._dumped(answer)
        self._check_constraints(answer)
        return tuple(_fitting(values.get(field.name), field) for field in self.fields)

    def _dumped(self, answer: Any, **how: bool) -> dict[str, Any]:
        """The answer as JSON has it; what a user's validator made of a field is no matter."""
        dumped: dict[str, Any] = self.adapter.dump_python(
            answer, mode="json", by_alias=True, warnings=False, **how
        )
        return dumped

    def _check_constraints(self, answer: Any) -> None:
        if self._constraints is None:
            return
        # Only what the answer holds: an optional property that is absent was filled with None.
        given = self._dumped(answer, exclude_unset=True)
        error = next(iter(self._constraints.iter_errors(given)), None)
        if error is not None:
            raise MalformedError(f"{json_path(error.instance_path)}: {error.message}")

    @cached_property
    def adapter(self) -> Any:
        """Pydantic's validator of an answer that is an object."""
        from pydantic import TypeAdapter  # noqa: PLC0415 - heavy, and not needed at import

        return TypeAdapter(self.model or _python_type(self.spec.schema, self.spec.schema or {}))

    @cached_property
    def _constraints(self) -> Any:
        if self.model is not None or self.spec.schema is None:
            return None
        import jsonschema_rs  # noqa: PLC0415 - needed only where the class is not at hand

        return jsonschema_rs.validator_for(dict(self.spec.schema))

    @cached_property
    def _known_labels(self) -> dict[str, str]:
        return {_folded(label): label for label in self.fields[0].categories}

    def _read_label(self, text: str) -> tuple[tuple[str], bool]:
        value, repaired = _loads(text)
        answer = value.get(LABEL) if isinstance(value, dict) else text
        if isinstance(answer, int) and not isinstance(answer, bool):
            answer = str(answer)
        known = self._known_labels
        label = known.get(_folded(answer)) if isinstance(answer, str) else None
        if label is None and answer is text:  # the label alone, as a sentence or a quotation
            label = known.get(_folded(text.strip().strip("\"'.")))
        if label is None:
            shown = answer if isinstance(answer, str) else json.dumps(answer)
            raise MalformedError(
                f"$.{LABEL}: {_short(shown)!r} is not one of the {len(known)} labels"
            )
        return (label,), repaired and isinstance(value, dict)


def _fitting(value: Any, field: Field, path: tuple[str, ...] = ()) -> Any:
    """The value, where its column can hold it: pandas' Int64 has 64 bits."""
    here = (*path, field.name)
    if field.kind == "integer" and value is not None and not -(2**63) <= value < 2**63:
        raise MalformedError(f"{json_path(here)}: the integer does not fit in 64 bits")
    for inner in field.inner if isinstance(value, dict) else ():
        _fitting(value.get(inner.name), inner, here)
    return as_cell(value, field)


def as_cell(value: Any, field: Field) -> Any:
    """A value of an answer as its column holds it.

    A Decimal comes as text and is made a number; what is one of several plain types is text.

    Examples
    --------
    >>> as_cell("12.30", Field("price", "number")), as_cell(3, Field("size", "string"))
    (12.3, '3')
    """
    if field.kind == "number" and isinstance(value, str):
        return float(value)
    if field.kind == "string" and value is not None and not isinstance(value, str):
        return json.dumps(value)
    return value


def flattened(field: Field, values: Sequence[Any]) -> Iterator[tuple[Field, Sequence[Any]]]:
    """A field's columns with nested objects as columns of their own, ``field.sub``.

    Examples
    --------
    >>> size = Field("size", "object", inner=(Field("w", "integer"), Field("h", "integer")))
    >>> [(f.name, cells) for f, cells in flattened(size, [{"w": 1, "h": 2}, None])]
    [('size.w', [1, None]), ('size.h', [2, None])]
    """
    if not field.inner:
        yield field, values
    for inner in field.inner:
        cells = [v.get(inner.name) if isinstance(v, Mapping) else None for v in values]
        named = dataclasses.replace(inner, name=f"{field.name}.{inner.name}")
        yield from flattened(named, [as_cell(cell, inner) for cell in cells])


def _parsed(parser: Parser, text: str) -> Any:
    try:
        return parser(text)
    except ValueError as error:
        raise MalformedError(str(error) or "the parser refused the answer") from None
    except Exception as error:  # noqa: BLE001 - a user's parser may raise anything; rows must live
        raise MalformedError(f"the parser failed: {type(error).__name__}: {error}") from None


def _folded(text: str) -> str:
    """What counts of a label: neither case nor spacing."""
    return " ".join(text.casefold().split())


def _with_exact_choices(value: Json, wanted: Json, root: Mapping[str, Json]) -> Json:
    """An answer whose choices, however deep, are written as they were asked for."""
    node = _without_null(wanted, root)
    if not node:
        return value
    if isinstance(value, str):
        texts = [choice for choice in _choices(node, root) if isinstance(choice, str)]
        if value in texts or not texts:
            return value
        return {_folded(text): text for text in texts}.get(_folded(value), value)
    if isinstance(value, list):
        return [_with_exact_choices(item, node.get("items"), root) for item in value]
    if isinstance(value, dict):
        inner = node.get("properties", {})
        return {name: _with_exact_choices(v, inner.get(name), root) for name, v in value.items()}
    return value


def _choices(node: Mapping[str, Json], root: Mapping[str, Json]) -> Iterator[Json]:
    yield from node.get("enum", [node["const"]] if "const" in node else ())
    for alternative in node.get("anyOf", node.get("oneOf", ())):
        yield from _choices(_resolved(alternative, root), root)


def _short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def loads_leniently(text: str) -> Json | None:
    r"""JSON, also inside Markdown fences, after chatter or with small faults; None where none is.

    Examples
    --------
    >>> loads_leniently('Sure! Here is:\n```json\n{"a": 1,}\n```')
    {'a': 1}
    >>> loads_leniently("no JSON at all") is None
    True
    """
    return _loads(text)[0]


def _loads(text: str) -> tuple[Json | None, bool]:
    """What `loads_leniently` gives, and whether the text is no JSON as it stands."""
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


def _where_and_why(error: Any) -> str:
    first = error.errors(include_url=False)[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    reason = first["msg"].removeprefix("Value error, ")  # what a user's own validator raised
    return f"{json_path(first['loc'])}: {reason}{more}"


def json_path(parts: Sequence[str | int]) -> str:
    """A place in a JSON value, as people write it.

    Examples
    --------
    >>> json_path(["specs", 2, "width"])
    '$.specs[2].width'
    """
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


# --- from the user's wish to a spec -------------------------------------------------------------


def choose_output(
    labels: Any = None, response_model: Any = None, parser: Parser | None = None
) -> Output:
    """The output that the user asked for; plain text where nothing was.

    Raises
    ------
    OutputError
        More than one was given, or the one given cannot be used.
    """
    given = [
        name
        for name, value in (
            ("labels", labels),
            ("response_model", response_model),
            ("parser", parser),
        )
        if value is not None
    ]
    if len(given) > 1:
        raise OutputError(
            f"Both {given[0]} and {given[1]} were given.",
            "Give one of them: an answer has one form.",
        )
    if labels is not None:
        return Output(labels_spec(labels))
    if response_model is not None:
        return _model_output(response_model)
    if parser is not None:
        if not callable(parser):
            raise OutputError(
                "The parser is not callable.", "Give a function str -> dict or value."
            )
        return Output(OutputSpec("parser"), parser=parser)
    return Output(OutputSpec())


def labels_spec(labels: Any) -> OutputSpec:
    """The spec of an answer that is one of `labels` (a list, or an Enum class)."""
    if isinstance(labels, type) and issubclass(labels, enum.Enum):
        labels = list(labels)
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise OutputError(
            f"labels= is a {type(labels).__name__}.", "Give a list of texts, or an Enum class."
        )
    values = [label.value if isinstance(label, enum.Enum) else label for label in labels]
    texts = [str(value) for value in values if isinstance(value, (str, Number)) and value == value]  # noqa: PLR0124 - NaN
    if len(texts) < len(values):
        raise OutputError("labels= holds a null or what is no text.", "Give a list of texts.")
    _check_labels(texts)
    return OutputSpec(
        "labels",
        {
            "type": "object",
            "properties": {LABEL: {"type": "string", "enum": texts}},
            "required": [LABEL],
            "additionalProperties": False,
        },
    )


def _check_labels(texts: Sequence[str]) -> None:
    if len(texts) < 2:  # noqa: PLR2004 - a choice has two sides
        raise OutputError(
            f"labels= holds {len(texts)} label(s).", "Give at least two to choose from."
        )
    if any(not text.strip() for text in texts):
        raise OutputError("labels= holds an empty label.", "Remove it or give it a name.")
    if len({_folded(text) for text in texts}) < len(texts):
        repeated = next(t for i, t in enumerate(texts) if _folded(t) in map(_folded, texts[:i]))
        raise OutputError(
            f"The label {repeated!r} stands twice in labels= (case and spacing do not count).",
            "Keep one of them.",
        )


def _model_output(wish: Any) -> Output:
    from pydantic import BaseModel, PydanticUserError, create_model  # noqa: PLC0415 - heavy
    from pydantic import Field as PydanticField  # noqa: PLC0415

    if isinstance(wish, type) and issubclass(wish, BaseModel) and wish is not BaseModel:
        model: Any = wish
    elif isinstance(wish, Mapping) and _is_json_schema(wish):
        return Output(OutputSpec("schema", _checked_schema(dict(wish))))
    elif isinstance(wish, Mapping) and wish:
        try:
            members: dict[str, Any] = {  # by alias: a column may be called as no attribute can
                f"field_{i}": (v, PydanticField(alias=str(k)))
                for i, (k, v) in enumerate(wish.items())
            }
            model = create_model("Answer", **members)
        except (TypeError, NameError, SyntaxError, PydanticUserError) as error:
            raise _unusable(error) from error
    else:
        raise OutputError(
            f"response_model= is {_short(repr(wish))}.",
            "Give a pydantic model class, a JSON Schema, or a dict of field names and types.",
        )
    try:
        schema = model.model_json_schema(schema_generator=_schema_generator())
        written = model.model_json_schema(mode="serialization")
    except (PydanticUserError, ValueError) as error:
        raise _unusable(error) from error
    lost = sorted(set(schema.get("properties", ())) - set(written.get("properties", ())))
    if lost and "properties" in written:
        raise OutputError(
            f"response_model= reads {lost[0]!r} under one name and writes it under another.",
            "Use alias= instead of validation_alias= or serialization_alias=.",
        )
    return Output(OutputSpec("schema", _checked_schema(schema)), model=model)


@cache
def _schema_generator() -> Any:
    from decimal import Decimal  # noqa: PLC0415 - as pydantic, only where a class is given

    from pydantic.json_schema import GenerateJsonSchema  # noqa: PLC0415

    class Numbers(GenerateJsonSchema):
        """Asks for a Decimal as a number; pydantic's own pattern for texts is refused by APIs."""

        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            plain = {k: float(v) if isinstance(v, Decimal) else v for k, v in schema.items()}
            return self.float_schema(typing.cast("Any", plain))

    return Numbers


def _unusable(error: Exception) -> OutputError:
    first_line = str(error).partition("\n")[0]
    return OutputError(
        f"response_model= cannot be made a JSON Schema: {first_line}.",
        "Use field types that JSON can carry.",
    )


def _is_json_schema(wish: Mapping[str, Any]) -> bool:
    return (
        isinstance(wish.get("properties"), Mapping)
        or isinstance(wish.get("type"), str)
        or "$schema" in wish
        or "$ref" in wish
    )


def _checked_schema(schema: dict[str, Json]) -> dict[str, Json]:
    import jsonschema_rs  # noqa: PLC0415 - only where a schema is given

    schema = _resolved(schema, schema) | ({"$defs": schema["$defs"]} if "$defs" in schema else {})
    if schema.get("type") != "object" or not schema.get("properties"):
        raise OutputError(
            "The JSON Schema of response_model= is not an object with properties.",
            'Give {"type": "object", "properties": {...}}: each property becomes a column.',
        )
    faults = list(_schema_faults(schema))
    try:
        if not faults:
            jsonschema_rs.validator_for(schema)
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        faults.append(str(error).partition("\n")[0])
    if faults:
        raise OutputError(
            f"response_model= is not a valid JSON Schema: {faults[0].rstrip('.')}.",
            "Mend the schema; nothing was sent.",
        )
    return schema


_BOUNDS = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minimum", "maximum"),
    ("minProperties", "maxProperties"),
)


def _schema_faults(node: Json, path: str = "$") -> Iterator[str]:
    """What is legal JSON Schema and still cannot be used.

    A reference to elsewhere would be fetched; bounds that cross make llama.cpp eat all memory.
    """
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from _schema_faults(item, f"{path}[{i}]")
    elif isinstance(node, Mapping):
        yield from _own_faults(node, path)
        for name, value in node.items():
            if name == "properties" and isinstance(value, Mapping):  # its names are no keywords
                for field, schema in value.items():
                    yield from _schema_faults(schema, f"{path}.{field}")
            elif name not in {"enum", "const", "default", "examples"}:
                yield from _schema_faults(value, f"{path}.{name}")


def _own_faults(node: Mapping[str, Json], path: str) -> Iterator[str]:
    reference, properties = node.get("$ref"), node.get("properties")
    if isinstance(reference, str) and not reference.startswith("#"):
        yield f"{path} refers to {reference!r}, outside of the schema"
    for low, high in _BOUNDS:
        least, most = node.get(low), node.get(high)
        if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
            yield f"{path} has {low} {least} over {high} {most}"
    for name, value in properties.items() if isinstance(properties, Mapping) else ():
        if not isinstance(value, Mapping):
            yield f"{path}.{name} is {value!r} and not an object"


# --- from a JSON Schema to columns and types ----------------------------------------------------

_KINDS: Mapping[str, FieldKind] = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}
_FORMATS: Mapping[str, FieldKind] = {"date": "date", "date-time": "datetime"}


def _resolved(node: Json, root: Mapping[str, Json]) -> dict[str, Json]:
    """The node with a leading ``$ref`` followed; ``true``, the schema of anything, is ``{}``."""
    seen: set[str] = set()
    while isinstance(node, Mapping) and "$ref" in node and node["$ref"] not in seen:
        seen.add(node["$ref"])
        target: Any = root
        for part in re.split("/", node["$ref"].lstrip("#/")):
            target = target.get(part, {}) if isinstance(target, Mapping) else {}
        node = target
    return dict(node) if isinstance(node, Mapping) else {}


def _without_null(wanted: Json, root: Mapping[str, Json]) -> dict[str, Json]:
    node = _resolved(wanted, root)
    alternatives: Json = node.get("anyOf", node.get("oneOf", ()))
    choices = [c for c in alternatives if isinstance(c, Mapping) and c.get("type") != "null"]
    if len(choices) == 1:
        return _without_null(choices[0], root)
    if isinstance(node.get("type"), list):
        types = [each for each in node["type"] if each != "null"]
        return {**node, "type": types[0]} if len(types) == 1 else node
    return node


def _field(name: str, node: Json, root: Mapping[str, Json], *above: Json) -> Field:
    """The column of a property; `above` are the objects it is in, which may hold it again."""
    node = _without_null(node, root)
    choices = node.get("enum", [node["const"]] if "const" in node else [])
    texts = [choice for choice in choices if choice is not None]
    if texts and all(isinstance(choice, str) for choice in texts):
        return Field(name, "category", tuple(texts))
    kind = _kind(node, root) if "type" in node or not texts else _kind_of_all(texts)
    members = node.get("properties", {})
    if kind != "object" or node.get("additionalProperties") or node in above:
        return Field(name, kind)
    inner = (_field(sub, value, root, *above, node) for sub, value in members.items())
    return Field(name, kind, inner=tuple(inner))


def _kind(node: Mapping[str, Json], root: Mapping[str, Json]) -> FieldKind:
    alternatives = node.get("anyOf", node.get("oneOf"))
    if isinstance(node.get("type"), list):
        alternatives = [{**node, "type": each} for each in node["type"]]
    if alternatives is not None:
        resolved = [_resolved(each, root) for each in alternatives]
        return _common_kind([each for each in resolved if each.get("type") != "null"], root)
    if node.get("type") == "string" and node.get("format") in _FORMATS:
        return _FORMATS[node["format"]]
    return _KINDS.get(str(node.get("type")), "object")


def _kind_of_all(values: Sequence[Json]) -> FieldKind:
    """The type of choices that are not all texts."""
    types = {type(value) for value in values}
    if types <= {int, float}:
        return "integer" if types == {int} else "number"
    if types == {bool}:
        return "boolean"
    return "string" if types <= {str, int, float, bool} else "object"


def _common_kind(nodes: Sequence[Mapping[str, Json]], root: Mapping[str, Json]) -> FieldKind:
    """One type for values of several: numbers stay numbers, other plain values are text."""
    kinds = {_kind(node, root) for node in nodes}
    if not kinds or "object" in kinds:
        return "object"
    return "number" if kinds <= {"integer", "number"} else "string"


_TIMES = {"date": dt.date, "date-time": dt.datetime}


def _python_type(node: Json, root: Mapping[str, Json]) -> Any:
    """A type for pydantic that coerces as the schema's types say; constraints are not in it."""
    node = _resolved(node, root)
    choices = node.get("anyOf", node.get("oneOf"))
    if isinstance(choices, list):
        return typing.Union[tuple(_python_type(choice, root) for choice in choices)]  # noqa: UP007
    kind = node.get("type")
    if isinstance(kind, list):
        return typing.Union[tuple(_python_type({**node, "type": k}, root) for k in kind)]  # noqa: UP007
    if "enum" in node or "const" in node:
        allowed = node.get("enum", [node.get("const")])
        scalars = all(isinstance(value, (str, int, bool, type(None))) for value in allowed)
        return Literal[tuple(allowed)] if allowed and scalars else Any
    if kind == "string" and node.get("format") in _TIMES:
        return _TIMES[node["format"]]
    simple = {"string": str, "integer": int, "number": float, "boolean": bool, "null": None}
    if kind in simple:
        return simple[kind]
    if kind == "array":
        return list[_python_type(node["items"], root)] if "items" in node else list[Any]  # type: ignore[misc]
    return _object_type(node, root) if kind == "object" and "properties" in node else Any


def _object_type(node: Mapping[str, Json], root: Mapping[str, Json]) -> Any:
    from pydantic import Field as PydanticField  # noqa: PLC0415 - heavy, and not needed at import
    from pydantic import create_model  # noqa: PLC0415

    required = node.get("required", ())
    members: dict[str, Any] = {}
    for i, (name, value) in enumerate(node["properties"].items()):
        kind = Any if _refers_back(value, node, root) else _python_type(value, root)
        if name in required:
            members[f"field_{i}"] = (kind, PydanticField(alias=name))
        else:
            default = value.get("default") if isinstance(value, Mapping) else None
            members[f"field_{i}"] = (kind | None, PydanticField(default, alias=name))
    return create_model("Answer", **members)


def _refers_back(value: Json, node: Mapping[str, Json], root: Mapping[str, Json]) -> bool:
    """Whether a property leads back to its own object: such a one is checked by the schema only."""
    seen: set[str] = set()
    waiting: list[Json] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, Mapping):
            if "$ref" in item:
                if item["$ref"] in seen:
                    return True
                seen.add(item["$ref"])
                target = _resolved(item, root)
                if target == node:
                    return True
                waiting.append(target)
            else:
                waiting += item.values()
    return False
