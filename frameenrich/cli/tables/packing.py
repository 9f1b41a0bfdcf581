"""Packed files: .gz, .zst and .zip, read and written by their content."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import pyarrow as pa

from frameenrich.errors import InputError
from frameenrich.jsonl import most_unpacked_bytes, unpacks_to_too_much

_BLOCK_BYTES = 1 << 20


PACKINGS = (".gz", ".zst", ".zip")
"""The endings of packed files' names."""


def packing_of(path: str) -> str:
    """Return the packing of a file by its name; empty for none.

    Examples
    --------
    >>> packing_of("goods.csv.ZST"), packing_of("goods.csv")
    ('.zst', '')
    """
    return next((each for each in PACKINGS if path.lower().endswith(each)), "")


def only_member(path: str) -> str:
    """Return the name of the only file in a .zip; empty where the archive does not exist yet.

    Raises
    ------
    InputError
        It holds several files, or none, or is no archive.
    """
    # The path may be an output that is yet to be written.
    if not os.path.isfile(path):
        return ""
    with errors_named(path), zipfile.ZipFile(path) as packed:
        return _member_of(packed, path)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in {"thumbs.db", "desktop.ini"}


def _member_of(packed: zipfile.ZipFile, called: str) -> str:
    names = [name for name in packed.namelist() if not name.endswith("/")]
    # macOS adds a second entry with metadata for each file, and systems put their own in folders.
    names = [name for name in names if not name.startswith("__MACOSX/")]
    names = [name for name in names if not _is_hidden(name.rpartition("/")[2])]
    if len(names) == 1:
        return names[0]
    what = f"{len(names)} files, such as {names[0]} and {names[1]}" if names else "no file"
    raise InputError(
        f"{called} holds {what}.", "Unpack it, and give the table or the folder.", path=called
    )


@contextlib.contextmanager
def unpacked(file: IO[bytes], packing: str, called: str) -> Iterator[IO[bytes]]:
    """Read a file's content from its start, unpacked; what is given can be read twice.

    Raises
    ------
    InputError
        It is damaged, or unpacks to more than any table of its size.
    """
    file.seek(0)
    with errors_named(called), contextlib.ExitStack() as stack:
        content: Any = file
        if packing:
            content = stack.enter_context(_opened(file, packing, called))
        if packing == ".zst":
            # A copy, since Arrow's stream cannot be read twice.
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(content, copy)
            copy.seek(0)
            content = copy
        yield content


def unpacks_to_more(file: IO[bytes], packing: str, most: int, called: str) -> bool:
    """Tell whether a packed file's content has more bytes than `most`, by unpacking so many."""
    # No header says so that can be believed, or at all: a table of constants, a thousandth of its
    # size when packed, would be taken for one that fits into the memory.
    file.seek(0)
    with errors_named(called), _opened(file, packing, called) as content:
        size = 0
        while size <= most and (read := len(content.read(_BLOCK_BYTES))):
            size += read
    return size > most


@contextlib.contextmanager
def _opened(file: IO[bytes], packing: str, called: str) -> Iterator[IO[bytes]]:
    """Open a packed file's content, bounded; that of .zst can be read once only."""
    with contextlib.ExitStack() as stack:
        content: Any
        if packing == ".gz":
            content = gzip.GzipFile(fileobj=file, mode="rb")
        elif packing == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(file))
            content = stack.enter_context(archive.open(_member_of(archive, called)))
        else:  # Python itself reads Zstandard from 3.14 on only
            content = pa.CompressedInputStream(pa.PythonFile(_Kept(file), mode="r"), "zstd")
        size = os.fstat(file.fileno()).st_size
        yield io.BufferedReader(_Bounded(content, size, called), _BLOCK_BYTES)


class _Bounded(io.RawIOBase):
    """What a packed file unpacks to, which may be a multiple of its size, but not any."""

    def __init__(self, content: IO[bytes], packed_bytes: int, called: str) -> None:
        self._content = content
        self._packed_bytes = packed_bytes
        self._called = called
        self._left = most_unpacked_bytes(packed_bytes)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return what the content's is."""
        return self._content.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to another position; from the start everything counts anew."""
        if offset == whence == 0:
            self._left = most_unpacked_bytes(self._packed_bytes)
        return self._content.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in the content."""
        return self._content.tell()

    def readinto(self, buffer: Any) -> int:
        """Read some bytes into a buffer."""
        try:
            data = self._content.read(len(buffer))
        except OSError as error:  # Arrow's word for what is no Zstandard, or cut short
            raise _not_whole(self._called, error) from None
        self._left -= len(data)
        if self._left < 0:
            raise InputError(
                f"{self._called} is not read: {unpacks_to_too_much(self._packed_bytes)}.",
                "If it is your own, unpack it, and give the unpacked file.",
                path=self._called,
            )
        buffer[: len(data)] = data
        return len(data)


class _Kept:
    """A wrapper whose `close` does nothing, since Arrow closes the files it is given."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """Read some bytes."""
        return self._file.read(size)

    def write(self, data: bytes) -> int:
        """Write some bytes."""
        return self._file.write(data)

    def close(self) -> None:
        """Leave the file open: its owner closes it."""

    def flush(self) -> None:
        """Write what is held."""
        self._file.flush()


@contextlib.contextmanager
def packed_into(file: IO[bytes], packing: str, member: str) -> Iterator[IO[bytes]]:
    """Write content into a file, packed; the same content makes the same file."""
    if packing == ".gz":
        # Without name and time, or the same content would make another file each time.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as content:
            yield cast("IO[bytes]", content)
    elif packing == ".zip":
        about = zipfile.ZipInfo(member)
        about.compress_type = zipfile.ZIP_DEFLATED
        with (
            zipfile.ZipFile(file, "w") as archive,
            # The size is not known before it is written, and may exceed 4 GiB.
            archive.open(about, "w", force_zip64=True) as inner,
        ):
            yield inner
    elif packing == ".zst":
        with pa.CompressedOutputStream(pa.PythonFile(_Kept(file), mode="w"), "zstd") as content:
            yield content
    else:
        yield file


@contextlib.contextmanager
def errors_named(called: str) -> Iterator[None]:
    """Make errors about a damaged packing name the file."""
    try:
        yield
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _not_whole(called, error) from None


def _not_whole(called: str, error: Exception) -> InputError:
    kind = "gzip" if packing_of(called) in ("", ".gz") else packing_of(called)
    reason = str(error).rstrip(".")
    return InputError(
        f"{called} is not a complete {kind} file: {reason}.",
        "Copy or download it again.",
        path=called,
    )
