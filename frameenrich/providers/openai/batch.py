"""OpenAI's Batch API, and every server that speaks it: Files, Batches, nothing else.

Paid calls are made once: the intent is recorded, the call is not retried blindly, and after any
doubt the provider is searched for what carries our tag: the API has no idempotency keys. How
servers differ is configured in `frameenrich.providers.dialects`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from frameenrich.errors import ProviderError
from frameenrich.model import Batch, BatchError
from frameenrich.providers.credentials import secrets_of
from frameenrich.providers.dialects import (
    AZURE,
    GROQ,
    OPENAI,
    TOGETHER,
    Dialect,
    check_client,
    client_of,
)
from frameenrich.providers.guard import guard
from frameenrich.providers.once import (
    TAG_KEY,
    Download,
    advisory,
    check_own,
    check_uploaded,
    cursor_pages,
    each_once,
    file_ids,
    whole_body,
)
from frameenrich.providers.protocol import Shard
from frameenrich.providers.retries import (
    Calls,
    DoubtfulReplyError,
    NotYetError,
    stainless_errors,
    status_of,
)
from frameenrich.providers.uploaded import UploadedBatches
from frameenrich.text import one_line, scrub

if TYPE_CHECKING:
    import openai

    from frameenrich.providers.live.provider import LiveProvider


T = TypeVar("T")


# Azure's own statuses of a file that cannot be used yet.
_UNREADY = frozenset({"pending", "uploaded", "running"})


# What gateways answer that lack a route, or break down at it; 404 may also be a file that is gone,
# which the create says in words that are known.
_NO_ROUTE = frozenset({404, 405, 500, 501})


_OTHER_SPELLINGS = {"canceled": "cancelled", "canceling": "cancelling"}


class OpenAIBatch(UploadedBatches):
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
    dialect : Dialect, optional
        The server's ways; by default OpenAI's, or Azure's for an `AzureOpenAI` client.
    window : str
        The completion window; Groq takes ``"24h"`` to ``"7d"``, the others ``"24h"``.
    """

    def __init__(
        self,
        client: openai.OpenAI,
        *,
        attempts: int = 6,
        wait_seconds: float = 0.5,
        keep_days: int | None = 30,
        dialect: Dialect | None = None,
        window: str = "24h",
    ) -> None:
        import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

        classic = isinstance(client, openai.AzureOpenAI)
        self._dialect = dialect or (AZURE if classic else OPENAI)
        self.name = self._dialect.name
        self.limits = self._dialect.limits
        # One policy of retries, ours: the SDK's own would make a batch twice.
        check_client(client, self.name)
        self._client = client.with_options(max_retries=0)
        guard(self._client)
        self._calls = Calls(
            stainless_errors(openai),
            lambda: self._secrets,
            attempts=attempts,
            wait_seconds=wait_seconds,
        )
        self._keep_days = keep_days if self._dialect.supports_expiry else None
        self._window = window

    @property
    def server(self) -> str:
        """The host that requests go to; it decides which parameters are allowed."""
        return str(self._client.base_url.host)

    def __repr__(self) -> str:
        return f"OpenAIBatch({self._client.base_url.host!r})"

    @property
    def _secrets(self) -> tuple[str | None, ...]:
        return secrets_of(self._client)

    def url(self, endpoint: str) -> str:
        """Return what the dialect calls the endpoint in request lines."""
        return self._dialect.url(endpoint)

    @property
    def takes_metadata(self) -> bool:
        """Whether batches carry metadata."""
        return self._dialect.supports_metadata

    @property
    def prompt_caching(self) -> str | None:
        """How prompt caching is requested; None where the server has none that we know."""
        return "breakpoint" if self._dialect.supports_cache_key else None

    @property
    def takes_samples(self) -> bool:
        """Whether one request may ask for several answers."""
        return self._dialect.supports_samples

    def check_window(self, window: str) -> None:
        """Refuse a completion window that the server does not take."""
        self._dialect.check_window(window)

    # --- the server's calls ----------------------------------------------------------------------

    def _upload(self, shard: Shard, name: str) -> str:
        with shard.open() as lines:
            return self._keeping(
                lambda keep: self._upload_file((name, _from_start(lines)), keep), "expires_after"
            )

    def _upload_file(self, file: tuple[str, IO[bytes]], keep: dict[str, Any]) -> str:
        purpose, path = self._dialect.purpose, self._dialect.upload_path
        if path is None:
            sent = self._client.files.create(file=file, purpose=cast("Any", purpose), **keep)
            check_uploaded(getattr(sent, "filename", None), file[0])
            return getattr(sent, "id", "")
        made: Any = self._client.post(
            path,
            cast_to=object,
            # Together wants a name and a type beside the file; the SDK's method cannot send them.
            body={"purpose": purpose, "file_name": file[0], "file_type": "jsonl"},
            files={"file": file},
            options={"headers": {"Content-Type": "multipart/form-data"}},
        )
        return str(made.get("id") or "") if isinstance(made, dict) else ""

    def _create(self, shard: Shard, file_id: str) -> Any:
        made = self._keeping(
            lambda keep: self._client.batches.create(
                input_file_id=file_id,
                endpoint=cast("Any", shard.url),
                completion_window=cast("Any", shard.completion_window or self._window),
                **self._tag(shard),
                **keep,
            ),
            "output_expires_after",
        )
        return self._confirmed(made)

    def _confirmed(self, made: Any) -> Any:
        """Return a new batch; one without our tag only where the server does not deny having it.

        A gateway may answer a create with anything. Servers that keep no metadata answer so, too.
        """
        batch_id = getattr(_opened(made), "id", None)
        if (
            not self._dialect.supports_metadata
            or _tag_of(_opened(made)) is not None
            or not batch_id
        ):
            return made
        try:
            self._client.batches.retrieve(str(batch_id))
        except Exception as error:  # noqa: BLE001 - only a denial says something
            if status_of(error) in {404, 410}:
                raise DoubtfulReplyError("it answered with a batch that it does not have") from None
        return made

    def _keeping(self, call: Callable[[dict[str, Any]], T], option: str) -> T:
        """Make a call with an expiry date for its files, or without where it is refused."""
        import openai  # noqa: PLC0415 - half a second that `import frameenrich` saves

        if self._keep_days is None:
            return call({})
        limit = {"anchor": "created_at", "seconds": self._keep_days * 86_400}
        try:
            return call({option: limit})
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            # A server without the option refuses it by name; any other 400 is a real error.
            if "expires_after" not in str(error):
                raise
            self._keep_days = None  # refused before anything was made
            return call({})

    def _tag(self, shard: Shard) -> dict[str, Any]:
        if not self._dialect.supports_metadata:
            return {}
        # Our tag last: a user's metadata must not replace what a batch is found by.
        return {"metadata": {**shard.metadata, TAG_KEY: shard.tag}}

    def _await_file(self, file_id: str) -> None:
        """Raise while Azure still processes the file (openai-dotnet#312)."""
        if not self._dialect.must_wait_for_file:
            return
        # Where nothing is said of the file, by a reply that is none or by a gateway without this
        # route, the create itself will tell.
        try:
            status = getattr(self._client.files.retrieve(file_id), "status", None)
        except Exception as error:
            if status_of(error) not in _NO_ROUTE:
                raise
            return
        if isinstance(status, str) and status in _UNREADY:
            raise NotYetError(f"the file {file_id} is still being processed")

    def _find_file(self, shard: Shard, name: str) -> str | None:
        with shard.open() as lines:
            size = lines.seek(0, io.SEEK_END)
        pages = cursor_pages(
            lambda: self._client.files.list(purpose=self._dialect.purpose, limit=100), "files"
        )
        return next(
            (
                file.id
                for file in each_once(pages, _id)
                # A smaller one is an upload that broke off; some servers state no size.
                if file.filename == name and file.bytes in {None, size}
            ),
            None,
        )

    def _find_batch(self, tag: str, file_id: str | None) -> Any:
        if self._dialect.supports_metadata:
            pages = cursor_pages(lambda: self._client.batches.list(limit=100), "batches")
            found = each_once(pages, _id)
            return next((made for made in found if _tag_of(made) == tag), None)
        # Without tag and input file there is nothing to recognise a batch by.
        if file_id is None:
            return None
        # Untyped: Together answers a bare list, which the SDK's method cannot read.
        answer: Any = self._client.get("/batches", cast_to=object)
        jobs = answer.get("data") if isinstance(answer, dict) else answer
        if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
            raise DoubtfulReplyError("it answered with something that is no list of batches")
        # One that failed was of an earlier attempt with this file, or this one's and unbilled.
        return next(
            (
                _opened({"job": job})
                for job in jobs
                if job.get("input_file_id") == file_id and _word(job.get("status")) != "failed"
            ),
            None,
        )

    def _retrieve(self, batch_id: str) -> Any:
        return self._client.batches.retrieve(batch_id)

    def _stop(self, batch_id: str) -> Any:
        return self._client.batches.cancel(batch_id)

    def _own(self, made: Any, tag: str, batch_id: str | None = None) -> Any:
        made = _opened(made)
        check_own(getattr(made, "id", None), getattr(made, "status", None), batch_id)
        kept = getattr(made, "metadata", None)  # a server that keeps none has the id to go by
        if (
            self._dialect.supports_metadata
            and kept
            and not (isinstance(kept, dict) and kept.get(TAG_KEY) == tag)
        ):
            raise DoubtfulReplyError("it answered with a batch that does not carry this job's tag")
        return made

    def _download(self, file_id: str) -> Iterator[bytes]:
        # Azure may leave answers in the user's own storage, for which we hold no key.
        if "://" in file_id:
            raise _in_a_blob(file_id)
        # Chunked downloads declare no length, so a cut one would look whole.
        size = advisory(lambda: _number(self._client.files.retrieve(file_id).bytes))
        with self._client.files.with_streaming_response.content(file_id) as response:
            yield from whole_body(cast("Download", response), file_id, size)

    def _delete_file(self, file_id: str) -> object:
        return self._client.files.delete(file_id)

    def _deletable(self, batch: Batch) -> Iterator[str]:
        # A blob lies in the user's own storage: not ours to delete.
        return (file_id for file_id in file_ids(batch) if "://" not in file_id)

    def _heard(self, batch: Batch, made: Any) -> Batch:
        return _heard(batch, made, self._secrets)

    def live(self) -> LiveProvider:
        """Return a provider that sends single calls to the same server."""
        from frameenrich.providers.live.provider import LiveProvider  # noqa: PLC0415 - asyncio's, not a batch's

        return LiveProvider(self._client, dialect=self._dialect)


