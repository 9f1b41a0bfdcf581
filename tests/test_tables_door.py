"""The doors beside ``df.llmbatch``: plain functions, and tables that are not pandas'."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal
from typer.testing import CliRunner

import frameenrich
from frameenrich.cli.main import app
from frameenrich.errors import InputError


def test_names_that_completion_offers() -> None:
    """Completion on ``frameenrich.`` offers the public names and nothing else."""
    assert dir(frameenrich) == sorted(frameenrich.__all__)


def test_typed_door_makes_the_same_job(products: pd.DataFrame, store: Path) -> None:
    """``frameenrich.llmbatch(df)`` is ``df.llmbatch``: one job, whichever asked."""
    frame = products.head(3)
    options = {"key": "sku", "provider": "file", "store": store}
    typed = frameenrich.llmbatch(frame).submit("Colour of {{ title }}?", "m", **options)  # type: ignore[arg-type]  # a dict of options of many types
    assert frame.llmbatch.submit("Colour of {{ title }}?", "m", **options).id == typed.id


def test_sample_data_is_the_catalogue(products: pd.DataFrame) -> None:
    """``frameenrich.sample_data()`` reads the catalogue, with its keys as text."""
    assert_frame_equal(frameenrich.sample_data(), products)


CSV = "sku,title,n,price,sold\nA1,Red mug,1,2.5,true\nA2,Blue hose,,3,false\nA3,,3,4.25,true\n"
TEMPLATE = "{{ title }}, {{ n }}, {{ price }}, {{ sold }}"


def _tables(path: Path) -> dict[str, Any]:
    """Read one file with each library's own reader."""
    arrow = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(strings_can_be_null=True))
    return {
        "DataFrame": pl.read_csv(path),
        "LazyFrame": pl.scan_csv(path),
        "DuckDBPyRelation": duckdb.read_csv(str(path)),
        "Table": arrow,
        "RecordBatchReader": arrow.to_reader(),
    }


@pytest.mark.parametrize(
    "kind", ["DataFrame", "LazyFrame", "DuckDBPyRelation", "Table", "RecordBatchReader"]
)
def test_one_job_whatever_holds_the_table(kind: str, tmp_path: Path, store: Path) -> None:
    """One table is one job, of one id, and comes back as the kind it was, its columns untouched."""
    path = tmp_path / "rows.csv"
    path.write_text(CSV, encoding="utf-8")
    options: Any = {"key": "sku", "provider": "file", "store": store, "on_null": "empty"}
    expected = pd.read_csv(path).llmbatch.submit(TEMPLATE, "m", **options)

    made = frameenrich.submit(_tables(path)[kind], TEMPLATE, "m", **options)
    back = frameenrich.collect(_tables(path)[kind], store=store)

    assert made.id == expected.id
    assert len(frameenrich.jobs(store)) == 1
    assert type(back).__name__ == ("Table" if kind == "DuckDBPyRelation" else kind)
    whole = pa.table(back.collect() if kind == "LazyFrame" else back)
    own = _tables(path)[kind]
    own = pa.table(own.collect() if kind == "LazyFrame" else own)
    assert whole.select(own.column_names).equals(own)
    assert whole["llmbatch_status"].to_pylist() == ["pending"] * 3


def test_answers_come_back_as_columns(server: Any, client: Any, store: Path) -> None:
    """Answers arrive in the table's own order, long whole numbers beside nulls unrounded."""
    table = pl.DataFrame({"sku": ["B", "A"], "n": [2**60 + 1, None]})
    options: Any = {"key": "sku", "client": client, "store": store, "on_null": "empty"}
    job = frameenrich.submit(table, "{{ sku }} {{ n }}", "gpt-4o-mini", **options)
    back = frameenrich.collect(table, job, wait=True, poll_seconds=0.01)

    assert back.select("sku", "n").equals(table)
    assert back["llmbatch_status"].to_list() == ["ok", "ok"]
    assert str(2**60 + 1) in Path(job.requests[0]).read_text(encoding="utf-8")


def test_what_is_no_table_is_refused(store: Path) -> None:
    """A list of rows is refused in a sentence, and a table without key= by Python itself."""
    with pytest.raises(InputError, match="A list is not a table"):
        frameenrich.submit([1], "{{ a }}", "m", key="a", store=store)
    with pytest.raises(InputError, match="A Series is not a table"):
        frameenrich.submit(pl.Series([1]), "{{ a }}", "m", key="a", store=store)
    with pytest.raises(TypeError, match="key"):
        frameenrich.submit(pl.DataFrame({"a": [1]}), "{{ a }}", "m")  # type: ignore[call-arg]  # the point


