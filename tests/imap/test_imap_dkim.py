"""A message is never rewritten: DKIM signatures verify, and odd octets stay, up to FETCH.

Rules of this file: dkimpy signs and verifies. Messages come by SMTP, by APPEND, or as files of
other programs, and are compared with the files too.
"""

from __future__ import annotations

import base64
import functools
import imaplib
import re
import smtplib
from collections.abc import Iterator
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from support import imap_fixtures
from support.certificates import authority, key_pem, rsa_key
from support.imap_expect import new_mailbox
from support.imap_server import ImapServer, Lines
from support.mail_store import deliver
from support.real_server import ALICE, HOST, PASSWORDS, SENDER, Mail, serving
from support.waiting import PATIENCE

server, client, box, other = imap_fixtures.EVERY

#: Messages as odd as they are in real mail, without a signature.
MESSAGES: dict[str, bytes] = {
    "plain": b"From: Ann <ann@example.com>\r\nTo: alice@example.org\r\nSubject: Hello\r\n"
    b"Date: Tue, 3 Feb 2026 10:00:00 +0000\r\nMessage-ID: <1@example.com>\r\n\r\nbody\r\n",
    "white space": b"From:  Ann\t <ann@example.com>  \r\nsubject:\tspaces   and\r\n\t tabs \t\r\n"
    b"TO:alice@example.org\r\nMime-version: 1.0\r\n\r\n  body  with \t blanks \t \r\n\r\n"
    b" \t\r\n\r\n\r\n",
    "8 bit": b"From: =?utf-8?q?J=C3=B6rg?= <ann@example.com>\r\nSubject: gr\xfcn \xe2\x82\xac\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n\xe4\xf6\xfc \xff\xfe \x80 \x7f\x01\x0b\x0c\x1b\r\n",
    "long lines": b"From: ann@example.com\r\nSubject: " + b"x" * 900 + b"\r\nX-Long: "
    + b"\r\n ".join([b"y" * 70] * 40) + b"\r\n\r\n" + b"z" * 990 + b"\r\n" + b"w" * 5000 + b"\r\n",
    "dots": b"From: ann@example.com\r\nSubject: .\r\n\r\n.\r\n..\r\n...\r\n.x\r\n. \r\n.\r\n",
    "parts": b"From: ann@example.com\r\nContent-Type: multipart/mixed;\r\n\tboundary=\"=_x y\"\r\n"
    b"\r\npreamble\r\n--=_x y\r\n\r\none \r\n\r\n--=_x y\r\nContent-Type: message/rfc822\r\n\r\n"
    b"Subject: in\r\n\r\nner\r\n--=_x y--  \r\nepilogue\r\n\r\n\r\n",
    "no body": b"From: ann@example.com\r\nSubject: nothing\r\n\r\n",
    "From line": b"From: ann@example.com\r\nSubject: mbox\r\n\r\nFrom here on\r\n>From quoted\r\n",
    "trailing blanks": b"From: ann@example.com\r\nSubject: x\r\n\r\n\r\n\r\nlast \r\n \r\n\t\r\n",
}  # fmt: skip

FORMS = ("relaxed/relaxed", "simple/simple", "relaxed/simple", "simple/relaxed")


def key_record(name: bytes, timeout: int = 0) -> bytes:
    """Return the key as DNS would."""
    assert name == b"mail._domainkey.example.com."
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public = rsa_key().public_key().public_bytes(serialization.Encoding.DER, spki)
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


@functools.cache
def signed(name: str, form: str) -> bytes:
    """Return a message with a signature in front."""
    header, body = (word.encode() for word in form.split("/"))
    message = MESSAGES[name]
    lines = message.partition(b"\r\n\r\n")[0].split(b"\r\n")
    names = [line.partition(b":")[0].strip().lower() for line in lines if line[:1] not in b" \t"]
    field = dkim.sign(
        message, b"mail", b"example.com", key_pem(rsa_key()), canonicalize=(header, body),
        include_headers=[*names, b"from", b"subject"],  # named once more: none may be added
    )  # fmt: skip
    assert verifies(field + message)
    return bytes(field + message)


def verifies(message: bytes) -> bool:
    return bool(dkim.verify(message, dnsfunc=key_record))


def fetched(client: Lines, number: int) -> bytes:
    """Return a message by one FETCH; the others of its kind say the same octets."""
    (answer,) = client.ok(f"FETCH {number} BODY.PEEK[]")
    whole = literal(answer)
    parts = [client.ok(f"FETCH {number} BODY.PEEK[{part}]")[0] for part in ("HEADER", "TEXT")]
    assert b"".join(map(literal, parts)) == whole
    (size,) = client.ok(f"FETCH {number} RFC822.SIZE")
    assert b"RFC822.SIZE %d)" % len(whole) in size
    third = len(whole) // 3 + 1
    pieces = [
        literal(client.ok(f"FETCH {number} BODY.PEEK[]<{start}.{third}>")[0])
        for start in range(0, len(whole), third)
    ]
    assert b"".join(pieces) == whole
    return whole


