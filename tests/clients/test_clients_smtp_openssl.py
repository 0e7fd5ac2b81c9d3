"""OpenSSL's s_client against `fastlisten serve`: what a person types over TLS."""

from __future__ import annotations

import base64

import pytest
from support.external_programs import Dialogue, talking
from support.marks import external
from support.real_server import (
    ALICE,
    BOB,
    CAROL,
    HOST,
    MESSAGE,
    PASSWORDS,
    SENDER,
    Mail,
    server_fixture,
    without_old_mail,
)

#: As it is on the wire.
LETTER = MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n"


server = server_fixture("mx", "submission", "submissions", "lmtp")
mail = without_old_mail


def s_client(mail: Mail, listener: str, *options: str) -> tuple[str, ...]:
    """Return the command, which verifies the certificate."""
    return (
        *("openssl", "s_client", "-connect", mail.at(listener), "-CAfile", mail.authority),
        *("-verify_return_error", "-verify_ip", HOST, "-ign_eof", *options),
    )


def send(client: Dialogue, *recipients: str) -> None:
    """Send the message; in lower case because lines with R and Q are commands of s_client."""
    for recipient in recipients:
        assert client.code(f"rcpt to:<{recipient}>\r\n".encode()) == 250
    assert client.code(b"data\r\n") == 354


@external("openssl")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_user_sends_a_message(mail: Mail, listener: str, mechanism: str, version: str) -> None:
    starttls = ("-starttls", "smtp") if listener == "submission" else ()
    name, password = ALICE.encode(), PASSWORDS[ALICE].encode()
    with talking(*s_client(mail, listener, version, *starttls)) as client:
        client.hear(rb"Verify return code: 0 \(ok\)")
        # s_client has asked for the capabilities in plaintext; the session starts anew in TLS.
        client.hear(rb"250 HELP\r\n" if starttls else rb"220 mx\.example\.org ESMTP\r\n")
        told = client.say(b"ehlo client.example.com\r\n", rb"250 HELP\r\n")
        assert b"250-AUTH PLAIN LOGIN\r\n" in told
        assert b"250-STARTTLS" not in told
        if mechanism == "PLAIN":
            response = base64.b64encode(b"\0%b\0%b" % (name, password))
            assert client.code(b"auth plain " + response + b"\r\n") == 235
        else:
            assert client.code(b"auth login\r\n") == 334
            assert client.code(base64.b64encode(name) + b"\r\n") == 334
            assert client.code(base64.b64encode(password) + b"\r\n") == 235
        assert client.code(f"mail from:<{ALICE}>\r\n".encode()) == 250
        send(client, BOB, CAROL)
        assert client.code(LETTER) == 250
        assert client.code(b"quit\r\n") == 221
    for account in (BOB, CAROL):
        trace, content = mail.the_one(account)
        assert content == MESSAGE
        assert " with ESMTPSA id " in trace
        assert f"(using TLSv1.{version[-1]} " in trace


@external("openssl")
def test_mail_without_a_login(mail: Mail) -> None:
    with talking(*s_client(mail, "mx", "-starttls", "smtp")) as client:
        client.hear(rb"Verify return code: 0 \(ok\)")
        client.hear(rb"250 HELP\r\n")
        # What was said before TLS is forgotten (RFC 3207 4.2), the greeting included.
        assert client.code(b"mail from:<>\r\n") == 503
        assert client.code(b"ehlo client.example.com\r\n") == 250
        assert client.code(f"mail from:<{SENDER}>\r\n".encode()) == 250
        assert client.code(b"rcpt to:<someone@example.net>\r\n") == 550
        send(client, ALICE)
        assert client.code(LETTER) == 250
        assert client.code(b"quit\r\n") == 221
    trace, content = mail.the_one()
    assert content == MESSAGE
    assert " with ESMTPS id " in trace


@external("openssl")
def test_lmtp_session(mail: Mail) -> None:
    """One reply per recipient, two for one that is named twice."""
    with talking(*s_client(mail, "lmtp", "-starttls", "lmtp")) as client:
        client.hear(rb"Verify return code: 0 \(ok\)")
        client.hear(rb"(?m)^250 .*\r\n")
        assert client.code(b"ehlo client.example.com\r\n") == 500
        assert client.code(b"lhlo client.example.com\r\n") == 250
        assert client.code(f"mail from:<{SENDER}>\r\n".encode()) == 250
        assert client.code(b"rcpt to:<nobody@example.org>\r\n") == 550
        send(client, ALICE, BOB, ALICE)
        said = client.say(LETTER, rb"(?:250 .*\r\n){3}")
        assert said.count(b"\r\n") == 3
        # The next reply is to the next command.
        assert client.code(b"noop\r\n") == 250
        assert client.heard == b""
        assert client.code(b"quit\r\n") == 221
    assert mail.everything()[BOB] == 1
    trace, content = mail.the_one(BOB)
    assert content == MESSAGE
    assert " with LMTPS id " in trace
