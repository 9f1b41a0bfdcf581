"""The exception tree: what its docstring draws is what there is, and messages say what to do."""

from __future__ import annotations

import pickle
import re
from typing import Any

import pytest

import frameenrich
from frameenrich import errors
from frameenrich.errors import FrameEnrichError

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, FrameEnrichError)
]


def drawn_parents() -> dict[str, str]:
    """Return each drawn class's parent, read from the tree's indentation."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            path = [*path[:depth], found[2]]
            parents[found[2]] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_drawn_tree_is_the_real_one() -> None:
    """Every exception stands in the docstring's tree, under its own base."""
    expected = {each.__name__: each.__bases__[0].__name__ for each in CLASSES}

    actual = drawn_parents()

    assert expected == actual


@pytest.mark.parametrize("kind", CLASSES)
def test_a_message_is_the_problem_and_the_fix(kind: type[FrameEnrichError]) -> None:
    """An error reads as two sentences and keeps what they talk about."""
    error = kind("Row 4 is bad.", "Mend it.", position=4)

    assert (str(error), vars(error)["position"]) == ("Row 4 is bad. Mend it.", 4)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_survives_another_process(kind: type[FrameEnrichError]) -> None:
    """An error that comes back from a worker process has its class, text and attributes."""
    error = kind("Row 4 is bad.", "Mend it.", columns=["a"])

    again = pickle.loads(pickle.dumps(error))

    assert (kind, str(error), vars(error)) == (type(again), str(again), vars(again))


@pytest.mark.parametrize("folder", ["/a/lib/python3.12/site-packages", "/usr/lib/dist-packages"])
def test_a_package_of_an_environment_below_is_nobodys_line(folder: str) -> None:
    """An environment may lie over others (`uv run --with`): what they hold is installed, too."""

    def fail() -> None:
        raise FrameEnrichError("Row 4 is bad.", "Mend it.")

    library: dict[str, Any] = {}
    exec(compile("def call(f): f()", f"{folder}/shell.py", "exec"), library)
    with pytest.raises(FrameEnrichError) as caught:
        library["call"](fail)
    shown = "".join(caught.value._render_traceback_())

    assert __file__ in shown
    assert "shell.py" not in shown


def test_the_public_names_are_there() -> None:
    """Every name of ``frameenrich.__all__`` can be had, and no other is invented."""
    for name in frameenrich.__all__:
        assert getattr(frameenrich, name) is not None
    with pytest.raises(AttributeError, match="has no 'nothing'"):
        _ = frameenrich.nothing  # type: ignore[attr-defined]  # the point
