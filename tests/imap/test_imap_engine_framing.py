"""Where commands end: lines, literals, and the same result however the input is cut.

Rules of this file: what is in a command does not matter here, only that it is taken as a whole.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.imap_driver import ImapDriver, octets_one_by_one

from fastlisten.handlers.imap.engine.commands import (
    AppendEnd,
    AppendMessage,
    AppendOctets,
    Event,
    Goodbye,
    Login,
    Noop,
    Refusal,
    Rename,
    Select,
)
from fastlisten.handlers.imap.engine.engine import Limits
from fastlisten.handlers.imap.engine.session_states import State

BEFORE = State.NOT_AUTHENTICATED

#: Input that comes to every place where the engine waits for more, and what it says.
DIALOGUE = (
    b"a LOGIN {5}\r\nalice {6+}\r\nsecret\r\n"
    b"b FOO {3+}\r\nabc {4+}\r\n\r\n\r\n x\r\n"
    b"c SELECT {5}\r\ninbox\r\n"
    b"d APPEND {5}\r\nINBOX (\\Seen) {10}\r\n0123456789 {3+}\r\nabc\r\n"
    b"e IDLE\r\nDONE\r\n"
    b"f FETCH 1 BODY[HEADER.FIELDS ({4}\r\nFrom)]\r\n"
    b"g NOOP\ng2 NOOP\n\r\n"
    b"h SEARCH SUBJECT {1}\r\n\0\r\n"
    b"i UID SEARCH SUBJECT \"}\"\r\n"
    b"j LOGOUT\r\nk NOOP\r\n"
)  # fmt: skip

SAID = (
    b"+ OK\r\na OK Done\r\n"
    b"b BAD Error in IMAP command: Unknown command\r\n"
    b"+ OK\r\nc OK Done\r\n"
    b"+ OK\r\n+ OK\r\nd OK Done\r\n"
    b"+ idling\r\ne OK Done\r\n"
    b"+ OK\r\nf OK Done\r\n"
    b"g BAD Error in IMAP command: Line ended by a bare LF; lines must end with CR LF\r\n"
    b"g2 BAD Error in IMAP command: Line ended by a bare LF; lines must end with CR LF\r\n"
    b"+ OK\r\nh BAD Error in IMAP command SEARCH: NUL in literal\r\n"
    b"i OK Done\r\n"
    b"* BYE Logging out\r\nj OK Done\r\n"
)


def conversation(*pieces: bytes) -> tuple[list[Event], bytes]:
    driver = ImapDriver(BEFORE)
    for piece in pieces:
        driver.send(piece)
    return driver.events, driver.output


WHOLE = conversation(DIALOGUE)


def test_dialogue_in_one_piece() -> None:
    events, said = WHOLE
    assert said == SAID
    assert events[0] == Login(b"alice", b"secret")
    assert events[3:6] == [
        AppendMessage("INBOX", ("\\Seen",), None, 10, 0),
        AppendOctets(b"0123456789"),
        AppendMessage("INBOX", (), None, 3, 1),
    ]
    assert AppendEnd() in events
    assert events[-1] == Goodbye()


def test_octet_by_octet() -> None:
    assert conversation(*octets_one_by_one(DIALOGUE)) == WHOLE


@pytest.mark.parametrize("place", range(1, len(DIALOGUE)))
def test_cut_at_every_octet(place: int) -> None:
    assert conversation(DIALOGUE[:place], DIALOGUE[place:]) == WHOLE


@given(places=st.lists(st.integers(0, len(DIALOGUE)), max_size=12))
def test_cut_anywhere(places: list[int]) -> None:
    bounds = [0, *sorted(places), len(DIALOGUE)]
    pieces = [DIALOGUE[first:last] for first, last in itertools.pairwise(bounds)]
    assert conversation(*pieces) == WHOLE


def test_go_ahead_comes_before_the_literal() -> None:
    driver = ImapDriver()
    assert driver.send(b"a RENAME {1}\r\n") == b"+ OK\r\n"
    assert driver.send(b"x {1}\r\n") == b"+ OK\r\n"
    assert driver.send(b"y\r\n") == b"a OK Done\r\n"
    assert driver.events == [Rename("x", "y")]


def test_literal_plus_needs_no_go_ahead() -> None:
    """RFC 7888 4."""
    driver = ImapDriver()
    assert driver.send(b"a RENAME {1+}\r\nx {0+}\r\n\r\n") == b"a OK Done\r\n"
    assert driver.events == [Rename("x", "")]


def test_literal_may_hold_what_looks_like_a_command() -> None:
    driver = ImapDriver()
    driver.send(b"a SELECT {19+}\r\nx\r\nb LOGOUT {3+}\r\ny\r\n")
    text = "Mailbox name is not valid mUTF-7"
    assert driver.events == [Refusal("SELECT", text, bad=False, code=b"CANNOT")]
    assert driver.output == b"a NO [CANNOT] Mailbox name is not valid mUTF-7\r\n"


def test_quoted_string_may_end_like_a_literal() -> None:
    driver = ImapDriver()
    driver.send(b'a SELECT "{3}"\r\nb NOOP\r\n')
    assert driver.events == [Select("{3}", closed=True), Noop()]


@pytest.mark.parametrize(
    "line",
    [
        b"a FOO {3}",
        b"a NOOP {3} {3}x}",
        b"a LOGIN x {3}",
        b"a FETCH 1 {70000}",
        b"a CHECK~{3}",
        b"a SELECT {99999999999999999999}",
        b"a SELECT ~{3}",
        b"\xff {3}",
    ],
)
def test_refused_command_asks_for_no_literal(line: bytes) -> None:
    """The client has an answer, and its next octets are the next command."""
    driver = ImapDriver()
    said = driver.send(line + b"\r\nb NOOP\r\n")
    assert said.splitlines()[0].split(b" ")[1] == b"BAD"
    assert said.splitlines()[1:] == [b"b OK Done"]


@pytest.mark.parametrize(
    "command",
    [
        b"a FOO {3+}\r\nabc\r\n",
        b"a FOO {3+}\r\nabc {2+}\r\n\r\n {0+}\r\n\r\n",
        b"a SELECT ~{3+}\r\nabc\r\n",
        b"a LOGIN {70000+}\r\n" + b"x\r\n" * 23333 + b"x\r\n",
        b"a SELECT {70000+}\r\n" + b"x LOGOUT\r\n" * 7000 + b"\r\n",
        b"a FOO {1+}\r\nx {5}\r\n",
    ],
)
def test_refused_literal_plus_is_dropped(command: bytes) -> None:
    """RFC 7888 4: what follows is no command."""
    driver = ImapDriver()
    said = driver.send(command + b"b NOOP\r\n")
    assert said.startswith(b"a BAD ")
    assert said.splitlines()[1:] == [b"b OK Done"]
    assert [type(event) for event in driver.events] == [Refusal, Noop]


@pytest.mark.parametrize(
    "size", [b"104857601", b"18446744073709551616", b"9" * 40, b"0" * 60 + b"104857601"]
)
def test_refused_literal_plus_that_is_huge_ends_the_session(size: bytes) -> None:
    driver = ImapDriver()
    said = driver.send(b"a SELECT {" + size + b"+}\r\nb NOOP\r\n")
    assert said.startswith(b"a BAD ")
    assert said.endswith(b"* BYE [TOOBIG] Literal size too large\r\n")
    assert driver.events[-1] == Goodbye()


def test_bounds_of_a_command() -> None:
    for state, limits, most in (
        (BEFORE, Limits(max_command_before_login=100, max_response=100), 100),
        (State.SELECTED, Limits(max_command=100), 100),
    ):
        start = b"a LOGIN {%d}\r\n" if state is BEFORE else b"a SELECT {%d}\r\n"
        fits = most - len(start % 10)
        driver = ImapDriver(state, limits)
        assert driver.send(start % fits) == b"+ OK\r\n"
        driver = ImapDriver(state, limits)
        too_large = driver.send(start % (fits + 1))
        assert too_large.startswith(b"a BAD [TOOBIG] Error in IMAP command ")


def test_line_that_is_too_long() -> None:
    limits = Limits(max_command=100)
    fits = b"a SELECT " + b"x" * 89 + b"\r\n"
    assert ImapDriver(limits=limits).send(fits) == b"a OK Done\r\n"
    driver = ImapDriver(limits=limits)
    said = driver.send(fits[:-2] + b"x\r\nb NOOP\r\n")
    assert said == b"a BAD [TOOBIG] Error in IMAP command: Command line too long\r\nb OK Done\r\n"


def test_literals_and_lines_have_one_bound() -> None:
    driver = ImapDriver(limits=Limits(max_command=60))
    said = driver.send(b"a RENAME {20+}\r\n" + b"x" * 20 + b" " + b"y" * 30 + b"\r\nb NOOP\r\n")
    assert said == b"a BAD [TOOBIG] Error in IMAP command: Command line too long\r\nb OK Done\r\n"


@pytest.mark.parametrize("second", [b"b DELETE x", b"b DELETE x\nc DELETE y\nd"])
def test_bare_lf_smuggles_no_command(second: bytes) -> None:
    """RFC 3501 2.2: a user's text with an LF in it."""
    driver = ImapDriver()
    driver.send(b'a SELECT "x\n' + second + b"\r\nz NOOP\r\n")
    assert [type(event) for event in driver.events[:-1]] == [Refusal] * (1 + second.count(b"\n"))
    assert driver.events[-1] == Noop()


def test_lines_that_bare_lfs_end_are_answered_at_once() -> None:
    """Somebody types into openssl s_client."""
    driver = ImapDriver()
    assert driver.send(b"a NOOP\n").startswith(b"a BAD ")
    assert driver.send(b"b NOOP\n").startswith(b"b BAD ")
    assert driver.send(b"\r\nc NOOP\r\n") == b"c OK Done\r\n"
