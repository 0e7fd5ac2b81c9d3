"""BDAT and BODY=BINARYMIME in the SMTP engine (RFC 3030): chunks, mistakes, hostile input."""

from __future__ import annotations

import pytest
from support.engine_driver import EngineDriver, chunk, message
from support.smtp_harness import ENVELOPE, HELLO, MAIL, RCPT, codes, cut

from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.smtp_events import Content

BINARY = HELLO + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n" + RCPT
SIZES = [1, 2, 3, 7, 100_000]


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "chunks",
    [
        [b"Subject: x\r\n\r\ntext\r\n"],
        [b""],
        [b"", b""],
        [b"a\r\n", b"", b"b\r\n"],
        [b"a\r", b"\nb\r\n"],
        [b"a\r", b"", b"\nb\r\n", b""],
        [b"a", b"b", b"\r", b"\n"],
        [b"no end"],
        [b"..a\r\n.\r\n.b\r\n"],
        [b"x\r\n.\r\n", MAIL, RCPT, b"DATA\r\n", b"QUIT\r\n"],
        [bytes(set(range(256)) - {10, 13})],
    ],
)
def test_message_is_its_chunks_joined(chunks: list[bytes], size: int) -> None:
    driver = EngineDriver()
    stream = message(chunks)
    driver.feed(*cut(ENVELOPE + stream + b"NOOP\r\n", size))
    assert codes(driver.replies) == [250] * (3 + len(chunks) + 1)
    assert driver.messages == [b"".join(chunks)]
    assert driver.engine.transaction is None
    assert driver.engine.buffered == 0


@pytest.mark.parametrize(
    "command", [b"bdat 3 last", b"BDAT 03 LAST", b"BDAT  3  LAST  ", b"BDAT 3 Last"]
)
def test_bdat_command_syntax(command: bytes) -> None:
    driver = EngineDriver()
    driver.feed(ENVELOPE + command + b"\r\nx\r\n")
    assert driver.messages == [b"x\r\n"]


def test_reply_to_each_chunk_once_it_is_complete() -> None:
    driver = EngineDriver()
    driver.feed(ENVELOPE)
    assert driver.feed(b"BDAT 3\r\nx\r") == b""
    assert driver.feed(b"\n") == b"250 2.0.0 Ok\r\n"
    assert driver.feed(b"BDAT 3 LAST\r\n") == b""
    assert driver.feed(b"y\r") == b""
    assert driver.feed(b"\n") == b"250 2.0.0 Ok\r\n"


def test_partial_chunk_is_passed_on_at_once() -> None:
    engine = SmtpEngine(Limits("x"))
    engine.receive(ENVELOPE)
    while engine.next_event() is not None:
        engine.accept()
    engine.receive(b"BDAT 1000\r\n\r\n.\r")
    event = engine.next_event()
    assert event == Content(b"\r\n.\r", False)
    assert engine.buffered == 0


def test_data_and_bdat_in_one_session() -> None:
    driver = EngineDriver()
    envelope = MAIL + RCPT
    driver.feed(HELLO, envelope + b"DATA\r\na\r\n.\r\n", envelope + chunk(b"b\r\n", True))
    driver.feed(envelope + chunk(b"c\r\n") + b"RSET\r\n" + envelope + b"DATA\r\nd\r\n.\r\n")
    assert driver.messages == [b"a\r\n", b"b\r\n", b"d\r\n"]
    assert set(codes(driver.replies)) == {250, 354}


@pytest.mark.parametrize(("first", "said"), [(b"b", 250), (b"\n", 550)])
def test_aborted_message_does_not_affect_the_next(first: bytes, said: int) -> None:
    driver = EngineDriver()
    driver.feed(ENVELOPE + chunk(b"a\r") + b"RSET\r\n" + MAIL + RCPT)
    assert codes(driver.feed(chunk(first, True))) == [said]


@pytest.mark.parametrize("size", SIZES)
def test_binarymime_keeps_all_octets(size: int) -> None:
    data = b"\0\r\r\n\n\n.\r\n.\r\n" + bytes(range(256)) + b"\r"
    driver = EngineDriver()
    driver.feed(*cut(BINARY + chunk(data[:5]) + chunk(data[5:], True) + b"NOOP\r\n", size))
    assert codes(driver.replies) == [250] * 6
    assert driver.messages == [data]


def test_data_is_refused_for_binarymime() -> None:
    driver = EngineDriver()
    driver.feed(BINARY)
    assert driver.feed(b"DATA\r\n").startswith(b"503 5.5.1 ")
    assert codes(driver.feed(chunk(b"\r", True))) == [250]
    assert driver.messages == [b"\r"]


