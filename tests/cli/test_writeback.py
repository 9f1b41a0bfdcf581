"""What was in a table is in the result, byte for byte; what is added is whole or absent."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from draws import examples
from hypothesis import given
from hypothesis import strategies as st

from frameenrich.cli.tables.chunks import Chunk
from frameenrich.cli.tables.files import table_file
from frameenrich.cli.tables.read import read_table
from frameenrich.cli.tables.write import ChunkWithAnswers, check_writable, write_chunks, write_table
from frameenrich.errors import FrameEnrichError, InputError, OutputError

IMDB = ROOT.parent / "shared" / "data" / "imdb_top_1000.csv"
ODD = (
    b'\xef\xbb\xbf"sku",price, when ,note\r\n'
    b'007,12.50,2024-02-30,"NA"\r\n'
    b"\r\n"
    b'98765432109876543210,"1,5",null,"two\r\nlines ""quoted"""\r\n'
    b'"1",.5,,\xe6\xbc\xa2'
)
ANSWERS = ["plain", 'say "hi", twice', "two\nlines"]


def with_answers(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with columns of every type that `collect` makes; each third row has none."""
    n = len(frame)
    has = [i % 3 != 2 for i in range(n)]

    def some(values: list[Any], dtype: Any) -> pd.Series:
        cells = [values[i % len(values)] if has[i] else None for i in range(n)]
        return pd.Series(cells, dtype=dtype, index=frame.index)

    added = {
        "text": some(ANSWERS, "string"),
        "label, of ours": some(["a", "b"], pd.CategoricalDtype(["a", "b", "c"])),
        "number": some([1.5, -2.0], "Float64"),
        "count": some([7, -8], "Int64"),
        "is": some([True, False], "boolean"),
        "list": some([["p", 1], [], ["q"]], object),
    }
    return pd.concat([frame, pd.DataFrame(added)], axis=1)


def rewrite(source: Path | str, target: Path, **options: Any) -> pd.DataFrame:
    """Read a table, add columns, write it; returns the frame with them."""
    with read_table(table_file(str(source)), limit=options.pop("limit", None)) as table:
        answered = with_answers(table.frame)
        write_table(table, answered, table_file(str(target)), **options)
    return answered


def cut(result: bytes, source: bytes, added: int, delimiter: str = ",") -> bytes:
    """The result without its last cells, cut off by a scan of our own for unquoted delimiters."""
    kept = io.BytesIO()
    mark, quoted, pending, begun = delimiter.encode(), False, [], False
    for byte in (result[i : i + 1] for i in range(len(result))):
        begun = True
        if byte == b'"':
            quoted = not quoted
        pending.append(byte)
        if byte == b"\n" and not quoted:
            kept.write(_without(pending, mark, added))
            pending, begun = [], False
    if begun:
        kept.write(_without(pending, mark, added))
    return kept.getvalue()


def _without(record: list[bytes], mark: bytes, added: int) -> bytes:
    places, quoted = [], False
    for i, byte in enumerate(record):
        quoted ^= byte == b'"'
        if byte == mark and not quoted:
            places.append(i)
    if not places:
        return b"".join(record)  # a blank line
    end = b"".join(record[-2:]) if record[-2:] == [b"\r", b"\n"] else b"".join(record[-1:])
    tail = end if end.endswith(b"\n") else b""
    return b"".join(record[: places[-added]]) + tail


@pytest.mark.parametrize(
    "source",
    [
        ROOT / "sample_data" / "products.csv",
        pytest.param(
            IMDB, marks=pytest.mark.skipif(not IMDB.exists(), reason="shared/ is not here")
        ),
    ],
    ids=["products", "imdb"],
)
def test_real_tables_come_back_byte_for_byte(source: Path, tmp_path: Path) -> None:
    """Cutting off what was appended gives exactly the file that was read."""
    answered = rewrite(source, tmp_path / "out.csv")

    result = (tmp_path / "out.csv").read_bytes()
    assert cut(result, source.read_bytes(), added=6) == source.read_bytes()
    assert len(pd.read_csv(tmp_path / "out.csv")) == len(answered)


def test_every_oddity_of_a_csv_stays(tmp_path: Path) -> None:
    """Mark, quoting, line ends, leading zeros, "NA", blank lines, a missing last line end."""
    (tmp_path / "in.csv").write_bytes(ODD)
    rewrite(tmp_path / "in.csv", tmp_path / "out.csv")

    assert (tmp_path / "out.csv").read_bytes() == (
        b'\xef\xbb\xbf"sku",price, when ,note,text,"label, of ours",number,count,is,list\r\n'
        b'007,12.50,2024-02-30,"NA",plain,a,1.5,7,True,"[""p"",1]"\r\n'
        b"\r\n"
        b'98765432109876543210,"1,5",null,"two\r\nlines ""quoted""",'
        b'"say ""hi"", twice",b,-2.0,-8,False,[]\r\n'
        b'"1",.5,,\xe6\xbc\xa2,,,,,,'
    )


