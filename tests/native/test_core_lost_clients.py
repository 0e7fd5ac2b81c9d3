"""Clients that vanish while nothing is read or written: the core notices, tells the protocol and
frees the place; and connections that only look like it are left alone.

Rules of this file: `notice_loss` is on for every configured listener and for aiosmtpd's
controllers; that `create_server` leaves it off, as asyncio does, is in test_connection_callbacks.
That nothing spins is seen from the engine's descriptor: if it stayed readable, it would wake the
loop again and again.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.listener import Listener, Witness, bound_socket, listening
from support.loops import LoopFactory, run
from support.raw_client import RESET, RawClient
from support.tls_contexts import HOST, client_context
from support.tls_listener import tls_listening
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

GONE = (ConnectionResetError, BrokenPipeError)


class Held(Witness):
    """Keeps its connection whatever the client does, and can stop reading."""

    def __init__(self) -> None:
        super().__init__()
        self.received = b""
        self.eof = False
        self.early = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.early:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.eof = True
        return True


class Early(Held):
    """The same, paused from the beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.early = True


class Joined:
    """A client and the protocol object that serves it."""

    def __init__(
        self, listener: Listener, sock: socket.socket, end: Callable[[], None], held: Held
    ) -> None:
        self.listener = listener
        self.held = held
        self._sock = sock
        self._end = end

    def finish(self) -> None:
        """End the sending half."""
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._end()

    async def loss_noticed(self, *kinds: type[BaseException | None]) -> None:
        """Wait until the protocol has been told, once, and the place is free."""
        await eventually(lambda: self.held.ends, "connection_lost")
        await eventually(lambda: self.listener.acceptor.connections == 0)
        await engine_is_quiet(self.listener)
        (error,) = self.held.ends
        assert isinstance(error, kinds)
        assert self.listener.places is not None
        assert self.listener.places.count == 0


async def engine_is_quiet(listener: Listener) -> None:
    """Check that nothing wakes the engine again and again."""
    await eventually(
        lambda: not select.select([listener.engine.fd], [], [], 0)[0], "a set with nothing ready"
    )
    for _ in range(20):
        await asyncio.sleep(0)
        assert select.select([listener.engine.fd], [], [], 0)[0] == []


@asynccontextmanager
async def joined_client(
    tls: bool, factory: type[Held] = Held, **settings: Any
) -> AsyncIterator[Joined]:
    """Serve one client that has sent a word, which was read."""
    settings = {"limit": 1, "notice_loss": True, **settings}
    if not tls:
        async with listening(factory, **settings) as listener:
            client = await listener.connect(first=b"word")
            yield await _ready(listener, client.sock, client.close)
            client.close()
        return
    async with tls_listening(factory, **settings) as listener:
        _, writer = await asyncio.open_connection(
            *listener.address, ssl=client_context(), server_hostname=HOST
        )
        writer.write(b"word")
        sock = socket.socket(fileno=writer.get_extra_info("socket").fileno())
        try:
            yield await _ready(listener, sock, writer.transport.abort)
        finally:
            sock.detach()
            writer.transport.abort()


async def _ready(listener: Listener, sock: socket.socket, end: Callable[[], None]) -> Joined:
    await eventually(lambda: listener.protocols and listener.protocols[0].transport)
    held = listener.protocols[0]
    if not held.early:
        await eventually(lambda: held.received == b"word")
    return Joined(listener, sock, end, held)


both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


@both
@pytest.mark.parametrize("finished", [False, True], ids=["at-once", "after-its-end"])
@pytest.mark.parametrize("factory", [Held, Early], ids=["later", "from-the-beginning"])
def test_reset_while_reading_is_paused(
    loop_factory: LoopFactory, tls: bool, finished: bool, factory: type[Held]
) -> None:
    async def main() -> None:
        async with joined_client(tls, factory) as client:
            client.held.transport.pause_reading()
            if finished:
                client.finish()
                await engine_is_quiet(client.listener)
                assert client.held.ends == []
            client.reset()
            await client.loss_noticed(*GONE)
            assert not client.held.eof

    run(loop_factory, main)


@both
def test_reset_before_the_pause(loop_factory: LoopFactory, tls: bool) -> None:
    """The edge came before the registration, but the level is still reported once."""

    async def main() -> None:
        async with joined_client(tls) as client:
            client.reset()
            # Nothing was polled since: the kernel knows of the client's reset at once.
            client.held.transport.pause_reading()
            await client.loss_noticed(*GONE)

    run(loop_factory, main)


@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_reset_after_eof(loop_factory: LoopFactory, paused: bool) -> None:
    """TCP can be half closed. TLS can't: a connection ends with its input."""

    async def main() -> None:
        async with joined_client(False) as client:
            client.finish()
            await eventually(lambda: client.held.eof)
            if paused:
                client.held.transport.pause_reading()
            await engine_is_quiet(client.listener)
            assert client.held.ends == []
            client.reset()
            await client.loss_noticed(*GONE)

    run(loop_factory, main)


