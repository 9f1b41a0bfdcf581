"""Results to columns: whatever the order of lines and rows, the same cells, types and frame."""

from __future__ import annotations

import io
import json
import math
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from draws import examples
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal, assert_index_equal

from frameenrich.answers.column_names import JobColumns
from frameenrich.answers.columns import result_columns, to_series, with_columns
from frameenrich.answers.fields import Field
from frameenrich.answers.judge import read_response, result_of
from frameenrich.answers.output import Output
from frameenrich.answers.result_table import DETAILS, ResultTable
from frameenrich.errors import ColumnCollisionError
from frameenrich.model import JobSpec, Message, Result, RowStatus, Usage
from frameenrich.prepare.output_options import output_from_options

FEW = examples(60)

TEXT = output_from_options()
LABELS = output_from_options(labels=["a", "b"])
FIELDS = output_from_options(
    response_model={
        "s": str,
        "i": int,
        "f": float,
        "b": bool,
        "c": Literal["x", "y"],
        "l": list[int],
        "o": dict[str, int],
    }
)
DTYPES = {"s": "string", "i": "Int64", "f": "Float64", "b": "boolean", "c": "category"}
GOOD = ("t", 1, 1.5, True, "y", [1, 2], '{"k":3}')


def make_spec(name: str = "ask", prefix: str = "") -> JobSpec:
    """Return a spec of this name."""
    return JobSpec(name, "m", (Message("user", "x"),), prefix=prefix)


def ok(custom_id: str, *values: Any) -> Result:
    """Return a good result."""
    return Result(custom_id, RowStatus.OK, values, None, "raw", Usage("m", 1, 2, "stop"))


def bad(custom_id: str, status: RowStatus = RowStatus.MALFORMED) -> Result:
    """Return a flagged result."""
    return Result(custom_id, status, None, f"it is {status}", "raw")


def columns_of(
    result_table: ResultTable,
    slots: list[int] | None = None,
    *,
    usage: bool = False,
    spec: JobSpec | None = None,
) -> pd.DataFrame:
    """Return the output columns of a frame whose rows have these slots; -2 was never seen."""
    wanted = list(range(result_table.slots)) if slots is None else slots
    seen = np.array([slot > -2 for slot in wanted], dtype=bool)
    places = np.array([max(slot, -1) for slot in wanted], dtype=np.int64)
    ids = pa.array([f"row-{i}" for i in range(result_table.slots)]) if usage else None
    return pd.DataFrame(
        result_columns(result_table, places, seen, spec or make_spec(), usage=usage, custom_ids=ids)
    )


def a_tally(slots: int, output: Output) -> ResultTable:
    """Return a result table that keeps every detail."""
    return ResultTable(slots, output.fields, DETAILS)


def put(result_table: ResultTable, slot: int, result: Result, round_: int = 0) -> None:
    """Take one result."""
    result_table.add_results(np.array([slot]), [result], round_)


def fields_tally(*results: Result | None) -> ResultTable:
    """Return the result table of an output with every type of field."""
    result_table = a_tally(len(results), FIELDS)
    for slot, each in enumerate(results):
        if each is not None:
            put(result_table, slot, each)
    return result_table


# --- orders ---------------------------------------------------------------------------------------


def response_line(custom_id: str, content: str | None, code: int) -> bytes:
    """Return a line of an output file."""
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    inner = {"status_code": code, "body": body}
    return json.dumps({"custom_id": custom_id, "response": inner, "error": None}).encode()


LINES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "A", "c", "", None]), st.sampled_from([200, 200, 500])),
    min_size=1,
    max_size=8,
).map(lambda drawn: [response_line(f"row-{i}", *each) for i, each in enumerate(drawn)])


def collected(lines: list[bytes], order: list[int], slots: list[int]) -> pd.DataFrame:
    """Return the columns when lines come in this order and rows stand in that."""
    result_table = a_tally(len(lines), LABELS)
    for i in order:
        response = read_response(lines[i])
        assert response is not None
        put(result_table, int(response.custom_id[4:]), result_of(response, LABELS))
    return columns_of(result_table, slots, usage=True)


