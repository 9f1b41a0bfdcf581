"""Files of this computer that are whole or absent: written aside, fsynced, renamed."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from typing import IO

_log = logging.getLogger(__name__)

RENAMES_OPEN_FILES = os.name != "nt"
"""Whether a folder can be renamed while a file in it is open."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under its name, or where that leads, when it is complete.

    What is there and no file (a device, a pipe) is written to, never replaced. A `private` file
    is for its owner alone, whoever could read what was there; another keeps the mode of that.
    """
    # A link stays a link: the file that it leads to is replaced.
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as device:
            yield device
        return
    folder, name = os.path.split(path)
    with temporary_file(folder, name) as file:
        # Before the first byte is written, so that nobody else can open it in between.
        if private and hasattr(os, "fchmod"):  # not on Windows
            os.fchmod(file.fileno(), 0o600)
        yield file
        # First the bytes, then the name: after a crash a file with that name must not be cut.
        sync(file)
        file.close()  # Windows renames no file that is open
        if not private and os.path.exists(path):
            # A rename brings the mode of the temporary file along.
            shutil.copymode(path, file.name)
        os.replace(file.name, path)
        sync_folder(folder)


@contextlib.contextmanager
def named_file(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[IO[bytes]]:
    """Open a whole file that the user named, and log that it was written.

    A store logs its files itself: its records change at every step, which the log has already.
    """
    with whole_file(path, private=private) as file:
        yield file
    _log.info("wrote %s", os.path.realpath(path))


@contextlib.contextmanager
def temporary_file(folder: str, name: str) -> Iterator[IO[bytes]]:
    """Open a hidden file in a folder, on its way to become `name`; gone unless it was renamed."""
    # In the same folder, as a rename is atomic within one file system only. The random part keeps
    # two writers of one file apart, in one process too.
    temporary = f"{folder}/.{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "w+b") as file:
            yield file
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def sync(file: IO[bytes]) -> None:
    """Put what was written on disk, or in its bucket, before going on."""
    file.flush()
    with contextlib.suppress(io.UnsupportedOperation):  # no file of this computer
        os.fsync(file.fileno())


def sync_folder(path: str) -> None:
    """Make a rename durable; not every platform lets a folder be opened."""
    # The new name is an entry of its folder, which has to be on disk as well.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
