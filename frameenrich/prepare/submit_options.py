"""Define the options of ``df.llmbatch.submit`` for the modules below it.

A new option goes in `SubmitOptions` and `Options` here, and in the signature and docstring of
`frameenrich.accessor.LLMBatch.submit`; a test compares the three. Every caller passes the options
on unchanged, so only the code that uses the option has to change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from frameenrich.answers.output import Parser
from frameenrich.model import CONFIRM_SECONDS, ImageDetail, JsonMode
from frameenrich.providers.protocol import Provider
from frameenrich.store.store import StoreLike


class KeylessOptions(TypedDict, total=False):
    """Type the keyword arguments of `submit` without ``key``, which some callers require."""

    system: str | None
    name: str
    response_model: Any
    labels: Any
    examples: Any
    samples: int
    probe: bool | None
    parser: Parser | None
    json_mode: JsonMode
    logprobs: bool
    image: str | Sequence[str] | None
    image_root: str | os.PathLike[str]
    image_detail: ImageDetail | None
    image_max_pixels: int | Literal["auto"] | None
    image_max_bytes: int
    on_bad_image: str
    params: Mapping[str, Any] | None
    endpoint: str
    provider: str | Provider
    client: Any
    store: StoreLike
    on_null: str
    prefix: str
    max_enqueued_tokens: int | None
    max_cost: float | None
    prices: Mapping[str, Any] | None
    max_in_flight: int | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    request_timeout_seconds: float | None
    metadata: Mapping[str, str] | None
    completion_window: str | None
    confirm_seconds: float
    cache: bool | str | None
    fresh: bool


class SubmitOptions(KeylessOptions, total=False):
    """Type the keyword arguments of `submit`, for the verbs that pass them on."""

    key: str | Sequence[str] | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """Hold the options of one `submit` as the user gave them, the others by default."""

    system: str | None = None
    name: str = "llmbatch"
    response_model: Any = None
    labels: Any = None
    examples: Any = None
    samples: int = 1
    probe: bool | None = None
    parser: Parser | None = None
    json_mode: JsonMode = "auto"
    logprobs: bool = False
    image: str | Sequence[str] | None = None
    image_root: str | os.PathLike[str] = "."
    image_detail: ImageDetail | None = None
    image_max_pixels: int | Literal["auto"] | None = "auto"
    image_max_bytes: int = 20_000_000
    on_bad_image: str = "raise"
    key: str | Sequence[str] | None = None
    params: Mapping[str, Any] | None = None
    endpoint: str = "/v1/chat/completions"
    provider: str | Provider = "openai"
    client: Any = None
    store: StoreLike = None
    on_null: str = "raise"
    prefix: str = ""
    max_enqueued_tokens: int | None = None
    max_cost: float | None = None
    prices: Mapping[str, Any] | None = None
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    request_timeout_seconds: float | None = None
    metadata: Mapping[str, str] | None = None
    completion_window: str | None = None
    confirm_seconds: float = CONFIRM_SECONDS
    cache: bool | str | None = None
    fresh: bool = False
