"""A relay that reads slowly: no timeout as long as it makes progress.

Rules of this file: no time is measured. Each time that our timeout expires, the relay has read more
since, or has not.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator

import pytest
from support.loops import LOOPS

from fastlisten.loop.deadline import PeerTimeout
from fastlisten.mail.relay.client import SmtpClient

END = b"\r\n.\r\n"
#: More than all buffers on the way can hold (tcp_wmem and tcp_rmem).
PIECES = 32 * [b"x" * (1 << 20)]


class Slow:
    """A relay that reads each piece of the message only when told to."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.more = threading.Semaphore(0)
        self.whole = False
        self.hurry = False
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> Slow:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hurry = True
        self.more.release()
        self.listening.close()
        self.thread.join(20)

    def _run(self) -> None:
        connection, _ = self.listening.accept()
        with connection:
            connection.settimeout(20)
            connection.sendall(b"220 hello\r\n")
            connection.recv(1000)  # EHLO
            connection.sendall(b"250 relay.example\r\n")
            last = b""
            while not last.endswith(END):
                if not self.hurry:
                    assert self.more.acquire(timeout=20)
                try:
                    data = connection.recv(65536)
                except ConnectionResetError:
                    return
                if not data:
                    return
                last = (last + data)[-len(END) :]
            self.whole = True
            connection.sendall(b"250 taken\r\n")
            connection.recv(1)


async def message() -> AsyncIterator[bytes]:
    for piece in PIECES:
        yield piece
    yield END


def late(client: SmtpClient, relay: Slow, times: int, taking: bool) -> list[int]:
    """Let the client's timeout expire with a full buffer; return the unacknowledged counts."""
    event, seen = client._wait, list[int]()

    async def found_late(limit: PeerTimeout) -> None:
        if not client._paused or len(seen) == times:
            relay.hurry = True
            relay.more.release()
            await event(limit)
            return
        before = client._unacknowledged()
        seen.append(before)
        while taking and client._unacknowledged() >= before:
            relay.more.release()
            await asyncio.sleep(0.001)
        raise TimeoutError("no answer in time")

    client._wait = found_late  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("taking", [True, False])
def test_timeout_depends_on_progress(loop: str, taking: bool) -> None:
    async def main() -> None:
        client = SmtpClient(20.0)
        await client.connect("127.0.0.1", relay.listening.getsockname()[1], None, "me.example")
        seen = late(client, relay, 3, taking)
        try:
            if taking:
                reply, whole = await client.send(message(), 20.0)
                assert len(seen) == 3
                assert whole
                assert reply.code == 250
                assert relay.whole
            else:
                with pytest.raises(TimeoutError):
                    await client.send(message(), 20.0)
                assert len(seen) == 1
        finally:
            client.abort()

    with Slow() as relay, asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
