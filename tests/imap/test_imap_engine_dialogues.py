"""AUTHENTICATE, STARTTLS and IDLE: commands in which the client says more than one line.

Rules of this file: what is said, and what is reported; nothing that came in plaintext after
STARTTLS was asked for may be carried out.
"""

from __future__ import annotations

import pytest
from support.imap_driver import ImapDriver

from fastlisten.handlers.imap.engine.commands import (
    Authenticate,
    AuthenticateResponse,
    Cancelled,
    Capability,
    Goodbye,
    Idle,
    IdleDone,
    Login,
    Noop,
    Refusal,
    StartTls,
)
from fastlisten.handlers.imap.engine.engine import ImapEngine, Limits
from fastlisten.handlers.imap.engine.session_states import State

BEFORE = State.NOT_AUTHENTICATED
IN_CLEAR = (
    b"NO [PRIVACYREQUIRED] Plaintext authentication disallowed on non-secure (SSL/TLS) connections"
)


# --- AUTHENTICATE ---------------------------------------------------------------------------------


def test_challenges_and_responses() -> None:
    driver = ImapDriver(BEFORE, challenges=[b"Username:", b"Password:"])
    assert driver.send(b"a AUTHENTICATE LOGIN\r\n") == b"+ VXNlcm5hbWU6\r\n"
    assert driver.send(b"YWxpY2U=\r\n") == b"+ UGFzc3dvcmQ6\r\n"
    assert driver.send(b"c2VjcmV0\r\nb NOOP\r\n") == b"a OK Done\r\nb OK Done\r\n"
    assert driver.events == [
        Authenticate("LOGIN", None),
        AuthenticateResponse(b"alice"),
        AuthenticateResponse(b"secret"),
        Noop(),
    ]
    assert driver.engine.state is State.AUTHENTICATED


def test_empty_challenge_and_response() -> None:
    driver = ImapDriver(BEFORE, challenges=[b""])
    assert driver.send(b"a AUTHENTICATE PLAIN\r\n") == b"+ \r\n"
    driver.send(b"\r\n")
    assert driver.events[-1] == AuthenticateResponse(b"")


def test_client_cancels() -> None:
    """RFC 3501 6.2.2."""
    driver = ImapDriver(BEFORE, challenges=[b""])
    assert driver.send(b"a AUTHENTICATE PLAIN\r\n*\r\nb NOOP\r\n").splitlines() == [
        b"+ ",
        b"a BAD Authentication cancelled",
        b"b OK Done",
    ]
    assert driver.events[1:] == [Cancelled(), Noop()]
    assert driver.engine.state is BEFORE


@pytest.mark.parametrize(
    "response", [b"a", b"AA==AA==", b"A A=", b"\xff", b"a LOGOUT", b"* ", b"x" * 12_300]
)
def test_response_that_is_none(response: bytes) -> None:
    driver = ImapDriver(BEFORE, challenges=[b""])
    said = driver.send(b"a AUTHENTICATE PLAIN\r\n" + response + b"\r\nb NOOP\r\n").splitlines()
    assert said[1].startswith(b"a BAD ")
    assert said[2:] == [b"b OK Done"]
    assert driver.events[1:] == [Cancelled(), Noop()]


def test_longest_response() -> None:
    driver = ImapDriver(BEFORE, challenges=[b""])
    driver.send(b"a AUTHENTICATE PLAIN\r\n" + b"AAAA" * 3071 + b"\r\n")
    assert driver.events[-1] == AuthenticateResponse(bytes(3 * 3071))
    driver = ImapDriver(BEFORE)
    driver.send(b"a AUTHENTICATE PLAIN " + b"AAAA" * 3060 + b"\r\n")
    assert driver.events[-1] == Authenticate("PLAIN", bytes(3 * 3060))


def test_passwords_are_not_shown() -> None:
    shown = repr([Login(b"a", b"secret"), Authenticate("X", b"secret")])
    assert "secret" not in shown + repr(AuthenticateResponse(b"secret"))


