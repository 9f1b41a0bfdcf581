"""Kill a job with SIGKILL at every step, run it again, and count what was lost or paid twice.

    uv run python tests/kill_matrix.py [--faults none,accepted_then_500,...] [--random 100]
        [--service openai|live|azure|together|anthropic|mistral|gemini|finish|finish_azure]
        [--store disk|s3] [--share 1/8]

A step is a write to disk (rename, fsync, unlink, mkdir) or a call to the server, or to the bucket
that the store is in (``--store s3``); the process is killed before and after each. The job is real:
two shards, one malformed row that is regenerated, submit, wait, collect; or (``finish``) two shards
that are stuck, finished live, or by batches of another provider. The server is a process of its own
and survives. Each killed run is followed by one clean run in a new process, which has to
find every row answered, with every request executed once and one batch a shard at the server.

A kill costs what the job costs one and a half times, of the processor: nothing waits for a lease,
as a killed process of this computer is known to be dead. On disk that is 0.3 s; with a store on S3
it is ten times as much with moto and with signatures, so `thin_s3.py` is asked, unsigned. Shares
(``--share 1/8`` to ``8/8``) cut the steps evenly, for runs side by side or one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import anthropic
import fsspec.config
import httpx2
import openai
import pandas as pd
import s3fs
from botocore import useragent
from crash import KillPoint, control, forked, ledger, server_process, start, watch
from google import genai
from google.genai import types as genai_types
from mistralai.client import Mistral
from object_server import BUCKET, object_server

import frameenrich.verbs.submit  # noqa: F401 - loaded here once, so that forks need not
from frameenrich.model import Limits
from frameenrich.providers.anthropic.batch import AnthropicBatch
from frameenrich.providers.dialects import TOGETHER
from frameenrich.providers.gemini.batch import GeminiBatch
from frameenrich.providers.live.provider import LiveProvider
from frameenrich.providers.mistral.batch import MistralBatch
from frameenrich.providers.openai.batch import OpenAIBatch

ROWS = 6
ROWS_A_SHARD = 3
RANDOM_KILLS = 100
IN_FLIGHT = 2
"""So many live calls may be under way at a kill, and have to be made once more."""

ON_ITS_WAY_SECONDS = 2.0
"""For so long a create that a killed process sent may be on its way to a busy server."""

IDLE = httpx2.AsyncClient(verify=False)
"""Mistral's client wants one; nothing here uses it."""

FAULTS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "create made; answered 500": {"name": "accepted_then_500"},
    "create made; connection closed": {"name": "accepted_then_closed"},
    "upload made; answered 500": {"name": "accepted_then_500", "where": "POST /v1/files"},
    "503 anywhere": {"name": "http_503", "times": 2},
    "429 at create": {"name": "rate_limited", "where": "POST /v1/batches", "retry_after": 0},
    "502 page while polling": {"name": "html_502", "times": 2},
    "200 that is no JSON": {"name": "not_json"},
    "download cut short": {"name": "truncated_download"},
    "cannot find file": {"name": "cannot_find_file"},
    "queue full": {"name": "token_limit_exceeded"},
}


@dataclass(frozen=True)
class Service:
    """A server to run, and how to reach it.

    ``connect`` makes a provider from the server's address, ``key`` says what two batches for one
    shard have in common, and ``create`` is where batches are made. ``in_flight`` calls may be
    under way at a kill, and have to be made once more.
    """

    server: str
    options: dict[str, Any]
    connect: Callable[[str], Any]
    key: Callable[[Any], Any]
    create: str = "POST /v1/batches"
    in_flight: int = 0
    knows_full_queue: bool = True
    """Whether a batch that failed for a full queue is sent again; else its rows are failed."""
    finish: Callable[[str], Any] | None = None
    """Makes the provider that the rest goes to; the first batches are stuck then."""

    def fault(self, name: str) -> dict[str, Any] | None:
        """A fault of the table, at this server's own routes."""
        fault = FAULTS[name]
        if fault is None or self.server != "anthropic_server":
            return fault
        where = {"html_502": "GET /v1/messages/batches/*", "not_json": "GET /v1/messages/batches/*",
                 "truncated_download": "GET /v1/messages/batches/*/results"}  # fmt: skip
        if fault["name"].startswith(("accepted", "rate")):
            return {**fault, "where": self.create}
        return {**fault, **({"where": where[fault["name"]]} if fault["name"] in where else {})}


