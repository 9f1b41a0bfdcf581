"""OpenAI's Batch API, and every server that speaks it: Files, Batches, nothing else.

Paid calls are made once: the intent is recorded, the call is not retried blindly, and after any
doubt the provider is searched for what carries our tag (BATCH_API.md, "The client").
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import tenacity

from frameenrich.errors import CredentialsError, ProviderError
from frameenrich.model import Batch, BatchError, Limits
from frameenrich.providers.base import Desk, Shard, patience_left

if TYPE_CHECKING:
    import openai

T = TypeVar("T")

TAG_KEY = "frameenrich_tag"
_PIECE_BYTES = 1 << 16
_MAX_RETRY_AFTER_SECONDS = 300.0
_SHORTEST_SECRET = 8
"""What is shorter ("EMPTY", "ollama") keeps nobody out, and would spoil other words."""
_KEY_SHAPE = re.compile(r"\b(sk|sess|key)-[A-Za-z0-9_*-]{6,}|(?i:bearer)\s+\S+")


class OpenAIBatch:
    """The Batch API through an `openai` client.

    Parameters
    ----------
    client : openai.OpenAI or openai.AzureOpenAI
        Decides the server, the key and the time-outs.
    attempts : int
        How often a call that failed for a passing reason is made in all.
    wait_seconds : float
        The first wait between attempts; it doubles, with jitter, up to a minute.
    keep_days : int, optional
        How long the provider is asked to keep the files (``expires_after``), where it can be
        asked; None leaves it to the provider.
    """

    name = "openai"
    blocking = False
    limits = Limits()

    def __init__(
        self,
        client: openai.OpenAI,
        *,
        attempts: int = 6,
        wait_seconds: float = 0.5,
        keep_days: int | None = 30,
    ) -> None:
        # One policy of retries, ours: the SDK's own would make a batch twice.
        self._client = client.with_options(max_retries=0)
        self._attempts = attempts
        self._wait_seconds = wait_seconds
        self._keep_days = keep_days

    def __repr__(self) -> str:
        return f"OpenAIBatch({self._client.base_url.host!r})"

    @property
    def _secrets(self) -> tuple[str | None, ...]:
        return self._client.api_key, self._client.organization

    def url(self, endpoint: str) -> str:
        """The endpoint; on Azure's classic API without its version (BATCH_API.md)."""
        import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

        classic = isinstance(self._client, openai.AzureOpenAI)
        return endpoint.removeprefix("/v1") if classic else endpoint

    def send(self, shard: Shard, batch: Batch, desk: Desk) -> Batch:
        """Upload the file and create the batch, or find them where an earlier try got so far."""
        batch = self._uploaded(shard, batch, desk)
        return self._created(shard, batch, desk)

    def _uploaded(self, shard: Shard, batch: Batch, desk: Desk) -> Batch:
        if batch.input_file_id:
            return batch
        in_doubt, name = batch.uploading, f"{shard.tag}.jsonl"
        batch = desk.record(batch.but(uploading=True))

        def upload() -> str:
            nonlocal in_doubt
            found = self._find_file(name) if in_doubt else None
            in_doubt = True
            if found:
                return found
            with shard.open() as lines:
                made = self._keeping(
                    lambda keep: self._client.files.create(
                        file=(name, _from_start(lines)), purpose="batch", **keep
                    ),
                    "expires_after",
                )
            return made.id

        file_id = self._patiently(upload, f"upload {name}")
        return desk.record(batch.but(input_file_id=file_id, uploading=False))

    def _created(self, shard: Shard, batch: Batch, desk: Desk) -> Batch:
        in_doubt = batch.creating
        batch = desk.record(batch.but(creating=True))

        def create() -> Any:
            nonlocal in_doubt
            found = self._find_batch(shard.tag) if in_doubt else None
            in_doubt = True
            return found or self._keeping(
                lambda keep: self._client.batches.create(
                    input_file_id=batch.input_file_id or "",
                    endpoint=cast("Any", shard.url),
                    completion_window="24h",
                    metadata={**shard.metadata, TAG_KEY: shard.tag},
                    **keep,
                ),
                "output_expires_after",
            )

        try:
            made = self._patiently(create, f"create the batch {shard.tag}")
        except ProviderError as error:
            if getattr(
                error, "lost_file", False
            ):  # the file went away since: upload it anew next time
                desk.record(batch.but(input_file_id=None, creating=False))
            raise
        return desk.record(_heard(batch.but(creating=False), made, self._secrets))

    def _keeping(self, call: Callable[[dict[str, Any]], T], option: str) -> T:
        """Make a call with a limit on how long files are kept, where the server knows that."""
        import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

        if self._keep_days is None:
            return call({})
        limit = {"anchor": "created_at", "seconds": self._keep_days * 86_400}
        try:
            return call({option: limit})
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if "expires_after" not in str(error):
                raise
            self._keep_days = None  # refused before anything was made
            return call({})

    def _find_file(self, name: str) -> str | None:
        files = self._client.files.list(purpose="batch", limit=100)
        return next((file.id for file in files if file.filename == name), None)

    def _find_batch(self, tag: str) -> Any:
        batches = self._client.batches.list(limit=100)
        return next((b for b in batches if (b.metadata or {}).get(TAG_KEY) == tag), None)

    def poll(self, batch: Batch) -> Batch:
        """The batch's status, counts and file ids as the server has them now."""
        made = self._patiently(
            lambda: self._client.batches.retrieve(batch.id or ""), f"look at the batch {batch.id}"
        )
        return _heard(batch, made, self._secrets)

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Download output file and error file; either may be missing, ``""`` or empty."""
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                start = sink.tell()
                self._patiently(
                    lambda f=file_id, s=start: self._download(f, sink, s),  # type: ignore[misc]
                    f"download the file {file_id}",
                )

    def _download(self, file_id: str, sink: IO[bytes], start: int) -> None:
        sink.seek(start)
        sink.truncate()
        last = b"\n"
        with self._client.files.with_streaming_response.content(file_id) as response:
            declared = response.headers.get("content-length")
            encoded = response.headers.get("content-encoding")
            for piece in response.iter_bytes(_PIECE_BYTES):
                sink.write(piece)
                last = piece or last
        received = sink.tell() - start
        if declared is not None and not encoded and received < int(declared):
            raise _ShortDownloadError(file_id, received, int(declared))
        size = self._client.files.retrieve(file_id).bytes
        if size is not None and received < size:
            raise _ShortDownloadError(file_id, received, size)
        if not last.endswith(b"\n"):
            sink.write(b"\n")

    def cancel(self, batch: Batch) -> Batch:
        """Ask for cancellation, which takes the provider up to ten minutes."""
        made = self._patiently(
            lambda: self._client.batches.cancel(batch.id or ""), f"cancel the batch {batch.id}"
        )
        return _heard(batch, made, self._secrets)

    def delete_files(self, batch: Batch) -> None:
        """Delete input, output and error files; one that is gone already is fine."""
        import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

        kept = (batch.input_file_id, batch.output_file_id, batch.error_file_id)
        for file_id in filter(None, (*kept, *batch.spent_file_ids)):

            def delete(file_id: str = file_id) -> None:
                with contextlib.suppress(openai.NotFoundError):
                    self._client.files.delete(file_id)

            self._patiently(delete, f"delete the file {file_id}")

    # --- failures -------------------------------------------------------------------------------

    def _patiently(self, call: Callable[[], T], doing: str) -> T:
        """Make a call, again after passing faults; what remains becomes a `ProviderError`."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passing),
            wait=self._wait,
            stop=tenacity.stop_after_attempt(self._attempts)
            | tenacity.stop_before_delay(max(patience_left(), 0)),
            reraise=True,
        )
        try:
            with self._translated(doing):
                return retrying(call)
        except ProviderError as error:
            error.impatient = retrying.statistics["attempt_number"] < self._attempts
            raise

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = _retry_after(error)
        if asked is not None:
            return min(asked, _MAX_RETRY_AFTER_SECONDS)
        first = self._wait_seconds
        backoff = tenacity.wait_exponential(first, max=60) + tenacity.wait_random(0, first)
        return backoff(state)

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        import httpx2  # noqa: PLC0415 - what the SDK lets through while a body is read
        import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

        try:
            yield
        except (openai.OpenAIError, httpx2.HTTPError, ValueError, _ShortDownloadError) as error:
            problem = f"The provider did not {doing}: {scrub(_says(error), self._secrets)}."
            status = getattr(error, "status_code", None)
            # Without its cause, whose request holds the key in its headers.
            raise ProviderError(
                problem,
                _advice(status),
                status_code=status,
                lost_file=_lost_file(error),
                passing=_passing(error),
                queue_full=status == 429 and _passing(error),  # noqa: PLR2004 - HTTP's own number
            ) from None


