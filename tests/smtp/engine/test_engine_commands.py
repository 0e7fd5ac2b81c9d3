"""Commands in the SMTP engine (RFC 5321): their order, syntax, replies and effects."""

from __future__ import annotations

import pytest
from support.engine_driver import NOBODY, EngineDriver
from support.smtp_harness import ENVELOPE, HELLO, HOSTNAME, MAIL, RCPT, codes

from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine.smtp_events import Flush, Goodbye, Mail, Recipient


def test_complete_session() -> None:
    driver = EngineDriver()
    assert codes(driver.feed(HELLO)) == [250]
    assert codes(driver.feed(MAIL)) == [250]
    assert codes(driver.feed(RCPT)) == [250]
    assert codes(driver.feed(b"DATA\r\n")) == [354]
    assert driver.feed(b"Subject: x\r\n\r\n..dot\r\n") == b""
    assert codes(driver.feed(b".\r\n")) == [250]
    assert codes(driver.feed(b"QUIT\r\n")) == [221]
    assert driver.messages == [b"Subject: x\r\n\r\n.dot\r\n"]
    assert [event[0] for event in driver.events] == ["mail", "rcpt", "message", "goodbye"]
    assert driver.engine.closed


def test_ehlo_lists_extensions() -> None:
    lines = EngineDriver(max_message_size=70_000).feed(HELLO).decode().split("\r\n")
    assert lines == [
        f"250-{HOSTNAME}",
        "250-PIPELINING",
        "250-SIZE 70000",
        "250-8BITMIME",
        "250-BINARYMIME",
        "250-CHUNKING",
        "250-SMTPUTF8",
        "250-DSN",
        "250-ENHANCEDSTATUSCODES",
        "250-LIMITS RCPTMAX=100",
        "250 HELP",
        "",
    ]


def test_replies_have_enhanced_status_code_of_their_class() -> None:
    driver = EngineDriver()
    driver.feed(HELLO)
    said = driver.feed(
        b"NOOP\r\nRSET\r\nHELP\r\nVRFY a\r\nEXPN a\r\nNONSENSE\r\nRCPT TO:<a@b>\r\nMAIL x\r\n"
        + MAIL
        + RCPT
        + b"RCPT TO:<nobody@x>\r\nRCPT\r\nDATA x\r\nQUIT\r\n"
    )
    for line in said.decode().splitlines():
        assert line[:1] == line[4:5], line
        assert line[5] == ".", line


def test_helo_offers_no_extensions() -> None:
    driver = EngineDriver()
    assert driver.feed(b"HELO client\r\n") == f"250 {HOSTNAME}\r\n".encode()
    assert codes(driver.feed(b"MAIL FROM:<a@b> SIZE=10\r\n")) == [555]
    assert codes(driver.feed(MAIL)) == [250]


@pytest.mark.parametrize(
    "name", [b"client", b"a.b.c", b"[127.0.0.1]", b"[IPv6:::1]", b"under_score.lan", b"10.0.0.1"]
)
def test_valid_client_name(name: bytes) -> None:
    driver = EngineDriver()
    assert codes(driver.feed(b"EHLO " + name + b"\r\n")) == [250]
    assert driver.engine.client_name == name.decode()