def _openai(base_url: str) -> OpenAIBatch:
    plain = httpx2.Client(verify=False)  # loopback: spares each fork the certificates
    client = openai.OpenAI(api_key="sk-test", base_url=base_url, http_client=plain)
    return OpenAIBatch(client, attempts=8, wait_seconds=0.002)


def _live(base_url: str) -> LiveProvider:
    client = openai.OpenAI(api_key="sk-test", base_url=base_url)
    return LiveProvider(client, max_in_flight=IN_FLIGHT, wait_seconds=0.002)


def _azure(base_url: str) -> OpenAIBatch:
    client = openai.AzureOpenAI(
        api_key="k",
        azure_endpoint=base_url.removesuffix("/v1"),
        api_version="2024-10-21",
        http_client=httpx2.Client(verify=False),
    )
    return OpenAIBatch(client, attempts=8, wait_seconds=0.002)


def _together(base_url: str) -> OpenAIBatch:
    plain = httpx2.Client(verify=False)
    client = openai.OpenAI(api_key="sk-test", base_url=base_url, http_client=plain)
    return OpenAIBatch(client, attempts=8, wait_seconds=0.002, dialect=TOGETHER)


def _anthropic(base_url: str) -> AnthropicBatch:
    plain = httpx2.Client(verify=False)
    client = anthropic.Anthropic(api_key="sk-test", base_url=base_url, http_client=plain)
    return AnthropicBatch(client, attempts=8, wait_seconds=0.002)


def _mistral(base_url: str) -> MistralBatch:
    plain = httpx2.Client(verify=False)
    client = Mistral(
        api_key="sk-test", server_url=base_url.removesuffix("/v1"), client=plain, async_client=IDLE
    )
    return MistralBatch(client, attempts=8, wait_seconds=0.002)


def _gemini(base_url: str) -> GeminiBatch:
    options = genai_types.HttpOptions(
        base_url=base_url.removesuffix("/v1"), httpx_client=httpx2.Client(verify=False)
    )
    client = genai.Client(vertexai=False, api_key="sk-test", http_options=options)
    return GeminiBatch(client, attempts=8, wait_seconds=0.002)


SERVICES = {
    "openai": Service("batch_server", {}, _openai, lambda b: b["metadata"]["frameenrich_tag"]),
    "live": Service("batch_server", {}, _live, lambda b: b["id"], in_flight=IN_FLIGHT),
    "azure": Service(
        "batch_server", {"azure": True}, _azure, lambda b: b["metadata"]["frameenrich_tag"]
    ),
    "together": Service(
        "batch_server",
        {"dialect": "together"},
        _together,
        lambda b: b["input_file_id"],
        knows_full_queue=False,
    ),
    "mistral": Service(
        "batch_server",
        {"dialect": "mistral"},
        _mistral,
        lambda b: b["metadata"]["frameenrich_tag"],
        knows_full_queue=False,
    ),
    "gemini": Service(
        "batch_server",
        {"dialect": "gemini"},
        _gemini,
        lambda b: b["metadata"]["frameenrich_tag"],
        knows_full_queue=False,
    ),
    "finish": Service(
        "batch_server",
        {},
        _openai,
        lambda b: b["metadata"]["frameenrich_tag"],
        in_flight=IN_FLIGHT,
        finish=_live,
    ),
    "finish_azure": Service(
        "batch_server",
        {"azure": True},
        _openai,
        lambda b: b["metadata"]["frameenrich_tag"],
        finish=_azure,
    ),
    "anthropic": Service(
        "anthropic_server",
        {},
        _anthropic,
        lambda b: tuple(b["custom_ids"]),
        create="POST /v1/messages/batches",
    ),
}


@dataclass(frozen=True)
class Case:
    """One job of its own: its rows are called after its number."""

    number: int
    base_url: str
    folder: Path
    service: Service
    bucket: bool = False
    confirm_seconds: float = 0.02

    @property
    def store(self) -> str:
        """Where the job is: a folder of the case, or a place of its own in the bucket."""
        return f"s3://{BUCKET}/case-{self.number}" if self.bucket else str(self.folder / "store")

    @property
    def frame(self) -> pd.DataFrame:
        """Rows whose answers name them."""
        keys = [f"c{self.number}r{i}" for i in range(ROWS)]
        return pd.DataFrame({"text": [f"item {key}" for key in keys]}, index=keys)

    @property
    def result(self) -> Path:
        """Where a run that gets to its end leaves the answers."""
        return self.folder / "result.json"

    def run(self) -> None:
        """Submit, wait, regenerate what is flagged, collect."""
        provider = self.service.connect(self.base_url)
        provider.limits = Limits(max_requests=ROWS_A_SHARD, queue_wait_seconds=0.01)
        job = self.frame.llmbatch.submit(
            "{{ text }}", "m", response_model={"text": str}, prefix="out_",
            provider=provider, store=self.store, params={"max_tokens": 50},
            confirm_seconds=self.confirm_seconds,
        )  # fmt: skip
        if self.service.finish is None:
            job.wait(poll_seconds=0.001)
            job.regenerate(feedback=False).wait(poll_seconds=0.001)
        else:
            other = self.service.finish(self.base_url)
            other.limits = Limits(max_requests=ROWS_A_SHARD, queue_wait_seconds=0.01)
            job.finish(other, poll_seconds=0.001).wait(poll_seconds=0.001)
        out = job.collect(self.frame)
        answers = out[["out_text", "llmbatch_status"]].astype(object).to_dict("index")
        self.result.write_text(json.dumps(answers))