class _ShortDownloadError(Exception):
    """Fewer bytes came than the server said the file has."""

    def __init__(self, file_id: str, received: int, expected: int) -> None:
        super().__init__(f"{file_id} was cut short, {received:,} of {expected:,} bytes")


def _from_start(lines: IO[bytes]) -> IO[bytes]:
    lines.seek(0)  # a second try uploads the whole file too
    return lines


def _lost_file(error: BaseException | None) -> bool:
    import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

    return isinstance(error, openai.BadRequestError) and "find file" in str(error).lower()


def _passing(error: BaseException) -> bool:
    """Whether the same call may well succeed a little later."""
    import httpx2  # noqa: PLC0415 - what the SDK lets through while a body is read
    import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

    if isinstance(error, openai.APIStatusError):
        if isinstance(error, openai.RateLimitError):
            return "quota" not in str(error.code)  # no waiting makes money or room for files
        broken = isinstance(error, openai.InternalServerError)
        return broken or error.status_code in {408, 409} or _lost_file(error)
    # Not a status: a broken connection, a time-out, a 200 whose body is not JSON, a short file.
    passing = (
        openai.APIError,
        httpx2.TransportError,
        httpx2.DecodingError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        _ShortDownloadError,
    )
    return isinstance(error, passing)


def _retry_after(error: BaseException | None) -> float | None:
    response = getattr(error, "response", None)
    try:
        return float(response.headers["retry-after"]) if response is not None else None
    except (KeyError, ValueError):
        return None


