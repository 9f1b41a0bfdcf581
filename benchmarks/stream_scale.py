"""A CSV larger than memory should be through ``frameenrich run`` to Parquet: peak memory and time.

    uv run python benchmarks/stream_scale.py --rows 1000000

The command and the loopback server are processes of their own; what is printed is the command's
peak (``ru_maxrss``) and the CPU time it took.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

SERVER = Path(__file__).parent.parent / "tests" / "batch_server"
COMMAND = [sys.executable, "-c", "from frameenrich.cli.main import main; main()"]
ASK = ["-m", "gpt-4o-mini", "-t", "Which department sells {{ title }}?"]
LABELS = ["--labels", "Kitchen,Garden,Clothing,Electronics,Toys"]
NOTE = "made to last and sent back by nobody; " * 25


def write_csv(path: Path, rows: int) -> None:
    """A catalogue of about a kilobyte a row."""
    with path.open("w") as file:
        file.write("sku,title,note\n")
        for n in range(rows):
            file.write(f"{n:08d},Thing no. {n},{n} {NOTE}\n")


def run(rows: int, folder: Path) -> None:
    """Make the table, run the command, and look at what came out."""
    source, target = folder / "big.csv", folder / "out.parquet"
    write_csv(source, rows)
    server = [sys.executable, str(SERVER), "--options", '{"instant": true}']
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        env = {**os.environ, "OPENAI_API_KEY": "sk-none", "OPENAI_BASE_URL": url}
        where = ["--store", str(folder / "store"), "--poll-seconds", "1"]
        command = [*COMMAND, "run", str(source), str(target), *ASK, *LABELS, *where]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        try:
            subprocess.run(command, env=env, check=True)
            wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        finally:
            process.kill()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    statuses = pq.read_table(target, columns=["llmbatch_status"])["llmbatch_status"]
    assert statuses.value_counts().to_pylist() == [{"values": "ok", "counts": rows}]
    size = source.stat().st_size / 1e6
    print(f"{rows:,} rows, {size:,.0f} MB: peak {after.ru_maxrss / 1024:,.0f} MB, {wall:,.0f} s")
    print(f"{rows / cpu:,.0f} rows per CPU second of ours")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run(arguments.rows, Path(place))
