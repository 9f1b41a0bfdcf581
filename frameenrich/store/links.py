"""Keep a store on a disk to its own folder: nothing below its root may lead out of it.

A store may come from somebody else: a symlink in it, where a job keeps its answers, would have
any file of this user's read, sent to a provider, written over or deleted. frameenrich makes no
links, so it follows none. The root itself may be one: the user chose it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from frameenrich.errors import StoreError


def check_own(root: str, path: str) -> None:
    """Refuse a path below a store's root that is, or goes through, anything but folders and files.

    Raises
    ------
    StoreError
        It is a symlink, a pipe or a device, or goes through one.
    """
    at = root
    for name in path.removeprefix(root).strip("/").split("/"):
        at = f"{at}/{name}"
        try:
            mode = os.lstat(at).st_mode
        except OSError:  # what is not there leads nowhere; else whoever opens it learns why
            return
        # Neither pipes nor devices: reading one may never end.
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _leads_out(at, mode)


def is_own(root: str, path: str) -> bool:
    """Tell whether a path below a store's root has folders and files only on its way."""
    try:
        check_own(root, path)
    except StoreError:
        return False
    return True


def check_listed(found: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a listing of a job's folder that has anything but files in it.

    Raises
    ------
    StoreError
        It has a symlink, a pipe or a device.
    """
    for entry in found:
        if entry.get("islink") or entry["type"] not in {"file", "directory"}:
            raise _leads_out(entry["name"], os.lstat(entry["name"]).st_mode)


def _leads_out(path: str, mode: int) -> StoreError:
    if stat.S_ISLNK(mode):
        what = f"a symlink to {os.readlink(path)}"
    else:
        what = "a pipe, a socket or a device"
    return StoreError(
        f"{path} is {what}; a store has files and folders only, and nothing outside it is touched.",
        "Put the file or folder itself there, if you know what it is, or move the job's folder out "
        "of the store. The store's own folder may be a symlink.",
        path=path,
    )
