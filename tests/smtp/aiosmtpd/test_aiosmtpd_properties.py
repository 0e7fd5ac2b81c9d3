"""Any dialogue, served by aiosmtpd and by us: codes, hook calls and envelopes are the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.aiosmtpd import ENVELOPE, AllHooks, serving, serving_by_aiosmtpd
from support.foreign import foreign
from support.smtp_client import connected

_, pytestmark = foreign("aiosmtpd.smtp")

HELLO, MAIL, RCPT = ENVELOPE

#: Lines that stand for a message.
MESSAGES = {"a message": b"x\r\n.y\r\n", "a bad message": b"virus\r\n", "nothing": b""}

#: Without HELO: after it, the two answer parameters with different errors.
LINES = (
    HELLO,
    MAIL,
    "MAIL FROM:<no@example.com>",
    "MAIL FROM:<later@example.com>",
    "MAIL FROM:<forgets@example.com>",
    "MAIL FROM:<> SIZE=5",
    RCPT,
    "RCPT TO:<no@example.org>",
    "RCPT TO:<missing@example.org>",
    "RCPT TO:<fails@example.org>",
    "RCPT TO:<waits@example.org>",
    "RCPT TO:<nobody@example.org> NOTIFY=NEVER",
    "RSET",
    "NOOP",
    "NOOP fails",
    "VRFY a@example.org",
    "BOGUS",
    *MESSAGES,
)

#: Starts that lead most dialogues to a transaction.
START = st.sampled_from([(), (HELLO,), (HELLO, MAIL), (HELLO, MAIL, RCPT)])


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Any, Any]]:
    with serving_by_aiosmtpd(AllHooks()) as other, serving(AllHooks(), max_errors=1000) as ours:
        yield other, ours


def play(controller: Any, lines: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the codes of a dialogue, the calls of hooks, and the envelopes."""
    handler = controller.handler
    handler.calls.clear()
    handler.messages.clear()
    codes = []
    with connected(controller.port) as client:
        for line in lines:
            if line in MESSAGES:
                count = len(handler.messages)
                code = client.data(MESSAGES[line])[0]
                # DATA without recipients is the one difference.
                codes.append(503 if code == 554 and len(handler.messages) == count else code)
            else:
                codes += client.codes(line)
    return codes, list(handler.calls), [vars(envelope) for envelope, _ in handler.messages]


@given(start=START, rest=st.lists(st.sampled_from(LINES), max_size=10))
@example(start=(HELLO, MAIL, RCPT), rest=["a message", MAIL, RCPT, "a bad message", RCPT])
@example(start=(HELLO, MAIL, RCPT), rest=["a message", MAIL, "a message"])
@example(start=(HELLO, MAIL), rest=["RCPT TO:<no@example.org>", "a message", RCPT, "nothing"])
def test_any_dialogue_as_in_aiosmtpd(
    servers: tuple[Any, Any], start: tuple[str, ...], rest: list[str]
) -> None:
    other, ours = servers
    lines = (*start, *rest)
    if lines.count("BOGUS") > 4:
        return  # more errors than aiosmtpd allows
    assert play(ours, lines) == play(other, lines)
