"""What is the same in every provider whose batches are made of uploaded files.

A provider says how its server is called; the order of the paid steps, the searches after a lost
answer and the retries are here and in `frameenrich.providers.once`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import IO, Any

from frameenrich.errors import CredentialsError, ParameterError
from frameenrich.model import Batch, Limits
from frameenrich.providers.once import (
    create_once,
    delete_each,
    fetch_files,
    file_ids,
    find_resumed,
    upload_once,
)
from frameenrich.providers.protocol import Shard, ShardWriter
from frameenrich.providers.retries import Calls, DoubtfulReplyError, SdkErrors

CHAT = "/v1/chat/completions"


@contextlib.contextmanager
def translating_for(product: str) -> Iterator[None]:
    """Make an error of what a request holds in a form that a translation does not expect."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise ParameterError(
            "A request holds a message or parameter of a form that cannot be translated for "
            f"{product} ({type(error).__name__}: {error}).",
            "Give messages of texts and images.",
        ) from None


class UploadedBatches(ABC):
    """The verbs of a provider, made of its server's calls.

    A subclass has ``name`` and ``limits``, sets ``_calls`` and implements the calls below. `Any` is
    the provider's own object of a batch.
    """

    name: str
    blocking = False
    limits: Limits
    _calls: Calls

    # --- the server's calls ----------------------------------------------------------------------

    @abstractmethod
    def _upload(self, shard: Shard, name: str) -> str:
        """Upload the shard's file under a name, and return its id."""

    @abstractmethod
    def _find_file(self, shard: Shard, name: str) -> str | None:
        """Return the file that was uploaded under a name; one that was cut on its way is none."""

    @abstractmethod
    def _create(self, shard: Shard, file_id: str) -> Any:
        """Create the batch of an uploaded file."""

    @abstractmethod
    def _find_batch(self, tag: str, file_id: str | None) -> Any:
        """Return the batch that was made for a shard, if one was; raise without a whole list."""

    @abstractmethod
    def _retrieve(self, batch_id: str) -> Any:
        """Return a batch as it is now."""

    @abstractmethod
    def _stop(self, batch_id: str) -> Any:
        """Ask for a batch's end, and return what the server says of it."""

    @abstractmethod
    def _download(self, file_id: str) -> Iterable[bytes]:
        """Yield a file of results from its start, as Batch lines."""

    @abstractmethod
    def _delete_file(self, file_id: str) -> object:
        """Delete a file."""

    @abstractmethod
    def _own(self, made: Any, tag: str, batch_id: str | None = None) -> Any:
        """Return the batch of a reply, or raise `DoubtfulReplyError` where it may not be ours."""

    @abstractmethod
    def _heard(self, batch: Batch, made: Any) -> Batch:
        """Copy the provider's object into our batch."""

    def _await_file(self, file_id: str) -> None:  # noqa: B027 - Azure alone has something to await
        """Raise `NotYetError` while no batch can be made of an uploaded file."""

    # --- the verbs -------------------------------------------------------------------------------

    def send(self, shard: Shard, batch: Batch, writer: ShardWriter) -> Batch:
        """Upload the file and create the batch, or find them where an earlier try got so far."""
        # Before the upload: a server without tags knows a batch only by its input file.
        known = batch.input_file_id
        made = find_resumed(self._calls, shard, batch, lambda: self._find_batch(shard.tag, known))
        if made is not None:
            return writer.record(self._heard(batch, made))
        # Two steps that each write down their intent: a kill between them must not upload or create
        # twice.
        batch = upload_once(
            self._calls,
            shard,
            batch,
            writer,
            find=lambda name: self._find_file(shard, name),
            upload=lambda name: self._upload(shard, name),
        )
        file_id = batch.input_file_id or ""
        batch, made = create_once(
            self._calls,
            shard,
            batch,
            writer,
            find=lambda: self._find_batch(shard.tag, file_id),
            create=lambda: self._own(self._create(shard, file_id), shard.tag),
            # Here and not after the upload: a resumed job may come to the create directly.
            before=lambda: self._await_file(file_id),
        )
        return writer.record(self._heard(batch, made))

    def poll(self, batch: Batch) -> Batch:
        """Return the batch's status, counts and file ids as the server has them now."""
        made = self._calls.patiently(
            lambda: self._own(self._retrieve(batch.id or ""), batch.tag, batch.id),
            f"look at the batch {batch.id}",
        )
        return self._heard(batch, made)

    def fetch(self, batch: Batch, sink: IO[bytes]) -> None:
        """Download output file and error file; either may be missing, ``""`` or empty."""
        fetch_files(self._calls, batch, sink, self._download)

    def cancel(self, batch: Batch) -> Batch:
        """Ask for cancellation; what has run stays."""
        made = self._calls.patiently(
            lambda: self._stop(batch.id or ""), f"cancel the batch {batch.id}"
        )
        try:
            return self._heard(batch, self._own(made, batch.tag, batch.id))
        except DoubtfulReplyError:
            return self.poll(batch)  # asked twice, it would refuse what it has begun

    def delete_files(self, batch: Batch) -> None:
        """Delete what the provider keeps of a batch; what is gone already is fine."""
        delete_each(self._calls, "file", self._deletable(batch), self._delete_file)

    def _deletable(self, batch: Batch) -> Iterator[str]:
        return file_ids(batch)


