"""Describe a job, what it sends and how its answers are read, as one frozen value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import msgspec

from frameenrich.errors import ParameterError
from frameenrich.model.result import Json
from frameenrich.text import encodable

CONFIRM_SECONDS = 60.0
"""For how long a create whose answer was lost is looked for before it is made again."""


OnNull = Literal["raise", "empty", "skip"]


ImageDetail = Literal["low", "high", "auto"]


OnBadImage = Literal["raise", "skip"]


MAX_IMAGE_BYTES = 20_000_000
"""How large an image may be where nothing else is said."""


JsonMode = Literal["auto", "schema", "object", "tools", "prompt"]
"""How structure is asked for, as a user writes it."""


AskedBy = Literal["schema", "object", "tools", "prompt"]
"""How structure is asked for, when ``auto`` is decided."""


OutputKind = Literal["text", "labels", "schema", "parser", "embedding", "moderation"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the prompt: its role and the Jinja2 source of its content."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """The required form of an answer, in a form that can be stored.

    ``schema`` is the JSON Schema that was asked for (``None`` for plain text, a parser and
    embeddings); its properties are the output columns. ``dimensions`` is how long a vector has to
    be, where that was asked for. ``class_rules`` names the class that the schema was made of, and
    the kinds of its rules that are code; empty where it has none. ``samples`` is how many answers
    each request asks for. ``exact`` says that `true` is no number and 1 no boolean: where the
    schema is the user's, or made of a dict of types. A class reads by its own rules, and jobs of
    earlier versions are read as they were.
    """

    kind: OutputKind = "text"
    schema: Mapping[str, Json] | None = None
    dimensions: int | None = None
    class_rules: tuple[str, ...] = ()
    samples: int = 1
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """Pace at which a provider that answers one call at a time may ask.

    ``max_in_flight`` is how many requests may wait for their answers at once,
    ``request_timeout_seconds`` for how long each waits; None as the provider has it.
    """

    max_in_flight: int = 64
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    request_timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse a limit that lets nothing through."""
        for name in ("max_in_flight", "requests_per_minute", "tokens_per_minute"):
            limit = getattr(self, name)
            # type() and not isinstance(), as True is an int, too.
            if limit is not None and (type(limit) is not int or limit < 1):
                raise ParameterError(
                    f"{name}={limit!r} lets nothing through.", "Give a whole number above 0."
                )
        seconds = self.request_timeout_seconds
        if seconds is not None and not (type(seconds) in {int, float} and 0 < seconds < math.inf):
            raise ParameterError(
                f"request_timeout_seconds={seconds!r} leaves no time for an answer.",
                "Give a number of seconds above 0, such as 600.",
            )


HASHES = 3
"""How hashes are made now: SHA-256; in version 2 XXH3 (`identity.older`), in 1 of whole bodies."""


# Random, and in the spec: the custom_ids need it before the first row is read.
TAG_LENGTH = 6
"""Characters of the tag that ends a job's custom_ids."""


SCHEMA_FORM = 3
"""How a schema is written into requests now: with the descriptions beside references; in version 2
without them, in version 1 with formats that strict output refuses, too."""


RENDERING = 3
"""How cells are printed now: a list with commas, whatever held it; in version 2 an array of NumPy
without; in version 1, too, a float 3 as ``3.0``."""


CachedBy = Literal["", "cache_control", "breakpoint"]
"""Which mark the system message carries: Anthropic's, OpenAI's, or none."""