@FEW
@given(LINES, st.randoms(use_true_random=False))
def test_the_order_of_lines_and_rows_does_not_matter(lines: list[bytes], random: Any) -> None:
    """Each row has its own answer, in whatever order answers come and rows stand."""
    order, rows = list(range(len(lines))), list(range(len(lines)))
    expected = collected(lines, order, rows)
    random.shuffle(order)
    random.shuffle(rows)
    rows = rows[: random.randint(1, len(rows))]

    assert_frame_equal(expected.iloc[rows].reset_index(drop=True), collected(lines, order, rows))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_good_answer_stands_wherever_it_comes(order: tuple[int, ...]) -> None:
    """The same custom_id answered, failed and malformed: the answer is never overwritten."""
    results = [ok("row-0", "a"), bad("row-0"), bad("row-0", RowStatus.FAILED)]
    result_table = a_tally(1, LABELS)
    for i in order:
        put(result_table, 0, results[i])

    assert (result_table.status(0), columns_of(result_table)["ask"].tolist()) == (
        RowStatus.OK,
        ["a"],
    )


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_lines_that_come_together_count_as_if_they_came_one_by_one(order: tuple[int, ...]) -> None:
    """A block with the same custom_id several times is taken in its order."""
    results = [ok("row-0", "a"), bad("row-0"), bad("row-0", RowStatus.FAILED)]
    one_by_one, together = a_tally(2, LABELS), a_tally(2, LABELS)
    for i in order:
        put(one_by_one, 0, results[i])
    put(one_by_one, 1, ok("row-1", "b"))
    together.add_results(
        np.array([0, 0, 0, 1]), [*(results[i] for i in order), ok("row-1", "b")], 0
    )

    assert_frame_equal(columns_of(one_by_one, usage=True), columns_of(together, usage=True))


def test_of_two_lines_alike_the_first_stands() -> None:
    """A line that came twice changes nothing."""
    result_table = a_tally(1, LABELS)
    put(result_table, 0, bad("row-0", RowStatus.REFUSED))
    put(result_table, 0, bad("row-0", RowStatus.FAILED))

    assert result_table.status(0) is RowStatus.REFUSED


@pytest.mark.parametrize(
    ("first", "later", "expected", "attempt"),
    [
        (bad("r"), ok("r", "a"), "ok", 2),
        (bad("r"), bad("r", RowStatus.TRUNCATED), "truncated", 2),
        (ok("r", "a"), bad("r"), "ok", 1),
        (ok("r", "a"), ok("r", "b"), "ok", 1),
    ],
)
def test_a_later_round_beats_a_flagged_row_only(
    first: Result, later: Result, expected: str, attempt: int
) -> None:
    """Regenerating can only mend; ``attempt`` says how often the row was asked until then."""
    result_table = a_tally(1, LABELS)
    put(result_table, 0, first)
    result_table.count_retry(np.array([0]))
    put(result_table, 0, later, 1)
    columns = columns_of(result_table, usage=True)

    assert (expected, attempt) == (columns["ask_status"][0], columns["ask_attempt"][0])


def test_settling_gives_every_row_without_a_line_its_status() -> None:
    """Paid answers stay; the rest says why there is none."""
    result_table = a_tally(3, LABELS)
    put(result_table, 0, ok("a", "a"))
    put(result_table, 1, bad("b"))
    result_table.set_status(np.array([0, 2]), RowStatus.EXPIRED, "it expired", 0)

    assert [result_table.status(slot) for slot in range(3)] == [
        RowStatus.OK,
        RowStatus.MALFORMED,
        RowStatus.EXPIRED,
    ]
    assert result_table.counts(np.arange(3)) == {
        RowStatus.OK: 1,
        RowStatus.MALFORMED: 1,
        RowStatus.EXPIRED: 1,
    }
    assert columns_of(result_table)["ask_error"].tolist()[2] == "it expired"


# --- columns --------------------------------------------------------------------------------------


def test_every_row_has_exactly_one_status() -> None:
    """Answered, flagged, pending, skipped; a row that the job never saw has ``<NA>``."""
    result_table = a_tally(3, LABELS)
    put(result_table, 0, ok("a", "a"))
    put(result_table, 1, bad("b"))

    columns = columns_of(result_table, [0, 1, 2, -1, -2])

    assert columns["ask_status"].tolist() == ["ok", "malformed", "pending", "skipped", pd.NA]
    assert columns["ask_error"].tolist() == [pd.NA, "it is malformed", pd.NA, pd.NA, pd.NA]
    assert columns["ask"].isna().tolist() == [False, True, True, True, True]


@pytest.mark.parametrize(
    "result_table",
    [
        fields_tally(ok("row-0", *GOOD), ok("row-1", *GOOD)),
        fields_tally(ok("row-0", *GOOD), bad("row-1")),
        fields_tally(bad("row-0"), bad("row-1")),
        fields_tally(None, None),
        fields_tally(),
    ],
    ids=["all good", "mixed", "all flagged", "all pending", "no row"],
)
def test_types_do_not_depend_on_the_answers(result_table: ResultTable) -> None:
    """An all-flagged column keeps its type, and the categories are the labels asked for."""
    columns = columns_of(result_table, usage=True)

    assert {
        name: str(columns[name].dtype)
        for name in FIELDS.spec.schema["properties"]  # type: ignore[index]
    } == {**DTYPES, "l": "object", "o": "string"}
    assert list(columns["c"].cat.categories) == ["x", "y"]
    assert {"Int64"} == {str(columns[f"ask_{n}"].dtype) for n in ("attempt", "prompt_tokens")}