@pytest.mark.parametrize("name", [b"", b"a b", b"a<b>", b"(x)", b"\xff\xfe", b"x" * 256, b"[a"])
@pytest.mark.parametrize("verb", [b"EHLO", b"HELO"])
def test_invalid_client_name(verb: bytes, name: bytes) -> None:
    driver = EngineDriver()
    assert codes(driver.feed(verb + b" " + name + b"\r\n")) == [501]
    assert codes(driver.feed(MAIL)) == [503]


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        (b"", MAIL, 503),
        (b"", RCPT, 503),
        (b"", b"DATA\r\n", 503),
        (b"", b"NOOP\r\n", 250),
        (b"", b"NOOP with words\r\n", 250),
        (b"", b"VRFY alice\r\n", 252),
        (b"", b"HELP\r\n", 214),
        (b"", b"HELP MAIL\r\n", 214),
        (b"", b"RSET\r\n", 250),
        (b"", b"QUIT\r\n", 221),
        (HELLO, RCPT, 503),
        (HELLO, b"DATA\r\n", 503),
        (HELLO + MAIL, MAIL, 503),
        (HELLO + MAIL, b"DATA\r\n", 554),
        (HELLO + MAIL + b"RCPT TO:<nobody@x>\r\n", b"DATA\r\n", 554),
        (ENVELOPE, b"DATA now\r\n", 501),
        (ENVELOPE, b"RSET now\r\n", 501),
        (ENVELOPE, b"QUIT now\r\n", 501),
        (HELLO, b"VRFY\r\n", 501),
        (HELLO, b"\r\n", 500),
        (HELLO, b"   \r\n", 500),
        (HELLO, b" NOOP\r\n", 500),
        (HELLO, b"NOOPX\r\n", 500),
        (HELLO, b"MAILFROM:<a@b>\r\n", 500),
        (HELLO, b"\xff\xfe\xfd\r\n", 500),
        (HELLO, b"EXPN list\r\n", 502),
        (HELLO, b"STARTTLS\r\n", 502),
        (HELLO, b"AUTH PLAIN AAAA\r\n", 502),
        (HELLO, b"LHLO client\r\n", 500),
        (HELLO, b"noop\r\n", 250),
        (HELLO, b"nOoP  \r\n", 250),
        (HELLO, b"mail from:<a@b>\r\n", 250),
        (HELLO, b"MAIL FROM: <a@b>\r\n", 250),
        (HELLO, b"MAIL FROM:<a@b>  \r\n", 250),
        (HELLO + MAIL, b"rCpT tO: <a@b>\r\n", 250),
        (HELLO, b"MAIL TO:<a@b>\r\n", 501),
        (HELLO, b"MAIL\r\n", 501),
        (HELLO, b"MAIL FROM:a@b\r\n", 501),
        (HELLO, b"MAIL FROM:<a@b\r\n", 501),
        (HELLO, b"MAIL FROM:<a>\r\n", 501),
        (HELLO, b"MAIL FROM:<postmaster>\r\n", 501),
        (HELLO, b"MAIL FROM:<a@[192.0.2]>\r\n", 501),
        (HELLO, "MAIL FROM:<a\u2028b@c> SMTPUTF8\r\n".encode(), 501),
        (HELLO, b"MAIL FROM:<a@b> SMTPUTF8 SIZE=\xff\r\n", 501),
        (HELLO + MAIL, b"RCPT TO:<>\r\n", 501),
        (HELLO + MAIL, b"RCPT TO:<\xff@b>\r\n", 501),
        (HELLO + MAIL, "RCPT TO:<poſtmaster>\r\n".encode(), 501),
    ],
)
def test_command_order_and_syntax(before: bytes, command: bytes, code: int) -> None:
    driver = EngineDriver()
    driver.feed(before)
    assert codes(driver.feed(command)) == [code]


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        (b"", 250),
        (b" SIZE=1000", 250),
        (b" SIZE=0", 250),
        (b" size=1000 body=8bitmime smtputf8", 250),
        (b" BODY=7BIT", 250),
        (b"   BODY=7BIT   SIZE=1", 250),
        (b" SIZE=100000", 250),
        (b" SIZE=100001", 552),
        (b" SIZE=99999999999999999999", 552),
        (b" SIZE=999999999999999999999", 501),
        (b" SIZE", 501),
        (b" SIZE=", 501),
        (b" SIZE=-1", 501),
        (b" SIZE=1k", 501),
        (b" SIZE=1 SIZE=1", 501),
        (b" BODY=BINARYMIME", 250),
        (b" BODY=16BIT", 501),
        (b" BODY", 501),
        (b" SMTPUTF8=1", 501),
        (b"SIZE=1", 501),
        (b" =1", 501),
        (b" A=b=c", 501),
        (b" \tSIZE=1", 501),
        (b" AUTH=<>", 555),
        (b" NOTIFY=NEVER", 555),
        (b" X-Y", 555),
    ],
)
def test_mail_parameters(parameters: bytes, code: int) -> None:
    driver = EngineDriver(max_message_size=100_000)
    driver.feed(HELLO)
    assert codes(driver.feed(b"MAIL FROM:<a@b>" + parameters + b"\r\n")) == [code]
    assert (driver.engine.transaction is not None) is (code == 250)


