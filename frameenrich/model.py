"""The words of DESIGN.md §1 as frozen values: no I/O, no pandas, no provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

import msgspec

from frameenrich.errors import ParameterError

Json = Any
"""A value that ``json.loads`` could have returned."""


OnNull = Literal["raise", "empty", "skip"]


BYTES_PER_TOKEN = 4
"""For pacing only: request bytes hold JSON too, so this counts rather too many tokens."""


ImageDetail = Literal["low", "high", "auto"]


MAX_IMAGE_BYTES = 20_000_000
"""How large an image may be where nothing else is said."""


OutputKind = Literal["text", "labels", "schema", "parser", "embedding", "moderation"]


class RowStatus(StrEnum):
    """What became of a row; every row always has exactly one."""

    OK = "ok"
    PENDING = "pending"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    EMPTY = "empty"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    MISSING = "missing"
    SKIPPED = "skipped"

    @property
    def flagged(self) -> bool:
        """Tell whether the status is terminal and not ``ok``.

        Examples
        --------
        >>> RowStatus.EXPIRED.flagged, RowStatus.SKIPPED.flagged
        (True, False)
        """
        return self in FLAGGED


FLAGGED = frozenset(RowStatus) - {RowStatus.OK, RowStatus.PENDING, RowStatus.SKIPPED}


STATUS_ORDER = [
    *(status for status in RowStatus if status.flagged),
    RowStatus.PENDING,
    RowStatus.SKIPPED,
    RowStatus.OK,
]
"""As a person wants to see rows: first what needs a look."""


class BatchStatus(StrEnum):
    """The words a batch's status can be; a provider may send others.

    ``planned`` is ours: the intent is on disk and the provider has given no batch yet.
    The rest are the Batch API's.
    """

    PLANNED = "planned"
    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


TERMINAL = frozenset(
    {BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}
)


@dataclass(frozen=True, slots=True)
class BatchError:
    """One entry of a batch's ``errors.data``; ``line`` counts from 1."""

    code: str | None = None
    message: str | None = None
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A request that the provider's validation refused; it is not sent again as it is."""

    custom_id: str
    message: str


class Stage(StrEnum):
    """How far a shard has come on its way to the provider and back.

    ::

        intent ──> uploading ──> uploaded ──> creating ──> running ──> ended ──> fetched ──> cleaned
          ^            │             ^           │                       │          ^
          │            └─ lost: find │           └─ lost: find by tag    │          │
          │               by name    │                                   │          │
          └── file gone ─────────────┴───── nothing ran: next attempt ───┘          │
          └── cancelled before it was sent, or every request refused ───────────────┘

    ``uploading`` and ``creating`` are on disk before the call and left after its answer is: found
    there by a later process, the call may have been made, and the provider is searched first. A
    provider that takes no file goes from ``intent`` to ``creating``; one that answers in this
    process from ``intent`` to ``running`` to ``fetched``.
    """

    INTENT = "intent"
    UPLOADING = "uploading"
    UPLOADED = "uploaded"
    CREATING = "creating"
    RUNNING = "running"
    ENDED = "ended"
    FETCHED = "fetched"
    CLEANED = "cleaned"


_SETTLED = frozenset({Stage.FETCHED, Stage.CLEANED})


_ENDED = _SETTLED | {Stage.ENDED}


_MOVING = frozenset({"id", "status", "input_file_id"})
"""The fields whose change moves the stage."""


_RUNNING = frozenset(BatchStatus) - TERMINAL - {BatchStatus.PLANNED}


