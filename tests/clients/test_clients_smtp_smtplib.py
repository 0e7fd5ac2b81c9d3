"""smtplib, the standard library's client, against `fastlisten serve`.

Its LMTP class is not used: it reads one reply for the whole message, and so would prove nothing.
"""

from __future__ import annotations

import contextlib
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from support.certificates import authority
from support.real_server import (
    ALICE,
    BOB,
    CAROL,
    HOST,
    MESSAGE,
    PASSWORDS,
    SENDER,
    ZOE,
    Mail,
    server_fixture,
    without_old_mail,
)
from support.waiting import PATIENCE

NAME = "client.example.com"

#: max-message-size: the size that a message may have.
LARGEST = 4 * 1024 * 1024


server = server_fixture(
    "mx", "submission", "submissions", more=f"[smtp]\nmax-message-size = {LARGEST}\n"
)
mail = without_old_mail


@contextlib.contextmanager
def connected(mail: Mail, listener: str, starttls: bool = True) -> Iterator[smtplib.SMTP]:
    """Connect to a listener and use STARTTLS."""
    context = authority().client_context()
    if listener == "submissions":
        with smtplib.SMTP_SSL(
            HOST, mail.port(listener), NAME, timeout=PATIENCE, context=context
        ) as client:
            yield client
        return
    with smtplib.SMTP(HOST, mail.port(listener), NAME, timeout=PATIENCE) as client:
        if starttls:
            code, text = client.starttls(context=context)
            assert (code, text[:6]) == (220, b"2.0.0 ")
        yield client


def authenticate(client: smtplib.SMTP, mechanism: str, user: str = ALICE) -> tuple[int, bytes]:
    """Authenticate with one mechanism; `login` would choose by itself."""
    client.ehlo_or_helo_if_needed()
    client.user, client.password = user, PASSWORDS[user]
    method = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}[mechanism]
    return client.auth(mechanism, method, initial_response_ok=mechanism == "PLAIN")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_user_sends_a_message(mail: Mail, listener: str, mechanism: str) -> None:
    with connected(mail, listener) as client:
        assert authenticate(client, mechanism)[0] == 235
        assert client.sendmail(ALICE, [BOB, CAROL], MESSAGE) == {}
    assert mail.everything() == {BOB: 1, CAROL: 1}
    for account in (BOB, CAROL):
        trace, content = mail.the_one(account)
        assert content == MESSAGE
        assert trace.startswith(f"Return-Path: <{ALICE}>\nReceived: from {NAME} ([{HOST}]) ")
        assert " by mx.example.org with ESMTPSA id " in trace


def test_auth_without_an_initial_response(mail: Mail) -> None:
    """For PLAIN the response follows an empty challenge; for LOGIN the name is in the command."""
    for mechanism, initial in (("PLAIN", False), ("LOGIN", True)):
        with connected(mail, "submissions") as client:
            client.ehlo()
            client.user, client.password = ALICE, PASSWORDS[ALICE]
            method = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}[mechanism]
            assert client.auth(mechanism, method, initial_response_ok=initial)[0] == 235
            assert client.sendmail(ALICE, [BOB], MESSAGE) == {}
    assert mail.arrived(BOB) == [MESSAGE] * 2


def test_login_chooses_the_mechanism(mail: Mail) -> None:
    with connected(mail, "submission") as client:
        code, text = client.login(ALICE, PASSWORDS[ALICE])
        assert (code, text[:6]) == (235, b"2.7.0 ")
        # Only once per session (RFC 4954 4).
        assert client.docmd("AUTH", "PLAIN AGEAYg==")[0] == 503
        assert client.sendmail(ALICE, BOB, MESSAGE) == {}
    assert mail.arrived(BOB) == [MESSAGE]


def test_wrong_password(mail: Mail) -> None:
    with connected(mail, "submissions") as client:
        client.ehlo()
        client.user, client.password = ALICE, "wrong"
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.auth("PLAIN", client.auth_plain)
        assert refused.value.smtp_code == 535
        assert isinstance(refused.value.smtp_error, bytes)
        assert refused.value.smtp_error.startswith(b"5.7.8 ")
        # The session is as unauthenticated as before.
        with pytest.raises(smtplib.SMTPSenderRefused) as closed:
            client.sendmail(ALICE, BOB, MESSAGE)
        assert closed.value.smtp_code == 530
    assert mail.everything() == {}


def test_no_auth_without_tls(mail: Mail) -> None:
    with connected(mail, "submission", starttls=False) as client:
        with pytest.raises(smtplib.SMTPNotSupportedError, match="AUTH"):
            client.login(ALICE, PASSWORDS[ALICE])
        assert client.docmd("AUTH", "LOGIN")[0] == 538
        assert client.docmd("MAIL", f"FROM:<{ALICE}>")[0] == 530
    assert mail.everything() == {}


