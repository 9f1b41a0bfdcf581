"""Columns that a parser makes: one dtype and one set of them for all parts."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from frameenrich.answers.parser_columns import ParserColumns
from frameenrich.errors import OutputError
from frameenrich.model import JobSpec

SPEC = JobSpec("answer", "m", ())


def part(**columns: list[Any]) -> dict[str, pd.Series]:
    """A part's columns, with the status behind them."""
    made = {name: pd.Series(cells).convert_dtypes() for name, cells in columns.items()}
    return {**made, "answer_status": pd.Series(["ok"] * len(next(iter(columns.values()))))}


def test_values_beside_columns_are_kept_in_every_part() -> None:
    """A parser that gives a dict for some rows and a text for others loses neither."""
    parts = [part(answer=["none"]), part(n=[1, None], answer=[None, "none"]), part(n=[2])]

    made = ParserColumns.learn(SPEC, parts, final=True)
    whole = pd.concat([pd.DataFrame(made.conform(each)) for each in parts])

    assert list(whole) == ["n", "answer", "answer_status"]
    assert whole["answer"].tolist()[::2] == ["none", "none"]
    assert whole["n"].dropna().tolist() == [1, 2]


def test_no_column_of_its_own_where_every_row_has_fields() -> None:
    """A part without a single dict does not add the job's own column."""
    made = ParserColumns.learn(SPEC, [part(answer=[None]), part(n=[1])], final=True)

    assert list(made.dtypes) == ["n"]


@pytest.mark.parametrize("final", [True, False])
def test_whole_numbers_become_fractions_where_that_was_learned(final: bool) -> None:
    """A part of whole numbers gets the dtype of all parts; no value changes by it."""
    made = ParserColumns.learn(SPEC, [part(n=[1]), part(n=[0.5])], final=final)

    assert made.conform(part(n=[3]))["n"].dtype == "Float64"


def test_what_the_first_part_did_not_show_is_refused() -> None:
    """A column, or a value that its dtype would change, is named with the way out."""
    made = ParserColumns.learn(SPEC, [part(n=[1])], final=False)

    with pytest.raises(OutputError, match="a column 'size'"):
        made.conform(part(size=[1]))
    with pytest.raises(OutputError, match=r"Column 'n' was Int64 in the first rows"):
        made.conform(part(n=[0.5]))
