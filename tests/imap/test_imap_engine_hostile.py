"""What hostile clients send to the IMAP engine: bounds on everything, and never an exception.

Rules of this file: memory is bounded by what the engine holds and by what the interpreter has
allocated, never by time.
"""

from __future__ import annotations

import encodings
import itertools
import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.imap_driver import ImapDriver, command, refused

from fastlisten.handlers.imap.engine import fetch_items
from fastlisten.handlers.imap.engine.commands import (
    AppendEnd,
    AppendMessage,
    Event,
    Goodbye,
    Idle,
    Login,
    Refusal,
    Search,
    Select,
)
from fastlisten.handlers.imap.engine.engine import ImapEngine, Limits
from fastlisten.handlers.imap.engine.input_buffer import SKIP_LIMIT
from fastlisten.handlers.imap.engine.parse_search import MOST_NESTED
from fastlisten.handlers.imap.engine.session_states import State

BEFORE = State.NOT_AUTHENTICATED

#: What a connection may hold at the most: a command, once collected and once in the buffer, and
#: once more while it is taken apart.
MOST_HELD = 4 * Limits().max_command


@pytest.mark.parametrize("state", [BEFORE, State.SELECTED])
@pytest.mark.parametrize("octet", [b"x", b"(", b"\0", b"\r", b" ", b"{", b"\xff"])
def test_line_that_never_ends(state: State, octet: bytes) -> None:
    driver = ImapDriver(state)
    piece = octet * 16_384
    driver.send(b"a SELECT ")
    tracemalloc.start()
    try:
        sent = 0
        while not driver.engine.closed:
            driver.send(piece)
            sent += len(piece)
            assert driver.engine.buffered <= Limits().max_command + len(piece)
        assert tracemalloc.get_traced_memory()[1] < MOST_HELD
    finally:
        tracemalloc.stop()
    assert sent <= SKIP_LIMIT + Limits().max_command + 2 * len(piece)
    assert driver.output == (
        b"a BAD [TOOBIG] Error in IMAP command: Command line too long\r\n"
        b"* BYE [TOOBIG] Command line too long\r\n"
    )
    assert driver.events[-1] == Goodbye()


def test_tag_of_a_megabyte() -> None:
    driver = ImapDriver()
    said = driver.send(b"x" * 1_000_000 + b" NOOP\r\nb NOOP\r\n")
    assert said == (
        b"* BAD [TOOBIG] Error in IMAP tag: Command line too long\r\nb OK Done\r\n"
    )  # fmt: skip


@pytest.mark.parametrize(("length", "fits"), [(128, True), (129, False)])
def test_longest_tag(length: int, fits: bool) -> None:
    said = ImapDriver().send(b"x" * length + b" NOOP\r\n")
    assert said.startswith(b"x" * length + b" OK" if fits else b"* BAD Error in IMAP tag: Invalid")


@pytest.mark.parametrize("tag", [b"+", b"*", b'"a"', b"(", b"a+b", b"a%", b"\\a", b"{1}", b"\xe4"])
def test_what_is_no_tag(tag: bytes) -> None:
    """It is not repeated: it could be taken for something else."""
    said = ImapDriver().send(tag + b" NOOP\r\n")
    assert said == b"* BAD Error in IMAP tag: Invalid tag\r\n"


def test_empty_lines() -> None:
    driver = ImapDriver(limits=Limits(max_bad_commands=3))
    driver.send(b"\r\n" * 10_000)
    assert driver.output.count(b"\r\n") == 4
    assert driver.engine.closed


@pytest.mark.parametrize("key", [b"(", b"NOT ", b"OR SEEN ", b"( NOT OR ALL "])
def test_search_keys_within_each_other(key: bytes) -> None:
    assert refused(b"SEARCH " + key * 4000 + b"ALL") == "Search keys nested too deeply"


def test_deepest_search_keys() -> None:
    assert isinstance(command(b"SEARCH " + b"NOT " * (MOST_NESTED - 1) + b"ALL"), Search)
    assert refused(b"SEARCH " + b"NOT " * MOST_NESTED + b"ALL") == "Search keys nested too deeply"
    deep = b"(" * (MOST_NESTED - 1) + b"ALL" + b")" * (MOST_NESTED - 1)
    assert isinstance(command(b"SEARCH " + deep), Search)


@pytest.mark.parametrize(
    "command",
    [
        b"a %b\r\n" % (b"(" * 1_000_000),
        b"a SEARCH %b\r\n" % (b"(" * 60_000),
        b"a FETCH 1 %b\r\n" % (b"(" * 60_000),
        b"a STORE 1 FLAGS %b\r\n" % (b"(" * 60_000),
        b'a SELECT "%b\r\n' % (b"\\\\" * 30_000),
        b'a SELECT "%b\r\n' % (b"\\" * 60_001),
        b"a LOGIN %b\r\n" % (b"{" * 60_000),
        b"a LOGIN %b\r\n" % (b"}" * 60_000),
        b"a FETCH 1 BODY[%b]\r\n" % (b"1." * 30_000),
        b"a FETCH %b FLAGS x\r\n" % (b"1:" * 30_000),
        b"a FETCH %b- FLAGS\r\n" % (b"1," * 30_000),
        b"a SELECT &%b\r\n" % (b"A" * 60_000),
        b"a SEARCH %b\r\n" % (b"9" * 60_000),
        b"a SEARCH LARGER %b\r\n" % (b"9" * 60_000),
        b"a SELECT {%b}\r\n" % (b"9" * 60_000),
        b"a SELECT {%b1x}\r\n" % (b"0" * 60_000),
        b"a FETCH 1 (%b)\r\n" % (b"FLAGS" * 12_000),
    ],
    ids=lambda command: command[:20],
)
def test_command_that_is_refused_in_linear_time(command: bytes) -> None:
    """Each would take minutes if a pattern went back: the test's time limit is the measure."""
    driver = ImapDriver()
    said = driver.send(command + b"b NOOP\r\n")
    assert re.fullmatch(rb"a (BAD|NO) [^\r\n]{1,200}\r\nb OK Done\r\n", said)