@dataclass
class Tally:
    """What a row of the matrix found."""

    name: str
    in_flight: int = 0
    steps: int = 0
    kills: int = 0
    rows: int = 0
    lost: int = 0
    twice: int = 0
    extra_batches: int = 0
    orphan_files: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was lost and nothing was paid twice, but what was in flight at a kill."""
        twice = self.twice > self.kills * self.in_flight
        bad = self.lost or twice or self.extra_batches or self.orphan_files or self.problems
        return not bad


class Matrix:
    """Runs cases against one server and adds up what they did."""

    def __init__(
        self, name: str, service: Service, base_url: str, root: Path, *, bucket: bool
    ) -> None:
        self.tally = Tally(name, service.in_flight)
        self._bucket = bucket
        self._service = service
        self._fault = service.fault(name)
        self._url = base_url
        self._root = root
        self._number = 0

    def _new_case(self, confirm_seconds: float = 0.02) -> Case:
        self._number += 1
        folder = self._root / f"case-{self._number}"
        folder.mkdir()
        control(self._url, "clear")
        if self._service.finish is None:
            control(self._url, "add", name="malformed", where=f"row-c{self._number}r0")
        else:
            control(self._url, "add", name="stuck", where="*-r0-*", times="always")
        if self._fault is not None:
            control(self._url, "add", **self._fault)
        return Case(self._number, self._url, folder, self._service, self._bucket, confirm_seconds)

    def warm_up(self) -> None:
        """Run once in this process, so that what is imported late is there in every fork."""
        case = self._new_case()
        case.run()
        self._audit(case)

    def count_steps(self) -> int:
        """Run once without a kill, to learn how many steps there are."""
        case, report = self._new_case(), self._root / "steps"

        def work() -> None:
            point = KillPoint(at=0)
            watch(point)
            case.run()
            report.write_text(str(point.count))

        if forked(work) != 0:
            raise RuntimeError(f"{self.tally.name}: the job fails even without a kill")
        self._audit(case)
        self.tally.steps = int(report.read_text())
        return self.tally.steps

    def kill_at(self, step: int) -> None:
        """Kill a run at one step, run again, audit."""
        case = self._new_case()

        def work() -> None:
            watch(KillPoint(step))
            case.run()

        status = forked(work)
        self.tally.kills += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        self._again(case)

    def kill_after(self, seconds: float) -> None:
        """Kill a run at some moment, run again, audit."""
        case = self._new_case(ON_ITS_WAY_SECONDS)
        child = start(case.run)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        self.tally.kills += os.WIFSIGNALED(status)
        self._again(case)

    def _again(self, case: Case) -> None:
        case.result.unlink(missing_ok=True)
        if forked(case.run) != 0:
            self.tally.problems.append(f"case {case.number}: the second run failed")
        self._audit(case)

    def _audit(self, case: Case) -> None:
        answers = json.loads(case.result.read_text()) if case.result.exists() else {}
        self.tally.rows += ROWS
        for key, text in case.frame["text"].items():
            answer = answers.get(key, {})
            good = answer.get("llmbatch_status") == "ok" and text in str(answer.get("out_text"))
            self.tally.lost += not good
        shutil.rmtree(case.folder)

    def close_books(self) -> Tally:
        """Compare with what the server says it did."""
        books = ledger(self._url)
        again = 1 if self._service.finish is None else 0
        if self.tally.name == "queue full" and not self._service.knows_full_queue:
            again = 0  # the malformed row was in a batch that did not run
        runs = (ROWS + again) * self._number
        self.tally.twice = sum(count - 1 for count in books["executed"].values() if count > 1)
        if sum(books["executed"].values()) - self.tally.twice != runs:
            self.tally.problems.append(f"{sum(books['executed'].values())} of {runs} requests ran")
        ended = ("completed", "ended")
        ran = [
            b
            for b in books["batches"].values()
            if b.get("processing_status", b.get("status")) in ended or b.get("ran")
        ]
        tags = Counter(map(self._service.key, ran))
        self.tally.extra_batches = sum(count - 1 for count in tags.values())
        used = {batch.get("input_file_id") for batch in books["batches"].values()}
        inputs = [f for f in books["files"].values() if f["purpose"] != "batch_output"]
        if self._service.finish is None:  # a shard cancelled before its create leaves a file
            self.tally.orphan_files = sum(f["id"] not in used for f in inputs)
        return self.tally


def make_s3_cheap() -> None:
    """Spare each call to S3 what is not tried here: a signature, and its user agent's text."""
    os.environ["FSSPEC_S3_ANON"] = "true"
    fsspec.config.set_conf_env(fsspec.config.conf)
    name = "sanitize_user_agent_string_component"
    setattr(useragent, name, cache(getattr(useragent, name)))


