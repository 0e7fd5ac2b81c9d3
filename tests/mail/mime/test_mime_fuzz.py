"""Damaged messages: nothing fails, whatever they contain.

Rules of this file: messages of CPython's and at random, with octets changed, cut out and put in.
That the results are right is shown elsewhere; here everything only has to come back with one.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from support.mime_messages import cpython_messages, line_soups, trees

from fastlisten.mail.mime.base_subject import base_subject
from fastlisten.mail.mime.compact import pack, unpack
from fastlisten.mail.mime.encoded_words import decoded
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.sections import Content, pieces, section_of, select_fields
from fastlisten.mail.mime.sent_date import parse_date
from fastlisten.mail.mime.structure import Part
from fastlisten.mail.mime.text import fold, part_text, text_contains

FRAGMENTS = (
    *(b"\0", b"\r", b"\n", b"\r\n", b"\xff", b"\xc3", b"=", b"==", b"=3D", b"=?", b"?=", b'"'),
    *(b"\\", b"<", b">", b"@", b",", b";", b":", b"[", b"]", b"*", b"*0*=", b"''", b"%"),
    *(b"\nContent-Type: multipart/mixed; boundary=", b"\nContent-Type: message/rfc822\n\n"),
    *(b"--", b"(", b")"),
    *(b"\nContent-Transfer-Encoding: base64\n", b"\nContent-Transfer-Encoding: quoted-printable\n"),
    *(b"charset=utf-7", b"charset=utf-16", b"charset=iso-2022-jp", b"charset=hz", b"charset=idna"),
)  # fmt: skip

#: Where something is changed, how many octets go, and what comes in their place.
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1), st.integers(0, 40), st.sampled_from(FRAGMENTS) | st.binary(max_size=5)
    ),
    max_size=10,
)

SOURCES = st.sampled_from(list(cpython_messages().values()) or [b""]) | line_soups | trees


def changed(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for place, count, new in changes:
        start = int(place * len(data))
        data = data[:start] + new + data[start + count :]
    return data


def every(part: Part) -> list[Part]:
    return [part, *(found for child in part.children for found in every(child))]


@given(SOURCES, CHANGES)
@settings(max_examples=400)
def test_damaged_messages(data: bytes, changes: list[tuple[float, int, bytes]]) -> None:
    data = changed(data, changes)
    root = parse(data)
    assert unpack(pack(root)) == root
    read = lambda offset, size: data[offset : offset + size]  # noqa: E731
    for path in ((), (1,), (1, 1), (2,)):
        for content in Content:
            section = section_of(root, path, content)
            if section is not None:
                assert sum(map(len, pieces(read, section))) == section.size
    assert text_contains(read, root, fold("no such text \x01")) is False
    for part in every(root):
        header = data[part.header : part.body]
        chosen = select_fields(header, part.header, [b"subject"], lf=part.header_bare > 0)
        assert sum(map(len, pieces(read, chosen))) == chosen.size
        text = "".join(part_text(read, part))
        assert len(text) <= 4 * (part.end - part.body)
        envelope = part.envelope
        if envelope is not None:
            assert isinstance(decoded(envelope.subject or b""), str)
            assert len(base_subject(envelope.subject or b"").text) <= 2000
            if (date := parse_date(envelope.date or b"")) is not None:
                assert abs(date.time) < 400_000_000_000
