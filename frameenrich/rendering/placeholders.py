"""Say what a template without any column probably meant, by the other ways to write one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from frameenrich.errors import TemplateError
from frameenrich.text import columns_text

# How other template languages write a placeholder: {title}, {title!r:>9}, {row['title']},
# %(title)s, ${title}, $title, <title>, [[title]], [title].
_OTHER_PLACEHOLDERS_EACH = tuple(
    map(
        re.compile,
        (
            r"(?<!\{)\$?\{\s*([^{}%\n]+?)\s*\}(?!\})",
            r"\$?\{\s*([^{}%\n!:=]+?)\s*(?:=|![rsa]|:[^{}\n]*)+\}",
            r"\{\s*\w+(?:\.|\[['\"])([^{}\n'\"]+?)(?:['\"]\])?\s*\}",
            r"%\(([^()\n]+)\)[sdrf]",
            r"\$(\w+)",
            r"<([^<>\n]+)>",
            r"\[+\s*([^\[\]\n]+?)\s*\]+",
        ),
    )
)


_OTHER_PLACEHOLDERS = re.compile("|".join(each.pattern for each in _OTHER_PLACEHOLDERS_EACH))


def no_column(sources: Sequence[str], columns: Sequence[Any]) -> TemplateError:
    """Return the error on templates that use no column; names the placeholder that was meant."""
    names = [str(column) for column in columns]
    meant = next((each for text in sources for each in _placeholders(text, names)), None)
    problem = "The template uses no column of the frame, so every row would ask the same."
    if meant is not None:
        written, name = meant
        return TemplateError(
            f"{problem[:-1]}: {written!r} is sent as it stands.",
            f"Did you mean {_placeholder(name)}?",
            columns=[name],
        )
    placeholder = _placeholder(names[0] if names else "column")
    return TemplateError(problem, f"Write a column as {placeholder}. {columns_text(names)}")


def _placeholders(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what is written like a placeholder and holds a column's name, and that name."""
    for found in _OTHER_PLACEHOLDERS.finditer(text):
        # `{title:>9}` reads as a column "title:>9", too: each form may have the name.
        readings = (form.fullmatch(found[0]) for form in _OTHER_PLACEHOLDERS_EACH)
        held = [each[1] for each in readings if each is not None]
        yield from ((found[0], name) for name in held if name in names)


def _placeholder(name: str) -> str:
    return f"{{{{ {name} }}}}" if name.isidentifier() else f"{{{{ row[{name!r}] }}}}"
