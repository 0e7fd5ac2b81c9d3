"""The same handler and dialogue, served by aiosmtpd and by us: the reply codes are the same.

Rules of this file: intended differences are in `DIFFERENT`, with the codes of both; each has a row
in docs/aiosmtpd.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.aiosmtpd import (
    ENVELOPE,
    PLAIN,
    AllHooks,
    Recorder,
    server_context,
    serving,
    serving_by_aiosmtpd,
)
from support.foreign import foreign
from support.smtp_client import MESSAGE, connected

from fastlisten.handlers.smtp.aiosmtpd.types import AuthResult

_, pytestmark = foreign("aiosmtpd.smtp")

HELLO, MAIL, RCPT = ENVELOPE
NOOP = "NOOP"


DIALOGUES: dict[str, list[str | bytes]] = {
    "a message": [*ENVELOPE, "DATA", MESSAGE + b".", "QUIT"],
    "two messages": [
        *ENVELOPE,
        "DATA",
        b"one\r\n.",
        MAIL,
        RCPT,
        "RCPT TO:<waits@x.org>",
        "DATA",
        b".",
    ],
    "helo": ["HELO client.example", MAIL, RCPT, "DATA", b"x\r\n.", "QUIT"],
    "several recipients": [
        *ENVELOPE,
        "RCPT TO:<no@example.org>",
        "RCPT TO:<c@example.org>",
        "RCPT TO:<c@example.org>",
        "DATA",
        b"x\r\n.",
    ],
    "out of order": [MAIL, RCPT, HELLO, RCPT, MAIL, MAIL, "QUIT"],
    "no sender": [HELLO, "MAIL FROM:<no@example.com>", RCPT, "MAIL FROM:<later@example.com>", RCPT],
    "sender not set": [HELLO, "MAIL FROM:<forgets@example.com>", RCPT, MAIL, RCPT],
    "the empty sender": [HELLO, "MAIL FROM:<>", RCPT, "DATA", b"x\r\n."],
    "missing": [HELLO, MAIL, "RCPT TO:<missing@example.org>", "DATA", b"x\r\n."],
    "none": [HELLO, MAIL, "RCPT TO:<none@example.org>", RCPT, "DATA", b"x\r\n."],
    "an exception": [HELLO, MAIL, "RCPT TO:<fails@example.org>", RCPT, "DATA", b"x\r\n.", "NOOP"],
    "a refused message": [*ENVELOPE, "DATA", b"virus\r\n.", MAIL, RCPT, "DATA", b"x\r\n."],
    "reset": [*ENVELOPE, "RSET", RCPT, MAIL, RCPT, "DATA", b"x\r\n."],
    "ehlo resets": [*ENVELOPE, HELLO, RCPT, MAIL, RCPT, "HELO other.example", RCPT],
    "a refused ehlo": ["EHLO refused.example", MAIL, HELLO, MAIL],
    "noop": ["NOOP", "NOOP words", "NOOP refused", "NOOP fails", HELLO, "NOOP"],
    "vrfy": ["VRFY <a@example.org>", "VRFY a@example.org", "VRFY"],
    "unknown": ["BOGUS", HELLO, "BOGUS", "BOGUS x", "EXPN list", MAIL],
    "syntax": [
        HELLO,
        "MAIL",
        "MAIL TO:<a@example.com>",
        "MAIL FROM:<a@example.com> SIZE=x",
        "MAIL FROM:<a@example.com> BODY=9BIT",
        "MAIL FROM:<a@example.com> FOO=bar",
        "MAIL FROM:<a@example.com> SIZE=999999999",
        MAIL,
        "RCPT",
        "RCPT FROM:<a@example.com>",
        "RCPT TO:<a@example.com> FOO=bar",
        "RSET x",
        "QUIT x",
        "EHLO",
        "HELO",
    ],
    "options": [
        HELLO,
        "MAIL FROM:<a@example.com> size=10 body=8bitmime SMTPUTF8",
        "RCPT TO:<b@example.org>",
        "DATA",
        "sch\u00f6n\r\n.".encode(),
    ],
    "delivery reports": [
        HELLO,
        "MAIL FROM:<a@example.com> RET=HDRS",
        "MAIL FROM:<a@example.com> BODY=BINARYMIME",
        MAIL,
        "RCPT TO:<b@example.org> NOTIFY=NEVER",
    ],
}

#: Dialogue, aiosmtpd's codes, our codes.
DIFFERENT: dict[str, tuple[list[str | bytes], list[int], list[int]]] = {
    # An address stands in angle brackets (RFC 5321 4.1.2).
    "no brackets": ([HELLO, "MAIL FROM:a@example.com"], [250, 250], [250, 501]),
    # 554, since RCPT has been tried (RFC 5321 3.3).
    "no recipients": ([HELLO, MAIL, "DATA"], [250, 250, 503], [250, 250, 554]),
    # A refused EHLO leaves the session as it was (RFC 5321 4.1.4).
    "refused ehlo": (
        [*ENVELOPE, "EHLO refused.example", RCPT],
        [250, 250, 250, 550, 503],
        [250, 250, 250, 550, 250],
    ),
    # Not offered, so not implemented.
    "no starttls": ([HELLO, "STARTTLS"], [250, 454], [250, 502]),
    # An address is UTF-8.
    "octets": ([HELLO, b"MAIL FROM:<\xff@example.com>"], [250, 250], [250, 501]),
    # RFC 6531 3.5.
    "not ascii": ([HELLO, "MAIL FROM:<\u00e4@example.com>"], [250, 250], [250, 553]),
    # Much real mail has such lines.
    "a long line": (
        [*ENVELOPE, "DATA", b"x" * 2000 + b"\r\n."],
        [250, 250, 250, 354, 500],
        [250, 250, 250, 354, 250],
    ),
    # RFC 5321 2.3.8.
    "a bare LF": (
        [*ENVELOPE, "DATA", b"x\ny\r\n."],
        [250, 250, 250, 354, 250],
        [250, 250, 250, 354, 550],
    ),
    # The code of help messages is 214 (RFC 5321 4.2.2).
    "help": (["HELP"], [250], [214]),
    # Parameters of extensions need EHLO.
    "parameters after helo": (
        ["HELO client.example", "MAIL FROM:<a@example.com> SIZE=1"],
        [250, 501],
        [250, 555],
    ),
}


def codes(serve: Any, lines: list[str | bytes], **parameters: Any) -> tuple[list[int], AllHooks]:
    """Return the codes of a dialogue, and the handler."""
    handler = AllHooks()
    with serve(handler, **parameters) as controller, connected(controller.port) as client:
        return client.codes(*lines), handler


@pytest.mark.parametrize("name", DIALOGUES)
def test_codes_and_hook_calls_as_in_aiosmtpd(name: str) -> None:
    lines = DIALOGUES[name]
    expected, their_handler = codes(serving_by_aiosmtpd, lines)
    found, our_handler = codes(serving, lines)
    assert found == expected
    assert our_handler.calls == their_handler.calls
    ours, others = our_handler.messages, their_handler.messages
    assert [vars(envelope) for envelope, _ in ours] == [vars(envelope) for envelope, _ in others]
    for (_, session), (_, other) in zip(ours, others, strict=True):
        assert (session.host_name, session.extended_smtp, session.ssl, session.peer[0]) == (
            other.host_name,
            other.extended_smtp,
            other.ssl,
            other.peer[0],
        )


class PlainFunctions:
    """Hooks that are plain functions: neither server accepts their result."""

    def handle_NOOP(self, *arguments: Any) -> str:
        return "250 OK"

    def handle_MAIL(self, server: Any, session: Any, envelope: Any, *arguments: Any) -> str:
        envelope.mail_from = "set"
        return "250 OK"


def test_plain_function_hooks_fail_as_in_aiosmtpd() -> None:
    for serve in (serving_by_aiosmtpd, serving):
        with serve(PlainFunctions()) as controller, connected(controller.port) as client:
            assert client.codes(HELLO, "NOOP", MAIL) == [250, 500, 500]


@pytest.mark.parametrize("name", DIFFERENT)
def test_intended_differences(name: str) -> None:
    lines, others, ours = DIFFERENT[name]
    assert codes(serving_by_aiosmtpd, lines)[0] == others
    assert codes(serving, lines)[0] == ours


# -- TLS


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
    if data.login == b"later":
        message = "454 4.7.0 come again"
        return AuthResult(success=False, handled=False, message=message)
    return AuthResult(success=data.password == b"secret", handled=False, auth_data=data)


class ChecksTls(Recorder):
    def __init__(self, verdict: bool = True) -> None:
        super().__init__()
        self.verdict = verdict

    def handle_STARTTLS(self, server: Any, session: Any, envelope: Any) -> bool:
        assert session.ssl["cipher"][1].startswith("TLS")
        return self.verdict


@pytest.mark.parametrize(
    ("verdict", "parameters"),
    [
        (True, {}),
        (False, {}),
        (True, {"require_starttls": True}),
        (True, {"authenticator": authenticate, "auth_required": True}),
    ],
    ids=["taken", "refused by the hook", "required", "for AUTH"],
)
def test_starttls_replies_as_in_aiosmtpd(verdict: bool, parameters: dict[str, Any]) -> None:
    def run(serve: Callable[..., Any]) -> tuple[list[int], list[Any]]:
        handler = ChecksTls(verdict)
        with (
            serve(handler, tls_context=server_context(), **parameters) as controller,
            connected(controller.port) as client,
        ):
            before = client.codes("NOOP", HELLO, "VRFY a@b.org", MAIL, "STARTTLS")
            client.starttls()
            after = client.codes(HELLO)
            if verdict:
                after += client.codes("STARTTLS x")
                if "authenticator" in parameters:
                    after += client.codes(MAIL, PLAIN)
                after += client.codes(MAIL, RCPT, "DATA", b"x\r\n.")
            return before + after + client.codes("QUIT"), [vars(e) for e, _ in handler.messages]

    expected = run(serving_by_aiosmtpd)
    found = run(serving)
    if verdict:
        # STARTTLS again, with an argument: out of order comes before syntax.
        index = expected[0].index(501)
        expected[0][index] = 503
    assert found == expected
