"""The axis of event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop

__all__ = ["LOOPS"]

#: Every test of the native core runs on each: the core nests in the loop, and loops differ.
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
