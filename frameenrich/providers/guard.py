"""Limit the time and the memory that an SDK's HTTP client may take for a reply.

The SDK reads replies whole, and its timeouts are its own: ten minutes for a server that hangs. Both
are changed from outside, by the hooks that httpx has for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from frameenrich.providers.http_client import http_client_of
from frameenrich.providers.protocol import seconds_to_retry

MOST_BYTES = 64 << 20
"""The largest size of a decompressed reply, unless it was sent as large."""


_MOST_RATIO = 100
"""JSON lines shrink to a tenth, what is made to burst to a thousandth."""


_LEAST_SECONDS = 0.1


def guard(client: Any) -> None:
    """Limit the time and the decompressed size of a client's calls; a second call changes nothing.

    Parameters
    ----------
    client : object
        An SDK's client, in which an httpx client is.
    """
    http = http_client_of(client)
    # Both hooks are added together, so one of them tells whether a shared client has them.
    if http is not None and _limit_time not in (hooks := http.event_hooks)["request"]:
        http.event_hooks = {
            "request": [*hooks["request"], _limit_time],
            "response": [*hooks["response"], _limit_size],
        }


def _limit_time(request: Any) -> None:
    """Wait no longer for a server than the caller waits for the verb."""
    left = seconds_to_retry()
    # Nobody set a limit: the SDK's own timeouts stay as they are.
    if left == math.inf:
        return
    timeouts = request.extensions.get("timeout") or {}
    # Zero or less is no valid timeout; the call is to fail by the clock, not as a bug.
    left = max(left, _LEAST_SECONDS)
    kinds = ("connect", "read", "write", "pool")
    given = {kind: timeouts.get(kind) for kind in kinds}
    request.extensions["timeout"] = {
        kind: left if own is None else min(own, left) for kind, own in given.items()
    }


def _limit_size(response: Any) -> None:
    """End a decompression bomb as a broken reply, before it fills the memory."""
    if response.headers.get("content-encoding", "identity") != "identity":
        content = response._get_content_decoder()  # noqa: SLF001 - httpx has no other way in
        response._decoder = _Bounded(content)  # noqa: SLF001


class _Bounded:
    """A decoder that raises when the output grows out of proportion to the input."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._came = self._made = 0

    def decode(self, data: bytes) -> Any:
        """Return some of the content: bytes, or in newer versions of httpx pieces."""
        self._came += len(data)
        return self._counted(self._decoder.decode(data))

    def flush(self) -> Any:
        """Return the rest."""
        return self._counted(self._decoder.flush())

    def _counted(self, made: Any) -> Any:
        if isinstance(made, bytes):
            self._count(made)
            return made
        # Newer versions of httpx give pieces, which are counted one by one as they come.
        return self._each(made)

    def _each(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._count(piece)
            yield piece

    def _count(self, piece: bytes) -> None:
        import httpx2  # noqa: PLC0415 - comes with the SDKs

        self._made += len(piece)
        if self._made > max(MOST_BYTES, self._came * _MOST_RATIO):
            raise httpx2.DecodingError(
                f"the reply grew from {self._came:,} to over {self._made:,} bytes when it was "
                "decompressed"
            )
