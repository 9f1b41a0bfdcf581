"""Several processes do random verbs on one store at once, and some of them are killed.

    uv run python tests/many_at_once.py --rounds 20 --processes 3 [--seed 7] [--kills]

Then one process brings every job to its end and audits: each row has its own answer, and no
request was executed more often than once, once for each time that a later round asks it, and once
for each batch that was given up while nobody knew whether it had been made.
Every process draws its verbs from a seed that is printed with whatever went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pandas as pd
from audit import ASK, said, shelf
from batch_server import body_hash
from crash import control, ledger, server_process, start

import frameenrich
from frameenrich.errors import FrameEnrichError
from frameenrich.model import BatchStatus, Limits
from frameenrich.providers.live.provider import LiveProvider
from frameenrich.providers.openai.batch import OpenAIBatch
from frameenrich.store.folder import JobPath
from frameenrich.store.store import open_store

VERBS_A_PROCESS = 8
ROWS = 12
"""The rows of all frames together; each frame has some of them."""

CONFIRM_SECONDS = 2.0
"""So long a create of a killed process may be on its way to a busy server."""

FAULTS: list[dict[str, Any]] = [
    {"name": "accepted_then_500"},
    {"name": "accepted_then_closed"},
    {"name": "expired", "ran": 0.5},
    {"name": "cancelled"},
    {"name": "http_503", "times": 3},
    {"name": "late_files", "looks": 2},
    {"name": "malformed", "times": 2},
    {"name": "rate_limited", "retry_after": 0},
]


@dataclass(frozen=True)
class Actor:
    """One process's part: verbs drawn from its seed."""

    base_url: str
    store: Path
    seed: int
    live: bool = True
    """Whether it may make live calls."""

    def act(self) -> None:
        """Do the verbs; raise what no user should meet."""
        chance = random.Random(self.seed)
        warnings.simplefilter("ignore")
        plain = httpx2.Client(verify=False)
        client = openai.OpenAI(api_key="sk-test", base_url=self.base_url, http_client=plain)
        provider = OpenAIBatch(client, attempts=4, wait_seconds=0.002)
        provider.limits = Limits(max_requests=4, queue_wait_seconds=0.01)
        for _ in range(VERBS_A_PROCESS):
            verb = chance.choices(list(VERBS), weights=[v[1] for v in VERBS.values()])[0]
            if verb == "finish" and not self.live:
                continue
            # What a user is told is no fault of the store's: somebody else may be at work.
            with contextlib.suppress(FrameEnrichError):
                VERBS[verb][0](self, chance, provider)

    def any_job(self, chance: random.Random, provider: Any) -> Any:
        """Return a handle on some job of the store."""
        known = sorted(open_store(self.store).job_ids())
        if not known:
            return self.submit(chance, provider)
        return frameenrich.open_job(chance.choice(known), store=self.store, client=provider._client)

    def submit(self, chance: random.Random, provider: Any) -> Any:
        """Submit some of the rows."""
        first = chance.randrange(ROWS - 3)
        frame = shelf(chance.randint(3, ROWS - first), first)
        return frame.llmbatch.submit(
            ASK, "gpt-4o-mini", provider=provider, store=self.store, params={"max_tokens": 50},
            confirm_seconds=CONFIRM_SECONDS, name=chance.choice(["one", "two"]),
            # A kill within a live call may cost its row twice, so none is made then.
            probe=self.live and chance.random() < 0.2,
        )  # fmt: skip

    def import_some(self, chance: random.Random, provider: Any) -> None:
        """Import a right answer to some of a job's rows."""
        job = self.any_job(chance, provider)
        path = self.store.parent / f"import-{os.getpid()}-{chance.random()}.jsonl"
        with path.open("w") as file:
            for requests in job.requests:
                for line in Path(requests).read_text().splitlines():
                    if chance.random() < 0.5:
                        file.write(json.dumps(_answer(json.loads(line))) + "\n")
        job.import_responses(path)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    asked = request["body"]["messages"][0]["content"]
    choice = {"message": {"content": f"echo: {asked}"}, "finish_reason": "stop"}
    response = {"status_code": 200, "body": {"choices": [choice]}}
    return {"custom_id": request["custom_id"], "response": response, "error": None}


Verb = Callable[[Actor, random.Random, Any], object]


def _of_job(verb: Callable[[Any], object]) -> Verb:
    return lambda actor, chance, provider: verb(actor.any_job(chance, provider))


