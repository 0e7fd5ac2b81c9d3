"""`fastlisten.create_server`: its arguments and errors, and the sockets that it makes.

Rules of this file: what asyncio has too is compared with asyncio; the rest is tested on its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from support.loops import LoopFactory
from support.world import Recorder, World, play, same_as_asyncio

import fastlisten

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: A context without a certificate: enough for arguments that are rejected.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


@contextlib.contextmanager
def occupied() -> Iterator[int]:
    """A port of 127.0.0.1 on which another socket listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"host": "127.0.0.1", "sock": "stream"},
        {"port": 0, "sock": "stream"},
        {"sock": "datagram"},
        {"host": "127.0.0.1", "port": 0, "no_such": 1},
        {"host": "127.0.0.1", "port": "no-such-service"},
        {"host": "127.0.0.1", "port": 70000},
        {"host": "127.0.0.1", "port": 0, "family": socket.AF_INET6},
        {"host": ["127.0.0.1", 5], "port": 0},
        {"host": "127.0.0.1", "port": "occupied"},
        {"host": ["127.0.0.1", "::1"], "port": "occupied"},
        {"host": "127.0.0.1", "port": 0, "ssl": True},
        {"host": "127.0.0.1", "port": 0, "ssl": False},
        {"host": "127.0.0.1", "port": 0, "ssl_handshake_timeout": 5},
        {"host": "127.0.0.1", "port": 0, "ssl_shutdown_timeout": 5},
        {"host": "127.0.0.1", "port": 0, "ssl_handshake_timeout": 0},
        {"ssl": True, "ssl_handshake_timeout": 5},
        {"sock": "tls"},
        {"port": 0, "sock": "tls"},
    ],
    ids=str,
)
def test_errors_are_those_of_asyncio(loop_factory: LoopFactory, arguments: dict[str, Any]) -> None:
    """They have the same class, errno and text; nothing stays open."""

    async def script(world: World) -> None:
        with contextlib.ExitStack() as stack:
            mine = dict(arguments)
            if "sock" in mine:
                kind = socket.SOCK_DGRAM if mine["sock"] == "datagram" else socket.SOCK_STREAM
                mine["sock"] = stack.enter_context(socket.socket(socket.AF_INET, kind))
                if arguments["sock"] == "tls":
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    mine["sock"] = stack.enter_context(
                        context.wrap_socket(mine["sock"], server_side=True)
                    )
            if mine.get("port") == "occupied":
                mine["port"] = stack.enter_context(occupied())
            try:
                server = await world.create(asyncio.Protocol, **mine)
            except Exception as exc:
                # Incidental words: a call with a wrong name or type, a socket's repr.
                accident = isinstance(exc, TypeError) and "ssl" not in mine
                text = "" if accident or "sock" in mine else str(exc)
                # 3.13 prints the number twice.
                text = text.replace(str(mine.get("port")), "PORT").replace("[errno 98] ", "")
                world.note("error", type(exc).__name__, getattr(exc, "errno", None), text)
            else:
                server.close()
                world.note("no error")

    log = same_as_asyncio(script, loop_factory)
    assert log[0][0] == "error"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"ssl": TLS, "ssl_handshake_timeout": 0},
            "ssl_handshake_timeout should be a positive number, got 0",
        ),
        (
            {"ssl": TLS, "ssl_shutdown_timeout": -1},
            "ssl_shutdown_timeout should be a positive number, got -1",
        ),
        ({"ssl": TLS, "ssl_handshake_timeout": float("nan")}, "should be a positive number"),
        ({"max_connections": 0}, "max_connections must be at least 1"),
        ({"max_connections": -1}, "max_connections must be at least 1"),
        ({"limit_action": "queue"}, "limit_action must be 'refuse' or 'wait', not 'queue'"),
        ({"greeting": bytes(65536)}, "at most 65,535"),
        ({"linger": -1}, "must not be negative"),
        ({"first_byte_timeout": float("nan")}, "must not be negative"),
        ({"options": [(socket.SOL_SOCKET, socket.SO_SNDBUF, bytes(33))]}, "at most 32"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_errors_for_arguments_that_asyncio_lacks(
    loop_factory: LoopFactory, arguments: dict[str, Any], message: str
) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=message):
            await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0, **arguments)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_rejected_socket_option_is_named(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match=r"setsockopt\(6, 9999, .*127\.0\.0\.1") as caught:
            await fastlisten.create_server(
                asyncio.Protocol, "127.0.0.1", 0, options=[(socket.IPPROTO_TCP, 9999, 1)]
            )
        assert caught.value.errno is not None

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_address_of_another_host(loop_factory: LoopFactory) -> None:
    """One address that can be bound is enough (asyncio since 3.12); none is an error with errno."""

    async def main() -> None:
        with pytest.raises(OSError, match=r"'192\.0\.2\.1'.*cannot assign") as caught:
            await fastlisten.create_server(asyncio.Protocol, "192.0.2.1", 0)
        assert caught.value.errno is not None
        server = await fastlisten.create_server(asyncio.Protocol, ["192.0.2.1", "127.0.0.1"], 0)
        async with server:
            assert [sock.getsockname()[0] for sock in server.sockets] == ["127.0.0.1"]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.mark.parametrize(
    "arguments",
    [
        {"host": "127.0.0.1", "port": 0},
        {"host": "", "port": 0},
        {"port": 0},
        {"host": "::1", "port": 0},
        {"host": ["127.0.0.1", "::1"], "port": 0},
        {"host": ("127.0.0.1", "127.0.0.1"), "port": "0"},
        {"host": "localhost", "port": 0, "family": socket.AF_INET},
        {"host": "127.0.0.1", "port": 0, "flags": socket.AI_NUMERICHOST},
        {"host": "127.0.0.1", "port": 0, "backlog": 5},
        {"host": "127.0.0.1", "port": 0, "reuse_address": False},
        {"host": "127.0.0.1", "port": 0, "reuse_port": True},
        {"host": "127.0.0.1"},
    ],
    ids=str,
)
def test_listening_sockets_are_those_of_asyncio(
    loop_factory: LoopFactory, arguments: dict[str, Any]
) -> None:
    """As many, of the same families and with the same options; each one is served."""

    async def script(world: World) -> None:
        server = await world.create(lambda: Recorder(world), **arguments)
        async with server:
            found = []
            for sock in server.sockets:
                names = [
                    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
                    (socket.SOL_SOCKET, socket.SO_REUSEPORT),
                    (socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
                ]
                if sock.family == socket.AF_INET6:
                    names.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
                host, port = sock.getsockname()[:2]
                found.append(
                    (
                        type(sock).__name__,
                        sock.family,
                        sock.type,
                        sock.proto,
                        host,
                        port > 0,
                        [sock.getsockopt(*name) for name in names],
                    )
                )
                target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
                world.note("reached", await world.reachable((target, port), sock.family))
            world.note("sockets", *sorted(found, key=str))
            await world.until("connection_lost", len(found))
            for transport in world.transports:
                world.note("transport", transport.get_protocol())
        world.note("closed", server.sockets)

    log = same_as_asyncio(script, loop_factory)
    assert ("reached", "connected") in log


def test_nodelay_is_set_where_asyncio_sets_it(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        server = await world.create(lambda: Recorder(world), "127.0.0.1", 0)
        async with server:
            with socket.create_connection(server.sockets[0].getsockname()):
                await world.until("connection_made")
                view = world.transports[0].get_extra_info("socket")
                world.note("nodelay", view.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
            await world.until("connection_lost")

    assert ("nodelay", True) in same_as_asyncio(script, loop_factory)


def test_nodelay_is_set_on_a_given_socket(loop_factory: LoopFactory) -> None:
    """Even if it was made without naming TCP, which asyncio does not recognise."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        await world.connect()
        await world.until("connection_made")
        view = world.transports[0].get_extra_info("socket")
        world.note("nodelay", view.proto, view.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    assert ("nodelay", 0, 1) in play(script, loop_factory)


def test_accepted_sockets_inherit_options(loop_factory: LoopFactory) -> None:
    """`options` and `keep_alive` are set on the listening socket; connections have them too."""

    async def script(world: World) -> None:
        server = await fastlisten.create_server(
            lambda: Recorder(world),
            "127.0.0.1",
            0,
            keep_alive=True,
            options=[
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 0),
                (socket.IPPROTO_IP, socket.IP_TTL, (33).to_bytes(4, "little")),
            ],
        )
        async with server:
            with socket.create_connection(server.sockets[0].getsockname()):
                await world.until("connection_made")
                view = world.transports[0].get_extra_info("socket")
                for name in (
                    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
                    (socket.IPPROTO_IP, socket.IP_TTL),
                ):
                    world.note("option", view.getsockopt(*name))
            await world.until("connection_lost")

    found = [note[1] for note in play(script, loop_factory) if note[0] == "option"]
    assert found == [1, 0, 33]


def test_unix_socket(loop_factory: LoopFactory) -> None:
    """A path or an abstract name; the caller removes the file."""

    async def script(world: World) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name in (f"{folder}/socket", "\0fastlisten-test-" + folder):
                sock = socket.socket(socket.AF_UNIX)
                sock.bind(name)
                async with await world.create(lambda: Recorder(world), sock=sock) as server:
                    world.note("family", server.sockets[0].family)
                    lost = world.count("connection_lost")
                    world.note("reached", await world.reachable(name, socket.AF_UNIX))
                    await world.until("connection_lost", lost + 1)
                    transport = world.transports[-1]
                    sockname = transport.get_extra_info("sockname")
                    world.note("name", type(sockname), transport.get_extra_info("peername"))

    log = same_as_asyncio(script, loop_factory)
    assert [note[1] for note in log if note[0] == "name"] == [str, bytes]
