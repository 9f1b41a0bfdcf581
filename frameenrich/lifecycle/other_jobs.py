"""List the other jobs of a store for a submit: a damaged one stops only what may need it.

A request that another job has asked is not asked again, so what that job has must be readable. A
job that cannot be read is passed over where its requests files, which have hashes of their own,
prove that it asked none of the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from frameenrich.errors import StoreError
from frameenrich.identity.dedupe import ShortHashes, is_in, short_hash_column
from frameenrich.identity.hashes import hash_column, request_hash
from frameenrich.jsonl import body_of, encode, request_ids, url_of
from frameenrich.rendering.caching import without_marks
from frameenrich.store.folder import JobFolder, JobPath, split_jobs
from frameenrich.store.listing import warn_damaged
from frameenrich.store.proof import quick_hash
from frameenrich.store.shard import DAMAGE, ShardPath
from frameenrich.store.store import Store

_CACHE_KEY = "prompt_cache_key"


def other_jobs(
    store: Store, sent: ShortHashes, own_id: str = "", *, warn: bool = False
) -> list[JobFolder]:
    """List a store's other jobs, the newest first.

    Parameters
    ----------
    store : Store
        Where to look.
    sent : array of uint64
        The halves of the request hashes that matter, in order.
    own_id : str
        A job that does not count.
    warn : bool
        Warn of damaged jobs that are passed over.

    Raises
    ------
    StoreError
        A damaged job may have asked some of these requests.
    """
    readable, damaged = split_jobs(store, own_id)
    for folder, error in damaged:
        check_unneeded(folder, error, sent)
    if warn:
        warn_damaged(error for _, error in damaged)
    return readable


def check_unneeded(folder: JobPath, error: StoreError, sent: ShortHashes) -> None:
    """Raise a damaged job's error, unless it is proved to have asked none of some requests."""
    try:
        shards = folder.shard_paths()
        shared = sum(_count_shared(shard, sent) for shard in shards)
    except (*DAMAGE, StoreError):
        raise _needed(folder, error, None) from None
    if shared or not shards:
        raise _needed(folder, error, shared) from None


def _count_shared(shard: ShardPath, sent: ShortHashes) -> int:
    """Count the requests of a shard that are among others, by its requests file alone."""
    with shard.open_requests() as lines:
        # Rot could make a request look like one that was never asked: only a whole file proves.
        if shard.batch.requests_xxh3 != quick_hash(lines):
            raise ValueError(shard.requests_path)
        lines.seek(0)
        hashes = bytearray()
        for _, line in request_ids(lines):
            hashes += b"".join(_possible_hashes(line))
    return int(is_in(sent, short_hash_column(pa.chunked_array([hash_column(hashes)]))).sum())


def _possible_hashes(line: bytes) -> set[bytes]:
    """Return the hashes that a request may have: which cache marks are ours, a spec would tell."""
    url, body = url_of(line), body_of(line)
    marked = json.loads(body)
    plain = without_marks(marked)
    # Unless the key in it is the user's own parameter, and a part of the hash.
    own_key = {n: plain.get(n, v) for n, v in marked.items() if n in plain or n == _CACHE_KEY}
    return {request_hash(url, each) for each in (body, encode(plain), encode(own_key))}


@contextmanager
def needing(folder: JobFolder, count: int) -> Iterator[None]:
    """Say of damage to a job that some of its requests are among those to be asked now."""
    try:
        yield
    except StoreError as error:
        raise _needed(folder, error, count) from None


def _needed(folder: JobPath, error: StoreError, count: int | None) -> StoreError:
    many = f"{count:,} of" if count else "perhaps some of"
    error.problem = f"The job {folder.id} has asked {many} the same requests. {error.problem}"
    error.fix = (
        f"{error.fix} With its folder moved out of the store, or with fresh=True, they are asked "
        "and paid again."
    )
    return error
