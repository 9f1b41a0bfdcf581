"""What may be swept: only what nobody has touched for an hour, by any store's clock."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from frameenrich.store.cleanup import _changed_at, delete_leftover, unfinished_files
from frameenrich.store.folder import _moment
from frameenrich.store.local import DRAFT
from frameenrich.store.store import Store


@pytest.mark.parametrize("inside", [False, True], ids=["the folder", "a file in it"])
def test_what_was_touched_within_the_hour_is_left(inside: bool, tmp_path: Path) -> None:
    """A draft that somebody may be writing is never offered to be deleted (promise 6)."""
    store, now = Store(tmp_path / "store"), time.time()
    ages = {"idle": 3_700, "busy": 3_500, "new": 0}
    for name, age in ages.items():
        draft = Path(store.root, f"{DRAFT}{name}")
        (draft / "deep").mkdir(parents=True)
        file = draft / "deep" / "requests.jsonl"
        file.write_bytes(b"12345")
        for path in (file, file.parent, draft):
            touched = age if path == file or not inside else 9_999
            os.utime(path, (now - touched, now - touched))

    ((left, size),) = unfinished_files(store)
    assert (os.path.basename(left), size.size_bytes) == (f"{DRAFT}idle", 5)
    assert size.changed_at == pytest.approx(now - ages["idle"], abs=1)
    assert delete_leftover(left)
    assert list(unfinished_files(store)) == []
    assert delete_leftover(left)  # another process was faster


@pytest.mark.parametrize("name", ["mtime", "LastModified", "last_modified", "created"])
@pytest.mark.parametrize("value", [1_000.5, 1_000, datetime(1970, 1, 1, 0, 16, 40, tzinfo=UTC)])
def test_any_file_system_says_when_a_file_changed(name: str, value: Any) -> None:
    """Under the name and in the type that it has for it."""
    assert int(_changed_at({"size": 3, name: value})) == 1_000


@pytest.mark.parametrize("entry", [{}, {"mtime": None}, {"created": "yesterday"}])
def test_what_has_no_time_changed_just_now(entry: dict[str, Any]) -> None:
    """So that nothing is swept of whose age nobody knows."""
    assert time.time() - _changed_at(entry) < 600


@pytest.mark.parametrize("text", [b"0", b"0.5", b"4102444799.9"])
def test_a_time_of_a_calendar_is_read(text: bytes) -> None:
    """As a store writes it."""
    assert _moment(text) == float(text)


@pytest.mark.parametrize("text", [b"-1", b"-0.001", b"nan", b"inf", b"4102444800", b"1e99", b"x"])
def test_no_other_time_is_believed(text: bytes) -> None:
    """A job whose time is damaged is named as damaged, and is never the newest by it."""
    with pytest.raises(ValueError, match=r"no time|could not convert"):
        _moment(text)
