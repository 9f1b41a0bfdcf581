"""Name and write the files of a job folder that hold no rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import pyarrow as pa

from frameenrich.identity.dedupe import JobHash
from frameenrich.identity.hash_table import KnownRequests, Positions
from frameenrich.identity.older import OlderJobHash
from frameenrich.model import Batch, BatchStatus, JobSpec, Stage
from frameenrich.store.draft import Draft
from frameenrich.store.shard import shard_name


def job_id(spec: JobSpec, job_hash: JobHash, nonce: str) -> str:
    """Return the id of a job, a hash of what it sends; a nonce makes another id."""
    return f"{slug_of(spec)}-{job_hash.hexdigest(spec, nonce)[:16]}"


def older_job_id(spec: JobSpec, job_hash: OlderJobHash) -> str:
    """Return the id that an earlier version gave to the same job."""
    return f"{slug_of(spec)}-{job_hash.hexdigest(spec)[:16]}"


def slug_of(spec: JobSpec) -> str:
    """Return the start of the ids of all jobs of this name."""
    # The id names a folder, objects of a bucket and batches: keep to characters that all allow.
    return re.sub(r"[^A-Za-z0-9_-]+", "-", spec.name).strip("-")[:40] or "job"


def batch_tag(job_id: str, round_: int, number: int, attempt: int = 0) -> str:
    """Return the name of a batch at the provider.

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
    """Write the first batch.json of each shard: the intent, before anything is sent.

    `provider` is the round's, where that is not the job's own; `waits` names the jobs whose
    answers some shards wait for.
    """
    # A later process that finds an intent searches the provider for its tag before it makes a
    # batch: a create whose reply was lost is never paid twice.
    for number, count in requests.items():
        stem = f"{folder}{shard_name(number)}"
        intent = Batch(
            batch_tag(job_id, round_, number),
            requests=count,
            provider=provider,
            requests_xxh3=draft.quick_hash(f"{stem}.requests.jsonl"),
        )
        # Waiting jobs are sorted, so that the same submit writes the same bytes.
        if jobs := (waits or {}).get(number):
            intent = intent.replace(
                stage=Stage.WAITING, status=BatchStatus.WAITING, waits_for=tuple(sorted(jobs))
            )
        draft.write(f"{stem}.batch.json", intent.to_json().encode())


class Answers(Protocol):
    """Answers that the store has to requests, which are not sent then (`lifecycle.reuse`)."""

    @property
    def requests(self) -> KnownRequests:
        """Return the answered requests."""

    @property
    def jobs(self) -> tuple[str, ...]:
        """Return the ids of the jobs that have the answers."""

    def lines(self, positions: Positions, names: pa.Array) -> Iterator[bytes]:
        """Yield the response lines of some of the requests, each under the custom_id given."""


def requests_file(number: int) -> str:
    """Return the path in a draft of a shard's requests in round 0."""
    return f"round-0/{shard_name(number)}.requests.jsonl"
