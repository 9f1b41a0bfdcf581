"""The hashes of the jobs that earlier versions wrote: XXH3, which names but does not guard.

Each text of a request had a digest that knew its position, and so had the rest of the body; a hash
was all of these together (XOR). Whoever can choose texts can make two agree, so these hashes only
find what is on disk already: the job of the same submit, and whether a frame is the one of that
job. An answer is never reused by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import repeat

import numpy as np
import numpy.typing as npt
import xxhash

from frameenrich.identity.hashes import body_rest, body_texts
from frameenrich.jsonl import encode_all
from frameenrich.model import JobSpec

# A store of version 2 goes on by this formula where it only finds what is there. For reuse its
# requests are read and hashed anew. Version 1 hashed whole bodies; no frame is compared with those.
HASH_BYTES = 16


Digests = npt.NDArray[np.uint64]
"""Hashes as two numbers each."""


def texts_hashes(texts: Sequence[Sequence[str]]) -> bytes:
    """Return the input hashes of some rows; their texts are given message by message."""
    own = []
    for position, column in enumerate(texts):
        # The position is the hash's seed, or two messages with their texts exchanged would agree.
        digests = map(xxhash.xxh3_128_digest, encode_all(column), repeat(position))
        own.append(np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2))
    return reduce(np.bitwise_xor, own).tobytes()


def request_hash(url: str, body: bytes) -> bytes:
    """Return the hash of a request as it was: 16 bytes of url and body."""
    # The position is the seed: XOR alone would give two texts that are swapped the same hash.
    own = [xxhash.xxh3_128_digest(body_rest(body), xxhash.xxh3_64_intdigest(url.encode()))]
    own += (
        xxhash.xxh3_128_digest(text, position) for position, text in enumerate(body_texts(body))
    )
    return reduce(np.bitwise_xor, (np.frombuffer(each, "<u8") for each in own)).tobytes()


class OlderJobHash:
    """Name a job by what it sends, as earlier versions did."""

    def __init__(self) -> None:
        self._sums = np.zeros(2, np.uint64)

    def add(self, keys: npt.NDArray[np.uint64], hashes: bytes) -> None:
        """Count some rows in: the digests of their keys, and their older request hashes."""
        pairs = np.frombuffer(hashes, "<u8").reshape(-1, 2)
        own = np.stack([mixed(keys ^ pairs[:, 0]), mixed(mixed(keys) + pairs[:, 1])])
        self._sums += own.sum(axis=1, dtype=np.uint64)

    def hexdigest(self, spec: JobSpec) -> str:
        """Return the job's id: 32 hexadecimal digits."""
        start = f"{spec.identity_json()}\n".encode("utf-8", "surrogatepass")
        return xxhash.xxh3_128_hexdigest(start + self._sums.astype("<u8").tobytes())


def mixed(values: Digests) -> Digests:
    """Apply Splitmix64's finaliser (Steele, Lea and Flood 2014): every bit changes all others."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
