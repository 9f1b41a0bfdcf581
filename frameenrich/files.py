"""Files that tables are read from: opened once, and the same until they are closed."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

from frameenrich.errors import FrameEnrichError, InputError
from frameenrich.places import Place


def open_file(place: Place) -> IO[bytes]:
    """The file, or a copy of what comes down a pipe: something that can be read twice."""
    try:
        if place.is_stream:
            return _spooled(sys.stdin.buffer)
        file = open(place.path, "rb")  # noqa: SIM115 - kept open with the source
        if file.seekable():
            return file
        with file:
            return _spooled(file)
    except OSError as error:
        raise _unreadable(place.path, place.called, error) from None


def _unreadable(path: str, called: str, error: OSError) -> InputError:
    return InputError(f"{called} cannot be read: {error.strerror}.", "Check the path.", path=path)


def _spooled(stream: IO[bytes]) -> IO[bytes]:
    copy: Any = tempfile.TemporaryFile()  # noqa: SIM115 - kept open with the source
    shutil.copyfileobj(stream, copy)
    copy.flush()
    return cast("IO[bytes]", copy)


def stamp_of(file: IO[bytes] | str) -> tuple[int, int]:
    """What changes when somebody writes into the file: its size, and the time (ns)."""
    try:
        found = os.stat(file) if isinstance(file, str) else os.fstat(file.fileno())
    except OSError as error:
        raise _unreadable(str(file), str(file), error) from None
    return found.st_size, found.st_mtime_ns


def check_unchanged(file: IO[bytes], place: Place, stamp: tuple[int, int]) -> None:
    """Refuse a file into which somebody wrote since its stamp was taken."""
    if stamp_of(file) != stamp:
        raise FrameEnrichError(
            f"{place.called} changed since it was read.",
            "Give the same command again; what stayed the same is not asked again.",
            path=place.path,
        )


@contextlib.contextmanager
def content_of(file: IO[bytes], place: Place) -> Iterator[IO[bytes]]:
    """The file from its start, decompressed; it stays open."""
    file.seek(0)
    try:
        whole: Any = gzip.GzipFile(fileobj=file, mode="rb") if place.compressed else file
        yield whole
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{place.called} is not a whole gzip file: {error}.", "Check it.", path=place.path
        ) from None
