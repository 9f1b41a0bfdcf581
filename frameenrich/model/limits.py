"""Limits of one batch file."""

from __future__ import annotations

from dataclasses import dataclass, replace

BYTES_PER_TOKEN = 4
"""For pacing only: request bytes hold JSON too, so this counts rather too many tokens."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one batch file, and how long a full queue is left alone.

    ``max_bytes`` counts the file's bytes. ``first_requests`` is how many requests a job's first
    file holds, where it goes ahead of the others.
    """

    # OpenAI's limits (https://platform.openai.com/docs/guides/batch);
    # providers with other limits pass their own.
    max_requests: int = 50_000
    max_bytes: int = 200_000_000
    queue_wait_seconds: float = 60.0
    first_requests: int | None = None

    def within_tokens(self, max_tokens: int | None) -> Limits:
        """Return limits whose files each fit a queue of so many prompt tokens.

        Examples
        --------
        >>> Limits().within_tokens(1_000).max_bytes
        4000
        """
        if max_tokens is None:
            return self
        return replace(self, max_bytes=min(self.max_bytes, max_tokens * BYTES_PER_TOKEN))
