"""ENVELOPE, BODY and BODYSTRUCTURE as Dovecot writes them, of the same messages.

Rules of this file: messages that mail/mime reads as Dovecot does, so that only the writing can
differ. Where the reading differs is said in tests/mail/mime/test_mime_dovecot.py.
"""

from __future__ import annotations

from typing import Any

from support.dovecot_imap import DOVECOT_IMAP, dovecot
from support.imap_reader import Atom, Value, read_response
from support.marks import external

from fastlisten.handlers.imap.engine.body_structure import (
    item_body,
    item_body_structure,
    item_envelope,
)
from fastlisten.mail.mime.parser import parse

MESSAGES = [
    b"From: a@b\r\nSubject: x\r\n\r\nbody\r\n",
    b"\r\n",
    b'From: Foo Bar <a@b>, "Q, uoted" <c@d>\r\nTo: undisclosed-recipients:;\r\n'
    b"Cc: A: b@c, d@e;\r\nSubject: \xc3\xa4\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    b"Message-ID: <x@y>\r\nIn-Reply-To: <z@y>\r\n\r\nbody\r\n",
    b'From: "a\\"b\\\\c" <"x y"@z>\r\nTo: <@a,@b:c@d>\r\nSubject: a"b\\c\r\nBcc: x@y\r\n\r\n',
    b"From: nil <nil@nil>\r\nSubject: NIL\r\nMessage-ID: \r\nSender: s@t\r\nReply-To: r@u\r\n\r\n",
    b"Subject: " + b"long " * 300 + b"\r\n\r\n",
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nt\r\n--x\r\n"
    b'Content-Type: image/png; name="a \\"b\\".png"\r\n'
    b'Content-Disposition: attachment; filename="a b.png"; size=5\r\n'
    b"Content-Transfer-Encoding: base64\r\nContent-ID: <1>\r\nContent-Description: d\r\n"
    b"Content-MD5: abc\r\nContent-Language: en, de\r\nContent-Location: http://x\r\n\r\n"
    b"AAAA\r\n--x\r\nContent-Type: text/html; charset=utf-8\r\nContent-Language: en\r\n"
    b"Content-Disposition: inline\r\n\r\n<b>\r\n--x--\r\n",
    b"MIME-Version: 1.0\r\nContent-Type: multipart/digest; boundary=x\r\n\r\n--x\r\n\r\n"
    b"From: a@b\r\nSubject: inner\r\n\r\nz\r\n\r\n--x--\r\n",
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\nnothing\r\n",
    b"MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: multipart/alternative; boundary=q\r\n\r\n--q\r\n\r\nx\r\n--q--\r\n",
    b"MIME-Version: 1.0\r\nContent-Type: message/delivery-status\r\n\r\nx: y\r\n",
    b'MIME-Version: 1.0\r\nContent-Type: text/plain; charset="utf-8"; format=flowed\r\n'
    b"Content-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa4\r\n",
]


def as_numbers(value: Value) -> Any:
    """Return values with numbers as numbers, as those of Dovecot's are."""
    if isinstance(value, list):
        return [as_numbers(each) for each in value]
    return int(value) if isinstance(value, Atom) and value.isdigit() else value


def written(item: bytes) -> Any:
    return as_numbers(read_response(b"* %b\r\n" % item)[1])


@external(DOVECOT_IMAP)
def test_the_same_as_dovecot() -> None:
    with dovecot(MESSAGES) as server:
        answers = server.fetch("ENVELOPE BODY BODYSTRUCTURE")
    assert len(answers) == len(MESSAGES)
    for data, answer in zip(MESSAGES, answers, strict=True):
        part = parse(data)
        assert part.envelope is not None
        assert written(item_envelope(part.envelope)) == answer[b"ENVELOPE"], data
        assert written(item_body(part)) == answer[b"BODY"], data
        assert written(item_body_structure(part)) == answer[b"BODYSTRUCTURE"], data
