"""Files that are whole or absent (promise 5), and durable once they are there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from frameenrich.atomic import whole_file
from frameenrich.errors import StoreError
from frameenrich.store.local import Disk


def test_a_file_is_synced_before_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves the old file or the new one: data, then the name, then the folder."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append(f"fsync {kind}")
        fsync(descriptor)

    def spy_replace(old: str, new: str) -> None:
        steps.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    for write in (whole_file, Disk().write_whole):
        steps.clear()
        with write(f"{tmp_path}/answers.csv") as file:
            file.write(b"a\n")

        assert steps == ["fsync file", "rename", "fsync folder"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """Neither half a file under the name, nor a temporary one beside it; the mode stays, too."""
    path = tmp_path / "out.csv"
    path.write_bytes(b"before\n")
    path.chmod(0o640)
    writing = whole_file(path)
    writing.__enter__().write(b"half")
    assert writing.__exit__(ZeroDivisionError, ZeroDivisionError(), None) is not True
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("out.csv", b"before\n")]

    with whole_file(path) as file:
        file.write(b"after\n")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"after\n", 0o640)


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """The error names the file and the way out."""
    with (
        pytest.raises(StoreError, match=r"cannot be written at .*gone/batch.json"),
        Disk().write_whole(f"{tmp_path}/gone/batch.json"),
    ):
        pass
