"""Type the options of the verbs that read answers, for type checkers and editors.

The signatures of the verbs repeat them for readers; a test compares both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from frameenrich.answers.output import Parser
from frameenrich.store.store import StoreLike


class ReadingOptions(TypedDict, total=False):
    """Type the options that read stored answers otherwise than `submit` said."""

    response_model: Any
    labels: Any
    parser: Parser | None


class JobCollectOptions(ReadingOptions, total=False):
    """Type the keyword arguments of `Job.collect`."""

    wait: bool
    timeout: float | None
    poll_seconds: float | None
    max_rounds: int
    max_cost: float | None
    prices: Mapping[str, Any] | None
    usage: bool
    flatten: bool
    overwrite: bool
    accept: float | None


class CollectOptions(JobCollectOptions, total=False):
    """Type the keyword arguments of ``df.llmbatch.collect``, for callers that pass them on."""

    client: Any
    store: StoreLike
