"""The null policy sees a null wherever it enters, not only where it is printed."""

from __future__ import annotations

import pandas as pd
import pytest

from frameenrich.errors import NullValueError, TemplateError
from frameenrich.model import Message, OnNull
from frameenrich.rendering.prompt import Prompt

FRAME = pd.DataFrame({"price": [2.5, None], "title": ["mug", None]})


def rendered(source: str, on_null: OnNull = "raise", rendering: int = 2) -> list[str | None]:
    """Each row's text."""
    prompt = Prompt((Message("user", source),), on_null, rendering=rendering)
    return [text for (texts,) in prompt.render_texts(FRAME) for text in texts]


@pytest.mark.parametrize(
    ("source", "first", "empty"),
    [
        ("{{ price|int }}", "2", ""),
        ("{{ price|float }}", "2.5", ""),
        ("{{ price|round }}", "2.0", ""),
        ("{{ price|abs }}", "2.5", ""),
        ("{{ [title, 'a']|join('-') }}", "mug-a", "-a"),
        ("{{ 'dear' if price > 1 else 'cheap' }}", "dear", "cheap"),
        ("{{ 'cheap' if 0 < price <= 3 else 'dear' }}", "cheap", "dear"),
        ("{{ 'u' in title }}", "True", "False"),
        ("{{ price + 1 }}", "3.5", ""),
        ("{{ -price }}", "-2.5", ""),
        ("{{ (price * 2)|int }}", "5", ""),
    ],
)
def test_a_null_that_enters_is_seen_by_the_policy(source: str, first: str, empty: str) -> None:
    """Refused with its row and column, left out, or nothing made of it: never a silent 0."""
    with pytest.raises(NullValueError, match="position 1 would print a null: column '"):
        rendered(source)
    assert rendered(source, "skip") == [first, None]
    assert rendered(source, "empty") == [first, empty]


@pytest.mark.parametrize(
    ("source", "second"),
    [
        ("{{ price == 2.5 }}", "False"),
        ("{{ price is none }}", "True"),
        ("{{ price|int(0) }}", "0"),
        ("{{ (price or 0)|int }}", "0"),
        ("{{ title in ['mug', none] }}", "True"),
        ("{% if price and price > 1 %}dear{% endif %}", ""),
    ],
)
def test_what_says_what_a_null_is_stays_as_it_is(source: str, second: str) -> None:
    """Equality, tests, and defaults that were written."""
    for policy in ("raise", "skip", "empty"):
        assert rendered(source, policy)[1] == second


def test_a_mistake_that_has_nothing_to_do_with_nulls_stays_a_mistake() -> None:
    """Though the row has one."""
    with pytest.raises(TemplateError, match="position 0"):
        rendered("{{ title + 1 }}")


def test_an_older_job_is_rendered_as_it_was() -> None:
    """Promise 14: what earlier versions made of a null is what their jobs are matched by."""
    assert rendered("{{ price|int }}", rendering=1) == ["2", "0"]


def test_a_preview_says_which_rows_of_all_would_print_a_null() -> None:
    """How many, which column, and the first of them, also beyond the rows that it shows."""
    frame = pd.DataFrame({"title": ["a"] * 50, "brand": ["x"] * 10 + [None] * 40})

    shown = frame.llmbatch.preview("{{ title }} {{ brand }}", "m")
    assert shown.nulls is not None
    assert "null: 10, 11, 12, 13, 14, ... ('brand' is empty in 40)" in str(shown)
    assert "submit refuses" in str(shown)
    skipped = frame.llmbatch.preview("{{ title }} {{ brand }}", "m", on_null="skip")
    assert "are not sent" in str(skipped)
    assert frame.llmbatch.preview("{{ title }} {{ brand or 'none' }}", "m").nulls is None
    with pytest.raises(NullValueError, match=r"In all, 40 rows would print a null"):
        frame[::-1].llmbatch.preview("{{ brand }}", "m")


@pytest.mark.parametrize("template", ["{{ title }} {{ none }}", "{{ size.cm }}"])
def test_a_null_of_no_column_is_not_counted_as_none(template: str) -> None:
    """It said "In all, None."; which columns are empty is nothing to say where none is."""
    frame = pd.DataFrame({"title": ["a"], "size": [{"cm": None}]})

    with pytest.raises(NullValueError) as caught:
        frame.llmbatch.preview(template, "m")
    assert "Row 0 would print a null" in str(caught.value)
    assert "In all" not in str(caught.value)