# --- without TLS ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", [b"LOGIN a b", b"AUTHENTICATE PLAIN", b"AUTHENTICATE PLAIN AGEAYg==", b"LOGIN {1}"]
)
def test_no_login_without_tls(line: bytes) -> None:
    """A password that the client has yet to send is not asked for."""
    driver = ImapDriver(BEFORE, encrypted=False)
    assert driver.send(b"a " + line + b"\r\n") == b"a " + IN_CLEAR + b"\r\n"
    driver = ImapDriver(BEFORE, Limits(login_in_clear=True), encrypted=False)
    assert driver.send(b"a " + line + b"\r\n") in (b"a OK Done\r\n", b"+ OK\r\n")


def securing(plaintext: bytes = b"") -> ImapEngine:
    engine = ImapEngine(Limits(starttls=True))
    engine.receive(b"a STARTTLS\r\n" + plaintext)
    assert engine.next_event() == StartTls()
    return engine


def test_starttls() -> None:
    engine = securing()
    engine.ok("Begin TLS negotiation now.")
    assert engine.output() == b"a OK Begin TLS negotiation now.\r\n"
    assert engine.securing
    assert engine.next_event() is None
    engine.tls_started()
    assert engine.encrypted
    engine.receive(b"b CAPABILITY\r\nc STARTTLS\r\n")
    assert engine.next_event() == Capability()
    engine.ok("Done")
    assert engine.next_event() == Refusal("STARTTLS", "TLS is already active")


def test_starttls_where_there_is_none() -> None:
    driver = ImapDriver(BEFORE, encrypted=False)
    said = driver.send(b"a STARTTLS\r\n")
    assert said == b"a BAD Error in IMAP command STARTTLS: TLS support isn't enabled\r\n"


def test_starttls_that_fails() -> None:
    engine = securing()
    engine.no("TLS is not available")
    engine.receive(b"b NOOP\r\n")
    assert engine.next_event() == Noop()


@pytest.mark.parametrize("plaintext", [b"b", b"b CAPABILITY\r\n", b"b LOGIN mallory x\r\n"])
def test_plaintext_that_came_with_starttls_is_not_carried_out(plaintext: bytes) -> None:
    """RFC 3501 6.2.1; the injections of CVE-2011-0411 and its like."""
    engine = securing(plaintext)
    engine.ok("Begin TLS negotiation now.")
    said = engine.output()
    assert said == b"a BAD Commands after STARTTLS must be encrypted\r\n"
    assert engine.next_event() == Goodbye()
    assert engine.closed


def test_plaintext_after_the_go_ahead_is_not_carried_out() -> None:
    engine = securing()
    engine.ok("Begin TLS negotiation now.")
    engine.output()
    engine.receive(b"b CAPABILITY\r\n")
    assert engine.next_event() == Goodbye()
    assert engine.output() == b""
    with pytest.raises(RuntimeError):
        engine.tls_started()


def test_end_of_the_session_is_not_said_in_the_handshake() -> None:
    engine = securing()
    engine.ok("Begin TLS negotiation now.")
    engine.output()
    engine.bye("Server shutting down")
    assert engine.next_event() == Goodbye()
    assert engine.output() == b""


# --- IDLE -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [b"DONE", b"done", b"Done "])
def test_idle(done: bytes) -> None:
    driver = ImapDriver()
    assert driver.send(b"a IDLE\r\n") == b"+ idling\r\n"
    assert driver.engine.idling
    driver.engine.send(b"* 5 EXISTS\r\n")
    assert driver.send(b"") == b"* 5 EXISTS\r\n"
    assert driver.send(done + b"\r\nb NOOP\r\n") == b"a OK Done\r\nb OK Done\r\n"
    assert driver.events == [Idle(), IdleDone(), Noop()]
    assert not driver.engine.idling


@pytest.mark.parametrize("line", [b"b NOOP", b"", b"DONE x", b"x" * 70_000, b"DONE {3}"])
def test_anything_else_ends_idle(line: bytes) -> None:
    driver = ImapDriver()
    said = driver.send(b"a IDLE\r\n" + line + b"\r\nc NOOP\r\n").splitlines()
    assert said[1].startswith(b"a BAD ")
    assert said[2:] == [b"c OK Done"]
    assert isinstance(driver.events[1], Refusal)
    assert driver.events[1].command == "IDLE"


def test_idle_that_is_refused() -> None:
    driver = ImapDriver(failing=(Idle,))
    assert driver.send(b"a IDLE\r\nb NOOP\r\n") == b"a NO Failed\r\nb OK Done\r\n"
