"""Read and check requests that somebody wrote already, in the batch format, line by line.

Errors name the file and the line. Requests are read twice, once to check all and once to write
them, so that nothing is written of a file with a bad line.
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
from frameenrich.jsonl import encode, request_line, short_lines
from frameenrich.model import TAG_LENGTH, Json, Limits
from frameenrich.prepare.options import ENDPOINTS
from frameenrich.text import is_encodable

Requests = str | os.PathLike[str] | Iterable[Mapping[str, Any] | str | bytes]
"""The path or URL of a JSONL file (.gz too), or the requests one by one: dicts, or their lines."""


Check = Callable[[Mapping[str, Json]], None]


_ANY_TAG = "0" * TAG_LENGTH  # stands for the job's own tag when a line's size is checked


_MEMBERS = frozenset({"custom_id", "method", "url", "body"})


_ASKS: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("messages",),
    "/v1/responses": ("input", "prompt"),
}
"""The members that can hold a request's prompt; one of them is required."""


_BOM = b"\xef\xbb\xbf"  # Windows editors begin UTF-8 files with it, which is no JSON


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
    """Ids, hashes and models of all requests, which make the job's id.

    ``hashes`` are the request hashes, 32 bytes each; ``models`` are in the order of the file.
    """

    ids: list[str] = field(default_factory=list)
    hashes: bytearray = field(default_factory=bytearray)
    models: dict[str, None] = field(default_factory=dict)


class ReadyRequests:
    """Requests in a file; `origin` is the user's path of it, None where the user gave a list."""

    def __init__(self, path: str, origin: str | None) -> None:
        self._path = path
        self._origin = origin

    @property
    def name(self) -> str:
        """Return the name of the requests in messages."""
        return self._origin or "The list of requests"

    def __iter__(self) -> Iterator[Request]:
        """Read and check each request by itself; blank lines are skipped.

        Raises
        ------
        InputError
            The file cannot be read, or a line is no request.
        """
        with self._open() as lines:
            for number, line in enumerate(short_lines(lines, _packed_bytes(self._path)), 1):
                if text := line.removeprefix(_BOM).strip():
                    yield self._request(text, number)

    @contextlib.contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        try:
            with _opened(self._path) as file:
                yield file
        # Damaged gzip raises EOFError or zlib.error; fsspec raises ImportError without a driver.
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
        """Read all requests once, and check what shows only in all of them together.

        Parameters
        ----------
        url : str
            The provider's name for the endpoint of the first.
        limits : Limits
            The limits of one batch file.
        check : callable, optional
            Refuses a body that the provider's API cannot carry.

        Raises
        ------
        InputError
            Two go to different endpoints, or the provider cannot carry one.
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
            # The size as we write it: compact, and perhaps under another custom_id (`wire_id`).
            size = len(request_line(wire_id(request.custom_id, _ANY_TAG), url, request.body))
            if size > limits.max_bytes:
                self._refuse_size(request, size, limits)
            if check is not None:
                self._check_with(check, request)
            found.ids.append(request.custom_id)
            found.hashes += request_hash(url, request.body)
            found.models[request.model] = None  # a dict keeps the order; a set would not
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
        # Compact JSON again: the same request has one hash, however its file spaced it.
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
        """Return the endpoint of a url; Azure's classic form leaves out the "/v1"."""
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
        """Refuse several inputs: they would share one custom_id, and so one row and its status."""
        # A list of integers is one text, as its tokens.
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

    # --- messages ---------------------------------------------------------------------------

    def location(self, line: int) -> str:
        """Return where a request is, for messages."""
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
        # Read the file again for the error's sake: keeping every line number would cost memory.
        other = next(each for each in self if each.custom_id == request.custom_id)
        raise RowKeyError(
            f"{self.location(request.line)}: the custom_id {request.custom_id!r} stands there for "
            f"the second time; {self.location(other.line)} has it too.",
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
    """Open requests that can be read more than once; a list is written to a temporary file.

    Raises
    ------
    InputError
        It is neither a path nor requests, or one of them cannot be JSON.
    """
    if isinstance(requests, str | os.PathLike):
        path = os.fspath(requests)
        yield ReadyRequests(path, path)
        return
    # Both are iterable, but over names or integers: somebody forgot the list around one request.
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
    """Open a URL with fsspec, any other path as a local file, even with ``::`` in its name."""
    import fsspec  # noqa: PLC0415 - tens of milliseconds that `import frameenrich` saves
    from fsspec.core import OpenFile, get_compression  # noqa: PLC0415

    if "://" in path:
        return fsspec.open(path, "rb", compression="infer")
    kind = get_compression(path, "infer")
    return OpenFile(fsspec.filesystem("file"), path, "rb", compression=kind)


def _packed_bytes(path: str) -> int | None:
    """Return the size of a packed file of this computer; None for any other."""
    from fsspec.core import get_compression  # noqa: PLC0415

    packed = "://" not in path and get_compression(path, "infer") is not None
    return os.path.getsize(path) if packed else None


def _line_of(request: Any, position: int) -> bytes:
    """Write a dict, text or bytes as one line of JSON; line ends inside become spaces."""
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
    # An empty text would be skipped as a blank line; as "" it is refused with its position.
    return (request.replace(b"\n", b" ").strip() or b'""') + b"\n"


def _loads(text: bytes) -> Json:
    """Read JSON with integers of any size, and with lone surrogates, which msgspec refuses."""
    try:
        return msgspec.json.decode(text)
    except msgspec.ValidationError:  # a number that only infinity could stand for
        raise
    except msgspec.DecodeError:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)  # `json` reads NaN, which no server takes
        return value
