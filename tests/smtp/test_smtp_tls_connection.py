"""How an SMTP connection begins TLS, step by step, on a transport that records calls.

The tests complete the handshake themselves; real ones are in test_smtp_tls.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.smtp_harness import ENVELOPE, HELLO, HOSTNAME, MAIL, codes

from fastlisten.handlers.base import ConnectionInfo, HandlerSettings
from fastlisten.handlers.engine_connection import READ_AHEAD
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.handlers.smtp.engine_protocol import EngineProtocol
from fastlisten.handlers.smtp.mail_session import MailSession

SETTINGS: Any = object()
STARTTLS = b"STARTTLS\r\n"
GO_AHEAD = b"220 2.0.0 Ready to start TLS\r\n"


class Transport(asyncio.Transport):
    """Records what is called.

    Attributes:
        calls: names of the methods called, and the data written, in order.
        handshake: the future that `start_tls` returned.
        breaks: whether writing fails because the client has gone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.handshake: asyncio.Future[Any] | None = None
        self.breaks = False
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.calls.append(bytes(data))
        self.closing |= self.breaks

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.calls.append("close")
        self.closing = True

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def can_write_eof(self) -> bool:
        return True

    @property
    def said(self) -> bytes:
        return b"".join(one for one in self.calls if isinstance(one, bytes))


class PlainTransport(Transport):
    """A transport that supports `start_tls`."""

    def start_tls(self, settings: Any) -> asyncio.Future[Any]:
        assert settings is SETTINGS
        self.calls.append("start_tls")
        self.handshake = asyncio.get_running_loop().create_future()
        return self.handshake


class TlsTransport(Transport):
    """The transport after the handshake."""

    def can_write_eof(self) -> bool:
        return False


def connected(
    transport: Transport, settings: Any = SETTINGS, encrypted: bool = False
) -> EngineProtocol:
    handler = SmtpHandler(HandlerSettings("smtp", "smtp", HOSTNAME, tls=settings))
    info = ConnectionInfo("smtp", "192.0.2.1", 40_000, encrypted)
    protocol = EngineProtocol(MailSession(handler, info))
    protocol.connection_made(transport)
    return protocol


async def turn() -> None:
    """Let the callbacks of a future run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def secured() -> tuple[EngineProtocol, TlsTransport]:
    """Return a connection just after its handshake, and the new transport."""
    old, new = PlainTransport(), TlsTransport()
    protocol = connected(old)
    protocol.data_received(HELLO + STARTTLS)
    assert old.handshake is not None
    old.handshake.set_result(new)
    await turn()
    return protocol, new


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make a test of a coroutine function."""

    def wrapped() -> None:
        asyncio.run(test())

    wrapped.__name__ = test.__name__
    return wrapped


@run
async def test_reading_pauses_before_the_go_ahead() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.data_received(HELLO)
    offer = transport.said
    assert b"STARTTLS" in offer
    protocol.data_received(STARTTLS)
    assert transport.calls == [offer, "pause", GO_AHEAD, "start_tls"]
    assert (protocol.busy, protocol.working) == (True, True)


@run
async def test_pipelined_replies_precede_the_go_ahead() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.data_received(HELLO + MAIL + STARTTLS)
    assert transport.calls[0] == "pause"
    assert transport.calls[2:] == ["start_tls"]
    assert codes(transport.calls[1]) == [250, 250, 220]


@run
async def test_session_continues_on_the_new_transport() -> None:
    old, new = PlainTransport(), TlsTransport()
    protocol = connected(old)
    protocol.data_received(ENVELOPE[: len(HELLO + MAIL)] + STARTTLS)
    calls = list(old.calls)
    assert old.handshake is not None
    old.handshake.set_result(new)
    await turn()
    assert (protocol.busy, protocol.working) == (False, False)
    assert new.calls == []
    protocol.data_received(MAIL)
    protocol.data_received(HELLO + b"QUIT\r\n")
    assert codes(new.said) == [503, 250, 221]
    assert b"STARTTLS" not in new.said
    assert new.calls[-1] == "close"
    assert old.calls == calls


@run
async def test_plaintext_with_starttls_is_refused() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.data_received(HELLO + STARTTLS + b"NOOP\r\n")
    assert codes(transport.said) == [250, 554]
    assert transport.calls[-1] == "close"
    assert "start_tls" not in transport.calls


@run
async def test_plaintext_after_the_go_ahead_closes_silently() -> None:
    # Our transports deliver none; even one that did would not get it executed.
    old, new = PlainTransport(), TlsTransport()
    protocol = connected(old)
    protocol.data_received(HELLO + STARTTLS)
    protocol.data_received(b"NOOP\r\n")
    assert old.calls[-2:] == ["start_tls", "close"]
    assert old.handshake is not None
    old.handshake.set_result(new)
    await turn()
    protocol.data_received(HELLO)
    assert new.calls == []
    assert codes(old.said) == [250, 220]


