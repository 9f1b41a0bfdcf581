"""As much of S3 as a store needs, on loopback, at a tenth of what moto costs a request.

For tests that make many requests, and long runs that make a hundred a case (`kill_matrix.py --store
s3`). Conditions are those of S3: ``If-None-Match: *`` and ``If-Match`` are decided in one step with
the write they guard. It keeps objects in memory, checks no signature, and answers 501 to whatever
it does not know, so that nothing passes here by accident. It has the faults of `object_server.py`,
and `store/test_thin_s3.py` holds the two side by side; what hangs on the rules themselves is tried
on moto in `store/test_bucket.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import count
from typing import NamedTuple
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape, unescape

from object_server import CARELESS, HALF

MISSING = (404, b"<Error><Code>NoSuchKey</Code></Error>")
REFUSED = (412, b"<Error><Code>PreconditionFailed</Code></Error>")
UNHEEDED = {CARELESS: ("if-none-match", "if-match"), HALF: ("if-match",)}
"""Conditions that are not kept in some buckets."""
UNKNOWN = (501, b"<Error><Code>NotImplemented</Code></Error>")


class Request(NamedTuple):
    """What a client asks."""

    method: str
    key: str
    search: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> dict[str, list[str]]:
        """The parameters."""
        return parse_qs(self.search, keep_blank_values=True)

    def asked(self, name: str) -> str | None:
        """The first value of a query parameter."""
        return self.query.get(name, [None])[0]


class Stored(NamedTuple):
    """An object, as it is now."""

    data: bytes
    etag: str
    modified: datetime
    marks: dict[str, str]

    @property
    def headers(self) -> dict[str, str]:
        """What is said of it."""
        return {
            "ETag": self.etag,
            "Last-Modified": format_datetime(self.modified, usegmt=True),
            **self.marks,
        }


Reply = tuple[int, bytes, dict[str, str]]


class Buckets:
    """All objects, by ``bucket/key``."""

    def __init__(self) -> None:
        self._objects: dict[str, Stored] = {}
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._numbers = count(1)
        self._lost: set[str] = set()
        self._seen: list[str] = []

    def answer(self, request: Request) -> Reply:
        """Do what is asked, in one step, or what a test asks for: see `object_server`."""
        if request.key.startswith("_lose/"):
            self._lost.add(request.key.removeprefix("_lose/"))
            return 200, b"", {}
        if request.key == "_seen":
            seen, self._seen = self._seen, []
            return 200, "\n".join(seen).encode(), {}
        self._seen.append(f"{request.method} /{request.key}?{request.search}")
        for name in UNHEEDED.get(request.key.partition("/")[0], ()):
            request.headers.pop(name, None)
        reply = self._answer(request)
        named = {end for end in self._lost if request.key.endswith(end)}
        if request.method == "PUT" and named:
            self._lost -= named
            return 500, b"", {}
        return reply

    def _answer(self, request: Request) -> Reply:
        bucket, _, key = request.key.partition("/")
        if not key and request.method in ("PUT", "HEAD"):
            return 200, b"", {}
        if not key and request.method == "GET" and "list-type" in request.query:
            return 200, self._listed(bucket, request), {}
        if not key and request.method == "POST" and "delete" in request.query:
            return 200, self._deleted(bucket, request.body.decode()), {}
        known: dict[str, Callable[[Request], Reply]] = {
            "GET": self._get,
            "HEAD": self._get,
            "PUT": self._put,
            "DELETE": self._delete,
            "POST": self._upload,
        }
        return known[request.method](request) if key and request.method in known else (*UNKNOWN, {})

    def _get(self, request: Request) -> Reply:
        found = self._objects.get(request.key)
        if found is None:
            return *MISSING, {}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if part is None:
            return 200, found.data, found.headers
        first, size = int(part[1]), len(found.data)
        last = min(int(part[2] or size), size - 1)
        if first >= size:
            return 416, b"<Error><Code>InvalidRange</Code></Error>", {}
        said = {"Content-Range": f"bytes {first}-{last}/{size}"}
        return 206, found.data[first : last + 1], {**found.headers, **said}

    def _put(self, request: Request) -> Reply:
        if (upload := request.asked("uploadId")) is not None:
            number = int(request.asked("partNumber") or 0)
            self._uploads[upload][number] = request.body
            return 200, b"", {"ETag": _etag(request.body)}
        copied = request.headers.get("x-amz-copy-source")
        if copied is None:
            return self._stored(request, request.body)
        source = self._objects.get(unquote(copied).lstrip("/").partition("?")[0])
        if source is None:
            return *MISSING, {}
        status, _, said = self._stored(request, source.data)
        when = datetime.now(UTC).isoformat()
        text = f"<CopyObjectResult><LastModified>{when}</LastModified><ETag>{said.get('ETag')}</ETag></CopyObjectResult>"  # noqa: E501 - as S3 writes it
        return status, text.encode(), {}

    def _stored(self, request: Request, data: bytes) -> Reply:
        found = self._objects.get(request.key)
        wanted = request.headers.get("if-match")
        if request.headers.get("if-none-match") == "*" and found is not None:
            return *REFUSED, {}
        if wanted is not None and found is None:
            return *MISSING, {}
        if wanted is not None and found is not None and found.etag.strip('"') != wanted.strip('"'):
            return *REFUSED, {}
        marks = {k: v for k, v in request.headers.items() if k.startswith("x-amz-meta-")}
        # To the second, as S3 has it.
        moment = datetime.now(UTC).replace(microsecond=0)
        self._objects[request.key] = Stored(data, _etag(data), moment, marks)
        return 200, b"", {"ETag": _etag(data)}

    def _delete(self, request: Request) -> Reply:
        if (upload := request.asked("uploadId")) is not None:
            self._uploads.pop(upload, None)
        else:
            self._objects.pop(request.key, None)
        return 204, b"", {}

    def _upload(self, request: Request) -> Reply:
        if "uploads" in request.query:
            name = f"upload-{next(self._numbers)}"
            self._uploads[name] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"  # noqa: E501 - as S3 writes it
            return 200, text.encode(), {}
        parts = self._uploads.pop(request.asked("uploadId") or "", None)
        if parts is None:
            return *UNKNOWN, {}
        status, refusal, said = self._stored(request, b"".join(parts[n] for n in sorted(parts)))
        done = f"<CompleteMultipartUploadResult><ETag>{said.get('ETag')}</ETag></CompleteMultipartUploadResult>"  # noqa: E501 - as S3 writes it
        return status, done.encode() if status == 200 else refusal, said

    def _deleted(self, bucket: str, text: str) -> bytes:
        for key in re.findall(r"<Key>(.*?)</Key>", text):
            self._objects.pop(f"{bucket}/{unescape(key)}", None)
        return b"<DeleteResult></DeleteResult>"

    def _listed(self, bucket: str, request: Request) -> bytes:
        prefix, cut = request.asked("prefix") or "", request.asked("delimiter")
        most = int(request.asked("max-keys") or 1000)
        after = request.asked("continuation-token") or ""
        entries = dict(self._entries(bucket, prefix, cut, after))
        names = sorted(entries)[:most]
        more = len(entries) > most
        texts = [f"<IsTruncated>{str(more).lower()}</IsTruncated><KeyCount>{len(names)}</KeyCount>"]
        if more:
            texts.append(f"<NextContinuationToken>{escape(names[-1])}</NextContinuationToken>")
        return f"<ListBucketResult>{''.join([*texts, *(entries[n] for n in names)])}</ListBucketResult>".encode()  # noqa: E501 - as S3 writes it

    def _entries(
        self, bucket: str, prefix: str, cut: str | None, after: str
    ) -> Iterator[tuple[str, str]]:
        """Each key or common prefix below a prefix, with its element."""
        for path, found in self._objects.items():
            key = path.removeprefix(f"{bucket}/")
            if key == path or not key.startswith(prefix):
                continue
            head, slash, _ = key[len(prefix) :].partition(cut) if cut else (key, "", "")
            name = prefix + head + slash if slash else key
            if name <= after:
                continue
            if slash:
                yield name, f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            else:
                yield (
                    name,
                    (
                        f"<Contents><Key>{escape(key)}</Key><ETag>{escape(found.etag)}</ETag>"
                        f"<LastModified>{found.modified.isoformat()}</LastModified>"
                        f"<Size>{len(found.data)}</Size></Contents>"
                    ),
                )


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


async def _requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection's requests until it ends."""
    try:
        while True:
            request = await _read(reader, writer)
            writer.write(_bytes(request.method, BUCKETS.answer(request)))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if headers.get("expect") == "100-continue":  # botocore sends no body before it is let
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    if "chunked" in headers.get("content-encoding", "") + headers.get("transfer-encoding", ""):
        raise ConnectionError("bodies in chunks are not known here")
    path, _, query = target.partition("?")
    return Request(method, unquote(path).strip("/"), query, headers, body)


def _bytes(method: str, reply: Reply) -> bytes:
    status, body, headers = reply
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join([*lines, "", ""]).encode()
    return head if method == "HEAD" else head + body


BUCKETS = Buckets()


async def main() -> None:
    """Print the address and serve until killed."""
    server = await asyncio.start_server(_requests, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
