"""Fingerprints: a frame is said to be the one submitted only where it renders to the same texts."""

from __future__ import annotations

import enum
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from draws import examples
from hypothesis import example, given
from hypothesis import strategies as st

from frameenrich import open_job
from frameenrich.errors import FrameMismatchError
from frameenrich.identity import fingerprint as module
from frameenrich.identity.fingerprint import fingerprint
from frameenrich.model import Message
from frameenrich.rendering.prompt import Prompt

FEW = examples(40)
# What a template can tell of a cell: its text, its type, and whether it is there.
TELLING = (
    "{{ x is none }}{{ x is string }}{{ x is integer }}{{ x is float }}{{ x is boolean }}"
    "{{ x | default('', true) }}{% if x is not none %}|{{ x }}{% endif %}"
)


class Color(str, enum.Enum):  # noqa: UP042 - a StrEnum prints as the text it is
    """Is a text, and is printed as another."""

    RED = "red"


CELLS = st.sampled_from(
    [
        "", "a", "ab", "b", "1", "1.0", "True", "nan", "None", "é", "\x00", None, float("nan"),
        pd.NA, 0, 1, -1, True, False, 0.0, -0.0, 1.0, 1.5, Color.RED, "red", b"a", np.str_("a"),
        Decimal(1), "\ud83d",
    ]
)  # fmt: skip
DTYPES: list[Any] = [
    "object", "str", "string[python]", "string[pyarrow]", "category", "int8", "int64", "uint64",
    "Int64", "float16", "float32", "float64", "Float64", "bool", "boolean",
]  # fmt: skip


def texts(column: pd.Series[Any]) -> list[str]:
    """Return what a template can tell of each cell."""
    prompt = Prompt((Message("user", TELLING),))
    chunks = prompt.render(pd.DataFrame({"x": column}), lenient=True)
    return [repr(row) for chunk in chunks for row in chunk]


def columns(cells: list[Any]) -> list[pd.Series[Any]]:
    """Return the cells in each dtype that can hold them."""
    made = []
    for dtype in DTYPES:
        try:
            made.append(pd.Series(cells, dtype=object).astype(dtype))
        except (ValueError, TypeError, OverflowError):
            continue
    return made


@examples(8)  # each in every dtype
@given(st.lists(CELLS, max_size=3), st.lists(CELLS, max_size=3))
@example([1], ["1"])
@example([1, 0], [True, False])
@example([0.0], [-0.0])
@example(["ab", "c"], ["a", "bc"])
@example(["a", None], ["a", ""])
@example(["red"], [Color.RED])
@example(["a"], [b"a"])
def test_frames_with_one_fingerprint_render_alike(one: list[Any], other: list[Any]) -> None:
    """In whatever dtypes, columns of the same fingerprint are the same to every template."""
    found: dict[str, list[str]] = {}
    for column in [*columns(one), *columns(other)]:
        own = fingerprint(pd.DataFrame({"x": column}), ["x"])
        if own is not None:
            assert found.setdefault(own, texts(column)) == texts(column)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(["a", 1], dtype=object),
        pd.Series(["a", Color.RED], dtype=object),
        pd.Series([["a"]]),
        pd.Series(["\ud83d"], dtype=object),
        pd.Series(pd.Categorical(["a"])),
        pd.Series(pd.DatetimeIndex(["2024-01-01"])),
        pd.Series([1, None], dtype="Int64"),
        pd.Series([1.0], dtype=np.longdouble),
        pd.Series([1 + 2j]),
    ],
)
def test_other_kinds_have_none(column: pd.Series[Any]) -> None:
    """Where a cell's text is not plain to see, the frame is rendered to tell."""
    assert fingerprint(pd.DataFrame({"x": column}), ["x"]) is None


def test_a_repeated_name_has_none() -> None:
    """Two columns of one name are not one column."""
    assert fingerprint(pd.DataFrame([[1, 2]], columns=["x", "x"]), ["x"]) is None


