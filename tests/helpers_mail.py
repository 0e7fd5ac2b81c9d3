"""What tests of accounts and passwords share: cheap hashes, and a loop whose time is not real.

Rules of this file: no test in it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from argon2.low_level import Type, hash_secret

__all__ = ["cheap_hash", "run_virtually"]

_T = TypeVar("_T")


def cheap_hash(password: str, memory: int = 8, time: int = 1) -> str:
    """Return a hash that costs nearly nothing, made by argon2-cffi itself."""
    return hash_secret(password.encode(), b"salt" * 4, time, memory, 1, 32, Type.ID).decode()


class _Skipping(selectors.DefaultSelector):
    """Does not wait: says how long it would have."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            assert timeout is not None, "nothing will ever happen"
            self.skipped += max(0.0, timeout)
        return events


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return 1000.0 + self._skipping.skipped


def run_virtually(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine on a loop where waiting takes no time; ``loop.time()`` tells what passed."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)