@pytest.mark.parametrize("cancelled", [True, False])
def test_failed_handshake_is_logged_and_sends_nothing(
    cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        transport = PlainTransport()
        protocol = connected(transport)
        protocol.data_received(HELLO + STARTTLS)
        calls = list(transport.calls)
        assert transport.handshake is not None
        if cancelled:
            transport.handshake.cancel()
        else:
            transport.handshake.set_exception(ConnectionResetError("gone"))
        await turn()
        protocol.connection_lost(None)
        assert transport.calls == calls
        assert protocol._transport is None

    caplog.set_level(logging.DEBUG)
    asyncio.run(main())
    record, _ = [one for one in caplog.records if one.name == "fastlisten.smtp"]
    reason = "cancelled" if cancelled else "gone"
    assert record.getMessage() == f"smtp: TLS handshake with [192.0.2.1]:40000 failed: {reason}"
    assert not [one for one in caplog.records if one.levelno > logging.INFO]


@run
async def test_handshake_completed_after_connection_lost() -> None:
    old, new = PlainTransport(), TlsTransport()
    protocol = connected(old)
    protocol.data_received(HELLO + STARTTLS)
    protocol.connection_lost(None)
    assert old.handshake is not None
    old.handshake.set_result(new)
    await turn()
    assert protocol._transport is None
    assert new.calls == []


@run
async def test_no_handshake_if_the_client_has_gone() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.data_received(HELLO)
    transport.breaks = True
    protocol.data_received(STARTTLS)
    assert transport.calls[1:] == ["pause", GO_AHEAD]


@run
async def test_starttls_refused_without_transport_support() -> None:
    transport = Transport()
    protocol = connected(transport)
    protocol.data_received(HELLO + STARTTLS)
    protocol.data_received(MAIL)
    assert codes(transport.said) == [250, 454, 250]
    assert "pause" not in transport.calls


@run
async def test_starttls_refused_after_eof() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.pause_writing()
    protocol.data_received(HELLO + STARTTLS)
    assert protocol.eof_received()
    protocol.resume_writing()
    assert codes(transport.said) == [250, 454]
    assert transport.calls[-1] == "close"


@pytest.mark.parametrize(
    ("settings", "encrypted", "code"),
    [(None, False, 502), (None, True, 503), (SETTINGS, False, 220), (SETTINGS, True, 503)],
)
def test_starttls_availability(settings: Any, encrypted: bool, code: int) -> None:
    async def main() -> None:
        transport = PlainTransport()
        protocol = connected(transport, settings, encrypted)
        protocol.data_received(HELLO)
        assert (b"STARTTLS" in transport.said) is (code == 220)
        protocol.data_received(STARTTLS)
        assert codes(transport.said) == [250, code]

    asyncio.run(main())


@run
async def test_implicit_tls_never_offers_starttls() -> None:
    handler = SmtpHandler(
        HandlerSettings("smtps", "smtp", HOSTNAME, tls_implicit=True, tls=SETTINGS)
    )
    assert b"STARTTLS" not in handler.limits.ehlo


@run
async def test_paused_reading_is_not_resumed_on_the_old_transport() -> None:
    old, new = PlainTransport(), TlsTransport()
    protocol = connected(old)
    protocol.pause_writing()
    noops = b"NOOP\r\n" * (READ_AHEAD // 6 + 1)
    protocol.data_received(HELLO + noops + STARTTLS)
    assert old.calls == ["pause"]
    protocol.resume_writing()
    while "start_tls" not in old.calls:  # commands are executed in slices
        await asyncio.sleep(0)
    assert "resume" not in old.calls[old.calls.index("start_tls") :]
    assert old.handshake is not None
    old.handshake.set_result(new)
    await turn()
    protocol.data_received(HELLO)
    assert codes(new.said) == [250]
    assert [one for one in new.calls if isinstance(one, str)] == []


@run
async def test_paused_writing_of_the_old_transport_ends_with_it() -> None:
    old, new = PlainTransport(), TlsTransport()
    protocol = connected(old)
    protocol.data_received(HELLO + STARTTLS)
    protocol.pause_writing()  # the go-ahead filled it
    assert old.handshake is not None
    old.handshake.set_result(new)
    await turn()
    protocol.data_received(HELLO)
    assert codes(new.said) == [250]


@run
async def test_resume_writing_of_the_old_transport_is_ignored() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.data_received(HELLO + STARTTLS)
    calls = list(transport.calls)
    protocol.pause_writing()
    protocol.resume_writing()
    assert transport.calls == calls


@run
async def test_eof_over_tls_closes_connection() -> None:
    # Asking a TLS transport to stay open has no effect but a warning in the log.
    protocol, new = await secured()
    protocol.pause_writing()
    protocol.data_received(HELLO)
    assert protocol._at_work()
    assert not protocol.eof_received()
    protocol.resume_writing()
    assert codes(new.said) == [250]
