"""How fast and how far a service may be used: calls and tokens a minute, and a hard cap in money and tokens."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from taskfit.errors import SpendingError
from taskfit.inference.http_wire import Usage

__all__ = ["RateLimit", "Spending"]

_MINUTE_S = 60.0


class RateLimit:
    """Lets calls through so that no window of a minute holds more than so many calls and tokens.

    A single call of more tokens than the limit goes through when the window is empty.

    Args:
        requests, tokens: most of either in any minute; None: no limit.
        clock: seconds.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests, self._tokens = requests, tokens
        self._clock, self._sleep = clock, sleep
        self._passed: deque[tuple[float, int]] = deque()
        self._sum = 0

    async def wait(self, tokens: int, lock: asyncio.Lock) -> None:
        """Return when a call of about ``tokens`` tokens may be made; first come, first served, by ``lock``."""
        if self._requests is None and self._tokens is None:
            return
        async with lock:
            while (seconds := self._seconds_to_wait(tokens)) > 0:
                await self._sleep(seconds)
            self._passed.append((self._clock(), tokens))
            self._sum += tokens

    def _seconds_to_wait(self, tokens: int) -> float:
        now = self._clock()
        while self._passed and now - self._passed[0][0] >= _MINUTE_S:
            self._sum -= self._passed.popleft()[1]
        too_many = self._requests is not None and len(self._passed) >= self._requests
        too_long = self._tokens is not None and bool(self._passed) and self._sum + tokens > self._tokens
        return self._passed[0][0] + _MINUTE_S - now if too_many or too_long else 0.0


@dataclass
class Spending:
    """What was spent and what is promised to calls under way; a call that could break a cap is never begun.

    Attributes:
        usd_in, usd_out: US dollars per million tokens.
        max_usd, max_tokens: the caps; None: none.
        usd, tokens: spent so far; a call whose answer was lost counts as it might have cost at most.
    """

    usd_in: float = 0.0
    usd_out: float = 0.0
    max_usd: float | None = None
    max_tokens: int | None = None
    usd: float = 0.0
    tokens: int = 0

    def cost(self, usage: Usage) -> float:
        """US dollars of some tokens."""
        return (usage.prompt * self.usd_in + usage.answer * self.usd_out) / 1e6

    def reserve(self, most: Usage) -> None:
        """Count a call at the most that it can cost, before it is made.

        Raises:
            SpendingError: that would be above a cap; nothing is counted.
        """
        usd, tokens = self.usd + self.cost(most), self.tokens + most.prompt + most.answer
        if self.max_usd is not None and usd > self.max_usd:
            raise SpendingError(
                f"the cap of {self.max_usd:g} USD is reached: {self.usd:.4f} are spent or promised to calls under way, "
                f"and the next may cost up to {self.cost(most):.4f}",
                "Raise max_usd; with a cache, what was paid for is not paid again.",
            )
        if self.max_tokens is not None and tokens > self.max_tokens:
            raise SpendingError(
                f"the cap of {self.max_tokens} tokens is reached: {self.tokens} are used or promised to calls under "
                f"way, and the next may take up to {most.prompt + most.answer}",
                "Raise max_tokens; with a cache, what was paid for is not paid again.",
            )
        self.usd, self.tokens = usd, tokens

    def settle(self, most: Usage, real: Usage) -> None:
        """Count a call at what it really took, in place of the most it could."""
        self.usd += self.cost(real) - self.cost(most)
        self.tokens += real.prompt + real.answer - most.prompt - most.answer