@both
@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_reset_while_output_waits(loop_factory: LoopFactory, tls: bool, paused: bool) -> None:
    async def main() -> None:
        async with joined_client(tls) as client:
            if paused:
                client.held.transport.pause_reading()
            client.held.transport.write(bytes(20_000_000))
            assert client.held.transport.get_write_buffer_size()
            client.reset()
            await client.loss_noticed(*GONE)

    run(loop_factory, main)


def test_user_timeout_while_reading_is_paused(loop_factory: LoopFactory) -> None:
    """`socket.user-timeout`: there is no more I/O by which the loss could be noticed."""

    async def main() -> None:
        async with joined_client(False) as client:
            client._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            transport = client.held.transport
            transport.pause_reading()
            view = transport.get_extra_info("socket")
            view.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
            view.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
            transport.write(bytes(150_000))
            # The kernel has all of it: the transport itself waits for nothing.
            assert transport.get_write_buffer_size() == 0
            await client.loss_noticed(TimeoutError)
            (error,) = client.held.ends
            assert isinstance(error, OSError)
            assert error.errno == errno.ETIMEDOUT

    run(loop_factory, main)


@both
def test_unread_input_is_dropped_at_a_reset(loop_factory: LoopFactory, tls: bool) -> None:
    """As with asyncio when a write fails."""

    async def main() -> None:
        async with joined_client(tls) as client:
            client.held.transport.pause_reading()
            if not tls:
                client._sock.send(b"more")
            client.reset()
            await client.loss_noticed(*GONE)
            assert client.held.received == b"word"

    run(loop_factory, main)


def test_reset_is_noticed_after_so_error_was_read(loop_factory: LoopFactory) -> None:
    """SO_ERROR is reported only once, but the loss can still be seen."""

    async def main() -> None:
        async with joined_client(False) as client:
            client.held.transport.pause_reading()
            view = client.held.transport.get_extra_info("socket")
            client.reset()
            found = view.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert found == errno.ECONNRESET
            await client.loss_noticed(ConnectionResetError)

    run(loop_factory, main)


def test_resume_reading_before_the_loss_is_noticed(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with joined_client(False) as client:
            transport = client.held.transport
            for _ in range(3):
                transport.pause_reading()
                transport.resume_reading()
            transport.pause_reading()
            client._sock.send(b"more")
            transport.resume_reading()
            await eventually(lambda: client.held.received == b"wordmore")
            client.reset()
            await client.loss_noticed(*GONE)

    run(loop_factory, main)


def test_eof_in_both_directions_is_no_loss(loop_factory: LoopFactory) -> None:
    """The kernel keeps reporting this hang-up without an error; it is handled once."""

    async def main() -> None:
        async with joined_client(False) as client:
            transport = client.held.transport
            client._sock.send(b"more")
            transport.pause_reading()
            transport.write_eof()
            client.finish()
            await engine_is_quiet(client.listener)
            assert client.held.ends == []
            transport.resume_reading()
            await eventually(lambda: client.held.eof)
            assert client.held.received == b"wordmore"
            await engine_is_quiet(client.listener)
            assert client.held.ends == []
            transport.close()
            await client.loss_noticed(type(None))

    run(loop_factory, main)


def test_data_of_a_closed_unix_client_is_read(loop_factory: LoopFactory, tmp_path: Any) -> None:
    """The hang-up says that both halves are closed; data already sent is still there."""

    async def main() -> None:
        sock = bound_socket(socket.AF_UNIX, str(tmp_path / "s"))
        async with listening(Early, sock, limit=1, notice_loss=True) as listener:
            client = await RawClient.connect(str(tmp_path / "s"), first=b"all of it")
            await eventually(lambda: listener.protocols)
            held = listener.protocols[0]
            client.close()
            await engine_is_quiet(listener)
            assert held.ends == []
            held.transport.resume_reading()
            await eventually(lambda: held.eof)
            assert held.received == b"all of it"
            await engine_is_quiet(listener)
            assert held.ends == []

    run(loop_factory, main)


def test_unix_client_closes_with_unread_data(loop_factory: LoopFactory, tmp_path: Any) -> None:
    """Data that it left unread turns its close into a reset."""

    async def main() -> None:
        sock = bound_socket(socket.AF_UNIX, str(tmp_path / "s"))
        async with listening(Early, sock, limit=1, notice_loss=True) as listener:
            client = await RawClient.connect(str(tmp_path / "s"))
            await eventually(lambda: listener.protocols)
            held = listener.protocols[0]
            held.transport.write(b"never read")
            client.close()
            await eventually(lambda: held.ends)
            assert isinstance(held.ends[0], ConnectionResetError)
            await eventually(lambda: listener.acceptor.connections == 0)

    run(loop_factory, main)
