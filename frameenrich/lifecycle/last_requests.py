"""Find the newest request of each row, a shard at a time.

A row's request has another custom_id in each round, and lies in a shard of the round that sent it
last. Reading by those shards, no more than one of them is in memory, whatever the job's size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.jsonl import request_ids
from frameenrich.lifecycle.check_requests import check_request
from frameenrich.lifecycle.results import SIDECAR_ID_COLUMNS, refuse_lost
from frameenrich.store.folder import JobFolder, JobState
from frameenrich.store.shard import ShardFolder
from frameenrich.store.sidecar import row_groups

FEEDBACK = "feedback"
"""The first word of a request's change where it ends with feedback on an earlier answer."""


@dataclass(frozen=True)
class LastRequests:
    """The requests of one shard that are their rows' newest.

    Parameters
    ----------
    job, shard : JobState, ShardFolder
        Where they are.
    table : pyarrow.Table
        For each request ``answers``, its row's custom_id in round 0, its own ``custom_id``, and
        its ``request_hash``.
    """

    job: JobState
    shard: ShardFolder
    table: pa.Table

    def sidecar(self) -> pa.Table:
        """Return the sidecar's rows of these requests, as `read_results` takes them."""
        if self.shard.round == 0:
            number = pa.array(np.full(len(self.table), self.shard.number, np.int32))
            columns = [self.table["answers"], pa.chunked_array([number])]
            return pa.table(dict(zip(SIDECAR_ID_COLUMNS, columns, strict=True)))
        own = self.table["answers"].combine_chunks()
        found = [
            group.filter(pc.is_in(group["custom_id"], value_set=own))
            for group, _ in row_groups(self.job, SIDECAR_ID_COLUMNS)
        ]
        return pa.concat_tables(found)

    def with_feedback(self) -> frozenset[str]:
        """Return the rows, by ``answers``, whose request ends with feedback."""
        # Feedback replaces the feedback before it; the rounds' sidecars know which is there, its
        # text is not searched for. Earlier versions wrote no `change`.
        own, found = self.table["answers"].combine_chunks(), set[str]()
        for round_ in range(1, self.shard.round + 1):
            for group, _ in row_groups(self.job, ["answers", "change"], round_):
                if "change" in group.column_names:
                    corrected = pc.match_substring_regex(group["change"], f"^{FEEDBACK}(, |$)")
                    rows = group["answers"].filter(pc.fill_null(corrected, False))
                    found.update(rows.filter(pc.is_in(rows, value_set=own)).to_pylist())
        return frozenset(found)

    def lines(self, chosen: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the request lines of some rows, each with its row's custom_id in round 0."""
        table = self.table.filter(
            pc.is_in(self.table["answers"], value_set=pa.array(chosen, pa.string()))
        )
        names, answers, hashes = (
            table[name].to_pylist() for name in ("custom_id", "answers", "request_hash")
        )
        rows = dict(zip(names, zip(answers, hashes, strict=True), strict=True))
        if not rows:
            return
        with self.shard.open_requests() as lines:
            for custom_id, line in request_ids(lines):
                if custom_id in rows:
                    row, own = rows[custom_id]
                    # It may be paid for again: rot in the file must not become another question.
                    check_request(self.shard, custom_id, line, own)
                    yield row, line


def last_requests(
    folder: JobFolder, wanted: Collection[str] | None = None
) -> Iterator[LastRequests]:
    """Yield the newest requests of a job's rows, by the shard that they are in.

    Parameters
    ----------
    folder : JobFolder
        The job.
    wanted : collection of str, optional
        The rows, by their custom_id in round 0; all by default.
    """
    some = None if wanted is None else pa.array(wanted, pa.string())
    with folder.opened() as job:
        # Before anything is yielded: what is lost must not pass for rows without an answer.
        for round_ in range(job.rounds()):
            own = job.shards(round_)
            for group, _ in row_groups(job, ["shard"], round_):
                refuse_lost(job, round_, group["shard"].to_numpy(), own)
        for shard in job.all_shards():
            table = _of_shard(job, shard, some)
            # What a later round sent again is found in that round's shards.
            for round_ in range(shard.round + 1, job.rounds()):
                if len(table):
                    table = _without(table, job, round_)
            if len(table):
                yield LastRequests(job, shard, table)


def last_lines(folder: JobFolder, chosen: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the newest request line of some rows, each with the row's custom_id in round 0."""
    for own in last_requests(folder, chosen):
        yield from own.lines(chosen)


def _of_shard(job: JobState, shard: ShardFolder, some: pa.Array | None) -> pa.Table:
    """Return a shard's requests: ``answers``, ``custom_id`` and ``request_hash``, each once."""
    answers = ["answers"] if shard.round else []
    names = [*answers, "custom_id", "request_hash", "shard"]
    found = []
    for own, _ in row_groups(job, names, shard.round, shard.number):
        table = pa.table(
            {
                "answers": own["answers" if shard.round else "custom_id"],
                "custom_id": own["custom_id"],
                "request_hash": own["request_hash"],
            }
        )
        wanted = None if some is None else pc.is_in(table["answers"], value_set=some)
        found.append(table if wanted is None else table.filter(wanted))
    whole = pa.concat_tables(found)
    ids = whole["custom_id"].combine_chunks()
    # Rows that share a request share its line, which is sent once.
    first = np.unique(pc.index_in(ids, value_set=ids).to_numpy())
    return whole if len(first) == len(ids) else whole.take(pa.array(first))


def _without(table: pa.Table, job: JobState, round_: int) -> pa.Table:
    """Leave out the rows that a later round sent again."""
    own = table["answers"].combine_chunks()
    again = np.zeros(len(own), np.bool_)
    for group, _ in row_groups(job, ["answers"], round_):
        found_at = pc.index_in(group["answers"], value_set=own).drop_null()
        again[found_at.to_numpy()] = True
    return table if not again.any() else table.filter(pa.array(~again))
