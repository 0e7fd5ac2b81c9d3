"""Clients that are gone while nobody reads or writes: the core notices, tells the protocol, and
gives the place back; and what is no loss is not taken for one.

Rules of this file: `notice_loss` is what every listener of a configuration has, and aiosmtpd's
controllers; that `create_server` does without it as asyncio does is in test_connection_callbacks.
"Does not spin" is said by the engine's descriptor: one that stays readable would wake the loop
again and again.
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
    """Keeps its connection whatever its client does, and can stop reading."""

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

    async def noticed(self, *kinds: type[BaseException | None]) -> None:
        """Wait until the protocol has been told, once, and the place is free."""
        await eventually(lambda: self.held.ends, "connection_lost")
        await eventually(lambda: self.listener.acceptor.connections == 0)
        await quiet(self.listener)
        (error,) = self.held.ends
        assert isinstance(error, kinds)
        assert self.listener.places is not None
        assert self.listener.places.count == 0


async def quiet(listener: Listener) -> None:
    """See that nothing wakes the engine again and again."""
    await eventually(
        lambda: not select.select([listener.engine.fd], [], [], 0)[0], "a set with nothing ready"
    )
    for _ in range(20):
        await asyncio.sleep(0)
        assert select.select([listener.engine.fd], [], [], 0)[0] == []


@asynccontextmanager
async def joined(tls: bool, factory: type[Held] = Held, **settings: Any) -> AsyncIterator[Joined]:
    """Serve one client that has said a word which was read."""
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
def test_while_reading_is_paused(
    loop_factory: LoopFactory, tls: bool, finished: bool, factory: type[Held]
) -> None:
    async def main() -> None:
        async with joined(tls, factory) as client:
            client.held.transport.pause_reading()
            if finished:
                client.finish()
                await quiet(client.listener)
                assert client.held.ends == []
            client.reset()
            await client.noticed(*GONE)
            assert not client.held.eof

    run(loop_factory, main)


@both
def test_that_was_lost_before_the_pause(loop_factory: LoopFactory, tls: bool) -> None:
    """The edge was before the registration; the level is told once all the same."""

    async def main() -> None:
        async with joined(tls) as client:
            client.reset()
            # Nothing has been polled since: a client's reset is known to the kernel at once.
            client.held.transport.pause_reading()
            await client.noticed(*GONE)

    run(loop_factory, main)


@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_after_the_end_of_input(loop_factory: LoopFactory, paused: bool) -> None:
    """The half that TCP leaves open. TLS has none: a connection ends with its input."""

    async def main() -> None:
        async with joined(False) as client:
            client.finish()
            await eventually(lambda: client.held.eof)
            if paused:
                client.held.transport.pause_reading()
            await quiet(client.listener)
            assert client.held.ends == []
            client.reset()
            await client.noticed(*GONE)

    run(loop_factory, main)


@both
@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_while_output_waits(loop_factory: LoopFactory, tls: bool, paused: bool) -> None:
    async def main() -> None:
        async with joined(tls) as client:
            if paused:
                client.held.transport.pause_reading()
            client.held.transport.write(bytes(20_000_000))
            assert client.held.transport.get_write_buffer_size()
            client.reset()
            await client.noticed(*GONE)

    run(loop_factory, main)


def test_a_peer_that_takes_nothing_for_too_long(loop_factory: LoopFactory) -> None:
    """`socket.user-timeout`: nothing comes any more by which a write or a read could find out."""

    async def main() -> None:
        async with joined(False) as client:
            client._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            transport = client.held.transport
            transport.pause_reading()
            view = transport.get_extra_info("socket")
            view.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
            view.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
            transport.write(bytes(150_000))
            # The kernel has all of it: the transport waits for nothing.
            assert transport.get_write_buffer_size() == 0
            await client.noticed(TimeoutError)
            (error,) = client.held.ends
            assert isinstance(error, OSError)
            assert error.errno == errno.ETIMEDOUT

    run(loop_factory, main)


@both
def test_unread_input_goes_with_the_connection(loop_factory: LoopFactory, tls: bool) -> None:
    """As with asyncio where a write finds out."""

    async def main() -> None:
        async with joined(tls) as client:
            client.held.transport.pause_reading()
            if not tls:
                client._sock.send(b"more")
            client.reset()
            await client.noticed(*GONE)
            assert client.held.received == b"word"

    run(loop_factory, main)


def test_an_error_that_somebody_has_asked_for(loop_factory: LoopFactory) -> None:
    """SO_ERROR is told once; that there is no connection any more can be seen all the same."""

    async def main() -> None:
        async with joined(False) as client:
            client.held.transport.pause_reading()
            view = client.held.transport.get_extra_info("socket")
            client.reset()
            found = view.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert found == errno.ECONNRESET
            await client.noticed(ConnectionResetError)

    run(loop_factory, main)


def test_reading_again_before_the_loss_is_seen(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with joined(False) as client:
            transport = client.held.transport
            for _ in range(3):
                transport.pause_reading()
                transport.resume_reading()
            transport.pause_reading()
            client._sock.send(b"more")
            transport.resume_reading()
            await eventually(lambda: client.held.received == b"wordmore")
            client.reset()
            await client.noticed(*GONE)

    run(loop_factory, main)


def test_both_ends_of_a_connection_are_no_loss(loop_factory: LoopFactory) -> None:
    """A hang-up without an error, which the kernel goes on reporting: it is heard once."""

    async def main() -> None:
        async with joined(False) as client:
            transport = client.held.transport
            client._sock.send(b"more")
            transport.pause_reading()
            transport.write_eof()
            client.finish()
            await quiet(client.listener)
            assert client.held.ends == []
            transport.resume_reading()
            await eventually(lambda: client.held.eof)
            assert client.held.received == b"wordmore"
            await quiet(client.listener)
            assert client.held.ends == []
            transport.close()
            await client.noticed(type(None))

    run(loop_factory, main)


def test_a_unix_client_that_closes_is_read_to_its_end(
    loop_factory: LoopFactory, tmp_path: Any
) -> None:
    """Its hang-up says that both halves are closed, and what it has sent is there still."""

    async def main() -> None:
        sock = bound_socket(socket.AF_UNIX, str(tmp_path / "s"))
        async with listening(Early, sock, limit=1, notice_loss=True) as listener:
            client = await RawClient.connect(str(tmp_path / "s"), first=b"all of it")
            await eventually(lambda: listener.protocols)
            held = listener.protocols[0]
            client.close()
            await quiet(listener)
            assert held.ends == []
            held.transport.resume_reading()
            await eventually(lambda: held.eof)
            assert held.received == b"all of it"
            await quiet(listener)
            assert held.ends == []

    run(loop_factory, main)


def test_a_unix_client_that_goes_without_reading(loop_factory: LoopFactory, tmp_path: Any) -> None:
    """What it has left unread makes its close a reset."""

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
