"""Define the form of an answer: its columns, and how it is read and validated.

The schema is stored with the job, so a later session without the pydantic class still knows the
columns and the constraints. Validation is pydantic's: of the class where we have it, else of
one built from the stored schema, whose constraints `jsonschema-rs` then checks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from frameenrich.answers.exact_types import has_dates, numbers_for_dates, odd_values
from frameenrich.answers.fields import Field, as_cell, is_of_kind, make_fields
from frameenrich.answers.json_text import CutOffError, Found, NotJsonError, find_answer, only_one
from frameenrich.answers.labels import plain_forms
from frameenrich.answers.schema import (
    check_stored_schema,
    has_look_alikes,
    look_alike,
    no_retrieval,
    normalize_label,
    python_type,
    with_decoded_fields,
    with_exact_choices,
)
from frameenrich.errors import OutputError
from frameenrich.model import Json, OutputSpec
from frameenrich.text import encodable, shortened

Parser = Callable[[str], Any]


LABEL = "label"
"""The one property of the object that a labels answer is."""


_TEXT_CALLS = ({"name", "arguments"}, {"name", "parameters"})


class MalformedError(ValueError):
    """An answer that does not parse or validate; becomes a row status, never reaches the user."""


# Written late, since an answer that is mended after its first refusal never needs the words.
class _InvalidError(MalformedError):
    """An answer that pydantic refuses; where and why is written only when somebody reads it."""

    def __str__(self) -> str:
        try:
            return _where_and_why(self.args[0])
        except Exception:  # noqa: BLE001 - the words of what a user's validator raised are asked for
            return "$: a validator refused the answer"


_STORED = "The stored schema of the answers"


@dataclass(frozen=True)
class Output:
    """The form of answers as stored, with the class or parser that this session has for it.

    Parameters
    ----------
    spec : OutputSpec
        What is stored with the job.
    model : type or None
        The pydantic class, where the user gave one in this session.
    parser : callable or None
        ``str -> dict | value``; a `ValueError` from it flags the row ``malformed``.
    reserved : frozenset of str
        Keys that a parser must not give, since columns of the row's status are called so: they
        often are the model's words, which must not stop the other rows.
    called : str
        What an error calls the schema.
    """

    spec: OutputSpec
    model: Any = None
    parser: Parser | None = None
    reserved: frozenset[str] = frozenset()
    called: str = dataclasses.field(
        default="The stored schema of the answers", compare=False, kw_only=True
    )

    def reserving(self, columns: Iterable[str], prefix: str) -> Output:
        """Return a copy that refuses a parser's keys which, with the prefix, name these columns."""
        own = (name.removeprefix(prefix) for name in columns if name.startswith(prefix))
        return dataclasses.replace(self, reserved=frozenset(own))

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """The output columns; a text or parser answer has one, called after the job."""
        if self.spec.kind == "text":
            return (Field("", "string"),)
        if self.spec.kind == "embedding":
            return (Field("", "vector"),)
        # The second column is called after the job as well, so a suffix tells them apart.
        if self.spec.kind == "moderation":
            return (Field("", "boolean"), Field("", "object", suffix="_categories"))
        if self.spec.schema is None and not self._labels:
            return (Field("", "any"),)
        with self._of_stored_schema():
            schema = self.spec.schema or {}
            if self.model is None:
                check_stored_schema(schema)
            fields = make_fields(schema)
            return (Field("", "category", self._choices_of(fields)),) if self._labels else fields

    @staticmethod
    def _choices_of(fields: Sequence[Field]) -> tuple[str, ...]:
        """Return the labels, which are the choices of the one field."""
        if [field.name for field in fields] != [LABEL] or not fields[0].categories:
            raise ValueError("it holds no labels")
        return fields[0].categories

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
            value = _parsed(self.parser, text)
            taken = (
                self.reserved.intersection(map(str, value)) if isinstance(value, Mapping) else ()
            )
            if taken:
                raise MalformedError(
                    f"the parser's key {min(taken)!r} is reserved for the row's status columns"
                )
            return (value,), False
        try:
            return self._read_label(text) if self._labels else self._read_object(text)
        except RecursionError:
            raise MalformedError("$: the answer is nested too deeply") from None

    def _read_object(self, text: str) -> tuple[tuple[Any, ...], bool]:
        try:
            found = find_answer(text)
        except NotJsonError as error:
            raise MalformedError(f"$: {error}") from None
        value, mended = self._called_with(*self._unlisted(found))
        if not isinstance(value, dict):
            raise MalformedError("$: the answer is not a JSON object")
        self._refuse_other_types(value)
        as_text = self.exact and self._has_numbers_as_text(value)
        # As it came first: nothing is mended that pydantic takes.
        if not mended:
            try:
                return self._validated(text), as_text
            except MalformedError:
                pass  # a choice in another case, or a field encoded twice, is mended below
        schema = self.spec.schema or {}
        unpacked = with_decoded_fields(value, schema, schema)
        exact = with_exact_choices(unpacked, schema, schema)
        return self._validated(json.dumps(exact)), mended or as_text or unpacked != value

    @property
    def exact(self) -> bool:
        """Whether a value of another type is wrong, though pydantic would make it fit."""
        return self.spec.exact and "validators" not in self.spec.class_rules

    def _has_numbers_as_text(self, value: Json) -> bool:
        """Tell whether texts stand for numbers or booleans; refuse these for each other."""
        schema = self.spec.schema or {}
        found = list(odd_values(value, schema, schema))
        for where, said in found:
            if not isinstance(said, str):
                self._refuse_type(where, said)
        return bool(found)

    @cached_property
    def _look_for(self) -> tuple[bool, bool]:
        # A class's own validators may well make a number of a boolean, or a date of a number.
        own = "validators" in self.spec.class_rules
        schema = self.spec.schema
        return not own and has_look_alikes(schema), not own and has_dates(schema)

    def _refuse_other_types(self, value: Json) -> None:
        schema, (choices, dates) = self.spec.schema or {}, self._look_for
        if choices and (found := look_alike(value, schema, schema)) is not None:
            self._refuse_type(*found)
        for where, said, wanted in numbers_for_dates(value, schema, schema) if dates else ():
            what = f"{json.dumps(said)} is a number where {wanted} is wanted"
            raise MalformedError(f"{json_path(where)}: {what}")

    @staticmethod
    def _refuse_type(where: Sequence[str | int], said: Json) -> None:
        what = "boolean where a number" if isinstance(said, bool) else "number where a boolean"
        raise MalformedError(f"{json_path(where)}: {json.dumps(said)} is a {what} is wanted")

    def _called_with(self, value: Json, mended: bool) -> tuple[Json, bool]:
        """Take the arguments out of a tool call that a model wrote as text.

        A server that does not parse its model's calls leaves them in the answer's words.
        """
        if not isinstance(value, dict) or value.keys() not in _TEXT_CALLS:
            return value, mended
        given = value.get("arguments", value.get("parameters"))
        known = (self.spec.schema or {}).get("properties", {})
        if not isinstance(given, dict) or not known.keys().isdisjoint(value):
            return value, mended
        return given, True

    @staticmethod
    def _unlisted(found: Found) -> tuple[Json, bool]:
        """Take the one object out of a list of equal objects; also return whether it was mended."""
        value = found.value
        if not isinstance(value, list) or not value or not all(type(v) is dict for v in value):
            return value, found.mended
        try:
            return only_one(value), True
        except NotJsonError as error:
            raise MalformedError(f"$: {error}") from None

    def _validated(self, text: str) -> tuple[Any, ...]:
        """Validate an answer's JSON and return one cell a field."""
        from pydantic import ValidationError  # noqa: PLC0415 - heavy, and not needed at import

        validate = self.adapter.validate_json
        try:
            answer = validate(text)
        except ValidationError as error:
            raise _InvalidError(error) from None
        except Exception as error:  # noqa: BLE001 - a user's validator may raise anything
            raise MalformedError(f"$: the validator failed: {_described(error)}") from None
        values = self._dumped(answer)
        # First, as JSON has null for infinity, and no reason may speak of a null that nobody said.
        self._refuse_endless(text, answer)
        self._check_constraints(answer)
        self._refuse_lost(answer, values)
        return tuple(_to_cell(values.get(field.name), field) for field in self.fields)

    def _refuse_endless(self, text: str, answer: Any) -> None:
        """Refuse NaN and infinity, which pydantic makes of the texts "nan" and "Infinity" too."""
        if not _MAYBE_ENDLESS.search(text):
            return
        for where, number in _floats([], self._dumped(answer, mode="python")):
            # math.isfinite raises for a signaling NaN, which only a Decimal can be.
            if not (number.is_finite() if isinstance(number, Decimal) else math.isfinite(number)):
                raise MalformedError(f"{json_path(where)}: {number} is not a number that JSON has")

    def _dumped(self, answer: Any, mode: str = "json", **how: bool) -> dict[str, Any]:
        """Dump the answer as JSON has it, whatever a user's validator made of its fields."""
        dump = self.adapter.dump_python
        try:
            dumped = dump(answer, mode=mode, by_alias=True, warnings=False, **how)
        except Exception as error:  # noqa: BLE001 - a user's serializer may raise anything
            raise MalformedError(f"$: the serializer failed: {_described(error)}") from None
        if not isinstance(dumped, dict):
            raise MalformedError("$: the model's serializer makes no object of the answer")
        return dumped

    def _refuse_lost(self, answer: Any, values: Mapping[str, Any]) -> None:
        """Refuse an answer if a user's serializer leaves out some of its values."""
        from pydantic import RootModel  # noqa: PLC0415 - heavy, and not needed at import

        null_as_json = (type(None), float, enum.Enum, RootModel)  # or may be: NaN, a choice of null
        for field in self.fields if self.model is not None else ():
            if values.get(field.name) is None:
                value = getattr(answer, self._attributes.get(field.name, ""), None)
                if not isinstance(value, null_as_json):
                    raise MalformedError(f"{json_path([field.name])}: the serializer left it out")

    @cached_property
    def _attributes(self) -> Mapping[str, str]:
        """The attribute of the class for each column."""
        members = self.model.model_fields.items()
        return {each.serialization_alias or each.alias or name: name for name, each in members}

    def _check_constraints(self, answer: Any) -> None:
        if self._constraints is None:
            return
        # Only what the answer holds: an optional property that is absent was filled with None.
        given = self._dumped(answer, exclude_unset=True)
        error = next(iter(self._constraints.iter_errors(given)), None)
        if error is not None:
            raise MalformedError(f"{json_path(error.instance_path)}: {error.message}")

    @contextlib.contextmanager
    def _of_stored_schema(self) -> Iterator[None]:
        """Make an error of whatever a schema that somebody changed in the store leads to."""
        try:
            yield
        except Exception as error:
            # A class is the user's own, and was checked when it was given.
            if self.model is not None or isinstance(error, OutputError):
                raise
            why = shortened((str(error) or type(error).__name__).splitlines()[0], 200)
            raise OutputError(
                f"{self.called} cannot be used: {why}.",
                "Collect with labels= those that were asked for."
                if self._labels
                else "Collect with response_model= the schema that was asked for.",
            ) from None

    @cached_property
    def adapter(self) -> Any:
        """Pydantic's validator of an answer that is an object."""
        from pydantic import TypeAdapter  # noqa: PLC0415 - heavy, and not needed at import

        with self._of_stored_schema():
            return TypeAdapter(self.model or python_type(self.spec.schema or {}))

    @cached_property
    def _constraints(self) -> Any:
        if self.model is not None or self.spec.schema is None:
            return None
        import jsonschema_rs  # noqa: PLC0415 - needed only without the class

        with self._of_stored_schema():
            return jsonschema_rs.validator_for(dict(self.spec.schema), retriever=no_retrieval)

    @cached_property
    def _known_labels(self) -> dict[str, str]:
        return {normalize_label(label): label for label in self.fields[0].categories}

    def _read_label(self, text: str) -> tuple[tuple[str], bool]:
        alone = self._label_alone(text)
        if alone is not None:
            return (alone,), False
        try:
            found = find_answer(text)
        except NotJsonError as error:
            # Without a brace it was never meant as JSON: the reason then shows the text itself.
            if "{" in text or isinstance(error, CutOffError):
                raise MalformedError(f"$: {error}; the labels are {self._label_names}") from None
            raise MalformedError(self._not_a_label(text.strip())) from None
        value, mended = self._called_with(*self._unlisted(found))
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            value, mended = {LABEL: value[0]}, True
        given = self._said_of_label(value)
        # Labels may be numbers, which models write without quotes.
        if isinstance(given, int) and not isinstance(given, bool):
            given = str(given)
        label = self._label_alone(given) if isinstance(given, str) else None
        if label is None:
            shown = given if isinstance(given, str) else json.dumps(given)
            raise MalformedError(self._not_a_label(shown))
        # Words beside an object may name another label; a label alone was the whole text.
        self._refuse_other_labels(text, label)
        return (label,), mended

    def _said_of_label(self, value: Json) -> Json:
        """Return what an answer's object says under its one key."""
        if not isinstance(value, dict):
            shown = value if isinstance(value, str) else json.dumps(value)
            raise MalformedError(self._not_a_label(shown))
        if LABEL not in value:
            keys = ", ".join(map(repr, list(value)[:3])) or "no key"
            raise MalformedError(
                f"$: the answer has {keys}, not {LABEL!r}; the labels are {self._label_names}"
            )
        return value[LABEL]

    def _label_alone(self, text: str) -> str | None:
        """Find the label that a text is, apart from case, spacing and marks around it."""
        known = self._known_labels
        for form in plain_forms(text):
            label = known.get(normalize_label(form))
            if label is not None:
                return label
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1:  # the same label again on each line is one answer
            each = {self._label_alone(line) for line in lines}
            return each.pop() if len(each) == 1 else None
        return None

    def _refuse_other_labels(self, text: str, label: str) -> None:
        """Refuse an answer that names another label beside its object."""
        around = normalize_label(_OBJECT.sub(" ", text))
        if not around:
            return
        for other in self.fields[0].categories:
            # A label may be a word of prose ("other"); only as a whole word it is named.
            pattern = rf"(?<!\w){re.escape(normalize_label(other))}(?!\w)"
            if other != label and re.search(pattern, around):
                raise MalformedError(f"$: two answers that differ: {label!r} and {other!r}")

    def _not_a_label(self, shown: str) -> str:
        count = len(self.fields[0].categories)
        names = self._label_names
        return f"$.{LABEL}: {shortened(shown)!r} is not one of the {count} labels: {names}"

    @cached_property
    def _label_names(self) -> str:
        """The labels, for reasons: they go to the model as feedback."""
        labels = self.fields[0].categories
        more = ", ..." if len(labels) > _MOST_NAMED else ""
        return ", ".join(map(repr, labels[:_MOST_NAMED])) + more


