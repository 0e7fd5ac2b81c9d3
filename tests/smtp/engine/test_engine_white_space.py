"""White space in command lines, by RFC 5321: one space between words (4.1.1), none after the colon
of a path (4.1.1.2), any before the end of the line (4.1.1: receivers SHOULD tolerate it).

Rules of this file: tolerated white space changes nothing: events and replies are compared with
those of the plain line. Extra spaces between words, and after the colon, are accepted, as by every
other mail server; a tab counts as white space only at the end of the line.
"""

from __future__ import annotations

import base64
from typing import Any

import pytest
from support.aiosmtpd import Recorder, serving
from support.engine_driver import NAME, PASSWORD, EngineDriver
from support.smtp_client import connected
from support.smtp_harness import codes

from fastlisten.mail.logins.sasl import MECHANISMS

BLANKS = [b" ", b"\t", b" \t", b"\t \t ", b"\t" * 60]
ids = pytest.mark.parametrize("blanks", BLANKS, ids=["SP", "HTAB", "both", "mixed", "many"])
protocols = pytest.mark.parametrize("protocol", ["smtp", "lmtp"])

HELLO, MAIL, RCPT = b"EHLO c.example.com", b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.com>"
ENVELOPE = (HELLO, MAIL, RCPT)

#: Each command, and what comes before it.
COMMANDS: list[tuple[bytes, tuple[bytes, ...]]] = [
    (HELLO, ()),
    (b"HELO c.example.com", ()),
    (b"EHLO [192.0.2.1]", ()),
    (b"EHLO", ()),
    (MAIL, (HELLO,)),
    (b"MAIL FROM:<>", (HELLO,)),
    (b"MAIL FROM:<a@example.com> SIZE=10 BODY=8BITMIME", (HELLO,)),
    (b"MAIL FROM:<a@example.com> SIZE=x", (HELLO,)),
    (b"MAIL", (HELLO,)),
    (RCPT, (HELLO, MAIL)),
    (b"RCPT TO:<postmaster>", (HELLO, MAIL)),
    (b"RCPT TO:<b@example.com> NOTIFY=NEVER", (HELLO, MAIL)),
    (b"RCPT TO:<no@example.com>", (HELLO, MAIL)),
    (b"DATA", ENVELOPE),
    (b"DATA x", ENVELOPE),
    (b"BDAT 0", ENVELOPE),
    (b"BDAT 0 LAST", ENVELOPE),
    (b"RSET", ENVELOPE),
    (b"NOOP", ()),
    (b"NOOP word", ()),
    (b"VRFY b", (HELLO,)),
    (b"EXPN b", (HELLO,)),
    (b"HELP", ()),
    (b"HELP mail", ()),
    (b"QUIT", ()),
    (b"STARTTLS", (HELLO,)),
    (b"AUTH LOGIN", (HELLO,)),
    (b"AUTH PLAIN =", (HELLO,)),
    (b"XCLIENT", (HELLO,)),
    (b"WHAT", ()),
]


def said(protocol: str, lines: tuple[bytes, ...], **limits: Any) -> tuple[bytes, list[Any]]:
    """Return replies and events of a session."""
    if protocol == "lmtp":
        lines = tuple(line.replace(b"EHLO", b"LHLO") for line in lines)
    driver = EngineDriver(limits.pop("encrypted", False), protocol=protocol, **limits)
    for line in lines:
        driver.feed(line + b"\r\n")
    return driver.replies, driver.events


@protocols
@ids
@pytest.mark.parametrize("command", COMMANDS, ids=[c.decode() for c, _ in COMMANDS])
def test_trailing_white_space_is_ignored(
    command: tuple[bytes, tuple[bytes, ...]], blanks: bytes, protocol: str
) -> None:
    line, before = command
    limits: dict[str, Any] = {}
    if line.startswith(b"STARTTLS"):
        limits = {"starttls": True}
    elif line.startswith(b"AUTH") and protocol == "smtp":
        limits = {"mechanisms": MECHANISMS, "encrypted": True}
    found = said(protocol, (*before, line + blanks), **limits)
    assert found == said(protocol, (*before, line), **limits)
    if line == b"DATA":
        assert found[0].splitlines()[-1].startswith(b"354 ")


