"""Measure a store and delete from it: whole jobs, and what killed processes left.

A job on a disk vanishes at once: its folder is renamed to a draft's name, which nobody takes for a
job, then deleted; a process that dies in between leaves a draft for the next sweep. In a bucket
the sidecar goes first, and the rest is no job any more.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from frameenrich.errors import StoreError
from frameenrich.store.folder import JobPath
from frameenrich.store.links import is_own
from frameenrich.store.local import DRAFT
from frameenrich.store.store import Store

_LEFT_BEHIND = (f"{DRAFT}*", ".probe-*", "*/.*.tmp", "*/*/.*.tmp")
"""The names under which the store's writers keep unfinished files."""


_IDLE_SECONDS = 3600.0
"""Live writers write more often than that; nothing was paid for what is not finished."""


@dataclass(frozen=True)
class FolderSize:
    """The size of something in the store, and when it last changed; Unix seconds."""

    size_bytes: int
    changed_at: float


def folder_size(folder: JobPath) -> FolderSize:
    """Return the size and last change of a job's folder, by one listing of it.

    Raises
    ------
    StoreError
        The folder cannot be listed.
    """
    if folder.store.local and os.path.islink(folder.path):
        # Not what it leads to, which may be a whole disk; reading the job is refused anyway.
        return FolderSize(0, os.lstat(folder.path).st_mtime)
    try:
        found: dict[str, Any] = folder.store.fs.find(folder.path, detail=True)
    except OSError as error:
        raise _cannot("list", folder.path, error) from None
    # Taking the lock touches its file, and reading may keep what was read: no change of the job.
    own = [entry for path, entry in found.items() if not path.endswith("/.lock")]
    changed = _sum(entry for path, entry in found.items() if not path.endswith(("/.lock", ".read")))
    return FolderSize(_sum(own).size_bytes, changed.changed_at)


def _sum(entries: Iterable[dict[str, Any]]) -> FolderSize:
    entries = list(entries)
    size = sum(int(entry.get("size") or 0) for entry in entries)
    return FolderSize(size, max(map(_changed_at, entries), default=0.0))


def _changed_at(entry: dict[str, Any]) -> float:
    """Return when a file changed, under any of fsspec's names for it; now where there is none."""
    times = (entry.get(name) for name in ("mtime", "LastModified", "last_modified", "created"))
    found = next(filter(None, times), None)
    if isinstance(found, datetime):
        return found.timestamp()
    return float(found) if isinstance(found, int | float) else time.time()


def delete_job(folder: JobPath) -> None:
    """Delete a job from the store; the caller holds its lock.

    Raises
    ------
    StoreError
        It cannot be deleted; the job is either whole still or not there any more.
    """
    store = folder.store
    try:
        if store.local:
            # Renamed first: a process that dies while it deletes leaves a draft, not half a job.
            away = f"{store.root}/{DRAFT}{os.getpid()}-{secrets.token_hex(4)}"
            os.rename(folder.path, away)
            shutil.rmtree(away, ignore_errors=True)
        else:
            # A bucket renames nothing. Without its sidecar a folder is no job, so that goes first.
            store.fs.rm_file(f"{folder.path}/sidecar.parquet")
            store.fs.rm(folder.path, recursive=True)
    except OSError as error:
        raise _cannot("delete", folder.path, error) from None


def unfinished_files(store: Store) -> Iterator[tuple[str, FolderSize]]:
    """Yield what killed processes left unfinished in a local store, with its size."""
    if not store.local:
        return
    for pattern in _LEFT_BEHIND:
        # Escaped: a store's folder may be called "a[1]".
        for path in sorted(glob.glob(f"{glob.escape(store.root)}/{pattern}", include_hidden=True)):
            # A job's folder may be a link, and what is beyond it is not the store's to sweep.
            if not is_own(store.root, path):
                continue
            found = _path_size(path)
            if time.time() - found.changed_at > _IDLE_SECONDS:
                yield path, found


def _path_size(path: str) -> FolderSize:
    inside = (os.path.join(base, name) for base, _, names in os.walk(path) for name in names)
    entries: list[dict[str, Any]] = []
    for each in (path, *inside):
        with contextlib.suppress(OSError):  # its owner was faster
            found = os.lstat(each)
            size = 0 if os.path.isdir(each) else found.st_size
            entries.append({"size": size, "mtime": found.st_mtime})
    return _sum(entries)


def delete_leftover(path: str) -> bool:
    """Delete a leftover; return whether it is gone."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    return not os.path.lexists(path)


def _cannot(do: str, path: str, error: OSError) -> StoreError:
    return StoreError(
        f"Could not {do} {path}: {error.strerror or error}.",
        "Check that you may write to the store, then try again.",
        path=path,
    )
