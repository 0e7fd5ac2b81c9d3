"""`server.total-connections` and `reserve` in a server: mail takes up all the rest, and then?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.server import connect, read_all, read_some, served
from support.waiting import eventually

from fastlisten.runtime.listener import Listener, State
from fastlisten.runtime.server import Server

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

REFUSED = b"refused: limit\n"


def configuration(action: str) -> str:
    """Return two mail listeners and the management, which has two of six connections to itself."""
    text = f'[server]\ntotal-connections = 6\nlimit-action = "{action}"\n'
    for name in ("smtp", "submission"):
        text += (
            f'[server.listener.{name}]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
            'handler = "support.serving_handlers:Echo"\n'
        )
    return text + (
        '[server.listener.management]\nprotocol = "http"\nbind = "127.0.0.1:0"\nreserve = 2\n'
    )


def listener(server: Server, name: str) -> Listener:
    return next(one for one in server.listeners if one.name == name)


class Full:
    """A server whose mail clients hold all connections that are not reserved."""

    def __init__(self, server: Server, stack: contextlib.ExitStack) -> None:
        self.server = server
        self.stack = stack
        self.guests: list[socket.socket] = []

    async def connect(self, name: str) -> socket.socket:
        port = listener(self.server, name).sockets[0].port
        return self.stack.enter_context(await connect("127.0.0.1", port))

    def held(self) -> int:
        return sum(one.connections for one in self.server.listeners)

    async def fill(self) -> None:
        for name in ("smtp", "submission", "smtp", "submission"):
            self.guests.append(await self.connect(name))
            await eventually(lambda: self.held() == len(self.guests), "the connection")

    async def get(self, path: str) -> bytes:
        """Return the management's reply, over a connection of its own."""
        loop = asyncio.get_running_loop()
        with await connect("127.0.0.1", listener(self.server, "management").sockets[0].port) as one:
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            await loop.sock_sendall(one, request.encode())
            return await read_all(one)


@contextlib.asynccontextmanager
async def full(action: str) -> AsyncIterator[Full]:
    async with served(configuration(action)) as server:
        with contextlib.ExitStack() as stack:
            made = Full(server, stack)
            await made.fill()
            yield made


def body(reply: bytes) -> Any:
    assert reply.startswith(b"HTTP/1.1 200"), reply
    return json.loads(reply.partition(b"\r\n\r\n")[2])


def test_management_is_reachable_when_mail_is_full(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with full("refuse") as made:
            for name in ("smtp", "submission"):
                assert await read_all(await made.connect(name)) == REFUSED
            assert (await made.get("/healthz/live")).startswith(b"HTTP/1.1 200")
            found = body(await made.get("/api/listeners/smtp"))
            assert found["refused"] == {"limit": 0, "total": 1, "overload": 0}
            metrics = (await made.get("/metrics")).decode()
            labels = '{listener="submission",reason="total",worker="0"}'
            assert f"fastlisten_refused_total{labels} 1.0" in metrics
            # A connection that ends makes room for any listener.
            made.guests[0].close()
            await eventually(lambda: made.held() == 3, "the end of a connection")
            late = await made.connect("submission")
            await asyncio.get_running_loop().sock_sendall(late, b"x")
            assert await read_some(late, 1) == b"x"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_refusal_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with full("refuse") as made:
            assert await read_all(await made.connect("smtp")) == REFUSED

    caplog.set_level(logging.WARNING, "fastlisten")
    asyncio.run(main())
    (line,) = [text for text in caplog.messages if "refused 1 connection" in text]
    assert line.endswith(": server.total-connections reached")


def test_waiting_listener_is_total_full(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with full("wait") as made:
            loop = asyncio.get_running_loop()
            late = await made.connect("smtp")
            await loop.sock_sendall(late, b"x")
            smtp = listener(made.server, "smtp")
            await eventually(lambda: smtp.state is State.TOTAL_FULL, "the total")
            assert smtp.places is not None
            assert smtp.places.count == 2
            found = body(await made.get("/api/listeners/smtp"))
            assert found["state"] == "total-full"
            assert found["accepting"] is True
            ready = await made.get("/healthz/ready")
            assert ready.startswith(b"HTTP/1.1 200")
            # A place of another listener.
            made.guests[1].close()
            assert await read_some(late, 1) == b"x"
            await eventually(lambda: made.held() == 4, "the place to be taken")

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_without_a_total_nothing_is_shared() -> None:
    async def main() -> None:
        text = configuration("refuse").replace("total-connections = 6\n", "")
        text = text.replace("reserve = 2\n", "")
        async with served(text) as server:
            with contextlib.ExitStack() as stack:
                made = Full(server, stack)
                await made.fill()
                extra = [await made.connect("smtp") for _ in range(8)]
                await eventually(lambda: made.held() == 12, "all connections")
                assert len(extra) == 8

    asyncio.run(main())
