"""Make an `Output` of labels, a model, a schema or a parser."""

from __future__ import annotations

import contextlib
import enum
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.answers.class_rules import class_rules
from frameenrich.answers.fields import Field
from frameenrich.answers.gate import make_gate
from frameenrich.answers.output import LABEL, MalformedError, Output, Parser
from frameenrich.answers.schema import no_retrieval, normalize_label, resolved, without_null
from frameenrich.errors import OutputError
from frameenrich.model import Json, OutputSpec
from frameenrich.prepare.codebook import check_definitions
from frameenrich.prepare.no_model import not_a_model, not_a_type
from frameenrich.text import is_encodable, kind_of, shortened


def output_from_options(
    labels: Any = None, response_model: Any = None, parser: Parser | None = None
) -> Output:
    """Make the output that the options describe; without any it is plain text.

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
            f"Both {given[0]}= and {given[1]}= were given.",
            "Give one of them: an answer has one form.",
        )
    if labels is not None:
        return Output(labels_spec(labels))
    if response_model is not None:
        try:
            return _readable(_model_output(response_model))
        except RecursionError:  # made by a program, or to do harm
            raise OutputError(
                "The schema of response_model= is nested too deep.",
                "Give one with fewer levels; nothing was sent.",
            ) from None
    if parser is not None:
        if not callable(parser):
            raise OutputError(
                "The parser is not callable.", "Give a function str -> dict or value."
            )
        return Output(OutputSpec("parser"), parser=parser)
    return Output(OutputSpec())


def _readable(output: Output) -> Output:
    """Check that an output can read answers: unreadable ones must not be paid for.

    Both readers are tried: this session's, and that of a later one without the class.

    Raises
    ------
    OutputError
        One cannot be made.
    """
    for reader in (output, Output(output.spec)):
        try:
            make_gate(reader)
            # A required field is missing here: only other errors come from the reader itself.
            with contextlib.suppress(MalformedError):
                reader.read("{}")
        except Exception as error:
            raise OutputError(
                "response_model= cannot be read back from answers: "
                f"{type(error).__name__}: {shortened(str(error))}.",
                "Use other names or types for its fields; nothing was sent.",
            ) from error
    return output


def labels_spec(labels: Any) -> OutputSpec:
    """Make the spec of an answer that is one of `labels`: a list, an Enum class or a codebook."""
    if isinstance(labels, Mapping):
        check_definitions(labels)
        labels = list(labels)
    if isinstance(labels, type) and issubclass(labels, enum.Enum):
        labels = list(labels)
    # What people write most: df["kind"].unique(), and that is an array.
    if isinstance(labels, pd.Series | pd.Index | np.ndarray | pd.api.extensions.ExtensionArray):
        labels = labels.tolist()
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise OutputError(
            f"labels= is {kind_of(labels)}.",
            "Give a list of texts, or an Enum class, or a dict of labels and what they mean.",
        )
    values = [label.value if isinstance(label, enum.Enum) else label for label in labels]
    # Numbers become texts, as an answer chooses among texts; NaN, None and others are refused.
    texts = [str(value) for value in values if isinstance(value, (str, Number)) and value == value]  # noqa: PLR0124 - NaN
    if len(texts) < len(values):
        raise OutputError(
            "labels= holds a null, or something that is not text.", "Give a list of texts."
        )
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
        held = f"one label, {texts[0]!r}" if texts else "no label"
        raise OutputError(f"labels= holds {held}.", "Give at least two to choose from.")
    for text in texts:
        if not is_encodable(text):
            raise OutputError(
                f"The label {text!a} cannot be written as UTF-8.", "Correct it; nothing was sent."
            )
    if any(not text.strip() for text in texts):
        raise OutputError("labels= holds an empty label.", "Remove it or give it a name.")
    # Answers are matched without case and spacing, so such labels could not be told apart.
    if len({normalize_label(text) for text in texts}) < len(texts):
        repeated = next(
            t for i, t in enumerate(texts) if normalize_label(t) in map(normalize_label, texts[:i])
        )
        raise OutputError(
            f"The label {repeated!r} stands twice in labels= (case and spacing do not count).",
            "Keep one of them.",
        )


def _model_output(given: Any) -> Output:
    from pydantic import BaseModel, PydanticUserError, TypeAdapter, create_model  # noqa: PLC0415 - heavy
    from pydantic import Field as PydanticField  # noqa: PLC0415
    from pydantic_core import SchemaError  # noqa: PLC0415 - comes with pydantic

    if isinstance(given, type) and issubclass(given, BaseModel) and given is not BaseModel:
        model: Any = given
    elif isinstance(given, Mapping) and _is_json_schema(given):
        return Output(OutputSpec("schema", _checked_schema(dict(given)), exact=True))
    elif isinstance(given, Mapping) and given:
        try:
            members: dict[str, Any] = {  # by alias: not every column name can be an attribute
                f"field_{i}": (v, PydanticField(alias=str(k)))
                for i, (k, v) in enumerate(given.items())
            }
            model = create_model("Answer", **members)
        except (TypeError, NameError, SyntaxError, PydanticUserError, SchemaError) as error:
            raise not_a_type(given) or _unusable(error) from error
    else:
        raise not_a_model(given)
    try:
        schema = model.model_json_schema(schema_generator=_schema_generator())
        written = model.model_json_schema(
            mode="serialization", schema_generator=_schema_generator()
        )
    # A dict of words fails here or above, depending on the words: say how to write it instead.
    except (PydanticUserError, ValueError) as error:
        raise not_a_type(given) or _unusable(error) from error
    # Columns are made of what a model reads, values of what it writes: the names must agree.
    lost = sorted(set(schema.get("properties", ())) - set(written.get("properties", ())))
    if lost and "properties" in written:
        raise OutputError(
            f"response_model= reads {lost[0]!r} under one name and writes it under another.",
            "Use alias= instead of validation_alias= or serialization_alias=.",
        )
    checked = _checked_schema(schema)
    _check_written(checked, written)
    rules = class_rules(model.__name__, TypeAdapter(model))
    if _lacks_defaults(model, checked):
        rules = (model.__name__, *sorted({*rules[1:], "defaults"}))
    # What a class takes is its own to say; of types alone JSON's own sense is meant.
    exact = isinstance(given, Mapping)
    return Output(OutputSpec("schema", checked, class_rules=rules, exact=exact), model=model)


def _lacks_defaults(model: Any, schema: Mapping[str, Json]) -> bool:
    """Tell whether a default is not in the schema: JSON lacks it, or the class took it out."""
    properties = schema.get("properties", {})
    members = model.model_fields.items()
    return any(
        not each.is_required()
        and each.default_factory is None
        and each.default is not None
        and "default" not in properties.get(each.alias or name, {"default": None})
        for name, each in members
    )


def _check_written(read: dict[str, Json], written: dict[str, Json]) -> None:
    """Refuse a class that writes values its columns cannot hold: these are made of what it reads.

    Texts pass for kinds that are parsed from text, such as a date written in ISO format.
    """
    if _hides(read):
        raise OutputError(
            "response_model= holds a secret (SecretStr, SecretBytes), which is written as stars.",
            "Use str or bytes: the answer is in the store as it came anyway.",
        )
    form = resolved(written, written)
    if form.get("type", "object") != "object":
        raise OutputError(
            f"response_model= is written as {form['type']}, not as an object (model_serializer).",
            "Remove the serializer: each field becomes a column.",
        )
    fields = Output(OutputSpec("schema", read)).fields
    for name, reads, writes in _misfits(fields, form, written):
        raise OutputError(
            f"response_model= reads {name!r} as {reads} and its serializer writes {writes}.",
            "Remove the serializer, or let it write what the field's type says.",
        )


def _hides(node: Json) -> bool:
    """Tell whether a schema has a secret field, however deep."""
    if isinstance(node, list):
        return any(map(_hides, node))
    if not isinstance(node, Mapping):
        return False
    # This pair is how pydantic marks SecretStr and SecretBytes.
    secret = node.get("format") == "password" and node.get("writeOnly") is True
    return secret or any(map(_hides, node.values()))


_TEXTS = ("string", "category", "date", "datetime")


_WRITABLE: Mapping[str, Sequence[str]] = {
    "integer": ["integer"],
    "number": ["number", "integer", *_TEXTS],
    "boolean": ["boolean"],
    "date": _TEXTS,
    "datetime": _TEXTS,
    "category": _TEXTS,
}
"""The kinds that a field of each kind may be written as; texts and objects hold anything."""


_ANYTHING = ("object", "json")


def _misfits(
    fields: Sequence[Field], form: Mapping[str, Json], root: Mapping[str, Json], path: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Yield the fields whose columns cannot hold what is written: name, kind read and written."""
    # A list, not recursion: models may refer to themselves.
    waiting, seen = [(path, fields, form)], set[tuple[int, str]]()
    kinds: dict[str, str] = {}  # of what is written alike: a model that all others refer to, once
    while waiting:
        path, fields, form = waiting.pop()
        nodes = form.get("properties", {})
        for field in fields:
            node = without_null(nodes.get(field.name), root)
            if not {"type", "anyOf", "oneOf", "enum", "const"} & set(node):
                continue  # the serializer's type is unknown, so nothing speaks against it
            written = str(nodes[field.name])
            if written not in kinds:
                # One field alone in the root, whose definitions its references need.
                alone = {**root, "properties": {field.name: node}}
                kinds[written] = Output(OutputSpec("schema", alone)).fields[0].kind
            kind = kinds[written]
            if node.get("type") == "null" and field.kind not in _ANYTHING:
                yield path + field.name, field.kind, "null"
            elif kind not in _WRITABLE.get(field.kind, [kind]) or (
                field.inner and kind not in _ANYTHING
            ):
                yield path + field.name, field.kind, kind
            elif field.inner and (own := (id(field.inner), str(node))) not in seen:
                seen.add(own)  # a model that many fields refer to is checked once
                waiting.append((f"{path}{field.name}.", field.inner, node))


