"""Candidate: this package's accept path and connections, hosted by uvloop.

Eager: the protocol writes the greeting in `connection_made`, as in the other candidates. Lazy:
the core sends it and makes the protocol at the first byte. With a limit, what is above it is
refused with `REFUSAL`. With a certificate every connection is TLS, which is the core's too.
"""

from __future__ import annotations

import logging
import os
import socket

import uvloop

import fastlisten
from benchmarks.candidates.serve import BACKLOG, Served, run, settings

#: Words of a refusal as SMTP has them, about as long as the greeting.
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
        # Who is refused has sent nothing yet, as with SMTP: nobody has to wait for his end.
        server_first=bool(given.greeting),
    )
    return server


if __name__ == "__main__":
    # Written in full, as in service, but not over the table.
    logging.basicConfig(filename=os.devnull, level=logging.INFO)
    run(serve, uvloop.new_event_loop)
