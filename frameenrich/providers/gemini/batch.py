"""Gemini's batches through the Developer API, with our tag as a batch's display name."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import xxhash

from frameenrich.errors import ParameterError
from frameenrich.jsonl import split_lines
from frameenrich.model import Batch, BatchError, BatchStatus, Json, Limits, begun_at
from frameenrich.providers.credentials import secrets_of
from frameenrich.providers.gemini.translate import (
    generate_request,
    live_answer,
    request_line,
    response_line,
)
from frameenrich.providers.guard import guard
from frameenrich.providers.once import (
    PIECE_BYTES,
    advisory,
    check_list,
    check_own,
    each_once,
    is_named,
    refuse_torn,
)
from frameenrich.providers.protocol import Shard
from frameenrich.providers.retries import (
    DoubtfulReplyError,
    ShortDownloadError,
)
from frameenrich.providers.uploaded import (
    TranslatedBatches,
    check_kind,
    no_key,
    not_installed,
)
from frameenrich.text import one_line, scrub

if TYPE_CHECKING:
    from google.genai import Client

    from frameenrich.providers.live.calls import TranslatedCalls
    from frameenrich.providers.live.route import Route


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


class GeminiBatch(TranslatedBatches):
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
    prompt_caching = "implicit"
    takes_samples = False
    # A file may have 2 GB and no number of lines is known; smaller ones fit the queue of tokens.
    limits = Limits(max_requests=100_000, max_bytes=1_000_000_000)

    def __init__(self, client: Client, *, attempts: int = 6, wait_seconds: float = 0.5) -> None:
        from google import genai  # noqa: PLC0415 - an extra
        from google.genai import errors  # noqa: PLC0415 - an extra

        wanted = "a google.genai.Client(vertexai=False, ...)"
        check_kind(client, genai.Client, self.name, wanted)
        if client.vertexai:
            raise ParameterError(
                "client= is one of Vertex AI, which has batches of another kind.", f"Pass {wanted}."
            )
        self._client = client
        guard(client)
        # By name: the base of this SDK's errors is Exception itself.
        known = (errors.APIError, errors.UnknownApiResponseError)
        super().__init__(known, attempts, wait_seconds)

    def __repr__(self) -> str:
        return f"GeminiBatch({scrub(str(self._api._http_options.base_url))!r})"  # noqa: SLF001

    @property
    def _api(self) -> Any:
        return self._client._api_client  # noqa: SLF001 - see _call

    @property
    def _secrets(self) -> tuple[str | None, ...]:
        return (*secrets_of(self._client), *map(os.environ.get, _KEYS))

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
            # In doubt and not merely early: a job must not wait for this without a word.
            raise DoubtfulReplyError(f"the answer to {method.upper()} {path} is none of the API's")
        return answer

    # --- the server's calls ----------------------------------------------------------------------

    def _translate(self, line: bytes) -> bytes:
        return request_line(line)

    def _upload(self, shard: Shard, name: str) -> str:
        del name  # files have short names at Gemini, so it is replaced by a hash
        with self._translated(shard) as content:
            stream: Any = content  # wrapped by tempfile or not, it reads and seeks
            try:
                made = self._client.files.upload(
                    file=stream,
                    config={"name": _file_name(shard.tag), "mime_type": "application/jsonl"},
                )
            except KeyError as error:  # the SDK's word for a reply without an address
                raise DoubtfulReplyError(f"{error.args[0]}".rstrip(".")) from None
            except (AttributeError, TypeError):  # what it makes of members of other types
                raise DoubtfulReplyError("it answered with something that is no file") from None
        return str(made.name or "")

    def _find_file(self, shard: Shard, name: str) -> str | None:
        from google.genai import errors  # noqa: PLC0415 - an extra

        # A cut upload has the same name and fewer bytes; a reply may also tell no size.
        name, sizes = _file_name(shard.tag), {None, self._size(shard)}
        try:
            # By name and not by a list: the name is ours, so one call tells.
            found = self._call("get", name)
            if found.get("name") == name and _number(found.get("sizeBytes")) in sizes:
                return name
            self._call("delete", name)  # a name is taken once
            return None
        except errors.ClientError as error:
            if error.code in {403, 404}:  # one that is not there counts as not permitted
                return None
            raise

    def _create(self, shard: Shard, file_id: str) -> Json:
        model = shard.model.removeprefix("models/")
        batch = {"displayName": shard.tag, "inputConfig": {"fileName": file_id}}
        return self._call("post", f"models/{model}:batchGenerateContent", {"batch": batch})

    def _find_batch(self, tag: str, file_id: str | None) -> Json:
        del file_id

        def pages() -> Iterator[list[Json]]:
            query = {"pageSize": "100"}
            while True:
                page = self._call("get", f"batches?{urlencode(query)}")
                # An empty list is not written at all.
                items = None if "error" in page else page.get("operations", [])
                yield check_list(items, lambda item: is_named(item, "name"))
                if not page.get("nextPageToken"):
                    return
                query["pageToken"] = page["nextPageToken"]

        found = each_once(pages(), lambda made: made["name"])
        return next((made for made in found if _tag_of(made) == tag), None)

    def _retrieve(self, batch_id: str) -> Json:
        return self._call("get", batch_id)

    def _stop(self, batch_id: str) -> Json:
        self._call("post", f"{batch_id}:cancel")
        return self._retrieve(batch_id)  # a cancel is answered with nothing

    def _download(self, name: str) -> Iterator[bytes]:
        size = advisory(lambda: _number(self._call("get", name)["sizeBytes"]))
        with tempfile.TemporaryFile() as content:
            sink: Any = content  # the SDK takes any stream that can be written
            self._client.files.download(file=name, destination=sink)
            received = content.tell()
            if size is not None and received < size:
                raise ShortDownloadError(name, received, size)
            content.seek(0)
            pieces: Iterable[bytes] = iter(lambda: content.read(PIECE_BYTES), b"")
            for line in split_lines(pieces if size else refuse_torn(pieces, name)):
                yield response_line(line) + b"\n"

    def _delete_file(self, file_id: str) -> object:
        return self._call("delete", file_id)

    def _delete_batch(self, batch_id: str) -> object:
        return self._call("delete", batch_id)

    def live(self) -> TranslatedCalls:
        """Return a provider that sends single calls to the same server."""
        from frameenrich.providers.live.calls import TranslatedCalls  # noqa: PLC0415 - asyncio's

        return TranslatedCalls(self, self._live_route, generate_request, live_answer)

    def _live_route(self, shard: Shard) -> Route:
        from frameenrich.providers.live.route import Route  # noqa: PLC0415

        made = self._api._http_options  # noqa: SLF001 - see _call
        model = shard.model.removeprefix("models/")
        seconds = made.timeout / 1000 if made.timeout else None
        return Route(
            url=f"{made.base_url.rstrip('/')}/{made.api_version}/models/{model}:generateContent",
            headers={**made.headers, "x-goog-api-key": self._api.api_key},
            connect_seconds=None,
            answer_seconds=seconds,
            secrets=self._secrets,
        )

    def _own(self, made: Json, tag: str, batch_id: str | None = None) -> Json:
        metadata = made.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        check_own(made.get("name"), metadata.get("state") or made.get("done"), batch_id)
        # A reply without a display name passes; a poll has compared the batch's name above.
        if metadata.get("displayName", tag) != tag:
            raise DoubtfulReplyError("it answered with a batch that does not carry this job's tag")
        return made

    def _heard(self, batch: Batch, made: Json) -> Batch:
        return _heard(batch, made, self._secrets)


def _file_name(tag: str) -> str:
    """Return the name of a shard's file at Gemini, short and fixed, so that it can be found.

    Examples
    --------
    >>> _file_name("llmbatch-1f-r0-s0-a0")
    'files/frameenrich-c1bced7122f1a57eeb1fef91'
    """
    return f"files/frameenrich-{xxhash.xxh3_128_hexdigest(tag.encode())[:24]}"


# --- what the server says ------------------------------------------------------------------------


def _heard(batch: Batch, made: Mapping[str, Json], secrets: tuple[str | None, ...]) -> Batch:
    """Copy Gemini's operation into our batch."""
    metadata = _members(made.get("metadata"))
    counts = _members(metadata.get("batchStats"))
    output = _members(metadata.get("output") or made.get("response")).get("responsesFile")
    error = _members(made.get("error"))
    state = one_line(str(metadata.get("state") or "")).rpartition("STATE_")[2]
    status = _WORDS.get(state, state.lower() or batch.status)
    ended_at = _moment(metadata.get("endTime"))
    if status == BatchStatus.COMPLETED and not output:
        # The server's clock may be ahead of this one: then what was seen first counts.
        seen_at = begun_at(batch.ended_at)
        ended_at = ended_at if ended_at and ended_at <= time.time() else seen_at
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
        created_at=_moment(metadata.get("createTime")),
        ended_at=ended_at,
    )


def _tag_of(made: Json) -> Json:
    """Return the name that a batch shows; of a batch that shows nothing, None."""
    kept = made.get("metadata")
    return kept.get("displayName") if isinstance(kept, dict) else None


def _members(value: Json) -> Mapping[str, Json]:
    """Return an object's members; what is no object has none."""
    return value if isinstance(value, dict) else {}


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
        raise not_installed("gemini") from None
    key = next(filter(None, map(os.environ.get, _KEYS)), None)
    if client is None and key is None:
        raise no_key("gemini", _KEYS[0])
    # vertexai=False, or a variable of Vertex AI's would choose another product.
    return GeminiBatch(genai.Client(vertexai=False, api_key=key) if client is None else client)
