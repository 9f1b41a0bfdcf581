"""What holds for the tests themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import LONGEST_ID, ROOT


@pytest.mark.parametrize("content", [os.urandom(LONGEST_ID + 1)])
def test_no_test_is_named_by_a_long_text(content: bytes, request: pytest.FixtureRequest) -> None:
    """Names are the same in every process, or pytest-xdist refuses to begin."""
    assert request.node.name.endswith("[content]")


def test_tests_mirror_the_folders_of_the_package() -> None:
    """Whoever changes a folder finds its tests under the same name."""
    folders = {path.parent.name for path in Path(ROOT, "tests").glob("*/test_*.py")}

    assert (
        sorted(folder for folder in folders if not Path(ROOT, "frameenrich", folder).is_dir()) == []
    )
