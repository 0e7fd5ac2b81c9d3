"""The websockets library's server on our loops, answering the library's own client.

Rules of this file: as in the tests of uvicorn. The client is the asyncio one: the blocking one
reads and writes one SSLSocket from two threads, and sometimes hangs, with any server.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.foreign import OURS, ServerThread, fixtures, foreign
from support.foreign_clients import (
    CROWD,
    MUCH,
    WAYS,
    Address,
    Together,
    crowd,
    receive_all,
    stalled,
)
from support.waiting import until

server, client, exceptions, pytestmark = foreign(
    "websockets.asyncio.server", "websockets.asyncio.client", "websockets.exceptions"
)


class Service:
    """The handlers, by the path of the request.

    Attributes:
        server: the library's server.
        sent: bytes that `/flood` has sent.
        ended: how handlers ended, in order.
        running: how many handlers are running.
        go: lets `/held` read; set by tests, in the loop.
    """

    server: Any

    def __init__(self) -> None:
        self.sent = 0
        self.ended: list[str] = []
        self.running = 0
        self.go = asyncio.Event()
        self.together = Together()

    async def __call__(self, connection: Any) -> None:
        self.running += 1
        try:
            await getattr(self, connection.request.path.strip("/"))(connection)
        except exceptions.ConnectionClosed as exc:
            self.ended.append(type(exc).__name__)
        else:
            self.ended.append("returned")
        finally:
            self.running -= 1

    async def echo(self, connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    async def flood(self, connection: Any) -> None:
        self.sent = 0
        for number in range(MUCH >> 16):
            await connection.send(bytes([number % 251]) * 65536)
            self.sent += 65536

    async def held(self, connection: Any) -> None:
        await self.go.wait()
        self.go.clear()
        digest = hashlib.sha256()
        for _ in range(MUCH >> 16):
            digest.update(await connection.recv())
        await connection.send(digest.digest())

    async def all(self, connection: Any) -> None:
        await self.together.wait()
        await connection.send("all are here")
        async for message in connection:
            server.broadcast(self.server.connections, message)


@contextlib.asynccontextmanager
async def websockets_server(address: Address) -> AsyncIterator[Service]:
    """Serve a `Service`; at the end its clients get "going away"."""
    service = Service()
    # If a Unix socket's backlog is full, connect() fails at once.
    options: dict[str, Any] = {"max_size": None, "backlog": CROWD}
    options["ssl"] = address.server_context
    if address.way == "unix":
        opened = server.unix_serve(service, address.path, **options)
    else:
        opened = server.serve(service, "127.0.0.1", 0, **options)
    async with opened as service.server:
        if address.way != "unix":
            address.port = service.server.sockets[0].getsockname()[1]
        yield service


certificate, start, shared, serving = fixtures(websockets_server)


def connect(serving: ServerThread, path: str, **options: Any) -> Any:
    """Return the library's client for a path."""
    address = serving.address
    options |= {"max_size": None, "proxy": None, "compression": None, "open_timeout": 30}
    if address.way == "tls":
        options["ssl"] = address.certificate.client_context()
    if address.way == "unix":
        return client.unix_connect(address.path, f"ws://localhost{path}", **options)
    return client.connect(address.url("ws", path), **options)


# -- one server for several tests


