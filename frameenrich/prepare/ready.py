"""Requests that somebody wrote already, in the batch format: read line by line, and checked.

Errors name the file and the line. They can be read more than once, so that all
are checked before the first is written anywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn

import msgspec

from frameenrich.errors import InputError, RequestTooLargeError, RowKeyError
from frameenrich.identity.hashes import request_hash
from frameenrich.identity.keys import wire_id
from frameenrich.jsonl import encode, request_line
from frameenrich.model import TAG_LENGTH, Json, Limits
from frameenrich.prepare.options import ENDPOINTS
from frameenrich.text import is_encodable

Requests = str | os.PathLike[str] | Iterable[Mapping[str, Any] | str | bytes]
"""The path or URL of a JSONL file (.gz too), or the requests one by one: dicts, or their lines."""


Check = Callable[[Mapping[str, Json]], None]


_ANY_TAG = "0" * TAG_LENGTH  # as long as the job's own


_MEMBERS = frozenset({"custom_id", "method", "url", "body"})


_ASKS: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("messages",),
    "/v1/responses": ("input", "prompt"),
}
"""Where a request to an endpoint says what it asks; one of them has to be there."""


_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was written; ``line`` counts from 1."""

    custom_id: str
    endpoint: str
    model: str
    body: bytes
    line: int


@dataclass
class Survey:
    """What all requests together are: what the job is made of.

    ``hashes`` are the request hashes, 32 bytes each; ``models`` in the order they are met.
    """

    ids: list[str] = field(default_factory=list)
    hashes: bytearray = field(default_factory=bytearray)
    models: dict[str, None] = field(default_factory=dict)


