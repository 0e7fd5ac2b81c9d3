"""The octets of every section, compared with those that Dovecot sends.

Rules of this file: both get the same messages; every section of every part is asked for, whole and
in part. Where we differ on purpose, the section of the RFC that settles it is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.dovecot_imap import DOVECOT_IMAP, MIME, cut_off, doubtful, dovecot
from support.marks import external
from support.mime_messages import cpython_messages, has_lf, line_soups, trees, uniform

from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.sections import Content, Section, pieces, section_of, select_fields
from fastlisten.mail.mime.structure import Part


def paths(part: Part, before: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Yield the numbers of all parts of a message."""
    if part.is_message and before:
        part = part.children[0]
    if not part.is_multipart:
        yield (*before, 1)
        if part.is_message:
            yield from paths(part, (*before, 1))
    for number, child in enumerate(part.children, 1):
        if part.is_multipart:
            yield (*before, number)
            if child.is_multipart or child.is_message:
                yield from paths(child, (*before, number))


CONTENTS = {
    "": Content.WHOLE,
    "HEADER": Content.HEADER,
    "TEXT": Content.TEXT,
    "MIME": Content.MIME,
}

FIELDS = (b"SUBJECT", b"CONTENT-TYPE")


def sections(data: bytes, root: Part, path: tuple[int, ...]) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield, for each section of a part, the item that asks for it, its name, and its octets."""

    def octets(section: Section, first: int = 0, count: int | None = None) -> bytes:
        read = pieces(lambda offset, size: data[offset : offset + size], section, first, count)
        return b"".join(read).replace(b"\0", b"\x80")  # as Dovecot shows it

    for word, content in CONTENTS.items():
        section = section_of(root, path, content)
        name = ".".join(filter(None, [*map(str, path), word]))
        if section is None:
            if path:
                yield f"BODY.PEEK[{name}]", f"BODY[{name}]".encode(), b""
            continue
        yield f"BODY.PEEK[{name}]", f"BODY[{name}]".encode(), octets(section)
        if content is Content.HEADER:
            ((start, end),) = section.ranges
            for inverted in (False, True):
                names = [field.lower() for field in FIELDS]
                chosen = select_fields(
                    data[start:end], start, names, inverted=inverted, lf=has_lf(data)
                )
                chosen_name = f"{name}.FIELDS{'.NOT' * inverted} ({b' '.join(FIELDS).decode()})"
                yield f"BODY.PEEK[{chosen_name}]", f"BODY[{chosen_name}]".encode(), octets(chosen)
        if b"\r\r\n" in data and has_lf(data):
            continue  # pieces that Dovecot sends of these differ from what it sends as a whole
        first, count = section.size // 3, section.size // 2 + 1
        name = f"[{name}]<{first}"
        yield f"BODY.PEEK{name}.{count}>", f"BODY{name}>".encode(), octets(section, first, count)


def compare(messages: Sequence[bytes]) -> None:
    if not messages:
        return
    with dovecot(messages) as server:
        for number, data in enumerate(messages, 1):
            root = parse(data)
            wanted = [each for path in ((), *paths(root)) for each in sections(data, root, path)]
            (found,) = server.fetch(" ".join(item for item, _, _ in wanted), number)
            for item, name, octets in wanted:
                expected = found[name] or b""
                if b"HEADER.FIELDS" in name and not octets.endswith(b"\r\n\r\n"):
                    # Dovecot makes up a blank line where a header has none, which RFC 3501 6.4.5
                    # does not want.
                    octets, expected = octets.rstrip(b"\r\n"), expected.rstrip(b"\r\n")
                assert octets == expected, (item, data)


@external(DOVECOT_IMAP)
@pytest.mark.skipif(not cpython_messages(), reason="needs CPython's tests")
def test_messages_of_cpython() -> None:
    messages = [data for data in cpython_messages().values() if not cut_off(parse(data))]
    assert len(messages) > 35
    compare(messages)
    compare([data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for data in messages])


MESSAGES = st.builds(bytes.__add__, st.sampled_from(MIME), line_soups | trees).map(uniform)


@external(DOVECOT_IMAP)
@given(st.lists(MESSAGES, min_size=1, max_size=20))
@settings(max_examples=15)
def test_messages_at_random(messages: list[bytes]) -> None:
    compare([data for data in messages if not doubtful(parse(data))])


@external(DOVECOT_IMAP)
def test_part_of_a_text_is_only_found_by_dovecot() -> None:
    """RFC 3501 6.4.5: parts of parts are those of multiparts and of messages."""
    data = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b--\n"
    with dovecot([data]) as server:
        assert server.fetch("BODY.PEEK[1.1]") == [{b"BODY[1.1]": b"text"}]
    assert section_of(parse(data), (1, 1), Content.WHOLE) is None


@external(DOVECOT_IMAP)
def test_line_break_between_a_header_and_a_delimiter() -> None:
    """RFC 2046 5.1.1: it is the delimiter's, as elsewhere. Dovecot differs in messages only."""
    inner = b"Content-Type: message/rfc822\n\nSubject: x"
    data = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + inner + b"\n--b--\n"
    assert cut_off(parse(data))
    with dovecot([data]) as server:
        (found,) = server.fetch("BODY.PEEK[1] BODY.PEEK[1.HEADER]")
    assert found[b"BODY[1]"] == b"Subject: x\r\n"
    section = section_of(parse(data), (1,), Content.WHOLE)
    assert section is not None
    assert section.size == len("Subject: x")
