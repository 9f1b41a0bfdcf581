"""Frozen values that the other packages share: no I/O, no pandas, no provider."""

from __future__ import annotations

from frameenrich.model.batch import (
    TAKEN_OVER,
    TERMINAL,
    Batch,
    BatchError,
    BatchStatus,
    Import,
    Proof,
    Rejection,
    Stage,
)
from frameenrich.model.limits import BYTES_PER_TOKEN, Limits
from frameenrich.model.result import Json, Remedy, Response, Result, Usage
from frameenrich.model.spec import (
    CONFIRM_SECONDS,
    HASHES,
    MAX_IMAGE_BYTES,
    RENDERING,
    SCHEMA_FORM,
    TAG_LENGTH,
    AskedBy,
    ImageDetail,
    JobSpec,
    JsonMode,
    Message,
    OnBadImage,
    OnNull,
    OutputKind,
    OutputSpec,
    Pace,
)
from frameenrich.model.status import FLAGGED, STATUS_ORDER, RowStatus

__all__ = [
    "BYTES_PER_TOKEN",
    "CONFIRM_SECONDS",
    "FLAGGED",
    "HASHES",
    "MAX_IMAGE_BYTES",
    "RENDERING",
    "SCHEMA_FORM",
    "STATUS_ORDER",
    "TAG_LENGTH",
    "TAKEN_OVER",
    "TERMINAL",
    "AskedBy",
    "Batch",
    "BatchError",
    "BatchStatus",
    "ImageDetail",
    "Import",
    "JobSpec",
    "Json",
    "JsonMode",
    "Limits",
    "Message",
    "OnBadImage",
    "OnNull",
    "OutputKind",
    "OutputSpec",
    "Pace",
    "Proof",
    "Rejection",
    "Remedy",
    "Response",
    "Result",
    "RowStatus",
    "Stage",
    "Usage",
]
