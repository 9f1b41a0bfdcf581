"""A cell that came back from a file is the answer it was, in whatever type the file gave it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from frameenrich.answers.same_value import same_value


@pytest.mark.parametrize(
    ("cell", "answer"),
    [
        ("Red mug", "Red mug"),
        ("a\r\nb", "a\nb"),
        ("'=1+1", "=1+1"),  # as --safe-csv quotes it
        (7, "007"),
        (7.0, "7"),
        (True, "true"),
        (np.bool_(False), "FALSE"),
        ("True", True),
        (1, True),
        ("2.50", 2.5),
        (0.1 + 0.2, 0.3),
        (None, float("nan")),
        (pd.NaT, None),
        (pd.Timestamp("2024-05-01"), "2024-05-01"),
        ('{"a": [1, 2]}', {"a": [1, 2]}),
        ("{'a': None}", {"a": None}),
        (np.array([1.0, 2.0]), [1, 2]),
        ({"a": 1, "b": None}, {"a": 1}),
    ],
)
def test_what_was_only_written_and_read_is_no_edit(cell: Any, answer: Any) -> None:
    """Nobody corrected it: a file has no better type for it."""
    assert same_value(cell, answer)


@pytest.mark.parametrize(
    ("cell", "answer"),
    [
        ("Red mugs", "Red mug"),
        ("red mug", "Red mug"),
        (True, "false"),
        (np.bool_(True), "yes"),
        (False, "true"),
        ("False", True),
        (8, "007"),
        ("2.51", 2.5),
        (None, "x"),
        ("x", None),
        ("", 0),
        (pd.Timestamp("2024-05-02"), "2024-05-01"),
        ('{"a": [1, 3]}', {"a": [1, 2]}),
        ("[1, 2", [1, 2]),
        ([1, 2, 3], [1, 2]),
        ({"a": 1, "b": 2}, {"a": 1}),
        ([1], {"a": 1}),
    ],
)
def test_what_somebody_changed_is_one(cell: Any, answer: Any) -> None:
    """A correction is never taken for the answer itself (promise 4)."""
    assert not same_value(cell, answer)
