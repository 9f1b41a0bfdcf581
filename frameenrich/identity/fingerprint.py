"""Recognize a frame that was submitted, row for row, by its cells: nothing is rendered.

It says so only of columns whose cells a template sees as plain text, whole numbers, floats or
booleans. There the same cells render to the same text. Everything else has to be rendered to tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import xxhash

from frameenrich.model import HASHES

_BLOCK_ROWS = 1 << 15


_KINDS = {"i": "int", "u": "unsigned", "b": "bool", "f": "float"}


_NUMBER_BYTES = 8


_TEXT = "text"


def fingerprint(frame: pd.DataFrame, columns: Sequence[Any], version: int = HASHES) -> str | None:
    """Return a text that two frames share only if these columns have equal cells, row for row.

    Parameters
    ----------
    frame : DataFrame
        The frame; its index does not count.
    columns : sequence
        Which of its columns count; their order does, too.
    version : int
        Of the job's hashes: older ones had XXH3.

    Returns
    -------
    str or None
        None where some column is of another kind, or has a name that stands twice.

    Examples
    --------
    >>> a, b = pd.DataFrame({"n": [1, 2]}), pd.DataFrame({"n": [1.0, 2.0]})
    >>> fingerprint(a, ["n"]) == fingerprint(a.astype("int8"), ["n"])
    True
    >>> fingerprint(a, ["n"]) == fingerprint(b, ["n"])
    False
    """
    begin: Any = sha256 if version == HASHES else xxhash.xxh3_128
    whole = begin(f"{len(frame)}".encode())
    for name in columns:
        cells = frame[name]
        kind = _kind(cells) if isinstance(cells, pd.Series) else None
        if kind is None:
            return None
        # The kind counts: 1 and 1.0 are equal for pandas, and a template prints them differently.
        whole.update(f"\n{kind} {name!r}\n".encode("utf-8", "backslashreplace"))
        try:
            for piece in _pieces(cells, kind):
                whole.update(piece)
        except (UnicodeEncodeError, pa.ArrowException):  # half an emoji
            return None
    return str(whole.hexdigest())


# Only plain cells: of these the same ones render to the same text. Whatever differs, be it a
# dtype, gives None, and the frame is compared by its rendered texts.
def _kind(cells: pd.Series) -> str | None:
    """Name what a template sees in each cell but nulls; None where that is not one plain type."""
    own: Any = cells.dtype
    if isinstance(own, pd.StringDtype) and own.storage == "pyarrow":
        return _TEXT
    if isinstance(own, pd.StringDtype) or own == np.dtype("O"):  # which may hold kinds of str
        # Most columns hold str and None alone, and need no mask of their nulls.
        alone = set(map(type, cells.to_numpy())) <= {str, type(None)}
        return _TEXT if alone or set(map(type, cells[cells.notna()])) <= {str} else None
    # A long double is wider: two of its values can be one float64.
    plain = isinstance(own, np.dtype) and own.itemsize <= _NUMBER_BYTES
    return _KINDS.get(own.kind) if plain else None


def _pieces(cells: pd.Series, kind: str) -> Iterator[Any]:
    for start in range(0, len(cells), _BLOCK_ROWS):
        block = cells.iloc[start : start + _BLOCK_ROWS]
        if kind == _TEXT:
            yield from _text_pieces(block)
        else:
            yield _numbers(block.to_numpy())


def _numbers(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Write each number in 8 bytes, whatever its width was."""
    if values.dtype.kind != "f":
        return values.astype("<u8" if values.dtype.kind == "u" else "<i8")
    floats = values.astype("<f8")
    floats[np.isnan(floats)] = np.nan  # which has many forms
    return floats


def _text_pieces(block: pd.Series) -> Iterator[Any]:
    """Yield the length of each text, -1 for a null, and then the texts."""
    texts = pa.array(block, pa.large_string(), from_pandas=True)
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    valid = texts.is_valid().to_numpy(zero_copy_only=False)
    # Arrow may have any bytes where a null is; an empty text has none.
    texts = texts.fill_null("")
    _, ends, data = texts.buffers()
    bounds = np.frombuffer(ends, "<i8")[texts.offset : texts.offset + len(texts) + 1]
    # The lengths first: "ab" and "c" have the same bytes as "a" and "bc".
    yield np.where(valid, np.diff(bounds), -1)
    if data is not None:
        yield memoryview(data)[bounds[0] : bounds[-1]]
