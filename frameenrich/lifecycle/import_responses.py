"""Import response lines that did not come from the provider: a web page, ``vllm run-batch``.

An import is a file of its own beside a shard's responses, so that it can be taken back.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import IO, NoReturn, cast

from frameenrich.answers.judge import read_response
from frameenrich.errors import BudgetError, ResponsesError, StoreError
from frameenrich.jsonl import LineTooLongError, short_lines
from frameenrich.lifecycle.outgoing import answered_here
from frameenrich.lifecycle.take_over import take_over
from frameenrich.model import Batch, BatchStatus, Import, Stage
from frameenrich.store.folder import JobFolder, JobState, job_folders
from frameenrich.store.shard import ShardFolder, ids_of

_FILE = "file"


_GZIP = b"\x1f\x8b"


_BOM = b"\xef\xbb\xbf"


_PACKED = {
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}


_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


_TAGGED = re.compile(r"\A(?:r\d+-)?(?:row|key)-.+-([0-9a-f]{6})\Z")


_REQUEST = frozenset({"method", "url", "body"})


def import_responses(folder: JobFolder, path: str | os.PathLike[str]) -> None:
    """Import a file's lines into the shards that they answer; see `Job.import_responses`.

    A shard whose batch still runs stays as it is, until all of its requests have a usable answer:
    what the batch brings home later is added, not lost.

    Raises
    ------
    ResponsesError
        The file cannot be read, or no line of it answers a request of this job.
    """
    name = os.fspath(path)
    ids = {shard: ids_of(shard) for shard in folder.all_shards()}
    owners = {custom_id: shard for shard, own in ids.items() for custom_id in own}
    tags: set[str] = set()
    content = hashlib.sha256()
    try:
        with contextlib.ExitStack() as stack:
            # On disk, since the file may be larger than the memory, or unpack to what is.
            found: dict[ShardFolder, _Taken] = {}
            for number, line in enumerate(_lines(name, content.update)):
                if number == 0 and _is_request(line):
                    raise ResponsesError(
                        f"{name} holds requests, not what was answered to them.",
                        "Give the output file that came back for it.",
                        path=name,
                    )
                response = read_response(line)
                if response is None:
                    continue
                owner = owners.get(response.custom_id)
                if owner is None:
                    tags.update(_TAGGED.findall(response.custom_id))
                    continue
                if owner not in found:
                    found[owner] = _Taken(stack.enter_context(tempfile.TemporaryFile()))
                found[owner].add(line)
            if not found:
                _refuse(folder, name, tags)
            # Named by its content: the same file imported twice is one import.
            import_id = content.hexdigest()[:12]
            with folder.lock():
                for shard in folder.all_shards():  # as they are now that nobody else writes
                    if shard in found:
                        _take(shard, import_id, os.path.basename(name), found[shard], ids[shard])
    except OSError as error:  # the lines that were set aside, as StoreErrors are of the store
        raise StoreError(
            f"A temporary file cannot be written in {tempfile.gettempdir()}: {error.strerror}.",
            "Free some room there, or set TMPDIR to another folder; then import it again.",
        ) from None


class _Taken:
    """The lines of an import that are one shard's, each once, in their order."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._seen: set[bytes] = set()

    def add(self, line: bytes) -> None:
        """Keep a line, unless it was kept before."""
        mark = hashlib.sha256(line).digest()[:16]
        if mark not in self._seen:
            self._seen.add(mark)
            self._file.write(line + b"\n")

    def __len__(self) -> int:
        return len(self._seen)

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        yield from self._file


def withdraw_import(folder: JobFolder, which: str | os.PathLike[str] | None = None) -> Import:
    """Withdraw an import, the newest by default; see `Job.withdraw_import`.

    Raises
    ------
    ResponsesError
        There is no such import.
    """
    with folder.lock():
        job = folder.read()
        shards = job.all_shards()
        known = {own.id: own for shard in shards for own in shard.batch.imports}
        taken = _chosen(folder, known, which)
        for shard in shards:
            if any(own.id == taken.id for own in shard.batch.imports):
                _withdraw(job, shard, taken.id)
    return taken


def _chosen(
    folder: JobFolder, known: Mapping[str, Import], which: str | os.PathLike[str] | None
) -> Import:
    wanted = None if which is None else os.path.basename(os.fspath(which))
    fitting = [own for own in known.values() if wanted in {None, own.id, own.name}]
    if fitting:
        return max(fitting, key=lambda own: own.at)
    there = ", ".join(own.name for own in known.values())
    what = "" if which is None else f" of {os.fspath(which)}"
    raise ResponsesError(
        f"The job {folder.id} has no import{what} to withdraw.",
        f"Name one of: {there}."
        if there
        else "Nothing has to be undone; what an earlier version imported stays.",
    )


def _take(shard: ShardFolder, import_id: str, name: str, lines: _Taken, ids: Sequence[str]) -> None:
    """Write an import's lines beside a shard's responses, then say so in its batch."""
    # The file first: batch.json never names a file that is not there.
    proof = shard.write_import(import_id, lines)
    own = Import(import_id, name, time.time(), len(lines), proof)
    rest = [each for each in shard.batch.imports if each.id != import_id]
    _settle(shard, (*rest, own), ids)


