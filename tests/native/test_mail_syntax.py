"""What is found in the octets of mail, compared with the same in a few lines of Python.

Rules of this file: each function of `_mail_syntax` by itself, with octets that are made of what it
looks for, at all positions and lengths around the 16 and 32 octets that are looked at together.
That messages are cut rightly, whatever the client sends, is tested in tests/smtp/engine.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlisten import _mail_syntax as syntax
from fastlisten.handlers.smtp.engine.command_syntax import CLIENT_NAME
from fastlisten.mail.address import mailbox_pattern, parse_mailbox

END = b"\r\n.\r\n"
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")

#: Text of the parts that matter, short and long ones between them.
TEXT = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"\r\n.", b"x", b"x" * 13, b"x" * 31, END])
).map(b"".join)


def end_of(data: bytes) -> tuple[int, bool, bool, bool]:
    """Return what `find_end` should say of a piece."""
    end = data.find(END)
    if end >= 0:
        stop = end + 2
    else:
        held = next(n for n in (4, 3, 2, 1, 0) if data.endswith(END[:n]) or not n)
        stop = len(data) - held
    piece = data[:stop]
    dots = piece.find(b"\r\n.") >= 0
    return stop, end >= 0, dots, BARE.search(piece) is not None


# --- messages -------------------------------------------------------------------------------------


def agrees(data: bytes, start: int = 0) -> None:
    """Assert that `find_end` says what it should; what is said of dots counts in good text only."""
    stop, ended, dots, bare = syntax.find_end(data, start)
    expected = end_of(data[start:])
    assert (stop - start, ended, bare) == (expected[0], expected[1], expected[3])
    if not bare:
        assert dots is expected[2]


@given(TEXT)
def test_end_of_message(data: bytes) -> None:
    agrees(data)


@given(TEXT, st.integers(0, 40))
def test_what_stands_before_the_start_does_not_count(data: bytes, start: int) -> None:
    agrees(b"\r\n.\r" * 10 + data, start)


@pytest.mark.parametrize("odd", [b"", END, b"\r\n.", b"\r\n..", b"\r", b"\n", b"\r\r\n", b"\n\r"])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 18, 40])
def test_odd_octets_at_every_position(odd: bytes, after: int) -> None:
    for before in range(70):
        agrees(b"x" * before + odd + b"y" * after)
        agrees(b"x" * before + b"\r\n" + odd + b"y" * after)
        agrees(b"\r\n" * before + odd + b"\r\n" * after)
        # As the octets in front of the start, in memory that is not aligned.
        agrees(b"\r" * 7 + b"x" * before + odd + b"y" * after, 7)


@given(TEXT, st.booleans())
def test_bare_breaks(data: bytes, last: bool) -> None:
    assert syntax.has_bare_break(data, 0) is (BARE.search(data.removesuffix(b"\r")) is not None)
    assert syntax.has_bare_break(b"\r\n" + data, 2) is syntax.has_bare_break(data, 0)


def test_bare_breaks_at_every_position() -> None:
    for before in range(70):
        for odd in (b"\r", b"\n"):
            assert syntax.has_bare_break(b"x" * before + odd + b"y", 0)
            assert syntax.has_bare_break(b"\r\n" * before + odd + b"y" * 40, 0)
        assert syntax.has_bare_break(b"x" * before + b"\n", 0)
        assert not syntax.has_bare_break(b"x" * before + b"\r", 0)
        assert not syntax.has_bare_break(b"x" * before + b"\r\n.\r\n" + b"y" * 40, 0)


# --- lines ----------------------------------------------------------------------------------------


def line_end_of(data: bytes, start: int, most: int) -> int:
    """Return what `line_end` should say."""
    line = re.compile(rb"[^\r\n\0]*\r\n").match(data, start, min(len(data), start + most))
    return -1 if line is None else line.end() - 2


@given(
    st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", b"x", b"NOOP"])).map(b"".join),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_line_end(data: bytes, start: int, most: int) -> None:
    start = min(start, len(data))
    assert syntax.line_end(data, start, most) == line_end_of(data, start, most)


@given(st.lists(st.sampled_from([b" ", b"\t", b"noop", b"X-", b"\xe4{"])).map(b"".join))
def test_split_command(line: bytes) -> None:
    verb, _, argument = line.rstrip(b" \t").partition(b" ")
    assert syntax.split_command(line) == (verb.upper(), argument.lstrip(b" "))


def test_every_octet_in_upper_case() -> None:
    line = bytes(octet for octet in range(256) if octet not in b" \t")
    assert syntax.split_command(line) == (line.upper(), b"")


def test_verb_of_one_octet_changes_no_shared_object() -> None:
    for octet in range(256):
        syntax.split_command(b"%c" % octet)
    assert all((b" %c" % octet)[1:][0] == octet for octet in range(256))


# --- names and paths ------------------------------------------------------------------------------


def test_plain_names() -> None:
    for octet in range(256):
        name = b"x%cy" % octet
        plain = octet not in b"[]" and CLIENT_NAME.match(name) is not None
        assert syntax.is_plain_name(name) is plain
        assert syntax.is_plain_name(name[1:2]) is plain
    assert not syntax.is_plain_name(b"")


MAILBOX = re.compile(mailbox_pattern)


def plain_address(path: bytes) -> str | None:
    """Return the address of a path that `plain_path` takes for a plain one, None if it does not."""
    begin, at, end = syntax.plain_path(path, b"TO:")
    if begin < 0:
        assert (begin, at, end) == (-1, -1, -1)
        return None
    assert path[begin - 1 : begin] + path[at : at + 1] + path[end : end + 1] == b"<@>"
    return path[begin:end].decode("ascii")


PARTS = st.lists(
    st.sampled_from(
        [
            *("a", "Z9", ".", "-", "--", "@", ">", "<", " ", '"', "\\", "[192.0.2.1]", "xn--a"),
            *("+", "_", "é", ":", ",", "@a,@b:", "label" * 13, "l" * 63, "d." * 90, "\0", "\r"),
        ]
    )
).map("".join)


@given(PARTS, PARTS)
def test_plain_address_is_what_the_grammar_takes(local: str, domain: str) -> None:
    text = f"{local}@{domain}"
    address = plain_address(f"TO:<{text}> NOTIFY=NEVER".encode())
    if address is not None:
        mailbox = parse_mailbox(address)
        name, _, host = address.partition("@")
        assert (mailbox.text, mailbox.local, mailbox.domain) == (address, name, host.lower())
        assert text == address or text.startswith(f"{address}>")


@pytest.mark.parametrize(
    "address",
    [
        "alice@example.org",
        "a@b",
        "first.last+tag@mail-1.example.org",
        "!#$%&'*+/=?^_`{|}~-@1.2",
        "MixedCase@EXAMPLE.org",
        "x" * 190 + "@" + "y" * 63,
        "a@" + "b." * 120 + "c",
    ],
)
def test_plain_addresses(address: str) -> None:
    assert plain_address(b"TO:<%b>" % address.encode()) == address
    assert plain_address(b"to:  <%b> SIZE=1" % address.encode()) == address


@pytest.mark.parametrize(
    "path",
    [
        "TO:alice@example.org",
        "TO <alice@example.org>",
        "FROM:<alice@example.org>",
        "TO:<alice@example.org",
        "TO:<alice>",
        "TO:<>",
        "TO:<@example.org>",
        "TO:<alice@>",
        "TO:<.a@example.org>",
        "TO:<a.@example.org>",
        "TO:<a..b@example.org>",
        'TO:<"a"@example.org>',
        "TO:<a b@example.org>",
        "TO:<a@-b>",
        "TO:<a@b->",
        "TO:<a@b-.c>",
        "TO:<a@.b>",
        "TO:<a@b.>",
        "TO:<a@b..c>",
        "TO:<a@b_c>",
        "TO:<a@xn--b>",
        "TO:<a@[192.0.2.1]>",
        "TO:<@b:a@c>",
        "TO:<a@b@c>",
        "TO:<\u00e9@b>",
        "TO:<a@\u00e9>",
        "TO:<a@" + "b" * 64 + ">",
        "TO:<" + "a" * 250 + "@bcde>",
        "TO:\t<a@b>",
        "T",
        "",
    ],
)
def test_paths_that_are_not_plain(path: str) -> None:
    assert plain_address(path.encode()) is None


# --- mistakes of the caller -----------------------------------------------------------------------


@pytest.mark.parametrize("start", [-1, 3, 2**62])
def test_start_outside_of_the_octets(start: int) -> None:
    with pytest.raises(IndexError):
        syntax.find_end(b"xy", start)
    with pytest.raises(IndexError):
        syntax.has_bare_break(b"xy", start)
    with pytest.raises(IndexError):
        syntax.line_end(b"xy", start, 10)


@pytest.mark.parametrize("nothing", [None, bytearray(b"xy"), "xy"])
def test_what_is_not_bytes(nothing: bytes) -> None:
    for call in (
        lambda: syntax.find_end(nothing, 0),
        lambda: syntax.has_bare_break(nothing, 0),
        lambda: syntax.line_end(nothing, 0, 10),
        lambda: syntax.split_command(nothing),
        lambda: syntax.is_plain_name(nothing),
        lambda: syntax.plain_path(nothing, b"TO:"),
        lambda: syntax.plain_path(b"TO:<a@b>", nothing),
    ):
        with pytest.raises(TypeError):
            call()
