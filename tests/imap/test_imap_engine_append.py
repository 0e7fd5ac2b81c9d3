"""APPEND: messages that stream through the engine (RFC 3501 6.3.11, RFC 3502, RFC 7888).

Rules of this file: what is asked, what is answered, and that nothing of a message is kept.
"""

from __future__ import annotations

import datetime as dt

import pytest
from support.imap_driver import ImapDriver

from fastlisten.handlers.imap.engine.commands import (
    AppendEnd,
    AppendMessage,
    AppendOctets,
    Goodbye,
    Noop,
    Refusal,
)
from fastlisten.handlers.imap.engine.engine import ImapEngine, Limits
from fastlisten.handlers.imap.engine.session_states import State

AFTER = State.AUTHENTICATED
BAD = b"BAD Error in IMAP command APPEND: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"saved-messages (\\Seen) {3}", AppendMessage("saved-messages", ("\\Seen",), None, 3, 0)),
        (b"inbox {3}", AppendMessage("INBOX", (), None, 3, 0)),
        (b'"a b" () {3}', AppendMessage("a b", (), None, 3, 0)),
        (
            b'x "17-Jul-1996 02:44:25 -0700" {3}',
            AppendMessage(
                "x",
                (),
                dt.datetime(
                    1996, 7, 17, 2, 44, 25, tzinfo=dt.timezone(-dt.timedelta(hours=7))
                ),
                3,
                0,
            ),
        ),
        (
            b'x (foo \\draft) " 1-jan-2024 23:59:60 +0545" {3}',
            AppendMessage(
                "x",
                ("foo", "\\Draft"),
                dt.datetime(
                    2024, 1, 1, 23, 59, 59, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45))
                ),
                3,
                0,
            ),
        ),
        (b"{1}\r\nx {3}", AppendMessage("x", (), None, 3, 0)),
        (b"{1+}\r\nx () {3}", AppendMessage("x", (), None, 3, 0)),
    ],
)  # fmt: skip
def test_what_precedes_a_message(text: bytes, message: AppendMessage) -> None:
    driver = ImapDriver(AFTER)
    driver.send(b"a APPEND " + text + b"\r\n")
    assert driver.events == [message]
    assert driver.output.endswith(b"+ OK\r\n")
    assert driver.send(b"abc\r\n") == b"a OK Done\r\n"
    assert driver.events[1:] == [AppendOctets(b"abc"), AppendEnd()]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (b"x {0}", b"NO Can't save a zero byte message"),
        (b"x ~{3}", b"NO [UNKNOWN-CTE] BINARY literals are not supported"),
        (b"x {1001}", b"NO [TOOBIG] Message is larger than 1000 octets"),
        (b"x {99999999999999999999}", b"NO [TOOBIG] Message is larger than 1000 octets"),
        (b"x{3}", BAD + b"Invalid arguments"),
        (b"x (\\Recent) {3}", BAD + b"Invalid system flag \\Recent"),
        (b'x "001-Jan-2024 00:00:00 +0000" {3}', BAD + b"Invalid internal date"),
        (b'x "01-Jan-2024 25:00:00 +0000" {3}', BAD + b"Invalid internal date"),
        (b'x "01-Jan-2024 00:00:00 +2400" {3}', BAD + b"Invalid internal date"),
        (b"x () () {3}", BAD + b"Invalid arguments"),
        (b"&x {3}", b"NO [CANNOT] Mailbox name is not valid mUTF-7"),
        (b"x NIL {3}", BAD + b"Invalid arguments"),
        (b"x y", BAD + b"Missing message literal"),
        (b'x "text"', BAD + b"Missing message literal"),
    ],
)  # fmt: skip
def test_what_is_refused_before_the_message_comes(text: bytes, answer: bytes) -> None:
    driver = ImapDriver(AFTER, Limits(max_message_size=1000))
    assert driver.send(b"a APPEND " + text + b"\r\nb NOOP\r\n") == b"a %b\r\nb OK Done\r\n" % answer
    # The same where the client does not wait.
    if text.endswith(b"3}"):
        driver = ImapDriver(AFTER)
        said = driver.send(b"a APPEND " + text[:-1] + b"+}\r\nabc\r\nb NOOP\r\n")
        assert said == b"a %b\r\nb OK Done\r\n" % answer


