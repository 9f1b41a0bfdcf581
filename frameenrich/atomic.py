"""Write a local file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A binary file that appears under its name, or where that leads, when it is complete.

    What is there and no file (a device, a pipe) is written to, never replaced.
    """
    path = os.path.realpath(path)
    temporary = f"{path}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    is_device = os.path.exists(path) and not os.path.isfile(path)
    try:
        with open(path if is_device else temporary, "wb") as file:
            yield file
            if not is_device:
                file.flush()
                os.fsync(file.fileno())
        if not is_device:
            if os.path.exists(path):
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
