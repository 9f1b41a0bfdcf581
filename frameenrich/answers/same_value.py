"""Compare a cell with an answer, after what files do to values on their way out and back."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from frameenrich.cells import is_null

_ULPS = 1e-12
"""How far a CSV reader may miss a float; relative."""


_NESTED = (list, tuple, dict, np.ndarray)


def same_value(cell: Any, answer: Any, *, as_json: bool = False) -> bool:
    """Tell whether a cell holds an answer, whatever file it has been through.

    A CSV makes text of numbers, lists and moments, and numbers of texts; Parquet makes arrays of
    lists and gives objects the keys of all rows. Nobody edited those. An answer in a column of JSON
    texts (``as_json``) is compared by its value: an earlier version's frame has it as an object.

    Examples
    --------
    >>> same_value(3.0, 3), same_value("True", True), same_value(7, "007")
    (True, True, True)
    >>> same_value("['a', 'b']", ["a", "b"]), same_value(np.array(["a"]), ["a"])
    (True, True)
    >>> same_value("blue", "red"), same_value("4", 3)
    (False, False)
    >>> same_value("{'a': 1}", '{"a":1}', as_json=True), same_value({"a": 1, "b": None}, '{"a":1}')
    (True, True)
    """
    if is_null(cell) or is_null(answer):
        return is_null(cell) and is_null(answer)
    if isinstance(answer, _NESTED):
        return _same_nested(_parsed(cell) if isinstance(cell, str) else cell, answer)
    # Before the numbers, as True is an int for Python.
    if isinstance(answer, bool | np.bool_):
        return cell == answer or str(cell).lower() == str(answer).lower()
    if isinstance(answer, int | float | np.number):
        number = _number(cell)
        return number is not None and math.isclose(number, float(answer), rel_tol=_ULPS)
    if isinstance(answer, str) and (as_json or isinstance(cell, _NESTED)):
        return _same_json(cell, answer)
    if isinstance(answer, str):
        return _same_text(cell, answer)
    return _same_moment(cell, answer)


def _same_text(cell: Any, answer: str) -> bool:
    if isinstance(cell, str):
        text = cell.replace("\r\n", "\n")
        return text in {answer, answer.replace("\r\n", "\n"), f"'{answer}"}  # --safe-csv's quote
    if isinstance(cell, bool | np.bool_):
        return answer.lower() == str(cell).lower()
    number = _number(answer)  # a CSV reader takes 007 for a number, and a date for a moment
    if isinstance(cell, int | float | np.number):
        return number is not None and math.isclose(float(cell), number, rel_tol=_ULPS)
    return _same_moment(cell, answer)


def _same_json(cell: Any, answer: str) -> bool:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):  # a text where somebody put a list, say
        value = answer
    if isinstance(cell, _NESTED):
        return isinstance(value, _NESTED) and _same_nested(cell, value)
    return _same_text(cell, answer) or same_value(cell, value)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _same_moment(cell: Any, answer: Any) -> bool:
    try:
        one, other = (pd.to_datetime(value, utc=True) for value in (cell, answer))
    except (TypeError, ValueError):
        return str(cell) == str(answer)
    return bool(one == other)


def _same_nested(cell: Any, answer: Any) -> bool:
    if isinstance(answer, Mapping):
        if not isinstance(cell, Mapping):
            return False
        names = {*cell, *answer}  # an absent key and a null are the same in Parquet
        return all(_same_nested(cell.get(name), answer.get(name)) for name in names)
    if isinstance(answer, list | tuple | np.ndarray):
        if not isinstance(cell, list | tuple | np.ndarray) or len(cell) != len(answer):
            return False
        return all(_same_nested(a, b) for a, b in zip(cell, answer, strict=True))
    return same_value(cell, answer)


def _parsed(text: str) -> Any:
    """Return a list or an object as a CSV has it: JSON, or as Python prints it."""
    # frameenrich writes JSON, pandas' to_csv what Python prints.
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
