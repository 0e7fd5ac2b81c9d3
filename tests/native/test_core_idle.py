"""timeout.idle: the time without input, and what stops it.

Rules of this file: timeouts are short. A deadline must never come early, and must come within the
general time limit of the tests; that it does not come is shown by waiting a few times its length.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from support.listener import Echo, Witness, crowd_of, listening, small_sender
from support.loops import LoopFactory, run
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"
TOO_SILENT = b"421 say something\r\n"
TOO_IDLE = b"421 idle\r\n"
TEXTS: dict[str, Any] = {
    "greeting": GREETING,
    "farewell_first_byte": TOO_SILENT,
    "farewell_idle": TOO_IDLE,
}

both_kinds = pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])


def test_input_restarts_the_idle_timeout(loop_factory: LoopFactory) -> None:
    idle = 0.6

    async def talk(lazy: bool) -> None:
        async with (
            listening(Witness, lazy=lazy, idle=idle, **TEXTS) as listener,
            crowd_of(listener, 1) as clients,
        ):
            assert await clients[0].read() == GREETING
            # Longer than the idle time, in small steps.
            for _ in range(8):
                await clients[0].send(b"ping")
                assert await clients[0].read() == b"ping"
                await asyncio.sleep(idle / 6)
            last = time.monotonic()
            await clients[0].send(b"ping")
            assert await clients[0].everything() == b"ping" + TOO_IDLE
            assert time.monotonic() >= last + idle
            await eventually(lambda: listener.acceptor.connections == 0)
            assert listener.acceptor.statistics()["timed_out"] == 1
            assert listener.protocols[0].ends == [None]

    async def main() -> None:
        await asyncio.gather(talk(True), talk(False))

    run(loop_factory, main)


def test_slow_reader_is_not_idle(loop_factory: LoopFactory) -> None:
    content = b"x" * 200_000
    idle = 0.5

    class Long(Echo):
        def data_received(self, data: bytes) -> None:
            self.transport.write(content)

    async def main() -> None:
        async with listening(Long, small_sender(), idle=idle, **TEXTS) as listener:
            client = await listener.connect(receive_buffer=2048, first=b"RETR 1\r\n")
            begin = time.monotonic()
            found = b""
            while time.monotonic() < begin + 2 * idle:
                found += await client.read(1024)
                await asyncio.sleep(0.02)
            assert len(found) < len(content)
            # What is queued would be sent before a farewell too.
            assert listener.acceptor.statistics()["timed_out"] == 0
            assert found + await client.everything() == GREETING + content + TOO_IDLE
            client.close()

    run(loop_factory, main)


class Transaction(Witness):
    """Is busy or not, as the test says."""

    busy: Any = True


@both_kinds
def test_busy_connection_is_not_closed(loop_factory: LoopFactory, lazy: bool) -> None:
    async def main() -> None:
        async with (
            listening(Transaction, lazy=lazy, idle=0.1, **TEXTS) as listener,
            crowd_of(listener, 3) as clients,
        ):
            for client in clients:
                await client.send(b"x")
                assert await client.receive(len(GREETING) + 1) == GREETING + b"x"
            await asyncio.sleep(0.35)
            assert [client.at_hand() for client in clients] == [None] * 3
            listener.protocols[1].busy = False
            assert await clients[1].everything() == TOO_IDLE
            # Busy, but it is the client's turn.
            listener.protocols[2].working = False
            assert await clients[2].everything() == TOO_IDLE
            assert clients[0].at_hand() is None
            assert listener.acceptor.connections == 1

    run(loop_factory, main)


def test_exception_in_busy_closes_the_connection(loop_factory: LoopFactory) -> None:
    class Broken(Witness):
        @property
        def busy(self) -> bool:  # type: ignore[override]
            raise ValueError("as asked")

    async def main() -> None:
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: complaints.append(context["message"])
        )
        async with listening(Broken, first_byte=0.1, **TEXTS) as listener:
            async with crowd_of(listener, 1) as clients:
                assert await clients[0].everything() == GREETING + TOO_SILENT
            assert complaints == ["protocol.busy failed"]

    run(loop_factory, main)
