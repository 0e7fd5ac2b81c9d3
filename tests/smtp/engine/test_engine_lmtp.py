"""LMTP in the SMTP engine (RFC 2033): LHLO, and a reply for each recipient."""

from __future__ import annotations

from typing import Any

import pytest
from support.engine_driver import LATER, EngineDriver
from support.smtp_harness import HOSTNAME, MAIL, RCPT, codes

from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.replies import OK, reply
from fastlisten.handlers.smtp.engine.smtp_events import Content, Goodbye, Mail, Recipient

LHLO = b"LHLO client.example.com\r\n"
FULL = b"RCPT TO:<full@example.org>\r\n"
NOBODY = b"RCPT TO:<nobody@example.org>\r\n"

#: Ways to send a message of six octets after an envelope.
ENDS = {
    "data": b"DATA\r\ntext\r\n.\r\n",
    "bdat": b"BDAT 6 LAST\r\ntext\r\n",
    "chunks": b"BDAT 4\r\ntextBDAT 2 LAST\r\n\r\n",
}


def said_at_start(way: str) -> list[int]:
    return {"data": [354], "bdat": [], "chunks": [250]}[way]


def lmtp(**limits: Any) -> EngineDriver:
    driver = EngineDriver(**{"protocol": "lmtp"} | limits)
    driver.feed(LHLO)
    driver.replies = b""
    return driver


def to_the_end(engine: SmtpEngine) -> None:
    """Accept whatever comes before the end of a message."""
    while not isinstance(event := engine.next_event(), Content) or not event.final:
        assert event is not None
        if isinstance(event, Mail | Recipient):
            engine.accept()


def waiting(stream: bytes) -> SmtpEngine:
    """Return an engine that waits for the answer to a final Content."""
    engine = SmtpEngine(Limits(HOSTNAME, protocol="lmtp", max_errors=2))
    engine.receive(LHLO + stream)
    to_the_end(engine)
    engine.replies()
    return engine


def test_lhlo() -> None:
    driver = EngineDriver(protocol="lmtp")
    assert codes(driver.feed(b"EHLO x\r\nHELO x\r\n" + MAIL)) == [500, 500, 503]
    assert driver.replies.endswith(b"503 5.5.1 Send LHLO first\r\n")
    lines = driver.feed(LHLO).decode().splitlines()
    assert lines[0] == f"250-{HOSTNAME}"
    # RFC 2033 5: an LMTP server must have these; the rest is as in SMTP.
    assert {"250-PIPELINING", "250-ENHANCEDSTATUSCODES", "250-8BITMIME"} <= set(lines)
    assert driver.engine.client_name == "client.example.com"
    assert driver.engine.extended


def test_help_lists_lmtp_commands() -> None:
    said = lmtp().feed(b"HELP\r\n")
    assert b"LHLO" in said
    assert b"EHLO" not in said
    assert b"RFC 2033" in said


def test_http_request_is_told_this_is_lmtp() -> None:
    assert (
        lmtp().feed(b"GET / HTTP/1.0\r\n")
        == f"421 4.7.0 {HOSTNAME} This is LMTP, not HTTP\r\n".encode()
    )


@pytest.mark.parametrize("way", ENDS)
def test_one_reply_per_recipient_in_order(way: str) -> None:
    driver = lmtp()
    said = driver.feed(MAIL + RCPT + NOBODY + FULL + RCPT + FULL + ENDS[way] + b"NOOP\r\n")
    start = [250, 250, 550, 250, 250, 250, *said_at_start(way)]
    assert codes(said) == [*start, 250, 452, 250, 452, 250]
    assert said[-len(OK + LATER + OK + LATER + OK) :] == OK + LATER + OK + LATER + OK
    assert driver.messages == [b"text\r\n"]
    assert driver.engine.transaction is None


@pytest.mark.parametrize("way", ENDS)
@pytest.mark.parametrize("yes", [True, False])
def test_one_answer_is_repeated_for_each_recipient(way: str, yes: bool) -> None:
    engine = waiting(MAIL + RCPT * 3 + ENDS[way] + b"NOOP\r\n")
    if yes:
        engine.accept(reply(250, "2.0.0", "Kept"))
    else:
        engine.reject(reply(451, "4.3.0", "Not now"))
    assert engine.next_event() is None
    assert codes(engine.replies()) == [250 if yes else 451] * 3 + [250]


def test_accept_without_a_reply() -> None:
    engine = waiting(MAIL + RCPT * 2 + ENDS["data"])
    engine.accept()
    assert engine.replies() == OK * 2


@pytest.mark.parametrize("recipients", [b"", NOBODY])
def test_single_503_without_recipients(recipients: bytes) -> None:
    for end in (b"DATA\r\n", b"BDAT 1 LAST\r\nx", b"BDAT 1\r\nx"):
        driver = lmtp()
        driver.feed(MAIL + recipients)
        assert driver.feed(end).startswith(b"503 5.5.1 No valid recipients")
        assert codes(driver.feed(b"NOOP\r\n")) == [250]


