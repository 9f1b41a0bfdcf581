"""Find the spent rows of a job: the author of its prompt knew their right answers.

A row is spent where the prompt shows it as an example, or where people judged it, in an earlier job
of the same name, before this job's prompt was written: authors edit a prompt until such rows are
right. Nothing of it is stored; it follows from the jobs and reviews of the store.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from frameenrich.errors import InputError, StoreError
from frameenrich.evaluation.review_files import kept_sheets, read_draw, review_ids
from frameenrich.evaluation.sheet import SheetReader, parse_sheet
from frameenrich.identity.keys import find_keys, sidecar_keys
from frameenrich.store.folder import JobFolder, JobPath

_Marks = npt.NDArray[np.bool_]


def shown_rows(folder: JobFolder) -> _Marks:
    """Mark the rows of a job that its own prompt shows as examples."""
    # Most prompts show none, and the hashes of all rows are as large as many columns.
    if not folder.spec.examples:
        return np.zeros(folder.row_count, bool)
    hashes = folder.sidecar(columns=["input_hash"])["input_hash"].combine_chunks()
    shown = pa.array([bytes.fromhex(own) for own in folder.spec.examples], hashes.type)
    marks: _Marks = pa.compute.is_in(hashes, value_set=shown).to_numpy(zero_copy_only=False)
    return marks


def reviewed_before(folder: JobFolder) -> _Marks:
    """Mark the rows of a job that were judged, by their key, before its prompt was written."""
    marks = np.zeros(folder.row_count, bool)
    namesakes = list(_namesakes(folder))
    prompt = _prompt(folder)
    # Another model may get the same prompt later: its prompt is as old as its first job.
    written = min([folder.created_at, *(j.created_at for j in namesakes if _prompt(j) == prompt)])
    earlier = [
        other
        for other in namesakes
        if other.created_at < written and len(other.key_names) == len(folder.key_names)
    ]
    judged = [keys for other in earlier for keys in _judged_keys(other, written)]
    if not judged:
        return marks
    own = sidecar_keys(folder.sidecar(columns=folder.key_columns))
    for keys in judged:
        at = find_keys(keys, own)
        marks[at[at >= 0]] = True
    return marks


def _namesakes(folder: JobFolder) -> Iterator[JobFolder]:
    """Yield the other jobs of the same name."""
    # The id begins with the name's slug, so most jobs are passed over without being read.
    slug = folder.id.rpartition("-")[0]
    for job_id in folder.store.job_ids():
        if job_id != folder.id and job_id.rpartition("-")[0] == slug:
            with contextlib.suppress(StoreError):  # a damaged job must not stop this one's figures
                other = JobPath(folder.store, job_id).open()
                if other.spec.name == folder.spec.name:
                    yield other


def _prompt(folder: JobFolder) -> tuple[object, ...]:
    spec = folder.spec
    return spec.messages, json.dumps(spec.output.schema), spec.image


def _judged_keys(folder: JobFolder, before: float) -> Iterator[pa.Table]:
    """Yield the keys of the rows that a job's sheets, added before a moment, have filled in."""
    for review_id in review_ids(folder):
        draw = read_draw(folder, review_id)
        keys = draw.select([name for name in draw.column_names if name.startswith("key_")])
        for name, data, said in kept_sheets(folder, review_id):
            if said.added_at >= before:
                continue
            with contextlib.suppress(InputError):
                at = SheetReader(name, review_id, keys, folder.key_names, {}, {}).judged(
                    parse_sheet(data, name)
                )
                yield keys.take(pa.array(at))
