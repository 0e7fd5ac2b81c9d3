"""Where lines and messages end: smuggling, limits, and the same result for every cutting."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_driver import Driven
from support.smtp_harness import ENVELOPE, HELLO, MAIL, RCPT, codes, cut

from fastlisten.handlers.smtp.engine.input_buffer import LINE_LIMIT, PATH_LINE_LIMIT

START = ENVELOPE + b"DATA\r\n"
SMUGGLED = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nevil\r\n"

#: Everything but CRLF.CRLF that some server has been known to take, or might take, for the end of
#: a message.
WRONG_ENDS = [
    b"\n.\n",
    b"\r.\r",
    b"\r\n.\n",
    b"\n.\r\n",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\r\n.\r\r\n",
    b"\n\r.\r\n",
    b"\r.\n",
    b"\n.\r",
    b"\r\n\r.\r\n",
    b"\r\n\n.\r\n",
    b"\n\n.\n\n",
    b"\r\n.\0\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\r\0\n",
    b"\r\0\n.\r\n",
    b"\r\n .\r\n",
    b"\r\n. \r\n",
    b"\r\n.\t\r\n",
    b"\r\n..\r\n",
    b"\r\n\xef\xbb\xbf.\r\n",
    b"\x85.\x85",
    b"\xe2\x80\xa8.\xe2\x80\xa8",
    b"\v.\v",
    b"\f.\f",
]


@pytest.mark.parametrize("end", WRONG_ENDS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_nothing_but_crlf_dot_crlf_ends_a_message(end: bytes, size: int) -> None:
    driven = Driven()
    data = b"Subject: x\r\n\r\nbody" + end + SMUGGLED
    driven.feed(*cut(START + data + b"\r\n.\r\n", size))
    senders = [event[1] for event in driven.events if event[0] == "mail"]
    assert senders == ["sender@example.com"]
    assert len(driven.messages) <= 1
    bare = data.replace(b"\r\n", b"")
    if b"\r" in bare or b"\n" in bare:
        assert codes(driven.replies) == [250, 250, 250, 354, 550]
        assert driven.messages == []
        assert driven.events[-1] == ("reset",)
    else:
        assert codes(driven.replies) == [250, 250, 250, 354, 250]
        assert driven.messages == [(data + b"\r\n").replace(b"\r\n.", b"\r\n")]


def test_what_precedes_the_true_end_does_not_hide_it() -> None:
    driven = Driven()
    driven.feed(START + b"x\r\r\n.\r\n\rNOOP\r\nNOOP\r\n")
    # The message (a bare CR) is refused at its end; then a line with a bare CR; then a command.
    assert codes(driven.replies) == [250, 250, 250, 354, 550, 500, 250]


@pytest.mark.parametrize("bad", [b"\n", b"\r", b"\0"])
@pytest.mark.parametrize("size", [1, 3, 100_000])
def test_a_command_line_with_a_stray_octet_is_refused_as_a_whole(bad: bytes, size: int) -> None:
    driven = Driven()
    driven.feed(*cut(HELLO + b"NOOP" + bad + MAIL + b"RSET\r\n", size))
    assert codes(driven.replies) == [250, 500, 250]
    assert driven.events == []


def test_a_bare_lf_is_answered_without_waiting_for_the_line() -> None:
    driven = Driven()
    assert codes(driven.feed(b"EHLO x\n")) == [500]
    assert driven.feed(b"QUIT\n") == b""
    assert codes(driven.feed(b"\r\nNOOP\r\n")) == [250]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", b""),
        (b"\r\n", b"\r\n"),
        (b"x\r\n", b"x\r\n"),
        (b"..\r\n", b".\r\n"),
        (b"...\r\n", b"..\r\n"),
        (b".x\r\n", b"x\r\n"),
        (b"\r\n..\r\n\r\n", b"\r\n.\r\n\r\n"),
        (b"a\r\n..b\r\n.c\r\nd.\r\n", b"a\r\n.b\r\nc\r\nd.\r\n"),
        (b"x" * 5000 + b"\r\n", b"x" * 5000 + b"\r\n"),
        (bytes(set(range(256)) - {10, 13}) + b"\r\n", bytes(set(range(256)) - {10, 13}) + b"\r\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100_000])
def test_dots_are_unstuffed(content: bytes, message: bytes, size: int) -> None:
    driven = Driven()
    driven.feed(*cut(START + content + b".\r\nNOOP\r\n", size))
    assert driven.messages == [message]
    assert codes(driven.replies) == [250, 250, 250, 354, 250, 250]


@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
@pytest.mark.parametrize(("octets", "code"), [(70_000, 250), (70_001, 552), (200_000, 552)])
def test_a_message_that_is_too_large(octets: int, code: int, size: int) -> None:
    driven = Driven(max_message_size=70_000)
    # Stuffed dots and the end are not counted, CRLFs are.
    message = b"..\r\n" * 100 + b"x" * (octets - 302) + b"\r\n"
    driven.feed(*cut(START + message + b".\r\nNOOP\r\n", size))
    assert codes(driven.replies) == [250, 250, 250, 354, code, 250]
    assert len(driven.messages) == (code == 250)
    assert driven.engine.transaction is None


def test_the_excess_is_not_kept() -> None:
    driven = Driven(max_message_size=70_000)
    driven.feed(START)
    for _ in range(1000):
        driven.feed(b"x" * 10_000)
        assert driven.engine.buffered == 0
    assert driven.events[-1] == ("reset",)
    assert codes(driven.feed(b"\r\n.\r\n")) == [552]


@pytest.mark.parametrize(
    ("start", "limit"),
    [(b"NOOP ", LINE_LIMIT), (b"MAIL ", PATH_LINE_LIMIT), (b"rcpt ", PATH_LINE_LIMIT)],
)
@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_the_length_of_a_line(start: bytes, limit: int, size: int) -> None:
    longest = start + b"x" * (limit - len(start) - 2) + b"\r\n"
    whole = Driven()
    whole.feed(*cut(longest, size))
    assert b"too long" not in whole.replies
    assert len(codes(whole.replies)) == 1
    over = Driven()
    over.feed(*cut(longest[:-2] + b"x\r\nQUIT\r\n", size))
    assert over.replies.startswith(b"500 5.5.2 Line too long\r\n221 ")


def test_an_endless_line_is_answered_once_and_not_kept() -> None:
    driven = Driven()
    for _ in range(1000):
        driven.feed(b"x" * 1000)
        assert driven.engine.buffered <= LINE_LIMIT
    assert codes(driven.replies) == [500]


# --- properties -----------------------------------------------------------------------------------

SNIPPETS = st.sampled_from(
    [
        HELLO,
        b"HELO x\r\n",
        MAIL,
        b"MAIL FROM:<> SIZE=10 BODY=8BITMIME\r\n",
        b"MAIL FROM:<a@b> SIZE=999999999\r\n",
        RCPT,
        b"RCPT TO:<nobody@x>\r\n",
        b"RCPT TO:<postmaster>\r\n",
        b"DATA\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"HELP\r\n",
        b"VRFY x\r\n",
        b"QUIT\r\n",
        b"GET / HTTP/1.0\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"Subject: x\r\n\r\ntext\r\n",
        b"..stuffed\r\n",
        b"x" * 600,
        b"MAIL FROM:<" + b"x" * 2100,
        START + b"text\r\n.\r\n",
        *WRONG_ENDS,
        b"\r",
        b"\n",
        b"\r\n",
        b".",
        b"\0",
        b"\xff",
    ]
)
STREAMS = st.lists(SNIPPETS | st.binary(max_size=12), max_size=25).map(b"".join)
DIALOGUES = STREAMS | STREAMS.map(lambda stream: START + stream)
LIMITS: dict[str, Any] = {"max_message_size": 300, "max_errors": 8, "max_recipients": 3}


@settings(max_examples=400, deadline=None)
@given(stream=DIALOGUES, cuts=st.lists(st.integers(0, 2000), max_size=12))
def test_every_cutting_gives_the_same(stream: bytes, cuts: list[int]) -> None:
    whole, bytewise, pieces = Driven(**LIMITS), Driven(**LIMITS), Driven(**LIMITS)
    whole.feed(stream)
    bytewise.feed(*cut(stream, 1))
    edges = sorted({0, len(stream), *(edge for edge in cuts if edge < len(stream))})
    pieces.feed(*(stream[a:b] for a, b in itertools.pairwise(edges)))
    assert bytewise.events == whole.events == pieces.events
    assert bytewise.replies == whole.replies == pieces.replies


@settings(max_examples=400, deadline=None)
@given(stream=DIALOGUES)
def test_any_input_is_answered_in_bounds(stream: bytes) -> None:
    driven = Driven(**LIMITS)
    for chunk in cut(stream, 50):
        driven.feed(chunk)
        assert driven.engine.buffered <= PATH_LINE_LIMIT
        assert len(driven.engine.replies()) == 0
    for code in codes(driven.replies):
        assert 200 <= code <= 559
    if driven.engine.closed:
        assert driven.events[-1] == ("goodbye",)
        assert driven.engine.buffered == 0


def reference(stream: bytes) -> tuple[bytes, bool, int]:
    """Read a message the slow and obvious way.

    Returns:
        The unstuffed message, whether it is sound, and the length of what it took.
    """
    stream = b"\r\n" + stream  # the DATA command's
    end = stream.index(b"\r\n.\r\n")
    content = stream[: end + 2]
    sound = re.search(rb"[\r\n]", content.replace(b"\r\n", b"")) is None
    return re.sub(rb"(?<=\r\n)\.", b"", content)[2:], sound, end + 3


@settings(max_examples=600, deadline=None)
@given(
    content=st.lists(
        st.sampled_from([b".", b"\r\n", b"x", b"..", b".\r\n", b"\r\n.", b"\0", b"\r", b"\n"]),
        max_size=20,
    ).map(b"".join),
    size=st.integers(1, 9),
)
def test_messages_agree_with_a_slow_reading(content: bytes, size: int) -> None:
    stream = content + b"\r\n.\r\n"
    message, sound, used = reference(stream)
    driven = Driven()
    driven.feed(START, *cut(stream[:used], size))
    assert codes(driven.replies) == [250, 250, 250, 354, 250 if sound else 550]
    assert driven.messages == ([message] if sound else [])
    assert driven.engine.buffered == 0
