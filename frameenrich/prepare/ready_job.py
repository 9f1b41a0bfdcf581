"""Write requests that came ready into a draft of their job."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from frameenrich.errors import InputError
from frameenrich.identity.dedupe import JobHash, duplicates, short_hashes
from frameenrich.identity.hashes import HASH_BYTES, request_hash
from frameenrich.identity.keys import key_digests, wire_id
from frameenrich.model import JobSpec, Limits
from frameenrich.prepare.job_draft import JobDraft
from frameenrich.prepare.job_files import job_id, slug_of
from frameenrich.prepare.ready import ReadyRequests, Request, Survey
from frameenrich.prepare.writer import write_requests
from frameenrich.rendering.body import RequestBodies
from frameenrich.rendering.encode_rows import EncodedRows
from frameenrich.store.folder import moment_of_new_job
from frameenrich.store.sidecar import sidecar_metadata
from frameenrich.store.store import Store

KEY = "custom_id"
"""The name of such rows' key column."""


# In bytes, too: requests with images may have megabytes each.
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 256, 1 << 20


def ready_job_id(survey: Survey, spec: JobSpec, nonce: str = "") -> str:
    """Return the id of the job that the requests make, without writing any."""
    job_hash = JobHash()
    # Before anything is written: the same requests again find their job by this id.
    job_hash.add(key_digests(_keys(survey)), survey.hashes)
    return job_id(spec, job_hash, nonce)


def _wire_ids(keys: pa.Table, tag: str) -> list[bytes]:
    # A custom_id that some provider refuses, or of a form that we make ourselves, is sent under
    # another name, hashed with the job's tag so that nobody can prepare two of one name.
    return [wire_id(own, tag).encode() for own in keys["key_0"].to_pylist()]


def _keys(survey: Survey) -> pa.Table:
    return pa.table({"key_0": pa.array(survey.ids, pa.string())})


@contextlib.contextmanager
def draft_of_requests(
    requests: ReadyRequests, survey: Survey, spec: JobSpec, store: Store, limits: Limits
) -> Iterator[JobDraft]:
    """Write requests into a draft, which vanishes at the end unless it is committed.

    Parameters
    ----------
    requests, survey : ReadyRequests, Survey
        The requests, and the result of their check.
    spec : JobSpec
        How they are sent and their answers read.
    store, limits
        Where the job goes, and what one batch file may hold.

    Raises
    ------
    InputError
        The requests changed since they were checked.
    """
    with store.draft() as draft:
        part = write_requests(
            draft,
            _encoded(requests, survey, spec.url),
            _keys(survey),
            spec,
            limits,
            sidecar_metadata(spec, [KEY], moment_of_new_job(store, slug_of(spec))),
            watched=duplicates(np.sort(short_hashes(survey.hashes))),
            name_rows=_wire_ids,
        )
        yield JobDraft(draft, store, spec, limits, [part])


def _encoded(
    requests: ReadyRequests, survey: Survey, url: str
) -> Iterator[tuple[str, EncodedRows]]:
    """Read the requests again, some to one model at a time; refuse any that changed."""
    batch: list[Request] = []
    start = size = 0
    for position, request in enumerate(requests):
        full = position % _ROWS_AT_ONCE == 0 or size >= _BYTES_AT_ONCE
        if batch and (full or request.model != batch[0].model):
            yield batch[0].model, _rows(batch, start, requests, survey, url)
            batch, start, size = [], position, 0
        batch.append(request)
        size += len(request.body)
    if start + len(batch) != len(survey.ids):
        raise _changed(requests)
    yield batch[0].model, _rows(batch, start, requests, survey, url)


def _rows(
    batch: list[Request], start: int, requests: ReadyRequests, survey: Survey, url: str
) -> EncodedRows:
    bodies = [request.body for request in batch]
    hashes = b"".join(request_hash(url, body) for body in bodies)
    stop = start + len(batch)
    # The id, and perhaps the user's consent to a cost, are of the requests that were checked.
    if hashes != survey.hashes[start * HASH_BYTES : stop * HASH_BYTES]:
        raise _changed(requests)
    # The bodies are whole already, so nothing goes around them.
    together = RequestBodies((b"", b""), [bodies], len(bodies))
    return EncodedRows(len(batch), range(start, stop), together, hashes, b"")


def _changed(requests: ReadyRequests) -> InputError:
    return InputError(
        f"{requests.name} changed while it was read.",
        "Submit again when nothing writes to it any more.",
    )
