"""The alert that tells a client why its handshake failed.

Rules of this file: as in test_tls_handshake.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
from support.loops import LoopFactory, run
from support.tls_contexts import client_context, server_context
from support.tls_listener import talk, tls_listening
from support.tls_world import TlsClient, TlsRecorder, TlsWorld, play_tls
from support.waiting import eventually

pytestmark = pytest.mark.usefixtures("descriptors_back")


def no_common_version() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = server_context()
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    return server, client_context(version=ssl.TLSVersion.TLSv1_2)


def no_common_cipher() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = (
        server_context(newest=ssl.TLSVersion.TLSv1_2),
        client_context(version=ssl.TLSVersion.TLSv1_2),
    )
    server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    return server, client


def rejected_server_name() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = server_context()
    server.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    return server, client_context()


def client_certificate(
    which: str, version: ssl.TLSVersion
) -> Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]]:
    return lambda: (
        server_context(ask_client=True),
        client_context(certificate=which, version=version),
    )


@pytest.mark.parametrize(
    ("contexts", "alert"),
    [
        (no_common_version, "TLSV1_ALERT_PROTOCOL_VERSION"),
        (no_common_cipher, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        (rejected_server_name, "TLSV1_UNRECOGNIZED_NAME"),
        (client_certificate("", ssl.TLSVersion.TLSv1_2), "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        (client_certificate("", ssl.TLSVersion.TLSv1_3), "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        (client_certificate("stranger", ssl.TLSVersion.TLSv1_2), "TLSV1_ALERT_UNKNOWN_CA"),
        (client_certificate("stranger", ssl.TLSVersion.TLSv1_3), "TLSV1_ALERT_UNKNOWN_CA"),
    ],
    ids=["version", "cipher", "name", "none-1.2", "none-1.3", "stranger-1.2", "stranger-1.3"],
)
@pytest.mark.parametrize("surplus", [False, True], ids=["alone", "surplus"])
def test_alerts_reach_the_client(
    loop_factory: LoopFactory,
    contexts: Callable[[], tuple[ssl.SSLContext, ssl.SSLContext]],
    alert: str,
    surplus: bool,
) -> None:
    """Even if the client sent data that the server never reads, which must not cause a reset."""
    server, own = contexts()

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), context=server)
        client = TlsClient(await world.connect(), own)
        try:
            if surplus:
                record = b"\x17\x03\x03\x40\x00" + bytes(16_384)
                if server.verify_mode == ssl.CERT_REQUIRED:
                    await client.raw.send(await client.last_flight() + record)
                else:
                    with pytest.raises(ssl.SSLWantReadError):
                        client.tls.do_handshake()
                    await client.raw.send(client.flight() + record)
            await client.handshake()
            # Under 1.3 the client is done before the server has seen its certificate.
            world.note("client", (await client.rest())[1])
        except ssl.SSLError as exc:
            world.note("client", exc.reason)
        world.note("failures", world.server.statistics()["handshake_failures"])
        await world.nothing_left()

    log = play_tls(script, loop_factory)
    assert alert in log[0][1]
    assert log[1:] == [("failures", 1)]


def test_client_rejects_our_certificate(loop_factory: LoopFactory) -> None:
    """Its alert ends the handshake on our side."""

    async def main() -> None:
        trusting_nobody = ssl.create_default_context()
        async with tls_listening() as listener:
            with pytest.raises(ssl.SSLCertVerificationError):
                await talk(listener.address, trusting_nobody)
            await eventually(lambda: listener.count("handshake_failures") == 1)
            await listener.empty()

    run(loop_factory, main)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_refusal_is_an_unencrypted_alert(loop_factory: LoopFactory, lazy: bool) -> None:
    """A fatal alert, sent before any handshake."""
    alert = b"\x15\x03\x01\x00\x02\x02\x50"

    async def main() -> None:
        async with tls_listening(limit=1, refusal=alert, lazy=lazy) as listener:
            first = await listener.connect()
            await eventually(lambda: listener.acceptor.connections == 1)
            with pytest.raises(ssl.SSLError, match="INTERNAL_ERROR"):
                await talk(listener.address)
            first.close()
            await eventually(lambda: listener.acceptor.connections == 0)
            await talk(listener.address)

    run(loop_factory, main)
