"""The sections of a message: the numbers of parts, headers, chosen fields, pieces of them.

Rules of this file: what is read is compared with octets written out here. How Dovecot answers is in
test_mime_dovecot_sections.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.mime_messages import has_lf, line_soups, multipart, served, trees

from fastlisten.mail.mime import sections
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.sections import (
    Content,
    Section,
    find_part,
    pieces,
    section_of,
    select_fields,
)
from fastlisten.mail.mime.structure import Part


def octets(data: bytes, section: Section | None, first: int = 0, count: int | None = None) -> bytes:
    """Return the octets of a section of a message."""
    assert section is not None
    read = lambda offset, size: data[offset : offset + size]  # noqa: E731
    return b"".join(pieces(read, section, first, count))


def fetch(data: bytes, path: Sequence[int], content: Content = Content.WHOLE) -> bytes | None:
    section = section_of(parse(data), path, content)
    if section is None:
        return None
    found = octets(data, section)
    assert len(found) == section.size
    return found


def leaf(text: bytes) -> bytes:
    return b"X-Name: " + text + b"\r\n\r\n" + text


def message(inner: bytes) -> bytes:
    return b"Content-Type: message/rfc822\r\n\r\n" + inner


SUBJECT = b"Subject: s\r\n"

#: The message of the example in RFC 3501 6.4.5.
RFC_3501 = SUBJECT + multipart(
    b"1",
    leaf(b"1"),
    leaf(b"2"),
    message(SUBJECT + multipart(b"2", leaf(b"3.1"), leaf(b"3.2"))),
    multipart(
        b"3",
        leaf(b"4.1"),
        message(
            SUBJECT
            + multipart(b"4", leaf(b"4.2.1"), multipart(b"5", leaf(b"4.2.2.1"), leaf(b"4.2.2.2")))
        ),
    ),
)


LEAVES = (b"1", b"2", b"3.1", b"3.2", b"4.1", b"4.2.1", b"4.2.2.1", b"4.2.2.2")


@pytest.mark.parametrize("name", LEAVES)
def test_parts_of_the_example_in_rfc_3501(name: bytes) -> None:
    path = [int(number) for number in name.split(b".")]
    assert fetch(RFC_3501, path) == name
    assert fetch(RFC_3501, path, Content.MIME) == b"X-Name: " + name + b"\r\n\r\n"
    assert fetch(RFC_3501, path, Content.HEADER) is None
    assert fetch(RFC_3501, path, Content.TEXT) is None


@pytest.mark.parametrize("path", [(), (3,), (4, 2)])
def test_messages_of_the_example_in_rfc_3501(path: Sequence[int]) -> None:
    header = fetch(RFC_3501, path, Content.HEADER)
    text = fetch(RFC_3501, path, Content.TEXT)
    whole = fetch(RFC_3501, path)
    assert header is not None
    assert text is not None
    assert header.startswith(SUBJECT + b"Content-Type: multipart/mixed")
    assert header.endswith(b"\r\n\r\n")
    assert text.startswith(b"--")
    assert header + text == whole
    mime = fetch(RFC_3501, path, Content.MIME)
    assert mime == (b"Content-Type: message/rfc822\r\n\r\n" if path else None)


def test_multipart_has_the_parts_of_its_message() -> None:
    part = find_part(parse(RFC_3501), (4,))
    assert part is not None
    assert (part.type, fetch(RFC_3501, (4,), Content.HEADER)) == (b"multipart", None)


@pytest.mark.parametrize(
    "path", [(0,), (5,), (-1,), (1, 1), (2, 1), (3, 3), (3, 1, 1), (4, 3), (4, 2, 3), (3, 0)]
)
def test_parts_that_do_not_exist(path: Sequence[int]) -> None:
    root = parse(RFC_3501)
    assert find_part(root, path) is None
    assert all(section_of(root, path, content) is None for content in Content)


def test_message_that_is_no_multipart_has_one_part() -> None:
    data = b"Subject: x\r\n\r\ntext"
    assert fetch(data, ()) == data
    assert fetch(data, (1,)) == fetch(data, (), Content.TEXT) == b"text"
    assert fetch(data, (1,), Content.MIME) == fetch(data, (), Content.HEADER)
    assert fetch(data, (2,)) is fetch(data, (1, 1)) is None
    inner = message(data)
    assert fetch(inner, (1,)) == data
    assert fetch(inner, (1, 1)) == b"text"
    assert fetch(inner, (1,), Content.HEADER) == b"Subject: x\r\n\r\n"
    assert fetch(inner, (1, 1), Content.MIME) == b"Subject: x\r\n\r\n"
    assert fetch(inner, (1, 1, 1)) is fetch(inner, (1, 2)) is None
    assert fetch(message(inner), (1, 1, 1)) == b"text"


HEADER = b"Received: a\r\n\tb\r\nFrom: f\r\nno field\r\nTo : t\r\nreceived:c\r\n\r\n"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([b"received"], b"Received: a\r\n\tb\r\nreceived:c\r\n\r\n"),
        ([b"to", b"from", b"x"], b"From: f\r\nTo : t\r\n\r\n"),
        ([b"no field"], b"\r\n"),
        ([], b"\r\n"),
    ],
)
def test_chosen_fields(names: list[bytes], expected: bytes) -> None:
    for end in (b"\r\n", b"\n"):
        data = b"X: y\n\n" + HEADER.replace(b"\r\n", end)
        section = select_fields(data[6:], 6, names, lf=end == b"\n")
        assert octets(data, section) == expected
        assert section.size == len(expected)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([b"received", b"to"], b"From: f\r\nno field\r\n\r\n"),
        ([b"from"], HEADER.replace(b"From: f\r\n", b"")),
        ([], HEADER),
    ],
)
def test_all_but_chosen_fields(names: list[bytes], expected: bytes) -> None:
    for end in (b"\r\n", b"\n"):
        data = HEADER.replace(b"\r\n", end)
        section = select_fields(data, 0, names, inverted=True, lf=end == b"\n")
        assert octets(data, section) == expected
        assert section.size == len(expected)
    whole = select_fields(HEADER, 0, [], inverted=True)
    assert whole.ranges == ((0, len(HEADER)),)


def test_blank_line_is_given_if_there_is_one() -> None:
    """RFC 3501 6.4.5: not of a message that has no body and no blank line."""
    for header, blank in ((b"A: b", b""), (b"A: b\n", b""), (b"", b""), (b"\n", b"\r\n")):
        assert octets(header, select_fields(header, 0, [b"x"], lf=True)) == blank
        assert octets(header, select_fields(header, 0, [b"a"], inverted=True, lf=True)) == blank


def everything(root: Part) -> Section:
    section = section_of(root, (), Content.WHOLE)
    assert section is not None
    return section


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 65536])
def test_pieces_are_what_clients_see(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "PIECE", piece)
    for data in (
        b"A: b\r\n\r\none\r\ntwo\r\n",
        b"A: b\n\none\ntwo\n",
        b"A: b\r\n\none\r\r\n\rtwo\n\n\r\n\r",
        b"A: b\n\r\none\r\r\n\rtwo\n\n\r\n\r",
    ):
        seen = served(data, has_lf(data))
        section = everything(parse(data))
        assert octets(data, section) == seen
        for first in range(len(seen) + 2):
            assert octets(data, section, first) == seen[first:]
            for count in range(len(seen) + 2):
                assert octets(data, section, first, count) == seen[first : first + count]


def test_pieces_of_several_ranges() -> None:
    header = b"A: 1\nB: 2\nA: 3\n\n"
    section = select_fields(header, 0, [b"a"], lf=True)
    assert len(section.ranges) == 2
    seen = b"A: 1\r\nA: 3\r\n\r\n"
    for first in range(len(seen)):
        assert octets(header, section, first, 5) == seen[first : first + 5]
    crlf = header.replace(b"\n", b"\r\n")
    section = select_fields(crlf, 0, [b"a"])
    for first in range(len(seen)):
        assert octets(crlf, section, first, 5) == seen[first : first + 5]


def test_only_what_is_wanted_is_read() -> None:
    data = b"A: b\r\n\r\n" + b"x" * 1000
    reads = []

    def read(offset: int, size: int) -> bytes:
        reads.append((offset, size))
        return data[offset : offset + size]

    assert b"".join(pieces(read, everything(parse(data)), 500, 20)) == b"x" * 20
    assert reads == [(500, 20)]


def test_message_that_became_shorter_is_an_error() -> None:
    data = b"A: b\r\n\r\ntext"
    section = everything(parse(data))
    with pytest.raises(OSError, match="shorter"):
        octets(data[:-1], section)


@given(line_soups | trees, st.lists(st.integers(0, 3), max_size=3), st.sampled_from(Content))
def test_every_section_has_its_size_and_place(
    data: bytes, path: list[int], content: Content
) -> None:
    root = parse(data)
    section = section_of(root, path, content)
    part = find_part(root, path)
    if section is None:
        assert part is None or content is not Content.WHOLE
        return
    assert part is not None
    assert len(octets(data, section)) == section.size
    ((start, end),) = section.ranges
    assert part.header <= start <= end <= part.end