def _from_start(lines: IO[bytes]) -> IO[bytes]:
    lines.seek(0)  # a second try uploads the whole file too
    return lines


def _blob(made: Any, name: str) -> str | None:
    """Return the blob that Azure wrote, without the signature in its query, which is a secret."""
    url = getattr(made, name, None)
    return str(url).partition("?")[0] if url else None


def _in_a_blob(url: str) -> ProviderError:
    return ProviderError(
        f"The answers lie in your own storage account, in {url}.",
        "Download that blob and pass the file to job.import_responses(path).",
    )


def _id(item: Any) -> str:
    return str(item.id)


def _tag_of(made: Any) -> Any:
    kept = getattr(made, "metadata", None)
    return kept.get(TAG_KEY) if isinstance(kept, dict) else None


def _opened(made: Any) -> Any:
    """Unwrap a batch from the ``job`` that Together puts around a new one."""
    from openai.types import Batch as Made  # noqa: PLC0415 - heavy

    inner = made.get("job") if isinstance(made, dict) else getattr(made, "job", None)
    return Made.construct(**inner) if isinstance(inner, dict) else made


def _word(status: Any) -> str:
    """Return a status in the words of `BatchStatus`, where it is one of them."""
    word = one_line(str(status))
    lower = word.lower()
    return _OTHER_SPELLINGS.get(lower, lower)


