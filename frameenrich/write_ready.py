"""From requests that were ready to a job's folder: hash, cut, write. Nothing is sent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from frameenrich.draft import Draft
from frameenrich.errors import InputError
from frameenrich.hashes import HASH_BYTES, request_hash
from frameenrich.keys import key_digests, wire_id
from frameenrich.model import JobSpec, Limits
from frameenrich.output import Output
from frameenrich.ready import ReadyRequests, Survey
from frameenrich.repeats import Halves, JobHash, column_halves, repeated
from frameenrich.rows import hash_column
from frameenrich.shard import ShardCutter, request_line
from frameenrich.spool import Answers, requests_name, sidecar_metadata
from frameenrich.store import JobFolder, Store
from frameenrich.write import Approve, FindAnswers, check_key_names, finish, slug

KEY = "custom_id"
"""What a person knows such a row by."""


def write_ready(
    requests: ReadyRequests,
    survey: Survey,
    spec: JobSpec,
    store: Store,
    limits: Limits,
    *,
    nonce: str = "",
    find_answers: FindAnswers | None = None,
    approve: Approve | None = None,
) -> JobFolder:
    """Write requests into a new job folder, or find the one that is there already.

    Parameters
    ----------
    requests, survey : ReadyRequests, Survey
        The requests, and what they were found to be when they were checked.
    spec : JobSpec
        How they are sent and their answers read.
    store, limits, nonce, find_answers, approve
        As `frameenrich.write.write_job` takes them.

    Raises
    ------
    InputError
        The requests changed since they were checked.
    ColumnCollisionError
        Answers would go to a column that is called as the key.
    """
    check_key_names([KEY], spec, Output(spec.output))
    keys = pa.table({"key_0": pa.array(survey.ids, pa.string())})
    job_hash = JobHash()
    job_hash.add(key_digests(keys), survey.hashes)
    job_id = f"{slug(spec.name)}-{job_hash.hexdigest(spec, nonce)[:16]}"
    if store.has(job_id):
        return store.job(job_id)
    hashes = hash_column(survey.hashes)
    asked = np.sort(column_halves(pa.chunked_array([hashes])))
    answers = find_answers(asked) if find_answers else None
    with store.draft() as draft:
        filing = _Filing(draft, spec.url, limits, answers, repeated(asked))
        _file_all(requests, survey, filing)
        columns = {
            **dict(zip(keys.column_names, keys.columns, strict=True)),
            "custom_id": pa.array(filing.ids, pa.string()),
            "request_hash": hashes,
            "input_hash": pa.nulls(len(keys), pa.binary(HASH_BYTES)),  # of no frame
            "shard": pa.array(np.asarray(filing.numbers, dtype="int32")),
        }
        finish(draft, job_id, filing, answers)
        if approve is not None:
            sent = range(filing.first_shard, filing.shards)
            approve(draft.lines(map(requests_name, sent)))
        draft.write_sidecar(
            pa.table(columns).replace_schema_metadata(sidecar_metadata(spec, [KEY]))
        )
        draft.commit(job_id)
    return store.job(job_id)


def _file_all(requests: ReadyRequests, survey: Survey, filing: _Filing) -> None:
    """File each request, which is still the one that was checked."""
    for position, request in enumerate(requests):
        known = bytes(survey.hashes[position * HASH_BYTES : (position + 1) * HASH_BYTES])
        if request_hash(filing.url, request.body) != known:
            raise _changed(requests)
        filing.put(survey.ids[position], request.model, request.body, known)
    if len(filing.ids) != len(survey.ids):
        raise _changed(requests)


def _changed(requests: ReadyRequests) -> InputError:
    return InputError(
        f"{requests.name} changed while it was read.", "Submit again when nobody writes there."
    )


@dataclass
class _Filing:
    """Puts each distinct request into a shard's file; a file holds requests to one model.

    ``watched`` are the halves of hashes that stand more than once: only those are remembered.
    ``reused`` requests go to shard 0, which is never sent.
    """

    draft: Draft
    url: str
    limits: Limits
    answers: Answers | None
    watched: Halves
    ids: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    reused: dict[bytes, str] = field(default_factory=dict)
    _counts: Counter[int] = field(default_factory=Counter)
    _sent: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    _cutters: dict[str, ShardCutter] = field(default_factory=dict)
    _shards: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._repeated = frozenset(self.watched.tolist())

    @property
    def first_shard(self) -> int:
        """The first shard that is to be sent."""
        return 0 if self.answers is None else 1

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return self.first_shard + len(self._shards)

    def requests(self, number: int) -> int:
        """How many requests a shard has."""
        return self._counts[number]

    def put(self, custom_id: str, model: str, body: bytes, own_hash: bytes) -> None:
        """File one request, or note which one like it is filed already."""
        name, number = self._sent.get(own_hash) or self._filed(custom_id, model, body, own_hash)
        if int.from_bytes(own_hash[:8], "little") in self._repeated:
            self._sent[own_hash] = (name, number)
        self.ids.append(name)
        self.numbers.append(number)

    def _filed(self, custom_id: str, model: str, body: bytes, own_hash: bytes) -> tuple[str, int]:
        name, number = wire_id(custom_id), 0
        line = request_line(name, self.url, body)
        if self.answers is not None and own_hash in self.answers.origins:
            self.reused[own_hash] = name
        else:
            number = self._place(model, len(line))
        self._counts[number] += 1
        self.draft.file(requests_name(number)).write(line)
        return name, number

    def _place(self, model: str, line_bytes: int) -> int:
        cutter = self._cutters.setdefault(model, ShardCutter(self.limits))
        own = cutter.place(line_bytes, len(self.ids))
        if (model, own) not in self._shards:
            if own:  # one file a model is open, however many there are
                self.draft.close_file(requests_name(self._shards[model, own - 1]))
            self._shards[model, own] = self.shards
        return self._shards[model, own]