# A cheap first test, so that ordinary answers are not dumped twice.
_MAYBE_ENDLESS = re.compile(r"nan|inf|\d{300}|\de\+?\d{3}", re.IGNORECASE)
# A reason goes to the model as feedback, and a thousand labels would make it long.
_MOST_NAMED = 12
_OBJECT = re.compile(r"\{[^{}]*\}")


def _floats(
    where: list[str | int], value: Any
) -> Iterator[tuple[list[str | int], float | Decimal]]:
    """Yield every number in a value that may be endless, with its path."""
    if isinstance(value, float | Decimal):
        yield where, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _floats([*where, str(name)], item)
    elif isinstance(value, list | tuple | set | frozenset):
        for i, item in enumerate(value):
            yield from _floats([*where, i], item)


def _to_cell(value: Any, field: Field, path: tuple[str, ...] = ()) -> Any:
    """Return the value, where its column can hold it: pandas' Int64 has 64 bits."""
    here = (*path, field.name)
    if value is not None and not is_of_kind(value, field):
        shown = shortened(json.dumps(value))
        raise MalformedError(f"{json_path(here)}: the model made {shown} of it, no {field.kind}")
    if field.kind == "integer" and value is not None and not -(2**63) <= value < 2**63:
        raise MalformedError(f"{json_path(here)}: the integer does not fit in 64 bits")
    if field.inner and isinstance(value, dict):
        members = [inner for inner in field.inner if inner.name in value]
        made = {inner.name: _to_cell(value[inner.name], inner, here) for inner in members}
        return {**value, **made}
    return as_cell(value, field)


def _parsed(parser: Parser, text: str) -> Any:
    try:
        return encodable(parser(text))
    except ValueError as error:
        raise MalformedError(_words(error) or "the parser refused the answer") from None
    # SystemExit too: a parser that calls exit() spoils one row. Ctrl-C goes through.
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's parser may do anything
        raise MalformedError(f"the parser failed: {_described(error)}") from None


def _described(error: BaseException) -> str:
    name, words = type(error).__name__, _words(error)
    return name if words in {"", name} else f"{name}: {words}"


def _words(error: BaseException) -> str:
    """Return an error's message; its type's name where the message itself fails."""
    try:
        return str(encodable(str(error)))
    except Exception:  # noqa: BLE001 - a user's own class may do anything
        return type(error).__name__


def _where_and_why(error: Any) -> str:
    first = error.errors(include_url=False)[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    reason = first["msg"].removeprefix("Value error, ")  # what a user's own validator raised
    return f"{json_path(first['loc'])}: {reason}{more}"


def json_path(parts: Sequence[str | int]) -> str:
    """Write the path to a part of a JSON value.

    Examples
    --------
    >>> json_path(["specs", 2, "width"])
    '$.specs[2].width'
    """
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
