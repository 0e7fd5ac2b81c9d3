"""ENVELOPE, BODY and BODYSTRUCTURE of messages (RFC 3501 7.4.2).

Rules of this file: messages are parsed by mail/mime, and read again as a client would.
"""

from __future__ import annotations

from support.imap_reader import Value, read_response

from fastlisten.handlers.imap.engine.body_structure import (
    item_body,
    item_body_structure,
    item_envelope,
)
from fastlisten.handlers.imap.engine.message_responses import fetch_response
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.structure import Address, Envelope, Part


def lines(*text: str) -> bytes:
    return "\r\n".join([*text, ""]).encode()


SIMPLE = lines(
    "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)",
    "From: Terry Gray <gray@cac.washington.edu>",
    "Subject: IMAP4rev1 WG mtg summary and minutes",
    "To: imap@cac.washington.edu",
    "cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>",
    "Message-Id: <B27397-0100000@cac.washington.edu>",
    "MIME-Version: 1.0",
    "Content-Type: TEXT/PLAIN; CHARSET=US-ASCII",
    "",
    "one",
    "two",
)

MIXED = lines(
    "Subject: =?utf-8?q?=C3=A4?=",
    'Content-Type: multipart/mixed; boundary="x"',
    "",
    "--x",
    "",
    "text",
    "--x",
    "Content-Type: application/pdf; name=a.pdf",
    'Content-Disposition: attachment; filename="a b.pdf"',
    "Content-Transfer-Encoding: base64",
    "Content-ID: <1@x>",
    "Content-Description: a file",
    "Content-MD5: Q2hlY2s=",
    "Content-Language: de, en",
    "Content-Location: http://x/",
    "",
    "AAAA",
    "--x",
    "Content-Type: message/rfc822",
    "",
    "From: a@b",
    "Subject: inner",
    "",
    "body",
    "--x--",
)


def fetched(item: bytes) -> Value:
    number, fetch, items = read_response(fetch_response(1, [item]))
    assert (number, fetch) == (b"1", b"FETCH")
    assert isinstance(items, list)
    assert len(items) == 2
    return items[1]


def test_example_of_the_rfc() -> None:
    """RFC 3501 8."""
    part = parse(SIMPLE)
    assert part.envelope is not None
    assert item_envelope(part.envelope) == (
        b'ENVELOPE ("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)"'
        b' "IMAP4rev1 WG mtg summary and minutes"'
        b' (("Terry Gray" NIL "gray" "cac.washington.edu"))'
        b' (("Terry Gray" NIL "gray" "cac.washington.edu"))'
        b' (("Terry Gray" NIL "gray" "cac.washington.edu"))'
        b' ((NIL NIL "imap" "cac.washington.edu"))'
        b' ((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU"))'
        b' NIL NIL "<B27397-0100000@cac.washington.edu>")'
    )
    assert item_body(part) == (b'BODY ("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 10 2)')
    assert item_body_structure(part) == (
        b'BODYSTRUCTURE ("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 10 2 NIL NIL NIL NIL)'
    )


def test_parts() -> None:
    inner_envelope: Value = [
        None, b"inner", [[None, None, b"a", b"b"]], [[None, None, b"a", b"b"]],
        [[None, None, b"a", b"b"]], None, None, None, None, None,
    ]  # fmt: skip
    us_ascii: Value = [b"charset", b"us-ascii"]
    text: Value = [b"text", b"plain", us_ascii, None, None, b"7bit", b"4", b"0"]
    pdf: Value = [
        b"application", b"pdf", [b"name", b"a.pdf"], b"<1@x>", b"a file", b"base64", b"4",
    ]  # fmt: skip
    message: list[Value] = [b"message", b"rfc822", None, None, None, b"7bit", b"33"]
    message.append(inner_envelope)
    part = parse(MIXED)
    assert fetched(item_body(part)) == [text, pdf, [*message, text, b"3"], b"mixed"]
    disposition: Value = [b"attachment", [b"filename", b"a b.pdf"]]
    none: list[Value] = [None, None, None, None]
    assert isinstance(text, list)
    assert isinstance(pdf, list)
    assert fetched(item_body_structure(part)) == [
        [*text, *none],
        [
            *pdf,
            b"Q2hlY2s=",
            disposition,
            [b"de", b"en"],
            b"http://x/",
        ],
        [*message, [*text, *none], b"3", *none],
        b"mixed",
        [b"boundary", b"x"],
        None,
        None,
        None,
    ]


def test_multipart_without_parts_has_an_empty_text() -> None:
    part = Part(type=b"multipart", subtype=b"mixed")
    empty: Value = [b"text", b"plain", [b"charset", b"us-ascii"], None, None, b"7bit", b"0", b"0"]
    assert fetched(item_body(part)) == [empty, b"mixed"]
    structure = fetched(item_body_structure(part))
    assert isinstance(structure, list)
    assert structure[1:] == [b"mixed", None, None, None, None]


def test_groups_and_routes() -> None:
    envelope = Envelope(
        to=(
            Address(None, None, b"undisclosed", None),
            Address(b"A", b"@x,@y", b"a", b"b"),
            Address(None, None, None, None),
        )
    )
    found = fetched(item_envelope(envelope))
    assert isinstance(found, list)
    assert found[5] == [
        [None, None, b"undisclosed", None],
        [b"A", b"@x,@y", b"a", b"b"],
        [None, None, None, None],
    ]


def test_values_that_cannot_be_quoted_are_literals() -> None:
    envelope = Envelope(subject="ä".encode(), message_id=b'"\\', in_reply_to=b"x" * 1001)
    assert item_envelope(envelope) == (
        b'ENVELOPE (NIL {2}\r\n\xc3\xa4 NIL NIL NIL NIL NIL NIL {1001}\r\n%b "\\"\\\\")'
        % (b"x" * 1001)
    )


def test_deepest_message() -> None:
    """mail/mime bounds how deep parts are; the writer goes as deep."""
    head = lines("Content-Type: message/rfc822", "")
    part = parse(head * 150 + lines("", "x"))
    assert item_body_structure(part).count(b'"rfc822"') > 90
