"""Framing in the SMTP engine: where lines and messages end, smuggling, limits, segmentation."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_driver import EngineDriver
from support.smtp_harness import ENVELOPE, HELLO, MAIL, RCPT, codes, cut

from fastlisten.handlers.smtp.engine.input_buffer import LINE_LIMIT, PATH_LINE_LIMIT

START = ENVELOPE + b"DATA\r\n"
SMUGGLED = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nevil\r\n"

#: Sequences other than CRLF.CRLF that some server has been known to take, or might take, for the
#: end of a message.
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
@pytest.mark.parametrize("where", ["first line", "later"])
def test_only_crlf_dot_crlf_ends_a_message(end: bytes, size: int, where: str) -> None:
    driver = EngineDriver()
    # The CRLF of the DATA command is that before the first line.
    begin = end.removeprefix(b"\r\n") if where == "first line" else b"Subject: x\r\n\r\nbody" + end
    data = begin + SMUGGLED
    driver.feed(*cut(START + data + b"\r\n.\r\n", size))
    senders = [event[1] for event in driver.events if event[0] == "mail"]
    assert senders == ["sender@example.com"]
    assert len(driver.messages) <= 1
    bare = data.replace(b"\r\n", b"")
    if b"\r" in bare or b"\n" in bare:
        assert codes(driver.replies) == [250, 250, 250, 354, 550]
        assert driver.messages == []
        assert driver.events[-1] == ("reset",)
    else:
        assert codes(driver.replies) == [250, 250, 250, 354, 250]
        lines = (b"\r\n" + data + b"\r\n").replace(b"\r\n.", b"\r\n")
        assert driver.messages == [lines[2:]]


def test_bare_cr_does_not_hide_the_end_of_data() -> None:
    driver = EngineDriver()
    driver.feed(START + b"x\r\r\n.\r\n\rNOOP\r\nNOOP\r\n")
    # The message (a bare CR) is refused at its end; then a line with a bare CR; then a command.
    assert codes(driver.replies) == [250, 250, 250, 354, 550, 500, 250]


@pytest.mark.parametrize("bad", [b"\n", b"\r", b"\0"])
@pytest.mark.parametrize("size", [1, 3, 100_000])
def test_command_line_with_stray_octet_is_refused(bad: bytes, size: int) -> None:
    driver = EngineDriver()
    driver.feed(*cut(HELLO + b"NOOP" + bad + MAIL + b"RSET\r\n", size))
    assert codes(driver.replies) == [250, 500, 250]
    assert driver.events == []


def test_bare_lf_is_answered_before_the_line_ends() -> None:
    driver = EngineDriver()
    assert codes(driver.feed(b"EHLO x\n")) == [500]
    assert driver.feed(b"QUIT\n") == b""
    assert codes(driver.feed(b"\r\nNOOP\r\n")) == [250]


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
def test_dot_unstuffing(content: bytes, message: bytes, size: int) -> None:
    driver = EngineDriver()
    driver.feed(*cut(START + content + b".\r\nNOOP\r\n", size))
    assert driver.messages == [message]
    assert codes(driver.replies) == [250, 250, 250, 354, 250, 250]


@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
@pytest.mark.parametrize(("octets", "code"), [(70_000, 250), (70_001, 552), (200_000, 552)])
def test_message_too_large(octets: int, code: int, size: int) -> None:
    driver = EngineDriver(max_message_size=70_000)
    # Stuffed dots and the end are not counted, CRLFs are.
    message = b"..\r\n" * 100 + b"x" * (octets - 302) + b"\r\n"
    driver.feed(*cut(START + message + b".\r\nNOOP\r\n", size))
    assert codes(driver.replies) == [250, 250, 250, 354, code, 250]
    assert len(driver.messages) == (code == 250)
    assert driver.engine.transaction is None


def test_oversized_message_is_not_buffered() -> None:
    driver = EngineDriver(max_message_size=70_000)
    driver.feed(START)
    for _ in range(1000):
        driver.feed(b"x" * 10_000)
        assert driver.engine.buffered == 0
    assert driver.events[-1] == ("reset",)
    assert codes(driver.feed(b"\r\n.\r\n")) == [552]


@pytest.mark.parametrize(
    ("start", "limit"),
    [(b"NOOP ", LINE_LIMIT), (b"MAIL ", PATH_LINE_LIMIT), (b"rcpt ", PATH_LINE_LIMIT)],
)
@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_line_length_limit(start: bytes, limit: int, size: int) -> None:
    longest = start + b"x" * (limit - len(start) - 2) + b"\r\n"
    whole = EngineDriver()
    whole.feed(*cut(longest, size))
    assert b"too long" not in whole.replies
    assert len(codes(whole.replies)) == 1
    over = EngineDriver()
    over.feed(*cut(longest[:-2] + b"x\r\nQUIT\r\n", size))
    assert over.replies.startswith(b"500 5.5.2 Line too long\r\n221 ")


def test_endless_line_gets_one_reply_and_is_discarded() -> None:
    driver = EngineDriver()
    for _ in range(1000):
        driver.feed(b"x" * 1000)
        assert driver.engine.buffered <= LINE_LIMIT
    assert codes(driver.replies) == [500]


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
def test_result_is_independent_of_segmentation(stream: bytes, cuts: list[int]) -> None:
    whole, bytewise, pieces = EngineDriver(**LIMITS), EngineDriver(**LIMITS), EngineDriver(**LIMITS)
    whole.feed(stream)
    bytewise.feed(*cut(stream, 1))
    edges = sorted({0, len(stream), *(edge for edge in cuts if edge < len(stream))})
    pieces.feed(*(stream[a:b] for a, b in itertools.pairwise(edges)))
    assert bytewise.events == whole.events == pieces.events
    assert bytewise.replies == whole.replies == pieces.replies


@settings(max_examples=400, deadline=None)
@given(stream=DIALOGUES)
def test_any_input_keeps_buffers_and_codes_in_bounds(stream: bytes) -> None:
    driver = EngineDriver(**LIMITS)
    for chunk in cut(stream, 50):
        driver.feed(chunk)
        assert driver.engine.buffered <= PATH_LINE_LIMIT
        assert len(driver.engine.replies()) == 0
    for code in codes(driver.replies):
        assert 200 <= code <= 559
    if driver.engine.closed:
        assert driver.events[-1] == ("goodbye",)
        assert driver.engine.buffered == 0


def reference(stream: bytes) -> tuple[bytes, bool, int]:
    """Parse a message the slow and obvious way.

    Returns:
        The unstuffed message, whether it is valid, and how many octets it took.
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
def test_messages_match_reference_parser(content: bytes, size: int) -> None:
    stream = content + b"\r\n.\r\n"
    message, sound, used = reference(stream)
    driver = EngineDriver()
    driver.feed(START, *cut(stream[:used], size))
    assert codes(driver.replies) == [250, 250, 250, 354, 250 if sound else 550]
    assert driver.messages == ([message] if sound else [])
    assert driver.engine.buffered == 0
