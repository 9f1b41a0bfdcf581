"""From a frame and a plan to a job folder: render, hash, cut, write. Nothing is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Protocol

from frameenrich.model import Batch, BatchStatus
from frameenrich.store.draft import Draft
from frameenrich.store.folder import shard_name


class Filed(Protocol):
    """Requests that are in a draft's files."""

    @property
    def first_shard(self) -> int:
        """The first shard that is to be sent: 1 where shard 0 is answered already, else 0."""

    @property
    def shards(self) -> int:
        """How many shards there are."""

    @property
    def reused(self) -> Mapping[bytes, str]:
        """The custom_id of each request that has an answer already, by its hash."""

    def requests(self, number: int) -> int:
        """How many requests a shard that is to be sent has."""


def write_batch_files(draft: Draft, job_id: str, spool: Filed, answers: Answers | None) -> None:
    """Complete a draft: intents, and what is reused."""
    if answers is not None:
        _write_reused(draft, job_id, spool, answers)
    sent = {number: spool.requests(number) for number in range(spool.first_shard, spool.shards)}
    write_intents(draft, job_id, 0, sent, "round-0/")


def _write_reused(draft: Draft, job_id: str, spool: Filed, answers: Answers) -> None:
    """The shard of requests that are answered already: complete, and never sent."""
    stem, total = f"round-0/{shard_name(0)}", len(spool.reused)
    for line in answers.lines(spool.reused):
        draft.file(f"{stem}.responses.jsonl").write(line + b"\n")
    batch = Batch(
        batch_tag(job_id, 0, 0),
        status=BatchStatus.COMPLETED,
        total=total,
        completed=total,
        fetched=True,
        reused_from=answers.jobs,
        requests=total,
    )
    draft.write(f"{stem}.batch.json", batch.to_json().encode())


def job_name_slug(name: str) -> str:
    """How a job's id begins."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "job"


def batch_tag(job_id: str, round_: int, number: int, attempt: int = 0) -> str:
    """What a batch is called at the provider.

    Examples
    --------
    >>> batch_tag("labels-9a41", 1, 3)
    'labels-9a41-r1-s00003-a0'
    """
    return f"{job_id}-r{round_}-s{number:05d}-a{attempt}"


def write_intents(
    draft: Draft, job_id: str, round_: int, requests: Mapping[int, int], folder: str
) -> None:
    """Write the first batch.json of each shard: what is about to be sent, before it is."""
    for number, count in requests.items():
        intent = Batch(batch_tag(job_id, round_, number), requests=count)
        draft.write(f"{folder}{shard_name(number)}.batch.json", intent.to_json().encode())


class Answers(Protocol):
    """Requests that need not be sent: their answers are at hand (see `lifecycle.reuse`)."""

    @property
    def origins(self) -> Mapping[bytes, object]:
        """The request hashes."""

    @property
    def jobs(self) -> tuple[str, ...]:
        """Which jobs they come from."""

    def lines(self, ids: Mapping[bytes, str]) -> Iterator[bytes]:
        """Response lines for some request hashes, each under the custom_id given."""


def requests_file(number: int) -> str:
    """Where the requests of a shard of round 0 are in a draft."""
    return f"round-0/{shard_name(number)}.requests.jsonl"
