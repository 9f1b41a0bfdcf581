"""Check that an argument is of the kind that its name says, before anything is done with it.

An argument of one name is of one kind in every verb, so a table of names is enough. What a value
may be beyond its kind (a known word, a price) is checked where it is used.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class _Kind:
    """A test for values, what a value that fails it is not, and how one is written."""

    takes: Callable[[Any], bool]
    word: str
    example: str


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_duration(value: Any) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and not math.isnan(value) and value >= 0


_FLAG = _Kind(lambda value: isinstance(value, bool), "True or False", "True")
_TEXT = _Kind(lambda value: isinstance(value, str), "a text", "'...'")
_WHOLE = _Kind(_is_whole, "a whole number", "3")
_COUNT = _Kind(lambda value: _is_whole(value) and value >= 0, "a whole number from 0 on", "3")
_SECONDS = _Kind(_is_duration, "a number of seconds from 0 on", "60")
_SHARE = _Kind(
    lambda value: isinstance(value, numbers.Real) and not isinstance(value, bool),
    "a share",
    "0.95",
)


def _is_path(value: Any) -> bool:
    from frameenrich.text import is_encodable  # noqa: PLC0415 - `import frameenrich` needs it not

    # A path of bytes would pass `fspath`, and fail where its text is needed; so would half a
    # surrogate pair.
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    return isinstance(text, str) and is_encodable(text)


_PATH = _Kind(_is_path, "a path", "'...'")
_STORE = _Kind(
    lambda value: _is_path(value) or hasattr(value, "job_ids"), "a folder or a URL", "'...'"
)
_FRAME = _Kind(lambda value: isinstance(value, pd.DataFrame), "a DataFrame", "df")
_TEXTS = _Kind(
    lambda value: (
        isinstance(value, str) or (_is_list(value) and all(isinstance(each, str) for each in value))
    ),
    "a text or a list of texts",
    "'...'",
)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset | pd.Series | pd.Index | np.ndarray)


_NAMES: Mapping[_Kind, str] = {
    _FLAG: "blind dry_run feedback flatten force fresh logprobs overwrite probe remote usage wait",
    _TEXT: "completion_window endpoint image_detail json_mode on_bad_image on_null prefix reviewer",
    _WHOLE: "max_enqueued_tokens max_in_flight n requests_per_minute tokens_per_minute",
    _COUNT: "max_rounds part rows seed",
    _SECONDS: "poll_seconds request_timeout_seconds timeout",
    _SHARE: "level",
    _PATH: "image_root path which",
    _STORE: "store",
    _FRAME: "frame",
    _TEXTS: "custom_ids",
}


_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}


def plain(value: Any) -> Any:
    """Make Python's own value of a NumPy scalar, as a cell of a frame or a mean of a column is."""
    return value.item() if isinstance(value, np.generic) else value


def check_kind(name: str, value: Any, default: Any) -> None:
    """Refuse an argument of another kind than its name says; None passes where it is the default.

    Raises
    ------
    ParameterError
        The value is of another kind.

    Examples
    --------
    >>> check_kind("n", "3", 5)
    Traceback (most recent call last):
    frameenrich.errors.ParameterError: n= is '3', which is not a whole number. Write n=3.
    """
    kind = _KINDS.get(name)
    if kind is None or kind.takes(value) or (value is None and default is None):
        return
    from frameenrich.errors import ParameterError  # noqa: PLC0415 - only for a mistake
    from frameenrich.text import kind_of  # noqa: PLC0415

    fix = f"Write {name}={kind.example}" + (" or leave it out." if default is None else ".")
    if kind is _PATH and hasattr(value, "to_csv"):  # such as a filled-in review sheet
        fix = "Write it to a file, and give its name: frame.to_csv('review.csv', index=False)."
    raise ParameterError(f"{name}= is {kind_of(value)}, which is not {kind.word}.", fix)