def _heard(batch: Batch, made: Any, secrets: Iterable[str | None] = ()) -> Batch:
    """Copy the provider's object into our batch; other servers' types are not trusted."""
    from openai.types import BatchError as Entry  # noqa: PLC0415 - heavy

    def word(value: Any) -> str | None:
        return str(value) if value else None

    def said(value: Any) -> str | None:
        return scrub(str(value), secrets) if value else None

    made = _opened(made)
    # Other servers than OpenAI send counts as text, or leave them out.
    counts = made.request_counts
    listed = getattr(made.errors, "data", None) or ()
    reason = getattr(made, "error", None)  # Together's, a sentence
    ends = (made.completed_at, made.failed_at, made.expired_at, made.cancelled_at)
    return batch.replace(
        id=word(made.id),
        status=_word(made.status) if made.status else batch.status,
        input_file_id=word(made.input_file_id) or batch.input_file_id,
        output_file_id=word(made.output_file_id) or _blob(made, "output_blob"),
        error_file_id=word(made.error_file_id) or _blob(made, "error_blob"),
        total=_number(getattr(counts, "total", None)),
        completed=_number(getattr(counts, "completed", None)),
        failed=_number(getattr(counts, "failed", None)),
        errors=tuple(
            BatchError(said(e.code), said(e.message), _number(e.line), said(e.param))
            for e in listed
            if isinstance(e, Entry)
        )
        + ((BatchError(message=said(reason)),) if reason else ()),
        created_at=_moment(made.created_at),
        ended_at=next((_moment(end) for end in ends if end), None),
    )


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _moment(value: Any) -> int | None:
    """Return Unix seconds, given these or ISO 8601."""
    if isinstance(value, str) and not value.isdigit():
        with contextlib.suppress(ValueError):
            return int(datetime.fromisoformat(value).timestamp())
    return _number(value)


