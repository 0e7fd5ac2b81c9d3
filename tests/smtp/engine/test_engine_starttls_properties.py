"""No plaintext command is executed after the handshake, whatever came before and however split."""

from __future__ import annotations

import base64
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_driver import NAME, PASSWORD, EngineDriver
from support.smtp_harness import HELLO

#: Limits so large that errors in plaintext, which still count after the handshake, don't matter.
LIMITS: dict[str, Any] = {
    "max_message_size": 300,
    "max_errors": 10_000,
    "max_recipients": 10_000,
    "mechanisms": ("PLAIN", "LOGIN"),
    "auth_in_clear": True,
}

LOGIN = b"AUTH PLAIN " + base64.b64encode(f"\0{NAME}\0{PASSWORD}".encode()) + b"\r\n"


def session(sender: str) -> st.SearchStrategy[bytes]:
    """Return streams of commands by one sender, some of them invalid or cut short."""
    mail = f"MAIL FROM:<{sender}@example.com>\r\n".encode()
    rcpt = f"RCPT TO:<{sender}@example.org>\r\n".encode()
    message = b"DATA\r\n" + sender.encode() + b"\r\n.\r\n"
    snippets = st.sampled_from(
        [
            HELLO,
            f"EHLO {sender}\r\n".encode(),
            f"HELO {sender}\r\n".encode(),
            mail,
            rcpt,
            b"RCPT TO:<nobody@x>\r\n",
            message,
            HELLO + mail + rcpt + message,
            HELLO + mail + rcpt + b"DATA\r\n",
            HELLO + mail + rcpt + b"BDAT 8\r\n" + (sender + " " * 8)[:8].encode(),
            b"BDAT 8 LAST\r\n" + (sender + " " * 8)[:8].encode(),
            HELLO + LOGIN,
            LOGIN,
            b"AUTH LOGIN\r\n",
            b"\r\n.\r\n",
            b"STARTTLS\r\n",
            b"STARTTLS",
            b"NOOP\r\n",
            b"RSET\r\n",
            b"NONSENSE\r\n",
            b"x" * 600,
            b"MAIL FROM:<",
            b"\r",
            b"\n",
            b"\r\n",
            b"\0",
        ]
    )
    return st.lists(snippets, max_size=12).map(b"".join)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Split a stream at the given offsets."""
    edges = sorted({0, len(stream), *(edge for edge in cuts if edge < len(stream))})
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(0, 1500), max_size=10)


@settings(max_examples=300)
@given(
    before=session("plain"),
    cuts=CUTS,
    together=st.booleans(),
    injected=st.just(b"") | session("plain"),
    after=session("tls"),
    tls_cuts=CUTS,
)
def test_plaintext_is_never_executed_after_the_handshake(
    before: bytes,
    cuts: list[int],
    together: bool,
    injected: bytes,
    after: bytes,
    tls_cuts: list[int],
) -> None:
    driver = EngineDriver(starttls=True, **LIMITS)
    # The client sends STARTTLS last, in a segment of its own or not; the attacker appends to it.
    last = b"\r\n.\r\n\r\n*\r\n" + HELLO + b"STARTTLS\r\n"
    chunks = pieces(before, cuts)
    chunks += [last + injected] if together else [last, injected]
    driver.feed(*chunks)
    engine = driver.engine
    if not engine.securing:
        # Plaintext after some STARTTLS: the session is over, and no handshake starts another.
        assert engine.closed
        with pytest.raises(RuntimeError):
            engine.tls_started()
        ended = (driver.replies, list(driver.events))
        driver.feed(after)
        assert (driver.replies, driver.events) == ended
        return
    assert not injected
    count, said = len(driver.events), len(driver.replies)
    engine.tls_started()
    fresh = EngineDriver(starttls=True, encrypted=True, **LIMITS)
    assert engine.buffered == fresh.engine.buffered == 0
    driver.feed(*pieces(after, tls_cuts))
    fresh.feed(after)
    # A fresh session does and says the same.
    assert driver.events[count:] == fresh.events
    assert driver.replies[said:] == fresh.replies
    assert b"plain" not in repr(driver.events[count:]).encode()
    for name in ("authenticated", "client_name", "extended", "transaction", "closed", "buffered"):
        assert getattr(engine, name) == getattr(fresh.engine, name), name
