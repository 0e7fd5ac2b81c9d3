"""A handler that tells what its process uses of every configuration key (`reload_cases`).

Rules of this file: it runs in the program. Where clients have to look, it tells the address; they
reach this process if it is the only one that serves meanwhile.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fastlisten.handlers.base import ConnectionInfo, Handler, Reason
from fastlisten.runtime.worker import Worker
from support.reload_cases import CASES, given
from support.reloading import Reloadable

__all__ = ["Looks", "ids"]


def ids() -> dict[str, str]:
    """Return the id of the listener that shows each key."""
    return {key: f"k{number}" for number, key in enumerate(sorted(CASES))}


def _looked(control: Any) -> dict[str, Any]:
    worker = getattr(control, "_local", control)._worker  # of a worker, or of one process
    assert isinstance(worker, Worker)
    plan = worker.plan
    server: Any = SimpleNamespace(
        config=plan.config, certificates=plan.certificates, listeners=worker.listeners
    )
    found: dict[str, Any] = {}
    for key, id in ids().items():
        if any(one.id == id for one in plan.config.listeners):
            it = Reloadable(server, Path(plan.config.file), id)
            case = CASES[key]
            if inspect.iscoroutinefunction(case.look):
                found[key] = it.address()
            else:
                value = case.look(it) if case.look else given(it, key)
                text = "".join(value) if isinstance(value, str) else repr(value)  # also a password
                # An object without a text of its own has its address in it.
                found[key] = re.sub(r" at 0x\w+", "", text)
    return found


class _Protocol(asyncio.Protocol):
    def __init__(self, control: Any) -> None:
        self.control = control

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(json.dumps(_looked(self.control)).encode())
        self.transport.close()


class Looks(Handler):
    """Tells each client what is used: a JSON object with the value's text, or address, by key."""

    def refusal(self, reason: Reason) -> bytes:
        return b""

    def farewell(self, reason: Reason) -> bytes:
        return b""

    def notes(self) -> tuple[str, ...]:
        return ()

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        return _Protocol(self.settings.extra["control"])
