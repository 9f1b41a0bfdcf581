"""Mistral's batch jobs: Files and ``/v1/batch/jobs``, with our tag in a job's metadata."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from frameenrich.errors import CredentialsError, ParameterError
from frameenrich.jsonl import split_lines
from frameenrich.model import Batch, BatchError, BatchStatus, Json, Limits
from frameenrich.providers.credentials import secrets_of
from frameenrich.providers.guard import guard
from frameenrich.providers.mistral.translate import chat_body, request_line, response_line
from frameenrich.providers.once import (
    TAG_KEY,
    advisory,
    check_own,
    create_once,
    delete_each,
    each_once,
    fetch_files,
    file_ids,
    find_resumed,
    upload_once,
    whole_body,
)
from frameenrich.providers.protocol import Shard, ShardWriter
from frameenrich.providers.retries import Calls, DoubtfulReplyError, SdkErrors
from frameenrich.text import printable, scrub

if TYPE_CHECKING:
    from mistralai.client import Mistral


_CHAT = "/v1/chat/completions"


_PAGE = 100


_MAX_HOURS = 168


_WORDS = {
    "QUEUED": BatchStatus.VALIDATING,
    "RUNNING": BatchStatus.IN_PROGRESS,
    "CANCELLATION_REQUESTED": BatchStatus.CANCELLING,
    "SUCCESS": BatchStatus.COMPLETED,
    "FAILED": BatchStatus.FAILED,
    "TIMEOUT_EXCEEDED": BatchStatus.EXPIRED,
    "CANCELLED": BatchStatus.CANCELLED,
}


def _hours(window: str | None, otherwise: int) -> int:
    """Return the hours of a window such as ``72h`` or ``3d``."""
    if window is None:
        return otherwise
    return int(window[:-1]) * (24 if window.endswith("d") else 1)


class MistralBatch:
    """Batch jobs through a `mistralai` client.

    Parameters
    ----------
    client : mistralai.client.Mistral
        Decides the server, the key and the time-outs.
    attempts : int
        How often a call that failed for a passing reason is made in all.
    wait_seconds : float
        The first wait between attempts; it doubles, with jitter, up to a minute.
    timeout_hours : int
        How long a job may take before Mistral ends it; at most 168.
    """

    name = "mistral"
    blocking = False
    takes_metadata = True
    prompt_caching = "key"
    # A file may have 512 MB, and a million requests may wait in all: ten shards are in that queue.
    limits = Limits(max_requests=100_000, max_bytes=500_000_000)

    def __init__(
        self,
        client: Mistral,
        *,
        attempts: int = 6,
        wait_seconds: float = 0.5,
        timeout_hours: int = 24,
    ) -> None:
        from mistralai.client import Mistral, errors  # noqa: PLC0415 - an extra

        if not isinstance(client, Mistral):
            raise ParameterError(
                f"client= is a {type(client).__name__}, and 'mistral' wants its own kind.",
                "Pass a mistralai.client.Mistral client.",
            )
        self._client = client
        guard(client)
        known = (errors.MistralError, errors.NoResponseError)
        self._calls = Calls(
            SdkErrors(all=known, broken=known),
            lambda: self._secrets,
            attempts=attempts,
            wait_seconds=wait_seconds,
        )
        self._timeout_hours = timeout_hours

    def __repr__(self) -> str:
        server = self._client.sdk_configuration.get_server_details()[0]
        return f"MistralBatch({scrub(server)!r})"  # an address may hold a user and a password

    @property
    def _secrets(self) -> tuple[str | None, ...]:
        return (*secrets_of(self._client), os.environ.get("MISTRAL_API_KEY"))

    def url(self, endpoint: str) -> str:
        """Return the endpoint; only chat completions are translated."""
        if endpoint != _CHAT:
            raise ParameterError(
                f"The provider 'mistral' does not answer {endpoint}.", f"Use endpoint={_CHAT!r}."
            )
        return endpoint

    def check(self, body: Json) -> None:
        """Refuse a request that Mistral's API cannot express.

        Raises
        ------
        ParameterError
            It holds such a parameter.
        """
        chat_body(body)

    def check_window(self, window: str) -> None:
        """Refuse a completion window that is no number of hours or days up to a week.

        Raises
        ------
        ParameterError
            It is none.
        """
        usable = isinstance(window, str) and re.fullmatch(r"[1-9]\d{0,2}[hd]", window)
        if not usable or _hours(window, 0) > _MAX_HOURS:
            raise ParameterError(
                f"completion_window={window!r} is none that 'mistral' takes.",
                "Use '1h' to '168h', or '1d' to '7d'.",
            )

    # --- sending ---------------------------------------------------------------------------------

    def send(self, shard: Shard, batch: Batch, desk: ShardWriter) -> Batch:
        """Upload the file and create the job, or find them where an earlier try got so far."""
        made = find_resumed(self._calls, shard, batch, lambda: self._find_job(shard.tag))
        if made is not None:
            return desk.record(_heard(batch, made, self._secrets))
        batch = upload_once(
            self._calls,
            shard,
            batch,
            desk,
            find=lambda name: self._find_file(shard, name),
            upload=lambda name: self._upload(shard, name),
        )
        batch, made = create_once(
            self._calls,
            shard,
            batch,
            desk,
            find=lambda: self._find_job(shard.tag),
            create=lambda: self._create(shard, batch.input_file_id or ""),
        )
        return desk.record(_heard(batch, made, self._secrets))

    def _upload(self, shard: Shard, name: str) -> str:
        from mistralai.client.models import File  # noqa: PLC0415 - an extra

        # Translated on the way out: the job's folder keeps requests in the Batch API's format.
        with _translated(shard) as content:
            made = self._json(
                self._client.files.upload,
                file=File(file_name=name, content=content, content_type="application/jsonl"),
                purpose="batch",
            )
        return str(made.get("id") or "")

    def _create(self, shard: Shard, file_id: str) -> Json:
        made = self._json(
            self._client.batch.jobs.create,
            endpoint=shard.url,
            model=shard.model,
            input_files=[file_id],
            metadata={**shard.metadata, TAG_KEY: shard.tag},
            timeout_hours=_hours(shard.completion_window, self._timeout_hours),
        )
        return _own(made, shard.tag)

    def _find_file(self, shard: Shard, name: str) -> str | None:
        """Return the file that was uploaded under a name; one that was cut on its way is none."""
        with _translated(shard) as content:
            # The translated size is what the server should have; a cut upload is smaller.
            sizes = {None, content.seek(0, os.SEEK_END)}
        files = self._pages(self._client.files.list, purpose="batch", search=name)
        return next(
            (f["id"] for f in files if f.get("filename") == name and f.get("bytes") in sizes), None
        )

    def _find_job(self, tag: str) -> Json:
        # The SDK writes a filter by metadata as bare parameters, which a server may pass over.
        jobs = self._pages(self._client.batch.jobs.list)
        return next((job for job in jobs if (job.get("metadata") or {}).get(TAG_KEY) == tag), None)

    def _pages(self, call: Callable[..., Any], **options: Any) -> Iterator[Json]:
        """Yield the items of a list, newest first, page by page."""

        def pages() -> Iterator[list[Json]]:
            for page in itertools.count():
                found = self._json(call, page=page, page_size=_PAGE, **options).get("data")
                if not isinstance(found, list) or not all(map(_has_id, found)):
                    raise DoubtfulReplyError("it answered with something that is no list")
                yield found

        return each_once(pages(), lambda item: item["id"])

    def _json(self, call: Callable[..., Any], **options: Any) -> Json:
        """Make a call and return the answer's JSON, even where the SDK's types refuse it."""
        from mistralai.client import errors  # noqa: PLC0415 - an extra

        try:
            # No retries of the SDK's own, whatever the client was made with: one would pay twice.
            made = call(**options, retries=None)
        except errors.ResponseValidationError as error:
            # The server may know more statuses than the installed SDK: the JSON itself counts.
            answer = json.loads(error.body)
            if not isinstance(answer, dict):
                raise
            return answer
        return made.model_dump(by_alias=True, warnings=False)

    # --- looking and bringing home ---------------------------------------------------------------

    def poll(self, batch: Batch) -> Batch:
        """Return the batch with status, counts and file ids as the server has them now."""
        made = self._calls.patiently(
            lambda: _own(
                self._json(self._client.batch.jobs.get, job_id=batch.id or ""), batch.tag, batch.id
            ),
            f"look at the batch {batch.id}",
        )
        return _heard(batch, made, self._secrets)

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Download output file and error file; either may be missing."""
        fetch_files(self._calls, batch, sink, self._download)

    def _download(self, file_id: str) -> Iterator[bytes]:
        size = advisory(lambda: self._json(self._client.files.retrieve, file_id=file_id)["bytes"])
        response = self._client.files.download(file_id=file_id, retries=None)
        try:
            for line in split_lines(whole_body(response, file_id, size)):
                yield response_line(line) + b"\n"
        finally:
            response.close()

    def cancel(self, batch: Batch) -> Batch:
        """Ask for cancellation; what has run stays."""
        made = self._calls.patiently(
            lambda: self._json(self._client.batch.jobs.cancel, job_id=batch.id or ""),
            f"cancel the batch {batch.id}",
        )
        try:
            return _heard(batch, _own(made, batch.tag, batch.id), self._secrets)
        except DoubtfulReplyError:
            return self.poll(batch)  # asked twice, it would refuse what it has begun

    def delete_files(self, batch: Batch) -> None:
        """Delete the files, then the job; what is gone already is fine."""
        files, jobs = self._client.files, self._client.batch.jobs
        delete_each(
            self._calls,
            "file",
            file_ids(batch),
            lambda file_id: files.delete(file_id=file_id, retries=None),
        )
        delete_each(
            self._calls,
            "batch",
            filter(None, [batch.id]),
            lambda job_id: jobs.delete(job_id=job_id, retries=None),
        )


