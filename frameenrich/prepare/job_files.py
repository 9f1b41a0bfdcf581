"""Name and write the files of a job folder that do not hold rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from frameenrich.identity.dedupe import JobHash
from frameenrich.identity.older import OlderJobHash
from frameenrich.model import Batch, BatchStatus, JobSpec, Stage
from frameenrich.store.draft import Draft
from frameenrich.store.shard import shard_name


def job_id(spec: JobSpec, job_hash: JobHash, nonce: str) -> str:
    """Return the id of a job, which says what it sends; a nonce makes it another one."""
    return f"{slug_of(spec)}-{job_hash.hexdigest(spec, nonce)[:16]}"


def older_job_id(spec: JobSpec, job_hash: OlderJobHash) -> str:
    """Return the id that an earlier version gave such a job."""
    return f"{slug_of(spec)}-{job_hash.hexdigest(spec)[:16]}"


def slug_of(spec: JobSpec) -> str:
    """Return what the ids of all jobs of this name begin with."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", spec.name).strip("-")[:40] or "job"


def batch_tag(job_id: str, round_: int, number: int, attempt: int = 0) -> str:
    """Return what a batch is called at the provider.

    Examples
    --------
    >>> batch_tag("labels-9a41", 1, 3)
    'labels-9a41-r1-s00003-a0'
    """
    return f"{job_id}-r{round_}-s{number:05d}-a{attempt}"


def write_intents(
    draft: Draft,
    job_id: str,
    round_: int,
    requests: Mapping[int, int],
    folder: str,
    provider: str | None = None,
    waits: Mapping[int, Collection[str]] | None = None,
) -> None:
    """Write the first batch.json of each shard: what is about to be sent, before it is.

    `provider` is where the round goes, where that is not the job's own provider; `waits` names the
    jobs whose answers some shards wait for.
    """
    for number, count in requests.items():
        stem = f"{folder}{shard_name(number)}"
        intent = Batch(
            batch_tag(job_id, round_, number),
            requests=count,
            provider=provider,
            requests_xxh3=draft.quick_hash(f"{stem}.requests.jsonl"),
        )
        if jobs := (waits or {}).get(number):
            intent = intent.replace(
                stage=Stage.WAITING, status=BatchStatus.WAITING, waits_for=tuple(sorted(jobs))
            )
        draft.write(f"{stem}.batch.json", intent.to_json().encode())


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
