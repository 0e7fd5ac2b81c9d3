"""`StreamWriter.start_tls` and data that came before it: such commands are never executed.

Rules of this file: the clients are raw sockets with an `ssl.SSLObject`, so that the test decides
which bytes go into which segment (CVE-2011-0411, RFC 3207 section 4.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from support.loop_worlds import play_on, serving, upgrade
from support.loops import LoopFactory
from support.tls_contexts import HOST, client_context
from support.world import World

from fastlisten._tls import TlsConnection

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Handshake:
    """A client's handshake in buffers, over a non-blocking socket."""

    def __init__(self, world: World, sock: socket.socket) -> None:
        self.world, self.sock = world, sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context().wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    def hello(self) -> bytes:
        """Return the ClientHello."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    async def run(self, step: Callable[[], Any]) -> Any:
        """Repeat a step until it needs nothing more from the server."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self.send()
                data = await self.world.patience(self.world.loop.sock_recv(self.sock, 65536))
                if not data:
                    raise ConnectionError("the server has closed") from None
                self.incoming.write(data)
            finally:
                await self.send()

    async def send(self) -> None:
        if self.outgoing.pending:
            await self.world.loop.sock_sendall(self.sock, self.outgoing.read())


async def starttls_server(world: World, injected: list[bytes]) -> Any:
    """Serve commands, one per line; STARTTLS upgrades. What is read afterwards is noted."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            world.note("plain", await reader.readline())
            # By then the client's next segment has arrived as well.
            await world.until("go")
            await upgrade(writer)
            world.transports.append(writer.transport)
            world.note("upgraded")
            while line := await reader.readline():
                injected.append(line)
                writer.write(line.upper())
        except OSError as exc:
            world.note("failed", type(exc).__name__)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            world.note("over")

    return serving(handler)


SESSION = b"STARTTLS\r\nMAIL FROM:<mallory@example.org>\r\n"


@pytest.mark.parametrize("cut", [10, 11, 20, len(SESSION) - 1, len(SESSION)])
@pytest.mark.parametrize("when", ["before", "after"])
def test_plaintext_commands_are_not_executed_after_starttls(
    our_loop_factory: LoopFactory, cut: int, when: str
) -> None:
    """In the same segment as STARTTLS or in another, before the go-ahead or after it."""

    async def script(world: World) -> None:
        injected: list[bytes] = []
        async with await starttls_server(world, injected) as address:
            with socket.socket() as sock:
                sock.setblocking(False)
                await world.loop.sock_connect(sock, address)
                await world.loop.sock_sendall(sock, SESSION[:cut])
                await world.until("plain")
                await world.settle()
                if when == "before":
                    await world.loop.sock_sendall(sock, SESSION[cut:])
                    await world.settle()
                world.note("go")
                answer = await world.patience(world.loop.sock_recv(sock, 14))
                assert answer == b"220 go ahead\r\n"
                if when == "after":
                    await world.loop.sock_sendall(sock, SESSION[cut:])
                shaker = Handshake(world, sock)
                with contextlib.suppress(OSError):
                    await shaker.run(shaker.tls.do_handshake)
                    await shaker.run(lambda: shaker.tls.write(b"NOOP\r\n"))
                    await shaker.run(lambda: shaker.tls.read(100))
                await world.until("over")
            world.note("injected", *injected)
        gc.collect()

    log = play_on(script, our_loop_factory)
    assert ("plain", b"STARTTLS\r\n") in log
    assert any(note[0] == "failed" for note in log)
    assert ("injected",) in log


@pytest.mark.parametrize("cut", [0, 1, 5, 100, -1])
def test_early_client_hello_is_accepted(our_loop_factory: LoopFactory, cut: int) -> None:
    """The client does not wait for the go-ahead: its handshake is already in the reader."""

    async def script(world: World) -> None:
        lines: list[bytes] = []
        async with await starttls_server(world, lines) as address:
            with socket.socket() as sock:
                sock.setblocking(False)
                await world.loop.sock_connect(sock, address)
                shaker = Handshake(world, sock)
                hello = shaker.hello()
                early = hello[: cut if cut >= 0 else len(hello)]
                await world.loop.sock_sendall(sock, b"STARTTLS\r\n" + early)
                await world.until("plain")
                await world.settle()
                world.note("go")
                answer = await world.patience(world.loop.sock_recv(sock, 14))
                assert answer == b"220 go ahead\r\n"
                await world.loop.sock_sendall(sock, hello[len(early) :])
                await shaker.run(shaker.tls.do_handshake)
                await shaker.run(lambda: shaker.tls.write(b"noop\r\n"))
                world.note("answer", await shaker.run(lambda: shaker.tls.read(100)))
                world.note("native", type(world.transports[0]) is TlsConnection)
            await world.until("over")
        assert lines == [b"noop\r\n"]

    log = play_on(script, our_loop_factory)
    assert ("answer", b"NOOP\r\n") in log
    assert ("native", cut == 0) in log
