"""``import frameenrich.polars``: the verbs on Polars frames, and tables larger than memory."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal
from reviews import answered
from typer.testing import CliRunner

import frameenrich
import frameenrich.polars
from frameenrich.accessor import LLMBatch
from frameenrich.cli.main import app
from frameenrich.errors import FrameEnrichWarning, InputError, ParameterError
from frameenrich.prepare import any_table
from frameenrich.tables import TableBatch

TEMPLATE = "Colour of {{ title }}? {{ n }}"


def rows(count: int = 25) -> pl.DataFrame:
    """Rows whose whole numbers have a gap, and whose titles repeat."""
    return pl.DataFrame(
        {
            "sku": [f"K{i:03}" for i in range(count)],
            "title": [f"Mug {i % 7}" for i in range(count)],
            "n": [None if i == 3 else i % 5 for i in range(count)],
        }
    )


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of more than a few hundred bytes go through in parts of seven rows."""
    monkeypatch.setattr(any_table, "STREAM_BYTES", 100)
    monkeypatch.setattr(any_table, "_PART_ROWS", 7)


def asked(store: Path, client: Any = None) -> Any:
    """Return the options of one submit, to a server or to nobody."""
    to = {"provider": "file"} if client is None else {"client": client}
    return {"key": "sku", "on_null": "empty", "store": store, **to}


def test_verbs_are_those_of_pandas() -> None:
    """``pl.DataFrame.llmbatch`` and ``pl.LazyFrame.llmbatch`` have every verb and every option."""
    frames: list[Any] = [rows(), rows().lazy()]
    assert all(isinstance(frame.llmbatch, TableBatch) for frame in frames)
    verbs = [name for name in vars(LLMBatch) if not name.startswith("_")]
    for verb in verbs:
        theirs = inspect.signature(getattr(LLMBatch, verb)).parameters
        assert list(inspect.signature(getattr(TableBatch, verb)).parameters) == list(theirs), verb


@pytest.mark.parametrize("in_parts", [False, True])
def test_one_job_from_every_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_parts: bool
) -> None:
    """Pandas, Polars, DuckDB, Arrow and the command line make one job of one table: one id."""
    if in_parts:
        monkeypatch.setattr(any_table, "STREAM_BYTES", 100)
        monkeypatch.setattr(any_table, "_PART_ROWS", 7)
    path, store = tmp_path / "rows.csv", tmp_path / "store"
    rows().write_csv(path)
    lazy: Any = pl.scan_csv(path)
    eager: Any = pl.read_csv(path)
    made = [
        pd.read_csv(path).llmbatch.submit(TEMPLATE, "m", **asked(store)),
        eager.llmbatch.submit(TEMPLATE, "m", **asked(store)),
        lazy.llmbatch.submit(TEMPLATE, "m", **asked(store)),
        frameenrich.submit(duckdb.read_csv(str(path)), TEMPLATE, "m", **asked(store)),
        frameenrich.submit(eager.to_arrow().to_reader(), TEMPLATE, "m", **asked(store)),
    ]
    words = ["submit", str(path), "-t", TEMPLATE, "-m", "m", "--key", "sku"]
    words += ["--on-null", "empty", "--provider", "file", "--store", str(store)]
    printed = CliRunner().invoke(app, words)

    assert {job.id for job in made} == {made[0].id}
    assert made[0].id in printed.output
    assert len(frameenrich.jobs(store)) == 1


@pytest.mark.usefixtures("parts")
def test_lazy_frame_in_parts(server: Any, client: Any, store: Path, tmp_path: Path) -> None:
    """A large lazy frame goes out and comes back in parts: typed, lazy, and in its own order."""
    path = tmp_path / "rows.parquet"
    rows().write_parquet(path)
    lazy: Any = pl.scan_parquet(path)
    fields = {"color": str, "sizes": list[int]}
    job = lazy.llmbatch.submit(TEMPLATE, "m", response_model=fields, **asked(store, client))
    back = lazy.llmbatch.collect(wait=True, poll_seconds=0.01, store=store, client=client)

    assert isinstance(back, pl.LazyFrame)
    back.sink_parquet(tmp_path / "out.parquet")
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert_frame_equal(out.select("sku", "title", "n"), rows())
    assert out["llmbatch_status"].to_list() == ["ok"] * 25
    assert out.schema["sizes"] == pl.List(pl.Int64)
    expected = job.collect(rows().to_pandas())
    assert out["color"].to_list() == expected["color"].to_list()
    assert [list(s) for s in out["sizes"]] == expected["sizes"].tolist()
    assert back.filter(pl.col("n") == 4).select("color").collect().height == 5
    assert back.head(9).collect().height == 9


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("first", "others", "wanted"),
    [
        ([2**63], [7], pl.String),
        ([2**63], [-7], pl.String),
        ([2**63], [2**64 - 1], pl.String),
        ([2**64], [7], pl.String),
        ([9], [7], pl.List(pl.Int64)),
    ],
    ids=str,
)
def test_numbers_of_any_size_in_parts(
    first: Any, others: Any, wanted: Any, store: Path, tmp_path: Path
) -> None:
    """Each part has a type of its own, and the column one that holds them all, or text."""
    frame: Any = rows()
    fields = {"sizes": list[int]}
    job = frame.llmbatch.submit(TEMPLATE, "m", response_model=fields, **asked(store))
    said = iter([first])
    lines = []
    for request in "".join(Path(path).read_text() for path in job.requests).splitlines():
        body = {"choices": [{"message": {"content": json.dumps({"sizes": next(said, others)})},
                             "finish_reason": "stop"}]}  # fmt: skip
        answer = {"status_code": 200, "body": body}
        lines.append({"custom_id": json.loads(request)["custom_id"], "response": answer})
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    job.import_responses(tmp_path / "a.jsonl")

    out = frame.llmbatch.collect(job)

    assert out["llmbatch_status"].to_list() == ["ok"] * 25
    assert out.schema["sizes"] == wanted