def test_sets_cost_what_is_written_not_what_is_named() -> None:
    event = command(b"FETCH 1:4294967295," + b"1:*," * 5000 + b"1 FLAGS")
    messages = event.messages  # type: ignore[union-attr]
    assert len(messages.ranges) == 5002
    assert messages.within(1_000_000) == [(1, 1_000_000)]
    assert messages.within(0) == []


def test_unknown_charsets_are_not_kept() -> None:
    """Python keeps each name that it was asked for; the engine does not ask."""
    before = len(encodings._cache)
    for number in range(100):
        assert refused(b"SEARCH CHARSET x-%d ALL" % number) == "Unknown charset"
    assert len(encodings._cache) == before


def test_requests_that_are_kept_are_bounded() -> None:
    fetch_items._kept_items.cache_clear()
    for number in range(1000):
        command(b"FETCH 1 BODY[%d]" % (number + 1))
    assert fetch_items._kept_items.cache_info().currsize == 256
    fetch_items._kept_items.cache_clear()
    command(b"FETCH 1 (BODY[HEADER.FIELDS (" + b"x" * 500 + b")])")
    assert fetch_items._kept_items.cache_info().currsize == 0


def test_nothing_is_held_between_commands() -> None:
    """An idle session has no buffer."""
    engine = ImapEngine(Limits(), True, State.SELECTED)
    engine.receive(b"a SELECT {5+}\r\nINBOX\r\n")
    engine.next_event()
    engine.ok("Done")
    engine.output()
    assert engine._command is None
    assert engine._input._buffer == b""
    assert engine._unsent == []


# --- anything -------------------------------------------------------------------------------------

PIECES = [
    b"a ", b"b ", b"LOGIN ", b"SELECT ", b"FETCH ", b"UID ", b"SEARCH ", b"STORE ", b"APPEND ",
    b"IDLE\r\n", b"DONE\r\n", b"AUTHENTICATE PLAIN", b"STARTTLS\r\n", b"NOOP\r\n", b"LOGOUT\r\n",
    b"ENABLE QRESYNC\r\n", b"INBOX", b"1:*", b"$", b"(", b")", b'"', b"\\", b"\\Seen", b"FLAGS",
    b"BODY[", b"]", b"<0.5>", b"HEADER.FIELDS (", b"{3}", b"{3+}", b"~{3+}", b"{0}", b"{70000+}",
    b"{99999999999999999999+}", b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"x", b"abc", b" ", b"  ",
    b"*\r\n", b"=", b"AA==", b"CHARSET utf-7 ", b"NOT ", b"OR ", b"&", b"-", b"1-Jan-2000", b"NIL",
    b'"01-Jan-2000 00:00:00 +0000"', b"(CHANGEDSINCE 5)", b"RETURN (", b"STATUS ", b"x" * 300,
]  # fmt: skip

LIMITS = Limits(
    max_command=400,
    max_command_before_login=200,
    max_response=100,
    max_message_size=1000,
    max_bad_before_login=20,
)
LINE = re.compile(rb"(\*|\+|[^ +*\x00-\x20]+) [\x20-\x7e]*\r\n")


def result(
    state: State, encrypted: bool, failing: list[type], pieces: list[bytes]
) -> tuple[list[Event], bytes]:
    driver = ImapDriver(
        state,
        LIMITS,
        encrypted=encrypted,
        failing=tuple(failing),
        challenges=[b"x", b"y"],
    )
    for piece in pieces:
        driver.send(piece)
        assert driver.engine.buffered <= LIMITS.max_command
    return driver.events, driver.output


@settings(max_examples=500)
@given(
    st.sampled_from([BEFORE, State.AUTHENTICATED, State.SELECTED]),
    st.booleans(),
    st.lists(st.sampled_from([AppendMessage, AppendEnd, Idle, Login, Select]), unique=True),
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=10), max_size=40),
    st.integers(1, 50),
)
def test_any_input(
    state: State, encrypted: bool, failing: list[type], pieces: list[bytes], step: int
) -> None:
    """Nothing is raised, every line is one, and the result does not depend on how it is cut."""
    data = b"".join(pieces)
    by_steps = [data[place : place + step] for place in range(0, len(data), step)]
    events, output = result(state, encrypted, failing, by_steps)
    assert (events, output) == result(state, encrypted, failing, pieces)
    position = 0
    while position < len(output):
        line = LINE.match(output, position)
        assert line is not None, output[position:]
        position = line.end()
    refusals = [event for event in events if isinstance(event, Refusal)]
    assert len(refusals) <= output.count(b"\r\n")
    assert not any(isinstance(event, Goodbye) for event, _ in itertools.pairwise(events)), (
        "nothing follows the end"
    )
