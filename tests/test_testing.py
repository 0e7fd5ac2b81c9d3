"""`fastlisten.testing.serve`, with which tests of handlers are written."""

from __future__ import annotations

import asyncio
import smtplib
import socket
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from support.loops import on_loops
from support.marks import needs_ipv6
from support.server import connect, read_all, read_some
from support.serving_handlers import Echo, LazyEcho, NotReady, shout
from support.waiting import eventually

import fastlisten
from fastlisten import ConnectionInfo, Handler, HandlerSettings, State
from fastlisten.handlers.importing import HandlerNotFoundError
from fastlisten.option import Option
from fastlisten.testing import Served, serve

pytestmark = pytest.mark.usefixtures("descriptors_back")


@on_loops
async def test_serve_a_class() -> None:
    async with serve(Echo) as served:
        assert isinstance(served, Served)
        assert isinstance(served.handler, Echo)
        assert served.host == "127.0.0.1"
        assert served.listener.state.value == "listening"
        assert served.handler.events == ["start"]
        with await connect(served.host, served.port) as client:
            client.send(b"hello")
            assert await read_some(client, 5) == b"hello"
        settings = served.handler.settings
        assert (settings.listener, settings.protocol, settings.port) == (
            "test",
            "echo",
            served.port,
        )
        directory = Path(settings.data_directory)
        assert directory.is_dir()
    assert served.listener.state is State.CLOSED
    assert served.handler.events == ["start", "stop"]
    assert not directory.exists()


@on_loops
async def test_serve_an_instance() -> None:
    handler = LazyEcho(HandlerSettings("mine", "echo", "host"))
    async with serve(handler) as served:
        assert served.handler is handler
        with await connect(served.host, served.port) as client:
            client.send(b"x")
            assert await read_some(client, 7) == b"hello\nx"


@on_loops
async def test_serve_a_function() -> None:
    async with serve(shout) as served:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()


@on_loops
async def test_protocol_in_ten_lines() -> None:
    """All of it, as someone would write it on their first afternoon."""

    async def guess(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"guess a number\n")
        while line := await reader.readline():
            number = int(line)
            if number == 42:
                writer.write(b"yes\n")
                break
            writer.write(b"more\n" if number < 42 else b"less\n")

    async with serve(guess) as served:
        with await connect(served.host, served.port) as client:
            client.send(b"7\n99\n42\n")
            assert await read_all(client) == b"guess a number\nmore\nless\nyes\n"


@on_loops
async def test_serve_a_registered_name() -> None:
    async with serve("support.serving_handlers:LazyEcho") as served:
        with await connect(served.host, served.port) as client:
            assert await read_some(client, 6) == b"hello\n"


@on_loops
async def test_serve_smtp(tmp_path: Path) -> None:
    (tmp_path / "accounts.toml").write_text('[account."alice@example.org"]\n')

    def session(port: int) -> tuple[int, bytes]:
        with smtplib.SMTP("127.0.0.1", port, "c.example.com", timeout=20) as client:
            client.sendmail("s@example.com", ["alice@example.org"], b"Subject: x\r\n\r\nbody\r\n")
            client.ehlo()
            return client.docmd("NOOP")

    options = {"max-message-size": 65536}
    async with serve("smtp", data_directory=str(tmp_path), options=options) as served:
        assert served.handler.greeting == b"220 test.example ESMTP\r\n"
        assert (await asyncio.to_thread(session, served.port))[0] == 250
        assert served.handler.limits.max_message_size == 65536  # type: ignore[attr-defined]
    (message,) = (tmp_path / "mail/alice@example.org/new").iterdir()
    assert message.read_bytes().endswith(b"Subject: x\r\n\r\nbody\r\n")


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
@on_loops
async def test_both_loopback_addresses(host: Literal["127.0.0.1", "::1"]) -> None:
    async with serve(Echo, host=host) as served:
        assert served.host == host
        with await connect(host, served.port) as client:
            client.send(b"x")
            assert await read_some(client, 1) == b"x"
            assert served.handler.open[0].info.peer == host  # type: ignore[attr-defined]


