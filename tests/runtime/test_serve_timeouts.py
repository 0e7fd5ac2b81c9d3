"""`timeout.first-byte` and `timeout.idle`: silent clients get 421 4.4.2 and are closed."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.program import program
from support.server import connect, read_all, read_some, served
from support.waiting import PATIENCE, eventually

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

GOODBYE = b"421 4.4.2 mx.example.org Timeout; closing connection\r\n"
GREETING = b"220 mx.example.org ESMTP\r\n"

SMTP = (
    '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
    'timeout.first-byte = "1s"\ntimeout.idle = "1s"\n'
)


def echo(handler: str, *lines: str) -> str:
    return (
        '[server.listener.it]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
        f'handler = "support.serving_handlers:{handler}"\n' + "".join(f"{line}\n" for line in lines)
    )


def silent(port: int, *said: bytes) -> socket.socket:
    """Connect, send some commands, and fall silent."""
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    with client.makefile("rb", buffering=0) as lines:
        assert lines.readline() == GREETING
        for line in said:
            client.sendall(line + b"\r\n")
            while lines.readline()[3:4] == b"-":
                pass
    return client


def rest(client: socket.socket) -> bytes:
    with client, client.makefile("rb") as lines:
        return lines.read()


def test_silent_smtp_clients_get_421(tmp_path: Path) -> None:
    """One that never spoke, and one after EHLO."""
    with program(tmp_path, SMTP) as started:
        clients = silent(started.port()), silent(started.port(), b"EHLO c.example.com")
        for client in clients:
            assert rest(client) == GOODBYE
        assert started.stop() == 0
        line = r'listener "it": \d connections? timed out, the first from \[127\.0\.0\.1\]:'
        assert re.search(line, started.err)


def test_client_silent_in_a_transaction_gets_421(tmp_path: Path) -> None:
    with program(tmp_path, SMTP) as started:
        client = silent(started.port(), b"HELO c.example.com", b"MAIL FROM:<s@example.com>")
        assert rest(client) == GOODBYE
        assert started.stop() == 0


@pytest.mark.parametrize("handler", ["Echo", "LazyEcho"])
def test_first_byte_timeout(loop_factory: LoopFactory, handler: str) -> None:
    async def main() -> None:
        text = echo(handler, 'timeout.first-byte = "1s"', "timeout.idle = false")
        async with served(text) as server:
            listener = server.listeners[0]
            with await connect("127.0.0.1", listener.sockets[0].port) as client:
                words = b"farewell: first-byte\n"
                if handler == "LazyEcho":
                    words = b"hello\n" + words
                assert await read_all(client) == words
            await eventually(lambda: listener.connections == 0, "the end")
            assert listener.statistics()["timed_out"] == 1
            assert listener.handler.made == (handler == "Echo")  # type: ignore[attr-defined]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_first_byte_timeout_ends_with_the_first_byte(loop_factory: LoopFactory) -> None:
    """Without an idle timeout it may then be silent for ever."""

    async def main() -> None:
        text = echo("Echo", 'timeout.first-byte = "1s"', "timeout.idle = false")
        async with served(text) as server:
            listener = server.listeners[0]
            port = listener.sockets[0].port
            with (
                await connect("127.0.0.1", port) as spoke,
                await connect("127.0.0.1", port) as not_,
            ):
                spoke.send(b"x")
                assert await read_some(spoke, 1) == b"x"
                assert await read_all(not_) == b"farewell: first-byte\n"
                # The other's time would be up as well.
                spoke.send(b"y")
                assert await read_some(spoke, 1) == b"y"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_input_restarts_the_idle_timeout(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        text = echo("Echo", 'timeout.idle = "1s"')
        async with served(text) as server:
            port = server.listeners[0].sockets[0].port
            with (
                await connect("127.0.0.1", port) as talks,
                await connect("127.0.0.1", port) as fell,
            ):
                fell.send(b"x")
                ended = asyncio.create_task(read_all(fell))
                talked = b""
                while not ended.done():
                    talks.send(b"y")
                    talked += await read_some(talks, 1)
                    await asyncio.sleep(0.05)
                assert await ended == b"xfarewell: idle\n"
                assert talked == b"y" * len(talked)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_timeout_false_never_closes() -> None:
    async def main() -> None:
        async with served(
            echo("Echo", "timeout.first-byte = false", "timeout.idle = false")
        ) as server:
            listener = server.listeners[0]
            handler: Any = listener.handler
            with await connect("127.0.0.1", listener.sockets[0].port) as client:
                client.send(b"x")
                assert await read_some(client, 1) == b"x"
                assert handler.open[0].transport.get_extra_info("listener") == "it"
                assert listener._policy.first_byte == listener._policy.idle == 0.0

    asyncio.run(main())
