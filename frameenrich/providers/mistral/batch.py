"""Mistral's batch jobs: Files and ``/v1/batch/jobs``, with our tag in a job's metadata."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from frameenrich.errors import ParameterError
from frameenrich.jsonl import split_lines
from frameenrich.model import Batch, BatchError, BatchStatus, Json, Limits
from frameenrich.providers.credentials import secrets_of
from frameenrich.providers.guard import guard
from frameenrich.providers.mistral.translate import chat_body, request_line, response_line
from frameenrich.providers.once import (
    TAG_KEY,
    advisory,
    check_list,
    check_own,
    check_uploaded,
    each_once,
    is_named,
    whole_body,
)
from frameenrich.providers.protocol import Shard
from frameenrich.providers.retries import DoubtfulReplyError
from frameenrich.providers.uploaded import (
    TranslatedBatches,
    check_kind,
    no_key,
    not_installed,
)
from frameenrich.text import one_line, scrub

if TYPE_CHECKING:
    from mistralai.client import Mistral

    from frameenrich.providers.live.calls import TranslatedCalls
    from frameenrich.providers.live.route import Route


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


class MistralBatch(TranslatedBatches):
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

        check_kind(client, Mistral, self.name, "a mistralai.client.Mistral client")
        self._client = client
        guard(client)
        super().__init__((errors.MistralError, errors.NoResponseError), attempts, wait_seconds)
        self._timeout_hours = timeout_hours

    def __repr__(self) -> str:
        server = self._client.sdk_configuration.get_server_details()[0]
        return f"MistralBatch({scrub(server)!r})"  # an address may hold a user and a password

    @property
    def _secrets(self) -> tuple[str | None, ...]:
        return (*secrets_of(self._client), os.environ.get("MISTRAL_API_KEY"))

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
                f"completion_window={window!r} is not one that 'mistral' takes.",
                "Use '1h' to '168h', or '1d' to '7d'.",
            )

    # --- the server's calls ----------------------------------------------------------------------

    def _translate(self, line: bytes) -> bytes:
        return request_line(line)

    def _upload(self, shard: Shard, name: str) -> str:
        from mistralai.client.models import File  # noqa: PLC0415 - an extra

        with self._translated(shard) as content:
            made = self._json(
                self._client.files.upload,
                file=File(file_name=name, content=content, content_type="application/jsonl"),
                purpose="batch",
            )
        check_uploaded(made.get("filename"), name)
        return str(made.get("id") or "")

    def _create(self, shard: Shard, file_id: str) -> Json:
        return self._json(
            self._client.batch.jobs.create,
            endpoint=shard.url,
            model=shard.model,
            input_files=[file_id],
            metadata={**shard.metadata, TAG_KEY: shard.tag},
            timeout_hours=_hours(shard.completion_window, self._timeout_hours),
        )

    def _find_file(self, shard: Shard, name: str) -> str | None:
        # A cut upload has the same name and fewer bytes; a reply may also tell no size.
        sizes = {None, self._size(shard)}
        files = self._pages(self._client.files.list, purpose="batch", search=name)
        return next(
            (f["id"] for f in files if f.get("filename") == name and f.get("bytes") in sizes), None
        )

    def _find_batch(self, tag: str, file_id: str | None) -> Json:
        del file_id
        # The SDK writes a filter by metadata as bare parameters, which a server may pass over.
        jobs = self._pages(self._client.batch.jobs.list)
        return next((job for job in jobs if _tag_of(job) == tag), None)

    def _pages(self, call: Callable[..., Any], **options: Any) -> Iterator[Json]:
        """Yield the items of a list, newest first, page by page."""

        def pages() -> Iterator[list[Json]]:
            for page in itertools.count():
                found = self._json(call, page=page, page_size=_PAGE, **options).get("data")
                yield check_list(found, lambda item: is_named(item, "id"))

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

    def _retrieve(self, batch_id: str) -> Json:
        return self._json(self._client.batch.jobs.get, job_id=batch_id)

    def _stop(self, batch_id: str) -> Json:
        return self._json(self._client.batch.jobs.cancel, job_id=batch_id)

    def _download(self, file_id: str) -> Iterator[bytes]:
        size = advisory(lambda: self._json(self._client.files.retrieve, file_id=file_id)["bytes"])
        response = self._client.files.download(file_id=file_id, retries=None)
        try:
            for line in split_lines(whole_body(response, file_id, size)):
                yield response_line(line) + b"\n"
        finally:
            response.close()

    def _delete_file(self, file_id: str) -> object:
        return self._client.files.delete(file_id=file_id, retries=None)

    def _delete_batch(self, batch_id: str) -> object:
        return self._client.batch.jobs.delete(job_id=batch_id, retries=None)

    def live(self) -> TranslatedCalls:
        """Return a provider that sends single calls to the same server."""
        from frameenrich.providers.live.calls import TranslatedCalls  # noqa: PLC0415 - asyncio's

        return TranslatedCalls(self, self._live_route, chat_body, dict)

    def _live_route(self, shard: Shard) -> Route:
        from frameenrich.providers.live.route import Route  # noqa: PLC0415

        made = self._client.sdk_configuration
        security = made.security() if callable(made.security) else made.security
        seconds = made.timeout_ms / 1000 if made.timeout_ms else None
        return Route(
            url=f"{made.get_server_details()[0].rstrip('/')}{shard.url}",
            headers={
                "Authorization": f"Bearer {getattr(security, 'api_key', None)}",
                "Content-Type": "application/json",
                "User-Agent": made.user_agent,
            },
            connect_seconds=None,
            answer_seconds=seconds,
            secrets=self._secrets,
        )

    def _own(self, made: Json, tag: str, batch_id: str | None = None) -> Json:
        check_own(made.get("id"), made.get("status"), batch_id)
        kept = made.get("metadata")
        # A reply without metadata passes; a poll has compared the id above.
        if isinstance(kept, dict) and kept and kept.get(TAG_KEY) != tag:
            raise DoubtfulReplyError("it answered with a batch that does not carry this job's tag")
        return made

    def _heard(self, batch: Batch, made: Json) -> Batch:
        return _heard(batch, made, self._secrets)


# --- what the server says ------------------------------------------------------------------------


def _tag_of(job: Json) -> Json:
    """Return the tag that a job carries; of one whose metadata is none, None."""
    kept = job.get("metadata")
    return kept.get(TAG_KEY) if isinstance(kept, dict) else None


def _listed(value: Json) -> list[Json]:
    """Return a list's items; what is no list has none."""
    return value if isinstance(value, list) else []


def _heard(batch: Batch, made: Mapping[str, Json], secrets: tuple[str | None, ...]) -> Batch:
    """Copy Mistral's job into our batch."""
    status = one_line(str(made.get("status") or batch.status))
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
            for error in _listed(made.get("errors"))
            if isinstance(error, dict)
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
        raise not_installed("mistral") from None
    if client is None and not os.environ.get("MISTRAL_API_KEY"):
        raise no_key("mistral", "MISTRAL_API_KEY")
    return MistralBatch(
        Mistral(api_key=os.environ["MISTRAL_API_KEY"]) if client is None else client
    )
