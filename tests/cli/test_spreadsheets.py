"""Workbooks, JSON arrays, packed files, hints and addresses on the command line."""

from __future__ import annotations

import base64
import gzip
import json
import zipfile
import zlib
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
        ("[1]", "element 1 is not an object"),
        ('[{"sku": "a"}, {"sku": ]', "element 2 is not JSON"),
        ('"x"', "begins with something else"),
        ('[{"sku": "a"}] [{"sku": "b"}]', "something follows the array's end"),
        ('[{"sku": "a"} {"sku": "b"}]', "no comma follows element 1"),
        ('[{"sku": "a"},, {"sku": "b"}]', "element 2 is not JSON"),
        ('{"sku": {"0": "a"}, "title": {"0": "b"}}', "holds the table column by column"),
        ('{"title": {"0": "a", "1": "b"}}', "orient='records'"),
        ('{"sku": ["a", "b"],\n "title": ["c", "d"]}', "holds the table column by column"),
        ('{"columns": ["sku"], "index": [0], "data": [["a"]]}', "holds the table column by column"),
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
    assert "is not a complete" in run(str(source), "x.csv", wanted=2).output


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
        ("https://example.org/list.html", "pandas.read_html('https://example.org/list.html')"),
        ("s3://bucket/goods.csv", "frameenrich.submit"),
        ("gs://bucket/goods.csv", "frameenrich.submit"),
    ],
)
def test_an_address_says_how_to_export(run: Run, address: str, says: str) -> None:
    """Whoever gives an address is told how to make a file of it."""
    assert says in run(address, "out.csv", wanted=2).output.replace("\n", " ")


def odd(sheet: Any) -> None:
    """Make a formula without a stored value, an error, merged cells and a hidden row."""
    sheet["C2"], sheet["C5"] = "=1+1", "=2+2"
    sheet["C3"] = "#N/A"
    sheet["C3"].data_type = "e"
    sheet.merge_cells("B4:B5")
    sheet.row_dimensions[4].hidden = True


def test_cells_that_are_not_read_as_they_look_are_named(run: Run, tmp_path: Path) -> None:
    """What a person sees in a sheet and a program does not is said, with its first cell."""
    make_workbook(
        tmp_path / "in.xlsx",
        Notes=[],
        Goods=[["sku", "title", "x"], *[[str(i), "Mug", None] for i in range(4)]],
    )
    book = openpyxl.load_workbook("in.xlsx")
    odd(book["Goods"])
    book.save("in.xlsx")
    with pytest.warns(FrameEnrichWarning) as told:
        run("in.xlsx", "out.xlsx", "--on-null", "empty", "--sheet", "Goods")

    said = {str(each.message).partition(". ")[0] for each in told}
    assert said == {
        "in.xlsx, sheet 'Goods': formulas without a stored value are read as empty: C2 and 1 more",
        "in.xlsx, sheet 'Goods': cells that show an error, such as #N/A, are read as empty: C3",
        "in.xlsx, sheet 'Goods': merged cells have a value in the first of them only: B4:B5",
        "in.xlsx, sheet 'Goods': hidden rows are read like the others: row 4",
    }
    sheet = openpyxl.load_workbook("out.xlsx")["Goods"]
    assert [sheet[f"D{n}"].value for n in (2, 5)] == ["echo: Colour of Mug?", "echo: Colour of ?"]
    assert sheet["C2"].value == "=1+1"
    assert [str(each) for each in sheet.merged_cells.ranges] == ["B4:B5"]
    assert sheet.row_dimensions[4].hidden


def test_answers_go_into_cells_that_were_merged(run: Run, tmp_path: Path) -> None:
    """A header merged over the columns beside the table leaves room for the answers."""
    make_workbook(tmp_path / "in.xlsx", Goods=[["sku", "title"], ["1", "Mug"]])
    book = openpyxl.load_workbook("in.xlsx")
    book["Goods"].merge_cells("B1:D1")
    book.save("in.xlsx")
    with pytest.warns(FrameEnrichWarning, match="B1:D1"):
        run("in.xlsx", "out.xlsx")

    heads = [cell.value for cell in openpyxl.load_workbook("out.xlsx").worksheets[0][1]]
    assert heads == ["sku", "title", "color", "color_status", "color_error"]


