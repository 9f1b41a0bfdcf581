"""Put worked examples before the question: rows with their answers, as turns of the conversation.

The job's own template renders an example, and its answer has the form that the model has to use,
so the model sees exactly the input and the output of its task.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import pandas as pd
import pyarrow as pa

from frameenrich.answers.column_names import column_name
from frameenrich.answers.json_text import loads_exactly
from frameenrich.answers.output import LABEL, MalformedError, Output
from frameenrich.cells import is_null
from frameenrich.errors import FrameEnrichError, InputError, OutputError, ParameterError
from frameenrich.model import JobSpec, Message
from frameenrich.prepare.codebook import as_literal
from frameenrich.prepare.submit_options import Options
from frameenrich.rendering.encode_rows import input_hashes
from frameenrich.rendering.prompt import prompt_of

ANSWER = "answer"
"""The column of the answers, where none has the name of the output."""

_SPEAKS_FIRST = {"system", "developer"}

_NO_ANSWER = object()  # None is an answer that a cell can hold


@runtime_checkable
class ReviewedRows(Protocol):
    """Rows that people judged: a `frameenrich.evaluation.review.Review`."""

    @property
    def keys(self) -> pa.Table:
        """The keys of all drawn rows, judged or not."""

    def examples_in(self, frame: pd.DataFrame, key: tuple[str, ...] | None) -> pd.DataFrame:
        """Return the judged rows of a frame, with the right answers as columns."""


def with_rows(options: Options, frame: pd.DataFrame) -> Options:
    """Return options whose examples are rows; a review's are taken from the frame.

    Raises
    ------
    InputError
        A reviewed row is not in the frame.
    """
    if not isinstance(options.examples, ReviewedRows):
        return options
    key = (options.key,) if isinstance(options.key, str) else options.key
    own = None if key is None else tuple(key)
    return replace(options, examples=options.examples.examples_in(frame, own))


def with_examples(spec: JobSpec, output: Output, frame: pd.DataFrame) -> JobSpec:
    """Add the examples to a spec's messages, before the row's own first message.

    Parameters
    ----------
    spec, output : JobSpec, Output
        The job without them.
    frame : DataFrame
        The template's columns, and the answers: in the output's column, or in ``answer``.

    Raises
    ------
    InputError
        A row does not render, or the job would not accept its answer.
    """
    _check_takes_examples(spec)
    with _about_examples():
        rows = [row for chunk in prompt_of(spec).render(frame) for row in chunk]
    # System messages stay first: the examples come between them and the row's own turns.
    own = next(
        (i for i, m in enumerate(spec.messages) if m.role not in _SPEAKS_FIRST), len(spec.messages)
    )
    shown: list[Message] = []
    for position, (texts, answer) in enumerate(
        zip(rows, _answers(frame, spec, output), strict=True)
    ):
        if texts is None:
            raise InputError(
                f"Row {position} of examples= would print a null.",
                "Leave that row out, or fill in its empty cells.",
                position=position,
            )
        turns = zip(spec.messages[own:], texts[own:], strict=True)
        # As literals: a cell of an example with "{{" would else be code in every row's template.
        shown += [Message(m.role, as_literal(text)) for m, text in turns]
        shown.append(Message("assistant", as_literal(answer)))
    return replace(spec, messages=(*spec.messages[:own], *shown, *spec.messages[own:]))


def with_example_hashes(spec: JobSpec, frame: pd.DataFrame) -> JobSpec:
    """Add the input hashes of the examples to a spec, as its own sidecar will have them.

    An evaluation leaves out the rows with these hashes: the model has seen their answers.
    """
    hashes = [own.hex() for own in input_hashes(frame, spec).to_pylist() if own is not None]
    return replace(spec, examples=tuple(hashes))


def rows_of_examples(examples: Any) -> pd.DataFrame:
    """Make a frame of the examples that a user gave.

    Raises
    ------
    ParameterError
        They are neither a frame nor dicts, or none is given.
    """
    if isinstance(examples, Sequence) and not isinstance(examples, str):
        odd = next((e for e in examples if not isinstance(e, Mapping)), None)
        if odd is not None:
            raise ParameterError(
                f"examples= holds a {type(odd).__name__}.",
                'Give dicts: {"title": "Red mug", "answer": "Kitchen"}.',
            )
        # Object columns keep 3 beside None; pandas would make 3.0 of it, and the prompt show that.
        examples = pd.DataFrame([dict(e) for e in examples], dtype=object)
    # `with_rows` has replaced a review where the whole frame is there; here only parts of it are.
    if isinstance(examples, ReviewedRows):
        raise ParameterError(
            "examples= is a review, and none of the frame's parts holds all of its rows.",
            "Take its rows out of a frame that has them: examples=review.examples_in(frame).",
        )
    if not isinstance(examples, pd.DataFrame):
        raise ParameterError(
            f"examples= is a {type(examples).__name__}.",
            "Give a frame with the template's columns and the answer, a list of dicts, or a Review "
            "that was judged.",
        )
    if not len(examples):
        raise ParameterError("examples= holds no row.", "Give one or more, or leave examples= out.")
    # Errors name examples by position, whatever index the user's frame has.
    return examples.reset_index(drop=True)


def _check_takes_examples(spec: JobSpec) -> None:
    if spec.endpoint not in ("/v1/chat/completions", "/v1/responses"):
        raise ParameterError(
            f"endpoint={spec.endpoint!r} takes one text, and no examples=.",
            "Leave examples= out, or use '/v1/chat/completions'.",
        )
    if spec.image:
        raise ParameterError(
            "examples= and image= do not go together: an example shows no image.",
            "Describe the labels instead: labels={'Kitchen': 'things to cook with', ...}.",
        )


@contextlib.contextmanager
def _about_examples() -> Iterator[None]:
    """Name ``examples=`` in errors raised inside, not the frame."""
    try:
        yield
    except FrameEnrichError as error:
        error.problem = f"examples=: {error.problem}".replace("of the frame", "of the examples")
        error.args = (error.problem, error.fix)
        raise


def _answers(frame: pd.DataFrame, spec: JobSpec, output: Output) -> Iterator[str]:
    """Yield each example's answer, as the model has to write it."""
    columns = _answer_columns(frame, spec, output)
    # A schema's "date" refuses a time, which pandas adds to every date.
    dates = {field.name for field in output.fields if field.kind == "date"}
    texts = {field.name for field in output.fields if field.kind == "json"}
    for position in range(len(frame)):
        cells = {
            name: _plain(frame[column].iloc[position], day=name in dates, as_json=name in texts)
            for name, column in columns.items()
        }
        yield _written(cells, output, position)


