"""Crowds: silent clients, floods of half-open handshakes, and real clients among them.

Rules of this file: as in test_tls_handshake. Memory is counted in blocks of CPython's allocator and
in objects; OpenSSL's, in sessions that exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

import pytest
from support.listener import crowd_of
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.tls_listener import client_hello, talk, tls_listening
from support.tls_world import no_session_left
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

SILENT = 1000


@pytest.mark.parametrize("first", [b"", b"\x16"], ids=["silent", "one-byte"])
def test_thousand_silent_clients(loop_factory: LoopFactory, first: bytes) -> None:
    """Silent ones cost no object at all; a real client among them is served."""

    async def main() -> None:
        async with tls_listening(lazy=True, handshakes=SILENT * 2) as listener:
            await talk(listener.address)
            await listener.empty()
            listener.protocols.clear()
            with contextlib.ExitStack() as stack:
                sockets = [stack.enter_context(socket.socket()) for _ in range(SILENT)]
                before = sys.getallocatedblocks()
                for i, sock in enumerate(sockets):
                    sock.connect(listener.address)
                    if first:
                        sock.send(first)
                    if i % 100 == 0:
                        await asyncio.sleep(0)
                await eventually(lambda: listener.acceptor.connections == SILENT)
                if first:
                    await eventually(lambda: listener.settings.in_progress == SILENT)
                    assert listener.transports() == SILENT
                else:
                    assert sys.getallocatedblocks() - before < SILENT // 2
                    assert listener.transports() == 0
                    assert listener.settings.in_progress == 0
                assert listener.protocols == []
                await asyncio.gather(*(talk(listener.address) for _ in range(5)))
            await listener.empty()

    with no_session_left():
        run(loop_factory, main)


def test_eager_silent_clients_have_no_session(loop_factory: LoopFactory) -> None:
    """asyncio calls the factory at accept; OpenSSL's session is made at the first byte."""

    async def main() -> None:
        async with tls_listening() as listener:
            await talk(listener.address)
            await listener.empty()
            async with crowd_of(listener, 100):
                await eventually(lambda: listener.acceptor.connections == 100)
                assert len(listener.protocols) == 101
                assert all(protocol.transport is None for protocol in listener.protocols[1:])
                assert listener.settings.in_progress == 0
            await listener.empty()
            assert all(protocol.transport is None for protocol in listener.protocols[1:])

    with no_session_left():
        run(loop_factory, main)


@pytest.mark.parametrize("said", ["one byte", "half", "hello"])
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_limit_on_pending_handshakes(loop_factory: LoopFactory, said: str, lazy: bool) -> None:
    """The oldest makes room for a client that is in its handshake now; the limit always holds."""
    hello = client_hello()
    words = {"one byte": hello[:1], "half": hello[:200], "hello": hello}[said]

    async def main() -> None:
        async with tls_listening(handshakes=10, lazy=lazy) as listener:
            settings = listener.settings
            async with crowd_of(listener, 10, first=words) as oldest:
                await eventually(lambda: settings.in_progress == 10)
                assert listener.count("handshake_failures") == 0
                async with crowd_of(listener, 5, first=words):
                    await eventually(lambda: listener.count("handshake_failures") == 5)
                    assert settings.in_progress == 10
                    for client in oldest[:5]:
                        # What the server sent before, or an alert; then the end.
                        with contextlib.suppress(ConnectionResetError):
                            await client.everything()
                    for client in oldest[5:]:
                        answer = client.at_hand()
                        assert answer != b""
                    await talk(listener.address)
                    assert listener.acceptor.connections <= 10 + 1
            await listener.empty()

    with no_session_left():
        run(loop_factory, main)


def test_real_clients_during_a_flood(loop_factory: LoopFactory) -> None:
    """While half-open handshakes come faster than they time out, all others are served."""
    hello = client_hello()

    async def main() -> None:
        async with tls_listening(handshakes=20) as listener:
            flooding = True
            sent = 0

            async def flood() -> None:
                nonlocal sent
                held: list[RawClient] = []
                try:
                    while flooding:
                        held.append(await listener.connect(first=hello[:300]))
                        sent += 1
                        assert listener.settings.in_progress <= 20
                        if len(held) > 100:
                            held.pop(0).close()
                finally:
                    for client in held:
                        client.close()

            floods = [asyncio.create_task(flood()) for _ in range(3)]
            await eventually(lambda: listener.settings.in_progress == 20)
            for _ in range(15):
                # Its handshake begins and ends between two of theirs, or is pushed out by twenty
                # newer ones: then it tries again, as clients do.
                for _attempt in range(10):
                    with contextlib.suppress(OSError):
                        await talk(listener.address)
                        break
                else:
                    raise AssertionError("starved")
            flooding = False
            await asyncio.gather(*floods)
            assert sent > 40
            await listener.empty()

    run(loop_factory, main)


def test_handshakes_count_towards_max_connections(loop_factory: LoopFactory) -> None:
    """A place is held from accept on, and given back however the handshake ends."""

    async def main() -> None:
        async with tls_listening(limit=5, handshakes=3) as listener:
            for _ in range(4):
                async with crowd_of(listener, 5, first=client_hello()[:100]):
                    # Half of the places at most.
                    await eventually(lambda: listener.count("handshake_failures") % 5 == 3)
                    await eventually(lambda: listener.acceptor.held == 2)
                await listener.empty()
            assert listener.count("handshake_failures") == 20
            await talk(listener.address)

    run(loop_factory, main)
