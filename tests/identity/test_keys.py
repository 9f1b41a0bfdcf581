"""What names a row: keys are read, checked, named for the provider, and found again."""

from __future__ import annotations

import datetime as dt
import io
import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from draws import examples
from hypothesis import example, given
from hypothesis import strategies as st

from frameenrich.errors import RowKeyError
from frameenrich.identity.keys import (
    BLOCK_ROWS,
    check_keys,
    custom_ids,
    find_keys,
    key_names,
    key_texts,
    read_keys,
    show_key,
)

TAG = "3f9a1c"
FEW = examples(40)

INTS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(min_size=1, max_size=70)
DATES = st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1))
TIMES = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))  # noqa: DTZ001 - a naive index
# A CSV file keeps neither outer blanks nor carriage returns, and "1" or "NA" are no text in it.
CSV_TEXTS = st.text("abcXYZ_-/.;é ü'", min_size=1, max_size=12).map("k{}x".format)


def indexed(keys: list[Any] | pd.Index) -> pd.DataFrame:
    """Return a frame with these keys as its index."""
    index = keys if isinstance(keys, pd.Index) else pd.Index(keys)
    return pd.DataFrame({"n": range(len(index))}, index=index)


def through_csv(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame as another session reads it."""
    levels = list(range(frame.index.nlevels))
    text = frame.to_csv()
    return pd.read_csv(io.StringIO(text), index_col=levels if len(levels) > 1 else 0)


def unique(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Return lists of keys that name each row once."""
    return st.lists(values, min_size=1, max_size=12, unique=True)


# --- custom_ids -----------------------------------------------------------------------------------


@FEW
@given(unique(INTS) | unique(TEXTS) | unique(DATES) | unique(st.tuples(INTS, CSV_TEXTS)))
@example(["a\n", "a", "a ", "A"])
@example(["row-1", "1", "key-1"])
@example(["x" * 40, "x" * 41, "x" * 200])
@example(["key-a-b-a466dbda5ef6ed6cb47aebd5c9bd9f4c", "a/b"])
@example(["é", "ü", "日本語", "\U0001f600"])
def test_custom_ids_are_unique_and_every_provider_takes_them(keys: list[Any]) -> None:
    """Whatever the keys, ids are unique, short enough for ``r1-`` and a mark, and plain."""
    ids = custom_ids(read_keys(indexed(keys), None), TAG).to_pylist()

    assert len(set(ids)) == len(keys)
    assert [i for i in ids if not re.fullmatch(r"[A-Za-z0-9_-]{1,51}", i)] == []


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([42, -1], ["row-42-3f9a1c", "row--1-3f9a1c"]),
        (["B0CJHKVG6P", "a_b-c"], ["row-B0CJHKVG6P-3f9a1c", "row-a_b-c-3f9a1c"]),
    ],
)
def test_a_plain_label_is_seen_in_the_custom_id(keys: list[Any], expected: list[str]) -> None:
    """A person finds the row on the provider's page."""
    assert expected == custom_ids(read_keys(indexed(keys), None), TAG).to_pylist()


def test_other_labels_keep_what_can_be_read_of_them() -> None:
    """Dates, tuples and odd texts show a slug before their hash."""
    dates = read_keys(indexed([dt.date(2024, 5, 1)]), None)
    pairs = read_keys(indexed(pd.MultiIndex.from_tuples([("Bob's", 7)])), None)

    assert re.fullmatch(r"key-2024-05-01-[a-z2-7]{26}-3f9a1c", custom_ids(dates, TAG)[0].as_py())
    assert re.fullmatch(r"key-Bob-s-7-[a-z2-7]{26}-3f9a1c", custom_ids(pairs, TAG)[0].as_py())


def test_custom_ids_do_not_depend_on_the_other_rows() -> None:
    """A row keeps its id in a part of the frame, and in another session."""
    keys = read_keys(indexed(["a/b", "plain", "ü"]), None)

    assert [custom_ids(keys.slice(i, 1), TAG)[0] for i in range(3)] == list(custom_ids(keys, TAG))


# --- finding keys again ---------------------------------------------------------------------------


