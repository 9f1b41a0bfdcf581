"""What is renamed is on disk first: seen in the system calls, as a power cut would see it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import a_job, write_round

from frameenrich.model import Batch, Limits
from frameenrich.prepare.rounds import RetryRequest
from frameenrich.store.store import Store


class Calls:
    """The calls that make files durable, in order, by path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, str, str]] = []
        real_sync, real_rename, real_replace = os.fsync, os.rename, os.replace

        def fsync(descriptor: int) -> None:
            self.seen.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}"), ""))
            real_sync(descriptor)

        def moving(real: Callable[..., None]) -> Callable[..., None]:
            def move(source: Any, target: Any) -> None:
                self.seen.append(("rename", os.fspath(source), os.fspath(target)))
                real(source, target)

            return move

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "rename", moving(real_rename))
        monkeypatch.setattr(os, "replace", moving(real_replace))

    def synced_before(self, place: int) -> set[str]:
        """Return what was synced before a call."""
        return {path for kind, path, _ in self.seen[:place] if kind == "fsync"}

    def synced_after(self, place: int) -> set[str]:
        """Return what was synced after a call."""
        return {path for kind, path, _ in self.seen[place:] if kind == "fsync"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Record the calls of this test; all of them are made, too."""
    return Calls(monkeypatch)


def test_a_job_is_on_disk_before_it_has_its_name(calls: Calls, tmp_path: Path) -> None:
    """Each file, and each folder's list of its files; then the store's folder (promise 6)."""
    job = a_job(Store(tmp_path / "store"))

    ((place, source),) = [
        (i, source) for i, (kind, source, to) in enumerate(calls.seen)
        if kind == "rename" and to == job.path
    ]  # fmt: skip
    inside = {f"{source}{path.removeprefix(job.path)}" for path in job.store.find(job.path)}
    folders = {source, f"{source}/round-0"}
    assert len(inside) == 5
    assert inside | folders <= calls.synced_before(place)
    assert str(tmp_path / "store") in calls.synced_after(place)


def test_a_file_is_on_disk_before_it_replaces_another(calls: Calls, tmp_path: Path) -> None:
    """A batch.json that is not there after a power cut would be a second payment (promise 6)."""
    shard = a_job(Store(tmp_path / "store")).shards(0)[0]
    calls.seen.clear()

    shard.save(Batch("t", id="batch_1"))

    ((place, source, target),) = [
        (i, source, to) for i, (kind, source, to) in enumerate(calls.seen) if kind == "rename"
    ]
    assert target.endswith("shard-00000.batch.json")
    assert source in calls.synced_before(place)
    assert os.path.dirname(target) in calls.synced_after(place)


def test_a_round_is_on_disk_before_it_has_its_name(calls: Calls, tmp_path: Path) -> None:
    """A sidecar that is not whole would give answers to no row (promise 6)."""
    job = a_job(Store(tmp_path / "store"))
    calls.seen.clear()
    asked = RetryRequest("row-a", "r1-row-a", b"{}\n", b"h" * 32, "m", "empty", "unchanged")

    assert write_round(job, 1, [asked], Limits())

    ((place, source),) = [
        (i, source) for i, (kind, source, to) in enumerate(calls.seen)
        if kind == "rename" and to == job.round_path(1)
    ]  # fmt: skip
    there = job.store.find(job.round_path(1))
    inside = {f"{source}{path.removeprefix(job.round_path(1))}" for path in there}
    assert len(inside) == 3
    assert inside | {source} <= calls.synced_before(place)
    assert job.path in calls.synced_after(place)
