"""A drain during which the process stood still: its clients do not pay for that."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

from fastlisten.runtime.drain import drain


class Draining:
    """A listener whose last connection ends when it is told to."""

    def __init__(self) -> None:
        self.cut = 0
        self.ended = asyncio.Event()

    def drain(self) -> int:
        return 0 if self.ended.is_set() else 1

    def abort(self) -> int:
        self.cut += 1
        self.ended.set()
        return 1

    async def closed(self) -> None:
        await self.ended.wait()


def test_it_is_added_to_the_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener = Draining()
        loop.call_later(0.1, time.sleep, 1.5)
        # After the time was over, before the time that was lost is over too.
        loop.call_later(1.8, listener.ended.set)
        assert await drain(cast(Any, [listener]), 1.0) == 0
        assert listener.cut == 0

    asyncio.run(main())


def test_a_patience_has_an_end() -> None:
    async def main() -> None:
        listener = Draining()
        assert await drain(cast(Any, [listener]), 0.2) == 1
        assert listener.cut == 1

    asyncio.run(main())
