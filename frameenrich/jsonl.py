"""Lines of JSON: encode requests, split files into lines, read what every line has in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Generic, TypeVar

import msgspec
import orjson

from frameenrich.errors import StoreError
from frameenrich.model import Json

_CHUNK_BYTES = 512 * 1024
"""What stays in a processor's own cache, with what is made of it."""


def whole_lines(files: Iterable[IO[bytes]], size: int = _CHUNK_BYTES) -> Iterator[memoryview]:
    r"""Read files one after the other, as if they were one, in chunks that end with a line.

    A chunk is good until the next one is asked for: all of them lie in one piece of memory.

    Examples
    --------
    >>> import io
    >>> files = [io.BytesIO(b"a\nbb\n"), io.BytesIO(b"b\nlong, long\nend")]
    >>> list(map(bytes, whole_lines(files, 4)))
    [b'a\n', b'bb\n', b'b\n', b'long, long\n', b'end\n']
    """
    # One buffer for all chunks: the start of a cut line moves to its front.
    buffer, kept = bytearray(size), 0
    for file in files:
        while got := file.readinto(memoryview(buffer)[kept:]):  # type: ignore[attr-defined]
            whole, kept = buffer.rfind(b"\n", kept, kept + got) + 1, kept + got
            if whole:
                yield memoryview(buffer)[:whole]
                buffer[: kept - whole] = buffer[whole:kept]
                kept -= whole
            if kept == len(buffer):  # a line longer than that
                # A new buffer: a bytearray cannot grow while the caller holds a memoryview of it.
                buffer = buffer + bytearray(len(buffer))
    if kept:
        # A last line without an end gets one, as readers of a chunk find its lines by their ends.
        yield memoryview(buffer[:kept] + b"\n")


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Cut a byte stream at ``\n`` only; U+2028 and its like stand raw inside strings.

    Examples
    --------
    >>> list(split_lines([b"a\nb", b"c\r\n\n", b"d"]))
    [b'a', b'bc', b'd']
    """
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from filter(None, map(bytes.strip, whole))
    if stripped := rest.strip():
        yield stripped


LONGEST_LINE_BYTES = 256 << 20
"""No batch file is as large; a small packed file may hold a line that would fill the memory."""


UNPACKED_BYTES, UNPACKED_TIMES = 2 << 30, 200
"""What a packed file may unpack to: always so many bytes, and more up to a multiple of its size.

Texts shrink to a third or a tenth, tables of constants to a hundredth; a file of a few megabytes
that was made to fill a disk unpacks to a thousand times its size, or, as Zstandard, to a million.
"""


def most_unpacked_bytes(packed_bytes: int) -> int:
    """Return how much a packed file may unpack to.

    Examples
    --------
    >>> most_unpacked_bytes(1_000), most_unpacked_bytes(100_000_000)
    (2147483648, 20000000000)
    """
    return max(UNPACKED_BYTES, UNPACKED_TIMES * packed_bytes)


def unpacks_to_too_much(packed_bytes: int) -> str:
    """Return the reason why a packed file is not read to its end."""
    return (
        f"it unpacks to more than {most_unpacked_bytes(packed_bytes):,} bytes, over "
        f"{UNPACKED_TIMES} times its own {packed_bytes:,}, which no real data does"
    )


class LineTooLongError(ValueError):
    """A line, or what a packed file unpacks to, is longer than any request or answer."""


def short_lines(file: IO[bytes], packed_bytes: int | None = None) -> Iterator[bytes]:
    r"""Yield a file's lines with their ends, none longer than can be held.

    Raises
    ------
    LineTooLongError
        One is longer than `LONGEST_LINE_BYTES`, or all of a packed file of `packed_bytes` are more
        than it may unpack to.

    Examples
    --------
    >>> import io
    >>> list(short_lines(io.BytesIO(b"a\nb")))
    [b'a\n', b'b']
    """
    number, total = 0, 0
    most = None if packed_bytes is None else most_unpacked_bytes(packed_bytes)
    while line := file.readline(LONGEST_LINE_BYTES + 1):
        number += 1
        if len(line) > LONGEST_LINE_BYTES:
            raise LineTooLongError(f"its line {number} is longer than {LONGEST_LINE_BYTES:,} bytes")
        total += len(line)
        if most is not None and total > most:
            raise LineTooLongError(unpacks_to_too_much(packed_bytes or 0))
        yield line


Body = TypeVar("Body")


Fault = TypeVar("Fault")


class Answered(msgspec.Struct, Generic[Body], gc=False):
    """A response line's ``response``: an HTTP answer."""

    status_code: Any = None
    body: Body = None  # type: ignore[assignment] # Raw can be in no union


class ResponseLine(msgspec.Struct, Generic[Body, Fault], gc=False):
    """The envelope of an answer; the type parameters say what is read of body and error.

    Other members are Any: one of another type is found by the reader, and costs no more than its
    line. With `msgspec.Raw` they are kept unread.
    """

    custom_id: Any = None
    response: Answered[Body] | None = None
    error: Fault = None  # type: ignore[assignment]


DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What opening a line can raise."""


def request_ids(lines: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield each request line with its custom_id, with which every line of ours begins.

    Raises
    ------
    StoreError
        The file is damaged.
    """
    for line in lines:
        # 14 is the length of {"custom_id":" (see `request_line`), so that no line has to be parsed.
        end = line.find(b'"', 14)
        if not line.startswith(b'{"custom_id":"') or end < 0:
            raise StoreError(
                f"The store's file {getattr(lines, 'name', '')} is damaged: {line[:40]!r}.",
                "Restore it from a backup, or move its job's folder out of the store.",
            )
        yield line[14:end].decode("ascii", "replace"), line


class _NamedLine(msgspec.Struct):
    custom_id: msgspec.Raw


_decode_named = msgspec.json.Decoder(_NamedLine).decode


def names_request(line: bytes, tag: str = "") -> bool:
    """Tell whether a line is about some request, as a gateway's error is not.

    With the `tag` of a job, a line that names a request of another job is none.

    Examples
    --------
    >>> names_request(b'{"custom_id": null, "response": {}}'), names_request(b'{"error": {}}')
    (True, False)
    >>> names_request(b'{"custom_id": "row-0-f00d42"}', "a1b2c3")
    False
    """
    try:
        named = bytes(_decode_named(line).custom_id)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b'"custom_id"' in line and line.startswith(b"{")  # broken, and one all the same
    # A request that lost its name is not another's.
    return not tag or not named.startswith(b'"') or named.endswith(f'-{tag}"'.encode())


class _RequestLine(msgspec.Struct):
    body: msgspec.Raw


_decode_request = msgspec.json.Decoder(_RequestLine).decode


def body_of(line: bytes) -> bytes:
    r"""Return the body of a request line, byte for byte.

    Examples
    --------
    >>> body_of(b'{"custom_id":"row-1","method":"POST","url":"/v1/x","body":{"a": 1}}\n')
    b'{"a": 1}'
    """
    try:
        return bytes(_decode_request(line).body)
    except msgspec.DecodeError:  # a lone surrogate
        return encode(json.loads(line)["body"])


class _UrlLine(msgspec.Struct):
    url: str


_decode_url = msgspec.json.Decoder(_UrlLine).decode


def url_of(line: bytes) -> str:
    """Return the url of a request line.

    Examples
    --------
    >>> url_of(b'{"custom_id":"row-1","method":"POST","url":"/v1/x","body":{"a": 1}}')
    '/v1/x'
    """
    try:
        return _decode_url(line).url
    except msgspec.DecodeError:  # a lone surrogate, in the body
        return _decode_url(line.partition(b',"body":')[0] + b"}").url


def under_id(line: bytes, custom_id: str) -> bytes:
    """Put a response line under another custom_id and leave the rest as it came.

    Examples
    --------
    >>> under_id(b'{"custom_id": "row-1", "response": {"body":  "as it came"}}', "row-9")
    b'{"custom_id":"row-9","response":{"body":  "as it came"}}'
    """
    try:
        # Raw members are copied byte for byte: numbers and escapes stay as the provider wrote them.
        members = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except DECODE_ERRORS:  # half a surrogate pair
        return json.dumps({**json.loads(line), "custom_id": custom_id}).encode()
    members["custom_id"] = msgspec.Raw(msgspec.json.encode(custom_id))
    return msgspec.json.encode(members)


def loads(line: bytes) -> Json:
    """Read JSON, also with half a surrogate pair, which orjson refuses."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)


def encode(value: Json) -> bytes:
    r"""Write compact UTF-8 JSON; a lone surrogate, which orjson refuses, is escaped.

    Examples
    --------
    >>> encode({"a": "é"}), encode("\ud83d")
    (b'{"a":"\xc3\xa9"}', b'"\\ud83d"')
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":")).encode()


_encode_text = msgspec.json.Encoder().encode


def encode_all(texts: Sequence[str]) -> list[bytes]:
    """Write each text as `encode` does."""
    try:
        # The same bytes (tests/identity/test_hashes.py). orjson asks for eight times the memory
        # that a text needs and gives the rest back: three times as slow where a list is kept.
        return list(map(_encode_text, texts))
    # A lone surrogate somewhere, or a subclass of str; rare, so all are tried in one go.
    except (TypeError, UnicodeEncodeError):
        return list(map(encode, texts))


def request_line(custom_id: str, url: str, body: bytes) -> bytes:
    r"""Write one line of a batch file, with its line end.

    Examples
    --------
    >>> request_line("row-1", "/v1/embeddings", b"{}")
    b'{"custom_id":"row-1","method":"POST","url":"/v1/embeddings","body":{}}\n'
    """
    # The order matters: `request_ids` reads the id first, `count_line` the body up to the end.
    head = encode({"custom_id": custom_id, "method": "POST", "url": url})
    return head[:-1] + b',"body":' + body + b"}\n"