@on_loops
async def test_limits_and_timeouts() -> None:
    async with serve(Echo, max_connections=1) as served:
        with await connect(served.host, served.port) as client:
            await eventually(lambda: served.listener.connections == 1, "the connection")
            with await connect(served.host, served.port) as refused:
                assert await read_all(refused) == b"refused: limit\n"
            client.send(b"x")
            assert await read_some(client, 1) == b"x"
    async with serve(Echo, max_connections=1, limit_action="wait") as served:
        with await connect(served.host, served.port) as first:
            await eventually(lambda: served.listener.state is State.FULL, "the limit")
            with await connect(served.host, served.port) as second:
                second.send(b"x")
                first.close()
                assert await read_some(second, 1) == b"x"
    async with serve(Echo, first_byte_timeout=0.05) as served:
        with await connect(served.host, served.port) as client:
            assert await read_all(client) == b"farewell: first-byte\n"
    async with serve(Echo, idle_timeout=0.05) as served:
        with await connect(served.host, served.port) as client:
            client.send(b"x")
            assert await read_all(client) == b"xfarewell: idle\n"


@on_loops
async def test_end_of_the_block_drains() -> None:
    """Busy connections may finish, idle ones get the reply."""

    async def finish(client: socket.socket) -> bytes:
        assert await read_some(client, 3) == b"end"
        return await read_all(client)

    async with serve(Echo) as served:
        busy = await connect(served.host, served.port)
        idle = await connect(served.host, served.port)
        busy.send(b"begin")
        assert await read_some(busy, 5) == b"begin"
        await eventually(lambda: served.listener.connections == 2, "both")
        told = asyncio.create_task(read_all(idle))
        told.add_done_callback(lambda _: busy.send(b"end"))
        rest = asyncio.create_task(finish(busy))
    assert await told == b"farewell: shutdown\n"
    assert await rest == b"farewell: shutdown\n"
    busy.close()
    idle.close()


@on_loops
async def test_hanging_connections_are_closed_at_the_end() -> None:
    async with serve(Echo, drain_timeout=0.05) as served:
        busy = await connect(served.host, served.port)
        busy.send(b"begin")
        assert await read_some(busy, 5) == b"begin"
    assert served.listener.state is State.CLOSED
    assert await read_all(busy) == b"farewell: shutdown\n"
    busy.close()


@on_loops
async def test_two_servers_at_a_time() -> None:
    async with serve(Echo) as one, serve(LazyEcho) as other:
        assert one.port != other.port
        with (
            await connect(one.host, one.port) as first,
            await connect(other.host, other.port) as second,
        ):
            assert await read_some(second, 6) == b"hello\n"
            first.send(b"x")
            assert await read_some(first, 1) == b"x"


@on_loops
async def test_exception_in_the_block_leaves_nothing() -> None:
    seen: list[Any] = []

    async def fails() -> None:
        async with serve(Echo) as served:
            seen.append(served)
            raise KeyError("the test's own")

    with pytest.raises(KeyError):
        await fails()
    assert seen[0].listener.state is State.CLOSED
    assert seen[0].handler.events == ["start", "stop"]


@on_loops
async def test_invalid_handlers() -> None:
    async def enter(what: Any) -> None:
        async with serve(what):
            raise AssertionError("it is served")

    with pytest.raises(HandlerNotFoundError):
        await enter("gopher")
    with pytest.raises(HandlerNotFoundError):
        await enter("support.serving_handlers:Nothing")
    with pytest.raises(HandlerNotFoundError):
        await enter(lambda reader, writer: None)
    with pytest.raises(RuntimeError, match="the store is not there"):
        await enter(NotReady)


@on_loops
async def test_custom_handler() -> None:
    """The package's public names suffice to write and test one."""

    class Time(Handler):
        name = "time"
        server_speaks_first = True

        def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
            class Tell(asyncio.Protocol):
                def connection_made(self, transport: asyncio.BaseTransport) -> None:
                    told = cast(asyncio.Transport, transport)
                    told.write(f"{info.peer} at {info.listener}\n".encode())
                    told.close()

            return Tell()

    assert issubclass(Time, fastlisten.Handler)
    async with serve(Time) as served:
        with await connect(served.host, served.port) as client:
            assert await read_all(client) == b"127.0.0.1 at test\n"


def test_handler_options_have_their_defaults() -> None:
    """As in a configuration: a handler need not know how it was made."""

    class Prefixed(Handler):
        options = (
            Option(key="prefix", kind="text", default="hello", text=""),
            Option(key="loud", kind="boolean", default=False, text=""),
        )

    given = HandlerSettings("it", "own", "mx.example.org", options={"loud": True, "other": 1})
    assert Prefixed(given).settings.options == {"prefix": "hello", "loud": True, "other": 1}
    complete = HandlerSettings("it", "own", "mx", options={"prefix": "", "loud": False})
    assert Prefixed(complete).settings is complete
