"""Text of parts and fields: encodings, charsets, encoded words; what contains what.

Rules of this file: Python's email is the second opinion on what is decoded. Searches are compared
with Dovecot's in test_mime_dovecot_search.py.
"""

from __future__ import annotations

import base64
import email
import email.header
import email.message
import quopri
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.mime_messages import cpython_messages, multipart

from fastlisten.mail.mime import charsets, text, transfer_encoding
from fastlisten.mail.mime.charsets import decode, decoder, find_charset
from fastlisten.mail.mime.encoded_words import decoded
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.sections import Read
from fastlisten.mail.mime.structure import Part
from fastlisten.mail.mime.text import (
    body_contains,
    field_contains,
    fold,
    part_text,
    text_contains,
)
from fastlisten.mail.mime.transfer_encoding import decode_base64, decode_pieces


def reader(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size]


def cut(octets: bytes, size: int) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]


# --- transfer encodings ---------------------------------------------------------------------------


@given(st.binary(max_size=300), st.integers(1, 50), st.sampled_from((b"\r\n", b"\n", b" ! \r\n")))
def test_base64_cut_anywhere(octets: bytes, size: int, end: bytes) -> None:
    encoded = base64.encodebytes(octets).replace(b"\n", end)
    assert b"".join(decode_pieces(cut(encoded, size), b"base64")) == octets


@given(st.binary(max_size=300), st.integers(1, 50), st.booleans())
def test_quoted_printable_cut_anywhere(octets: bytes, size: int, crlf: bool) -> None:
    encoded = quopri.encodestring(octets.replace(b"\r", b""))
    if crlf:
        encoded = encoded.replace(b"\n", b"\r\n")
    expected = octets.replace(b"\r", b"")
    found = b"".join(decode_pieces(cut(encoded, size), b"quoted-printable"))
    assert found.replace(b"\r\n", b"\n") == expected


@pytest.mark.parametrize("longest", [1, 2, 3, 5, 100])
def test_long_line_of_quoted_printable(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_encoding, "_LONGEST", longest)
    encoded = b"=41=42==43 =\r\nx=4" * 20 + b"="
    whole = b"".join(decode_pieces([encoded], b"quoted-printable"))
    for size in range(1, 20):
        assert b"".join(decode_pieces(cut(encoded, size), b"quoted-printable")) == whole


@pytest.mark.parametrize(
    ("encoded", "octets"),
    [
        (b"QUJD", b"ABC"),
        (b"QUI", b"AB"),
        (b"QQ", b"A"),
        (b"Q", b""),
        (b"QUJDR", b"ABC"),
        (b"QQ==QUJD", b"A"),
        (b"-Q_U\nJ.D-", b"ABC"),
        (b"=", b""),
        (b"", b""),
    ],
)
def test_broken_base64(encoded: bytes, octets: bytes) -> None:
    assert decode_base64(encoded) == octets


def test_other_encodings_leave_octets_as_they_are() -> None:
    for encoding in (b"7bit", b"8bit", b"binary", b"x-unknown"):
        assert list(decode_pieces([b"=41", b"QQ=="], encoding)) == [b"=41", b"QQ=="]


# --- charsets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "python"),
    [
        (b"UTF-8", "utf_8"),
        (b'"utf8"', "utf_8"),
        (b"ISO-8859-15", "iso8859_15"),
        (b"windows-1251", "cp1251"),
        (b"KOI8-R", "koi8_r"),
        (b"iso-2022-jp", "iso2022_jp"),
        (b"gb2312", "gb18030"),
        (b"ANSI_X3.4-1968", "utf_8"),
        (b"iso-8859-1", "cp1252"),
        (b"base64", None),
        (b"idna", None),
        (b"unicode_escape", None),
        (b"os", None),
        (b"", None),
    ],
)
def test_names_of_charsets(name: bytes, python: str | None) -> None:
    assert find_charset(name) == python


