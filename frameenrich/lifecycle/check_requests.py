"""Compare requests that are about to be sent with the hashes that the sidecar has of them.

Rot in a requests file would be answered, paid for, and put on the row that asked something else.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.errors import DamagedFileError
from frameenrich.identity import hashes, older
from frameenrich.jsonl import body_of, request_ids, url_of
from frameenrich.model import HASHES
from frameenrich.rendering.caching import unmarked
from frameenrich.store.folder import JobFolder
from frameenrich.store.proof import quick_hash
from frameenrich.store.shard import ShardFolder

# Arrow compares a block at once; the block bounds the lines in memory.
_LINES_AT_ONCE = 4096


_OLDER = 2
"""The version of hashes before `HASHES` that requests can still be compared with."""


def check_requests(shard: ShardFolder) -> None:
    """Refuse a requests file that is not the one that the sidecar was written with.

    Raises
    ------
    DamagedFileError
        A request differs from its hash, lacks, or is none of the sidecar's.
    """
    written = shard.batch.requests_xxh3
    if written is not None:
        with shard.open_requests() as file:
            if quick_hash(file) == written:
                return  # a hundredth of what it takes to hash each request
    _check_each(shard)
    if written is not None:
        # The hashes leave out cache marks, so requests may agree where the file is damaged.
        raise _damaged(shard, "its bytes are not those that were written")


def _check_each(shard: ShardFolder) -> None:
    """Refuse the file at its first request that differs from its hash; the error names it."""
    known = _hashes(shard.job, shard.round, shard.number)
    if known is None:
        return
    hash_of, ids, expected = known
    seen = 0
    with shard.open_requests() as lines:
        block: list[tuple[str, bytes]] = []
        for pair in request_ids(lines):
            block.append(pair)
            if len(block) == _LINES_AT_ONCE:
                _compare(shard, block, hash_of, ids, expected)
                seen, block = seen + len(block), []
        _compare(shard, block, hash_of, ids, expected)
    if seen + len(block) != len(ids):
        raise _damaged(shard, f"it has {seen + len(block)} of its {len(ids)} requests")


def check_request(shard: ShardFolder, custom_id: str, line: bytes, expected: bytes) -> None:
    """Refuse one request that differs from its hash.

    Raises
    ------
    DamagedFileError
        It differs.
    """
    hash_of = _formula(shard.job, len(expected))
    if hash_of is not None and hash_of(line) != expected:
        raise _damaged(shard, f"the request {custom_id} is not the one that was written")


def _hashes(
    job: JobFolder, round_: int, number: int
) -> tuple[Callable[[bytes], bytes], pa.Array, pa.Array] | None:
    """Return a shard's hash function, custom_ids and hashes; None where these are too old."""
    table = job.sidecar(round_, ["custom_id", "request_hash", "shard"])
    table = table.filter(pc.equal(table["shard"], number))
    hash_of = _formula(job, table.schema.field("request_hash").type.byte_width)
    if hash_of is None:
        return None
    ids = table["custom_id"].combine_chunks().dictionary_encode()  # rows may share a request
    first = pc.index_in(ids.dictionary, value_set=table["custom_id"].combine_chunks())
    return hash_of, ids.dictionary, table["request_hash"].combine_chunks().take(first)


def _formula(job: JobFolder, width: int) -> Callable[[bytes], bytes] | None:
    if width == hashes.HASH_BYTES:
        spec = job.spec
        # Cache marks are no part of a request's hash, as they change no answer.
        return lambda line: hashes.request_hash(url_of(line), unmarked(spec, body_of(line)))
    # A store of version 2 goes on by its own formula. Version 1 hashed whole bodies: not checked.
    if job.spec.version in {_OLDER, HASHES}:
        return lambda line: older.request_hash(url_of(line), body_of(line))
    return None


def _compare(
    shard: ShardFolder,
    block: list[tuple[str, bytes]],
    hash_of: Callable[[bytes], bytes],
    ids: pa.Array,
    expected: pa.Array,
) -> None:
    try:
        own = pa.array([hash_of(line) for _, line in block], expected.type)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(shard, f"a request cannot be read ({error})") from None
    positions = pc.index_in(
        pa.array([custom_id for custom_id, _ in block], ids.type), value_set=ids
    )
    # An unknown custom_id has no position, so its comparison is null: damage, too.
    same = pc.fill_null(pc.equal(own, expected.take(positions)), False)
    if not pc.all(same).as_py():
        custom_id = block[pc.index(same, False).as_py()][0]
        raise _damaged(shard, f"the request {custom_id} is not the one that was written")


def _damaged(shard: ShardFolder, how: str) -> DamagedFileError:
    return DamagedFileError(
        f"The store's file {shard.requests_path} is damaged: {how}.",
        "Nothing of it was sent. Restore it from a backup, or submit again with fresh=True, which "
        "makes a new job.",
        path=shard.requests_path,
    )
