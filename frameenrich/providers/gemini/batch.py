"""Gemini's batches through the Developer API, with our tag as a batch's display name."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlencode

import xxhash

from frameenrich.errors import CredentialsError, ParameterError
from frameenrich.jsonl import split_lines
from frameenrich.model import Batch, BatchError, BatchStatus, Json, Limits
from frameenrich.providers.credentials import secrets_of
from frameenrich.providers.gemini.translate import generate_request, request_line, response_line
from frameenrich.providers.guard import guard
from frameenrich.providers.once import (
    PIECE_BYTES,
    advisory,
    check_own,
    create_once,
    delete_each,
    each_once,
    fetch_files,
    file_ids,
    find_resumed,
    upload_once,
)
from frameenrich.providers.protocol import Shard, ShardWriter
from frameenrich.providers.retries import (
    Calls,
    DoubtfulReplyError,
    NotYetError,
    SdkErrors,
    ShortDownloadError,
)
from frameenrich.text import printable, scrub

if TYPE_CHECKING:
    from google.genai import Client


_CHAT = "/v1/chat/completions"


_KEYS = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
"""Where the SDK finds its key; the first wins."""


_WORDS = {
    "PENDING": BatchStatus.VALIDATING,
    "RUNNING": BatchStatus.IN_PROGRESS,
    "SUCCEEDED": BatchStatus.COMPLETED,
    "FAILED": BatchStatus.FAILED,
    "CANCELLED": BatchStatus.CANCELLED,
    "EXPIRED": BatchStatus.EXPIRED,
}


_FILE_SECONDS = 3600.0
"""How long to wait for the file of an ended batch; after that its rows are missing."""


class GeminiBatch:
    """Batches through a `google.genai` client.

    Parameters
    ----------
    client : google.genai.Client
        Decides the server, the key and the time-outs; one of the Developer API, not of Vertex AI.
    attempts : int
        How often a call that failed for a passing reason is made in all.
    wait_seconds : float
        The first wait between attempts; it doubles, with jitter, up to a minute.
    """

    name = "gemini"
    blocking = False
    prompt_caching = "implicit"
    takes_samples = False
    # A file may have 2 GB and no number of lines is known; smaller ones fit the queue of tokens.
    limits = Limits(max_requests=100_000, max_bytes=1_000_000_000)

    def __init__(self, client: Client, *, attempts: int = 6, wait_seconds: float = 0.5) -> None:
        from google import genai  # noqa: PLC0415 - an extra
        from google.genai import errors  # noqa: PLC0415 - an extra

        if not isinstance(client, genai.Client) or client.vertexai:
            raise ParameterError(
                f"client= is a {type(client).__name__}, and 'gemini' wants its own kind.",
                "Pass a google.genai.Client(vertexai=False, ...).",
            )
        self._client = client
        guard(client)
        # By name: the base of this SDK's errors is Exception itself.
        known = (errors.APIError, errors.UnknownApiResponseError)
        self._calls = Calls(
            SdkErrors(all=known, broken=known),
            lambda: self._secrets,
            attempts=attempts,
            wait_seconds=wait_seconds,
        )

    def __repr__(self) -> str:
        return f"GeminiBatch({scrub(str(self._api._http_options.base_url))!r})"  # noqa: SLF001

    @property
    def _api(self) -> Any:
        return self._client._api_client  # noqa: SLF001 - see _call

    @property
    def _secrets(self) -> tuple[str | None, ...]:
        return (*secrets_of(self._client), *map(os.environ.get, _KEYS))

    def url(self, endpoint: str) -> str:
        """Return the endpoint; only chat completions are translated."""
        if endpoint != _CHAT:
            raise ParameterError(
                f"The provider 'gemini' does not answer {endpoint}.", f"Use endpoint={_CHAT!r}."
            )
        return endpoint

    def check(self, body: Json) -> None:
        """Refuse a request that cannot be translated.

        Raises
        ------
        ParameterError
            It has a parameter or message that Gemini does not take.
        """
        generate_request(body)

    def _call(self, method: str, path: str, body: Json = None) -> Json:
        """Make a call through the SDK's own transport and return the answer's JSON.

        Its typed methods drop what is needed here: a batch's error and its counts. Its list stops
        with an IndexError at an empty last page, and an unknown state is a warning.
        """
        from google.genai import types  # noqa: PLC0415 - an extra

        # No retries of the SDK's own: one would make a batch twice.
        once = types.HttpOptions(retry_options=types.HttpRetryOptions(attempts=1))
        answer = json.loads(self._api.request(method, path, body or {}, once).body or "{}")
        if not isinstance(answer, dict):
            raise NotYetError(f"the answer to {method.upper()} {path} is none of the API's")
        return answer

    # --- sending ---------------------------------------------------------------------------------

    def send(self, shard: Shard, batch: Batch, desk: ShardWriter) -> Batch:
        """Upload the file and create the batch, or find them where an earlier try got so far."""
        made = find_resumed(self._calls, shard, batch, lambda: self._find_batch(shard.tag))
        if made is not None:
            return desk.record(_heard(batch, made, self._secrets))
        batch = upload_once(
            self._calls,
            shard,
            batch,
            desk,
            # Files have short names at Gemini, so the shard's own file name is replaced by a hash.
            find=lambda _: self._find_file(shard, _file_name(shard.tag)),
            upload=lambda _: self._upload(shard, _file_name(shard.tag)),
        )
        batch, made = create_once(
            self._calls,
            shard,
            batch,
            desk,
            find=lambda: self._find_batch(shard.tag),
            create=lambda: self._create(shard, batch.input_file_id or ""),
        )
        return desk.record(_heard(batch, made, self._secrets))

    def _upload(self, shard: Shard, name: str) -> str:
        with _translated(shard) as content:
            stream: Any = content  # wrapped by tempfile or not, it reads and seeks
            try:
                made = self._client.files.upload(
                    file=stream, config={"name": name, "mime_type": "application/jsonl"}
                )
            except KeyError as error:  # the SDK's word for a reply without an address
                raise DoubtfulReplyError(f"{error.args[0]}".rstrip(".")) from None
        return str(made.name or "")

    def _find_file(self, shard: Shard, name: str) -> str | None:
        """Find the file that was uploaded under a name; delete one that was cut on its way."""
        from google.genai import errors  # noqa: PLC0415 - an extra

        with _translated(shard) as content:
            sizes = {None, content.seek(0, os.SEEK_END)}
        try:
            # By name and not by a list: the name is ours, so one call tells.
            found = self._call("get", name)
            if found.get("name") == name and _number(found.get("sizeBytes")) in sizes:
                return name
            self._call("delete", name)  # a name is taken once
            return None
        except errors.ClientError as error:
            if error.code in {403, 404}:  # one that is not there is told as not permitted
                return None
            raise

    def _create(self, shard: Shard, file_id: str) -> Json:
        model = shard.model.removeprefix("models/")
        batch = {"displayName": shard.tag, "inputConfig": {"fileName": file_id}}
        made = self._call("post", f"models/{model}:batchGenerateContent", {"batch": batch})
        return _own(made, shard.tag)

    def _find_batch(self, tag: str) -> Json:
        def pages() -> Iterator[list[Json]]:
            query = {"pageSize": "100"}
            while True:
                page = self._call("get", f"batches?{urlencode(query)}")
                # An empty list is not written at all; what else is no list proves nothing.
                items = page.get("operations", [])
                if "error" in page or not isinstance(items, list) or not all(map(_named, items)):
                    raise DoubtfulReplyError("it answered with something that is no list")
                yield items
                if not page.get("nextPageToken"):
                    return
                query["pageToken"] = page["nextPageToken"]

        found = each_once(pages(), lambda made: made["name"])
        return next((m for m in found if (m.get("metadata") or {}).get("displayName") == tag), None)

    # --- looking and bringing home ---------------------------------------------------------------

    def poll(self, batch: Batch) -> Batch:
        """Return the batch with status, counts and file as the server has them now."""
        made = self._calls.patiently(
            lambda: _own(self._call("get", batch.id or ""), batch.tag, batch.id),
            f"look at the batch {batch.id}",
        )
        return _heard(batch, made, self._secrets)

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Download the responses file; there is no other."""
        fetch_files(self._calls, batch, sink, self._download)

    def _download(self, name: str) -> Iterator[bytes]:
        size = advisory(lambda: _number(self._call("get", name)["sizeBytes"]))
        with tempfile.TemporaryFile() as content:
            sink: Any = content  # the SDK takes any stream that can be written
            self._client.files.download(file=name, destination=sink)
            received = content.tell()
            if size is not None and received < size:
                raise ShortDownloadError(name, received, size)
            content.seek(0)
            for line in split_lines(iter(lambda: content.read(PIECE_BYTES), b"")):
                yield response_line(line) + b"\n"

    def cancel(self, batch: Batch) -> Batch:
        """Ask for cancellation; what has run stays where Gemini leaves a file."""

        def stop() -> Json:
            self._call("post", f"{batch.id}:cancel")
            return _own(self._call("get", batch.id or ""), batch.tag, batch.id)

        made = self._calls.patiently(stop, f"cancel the batch {batch.id}")
        return _heard(batch, made, self._secrets)

    def delete_files(self, batch: Batch) -> None:
        """Delete the files, then the batch; what is gone already is fine."""
        delete_each(self._calls, "file", file_ids(batch), lambda name: self._call("delete", name))
        ours = filter(None, [batch.id])
        delete_each(self._calls, "batch", ours, lambda name: self._call("delete", name))


