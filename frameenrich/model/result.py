"""Responses to requests, and results: what they are once judged."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import msgspec

from frameenrich.model.status import RowStatus

Json = Any
"""A value that ``json.loads`` could have returned."""


# gc=False: there are as many as rows, and none can be part of a cycle that needs collecting.
class Response(msgspec.Struct, frozen=True, gc=False):
    """A response to one custom_id: the envelope is opened, the answer not yet judged."""

    custom_id: str
    status_code: int | None
    body: Json
    error: str | None = None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of an answer, as the provider counts them, and the model that gave it."""

    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None


class Result(msgspec.Struct, frozen=True, gc=False):
    """A response after parsing: a status, and values or the reason why not.

    ``values`` holds one value per output column, in their order; ``raw`` is the answer's text.
    ``status_code`` is the HTTP status of a ``failed`` request, where there was one; ``confidence``
    is how sure the model was of a label (`frameenrich.answers.confidence`), ``reasoning`` what it
    thought before it answered. Of several answers, ``agreement`` is the share that gave the value,
    and ``votes`` says as JSON how many gave which (`frameenrich.answers.votes`).
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
    agreement: float | None = None
    votes: str | None = None

    @property
    def repairable(self) -> bool:
        """Tell whether asking again may help: not if content or request were refused.

        Examples
        --------
        >>> Result("row-1", RowStatus.FAILED, status_code=429).repairable
        True
        >>> Result("row-1", RowStatus.FAILED, status_code=400).repairable
        False
        """
        return self.status.flagged and self.remedy is Remedy.AGAIN

    @property
    def remedy(self) -> Remedy:
        """Return the condition for asking a flagged row again.

        Examples
        --------
        >>> Result("row-1", RowStatus.FAILED, error="model_not_found: x", status_code=404).remedy
        <Remedy.MODEL: 'model'>
        """
        # What was refused is not sent again by itself: neither a refusal nor a 4xx, but
        # for those that are about the moment.
        if self.status is RowStatus.REFUSED:
            return Remedy.REFUSED
        # It may have run, and be charged: asked again it may cost twice, so only on a word.
        if self.status is RowStatus.FAILED and (self.error or "").startswith(f"{TIMED_OUT}: "):
            return Remedy.TIMED_OUT
        code = self.status_code
        passes = code is None or code not in range(400, 500) or code in _PASSING_CODES
        if self.status is not RowStatus.FAILED or passes:
            return Remedy.AGAIN
        if _NO_MODEL.search(self.error or ""):
            return Remedy.MODEL
        return Remedy.FORM if _NO_SCHEMA.search(self.error or "") else Remedy.REQUEST


_NO_MODEL = re.compile(
    "model_not_found|DeploymentNotFound|not_found_error"
    "|model `?[^`]*`? (does not exist|is not found)"
)
"""How servers say that they have no such model."""


_NO_SCHEMA = re.compile(
    "response_format|json_schema|guided_json|structured outputs?", re.IGNORECASE
)
"""How servers say that they do not take the way in which structure was asked for."""


class Remedy(StrEnum):
    """The condition for asking a flagged row again."""

    AGAIN = "again"
    REFUSED = "refused"
    MODEL = "model"
    REQUEST = "request"
    TIMED_OUT = "timed out"
    FORM = "form"


TIMED_OUT = "timeout"
"""The code of a request that may have run, and whose answer did not come in time."""


_PASSING_CODES = frozenset({408, 409, 429})
"""Of the 4xx, those that are about the moment and not about the request; the SDK retries them."""
