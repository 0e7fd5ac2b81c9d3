"""Benchmarks of SMTP without sockets and disks: the engine alone, and the handler around it.

Rules of this file: each session sends one message of 1 KiB, in the pieces that clients send. The
transport only counts and the delivery discards, so that only the protocol's cost is measured. The
number of rounds is fixed. Not part of the test suite:

    python -m pytest benchmarks/bench_smtp_engine.py --benchmark-enable
    python -m benchmarks.bench_smtp_engine                              # the least times alone
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fastlisten.handlers import smtp
from fastlisten.handlers.base import ConnectionInfo, HandlerSettings
from fastlisten.handlers.smtp import handler
from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.smtp_events import Content, Mail, Recipient
from fastlisten.mail.delivery.mailbox_delivery import ACCEPTED
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.reply import Reply

ROUNDS = 15
SESSIONS = 500

#: Microseconds that engine and handler may take for a session of one message.
BUDGET = 60

HELLO = b"EHLO client.example.org\r\n"
ENVELOPE = (
    b"MAIL FROM:<sender@example.com> SIZE=1000\r\n",
    b"RCPT TO:<alice@example.org>\r\n",
    b"DATA\r\n",
)
MESSAGE = (
    b"From: <sender@example.com>\r\nTo: <alice@example.org>\r\nSubject: hello\r\n\r\n"
    + b"some text of a line of usual length, well about seventy characters\r\n" * 14
    + b".\r\n"
)
QUIT = b"QUIT\r\n"

#: The client waits for replies after each piece.
STEPWISE = (HELLO, *ENVELOPE, MESSAGE, QUIT)
PIPELINED = (HELLO, b"".join(ENVELOPE), MESSAGE, QUIT)
AT_ONCE = (b"".join(STEPWISE),)

DONE = Reply(250, "2.0.0", "Ok, id message")

LIMITS = Limits("mx.example.org", max_message_size=2**31 - 1)
PIECE = (b"x" * 70 + b"\r\n") * 910  # 64 KiB, as received from a socket


def converse(pieces: tuple[bytes, ...]) -> int:
    """Run a session of the engine alone; return the octets of its replies."""
    engine, said = SmtpEngine(LIMITS), 0
    for piece in pieces:
        engine.receive(piece)
        while (event := engine.next_event()) is not None:
            kind = type(event)
            if kind is Mail or kind is Recipient or (kind is Content and event.final):  # type: ignore[union-attr]
                engine.accept()
        said += len(engine.replies())
    return said


def swallow() -> int:
    """Read 16 MiB of a message."""
    engine = SmtpEngine(LIMITS)
    for piece in (HELLO, *ENVELOPE):
        engine.receive(piece)
        while engine.next_event() is not None:
            engine.accept()
    for _ in range(256):
        engine.receive(PIECE)
        while engine.next_event() is not None:
            pass
    return 256 * len(PIECE)


class Transport(asyncio.Transport):
    """Counts what is written."""

    said = 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.said += len(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


class DiscardedDelivery:
    """A delivery that succeeds at once and discards the message."""

    name = "message"
    full = False

    def __init__(self, *_: object, **__: object) -> None:
        self._recipients = 0

    def add_recipient(self, recipient: object) -> Reply:
        self._recipients += 1
        return ACCEPTED

    def add(self, data: bytes) -> None:
        pass

    def commit(self) -> list[Reply]:
        return [DONE] * self._recipients


class Sessions:
    """Sessions of the whole handler, without sockets and disks."""

    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name)
        (path / "accounts.toml").write_text('[account."alice@example.org"]\n')
        self.handler = smtp.SmtpHandler(
            HandlerSettings("bench", "smtp", "mx.example.org", data_directory=str(path))
        )
        self.office = PostOffice.enter(str(path))
        self.office.accounts.reload()
        self.handler._office = self.office
        self.info = ConnectionInfo("bench", "192.0.2.1", 40_000)

    def run(self, pieces: tuple[bytes, ...], count: int) -> int:
        """Run sessions one after another; return the octets of their replies."""

        async def main() -> int:
            said = 0
            for _ in range(count):
                protocol: Any = self.handler.connection(self.info)
                transport = Transport()
                protocol.connection_made(transport)
                for piece in pieces:
                    protocol.data_received(piece)
                protocol.connection_lost(None)
                said += transport.said
            return said

        with mock.patch.object(handler, "MailboxDelivery", DiscardedDelivery):
            return asyncio.run(main())

    def close(self) -> None:
        """Release the post office and the directory."""
        self.office.leave()
        self.directory.cleanup()


CUTTINGS = {"stepwise": STEPWISE, "pipelined": PIPELINED, "at once": AT_ONCE}


@pytest.mark.parametrize("cutting", CUTTINGS)
def test_engine(benchmark: Any, cutting: str) -> None:
    assert benchmark.pedantic(converse, (CUTTINGS[cutting],), rounds=ROUNDS, iterations=SESSIONS)


def test_content(benchmark: Any) -> None:
    assert benchmark.pedantic(swallow, rounds=ROUNDS) == 256 * len(PIECE)


@pytest.mark.parametrize("cutting", CUTTINGS)
def test_handler(benchmark: Any, cutting: str) -> None:
    sessions = Sessions()
    try:
        assert benchmark.pedantic(sessions.run, (CUTTINGS[cutting], SESSIONS), rounds=ROUNDS)
    finally:
        sessions.close()


def least(function: Callable[[], object], rounds: int) -> float:
    """Return the least processor time of the rounds, in seconds; load of others only adds to it."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def report() -> None:
    """Print what sessions and contents take."""
    sessions = Sessions()
    try:
        for name, pieces in CUTTINGS.items():
            engine = least(lambda pieces=pieces: [converse(pieces) for _ in range(20)], 500) / 20  # type: ignore[misc]
            handler = least(lambda pieces=pieces: sessions.run(pieces, SESSIONS), ROUNDS) / SESSIONS  # type: ignore[misc]
            print(
                f"session {name:10} engine {engine * 1e6:5.1f} us, "
                f"with handler {handler * 1e6:5.1f} us (budget {BUDGET})"
            )
        print(f"content {256 * len(PIECE) / least(swallow, ROUNDS) / 1e6:.0f} MB/s")
    finally:
        sessions.close()


def main() -> None:
    """Report, or run sessions of the engine alone for a program that counts what they execute."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_smtp_engine")
    parser.add_argument("--count", type=int, help="run as many sessions, and print nothing")
    given = parser.parse_args()
    if given.count is None:
        report()
    for _ in range(given.count or 0):
        converse(STEPWISE)


if __name__ == "__main__":
    main()