def test_values_stay_what_they_are() -> None:
    """Numbers, lists and JSON texts go into the cells as they were validated."""
    columns = columns_of(fields_tally(ok("row-0", *GOOD), bad("row-1")))

    assert list(GOOD) == columns.loc[0, list(FIELDS.spec.schema["properties"])].tolist()  # type: ignore[index]
    assert columns.loc[1, ["s", "i", "f", "b", "c", "l", "o"]].isna().all()


@pytest.mark.parametrize(
    "values", [[[1, 2], [3, 4]], [[1], None], [{"a": 1}, {"a": 2}], [[], []], [None, None], []]
)
def test_lists_of_one_length_stay_lists(values: list[Any]) -> None:
    """One cell a row, also where numpy would make a table of them."""
    assert values == to_series(values, Field("l", "object")).tolist()


@pytest.mark.parametrize(
    ("output", "spec", "expected"),
    [
        (TEXT, make_spec(), ["ask", "ask_status", "ask_error"]),
        (LABELS, make_spec("dept", "ai_"), ["ai_dept", "dept_status", "dept_error"]),
        (
            FIELDS,
            make_spec(prefix="p_"),
            ["p_s", "p_i", "p_f", "p_b", "p_c", "p_l", "p_o", "ask_status", "ask_error"],
        ),
    ],
)
def test_columns_are_called_as_promised(output: Output, spec: JobSpec, expected: list[str]) -> None:
    """The names that ``submit`` checks are those that ``collect`` adds, in their order."""
    result_table = a_tally(1, output)

    assert (
        expected == JobColumns.of(spec, output).added == list(columns_of(result_table, spec=spec))
    )


def test_usage_adds_what_the_provider_said() -> None:
    """Model, attempt, tokens, finish reason, custom_id and the raw answer of each row."""
    result_table = a_tally(2, LABELS)
    put(result_table, 0, ok("row-0", "a"))

    columns = columns_of(result_table, [1, 0, -1, -2], usage=True).drop(
        columns=["ask", "ask_status"]
    )

    na = pd.NA
    assert columns.astype(object).values.tolist() == [
        [na, na, 1, na, na, na, "row-1", na, na, na],
        [na, "m", 1, 1, 2, "stop", "row-0", False, na, "raw"],
        [na] * 10,
        [na] * 10,
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2], {"ask": "Int64"}),
        (["a", None], {"ask": "string"}),
        ([{"x": 1, "y": "a"}, {"x": 2}], {"x": "Int64", "y": "string"}),
        ([{"x": 1.5}, None], {"x": "Float64"}),
        ([[1], [2]], {"ask": "object"}),
        ([1.0, 2.0], {"ask": "Float64"}),
        ([1, 2.0], {"ask": "Float64"}),
        ([1, math.nan], {"ask": "Int64"}),
        ([True, False], {"ask": "boolean"}),
        ([2**64 - 1, None], {"ask": "UInt64"}),
        ([2**70, None], {"ask": "string"}),
        ([2**63, -1], {"ask": "string"}),
        ([2**70, 1.5], {"ask": "Float64"}),
        ([{"x": 1}, 7], {"x": "Int64", "ask": "Int64"}),
        ([{"x": 1}, math.nan], {"x": "Int64"}),
        ([{"ask": 1}, 7], {"ask": "Int64"}),
    ],
)
def test_a_parsers_values_get_pandas_own_types(values: list[Any], expected: dict[str, str]) -> None:
    """A dict becomes a column a key, anything else the one column called after the job."""
    result_table = a_tally(len(values), output_from_options(parser=str))
    for slot, value in enumerate(values):
        put(result_table, slot, bad("r") if value is None else ok("r", value))

    columns = columns_of(result_table).drop(columns=["ask_status", "ask_error"])

    assert expected == {name: str(dtype) for name, dtype in columns.dtypes.items()}


def parsed(*values: Any) -> ResultTable:
    """Return what is known where a parser made these values."""
    result_table = a_tally(len(values), output_from_options(parser=str))
    for slot, value in enumerate(values):
        put(result_table, slot, ok("r", value))
    return result_table


