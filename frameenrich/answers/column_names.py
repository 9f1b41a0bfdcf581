"""Name the columns that a job makes, and refuse names that collide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from frameenrich.answers.output import Field, Output, flattened
from frameenrich.errors import ColumnCollisionError
from frameenrich.model import JobSpec


def refuse_collisions(frame: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Columns of an earlier collect are replaced; a frame without its status has none.

    Raises
    ------
    ColumnCollisionError
        The frame has got a column of its own where an answer would go.
    """
    taken = [column for column in columns if column in frame.columns]
    if taken and f"{name}_status" not in taken:
        raise ColumnCollisionError(
            f"The frame has a column {taken[0]!r}, which the answers would go to.",
            "Rename or drop that column; the answers are safe in the job.",
            columns=taken,
        )


INCLUDED = "message.output_text.logprobs"


def asks_confidence(spec: JobSpec) -> bool:
    """Whether a job's requests ask for log probabilities."""
    included = spec.params.get("include")
    return bool(spec.params.get("logprobs")) or (
        isinstance(included, list) and INCLUDED in included
    )


_USAGE_COLUMNS = (
    "model", "attempt", "prompt_tokens", "completion_tokens", "cost_usd", "finish_reason",
    "custom_id", "repaired", "raw",
)  # fmt: skip


def output_columns(spec: JobSpec, output: Output) -> list[str]:
    """The columns that `collect` adds, but for those of ``usage=True``."""
    fields = [column_name(spec, field) for field in output.fields]
    if has_confidence(spec, output.fields):
        fields.append(f"{spec.name}_confidence")
    return [*fields, f"{spec.name}_status", f"{spec.name}_error"]


def usage_columns(name: str) -> list[str]:
    """The columns that ``usage=True`` adds."""
    return [f"{name}_{what}" for what in _USAGE_COLUMNS]


def reserved_columns(name: str) -> list[str]:
    """The columns that tell of a row, not of its answer."""
    return [f"{name}_status", f"{name}_error", *usage_columns(name)]


def flat_columns(spec: JobSpec, output: Output) -> list[str]:
    """The columns that ``flatten=True`` makes of nested fields."""
    nested = [field for field in output.fields if field.inner]
    return [column_name(spec, leaf) for field in nested for leaf, _ in flattened(field, ())]


def has_confidence(spec: JobSpec, fields: Sequence[Field]) -> bool:
    """Tell whether a label comes with a confidence, taken from its token probabilities."""
    labels = [field for field in fields if not field.name and field.kind == "category"]
    return bool(labels) and asks_confidence(spec)


def column_name(spec: JobSpec, field: Field) -> str:
    """The column of an output field; a single-valued output is called after the job."""
    return f"{spec.prefix}{field.name or spec.name}{field.suffix}"


def refuse_reserved(columns: Iterable[str], spec: JobSpec) -> None:
    """Refuse values that would go where the row's status or its usage stands.

    Raises
    ------
    ColumnCollisionError
        Names them; a parser's keys and the names of flattened fields are known here only.
    """
    taken = [name for name in columns if name in reserved_columns(spec.name)]
    if taken:
        raise ColumnCollisionError(
            f"The answers would go to a column {taken[0]!r}, which tells of the row itself.",
            "Rename that key in the parser; the answers are safe in the job.",
            columns=taken,
        )


def refuse_twice(names: Sequence[str], fix: str) -> None:
    """Refuse two columns of one name.

    Raises
    ------
    ColumnCollisionError
        Names them.
    """
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ColumnCollisionError(
            f"Two of the columns that the answers go to would be called {twice[0]!r}.",
            f"{fix}; the answers are safe in the job.",
            columns=twice,
        )


def check_columns(spec: JobSpec, output: Output) -> None:
    """Refuse fields whose columns would be one another's, or those that tell of the row."""
    names = [*output_columns(spec, output), *usage_columns(spec.name)]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ColumnCollisionError(
            f"Two of the columns that the answers go to would be called {twice[0]!r}.",
            "Pass another name=, or prefix= for the fields.",
            columns=twice,
        )


def check_key_names(names: Sequence[str], spec: JobSpec, output: Output) -> None:
    """Refuse output columns that are called as the key, which `collect` gives beside them.

    Those of ``usage=True`` count: the report shows them.

    Raises
    ------
    ColumnCollisionError
        Names them.
    """
    own = [*output_columns(spec, output), *flat_columns(spec, output), *usage_columns(spec.name)]
    taken = [name for name in own if name in names]
    if taken:
        raise ColumnCollisionError(
            f"The answers would go to a column {taken[0]!r}, which is the name of the key.",
            "Rename the field, or pass prefix= for the fields or another name=.",
            columns=taken,
        )


def check_collisions(columns: Sequence[str], spec: JobSpec, output: Output) -> None:
    """Refuse output columns that the frame has already.

    Raises
    ------
    ColumnCollisionError
        Names them.
    """
    names = [*output_columns(spec, output), *flat_columns(spec, output)]
    taken = [name for name in names if name in columns]
    if taken:
        raise ColumnCollisionError(
            f"The frame has a column {taken[0]!r} already, which the answers would go to.",
            "Pass another name=, or prefix= for the fields, or drop that column.",
            columns=taken,
        )