@FEW
@given(
    unique(INTS) | unique(TEXTS) | unique(DATES) | unique(TIMES) | unique(st.tuples(INTS, DATES)),
    st.randoms(use_true_random=False),
)
def test_each_key_is_found_after_shuffling(keys: list[Any], random: Any) -> None:
    """Sorted, filtered or shuffled, each row is found where it was."""
    known = read_keys(indexed(keys), None)
    order = list(range(len(keys)))
    random.shuffle(order)

    found = find_keys(known.take(order[: len(order) // 2 + 1]), known)

    assert order[: len(order) // 2 + 1] == found.tolist()


@FEW
@given(
    unique(INTS)
    | unique(CSV_TEXTS)
    | unique(DATES)
    | unique(TIMES)
    | unique(st.integers(-(10**9), 10**9).map(lambda n: n / 100))
    | unique(st.tuples(INTS, CSV_TEXTS))
    | unique(st.tuples(DATES, CSV_TEXTS))
    | unique(st.tuples(TIMES, INTS))
)
@example([dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2, 10)])  # noqa: DTZ001 - a naive index
def test_each_key_is_found_after_a_csv_file(keys: list[Any]) -> None:
    """``read_csv`` tomorrow, with dates as text and dtypes guessed, finds the same rows."""
    frame = indexed(keys)
    known = read_keys(frame, None)

    again = read_keys(through_csv(frame), None)

    assert find_keys(again, known).tolist() == list(range(len(keys)))


@pytest.mark.parametrize(
    ("known", "wanted", "expected"),
    [
        ([1, 2, 3], ["3", "1", "x"], [2, 0, -1]),
        (["1", "2"], [2, 1, 7], [1, 0, -1]),
        ([1, 2], [2.0, 1.0], [1, 0]),
        ([1, 2], [2.5, 1.0], [-1, 0]),
        ([True, False], ["False", "True"], [1, 0]),
        (pd.to_datetime(["2024-01-01", "2024-01-02"]), ["2024-01-02", "no date"], [1, -1]),
        (
            pd.to_datetime(["2024-01-01", "2024-01-02 10:30"], format="mixed"),
            ["2024-01-01", "2024-01-02 10:30:00", "2024-01-02"],
            [0, 1, -1],
        ),
        (pd.to_datetime(["2024-01-01"]), ["words", "more"], [-1, -1]),
        (
            pd.to_datetime(["2024-07-01 10:00", "2024-01-01 10:00"]).tz_localize("Europe/Berlin"),
            ["2024-01-01 10:00:00+01:00", "2024-07-01 10:00:00+02:00"],
            [1, 0],
        ),
        ([dt.date(2024, 1, 1)], ["2024-01-01", "soon"], [0, -1]),
        ([dt.date(2024, 1, 1)], pd.to_datetime(["2024-01-01"]), [0]),
        (["a"], [None, "a"], [-1, 0]),
        (["a", "A"], ["A", "a "], [1, -1]),
        (pd.CategoricalIndex(["a", "b"]), ["b", "a"], [1, 0]),
        (["a", "b"], pd.CategoricalIndex(["b", "a"]), [1, 0]),
        (pd.period_range("2024-01", periods=2, freq="M"), ["2024-02", "2024-01"], [1, 0]),
        ([Decimal("1.10"), Decimal("2.20")], ["2.20"], [1]),
        ([uuid.UUID(int=1), uuid.UUID(int=2)], [str(uuid.UUID(int=2))], [1]),
        (pd.Index([2**64 - 1, 1], dtype="uint64"), [1, 5], [1, -1]),
        ([1, "a"], ["a", "1"], [1, 0]),
    ],
)
def test_keys_of_another_dtype_are_matched_by_what_they_say(
    known: Any, wanted: Any, expected: list[int]
) -> None:
    """A key re-read with another dtype is found; a key nobody knows is -1, never a neighbour."""
    found = find_keys(read_keys(indexed(wanted), None), read_keys(indexed(known), None))

    assert expected == found.tolist()


def test_parts_of_a_key_do_not_run_into_each_other() -> None:
    """("a", "bc") and ("ab", "c") are two keys."""
    known = read_keys(indexed(pd.MultiIndex.from_tuples([("a", "bc"), ("ab", "c")])), None)
    wanted = read_keys(indexed(pd.MultiIndex.from_tuples([("ab", "c"), ("a", "b")])), None)

    assert find_keys(wanted, known).tolist() == [1, -1]


ODD_PARTS = st.text("ab\x1e\x1f", max_size=4)


@FEW
@given(unique(st.tuples(ODD_PARTS, ODD_PARTS)) | unique(st.tuples(*[ODD_PARTS] * 3)))
@example([("x\x1fy", "z"), ("x", "y\x1fz")])
@example([("x\x1f", "y"), ("x", "\x1fy"), ("x\x1e\x1f", "y"), ("x\x1e", "\x1fy")])
def test_parts_that_hold_the_separator_do_not_run_into_each_other(keys: list[Any]) -> None:
    """Keys with U+001F are told apart; the text of the others has nothing but it between parts."""
    frame = indexed(pd.MultiIndex.from_tuples(keys))
    known = read_keys(frame, None)

    check_keys(known, key_names(frame, None))

    assert find_keys(known.slice(1), known).tolist() == list(range(1, len(keys)))
    plain = [i for i, key in enumerate(keys) if "\x1f" not in "".join(key)]
    assert [key_texts(known)[i].as_py() for i in plain] == ["\x1f".join(keys[i]) for i in plain]


# --- reading and checking -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "key", "expected"),
    [
        (pd.RangeIndex(1), None, ["index"]),
        (pd.Index([1], name="sku"), None, ["sku"]),
        (pd.MultiIndex.from_tuples([(1, 2)]), None, ["level_0", "level_1"]),
        (pd.MultiIndex.from_tuples([(1, 2)], names=["a", None]), None, ["a", "level_1"]),
        (pd.RangeIndex(1), ["n"], ["n"]),
    ],
)
def test_keys_have_the_names_that_people_use(
    index: pd.Index, key: list[str] | None, expected: list[str]
) -> None:
    """Columns or index levels are called as pandas calls them."""
    assert expected == key_names(indexed(index), key)


def test_keys_come_from_columns_with_their_types() -> None:
    """The key's parts keep Arrow types, so that they survive Parquet."""
    frame = pd.DataFrame(
        {"s": ["a"], "i": [1], "d": pd.to_datetime(["2024-01-01"]), "c": pd.Categorical([5])}
    )

    keys = read_keys(frame, ["s", "i", "d", "c"])

    assert keys.column_names == ["key_0", "key_1", "key_2", "key_3"]
    kinds = [pa.types.is_string, pa.types.is_int64, pa.types.is_timestamp, pa.types.is_int64]
    assert all(is_kind(column.type) for is_kind, column in zip(kinds, keys.columns, strict=True))


@pytest.mark.parametrize("texts", [["a", "b"], ["a/b"], [""]])
def test_key_texts_of_one_part_are_the_labels(texts: list[str]) -> None:
    """What a job's id is made of does not change with how text is kept."""
    for dtype in ("object", "string", "category"):
        keys = read_keys(indexed(pd.Index(texts, dtype=dtype)), None)

        assert texts == key_texts(keys).to_pylist()


REFUSED: dict[str, tuple[Callable[[], pd.DataFrame], list[str] | None, str]] = {
    "repeated": (lambda: indexed([1, 2, 1]), None, "'index' repeats: 1 value.* such as 1[.]"),
    "repeated pair": (
        lambda: indexed(pd.MultiIndex.from_tuples([(1, "a"), (1, "a")])),
        None,
        "such as 1, a[.]",
    ),
    "the same as text": (lambda: indexed([1, "1"]), None, "repeats"),
    "NaN": (lambda: indexed([1.0, np.nan]), None, "null in 1 row.* first at position 1"),
    "None": (lambda: indexed(["a", None]), None, "null in 1 row"),
    "NaT": (lambda: indexed(pd.DatetimeIndex(["2024-01-01", "NaT"])), None, "null in 1 row"),
    "NA": (lambda: indexed(pd.Index([pd.NA, 1], dtype="Int64")), None, "first at position 0"),
    "null category": (lambda: indexed(pd.CategoricalIndex([1, None])), None, "null in 1 row"),
    "null in a pair": (
        lambda: indexed(pd.MultiIndex.from_tuples([("a", 1), ("b", None)])),
        None,
        "null in 1 row",
    ),
    "repeated in a column": (lambda: pd.DataFrame({"k": ["x", "x"]}), ["k"], "'k' repeats.* x[.]"),
    "no such column": (lambda: pd.DataFrame({"k": [1]}), ["sku"], "'sku' is not in the frame"),
    "column twice": (
        lambda: pd.DataFrame([[1, 2]], columns=["k", "k"]),
        ["k"],
        "more than one column called 'k'",
    ),
    "half an emoji": (
        lambda: indexed(pd.Index(["\ud83d"], dtype="object")),
        None,
        r"'\\ud83d' is not valid Unicode",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_keys_that_do_not_name_each_row_once_are_refused(case: str) -> None:
    """The message says which key, gives an example, and ends with what to do."""
    make, key, message = REFUSED[case]
    frame = make()

    with pytest.raises(RowKeyError, match=message) as caught:
        check_keys(read_keys(frame, key), key_names(frame, key))

    assert caught.value.fix.endswith(".")


@pytest.mark.parametrize("position", [1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, -1])
def test_a_repeat_in_a_long_rising_index_is_found_anywhere(position: int) -> None:
    """Rising keys are compared block by block, and no two neighbours escape (promise 2)."""
    index = np.arange(2 * BLOCK_ROWS + 3)
    keys = read_keys(indexed(pd.Index(index)), None)
    check_keys(keys, ["index"])

    index[position] = index[position - 1]
    with pytest.raises(RowKeyError, match=r"1 value\(s\) name more than one row"):
        check_keys(read_keys(indexed(pd.Index(index)), None), ["index"])


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (pd.Index(["a"]), "'a'"),
        (pd.Index([7]), "7"),
        (pd.MultiIndex.from_tuples([("a", 7)]), "('a', 7)"),
        (pd.Index([dt.date(2024, 1, 2)]), "2024-01-02"),
    ],
)
def test_a_key_is_shown_as_people_write_it(index: pd.Index, expected: str) -> None:
    """Messages name a row by its key."""
    assert expected == show_key(read_keys(indexed(index), None), 0)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Paris"])
def test_a_moment_is_one_key_in_every_unit_and_zone(unit: str, zone: str | None) -> None:
    """Promise 3: pandas 2 reads dates as nanoseconds, pandas 3 as microseconds; one job is made."""
    moments = pd.DatetimeIndex(["2024-01-31", "2024-02-01 03:04:05"], tz=zone and "UTC")
    other = moments.as_unit(unit)  # type: ignore[arg-type]
    frame = indexed(other.tz_convert(zone) if zone else other)

    texts = key_texts(read_keys(frame, None)).to_pylist()

    mark = "Z" if zone else ""
    assert texts == [f"2024-01-31 00:00:00{mark}", f"2024-02-01 03:04:05{mark}"]
    assert find_keys(read_keys(frame, None), read_keys(indexed(moments), None)).tolist() == [0, 1]


def test_a_moments_fraction_is_kept_as_far_as_it_goes() -> None:
    """Moments that are not the same have other texts, however near they are."""
    moments = pd.DatetimeIndex(["2024-01-01 00:00:10.5", "2024-01-01 00:00:10.500000001"])

    texts = key_texts(read_keys(indexed(moments), None)).to_pylist()

    assert texts == ["2024-01-01 00:00:10.5", "2024-01-01 00:00:10.500000001"]


def test_spans_of_time_are_found_in_every_unit_and_as_text() -> None:
    """As a CSV file gives them back."""
    spans = pd.TimedeltaIndex(["1D", "02:00:00.5"])
    known = read_keys(indexed(spans), None)

    for other in (spans.as_unit("ms"), spans.astype(str)):
        assert find_keys(read_keys(indexed(other), None), known).tolist() == [0, 1]
    texts = [key_texts(read_keys(indexed(spans.as_unit(u)), None)) for u in ("ms", "ns")]
    assert texts[0].equals(texts[1])


def test_whole_numbers_of_any_length_are_keys() -> None:
    """Ids of thirty digits, which pandas reads as Python's own numbers."""
    frame = pd.DataFrame({"id": pd.Series([2**70, 5], dtype=object)})

    known = read_keys(frame, ["id"])

    assert key_texts(known).to_pylist() == [str(2**70), "5"]
    assert find_keys(read_keys(frame.iloc[::-1], ["id"]), known).tolist() == [1, 0]
