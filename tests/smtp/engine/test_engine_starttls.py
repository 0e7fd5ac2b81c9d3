"""STARTTLS in the SMTP engine (RFC 3207): offered, taken or refused, and what it forgets."""

from __future__ import annotations

import itertools

import pytest
from support.engine_driver import Driven
from support.smtp_harness import ENVELOPE, HELLO, HOSTNAME, MAIL, RCPT, codes

from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.replies import NO_TLS_NOW
from fastlisten.handlers.smtp.engine.smtp_events import Goodbye, Mail, StartTls

STARTTLS = b"STARTTLS\r\n"
TOO_EARLY = (
    f"554 5.5.0 {HOSTNAME} Protocol synchronization error: data sent after STARTTLS\r\n".encode()
)


def asked(before: bytes = HELLO) -> SmtpEngine:
    """Return an engine whose client has asked for TLS and waits for the answer."""
    engine = SmtpEngine(Limits(HOSTNAME, starttls=True))
    engine.receive(before + STARTTLS)
    while not isinstance(event := engine.next_event(), StartTls):
        assert event is not None
        engine.accept()
    engine.replies()
    return engine


def secured(before: bytes = HELLO) -> Driven:
    """Return an engine that has just begun to speak TLS."""
    driven = Driven(starttls=True)
    driven.feed(before, STARTTLS)
    driven.engine.tls_started()
    return driven


