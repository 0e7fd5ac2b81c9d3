"""aiohttp's server on our loops, answering aiohttp's own client and raw ones.

Rules of this file: as in the tests of uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
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
    pour,
    receive_all,
    stalled,
    transports_closed,
)
from support.waiting import until

aiohttp, web, pytestmark = foreign("aiohttp", "aiohttp.web")

BODY = bytes(range(256)) * (1 << 14)  # 4 MiB


class Service:
    """The application served.

    Attributes:
        runner: aiohttp's runner.
        file: the file that `/file` sends.
        sent: bytes that `/stream` has written.
        ended: how handlers of aborted requests ended.
        options: options of the accepted socket.
        go: lets `/held` go on; set by tests, in the loop.
    """

    runner: Any

    def __init__(self, file: Path) -> None:
        self.file = file
        self.sent = 0
        self.ended: list[str] = []
        self.options: tuple[int, int] = (0, 0)
        self.go = asyncio.Event()
        self.together = Together()

    def application(self) -> Any:
        app = web.Application(client_max_size=MUCH * 2)
        for handler in (self.who, self.echo, self.held, self.all, self.stream, self.socket):
            app.router.add_route("*", f"/{handler.__name__}", handler)
        app.router.add_get("/file", self.give)
        return app

    async def who(self, request: Any) -> Any:
        sock = request.transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            self.options = (
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
            )
        peer = request.transport.get_extra_info("peername")
        return web.Response(text=f"{request.scheme} {peer and peer[1]}")

    async def echo(self, request: Any) -> Any:
        return web.Response(body=await request.read())

    async def held(self, request: Any) -> Any:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.go.clear()
        return web.Response(body=hashlib.sha256(await request.read()).digest())

    async def all(self, request: Any) -> Any:
        await self.together.wait()
        return web.Response(text=request.query_string)

    async def stream(self, request: Any) -> Any:
        answer = web.StreamResponse(headers={"Content-Length": str(MUCH)})
        await answer.prepare(request)
        try:
            for number in range(MUCH >> 16):
                await answer.write(bytes([number % 251]) * 65536)
                self.sent += 65536
        except (ConnectionError, asyncio.CancelledError):
            self.ended.append("cut")
            raise
        return answer

    async def socket(self, request: Any) -> Any:
        answer = web.WebSocketResponse(max_msg_size=0)
        await answer.prepare(request)
        async for message in answer:
            await answer.send_bytes(message.data)
        return answer

    async def give(self, request: Any) -> Any:
        return web.FileResponse(self.file)


@contextlib.asynccontextmanager
async def aiohttp_server(address: Address) -> AsyncIterator[Service]:
    """Serve a `Service`; leaving it is aiohttp's graceful shutdown."""
    file = Path(address.path).with_name("file")
    file.write_bytes(BODY)
    service = Service(file)
    service.runner = web.AppRunner(service.application(), handler_cancellation=True)
    await service.runner.setup()
    if address.way == "unix":
        # If a Unix socket's backlog is full, connect() fails at once.
        site = web.UnixSite(service.runner, address.path, backlog=CROWD)
    else:
        site = web.TCPSite(service.runner, "127.0.0.1", 0, ssl_context=address.server_context)
    await site.start()
    if address.way != "unix":
        (named,) = service.runner.addresses
        address.port = named[1]
    try:
        yield service
    finally:
        await service.runner.cleanup()


certificate, start, shared, serving = fixtures(aiohttp_server)


