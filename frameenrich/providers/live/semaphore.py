"""Let in as many calls at once as the rate limiter allows at the moment."""

from __future__ import annotations

import asyncio
from collections import deque

from frameenrich.providers.live.rate_limit import RateLimiter


class Semaphore:
    """A semaphore whose size follows the rate limiter."""

    def __init__(self, flow: RateLimiter) -> None:
        self._flow = flow
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        while self._inside >= int(self._flow.limit):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._inside += 1

    async def __aexit__(self, *_: object) -> None:
        self._inside -= 1
        room = int(self._flow.limit) - self._inside
        while room > 0 and self._waiting:
            turn = self._waiting.popleft()
            # A waiter may have been cancelled; its turn goes to the next.
            if not turn.done():
                turn.set_result(None)
                room -= 1
