"""Turn DataFrame rows into LLM batch requests, and the answers into columns.

Importing it registers ``df.llmbatch``, now or when pandas is imported, and costs next to nothing.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frameenrich.errors import (
        FrameEnrichError,
        FrameEnrichWarning,
        FrameMismatchError,
        InputError,
        ProviderError,
    )
    from frameenrich.model import RowStatus
    from frameenrich.tables import collect, llmbatch, submit
    from frameenrich.verbs.clean import clean
    from frameenrich.verbs.find import open_job
    from frameenrich.verbs.job import Job
    from frameenrich.verbs.list_jobs import jobs
    from frameenrich.verbs.sample import sample_data
    from frameenrich.verbs.submit import submit_requests

# pandas takes longer to import than the command line needs for --help, so it is not imported.
if "pandas" in sys.modules:
    import_module("frameenrich.accessor")  # registers df.llmbatch
else:
    import_module("frameenrich.verbs.when_pandas").register_later()

# Silent until somebody asks: a handler of one's own, or the command line's -v and --log-file.
logging.getLogger(__name__).addHandler(logging.NullHandler())

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
    "collect",
    "jobs",
    "llmbatch",
    "open_job",
    "sample_data",
    "submit",
    "submit_requests",
]

# Public names are imported on first use: each would bring in pandas, pyarrow and more.
_HOMES = {
    "FrameEnrichError": "errors",
    "FrameEnrichWarning": "errors",
    "FrameMismatchError": "errors",
    "InputError": "errors",
    "Job": "verbs.job",
    "ProviderError": "errors",
    "RowStatus": "model",
    "clean": "verbs.clean",
    "collect": "tables",
    "jobs": "verbs.list_jobs",
    "llmbatch": "tables",
    "open_job": "verbs.find",
    "sample_data": "verbs.sample",
    "submit": "tables",
    "submit_requests": "verbs.submit",
}


if not TYPE_CHECKING:  # a type checker that sees it takes any misspelt name for one of these

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used (PEP 562)."""
        if name not in _HOMES:
            if name.startswith("_"):  # tried by Python itself, which wants a quick and plain no
                raise AttributeError(name)
            raise import_module("frameenrich.verbs.signatures").unknown_name(
                "frameenrich", name, __dir__()
            )
        return getattr(import_module(f"frameenrich.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names, so that completion offers nothing else."""
    return sorted(__all__)
