"""Tables larger than memory through the commands of ``frameenrich``: the peak and CPU time of each.

    uv run python benchmarks/stream_scale.py [--rows 300000,1050000] [--formats csv,parquet]
        [--only preview,pilot,run]

About a kilobyte a row, against the loopback server, which is a process of its own and keeps all
files in memory. Every figure is one process, imports and all (``ru_maxrss``). It prints the table
of benchmarks/README.md, "Tables larger than memory through the command line", as Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SERVER = Path(__file__).parent.parent / "tests" / "batch_server"
COMMAND = [sys.executable, "-c", "from frameenrich.cli.main import main; main()"]
ASK = ["-m", "gpt-4o-mini", "-t", "Which department sells {{ title }}?"]
ASK += ["--labels", "Kitchen,Garden,Clothing,Electronics,Toys"]
WAIT = ["--poll-seconds", "1"]
COLUMNS = ["sku", "title", "note"]
NOTE = "made to last and sent back by nobody; " * 25
BLOCK = 10_000
"""Rows of one row group of the Parquet files."""


def rows_of(count: int) -> Iterator[list[str]]:
    """Yield a catalogue of about a kilobyte a row."""
    return ([f"{n:08d}", f"Thing no. {n}", f"{n} {NOTE}"] for n in range(count))


def _write_csv(
    path: Path,
    rows: int,
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
    between: str = "; ",
) -> None:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(COLUMNS)
        for sku, title, note in rows_of(rows):
            writer.writerow([sku, title, note.replace("; ", between)])


def _write_jsonl(path: Path, rows: int) -> None:
    with path.open("w") as file:
        for cells in rows_of(rows):
            file.write(json.dumps(dict(zip(COLUMNS, cells, strict=True))) + "\n")


def _write_parquet(path: Path, rows: int) -> None:
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    cells = rows_of(rows)
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        while block := list(islice(cells, BLOCK)):
            columns = [pa.array(column) for column in zip(*block, strict=True)]
            writer.write_table(pa.table(columns, schema=schema))


@dataclass(frozen=True)
class Form:
    """A format of the same rows: the file's name, who writes it, and the options it needs."""

    name: str
    write: Callable[[Path, int], None]
    options: tuple[str, ...] = ()


FORMS = {
    "csv": Form("big.csv", _write_csv),
    "csv.gz": Form("big.csv.gz", _write_csv),
    "semicolon": Form("semicolon.csv", partial(_write_csv, delimiter=";"), ("--delimiter", ";")),
    "utf-16": Form("utf16.csv", partial(_write_csv, encoding="utf-16"), ("--encoding", "utf-16")),
    "quoted": Form("quoted.csv", partial(_write_csv, between=';\r\n"no", said he, ')),
    "jsonl": Form("big.jsonl", _write_jsonl),
    "parquet": Form("big.parquet", _write_parquet),
}


@dataclass
class Bench:
    """One table, its folder of stores, and the server that answers."""

    form: Form
    rows: int
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        """Return the table's path."""
        return self.folder / self.form.name

    def table(self, out: str | None = None) -> list[str]:
        """Return the words that name the table, the target, and what it takes to read it."""
        target = [] if out is None else [str(self.folder / out)]
        return [str(self.source), *target, *self.form.options]

    def store(self, name: str = "store") -> list[str]:
        """Return the words that name a store."""
        return ["--store", str(self.folder / name)]

    def time(self, *words: str) -> tuple[float, float]:
        """Run a command; return its peak memory in MB and its CPU seconds."""
        with subprocess.Popen(
            [*COMMAND, *words], env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            said = process.stderr.read().decode()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(words)}: exit {process.returncode}\n{said}")
        return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime


@contextlib.contextmanager
def served(bench: Bench, *faults: str) -> Iterator[None]:
    """Let a server with these faults answer while the block runs."""
    server = [sys.executable, str(SERVER), "--options", '{"instant": true}']
    for fault in faults:
        server += ["--fault", fault]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        bench.env = {**os.environ, "OPENAI_API_KEY": "sk-none", "OPENAI_BASE_URL": url}
        try:
            yield
        finally:
            process.kill()


