"""Which rows of a job a frame's rows are, read of as little of the sidecar as possible."""

from __future__ import annotations

import pytest

from frameenrich.lifecycle.match import _groups_of


@pytest.mark.parametrize(
    ("part", "groups"),
    [(0, [0]), (1, [0, 1]), (2, [1, 2]), (3, [3])],
    ids=["within one", "over an edge", "to an edge", "the last"],
)
def test_a_part_is_searched_in_its_own_row_groups_first(part: int, groups: list[int]) -> None:
    """However the parts lie over the row groups, and no group more (promise 8)."""
    assert _groups_of([10, 10, 10, 5], [4, 10, 16, 5], part) == groups