@cache
def _schema_generator() -> Any:
    from decimal import Decimal  # noqa: PLC0415 - as pydantic, only where a class is given

    from pydantic.json_schema import GenerateJsonSchema  # noqa: PLC0415

    class Numbers(GenerateJsonSchema):
        """Ask for a Decimal as a number: APIs refuse the pattern of pydantic's text form."""

        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            plain = {k: float(v) if isinstance(v, Decimal) else v for k, v in schema.items()}
            return self.float_schema(typing.cast("Any", plain))

    return Numbers


def _unusable(error: Exception) -> OutputError:
    first_sentence = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
    return OutputError(
        f"response_model= cannot be made a JSON Schema: {first_sentence}.",
        "Use field types that JSON can carry.",
    )


def _is_json_schema(given: Mapping[str, Any]) -> bool:
    return (
        isinstance(given.get("properties"), Mapping)
        or isinstance(given.get("type"), str)
        or "$schema" in given
        or "$ref" in given
    )


def _checked_schema(schema: dict[str, Json]) -> dict[str, Json]:
    import jsonschema_rs  # noqa: PLC0415 - only where a schema is given

    # A recursive model's schema is a reference at the root, where APIs want the object itself.
    schema = resolved(schema, schema) | ({"$defs": schema["$defs"]} if "$defs" in schema else {})
    if schema.get("type") != "object" or not schema.get("properties"):
        raise OutputError(
            "The JSON Schema of response_model= is not an object with properties.",
            'Give {"type": "object", "properties": {...}}: each property becomes a column.',
        )
    faults = [*_schema_faults(schema), *_odd_texts(schema)]
    # Without retrieval: a reference to a URL must not make this computer fetch it.
    try:
        if not faults:
            jsonschema_rs.validator_for(schema, retriever=no_retrieval)
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        faults.append(str(error).partition("\n")[0])
    if faults:
        raise OutputError(
            f"response_model= is not a valid JSON Schema: {faults[0].rstrip('.')}.",
            "Correct the schema; nothing was sent.",
        )
    return schema


