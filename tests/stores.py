"""Small jobs in a store, and a writer that dies halfway."""

from __future__ import annotations

from typing import IO

import pandas as pd

from frameenrich.model import Limits
from frameenrich.prepare.options import Plan, make_plan
from frameenrich.prepare.submit_options import Options
from frameenrich.prepare.writer import write_job
from frameenrich.store.folder import JobFolder
from frameenrich.store.store import Store

FRAME = pd.DataFrame({"title": ["mug", "rake", "Öl \u2028"]}, index=["a", "b", "c"])


def a_plan(name: str = "ask") -> Plan:
    """Return a plan of one question."""
    return make_plan("Which? {{ title }}", "m", Options(name=name)).sent_to("file", "/v1/x")


class CrashError(Exception):
    """Something of the caller's that goes wrong half way."""


def write_half(file: IO[bytes], error: type[BaseException]) -> None:
    """Begin to write, and fail."""
    file.write(b"half")
    raise error


def a_job(store: Store, name: str = "ask", max_requests: int = 2) -> JobFolder:
    """Return a new job of three requests in two shards."""
    return write_job(FRAME, a_plan(name), store, Limits(max_requests=max_requests))
