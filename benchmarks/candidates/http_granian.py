"""Candidate: granian (HTTP in Rust), with one worker in this process; all its threads count."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvloop

from benchmarks.candidates.http_hello import application
from benchmarks.candidates.serve import run_until_told, until_told

try:
    from granian.constants import Interfaces
    from granian.server.embed import Server
except ImportError as error:
    sys.exit(f"granian is not installed: {error}")


def _free_port() -> int:
    """Return a port that was free a moment ago, because granian does not accept a socket."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def serve() -> None:
    """Serve until standard input ends."""
    port = _free_port()
    server = Server(
        application,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGINL,
        # It would write to standard output, which must have the port only.
        log_enabled=False,
    )
    serving = asyncio.ensure_future(server.serve())
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
            continue
        writer.close()
        break
    await until_told(port)
    serving.cancel()


if __name__ == "__main__":
    run_until_told(serve, uvloop.new_event_loop)
