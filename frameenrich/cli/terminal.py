"""Output of the command line: messages, and tables on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import typer

from frameenrich.text import escaped, one_line


def say(text: str) -> None:
    """Print a message to standard error."""
    typer.echo(escaped(text), err=True)


def print_text(text: str) -> None:
    """Print what was asked for; it may quote models and servers, whose words drive no terminal."""
    typer.echo(escaped(text))


def print_result(facts: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print a command's result: as JSON for other programs, or as text for people."""
    print_text(as_line(facts) if as_json else text)


def as_line(value: Mapping[str, Any]) -> str:
    """Encode a value as JSON for other programs, on one line."""
    return json.dumps(value, ensure_ascii=False)


def counted(count: int, noun: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> counted(1, "row"), counted(1_200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


_NARROWEST_COLUMN = 14
"""Columns of longer cells are folded, to no less than this, or words would break into letters."""


def print_rows(heads: Sequence[str], rows: Iterable[Sequence[str]], *, file: IO[str]) -> None:
    """Print a table on a terminal, tab-separated lines elsewhere."""
    # Cells may hold a model's text: no line breaks, tabs or terminal codes may get through.
    shown = [[one_line(str(cell)) for cell in row] for row in rows]
    if not file.isatty():
        for row in [heads, *shown]:
            typer.echo("\t".join(row).rstrip("\t"), file=file)
        return
    from rich import box  # noqa: PLC0415 - not where nobody looks
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=file)
    widths = [max(map(len, cells)) for cells in zip(heads, *shown, strict=True)]
    # The first is a name to be copied, and half a number is another number: neither is folded.
    whole = [i == 0 or width <= _NARROWEST_COLUMN for i, width in enumerate(widths)]
    least = [width if own else _NARROWEST_COLUMN for width, own in zip(widths, whole, strict=True)]
    if console.width < sum(least) + 2 * len(heads):  # two blanks between columns
        _print_records(heads, shown, console)
        return
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for head, own in zip(heads, whole, strict=True):
        table.add_column(head, no_wrap=own, overflow="fold")
    for row in shown:
        table.add_row(*map(Text, row))  # a plain str would be read as rich markup
    console.print(table)


def _print_records(heads: Sequence[str], rows: Sequence[Sequence[str]], console: Any) -> None:
    """Show each row as lines of name and value, for a terminal too narrow for a table."""
    from rich.table import Table  # noqa: PLC0415 - not where nobody looks
    from rich.text import Text  # noqa: PLC0415

    for row in rows:
        record = Table.grid(padding=(0, 2, 0, 0))
        record.add_column(no_wrap=True)
        record.add_column(overflow="fold")
        for head, cell in zip(heads, row, strict=True):
            if cell:
                record.add_row(Text(head, style="dim"), Text(cell))
        console.print(record)
        console.print()
