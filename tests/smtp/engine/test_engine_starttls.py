"""STARTTLS in the SMTP engine (RFC 3207): when it is offered and refused, what state it resets."""

from __future__ import annotations

import itertools

import pytest
from support.engine_driver import EngineDriver
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


def secured(before: bytes = HELLO) -> EngineDriver:
    """Return an engine that has just begun to speak TLS."""
    driver = EngineDriver(starttls=True)
    driver.feed(before, STARTTLS)
    driver.engine.tls_started()
    return driver


@pytest.mark.parametrize(
    ("starttls", "encrypted", "offered"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_starttls_is_offered_if_available(starttls: bool, encrypted: bool, offered: bool) -> None:
    driver = EngineDriver(starttls=starttls, encrypted=encrypted)
    extensions = driver.feed(HELLO).decode().replace("-", " ").split()
    assert ("STARTTLS" in extensions) is offered
    assert (b" STARTTLS" in driver.feed(b"HELP\r\n")) is offered
    assert b"STARTTLS" not in driver.feed(b"HELO c\r\n")


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
def test_starttls_command(before: bytes, command: bytes, reply: bytes) -> None:
    driver = EngineDriver(starttls=True)
    driver.feed(before)
    assert driver.feed(command).startswith(reply)
    assert driver.engine.securing is reply.startswith(b"220")


@pytest.mark.parametrize("command", [b"STARTTLS\r\n", b"STARTTLS now\r\n"])
def test_starttls_without_tls_is_not_implemented(command: bytes) -> None:
    driver = EngineDriver()
    driver.feed(HELLO)
    assert driver.feed(command).startswith(b"502 5.5.1 ")


@pytest.mark.parametrize("starttls", [True, False])
def test_starttls_over_tls_is_refused(starttls: bool) -> None:
    driver = EngineDriver(starttls=starttls, encrypted=True)
    driver.feed(HELLO)
    assert driver.feed(STARTTLS) == b"503 5.5.1 TLS already active\r\n"
    assert driver.events == []
    assert codes(driver.feed(MAIL)) == [250]


def test_second_starttls_is_refused() -> None:
    driver = secured()
    driver.feed(HELLO)
    assert driver.feed(STARTTLS) == b"503 5.5.1 TLS already active\r\n"


@pytest.mark.parametrize("before", [HELLO, HELLO + MAIL, ENVELOPE])
def test_session_state_is_discarded(before: bytes) -> None:
    driver = secured(before)
    engine = driver.engine
    assert engine.encrypted
    assert (engine.client_name, engine.extended, engine.transaction) == ("", False, None)
    for command in (MAIL, RCPT, b"DATA\r\n"):
        assert codes(driver.feed(command)) == [503]
    assert codes(driver.feed(HELLO, MAIL, b"DATA\r\n")) == [250, 250, 554]
    assert codes(driver.feed(RCPT + b"DATA\r\nx\r\n.\r\n")) == [250, 354, 250]
    assert driver.messages == [b"x\r\n"]


def test_extensions_need_new_ehlo() -> None:
    driver = secured()
    driver.feed(b"HELO c\r\n")
    assert codes(driver.feed(b"MAIL FROM:<a@b> SIZE=10\r\n")) == [555]


def test_error_count_is_kept() -> None:
    driver = EngineDriver(starttls=True, max_errors=3)
    driver.feed(HELLO, b"X\r\n" * 3, STARTTLS)
    driver.engine.tls_started()
    assert codes(driver.feed(b"X\r\n")) == [421]


def test_temporary_refusal_keeps_the_session() -> None:
    driver = EngineDriver(starttls=True, max_errors=1)
    driver.feed(ENVELOPE)
    for _ in range(5):
        driver.engine.receive(STARTTLS)
        assert isinstance(driver.engine.next_event(), StartTls)
        assert driver.engine.waiting
        driver.engine.reject(NO_TLS_NOW)
        assert codes(driver.feed(b"NOOP\r\n")) == [454, 250]
    assert not driver.engine.securing
    assert codes(driver.feed(b"DATA\r\n.\r\n")) == [354, 250]


# --- plaintext after STARTTLS ---------------------------------------------------------------------


@pytest.mark.parametrize("surplus", [b"NOOP\r\nQUIT\r\n", b"\r\n", b"\0", b"\x16\x03\x01\x02\x00"])
def test_pipelined_plaintext_at_every_split(surplus: bytes) -> None:
    go_ahead = len(HELLO + STARTTLS)
    stream = HELLO + STARTTLS + surplus
    edges = range(1, len(stream))
    for first, second in itertools.combinations_with_replacement(edges, 2):
        driver = EngineDriver(starttls=True)
        driver.feed(stream[:first], stream[first:second], stream[second:])
        if go_ahead in (first, second):
            # The go-ahead was sent before more came: the client takes whatever follows for TLS.
            assert driver.events == [("starttls",), ("goodbye",)]
            assert codes(driver.replies) == [250, 220]
        else:
            assert driver.events == [("goodbye",)]
            assert driver.replies.endswith(TOO_EARLY)
            assert codes(driver.replies) == [250, 554]
        assert driver.engine.closed
        assert driver.engine.buffered == 0
        assert driver.feed(b"NOOP\r\n") == b""
        with pytest.raises(RuntimeError):
            driver.engine.tls_started()


def test_input_before_the_answer_closes_session() -> None:
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


def test_pipelined_input_is_executed_if_refused() -> None:
    engine = asked()
    engine.receive(MAIL)
    engine.reject(NO_TLS_NOW)
    assert isinstance(engine.next_event(), Mail)
    assert engine.replies() == NO_TLS_NOW


def test_plaintext_after_go_ahead_closes_silently() -> None:
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


def test_tls_started_without_starttls_raises() -> None:
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


def test_starttls_at_end_of_pipeline() -> None:
    driver = EngineDriver(starttls=True)
    said = driver.feed(ENVELOPE + b"NOOP\r\n" + STARTTLS)
    assert codes(said) == [250, 250, 250, 250, 220]
    driver.engine.tls_started()
    assert driver.engine.transaction is None
