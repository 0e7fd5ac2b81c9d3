"""`fastlisten.testing.serve` with TLS, and stream functions that start TLS by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import smtplib
import socket
import ssl
from pathlib import Path
from typing import Literal

import pytest
from support.certificates import authority, write
from support.loops import on_loops
from support.marks import needs_ipv6
from support.server import connect, read_all, read_some
from support.serving_handlers import Echo, LazyEcho, shout
from support.tls_handlers import Greet, Tell, upgrade
from support.tls_probes import context
from support.waiting import eventually
from support.without_cryptography import no_library  # noqa: F401  (a fixture)

from fastlisten import HandlerSettings
from fastlisten._tls import TlsSettings
from fastlisten.runtime.tls.self_signed import MissingLibraryError
from fastlisten.testing import Served, serve

pytestmark = pytest.mark.usefixtures("descriptors_back")


async def open_tls(
    served: Served, name: str | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        served.host,
        served.port,
        ssl=served.client_context,
        server_hostname=name or served.host,
    )


async def end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@on_loops
async def test_implicit_tls() -> None:
    async with serve(Greet, tls="implicit") as served:
        for name in ("127.0.0.1", "localhost", "test.example"):
            reader, writer = await open_tls(served, name)
            assert await reader.readline() == b"hello\n"
            writer.write(b"tell")
            assert json.loads(await reader.readline())["tls"] is True
            await end(writer)
        settings = served.handler.settings
        assert (settings.tls_implicit, settings.tls_available, settings.tls) == (True, False, None)
        with await connect(served.host, served.port) as plain:
            plain.send(b"GET / HTTP/1.0\r\n\r\n")
            assert await read_all(plain) == b""
        await eventually(lambda: served.listener.connections == 0, "the end")
        statistics = served.listener.statistics()
        assert (statistics["accepted"], statistics["handshake_failures"]) == (4, 1)


@needs_ipv6
@on_loops
async def test_implicit_tls_on_ipv6() -> None:
    async with serve(Tell, tls="implicit", host="::1") as served:
        reader, writer = await open_tls(served)
        writer.write(b"tell")
        assert json.loads(await reader.readline())["peer"] == "::1"
        await end(writer)


@on_loops
async def test_alpn() -> None:
    async with serve(Tell, tls="implicit") as served:
        assert served.client_context is not None
        served.client_context.set_alpn_protocols(["tell/1"])
        reader, writer = await open_tls(served)
        writer.write(b"tell")
        assert json.loads(await reader.readline())["alpn"] == "tell/1"
        await end(writer)


@on_loops
async def test_starttls(tmp_path: Path) -> None:
    (tmp_path / "accounts.toml").write_text('[account."alice@example.org"]\n')

    def talk(served: Served) -> None:
        with smtplib.SMTP("localhost", served.port, "c.example.com", timeout=20) as session:
            session.starttls(context=served.client_context)
            session.sendmail("s@example.com", ["alice@example.org"], b"Subject: x\r\n\r\nx\r\n")

    async with serve("smtp", tls="starttls", data_directory=str(tmp_path)) as served:
        settings = served.handler.settings
        assert (settings.tls_implicit, settings.tls_available) == (False, True)
        assert isinstance(settings.tls, TlsSettings)
        await asyncio.to_thread(talk, served)
    (message,) = (tmp_path / "mail" / "alice@example.org" / "new").iterdir()
    assert b"with ESMTPS id" in message.read_bytes()


@on_loops
async def test_without_tls() -> None:
    async with serve(Echo) as served:
        assert served.client_context is None
        settings = served.handler.settings
        assert (settings.tls_implicit, settings.tls_available, settings.tls) == (False, False, None)


@pytest.mark.parametrize("way", ["implicit", "starttls"])
@on_loops
async def test_instance_knows_about_tls(way: Literal["implicit", "starttls"]) -> None:
    handler = LazyEcho(HandlerSettings("mine", "echo", "host"))
    async with serve(handler, tls=way) as served:
        assert served.handler is handler
        assert handler.settings.listener == "mine"
        assert handler.settings.tls_implicit is (way == "implicit")
        assert handler.settings.tls_available is (way == "starttls")
        assert (handler.settings.tls is None) is (way == "implicit")


@pytest.mark.usefixtures("no_library")
@on_loops
async def test_tls_requires_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastlisten import testing

    testing._pair.cache_clear()
    with pytest.raises(MissingLibraryError, match="fastlisten"):
        async with serve(Echo, tls="implicit"):
            raise AssertionError("it is served")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("way", ["idle", "busy"])
@on_loops
async def test_silent_client_does_not_delay_the_end(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has received its reply and close_notify; its own close_notify may never come."""
    monkeypatch.setattr("fastlisten.runtime.listener._CLOSE_NOTIFY_TIMEOUT", 0.05)

    def talk(served: Served) -> ssl.SSLSocket:
        assert served.client_context is not None
        plain = socket.create_connection((served.host, served.port))
        made = served.client_context.wrap_socket(plain, server_hostname="localhost")
        made.sendall(b"begin" if way == "busy" else b"x")
        made.recv(5)
        return made

    async with serve(Echo, tls="implicit", drain_timeout=60) as served:
        client = await asyncio.to_thread(talk, served)
        if way == "busy":
            # A busy connection is not affected, however long it takes.
            for _ in range(20):
                assert served.listener.drain() == 1
                await asyncio.sleep(0.01)
            client.sendall(b"end")
    with client:
        assert await asyncio.to_thread(client.recv, 3) == (b"end" if way == "busy" else b"far")
        received = b""
        while data := await asyncio.to_thread(client.recv, 100):
            received += data
        assert received.endswith(b"ewell: shutdown\n")


