"""Candidate: this package's SMTP, served by the listener code that `fastlisten serve` uses.

With a data directory it is the smtp handler, which delivers to an account's Maildir. Otherwise
messages are discarded, either by a minimal handler of our own on the engine or by aiosmtpd's `Sink`
class on the smtp handler. Log records are formatted and discarded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import Any, ClassVar, cast

from benchmarks.candidates.serve import run_until_told, until_told
from fastlisten import new_event_loop, testing
from fastlisten.cli.logging_setup import set_up_logging
from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings
from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.smtp_events import Content, Goodbye, Mail, Recipient

#: Enough for any load; clients above it would be refused, which counts as an error.
CONNECTIONS = 15_000

#: The recipient that the load generators use.
ACCOUNTS = '[account."alice@example.org"]\n'


class SinkConnection(asyncio.Protocol):
    """Accepts every sender, recipient and message, and keeps nothing."""

    __slots__ = ("_engine", "_transport")

    _transport: asyncio.Transport

    def __init__(self, limits: Limits) -> None:
        self._engine = SmtpEngine(limits)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Pass input to the engine and write its replies."""
        engine = self._engine
        engine.receive(data)
        while (event := engine.next_event()) is not None:
            if isinstance(event, Content):
                if event.final:
                    engine.accept()
            elif isinstance(event, Mail | Recipient):
                engine.accept()
            elif isinstance(event, Goodbye):
                self._transport.write(engine.replies())
                self._transport.close()
                return
        if replies := engine.replies():
            self._transport.write(replies)


class SinkHandler(Handler):
    """SMTP or LMTP to nowhere."""

    name: ClassVar[str] = "sink"
    server_speaks_first: ClassVar[bool] = True
    lazy: ClassVar[bool] = True
    lmtp: ClassVar[bool] = False

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        kind = "LMTP" if self.lmtp else "ESMTP"
        self.greeting = f"220 {settings.hostname} {kind}\r\n".encode()
        self._limits = Limits(
            hostname=settings.hostname,
            max_message_size=100 * 1024 * 1024,
            protocol="lmtp" if self.lmtp else "smtp",
        )

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return the protocol object for one connection."""
        return SinkConnection(self._limits)


class LmtpSinkHandler(SinkHandler):
    """LMTP to nowhere."""

    lmtp: ClassVar[bool] = True


def arguments() -> argparse.Namespace:
    """Return the command line; if it names a data directory, create the account."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="", help="data directory, which gets an account")
    parser.add_argument("--aiosmtpd", action="store_true", help="aiosmtpd's Sink on our engine")
    parser.add_argument("--lmtp", action="store_true")
    given = parser.parse_args()
    if given.data:
        Path(given.data, "accounts.toml").write_text(ACCOUNTS)
    return given


async def serve(given: argparse.Namespace) -> None:
    """Serve until standard input ends."""
    handler: type[Handler] | str = LmtpSinkHandler if given.lmtp else SinkHandler
    options: dict[str, Any] = {}
    if given.data or given.aiosmtpd:
        handler = "lmtp" if given.lmtp else "smtp"
    if given.aiosmtpd:
        options["aiosmtpd-handler"] = "aiosmtpd.handlers:Sink"
    served = testing.serve(
        handler, max_connections=CONNECTIONS, data_directory=given.data, options=options
    )
    async with served as at:
        await until_told(at.port)
        # Connections may still be open; closing them one by one is not part of the measurement.
        os._exit(0)


if __name__ == "__main__":
    with Path(os.devnull).open("w") as nowhere:
        set_up_logging("info", "text", nowhere)
        words = arguments()
        run_until_told(lambda: serve(words), new_event_loop)
