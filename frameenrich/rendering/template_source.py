"""Read templates: text, files and lists of messages."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frameenrich.errors import TemplateError
from frameenrich.model import Message
from frameenrich.text import kind_of

Template = str | Path | Sequence[Mapping[str, str]]


# One word that ends as template files do; no prompt does.
_FILE_NAME = re.compile(r"[^\s{}]+\.(?:j2|jinja2?|tmpl|tpl|txt|md|prompt)", re.IGNORECASE)


_ROLES = ("system", "developer", "user", "assistant")


def read_template(
    template: Template, system: str | None
) -> tuple[tuple[Message, ...], dict[str, str]]:
    """Read the messages of a prompt, and the templates that a file includes.

    Raises
    ------
    TemplateError
        It is empty, cannot be read, or is no list of role and content.
    """
    sources: dict[str, str] = {}
    if isinstance(template, Path):
        text = _read_file(template)
        sources = _included(text, template.parent)
        messages = [Message("user", text)]
    elif isinstance(template, str):
        _refuse_file_name(template)
        messages = [Message("user", template)]
    elif isinstance(template, list | tuple):
        messages = [_message(item) for item in template]
    else:
        raise TemplateError(
            f"The template is {kind_of(template)}.",
            "Give Jinja2 text, a Path to a template file, or a list of messages.",
        )
    if system is not None:
        messages.insert(0, _message({"role": "system", "content": system}))
    if not messages or not any(message.content.strip() for message in messages):
        raise TemplateError("The template is empty.", "Write what each row should ask.")
    return tuple(messages), sources


def _message(item: Any) -> Message:
    if isinstance(item, Mapping) and set(item) == {"role", "content"}:
        role, content = item["role"], item["content"]
        if role in _ROLES and isinstance(content, str):
            return Message(role, content)
    raise TemplateError(
        f"A message of the template is {item!r}.",
        'Write each as {"role": "user", "content": "... {{ column }} ..."}; '
        f"the roles are {', '.join(_ROLES)}.",
    )


def _refuse_file_name(template: str) -> None:
    """Refuse a text that names a file: each row would send the model that name."""
    text = template.strip()
    if not text or "{" in text:
        return  # a placeholder: this is a template
    if os.path.isfile(template):
        raise TemplateError(
            f"The template {template!r} is the name of a file.",
            f"Pass pathlib.Path({template!r}) to read it.",
        )
    if _FILE_NAME.fullmatch(text):
        raise TemplateError(
            f"The template {template!r} looks like the name of a file, which is not there.",
            f"Pass pathlib.Path(...) with the whole path; the working folder is {os.getcwd()!r}.",
        )


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        fix = "Check the path." if isinstance(error, OSError) else "Save it as UTF-8."
        raise TemplateError(
            f"The template {path} cannot be read: {reason}.", fix, path=str(path)
        ) from None


def _included(text: str, folder: Path) -> dict[str, str]:
    """Read the templates that a file refers to, by name, so that the job needs no file later."""
    import jinja2  # noqa: PLC0415 - used by this one function here
    from jinja2 import meta  # noqa: PLC0415

    sources: dict[str, str] = {}
    waiting = [text]
    while waiting:
        try:
            tree = jinja2.Environment(autoescape=False).parse(waiting.pop())  # noqa: S701 - text
        except jinja2.TemplateSyntaxError:
            continue  # said properly, with its line, when the prompt is compiled
        for name in meta.find_referenced_templates(tree):
            if name is None:  # Jinja's answer for `{% include some_variable %}`
                raise TemplateError(
                    "The template includes a file whose name is computed.", "Write the name out."
                )
            path = (folder / name).resolve()
            # Compare resolved paths: no "..", absolute name or symbolic link may lead outside.
            if name not in sources:
                if folder.resolve() not in path.parents:
                    raise TemplateError(
                        f"The template includes {name!r}, which lies outside {folder}.",
                        "Keep included templates beside the template.",
                    )
                sources[name] = _read_file(path)
                waiting.append(sources[name])
    return sources
