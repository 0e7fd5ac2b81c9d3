"""timeout.first-byte, and deadlines as such: a client that is silent for too long gets a reply.

Rules of this file: timeouts are short, and only lower bounds are asserted: a deadline must never
come early, and must come within the general time limit of the tests.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from typing import Any

import pytest
from support.listener import Listener, Witness, bound_socket, crowd_of, listening, small_sender
from support.loops import LoopFactory, run
from support.raw_client import RawClient
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


async def none_left(listener: Listener) -> None:
    """Wait until no connection and no deadline is left."""
    await eventually(lambda: listener.acceptor.connections == 0)
    assert listener.engine.census()["open"] == 0


# --- the first byte ---------------------------------------------------------------------------


@both_kinds
def test_silent_client_gets_the_timeout_reply(loop_factory: LoopFactory, lazy: bool) -> None:
    # More than one sweep handles (256).
    size = 600

    async def main() -> None:
        async with listening(Witness, lazy=lazy, limit=size, first_byte=0.2, **TEXTS) as listener:
            begin = time.monotonic()
            async with crowd_of(listener, size) as clients:
                for client in clients:
                    assert await client.everything() == GREETING + TOO_SILENT
                    assert time.monotonic() >= begin + 0.2
                await none_left(listener)
            assert listener.acceptor.statistics()["timed_out"] == size
            assert listener.places is not None
            assert listener.places.count == 0
            # A lazy listener's protocol was never made.
            assert len(listener.protocols) == (0 if lazy else size)
            assert all(protocol.ends == [None] for protocol in listener.protocols)

    run(loop_factory, main)


@both_kinds
def test_first_byte_stops_the_deadline(loop_factory: LoopFactory, lazy: bool) -> None:
    async def main() -> None:
        async with (
            listening(lazy=lazy, first_byte=0.5, **TEXTS) as listener,
            crowd_of(listener, 2) as clients,
        ):
            talker, silent = clients
            await talker.send(b"x")
            assert await silent.everything() == GREETING + TOO_SILENT
            assert await talker.receive(len(GREETING) + 1) == GREETING + b"x"
            await asyncio.sleep(0.7)
            await talker.send(b"y")
            assert await talker.read() == b"y"
            assert listener.acceptor.statistics()["timed_out"] == 1

    run(loop_factory, main)


def test_deadline_passes_before_the_protocol_is_made(loop_factory: LoopFactory) -> None:
    # The last one's time is up before it has a protocol.
    def slow() -> Witness:
        time.sleep(0.005)
        return Witness()

    async def main() -> None:
        async with listening(slow, first_byte=0.05, start=False, **TEXTS) as listener:
            async with crowd_of(listener, 60) as clients:
                listener.acceptor.resume()
                for client in clients:
                    assert await client.everything() == GREETING + TOO_SILENT
            await none_left(listener)

    run(loop_factory, main)


def test_reused_descriptor_has_its_own_deadline(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening(lazy=True, first_byte=0.3, **TEXTS) as listener:
            for _ in range(3):
                async with crowd_of(listener, 5) as earlier:
                    for client in earlier:
                        assert await client.read() == GREETING
                    await asyncio.sleep(0.2)
                await none_left(listener)
                begin = time.monotonic()
                async with crowd_of(listener, 5) as later:
                    for client in later:
                        assert await client.everything() == GREETING + TOO_SILENT
                        assert time.monotonic() >= begin + 0.3

    run(loop_factory, main)


def test_reused_descriptor_without_a_deadline(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with (
            # Lazy, so that the deadline is still pending when the client leaves.
            listening(lazy=True, first_byte=0.2, **TEXTS) as strict,
            listening(greeting=GREETING) as patient,
        ):
            async with crowd_of(strict, 1) as earlier:
                assert await earlier[0].read() == GREETING
                descriptors = os.listdir("/proc/self/fd")
            await none_left(strict)
            async with crowd_of(patient, 1) as later:
                assert await later[0].read() == GREETING
                assert os.listdir("/proc/self/fd") == descriptors
                # By the time this one is due, the first one's deadline would be, too.
                async with crowd_of(strict, 1) as silent:
                    assert await silent[0].everything() == GREETING + TOO_SILENT
                await later[0].send(b"x")
                assert await later[0].read() == b"x"

    run(loop_factory, main)


# --- a client that does not read ---------------------------------------------------------------


LONG_GREETING = b"220-" + b"g" * 65_519 + b"\r\n220 end\r\n"


async def client_with_small_buffer(listener: Listener) -> RawClient:
    """Return a client whose buffer holds only a small part of the greeting."""
    client = await listener.connect(receive_buffer=2048)
    await eventually(lambda: listener.acceptor.connections)
    return client


def test_no_timeout_reply_inside_an_unsent_greeting(loop_factory: LoopFactory) -> None:
    texts = TEXTS | {"greeting": LONG_GREETING}

    async def main() -> None:
        sock = small_sender()
        async with listening(sock=sock, lazy=True, first_byte=0.2, **texts) as listener:
            client = await client_with_small_buffer(listener)
            await none_left(listener)
            found = await client.everything()
            assert 0 < len(found) < len(LONG_GREETING)
            assert LONG_GREETING.startswith(found)
            client.close()

    run(loop_factory, main)


def test_timeout_reply_follows_the_greeting(loop_factory: LoopFactory) -> None:
    texts = TEXTS | {"greeting": LONG_GREETING}

    async def main() -> None:
        sock = small_sender()
        async with listening(Witness, sock=sock, first_byte=0.2, **texts) as listener:
            client = await client_with_small_buffer(listener)
            await eventually(lambda: listener.acceptor.statistics()["timed_out"])
            assert listener.acceptor.connections == 1
            assert await client.everything() == LONG_GREETING + TOO_SILENT
            await none_left(listener)
            assert listener.protocols[0].ends == [None]
            client.close()

    run(loop_factory, main)


@pytest.mark.soak
def test_unread_timeout_reply_is_dropped(loop_factory: LoopFactory) -> None:
    texts = TEXTS | {"greeting": LONG_GREETING}

    async def main() -> None:
        sock = small_sender()
        async with listening(Witness, sock=sock, first_byte=0.2, **texts) as listener:
            client = await client_with_small_buffer(listener)
            await none_left(listener)
            assert listener.protocols[0].ends == [None]
            client.close()

    run(loop_factory, main)


# --- callbacks at a deadline ------------------------------------------------------------------


def test_busy_callback_aborts_other_due_connections(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        class Spiteful(Witness):
            @property
            def busy(self) -> bool:  # type: ignore[override]
                for other in listener.protocols:
                    if other is not self:
                        other.transport.abort()
                return False

        async with listening(Spiteful, first_byte=0.1, start=False, **TEXTS) as listener:
            async with crowd_of(listener, 40) as clients:
                listener.acceptor.resume()
                heard = [await client.everything() for client in clients]
                await none_left(listener)
            # Those that were asked before they were aborted have sent their reply.
            assert set(heard) <= {GREETING, GREETING + TOO_SILENT}
            assert heard.count(GREETING + TOO_SILENT) >= 1
            assert [protocol.ends for protocol in listener.protocols] == [[None]] * 40

    run(loop_factory, main)


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize("by", ["deadline", "drain"])
def test_busy_callback_closes_the_engine(loop_factory: LoopFactory, by: str, busy: bool) -> None:
    async def main() -> None:
        class Final(Witness):
            @property
            def busy(self) -> bool:  # type: ignore[override]
                listener.engine.close()
                return busy

        first_byte = 0.1 if by == "deadline" else 0.0
        async with listening(Final, first_byte=first_byte, start=False, **TEXTS) as listener:
            async with crowd_of(listener, 10) as clients:
                listener.acceptor.resume()
                for client in clients:
                    assert await client.read() == GREETING
                if by == "drain":
                    listener.acceptor.drain()
                for client in clients:
                    assert await client.everything() == b""
            assert listener.engine.closed

    run(loop_factory, main)


def test_timeouts_are_logged_in_few_lines(
    loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> str:
        async with listening(listener="mx", lazy=True, first_byte=0.1, **TEXTS) as listener:
            async with crowd_of(listener, 50) as clients:
                name = "[{}]:{}".format(*clients[0].sock.getsockname())
                await none_left(listener)
            return name

    with caplog.at_level(logging.INFO, "fastlisten"):
        first = run(loop_factory, main)
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) < 10
    assert re.fullmatch(
        rf'listener "mx": \d+ connections? timed out, the first from {re.escape(first)}', lines[0]
    )
    assert sum(int(line.split()[2]) for line in lines) == 50


@pytest.mark.parametrize("name", ["first_byte", "idle", "linger"])
@pytest.mark.parametrize("value", [-1.0, -0.001, float("nan")])
def test_negative_timeout_is_rejected(loop_factory: LoopFactory, name: str, value: float) -> None:
    async def main() -> None:
        sock = bound_socket()
        settings: dict[str, Any] = {name: value}
        async with listening() as other:
            with pytest.raises(ValueError, match="must not be negative"):
                await listening(sock=sock, **settings).__aenter__()
            sock.close()
            async with crowd_of(other, 1, first=b"ping") as clients:
                assert await clients[0].read() == b"ping"

    run(loop_factory, main)


def test_very_long_timeout_does_not_overflow(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        forever = float("inf")
        async with (
            listening(first_byte=forever, idle=1e12, **TEXTS) as listener,
            crowd_of(listener, 1) as clients,
        ):
            assert await clients[0].read() == GREETING
            await clients[0].send(b"ping")
            assert await clients[0].read() == b"ping"
            await asyncio.sleep(0.2)
            assert listener.acceptor.connections == 1

    run(loop_factory, main)
