"""`fastlisten serve` with TLS: every key of `tls.*` as other projects' clients see it."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.certificates import Authority, authority, rsa_key, table, write
from support.marks import external
from support.program import Program, program
from support.tls_probes import HOST, Seen, ask, client, context, lines, read_to_end, s_client
from support.waiting import PATIENCE, until

from fastlisten.runtime.canned_replies import TLS_ALERT

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
AES128, AES256 = "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"

LISTENERS = {
    "plain": "handler = 'support.tls_handlers:Tell'",
    "greets": "handler = 'support.tls_handlers:Greet'\ntimeout.first-byte = '1s'",
    "old": "tls.protocols = 'TLSv1.2'",
    "new": "tls.protocols = 'TLSv1.3'",
    "ours": f"tls.ciphers = ['{AES128}', '{AES256}']",
    "theirs": f"tls.ciphers = ['{AES128}', '{AES256}']\ntls.ignore-client-order = false",
    "names": "tls.sni = [{ subject = '*.example.net', certificate = 'wild' },\n"
    "{ subject = 'Exact.example.net', certificate = 'exact' }]",
    "mutual": "handler = 'support.tls_handlers:Tell'\ntls.client-ca = 'ca.pem'",
    "hasty": "tls.timeout = '1s'",
    "few": "max-connections = 1",
}


def configuration() -> str:
    text = table(Path(), "mx").replace("file://", "file://../")
    for name in ("wild", "exact"):
        text += table(Path(), name, name).replace("file://", "file://../")
    text += '[server.listener.mail]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
    for name, body in LISTENERS.items():
        handler = "" if "handler" in body else "handler = 'support.serving_handlers:Echo'\n"
        text += f'[server.listener.{name}]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
        text += f"tls.implicit = true\n{handler}{body}\n"
    return text.replace("'ca.pem'", "'../ca.pem'")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("tls")
    write(directory, authority().sign("mx.example.org", HOST, key=rsa_key()), "mx")
    write(directory, authority().sign("*.example.net"), "wild")
    write(directory, authority().sign("exact.example.net"), "exact")
    (directory / "ca.pem").write_bytes(authority().pem)
    (directory / "run").mkdir()
    count = len(LISTENERS) + 1
    with program(directory / "run", configuration(), listeners=count) as started:
        yield started
        assert started.stop() == 0
        assert "ERROR" not in started.err
        assert "Traceback" not in started.err


def subject(port: int, name: str | None) -> str:
    """Return the first name in the certificate shown for this server name."""
    with client(port, context(check=False), name) as one:
        found = one.getpeercert()
    assert found is not None
    return str(found["subjectAltName"][0][1])


# --- from the first byte ----------------------------------------------------------------------


@pytest.mark.parametrize("version", [V12, V13])
def test_client_verifies_certificate_and_name(served: Program, version: ssl.TLSVersion) -> None:
    strict = context(minimum_version=version, maximum_version=version)
    for name in ("mx.example.org", HOST):
        with client(served.port("plain"), strict, name) as one:
            told = ask(one)
            assert (told["tls"], told["peer"]) == (True, HOST)
            one.sendall(b"x" * 100_000)
            received = b""
            while len(received) < 100_000:
                received += one.recv(65536)
            assert received == b"x" * 100_000


def test_greeting_and_timeout_reply_are_encrypted(served: Program) -> None:
    """The greeting, and the reply to a client that never speaks; then close_notify."""
    with client(served.port("greets")) as one:
        assert read_to_end(one) == b"hello\nfarewell: first-byte\n"


def test_refusal_is_an_alert(served: Program) -> None:
    port = served.port("few")
    with client(port) as one:
        one.sendall(b"x")
        assert one.recv(1) == b"x"
        with socket.create_connection((HOST, port), PATIENCE) as refused:
            assert read_to_end(refused) == TLS_ALERT
        with pytest.raises(ssl.SSLError, match=r"(?i)alert internal error"), client(port):
            pass


def test_plaintext_client_gets_no_reply(served: Program) -> None:
    with socket.create_connection((HOST, served.port("greets")), PATIENCE) as one:
        one.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"hello" not in read_to_end(one)


# --- versions and suites ----------------------------------------------------------------------


@external("openssl")
@pytest.mark.parametrize(
    ("listener", "spoken"),
    [("plain", {"tls1_2", "tls1_3"}), ("old", {"tls1_2"}), ("new", {"tls1_3"})],
)
def test_versions(served: Program, listener: str, spoken: set[str]) -> None:
    found = set()
    for version in ("tls1", "tls1_1", "tls1_2", "tls1_3"):
        # Otherwise the client itself would refuse the old ones.
        seen = s_client(served.port(listener), f"-{version}", "-cipher", "ALL:@SECLEVEL=0")
        if seen.code == 0 and seen.cipher != "(NONE)":
            found.add(version)
        else:
            assert "alert protocol version" in seen.text
    assert found == spoken


@external("openssl")
@pytest.mark.parametrize("asked", [(AES128, AES256), (AES256, AES128)])
def test_cipher_suites_and_their_order(served: Program, asked: tuple[str, str]) -> None:
    def cipher(listener: str) -> str:
        return s_client(served.port(listener), "-tls1_2", "-cipher", ":".join(asked)).cipher

    assert cipher("ours") == AES128
    assert cipher("theirs") == asked[0]


@external("openssl")
def test_unlisted_cipher_suites(served: Program) -> None:
    seen = s_client(
        served.port("ours"), "-tls1_2", "-cipher", "ECDHE-RSA-CHACHA20-POLY1305:AES256-GCM-SHA384"
    )
    assert seen.code != 0
    assert "alert handshake failure" in seen.text
    # None of TLS 1.3's is listed, so that version is not offered; a warning says so.
    assert "alert protocol version" in s_client(served.port("ours"), "-tls1_3").text
    assert "none of these suites is for TLSv1.3, which is therefore disabled" in served.err


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exact.example.net", "exact.example.net"),
        ("EXACT.example.NET", "exact.example.net"),
        ("any.example.net", "*.example.net"),
        ("Any.Example.Net", "*.example.net"),
        ("a.b.example.net", "mx.example.org"),
        ("example.net", "mx.example.org"),
        (None, "mx.example.org"),
    ],
)
def test_certificate_per_server_name(served: Program, name: str | None, expected: str) -> None:
    assert subject(served.port("names"), name) == expected


@external("openssl")
def test_server_name_outside_ascii_is_not_logged(served: Program) -> None:
    """Python's ssl prints a traceback for each of them; the program suppresses it."""
    for _ in range(3):
        seen = s_client(served.port("names"), "-servername", b"\xff\xfe.example")
        assert seen.code != 0
    assert subject(served.port("names"), "any.example.net") == "*.example.net"
    assert "UnicodeDecodeError" not in served.err


