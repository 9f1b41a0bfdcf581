"""Hash requests, and the texts of rows: 32 bytes each, of SHA-256.

An input hash is of a request's texts, one after the other as JSON; a request's hash is of that and
of all the rest of its url and body. So what is the same in every row is digested once, and a row's
own texts once for both hashes, without a body being made. These hashes decide who gets whose
answer, and the texts may be a stranger's: two that agree must not be found by trying.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import chain, repeat

import numpy as np
import pyarrow as pa

from frameenrich.jsonl import encode

# Of 600-byte texts SHA-256 took 0.6 µs (blake2b 0.9, BLAKE3 1.0, XXH3 0.1); all hashing is a fifth
# of `submit`'s CPU time. XXH3 was here before: texts of one XXH3 hash can be written down
# (tests/identity/test_adversary.py), and would share an answer.
HASH_BYTES = 32


# The texts of a body in compact JSON. In there no quote stands but with a backslash before it.
_TEXT = re.compile(rb'("(?:content|input|prompt)":)("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)


def body_texts(body: bytes) -> list[bytes]:
    """Return the texts of a body, as the JSON that they are there.

    Examples
    --------
    >>> body_texts(b'{"messages":[{"role":"user","content":"Red mug"}]}')
    [b'"Red mug"']
    """
    return [text for _, text in _TEXT.findall(body)]


def body_rest(body: bytes) -> bytes:
    """Return a body without its texts, which is unlike any body: no value stands there."""
    return _TEXT.sub(rb"\1", body)


# The input hash is of the rendered texts, not of the cells: a re-read CSV with other dtypes agrees,
# and a reset_index after a sort does not. A row meets its answer through this hash alone.
def texts_hash(texts: Iterable[bytes]) -> bytes:
    r"""Return the hash of one request's texts, each as JSON, which says where it ends.

    Examples
    --------
    >>> texts_hash([b'"ab"', b'"c"']) == texts_hash([b'"a"', b'"bc"'])
    False
    """
    return sha256(b"".join(texts)).digest()


def texts_hashes(same: Sequence[bytes], varying: Sequence[Sequence[bytes]], count: int) -> bytes:
    """Return `texts_hash` of each of some requests that have most texts in common.

    Parameters
    ----------
    same : sequence of bytes
        What all have before, between and after the texts that vary: one more than these.
    varying : sequence of sequences of bytes
        The texts that vary, text by text.
    count : int
        How many requests there are.
    """
    # The usual prompt ends with the row's own text: nothing has to be joined.
    if len(varying) == 1 and not same[1]:
        return _continued(same[0], varying[0])
    between = chain.from_iterable(
        (column, repeat(piece)) for column, piece in zip(varying, same[1:], strict=True)
    )
    return _continued(same[0], map(b"".join, zip(repeat(b"", count), *between, strict=False)))


def request_hash(url: str, body: bytes) -> bytes:
    """Return the hash that two requests share if they are the same: 32 bytes of url and body.

    Examples
    --------
    >>> texts = texts_hash([b'"Red mug"'])
    >>> rest = rest_hash("/v1/embeddings", b'{"input":"Red mug"}')
    >>> request_hashes(rest, texts) == request_hash("/v1/embeddings", b'{"input":"Red mug"}')
    True
    """
    return request_hashes(rest_hash(url, body), texts_hash(body_texts(body)))


def rest_hash(url: str, body: bytes) -> bytes:
    """Return the hash of a url and all of a body but its texts."""
    return sha256(encode(url) + body_rest(body)).digest()


def request_hashes(rest: bytes, texts: bytes) -> bytes:
    """Return the request hashes of some requests, given the hashes of their texts."""
    return _continued(rest, split_hashes(texts))


def _continued(start: bytes, ends: Iterable[bytes]) -> bytes:
    """Return the digest of `start` and each end; `start` is digested once."""
    begun, digests = sha256(start), []
    for end in ends:
        own = begun.copy()
        own.update(end)
        digests.append(own.digest())
    return b"".join(digests)


def split_hashes(hashes: bytes) -> list[bytes]:
    """Return each hash by itself."""
    # V and not S, from which NumPy would cut zero bytes at the end.
    each: list[bytes] = np.frombuffer(hashes, f"V{HASH_BYTES}").tolist()
    return each


def hash_column(hashes: bytes | bytearray, width: int = HASH_BYTES) -> pa.Array:
    """Return concatenated hashes as an Arrow column."""
    count = len(hashes) // width
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), count, [None, pa.py_buffer(bytes(hashes))]
    )