def test_submission_requires_a_login(mail: Mail) -> None:
    for listener in ("submission", "submissions"):
        with connected(mail, listener) as client:
            with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                client.sendmail(SENDER, ALICE, MESSAGE)
            assert refused.value.smtp_code == 530
            assert isinstance(refused.value.smtp_error, bytes)
            assert refused.value.smtp_error.startswith(b"5.7.0 ")
    assert mail.everything() == {}


def test_relay_access_is_denied(mail: Mail) -> None:
    for listener in ("mx", "submission"):
        with connected(mail, listener) as client:
            if listener == "submission":
                client.login(ALICE, PASSWORDS[ALICE])
            refused = client.sendmail(ALICE, ["someone@example.net", BOB], MESSAGE)
        code, text = refused["someone@example.net"]
        assert (code, text[:6]) == (550, b"5.7.1 ")
        assert list(refused) == ["someone@example.net"]
    assert mail.arrived(BOB) == [MESSAGE] * 2


@pytest.mark.parametrize("starttls", [False, True])
def test_mail_without_a_login(mail: Mail, starttls: bool) -> None:
    with connected(mail, "mx", starttls) as client:
        refused = client.sendmail(SENDER, [ALICE, "nobody@example.org", BOB], MESSAGE)
        assert [(name, code) for name, (code, _) in refused.items()] == [
            ("nobody@example.org", 550)
        ]
        assert client.has_extn("pipelining")
        assert client.has_extn("chunking")
        assert not client.has_extn("auth") or starttls
    for account in (ALICE, BOB):
        trace, content = mail.the_one(account)
        assert content == MESSAGE
        assert f" with {'ESMTPS' if starttls else 'ESMTP'} id " in trace


def test_addresses_outside_ascii(mail: Mail) -> None:
    message = "Subject: grüße\r\nTo: zoë@example.org\r\n\r\nschöne Grüße\r\n".encode()
    options = ["SMTPUTF8", "BODY=8BITMIME"]
    with connected(mail, "mx") as client:
        assert client.sendmail("rené@example.com", [ZOE], message, options) == {}
    trace, content = mail.the_one(ZOE)
    assert content == message
    assert "Return-Path: <rené@example.com>\n" in trace
    assert " with UTF8SMTPS id " in trace
    assert f" for <{ZOE}>;" in trace


def test_send_message(mail: Mail) -> None:
    """`send_message` takes envelope and encoding from a message object."""
    message = EmailMessage()
    message["From"], message["To"], message["Cc"] = SENDER, ALICE, BOB
    message["Subject"] = "an attachment"
    message.set_content("text\n")
    message.add_attachment(bytes(range(256)) * 100, "application", "octet-stream", filename="x")
    message.set_boundary("between-the-parts")
    with connected(mail, "mx") as client:
        assert client.send_message(message) == {}
    # In the form in which smtplib sends it.
    wire = message.as_bytes(policy=SMTP)
    assert mail.arrived() == mail.arrived(BOB) == [wire]


def test_messages_around_the_size_limit(mail: Mail) -> None:
    line = b".a line that begins with a dot, and ends with one.\r\n"
    body = b"Subject: big\r\n\r\n" + line * (LARGEST // len(line) - 1)
    with connected(mail, "mx") as client:
        assert client.sendmail(SENDER, ALICE, body) == {}
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail(SENDER, ALICE, body + line * 100)
        assert refused.value.smtp_code == 552
        # A message without SIZE is rejected at its end; the session goes on.
        client.esmtp_features.pop("size")
        with pytest.raises(smtplib.SMTPDataError) as late:
            client.sendmail(SENDER, ALICE, body + line * 100)
        assert late.value.smtp_code == 552
        assert client.sendmail(SENDER, BOB, body) == {}
    assert mail.arrived() == mail.arrived(BOB) == [body]


def test_several_messages_in_one_session(mail: Mail) -> None:
    with connected(mail, "mx") as client:
        for number in range(20):
            assert client.sendmail(SENDER, ALICE, b"Subject: %d\r\n\r\n" % number) == {}
        assert client.noop()[0] == 250
        assert client.verify(ALICE)[0] == 252
        assert client.help().startswith(b"2.0.0 ")
        assert client.mail(SENDER)[0] == 250
        assert client.rset()[0] == 250
        assert client.rcpt(ALICE)[0] == 503
        assert client.expn("list")[0] == 502
        assert client.quit()[0] == 221
    subjects = sorted(mail.arrived())
    assert subjects == sorted(b"Subject: %d\r\n\r\n" % number for number in range(20))
