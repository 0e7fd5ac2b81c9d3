"""Contexts: each `tls.*` value as a client in memory sees it; which certificate is shown."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from support.certificates import Authority, authority, ec_key, rsa_key, shake, trusting_all
from support.config import listener
from support.loops import on_loops

import fastlisten
from fastlisten._tls import use_memory
from fastlisten.config.values.tls import TLS12_SUITES
from fastlisten.runtime.tls.contexts import ContextSettings, RenewableContext, speaks
from fastlisten.runtime.tls.pem import KeyPair

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
AES128, AES256 = "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"
OLDER, NEWER = (AES128,), ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
                           "TLS_AES_128_GCM_SHA256")  # fmt: skip


def pair(*names: str) -> KeyPair:
    return authority().sign(*(names or ("mx.example.org",)), key=rsa_key())


def client(version: ssl.TLSVersion | None = None, ciphers: str = "") -> ssl.SSLContext:
    context = trusting_all()
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if ciphers:
        context.set_ciphers(ciphers)
    return context


def version(context: ssl.SSLContext, asked: ssl.TLSVersion) -> str | None:
    """Return the version that a client offering only this one gets, None if it is refused."""
    try:
        return shake(context, client(asked)).client.version()
    except ssl.SSLError:
        return None


# --- versions and suites ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocols", "ciphers", "older", "newer"),
    [
        (("TLSv1.2", "TLSv1.3"), (), True, True),
        (("TLSv1.2",), (), True, False),
        (("TLSv1.3",), (), False, True),
        # A version without a suite is not offered.
        (("TLSv1.2", "TLSv1.3"), OLDER, True, False),
        (("TLSv1.2", "TLSv1.3"), NEWER, False, True),
        (("TLSv1.2", "TLSv1.3"), (*OLDER, *NEWER), True, True),
        (("TLSv1.2",), (*OLDER, *NEWER), True, False),
        (("TLSv1.3",), (*OLDER, *NEWER), False, True),
    ],
)
def test_protocol_versions(
    protocols: tuple[str, ...], ciphers: tuple[str, ...], older: bool, newer: bool
) -> None:
    context = ContextSettings(protocols, ciphers).context(pair())
    assert version(context, V12) == ("TLSv1.2" if older else None)
    assert version(context, V13) == ("TLSv1.3" if newer else None)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("asked", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_obsolete_versions_are_refused(asked: ssl.TLSVersion) -> None:
    lenient = client(asked, "ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        shake(ContextSettings().context(pair()), lenient)


def test_default_cipher_suites_are_safe() -> None:
    """Forward secrecy and AEAD only, whatever the host's OpenSSL would allow."""
    names = {suite["name"] for suite in ContextSettings().context(pair()).get_ciphers()}
    assert {name for name in names if not name.startswith("TLS_")} == set(TLS12_SUITES.values())
    for weak in ("ECDHE-RSA-AES256-SHA384", "AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384"):
        with pytest.raises(ssl.SSLError):
            shake(ContextSettings().context(pair()), client(V12, weak))


@pytest.mark.parametrize("name", [name for name in TLS12_SUITES.values() if "RSA" in name])
def test_single_cipher_suite(name: str) -> None:
    context = ContextSettings(ciphers=(name,)).context(pair())
    assert shake(context, client(V12)).cipher == name
    others = ":".join(other for other in TLS12_SUITES.values() if other != name)
    with pytest.raises(ssl.SSLError):
        shake(context, client(V12, others))


@pytest.mark.parametrize("order", [(AES128, AES256), (AES256, AES128)])
def test_order_of_cipher_suites(order: tuple[str, str]) -> None:
    asked = client(V12, ":".join(reversed(order)))
    assert shake(ContextSettings(ciphers=order).context(pair()), asked).cipher == order[0]
    lenient = ContextSettings(ciphers=order, client_order=True).context(pair())
    assert shake(lenient, asked).cipher == order[1]


def test_settings_of_a_listener() -> None:
    it = listener(
        f"tls.protocols = 'TLSv1.2'\ntls.ciphers = '{AES256}'\ntls.ignore-client-order = false"
    )
    assert ContextSettings.of(it) == ContextSettings(("TLSv1.2",), (AES256,), True)
    assert ContextSettings.of(listener("")) == ContextSettings()


