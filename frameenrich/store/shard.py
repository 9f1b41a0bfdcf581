"""Read and write the files of one shard: its requests, its batch.json, its responses."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, NamedTuple

import pyarrow as pa

from frameenrich.errors import ProviderError
from frameenrich.jsonl import request_ids
from frameenrich.model import Batch, Proof
from frameenrich.store.local import READ_BYTES, unreadable
from frameenrich.store.proof import Checked, damaged, prove
from frameenrich.text import one_line

if TYPE_CHECKING:
    from frameenrich.store.folder import JobFolder, JobPath

_TAG = re.compile(r"(.+-r\d+-s\d{5,})-a\d+")


_log = logging.getLogger(__name__)


# What reading a damaged file can raise, from Arrow, JSON or what is made of them.
DAMAGE = (
    OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, pa.ArrowException,
)  # fmt: skip


def model_of(shard: ShardFolder) -> str:
    """Return the model that a shard's requests are for; the job's own where it can be no other."""
    # A round may go to another model, but a file holds one: its first line tells which.
    if shard.round or len(shard.job.spec.models) > 1:
        with shard.open_requests() as lines:
            for line in lines:
                return str(json.loads(line)["body"]["model"])
    return shard.job.spec.model


def ids_of(shard: ShardFolder) -> list[str]:
    """Return the custom_ids of a shard's requests, in order."""
    with shard.open_requests() as lines:
        return [custom_id for custom_id, _ in request_ids(lines)]


def shard_name(number: int) -> str:
    """Return the stem of a shard's files."""
    return f"shard-{number:05d}"


class KnownBatch(NamedTuple):
    """A batch, and the version of the file that it was read from."""

    version: str
    batch: Batch


