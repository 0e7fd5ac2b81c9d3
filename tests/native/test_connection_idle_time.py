"""idle_time of a connection: a deadline of its own instead of the listener's, and what it asks.

Rules of this file: times are short, and events are waited for. That a deadline does not come is
shown by one that was set later and has come.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.listener import Echo, listening
from support.loops import LoopFactory, run
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

IDLE = b"* BYE idle\r\n"
LONG = 3600.0


class Patient(Echo):
    """Is asked whether to go on, and goes on a few times."""

    transport: Any
    more = 0
    asked = 0
    during: Any = None

    def idle_expired(self) -> bool:
        self.asked += 1
        if self.during is not None:
            return bool(self.during(self))
        return self.asked <= self.more


def patient(**values: Any) -> type[Patient]:
    """Return a class of such protocols; `during` is what one does when it is asked."""
    during = {"during": staticmethod(values["during"])} if "during" in values else {}
    return type("Chosen", (Patient,), values | during)


@pytest.mark.parametrize("listeners", [0.0, LONG])
def test_a_connection_ends_after_its_own_time(loop_factory: LoopFactory, listeners: float) -> None:
    async def main() -> None:
        async with listening(patient(more=2), idle=listeners, farewell_idle=IDLE) as listener:
            client = await listener.connect(first=b"a")
            assert await client.read() == b"a"
            (protocol,) = listener.protocols
            assert protocol.transport.idle_time == listeners
            protocol.transport.idle_time = 0.02
            assert protocol.transport.idle_time == 0.02
            assert await client.everything() == IDLE
            assert protocol.asked == 3
            await eventually(lambda: listener.acceptor.connections == 0)
            assert listener.acceptor.statistics()["timed_out"] == 1
            client.close()

    run(loop_factory, main)


def test_what_is_written_meanwhile_arrives(loop_factory: LoopFactory) -> None:
    def say(protocol: Patient) -> bool:
        protocol.transport.write(b"still here\r\n")
        return protocol.asked < 3

    async def main() -> None:
        async with listening(patient(during=say), farewell_idle=IDLE) as listener:
            client = await listener.connect(first=b"a")
            assert await client.read() == b"a"
            listener.protocols[0].transport.idle_time = 0.02
            assert await client.everything() == b"still here\r\n" * 3 + IDLE
            client.close()

    run(loop_factory, main)


def test_zero_is_the_listeners_time_again(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening(Patient, idle=0.1, farewell_idle=IDLE) as listener:
            client = await listener.connect(first=b"a")
            assert await client.read() == b"a"
            transport = listener.protocols[0].transport
            transport.idle_time = LONG
            transport.idle_time = 0.0
            assert transport.idle_time == 0.1
            assert await client.everything() == IDLE
            # The listener's time asks nobody.
            assert listener.protocols[0].asked == 0
            client.close()

    run(loop_factory, main)


def test_zero_without_a_time_of_the_listener_is_none(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening(Patient, farewell_idle=IDLE) as listener:
            clients = [await listener.connect(first=b"a") for _ in range(2)]
            for client in clients:
                assert await client.read() == b"a"
            first, second = (protocol.transport for protocol in listener.protocols)
            first.idle_time = 0.01
            first.idle_time = 0.0
            second.idle_time = 0.05
            assert await clients[1].everything() == IDLE
            await clients[0].send(b"b")
            assert await clients[0].read() == b"b"
            for client in clients:
                client.close()

    run(loop_factory, main)


@pytest.mark.parametrize(
    "during",
    [
        lambda protocol: protocol.transport.close() or True,
        lambda protocol: protocol.transport.close(),
        lambda protocol: protocol.transport.abort() or True,
        lambda protocol: protocol.transport.abort(),
    ],
)
def test_the_protocol_may_close_when_it_is_asked(loop_factory: LoopFactory, during: Any) -> None:
    async def main() -> None:
        async with listening(patient(during=during), farewell_idle=IDLE) as listener:
            client = await listener.connect(first=b"a")
            assert await client.read() == b"a"
            listener.protocols[0].transport.idle_time = 0.01
            assert await client.everything() == b""
            await eventually(lambda: listener.acceptor.connections == 0)
            assert listener.protocols[0].asked == 1
            client.close()

    run(loop_factory, main)


def test_an_error_ends_the_connection(loop_factory: LoopFactory) -> None:
    def fail(protocol: Patient) -> bool:
        raise RuntimeError("no idea")

    async def main() -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, it: faults.append(it))
        async with listening(patient(during=fail), farewell_idle=IDLE) as listener:
            client = await listener.connect(first=b"a")
            assert await client.read() == b"a"
            listener.protocols[0].transport.idle_time = 0.01
            assert await client.everything() == IDLE
            assert [it["message"] for it in faults] == ["protocol.idle_expired failed"]
            client.close()

    run(loop_factory, main)


def test_negative_times_are_refused_and_closed_connections_have_none(
    loop_factory: LoopFactory,
) -> None:
    async def main() -> None:
        async with listening(Patient, idle=LONG) as listener:
            client = await listener.connect(first=b"a")
            assert await client.read() == b"a"
            transport = listener.protocols[0].transport
            with pytest.raises(ValueError, match="negative"):
                transport.idle_time = -1.0
            transport.abort()
            await eventually(lambda: listener.acceptor.connections == 0)
            assert transport.idle_time == 0.0
            transport.idle_time = 5.0
            client.close()

    run(loop_factory, main)