CELL = st.text(st.sampled_from('a0 ,;"\t\né'), max_size=5)  # Python 3.11 writes "\r" bare


@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(CELL, min_size=width, max_size=width), min_size=2, max_size=8
        )
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["csv", "tsv", "csv.gz"]),
)
@examples(40)
def test_any_csv_keeps_its_cells_and_gains_the_answers(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    end: str,
    quoting: Any,
    ending: str,
) -> None:
    """Read back by Python's `csv`, each record is the old one and the answers after it."""
    folder = tmp_path_factory.mktemp("any")
    text, delimiter = io.StringIO(newline=""), "\t" if ending == "tsv" else ","
    writer = csv.writer(text, quoting=quoting, lineterminator=end, delimiter=delimiter)
    writer.writerows(rows)
    packed = ending.endswith("gz")
    data = text.getvalue().encode()
    (folder / f"in.{ending}").write_bytes(gzip.compress(data) if packed else data)

    rewrite(folder / f"in.{ending}", folder / f"out.{ending}")

    result = (folder / f"out.{ending}").read_bytes()
    result = gzip.decompress(result) if packed else result
    read = list(csv.reader(io.StringIO(result.decode(), newline=""), delimiter=delimiter))
    assert [record[: len(rows[0])] for record in read] == rows
    assert [record[len(rows[0])] for record in read[1:]] == [
        ANSWERS[i % 3] if i % 3 != 2 else "" for i in range(len(rows) - 1)
    ]


def test_limit_writes_the_rows_that_were_read(tmp_path: Path) -> None:
    """The header and the first rows, no more."""
    (tmp_path / "in.csv").write_bytes(b"a\n1\n\n2\n3\n")
    rewrite(tmp_path / "in.csv", tmp_path / "out.csv", limit=2)
    lines = (tmp_path / "out.csv").read_bytes().splitlines()

    assert [line.partition(b",")[0] for line in lines[:3]] == [b"a", b"1", b""]
    assert len(pd.read_csv(tmp_path / "out.csv")) == 2


def test_columns_of_an_earlier_collect_are_replaced_where_they_are(tmp_path: Path) -> None:
    """A result that is collected again keeps every other cell's bytes and the columns' order."""
    (tmp_path / "in.csv").write_bytes(b'"a",label,z\r\n"01",pending,"9"\r\n02,,"8,0"\r\n')
    with read_table(table_file(str(tmp_path / "in.csv"))) as table:
        answered = table.frame.assign(
            label=pd.Series(["x, y", None], dtype="string"), new=pd.Series([1, 2], dtype="Int64")
        )
        write_table(table, answered, table_file(str(tmp_path / "in.csv")))

    assert (tmp_path / "in.csv").read_bytes() == (
        b'"a",label,z,new\r\n"01","x, y","9",1\r\n02,,"8,0",2\r\n'
    )


def test_safe_csv_neutralises_answers_only(tmp_path: Path) -> None:
    """The table's own formulas stay; the model's become texts; numbers stay numbers."""
    (tmp_path / "in.csv").write_bytes(b"f\n=1+1\n-5\n")
    with read_table(table_file(str(tmp_path / "in.csv"))) as table:
        answered = table.frame.assign(
            text=pd.Series(['=HYPERLINK("http://evil")', "+cmd"], dtype="string"),
            label=pd.Categorical(["@a", "b"]),
            n=pd.Series([-1, 2], dtype="Int64"),
        )
        write_table(table, answered, table_file(str(tmp_path / "out.csv")), safe=True)
        write_table(table, answered, table_file(str(tmp_path / "out.tsv")), safe=True)
        write_table(table, answered, table_file(str(tmp_path / "plain.csv")))

    assert (tmp_path / "out.csv").read_text() == (
        'f,text,label,n\n=1+1,"\'=HYPERLINK(""http://evil"")",\'@a,-1\n-5,\'+cmd,b,2\n'
    )
    assert "=1+1\t\"'=HYPERLINK" in (tmp_path / "out.tsv").read_text()
    assert '=1+1,"=HYPERLINK' in (tmp_path / "plain.csv").read_text()