@dataclass(frozen=True)
class JobSpec:
    """Everything that decides what a job sends and how its answers are read.

    ``messages`` is empty where the requests came ready (`frameenrich.submit_requests`).
    ``pace`` is None where nobody asked for one; a ``pilot`` is asked before the job it is for.
    ``version`` says how the hashes of its sidecar were made, ``rendering`` how its cells were
    printed; the latter is no part of the job's id, so that an earlier version's job is found.
    ``json_mode`` is what the user wrote, ``asked_by`` what it came to; ``choices_in_words`` says
    that choices too large for the server stand in the prompt, ``schema_form`` how the schema is
    written. No id has these: the requests differ by them, and a newer table may decide otherwise.
    ``tag`` ends each custom_id that we make: random, it says whose a line is.
    ``cache`` is what the user wrote, ``cached_by`` and ``cache_key`` what it came to: which marks
    the requests carry, and their ``prompt_cache_key``; neither is in any hash.
    ``on_bad_image`` is in no id: which rows go shows in their hashes. ``image_side`` is the longest
    side that the model looks at, to which pictures were made smaller as nobody gave
    ``image_max_pixels``; it is in no id, as a newer table may say otherwise.
    ``examples`` are the input hashes of the rows that ``messages`` show as examples. ``second_of``
    is the job to which this one is a second opinion.
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
    image_side: int | None = None
    image_max_bytes: int = MAX_IMAGE_BYTES
    on_bad_image: OnBadImage = "raise"
    metadata: Mapping[str, str] = field(default_factory=dict)
    completion_window: str | None = None
    confirm_seconds: float = CONFIRM_SECONDS
    cache: bool | str | None = None
    cached_by: CachedBy = ""
    cache_key: str | None = None
    examples: tuple[str, ...] = ()
    second_of: str | None = None
    version: int = HASHES
    rendering: int = RENDERING
    json_mode: JsonMode = "auto"
    asked_by: AskedBy = "schema"
    choices_in_words: bool = False
    schema_form: int = SCHEMA_FORM
    tag: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """The models that round 0 asks; several only where the requests came ready.

        Examples
        --------
        >>> JobSpec("answer", "gpt-4o, gpt-4o-mini", ()).models
        ('gpt-4o', 'gpt-4o-mini')
        """
        # Requests that came ready name their own models, and the spec's model lists them all.
        return (self.model,) if self.messages else tuple(self.model.split(", "))

    @property
    def aside(self) -> bool:
        """Whether it only serves another job, as a pilot or a second opinion."""
        return self.pilot or self.second_of is not None

    def to_json(self) -> str:
        """Write the text for the sidecar's metadata; a schema's properties keep their order."""
        return json.dumps(asdict(self))

    def identity_json(self) -> str:
        """Return the text that the job's id is made of; a job of rendering 1 has the same.

        Neither pace nor money is identity, nor what goes along with a batch, nor where images lie:
        the input hashes know them.
        """
        # A cap or prices= is kept in the spec but is no part of the id; a later call's own value
        # wins: to go beyond a cap, give a greater one.
        same = replace(
            self, max_enqueued_tokens=None, pace=None, max_cost=None, prices={}, image_root="."
        )
        loaded = asdict(same)
        for younger in _NOT_IN_IDS:
            del loaded[younger]
        del loaded["output"]["class_rules"]  # younger than the ids; answers do not depend on it
        del loaded["output"]["samples"]  # as younger; `params` has it as ``n``
        del loaded["output"]["exact"]  # as younger; it follows from how the schema was given
        return json.dumps(loaded)

    @classmethod
    def from_json(cls, text: str | bytes) -> JobSpec:
        """Read back what `to_json` wrote, now or in an older version.

        Raises
        ------
        ValueError
            It is no JSON, or some field is of another type: it may be somebody else's.
        """
        loaded = json.loads(text)
        # Fields that a later version added are passed over, as in batch.json.
        known = {name: value for name, value in loaded.items() if name in _SPEC_FIELDS}
        # Half a surrogate pair, in somebody else's store, could be shown nowhere. What was sent
        # stays as it was.
        known |= {name: encodable(known[name]) for name in _SHOWN_FIELDS & known.keys()}
        early = {"rendering": 1, "schema_form": 1}  # what versions wrote that knew of neither
        try:
            return msgspec.convert({**early, **known}, cls)
        except ParameterError as error:  # a pace that lets nothing through
            raise ValueError(error.problem) from None


# Ids of jobs on disk were made without these: with them the same submit would not find its job.
_NOT_IN_IDS = (
    "rendering", "metadata", "completion_window", "confirm_seconds", "cache", "cached_by",
    "cache_key", "examples", "second_of", "json_mode", "asked_by", "choices_in_words",
    "schema_form", "tag", "on_bad_image", "image_side",
)  # fmt: skip


_SHOWN_FIELDS = frozenset({"name", "model", "provider", "prefix"})


_SPEC_FIELDS = frozenset(JobSpec.__dataclass_fields__)
