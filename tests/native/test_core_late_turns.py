"""Turns that end late: input that came in time is read, and what is left over is not forgotten."""

from __future__ import annotations

import time

import pytest
from support.listener import Echo, crowd_of, listening
from support.loops import LoopFactory, run
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Seconds: for the first byte, and for which the loop is blocked.
FIRST_BYTE, BLOCKED = 0.3, 0.6


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
def test_input_in_time_is_read(loop_factory: LoopFactory, lazy: bool) -> None:
    """One protocol blocks the loop for longer than the others' time, and for less than what counts
    as a process that stood still."""
    blocked: list[float] = []

    class Blocking(Echo):
        def data_received(self, data: bytes) -> None:
            if not blocked:
                time.sleep(BLOCKED)
                blocked.append(BLOCKED)
            super().data_received(data)

    async def main() -> None:
        async with listening(Blocking, lazy=lazy, first_byte=FIRST_BYTE) as listener:
            listener.acceptor.pause()
            async with crowd_of(listener, 40, first=b"ping") as clients:
                listener.acceptor.resume()
                await eventually(lambda: blocked)
                for client in clients:
                    assert await client.read() == b"ping"
                assert listener.acceptor.statistics()["timed_out"] == 0

    run(loop_factory, main)


def test_accepted_clients_that_are_left_over_get_their_protocols(loop_factory: LoopFactory) -> None:
    """Making them takes longer than a turn may; nothing else happens that would wake the loop."""

    class Slow(Echo):
        def __init__(self) -> None:
            time.sleep(0.002)

    async def main() -> None:
        async with listening(Slow) as listener:
            listener.acceptor.pause()
            async with crowd_of(listener, 10):
                listener.acceptor.resume()
                await eventually(lambda: len(listener.protocols) == 10)

    run(loop_factory, main)
