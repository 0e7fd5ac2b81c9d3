"""Commands that the SMTP engine reports as events before carrying them out (`Limits.told`)."""

from __future__ import annotations

import pytest
from support.engine_driver import EngineDriver
from support.smtp_harness import ENVELOPE, HELLO, HOSTNAME, MAIL, RCPT, codes

from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.replies import NOT_VERIFIED, OK, TELLABLE, reply
from fastlisten.handlers.smtp.engine.smtp_events import Command, Goodbye

ALL = {
    "EHLO": b"EHLO client\r\n",
    "HELO": b"helo client\r\n",
    "RSET": b"RSET\r\n",
    "NOOP": b"NOOP  some words \r\n",
    "VRFY": b"VRFY <\xff>\r\n",
    "HELP": b"HELP\r\n",
    "QUIT": b"quit\r\n",
}

#: What the client calls itself in HELLO.
FIRST = "client.example.com"


def asked(verb: str, before: bytes = b"", **limits: object) -> tuple[SmtpEngine, Command]:
    """Return an engine in which a command waits, and the command."""
    engine = SmtpEngine(Limits(HOSTNAME, told=frozenset({verb}), **limits))  # type: ignore[arg-type]
    engine.receive(before + ALL[verb])
    while not isinstance(event := engine.next_event(), Command) or event.argument == FIRST:
        engine.accept()
    engine.replies()
    return engine, event


def usual(line: bytes) -> bytes:
    return EngineDriver().feed(line)


@pytest.mark.parametrize("verb", ALL)
def test_accept_sends_the_default_reply(verb: str) -> None:
    engine, command = asked(verb)
    assert command.verb == verb
    assert command.usual == usual(ALL[verb])
    assert engine.replies() == b""
    engine.accept()
    engine.next_event()
    assert engine.replies() == command.usual


def test_event_carries_the_argument() -> None:
    told = {verb: asked(verb)[1].argument for verb in ALL}
    assert told == {
        "EHLO": "client",
        "HELO": "client",
        "RSET": "",
        "NOOP": "some words",
        "VRFY": "<\ufffd>",
        "HELP": "",
        "QUIT": "",
    }
    assert asked("VRFY")[1].usual == NOT_VERIFIED


@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize("answer", [reply(250, "2.0.0", "As you like", "and more"), OK])
def test_accept_with_another_reply(verb: str, answer: bytes) -> None:
    engine, _ = asked(verb)
    engine.accept(answer)
    engine.next_event()
    assert engine.replies() == answer


def test_command_has_no_effect_before_the_answer() -> None:
    engine, _ = asked("EHLO", b"HELO first\r\n" + MAIL)
    assert engine.waiting
    assert engine.next_event() is None
    assert (engine.client_name, engine.extended) == ("first", False)
    before = engine.transaction
    engine.accept()
    assert (engine.client_name, engine.extended) == ("client", True)
    assert before is not None
    assert engine.transaction is None
    assert engine.next_event() is None


@pytest.mark.parametrize("verb", ALL)
def test_rejected_command_has_no_effect(verb: str) -> None:
    engine, _ = asked(verb, HELLO + MAIL)
    engine.reject(reply(550, "5.7.1", "No"))
    assert engine.client_name == FIRST
    assert engine.transaction is not None
    assert engine.next_event() is None
    assert engine.replies() == b"550 5.7.1 No\r\n"
    assert not engine.closed


@pytest.mark.parametrize("verb", ALL)
def test_421_closes_session(verb: str) -> None:
    engine, _ = asked(verb)
    engine.reject(reply(421, "4.3.2", "Going"))
    assert isinstance(engine.next_event(), Goodbye)
    assert engine.replies() == b"421 4.3.2 Going\r\n"


def test_quit_is_followed_by_goodbye() -> None:
    engine, _ = asked("QUIT", HELLO + MAIL)
    engine.receive(MAIL)
    engine.accept()
    assert engine.closed
    assert isinstance(engine.next_event(), Goodbye)
    assert engine.transaction is None
    assert engine.buffered == 0


@pytest.mark.parametrize(
    "line", [b"EHLO\r\n", b"HELO a b\r\n", b"RSET x\r\n", b"VRFY\r\n", b"QUIT x\r\n"]
)
def test_syntax_errors_are_not_reported(line: bytes) -> None:
    driver = EngineDriver(told=TELLABLE)
    assert codes(driver.feed(line)) == [501]
    assert driver.events == []


def test_rejections_count_as_errors() -> None:
    driver = EngineDriver(told=TELLABLE, max_errors=2)
    assert codes(driver.feed(b"NOOP no\r\n" * 5)) == [550, 550, 421]


def test_other_commands_are_not_reported() -> None:
    driver = EngineDriver(told=frozenset({"NOOP"}))
    driver.feed(ENVELOPE + b"NOOP\r\nRSET\r\nHELP\r\nQUIT\r\n")
    assert [event[0] for event in driver.events] == ["mail", "rcpt", "command", "reset", "goodbye"]


def test_observing_does_not_change_replies() -> None:
    stream = HELLO + b"HELO x\r\nNOOP\r\nHELP\r\nVRFY y\r\n" + ENVELOPE + b"RSET\r\n" + MAIL + RCPT
    stream += b"DATA\r\nQUIT\r\n.\r\nQUIT\r\n"
    told, untold = EngineDriver(told=TELLABLE), EngineDriver()
    assert told.feed(stream) == untold.feed(stream)
    assert told.messages == untold.messages == [b"QUIT\r\n"]


def test_lhlo_is_reported_in_lmtp() -> None:
    driver = EngineDriver(told=TELLABLE, protocol="lmtp")
    assert codes(driver.feed(HELLO + b"LHLO x\r\n")) == [500, 250]
    assert driver.events == [("command", "LHLO", "x")]


@pytest.mark.parametrize("verb", ["MAIL", "DATA", "noop", "XYZ"])
def test_unobservable_verb_raises(verb: str) -> None:
    with pytest.raises(ValueError, match=verb):
        Limits(HOSTNAME, told=frozenset({verb}))


def test_replies_are_flushed_during_long_pipelines() -> None:
    driver = EngineDriver(told=TELLABLE)
    assert codes(driver.feed(b"NOOP\r\n" * 1000)) == [250] * 1000
    engine = SmtpEngine(Limits(HOSTNAME, told=TELLABLE))
    engine.receive(b"HELP\r\n" * 1000)
    most = 0
    while (event := engine.next_event()) is not None:
        if isinstance(event, Command):
            engine.accept()
        else:
            most = max(most, len(engine.replies()))
    assert 0 < most < 20_000