def answered(path: Path, rows: int) -> None:
    """See that every row of an output has its answer."""
    statuses = pq.read_table(path, columns=["llmbatch_status"])["llmbatch_status"]
    assert statuses.value_counts().to_pylist() == [{"values": "ok", "counts": rows}]


MALFORMED = '{"name": "malformed", "fraction": 0.3}'
STUCK = '{"name": "stuck", "times": "always"}'

Figures = Iterator[tuple[str, tuple[float, float]]]


def looking(bench: Bench) -> Figures:
    """Yield the figures of what is done before anything is paid."""
    yield "preview", bench.time("preview", *bench.table(), *ASK)
    yield "estimate", bench.time("estimate", *bench.table(), *ASK, *bench.store())
    yield "pilot", bench.time("pilot", *bench.table(), *ASK, *bench.store("pilot"))


def running(bench: Bench) -> Figures:
    """Yield the figures of a whole run, and of reading its answers again."""
    store = bench.store()
    yield "run", bench.time("run", *bench.table("out.parquet"), *ASK, *store, *WAIT)
    answered(bench.folder / "out.parquet", bench.rows)
    yield "run again", bench.time("run", *bench.table("out.parquet"), *ASK, *store, *WAIT)
    yield "collect", bench.time("collect", *bench.table("again.csv"), *store)
    yield "report", bench.time("report", "-o", str(bench.folder / "report.html"), *store)


def asking_again(bench: Bench) -> Figures:
    """Yield the figures of rounds, where three answers in ten are malformed each time."""
    store = bench.store("rounds")
    words = ["run", *bench.table("rounds.csv"), *ASK, *store, *WAIT, "--max-rounds", "2"]
    yield "run --max-rounds 2", bench.time(*words)
    yield "regenerate", bench.time("regenerate", *store)


def finishing(bench: Bench) -> Figures:
    """Yield the figures of a job none of whose batches ends: all rows are asked live."""
    store = bench.store("stuck")
    yield "submit", bench.time("submit", *bench.table(), *ASK, *store)
    yield "finish", bench.time("finish", *store, *WAIT)


STEPS: dict[str, tuple[Callable[[Bench], Figures], tuple[str, ...]]] = {
    "looking": (looking, ()),
    "running": (running, ()),
    "rounds": (asking_again, (MALFORMED,)),
    "finish": (finishing, (STUCK,)),
}


def measure(form: Form, rows: int, steps: list[str], folder: Path) -> dict[str, tuple[float, ...]]:
    """Write a table, and take the figures of the commands of these steps."""
    bench = Bench(form, rows, folder)
    form.write(bench.source, rows)
    size = bench.source.stat().st_size / 1e6
    print(f"{form.name}: {rows:,} rows, {size:,.0f} MB", file=sys.stderr, flush=True)
    found: dict[str, tuple[float, ...]] = {"the file, MB": (size,)}
    for step in steps:
        work, faults = STEPS[step]
        with served(bench, *faults):
            for name, (peak, cpu) in work(bench):
                found[name] = peak, cpu
                print(f"  {name}: {peak:,.0f} MB, {cpu:.1f} s", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Take all figures that are wanted and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="300000,1050000")
    parser.add_argument("--formats", default="csv,parquet", help=f"of {', '.join(FORMS)}")
    parser.add_argument("--only", default=",".join(STEPS), help=f"of {', '.join(STEPS)}")
    parser.add_argument("--folder", type=Path, help="scratch space; the temporary folder's default")
    wishes = parser.parse_args()
    counts = [int(count) for count in wishes.rows.split(",")]
    columns: dict[str, dict[str, tuple[float, ...]]] = {}
    for name in wishes.formats.split(","):
        for rows in counts:
            folder = Path(tempfile.mkdtemp(dir=wishes.folder))
            try:
                found = measure(FORMS[name], rows, wishes.only.split(","), folder)
            finally:
                shutil.rmtree(folder)
            columns[f"{name}, {rows:,} rows"] = found
    print(f"| peak, MB (CPU, s) | {' | '.join(columns)} |")
    print(f"|---{'|--:' * len(columns)}|")
    for name in next(iter(columns.values())):
        cells = (
            " (".join(f"{figure:,.0f}" for figure in own[name])
            + (")" if len(own[name]) > 1 else "")
            for own in columns.values()
        )
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