@pytest.mark.parametrize(
    ("starttls", "encrypted", "offered"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_it_is_offered_where_it_can_be_had(starttls: bool, encrypted: bool, offered: bool) -> None:
    driven = Driven(starttls=starttls, encrypted=encrypted)
    extensions = driven.feed(HELLO).decode().replace("-", " ").split()
    assert ("STARTTLS" in extensions) is offered
    assert (b" STARTTLS" in driven.feed(b"HELP\r\n")) is offered
    assert b"STARTTLS" not in driven.feed(b"HELO c\r\n")


@pytest.mark.parametrize(
    ("before", "command", "reply"),
    [
        (HELLO, b"STARTTLS\r\n", b"220 2.0.0 "),
        (HELLO, b"starttls\r\n", b"220 2.0.0 "),
        (HELLO, b"STARTTLS  \r\n", b"220 2.0.0 "),
        (HELLO + MAIL, b"STARTTLS\r\n", b"220 2.0.0 "),
        (ENVELOPE, b"STARTTLS\r\n", b"220 2.0.0 "),
        (HELLO, b"STARTTLS now\r\n", b"501 5.5.4 "),
        (HELLO, b"STARTTLSX\r\n", b"500 5.5.1 "),
        (HELLO, b"STARTTLS\n", b"500 5.5.2 "),
        (HELLO, b"STARTTLS\0\r\n", b"500 5.5.2 "),
        (b"", b"STARTTLS\r\n", b"503 5.5.1 Send EHLO first"),
        (b"HELO c\r\n", b"STARTTLS\r\n", b"503 5.5.1 Send EHLO first"),
        (HELLO + b"HELO c\r\n", b"STARTTLS\r\n", b"503 5.5.1 Send EHLO first"),
    ],
)
def test_when_it_is_taken(before: bytes, command: bytes, reply: bytes) -> None:
    driven = Driven(starttls=True)
    driven.feed(before)
    assert driven.feed(command).startswith(reply)
    assert driven.engine.securing is reply.startswith(b"220")


@pytest.mark.parametrize("command", [b"STARTTLS\r\n", b"STARTTLS now\r\n"])
def test_it_is_unknown_where_there_is_no_tls(command: bytes) -> None:
    driven = Driven()
    driven.feed(HELLO)
    assert driven.feed(command).startswith(b"502 5.5.1 ")


@pytest.mark.parametrize("starttls", [True, False])
def test_it_is_refused_where_tls_is_active(starttls: bool) -> None:
    driven = Driven(starttls=starttls, encrypted=True)
    driven.feed(HELLO)
    assert driven.feed(STARTTLS) == b"503 5.5.1 TLS already active\r\n"
    assert driven.events == []
    assert codes(driven.feed(MAIL)) == [250]


def test_it_is_refused_after_itself() -> None:
    driven = secured()
    driven.feed(HELLO)
    assert driven.feed(STARTTLS) == b"503 5.5.1 TLS already active\r\n"


@pytest.mark.parametrize("before", [HELLO, HELLO + MAIL, ENVELOPE])
def test_everything_is_forgotten(before: bytes) -> None:
    driven = secured(before)
    engine = driven.engine
    assert engine.encrypted
    assert (engine.client_name, engine.extended, engine.transaction) == ("", False, None)
    for command in (MAIL, RCPT, b"DATA\r\n"):
        assert codes(driven.feed(command)) == [503]
    assert codes(driven.feed(HELLO, MAIL, b"DATA\r\n")) == [250, 250, 554]
    assert codes(driven.feed(RCPT + b"DATA\r\nx\r\n.\r\n")) == [250, 354, 250]
    assert driven.messages == [b"x\r\n"]


def test_parameters_need_ehlo_again() -> None:
    driven = secured()
    driven.feed(b"HELO c\r\n")
    assert codes(driven.feed(b"MAIL FROM:<a@b> SIZE=10\r\n")) == [555]


def test_errors_are_not_forgotten() -> None:
    driven = Driven(starttls=True, max_errors=3)
    driven.feed(HELLO, b"X\r\n" * 3, STARTTLS)
    driven.engine.tls_started()
    assert codes(driven.feed(b"X\r\n")) == [421]


def test_it_can_be_declined_for_the_moment() -> None:
    driven = Driven(starttls=True, max_errors=1)
    driven.feed(ENVELOPE)
    for _ in range(5):
        driven.engine.receive(STARTTLS)
        assert isinstance(driven.engine.next_event(), StartTls)
        assert driven.engine.waiting
        driven.engine.reject(NO_TLS_NOW)
        assert codes(driven.feed(b"NOOP\r\n")) == [454, 250]
    assert not driven.engine.securing
    assert codes(driven.feed(b"DATA\r\n.\r\n")) == [354, 250]


# --- input that comes too early -------------------------------------------------------------------


@pytest.mark.parametrize("surplus", [b"NOOP\r\nQUIT\r\n", b"\r\n", b"\0", b"\x16\x03\x01\x02\x00"])
def test_every_cut_around_it(surplus: bytes) -> None:
    go_ahead = len(HELLO + STARTTLS)
    stream = HELLO + STARTTLS + surplus
    edges = range(1, len(stream))
    for first, second in itertools.combinations_with_replacement(edges, 2):
        driven = Driven(starttls=True)
        driven.feed(stream[:first], stream[first:second], stream[second:])
        if go_ahead in (first, second):
            # The go-ahead was given before more came: the client takes any word for TLS.
            assert driven.events == [("starttls",), ("goodbye",)]
            assert codes(driven.replies) == [250, 220]
        else:
            assert driven.events == [("goodbye",)]
            assert driven.replies.endswith(TOO_EARLY)
            assert codes(driven.replies) == [250, 554]
        assert driven.engine.closed
        assert driven.engine.buffered == 0
        assert driven.feed(b"NOOP\r\n") == b""
        with pytest.raises(RuntimeError):
            driven.engine.tls_started()


def test_input_before_the_answer_ends_the_session() -> None:
    engine = asked(ENVELOPE)
    assert engine.next_event() is None
    engine.receive(b"N")
    engine.accept()
    assert not engine.securing
    assert isinstance(engine.next_event(), Goodbye)
    assert engine.replies() == TOO_EARLY
    assert engine.transaction is None
    with pytest.raises(RuntimeError):
        engine.tls_started()


def test_input_before_a_refusal_is_carried_out() -> None:
    engine = asked()
    engine.receive(MAIL)
    engine.reject(NO_TLS_NOW)
    assert isinstance(engine.next_event(), Mail)
    assert engine.replies() == NO_TLS_NOW


def test_nothing_is_kept_and_nothing_is_said_after_the_go_ahead() -> None:
    engine = asked()
    engine.accept()
    assert engine.replies() == b"220 2.0.0 Ready to start TLS\r\n"
    assert not engine.waiting
    engine.receive(b"")
    assert engine.next_event() is None
    assert (engine.securing, engine.closed) == (True, False)
    engine.receive(b"x" * 100_000)
    assert engine.buffered == 0
    assert (engine.securing, engine.closed) == (False, True)
    assert isinstance(engine.next_event(), Goodbye)
    assert engine.replies() == b""
    assert engine.next_event() is None


def test_a_handshake_that_nobody_asked_for_is_a_fault_of_the_caller() -> None:
    engine = SmtpEngine(Limits(HOSTNAME, starttls=True))
    with pytest.raises(RuntimeError):
        engine.tls_started()
    engine = asked()
    with pytest.raises(RuntimeError):
        engine.tls_started()
    engine.accept()
    engine.tls_started()
    with pytest.raises(RuntimeError):
        engine.tls_started()


def test_commands_in_front_of_it_are_answered_with_it() -> None:
    driven = Driven(starttls=True)
    said = driven.feed(ENVELOPE + b"NOOP\r\n" + STARTTLS)
    assert codes(said) == [250, 250, 250, 250, 220]
    driven.engine.tls_started()
    assert driven.engine.transaction is None
