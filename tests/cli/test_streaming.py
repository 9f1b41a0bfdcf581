"""Tables read a chunk at a time: the same job and the same file as with all of them in memory."""

from __future__ import annotations

import base64
import csv
import gc
import gzip
import io
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warm
from batch_server import BatchServer, row_name
from conftest import DEPARTMENTS, ROOT
from typer.testing import CliRunner, Result

from frameenrich.cli import table_jobs
from frameenrich.cli.main import app
from frameenrich.cli.tables import chunks
from frameenrich.cli.tables.files import table_file, table_files
from frameenrich.cli.tables.read import Source, read_table
from frameenrich.cli.tables.records import Record
from frameenrich.errors import FrameEnrichWarning, InputError

PRODUCTS = ROOT / "sample_data" / "products.csv"
ASK = ["-t", "Which department sells {{ title }}?", "-m", "gpt-4o-mini", "--poll-seconds", "0.02"]
SMALL = (
    "from frameenrich.cli.main import main; import frameenrich.cli.tables.chunks as c; "
    "c.CHUNK_ROWS = 50; main()"
)
LABELS = ["--labels", ",".join(DEPARTMENTS)]


@pytest.fixture(autouse=True)
def environment(server: BatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server and a key in the environment; a chunk has 70 rows."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 70)


def here(*arguments: str | Path) -> Result:
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def job_of(done: Result) -> str:
    """The job's id, as the command told it."""
    return str(re.findall(r"Job (\S+):", done.stderr)[0])


def make(name: str) -> None:
    """The sample catalogue in a format."""
    frame = pd.read_csv(PRODUCTS, dtype=str, keep_default_na=False)
    if name.endswith("parquet"):
        frame.to_parquet(name)
    elif "jsonl" in name:
        frame.to_json(name, orient="records", lines=True)
    elif "tsv" in name:
        frame.to_csv(name, sep="\t", index=False)
    else:
        data = PRODUCTS.read_bytes()
        Path(name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)


def both(source: str, target: str, *options: str) -> tuple[Result, Result]:
    """A run with the table in memory and one that streams it, each with a store of its own."""
    results = []
    for folder, way in (("whole", "--no-stream"), ("streamed", "--stream")):
        Path(folder).mkdir(exist_ok=True)
        where = ["--store", f"{folder}/store", way]
        results.append(here("run", source, f"{folder}/{target}", *ASK, *options, *where))
        assert results[-1].exit_code in {0, 1}, results[-1].stderr
    # Each store's job has a tag of its own, which custom_ids end in (--usage shows them).
    files = [Path(folder, target).read_bytes() for folder in ("streamed", "whole")]
    tagged = re.compile(rb"\b(?:row|key)-[\w-]+-[0-9a-f]{6}\b")
    assert len({tagged.sub(b"ID", content) for content in files}) == 1
    assert job_of(results[0]) == job_of(results[1])
    return results[0], results[1]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("in.csv", "out.csv"),
        ("in.csv.gz", "out.csv.gz"),
        ("in.tsv", "out.parquet"),
        ("in.jsonl", "out.jsonl"),
        ("in.jsonl", "out.csv"),
        ("in.parquet", "out.parquet"),
        ("in.parquet", "out.jsonl.gz"),
    ],
)
def test_streamed_or_not_job_and_file_are_the_same(source: str, target: str) -> None:
    """Byte for byte, with the columns of usage, and the same summary."""
    make(source)

    whole, streamed = both(source, target, *LABELS, "--name", "dept")

    assert whole.stderr == streamed.stderr.replace("streamed/", "whole/")
    with read_table(table_file(f"streamed/{target}")) as table:
        assert table.frame["dept_status"].tolist() == ["ok"] * 200


@pytest.mark.parametrize("source", ["in.csv", "in.jsonl", "in.parquet"])
def test_what_is_shown_of_a_streamed_table_is_that_of_one_in_memory(
    source: str, server: BatchServer
) -> None:
    """The same first requests, nulls of all chunks, and the same rows of a pilot (promise 8)."""
    make("in.csv")
    frame = pd.read_csv("in.csv", dtype=str)
    frame["brand"] = frame["brand"].fillna("-")
    frame.loc[[5, 90, 199], "brand"] = None
    if source == "in.parquet":
        frame.to_parquet(source)
    elif source == "in.jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        frame.to_csv(source, index=False)
    ask = [source, "-t", "{{ title }} of {{ brand }}", "-m", "gpt-4o-mini", "--on-null", "skip"]

    for command in (["preview", "-n", "80"], ["pilot", "-n", "5", "--seed", "3", "--json"]):
        shown = []
        for way in ("--no-stream", "--stream"):
            where = ["--store", f"store{way}"] if command[0] == "pilot" else []
            shown.append(here(command[0], *ask, *command[1:], *where, way))
            assert shown[-1].exit_code == 0, shown[-1].stderr
        assert shown[0].stdout == shown[1].stdout
        assert len(shown[0].stdout) > 500
    preview = here("preview", *ask, "--stream")
    assert "3 rows would print a null: 5, 90, 199 ('brand' is empty in 3)" in preview.stdout


