"""Relays with and without an extension that a message needs, declared or not.

A message that cannot be relayed is refused for all recipients as early as possible: at RCPT for
what the envelope needs, at the end of data for what the message needs. A refused message is not
delivered here, and the relay never gets octets that it does not support. RFC 6152, 6531 3.5, 3030,
1870.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.relay import FOREIGN, client_of, rcpt, relaying, serving
from support.scripted_relay import Do, Script, relay_message, scripted
from support.waiting import until

from fastlisten.mail.envelope import Envelope
from fastlisten.mail.relay.extensions import RequiredExtensions, _examine
from fastlisten.mail.relay.message_source import PIECE, BytesSource

LOCAL = "alice@example.org"
ALL = ("8BITMIME", "SMTPUTF8", "SIZE 9999999", "BINARYMIME", "CHUNKING")

ASCII = b"Subject: x\r\n\r\ntext\r\n"
BODY8 = "Subject: x\r\n\r\ntäxt\r\n".encode()
LATIN = "Subject: x\r\n\r\ntäxt\r\n".encode("latin-1")
UTF8 = "Subject: ä\r\n\r\ntext\r\n".encode()
LATIN_HEADER = "Subject: ä\r\n\r\ntext\r\n".encode("latin-1")

EIGHT, UTF8_HEADER = b"554 5.6.3 ", b"554 5.6.9 "
TAKEN = b"250 2.0.0 "

#: The client's parameters, extensions that the relay lacks, message, reply, parameters of last
#: MAIL.
CASES: list[tuple[str, str, bytes, bytes, str]] = [
    ("", "", ASCII, TAKEN, ""),
    ("", "8BITMIME", ASCII, TAKEN, ""),
    ("BODY=8BITMIME", "8BITMIME", ASCII, TAKEN, ""),
    ("BODY=7BIT", "8BITMIME", ASCII, TAKEN, ""),
    ("SMTPUTF8", "SMTPUTF8", ASCII, TAKEN, ""),
    ("BODY=8BITMIME SMTPUTF8", "8BITMIME SMTPUTF8", ASCII, TAKEN, ""),
    ("BODY=8BITMIME", "", ASCII, TAKEN, "BODY=8BITMIME"),
    ("", "", BODY8, TAKEN, "BODY=8BITMIME"),
    ("BODY=7BIT", "", LATIN, TAKEN, "BODY=8BITMIME"),
    ("", "", UTF8, TAKEN, "BODY=8BITMIME SMTPUTF8"),
    ("", "", LATIN_HEADER, TAKEN, "BODY=8BITMIME"),
    ("", "8BITMIME", BODY8, EIGHT, ""),
    ("", "8BITMIME", LATIN, EIGHT, ""),
    ("BODY=7BIT", "8BITMIME", BODY8, EIGHT, ""),
    ("BODY=8BITMIME", "8BITMIME", BODY8, EIGHT, ""),
    ("SMTPUTF8", "8BITMIME", BODY8, EIGHT, "SMTPUTF8"),
    ("", "8BITMIME", LATIN_HEADER, EIGHT, ""),
    ("", "SMTPUTF8", BODY8, TAKEN, "BODY=8BITMIME"),
    ("", "SMTPUTF8", LATIN_HEADER, TAKEN, "BODY=8BITMIME"),
    ("", "SMTPUTF8", UTF8, UTF8_HEADER, ""),
    ("BODY=8BITMIME", "SMTPUTF8", UTF8, UTF8_HEADER, "BODY=8BITMIME"),
    ("BODY=8BITMIME SMTPUTF8", "SMTPUTF8", UTF8, UTF8_HEADER, "BODY=8BITMIME"),
    ("BODY=8BITMIME SMTPUTF8", "8BITMIME", UTF8, EIGHT, "SMTPUTF8"),
    ("", "BINARYMIME", BODY8, TAKEN, "BODY=8BITMIME"),
    ("", "SIZE", ASCII * 1000, TAKEN, ""),
]


@pytest.mark.parametrize(("declared", "lacking", "message", "expected", "mail"), CASES)
def test_extensions_needed_by_the_message(
    tmp_path: Path, declared: str, lacking: str, message: bytes, expected: bytes, mail: str
) -> None:
    offered = [each for each in ALL if each.partition(" ")[0] not in lacking.split()]
    with (
        relaying(extensions=tuple(offered)) as relay,
        serving(tmp_path, relay) as served,
        client_of(served) as client,
    ):
        assert client.say(f"MAIL FROM:<a@b.example> {declared}".strip().encode())[:4] == b"250 "
        assert client.say(rcpt(LOCAL)).startswith(b"250 ")
        assert client.say(rcpt(FOREIGN)).startswith(b"250 ")
        client.say(b"DATA")
        assert client.say(message + b".\r\n").startswith(expected)
        said = [line for line in relay.commands if line.startswith("MAIL")][-1]
        assert said == f"MAIL FROM:<a@b.example> {mail}".strip()
        taken = expected == TAKEN
        assert [content.endswith(message) for _, _, content in relay.messages] == [True] * taken
        assert len(served.delivered()) == taken
        until(relay.at_rest)
        # DATA is not sent if it is known to fail.
        assert relay.commands.count("DATA") == taken


@pytest.mark.parametrize(
    ("mail", "to", "lacking", "expected"),
    [
        ("FROM:<ä@b.example> SMTPUTF8", FOREIGN, "SMTPUTF8", b"550 5.6.7 "),
        ("FROM:<a@b.example> SMTPUTF8", "ü@elsewhere.example", "SMTPUTF8", b"553 5.6.7 "),
        ("FROM:<a@b.example> SMTPUTF8", "c@bücher.example", "SMTPUTF8", b"553 5.6.7 "),
        ("FROM:<a@b.example> BODY=BINARYMIME", FOREIGN, "BINARYMIME", b"554 5.6.3 "),
        ("FROM:<a@b.example> BODY=BINARYMIME", FOREIGN, "CHUNKING", b"554 5.6.3 "),
        ("FROM:<a@b.example> SIZE=2000", FOREIGN, "", b"552 5.3.4 "),
    ],
)
def test_extensions_needed_by_the_envelope(
    tmp_path: Path, mail: str, to: str, lacking: str, expected: bytes
) -> None:
    offered = [each for each in (*ALL, "SIZE 1000") if each.partition(" ")[0] != lacking]
    with (
        relaying(extensions=tuple(offered)) as relay,
        serving(tmp_path, relay) as served,
        client_of(served) as client,
    ):
        assert client.say(f"MAIL {mail}".encode()).startswith(b"250 ")
        assert client.say(f"RCPT TO:<{to}>".encode()).startswith(expected)
        assert not any(to in command for command in relay.commands)
        assert client.say(rcpt(LOCAL)).startswith(b"250 ")


@pytest.mark.parametrize("limit", ["SIZE 1000", "SIZE 0", "SIZE", "SIZE junk", "SIZE " + "9" * 30])
def test_message_larger_than_the_relays_limit(tmp_path: Path, limit: str) -> None:
    with (
        relaying(extensions=(limit,)) as relay,
        serving(tmp_path, relay) as served,
        client_of(served) as client,
    ):
        client.say(b"MAIL FROM:<a@b.example>")
        client.say(rcpt(FOREIGN))
        client.say(b"DATA")
        reply = client.say(ASCII * 100 + b".\r\n")
        assert reply.startswith(b"552 5.3.4 " if limit == "SIZE 1000" else TAKEN)
        assert len(relay.messages) == (limit != "SIZE 1000")


def test_relay_refuses_the_second_mail() -> None:
    """That refuses the message; if RSET fails, there is no second MAIL."""
    mail: list[Any] = [b"550 5.6.1 no 8-bit today\r\n"]
    with scripted(Script({"MAIL 2": mail})) as relay:
        assert (
            relay_message(relay, BODY8).message == b"550 5.6.1 The relay says: no 8-bit today\r\n"
        )
    with scripted(Script({"RSET": [b"502 5.5.1 what?\r\n"], "MAIL": [Do.USUAL]})) as relay:
        assert relay_message(relay, BODY8).message == b"250 queued as 4711"
        assert relay.commands.count("MAIL FROM:<a@b.example>") == 1


@pytest.mark.parametrize("which", ["RCPT 3", "RCPT 4"])
def test_relay_refuses_recipient_in_second_transaction(which: str) -> None:
    """That is only a temporary failure, since the message has other recipients too."""
    with scripted(Script({which: [b"550 5.7.1 no\r\n"]})) as relay:
        replies = relay_message(relay, BODY8, recipients=("c@d.example", "e@f.example"))
        assert replies.recipients == [b"250 ", b"250 "]
        assert replies.message.startswith(b"451 4.4.2 ")
        assert relay.messages == []


def test_binarymime_is_sent_as_declared() -> None:
    script = Script(extensions=("BINARYMIME", "CHUNKING"))
    with scripted(script) as relay:
        envelope = Envelope("a@b.example", body="BINARYMIME")
        replies = relay_message(relay, b"Subject: \xe4\r\n\r\n\n\r\x00", envelope=envelope)
        assert replies.message == b"250 queued as 4711"
        assert "BDAT 17 LAST" in relay.commands


@pytest.mark.parametrize(
    ("message", "required"),
    [
        (b"", RequiredExtensions()),
        (ASCII, RequiredExtensions()),
        (BODY8, RequiredExtensions(True, False)),
        (UTF8, RequiredExtensions(True, True)),
        (LATIN_HEADER, RequiredExtensions(True, False)),
        (b"A: b\r\n" * 50_000 + "\r\nä\r\n".encode(), RequiredExtensions(True, False)),
        (b"A: b\r\n" * 50_000 + "A: ä\r\n\r\n".encode(), RequiredExtensions(True, True)),
        (b"A:" + b"x" * (PIECE - 4) + "\r\n\r\nä".encode(), RequiredExtensions(True, False)),
        (b"A:" + b"x" * (PIECE - 5) + "\r\n\r\nä".encode(), RequiredExtensions(True, False)),
        (b"A:" + b"x" * (PIECE - 3) + "\r\n\r\nä".encode(), RequiredExtensions(True, False)),
        (b"A:" + b"x" * (PIECE - 3) + "ä\r\n\r\n".encode(), RequiredExtensions(True, True)),
    ],
    ids=range(11),
)
def test_required_extensions(message: bytes, required: RequiredExtensions) -> None:
    assert _examine(BytesSource(message)) == required
