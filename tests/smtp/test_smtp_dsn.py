"""Success DSNs (RFC 3461): when they are composed, what they say, and to whom they are sent."""

from __future__ import annotations

import email
import email.message
import email.policy
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.accounts import break_maildir
from support.relay import FOREIGN, client_of, relaying, serving
from support.smtp_client import SmtpClient
from support.smtp_harness import Served
from support.waiting import until

from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.dsn import sender as dsn_sender
from fastlisten.mail.dsn.message import dsn_message
from fastlisten.mail.dsn.outcome import Outcome
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient

TEXT = b"Subject: the message\r\nFrom: a\r\n\r\nbody\r\n.\r\n"
ALICE = "alice@example.org"
TO_BOB = b"RCPT TO:<bob@example.org> NOTIFY=SUCCESS ORCPT=rfc822;Bob+2Bx@example.com"
PLAIN_DSNLESS = ("8BITMIME", "SMTPUTF8")

_ATOMS = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~äßю-]{1,12}", fullmatch=True)
_LOCALS = st.one_of(
    st.lists(_ATOMS, min_size=1, max_size=3).map(".".join),
    st.from_regex(r'"(?:[ !#-\[\]-~ä]|\\[ -~]){0,12}"', fullmatch=True),
    st.sampled_from(["=?utf-8?q??=", "=?utf-8?b?DQpCY2M6IHg=?="]),
)
_DOMAINS = st.sampled_from(["example.org", "bücher.example", "[192.0.2.1]", "[IPv6:::1]", "a"])
mailboxes = st.tuples(_LOCALS, _DOMAINS).map("@".join)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, None) as server:
        yield server


def send(client: SmtpClient, mail: bytes, *recipients: bytes) -> None:
    for line in (mail, *recipients):
        assert client.say(line).startswith(b"250 ")
    client.say(b"DATA")
    assert client.say(TEXT).startswith(b"250 ")


def fields(message: email.message.EmailMessage) -> list[dict[str, str]]:
    """Return the field groups of a DSN's machine-readable part."""
    (part,) = [part for part in message.walk() if part.get_content_type().endswith("-status")]
    return [dict(block.items()) for block in part.get_payload()]  # type: ignore[union-attr]


def dsns(served: Served, account: str = ALICE) -> list[email.message.EmailMessage]:
    until(lambda: len(served.delivered(account)) > 0)
    return [
        email.message_from_bytes(stored, policy=email.policy.SMTP)
        for stored in served.delivered(account)
    ]


def test_local_sender_gets_success_dsn(served: Served) -> None:
    with client_of(served, auth=b"") as client:
        send(client, b"MAIL FROM:<alice@example.org> RET=FULL ENVID=a+2Bb", TO_BOB)
        (message,) = dsns(served)
        stored = served.delivered()[0]
        assert stored.startswith(b"Return-Path: <>\r\n")
        assert message.get_content_type() == "multipart/report"
        assert message.get_param("report-type") == "delivery-status"
        assert message["Auto-Submitted"] == "auto-replied"
        assert message["To"].addresses[0].addr_spec == ALICE
        assert message["From"].endswith("<postmaster@mx.example.org>")
        assert not message.defects
        about, bob = fields(message)
        assert about["Original-Envelope-Id"] == "a+b"
        assert about["Reporting-MTA"] == "dns; mx.example.org"
        assert bob == {
            "Original-Recipient": "rfc822; Bob+x@example.com",
            "Final-Recipient": "rfc822; bob@example.org",
            "Action": "delivered",
            "Status": "2.0.0",
        }
        # Only the header is returned, whatever RET says: RET concerns failures.
        returned = [part for part in message.walk() if part.get_content_type().startswith("text/")]
        assert returned[-1].get_content_type() == "text/rfc822-headers"
        assert b"Subject: the message\r\n" in stored
        assert b"body\r\n" not in stored
        assert len(served.delivered("bob@example.org")) == 1


@pytest.mark.parametrize("notify", [b"", b" NOTIFY=NEVER", b" NOTIFY=FAILURE,DELAY"])
def test_no_dsn_unless_requested(served: Served, notify: bytes) -> None:
    with client_of(served, auth=b"") as client:
        send(client, b"MAIL FROM:<alice@example.org>", b"RCPT TO:<bob@example.org>" + notify)
        send(client, b"MAIL FROM:<>", TO_BOB)
        # A requested DSN would come after the others.
        send(client, b"MAIL FROM:<alice@example.org> ENVID=last", TO_BOB)
        (message,) = dsns(served)
        assert fields(message)[0]["Original-Envelope-Id"] == "last"