def test_certificate_that_no_cipher_suite_can_use() -> None:
    mine, other = pair(), authority().sign("x", key=ec_key())
    only_rsa = ContextSettings(ciphers=(AES128, *NEWER))
    assert speaks(only_rsa.context(mine), V12)
    assert not speaks(only_rsa.context(other), V12)
    assert speaks(only_rsa.context(other), V13)
    assert not speaks(ContextSettings(("TLSv1.3",)).context(mine), V12)


# --- other settings ---------------------------------------------------------------------------


def test_context_options() -> None:
    options = ContextSettings().context(pair()).options
    assert options & ssl.OP_NO_RENEGOTIATION
    assert options & ssl.OP_NO_COMPRESSION
    assert not options & ssl.OP_NO_TICKET


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["imap"], "imap"), (["x", "acme"], "acme"), ([], None)]
)
def test_alpn(offered: list[str], chosen: str | None) -> None:
    asked = client()
    if offered:
        asked.set_alpn_protocols(offered)
    done = shake(ContextSettings(alpn=("imap", "acme")).context(pair()), asked)
    assert done.client.selected_alpn_protocol() == chosen
    assert done.server.selected_alpn_protocol() == chosen
    assert shake(ContextSettings().context(pair()), asked).client.selected_alpn_protocol() is None


@pytest.mark.parametrize("asked", [V12, V13])
def test_client_certificate_of_the_authority_is_required(asked: ssl.TLSVersion) -> None:
    context = ContextSettings().context(pair(), authority().pem.decode())
    mine = authority().sign("alice", client=True)
    theirs = Authority.make("stranger").sign("mallory", client=True)
    wrong_use = authority().sign("server only")

    def talk(shown: KeyPair | None) -> Any:
        one = client(asked)
        if shown is not None:
            shown.load_into(one)
        return shake(context, one).server.getpeercert()

    peer = talk(mine)
    assert peer is not None
    assert peer["subject"] == ((("commonName", "alice"),),)
    for shown in (None, theirs, wrong_use):
        with pytest.raises(ssl.SSLError):
            talk(shown)


def test_intermediate_authority_is_enough() -> None:
    below = Authority.make("below", authority())
    context = ContextSettings().context(pair(), below.pem.decode())
    one = client()
    below.sign("alice", client=True).load_into(one)
    assert shake(context, one).server.getpeercert()
    beside = client()
    authority().sign("bob", client=True).load_into(beside)
    with pytest.raises(ssl.SSLError):
        shake(context, beside)


def test_sessions_with_client_certificates_are_not_prolonged() -> None:
    """A TLS 1.3 session would otherwise get a new lifetime with each resumption."""
    one = client(V13)
    authority().sign("alice", client=True).load_into(one)
    strict = ContextSettings().context(pair(), authority().pem.decode())
    first = shake(strict, one)
    again = shake(strict, one, session=first.client.session)
    assert not again.client.session_reused
    assert again.server.getpeercert()
    lenient = ContextSettings().context(pair())
    session = shake(lenient, one).client.session
    assert shake(lenient, one, session=session).client.session_reused


@pytest.mark.parametrize("asked", [V12, V13])
def test_sessions_end_with_the_client_authority(asked: ssl.TLSVersion) -> None:
    """An older session, which shows no certificate again, is not accepted."""
    old, new = Authority.make("old"), Authority.make("new")
    it = RenewableContext(ContextSettings().context(pair(), old.pem.decode()), {})
    one = client(asked)
    old.sign("alice", client=True).load_into(one)
    session = shake(it.context, one).client.session
    it.replace(ContextSettings().context(pair(), new.pem.decode()), {})
    for offered in (None, session):
        with pytest.raises(ssl.SSLError):
            shake(it.context, one, session=offered)
    other = client(asked)
    new.sign("bob", client=True).load_into(other)
    assert shake(it.context, other).server.getpeercert()


# --- names ------------------------------------------------------------------------------------


def front(*names: str) -> RenewableContext:
    contexts = {name: ContextSettings().context(pair(name)) for name in names}
    return RenewableContext(ContextSettings().context(pair("default.example")), contexts)


