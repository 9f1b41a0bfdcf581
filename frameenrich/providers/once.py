"""Paid steps made once, for every provider whose batches are made of uploaded files.

Each step is on disk before it is made. Found so by a later process, or after a fault that leaves
open whether it was made, the provider is searched for our tag first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Protocol, TypeVar

from frameenrich.errors import ProviderError
from frameenrich.model import Batch, Stage
from frameenrich.providers.protocol import Shard, ShardWriter
from frameenrich.providers.retries import (
    Calls,
    DoubtfulReplyError,
    ShortDownloadError,
    status_of,
    surely_unmade,
)

T = TypeVar("T")


TAG_KEY = "frameenrich_tag"
"""Under which metadata of a batch its shard's tag stands."""


PIECE_BYTES = 1 << 16
"""How much of a download is held at once."""


def upload_once(
    calls: Calls,
    shard: Shard,
    batch: Batch,
    desk: ShardWriter,
    *,
    find: Callable[[str], str | None],
    upload: Callable[[str], str],
) -> Batch:
    """Upload a shard's file under its tag, or find it where an earlier try got so far.

    `find` and `upload` take the file's name and give its id.
    """
    if batch.input_file_id:
        return batch
    in_doubt, name = batch.stage is Stage.UPLOADING, f"{shard.tag}.jsonl"
    batch = desk.record(batch.replace(stage=Stage.UPLOADING))

    def attempt() -> str:
        nonlocal in_doubt
        found = find(name) if in_doubt else None
        in_doubt = True
        return found or upload(name)

    file_id = calls.patiently(attempt, f"upload {name}")
    return desk.record(batch.replace(input_file_id=file_id, stage=Stage.UPLOADED))


def create_once(
    calls: Calls,
    shard: Shard,
    batch: Batch,
    desk: ShardWriter,
    *,
    find: Callable[[], Any],
    create: Callable[[], Any],
    before: Callable[[], None] = lambda: None,
) -> tuple[Batch, Any]:
    """Make a batch of the uploaded file, or find it: our record of it, and the provider's object.

    `find` gives None where there is none; `before` may raise what says that it is too early.
    """
    in_doubt, doubtful = batch.creating, False
    batch = desk.record(batch.replace(stage=Stage.CREATING))

    def attempt() -> Any:
        nonlocal in_doubt, doubtful
        found = find() if in_doubt else None
        if found is not None:
            return found
        if doubtful:  # a success, whatever its body: sent again, it would most likely run twice
            raise DoubtfulReplyError("what it answered is no batch, and no list shows one yet")
        before()
        before_call, in_doubt = in_doubt, True
        try:
            return create()
        except DoubtfulReplyError:
            doubtful = True
            raise
        except Exception as error:
            in_doubt = before_call or not surely_unmade(error)
            raise

    try:
        made = calls.patiently(attempt, f"create the batch {shard.tag}")
    except ProviderError as error:
        if getattr(error, "lost_file", False):  # it went away since: upload it anew next time
            desk.record(batch.replace(input_file_id=None, stage=Stage.INTENT))
        elif not in_doubt:  # refused, as by a full queue: whoever looks next knows there is none
            desk.record(batch.replace(stage=Stage.UPLOADED))
        raise
    return batch, made


def once_each(items: Iterable[T], name: Callable[[T], Any]) -> Iterator[T]:
    """Yield a list's items up to the first that comes again: some servers page in circles."""
    seen = set()
    for item in items:
        if (own := name(item)) in seen:
            return
        seen.add(own)
        yield item


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
    received = 0
    for piece in response.iter_bytes(PIECE_BYTES):
        received += len(piece)
        yield piece
    declared = response.headers.get("content-length")
    if declared is not None and not response.headers.get("content-encoding"):
        size = max(int(declared), size or 0)
    if size is not None and received < size:
        raise ShortDownloadError(file_id, received, size)


def fetch_files(
    calls: Calls, batch: Batch, sink: IO[bytes], download: Callable[[str], Iterable[bytes]]
) -> None:
    """Write a batch's output file and error file; either may be missing, ``""`` or empty.

    `download` yields a file's bytes from its start, however often it is called.
    """
    for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
        start = sink.tell()

        def attempt(file_id: str = file_id, start: int = start) -> None:
            sink.seek(start)
            sink.truncate()
            last = b"\n"
            for piece in download(file_id):
                sink.write(piece)
                last = piece or last
            if not last.endswith(b"\n"):
                sink.write(b"\n")

        calls.patiently(attempt, f"download the file {file_id}")


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
