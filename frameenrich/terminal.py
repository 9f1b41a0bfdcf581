"""What people see of the command line: messages, and tables where somebody looks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import typer

# Of what came from outside, nothing may move a terminal's cursor or turn its text around.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_SIZES = ("B", "kB", "MB", "GB", "TB")


def printable(text: str) -> str:
    r"""The text with control characters written out, but for line ends and tabs.

    Examples
    --------
    >>> printable("a\x1b[31mred\n")
    'a\\x1b[31mred\n'
    """
    return _UNPRINTABLE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def say(text: str) -> None:
    """A message, on standard error."""
    typer.echo(printable(text), err=True)


def size_text(size_bytes: float) -> str:
    """A size in bytes, in three digits.

    Examples
    --------
    >>> [size_text(n) for n in (0, 999, 1_500, 2_340_000, 71_000_000_000)]
    ['0 B', '999 B', '1.5 kB', '2.3 MB', '71 GB']
    """
    step = next(
        (i for i in range(len(_SIZES) - 1) if size_bytes < 999.5 * 1000**i), len(_SIZES) - 1
    )
    size = size_bytes / 1000**step
    digits = 1 if step and size < 9.95 else 0  # noqa: PLR2004 - 9.95 would be written as 10.0
    return f"{size:.{digits}f} {_SIZES[step]}"


def age_text(seconds: float) -> str:
    """How long ago something was, in its largest unit.

    Examples
    --------
    >>> [age_text(s) for s in (12, 90, 7_300, 200_000)]
    ['12 s', '1 min', '2 h', '2 d']
    """
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def as_line(value: Mapping[str, Any]) -> str:
    """JSON for other programs."""
    return json.dumps(value, ensure_ascii=False)


def print_rows(heads: Sequence[str], rows: Iterable[Sequence[str]], *, file: IO[str]) -> None:
    """A table where somebody looks; else tab-separated lines."""
    shown = [[" ".join(printable(str(cell)).split()) for cell in row] for row in rows]
    if not file.isatty():
        for row in [heads, *shown]:
            typer.echo("\t".join(row).rstrip("\t"), file=file)
        return
    from rich import box  # noqa: PLC0415 - not where nobody looks
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for i, head in enumerate(heads):
        table.add_column(head, no_wrap=i == 0, overflow="fold")  # the first is a name to be copied
    for row in shown:
        table.add_row(*map(Text, row))
    Console(file=file).print(table)
