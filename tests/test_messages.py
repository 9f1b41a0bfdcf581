"""Every message that a user can meet, printed for a person to read, and held to the rules.

A change of a message wants the page written anew; `WRITE` is the command.
"""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conftest import ROOT

from frameenrich import errors
from frameenrich.errors import FrameEnrichError

PAGE = Path(__file__).parent / "MESSAGES.md"
WRITE = "FRAMEENRICH_WRITE_MESSAGES=1 uv run pytest -n 0 tests/test_messages.py"
ERRORS = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, FrameEnrichError)
}
HEAD = """\
# What users are told

Each error of the package: what is wrong, and what to do. `{…}` stands for what is filled in.
Made by `tests/test_messages.py`; read it aloud before a release.
"""


@dataclass(frozen=True)
class Said:
    """One error as it stands in the source."""

    module: str
    error: str
    problem: str | None
    fix: str | None


def text_of(node: ast.expr | None) -> str | None:
    """Return a string expression with `{…}` for what is computed; None where all of it is."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else f"{{{filled(part)}}}"
            for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return f"{left or '{…}'}{right or '{…}'}" if left or right else None
    return None


def filled(part: ast.expr) -> str:
    """Return the expression of a placeholder, where it is short enough to be read."""
    source = ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""
    return source if len(source) <= 30 else "…"


@cache
def all_said() -> list[Said]:
    """Return every error that the package makes with sentences of its own."""
    said = []
    for path in sorted((ROOT / "frameenrich").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or len(node.args) < 2:
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else None
            if name in ERRORS:
                module = str(path.relative_to(ROOT))
                said.append(Said(module, str(name), text_of(node.args[0]), text_of(node.args[1])))
    return said


def page() -> str:
    """Return `MESSAGES.md` as the source has it now."""
    rows = [HEAD]
    module = ""
    for each in all_said():
        if each.module != module:
            module = each.module
            rows.append(f"\n## {module}\n")
        problem, fix = each.problem or "{…}", each.fix or "{…}"
        rows.append(f"- **{each.error}**: {problem} *{fix}*\n".replace("\n\n", " "))
    return "".join(rows)


def test_the_page_is_what_the_package_says() -> None:
    """Promise 9: whoever changes a message sees it beside the others."""
    if os.environ.get("FRAMEENRICH_WRITE_MESSAGES"):
        PAGE.write_text(page())

    assert len(all_said()) > 200
    assert PAGE.read_text() == page(), f"Messages changed; this writes the page: {WRITE}"


def test_an_error_says_what_and_what_to_do() -> None:
    """Promise 9: two sentences, each of which begins and ends as one."""
    begins = re.compile(r"[A-Z{'\"`\d(<\-$]|[a-z_]+[=(.]")

    odd = [
        sentence
        for each in all_said()
        for sentence in filter(None, (each.problem, each.fix))
        if sentence[-1] not in ".?!)}`'\"" or not begins.match(sentence)
    ]

    assert odd == []