def test_rows_columns_and_names_count() -> None:
    """A frame that was sorted, cut or renamed is another one; its index does not count."""
    frame = pd.DataFrame({"a": ["x", "y", None], "b": [1, 2, 3], "unused": [0, 0, 0]})
    names = ["a", "b"]
    own = fingerprint(frame, names)

    assert own == fingerprint(frame.set_index("unused").assign(new=1), names)
    others = [
        fingerprint(frame[::-1], names),
        fingerprint(frame[:2], names),
        fingerprint(frame.assign(b=[1, 2, 4]), names),
        fingerprint(frame.assign(a=["x", "y", ""]), names),
        fingerprint(frame, ["b", "a"]),
        fingerprint(frame.rename(columns={"b": "c"}), ["a", "c"]),
    ]
    assert len({own, *others}) == 7


@FEW
@given(st.lists(st.text(max_size=3) | st.none(), max_size=20), st.integers(1, 7))
def test_it_does_not_depend_on_how_texts_lie_in_memory(cells: list[str | None], rows: int) -> None:
    """Chunks, slices and storage are pandas' own business; long frames are read in blocks."""
    whole = pd.DataFrame({"x": pd.Series(cells, dtype="string[pyarrow]")})
    parts = [whole[start : start + rows] for start in range(0, len(whole), rows)]
    joined = pd.concat(parts) if parts else whole
    sliced = pd.concat([whole[:1], whole, whole[:1]])[1 : len(whole) + 1] if cells else whole

    found = {
        fingerprint(frame, ["x"])
        for frame in (whole, joined, sliced, whole.astype("string[python]"), whole.astype(object))
    }

    assert len(found) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ROWS", rows)
        found = {fingerprint(whole, ["x"]), fingerprint(joined, ["x"])}
    assert len(found) == 1


def test_the_sidecar_holds_it(tmp_path: Path) -> None:
    """`collect` on the very frame needs to render nothing; a changed one is refused as before."""
    frame = pd.DataFrame({"x": ["a", "b", None], "n": [1, 2, 3]})
    job = frame.llmbatch.submit("{{ x or n }}", "m", provider="file", store=tmp_path)

    metadata = pq.read_schema(f"{job.path}/sidecar.parquet").metadata

    assert metadata[b"frameenrich.fingerprint"].decode() == fingerprint(frame, ["x", "n"])
    for same in (frame, frame[::-1], frame.assign(n=["1", "2", "3"])):
        assert job.collect(same)["llmbatch_status"].tolist() == ["pending"] * 3
    with pytest.raises(FrameMismatchError, match="1 of the frame's rows changed"):
        job.collect(frame.assign(x=["a", "c", np.nan]))


def test_hashes_of_an_earlier_version_are_not_compared(tmp_path: Path) -> None:
    """A store that an earlier version wrote says so, instead of calling every row changed."""
    frame = pd.DataFrame({"x": ["a", "b"]})
    job = frame.llmbatch.submit("{{ x }}", "m", provider="file", store=tmp_path)
    path = f"{job.path}/sidecar.parquet"
    table = pq.read_table(path)
    metadata = {**table.schema.metadata}
    spec = json.loads(metadata[b"frameenrich.spec"])
    metadata[b"frameenrich.spec"] = json.dumps({**spec, "version": 1}).encode()
    pq.write_table(table.replace_schema_metadata(metadata), path)

    old = open_job(job.id, store=tmp_path)

    assert len(old.collect()) == 2
    with pytest.raises(FrameMismatchError, match="written by another version of frameenrich"):
        old.collect(frame)


def test_the_same_cells_under_keys_in_another_order_are_other_rows(tmp_path: Path) -> None:
    """The fingerprint knows no keys: with the index reversed every row would get another's answer.

    It counts only where the keys stand as they stood, not where there are as many (promise 2).
    """
    frame = pd.DataFrame({"x": ["a", "b", "c"]}, index=[0, 1, 2])
    frame.llmbatch.submit("{{ x }}", "m", provider="file", store=tmp_path)

    with pytest.raises(FrameMismatchError, match="2 of the frame's rows changed"):
        frame.set_axis([2, 1, 0]).llmbatch.collect(store=tmp_path)