# --- clients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V12, V13])
def test_client_certificates(served: Program, version: ssl.TLSVersion) -> None:
    def talk(who: Authority | None) -> object:
        pair = None if who is None else who.sign("alice", client=True)
        with_it = authority().client_context(pair)
        with_it.minimum_version = with_it.maximum_version = version
        with client(served.port("mutual"), with_it) as one:
            return ask(one)["client"]["subject"]

    assert talk(authority()) == [[["commonName", "alice"]]]
    for who in (None, Authority.make("stranger")):
        with pytest.raises((ssl.SSLError, ConnectionError), match=r"(?i)alert|reset|EOF"):
            talk(who)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["tell/1", "tell/2"], "tell/2"), (["tell/1"], "tell/1"), ([], None)],
)
def test_alpn_protocols_are_those_of_the_handler(
    served: Program, offered: list[str], chosen: str | None
) -> None:
    asked = context()
    if offered:
        asked.set_alpn_protocols(offered)
    with client(served.port("plain"), asked) as one:
        assert ask(one)["alpn"] == chosen
        assert one.selected_alpn_protocol() == chosen


@pytest.mark.parametrize("version", [V12, V13])
def test_sessions_are_resumed(served: Program, version: ssl.TLSVersion) -> None:
    returning = context(minimum_version=version, maximum_version=version)
    with client(served.port("plain"), returning) as one:
        assert ask(one)["reused"] is False
        session = one.session
    with client(served.port("plain"), returning, session=session) as one:
        assert one.session_reused
        assert ask(one)["reused"] is True


def test_handshake_timeout(served: Program) -> None:
    """A client that sends nothing, and one that stops in the middle of its hello."""
    port = served.port("hasty")
    with (
        socket.create_connection((HOST, port), PATIENCE) as silent,
        socket.create_connection((HOST, port), PATIENCE) as half,
        client(port) as real,
    ):
        half.sendall(bytes((22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3)))
        assert read_to_end(silent) == b""
        assert read_to_end(half) == b""
        # A client that has done its handshake is not affected.
        real.sendall(b"x")
        assert real.recv(1) == b"x"
    until(lambda: lines(served, '"hasty"'), "the line of the failed handshakes")
    assert all("failed, the first with [127.0.0.1]:" in line for line in lines(served, '"hasty"'))


# --- STARTTLS ---------------------------------------------------------------------------------


def test_starttls(served: Program) -> None:
    with smtplib.SMTP(HOST, served.port("mail"), "c.example.com", timeout=PATIENCE) as session:
        session.ehlo()
        assert session.has_extn("starttls")
        # smtplib checks the certificate against the name that it connected to.
        session.starttls(context=context())
        session.ehlo()
        assert not session.has_extn("starttls")
        session.sendmail("s@example.com", ["alice@example.org"], b"Subject: x\r\n\r\nx\r\n")
    assert any(b"with ESMTPS id" in message for message in served.messages())


@external("openssl")
def test_starttls_with_openssl(served: Program) -> None:
    seen: Seen = s_client(served.port("mail"), "-starttls", "smtp", "-verify_return_error")
    assert seen.code != 0  # it does not know the authority
    assert "unable to get local issuer certificate" in seen.text
    seen = s_client(served.port("mail"), "-starttls", "smtp")
    assert seen.code == 0
    assert seen.cipher == "TLS_AES_256_GCM_SHA384"


# --- sslscan ----------------------------------------------------------------------------------

#: Findings that sslscan shows neither in green nor plain: none of them is allowed.
_KNOWN_SUITES = {
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
}


@external("sslscan")
@pytest.mark.parametrize(
    ("listener", "argument"), [("plain", "--tlsall"), ("mail", "--starttls-smtp")]
)
def test_sslscan_finds_nothing(served: Program, listener: str, argument: str) -> None:
    """With the defaults, and an RSA certificate."""
    done = subprocess.run(
        ["sslscan", "--xml=-", "--no-failed", argument, f"{HOST}:{served.port(listener)}"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    scan = ElementTree.fromstring(done.stdout)
    enabled = {
        one.attrib["type"] + one.attrib["version"]
        for one in scan.iter("protocol")
        if one.attrib["enabled"] == "1"
    }
    assert enabled == {"tls1.2", "tls1.3"}
    assert {one.attrib["cipher"] for one in scan.iter("cipher")} == _KNOWN_SUITES
    assert [one.attrib["supported"] for one in scan.iter("renegotiation")] == ["0"]
    assert {one.attrib["vulnerable"] for one in scan.iter("heartbleed")} == {"0"}
    assert [one.text for one in scan.iter("expired")] == ["false"]
    assert min(int(one.attrib["bits"]) for one in scan.iter("group")) >= 112