def _withdraw(job: JobState, shard: ShardFolder, import_id: str) -> None:
    was_settled = shard.batch.settled
    rest = tuple(each for each in shard.batch.imports if each.id != import_id)
    # batch.json first: a crash in between leaves a file that nothing names.
    _settle(shard, rest, ids_of(shard))
    shard.job.store.remove(shard.import_path(import_id))
    # Back to be sent. Another job may have sent the same since, as nobody could wait for this one.
    to_send = shard.batch.unsent and not shard.batch.creating
    if was_settled and to_send and shard.round == 0:
        shard.save(shard.batch.replace(stage=Stage.WAITING, status=BatchStatus.WAITING))
        # Over its cap it goes on waiting: the next step says so.
        with contextlib.suppress(BudgetError):
            take_over(job, shard, lambda _: None)


def _settle(shard: ShardFolder, imports: tuple[Import, ...], ids: Sequence[str]) -> None:
    """Save which imports a shard has, and end its batch where these answer it."""
    before = _before_imports(shard.batch)
    # Saved before the lines are read, as the batch says which files hold them.
    shard.save(before.replace(imports=imports))
    good = answered_here(shard)
    # A waiting shard gets the rest from another job's batch: some lines do not end that.
    at_work = before.running or before.creating or before.waiting
    # Where nothing will come but what is imported.
    elsewhere = (before.provider or shard.job.spec.provider) == _FILE
    if not imports or before.settled or (at_work and not elsewhere and not good.issuperset(ids)):
        return
    shard.save(
        before.replace(
            status=BatchStatus.COMPLETED,
            stage=Stage.FETCHED,
            imports=imports,
            # What the batch goes back to when the last import is withdrawn.
            before_import={**asdict(before), "imports": ()},
            total=len(ids),
            completed=len(good.intersection(ids)),
        )
    )


def _before_imports(batch: Batch) -> Batch:
    """Return the batch as it was before its imports."""
    if batch.before_import is None:
        return batch
    try:
        return Batch.from_json(json.dumps(batch.before_import))
    except ValueError as error:  # somebody else's
        raise StoreError(
            f"What the batch {batch.tag} was before its imports cannot be read: {error}.",
            "Restore its batch.json from a backup.",
        ) from None


# --- a file, and what it is where it is none of ours ------------------------------------------


def _lines(name: str, heard: Callable[[bytes], None]) -> Iterator[bytes]:
    """Yield a file's lines, unpacked, one at a time; `heard` gets every byte of its content.

    Raises
    ------
    ResponsesError
        It cannot be read, or holds something that is no answers.
    """
    try:
        with open(name, "rb") as packed, _unpacked(packed, name) as file:
            # A pipe has no size, and is not packed often.
            size = os.fstat(packed.fileno()).st_size or None
            for line in short_lines(file, size):
                heard(line)
                if stripped := line.strip():
                    yield stripped
    except (OSError, EOFError, zlib.error, LineTooLongError) as error:
        raise ResponsesError(
            f"The responses file {name} cannot be read: "
            f"{getattr(error, 'strerror', None) or error}.",
            "Give the output file of the requests in job.requests, gzipped or not.",
            path=name,
        ) from None


@contextlib.contextmanager
def _unpacked(packed: io.BufferedReader, name: str) -> Iterator[IO[bytes]]:
    """Give a file's content from behind its mark, where it is one of JSON lines."""
    start = packed.peek(len(_GZIP))
    if other := next((kind for mark, kind in _PACKED.items() if start.startswith(mark)), None):
        raise ResponsesError(f"{name} is a {other} file.", "Unpack it first.", path=name)
    with gzip.open(packed) if start.startswith(_GZIP) else contextlib.nullcontext(packed) as file:
        content = io.BufferedReader(cast("io.RawIOBase", file))
        start = content.peek(64)[:64]
        # UTF-16 may come without a mark; its ASCII characters then show as NULs.
        if start.startswith(_UTF_16) or b"\0" in start:
            raise ResponsesError(
                f"{name} is not in UTF-8: it looks like UTF-16.",
                "Save it as UTF-8; Windows' PowerShell does with: Out-File -Encoding utf8.",
                path=name,
            )
        if start.startswith(_BOM):
            content.read(len(_BOM))
        yield content


def _refuse(folder: JobFolder, name: str, tags: set[str]) -> NoReturn:
    """Raise the error for a file of which no line is this job's."""
    problem = f"No line of {name} answers a request of the job {folder.id}."
    fix = "Give the output file of the requests in job.requests."
    # A custom_id ends with its job's tag, as `row-0` is in every default index.
    if tags:
        owner = _owner(folder, tags)
        mine = f"-{folder.spec.tag}" if folder.spec.tag else "no tag"
        problem = (
            f"{name} holds the answers of another job{owner}: its custom_ids end in "
            f"-{min(tags)}, those of the job {folder.id} in {mine}."
        )
        fix = "Import it into that job, or give the output file of the requests in job.requests."
    raise ResponsesError(problem, fix, path=name)


def _is_request(line: bytes) -> bool:
    try:
        members = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(members, dict) and members.keys() >= _REQUEST


def _owner(folder: JobFolder, tags: Iterable[str]) -> str:
    """Name the job of this store that has one of the tags; empty where none has."""
    with contextlib.suppress(StoreError):
        for other in job_folders(folder.store):
            if other.spec.tag in tags:
                return f", {other.id}"
    return ""
