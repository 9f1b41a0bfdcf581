"""Write a job's rows, as its first round sent them, into a draft of a job for another model."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from frameenrich.identity.hashes import request_hash
from frameenrich.identity.keys import sidecar_keys
from frameenrich.jsonl import encode, request_ids
from frameenrich.model import JobSpec, Json, Limits
from frameenrich.prepare.job_draft import JobDraft
from frameenrich.prepare.job_files import slug_of
from frameenrich.prepare.writer import write_requests
from frameenrich.rendering.body import RequestBodies
from frameenrich.rendering.caching import without_marks
from frameenrich.rendering.encode_rows import EncodedRows, encode_texts
from frameenrich.store.folder import JobFolder, moment_of_new_job
from frameenrich.store.sidecar import sidecar_metadata
from frameenrich.store.store import Store

_ROWS_AT_ONCE = 256

Positions = npt.NDArray[np.int64]


@contextlib.contextmanager
def draft_of_same_rows(
    folder: JobFolder,
    positions: Positions,
    spec: JobSpec,
    store: Store,
    limits: Limits,
    words: str = "",
) -> Iterator[JobDraft]:
    """Write some rows of a job into a draft, which vanishes at the end unless it is committed.

    Parameters
    ----------
    folder : JobFolder
        The job that has the rows.
    positions : int64 array
        The rows to write; those without a request are left out.
    spec : JobSpec
        The new job's spec.
    store, limits
        Where the job goes, and what one batch file may hold.
    words : str
        An addition to the first job's system message.
    """
    rows = folder.sidecar(columns=[*folder.key_columns, "custom_id", "input_hash"])
    ids = pa.array([own for own, _ in _requests(folder)], pa.string())
    line_of: Positions = pc.index_in(rows["custom_id"], value_set=ids).fill_null(-1).to_numpy()
    chosen = positions[line_of[positions] >= 0]
    # In the order of the files, which are then read once, from front to back.
    chosen = chosen[np.argsort(line_of[chosen], kind="stable")]
    rows, lines = rows.take(pa.array(chosen)), line_of[chosen]
    with store.draft() as draft:
        part = write_requests(
            draft,
            ((spec.model, found) for found in _encoded(folder, rows, lines, spec, words)),
            sidecar_keys(rows),
            spec,
            limits,
            sidecar_metadata(spec, folder.key_names, moment_of_new_job(store, slug_of(spec))),
        )
        yield JobDraft(draft, store, spec, limits, [part])


def _requests(folder: JobFolder) -> Iterator[tuple[str, bytes]]:
    """Yield each request of the first round, also those with reused answers, never sent."""
    for shard in folder.shards(0):
        with shard.open_requests() as lines:
            yield from request_ids(lines)


def _encoded(
    folder: JobFolder, rows: pa.Table, lines: Positions, spec: JobSpec, words: str
) -> Iterator[EncodedRows]:
    """Yield the new requests of rows; ``lines`` are the numbers of their old ones, ascending."""
    bodies: list[Json] = []
    row = start = 0
    for number, (_, line) in enumerate(_requests(folder)):
        # Several rows may share one request.
        while row < len(lines) and lines[row] == number:
            # The new model's server may not know the first one's cache marks.
            bodies.append(_with_words(without_marks(json.loads(line)["body"]), words))
            row += 1
            if len(bodies) == _ROWS_AT_ONCE:
                yield _chunk(bodies, start, rows, spec)
                bodies, start = [], row
    if bodies:
        yield _chunk(bodies, start, rows, spec)


def _with_words(body: Json, words: str) -> Json:
    """Add words to a request's system message, as `with_system_text` does to a template's."""
    name = "input" if "input" in body else "messages"
    if not words or not isinstance(body.get(name), list):
        return body
    turns = list(body[name])
    at = next((i for i, t in enumerate(turns) if t["role"] in {"system", "developer"}), None)
    # As in `with_system_text`, so that these requests are the same as a submit's.
    if at is None:
        turns.insert(0, {"role": "system", "content": words})
    else:
        said = f"{turns[at]['content'].rstrip()}\n\n{words}".lstrip("\n")
        turns[at] = {**turns[at], "content": said}
    return {**body, name: turns}


def _chunk(bodies: Sequence[Json], start: int, rows: pa.Table, spec: JobSpec) -> EncodedRows:
    hashes = rows["input_hash"].slice(start, len(bodies)).to_pylist()
    # Ready requests have no input hash.
    own = b"".join(each or b"" for each in hashes)
    texts = [_texts(body) for body in bodies]
    whole = [each for each in texts if each is not None and len(each) == len(spec.messages)]
    if spec.messages and len(whole) == len(bodies):
        # The same bytes as a submit of these rows, so that stored answers to it are reused.
        return encode_texts(spec, list(zip(*whole, strict=True)), start)
    # Requests with images and ready requests cannot be made of texts: change their bodies.
    written = [encode({**body, "model": spec.model, **spec.params}) for body in bodies]
    named = b"".join(request_hash(spec.url, body) for body in written)
    pieces = RequestBodies((b"", b""), [written], len(written))
    return EncodedRows(len(bodies), range(start, start + len(bodies)), pieces, named, own)


def _texts(body: Json) -> list[str] | None:
    """Return the texts of a request's messages; None where one of them is no text."""
    conversation: Any = body.get("messages", body.get("input", body.get("prompt")))
    if isinstance(conversation, str):
        return [conversation]
    contents = [each.get("content") for each in conversation if isinstance(each, dict)]
    texts = [each for each in contents if isinstance(each, str)]
    return texts if len(texts) == len(contents) else None