def test_lists_print_as_python_prints_them(store: Path) -> None:
    """A list column is the same request from Polars and from pandas: ``[1, 2]``, not ``[1 2]``."""
    rows = {"sku": ["A"], "sizes": [[1, 2]], "made": [{"in": "Kiel"}]}
    options: Any = {"key": "sku", "provider": "file", "store": store}
    template = "{{ sizes }} {{ made['in'] }}"
    expected = pd.DataFrame(rows).llmbatch.submit(template, "m", **options)

    assert frameenrich.submit(pl.DataFrame(rows), template, "m", **options).id == expected.id
    assert "[1, 2] Kiel" in Path(expected.requests[0]).read_text(encoding="utf-8")


CELLS: dict[str, tuple[pa.Array, list[str]]] = {
    "whole": (pa.array([1, None]), ["1", ""]),
    "long": (pa.array([2**60 + 1, 5]), [str(2**60 + 1), "5"]),
    "unsigned": (pa.array([255, None], pa.uint8()), ["255", ""]),
    "float": (pa.array([1.5, 3.0]), ["1.5", "3"]),
    "not_finite": (pa.array([float("nan"), float("inf")]), ["", "inf"]),
    "narrow": (pa.array([3.3, None], pa.float32()), ["3.3", ""]),
    "flag": (pa.array([True, None]), ["True", ""]),
    "text": (pa.array(["é\n", ""], pa.large_string()), ["é\n", ""]),
    "view": (pa.array(["a", None], pa.string_view()), ["a", ""]),
    "label": (pa.array(["a", None]).dictionary_encode(), ["a", ""]),
    "day": (pa.array([date(2024, 1, 2), date(1500, 1, 1)]), ["2024-01-02", "1500-01-01"]),
    "moment": (
        pa.array([pd.Timestamp("2024-01-02 03:00"), None], pa.timestamp("us")),
        ["2024-01-02 03:00:00", ""],
    ),
    "zoned": (
        pa.array([pd.Timestamp("2024-01-02 03:00"), None], pa.timestamp("us", "UTC")),
        ["2024-01-02 03:00:00+00:00", ""],
    ),
    "clock": (pa.array([time(1, 2, 3), None], pa.time64("us")), ["01:02:03", ""]),
    "money": (pa.array([Decimal("1.50"), None]), ["1.50", ""]),
    "sizes": (pa.array([[1, None], []]), ["[1, None]", "[]"]),
    "weights": (pa.array([[1.0, 2.5], None]), ["[1, 2.5]", ""]),
    "vector": (pa.array([[3.3, 1], None], pa.list_(pa.float32())), ["[3.3, 1]", ""]),
    "words": (pa.array([["a", "b"], ["it's"]]), ["['a', 'b']", '["it\'s"]']),
    "pair": (pa.array([[1, 2], None], pa.list_(pa.int64(), 2)), ["[1, 2]", ""]),
    "made": (pa.array([{"in": 1, "n": [2]}, {"in": None, "n": None}]),
             ["{'in': 1, 'n': [2]}", "{'in': None, 'n': None}"]),
    "nothing": (pa.nulls(2), ["", ""]),
}  # fmt: skip
"""Cells of each type, and what is printed of them."""

DOORS: dict[str, Callable[[Path], Any]] = {
    "pandas": pd.read_parquet,
    "pandas of Arrow": lambda path: pq.read_table(path).to_pandas(
        types_mapper=pd.ArrowDtype, ignore_metadata=True
    ),
    "Polars": pl.read_parquet,
    "Polars, lazy": pl.scan_parquet,
    "DuckDB": lambda path: duckdb.read_parquet(str(path)),
    "Arrow": pq.read_table,
    "a reader": lambda path: pq.read_table(path).to_reader(),
}


