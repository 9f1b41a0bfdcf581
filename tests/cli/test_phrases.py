"""Promise 9: the command line speaks of flags and file lines, never of Python arguments."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

import frameenrich
from frameenrich.cli.phrases import in_flags
from frameenrich.prepare.submit_options import SubmitOptions

PACKAGE = Path(inspect.getfile(frameenrich)).parent
PYTHON_ONLY = {
    "accessor.py", "dask.py", "tables.py", "polars.py", "signatures.py",
    "job_of_frame.py",
}  # fmt: skip
"""Modules whose messages only calls from Python reach: doors, and what a Dask frame has learned."""


OBJECTS_ONLY = (
    "client= is", "google.genai.Client", "drawn=", "Both review= and", "tolerance=, match=",
    "provider= is a", "Interrupted; ", "meta={",
)  # fmt: skip
"""About objects that no flag can give, or excluded by the command before they are said."""


def words_of(node: ast.expr) -> str:
    """A message as it is written, with what stands for a value in place of the value."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(words_of, node.values))
    if isinstance(node, ast.FormattedValue):
        return "VALUE"
    if isinstance(node, ast.BinOp):
        return words_of(node.left) + words_of(node.right)
    if isinstance(node, ast.IfExp):
        return f"{words_of(node.body)} {words_of(node.orelse)}"
    return "VALUE"


def messages() -> Iterator[str]:
    """Every message of an error or a warning that the command line can show."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name in PYTHON_ONLY:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                name = ast.unparse(node.func)
                if name.endswith("Error") or name == "warn_user":
                    yield " ".join(words_of(each) for each in node.args[:2])


def test_every_message_is_one_of_the_command_line() -> None:
    """No argument and no verb of Python is left in any of them, nor a frame for a table."""
    known = "|".join(get_type_hints(SubmitOptions).keys() - {"params"})
    python = re.compile(
        rf"(?<![\w-])({known}|params|wait|overwrite|usage|job)=(?!=)|\b(job|df\.llmbatch|pathlib)\.\w+\("
        r"|\b(collect|submit|pilot)\(|\b[Tt]he frame\b"
    )
    found = [message for message in messages() if not any(own in message for own in OBJECTS_ONLY)]
    left = {message: said for message in found if python.search(said := in_flags(message))}

    assert len(found) > 200
    assert left == {}


@pytest.mark.parametrize(
    "own",
    [
        "The template uses 'x=1', and {% if brand=='a' %} is no text.",
        "Row 3: $.name: 'model.fit(params=grid)' is too long",
    ],
)
def test_what_a_template_or_an_answer_says_is_left_as_it_is(own: str) -> None:
    """Only what looks like an argument of ours is put into flags."""
    assert in_flags(own.replace("params=grid", "grid=1")) == own.replace("params=grid", "grid=1")