VERBS: dict[str, tuple[Verb, float]] = {
    "submit": (Actor.submit, 8),
    "collect": (_of_job(lambda job: job.collect()), 4),
    "wait": (_of_job(lambda job: job.wait(timeout=0.2, poll_seconds=0.01)), 4),
    "mend": (
        _of_job(lambda job: job.collect(wait=True, timeout=0.3, poll_seconds=0.01, max_rounds=2)),
        1,
    ),
    "regenerate": (_of_job(lambda job: job.regenerate()), 1),
    "cancel": (_of_job(lambda job: job.cancel()), 1),
    "give up": (_of_job(lambda job: job.give_up()), 1),
    "import": (Actor.import_some, 1),
    "withdraw": (_of_job(lambda job: job.withdraw_import()), 1),
    "status": (_of_job(lambda job: (str(job.status()), repr(job), job._repr_html_())), 2),
    "refetch": (_of_job(lambda job: job.refetch()), 0.5),
    "finish": (
        _of_job(
            lambda job: job.finish(
                LiveProvider(job._session.provider()._client), timeout=1, poll_seconds=0.01
            )
        ),
        0.5,
    ),
}
"""What a process may do, and how often, among them."""


def _watched(actor: Actor) -> None:
    try:
        actor.act()
    except BaseException:
        print(f"seed {actor.seed}:\n{traceback.format_exc()}", flush=True)
        raise


def one_round(base_url: str, store: Path, seed: int, processes: int, *, kills: bool) -> list[str]:
    """Let processes at one store; return what is wrong afterwards."""
    chance = random.Random(seed)
    control(base_url, "clear")
    for fault in chance.sample(FAULTS, 2):
        control(base_url, "add", **fault)
    before = Counter(ledger(base_url)["executed_bodies"])
    actors = [Actor(base_url, store, seed * 1_000 + n, live=not kills) for n in range(processes)]
    children = [start(lambda a=actor: _watched(a)) for actor in actors]  # type: ignore[misc]
    if kills:
        time.sleep(chance.uniform(0.2, 2.0))
        with contextlib.suppress(ProcessLookupError):
            os.kill(children[0], signal.SIGKILL)
    ends = [os.waitpid(child, 0)[1] for child in children]
    problems = [
        f"seed {actor.seed} ended with {end}"
        for actor, end in zip(actors, ends, strict=True)
        if os.waitstatus_to_exitcode(end) not in {0, -signal.SIGKILL}
    ]
    control(base_url, "clear")
    return problems + audit(base_url, store, before)


def audit(base_url: str, store: Path, before: Counter[str]) -> list[str]:
    """Bring every job to its end; say which rows lack their answer, and what ran too often."""
    client = openai.OpenAI(api_key="sk-test", base_url=base_url)
    problems, again = [], Counter[str]()
    jobs = [
        frameenrich.open_job(job_id, store=store, client=client)
        for job_id in sorted(open_store(store).job_ids())
    ]
    for job in jobs:
        for _ in range(4):  # what was cancelled or withdrawn meanwhile is asked again
            job.wait(timeout=60, poll_seconds=0.02)
            if job.flagged().empty:
                break
            job.regenerate()
    for job in (each for each in jobs if not each.spec.pilot):
        frame = shelf(ROWS)
        frame = frame[frame.index.isin(job.collect().index)]
        out = job.collect(frame)
        problems += [
            f"{job.id}: {key} is {status}, {answer!r}"
            for key, title, answer, status in zip(
                frame.index,
                frame["title"],
                out[job.spec.name],
                out[f"{job.spec.name}_status"],
                strict=True,
            )
            if status != "ok" or answer != said(title)
        ]
        later = (path for path in job.requests if "/round-0/" not in path)
        for line in (text for path in later for text in Path(path).read_text().splitlines()):
            again[body_hash(json.loads(line)["body"])] += 1
        # A batch that somebody gave up while nobody knew whether it was made may have run: who
        # gives it up says that its rows may be asked once more (docs/providers.md).
        for shard in JobPath(open_store(store), job.id).open().all_shards():
            if shard.batch.status is BatchStatus.LOST:
                with shard.open_requests() as lines:
                    again.update(body_hash(json.loads(line)["body"]) for line in lines)
    ran = Counter(ledger(base_url)["executed_bodies"]) - before
    return problems + [
        f"{count} executions of {body[:8]}, of which {again[body]} were asked for anew"
        for body, count in ran.items()
        if count > 1 + again[body]
    ]


def main() -> int:
    """Print what was done and what is wrong; 0 where nothing is."""
    parser = argparse.ArgumentParser(description="Let processes at one store, and audit it.")
    parser.add_argument("--rounds", type=int, default=20, help="stores, one after the other")
    parser.add_argument("--processes", type=int, default=3, help="on each store at once")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--kills", action="store_true", help="kill one process of each round")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    _ = pd.DataFrame().llmbatch  # imported once, so that forks need not
    wrong = 0
    with server_process() as base_url, tempfile.TemporaryDirectory() as root:
        for seed in range(options.seed, options.seed + options.rounds):
            store = Path(root, str(seed), "store")
            found = one_round(base_url, store, seed, options.processes, kills=options.kills)
            wrong += bool(found)
            jobs = len(open_store(store).job_ids())
            print(f"seed {seed}: {jobs} jobs", *found, sep="\n  ", flush=True)
    print(f"{options.rounds} rounds, {wrong} with something wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
