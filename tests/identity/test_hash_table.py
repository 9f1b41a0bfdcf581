"""Promise 2: a request meets its answer by its whole hash, in a table without objects."""

from __future__ import annotations

from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from frameenrich.identity.hash_table import HashTable, KnownRequests

# Halves that agree, and ends that agree: what an attacker can make, and what random draws never do.
HASHES = st.builds(
    lambda start, end: bytes([start]) * 8 + bytes([end]) * 24, st.integers(0, 2), st.integers(0, 3)
)


def column(hashes: list[bytes]) -> pa.ChunkedArray:
    """Hashes in chunks that begin within their buffers, as slices of a table do."""
    whole = pa.array([bytes(32), *hashes], pa.binary(32))
    middle = 1 + len(hashes) // 2
    return pa.chunked_array([whole[1:middle], whole[middle:]], pa.binary(32))


@patch("frameenrich.identity.hash_table._AT_ONCE", 2)
@given(st.lists(HASHES), st.lists(HASHES))
def test_whole_hashes_are_found_where_they_first_stand(
    known: list[bytes], wanted: list[bytes]
) -> None:
    """As by a dict: hashes that agree in a half only are never taken for each other."""
    table = HashTable([column(known)])
    expected = [known.index(own) if own in known else -1 for own in wanted]
    assert table.find(column(wanted)).tolist() == expected
    assert [table.has(own) for own in wanted] == [own in known for own in wanted]
    assert table.is_first.tolist() == [known.index(own) == i for i, own in enumerate(known)]


@given(st.lists(st.lists(HASHES), max_size=4))
def test_the_first_job_that_has_a_request_counts(jobs: list[list[bytes]]) -> None:
    """Jobs come newest first, and a job whose every request a newer one has is not named."""
    known = KnownRequests.of([(f"job-{n}", column(own)) for n, own in enumerate(jobs)])
    first: dict[bytes, int] = {}
    for n, own in enumerate(jobs):
        for each in own:
            first.setdefault(each, n)
    positions = known.hashes.find(column(list(first)))
    assert known.job_numbers(positions).tolist() == list(first.values())
    assert known.used_jobs == tuple(sorted({f"job-{n}" for n in first.values()}))
    starts = [sum(map(len, jobs[:n])) for n in range(len(jobs))]
    assert [known.start_of(n) for n in range(len(jobs))] == starts
    assert np.all(np.diff(known.hashes.short.astype(object)) >= 0)


def test_hashes_of_another_length_are_refused() -> None:
    """An even number of an older store's would be read as half as many, and never be found."""
    older = pa.array([bytes(16), bytes(16)], pa.binary(16))

    with pytest.raises(ValueError, match="another length"):
        HashTable([older])
