"""Find what a sheet holds that its values do not show: formulas without one, merged cells and such.

Readers of workbooks give values alone, so a cell that has none there looks like an empty one. This
reads the sheet's own XML, in which all of that stands.
"""

from __future__ import annotations

import html
import re
import zipfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO

_CELL = re.compile(rb"<c\s([^>/]*)>(.*?)</c>", re.DOTALL)
_ROW = re.compile(rb"<row\s([^>]*)>")
_MERGED = re.compile(rb'<mergeCell\s[^>]*?ref="([^"]*)"')
_ATTRIBUTE = re.compile(rb'([\w:]+)="([^"]*)"')
_VALUE = re.compile(rb"<v[^>/]*>[^<]")
_MOST = 1_000
"""So many cells of a kind are counted; a message names the first of them."""

_MOST_BYTES = 512 << 20
"""A million rows of ten columns take half of it; a small file may unpack to any size."""


def sheet_notes(file: IO[bytes], sheet: str) -> Iterator[str]:
    """Yield a sentence on each kind of cell of an .xlsx that is not read as a person sees it.

    Parameters
    ----------
    file : binary file
        The workbook; it stays open.
    sheet : str
        The name of the sheet that is read.
    """
    if not zipfile.is_zipfile(file):  # .xls, which is no archive
        return
    with zipfile.ZipFile(file) as packed:
        path = _path_of(packed, sheet)
        if path is None:
            return
        xml = _part(packed, path)
    # Most sheets hold neither a formula nor an error: a search of the bytes spares them every cell.
    odd = b"<f" in xml or b't="e"' in xml
    cells = [(_named(found[1]), found[2]) for found in _CELL.finditer(xml)] if odd else []
    # A formula that came to an empty text is stored with that type, and truly has no value.
    bare = (
        at.get("r", "?")
        for at, content in cells
        if b"<f" in content and at.get("t") != "str" and not _VALUE.search(content)
    )
    yield from _said(
        bare,
        "formulas without a stored value are read as empty: {}",
        "Open the workbook in a spreadsheet program and save it, which stores the values.",
    )
    yield from _said(
        (at.get("r", "?") for at, _ in cells if at.get("t") == "e"),
        "cells that show an error, such as #N/A, are read as empty: {}",
        "Correct their formulas, or mind the empty cells.",
    )
    yield from _said(
        (found[1].decode() for found in _MERGED.finditer(xml)),
        "merged cells have a value in the first of them only: {}",
        "Unmerge them and fill the cells if each row is to have the value.",
    )
    hidden = (at.get("r", "?") for at in map(_named, _ROW.findall(xml)) if _is_hidden(at))
    yield from _said(
        hidden,
        "hidden rows are read like the others: row {}",
        "Copy the visible rows to another sheet if only those are meant.",
    )


def _is_hidden(attributes: dict[str, str]) -> bool:
    return attributes.get("hidden") in {"1", "true"}


def _said(found: Iterable[str], what: str, fix: str) -> Iterator[str]:
    names = list(islice(found, _MOST + 1))
    if not names:
        return
    count = f"over {_MOST:,}" if len(names) > _MOST else f"{len(names) - 1:,}"
    more = f" and {count} more" if len(names) > 1 else ""
    yield f"{what.format(names[0])}{more}. {fix}"


def _path_of(packed: zipfile.ZipFile, sheet: str) -> str | None:
    """Return the part of the archive that holds a sheet; None where there is none, as in .ods."""
    try:
        book = _part(packed, "xl/workbook.xml")
        relations = _part(packed, "xl/_rels/workbook.xml.rels")
    except KeyError:
        return None
    sheets = map(_named, re.findall(rb"<sheet\s([^>]*)>", book))
    own = next((at.get("r:id") for at in sheets if at.get("name") == sheet), None)
    parts = map(_named, re.findall(rb"<Relationship\s([^>]*)>", relations))
    target = next((at.get("Target") for at in parts if own and at.get("Id") == own), None)
    if target is None:
        return None
    path = target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
    return path if path in packed.namelist() else None


def _part(packed: zipfile.ZipFile, path: str) -> bytes:
    """Return a part of the archive; nothing of one that is larger than any sheet."""
    # `zipfile` unpacks no more than the size that stands there.
    return b"" if packed.getinfo(path).file_size > _MOST_BYTES else packed.read(path)


def _named(attributes: bytes) -> dict[str, str]:
    """Return an element's attributes.

    Examples
    --------
    >>> _named(b'r="C2" t="e"')
    {'r': 'C2', 't': 'e'}
    """
    found = _ATTRIBUTE.findall(attributes)
    return {name.decode(): html.unescape(value.decode("utf-8", "replace")) for name, value in found}
