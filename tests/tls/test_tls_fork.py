"""fork() in a process that serves TLS, and sessions shared by several processes.

Rules of this file: as in test_core_fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
from typing import Any

import pytest
from support.forked import MAY_HAVE_THREADS, children, exit_status, serving
from support.kernel import is_open
from support.loops import LoopFactory
from support.tls_contexts import HOST, client_context, server_context
from support.tls_world import KINDS, TlsClient, TlsRecorder, TlsWorld, play_tls
from support.world import Hook

import fastlisten

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    MAY_HAVE_THREADS,
]


@pytest.mark.parametrize("kind", KINDS)
def test_calls_in_the_child_do_not_reach_clients(loop_factory: LoopFactory, kind: str) -> None:
    """The child's copies are closed, and nothing it does with them reaches a client: neither data
    nor close_notify, although it knows the keys."""

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks))
        client, transport = await world.made()
        # The first data comes with the tickets of TLS 1.3.
        await client.send(b"before")
        world.note("answer", await client.receive(6))
        half = TlsClient(await world.connect())
        with pytest.raises(ssl.SSLWantReadError):
            half.tls.do_handshake()
        await half.flush()
        await world.settle()
        number = transport.get_extra_info("socket").fileno()
        session = transport.get_extra_info("ssl_object")

        def destroy() -> bool:
            dead = not is_open(number) and transport.is_closing()
            transport.write(b"from the child")
            transport.close()
            transport.abort()
            known = transport.get_extra_info("peername") is not None
            world.transports.clear()
            gc.collect()
            with contextlib.suppress(OSError, ValueError):
                session.write(b"and this")
            return dead and known

        world.note("child", exit_status(destroy))
        await world.settle()
        world.note("client", client.raw.ended())
        await client.send(b"still there?")
        world.note("answer", await client.receive(12))
        await half.handshake()
        await half.send(b"and you?")
        world.note("answer", await half.receive(8))
        for each in (client, half):
            await each.notify()
        await world.until("connection_lost", 2)

    log = [n for n in play_tls(script, loop_factory, kind=kind) if "_" not in n[0]]
    assert log == [
        ("answer", b"before"),
        ("child", 0),
        ("client", "open"),
        ("answer", b"still there?"),
        ("answer", b"and you?"),
    ]


def test_child_does_not_keep_connections_open(loop_factory: LoopFactory) -> None:
    """The client sees the end when the parent closes."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        os.close(read)
        try:
            transport.abort()
            world.note("client", (await client.rest())[1])
        finally:
            os.close(write)
            os.waitpid(pid, 0)

    assert ("client", "truncated") in play_tls(script, loop_factory)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_resumption_across_processes(
    loop_factory: LoopFactory, version: ssl.TLSVersion
) -> None:
    """Two workers with a context made before the fork accept each other's tickets."""
    context = server_context()
    own = client_context(version=version)
    sockets = []
    for _ in range(2):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sockets.append(sock)
    addresses = [sock.getsockname() for sock in sockets]

    class Pid(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(b"%d" % os.getpid())

    def ask(address: Any, session: ssl.SSLSession | None) -> tuple[bytes, bool, Any]:
        with (
            socket.create_connection(address, timeout=20) as raw,
            own.wrap_socket(raw, server_hostname=HOST, session=session) as tls,
        ):
            tls.sendall(b"who are you?")
            answer = tls.recv(100)
            found = (answer, bool(tls.session_reused), tls.session)
            tls.unwrap()
            return found

    waiting = list(sockets)

    async def start() -> fastlisten.ConnectionServer:
        # The second child is forked after the first; each takes its own socket.
        return await fastlisten.create_server(Pid, sock=waiting[0], ssl=context)

    numbers = []
    with contextlib.ExitStack() as stack:
        for sock in sockets:
            stack.callback(sock.close)
        for _ in range(2):
            body = serving(loop_factory, start)
            stack.enter_context(children(1, body, [waiting[0].fileno()]))
            waiting.pop(0)
        session = None
        for which, expected in ((0, False), (1, True), (0, True)):
            answer, reused, session = ask(addresses[which], session)
            assert reused is expected
            numbers.append(int(answer))
    assert len(set(numbers)) == 2
    assert numbers[0] == numbers[2]