@pytest.mark.parametrize("source", ["in.csv", "in.jsonl"])
def test_safe_csv_neutralises_the_names_of_the_models_columns(source: str, tmp_path: Path) -> None:
    """A parser may make columns of an answer's keys; the table's own names stay."""
    (tmp_path / "in.csv").write_text("=own\n1\n")
    (tmp_path / "in.jsonl").write_text('{"=own": 1}\n')
    with read_table(table_file(str(tmp_path / source))) as table:
        answered = table.frame.assign(**{"=HYPERLINK(1)": pd.Series(["=x"], dtype="string")})
        write_table(table, answered, table_file(str(tmp_path / "out.csv")), safe=True)
        write_table(table, answered, table_file(str(tmp_path / "plain.csv")))

    assert (tmp_path / "out.csv").read_text() == "=own,'=HYPERLINK(1)\n1,'=x\n"
    assert (tmp_path / "plain.csv").read_text() == "=own,=HYPERLINK(1)\n1,=x\n"


@pytest.mark.parametrize("target", ["out.csv", "out.parquet", "out.jsonl"])
@pytest.mark.parametrize("later", [{"x": ["q"]}, {"x": ["q"], "y": [1], "z": [2]}, {"y": [1]}])
def test_chunks_whose_columns_differ_are_refused(
    later: dict[str, list[Any]], target: str, tmp_path: Path
) -> None:
    """No header that some rows do not fit, no schema that is sought for ever, no half a file."""
    both: list[Any] = [{"x": ["p"], "y": [1]}, later]

    def fill() -> Iterator[ChunkWithAnswers]:
        for i, answers in enumerate(both):
            own = pd.DataFrame({"a": [i]})
            yield ChunkWithAnswers(Chunk(i, i, ["a"], None, own=own), pd.DataFrame(answers))

    with pytest.raises(OutputError, match=r"The answers' column '[xyz]' is missing or moved"):
        write_chunks(fill, table_file(str(tmp_path / target)))
    assert list(tmp_path.iterdir()) == []


def test_json_lines_keep_their_bytes(tmp_path: Path) -> None:
    """Members are appended to each object; its own numbers, spaces and order stay."""
    lines = b'{ "z": 12.50, "a":98765432109876543210 }\r\n\r\n{"b": "\\u00e9"}'
    (tmp_path / "in.jsonl").write_bytes(lines)
    rewrite(tmp_path / "in.jsonl", tmp_path / "out.jsonl")

    first, blank, second = (tmp_path / "out.jsonl").read_bytes().splitlines(keepends=True)
    assert first.startswith(b'{ "z": 12.50, "a":98765432109876543210 , "text": "plain", ')
    assert first.endswith(b"}\r\n")
    assert blank == b"\r\n"
    assert second.startswith(b'{"b": "\\u00e9", "text": "say \\"hi\\", twice"')
    assert json.loads(first)["list"] == ["p", 1]
    assert json.loads(first)["number"] == 1.5


def test_json_members_of_an_earlier_collect_are_replaced(tmp_path: Path) -> None:
    """No name stands twice in an object."""
    (tmp_path / "in.jsonl").write_bytes(b'{"a": 1, "text": "old", "z": 2}\n')
    with read_table(table_file(str(tmp_path / "in.jsonl"))) as table:
        answered = table.frame.assign(text=pd.Series(["new"], dtype="string"))
        write_table(table, answered, table_file(str(tmp_path / "out.jsonl")))

    assert (tmp_path / "out.jsonl").read_text() == '{"a": 1, "text": "new", "z": 2}\n'