# --- between chunks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"DATA\r\n", 503),
        (RCPT, 503),
        (MAIL, 503),
        (b"AUTH PLAIN\r\n", 502),
        (b"NOOP\r\n", 250),
        (b"VRFY x\r\n", 252),
        (b"NONSENSE\r\n", 500),
    ],
)
def test_commands_that_keep_the_message(command: bytes, code: int) -> None:
    driver = EngineDriver()
    driver.feed(ENVELOPE + chunk(b"a"))
    assert codes(driver.feed(command)) == [code]
    assert codes(driver.feed(chunk(b"b", True))) == [250]
    assert driver.messages == [b"ab"]
    assert sum(event[0] == "rcpt" for event in driver.events) == 1


@pytest.mark.parametrize("command", [b"RSET\r\n", HELLO, b"HELO x\r\n"])
def test_commands_that_abort_the_message(command: bytes) -> None:
    driver = EngineDriver()
    driver.feed(ENVELOPE + chunk(b"a"))
    assert codes(driver.feed(command + chunk(b"b", True))) == [250, 503]
    assert driver.events[-1] == ("reset",)
    assert codes(driver.feed(HELLO + MAIL + RCPT + chunk(b"c", True))) == [250] * 4
    assert driver.messages == [b"c"]


def test_starttls_aborts_the_message() -> None:
    driver = EngineDriver(starttls=True)
    driver.feed(ENVELOPE + chunk(b"a"))
    assert codes(driver.feed(b"STARTTLS\r\n")) == [220]
    driver.engine.tls_started()
    assert codes(driver.feed(HELLO + chunk(b"b", True) + MAIL + RCPT)) == [250, 503, 250, 250]
    assert codes(driver.feed(chunk(b"c", True))) == [250]
    assert driver.messages == [b"c"]


@pytest.mark.parametrize("together", [True, False])
def test_chunk_before_handshake_closes_session(together: bool) -> None:
    driver = EngineDriver(starttls=True)
    driver.feed(ENVELOPE)
    pieces = [b"STARTTLS\r\n", chunk(b"a", True)]
    said = driver.feed(b"".join(pieces)) if together else driver.feed(*pieces)
    assert codes(said) == [554 if together else 220]
    assert driver.engine.closed
    assert driver.messages == []


# --- refusals -------------------------------------------------------------------------------------

EVIL = b"\r\nMAIL FROM:<evil@example.com>\r\nRCPT TO:<bob@example.org>\r\n"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(
    ("before", "code"),
    [
        (b"", 503),
        (HELLO, 503),
        (HELLO + MAIL, 554),
        (HELLO + MAIL + b"RCPT TO:<nobody@x>\r\n", 554),
        (b"HELO x\r\n" + MAIL + RCPT, 503),
    ],
)
def test_octets_of_refused_chunk_are_discarded(
    before: bytes, code: int, last: bool, size: int
) -> None:
    driver = EngineDriver()
    driver.feed(before)
    said = driver.feed(*cut(chunk(EVIL, last) + b"NOOP\r\n", size))
    assert codes(said) == [code, 250]
    assert ("mail", "evil@example.com", 0, "", False) not in driver.events
    assert driver.engine.transaction is None
    if MAIL in before:
        assert driver.events[-1] == ("reset",)


def test_refused_chunk_is_answered_after_its_octets() -> None:
    driver = EngineDriver()
    driver.feed(HELLO)
    assert driver.feed(b"BDAT 1000\r\n" + b"x" * 999) == b""
    assert codes(driver.feed(b"x")) == [503]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("word", [b"LASTT", b"LAST LAST", b"LAST\tx", b"\tLAST", b"last.", b"\xff"])
def test_word_other_than_last(word: bytes, size: int) -> None:
    driver = EngineDriver()
    driver.feed(ENVELOPE)
    stream = b"BDAT %d %b\r\n" % (len(EVIL), word) + EVIL + chunk(EVIL, True) + b"NOOP\r\n"
    said = driver.feed(*cut(stream, size))
    assert codes(said) == [501, 503, 250]
    assert said.startswith(b"501 5.5.4 Syntax: BDAT size [LAST]\r\n")
    assert driver.events[-1] == ("reset",)