@protocols
@pytest.mark.parametrize(
    ("line", "plain", "before"),
    [
        (b"EHLO   c.example.com", HELLO, ()),
        (b"NOOP   word", b"NOOP word", ()),
        (b"MAIL  FROM:<a@example.com>", MAIL, (HELLO,)),
        (b"MAIL FROM: <a@example.com>", MAIL, (HELLO,)),
        (b"MAIL FROM:   <a@example.com>", MAIL, (HELLO,)),
        (b"MAIL FROM: <>", b"MAIL FROM:<>", (HELLO,)),
        (b"MAIL FROM:<a@example.com>   SIZE=1", b"MAIL FROM:<a@example.com> SIZE=1", (HELLO,)),
        (
            b"MAIL FROM:<a@example.com> SIZE=1   BODY=7BIT \t",
            b"MAIL FROM:<a@example.com> SIZE=1 BODY=7BIT",
            (HELLO,),
        ),
        (b"RCPT  TO:<b@example.com>", RCPT, (HELLO, MAIL)),
        (b"RCPT TO: <b@example.com>", RCPT, (HELLO, MAIL)),
        (
            b"RCPT TO:<b@example.com>  NOTIFY=NEVER",
            b"RCPT TO:<b@example.com> NOTIFY=NEVER",
            (HELLO, MAIL),
        ),
        (b"BDAT  0   LAST", b"BDAT 0 LAST", ENVELOPE),
        (b"VRFY   b", b"VRFY b", (HELLO,)),
    ],
)
def test_extra_spaces_are_tolerated(
    line: bytes, plain: bytes, before: tuple[bytes, ...], protocol: str
) -> None:
    assert said(protocol, (*before, line)) == said(protocol, (*before, plain))


@pytest.mark.parametrize(
    ("line", "code", "before"),
    [
        (b" NOOP", 500, ()),
        (b"\tNOOP", 500, ()),
        (b" ", 500, ()),
        (b"\t", 500, ()),
        (b"NOOP\x0b", 500, ()),
        (b"NOOP\xa0", 500, ()),
        (b"EHLO\tc.example.com", 500, ()),
        (b"EHLO \tc.example.com", 501, ()),
        (b"EHLO c.example.com d", 501, ()),
        (b"MAIL\tFROM:<a@example.com>", 500, (HELLO,)),
        (b"MAIL FROM:\t<a@example.com>", 501, (HELLO,)),
        (b"MAIL FROM :<a@example.com>", 501, (HELLO,)),
        (b"MAIL FROM:<a@example.com>\tSIZE=1", 501, (HELLO,)),
        (b"MAIL FROM:<a@example.com> SIZE=1\tBODY=7BIT", 501, (HELLO,)),
        (b"MAIL FROM:<a@example.com\t>", 501, (HELLO,)),
        (b"MAIL FROM:<a@example.com >", 501, (HELLO,)),
        (b'MAIL FROM:<"a\tb"@example.com>', 501, (HELLO,)),
        (b"RCPT TO:< b@example.com>", 501, (HELLO, MAIL)),
        (b"RCPT TO:<b@example.com>\tNOTIFY=NEVER", 501, (HELLO, MAIL)),
        (b"BDAT 0\tLAST", 501, ENVELOPE),
    ],
)
def test_misplaced_white_space_is_refused(
    line: bytes, code: int, before: tuple[bytes, ...]
) -> None:
    driver = EngineDriver()
    driver.feed(*(each + b"\r\n" for each in before))
    assert codes(driver.feed(line + b"\r\n"))[-1:] == [code]


def test_spaces_in_quoted_local_part_are_kept() -> None:
    driver = EngineDriver()
    driver.feed(HELLO + b"\r\n")
    assert codes(driver.feed(b'MAIL FROM:<"a  b"@example.com>\t\r\n')) == [250]
    assert driver.events[-1][:2] == ("mail", '"a  b"@example.com')


@pytest.mark.parametrize("blanks", BLANKS)
def test_white_space_in_auth_response_is_refused(blanks: bytes) -> None:
    """It is not a command: RFC 4954 4 has a server reject characters outside base64's alphabet."""
    driver = EngineDriver(True, mechanisms=MECHANISMS)
    driver.feed(HELLO + b"\r\n")
    assert codes(driver.feed(b"AUTH LOGIN\r\n")) == [334]
    assert codes(driver.feed(b"QUJD" + blanks + b"\r\n")) == [501]
    assert codes(driver.feed(b"NOOP\r\n")) == [250]


@ids
def test_white_space_after_initial_response_is_ignored(blanks: bytes) -> None:
    word = base64.b64encode(f"\0{NAME}\0{PASSWORD}".encode())
    driver = EngineDriver(True, mechanisms=MECHANISMS)
    driver.feed(HELLO + b"\r\n")
    assert codes(driver.feed(b"AUTH PLAIN " + word + blanks + b"\r\n")) == [235]


def test_hooks_get_arguments_without_trailing_white_space() -> None:
    seen = []

    class Handler(Recorder):
        async def handle_NOOP(self, server: Any, session: Any, envelope: Any, arg: Any) -> str:
            seen.append(arg)
            return "250 OK"

        async def handle_EHLO(
            self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]
        ) -> list[str]:
            seen.append(hostname)
            return responses

    with serving(Handler()) as controller, connected(controller.port) as client:
        said = client.codes("EHLO c.example.com\t", "NOOP \t", "NOOP  word\t ", "RSET\t", "QUIT\t")
        assert said == [250, 250, 250, 250, 221]
    assert seen == ["c.example.com", None, "word"]
