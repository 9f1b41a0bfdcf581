"""Paid steps made once, for every provider whose batches are made of uploaded files.

Each step is on disk before it is made. Found so by a later process, or after a fault that leaves
open whether it was made, the provider is searched for our tag first.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Protocol, TypeVar

from frameenrich.errors import ProviderError
from frameenrich.model import Batch, BatchStatus, Json, Stage, begun_at
from frameenrich.providers.protocol import (
    IncompleteDownloadError,
    NeverMadeError,
    Shard,
    ShardWriter,
    seconds_to_retry,
)
from frameenrich.providers.retries import (
    Calls,
    DoubtfulReplyError,
    ShortDownloadError,
    TornDownloadError,
    UnconfirmedError,
    status_of,
    surely_unmade,
)
from frameenrich.text import one_line

T = TypeVar("T")


_decoder = json.JSONDecoder()


TAG_KEY = "frameenrich_tag"
"""The metadata key of a batch that holds its shard's tag."""


PIECE_BYTES = 1 << 16
"""Bytes of a download that are held in memory at once."""


_NO_ROUTE = {404, 405, 501}
"""Statuses of a server without such a list: not there, not for GET, not implemented."""


_MOST_PAGES = 10_000
"""Pages of a list that are read; one has up to a hundred items."""


_PAGES_SECONDS = 10.0
"""How long beyond the caller's time a list that is being read may take to its end."""


_MOST_CREATES = 3
"""Most creates of one shard without an answer that says whether a batch was made."""


def find_resumed(
    calls: Calls, shard: Shard, batch: Batch, find: Callable[[], T | None]
) -> T | None:
    """Look once for the batch of a shard that another process may have sent.

    A store that was copied, or restored from before the create, says "not sent" of a batch that
    is there. The search is a precaution: a server without a list, or one that denies access
    to it, is no reason not to send.
    """
    # A create in doubt is looked for by `create_once`, which must not skip a failed search.
    if batch.creating or not shard.resumed:
        return None
    try:
        return calls.patiently(find, f"look for the batch {shard.tag}")
    except ProviderError as error:
        status = error.status_code or 0
        refused = 400 <= status < 500 and not error.passing  # noqa: PLR2004 - HTTP's own
        if refused or status in _NO_ROUTE:
            return None
        raise


def upload_once(
    calls: Calls,
    shard: Shard,
    batch: Batch,
    writer: ShardWriter,
    *,
    find: Callable[[str], str | None],
    upload: Callable[[str], str],
) -> Batch:
    """Upload a shard's file under its tag, or find it where an earlier try got so far.

    `find` and `upload` take the file's name and give its id. An upload costs nothing, so where
    the files cannot be listed it is simply made again.
    """
    if batch.input_file_id:
        return batch
    # The stage is on disk before the call: found so, an earlier process may have uploaded the file.
    in_doubt, name = batch.stage is Stage.UPLOADING, f"{shard.tag}.jsonl"
    batch = writer.record(batch.replace(stage=Stage.UPLOADING))

    def attempt() -> str:
        nonlocal in_doubt
        # The first try of a new upload is not searched for: one list call less.
        found = _found_or_none(lambda: find(name)) if in_doubt else None
        # Before the call, so that a try whose answer was lost is searched for by the next one.
        in_doubt = True
        file_id = found or upload(name)
        if not (file_id and isinstance(file_id, str)):
            raise DoubtfulReplyError("it answered with something that is no file")
        return file_id

    file_id = calls.patiently(attempt, f"upload {name}")
    return writer.record(batch.replace(input_file_id=file_id, stage=Stage.UPLOADED))


def _found_or_none(find: Callable[[], str | None]) -> str | None:
    """Look for a file; None too where the server has no such route."""
    try:
        return find()
    except Exception as error:
        if status_of(error) not in _NO_ROUTE:
            raise
        return None


