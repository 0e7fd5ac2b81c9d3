"""Handshakes: garbage, what callbacks are told, large flights; settings.

Rules of this file: clients are raw sockets or OpenSSL between buffers. A failed handshake shows
only at the client and in the statistics: no protocol callback, no log line, no call of the loop's
exception handler.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from support.listener import Echo
from support.loops import LoopFactory, run
from support.tls_contexts import CLIENT, client_context, server_context
from support.tls_contexts import certificate_files as made
from support.tls_listener import TlsListener, client_hello, everything, talk, tls_listening
from support.tls_world import TlsClient, TlsRecorder, TlsWorld, play_tls, same_tls
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: Not TLS: each must end the connection at once, whatever OpenSSL makes of it.
GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "smtp": b"EHLO client.test\r\n",
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "random": bytes(range(7, 250, 3)),
    "sslv2": bytes.fromhex("802e0100020015000000100100800700c003008006004002008004008000")
    + bytes(20),
    "oversized": b"\x16\x03\x01\xff\xff\x01" + bytes(70_000),
    "empty-records": b"\x16\x03\x01\x00\x00" * 100,
    "alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "data": b"\x17\x03\x03\x00\x05hello",
    "ssl3": b"\x16\x03\x00\x00\x2d\x01\x00\x00\x29\x03\x00" + bytes(39),
    "hello-of-lies": b"\x16\x03\x01\x00\x10\x01\xff\xff\xff" + bytes(12),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_instead_of_a_handshake(
    loop_factory: LoopFactory, garbage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        reported: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
        async with tls_listening() as listener:
            client = await listener.connect()
            try:
                await client.send(GARBAGE[garbage])
            except (ConnectionResetError, BrokenPipeError):
                assert garbage == "oversized"
            answer = await everything(client)
            # Nothing, or one unencrypted alert; never plaintext.
            assert answer == b"" or answer[:2] == b"\x15\x03"
            client.close()
            await listener.empty()
            assert listener.count("handshake_failures") == 1
            assert listener.transports() == 0
            await talk(listener.address)
        assert reported == []

    run(loop_factory, main)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_failed_handshakes_are_silent(
    loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """200 of them are counted, and reported only to the engine's log, in few records."""

    async def main() -> None:
        from fastlisten._core import RECORD_HANDSHAKE

        reported: list[Any] = []
        records: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
        async with tls_listening() as listener:
            listener.engine.sink = lambda batch, dropped: records.extend(batch)
            clients = [await listener.connect(first=b"no TLS here\r\n") for _ in range(200)]
            for client in clients:
                await everything(client)
                client.close()
            await listener.empty()
            await eventually(lambda: sum(r[5] for r in records if r[0] == RECORD_HANDSHAKE) == 200)
            assert len([r for r in records if r[0] == RECORD_HANDSHAKE]) <= 100
            assert listener.count("handshake_failures") == 200
            listener.engine.sink = None
        assert reported == []

    run(loop_factory, main)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_asyncio_is_silent_too(loop_factory: LoopFactory) -> None:
    """Outside of debug mode asyncio is as silent, and so are its protocols' callbacks."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        for data in (b"", b"GET / HTTP/1.0\r\n\r\n", client_hello()[:50]):
            client = await world.connect()
            await client.send(data)
            client.finish()
            world.note("client", (await client.rest())[1])
        await world.settle()

    log = same_tls(script, loop_factory)
    assert {note[0] for note in log} == {"client"}


def test_sni_callback(loop_factory: LoopFactory) -> None:
    """The server's callback gets an object whose context it can change, as in asyncio."""

    async def script(world: TlsWorld) -> None:
        first, second = server_context(key="p256"), server_context(key="rsa")

        def choose(tls: Any, name: str | None, context: ssl.SSLContext) -> None:
            world.note("asked", type(tls).__name__, name, context is first, tls.context is first)
            tls.context = second

        first.sni_callback = choose
        await world.serve(lambda: TlsRecorder(world), context=first)
        client, transport = await world.made(context=client_context(version=ssl.TLSVersion.TLSv1_2))
        world.note("cipher", str(client.tls.cipher()).split("-")[1])
        world.note("context", transport.get_extra_info("sslcontext") is first)

    log = same_tls(script, loop_factory)
    assert log[0] == ("asked", "SSLObject", "localhost", True, True)
    assert ("cipher", "RSA") in log