@dataclass(frozen=True)
class ShardPath:
    """Where a shard's three files lie, and how they are read and written."""

    job: JobPath
    round: int
    number: int

    def __str__(self) -> str:
        return f"job {self.job.id}, round {self.round}, shard {self.number}"

    def _path(self, what: str) -> str:
        return f"{self.job.round_path(self.round)}/{shard_name(self.number)}.{what}"

    @property
    def requests_path(self) -> str:
        """The path of the file that was, or will be, uploaded as it is."""
        return self._path("requests.jsonl")

    @property
    def responses_path(self) -> str:
        """The path of the output and error lines, kept as they came."""
        return self._path("responses.jsonl")

    @property
    def batch_path(self) -> str:
        """The path of the provider's last word; the only file of a job that changes."""
        return self._path("batch.json")

    @property
    def kept_path(self) -> str:
        """The path of what the responses were read as (`lifecycle.read_cache`)."""
        return self._path("read")

    @property
    def known(self) -> KnownBatch | None:
        """The batch as a file of some version has it; None after it was saved anew."""
        found: KnownBatch | None = vars(self).get("_known")
        return found

    def read_batch(self, version: str | None, known: KnownBatch | None) -> None:
        """Read the batch, unless it is known and its file is still of that version."""
        if known is not None and known.version == version:
            # The file is not read, so the lease has to learn here which version this process knows.
            self.job.store.expect(self.batch_path, known.version)
            vars(self)["batch"] = known.batch
        if version is not None:
            vars(self)["_known"] = KnownBatch(version, self.batch)
        else:
            # Read now: a file system without versions could not tell later whether it changed.
            _ = self.batch

    @cached_property
    def batch(self) -> Batch:
        """The provider's last word, or the intent where there is none yet.

        It is read once: who may have been overtaken by another process takes the job's lock and
        lists its shards anew.
        """
        try:
            batch = Batch.from_json(self.job.store.read(self.batch_path))
            # Whole, and another shard's: that one's answers would be looked for, and this one's
            # requests asked again.
            own = f"{self.job.id}-r{self.round}-s{self.number:05d}"
            # Another project's provider may have tags of its own.
            if (found := _TAG.fullmatch(batch.tag)) and found[1] != own:
                raise ValueError(f"it is of another batch, {batch.tag}")
            return batch
        except DAMAGE as error:
            raise unreadable(self.batch_path, error) from error

    def save(self, batch: Batch) -> None:
        """Write ``batch.json``, the only file of a job that changes, where it changed."""
        before = vars(self).pop("batch", None)  # after a write that failed, nobody knows
        if batch != before:
            text = batch.to_json()
            try:
                Batch.from_json(text)
            # A server's words may be of any type: written, they would make the job unreadable.
            except DAMAGE as error:
                raise ProviderError(
                    f"What the provider says of the batch {batch.tag} cannot be kept: {error}.",
                    "Nothing is lost, and nothing is sent again: call again later.",
                ) from None
            vars(self).pop("_known", None)
            self.job.store.replace(self.batch_path, text.encode())
            # Counts change at every poll: who reads a log wants to know of states.
            if before is None or _state(batch) != _state(before):
                _log.info("%s: %s", self, _state(batch))
        vars(self)["batch"] = batch

    @contextlib.contextmanager
    def open_requests(self) -> Iterator[IO[bytes]]:
        """Open the request lines, as a binary file.

        Raises
        ------
        StoreError
            It is damaged; also for what the caller makes of its lines.
        """
        with self.job.store.open(self.requests_path) as file:
            try:
                yield file
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise unreadable(self.requests_path, error) from error

    @property
    def request_count(self) -> int:
        """Return how many requests the shard has."""
        if (known := self.batch.requests) is not None:
            return known
        with self.open_requests() as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(READ_BYTES), b""))

    @property
    def request_bytes(self) -> int:
        """Size of the requests file."""
        self.job.store.check_own(self.requests_path)
        return int(self.job.store.fs.size(self.requests_path))

    @property
    def response_bytes(self) -> int:
        """Size of the responses file; 0 where none has come."""
        return self.job.store.size_of_pieces(self.responses_path)

    def check_responses(self) -> None:
        """Compare the responses files with what was written, by SHA-256.

        Raises
        ------
        DamagedFileError
            One is not as it was written.
        """
        for path, proof in self.response_files():
            if proof is not None and prove(self.job.store.open_pieces(path)) != proof:
                raise damaged(path, "its bytes are not those that were written")

    def response_files(self) -> list[tuple[str, Proof | None]]:
        """List the files of the responses with their proofs; what was imported comes first."""
        imports = [(self.import_path(own.id), own.proof) for own in self.batch.imports]
        return [*imports, (self.responses_path, self.batch.responses)]

    def check_fetched(self) -> None:
        """Refuse a shard whose fetched responses file is gone.

        Raises
        ------
        DamagedFileError
            The provider's files were fetched, and the responses file is gone.
        """
        batch = self.batch
        # Without a file id the provider had nothing to fetch, and no file is lost.
        fetched = batch.settled and (batch.output_file_id or batch.error_file_id)
        if fetched and not self.job.store.exists(self.responses_path):
            raise damaged(self.responses_path, "it is not there")

    def open_responses(self) -> Iterator[IO[bytes]]:
        """Yield the files of the responses, each open while it is read; none where none has come.

        What was imported comes first. A file that is read to its end is checked.

        Raises
        ------
        DamagedFileError
            A file is not as it was written.
        """
        for path, proof in self.response_files():
            checked = None if proof is None else Checked(path, proof)
            for file in self.job.store.open_pieces(path):
                yield file if checked is None else checked.piece(file)
            # Reached only by a reader that took all pieces; one that stops early has nothing to
            # compare.
            if checked is not None:
                checked.check()

    def read_responses(self) -> Iterator[bytes]:
        """Read the responses file in pieces; nothing where none has come."""
        for file in self.open_responses():
            while data := file.read(READ_BYTES):
                yield data

    def import_path(self, import_id: str) -> str:
        """Return the path of an import's lines."""
        return self._path(f"import-{import_id}.jsonl")

    @contextlib.contextmanager
    def write_responses(self) -> Iterator[IO[bytes]]:
        """Open a new responses file that appears when it is complete."""
        with self.job.store.write_whole(self.responses_path) as file:
            yield file

    def write_import(self, import_id: str, lines: Iterable[bytes]) -> Proof:
        """Write the lines of an import and return the file's proof."""
        with self.job.store.write_whole(self.import_path(import_id)) as file:
            # Each line gets one end, whatever the imported file had, as readers look for those.
            file.writelines(line.rstrip(b"\n") + b"\n" for line in lines)
            file.seek(0)
            return prove([file])

    def prove_responses(self) -> Proof:
        """Return the proof of the responses file as it is."""
        return prove(self.job.store.open_pieces(self.responses_path))

    def open_appending(self) -> IO[bytes]:
        """Open the responses file at its end; a line torn by a crash is cut off first."""
        return self.job.store.open_appending(self.responses_path)


@dataclass(frozen=True)
class ShardFolder(ShardPath):
    """A shard of a job whose sidecar is read."""

    job: JobFolder


def _state(batch: Batch) -> str:
    """Describe a batch: its stage here, and its id and status at the provider."""
    at_provider = "" if batch.id is None else f", batch {batch.id} {batch.status}"
    # The status is the provider's word: no control character of it may forge a line of the log.
    return one_line(f"{batch.stage}{at_provider}")