def create_once(
    calls: Calls,
    shard: Shard,
    batch: Batch,
    writer: ShardWriter,
    *,
    find: Callable[[], Any],
    create: Callable[[], Any],
    before: Callable[[], None] = lambda: None,
) -> tuple[Batch, Any]:
    """Create a batch of the uploaded file, or find it; return our record and the provider's object.

    `find` gives None where there is none, and raises where it cannot read the whole list; `before`
    may raise what says that it is too early. A create whose answer was lost is made again only
    after ``confirm_seconds`` in which every search found nothing: lists show a batch late.
    """
    # Intent first: the stage is on disk before the paid call, and after any doubt the provider is
    # searched for the tag. The SDK's own retries are off, since they would make a batch twice.
    in_doubt, made_here, answer_lost = batch.creating, False, False

    def attempt() -> Any:
        nonlocal batch, in_doubt, made_here, answer_lost
        answer_lost = False
        if in_doubt:
            if (found := _find_made(find, shard)) is not None:
                return found
            batch = writer.record(seen_nothing(batch))
            confirm(shard, batch)
        before()
        # After the search: a batch that may not be made may still be found.
        if not shard.may_create:
            raise NeverMadeError(shard.tag)
        batch = writer.record(begin_create(batch))
        # Before the call, since whatever it raises may come after the batch was made.
        in_doubt = made_here = True
        try:
            return create()
        except Exception as error:
            # Only a refusal, or a connection never made, proves that no batch exists.
            answer_lost = not surely_unmade(error)
            if not answer_lost:
                in_doubt = False
                batch = writer.record(
                    batch.replace(stage=Stage.UPLOADED, creates=max(batch.creates - 1, 0))
                )
            raise

    try:
        made = calls.patiently(
            attempt,
            f"create the batch {shard.tag}",
            # One that an earlier call left in doubt is looked for again by the next step.
            again=lambda error: made_here or not isinstance(error, UnconfirmedError),
        )
    except ProviderError as error:
        if error.lost_file:  # it went away since: upload it anew next time
            writer.record(batch.replace(input_file_id=None, stage=Stage.INTENT))
        elif answer_lost:  # the next step looks for it
            error.try_later = True
        raise
    return batch, made


def _find_made(find: Callable[[], T], shard: Shard) -> T:
    try:
        return find()
    except Exception as error:
        # A paid batch must not be made on a guess, unlike a file: without a list the user decides.
        if status_of(error) not in _NO_ROUTE:
            raise
        raise ProviderError(
            f"Nobody can tell whether the batch {shard.tag} was made: the server has no list of "
            "batches.",
            f"Nothing is sent again automatically. {_USERS_WORD}",
            one_shard=True,
            unlisted=True,
        ) from None


_USERS_WORD = (
    "Look at the provider's own page: job.give_up() counts the batch as lost, and regenerate() "
    "asks its rows again."
)


def begin_create(batch: Batch) -> Batch:
    """Return the record that has to be on disk before the create call."""
    return batch.replace(
        stage=Stage.CREATING,
        status=BatchStatus.PLANNED,
        creates=batch.creates + 1,
        asked_at=time.time(),
        unfound_since=None,
        retry_at=None,
    )


def seen_nothing(batch: Batch) -> Batch:
    """Mark a batch in doubt as not found, with the time of the first such search."""
    return batch.replace(
        stage=Stage.CREATING,
        status=BatchStatus.UNCONFIRMED,
        unfound_since=begun_at(batch.unfound_since),
    )


def confirm(shard: Shard, batch: Batch, why: str = "no list shows it yet") -> None:
    """Check that searches found nothing for long enough, so that a batch may be created again.

    Raises
    ------
    UnconfirmedError
        It is too early to say.
    ProviderError
        It was sent as often as it may be without an answer.
    """
    if time.time() - (batch.unfound_since or time.time()) < shard.confirm_seconds:
        raise UnconfirmedError(f"whether it was made is not known yet, {why}")
    if batch.creates >= _MOST_CREATES and shard.may_create:
        raise ProviderError(
            f"The batch {shard.tag} was sent {batch.creates} times, and the server has confirmed "
            "none of them.",
            f"It is not sent again automatically. {_USERS_WORD}",
            one_shard=True,
            unlisted=True,
        )


