"""What a TLS transport tells about itself: get_extra_info and repr.

Rules of this file: as in test_tls_transport.
"""

from __future__ import annotations

import ssl

import pytest
from support.loops import LoopFactory
from support.tls_contexts import client_context, server_context
from support.tls_world import TlsRecorder, TlsWorld, on_all_ways, play_tls, same_tls

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


@pytest.mark.parametrize("certificate", ["", "client"], ids=["anonymous", "certified"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_get_extra_info(
    loop_factory: LoopFactory, kind: str, certificate: str, version: ssl.TLSVersion
) -> None:
    async def script(world: TlsWorld) -> None:
        context = server_context(ask_client=bool(certificate), alpn=("two", "one"))
        await world.serve(lambda: TlsRecorder(world), context=context)
        client, transport = await world.made(
            context=client_context(version=version, certificate=certificate, alpn=("one", "two"))
        )
        info = transport.get_extra_info
        world.note("context", info("sslcontext") is context)
        world.note("cipher", info("cipher") == client.tls.cipher(), type(info("cipher")).__name__)
        world.note("compression", info("compression", "default"))
        world.note("peercert", info("peercert"))
        world.note("peername", info("peername") == client.sock.getsockname())
        world.note("sockname", info("sockname") == client.sock.getpeername())
        world.note("unknown", info("no such thing"), info("no such thing", 5))
        view = info("socket")
        world.note("socket", type(view).__name__, view.getpeername() == info("peername"))
        tls = info("ssl_object")
        world.note("object", type(tls).__name__, isinstance(tls, ssl.SSLObject))
        world.note("same", tls is info("ssl_object"))
        world.note("version", tls.version(), tls.selected_alpn_protocol(), tls.compression())
        world.note("side", tls.server_side, tls.context is context, tls.cipher() == info("cipher"))
        world.note("certificate", tls.getpeercert() == info("peercert"))
        world.note("der", tls.getpeercert(True) is not None, tls.session_reused)
        world.note("pending", tls.pending())
        world.note(
            "binding",
            tls.get_channel_binding("tls-unique") == client.tls.get_channel_binding("tls-unique"),
        )

    log = same_tls(script, loop_factory, kind=kind)
    expected = (version.name.replace("_", "."), "two", None)
    assert [note[1:] for note in log if note[0] == "version"] == [expected]


def test_get_extra_info_after_the_end(loop_factory: LoopFactory, kind: str) -> None:
    """What was known of TLS stays known; as with asyncio, the socket is forgotten."""

    async def script(world: TlsWorld) -> None:
        context = server_context(ask_client=True)
        await world.serve(lambda: TlsRecorder(world), context=context)
        client, transport = await world.made(context=client_context(certificate="client"))
        await client.notify()
        await world.until("connection_lost")
        await world.settle()
        info = transport.get_extra_info
        world.note("context", info("sslcontext") is context)
        world.note("cipher", info("cipher") == client.tls.cipher(), info("compression", 5))
        world.note("peercert", info("peercert")["subject"])
        world.note("names", info("peername"), info("sockname"))
        world.note("object", info("ssl_object") is not None, info("truncated"))
        world.note("socket", info("socket"))

    assert play_tls(script, loop_factory, kind=kind)[3:] == [
        ("context", True),
        ("cipher", True, None),
        ("peercert", ((("commonName", "client.test"),),)),
        ("names", None, None),
        ("object", True, False),
        ("socket", None),
    ]


def test_repr(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        world.note("repr", repr(transport).replace(str(client.sock.getsockname()[1]), "PORT"))
        transport.abort()
        await world.until("connection_lost")
        world.note("repr", repr(transport))

    log = [note[1] for note in play_tls(script, loop_factory, kind=kind) if note[0] == "repr"]
    assert "peer=('127.0.0.1', PORT)" in log[0]
    assert "TlsConnection" in log[0]
    assert "closed" in log[1]
