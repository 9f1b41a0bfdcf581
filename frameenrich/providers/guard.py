"""Limit the time and the memory that an SDK's HTTP client may take for a reply.

The SDK reads replies whole, and its timeouts are its own: ten minutes for a server that hangs. Both
are changed from outside, by the hooks that httpx has for that.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

from frameenrich.providers.http_client import http_client_of
from frameenrich.providers.protocol import seconds_to_retry

MOST_BYTES = 64 << 20
"""The largest size of a decompressed reply, unless it was sent as large."""


_MOST_RATIO = 100
"""JSON lines shrink to a tenth, what is made to burst to a thousandth."""


_LEAST_SECONDS = 0.1


_GRACE_SECONDS = 1.0


_LEAST_BYTES_PER_SECOND = 10_000
"""A slower reply is broken off once it took the client's read time-out, or the caller's time."""


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
            "response": [*hooks["response"], _limit_size, _limit_drip],
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
    """End a reply without end, or a decompression bomb, as a broken one before it fills the memory.

    A file that is downloaded is read by pieces, and may be of any size.
    """
    response.read = functools.partial(_read_whole, response)
    if response.headers.get("content-encoding", "identity") != "identity":
        content = response._get_content_decoder()  # noqa: SLF001 - httpx has no other way in
        response._decoder = _Bounded(content)  # noqa: SLF001


def _read_whole(response: Any) -> bytes:
    """Do as httpx's ``read`` does, for what can be held in memory."""
    import httpx2  # noqa: PLC0415 - comes with the SDKs

    if not hasattr(response, "_content"):
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > MOST_BYTES:
                raise httpx2.DecodingError(f"the reply is longer than {MOST_BYTES:,} bytes")
        response._content = bytes(content)  # noqa: SLF001 - where httpx keeps it
    found: bytes = response._content  # noqa: SLF001
    return found


def _limit_drip(response: Any) -> None:
    """End a reply that comes in drops: the SDK's time-outs begin anew with each of them."""
    import httpx2  # noqa: PLC0415 - comes with the SDKs

    # A client of the user's may be of another httpx, which takes no stream of this one.
    if not isinstance(response.stream, httpx2.SyncByteStream):
        return
    limits = response.request.extensions.get("timeout") or {}
    patience = limits.get("read") or math.inf
    length = response.headers.get("content-length", "")
    whole = int(length) if length.isdecimal() else math.inf

    class Timed(httpx2.SyncByteStream):
        """A reply's bytes, as long as they come at a speed that lets it end."""

        def __init__(self, pieces: Any) -> None:
            self._pieces = pieces

        def __iter__(self) -> Iterator[bytes]:
            started, came = time.monotonic(), 0
            for piece in self._pieces:
                came += len(piece)
                seconds = time.monotonic() - started
                late = seconds > patience or seconds_to_retry() < -_GRACE_SECONDS
                # A file of gigabytes that comes fast is not cut: it would begin anew each time.
                # Nor is a reply that is there, however late.
                if late and came < min(seconds * _LEAST_BYTES_PER_SECOND, whole):
                    raise httpx2.ReadTimeout(
                        f"{came:,} bytes of the reply came in {seconds:.1f} seconds",
                        request=response.request,
                    )
                yield piece

        def close(self) -> None:
            self._pieces.close()

    response.stream = Timed(response.stream)


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