def _answer_columns(frame: pd.DataFrame, spec: JobSpec, output: Output) -> dict[str, Any]:
    """Find the columns of the answers: one for each field, or one for the whole answer."""
    fields = {field.name: column_name(spec, field) for field in output.fields}
    if all(fields):  # a response_model, whose fields have names
        found = {
            name: next((c for c in (column, name) if c in frame), None)
            for name, column in fields.items()
        }
        missing = [name for name, column in found.items() if column is None]
        if not missing:
            return found
        if ANSWER in frame:
            return {"": ANSWER}
        raise InputError(
            f"examples= has no column {fields[missing[0]]!r} with the answers to that field.",
            "Give a column for each field, or one called 'answer' with dicts.",
            columns=missing,
        )
    own = next(iter(fields.values()), spec.name)
    column = next((c for c in (own, ANSWER) if c in frame), None)
    if column is None:
        raise InputError(
            f"examples= has no column with the answers: neither {own!r} nor 'answer'.",
            f"It has {', '.join(map(repr, list(frame.columns)[:12]))}; rename the one with the "
            f"answers: examples.rename(columns={{...: {own!r}}}).",
        )
    return {"": column}


def _plain(cell: Any, *, day: bool = False, as_json: bool = False) -> Any:
    """Convert a cell to JSON's types: pandas makes timestamps of dates, Parquet arrays of lists."""
    if as_json and isinstance(cell, str):  # as `collect` gives it, or a text that is the answer
        with contextlib.suppress(ValueError, RecursionError):
            return loads_exactly(cell)
    if isinstance(cell, np.generic | np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, list | tuple):  # before `is_null`, which is about one value
        return [_plain(item) for item in cell]
    if isinstance(cell, Mapping):
        return {name: _plain(item) for name, item in cell.items()}
    if is_null(cell):
        return None
    if isinstance(cell, datetime):
        return (cell.date() if day else cell).isoformat()
    return cell


def _written(cells: Mapping[str, Any], output: Output, position: int) -> str:
    """Write an example's answer as text, and check that the job itself would accept it."""
    whole = cells.get("", _NO_ANSWER)
    value: Any = dict(cells) if whole is _NO_ANSWER else whole
    if value is None:
        raise InputError(
            f"Row {position} of examples= has no answer.",
            "Fill it in, or leave that row out.",
            position=position,
        )
    # `default=str` below: Decimals, UUIDs and times have no JSON type; `output.read` checks them.
    if output.spec.kind in {"text", "parser"}:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    elif output.spec.kind == "labels":
        text = json.dumps({LABEL: getattr(value, "value", value)}, ensure_ascii=False, default=str)
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    # An answer that breaks its own schema would teach every row to do so.
    try:
        values, _ = output.read(text)
    except MalformedError as error:
        raise OutputError(
            f"Row {position} of examples= has an answer that the job would not take: {error}.",
            "Correct that answer, or leave the row out.",
            position=position,
        ) from None
    if output.spec.kind == "labels":  # in the spelling of labels=
        return json.dumps({LABEL: cast("Any", values[0])}, ensure_ascii=False)
    return text
