"""The websockets library's server on our loops, answering the library's own clients.

Rules of this file: as in the tests of uvicorn. The blocking client is used where one connection
does, the asyncio one for crowds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from helpers_foreign import (
    CROWD,
    MUCH,
    OURS,
    WAYS,
    Address,
    Serving,
    Together,
    crowd,
    fixtures,
    foreign,
    receive_all,
    stalled,
    until,
)

server, client, sync, exceptions, pytestmark = foreign(
    "websockets.asyncio.server",
    "websockets.asyncio.client",
    "websockets.sync.client",
    "websockets.exceptions",
)
pytestmark += [pytest.mark.external("openssl")]


class Service:
    """What the server does, by the path of the request.

    Attributes:
        server: the library's.
        sent: bytes of the messages of `/flood` that were handed over.
        ended: how handlers ended, in order.
        go: lets `/held` read; set by tests, in the loop.
    """

    server: Any

    def __init__(self) -> None:
        self.sent = 0
        self.ended: list[str] = []
        self.go = asyncio.Event()
        self.together = Together()

    async def __call__(self, connection: Any) -> None:
        try:
            await getattr(self, connection.request.path.strip("/"))(connection)
        except exceptions.ConnectionClosed as exc:
            self.ended.append(type(exc).__name__)
        else:
            self.ended.append("returned")

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
    """Serve a `Service`; leaving it says "going away" to the clients."""
    service = Service()
    # A Unix socket's backlog is no queue: it fails the client that comes next.
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


def connect(serving: Serving, path: str, library: Any = None, **options: Any) -> Any:
    """Return the library's blocking client, or another one, for a path."""
    address, library = serving.address, library or sync
    options |= {"max_size": None, "proxy": None, "compression": None}
    if address.way == "tls":
        options["ssl"] = address.certificate.client_context()
    if address.way == "unix":
        return library.unix_connect(address.path, f"ws://localhost{path}", **options)
    return library.connect(address.url("ws", path), **options)


# -- one server for several tests


def test_messages_of_all_sizes(serving: Serving) -> None:
    with connect(serving, "/echo") as connection:
        serving.check_native()
        for size in (0, 1, 125, 126, 65535, 65536, 4 << 20):
            for message in ("é" * (size // 2), bytes(range(256)) * (size // 256) + b"!"):
                connection.send(message)
                assert connection.recv() == message


def test_fragments_and_pings(serving: Serving) -> None:
    with connect(serving, "/echo") as connection:
        connection.send(b"x" * size for size in range(1000))
        assert connection.ping().wait(30)
        assert connection.recv() == b"x" * sum(range(1000))


def test_a_client_that_reads_slowly_slows_the_server(serving: Serving) -> None:
    service: Service = serving.result
    service.sent = 0
    with connect(serving, "/flood", max_queue=2) as connection:
        assert stalled(lambda: service.sent) < MUCH
        received = [connection.recv() for _ in range(MUCH >> 16)]
    assert received == [bytes([number % 251]) * 65536 for number in range(MUCH >> 16)]


def test_a_server_that_reads_slowly_slows_the_client(serving: Serving) -> None:
    messages = [bytes([number % 251]) * 65536 for number in range(MUCH >> 16)]
    sent = 0

    def send_all() -> None:
        nonlocal sent
        for message in messages:
            connection.send(message)
            sent += len(message)

    with connect(serving, "/held") as connection:
        sending = threading.Thread(target=send_all)
        sending.start()
        assert stalled(lambda: sent) < MUCH
        serving.call(serving.result.go.set)
        sending.join()
        assert connection.recv() == hashlib.sha256(b"".join(messages)).digest()


def test_two_hundred_clients_hear_a_broadcast(serving: Serving) -> None:
    async def visit_all() -> list[str]:
        async def visit(number: int) -> str:
            async with connect(serving, "/all", client, open_timeout=30) as connection:
                assert await connection.recv() == "all are here"
                if number == 0:
                    assert serving.census().get("served", CROWD) == CROWD
                    await connection.send("to all")
                message: str = await connection.recv()
                return message

        return await crowd(visit)

    assert asyncio.run(visit_all()) == ["to all"] * CROWD


def test_ends_by_the_client(serving: Serving) -> None:
    service: Service = serving.result
    service.ended.clear()
    with connect(serving, "/echo") as connection:
        connection.close(1000, "done")
    until(lambda: service.ended == ["returned"], "the end by a closing handshake")
    with connect(serving, "/echo") as connection:
        # No close frame: the connection is cut.
        connection.socket.shutdown(2)
    until(lambda: service.ended == ["returned", "ConnectionClosedError"], "the end by a cut")


def test_what_is_no_handshake_is_ended(serving: Serving) -> None:
    plain = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    refused = b"HTTP/1.1 426 Upgrade Required\r\n"
    for text, answer in ((plain, refused), (b"EHLO client.example.org\r\n\r\n", b"")):
        with serving.address.connect() as sock:
            sock.sendall(text)
            assert receive_all(sock, 1 << 16).startswith(answer)


# -- one server for each test


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OURS)
def test_a_graceful_shutdown_says_going_away(
    name: str, way: str, start: Callable[[str, str], Serving]
) -> None:
    heard: list[Any] = []

    def listen() -> None:
        with connect(serving, "/echo") as connection:
            connection.send("here")
            heard.append(connection.recv())
            with pytest.raises(exceptions.ConnectionClosedOK) as caught:
                connection.recv()
            heard.append(caught.value.rcvd.code)

    with start(name, way) as serving:
        listening = threading.Thread(target=listen)
        listening.start()
        until(lambda: heard, "the first message")
        serving.end()
        listening.join()
    assert heard == ["here", 1001]


@pytest.mark.parametrize("name", OURS)
def test_handlers_that_do_not_end_are_waited_for(
    name: str, start: Callable[[str, str], Serving]
) -> None:
    with start(name, "tcp") as serving:
        service: Service = serving.result
        with connect(serving, "/held") as connection:
            serving.check_native()
            serving.call(service.server.close)
            with pytest.raises(exceptions.ConnectionClosedOK):
                connection.recv()
            assert not serving.run(_done(service.server))
        serving.call(service.go.set)
        serving.run(service.server.wait_closed())
    assert service.ended == ["ConnectionClosedOK"]


async def _done(server: Any) -> bool:
    """Tell whether `wait_closed` would return soon."""
    waiting = asyncio.ensure_future(server.wait_closed())
    for _ in range(25):
        await asyncio.sleep(0)
    return waiting.done() or not waiting.cancel()
