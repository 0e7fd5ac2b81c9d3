"""The parser of messages: boundaries, headers, offsets and sizes, what is broken.

Rules of this file: each message is written out, and so is what must be found in it. Bounds are in
test_mime_bounds.py, the values of fields in test_mime_content_fields.py.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
from support.mime_messages import multipart

from fastlisten.mail.mime import parser
from fastlisten.mail.mime.parser import parse
from fastlisten.mail.mime.structure import Part


def shape(part: Part) -> object:
    """Return the types of a part and of all in it, as nested lists."""
    name = f"{part.type.decode()}/{part.subtype.decode()}"
    return [name, *map(shape, part.children)] if part.children else name


def bodies(data: bytes, part: Part) -> list[bytes]:
    """Return the bodies of all leaves."""
    if not part.children:
        return [data[part.body : part.end]]
    return [body for child in part.children for body in bodies(data, child)]


def test_single_part() -> None:
    part = parse(b"Subject: x\r\n\r\none\r\ntwo\r\n")
    assert (part.header, part.body, part.end) == (0, 14, 24)
    assert (part.header_size, part.header_lines, part.size, part.lines) == (14, 2, 10, 2)
    assert (part.type, part.subtype, part.encoding) == (b"text", b"plain", b"7bit")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_sizes_count_every_line_end_as_crlf(end: bytes) -> None:
    data = end.join((b"Subject: x", b"", b"one", b"two", b"three"))
    part = parse(data)
    assert (part.header_size, part.size, part.lines) == (14, 15, 2)
    assert (part.header_bare, part.bare) == ((2, 2) if end == b"\n" else (0, 0))


def test_sizes_of_mixed_line_ends() -> None:
    """The first line end counts for all, as in the store."""
    part = parse(b"Subject: x\nTo: y\r\n\none\r\ntwo\nthree\n\r")
    assert (part.header_size, part.header_bare) == (12 + 7 + 2, 2)
    assert (part.size, part.bare, part.lines) == (5 + 5 + 7 + 1, 2, 3)
    part = parse(b"Subject: x\r\nTo: y\n\none\r\ntwo\nthree\n\r")
    assert (part.header_size, part.header_bare) == (12 + 6 + 1, 0)
    assert (part.size, part.bare, part.lines) == (5 + 4 + 6 + 1, 0, 3)
    assert parse(b"\n\n").header_bare == 1


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_parts_lie_between_their_delimiters(end: bytes) -> None:
    first = end.join((b"Content-Type: text/html", b"", b"<p>one", b""))
    data = b"MIME-Version: 1.0" + end + multipart(b"b", first, end + b"two", end=end)
    part = parse(data.replace(b"--b", b"preamble" + end + b"--b", 1) + b"epilogue")
    assert shape(part) == ["multipart/mixed", "text/html", "text/plain"]
    assert part.end == len(data) + len(b"preamble" + end + b"epilogue")
    data = data.replace(b"--b", b"preamble" + end + b"--b", 1)
    assert bodies(data, part) == [b"<p>one" + end, b"two"]
    assert [child.lines for child in part.children] == [1, 0]


def test_line_break_before_a_delimiter_is_the_delimiters() -> None:
    data = multipart(b"b", b"\r\none", b"\r\ntwo\r\n", b"\r\n", b"\r\n\r\n")
    assert bodies(data, parse(data)) == [b"one", b"two\r\n", b"", b"\r\n"]


def test_delimiter_right_after_a_header() -> None:
    """RFC 2046 5.1.1: the line break before it is the delimiter's there too."""
    for end in (b"\n", b"\r\n"):
        data = multipart(b"b", b"X: 1", b"X: 2" + end, b"X: 3" + 2 * end, b"", end, end=end)
        parts = parse(data).children
        headers = [data[part.header : part.body] for part in parts]
        assert headers == [b"X: 1", b"X: 2" + end, b"X: 3" + 2 * end, b"", end]
        assert bodies(data, parse(data)) == [b""] * 5
        data = data.replace(b"X: 1", b"Content-Type: message/rfc822" + 2 * end + b"X: 1")
        part = parse(data).children[0]
        assert part.end == part.children[0].end == part.children[0].body
        assert part.size == len("X: 1")


def test_delimiter_right_after_a_delimiter() -> None:
    data = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n--b\n--b--"
    assert bodies(data, parse(data)) == [b"", b""]
    data = multipart(b"out", b"Content-Type: multipart/mixed; boundary=in\r\n\r\n--in")
    part = parse(data).children[0]
    assert data[part.body : part.end] == b"--in"
    assert part.children[0].header == part.children[0].end == part.end


def test_message_without_body_or_header() -> None:
    for data in (b"", b"\n", b"\r\n", b"Subject: x", b"Subject: x\r\n", b"\nbody"):
        part = parse(data)
        assert part.end == len(data)
        assert shape(part) == "text/plain"
    assert parse(b"\r\nbody").body == 2
    assert parse(b"\nbody").body == 1


def test_line_without_a_colon_does_not_end_the_header() -> None:
    part = parse(b"From a@b Mon Nov 30\nnonsense\nContent-Type: text/html\n\nbody")
    assert shape(part) == "text/html"


def test_header_that_the_message_ends() -> None:
    assert shape(parse(b"Subject: x\nContent-Type: text/html")) == "text/html"


def test_message_in_a_message() -> None:
    data = b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ntext\r\n"
    part = parse(data)
    (inner,) = part.children
    assert part.is_message
    assert not inner.is_message
    assert (inner.header, inner.end) == (part.body, part.end)
    assert data[inner.body :] == b"text\r\n"
    assert inner.envelope is not None
    assert inner.envelope.subject == b"inner"
    assert part.lines == 3


