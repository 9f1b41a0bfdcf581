"""The S3 server of the tests answers as moto's does, of which we have not written a word."""

from __future__ import annotations

import http.client
import re
from contextlib import closing
from typing import NamedTuple
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

import pytest
from object_server import BUCKET, CARELESS, HALF, lose_answer, take_requests

pytestmark = [pytest.mark.any_pandas, pytest.mark.xdist_group("moto")]

PARTS = ("first " * 1_000_000, "last")
SAID = {
    2: re.compile("(?:<Contents><Key>|<CommonPrefixes><Prefix>|<IsTruncated>|<KeyCount>)[^<]+"),
    4: re.compile("<Code>[^<]+"),
}
"""What is compared of a list and of a refusal."""
STALE = {"If-Match": '"00000000000000000000000000000000"'}
NEW = {"If-None-Match": "*"}


class Answer(NamedTuple):
    """What is compared of an answer: no names and times of the server's own."""

    status: int
    said: bytes | list[str]
    etag: str | None
    part: str | None


class Client:
    """Requests to one server, on one connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)

    def ask(self, method: str, target: str, body: str = "", **conditions: str) -> Answer:
        """Send a request and return the answer."""
        reply, content = self._send(method, target, body, conditions)
        said: bytes | list[str] = content
        if content.lstrip().startswith(b"<"):
            said = sorted(SAID[reply.status // 100].findall(content.decode()))
        return Answer(reply.status, said, reply.getheader("ETag"), reply.getheader("Content-Range"))

    def put_parts(self, key: str, **conditions: str) -> list[Answer]:
        """Put an object in two parts, on a condition."""
        _, begun = self._send("POST", f"{key}?uploads", "", {})
        (upload,) = re.findall(b"<UploadId>([^<]+)", begun)
        target = f"{key}?uploadId={upload.decode()}"
        parts = [self.ask("PUT", f"{target}&partNumber={n}", PARTS[n - 1]) for n in (1, 2)]
        listed = "".join(
            f"<Part><PartNumber>{n}</PartNumber><ETag>{escape(str(part.etag))}</ETag></Part>"
            for n, part in enumerate(parts, 1)
        )
        whole = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
        return [*parts, self.ask("POST", target, whole, **conditions)._replace(etag=None)]

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _send(
        self, method: str, target: str, body: str, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4"}
        self._connection.request(method, target, body.encode(), {**signed, **headers})
        reply = self._connection.getresponse()
        return reply, reply.read()


def whole_story(client: Client, url: str) -> list[Answer]:
    """Ask all that a store asks, and return what was answered."""
    folder, ask = f"/{BUCKET}/side%20by%20side", client.ask
    found = [
        ask("GET", f"{folder}/a"),
        ask("HEAD", f"{folder}/a"),
        ask("PUT", f"{folder}/a", "one", **STALE),
        ask("PUT", f"{folder}/a", "one", **NEW),
        ask("PUT", f"{folder}/a", "two", **NEW),
        ask("PUT", f"{folder}/a", "two", **STALE),
    ]
    known = {"If-Match": str(found[3].etag)}
    found += [
        ask("PUT", f"{folder}/a", "three", **known),
        ask("PUT", f"{folder}/a", "four", **known),
        ask("PUT", f"{folder}/b/c&d", "five"),
        ask("PUT", f"{folder}/b/e", "six"),
        ask("GET", f"{folder}/a"),
        ask("HEAD", f"{folder}/a"),
        ask("GET", f"{folder}/a", Range="bytes=1-2"),
        ask("GET", f"{folder}/a", Range="bytes=3-"),
        ask("GET", f"{folder}/a", Range="bytes=9-12"),
        *client.put_parts(f"{folder}/parts", **NEW),
        *client.put_parts(f"{folder}/parts", **NEW),
        # The ETag of many parts is each server's own, and not all say a copy's in a header.
        ask("GET", f"{folder}/parts", Range="bytes=5999998-")._replace(etag=None),
    ]
    for more in ("", "&delimiter=/", "&max-keys=2", "&prefix=side%20by%20side/b/"):
        prefix = "" if "prefix" in more else "&prefix=side%20by%20side/"
        found.append(ask("GET", f"/{BUCKET}?list-type=2{prefix}{more}"))
    copied = {"x-amz-copy-source": f"{folder}/b/e"}
    found += [
        ask("PUT", f"{folder}/copy", **copied)._replace(etag=None),
        ask("GET", f"{folder}/copy"),
        ask("DELETE", f"{folder}/a"),
        ask("DELETE", f"{folder}/a"),
        ask("GET", f"{folder}/a"),
    ]
    for bucket in (CARELESS, HALF):
        found += [
            ask("PUT", f"/{bucket}/a", "one"),
            ask("PUT", f"/{bucket}/a", "two", **NEW),
            ask("PUT", f"/{bucket}/a", "three", **STALE),
            ask("GET", f"/{bucket}/a"),
        ]
    lose_answer(url, "/lost")
    found += [ask("PUT", f"{folder}/lost", "it is there"), ask("GET", f"{folder}/lost")]
    return found


def test_each_request_is_answered_as_moto_answers_it(
    s3: dict[str, str], moto: dict[str, str]
) -> None:
    """Conditions, ranges, lists, parts, copies; faults and the record of requests are the same."""
    answers, requests = [], []
    for server in (s3, moto):
        url = server["AWS_ENDPOINT_URL"]
        take_requests(url)
        with closing(Client(url)) as client:
            answers.append(whole_story(client, url))
        taken = take_requests(url)
        requests.append([(method, re.sub("uploadId=[^&]+", "", way)) for method, way in taken])

    thin, independent = answers
    assert thin == independent
    assert {answer.status for answer in thin} == {200, 204, 206, 404, 412, 416, 500}
    assert requests[0] == requests[1]