OLD = zlib.decompress(base64.b85decode(
    b"c-rk)O=uHA6#izD%^yvg)KqAN5(-vrdua8bmv*(FIaz8iiU^vTMM`2KX#(m&t2IYK@T7Pt^x~!J#UJ#bHxEKZ4}u"
    b"~jdhAJ1@X%&`^LDpQHHQSWsLZ#_n>TOfo0;ABW_D*^FU2bJ54x-P38V0!W(DD^vk6K;w-5!@Tb5MaJV41(_@@vIk"
    b"RyFMo`zrfr4OaQtI%-Y`+_9!iP8z2!+1VtCN>dcJcpE!a~L5haEB}rbn&b@Se|CNh2=eN`Hba$wp?d9LTxMJIF^j"
    b"@{(VjqAJcldE&|!_Bj&tk%P>0eQbzIR8^Ug@<3M3LmHj&_dc18|0QoIx=FCDWTS1&0xPWg~0{H5#)aMCh-(0%@*}"
    b"reJ`y1GAYF=O#)+r9~GQ#-aku^G!`Fwh21$(7)Igx!PQ__LrbTMmE7@Q}|(9kf|O`7S%+0q#<@1_pNvL!Plw`yM6"
    b"(G5#G%pu=KGL3fDV;uNV+PqipetC0vYQi|lmRa7;?M;8XoF^<?kqjb7xW=<4`<XGo@+$YbjrDGpak?MM`zAUa<<K"
    b"0rxyH49G|nEzTVqF^zLWIw@{z|q<<G`0(ifA}i}A&G#yooIC6p$<yyh?{2F2}L5>E^_7tRLpk!9B}n?*p2I&-(2H"
    b"(NVa5n?sQ(k{uTBi2fq^Q<IWG++y6dz|)y+48wv(qu`pBMw_@z}A?pJ8auCK8LL_dzrc()jIG{Hl<B&9U&+vC@3f"
    b">C@3f>GzGyQw)SVdmyaIyLBa3**IA`hQ@=_6TTCKPSCI~;2a%(^fD0|f&sONd?MpPtasL-e9Hr3<$Y6@+k!d-8>7"
    b"Xa-@26>E^!F{HR>!ZkGS5Fe{tss4%n<"
))  # fmt: skip
"""An .xls that xlwt wrote: 001 Red mug 3, 002 Blue 2.5."""

ODS = """<office:document-content
 xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"><office:body><office:spreadsheet>
<table:table table:name="Goods">{}</table:table>
</office:spreadsheet></office:body></office:document-content>"""


MANIFEST = '<manifest xmlns="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'


def make_ods(path: Path, rows: list[list[str]]) -> None:
    """Write the least that is an .ods: texts in one sheet."""
    cell = '<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell>'
    cells = ["".join(cell.format(text) for text in row) for row in rows]
    lines = "".join(f"<table:table-row>{row}</table:table-row>" for row in cells)
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        packed.writestr("META-INF/manifest.xml", MANIFEST)
        packed.writestr("content.xml", ODS.format(lines))


def test_workbooks_of_other_programs(run: Run, tmp_path: Path, server: BatchServer) -> None:
    """Old Excel's and LibreOffice's workbooks are the job of the same sheet in .xlsx."""
    rows = [["sku", "title", "x"], ["001", "Red mug", "3"], ["002", "Blue", "2.5"]]
    Path("old.xls").write_bytes(OLD)
    make_ods(tmp_path / "in.ods", rows)
    make_workbook(tmp_path / "in.xlsx", Goods=rows)
    ask = "{{ title }} {{ x }}"
    run("old.xls", "a.xlsx", "-t", ask)
    asked = sum(server.executed.values())
    run("in.ods", "b.csv", "-t", ask)
    run("in.xlsx", "c.csv", "-t", ask)

    assert sum(server.executed.values()) == asked == 2
    assert Path("b.csv").read_text() == Path("c.csv").read_text()
    assert pd.read_excel("a.xlsx", dtype=str, engine="calamine")["color"].tolist() == [
        "echo: Red mug 3",
        "echo: Blue 2.5",
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("in.xlsx", bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), "protected by a password"),
        ("in.xls", b"<html><table><tr><td>sku", "is a web page or XML"),
        ("in.xls", b"sku\ttitle\n1\tMug\n", "Rename it to .csv, or to .tsv"),
        ("in.xlsb", b"PK\x03\x04", "cannot be read as a workbook"),
    ],
)
def test_what_is_no_workbook_is_said(run: Run, name: str, content: bytes, says: str) -> None:
    """Password, a web page, a text under a workbook's name: each has a sentence of its own."""
    Path(name).write_bytes(content)
    assert says in run(name, "out.csv", wanted=2).output.replace("\n", " ")


def test_decimal_commas_stay_texts(run: Run, server: BatchServer) -> None:
    """Numbers as Europe writes them are sent, and written back, as they stand in the file."""
    Path("in.csv").write_bytes("sku;title;price\r\n1;Tasse;1.234,50 €\r\n".encode("cp1252"))
    more = ["--delimiter", ";", "--encoding", "cp1252"]
    run("in.csv", "out.csv", "-t", "{{ title }} {{ price }}", *more)

    assert b"1;Tasse;1.234,50 \xe2\x82\xac;echo: Tasse 1.234,50" in Path("out.csv").read_bytes()


def test_old_workbooks_are_read_only(run: Run, tmp_path: Path) -> None:
    """.xls and .ods are no files to write, which is said before anything is sent."""
    Path("in.csv").write_text("sku,title\nA1,Mug\n")
    assert "Name it .xlsx" in run("in.csv", "out.ods", wanted=2).output.replace("\n", " ")
