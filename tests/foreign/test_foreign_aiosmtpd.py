"""aiosmtpd's controllers on our loops, answering smtplib and asyncio's own streams.

Rules of this file: messages, parallel clients, stopping; STARTTLS has a file of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from support.foreign import LOOPS, OURS, census
from support.foreign_clients import CROWD, MUCH, Address, Certificate, crowd, pour, receive_all
from support.foreign_smtp import (
    MESSAGE,
    OURS_ON_ALL_WAYS,
    PAIRS,
    WAYS,
    Handler,
    SmtplibClient,
    StartedController,
    controllers,
    fixtures,
    marks,
    on,
    started,
)
from support.waiting import until

pytestmark = marks
certificate, serving = fixtures()


@on(PAIRS)
def test_messages_are_accepted(serving: StartedController) -> None:
    large = MESSAGE + (b"x" * 76 + b"\r\n") * 50_000  # 4 MB
    with serving.client() as client:
        for content in (MESSAGE, large):
            client.sendmail("a@example.org", ["b@example.org"], content)
    assert [content for content, _ in serving.handler.messages] == [MESSAGE, large]
    # With implicit TLS, aiosmtpd does not set session.ssl.
    starttls = serving.address.way == "starttls"
    assert [encrypted for _, encrypted in serving.handler.messages] == [starttls, starttls]


@on(OURS_ON_ALL_WAYS)
def test_two_hundred_parallel_clients(serving: StartedController) -> None:
    address = serving.address
    context = address.certificate.client_context()

    async def visit(number: int) -> bytes:
        opened: Any
        if address.way == "unix":
            opened = asyncio.open_unix_connection(address.path)
        else:
            secure = context if address.way == "tls" else None
            opened = asyncio.open_connection("127.0.0.1", address.port, ssl=secure)
        # If a Unix socket's backlog, 100 here, is full, connect() fails at once.
        async with gate:
            reader, writer = await opened
            assert (await reader.readline()).startswith(b"220 ")

        async def say(line: bytes) -> bytes:
            writer.write(line)
            while (answer := await reader.readuntil(b"\r\n"))[3:4] == b"-":
                pass
            return bytes(answer)

        if address.way == "starttls":
            await say(b"EHLO client.example.org\r\n")
            assert (await say(b"STARTTLS\r\n")).startswith(b"220")
            await writer.start_tls(context, server_hostname="localhost")
        await say(b"EHLO client.example.org\r\n")
        await say(b"MAIL FROM:<a@example.org>\r\n")
        await say(b"RCPT TO:<all@example.org>\r\n")
        await say(b"DATA\r\n")
        answer = await say(b"Subject: %d\r\n\r\nx\r\n.\r\n" % number)
        writer.close()
        await writer.wait_closed()
        return answer

    gate = asyncio.Semaphore(50)
    assert asyncio.run(crowd(visit)) == [b"250 OK\r\n"] * CROWD
    assert len({content for content, _ in serving.handler.messages}) == CROWD


@on(PAIRS)
def test_slow_hook_pauses_the_client(serving: StartedController) -> None:
    with serving.client() as client:
        assert client.mail("a@example.org")[0] == 250
        assert isinstance(client.sock, socket.socket)
        client.sock.sendall(b"RCPT TO:<hold@example.org>\r\n")
        lines = b"NOOP %s\r\n" % (b"x" * 500)
        sent = pour(client.sock, lines * (MUCH // len(lines)))
        assert 0 < sent < MUCH - len(lines)
        serving.loop.call_soon_threadsafe(serving.handler.go.set)
        assert receive_all(client.sock, 8) == b"250 OK\r\n"
        # The last line may be incomplete; the rest is discarded with the connection.
        answered = sent // len(lines)
        assert receive_all(client.sock, answered * 8) == b"250 OK\r\n" * answered
        client.close()


# -- stopping, other controllers


# Only on our loops: stock loops report the TLS connections that they drop, at close or later.
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("way", WAYS)
def test_stop_with_open_connections(
    name: str, way: str, tmp_path: Path, certificate: Certificate
) -> None:
    address = Address(way, str(tmp_path / "socket"), certificate)
    heard: list[bytes] = []

    def listen() -> None:
        with address.connect() as sock, contextlib.suppress(OSError):
            while data := sock.recv(1000):
                heard.append(data)

    with started(name, address) as serving:
        listening = threading.Thread(target=listen)
        listening.start()
        until(lambda: heard, "the greeting")
        # aiosmtpd closes the loop, and with it all connections.
        serving.controller.stop()
        listening.join(30)
        assert not listening.is_alive()
    assert len(heard) == 1


@pytest.mark.parametrize("name", LOOPS)
def test_unthreaded_controller(name: str, certificate: Certificate) -> None:
    loop, handler = LOOPS[name](), Handler()
    address = Address("tcp", "", certificate)

    def converse() -> None:
        with SmtplibClient(address) as client:
            client.sendmail("a@example.org", ["b@example.org"], MESSAGE)

    try:
        with address.bind() as reserved:
            place = reserved.getsockname()
            controller = controllers.UnthreadedController(handler, *place, loop=loop)
            controller.begin()
        loop.run_until_complete(loop.run_in_executor(None, converse))
        controller.end()

        async def counted() -> dict[str, int]:
            for _ in range(25):
                await asyncio.sleep(0)
            return census()

        assert not any(loop.run_until_complete(counted()).values())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert handler.messages == [(MESSAGE, False)]