_BOUNDS = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minimum", "maximum"),
    ("minProperties", "maxProperties"),
)


def _schema_faults(node: Json, path: str = "$") -> Iterator[str]:
    """Yield faults that are legal JSON Schema and still cannot be used.

    A reference to elsewhere would be fetched; bounds that cross make llama.cpp use all memory.
    """
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from _schema_faults(item, f"{path}[{i}]")
    elif isinstance(node, Mapping):
        yield from _own_faults(node, path)
        for name, value in node.items():
            # A property called "enum" is no keyword, and values under "enum" are no schemas.
            if name == "properties" and isinstance(value, Mapping):
                for field, schema in value.items():
                    yield from _schema_faults(schema, f"{path}.{field}")
            elif name not in {"enum", "const", "default", "examples"}:
                yield from _schema_faults(value, f"{path}.{name}")


def _odd_texts(node: Json) -> Iterator[str]:
    """Yield the texts of a schema that no request and no column can hold."""
    if isinstance(node, str) and not is_encodable(node):
        yield f"{node!a} cannot be written as UTF-8"
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from _odd_texts(name)
            yield from _odd_texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _odd_texts(value)


def _own_faults(node: Mapping[str, Json], path: str) -> Iterator[str]:
    reference, properties = node.get("$ref"), node.get("properties")
    if isinstance(reference, str) and not reference.startswith("#"):
        yield f"{path} refers to {reference!r}, outside of the schema"
    if isinstance(properties, Mapping) and isinstance(node.get("required"), list):
        for name in [name for name in node["required"] if name not in properties]:
            yield f"{path} requires {name!r}, which is none of its properties"
    for low, high in _BOUNDS:
        least, most = node.get(low), node.get(high)
        if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
            yield f"{path} has {low} {least} over {high} {most}"
    for name, value in properties.items() if isinstance(properties, Mapping) else ():
        if not isinstance(value, Mapping):
            yield f"{path}.{name} is {value!r} and not an object"
