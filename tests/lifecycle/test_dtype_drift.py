"""Promise 15 and its edge: a frame that went through a file is the same, or is told how not."""

from __future__ import annotations

import ast
import datetime as dt
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from frameenrich.errors import FrameMismatchError
from frameenrich.model import JobSpec, Message
from frameenrich.rendering.encode_rows import input_hashes

TEXT = st.text("ab 07.,:-eE+é", min_size=1, max_size=5)
WORDS = st.sampled_from(["007", "1.50", "1e5", "true", "TRUE", "NA", "null", "3.0", "2024-01-01"])
MOMENTS = st.integers(0, 2 * 10**9).map(lambda second: pd.Timestamp(second, unit="s"))
DAYS = st.dates(dt.date(1990, 1, 1), dt.date(2040, 1, 1))
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def column(cells: st.SearchStrategy[Any], dtype: Any) -> st.SearchStrategy[pd.Series]:
    """A column of some cells and of a dtype."""
    return st.lists(cells, min_size=1, max_size=4).map(lambda own: pd.Series(own, dtype=dtype))


def with_null(cells: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Cells of which some are null."""
    return cells | st.none()


KINDS: dict[str, st.SearchStrategy[pd.Series]] = {
    "int64": column(st.integers(-(2**63), 2**63 - 1), "int64"),
    "uint8": column(st.integers(0, 255), "uint8"),
    "float64": column(st.floats(allow_nan=True, allow_infinity=False), "float64"),
    "float32": column(FLOATS, "float32"),
    "Int64": column(with_null(st.integers(-(2**63), 2**63 - 1)), "Int64"),
    "Float64": column(with_null(FLOATS), "Float64"),
    "bool": column(st.booleans(), "bool"),
    "boolean": column(with_null(st.booleans()), "boolean"),
    "texts": column(with_null(TEXT), "string"),
    "words": column(with_null(WORDS), object),
    "moments": column(with_null(MOMENTS), "datetime64[ns]"),
    "UTC": column(MOMENTS, "datetime64[ns, UTC]"),
    "Berlin": column(MOMENTS, "datetime64[ns, Europe/Berlin]"),
    "midnights": column(DAYS, "datetime64[ns]"),
    "days": column(DAYS, object),
    "spans": column(st.integers(0, 10**6).map(lambda s: pd.Timedelta(s, "s")), "timedelta64[ns]"),
    "categories": column(st.sampled_from(["a", "b", "3"]), "category"),
    "Arrow int": column(with_null(st.integers(0, 99)), pd.ArrowDtype(pa.int32())),
    "Arrow text": column(with_null(TEXT), pd.ArrowDtype(pa.string())),
    "Arrow bool": column(with_null(st.booleans()), pd.ArrowDtype(pa.bool_())),
    "Arrow float": column(with_null(FLOATS), pd.ArrowDtype(pa.float32())),
    "decimals": column(st.decimals(-99, 99, places=2), object),
    "lists": column(st.lists(st.sampled_from(["a", "b"]), max_size=2), object),
    "dicts": column(st.fixed_dictionaries({"a": st.sampled_from(["x", "y"])}), object),
    "times": column(st.times().map(lambda time: time.replace(microsecond=0)), object),
    "months": column(DAYS.map(lambda day: pd.Period(day, "M")), "period[M]"),
    "ranges": column(st.integers(0, 9).map(lambda n: pd.Interval(n, n + 1)), "interval"),
    "nulls": column(st.none(), object),
    "Arrow moments": column(with_null(MOMENTS), pd.ArrowDtype(pa.timestamp("us"))),
    "Arrow days": column(with_null(DAYS), pd.ArrowDtype(pa.date32())),
    "Arrow decimals": column(st.decimals(-99, 99, places=2), pd.ArrowDtype(pa.decimal128(6, 2))),
}


def through_csv(frame: pd.DataFrame, path: Path, **how: Any) -> pd.DataFrame:
    """Save a frame and read it as people do."""
    frame.to_csv(path, index=False)
    back: pd.DataFrame = pd.read_csv(path, **how)
    return back


def through_excel(frame: pd.DataFrame, path: Path, **how: Any) -> pd.DataFrame:
    """Save a frame as a workbook and read it as people do."""
    frame.to_excel(path.with_suffix(".xlsx"), index=False)
    back: pd.DataFrame = pd.read_excel(path.with_suffix(".xlsx"), engine="openpyxl", **how)
    return back


def through_parquet(frame: pd.DataFrame, path: Path, **how: Any) -> pd.DataFrame:
    """Save a frame as Parquet and read it."""
    frame.to_parquet(path)
    return pd.read_parquet(path, **how)


FILES: dict[str, Callable[..., pd.DataFrame]] = {
    "csv": through_csv,
    "excel": through_excel,
    "parquet": through_parquet,
}


def as_told(fix: str, frame: pd.DataFrame, read: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    """Do what an error says, and return the frame that comes of it."""
    if fix.startswith("Keep the frame as Parquet"):  # a workbook has no 1.50 as a number
        return read(through_parquet)
    if fix.startswith("Read a CSV with float_precision='round_trip', keep the frame as Parquet"):
        try:
            return read(None, float_precision="round_trip")
        except TypeError:  # a workbook's reader has no such option
            return read(through_parquet)
    option = re.match(r"Read the file with (\w+)=(.*), or submit the frame as it is now\.", fix)
    if option is not None:
        value = option[2].replace(": str}", ": 'str'}")
        return read(None, **{option[1]: ast.literal_eval(value)})
    line = re.match(r"Set (frame\['c'\] = .*), or submit the frame as it is now\.", fix)
    assert line is not None, fix
    exec(line[1], {"frame": frame, "pandas": pd})  # a user would paste it, too
    return frame


SPEC = JobSpec("answer", "m", (Message("user", "{{ c }}"),), on_null="empty")


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_a_frame_that_went_through_a_file_is_the_same(kind: str, data: st.DataObject) -> None:
    """`collect` finds its rows; where a dtype prevents it, doing what the error says helps."""
    cells = data.draw(KINDS[kind])
    frame = pd.DataFrame({"sku": [f"s{n}" for n in range(len(cells))], "c": cells})
    kinds = set(FILES)
    # Workbooks know no time zones: pandas refuses to write them. A null among booleans it reads as
    # True, which is another row.
    if isinstance(cells.dtype, pd.DatetimeTZDtype) or ("bool" in kind and cells.hasnans):
        kinds.remove("excel")
    for kind_of_file in sorted(kinds):
        with tempfile.TemporaryDirectory() as folder:
            check(frame, FILES[kind_of_file], Path(folder))


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        (["007", "12"], [7, 12], "printed '007', and now prints '7'. Read the file with dtype="),
        (["NA", "SE"], [None, "SE"], "printed 'NA', and now prints ''. Read the file with keep_d"),
        (["yes", "no"], ["yes", "No"], "changed under their keys"),
        (["3", "4"], [3, 5], "changed under their keys"),
        ([3.3, 4.5], [3.3, 4.6], "changed under their keys"),
        # One digit off in the last place, as pandas' quick reader gives it: no matter of float32.
        (
            [-5.6287627614848636e23, 4.5],
            [-5.628762761484864e23, 4.5],
            "float_precision='round_trip'",
        ),
    ],
)
def test_what_differs_in_dtype_only_is_told_so(
    then: list[Any], now: list[Any], told: str, tmp_path: Path
) -> None:
    """And what truly changed never is."""
    ask: dict[str, Any] = {"key": "sku", "provider": "file", "store": tmp_path}
    frame = pd.DataFrame({"sku": ["a", "b"], "c": then})
    frame.llmbatch.submit("Sort {{ c }} of 7 or 2024-01-01", "m", on_null="empty", **ask)

    with pytest.raises(FrameMismatchError) as caught:
        frame.assign(c=now).llmbatch.collect(store=tmp_path)

    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (["007", "08"], [7, 8]),
        (["007", "a"], ["007", "a"]),
        (["1.0", "2.0"], [1.0, 2.0]),
        (["2024-01-01", "2024-01-02"], pd.to_datetime(["2024-01-01", "2024-01-02"])),
        ([7, 8], ["007", "8"]),
    ],
)
def test_keys_that_a_file_made_numbers_of_are_the_same(then: Any, now: Any, tmp_path: Path) -> None:
    """No row is taken for a new one, whose answers would be missing in silence."""
    frame = pd.DataFrame({"sku": then, "c": ["x", "y"]})
    frame.llmbatch.submit("{{ c }}", "m", key="sku", provider="file", store=tmp_path)

    out = frame.assign(sku=now).iloc[::-1].llmbatch.collect(store=tmp_path)

    assert out["llmbatch_status"].tolist() == ["pending", "pending"]


def test_a_number_that_two_keys_may_mean_is_neither(tmp_path: Path) -> None:
    """007 and 07 are two rows: 7 is one that the job never saw."""
    frame = pd.DataFrame({"sku": ["007", "07", "8"], "c": ["x", "y", "z"]})
    job = frame.llmbatch.submit("{{ c }}", "m", key="sku", provider="file", store=tmp_path)

    out = pd.DataFrame({"sku": [7, 8], "c": ["x", "z"]}).llmbatch.collect(job, store=tmp_path)

    assert out["llmbatch_status"].isna().tolist() == [True, False]


def test_long_numbers_that_a_float_makes_one_are_other_keys(tmp_path: Path) -> None:
    """Promise 1: beyond 2**53 neighbours are one float; a new row gets nobody else's answer."""
    frame = pd.DataFrame({"sku": ["9007199254740993", "8"], "c": ["x", "y"]})
    job = frame.llmbatch.submit("{{ c }}", "m", key="sku", provider="file", store=tmp_path)

    own = pd.DataFrame({"sku": [9007199254740992, 9007199254740993, 8], "c": ["x", "x", "y"]})
    out = own.llmbatch.collect(job, store=tmp_path)

    assert out["llmbatch_status"].isna().tolist() == [True, False, False]


def check(frame: pd.DataFrame, file: Callable[..., pd.DataFrame], folder: Path) -> None:
    """Send a frame through a file, and collect on what comes back."""
    again = file(frame, folder / "frame")
    if input_hashes(again, SPEC).equals(input_hashes(frame, SPEC)):
        return  # each row prints what it printed, and is found by that
    job = frame.llmbatch.submit(
        "{{ c }}", "m", on_null="empty", key="sku", provider="file", store=folder
    )
    for _ in range(4):  # several things may have to be told, one after the other
        told = mismatch(again, job, folder)
        if told is None:
            return
        assert "in dtype only" in told.problem, (told.problem, frame["c"], again["c"])
        again = as_told(
            told.fix, again, lambda kind, **how: (kind or file)(frame, folder / "frame", **how)
        )
    raise AssertionError((told, frame["c"], again["c"]))


def mismatch(frame: pd.DataFrame, job: Any, store: Path) -> FrameMismatchError | None:
    """Return what `collect` says of a frame; None where it finds every row."""
    try:
        out = frame.llmbatch.collect(job, store=store)
    except FrameMismatchError as error:
        return error
    assert out["llmbatch_status"].tolist() == ["pending"] * len(frame)
    return None
