"""A frame of millions through two Dask workers to a loopback server and back: memory and time.

    uv run python benchmarks/dask_scale.py --rows 2000000

The client, each worker and the server are processes of their own; what is printed is the peak of
each (``VmHWM``, Linux) and the CPU time that it took. Nobody holds the frame: partitions are made
where they are rendered, and counted where they are collected.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import openai
import pandas as pd
from distributed import Client, LocalCluster

import frameenrich.dask  # noqa: F401 - registers ddf.llmbatch

TEMPLATE = "Which department sells {{ title }} for {{ price }} USD?"
SERVER = Path(__file__).parent.parent / "tests" / "batch_server"
WORDS = ("skillet", "rake", "shirt", "headphones", "abacus", "kettle", "trowel", "scarf")


@dataclass(frozen=True)
class Partition:
    """Makes the rows of a partition."""

    rows: int
    total: int

    def __call__(self, number: int) -> pd.DataFrame:
        """The partition of a number."""
        rows = range(number * self.rows, min((number + 1) * self.rows, self.total))
        titles = [f"A {WORDS[n % 8]} made to last, no. {n}" for n in rows]
        return pd.DataFrame({"title": titles, "price": [n % 900 for n in rows]}, index=rows)


@contextmanager
def server_process() -> Iterator[tuple[str, int]]:
    """The loopback server: its URL and its process."""
    command = [sys.executable, str(SERVER), "--options", '{"instant": true}']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


def peak_mb(pid: int) -> int:
    """The most memory that a process had at once."""
    told = Path(f"/proc/{pid}/status").read_text()
    return int(told.split("VmHWM:")[1].split()[0]) // 1024


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far, kernel time included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Watch:
    """Processes by name, and how many rows go through them."""

    processes: dict[str, int]
    rows: int

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """Do some work and print what it took of each process."""
        before = {each: cpu_seconds(pid) for each, pid in self.processes.items()}
        start = time.monotonic()
        result = work()
        took = {each: cpu_seconds(pid) - before[each] for each, pid in self.processes.items()}
        ours = sum(seconds for each, seconds in took.items() if each != "server")
        told = ", ".join(
            f"{each} {seconds:.0f} s {peak_mb(self.processes[each])} MB"
            for each, seconds in took.items()
        )
        wall = time.monotonic() - start
        print(f"{name}: {self.rows / ours:,.0f} rows per CPU second of ours; {wall:.0f} s; {told}")
        sys.stdout.flush()
        return result


def run(rows: int, partition_rows: int, folder: str) -> None:
    """Submit, wait, collect; every row has to come back with the answer to its own request."""
    meta = Partition(0, 0)(0).astype({"title": "str", "price": "int64"})
    count = math.ceil(rows / partition_rows)
    cluster = LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        local_directory=f"{folder}/dask",
    )
    with server_process() as (url, server), cluster, Client(cluster) as workers:
        pids = sorted(workers.run(os.getpid).values())
        named = {"client": os.getpid(), "worker 1": pids[0], "worker 2": pids[1], "server": server}
        watch = Watch(named, rows)
        watch.stage("at rest", lambda: time.sleep(0.1))
        ddf = dd.from_map(Partition(partition_rows, rows), range(count), meta=meta)
        with openai.OpenAI(api_key="sk-none", base_url=url) as client:
            options = {"client": client, "store": f"{folder}/store"}
            job = watch.stage(
                "submit", lambda: ddf.llmbatch.submit(TEMPLATE, "gpt-4o-mini", **options)
            )
            watch.stage("wait", lambda: job.wait(poll_seconds=1))
            out = ddf.llmbatch.collect(job)
            asked = "Which department sells " + out["title"] + " for "
            right = out["llmbatch"] == "echo: " + asked + out["price"].astype("str") + " USD?"
            assert watch.stage("collect", lambda: int(right.sum().compute())) == rows
            assert len(job.requests) == count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--partition-rows", type=int, default=50_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run(arguments.rows, arguments.partition_rows, place)