@pytest.mark.parametrize(
    "size",
    [b"", b"-1", b"+1", b"1k", b"0x10", b"1e3", b"1_0", b"LAST", b"\xd9\xa1", b"1,5", b"1\tLAST"],
)
def test_invalid_chunk_size_closes_session(size: bytes) -> None:
    driver = EngineDriver()
    said = driver.feed(ENVELOPE + b"BDAT " + size + b"\r\n" + EVIL)
    assert codes(said) == [250, 250, 250, 501]
    assert said.endswith(b"501 5.5.4 mx.example.org Syntax error in BDAT; closing connection\r\n")
    assert driver.events[-1] == ("goodbye",)
    assert sum(event[0] == "mail" for event in driver.events) == 1


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("chunks", "said"),
    [
        ([b"a\rb\r\n"], [550]),
        ([b"a\nb\r\n"], [550]),
        ([b"a\rb\nc\r\n"], [550]),
        ([b"a\r", b"b\nc\r\n"], [250, 550]),
        ([b"a\r\nb\rc", b"d\ne\r\n"], [550, 503]),
        ([b"\n"], [550]),
        ([b"a\r"], [550]),
        ([b"a\r\r\n"], [550]),
        ([b"a\n", b"b"], [550, 503]),
        ([b"a\r", b"b"], [250, 550]),
        ([b"a\r", b""], [250, 550]),
        ([b"a\r", b"\r\n"], [250, 550]),
        ([b"a\r", b"\n\n"], [250, 550]),
        ([b"a\r", b"\n\r", b"\r"], [250, 250, 550]),
        ([b"a", b"\n"], [250, 550]),
        ([b"a\r\n", b"\n", b"c", b"d"], [250, 550, 503, 503]),
    ],
)
def test_bare_cr_or_lf_in_text_is_refused(chunks: list[bytes], said: list[int], size: int) -> None:
    driver = EngineDriver()
    driver.feed(ENVELOPE)
    stream = message(chunks)
    assert codes(driver.feed(*cut(stream + b"NOOP\r\n", size))) == [*said, 250]
    assert driver.messages == []
    assert driver.events[-1] == ("reset",)
    assert driver.engine.transaction is None


@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
@pytest.mark.parametrize(
    ("octets", "said"),
    [
        ([70_000], [250]),
        ([70_001], [552]),
        ([69_999, 1], [250, 250]),
        ([70_000, 0], [250, 250]),
        ([70_000, 1], [250, 552]),
        ([35_000, 35_000, 1, 1], [250, 250, 552, 503]),
        ([200_000, 5], [552, 503]),
    ],
)
def test_message_too_large(octets: list[int], said: list[int], size: int) -> None:
    driver = EngineDriver(max_message_size=70_000)
    driver.feed(ENVELOPE)
    stream = message([b"x" * count for count in octets])
    assert codes(driver.feed(*cut(stream + b"NOOP\r\n", size))) == [*said, 250]
    assert len(driver.messages) == (set(said) == {250})


# --- hostile input --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [b"1" + b"0" * 20, b"9" * 480, b"18446744073709551616"])
@pytest.mark.parametrize("before", [b"", ENVELOPE])
def test_huge_chunk_sizes(size: bytes, before: bytes) -> None:
    driver = EngineDriver()
    driver.feed(before)
    said = driver.feed(b"BDAT " + size + b" LAST\r\n")
    for _ in range(100):
        said += driver.feed(EVIL * 1000)
        assert driver.engine.buffered == 0
    assert said == b""
    assert driver.messages == []
    assert driver.engine.transaction is None
    assert not driver.engine.closed


def test_leading_zeros_in_chunk_size() -> None:
    driver = EngineDriver()
    assert (
        codes(driver.feed(ENVELOPE + b"BDAT " + b"0" * 400 + b"3 LAST\r\nx\r\nNOOP\r\n"))
        == [250] * 5
    )
    assert driver.messages == [b"x\r\n"]


def test_replies_are_flushed_during_many_empty_chunks() -> None:
    engine = SmtpEngine(Limits("x"))
    engine.receive(ENVELOPE)
    while engine.next_event() is not None:
        engine.accept()
    engine.replies()
    engine.receive(b"BDAT 0\r\n" * 1000)
    said, most = 0, 0
    while engine.next_event() is not None:  # Flush
        batch = engine.replies()
        said += len(codes(batch))
        most = max(most, len(batch))
    assert said + len(codes(engine.replies())) == 1000
    assert 0 < most < 2000


def test_repeated_chunks_out_of_order_close_session() -> None:
    driver = EngineDriver(max_errors=3)
    assert codes(driver.feed(HELLO + chunk(EVIL) * 10)) == [250, 503, 503, 503, 421]
    assert driver.events == [("goodbye",)]
    assert driver.engine.buffered == 0


def test_oversized_chunk_is_not_buffered() -> None:
    driver = EngineDriver(max_message_size=70_000)
    driver.feed(ENVELOPE + b"BDAT 10000000 LAST\r\n")
    for _ in range(999):
        driver.feed(b"x" * 10_000)
        assert driver.engine.buffered == 0
    assert driver.events[-1] == ("reset",)
    assert codes(driver.feed(b"x" * 10_000)) == [552]
