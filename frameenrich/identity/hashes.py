"""What names a request, and what names a row's texts: 16 bytes each, put together of digests.

Each text of a request has a digest that knows its place, and so has the rest of the body. A hash
is all of these together (XOR). So what is the same in every row is digested once, and a row's own
texts once for both hashes, without a body being made. XXH3 names; it guards nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import repeat

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

HASH_BYTES = 16


Digests = npt.NDArray[np.uint64]
"""Hashes as two numbers each."""


# The texts of a body in compact JSON. In there no quote stands but with a backslash before it.
_TEXT = re.compile(rb'("(?:content|input|prompt)":)("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)


def text_digest(text: bytes, place: int) -> bytes:
    """16 bytes that stand for a text as JSON, and for which of the request's texts it is."""
    return xxhash.xxh3_128_digest(text, place)


def text_digests(texts: Iterable[bytes], place: int) -> Digests:
    """`text_digest` of each."""
    digests = b"".join(map(xxhash.xxh3_128_digest, texts, repeat(place)))
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def combined(digests: Iterable[bytes]) -> bytes:
    r"""All of them in one.

    Examples
    --------
    >>> combined([b"\x03" + bytes(15), b"\x01" + bytes(15)])[:1]
    b'\x02'
    """
    total = 0
    for each in digests:
        total ^= int.from_bytes(each, "little")
    return total.to_bytes(HASH_BYTES, "little")


def request_hash(url: str, body: bytes) -> bytes:
    """Return what makes two requests the same: 16 bytes over url and body.

    Examples
    --------
    >>> texts = text_digest(b'"Red mug"', 0)
    >>> rest = rest_digest("/v1/embeddings", b'{"input":"Red mug"}')
    >>> combined([texts, rest]) == request_hash("/v1/embeddings", b'{"input":"Red mug"}')
    True
    """
    texts = (text_digest(text, place) for place, (_, text) in enumerate(_TEXT.findall(body)))
    return combined([rest_digest(url, body), *texts])


def rest_digest(url: str, body: bytes) -> bytes:
    """16 bytes over url and all of a body but its texts."""
    rest = _TEXT.sub(rb"\1", body)  # unlike any body: no value stands there
    return xxhash.xxh3_128_digest(rest, xxhash.xxh3_64_intdigest(url.encode()))


def hash_column(hashes: bytes | bytearray) -> pa.Array:
    """Concatenated 16-byte hashes as an Arrow column."""
    count = len(hashes) // HASH_BYTES
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(HASH_BYTES), count, [None, pa.py_buffer(bytes(hashes))]
    )
