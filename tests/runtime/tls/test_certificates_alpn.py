"""ALPN (RFC 7301): a client that offers only other protocols is refused with an alert.

Rules of this file: the client's OpenSSL reports the alert. Where OpenSSL's functions are not called
directly, such a client gets a connection without a protocol.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.certificates import authority, shake, trusting_all
from support.http import handler_of
from support.loops import on_loops
from support.marks import external
from support.waiting import PATIENCE

import fastlisten
from fastlisten import testing
from fastlisten._tls import calls_openssl, set_alpn, use_memory
from fastlisten.runtime.tls.contexts import ContextSettings, RenewableContext

pytestmark = pytest.mark.skipif(
    not calls_openssl(), reason="this interpreter hides the functions of OpenSSL"
)

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
ALERT = "(?i)no.application.protocol"

#: In an interpreter that hides OpenSSL's functions: what a client that offers "b" gets.
HIDDEN = """
import _ssl
del _ssl.__file__
from fastlisten._tls import calls_openssl, set_alpn
from fastlisten.runtime.tls.contexts import ContextSettings
from support.certificates import authority, shake, trusting_all
context = ContextSettings(alpn=("a",)).context(authority().sign("mx"))
asked = trusting_all()
asked.set_alpn_protocols(["b"])
print(calls_openssl(), set_alpn(context, ["a"]))
print(shake(context, asked).client.selected_alpn_protocol())
"""


def offering(*protocols: str, version: ssl.TLSVersion = V13) -> ssl.SSLContext:
    context = trusting_all(maximum_version=version)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def context_for(*protocols: str) -> ssl.SSLContext:
    return ContextSettings(alpn=protocols).context(authority().sign("mx"))


def chosen(context: ssl.SSLContext, asked: ssl.SSLContext, name: str | None = None) -> str | None:
    done = shake(context, asked, name)
    assert done.client.selected_alpn_protocol() == done.server.selected_alpn_protocol()
    return done.client.selected_alpn_protocol()


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("offered", [("h2",), ("http/1",), ("http/1.1x", "ttp/1.1"), ("HTTP/1.1",)])
def test_client_offering_only_other_protocols_gets_the_alert(
    offered: tuple[str, ...], version: ssl.TLSVersion
) -> None:
    with pytest.raises(ssl.SSLError, match=ALERT):
        shake(context_for("http/1.1"), offering(*offered, version=version))


@pytest.mark.parametrize("version", [V12, V13])
def test_client_that_does_not_use_alpn_is_served(version: ssl.TLSVersion) -> None:
    assert chosen(context_for("http/1.1"), offering(version=version)) is None


def test_server_without_protocols_ignores_the_offer() -> None:
    context = context_for("a")
    assert set_alpn(context, ()) is False
    assert chosen(context, offering("b")) is None


_names = st.lists(st.sampled_from(["a", "b", "ab", "ba", "aa", "x" * 255]), min_size=1, max_size=5)


@given(ours=_names, theirs=_names)
def test_first_of_our_protocols_that_the_client_offers_is_chosen(
    ours: list[str], theirs: list[str]
) -> None:
    context = context_for(*ours)
    common = [name for name in ours if name in theirs]
    if common:
        assert chosen(context, offering(*theirs)) == common[0]
    else:
        with pytest.raises(ssl.SSLError, match=ALERT):
            shake(context, offering(*theirs))


def test_every_certificate_of_a_listener_refuses() -> None:
    """The context chosen by the server name decides, even one that was loaded later."""
    front = RenewableContext(context_for(), {"other.example": context_for()})
    front.set_alpn(("a",))
    for name in ("mx", "other.example"):
        assert chosen(front.context, offering("a"), name) == "a"
        with pytest.raises(ssl.SSLError, match=ALERT):
            shake(front.context, offering("b"), name)
    front.replace(context_for("a"), {})
    with pytest.raises(ssl.SSLError, match=ALERT):
        shake(front.context, offering("b"), "mx")


@pytest.mark.parametrize("memory", [False, True], ids=["socket", "memory"])
@on_loops
async def test_native_connections_send_the_alert(memory: bool) -> None:
    before = use_memory(memory)
    try:
        context = context_for("a")
        server = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ssl.SSLError, match=ALERT):
                await asyncio.open_connection("127.0.0.1", port, ssl=offering("b"))
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=offering("b", "a"))
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "a"
            writer.close()
            await writer.wait_closed()
    finally:
        use_memory(before)


@external("openssl")
@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    ("offered", "said"),
    [
        ("h2", "alert number 120"),
        ("h2,http/1.1", "ALPN protocol: http/1.1"),
        ("", "No ALPN negotiated"),
    ],
)
@on_loops
async def test_s_client_at_an_http_listener(offered: str, said: str, option: str) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("no request is sent")

    async with testing.serve(handler_of(app), tls="implicit") as served:
        alpn = ("-alpn", offered) if offered else ()
        process = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", option, *alpn),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert said in output.decode()
        refused = said.startswith("alert")
        assert bool(process.returncode) is refused
        assert served.listener.statistics()["handshake_failures"] == refused


@pytest.mark.skipif("_ssl" in sys.builtin_module_names, reason="_ssl is built in")
def test_connection_without_a_protocol_where_openssl_is_hidden() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HIDDEN],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "False", "None"]
