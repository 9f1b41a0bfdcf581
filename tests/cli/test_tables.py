"""Tables are read as they stand, and a file that cannot be used is told with its line."""

from __future__ import annotations

import gzip
import io
import os
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from frameenrich.cli.tables.arrow_types import plain_type
from frameenrich.cli.tables.files import table_file
from frameenrich.cli.tables.read import read_table
from frameenrich.errors import InputError

PRICES = (
    "\ufeffsku,price,when,note\r\n"
    '007,12.50,2024-02-30,NA\r\n98765432109876543210,1e3,,"two\r\nlines"\r\n'
)

PACKED = gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)
FLIPPED = PACKED[:12] + b"\xff" + PACKED[13:]


def frame_of(path: Path, data: bytes | str, **options: Any) -> pd.DataFrame:
    """What is read from a file of that content."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with read_table(table_file(str(path)), **options) as table:
        return table.frame


def cells_of(frame: pd.DataFrame) -> list[list[Any]]:
    """Each row's cells, nulls as None."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [list(row) for row in plain.itertuples(index=False)]


def test_csv_cells_are_their_texts(tmp_path: Path) -> None:
    """No cell becomes a number, a date or a null but the empty one."""
    frame = frame_of(tmp_path / "goods.csv", PRICES)

    assert list(frame.columns) == ["sku", "price", "when", "note"]
    assert cells_of(frame) == [
        ["007", "12.50", "2024-02-30", "NA"],
        ["98765432109876543210", "1e3", None, "two\r\nlines"],
    ]
    assert frame.index.equals(pd.RangeIndex(2))


def test_an_empty_cell_is_a_null_for_the_template(tmp_path: Path) -> None:
    """``{{ when or "never" }}`` works on what is read, and "NA" is a text."""
    frame = frame_of(tmp_path / "goods.csv", PRICES)

    shown = frame.llmbatch.preview('{{ price }} {{ when or "never" }} {{ note }}', "m")

    texts = [body["messages"][0]["content"] for _, body in shown.requests]
    assert texts == ["12.50 2024-02-30 NA", "1e3 never two\r\nlines"]


def test_tsv_has_tabs_between_cells(tmp_path: Path) -> None:
    """In a .tsv a comma is a character like others."""
    assert cells_of(frame_of(tmp_path / "goods.tsv", "a\tb\n1,5\t\n")) == [["1,5", None]]


def test_the_same_column_name_may_stand_twice(tmp_path: Path) -> None:
    """Columns keep their names; a template that uses neither of the two works."""
    frame = frame_of(tmp_path / "goods.csv", "a,b,a\n1,2,3\n")

    assert list(frame.columns) == ["a", "b", "a"]
    assert len(frame.llmbatch.preview("{{ b }}", "m").requests) == 1


@pytest.mark.parametrize("called", ["goods.jsonl", "goods.json"])
def test_a_key_that_stands_twice_in_a_row_is_refused(called: str, tmp_path: Path) -> None:
    """Nobody can tell which of the two is meant; the objects in a row are the template's affair."""
    fine = '{"a": "1:2", "b": {"c": 1, "c": 2}, "d": [0, {"a": 1}, {"a": 2}]}\n'
    text = fine + '{"a": 1, "b": "x", "\\u0061": 2}\n'

    assert frame_of(tmp_path / f"fine-{called}", fine)["a"].tolist() == ["1:2"]
    with pytest.raises(InputError, match=f"{called}, line 2: the key 'a' stands in it twice"):
        frame_of(tmp_path / called, text)


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    """As pandas reads it."""
    text = "\na,b\n\n1,2\n\n3,4\n\n"
    frame = frame_of(tmp_path / "goods.csv", text)

    assert cells_of(frame) == [["1", "2"], ["3", "4"]]
    assert len(frame) == len(pd.read_csv(io.StringIO(text)))


def test_many_rows_come_in_order(tmp_path: Path) -> None:
    """Rows are read in chunks, and put together as they were."""
    text = "n\n" + "".join(f"{n}\n" for n in range(10_000))

    assert frame_of(tmp_path / "n.csv", text)["n"].tolist() == [str(n) for n in range(10_000)]


def test_limit_reads_no_further(tmp_path: Path) -> None:
    """Rows beyond the limit are not looked at, not even a broken one."""
    broken = "a,b\n1,2\n3,4\n5\n"
    lines = '{"a": 1}\n{"a": 2}\nbroken\n'

    assert cells_of(frame_of(tmp_path / "x.csv", broken, limit=2)) == [["1", "2"], ["3", "4"]]
    assert cells_of(frame_of(tmp_path / "x.jsonl", lines, limit=2)) == [[1], [2]]


