"""A job in a bucket has one writer: who holds its lease, for how long, and what proves it."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from frameenrich.errors import JobBusyError
from frameenrich.store import lease as leases
from frameenrich.store.lease import (
    ConflictError,
    Lease,
    Objects,
    ObjectVersion,
    PlainObjects,
    hold,
)
from frameenrich.store.local import Guarded


@pytest.fixture
def folder() -> str:
    """Return a folder of fsspec's store in memory that nobody else has."""
    return f"/{uuid.uuid4().hex}"


@pytest.fixture
def objects() -> Objects:
    """Return objects in memory, as in any store that fsspec knows."""
    return PlainObjects(MemoryFileSystem())


def lease_of(objects: Objects, folder: str, note: Path) -> Lease:
    """Return a lease of one job; each `note` is a computer."""
    return Lease(objects, f"{folder}/lease.json", Guarded("job"), str(note))


def lapse(lease: Lease) -> None:
    """Make a lease as old as after a night's sleep: its thread slept, too."""
    lease._ended.set()
    lease._proven._wall -= 12 * 3600


def take(objects: Objects, folder: str, holder: str = "somebody") -> None:
    """Take the lease over, as another computer does."""
    path = f"{folder}/lease.json"
    seen = objects.read(path)
    record = json.dumps({"holder": holder, "seconds": leases.LEASE_SECONDS}).encode()
    objects.write(path, record, None if seen is None else seen.version)


def test_a_lapsed_lease_is_proven_before_a_write(
    objects: Objects, folder: str, tmp_path: Path
) -> None:
    """Who slept writes nothing over who took the job over, not even a new object (promise 6)."""
    lease = lease_of(objects, folder, tmp_path / "note")
    with hold(lease, 0.0):
        lease.replace(f"{folder}/batch.json", b"1")
        lapse(lease)
        take(objects, folder)
        for name in ("batch.json", "new.json"):
            with pytest.raises(JobBusyError, match="took over"):
                lease.replace(f"{folder}/{name}", b"2")

    seen = objects.read(f"{folder}/batch.json")
    assert seen is not None
    assert seen.data == b"1"
    assert not objects.exists(f"{folder}/new.json")


def test_a_lapsed_lease_that_nobody_took_is_renewed(
    objects: Objects, folder: str, tmp_path: Path
) -> None:
    """A laptop that was shut goes on where it was."""
    lease = lease_of(objects, folder, tmp_path / "note")
    with hold(lease, 0.0):
        lapse(lease)
        lease.replace(f"{folder}/batch.json", b"1")
        assert lease._proven.seconds_ago < leases.LEASE_SECONDS / 2
        take(objects, folder)
        # Renewed a moment ago: nothing is asked again before half its time is over.
        lease.replace(f"{folder}/batch.json", b"2")


@pytest.mark.parametrize(("slept", "proven"), [(12.0, False), (15.5, True)])
def test_a_lease_is_proven_anew_at_half_its_time(
    slept: float, proven: bool, objects: Objects, folder: str, tmp_path: Path
) -> None:
    """Not sooner, which costs a request a write; nor later, when the write could come too late."""
    lease = lease_of(objects, folder, tmp_path / "note")
    with hold(lease, 0.0):
        lease._ended.set()
        lease._proven._wall -= slept
        renewals = lease._renewals
        lease.check()

        assert (lease._renewals > renewals) is proven


def test_the_holder_has_it_until_it_ends(objects: Objects, folder: str, tmp_path: Path) -> None:
    """Others are refused by name of the holder; afterwards the next one has it at once."""
    with hold(lease_of(objects, folder, tmp_path / "note"), 0.0) as held:
        assert held._thread.daemon  # a process may end while it holds one
        with pytest.raises(JobBusyError, match="process"):
            lease_of(objects, folder, tmp_path / "other").acquire(0.0)

    with hold(lease_of(objects, folder, tmp_path / "other"), 0.0):
        pass


def test_what_a_killed_process_of_this_computer_held_is_over(
    objects: Objects, folder: str, tmp_path: Path
) -> None:
    """The note says whose it was, and its lock that they are gone."""
    killed = lease_of(objects, folder, tmp_path / "note")
    killed.acquire(0.0)
    killed._ended.set()

    with hold(lease_of(objects, folder, tmp_path / "note"), 0.0):
        pass


