"""The statuses of a row."""

from __future__ import annotations

from enum import StrEnum


class RowStatus(StrEnum):
    """The status of a row; every row always has exactly one."""

    OK = "ok"
    PENDING = "pending"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    EMPTY = "empty"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    MISSING = "missing"
    SKIPPED = "skipped"

    @property
    def flagged(self) -> bool:
        """Tell whether the status is terminal and not ``ok``.

        Examples
        --------
        >>> RowStatus.EXPIRED.flagged, RowStatus.SKIPPED.flagged
        (True, False)
        """
        return self in FLAGGED


FLAGGED = frozenset(RowStatus) - {RowStatus.OK, RowStatus.PENDING, RowStatus.SKIPPED}


STATUS_ORDER = [
    *(status for status in RowStatus if status.flagged),
    RowStatus.PENDING,
    RowStatus.SKIPPED,
    RowStatus.OK,
]
"""The order in which rows are shown: first those that need attention."""