def test_json_values_are_what_json_says(tmp_path: Path) -> None:
    """Numbers of any size, nested values and absent members stay what they are."""
    lines = '{"n": 98765432109876543210, "x": [1, {"y": null}]}\n\n{"z": true, "n": 1}\n'

    frame = frame_of(tmp_path / "goods.jsonl", lines)

    assert list(frame.columns) == ["n", "x", "z"]
    assert frame["n"].tolist() == [98765432109876543210, 1]
    assert frame["x"].tolist() == [[1, {"y": None}], None]
    assert frame["z"].tolist() == [None, True]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    """An integer column with nulls is no float, and pandas' index is a column."""
    frame = pd.DataFrame({"n": pd.array([1, None], "Int64"), "when": pd.to_datetime("2024-02-29")})
    frame.index = pd.Index(["a", "b"], name="sku")
    frame.to_parquet(tmp_path / "goods.parquet")

    with read_table(table_file(str(tmp_path / "goods.parquet"))) as table:
        shown = table.frame.llmbatch.preview("{{ sku }} {{ n or 'none' }} {{ when.year }}", "m")

    assert [body["messages"][0]["content"] for _, body in shown.requests] == [
        "a 1 2024",
        "b none 2024",
    ]


def test_parquet_of_text_views_is_read(tmp_path: Path) -> None:
    """As Polars writes them; Arrow has no way to pick rows of these, and said so in its words."""
    path = tmp_path / "goods.parquet"
    titles = pa.array(["Red mug", None, "Hose"], pa.string_view())
    pq.write_table(pa.table({"sku": [1, 2, 3], "title": titles}), path)

    with read_table(table_file(str(path))) as table:
        shown = table.frame.llmbatch.preview("{{ title or 'none' }}", "m")
    assert [body["messages"][0]["content"] for _, body in shown.requests] == [
        "Red mug",
        "none",
        "Hose",
    ]


_VIEW = pa.string_view()


@pytest.mark.parametrize(
    ("cell", "kind", "text"),
    [
        (["a", "b"], pa.list_(_VIEW), "['a', 'b']"),
        (["a", "b"], pa.large_list(_VIEW), "['a', 'b']"),
        (["a", "b"], pa.list_(_VIEW, 2), "['a', 'b']"),
        ({"x": ["a"]}, pa.struct([("x", pa.list_(_VIEW))]), "{'x': ['a']}"),
        ([("k", "v")], pa.map_(_VIEW, _VIEW), "[('k', 'v')]"),
        ({"in_view": 1}, pa.struct([("in_view", pa.int64())]), "{'in_view': 1}"),
    ],
    ids=str,
)
def test_parquet_of_nested_text_views_is_read(
    cell: Any, kind: pa.DataType, text: str, tmp_path: Path
) -> None:
    """Lists, objects and maps of what Polars writes print as those of plain texts."""
    path = tmp_path / "goods.parquet"
    pq.write_table(pa.table({"sku": [1, 2], "c": pa.array([cell, None], kind)}), path)

    with read_table(table_file(str(path))) as table:
        shown = table.frame.llmbatch.preview("{{ c or 'none' }}", "m")
    assert [body["messages"][0]["content"] for _, body in shown.requests] == [text, "none"]


def test_a_parquet_column_that_arrow_cannot_cast_is_named(tmp_path: Path) -> None:
    """Not Arrow's own words alone; a version of Arrow that can read it has to read it right."""
    kind = pa.dictionary(pa.int8(), pa.list_(pa.binary_view()))
    assert plain_type(kind) == pa.dictionary(pa.int8(), pa.list_(pa.large_binary()))
    path = tmp_path / "goods.parquet"
    tags = pa.array([["a"], None], pa.list_view(_VIEW))
    pq.write_table(pa.table({"sku": [1, 2], "tags": tags}), path)

    try:
        with read_table(table_file(str(path))) as table:
            cells = table.frame["tags"].tolist()
    except InputError as error:
        assert error.problem.startswith("The column 'tags' (list_view<")  # noqa: PT017
    else:
        assert [None if cell is None else list(cell) for cell in cells] == [["a"], None]


def test_parquet_dictionaries_lists_and_decimals_reach_the_template(tmp_path: Path) -> None:
    """Arrow's own types are Python's values."""
    columns = {
        "c": pa.array(["x", None]).dictionary_encode(),
        "l": pa.array([["p", "q"], []]),
        "d": pa.array(["1.50", "2"]).cast(pa.decimal128(5, 2)),
    }
    pq.write_table(pa.table(columns), tmp_path / "goods.parquet")

    with read_table(table_file(str(tmp_path / "goods.parquet"))) as table:
        template = "{{ c or '-' }} {{ l | join('+') }} {{ d }}"
        shown = table.frame.llmbatch.preview(template, "m")

    texts = [body["messages"][0]["content"] for _, body in shown.requests]
    assert texts == ["x p+q 1.50", "-  2.00"]