def test_client_certificate(loop_factory: LoopFactory) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), context=server_context(ask_client=True))
        _, transport = await world.made(context=client_context(certificate="client"))
        world.note("name", transport.get_extra_info("peercert")["subject"][0][0][1])

    assert same_tls(script, loop_factory)[-1] == ("name", CLIENT)


def test_certificate_reloaded_into_a_context_in_use(loop_factory: LoopFactory) -> None:
    """New handshakes use it; open connections are not affected."""

    async def script(world: TlsWorld) -> None:
        context = server_context(key="p256")
        hooks: Any = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks), context=context)
        old, _ = await world.made()
        context.load_cert_chain(made().rsa)
        # OpenSSL holds one certificate of each type, and the client chooses.
        rsa = client_context(version=ssl.TLSVersion.TLSv1_2)
        rsa.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
        new, _ = await world.made(context=rsa)
        for client in (old, new):
            await client.send(b"hello")
            world.note("client", await client.receive(5))

    assert [note[1] for note in same_tls(script, loop_factory) if note[0] == "client"] == [
        b"hello",
        b"hello",
    ]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_flight_larger_than_the_send_buffer(
    loop_factory: LoopFactory, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """The handshake has to wait for a client that reads slowly."""
    chain = tmp_path / "chain.pem"
    chain.write_text(Path(made().p256).read_text() + Path(made().authority).read_text() * 60)
    context = server_context()
    context.load_cert_chain(chain)

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), context=context, send_buffer=2048)
        raw = await world.connect(receive_buffer=2048)
        client = TlsClient(raw, client_context(version=version))
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        await client.flush()
        await world.settle()
        size = 0
        while True:
            data = await world.patience(world.loop.sock_recv(raw.sock, 700))
            client.incoming.write(data)
            size += len(data)
            try:
                client.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await client.flush()
        await client.flush()
        await client.send(b"hello")
        await world.until("data_received")
        world.note("large", size > 20_000)

    log = play_tls(script, loop_factory)
    assert log == [("connection_made",), ("data_received", "bytes", b"hello"), ("large", True)]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_blocking_client_resumes_its_session(
    loop_factory: LoopFactory, version: ssl.TLSVersion
) -> None:
    """Python's ssl module in a thread."""
    found: list[Any] = []

    def client(address: Any) -> None:
        context = client_context(version=version)
        session = None
        for _ in range(2):
            with (
                socket.create_connection(address, timeout=20) as raw,
                context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
            ):
                tls.sendall(os.urandom(100_000))
                total = 0
                while total < 100_000:
                    total += len(tls.recv(65536))
                session = tls.session
                found.append((total, tls.session_reused))
                tls.unwrap()

    async def main() -> None:
        async with tls_listening(Echo) as listener:
            thread = threading.Thread(target=client, args=(listener.address,))
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.005)
            thread.join()
            await listener.empty()
            assert listener.count("truncated") == 0

    run(loop_factory, main)
    assert found == [(100_000, False), (100_000, True)]


def test_settings_are_validated(loop_factory: LoopFactory) -> None:
    from fastlisten._tls import TlsSettings

    context = server_context()
    settings = TlsSettings(context)
    assert settings.context is context
    assert (settings.handshake_timeout, settings.shutdown_timeout) == (60.0, 30.0)
    assert (settings.handshakes, settings.in_progress) == (1024, 0)
    for wrong in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="ssl_handshake_timeout should be a positive number"):
            TlsSettings(context, handshake_timeout=wrong)
        with pytest.raises(ValueError, match="ssl_shutdown_timeout should be a positive number"):
            TlsSettings(context, shutdown_timeout=wrong)
    with pytest.raises(ValueError, match="handshakes"):
        TlsSettings(context, handshakes=0)
    with pytest.raises(TypeError):
        TlsSettings(None)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        settings.handshakes = 5  # type: ignore[misc]


def test_listeners_share_settings(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with tls_listening() as listener:
            other = TlsListener(Echo, listener.settings)
            other.acceptor.resume()
            await talk(listener.address)
            await talk(other.address)
            assert (listener.count("accepted"), other.count("accepted")) == (1, 1)
            await listener.empty()
            await other.close()

    run(loop_factory, main)
