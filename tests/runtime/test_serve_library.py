"""`fastlisten.Server` in a program: its three steps, `serve`, `stop` and signals."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from typing import Any

import pytest
from support.loops import on_loops
from support.server import connect, read_all, read_some
from support.serving_handlers import LazyEcho, WrongWords
from support.waiting import eventually

from fastlisten import (
    ConfigurationError,
    FastlistenError,
    HandlerSettings,
    Server,
    StartError,
    State,
)
from fastlisten.config import loads
from fastlisten.runtime.canned_replies import TLS_ALERT, CannedReplies

pytestmark = pytest.mark.usefixtures("descriptors_back")

TEXT = """
[server]
shutdown-timeout = "1h"

[server.listener.it]
protocol = "http"
bind = "127.0.0.1:0"
handler = "support.serving_handlers:Echo"
"""


def handler_of(server: Server) -> Any:
    return server.listeners[0].handler


def port_of(server: Server) -> int:
    return server.listeners[0].sockets[0].port


@on_loops
async def test_start_wait_and_close() -> None:
    server = Server(loads(TEXT))
    assert (server.started, server.accepting) == (False, False)
    await server.startup()
    assert (server.started, server.accepting) == (True, True)
    running = asyncio.create_task(server.main_loop())
    with await connect("127.0.0.1", port_of(server)) as client:
        client.send(b"x")
        assert await read_some(client, 1) == b"x"
        assert not running.done()
        server.stop()
        await running
        # Nothing has been closed yet: that is the third step.
        states = [server.accepting]
        await server.shutdown()
        states.append(server.accepting)
        assert await read_all(client) == b"farewell: shutdown\n"
    assert states == [True, False]
    assert handler_of(server).events == ["start", "stop"]
    await server.shutdown()
    assert handler_of(server).events == ["start", "stop"]


@on_loops
async def test_serve_starts_waits_and_closes() -> None:
    server = Server(loads(TEXT))
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "the start")
    with await connect("127.0.0.1", port_of(server)) as client:
        client.send(b"x")
        assert await read_some(client, 1) == b"x"
        server.stop()
        await running
        assert await read_all(client) == b"farewell: shutdown\n"


@on_loops
async def test_stop_before_the_start_has_no_effect() -> None:
    server = Server(loads(TEXT))
    server.stop()
    async with server:
        assert server.accepting


@on_loops
async def test_second_stop_closes_at_once() -> None:
    server = Server(loads(TEXT))
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "the start")
    with await connect("127.0.0.1", port_of(server)) as client:
        client.send(b"begin")
        assert await read_some(client, 5) == b"begin"
        server.stop()
        await eventually(lambda: server.listeners[0].state is State.DRAINING, "the drain")
        assert not running.done()
        server.stop()
        await running
        assert await read_all(client) == b"farewell: shutdown\n"


@on_loops
async def test_stop_without_draining() -> None:
    async with Server(loads(TEXT)) as server:
        client = await connect("127.0.0.1", port_of(server))
        client.send(b"begin")
        assert await read_some(client, 5) == b"begin"
        server.stop(at_once=True)
    with client:
        assert await read_all(client) == b"farewell: shutdown\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@on_loops
async def test_signals_stop_the_server(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    server = Server(loads(TEXT))
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "the start")
    with await connect("127.0.0.1", port_of(server)) as client:
        client.send(b"begin")
        assert await read_some(client, 5) == b"begin"
        os.kill(os.getpid(), number)
        await eventually(lambda: server.listeners[0].state is State.DRAINING, "the drain")
        assert not running.done()
        os.kill(os.getpid(), number)
        await running
        assert await read_all(client) == b"farewell: shutdown\n"
    assert signal.getsignal(number) is before


@on_loops
async def test_sighup_reloads_certificates(caplog: pytest.LogCaptureFixture) -> None:
    """It ends nothing, even if there are no certificates."""
    caplog.set_level("INFO", "fastlisten")
    before = signal.getsignal(signal.SIGHUP)
    server = Server(loads(TEXT))
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "the start")
    with await connect("127.0.0.1", port_of(server)) as client:
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: "no changes in 0 files" in caplog.text, "the answer")
        client.send(b"x")
        assert await read_some(client, 1) == b"x"
        server.stop()
        await running
    assert signal.getsignal(signal.SIGHUP) is before


@on_loops
async def test_cancelled_serve_drains() -> None:
    server = Server(loads(TEXT))
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, "the start")
    with await connect("127.0.0.1", port_of(server)) as client:
        client.send(b"x")
        assert await read_some(client, 1) == b"x"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await read_all(client) == b"farewell: shutdown\n"
    assert handler_of(server).events == ["start", "stop"]


@on_loops
async def test_exception_in_the_program_leaves_nothing() -> None:
    async def fails() -> None:
        async with Server(loads(TEXT)):
            raise KeyError("the program's own")

    with pytest.raises(KeyError):
        await fails()


@on_loops
async def test_two_servers_on_one_loop() -> None:
    async with Server(loads(TEXT)) as one, Server(loads(TEXT)) as other:
        for server in (one, other):
            with await connect("127.0.0.1", port_of(server)) as client:
                client.send(b"x")
                assert await read_some(client, 1) == b"x"
        one.stop()
        await one.shutdown()
        with await connect("127.0.0.1", port_of(other)) as client:
            client.send(b"x")
            assert await read_some(client, 1) == b"x"


def test_unavailable_settings_are_rejected_first() -> None:
    text = TEXT + "limits.per-address = 3\nlimits.rate = '3 / 1m'\n"
    with pytest.raises(ConfigurationError) as caught:
        Server(loads(text))
    assert [problem.key for problem in caught.value.problems] == [
        "server.listener.it.limits.per-address",
        "server.listener.it.limits.rate",
    ]


@on_loops
async def test_start_again_after_a_failed_start() -> None:
    async with Server(loads(TEXT)) as first:
        taken = TEXT.replace("127.0.0.1:0", f"127.0.0.1:{port_of(first)}")
        second = Server(loads(taken))
        with pytest.raises(StartError):
            await second.startup()
        assert not second.started
        first.stop()
        await first.shutdown()
        async with Server(loads(taken)) as third:
            assert third.accepting


# --- canned replies ---------------------------------------------------------------------------


def test_canned_replies_with_and_without_implicit_tls() -> None:
    """A refusal comes before the handshake, as an alert; all others are sent through TLS."""
    clear = CannedReplies.of(LazyEcho(HandlerSettings("it", "echo", "host")))
    assert clear.greeting == b"hello\n"
    assert clear.refusal == b"refused: limit\n"
    assert clear.overload == b"refused: overload\n"
    assert clear.farewell_first_byte == b"farewell: first-byte\n"
    assert clear.farewell_idle == b"farewell: idle\n"
    assert clear.farewell_shutdown == b"farewell: shutdown\n"
    secret = CannedReplies.of(LazyEcho(HandlerSettings("it", "echo", "host", tls_implicit=True)))
    assert secret == dataclasses.replace(clear, refusal=TLS_ALERT, overload=TLS_ALERT)
    # A TLS record: alert, version, two bytes long, fatal.
    assert TLS_ALERT[:6] == bytes((21, 3, 3, 0, 2, 2))


def test_canned_replies_must_be_bytes() -> None:
    handler = WrongWords(HandlerSettings("it", "echo", "host"))
    with pytest.raises(FastlistenError, match="the refusal of WrongWords must be bytes, not str"):
        CannedReplies.of(handler)


@on_loops
async def test_connection_without_protocol_object_names_the_listener() -> None:
    """The client is disconnected, and its place is free again."""
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with Server(loads(TEXT.replace(":Echo", ":ForgottenReturn"))) as server:
        with await connect("127.0.0.1", port_of(server)) as client:
            assert await read_all(client) == b""
        places = server.listeners[0].places
        assert places is not None
        await eventually(lambda: places.count == 0)
    (report,) = reports
    text = 'listener "it": ForgottenReturn.connection() returned None'
    assert str(report["exception"]) == text