def shown(it: RenewableContext, name: str | None, asked: ssl.TLSVersion = V13) -> str:
    """Return the first name in the certificate shown for a server name."""
    context = authority().client_context()
    context.check_hostname = False
    context.minimum_version = context.maximum_version = asked
    found = shake(it.context, context, name).client.getpeercert()
    assert found is not None
    return str(found["subjectAltName"][0][1])


@pytest.mark.parametrize("asked", [V12, V13])
@pytest.mark.parametrize(
    ("name", "subject"),
    [
        (None, "default.example"),
        ("mx.example.org", "mx.example.org"),
        ("MX.Example.ORG", "mx.example.org"),
        ("other.example.org", "*.example.org"),
        # Exactly one label.
        ("a.b.example.org", "default.example"),
        ("example.org", "default.example"),
        ("bücher.example.org", "xn--bcher-kva.example.org"),
        ("nowhere.example", "default.example"),
        ("org", "default.example"),
    ],
)
def test_certificate_per_server_name(name: str | None, subject: str, asked: ssl.TLSVersion) -> None:
    it = front("mx.example.org", "*.example.org", "xn--bcher-kva.example.org")
    assert shown(it, name, asked) == subject


def test_server_names_that_python_clients_never_send() -> None:
    it = front("mx.example.org", "*.example.org")
    exact, wildcard, default = map(it.choose, ("mx.example.org", "a.example.org", None))
    assert len({exact, wildcard, default}) == 3
    assert it.choose("mx.example.org.") is exact
    assert it.choose("A.EXAMPLE.ORG.") is wildcard
    for name in ("", ".", "..", ".example", "*", "*.", "x" * 255):
        assert it.choose(name) is default


def test_context_without_names_has_no_sni_callback() -> None:
    """So its handshakes run no Python."""
    assert front().context.sni_callback is None
    assert front("mx.example.org").context.sni_callback is not None


def test_context_in_use_shows_the_renewed_certificate() -> None:
    """Even one with another kind of key; the old certificate must no longer be shown."""
    it = front()
    context = it.context
    for asked in (V12, V13):
        assert shown(it, None, asked) == "default.example"
    it.replace(ContextSettings().context(authority().sign("new.example")), {})
    assert it.context is context
    rsa = client(V12, "ECDHE-RSA-AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        shake(context, rsa)
    for asked in (V12, V13):
        assert shown(it, None, asked) == "new.example"
    # And back again.
    it.replace(context, {})
    assert shown(it, None) == "default.example"


@pytest.mark.parametrize("asked", [V12, V13])
def test_sessions_survive_a_renewal(asked: ssl.TLSVersion) -> None:
    it = front("mx.example.org")
    one = client(asked)
    for name in (None, "mx.example.org"):
        first = shake(it.context, one, name)
        assert not first.client.session_reused
        session = first.client.session
        assert shake(it.context, one, name, session).client.session_reused
        it.replace(
            ContextSettings().context(authority().sign("new.example")),
            {"mx.example.org": ContextSettings().context(authority().sign("mx.example.org"))},
        )
        again = shake(it.context, one, name, session)
        assert again.client.session_reused
        assert again.server.session_reused


@pytest.mark.parametrize("memory", [False, True], ids=["socket", "memory"])
@on_loops
async def test_server_names_on_native_connections(memory: bool) -> None:
    """The callback can choose a context in both APIs of OpenSSL, before and after a renewal."""
    it = front("mx.example.org")
    renewed = ContextSettings().context(authority().sign("new.example"))
    contexts = {"mx.example.org": ContextSettings().context(pair("mx.example.org"))}

    async def seen(port: int, name: str | None) -> str:
        asked = authority().client_context()
        asked.check_hostname = False
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=asked, server_hostname=name or ""
        )
        found = writer.get_extra_info("peercert")
        writer.close()
        await writer.wait_closed()
        return str(found["subjectAltName"][0][1])

    before = use_memory(memory)
    try:
        server = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=it.context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            for default in ("default.example", "new.example"):
                assert await seen(port, "mx.example.org") == "mx.example.org"
                assert await seen(port, "other.example") == default
                assert await seen(port, None) == default
                it.replace(renewed, contexts)
    finally:
        use_memory(before)
