"""Count the answers that were mended before they were read, where people look (promise 10)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from frameenrich.errors import warn_user


@dataclass
class RepairedRows:
    """Number of rows whose answers were mended, of those read so far."""

    count: int = 0


_counting: ContextVar[RepairedRows | None] = ContextVar("counting", default=None)


@contextlib.contextmanager
def counting_repaired() -> Iterator[RepairedRows]:
    """Count what is collected within, for who shows the number himself: nothing warns of it.

    Examples
    --------
    >>> with counting_repaired() as repaired:
    ...     tell_repaired("job-1", "answer", repaired=3, ok=10)
    >>> repaired.count
    3
    """
    counted = RepairedRows()
    token = _counting.set(counted)
    try:
        yield counted
    finally:
        _counting.reset(token)


def tell_repaired(job_id: str, name: str, *, repaired: int, ok: int, shown: bool = False) -> None:
    """Warn of a job's answers that were mended, unless a caller counts them.

    Nor where they are `shown`: in a column of their own.

    Warns
    -----
    FrameEnrichWarning
        Some were.
    """
    counting = _counting.get()
    if counting is not None:
        counting.count += repaired
    elif repaired and not shown:
        warn_user(
            f"{repaired:,} of the {ok:,} usable answers of the job {job_id} were mended before "
            f"they were read (fences, words around them, commas or quotes). usage=True shows "
            f"which: the column '{name}_repaired'."
        )