def test_cells_of_any_type_are_printed_alike_by_every_door(tmp_path: Path, store: Path) -> None:
    """One Parquet file is one job, whoever reads it and whatever types its cells have."""
    path = tmp_path / "rows.parquet"
    pq.write_table(
        pa.table({"sku": ["A", "B"]} | {n: cells for n, (cells, _) in CELLS.items()}), path
    )
    template = "|".join(f"{{{{ {name} }}}}" for name in CELLS)
    made: dict[str, str] = {}
    options: Any = {"key": "sku", "provider": "file", "on_null": "empty", "store": store}
    words = ["submit", str(path), "-t", template, "-m", "m", "--key", "sku", "--provider", "file"]
    done = CliRunner().invoke(app, [*words, "--on-null", "empty", "--store", str(store)])
    assert done.exit_code == 0, done.output
    for door, read in DOORS.items():
        made[door] = frameenrich.llmbatch(read(path)).submit(template, "m", **options).id

    (job_id,) = frameenrich.jobs(store)["job"]
    (requests,) = frameenrich.open_job(job_id, store=store).requests
    bodies = [json.loads(line)["body"] for line in Path(requests).read_text().splitlines()]
    assert made == dict.fromkeys(DOORS, job_id)
    for row, body in enumerate(bodies):
        cells = body["messages"][-1]["content"].split("|")
        assert dict(zip(CELLS, cells, strict=True)) == {
            n: said[row] for n, (_, said) in CELLS.items()
        }


ODD: dict[str, tuple[Any, list[str]]] = {
    "dictionary": (pa.array(["a", None]).dictionary_encode(), ["a", ""]),
    "decimal": (pa.array([Decimal("1.50"), None]), ["1.50", ""]),
    "struct": (pa.array([{"x": 1}, None]), ["{'x': 1}", ""]),
    "large_string": (pa.array(["a", None], pa.large_string()), ["a", ""]),
    "string_view": (pa.array(["a", None], pa.string_view()), ["a", ""]),
    "run_end": (pa.RunEndEncodedArray.from_arrays([1, 2], ["a", "b"]), ["a", "b"]),
    "uint64": (pa.array([2**64 - 1, None], pa.uint64()), [str(2**64 - 1), ""]),
    "far date": (pa.array([date(1500, 1, 1), None]), ["1500-01-01", ""]),
    "days": (pa.array([pa.MonthDayNano([0, 1, 0]), None]), ["1 days 00:00:00", ""]),
    "months": (pa.array([pa.MonthDayNano([2, 1, 5 * 10**8]), None]), ["P2M1DT0.5S", ""]),
    "enum": (pl.Series(["a", None], dtype=pl.Enum(["a", "b"])), ["a", ""]),
    "categorical": (pl.Series(["a", None], dtype=pl.Categorical), ["a", ""]),
    "array": (pl.Series([[1, 2], None], dtype=pl.Array(pl.Int64, 2)), ["[1, 2]", ""]),
    "nothing": (pa.nulls(2), ["", ""]),
}


@pytest.mark.parametrize("rows", [2, 0])
@pytest.mark.parametrize("name", ODD)
def test_odd_columns_are_printed_and_come_back(name: str, rows: int, store: Path) -> None:
    """Promises 1 and 13: columns of any type print as a person writes them, and come back as is."""
    cells, printed = ODD[name]
    kind = pl.DataFrame if isinstance(cells, pl.Series) else pa.table
    table = kind({"sku": ["1", "2"], "cell": cells})[:rows]
    if not rows:
        with pytest.raises(InputError, match="is empty"):
            frameenrich.submit(table, "{{ cell }}", "m", key="sku", provider="file", store=store)
        return
    job = frameenrich.submit(
        table, "<{{ cell }}>", "m", key="sku", provider="file", store=store, on_null="empty"
    )
    lines = [line for path in job.requests for line in Path(path).read_text().splitlines()]
    bodies = [json.loads(line)["body"] for line in lines]
    back = frameenrich.collect(table, job)

    assert [body["messages"][-1]["content"] for body in bodies] == [
        f"<{text}>" for text in dict.fromkeys(printed)
    ]
    assert back["cell"].equals(table["cell"])


def test_columns_that_arrow_cannot_read_are_named(store: Path) -> None:
    """Promise 9: Polars' objects and 128-bit numbers are refused by name, not printed as bytes."""
    for cells in (pl.Series([object()], dtype=pl.Object), pl.Series([1], dtype=pl.Int128)):
        table = pl.DataFrame({"sku": ["1"], "cell": cells})
        with pytest.raises(InputError, match=r"The column 'cell' is of Polars' type .* Cast it"):
            frameenrich.submit(table, "{{ cell }}", "m", key="sku", provider="file", store=store)