def test_no_value_of_a_parser_is_lost() -> None:
    """What is no dict where others are, and integers of any length, through Parquet too."""
    columns = columns_of(parsed({"x": 2**64 - 1, "ask": None}, 2**70, {"x": 2}))
    file = io.BytesIO()
    columns.to_parquet(file)

    assert columns["x"].tolist() == [2**64 - 1, pd.NA, 2]
    assert columns["ask"].tolist() == [pd.NA, str(2**70), pd.NA]
    assert_frame_equal(pd.read_parquet(file), columns)


@pytest.mark.parametrize(
    ("value", "prefix", "taken"),
    [
        ({"ask_status": 1}, "", "'ask_status' is reserved for the row's status"),
        ({"error": 1}, "ask_", "'ask_error' is reserved for the row's status"),
        ({"ask_cost_usd": 1}, "", "'ask_cost_usd' is reserved for the row's status"),
        ({1: "a", "1": "b"}, "", "would be called '1'"),
    ],
)
def test_a_parsers_key_never_takes_the_place_of_another_column(
    value: Any, prefix: str, taken: str
) -> None:
    """Its value would vanish, or the row's status."""
    with pytest.raises(ColumnCollisionError, match=taken):
        columns_of(parsed(value), spec=make_spec(prefix=prefix))


# --- frames ---------------------------------------------------------------------------------------

FRAMES = {
    "range": pd.DataFrame({"n": [1, 2]}),
    "texts": pd.DataFrame({"n": [1, 2]}, index=pd.Index(["b", "a"], name="sku")),
    "repeated": pd.DataFrame({"n": [1, 2]}, index=[7, 7]),
    "dates": pd.DataFrame({"n": [1, 2]}, index=pd.date_range("2024", periods=2, tz="UTC")),
    "pairs": pd.DataFrame({"n": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "a"), (0, "b")])),
    "no column": pd.DataFrame(index=["x", "y"]),
    "columns alike": pd.DataFrame([[1, 2], [3, 4]], columns=["x", "x"]),
    "numbered columns": pd.DataFrame([[1, 2], [3, 4]]),
}


@pytest.mark.parametrize("case", FRAMES)
def test_rows_in_are_rows_out(case: str) -> None:
    """A new frame: the same rows, order, index and columns, and the answers after them."""
    frame = FRAMES[case]
    before = frame.copy(deep=True)
    columns = columns_of(fields_tally(ok("row-0", *GOOD), bad("row-1")))

    out = with_columns(frame, {str(name): columns[name] for name in columns})

    assert_frame_equal(before, frame)
    assert_frame_equal(before, out.iloc[:, : frame.shape[1]], check_column_type=False)
    assert_index_equal(before.index, out.index)
    assert [*frame.columns, *columns.columns] == list(out.columns)
    assert out["s"].tolist() == ["t", pd.NA]


def test_an_earlier_collects_columns_are_replaced_where_they_stand() -> None:
    """Collecting again brings no second copy, and leaves the other columns alone."""
    frame = pd.DataFrame([[1, "old", "old", 5, 6]], columns=["x", "ask", "ask_status", "x", "y"])
    new = {"ask": pd.Series(["new"]), "ask_status": pd.Series(["ok"]), "ask_error": pd.Series([""])}

    out = with_columns(frame, new)

    assert list(out.columns) == ["x", "ask", "ask_status", "x", "y", "ask_error"]
    assert out.iloc[0].tolist() == [1, "new", "ok", 5, 6, ""]


def test_collecting_twice_is_collecting_once() -> None:
    """The second time changes nothing."""
    columns = columns_of(fields_tally(ok("row-0", *GOOD), bad("row-1")))
    added: dict[str, pd.Series[Any]] = {str(name): columns[name] for name in columns}

    once = with_columns(FRAMES["texts"], added)

    assert_frame_equal(once, with_columns(once, added))


@pytest.mark.parametrize("results", [(ok("", *GOOD), bad("")), (bad(""), bad("")), (None, None)])
def test_everything_survives_parquet(results: tuple[Result | None, ...], tmp_path: Path) -> None:
    """Types, categories, lists and dicts come back, also where every row is flagged."""
    columns = columns_of(fields_tally(*results), usage=True)
    out = with_columns(FRAMES["texts"], {str(name): columns[name] for name in columns})
    out.to_parquet(tmp_path / "out.parquet")

    again = pd.read_parquet(tmp_path / "out.parquet")

    plain = [name for name in out.columns if name not in {"l", "o"}]
    assert_frame_equal(out[plain], again[plain], check_categorical=True)
    assert out["c"].dtype == again["c"].dtype
    assert list(again["c"].cat.categories) == ["x", "y"]
    assert [None if v is None else list(v) for v in again["l"]] == out["l"].tolist()
    assert again["o"].tolist() == out["o"].tolist()
