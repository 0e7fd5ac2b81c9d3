"""Pending handshakes and the listener's limit: a flood of half-open ones never takes the places of
clients that complete theirs.

Rules of this file: as in test_tls_crowd. A flood is a sequence here, and the server has seen each
step before the next, so that the figures are exact.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket

import pytest
from support import tls_listener
from support.listener import crowd_of
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.tls_listener import client_hello, talk, tls_listening
from support.tls_world import no_session_left
from support.waiting import eventually

from fastlisten import testing
from fastlisten._arena import Arena

pytestmark = pytest.mark.usefixtures("descriptors_back")

HALF = client_hello()[:200]


@pytest.mark.parametrize(
    ("limit", "fixed", "most"),
    [(0, 6, 6), (100, 6, 6), (12, 6, 6), (11, 6, 5), (4, 6, 2), (3, 6, 1), (2, 6, 1)],
)
def test_pending_handshakes_hold_at_most_half_of_the_places(
    loop_factory: LoopFactory, limit: int, fixed: int, most: int
) -> None:
    async def main() -> None:
        async with tls_listening(limit=limit, handshakes=fixed) as listener:
            held: list[RawClient] = []
            for step in range(1, 2 * most + 3):
                held.append(await listener.connect(first=HALF))
                failed = max(0, step - most)
                await eventually(
                    lambda failed=failed: listener.count("handshake_failures") == failed  # type: ignore[misc]
                )
                await eventually(lambda: listener.acceptor.held == listener.settings.in_progress)
                assert listener.settings.in_progress == min(step, most)
            assert listener.count("refused_limit") == 0
            for client in held:
                client.close()
            await listener.empty()

    with no_session_left():
        run(loop_factory, main)


def test_handshake_with_a_single_place(loop_factory: LoopFactory) -> None:
    """The client that has it may complete its handshake."""

    async def main() -> None:
        async with tls_listening(limit=1) as listener:
            for _ in range(3):
                await talk(listener.address)
                await listener.empty()

    run(loop_factory, main)


def test_limit_changes_during_a_flood(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with tls_listening(limit=20) as listener:
            settings, places = listener.settings, listener.places
            assert places is not None
            async with crowd_of(listener, 10, first=HALF):
                await eventually(lambda: settings.in_progress == 10)
                places.limit = 40
                async with crowd_of(listener, 10, first=HALF):
                    await eventually(lambda: settings.in_progress == 20)
                    assert listener.count("handshake_failures") == 0
                    places.limit = 24
                    async with crowd_of(listener, 1, first=HALF):
                        await eventually(lambda: listener.count("handshake_failures") == 9)
                        assert settings.in_progress == 12
            await listener.empty()

    run(loop_factory, main)


def test_processes_share_the_handshake_limit(
    loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its share of the half: together they hold no more than one process would."""
    monkeypatch.setattr(tls_listener, "Arena", functools.partial(Arena, members=13))

    async def main() -> None:
        async with tls_listening(limit=24) as listener, crowd_of(listener, 5, first=HALF):
            await eventually(lambda: listener.count("handshake_failures") == 2)
            assert listener.settings.in_progress == 3

    run(loop_factory, main)


def test_pending_handshakes_leave_half_of_the_total(loop_factory: LoopFactory) -> None:
    """A listener may have fewer places under the total than its own limit has."""

    async def main() -> None:
        arena = Arena(3)
        places, shared, reserve = (arena.places(row, 0) for row in range(3))
        places.limit, shared.limit, reserve.limit = 100, 4, 2
        places.count_total(1, 2)
        async with (
            tls_listening(places=places) as listener,
            crowd_of(listener, 4, first=HALF),
        ):
            await eventually(lambda: listener.count("handshake_failures") == 1)
            await eventually(lambda: places.held == listener.settings.in_progress == 3)
            assert listener.count("refused_total") == 0
            shared.limit = 8
            async with crowd_of(listener, 3, first=HALF):
                await eventually(lambda: listener.count("handshake_failures") == 2)
                await eventually(lambda: places.held == listener.settings.in_progress == 5)

    run(loop_factory, main)


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
def test_real_clients_are_not_refused_during_a_flood(loop_factory: LoopFactory, tls: str) -> None:
    """Through a handler, with TLS from the first byte and after STARTTLS."""

    def ready(client: socket.socket) -> None:
        said = b""
        while not said.endswith(b"\r\n") or b"220 " not in said:
            said += client.recv(4096)

    def begin(port: int) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), 20)
        if tls == "starttls":
            assert client.recv(4096).startswith(b"220 ")
            client.sendall(b"EHLO c.example.com\r\nSTARTTLS\r\n")
            ready(client)
        client.sendall(HALF)
        return client

    def real_client(served: testing.Served) -> None:
        with socket.create_connection(("127.0.0.1", served.port), 20) as plain:
            if tls == "starttls":
                assert plain.recv(4096).startswith(b"220 ")
                plain.sendall(b"EHLO c.example.com\r\nSTARTTLS\r\n")
                ready(plain)
            assert served.client_context is not None
            with served.client_context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
                if tls == "implicit":
                    assert client.recv(4096).startswith(b"220 ")
                client.sendall(b"NOOP\r\n")
                assert client.recv(4096).startswith(b"250 ")

    async def main() -> None:
        async with testing.serve("smtp", tls=tls, max_connections=8) as served:  # type: ignore[arg-type]
            listener = served.listener
            held = 0
            with contextlib.ExitStack() as stack:
                for step in range(24):
                    stack.enter_context(await asyncio.to_thread(begin, served.port))
                    held = min(held + 1, 4)
                    await eventually(lambda held=held: listener.connections == held)  # type: ignore[misc]
                    if step % 3 == 0:
                        await asyncio.to_thread(real_client, served)
                        # It has pushed out the oldest.
                        held = min(held, 3)
                        await eventually(lambda held=held: listener.connections == held)  # type: ignore[misc]
                assert listener.statistics()["refused_limit"] == 0

    run(loop_factory, main)
