"""Small files that unpack to any size: one sentence, exit code 2, bounded memory (promise 8).

The bounds are lowered, so that no test has to unpack gigabytes; the code that keeps them is the
same. `test_a_workbook_...` keeps its own: the child that reads one has it from the system.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import frameenrich
from frameenrich import jsonl
from frameenrich.cli import table_jobs
from frameenrich.cli.main import app
from frameenrich.cli.tables import json_array, records
from frameenrich.cli.tables.files import table_file
from frameenrich.cli.tables.read import Source
from frameenrich.errors import InputError, ResponsesError

ROW = b"1,Red mug\n"
LINE = b'{"sku": "1", "title": "Red mug"}\n'
MB = 1 << 20


def zipped(content: bytes, name: str) -> bytes:
    """Return an archive of one file."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, content)
    return sink.getvalue()


def zstandard(content: bytes) -> bytes:
    """Return the content as .zst."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(content)
    return bytes(sink.getvalue().to_pybytes())


TABLE = b"sku,title\n" + ROW * (3 * MB // len(ROW))

PACKED: dict[str, Callable[[], bytes]] = {
    "goods.csv.gz": lambda: gzip.compress(TABLE),
    "goods.csv.zst": lambda: zstandard(TABLE),
    "goods.zip": lambda: zipped(TABLE, "goods.csv"),
    "goods.jsonl.gz": lambda: gzip.compress(LINE * (3 * MB // len(LINE))),
}


@pytest.fixture
def low_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the bounds to a megabyte, so that a bomb takes three."""
    monkeypatch.setattr(jsonl, "UNPACKED_BYTES", MB)
    monkeypatch.setattr(jsonl, "UNPACKED_TIMES", 20)
    monkeypatch.setattr(jsonl, "LONGEST_LINE_BYTES", MB)
    monkeypatch.setattr(records, "LONGEST_RECORD", MB // 2)
    monkeypatch.setattr(records, "MOST_LINES", 10_000)
    monkeypatch.setattr(json_array, "_MOST_BYTES", MB // 4)


def refused(name: str, content: bytes) -> str:
    """Give a file to the command line, which refuses it; gives the sentence."""
    Path(name).write_bytes(content)
    done = CliRunner().invoke(app, ["preview", name, "-t", "{{ title }}", "-m", "m"])
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.usefixtures("low_bounds")
@pytest.mark.parametrize("name", PACKED)
def test_a_packed_table_is_read_up_to_a_multiple_of_its_size(name: str) -> None:
    """The message has the bound and its reason, and what to do where the file is no bomb."""
    said = refused(name, PACKED[name]())

    assert f"{name} is not read: it unpacks to more than 1,048,576 bytes, over 20 times" in said
    assert "unpack it, and give the unpacked file" in said


@pytest.mark.usefixtures("low_bounds")
@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("line.csv.gz", gzip.compress(b"sku,title\n" + b"a" * (MB - 99)), "line 2: the record"),
        ("line.csv", b"sku,title\n" + b"a" * (MB + 1), "line 2: the record"),
        ("quote.csv", b'sku,title\n"' + b"\n" * 20_000, "line 2: the record that begins there"),
        ("cell.csv", b'sku,title\n1,"' + (b"a" * 999 + b"\n") * 1100, "line 2: the record"),
        ("line.jsonl", b'{"title": "' + b"a" * MB, "line 1: the record"),
        ("wide.csv", b"sku" + b"," * 100_000, "the header has 100,001 columns"),
        ("goods.json.gz", gzip.compress(b"[" + LINE * (MB // 2 // len(LINE))), "is read whole"),
        ("deep.json", b'[{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}]", "element 1 is not JSON"),
        ("object.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "holds an object"),
        ("deep.jsonl", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "line 1: this is not JSON"),
    ],
)
def test_what_no_table_holds_is_named(name: str, content: bytes, says: str) -> None:
    """One record may not fill the memory, nor one value the stack."""
    assert says in refused(name, content)


def test_a_table_of_constants_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shrinks to a five-hundredth, and is no bomb; it is streamed for the size that it has."""
    rows = 4 * MB // len(ROW)
    Path("goods.csv.gz").write_bytes(gzip.compress(b"sku,title\n" + ROW * rows))
    monkeypatch.setattr(table_jobs, "STREAM_BYTES", 3 * MB)

    with Source([table_file("goods.csv.gz")]) as source:
        assert Path("goods.csv.gz").stat().st_size * 100 < 4 * MB
        assert source.is_larger_than(3 * MB)
        assert not source.is_larger_than(5 * MB)
    done = CliRunner().invoke(
        app, ["preview", "goods.csv.gz", "-t", "{{ title }}", "-m", "m", "--limit", "9"]
    )
    assert done.exit_code == 0, done.stderr


def sheet(change: Callable[[str], str]) -> bytes:
    """Return a workbook of one row whose sheet was changed as text."""
    book, sink = openpyxl.Workbook(), io.BytesIO()
    for row in (["sku", "title"], ["1", "mug"]):
        book.active.append(row)
    book.save(sink)
    changed = io.BytesIO()
    with zipfile.ZipFile(sink) as own, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as to:
        for each in own.infolist():
            text = own.read(each).decode()
            to.writestr(each, change(text) if "sheet1.xml" in each.filename else text)
    return changed.getvalue()


_LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
_LAUGHS = f'<!DOCTYPE worksheet [<!ENTITY a0 "{"ha" * 99}">{_LAUGHS}]>'


@pytest.mark.parametrize(
    ("change", "says"),
    [
        # python-calamine asks for room for 17 billion cells, and ends its process without it.
        (lambda text: text.replace('"A2"', '"A1048576"').replace('"B2"', '"XFD1048576"'), "GB of"),
        (lambda text: _LAUGHS + text.replace("mug", "&a9;"), "cannot be read as a workbook"),
        (lambda text: text[:400], "cannot be read as a workbook"),
    ],
    ids=["far cell", "laughs", "cut"],
)
def test_a_workbook_takes_no_more_memory_than_its_child_has(
    change: Callable[[str], str], says: str
) -> None:
    """One stray cell in the last corner, as people make them, ended the command by a signal."""
    assert says in refused("goods.xlsx", sheet(change))


def test_packed_requests_and_responses_are_bounded_too(
    low_bounds: None, mugs: pd.DataFrame, store: Path
) -> None:
    """`submit_requests` and `import_responses` unpack gzip as they read."""
    del low_bounds
    Path("big.jsonl.gz").write_bytes(gzip.compress(b" \n" * (2 * MB)))
    job = mugs.llmbatch.submit("Sort {{ title }}", "m", provider="file", store=store)

    with pytest.raises(ResponsesError, match="it unpacks to more than 1,048,576 bytes, over 20"):
        job.import_responses("big.jsonl.gz")
    with pytest.raises(InputError, match="it unpacks to more than 1,048,576 bytes, over 20"):
        frameenrich.submit_requests("big.jsonl.gz", provider="file", store=store)


@pytest.mark.parametrize("kind", ["rows", "page", "cut", "length"])
def test_a_parquet_file_with_other_sizes_than_it_says(kind: str) -> None:
    """A footer or a page that claims what is not there is an error, not a request for memory."""
    pq.write_table(pa.table({"sku": ["1", "2"], "title": ["a" * 99, "b"]}), "in.parquet")
    whole = Path("in.parquet").read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    if kind == "rows":  # zigzag 2 in the footer's thrift becomes a large number of one byte
        footer = whole[-8 - length : -8].replace(b"\x16\x04", b"\x16\x7e")
        changed = whole[: -8 - length] + footer + whole[-8:]
    elif kind == "page":  # the first page header's size, as a number of five bytes
        changed = whole[:4] + b"\x15\x04\x15\xfe\xff\xff\xff\x0f" + whole[9:]
    elif kind == "cut":
        changed = whole[:40] + whole[-8 - length :]
    else:
        changed = whole[:-8] + b"\xff\xff\xff\x7f" + whole[-4:]

    assert "in.parquet" in refused("in.parquet", changed)


def test_a_text_that_stands_in_every_row_of_a_parquet_file() -> None:
    """It is in the file once, and would be in memory a hundred thousand times."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), ["a" * 100_000])
    table = pa.table({"title": texts})
    # Without Arrow's own schema the column is one of plain texts, as other writers have it.
    pq.write_table(table, "plain.parquet", store_schema=False)
    assert Path("plain.parquet").stat().st_size < 100_000

    assert "is not read: it unpacks to more than" in refused(
        "plain.parquet", Path("plain.parquet").read_bytes()
    )


def test_deep_values_reach_a_request_or_are_named() -> None:
    """What the reader takes, every later step takes: no `RecursionError` on the way."""
    for depth in (198, 300, 900):
        value = json.loads("[" * depth + "]" * depth)
        Path("deep.jsonl").write_text(json.dumps({"sku": "1", "title": value}) + "\n")
        done = CliRunner().invoke(app, ["preview", "deep.jsonl", "-t", "{{ title }}", "-m", "m"])
        assert done.exit_code == (0 if depth < 200 else 2), done.exception
        request = {"model": "m", "messages": [{"role": "user", "content": "x"}], "metadata": value}
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": request}
        Path("ready.jsonl").write_text(json.dumps(line) + "\n")
        try:
            frameenrich.submit_requests("ready.jsonl", provider="file", store=f"store-{depth}")
        except InputError as error:
            assert "line 1" in str(error)  # noqa: PT017 - either is fine