@pytest.mark.parametrize("parameters", [b" RET=FULL", b" SIZE=1", b" X-Y=1"])
def test_unknown_rcpt_parameters(parameters: bytes) -> None:
    driver = EngineDriver()
    driver.feed(HELLO + MAIL)
    assert codes(driver.feed(b"RCPT TO:<a@b>" + parameters + b"\r\n")) == [555]


def test_mail_parameters_are_passed_on() -> None:
    driver = EngineDriver()
    line = "MAIL FROM:<müller@bücher.example> BODY=8BITMIME SMTPUTF8 SIZE=77\r\n"
    driver.feed(HELLO, line.encode())
    assert driver.events == [("mail", "müller@bücher.example", 77, "8BITMIME", True)]


@pytest.mark.parametrize(
    ("path", "text", "local", "domain"),
    [
        ("<a@B.Example>", "a@B.Example", "a", "b.example"),
        ("<@one,@two.example:a@b>", "a@b", "a", "b"),
        ("<Postmaster>", "Postmaster", "postmaster", ""),
        ('<"a b"@c>', '"a b"@c', "a b", "c"),
        ('<"a>b"@c>', '"a>b"@c', "a>b", "c"),
        ('<"a\\"@b"@c>', '"a\\"@b"@c', 'a"@b', "c"),
        ("<a@[127.0.0.1]>", "a@[127.0.0.1]", "a", "[127.0.0.1]"),
        ("<a@[IPv6:2001:DB8::0:1]>", "a@[IPv6:2001:DB8::0:1]", "a", "[ipv6:2001:db8::1]"),
    ],
)
def test_rcpt_paths(path: str, text: str, local: str, domain: str) -> None:
    driver = EngineDriver()
    driver.feed(HELLO + MAIL)
    assert codes(driver.feed(f"RCPT TO:{path}\r\n".encode())) == [250]
    _, mailbox, _ = driver.events[-1]
    assert (mailbox.text, mailbox.local, mailbox.domain) == (text, local, domain)


def test_null_reverse_path_is_empty_sender() -> None:
    driver = EngineDriver()
    driver.feed(HELLO, b"MAIL FROM:<>\r\n")
    assert driver.events == [("mail", "", 0, "", False)]


def test_non_ascii_addresses_need_smtputf8() -> None:
    driver = EngineDriver()
    driver.feed(HELLO)
    assert codes(driver.feed("MAIL FROM:<ü@b>\r\n".encode())) == [553]
    driver.feed(MAIL)
    said = driver.feed("RCPT TO:<ü@b>\r\n".encode())
    assert said.startswith(b"553 5.6.7 ")


def test_path_length_limit() -> None:
    driver = EngineDriver()
    driver.feed(HELLO)
    longest = b"MAIL FROM:<" + b"a" * 250 + b"@b.c>\r\n"
    assert codes(driver.feed(longest.replace(b"@b.c", b"@b.cd"))) == [501]
    assert codes(driver.feed(longest)) == [250]


@pytest.mark.parametrize("command", [b"RSET\r\n", HELLO, b"HELO again\r\n"])
def test_commands_that_reset_the_transaction(command: bytes) -> None:
    driver = EngineDriver()
    driver.feed(ENVELOPE)
    assert codes(driver.feed(command)) == [250]
    assert driver.events[-1] == ("reset",)
    assert driver.engine.transaction is None
    assert codes(driver.feed(b"DATA\r\n")) == [503]


def test_too_many_recipients_get_452() -> None:
    driver = EngineDriver(max_recipients=100)
    driver.feed(HELLO + MAIL)
    said = driver.feed(RCPT * 103)
    assert codes(said) == [250] * 100 + [452] * 3
    assert said.endswith(b"\r\n452 4.5.3 Too many recipients\r\n")
    assert codes(driver.feed(b"DATA\r\n.\r\n")) == [354, 250]


def test_too_many_unknown_recipients_close_session() -> None:
    driver = EngineDriver(max_recipients=100)
    driver.feed(HELLO + MAIL)
    assert codes(driver.feed(b"RCPT TO:<nobody@x>\r\n" * 150)) == [550] * 100 + [421]
    assert driver.engine.closed


