"""What holds for the tests themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import LONGEST_ID, ROOT


def test_no_test_is_named_by_a_long_text(request: pytest.FixtureRequest) -> None:
    """Names are the same in every process, or pytest-xdist refuses to begin."""
    cases = [item.name.partition("[") for item in request.session.items]

    assert [name for name, _, case in cases if len(case) > 3 * LONGEST_ID] == []


def test_tests_mirror_the_folders_of_the_package() -> None:
    """Whoever changes a folder finds its tests under the same name."""
    folders = {path.parent.name for path in Path(ROOT, "tests").glob("*/test_*.py")}

    assert (
        sorted(folder for folder in folders if not Path(ROOT, "frameenrich", folder).is_dir()) == []
    )