_OF_A_SHARD = re.compile(r"-r\d+-s\d+-a\d+(\.jsonl)?$")


def check_uploaded(shown: object, name: str) -> None:
    """Refuse an upload's reply that shows the file of another shard; a server's own name passes.

    A batch made of that file would run its requests again, under this shard's name.

    Raises
    ------
    DoubtfulReplyError
        It is another shard's.
    """
    if isinstance(shown, str) and shown != name and _OF_A_SHARD.search(shown):
        raise DoubtfulReplyError(f"it answered with another file, {one_line(shown)}")


def check_own(own_id: object, status: object, wanted: str | None) -> None:
    """Refuse a reply that describes no batch, or another one than `wanted`.

    A cache or a gateway may answer 200 with another batch, or with none: taken for a fact, that
    would send the shard again or give its rows another job's answers.

    Raises
    ------
    DoubtfulReplyError
        The reply cannot be about our batch.
    """
    # A create may answer without a status; a poll of a known batch always has one.
    if not (own_id and isinstance(own_id, str)) or (wanted is not None and not status):
        raise DoubtfulReplyError("it answered with something that is no batch")
    if wanted not in {None, own_id}:
        raise DoubtfulReplyError(f"it answered with another batch, {one_line(own_id)}")


def each_once(pages: Iterable[list[T]], name: Callable[[T], Any]) -> Iterator[T]:
    """Yield the items of a list's pages, each once, up to a page that brings nothing new.

    Pages overlap where something was made meanwhile, and some servers page in circles.

    Raises
    ------
    DoubtfulReplyError
        There is always another page, or the caller's time was up long ago.
    """
    seen = set()
    for number, page in enumerate(pages):
        # What is on pages that were not read is not known, so this is no end of the list.
        if number >= _MOST_PAGES or seconds_to_retry() < -_PAGES_SECONDS:
            raise DoubtfulReplyError(f"its list has no end, after {number:,} pages")
        new = [item for item in page if name(item) not in seen]
        # A server that pages in circles would never end; a page of known items ends the list.
        if not new:
            return
        for item in new:
            seen.add(name(item))
            yield item


def check_list(items: Any, is_item: Callable[[Any], bool], what: str = "batches") -> list[Any]:
    """Return a page of a list; what is no list proves nothing of what is not in it.

    Raises
    ------
    DoubtfulReplyError
        It has another shape.
    """
    if not isinstance(items, list) or not all(map(is_item, items)):
        raise DoubtfulReplyError(f"it answered with something that is no list of {what}")
    return items


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def is_named(item: Json, name: str) -> bool:
    """Tell whether an item of a list has a name of its own, as text."""
    return isinstance(item, dict) and _is_text(item.get(name))


def cursor_pages(first: Callable[[], Any], what: str) -> Iterator[list[Any]]:
    """Yield the pages of an official client's list up to its end; what is no list proves nothing.

    Raises
    ------
    DoubtfulReplyError
        A page has another shape.
    """
    turn = first
    while True:
        try:
            page = turn()
        except (AttributeError, TypeError):  # what the clients make of a bare list, or of null
            page = None
        items = getattr(page, "data", None)
        yield check_list(items, lambda item: _is_text(getattr(item, "id", None)), what)
        if not page.has_next_page():
            return
        turn = page.get_next_page


