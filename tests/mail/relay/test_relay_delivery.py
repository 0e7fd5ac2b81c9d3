"""Relayed mail that is accepted: what the relay receives, octet by octet."""

from __future__ import annotations

import random
import ssl
from pathlib import Path
from typing import Any

import pytest
from support.relay import FOREIGN, Relay, client_of, rcpt, relaying, serving, sessions_of
from support.smtp_harness import MAIL
from support.waiting import until

from fastlisten.config import loads
from fastlisten.config.values.network import HostPort
from fastlisten.errors import ConfigurationError
from fastlisten.handlers.smtp.settings import SMTP
from fastlisten.mail.relay.relay import RelaySettings, _context, relay_of
from fastlisten.runtime.handler_factory import make_handler
from fastlisten.runtime.tls.contexts import ContextSettings
from fastlisten.runtime.tls.pem import KeyPair
from fastlisten.runtime.tls.self_signed import generate

MESSAGE = b"Subject: x\r\n\r\n.dot\r\n..two\r\n\r\n.\x80\xff\x00text\r\n"


def stuffed(message: bytes) -> bytes:
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def without_trace(content: bytes) -> bytes:
    """Return a relayed message without our Received field, which must be all that we added."""
    assert content.startswith(b"Received: from client.example.com ")
    end = content.index(b"\r\n", content.index(b";\r\n\t") + 4) + 2
    assert content[:end].count(b"Received:") == 1
    return content[end:]