@pytest.mark.parametrize(
    ("unchanged", "age", "seconds", "expired"),
    [
        (0.0, 0.0, 30.0, False),
        (37.0, 0.0, 30.0, False),
        (37.6, 0.0, 30.0, True),
        (0.0, 930.0, 30.0, False),
        (0.0, 938.0, 30.0, True),
        (70.0, 970.0, 60.0, False),
        (75.1, 0.0, 60.0, True),
    ],
)
def test_a_lease_is_over_by_this_clock_or_long_after_any(
    unchanged: float, age: float, seconds: float, expired: bool, tmp_path: Path, objects: Objects
) -> None:
    """Its own time and a quarter as watched here, or a quarter of an hour more by the server's."""
    own = lease_of(objects, "/nowhere", tmp_path / "note")
    seen = ObjectVersion(json.dumps({"holder": "x", "seconds": seconds}).encode(), "v", age)

    assert own._expired(seen, unchanged) is expired


@pytest.mark.parametrize(
    ("date", "age"),
    [
        ("Mon, 30 Nov 2026 12:15:40 GMT", 940.0),
        ("Mon, 30 Nov 2026 12:00:00 GMT", 0.0),
        ("Mon, 30 Nov 2026 12:15:40", 0.0),  # in no time zone
        ("noon", 0.0),
        (None, 0.0),
    ],
)
def test_an_object_is_as_old_as_its_server_says(date: str | None, age: float) -> None:
    """By two times of one answer; where one is missing it is new, and watched."""
    headers = {} if date is None else {"date": date}
    answer = {
        "ResponseMetadata": {"HTTPHeaders": headers},
        "LastModified": datetime(2026, 11, 30, 12, tzinfo=UTC),
    }

    assert leases._age_seconds(answer) == age


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"holder": null}', b"\xff"])
def test_a_lease_that_names_nobody_is_free(data: bytes, tmp_path: Path, objects: Objects) -> None:
    """What was released, and what cannot be read, holds up nobody."""
    own = lease_of(objects, "/nowhere", tmp_path / "note")

    assert own._expired(ObjectVersion(data, "v"), 0.0)


@pytest.mark.parametrize(("monotonic", "wall"), [(5.0, -3600.0), (0.0, 100.0), (5.0, 5.0)])
def test_the_clock_that_went_further_counts(
    monotonic: float, wall: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stands still while a laptop sleeps, the other may be set back."""
    moment, begun, at = leases._Moment(), time.monotonic(), time.time()
    moment._monotonic, moment._wall = begun, at
    monkeypatch.setattr(time, "monotonic", lambda: begun + monotonic)
    monkeypatch.setattr(time, "time", lambda: at + wall)

    assert moment.seconds_ago == pytest.approx(max(monotonic, wall), abs=1e-3)


def test_writes_are_refused_where_the_object_is_another(objects: Objects, folder: str) -> None:
    """Whatever the order of two versions: one that is not expected is a conflict."""
    path = f"{folder}/object"
    with pytest.raises(ConflictError):
        objects.write(path, b"1", "a version of nothing")
    versions = [objects.write(path, b"1", None)]
    with pytest.raises(ConflictError):
        objects.write(path, b"2", None)
    for data in (b"2", b"3", b"4", b"5", b"6"):
        versions.append(objects.write(path, data, versions[-1]))

    assert len(set(versions)) == 6
    for version in versions[:-1]:
        with pytest.raises(ConflictError):
            objects.write(path, b"7", version)
    seen = objects.read(path)
    assert seen is not None
    assert (seen.data, seen.version) == (b"6", versions[-1])


@pytest.mark.parametrize("theirs", [b"a", b"b", b"c", b"d", b"e"])
def test_of_two_writers_at_once_the_first_is_refused(theirs: bytes, folder: str) -> None:
    """Without conditions who was written over finds other bytes than its own."""

    class Shared(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
        cachable = False

        def pipe_file(self, path: str, value: bytes, **more: Any) -> None:
            super().pipe_file(path, value, **more)
            super().pipe_file(path, theirs, mode="overwrite")

    with pytest.raises(ConflictError):
        PlainObjects(Shared()).write(f"{folder}/object", b"ours", None)