def run_matrix(
    name: str,
    service: Service,
    *,
    every: int = 1,
    first: int = 1,
    randoms: int = 0,
    seed: int = 0,
    bucket: bool = False,
) -> Tally:
    """One row: kill at every step (or every so many, from `first` on), and at random moments."""
    with contextlib.ExitStack() as stack:
        base_url = stack.enter_context(server_process(service.server, **service.options))
        root = stack.enter_context(tempfile.TemporaryDirectory())
        if bucket:
            os.environ.update(stack.enter_context(object_server("thin_s3.py")))
            make_s3_cheap()
            s3fs.S3FileSystem.clear_instance_cache()  # of the server of the fault before
        matrix = Matrix(name, service, base_url, Path(root), bucket=bucket)
        matrix.warm_up()
        started = time.monotonic()
        gc.collect()
        gc.freeze()  # or each fork's first collection copies all of the memory
        steps = matrix.count_steps()
        seconds = time.monotonic() - started
        for step in range(first, steps + 1, every):
            matrix.kill_at(step)
        chance = random.Random(seed)
        for _ in range(randoms):
            matrix.kill_after(chance.uniform(0, seconds))
        return matrix.close_books()


def show(tallies: list[Tally]) -> str:
    """The table, with its sums."""
    head = ("service fault on top", "steps", "kills", "rows", "rows lost", "executed twice",
            "extra batches", "orphan files")  # fmt: skip
    lines = [
        (t.name, t.steps, t.kills, t.rows, t.lost, t.twice, t.extra_batches, t.orphan_files)
        for t in tallies
    ]
    sums = ("sum", *(sum(int(line[i]) for line in lines) for i in range(1, len(head))))
    table = [head, *lines, sums]
    widths = [max(len(str(line[i])) for line in table) for i in range(len(head))]
    text = "\n".join(
        "  ".join(str(cell).ljust(w) for cell, w in zip(line, widths, strict=True))
        for line in table
    )
    problems = [f"{t.name}: {problem}" for t in tallies for problem in t.problems]
    return "\n".join([text, *problems])


def main() -> int:
    """Print the matrix; 0 where nothing was lost or paid twice."""
    parser = argparse.ArgumentParser(description="Kill a job everywhere and count the losses.")
    parser.add_argument("--every", type=int, default=1, help="kill at every so many steps")
    parser.add_argument("--share", default="1/1", help="of these steps each nth, from the mth: m/n")
    parser.add_argument("--random", type=int, default=RANDOM_KILLS, help="kills at random moments")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which rows, by name")
    parser.add_argument("--service", default="openai", choices=SERVICES, help="whose API")
    parser.add_argument("--store", choices=["disk", "s3"], default="disk", help="where jobs are")
    wishes = parser.parse_args()
    bucket = wishes.store == "s3"
    share, shares = map(int, wishes.share.split("/"))
    every, first = wishes.every * shares, 1 + wishes.every * (share - 1)
    tallies = []
    for name in wishes.faults.split(","):
        randoms = wishes.random if name == "none" else 0
        service = SERVICES[wishes.service]
        tallies.append(
            run_matrix(name, service, every=every, first=first, randoms=randoms, bucket=bucket)
        )
        print(show(tallies[-1:]).splitlines()[1], flush=True)
    print(f"\n{show(tallies)}")
    return 0 if all(tally.clean for tally in tallies) else 1


if __name__ == "__main__":
    sys.exit(main())