def _file_name(tag: str) -> str:
    """Return the name of a shard's file at Gemini, short and fixed, so that it can be found.

    Examples
    --------
    >>> _file_name("llmbatch-1f-r0-s0-a0")
    'files/frameenrich-c1bced7122f1a57eeb1fef91'
    """
    return f"files/frameenrich-{xxhash.xxh3_128_hexdigest(tag.encode())[:24]}"


@contextlib.contextmanager
def _translated(shard: Shard) -> Iterator[IO[bytes]]:
    """Yield a shard's requests in Gemini's words, on disk."""
    with tempfile.TemporaryFile() as content:
        with shard.open() as lines:
            content.writelines(map(request_line, lines))
        content.seek(0)
        yield content


# --- what the server says ------------------------------------------------------------------------


def _own(made: Json, tag: str, name: str | None = None) -> Json:
    """Return the operation of a reply, or raise where it may not be ours."""
    told = made.get("metadata")
    told = told if isinstance(told, dict) else {}
    check_own(made.get("name"), told.get("state") or made.get("done"), name)
    # A reply without a display name passes; a look has compared the batch's name above.
    if told.get("displayName", tag) != tag:
        raise DoubtfulReplyError("it answered with a batch that does not carry this job's tag")
    return made


def _named(item: Json) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _heard(batch: Batch, made: Mapping[str, Json], secrets: tuple[str | None, ...]) -> Batch:
    """Copy Gemini's operation into our batch."""
    told = made.get("metadata") or {}
    counts = told.get("batchStats") or {}
    output = (told.get("output") or made.get("response") or {}).get("responsesFile")
    error = made.get("error") or {}
    state = printable(str(told.get("state") or "")).rpartition("STATE_")[2]
    status = _WORDS.get(state, state.lower() or batch.status)
    ended_at = _moment(told.get("endTime"))
    if status == BatchStatus.COMPLETED and not output:
        ended_at = ended_at or batch.ended_at or time.time()
        if time.time() - ended_at < _FILE_SECONDS:  # it was seen to come before its file
            status = BatchStatus.FINALIZING
    said = scrub(str(error.get("message")), secrets)
    return batch.replace(
        id=str(made["name"]),
        status=status,
        output_file_id=output or None,
        total=_number(counts.get("requestCount")),
        completed=_number(counts.get("successfulRequestCount")),
        failed=_number(counts.get("failedRequestCount")),
        errors=(BatchError(str(error.get("code")), said),) if error else (),
        created_at=_moment(told.get("createTime")),
        ended_at=ended_at,
    )


def _number(value: Json) -> int | None:
    return int(value) if str(value).isdigit() else None


def _moment(value: Json) -> float | None:
    try:
        return datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError):
        return None


def connect(client: Any = None, model: str | None = None) -> GeminiBatch:
    """Return the provider with the given client, or one built from the environment.

    Raises
    ------
    ParameterError
        The extra is not installed, or the client is another provider's.
    CredentialsError
        Neither a client nor ``GOOGLE_API_KEY`` or ``GEMINI_API_KEY``.
    """
    del model
    try:
        from google import genai  # noqa: PLC0415 - an extra
    except ImportError:
        raise ParameterError(
            "The provider 'gemini' is not installed.", "Run: pip install 'frameenrich[gemini]'."
        ) from None
    key = next(filter(None, map(os.environ.get, _KEYS)), None)
    if client is None and key is None:
        raise CredentialsError(
            "There is no API key for the provider 'gemini'.",
            "Set GOOGLE_API_KEY or pass client=; provider='local' needs none.",
        )
    # vertexai=False, or a variable of Vertex AI's would choose another product.
    return GeminiBatch(genai.Client(vertexai=False, api_key=key) if client is None else client)