def test_message_is_relayed_before_our_reply(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        assert client.say(MAIL).startswith(b"250 ")
        assert client.say(rcpt(FOREIGN)).startswith(b"250 2.1.5 ")
        assert relay.commands == [
            "EHLO mx.example.org",
            "MAIL FROM:<sender@example.com>",
            f"RCPT TO:<{FOREIGN}>",
        ]
        client.say(b"DATA")
        done = client.say(stuffed(MESSAGE))
        assert done.startswith(b"250 2.0.0 Ok, id ")
        assert done.endswith(b"; the relay says: queued as 4711\r\n")
        ((sender, recipients, content),) = relay.messages
        # The client did not declare it, but the message is 8-bit.
        assert sender == "MAIL FROM:<sender@example.com> BODY=8BITMIME"
        assert recipients == [f"RCPT TO:<{FOREIGN}>"]
        assert without_trace(content) == MESSAGE
        assert f"for <{FOREIGN}>".encode() in content
        assert b" with ESMTPSA id " in content
        assert b"Return-Path" not in content
        # The relay's session ends with the transaction, the client's goes on.
        until(relay.at_rest)
        assert relay.commands[-1] == "QUIT"
        assert client.say(MAIL).startswith(b"250 ")
        assert list((tmp_path / "spool").rglob("*.*")) == []
        until(lambda: sessions_of(served) == 0)


def test_recipients_share_a_session_and_duplicates_are_kept(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        client.say(MAIL)
        for address in (FOREIGN, "dora@elsewhere.example", FOREIGN):
            assert client.say(rcpt(address)).startswith(b"250 ")
        client.say(b"DATA")
        assert client.say(stuffed(MESSAGE)).startswith(b"250 ")
        assert relay.begun == 1
        assert len(relay.messages[0][1]) == 3
        assert b"for <" not in relay.messages[0][2]


@pytest.mark.parametrize("size", [0, 1, 262143, 262144, 262145, 1_000_000])
def test_messages_of_all_sizes(tmp_path: Path, size: int) -> None:
    random.seed(size)
    lines = random.choices((b".\r\n", b"..\r\n", b"a.\r\n", b"\r\n", b".x" * 40 + b"\r\n"), k=size)
    message = b"".join(lines)[:size]
    message = message.rpartition(b"\r\n")[0] + b"\r\n" if size else b""
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        client.say(b"DATA")
        assert client.say(stuffed(message)).startswith(b"250 ")
        assert without_trace(relay.messages[0][2]) == message


def test_addresses_and_parameters_are_passed_on(tmp_path: Path) -> None:
    mail = b'MAIL FROM:<"a b"@x.example> SIZE=77 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb'
    to = 'RCPT TO:<"q@r s"@elsewhere.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@x.example'
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        assert client.say(mail).startswith(b"250 ")
        assert client.say(to.encode()).startswith(b"250 ")
        assert client.say("RCPT TO:<düsi@bücher.example>".encode()).startswith(b"250 ")
        words = relay.commands[1].split(" ")
        assert words[:4] == ["MAIL", 'FROM:<"a', 'b"@x.example>', "BODY=8BITMIME"]
        assert set(words[4:]) == {"SMTPUTF8", "SIZE=77", "RET=HDRS", "ENVID=a+2Bb"}
        assert relay.commands[2:] == [to, "RCPT TO:<düsi@bücher.example>"]


def test_unsupported_parameters_are_left_out(tmp_path: Path) -> None:
    with (
        relaying(extensions=("8BITMIME",)) as relay,
        serving(tmp_path, relay) as served,
        client_of(served) as client,
    ):
        client.say(b"MAIL FROM:<> SIZE=77 RET=FULL ENVID=x AUTH=<>")
        client.say(rcpt(FOREIGN)[:-2] + b" NOTIFY=NEVER ORCPT=rfc822;x@y")
        assert relay.commands[1:] == ["MAIL FROM:<>", f"RCPT TO:<{FOREIGN}>"]


@pytest.mark.parametrize(
    ("mail", "reply"),
    [
        ("MAIL FROM:<ä@x.example> SMTPUTF8".encode(), b"550 5.6.7 "),
        (b"MAIL FROM:<> BODY=BINARYMIME", b"554 5.6.3 "),
    ],
)
def test_message_that_needs_unsupported_extension_is_refused(
    tmp_path: Path, mail: bytes, reply: bytes
) -> None:
    with (
        relaying(extensions=("SIZE",)) as relay,
        serving(tmp_path, relay) as served,
        client_of(served) as client,
    ):
        client.say(mail)
        assert client.say(rcpt(FOREIGN)).startswith(reply)
        assert client.say(rcpt("alice@example.org")).startswith(b"250 ")
        until(relay.at_rest)


def test_binary_message_is_sent_by_bdat(tmp_path: Path) -> None:
    binary = b"Subject: x\r\n\r\n\r.\n.\r\n.\n\x00\xff" * 50_000
    with (
        relaying(extensions=("BINARYMIME", "CHUNKING", "8BITMIME")) as relay,
        serving(tmp_path, relay) as served,
        client_of(served) as client,
    ):
        client.say(b"MAIL FROM:<> BODY=BINARYMIME")
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        half = len(binary) // 2
        client.sock.sendall(b"BDAT %d\r\n" % half + binary[:half])
        assert client.reply().startswith(b"250 ")
        client.sock.sendall(b"BDAT %d LAST\r\n" % (len(binary) - half) + binary[half:])
        assert client.reply().startswith(b"250 2.0.0 ")
        assert "BODY=BINARYMIME" in relay.commands[1]
        assert without_trace(relay.messages[0][2]) == binary


def test_missing_final_crlf_is_added(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        client.sock.sendall(b"BDAT 15 LAST\r\nSubject: x\r\n\r\n.")
        assert client.reply().startswith(b"250 ")
        assert without_trace(relay.messages[0][2]) == b"Subject: x\r\n\r\n.\r\n"


# --- TLS and AUTH ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return generate("relay.example")


@pytest.fixture
def tls(pair: KeyPair, tmp_path: Path) -> dict[str, Any]:
    """Arguments of a relay with a certificate for localhost; ca.pem is its authority."""
    (tmp_path / "ca.pem").write_bytes(pair.cert)
    return {
        "tls": ContextSettings().context(pair),
        "extensions": ("STARTTLS", "AUTH PLAIN LOGIN", "8BITMIME"),
    }


def relay_message(tmp_path: Path, relay: Relay, **options: Any) -> bytes:
    """Return the reply to a foreign recipient."""
    with serving(tmp_path, relay, **options) as served, client_of(served) as client:
        client.say(MAIL)
        reply = client.say(rcpt(FOREIGN))
        if reply.startswith(b"250 "):
            client.say(b"DATA")
            assert client.say(stuffed(MESSAGE)).startswith(b"250 ")
        return reply


LOGIN = {"relay_user": "me", "relay_password": "pässword"}
ENCODED = "AUTH PLAIN AG1lAHDDpHNzd29yZA=="


@pytest.mark.parametrize("implicit", [False, True])
def test_tls_and_auth(tmp_path: Path, tls: dict[str, Any], implicit: bool) -> None:
    with relaying(**tls, implicit=implicit) as relay:
        mode = "implicit" if implicit else "verify"
        ca = str(tmp_path / "ca.pem")
        assert relay_message(tmp_path, relay, relay_tls=mode, relay_ca=ca, **LOGIN).startswith(
            b"250 "
        )
        before = [] if implicit else ["EHLO mx.example.org", "STARTTLS"]
        assert relay.commands[: len(before) + 3] == [
            *before,
            "EHLO mx.example.org",
            ENCODED,
            "MAIL FROM:<sender@example.com>",
        ]
        assert len(relay.messages) == 1


@pytest.mark.parametrize("implicit", [False, True])
def test_unknown_certificate_is_rejected(
    tmp_path: Path, tls: dict[str, Any], implicit: bool
) -> None:
    with relaying(**tls, implicit=implicit) as relay:
        mode = "implicit" if implicit else "verify"
        assert relay_message(tmp_path, relay, relay_tls=mode, **LOGIN).startswith(b"451 4.4.1 ")
        assert not any(command.startswith(("AUTH", "MAIL")) for command in relay.commands)


def test_certificate_for_another_name_is_rejected(tmp_path: Path, pair: KeyPair) -> None:
    other = generate("relay.example")
    (tmp_path / "ca.pem").write_bytes(other.cert)
    with relaying(tls=ContextSettings().context(pair), extensions=("STARTTLS",)) as relay:
        options = {"relay_tls": "verify", "relay_ca": str(tmp_path / "ca.pem")}
        assert relay_message(tmp_path, relay, **options).startswith(b"451 4.4.1 ")


def test_verify_fails_without_starttls(tmp_path: Path) -> None:
    with relaying() as relay:
        assert relay_message(tmp_path, relay, relay_tls="verify").startswith(b"451 4.4.1 ")
        assert relay.commands == ["EHLO mx.example.org"]


def test_may_accepts_any_certificate_and_plaintext(tmp_path: Path, tls: dict[str, Any]) -> None:
    with relaying(**tls) as relay:
        assert relay_message(tmp_path, relay, relay_tls="may").startswith(b"250 ")
        assert relay.commands[1] == "STARTTLS"
    with relaying() as relay:
        assert relay_message(tmp_path, relay, relay_tls="may").startswith(b"250 ")
    with relaying(**tls, answers={"STARTTLS": "454 4.7.0 not now"}) as relay:
        assert relay_message(tmp_path, relay, relay_tls="may").startswith(b"250 ")


def test_verify_fails_if_starttls_is_refused(tmp_path: Path, tls: dict[str, Any]) -> None:
    with relaying(**tls, answers={"STARTTLS": "454 4.7.0 not now"}) as relay:
        options = {"relay_tls": "verify", "relay_ca": str(tmp_path / "ca.pem")}
        assert relay_message(tmp_path, relay, **options).startswith(b"451 4.4.1 ")


def test_failed_auth(tmp_path: Path, tls: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with relaying(**tls, answers={"AUTH": "535 5.7.8 no"}) as relay:
        options = {"relay_tls": "verify", "relay_ca": str(tmp_path / "ca.pem"), **LOGIN}
        assert relay_message(tmp_path, relay, **options).startswith(b"451 4.4.1 ")
    assert f"relay 127.0.0.1:{relay.port}: 535 no" in caplog.text
    assert "pässword" not in caplog.text


def test_auth_parameter_of_mail_is_replaced(tmp_path: Path, tls: dict[str, Any]) -> None:
    ca = str(tmp_path / "ca.pem")
    with (
        relaying(**tls) as relay,
        serving(tmp_path, relay, relay_tls="verify", relay_ca=ca, **LOGIN) as served,
        client_of(served) as client,
    ):
        client.say(b"MAIL FROM:<a@x.example> AUTH=boss@x.example")
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        assert "MAIL FROM:<a@x.example> AUTH=<>" in relay.commands


def test_minimum_tls_version() -> None:
    for verified in (True, False):
        assert _context("", verified).minimum_version >= ssl.TLSVersion.TLSv1_2


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "key", "words"),
    [
        (
            'smtp.relay = "a:25"\nsmtp.relay-tls = "verify"\nsmtp.relay-ca = "/nowhere.pem"',
            "smtp.relay-ca",
            "the authorities cannot be read: ",
        ),
        (
            'smtp.relay = "a:25"\nsmtp.relay-tls = "verify"\nsmtp.relay-ca = "/dev/null"',
            "smtp.relay-ca",
            "the authorities cannot be read: ",
        ),
    ],
)
def test_configuration_errors(lines: str, key: str, words: str) -> None:
    config = loads(f'[server.listener.a]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n{lines}\n')
    with pytest.raises(ConfigurationError) as caught:
        make_handler(config, config.listeners[0])
    (problem,) = caught.value.problems
    assert problem.key == f"server.listener.a.{key}"
    assert problem.line >= 4
    assert words in problem.message


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "may"),
        ({"relay-user": "me", "relay-password": "x"}, "verify"),
        ({"relay": HostPort("/run/relay", 0)}, "none"),
        ({"relay": HostPort("/run/relay", 0), "relay-user": "me"}, "none"),
        ({"relay-tls": "implicit"}, "implicit"),
    ],
)
def test_default_of_relay_tls(values: dict[str, Any], expected: str) -> None:
    rows = {row.key: row.default for row in SMTP.options} | {"relay": HostPort("a.example", 25)}
    settings = relay_of({**rows, **values}, "mx.example.org")
    assert settings is not None
    assert settings.tls == expected
    assert "password" not in repr(settings)
    assert relay_of({**rows, "relay": None}, "mx.example.org") is None


@pytest.mark.parametrize(
    ("host", "port", "text", "near"),
    [
        ("a.example", 25, "a.example:25", False),
        ("localhost", 25, "localhost:25", True),
        ("127.0.0.2", 25, "127.0.0.2:25", True),
        ("::1", 25, "[::1]:25", True),
        ("192.0.2.1", 25, "192.0.2.1:25", False),
        ("/run/relay", 0, "unix:/run/relay", True),
        ("localhost.example", 25, "localhost.example:25", False),
    ],
)
def test_hosts_to_which_passwords_may_go_without_tls(
    host: str, port: int, text: str, near: bool
) -> None:
    settings = RelaySettings(host, port, "none", "me", user="u", password="p")
    assert str(settings) == text
    assert settings.is_on_this_host is near


def test_password_is_not_sent_without_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration refuses this already, but a program may create the handler itself."""
    monkeypatch.setattr(RelaySettings, "is_on_this_host", False)
    with relaying(extensions=("AUTH PLAIN",)) as relay:
        assert relay_message(tmp_path, relay, **LOGIN).startswith(b"451 4.4.1 ")
        assert relay.commands == ["EHLO mx.example.org"]
