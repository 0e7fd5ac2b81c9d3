"""Renegotiation by a client (TLS 1.2) is refused.

Rules of this file: as in test_tls_transport. The client asks through OpenSSL's own function.
"""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from support.loops import LoopFactory
from support.tls_contexts import client_context, server_context
from support.tls_world import (
    TlsClient,
    TlsRecorder,
    TlsWorld,
    on_all_ways,
    openssl_function,
    play_tls,
    same_tls,
)
from support.world import Hook

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


def ask_to_renegotiate(client: TlsClient) -> bytes:
    """Return the ClientHello with which a client of TLS 1.2 asks for another handshake."""
    assert openssl_function("SSL_renegotiate")(client.tls) == 1
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    return client.flight()


@pytest.mark.parametrize("option", [True, False], ids=["forbidden", "default"])
def test_renegotiation_is_refused(loop_factory: LoopFactory, kind: str, option: bool) -> None:
    """With OP_NO_RENEGOTIATION and by OpenSSL's default; the connection goes on or ends."""

    async def script(world: TlsWorld) -> None:
        context = server_context()
        if not option:
            context.options &= ~ssl.OP_NO_RENEGOTIATION
        hooks: dict[str, Hook] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks), context=context)
        client, _ = await world.made(context=client_context(version=ssl.TLSVersion.TLSv1_2))
        await client.send(b"before")
        world.note("client", await client.receive(6))
        await client.raw.send(ask_to_renegotiate(client))
        await client.feed()
        try:
            client.tls.do_handshake()
        except ssl.SSLError as exc:
            world.note("refused", exc.reason)
        client.reset()
        await world.until("connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert ("refused", "NO_RENEGOTIATION") in log


def test_flood_of_renegotiations(loop_factory: LoopFactory, kind: str) -> None:
    """Each is refused at constant cost, and nobody else has to wait."""

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks))
        context = client_context(version=ssl.TLSVersion.TLSv1_2)
        bad, _ = await world.made(context=context)
        hello = ask_to_renegotiate(bad)
        other, _ = await world.made(context=context)
        await bad.raw.send(hello)
        for i in range(10):
            await other.send(b"%d" % i)
            world.note("client", await other.receive(1))
        bad.reset()
        await other.notify()
        await world.until("connection_lost", 2)
        await world.nothing_left()

    log: list[Any] = play_tls(script, loop_factory, kind=kind)
    assert [note[1] for note in log if note[0] == "client"] == [b"%d" % i for i in range(10)]