@pytest.mark.parametrize("way", ["--no-stream", "--stream"])
def test_what_is_wrong_with_a_row_is_told_by_its_line_before_anything_is_sent(
    way: str, server: BatchServer
) -> None:
    """In whichever chunk it is, and whichever rows are picked."""
    make("in.csv")
    frame = pd.read_csv("in.csv", dtype=str)[["sku", "title"]]
    frame.loc[195:, "title"] = None
    frame.to_csv("nulls.csv", index=False)
    frame["sku"] = [f"s{n % 150}" for n in range(200)]
    frame.to_csv("keys.csv", index=False)

    for command in ("preview", "pilot"):
        twice = here(command, "keys.csv", *ASK[:4], "--key", "sku", way)
        assert twice.exit_code != 0
        assert "50 value(s) name more than one row, such as s0" in twice.stderr, twice.stderr
    # Of 40 slices the last one holds the lines 197 to 201.
    null = here("pilot", "nulls.csv", *ASK[:4], "-n", "40", way)
    assert null.exit_code != 0
    assert re.search(r"\bline (19[789]|20[01]) of nulls.csv", null.stderr), null.stderr
    assert not server.requests


def test_nested_answers_have_one_parquet_type_in_all_chunks(server: BatchServer) -> None:
    """Lists and objects, of which the first chunks show nothing, are what they are in the end."""
    server.faults.add("malformed", where="*", content='{"tags": [], "size": null}', times="always")
    schema = {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"type": "string"}},
            "size": {"type": ["string", "null"]},
        },
        "required": ["tags", "size"],
        "additionalProperties": False,
    }
    Path("schema.json").write_text(json.dumps(schema))
    lines: list[dict[str, Any]] = [
        {"title": f"thing {i}", "own": [] if i < 150 else [{"x": i}]} for i in range(200)
    ]
    lines[199]["late"] = 0.5
    Path("in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    both("in.jsonl", "out.parquet", "--schema", "schema.json")

    result = pq.read_table("streamed/out.parquet")
    assert result["own"].type == pa.list_(pa.struct({"x": pa.int64()}))
    assert result["late"].to_pylist() == [None] * 199 + [0.5]


def test_labels_keep_their_categories_and_empty_columns_their_type() -> None:
    """A chunk without any answer is typed as the others."""
    make("in.csv")
    frame = pd.read_csv("in.csv", dtype=str)
    frame.loc[:139, "title"] = None
    frame.to_csv("in.csv", index=False)

    both("in.csv", "out.parquet", *LABELS, "--on-null", "skip")

    read = pd.read_parquet("streamed/out.parquet")
    assert list(read["llmbatch"].cat.categories) == DEPARTMENTS
    assert read["llmbatch_status"].tolist() == ["skipped"] * 140 + ["ok"] * 60


def test_a_parsers_columns_are_those_of_all_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole numbers in one chunk, fractions in another, and a column that comes late."""
    Path("lateparser.py").write_text(
        "def read(text):\n    n = int(text.rstrip('?').split()[-1])\n"
        "    return {'n': n if n < 100 else n / 2} | ({'late': 'x'} if n == 180 else {})\n"
    )
    monkeypatch.syspath_prepend(".")
    Path("in.csv").write_text("title\n" + "".join(f"{n}\n" for n in range(200)))

    both("in.csv", "out.csv", "--parser", "lateparser:read")

    rows = list(csv.DictReader(Path("streamed/out.csv").read_text().splitlines()))
    assert [rows[n]["n"] for n in (1, 101)] == ["1.0", "50.5"]
    assert [row["late"] for row in rows].count("x") == 1


def test_usage_safe_csv_limit_and_strict(server: BatchServer) -> None:
    """What is said of statuses, and the exit code, are the same."""
    server.faults.add("malformed", where="row-75", content="=1+1", times="always")
    make("in.csv")

    options = ["--usage", "--safe-csv", "--limit", "150", "--strict", "--key", "sku"]
    whole, streamed = both("in.csv", "out.csv", *options)

    assert (whole.exit_code, streamed.exit_code) == (0, 0)
    assert len(pd.read_csv("streamed/out.csv")) == 150
    strict = both("in.csv", "out.csv", *LABELS, "--strict")
    assert [done.exit_code for done in strict] == [1, 1]
    assert "malformed\t1" in strict[1].stderr


def test_a_parquet_column_with_nan_stays_as_it_is() -> None:
    """NaN equals nothing, but the column is the same one; so with an earlier collect's."""
    kinds = {
        "f": pa.array([0.5, float("nan"), None] * 50),
        "l": pa.array([[float("nan")]] * 150, pa.list_(pa.float32(), 1)),
    }
    pq.write_table(pa.table({"title": [f"x{i}" for i in range(150)], **kinds}), "in.parquet")

    both("in.parquet", "out.parquet")

    assert pq.read_schema("streamed/out.parquet").field("l").type == pa.list_(pa.float32(), 1)


def test_many_files_are_one_table() -> None:
    """In the order of their names, rows counted through, line ends mended; one file comes out."""
    Path("data").mkdir()
    Path("data/a.csv").write_bytes(b"\xef\xbb\xbfsku,title\r\n1,Red mug")
    Path("data/b.csv").write_bytes(b"\xef\xbb\xbfsku,title\n2,Blue hose\n\n")
    Path("data/c.csv").write_bytes(b'"sku",title\n')
    Path("data/_SUCCESS").touch()
    both("data/*.csv", "out.csv")
    done = here("run", "data", "again.csv", *ASK, "--usage", "--store", "streamed/store")

    kept = Path("streamed/out.csv").read_bytes()
    assert re.sub(rb",(llmb|echo)[^\n\r]*", b"", kept) == (
        b"\xef\xbb\xbfsku,title\r\n1,Red mug\n2,Blue hose\n\n"
    )
    assert done.exit_code == 0
    ids = pd.read_csv("again.csv")["llmbatch_custom_id"]
    assert list(map(row_name, ids)) == ["row-0", "row-1"]


def test_many_parquet_files_are_one_table() -> None:
    """Chunks may be of any file; the schema's own words are kept."""
    Path("data").mkdir()
    frame = pd.read_csv(PRODUCTS, dtype=str)
    for i in range(4):
        frame.iloc[i * 50 : i * 50 + 50].to_parquet(f"data/{i}.parquet", index=False)

    both("data/*.parquet", "out.parquet")

    assert pd.read_parquet("streamed/out.parquet")["sku"].tolist() == frame["sku"].tolist()


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("a,b\n1,2\n", "a,c\n1,2\n", r"b\.csv, line 1: column 2 is 'c', where .*a\.csv has 'b'"),
        ("a,b\n1,2\n", "a\n1\n", r"b\.csv, line 1: column 2 is none, where .*a\.csv has 'b'"),
        ("a,b\n1,2\n", "a,b\n\n1\n", r"b\.csv, line 3: 1 cell, where the header has 2"),
        ("a,b\n1,2\n", "", r"b\.csv is empty"),
    ],
)
def test_files_that_differ_are_refused(first: str, second: str, says: str) -> None:
    """The message names the file, and what differs from the first."""
    Path("a.csv").write_text(first)
    Path("b.csv").write_text(second)

    with Source(table_files("*.csv")) as source, pytest.raises(InputError, match=says):
        list(source.chunks())


