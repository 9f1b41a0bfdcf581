"""Workbooks, JSON arrays, packed files, hints and addresses on the command line."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from batch_server import BatchServer
from openpyxl.styles import Font
from typer.testing import CliRunner, Result

from frameenrich.cli.main import app
from frameenrich.errors import FrameEnrichWarning

ASK = ["-t", "Colour of {{ title }}?", "-m", "gpt-4o-mini", "--key", "sku", "--name", "color"]
Run = Callable[..., Result]


@pytest.fixture
def run(server: BatchServer, monkeypatch: pytest.MonkeyPatch, store: Path) -> Run:
    """Run ``frameenrich run`` against the server, in this process."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)

    def called(source: str, target: str, *more: str, wanted: int = 0) -> Result:
        words = ["run", source, target, *ASK, "--store", str(store), "--poll-seconds", "0.01"]
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == wanted, done.output
        return done

    return called


def make_workbook(path: Path, **sheets: list[list[Any]]) -> None:
    """Write a workbook with styles, a formula and a wide column."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        sheet["A1"].font = Font(bold=True)
        sheet.column_dimensions["B"].width = 44
    book.save(path)


ROWS: list[list[Any]] = [
    ["sku", "title", "price", "since"],
    ["001", "Red mug", 3, pd.Timestamp("2026-01-02").to_pydatetime()],
    [],
    ["002", "Blue\nhose", 2.5, None],
]


def test_a_sheet_gets_its_answers_beside_its_cells(run: Run, tmp_path: Path) -> None:
    """Answers stand in the right rows; cells, formats, formulas and other sheets stay."""
    make_workbook(tmp_path / "in.xlsx", Goods=ROWS, Notes=[["a note"], ["=1+1"]])
    run("in.xlsx", "out.xlsx", "--sheet", "Goods")

    book = openpyxl.load_workbook("out.xlsx")
    sheet = book["Goods"]
    rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert rows[0] == ["sku", "title", "price", "since", "color", "color_status", "color_error"]
    assert rows[1][:3] == ["001", "Red mug", 3]
    assert rows[1][3] == ROWS[1][3]
    assert rows[1][4:] == ["echo: Colour of Red mug?", "ok", None]
    assert rows[2] == [None] * 7
    assert rows[3][4:6] == ["echo: Colour of Blue\nhose?", "ok"]
    assert sheet["A1"].font.bold
    assert sheet.column_dimensions["B"].width == 44
    assert book["Notes"]["A2"].value == "=1+1"


def test_a_workbook_is_the_job_of_its_csv(run: Run, tmp_path: Path, server: BatchServer) -> None:
    """A sheet and the CSV that a spreadsheet program makes of it ask for the same, once."""
    make_workbook(tmp_path / "in.xlsx", Goods=ROWS)
    Path("in.csv").write_text('sku,title,price\n001,Red mug,3\n002,"Blue\nhose",2.5\n')
    run("in.xlsx", "a.csv", "-t", "{{ title }} {{ price }}")
    asked = sum(server.executed.values())
    run("in.csv", "b.xlsx", "-t", "{{ title }} {{ price }}")

    assert sum(server.executed.values()) == asked == 2
    assert pd.read_csv("a.csv", dtype=str)["sku"].tolist() == ["001", "002"]
    assert pd.read_excel("b.xlsx", dtype=str, engine="calamine")["sku"].tolist() == ["001", "002"]


def test_a_second_run_replaces_its_own_columns(run: Run, tmp_path: Path) -> None:
    """The workbook that came out goes in again: no column twice."""
    make_workbook(tmp_path / "in.xlsx", Goods=ROWS)
    run("in.xlsx", "out.xlsx")
    run("out.xlsx", "again.xlsx")

    heads = [cell.value for cell in openpyxl.load_workbook("again.xlsx").worksheets[0][1]]
    assert heads == ["sku", "title", "price", "since", "color", "color_status", "color_error"]


def test_an_answer_is_never_a_formula(run: Run, tmp_path: Path, server: BatchServer) -> None:
    """A text that begins with = is a text in a workbook, whatever the model says."""
    make_workbook(tmp_path / "in.xlsx", Goods=[["sku", "title"], ["1", "x"]])
    run("in.xlsx", "out.xlsx", "--parser", "builtins:ascii")
    make_workbook(tmp_path / "bad.xlsx", Goods=[["sku", "title"], ["=1", "x"]])
    Path("in.csv").write_text("sku,title\n1,x\n2,=HYPERLINK(1)\n")
    run("in.csv", "out2.xlsx")

    cell = openpyxl.load_workbook("out2.xlsx").worksheets[0]["B3"]
    assert (cell.value, cell.data_type) == ("=HYPERLINK(1)", "s")


@pytest.mark.parametrize(
    ("sheets", "more", "says"),
    [
        ({"A": ROWS, "B": ROWS}, [], "Say which: --sheet 'A'"),
        ({"A": ROWS}, ["--sheet", "Z"], "has no sheet 'Z'"),
        ({"A": [*ROWS, ["003", "Cup", 1, None, "stray"]]}, [], "row 5: a cell stands outside"),
    ],
)
def test_what_cannot_be_chosen_is_said(
    run: Run, tmp_path: Path, sheets: dict[str, Any], more: list[str], says: str
) -> None:
    """Nothing is sent where it is not clear which cells are the table."""
    make_workbook(tmp_path / "in.xlsx", **sheets)
    assert says in run("in.xlsx", "out.csv", *more, wanted=2).output.replace("\n", " ")


def test_losses_are_told(run: Run, tmp_path: Path) -> None:
    """What the library cannot write back is named, so that the original is kept."""
    make_workbook(tmp_path / "in.xlsx", Goods=ROWS)
    with zipfile.ZipFile("in.xlsx", "a") as packed:
        packed.writestr("xl/charts/chart9.xml", "<c/>")
    with pytest.warns(FrameEnrichWarning, match="has charts"):
        run("in.xlsx", "out.xlsx")


ARRAY = r"""[
  {"sku": "A1", "title": "Red mug", "price": 1.50},
  {"sku": "A2", "title": "B\u00fc"}
]"""


def test_a_sheet_of_formats_alone_is_not_the_one_that_was_read(run: Run, tmp_path: Path) -> None:
    """Answers go where the rows are, also behind a sheet whose cells are only formatted."""
    make_workbook(tmp_path / "in.xlsx", Blank=[], Goods=ROWS)
    book = openpyxl.load_workbook("in.xlsx")
    book["Blank"]["B5"].font = Font(bold=True)
    book.save("in.xlsx")

    run("in.xlsx", "out.xlsx")

    made = openpyxl.load_workbook("out.xlsx")
    assert made["Goods"]["E2"].value == "echo: Colour of Red mug?"
    assert not any(cell for row in made["Blank"].values for cell in row)


def test_a_json_array_comes_back_as_one(run: Run) -> None:
    """Values stay as they were written (1.50, an escape); answers join their object."""
    Path("in.json").write_text(ARRAY)
    run("in.json", "out.json")
    text = Path("out.json").read_text(encoding="utf-8")

    assert [row["color_status"] for row in json.loads(text)] == ["ok", "ok"]
    assert '"price": 1.50' in text
    assert '"B\\u00fc"' in text
    run("in.json", "out.csv")
    run("out.json", "again.jsonl")
    assert len(Path("again.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"rows": []\n}', "an object, where an array"),
        ("[1]", "element 1 is no object"),
        ('[{"sku": "a"}, {"sku": ]', "element 2 is not JSON"),
        ('"x"', "begins with something else"),
        ('[{"sku": "a"}] [{"sku": "b"}]', "something follows the array's end"),
        ('[{"sku": "a"} {"sku": "b"}]', "no comma follows element 1"),
        ('[{"sku": "a"},, {"sku": "b"}]', "element 2 is not JSON"),
        ('{"sku": {"0": "a"}, "title": {"0": "b"}}', "holds a table by its columns"),
        ('{"title": {"0": "a", "1": "b"}}', "orient='records'"),
        ('{"sku": ["a", "b"],\n "title": ["c", "d"]}', "holds a table by its columns"),
        ('{"columns": ["sku"], "index": [0], "data": [["a"]]}', "holds a table by its columns"),
        ('{"meta": {}, "hits": [{"sku": "a"}]}', "jq '.[\"hits\"]' OLD.json"),
    ],
)
def test_other_json_is_refused(run: Run, text: str, says: str) -> None:
    """What is no array of objects is named by its element."""
    Path("in.json").write_text(text)
    assert says in run("in.json", "out.json", wanted=2).output.replace("\n", " ")


@pytest.mark.parametrize("packing", [".gz", ".zst", ".zip"])
def test_packed_files(run: Run, packing: str) -> None:
    """Packed tables are read and written; the bytes inside are those of the plain file."""
    plain = b"sku,title\r\nA1,Red mug\r\nA2,Blue hose\r\n"
    source = Path(f"in.csv{packing}")
    if packing == ".zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("rows.csv", plain)
    else:
        source.write_bytes(gzip.compress(plain) if packing == ".gz" else b"")
        if packing == ".zst":
            with pa.CompressedOutputStream(str(source), "zstd") as out:
                out.write(plain)
    Path("in.csv").write_bytes(plain)
    run(str(source), f"out.csv{packing}")
    run("in.csv", "out.csv")

    if packing == ".zip":
        with zipfile.ZipFile("out.csv.zip") as archive:
            assert archive.namelist() == ["out.csv"]
            inside = archive.read("out.csv")
    else:
        inside = pa.input_stream(f"out.csv{packing}").read()
    assert inside == Path("out.csv").read_bytes()
    assert inside.startswith(b"sku,title,color,")
    assert pl.read_csv("out.csv")["color_status"].to_list() == ["ok", "ok"]
    source.write_bytes(source.read_bytes()[:-9])
    assert "is not a whole" in run(str(source), "x.csv", wanted=2).output


def test_an_archive_names_its_only_table(run: Run) -> None:
    """``goods.zip`` is the table in it; several files in it are refused."""
    with zipfile.ZipFile("goods.zip", "w") as archive:
        archive.writestr("__MACOSX/._rows.csv", "x")
        archive.writestr("folder/.DS_Store", "x")
        archive.writestr("Thumbs.db", "x")
        archive.writestr("folder/rows.csv", "sku,title\nA1,Mug\n")
    run("goods.zip", "out.csv")
    with zipfile.ZipFile("goods.zip", "a") as archive:
        archive.writestr("more.csv", "sku,title\n")
    assert "holds 2 files" in run("goods.zip", "out.csv", wanted=2).output


def test_a_line_that_says_the_delimiter(run: Run) -> None:
    """``sep=;`` is obeyed and kept; the cells stay byte for byte."""
    Path("in.csv").write_bytes(b"sep=;\r\nsku;title;n\r\nA1;Red, mug;1,50\r\n")
    run("in.csv", "out.csv")
    lines = Path("out.csv").read_bytes().split(b"\r\n")

    assert lines[:2] == [b"sep=;", b"sku;title;n;color;color_status;color_error"]
    assert lines[2].startswith(b"A1;Red, mug;1,50;")
    run("in.csv", "out.tsv")
    assert Path("out.tsv").read_bytes().startswith(b"sku\ttitle")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("https://docs.google.com/spreadsheets/d/abc/edit#gid=0", "File > Download"),
        ("https://docs.google.com/spreadsheets/d/abc/edit?usp=sharing", "File > Download"),
        ("https://1drv.ms/x/s!abc?e=1", "Download a Copy"),
        ("https://acme.sharepoint.com/:x:/s/a/b?e=1", "Download a Copy"),
        ("https://www.dropbox.com/scl/fi/a/goods.csv?rlkey=b&dl=0", "choose Download"),
        ("https://github.com/a/b/blob/main/goods.csv", "Download raw file"),
        ("https://example.org/goods.csv", "curl -L -o goods.csv https"),
        ("https://example.org/[a]*/x.parquet?key=1", "curl -L -o x.parquet 'https"),
        ("https://example.org/export?format=csv", "curl -L -o table.csv 'https"),
        ("https://[half/goods.csv", "curl -L"),
        ("s3://bucket/goods.csv", "frameenrich.submit"),
    ],
)
def test_an_address_says_how_to_export(run: Run, address: str, says: str) -> None:
    """Whoever gives an address is told how to make a file of it."""
    assert says in run(address, "out.csv", wanted=2).output.replace("\n", " ")


def test_old_workbooks_are_read_only(run: Run, tmp_path: Path) -> None:
    """.xls and .ods are no files to write, which is said before anything is sent."""
    Path("in.csv").write_text("sku,title\nA1,Mug\n")
    assert "Name it .xlsx" in run("in.csv", "out.ods", wanted=2).output.replace("\n", " ")
