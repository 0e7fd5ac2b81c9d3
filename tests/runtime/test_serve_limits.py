"""`max-connections` and `limit-action` in a configuration; a great many listeners."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.program import program
from support.server import connect, read_all, read_some, served
from support.waiting import PATIENCE, eventually

from fastlisten.runtime.listener import State

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

#: One limit for all of them.
THREE = '["127.0.0.1:0", "127.0.0.2:0", "0.0.0.0:0"]'
CLIENTS = ("127.0.0.1", "127.0.0.2", "127.0.0.1")


def table(name: str, *lines: str, bind: str = '"127.0.0.1:0"', handler: str = "Echo") -> str:
    return (
        f'[server.listener.{name}]\nprotocol = "http"\nbind = {bind}\n'
        f'handler = "support.serving_handlers:{handler}"\n' + "".join(f"{line}\n" for line in lines)
    )


@pytest.mark.parametrize("handler", ["Echo", "LazyEcho"])
def test_limit_covers_all_binds(loop_factory: LoopFactory, handler: str) -> None:
    async def main() -> None:
        text = table("it", "max-connections = 5", bind=THREE, handler=handler)
        async with served(text) as server, contextlib.AsyncExitStack() as stack:
            listener = server.listeners[0]
            sockets = listener.sockets
            clients = []
            for index in range(5):
                address, bound = CLIENTS[index % 3], sockets[index % 3]
                clients.append(stack.enter_context(await connect(address, bound.port)))
                await eventually(lambda: listener.connections == len(clients), "the connection")
            assert listener.places is not None
            assert (listener.places.limit, listener.places.count) == (5, 5)
            for address, bound in zip(CLIENTS, sockets, strict=True):
                with await connect(address, bound.port) as refused:
                    assert await read_all(refused) == b"refused: limit\n"
            assert listener.connections == 5
            assert listener.statistics()["refused_limit"] == 3
            # Clients that are being served are not disturbed.
            for client in clients:
                if handler == "LazyEcho":
                    assert await read_some(client, 6) == b"hello\n"
                client.send(b"x")
                assert await read_some(client, 1) == b"x"
            # A place given back on one bind is taken on another.
            clients[0].close()
            await eventually(lambda: listener.connections == 4, "the end of a connection")
            with await connect(CLIENTS[1], sockets[1].port) as next_one:
                next_one.send(b"y")
                greeting = b"hello\n" if handler == "LazyEcho" else b""
                assert await read_some(next_one, len(greeting) + 1) == greeting + b"y"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_waiting_clients_are_served_in_turn(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        text = table("it", "max-connections = 2", 'limit-action = "wait"', bind=THREE)
        async with served(text) as server, contextlib.AsyncExitStack() as stack:
            listener = server.listeners[0]
            handler: Any = listener.handler
            clients = []
            for index in range(6):
                bound = listener.sockets[index % 3]
                client = stack.enter_context(await connect(CLIENTS[index % 3], bound.port))
                client.send(b"%d" % index)
                clients.append(client)
            await eventually(lambda: listener.state is State.FULL, "the limit")
            assert handler.made == 2
            seen: set[int] = set()
            while len(seen) < 6:
                await eventually(lambda: handler.open and handler.open[0].received, "the next one")
                assert listener.connections <= 2
                protocol = handler.open[0]
                index = int(protocol.received)
                seen.add(index)
                assert await read_some(clients[index], 1) == b"%d" % index
                clients[index].close()
                await eventually(lambda: protocol not in handler.open, "its end")  # noqa: B023
            assert handler.made == 6
            assert listener.statistics()["refused_limit"] == 0
            await eventually(lambda: listener.state is State.LISTENING, "room")

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_listeners_have_separate_limits() -> None:
    async def main() -> None:
        text = "[server]\nmax-connections = 1\n"
        text += table("a") + table("b") + table("c", "max-connections = 2")
        async with served(text) as server, contextlib.AsyncExitStack() as stack:
            for listener in server.listeners:
                limit = 2 if listener.name == "c" else 1
                for count in range(limit):
                    client = await connect("127.0.0.1", listener.sockets[0].port)
                    stack.enter_context(client)
                    await eventually(lambda: listener.connections == count + 1, "it")  # noqa: B023
            for listener in server.listeners:
                with await connect("127.0.0.1", listener.sockets[0].port) as refused:
                    assert await read_all(refused) == b"refused: limit\n"

    asyncio.run(main())


def test_smtp_refusal_is_421(tmp_path: Path) -> None:
    text = '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\nmax-connections = 1\n'
    with program(tmp_path, text) as started:
        address = ("127.0.0.1", started.port())
        with socket.create_connection(address, PATIENCE) as client:
            assert client.recv(1000) == b"220 mx.example.org ESMTP\r\n"
            for _ in range(3):
                refused = socket.create_connection(address, PATIENCE)
                with refused, refused.makefile("rb") as lines:
                    assert lines.read() == (
                        b"421 4.3.2 mx.example.org Too many connections; try again later\r\n"
                    )
        assert started.stop() == 0
        lines_of_log = [line for line in started.err.splitlines() if "refused" in line]
    assert lines_of_log
    for line in lines_of_log:
        assert 'WARNING fastlisten: listener "it": refused ' in line
        assert "the first from [127.0.0.1]:" in line
        assert line.endswith("max-connections = 1 reached")
    counts = [int(line.partition("refused ")[2].split()[0]) for line in lines_of_log]
    assert sum(counts) == 3


def test_all_of_500_listeners_are_reachable(tmp_path: Path) -> None:
    count = 500
    text = "max-connections = 10\n" + "".join(table(f"l{index:03}") for index in range(count))
    with program(tmp_path, text, listeners=count) as started:
        addresses = started.addresses
        ports = [int(bound.rpartition(":")[2]) for (bound,) in addresses.values()]
        assert len(set(ports)) == count
        for port in ports:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
        # And at the same time.
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
                for port in ports
            ]
            for index, client in enumerate(clients):
                client.sendall(b"%04d" % index)
            for index, client in enumerate(clients):
                assert client.recv(4) == b"%04d" % index
            started.signal()
            for client in clients:
                with client.makefile("rb") as lines:
                    assert lines.read() == b"farewell: shutdown\n"
        assert started.ended() == 0


def test_listener_with_500_binds() -> None:
    count = 500

    async def main() -> None:
        bind = "[" + ", ".join(['"127.0.0.1:0"'] * count) + "]"
        async with served(table("it", "max-connections = 2", bind=bind)) as server:
            listener = server.listeners[0]
            for bound in listener.sockets:
                with await connect("127.0.0.1", bound.port) as client:
                    client.send(b"x")
                    assert await read_some(client, 1) == b"x"
                await eventually(lambda: listener.connections == 0, "its end")
            assert listener.statistics()["accepted"] == count
            assert listener.statistics()["refused_limit"] == 0

    asyncio.run(main())