# --- functions --------------------------------------------------------------------------------


@on_loops
async def test_function_uses_start_tls(tmp_path: Path) -> None:
    """On loops that do not know the core's connections."""
    cert, key = write(tmp_path, authority().sign("mx.example.org"))
    async with serve(upgrade) as served:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        writer.write(f"{cert}\n{key}\n".encode())
        assert await reader.readline() == b"go\n"
        await writer.start_tls(context(), server_hostname="mx.example.org")
        for _ in range(3):
            writer.write(b"hello\n")
            assert await reader.readline() == b"HELLO\n"
        assert isinstance(writer.get_extra_info("ssl_object"), ssl.SSLObject)
        await end(writer)


@on_loops
async def test_plaintext_injected_before_the_handshake_is_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """CVE-2011-0411: plaintext after the request must not be read after the handshake."""
    cert, key = write(tmp_path, authority().sign("mx.example.org"))
    async with serve(upgrade) as served:
        reader, writer = await asyncio.open_connection(served.host, served.port)
        writer.write(f"{cert}\n{key}\ninjected\n".encode())
        assert await reader.readline() == b"go\n"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await writer.start_tls(context(), server_hostname="mx.example.org")
        writer.close()
        await eventually(lambda: served.listener.connections == 0, "the end")
    # It is the client's fault, and no error of the function.
    assert "failed" not in caplog.text


@on_loops
async def test_tls_errors_of_a_client_are_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the handshake nor after it."""
    cert, key = write(tmp_path, authority().sign("mx.example.org"))
    async with serve(upgrade) as served:
        with await connect(served.host, served.port) as client:
            client.send(f"{cert}\n{key}\n".encode())
            assert await read_some(client, 3) == b"go\n"
            client.send(b"HELO\r\n" * 9)
            await read_all(client)
    async with serve(shout, tls="implicit") as served:
        with await connect(served.host, served.port) as client:
            to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
            assert served.client_context is not None
            session = served.client_context.wrap_bio(
                to_client, to_server, server_hostname="localhost"
            )
            with pytest.raises(ssl.SSLWantReadError):
                session.do_handshake()
            client.send(to_server.read())
            while session.version() is None or to_server.pending == 0:
                to_client.write(await read_some(client, 1))
                with contextlib.suppress(ssl.SSLWantReadError):
                    session.do_handshake()
            client.send(to_server.read())
            # A record that was not made with their keys.
            client.send(bytes((23, 3, 3, 0, 40)) + bytes(40))
            await read_all(client)
            await eventually(lambda: served.listener.connections == 0, "the end")
    assert "failed" not in caplog.text


@on_loops
async def test_exception_in_the_function_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Even an SSLError, for example about a certificate that the function cannot load."""

    async def careless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers("nonsense")

    async with serve(careless) as served:
        with await connect(served.host, served.port) as client:
            client.send(b"x\n")
            assert await read_all(client) == b""
    assert "careless failed" in caplog.text
    assert "No cipher can be selected" in caplog.text
