"""How an SMTP connection begins TLS, step by step, on a transport that writes down what it is told.

The handshake itself ends when a test says so; what a true one does is in test_smtp_tls.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.smtp_harness import ENVELOPE, HELLO, HOSTNAME, MAIL, codes

from fastlisten.handlers.base import ConnectionInfo, HandlerSettings
from fastlisten.handlers.smtp import SmtpHandler
from fastlisten.handlers.smtp.engine_protocol import READ_AHEAD
from fastlisten.handlers.smtp.smtp_connection import SmtpConnection

SETTINGS: Any = object()
STARTTLS = b"STARTTLS\r\n"
GO_AHEAD = b"220 2.0.0 Ready to start TLS\r\n"


class Transport(asyncio.Transport):
    """Writes down what it is told.

    Attributes:
        told: names of the methods called, in order, replies in their place.
        handshake: what `start_tls` gave.
        breaks: writing finds out that the client has gone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []
        self.handshake: asyncio.Future[Any] | None = None
        self.breaks = False
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.told.append(bytes(data))
        self.closing |= self.breaks

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.told.append("close")
        self.closing = True

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")

    def can_write_eof(self) -> bool:
        return True

    @property
    def said(self) -> bytes:
        return b"".join(one for one in self.told if isinstance(one, bytes))


class PlainTransport(Transport):
    """One that can begin TLS."""

    def start_tls(self, settings: Any) -> asyncio.Future[Any]:
        assert settings is SETTINGS
        self.told.append("start_tls")
        self.handshake = asyncio.get_running_loop().create_future()
        return self.handshake


class TlsTransport(Transport):
    """What the handshake gives."""

    def can_write_eof(self) -> bool:
        return False


def connected(
    transport: Transport, settings: Any = SETTINGS, encrypted: bool = False
) -> SmtpConnection:
    handler = SmtpHandler(HandlerSettings("smtp", "smtp", HOSTNAME, tls=settings))
    protocol = SmtpConnection(handler, ConnectionInfo("smtp", "192.0.2.1", 40_000, encrypted))
    protocol.connection_made(transport)
    return protocol