def test_parquet_files_that_differ_are_refused() -> None:
    """By name and type, before anything is sent."""
    pq.write_table(pa.table({"a": [1]}), "a.parquet")
    pq.write_table(pa.table({"a": ["1"]}), "b.parquet")
    done = here("run", "*.parquet", "out.csv", "-t", "{{ a }}", "-m", "m", "--stream")

    assert done.exit_code == 2
    assert "b.parquet has the column 'a' (string), where a.parquet has 'a' (int64)" in done.stderr


def test_what_is_no_table_of_many_files_says_so() -> None:
    """No file, several formats, folders in a folder, and a result among its own sources."""
    Path("data/inner").mkdir(parents=True)
    Path("mixed").mkdir()
    Path("mixed/a.csv").write_text("title\n1\n")
    Path("mixed/b.jsonl").write_text('{"title": 1}\n')

    says = {
        "none/*.csv": "There is no file in",
        "data": "data holds a folder, data/inner",
        "mixed": "holds files of several formats: mixed/a.csv is csv, mixed/b.jsonl is jsonl",
    }
    for source, problem in says.items():
        done = here("run", source, "out.csv", *ASK)
        assert (done.exit_code, problem in done.stderr) == (2, True), done.stderr
    inside = here("run", "mixed/*.csv", "mixed/out.csv", *ASK)
    assert (inside.exit_code, "would be one of the input files" in inside.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_one_chunk_is_in_memory_at_a_time(ending: str) -> None:
    """A chunk is let go before the next is read, also where the loop has a name for it."""
    frame = pd.DataFrame({"title": [f"mug {n}" for n in range(200)]})
    path = Path(f"in.{ending}")
    if ending == "csv":
        frame.to_csv(path, index=False)
    elif ending == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path, row_group_size=50)
    earlier: list[chunks.Chunk] = []
    with Source([table_file(str(path))]) as source:
        for chunk in source.chunks():
            assert [each.rows for each in earlier] == [0] * len(earlier)
            if ending == "csv":
                records = sum(isinstance(each, Record) for each in gc.get_objects())
                assert records <= chunk.rows + 5  # the header, and the record that ended the chunk
            assert len(chunk.frame) == chunk.rows > 0
            earlier.append(chunk)

    assert len(earlier) >= 3