def test_encoded_message_in_a_message_is_not_decoded() -> None:
    """RFC 2046 5.2.1 forbids the encoding; sizes and sections are those of the encoded text."""
    data = b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeA==\n"
    part = parse(data)
    assert shape(part) == ["message/rfc822", "text/plain"]
    assert part.encoding == b"base64"
    assert part.children[0].envelope is not None
    assert part.children[0].envelope.subject is None


def test_internationalized_message_in_a_message_is_a_leaf() -> None:
    """RFC 3501 9 has an envelope for message/rfc822 only."""
    assert shape(parse(b"Content-Type: message/global\n\nSubject: x\n\n")) == "message/global"


def test_default_type_in_a_digest_is_a_message() -> None:
    html, empty = b"Content-Type: text/html\r\n\r\n", b"Content-Type:\r\n\r\n"
    part = parse(multipart(b"b", b"\r\nSubject: x\r\n\r\n", html, empty, kind=b"digest"))
    assert shape(part) == [
        "multipart/digest",
        ["message/rfc822", "text/plain"],
        "text/html",
        "text/plain",
    ]


def test_only_the_parts_of_a_digest_itself_default_to_messages() -> None:
    inner = multipart(b"c", b"\r\ntext")
    part = parse(multipart(b"b", inner, kind=b"digest"))
    assert shape(part) == ["multipart/digest", ["multipart/mixed", "text/plain"]]


def test_delimiter_may_go_on_after_the_boundary() -> None:
    """RFC 2046 5.1.1: it suffices that the line begins with the boundary."""
    data = b"Content-Type: multipart/mixed; boundary=b\n\n--b  \n\none\n--bcd\n\ntwo\n--b--xyz\n"
    assert bodies(data, parse(data)) == [b"one", b"two"]


def test_delimiter_begins_a_line() -> None:
    data = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n --b\nx--b\n\r--b\n--b--"
    assert bodies(data, parse(data)) == [b" --b\nx--b\n\r--b"]


def test_outer_delimiter_ends_an_unclosed_multipart() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=in\r\n\r\n--in\r\n\r\none"
    data = multipart(b"out", inner, b"\r\ntwo")
    part = parse(data)
    assert shape(part) == ["multipart/mixed", ["multipart/mixed", "text/plain"], "text/plain"]
    assert bodies(data, part) == [b"one", b"two"]


def test_longest_boundary_counts() -> None:
    for outer, inner in ((b"x", b"xy"), (b"xy", b"x"), (b"x", b"x--")):
        data = multipart(outer, multipart(inner, b"\r\none", b"\r\ntwo"), b"\r\nthree")
        part = parse(data)
        assert shape(part) == [
            "multipart/mixed",
            ["multipart/mixed", "text/plain", "text/plain"],
            "text/plain",
        ], (outer, inner)
        assert bodies(data, part) == [b"one", b"two", b"three"]


def test_longer_boundary_further_out_ends_an_unclosed_multipart() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\none"
    data = multipart(b"xy", inner, b"\r\ntwo")
    part = parse(data)
    assert shape(part) == ["multipart/mixed", ["multipart/mixed", "text/plain"], "text/plain"]
    assert bodies(data, part) == [b"one", b"two"]


def test_same_boundary_within_itself_belongs_to_the_inner_part_first() -> None:
    data = multipart(b"b", multipart(b"b", b"\r\none"), b"\r\ntwo")
    part = parse(data)
    assert shape(part) == ["multipart/mixed", ["multipart/mixed", "text/plain"], "text/plain"]
    assert bodies(data, part) == [b"one", b"two"]
    inner = part.children[0]
    assert data[inner.header : inner.body].endswith(b"\r\n\r\n")


def test_closed_boundary_is_no_delimiter_in_the_epilogue() -> None:
    data = multipart(b"b", b"\r\none") + b"--b\r\n\r\nnot a part\r\n"
    assert bodies(data, parse(data)) == [b"one"]


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Type: multipart/mixed\n\n--b\n\none\n--b--\n",
        b"Content-Type: multipart/mixed; boundary=b\n\nno delimiter\n",
        b"Content-Type: multipart/mixed; boundary=b\n\n--b--\n",
        b"Content-Type: multipart/mixed; boundary=b\n\n",
        b"Content-Type: multipart/mixed; boundary=b",
        b"Content-Type: multipart/mixed; boundary=b\r\r--b\r\rone\r--b--\r",
    ],
    ids=["no boundary", "no delimiter", "only the last", "no body", "only a header", "bare CR"],
)
def test_multipart_without_parts(data: bytes) -> None:
    part = parse(data)
    assert shape(part) == "multipart/mixed"
    assert part.end == len(data)


def test_delimiter_at_the_end_begins_an_empty_part() -> None:
    for end in (b"", b"\n"):
        data = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b" + end
        assert bodies(data, parse(data)) == [b"one", b""]


def test_mapped_file_is_parsed_as_octets_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parser, "_PIECE", 7)  # cuts CRLFs everywhere
    inner = multipart(b"in", b"Content-Type: text/html\r\n\r\n" + b"line\r\nbare\n\r\n" * 9)
    data = b"Subject: x\r\n" + multipart(b"out", inner, b"\r\n\r\r\n\n" * 5)
    path = tmp_path / "message"
    path.write_bytes(data)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert parse(mapped) == parse(data)
