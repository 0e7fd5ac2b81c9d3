"""A process that was stopped (SIGSTOP, a suspended machine, a blocking call) for longer than the
timeout: what the relay sent in time still counts.

Rules of this file: the test blocks the loop from before the relay's octets arrive until they have
arrived and the timeout has expired; the relay runs in a thread. A relay that has sent nothing by
then is given up.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
from support.loops import LOOPS
from support.scripted_relay import Action, Do, Script, scripted
from support.tls_contexts import HOST, certificate_files, client_context

from fastlisten.loop.deadline import finish_within
from fastlisten.mail.relay.client import SmtpClient

#: The timeout where the loop is blocked, in seconds, and elsewhere.
SHORT, LONG = 0.3, 20.0
ENVELOPE = (("MAIL", "FROM:<a@b.example>"), ("RCPT", "TO:<c@d.example>"), ("DATA",))
MESSAGE = b"Subject: x\r\n\r\nx\r\n.\r\n"

on_both = pytest.mark.parametrize("loop", LOOPS)


def run(loop: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


class Stall:
    """Blocks the loop.

    Attributes:
        begun: set when the loop is blocked; what the relay sends later is read only afterwards.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()

    def begin(self, arrived: Callable[[], bool], iterations: int = 2) -> None:
        """Block the loop once the caller waits, until `arrived` is true and the timeout is over.

        Not in the next iteration but in a later one, because uvloop writes at the end of one.
        """
        loop = asyncio.get_running_loop()
        if iterations > 1:
            loop.call_soon(self.begin, arrived, iterations - 1)
        else:
            loop.call_soon(self._block, arrived)

    def _block(self, arrived: Callable[[], bool]) -> None:
        began = time.monotonic()
        self.begun.set()
        while not arrived() or time.monotonic() < began + 2 * SHORT:
            if time.monotonic() > began + LONG:
                return
            time.sleep(0.001)

    def then(self, action: Action) -> Sequence[Action]:
        """Return a step of a script that waits until the loop is blocked."""
        stall = self

        class Step(list[Action]):
            def __iter__(self) -> Iterator[Action]:
                assert stall.begun.wait(LONG)
                return super().__iter__()

        return Step([action])


def unacknowledged(client: SmtpClient) -> int:
    """Return how many octets the relay's kernel has not acknowledged."""
    found = fcntl.ioctl(client._socket.fileno(), termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", found)[0])


async def connected(relay: Script) -> SmtpClient:
    client = SmtpClient(LONG)
    await client.connect("127.0.0.1", relay.port, None, "me.example")
    return client


async def whole() -> AsyncIterator[bytes]:
    yield MESSAGE


@on_both
def test_reply_to_a_command(loop: str) -> None:
    async def main() -> None:
        client = await connected(relay)
        stall.begin(lambda: client._unread() > 0)
        assert (await client.command("RSET", within=SHORT)).code == 250
        client.abort()

    stall = Stall()
    with scripted(Script({"RSET": stall.then(Do.USUAL)})) as relay:
        run(loop, main)


@on_both
@pytest.mark.parametrize("reply", [b"250 2.0.0 queued\r\n", b"550 5.7.1 no\r\n"])
def test_reply_to_the_message(loop: str, reply: bytes) -> None:
    """If a positive reply were missed, the message would be sent twice."""

    async def main() -> None:
        client = await connected(relay)
        for words in ENVELOPE:
            await client.command(*words)
        write = client.write

        def last(data: bytes) -> None:
            write(data)
            if data.endswith(b".\r\n"):
                stall.begin(lambda: client._unread() > 0)

        client.write = last  # type: ignore[method-assign]
        answer, whole_message = await client.send(whole(), SHORT)
        assert whole_message
        assert answer.code == int(reply[:3])
        client.abort()

    stall = Stall()
    with scripted(Script({".": stall.then(reply)})) as relay:
        run(loop, main)


@on_both
def test_room_in_the_send_buffer(loop: str) -> None:
    """The relay has read everything; only our loop has not run."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(400):
            yield b"x" * 65_534 + b"\r\n"
        yield MESSAGE

    async def main() -> None:
        client = await connected(relay)
        for words in ENVELOPE:
            await client.command(*words)
        # Small, so that the kernel never buffers the whole message.
        assert client.transport is not None
        sock = client.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        pause, resume = client.pause_writing, client.resume_writing
        times: list[float] = []

        def paused() -> None:
            pause()
            if not times:
                client.timeout = SHORT
                Stall().begin(lambda: unacknowledged(client) == 0)
            times.append(client.timeout)

        def resumed() -> None:
            client.timeout = LONG
            resume()

        client.pause_writing = paused  # type: ignore[method-assign]
        client.resume_writing = resumed  # type: ignore[method-assign]
        answer, whole_message = await client.send(pieces(), LONG)
        assert times[0] == SHORT
        assert whole_message
        assert answer.code == 250
        client.abort()

    with scripted(Script()) as relay:
        run(loop, main)


@on_both
def test_tls_handshake(loop: str) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate_files().p256)
    # TLS 1.2 takes two round trips: one is left when the timeout has expired.
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    stall = Stall()

    class Slow(ssl.SSLContext):
        def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
            assert stall.begun.wait(LONG)
            return server.wrap_socket(sock, *args, **options)

    async def main() -> None:
        client = await connected(relay)
        assert (await client.command("STARTTLS")).code == 220
        client.timeout = SHORT
        stall.begin(lambda: client._unread() > 0, 8)  # the ClientHello is sent by then
        await client._handshake(client_context(), HOST)
        client.timeout = LONG
        await client.hello("me.example")
        assert client.encrypted
        client.abort()

    with scripted(Script(tls=Slow(ssl.PROTOCOL_TLS_SERVER))) as relay:
        run(loop, main)


@on_both
def test_work_completed_at_the_timeout(loop: str) -> None:
    """For example a connection that was established meanwhile."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            stall = Stall()

            def say() -> bool:
                if stall.begun.is_set():
                    stall.begun.clear()
                    theirs.send(b"x")
                return True

            stall.begin(say)
            assert await finish_within(loop.sock_recv(ours, 1), SHORT) == b"x"

    run(loop, main)


@on_both
def test_silent_relay_times_out(loop: str) -> None:
    async def main() -> None:
        client = await connected(relay)
        Stall().begin(lambda: True)
        with pytest.raises(TimeoutError, match="no answer in time"):
            await client.command("RSET", within=SHORT)
        client.abort()

    with scripted(Script({"RSET": [Do.SILENCE]})) as relay:
        run(loop, main)


@on_both
def test_work_is_cancelled_at_the_timeout(loop: str) -> None:
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await finish_within(work(), 0.001)
        assert ended == [True]
        task = asyncio.create_task(finish_within(work(), LONG))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert ended == [True, True]

    run(loop, main)
