"""Candidate: this package's accept path and connections, on a uvloop loop.

Eager: the protocol writes the greeting in `connection_made`, as in the other candidates. Lazy: the
core sends the greeting and creates the protocol at the first byte. With a limit, clients above it
are refused with `REFUSAL`. With a certificate, all connections use the core's TLS.
"""

from __future__ import annotations

import logging
import os
import socket

import uvloop

import fastlisten
from benchmarks.candidates.serve import BACKLOG, Served, run, settings

#: A refusal as in SMTP, about as long as the greeting.
REFUSAL = b"421 4.3.2 too many connections\r\n"


async def serve(sock: socket.socket) -> Served:
    """Return the listening server."""
    given = settings()
    server: Served = await fastlisten.create_server(
        given.factory(),
        sock=sock,
        backlog=BACKLOG,
        ssl=given.context(),
        max_connections=given.limit,
        refusal=REFUSAL,
        lazy=given.lazy,
        greeting=given.greeting if given.lazy else b"",
        # As in SMTP, a refused client has sent nothing yet, so there is nothing to wait for.
        server_first=bool(given.greeting),
    )
    return server


if __name__ == "__main__":
    # Format the records, as a real server does, but do not print them into the table.
    logging.basicConfig(filename=os.devnull, level=logging.INFO)
    run(serve, uvloop.new_event_loop)