def test_gzip_is_unpacked(tmp_path: Path) -> None:
    """A .csv.gz is a .csv."""
    frame = frame_of(tmp_path / "goods.csv.gz", gzip.compress(PRICES.encode(), mtime=0))

    assert frame["sku"].tolist() == ["007", "98765432109876543210"]


def test_a_named_pipe_is_read(tmp_path: Path) -> None:
    """What cannot be read twice is copied: ``frameenrich run <(zcat ...)`` works."""
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_text, args=("a\n1\n",))
    writer.start()

    with read_table(table_file(str(pipe))) as table:
        assert cells_of(table.frame) == [["1"]]
    writer.join()


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` is standard input, in the format that was said."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n1\n")))

    with read_table(table_file("-", "csv")) as table:
        assert cells_of(table.frame) == [["1"]]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("x.csv", "", "x.csv is empty."),
        ("x.csv", "\n\n", "x.csv is empty."),
        ("x.csv", "a,b\n", "x.csv holds no rows."),
        ("x.jsonl", "\n", "x.jsonl holds no rows."),
        ("x.csv", 'a,b\n1,"\n"\n\n1,2,3\n', "x.csv, line 5: 3 cells, where the header has 2."),
        ("x.csv", "a,b\n1\n", "x.csv, line 2: 1 cell, where the header has 2."),
        ("x.tsv", b"a\tb\n1\t\xff\n", "x.tsv, line 2: this is not UTF-8."),
        ("x.csv", "a,b\n1,2\n".encode("utf-16"), "x.csv is not UTF-8 but utf-16."),
        ("x.csv", "a,b\n1,2\n".encode("utf-16-le"), "x.csv is not UTF-8 but utf-16-le."),
        ("x.csv", "a,b\n1,2\n".encode("utf-16-be"), "x.csv is not UTF-8 but utf-16-be."),
        ("x.csv", "a,b\n1,2\n".encode("utf-32-le"), "x.csv is not UTF-8 but utf-32-le."),
        ("x.csv", "\u20ac,b\n1,2\n".encode("utf-32-le"), "x.csv is not UTF-8 but utf-32-le."),
        ("x.jsonl", '{"a": 1}'.encode("utf-32-be"), "x.jsonl is not UTF-8 but utf-32-be."),
        ("x.csv", "\u20ac,b\n1,2\n".encode("utf-32-be"), "x.csv is not UTF-8 but utf-32-be."),
        ("x.jsonl", '{"a": 1}'.encode("utf-32"), "x.jsonl is not UTF-8 but utf-32."),
        ("x.jsonl", '{"a": 1}\n[{"a": 1}]\n', "x.jsonl, line 2: this is a JSON array"),
        ("x.jsonl", '{"a": 1}\n{"a"', "x.jsonl, line 2: this is not JSON"),
        ("x.csv.gz", "a,b\n1,2\n", "x.csv.gz is not a complete gzip file"),
        (
            "x.csv.gz",
            gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-9],
            "x.csv.gz is not a complete gzip file",
        ),
        ("x.csv.gz", FLIPPED, "x.csv.gz is not a complete gzip file: Error -3"),
        ("x.parquet", "PAR1 not", "x.parquet cannot be read as Parquet"),
        ("x.parquet", "", "x.parquet cannot be read as Parquet"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    name: str, data: bytes | str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One sentence names file, line and fault, one says what to do."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(data.encode() if isinstance(data, str) else data)

    with pytest.raises(InputError) as raised:
        read_table(table_file(name))

    assert raised.value.problem.startswith(says)
    assert raised.value.fix


def test_a_missing_file_and_a_folder_say_so(tmp_path: Path) -> None:
    """The system's own words, and the path."""
    (tmp_path / "folder.csv").mkdir()

    with pytest.raises(InputError, match=r"none\.csv cannot be read: No such file"):
        read_table(table_file(str(tmp_path / "none.csv")))
    with pytest.raises(InputError, match=r"folder\.csv cannot be read: Is a directory"):
        read_table(table_file(str(tmp_path / "folder.csv")))


@pytest.mark.parametrize(
    "path", ["goods.pdf", "goods", "goods.parquet.gz", "goods.xlsx.gz", "-", ".csv"]
)
def test_an_unknown_format_is_refused(path: str) -> None:
    """Where neither ending nor option says the format, the message lists what is known."""
    with pytest.raises(InputError, match=r"is not known\. Use a file that ends in \.csv"):
        table_file(path)


def test_a_standard_stream_takes_the_others_format() -> None:
    """``frameenrich run goods.tsv -`` writes TSV; an ending wins over the option."""
    assert table_file("-", like=table_file("goods.tsv")).format == "tsv"
    assert table_file("-", "csv", like=table_file("goods.tsv")).format == "csv"
    assert table_file("goods.txt", "tsv").format == "tsv"
    assert table_file("GOODS.CSV", "tsv").format == "csv"
    with pytest.raises(InputError):
        table_file("-", like=table_file("goods.parquet"))