def test_parquet_keeps_its_own_columns(tmp_path: Path) -> None:
    """Types, metadata and values of the other columns are Arrow's; new ones read as pandas'."""
    own = pa.table(
        {
            "n": pa.array([1, None, 3], pa.int16()),
            "when": pa.array([0, 1, 2], pa.timestamp("ms", tz="Europe/Rome")),
            "d": pa.array(["1.50", "2", None]).cast(pa.decimal128(9, 2)),
            "c": pa.array(["x", "y", "x"]).dictionary_encode(),
            "l": pa.array([[1], [], None], pa.list_(pa.int8())),
        }
    ).replace_schema_metadata({"whose": "ours"})
    pq.write_table(own, tmp_path / "in.parquet")
    answered = rewrite(tmp_path / "in.parquet", tmp_path / "out.parquet")

    result = pq.read_table(tmp_path / "out.parquet")
    assert result.select(own.column_names).equals(own)
    assert result.schema.metadata[b"whose"] == b"ours"
    read = pd.read_parquet(tmp_path / "out.parquet")
    for column in ("text", "label, of ours", "number", "count", "is"):
        assert str(read[column].dtype).partition("[")[0] == str(answered[column].dtype)
    assert read["count"].tolist() == [7, -8, pd.NA]


def test_parquet_of_pandas_keeps_what_pandas_wants_to_know(tmp_path: Path) -> None:
    """A frame with an index and nullable columns comes back from pandas as it was, and more."""
    frame = pd.DataFrame(
        {"n": pd.array([1, None, 2], "Int64"), "s": pd.array(list("abc"), "string")}
    )
    frame.index = pd.Index([5, 6, 7], name="row")
    frame.to_parquet(tmp_path / "in.parquet")
    rewrite(tmp_path / "in.parquet", tmp_path / "out.parquet")

    read = pd.read_parquet(tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(read[["n", "s"]], frame)
    assert read["count"].dtype == "Int64"


def test_parquet_column_is_replaced_where_it_is(tmp_path: Path) -> None:
    """An earlier collect's column gives way, the order stays."""
    pd.DataFrame({"text": ["old", None], "z": [1, 2]}).to_parquet(tmp_path / "in.parquet")
    with read_table(table_file(str(tmp_path / "in.parquet"))) as table:
        answered = table.frame.assign(text=pd.Series([None, "new"], dtype="string"))
        write_table(table, answered, table_file(str(tmp_path / "out.parquet")))

    read = pd.read_parquet(tmp_path / "out.parquet")
    assert list(read.columns) == ["text", "z"]
    assert read["text"].tolist() == [pd.NA, "new"]


@pytest.mark.parametrize("cells", [[{}, {"a": {}}], [1, "x"], [[1], ["x"]], [2**80, None]])
def test_answers_without_a_type_in_common_go_to_parquet_as_json(
    cells: list[Any], tmp_path: Path
) -> None:
    """No answer that was paid for is lost to a file format."""
    (tmp_path / "in.csv").write_text("a\n1\n2\n")
    with read_table(table_file(str(tmp_path / "in.csv"))) as table:
        answered = table.frame.assign(x=pd.Series(cells, dtype=object))
        write_table(table, answered, table_file(str(tmp_path / "out.parquet")))

    read = pq.read_table(tmp_path / "out.parquet")["x"].to_pylist()
    parsed = [cell if cell in (None, "x") else json.loads(cell) for cell in read]
    assert parsed == cells


def test_vectors_go_everywhere(tmp_path: Path) -> None:
    """Embeddings are lists in Parquet and JSON, and JSON in CSV."""
    (tmp_path / "in.csv").write_text("a\n1\n2\n")
    with read_table(table_file(str(tmp_path / "in.csv"))) as table:
        vectors = pd.Series([np.array([0.5, 1.0], dtype="float32"), None], dtype=object)
        answered = table.frame.assign(v=vectors)
        for ending in ("csv", "jsonl", "parquet"):
            write_table(table, answered, table_file(str(tmp_path / f"out.{ending}")))

    assert (tmp_path / "out.csv").read_text() == 'a,v\n1,"[0.5,1.0]"\n2,\n'
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["v"] == [0.5, 1.0]
    assert pq.read_table(tmp_path / "out.parquet")["v"].to_pylist() == [[0.5, 1.0], None]


@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("target", ["csv", "tsv", "jsonl", "parquet", "jsonl.gz"])
def test_any_format_goes_to_any_other(source: str, target: str, tmp_path: Path) -> None:
    """The texts of a table are the same in every format."""
    notes = ["NA", 'a "b", c', "x\ty", None]
    if source == "jsonl":
        lines = [json.dumps({"sku": f"00{i}", "note": note}) for i, note in enumerate(notes)]
        (tmp_path / "in.jsonl").write_text("\n".join(lines))
    elif source == "parquet":
        columns = {"sku": [f"00{i}" for i in range(4)], "note": notes}
        pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    else:
        with (tmp_path / f"in.{source}").open("w", newline="") as file:
            mark = "," if source == "csv" else "\t"
            rows = [[f"00{i}", note] for i, note in enumerate(notes)]
            csv.writer(file, delimiter=mark).writerows([["sku", "note"], *rows])
    rewrite(tmp_path / f"in.{source}", tmp_path / f"out.{target}")

    with read_table(table_file(str(tmp_path / f"out.{target}"))) as table:
        read = table.frame
    assert read["sku"].tolist() == ["000", "001", "002", "003"]
    assert [None if pd.isna(note) else note for note in read["note"]] == notes
    assert list(read.columns)[2:] == ["text", "label, of ours", "number", "count", "is", "list"]


def test_a_source_that_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    """Answers never go beside rows that somebody edited while they were awaited."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("a\n1\n2\n")
    with read_table(table_file(str(source))) as table:
        answered = with_answers(table.frame)
        source.write_text("a\n2\n1\n")
        os.utime(source, ns=(1, 1))
        with pytest.raises(FrameEnrichError, match=r"in\.csv changed since it was read"):
            write_table(table, answered, table_file(str(target)))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]


def test_a_source_that_was_replaced_is_still_the_one_that_was_read(tmp_path: Path) -> None:
    """A new file under the old name does not disturb: the one that was read is kept open."""
    source = tmp_path / "in.csv"
    source.write_text("a\n1\n2\n")
    with read_table(table_file(str(source))) as table:
        (tmp_path / "new.csv").write_text("a\n9\n")
        (tmp_path / "new.csv").replace(source)
        write_table(table, with_answers(table.frame), table_file(str(tmp_path / "out.csv")))

    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("1,plain,")


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are whole or absent: the result appears under its name when it is complete."""
    (tmp_path / "in.csv").write_text("a\n1\n2\n")
    (tmp_path / "out.csv").write_text("old")
    with read_table(table_file(str(tmp_path / "in.csv"))) as table:
        answered = with_answers(table.frame)
        answered = answered.assign(list=pd.Series([_Breaks(), _Breaks()], dtype=object))
        with pytest.raises(KeyboardInterrupt):
            write_table(table, answered, table_file(str(tmp_path / "out.csv")))

    assert (tmp_path / "out.csv").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


class _Breaks:
    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_a_full_disk_says_that_nothing_is_lost(tmp_path: Path) -> None:
    """What the system refuses is told with the file and what to do."""
    (tmp_path / "in.csv").write_text("a\n1\n")
    (tmp_path / "full.csv").symlink_to("/dev/full")
    with (
        read_table(table_file(str(tmp_path / "in.csv"))) as table,
        pytest.raises(FrameEnrichError, match=r"full\.csv cannot be written: No space left"),
    ):
        write_table(table, with_answers(table.frame), table_file(str(tmp_path / "full.csv")))


def test_a_result_keeps_the_files_mode_and_its_link(tmp_path: Path) -> None:
    """Writing over a file does not change who may read it, nor where a link leads."""
    (tmp_path / "in.csv").write_text("a\n1\n")
    (tmp_path / "real.csv").touch(mode=0o640)
    (tmp_path / "out.csv").symlink_to("real.csv")
    rewrite(tmp_path / "in.csv", tmp_path / "out.csv")

    assert (tmp_path / "out.csv").is_symlink()
    assert (tmp_path / "real.csv").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "real.csv").read_text().startswith("a,text,")


def test_a_place_that_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    """A folder, and a folder that is missing."""
    (tmp_path / "folder.csv").mkdir()

    with pytest.raises(InputError, match="it is a folder"):
        check_writable(table_file(str(tmp_path / "folder.csv")))
    with pytest.raises(InputError, match="there is no folder"):
        check_writable(table_file(str(tmp_path / "none" / "out.csv")))
    check_writable(table_file("-", "csv"))
