"""Which command is allowed in which state, and how commands change it (RFC 3501 3).

Rules of this file: states only; dialogues within a command are in test_imap_engine_dialogues.py.
"""

from __future__ import annotations

import pytest
from support.imap_driver import ImapDriver, command, refused

from fastlisten.handlers.imap.engine.commands import (
    Close,
    Goodbye,
    Login,
    Logout,
    Noop,
    Refusal,
    Select,
)
from fastlisten.handlers.imap.engine.engine import ImapEngine, Limits
from fastlisten.handlers.imap.engine.session_states import State

BEFORE, AFTER, SELECTED = State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED

ANYWHERE = [b"CAPABILITY", b"NOOP", b"LOGOUT", b"ID NIL"]
BEFORE_LOGIN = [b"STARTTLS", b"LOGIN a b", b"AUTHENTICATE PLAIN"]
AFTER_LOGIN = [
    b"ENABLE CONDSTORE", b"SELECT x", b"EXAMINE x", b"CREATE x", b"DELETE x", b"RENAME x y",
    b"SUBSCRIBE x", b"UNSUBSCRIBE x", b'LIST "" *', b'LSUB "" *', b"NAMESPACE",
    b"STATUS x (MESSAGES)", b"APPEND x {3}", b"IDLE", b'GETQUOTA ""', b"GETQUOTAROOT x",
    b'SETQUOTA "" (STORAGE 1)',
]  # fmt: skip
WITH_MAILBOX = [
    b"CHECK", b"CLOSE", b"UNSELECT", b"EXPUNGE", b"UID EXPUNGE 1", b"SEARCH ALL",
    b"UID SEARCH ALL", b"FETCH 1 FLAGS", b"UID FETCH 1 FLAGS", b"STORE 1 FLAGS ()",
    b"UID STORE 1 FLAGS ()", b"COPY 1 x", b"UID COPY 1 x", b"MOVE 1 x", b"UID MOVE 1 x",
]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "states", "otherwise"),
    [
        (ANYWHERE, {BEFORE, AFTER, SELECTED}, {}),
        (BEFORE_LOGIN, {BEFORE}, {AFTER: "Already logged in", SELECTED: "Already logged in"}),
        (AFTER_LOGIN, {AFTER, SELECTED}, {BEFORE: "Please login first"}),
        (WITH_MAILBOX, {SELECTED}, {BEFORE: "Please login first", AFTER: "No mailbox selected"}),
    ],
    ids=["anywhere", "before", "after", "selected"],
)
def test_states_of_commands(
    lines: list[bytes], states: set[State], otherwise: dict[State, str]
) -> None:
    for line in lines:
        for state in (BEFORE, AFTER, SELECTED):
            if state in states:
                assert not isinstance(command(line, state), Refusal), line
            else:
                assert refused(line, state) == otherwise[state], line


def state_after(driver: ImapDriver, line: bytes) -> State:
    driver.send(b"a " + line + b"\r\n")
    return driver.engine.state


def test_way_through_a_session() -> None:
    driver = ImapDriver(BEFORE)
    assert state_after(driver, b"CAPABILITY") is BEFORE
    assert state_after(driver, b"LOGIN a b") is AFTER
    assert state_after(driver, b"SELECT x") is SELECTED
    assert state_after(driver, b"EXAMINE y") is SELECTED
    assert state_after(driver, b"CLOSE") is AFTER
    assert state_after(driver, b"SELECT x") is SELECTED
    assert state_after(driver, b"UNSELECT") is AFTER
    assert state_after(driver, b"LOGOUT") is State.LOGOUT
    selections = [event.closed for event in driver.events if isinstance(event, Select)]
    assert selections == [False, True, False]
    assert driver.output.endswith(b"* BYE Logging out\r\na OK Done\r\n")


def test_failed_login_changes_nothing() -> None:
    driver = ImapDriver(BEFORE, failing=(Login,))
    assert state_after(driver, b"LOGIN a b") is BEFORE
    assert driver.output == b"a NO Failed\r\n"


def test_failed_select_leaves_no_mailbox() -> None:
    """RFC 3501 6.3.1."""
    driver = ImapDriver(failing=(Select,))
    assert state_after(driver, b"SELECT x") is AFTER
    assert driver.send(b"b FETCH 1 FLAGS\r\n").endswith(b"No mailbox selected\r\n")


def test_select_of_wrong_syntax_leaves_the_mailbox() -> None:
    assert state_after(ImapDriver(), b"SELECT (") is SELECTED


