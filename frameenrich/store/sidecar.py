"""Write and read the sidecar: the Parquet file that says which row became which request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from frameenrich.identity.dedupe import JobHash
from frameenrich.identity.hashes import HASH_BYTES, hash_column
from frameenrich.identity.keys import key_digests
from frameenrich.model import JobSpec
from frameenrich.store.draft import Draft
from frameenrich.store.folder import JobPath

FINGERPRINT = "frameenrich.fingerprint"
"""The key of the sidecar's metadata that has the frame's fingerprint, if there is one."""


SKIPPED = -1
"""Shard number of a row that was left out: by the null policy, or for an image."""


SKIP_REASON = "skip_reason"
"""The column that says why a row was left out, where `on_bad_image="skip"`; null elsewhere."""


# A part of a frame is matched by row groups, so their size bounds what is read in vain.
ROWS_PER_GROUP = 1 << 15
"""At most so many rows of a sidecar are read together."""


_NO_HASH = bytes(HASH_BYTES)


@dataclass
class SidecarRows:
    """Some rows of the sidecar, but for their keys; ready requests have no input hashes."""

    ids: list[Any]
    request_hashes: bytes
    input_hashes: bytes
    shards: list[int]
    reasons: list[str | None] | None = None

    def spread(self, rows: int, positions: Sequence[int]) -> SidecarRows:
        """Return the sidecar of `rows` rows, of which those at `positions` are these."""
        whole = SidecarRows.empty(rows)
        for i, row in enumerate(positions):
            whole.ids[row], whole.shards[row] = self.ids[i], self.shards[i]
        requests, read = (
            _spread(own, rows, positions) for own in (self.request_hashes, self.input_hashes)
        )
        return SidecarRows(whole.ids, requests, read, whole.shards)

    @classmethod
    def empty(cls, rows: int) -> SidecarRows:
        """Return the sidecar of rows that have no request."""
        return cls([None] * rows, _NO_HASH * rows, _NO_HASH * rows, [SKIPPED] * rows)


def _spread(hashes: bytes, rows: int, positions: Sequence[int]) -> bytes:
    whole = np.zeros((rows, HASH_BYTES), np.uint8)
    whole[positions] = np.frombuffer(hashes, np.uint8).reshape(-1, HASH_BYTES)
    return whole.tobytes()


class SidecarWriter:
    """The sidecar as it grows, some rows in memory at a time."""

    def __init__(
        self,
        draft: Draft,
        keys: pa.Table,
        metadata: Mapping[str, str],
        job_hash: JobHash,
        *,
        with_reasons: bool = False,
    ) -> None:
        self._keys = keys
        self._job_hash = job_hash
        schema = keys.schema
        for name, kind in _COLUMNS.items():
            schema = schema.append(pa.field(name, kind))
        # Most jobs leave no row out for a reason of its own, and earlier ones know no such column.
        self._with_reasons = with_reasons
        if with_reasons:
            schema = schema.append(pa.field(SKIP_REASON, pa.string()))
        self._schema = schema.with_metadata(metadata)
        self._writer = draft.sidecar_writer(self._schema)
        self._written = 0
        self._clear()

    def _clear(self) -> None:
        self._ids: list[bytes | None] = []
        self._request_hashes = bytearray()
        self._input_hashes = bytearray()
        self._shards: list[int] = []
        self._reasons: list[str | None] = []

    def add(self, rows: SidecarRows) -> None:
        """Add the next rows; full row groups are written."""
        self._ids += rows.ids
        self._request_hashes += rows.request_hashes
        self._input_hashes += rows.input_hashes
        self._shards += rows.shards
        self._reasons += rows.reasons or [None] * len(rows.ids)
        if len(self._ids) >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        keys = self._keys.slice(self._written, len(self._ids))
        # The job's id is a hash of all rows, taken as they pass, so that none stays in memory.
        self._job_hash.add(key_digests(keys), self._request_hashes)
        inputs = pa.nulls(len(keys), pa.binary(HASH_BYTES))  # of requests that no row rendered to
        columns = [
            pa.array(self._ids, pa.string()),
            hash_column(self._request_hashes),
            hash_column(self._input_hashes) if self._input_hashes else inputs,
            pa.array(self._shards, pa.int32()),
        ]
        if self._with_reasons:
            columns.append(pa.array(self._reasons, pa.string()))
        self._writer.write_table(pa.table([*keys.columns, *columns], schema=self._schema))
        self._written += len(self._ids)
        self._clear()

    def close(self) -> None:
        """Write the rest and close; needed for a discarded file too, as Arrow wants it closed."""
        if self._ids:
            self._flush()
        self._writer.close()


# A row and its answer meet only through these columns. The input hash is of the rendered text, so a
# CSV read again with other dtypes agrees, and a `reset_index` after a sort does not.
_COLUMNS = {
    "custom_id": pa.string(),
    "request_hash": pa.binary(HASH_BYTES),
    "input_hash": pa.binary(HASH_BYTES),
    "shard": pa.int32(),
}


def sidecar_metadata(
    spec: JobSpec, key_names: Sequence[str], made_at: float, fingerprint: str | None = None
) -> dict[str, str]:
    """Return the sidecar's metadata: what it says of the job beside its rows."""
    known = {} if fingerprint is None else {FINGERPRINT: fingerprint}
    return {
        **known,
        "frameenrich.spec": spec.to_json(),
        "frameenrich.created_at": repr(made_at),
        # The ASCII unit separator, as a column's name may hold any printable character.
        "frameenrich.key_names": "\x1f".join(key_names),
        "frameenrich.version": str(spec.version),
    }


def row_groups(
    job: JobPath, names: Sequence[str], round_: int = 0, shard: int | None = None
) -> Iterator[tuple[pa.Table, npt.NDArray[np.int64]]]:
    """Yield a round's sidecar a row group at a time, with the rows' positions.

    Parameters
    ----------
    job, round_ : JobPath, int
        The job, and which of its rounds.
    names : sequence of str
        The columns to read, of which an earlier version may have written only some.
    shard : int, optional
        Only the rows of this shard are given, after a table without any; "shard" is among the
        names then.

    Raises
    ------
    StoreError
        The sidecar is damaged.
    """
    start = 0
    with job.reading_sidecar(round_) as file:
        known = [name for name in names if name in file.schema_arrow.names]
        if shard is not None:  # who joins the tables needs one
            yield file.schema_arrow.empty_table().select(known), np.empty(0, np.int64)
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if shard is None:
                yield file.read_row_group(group, known), np.arange(start, end)
            elif _may_hold(file, group, shard):
                rows = file.read_row_group(group, known)
                own = np.flatnonzero(rows["shard"].to_numpy() == shard)
                yield rows.take(pa.array(own)), start + own
            start = end


def _may_hold(file: pq.ParquetFile, group: int, shard: int) -> bool:
    """Tell whether a row group may have rows of a shard, by its statistics."""
    column_index = file.schema_arrow.get_field_index("shard")
    known = file.metadata.row_group(group).column(column_index).statistics
    # Statistics are optional in Parquet: without them the group has to be read.
    return known is None or not known.has_min_max or known.min <= shard <= known.max