class ReadyRequests:
    """Requests in a file; `origin` is what the user gave for it, None where no file was given."""

    def __init__(self, path: str, origin: str | None) -> None:
        self._path = path
        self._origin = origin

    @property
    def name(self) -> str:
        """Return what messages call all of them."""
        return self._origin or "The list of requests"

    def __iter__(self) -> Iterator[Request]:
        """Each request, read and checked by itself; blank lines are passed over.

        Raises
        ------
        InputError
            The file cannot be read, or a line is no request.
        """
        with self._open() as lines:
            for number, line in enumerate(lines, 1):
                if text := line.removeprefix(_BOM).strip():
                    yield self._request(text, number)

    @contextlib.contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        try:
            with _opened(self._path) as file:
                yield file
        except (OSError, EOFError, ValueError, ImportError, zlib.error) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise InputError(
                f"The requests in {self._origin} cannot be read: {reason.rstrip('.')}.",
                "Check the path: a JSONL file, which may be gzipped.",
                path=self._origin,
            ) from None

    def first(self) -> Request:
        """Return the first request.

        Raises
        ------
        InputError
            There is none.
        """
        for request in self:
            return request
        raise InputError(f"{self.name} holds no requests.", "Give at least one.")

    def survey(self, url: str, limits: Limits, check: Check | None = None) -> Survey:
        """Read all of them once, and check what only all of them together can break.

        Parameters
        ----------
        url : str
            What the provider calls the first one's endpoint.
        limits : Limits
            Of one batch file.
        check : callable, optional
            Refuses a body that the provider's API cannot carry.

        Raises
        ------
        InputError
            Two go to different endpoints; one is none for the provider.
        RowKeyError
            Two have the same custom_id.
        RequestTooLargeError
            One alone is larger than a batch file may be.
        """
        found, seen, first = Survey(), set[str](), self.first()
        for request in self:
            if request.endpoint != first.endpoint:
                self._refuse_endpoint(request, first)
            if request.custom_id in seen:
                self._refuse_repeated(request)
            seen.add(request.custom_id)
            size = len(request_line(wire_id(request.custom_id, _ANY_TAG), url, request.body))
            if size > limits.max_bytes:
                self._refuse_size(request, size, limits)
            if check is not None:
                self._check_with(check, request)
            found.ids.append(request.custom_id)
            found.hashes += request_hash(url, request.body)
            found.models[request.model] = None
        return found

    # --- one line ---------------------------------------------------------------------------

    def _request(self, text: bytes, line: int) -> Request:
        members = self._members(text, line)
        if odd := _MEMBERS ^ set(members):
            what = f"lacks {min(odd & _MEMBERS)!r}" if odd & _MEMBERS else f"holds {min(odd)!r}"
            self._refuse(
                line,
                f"the request {what}",
                'A request is {"custom_id": ..., "method": "POST", "url": ..., "body": {...}} and '
                "nothing else.",
            )
        custom_id, method, url, body = (
            members[name] for name in ("custom_id", "method", "url", "body")
        )
        if not isinstance(custom_id, str) or not custom_id.strip() or not is_encodable(custom_id):
            self._refuse(line, f"custom_id is {custom_id!r}", "Write a text that names the request")
        if method != "POST":
            self._refuse(line, f"method is {method!r}", 'Write "POST"')
        endpoint = self._endpoint(url, line)
        self._check_body(body, endpoint, line)
        return Request(custom_id, endpoint, body["model"], encode(body), line)

    def _members(self, text: bytes, line: int) -> Mapping[str, Json]:
        try:
            value = _loads(text)
        except (ValueError, RecursionError) as error:  # also what is not UTF-8
            self._refuse(line, f"this is not JSON ({error})", "Write one JSON object a line")
        if not isinstance(value, dict):
            self._refuse(line, "this is JSON, but no object", "Write one JSON object a line")
        return value

    def _endpoint(self, url: Json, line: int) -> str:
        """The endpoint of a url; Azure's classic form goes without the version (BATCH_API.md)."""
        endpoint = url if str(url).startswith("/v1/") else f"/v1{url}"
        if endpoint not in ENDPOINTS:
            self._refuse(
                line,
                f"url is {url!r}, which is none that this version answers for",
                f"Use one of: {', '.join(ENDPOINTS)}",
            )
        return str(endpoint)

    def _check_body(self, body: Json, endpoint: str, line: int) -> None:
        if not isinstance(body, dict):
            self._refuse(line, "body is no JSON object", "Write the request's parameters there")
        model = body.get("model")
        if not isinstance(model, str) or not model.strip():
            self._refuse(line, f"body.model is {model!r}", "Name the model")
        members = _ASKS.get(endpoint, ("prompt",) if endpoint == "/v1/completions" else ("input",))
        if not any(body.get(name) for name in members):
            self._refuse(line, f"body.{members[0]} is not there", "Write the prompt there")
        if body.get("stream"):
            self._refuse(line, "body.stream is on", "Leave it out: batches have no streams")
        if body.get("n", 1) not in (1, None):
            self._refuse(
                line,
                f"body.n asks for {body['n']} answers",
                "Leave it out, and write a request for each, with another seed",
            )
        if members[0] in ("input", "prompt") and endpoint != "/v1/responses":
            self._check_one_input(body[members[0]], members[0], line)

    def _check_one_input(self, given: Json, name: str, line: int) -> None:
        """One text, or one text's tokens: several would share one custom_id, and one answer."""
        if isinstance(given, list) and len(given) > 1 and not isinstance(given[0], int):
            if any(isinstance(part, dict) for part in given):  # a moderation of text and images
                return
            self._refuse(
                line, f"body.{name} holds {len(given)} inputs", "Write a request for each of them"
            )

    def _check_with(self, check: Check, request: Request) -> None:
        try:
            check(_loads(request.body))
        except InputError as error:
            self._refuse(request.line, error.problem.rstrip("."), error.fix)

    # --- what is said -----------------------------------------------------------------------

    def location(self, line: int) -> str:
        """Where a request stands, as messages say it."""
        if self._origin is None:
            return f"The request at position {line - 1}"
        return f"{self._origin}, line {line}"

    def _refuse(self, line: int, reason: str, fix: str) -> NoReturn:
        raise InputError(
            f"{self.location(line)}: {reason}.", f"{fix.rstrip('.')}.", path=self._origin, line=line
        )

    def _refuse_endpoint(self, request: Request, first: Request) -> NoReturn:
        self._refuse(
            request.line,
            f"url is {request.endpoint!r}, where line {first.line} has {first.endpoint!r}",
            "A job has one endpoint: submit the requests of each by themselves",
        )

    def _refuse_repeated(self, request: Request) -> NoReturn:
        other = next(each for each in self if each.custom_id == request.custom_id)
        raise RowKeyError(
            f"{self.location(request.line)}: the custom_id {request.custom_id!r} stands there for "
            f"the second time; {self.location(other.line)} has it, too.",
            "Give each request a custom_id of its own: answers are told apart by it.",
            path=self._origin,
            line=request.line,
            example=request.custom_id,
        )

    def _refuse_size(self, request: Request, size: int, limits: Limits) -> NoReturn:
        raise RequestTooLargeError(
            f"{self.location(request.line)}: the request has {size:,} bytes; a batch file may have "
            f"{limits.max_bytes:,}.",
            "Shorten it, or leave it out.",
            path=self._origin,
            line=request.line,
        )


