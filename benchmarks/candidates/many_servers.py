"""Candidate: thousands of servers on a stock event loop, one per address, that send a greeting.

Rules of this file: only what asyncio needs for this: no configuration is read, and there are no
limits, no TLS and no handlers to set up.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import uvloop

from benchmarks.candidates.protocol import greeting_echo
from benchmarks.candidates.serve import BACKLOG
from benchmarks.start import address
from benchmarks.workloads import GREETING


async def serve(listeners: int, port: int) -> None:
    """Serve until a signal ends the program, as it ends any that has no handler for it."""
    factory = greeting_echo(GREETING.encode() + b"\r\n")
    sockets = []
    for number in range(1, listeners + 1):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address(number), port))
        sockets.append(sock)
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(factory, sock=sock, backlog=BACKLOG) for sock in sockets]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    loops = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
    with asyncio.Runner(loop_factory=loops[sys.argv[3]]) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))