def test_refused_data_gets_one_reply() -> None:
    driver = lmtp()
    driver.feed(b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n" + RCPT * 3)
    assert codes(driver.feed(b"DATA\r\n")) == [503]
    assert codes(driver.feed(b"DATA now\r\n")) == [501]
    assert codes(driver.feed(b"BDAT 1 LAST\r\n\r")) == [250] * 3


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"DATA\r\n" + b"x" * 80_000 + b"\r\n.\r\n", [354, 552, 552, 552]),
        (b"DATA\r\na\nb\r\n.\r\n", [354, 550, 550, 550]),
        (b"BDAT 80000 LAST\r\n" + b"x" * 80_000, [552, 552, 552]),
        (b"BDAT 3 LAST\r\na\nb", [550, 550, 550]),
        (b"BDAT 2\r\na\rBDAT 0 LAST\r\n", [250, 550, 550, 550]),
        # A chunk that is not the last is one reply; what follows it belongs to no transaction.
        (b"BDAT 80000\r\n" + b"x" * 80_000 + b"BDAT 1 LAST\r\nx", [552, 503]),
        (b"BDAT 3\r\na\nbBDAT 1 LAST\r\nx", [550, 503]),
        (b"BDAT 3 LATS\r\na\nb", [501]),
    ],
)
def test_message_refused_by_the_engine(message: bytes, said: list[int], size: int) -> None:
    driver = lmtp(max_message_size=70_000)
    driver.feed(MAIL + RCPT * 3)
    stream = message + b"NOOP\r\n"
    pieces = (stream[at : at + size] for at in range(0, len(stream), size))
    assert codes(driver.feed(*pieces)) == [*said, 250]
    assert driver.messages == []
    assert driver.engine.transaction is None


def test_message_refused_for_all_counts_as_one_error() -> None:
    engine = waiting((MAIL + RCPT * 5 + ENDS["data"]) * 3)
    engine.reject(reply(550, "5.7.1", "No"))
    said_so_far = engine.replies()
    assert codes(said_so_far) == [550] * 5
    for _ in range(2):
        to_the_end(engine)
        engine.answer([reply(550, "5.7.1", "No")] * 5)
    assert engine.closed
    assert isinstance(engine.next_event(), Goodbye)
    said = engine.replies()
    assert codes(said)[-1] == 421
    assert said.count(b"550 ") == 9


def test_message_accepted_for_some_is_no_error() -> None:
    engine = waiting((MAIL + RCPT * 2 + ENDS["data"]) * 10)
    for left in range(9, -1, -1):
        engine.answer([reply(550, "5.7.1", "No"), OK])
        if left:
            to_the_end(engine)
    assert not engine.closed


def test_temporary_failure_is_no_error() -> None:
    engine = waiting((MAIL + RCPT * 2 + ENDS["data"]) * 5)
    for left in range(4, -1, -1):
        engine.answer([LATER, reply(550, "5.7.1", "No")])
        if left:
            to_the_end(engine)
    assert not engine.closed


@pytest.mark.parametrize("all_of_them", [True, False])
def test_message_resets_count_of_rejected_recipients(all_of_them: bool) -> None:
    driver = lmtp(max_recipients=3)
    for _ in range(5):
        driver.feed(MAIL + NOBODY * 3 + RCPT + (b"" if all_of_them else FULL))
        assert codes(driver.feed(ENDS["data"]))[:2] == [354, 250]


def test_421_for_one_recipient_closes_session() -> None:
    engine = waiting(MAIL + RCPT * 3 + ENDS["data"] + MAIL)
    engine.answer([OK, reply(421, "4.3.2", "Going"), OK])
    assert engine.closed
    assert isinstance(engine.next_event(), Goodbye)
    assert codes(engine.replies()) == [250, 421, 250]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_wrong_number_of_answers_raises(count: int) -> None:
    engine = waiting(MAIL + RCPT * 2 + ENDS["data"])
    with pytest.raises(ValueError, match="each recipient"):
        engine.answer([OK] * count)
    assert engine.waiting
    engine.answer([OK, OK])
    with pytest.raises(RuntimeError):
        engine.answer([OK, OK])


def test_smtp_message_takes_one_answer() -> None:
    engine = SmtpEngine(Limits(HOSTNAME))
    engine.receive(b"EHLO x\r\n" + MAIL + RCPT * 3 + ENDS["data"])
    to_the_end(engine)
    engine.replies()
    with pytest.raises(ValueError, match="each recipient"):
        engine.answer([OK] * 3)
    engine.answer([OK])
    assert engine.replies() == OK


def test_starttls_and_auth_in_lmtp() -> None:
    driver = EngineDriver(protocol="lmtp", starttls=True, mechanisms=("PLAIN",))
    assert b"250-STARTTLS\r\n" in driver.feed(LHLO)
    assert codes(driver.feed(b"STARTTLS\r\n")) == [220]
    driver.engine.tls_started()
    said = driver.feed(LHLO)
    assert b"250-AUTH PLAIN\r\n" in said
    assert b"STARTTLS" not in said
