"""Anthropic's Message Batches: requests inline, results by stream, no name of ours on a batch.

Never paid twice, though a batch carries no metadata: every request goes out under a custom_id that
begins with a mark of the shard (``a1b2c3d4-row-42``). Where the answer to a create was lost, the
batches made since then are listed; one with as many requests that has ended tells by the custom_ids
of its results whether it is ours, one that still runs cannot tell. So the shard is
``unconfirmed``: while a batch that could be it runs, and in any case for ``confirm_seconds``, in
which one that is just being made turns up. It is created again only when each of them has ended
under another mark. A resumed job is looked for so before its first create, too.
docs/providers.md says what this relies on.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

import xxhash

from frameenrich.answers.judge import read_response
from frameenrich.errors import ParameterError, ProviderError, warn_user
from frameenrich.jsonl import request_ids, split_lines
from frameenrich.model import Batch, BatchStatus, Json, Limits, Stage
from frameenrich.providers.anthropic.translate import (
    DEFAULT_MAX_TOKENS,
    live_answer,
    message_params,
    request_line,
    response_line,
)
from frameenrich.providers.credentials import secrets_of
from frameenrich.providers.guard import guard
from frameenrich.providers.once import (
    begin_create,
    check_own,
    confirm,
    cursor_pages,
    each_once,
    find_resumed,
    refuse_torn,
    seen_nothing,
)
from frameenrich.providers.protocol import (
    IncompleteDownloadError,
    NeverMadeError,
    Shard,
    ShardWriter,
)
from frameenrich.providers.retries import (
    Calls,
    DoubtfulReplyError,
    ShortDownloadError,
    UnconfirmedError,
    stainless_errors,
    surely_unmade,
)
from frameenrich.providers.uploaded import chat_only, check_kind, no_key, not_installed

if TYPE_CHECKING:
    import anthropic
    from anthropic.types.messages import MessageBatch

    from frameenrich.providers.live.calls import TranslatedCalls
    from frameenrich.providers.live.route import Route


_PATH = "/v1/messages/batches"


# Eight hex digits and a dash. Anthropic's list shows a time and a count but no name of a batch, so
# each wire custom_id begins with a mark of its shard: hence our custom_ids end at 51 characters.
_MARK_LENGTH = 9


_LONGEST_CUSTOM_ID = 64


# This computer's clock may be wrong; a batch from before the call must not be overlooked.
_CLOCKS_APART_SECONDS = 3600.0


_PIECE_BYTES = 1 << 16


_WORDS = {"canceling": BatchStatus.CANCELLING, "in_progress": BatchStatus.IN_PROGRESS}


class AnthropicBatch:
    """Message Batches through an `anthropic` client.

    Parameters
    ----------
    client : anthropic.Anthropic
        Decides the server, the key and the time-outs.
    attempts : int
        How often a call that failed for a passing reason is made in all.
    wait_seconds : float
        The first wait between attempts; it doubles, with jitter, up to a minute.
    """

    name = "anthropic"
    blocking = False
    prompt_caching = "cache_control"
    takes_samples = False
    limits = Limits(max_requests=100_000, max_bytes=250_000_000)  # of 256 MB: images grow a little

    def __init__(
        self, client: anthropic.Anthropic, *, attempts: int = 6, wait_seconds: float = 0.5
    ) -> None:
        import anthropic  # noqa: PLC0415 - an extra

        check_kind(client, anthropic.Anthropic, self.name, "an anthropic.Anthropic client")
        self._client = client.with_options(max_retries=0)  # the SDK's own would make a batch twice
        guard(self._client)
        self._calls = Calls(
            stainless_errors(anthropic),
            lambda: self._secrets,
            attempts=attempts,
            wait_seconds=wait_seconds,
        )
        self._known: set[str] = set()
        """Batches that belong to some shard: no lost one is among them."""

    def __repr__(self) -> str:
        return f"AnthropicBatch({self._client.base_url.host!r})"

    @property
    def _secrets(self) -> tuple[str | None, ...]:
        return secrets_of(self._client)

    def url(self, endpoint: str) -> str:
        """Return the endpoint; only chat completions are translated."""
        return chat_only(self.name, endpoint)

    def check(self, body: Json) -> None:
        """Refuse a request that cannot be translated; warn where a cap on the answer is added.

        Raises
        ------
        ParameterError
            It has a parameter or message that the Messages API does not take.
        """
        message_params(body)
        if not body.get("max_tokens") and not body.get("max_completion_tokens"):
            warn_user(
                f"params= sets no max_tokens, which Anthropic wants: {DEFAULT_MAX_TOKENS:,} is "
                "sent. Answers that reach it are flagged as truncated."
            )

    # --- sending ---------------------------------------------------------------------------------

    def send(self, shard: Shard, batch: Batch, writer: ShardWriter) -> Batch:
        """Create the batch, or find the one that an earlier try made."""
        made = (
            self._lost(shard, batch, writer) if batch.creating else self._sent(shard, batch, writer)
        )
        if made is None:
            if not shard.may_create:
                raise NeverMadeError(shard.tag)
            with _translated(shard) as content:  # refused before anything is sent
                batch = writer.record(begin_create(batch))
                made = self._create(content, shard, batch, writer)
        self._known.add(made.id)
        return writer.record(_heard(batch, made))

    def _create(
        self, content: IO[bytes], shard: Shard, batch: Batch, writer: ShardWriter
    ) -> MessageBatch:
        from anthropic.types.messages import MessageBatch  # noqa: PLC0415 - an extra

        def create() -> MessageBatch:
            # A retry after a broken connection sends the whole body again.
            content.seek(0)
            # Past the SDK's typed method, which wants all requests in memory as objects.
            return self._client.post(_PATH, content=content, cast_to=MessageBatch)

        try:
            made = self._calls.patiently(
                create, f"create the batch {shard.tag}", again=surely_unmade
            )
        except ProviderError as error:
            if error.unmade:
                # Refused, so nothing was made: the next try needs no search, and does not count.
                writer.record(batch.replace(stage=Stage.INTENT, creates=batch.creates - 1))
            else:
                writer.record(_in_doubt(batch))
                error.try_later = True
            raise
        if not _is_whole(made):  # such as a proxy's page
            writer.record(_in_doubt(batch))
            raise _undecided(shard.tag, "the answer was none of the API's")
        return made

    def _sent(self, shard: Shard, batch: Batch, writer: ShardWriter) -> MessageBatch | None:
        """Look once for the batch that another copy of the store may have made."""
        looked = find_resumed(self._calls, shard, batch, lambda: self._search(shard, batch))
        found, running = looked or (None, [])
        if running:  # from here on it is in doubt, as one whose answer was lost
            writer.record(_in_doubt(batch))
            raise _may_be_it(shard.tag, running)
        return found

    def _lost(self, shard: Shard, batch: Batch, writer: ShardWriter) -> MessageBatch | None:
        """Find the batch of a create whose answer was lost; None where none was made for sure."""
        doing = f"look for the batch {shard.tag}"
        found, running = self._calls.patiently(lambda: self._search(shard, batch), doing)
        if found is not None:
            return found
        # Rejected: to adopt the likeliest batch and verify it at its end. Until then `cancel` could
        # end somebody else's, so a batch is ours only once its custom_ids show our mark.
        if running:
            writer.record(_in_doubt(batch))
            raise _may_be_it(shard.tag, running)
        batch = writer.record(seen_nothing(batch))
        try:
            confirm(shard, batch)
        except UnconfirmedError:
            error = _undecided(shard.tag, "one may just be being made")
            error.unlisted = True
            raise error from None
        return None

    def _search(self, shard: Shard, batch: Batch) -> tuple[MessageBatch | None, list[str]]:
        """Search for our batch; also return the ids of running ones that could be it."""
        running: list[str] = []
        oldest = (batch.asked_at or shard.since) - _CLOCKS_APART_SECONDS
        listed = self._client.messages.batches.list
        pages = cursor_pages(lambda: listed(limit=100), "batches")  # newest first
        for made in each_once(pages, lambda made: made.id):
            if not _is_whole(made):
                raise DoubtfulReplyError("it answered with something that is no list of batches")
            # The list has the newest first, so nothing older can follow.
            if made.created_at.timestamp() < oldest:
                break
            if made.id in self._known or _total(made) != shard.requests or made.archived_at:
                continue
            if made.processing_status != "ended":
                running.append(made.id)
            # Only an ended batch has results, and only its results show custom_ids.
            elif self._first_id(made.id).startswith(_mark(shard.tag)):
                return made, []
        # The store is read only now, as it may hold many jobs.
        taken = shard.others() if running else ()
        return None, [name for name in running if name not in taken]

    def _first_id(self, batch_id: str) -> str:
        """Return the custom_id of some result of a batch."""
        batches = self._client.messages.batches.with_streaming_response
        with batches.results(batch_id) as response:
            for line in split_lines(response.iter_bytes(_PIECE_BYTES)):
                named = read_response(line)
                if named is not None:
                    return named.custom_id
        return ""

    # --- looking and bringing home ---------------------------------------------------------------

    def poll(self, batch: Batch) -> Batch:
        """Return the batch's status and counts as the server has them now."""
        self._known.add(batch.id or "")
        made = self._calls.patiently(
            lambda: _own(self._client.messages.batches.retrieve(batch.id or ""), batch),
            f"look at the batch {batch.id}",
        )
        return _heard(batch, made)

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Stream the results to disk as Batch lines, in whatever order they come."""
        start = sink.tell()
        try:
            self._calls.patiently(
                lambda: self._stream(batch, sink, start), f"download the results of {batch.id}"
            )
        except ProviderError as error:
            if not error.cut:
                raise
            raise IncompleteDownloadError(error.problem, error.fix) from None

    def _stream(self, batch: Batch, sink: IO[bytes], start: int) -> None:
        # A retry starts over, or lines would come twice.
        sink.seek(start)
        sink.truncate()
        mark, lines = _mark(batch.tag), 0

        def own_id(wire_id: str) -> str | None:
            # A line with a foreign mark gets no custom_id, so that it answers no row of ours.
            return wire_id.removeprefix(mark) if str(wire_id).startswith(mark) else None

        batches = self._client.messages.batches.with_streaming_response
        with batches.results(batch.id or "") as response:
            pieces: Iterable[bytes] = response.iter_bytes(_PIECE_BYTES)
            if "content-length" not in response.headers:
                pieces = refuse_torn(pieces, batch.id or "")
            for line in split_lines(pieces):
                sink.write(response_line(line, own_id) + b"\n")
                lines += 1
        if lines < (batch.total or 0):  # each request has a result, whatever became of it
            raise ShortDownloadError(batch.id or "", lines, batch.total or 0, "lines")

    def cancel(self, batch: Batch) -> Batch:
        """Ask for cancellation; what has run stays."""
        made = self._calls.patiently(
            lambda: self._client.messages.batches.cancel(batch.id or ""),
            f"cancel the batch {batch.id}",
        )
        try:
            return _heard(batch, _own(made, batch))
        except DoubtfulReplyError:
            return self.poll(batch)  # asked twice, it would refuse what it has begun

    def delete_files(self, batch: Batch) -> None:
        """Delete the batch and its results; one that is gone already is fine."""
        import anthropic  # noqa: PLC0415 - an extra

        def delete() -> None:
            with contextlib.suppress(anthropic.NotFoundError):
                self._client.messages.batches.delete(batch.id or "")

        self._calls.patiently(delete, f"delete the batch {batch.id}")

    def live(self) -> TranslatedCalls:
        """Return a provider that sends single messages to the same server."""
        import anthropic  # noqa: PLC0415 - an extra

        from frameenrich.providers.live.calls import TranslatedCalls  # noqa: PLC0415 - asyncio's
        from frameenrich.providers.live.route import sdk_route  # noqa: PLC0415

        def route(shard: Shard) -> Route:
            return sdk_route(self._client, "/v1/messages", shard.model, anthropic.AnthropicError)

        return TranslatedCalls(self, route, message_params, live_answer)


# --- marks ---------------------------------------------------------------------------------------


def _mark(tag: str) -> str:
    """Return the prefix of every custom_id of a shard's batch.

    Examples
    --------
    >>> _mark("llmbatch-1f-r0-s0-a0")
    '3da9b1d1-'
    """
    return xxhash.xxh3_64_hexdigest(tag.encode())[: _MARK_LENGTH - 1] + "-"


@contextlib.contextmanager
def _translated(shard: Shard) -> Iterator[IO[bytes]]:
    """Yield the body of the create call, on disk: it may be as large as a batch may be."""
    mark, comma = _mark(shard.tag), b""
    with tempfile.TemporaryFile() as content:
        content.write(b'{"requests":[')
        with shard.open() as lines:
            for custom_id, line in request_ids(lines):
                if len(custom_id) > _LONGEST_CUSTOM_ID - _MARK_LENGTH:
                    raise _too_long(custom_id)
                content.write(comma + request_line(line, mark.__add__))
                comma = b",\n"
        content.write(b"]}")
        yield content


def _too_long(custom_id: str) -> ParameterError:
    most = _LONGEST_CUSTOM_ID - _MARK_LENGTH
    return ParameterError(
        f"The custom_id {custom_id!r} has {len(custom_id)} characters; with our mark, Anthropic "
        f"takes {most}.",
        "Give shorter ones.",
        custom_id=custom_id,
    )


# --- what the server says ------------------------------------------------------------------------


def _undecided(tag: str, why: str) -> ProviderError:
    return ProviderError(
        f"It is not known yet whether the batch {tag} was made: {why}.",
        "Nothing is sent again before that is clear: wait, or call again later.",
        try_later=True,
        passing=True,
    )


def _may_be_it(tag: str, running: list[str]) -> ProviderError:
    return _undecided(tag, f"{', '.join(running)} may be it and tells when it ends")


def _in_doubt(batch: Batch) -> Batch:
    """Mark a batch as in doubt: it may have been made, and no search has yet found nothing."""
    return batch.replace(stage=Stage.CREATING, status=BatchStatus.UNCONFIRMED, unfound_since=None)


def _own(made: Any, batch: Batch) -> MessageBatch:
    """Return the batch of a reply, or raise where it may not be ours."""
    check_own(getattr(made, "id", None), getattr(made, "processing_status", None), batch.id)
    if not _is_whole(made):
        raise DoubtfulReplyError("it answered with something that is no batch")
    found: MessageBatch = made
    return found


_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


def _is_whole(made: Any) -> bool:
    """Tell whether a reply has what every message batch has: the SDK checks no type."""
    members = vars(made) if hasattr(made, "__dict__") else {}
    counts, ended, results = (members.get(n) for n in ("request_counts", "ended_at", "results_url"))
    return (
        all(
            members.get(name) and isinstance(members[name], str)
            for name in ("id", "processing_status")
        )
        and all(type(getattr(counts, name, None)) is int for name in _COUNTS)
        and isinstance(members.get("created_at"), datetime)
        and (ended is None or isinstance(ended, datetime))
        and (results is None or isinstance(results, str))
    )


def _total(made: MessageBatch) -> int:
    return sum(getattr(made.request_counts, name) for name in _COUNTS)


def _heard(batch: Batch, made: MessageBatch) -> Batch:
    """Copy the provider's object into our batch; its results are the output file."""
    counts = made.request_counts
    return batch.replace(
        id=made.id,
        status=_status(made),
        output_file_id=made.results_url,
        total=_total(made),
        completed=counts.succeeded,
        failed=counts.errored + counts.canceled + counts.expired,
        created_at=made.created_at.timestamp(),
        ended_at=made.ended_at.timestamp() if made.ended_at else None,
    )


def _status(made: MessageBatch) -> str:
    if made.processing_status != "ended":
        return _WORDS.get(made.processing_status, str(made.processing_status))
    # Anthropic ends every batch as "ended"; the counts tell how.
    if made.request_counts.canceled:
        return BatchStatus.CANCELLED
    return BatchStatus.EXPIRED if made.request_counts.expired else BatchStatus.COMPLETED


def connect(client: Any = None, model: str | None = None) -> AnthropicBatch:
    """Return the provider with the given client, or one built from the environment as the SDK does.

    Raises
    ------
    ParameterError
        The extra is not installed, or the client is another provider's.
    CredentialsError
        Neither a client nor ``ANTHROPIC_API_KEY``.
    """
    del model
    try:
        import anthropic  # noqa: PLC0415 - an extra
    except ImportError:
        raise not_installed("anthropic") from None
    made = anthropic.Anthropic() if client is None else client
    if client is None and not (made.api_key or made.auth_token or made.credentials):
        raise no_key("anthropic", "ANTHROPIC_API_KEY")
    return AnthropicBatch(made)
