"""A batch at the provider: its status, how far it has come, and what ``batch.json`` says."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import msgspec
import xxhash

from frameenrich.text import encodable, is_encodable


class BatchStatus(StrEnum):
    """The known values of a batch's status; a provider may send others.

    Ours are ``planned``, the intent is on disk and the provider has given no batch yet;
    ``waiting``, another job of the store has asked the same and may yet have the answers;
    ``unconfirmed``, nobody can say yet whether it has one; and ``lost``, it has it no more, and
    the user said not to wait. The rest are the Batch API's.
    """

    PLANNED = "planned"
    WAITING = "waiting"
    UNCONFIRMED = "unconfirmed"
    LOST = "lost"
    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


TERMINAL = frozenset(
    {
        BatchStatus.COMPLETED,
        BatchStatus.FAILED,
        BatchStatus.EXPIRED,
        BatchStatus.CANCELLED,
        BatchStatus.LOST,
    }
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
    """A request that the provider's validation refused; it is not sent again unchanged."""

    custom_id: str
    message: str


# Intent first: the stage is on disk before a call that costs money, so that a killed process leaves
# a trace of it. The SDK's own retries are off for the same reason: they would make a batch twice.
class Stage(StrEnum):
    """The stages of a shard on its way to the provider and back.

    ::

        intent ──> uploading ──> uploaded ──> creating ──> running ──> ended ──> fetched ──> cleaned
          ^            │             ^           │                       │          ^
          │            └─ lost: find │           └─ lost: find by tag    │          │
          │               by name    │                                   │          │
          └── file gone ─────────────┴───── nothing ran: next attempt ───┘          │
          └── cancelled before it was sent, or every request refused ───────────────┘

    ``waiting`` comes before ``intent``, where another job of the store has asked the same: what
    that answers is taken over, and the rest is sent.
    ``uploading`` and ``creating`` are on disk before the call and left after its answer is: found
    there by a later process, the call may have been made, and the provider is searched first. A
    provider that takes no file goes from ``intent`` to ``creating``; one that answers in this
    process from ``intent`` to ``running`` to ``fetched``.
    """

    WAITING = "waiting"
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


# Of our own words these say that the provider has no such batch, or none that we know of.
_RUNNING = (
    frozenset(BatchStatus)
    - TERMINAL
    - {
        BatchStatus.PLANNED,
        BatchStatus.WAITING,
        BatchStatus.UNCONFIRMED,
    }
)


@dataclass(frozen=True, slots=True)
class Proof:
    """Length and hashes of a file as it was written."""

    bytes: int
    sha256: str
    xxh3: str


TAKEN_OVER = "taken-over"
"""The id of an import that holds answers which other jobs of the store paid for."""


@dataclass(frozen=True, slots=True)
class Import:
    """Lines that came by other means than the provider; ``id`` names their file.

    ``name`` is what the file was called that they came in, ``at`` when, in Unix seconds.
    """

    id: str
    name: str
    at: float
    lines: int
    proof: Proof


