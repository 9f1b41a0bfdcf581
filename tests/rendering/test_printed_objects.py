"""Promise 9: what has no text for a model is not printed into a prompt, but told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from frameenrich import llmbatch
from frameenrich.errors import TemplateError

FRAME = pd.DataFrame(
    {
        "title": ["Red mug"],
        "tags": [["a", "b"]],
        "self": ["x"],
        "thing": [object()],
        "f": [len],
        "raw": [b"Red mug"],
        "size": [{"cm": 5}],
    }
)


@pytest.mark.parametrize("on_null", ["raise", "empty", "skip"])
@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ title.upper }}", "prints the function 'upper' instead of what it returns on row 0"),
        ("{{ title.upper ~ '!' }}", "Write () behind its name."),
        ("{{ title }} {{ f }}", "prints the function 'len'"),
        ("{{ tags | map('upper') }}", "Write | join(', ') behind it."),
        ("{{ title }} {{ self }}", "Write row['self'] for the column."),
        ("{{ thing }}", "prints a value of the type 'object', which has no text, on row 0"),
        (
            "{{ raw }}",
            "prints raw bytes in Python's own words on row 0. Write .decode() behind it.",
        ),
        ("{{ size.keys() }}", "prints the names of a dict in Python's own words on row 0."),
        ("{{ title }}{{ range(3) }}", "prints a range in Python's own words"),
        ("{{ [title, raw] }}", "prints raw bytes in Python's own words on row 0. Write .decode()"),
        ("{{ {'a': ([1.5], [(raw,)])} }}", "prints raw bytes in Python's own words on row 0."),
        ("{{ tags ~ [title.upper] }}", "prints the function 'upper'"),
        ("{% include title %}", "takes in another one, whose name is computed, and each has to"),
        ("{{ title }}{% include 'a.j2' ignore missing %}", "takes in another one, 'a.j2', and"),
        ("{{ title }}{% include ['a.j2', title] ignore missing %}", "takes in another one, "),
        ("{% import 'a.j2' as a %}{{ title }}", "takes in another one, 'a.j2', and each has"),
        ("{% from 'a.j2' import m %}{{ title }}", "takes in another one, 'a.j2', and each has"),
        ("{% extends 'a.j2' %}{% block b %}{{ title }}{% endblock %}", "another one, 'a.j2', and"),
        ("{{ title }}{% include 'rules.j2' %}", "takes in another one, 'rules.j2', and each has"),
        ("{% macro m() %}x{% endmacro %}{{ title }}{{ m }}", "prints the function 'm'"),
    ],
)
def test_what_prints_as_an_address_is_told(
    template: str, told: str, on_null: str, store: Path
) -> None:
    """Each row would send other words in each session, and none that the column holds."""
    with pytest.raises(TemplateError) as caught:
        llmbatch(FRAME).submit(template, "m", on_null=on_null, provider="file", store=store)

    assert told in str(caught.value)
    assert "Red mug" not in str(caught.value)
    assert not any(store.glob("*/sidecar.parquet"))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ title.upper() }}", "RED MUG"),
        ("{{ tags | map('upper') | join(', ') }}", "A, B"),
        ("{{ tags | map('upper') | list }}", "['A', 'B']"),
        ("{{ title | reverse }}", "gum deR"),
        ("{% for tag in tags | map('upper') %}{{ tag }}{% endfor %}", "AB"),
        ("{{ row['self'] }}", "x"),
        ("{{ raw.decode() }}", "Red mug"),
        ("{{ size.keys() | join(', ') }}", "cm"),
    ],
)
def test_what_gives_a_text_prints_it(template: str, text: str) -> None:
    """As what the errors say to write."""
    assert f"[user] {text}\n" in str(llmbatch(FRAME).preview(template, "m"))


def test_a_sparse_column_prints_as_a_dense_one() -> None:
    """A zero that is not stored, and a null, print and count as they do elsewhere."""
    for cells in ([0.0, 1.5, 2.0], [0, 3, 0]):
        frame = pd.DataFrame({"c": cells})
        sparse = frame.astype(pd.SparseDtype(frame["c"].dtype, 0))
        shown = [str(llmbatch(each).preview("{{ c }}", "m")) for each in (frame, sparse)]
        assert shown[0] == shown[1]


@pytest.mark.parametrize("kind", [list, pd.Series, pd.Index, pd.Categorical, np.array, pd.array])
def test_labels_may_be_what_a_column_gives(kind: Any, store: Path) -> None:
    """As `df["kind"].unique()` does, whatever the column's type."""
    frame = llmbatch(FRAME[["title"]])
    ask: dict[str, Any] = {"provider": "file", "store": store}

    job = frame.submit("{{ title }}", "m", labels=kind(["a", "b"]), **ask)

    assert job.id == frame.submit("{{ title }}", "m", labels=["a", "b"], **ask).id