def test_message_streams() -> None:
    """A message that is larger than every bound of a command comes in the pieces that arrive."""
    engine = ImapEngine(Limits(), True, AFTER)
    engine.receive(b"a APPEND x {5000000}\r\n")
    engine.next_event()
    engine.accept()
    for _ in range(50):
        engine.receive(bytes(100_000))
        assert engine.next_event() == AppendOctets(bytes(100_000))
        assert engine.buffered == 0
    assert engine.next_event() is None
    engine.receive(b"\r\n")
    assert engine.next_event() == AppendEnd()


def test_several_messages() -> None:
    """RFC 3502."""
    driver = ImapDriver(AFTER)
    driver.send(
        b"A003 APPEND saved-messages (\\Seen) {3+}\r\none"
        b' (\\Draft) " 7-Feb-1994 21:52:25 -0800" {3}\r\ntwo {5+}\r\nthree\r\nb NOOP\r\n'
    )
    assert driver.output == b"+ OK\r\nA003 OK Done\r\nb OK Done\r\n"
    flags = [event.flags for event in driver.events if isinstance(event, AppendMessage)]
    assert flags == [("\\Seen",), ("\\Draft",), ()]
    assert [event.data for event in driver.events if isinstance(event, AppendOctets)] == [
        b"one",
        b"two",
        b"three",
    ]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (b"x", BAD + b"Invalid arguments"),
        (b" x", BAD + b"Invalid arguments"),
        (b" x {3}", BAD + b"Invalid arguments"),
        (b"{3+}\r\nabc", BAD + b"Invalid arguments"),
        (b" {0}", b"NO Can't save a zero byte message"),
        (b" {0+}\r\n", b"NO Can't save a zero byte message"),
        (b" {99999999}", b"NO [TOOBIG] Message is larger than 52428800 octets"),
        (b" " * 70_000, b"BAD [TOOBIG] Error in IMAP command APPEND: Command line too long"),
    ],
)  # fmt: skip
def test_refused_after_a_message(text: bytes, answer: bytes) -> None:
    """The user is told by a Refusal that the first message must not stay."""
    driver = ImapDriver(AFTER)
    said = driver.send(b"a APPEND x {3+}\r\nabc" + text + b"\r\nb NOOP\r\n")
    assert said == b"a %b\r\nb OK Done\r\n" % answer
    assert [type(event) for event in driver.events[2:]] == [Refusal, Noop]


def test_user_refuses_a_message() -> None:
    driver = ImapDriver(AFTER, failing=(AppendMessage,))
    assert driver.send(b"a APPEND x {3}\r\nb NOOP\r\n") == b"a NO Failed\r\nb OK Done\r\n"


def test_user_refuses_a_message_that_comes_anyway() -> None:
    driver = ImapDriver(AFTER, failing=(AppendMessage,))
    said = driver.send(b"a APPEND x {8+}\r\nb NOOP\r\n {3+}\r\nabc\r\nc NOOP\r\n")
    assert said == b"a NO Failed\r\nc OK Done\r\n"
    assert [type(event) for event in driver.events] == [AppendMessage, Noop]


def test_message_that_is_too_large_is_dropped_if_it_comes_anyway() -> None:
    driver = ImapDriver(AFTER, Limits(max_message_size=1000))
    said = driver.send(b"a APPEND x {2000+}\r\n" + bytes(2000) + b"\r\nb NOOP\r\n")
    assert said == b"a NO [TOOBIG] Message is larger than 1000 octets\r\nb OK Done\r\n"
    said = driver.send(b"c APPEND x {2001+}\r\n" + bytes(2001))
    assert said.endswith(b"* BYE [TOOBIG] Literal size too large\r\n")
    assert driver.events[-1] == Goodbye()