async def turn() -> None:
    """Let the callbacks of a future run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def secured() -> tuple[SmtpConnection, TlsTransport]:
    """Return a connection whose handshake has just been made, and its new transport."""
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
async def test_reading_stops_before_the_go_ahead_is_given() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.data_received(HELLO)
    offer = transport.said
    assert b"STARTTLS" in offer
    protocol.data_received(STARTTLS)
    assert transport.told == [offer, "pause", GO_AHEAD, "start_tls"]
    assert (protocol.busy, protocol.working) == (True, True)


@run
async def test_replies_in_front_of_it_go_out_with_the_go_ahead() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.data_received(HELLO + MAIL + STARTTLS)
    assert transport.told[0] == "pause"
    assert transport.told[2:] == ["start_tls"]
    assert codes(transport.told[1]) == [250, 250, 220]


@run
async def test_everything_goes_on_over_the_new_transport() -> None:
    old, new = PlainTransport(), TlsTransport()
    protocol = connected(old)
    protocol.data_received(ENVELOPE[: len(HELLO + MAIL)] + STARTTLS)
    told = list(old.told)
    assert old.handshake is not None
    old.handshake.set_result(new)
    await turn()
    assert (protocol.busy, protocol.working) == (False, False)
    assert new.told == []
    protocol.data_received(MAIL)
    protocol.data_received(HELLO + b"QUIT\r\n")
    assert codes(new.said) == [503, 250, 221]
    assert b"STARTTLS" not in new.said
    assert new.told[-1] == "close"
    assert old.told == told


@run
async def test_surplus_is_refused_and_the_connection_closed() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.data_received(HELLO + STARTTLS + b"NOOP\r\n")
    assert codes(transport.said) == [250, 554]
    assert transport.told[-1] == "close"
    assert "start_tls" not in transport.told


@run
async def test_plaintext_after_the_go_ahead_closes_without_a_word() -> None:
    # No transport of ours delivers any; one that did would not get it executed.
    old, new = PlainTransport(), TlsTransport()
    protocol = connected(old)
    protocol.data_received(HELLO + STARTTLS)
    protocol.data_received(b"NOOP\r\n")
    assert old.told[-2:] == ["start_tls", "close"]
    assert old.handshake is not None
    old.handshake.set_result(new)
    await turn()
    protocol.data_received(HELLO)
    assert new.told == []
    assert codes(old.said) == [250, 220]


@pytest.mark.parametrize("cancelled", [True, False])
def test_a_handshake_that_fails_is_told_to_nobody(
    cancelled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        transport = PlainTransport()
        protocol = connected(transport)
        protocol.data_received(HELLO + STARTTLS)
        told = list(transport.told)
        assert transport.handshake is not None
        if cancelled:
            transport.handshake.cancel()
        else:
            transport.handshake.set_exception(ConnectionResetError("gone"))
        await turn()
        protocol.connection_lost(None)
        assert transport.told == told
        assert protocol._transport is None

    caplog.set_level(logging.DEBUG)
    asyncio.run(main())
    record, _ = [one for one in caplog.records if one.name == "fastlisten.smtp"]
    reason = "cancelled" if cancelled else "gone"
    assert record.getMessage() == f"smtp: TLS handshake with [192.0.2.1]:40000 failed: {reason}"
    assert not [one for one in caplog.records if one.levelno > logging.INFO]


@run
async def test_a_handshake_that_is_done_after_the_end_changes_nothing() -> None:
    old, new = PlainTransport(), TlsTransport()
    protocol = connected(old)
    protocol.data_received(HELLO + STARTTLS)
    protocol.connection_lost(None)
    assert old.handshake is not None
    old.handshake.set_result(new)
    await turn()
    assert protocol._transport is None
    assert new.told == []


@run
async def test_a_client_that_has_gone_is_not_shaken_hands_with() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.data_received(HELLO)
    transport.breaks = True
    protocol.data_received(STARTTLS)
    assert transport.told[1:] == ["pause", GO_AHEAD]


@run
async def test_it_is_declined_where_the_transport_cannot() -> None:
    transport = Transport()
    protocol = connected(transport)
    protocol.data_received(HELLO + STARTTLS)
    protocol.data_received(MAIL)
    assert codes(transport.said) == [250, 454, 250]
    assert "pause" not in transport.told


@run
async def test_it_is_declined_after_the_end_of_input() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.pause_writing()
    protocol.data_received(HELLO + STARTTLS)
    assert protocol.eof_received()
    protocol.resume_writing()
    assert codes(transport.said) == [250, 454]
    assert transport.told[-1] == "close"


@pytest.mark.parametrize(
    ("settings", "encrypted", "code"),
    [(None, False, 502), (None, True, 503), (SETTINGS, False, 220), (SETTINGS, True, 503)],
)
def test_where_it_can_be_had(settings: Any, encrypted: bool, code: int) -> None:
    async def main() -> None:
        transport = PlainTransport()
        protocol = connected(transport, settings, encrypted)
        protocol.data_received(HELLO)
        assert (b"STARTTLS" in transport.said) is (code == 220)
        protocol.data_received(STARTTLS)
        assert codes(transport.said) == [250, code]

    asyncio.run(main())


@run
async def test_implicit_tls_offers_none_even_if_it_could() -> None:
    handler = SmtpHandler(
        HandlerSettings("smtps", "smtp", HOSTNAME, tls_implicit=True, tls=SETTINGS)
    )
    assert b"STARTTLS" not in handler.limits.ehlo


@run
async def test_reading_that_was_paused_is_not_resumed_on_the_old_transport() -> None:
    old, new = PlainTransport(), TlsTransport()
    protocol = connected(old)
    protocol.pause_writing()
    noops = b"NOOP\r\n" * (READ_AHEAD // 6 + 1)
    protocol.data_received(HELLO + noops + STARTTLS)
    assert old.told == ["pause"]
    protocol.resume_writing()
    while "start_tls" not in old.told:  # in shares of the loop
        await asyncio.sleep(0)
    assert "resume" not in old.told[old.told.index("start_tls") :]
    assert old.handshake is not None
    old.handshake.set_result(new)
    await turn()
    protocol.data_received(HELLO)
    assert codes(new.said) == [250]
    assert [one for one in new.told if isinstance(one, str)] == []


@run
async def test_a_full_buffer_of_the_old_transport_does_not_stop_the_new_one() -> None:
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
async def test_the_old_transport_empties_its_buffer_before_the_handshake() -> None:
    transport = PlainTransport()
    protocol = connected(transport)
    protocol.data_received(HELLO + STARTTLS)
    told = list(transport.told)
    protocol.pause_writing()
    protocol.resume_writing()
    assert transport.told == told


@run
async def test_the_end_of_input_over_tls_ends_the_connection_at_once() -> None:
    # Asking an encrypted transport to stay open has no effect but a warning in the log.
    protocol, new = await secured()
    protocol.pause_writing()
    protocol.data_received(HELLO)
    assert protocol._at_work()
    assert not protocol.eof_received()
    protocol.resume_writing()
    assert codes(new.said) == [250]
