"""The DataFrame is the job: rows become LLM batch requests, answers become columns.

Importing it registers ``df.llmbatch`` and costs nothing beyond pandas.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from frameenrich import accessor as _accessor  # noqa: F401 - registers df.llmbatch

if TYPE_CHECKING:
    from frameenrich.errors import (
        FrameEnrichError,
        FrameEnrichWarning,
        FrameMismatchError,
        InputError,
        ProviderError,
    )
    from frameenrich.jobs.clean import clean
    from frameenrich.jobs.find import open_job
    from frameenrich.jobs.job import Job
    from frameenrich.jobs.submit import submit_requests
    from frameenrich.model import RowStatus
    from frameenrich.store.listing import jobs

__version__ = "0.1.0"

__all__ = [
    "FrameEnrichError",
    "FrameEnrichWarning",
    "FrameMismatchError",
    "InputError",
    "Job",
    "ProviderError",
    "RowStatus",
    "__version__",
    "clean",
    "jobs",
    "open_job",
    "submit_requests",
]

_HOMES = {
    "FrameEnrichError": "errors",
    "FrameEnrichWarning": "errors",
    "FrameMismatchError": "errors",
    "InputError": "errors",
    "Job": "jobs.job",
    "ProviderError": "errors",
    "RowStatus": "model",
    "clean": "jobs.clean",
    "jobs": "store.listing",
    "open_job": "jobs.find",
    "submit_requests": "jobs.submit",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'frameenrich' has no attribute {name!r}")
    return getattr(import_module(f"frameenrich.{_HOMES[name]}"), name)