def connect(client: Any = None, model: str | None = None) -> OpenAIBatch:
    """Return the provider with the given client, or one built from the environment as the SDK does.

    Raises
    ------
    CredentialsError
        Neither a client nor ``OPENAI_API_KEY``.
    """
    del model
    return OpenAIBatch(client or client_of(OPENAI))


def connect_azure(client: Any = None, model: str | None = None) -> OpenAIBatch:
    """Connect to Azure OpenAI, where a model is the name of a deployment (of the kind "batch").

    Raises
    ------
    CredentialsError
        Neither a client nor ``AZURE_OPENAI_API_KEY``, ``AZURE_OPENAI_ENDPOINT`` and
        ``OPENAI_API_VERSION``.
    """
    del model
    return OpenAIBatch(client or client_of(AZURE), dialect=AZURE)


def connect_groq(client: Any = None, model: str | None = None) -> OpenAIBatch:
    """Connect to Groq, with ``GROQ_API_KEY`` or an `openai` client for its server.

    Raises
    ------
    CredentialsError
        Neither is there.
    """
    del model
    return OpenAIBatch(client or client_of(GROQ), dialect=GROQ)


def connect_together(client: Any = None, model: str | None = None) -> OpenAIBatch:
    """Connect to Together, with ``TOGETHER_API_KEY`` or an `openai` client for its server.

    Raises
    ------
    CredentialsError
        Neither is there.
    """
    del model
    return OpenAIBatch(client or client_of(TOGETHER), dialect=TOGETHER)