def test_messages_of_all_sizes(serving: ServerThread) -> None:
    async def talk() -> None:
        async with connect(serving, "/echo") as connection:
            serving.check_native()
            for size in (0, 1, 125, 126, 65535, 65536, 4 << 20):
                for message in ("é" * (size // 2), bytes(range(256)) * (size // 256) + b"!"):
                    await connection.send(message)
                    assert await connection.recv() == message

    asyncio.run(talk())


def test_fragments_and_pings(serving: ServerThread) -> None:
    async def talk() -> None:
        async with connect(serving, "/echo") as connection:
            await connection.send(b"x" * size for size in range(1000))
            await (await connection.ping())
            assert await connection.recv() == b"x" * sum(range(1000))

    asyncio.run(talk())


def test_slow_client_pauses_the_server(serving: ServerThread) -> None:
    service: Service = serving.result
    service.sent = 0

    async def talk() -> list[bytes]:
        async with connect(serving, "/flood", max_queue=2) as connection:
            # The client's loop is blocked meanwhile.
            assert stalled(lambda: service.sent) < MUCH
            return [await connection.recv() for _ in range(MUCH >> 16)]

    assert asyncio.run(talk()) == [bytes([n % 251]) * 65536 for n in range(MUCH >> 16)]


def test_slow_server_pauses_the_client(serving: ServerThread) -> None:
    messages = [bytes([number % 251]) * 65536 for number in range(MUCH >> 16)]
    sent = 0

    async def talk() -> bytes:
        async def send_all() -> None:
            nonlocal sent
            for message in messages:
                await connection.send(message)
                sent += len(message)

        async with connect(serving, "/held") as connection:
            sending = asyncio.create_task(send_all())
            assert await asyncio.to_thread(stalled, lambda: sent) < MUCH
            serving.call(serving.result.go.set)
            await sending
            digest: bytes = await connection.recv()
            return digest

    assert asyncio.run(talk()) == hashlib.sha256(b"".join(messages)).digest()


def test_broadcast_to_two_hundred_clients(serving: ServerThread) -> None:
    async def visit(number: int) -> str:
        async with connect(serving, "/all") as connection:
            assert await connection.recv() == "all are here"
            if number == 0:
                assert serving.census().get("served", CROWD) == CROWD
                await connection.send("to all")
            message: str = await connection.recv()
            return message

    assert asyncio.run(crowd(visit)) == ["to all"] * CROWD


def test_connection_ended_by_the_client(serving: ServerThread) -> None:
    service: Service = serving.result
    # Handlers of earlier tests may still be ending.
    until(lambda: not service.running, "the ends of other clients")
    service.ended.clear()

    async def talk() -> None:
        async with connect(serving, "/echo") as connection:
            await connection.close(1000, "done")
        until(lambda: service.ended == ["returned"], "the end by a closing handshake")
        async with connect(serving, "/echo") as connection:
            # The connection is aborted without a close frame.
            connection.transport.abort()
        until(lambda: service.ended == ["returned", "ConnectionClosedError"], "the end by a cut")

    asyncio.run(talk())


def test_invalid_handshake_is_refused(serving: ServerThread) -> None:
    plain = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    refused = b"HTTP/1.1 426 Upgrade Required\r\n"
    for text, answer in ((plain, refused), (b"EHLO client.example.org\r\n\r\n", b"")):
        with serving.address.connect() as sock:
            sock.sendall(text)
            assert receive_all(sock, 1 << 16).startswith(answer)


# -- one server for each test


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OURS)
def test_graceful_shutdown_sends_going_away(
    name: str, way: str, start: Callable[[str, str], ServerThread]
) -> None:
    async def listen() -> int:
        async with connect(serving, "/echo") as connection:
            await connection.send("here")
            assert await connection.recv() == "here"
            ending = asyncio.create_task(asyncio.to_thread(serving.end))
            with pytest.raises(exceptions.ConnectionClosedOK) as caught:
                await connection.recv()
            await ending
            code: int = caught.value.rcvd.code
            return code

    with start(name, way) as serving:
        assert asyncio.run(listen()) == 1001


@pytest.mark.parametrize("name", OURS)
def test_shutdown_waits_for_handlers(name: str, start: Callable[[str, str], ServerThread]) -> None:
    async def talk() -> None:
        async with connect(serving, "/held") as connection:
            serving.check_native()
            serving.call(service.server.close)
            with pytest.raises(exceptions.ConnectionClosedOK):
                await connection.recv()
            assert not serving.run(_done(service.server))

    with start(name, "tcp") as serving:
        service: Service = serving.result
        asyncio.run(talk())
        serving.call(service.go.set)
        serving.run(service.server.wait_closed())
    assert service.ended == ["ConnectionClosedOK"]


async def _done(server: Any) -> bool:
    """Return whether `wait_closed` would return soon."""
    waiting = asyncio.ensure_future(server.wait_closed())
    for _ in range(25):
        await asyncio.sleep(0)
    return waiting.done() or not waiting.cancel()