def test_every_charset_decodes_every_octet() -> None:
    every = bytes(range(256)) * 3
    names = {name for name in charsets._NAMES.values() if find_charset(name.encode()) is not None}
    assert len(names) > 90
    for name in names:
        whole = decoder(name.encode()).decode(every, final=True)
        assert whole
        pieces = decoder(name.encode())
        assert "".join(
            [*(pieces.decode(piece) for piece in cut(every, 7)), pieces.decode(b"", final=True)]
        )


def test_octets_that_a_charset_does_not_have_become_latin_1() -> None:
    assert decode(b"k\xe4se", b"utf-8") == decode(b"k\xe4se", b"us-ascii") == "käse"
    assert decode(b"k\xe4se") == decode(b"k\xc3\xa4se") == decode(b"k\xe4se", b"nonsense") == "käse"
    assert decode(b"\x81\x80", b"iso-8859-1") == "\x81€"


def test_order_of_octets() -> None:
    for width in ("16", "32"):
        for order in ("le", "be"):
            octets = "\ufeffä".encode(f"utf-{width}-{order}")
            assert decode(octets, b"utf-" + width.encode()) == "ä"
        assert decode("ä".encode(f"utf-{width}-be"), b"utf-" + width.encode()) == "ä"
        assert decode(b"", b"utf-" + width.encode()) == ""


# --- encoded words --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # RFC 2047 8.
        (b"=?ISO-8859-1?Q?a?=", "a"),
        (b"=?ISO-8859-1?Q?a?= b", "a b"),
        (b"=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
        (b"=?ISO-8859-1?Q?a?= \t =?ISO-8859-2?Q?_b?=", "a b"),
        (b"=?ISO-8859-1?Q?a_b?=", "a b"),
        (b"(=?ISO-8859-1?Q?a?= b)", "(a b)"),
        (b"=?utf-8?B?R3LDvMOfZQ==?=", "Grüße"),
        (b"=?utf-8*de?b?R3LDvMOfZQ?=", "Grüße"),
        (b'"=?utf-8?q?=C3=A4?=" <a@b>', '"ä" <a@b>'),
        (b"x=?utf-8?q?=C3=A4?=y", "xäy"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=A4?=", "ä"),
        (b"=?utf-8?q?=C3?= =?UTF-8?b?pA==?=", "ä"),
        (b"=?utf-8?q??= a", " a"),
        (b"Gr\xc3\xbc\xc3\x9fe =?utf-8?q?=C3=A4?= \xe4", "Grüße ä ä"),
        (b"=?unknown?q?a?= =?utf-8?q?b?=", "=?unknown?q?a?= b"),
        (b"=?utf-8?x?a?= =?utf-8?q?a b?=", "=?utf-8?x?a?= a b"),
        (b"=?utf-8?q?a", "=?utf-8?q?a"),
        (b"a =? b ?=", "a =? b ?="),
    ],
)
def test_encoded_words(value: bytes, text: str) -> None:
    assert decoded(value) == text


