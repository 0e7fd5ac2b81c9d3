"""uvicorn on our loops, answering httpx, curl and websockets; stock loops are the control.

Rules of this file: the server is uvicorn's own `Server` with its defaults. The tests of the first
part share one server for each loop and kind of socket; those of the second part stop their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.environment import own_environment
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
from support.marks import external
from support.waiting import until

uvicorn, httpx, aiohttp, websockets, pytestmark = foreign(
    "uvicorn", "httpx", "aiohttp", "websockets.asyncio.client"
)

Receive = Callable[[], Any]
Send = Callable[[dict[str, Any]], Any]


class Application:
    """An ASGI application.

    Attributes:
        sent: bytes of a streamed response that have been sent.
        taken: bytes of a request's body that have been received.
        go: lets `/held` go on; set by tests, in the loop.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.taken = 0
        self.go = asyncio.Event()
        self.together = Together()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self.websocket(receive, send)
            return
        answer = getattr(self, scope["path"].strip("/"))
        status, body = await answer(scope, receive, send)
        if status:
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def who(self, scope: dict[str, Any], receive: Receive, send: Send) -> tuple[int, bytes]:
        client = scope["client"]
        return 200, f"{scope['scheme']} {client and client[1]}".encode()

    async def body(self, receive: Receive) -> bytes:
        whole, more = bytearray(), True
        while more:
            message = await receive()
            whole += message.get("body", b"")
            self.taken = len(whole)
            more = message.get("more_body", False)
        return bytes(whole)

    async def echo(self, scope: dict[str, Any], receive: Receive, send: Send) -> tuple[int, bytes]:
        return 200, await self.body(receive)

    async def held(self, scope: dict[str, Any], receive: Receive, send: Send) -> tuple[int, bytes]:
        await self.go.wait()
        self.go.clear()
        return 200, hashlib.sha256(await self.body(receive)).digest()

    async def all(self, scope: dict[str, Any], receive: Receive, send: Send) -> tuple[int, bytes]:
        await self.together.wait()
        return 200, scope["query_string"]

    async def stream(
        self, scope: dict[str, Any], receive: Receive, send: Send
    ) -> tuple[int, bytes]:
        self.sent = 0
        headers = [(b"content-length", b"%d" % MUCH)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(MUCH // 65536):
            piece = bytes([number % 251]) * 65536
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self.sent += len(piece)
        await send({"type": "http.response.body"})
        return 0, b""

    async def websocket(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send(message | {"type": "websocket.send"})


@contextlib.asynccontextmanager
async def uvicorn_server(address: Address) -> AsyncIterator[Any]:
    """Serve an `Application`; leaving it is uvicorn's graceful shutdown."""
    options: dict[str, Any] = {"log_level": "warning", "ws": "websockets-sansio"}
    if address.way == "tls":
        options["ssl_certfile"] = address.certificate.certificate
        options["ssl_keyfile"] = address.certificate.key
    if address.way == "unix":
        # A path, so that uvicorn calls create_unix_server; otherwise a socket, whose port is known.
        options["uds"] = address.path
    sockets = None if address.way == "unix" else [address.bind()]
    server = uvicorn.Server(uvicorn.Config(Application(), lifespan="off", **options))
    task = asyncio.create_task(server.serve(sockets=sockets))
    while not server.started:
        assert not task.done(), task
        await asyncio.sleep(0.005)
    yield server
    server.should_exit = True
    await task


certificate, start, shared, serving = fixtures(uvicorn_server)


def application(serving: ServerThread) -> Application:
    found: Application = serving.result.config.app
    return found


def transport(address: Address) -> dict[str, Any]:
    """Return the arguments of an httpx client for an address."""
    made = httpx.HTTPTransport(
        uds=address.path if address.way == "unix" else None,
        verify=address.certificate.client_context() if address.way == "tls" else False,
    )
    return {"transport": made, "base_url": address.url("http"), "timeout": 30, "trust_env": False}


# -- one server for several tests


def test_keep_alive(serving: ServerThread) -> None:
    with httpx.Client(**transport(serving.address)) as client:
        answers = {client.get("/who").text for _ in range(20)}
        serving.check_native()
    (answer,) = answers  # all from the same client port
    assert answer.startswith("https " if serving.address.way == "tls" else "http ")


def test_large_bodies_in_both_directions(serving: ServerThread) -> None:
    body = bytes(range(256)) * (1 << 14)  # 4 MiB
    with httpx.Client(**transport(serving.address)) as client:
        assert client.post("/echo", content=body).content == body
        # The same, chunked, in pieces of all sizes.
        pieces = [body[i * i * 10 : (i + 1) ** 2 * 10] for i in range(400)]
        assert client.post("/echo", content=iter(pieces)).content == b"".join(pieces)


def test_slow_client_pauses_the_application(serving: ServerThread) -> None:
    app = application(serving)
    with serving.address.connect(receive_buffer=4096) as sock:
        app.sent = 0
        sock.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
        assert stalled(lambda: app.sent) < MUCH
        whole = receive_all(sock, MUCH * 2).partition(b"\r\n\r\n")[2]
    assert len(whole) == MUCH
    assert all(whole[n << 16 : n + 1 << 16].count(n % 251) == 65536 for n in range(MUCH >> 16))


def test_slow_application_pauses_the_client(serving: ServerThread) -> None:
    app = application(serving)
    body = bytes(range(256)) * (MUCH >> 8)
    with serving.address.connect() as sock:
        sock.sendall(b"POST /held HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % MUCH)
        sent = pour(sock, body)
        assert 0 < sent < MUCH
        serving.call(app.go.set)
        sock.sendall(memoryview(body)[sent:])
        assert receive_all(sock, 1 << 16).endswith(hashlib.sha256(body).digest())


def test_two_hundred_parallel_clients(serving: ServerThread) -> None:
    address = serving.address

    async def visit_all() -> list[str]:
        context = address.certificate.client_context() if address.way == "tls" else False
        connector = (
            aiohttp.UnixConnector(address.path, limit=0)
            if address.way == "unix"
            else aiohttp.TCPConnector(limit=0, ssl=context)
        )
        async with aiohttp.ClientSession(connector=connector) as client:

            async def visit(number: int) -> str:
                async with client.get(address.url("http", f"/all?{number}")) as answer:
                    return str(await answer.text())

            answers = await crowd(visit)
            assert serving.census().get("served", CROWD) == CROWD
        await transports_closed()
        return answers

    assert asyncio.run(visit_all()) == [str(number) for number in range(CROWD)]


def test_clients_disconnecting_midway(serving: ServerThread) -> None:
    app = application(serving)
    request = b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
    unfinished = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf"
    for text in (b"", b"GET /wh", unfinished, request):
        with serving.address.connect(receive_buffer=4096) as sock:
            app.sent = 0
            sock.sendall(text)
            if text == request:
                assert sock.recv(1)
                stalled(lambda: app.sent)


def test_websocket(serving: ServerThread) -> None:
    address = serving.address
    options: dict[str, Any] = {"max_size": None, "proxy": None}
    if address.way == "tls":
        options["ssl"] = address.certificate.client_context()

    async def talk() -> None:
        if address.way == "unix":
            opened = websockets.unix_connect(address.path, "ws://localhost/", **options)
        else:
            opened = websockets.connect(address.url("ws"), **options)
        async with opened as client:
            serving.check_native()
            for message in ("text", b"bytes", b"x" * (2 << 20)):
                await client.send(message)
                assert await client.recv() == message

    asyncio.run(talk())


@external("curl")
def test_curl_sends_and_receives(serving: ServerThread, tmp_path: Path) -> None:
    address = serving.address
    (tmp_path / "body").write_bytes(bytes(range(256)) * 4096)
    command = ["curl", "--silent", "--show-error", "--fail", "--cacert"]
    command += [str(address.certificate.certificate), "--data-binary", f"@{tmp_path / 'body'}"]
    if address.way == "unix":
        command += ["--unix-socket", address.path]
    # Twice on one connection; the first with "Expect: 100-continue".
    expect = ["--header", "Expect: 100-continue"]
    done = subprocess.run(
        [*command, *expect, address.url("http", "/echo"), address.url("http", "/echo")],
        env=own_environment(),
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "body").read_bytes() * 2


# -- one server for each test


def refused(address: Address) -> bool:
    """Return whether connections to an address are refused."""
    try:
        address.connect().close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OURS)
def test_graceful_shutdown_finishes_requests(
    name: str, way: str, start: Callable[[str, str], ServerThread]
) -> None:
    answers: list[Any] = []
    with start(name, way) as serving:
        app, server = application(serving), serving.result

        def ask() -> None:
            with httpx.Client(**transport(serving.address)) as client:
                answers.append(client.get("/held"))

        with serving.address.connect() as idle:
            idle.sendall(b"GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            asking = threading.Thread(target=ask)
            asking.start()
            until(lambda: len(server.server_state.tasks) == 1, "the request")
            server.should_exit = True
            # Not `is_serving`, which changes before the socket is closed.
            until(lambda: refused(serving.address), "the end of accepting")
            # The idle connection is closed, the busy one is not.
            while idle.recv(1000):
                pass
        until(lambda: len(server.server_state.connections) == 1, "the end of the idle connection")
        serving.call(app.go.set)
        asking.join()
    (answer,) = answers
    assert answer.content == hashlib.sha256(b"").digest()