def test_dsn_lists_only_recipients_with_notify_success(served: Served) -> None:
    with client_of(served, auth=b"") as client:
        send(
            client,
            b"MAIL FROM:<al@example.org>",
            b"RCPT TO:<alice@example.org> NOTIFY=FAILURE",
            TO_BOB,
        )
        until(lambda: len(served.delivered()) == 2)
        (message,) = [each for each in dsns(served) if each["Auto-Submitted"]]
        assert [block.get("Final-Recipient") for block in fields(message)] == [
            None,
            "rfc822; bob@example.org",
        ]


@pytest.mark.parametrize("sender", ["mallory@elsewhere.example", "nobody@example.org"])
def test_no_dsn_to_senders_elsewhere_without_auth(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sender: str
) -> None:
    caplog.set_level(logging.DEBUG, "fastlisten.smtp")
    with relaying() as relay, serving(tmp_path, relay) as served:
        with client_of(served, auth=b"") as client:
            send(client, f"MAIL FROM:<{sender}>".encode(), TO_BOB)
        until(lambda: f"DSN to <{sender}> not sent" in caplog.text)
        assert relay.begun == 0


def test_dsn_to_foreign_sender_address_goes_through_the_relay(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        send(client, f"MAIL FROM:<{FOREIGN}>".encode(), TO_BOB)
        until(lambda: len(relay.messages) == 1)
        ((sender, recipients, content),) = relay.messages
        assert sender == "MAIL FROM:<>"
        assert recipients == [f"RCPT TO:<{FOREIGN}> NOTIFY=NEVER"]
        message = email.message_from_bytes(content, policy=email.policy.SMTP)
        assert fields(message)[1]["Action"] == "delivered"


def test_relay_with_dsn_sends_its_own_reports(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        to = f"RCPT TO:<{FOREIGN}> NOTIFY=SUCCESS".encode()
        send(client, b"MAIL FROM:<alice@example.org> ENVID=x", to, TO_BOB)
        assert f"RCPT TO:<{FOREIGN}> NOTIFY=SUCCESS" in relay.commands
        (message,) = dsns(served)
        assert [block.get("Action") for block in fields(message)] == [None, "delivered"]


def test_relayed_dsn_if_relay_lacks_dsn(tmp_path: Path) -> None:
    with (
        relaying(extensions=PLAIN_DSNLESS) as relay,
        serving(tmp_path, relay) as served,
        client_of(served) as client,
    ):
        to = f"RCPT TO:<{FOREIGN}> NOTIFY=SUCCESS".encode()
        send(client, b"MAIL FROM:<alice@example.org>", to)
        (message,) = dsns(served)
        assert fields(message)[1] == {
            "Final-Recipient": f"rfc822; {FOREIGN}",
            "Action": "relayed",
            "Status": "2.1.9",
            "Remote-MTA": "dns; 127.0.0.1",
        }


def test_undeliverable_dsn_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        relay.answers["RCPT"] = "550 5.1.1 no"
        send(client, f"MAIL FROM:<{FOREIGN}>".encode(), TO_BOB)
        until(lambda: f"DSN to <{FOREIGN}> not sent: 550 no" in caplog.text)
        assert len(served.delivered("bob@example.org")) == 1


def test_lmtp_dsn_lists_only_successful_recipients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, None, lmtp=True) as served:
        break_maildir("bob@example.org", 5, monkeypatch)
        client = SmtpClient(served.connect())
        client.say(b"LHLO c")
        client.say(b"MAIL FROM:<al@example.org>")
        client.say(TO_BOB)
        client.say(b"RCPT TO:<alice@example.org> NOTIFY=SUCCESS")
        client.say(b"DATA")
        assert client.say(TEXT).startswith(b"451 ")
        assert client.reply().startswith(b"250 ")
        client.close()
        until(lambda: len(served.delivered()) == 2)
        (message,) = [each for each in dsns(served) if each["Auto-Submitted"]]
        assert [block.get("Final-Recipient") for block in fields(message)] == [
            None,
            "rfc822; alice@example.org",
        ]


#: Valid reverse paths that a header field could not contain unchanged.
ODD = [
    "=?utf-8?q??=@elsewhere.example",
    "=?utf-8?b?DQpCY2M6IHg=?=@elsewhere.example",
    '"a\\" b>,<c"@elsewhere.example',
    "a@[192.0.2.1]",
    "(a)@elsewhere.example",
    "!#$%&'*/?^`{|}~@elsewhere.example",
]


@pytest.mark.parametrize("sender", ODD)
def test_dsn_to_unusual_sender_addresses(tmp_path: Path, sender: str) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        if not client.say(f"MAIL FROM:<{sender}>".encode()).startswith(b"250 "):
            assert sender.startswith("(")
            return
        send(client, b"RSET", f"MAIL FROM:<{sender}>".encode(), TO_BOB)
        until(lambda: len(relay.messages) == 1)
        ((_, recipients, content),) = relay.messages
        assert recipients == [f"RCPT TO:<{sender}> NOTIFY=NEVER"]
        head = content.partition(b"\r\n\r\n")[0]
        assert b"\r\nTo: undisclosed-recipients:;\r\n" in head
        assert b"\r\nBcc" not in content


def test_body_is_not_quoted_if_header_is_missing(served: Served) -> None:
    with client_of(served, auth=b"") as client:
        for line in (b"MAIL FROM:<alice@example.org>", TO_BOB):
            client.say(line)
        client.say(b"DATA")
        assert client.say(b"\r\nsecret\r\n\r\nmore\r\n.\r\n").startswith(b"250 ")
        (message,) = dsns(served)
        assert b"secret" not in message.as_bytes()


def test_dsns_in_progress_are_limited(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dsn_sender, "MOST", 0)
    with client_of(served, auth=b"") as client:
        send(client, b"MAIL FROM:<alice@example.org>", TO_BOB)
    until(lambda: "DSN to <alice@example.org> not sent: 0 are in progress" in caplog.text)


def test_unsendable_dsn_is_not_composed(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fastlisten.smtp")
    made = []
    monkeypatch.setattr(dsn_sender, "dsn_message", lambda *given: made.append(given))
    with client_of(served, auth=b"") as client:
        send(client, b"MAIL FROM:<m@elsewhere.example>", TO_BOB)
        until(lambda: "DSN to <m@elsewhere.example> not sent" in caplog.text)
    assert made == []


def test_error_composing_a_dsn_does_not_affect_the_reply(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> bytes:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(dsn_sender, "dsn_message", fail)
    with client_of(served, auth=b"") as client:
        send(client, b"MAIL FROM:<alice@example.org>", TO_BOB)
        assert client.say(b"NOOP").startswith(b"250 ")
        until(lambda: "ZeroDivisionError: oops" in caplog.text)


@given(sender=mailboxes, recipient=mailboxes, header=st.binary(max_size=300), envid=st.text())
def test_dsn_of_any_addresses_is_well_formed(
    sender: str, recipient: str, header: bytes, envid: str
) -> None:
    data = dsn_message(
        Envelope(sender, envid=envid),
        Outcome(
            "delivered",
            "2.0.0",
            [EnvelopeRecipient(parse_mailbox(recipient), orcpt="rfc822;" + envid)],
        ),
        header,
        "mx.example.org",
        "Sun, 22 Nov 2026 12:00:00 -0000",
    )
    message = email.message_from_bytes(data, policy=email.policy.compat32)
    assert len(message.get_payload()) == 3
    assert not message.defects


def test_dsn_with_unusual_addresses_and_header(served: Served) -> None:
    for sender, hostname in (
        ("älice@bücher.example", "mx.example.org"),
        ('"a \\"b"@[192.0.2.1]', "[192.0.2.1]"),
        ("a.b+c@example.org", "localhost"),
    ):
        recipient = EnvelopeRecipient(
            parse_mailbox("böb@bücher.example"), orcpt="utf-8;b\\x{F6}b@x"
        )
        envelope = Envelope(sender, envid="x+41")
        data = dsn_message(
            envelope,
            Outcome("delivered", "2.0.0", [recipient, recipient]),
            b"Subject: \xff\x00" + b"x" * 3000 + b"\r\nNo field\r\n",
            hostname,
            "Sun, 22 Nov 2026 12:00:00 -0000",
        )
        message = email.message_from_bytes(data, policy=email.policy.SMTP)
        blocks = fields(message)
        assert len(blocks) == 3
        assert blocks[0]["Original-Envelope-Id"] == "xA"
        assert blocks[2]["Final-Recipient"] == "utf-8; b\\x{F6}b@b\\x{FC}cher.example"
        assert b"\n\n" not in data.replace(b"\r\n", b"~")
        assert all(len(line) <= 998 for line in data.split(b"\r\n") if b"xxx" not in line)
