"""An S3 server on loopback, moto's, in a process of its own.

It answers one request at a time, so that a condition and its write are one step, as on S3. Two
faults: it loses the answer to the next PUT of what was named by ``POST /_lose/<end of the key>``,
and in a bucket called ``careless`` it pays no heed to conditions, as old servers do, in one called
``half`` to ``If-Match`` alone, as some do today.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUCKET = "bucket"
CARELESS = "careless"
HALF = "half"

Start = Callable[..., Any]


class Faults:
    """What goes wrong between a client and the server."""

    def __init__(self, app: Callable[[dict[str, Any], Start], Any]) -> None:
        self._app = app
        self._lost: set[str] = set()
        self._seen: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Start) -> Any:
        """One request, by the rules of WSGI."""
        path = environ["PATH_INFO"]
        if path.startswith("/_lose/"):
            self._lost.add(path.removeprefix("/_lose/"))
            start("200 OK", [])
            return []
        if path == "/_seen":
            start("200 OK", [])
            seen, self._seen = self._seen, []
            return ["\n".join(seen).encode()]
        self._seen.append(f"{environ['REQUEST_METHOD']} {path}?{environ.get('QUERY_STRING', '')}")
        if path.startswith(f"/{CARELESS}/"):
            environ.pop("HTTP_IF_NONE_MATCH", None)
            environ.pop("HTTP_IF_MATCH", None)
        if path.startswith(f"/{HALF}/"):
            environ.pop("HTTP_IF_MATCH", None)
        reply = self._app(environ, start)
        named = [end for end in self._lost if path.endswith(end)]
        if environ["REQUEST_METHOD"] == "PUT" and named:
            self._lost -= set(named)
            b"".join(reply)
            start("500 Internal Server Error", [], sys.exc_info())
            return []
        return reply


def main() -> None:
    """Print the address and serve until killed."""
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, Faults(DomainDispatcherApplication(create_backend_app)))
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


@contextmanager
def object_server(script: str = "object_server.py") -> Iterator[dict[str, str]]:
    """Run one with an empty bucket; the environment that leads to it."""
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / script)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            make_bucket(url, BUCKET)
            make_bucket(url, CARELESS)
            make_bucket(url, HALF)
            yield environment(url)
        finally:
            process.kill()


def environment(url: str) -> dict[str, str]:
    """What points s3fs at a server, as a user would."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-the-secret-of-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def make_bucket(url: str, name: str) -> None:
    """A bucket, made without a client."""
    request = urllib.request.Request(f"{url}/{name}", method="PUT")
    request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4")
    urllib.request.urlopen(request).close()


def lose_answer(url: str, end: str) -> None:
    """Have the next PUT of a key with this end carried out and answered 500."""
    urllib.request.urlopen(urllib.request.Request(f"{url}/_lose/{end}", b"")).close()


def take_requests(url: str) -> list[tuple[str, str]]:
    """Return method and target of each request since the last call."""
    with urllib.request.urlopen(f"{url}/_seen") as answer:
        lines = answer.read().decode().splitlines()
    return [(method, target) for method, _, target in (line.partition(" ") for line in lines)]


if __name__ == "__main__":
    main()