def test_failed_close_leaves_the_mailbox() -> None:
    assert state_after(ImapDriver(failing=(Close,)), b"CLOSE") is SELECTED


def test_nothing_is_executed_after_logout() -> None:
    driver = ImapDriver()
    driver.send(b"a LOGOUT\r\nb NOOP\r\n")
    driver.send(b"c NOOP\r\n")
    assert driver.events == [Logout(), Goodbye()]
    assert driver.engine.closed
    assert driver.engine.next_event() is None
    assert driver.engine.buffered == 0


def test_commands_wait_for_each_other() -> None:
    engine = ImapEngine(Limits(), True, SELECTED)
    engine.receive(b"a NOOP\r\nb EXPUNGE\r\n")
    assert engine.next_event() == Noop()
    assert engine.next_event() is None
    assert (engine.tag, engine.name, engine.waiting) == (b"a", "NOOP", True)
    assert engine.buffered == len(b"b EXPUNGE\r\n")
    engine.send(b"* 1 EXISTS\r\n")
    engine.ok("Done")
    assert engine.output() == b"* 1 EXISTS\r\na OK Done\r\n"
    assert engine.output() == b""
    assert engine.next_event() is not None
    assert (engine.tag, engine.name) == (b"b", "EXPUNGE")


def test_answers_without_a_question() -> None:
    engine = ImapEngine(Limits(), True, SELECTED)
    for answer in (engine.ok, engine.no, engine.bad):
        with pytest.raises(RuntimeError, match="no command waits"):
            answer("x")
    engine.receive(b"a NOOP\r\nb IDLE\r\n")
    engine.next_event()
    with pytest.raises(RuntimeError):
        engine.accept()
    with pytest.raises(RuntimeError):
        engine.challenge(b"")
    with pytest.raises(RuntimeError):
        engine.tls_started()
    engine.ok("Done")
    engine.next_event()
    with pytest.raises(RuntimeError, match="accept"):
        engine.ok("Done")
    engine.accept()
    assert engine.idling


def test_bye_ends_the_session() -> None:
    driver = ImapDriver()
    driver.engine.bye("Server shutting down", b"UNAVAILABLE")
    driver.engine.bye("again")
    assert driver.send(b"a NOOP\r\n") == b"* BYE [UNAVAILABLE] Server shutting down\r\n"
    assert driver.events == [Goodbye()]


def test_too_many_bad_commands_end_the_session() -> None:
    driver = ImapDriver(limits=Limits(max_bad_commands=3))
    driver.send(b"a X\r\nb X\r\nc NOOP\r\nd X\r\ne X\r\n")
    assert not driver.engine.closed
    said = driver.send(b"f X\r\ng NOOP\r\n")
    assert said.splitlines() == [
        b"f BAD Error in IMAP command: Unknown command",
        b"* BYE Too many invalid IMAP commands",
    ]
    assert driver.engine.closed


def test_fewer_bad_commands_end_the_session_before_login() -> None:
    driver = ImapDriver(BEFORE, Limits(max_bad_before_login=2))
    driver.send(b"a SELECT x\r\n")
    assert not driver.engine.closed
    driver.send(b"b SELECT x\r\n")
    assert driver.engine.closed


def test_user_s_bad_counts() -> None:
    engine = ImapEngine(Limits(max_bad_commands=1), True, SELECTED)
    engine.receive(b"a FETCH 5 FLAGS\r\nb NOOP\r\n")
    engine.next_event()
    engine.bad("No such message")
    assert engine.next_event() == Goodbye()


@pytest.mark.parametrize(
    "line",
    [
        b"SELECT x (CONDSTORE)", b"STATUS x (HIGHESTMODSEQ)", b"FETCH 1 MODSEQ",
        b"FETCH 1 FLAGS (CHANGEDSINCE 5)", b"STORE 1 (UNCHANGEDSINCE 5) FLAGS ()",
        b"SEARCH MODSEQ 5", b"ENABLE CONDSTORE", b"ENABLE QRESYNC",
        b'LIST "" * RETURN (STATUS (HIGHESTMODSEQ))',
    ],
)  # fmt: skip
def test_what_enables_condstore(line: bytes) -> None:
    """RFC 7162 3.1."""
    driver = ImapDriver()
    driver.send(b"a NOOP\r\nb FETCH 1 FLAGS\r\nc SELECT x\r\nd ENABLE FOO\r\ne SEARCH ALL\r\n")
    assert not driver.engine.condstore
    driver.send(b"f " + line + b"\r\n")
    assert driver.engine.condstore