def test_accepted_message_resets_count_of_rejected_recipients() -> None:
    driver = EngineDriver(max_recipients=100)
    driver.feed(HELLO)
    for _ in range(3):
        driver.feed(MAIL + b"RCPT TO:<nobody@x>\r\n" * 99 + RCPT)
        assert codes(driver.feed(b"DATA\r\n.\r\n")) == [354, 250]


def test_too_many_errors() -> None:
    driver = EngineDriver(max_errors=3)
    assert codes(driver.feed(b"X\r\n" * 3)) == [500] * 3
    said = driver.feed(b"Y\r\nNOOP\r\n")
    assert said == f"421 4.7.0 {HOSTNAME} Too many errors\r\n".encode()
    assert driver.events == [("goodbye",)]
    assert driver.feed(b"NOOP\r\n") == b""


def test_http_request_closes_session() -> None:
    driver = EngineDriver()
    said = driver.feed(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + ENVELOPE + b"DATA\r\nx\r\n.\r\n")
    assert codes(said) == [421]
    assert driver.events == [("goodbye",)]


def test_commands_after_quit_are_ignored() -> None:
    driver = EngineDriver()
    assert codes(driver.feed(ENVELOPE + b"QUIT\r\n" + ENVELOPE)) == [250, 250, 250, 221]
    assert driver.engine.buffered == 0


def test_pipelined_commands_wait_for_the_decision() -> None:
    engine = SmtpEngine(Limits(HOSTNAME))
    engine.receive(ENVELOPE)
    assert isinstance(engine.next_event(), Mail)
    assert codes(engine.replies()) == [250]
    assert engine.waiting
    assert engine.next_event() is None
    engine.receive(b"NOOP\r\n")
    assert engine.next_event() is None
    assert engine.buffered == len(RCPT) + 6
    engine.accept()
    assert isinstance(engine.next_event(), Recipient)
    engine.accept(reply(250, "2.1.5", "Welcome"))
    assert engine.next_event() is None
    assert engine.replies().endswith(b"250 2.1.5 Welcome\r\n250 2.0.0 Ok\r\n")


def test_rejected_message_ends_the_transaction() -> None:
    engine = SmtpEngine(Limits(HOSTNAME))
    engine.receive(ENVELOPE + b"DATA\r\nx\r\n.\r\n" + MAIL)
    for _ in range(2):
        engine.next_event()
        engine.accept()
    engine.next_event()
    assert engine.transaction is not None
    engine.reject(reply(451, "4.3.0", "No"))
    assert isinstance(engine.next_event(), Mail)
    assert engine.transaction is None


def test_421_closes_session() -> None:
    engine = SmtpEngine(Limits(HOSTNAME))
    engine.receive(ENVELOPE)
    engine.next_event()
    engine.reject(reply(421, "4.3.2", "Going"))
    assert isinstance(engine.next_event(), Goodbye)
    assert engine.next_event() is None
    assert engine.replies().endswith(b"421 4.3.2 Going\r\n")


def test_accept_or_reject_without_event_raises() -> None:
    engine = SmtpEngine(Limits(HOSTNAME))
    with pytest.raises(RuntimeError):
        engine.accept()
    with pytest.raises(RuntimeError):
        engine.reject(NOBODY)


def test_replies_are_flushed_during_long_pipelines() -> None:
    engine = SmtpEngine(Limits(HOSTNAME))
    engine.receive(b"HELP\r\n" * 1000)
    said, flushes = b"", 0
    while (event := engine.next_event()) is not None:
        assert isinstance(event, Flush)
        batch = engine.replies()
        assert len(batch) < 16_384
        said += batch
        flushes += 1
    said += engine.replies()
    assert codes(said) == [214] * 1000
    assert flushes == 1000 // 64


def test_reply_lines_are_at_most_512_octets() -> None:
    driver = EngineDriver(max_errors=1000)
    long = b"X" * 400
    said = driver.feed(
        HELLO, b"MAIL FROM:<a@b> " + long + b"\r\n", b"EHLO " + long + b"\r\n", long + b"\r\n"
    )
    assert max(map(len, said.split(b"\n"))) <= 512


def test_multiline_replies() -> None:
    assert reply(214, "2.0.0", "a", "b") == b"214-2.0.0 a\r\n214 2.0.0 b\r\n"
    assert reply(250, "", "a", "b", "c") == b"250-a\r\n250-b\r\n250 c\r\n"
