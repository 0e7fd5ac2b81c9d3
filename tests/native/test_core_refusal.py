"""The reply to a client for which there is no place, and what the refusal costs.

Rules of this file: the clients judge. "Not reset" means that a client reads the whole reply and
then the end of input, without an error, whatever it had sent before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.forked import Child
from support.listener import Listener, bound_socket, crowd_of, listening
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

REFUSAL = b"421 4.3.2 too many connections, try again later\r\n"
#: The core's limits for parked refusals: how many, how long (s), how much is read from each.
MAX_PARKED = 1024
PARKED_TIME = 2.0
PARKED_BYTES = 16384

both_kinds = pytest.mark.parametrize("server_first", [True, False], ids=["server", "client"])


@contextlib.asynccontextmanager
async def full_listener(**settings: Any) -> AsyncIterator[Listener]:
    """Serve a listener whose only place is taken."""
    async with (
        listening(limit=1, refusal=REFUSAL, **settings) as listener,
        crowd_of(listener, 1),
    ):
        await eventually(lambda: listener.acceptor.connections == 1)
        yield listener


def parked(listener: Listener) -> int:
    """Return how many refusals are parked."""
    counts = listener.engine.census()
    assert counts["parked"] == counts["parked_slots"]
    return counts["parked"]


@contextlib.asynccontextmanager
async def refused_at_once(listener: Listener, size: int) -> AsyncIterator[list[RawClient]]:
    """Connect this many clients in one turn of the loop; they are refused, and none has read yet.

    Fast enough that the first one's two seconds are not over when the last one is refused.
    """
    before = listener.acceptor.statistics()["refused_limit"]
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(size):
            sock = stack.enter_context(socket.create_connection(listener.address))
            sock.setblocking(False)
            clients.append(RawClient(sock))
        await eventually(lambda: listener.acceptor.statistics()["refused_limit"] == before + size)
        yield clients


def closed_by_server(clients: list[RawClient]) -> list[bool]:
    """Return for each client whether the server has closed its descriptor.

    A closed one answers data with a reset, on loopback at once. The loop gets no turn meanwhile.
    """
    found = []
    for client in clients:
        try:
            client.sock.send(b"x")
            client.sock.send(b"x")
        except (BrokenPipeError, ConnectionResetError):
            found.append(True)
        else:
            found.append(False)
    return found


# --- the reply arrives ------------------------------------------------------------------------


@both_kinds
def test_silent_client_reads_the_reply_and_eof(
    loop_factory: LoopFactory, server_first: bool
) -> None:
    async def main() -> None:
        async with (
            full_listener(server_first=server_first) as listener,
            crowd_of(listener, 5) as refused,
        ):
            for client in refused:
                assert await client.everything() == REFUSAL
            # Where the server speaks first, nothing can be unread: closed at once.
            assert parked(listener) == (0 if server_first else 5)
            for client in refused:
                client.close()
            await eventually(lambda: parked(listener) == 0)

    run(loop_factory, main)


@both_kinds
@pytest.mark.parametrize("size", [1, 1024, PARKED_BYTES - 1])
def test_client_that_has_already_sent_is_not_reset(
    loop_factory: LoopFactory, server_first: bool, size: int
) -> None:
    async def main() -> None:
        async with full_listener(server_first=server_first) as listener:
            listener.acceptor.pause()
            async with crowd_of(listener, 5, first=b"x" * size) as refused:
                listener.acceptor.resume()
                for client in refused:
                    assert await client.everything() == REFUSAL
                # It may also go on with what it began to send.
                for client in refused:
                    assert parked(listener) > 0
                    client.close()
                await eventually(lambda: parked(listener) == 0)

    run(loop_factory, main)


@both_kinds
def test_client_that_sends_while_refused_is_not_reset(
    loop_factory: LoopFactory, server_first: bool
) -> None:
    async def main() -> None:
        async with full_listener(server_first=server_first) as listener:
            for _ in range(20):
                async with crowd_of(listener, 1, first=b"EHLO client.example.org\r\n") as refused:
                    assert await refused[0].everything() == REFUSAL

    run(loop_factory, main)


@both_kinds
@pytest.mark.parametrize("size", [64 * 1024, 1024 * 1024])
def test_reply_reaches_a_client_that_never_stops_sending(
    loop_factory: LoopFactory, server_first: bool, size: int
) -> None:
    async def main() -> None:
        async with full_listener(server_first=server_first) as listener:
            listener.acceptor.pause()
            async with crowd_of(listener, 3) as refused:
                sending = [asyncio.ensure_future(one.send(b"x" * size)) for one in refused]
                await asyncio.sleep(0.02)
                listener.acceptor.resume()
                for client, task in zip(refused, sending, strict=True):
                    assert await client.receive(len(REFUSAL)) == REFUSAL
                    # More than is read from any client: the reply may be followed by a reset.
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        await task
                    with contextlib.suppress(ConnectionResetError):
                        assert await client.everything() == b""

    run(loop_factory, main)


def test_refusal_on_a_unix_socket(loop_factory: LoopFactory, tmp_path: Path) -> None:
    async def main() -> None:
        sock = bound_socket(socket.AF_UNIX, str(tmp_path / "socket"))
        async with full_listener(sock=sock) as listener:
            listener.acceptor.pause()
            async with crowd_of(listener, 3, first=b"x" * 1024) as refused:
                listener.acceptor.resume()
                for client in refused:
                    assert await client.everything() == REFUSAL

    run(loop_factory, main)


def test_refusal_without_a_reply(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with listening(limit=1) as listener, crowd_of(listener, 3) as clients:
            for client in clients[1:]:
                assert await client.everything() == b""
            assert parked(listener) == 0

    run(loop_factory, main)


# --- limits for parked refusals ---------------------------------------------------------------


def test_refused_client_is_read_up_to_the_limit(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with full_listener() as listener, crowd_of(listener, 2) as refused:
            for client in refused:
                assert await client.everything() == REFUSAL
            for size in (1, PARKED_BYTES - 3, 1):
                await refused[1].send(b"x" * size)
                await asyncio.sleep(0.02)
                assert parked(listener) == 2
            await refused[1].send(b"x")
            # Its time is not over, because that of the one before is not.
            await eventually(lambda: parked(listener) < 2)
            assert closed_by_server(refused) == [False, True]

    run(loop_factory, main)


def test_refused_client_is_closed_after_two_seconds(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with full_listener() as listener:
            begin = clock()
            async with crowd_of(listener, 2) as refused:
                await eventually(lambda: parked(listener) == 2 or clock() > begin + PARKED_TIME)
                while clock() < begin + PARKED_TIME * 0.9:
                    # Sending does not prolong it.
                    await refused[1].send(b"x")
                    count = parked(listener)
                    assert count == 2 or clock() > begin + PARKED_TIME
                    await asyncio.sleep(0.1)
                await eventually(lambda: parked(listener) == 0)
                assert closed_by_server(refused) == [True, True]

    run(loop_factory, main)


def test_oldest_parked_refusals_are_closed_first(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        over = 60
        async with (
            full_listener() as listener,
            refused_at_once(listener, MAX_PARKED + over) as refused,
        ):
            assert parked(listener) == MAX_PARKED
            assert closed_by_server(refused) == [True] * over + [False] * MAX_PARKED
            assert [client.at_hand() for client in refused] == [REFUSAL] * len(refused)

    run(loop_factory, main)


def test_reused_descriptor_is_not_closed_as_parked(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with full_listener() as listener:
            assert listener.places is not None
            async with refused_at_once(listener, 50):
                assert parked(listener) == 50
            await eventually(lambda: parked(listener) == 0)
            # These get the same descriptors; then the old ones would be due for closing.
            listener.places.limit = 51
            async with crowd_of(listener, 50) as served:
                await eventually(lambda: listener.acceptor.connections == 51)
                async with refused_at_once(listener, MAX_PARKED + 60):
                    for client in served:
                        await client.send(b"ping")
                        assert await client.read() == b"ping"
            await eventually(lambda: listener.acceptor.held == 1)
            listener.places.limit = 1
            # Thousands of entries that are gone do not displace live ones.
            for _ in range(5):
                async with refused_at_once(listener, 900):
                    pass
                await eventually(lambda: parked(listener) == 0)
            async with refused_at_once(listener, 5) as late:
                assert closed_by_server(late) == [False] * 5

    run(loop_factory, main)


# --- cost -------------------------------------------------------------------------------------


@both_kinds
def test_refused_clients_are_not_counted(loop_factory: LoopFactory, server_first: bool) -> None:
    async def main() -> None:
        async with full_listener(server_first=server_first) as listener:
            assert listener.places is not None
            async with crowd_of(listener, 30) as refused:
                for client in refused:
                    assert await client.read() == REFUSAL
                assert listener.places.count == listener.acceptor.connections == 1
                # As descriptors they count towards the process's capacity.
                assert listener.acceptor.held == listener.engine.open == 1 + parked(listener)
                statistics = listener.acceptor.statistics()
                assert (statistics["accepted"], statistics["refused_limit"]) == (1, 30)

    run(loop_factory, main)


@both_kinds
def test_refusal_creates_no_python_objects(loop_factory: LoopFactory, server_first: bool) -> None:
    size = 400

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with full_listener(server_first=server_first) as listener:
            listener.engine.sink = None

            def body(channel: socket.socket) -> None:
                while channel.recv(1):
                    for _ in range(size):
                        with socket.create_connection(listener.address, 20) as client:
                            assert client.recv(100) == REFUSAL
                            assert client.recv(100) == b""
                    channel.send(b"0")

            with Child(body) as child:
                child.channel.setblocking(False)
                blocks = []
                for _ in range(3):
                    await loop.sock_sendall(child.channel, b"x")
                    await loop.sock_recv(child.channel, 100)
                    await eventually(lambda: parked(listener) == 0)
                    blocks.append(sys.getallocatedblocks())
            # The first round fills the loop's own caches.
            assert abs(blocks[2] - blocks[1]) < size // 4, blocks
            assert len(listener.protocols) == 1
            assert listener.acceptor.statistics()["refused_limit"] == 3 * size

    run(loop_factory, main)


# --- log --------------------------------------------------------------------------------------


def test_flood_of_refusals_makes_few_log_lines(
    loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> str:
        async with full_listener(listener="mx", server_first=True) as listener:
            async with crowd_of(listener, 200) as refused:
                name = "[{}]:{}".format(*refused[0].sock.getsockname())
                for client in refused:
                    assert await client.read() == REFUSAL
            await eventually(lambda: caplog.records)
            return name

    with caplog.at_level(logging.WARNING, "fastlisten"):
        first = run(loop_factory, main)
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) < 10
    assert lines[0].startswith('listener "mx": refused ')
    assert lines[0].endswith(f" connections, the first from {first}: max-connections = 1 reached")
    assert sum(int(line.split()[3]) for line in lines) == 200


def test_log_line_names_a_listener_that_is_gone(
    loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with listening(listener="stays"):
            for name in ("one", "two"):
                async with (
                    full_listener(listener=name, server_first=True) as listener,
                    crowd_of(listener, 1) as refused,
                ):
                    assert await refused[0].everything() == REFUSAL

    with caplog.at_level(logging.WARNING, "fastlisten"):
        run(loop_factory, main)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(": ")[0] for line in lines] == ['listener "one"', 'listener "two"']
    assert all(line.endswith("max-connections = 1 reached") for line in lines)
