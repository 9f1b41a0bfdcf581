"""Put a codebook's definitions of the labels into the prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from frameenrich.errors import OutputError
from frameenrich.model import Message
from frameenrich.text import is_encodable

# Where Jinja2 would begin an expression, a statement or a comment.
_OPENING = re.compile(r"\{(?=[{%#])")


def check_definitions(codebook: Mapping[Any, Any]) -> None:
    """Refuse a codebook in which a label has no definition.

    Raises
    ------
    OutputError
        A definition is empty, no text, or cannot be sent.
    """
    for label, definition in codebook.items():
        if not isinstance(definition, str) or not definition.strip():
            raise OutputError(
                f"The label {str(label)!r} of labels= has no definition.",
                "Say in words what it means, or give labels= as a list.",
            )
        if not is_encodable(definition):
            raise OutputError(
                f"The definition of the label {str(label)!r} cannot be written as UTF-8.",
                "Correct it; nothing was sent.",
            )


def as_literal(text: str) -> str:
    r"""Return a template that renders to exactly this text, with its braces and last line end.

    Examples
    --------
    >>> as_literal("Write {{ title }}")
    "Write {{ '{' }}{ title }}"
    """
    escaped = _OPENING.sub("{{ '{' }}", text)
    return (
        f"{escaped}{{{{ '' }}}}" if escaped.endswith("\n") else escaped
    )  # Jinja drops a template's last line end


def with_definitions(
    messages: Sequence[Message], labels: Sequence[str], definitions: Sequence[str]
) -> tuple[Message, ...]:
    r"""Add the definitions at the end of the system message, or make one of them.

    They are text, not templates: braces are sent as written.

    Examples
    --------
    >>> (system, _) = with_definitions([Message("user", "{{ title }}")], ["a"], ["first"])
    >>> system
    Message(role='system', content='Labels:\n- a: first')
    """
    items = zip(labels, definitions, strict=True)
    # Indent a definition's later lines: one that begins with "- " would read as another label.
    rows = ("- {}: {}".format(*item).strip().replace("\n", "\n  ") for item in items)
    return with_system_text(messages, "\n".join(["Labels:", *rows]))


def with_system_text(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """Add a text, which is no template, at the end of the system message, or make one of it.

    Examples
    --------
    >>> with_system_text([Message("user", "{{ title }}")], "Be brief.")[0]
    Message(role='system', content='Be brief.')
    """
    # At the end of the system message: what all rows share comes first, so servers can cache it.
    source = as_literal(text)
    at = next((i for i, m in enumerate(messages) if m.role in {"system", "developer"}), None)
    if at is None:
        return (Message("system", source), *messages)
    own = messages[at]
    whole = Message(own.role, f"{own.content.rstrip()}\n\n{source}".lstrip("\n"))
    return (*messages[:at], whole, *messages[at + 1 :])
