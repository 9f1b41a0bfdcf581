"""Find the images of a cell that holds several: a list, an array, or a list as text."""

from __future__ import annotations

import ast
import json
from typing import Any

import numpy as np

from frameenrich.cells import is_null


def images_in(cell: Any) -> list[Any]:
    """Return what a cell holds, in order and without its nulls; a plain cell is a list of one.

    Examples
    --------
    >>> images_in("a.png"), images_in(["a.png", None, "b.png"]), images_in('["a.png", "b.png"]')
    (['a.png'], ['a.png', 'b.png'], ['a.png', 'b.png'])
    >>> images_in(""), images_in([])
    ([], [])
    """
    if isinstance(cell, str):
        cell = _list_of_text(cell.strip()) or cell
    several = isinstance(cell, list | tuple)
    if isinstance(cell, np.ndarray):  # one of numbers may be meant as pixels: refused as it is
        several = cell.ndim == 1 and cell.dtype.kind in "OUST"
    items = cell if several else [cell]
    # A CSV makes no difference between an empty text and a null.
    return [i for i in items if not (is_null(i) or (isinstance(i, str) and not i.strip()))]


def _list_of_text(text: str) -> list[Any] | None:
    """Return the list that a text spells; None where it spells none, such as a file's name."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    # pandas writes lists into a CSV as Python spells them, others as JSON.
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(is_null(item) or type(item) is str for item in found):
            return found
    return None