class TranslatedBatches(UploadedBatches):
    """Chat completions, translated to another API's words when they are uploaded.

    Parameters
    ----------
    errors : tuple of type
        What the SDK raises, as `SdkErrors` takes them.
    attempts, wait_seconds
        As `Calls` takes them.
    """

    def __init__(
        self, errors: tuple[type[Exception], ...], attempts: int, wait_seconds: float
    ) -> None:
        self._calls = Calls(
            SdkErrors(all=errors, broken=errors),
            # Read at each error: a client may get another key while the job runs.
            lambda: self._secrets,
            attempts=attempts,
            wait_seconds=wait_seconds,
        )

    @property
    @abstractmethod
    def _secrets(self) -> tuple[str | None, ...]:
        """The keys that no error may quote."""

    @abstractmethod
    def _translate(self, line: bytes) -> bytes:
        """Return a request line of ours in the server's words."""

    @abstractmethod
    def _delete_batch(self, batch_id: str) -> object:
        """Delete a batch that has ended."""

    def url(self, endpoint: str) -> str:
        """Return the endpoint; only chat completions are translated."""
        return chat_only(self.name, endpoint)

    def delete_files(self, batch: Batch) -> None:
        """Delete the files, then the batch; what is gone already is fine."""
        super().delete_files(batch)
        delete_each(self._calls, "batch", filter(None, [batch.id]), self._delete_batch)

    @contextlib.contextmanager
    def _translated(self, shard: Shard) -> Iterator[IO[bytes]]:
        """Yield a shard's requests in the server's words, on disk.

        Translated on the way out: the job's folder keeps requests in the Batch API's format.
        """
        with tempfile.TemporaryFile() as content:
            with shard.open() as lines:
                content.writelines(map(self._translate, lines))
            content.seek(0)
            yield content

    def _size(self, shard: Shard) -> int:
        """Return the bytes that the server should have of a shard; a cut upload has fewer."""
        # Translated once more and not kept: a shard may have a gigabyte.
        with self._translated(shard) as content:
            return content.seek(0, os.SEEK_END)


def chat_only(name: str, endpoint: str) -> str:
    """Return the one endpoint that a translating provider answers.

    Raises
    ------
    ParameterError
        It is another one.
    """
    if endpoint != CHAT:
        raise ParameterError(
            f"The provider {name!r} does not answer {endpoint}.",
            f"Use endpoint={CHAT!r}, which is translated.",
        )
    return endpoint


def check_kind(client: Any, kind: type, name: str, wanted: str) -> None:
    """Refuse a client of another SDK.

    Raises
    ------
    ParameterError
        It is one.
    """
    if not isinstance(client, kind):
        raise ParameterError(
            f"client= is a {type(client).__name__}, and {name!r} wants its own kind.",
            f"Pass {wanted}.",
        )


def not_installed(name: str) -> ParameterError:
    """Return the error for a provider whose extra is missing."""
    return ParameterError(
        f"The provider {name!r} is not installed.", f"Run: pip install 'frameenrich[{name}]'."
    )


def no_key(name: str, variable: str) -> CredentialsError:
    """Return the error for a provider without a client and without a key."""
    return CredentialsError(
        f"There is no API key for the provider {name!r}.",
        f"Set {variable} or pass client=; provider='local' needs none.",
    )
