"""Starts a Python candidate, reports its timer's lag, and ends it.

Rules of this file: nothing here runs per connection. The program prints its port on one line. It
answers each line of standard input with one line of JSON, the lags of its timer since the previous
line (the first line starts the timer). It ends when standard input does, so that no server outlives
the program that measures it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from benchmarks.candidates.protocol import greeting_echo, slow_every

__all__ = ["BACKLOG", "Served", "Settings", "run", "run_until_told", "settings", "until_told"]

#: The same for every candidate, and the package's default; it has room for a burst of 1,000
#: clients. asyncio accepts up to this many connections at once.
BACKLOG = 1024

#: Period of the timer whose lag is measured, in seconds.
TIMER_PERIOD = 0.010


class Served(Protocol):
    """The part of a server object that is used here; asyncio's, uvloop's and ours all have it."""

    def close(self) -> None:
        """Stop listening."""


class Settings(argparse.Namespace):
    """The command line of a candidate.

    Attributes:
        greeting: the greeting with its CR LF, or empty.
        limit: max_connections, or None (only fastlisten has one).
        lazy: create Python objects only at the first byte (only fastlisten).
        certificate: PEM file; if set, connections use TLS from their first byte.
        key: PEM file of its key.
        slow_every: one connection in this many works for `slow` per message; 0 for none.
        slow: seconds.
    """

    greeting: bytes
    limit: int | None
    lazy: bool
    certificate: str | None
    key: str | None
    slow_every: int
    slow: float

    def context(self) -> ssl.SSLContext | None:
        """Return a TLS context with Python's default settings, or None."""
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def factory(self) -> Callable[[], asyncio.Protocol]:
        """Return the protocol factory; with lazy connections the core sends the greeting."""
        kind = greeting_echo(b"" if self.lazy else self.greeting)
        return slow_every(self.slow_every, self.slow, kind) if self.slow_every else kind


def settings() -> Settings:
    """Return the command line's settings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--greeting", type=lambda text: text.encode() + b"\r\n", default=b"")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--lazy", action="store_true")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--slow-every", type=int, default=0)
    parser.add_argument("--slow", type=float, default=0.001)
    return parser.parse_args(namespace=Settings())


class TimerLags:
    """A periodic timer that records how late it is called.

    Each call is due one period after the previous one was due, not after it ran: a loop that was
    busy for 100 ms is late for ten calls, as other timers would be. The clock is read for each
    call, because uvloop's own time is taken at the start of an iteration, which hides the lag.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lags: list[float] = []
        self._due = time.monotonic() + TIMER_PERIOD
        loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        while self._due <= now:
            self._lags.append(now - self._due)
            self._due += TIMER_PERIOD
        self._loop.call_at(self._due, self._tick)

    def take(self) -> list[float]:
        """Return the lags in seconds since the last call of this method."""
        lags, self._lags = self._lags, []
        return lags


def listening_socket() -> socket.socket:
    """Return a socket bound to an ephemeral port of 127.0.0.1; connections inherit TCP_NODELAY.

    It is created with IPPROTO_TCP, as getaddrinfo would say. Otherwise asyncio would not set
    TCP_NODELAY on each connection, as it does in servers with host and port.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


async def until_told(port: int) -> None:
    """Print the port, and report the timer's lags until standard input ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    lags: TimerLags | None = None

    def command() -> None:
        nonlocal lags
        words = os.read(0, 4096)
        if not words:
            loop.remove_reader(0)
            ended.set()
            return
        if lags is None:
            lags = TimerLags(loop)
        print(json.dumps(lags.take()), flush=True)

    loop.add_reader(0, command)
    print(port, flush=True)
    await ended.wait()


def run(
    serve: Callable[[socket.socket], Awaitable[Served]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> None:
    """Serve on a loop from the factory until standard input ends.

    Args:
        serve: takes a bound socket and returns the listening server.
        loop_factory: as for asyncio.Runner.
    """

    async def main() -> None:
        sock = listening_socket()
        server = await serve(sock)
        await until_told(sock.getsockname()[1])
        server.close()

    run_until_told(main, loop_factory)


def run_until_told(
    main: Callable[[], Coroutine[Any, Any, None]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> None:
    """Run a program that serves and waits in `until_told`; does not return.

    Args:
        main: the program.
        loop_factory: as for asyncio.Runner.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
        # Connections may still be open; closing them one by one is not part of the measurement.
        sys.stdout.flush()
        os._exit(0)