@given(
    st.text(st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs")), max_size=60)
)
def test_what_python_encodes_is_decoded(text: str) -> None:
    text = " ".join(text.split())
    for charset in ("utf-8", "utf-16"):
        value = email.header.Header(text, charset, maxlinelen=60).encode().replace("\n", "")
        assert decoded(value.encode()).strip() == text


# --- parts ----------------------------------------------------------------------------------------


def leaves(part: Part) -> Iterator[Part]:
    if part.children:
        for child in part.children:
            yield from leaves(child)
    else:
        yield part


@pytest.mark.skipif(not cpython_messages(), reason="needs CPython's tests")
def test_parts_are_decoded_as_pythons_email_decodes_them() -> None:
    """Bodies are; Python drops the line break of an empty line, so space at the ends is ignored."""
    compared = 0
    for name, data in cpython_messages().items():
        message = email.message_from_bytes(data)
        theirs = [part for part in message.walk() if not part.is_multipart()]
        ours = list(leaves(parse(data)))
        # Python looks into a message/external-body.
        broken = message.defects or any(part.defects for part in theirs)
        if broken or len(ours) != len(theirs) or any(part.type == b"message" for part in ours):
            continue
        for mine, other in zip(ours, theirs, strict=True):
            octets = b"".join(decode_pieces([data[mine.body : mine.end]], mine.encoding))
            payload = other.get_payload(decode=True)
            assert isinstance(payload, bytes)
            assert octets.strip() == payload.strip(), name
            compared += 1
    assert compared > 60


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "iso-2022-jp", "shift_jis", "gb18030"])
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
def test_text_of_a_part_cut_anywhere(
    charset: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "日本語 text\r\n" * 20
    octets = words.encode(charset)
    body = {"base64": base64.encodebytes, "quoted-printable": quopri.encodestring}.get(
        encoding, bytes
    )(octets)
    head = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n"
    data = head.encode() + body
    for piece in (1, 2, 3, 10, 1000):
        monkeypatch.setattr(text, "PIECE", piece)
        found = "".join(part_text(reader(data), parse(data)))
        assert found.replace("\r", "") == words.replace("\r", "")


# --- searching ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [("Grüße", "GRÜßE"), ("é", "e\u0301"), ("ＡＢＣ", "abc"), ("ﬁ", "FI"), ("Ǆ", "ǆ"), ("Σ", "σ")],
)
def test_texts_that_are_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_texts_that_differ() -> None:
    """RFC 5051 maps a character to its titlecase only if that is one character."""
    assert fold("ß") != fold("ss")
    assert fold("a") != fold("b")


@given(st.text(), st.text(), st.text())
def test_folding_keeps_what_is_contained(before: str, key: str, after: str) -> None:
    assert fold(key) in fold(before + key + after)
    assert fold(fold(key)) == fold(key)


def test_folded_characters_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_FOLDED", text._Folded())
    monkeypatch.setattr(text, "_KEPT", 3)
    assert fold("äöüßé") == fold("ÄÖÜßÉ")
    assert len(text._FOLDED) == 3


def test_key_across_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"Content-Type: text/plain\n\nzero one two three"
    for piece in (1, 2, 3, 5):
        monkeypatch.setattr(text, "PIECE", piece)
        assert body_contains(reader(data), parse(data), fold("One Two"))
        assert not body_contains(reader(data), parse(data), fold("one  two"))


INNER = b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nletter"
MESSAGE = b"Subject: =?utf-8?q?=C3=A4?= and\r\n b\r\n" + multipart(
    b"b",
    b"Content-Type: text/html; charset=iso-8859-1; name=name\r\n\r\nGr\xfc\xdfe",
    b"Content-Type: image/png\r\n\r\npicture",
    INNER,
    b"Content-Type: message/delivery-status\r\n\r\nAction: failed",
)


@pytest.mark.parametrize(
    ("key", "in_body", "in_text"),
    [
        ("", True, True),
        ("GRÜß", True, True),
        ("letter", True, True),
        ("action: f", True, True),
        ("inner", False, True),
        ("ä AND B", False, True),
        ("subject: ä", False, True),
        ("name=name", False, True),
        ("picture", False, False),
        ("preamble", False, False),
    ],
)
def test_what_a_message_contains(key: str, in_body: bool, in_text: bool) -> None:
    data = MESSAGE.replace(b"--b", b"preamble\r\n--b", 1)
    root = parse(data)
    assert body_contains(reader(data), root, fold(key)) is in_body
    assert text_contains(reader(data), root, fold(key)) is in_text


def test_what_a_field_contains() -> None:
    value = b" =?utf-8?b?R3LDvMOfZQ==?=\r\n\tan alle\r\n"
    assert field_contains(value, fold("grüße\tAN"))
    assert not field_contains(value, fold("ende"))
    assert field_contains(b"", "")
