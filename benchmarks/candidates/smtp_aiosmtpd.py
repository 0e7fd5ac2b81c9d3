"""Candidate: aiosmtpd, set up as its controller does, on uvloop or on the standard library's loop.

Its `Sink` discards messages; with a data directory, its `Mailbox` stores them in a Maildir. Logging
is not set up, so nothing is logged.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from benchmarks.candidates.serve import BACKLOG, Served, run

try:
    from aiosmtpd.handlers import Mailbox, Sink
    from aiosmtpd.lmtp import LMTP
    from aiosmtpd.smtp import SMTP
except ImportError as error:
    sys.exit(f"aiosmtpd is not installed: {error}")


def _factory() -> tuple[Callable[[], asyncio.Protocol], Callable[[], asyncio.AbstractEventLoop]]:
    """Return the protocol factory and the loop factory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--data", help="directory that gets a Maildir of its own")
    parser.add_argument("--lmtp", action="store_true")
    given = parser.parse_args()
    kind = LMTP if given.lmtp else SMTP
    handler = Mailbox(Path(given.data, "mail")) if given.data else Sink()
    loop = uvloop.new_event_loop if given.loop == "uvloop" else asyncio.new_event_loop
    return lambda: kind(handler, hostname="mail.example.org", enable_SMTPUTF8=True), loop


def main() -> None:
    """Serve until standard input ends."""
    factory, loop_factory = _factory()

    async def serve(sock: socket.socket) -> Served:
        loop = asyncio.get_running_loop()
        return await loop.create_server(factory, sock=sock, backlog=BACKLOG)

    run(serve, loop_factory)


if __name__ == "__main__":
    main()
