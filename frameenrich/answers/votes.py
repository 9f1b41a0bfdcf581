"""Combine several answers to one request (``samples=``) by majority, field by field."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from frameenrich.answers.fields import Field
from frameenrich.model import Result, RowStatus


def by_majority(results: Sequence[Result], fields: Sequence[Field], samples: int) -> Result:
    """Return one result for a request's answers: each field has the value that most of them gave.

    Of values that are given equally often, the one that came first stands. An answer that is not
    usable agrees with none, so it lowers the share.

    Parameters
    ----------
    results : sequence of Result
        Each answer, judged alone.
    fields : sequence of Field
        The output columns.
    samples : int
        How many answers were asked for.
    """
    usable = [result for result in results if result.status is RowStatus.OK]
    if not usable:
        return results[0]
    # A server may send more than were asked for; no share may be greater than 1.
    samples = max(samples, len(results))
    values: list[Any] = []
    votes: dict[str, dict[str, int]] = {}
    shares: list[float] = []
    for i, field in enumerate(fields):
        cells = [(result.values or ())[i] for result in usable]
        # Keys come in any order: what is counted is the value, not how it is written.
        said = [json.loads(c or "null") for c in cells] if field.kind == "json" else cells
        texts = [vote_text(value) for value in said]
        counts = Counter(texts)
        text, most = max(counts.items(), key=lambda pair: pair[1])  # the first of equals
        values.append(cells[texts.index(text)])
        votes[field.name] = dict(counts)
        shares.append(most / samples)
    whole = tuple(values)
    # The raw text and usage are best those of an answer that gave exactly these values.
    spokesman = next((result for result in usable if result.values == whole), usable[0])
    return msgspec.structs.replace(
        spokesman,
        values=whole,
        # A row is as sure as its least sure field.
        agreement=min(shares),
        votes=json.dumps(votes, ensure_ascii=False),
    )


def vote_text(cell: Any) -> str:
    """Write a value as the text by which votes are counted; a text stays as it is.

    Examples
    --------
    >>> vote_text("red"), vote_text(2.0), vote_text(None), vote_text({"b": 1.0, "a": 2.5})
    ('red', '2', 'null', '{"a": 2.5, "b": 1}')
    """
    if isinstance(cell, str):
        return cell
    return json.dumps(_whole_numbers(cell), sort_keys=True, ensure_ascii=False, default=str)


def _whole_numbers(value: Any) -> Any:
    """Make whole floats ints: 2.0 of a number field and 2 of an integer field are one answer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_whole_numbers(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _whole_numbers(item) for name, item in value.items()}
    return value