def test_a_broken_row_late_in_a_file_sends_nothing(server: BatchServer) -> None:
    """The message names file and line; what was read before it is not sent."""
    Path("in.csv").write_text("title,n\n" + "mug,1\n" * 100 + "mug\n")
    Path("gap.csv").write_text("title,n\n" + "mug,1\n" * 100 + ",1\n")

    broken = here("run", "in.csv", "out.csv", *ASK, "--stream")
    gap = here("run", "gap.csv", "out.csv", *ASK, "--stream")

    assert (broken.exit_code, "in.csv, line 102: 1 cell," in broken.stderr) == (2, True)
    assert (
        "gap.csv, from line 72 on: Row 100 (line 102 of gap.csv) would print a null" in gap.stderr
    )
    assert (gap.exit_code, dict(server.executed), Path("out.csv").exists()) == (2, {}, False)


@pytest.mark.parametrize(
    ("above", "options", "streams"),
    [
        (100, [], True),
        (100, ["--no-stream"], False),
        (100, ["--limit", "70"], False),
        (100, ["--limit", "1000000"], True),
        (10_000, [], False),
        (10_000, ["--stream"], True),
    ],
)
def test_a_large_table_is_streamed_by_itself(
    above: int, options: list[str], streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its size on disk, unless somebody says otherwise or a few rows are all that is wanted."""
    monkeypatch.setattr(table_jobs, "STREAM_BYTES", above)
    Path("gap.csv").write_text("title,n\n" + ",1\n" + "mug,1\n" * 100)

    gap = here("submit", "gap.csv", *ASK[:4], *options)

    assert gap.exit_code == 2
    assert ("gap.csv, from line 2 on: Row 0" in gap.stderr) == streams
    assert "Row 0 (line 2 of gap.csv) would print a null" in gap.stderr


def test_collect_finds_the_job_and_refuses_other_rows() -> None:
    """The newest job by its first rows; a row that changed is refused, and nothing written."""
    titles = [f"Mug {n}\n" for n in range(200)]
    Path("in.csv").write_text("".join(["title\n", *titles]))
    assert here("submit", "in.csv", *ASK[:4], "--stream").exit_code == 0
    collect = ["collect", "in.csv", "out.csv", "--wait", "--poll-seconds", "0.02", "--stream"]
    assert here(*collect).exit_code == 0
    before = Path("out.csv").read_bytes()
    Path("in.csv").write_text("".join(["title\n", *titles[:-1], "Another\n"]))

    changed = here(*collect)

    assert changed.exit_code == 2
    assert "changed under their keys" in changed.stderr
    assert Path("out.csv").read_bytes() == before


def test_the_same_command_again_pays_nothing(server: BatchServer) -> None:
    """Whichever way it goes, and onto its own result, too."""
    make("in.csv")
    for way in ("--stream", "--no-stream", "--stream"):
        assert here("run", "in.csv", "out.csv", *ASK, way).exit_code == 0
    first = Path("out.csv").read_bytes()
    assert here("collect", "out.csv", "out.csv", "--stream").exit_code == 0

    assert Path("out.csv").read_bytes() == first
    assert set(server.executed.values()) == {1}


def test_a_killed_run_goes_on_where_it_stopped(server: BatchServer) -> None:
    """SIGKILL while the batch runs; the same command finds them, and no row is executed twice."""
    make("in.csv")
    server.hold("in_progress")
    run = ["run", "in.csv", "out.csv", *ASK, "--stream"]
    with warm.Popen([sys.executable, "-c", SMALL, *run]) as child:
        while not server.batches:
            assert child.poll() is None
            time.sleep(0.05)
        child.kill()
    assert not Path("out.csv").exists()
    server.release()

    assert here(*run, "--strict").exit_code == 0
    assert (len(server.batches), len(server.executed)) == (1, 198)  # two titles stand twice
    assert set(server.executed.values()) == {1}
    assert len(pd.read_csv("out.csv")) == 200


def test_rounds_mend_what_is_flagged(server: BatchServer) -> None:
    """``--max-rounds`` asks again for a row of a later chunk, and for that one only."""
    make("in.csv")
    server.faults.add("malformed", where="row-150", content="no label of ours", times=1)

    done = here("run", "in.csv", "out.csv", *ASK, *LABELS, "--stream", "--max-rounds", "1")

    assert "ok\t200" in done.stderr
    assert len(server.executed) == 199  # two titles stand twice


def test_standard_input_is_streamed_to_standard_output() -> None:
    """What comes down a pipe is kept on disk, and goes out as it is answered."""
    ask = ["run", "-", "-", "--format", "csv", *ASK, "--stream"]
    done = warm.run(
        [sys.executable, "-c", SMALL, *ask],
        input=PRODUCTS.read_bytes(),
        capture_output=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert len(list(csv.reader(io.StringIO(done.stdout.decode(), newline="")))) == 201


@pytest.mark.slow
def test_a_file_ten_times_as_large_takes_hardly_more_memory(tmp_path: Path) -> None:
    """Promise 8 for the command line: 60 MB take the memory that 12 MB do, to show or to write."""
    peaks = []
    ask = [*ASK[:4], "--stream"]
    for rows in (6_000, 30_000):
        note = "lorem ipsum dolor " * 110
        with Path("big.csv").open("w") as file:
            file.write("title,note\n")
            file.writelines(f"{n},{note}\n" for n in range(rows))
        shown = _peak_mb("preview", "big.csv", *ask)
        peaks.append((shown, _peak_mb("submit", "big.csv", *ask, "--provider", "file")))

    assert os.path.getsize("big.csv") > 58_000_000
    assert peaks[1][0] < peaks[0][0] + 40, peaks
    assert peaks[1][1] < peaks[0][1] + 40, peaks


def _peak_mb(*arguments: str) -> float:
    """The most memory that a command takes in a process of its own."""
    script = (
        "import frameenrich.cli.tables.chunks as c, resource, sys; c.CHUNK_BYTES = 6_000_000\n"
        "from frameenrich.cli.main import app; app(standalone_mode=False)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = warm.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True
    )

    return int(done.stdout.split()[-1]) / 1024


def test_a_streamed_table_keeps_what_somebody_corrected(server: BatchServer) -> None:
    """Promise 12, a chunk at a time, also where the table is written over itself."""
    Path("goods.csv").write_text("sku,title\n" + "".join(f"{n},thing {n}\n" for n in range(6)))
    ask = ["-t", "Sort {{ title }}", "-m", "gpt-4o-mini", "--stream", "--poll-seconds", "0.02"]
    run = ["run", "goods.csv", "goods.csv", *ask]
    runner = CliRunner()
    assert runner.invoke(app, run).exit_code == 0
    text = Path("goods.csv").read_text()
    Path("goods.csv").write_text(text.replace("echo: Sort thing 3", "Garden"))

    with pytest.warns(FrameEnrichWarning, match="1 cell of 'llmbatch' holds what no answer"):
        assert runner.invoke(app, run).exit_code == 0

    assert Path("goods.csv").read_text() == text.replace("echo: Sort thing 3", "Garden")
    assert len(server.batches) == 1
    assert runner.invoke(app, [*run, "--overwrite"]).exit_code == 0
    assert Path("goods.csv").read_text() == text


def test_rows_with_bad_images_are_skipped_streamed_or_not() -> None:
    """--on-bad-image skip: the file has their reasons, and each run warns once."""
    gif = base64.b64encode(b"GIF89a, as far as one looks").decode()
    good = f"data:image/gif;base64,{gif}"
    pd.DataFrame({"title": list("abc"), "photo": [good, "no.png", good]}).to_csv("in.csv")

    with pytest.warns(FrameEnrichWarning, match=r"1 row is not sent .*'no.png'") as warned:
        both("in.csv", "out.csv", "--image", "photo", "--on-bad-image", "skip")

    assert len(warned) == 2
    out = pd.read_csv("streamed/out.csv")
    assert out["llmbatch_status"].tolist() == ["ok", "skipped", "ok"]
    assert "'no.png' is not there" in out["llmbatch_error"][1]