@contextlib.contextmanager
def _translated(shard: Shard) -> Iterator[IO[bytes]]:
    """Yield a shard's requests in Mistral's words, on disk."""
    with tempfile.TemporaryFile() as content:
        with shard.open() as lines:
            content.writelines(map(request_line, lines))
        content.seek(0)
        yield content


def _own(made: Json, tag: str, job_id: str | None = None) -> Json:
    """Return the job of a reply, or raise where it may not be ours."""
    kept = made.get("metadata")
    check_own(made.get("id"), made.get("status"), job_id)
    # A reply without metadata passes; a look has compared the id above.
    if isinstance(kept, dict) and kept and kept.get(TAG_KEY) != tag:
        raise DoubtfulReplyError("it answered with a batch that does not carry this job's tag")
    return made


def _has_id(item: Json) -> bool:
    return isinstance(item, dict) and isinstance(item.get("id"), str)


# --- what the server says ------------------------------------------------------------------------


def _heard(batch: Batch, made: Mapping[str, Json], secrets: tuple[str | None, ...]) -> Batch:
    """Copy Mistral's job into our batch."""
    status = printable(str(made.get("status") or batch.status))
    return batch.replace(
        id=str(made["id"]),
        status=_WORDS.get(status, status.lower()),
        output_file_id=made.get("output_file") or None,
        error_file_id=made.get("error_file") or None,
        total=made.get("total_requests"),
        completed=made.get("succeeded_requests"),
        failed=made.get("failed_requests"),
        errors=tuple(
            BatchError(message=scrub(str(error.get("message")), secrets))
            for error in made.get("errors") or ()
        ),
        created_at=made.get("created_at"),
        ended_at=made.get("completed_at"),
    )


def connect(client: Any = None, model: str | None = None) -> MistralBatch:
    """Return the provider with the given client, or one built from the environment.

    Raises
    ------
    ParameterError
        The extra is not installed, or the client is another provider's.
    CredentialsError
        Neither a client nor ``MISTRAL_API_KEY``.
    """
    del model
    try:
        from mistralai.client import Mistral  # noqa: PLC0415 - an extra
    except ImportError:
        raise ParameterError(
            "The provider 'mistral' is not installed.",
            "Run: pip install 'frameenrich[mistral]'.",
        ) from None
    if client is None and not os.environ.get("MISTRAL_API_KEY"):
        raise CredentialsError(
            "There is no API key for the provider 'mistral'.",
            "Set MISTRAL_API_KEY or pass client=; provider='local' needs none.",
        )
    return MistralBatch(
        Mistral(api_key=os.environ["MISTRAL_API_KEY"]) if client is None else client
    )
