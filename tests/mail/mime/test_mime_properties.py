"""What holds for the structure of every message: parts in order, within each other, nothing lost.

Rules of this file: messages at random; nothing is said here about single messages.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from support.mime_messages import cpython_messages, has_lf, line_soups, served, trees

from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.structure import Part


def pieces(data: bytes, part: Part) -> list[bytes]:
    """Return headers, bodies of leaves, and what is between parts, in the order of the message."""
    found = [data[part.header : part.body]]
    position = part.body
    for child in part.children:
        found += [data[position : child.header], *pieces(data, child)]
        position = child.end
    return [*found, data[position : part.end]]


def check(data: bytes, part: Part) -> None:
    """Check a part of a message, and those in it."""
    assert 0 <= part.header <= part.body <= part.end <= len(data)
    header, body = data[part.header : part.body], data[part.body : part.end]
    assert (part.header_lines, part.lines) == (header.count(b"\n"), body.count(b"\n"))
    lf = has_lf(data)
    assert [part.header_size, part.size] == [len(served(text, lf)) for text in (header, body)]
    # A header ends with its first blank line, or has none.
    assert not re.search(rb"(\A|\n)\r?\n(?!\Z)", header)
    if part.is_message:
        assert [(child.header, child.end) for child in part.children] == [(part.body, part.end)]
    boundary = part.parameter(b"boundary")
    before = part.body
    for child in part.children:
        assert part.is_multipart or part.is_message
        assert before <= child.header
        assert child.end <= part.end
        if part.is_multipart:
            assert boundary is not None
            assert re.search(
                rb"(\A|\n)--" + re.escape(boundary) + rb"[^\n]*(\n|\Z)\Z",
                data[before - 1 : child.header],
            )
        check(data, child)
        before = child.end


@given(line_soups | trees)
@settings(max_examples=500)
def test_pieces_are_the_whole_message(data: bytes) -> None:
    part = parse(data)
    assert b"".join(pieces(data, part)) == data
    assert (part.header, part.end) == (0, len(data))


@given(line_soups | trees)
@settings(max_examples=500)
def test_parts_lie_within_their_parents(data: bytes) -> None:
    check(data, parse(data))


@given(line_soups | trees)
def test_header_alone_has_the_envelope(data: bytes) -> None:
    part = parse(data)
    alone = parse(data[: part.body])
    assert alone.envelope == part.envelope
    assert (alone.type, alone.parameters) == (part.type, part.parameters)
    assert (alone.header, alone.body) == (part.header, part.body)


@given(trees)
def test_lf_and_crlf_have_the_same_sizes(data: bytes) -> None:
    def sizes(part: Part) -> object:
        return part.header_size, part.size, part.lines, part.type, list(map(sizes, part.children))

    assert sizes(parse(data)) == sizes(parse(data.replace(b"\r\n", b"\n")))


@pytest.mark.skipif(not cpython_messages(), reason="needs CPython's tests")
def test_messages_of_cpython() -> None:
    assert len(cpython_messages()) > 30
    for data in cpython_messages().values():
        check(data, parse(data))
        crlf = re.sub(rb"\r?\n", b"\r\n", data)
        check(crlf, parse(crlf))
