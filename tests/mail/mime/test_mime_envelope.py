"""ENVELOPE of messages: which fields, defaults, folding, fields that are repeated.

Rules of this file: whole headers in, envelopes out; address lists are in test_mime_addresses.py.
"""

from __future__ import annotations

import pytest

from fastlisten.mail.mime.header_fields import fields
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.structure import Address, Envelope


def envelope(header: bytes) -> Envelope:
    found = parse(header + b"\n").envelope
    assert found is not None
    return found


def address(text: bytes) -> tuple[Address, ...]:
    mailbox, _, host = text.partition(b"@")
    return (Address(None, None, mailbox, host),)


def test_all_fields() -> None:
    found = envelope(
        b"Date: Mon, 30 Nov 2026 14:00:00 +0000\r\nSubject: Hello\r\nFrom: f@x\r\nSender: s@x\r\n"
        b"Reply-To: r@x\r\nTo: t@x\r\nCc: c@x\r\nBcc: b@x\r\nIn-Reply-To: <1@x>\r\n"
        b"Message-ID: <2@x>\r\n"
    )
    assert found == Envelope(
        b"Mon, 30 Nov 2026 14:00:00 +0000",
        b"Hello",
        address(b"f@x"),
        address(b"s@x"),
        address(b"r@x"),
        address(b"t@x"),
        address(b"c@x"),
        address(b"b@x"),
        b"<1@x>",
        b"<2@x>",
    )


def test_missing_fields() -> None:
    assert envelope(b"X: y\n") == Envelope()


@pytest.mark.parametrize("empty", [b"", b"Sender:\nReply-To: \n", b"Sender: ,\nReply-To: (c)\n"])
def test_sender_and_reply_to_default_to_from(empty: bytes) -> None:
    found = envelope(b"From: f@x\n" + empty)
    assert found.from_ == found.sender == found.reply_to == address(b"f@x")


def test_empty_strings_are_not_missing() -> None:
    """RFC 3501 7.4.2."""
    found = envelope(b"Date:\nSubject: \nIn-Reply-To:\n\t\nMessage-ID:\n")
    assert (found.date, found.subject, found.in_reply_to, found.message_id) == (b"",) * 4


def test_repeated_fields() -> None:
    found = envelope(b"To: a@x\nSubject: one\nTo: b@x\nSubject: two\n")
    assert found.to == address(b"a@x") + address(b"b@x")
    assert found.subject == b"two"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b" a\n b\n\tc  ", b"a b\tc"),
        (b"\r\n a\r\n  b", b"a  b"),
        (b" a\n \n b", b"a  b"),
        (b" a\rb", b"a b"),
        (b" a\0b", b"a\xef\xbf\xbdb"),
        (b" \xe4", b"\xe4"),
        (b"a: b", b"a: b"),
    ],
)
def test_values_are_unfolded(written: bytes, read: bytes) -> None:
    assert envelope(b"Subject:" + written + b"\n").subject == read


@pytest.mark.parametrize(
    "header",
    [b"SUBJECT : x\n", b"subject\t:x\n", b"To\nSubject: x\n", b" To: y\n:z\nSubject:x\n"],
)
def test_names_of_fields(header: bytes) -> None:
    assert envelope(header).subject == b"x"


def test_other_names_are_not_mistaken() -> None:
    found = envelope(
        b"X-Subject: x\nSubjects: x\nSubject x: y\n Subject: x\nNot: x\n\tSubject: x\n"
    )
    assert found == Envelope()


def test_fields_have_their_lines() -> None:
    data = b"A: 1\r\n 2\r\nno field\nB :3\n\tmore\nC:\n\n"
    found = [
        (field.name, data[field.start : field.end], data[field.value : field.end])
        for field in fields(data, 0, len(data))
    ]
    assert found == [
        (b"a", b"A: 1\r\n 2\r\n", b" 1\r\n 2\r\n"),
        (b"b", b"B :3\n\tmore\n", b"3\n\tmore\n"),
        (b"c", b"C:\n", b"\n"),
    ]
    assert [field.end for field in fields(b"A: 1\n B: 2", 0, 7)] == [7]


def test_description_of_a_part() -> None:
    part = parse(
        b"Content-Type: image/png;\n name=x\nContent-Disposition: inline; filename=y\n"
        b"Content-Transfer-Encoding: BASE64\nContent-ID: <1@x> (c)\nContent-Description: a\n b\n"
        b"Content-MD5: Q2h=\nContent-Language: en\nContent-Location: http://x/\n"
        b"Content-Type: text/html\nContent-ID: <2@x>\nX-Content-ID: <3@x>\n\n"
    )
    assert (part.type, part.subtype, part.parameters) == (b"image", b"png", ((b"name", b"x"),))
    assert (part.disposition, part.disposition_parameters) == (b"inline", ((b"filename", b"y"),))
    assert (part.encoding, part.id, part.description) == (b"base64", b"<1@x> (c)", b"a b")
    assert (part.md5, part.languages, part.location) == (b"Q2h=", (b"en",), b"http://x/")
    assert part.parameter(b"name") == b"x"
    assert part.parameter(b"charset") is None


def test_parts_have_no_envelope() -> None:
    data = b"Content-Type: multipart/mixed; boundary=b\n\n--b\nSubject: x\n\n--b--\n"
    assert parse(data).children[0].envelope is None