@dataclass(frozen=True)
class Batch:
    """The provider's object for a shard, as of its last reply.

    ``tag`` is the name we gave it (in the batch's ``metadata`` and the uploaded file's name), on
    disk before any paid call: what a later process looks for. ``stage`` is how far it has come.
    ``status`` is the provider's own word, so it may be one that `BatchStatus` does not know: not
    finished yet. Counts are for progress bars only. Times are Unix seconds.

    ``rejected`` requests were refused by validation and are left out of later attempts.
    ``asked_at`` is when the call that makes the batch was begun, ``creates`` how often that was,
    ``unfound_since`` when a search first found none after its answer was lost, or the provider
    first answered that there is no such batch. ``waits_for`` names the jobs that sent the same.
    ``short`` says what is missing in what an ended batch left, ``short_since`` since when it is
    read again for that. ``retry_at`` is when a full queue is tried again; ``reused_from`` names the
    jobs whose answers a shard that was never sent was filled from; ``spent_file_ids`` are uploads
    of earlier attempts. ``requests`` counts the requests of the shard's file, which are the
    different custom_ids that the sidecar has for it; ``requests_xxh3`` is that file's hash;
    ``responses`` proves its responses file.
    ``imports`` are responses that came by other means, ``before_import`` what the batch was when
    these ended it; ``imported`` is what earlier versions wrote, who put both into one file.
    ``provider`` is where the shard goes, where that is not the job's own provider.
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
    provider: str | None = None
    creates: int = 0
    unfound_since: float | None = None
    responses: Proof | None = None
    imports: tuple[Import, ...] = ()
    before_import: dict[str, Any] | None = None
    waits_for: tuple[str, ...] = ()
    # What an ended batch left is counted, though counts decide no row: fewer lines than the batch
    # counts answers are a reason to read again, never one to call a row done or missing at once.
    short: str | None = None
    short_since: float | None = None
    requests_xxh3: str | None = None

    def __post_init__(self) -> None:
        """Let the stage of a batch that is made anew follow its ids and status."""
        # A provider builds a Batch from a server's ids and status; only we know of stages.
        if self.stage is Stage.INTENT:
            object.__setattr__(self, "stage", _stage_by_status(self))

    @property
    def unsent(self) -> bool:
        """Tell whether it is still to be sent, or to be searched for at the provider."""
        return self.id is None and not self.ended and not self.waiting

    @property
    def waiting(self) -> bool:
        """Tell whether it waits for other jobs of the store that sent the same requests."""
        return self.stage is Stage.WAITING

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
        """Tell whether the call that creates the batch may have been made, and its reply lost."""
        return self.stage is Stage.CREATING

    def to_json(self) -> str:
        """Return the text of ``batch.json``.

        Examples
        --------
        >>> Batch.from_json(Batch("llmbatch-1f", id="batch_7").to_json()).id
        'batch_7'
        """
        members = asdict(self)
        return json.dumps({**members, _MARK: _mark_of(members)}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Batch:
        """Read back what `to_json` wrote, now or in an older version.

        Fields that a later version added are passed over.

        Raises
        ------
        ValueError
            It is no JSON, some field has another type, or it is not as it was written.
        """
        loaded = json.loads(text)
        # One flipped bit makes another batch of an id, or one that was never sent of its stage.
        if isinstance(loaded, dict) and loaded.pop(_MARK, None) not in {None, _mark_of(loaded)}:
            raise ValueError("its members are not those that were written")
        batch = msgspec.convert(loaded, cls, strict=False)
        # Half a surrogate pair, in somebody else's store, could stand in no table of jobs.
        if not is_encodable(f"{batch.status}{batch.provider}"):
            shown = {"status": encodable(batch.status), "provider": encodable(batch.provider)}
            batch = replace(batch, **shown)
        # Versions before stages wrote flags, from which the stage is derived once, on reading.
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
        # A stage that is given wins; counts and times move none.
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
        # The other flags are read off the stage, so that a provider can change one of them alone.
        own = {
            "uploading": self.stage is Stage.UPLOADING,
            "creating": self.creating,
            "fetched": self.settled,
            "deleted": self.stage is Stage.CLEANED,
        }
        return replace(moved, stage=_stage_from_flags(_Flags(**(own | flags)), moved))


def begun_at(noted: float | None) -> float:
    """Return when a wait began; now where nothing is noted, or a clock that was set back since.

    Waiting for the noted moment to come again would make a minute a day.

    Examples
    --------
    >>> begun_at(1.0), begun_at(time.time() + 86_400) <= time.time()
    (1.0, True)
    """
    now = time.time()
    return now if noted is None or noted > now else noted


_MARK = "xxh3"
"""The member of ``batch.json`` that has the hash of all others; earlier versions wrote none."""


def _mark_of(members: Mapping[str, Any]) -> str:
    # In one form, whatever the file's: what a version wrote and another one reads has one mark.
    whole = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_64_hexdigest(whole.encode())


@dataclass(frozen=True)
class _Flags:
    """The fields of ``batch.json`` from the time before stages."""

    uploading: bool = False
    creating: bool = False
    fetched: bool = False
    deleted: bool = False


_FLAG_NAMES = frozenset(_Flags.__dataclass_fields__)


def _stage_by_status(batch: Batch) -> Stage:
    if batch.status in TERMINAL:
        # A later stage stays: a late poll must not make lines be fetched twice.
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
    # With an id the call's answer has arrived, and the flags of a call in doubt no longer count.
    if batch.id is None and flags.creating:
        return Stage.CREATING
    if batch.id is None and flags.uploading:
        return Stage.UPLOADING
    if batch.id is not None or batch.status != BatchStatus.PLANNED:
        return Stage.RUNNING
    return Stage.UPLOADED if batch.input_file_id else Stage.INTENT