def visit(serving: ServerThread, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """Call a function with an aiohttp client and return its result."""
    address = serving.address

    async def used() -> Any:
        context = address.certificate.client_context() if address.way == "tls" else False
        connector = (
            aiohttp.UnixConnector(address.path, limit=0)
            if address.way == "unix"
            else aiohttp.TCPConnector(limit=0, ssl=context)
        )
        url = address.url("http")
        async with aiohttp.ClientSession(url, connector=connector) as client:
            found = await use(client)
        await transports_closed()
        return found

    return asyncio.run(used())


async def read(opened: Any) -> bytes:
    async with opened as answer:
        assert answer.status == 200
        whole: bytes = await answer.read()
        return whole


# -- one server for several tests


def test_keep_alive(serving: ServerThread) -> None:
    async def use(client: Any) -> set[bytes]:
        answers = {await read(client.get("/who")) for _ in range(20)}
        serving.check_native()
        return answers

    (answer,) = visit(serving, use)
    assert answer.startswith(b"https " if serving.address.way == "tls" else b"http ")
    if serving.address.way != "unix":
        # aiohttp sets the first one itself, on the transport's socket; the loop sets the other.
        assert serving.result.options == (1, 1)


def test_large_bodies_in_both_directions(serving: ServerThread) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for i in range(400):
            yield BODY[i * i * 10 : (i + 1) ** 2 * 10]

    async def use(client: Any) -> None:
        assert await read(client.post("/echo", data=io.BytesIO(BODY))) == BODY
        assert await read(client.post("/echo", data=pieces())) == BODY[:1600000]
        asked_first = client.post("/echo", data=io.BytesIO(BODY), expect100=True)
        assert await read(asked_first) == BODY

    visit(serving, use)


def test_file_response(serving: ServerThread) -> None:
    """By loop.sendfile(), or without it if the loop does not support it."""

    async def use(client: Any) -> None:
        assert await read(client.get("/file")) == BODY
        part = client.get("/file", headers={"Range": "bytes=1000-300000"})
        async with part as answer:
            assert answer.status == 206
            assert await answer.read() == BODY[1000:300001]

    visit(serving, use)


def test_websocket(serving: ServerThread) -> None:
    async def use(client: Any) -> None:
        async with client.ws_connect("/socket", max_msg_size=0) as connection:
            for message in (b"short", BODY, BODY * 2):
                await connection.send_bytes(message)
                assert await connection.receive_bytes(timeout=30) == message

    visit(serving, use)


def test_slow_client_pauses_the_handler(serving: ServerThread) -> None:
    service: Service = serving.result
    with serving.address.connect(receive_buffer=4096) as sock:
        service.sent = 0
        sock.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
        assert stalled(lambda: service.sent) < MUCH
        whole = receive_all(sock, MUCH * 2).partition(b"\r\n\r\n")[2]
    assert len(whole) == MUCH
    assert all(whole[n << 16 : n + 1 << 16].count(n % 251) == 65536 for n in range(MUCH >> 16))


def test_slow_handler_pauses_the_client(serving: ServerThread) -> None:
    body = bytes(range(256)) * (MUCH >> 8)
    with serving.address.connect() as sock:
        sock.sendall(b"POST /held HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % MUCH)
        sent = pour(sock, body)
        assert 0 < sent < MUCH
        serving.call(serving.result.go.set)
        sock.sendall(memoryview(body)[sent:])
        assert receive_all(sock, 1 << 16).endswith(hashlib.sha256(body).digest())


def test_two_hundred_parallel_clients(serving: ServerThread) -> None:
    async def use(client: Any) -> list[bytes]:
        async def one(number: int) -> bytes:
            return await read(client.get(f"/all?{number}"))

        answers = await crowd(one)
        assert serving.census().get("served", CROWD) == CROWD
        return answers

    assert visit(serving, use) == [str(number).encode() for number in range(CROWD)]


def test_clients_disconnecting_midway(serving: ServerThread) -> None:
    service: Service = serving.result
    service.ended.clear()
    held = b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving.address.connect() as sock:
        sock.sendall(held)
        until(lambda: service.runner.server.connections, "the connection")
        until(lambda: serving.call(lambda: len(asyncio.all_tasks())) > 2, "the handler")
    until(lambda: service.ended == ["cancelled"], "the end of the handler")
    with serving.address.connect(receive_buffer=4096) as sock:
        service.sent = 0
        sock.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert stalled(lambda: service.sent) < MUCH
    until(lambda: service.ended == ["cancelled", "cut"], "the end of the stream")


# -- one server for each test


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OURS)
def test_graceful_shutdown_finishes_requests(
    name: str, way: str, start: Callable[[str, str], ServerThread]
) -> None:
    with start(name, way) as serving:
        service: Service = serving.result
        with serving.address.connect() as idle, serving.address.connect() as busy:
            idle.sendall(b"GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            busy.sendall(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: serving.call(lambda: len(service.go._waiters)), "the request")
            shutdown = asyncio.run_coroutine_threadsafe(service.runner.cleanup(), serving.loop)
            # The idle connection ends first, the busy one with its answer.
            while idle.recv(1000):
                pass
            idle.close()
            with pytest.raises(OSError, match=r"refused|No such file"):
                serving.address.connect()
            assert not shutdown.done()
            serving.call(service.go.set)
            assert receive_all(busy, 1 << 16).endswith(hashlib.sha256(b"").digest())
        shutdown.result(30)
