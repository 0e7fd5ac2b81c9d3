"""Calls to a closed transport: ours do what asyncio's do, on every loop, and raise nothing.

uvloop's own transports raise RuntimeError from `write`, `writelines`, `write_eof` and
`set_write_buffer_limits` once their handle is closed, but handlers are written for asyncio's.
The exception is asyncio's own `writelines` of 3.12.1 and 3.13.0, which keeps the bytes and then
fails for lack of a socket; there its `write` is the reference.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from support.raw_client import reset

import fastlisten

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    "fastlisten": fastlisten.new_event_loop,
}

CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("write", (b"x",)),
    ("writelines", ([b"x", b"y"],)),
    ("write_eof", ()),
    ("can_write_eof", ()),
    ("set_write_buffer_limits", (10, 5)),
    ("get_write_buffer_size", ()),
    ("pause_reading", ()),
    ("resume_reading", ()),
    ("is_reading", ()),
    ("is_closing", ()),
    ("close", ()),
    ("abort", ()),
    ("write", (b"x",)),
]


class Server(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: Any = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


def outcomes(transport: Any) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, arguments in CALLS:
        try:
            found.append((name, getattr(transport, name)(*arguments)))
        except Exception as error:
            found.append((name, type(error)))
    return found


async def after(how: str, ours: bool) -> list[tuple[str, object]]:
    """Return what calls do on a server's transport after it has ended in this way."""
    made: list[Server] = []

    def factory() -> Server:
        made.append(Server())
        return made[-1]

    if ours:
        server: Any = await fastlisten.create_server(factory, "127.0.0.1", 0)
    else:
        server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    try:
        client = socket.create_connection(server.sockets[0].getsockname(), timeout=20)
        with client:
            while not (made and made[0].transport):
                await asyncio.sleep(0.001)
            if how == "reset":
                reset(client)
            else:
                getattr(made[0].transport, how)()
            await asyncio.wait_for(made[0].lost.wait(), 20)
        return outcomes(made[0].transport)
    finally:
        server.close()


@pytest.mark.parametrize("how", ["close", "abort", "reset"])
@pytest.mark.parametrize("loop", LOOPS)
def test_calls_after_close_do_not_raise(how: str, loop: str) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        expected = runner.run(after(how, ours=False))
    if isinstance(dict(expected)["writelines"], type):
        results = dict(expected) | {"writelines": None, "get_write_buffer_size": 0}
        expected = [(name, results[name]) for name, _ in expected]
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        assert runner.run(after(how, ours=True)) == expected
    assert not any(isinstance(value, type) for _, value in expected)