def literal(answer: bytes) -> bytes:
    """Return the octets of the only literal, or quoted string, of a response."""
    if answer.endswith(b' "")'):
        return b""
    match = re.search(rb"\{(\d+)\}\r\n", answer)
    assert match is not None, answer
    return answer[match.end() : match.end() + int(match[1])]


# --- signatures -----------------------------------------------------------------------------------


def test_the_signatures_notice_changes() -> None:
    for name in MESSAGES:
        message = signed(name, "simple/simple")
        assert not verifies(message.replace(b"From: ", b"From:  ").replace(b"From:\t", b"From: "))
        assert not verifies(message + b"more\r\n")


@pytest.mark.parametrize("form", FORMS)
def test_append(client: Lines, form: str) -> None:
    messages = [signed(name, form) for name in MESSAGES]
    client.ok("SELECT " + new_mailbox(client, *messages))
    for number, message in enumerate(messages, 1):
        assert fetched(client, number) == message
        assert verifies(fetched(client, number))


def test_copy_and_move(client: Lines) -> None:
    message = signed("white space", "simple/simple")
    first, second, third = new_mailbox(client, message), new_mailbox(client), new_mailbox(client)
    client.ok(f"SELECT {first}")
    client.ok(f"COPY 1 {second}")
    client.ok(f"MOVE 1 {third}")
    for name in (second, third):
        client.ok(f"SELECT {name}")
        assert fetched(client, 1) == message


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    with serving(tmp_path_factory.mktemp("mail"), "mx", "imaps") as served:
        yield served


def test_smtp(mail: Mail) -> None:
    """What is delivered gets fields in front, and nothing else is touched."""
    sent = [signed(name, form) for name in MESSAGES for form in FORMS]
    with smtplib.SMTP(HOST, mail.port("mx"), "client.example.com", timeout=PATIENCE) as session:
        session.ehlo()
        for message in sent:
            assert session.mail(SENDER)[0] == 250
            assert session.rcpt(ALICE)[0] == 250
            assert session.data(message)[0] == 250
    context = authority().client_context()
    with imaplib.IMAP4_SSL(
        HOST, mail.port("imaps"), ssl_context=context, timeout=PATIENCE
    ) as reader:
        reader.login(ALICE, PASSWORDS[ALICE])
        reader.select()
        answers = reader.fetch("1:*", "(BODY.PEEK[])")[1]
    got = [one[1] for one in answers if isinstance(one, tuple)]
    assert len(got) == len(sent)
    for message, stored in zip(sent, got, strict=True):
        assert stored.endswith(message)
        assert verifies(stored)


def test_file_with_lf(server: ImapServer, client: Lines) -> None:
    """Other programs store messages with LF; they are served with CRLF, as they were signed."""
    for name in MESSAGES:
        deliver(str(server.root), signed(name, "simple/simple").replace(b"\r\n", b"\n"))
    client.ok("SELECT INBOX")
    for number, name in enumerate(MESSAGES, 1):
        assert fetched(client, number) == signed(name, "simple/simple")


# --- odd octets -----------------------------------------------------------------------------------

ODD = (
    b"x", b"\r\n", b"\r", b"\n", b"a: b", b"a: b\r\n\r\n", b"a: b\r\n\r\nno end", b"\0",
    b"a\0b: \0\r\n\r\n\0", b"\xff" * 9, bytes(range(256)) * 3,
    b"a: b\r\n\r\nbare \r cr\r\r\n\r", b"a: b\r\n\r\nbare \n lf\n\r\n\n", b"\r\r\n\r\r\n\n\r",
    b"a: b\n\nall lf\n", b"a: b\r\rall cr\r", b"\r\n" * 3000, b"x" * 70_000 + b"\r",
    b"\0" * 70_000, (b"l" * 65_535 + b"\n") * 2, (b"l" * 65_535 + b"\r\n") * 2,
)  # fmt: skip


def test_odd_octets(server: ImapServer, client: Lines) -> None:
    """The file has what was sent. FETCH says that, but for NUL, which no literal has (RFC 3501 9).

    Only if the first line ends with LF, other programs' form of files, it is said with CRLF.
    """
    name = new_mailbox(client, *ODD)
    client.ok(f"SELECT {name}")
    for number, message in enumerate(ODD, 1):
        lf = message[: message.find(b"\n") + 1][-2:] not in (b"", b"\r\n")
        served = re.sub(rb"\r?\n", b"\r\n", message) if lf else message
        served = served.replace(b"\0", b"\x80")
        assert fetched(client, number) == served, message[:50]
    folder = server.root / f".{name}"
    files = [one.read_bytes() for one in Path(folder).glob("[nc][eu][wr]/*")]
    assert sorted(files) == sorted(ODD)