@pytest.mark.usefixtures("parts")
def test_other_tables_in_parts(server: Any, client: Any, store: Path) -> None:
    """Readers come back as readers, relations as tables; both in parts, with every answer."""
    table = rows().to_arrow()
    labels = ["red", "blue"]
    job = frameenrich.submit(
        table.to_reader(max_chunksize=4), TEMPLATE, "m", labels=labels, **asked(store, client)
    ).wait(poll_seconds=0.01)
    wanted = job.collect(rows().to_pandas())["llmbatch"].tolist()
    relation = duckdb.from_arrow(table)
    tables = {"RecordBatchReader": table.to_reader(max_chunksize=4), "Table": table}
    for kind, given in [*tables.items(), ("Table", relation)]:
        back = frameenrich.collect(given, job, client=client)
        assert type(back).__name__ == kind
        whole = back.read_all() if kind == "RecordBatchReader" else back
        assert whole.select(["sku", "title", "n"]).cast(table.schema).equals(table)
        assert whole["llmbatch"].to_pylist() == wanted


KINDS: dict[str, Any] = {
    "DataFrame": lambda table: table,
    "LazyFrame": lambda table: table.lazy(),
    "Table": lambda table: table.to_arrow(),
    "RecordBatchReader": lambda table: table.to_arrow().to_reader(max_chunksize=4),
}


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_corrections_stay_in_every_table(
    kind: str, in_parts: bool, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 12: whatever holds the table, and in parts as whole; of another type, too."""
    if in_parts:
        monkeypatch.setattr(any_table, "STREAM_BYTES", 100)
        monkeypatch.setattr(any_table, "_PART_ROWS", 7)
    frame = rows().to_pandas()[["sku"]].assign(title=lambda f: f["sku"])
    said = [{"color": "red", "size": i} for i in range(25)]
    fields = {"color": str, "size": int}
    job = answered(frame, said, store, response_model=fields, key="sku")

    def collected(table: pl.DataFrame, **options: Any) -> pl.DataFrame:
        back = frameenrich.collect(KINDS[kind](table), job, **options)
        back = back.collect() if kind == "LazyFrame" else back
        return (
            back if kind == "DataFrame" else pl.DataFrame(getattr(back, "read_all", lambda: back)())
        )

    plain = collected(pl.from_pandas(frame))
    key = pl.col("sku")
    edited = plain.with_columns(
        color=pl.when(key == "K003").then(pl.lit("blue")).otherwise("color"),
        size=pl.when(key == "K020").then(pl.lit("XL")).otherwise(pl.col("size").cast(pl.String)),
    )
    with pytest.warns(FrameEnrichWarning, match="2 cells of 'color', 'size' hold what no") as told:
        kept = collected(edited)
    with pytest.warns(FrameEnrichWarning):
        again = collected(kept)

    assert len(told) == 1
    assert plain.schema["size"] == pl.Int64
    assert kept["color"].to_list() == ["blue" if i == 3 else "red" for i in range(25)]
    assert kept["size"].to_list() == ["XL" if i == 20 else str(i) for i in range(25)]
    assert_frame_equal(again, kept)
    assert_frame_equal(collected(edited, overwrite=True), plain)


@pytest.mark.usefixtures("parts")
def test_flagged_and_estimate_in_parts(server: Any, client: Any, store: Path) -> None:
    """What is said of a table in parts is said of all its rows, in Polars' own frames."""
    frame: Any = rows()
    guess = frame.llmbatch.estimate(TEMPLATE, "gpt-4o-mini", **asked(store))
    job = frame.llmbatch.submit(
        TEMPLATE, "gpt-4o-mini", response_model={"count": int}, **asked(store, client)
    )
    job.wait(poll_seconds=0.01)
    flagged = frame.llmbatch.flagged(job, parser=int)

    assert (guess.rows, guess.requests) == (25, len(frame.select("title", "n").unique()))
    assert flagged["sku"].to_list() == frame["sku"].to_list()
    assert isinstance(frame.llmbatch.jobs(store=store), pl.DataFrame)


def test_reader_that_is_read(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """A reader that was read to its end is refused in a sentence, not collected as no rows."""
    monkeypatch.setattr(any_table, "STREAM_BYTES", 100)
    reader = pa.table(rows()).to_reader()
    door: Any = frameenrich.llmbatch(reader)
    door.submit(TEMPLATE, "m", **asked(store))
    with pytest.raises(InputError, match="can be read once only"):
        door.submit(TEMPLATE, "other", **asked(store))


def test_key_is_wanted(store: Path) -> None:
    """Without an index a table needs key=, which the message says."""
    frame: Any = rows()
    with pytest.raises(ParameterError, match="key='sku'"):
        frame.llmbatch.submit(TEMPLATE, "m", provider="file", store=store)