def refuse_torn(pieces: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Yield the pieces of a file of JSON lines; where they end within a line, raise after them.

    For a file whose size nobody stated: a gateway that gives up may end such a reply as if it were
    whole; the broken line would count as one, and its row as one that got no answer.

    Raises
    ------
    TornDownloadError
        The last line has no end, and its JSON has none.
    """
    rest: list[bytes] = []
    for piece in pieces:
        if (end := piece.rfind(b"\n")) >= 0:
            rest.clear()
        rest.append(piece[end + 1 :])
        yield piece
    try:
        # What follows a whole value was not cut off, whatever it is: a NUL, another line end.
        _decoder.raw_decode(b"".join(rest).strip().decode("utf-8-sig") or "0")
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise TornDownloadError(name) from None
    except (RecursionError, ValueError):  # deeper, or a longer number, than Python reads
        return


class Download(Protocol):
    """A response whose body has yet to be read."""

    @property
    def headers(self) -> Any:
        """Its headers, by name."""

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Yield its body, as the server meant it."""


def whole_body(response: Download, file_id: str, size: int | None = None) -> Iterator[bytes]:
    """Yield a download's pieces; `size` is what the provider says of the file elsewhere.

    Raises
    ------
    ShortDownloadError
        Fewer bytes came than were declared.
    """
    received, size = 0, size if isinstance(size, int) else None  # a server's word, of any type
    declared = response.headers.get("content-length")
    pieces: Iterable[bytes] = response.iter_bytes(PIECE_BYTES)
    # Where a size proves that every byte came, another download would end the same way.
    if declared is None and not size:
        pieces = refuse_torn(pieces, file_id)
    for piece in pieces:
        received += len(piece)
        yield piece
    # The header counts compressed bytes, so it says nothing of what was decompressed.
    if declared is not None and not response.headers.get("content-encoding"):
        size = max(int(declared), size or 0)
    if size is not None and received < size:
        raise ShortDownloadError(file_id, received, size)


def fetch_files(
    calls: Calls, batch: Batch, sink: IO[bytes], download: Callable[[str], Iterable[bytes]]
) -> None:
    """Write a batch's output file and error file; either may be missing, ``""`` or empty.

    `download` yields a file's bytes from its start, however often it is called.

    Raises
    ------
    IncompleteDownloadError
        A file is gone or shorter than the provider says; what there is of both was written.
    """
    incomplete = None
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        start = sink.tell()

        def attempt(file_id: str = file_id, start: int = start) -> None:
            # A retry starts over: what a broken download left goes, or lines would come twice.
            sink.seek(start)
            sink.truncate()
            last = b"\n"
            for piece in download(file_id):
                sink.write(piece)
                last = piece or last
            # The next file's first line must not be glued to this one's last.
            if not last.endswith(b"\n"):
                sink.write(b"\n")

        try:
            calls.patiently(attempt, f"download the file {file_id}")
        except ProviderError as error:
            # A lost file is no reason to leave the other one: its answers were paid for.
            if error.status_code != 404 and not error.cut:  # noqa: PLR2004 - HTTP's own
                raise
            sink.write(b"\n")  # after whatever came of it
            incomplete = incomplete or error
    if incomplete is not None:
        raise IncompleteDownloadError(incomplete.problem, incomplete.fix)


def advisory(call: Callable[[], T]) -> T | None:
    """Return what a call gives that is useful but not needed; None where it fails."""
    try:
        return call()
    except Exception:  # noqa: BLE001 - whatever a gateway does here, the call itself will tell
        return None


def delete_each(calls: Calls, what: str, ids: Iterable[str], delete: Callable[[str], Any]) -> None:
    """Delete what a provider keeps under some ids; one that is gone already is fine."""
    for one in ids:

        def attempt(one: str = one) -> None:
            try:
                delete(one)
            except Exception as error:
                if status_of(error) != 404:  # noqa: PLR2004 - HTTP's own number
                    raise

        calls.patiently(attempt, f"delete the {what} {one}")


def file_ids(batch: Batch) -> Iterator[str]:
    """Yield the ids of all files that a batch and its earlier attempts left at the provider."""
    kept = (batch.input_file_id, batch.output_file_id, batch.error_file_id)
    return filter(None, (*kept, *batch.spent_file_ids))