@contextlib.contextmanager
def open_requests(requests: Requests) -> Iterator[ReadyRequests]:
    """Requests to read as often as needed; what is no file is put into a temporary one.

    Raises
    ------
    InputError
        It is neither a path nor requests, or one of them cannot be JSON.
    """
    if isinstance(requests, str | os.PathLike):
        path = os.fspath(requests)
        yield ReadyRequests(path, path)
        return
    if isinstance(requests, Mapping | bytes) or not isinstance(requests, Iterable):
        raise InputError(
            f"The requests are a {type(requests).__name__}.",
            "Give the path of a JSONL file, or a list of requests: dicts, or lines of JSON.",
        )
    with tempfile.TemporaryDirectory(prefix="frameenrich-") as folder:
        path = os.path.join(folder, "requests.jsonl")
        with open(path, "wb") as file:
            file.writelines(_line_of(each, i) for i, each in enumerate(requests))
        yield ReadyRequests(path, None)


def _opened(path: str) -> Any:
    """A URL as fsspec opens it; another path is a local file, though ``::`` stands in its name."""
    import fsspec  # noqa: PLC0415 - tens of milliseconds that `import frameenrich` saves
    from fsspec.core import OpenFile, get_compression  # noqa: PLC0415

    if "://" in path:
        return fsspec.open(path, "rb", compression="infer")
    kind = get_compression(path, "infer")
    return OpenFile(fsspec.filesystem("file"), path, "rb", compression=kind)


def _line_of(request: Any, position: int) -> bytes:
    """One line of JSON, whatever a request came as; a line end inside JSON is a space."""
    if isinstance(request, Mapping):
        try:
            return json.dumps(dict(request), allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"The request at position {position} cannot be written as JSON: {error}.",
                "Give plain texts, numbers, booleans, lists and dicts.",
                position=position,
            ) from None
    if isinstance(request, str):
        request = request.encode("utf-8", "surrogatepass")
    if not isinstance(request, bytes):
        raise InputError(
            f"The request at position {position} is a {type(request).__name__}.",
            "Give dicts, or lines of JSON.",
            position=position,
        )
    # An empty one would be passed over as a blank line; as it is, it is refused by its position.
    return (request.replace(b"\n", b" ").strip() or b'""') + b"\n"


def _loads(text: bytes) -> Json:
    """JSON with every integer as it is; also with half a surrogate pair, which msgspec refuses."""
    try:
        return msgspec.json.decode(text)
    except msgspec.ValidationError:  # a number that only infinity could stand for
        raise
    except msgspec.DecodeError:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
        return value