@dataclass(frozen=True)
class Batch:
    """The provider's object for a shard, as last heard.

    ``tag`` is the name we gave it (in the batch's ``metadata`` and the uploaded file's name), on
    disk before any paid call: what a later process looks for. ``stage`` is how far it has come.
    ``status`` is the provider's own word, so it may be one that `BatchStatus` does not know: not
    finished yet. Counts are for progress bars only. Times are Unix seconds.

    ``rejected`` requests were refused by validation and are left out of later attempts.
    ``asked_at`` is when the call that makes the batch was begun, where a provider cannot be
    queried for the tag; ``retry_at`` is when a full queue is tried again; ``reused_from`` names the
    jobs whose answers a shard that was never sent was filled from; ``spent_file_ids`` are uploads
    of earlier attempts. ``requests`` counts the requests of the shard's file; ``imported`` says
    that some of its responses came by other means, so that those fetched are added to them.
    """

    tag: str
    attempt: int = 0
    id: str | None = None
    stage: Stage = Stage.INTENT
    status: str = BatchStatus.PLANNED
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    errors: tuple[BatchError, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    created_at: float | None = None
    ended_at: float | None = None
    asked_at: float | None = None
    retry_at: float | None = None
    reused_from: tuple[str, ...] = ()
    spent_file_ids: tuple[str, ...] = ()
    requests: int | None = None
    imported: bool = False

    def __post_init__(self) -> None:
        """Let the stage of a batch that is made anew follow its ids and status."""
        if self.stage is Stage.INTENT:
            object.__setattr__(self, "stage", _stage_by_status(self))

    @property
    def unsent(self) -> bool:
        """Tell whether the provider is still to be given it, or to be asked whether it has it."""
        return self.id is None and not self.ended

    @property
    def running(self) -> bool:
        """Tell whether the provider has it and may still do something for it."""
        return self.id is not None and not self.ended

    @property
    def ended(self) -> bool:
        """Tell whether the provider will do nothing more for it."""
        return self.stage in _ENDED

    @property
    def settled(self) -> bool:
        """Tell whether it has ended and all its lines are on disk."""
        return self.stage in _SETTLED

    @property
    def creating(self) -> bool:
        """Tell whether the call that makes the batch may have been made, and its answer be lost."""
        return self.stage is Stage.CREATING

    def to_json(self) -> str:
        """Return the text of ``batch.json``.

        Examples
        --------
        >>> Batch.from_json(Batch("llmbatch-1f", id="batch_7").to_json()).id
        'batch_7'
        """
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Batch:
        """Read back what `to_json` wrote, now or in an older version.

        Fields that a later version added are passed over.

        Raises
        ------
        ValueError
            It is no JSON, or some field has another type.
        """
        loaded = json.loads(text)
        batch = msgspec.convert(loaded, cls, strict=False)
        if "stage" in loaded:
            return batch
        return replace(batch, stage=_stage_from_flags(msgspec.convert(loaded, _Flags), batch))

    def replace(self, **changes: Any) -> Batch:
        """Return a copy with some fields changed.

        Where ids or ``status`` change and no ``stage`` is given, the stage follows them.

        Examples
        --------
        >>> Batch("llmbatch-1f").replace(id="batch_7", status="in_progress").stage.value
        'running'
        """
        moved = replace(self, **changes)
        if "stage" in changes or changes.keys().isdisjoint(_MOVING):
            return moved
        return replace(moved, stage=_stage_by_status(moved))

    def but(self, **changes: Any) -> Batch:
        """Return a copy with some fields changed, as `replace` does.

        For providers written before there were stages: ``uploading``, ``creating``, ``fetched``
        and ``deleted``, the flags of that time, are taken too.
        """
        flags = {name: changes.pop(name) for name in _FLAG_NAMES & changes.keys()}
        moved = self.replace(**changes)
        if not flags:
            return moved
        own = {
            "uploading": self.stage is Stage.UPLOADING,
            "creating": self.creating,
            "fetched": self.settled,
            "deleted": self.stage is Stage.CLEANED,
        }
        return replace(moved, stage=_stage_from_flags(_Flags(**(own | flags)), moved))


@dataclass(frozen=True)
class _Flags:
    """What ``batch.json`` had before there were stages."""

    uploading: bool = False
    creating: bool = False
    fetched: bool = False
    deleted: bool = False


_FLAG_NAMES = frozenset(_Flags.__dataclass_fields__)


def _stage_by_status(batch: Batch) -> Stage:
    if batch.status in TERMINAL:
        return batch.stage if batch.ended else Stage.ENDED
    if batch.id is not None or batch.status in _RUNNING:
        return Stage.RUNNING
    uploaded = batch.stage is Stage.INTENT and batch.input_file_id
    return Stage.UPLOADED if uploaded else batch.stage


def _stage_from_flags(flags: _Flags, batch: Batch) -> Stage:
    if batch.status in TERMINAL:
        if not flags.fetched:
            return Stage.ENDED
        return Stage.CLEANED if flags.deleted else Stage.FETCHED
    if batch.id is None and flags.creating:
        return Stage.CREATING
    if batch.id is None and flags.uploading:
        return Stage.UPLOADING
    if batch.id is not None or batch.status != BatchStatus.PLANNED:
        return Stage.RUNNING
    return Stage.UPLOADED if batch.input_file_id else Stage.INTENT


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the prompt: its role and the Jinja2 source of its content."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What an answer has to be, in a form that can be stored.

    ``schema`` is the JSON Schema that was asked for (``None`` for plain text, a parser and
    embeddings); its properties are the output columns. ``dimensions`` is how long a vector has to
    be, where that was asked for. ``class_rules`` names the class that the schema was made of, and
    the kinds of its rules that are code; empty where it has none.
    """

    kind: OutputKind = "text"
    schema: Mapping[str, Json] | None = None
    dimensions: int | None = None
    class_rules: tuple[str, ...] = ()


def _output_spec(stored: Mapping[str, Any]) -> OutputSpec:
    return OutputSpec(**{**stored, "class_rules": tuple(stored.get("class_rules", ()))})


@dataclass(frozen=True, slots=True)
class Pace:
    """Pace at which a provider that answers one call at a time may ask.

    ``max_in_flight`` is how many requests may wait for their answers at once.
    """

    max_in_flight: int = 64
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def __post_init__(self) -> None:
        """Refuse a limit that lets nothing through."""
        for name, limit in asdict(self).items():
            if limit is not None and (type(limit) is not int or limit < 1):
                raise ParameterError(
                    f"{name}={limit!r} lets nothing through.", "Give a whole number above 0."
                )


HASHES = 2
"""How hashes are made now: of digests (`identity.hashes`); in version 1 of whole bodies."""


RENDERING = 2
"""How cells are printed now: a whole number as one; in version 1 a float 3 as ``3.0``."""


@dataclass(frozen=True)
class JobSpec:
    """Everything that decides what a job sends and how its answers are read.

    ``messages`` is empty where the requests came ready (`frameenrich.submit_requests`).
    ``pace`` is None where nobody asked for one; a ``pilot`` is asked before the job it is for.
    ``version`` says how the hashes of its sidecar were made, ``rendering`` how its cells were
    printed; the latter is no part of the job's id, so that an earlier version's job is found.
    """

    name: str
    model: str
    messages: tuple[Message, ...]
    endpoint: str = "/v1/chat/completions"
    url: str = "/v1/chat/completions"
    provider: str = "openai"
    params: Mapping[str, Json] = field(default_factory=dict)
    output: OutputSpec = OutputSpec()
    key: tuple[str, ...] | None = None
    prefix: str = ""
    on_null: OnNull = "raise"
    sources: Mapping[str, str] = field(default_factory=dict)
    max_enqueued_tokens: int | None = None
    max_cost: float | None = None
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pace: Pace | None = None
    pilot: bool = False
    image: tuple[str, ...] = ()
    image_root: str = "."
    image_detail: ImageDetail | None = None
    image_max_pixels: int | None = None
    image_max_bytes: int = MAX_IMAGE_BYTES
    metadata: Mapping[str, str] = field(default_factory=dict)
    completion_window: str | None = None
    version: int = HASHES
    rendering: int = RENDERING

    @property
    def models(self) -> tuple[str, ...]:
        """The models that round 0 asks; several only where the requests came ready.

        Examples
        --------
        >>> JobSpec("answer", "gpt-4o, gpt-4o-mini", ()).models
        ('gpt-4o', 'gpt-4o-mini')
        """
        return (self.model,) if self.messages else tuple(self.model.split(", "))

    def to_json(self) -> str:
        """The text kept in the sidecar's metadata; the order of a schema's properties stays."""
        return json.dumps(asdict(self))

    def identity_json(self) -> str:
        """The text that the job's id is made of; a job of rendering 1 has the same.

        Neither pace nor money is identity, nor what goes along with a batch, nor where images lie:
        the input hashes know them.
        """
        same = replace(
            self, max_enqueued_tokens=None, pace=None, max_cost=None, prices={}, image_root="."
        )
        loaded = asdict(same)
        for younger in ("rendering", "metadata", "completion_window"):
            del loaded[younger]
        del loaded["output"]["class_rules"]  # younger than the ids; answers do not depend on it
        return json.dumps(loaded)

    @classmethod
    def from_json(cls, text: str | bytes) -> JobSpec:
        """Read back what `to_json` wrote."""
        loaded = json.loads(text)
        return cls(
            **{
                **{name: value for name, value in loaded.items() if name in _SPEC_FIELDS},
                "messages": tuple(Message(**each) for each in loaded["messages"]),
                "output": _output_spec(loaded["output"]),
                "key": None if loaded["key"] is None else tuple(loaded["key"]),
                "image": tuple(loaded.get("image", ())),
                "pace": Pace(**loaded["pace"]) if loaded.get("pace") else None,
                "rendering": loaded.get("rendering", 1),
            }
        )


_SPEC_FIELDS = frozenset(JobSpec.__dataclass_fields__)


class Response(msgspec.Struct, frozen=True, gc=False):
    """What came back for one custom_id: the envelope opened, the answer not yet judged."""

    custom_id: str
    status_code: int | None
    body: Json
    error: str | None = None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What the provider says an answer took; tokens."""

    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None


class Result(msgspec.Struct, frozen=True, gc=False):
    """A response after parsing: a status, and values or the reason why not.

    ``values`` holds one value per output column, in their order; ``raw`` is the answer's text.
    ``status_code`` is the HTTP status of a ``failed`` request, where there was one; ``confidence``
    is how sure the model was of a label (`frameenrich.answers.confidence`), ``reasoning`` what it
    thought before it answered.
    """

    custom_id: str
    status: RowStatus
    values: tuple[Any, ...] | None = None
    error: str | None = None
    raw: str | None = None
    usage: Usage = Usage()
    repaired: bool = False
    status_code: int | None = None
    confidence: float | None = None
    reasoning: str | None = None

    @property
    def repairable(self) -> bool:
        """Tell whether asking again may mend it: not what was refused, as content or as a request.

        Examples
        --------
        >>> Result("row-1", RowStatus.FAILED, status_code=429).repairable
        True
        >>> Result("row-1", RowStatus.FAILED, status_code=400).repairable
        False
        """
        if self.status is RowStatus.FAILED:
            code = self.status_code
            return code is None or code not in range(400, 500) or code in _PASSING_CODES
        return self.status.flagged and self.status is not RowStatus.REFUSED


_PASSING_CODES = frozenset({408, 409, 429})
"""Of the 4xx, those that are about the moment and not about the request; the SDK retries them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one batch file may hold, and how long a full queue is left alone.

    ``max_bytes`` counts the file's bytes.
    """

    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    queue_wait_seconds: float = 60.0

    def within_tokens(self, max_tokens: int | None) -> Limits:
        """Smaller files, so that one alone fits a queue of so many prompt tokens.

        Examples
        --------
        >>> Limits().within_tokens(1_000).max_bytes
        4000
        """
        if max_tokens is None:
            return self
        return replace(self, max_bytes=min(self.max_bytes, max_tokens * BYTES_PER_TOKEN))