def _says(error: BaseException) -> str:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    code = getattr(error, "status_code", None)
    text = str(message or getattr(error, "message", None) or error).strip()
    if code is not None and (text.startswith("<") or len(text) > 400):  # noqa: PLR2004 - a sentence
        text = f"it answered with {len(text)} characters that are no error message"
    text = text.rstrip(".")
    return f"HTTP {code}, {text}" if code is not None else f"{type(error).__name__}, {text}"


def _advice(status: int | None) -> str:
    if status in {401, 403}:
        return "Check the API key and what it may do; nothing more was sent."
    if status == 404:  # noqa: PLR2004 - HTTP's own number
        return (
            "If it belongs to another project, pass client= with that project's key; "
            "nothing is sent again by itself."
        )
    if status is None or status >= 500 or status == 429:  # noqa: PLR2004 - HTTP's own numbers
        return "Nothing is lost: call again later and the job goes on from here."
    return "Nothing is lost: mend what the provider names, then call again."


def scrub(text: str, secrets: Iterable[str | None] = ()) -> str:
    """The text without API keys and control characters.

    Examples
    --------
    >>> scrub("Incorrect API key provided: sk-abcdef123")
    'Incorrect API key provided: ***'
    """
    for secret in secrets:
        if secret and len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return _KEY_SHAPE.sub("***", _printable(text))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _heard(batch: Batch, made: Any, secrets: Iterable[str | None] = ()) -> Batch:
    """Our batch with what the provider's object says; other servers' types are not trusted."""

    def word(value: Any) -> str | None:
        return str(value) if value else None

    def said(value: Any) -> str | None:
        return scrub(str(value), secrets) if value else None

    counts = made.request_counts
    listed = getattr(made.errors, "data", None) or ()
    ends = (made.completed_at, made.failed_at, made.expired_at, made.cancelled_at)
    return batch.but(
        id=word(made.id),
        status=_printable(str(made.status)) if made.status else batch.status,
        input_file_id=word(made.input_file_id) or batch.input_file_id,
        output_file_id=word(made.output_file_id),
        error_file_id=word(made.error_file_id),
        total=_number(getattr(counts, "total", None)),
        completed=_number(getattr(counts, "completed", None)),
        failed=_number(getattr(counts, "failed", None)),
        errors=tuple(
            BatchError(said(e.code), said(e.message), _number(e.line), said(e.param))
            for e in listed
        ),
        created_at=_number(made.created_at),
        ended_at=next((_number(end) for end in ends if end), None),
    )


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def connect(client: Any = None, model: str | None = None) -> OpenAIBatch:
    """The provider with the given client, or one built from the environment as the SDK does.

    Raises
    ------
    CredentialsError
        Neither a client nor ``OPENAI_API_KEY``.
    """
    del model
    import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

    if client is None:
        try:
            client = openai.OpenAI()
        except openai.OpenAIError:
            raise CredentialsError(
                "There is no API key for the provider 'openai'.",
                "Set OPENAI_API_KEY or pass client=; provider='local' needs none.",
            ) from None
    return OpenAIBatch(client)
