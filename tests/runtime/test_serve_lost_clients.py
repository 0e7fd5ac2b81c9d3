"""Clients that vanish while the server works for them, in every protocol: the connection ends and
the place is free, whatever still runs in a thread, at the relay or in an application.

Rules of this file: what the server waits for does not end before the test says so. The harness's
`protocols` lists the smtp connections that have not been told of their end.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from support.accounts import HeldVerifications
from support.http import App, handler_of
from support.loops import on_loops
from support.raw_client import reset
from support.relay import AUTH, client_of, relaying, serving
from support.smtp_client import SmtpClient
from support.smtp_harness import ENVELOPE, read_until, serve
from support.waiting import eventually, until

from fastlisten.testing import Served
from fastlisten.testing import serve as serve_any


def flood(client: socket.socket) -> None:
    """Send more than is read ahead, so that reading is paused."""
    client.settimeout(0.2)
    try:
        while True:
            client.sendall(b"NOOP\r\n" * 10_000)
    except TimeoutError:
        pass


def leave(client: SmtpClient) -> None:
    """Leave with a reset."""
    client.reset()


paused = pytest.mark.parametrize("much", [False, True], ids=["reading", "paused"])


@paused
def test_client_lost_while_its_password_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, much: bool
) -> None:
    held = HeldVerifications(monkeypatch)
    with serving(tmp_path, None) as served:
        try:
            with client_of(served, auth=b"") as client:
                client.sock.sendall(AUTH + b"\r\n")
                until(lambda: held.now == 1)
                if much:
                    flood(client.sock)
                leave(client)
                until(lambda: served.protocols == [])
                assert held.now == 1
        finally:
            held.go.set()


@paused
def test_client_lost_while_the_relay_is_asked(tmp_path: Path, much: bool) -> None:
    asked, go = threading.Event(), threading.Event()

    def pause(command: str) -> None:
        if command.startswith("RCPT"):
            asked.set()
            assert go.wait(20)

    with relaying(pause=pause) as relay, serving(tmp_path, relay) as served:
        try:
            with client_of(served) as client:
                client.say(b"MAIL FROM:<alice@example.org>")
                client.sock.sendall(b"RCPT TO:<x@elsewhere.example>\r\n")
                assert asked.wait(20)
                if much:
                    flood(client.sock)
                leave(client)
                until(lambda: served.protocols == [])
        finally:
            go.set()


@pytest.mark.parametrize("how", ["reading", "paused", "ended"])
@pytest.mark.parametrize("lmtp", [False, True], ids=["smtp", "lmtp"])
def test_client_lost_while_mail_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lmtp: bool, how: str
) -> None:
    """A message that was not acknowledged is not delivered."""
    writing, go = threading.Event(), threading.Event()
    fsync = os.fsync

    def wait(fd: int) -> None:
        writing.set()
        assert go.wait(20)
        fsync(fd)

    with serve(tmp_path, lmtp=lmtp) as served:
        try:
            with served.connect() as client:
                hello = ENVELOPE.replace(b"EHLO", b"LHLO") if lmtp else ENVELOPE
                client.sendall(hello + b"DATA\r\n")
                read_until(client, b"<CR><LF>.<CR><LF>\r\n")
                monkeypatch.setattr(os, "fsync", wait)
                client.sendall(b"Subject: x\r\n\r\nx\r\n.\r\n")
                assert writing.wait(20)
                if how == "paused":
                    flood(client)
                elif how == "ended":
                    client.shutdown(socket.SHUT_WR)
                    until(lambda: served.protocol()._eof)
                reset(client)
                until(lambda: served.protocols == [])
        finally:
            go.set()
    assert served.delivered() == []
    assert served.left_over() == []


async def gone(served: Served, client: socket.socket) -> None:
    reset(client)
    await eventually(lambda: served.listener.connections == 0, "the end of the connection")
    places = served.listener.places
    assert places is not None
    assert places.count == 0


async def connected(served: Served, said: bytes) -> socket.socket:
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", served.port))
    await loop.sock_sendall(client, said)
    return client


@on_loops
async def test_client_lost_while_a_stream_handler_does_not_read() -> None:
    """Its task goes on, as with asyncio; its connection does not."""
    go, errors = asyncio.Event(), list[Any]()

    async def function(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        await go.wait()
        try:
            errors.append(await reader.readexactly(1_000_000))
        except ConnectionError as error:
            errors.append(error)

    async with serve_any(function, max_connections=1) as served:
        client = await connected(served, b"x")
        try:
            async with asyncio.timeout(1):
                await asyncio.get_running_loop().sock_sendall(client, bytes(50_000_000))
        except TimeoutError:
            pass  # reading is paused
        await gone(served, client)
        go.set()
        await eventually(lambda: errors, "the end of the function")
        assert isinstance(errors[0], ConnectionError)


@on_loops
async def test_client_lost_after_the_end_of_input() -> None:
    ended = asyncio.Event()

    async def function(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"x"
        ended.set()
        await writer.wait_closed()

    async with serve_any(function, max_connections=1) as served:
        client = await connected(served, b"x")
        client.shutdown(socket.SHUT_WR)
        await ended.wait()
        await gone(served, client)


@on_loops
async def test_client_lost_before_its_request_body_is_read() -> None:
    """The application learns of it when it asks."""
    app = App()
    async with serve_any(handler_of(app), max_connections=1) as served:
        head = b"POST /hold HTTP/1.1\r\nHost: example.org\r\nContent-Length: 50000000\r\n\r\n"
        client = await connected(served, head)
        try:
            async with asyncio.timeout(1):
                await asyncio.get_running_loop().sock_sendall(client, bytes(50_000_000))
        except TimeoutError:
            pass
        await gone(served, client)
        app.go.set()
        await eventually(lambda: not app.running, "the end of the request")
